//! Rows: threads that share one, each with a part of its elements, combine what they have to what holds for all of it.

use tcc_ir::ops::Reduce;
use tcc_ir::{DType, Node, NodeId, Op, Shape, ValueId};

use super::elements::{Coords, Elements, fold_of};
use crate::kernel::check::wide;
use crate::kernel::{ExprId, IndexFn, Scalar, SharedId, VarId};
use crate::target::TargetError;

/// Elements that a thread holds of its row, so that each is read and computed once. If it has more, it computes them whenever they
/// are wanted.
pub(crate) const HELD: usize = 8;

/// How rows are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Threads of a row: a power of two.
    pub lanes: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Whether threads go through loops in step, as lanes of hardware do, which then divide rows evenly: so many sums are added to by
    /// turns, so that iterations need not wait for each other.
    pub in_step: Option<u32>,
}

impl Shares {
    /// Rows of a block.
    pub fn rows(self) -> u32 {
        self.threads / self.lanes
    }
}

/// What a thread has of its row.
struct Row<'e, 'a> {
    elements: &'e mut Elements<'a>,
    domain: Shape,
    axes: Vec<usize>,
    /// Coordinates of the row, with 0 along it.
    coords: Coords,
    /// The number of the thread among those of the row.
    lane: ExprId,
    shares: Shares,
    columns: usize,
    /// Its elements, if it holds them: their coordinates and their column.
    held: Vec<(Coords, ExprId)>,
    scratch: Vec<(DType, SharedId)>,
}

/// Writes a kernel for rows; returns its number of blocks and how it is tiled.
pub(crate) fn rows(
    elements: &mut Elements<'_>,
    (domain, axes): (&Shape, &[usize]),
    nodes: &[NodeId],
    outputs: &[ValueId],
    shares: Shares,
) -> Result<([u32; 3], String), TargetError> {
    let columns: usize = axes.iter().map(|&axis| domain[axis]).product();
    let kept: Vec<usize> =
        domain.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect();
    let rows: usize = kept.iter().product();
    let builder = &mut elements.builder;
    let (thread, block) = (builder.thread(), builder.block(0));
    let (within, lane) = builder.divided(thread, shares.lanes as i32);
    let lane = builder.keep("lane", Scalar::I32, lane);
    let first = builder.scaled(block, shares.rows() as i32);
    let number = builder.add(first, within);
    let is_row = builder.below(number, rows as i32);
    let full = rows.is_multiple_of(shares.rows() as usize);
    let is_row = if full { builder.integer(1) } else { builder.keep("is_row", Scalar::I32, is_row) };
    // Threads beyond the last row work on it too, and do not write.
    let last = builder.integer(rows as i32 - 1);
    let row = if full { number } else { builder.index(IndexFn::Min, number, last) };
    let row = builder.keep("row", Scalar::I32, row);
    let kept = Shape::new(kept).unwrap_or_default();
    let coords = elements.coords_of(&kept, row);
    let (domain, axes) = (domain.clone(), axes.to_vec());
    let mut row = Row::new(elements, (domain, axes), coords, lane, shares);
    row.read(nodes)?;
    row.compute(nodes)?;
    row.outputs(outputs, is_row)?;
    let blocks = rows.div_ceil(shares.rows() as usize) as u32;
    let tiling = format!("{rows} rows of {columns}, {} threads each, {} rows a block", shares.lanes, shares.rows());
    Ok(([blocks, 1, 1], tiling))
}

/// Has all threads of a block compute one row, and hands them its elements one by one: their coordinates and their column. What
/// takes long to come may be read when the row's elements have been.
pub(crate) fn one_row<'a>(
    elements: &mut Elements<'a>,
    (domain, axes): (&Shape, &[usize]),
    nodes: &[NodeId],
    row: usize,
    reads: impl FnOnce(&mut Elements<'a>) -> Result<(), TargetError>,
    take: impl FnMut(&mut Elements<'a>, &Coords, ExprId) -> Result<(), TargetError>,
) -> Result<(), TargetError> {
    let kept = domain.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size });
    let kept = Shape::new(kept).unwrap_or_default();
    let number = elements.builder.integer(row as i32);
    let coords = elements.coords_of(&kept, number);
    let threads = elements.builder.threads();
    let (lane, shares) = (elements.builder.thread(), Shares { lanes: threads, threads, in_step: None });
    let (domain, axes) = (domain.clone(), axes.to_vec());
    let scratch = elements.scratch.take().into_iter().collect();
    let mut row = Row::new(elements, (domain, axes), coords, lane, shares);
    row.scratch = scratch;
    row.read(nodes)?;
    reads(row.elements)?;
    row.compute(nodes)?;
    row.each(take)?;
    let scratch = row.scratch.first().copied();
    row.elements.scratch = scratch;
    Ok(())
}

