//! Softmax over the columns of a product.
//!
//! Along lanes, a maximum and a sum take the vector through the switch unit; along rows, they are running results of an ALU. A
//! product gives its transposed for nothing, as what is held and what is streamed change places. So the softmax of a product's
//! rows is computed on the transposed product, and only its result is transposed.

use tcc_ir::ops::{BinaryFn, MatMul, ReduceFn, Softmax, Transpose, Unary, UnaryFn};
use tcc_ir::{Def, Graph, GraphError, Op, ValueId};

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
        Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_) if depth > 0 => node
            .inputs
            .iter()
            .any(|&input| graph.shape(input) == graph.shape(value) && is_of_product(graph, input, depth - 1)),
        _ => false,
    }
}

/// The softmax over rows, on the transposed operand. [`turn_products`] then finds its product.
pub(super) fn turned(graph: &mut Graph, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let rank = graph.shape(inputs[0]).rank();
    let x = swap_last(graph, inputs[0])?;
    let greatest = reduce(graph, ReduceFn::Max, rank - 2, x)?;
    let shifted = binary(graph, BinaryFn::Sub, x, greatest)?;
    let exp = graph.add(Unary(UnaryFn::Exp), &[shifted])?;
    let sum = reduce(graph, ReduceFn::Sum, rank - 2, exp)?;
    let result = binary(graph, BinaryFn::Div, exp, sum)?;
    Ok(vec![swap_last(graph, result)?])
}

/// The graph in which transposed products, and what is element-wise between, are products of what changes places.
///
/// # Errors
/// A defect: an operator does not take what it took before.
pub(super) fn turn_products(graph: &Graph) -> Result<Graph, GraphError> {
    let mut turned = Graph::new(graph.name().clone());
    let mut map: Vec<ValueId> = Vec::with_capacity(graph.value_count());
    for (_, value) in graph.values() {
        let node = match &value.def {
            Def::Input(_) => {
                map.push(turned.add_input(value.name.clone(), value.ty.clone()));
                continue;
            }
            Def::Constant(tensor) => {
                map.push(turned.add_constant(value.name.clone(), tensor.clone()));
                continue;
            }
            Def::Node { output, .. } if *output > 0 => continue,
            Def::Node { node, .. } => graph.node(*node),
        };
        turned.set_origin(node.origin.clone());
        let results = match &node.op {
            Op::Transpose(Transpose { perm })
                if exchanges_last(perm) && is_of_product(graph, node.inputs[0], DEPTH) =>
            {
                vec![transposed(graph, &mut turned, &map, node.inputs[0], DEPTH)?]
            }
            _ => {
                let inputs: Vec<ValueId> = node.inputs.iter().map(|input| map[input.index()]).collect();
                turned.add_multi(node.op.clone(), &inputs)?.to_vec()
            }
        };
        for (&old, &new) in node.outputs.iter().zip(&results) {
            turned.rename(new, graph.value(old).name.clone());
        }
        map.extend(results);
    }
    for output in graph.outputs() {
        turned.add_output(output.name.clone(), map[output.value.index()]);
    }
    Ok(turned)
}

/// Whether a permutation exchanges the last two axes and nothing else.
fn exchanges_last(perm: &[usize]) -> bool {
    let [leading @ .., first, second] = perm else { return false };
    let rank = perm.len();
    leading.iter().enumerate().all(|(axis, &from)| axis == from) && (*first, *second) == (rank - 1, rank - 2)
}

/// A value of `graph` with its last two axes exchanged, in the graph that is written.
fn transposed(
    graph: &Graph,
    turned: &mut Graph,
    map: &[ValueId],
    value: ValueId,
    depth: usize,
) -> Result<ValueId, GraphError> {
    let (shape, own) = (graph.shape(value), map[value.index()]);
    if shape.count() == 1 {
        return Ok(own);
    }
    if shape.rank() < 2 {
        // A row becomes a column.
        return insert_axis(turned, own, shape.rank());
    }
    let Some(node) = graph.producer(value).map(|id| graph.node(id)).filter(|_| is_of_product(graph, value, depth))
    else {
        return swap_last(turned, own);
    };
    if let Op::MatMul(product) = &node.op {
        let (a, b) = (map[node.inputs[0].index()], map[node.inputs[1].index()]);
        let rows = if product.transpose_b { b } else { swap_last(turned, b)? };
        return turned.add(MatMul { transpose_b: true, ..MatMul::default() }, &[rows, a]);
    }
    let inputs = node.inputs.iter().map(|&input| transposed(graph, turned, map, input, depth.saturating_sub(1)));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    turned.add(node.op.clone(), &inputs)
}
