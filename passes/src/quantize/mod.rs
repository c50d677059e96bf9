//! Quantisation: products of floats become products of 8-bit integers, for machines that multiply nothing else, or
//! integers faster. Comes between clean-up and a target's own passes.
//!
//! Integers are symmetric: a value is its integer, from -127 to 127, times a scale. What has no sign, as behind a rectifier
//! or a softmax, goes from 0 to 255. Weights have a scale for each channel of the result, which follows from their values when
//! they are packed and not before, so that a model whose weights are not there can be quantised too. Activations have one
//! scale for the whole tensor where calibration saw how large they are, and that serves all rows; otherwise a scale for each
//! row, found at run time from its largest value.
//!
//! The pass only puts integers and their way back to floats before products; [`integer_products`] takes the scales behind
//! them. Of an attention the exponentials are quantised instead of the weights: the largest in each row is 1, so that one
//! scale known beforehand serves all rows, however many keys share the sum that the result is then divided by.
//!
//! [`with_weights_of_four_bits`] is another quantisation: products stay those of floats, and their weights become smaller.

mod products;
mod ranges;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::HashMap;

use tcc_ir::ops::{Binary, BinaryFn, Cast, Dequantize, Quantize, Reduce, ReduceFn, Unary, UnaryFn};
use tcc_ir::{DType, Def, EvalError, Graph, GraphError, Node, Op, Tensor, ValueId, evaluate_with};

use crate::cleanup::clean_up;
use crate::integer_products::integer_products;
use products::{Operand, OperandKind, Product, products, without_attention};

pub use products::{WeightProducts, float_products};
pub use ranges::Ranges;
pub use weights::{FewBits, with_weights_of_four_bits};

/// The least size that a row is taken to have, 2^-100, so that rows of zeros have a scale too.
const LEAST: f32 = f32::from_bits((127 - 100) << 23);

/// Which products are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of weights with activations.
    Weights,
    /// Those of two activations too: attention is taken apart for that.
    All,
}

/// A graph whose products were quantised.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The graph.
    pub graph: Graph,
    /// How many activations of products have one scale, from calibration.
    pub calibrated: usize,
    /// How many have scales of rows, found at run time.
    pub dynamic: usize,
}

/// A graph whose products can be quantised.
#[derive(Clone, Debug)]
pub struct Quantizer {
    graph: Graph,
    products: Vec<Product>,
}

impl Quantizer {
    /// Finds the products of a cleaned-up graph that are still in floats. Of those, what chooses among its results by their
    /// size stays so, as a router that sends tokens to experts does, and outer products do.
    ///
    /// # Errors
    /// An attention cannot be taken apart.
    pub fn new(graph: &Graph, scope: Scope) -> Result<Self, GraphError> {
        let graph = integer_products(graph)?;
        let graph = match scope {
            Scope::Weights => graph.into_owned(),
            Scope::All => without_attention(&graph)?,
        };
        let products = products(&graph, scope);
        Ok(Quantizer { graph, products })
    }

    /// How many products are quantised.
    pub fn products(&self) -> usize {
        self.products.len()
    }

    /// The sizes of the activations of its products when nothing was seen.
    pub fn unseen(&self) -> Ranges {
        Ranges::new(self.products.iter().map(|product| self.graph.node(product.node).origin.clone()))
    }

    /// Evaluates the graph, and tells how large the activations of its products are.
    ///
    /// # Errors
    /// The inputs do not fit, or the weights were not loaded.
    pub fn ranges(&self, inputs: &[Tensor]) -> Result<Ranges, EvalError> {
        let mut ranges = self.unseen();
        let mut readers: HashMap<ValueId, Vec<(usize, usize)>> = HashMap::new();
        for (number, product) in self.products.iter().enumerate() {
            for (place, operand) in product.operands.iter().enumerate() {
                if operand.kind == OperandKind::Activation {
                    readers.entry(operand.value).or_default().push((number, place));
                }
            }
        }
        let mut absent = None;
        let mut observe = |value: ValueId, tensor: &Tensor| {
            for &(number, place) in readers.get(&value).into_iter().flatten() {
                let product = &self.products[number];
                if let Err(error) = ranges.observe(number, place, tensor, &product.operands[place].axes) {
                    absent = Some((product.node, error));
                }
            }
        };
        for (&value, tensor) in self.graph.inputs().iter().zip(inputs) {
            observe(value, tensor);
        }
        evaluate_with(&self.graph, inputs, |node, results| {
            for (&value, tensor) in self.graph.node(node).outputs.iter().zip(results) {
                observe(value, tensor);
            }
        })?;
        if let Some((node, error)) = absent {
            let node = self.graph.node(node);
            return Err(GraphError { origin: node.origin.clone(), op: node.op.name(), error: error.into() }.into());
        }
        ranges.seen();
        Ok(ranges)
    }

