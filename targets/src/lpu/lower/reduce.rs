//! Reductions. Along rows they are running results of an ALU. Along lanes, each superlane's are first exchanged with as many
//! rows by a transposer, so that they too come one after the other; superlanes then meet by rotation, and a transposer that is
//! fed the same vector on all its streams spreads each row's result over all lanes.

use std::sync::Arc;

use smallvec::SmallVec;
use tcc_ir::ops::{Reduce, ReduceFn};
use tcc_ir::{DType, NumberClass, ValueId};

use super::chain::{Arg, Chain, Function, Step};
use super::elementwise::{Gathering, Leaf, Target, Work, all_vectors, planes};
use super::{ASAP, CHUNK, Lease, Lowering, clashed};
use crate::lpu::isa::{Accumulation, Alu, AluFn, Direction, Hemisphere, Number, Operand, Operation, Queue};
use crate::lpu::layout::{Layout, Place};
use crate::lpu::memory::Slices;
use crate::lpu::schedule::{FlowBuilder, Pool};
use crate::stored::storage;
use crate::target::TargetError;

impl<'a> Lowering<'a> {
    pub(super) fn reduce(&mut self, reduce: &Reduce, input: ValueId, result: ValueId) -> Result<Lease, TargetError> {
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
        let is_last = |index: usize| (index + 1).is_multiple_of(group.max(1));
        let (rows, own_columns) = Layout::matrix(self.graph.shape(result));
        let stored = storage(dtype);
        let (layout, to) = if along_lanes {
            (self.allocate(running, rows, lanes, self.stripes(), avoid)?, all_vectors(rows, 1))
        } else {
            (self.allocate(stored, rows, own_columns, 1, avoid)?, all_vectors(rows, own_columns.div_ceil(lanes)))
        };
        let mut to = to.into_iter();
        let to = (0..order.len()).map(|index| if is_last(index) { to.next() } else { None }).collect();
        let target = Target { step, layout: layout.clone(), rows: to };
        self.run_chain(Work { chain: gathering.chain, leaves, targets: vec![target], first })?;
        if !along_lanes {
            return Ok(layout);
        }
        let result = self.reduce_lanes(&layout, Combining::Elements(function), stored)?;
        self.give_back(&layout);
        Ok(result)
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

    /// What is combined of all lanes of each row, in all lanes. Rows have one block, and are striped.
    pub(super) fn reduce_lanes(
        &mut self,
        rows: &Lease,
        combining: Combining,
        dtype: DType,
    ) -> Result<Lease, TargetError> {
        let (lanes, width) = (self.lanes(), self.facts.lanes as usize);
        let groups = rows.rows.div_ceil(width);
        // Half of what other flows take: what comes after can begin with the first.
        let per_chunk = (CHUNK / 2 / width).max(1);
        let stripes = self.stripes();
        let result = self.allocate(dtype, rows.rows, 1, stripes, Slices::of(&rows.slices))?;
        // The side whose switch does it is the one where the rows are.
        let side = self.facts.side_of(rows.slices.first().map_or(0, |place| place.slice));
        for start in (0..groups).step_by(per_chunk) {
            let count = per_chunk.min(groups - start);
            let turned = self.allocate(rows.dtype, count * width, lanes, stripes, Slices::of(&rows.slices))?;
            self.exchange(side, rows, start * width, &turned, count)?;
            let folded = self.fold_turned(&turned, combining, count)?;
            let total = self.fold_superlanes(side, &folded, combining, dtype, count)?;
            let copies = self.copies(&total, count)?;
            self.spread(side, &copies, &result, start * width, count)?;
            for layout in [turned, folded, total, copies] {
                self.give_back(&layout);
            }
        }
        Ok(result)
    }

    /// Transpositions rows with lanes of superlanes: row j of a group of the result has lane j of each superlane of all rows.
    fn exchange(
        &mut self,
        side: Hemisphere,
        from: &Layout,
        first: usize,
        to: &Layout,
        groups: usize,
    ) -> Result<(), TargetError> {
        let width = self.facts.lanes as usize;
        let padded = from.rows.next_multiple_of(from.stripes);
        let read = |row: usize, plane| from.place(if row < padded { row } else { row - from.stripes }, 0, plane);
        let reads = |group: usize, plane: usize| -> Vec<_> {
            (0..width).map(|row| read(first + group * width + row, plane)).collect()
        };
        let writes = |group: usize, plane: usize| -> Vec<_> {
            (0..width).map(|row| Some(to.place(group * width + row, 0, plane))).collect()
        };
        self.transpose(side, groups, from.planes(), &reads, &writes)
    }

    /// Spreads each lane of a superlane over a row of its own.
    fn spread(
        &mut self,
        side: Hemisphere,
        copies: &Layout,
        result: &Layout,
        first: usize,
        groups: usize,
    ) -> Result<(), TargetError> {
        let width = self.facts.lanes as usize;
        let reads = |group: usize, plane: usize| -> Vec<_> {
            (0..width).map(|copy| copies.place(group * width + copy, 0, plane)).collect()
        };
        let writes = |group: usize, plane: usize| -> Vec<_> {
            let rows = first + group * width..first + (group + 1) * width;
            rows.map(|row| (row < result.rows).then(|| result.place(row, 0, plane))).collect()
        };
        self.transpose(side, groups, result.planes(), &reads, &writes)
    }

    /// Flows through a transposer: for each group and plane as many reads as a superlane has lanes, and as many writes.
    fn transpose(
        &mut self,
        side: Hemisphere,
        groups: usize,
        plane_count: usize,
        reads: &dyn Fn(usize, usize) -> Vec<Place>,
        writes: &dyn Fn(usize, usize) -> Vec<Option<Place>>,
    ) -> Result<(), TargetError> {
        let steps: Vec<Transposition> = (0..groups)
            .flat_map(|group| (0..plane_count).map(move |plane| (group, plane)))
            .map(|(group, plane)| Transposition { reads: reads(group, plane), writes: writes(group, plane) })
            .collect();
        self.place_steps(&steps, &|lowering, steps| lowering.transposing(side, steps))
    }

    fn transposing(&self, side: Hemisphere, steps: &[Transposition]) -> FlowBuilder<'a> {
        let width = self.facts.lanes as usize;
        let at = self.facts.position(Queue::Transpose(side, 0));
        let latency = i64::from(self.facts.sxm.latency);
        let (back, end) = match side {
            Hemisphere::West => (Direction::East, self.facts.positions() - 1),
            Hemisphere::East => (Direction::West, 0),
        };
        let mut flow = FlowBuilder::new(self.facts);
        let loads = steps.iter().enumerate();
        let loads = loads.map(|(cycle, step)| (cycle as i64, step.reads.iter().copied().collect::<SmallVec<_>>()));
        let from = flow.load(at, loads);
        let to = flow.train(back, width, at);
        let mut operations = Vec::new();
        for (cycle, step) in steps.iter().enumerate() {
            let cycle = cycle as i64;
            operations.push((cycle, Operation::Transpose { from: flow.take(from), to: flow.stream(to) }));
            // What is not written leaves the chip at its end.
            let position = |place: &Place| self.facts.position(Queue::Mem(place.slice));
            let ends: Vec<usize> = step.writes.iter().map(|place| place.as_ref().map_or(end, position)).collect();
            flow.drive_each(to, at, cycle + latency, &ends);
            for (row, place) in step.writes.iter().enumerate() {
                if let Some(place) = place {
                    flow.write(to, row as u8, true, at, cycle + latency, *place);
                }
            }
        }
        flow.unit(Pool::Transpose(side), operations);
        flow
    }

