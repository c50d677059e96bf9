//! What a block does, as one number: blocks with the same signature take as long.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::code::Space;
use super::lanes::Lanes;
use super::pattern::{conflicts, sectors};
use super::setting::Setting;
use super::warp::{Next, Walk, Warp, warps};

/// Walks the warps of a block: which instructions there are, in how many lanes accesses are made, how many sectors they touch,
/// and how often banks are asked. Of a loop the first two iterations and the last are looked at.
pub(super) fn signature(setting: &Setting<'_>, block: [Lanes; 3]) -> u64 {
    let walk = Walk { compiled: &setting.compiled, lanes: setting.machine.warp as usize };
    let mut hasher = DefaultHasher::new();
    for (first, active) in warps(setting.kernel.threads, setting.machine.warp) {
        let mut warp = Warp::new(walk, Lanes::line(i64::from(first), 1), block.clone(), active, 0);
        loop {
            match warp.walk(walk) {
                Next::End => break,
                Next::Barrier => warp.pass(),
                Next::Instruction(instruction) => {
                    if let Some(number) = instruction.access {
                        let access = &setting.compiled.accesses[number as usize];
                        let index = warp.address(access);
                        let asked = match access.space {
                            Space::Global(buffer) => {
                                let sector = u64::from(setting.machine.sector);
                                let mask = warp.reading(access, warp.active, walk.lanes);
                                sectors(buffer, &index, (access.bits, access.width), mask, sector).len() as u64
                            }
                            Space::Shared(offset) => {
                                let banks = setting.machine.shared.banks;
                                conflicts(offset, &index, (access.bits, access.width), warp.active, banks)
                            }
                        };
                        (number, warp.active.count_ones(), asked).hash(&mut hasher);
                    } else {
                        instruction.unit.index().hash(&mut hasher);
                    }
                    warp.issued(&instruction, 0);
                }
            }
            if warp.take_turn() {
                warp.frames.iter().for_each(|frame| (frame.total, frame.done).hash(&mut hasher));
                let depth = warp.frames.len().wrapping_sub(1);
                if let Some(frame) = warp.frames.last()
                    && frame.done == 2
                    && frame.total > 3
                {
                    warp.skip(depth, frame.total - 3);
                }
            }
        }
    }
    hasher.finish()
}
