//! Integer products: a product or convolution of two dequantised operands becomes an integer one that is scaled
//! afterwards.
//!
//! `(a - za)·sa · (b - zb)·sb` summed over K is `sa·sb` times the integer sum, if neither scale changes along K. Models
//! that are quantised by inserting QuantizeLinear and DequantizeLinear around float operators get their integer
//! arithmetic back this way. The integer sum is exact, so the result differs from the float one by rounding only: by
//! less, as long as the sum fits in 32 bits, which K of up to 33,026 guarantees for 8-bit operands, and 131,071 for signed
//! ones without zero points.

use std::borrow::Cow;

use tcc_ir::ops::{Binary, BinaryFn, Cast, Conv, Dequantize, MatMul, Reshape};
use tcc_ir::{DType, Def, Graph, GraphError, Node, Op, Shape, ValueId, is_view};

use crate::cleanup::clean_up;

/// Whether as many products of integers of at most these sizes have a sum of 32 bits.
pub(crate) fn fits_i32(products: usize, a: u64, b: u64) -> bool {
    (products as u64).saturating_mul(a * b) <= i32::MAX as u64
}

/// Rewrites every product and convolution of two dequantised 8-bit operands with scales that do not change along K. A graph
/// without any stays as it is.
pub fn integer_products(graph: &Graph) -> Result<Cow<'_, Graph>, GraphError> {
    if !graph.nodes().any(|(_, node)| matches!(node.op, Op::Dequantize(_))) {
        return Ok(Cow::Borrowed(graph));
    }
    let mut rewritten = Graph::new(graph.name().clone());
    let mut map: Vec<ValueId> = Vec::with_capacity(graph.value_count());
    for (id, value) in graph.values() {
        let new = match &value.def {
            Def::Input(_) => rewritten.add_input(value.name.clone(), value.ty.clone()),
            Def::Constant(tensor) => rewritten.add_constant(value.name.clone(), tensor.clone()),
            Def::Node { output, .. } if *output > 0 => continue,
            Def::Node { node, .. } => {
                let node = graph.node(*node);
                rewritten.set_origin(node.origin.clone());
                let product = match &node.op {
                    Op::MatMul(op) if !op.a_zero && !op.b_zero => {
                        integer_product(graph, &mut rewritten, &map, node, *op)?
                    }
                    Op::Conv(op) if !op.x_zero && !op.w_zero => {
                        integer_convolution(graph, &mut rewritten, &map, node, op)?
                    }
                    _ => None,
                };
                let results = match product {
                    Some(product) => vec![product],
                    None => {
                        let inputs: Vec<ValueId> = node.inputs.iter().map(|input| map[input.index()]).collect();
                        rewritten.add_multi(node.op.clone(), &inputs)?.to_vec()
                    }
                };
                for (&old, &result) in node.outputs.iter().zip(&results) {
                    rewritten.rename(result, graph.value(old).name.clone());
                }
                map.extend(results);
                continue;
            }
        };
        debug_assert_eq!(id.index(), map.len());
        map.push(new);
    }
    for output in graph.outputs() {
        rewritten.add_output(output.name.clone(), map[output.value.index()]);
    }
    Ok(Cow::Owned(clean_up(&rewritten)))
}

/// A dequantised operand, seen through views.
struct Quantized {
    /// The integers, in the shape of the operand.
    integers: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    /// The largest absolute value that an integer less its zero point can have.
    largest: u64,
}