    /// Combines the rows of each group, one after the other.
    fn fold_turned(&mut self, turned: &Lease, combining: Combining, groups: usize) -> Result<Lease, TargetError> {
        let width = self.facts.lanes as usize;
        let folded = self.allocate(turned.dtype, groups, self.lanes(), 1, Slices::of(&turned.slices))?;
        let rows = all_vectors(groups * width, 1);
        let first: Vec<bool> = (0..rows.len()).map(|row| row % width == 0).collect();
        let to: Vec<Option<(u32, u32)>> =
            (0..rows.len()).map(|row| (row + 1).is_multiple_of(width).then_some(((row / width) as u32, 0))).collect();
        match combining {
            Combining::Elements(function) => {
                let chain = accumulating(function, turned.dtype);
                let target = Target { step: 0, layout: folded.clone(), rows: to };
                let leaf = Leaf { layout: turned.clone(), rows };
                self.run_chain(Work { chain, leaves: vec![leaf], targets: vec![target], first })?;
            }
            Combining::Bytes => {
                for plane in 0..turned.planes() {
                    let (from, to_plane) =
                        (byte_plane(turned, plane, groups * width), byte_plane(&folded, plane, groups));
                    let chain = accumulating(Accumulation::Max, DType::U8);
                    let target = Target { step: 0, layout: to_plane, rows: to.clone() };
                    // Rows of the other planes lie between those of this one.
                    let (stripes, planes) = (from.stripes as u32, turned.planes() as u32);
                    let own = rows.iter().map(|&(row, _)| (row / stripes * stripes * planes + row % stripes, 0));
                    let leaf = Leaf { layout: from, rows: own.collect() };
                    self.run_chain(Work { chain, leaves: vec![leaf], targets: vec![target], first: first.clone() })?;
                }
            }
        }
        Ok(folded)
    }

