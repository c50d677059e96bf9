//! Products and look-ups with weights quantised by blocks. The packed integers stay as they are in the file: four-bit
//! weights are seen as a tensor of four-bit elements over the same bytes.

use tcc_ir::ops::{BinaryFn, MatMul, ReduceFn, UnaryFn};
use tcc_ir::{DType, Shape, Tensor, TensorType, ValueId};

use super::super::quantization::{dequantize, dequantize_along};
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

/// The zero points of weights quantised by blocks.
enum Zeros {
    Floats(ValueId),
    Integers(ValueId),
}

/// Weights quantised by blocks of the K-dimension.
struct Blocks {
    /// Integers of shape `[columns, count, size]`.
    weights: ValueId,
    /// `[columns, count, 1]`.
    scales: ValueId,
    /// Broadcasts to `[columns, count, 1]`.
    zeros: ValueId,
    columns: usize,
    /// The K-dimension: what of `count * size` is not padding.
    rows: usize,
    count: usize,
    size: usize,
}

/// `x` times blocked weights as one integer product for each block. Each row of `x` is quantised to eight signed bits by
/// the same blocks, symmetrically: the largest magnitude becomes 127.
fn integer_product(cx: &mut NodeContext<'_>, x: ValueId, blocks: &Blocks) -> Result<ValueId, LowerError> {
    let &Blocks { weights, scales, zeros, columns, rows, count, size } = blocks;
    let (dtype, rank) = (cx.dtype(x), cx.rank(x));
    let mut dims = cx.shape(x).to_vec();
    if dims.last() != Some(&rows) {
        return Err(LowerError::invalid(format!("input 0 of shape {} must end with K = {rows}", cx.shape(x))));
    }
    let m = dims[..rank - 1].iter().product();
    let x = cx.cast(x, DType::F32)?;
    let mut x = cx.reshape(x, &[m, rows])?;
    if count * size > rows {
        let zero = cx.scalar_like(x, 0.0);
        let padding = cx.broadcast(zero, &[m, count * size - rows])?;
        x = cx.concat(&[x, padding], 1)?;
    }
    let x = cx.reshape(x, &[m, count, size])?;
    let x = cx.transpose(x, &[1, 0, 2])?;
    let magnitude = cx.unary(UnaryFn::Abs, x)?;
    let largest = cx.reduce(ReduceFn::Max, magnitude, &[2], true)?;
    let x_scales = cx.binary_scalar(BinaryFn::Div, largest, 127.0)?;
    let top = cx.scalar_like(largest, 127.0);
    let inverse = cx.binary(BinaryFn::Div, top, largest)?;
    let zero = cx.scalar_like(largest, 0.0);
    let empty = cx.binary(BinaryFn::Eq, largest, zero)?;
    let inverse = cx.select(empty, zero, inverse)?;
    let scaled = cx.binary(BinaryFn::Mul, x, inverse)?;
    let rounded = cx.unary(UnaryFn::Round, scaled)?;
    let x = cx.cast(rounded, DType::I8)?;
    let weights = cx.transpose(weights, &[1, 0, 2])?;
    let zeros = if cx.rank(zeros) == 0 { zeros } else { cx.transpose(zeros, &[1, 0, 2])? };
    let product = MatMul { transpose_b: true, b_zero: true, ..MatMul::default() };
    let sums = cx.add(product, &[x, weights, zeros])?;
    let sums = cx.cast(sums, DType::F32)?;
    let scales = cx.cast(scales, DType::F32)?;
    let scales = cx.transpose(scales, &[1, 2, 0])?;
    let scales = cx.binary(BinaryFn::Mul, x_scales, scales)?;
    let parts = cx.binary(BinaryFn::Mul, sums, scales)?;
    let y = cx.reduce(ReduceFn::Sum, parts, &[0], false)?;
    dims[rank - 1] = columns;
    let y = cx.reshape(y, &dims)?;
    cx.cast(y, dtype)
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
    let scales = cx.reshape(scales, &[columns, blocks, 1])?;
    let zeros = match cx.optional(3) {
        Some(zeros) if cx.dtype(zeros).is_float() => Zeros::Floats(cx.reshape(zeros, &[columns, blocks, 1])?),
        Some(_) => {
            // Each column's zero points begin on a byte of their own.
            let per_byte = (8 / bits) as usize;
            let padded = blocks.div_ceil(per_byte) * per_byte;
            let zeros = unpack(cx, 3, bits, &[columns, padded, 1])?;
            Zeros::Integers(cx.slice(zeros, 1, 0, blocks)?)
        }
        None => Zeros::Integers(cx.constant(Tensor::scalar_of(dtype, f64::from(1u32 << (bits - 1))))),
    };
    // The accuracy level is the least that the model asks for: from 4 on, activations may be rounded to eight bits. That is
    // what ONNX Runtime does for the widths and blocks below, and what lets a machine multiply integers.
    let integer = cx.int_or("accuracy_level", 0)? >= 4
        && matches!(bits, 4 | 8)
        && matches!(block, 16 | 32 | 64 | 128 | 256);
    let mut y = match zeros {
        Zeros::Integers(zeros) if integer => {
            integer_product(cx, x, &Blocks { weights, scales, zeros, columns, rows, count: blocks, size: block })?
        }
        zeros => {
            let dtype = cx.dtype(x);
            let scales = cx.cast(scales, dtype)?;
            let weights = match zeros {
                Zeros::Integers(zeros) => dequantize(cx, weights, scales, Some(zeros))?,
                Zeros::Floats(zeros) => {
                    let zeros = cx.cast(zeros, dtype)?;
                    let wide = cx.cast(weights, dtype)?;
                    let centred = cx.binary(BinaryFn::Sub, wide, zeros)?;
                    cx.binary(BinaryFn::Mul, centred, scales)?
                }
            };
            let weights = cx.reshape(weights, &[columns, blocks * block])?;
            let weights = cx.slice(weights, 1, 0, rows)?;
            cx.add(MatMul { transpose_b: true, ..MatMul::default() }, &[x, weights])?
        }
    };
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
    Ok(vec![dequantize_along(cx, data, scales, zeros, axis, Some(block))?])
}