fn integer_product(
    old: &Graph,
    new: &mut Graph,
    map: &[ValueId],
    node: &Node,
    op: MatMul,
) -> Result<Option<ValueId>, GraphError> {
    let types = [old.ty(node.inputs[0]), old.ty(node.inputs[1])];
    let Ok(dims) = op.dims(types[0], types[1]) else { return Ok(None) };
    if old.ty(node.output()).dtype != DType::F32 {
        return Ok(None);
    }
    // K is the last axis of an operand, or the last but one.
    let constant_along = |k_last: bool| {
        let from_end = if k_last { 1 } else { 2 };
        move |shape: &Shape| shape.rank().checked_sub(from_end).is_none_or(|axis| shape[axis] == 1)
    };
    let Some(a) = quantized(old, new, map, node.inputs[0], &constant_along(!op.transpose_a))? else { return Ok(None) };
    let Some(b) = quantized(old, new, map, node.inputs[1], &constant_along(op.transpose_b))? else { return Ok(None) };
    if !fits_i32(dims.k, a.largest, b.largest) {
        return Ok(None);
    }
    let product = MatMul { a_zero: a.zero.is_some(), b_zero: b.zero.is_some(), ..op };
    let operands: Vec<ValueId> = [Some(a.integers), Some(b.integers), a.zero, b.zero].into_iter().flatten().collect();
    let sum = new.add(product, &operands)?;
    let sum = new.add(Cast { to: DType::F32 }, &[sum])?;
    // Along M and N the scales of A and B lie as the product's rows and columns do.
    let a_scale = turned(new, a.scale, op.transpose_a)?;
    let b_scale = turned(new, b.scale, op.transpose_b)?;
    scaled(new, sum, a_scale, b_scale)
}

/// Brings a scale that lies as a transposed operand into the order of rows and columns. One of its last two extents is
/// 1, so that this is a reshape.
fn turned(graph: &mut Graph, scale: ValueId, transposed: bool) -> Result<ValueId, GraphError> {
    let mut dims = graph.shape(scale).to_vec();
    let rank = dims.len();
    if !transposed || rank < 2 {
        return Ok(scale);
    }
    dims.swap(rank - 2, rank - 1);
    let shape = Shape::new(dims).map_err(|error| GraphError {
        origin: graph.origin().clone(),
        op: "reshape",
        error: error.into(),
    })?;
    graph.add(Reshape { shape }, &[scale])
}

/// Scales may differ from image to image, and from filter to filter.
fn integer_convolution(
    old: &Graph,
    new: &mut Graph,
    map: &[ValueId],
    node: &Node,
    op: &Conv,
) -> Result<Option<ValueId>, GraphError> {
    let filters = old.shape(node.inputs[1]);
    let (rank, m) = (filters.rank(), filters[0]);
    if old.ty(node.output()).dtype != DType::F32 {
        return Ok(None);
    }
    // Images and filters are the first axes of what holds them.
    let by_first = |shape: &Shape| shape.rank() == rank && shape[1..].iter().all(|&dim| dim == 1);
    let Some(x) = quantized(old, new, map, node.inputs[0], &by_first)? else { return Ok(None) };
    let Some(w) = quantized(old, new, map, node.inputs[1], &by_first)? else { return Ok(None) };
    if x.zero.is_some_and(|zero| new.shape(zero).count() > 1) {
        return Ok(None);
    }
    if !fits_i32(filters[1..].iter().product(), x.largest, w.largest) {
        return Ok(None);
    }
    let mut laid = |value: ValueId, spatial: usize| -> Result<ValueId, GraphError> {
        if new.shape(value).count() == 1 {
            return Ok(value);
        }
        let shape = Shape::new([m].into_iter().chain(std::iter::repeat_n(1, spatial)));
        let shape =
            shape.map_err(|error| GraphError { origin: new.origin().clone(), op: "reshape", error: error.into() })?;
        new.add(Reshape { shape }, &[value])
    };
    let w_zero = w.zero.map(|zero| laid(zero, 0)).transpose()?;
    let w_scale = laid(w.scale, rank - 2)?;
    let convolution = Conv { x_zero: x.zero.is_some(), w_zero: w_zero.is_some(), ..op.clone() };
    let operands: Vec<ValueId> = [Some(x.integers), Some(w.integers), x.zero, w_zero].into_iter().flatten().collect();
    let sum = new.add(convolution, &operands)?;
    let sum = new.add(Cast { to: DType::F32 }, &[sum])?;
    scaled(new, sum, x.scale, w_scale)
}