    /// Combines all superlanes of each row, in each of them.
    fn fold_superlanes(
        &mut self,
        side: Hemisphere,
        folded: &Lease,
        combining: Combining,
        dtype: DType,
        groups: usize,
    ) -> Result<Lease, TargetError> {
        let total = self.allocate(dtype, groups, self.lanes(), 1, Slices::of(&folded.slices))?;
        match combining {
            Combining::Elements(function) => {
                self.rotate_and_fold(side, folded, &total, (0..folded.planes()).collect(), function, groups)?;
            }
            Combining::Bytes => {
                for plane in 0..folded.planes() {
                    let (from, to) = (byte_plane(folded, plane, groups), byte_plane(&total, plane, groups));
                    self.rotate_and_fold(side, &from, &to, vec![0], Accumulation::Max, groups)?;
                }
            }
        }
        Ok(total)
    }

    fn rotate_and_fold(
        &mut self,
        side: Hemisphere,
        from: &Layout,
        to: &Layout,
        plane_list: Vec<usize>,
        function: Accumulation,
        groups: usize,
    ) -> Result<(), TargetError> {
        let superlanes = self.facts.superlanes as usize;
        let width = self.facts.lanes as usize;
        let at = self.facts.position(Queue::Shift(side, 0));
        let middle = self.facts.position(Queue::Alu(0));
        let (switch, alu) = (i64::from(self.facts.sxm.latency), i64::from(self.facts.vxm.latency));
        let mut flow = FlowBuilder::new(self.facts);
        let steps = groups * superlanes;
        let arrive = |step: usize| step as i64 + switch + at.abs_diff(middle) as i64;
        let back = FlowBuilder::direction(at, middle);
        let element = flow.train(back, plane_list.len(), at);
        (0..steps).for_each(|step| flow.drive(element, at, step as i64 + switch, middle));
        for &plane in &plane_list {
            let read =
                (0..steps).map(|step| (step as i64, SmallVec::from_slice(&[from.place(step / superlanes, 0, plane)])));
            let read = flow.load(at, read);
            let own = flow.plane(element, plane as u8);
            let operations = (0..steps).map(|step| {
                let by = (step % superlanes * width) as i16;
                let lanes = [0, self.lanes() as u16];
                let (from, to) = (flow.take(read), flow.stream(own));
                (step as i64, Operation::Shift { from, by, rotate: true, lanes, under: None, to })
            });
            let operations = operations.collect();
            flow.unit(Pool::Shift(side), operations);
        }
        let last = |step: usize| (step + 1).is_multiple_of(superlanes);
        let stores = (0..steps).filter(|&step| last(step));
        let stores = stores.map(|step| (arrive(step) + alu, planes(to, (step / superlanes) as u32, 0)));
        let stored = flow.store(middle, stores);
        let operations = (0..steps).map(|step| {
            let operand = Operand::Stream(flow.take(element), from.dtype);
            let function = AluFn::Accumulate { function, first: step % superlanes == 0, operand };
            let result = last(step).then_some((flow.stream(stored), to.dtype));
            (arrive(step), Operation::Alu(Alu { function, result }))
        });
        let operations = operations.collect();
        flow.unit(Pool::Alu(0), operations);
        let flow = flow.finish().map_err(clashed)?;
        self.place(&flow, ASAP);
        Ok(())
    }

