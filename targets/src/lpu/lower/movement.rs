//! Values that are joined from others, or get a margin.

use smallvec::SmallVec;
use tcc_ir::ops::{Concat, Pad};
use tcc_ir::{DType, ValueId};

use super::rearrange::{Piece, Pieces};
use super::work::{Leaf, all_vectors};
use super::{Lease, Lowering, Room, Shape, lost};
use crate::lpu::constants::{Constant, Form, Source};
use crate::lpu::layout::Layout;
use crate::lpu::memory::Slices;
use crate::stored::storage;
use crate::target::TargetError;

impl Lowering<'_> {
    pub(super) fn concat(
        &mut self,
        concat: &Concat,
        inputs: &[ValueId],
        result: ValueId,
    ) -> Result<Lease, TargetError> {
        let shape = self.graph.shape(result).clone();
        let (rows, columns) = Layout::matrix(&shape);
        let dtype = storage(self.graph.ty(result).dtype);
        let mut parts = Vec::new();
        for &input in inputs {
            let own = self.graph.shape(input).clone();
            if own.count() > 0 {
                parts.push((self.rows_of(input, &own)?, own));
            }
        }
        let layout =
            self.allocate_result(dtype, rows, columns, &parts.iter().map(|(leaf, _)| leaf).collect::<Vec<_>>())?;
        if concat.axis + 1 < shape.rank() {
            let inner: usize = shape[concat.axis + 1..shape.rank() - 1].iter().product();
            let mut before = 0;
            for (leaf, own) in parts {
                let run = own[concat.axis] * inner;
                let to = leaf_rows(&own, columns.div_ceil(self.lanes()), |row| {
                    row / run * shape[concat.axis] * inner + before + row % run
                });
                before += run;
                self.copy_vectors(leaf, layout.clone(), to)?;
            }
            return Ok(layout);
        }
        let mut row_pieces: Vec<Vec<Stretch>> = vec![Vec::new(); rows];
        let mut sources = Vec::new();
        let mut before = 0;
        for (leaf, own) in parts {
            let width = own.last().copied().unwrap_or(1);
            stretches(&mut row_pieces, &leaf, sources.len(), width, before, self.lanes());
            sources.push(leaf.layout);
            before += width;
        }
        self.assemble_stretches(&layout, &sources, row_pieces)?;
        Ok(layout)
    }

    pub(super) fn pad(&mut self, pad: &Pad, inputs: &[ValueId], result: ValueId) -> Result<Lease, TargetError> {
        let (shape, own) = (self.graph.shape(result).clone(), self.graph.shape(inputs[0]).clone());
        let (rows, columns) = Layout::matrix(&shape);
        let dtype = storage(self.graph.ty(result).dtype);
        let leaf = self.rows_of(inputs[0], &own)?;
        let fill = self.rows_of(inputs[1], &shape)?;
        let layout = self.allocate_result(dtype, rows, columns, &[&leaf, &fill])?;
        // Which rows of the result are rows of the operand: those of a view of the result.
        let low: Vec<usize> = pad.low.iter().map(|&low| low.max(0) as usize).collect();
        let Some((last, leading)) = own.split_last() else {
            self.copy_vectors(leaf, layout.clone(), all_vectors(rows, 1))?;
            return Ok(layout);
        };
        let mut inner: Vec<usize> = vec![0];
        for (axis, &dim) in leading.iter().enumerate() {
            let next = inner.iter().flat_map(|&at| (0..dim).map(move |step| (at, step)));
            inner = next.map(|(at, step)| at * shape[axis] + low[axis] + step).collect();
        }
        let offset = low.last().copied().unwrap_or(0);
        let mut from: Vec<Option<usize>> = vec![None; rows];
        for (row, &at) in inner.iter().enumerate() {
            from[at] = Some(row);
        }
        let blocks = columns.div_ceil(self.lanes());
        if *last == columns {
            let to = inner.iter().flat_map(|&row| (0..blocks).map(move |block| (row as u32, block as u32))).collect();
            self.copy_vectors(leaf, layout.clone(), to)?;
            let margin: Vec<(u32, u32)> =
                all_vectors(rows, blocks).into_iter().filter(|(row, _)| from[*row as usize].is_none()).collect();
            if !margin.is_empty() {
                let fill = Leaf { rows: vec![(0, 0); margin.len()], ..fill };
                self.copy_vectors(fill, layout.clone(), margin)?;
            }
            return Ok(layout);
        }
        let mut row_pieces: Vec<Vec<Stretch>> = vec![Vec::new(); rows];
        let mut own_rows: Vec<Vec<Stretch>> = vec![Vec::new(); inner.len()];
        stretches(&mut own_rows, &leaf, 0, *last, offset, self.lanes());
        for (row, own) in inner.iter().zip(own_rows) {
            row_pieces[*row] = own;
        }
        let margin = |from: usize, to: usize| Stretch { source: 1, vector: (0, 0), from: None, to: (from, to) };
        for (row, pieces) in row_pieces.iter_mut().enumerate() {
            let (start, end) = if from[row].is_some() { (offset, offset + last) } else { (0, 0) };
            pieces.extend(
                [margin(0, start), margin(end, columns)].into_iter().filter(|margin| margin.to.0 < margin.to.1),
            );
        }
        self.assemble_stretches(&layout, &[leaf.layout, fill.layout], row_pieces)?;
        Ok(layout)
    }

    fn allocate_result(
        &mut self,
        dtype: DType,
        rows: usize,
        columns: usize,
        from: &[&Leaf],
    ) -> Result<Lease, TargetError> {
        let avoid = from.iter().fold(Slices::default(), |all, leaf| all.union(Slices::of(&leaf.layout.slices)));
        self.allocate(dtype, rows, columns, 1, avoid)
    }

    /// Puts rows together from stretches of columns.
    fn assemble_stretches(
        &mut self,
        layout: &Lease,
        sources: &[Lease],
        rows: Vec<Vec<Stretch>>,
    ) -> Result<(), TargetError> {
        let lanes = self.lanes();
        let blocks = layout.blocks();
        if layout.is_splat() {
            let all = all_vectors(layout.rows, 1);
            for (&to, stretches) in all.iter().zip(&rows) {
                if let Some(stretch) = stretches.first() {
                    let leaf = Leaf { layout: sources[stretch.source].clone(), rows: vec![stretch.vector] };
                    self.copy_vectors(leaf, layout.clone(), vec![to])?;
                }
            }
            return Ok(());
        }
        let mut pieces = Pieces::new();
        for stretches in &rows {
            for block in 0..blocks {
                let (start, end) = (block * lanes, (block + 1) * lanes);
                let mut own: SmallVec<[Piece; 2]> = SmallVec::new();
                for stretch in stretches {
                    let (from, to) = (stretch.to.0.max(start), stretch.to.1.min(end));
                    if from < to {
                        let by = stretch.from.map_or(0, |lane| (stretch.to.0 as i32 - start as i32) - lane as i32);
                        let lanes = (from - start, to - start);
                        own.push(Piece { source: stretch.source, vector: stretch.vector, by, lanes });
                    }
                }
                pieces.push(own);
            }
        }
        self.assemble(layout, sources, &all_vectors(layout.rows, blocks), &pieces)
    }

    /// A value by its elements, with a single column.
    pub(super) fn single_column(&mut self, value: ValueId) -> Result<Lease, TargetError> {
        let shape = tcc_ir::Shape::new([self.graph.shape(value).count(), 1]);
        let shape = shape.map_err(|error| lost(&error.to_string()))?;
        if self.is_constant(value) {
            let dtype = storage(self.graph.ty(value).dtype);
            let key = (value, Shape::Column);
            if let Some(layout) = self.known.get(&key) {
                return Ok(layout.clone());
            }
            let layout = self.allocate_in(dtype, (shape.count(), 1), Room::GIVEN)?;
            let source = Source::Value(self.graph.clone(), value);
            self.constants.push(Constant { source, form: Form::Rows(layout.clone()) });
            self.known.insert(key, layout.clone());
            return Ok(layout);
        }
        let access = self.plan.access(value).clone();
        self.dense(access.root, &access.view.reshape(shape))
    }
}

