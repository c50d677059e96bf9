//! From a plan to calls: what each kernel of the plan computes becomes one kernel of the language, or several where lanes would have
//! to wait for each other, shaped for hardware: lanes side by side, and loops that can be pipelined.

mod batch;
mod blocks;
mod caches;
mod columns;
mod depth;
mod elements;
mod method;
pub(super) mod paired;
mod passes;
mod tiled;
mod together;

use std::collections::{HashMap, HashSet};

use tcc_ir::ops::{BinaryFn, UnaryFn};
use tcc_ir::{Access, Anchor, DType, Graph, Kernel as Group, Op, Plan, Shape, ValueId};

use self::blocks::{Blocks, Handed};
use self::caches::{Part, caches};
use self::method::Method;
pub(in crate::fpga) use self::method::has_few_rows;
use self::passes::Passes;
use self::tiled::{Tile, Tiled};
use crate::kernel::check::check;
use crate::kernel::{Builder, ExprId, Kernel};
use crate::lower::alone;
use crate::lower::elements::{Coords, Elements, defect};
use crate::lower::piece::{Piece, Work, pieces};
use crate::lower::product::Product;
use crate::lower::quantized::{Arranged, Constants};
use crate::lower::rows::{Shares, rows};
use crate::lower::{Argument, Written};
use crate::target::TargetError;

/// How much hardware kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fpga) struct Widths {
    /// Lanes of element-wise work and of rows, a power of two: elements of a word of a memory for values.
    pub lanes: u32,
    /// Multiply-accumulates of integers in a cycle.
    pub integer_macs: u32,
    /// Multiply-accumulates of floats in a cycle.
    pub float_macs: u32,
    /// Whether products of integers with constants share an engine.
    pub has_engine: bool,
}

/// Lanes of operators that look for each of their elements by themselves: each has loops of its own.
const LANES_ALONE: u32 = 2;

/// Times that a lane's operators are used at least, where they are large.
const USES: u32 = 64;

/// Sums that elements of a row are added to by turns: no fewer than the cycles that an addition of floats takes.
const TURNS: u32 = 8;

/// What lowering has made of a plan.
#[derive(Debug, Default)]
pub(in crate::fpga) struct Lowered {
    /// What is called, in order.
    pub calls: Vec<Lower>,
    /// Constants, and what follows from them, that are packed otherwise than as they are.
    pub arranged: Vec<Arranged>,
    /// Lanes that read words of each of them.
    pub arranged_lanes: Vec<u32>,
    /// Whether calls read each of them once from its first element to its last.
    pub in_order: Vec<bool>,
    /// Elements that words have of what calls hand to each other, by its number.
    pub handed: Vec<u32>,
}

/// A call of a kernel that has no name and no memory yet.
#[derive(Clone, Debug)]
pub(in crate::fpga) struct Lower {
    /// What it does, without a name.
    pub kernel: Kernel,
    /// What each of its parameters is.
    pub arguments: Vec<Argument>,
    /// The kernel of the plan that it belongs to.
    pub group: u32,
    /// How its work is shared out, in words.
    pub tiling: String,
    /// What the kernel is called after, and what is to be said of it.
    pub named: String,
    pub about: Vec<String>,
}

