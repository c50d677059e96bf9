//! Products whose sums stay in the array: whether that takes fewer cycles than weights that stay, and the passes of a tile.
//!
//! The loops are those of any product on the array (`contraction`): tiles of A stay on chip while those of B stream past. Only
//! the passes differ. Each takes as many rows of A as the array has, and all of K that lies on chip.

use tcc_ir::DType;

use super::contraction::Product;
use super::{Lowering, element_bytes};
use crate::systolic::isa::{Memory, Operation, Outer, Walk};
use crate::systolic::machine::{Dataflow, SystolicMachine};
use crate::systolic::timing::drain;

/// A matrix on chip, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub address: u32,
    pub dtype: DType,
    pub row_stride: i32,
    pub column_stride: i32,
    pub zero_point: Option<u32>,
}

impl Matrix {
    /// A matrix whose rows and columns are so many elements apart.
    pub(super) fn new(address: u32, dtype: DType, (row, column): (i64, i64), zero_point: Option<u32>) -> Matrix {
        let [row_stride, column_stride] = [row, column].map(|stride| (stride * element_bytes(dtype)) as i32);
        Matrix { address, dtype, row_stride, column_stride, zero_point }
    }

    /// The walk from a row on.
    fn walk(&self, row: usize) -> Walk {
        Walk {
            memory: Memory::Scratchpad,
            address: self.address.wrapping_add_signed((row as i64 * i64::from(self.row_stride)) as i32),
            dtype: self.dtype,
            strides: [self.row_stride, self.column_stride].into_iter().collect(),
        }
    }
}

/// Cycles of the array for M by K times K by N where weights stay, and where sums stay.
fn cycles(machine: &SystolicMachine, [m, n, k]: [u64; 3]) -> [u64; 2] {
    let array = &machine.array;
    let (rows, columns) = (u64::from(array.total_rows()), u64::from(array.columns));
    let through = rows + columns - 2;
    let (load, out) = (u64::from(array.block_rows()), drain(machine));
    let (weights_pass, sums_pass) = match array.overlap {
        true => (m.max(load), k.max(out)),
        false => (load + m + through, k.max(out) + through + out),
    };
    [k.div_ceil(rows) * n.div_ceil(columns) * weights_pass, m.div_ceil(rows) * n.div_ceil(columns) * sums_pass]
}

impl Lowering<'_, '_> {
    /// Whether a product's sums stay in the array, rather than its weights.
    pub(super) fn sums_stay(&self, product: &Product) -> bool {
        let array = &self.machine.array;
        if !array.runs(Dataflow::OutputStationary) || !array.runs(Dataflow::WeightStationary) {
            return array.runs(Dataflow::OutputStationary);
        }
        let [weights, sums] = cycles(self.machine, product.sizes().map(|size| size as u64));
        sums < weights
    }

    /// Steps of a pass: as much of K as four tiles of each operand take a quarter of the scratchpad.
    pub(super) fn steps_of_pass(&self, a: DType, b: DType) -> usize {
        let array = &self.machine.array;
        let step = i64::from(array.rows.max(array.columns)) * element_bytes(a).max(element_bytes(b));
        self.squeezed(self.machine.scratchpad.bytes as usize / 16 / step.max(1) as usize).max(1)
    }

    /// Passes for a tile: `a` is M by K, `b` K by N.
    pub(super) fn outer_passes(&mut self, a: Matrix, b: Matrix, [m, n, k]: [usize; 3], row: u32, accumulate: bool) {
        let rows = self.machine.array.rows as usize;
        for first in (0..m).step_by(rows) {
            self.emitter.emit(Operation::Outer(Outer {
                m: rows.min(m - first) as u16,
                n: n as u16,
                k: k as u32,
                a: a.walk(first),
                b: b.walk(0),
                a_zero_point: a.zero_point,
                b_zero_point: b.zero_point,
                accumulator_row: row + first as u32,
                accumulate,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systolic::machine::Array;
    use crate::systolic::timing::tests::{array, small_machine};

    #[test]
    fn both_dataflows_are_counted() {
        let machine = SystolicMachine { array: array(32, 32), ..small_machine() };
        // Two by three tiles of weights, or of sums.
        assert_eq!(cycles(&machine, [40, 70, 50]), [6 * 40, 6 * 50]);
        assert_eq!(cycles(&machine, [1, 70, 50]), [6 * 32, 3 * 50]);
        assert_eq!(cycles(&machine, [40, 70, 1]), [3 * 40, 6 * 32]);
        let array = Array { overlap: false, ..array(32, 32) };
        let machine = SystolicMachine { array_only: true, array, ..small_machine() };
        assert_eq!(cycles(&machine, [64, 64, 64]), [632, 504]);
    }
}
