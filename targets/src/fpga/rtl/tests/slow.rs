//! Schedules that are right for sure, and waste time here and there: operations start some cycles after their operands are there, one
//! access follows the other, and iterations do not overlap.

use crate::fpga::nest::{Item, Kind, OpId};
use crate::fpga::schedule::Schedule;

/// Makes a schedule a slow one that depends on a seed.
pub fn slowed(mut schedule: Schedule, seed: u64) -> Schedule {
    let mut waste = super::noise(seed, 1 << 16).into_iter().cycle();
    let (nest, latencies, spans) = (&schedule.nest, &schedule.latencies, &schedule.spans);
    let mut starts = schedule.starts.clone();
    for (number, block) in nest.blocks.iter().enumerate() {
        let (mut accessed, mut depth) = (0, 1);
        for &id in &block.ops {
            let op = &nest.ops[id.index()];
            let operands = op.operands.iter().chain(&op.predicate);
            let ready = operands.filter(|operand| block.ops.contains(operand));
            let takes = |id: &OpId| latencies[id.index()] + spans[id.index()] - 1;
            let mut start = ready.map(|id| starts[id.index()] + takes(id)).max().unwrap_or(0);
            start += u32::from(waste.next().unwrap_or(0) % 8).saturating_sub(4);
            if matches!(op.kind, Kind::Load(..) | Kind::Store(..)) {
                start = accessed.max(start);
                accessed = start + takes(&id) + 1;
            }
            starts[id.index()] = start;
            depth = depth.max(start + takes(&id)).max(start + 1);
        }
        schedule.blocks[number].depth = depth;
    }
    for (number, own) in nest.loops.iter().enumerate() {
        if let (true, [Item::Block(block)]) = (own.pipelined, own.body.as_slice()) {
            let depth = u64::from(schedule.blocks[block.index()].depth);
            (schedule.loops[number].interval, schedule.loops[number].depth) = (depth, depth);
        }
    }
    schedule.starts = starts;
    schedule
}