/// Lowers a plan.
///
/// # Errors
/// A value is too large, or a defect.
pub(in crate::fpga) fn lower(plan: &Plan, widths: Widths) -> Result<Lowered, TargetError> {
    let mut constants = Constants::new(&plan.graph, method::has_few_rows);
    let mut arranged_lanes = Vec::new();
    // What is multiplied is arranged before anything is written, since all kernels look at it.
    let mut steps = Vec::new();
    for (index, group) in plan.kernels.iter().enumerate() {
        if let Some((value, source)) = copied(group) {
            steps.push((index, Step::Copy(value, source)));
            continue;
        }
        steps.extend(pieces(&plan.graph, group).into_iter().map(|piece| (index, Step::Piece(Box::new(piece), None))));
    }
    let parts = steps.iter().map(|(_, step)| match step {
        Step::Copy(_, source) => Part::Copy(source.root),
        Step::Piece(piece, _) => Part::Piece(piece),
    });
    let tile = widths.has_engine.then(|| {
        let own = steps.iter().filter_map(|(_, step)| match step {
            Step::Piece(piece, _) => Some(&**piece),
            Step::Copy(..) => None,
        });
        Tile::of(plan, &constants, &own.collect::<Vec<_>>(), widths)
    });
    let tile = tile.flatten();
    let mut caches = caches(plan, &parts.collect::<Vec<_>>());
    for (number, (_, step)) in steps.iter_mut().enumerate() {
        let Step::Piece(piece, method) = step else { continue };
        let cache = caches.get(&number).copied();
        let found = Method::of(plan, &mut constants, &mut arranged_lanes, piece, (widths, tile, cache.is_some()))?;
        *method = found.map(Box::new);
        match (cache, method) {
            (Some(cache), Some(method)) if method.reads_once(plan, cache.value) => {
                piece.nodes.push(cache.node);
                method.keep(cache.value);
            }
            _ => {
                caches.remove(&number);
            }
        }
    }
    let made: HashSet<usize> = caches.values().map(|cache| cache.step).collect();
    let mut in_order = vec![false; constants.arranged.len()];
    for (_, step) in &steps {
        if let Step::Piece(_, Some(method)) = step {
            method.in_order().into_iter().for_each(|number| in_order[number as usize] = true);
        }
    }
    let (calls, handed) = (Vec::new(), Vec::new());
    let ordered = HashMap::new();
    let mut lowering = Lowering { plan, constants: &constants, widths, calls, handed, ordered, group: 0 };
    for (number, (index, step)) in steps.into_iter().enumerate() {
        if made.contains(&number) {
            continue;
        }
        lowering.group = index as u32;
        let group = &plan.kernels[index];
        match step {
            Step::Copy(value, source) => lowering.copy(group, value, &source)?,
            Step::Piece(piece, method) => lowering.piece(group, &piece, method.as_deref())?,
        }
    }
    let Lowering { calls, handed, .. } = lowering;
    Ok(Lowered { calls, arranged: constants.arranged, arranged_lanes, in_order, handed })
}

/// What one part of a kernel of the plan is.
enum Step {
    Copy(ValueId, Access),
    Piece(Box<Piece>, Option<Box<Method>>),
}

/// The value that a kernel writes out and where it lies before, if it does nothing else.
fn copied(group: &Group) -> Option<(ValueId, Access)> {
    match &group.anchor {
        Anchor::Copy { value, source } => Some((*value, (**source).clone())),
        _ => None,
    }
}

struct Lowering<'a> {
    plan: &'a Plan,
    constants: &'a Constants,
    widths: Widths,
    calls: Vec<Lower>,
    handed: Vec<u32>,
    /// Rows that were brought into order, and the number that they are handed over by.
    ordered: HashMap<tiled::Ordered, u32>,
    group: u32,
}

impl<'a> Lowering<'a> {
    fn piece(&mut self, group: &Group, piece: &Piece, method: Option<&Method>) -> Result<(), TargetError> {
        let (plan, widths) = (self.plan, self.widths);
        let graph = &plan.graph;
        let is_empty = |value: &ValueId| graph.shape(*value).count() == 0;
        let outputs: Vec<ValueId> = piece.outputs.iter().copied().filter(|output| !is_empty(output)).collect();
        if outputs.is_empty() {
            return Ok(());
        }
        match (&piece.work, method) {
            (_, Some(Method::Blocks(blocks))) => self.by_blocks(group, piece, blocks, &outputs),
            (_, Some(Method::Tiled(tiled))) => self.by_tiles(group, piece, tiled, &outputs),
            (_, Some(Method::Columns(columns))) => {
                self.call(group, piece, columns.lanes, |elements| columns.write(elements, &outputs))
            }
            (_, Some(Method::Depth(depth))) => {
                self.call(group, piece, depth.lanes(), |elements| depth.write(elements, &outputs))
            }
            (Work::Elements, None) => {
                // Values of one shape are computed together.
                let mut shapes: Vec<Shape> = Vec::new();
                for shape in outputs.iter().map(|&output| graph.shape(output)) {
                    if !shapes.contains(shape) {
                        shapes.push(shape.clone());
                    }
                }
                for shape in shapes {
                    let own: Vec<ValueId> =
                        outputs.iter().copied().filter(|&value| graph.shape(value) == &shape).collect();
                    let walk = elements::Walk::new(&shape, self.lanes_of(piece, &shape));
                    self.call(group, piece, walk.lanes, |elements| {
                        walk.write(elements, |elements, coords| {
                            own.iter().try_for_each(|&output| elements.store(output, coords))
                        })
                    })?;
                }
                Ok(())
            }
            (Work::Rows { domain, axes }, None) => {
                let columns: usize = axes.iter().map(|&axis| domain[axis]).product();
                let lanes = power_in(columns, widths.lanes);
                let wide = Passes::lanes_for(columns, widths.lanes);
                // Odd rows have lanes that do nothing at their ends.
                if 2 * lanes < wide
                    && let Some(passes) = Passes::of((domain, axes), &piece.nodes, wide)
                {
                    return self.call(group, piece, wide, |elements| passes.write(elements, &outputs));
                }
                if let Some(passes) = Passes::of((domain, axes), &piece.nodes, lanes) {
                    return self.call(group, piece, lanes, |elements| passes.write(elements, &outputs));
                }
                let shares = Shares { lanes, threads: lanes, in_step: Some(TURNS) };
                self.call(group, piece, lanes, |elements| {
                    rows(elements, (domain, axes), &piece.nodes, &outputs, shares)
                })
            }
            (Work::Attention(_), None) => Err(defect("an attention was not decomposed")),
            (Work::Alone, None) => {
                self.call(group, piece, LANES_ALONE, |elements| alone::write(elements, piece.nodes[0], &outputs))
            }
        }
    }

