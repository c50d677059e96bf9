//! Work on whole rows of a product: reductions along N, and element-wise nodes that need what they give.
//!
//! Nodes that need no reduction run tile by tile, as the product comes out. What is needed of them later stays on chip in
//! panels, M-tiles by all of N. After the last tile of an M-tile's rows, the other nodes run over whole rows, some at a
//! time, in turn with the tiles of the next M-tile: the array and the loads for it are held up by no long stretch of vector
//! work. A node writes over an operand that nobody needs any more, so that most chains of them take no more than the panel.
//! Where nodes only read slices of the same columns of each, they run on these as soon as they are there.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use tcc_ir::ops::{BinaryFn, ReduceFn};
use tcc_ir::{DType, Graph, Kernel, NodeId, NumberClass, Op, Shape, ValueId};

use super::contraction::Product;
use super::epilogue::{EPILOGUE_ELEMENTS, EpilogueBuffers};
use super::slices::Slices;
use super::space::{Space, offset};
use super::tile::{self, Tile};
use super::vector::fold_function;
use super::{ChipOperand, ChipSource, Lowering, element_bytes};
use crate::systolic::SystolicMachine;
use crate::systolic::emit::Filler;
use crate::systolic::isa::{FoldFn, MapFn, Memory, Source};
use crate::systolic::layout::storage;
use crate::target::TargetError;

/// Whether a matrix product whose epilogue reduces along N, or cuts its rows, can be lowered as one kernel, to be asked
/// before lowering.
///
/// `n` is the number of elements of a row. `element_bytes` is what one element takes in bytes, summed over the values with
/// as many elements in a row: those that the epilogue computes, those that it reads, and the product. Narrower ones count
/// in proportion, or as if they were as wide. This asks for more than is needed, since values share buffers; what it grants
/// is lowered.
pub fn row_epilogue_fits(machine: &SystolicMachine, n: usize, element_bytes: usize) -> bool {
    // Two buffers of each value.
    (n as u64).saturating_mul(element_bytes as u64).saturating_mul(2) <= rows_room(u64::from(machine.scratchpad.bytes))
}

/// Bytes that the buffers of single rows may take: the other half is for the product itself.
fn rows_room(capacity: u64) -> u64 {
    capacity / 2
}

/// Most pieces of rows that nodes take in turn.
const PIECES: usize = 4;

/// Where a value lies while rows are worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where the product came out: it has but one tile of columns.
    Tile,
    /// In a buffer of whole rows.
    Buffer(usize),
    /// In a buffer of one element for each row.
    Column(usize),
}

/// A buffer of whole rows, or of one element for each of them.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    dtype: DType,
    /// Whether it holds all rows of an M-tile, not only those that are worked on.
    panel: bool,
    /// Whether it is written to DRAM.
    stored: bool,
    /// Whether its rows are narrow.
    narrow: bool,
}

/// What is done with rows.
#[derive(Clone, Debug)]
enum Work {
    /// The product is brought into a buffer.
    Copy,
    /// An element-wise node.
    Map(NodeId),
    /// A reduction of a value, or of the product of two.
    Fold(ReduceFn, Vec<ValueId>),
}

#[derive(Clone, Debug)]
struct Step {
    value: ValueId,
    work: Work,
    place: Place,
}

/// Which nodes of an epilogue run when, and where their values lie.
pub(super) struct RowPlan {
    /// The product's shape.
    shape: Shape,
    /// Elements in a row of narrow values.
    narrow: usize,
    /// Values that are computed tile by tile, in order.
    early: Vec<ValueId>,
    /// What the nodes among them read.
    early_operands: HashSet<ValueId>,
    steps: Vec<Step>,
    places: HashMap<ValueId, Place>,
    buffers: Vec<Buffer>,
    columns: Vec<Buffer>,
    /// What the steps read from DRAM.
    operands: HashSet<ValueId>,
    /// Values in panels that are results.
    stored_panels: Vec<ValueId>,
    /// Parts of rows that are results, and where the rows lie in the end.
    stored_parts: Vec<(ValueId, Place)>,
    /// The first elements of the slices that the steps read, if they need no more of each than the columns they compute.
    firsts: Option<Vec<usize>>,
}

