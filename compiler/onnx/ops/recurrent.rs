//! Recurrent layers, unrolled over their sequence. The products with the input do not depend on the state, so they are
//! one matrix product for all steps; each step adds the product of its state.

use tcc_ir::ops::{BinaryFn, MatMul, UnaryFn};
use tcc_ir::{DType, ValueId};

use super::activation::ramp;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("GRU", |cx| recurrent(cx, Cell::Gru)),
    onnx("LSTM", |cx| recurrent(cx, Cell::Lstm)),
    onnx("RNN", |cx| recurrent(cx, Cell::Rnn)),
];

/// Longest sequence that is unrolled: the graph has tens of nodes for every step.
pub(super) const MAX_STEPS: usize = 1 << 14;

/// The kinds of layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Gru,
    Lstm,
    Rnn,
}

impl Cell {
    /// Rows of weights for each element of the state.
    fn gates(self) -> usize {
        match self {
            Cell::Gru => 3,
            Cell::Lstm => 4,
            Cell::Rnn => 1,
        }
    }

    /// The activations that apply where the node names none.
    fn activations(self) -> &'static [&'static str] {
        match self {
            Cell::Gru => &["Sigmoid", "Tanh"],
            Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
            Cell::Rnn => &["Tanh"],
        }
    }
}

/// An activation with its parameters.
#[derive(Clone, Copy, Debug)]
enum Activation {
    Unary(UnaryFn),
    Relu,
    LeakyRelu { alpha: f64 },
    HardSigmoid { alpha: f64, beta: f64 },
    Affine { alpha: f64, beta: f64 },
}

impl Activation {
    fn apply(self, cx: &mut NodeContext<'_>, x: ValueId) -> Result<ValueId, LowerError> {
        match self {
            Activation::Unary(function) => cx.unary(function, x),
            Activation::Relu => cx.binary_scalar(BinaryFn::Max, x, 0.0),
            Activation::LeakyRelu { alpha } => {
                let below = cx.binary_scalar(BinaryFn::Mul, x, alpha)?;
                let negative = cx.binary_scalar(BinaryFn::Lt, x, 0.0)?;
                cx.select(negative, below, x)
            }
            Activation::HardSigmoid { alpha, beta } => ramp(cx, x, alpha, beta),
            Activation::Affine { alpha, beta } => {
                let scaled = cx.binary_scalar(BinaryFn::Mul, x, alpha)?;
                cx.binary_scalar(BinaryFn::Add, scaled, beta)
            }
        }
    }
}

/// The activations of all directions, in order.
fn activations(cx: &NodeContext<'_>, cell: Cell, directions: usize) -> Result<Vec<Activation>, LowerError> {
    let defaults = cell.activations();
    let names = match cx.strings("activations")? {
        Some(names) => names,
        None => defaults.repeat(directions),
    };
    if names.len() != defaults.len() * directions {
        return Err(LowerError::invalid(format!(
            "{} activations are named where {} are applied",
            names.len(),
            defaults.len() * directions
        )));
    }
    let alphas = cx.floats("activation_alpha")?.unwrap_or(&[]);
    let betas = cx.floats("activation_beta")?.unwrap_or(&[]);
    // Parameters are listed for those activations only that take them.
    let (mut alphas, mut betas) = (alphas.iter().copied(), betas.iter().copied());
    let mut next = |default: f32| f64::from(alphas.next().unwrap_or(default));
    let mut next_beta = |default: f32| f64::from(betas.next().unwrap_or(default));
    names
        .iter()
        .map(|name| {
            Ok(match name.to_ascii_lowercase().as_str() {
                "sigmoid" => Activation::Unary(UnaryFn::Sigmoid),
                "tanh" => Activation::Unary(UnaryFn::Tanh),
                "softplus" => Activation::Unary(UnaryFn::Softplus),
                "relu" => Activation::Relu,
                "leakyrelu" => Activation::LeakyRelu { alpha: next(0.01) },
                "hardsigmoid" => Activation::HardSigmoid { alpha: next(0.2), beta: next_beta(0.5) },
                "affine" => Activation::Affine { alpha: next(1.0), beta: next_beta(0.0) },
                _ => {
                    return Err(LowerError::unsupported(format!(
                        "activation `{name}` of a recurrent layer is not one of Sigmoid, Tanh, Relu, LeakyRelu, \
                         HardSigmoid, Softplus and Affine"
                    )));
                }
            })
        })
        .collect()
}

