//! What is refused.

use tcc_ir::ops::{ArgFn, ArgReduce, Attention, CumSum, MatMul, ScatterElements, ScatterNd, ScatterReduction, TopK};
use tcc_ir::{DType, Graph, Op, Real, Tensor, TensorType};

use super::super::{check, legal};
use super::ty;
use crate::machine::Machine;
use crate::target::TargetError;

fn refusal(op: impl Into<Op>, operands: &[TensorType]) -> Option<TargetError> {
    let mut graph = Graph::new("large");
    let inputs: Vec<_> = operands.iter().map(|ty| graph.add_input("x", ty.clone())).collect();
    graph.set_origin("node");
    for value in graph.add_multi(op, &inputs).unwrap() {
        graph.add_output("y", value);
    }
    let refused = check(&Machine::built_in().unwrap()[0], &graph).err();
    // What is not refused can be written down.
    assert!(refused.is_some() || legal(&graph).is_ok());
    refused
}

#[test]
fn what_compares_too_much_is_refused() {
    let f32s = |dims: &[usize]| ty(DType::F32, dims);
    let top = |k| TopK { axis: 1, k, largest: true };
    assert!(refusal(top(2), &[f32s(&[1, 4096])]).is_none());
    assert!(refusal(top(2), &[f32s(&[2, 4096])]).is_some());
    // The first alone is found without comparing all with each other.
    assert!(refusal(top(1), &[f32s(&[2, 4096])]).is_none());
    assert!(refusal(ArgReduce { function: ArgFn::Max, axis: 1, select_last: false }, &[f32s(&[2, 60000])]).is_none());
    let sum = CumSum { axis: 1, exclusive: false, reverse: false };
    assert!(refusal(sum, &[f32s(&[1, 4096])]).is_none());
    assert!(refusal(sum, &[f32s(&[1, 4097])]).is_some());
}

#[test]
fn scatters_are_refused_by_what_meets() {
    let f32s = |dims: &[usize]| ty(DType::F32, dims);
    let indices = |dims: &[usize]| ty(DType::I64, dims);
    let scatter = |reduction| ScatterNd { reduction };
    let (data, updates) = (f32s(&[4096, 2]), f32s(&[4096, 2]));
    let operands = [data, indices(&[4096, 1]), updates];
    assert!(refusal(scatter(ScatterReduction::Replace), &operands).is_none());
    assert!(refusal(scatter(ScatterReduction::Add), &operands).is_some());
    let elements = ScatterElements { axis: 1, reduction: ScatterReduction::Replace };
    // Elements meet within their own line alone.
    assert!(refusal(elements, &[f32s(&[1000, 100]), indices(&[1000, 100]), f32s(&[1000, 100])]).is_none());
    assert!(refusal(elements, &[f32s(&[1000, 1000]), indices(&[1000, 1000]), f32s(&[1000, 1000])]).is_some());
}

#[test]
fn constant_places_meet_nothing() {
    let mut graph = Graph::new("constant");
    let data = graph.add_input("data", ty(DType::F32, &[9000, 1]));
    let indices = graph.constant(Tensor::vector_i64((0..9000).map(|i| (i * 7) % 9000).collect()));
    let shape = ty(DType::I64, &[9000, 1]).shape;
    let indices = graph.constant(graph.as_constant(indices).unwrap().reshaped(shape).unwrap());
    let updates = graph.add_input("updates", ty(DType::F32, &[9000, 1]));
    let y = graph.add(ScatterNd { reduction: ScatterReduction::Replace }, &[data, indices, updates]).unwrap();
    graph.add_output("y", y);
    check(&Machine::built_in().unwrap()[0], &graph).unwrap();
}

#[test]
fn large_products_must_be_for_the_matrix_units() {
    let product = |dtype: DType| refusal(MatMul::default(), &[ty(dtype, &[512, 512]), ty(dtype, &[512, 512])]);
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::I8, DType::U4] {
        assert!(product(dtype).is_none(), "{dtype}");
    }
    for dtype in [DType::F64, DType::I32, DType::I16, DType::U64] {
        assert!(product(dtype).is_some(), "{dtype}");
    }
    let attention = Attention {
        scale: Real(1.0),
        softcap: Real(0.0),
        causal: None,
        window: None,
        mask: false,
        zero_masked_rows: false,
    };
    let heads = |dtype| [(); 3].map(|()| ty(dtype, &[1, 8, 512, 64]));
    assert!(refusal(attention, &heads(DType::F32)).is_none());
    assert!(refusal(attention, &heads(DType::F64)).is_some());
}

#[test]
fn a_refusal_says_what_and_where() {
    let refused = refusal(TopK { axis: 0, k: 5, largest: true }, &[ty(DType::F32, &[50000])]).unwrap();
    let TargetError::Unsupported { origin, reason, .. } = refused else { panic!("{refused}") };
    assert_eq!(origin, "node");
    assert_eq!(
        reason,
        "`top_k` becomes 2500000000 comparisons of elements with each other there, of at most 16777216; choose smaller \
         dimensions, or leave it to the host"
    );
}

#[test]
fn hostile_extents_are_refused_before_anything_is_counted_out() {
    let mut graph = Graph::new("hostile");
    let x = graph.add_input("x", ty(DType::F32, &[1 << 39]));
    let y = graph.add(ArgReduce { function: ArgFn::Max, axis: 0, select_last: false }, &[x]).unwrap();
    graph.add_output("y", y);
    let message = legal(&graph).unwrap_err().to_string();
    assert!(message.contains("at most 67108864 can be"), "{message}");
}
