//! Work: a chain of ALUs with its operands and results in memory, over many vectors. What takes more ALUs or streams than there are is
//! cut into parts, and what meets in a slice in the same cycle is moved, or done in shorter stretches.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use tcc_ir::{DType, NumberClass};

use super::access::Rows;
use super::chain::{Arg, Chain, Function, Input, Output, Step, add_chain};
use super::lots::Touched;
use super::{ASAP, CHUNK, Lease, Lowering, clashed, lost};
use crate::lpu::layout::Layout;
use crate::lpu::memory::Slices;
use crate::lpu::schedule::{Clash, FlowBuilder, Planes};
use crate::target::TargetError;

/// As [`CHUNK`], for what reads a number for each row.
const SHORT_CHUNK: usize = 16;

/// An operand of a chain: where it lies, and for each vector of the chain's work the row and block.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub layout: Lease,
    pub rows: Rows,
}

/// A result of a chain: a step, and where its vectors go, if they go anywhere.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub step: usize,
    pub layout: Lease,
    pub rows: Vec<Option<(u32, u32)>>,
}

/// A chain with its operands and results.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    pub chain: Chain,
    pub leaves: Vec<Leaf>,
    pub targets: Vec<Target>,
    /// For each vector whether running results begin anew.
    pub first: Vec<bool>,
}

