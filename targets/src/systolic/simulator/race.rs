//! Finds accesses that the program's waits leave unordered.
//!
//! The simulator executes in program order, while the machine's units run side by side. The two agree if every access
//! starts after those earlier ones that it conflicts with have completed. For blocks of each memory and each unit we keep
//! when the last read and the last write complete; since an instruction may touch only part of a block, a conflict of
//! blocks is looked into byte by byte among the instructions that are still in flight.

use std::ops::Range;

use smallvec::SmallVec;

use super::access::{self, Access, Space};
use super::fault::FaultCause;
use crate::systolic::SystolicMachine;
use crate::systolic::assembly;
use crate::systolic::banks::{BankUse, Contention, PortBook};
use crate::systolic::code::Code;
use crate::systolic::isa::{Operation, Unit, WeightRows};
use crate::systolic::timing::Span;

/// Completion times of one kind of access of one unit to one memory, by block.
#[derive(Clone, Default)]
struct Completions {
    blocks: Vec<u64>,
    latest: u64,
}

/// What is known of one memory.
struct Book {
    block_bytes: u64,
    blocks: usize,
    /// First address with a block; what lies before is never written.
    base: u64,
    reads: [Completions; Unit::COUNT],
    writes: [Completions; Unit::COUNT],
}

impl Book {
    fn new(block_bytes: u64, base: u64, bytes: u64) -> Self {
        let blocks = bytes.div_ceil(block_bytes) as usize;
        Book { block_bytes, blocks, base, reads: Default::default(), writes: Default::default() }
    }

    fn blocks_of(&self, run: Range<u64>) -> Range<usize> {
        let start = run.start.saturating_sub(self.base) / self.block_bytes;
        let end = run.end.saturating_sub(self.base).div_ceil(self.block_bytes);
        start as usize..(end as usize).min(self.blocks)
    }

    /// Whether some block of the access may still be in use at `start` by an access that conflicts.
    fn may_conflict(&self, access: &Access, unit: Unit, start: u64) -> bool {
        let mut pending: SmallVec<[&Completions; 2 * Unit::COUNT]> = SmallVec::new();
        for other in Unit::ALL {
            for (write, completions) in [(true, &self.writes[other.index()]), (false, &self.reads[other.index()])] {
                let conflicts = write || access.write;
                if conflicts && completions.latest > start && !in_order(access.space, other, write, unit) {
                    pending.push(completions);
                }
            }
        }
        let mut found = false;
        if !pending.is_empty() {
            access.for_each_run(self.block_bytes, |run| {
                let blocks = self.blocks_of(run);
                found |= pending
                    .iter()
                    .any(|completions| completions.blocks[blocks.clone()].iter().any(|&completion| completion > start));
            });
        }
        found
    }

    fn record(&mut self, access: &Access, unit: Unit, completion: u64) {
        // Reads of what is never written cannot conflict.
        if access.bounds().is_none_or(|(_, end)| end <= i128::from(self.base)) {
            return;
        }
        let mut completions =
            std::mem::take(if access.write { &mut self.writes[unit.index()] } else { &mut self.reads[unit.index()] });
        completions.blocks.resize(self.blocks, 0);
        completions.latest = completions.latest.max(completion);
        access.for_each_run(self.block_bytes, |run| {
            // The completions of one unit ascend.
            completions.blocks[self.blocks_of(run)].fill(completion);
        });
        *(if access.write { &mut self.writes[unit.index()] } else { &mut self.reads[unit.index()] }) = completions;
    }
}

/// Whether the hardware itself keeps a later access of `later` behind an earlier one of `earlier`: a unit reads its
/// operands before the next of its instructions writes, and passes go through the accumulators one after the other.
fn in_order(space: Space, earlier: Unit, earlier_writes: bool, later: Unit) -> bool {
    earlier == later && (!earlier_writes || (space == Space::Accumulators && later == Unit::Array))
}

