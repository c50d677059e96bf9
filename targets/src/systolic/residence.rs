//! Which values stay in the scratchpad from the kernel that writes them to the last that reads them, and where.
//!
//! A part of the scratchpad is set aside for them; kernels take their buffers of the rest. Places are chosen before anything
//! is lowered, by lifetimes as in DRAM, so that equal layers find their values at equal places.

use std::collections::{HashMap, HashSet};

use tcc_ir::{Anchor, Kernel, Op, Plan, ValueId};

use super::layout::{FreeList, storage, written_to};
use super::machine::SystolicMachine;
use super::touch::page_bytes;

/// Where values lie that stay on chip.
#[derive(Clone, Debug, Default)]
pub(super) struct Residence {
    /// Addresses in the scratchpad.
    places: HashMap<ValueId, u32>,
    /// Bytes at the end of the scratchpad that are set aside.
    bytes: u64,
}

/// Of the scratchpad, the share as one in so many that may be set aside.
const SHARE: u64 = 2;

impl Residence {
    /// Chooses the values of a plan that stay on chip; `reads` are the roots that each kernel reads.
    pub(super) fn new(plan: &Plan, reads: &[Vec<ValueId>], machine: &SystolicMachine) -> Residence {
        let graph = &plan.graph;
        let page = u64::from(page_bytes(machine));
        let scratchpad = u64::from(machine.scratchpad.bytes);
        let most = scratchpad / SHARE / page * page;
        let mut stays = vec![true; graph.value_count()];
        let mut last_use: HashMap<ValueId, usize> = HashMap::new();
        for (index, (kernel, roots)) in plan.kernels.iter().zip(reads).enumerate() {
            for &root in roots {
                last_use.insert(root, index);
            }
            if let Some(table) = table(plan, kernel) {
                stays[table.index()] = false;
            }
        }
        graph.outputs().iter().for_each(|output| stays[output.value.index()] = false);
        let mut free = FreeList::default();
        let mut dying: Vec<Vec<(u64, u64)>> = vec![Vec::new(); plan.kernels.len()];
        let mut offsets: Vec<(ValueId, u64)> = Vec::new();
        let mut placed: HashSet<ValueId> = HashSet::new();
        for (index, kernel) in plan.kernels.iter().enumerate() {
            for &output in &kernel.outputs {
                let value = written_to(plan, kernel, output);
                let dtype = storage(graph.ty(value).dtype);
                let bytes = (dtype.bytes(graph.shape(value).count()) as u64).max(1).next_multiple_of(page);
                let Some(&end) = last_use.get(&value) else { continue };
                // The vector unit takes elements of 64 bits one by one, but DRAM does not.
                let fits = stays[value.index()] && dtype.bits() < 64 && bytes <= most;
                if !fits || end <= index || !placed.insert(value) {
                    continue;
                }
                if let Some(offset) = free.take_within(bytes, most) {
                    offsets.push((value, offset));
                    dying[end].push((offset, bytes));
                }
            }
            for &(offset, bytes) in &dying[index] {
                free.give(offset, bytes);
            }
        }
        // No bank holds both values and buffers of kernels.
        let bytes = match machine.scratchpad.separable_bank_bytes() {
            Some(bank_bytes) => free.end().next_multiple_of(u64::from(bank_bytes)),
            None => free.end(),
        };
        let first = scratchpad - bytes;
        let places = offsets.into_iter().map(|(value, offset)| (value, (first + offset) as u32)).collect();
        Residence { places, bytes }
    }

    /// Bytes of a value that finds place on chip among others.
    pub(super) fn usual_bytes(machine: &SystolicMachine) -> u64 {
        u64::from(machine.scratchpad.bytes) / SHARE / 4
    }

    /// Where a value lies, if it stays on chip.
    pub(super) fn place(&self, value: ValueId) -> Option<u32> {
        self.places.get(&value).copied()
    }

    /// Bytes at the end of the scratchpad that are set aside.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The value that a kernel finds rows of by their numbers: it must lie in DRAM, where the DMA engines do that.
fn table(plan: &Plan, kernel: &Kernel) -> Option<ValueId> {
    let Anchor::Movement(id) = kernel.anchor else { return None };
    let node = plan.graph.node(id);
    match &node.op {
        Op::Gather(_) => Some(plan.access(node.inputs[0]).root),
        Op::ScatterNd(_) => Some(written_to(plan, kernel, node.output())),
        _ => None,
    }
}