/// A layer's node, with its operands brought to the layout of sequences first.
struct Layer {
    cell: Cell,
    steps: usize,
    batch: usize,
    hidden: usize,
    /// Inputs of all steps, `[steps · batch, features]`.
    x: ValueId,
    /// Lengths of the sequences, `[batch, 1]`, if they differ.
    lens: Option<ValueId>,
    clip: Option<f32>,
}

/// What one direction computes with.
struct Direction {
    /// Weights of the state, `[gates · hidden, hidden]`.
    r: ValueId,
    /// Bias that is added to the products of the state, `[1, gates · hidden]`, where it cannot join the input's.
    r_bias: Option<ValueId>,
    /// Peephole weights of the input, output and forget gates, `[1, hidden]` each.
    peepholes: Option<[ValueId; 3]>,
    activations: Vec<Activation>,
}

fn recurrent(cx: &mut NodeContext<'_>, cell: Cell) -> Result<Vec<ValueId>, LowerError> {
    let batch_first = cx.flag("layout", false)?;
    let (mut x, w, r) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    if batch_first && cx.rank(x) == 3 {
        x = cx.transpose(x, &[1, 0, 2])?;
    }
    let (&[steps, batch, features], &[directions, rows, hidden]) = (cx.shape(x).dims(), cx.shape(r).dims()) else {
        return Err(LowerError::invalid("the input and the weights must have 3 dimensions each"));
    };
    let reverse_only = match (cx.string("direction")?.unwrap_or("forward"), directions) {
        ("forward", 1) | ("bidirectional", 2) => false,
        ("reverse", 1) => true,
        (direction, _) => {
            return Err(LowerError::invalid(format!("weights of {directions} directions do not fit `{direction}`")));
        }
    };
    if rows != cell.gates() * hidden || cx.shape(w).dims() != [directions, rows, features] {
        return Err(LowerError::invalid(format!(
            "weights of {} and {} do not fit an input of {}",
            cx.ty(w),
            cx.ty(r),
            cx.ty(x)
        )));
    }
    if steps > MAX_STEPS {
        return Err(LowerError::unsupported(format!(
            "a recurrent layer is unrolled, and {steps} steps are more than the {MAX_STEPS} that tcc unrolls: bind the \
             sequence's length to fewer with --dim"
        )));
    }
    let activations = activations(cx, cell, directions)?;
    let x = cx.reshape(x, &[steps * batch, features])?;
    let lens = sequence_lens(cx, steps, batch)?;
    let layer = Layer { cell, steps, batch, hidden, x, lens, clip: cx.float("clip")? };
    let (mut sequences, mut finals, mut cells) = (Vec::new(), Vec::new(), Vec::new());
    for direction in 0..directions {
        let count = cell.activations().len();
        let own = activations[direction * count..][..count].to_vec();
        let backwards = reverse_only || direction == 1;
        let h = initial(cx, &layer, 5, direction, batch_first)?;
        let c = if cell == Cell::Lstm { Some(initial(cx, &layer, 6, direction, batch_first)?) } else { None };
        let (outputs, h, c) = layer.run(cx, direction, own, backwards, h, c)?;
        let mut steps = Vec::with_capacity(outputs.len());
        for output in outputs {
            steps.push(cx.reshape(output, &[1, 1, batch, hidden])?);
        }
        sequences.push(if steps.is_empty() {
            {
            let dtype = cx.dtype(x);
            super::tables::table(cx, dtype, &[0, 1, batch, hidden], Vec::new())?
        }
        } else {
            cx.concat(&steps, 0)?
        });
        finals.push(cx.reshape(h, &[1, batch, hidden])?);
        if let Some(c) = c {
            cells.push(cx.reshape(c, &[1, batch, hidden])?);
        }
    }
    let mut results = vec![cx.concat(&sequences, 1)?, cx.concat(&finals, 0)?];
    if !cells.is_empty() {
        results.push(cx.concat(&cells, 0)?);
    }
    if batch_first {
        results[0] = cx.transpose(results[0], &[2, 0, 1, 3])?;
        for state in &mut results[1..] {
            *state = cx.transpose(*state, &[1, 0, 2])?;
        }
    }
    Ok(results)
}

