//! Products whose columns no lanes divide: their weights are given columns of zeros, which nobody looks at.
//!
//! A vocabulary of 50,257 has no divisor that lanes could work on side by side. Zeros are packed with the weights; what is wanted of the
//! result is a view of it, which costs nothing.

use std::collections::HashSet;

use tcc_ir::ops::{Broadcast, Concat, Slice};
use tcc_ir::{DType, Graph, GraphError, Op, Shape, Tensor, ValueId};
use tcc_passes::{Verdict, integer_products, legalize};

/// Columns that weights are given are a multiple of so many.
const MULTIPLE: usize = 64;

/// Lanes that are enough: columns that are a multiple of these are left alone.
const ENOUGH: usize = 16;

/// Fewest columns that are worth it.
const FEWEST: usize = 256;

/// Values between weights and the constants that they follow from, at the most.
const CHAIN: usize = 32;

/// A graph that computes the same with columns in plenty, and in integers what it computes of integers.
///
/// # Errors
/// A defect.
pub(super) fn with_whole_tiles(graph: &Graph) -> Result<Graph, GraphError> {
    let is_odd = |graph: &Graph, op: &Op, inputs: &[ValueId]| match op {
        Op::MatMul(op) if !op.a_zero && !op.b_zero && odd_columns(graph, op.transpose_b, inputs).is_some() => {
            if is_plain(graph, inputs[1]) {
                Verdict::Rewrite(with_more_columns)
            } else {
                Verdict::Keep
            }
        }
        _ => Verdict::Keep,
    };
    legalize(integer_products(graph)?.as_ref(), &is_odd)
}

/// The axis of the columns of a product's B, and how many there are, if no lanes divide them.
fn odd_columns(graph: &Graph, transpose_b: bool, inputs: &[ValueId]) -> Option<(usize, usize)> {
    let weights = *inputs.get(1)?;
    let shape = graph.shape(weights);
    let axis = shape.rank().checked_sub(if transpose_b { 2 } else { 1 }).filter(|_| shape.rank() >= 2)?;
    let count = shape[axis];
    (count >= FEWEST && !count.is_multiple_of(ENOUGH)).then_some((axis, count))
}

/// Whether weights follow from constants, and not from fewer bits, which products may read as they are.
fn is_plain(graph: &Graph, weights: ValueId) -> bool {
    let (mut open, mut seen) = (vec![weights], HashSet::new());
    let is_float = graph.ty(weights).dtype.is_float();
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        if seen.len() > CHAIN
            || is_float && matches!(graph.ty(value).dtype, DType::I4 | DType::U4 | DType::I8 | DType::U8)
        {
            return false;
        }
        match graph.producer(value) {
            Some(node) => open.extend(&graph.node(node).inputs),
            None if graph.as_constant(value).is_some() => {}
            None => return false,
        }
    }
    true
}

fn with_more_columns(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let Op::MatMul(product) = op else { return Ok(vec![graph.add(op.clone(), inputs)?]) };
    let (&[a, weights], Some((axis, count))) = (inputs, odd_columns(graph, product.transpose_b, inputs)) else {
        return Ok(vec![graph.add(op.clone(), inputs)?]);
    };
    let defect = |graph: &Graph, error: tcc_ir::ShapeError| GraphError {
        origin: graph.origin().clone(),
        op: "matmul",
        error: error.into(),
    };
    let mut more = graph.shape(weights).to_vec();
    more[axis] = count.next_multiple_of(MULTIPLE) - count;
    let more = Shape::new(more).map_err(|error| defect(graph, error))?;
    let zero = graph.constant(Tensor::scalar_of(graph.ty(weights).dtype, 0.0));
    let zeros = graph.add(Broadcast { shape: more }, &[zero])?;
    let weights = graph.add(Concat { axis }, &[weights, zeros])?;
    let result = graph.add(*product, &[a, weights])?;
    let mut sizes = graph.shape(result).to_vec();
    let rank = sizes.len();
    sizes[rank - 1] = count;
    Ok(vec![graph.add(Slice { starts: vec![0; rank], steps: vec![1; rank], sizes }, &[result])?])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::ops::MatMul;
    use tcc_ir::{TensorType, evaluate};

    use super::*;

    #[test]
    fn columns_become_a_multiple_of_lanes() {
        for transpose_b in [false, true] {
            let mut graph = Graph::new("odd");
            let shape = |dims: &[usize]| Shape::new(dims.iter().copied()).unwrap();
            let x = graph.add_input("x", TensorType::new(DType::F32, shape(&[2, 3])));
            let dims = if transpose_b { [257, 3] } else { [3, 257] };
            let values = (0..3 * 257).map(|place| place as f32).collect::<Vec<_>>();
            let weights = graph.constant(Tensor::from_vec(shape(&dims), values).unwrap());
            let y = graph.add(MatMul { transpose_b, ..MatMul::default() }, &[x, weights]).unwrap();
            graph.add_output("y", y);
            let more = with_whole_tiles(&graph).unwrap();
            let products = more.nodes().filter(|(_, node)| matches!(node.op, Op::MatMul(_)));
            let columns: Vec<usize> = products.map(|(_, node)| more.shape(node.output())[1]).collect();
            assert_eq!(columns, [320]);
            let inputs = [Tensor::from_vec(shape(&[2, 3]), vec![1.0f32, 2.0, 3.0, -1.0, 0.5, 4.0]).unwrap()];
            let results = [&graph, &more].map(|graph| evaluate(graph, &inputs).unwrap()[0].to_f64s().unwrap());
            assert_eq!(results[0], results[1]);
            // What is a multiple already stays as it is.
            assert_eq!(with_whole_tiles(&more).unwrap().node_count(), more.node_count());
        }
    }
}