impl RowPlan {
    /// The plan for a kernel, if its epilogue reduces or cuts rows. With a single tile of columns (`whole`) there is nothing
    /// to be done before. `Err` says what is wrong with the kernel.
    pub(super) fn new(
        graph: &Graph,
        kernel: &Kernel,
        anchor: NodeId,
        slices: &Slices,
        whole: bool,
    ) -> Result<Option<RowPlan>, &'static str> {
        let nodes: Vec<NodeId> = kernel.epilogue.clone();
        if !nodes.iter().any(|&id| matches!(graph.node(id).op, Op::Reduce(_))) && !slices.any() {
            return Ok(None);
        }
        let product = graph.node(anchor).output();
        let shape = graph.shape(product).clone();
        let last = shape.rank().saturating_sub(1);
        let of_row = |value: ValueId| is_column(graph.shape(value), &shape);
        let is_narrow = |value: ValueId| Some(graph.shape(value)) == slices.narrow();
        let dots = dot_products(graph, kernel, &shape, slices);
        let absorbed: HashSet<ValueId> = dots.values().map(|&id| graph.node(id).output()).collect();
        // Operands of each node, with those of products that are summed in place of the products.
        let read_by = |id: NodeId| graph.node(*dots.get(&id).unwrap_or(&id)).inputs.to_vec();
        // The same, with the values that hold them in place of slices.
        let operands_of =
            |id: NodeId| -> Vec<ValueId> { read_by(id).into_iter().map(|operand| slices.root(operand).0).collect() };
        let mut late: HashSet<ValueId> = HashSet::new();
        for &id in &nodes {
            let node = graph.node(id);
            let value = node.output();
            if graph.shape(value) != &shape && !of_row(value) && !is_narrow(value) {
                return Err("has work on rows whose values are not of its product's shape");
            }
            let reduces = match &node.op {
                Op::Reduce(reduce) if reduce.axes != [last] => {
                    return Err("has a reduction that is not along the rows of its product");
                }
                Op::Reduce(_) => true,
                _ => false,
            };
            let needs = node.inputs.iter().any(|&input| late.contains(&input) || slices.is_part(input));
            if whole || reduces || needs || is_narrow(value) || (of_row(value) && shape[last] != 1) {
                late.insert(value);
            }
        }
        let own: HashSet<ValueId> = nodes.iter().map(|&id| graph.node(id).output()).chain([product]).collect();
        // Parts that are results are cut out of rows that are there as a whole.
        let cut_up = stored_parts(kernel, slices);
        let mut read_early: HashSet<ValueId> = HashSet::new();
        let mut read_late: HashSet<ValueId> = cut_up.iter().map(|&part| slices.root(part).0).collect();
        // From the back: what only later work needs, and what takes no panel more than its operands do, is left to it.
        for &id in nodes.iter().rev() {
            let value = graph.node(id).output();
            if absorbed.contains(&value) {
                continue;
            }
            let operands = operands_of(id);
            let mut kept = operands.iter().filter(|operand| own.contains(operand)).peekable();
            if !late.contains(&value)
                && read_late.contains(&value)
                && !read_early.contains(&value)
                && kept.peek().is_some()
                && kept.all(|operand| read_late.contains(operand))
            {
                late.insert(value);
            }
            let reads = if late.contains(&value) { &mut read_late } else { &mut read_early };
            reads.extend(operands);
        }
        let is_output =
            |value: ValueId| kernel.outputs.contains(&value) || cut_up.iter().any(|&part| slices.root(part).0 == value);
        let mut plan = RowPlan {
            early: Vec::new(),
            early_operands: read_early,
            steps: Vec::new(),
            places: HashMap::new(),
            buffers: Vec::new(),
            columns: Vec::new(),
            operands: read_late.iter().copied().filter(|value| !own.contains(value)).collect(),
            stored_panels: Vec::new(),
            stored_parts: Vec::new(),
            firsts: None,
            shape: shape.clone(),
            narrow: slices.extent(),
        };
        let dtype_of = |value: ValueId| storage(graph.ty(value).dtype);
        let mut copied = None;
        if whole {
            plan.places.insert(product, Place::Tile);
            if is_output(product) {
                let place = plan.buffer(dtype_of(product), true, false);
                copied = Some(place);
                plan.steps.push(Step { value: product, work: Work::Copy, place });
            }
        } else {
            if read_late.contains(&product) || is_output(product) {
                plan.early.push(product);
            }
            let values = nodes.iter().map(|&id| graph.node(id).output());
            plan.early.extend(values.filter(|value| !late.contains(value) && !absorbed.contains(value)));
            for &value in plan.early.iter().filter(|value| read_late.contains(value)) {
                plan.places.insert(value, Place::Buffer(plan.buffers.len()));
                let (dtype, stored) = (dtype_of(value), is_output(value));
                plan.buffers.push(Buffer { dtype, panel: true, stored, narrow: false });
                if is_output(value) {
                    plan.stored_panels.push(value);
                }
            }
        }
        let done: Vec<NodeId> = nodes
            .into_iter()
            .filter(|&id| {
                let value = graph.node(id).output();
                late.contains(&value) && !absorbed.contains(&value)
            })
            .collect();
        let mut last_use: HashMap<ValueId, usize> = HashMap::new();
        for (index, &id) in done.iter().enumerate() {
            last_use.insert(graph.node(id).output(), index);
            operands_of(id).into_iter().for_each(|operand| {
                last_use.insert(operand, index);
            });
        }
        let mut free: Vec<usize> = Vec::new();
        for (index, &id) in done.iter().enumerate() {
            let node = graph.node(id);
            let value = node.output();
            let operands = operands_of(id);
            let work = match &node.op {
                Op::Reduce(reduce) => Work::Fold(reduce.function, read_by(id)),
                _ => Work::Map(id),
            };
            let mut dying: Vec<usize> = operands
                .iter()
                .filter(|operand| last_use.get(operand) == Some(&index) && !is_output(**operand))
                .filter_map(|operand| match plan.places.get(operand) {
                    Some(&Place::Buffer(buffer)) => Some(buffer),
                    _ => None,
                })
                .collect();
            dying.sort_unstable();
            dying.dedup();
            let dtype = dtype_of(value);
            let place = if of_row(value) {
                plan.columns.push(Buffer { dtype, panel: false, stored: is_output(value), narrow: false });
                Place::Column(plan.columns.len() - 1)
            } else {
                // Over an operand of the same type; a fold reads its operands again and again, so it needs another.
                let narrow = is_narrow(value);
                let matches = |buffer: &usize| {
                    let buffer = plan.buffers[*buffer];
                    (buffer.dtype, buffer.narrow) == (dtype, narrow)
                };
                // So does what reads a part of a row, which lies elsewhere than what is written.
                let cut: Vec<Place> = node
                    .inputs
                    .iter()
                    .filter(|&&input| slices.is_part(input))
                    .filter_map(|&input| plan.places.get(&slices.root(input).0).copied())
                    .collect();
                let in_turn = |buffer: &usize| matches(buffer) && !cut.contains(&Place::Buffer(*buffer));
                let in_place = matches!(work, Work::Map(_)).then(|| dying.iter().position(in_turn)).flatten();
                match (in_place, free.iter().position(matches)) {
                    (Some(found), _) => {
                        let buffer = dying.remove(found);
                        plan.buffers[buffer].stored |= is_output(value);
                        Place::Buffer(buffer)
                    }
                    (None, Some(found)) => {
                        let buffer = free.remove(found);
                        plan.buffers[buffer].stored |= is_output(value);
                        Place::Buffer(buffer)
                    }
                    (None, None) => plan.buffer(dtype, is_output(value), narrow),
                }
            };
            free.extend(dying);
            if let (Place::Buffer(buffer), false) = (place, is_output(value))
                && last_use.get(&value) == Some(&index)
            {
                // Nobody reads it.
                free.push(buffer);
            }
            plan.places.insert(value, place);
            plan.steps.push(Step { value, work, place });
        }
        for &part in &cut_up {
            let place = match plan.places.get(&slices.root(part).0) {
                Some(Place::Tile) => copied,
                place => place.copied(),
            };
            plan.stored_parts.push((part, place.ok_or("writes parts of rows that it does not keep")?));
        }
        plan.firsts = plan.firsts_of_slices(graph, slices);
        Ok(Some(plan))
    }

    fn firsts_of_slices(&self, graph: &Graph, slices: &Slices) -> Option<Vec<usize>> {
        let in_panel = |value: ValueId| match self.places.get(&value) {
            Some(&Place::Buffer(buffer)) => self.buffers[buffer].panel,
            _ => false,
        };
        let mut firsts = Vec::new();
        for step in &self.steps {
            let Work::Map(id) = step.work else { return None };
            if !self.is_narrow(step.place) {
                return None;
            }
            for &part in graph.node(id).inputs.iter().filter(|&&input| slices.is_part(input)) {
                let (root, first) = slices.root(part);
                if !in_panel(root) || !slices.is_narrow(graph.shape(part)) {
                    return None;
                }
                firsts.push(first);
            }
        }
        let stores = !self.stored_panels.is_empty() || !self.stored_parts.is_empty();
        (!firsts.is_empty() && !stores).then_some(firsts)
    }

    fn buffer(&mut self, dtype: DType, stored: bool, narrow: bool) -> Place {
        self.buffers.push(Buffer { dtype, panel: false, stored, narrow });
        Place::Buffer(self.buffers.len() - 1)
    }

    /// Bytes of one row of `n` elements in those buffers that `of` names.
    fn row_bytes(&self, n: usize, of: impl Fn(&Buffer) -> bool) -> u64 {
        let copies = |buffer: &Buffer| if buffer.stored || buffer.panel { 2 } else { 1 };
        let whole = self.buffers.iter().filter(|buffer| of(buffer));
        whole.map(|buffer| copies(buffer) * self.width(buffer, n) * element_bytes(buffer.dtype) as u64).sum()
    }

    /// Elements in a row of a buffer, where those of the product have `n`.
    fn width(&self, buffer: &Buffer, n: usize) -> u64 {
        (if buffer.narrow { self.narrow } else { n }) as u64
    }

    /// Whether the rows of a place are narrow.
    fn is_narrow(&self, place: Place) -> bool {
        matches!(place, Place::Buffer(buffer) if self.buffers[buffer].narrow)
    }

    /// How often the vector unit goes through all of a row, but for operators that take it longer.
    pub(super) fn passes(&self) -> usize {
        let whole = |step: &&Step| !matches!(step.place, Place::Column(_)) || matches!(step.work, Work::Fold(..));
        let (narrow, wide): (Vec<&Step>, Vec<&Step>) =
            self.steps.iter().filter(whole).partition(|step| self.is_narrow(step.place));
        let row = self.shape.last().copied().unwrap_or(1).max(1);
        self.early.len() + wide.len() + (narrow.len() * self.narrow).div_ceil(row)
    }

    /// Values that are computed tile by tile.
    pub(super) fn early_values(&self) -> usize {
        self.early.len()
    }

    /// Bytes that the panels of two M-tiles take for each row of `n` elements.
    pub(super) fn panel_row_bytes(&self, n: usize) -> usize {
        self.row_bytes(n, |buffer| buffer.panel) as usize
    }

    /// Rows of which the panels take no more than `budget` bytes; at least one.
    pub(super) fn panel_rows(&self, n: usize, budget: usize) -> usize {
        budget.checked_div(self.panel_row_bytes(n)).map_or(usize::MAX, |rows| rows.max(1))
    }
}