impl Lowering<'_> {
    /// Runs a chain over all its vectors. Steps that nothing uses are left out; what takes more ALUs than there are goes through
    /// memory.
    pub(super) fn run_chain(&mut self, work: Work) -> Result<(), TargetError> {
        let mut temporary = Vec::new();
        let first = work.first.clone();
        // Results of reductions are written in bursts, and what reads others of them must fit between.
        let columns = work.leaves.iter().any(|leaf| leaf.layout.is_splat() && leaf.layout.rows > 1);
        let length = if columns { SHORT_CHUNK } else { CHUNK };
        let parts = self.parts(pruned(work), &mut temporary)?;
        for range in chunks(&first, length) {
            for part in &parts {
                self.run_part(part, range.clone())?;
            }
        }
        temporary.iter().for_each(|layout| self.give_back(layout));
        Ok(())
    }

    /// The same, of so many rows, lot by lot.
    pub(super) fn run_by_lots(&mut self, work: Work, rows: usize) -> Result<(), TargetError> {
        let blocks = work.first.len() / rows.max(1);
        let Some(size) = self.lots.size.filter(|&size| size < rows && work.first.iter().all(|&first| first)) else {
            return self.run_chain(work);
        };
        for start in (0..rows).step_by(size) {
            let end = rows.min(start + size);
            let vectors: Vec<usize> = (start * blocks..end * blocks).collect();
            let touched = Touched::by_chain(&work, &vectors, None);
            let own = work.some(vectors.into_iter());
            self.in_turn((end - 1, 1), touched, move |lowering| lowering.run_chain(own))?;
        }
        Ok(())
    }

    /// Cuts a chain into chains that the vector unit has enough ALUs for.
    fn parts(&mut self, mut work: Work, temporary: &mut Vec<Lease>) -> Result<Vec<Work>, TargetError> {
        let mut parts = Vec::new();
        while !self.is_small(&work, work.chain.steps.len()) {
            let fits = (1..work.chain.steps.len()).rev().find(|&count| self.is_small(&work, count));
            let count = fits.unwrap_or(1);
            if count == work.chain.steps.len() {
                break;
            }
            let (head, tail) = self.cut(work, count, temporary)?;
            parts.push(pruned(head));
            work = pruned(tail);
        }
        parts.push(work);
        Ok(parts)
    }

    /// Whether the first steps of a chain have enough ALUs, and their operands and results enough slices, streams and trains.
    pub(super) fn is_small(&self, work: &Work, count: usize) -> bool {
        let steps = &work.chain.steps[..count];
        let later = &work.chain.steps[count..];
        let crosses = |step: usize| later.iter().any(|later| later.args.contains(&Arg::Step(step)));
        let mut head = Chain { steps: steps.to_vec(), leaves: work.chain.leaves.clone() };
        // What is a result and goes on behind the cut is copied for that.
        let copied = (0..count).filter(|&step| crosses(step) && work.targets.iter().any(|target| target.step == step));
        head.steps.extend(copied.map(|step| copy_of(step, work.chain.steps[step].dtype)));
        if head.level().alus() > self.facts.vxm.alus as usize {
            return false;
        }
        let bytes = |dtype: DType| dtype.bits() / 8;
        let used = |leaf: usize| steps.iter().any(|step| step.args.contains(&Arg::Leaf(leaf)));
        let leaves = (0..work.leaves.len()).filter(|&leaf| used(leaf)).map(|leaf| bytes(work.chain.leaves[leaf]));
        let stored = work.targets.iter().filter(|target| target.step < count).map(|target| bytes(target.layout.dtype));
        let crossing = (0..count).filter(|&step| crosses(step)).map(|step| bytes(crossing_dtype(&work.chain, step)));
        let planes = leaves.chain(stored).chain(crossing).sum::<usize>();
        // Each operand and result is on one side, so that not all slices can be used.
        planes <= (self.facts.mem.slices * 4 / 3).min(self.facts.streams) as usize
    }

    /// Cuts a chain behind so many steps.
    fn cut(&mut self, work: Work, count: usize, temporary: &mut Vec<Lease>) -> Result<(Work, Work), TargetError> {
        let Work { chain, leaves, targets, first } = work;
        let vectors = first.len();
        let (mut targets, late): (Vec<Target>, Vec<Target>) =
            targets.into_iter().partition(|target| target.step < count);
        let mut head = chain.clone();
        head.steps.truncate(count);
        let mut tail = Chain { steps: Vec::new(), leaves: chain.leaves.clone() };
        let mut tail_leaves = leaves.clone();
        let mut crossing: HashMap<usize, usize> = HashMap::new();
        for step in &chain.steps[count..] {
            let mut step = step.clone();
            for arg in &mut step.args {
                let Arg::Step(other) = *arg else { continue };
                if other >= count {
                    *arg = Arg::Step(other - count);
                    continue;
                }
                let leaf = match crossing.get(&other) {
                    Some(&leaf) => leaf,
                    None => {
                        let dtype = crossing_dtype(&chain, other);
                        let avoid = tail_leaves
                            .iter()
                            .map(|leaf| &leaf.layout)
                            .chain(targets.iter().map(|target| &target.layout));
                        let avoid = avoid.fold(Slices::default(), |all, layout| all.union(Slices::of(&layout.slices)));
                        let layout = self.allocate(dtype, vectors, self.lanes(), 1, avoid)?;
                        temporary.push(layout.clone());
                        let rows: Rows = (0..vectors as u32).map(|row| (row, 0)).collect();
                        let step = match targets.iter().any(|target| target.step == other) {
                            false => other,
                            true => {
                                head.steps.push(copy_of(other, dtype));
                                head.steps.len() - 1
                            }
                        };
                        let rows_to = rows.iter().map(|&row| Some(row)).collect();
                        targets.push(Target { step, layout: layout.clone(), rows: rows_to });
                        tail.leaves.push(dtype);
                        tail_leaves.push(Leaf { layout, rows });
                        crossing.insert(other, tail_leaves.len() - 1);
                        tail_leaves.len() - 1
                    }
                };
                *arg = Arg::Leaf(leaf);
            }
            tail.steps.push(step);
        }
        let late = late.into_iter().map(|target| Target { step: target.step - count, ..target }).collect();
        let head = Work { chain: head, leaves, targets, first: first.clone() };
        Ok((head, Work { chain: tail, leaves: tail_leaves, targets: late, first }))
    }

    /// Places the work of a chain on some of its vectors.
    pub(super) fn run_part(&mut self, work: &Work, range: Range<usize>) -> Result<(), TargetError> {
        let levelled = work.chain.level();
        let mut leaves: Vec<Leaf> = work
            .leaves
            .iter()
            .map(|leaf| Leaf { layout: leaf.layout.clone(), rows: leaf.rows[range.clone()].to_vec() })
            .collect();
        let mut moved: Vec<Lease> = Vec::new();
        for _ in 0..=leaves.len() {
            let mut flow = FlowBuilder::new(self.facts);
            let inputs: Vec<Input> = leaves.iter().map(Leaf::input).collect();
            let outputs: Vec<Output> = work.targets.iter().map(|target| target.output(range.clone())).collect();
            add_chain(&mut flow, self.facts, &levelled, 0, &inputs, &outputs, &work.first[range.clone()]);
            let slice = match flow.finish() {
                Ok(flow) => {
                    self.place(&flow, ASAP)?;
                    moved.iter().for_each(|layout| self.give_back(layout));
                    return Ok(());
                }
                Err(Clash::Slice(slice)) => slice,
                Err(clash) => return Err(clashed(clash)),
            };
            let reads = |leaf: &Leaf| Slices::of(&leaf.layout.slices).contains(slice);
            let readers =
                leaves.iter().zip(&levelled.leaf_levels).filter(|(leaf, level)| level.is_some() && reads(leaf));
            // What is read and written in the same slice does not meet if there is little of it.
            if readers.count() < 2
                && let Some(middle) = middle(&work.first, range.clone())
            {
                self.run_part(work, range.start..middle)?;
                self.run_part(work, middle..range.end)?;
                moved.iter().for_each(|layout| self.give_back(layout));
                return Ok(());
            }
            let at = (0..leaves.len()).rev().find(|&at| {
                levelled.leaf_levels[at].is_some()
                    && reads(&leaves[at])
                    && !moved.iter().any(|moved| Arc::ptr_eq(moved, &leaves[at].layout))
            });
            let Some(at) = at else {
                moved.iter().for_each(|layout| self.give_back(layout));
                return self.run_apart(work, range, slice);
            };
            let others = leaves.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, leaf)| &leaf.layout);
            let avoid = others.fold(Slices::default().with(slice), |all, layout| all.union(Slices::of(&layout.slices)));
            let leaf = self.relocated(&leaves[at], avoid)?;
            moved.push(leaf.layout.clone());
            leaves[at] = leaf;
        }
        Err(lost("the operands of a kernel cannot be read together"))
    }

    /// Places work that reads and writes, or writes twice, in one slice in the same cycle: results one after the other, and by way
    /// of other slices.
    fn run_apart(&mut self, work: &Work, range: Range<usize>, slice: u8) -> Result<(), TargetError> {
        if work.targets.len() > 1 {
            return work.targets.iter().try_for_each(|target| {
                self.run_part(&pruned(Work { targets: vec![target.clone()], ..work.clone() }), range.clone())
            });
        }
        let Some(target) = work.targets.first() else { return Ok(()) };
        let taken = work.leaves.iter().map(|leaf| &leaf.layout).chain([&target.layout]);
        let avoid = taken.fold(Slices::default(), |all, layout| all.union(Slices::of(&layout.slices)));
        let count = range.len();
        let between = self.allocate(target.layout.dtype, count, self.lanes(), 1, avoid)?;
        if Slices::of(&between.slices).meets(avoid) {
            return Err(clashed(Clash::Slice(slice)));
        }
        let own: Vec<Option<(u32, u32)>> =
            (0..count).map(|row| target.rows[range.start + row].map(|_| (row as u32, 0))).collect();
        let stored: Vec<usize> = (0..count).filter(|&row| own[row].is_some()).collect();
        let mut first = work.some(range.clone());
        first.targets = vec![Target { step: target.step, layout: between.clone(), rows: own }];
        self.run_part(&first, 0..count)?;
        let from = Leaf { layout: between.clone(), rows: stored.iter().map(|&row| (row as u32, 0)).collect() };
        let to = stored.iter().filter_map(|&row| target.rows[range.start + row]).collect();
        self.copy_vectors(from, target.layout.clone(), to)?;
        self.give_back(&between);
        Ok(())
    }

    /// A copy of some vectors in other slices.
    fn relocated(&mut self, leaf: &Leaf, avoid: Slices) -> Result<Leaf, TargetError> {
        let Leaf { layout, rows } = leaf;
        let dtype = layout.dtype;
        let to = self.allocate(dtype, rows.len(), self.lanes(), 1, avoid)?;
        let all: Rows = (0..rows.len() as u32).map(|row| (row, 0)).collect();
        self.copy_vectors(leaf.clone(), to.clone(), all.clone())?;
        Ok(Leaf { layout: to, rows: all })
    }

    /// Copies vectors.
    pub(super) fn copy_vectors(&mut self, from: Leaf, to: Lease, rows: Rows) -> Result<(), TargetError> {
        let dtype = from.layout.dtype;
        let chain = Chain {
            steps: vec![Step { function: Function::Copy, args: SmallVec::from_slice(&[Arg::Leaf(0)]), dtype }],
            leaves: vec![dtype],
        };
        let first = vec![true; rows.len()];
        let target = Target { step: 0, layout: to, rows: rows.into_iter().map(Some).collect() };
        self.run_chain(Work { chain, leaves: vec![from], targets: vec![target], first })
    }
}

