//! Schedules that are right for sure, and waste time here and there: operations start some cycles after their operands are there, one
//! access follows the other, and iterations do not overlap.

use crate::fpga::access::Pattern;
use crate::fpga::nest::{Item, Kind, Nest, OpId};
use crate::fpga::schedule::{BlockTime, LoopTime, Schedule};

use super::CLOCK;

/// A schedule of a nest that depends on a seed.
pub fn schedule(nest: Nest, seed: u64) -> Schedule {
    let mut waste = super::noise(seed, 1 << 16).into_iter().cycle();
    let mut starts = vec![0; nest.ops.len()];
    let mut latencies = vec![0; nest.ops.len()];
    let mut blocks = vec![BlockTime::default(); nest.blocks.len()];
    for (number, block) in nest.blocks.iter().enumerate() {
        let mut accessed = 0;
        for &id in &block.ops {
            let op = &nest.ops[id.index()];
            let operands = op.operands.iter().chain(&op.predicate);
            let ready = operands.filter(|operand| block.ops.contains(operand));
            let ready = ready.map(|operand: &OpId| starts[operand.index()] + latencies[operand.index()]).max().unwrap_or(0);
            let waste = u32::from(waste.next().unwrap_or(0) % 8).saturating_sub(4);
            let own = &mut starts[id.index()];
            *own = ready + waste;
            latencies[id.index()] = match &op.kind {
                Kind::Load(_, pattern) | Kind::Store(_, pattern) => {
                    *own = accessed.max(*own);
                    let latency = match pattern {
                        Pattern::Fixed(places) => places.len() as u32 + 1,
                        Pattern::Shifted(_) | Pattern::Scattered => op.copies + 1,
                    };
                    accessed = *own + latency;
                    latency
                }
                _ => nest.operator(id, CLOCK).timing.latency,
            };
            let end = (starts[id.index()] + latencies[id.index()]).max(starts[id.index()] + 1);
            blocks[number].depth = blocks[number].depth.max(end);
        }
    }
    let mut loops = vec![LoopTime { interval: 0, depth: 0, cycles: 0 }; nest.loops.len()];
    for (number, own) in nest.loops.iter().enumerate() {
        if let (true, [Item::Block(block)]) = (own.pipelined, own.body.as_slice()) {
            let depth = u64::from(blocks[block.index()].depth).max(1);
            blocks[block.index()].depth = depth as u32;
            loops[number] = LoopTime { interval: depth, depth, cycles: depth * own.trips() };
        }
    }
    Schedule { nest, starts, latencies, blocks, loops }
}
