//! Scaled dot-product attention with grouped heads.

use std::borrow::Cow;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::float::{self, Float, FloatKernel};
use super::indexing::check_counted;
use super::mat_mul::product;
use super::{Binary, BinaryFn, MatMul, Reduce, ReduceFn, Reshape, Select, Softmax, Unary, UnaryFn};
use crate::op::{OpError, Operator, OutputTypes, Work, one, same_dtype};
use crate::{DType, Graph, GraphError, Real, Shape, Tensor, TensorType, ValueId};

/// `softmax(cap(scale · q kᵀ) + mask) v` for q `[B, H, S, D]`, k `[B, G, T, D]`, v `[B, G, T, E]`, where each of the
/// G key heads serves H/G neighbouring query heads. Operand 3, if `mask`, is a bool mask (true: attend) or an addend
/// in q's type, and broadcasts to `[B, H, S, T]`. A row with nothing to attend to gives NaN, or 0 if
/// `zero_masked_rows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attention {
    /// Factor of the scores.
    pub scale: Real,
    /// If not 0, scores s become `softcap · tanh(s / softcap)`.
    pub softcap: Real,
    /// If there, query i attends to key j only where `j <= i + causal`.
    pub causal: Option<i64>,
    /// If there, query i attends to key j only where `j > i + causal - window` (needs `causal`).
    pub window: Option<i64>,
    /// There is an operand with the mask.
    pub mask: bool,
    /// Rows with nothing to attend to give 0.
    pub zero_masked_rows: bool,
}

/// Most scores that are held at once for each thread: rows of a long head are computed in blocks of this many.
const SCORES_PER_BLOCK: usize = 1 << 20;

/// The extents of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionDims {
    /// B.
    pub batch: usize,
    /// H: query heads.
    pub heads: usize,
    /// G: key and value heads.
    pub groups: usize,
    /// S: queries.
    pub queries: usize,
    /// T: keys.
    pub keys: usize,
    /// D: features of a query and a key.
    pub depth: usize,
    /// E: features of a value.
    pub value_depth: usize,
}

impl Attention {
    /// Attention of all queries to all keys, with this factor of the scores.
    pub const fn scaled(scale: f64) -> Self {
        Attention {
            scale: Real(scale),
            softcap: Real(0.0),
            causal: None,
            window: None,
            mask: false,
            zero_masked_rows: false,
        }
    }

    /// The extents for q, k and v of the given types.
    pub fn dims(q: &TensorType, k: &TensorType, v: &TensorType) -> Result<AttentionDims, OpError> {
        let four = |operand: usize, ty: &TensorType| {
            <[usize; 4]>::try_from(ty.shape.dims()).map_err(|_| OpError::shape(operand, "four dimensions", ty))
        };
        let [batch, heads, queries, depth] = four(0, q)?;
        let [_, groups, keys, _] = four(1, k)?;
        let [_, _, _, value_depth] = four(2, v)?;
        if k.shape.dims() != [batch, groups, keys, depth] {
            let expected = format!("[{batch}, heads, keys, {depth}] for operand 0 of {q}");
            return Err(OpError::shape(1, expected, k));
        }
        if v.shape.dims() != [batch, groups, keys, value_depth] {
            let expected = format!("[{batch}, {groups}, {keys}, features] for operand 1 of {k}");
            return Err(OpError::shape(2, expected, v));
        }
        if groups == 0 || heads % groups != 0 {
            return Err(OpError::shape(1, format!("a number of heads that divides the {heads} of operand 0"), k));
        }
        if keys == 0 {
            return Err(OpError::shape(1, "at least one key", k));
        }
        Ok(AttentionDims { batch, heads, groups, queries, keys, depth, value_depth })
    }

    /// The keys that query `i` may attend to by `causal` and `window`: a range, possibly empty, within `0..keys`.
    pub fn visible_keys(&self, i: usize, keys: usize) -> std::ops::Range<usize> {
        let Some(causal) = self.causal else { return 0..keys };
        let last = (i as i64).saturating_add(causal);
        let bound = |j: i64| usize::try_from(j.max(0)).map_or(keys, |j| j.min(keys));
        let end = bound(last.saturating_add(1));
        let start = self.window.map_or(0, |window| bound(last.saturating_sub(window).saturating_add(1)));
        start.min(end)..end
    }
}