    /// Each row as often as a superlane has lanes, striped.
    fn copies(&mut self, total: &Lease, groups: usize) -> Result<Lease, TargetError> {
        let width = self.facts.lanes as usize;
        let copies =
            self.allocate(total.dtype, groups * width, self.lanes(), self.stripes(), Slices::of(&total.slices))?;
        let middle = self.facts.position(Queue::Alu(0));
        let alu = i64::from(self.facts.vxm.latency);
        let mut flow = FlowBuilder::new(self.facts);
        let steps: Vec<(usize, usize)> =
            (0..groups).flat_map(|group| (0..total.planes()).map(move |plane| (group, plane))).collect();
        // Planes lie in different slices, perhaps on both sides of none: all are on one side of the vector unit.
        let reads = steps
            .iter()
            .enumerate()
            .map(|(cycle, &(group, plane))| (cycle as i64, SmallVec::from_slice(&[total.place(group, 0, plane)])));
        let read = flow.load(middle, reads);
        let first = copies.place(0, 0, 0);
        let to = FlowBuilder::direction(middle, self.facts.position(Queue::Mem(first.slice)));
        let train = flow.train(to, 1, middle);
        let mut operations = Vec::new();
        for (cycle, &(group, plane)) in steps.iter().enumerate() {
            let cycle = cycle as i64;
            let places: Vec<_> = (0..width).map(|copy| copies.place(group * width + copy, 0, plane)).collect();
            flow.store_copies(train, 0, middle, cycle + alu, &places);
            let function = AluFn::Copy(Operand::Stream(flow.take(read), DType::U8));
            let result = Some((flow.stream(train), DType::U8));
            operations.push((cycle, Operation::Alu(Alu { function, result })));
        }
        flow.unit(Pool::Alu(0), operations);
        let flow = flow.finish().map_err(clashed)?;
        self.place(&flow, ASAP);
        Ok(copies)
    }
}

/// What a transposer does at once: where its operands are read, and where its results are written, if they are.
struct Transposition {
    reads: Vec<Place>,
    writes: Vec<Option<Place>>,
}

/// What is combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Combining {
    /// Elements.
    Elements(Accumulation),
    /// Byte planes, each for itself, by their greatest: of what is zero but in one lane, that lane.
    Bytes,
}

/// A plane of a layout as rows of bytes.
fn byte_plane(layout: &Layout, plane: usize, rows: usize) -> Lease {
    let Layout { columns, lanes, stripes, .. } = *layout;
    if stripes == 1 {
        let slices = vec![layout.slices[plane]];
        return Arc::new(Layout { dtype: DType::U8, rows, columns, lanes, stripes, slices });
    }
    // Striped planes stand behind each other in slices that take turns.
    let count = layout.slices.len();
    let turn = plane * (count / layout.planes());
    let offset = plane * layout.blocks();
    let slices = (0..stripes).map(|row| {
        let place = layout.slices[(row + turn) % count];
        Place { address: place.address + offset as u16, ..place }
    });
    let slices = slices.collect();
    Arc::new(Layout { dtype: DType::U8, rows: rows * layout.planes(), columns, lanes, stripes, slices })
}

fn accumulating(function: Accumulation, dtype: DType) -> Chain {
    let args = SmallVec::from_slice(&[Arg::Leaf(0)]);
    Chain { steps: vec![Step { function: Function::Accumulate(function), args, dtype }], leaves: vec![dtype] }
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