impl Work {
    /// The slices that it reads and writes.
    pub fn slices(&self) -> Slices {
        let layouts =
            self.leaves.iter().map(|leaf| &leaf.layout).chain(self.targets.iter().map(|target| &target.layout));
        layouts.fold(Slices::NONE, |all, layout| all.union(Slices::of(&layout.slices)))
    }

    /// The same work on some of its vectors.
    pub fn some(&self, vectors: impl Iterator<Item = usize> + Clone) -> Work {
        let leaf = |leaf: &Leaf| Leaf {
            layout: leaf.layout.clone(),
            rows: vectors.clone().map(|vector| leaf.rows[vector]).collect(),
        };
        let target = |target: &Target| Target {
            rows: vectors.clone().map(|vector| target.rows[vector]).collect(),
            ..target.clone()
        };
        Work {
            chain: self.chain.clone(),
            leaves: self.leaves.iter().map(leaf).collect(),
            targets: self.targets.iter().map(target).collect(),
            first: vectors.clone().map(|vector| self.first[vector]).collect(),
        }
    }
}

impl Leaf {
    pub fn input(&self) -> Input {
        Input::Memory(self.rows.iter().map(|&(row, block)| planes(&self.layout, row, block)).collect())
    }
}

impl Target {
    pub fn output(&self, range: Range<usize>) -> Output {
        let to = self.rows[range].iter().map(|to| to.map(|(row, block)| planes(&self.layout, row, block))).collect();
        Output { step: self.step, dtype: self.layout.dtype, to }
    }
}

