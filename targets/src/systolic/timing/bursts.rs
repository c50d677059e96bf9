//! How many bursts a DMA instruction moves.

use smallvec::SmallVec;

use crate::systolic::isa::{RowTransfer, Transfer};

/// Bursts of a strided transfer, whose address is absolute: for each maximal contiguous run in DRAM, the burst-aligned
/// blocks it touches.
/// `u64::MAX` if there are more.
pub(super) fn of_transfer(transfer: &Transfer, burst: u64) -> u64 {
    if transfer.dims.iter().any(|dim| dim.size == 0) {
        return 0;
    }
    let mut run = u64::from(transfer.element_bytes);
    let mut outer: SmallVec<[(u64, i64); 4]> = SmallVec::new();
    for dim in transfer.dims.iter().rev().filter(|dim| dim.size != 1) {
        let size = u64::from(dim.size);
        let continues = outer.is_empty() && u64::try_from(dim.dram_stride).is_ok_and(|stride| stride == run);
        match run.checked_mul(size) {
            Some(longer) if continues => run = longer,
            None if continues => return u64::MAX,
            _ => outer.push((size, dim.dram_stride)),
        }
    }
    if run == 0 {
        return 0;
    }
    let Some(runs) = outer.iter().try_fold(1u64, |count, &(size, _)| count.checked_mul(size)) else {
        return u64::MAX;
    };
    // The blocks that a run touches depend on its address only modulo the burst.
    let blocks = |residue: u64| match residue.checked_add(run - 1) {
        Some(last) => u128::from(last / burst) + 1,
        None => (u128::from(residue) + u128::from(run - 1)) / u128::from(burst) + 1,
    };
    let total: u128 = if runs <= burst {
        one_by_one(transfer.dram.offset, &outer, burst).map(blocks).sum()
    } else {
        let counts = residues(transfer.dram.offset, &outer, burst);
        (0..).zip(counts).map(|(residue, count)| u128::from(count) * blocks(residue)).sum()
    };
    u64::try_from(total).unwrap_or(u64::MAX)
}

/// The address of every run, modulo the burst.
fn one_by_one<'a>(base: u64, dims: &'a [(u64, i64)], burst: u64) -> impl Iterator<Item = u64> + 'a {
    let runs: u64 = dims.iter().map(|&(size, _)| size).product();
    (0..runs).map(move |run| {
        let mut rest = run;
        let mut address = base % burst;
        for &(size, stride) in dims {
            address = (address + (rest % size % burst) * modulo(stride, burst)) % burst;
            rest /= size;
        }
        address
    })
}

/// For every residue modulo the burst, how many runs start there. The product of the sizes fits in 64 bits.
fn residues(base: u64, dims: &[(u64, i64)], burst: u64) -> Vec<u64> {
    let length = burst as usize;
    let mut counts = vec![0u64; length];
    counts[(base % burst) as usize] = 1;
    for &(size, stride) in dims {
        let step = modulo(stride, burst) as usize;
        // Steps return to where they began after `period`; each of the `length / period` cycles is a ring of its own.
        // A dimension adds up `size` neighbours on the ring: whole rounds, and a window that slides along it.
        let cycles = gcd(step, length);
        let period = length / cycles;
        let (rounds, window) = (size / period as u64, (size % period as u64) as usize);
        let mut sums = vec![0u64; length];
        for start in 0..cycles {
            let at = |index: usize| (start + index % period * step) % length;
            let round: u64 = (0..period).map(|index| counts[at(index)]).sum();
            let mut sum: u64 = (0..window).map(|index| counts[at(period - index)]).sum();
            for index in 0..period {
                sums[at(index)] = rounds * round + sum;
                if window > 0 {
                    sum = sum + counts[at(index + 1)] - counts[at(index + 1 + period - window)];
                }
            }
        }
        counts = sums;
    }
    counts
}

