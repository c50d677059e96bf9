//! Products of matrices.
//!
//! The matrix units multiply halves, with sums in binary32, and bytes with and without sign, exactly, less nothing: what zero
//! points would take off is taken off the sums. Other types are converted where that changes no number, and are else
//! multiplied by the vector unit, element by element.

use tcc_ir::ops::{BinaryFn, MatMul, ReduceFn};
use tcc_ir::{DType, Graph, GraphError, Tensor, TensorType, ValueId};

use super::parts::{binary, drop_axis, insert_axis, reduce, reshape, swap_last};
use crate::products::{cast, drop_zeros, is_zero, multiply_in_binary32, widen, zero_points};

/// One step on the way from a product to what the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Forget zero points that are zero.
    DropZeros,
    /// Turn an A that is stored by columns.
    TurnA,
    /// Multiply a column by a row element by element, which rounds no operand.
    Outer,
    /// Convert floats to binary32.
    ToBinary32,
    /// Convert 4-bit integers to bytes.
    ToBytes,
    /// Take zero points off the sums.
    CorrectSums,
    /// Convert integers to the type of the result, and take zero points off them.
    Widen,
    /// Multiply and add on the vector unit.
    ElementWise,
}

/// The next step for a product; `None` if the machine runs it.
pub(super) fn next_step(graph: &Graph, product: &MatMul, inputs: &[ValueId]) -> Option<Step> {
    let (a, b) = (graph.ty(inputs[0]), graph.ty(inputs[1]));
    let zeros = &inputs[2..];
    if zeros.iter().any(|&zero| is_zero(graph.as_constant(zero))) {
        return Some(Step::DropZeros);
    }
    if product.transpose_a {
        return Some(Step::TurnA);
    }
    if a.dtype.is_float() {
        let outer = a.shape.last() == Some(&1);
        return match a.dtype {
            _ if outer => Some(Step::Outer),
            DType::F16 | DType::F32 => None,
            _ if on_vector_unit(a.dtype, b.dtype) => Some(Step::ElementWise),
            _ => Some(Step::ToBinary32),
        };
    }
    match (a.dtype.bits(), b.dtype.bits(), zeros) {
        (8, 8, []) => None,
        (8, 8, _) => Some(Step::CorrectSums),
        (4 | 8, 4 | 8, _) => Some(Step::ToBytes),
        (_, _, []) if a.dtype == b.dtype && MatMul::result_dtype(a.dtype) == a.dtype => Some(Step::ElementWise),
        _ => Some(Step::Widen),
    }
}

/// Whether operands of these types are multiplied element by element.
pub(super) fn on_vector_unit(a: DType, b: DType) -> bool {
    if a.is_float() { a == DType::F64 } else { a.bits() > 8 || b.bits() > 8 }
}

/// Takes the next step.
pub(super) fn mat_mul(graph: &mut Graph, product: &MatMul, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let op = (*product).into();
    let result = match next_step(graph, product, inputs) {
        None => graph.add(*product, inputs)?,
        Some(Step::DropZeros) => return drop_zeros(graph, &op, inputs),
        Some(Step::ToBinary32) => return multiply_in_binary32(graph, &op, inputs),
        Some(Step::Widen) => return widen(graph, &op, inputs),
        Some(Step::TurnA) => turn_a(graph, product, inputs)?,
        Some(Step::Outer) => outer(graph, product, inputs)?,
        Some(Step::ToBytes) => to_bytes(graph, product, inputs)?,
        Some(Step::CorrectSums) => correct_sums(graph, product, inputs)?,
        Some(Step::ElementWise) => element_wise(graph, product, inputs)?,
    };
    Ok(vec![result])
}

/// Exchanges the last two extents of a value, of which one is 1. A vector is a row.
fn turn_vector(graph: &mut Graph, value: ValueId) -> Result<ValueId, GraphError> {
    let dims = match graph.shape(value).dims() {
        [] => return Ok(value),
        &[columns] => vec![columns, 1],
        [lead @ .., rows, columns] => lead.iter().chain([columns, rows]).copied().collect(),
    };
    reshape(graph, value, dims)
}

