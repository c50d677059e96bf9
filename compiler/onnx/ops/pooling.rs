//! Poolings: reductions over sliding windows.

use tcc_ir::ops::{ArgFn, ArgReduce, BinaryFn, GatherElements, Pad, ReduceFn, UnaryFn, Window};
use tcc_ir::{DType, Tensor, ValueId};

use super::tables::{self, counts};
use super::spatial::{AutoPad, Windows};
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("AveragePool", average_pool),
    onnx("GlobalAveragePool", |cx| global_pool(cx, ReduceFn::Mean)),
    onnx("GlobalLpPool", global_lp_pool),
    onnx("GlobalMaxPool", |cx| global_pool(cx, ReduceFn::Max)),
    onnx("LpPool", lp_pool),
    onnx("MaxPool", max_pool),
];

/// Spatial extents of an input `[N, C, spatial..]`.
fn spatial(cx: &NodeContext<'_>, x: ValueId) -> Result<Vec<usize>, LowerError> {
    match cx.shape(x).dims() {
        [_, _, dims @ ..] if !dims.is_empty() => Ok(dims.to_vec()),
        _ => Err(LowerError::invalid(format!("the input must have spatial axes, but is {}", cx.ty(x)))),
    }
}

fn global_pool(cx: &mut NodeContext<'_>, function: ReduceFn) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let axes: Vec<usize> = (2..2 + spatial(cx, x)?.len()).collect();
    Ok(vec![cx.reduce(function, x, &axes, true)?])
}

/// The windows of a pooling node, and how many there are along each spatial axis.
struct Pooling {
    dims: Vec<usize>,
    windows: Windows,
    positions: Vec<usize>,
}

impl Pooling {
    fn of(cx: &NodeContext<'_>, x: ValueId) -> Result<Self, LowerError> {
        let dims = spatial(cx, x)?;
        let kernel = cx.ints("kernel_shape")?.ok_or_else(|| LowerError::Attribute {
            name: "kernel_shape".to_owned(),
            expected: "a list of integers".to_owned(),
        })?;
        let windows = Windows::of(cx, &dims, counts("kernel_shape", kernel, 1)?)?;
        // Padding that is derived fits already.
        let rounds_up = cx.flag("ceil_mode", false)? && matches!(AutoPad::of(cx)?, AutoPad::Explicit | AutoPad::Valid);
        let mut positions = Vec::with_capacity(dims.len());
        for (axis, &dim) in dims.iter().enumerate() {
            let (low, high) = (windows.low[axis] as usize, windows.high[axis] as usize);
            let (span, stride) = (windows.span(axis), windows.strides[axis]);
            let room = (low + dim + high).checked_sub(span).ok_or_else(|| {
                LowerError::invalid(format!("a window of {span} does not fit into extent {dim} padded by {low} and {high}"))
            })?;
            let mut count = if rounds_up { room.div_ceil(stride) } else { room / stride } + 1;
            // A window that would start beyond the input sees only padding and is left out.
            if rounds_up && count > 1 && (count - 1) * stride >= dim + low {
                count -= 1;
            }
            positions.push(count);
        }
        Ok(Pooling { dims, windows, positions })
    }

    /// Pads the spatial axes, which begin at `first`, with `value` so that they hold all windows exactly, and slides the
    /// windows: axis `first + 2i` of the result are positions, the one after it elements.
    fn slide(&self, cx: &mut NodeContext<'_>, x: ValueId, first: usize, value: f64) -> Result<ValueId, LowerError> {
        let rank = cx.rank(x);
        let (mut low, mut high) = (vec![0; rank], vec![0; rank]);
        for (axis, &dim) in self.dims.iter().enumerate() {
            let reach = (self.positions[axis] - 1) * self.windows.strides[axis] + self.windows.span(axis);
            low[first + axis] = self.windows.low[axis];
            // What no window reaches may be cut off.
            high[first + axis] = (reach as i64 - dim as i64 - self.windows.low[axis]).max(0);
        }
        let mut x = x;
        if low.iter().chain(&high).any(|&amount| amount != 0) {
            let value = cx.scalar_like(x, value);
            x = cx.add(Pad { low, high, interior: vec![0; rank] }, &[x, value])?;
        }
        for axis in 0..self.dims.len() {
            let window = Window {
                axis: first + 2 * axis,
                size: self.windows.kernel[axis],
                step: self.windows.strides[axis],
                dilation: self.windows.dilations[axis],
            };
            x = cx.add(window, &[x])?;
            // Where the last window ends before the padded axis does, there may be room for more than ONNX counts.
            x = cx.slice(x, first + 2 * axis, 0, self.positions[axis])?;
        }
        Ok(x)
    }

