//! How the sums of a product of tiles are spread over the lanes of a warp.
//!
//! Of warps of 32 lanes, tiles of 16 rows and 8 columns: lane l has columns 2 (l mod 4) and the next of rows l / 4 and
//! l / 4 + 8, as `mma.sync` has them (PTX ISA 8.5, matrix fragments for mma.m16n8k16). Of warps of 64 lanes, tiles of 16 rows
//! and 16 columns: lane l has column l mod 16 of rows 4 (l / 16) and the three that follow, as `v_mfma_f32_16x16x16_f16` has
//! them (AMD matrix instruction calculator). Tiles come row by row, four sums of each.

use super::{Builder, ExprId};

/// Sums that a lane has of a tile.
pub const SUMS: u32 = 4;

/// A spread of sums over lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    warp: u32,
    columns: u32,
}

impl Spread {
    /// For warps of so many lanes; `None` if there is no such machine.
    pub fn new(warp: u32, columns: u32) -> Option<Spread> {
        let spread = Spread { warp, columns };
        (matches!(warp, 32 | 64) && columns.is_multiple_of(spread.tile_columns())).then_some(spread)
    }

    /// Rows of a tile.
    pub const ROWS: u32 = 16;

    /// Columns of a tile.
    pub fn tile_columns(self) -> u32 {
        self.warp / 4
    }

    /// Sums of a lane for so many rows.
    pub fn count(self, rows: u32) -> u32 {
        rows * self.columns / self.warp
    }

    /// Lanes that lie beside each other and have all sums of a row together.
    pub fn lanes_of_row(self) -> u32 {
        if self.warp == 64 { 16 } else { 4 }
    }

    /// Rows of which a lane has sums, for so many rows.
    pub fn rows(self, rows: u32) -> u32 {
        rows / Self::ROWS * self.rows_of_tile()
    }

    fn rows_of_tile(self) -> u32 {
        SUMS / self.columns_of_tile()
    }

    /// Sums that a lane has in each of its rows of a tile.
    pub fn columns_of_tile(self) -> u32 {
        if self.warp == 64 { 1 } else { 2 }
    }

    /// The row that a lane has by a number of its own, in code.
    pub fn row_in(self, builder: &mut Builder, lane: ExprId, number: u32) -> ExprId {
        let (tile, within) = (number / self.rows_of_tile(), number % self.rows_of_tile());
        let (lanes, step, apart) = if self.warp == 64 { (16, 4, 1) } else { (4, 1, 8) };
        let (row, _) = builder.divided(lane, lanes);
        let row = builder.scaled(row, step);
        let first = builder.integer((tile * Self::ROWS + within * apart) as i32);
        builder.add(row, first)
    }

    /// The first column of a lane in a tile, in code.
    pub fn own_column(self, builder: &mut Builder, lane: ExprId) -> ExprId {
        let (_, own) = builder.divided(lane, self.lanes_of_row() as i32);
        builder.scaled(own, self.columns_of_tile() as i32)
    }

    /// How far behind that the column of a sum is, by a tile's number in its row of tiles and the sum's among those of the lane's row,
    /// in code.
    pub fn column_in(self, builder: &mut Builder, (tile, within): (ExprId, ExprId)) -> ExprId {
        let column = builder.scaled(tile, self.tile_columns() as i32);
        builder.add(column, within)
    }

    /// The index of a lane's sum by the number of its row among those of the lane, and by tile and number as for
    /// [`Spread::column_in`], in code.
    pub fn sum_in(self, builder: &mut Builder, row: u32, (tile, within): (ExprId, ExprId)) -> ExprId {
        let (tile_row, row) = (row / self.rows_of_tile(), row % self.rows_of_tile());
        let across = self.columns / self.tile_columns();
        let first = builder.integer((tile_row * across * SUMS + row * self.columns_of_tile()) as i32);
        let before = builder.scaled(tile, SUMS as i32);
        let within = builder.add(before, within);
        builder.add(within, first)
    }

    /// The row and the column of a lane's sum.
    pub fn place(self, lane: u32, sum: u32) -> (u32, u32) {
        let (tile, within) = (sum / SUMS, sum % SUMS);
        let across = self.columns / self.tile_columns();
        let (row, column) = (tile / across * Self::ROWS, tile % across * self.tile_columns());
        match self.warp {
            64 => (row + lane / 16 * 4 + within, column + lane % 16),
            _ => (row + lane / 4 + within / 2 * 8, column + lane % 4 * 2 + within % 2),
        }
    }

    /// [`Spread::place`] in code.
    pub fn place_in(self, builder: &mut Builder, lane: ExprId, sum: ExprId) -> (ExprId, ExprId) {
        let (tile, within) = builder.divided(sum, SUMS as i32);
        let across = self.columns / self.tile_columns();
        let (tile_row, tile_column) = builder.divided(tile, across as i32);
        let row = builder.scaled(tile_row, Self::ROWS as i32);
        let column = builder.scaled(tile_column, self.tile_columns() as i32);
        let (lane_row, lane_column, sum_row, sum_column) = if self.warp == 64 {
            let (row, column) = builder.divided(lane, 16);
            let zero = builder.integer(0);
            (builder.scaled(row, 4), column, within, zero)
        } else {
            let (row, column) = builder.divided(lane, 4);
            let (half, odd) = builder.divided(within, 2);
            (row, builder.scaled(column, 2), builder.scaled(half, 8), odd)
        };
        let row = builder.add(row, sum_row);
        let column = builder.add(column, sum_column);
        (builder.add(lane_row, row), builder.add(lane_column, column))
    }
}
