//! Loads and stores: copies between DRAM and the scratchpad, strided or by rows that indices name.

use tcc_ir::ops::{BinaryFn, ScatterReduction};
use tcc_ir::{DType, NumberClass};

use super::dram::Dram;
use super::fault::FaultCause;
use crate::number::{Number, encoded_bytes};
use crate::systolic::isa::{RowTransfer, Transfer};
use crate::systolic::nest::{Nest, NestDim, Steps};

/// Which way data moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Load,
    Store,
}

/// Copies; the address in DRAM is absolute, and both sides have been checked to lie in their memories.
pub(super) fn transfer(transfer: &Transfer, direction: Direction, scratchpad: &mut [u8], dram: &mut Dram) {
    // Strides of DRAM may be too large for the nibbles that a nest counts in; those of a dimension of one step do not
    // matter, and others were found to stay within the memory.
    let nest = Nest::merged(transfer.dims.iter().map(|dim| {
        let steps: Steps = [dim.dram_stride, i64::from(dim.scratchpad_stride), 0, 0];
        NestDim { size: u64::from(dim.size), steps }
    }));
    if nest.count() == 0 {
        return;
    }
    let element = usize::from(transfer.element_bytes);
    let inner = nest.inner();
    let dense = !nest.has_inner() || inner.steps[..2] == [element as i64; 2];
    let (bytes, pieces) = if dense { (element * inner.size as usize, 1) } else { (element, inner.size) };
    for row in 0..nest.rows() {
        let at = nest.row_steps(row);
        for piece in 0..pieces as i64 {
            let from_dram = transfer.dram.offset.wrapping_add_signed(at[0] + piece * inner.steps[0]);
            let on_chip = (i64::from(transfer.scratchpad) + at[1] + piece * inner.steps[1]) as usize;
            copy(direction, from_dram, on_chip, bytes, scratchpad, dram);
        }
    }
}

fn copy(direction: Direction, address: u64, on_chip: usize, bytes: usize, scratchpad: &mut [u8], dram: &mut Dram) {
    let range = address..address + bytes as u64;
    let on_chip = &mut scratchpad[on_chip..on_chip + bytes];
    match direction {
        Direction::Load => {
            if let Some(from) = dram.read(range) {
                on_chip.copy_from_slice(from);
            }
        }
        Direction::Store => {
            if let Some(to) = dram.write(range) {
                to.copy_from_slice(on_chip);
            }
        }
    }
}

/// Calls `f` with the DRAM address and the scratchpad address of every row, in order.
fn for_each_row(
    rows: &RowTransfer,
    scratchpad: &mut [u8],
    mut f: impl FnMut(u64, usize, &mut [u8]),
) -> Result<(), FaultCause> {
    let count = rows.count as usize;
    // Addresses of no rows were not checked.
    if count == 0 {
        return Ok(());
    }
    let mut indices = vec![0i64; count];
    let step = 2 * (rows.index_dtype.bits() / 8) as i64;
    i64::load(scratchpad, rows.index_dtype, 2 * i64::from(rows.indices), step, &mut indices);
    for index in &mut indices {
        let row = if *index < 0 { i128::from(*index) + i128::from(rows.rows) } else { i128::from(*index) };
        if !(0..i128::from(rows.rows)).contains(&row) {
            return Err(FaultCause::Index { index: *index, rows: rows.rows });
        }
        *index = row as i64;
    }
    let mut on_chip = rows.scratchpad as usize;
    for table in 0..u64::from(rows.outer) {
        for &row in &indices {
            let address = rows.dram.offset + table * rows.outer_stride + row as u64 * rows.row_stride;
            f(address, on_chip, scratchpad);
            on_chip += rows.row_bytes as usize;
        }
    }
    Ok(())
}

/// Brings rows of a table to the scratchpad; all of the table has been checked to be there.
pub(super) fn load_rows(rows: &RowTransfer, scratchpad: &mut [u8], dram: &mut Dram) -> Result<(), FaultCause> {
    for_each_row(rows, scratchpad, |address, on_chip, scratchpad| {
        copy(Direction::Load, address, on_chip, rows.row_bytes as usize, scratchpad, dram);
    })
}

/// Brings rows to a table and combines them with what is there; all of the table has been checked to be there.
pub(super) fn store_rows(
    rows: &RowTransfer,
    reduction: ScatterReduction,
    dtype: DType,
    scratchpad: &mut [u8],
    dram: &mut Dram,
) -> Result<(), FaultCause> {
    let function = match reduction {
        ScatterReduction::Replace => {
            return for_each_row(rows, scratchpad, |address, on_chip, scratchpad| {
                copy(Direction::Store, address, on_chip, rows.row_bytes as usize, scratchpad, dram);
            });
        }
        ScatterReduction::Add => BinaryFn::Add,
        ScatterReduction::Mul => BinaryFn::Mul,
        ScatterReduction::Max => BinaryFn::Max,
        ScatterReduction::Min => BinaryFn::Min,
    };
    if dtype.bits() == 4 || !(rows.row_bytes as usize).is_multiple_of(encoded_bytes(dtype)) {
        return Err(FaultCause::Type { dtype, role: "elements of rows that are combined" });
    }
    let bytes = rows.row_bytes as usize;
    let mut outcome = Ok(());
    for_each_row(rows, scratchpad, |address, on_chip, scratchpad| {
        let update = &scratchpad[on_chip..on_chip + bytes];
        if let Some(row) = dram.write(address..address + bytes as u64) {
            let combined = match dtype.class() {
                NumberClass::F32 => combine::<f32>(function, dtype, row, update),
                NumberClass::F64 => combine::<f64>(function, dtype, row, update),
                NumberClass::Signed => combine::<i64>(function, dtype, row, update),
                NumberClass::Unsigned => combine::<u64>(function, dtype, row, update),
            };
            if combined.is_err() {
                outcome = combined;
            }
        }
    })?;
    outcome
}

fn combine<C: Number>(function: BinaryFn, dtype: DType, row: &mut [u8], update: &[u8]) -> Result<(), FaultCause> {
    let size = encoded_bytes(dtype);
    let count = row.len() / size;
    let (mut old, mut new) = (vec![C::default(); count], vec![C::default(); count]);
    C::load(row, dtype, 0, 2 * size as i64, &mut old);
    C::load(update, dtype, 0, 2 * size as i64, &mut new);
    C::binary(function, &mut old, &new, dtype.bits() as u32)?;
    C::encode(&old, dtype, row);
    Ok(())
}
