//! Softmax over the columns of a product.
//!
//! Along lanes, a maximum and a sum take the vector through the switch unit; along rows, they are running results of an ALU. A
//! product gives its transposed for nothing, as what is held and what is streamed change places. So the softmax of a product's
//! rows is computed on the transposed product, and only its result is transposed.

use tcc_ir::ops::{BinaryFn, MatMul, ReduceFn, Softmax, Unary, UnaryFn};
use tcc_ir::{Graph, GraphError, Op, ValueId};

use super::parts::{binary, insert_axis, reduce, swap_last};

/// Rows and columns from which on a transposition is worth it.
const WORTH: usize = 32;

/// Element-wise operators between a product and its softmax that are looked through.
const DEPTH: usize = 8;

/// Whether a softmax is computed on the transposed of its operand.
pub(super) fn is_turned(graph: &Graph, softmax: &Softmax, inputs: &[ValueId]) -> bool {
    let shape = graph.shape(inputs[0]);
    let [.., rows, columns] = shape.dims() else { return false };
    let worth = *rows >= WORTH && *columns >= WORTH && softmax.axis + 1 == shape.rank();
    worth && is_of_product(graph, inputs[0], DEPTH)
}

/// Whether a value is element-wise work on a product.
fn is_of_product(graph: &Graph, value: ValueId, depth: usize) -> bool {
    let Some(node) = graph.producer(value).map(|id| graph.node(id)) else { return false };
    match &node.op {
        Op::MatMul(product) => !product.a_zero && !product.b_zero && !product.transpose_a,
        Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_) if depth > 0 => {
            node.inputs.iter().any(|&input| {
                graph.shape(input) == graph.shape(value) && is_of_product(graph, input, depth - 1)
            })
        }
        _ => false,
    }
}

/// The softmax over rows, on the transposed operand.
pub(super) fn turned(graph: &mut Graph, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let rank = graph.shape(inputs[0]).rank();
    let x = transposed(graph, inputs[0], DEPTH)?;
    let greatest = reduce(graph, ReduceFn::Max, rank - 2, x)?;
    let shifted = binary(graph, BinaryFn::Sub, x, greatest)?;
    let exp = graph.add(Unary(UnaryFn::Exp), &[shifted])?;
    let sum = reduce(graph, ReduceFn::Sum, rank - 2, exp)?;
    let result = binary(graph, BinaryFn::Div, exp, sum)?;
    Ok(vec![swap_last(graph, result)?])
}

/// A value with its last two axes exchanged.
fn transposed(graph: &mut Graph, value: ValueId, depth: usize) -> Result<ValueId, GraphError> {
    let shape = graph.shape(value).clone();
    if shape.count() == 1 {
        return Ok(value);
    }
    if shape.rank() < 2 {
        // A row becomes a column.
        return insert_axis(graph, value, shape.rank());
    }
    let node = graph.producer(value).map(|id| graph.node(id).clone());
    if let Some(node) = node.filter(|_| is_of_product(graph, value, depth)) {
        if let Op::MatMul(product) = &node.op {
            let (a, b) = (node.inputs[0], node.inputs[1]);
            let rows = if product.transpose_b { b } else { swap_last(graph, b)? };
            return graph.add(MatMul { transpose_b: true, ..MatMul::default() }, &[rows, a]);
        }
        let inputs = node.inputs.iter().map(|&input| transposed(graph, input, depth - 1));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        return graph.add(node.op, &inputs);
    }
    swap_last(graph, value)
}