impl Operator for Attention {
    const NAMES: &'static [&'static str] = &["attention"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let count = 3 + usize::from(self.mask);
        if inputs.len() != count {
            return Err(OpError::Arity { expected: count.to_string(), actual: inputs.len() });
        }
        float::float_operand(inputs, 0)?;
        same_dtype(inputs, 1)?;
        same_dtype(inputs, 2)?;
        let dims = Self::dims(inputs[0], inputs[1], inputs[2])?;
        let scores = Shape::new([dims.batch, dims.heads, dims.queries, dims.keys])?;
        if let Some(mask) = inputs.get(3) {
            if mask.dtype != DType::Bool {
                same_dtype(inputs, 3)?;
            }
            if !mask.shape.broadcasts_to(&scores) {
                return Err(OpError::shape(3, format!("a shape that broadcasts to the scores' {scores}"), mask));
            }
        }
        if self.window.is_some() && self.causal.is_none() {
            return Err(OpError::Attribute("a window needs `causal`, from which it is counted".to_owned()));
        }
        if self.window.is_some_and(|window| window < 0) {
            return Err(OpError::Attribute("the window must not be negative".to_owned()));
        }
        if !(self.scale.0.is_finite() && self.softcap.0.is_finite() && self.softcap.0 >= 0.0) {
            let (scale, softcap) = (self.scale, self.softcap);
            return Err(OpError::Attribute(format!(
                "scale {scale} and softcap {softcap} must be finite, and the softcap not negative"
            )));
        }
        one(inputs[0].dtype, Shape::new([dims.batch, dims.heads, dims.queries, dims.value_depth])?)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        float::evaluate(self, inputs, outputs)
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        let Ok(dims) = Self::dims(inputs[0], inputs[1], inputs[2]) else { return Work::NONE };
        let scores = (dims.batch * dims.heads) as u64 * dims.queries as u64 * dims.keys as u64;
        // The scale and five steps of the softmax, then what else the scores go through.
        let masks = u64::from(self.mask) + u64::from(self.causal.is_some());
        let steps = 6 + masks + if self.softcap.0 == 0.0 { 0 } else { 3 };
        Work { macs: scores * (dims.depth + dims.value_depth) as u64, scalar_ops: scores * steps }
    }

    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        let dims = Self::dims(graph.ty(inputs[0]), graph.ty(inputs[1]), graph.ty(inputs[2])).ok()?;
        Some(self.as_graph(graph, inputs, dims).map(|output| vec![output]))
    }
}

