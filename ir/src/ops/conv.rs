//! Convolution over one to three spatial axes.

use serde::{Deserialize, Serialize};

use super::movement::{failure, read_strided, reshape};
use super::{Concat, MatMul, Pad, Transpose, Window};
use crate::op::{OpError, Operator, OutputTypes, Work, one, same_dtype};
use crate::{DType, Data, Graph, GraphError, Shape, Tensor, TensorType, ValueId};

/// Operands: x `[N, C, spatial..]`, w `[M, C/groups, kernel..]`, then x's zero point if `x_zero` (a scalar), then w's
/// if `w_zero` (a scalar or `[M]`). Element types as in [`MatMul`](super::MatMul): integers give i32. The padding
/// value is 0 (x's zero point, if there is one).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Conv {
    /// Distance between windows along each spatial axis.
    pub strides: Vec<usize>,
    /// Padding before each spatial axis.
    pub low: Vec<i64>,
    /// Padding after each spatial axis.
    pub high: Vec<i64>,
    /// Distance between kernel elements along each spatial axis.
    pub dilations: Vec<usize>,
    /// Channel groups, each convolved with its own filters.
    pub groups: usize,
    /// There is an operand with the zero point of x.
    pub x_zero: bool,
    /// There is an operand with the zero point of w.
    pub w_zero: bool,
}

/// Elements of unrolled windows that are held at a time, unless a single image takes more.
const UNROLLED: usize = 1 << 24;

/// The extents of one convolution.
struct Dims {
    /// Images.
    n: usize,
    /// Channels of x.
    c: usize,
    /// Filters: channels of the result.
    m: usize,
    /// Spatial extents of the kernel.
    kernel: Vec<usize>,
    /// Spatial extents of x with its padding.
    padded: Vec<usize>,
    /// Spatial extents of the result.
    out: Vec<usize>,
}

impl Conv {
    fn operand_count(&self) -> usize {
        2 + usize::from(self.x_zero) + usize::from(self.w_zero)
    }

    /// The spatial padding, with nothing for images and channels.
    fn pad(&self) -> Option<Pad> {
        let widen = |padding: &[i64]| [0, 0].iter().chain(padding).copied().collect::<Vec<i64>>();
        let pad = Pad { low: widen(&self.low), high: widen(&self.high), interior: vec![0; self.low.len() + 2] };
        let any = pad.low.iter().chain(&pad.high).any(|&padding| padding != 0);
        any.then_some(pad)
    }

    fn window(&self, spatial: usize, axis: usize, kernel: usize) -> Window {
        Window { axis, size: kernel, step: self.strides[spatial], dilation: self.dilations[spatial] }
    }

    /// The product that a convolution is: filters are A, unrolled windows are B.
    fn product(&self) -> MatMul {
        MatMul { a_zero: self.w_zero, b_zero: self.x_zero, ..MatMul::default() }
    }

    fn dims(&self, x: &TensorType, w: &TensorType) -> Result<Dims, OpError> {
        let rank = x.shape.rank();
        if !(3..=5).contains(&rank) {
            return Err(OpError::shape(0, "images, channels and one to three spatial axes", x));
        }
        let spatial = rank - 2;
        if [self.strides.len(), self.low.len(), self.high.len(), self.dilations.len()] != [spatial; 4] {
            let Conv { strides, low, high, dilations, .. } = self;
            let expected = format!(
                "as many spatial axes as there are strides {strides:?}, paddings {low:?} and {high:?}, and dilations {dilations:?}"
            );
            return Err(OpError::shape(0, expected, x));
        }
        if w.shape.rank() != rank {
            return Err(OpError::shape(1, format!("as many axes as operand 0 ({x})"), w));
        }
        let (n, c, m) = (x.shape[0], x.shape[1], w.shape[0]);
        if self.groups == 0 || !c.is_multiple_of(self.groups) {
            return Err(OpError::shape(0, format!("channels that {} groups can share", self.groups), x));
        }
        if !m.is_multiple_of(self.groups) || w.shape[1] != c / self.groups {
            let expected = format!("filters that {} groups can share, over {} channels", self.groups, c / self.groups);
            return Err(OpError::shape(1, expected, w));
        }
        let kernel = w.shape[2..].to_vec();
        if kernel.contains(&0) {
            return Err(OpError::shape(1, "a kernel of at least one element", w));
        }
        for (name, values) in [("strides", &self.strides), ("dilations", &self.dilations)] {
            if values.contains(&0) {
                return Err(OpError::Attribute(format!("the {name} are {values:?}, but must be at least 1")));
            }
        }
        let (mut padded, mut out) = (Vec::with_capacity(spatial), Vec::with_capacity(spatial));
        for (axis, &kernel) in kernel.iter().enumerate() {
            let (low, high) = (self.low[axis], self.high[axis]);
            let extent = x.shape[axis + 2] as i128 + i128::from(low) + i128::from(high);
            if extent < 0 {
                let expected = format!("enough elements to crop by low {low} and high {high} along axis {}", axis + 2);
                return Err(OpError::shape(0, expected, x));
            }
            // Whatever saturates is refused as a shape.
            let extent = usize::try_from(extent).unwrap_or(usize::MAX);
            padded.push(extent);
            out.push(self.window(axis, axis + 2, kernel).positions(extent));
        }
        // What the decomposition needs in between must be possible too.
        Shape::new([n, c].into_iter().chain(padded.iter().copied()))?;
        Shape::new([n, c].iter().chain(&kernel).chain(&out).copied())?;
        Ok(Dims { n, c, m, kernel, padded, out })
    }

