//! Rows: threads that share one, each with a part of its elements, combine what they have to what holds for all of it.

use tcc_ir::{DType, NodeId, Op, Shape, ValueId};

use super::elements::{Coords, Elements, fold_of};
use crate::simt::kernel::check::wide;
use crate::simt::kernel::{ExprId, IndexFn, Scalar, SharedId};
use crate::target::TargetError;

/// Threads of a block, unless a row takes more.
pub(super) const THREADS: u32 = 128;

/// Threads of a block where one row takes all.
const WIDE: u32 = 256;

/// Elements of a row that a warp works on at most.
const WARP_ROW: usize = 1024;

/// How rows are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Threads of a row: a power of two.
    pub lanes: u32,
    /// Threads of a block.
    pub threads: u32,
}

impl Shares {
    /// For so many rows of so many elements on a machine with warps of so many threads.
    pub fn new(rows: usize, columns: usize, warp: u32) -> Shares {
        let few = columns.max(1).next_power_of_two().min(warp as usize) as u32;
        if columns <= WARP_ROW || rows >= 4096 && columns <= 2 * WARP_ROW {
            Shares { lanes: few, threads: THREADS }
        } else {
            Shares { lanes: WIDE, threads: WIDE }
        }
    }

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
    scratch: Vec<(DType, SharedId)>,
}

/// Writes a kernel for rows; returns its number of blocks and how it is tiled.
pub(super) fn rows(
    elements: &mut Elements<'_>,
    (domain, axes): (&Shape, &[usize]),
    nodes: &[NodeId],
    outputs: &[ValueId],
    shares: Shares,
) -> Result<(u32, String), TargetError> {
    let columns: usize = axes.iter().map(|&axis| domain[axis]).product();
    let kept: Vec<usize> = domain.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect();
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
    let mut row = Row { elements, domain, axes, coords, lane, shares, columns, scratch: Vec::new() };
    for &id in nodes {
        row.node(id)?;
    }
    row.outputs(outputs, is_row)?;
    let blocks = rows.div_ceil(shares.rows() as usize) as u32;
    let tiling = format!("{rows} rows of {columns}, {} threads each, {} rows a block", shares.lanes, shares.rows());
    Ok((blocks, tiling))
}

impl Row<'_, '_> {
    /// Computes what a node makes of whole rows; what is there for each element is computed when it is wanted.
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
        let at = self.open();
        let element = self.elements.element(node.inputs[0], &at)?;
        let so_far = self.elements.builder.get(all);
        let next = self.elements.combined(reduce.function, ty.dtype, so_far, element);
        self.elements.builder.set(all, next);
        self.elements.close();
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

    /// Opens a loop over this thread's elements of the row, and returns their coordinates.
    fn open(&mut self) -> Coords {
        let builder = &mut self.elements.builder;
        let end = builder.integer(self.columns as i32);
        let column = builder.loop_over("column", self.lane, end, self.shares.lanes);
        self.elements.open();
        let sizes: Vec<usize> = self.axes.iter().map(|&axis| self.domain[axis]).collect();
        let along = self.elements.coords_of(&Shape::new(sizes).unwrap_or_default(), column);
        let mut coords = self.coords.clone();
        self.axes.iter().zip(along).for_each(|(&axis, coord)| coords[axis] = coord);
        coords
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
            let at = self.open();
            for output in whole {
                self.elements.store(output, &at)?;
            }
            self.elements.close();
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
