//! Reference evaluation: runs a graph operator by operator. This is the oracle for everything that tcc emits.
//!
//! Values of 16-bit floats are rounded to their type where a model stores or moves them, not after every arithmetic
//! operator: between two of those they stay in binary32, as on machines with a binary32 vector unit and in ONNX Runtime,
//! whose CPU kernels for arithmetic take binary32 only. [`crate::op::Operator::keeps_excess_precision`] says which is which.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::graph::Def;
use crate::op::OpError;
use crate::{DType, Graph, GraphError, NodeId, Tensor, TensorType, ValueId};

/// Why a graph could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Wrong number of input tensors.
    #[error("the graph has {expected} inputs, but {actual} tensors were given")]
    InputCount {
        /// Number of the graph's inputs.
        expected: usize,
        /// Number of tensors given.
        actual: usize,
    },
    /// An input tensor of another type than the graph was built for.
    #[error("input `{name}` is {actual}, but the graph was built for {expected}")]
    InputType {
        /// Name of the input.
        name: Arc<str>,
        /// What the graph was built for.
        expected: TensorType,
        /// What was given.
        actual: TensorType,
    },
    /// A node failed.
    #[error(transparent)]
    Node(#[from] GraphError),
}

/// Computes the results of `graph` for the given inputs, in the order of [`Graph::inputs`] and [`Graph::outputs`].
pub fn evaluate(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    evaluate_with(graph, inputs, |_, _| ())
}

/// [`evaluate`], calling `observe` with each node and its results as they are computed: for progress and calibration.
pub fn evaluate_with(
    graph: &Graph,
    inputs: &[Tensor],
    mut observe: impl FnMut(NodeId, &[Tensor]),
) -> Result<Vec<Tensor>, EvalError> {
    if inputs.len() != graph.inputs().len() {
        return Err(EvalError::InputCount { expected: graph.inputs().len(), actual: inputs.len() });
    }
    let mut uses = graph.use_counts();
    let mut tensors: Vec<Option<Tensor>> = vec![None; graph.value_count()];
    for (id, value) in graph.values() {
        match &value.def {
            Def::Input(index) => {
                let tensor = &inputs[*index];
                if tensor.ty() != &value.ty {
                    return Err(EvalError::InputType {
                        name: value.name.clone(),
                        expected: value.ty.clone(),
                        actual: tensor.ty().clone(),
                    });
                }
                tensors[id.index()] = Some(tensor.clone());
            }
            Def::Constant(tensor) => tensors[id.index()] = Some(tensor.clone()),
            Def::Node { .. } => {}
        }
    }
    for (id, node) in graph.nodes() {
        let at_node = |error| GraphError { origin: node.origin.clone(), op: node.op.name(), error };
        let excess = node.op.keeps_excess_precision();
        let operands: SmallVec<[Tensor; 3]> = node
            .inputs
            .iter()
            .filter_map(|&input| {
                let tensor = tensors[input.index()].as_ref()?;
                Some(if excess { widened(tensor) } else { rounded(tensor, graph.ty(input)) })
            })
            .collect::<Result<_, _>>()
            .map_err(at_node)?;
        let mut types = graph.output_types(node);
        if excess {
            types.iter_mut().filter(|ty| is_half(ty.dtype)).for_each(|ty| ty.dtype = DType::F32);
        }
        let references: SmallVec<[&Tensor; 3]> = operands.iter().collect();
        let results = node.op.eval(&references, &types).and_then(|results| check(results, &types)).map_err(at_node)?;
        drop(references);
        drop(operands);
        observe(id, &results);
        for (&output, tensor) in node.outputs.iter().zip(results) {
            if uses[output.index()] > 0 {
                tensors[output.index()] = Some(tensor);
            }
        }
        // A value is dropped after its last use, so that the peak is that of the live set.
        for &input in &node.inputs {
            uses[input.index()] -= 1;
            if uses[input.index()] == 0 {
                tensors[input.index()] = None;
            }
        }
    }
    let outputs = graph.outputs().iter().filter_map(|output| {
        let tensor = tensors[output.value.index()].as_ref()?;
        let at_output = |error| GraphError { origin: output.name.clone(), op: "output", error };
        Some(rounded(tensor, graph.ty(output.value)).map_err(|error| at_output(error).into()))
    });
    outputs.collect()
}

