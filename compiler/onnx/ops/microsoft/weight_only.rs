//! Products and look-ups with weights quantised by blocks. The packed integers stay as they are in the file: four-bit
//! weights are seen as a tensor of four-bit elements over the same bytes.

use tcc_ir::ops::{BinaryFn, MatMul};
use tcc_ir::{DType, Shape, Tensor, TensorType, ValueId};

use super::super::quantization::{dequantize, dequantize_blocks};
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft};

pub(in crate::onnx::ops) const FAMILY: &[Entry] =
    &[microsoft("GatherBlockQuantized", gather_block_quantized), microsoft("MatMulNBits", mat_mul_n_bits)];

/// The unsigned type of a number of bits. Two-bit integers are unpacked to bytes.
fn unsigned(bits: i64) -> Result<DType, LowerError> {
    match bits {
        4 => Ok(DType::U4),
        2 | 8 => Ok(DType::U8),
        _ => Err(LowerError::unsupported(format!("weights of {bits} bits; 2, 4 and 8 are known"))),
    }
}

/// Input `index`, bytes with `8 / bits` integers each, as a tensor of integers of shape `dims`.
fn unpack(cx: &mut NodeContext<'_>, index: usize, bits: i64, dims: &[usize]) -> Result<ValueId, LowerError> {
    let value = cx.input(index)?;
    if cx.dtype(value) != DType::U8 {
        return Err(LowerError::invalid(format!("input {index} must be packed in bytes, but is {}", cx.dtype(value))));
    }
    let shape = Shape::new(dims.iter().copied())?;
    if (shape.count() as u64) * (bits as u64) != 8 * cx.shape(value).count() as u64 {
        return Err(LowerError::invalid(format!(
            "input {index} of shape {} does not hold {shape} integers of {bits} bits",
            cx.shape(value)
        )));
    }
    match bits {
        8 => cx.reshape(value, dims),
        4 => {
            let bytes = cx.const_tensor(index).map_err(|_| {
                LowerError::unsupported(format!("packed four-bit input {index} that is not a constant of the model"))
            })?;
            let tensor = Tensor::new(TensorType::new(DType::U4, shape), bytes.data().clone())?;
            Ok(cx.constant(tensor))
        }
        _ => {
            let column = cx.reshape(value, &[cx.shape(value).count(), 1])?;
            let shifts = cx.constant(Tensor::from_vec(Shape::vector(4), vec![0u8, 2, 4, 6])?);
            let shifted = cx.binary(BinaryFn::Shr, column, shifts)?;
            let parts = cx.binary_scalar(BinaryFn::And, shifted, 3.0)?;
            cx.reshape(parts, dims)
        }
    }
}

/// An attribute that is a positive size.
fn size(cx: &NodeContext<'_>, name: &str, default: i64) -> Result<usize, LowerError> {
    usize::try_from(cx.int_or(name, default)?)
        .ok()
        .filter(|&size| size > 0 && size <= tcc_ir::MAX_ELEMENTS)
        .ok_or_else(|| LowerError::Attribute { name: name.to_owned(), expected: "a positive size".to_owned() })
}

fn mat_mul_n_bits(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    if cx.optional(4).is_some() {
        return Err(LowerError::unsupported("MatMulNBits with g_idx; quantise without reordering (act_order)"));
    }
    let (x, scales) = (cx.input(0)?, cx.input(2)?);
    let bits = cx.int_or("bits", 4)?;
    let dtype = unsigned(bits)?;
    let (rows, columns, block) = (size(cx, "K", 0)?, size(cx, "N", 0)?, size(cx, "block_size", 0)?);
    if block % 8 != 0 {
        return Err(LowerError::Attribute { name: "block_size".to_owned(), expected: "a multiple of 8".to_owned() });
    }
    let blocks = rows.div_ceil(block);
    let weights = unpack(cx, 1, bits, &[columns, blocks, block])?;
    let scales = cx.cast(scales, cx.dtype(x))?;
    let scales = cx.reshape(scales, &[columns, blocks, 1])?;
    let weights = match cx.optional(3) {
        Some(zeros) if cx.dtype(zeros).is_float() => {
            let zeros = cx.cast(zeros, cx.dtype(x))?;
            let zeros = cx.reshape(zeros, &[columns, blocks, 1])?;
            let wide = cx.cast(weights, cx.dtype(x))?;
            let centred = cx.binary(BinaryFn::Sub, wide, zeros)?;
            cx.binary(BinaryFn::Mul, centred, scales)?
        }
        Some(_) => {
            // Each column's zero points begin on a byte of their own.
            let per_byte = (8 / bits) as usize;
            let padded = blocks.div_ceil(per_byte) * per_byte;
            let zeros = unpack(cx, 3, bits, &[columns, padded, 1])?;
            let zeros = cx.slice(zeros, 1, 0, blocks)?;
            dequantize(cx, weights, scales, Some(zeros))?
        }
        None => {
            let middle = cx.constant(Tensor::scalar_of(dtype, f64::from(1u32 << (bits - 1))));
            dequantize(cx, weights, scales, Some(middle))?
        }
    };
    let weights = cx.reshape(weights, &[columns, blocks * block])?;
    let weights = cx.slice(weights, 1, 0, rows)?;
    let mut y = cx.add(MatMul { transpose_b: true, ..MatMul::default() }, &[x, weights])?;
    if let Some(bias) = cx.optional(5) {
        y = cx.binary(BinaryFn::Add, y, bias)?;
    }
    Ok(vec![y])
}

fn gather_block_quantized(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (data, indices, scales) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let rank = cx.rank(data);
    let gather_axis = cx.axis(cx.int_or("gather_axis", 0)?, rank)?;
    let axis = cx.axis(cx.int_or("quantize_axis", 1)?, rank)?;
    let block = size(cx, "block_size", 128)?;
    if gather_axis == axis {
        return Err(LowerError::invalid("gather_axis and quantize_axis must differ"));
    }
    let packed = cx.dtype(data) == DType::U8;
    let bits = cx.int_or("bits", 4)?;
    let (data, zeros) = if packed {
        let dtype = unsigned(bits)?;
        let per_byte = (8 / bits) as usize;
        let mut dims = cx.shape(data).to_vec();
        dims[rank - 1] *= per_byte;
        let data = unpack(cx, 0, bits, &dims)?;
        let zeros = match cx.optional(3) {
            Some(zeros) => {
                let mut dims = cx.shape(zeros).to_vec();
                if dims.len() != rank || cx.rank(scales) != rank {
                    return Err(LowerError::invalid("data, scales and zero points must have the same rank"));
                }
                let last = rank - 1;
                dims[last] *= per_byte;
                let zeros = unpack(cx, 3, bits, &dims)?;
                cx.slice(zeros, last, 0, cx.shape(scales)[last])?
            }
            None => {
                let middle = cx.constant(Tensor::scalar_of(dtype, f64::from(1u32 << (bits - 1))));
                {
                    let shape = cx.shape(scales).clone();
                    cx.broadcast(middle, &shape)?
                }
            }
        };
        (data, Some(zeros))
    } else {
        (data, cx.optional(3))
    };
    // Rows are selected as integers; only what is selected is converted.
    let data = cx.gather(data, indices, gather_axis)?;
    let scales = cx.gather(scales, indices, gather_axis)?;
    let zeros = zeros.map(|zeros| cx.gather(zeros, indices, gather_axis)).transpose()?;
    let axis = if axis > gather_axis { axis + cx.rank(indices) - 1 } else { axis };
    Ok(vec![dequantize_blocks(cx, data, scales, zeros, axis, block)?])
}
