//! All that stays the same while a kernel is timed.

use super::code::Compiled;
use super::compiler::compile;
use super::memory::Rates;
use super::occupancy::Occupancy;
use super::resource::Unit;
use super::sharing::Sharing;
use crate::simt::SimtMachine;
use crate::simt::kernel::Kernel;

/// A kernel on a machine.
#[derive(Debug)]
pub(super) struct Setting<'p> {
    pub kernel: &'p Kernel,
    pub machine: &'p SimtMachine,
    pub compiled: Compiled,
    pub occupancy: Occupancy,
    pub sharing: Sharing,
    pub rates: Rates,
    /// What [`Unit::times`] says of each unit.
    pub times: [(u64, u64); Unit::ALL.len()],
    /// Whether iterations and waves that repeat are left out.
    pub leaves_out: bool,
}

impl<'p> Setting<'p> {
    pub fn new(kernel: &'p Kernel, machine: &'p SimtMachine, clock_hz: u64) -> Setting<'p> {
        let compiled = compile(kernel, machine.warp);
        let occupancy = Occupancy::new(kernel, &compiled, machine);
        Setting {
            kernel,
            machine,
            sharing: Sharing::new(kernel, &compiled, machine, &occupancy),
            rates: Rates::new(machine, clock_hz, occupancy.active),
            times: Unit::ALL.map(|unit| unit.times(machine)),
            compiled,
            occupancy,
            leaves_out: true,
        }
    }
}