    /// The axes of window elements after [`Pooling::slide`].
    fn elements(&self, first: usize) -> Vec<usize> {
        (0..self.dims.len()).map(|axis| first + 2 * axis + 1).collect()
    }

    /// Whether no window reaches beyond the input.
    fn is_unpadded(&self) -> bool {
        (0..self.dims.len()).all(|axis| {
            let reach = (self.positions[axis] - 1) * self.windows.strides[axis] + self.windows.span(axis);
            self.windows.low[axis] == 0 && reach <= self.dims[axis]
        })
    }

    /// For each position along `axis`, how many elements of the window count.
    fn counted(&self, axis: usize, with_padding: bool) -> Result<Vec<usize>, LowerError> {
        let Windows { kernel, strides, dilations, low, high } = &self.windows;
        tables::check_table(&[self.positions[axis], kernel[axis]])?;
        let range = if with_padding {
            -low[axis]..self.dims[axis] as i64 + high[axis]
        } else {
            0..self.dims[axis] as i64
        };
        let count = |position: usize| {
            let start = (position * strides[axis]) as i64 - low[axis];
            (0..kernel[axis]).filter(|element| range.contains(&(start + (element * dilations[axis]) as i64))).count()
        };
        Ok((0..self.positions[axis]).map(count).collect())
    }
}

fn average_pool(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let pooling = Pooling::of(cx, x)?;
    let with_padding = cx.flag("count_include_pad", false)?;
    let slid = pooling.slide(cx, x, 2, 0.0)?;
    let elements = pooling.elements(2);
    if pooling.is_unpadded() {
        return Ok(vec![cx.reduce(ReduceFn::Mean, slid, &elements, false)?]);
    }
    let mut result = cx.reduce(ReduceFn::Sum, slid, &elements, false)?;
    let (rank, dtype) = (cx.rank(result), cx.dtype(result));
    for axis in 0..pooling.dims.len() {
        let counts = pooling.counted(axis, with_padding)?;
        let mut dims = vec![1; rank];
        dims[axis + 2] = counts.len();
        let counts = tables::table(cx, dtype, &dims, counts.iter().map(|&count| count as f64).collect())?;
        result = cx.binary(BinaryFn::Div, result, counts)?;
    }
    Ok(vec![result])
}

/// The least value of a type, which never wins a maximum.
fn least(dtype: DType) -> f64 {
    dtype.integer_range().map_or(f64::NEG_INFINITY, |(low, _)| low as f64)
}

fn max_pool(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let pooling = Pooling::of(cx, x)?;
    let low = least(cx.dtype(x));
    let slid = pooling.slide(cx, x, 2, low)?;
    let best = cx.reduce(ReduceFn::Max, slid, &pooling.elements(2), false)?;
    if !cx.wants(1) {
        return Ok(vec![best]);
    }
    // The same windows slide over the places of all elements; each best element's place is then picked.
    let within = window_last(cx, slid, 2, &pooling)?;
    let axis = cx.rank(within) - 1;
    let chosen = cx.add(ArgReduce { function: ArgFn::Max, axis, select_last: false }, &[within])?;
    let places = places(cx, &pooling.dims)?;
    let places = pooling.slide(cx, places, 0, 0.0)?;
    let places = window_last(cx, places, 0, &pooling)?;
    let dims = cx.shape(within).to_vec();
    let places = cx.broadcast(places, &dims)?;
    let picked = cx.add(GatherElements { axis }, &[places, chosen])?;
    let picked = cx.reshape(picked, &dims[..axis])?;
    // Places count through the whole tensor, image after image.
    let images = dims[0] * dims[1];
    tables::check_table(&[images])?;
    let size: usize = pooling.dims.iter().product();
    let starts = tables::indices(cx, (0..images).map(|image| (image * size) as i64).collect());
    let lead: Vec<usize> = dims[..2].iter().copied().chain(vec![1; pooling.dims.len()]).collect();
    let starts = cx.reshape(starts, &lead)?;
    Ok(vec![best, cx.binary(BinaryFn::Add, picked, starts)?])
}