/// Input 4 as `[batch, 1]`, unless all sequences are known to be complete.
fn sequence_lens(cx: &mut NodeContext<'_>, steps: usize, batch: usize) -> Result<Option<ValueId>, LowerError> {
    let Some(lens) = cx.optional(4) else { return Ok(None) };
    if let Some(known) = cx.known(lens)
        && known.to_i64s()?.is_some_and(|lens| lens.iter().all(|&len| len == steps as i64))
    {
        return Ok(None);
    }
    let lens = cx.cast(lens, DType::I64)?;
    Ok(Some(cx.reshape(lens, &[batch, 1])?))
}

/// The initial state of one direction, `[batch, hidden]`: zeros if input `index` is left out.
fn initial(
    cx: &mut NodeContext<'_>,
    layer: &Layer,
    index: usize,
    direction: usize,
    batch_first: bool,
) -> Result<ValueId, LowerError> {
    let dims = [layer.batch, layer.hidden];
    match cx.optional(index) {
        Some(state) => {
            let own = cx.slice(state, usize::from(batch_first), direction, 1)?;
            cx.reshape(own, &dims)
        }
        None => {
            let zero = cx.scalar_like(layer.x, 0.0);
            cx.broadcast(zero, &dims)
        }
    }
}

impl Layer {
    /// The slice of a weight that belongs to a direction.
    fn own(cx: &mut NodeContext<'_>, weight: ValueId, direction: usize) -> Result<ValueId, LowerError> {
        let dims = cx.shape(weight).to_vec();
        let own = cx.slice(weight, 0, direction, 1)?;
        if dims.len() == 2 { Ok(own) } else { cx.reshape(own, dims.get(1..).unwrap_or(&[])) }
    }

    /// Columns of gate `gate`, and of the `count - 1` after it.
    fn gate(&self, cx: &mut NodeContext<'_>, x: ValueId, gate: usize, count: usize) -> Result<ValueId, LowerError> {
        cx.slice(x, 1, gate * self.hidden, count * self.hidden)
    }