    fn check_zero(&self, operand: usize, zero: &TensorType, of: usize, ty: &TensorType) -> Result<(), OpError> {
        if zero.dtype != ty.dtype || !zero.dtype.is_integer() {
            return Err(OpError::dtype(operand, format!("an integer type, as operand {of}"), zero.dtype));
        }
        let by_filter = of == 1 && zero.shape.dims() == [ty.shape[0]];
        if zero.shape.rank() == 0 || by_filter {
            return Ok(());
        }
        let expected = if of == 1 { format!("no dimensions, or [{}]", ty.shape[0]) } else { "no dimensions".to_owned() };
        Err(OpError::shape(operand, expected, zero))
    }
}

impl Dims {
    /// Extents of the filters as A of the product.
    fn filters(&self, groups: usize) -> [usize; 3] {
        [groups, self.m / groups, self.k(groups)]
    }

    /// Length of the sums: a group's channels, and for each the elements of the kernel.
    fn k(&self, groups: usize) -> usize {
        self.c / groups * self.kernel.iter().product::<usize>()
    }

    /// Windows in an image.
    fn positions(&self) -> usize {
        self.out.iter().product()
    }

    fn result(&self) -> impl Iterator<Item = usize> + '_ {
        [self.n, self.m].into_iter().chain(self.out.iter().copied())
    }
}