/// Moves all window elements into one last axis.
fn window_last(cx: &mut NodeContext<'_>, x: ValueId, first: usize, pooling: &Pooling) -> Result<ValueId, LowerError> {
    let elements = pooling.elements(first);
    let perm: Vec<usize> =
        (0..cx.rank(x)).filter(|axis| !elements.contains(axis)).chain(elements.iter().copied()).collect();
    let moved = cx.transpose(x, &perm)?;
    let mut dims = cx.shape(moved).to_vec();
    dims.truncate(dims.len() - elements.len());
    dims.push(pooling.windows.kernel.iter().product());
    cx.reshape(moved, &dims)
}

/// The place of each element of an image in memory, row-major or, with `storage_order` 1, column-major.
fn places(cx: &mut NodeContext<'_>, dims: &[usize]) -> Result<ValueId, LowerError> {
    tables::check_table(dims)?;
    let column_major = cx.flag("storage_order", false)?;
    let order: Vec<usize> = if column_major { dims.iter().rev().copied().collect() } else { dims.to_vec() };
    let count: usize = dims.iter().product();
    let numbers = cx.constant(Tensor::vector_i64((0..count as i64).collect()));
    let numbers = cx.reshape(numbers, &order)?;
    if column_major {
        let perm: Vec<usize> = (0..dims.len()).rev().collect();
        return cx.transpose(numbers, &perm);
    }
    Ok(numbers)
}

/// `(Σ |x|^p)^(1/p)` over axes.
pub(super) fn lp_norm(
    cx: &mut NodeContext<'_>,
    x: ValueId,
    p: i64,
    reduce: impl FnOnce(&mut NodeContext<'_>, ValueId) -> Result<ValueId, LowerError>,
) -> Result<ValueId, LowerError> {
    match p {
        1 => {
            let sizes = cx.unary(UnaryFn::Abs, x)?;
            reduce(cx, sizes)
        }
        2 => {
            let squares = cx.binary(BinaryFn::Mul, x, x)?;
            let sum = reduce(cx, squares)?;
            cx.unary(UnaryFn::Sqrt, sum)
        }
        _ if p > 0 => {
            let sizes = cx.unary(UnaryFn::Abs, x)?;
            let powers = cx.binary_scalar(BinaryFn::Pow, sizes, p as f64)?;
            let sum = reduce(cx, powers)?;
            cx.binary_scalar(BinaryFn::Pow, sum, 1.0 / p as f64)
        }
        _ => Err(LowerError::invalid(format!("`p` is {p}, but must be positive"))),
    }
}

fn lp_pool(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let pooling = Pooling::of(cx, x)?;
    let p = cx.int_or("p", 2)?;
    let slid = pooling.slide(cx, x, 2, 0.0)?;
    let elements = pooling.elements(2);
    Ok(vec![lp_norm(cx, slid, p, |cx, x| cx.reduce(ReduceFn::Sum, x, &elements, false))?])
}

fn global_lp_pool(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let axes: Vec<usize> = (2..2 + spatial(cx, x)?.len()).collect();
    let p = cx.int_or("p", 2)?;
    Ok(vec![lp_norm(cx, x, p, |cx, x| cx.reduce(ReduceFn::Sum, x, &axes, true))?])
}