    /// Runs all steps in one direction. Returns the state after each step in the order of the sequence, and the final
    /// states.
    fn run(
        &self,
        cx: &mut NodeContext<'_>,
        index: usize,
        activations: Vec<Activation>,
        backwards: bool,
        mut h: ValueId,
        mut c: Option<ValueId>,
    ) -> Result<(Vec<ValueId>, ValueId, Option<ValueId>), LowerError> {
        let width = self.cell.gates() * self.hidden;
        let (w, r) = (cx.input(1)?, cx.input(2)?);
        let (w, r) = (Self::own(cx, w, index)?, Self::own(cx, r, index)?);
        let mut projected = cx.add(MatMul { transpose_b: true, ..MatMul::default() }, &[self.x, w])?;
        let reset_after = self.cell == Cell::Gru && cx.flag("linear_before_reset", false)?;
        let mut r_bias = None;
        if let Some(bias) = cx.optional(3) {
            let bias = Self::own(cx, bias, index)?;
            let (input, state) = (cx.slice(bias, 1, 0, width)?, cx.slice(bias, 1, width, width)?);
            // Biases of both products join, except where a gate comes in between.
            if reset_after {
                r_bias = Some(state);
                projected = cx.binary(BinaryFn::Add, projected, input)?;
            } else {
                let both = cx.binary(BinaryFn::Add, input, state)?;
                projected = cx.binary(BinaryFn::Add, projected, both)?;
            }
        }
        let peepholes = match cx.optional(7) {
            Some(weights) if self.cell == Cell::Lstm => {
                let weights = Self::own(cx, weights, index)?;
                Some([
                    self.gate(cx, weights, 0, 1)?,
                    self.gate(cx, weights, 1, 1)?,
                    self.gate(cx, weights, 2, 1)?,
                ])
            }
            _ => None,
        };
        let direction = Direction { r, r_bias, peepholes, activations };
        let mut outputs = Vec::with_capacity(self.steps);
        for turn in 0..self.steps {
            let step = if backwards { self.steps - 1 - turn } else { turn };
            let x = cx.slice(projected, 0, step * self.batch, self.batch)?;
            let (next_h, next_c) = match (self.cell, c) {
                (Cell::Lstm, Some(c)) => {
                    let (h, c) = self.lstm(cx, &direction, x, h, c)?;
                    (h, Some(c))
                }
                (Cell::Gru, _) => (self.gru(cx, &direction, reset_after, x, h)?, None),
                (Cell::Rnn | Cell::Lstm, _) => (self.rnn(cx, &direction, x, h)?, None),
            };
            let Some(lens) = self.lens else {
                (h, c) = (next_h, next_c);
                outputs.push(h);
                continue;
            };
            // Sequences that are over keep their state and give zeros.
            let running = cx.binary_scalar(BinaryFn::Gt, lens, step as f64)?;
            let zero = cx.scalar_like(h, 0.0);
            outputs.push(cx.select(running, next_h, zero)?);
            h = cx.select(running, next_h, h)?;
            c = match (next_c, c) {
                (Some(next), Some(c)) => Some(cx.select(running, next, c)?),
                _ => None,
            };
        }
        if backwards {
            outputs.reverse();
        }
        Ok((outputs, h, c))
    }

    /// `x + h · rᵀ`.
    fn joined(cx: &mut NodeContext<'_>, x: ValueId, h: ValueId, r: ValueId) -> Result<ValueId, LowerError> {
        let product = cx.add(MatMul { transpose_b: true, ..MatMul::default() }, &[h, r])?;
        cx.binary(BinaryFn::Add, x, product)
    }

    /// Limits the input of an activation, if the node says so.
    fn limited(&self, cx: &mut NodeContext<'_>, x: ValueId) -> Result<ValueId, LowerError> {
        let Some(limit) = self.clip.map(f64::from) else { return Ok(x) };
        let above = cx.binary_scalar(BinaryFn::Max, x, -limit)?;
        cx.binary_scalar(BinaryFn::Min, above, limit)
    }

    /// An activation of a limited input.
    fn activated(&self, cx: &mut NodeContext<'_>, f: Activation, x: ValueId) -> Result<ValueId, LowerError> {
        let x = self.limited(cx, x)?;
        f.apply(cx, x)
    }

    fn rnn(&self, cx: &mut NodeContext<'_>, d: &Direction, x: ValueId, h: ValueId) -> Result<ValueId, LowerError> {
        let sum = Self::joined(cx, x, h, d.r)?;
        self.activated(cx, d.activations[0], sum)
    }