impl Operator for Conv {
    const NAMES: &'static [&'static str] = &["conv"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        if inputs.len() != self.operand_count() {
            return Err(OpError::Arity { expected: self.operand_count().to_string(), actual: inputs.len() });
        }
        let (x, w) = (inputs[0], inputs[1]);
        if x.dtype == DType::Bool {
            return Err(OpError::dtype(0, "a number", x.dtype));
        }
        let narrow = |dtype: DType| dtype.is_integer() && dtype.bits() <= 32;
        if !(narrow(x.dtype) && narrow(w.dtype)) {
            same_dtype(inputs, 1)?;
        }
        let dims = self.dims(x, w)?;
        let zeros = [(self.x_zero, 0, x), (self.w_zero, 1, w)].into_iter().filter(|&(present, ..)| present);
        for (operand, (_, of, ty)) in (2..).zip(zeros) {
            self.check_zero(operand, inputs[operand], of, ty)?;
        }
        one(MatMul::result_dtype(x.dtype), Shape::new(dims.result())?)
    }

    fn keeps_excess_precision(&self) -> bool {
        true
    }

    /// Unrolls windows into a matrix and multiplies, as the decomposition does, but a few images at a time.
    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let (x, w, out) = (inputs[0], inputs[1], &outputs[0]);
        let dims = self.dims(x.ty(), w.ty())?;
        let mut zeros = inputs[2..].iter().copied();
        let x_zero = if self.x_zero { zeros.next() } else { None };
        let w_zero = if self.w_zero { zeros.next() } else { None };
        if out.shape.count() == 0 {
            return Ok(vec![Tensor::new(out.clone(), Data::from_bytes(Vec::new()))?]);
        }
        let groups = self.groups;
        let channels = dims.c / groups;
        let padded = match self.pad() {
            None => x.clone(),
            Some(pad) => {
                let shape = Shape::new([dims.n, dims.c].iter().chain(&dims.padded).copied())?;
                let value = x_zero.cloned().unwrap_or_else(|| Tensor::scalar_of(x.dtype(), 0.0));
                pad.eval(&[x, &value], &[TensorType::new(x.dtype(), shape)])?.remove(0)
            }
        };
        let filters = w.reshaped(Shape::new(dims.filters(groups))?)?;
        let w_zero = match w_zero {
            Some(zero) if zero.shape().rank() == 1 => Some(zero.reshaped(Shape::new([groups, dims.m / groups, 1])?)?),
            zero => zero.cloned(),
        };
        // Images, groups, channels, kernel, positions.
        let own = padded.shape().strides();
        let mut strides = vec![own[0] as isize, (own[1] * channels) as isize, own[1] as isize];
        // The distance to a second element or window means nothing where there is none, and may be huge.
        let distance = |count: usize, step: usize, stride: usize| if count > 1 { (step * stride) as isize } else { 0 };
        strides.extend((0..dims.kernel.len()).map(|i| distance(dims.kernel[i], self.dilations[i], own[i + 2])));
        strides.extend((0..dims.out.len()).map(|i| distance(dims.out[i], self.strides[i], own[i + 2])));
        let (k, positions) = (dims.k(groups), dims.positions());
        let images = (UNROLLED / (groups * k * positions).max(1)).max(1);
        let mut parts = Vec::new();
        for first in (0..dims.n).step_by(images) {
            let images = images.min(dims.n - first);
            let unrolled = [images, groups, channels].into_iter().chain(dims.kernel.iter().chain(&dims.out).copied());
            let ty = TensorType::new(x.dtype(), Shape::new(unrolled)?);
            let windows = read_strided(&padded, (first * own[0]) as isize, &strides, &ty)?;
            let windows = windows.reshaped(Shape::new([images, groups, k, positions])?)?;
            let operands: Vec<&Tensor> = [&filters, &windows].into_iter().chain(&w_zero).chain(x_zero).collect();
            let ty = TensorType::new(out.dtype, Shape::new([images, groups, dims.m / groups, positions])?);
            parts.extend(self.product().eval(&operands, &[ty])?);
        }
        let whole = match &parts[..] {
            [part] => part.clone(),
            parts => {
                let ty = TensorType::new(out.dtype, Shape::new([dims.n, groups, dims.m / groups, positions])?);
                Concat { axis: 0 }.eval(&parts.iter().collect::<Vec<_>>(), &[ty])?.remove(0)
            }
        };
        Ok(vec![whole.reshaped(out.shape.clone())?])
    }

    fn work(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Work {
        let k: usize = inputs[1].shape[1..].iter().product();
        Work::contraction((outputs[0].shape.count() as u64).saturating_mul(k as u64))
    }

    /// Padding, a [`Window`] along each spatial axis, and one product of `[groups, M/groups, C/groups·kernel]` by
    /// `[N, groups, C/groups·kernel, positions]`. The filters are only reshaped.
    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        let (&[x, w], zeros) = inputs.split_first_chunk()?;
        let mut zeros = zeros.iter().copied();
        let x_zero = if self.x_zero { zeros.next() } else { None };
        let w_zero = if self.w_zero { zeros.next() } else { None };
        Some((|| {
            let dims = self.dims(graph.ty(x), graph.ty(w)).map_err(|error| failure(graph, "conv", error))?;
            let groups = self.groups;
            let mut windows = x;
            if let Some(pad) = self.pad() {
                let dtype = graph.ty(x).dtype;
                let value = x_zero.unwrap_or_else(|| graph.constant(Tensor::scalar_of(dtype, 0.0)));
                windows = graph.add(pad, &[x, value])?;
            }
            // Where positions and, if there are several, elements of the window are along each spatial axis.
            let (mut elements, mut positions, mut axis) = (Vec::new(), Vec::new(), 2);
            for (spatial, &kernel) in dims.kernel.iter().enumerate() {
                positions.push(axis);
                if kernel > 1 || self.strides[spatial] > 1 {
                    windows = graph.add(self.window(spatial, axis, kernel), &[windows])?;
                    axis += 1;
                    elements.push(axis);
                }
                axis += 1;
            }
            if !elements.is_empty() {
                let perm = [0, 1].into_iter().chain(elements).chain(positions).collect();
                windows = graph.add(Transpose { perm }, &[windows])?;
            }
            let windows = reshape(graph, windows, [dims.n, groups, dims.k(groups), dims.positions()])?;
            let filters = reshape(graph, w, dims.filters(groups))?;
            let mut operands = vec![filters, windows];
            if let Some(zero) = w_zero {
                let by_filter = graph.shape(zero).rank() == 1;
                operands.push(if by_filter { reshape(graph, zero, [groups, dims.m / groups, 1])? } else { zero });
            }
            operands.extend(x_zero);
            let product = graph.add(self.product(), &operands)?;
            Ok(vec![reshape(graph, product, dims.result())?])
        })())
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{assert_decomposes, iota, numbers, random, random_in, refusal, run, tensor, ty};

    /// A convolution of one group, with neither strides, padding, dilations nor zero points.
    fn plain(spatial: usize) -> Conv {
        Conv {
            strides: vec![1; spatial],
            low: vec![0; spatial],
            high: vec![0; spatial],
            dilations: vec![1; spatial],
            groups: 1,
            x_zero: false,
            w_zero: false,
        }
    }

    /// The definition, element by element.
    fn definition(op: &Conv, x: &Tensor, w: &Tensor, x_zero: f64, w_zero: &[f64]) -> Vec<f64> {
        let (xs, ws) = (x.shape(), w.shape());
        let dims = op.dims(x.ty(), w.ty()).unwrap();
        let (x, w) = (numbers(x), numbers(w));
        let spatial = dims.kernel.len();
        let unravel = |mut index: usize, dims: &[usize]| {
            let mut at = vec![0; dims.len()];
            for axis in (0..dims.len()).rev() {
                at[axis] = index % dims[axis];
                index /= dims[axis];
            }
            at
        };
        let shape: Vec<usize> = dims.result().collect();
        (0..shape.iter().product())
            .map(|index| {
                let at = unravel(index, &shape);
                let (channels, filters) = (ws[1], ws[0] / op.groups);
                let mut sum = 0.0;
                for tap in 0..ws[1..].iter().product() {
                    let tap_at = unravel(tap, &ws[1..]);
                    let mut place = (at[0] * xs[1] + at[1] / filters * channels + tap_at[0]) as i64;
                    let mut inside = true;
                    for axis in 0..spatial {
                        let from = (at[axis + 2] * op.strides[axis] + tap_at[axis + 1] * op.dilations[axis]) as i64;
                        let from = from - op.low[axis];
                        inside &= (0..xs[axis + 2] as i64).contains(&from);
                        place = place * xs[axis + 2] as i64 + from;
                    }
                    if inside {
                        let filter = at[1] * ws[1..].iter().product::<usize>() + tap;
                        sum += (x[place as usize] - x_zero) * (w[filter] - w_zero[at[1] % w_zero.len()]);
                    }
                }
                sum
            })
            .collect()
    }

    fn check(op: &Conv, x: &Tensor, w: &Tensor) {
        let y = run(op.clone(), &[x.clone(), w.clone()]).unwrap();
        assert_eq!(numbers(&y), definition(op, x, w, 0.0, &[0.0]), "{op:?} of {x:?} and {w:?}");
        assert_decomposes(op.clone(), &[x.clone(), w.clone()]);
    }

    #[test]
    fn one_to_three_spatial_axes() {
        for dtype in [DType::F32, DType::F64, DType::I32, DType::I64] {
            check(&plain(1), &random(dtype, &[2, 3, 7], 1), &random(dtype, &[4, 3, 3], 2));
            check(&plain(2), &random(dtype, &[2, 3, 5, 6], 3), &random(dtype, &[4, 3, 3, 2], 4));
            check(&plain(3), &random(dtype, &[1, 2, 4, 3, 5], 5), &random(dtype, &[3, 2, 2, 3, 2], 6));
        }
    }

    #[test]
    fn strides_paddings_dilations_and_groups() {
        let x = random(DType::F32, &[2, 6, 9, 8], 1);
        for groups in [1, 2, 3, 6] {
            let w = random(DType::F32, &[6, 6 / groups, 3, 2], 2);
            for (strides, low, high, dilations) in [
                ([1, 1], [1, 0], [1, 1], [1, 1]),
                ([2, 3], [0, 2], [1, 0], [1, 1]),
                ([1, 2], [2, 1], [2, 0], [2, 3]),
                ([2, 1], [-1, 2], [0, -3], [1, 1]),
            ] {
                let op = Conv {
                    strides: strides.to_vec(),
                    low: low.to_vec(),
                    high: high.to_vec(),
                    dilations: dilations.to_vec(),
                    groups,
                    ..plain(2)
                };
                check(&op, &x, &w);
            }
        }
    }

    #[test]
    fn patches_and_single_elements() {
        let patches = Conv { strides: vec![4, 4], ..plain(2) };
        check(&patches, &random(DType::F32, &[1, 3, 16, 12], 1), &random(DType::F32, &[8, 3, 4, 4], 2));
        check(&plain(2), &random(DType::F32, &[2, 3, 4, 4], 3), &random(DType::F32, &[8, 3, 1, 1], 4));
        let sparse = Conv { strides: vec![1, 2], ..plain(2) };
        check(&sparse, &random(DType::F32, &[2, 3, 4, 5], 5), &random(DType::F32, &[8, 3, 1, 1], 6));
    }

    #[test]
    fn small_floats_round_the_sum_once() {
        for dtype in [DType::F16, DType::BF16, DType::F8E4M3, DType::F8E5M2] {
            let (x, w) = (random(dtype, &[1, 2, 6], 1), random(dtype, &[2, 2, 3], 2));
            let y = run(plain(1), &[x.clone(), w.clone()]).unwrap();
            let exact = definition(&plain(1), &x, &w, 0.0, &[0.0]);
            assert_eq!(numbers(&y), numbers(&tensor(dtype, &[1, 2, 4], &exact)), "{dtype}");
            assert_decomposes(plain(1), &[x, w]);
        }
    }

    #[test]
    fn quantised_operands_with_zero_points() {
        let padding = Conv { low: vec![1, 2], high: vec![2, 0], strides: vec![1, 2], groups: 2, ..plain(2) };
        for (x_type, w_type) in [(DType::I8, DType::I8), (DType::U8, DType::I8), (DType::U4, DType::I4), (DType::I16, DType::U8)] {
            let x = random_in(x_type, &[2, 4, 5, 4], 0, 8, 1);
            let w = random_in(w_type, &[4, 2, 3, 2], 0, 8, 2);
            let x_zero = Tensor::scalar_of(x_type, 5.0);
            let y = run(padding.clone(), &[x.clone(), w.clone()]).unwrap();
            assert_eq!(y.dtype(), DType::I32);
            check(&padding, &x, &w);

            let op = Conv { x_zero: true, ..padding.clone() };
            let operands = [x.clone(), w.clone(), x_zero.clone()];
            assert_eq!(numbers(&run(op.clone(), &operands).unwrap()), definition(&op, &x, &w, 5.0, &[0.0]));
            assert_decomposes(op, &operands);

            let op = Conv { w_zero: true, ..padding.clone() };
            let operands = [x.clone(), w.clone(), Tensor::scalar_of(w_type, 3.0)];
            assert_eq!(numbers(&run(op.clone(), &operands).unwrap()), definition(&op, &x, &w, 0.0, &[3.0]));
            assert_decomposes(op, &operands);

            let op = Conv { x_zero: true, w_zero: true, ..padding.clone() };
            let w_zeros = [0.0, 3.0, 1.0, 7.0];
            let operands = [x.clone(), w.clone(), x_zero, tensor(w_type, &[4], &w_zeros)];
            assert_eq!(numbers(&run(op.clone(), &operands).unwrap()), definition(&op, &x, &w, 5.0, &w_zeros));
            assert_decomposes(op, &operands);
        }
    }

    #[test]
    fn i32_sums_wrap() {
        let x = tensor(DType::I32, &[1, 2, 1], &[f64::from(i32::MAX), 1.0]);
        let y = run(plain(1), &[x, tensor(DType::I32, &[1, 2, 1], &[1.0, 1.0])]).unwrap();
        assert_eq!(numbers(&y), [f64::from(i32::MIN)]);
    }

    #[test]
    fn nothing_in_or_nothing_out() {
        check(&plain(1), &iota(DType::F32, &[0, 2, 5]), &iota(DType::F32, &[3, 2, 2]));
        check(&plain(1), &iota(DType::F32, &[2, 2, 1]), &iota(DType::F32, &[3, 2, 2]));
        check(&plain(1), &iota(DType::F32, &[2, 2, 5]), &iota(DType::F32, &[0, 2, 2]));
        check(&plain(1), &iota(DType::F32, &[2, 0, 5]), &iota(DType::F32, &[3, 0, 2]));
        check(&plain(1), &iota(DType::I8, &[2, 0, 5]), &iota(DType::I8, &[3, 0, 2]));
    }

    #[test]
    fn results_do_not_depend_on_threads() {
        let x = tensor(DType::F32, &[3, 8, 20, 20], &numbers(&random(DType::F32, &[3, 8, 20, 20], 1)).iter().map(|x| x / 3.0).collect::<Vec<_>>());
        let w = tensor(DType::F32, &[12, 8, 3, 3], &numbers(&random(DType::F32, &[12, 8, 3, 3], 2)).iter().map(|x| x / 7.0).collect::<Vec<_>>());
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(plain(2), &[x.clone(), w.clone()])).unwrap().bytes().unwrap().to_vec()
        };
        assert_eq!(on(1), on(7));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let (x, w) = (ty(DType::F32, &[1, 4, 8]), ty(DType::F32, &[6, 4, 3]));
        let refuse = |op: Conv| refusal(op, &[x.clone(), w.clone()]);
        assert_eq!(
            refuse(Conv { groups: 3, ..plain(1) }),
            "operand 0 has shape f32[1,4,8], but must have channels that 3 groups can share"
        );
        refuse(Conv { groups: 0, ..plain(1) });
        refuse(Conv { groups: 2, ..plain(1) });
        refuse(Conv { strides: vec![0], ..plain(1) });
        refuse(Conv { dilations: vec![0], ..plain(1) });
        refuse(Conv { low: vec![-9], ..plain(1) });
        refuse(Conv { low: vec![i64::MIN], high: vec![i64::MIN], ..plain(1) });
        refuse(Conv { low: vec![i64::MAX], high: vec![i64::MAX], ..plain(1) });
        refuse(Conv { x_zero: true, ..plain(1) });
        refuse(plain(2));
        refusal(plain(1), &[x.clone(), ty(DType::F16, &[6, 4, 3])]);
        refusal(plain(1), &[x.clone(), ty(DType::F32, &[6, 4, 0])]);
        refusal(plain(1), &[x.clone(), ty(DType::F32, &[6, 4])]);
        refusal(Conv { x_zero: true, ..plain(1) }, &[x.clone(), w.clone(), ty(DType::F32, &[])]);
        let (x, w) = (ty(DType::I8, &[1, 4, 8]), ty(DType::I8, &[6, 4, 3]));
        assert_eq!(
            refusal(Conv { w_zero: true, ..plain(1) }, &[x.clone(), w.clone(), ty(DType::I8, &[4])]),
            "operand 2 has shape i8[4], but must have no dimensions, or [6]"
        );
        refusal(Conv { x_zero: true, ..plain(1) }, &[x, w, ty(DType::I8, &[1])]);
    }

    #[test]
    fn huge_strides_and_dilations_are_harmless() {
        let op = Conv { strides: vec![usize::MAX], ..plain(1) };
        check(&op, &random(DType::F32, &[1, 2, 5], 1), &random(DType::F32, &[3, 2, 2], 2));
        let op = Conv { dilations: vec![usize::MAX], ..plain(1) };
        assert_eq!(run(op, &[iota(DType::F32, &[1, 2, 5]), iota(DType::F32, &[3, 2, 2])]).unwrap().shape().dims(), [1, 3, 0]);
        let op = Conv { dilations: vec![usize::MAX], strides: vec![usize::MAX], ..plain(1) };
        check(&op, &random(DType::F32, &[1, 2, 5], 1), &random(DType::F32, &[3, 2, 1], 2));
    }
}
