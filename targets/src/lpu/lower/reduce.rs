//! Reductions. Along rows they are running results of an ALU; what is left of each row is combined along lanes (`lanes`), some
//! rows at a time.

mod lanes;

pub(super) use lanes::Combining;
use std::collections::HashSet;

use smallvec::SmallVec;
use tcc_ir::ops::{Binary, Reduce, ReduceFn, Unary};
use tcc_ir::{DType, NumberClass, Op, ValueId};

use super::chain::{Arg, Function, Step};
use super::elementwise::Gathering;
use super::lots::Touched;
use super::work::{Leaf, Target, Work, all_vectors};
use super::{Lease, Lowering, Room, is_elementwise};
use crate::lpu::isa::{Accumulation, Number};
use crate::lpu::layout::Layout;
use crate::lpu::memory::Slices;
use crate::stored::storage;
use crate::target::TargetError;

/// Vectors that are added up before what comes of them goes through the switch: little, so that the first rows do not wait.
const LOT: usize = 64;

impl Lowering<'_> {
    /// Computes a reduction, and what follows it on each of its numbers.
    pub(super) fn reduce(&mut self, reduce: &Reduce, input: ValueId, result: ValueId) -> Result<(), TargetError> {
        let shape = self.graph.shape(input).clone();
        let dtype = self.graph.ty(result).dtype;
        let (_, columns) = Layout::matrix(&shape);
        let (lanes, last) = (self.lanes(), shape.rank().saturating_sub(1));
        let along_lanes = columns > 1 && reduce.axes.contains(&last);
        let function = match reduce.function {
            ReduceFn::Max => Accumulation::Max,
            ReduceFn::Min => Accumulation::Min,
            ReduceFn::Prod => Accumulation::Product,
            ReduceFn::Sum | ReduceFn::Mean => Accumulation::Sum,
        };
        // The vectors of the operand in an order in which those that are combined follow each other.
        let blocks = columns.div_ceil(lanes);
        let leading = &shape[..last.min(shape.rank())];
        let (order, groups) = grouped(leading, &reduce.axes, blocks, along_lanes);
        let group = order.len() / groups.max(1);
        let first: Vec<bool> = (0..order.len()).map(|index| index % group.max(1) == 0).collect();

        // What comes from a product is stored as it comes, and not computed again by everyone who reads it.
        let root = self.plan.access(input).root;
        if self.follows_product(root) {
            self.materialize(root)?;
        }
        let mut gathering = Gathering::new(&shape);
        let mut arg = self.argument(&mut gathering, input, false)?;
        let ragged = along_lanes && !columns.is_multiple_of(lanes);
        if ragged {
            let mask = self.mask(columns, &all_vectors(shape.count() / columns, blocks))?;
            let mask = gathering.leaf(mask);
            let neutral = self.neutral(&mut gathering, function, dtype)?;
            arg = gathering.push(Function::Select, &[mask, arg, neutral], dtype, 64);
        }
        let running = running_dtype(dtype);
        let Arg::Step(step) = gathering.push(Function::Accumulate(function), &[arg], running, 64) else {
            return Err(super::lost("a step is none"));
        };
        let leaves: Vec<Leaf> = gathering
            .leaves
            .into_iter()
            .map(|leaf| Leaf { rows: order.iter().map(|&vector| leaf.rows[vector as usize]).collect(), ..leaf })
            .collect();
        let avoid = leaves.iter().fold(Slices::default(), |all, leaf| all.union(Slices::of(&leaf.layout.slices)));
        let (rows, own_columns) = Layout::matrix(self.graph.shape(result));
        let stored = storage(dtype);
        let to = move |layout: &Lease, rows: usize, blocks: usize, vectors: usize| {
            let mut to = all_vectors(rows, blocks).into_iter();
            let is_last = |index: usize| (index + 1).is_multiple_of(group.max(1));
            let rows = (0..vectors).map(|index| if is_last(index) { to.next() } else { None }).collect();
            Target { step, layout: layout.clone(), rows }
        };
        let mut work = Work { chain: gathering.chain, leaves, targets: Vec::new(), first };
        if !along_lanes {
            let layout = self.allocate(stored, rows, own_columns, 1, avoid)?;
            work.targets.push(to(&layout, rows, own_columns.div_ceil(lanes), order.len()));
            self.run_chain(work)?;
            self.values[result.index()] = Some(layout);
            return Ok(());
        }
        let (last, finish) = self.finish(result);
        self.finished.insert(result);
        let layout = self.allocate(stored, rows, 1, 1, avoid)?;
        let side = self.side_of(&layout);
        // Results of the first rows are there long before the last rows are read.
        let width = self.facts.lanes as usize;
        let lot = width * (LOT / (width * group.max(1))).max(1);
        for start in (0..rows).step_by(lot) {
            let count = lot.min(rows - start);
            let vectors: Vec<usize> = (start * group..(start + count) * group).collect();
            let (reads, _) = Touched::by_chain(&work, &vectors, None);
            let writes = Touched::new(&layout, (start..start + count).map(|row| row as u32));
            let (mut part, result, finish) = (work.some(vectors.into_iter()), layout.clone(), finish.clone());
            self.in_turn((start + count - 1, 1), (reads, writes.into_iter().collect()), move |lowering| {
                let room = Room { stripes: lowering.stripes(), avoid, side: Some(side), ..Room::COMPUTED };
                let own = lowering.allocate_in(running, (count, lanes), room)?;
                part.targets.push(to(&own, count, 1, count * group));
                lowering.run_chain(part)?;
                let combining = (Combining::Elements(function), &finish[..]);
                lowering.reduce_rows(&own, combining, &result, start, avoid)?;
                lowering.give_back(&own);
                Ok(())
            })?;
        }
        self.values[last.index()] = Some(layout);
        Ok(())
    }

    /// Whether a value is element-wise work behind a product of which nothing is computed yet.
    fn follows_product(&self, value: ValueId) -> bool {
        let mut waiting = vec![value];
        let mut seen = HashSet::new();
        while let Some(value) = waiting.pop() {
            if !seen.insert(value) {
                continue;
            }
            if self.pending.contains(&value) {
                return true;
            }
            let Some(node) = self.graph.producer(value).map(|id| self.graph.node(id)) else { continue };
            if self.values[value.index()].is_none() && is_elementwise(&node.op) {
                waiting.extend(node.inputs.iter().map(|&input| self.plan.access(input).root));
            }
        }
        false
    }

    /// What follows a reduction on each of its numbers, where that is all that they are wanted for, as steps behind the one that
    /// reduces, and the value that the last of them is. Done before numbers are spread over lanes, it is done once for many rows.
    fn finish(&self, result: ValueId) -> (ValueId, Vec<Step>) {
        let graph = &self.graph;
        let kernel = &self.plan.kernels[self.kernel as usize];
        let (mut value, mut steps) = (result, Vec::new());
        while graph.ty(value).dtype == DType::F32
            && !kernel.outputs.contains(&value)
            && let Some(producer) = graph.producer(value)
            && let [user] = self.users(producer)[..]
            && kernel.nodes().any(|own| own == user)
        {
            let node = graph.node(user);
            let next = node.output();
            if graph.ty(next) != graph.ty(value) {
                break;
            }
            let argument = |input: ValueId| {
                let access = self.plan.access(input);
                let is_value = access.root == value && access.view.is_dense();
                if is_value { Some(Arg::Step(steps.len())) } else { self.number(input).map(Arg::Number) }
            };
            let args: Option<SmallVec<[Arg; 3]>> = node.inputs.iter().map(|&input| argument(input)).collect();
            let function = match node.op {
                Op::Unary(Unary(function)) if self.is_free(&node.op, &node.inputs) => Function::Unary(function),
                Op::Binary(Binary(function)) => Function::Binary(function),
                _ => break,
            };
            let Some(args) = args else { break };
            steps.push(Step { function, args, dtype: DType::F32 });
            value = next;
        }
        (value, steps)
    }

    /// The number that changes nothing.
    fn neutral(&mut self, gathering: &mut Gathering, function: Accumulation, dtype: DType) -> Result<Arg, TargetError> {
        let integer = dtype.integer_range().unwrap_or((0, 1));
        let number = match (function, dtype.is_float()) {
            (Accumulation::Sum, true) => Number::Float(0.0),
            (Accumulation::Product, true) => Number::Float(1.0),
            (Accumulation::Max, true) => Number::Float(f32::NEG_INFINITY),
            (Accumulation::Min, true) => Number::Float(f32::INFINITY),
            (Accumulation::Sum, false) => Number::Integer(0),
            (Accumulation::Product, false) => Number::Integer(1),
            (Accumulation::Max | Accumulation::Min, false) => {
                let least = if function == Accumulation::Max { integer.0 } else { integer.1 };
                match i32::try_from(least) {
                    Ok(number) => Number::Integer(number),
                    Err(_) => {
                        let bytes = (least as i64 as u64).to_le_bytes()[..dtype.bits() / 8].to_vec();
                        let layout = self.literal(bytes, dtype, 1, 1)?;
                        let rows = vec![(0, 0); gathering.leaves.first().map_or(0, |leaf| leaf.rows.len())];
                        return Ok(gathering.leaf(Leaf { layout, rows }));
                    }
                }
            }
        };
        Ok(Arg::Number(number))
    }
}