/// Watches the accesses of a program.
pub(super) struct RaceDetector<'a> {
    code: &'a Code,
    machine: &'a SystolicMachine,
    scratchpad: Book,
    accumulators: Book,
    dram: Book,
    ports: PortBook,
    /// For each unit its instructions so far, with the weights that a pass used.
    history: [Vec<(usize, WeightRows)>; Unit::COUNT],
}

/// All accesses of one instruction.
pub(super) type Accesses = SmallVec<[Access; 5]>;

/// The accesses of an instruction; a pass uses `weights`.
pub(super) fn accesses(op: &Operation, weights: WeightRows, machine: &SystolicMachine) -> Accesses {
    let mut all = Accesses::new();
    access::for_each(op, weights, machine, |access| all.push(access));
    all
}

impl<'a> RaceDetector<'a> {
    /// A detector for a machine with `dram_bytes` of writable DRAM from `dram_base`.
    pub fn new(code: &'a Code, machine: &'a SystolicMachine, dram_base: u64, dram_bytes: u64) -> Self {
        let accumulators = u64::from(machine.accumulators.rows) * u64::from(machine.array.columns) * 4;
        RaceDetector {
            code,
            machine,
            scratchpad: Book::new(64, 0, u64::from(machine.scratchpad.bytes)),
            accumulators: Book::new(64, 0, accumulators),
            dram: Book::new(4096, dram_base, dram_bytes),
            ports: PortBook::new(&machine.scratchpad),
            history: Default::default(),
        }
    }

    /// Checks the accesses of instruction `index`, which must lie within their memories, and takes note of them.
    pub fn check(
        &mut self,
        index: usize,
        weights: WeightRows,
        accesses: &Accesses,
        spans: &[Span],
    ) -> Result<(), FaultCause> {
        let span = spans[index];
        for access in accesses {
            if self.book(access.space).may_conflict(access, span.unit, span.start) {
                self.look_closer(access, span, spans)?;
            }
        }
        self.take_ports(accesses, span)?;
        for access in accesses {
            let book = match access.space {
                Space::Scratchpad => &mut self.scratchpad,
                Space::Accumulators => &mut self.accumulators,
                Space::Dram => &mut self.dram,
            };
            book.record(access, span.unit, span.completion);
        }
        self.history[span.unit.index()].push((index, weights));
        Ok(())
    }

    fn book(&self, space: Space) -> &Book {
        match space {
            Space::Scratchpad => &self.scratchpad,
            Space::Accumulators => &self.accumulators,
            Space::Dram => &self.dram,
        }
    }

    /// Takes ports of the scratchpad's banks.
    fn take_ports(&mut self, accesses: &Accesses, span: Span) -> Result<(), FaultCause> {
        let scratchpad = &self.machine.scratchpad;
        if !scratchpad.is_contended() {
            return Ok(());
        }
        // Gaps that are smaller than a bank hold none.
        let gap = u64::from(scratchpad.bank_bytes()) - 1;
        let mut used = BankUse::default();
        for access in accesses.iter().filter(|access| access.space == Space::Scratchpad) {
            access.for_each_run(gap, |run| used.insert(access.write, run, scratchpad));
        }
        let taken = self.ports.take(span.unit, span.start, span.completion, used);
        taken.map_err(|Contention { bank, write }| FaultCause::Ports { bank, write, start: span.start })
    }

    fn look_closer(&self, access: &Access, span: Span, spans: &[Span]) -> Result<(), FaultCause> {
        for unit in Unit::ALL {
            let flying = self.history[unit.index()].iter().rev();
            for &(other, weights) in flying.take_while(|(other, _)| spans[*other].completion > span.start) {
                let Some(step) = self.code.step(other) else { continue };
                let conflict = accesses(&step.op(), weights, self.machine).iter().any(|earlier| {
                    earlier.space == access.space
                        && (earlier.write || access.write)
                        && !in_order(access.space, unit, earlier.write, span.unit)
                        && earlier.overlaps(access)
                });
                if conflict {
                    return Err(FaultCause::Race {
                        other,
                        instruction: assembly::disassemble_one(&step.resolved()),
                        space: access.space,
                        start: span.start,
                        completion: spans[other].completion,
                    });
                }
            }
        }
        Ok(())
    }
}
