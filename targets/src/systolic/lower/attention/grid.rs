//! Where the scores, weights and results of one step lie on chip.

use std::ops::Range;

use tcc_ir::DType;

use super::tiling::{Step, Tiling, key_tiles, turned_rows};
use crate::systolic::isa::Memory;
use crate::systolic::lower::{ChipOperand, element_bytes};

/// Most pieces that the vector unit works on in turn.
const PIECES: usize = 2;

/// Places among the dimensions of scores and results.
pub(super) const GROUP: usize = 1;
pub(super) const QUERY: usize = 4;
pub(super) const COLUMN: usize = 5;

/// Tiles of keys of equal width that follow each other: the first, their number, their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub first: usize,
    pub count: usize,
    pub width: usize,
}

/// The extents of one step, and its rows of the accumulators.
///
/// Scores lie as [batch, group, tile of keys, head, query, key], the last of them in the columns of the array; weights lie
/// densely as [batch, group, head, query, key]. Results lie as [batch, group, tile of columns, head, query, column], or, if they
/// are turned, as [batch, group, tile of rows, column, row], a row being a head's query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    batches: usize,
    groups: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    /// Tiles of keys, the width of all but the last, and that of the last.
    pub tiles: usize,
    pub width: usize,
    last: usize,
    /// Columns of the result with the values, how many there are in a tile, and the number of tiles.
    pub columns: usize,
    pub column_width: usize,
    pub column_tiles: usize,
    /// Of a result that is turned, the rows of a tile.
    pub turned: Option<usize>,
    /// Columns of the array.
    array: usize,
    /// The first row of the scores and of the result.
    pub scores_at: usize,
    pub result_at: usize,
}

impl Grid {
    /// The grid of a step that takes the accumulators from row `at` on.
    pub fn new(step: &Step, tiling: &Tiling, array: usize, at: usize) -> Self {
        // Behind the scores of the largest step: those of the step after the next must leave the result alone.
        let result_at = at + tiling.units() * tiling.rows() * tiling.keys.div_ceil(array);
        let (tiles, width, last) = key_tiles(step.keys.len(), array);
        let columns = step.features.len() + usize::from(tiling.ones);
        let column_tiles = columns.div_ceil(array);
        Grid {
            batches: step.batches.len(),
            groups: step.groups.len(),
            heads: step.heads.len(),
            queries: step.queries.len(),
            keys: step.keys.len(),
            tiles,
            width,
            last,
            columns,
            column_width: columns.div_ceil(column_tiles),
            column_tiles,
            turned: tiling.turned.then(|| turned_rows(step.rows(), array)),
            array,
            scores_at: at,
            result_at,
        }
    }

    pub fn rows(&self) -> usize {
        self.heads * self.queries
    }

    /// Key heads of the step.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Keys of the step.
    pub fn keys(&self) -> usize {
        self.keys
    }

    pub fn units(&self) -> usize {
        self.batches * self.groups
    }

    /// The tiles of keys by width.
    pub fn regions(&self) -> Vec<Region> {
        if self.last == self.width {
            return vec![Region { first: 0, count: self.tiles, width: self.width }];
        }
        vec![
            Region { first: 0, count: self.tiles - 1, width: self.width },
            Region { first: self.tiles - 1, count: 1, width: self.last },
        ]
    }

    /// The width of a tile of keys.
    pub fn width_of(&self, tile: usize) -> usize {
        if tile + 1 == self.tiles { self.last } else { self.width }
    }

    /// Sizes of the dimensions of scores.
    pub fn lens(&self, region: Region) -> [usize; 6] {
        [self.batches, self.groups, region.count, self.heads, self.queries, region.width]
    }

    fn accumulators(&self, row: usize, strides: [usize; 6]) -> ChipOperand {
        ChipOperand {
            memory: Memory::Accumulators,
            address: (row * self.array * 4) as u32,
            dtype: DType::F32,
            strides: strides.iter().map(|&stride| stride as i64).collect(),
        }
    }

    /// The part of an operand along the dimensions of scores or results that belongs to some of a step's key heads, and its
    /// sizes. Of a step of one key head and several queries, to some of its queries.
    pub fn piece(&self, operand: &ChipOperand, mut lens: [usize; 6], piece: usize) -> (ChipOperand, [usize; 6]) {
        let (axis, range) = self.piece_range(piece);
        lens[axis] = range.len();
        (operand.part(range.start as i64 * operand.strides[axis]), lens)
    }

    /// Pieces that the vector unit works on in turn, so that none waits for the one before it.
    pub fn pieces(&self) -> usize {
        if self.groups > 1 { self.groups.min(PIECES) } else { self.queries.min(PIECES) }
    }

    fn piece_range(&self, piece: usize) -> (usize, Range<usize>) {
        let (axis, all) = if self.groups > 1 { (GROUP, self.groups) } else { (QUERY, self.queries) };
        let pieces = self.pieces();
        (axis, piece * all / pieces..(piece + 1) * all / pieces)
    }

    /// The scores of a region.
    pub fn scores(&self, region: Region) -> ChipOperand {
        let (tile, array) = (self.rows() * self.array, self.array);
        let strides = [self.groups * self.tiles * tile, self.tiles * tile, tile, self.queries * array, array, 1];
        self.accumulators(self.scores_at + region.first * self.rows(), strides)
    }

