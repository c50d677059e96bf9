//! LSTM with integer weights: inputs and hidden states are quantised by the range they turn out to have, and multiplied
//! as integers. Written out step by step, as all loops are.

use tcc_ir::ops::{BinaryFn, UnaryFn};
use tcc_ir::{DType, Tensor, ValueId};

use super::super::quantization::{dynamic_quantize, integer_mat_mul};
use super::super::recurrent::MAX_STEPS;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft};

pub(in crate::onnx::ops) const FAMILY: &[Entry] = &[microsoft("DynamicQuantizeLSTM", dynamic_quantize_lstm)];

/// Where the inputs lie.
const X: usize = 0;
const W: usize = 1;
const R: usize = 2;
const BIAS: usize = 3;
const LENGTHS: usize = 4;
const INITIAL_H: usize = 5;
const INITIAL_C: usize = 6;
const PEEPHOLES: usize = 7;
const W_SCALE: usize = 8;
const W_ZERO: usize = 9;
const R_SCALE: usize = 10;
const R_ZERO: usize = 11;

/// The integer weights of one direction with their scale and zero point, for products from the right.
#[derive(Clone, Copy)]
struct Weights {
    values: ValueId,
    scale: ValueId,
    zero: ValueId,
}

fn dynamic_quantize_lstm(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    refuse_variants(cx)?;
    let x = cx.input(X)?;
    let (x_shape, r_shape) = (cx.shape(x).clone(), cx.shape(cx.input(R)?).clone());
    let (&[steps, batch, _], &[directions, hidden, _]) = (&x_shape[..], &r_shape[..]) else {
        return Err(LowerError::invalid(format!("X has shape {x_shape} and R {r_shape}; both must have rank 3")));
    };
    let reversed: &[bool] = match cx.string("direction")?.unwrap_or("forward") {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(LowerError::invalid(format!("direction `{other}` is not known"))),
    };
    if reversed.len() != directions || steps == 0 {
        return Err(LowerError::invalid(format!(
            "{steps} steps in {} directions with weights for {directions}",
            reversed.len()
        )));
    }
    if steps > MAX_STEPS {
        return Err(LowerError::unsupported(format!(
            "a recurrent layer is unrolled, and {steps} steps are more than the {MAX_STEPS} that tcc unrolls"
        )));
    }
    // ONNX Runtime quantises the whole sequence at once.
    let (x, x_scale, x_zero) = dynamic_quantize(cx, x)?;
    let mut outputs: [Vec<ValueId>; 3] = Default::default();
    for (direction, &reverse) in reversed.iter().enumerate() {
        let w = weights(cx, [W, W_SCALE, W_ZERO], direction)?;
        let r = weights(cx, [R, R_SCALE, R_ZERO], direction)?;
        let mut gates = product(cx, (x, x_scale, x_zero), w)?;
        if let Some(bias) = cx.optional(BIAS) {
            let bias = row(cx, bias, direction)?;
            let (of_x, of_h) = (cx.slice(bias, 0, 0, 4 * hidden)?, cx.slice(bias, 0, 4 * hidden, 4 * hidden)?);
            let bias = cx.binary(BinaryFn::Add, of_x, of_h)?;
            gates = cx.binary(BinaryFn::Add, gates, bias)?;
        }
        let mut h = initial(cx, INITIAL_H, direction, &[batch, hidden])?;
        let mut c = initial(cx, INITIAL_C, direction, &[batch, hidden])?;
        let mut states = vec![h; steps];
        for index in 0..steps {
            let step = if reverse { steps - 1 - index } else { index };
            let own = cx.slice(gates, 0, step, 1)?;
            let own = cx.reshape(own, &[batch, 4 * hidden])?;
            let quantized = dynamic_quantize(cx, h)?;
            let recurrent = product(cx, quantized, r)?;
            let sums = cx.binary(BinaryFn::Add, own, recurrent)?;
            (h, c) = cell(cx, sums, c, hidden)?;
            states[step] = h;
        }
        for state in &mut states {
            *state = cx.reshape(*state, &[1, 1, batch, hidden])?;
        }
        outputs[0].push(cx.concat(&states, 0)?);
        outputs[1].push(cx.reshape(h, &[1, batch, hidden])?);
        outputs[2].push(cx.reshape(c, &[1, batch, hidden])?);
    }
    let [y, h, c] = outputs;
    Ok(vec![cx.concat(&y, 1)?, cx.concat(&h, 0)?, cx.concat(&c, 0)?])
}