fn turn_a(graph: &mut Graph, product: &MatMul, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
    let [a_zero, b_zero] = zero_points(product, inputs);
    let a = swap_last(graph, inputs[0])?;
    // A zero point is the same for all of K, so that it is a vector.
    let a_zero = a_zero.map(|zero| turn_vector(graph, zero)).transpose()?;
    let operands: Vec<ValueId> = [Some(a), Some(inputs[1]), a_zero, b_zero].into_iter().flatten().collect();
    graph.add(MatMul { transpose_a: false, ..*product }, &operands)
}

fn outer(graph: &mut Graph, product: &MatMul, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
    let row = if product.transpose_b { turn_vector(graph, inputs[1])? } else { inputs[1] };
    binary(graph, BinaryFn::Mul, inputs[0], row)
}

fn to_bytes(graph: &mut Graph, product: &MatMul, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
    let byte = |graph: &mut Graph, value: ValueId| match graph.ty(value).dtype {
        DType::I4 => cast(graph, value, DType::I8),
        DType::U4 => cast(graph, value, DType::U8),
        _ => Ok(value),
    };
    let bytes = inputs.iter().map(|&input| byte(graph, input)).collect::<Result<Vec<_>, _>>()?;
    graph.add(*product, &bytes)
}

/// `Σ (a − za)(b − zb)` as `Σ ab − za (Σ b − K zb) − zb Σ a`, in i32, which wraps as the product does. What is in brackets
/// follows from weights alone where B holds them.
fn correct_sums(graph: &mut Graph, product: &MatMul, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
    let (a, b) = (inputs[0], inputs[1]);
    let plain = MatMul { a_zero: false, b_zero: false, ..*product };
    let mut sums = graph.add(plain, &[a, b])?;
    let [a_zero, b_zero] = zero_points(product, inputs);
    let b_zero = match b_zero {
        None => None,
        Some(zero) => {
            let zero = cast(graph, zero, DType::I32)?;
            Some(if product.transpose_b { turn_vector(graph, zero)? } else { zero })
        }
    };
    if let Some(zero) = a_zero {
        let TensorType { shape, .. } = graph.ty(b);
        let axis = shape.rank() - if product.transpose_b { 1 } else { 2 };
        let k = shape[axis];
        let wide = cast(graph, b, DType::I32)?;
        let mut columns = reduce(graph, ReduceFn::Sum, axis, wide)?;
        if product.transpose_b {
            columns = turn_vector(graph, columns)?;
        }
        if let Some(b_zero) = b_zero {
            let k = graph.constant(Tensor::scalar(k as i32));
            let zeros = binary(graph, BinaryFn::Mul, b_zero, k)?;
            columns = binary(graph, BinaryFn::Sub, columns, zeros)?;
        }
        let zero = cast(graph, zero, DType::I32)?;
        let excess = binary(graph, BinaryFn::Mul, zero, columns)?;
        sums = binary(graph, BinaryFn::Sub, sums, excess)?;
    }
    if let Some(zero) = b_zero {
        let wide = cast(graph, a, DType::I32)?;
        let axis = graph.shape(a).rank() - 1;
        let rows = reduce(graph, ReduceFn::Sum, axis, wide)?;
        let excess = binary(graph, BinaryFn::Mul, rows, zero)?;
        sums = binary(graph, BinaryFn::Sub, sums, excess)?;
    }
    Ok(sums)
}

/// All products, and their sums along K, which lies where B has it: neither operand is turned.
fn element_wise(graph: &mut Graph, product: &MatMul, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
    let (a_rank, b_rank) = (graph.shape(inputs[0]).rank(), graph.shape(inputs[1]).rank());
    // [.., m, 1, k] by [.., 1, n, k], or [.., m, k, 1] by [.., 1, k, n].
    let a = insert_axis(graph, inputs[0], if product.transpose_b { a_rank - 1 } else { a_rank })?;
    let b = insert_axis(graph, inputs[1], b_rank - 2)?;
    let products = binary(graph, BinaryFn::Mul, a, b)?;
    let axis = graph.shape(products).rank() - if product.transpose_b { 1 } else { 2 };
    let sums = reduce(graph, ReduceFn::Sum, axis, products)?;
    drop_axis(graph, sums, axis)
}