/// Where the planes of a vector lie.
pub(super) fn planes(layout: &Layout, row: u32, block: u32) -> Planes {
    (0..layout.planes()).map(|plane| layout.place(row as usize, block as usize, plane)).collect()
}

/// All rows and blocks, in order.
pub(super) fn all_vectors(rows: usize, blocks: usize) -> Rows {
    (0..rows as u32).flat_map(|row| (0..blocks as u32).map(move |block| (row, block))).collect()
}

/// A step that has another's result.
fn copy_of(step: usize, dtype: DType) -> Step {
    Step { function: Function::Copy, args: SmallVec::from_slice(&[Arg::Step(step)]), dtype }
}

/// The type in which a result crosses memory within a chain: floats as they are computed, without rounding.
fn crossing_dtype(chain: &Chain, step: usize) -> DType {
    let dtype = chain.steps[step].dtype;
    match dtype.class() {
        NumberClass::F32 => DType::F32,
        NumberClass::F64 => DType::F64,
        NumberClass::Signed | NumberClass::Unsigned => dtype,
    }
}

/// Stretches of vectors that a flow works on, cut only where running results begin anew.
fn chunks(first: &[bool], length: usize) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let mut start = 0;
    for index in 1..=first.len() {
        let whole = index - start >= length && (index == first.len() || first[index]);
        if whole || index == first.len() {
            chunks.push(start..index);
            start = index;
        }
    }
    chunks
}

/// Where work can be cut in two.
fn middle(first: &[bool], range: Range<usize>) -> Option<usize> {
    let half = range.start + range.len() / 2;
    let later = (half.max(range.start + 1)..range.end).find(|&index| first[index]);
    later.or_else(|| (range.start + 1..half).rev().find(|&index| first[index]))
}

/// The work without steps and operands that no result needs.
pub(super) fn pruned(work: Work) -> Work {
    let Work { chain, leaves, targets, first } = work;
    let mut needed = vec![false; chain.steps.len()];
    targets.iter().for_each(|target| needed[target.step] = true);
    let mut leaf_needed = vec![false; leaves.len()];
    for (index, step) in chain.steps.iter().enumerate().rev() {
        if needed[index] {
            for arg in &step.args {
                match arg {
                    Arg::Step(other) => needed[*other] = true,
                    Arg::Leaf(leaf) => leaf_needed[*leaf] = true,
                    Arg::Number(_) => {}
                }
            }
        }
    }
    let numbers = |needed: &[bool]| -> Vec<usize> {
        let mut next = 0;
        let number = |&needed: &bool| {
            let number = next;
            next += usize::from(needed);
            number
        };
        needed.iter().map(number).collect()
    };
    let (steps, places) = (numbers(&needed), numbers(&leaf_needed));
    let keep = |step: &Step| {
        let args = step.args.iter().map(|arg| match *arg {
            Arg::Step(other) => Arg::Step(steps[other]),
            Arg::Leaf(leaf) => Arg::Leaf(places[leaf]),
            number @ Arg::Number(_) => number,
        });
        Step { args: args.collect(), ..step.clone() }
    };
    let chain = Chain {
        steps: chain.steps.iter().zip(&needed).filter(|(_, needed)| **needed).map(|(step, _)| keep(step)).collect(),
        leaves: chain.leaves.iter().zip(&leaf_needed).filter(|(_, needed)| **needed).map(|(&dtype, _)| dtype).collect(),
    };
    let leaves = leaves.into_iter().zip(&leaf_needed).filter(|(_, needed)| **needed).map(|(leaf, _)| leaf).collect();
    let targets = targets.into_iter().map(|target| Target { step: steps[target.step], ..target }).collect();
    // Without running results, vectors do not depend on each other.
    let runs = chain.steps.iter().any(|step| matches!(step.function, Function::Accumulate(_)));
    let first = if runs { first } else { vec![true; first.len()] };
    Work { chain, leaves, targets, first }
}