    fn gru(
        &self,
        cx: &mut NodeContext<'_>,
        d: &Direction,
        reset_after: bool,
        x: ValueId,
        h: ValueId,
    ) -> Result<ValueId, LowerError> {
        let x_gates = self.gate(cx, x, 0, 2)?;
        let x_new = self.gate(cx, x, 2, 1)?;
        let (f, g) = (d.activations[0], d.activations[1]);
        let (gates, new) = if reset_after {
            let mut product = cx.add(MatMul { transpose_b: true, ..MatMul::default() }, &[h, d.r])?;
            if let Some(bias) = d.r_bias {
                product = cx.binary(BinaryFn::Add, product, bias)?;
            }
            let gates = self.gate(cx, product, 0, 2)?;
            let gates = cx.binary(BinaryFn::Add, x_gates, gates)?;
            let gates = self.activated(cx, f, gates)?;
            let reset = self.gate(cx, gates, 1, 1)?;
            let product = self.gate(cx, product, 2, 1)?;
            let kept = cx.binary(BinaryFn::Mul, reset, product)?;
            (gates, cx.binary(BinaryFn::Add, x_new, kept)?)
        } else {
            let r_gates = cx.slice(d.r, 0, 0, 2 * self.hidden)?;
            let r_new = cx.slice(d.r, 0, 2 * self.hidden, self.hidden)?;
            let gates = Self::joined(cx, x_gates, h, r_gates)?;
            let gates = self.activated(cx, f, gates)?;
            let reset = self.gate(cx, gates, 1, 1)?;
            let kept = cx.binary(BinaryFn::Mul, reset, h)?;
            (gates, Self::joined(cx, x_new, kept, r_new)?)
        };
        let new = self.activated(cx, g, new)?;
        let update = self.gate(cx, gates, 0, 1)?;
        // (1 - z) · new + z · h
        let one = cx.scalar_like(update, 1.0);
        let rest = cx.binary(BinaryFn::Sub, one, update)?;
        let fresh = cx.binary(BinaryFn::Mul, rest, new)?;
        let old = cx.binary(BinaryFn::Mul, update, h)?;
        cx.binary(BinaryFn::Add, fresh, old)
    }

    fn lstm(
        &self,
        cx: &mut NodeContext<'_>,
        d: &Direction,
        x: ValueId,
        h: ValueId,
        c: ValueId,
    ) -> Result<(ValueId, ValueId), LowerError> {
        let sum = Self::joined(cx, x, h, d.r)?;
        let mut gates = Vec::with_capacity(4);
        for gate in 0..4 {
            gates.push(self.gate(cx, sum, gate, 1)?);
        }
        let (mut input, mut output, mut forget, new) = (gates[0], gates[1], gates[2], gates[3]);
        let peep = |cx: &mut NodeContext<'_>, gate: ValueId, weight: ValueId, c: ValueId| {
            let seen = cx.binary(BinaryFn::Mul, weight, c)?;
            cx.binary(BinaryFn::Add, gate, seen)
        };
        if let Some([input_weight, _, forget_weight]) = d.peepholes {
            input = peep(cx, input, input_weight, c)?;
            forget = peep(cx, forget, forget_weight, c)?;
        }
        let (f, g, last) = (d.activations[0], d.activations[1], d.activations[2]);
        let input = self.activated(cx, f, input)?;
        let forget = if cx.flag("input_forget", false)? {
            let one = cx.scalar_like(input, 1.0);
            cx.binary(BinaryFn::Sub, one, input)?
        } else {
            self.activated(cx, f, forget)?
        };
        let new = self.activated(cx, g, new)?;
        let kept = cx.binary(BinaryFn::Mul, forget, c)?;
        let added = cx.binary(BinaryFn::Mul, input, new)?;
        let c = cx.binary(BinaryFn::Add, kept, added)?;
        if let Some([_, output_weight, _]) = d.peepholes {
            output = peep(cx, output, output_weight, c)?;
        }
        let output = self.activated(cx, f, output)?;
        let shown = last.apply(cx, c)?;
        Ok((cx.binary(BinaryFn::Mul, output, shown)?, c))
    }
}