    /// Lanes for elements of a shape: of functions that take much to compute no more than are used often.
    fn lanes_of(&self, piece: &Piece, shape: &Shape) -> u32 {
        let is_large = |op: &Op| match op {
            Op::Unary(op) => !matches!(op.0, UnaryFn::Abs | UnaryFn::Neg | UnaryFn::Not | UnaryFn::Sign),
            Op::Binary(op) => matches!(op.0, BinaryFn::Div | BinaryFn::Mod | BinaryFn::Rem | BinaryFn::Pow),
            _ => false,
        };
        let nodes = || piece.all_nodes().map(|id| self.plan.graph.node(id));
        let is_float = nodes().any(|node| self.plan.graph.ty(node.output()).dtype.is_float());
        if !is_float || !nodes().any(|node| is_large(&node.op)) {
            return self.widths.lanes;
        }
        self.widths.lanes.min(1 << (shape.count() as u32 / USES).max(1).ilog2())
    }

    /// A product by blocks: what makes integers of rows, the engine, and what follows.
    fn by_blocks(
        &mut self,
        group: &Group,
        piece: &Piece,
        blocks: &Blocks,
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let first = self.handed.len() as u32;
        self.handed.extend(blocks.banks());
        let handed = Handed { integers: first, scales: first + 1, sums: first + 2 };
        self.call(group, piece, blocks.few, |elements| blocks.write_rows(elements, handed))?;
        self.call(group, piece, blocks.threads(), |elements| Ok(blocks.write_engine(elements, handed)))?;
        let after = blocks.after.min(self.lanes_of(piece, self.plan.graph.shape(blocks.product.result)));
        self.call(group, piece, after, |elements| blocks.write_rest(elements, handed, after, outputs))
    }

    /// A product by tiles: what brings rows into order, unless they are, the engine for each block of rows, and what follows.
    fn by_tiles(
        &mut self,
        group: &Group,
        piece: &Piece,
        tiled: &Tiled,
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let [rows, sums] = tiled.banks();
        let known = self.ordered.get(&tiled.ordered()).copied();
        let number = known.unwrap_or_else(|| {
            self.handed.push(rows);
            self.handed.len() as u32 - 1
        });
        let handed = tiled::Handed { rows: number, sums: self.handed.len() as u32 };
        self.handed.push(sums);
        if known.is_none() {
            let few = tiled.few(self.widths);
            self.call(group, piece, tiled.ordering(few), |elements| tiled.write_rows(elements, handed, few))?;
            self.ordered.insert(tiled.ordered(), number);
        }
        self.call(group, piece, tiled.tile.lanes, |elements| Ok(tiled.write_engine(elements, handed)))?;
        for block in 1..tiled.blocks() {
            let mut next = self.calls.last().cloned().ok_or_else(|| defect("an engine was not called"))?;
            for argument in &mut next.arguments {
                if let Argument::Part { part, .. } = argument {
                    *part = block;
                }
            }
            self.calls.push(next);
        }
        let after = tiled.after.min(self.lanes_of(piece, self.plan.graph.shape(tiled.product.result)));
        self.call(group, piece, after, |elements| tiled.write_rest(elements, handed, after, outputs))
    }