impl Attention {
    fn as_graph(&self, graph: &mut Graph, inputs: &[ValueId], dims: AttentionDims) -> Result<ValueId, GraphError> {
        let AttentionDims { batch, heads, groups, queries, keys, depth, value_depth } = dims;
        let dtype = graph.ty(inputs[0]).dtype;
        // The queries of all heads that share keys are the rows of one product.
        let rows = heads / groups * queries;
        let reshape = |graph: &mut Graph, value, dims: [usize; 4]| {
            let shape = Shape::new(dims).unwrap_or_default();
            if graph.shape(value) == &shape { Ok(value) } else { graph.add(Reshape { shape }, &[value]) }
        };
        let number = |graph: &mut Graph, value| graph.constant(Tensor::scalar_of(dtype, value));
        let q = reshape(graph, inputs[0], [batch, groups, rows, depth])?;
        let scores = graph.add(MatMul { transpose_b: true, ..MatMul::default() }, &[q, inputs[1]])?;
        let mut scores = reshape(graph, scores, [batch, heads, queries, keys])?;
        if self.scale.0 != 1.0 {
            let scale = number(graph, self.scale.0);
            scores = graph.add(Binary(BinaryFn::Mul), &[scores, scale])?;
        }
        if self.softcap.0 != 0.0 {
            let cap = number(graph, self.softcap.0);
            let small = graph.add(Binary(BinaryFn::Div), &[scores, cap])?;
            let bent = graph.add(Unary(UnaryFn::Tanh), &[small])?;
            scores = graph.add(Binary(BinaryFn::Mul), &[bent, cap])?;
        }
        let masked = number(graph, f64::NEG_INFINITY);
        if let Some(&mask) = inputs.get(3) {
            scores = if graph.ty(mask).dtype == DType::Bool {
                graph.add(Select {}, &[mask, scores, masked])?
            } else {
                graph.add(Binary(BinaryFn::Add), &[scores, mask])?
            };
        }
        if let Some(causal) = self.causal {
            // Compared as positions, so that the constants grow with S + T and not with S · T.
            let positions = |count: usize, offset: i64| -> Vec<i64> {
                (0..count).map(|i| (i as i64).saturating_add(offset)).collect()
            };
            check_counted(graph, queries.max(keys))?;
            let column = Shape::new([queries, 1]).unwrap_or_default();
            let position = |graph: &mut Graph, offset: i64| {
                let value = graph.constant(Tensor::vector_i64(positions(queries, offset)));
                graph.add(Reshape { shape: column.clone() }, &[value])
            };
            let key = graph.constant(Tensor::vector_i64(positions(keys, 0)));
            let last = position(graph, causal)?;
            let mut visible = graph.add(Binary(BinaryFn::Le), &[key, last])?;
            if let Some(window) = self.window {
                let before = position(graph, causal.saturating_sub(window))?;
                let near = graph.add(Binary(BinaryFn::Gt), &[key, before])?;
                visible = graph.add(Binary(BinaryFn::And), &[visible, near])?;
            }
            scores = graph.add(Select {}, &[visible, scores, masked])?;
        }
        let mut weights = graph.add(Softmax { axis: 3 }, &[scores])?;
        if self.zero_masked_rows {
            let greatest = graph.add(Reduce { function: ReduceFn::Max, axes: vec![3] }, &[scores])?;
            let nothing = graph.add(Binary(BinaryFn::Eq), &[greatest, masked])?;
            let zero = number(graph, 0.0);
            weights = graph.add(Select {}, &[nothing, zero, weights])?;
        }
        let weights = reshape(graph, weights, [batch, groups, rows, keys])?;
        let y = graph.add(MatMul::default(), &[weights, inputs[2]])?;
        reshape(graph, y, [batch, heads, queries, value_depth])
    }
}

/// The mask operand, read as if it had the scores' shape.
struct Mask<'a, F> {
    kind: MaskKind<'a, F>,
    strides: SmallVec<[usize; 6]>,
}

enum MaskKind<'a, F> {
    Attend(Cow<'a, [u8]>),
    Addend(&'a [F]),
}

impl<F: Float> Mask<'_, F> {
    fn apply(&self, scores: &mut [F], batch: usize, head: usize, query: usize) {
        let start = batch * self.strides[0] + head * self.strides[1] + query * self.strides[2];
        let step = self.strides[3];
        match &self.kind {
            MaskKind::Attend(mask) => {
                for (j, score) in scores.iter_mut().enumerate() {
                    *score = if mask[start + j * step] != 0 { *score } else { F::NEG_INFINITY };
                }
            }
            MaskKind::Addend(mask) => {
                for (j, score) in scores.iter_mut().enumerate() {
                    *score += mask[start + j * step];
                }
            }
        }
    }
}

