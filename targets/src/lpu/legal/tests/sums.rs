//! Means and running sums.

use tcc_ir::DType;
use tcc_ir::ops::{CumSum, Reduce, ReduceFn};

use super::{Bench, Close, names, tensor};

fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-14,
        DType::F32 => 1e-6,
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        DType::F8E4M3 => 0.07,
        _ => 0.13,
    }
}

#[test]
fn means_of_every_type() {
    for (seed, dtype) in (0..).zip(DType::ALL.into_iter().filter(|&dtype| dtype != DType::Bool)) {
        for axes in [&[][..], &[0], &[1], &[2], &[0, 2], &[0, 1, 2]] {
            let mut bench = Bench::new(seed);
            let x = bench.any(dtype, &[3, 7, 5]);
            let x = bench.input(x);
            bench.result(Reduce { function: ReduceFn::Mean, axes: axes.to_vec() }, &[x]);
            bench.check(Close::Within(rounding(dtype)));
        }
    }
}

#[test]
fn sums_of_means_do_not_overflow() {
    for (dtype, value) in [
        (DType::I8, -128.0),
        (DType::U16, 65535.0),
        (DType::U32, 4294967295.0),
        (DType::I32, -2147483648.0),
        (DType::F16, 6e4),
    ] {
        let mut bench = Bench::new(1);
        let count = if dtype.bits() == 8 { 1 << 24 } else { 1 << 17 };
        let x = bench.input(tensor(dtype, &[count], &vec![value; count]));
        bench.result(Reduce { function: ReduceFn::Mean, axes: vec![0] }, &[x]);
        let legal = bench.check(Close::Within(1e-3));
        let sum = legal.nodes().find(|(_, node)| node.op.name() == "reduce").unwrap().1.output();
        assert!(legal.ty(sum).dtype.bits() > 16, "{dtype}");
    }
}

#[test]
fn means_of_nothing() {
    for dtype in [DType::F32, DType::F16, DType::I32] {
        let mut bench = Bench::new(1);
        let x = bench.input(tensor(dtype, &[2, 0], &[]));
        bench.result(Reduce { function: ReduceFn::Mean, axes: vec![1] }, &[x]);
        bench.check(Close::Exactly);
    }
}

#[test]
fn other_reductions_stay() {
    for function in [ReduceFn::Max, ReduceFn::Min, ReduceFn::Prod, ReduceFn::Sum] {
        let mut bench = Bench::new(1);
        let x = bench.any(DType::I8, &[3, 4]);
        let x = bench.input(x);
        bench.result(Reduce { function, axes: vec![0] }, &[x]);
        assert_eq!(names(&bench.check(Close::Exactly)), ["reduce"]);
    }
}

#[test]
fn running_sums() {
    for (seed, dtype) in (0..).zip(DType::ALL.into_iter().filter(|&dtype| dtype != DType::Bool)) {
        for axis in 0..3 {
            for exclusive in [false, true] {
                for reverse in [false, true] {
                    let mut bench = Bench::new(seed);
                    let x = bench.any(dtype, &[3, 7, 2]);
                    let x = bench.input(x);
                    bench.result(CumSum { axis, exclusive, reverse }, &[x]);
                    bench.check(Close::Within(rounding(dtype)));
                }
            }
        }
    }
}

#[test]
fn running_sums_pass_by_infinities() {
    for exclusive in [false, true] {
        let mut bench = Bench::new(1);
        let x = bench.input(tensor(DType::F32, &[4], &[1.0, f64::INFINITY, 2.0, f64::NEG_INFINITY]));
        bench.result(CumSum { axis: 0, exclusive, reverse: false }, &[x]);
        bench.check(Close::Exactly);
    }
}
