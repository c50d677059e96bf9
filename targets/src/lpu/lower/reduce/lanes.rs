//! Reductions along lanes, behind the running results of rows: a transposer exchanges the lanes of each superlane with as many
//! rows, an ALU combines what then comes one after the other, rotations bring superlanes together, and distributors spread
//! each row's result over all lanes.

use std::sync::Arc;

use smallvec::SmallVec;
use tcc_ir::DType;

use super::super::chain::{Arg, Chain, Function, Input, Output, Step, add_chain};
use super::super::work::{Leaf, Target, Work, all_vectors, planes};
use super::super::{ASAP, Lease, Lowering, Room, clashed};
use crate::lpu::isa::{Accumulation, Direction, Hemisphere, MAX_LANES, Operation, Queue};
use crate::lpu::layout::{Layout, Place};
use crate::lpu::memory::Slices;
use crate::lpu::schedule::{FlowBuilder, Pool};
use crate::target::TargetError;

impl<'a> Lowering<'a> {
    /// What is combined of all lanes of each row, in all lanes. Rows have one block, and are striped.
    pub(in super::super) fn reduce_lanes(
        &mut self,
        rows: &Lease,
        combining: Combining,
        dtype: DType,
    ) -> Result<Lease, TargetError> {
        let result = self.allocate_beside(dtype, (rows.rows, 1), 1, rows, Slices::NONE)?;
        self.reduce_rows(rows, (combining, &[]), &result, 0, Slices::NONE)?;
        Ok(result)
    }

    /// The same, to rows of a result from `first` on, after more steps. Slices of which ports are busy should be avoided.
    pub(super) fn reduce_rows(
        &mut self,
        rows: &Lease,
        (combining, finish): (Combining, &[Step]),
        result: &Lease,
        first: usize,
        busy: Slices,
    ) -> Result<(), TargetError> {
        let width = self.facts.lanes as usize;
        // The side whose switch does it is the one where the rows are.
        let side = self.side_of(rows);
        // Groups of rows do not wait for each other: each has flows of its own.
        for start in (0..rows.rows).step_by(width) {
            let turned = self.allocate_beside(rows.dtype, (width, self.lanes()), self.stripes(), rows, busy)?;
            self.exchange(side, rows, start, &turned)?;
            let folded = self.fold_turned(&turned, combining, busy)?;
            let total = self.fold_superlanes(side, &folded, (combining, finish), result.dtype, busy)?;
            self.spread(side, &total, result, first + start, width.min(rows.rows - start))?;
            for layout in [turned, folded, total] {
                self.give_back(&layout);
            }
        }
        Ok(())
    }

    pub(super) fn side_of(&self, layout: &Layout) -> Hemisphere {
        self.facts.side_of(layout.slices.first().map_or(0, |place| place.slice))
    }

    /// Memory on the side of another layout in other slices, none of them busy if there are enough.
    fn allocate_beside(
        &mut self,
        dtype: DType,
        matrix: (usize, usize),
        stripes: usize,
        other: &Layout,
        busy: Slices,
    ) -> Result<Lease, TargetError> {
        let side = self.side_of(other);
        let own = Slices::of(&other.slices);
        let all = own.union(busy);
        let slices = (0..2 * self.facts.mem.slices as u8).filter(|&slice| self.facts.side_of(slice) == side);
        let left = slices.filter(|&slice| !all.contains(slice)).count();
        let avoid = if left >= Layout::slice_count(dtype, stripes) { all } else { own };
        self.allocate_in(dtype, matrix, Room { stripes, avoid, side: Some(side), ..Room::COMPUTED })
    }