    /// The graph with its products in integers. Activations of which `ranges` know nothing get their scales at run time.
    ///
    /// # Errors
    /// A defect of this pass.
    pub fn quantize(&self, ranges: &Ranges) -> Result<Quantized, GraphError> {
        let (mut calibrated, mut dynamic) = (0, 0);
        let mut numbers: Vec<Option<usize>> = vec![None; self.graph.node_count()];
        (0..).zip(&self.products).for_each(|(number, product)| numbers[product.node.index()] = Some(number));
        let mut new = Graph::new(self.graph.name().clone());
        let mut map: Vec<ValueId> = Vec::with_capacity(self.graph.value_count());
        for (_, value) in self.graph.values() {
            match &value.def {
                Def::Input(_) => map.push(new.add_input(value.name.clone(), value.ty.clone())),
                Def::Constant(tensor) => map.push(new.add_constant(value.name.clone(), tensor.clone())),
                Def::Node { output, .. } if *output > 0 => {}
                Def::Node { node: id, .. } => {
                    let node = self.graph.node(*id);
                    new.set_origin(node.origin.clone());
                    let inputs: Vec<ValueId> = node.inputs.iter().map(|input| map[input.index()]).collect();
                    let results = match numbers[id.index()] {
                        Some(number) => {
                            let product = &self.products[number];
                            let scales = ranges.scales(number, product.operands.each_ref().map(Operand::largest));
                            for (operand, scale) in product.operands.iter().zip(scales) {
                                match (operand.kind, scale) {
                                    (OperandKind::Activation, Some(_)) => calibrated += 1,
                                    (OperandKind::Activation, None) => dynamic += 1,
                                    (OperandKind::Constant | OperandKind::Softmax, _) => {}
                                }
                            }
                            vec![self.product(&mut new, &map, product, scales)?]
                        }
                        None => new.add_multi(node.op.clone(), &inputs)?.to_vec(),
                    };
                    for (&old, &result) in node.outputs.iter().zip(&results) {
                        new.rename(result, self.graph.value(old).name.clone());
                    }
                    map.extend(results);
                }
            }
        }
        for output in self.graph.outputs() {
            new.add_output(output.name.clone(), map[output.value.index()]);
        }
        Ok(Quantized { graph: clean_up(&new), calibrated, dynamic })
    }

    /// The product of quantised operands in the type that it had.
    fn product(
        &self,
        new: &mut Graph,
        map: &[ValueId],
        product: &Product,
        scales: [Option<f32>; 2],
    ) -> Result<ValueId, GraphError> {
        let node: &Node = self.graph.node(product.node);
        let mut divisor = None;
        let mut operands = Vec::with_capacity(2);
        for (operand, scale) in product.operands.iter().zip(scales) {
            operands.push(match (operand.kind, scale) {
                (OperandKind::Softmax, _) => {
                    let (exponentials, sum) = self.exponentials(new, map, operand.value)?;
                    divisor = Some(sum);
                    with_scale(new, exponentials, &[], operand, 1.0 / operand.largest())?
                }
                (OperandKind::Activation, Some(scale)) => {
                    // Before views, so that what computes the value can round it.
                    let (value, views) = behind_views(&self.graph, operand.value);
                    let value = widened(new, map[value.index()])?;
                    with_scale(new, value, &views, operand, scale)?
                }
                (OperandKind::Activation, None) => {
                    let value = widened(new, map[operand.value.index()])?;
                    with_scales_of_rows(new, value, operand)?
                }
                (OperandKind::Constant, _) => {
                    let value = widened(new, map[operand.value.index()])?;
                    constant(new, value, operand)?
                }
            });
        }
        let mut result = new.add(node.op.clone(), &operands)?;
        if let Some(divisor) = divisor {
            let factor = new.add(Unary(UnaryFn::Recip), &[divisor])?;
            result = new.add(Binary(BinaryFn::Mul), &[result, factor])?;
        }
        match self.graph.ty(node.output()).dtype {
            DType::F32 => Ok(result),
            to => new.add(Cast { to }, &[result]),
        }
    }

