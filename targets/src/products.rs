//! Products of matrices in other terms: rewrites that machines share which do not multiply every pair of types as it is.
//! Given anything but a product, they leave it as it is.

use tcc_ir::ops::{Binary, BinaryFn, Cast, MatMul};
use tcc_ir::{DType, Graph, GraphError, Op, Tensor, ValueId};

/// Whether a tensor is known to hold nothing but integer zeros.
pub(crate) fn is_zero(tensor: Option<&Tensor>) -> bool {
    tensor.and_then(|tensor| tensor.to_i64s().ok().flatten()).is_some_and(|values| values.iter().all(|&x| x == 0))
}

/// The value in another type.
pub(crate) fn cast(graph: &mut Graph, value: ValueId, to: DType) -> Result<ValueId, GraphError> {
    if graph.ty(value).dtype == to { Ok(value) } else { graph.add(Cast { to }, &[value]) }
}

/// The zero points of A and of B among the operands of a product.
pub(crate) fn zero_points(product: &MatMul, inputs: &[ValueId]) -> [Option<ValueId>; 2] {
    let mut zeros = inputs[2..].iter().copied();
    [product.a_zero, product.b_zero].map(|there| if there { zeros.next() } else { None })
}

/// The same product without the zero points that are zero.
pub(crate) fn drop_zeros(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let Op::MatMul(product) = op else { return Ok(graph.add_multi(op.clone(), inputs)?.to_vec()) };
    let kept = zero_points(product, inputs).map(|zero| zero.filter(|&zero| !is_zero(graph.as_constant(zero))));
    let product = MatMul { a_zero: kept[0].is_some(), b_zero: kept[1].is_some(), ..*product };
    let operands: Vec<ValueId> = inputs[..2].iter().copied().chain(kept.into_iter().flatten()).collect();
    Ok(vec![graph.add(product, &operands)?])
}

/// The product of floats converted to binary32.
pub(crate) fn multiply_in_binary32(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let to = graph.ty(inputs[0]).dtype;
    let wide = inputs.iter().map(|&input| cast(graph, input, DType::F32)).collect::<Result<Vec<_>, _>>()?;
    let product = graph.add(op.clone(), &wide)?;
    Ok(vec![cast(graph, product, to)?])
}

/// The product of operands converted to the type of the result, less their zero points.
pub(crate) fn widen(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let Op::MatMul(product) = op else { return Ok(graph.add_multi(op.clone(), inputs)?.to_vec()) };
    let to = MatMul::result_dtype(graph.ty(inputs[0]).dtype);
    let mut operands = Vec::with_capacity(2);
    for (&operand, zero) in inputs[..2].iter().zip(zero_points(product, inputs)) {
        let mut wide = cast(graph, operand, to)?;
        if let Some(zero) = zero {
            let zero = cast(graph, zero, to)?;
            wide = graph.add(Binary(BinaryFn::Sub), &[wide, zero])?;
        }
        operands.push(wide);
    }
    let product = MatMul { a_zero: false, b_zero: false, ..*product };
    Ok(vec![graph.add(product, &operands)?])
}