    /// Transposes rows with lanes of superlanes: row j of the result has lane j of each superlane of all rows of a group.
    fn exchange(&mut self, side: Hemisphere, from: &Layout, first: usize, to: &Layout) -> Result<(), TargetError> {
        let width = self.facts.lanes as usize;
        let padded = from.rows.next_multiple_of(from.stripes);
        let read = |row: usize, plane| from.place(if row < padded { row } else { row - from.stripes }, 0, plane);
        let step = |plane: usize| Transposition {
            reads: (first..first + width).map(|row| read(row, plane)).collect(),
            writes: (0..width).map(|row| to.place(row, 0, plane)).collect(),
        };
        let steps: Vec<Transposition> = (0..from.planes()).map(step).collect();
        self.place_steps(&steps, &|lowering, steps| lowering.transposing(side, steps))
    }

    /// Spreads each lane of the superlanes of a row, alike in all of them, over a row of its own.
    fn spread(
        &mut self,
        side: Hemisphere,
        total: &Layout,
        result: &Layout,
        first: usize,
        count: usize,
    ) -> Result<(), TargetError> {
        let rows: Vec<usize> = (0..count).collect();
        let all: Vec<usize> = (0..result.planes()).collect();
        for planes in all.chunks((self.facts.sxm.distributors as usize).max(1)) {
            self.place_steps(&rows, &|lowering, rows| lowering.spreading(side, total, result, first, rows, planes))?;
        }
        Ok(())
    }

