//! Masks of an attention, as its scores lie: a row for each key, with the queries of several heads in its lanes.

use std::ops::Range;
use std::sync::Arc;

use tcc_ir::ops::{Slice, Transpose};
use tcc_ir::{DType, Shape as Dims, ValueId, View};

use super::super::access::{direct, distinct, positions};
use super::super::work::{Leaf, all_vectors};
use super::super::{Lease, Lowering, Shape, lost};
use super::{Heads, Tile};
use crate::lpu::constants::{Constant, Form, Source};
use crate::lpu::layout::Layout;
use crate::stored::storage;
use crate::target::TargetError;

impl Tile {
    /// What there is for each key, head and query, as there is for each key and column. Columns of no query have what any has.
    fn in_columns(&self, values: &[i64]) -> Vec<i64> {
        let mut result = Vec::with_capacity(values.len());
        for row in values.chunks(self.heads.len() * self.queries.len()) {
            let from = result.len();
            result.resize(from + self.columns(), row[0]);
            for head in 0..self.heads.len() {
                for query in 0..self.queries.len() {
                    result[from + self.column(head, query)] = row[head * self.queries.len() + query];
                }
            }
        }
        result
    }
}

impl Lowering<'_> {
    /// The mask of a tile for some keys.
    pub(super) fn mask_rows(
        &mut self,
        heads: &Heads,
        tile: &Tile,
        mask: ValueId,
        keys: Range<usize>,
    ) -> Result<Leaf, TargetError> {
        let wrong = || lost("a mask does not fit its scores");
        let dims = heads.dims;
        let scores = Dims::new([dims.batch, dims.heads, dims.queries, dims.keys]).map_err(|_| wrong())?;
        let constant = self.is_constant(mask);
        let access = self.plan.access(mask).clone();
        let (root, view) =
            if constant { (mask, View::dense(self.graph.shape(mask).clone())) } else { (access.root, access.view) };
        let whole = view.broadcast(&scores).ok_or_else(wrong)?;
        let (batch, head) = (tile.heads[0] / dims.heads, tile.heads[0] % dims.heads);
        let (count, queries) = (tile.heads.len(), tile.queries.len());
        let slice = Slice {
            starts: vec![batch, head, tile.queries.start, 0].into_iter().map(|start| start as _).collect(),
            steps: vec![1; 4],
            sizes: vec![1, count, queries, dims.keys],
        };
        let own = Dims::new([1, count, queries, dims.keys]).map_err(|_| wrong())?;
        let turned = Dims::new([1, dims.keys, count, queries]).map_err(|_| wrong())?;
        let rows = Dims::new([dims.keys, count * queries]).map_err(|_| wrong())?;
        let view = whole.slice(&slice, &own).ok_or_else(wrong)?;
        let view = view.through(&Transpose { perm: vec![0, 3, 1, 2] }.into(), &turned).ok_or_else(wrong)?;
        let view = view.reshape(rows);
        let leaf = self.view_rows(root, &view, &whole, constant, tile)?;
        Ok(Leaf { rows: leaf.rows[keys].to_vec(), ..leaf })
    }

    /// The rows of a view of a mask, of which `whole` is all that is seen of it.
    fn view_rows(
        &mut self,
        root: ValueId,
        view: &View,
        whole: &View,
        constant: bool,
        tile: &Tile,
    ) -> Result<Leaf, TargetError> {
        let lanes = self.lanes();
        let wrong = || lost("a mask cannot be repeated");
        let part = distinct(view);
        // Rows have the tile's columns, or a number for all of them.
        let (keys, distinct_rows) = (view.shape()[0], part.shape()[0]);
        let repeated = |layout: Lease| {
            let rows = (0..keys as u32).map(|key| (if distinct_rows == 1 { 0 } else { key }, 0)).collect();
            Ok(Leaf { layout, rows })
        };
        if constant {
            return repeated(self.packed_constant(root, &part, tile)?);
        }
        let source = self.materialize(root)?;
        if source.columns == 1
            && let Some(rows) = direct(view, source.columns, lanes)
        {
            return Ok(Leaf { layout: source, rows });
        }
        let key = (root, part.clone(), Shape::Dense);
        if let Some(layout) = self.made.get(&key) {
            return repeated(layout.clone());
        }
        let (rows, columns) = Layout::matrix(part.shape());
        let layout = if columns == 1 {
            self.dense(root, &part)?
        } else {
            // Keys and queries of all heads change places first, which is done for all tiles at once.
            let all = distinct(whole);
            let [batch, heads, queries, keys] = all.shape()[..] else { return Err(wrong()) };
            let turned = Dims::new([batch, heads, keys, queries]).map_err(|_| wrong())?;
            let turned = all.through(&Transpose { perm: vec![0, 1, 3, 2] }.into(), &turned).ok_or_else(wrong)?;
            let matrix = self.dense(root, &turned)?;
            let mut places = std::collections::HashMap::new();
            for (place, position) in positions(&turned).into_iter().enumerate() {
                places.entry(position).or_insert(place as i64);
            }
            let wanted = positions(&part).into_iter().map(|position| places.get(&position).copied());
            let wanted: Option<Vec<i64>> = wanted.collect();
            let wanted = tile.in_columns(&wanted.ok_or_else(wrong)?);
            let layout = self.select_elements(&matrix, &wanted, rows, tile.columns())?;
            self.remember(key, layout.clone());
            layout
        };
        repeated(layout)
    }

    /// A view of a constant as rows that memory holds from the start.
    fn packed_constant(&mut self, value: ValueId, view: &View, tile: &Tile) -> Result<Lease, TargetError> {
        let key = (value, view.clone(), Shape::Dense);
        if let Some(layout) = self.made.get(&key) {
            return Ok(layout.clone());
        }
        let dtype = storage(self.graph.ty(value).dtype);
        let (rows, columns) = Layout::matrix(view.shape());
        let (columns, lots) = match columns {
            1 => (1, None),
            _ => (tile.columns(), Some(tile.clone())),
        };
        let layout = self.allocate_in(dtype, (rows, columns), super::super::Room::GIVEN)?;
        let (graph, view) = (self.graph.clone(), view.clone());
        let at = move || match &lots {
            None => positions(&view),
            Some(tile) => tile.in_columns(&positions(&view)),
        };
        let source = Source::Picked(graph, value, Arc::new(at));
        self.constants.push(Constant { source, form: Form::Rows(layout.clone()) });
        self.made.insert(key, layout.clone());
        Ok(layout)
    }

    /// Which keys the queries of a tile may attend to by their places.
    pub(super) fn visible_rows(&mut self, heads: &Heads, tile: &Tile, keys: Range<usize>) -> Result<Leaf, TargetError> {
        let lanes = self.lanes();
        let all = heads.dims.keys;
        let seen: Vec<Range<usize>> = tile.queries.clone().map(|query| heads.op.visible_keys(query, all)).collect();
        let mut bytes = vec![0; keys.len() * lanes];
        for (row, key) in keys.clone().enumerate() {
            for head in 0..tile.heads.len() {
                for (query, seen) in seen.iter().enumerate() {
                    bytes[row * lanes + tile.column(head, query)] = u8::from(seen.contains(&key));
                }
            }
        }
        let layout = self.literal(bytes, DType::U8, keys.len(), lanes)?;
        Ok(Leaf { rows: all_vectors(keys.len(), 1), layout })
    }
}
