//! A stage in time: when a function that is called once touches its FIFOs, if nothing keeps it waiting.
//!
//! It follows what [`Schedule`] says of how a call goes on. Where external memory gives less than iterations want, they begin as much
//! later as the loop takes longer, evenly.

use crate::fpga::design::FifoId;
use crate::fpga::nest::{ArrayPlace, Item, Kind, LoopId, OpId};
use crate::fpga::schedule::{Schedule, asked, need};
use crate::target::TargetError;

/// Most words that a stage takes and gives in an inference.
const MOST_EVENTS: usize = 1 << 20;

/// A word that a stage takes or gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::fpga) struct Event {
    /// Cycles of the stage before it, not counting those in which it waited.
    pub at: u64,
    /// The FIFO.
    pub fifo: FifoId,
    /// Whether it gives the word.
    pub gives: bool,
}

/// What a stage does in an inference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fpga) struct Stage {
    /// Cycles from its start to its end, if it never waits.
    pub cycles: u64,
    /// Words that it takes and gives, in the order of time.
    pub events: Vec<Event>,
}

/// A stage that does what a schedule says; `latency` is that of external memory, in cycles.
///
/// # Errors
/// It touches FIFOs only sometimes, or too often.
pub(in crate::fpga) fn stage(schedule: &Schedule, latency: u64) -> Result<Stage, TargetError> {
    let nest = &schedule.nest;
    let mut numbers = std::collections::HashMap::new();
    let blocks = nest.blocks.iter().map(|block| {
        let own = block.ops.iter().filter_map(|&id| {
            let (Kind::Load(array, _) | Kind::Store(array, _)) = &nest.ops[id.index()].kind else { return None };
            let ArrayPlace::Fifo(fifo) = nest.arrays[array.index()].place else { return None };
            let span = need(nest, id, &mut numbers).map_or(1, |need| need.span);
            Some((id, fifo, span))
        });
        own.collect()
    });
    let blocks = blocks.collect();
    let mut walk = Walk { schedule, latency, blocks, events: Vec::new() };
    // A cycle to begin, which is half of what a call takes besides.
    walk.items(&nest.body, 1)?;
    walk.events.sort();
    Ok(Stage { cycles: schedule.cycles(), events: walk.events })
}

struct Walk<'s> {
    schedule: &'s Schedule,
    latency: u64,
    /// Of each block the accesses to FIFOs, and the words of each.
    blocks: Vec<Vec<(OpId, FifoId, u32)>>,
    events: Vec<Event>,
}

impl Walk<'_> {
    fn touches(&self, items: &[Item]) -> bool {
        items.iter().any(|item| match item {
            Item::Block(id) => !self.blocks[id.index()].is_empty(),
            Item::Loop(id) => self.touches(&self.schedule.nest.loops[id.index()].body),
            Item::Branch { then, otherwise, .. } => self.touches(then) || self.touches(otherwise),
        })
    }

    /// Goes through what is done from a cycle on, and says when it has ended.
    fn items(&mut self, items: &[Item], mut now: u64) -> Result<u64, TargetError> {
        let schedule = self.schedule;
        for item in items {
            now = match item {
                Item::Block(id) => {
                    self.block(id.index(), now)?;
                    now + schedule.blocks[id.index()].cycles
                }
                Item::Loop(id) => {
                    if self.touches(std::slice::from_ref(item)) {
                        self.repeat(*id, now)?;
                    }
                    now + schedule.loops[id.index()].cycles
                }
                Item::Branch { then, otherwise, .. } => {
                    if self.touches(then) || self.touches(otherwise) {
                        return Err(TargetError::Fault("a stage takes or gives words only sometimes".to_owned()));
                    }
                    now + 1 + self.items(then, 0)?.max(self.items(otherwise, 0)?)
                }
            };
        }
        Ok(now)
    }

    fn block(&mut self, number: usize, from: u64) -> Result<(), TargetError> {
        for &(id, fifo, span) in &self.blocks[number] {
            let gives = matches!(self.schedule.nest.ops[id.index()].kind, Kind::Store(..));
            let start = from + u64::from(self.schedule.starts[id.index()]);
            if self.events.len() + span as usize > MOST_EVENTS {
                return Err(TargetError::Fault("a stage takes or gives too many words".to_owned()));
            }
            self.events.extend((0..u64::from(span)).map(|more| Event { at: start + more, fifo, gives }));
        }
        Ok(())
    }

    fn repeat(&mut self, id: LoopId, now: u64) -> Result<(), TargetError> {
        let schedule = self.schedule;
        let (own, time) = (&schedule.nest.loops[id.index()], &schedule.loops[id.index()]);
        let trips = own.trips();
        if let ([Item::Block(block)], true) = (&own.body[..], own.pipelined) {
            let ops = &schedule.nest.blocks[block.index()].ops;
            let reads = asked(&schedule.nest, ops, Some((id, own))).reads_streams();
            let first = if reads { self.latency.min(time.waits) } else { 0 };
            let begun = time.interval * (trips - 1) + (time.waits - first);
            for trip in 0..trips {
                let more = if trips > 1 { u128::from(begun) * u128::from(trip) / u128::from(trips - 1) } else { 0 };
                self.block(block.index(), now + 1 + first + more as u64)?;
            }
            return Ok(());
        }
        for trip in 0..trips {
            // A cycle to enter, and one to count after each time.
            self.items(&own.body, now + 1 + trip * time.interval)?;
        }
        Ok(())
    }
}