/// The parts of rows that leave a kernel.
fn stored_parts(kernel: &Kernel, slices: &Slices) -> Vec<ValueId> {
    kernel.outputs.iter().copied().filter(|&value| slices.is_part(value)).collect()
}

/// Sums of products, each with its product: those of floats, of which only the sum is used.
fn dot_products(graph: &Graph, kernel: &Kernel, shape: &Shape, slices: &Slices) -> HashMap<NodeId, NodeId> {
    let own: HashSet<NodeId> = kernel.epilogue.iter().copied().collect();
    let mut users: HashMap<ValueId, usize> = HashMap::new();
    for &id in &kernel.epilogue {
        graph.node(id).inputs.iter().for_each(|&input| *users.entry(input).or_default() += 1);
    }
    let cut_up = stored_parts(kernel, slices);
    let mut dots = HashMap::new();
    for &id in &kernel.epilogue {
        let Op::Reduce(reduce) = &graph.node(id).op else { continue };
        let summed = graph.node(id).inputs[0];
        let Some(product) = graph.producer(summed).filter(|product| own.contains(product)) else { continue };
        let multiplies = matches!(&graph.node(product).op, Op::Binary(binary) if binary.0 == BinaryFn::Mul);
        // 64-bit floats are multiplied and added by the scalar unit, one by one.
        let ty = graph.ty(summed);
        if multiplies
            && matches!(reduce.function, ReduceFn::Sum | ReduceFn::Mean)
            && ty.dtype.class() == NumberClass::F32
            && (&ty.shape == shape || Some(&ty.shape) == slices.narrow())
            && users.get(&summed) == Some(&1)
            && !kernel.outputs.contains(&summed)
            && cut_up.iter().all(|&part| slices.root(part).0 != summed)
        {
            dots.insert(id, product);
        }
    }
    dots
}

