//! Constants, and operators whose result follows from shapes: most of what exporters leave of their shape arithmetic.

use tcc_ir::{DType, Shape, Tensor, TensorType, ValueId, Values};

use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("Constant", constant),
    onnx("ConstantOfShape", constant_of_shape),
    onnx("Dropout", dropout),
    onnx("Identity", |cx| Ok(vec![cx.input(0)?])),
    onnx("NonZero", non_zero),
    onnx("Range", range),
    onnx("Shape", shape),
    onnx("Size", size),
];

/// Most elements of a `Range`: beyond any vocabulary or context.
const MAX_RANGE: usize = 1 << 24;

fn constant(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let tensor = if let Some(tensor) = cx.tensor("value")? {
        tensor
    } else if let Some(value) = cx.float("value_float")? {
        Tensor::scalar(value)
    } else if let Some(value) = cx.int("value_int")? {
        Tensor::scalar(value)
    } else if let Some(values) = cx.floats("value_floats")? {
        Tensor::from_vec(Shape::vector(values.len()), values.to_vec())?
    } else if let Some(values) = cx.ints("value_ints")? {
        Tensor::vector_i64(values.to_vec())
    } else if let Some(other) = ["sparse_value", "value_string", "value_strings"].iter().find(|n| cx.has_attribute(n)) {
        return Err(LowerError::unsupported(format!("constants given as `{other}` are not supported")));
    } else {
        return Err(LowerError::Attribute { name: "value".to_owned(), expected: "given".to_owned() });
    };
    Ok(vec![cx.constant(tensor)])
}

fn constant_of_shape(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let dims = extents(&cx.const_i64s(0)?)?;
    let value = match cx.tensor("value")? {
        Some(tensor) if tensor.shape().count() == 1 => tensor.reshaped(Shape::scalar())?,
        Some(tensor) => return Err(LowerError::invalid(format!("`value` must hold one element, but is {}", tensor.ty()))),
        None => Tensor::scalar(0f32),
    };
    let value = cx.constant(value);
    Ok(vec![cx.broadcast(value, &dims)?])
}

fn extents(dims: &[i64]) -> Result<Vec<usize>, LowerError> {
    let extent = |&dim: &i64| usize::try_from(dim).map_err(|_| LowerError::invalid(format!("extent {dim} is negative")));
    dims.iter().map(extent).collect()
}

/// Inference: the input as it is, and a mask that keeps everything.
fn dropout(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let training = match cx.optional(2) {
        Some(_) => cx.const_tensor(2)?.to_f64s()?.iter().any(|&flag| flag != 0.0),
        None => false,
    };
    // ONNX's default for a ratio that is left out.
    let ratio = match cx.optional(1) {
        Some(_) if training => cx.const_tensor(1)?.to_f64s()?.first().copied().unwrap_or(0.5),
        _ => 0.5,
    };
    if training && ratio != 0.0 {
        return Err(LowerError::unsupported("dropout in training mode is random; export the model for inference"));
    }
    let mut outputs = vec![x];
    if cx.wants(1) {
        let dims = cx.shape(x).to_vec();
        // Before opset 10 the mask had the type of the data.
        let dtype = if cx.opset() < 10 { cx.dtype(x) } else { DType::Bool };
        let keep = cx.constant(Tensor::scalar_of(dtype, 1.0));
        outputs.push(cx.broadcast(keep, &dims)?);
    }
    Ok(outputs)
}

fn shape(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let dims: Vec<i64> = cx.shape(x).iter().map(|&dim| dim as i64).collect();
    let rank = dims.len() as i64;
    let clamp = |axis: i64| (if axis < 0 { axis + rank } else { axis }).clamp(0, rank) as usize;
    let start = clamp(cx.int_or("start", 0)?);
    let end = clamp(cx.int_or("end", rank)?);
    let part = dims.get(start..end).unwrap_or_default().to_vec();
    Ok(vec![cx.constant(Tensor::vector_i64(part))])
}

fn size(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let count = cx.shape(x).count() as i64;
    Ok(vec![cx.constant(Tensor::scalar(count))])
}

fn range(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (start, limit, delta) = (cx.const_tensor(0)?, cx.const_tensor(1)?, cx.const_tensor(2)?);
    let dtype = start.dtype();
    if [&limit, &delta].iter().any(|tensor| tensor.dtype() != dtype) {
        return Err(LowerError::invalid("start, limit and delta must have one element type"));
    }
    let fits = |count: f64| {
        if count <= MAX_RANGE as f64 {
            Ok(count.max(0.0) as usize)
        } else {
            Err(LowerError::unsupported(format!("a range of {count} elements is beyond the limit of {MAX_RANGE}")))
        }
    };
    let zero = || LowerError::invalid("delta is zero");
    let values = match (start.widen()?, limit.widen()?, delta.widen()?) {
        (Values::Signed(start), Values::Signed(limit), Values::Signed(delta)) => {
            let [start, limit, delta] = [first(&start)?, first(&limit)?, first(&delta)?].map(i128::from);
            let distance = limit - start;
            let steps = distance.checked_div(delta).ok_or_else(zero)?;
            let count = fits((steps + i128::from(distance % delta != 0 && (distance < 0) == (delta < 0))) as f64)?;
            Values::Signed((0..count).map(|i| (start + i as i128 * delta) as i64).collect())
        }
        (Values::F64(start), Values::F64(limit), Values::F64(delta)) => {
            let [start, limit, delta] = [first(&start)?, first(&limit)?, first(&delta)?];
            let count = fits(((limit - start) / delta).ceil()).map_err(|error| if delta == 0.0 { zero() } else { error })?;
            Values::F64((0..count).map(|i| start + i as f64 * delta).collect())
        }
        (Values::F32(start), Values::F32(limit), Values::F32(delta)) => {
            let [start, limit, delta] = [first(&start)?, first(&limit)?, first(&delta)?];
            let count = f64::from(limit - start) / f64::from(delta);
            let count = fits(count.ceil()).map_err(|error| if delta == 0.0 { zero() } else { error })?;
            Values::F32((0..count).map(|i| start + i as f32 * delta).collect())
        }
        _ => return Err(LowerError::unsupported(format!("a range of {dtype} is not defined"))),
    };
    let ty = TensorType::new(dtype, Shape::vector(values.len()));
    Ok(vec![cx.constant(Tensor::narrow(ty, values))])
}

fn first<T: Copy>(values: &[T]) -> Result<T, LowerError> {
    match values {
        [value] => Ok(*value),
        _ => Err(LowerError::invalid("start, limit and delta must be scalars")),
    }
}

fn non_zero(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let Some(tensor) = cx.known(x) else {
        return Err(LowerError::DataDependent(cx.name_of(x).to_owned()));
    };
    let dims = tensor.shape().to_vec();
    let positions: Vec<usize> =
        tensor.to_f64s()?.iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(index, _)| index).collect();
    let mut indices = Vec::with_capacity(dims.len() * positions.len());
    let strides = tensor.shape().strides();
    for (&dim, &stride) in dims.iter().zip(&strides) {
        indices.extend(positions.iter().map(|position| (position / stride % dim) as i64));
    }
    let shape = Shape::new([dims.len(), positions.len()])?;
    let indices = Tensor::from_vec(shape, indices)?;
    Ok(vec![cx.constant(indices)])
}