/// The type in which running results lie in memory: floats as they are computed.
fn running_dtype(dtype: DType) -> DType {
    match dtype.class() {
        NumberClass::F32 => DType::F32,
        _ => storage(dtype),
    }
}

/// The vectors of a matrix with these leading dimensions, so that those which are combined follow each other, and the number of
/// results.
fn grouped(leading: &[usize], axes: &[usize], blocks: usize, along_lanes: bool) -> (Vec<u32>, usize) {
    // Dimensions with strides in vectors; blocks are the innermost.
    let mut strides = vec![0; leading.len()];
    let mut stride = blocks;
    for (axis, &dim) in leading.iter().enumerate().rev() {
        strides[axis] = stride;
        stride *= dim;
    }
    let dims = || leading.iter().copied().zip(strides.iter().copied()).enumerate();
    let mut outer: Vec<(usize, usize)> = dims().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim).collect();
    let mut inner: Vec<(usize, usize)> = dims().filter(|(axis, _)| axes.contains(axis)).map(|(_, dim)| dim).collect();
    if along_lanes { &mut inner } else { &mut outer }.push((blocks, 1));
    let groups = outer.iter().map(|(dim, _)| dim).product();
    let mut order = vec![0u32];
    for (dim, stride) in outer.into_iter().chain(inner) {
        order = order.into_iter().flat_map(|at| (0..dim as u32).map(move |step| at + step * stride as u32)).collect();
    }
    (order, groups)
}