    /// The row of the accumulators where the scores of a unit with a tile of keys begin.
    pub fn score_row(&self, unit: usize, tile: usize) -> usize {
        self.scores_at + (unit * self.tiles + tile) * self.rows()
    }

    /// The row of the accumulators where a tile of columns of a unit's result begins, or of rows if it is turned.
    pub fn result_row(&self, unit: usize, tile: usize) -> usize {
        self.result_at + unit * self.result_rows() + tile * if self.turned.is_some() { self.columns } else { self.rows() }
    }

    /// Rows of the accumulators that the result of a unit takes.
    pub fn result_rows(&self) -> usize {
        match self.turned {
            Some(rows) => self.rows().div_ceil(rows) * self.columns,
            None => self.column_tiles * self.rows(),
        }
    }

    /// Elements between the weights of neighbouring units, and of neighbouring rows.
    pub fn weights_pitch(&self) -> [usize; 2] {
        [self.rows() * self.keys, self.keys]
    }

    /// The weights of a region, in a buffer of bf16.
    pub fn weights(&self, buffer: u32, region: Region) -> ChipOperand {
        let [unit, row] = self.weights_pitch();
        let strides = [self.groups * unit, unit, self.width, self.queries * row, row, 1];
        ChipOperand {
            memory: Memory::Scratchpad,
            address: buffer + (region.first * self.width * 2) as u32,
            dtype: DType::BF16,
            strides: strides.iter().map(|&stride| stride as i64).collect(),
        }
    }

    /// One number for each row, along the dimensions of scores.
    pub fn statistic(&self, buffer: u32) -> ChipOperand {
        let strides = [self.groups * self.rows(), self.rows(), 0, self.queries, 1, 0];
        ChipOperand {
            memory: Memory::Scratchpad,
            address: buffer,
            dtype: DType::F32,
            strides: strides.iter().map(|&stride| stride as i64).collect(),
        }
    }

    /// Sizes of one number for each row.
    pub fn statistic_lens(&self) -> [usize; 6] {
        [self.batches, self.groups, 1, self.heads, self.queries, 1]
    }

    /// A mask that was loaded for batches, heads, queries and keys, along the dimensions of scores.
    pub fn mask(&self, mask: &ChipOperand, region: Region) -> ChipOperand {
        let [batch, head, query, key] = [0, 1, 2, 3].map(|axis| mask.strides[axis]);
        let tile = key * self.width as i64;
        let distance = region.first as i64 * tile * element_bytes(mask.dtype);
        ChipOperand {
            address: mask.address.wrapping_add_signed(distance as i32),
            strides: vec![batch, head * self.heads as i64, tile, head, query, key],
            ..mask.clone()
        }
    }

    /// Tiles of columns of the result: the first column and the width of each.
    pub fn column_tiles(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.column_tiles).map(|tile| {
            let first = tile * self.column_width;
            (first, self.column_width.min(self.columns - first))
        })
    }

    /// Sizes of the dimensions of a part of the result.
    pub fn result_lens(&self, width: usize) -> [usize; 6] {
        [self.batches, self.groups, 1, self.heads, self.queries, width]
    }

    /// The tiles of a result that is turned: ranges of the queries of its one head, or all rows of its heads.
    pub fn turned_tiles(&self, rows: usize) -> impl Iterator<Item = Range<usize>> {
        let queries = self.queries;
        let step = if rows >= self.rows() { queries.max(1) } else { rows };
        (0..queries).step_by(step).map(move |first| first..(first + step).min(queries))
    }

    /// A tile of a result that is turned, from one of its columns on, along the dimensions of results.
    pub fn turned_result(&self, tile: usize, column: usize) -> ChipOperand {
        let unit = self.result_rows() * self.array;
        let strides = [self.groups * unit, unit, 0, self.queries, 1, self.array];
        let mut operand = self.accumulators(self.result_at + tile * self.columns, strides);
        operand.address += (column * self.array * 4) as u32;
        operand
    }

    /// A tile of columns of the result, from one of its columns on.
    pub fn result(&self, tile: usize, column: usize) -> ChipOperand {
        let (rows, array) = (self.rows() * self.array, self.array);
        let unit = self.column_tiles * rows;
        let strides = [self.groups * unit, unit, 0, self.queries * array, array, 1];
        let mut operand = self.accumulators(self.result_at + tile * self.rows(), strides);
        operand.address += (column * 4) as u32;
        operand
    }

    /// Rows of `pitch` elements in a buffer, from a column on, along the dimensions of the result.
    pub fn dense(&self, buffer: u32, dtype: DType, pitch: usize, column: usize) -> ChipOperand {
        let rows = self.rows() * pitch;
        let strides = [self.groups * rows, rows, 0, self.queries * pitch, pitch, 1];
        ChipOperand {
            memory: Memory::Scratchpad,
            address: buffer + column as u32 * element_bytes(dtype) as u32,
            dtype,
            strides: strides.iter().map(|&stride| stride as i64).collect(),
        }
    }
}