    fn spreading(
        &self,
        side: Hemisphere,
        total: &Layout,
        result: &Layout,
        first: usize,
        rows: &[usize],
        planes: &[usize],
    ) -> FlowBuilder<'a> {
        let width = self.facts.lanes as usize;
        let at = self.facts.position(Queue::Distribute(side, 0));
        let latency = i64::from(self.facts.sxm.latency);
        let mut flow = FlowBuilder::new(self.facts);
        for &plane in planes {
            let one = |place: Place| SmallVec::from_slice(&[place]);
            let steps = || rows.iter().enumerate().map(|(cycle, &row)| (cycle as i64, row));
            let read = flow.load(at, steps().map(|(cycle, _)| (cycle, one(total.place(0, 0, plane)))));
            let written = steps().map(|(cycle, row)| (cycle + latency, one(result.place(first + row, 0, plane))));
            let stored = flow.store(at, written);
            let operations = steps().map(|(cycle, row)| {
                let mut map = [None; MAX_LANES];
                map[..width].fill(Some(row as u8));
                (cycle, Operation::Distribute { from: flow.take(read), map, to: flow.stream(stored) })
            });
            let operations = operations.collect();
            flow.unit(Pool::Distribute(side), operations);
        }
        flow
    }

    fn transposing(&self, side: Hemisphere, steps: &[Transposition]) -> FlowBuilder<'a> {
        let width = self.facts.lanes as usize;
        let at = self.facts.position(Queue::Transpose(side, 0));
        let latency = i64::from(self.facts.sxm.latency);
        let back = match side {
            Hemisphere::West => Direction::East,
            Hemisphere::East => Direction::West,
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
            flow.store_step(to, at, cycle + latency, &step.writes);
        }
        flow.unit(Pool::Transpose(side), operations);
        flow
    }

    /// Combines the rows of a group, one after the other.
    fn fold_turned(&mut self, turned: &Lease, combining: Combining, busy: Slices) -> Result<Lease, TargetError> {
        let width = self.facts.lanes as usize;
        let folded = self.allocate_beside(turned.dtype, (1, self.lanes()), 1, turned, busy)?;
        let rows = all_vectors(width, 1);
        let first: Vec<bool> = (0..width).map(|row| row == 0).collect();
        let to: Vec<Option<(u32, u32)>> = (0..width).map(|row| (row + 1 == width).then_some((0, 0))).collect();
        match combining {
            Combining::Elements(function) => {
                let chain = accumulating(function, turned.dtype);
                let target = Target { step: 0, layout: folded.clone(), rows: to };
                let leaf = Leaf { layout: turned.clone(), rows };
                self.run_chain(Work { chain, leaves: vec![leaf], targets: vec![target], first })?;
            }
            Combining::Bytes => {
                for plane in 0..turned.planes() {
                    let (from, to_plane) = (byte_plane(turned, plane, width), byte_plane(&folded, plane, 1));
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

    /// Combines all superlanes of a row, in each of them.
    fn fold_superlanes(
        &mut self,
        side: Hemisphere,
        folded: &Lease,
        (combining, finish): (Combining, &[Step]),
        dtype: DType,
        busy: Slices,
    ) -> Result<Lease, TargetError> {
        let total = self.allocate_beside(dtype, (1, self.lanes()), 1, folded, busy)?;
        match combining {
            Combining::Elements(function) => {
                let mut chain = accumulating(function, folded.dtype);
                chain.steps.extend_from_slice(finish);
                self.rotate_and_fold(side, folded, &total, (0..folded.planes()).collect(), &chain)?;
            }
            Combining::Bytes => {
                for plane in 0..folded.planes() {
                    let (from, to) = (byte_plane(folded, plane, 1), byte_plane(&total, plane, 1));
                    let chain = accumulating(Accumulation::Max, DType::U8);
                    self.rotate_and_fold(side, &from, &to, vec![0], &chain)?;
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
        chain: &Chain,
    ) -> Result<(), TargetError> {
        let superlanes = self.facts.superlanes as usize;
        let width = self.facts.lanes as usize;
        let at = self.facts.position(Queue::Shift(side, 0));
        let middle = self.facts.position(Queue::Alu(0));
        let switch = i64::from(self.facts.sxm.latency);
        let mut flow = FlowBuilder::new(self.facts);
        let steps = superlanes;
        let arrive = |step: usize| step as i64 + switch + at.abs_diff(middle) as i64;
        let back = FlowBuilder::direction(at, middle);
        let element = flow.train(back, plane_list.len(), at);
        (0..steps).for_each(|step| flow.drive(element, at, step as i64 + switch, middle));
        for &plane in &plane_list {
            let read = (0..steps).map(|step| (step as i64, SmallVec::from_slice(&[from.place(0, 0, plane)])));
            let read = flow.load(at, read);
            let own = flow.plane(element, plane as u8);
            let operations = (0..steps).map(|step| {
                let by = (step * width) as i16;
                let lanes = [0, self.lanes() as u16];
                let (from, to) = (flow.take(read), flow.stream(own));
                (step as i64, Operation::Shift { from, by, rotate: true, lanes, under: None, to })
            });
            let operations = operations.collect();
            flow.unit(Pool::Shift(side), operations);
        }
        let (inputs, step) = ([Input::Train(element)], chain.steps.len() - 1);
        let stored = (0..steps).map(|step| (step + 1 == superlanes).then(|| planes(to, 0, 0)));
        let outputs = [Output { step, dtype: to.dtype, to: stored.collect() }];
        let first: Vec<bool> = (0..steps).map(|step| step == 0).collect();
        add_chain(&mut flow, self.facts, &chain.level(), arrive(0), &inputs, &outputs, &first);
        let flow = flow.finish().map_err(clashed)?;
        self.place(&flow, ASAP)?;
        Ok(())
    }
}

/// What a transposer does at once: where its operands are read, and where its results are written.
struct Transposition {
    reads: Vec<Place>,
    writes: Vec<Place>,
}

/// What is combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Combining {
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
        return Arc::new(Layout { dtype: DType::U8, rows, columns, lanes, stripes, lots: 1, slices });
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
    Arc::new(Layout { dtype: DType::U8, rows: rows * layout.planes(), columns, lanes, stripes, lots: 1, slices })
}

fn accumulating(function: Accumulation, dtype: DType) -> Chain {
    let args = SmallVec::from_slice(&[Arg::Leaf(0)]);
    Chain { steps: vec![Step { function: Function::Accumulate(function), args, dtype }], leaves: vec![dtype] }
}