impl<'e, 'a> Row<'e, 'a> {
    fn new(
        elements: &'e mut Elements<'a>,
        (domain, axes): (Shape, Vec<usize>),
        coords: Coords,
        lane: ExprId,
        shares: Shares,
    ) -> Self {
        let columns: usize = axes.iter().map(|&axis| domain[axis]).product();
        let mut row =
            Row { elements, domain, axes, coords, lane, shares, columns, held: Vec::new(), scratch: Vec::new() };
        let lanes = shares.lanes as usize;
        if columns.is_multiple_of(lanes) && columns / lanes <= HELD {
            let at = |row: &mut Self, number: usize| {
                let builder = &mut row.elements.builder;
                let distance = builder.integer((number * lanes) as i32);
                let column = builder.add(lane, distance);
                row.place(column)
            };
            row.held = (0..columns / lanes).map(|number| at(&mut row, number)).collect();
        }
        row
    }

    /// Computes what nodes make of whole rows; what is there for each element is computed when it is wanted.
    fn compute(&mut self, nodes: &[NodeId]) -> Result<(), TargetError> {
        nodes.iter().try_for_each(|&id| self.node(id))
    }

    /// Reads what elements that are held are made of, so that no read waits for another.
    fn read(&mut self, nodes: &[NodeId]) -> Result<(), TargetError> {
        let graph = self.elements.graph();
        let of_rows = |id: &&NodeId| {
            let node = graph.node(**id);
            let shape = if matches!(node.op, Op::Reduce(_)) { node.inputs[0] } else { node.output() };
            graph.shape(shape) == &self.domain
        };
        let inputs = nodes.iter().filter(of_rows).flat_map(|&id| graph.node(id).inputs.iter().copied());
        let inputs: Vec<ValueId> = inputs.filter(|&input| self.elements.is_plain(input)).collect();
        for input in inputs {
            for (at, _) in self.held.clone() {
                self.elements.broadcast_element(input, &at)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, id: NodeId) -> Result<(), TargetError> {
        let graph = self.elements.graph();
        let node = graph.node(id);
        let Op::Reduce(reduce) = &node.op else {
            if graph.shape(node.output()) != &self.domain {
                let coords = self.coords.clone();
                self.elements.element(node.output(), &coords)?;
            }
            return Ok(());
        };
        let ty = graph.ty(node.inputs[0]);
        let start = self.elements.neutral(reduce.function, ty.dtype);
        let name = self.elements.name(node.output());
        let all = self.elements.builder.declare(&name, Scalar::of(ty.dtype), start);
        match self.shares.in_step.filter(|_| self.held.is_empty()) {
            Some(turns) => self.by_turns(node, reduce, all, turns)?,
            None => self.each(|elements, at, _| {
                let element = elements.element(node.inputs[0], at)?;
                let so_far = elements.builder.get(all);
                let next = elements.combined(reduce.function, ty.dtype, so_far, element);
                elements.builder.set(all, next);
                Ok(())
            })?,
        }
        if self.shares.lanes > 1 {
            let scratch = self.scratch(ty.dtype);
            self.elements.builder.reduce(all, fold_of(reduce.function), ty.dtype, self.shares.lanes, scratch);
        }
        let all = self.elements.builder.get(all);
        let result = self.elements.finished(reduce, ty, all);
        let result = self.elements.builder.keep(&name, Scalar::of(ty.dtype), result);
        let coords = self.coords.clone();
        self.elements.hold(node.output(), &coords, result);
        Ok(())
    }

    /// Does something with each of this thread's elements of the row, by their coordinates and their column: one after the other
    /// if they are held, else in a loop.
    fn each(
        &mut self,
        mut work: impl FnMut(&mut Elements<'a>, &Coords, ExprId) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        if !self.held.is_empty() {
            return self.held.iter().try_for_each(|(at, column)| work(self.elements, at, *column));
        }
        let builder = &mut self.elements.builder;
        let (first, end) = (builder.integer(0), builder.integer(self.columns as i32));
        let column = match self.shares.in_step {
            None => builder.loop_over("column", self.lane, end, self.shares.lanes),
            Some(_) => {
                let end = builder.integer((self.columns / self.shares.lanes as usize) as i32);
                let part = builder.loop_over("part", first, end, 1);
                let before = builder.scaled(part, self.shares.lanes as i32);
                builder.add(before, self.lane)
            }
        };
        self.elements.open();
        let (at, column) = self.place(column);
        work(self.elements, &at, column)?;
        self.elements.close();
        Ok(())
    }

    /// Combines this lane's elements of the row into one. Several variables go round: an iteration adds to the first, each of the others
    /// moves on, and the new one enters at the end, so that an addition has as many iterations as there are variables.
    fn by_turns(&mut self, node: &Node, reduce: &Reduce, all: VarId, turns: u32) -> Result<(), TargetError> {
        let dtype = self.elements.graph().ty(node.inputs[0]).dtype;
        let parts = self.columns / self.shares.lanes as usize;
        let turns = turns.min(parts as u32).max(1);
        let start = self.elements.neutral(reduce.function, dtype);
        let builder = &mut self.elements.builder;
        let sums = builder.array("by_turns", Scalar::of(dtype), turns, start);
        let (zero, end) = (builder.integer(0), builder.integer(parts as i32));
        let part = builder.loop_over("part", zero, end, 1);
        self.elements.open();
        let builder = &mut self.elements.builder;
        let before = builder.scaled(part, self.shares.lanes as i32);
        let column = builder.add(before, self.lane);
        let (at, _) = self.place(column);
        let element = self.elements.element(node.inputs[0], &at)?;
        let first = self.elements.builder.element(sums, zero);
        let next = self.elements.combined(reduce.function, dtype, first, element);
        let builder = &mut self.elements.builder;
        let next = builder.keep("next", Scalar::of(dtype), next);
        for turn in 1..turns as i32 {
            let (to, from) = (builder.integer(turn - 1), builder.integer(turn));
            let moved = builder.element(sums, from);
            builder.set_element(sums, to, moved);
        }
        let last = builder.integer(turns as i32 - 1);
        builder.set_element(sums, last, next);
        self.elements.close();
        let mut parts: Vec<ExprId> = (0..turns as i32)
            .map(|turn| {
                let turn = self.elements.builder.integer(turn);
                self.elements.builder.element(sums, turn)
            })
            .collect();
        // A tree, so that no step waits for more others than it must.
        while parts.len() > 1 {
            let pairs = std::mem::take(&mut parts);
            for pair in pairs.chunks(2) {
                parts.push(match *pair {
                    [a, b] => self.elements.combined(reduce.function, dtype, a, b),
                    _ => pair[0],
                });
            }
        }
        self.elements.builder.set(all, parts[0]);
        Ok(())
    }

    /// The coordinates of a column of the row.
    fn place(&mut self, column: ExprId) -> (Coords, ExprId) {
        let sizes: Vec<usize> = self.axes.iter().map(|&axis| self.domain[axis]).collect();
        let along = self.elements.coords_of(&Shape::new(sizes).unwrap_or_default(), column);
        let mut coords = self.coords.clone();
        self.axes.iter().zip(along).for_each(|(&axis, coord)| coords[axis] = coord);
        (coords, column)
    }

    fn scratch(&mut self, dtype: DType) -> SharedId {
        let dtype = wide(dtype);
        if let Some(&(_, known)) = self.scratch.iter().find(|(known, _)| *known == dtype) {
            return known;
        }
        let new = self.elements.builder.shared("scratch", dtype, self.shares.threads);
        self.scratch.push((dtype, new));
        new
    }

    fn outputs(&mut self, outputs: &[ValueId], is_row: ExprId) -> Result<(), TargetError> {
        let graph = self.elements.graph();
        let (whole, single): (Vec<ValueId>, Vec<ValueId>) =
            outputs.iter().partition(|&&output| graph.shape(output).count() == self.domain.count());
        let guarded = self.elements.builder.known_index(is_row).is_none();
        if !whole.is_empty() {
            if guarded {
                self.elements.builder.when(is_row);
                self.elements.open();
            }
            self.each(|elements, at, _| whole.iter().try_for_each(|&output| elements.store(output, at)))?;
            if guarded {
                self.elements.close();
            }
        }
        if !single.is_empty() {
            let builder = &mut self.elements.builder;
            let zero = builder.integer(0);
            let first = builder.index(IndexFn::Eq, self.lane, zero);
            let writes = builder.index(IndexFn::And, first, is_row);
            builder.when(writes);
            self.elements.open();
            let coords = self.coords.clone();
            for output in single {
                self.elements.store(output, &coords)?;
            }
            self.elements.close();
        }
        Ok(())
    }
}