    /// What a softmax divides by its sums, and the sums.
    fn exponentials(
        &self,
        new: &mut Graph,
        map: &[ValueId],
        weights: ValueId,
    ) -> Result<(ValueId, ValueId), GraphError> {
        let scores = self.graph.producer(weights).map_or(weights, |id| self.graph.node(id).inputs[0]);
        let scores = widened(new, map[scores.index()])?;
        let axes = vec![new.shape(scores).rank() - 1];
        let most = new.add(Reduce { function: ReduceFn::Max, axes: axes.clone() }, &[scores])?;
        let below = new.add(Binary(BinaryFn::Sub), &[scores, most])?;
        let exponentials = new.add(Unary(UnaryFn::Exp), &[below])?;
        let sum = new.add(Reduce { function: ReduceFn::Sum, axes }, &[exponentials])?;
        Ok((exponentials, sum))
    }
}

/// A value in binary32.
fn widened(graph: &mut Graph, value: ValueId) -> Result<ValueId, GraphError> {
    match graph.ty(value).dtype {
        DType::F32 => Ok(value),
        _ => graph.add(Cast { to: DType::F32 }, &[value]),
    }
}

/// What a value is a view of with the same elements, and the views.
fn behind_views(graph: &Graph, mut value: ValueId) -> (ValueId, Vec<Op>) {
    let mut views = Vec::new();
    while let Some(node) = graph.producer(value).map(|id| graph.node(id))
        && matches!(node.op, Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_))
    {
        views.insert(0, node.op.clone());
        value = node.inputs[0];
    }
    (value, views)
}

/// A value rounded to integers with one scale that is known, seen through views.
fn with_scale(
    graph: &mut Graph,
    value: ValueId,
    views: &[Op],
    operand: &Operand,
    scale: f32,
) -> Result<ValueId, GraphError> {
    let factor = graph.constant(Tensor::scalar(1.0 / scale));
    let scale = graph.constant(Tensor::scalar(scale));
    let mut integers = integers(graph, value, operand, factor)?;
    for view in views {
        integers = graph.add(view.clone(), &[integers])?;
    }
    graph.add(Dequantize { zero: false }, &[integers, scale])
}

/// A value rounded to integers with scales that its own rows give.
fn with_scales_of_rows(graph: &mut Graph, value: ValueId, operand: &Operand) -> Result<ValueId, GraphError> {
    let scale = scales_of_rows(graph, value, operand)?;
    let factor = graph.add(Unary(UnaryFn::Recip), &[scale])?;
    let integers = integers(graph, value, operand, factor)?;
    graph.add(Dequantize { zero: false }, &[integers, scale])
}

/// Weights rounded to integers, with a scale for each channel. The division costs nothing: weights are packed so.
fn constant(graph: &mut Graph, value: ValueId, operand: &Operand) -> Result<ValueId, GraphError> {
    let scale = scales_of_rows(graph, value, operand)?;
    let integers = graph.add(Quantize { to: operand.integers(), zero: false }, &[value, scale])?;
    graph.add(Dequantize { zero: false }, &[integers, scale])
}

/// The scale with which the largest value of each row becomes the largest integer.
fn scales_of_rows(graph: &mut Graph, value: ValueId, operand: &Operand) -> Result<ValueId, GraphError> {
    let sizes = if operand.unsigned { value } else { graph.add(Unary(UnaryFn::Abs), &[value])? };
    let most = graph.add(Reduce { function: ReduceFn::Max, axes: operand.axes.clone() }, &[sizes])?;
    let least = graph.constant(Tensor::scalar(LEAST));
    let most = graph.add(Binary(BinaryFn::Max), &[most, least])?;
    let share = graph.constant(Tensor::scalar(1.0 / operand.largest()));
    graph.add(Binary(BinaryFn::Mul), &[most, share])
}

/// `value · factor` rounded to the nearest integers, halves to even ones. The conversion saturates.
fn integers(graph: &mut Graph, value: ValueId, operand: &Operand, factor: ValueId) -> Result<ValueId, GraphError> {
    let scaled = graph.add(Binary(BinaryFn::Mul), &[value, factor])?;
    let rounded = graph.add(Unary(UnaryFn::Round), &[scaled])?;
    graph.add(Cast { to: operand.integers() }, &[rounded])
}
