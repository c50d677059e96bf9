//! Products on the matrix units.
//!
//! A tile of weights is loaded while the one before it is multiplied. Halves are multiplied by two planes at once, by half of the
//! lanes at a time; bytes by each plane alone. Sums stay in accumulators along the K-dimension, and leave the unit with the
//! last tile of it.

use std::sync::Arc;

use smallvec::SmallVec;
use tcc_ir::ops::{MatMul, Transpose};
use tcc_ir::{DType, NodeId, Shape as Dims, ValueId, View};

use super::access::{direct, distinct, positions};
use super::chain::{Arg, Function};
use super::elementwise::Gathering;
use super::lots::Touched;
use super::strip::{Columns, Step, striped};
use super::transpose::Exchange;
use super::work::{Leaf, Target, Work, all_vectors, planes};
use super::{Lease, Lowering, Room, Shape, lost};
use crate::lpu::LpuMachine;
use crate::lpu::constants::Tiles;
use crate::lpu::isa::{Hemisphere, Number, Row};
use crate::lpu::layout::{Layout, Place};
use crate::lpu::memory::Slices;
use crate::lpu::schedule::Planes;
use crate::stored::storage;
use crate::target::TargetError;

/// A plane of a matrix unit, as far as it is scheduled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Engine {
    pub side: Hemisphere,
    pub plane: u8,
    /// From when on its next weights may be loaded.
    pub load: u64,
    /// From when on they may come into use.
    pub multiply: u64,
}

/// The planes of a machine.
pub(super) fn engines(facts: &LpuMachine) -> Vec<Engine> {
    let planes = facts.mxm.planes as u8;
    let all = (0..planes).flat_map(|plane| Hemisphere::ALL.map(|side| (side, plane)));
    all.map(|(side, plane)| Engine { side, plane, load: 0, multiply: 0 }).collect()
}

/// The columns of weights.
enum Weights {
    /// Of a constant, and for each batch the one of the constant's that it uses.
    Tiles(Arc<Tiles>, Vec<usize>),
    /// Rows that are computed, and for each batch, column and block where they are.
    Rows(Leaf),
}

/// What a product consists of.
struct Job {
    /// As what elements are multiplied.
    dtype: DType,
    row: [Row; 2],
    rows: Leaf,
    weights: Weights,
    batches: usize,
    m: usize,
    k: usize,
    n: usize,
}

/// What becomes of complete sums.
enum Sink {
    /// They are stored.
    Store(Lease),
    /// They go through a chain, as this one of its operands.
    Chain(Box<Work>, usize),
}

impl Job {
    /// What a tile of sums reads and writes.
    fn touched(&self, item: &Item, sink: &Sink, lanes: usize) -> (Vec<Touched>, Vec<Touched>) {
        let rows = item.rows.start + item.batch * self.m..item.rows.end + item.batch * self.m;
        let k_blocks = self.k.div_ceil(lanes).max(1);
        let operand = &self.rows.rows[rows.start * k_blocks..rows.end * k_blocks];
        let operand = Touched::new(&self.rows.layout, operand.iter().map(|&(row, _)| row));
        let (mut reads, writes) = match sink {
            Sink::Store(layout) => (Vec::new(), Touched::new(layout, rows.map(|row| row as u32)).into_iter().collect()),
            Sink::Chain(work, leaf) => {
                let n_blocks = self.n.div_ceil(lanes);
                let vectors: Vec<usize> = rows.map(|row| row * n_blocks + item.n_block).collect();
                Touched::by_chain(work, &vectors, Some(*leaf))
            }
        };
        reads.extend(operand);
        (reads, writes)
    }
}

/// Rows that go through planes, all tiles of columns counted, from which on they are kept as products read them.
pub(super) const LARGE: usize = 128;

/// One tile of sums: some rows of a batch by the columns of a tile.
struct Item {
    batch: usize,
    rows: std::ops::Range<usize>,
    n_block: usize,
}

/// Weights that are loaded at once, and the rows that are multiplied with them.
struct Pass {
    part: Part,
    /// The block of the rows.
    block: usize,
    /// How the rows are multiplied, once for each half of the lanes that has weights.
    rows: SmallVec<[Row; 2]>,
    /// Whether sums are added to those before.
    add: bool,
}

