//! Paddings.

use tcc_ir::ops::Pad;
use tcc_ir::{DType, Op};

use super::{Bench, Close, names};

/// The operators that a padding becomes; `None` if there is no such padding.
fn pad(dtype: DType, dims: &[usize], low: &[i64], high: &[i64], interior: &[usize]) -> Option<Vec<&'static str>> {
    let mut bench = Bench::new(1);
    let (x, value) = (bench.any(dtype, dims), bench.any(dtype, &[]));
    let (x, value) = (bench.input(x), bench.input(value));
    let op = Op::from(Pad { low: low.to_vec(), high: high.to_vec(), interior: interior.to_vec() });
    op.infer(&[bench.graph.ty(x), bench.graph.ty(value)]).ok()?;
    bench.result(op, &[x, value]);
    Some(names(&bench.check(Close::Exactly)))
}

#[test]
fn every_mixture() {
    let mut mixtures = 0;
    for (n, inner) in [(0, 1), (1, 1), (4, 1), (4, 3)] {
        for low in -4..=3i64 {
            for high in -4..=3i64 {
                for interior in 0..3usize {
                    let padded = pad(DType::I8, &[2, n, inner], &[0, low, 0], &[1, high, 0], &[0, interior, 0]);
                    mixtures += usize::from(padded.is_some());
                }
            }
        }
    }
    assert!(mixtures > 400, "{mixtures}");
}

#[test]
fn several_axes() {
    for dtype in [DType::F32, DType::U4, DType::Bool] {
        pad(dtype, &[3, 2], &[-1, 1], &[0, -1], &[1, 0]).unwrap();
        pad(dtype, &[3, 4], &[-2, 3], &[5, -7], &[2, 1]).unwrap();
        pad(dtype, &[], &[], &[], &[]).unwrap();
    }
}

#[test]
fn huge_paddings_cancel() {
    assert_eq!(pad(DType::F32, &[4], &[i64::MAX], &[-i64::MAX], &[0]).unwrap(), ["broadcast"]);
    pad(DType::F32, &[1], &[1], &[0], &[usize::MAX]).unwrap();
}

#[test]
fn nothing_is_done_that_need_not_be() {
    assert_eq!(pad(DType::F32, &[4], &[1], &[2], &[0]).unwrap(), ["pad"]);
    assert_eq!(pad(DType::F32, &[4], &[-1], &[0], &[0]).unwrap(), ["slice"]);
    assert_eq!(pad(DType::F32, &[4], &[-1], &[2], &[0]).unwrap(), ["slice", "pad"]);
    assert_eq!(pad(DType::F32, &[4], &[0], &[0], &[1]).unwrap(), ["reshape", "pad", "reshape", "slice"]);
}