/// Computes one value that follows from constants alone, and nothing that it does not need.
///
/// # Errors
/// The value depends on an input of the graph, the constants were not loaded, or a node fails.
pub fn evaluate_constant(graph: &Graph, value: ValueId) -> Result<Tensor, EvalError> {
    let mut needed: Vec<NodeId> = Vec::new();
    let mut seen: HashSet<NodeId> = HashSet::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        if let Some(node) = graph.producer(value)
            && seen.insert(node)
        {
            needed.push(node);
            open.extend(&graph.node(node).inputs);
        }
    }
    needed.sort_unstable();
    let mut part = Graph::new(graph.name().clone());
    let mut known: HashMap<ValueId, ValueId> = HashMap::new();
    let operand = |part: &mut Graph, known: &mut HashMap<ValueId, ValueId>, value: ValueId| {
        *known.entry(value).or_insert_with(|| match graph.as_constant(value) {
            Some(tensor) => part.constant(tensor.clone()),
            // An input, for which evaluation will miss a tensor.
            None => part.add_input(graph.value(value).name.clone(), graph.ty(value).clone()),
        })
    };
    for node in needed {
        let node = graph.node(node);
        part.set_origin(node.origin.clone());
        let inputs: SmallVec<[ValueId; 3]> =
            node.inputs.iter().map(|&input| operand(&mut part, &mut known, input)).collect();
        let outputs = part.add_multi(node.op.clone(), &inputs)?;
        known.extend(node.outputs.iter().copied().zip(outputs));
    }
    let result = operand(&mut part, &mut known, value);
    part.add_output(graph.value(value).name.clone(), result);
    let missing = EvalError::InputCount { expected: part.inputs().len(), actual: 0 };
    evaluate(&part, &[])?.pop().ok_or(missing)
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// `tensor` in binary32 if it is of halves.
fn widened(tensor: &Tensor) -> Result<Tensor, OpError> {
    if !is_half(tensor.dtype()) {
        return Ok(tensor.clone());
    }
    let ty = TensorType::new(DType::F32, tensor.shape().clone());
    Ok(Tensor::narrow(ty, tensor.widen()?))
}

/// `tensor` in its value's own type, which it does not have while it holds excess precision.
fn rounded(tensor: &Tensor, ty: &TensorType) -> Result<Tensor, OpError> {
    if tensor.ty() == ty { Ok(tensor.clone()) } else { Ok(Tensor::narrow(ty.clone(), tensor.widen()?)) }
}

