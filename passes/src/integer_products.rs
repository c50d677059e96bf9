//! Integer products: a product of two dequantised operands becomes an integer product that is scaled afterwards.
//!
//! `(a - za)·sa · (b - zb)·sb` summed over K is `sa·sb` times the integer sum, if neither scale changes along K. Models
//! that are quantised by inserting QuantizeLinear and DequantizeLinear around float operators get their integer
//! arithmetic back this way. The integer sum is exact, so the result differs from the float one by rounding only: by
//! less, as long as the sum fits in 32 bits, which K of at most 2^15 guarantees for 8-bit operands.

use tcc_ir::ops::{Binary, BinaryFn, Cast, Dequantize, MatMul, Reshape};
use tcc_ir::{DType, Def, Graph, GraphError, Node, Op, Shape, ValueId, is_view};

/// Longest K-dimension: 2^15 products of 9-bit by 9-bit numbers stay below 2^31.
const MAX_K: usize = 1 << 15;

/// Rewrites every product of two dequantised 8-bit operands with scales that do not change along K.
pub fn integer_products(graph: &Graph) -> Result<Graph, GraphError> {
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
    Ok(rewritten)
}

/// A dequantised operand, seen through views.
struct Quantized {
    /// The integers, in the shape of the operand.
    integers: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
}

fn integer_product(
    old: &Graph,
    new: &mut Graph,
    map: &[ValueId],
    node: &Node,
    op: MatMul,
) -> Result<Option<ValueId>, GraphError> {
    let types = [old.ty(node.inputs[0]), old.ty(node.inputs[1])];
    let fits = op.dims(types[0], types[1]).is_ok_and(|dims| dims.k <= MAX_K);
    if !fits || old.ty(node.output()).dtype != DType::F32 {
        return Ok(None);
    }
    let Some(a) = quantized(old, new, map, node.inputs[0], !op.transpose_a)? else { return Ok(None) };
    let Some(b) = quantized(old, new, map, node.inputs[1], op.transpose_b)? else { return Ok(None) };
    let product = MatMul { a_zero: a.zero.is_some(), b_zero: b.zero.is_some(), ..op };
    let operands: Vec<ValueId> = [Some(a.integers), Some(b.integers), a.zero, b.zero].into_iter().flatten().collect();
    let sum = new.add(product, &operands)?;
    let sum = new.add(Cast { to: DType::F32 }, &[sum])?;
    // Along M and N the scales of A and B lie as the product's rows and columns do.
    let a_scale = turned(new, a.scale, op.transpose_a)?;
    let b_scale = turned(new, b.scale, op.transpose_b)?;
    let scale = new.add(Binary(BinaryFn::Mul), &[a_scale, b_scale])?;
    Ok(Some(new.add(Binary(BinaryFn::Mul), &[sum, scale])?))
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

/// The integers behind a float operand, if it is dequantised from 8-bit ones with a scale and zero point that do not
/// change along K, which is the last axis if `k_last`, else the last but one.
fn quantized(
    old: &Graph,
    new: &mut Graph,
    map: &[ValueId],
    operand: ValueId,
    k_last: bool,
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
    let along_k = |value: ValueId| {
        let own = old.shape(value);
        let from_end = if k_last { 1 } else { 2 };
        single(value) || own.rank().checked_sub(from_end).is_none_or(|axis| own[axis] == 1)
    };
    let whole = single(scale) && zero.is_none_or(single);
    if !(whole || (views.is_empty() && along_k(scale) && zero.is_none_or(along_k))) || shape.rank() < 2 {
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
    Ok(Some(Quantized { integers: laid, scale, zero }))
}
