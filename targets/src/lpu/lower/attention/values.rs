//! From the weights of keys to the result: each query's sum of values, with heads beside each other.

use smallvec::SmallVec;
use tcc_ir::ops::{AttentionDims, Slice};
use tcc_ir::{DType, Shape as Dims, ValueId, View};

use super::super::chain::{Arg, Chain, Function, Step as ChainStep};
use super::super::product::turned;
use super::super::strip::{Columns, Step};
use super::super::transpose::Exchange;
use super::super::work::{Leaf, Target, Work, all_vectors, planes};
use super::super::{Lease, Lowering, Room, Shape, Thrift, lost};
use super::{Heads, Tile};
use crate::lpu::isa::Row;
use crate::lpu::layout::{Layout, Place};
use crate::lpu::memory::Slices;
use crate::target::TargetError;

impl Lowering<'_> {
    /// Memory for the result: a row for each query, with all heads.
    pub(super) fn result_rows(&mut self, heads: &Heads) -> Result<Lease, TargetError> {
        let AttentionDims { batch, heads, queries, value_depth, .. } = heads.dims;
        self.allocate_in(DType::F16, (batch * queries, heads * value_depth), Room::COMPUTED)
    }

    /// Columns of zeros, as many as are loaded at once.
    pub(super) fn zero_columns(&mut self) -> Result<Lease, TargetError> {
        if let Some(zeros) = &self.zeros {
            return Ok(zeros.clone());
        }
        let (lanes, stripes) = (self.lanes(), self.stripes());
        let zeros = self.allocate_in(DType::U8, (stripes, lanes), Room { stripes, ..Room::GIVEN })?;
        self.keep(vec![0; stripes * lanes], zeros.clone());
        self.zeros = Some(zeros.clone());
        Ok(zeros)
    }

    /// Values of the key heads of some tiles as rows along the keys, with the first of these heads: those of all, which are kept, or,
    /// where memory is short, of no others.
    pub(super) fn turned_values(&mut self, heads: &mut Heads, tiles: &[Tile]) -> Result<(usize, Leaf), TargetError> {
        let wrong = |error: tcc_ir::ShapeError| lost(&error.to_string());
        let AttentionDims { batch, groups, keys, value_depth, .. } = heads.dims;
        if let Some(values) = &heads.values {
            return Ok((0, values.clone()));
        }
        let whole = Dims::new([batch, groups, value_depth, keys]).map_err(wrong)?;
        let (first, last) = (tiles.first().map(|tile| tile.heads[0]), tiles.last().and_then(|tile| tile.heads.last()));
        if let (Some(first), Some(&last), true) = (first, last, self.thrift == Thrift::Meagre) {
            let ((batch, from), (_, to)) = (heads.key_head(first), heads.key_head(last));
            let sizes = vec![1, to + 1 - from, value_depth, keys];
            let shape = Dims::new(sizes.iter().copied()).map_err(wrong)?;
            let slice = Slice { starts: vec![batch as _, (from % groups) as _, 0, 0], steps: vec![1; 4], sizes };
            let access = self.plan.access(heads.v).clone();
            let part = turned(&access.view).and_then(|view| view.slice(&slice, &shape));
            if let Some(part) = part.filter(|_| !self.is_constant(heads.v))
                && let Some(leaf) = self.exchanged_part(access.root, &part)?
            {
                return Ok((from, leaf));
            }
        }
        let shape = Shape::Weights(DType::F16);
        let values = self.multiplied(heads.v, &whole, true, DType::F16, shape)?;
        heads.values = Some(values.clone());
        self.spend_source(self.plan.access(heads.v).root, heads.node);
        Ok((0, values))
    }

    /// Rows of a view of a value that exchanges its rows with its columns, as weights that nobody else has.
    fn exchanged_part(&mut self, root: ValueId, view: &View) -> Result<Option<Leaf>, TargetError> {
        let source = self.materialize(root)?;
        let narrow = self.narrowed(root, source, DType::F16)?;
        let Some(exchange) = Exchange::of(view, narrow.columns, self.lanes()) else { return Ok(None) };
        let (rows, columns) = Layout::matrix(view.shape());
        let layout = self.allocate(DType::F16, rows, columns, self.stripes(), Slices::of(&narrow.slices))?;
        if self.exchange_rows(&narrow, &exchange, &layout)?.is_none() {
            self.give_back(&layout);
            return Ok(None);
        }
        Ok(Some(Leaf { rows: all_vectors(rows, layout.blocks()), layout }))
    }

    /// Multiplies values by the weights of keys of tiles whose heads lie beside each other, and stores the sums.
    pub(super) fn weigh_values(
        &mut self,
        heads: &mut Heads,
        tiles: &[Tile],
        weights: &[Option<Lease>],
        result: &Lease,
    ) -> Result<(), TargetError> {
        let values = self.turned_values(heads, tiles)?;
        let (lanes, AttentionDims { heads: count, queries, value_depth: depth, .. }) = (self.lanes(), heads.dims);
        let own: Vec<(usize, usize)> =
            tiles.iter().enumerate().flat_map(|(tile, own)| own.heads.iter().map(move |&head| (tile, head))).collect();
        let (Some(first), Some(last)) = (own.first(), own.last()) else { return Ok(()) };
        let lot = tiles[0].queries.clone();
        let row = first.1 / count * queries + lot.start;
        let columns = (first.1 % count * depth, (last.1 % count + 1) * depth);
        for block in columns.0 / lanes..columns.1.div_ceil(lanes) {
            let within = |&&(_, head): &&(usize, usize)| {
                head % count * depth < (block + 1) * lanes && (head % count + 1) * depth > block * lanes
            };
            let inside: Vec<(usize, usize)> = own.iter().filter(within).copied().collect();
            let engine = self.free_engine(true)?;
            for (index, &(tile, head)) in inside.iter().enumerate() {
                let Some(rows) = weights[tile].clone() else { continue };
                let place = tiles[tile].heads.iter().position(|&other| other == head).unwrap_or(0);
                let blocks = heads.dims.keys.div_ceil(lanes);
                for key_block in 0..blocks {
                    let loads = self.value_columns(heads, &values, head, (block, key_block));
                    self.load_columns(engine, &loads)?;
                    let left = heads.dims.keys - key_block * lanes;
                    let turns = if left > lanes / 2 { 2 } else { 1 };
                    let done = index + 1 == inside.len() && key_block + 1 == blocks;
                    let mut steps = Vec::with_capacity(turns * lot.len());
                    for half in 0..turns {
                        steps.extend((0..lot.len()).map(|query| Step {
                            planes: planes(&rows, (place * lot.len() + query) as u32, key_block as u32),
                            row: Row::Halves(half as u8),
                            sums: (query as u16, index + key_block + half > 0),
                            complete: done && half + 1 == turns,
                        }));
                    }
                    if !done {
                        self.multiply_strip(engine, &steps)?;
                        continue;
                    }
                    let work = self.stored(result, lot.len(), row, block);
                    self.multiply_into(engine, &steps, &work, 0)?;
                }
            }
        }
        if heads.values.is_none() {
            self.give_back(&values.1.layout);
        }
        Ok(())
    }

    /// Sums that are stored.
    fn stored(&self, result: &Lease, count: usize, row: usize, block: usize) -> Work {
        let lanes = self.lanes();
        let sums =
            Layout { dtype: DType::F32, rows: count, columns: lanes, lanes, stripes: 1, lots: 1, slices: Vec::new() };
        let copy =
            ChainStep { function: Function::Copy, args: SmallVec::from_slice(&[Arg::Leaf(0)]), dtype: DType::F16 };
        let rows = (0..count).map(|query| Some(((row + query) as u32, block as u32)));
        Work {
            chain: Chain { steps: vec![copy], leaves: vec![DType::F32] },
            leaves: vec![Leaf { layout: std::sync::Arc::new(sums), rows: all_vectors(count, 1) }],
            targets: vec![Target { step: 0, layout: result.clone(), rows: rows.collect() }],
            first: vec![true; count],
        }
    }

    /// The columns of a block of the result: values of one head, for a block of keys, and zeros beside them.
    fn value_columns(
        &self,
        heads: &Heads,
        (first_head, values): &(usize, Leaf),
        head: usize,
        (block, key_block): (usize, usize),
    ) -> Vec<Columns> {
        let (lanes, width) = (self.lanes(), self.facts.mxm.load_streams as usize);
        let AttentionDims { heads: count, value_depth: depth, keys, .. } = heads.dims;
        let (_, key_head) = heads.key_head(head);
        let blocks = keys.div_ceil(lanes);
        let first = head % count * depth;
        let place = |column: usize, plane: usize| -> Place {
            let at = block * lanes + column;
            if (first..first + depth).contains(&at) {
                let (row, key) = values.rows[((key_head - first_head) * depth + at - first) * blocks + key_block];
                values.layout.place(row as usize, key as usize, plane)
            } else {
                heads.zeros.place(column % width, 0, 0)
            }
        };
        let columns = |load: usize, plane: usize| (0..width).map(|index| place(load * width + index, plane)).collect();
        (0..lanes / width)
            .map(|load| Columns {
                first: (load * width) as u16,
                planes: (0..2).map(|plane| columns(load, plane)).collect(),
            })
            .collect()
    }
}
