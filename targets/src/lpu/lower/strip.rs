//! Strips: rows that go through a plane of the matrix unit, or a pair of planes, with the weights that were loaded before.

use super::chain::{Input, add_chain};
use super::product::Engine;
use super::work::{Leaf, Work, all_vectors, planes};
use super::{Lowering, clashed, lost};
use crate::lpu::isa::{Operation, Queue, Row};
use crate::lpu::layout::{Layout, Place};
use crate::lpu::memory::Slices;
use crate::lpu::schedule::{Clash, Flow, FlowBuilder, Planes, Pool, TrainId};
use crate::target::TargetError;

/// A row in one cycle.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Where it is read.
    pub planes: Planes,
    pub row: Row,
    /// The accumulator row of its sums, and whether they are added to what is there.
    pub sums: (u16, bool),
    /// Whether these sums are complete, and leave.
    pub complete: bool,
}

/// Columns that are loaded in a cycle: the first, and where the vectors of each byte plane lie.
pub(super) struct Columns {
    pub first: u16,
    pub planes: Vec<Vec<Place>>,
}

impl Lowering<'_> {
    /// The plane, or pair of planes, that is free first.
    pub(super) fn free_engine(&self, halves: bool) -> Result<usize, TargetError> {
        let free = |index: usize| self.engines[index].multiply.max(self.engines[index].load);
        let candidates =
            (0..self.engines.len()).filter(|&index| !halves || self.engines[index].plane.is_multiple_of(2));
        let chosen = candidates
            .min_by_key(|&index| if halves { free(index).max(free(self.partner(index))) } else { free(index) });
        chosen.ok_or_else(|| lost("there is no plane"))
    }

    /// The plane that has the high bytes of a plane's halves.
    pub(super) fn partner(&self, index: usize) -> usize {
        let Engine { side, plane, .. } = self.engines[index];
        self.engines.iter().position(|other| other.side == side && other.plane == plane + 1).unwrap_or(index)
    }

    /// Loads columns into the weights that wait.
    pub(super) fn load_columns(&mut self, engine: usize, columns: &[Columns]) -> Result<(), TargetError> {
        let bytes = columns.first().map_or(0, |columns| columns.planes.len());
        for byte in 0..bytes {
            let own = if byte == 0 { engine } else { self.partner(engine) };
            let (side, plane, earliest) = (self.engines[own].side, self.engines[own].plane, self.engines[own].load);
            let queue = Queue::Load(side, plane);
            let mut flow = FlowBuilder::new(self.facts);
            let steps = columns.iter().enumerate();
            let steps = steps.map(|(cycle, columns)| (cycle as i64, columns.planes[byte].iter().copied().collect()));
            let train = flow.load(self.facts.position(queue), steps);
            let operations = columns.iter().enumerate().map(|(cycle, columns)| {
                (cycle as i64, Operation::Load { from: flow.take(train), column: columns.first })
            });
            let operations = operations.collect();
            flow.unit(Pool::Only(queue), operations);
            let flow = flow.finish().map_err(clashed)?;
            let start = self.place(&flow, earliest as i64)?;
            let engine = &mut self.engines[own];
            engine.load = start.0 as u64 + columns.len() as u64;
            engine.multiply = engine.multiply.max(engine.load);
        }
        Ok(())
    }

    /// Brings the weights that wait into use, and has rows multiplied with them.
    pub(super) fn multiply_strip(&mut self, engine: usize, steps: &[Step]) -> Result<(), TargetError> {
        let flow = self.strip(engine, steps, |_, _| None).map_err(clashed)?;
        self.place_strip(engine, steps, &flow)
    }

    /// The same, and has complete sums stored, those of each row where it says.
    pub(super) fn multiply_to(&mut self, engine: usize, steps: &[Step], to: &[Planes]) -> Result<(), TargetError> {
        let at = self.facts.position(Queue::Multiply(self.engines[engine].side, 0));
        let flow = self
            .strip(engine, steps, |flow, leaves| Some(flow.store(at, leaves.iter().copied().zip(to.iter().cloned()))));
        self.place_strip(engine, steps, &flow.map_err(clashed)?)
    }

    /// The same, and has complete sums go through a chain, as this one of its operands. What meets in a slice, or takes more ALUs
    /// than there are, goes through memory.
    pub(super) fn multiply_into(
        &mut self,
        engine: usize,
        steps: &[Step],
        work: &Work,
        leaf: usize,
    ) -> Result<(), TargetError> {
        if self.is_small(work, work.chain.steps.len())
            && let Ok(flow) = self.strip_through(engine, steps, work, leaf)
        {
            return self.place_strip(engine, steps, &flow);
        }
        let rows = steps.iter().fold(Slices::default(), |all, step| all.union(Slices::of(&step.planes)));
        let all = all_vectors(work.first.len(), 1);
        let sums = self.allocate(work.chain.leaves[leaf], all.len(), self.lanes(), 1, rows)?;
        let to: Vec<Planes> = all.iter().map(|&(row, block)| planes(&sums, row, block)).collect();
        self.multiply_to(engine, steps, &to)?;
        let mut work = work.clone();
        work.leaves[leaf] = Leaf { layout: sums.clone(), rows: all };
        self.run_chain(work)?;
        self.give_back(&sums);
        Ok(())
    }

    /// A strip whose complete sums go through a chain without memory between.
    fn strip_through(&self, engine: usize, steps: &[Step], work: &Work, leaf: usize) -> Result<Flow, Clash> {
        let facts = self.facts;
        let middle = facts.position(Queue::Alu(0));
        let at = facts.position(Queue::Multiply(self.engines[engine].side, 0));
        let levelled = work.chain.level();
        let level = levelled.leaf_levels[leaf].unwrap_or(0) as i64;
        self.strip(engine, steps, |flow, leaves| {
            let train = flow.train(FlowBuilder::direction(at, middle), 4, at);
            leaves.iter().for_each(|&cycle| flow.drive(train, at, cycle, middle));
            let inputs = work.leaves.iter().enumerate();
            let inputs: Vec<Input> =
                inputs.map(|(own, input)| if own == leaf { Input::Train(train) } else { input.input() }).collect();
            let outputs: Vec<_> = work.targets.iter().map(|target| target.output(0..leaves.len())).collect();
            let first = leaves.first().copied().unwrap_or(0) + at.abs_diff(middle) as i64;
            let start = first - level * i64::from(facts.vxm.latency);
            add_chain(flow, facts, &levelled, start, &inputs, &outputs, &work.first);
            Some(train)
        })
    }

    /// The planes that multiply rows together.
    fn planes_of(&self, engine: usize, steps: &[Step]) -> [Option<usize>; 2] {
        let halves = matches!(steps.first(), Some(Step { row: Row::Halves(_), .. }));
        [Some(engine), halves.then(|| self.partner(engine))]
    }

    /// Places a strip where its planes are free.
    fn place_strip(&mut self, engine: usize, steps: &[Step], flow: &Flow) -> Result<(), TargetError> {
        let planes = self.planes_of(engine, steps);
        let earliest = planes.into_iter().flatten().map(|own| self.engines[own].multiply).max();
        let start = self.place(flow, earliest.unwrap_or(0) as i64)?;
        for own in planes.into_iter().flatten() {
            let engine = &mut self.engines[own];
            engine.load = start.0 as u64 + 1;
            engine.multiply = (start.0 + steps.len() as i64) as u64;
        }
        Ok(())
    }

    /// A strip; `sums` says what becomes of complete sums, which leave in the given cycles, by their train.
    fn strip(
        &self,
        engine: usize,
        steps: &[Step],
        sums: impl FnOnce(&mut FlowBuilder<'_>, &[i64]) -> Option<TrainId>,
    ) -> Result<Flow, Clash> {
        let (side, plane) = (self.engines[engine].side, self.engines[engine].plane);
        let latency = i64::from(self.facts.mxm.latency);
        let mut flow = FlowBuilder::new(self.facts);
        let rows = steps.iter().enumerate().map(|(cycle, step)| (cycle as i64, step.planes.clone()));
        let train = flow.load(self.facts.position(Queue::Multiply(side, plane)), rows);
        let multiplies = steps.iter().enumerate();
        let multiplies = multiplies
            .map(|(cycle, step)| (cycle as i64, Operation::Multiply { from: flow.take(train), row: step.row }));
        let multiplies = multiplies.collect();
        flow.unit(Pool::Only(Queue::Multiply(side, plane)), multiplies);
        // Installed in the cycle of the first row.
        for own in self.planes_of(engine, steps).into_iter().flatten() {
            let plane = self.engines[own].plane;
            flow.unit(Pool::Only(Queue::Load(side, plane)), vec![(0, Operation::Install)]);
        }
        let complete = steps.iter().enumerate().filter(|(_, step)| step.complete);
        let leaves: Vec<i64> = complete.map(|(cycle, _)| cycle as i64 + latency + 1).collect();
        let leaving = sums(&mut flow, &leaves);
        let accumulates = steps.iter().enumerate().map(|(cycle, step)| {
            let (row, add) = step.sums;
            let to = leaving.filter(|_| step.complete).map(|train| flow.stream(train));
            (cycle as i64 + latency, Operation::Accumulate { row, add, to })
        });
        let accumulates = accumulates.collect();
        flow.unit(Pool::Only(Queue::Accumulate(side, plane)), accumulates);
        flow.finish()
    }
}

/// The vectors of a block of so many rows that follow each other in slices that take turns. Behind the last any will do that lie in
/// other slices.
pub(super) fn striped(layout: &Layout, (row, block): (usize, usize), plane: usize, count: usize) -> Vec<Place> {
    let padded = layout.rows.next_multiple_of(layout.stripes);
    let place = |at: usize| layout.place(if at < padded { at } else { at - layout.stripes }, block, plane);
    (row..row + count).map(place).collect()
}