/// The weights of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// So many vectors along the K-dimension.
    Block(usize),
    /// From a group of the shelf on.
    Group(usize),
}

impl Lowering<'_> {
    pub(super) fn product(&mut self, id: NodeId) -> Result<Lease, TargetError> {
        let graph = self.graph.clone();
        let node = graph.node(id);
        let tcc_ir::Op::MatMul(product) = &node.op else { return Err(lost("a product is none")) };
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let result = node.output();
        let job = self.job(product, a, b)?;
        let shape = graph.shape(result).clone();
        let (rows, columns) = Layout::matrix(&shape);
        let sums = if job.dtype == DType::F16 { DType::F32 } else { DType::I32 };
        let avoid = Slices::of(&job.rows.layout.slices);
        // What has one column is in all lanes; the matrix unit has it in the first alone.
        let width = if columns == 1 { self.lanes() } else { columns };
        let mut layout = self.allocate(sums, rows, width, 1, avoid)?;
        self.multiply(job, Sink::Store(layout.clone()))?;
        if columns == 1 {
            let positions: Vec<i64> = (0..rows).map(|row| (row * width) as i64).collect();
            let spread = self.select_elements(&layout, &positions, rows, 1)?;
            self.give_back(&layout);
            layout = spread;
        }
        let dtype = graph.ty(result).dtype;
        if dtype == sums {
            return Ok(layout);
        }
        let rounded = self.allocate(dtype, rows, columns, 1, Slices::of(&layout.slices))?;
        let all = all_vectors(rows, layout.blocks());
        self.convert(Leaf { layout: layout.clone(), rows: all }, &rounded, false)?;
        self.give_back(&layout);
        Ok(rounded)
    }

    fn job(&mut self, product: &MatMul, a: ValueId, b: ValueId) -> Result<Job, TargetError> {
        let (a_type, b_type) = (self.graph.ty(a).clone(), self.graph.ty(b).clone());
        let dims = product.dims(&a_type, &b_type).map_err(|error| lost(&error.to_string()))?;
        let (a_dtype, b_dtype) = operand_types(a_type.dtype, b_type.dtype);
        let extend = |own: [usize; 2]| Dims::new(dims.batch.iter().copied().chain(own));
        let shape = |own| extend(own).map_err(|error| lost(&error.to_string()));
        let rows = self.multiplied(a, &shape([dims.m, dims.k])?, false, a_dtype, Shape::Operand(a_dtype))?;
        let batches = dims.batch.count();
        let weights = if self.is_constant(b) {
            let tiles = self.tiles(product, b, b_dtype)?;
            self.repeat_rests(&tiles, &rows)?;
            let own = Dims::new(b_type.shape[..b_type.shape.rank() - 2].iter().copied());
            let own = own.map_err(|error| lost(&error.to_string()))?;
            let view = View::dense(own).broadcast(&dims.batch).ok_or_else(|| lost("batches do not match"))?;
            let mut batch: Vec<usize> = positions(&view).into_iter().map(|at| at as usize).collect();
            batch.resize(batches, 0);
            Weights::Tiles(tiles, batch)
        } else {
            let leaf =
                self.multiplied(b, &shape([dims.n, dims.k])?, !product.transpose_b, b_dtype, Shape::Weights(b_dtype))?;
            Weights::Rows(leaf)
        };
        let signed = |dtype: DType| dtype == DType::I8;
        let row = if a_dtype == DType::F16 {
            [Row::Halves(0), Row::Halves(1)]
        } else {
            [Row::Bytes { row_signed: signed(a_dtype), weights_signed: signed(b_dtype) }; 2]
        };
        // Batches with the same weights are rows of one product.
        let blocks = dims.k.div_ceil(self.lanes());
        let same = match &weights {
            Weights::Tiles(_, batch) => batch.windows(2).all(|pair| pair[0] == pair[1]),
            Weights::Rows(leaf) => {
                let each = dims.n * blocks;
                leaf.rows.chunks(each.max(1)).all(|rows| rows == &leaf.rows[..each.min(leaf.rows.len())])
            }
        };
        let (batches, m) = if same { (1, batches * dims.m) } else { (batches, dims.m) };
        Ok(Job { dtype: a_dtype, row, rows, weights, batches, m, k: dims.k, n: dims.n })
    }

    /// An operand as rows along the K-dimension, of the elements that are multiplied, with zeros behind them.
    pub(super) fn multiplied(
        &mut self,
        value: ValueId,
        shape: &Dims,
        transposed: bool,
        dtype: DType,
        form: Shape,
    ) -> Result<Leaf, TargetError> {
        let lanes = self.lanes();
        let wrong = || lost("an operand of a product has another shape");
        if self.is_constant(value) && !transposed {
            let room = Room { stripes: self.stripes_of(form), ..Room::GIVEN };
            let layout = self.constant_as(value, form, dtype, room)?;
            let view = View::dense(self.graph.shape(value).clone()).broadcast(shape).ok_or_else(wrong)?;
            let rows = direct(&view, layout.columns, lanes).ok_or_else(wrong)?;
            return Ok(Leaf { layout, rows });
        }
        let access = self.plan.access(value).clone();
        let (root, own) = match transposed {
            false => (access.root, access.view),
            true => match turned(&access.view) {
                Some(own) => (access.root, own),
                // The view has no strides then: it is written out first.
                None => {
                    let dense = View::dense(self.graph.shape(value).clone());
                    (value, turned(&dense).ok_or_else(wrong)?)
                }
            },
        };
        let whole = own.broadcast(shape).ok_or_else(wrong)?;
        let part = distinct(&whole);
        let layout = self.operand_rows(root, &part, dtype, form)?;
        let view = View::dense(part.shape().clone()).broadcast(shape).ok_or_else(wrong)?;
        let rows = direct(&view, layout.columns, lanes).ok_or_else(wrong)?;
        Ok(Leaf { layout, rows })
    }

    fn stripes_of(&self, form: Shape) -> usize {
        if matches!(form, Shape::Weights(_)) { self.stripes() } else { 1 }
    }

    /// Rows of a view of a value in the form that is multiplied.
    pub(super) fn operand_rows(
        &mut self,
        root: ValueId,
        view: &View,
        dtype: DType,
        form: Shape,
    ) -> Result<Lease, TargetError> {
        let key = (root, view.clone(), form);
        if let Some(layout) = self.made.get(&key) {
            return Ok(layout.clone());
        }
        let (rows, columns) = Layout::matrix(view.shape());
        let lanes = self.lanes();
        let source = self.materialize(root)?;
        let blocks = columns.div_ceil(lanes);
        // A single element of the K-dimension is in all lanes; weights have no use for the others, which must be 0.
        let ragged = !columns.is_multiple_of(lanes);
        let found = direct(view, source.columns, lanes);
        let plain = form == Shape::Operand(dtype) && source.dtype == dtype && (!ragged || dtype != DType::F16);
        if let Some(found) = &found
            && plain
            && view.is_dense()
            && (source.rows, source.columns) == (rows, columns)
            && !found.is_empty()
        {
            return Ok(source);
        }
        if found.is_none()
            && let Some(exchange) = Exchange::of(view, source.columns, lanes)
        {
            let narrow = self.narrowed(root, source.clone(), dtype)?;
            let layout = self.allocate(dtype, rows, columns, self.stripes_of(form), Slices::of(&narrow.slices))?;
            if self.exchange_rows(&narrow, &exchange, &layout)?.is_some() {
                self.remember(key, layout.clone());
                return Ok(layout);
            }
            self.give_back(&layout);
        }
        let leaf = match found {
            Some(found) => Leaf { layout: source, rows: found },
            None => Leaf { layout: self.narrow_then_move(root, source, view, dtype)?, rows: all_vectors(rows, blocks) },
        };
        let avoid = Slices::of(&leaf.layout.slices);
        let layout = self.allocate(dtype, rows, columns, self.stripes_of(form), avoid)?;
        self.convert(leaf, &layout, ragged)?;
        self.remember(key, layout.clone());
        Ok(layout)
    }

    /// A view of a value whose lanes must be moved: of the elements that are multiplied, as they are the smaller ones.
    fn narrow_then_move(
        &mut self,
        root: ValueId,
        source: Lease,
        view: &View,
        dtype: DType,
    ) -> Result<Lease, TargetError> {
        let narrow = self.narrowed(root, source, dtype)?;
        let key = (root, view.clone(), Shape::Moved(dtype));
        if let Some(layout) = self.made.get(&key) {
            return Ok(layout.clone());
        }
        let layout = self.rearrange(&narrow, view)?;
        self.remember(key, layout.clone());
        Ok(layout)
    }

    /// A value as the elements that are multiplied, with anything behind its rows.
    pub(super) fn narrowed(&mut self, root: ValueId, source: Lease, dtype: DType) -> Result<Lease, TargetError> {
        if source.dtype == dtype {
            return Ok(source);
        }
        let key = (root, View::dense(self.graph.shape(root).clone()), Shape::Moved(dtype));
        if let Some(layout) = self.made.get(&key) {
            return Ok(layout.clone());
        }
        let all = all_vectors(source.rows, source.blocks());
        let layout = self.allocate(dtype, source.rows, source.columns, 1, Slices::of(&source.slices))?;
        self.convert(Leaf { layout: source, rows: all }, &layout, false)?;
        self.remember(key, layout.clone());
        Ok(layout)
    }

    /// Rows as elements of a type, if they are halves that stand for it.
    pub(super) fn widened(&mut self, layout: Lease, dtype: DType) -> Result<Lease, TargetError> {
        if layout.dtype == storage(dtype) {
            return Ok(layout);
        }
        let wide = self.allocate(dtype, layout.rows, layout.columns, 1, Slices::of(&layout.slices))?;
        let all = all_vectors(layout.rows, layout.blocks());
        self.convert(Leaf { layout: layout.clone(), rows: all }, &wide, false)?;
        self.give_back(&layout);
        Ok(wide)
    }

    /// Copies rows to rows of another type, with zeros behind them if they are ragged.
    pub(super) fn convert(&mut self, leaf: Leaf, layout: &Lease, ragged: bool) -> Result<(), TargetError> {
        let (rows, columns) = (layout.rows, layout.columns);
        let all = all_vectors(rows, layout.blocks());
        let float = layout.dtype.is_float();
        let shape = Dims::new([rows, columns]).map_err(|error| lost(&error.to_string()))?;
        let mut gathering = Gathering::new(&shape);
        let source = gathering.leaf(leaf);
        let step = if ragged {
            let mask = self.mask(columns, &all)?;
            let mask = gathering.leaf(mask);
            let zero = if float { Number::Float(0.0) } else { Number::Integer(0) };
            gathering.push(Function::Select, &[mask, source, Arg::Number(zero)], layout.dtype, 64)
        } else {
            gathering.push(Function::Copy, &[source], layout.dtype, 64)
        };
        let Arg::Step(step) = step else { return Err(lost("a step is none")) };
        let first = vec![true; all.len()];
        let target = Target { step, layout: layout.clone(), rows: all.into_iter().map(Some).collect() };
        self.run_chain(Work { chain: gathering.chain, leaves: gathering.leaves, targets: vec![target], first })
    }

    /// What stands for the sums of a product as an operand of a chain.
    pub(super) fn sums_of(&self, id: NodeId) -> Result<Leaf, TargetError> {
        let node = self.graph.node(id);
        let (rows, columns) = Layout::matrix(self.graph.shape(node.output()));
        let float = self.graph.ty(node.inputs[0]).dtype.is_float();
        let dtype = if float { DType::F32 } else { DType::I32 };
        let lanes = self.lanes();
        let layout = Layout { dtype, rows, columns, lanes, stripes: 1, lots: 1, slices: Vec::new() };
        Ok(Leaf { rows: all_vectors(rows, columns.div_ceil(lanes)), layout: Arc::new(layout) })
    }

    /// Computes a product whose sums go through a chain, as one of its operands.
    pub(super) fn product_into(&mut self, id: NodeId, work: Work, leaf: usize) -> Result<(), TargetError> {
        let graph = self.graph.clone();
        let node = graph.node(id);
        let tcc_ir::Op::MatMul(product) = &node.op else { return Err(lost("a product is none")) };
        if !self.is_small(&work, work.chain.steps.len()) {
            // The chain is cut: it reads the sums from memory.
            let layout = self.product(id)?;
            let mut work = work;
            work.chain.leaves[leaf] = layout.dtype;
            work.leaves[leaf].layout = layout.clone();
            self.run_chain(work)?;
            self.give_back(&layout);
            return Ok(());
        }
        let job = self.job(product, node.inputs[0], node.inputs[1])?;
        self.multiply(job, Sink::Chain(Box::new(work), leaf))?;
        self.spend(id);
        Ok(())
    }

    /// Multiplies, and does with the sums what is to be done.
    fn multiply(&mut self, job: Job, sink: Sink) -> Result<(), TargetError> {
        let lanes = self.lanes();
        let (blocks, most) = (job.n.div_ceil(lanes), self.facts.mxm.accumulators as usize);
        let chunk = rows_at_a_time(job.m, most);
        let (passes, (m, k, n)) = (job.k.div_ceil(lanes), (job.m, job.k, job.n));
        let chain = match &sink {
            Sink::Chain(work, _) => work.slices(),
            Sink::Store(layout) => Slices::of(&layout.slices),
        };
        self.busy[0] = self.busy[0].union(chain).union(Slices::of(&job.rows.layout.slices));
        let work = Arc::new((job, sink));
        for batch in 0..work.0.batches {
            for start in (0..m).step_by(chunk) {
                for n_block in 0..blocks {
                    let item = Item { batch, rows: start..m.min(start + chunk), n_block };
                    let (touched, own) = (work.0.touched(&item, &work.1, lanes), work.clone());
                    self.in_turn((batch * m + item.rows.end - 1, 0), touched, move |lowering| {
                        lowering.item(&own.0, &item, &own.1)
                    })?;
                }
            }
        }
        self.say(&format!("{m} by {k} by {n} in tiles of {chunk} by {lanes} by {lanes}, {passes} along K"));
        Ok(())
    }

    /// Computes one tile of sums on the plane, or pair of planes, that is free first.
    fn item(&mut self, job: &Job, item: &Item, sink: &Sink) -> Result<(), TargetError> {
        let chosen = self.free_engine(job.dtype == DType::F16)?;
        let passes = self.passes(job, item);
        let last = passes.len() - 1;
        for (index, pass) in passes.iter().enumerate() {
            self.load(job, item, pass, chosen)?;
            self.pass(job, item, pass, chosen, (index == last).then_some(sink))?;
        }
        Ok(())
    }

    /// What a tile of sums consists of. Rests of columns come last, as the rows that they are multiplied with are ready last.
    fn passes(&self, job: &Job, item: &Item) -> Vec<Pass> {
        let lanes = self.lanes();
        let pass = |part, block, rows: &[Row]| Pass { part, block, rows: SmallVec::from_slice(rows), add: true };
        // Rows go through the unit once for each half of the lanes that has weights.
        let whole = |block: usize| {
            let left = job.k - (block * lanes).min(job.k);
            let turns = if job.dtype == DType::F16 && left > lanes / 2 { 2 } else { 1 };
            pass(Part::Block(block), block, &job.row[..turns])
        };
        let mut passes: Vec<Pass> = Vec::new();
        match &job.weights {
            Weights::Rows(_) => passes.extend((0..job.k.div_ceil(lanes).max(1)).map(whole)),
            Weights::Tiles(tiles, batches) => {
                passes.extend((0..tiles.k_blocks()).map(whole));
                for slot in tiles.slots(batches[item.batch], item.n_block) {
                    let row = job.row[usize::from(slot.lanes.half())];
                    match passes.last_mut() {
                        Some(Pass { part: Part::Group(group), rows, .. }) if *group == slot.group => rows.push(row),
                        _ => passes.push(pass(Part::Group(slot.group), tiles.k_blocks(), &[row])),
                    }
                }
                if passes.is_empty() {
                    passes.push(whole(0));
                }
            }
        }
        if let Some(first) = passes.first_mut() {
            first.add = false;
        }
        passes
    }

    /// Loads the weights of a tile.
    fn load(&mut self, job: &Job, item: &Item, pass: &Pass, engine: usize) -> Result<(), TargetError> {
        let (lanes, width) = (self.lanes(), self.facts.mxm.load_streams as usize);
        let columns = lanes.min(job.n - item.n_block * lanes);
        let loads = columns.div_ceil(width);
        let planes = job.dtype.bits() / 8;
        let columns = (0..loads).map(|load| Columns {
            first: (load * width) as u16,
            planes: (0..planes).map(|byte| self.weights(job, item, pass, load, byte)).collect(),
        });
        let columns: Vec<Columns> = columns.collect();
        self.load_columns(engine, &columns)
    }

    /// The columns that are loaded together.
    fn weights(&self, job: &Job, item: &Item, pass: &Pass, load: usize, plane: usize) -> Vec<Place> {
        match (&job.weights, pass.part) {
            (Weights::Tiles(tiles, _), Part::Group(group)) => tiles.shelf.places(group + load, plane),
            (Weights::Tiles(tiles, batches), Part::Block(block)) => {
                tiles.load(batches[item.batch], item.n_block, block, load, plane)
            }
            (Weights::Rows(leaf), Part::Block(k_block) | Part::Group(k_block)) => {
                let (lanes, width) = (self.lanes(), self.facts.mxm.load_streams as usize);
                let blocks = job.k.div_ceil(lanes);
                let first = item.n_block * lanes + load * width;
                let (row, block) = leaf.rows[(item.batch * job.n + first) * blocks + k_block];
                striped(&leaf.layout, (row as usize, block as usize), plane, width)
            }
        }
    }

    /// Multiplies rows with the weights of a tile; if the sums are complete then, they go on.
    fn pass(
        &mut self,
        job: &Job,
        item: &Item,
        own: &Pass,
        engine: usize,
        sink: Option<&Sink>,
    ) -> Result<(), TargetError> {
        let (count, turns) = (item.rows.len(), own.rows.len());
        let blocks = job.k.div_ceil(self.lanes()).max(1);
        let rows = &job.rows;
        let row_of = |index: usize| item.batch * job.m + item.rows.start + index;
        let mut steps = Vec::with_capacity(turns * count);
        for (turn, &half) in own.rows.iter().enumerate() {
            steps.extend((0..count).map(|index| {
                let (row, block) = rows.rows[row_of(index) * blocks + own.block];
                Step {
                    planes: planes(&rows.layout, row, block),
                    row: half,
                    sums: (index as u16, own.add || turn > 0),
                    complete: sink.is_some() && turn + 1 == turns,
                }
            }));
        }
        match sink {
            None => self.multiply_strip(engine, &steps),
            Some(Sink::Store(layout)) => {
                let to = (0..count).map(|index| planes(layout, row_of(index) as u32, item.n_block as u32));
                let to: Vec<Planes> = to.collect();
                self.multiply_to(engine, &steps, &to)
            }
            Some(Sink::Chain(work, leaf)) => {
                let blocks = job.n.div_ceil(self.lanes());
                let part = work.some((0..count).map(|index| row_of(index) * blocks + item.n_block));
                self.multiply_into(engine, &steps, &part, *leaf)
            }
        }
    }

    pub(super) fn say(&mut self, tiling: &str) {
        if let Some(text) = self.tilings.last_mut() {
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(tiling);
        }
    }
}

/// A view with its last two axes exchanged.
pub(super) fn turned(view: &View) -> Option<View> {
    let rank = view.shape().rank();
    let (mut dims, mut perm) = (view.shape().to_vec(), (0..rank).collect::<Vec<_>>());
    dims.swap(rank - 1, rank - 2);
    perm.swap(rank - 1, rank - 2);
    view.through(&Transpose { perm }.into(), &Dims::new(dims).ok()?)
}

/// The elements that operands of these types are multiplied as.
pub(super) fn operand_types(a: DType, b: DType) -> (DType, DType) {
    if a.is_float() { (DType::F16, DType::F16) } else { (storage(a), storage(b)) }
}

/// Rows that go through a plane with the same weights: so many that weights are loaded in their time, and at least two lots,
/// if there are enough, so that what comes after can begin with the first.
pub(super) fn rows_at_a_time(rows: usize, most: usize) -> usize {
    let lots = if rows < 96 { 1 } else { rows.div_ceil(128).max(2) };
    rows.div_ceil(lots).clamp(1, most)
}