fn modulo(stride: i64, burst: u64) -> u64 {
    stride.rem_euclid(burst as i64) as u64
}

fn gcd(a: usize, b: usize) -> usize {
    if a == 0 { b } else { gcd(b % a, a) }
}

/// Bursts of a row transfer, whose address is absolute, which must not depend on the indices: a row that may lie askew
/// counts one more.
pub(super) fn of_rows(rows: &RowTransfer, burst: u64) -> u64 {
    let row = u64::from(rows.row_bytes);
    let outer_stride = if rows.outer > 1 { rows.outer_stride } else { 0 };
    let aligned = [rows.dram.offset, row, rows.row_stride, outer_stride].iter().all(|figure| figure % burst == 0);
    let each = row.div_ceil(burst) + u64::from(!aligned);
    u64::from(rows.outer).saturating_mul(u64::from(rows.count)).saturating_mul(each)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;
    use crate::systolic::isa::{DmaDim, DramAddress};

    fn dim(size: u32, dram_stride: i64) -> DmaDim {
        DmaDim { size, dram_stride, scratchpad_stride: 0 }
    }

    fn transfer(dram: u64, dims: &[DmaDim]) -> Transfer {
        Transfer {
            dram: DramAddress::absolute(dram),
            scratchpad: 0,
            element_bytes: 4,
            dims: dims.iter().copied().collect(),
        }
    }

    #[test]
    fn contiguous_data_is_one_run() {
        assert_eq!(of_transfer(&transfer(0, &[dim(16, 64), dim(16, 4)]), 64), 16);
        assert_eq!(of_transfer(&transfer(4, &[dim(16, 64), dim(16, 4)]), 64), 17);
        assert_eq!(of_transfer(&transfer(60, &[]), 64), 1);
        assert_eq!(of_transfer(&transfer(62, &[]), 64), 2);
    }

    #[test]
    fn every_strided_element_is_a_run() {
        assert_eq!(of_transfer(&transfer(0, &[dim(16, 8)]), 64), 16);
        assert_eq!(of_transfer(&transfer(0, &[dim(0, 8)]), 64), 0);
    }

    #[test]
    fn rows_count_one_more_when_they_may_lie_askew() {
        let rows = RowTransfer {
            dram: DramAddress::absolute(0),
            scratchpad: 0,
            row_bytes: 128,
            row_stride: 128,
            rows: 10,
            outer: 2,
            outer_stride: 1280,
            indices: 0,
            index_dtype: tcc_ir::DType::I32,
            count: 3,
        };
        assert_eq!(of_rows(&rows, 64), 12);
        assert_eq!(of_rows(&RowTransfer { row_stride: 130, ..rows.clone() }, 64), 18);
        assert_eq!(of_rows(&RowTransfer { row_bytes: 100, ..rows.clone() }, 64), 18);
        assert_eq!(of_rows(&RowTransfer { dram: DramAddress::absolute(32), ..rows }, 64), 18);
    }

    #[test]
    fn absurd_sizes_saturate() {
        let huge = transfer(0, &[dim(u32::MAX, 3), dim(u32::MAX, 5), dim(u32::MAX, 7)]);
        assert_eq!(of_transfer(&huge, 64), u64::MAX);
        let dense = Transfer { dims: smallvec![dim(u32::MAX, 1 << 40), dim(u32::MAX, 4)], ..transfer(0, &[]) };
        assert!(of_transfer(&dense, 64) > 1 << 58);
    }

    proptest! {
        #[test]
        fn the_closed_form_counts_every_run(
            base in 0u64..10_000,
            dims in prop::collection::vec((1u64..40, -300i64..300), 0..4),
            burst in 1u64..130,
        ) {
            let mut expected = vec![0u64; burst as usize];
            for residue in one_by_one(base, &dims, burst) {
                expected[residue as usize] += 1;
            }
            prop_assert_eq!(residues(base, &dims, burst), expected);
        }
    }
}
