//! All that stays the same while a kernel is timed.

use std::cell::RefCell;

use super::code::Compiled;
use super::compiler::{compile, step};
use super::memory::Rates;
use super::occupancy::Occupancy;
use super::pattern::Patterns;
use super::resource::Unit;
use super::sharing::Sharing;
use super::warm::Start;
use crate::kernel::{Kernel, Spread, Stmt};
use crate::simt::SimtMachine;

/// A kernel on a machine.
#[derive(Debug)]
pub(super) struct Setting<'p> {
    pub kernel: &'p Kernel,
    pub machine: &'p SimtMachine,
    pub compiled: Compiled,
    pub occupancy: Occupancy,
    pub sharing: Sharing,
    pub rates: Rates,
    /// How it begins.
    pub start: Start,
    /// What [`Unit::times`] says of each unit.
    pub times: [(u64, u64); Unit::ALL.len()],
    /// Accesses that were looked at.
    pub patterns: RefCell<Patterns>,
    /// Whether iterations and waves that repeat are left out.
    pub leaves_out: bool,
    /// Iterations after which the pace of a loop is looked at first.
    pub window: u64,
}

/// [`Setting::window`] where nothing else is said, and where a kernel is only compared with others.
const WINDOW: u64 = 16;
const SHORT_WINDOW: u64 = 8;

impl<'p> Setting<'p> {
    /// For a comparison with kernels that do the same: sooner done, and less exact by a few per cent of bytes.
    pub fn rough(kernel: &'p Kernel, machine: &'p SimtMachine, clock_hz: u64, start: &Start) -> Setting<'p> {
        Setting { window: SHORT_WINDOW, ..Setting::new(kernel, machine, clock_hz, start) }
    }

    pub fn new(kernel: &'p Kernel, machine: &'p SimtMachine, clock_hz: u64, start: &Start) -> Setting<'p> {
        let times = Unit::ALL.map(|unit| match unit {
            Unit::Tensor => tensor_times(kernel, machine),
            _ => unit.times(machine),
        });
        let compiled = compile(kernel, machine, times);
        let occupancy = Occupancy::new(kernel, &compiled, machine);
        Setting {
            kernel,
            machine,
            sharing: Sharing::new(kernel, &compiled, machine, &occupancy),
            rates: Rates::new(machine, clock_hz, occupancy.active),
            start: start.clone(),
            times,
            compiled,
            occupancy,
            patterns: RefCell::default(),
            leaves_out: true,
            window: WINDOW,
        }
    }
}

/// Cycles for which an instruction of matrix units occupies that of a scheduler, and cycles until its result can be used: by the
/// type that the kernel multiplies.
fn tensor_times(kernel: &Kernel, machine: &SimtMachine) -> (u64, u64) {
    let multiplied = kernel.body.iter().find_map(|stmt| match stmt {
        Stmt::Multiply { tile, a, .. } => Some((tile[1], kernel.shared[a.shared.index()].dtype)),
        _ => None,
    });
    let (Some((columns, dtype)), Some(unit)) = (multiplied, &machine.tensor) else {
        return Unit::Tensor.times(machine);
    };
    let rate = unit.macs(dtype);
    let across = Spread::new(machine.warp, columns).map_or(8, Spread::tile_columns);
    let macs = u64::from(Spread::ROWS * across * step(dtype));
    (macs.div_ceil((u64::from(rate) / u64::from(machine.schedulers)).max(1)), u64::from(unit.latency))
}