/// A stretch of columns of a row.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    source: usize,
    vector: (u32, u32),
    /// The lane of the vector that goes to the first column; none if all lanes are alike.
    from: Option<usize>,
    /// Columns: from the first to before the last.
    to: (usize, usize),
}

/// The stretches of an operand's rows that go to columns from `before` on.
fn stretches(rows: &mut [Vec<Stretch>], leaf: &Leaf, source: usize, width: usize, before: usize, lanes: usize) {
    let blocks = width.div_ceil(lanes).max(1);
    for (row, vectors) in leaf.rows.chunks(blocks).enumerate() {
        for (block, &vector) in vectors.iter().enumerate() {
            let start = block * lanes;
            let to = (before + start, before + (start + lanes).min(width));
            let from = (!leaf.layout.is_splat()).then_some(0);
            rows[row].push(Stretch { source, vector, from, to });
        }
    }
}

/// Where rows of an operand go.
fn leaf_rows(own: &tcc_ir::Shape, blocks: usize, to: impl Fn(usize) -> usize) -> Vec<(u32, u32)> {
    let (rows, _) = Layout::matrix(own);
    (0..rows)
        .flat_map(|row| {
            let row = to(row) as u32;
            (0..blocks as u32).map(move |block| (row, block))
        })
        .collect()
}