/// An evaluation that disagrees with its own shape rule is a defect in tcc; it must not pass silently.
fn check(results: Vec<Tensor>, types: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
    if results.len() == types.len() && results.iter().zip(types).all(|(tensor, ty)| tensor.ty() == ty) {
        Ok(results)
    } else {
        let got: Vec<String> = results.iter().map(|tensor| tensor.ty().to_string()).collect();
        Err(OpError::Value(format!(
            "evaluated to {} where the shape rule says {types:?}; this is a defect in tcc, please report it",
            got.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use half::f16;

    use super::*;
    use crate::ops::{Binary, BinaryFn, Cast, Pad, Reshape};
    use crate::{Data, Shape};

    /// (x + y) - x, with or without something between the two that stores the sum. In 11 bits the sum loses y.
    fn small_addend(stored: bool) -> Vec<f64> {
        let mut graph = Graph::new("halves");
        let ty = TensorType::new(DType::F16, Shape::vector(1));
        let x = graph.add_input("x", ty.clone());
        let y = graph.add_input("y", ty.clone());
        let mut sum = graph.add(Binary(BinaryFn::Add), &[x, y]).unwrap();
        if stored {
            sum = graph.add(Reshape { shape: ty.shape.clone() }, &[sum]).unwrap();
        }
        let difference = graph.add(Binary(BinaryFn::Sub), &[sum, x]).unwrap();
        graph.add_output("difference", difference);
        let operand = |value: f32| Tensor::from_vec(Shape::vector(1), vec![f16::from_f32(value)]).unwrap();
        let results = evaluate(&graph, &[operand(1024.0), operand(0.25)]).unwrap();
        assert_eq!(results[0].ty(), &ty);
        results[0].to_f64s().unwrap()
    }

    #[test]
    fn halves_are_rounded_where_they_are_stored() {
        assert_eq!(small_addend(false), [0.25]);
        assert_eq!(small_addend(true), [0.0]);
    }

    #[test]
    fn halves_are_padded() {
        let mut graph = Graph::new("halves");
        let x = graph.add_input("x", TensorType::new(DType::F16, Shape::vector(2)));
        let value = graph.constant(Tensor::scalar_of(DType::F16, -1.0));
        let rounded = graph.add(Pad { low: vec![1], high: vec![2], interior: vec![0] }, &[x, value]).unwrap();
        // A product that is not rounded yet, padded with a constant that is.
        let product = graph.add(Binary(BinaryFn::Mul), &[x, x]).unwrap();
        let excess = graph.add(Pad { low: vec![0], high: vec![1], interior: vec![0] }, &[product, value]).unwrap();
        graph.add_output("rounded", rounded);
        graph.add_output("excess", excess);
        let x = Tensor::from_vec(Shape::vector(2), [2.0, 3.0].map(f16::from_f32).to_vec()).unwrap();
        let results = evaluate(&graph, &[x]).unwrap();
        assert_eq!(results[0].to_f64s().unwrap(), [-1.0, 2.0, 3.0, -1.0, -1.0]);
        assert_eq!(results[1].to_f64s().unwrap(), [4.0, 9.0, -1.0]);
    }

    #[test]
    fn a_cast_to_halves_rounds() {
        let mut graph = Graph::new("halves");
        let x = graph.add_input("x", TensorType::new(DType::F32, Shape::vector(1)));
        let half = graph.add(Cast { to: DType::F16 }, &[x]).unwrap();
        let back = graph.add(Cast { to: DType::F32 }, &[half]).unwrap();
        graph.add_output("back", back);
        let results = evaluate(&graph, &[Tensor::from_vec(Shape::vector(1), vec![1024.25f32]).unwrap()]).unwrap();
        assert_eq!(results[0].to_f64s().unwrap(), [1024.0]);
    }

    #[test]
    fn constants_are_computed_alone() {
        let mut graph = Graph::new("constants");
        let x = graph.add_input("x", TensorType::new(DType::F32, Shape::vector(2)));
        let a = graph.constant(Tensor::from_vec(Shape::vector(2), vec![1.0f32, 2.0]).unwrap());
        let absent = Data::absent(8);
        let b = graph.constant(Tensor::new(TensorType::new(DType::F32, Shape::vector(2)), absent).unwrap());
        let sum = graph.add(Binary(BinaryFn::Add), &[a, a]).unwrap();
        let square = graph.add(Binary(BinaryFn::Mul), &[sum, sum]).unwrap();
        let unknown = graph.add(Binary(BinaryFn::Mul), &[sum, b]).unwrap();
        let late = graph.add(Binary(BinaryFn::Mul), &[sum, x]).unwrap();
        assert_eq!(evaluate_constant(&graph, square).unwrap().to_f64s().unwrap(), [4.0, 16.0]);
        assert_eq!(evaluate_constant(&graph, a).unwrap().to_f64s().unwrap(), [1.0, 2.0]);
        assert!(matches!(evaluate_constant(&graph, unknown), Err(EvalError::Node(_))));
        assert!(matches!(evaluate_constant(&graph, late), Err(EvalError::InputCount { expected: 1, actual: 0 })));
    }
}