/// A sum times both scales of its operands.
fn scaled(graph: &mut Graph, sum: ValueId, a: ValueId, b: ValueId) -> Result<Option<ValueId>, GraphError> {
    if graph.shape(a).count() > 1 && graph.shape(b).count() > 1 {
        // Their product would be as large as the result.
        let by_b = graph.add(Binary(BinaryFn::Mul), &[sum, b])?;
        return Ok(Some(graph.add(Binary(BinaryFn::Mul), &[by_b, a])?));
    }
    let scale = graph.add(Binary(BinaryFn::Mul), &[a, b])?;
    Ok(Some(graph.add(Binary(BinaryFn::Mul), &[sum, scale])?))
}

/// The integers behind a float operand, if it is dequantised from 8-bit ones with a scale and zero point of one value, or
/// of a shape that is `allowed`.
fn quantized(
    old: &Graph,
    new: &mut Graph,
    map: &[ValueId],
    operand: ValueId,
    allowed: &dyn Fn(&Shape) -> bool,
) -> Result<Option<Quantized>, GraphError> {
    // Views on the way are laid over the integers instead, where one scale serves all elements.
    let mut views: Vec<&Node> = Vec::new();
    let mut value = operand;
    let (dequantize, op): (&Node, Dequantize) = loop {
        let Some(node) = old.producer(value).map(|id| old.node(id)) else { return Ok(None) };
        match &node.op {
            Op::Dequantize(op) => break (node, *op),
            op if is_view(op) => {
                views.push(node);
                value = node.inputs[0];
            }
            _ => return Ok(None),
        }
    };
    let (integers, scale) = (dequantize.inputs[0], dequantize.inputs[1]);
    let zero = if op.zero { Some(dequantize.inputs[2]) } else { None };
    if !matches!(old.ty(integers).dtype, DType::I8 | DType::U8) {
        return Ok(None);
    }
    let shape = old.shape(operand);
    let single = |value: ValueId| old.shape(value).count() == 1;
    let allowed = |value: ValueId| single(value) || allowed(old.shape(value));
    let whole = single(scale) && zero.is_none_or(single);
    if !(whole || (views.is_empty() && allowed(scale) && zero.is_none_or(allowed))) || shape.rank() < 2 {
        return Ok(None);
    }
    let mut laid = map[integers.index()];
    for view in views.into_iter().rev() {
        laid = new.add(view.op.clone(), &[laid])?;
    }
    let mut flat = |value: ValueId| -> Result<ValueId, GraphError> {
        let value_new = map[value.index()];
        if single(value) && old.shape(value).rank() > 0 {
            new.add(Reshape { shape: Shape::scalar() }, &[value_new])
        } else {
            Ok(value_new)
        }
    };
    let scale = flat(scale)?;
    let zero = zero.map(flat).transpose()?;
    let largest = if zero.is_none() && old.ty(integers).dtype == DType::I8 { 128 } else { 255 };
    Ok(Some(Quantized { integers: laid, scale, zero, largest }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::ops::Transpose;
    use tcc_ir::{Tensor, TensorType, evaluate};

    use super::*;

    /// Numbers that are spread over 0..256 and always the same.
    fn bytes(seed: u64, count: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims.iter().copied()).unwrap()
    }

    /// A dequantised input: `parameters` is the shape of its scales and zero points.
    fn operand(graph: &mut Graph, name: &str, dtype: DType, dims: &[usize], parameters: &[usize]) -> ValueId {
        let x = graph.add_input(name, TensorType::new(dtype, shape(dims)));
        let count = parameters.iter().product();
        let scales = (0..count).map(|index| 0.01 + 0.003 * index as f32).collect();
        let scale = graph.constant(Tensor::from_vec(shape(parameters), scales).unwrap());
        let zeros = bytes(7, count);
        let zero = match dtype {
            DType::U8 => Tensor::from_vec(shape(parameters), zeros).unwrap(),
            _ => Tensor::from_vec(shape(parameters), zeros.iter().map(|&zero| zero as i8).collect()).unwrap(),
        };
        let zero = graph.constant(zero);
        graph.add(Dequantize { zero: true }, &[x, scale, zero]).unwrap()
    }

    /// How many contractions of integers there are after the pass, which must not change what the graph computes.
    fn integer_contractions(graph: &Graph) -> usize {
        let inputs: Vec<Tensor> = graph
            .inputs()
            .iter()
            .enumerate()
            .map(|(index, &input)| {
                let ty = graph.ty(input);
                let values = bytes(index as u64 + 1, ty.shape.count());
                match ty.dtype {
                    DType::U8 => Tensor::from_vec(ty.shape.clone(), values).unwrap(),
                    _ => Tensor::from_vec(ty.shape.clone(), values.iter().map(|&x| x as i8).collect()).unwrap(),
                }
            })
            .collect();
        let rewritten = integer_products(graph).unwrap();
        let (before, after) = (evaluate(graph, &inputs).unwrap(), evaluate(&rewritten, &inputs).unwrap());
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.ty(), after.ty());
            let (before, after) = (before.to_f64s().unwrap(), after.to_f64s().unwrap());
            let largest = before.iter().fold(0f64, |most, x| most.max(x.abs()));
            assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() <= 1e-6 * largest), "{before:?} {after:?}");
        }
        let integer = |node: &Node| {
            matches!(node.op, Op::MatMul(_) | Op::Conv(_)) && rewritten.ty(node.output()).dtype == DType::I32
        };
        rewritten.nodes().filter(|(_, node)| integer(node)).count()
    }

    #[test]
    fn products_with_scales_that_do_not_change_along_k() {
        for (b_scales, transpose_b, expected) in
            [(&[][..], false, 1), (&[1, 6], false, 1), (&[5, 1], false, 0), (&[6, 1], true, 1), (&[1, 5], true, 0)]
        {
            let mut graph = Graph::new("g");
            let a = operand(&mut graph, "a", DType::U8, &[2, 3, 5], &[1]);
            let b_dims = if transpose_b { [6, 5] } else { [5, 6] };
            let b = operand(&mut graph, "b", DType::I8, &b_dims, b_scales);
            let y = graph.add(MatMul { transpose_b, ..MatMul::default() }, &[a, b]).unwrap();
            graph.add_output("y", y);
            assert_eq!(integer_contractions(&graph), expected, "{b_scales:?} {transpose_b}");
        }
    }

    #[test]
    fn views_between_are_laid_over_the_integers() {
        let mut graph = Graph::new("g");
        let a = operand(&mut graph, "a", DType::U8, &[3, 5], &[]);
        let b = operand(&mut graph, "b", DType::I8, &[6, 5], &[]);
        let b = graph.add(Transpose { perm: vec![1, 0] }, &[b]).unwrap();
        let y = graph.add(MatMul::default(), &[a, b]).unwrap();
        graph.add_output("y", y);
        assert_eq!(integer_contractions(&graph), 1);
    }

    #[test]
    fn convolutions_with_scales_of_filters() {
        for (scales, groups, expected) in
            [(&[][..], 1, 1), (&[4, 1, 1, 1], 1, 1), (&[4, 1, 1, 1], 2, 1), (&[1, 2, 1, 1], 2, 0)]
        {
            let mut graph = Graph::new("g");
            let x = operand(&mut graph, "x", DType::U8, &[2, 4, 5, 6], &[1]);
            let w = operand(&mut graph, "w", DType::I8, &[4, 4 / groups, 3, 2], scales);
            let conv = Conv {
                strides: vec![2, 1],
                low: vec![1, 0],
                high: vec![1, 1],
                dilations: vec![1, 2],
                groups,
                x_zero: false,
                w_zero: false,
            };
            let y = graph.add(conv, &[x, w]).unwrap();
            graph.add_output("y", y);
            assert_eq!(integer_contractions(&graph), expected, "{scales:?} {groups}");
        }
    }
}
