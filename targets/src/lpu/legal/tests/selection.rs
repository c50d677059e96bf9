//! Gathers.

use tcc_ir::ops::{Gather, GatherElements, GatherNd, Unary, UnaryFn};
use tcc_ir::{DType, Tensor, ValueId};

use super::super::legal;
use super::{Bench, Close, names, tensor};

const INDICES: [DType; 8] =
    [DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];

/// Random indices into an axis, some of which count from the end if the type has a sign.
fn indices(bench: &mut Bench, dtype: DType, dims: &[usize], extent: usize) -> Tensor {
    let low = if dtype.is_signed() { -(extent as i64) } else { 0 };
    bench.whole(dtype, dims, low, extent as i64)
}

#[test]
fn computed_indices() {
    for (seed, dtype) in (0..).zip(INDICES) {
        for axis in 0..3 {
            for dims in [&[][..], &[4], &[2, 3], &[0]] {
                let mut bench = Bench::new(seed);
                let data = bench.any(DType::F16, &[5, 4, 6]);
                let data = bench.input(data);
                let indices = indices(&mut bench, dtype, dims, [5, 4, 6][axis]);
                let indices = bench.input(indices);
                bench.result(Gather { axis }, &[data, indices]);
                let legal = bench.check(Close::Exactly);
                assert!(names(&legal).contains(&"gather"));
                // Only what may count from the end is looked at.
                assert_eq!(names(&legal).contains(&"select"), dtype.is_signed());
            }
        }
    }
}

#[test]
fn elements_of_every_type_keep_their_bits() {
    for (seed, dtype) in (0..).zip(DType::ALL) {
        let mut bench = Bench::new(seed);
        let data = bench.any(dtype, &[3, 7]);
        let data = bench.input(data);
        let indices = indices(&mut bench, DType::I64, &[9], 7);
        let indices = bench.input(indices);
        bench.result(Gather { axis: 1 }, &[data, indices]);
        bench.check(Close::Exactly);
    }
}

/// The operators that a gather with these constants along an axis becomes.
fn with_constants(axis: usize, dims: &[usize], values: &[i64]) -> Vec<&'static str> {
    let mut bench = Bench::new(1);
    let data = bench.any(DType::F32, &[5, 6, 7]);
    let data = bench.input(data);
    let values: Vec<f64> = values.iter().map(|&value| value as f64).collect();
    let indices = bench.graph.constant(tensor(DType::I64, dims, &values));
    bench.result(Gather { axis }, &[data, indices]);
    names(&bench.check(Close::Exactly))
}

#[test]
fn regular_constants_are_cut_out() {
    for axis in 0..3 {
        assert_eq!(with_constants(axis, &[], &[2]), ["slice", "reshape"]);
        assert_eq!(with_constants(axis, &[], &[-1]), ["slice", "reshape"]);
        assert_eq!(with_constants(axis, &[1], &[3]), ["slice"]);
        assert_eq!(with_constants(axis, &[3], &[0, 2, 4]), ["slice"]);
        assert_eq!(with_constants(axis, &[2, 2], &[3, 2, 1, 0]), ["slice", "reshape"]);
        assert_eq!(with_constants(axis, &[4], &[1, 1, 1, 1]), ["slice", "broadcast"]);
        assert_eq!(with_constants(axis, &[4], &[3, 4, 0, 1]), ["slice", "slice", "concat"]);
        assert_eq!(with_constants(axis, &[0], &[]), ["slice"]);
    }
    assert!(with_constants(0, &[5], &[0, 1, 2, 3, 4]).is_empty());
}

#[test]
fn irregular_constants_are_gathered() {
    let irregular = [0, 3, 1, -1, 0, 2, 2, 4, 1, 0];
    assert_eq!(with_constants(0, &[10], &irregular), ["gather"]);
    assert_eq!(with_constants(0, &[10], &irregular.map(|index| (index + 5) % 5)), ["gather"]);
    assert_eq!(with_constants(1, &[10], &irregular), ["transpose", "gather", "transpose"]);
    assert_eq!(with_constants(2, &[2, 5], &irregular), ["transpose", "gather", "transpose"]);
}

#[test]
fn a_constant_beyond_its_axis_is_named() {
    for index in [5, -6, i64::MIN, i64::MAX] {
        let mut bench = Bench::new(1);
        let data = bench.any(DType::F32, &[5, 6]);
        let data = bench.input(data);
        let indices = bench.graph.constant(Tensor::vector_i64(vec![0, 4, 1, 3, 2, 0, 1, 4, index, 0, 3]));
        bench.result(Gather { axis: 0 }, &[data, indices]);
        let message = legal(&bench.graph).unwrap_err().to_string();
        assert!(message.contains(&format!("index {index} lies outside an axis of 5 elements")), "{message}");
    }
}

#[test]
fn single_elements() {
    for (seed, dtype) in (0..).zip([DType::F32, DType::U8, DType::I64, DType::Bool]) {
        for axis in 0..3 {
            for constant in [false, true] {
                let mut bench = Bench::new(seed);
                let dims = [4, 3, 5];
                let data = bench.any(dtype, &dims);
                let data = bench.input(data);
                let mut reached = [2, 3, 4];
                reached[axis] = 6;
                let indices = indices(&mut bench, DType::I64, &reached, dims[axis]);
                let indices = if constant { bench.graph.constant(indices) } else { bench.input(indices) };
                bench.result(GatherElements { axis }, &[data, indices]);
                bench.check(Close::Exactly);
            }
        }
    }
}

#[test]
fn index_tuples() {
    for (batch_dims, dims) in
        [(0, &[4, 1][..]), (0, &[4, 2]), (0, &[3]), (0, &[2, 2, 4]), (1, &[2, 3]), (1, &[2, 6, 2]), (2, &[2, 3, 4, 1])]
    {
        for constant in [false, true] {
            let mut bench = Bench::new(7);
            let data = bench.any(DType::F32, &[2, 3, 3, 5]);
            let data = bench.input(data);
            let indices = indices(&mut bench, DType::I64, dims, 2);
            let indices = if constant { bench.graph.constant(indices) } else { bench.input(indices) };
            bench.result(GatherNd { batch_dims }, &[data, indices]);
            bench.check(Close::Exactly);
        }
    }
}

#[test]
fn indices_may_be_computed_from_others() {
    let mut bench = Bench::new(3);
    let data = bench.any(DType::F32, &[5, 6]);
    let data = bench.input(data);
    let indices = indices(&mut bench, DType::I32, &[8], 5);
    let indices = bench.input(indices);
    let indices: ValueId = bench.add(Unary(UnaryFn::Not), &[indices]);
    bench.result(Gather { axis: 0 }, &[data, indices]);
    bench.check(Close::Exactly);
}