/// Whether a value has one element for each row of a product of this shape.
fn is_column(shape: &Shape, product: &Shape) -> bool {
    let (Some((&1, lead)), Some((_, rows))) = (shape.split_last(), product.split_last()) else { return false };
    lead == rows && shape != product
}

/// The buffers of work on rows, and how far it is.
pub(super) struct Rows {
    plan: RowPlan,
    /// Rows that are worked on at a time.
    count: usize,
    /// Addresses of each buffer, to be taken in turn.
    buffers: Vec<Vec<u32>>,
    columns: Vec<Vec<u32>>,
    /// Bytes that operands will take.
    later: u64,
    external: EpilogueBuffers,
    /// Tiles of columns of an M-tile, and how many of them have come out.
    column_tiles: usize,
    out: usize,
    /// Columns of narrow values that have been worked on of the present M-tile.
    columns_done: usize,
    /// Number of M-tiles that have come out.
    tiles: usize,
    /// Number of times that rows were worked on.
    parts: usize,
    /// The M-tile before, if its rows have not all been worked on.
    pending: Option<Pending>,
}

/// An M-tile that has come out.
struct Pending {
    batch: Tile,
    m: Tile,
    /// Where the last of its columns lie.
    tile: ChipOperand,
    /// Which of the M-tiles it is.
    number: usize,
    /// Its rows, in the pieces in which they are worked on, and how many of these are done.
    parts: Vec<Tile>,
    done: usize,
    /// Of narrow values, the columns that are worked on, if not all.
    columns: Option<Range<usize>>,
}