impl FloatKernel for Attention {
    fn run<F: Float>(&self, inputs: &[&Tensor], values: &[&[F]], out: &TensorType) -> Result<Vec<F>, OpError> {
        let dims = Self::dims(inputs[0].ty(), inputs[1].ty(), inputs[2].ty())?;
        let AttentionDims { batch, heads, groups, queries, keys, depth, value_depth } = dims;
        let mask = match inputs.get(3) {
            None => None,
            Some(mask) => Some(Mask {
                strides: mask.shape().broadcast_strides(&Shape::new([batch, heads, queries, keys])?),
                kind: if mask.dtype() == DType::Bool {
                    MaskKind::Attend(mask.elements()?)
                } else {
                    MaskKind::Addend(values[3])
                },
            }),
        };
        let mut y = vec![F::default(); out.shape.count()];
        if y.is_empty() {
            return Ok(y);
        }
        let (scale, cap) = (F::of(self.scale.0), F::of(self.softcap.0));
        let block = (SCORES_PER_BLOCK / keys).clamp(1, queries);
        let attend = |index: usize, start: usize, y: &mut [F]| {
            let (batch, head) = (index / heads, index % heads);
            let group = batch * groups + head / (heads / groups);
            let rows = y.len() / value_depth;
            let q = &values[0][(index * queries + start) * depth..][..rows * depth];
            let k = &values[1][group * keys * depth..][..keys * depth];
            let v = &values[2][group * keys * value_depth..][..keys * value_depth];
            let mut scores = vec![F::default(); rows * keys];
            product(&mut scores, q, k, [rows, depth, keys], true);
            for (row, scores) in scores.chunks_mut(keys).enumerate() {
                let query = start + row;
                scores.iter_mut().for_each(|score| *score *= scale);
                if self.softcap.0 != 0.0 {
                    scores.iter_mut().for_each(|score| *score = (*score / cap).tanh() * cap);
                }
                if let Some(mask) = &mask {
                    mask.apply(scores, batch, head, query);
                }
                let visible = self.visible_keys(query, keys);
                scores[..visible.start].fill(F::NEG_INFINITY);
                scores[visible.end..].fill(F::NEG_INFINITY);
                float::softmax_row(scores, self.zero_masked_rows);
            }
            product(y, &scores, v, [rows, keys, value_depth], false);
        };
        y.par_chunks_mut(queries * value_depth).enumerate().for_each(|(index, y)| {
            y.par_chunks_mut(block * value_depth).enumerate().for_each(|(part, y)| attend(index, part * block, y));
        });
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{FLOATS, agrees, elements, spread, ty};

    const PLAIN: Attention = Attention::scaled(0.5);

    fn qkv(dtype: DType, heads: usize, groups: usize) -> Vec<Tensor> {
        vec![
            spread(dtype, &[2, heads, 5, 4], 1),
            spread(dtype, &[2, groups, 7, 4], 2),
            spread(dtype, &[2, groups, 7, 3], 3),
        ]
    }

    fn tolerance(dtype: DType) -> f64 {
        match dtype {
            DType::F64 => 1e-14,
            DType::F32 => 1e-6,
            // The decomposition rounds scores and weights to the narrow type.
            DType::F16 => 8.0 * 2.0f64.powi(-11),
            _ => 8.0 * 2.0f64.powi(-8),
        }
    }

    #[test]
    fn weighs_values_by_similarity() {
        let q = elements(&[1, 1, 1, 1], vec![1.0f64]);
        let k = elements(&[1, 1, 2, 1], vec![0.0f64, 2.0 * 3.0f64.ln()]);
        let v = elements(&[1, 1, 2, 1], vec![4.0f64, 8.0]);
        let y = PLAIN.eval(&[&q, &k, &v], &[ty(DType::F64, &[1, 1, 1, 1])]).unwrap();
        // Weights 1/4 and 3/4.
        assert!((y[0].to_f64s().unwrap()[0] - 7.0).abs() < 1e-14);
    }

    #[test]
    fn agrees_with_its_decomposition() {
        for dtype in FLOATS {
            for (heads, groups) in [(4, 4), (4, 2), (3, 1)] {
                for softcap in [0.0, 1.5] {
                    let op = Attention { softcap: Real(softcap), ..PLAIN };
                    agrees(op, &qkv(dtype, heads, groups), tolerance(dtype));
                }
            }
        }
    }

    #[test]
    fn masks_agree_with_their_decomposition() {
        for (causal, window) in [(None, None), (Some(2), None), (Some(2), Some(3)), (Some(-2), None), (Some(1), Some(0))] {
            for zero_masked_rows in [false, true] {
                let op = Attention { causal, window, zero_masked_rows, ..PLAIN };
                let mut operands = qkv(DType::F32, 4, 2);
                agrees(op, &operands, tolerance(DType::F32));
                for mask in [
                    spread(DType::Bool, &[2, 1, 5, 7], 4),
                    spread(DType::Bool, &[4, 1, 7], 5),
                    elements(&[1, 1], vec![0.0f32]),
                    spread(DType::F32, &[5, 7], 6),
                    elements(&[5, 1], vec![0.0, f32::NEG_INFINITY, 1.0, 0.0, f32::NEG_INFINITY]),
                ] {
                    operands.truncate(3);
                    operands.push(mask);
                    agrees(Attention { mask: true, ..op }, &operands, tolerance(DType::F32));
                }
            }
        }
    }

    #[test]
    fn rows_with_nothing_to_attend_to() {
        let operands = qkv(DType::F32, 1, 1);
        let operands: Vec<&Tensor> = operands.iter().collect();
        let out = [ty(DType::F32, &[2, 1, 5, 3])];
        let op = Attention { causal: Some(-2), ..PLAIN };
        let y = op.eval(&operands, &out).unwrap()[0].to_f64s().unwrap();
        assert!(y[..6].iter().all(|x| x.is_nan()) && y[6..15].iter().all(|x| x.is_finite()));
        let op = Attention { zero_masked_rows: true, ..op };
        let y = op.eval(&operands, &out).unwrap()[0].to_f64s().unwrap();
        assert!(y[..6].iter().all(|&x| x == 0.0) && y[6..15].iter().all(|&x| x != 0.0));
    }

    #[test]
    fn long_rows_are_cut_into_blocks() {
        let keys = SCORES_PER_BLOCK / 2 - 1;
        let q = spread(DType::F32, &[1, 1, 5, 2], 1);
        let (k, v) = (spread(DType::F32, &[1, 1, keys, 2], 2), spread(DType::F32, &[1, 1, keys, 1], 3));
        agrees(Attention { causal: Some(1000), ..PLAIN }, &[q, k, v], 1e-4);
    }

    #[test]
    fn visible_keys_follow_causality_and_window() {
        let op = Attention { causal: Some(1), window: Some(2), ..PLAIN };
        assert_eq!(op.visible_keys(0, 9), 0..2);
        assert_eq!(op.visible_keys(4, 9), 4..6);
        assert_eq!(op.visible_keys(40, 9), 9..9);
        assert_eq!(Attention { causal: Some(i64::MAX), window: None, ..op }.visible_keys(3, 9), 0..9);
        assert_eq!(Attention { causal: Some(i64::MIN), window: Some(i64::MAX), ..op }.visible_keys(3, 9), 0..0);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let infer = |op: Attention, dims: &[&[usize]]| {
            let types: Vec<TensorType> = dims.iter().map(|dims| ty(DType::F32, dims)).collect();
            op.infer(&types.iter().collect::<Vec<_>>())
        };
        let (q, k, v): (&[usize], &[usize], &[usize]) = (&[2, 4, 5, 8], &[2, 2, 7, 8], &[2, 2, 7, 3]);
        assert_eq!(infer(PLAIN, &[q, k, v]).unwrap()[0], ty(DType::F32, &[2, 4, 5, 3]));
        assert!(matches!(infer(PLAIN, &[q, k]), Err(OpError::Arity { .. })));
        assert!(matches!(infer(PLAIN, &[&[2, 4, 5], k, v]), Err(OpError::Shape { operand: 0, .. })));
        assert!(matches!(infer(PLAIN, &[q, &[2, 3, 7, 8], &[2, 3, 7, 3]]), Err(OpError::Shape { operand: 1, .. })));
        assert!(matches!(infer(PLAIN, &[q, &[2, 2, 7, 9], v]), Err(OpError::Shape { operand: 1, .. })));
        assert!(matches!(infer(PLAIN, &[q, k, &[2, 2, 6, 3]]), Err(OpError::Shape { operand: 2, .. })));
        assert!(matches!(infer(PLAIN, &[q, &[2, 2, 0, 8], &[2, 2, 0, 3]]), Err(OpError::Shape { operand: 1, .. })));
        let masked = Attention { mask: true, ..PLAIN };
        assert!(infer(masked, &[q, k, v, &[5, 7]]).is_ok());
        assert!(matches!(infer(masked, &[q, k, v, &[7, 5]]), Err(OpError::Shape { operand: 3, .. })));
        for op in [
            Attention { window: Some(3), ..PLAIN },
            Attention { causal: Some(0), window: Some(-1), ..PLAIN },
            Attention { scale: Real(f64::NAN), ..PLAIN },
            Attention { softcap: Real(-1.0), ..PLAIN },
        ] {
            assert!(matches!(infer(op, &[q, k, v]), Err(OpError::Attribute(_))), "{op:?}");
        }
    }
}