fn refuse_variants(cx: &NodeContext<'_>) -> Result<(), LowerError> {
    let usual = ["Sigmoid", "Tanh", "Tanh"];
    let activations = cx.strings("activations")?.unwrap_or_default();
    let refused = if activations.iter().enumerate().any(|(i, name)| !name.eq_ignore_ascii_case(usual[i % 3])) {
        "activations other than Sigmoid, Tanh, Tanh"
    } else if cx.float_or("clip", 0.0)? > 0.0 {
        "clipped cells"
    } else if cx.flag("input_forget", false)? {
        "coupled input and forget gates"
    } else if cx.optional(LENGTHS).is_some() {
        "sequences of different length"
    } else if cx.optional(PEEPHOLES).is_some() {
        "peepholes"
    } else {
        return Ok(());
    };
    Err(LowerError::unsupported(format!("DynamicQuantizeLSTM with {refused}")))
}

/// Entry `index` of the first axis, without that axis.
fn row(cx: &mut NodeContext<'_>, x: ValueId, index: usize) -> Result<ValueId, LowerError> {
    let dims = cx.shape(x).to_vec();
    let slice = cx.slice(x, 0, index, 1)?;
    cx.reshape(slice, dims.get(1..).unwrap_or_default())
}

fn weights(
    cx: &mut NodeContext<'_>,
    [values, scale, zero]: [usize; 3],
    direction: usize,
) -> Result<Weights, LowerError> {
    let (values, scale, zero) = (cx.input(values)?, cx.input(scale)?, cx.input(zero)?);
    Ok(Weights {
        values: row(cx, values, direction)?,
        scale: row(cx, scale, direction)?,
        zero: row(cx, zero, direction)?,
    })
}

/// Multiplies quantised floats (integers, scale, zero point) by weights into floats.
fn product(
    cx: &mut NodeContext<'_>,
    (x, x_scale, x_zero): (ValueId, ValueId, ValueId),
    weights: Weights,
) -> Result<ValueId, LowerError> {
    let sums = integer_mat_mul(cx, (x, Some(x_zero)), (weights.values, Some(weights.zero)), (false, false))?;
    let factor = cx.binary(BinaryFn::Mul, x_scale, weights.scale)?;
    let sums = cx.cast(sums, DType::F32)?;
    cx.binary(BinaryFn::Mul, sums, factor)
}

/// An initial state: the input's entry for the direction, or zeros.
fn initial(cx: &mut NodeContext<'_>, input: usize, direction: usize, dims: &[usize]) -> Result<ValueId, LowerError> {
    match cx.optional(input) {
        Some(state) => row(cx, state, direction),
        None => {
            let zero = cx.constant(Tensor::scalar(0.0f32));
            cx.broadcast(zero, dims)
        }
    }
}

/// One step of the cell from the sums of its gates (input, output, forget, cell): the next hidden and cell state.
fn cell(cx: &mut NodeContext<'_>, sums: ValueId, c: ValueId, hidden: usize) -> Result<(ValueId, ValueId), LowerError> {
    let mut gate = |index: usize, function: UnaryFn| -> Result<ValueId, LowerError> {
        let slice = cx.slice(sums, 1, index * hidden, hidden)?;
        cx.unary(function, slice)
    };
    let input = gate(0, UnaryFn::Sigmoid)?;
    let output = gate(1, UnaryFn::Sigmoid)?;
    let forget = gate(2, UnaryFn::Sigmoid)?;
    let update = gate(3, UnaryFn::Tanh)?;
    let kept = cx.binary(BinaryFn::Mul, forget, c)?;
    let added = cx.binary(BinaryFn::Mul, input, update)?;
    let c = cx.binary(BinaryFn::Add, kept, added)?;
    let shown = cx.unary(UnaryFn::Tanh, c)?;
    Ok((cx.binary(BinaryFn::Mul, output, shown)?, c))
}