impl Rows {
    /// Values that are computed tile by tile.
    pub(super) fn early(&self) -> &[ValueId] {
        &self.plan.early
    }

    /// Whether an operand is read tile by tile.
    pub(super) fn reads_early(&self, value: ValueId) -> bool {
        self.plan.early_operands.contains(&value)
    }

    pub(super) fn has_panel(&self, value: ValueId) -> bool {
        matches!(self.plan.places.get(&value), Some(Place::Buffer(_)))
    }

    /// Bytes of the scratchpad that buffers will take which have not been taken yet.
    pub(super) fn later_bytes(&self) -> u64 {
        self.later
    }

    /// The panel of a value for an M-tile, over the tile's and all of N's dimensions.
    pub(super) fn panel(&self, value: ValueId, m: &Tile, n: &Space) -> Option<ChipOperand> {
        let Some(&Place::Buffer(buffer)) = self.plan.places.get(&value) else { return None };
        Some(self.whole(buffer, self.tiles, m, n))
    }

    fn whole(&self, buffer: usize, number: usize, m: &Tile, n: &Space) -> ChipOperand {
        let lens: Vec<usize> = m.lens.iter().chain(&n.sizes).copied().collect();
        let copies = &self.buffers[buffer];
        ChipOperand {
            memory: Memory::Scratchpad,
            address: copies[number % copies.len()],
            dtype: self.plan.buffers[buffer].dtype,
            strides: tile::dense_strides(&lens, |_| true),
        }
    }
}

impl Lowering<'_, '_> {
    /// Takes buffers for work on rows of M-tiles of at most `rows` rows, of which there are `tiles`, each of `column_tiles`
    /// tiles of columns.
    pub(super) fn take_rows(
        &mut self,
        kernel: &Kernel,
        product: &Product,
        mut plan: RowPlan,
        rows: usize,
        [tiles, column_tiles]: [usize; 2],
    ) -> Result<Rows, TargetError> {
        let n = product.n.count();
        if [&product.n, product.columns_of(true)].iter().any(|columns| columns.sizes.len() != 1) {
            plan.firsts = None;
        }
        let is_fixed = |which: usize| {
            [&product.batch, &product.m].into_iter().all(|space| space.strides[which].iter().all(|&stride| stride == 0))
        };
        // Of an operand that is the same for all rows there is one buffer, else two of as many rows.
        let (mut fixed, mut varying) = (0, 0);
        for (_, operand, which) in product.externals.iter().filter(|(value, ..)| plan.operands.contains(value)) {
            let columns = product.columns(*which);
            let row: usize = (0..columns.sizes.len())
                .filter(|&dim| columns.strides[*which][dim] != 0)
                .map(|dim| columns.sizes[dim])
                .product();
            let bytes = (row as u64) * element_bytes(operand.dtype) as u64;
            if is_fixed(*which) {
                fixed += bytes;
            } else {
                varying += 2 * bytes;
            }
        }
        let (panels, parts) = (plan.row_bytes(n, |buffer| buffer.panel), plan.row_bytes(n, |buffer| !buffer.panel));
        let (least, most) = (panels + parts + fixed + varying, rows_room(self.emitter.capacity()));
        if least > most {
            return Err(self.does_not_fit(kernel, least - most));
        }
        let mut buffers: Vec<Vec<u32>> = vec![Vec::new(); plan.buffers.len()];
        for (index, buffer) in plan.buffers.iter().enumerate().filter(|(_, buffer)| buffer.panel) {
            let bytes = rows as u64 * n as u64 * element_bytes(buffer.dtype) as u64;
            buffers[index] = self.buffers(Filler::Vector, bytes, tiles.min(2));
        }
        // Few rows at a time let stores begin early and do not hold up the next M-tile; many need fewer instructions.
        let usual = match tiles {
            1 => rows.max(1),
            _ => rows.div_ceil(column_tiles.max(4)).max(EPILOGUE_ELEMENTS / n.max(1)).clamp(1, rows.max(1)),
        };
        let room = (self.emitter.room() / 2).saturating_sub(fixed);
        let count = match parts + varying {
            0 => usual,
            row => self.squeezed((room / row) as usize).clamp(1, usual),
        };
        for (index, buffer) in plan.buffers.iter().enumerate().filter(|(_, buffer)| !buffer.panel) {
            let bytes = count as u64 * plan.width(buffer, n) * element_bytes(buffer.dtype) as u64;
            buffers[index] = self.buffers(Filler::Vector, bytes, if buffer.stored { 2 } else { 1 });
        }
        let mut columns = Vec::with_capacity(plan.columns.len());
        for buffer in &plan.columns {
            let bytes = count as u64 * element_bytes(buffer.dtype) as u64;
            columns.push(self.buffers(Filler::Vector, bytes, if buffer.stored { 2 } else { 1 }));
        }
        let later = fixed + varying * count as u64;
        let external = EpilogueBuffers::new(later);
        let (out, pending) = (0, None);
        Ok(Rows {
            plan,
            count,
            buffers,
            columns,
            later,
            external,
            column_tiles,
            out,
            columns_done: 0,
            tiles: 0,
            parts: 0,
            pending,
        })
    }