    /// Writes a view out.
    fn copy(&mut self, group: &Group, value: ValueId, source: &Access) -> Result<(), TargetError> {
        let shape = self.plan.graph.shape(value).clone();
        if shape.count() == 0 {
            return Ok(());
        }
        let piece = Piece { work: Work::Elements, nodes: Vec::new(), outputs: vec![value], prologue: None };
        let walk = elements::Walk::new(&shape, self.widths.lanes);
        self.call(group, &piece, walk.lanes, |elements| {
            walk.write(elements, |elements, coords| {
                let element = elements.element_of(source, coords, value);
                let index = elements.index_in(&shape, coords);
                elements.write_dense(value, index, element);
                Ok(())
            })
        })
    }

    /// Writes a kernel and calls it.
    fn call(
        &mut self,
        group: &Group,
        piece: &Piece,
        lanes: u32,
        write: impl FnOnce(&mut Elements<'a>) -> Result<Written, TargetError>,
    ) -> Result<(), TargetError> {
        let plan = self.plan;
        let mut elements = Elements::new(plan, self.constants, piece.all_nodes(), Builder::new("k", lanes));
        let (grid, tiling) = write(&mut elements)?;
        let arguments = elements.arguments.clone();
        let kernel = elements.builder.finish(grid, Vec::new());
        check(&kernel).map_err(|error| defect(&error.to_string()))?;
        let nodes = piece.all_nodes().map(|id| plan.graph.node(id));
        let origins: Vec<String> = nodes.clone().flat_map(|node| node.origin.lines().map(str::to_owned)).collect();
        let named = origins.first().cloned();
        let named = named.unwrap_or_else(|| plan.graph.value(piece.outputs[0]).name.to_string());
        let ops: Vec<&str> = nodes.map(|node| node.op.name()).collect();
        let what = if ops.is_empty() { group.anchor.kind().to_owned() } else { ops.join(", ") };
        let about = vec![format!("{what} of {named}"), tiling.clone()];
        self.calls.push(Lower { kernel, arguments, group: self.group, tiling, named, about });
        Ok(())
    }
}

/// Writes what follows from a sum: the element of a product's result in a row and a column, where there is one matrix of it.
fn finish(
    elements: &mut Elements<'_>,
    product: &Product,
    [row, column]: [ExprId; 2],
    sum: ExprId,
    outputs: &[ValueId],
) -> Result<(), TargetError> {
    let zero = elements.builder.integer(0);
    let lead = elements.coords_of(&product.batch, zero);
    let coords = product.result_coords(elements, &lead, row, column);
    elements.hold(product.result, &coords, sum);
    outputs.iter().try_for_each(|&output| elements.store(output, &coords))
}

/// The greatest power of two up to `most` that divides something.
fn power_in(extent: usize, most: u32) -> u32 {
    if extent == 0 {
        return 1;
    }
    (1 << most.max(1).ilog2()).min(1 << extent.trailing_zeros().min(31))
}

/// A sum of nothing.
fn zero(builder: &mut Builder, sum: DType) -> ExprId {
    if sum.is_float() { builder.float(sum, 0.0) } else { builder.number(sum, 0) }
}

/// The sum of some parts as a tree, so that additions wait for as few others as can be.
fn tree(builder: &mut Builder, sum: DType, mut parts: Vec<ExprId>) -> ExprId {
    while parts.len() > 1 {
        let pairs = std::mem::take(&mut parts);
        for pair in pairs.chunks(2) {
            parts.push(match *pair {
                [a, b] => builder.binary(BinaryFn::Add, sum, a, b),
                _ => pair[0],
            });
        }
    }
    parts.first().copied().unwrap_or_else(|| zero(builder, sum))
}

/// The coordinates of an element of the extents of a row, with that along it.
fn with_last(lead: &[ExprId], last: ExprId) -> Coords {
    lead.iter().copied().chain([last]).collect()
}

/// Whether a value is one of the model's inputs or outputs, which lie outside the part.
pub(in crate::fpga) fn is_port(graph: &Graph, value: ValueId) -> bool {
    graph.inputs().contains(&value) || graph.outputs().iter().any(|output| output.value == value)
}

#[cfg(test)]
mod tests;
