//! Scatters.

use tcc_ir::ops::{ScatterElements, ScatterNd, ScatterReduction};
use tcc_ir::{DType, Tensor};

use super::{Bench, Close, names, tensor};

const TYPES: [DType; 9] =
    [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I8, DType::U8, DType::I64, DType::U64, DType::Bool];

/// Which reductions there are of a type, and how close they come.
fn reductions(dtype: DType) -> impl Iterator<Item = (ScatterReduction, Close)> {
    let all = ScatterReduction::ALL.into_iter();
    let arithmetic = |reduction| matches!(reduction, ScatterReduction::Add | ScatterReduction::Mul);
    let rounding = match dtype {
        DType::F64 => 1e-14,
        DType::F32 => 1e-6,
        DType::F16 => 1e-3,
        _ => 8e-3,
    };
    all.filter(move |&reduction| dtype != DType::Bool || !arithmetic(reduction))
        .map(move |reduction| (reduction, if arithmetic(reduction) { Close::Within(rounding) } else { Close::Exactly }))
}

fn updated(bench: &mut Bench, tensors: [Tensor; 3], constant: bool) -> [tcc_ir::ValueId; 3] {
    let [data, indices, updates] = tensors;
    let data = bench.input(data);
    let indices = if constant { bench.graph.constant(indices) } else { bench.input(indices) };
    [data, indices, bench.input(updates)]
}

#[test]
fn index_tuples_of_every_depth() {
    let data = [3, 4, 2, 5];
    for (seed, dtype) in (0..).zip(TYPES) {
        for (reduction, close) in reductions(dtype) {
            for tuples in [&[7, 1][..], &[1, 1], &[2, 4, 1], &[6, 2], &[9, 3], &[40, 4], &[2], &[0, 2]] {
                for constant in [false, true] {
                    let mut bench = Bench::new(seed);
                    let (lead, depth) = (&tuples[..tuples.len() - 1], tuples[tuples.len() - 1]);
                    let indices = bench.whole(DType::I64, tuples, -2, 2);
                    let updates = [lead, &data[depth..]].concat();
                    let tensors = [bench.any(dtype, &data), indices, bench.any(dtype, &updates)];
                    let operands = updated(&mut bench, tensors, constant);
                    bench.result(ScatterNd { reduction }, &operands);
                    let legal = bench.check(close);
                    if constant && reduction == ScatterReduction::Replace {
                        assert!(names(&legal).iter().all(|&name| name != "eq"), "{:?}", names(&legal));
                    }
                }
            }
        }
    }
}

#[test]
fn the_last_of_several_updates_stays() {
    for constant in [false, true] {
        let mut bench = Bench::new(1);
        let tensors = [
            tensor(DType::F32, &[4], &[1.0, -0.0, 3.0, f64::INFINITY]),
            tensor(DType::I32, &[4, 1], &[2.0, 0.0, -2.0, 0.0]),
            tensor(DType::F32, &[4], &[5.0, 6.0, f64::NEG_INFINITY, -0.0]),
        ];
        let operands = updated(&mut bench, tensors, constant);
        bench.result(ScatterNd { reduction: ScatterReduction::Replace }, &operands);
        bench.check(Close::Exactly);
    }
}

#[test]
fn a_slice_is_put_in_place_without_search() {
    let mut bench = Bench::new(1);
    let indices = tensor(DType::I64, &[2, 1], &[3.0, 4.0]);
    let tensors = [bench.any(DType::F32, &[9, 5]), indices, bench.any(DType::F32, &[2, 5])];
    let operands = updated(&mut bench, tensors, true);
    bench.result(ScatterNd { reduction: ScatterReduction::Replace }, &operands);
    let legal = bench.check(Close::Exactly);
    assert_eq!(names(&legal), ["concat", "slice", "slice", "slice", "concat"]);
}

#[test]
fn elements_along_every_axis() {
    let data = [4, 3, 5];
    for (seed, dtype) in (0..).zip(TYPES) {
        for (reduction, close) in reductions(dtype) {
            for axis in 0..3 {
                for reached in [[2, 3, 4], [4, 2, 5], [1, 1, 1], [0, 3, 5]] {
                    let mut bench = Bench::new(seed);
                    let mut reached = reached;
                    reached[axis] *= 2;
                    let extent = data[axis] as i64;
                    let indices = bench.whole(DType::I64, &reached, -extent, extent);
                    let tensors = [bench.any(dtype, &data), indices, bench.any(dtype, &reached)];
                    let operands = updated(&mut bench, tensors, false);
                    bench.result(ScatterElements { axis, reduction }, &operands);
                    bench.check(close);
                }
            }
        }
    }
}

#[test]
fn single_updates_need_no_search() {
    let mut bench = Bench::new(1);
    let indices = bench.whole(DType::I64, &[6, 1], -4, 4);
    let tensors = [bench.any(DType::F32, &[6, 4]), indices, bench.any(DType::F32, &[6, 1])];
    let operands = updated(&mut bench, tensors, false);
    bench.result(ScatterElements { axis: 1, reduction: ScatterReduction::Replace }, &operands);
    let legal = bench.check(Close::Exactly);
    assert!(names(&legal).iter().all(|&name| name != "reduce" && name != "gather"), "{:?}", names(&legal));
}

#[test]
fn sums_of_halves_do_not_overflow_on_the_way() {
    let mut bench = Bench::new(1);
    let tensors = [
        tensor(DType::F16, &[2], &[-60000.0, 1.0]),
        tensor(DType::I64, &[2, 1], &[0.0, 0.0]),
        tensor(DType::F16, &[2], &[60000.0, 50000.0]),
    ];
    let operands = updated(&mut bench, tensors, false);
    bench.result(ScatterNd { reduction: ScatterReduction::Add }, &operands);
    let legal = bench.check(Close::Exactly);
    assert!(legal.nodes().all(|(_, node)| node.op.name() != "reduce" || legal.ty(node.output()).dtype == DType::F32));
}