    /// Goes on with work on rows after a tile of columns has come out, at `tile`.
    pub(super) fn row_work(
        &mut self,
        kernel: &Kernel,
        product: &Product,
        (batch, m, n): (&Tile, &Tile, &Tile),
        tile: &ChipOperand,
        rows: &mut Rows,
    ) -> Result<(), TargetError> {
        rows.out += 1;
        if let Some(firsts) = &rows.plan.firsts {
            // As many columns as have come out of every slice.
            let out = n.starts[0] + n.lens[0];
            let narrow = rows.plan.narrow;
            let there = firsts.iter().map(|&first| out.saturating_sub(first).min(narrow)).min().unwrap_or(0);
            let columns = rows.columns_done..there;
            if !columns.is_empty() {
                // Fewer columns leave place for more rows.
                let count = rows.count.saturating_mul(narrow) / columns.len();
                let mut pending = Pending {
                    batch: batch.clone(),
                    m: m.clone(),
                    tile: tile.clone(),
                    number: rows.tiles,
                    parts: tile::tiles(&m.lens, &tile::fill(&m.lens, count.max(1))),
                    done: 0,
                    columns: Some(columns),
                };
                while pending.done < pending.parts.len() {
                    self.work_on_part(kernel, product, &pending, &pending.parts[pending.done], rows)?;
                    pending.done += 1;
                }
                rows.columns_done = there;
            }
            if rows.out == rows.column_tiles {
                (rows.out, rows.columns_done) = (0, 0);
                rows.tiles += 1;
            }
            return Ok(());
        }
        // As much of the M-tile before as there has been of this one.
        self.work_up_to(kernel, product, rows, rows.out, rows.column_tiles)?;
        if rows.out < rows.column_tiles {
            return Ok(());
        }
        rows.out = 0;
        rows.pending = Some(Pending {
            batch: batch.clone(),
            m: m.clone(),
            tile: tile.clone(),
            number: rows.tiles,
            parts: tile::tiles(&m.lens, &tile::fill(&m.lens, rows.count)),
            done: 0,
            columns: None,
        });
        rows.tiles += 1;
        // A single tile of columns is not kept.
        if rows.column_tiles == 1 { self.finish_rows(kernel, product, rows) } else { Ok(()) }
    }

    /// Works on all rows that have come out.
    pub(super) fn finish_rows(
        &mut self,
        kernel: &Kernel,
        product: &Product,
        rows: &mut Rows,
    ) -> Result<(), TargetError> {
        self.work_up_to(kernel, product, rows, 1, 1)
    }

    /// Works on `share` of `whole` of the rows of the M-tile before, less what is done already.
    fn work_up_to(
        &mut self,
        kernel: &Kernel,
        product: &Product,
        rows: &mut Rows,
        share: usize,
        whole: usize,
    ) -> Result<(), TargetError> {
        let Some(mut pending) = rows.pending.take() else { return Ok(()) };
        let wanted = (pending.parts.len() * share).div_ceil(whole);
        while pending.done < wanted {
            self.work_on_part(kernel, product, &pending, &pending.parts[pending.done], rows)?;
            pending.done += 1;
        }
        rows.pending = Some(pending).filter(|pending| pending.done < pending.parts.len());
        Ok(())
    }

