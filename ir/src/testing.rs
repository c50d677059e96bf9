//! What unit tests share: small tensors, seeded random ones, and running an operator alone or decomposed.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use crate::op::OpError;
use crate::{
    DType, Data, Element, Graph, NumberClass, Op, Shape, Tensor, TensorType, ValueId, Values, evaluate, verify,
};

/// A tensor of any type from numbers, which are rounded to it.
pub(crate) fn tensor(dtype: DType, dims: &[usize], values: &[f64]) -> Tensor {
    let ty = TensorType::new(dtype, Shape::new(dims.iter().copied()).unwrap());
    assert_eq!(ty.shape.count(), values.len(), "{ty}");
    let values = match dtype.class() {
        NumberClass::F32 => Values::F32(values.iter().map(|&x| x as f32).collect()),
        NumberClass::F64 => Values::F64(values.iter().copied().collect()),
        NumberClass::Signed => Values::Signed(values.iter().map(|&x| x as i64).collect()),
        NumberClass::Unsigned => Values::Unsigned(values.iter().map(|&x| x as u64).collect()),
    };
    Tensor::narrow(ty, values)
}

/// A tensor that counts up from 0, wrapped so that every type holds its elements exactly.
pub(crate) fn iota(dtype: DType, dims: &[usize]) -> Tensor {
    let period = match dtype {
        DType::Bool => 2,
        DType::I4 => 8,
        _ => 16,
    };
    let count = dims.iter().product::<usize>();
    tensor(dtype, dims, &(0..count).map(|i| (i % period) as f64).collect::<Vec<_>>())
}

/// Pseudo-random whole numbers in `low..high`, the same for the same seed.
pub(crate) fn random_in(dtype: DType, dims: &[usize], low: i64, high: i64, seed: u64) -> Tensor {
    let count = dims.iter().product::<usize>();
    let mut state = seed;
    let values: Vec<f64> = (0..count)
        .map(|_| {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = state;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^= x >> 31;
            (low + (x % (high - low) as u64) as i64) as f64
        })
        .collect();
    tensor(dtype, dims, &values)
}

/// Pseudo-random whole numbers that the type holds exactly and whose sums and products stay exact.
pub(crate) fn random(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    match dtype {
        DType::Bool => random_in(dtype, dims, 0, 2, seed),
        _ if dtype.class() == NumberClass::Unsigned => random_in(dtype, dims, 0, 16, seed),
        _ => random_in(dtype, dims, -8, 8, seed),
    }
}

/// The float types that operators compute with.
pub(crate) const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

/// A tensor of a native type.
pub(crate) fn elements<T: Element>(dims: &[usize], elements: Vec<T>) -> Tensor {
    Tensor::new(ty(T::DTYPE, dims), Data::from_elements(elements)).unwrap()
}

/// Pseudo-random numbers all over the place: floats in -2..2 with all their bits, integers over the whole range of types
/// of at most 16 bits, and in -32768..=65535 in wider ones.
pub(crate) fn spread(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    if dtype == DType::Bool {
        return random(dtype, dims, seed);
    }
    if let Some((low, high)) = dtype.integer_range() {
        return random_in(dtype, dims, low.max(-32768) as i64, high.min(65535) as i64 + 1, seed);
    }
    let steps = numbers(&random_in(DType::F64, dims, -(1 << 40), 1 << 40, seed));
    tensor(dtype, dims, &steps.iter().map(|x| x / 2.0f64.powi(39)).collect::<Vec<_>>())
}

/// Fails unless an operator and its decomposition agree: exactly for integers, and for floats to within `tolerance` of
/// the result's greatest magnitude. NaN agrees with NaN only.
pub(crate) fn agrees(op: impl Into<Op>, inputs: &[Tensor], tolerance: f64) {
    let op = op.into();
    let graph = decomposition(op.clone(), inputs);
    verify(&graph).unwrap();
    let (whole, parts) = (run_all(op.clone(), inputs).unwrap(), evaluate(&graph, inputs).unwrap());
    assert_eq!(whole.len(), parts.len());
    for (whole, parts) in whole.iter().zip(&parts) {
        assert_eq!(whole.ty(), parts.ty());
        let exact = !whole.dtype().is_float();
        let (whole, parts) = (numbers(whole), numbers(parts));
        let greatest = whole.iter().filter(|x| x.is_finite()).fold(0.0f64, |max, x| max.max(x.abs()));
        let tolerance = if exact { 0.0 } else { tolerance * greatest };
        for (i, (&a, &b)) in whole.iter().zip(&parts).enumerate() {
            let equal = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance;
            assert!(equal, "{op:?}: element {i} is {a}, but decomposed {b}");
        }
    }
}

/// The elements as binary64.
pub(crate) fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f64s().unwrap()
}

/// Infers and evaluates one operator, and checks that both agree on the types.
pub(crate) fn run_all(op: impl Into<Op>, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
    let op = op.into();
    let types: Vec<&TensorType> = inputs.iter().map(Tensor::ty).collect();
    let outputs = op.infer(&types)?;
    let results = op.eval(&inputs.iter().collect::<Vec<_>>(), &outputs)?;
    assert_eq!(results.iter().map(Tensor::ty).collect::<Vec<_>>(), outputs.iter().collect::<Vec<_>>());
    Ok(results)
}

/// [`run_all`] for an operator with one result.
pub(crate) fn run(op: impl Into<Op>, inputs: &[Tensor]) -> Result<Tensor, OpError> {
    let mut results = run_all(op, inputs)?;
    assert_eq!(results.len(), 1);
    Ok(results.remove(0))
}

/// The message with which an operator refuses operands of the given types.
pub(crate) fn refusal(op: impl Into<Op>, inputs: &[TensorType]) -> String {
    op.into().infer(&inputs.iter().collect::<Vec<_>>()).unwrap_err().to_string()
}

/// A tensor type.
pub(crate) fn ty(dtype: DType, dims: &[usize]) -> TensorType {
    TensorType::new(dtype, Shape::new(dims.iter().copied()).unwrap())
}

/// The graph that an operator decomposes to, with the operands as inputs.
pub(crate) fn decomposition(op: impl Into<Op>, inputs: &[Tensor]) -> Graph {
    let mut graph = Graph::new("decomposition");
    let operands: Vec<ValueId> =
        inputs.iter().enumerate().map(|(i, x)| graph.add_input(i.to_string(), x.ty().clone())).collect();
    let results = op.into().decompose(&mut graph, &operands).unwrap().unwrap();
    for (i, &value) in results.iter().enumerate() {
        graph.add_output(i.to_string(), value);
    }
    graph
}

/// Fails unless a graph gives the same bytes as an operator.
pub(crate) fn assert_computes(graph: &Graph, op: impl Into<Op>, inputs: &[Tensor]) {
    let op = op.into();
    let expected = run_all(op.clone(), inputs).unwrap();
    let actual = evaluate(graph, inputs).unwrap();
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(&expected) {
        assert_eq!(actual.ty(), expected.ty(), "{op:?}");
        assert_eq!(actual.bytes(), expected.bytes(), "{op:?}: {actual:?} instead of {expected:?}");
    }
}

/// Fails unless an operator's decomposition is in terms of others and gives the same bytes.
pub(crate) fn assert_decomposes(op: impl Into<Op>, inputs: &[Tensor]) {
    let op = op.into();
    let graph = decomposition(op.clone(), inputs);
    assert!(graph.nodes().all(|(_, node)| node.op != op), "{op:?} decomposes to itself");
    assert_computes(&graph, op, inputs);
}
