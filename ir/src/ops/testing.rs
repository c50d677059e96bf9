//! What tests of operators share: small tensors, random tensors, and the check of an operator against its
//! decomposition.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::op::Operator;
use crate::{DType, Data, Graph, NumberClass, Shape, Tensor, TensorType, Values, evaluate, verify};

/// The float types that operators of this crate compute with.
pub(crate) const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

pub(crate) fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims.iter().copied()).unwrap()
}

pub(crate) fn ty(dtype: DType, dims: &[usize]) -> TensorType {
    TensorType::new(dtype, shape(dims))
}

pub(crate) fn tensor<T: crate::Element>(dims: &[usize], elements: Vec<T>) -> Tensor {
    Tensor::new(ty(T::DTYPE, dims), Data::from_elements(elements)).unwrap()
}

/// Random numbers: floats of about unit variance, integers over the whole range of types of at most 16 bits, and of
/// at most 2^15 in wider ones.
pub(crate) fn random(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    let ty = ty(dtype, dims);
    let mut state = seed;
    let mut next = move || {
        // A multiplicative congruential generator, whose upper bits are good enough for tests.
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let count = ty.shape.count();
    let (low, high) = dtype.integer_range().map_or((0, 1), |(low, high)| (low.max(-32768), high.min(65535)));
    let mut integer = |next: &mut dyn FnMut() -> f64| (low as f64 + next() * (high - low + 1) as f64).floor();
    let values = match dtype.class() {
        NumberClass::F32 => Values::F32((0..count).map(|_| (next() * 4.0 - 2.0) as f32).collect()),
        NumberClass::F64 => Values::F64((0..count).map(|_| next() * 4.0 - 2.0).collect()),
        NumberClass::Signed => Values::Signed((0..count).map(|_| integer(&mut next) as i64).collect()),
        NumberClass::Unsigned => Values::Unsigned((0..count).map(|_| integer(&mut next) as u64).collect()),
    };
    Tensor::narrow(ty, values)
}

/// Fails unless `op` and its decomposition agree on `operands`: exactly for integers, and for floats to within
/// `tolerance` of the result's greatest magnitude. NaN agrees with NaN only.
pub(crate) fn agrees(op: impl Operator + Into<crate::Op>, operands: &[Tensor], tolerance: f64) {
    let run = |decomposed: bool| {
        let mut graph = Graph::new("");
        let inputs: Vec<_> = operands.iter().map(|operand| graph.add_input("", operand.ty().clone())).collect();
        let outputs = if decomposed {
            op.decompose(&mut graph, &inputs).expect("it decomposes").unwrap()
        } else {
            graph.add_multi(op.clone(), &inputs).unwrap().to_vec()
        };
        outputs.into_iter().for_each(|output| graph.add_output("", output));
        verify(&graph).unwrap();
        evaluate(&graph, operands).unwrap()
    };
    let (whole, parts) = (run(false), run(true));
    assert_eq!(whole.len(), parts.len());
    for (whole, parts) in whole.iter().zip(&parts) {
        assert_eq!(whole.ty(), parts.ty());
        let exact = !whole.dtype().is_float();
        let (whole, parts) = (whole.to_f64s().unwrap(), parts.to_f64s().unwrap());
        let greatest = whole.iter().filter(|x| x.is_finite()).fold(0.0f64, |max, x| max.max(x.abs()));
        let tolerance = if exact { 0.0 } else { tolerance * greatest };
        for (i, (&a, &b)) in whole.iter().zip(&parts).enumerate() {
            let equal = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance;
            assert!(equal, "{op:?}: element {i} is {a}, but decomposed {b}");
        }
    }
}