    /// Works on some rows of an M-tile.
    fn work_on_part(
        &mut self,
        kernel: &Kernel,
        product: &Product,
        Pending { batch, m, tile, number, columns, .. }: &Pending,
        part: &Tile,
        rows: &mut Rows,
    ) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let m_dims = m.lens.len();
        let slices = &product.slices;
        let sizes_of = |narrow: bool| match columns {
            Some(columns) if narrow => vec![columns.len()],
            _ => product.columns_of(narrow).sizes.to_vec(),
        };
        let first_column = columns.as_ref().map_or(0, |columns| columns.start);
        let nest = |narrow: bool| [&part.lens[..], &sizes_of(narrow)].concat();
        let (wide, narrow) = (nest(false), nest(true));
        let lens_of = |is_narrow: bool| if is_narrow { &narrow } else { &wide };
        let start = |which: usize| {
            let columns =
                if first_column == 0 { 0 } else { first_column as i64 * product.columns(which).strides[which][0] };
            offset(batch, &product.batch, which)
                + offset(m, &product.m, which)
                + part.offset(&product.m.strides[which])
                + columns
        };
        let turn = rows.parts % 2;
        let mut operands: HashMap<ValueId, ChipOperand> = HashMap::new();
        for (value, operand, which) in product.externals.iter().filter(|(v, ..)| rows.plan.operands.contains(v)) {
            let strides = product.strides(*which);
            if let Some(operand) = operand.in_place(start(*which), &strides) {
                operands.insert(*value, operand);
                continue;
            }
            let lens = nest(slices.is_narrow(graph.shape(*value)));
            let chip_strides = tile::dense_strides(&lens, |dim| strides[dim] != 0);
            let held: Vec<usize> =
                lens.iter().zip(&strides).map(|(&len, &stride)| if stride == 0 { 1 } else { len }).collect();
            let bytes = held.iter().product::<usize>() as u64 * element_bytes(operand.dtype) as u64;
            let varies = [&product.batch, &product.m]
                .into_iter()
                .any(|space| space.strides[*which].iter().any(|&stride| stride != 0));
            let turn = if varies { turn } else { 0 };
            let address = rows.external.take(self, *value, turn, bytes, Filler::Load);
            let dram = operand.address(start(*which));
            if rows.external.is_new(*value, turn, dram, &held) {
                self.move_tile(false, dram, operand.dtype, &lens, &strides, address, &chip_strides);
            }
            let loaded =
                ChipOperand { memory: Memory::Scratchpad, address, dtype: operand.dtype, strides: chip_strides };
            operands.insert(*value, loaded);
        }
        let place = |rows: &Rows, place: Place| match place {
            Place::Tile => tile.part(part.offset(&tile.strides[..m_dims])),
            Place::Buffer(buffer) if rows.plan.buffers[buffer].panel => {
                let panel = rows.whole(buffer, *number, m, &product.n);
                panel.part(part.offset(&panel.strides[..m_dims]))
            }
            Place::Buffer(buffer) => ChipOperand {
                memory: Memory::Scratchpad,
                address: rows.buffers[buffer][rows.parts % rows.buffers[buffer].len()],
                dtype: rows.plan.buffers[buffer].dtype,
                strides: tile::dense_strides(lens_of(rows.plan.buffers[buffer].narrow), |_| true),
            },
            Place::Column(column) => ChipOperand {
                memory: Memory::Scratchpad,
                address: rows.columns[column][rows.parts % rows.columns[column].len()],
                dtype: rows.plan.columns[column].dtype,
                strides: tile::dense_strides(&wide, |dim| dim < m_dims),
            },
        };
        // Where a result lies that stays on chip.
        let kept = |value: ValueId| {
            let (result, which) = product.kept_rows(value)?;
            result.in_place(start(which), &product.strides(which))
        };
        // How a part of rows is read by work over all columns, or over narrow ones. A row lies in one piece, wherever it
        // is; a single element serves all columns.
        let cut = |whole: &ChipOperand, value: ValueId, over_narrow: bool| {
            let first = if slices.is_part(value) { slices.root(value).1 + first_column } else { 0 };
            let mut read = whole.part(first as i64);
            let single = graph.shape(value).last().is_none_or(|&extent| extent == 1);
            read.strides.truncate(m_dims);
            read.strides.extend(tile::dense_strides(&sizes_of(over_narrow), |_| !single));
            read
        };
        // How an operand is read.
        let known = |rows: &Rows, value: ValueId, over_narrow: bool| {
            let root = slices.root(value).0;
            let whole = match operands.get(&root) {
                Some(operand) => operand.clone(),
                None => match kept(root) {
                    Some(kept) => kept,
                    None => place(rows, *rows.plan.places.get(&root)?),
                },
            };
            let as_it_is = !slices.is_part(value) && slices.is_narrow(graph.shape(value)) == over_narrow;
            Some(if as_it_is { whole } else { cut(&whole, value, over_narrow) })
        };
        let store = |lowering: &mut Self, value: ValueId, chip: &ChipOperand, piece: &Tile| {
            let Some((_, result, which)) = product.result(value) else { return };
            let rows = piece.offset(&product.m.strides[*which]);
            let (dram, strides) = (result.address(start(*which) + rows), product.strides(*which));
            let lens = [&piece.lens[..], &sizes_of(slices.is_narrow(graph.shape(value)))].concat();
            lowering.move_tile(true, dram, chip.dtype, &lens, &strides, chip.address, &chip.strides);
        };
        let all = [Tile { starts: vec![0; m_dims], lens: part.lens.clone() }];
        let late = |&&value: &&ValueId| kept(value).is_none() && !product.is_stored_by_tile(value, self.machine);
        for &value in rows.plan.stored_panels.iter().filter(late) {
            if let Some(chip) = known(rows, value, false) {
                store(self, value, &chip, &all[0]);
            }
        }
        // Nodes depend on each other row by row: while one is at some rows, the next finds others that are ready. Single
        // elements of rows lie too close together for the waits of pieces to be told apart.
        let elements = part.count() * wide[m_dims..].iter().product::<usize>();
        let vector = &self.machine.vector;
        let ready = (vector.lanes * vector.latency) as usize / (PIECES - 1);
        let piece_rows = part.count().div_ceil(PIECES.min(elements / ready.max(1)).max(1));
        let pieces = tile::tiles(&part.lens, &tile::fill(&part.lens, piece_rows));
        let turns = rows.plan.steps.iter().flat_map(|step| {
            let pieces = if matches!(step.place, Place::Column(_)) { &all[..] } else { &pieces[..] };
            pieces.iter().map(move |piece| (step, piece))
        });
        for (step, piece) in turns {
            let at = |operand: ChipOperand| operand.part(piece.offset(&operand.strides[..m_dims]));
            let known = |rows: &Rows, value: ValueId, narrow: bool| known(rows, value, narrow).map(at);
            let whole_to = kept(step.value).unwrap_or_else(|| place(rows, step.place));
            let to = at(whole_to);
            let lens_of = |narrow: bool| [&piece.lens[..], &sizes_of(narrow)].concat();
            let extents = |value: ValueId| -> Vec<usize> {
                let column = is_column(graph.shape(value), &rows.plan.shape);
                let lens = lens_of(slices.is_narrow(graph.shape(value)));
                lens.iter().enumerate().map(|(dim, &len)| if column && dim >= m_dims { 1 } else { len }).collect()
            };
            match &step.work {
                Work::Copy => {
                    let from = at(place(rows, Place::Tile));
                    self.map(MapFn::Copy, &lens_of(false), &to, &[ChipSource::Chip(&from)]);
                }
                Work::Map(id) => {
                    let node = graph.node(*id);
                    let narrow = slices.is_narrow(graph.shape(step.value));
                    self.element_wise(kernel, node, &extents(step.value), &to, |value| known(rows, value, narrow))?;
                }
                Work::Fold(function, folded) => {
                    let narrow = folded.iter().any(|&value| slices.is_narrow(graph.shape(value)));
                    let walked: Vec<Option<ChipOperand>> =
                        folded.iter().map(|&value| known(rows, value, narrow)).collect();
                    // Where it stands still, one walk is like another.
                    let mut to = to.clone();
                    to.strides.truncate(m_dims);
                    to.strides.resize(lens_of(narrow).len(), 0);
                    let sources: Vec<ChipSource<'_>> = folded
                        .iter()
                        .zip(&walked)
                        .filter_map(|(&value, operand)| match operand {
                            Some(operand) => Some(ChipSource::Chip(operand)),
                            None => self.immediate(value).map(ChipSource::Immediate),
                        })
                        .collect();
                    if sources.len() != folded.len() {
                        return Err(self.defect(kernel, "reduces what is not on chip"));
                    }
                    let dot = sources.len() == 2;
                    let by = if dot { FoldFn::Dot } else { fold_function(*function) };
                    let whole = if dot { lens_of(narrow) } else { extents(folded[0]) };
                    self.fold_nest(by, &whole, m_dims, false, &to, &sources);
                    if *function == ReduceFn::Mean {
                        let count = whole[m_dims..].iter().product::<usize>();
                        let divisor = if to.dtype.is_float() {
                            Source::Float(count as f64)
                        } else {
                            Source::Integer(count as i64)
                        };
                        let sources = [ChipSource::Chip(&to), ChipSource::Immediate(divisor)];
                        let rows: Vec<usize> =
                            piece.lens.iter().copied().chain(whole[m_dims..].iter().map(|_| 1)).collect();
                        self.map(MapFn::Binary(BinaryFn::Div), &rows, &to, &sources);
                    }
                }
            }
            if kept(step.value).is_none() {
                store(self, step.value, &to, piece);
            }
        }
        for &(part, from) in &rows.plan.stored_parts {
            let whole = kept(slices.root(part).0).unwrap_or_else(|| place(rows, from));
            store(self, part, &cut(&whole, part, true), &all[0]);
        }
        rows.parts += 1;
        Ok(())
    }
}
