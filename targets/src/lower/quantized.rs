//! Weights that follow from fewer bits: integers of at most eight bits, or floats of as many, less zero points and times scales.
//!
//! What follows from constants is not computed at run time. But where memory is what a kernel waits for, it had better read the few
//! bits and make the rest of them itself: so it is done where products and look-ups read such weights. What is rearranged on the way
//! from the integers to the weights is rearranged in the integers, scales and zero points when they are packed, such that what a
//! product sums over lies beside each other in all of them.

use std::collections::{HashMap, HashSet};

use tcc_ir::ops::{BinaryFn, MatMul, Slice, Transpose};
use tcc_ir::{DType, Graph, Node, Op, Shape, ValueId, View, is_view};
use tcc_passes::derived_constants;

use super::elements::{Coords, Elements};
use crate::kernel::{ExprId, Scalar};
use crate::target::TargetError;

/// Weights are read as few bits if those have at most so many bytes of each four that the weights have.
const QUARTERS: u64 = 3;

/// A constant, or what follows from constants, as it is packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arranged {
    /// The value.
    pub value: ValueId,
    /// Which of its elements are packed, in their order.
    pub view: View,
}

/// What goes with groups of integers: a scale or a zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// The same for all: the bits of a binary64 if it is a float, else of an integer.
    Known(DType, u64),
    /// One for each so many integers along the last dimension, among what is packed by this number.
    Groups(u32, DType, usize),
}

impl Parameter {
    /// Integers beside each other that have the same.
    fn group(self) -> Option<usize> {
        match self {
            Parameter::Known(..) => None,
            Parameter::Groups(_, _, size) => Some(size),
        }
    }

    /// The same whatever is packed where.
    fn form(self) -> Parameter {
        match self {
            Parameter::Known(..) => self,
            Parameter::Groups(_, dtype, size) => Parameter::Groups(0, dtype, size),
        }
    }
}

/// Weights that follow from fewer bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quantized {
    /// What is packed: integers, and their type.
    pub integers: u32,
    pub stored: DType,
    pub zero: Option<Parameter>,
    pub scale: Parameter,
    /// What products with the scale are rounded to.
    pub rounded: DType,
    /// Whether the last two dimensions of the weights are exchanged in what is packed.
    pub turned: bool,
    /// The shape that they have there.
    pub shape: Shape,
}

impl Quantized {
    /// The same whatever is packed where: what weights have in common that one kernel can be written for.
    pub fn form(&self) -> Quantized {
        Quantized { integers: 0, zero: self.zero.map(Parameter::form), scale: self.scale.form(), ..self.clone() }
    }

    /// Most integers, up to so many, that lie beside each other wherever a multiple of them begins, and have one scale and one zero
    /// point.
    pub fn together(&self, most: usize) -> usize {
        let groups = [self.scale.group(), self.zero.and_then(Parameter::group)];
        let sizes = groups.into_iter().flatten().chain(self.shape.last().copied());
        let fits = |count: &usize| sizes.clone().all(|size| size.is_multiple_of(*count));
        let powers = (0..usize::BITS).map(|power| 1 << power).take_while(|&count| count <= most);
        powers.filter(fits).max().unwrap_or(1)
    }
}

/// What of a graph follows from constants, and how kernels read it.
#[derive(Debug, Default)]
pub(crate) struct Constants {
    /// Which values follow from constants alone.
    pub derived: Vec<bool>,
    quantized: HashMap<ValueId, Quantized>,
    /// What is packed for weights of few bits.
    pub arranged: Vec<Arranged>,
}

impl Constants {
    /// Looks at a graph, in which some products read weights as few bits.
    pub fn new(graph: &Graph, reads_few_bits: impl Fn(&Graph, &Node, &MatMul) -> bool) -> Constants {
        let mut constants = Constants { derived: derived_constants(graph), ..Constants::default() };
        let (mut factors, mut tables) = (Vec::new(), Vec::new());
        let mut many: HashSet<ValueId> = HashSet::new();
        for (_, node) in graph.nodes() {
            match &node.op {
                Op::MatMul(product) if reads_few_bits(graph, node, product) => {
                    factors.push((node.inputs[1], !product.transpose_b));
                }
                Op::MatMul(_) => many.extend(&node.inputs),
                Op::Gather(_) => tables.push((node.inputs[0], false)),
                _ => {}
            }
        }
        // What products want goes before what look-ups want, to which it is all the same.
        let all = factors.into_iter().chain(tables).filter(|(value, _)| !many.contains(value));
        all.for_each(|(value, turned)| constants.look_at(graph, value, turned));
        constants
    }

    /// Weights of few bits, if a value is such.
    pub fn quantized(&self, value: ValueId) -> Option<&Quantized> {
        self.quantized.get(&value)
    }

    fn look_at(&mut self, graph: &Graph, value: ValueId, turned: bool) {
        if !self.derived[value.index()] || self.quantized.contains_key(&value) {
            return;
        }
        if let Some(quantized) = self.found(graph, value, turned) {
            self.quantized.insert(value, quantized);
        }
    }

    fn found(&mut self, graph: &Graph, value: ValueId, turned: bool) -> Option<Quantized> {
        let Traced { integers, zero, scale, rounded, .. } = trace(graph, value)?;
        let ty = graph.ty(value);
        let (rank, stored) = (ty.shape.rank(), graph.ty(integers.value).dtype);
        if ty.shape.count() == 0 || rank < if turned { 2 } else { 1 } {
            return None;
        }
        let mut dims: Vec<usize> = ty.shape.to_vec();
        let mut perm: Vec<usize> = (0..rank).collect();
        if turned {
            perm.swap(rank - 2, rank - 1);
            dims.swap(rank - 2, rank - 1);
        }
        let shape = Shape::new(dims).ok()?;
        let turn = Op::Transpose(Transpose { perm });
        let view = |part: &Part| part.view.through(&turn, &shape);
        let integers = Arranged { value: integers.value, view: view(&integers)? };
        let zero = zero.map(|zero| Some((zero.value, view(&zero)?)));
        let zero = if let Some(zero) = zero { Some(zero?) } else { None };
        let scale = scale?;
        let scale = (scale.value, view(&scale)?);
        let parameters =
            [Some(&scale), zero.as_ref()].map(|parameter| parameter.map(|parameter| of_groups(graph, parameter)));
        let [Some(Some(scale)), zero] = parameters else { return None };
        let zero = if let Some(zero) = zero { Some(zero?) } else { None };
        // All that is read, against what the weights would have.
        let bytes = |found: &Found| match found {
            Found::Known(..) => 0,
            Found::Groups(Arranged { value, view }, _) => graph.ty(*value).dtype.bytes(view.shape().count()) as u64,
        };
        let few = stored.bytes(shape.count()) as u64 + bytes(&scale) + zero.as_ref().map_or(0, bytes);
        if 4 * few > QUARTERS * ty.dtype.bytes(shape.count()) as u64 {
            return None;
        }
        let scale = self.parameter(graph, scale);
        let zero = zero.map(|zero| self.parameter(graph, zero));
        Some(Quantized { integers: self.pack(integers), stored, zero, scale, rounded, turned, shape })
    }

    fn parameter(&mut self, graph: &Graph, found: Found) -> Parameter {
        match found {
            Found::Known(dtype, bits) => Parameter::Known(dtype, bits),
            Found::Groups(arranged, size) => {
                let dtype = graph.ty(arranged.value).dtype;
                Parameter::Groups(self.pack(arranged), dtype, size)
            }
        }
    }

    /// The number of what is packed, which is packed once.
    pub fn pack(&mut self, arranged: Arranged) -> u32 {
        let known = self.arranged.iter().position(|known| *known == arranged);
        let number = known.unwrap_or(self.arranged.len());
        if number == self.arranged.len() {
            self.arranged.push(arranged);
        }
        number as u32
    }
}

/// A parameter before it is packed.
enum Found {
    Known(DType, u64),
    Groups(Arranged, usize),
}

/// How a parameter that is read through a view is the same for groups along the last dimension.
fn of_groups(graph: &Graph, (value, view): &(ValueId, View)) -> Option<Found> {
    if let Some(tensor) = graph.as_constant(*value).filter(|tensor| tensor.shape().count() == 1) {
        let known = match tensor.dtype().is_float() {
            true => tensor.to_f64s().ok().and_then(|all| all.first().map(|x| x.to_bits())),
            false => tensor.to_i64s().ok().flatten().and_then(|all| all.first().map(|&x| x as u64)),
        };
        if let Some(bits) = known {
            return Some(Found::Known(tensor.dtype(), bits));
        }
    }
    let groups = view.groups()?;
    let repeated = groups.last()?.iter().rev().take_while(|atom| atom.stride == 0);
    let size: usize = repeated.map(|atom| atom.size).product();
    let (&all, lead) = view.shape().split_last()?;
    let apart = Shape::new(lead.iter().copied().chain([all / size, size])).ok()?;
    let first = Shape::new(lead.iter().copied().chain([all / size, 1])).ok()?;
    let rank = first.rank();
    let slice = Slice { starts: vec![0; rank], steps: vec![1; rank], sizes: first.to_vec() };
    let view = view.reshape(apart).slice(&slice, &first)?;
    let view = view.reshape(Shape::new(lead.iter().copied().chain([all / size])).ok()?);
    Some(Found::Groups(Arranged { value: *value, view }, size))
}

/// How a value is read from another.
#[derive(Clone, Debug)]
struct Part {
    value: ValueId,
    view: View,
}

impl Part {
    fn whole(graph: &Graph, value: ValueId) -> Part {
        Part { value, view: View::dense(graph.shape(value).clone()) }
    }
}

/// What a value is made of.
#[derive(Clone, Debug)]
struct Traced {
    integers: Part,
    zero: Option<Part>,
    scale: Option<Part>,
    /// What it is rounded to, if there is a scale.
    rounded: DType,
}

impl Traced {
    fn map(self, see: impl Fn(&View) -> Option<View>) -> Option<Traced> {
        let part = |part: Part| Some(Part { value: part.value, view: see(&part.view)? });
        let maybe = |some: Option<Part>| match some {
            Some(some) => part(some).map(Some),
            None => Some(None),
        };
        let (zero, scale) = (maybe(self.zero)?, maybe(self.scale)?);
        Some(Traced { integers: part(self.integers)?, zero, scale, ..self })
    }
}

/// Whether integers, or floats of eight bits, are worth to be read as they are.
fn is_narrow(dtype: DType) -> bool {
    use DType::{F8E4M3, F8E5M2, I4, I8, U4, U8};
    matches!(dtype, I4 | U4 | I8 | U8 | F8E4M3 | F8E5M2)
}

/// Whether a type has all integers of at most eight bits and their differences.
fn has_differences(dtype: DType) -> bool {
    use DType::{BF16, F16, F32, I16, I32, I64};
    matches!(dtype, I16 | I32 | I64 | F32 | F16 | BF16)
}

/// What a value is made of, as far as it can be seen.
fn trace(graph: &Graph, value: ValueId) -> Option<Traced> {
    let made = graph.producer(value).and_then(|id| made_by(graph, graph.node(id)));
    let dtype = graph.ty(value).dtype;
    made.or_else(|| {
        let integers = Part::whole(graph, value);
        is_narrow(dtype).then_some(Traced { integers, zero: None, scale: None, rounded: DType::F32 })
    })
}

fn made_by(graph: &Graph, node: &Node) -> Option<Traced> {
    let shape = graph.shape(node.output());
    let dtype = graph.ty(node.output()).dtype;
    let operand = |place: usize| trace(graph, node.inputs[place])?.map(|view| view.broadcast(shape));
    let parameter = |place: usize| {
        let Part { value, view } = parameter(graph, node.inputs[place]);
        Some(Part { value, view: view.broadcast(shape)? })
    };
    let type_of = |part: &Part| graph.ty(part.value).dtype;
    // Where the product with the scale is of 16 bits, so is the scale: kernels multiply numbers of the type that is rounded to.
    let scaled = |traced: Traced, scale: Part| {
        let fits = match dtype {
            DType::F32 => matches!(type_of(&scale), DType::F32 | DType::F16 | DType::BF16),
            DType::F16 | DType::BF16 => type_of(&scale) == dtype,
            _ => false,
        };
        (fits && traced.scale.is_none()).then_some(Traced { scale: Some(scale), rounded: dtype, ..traced })
    };
    let without_zero = |traced: Traced, zero: Part| {
        let fits = traced.zero.is_none() && traced.scale.is_none() && type_of(&zero) == type_of(&traced.integers);
        fits.then_some(Traced { zero: Some(zero), ..traced })
    };
    match &node.op {
        op if is_view(op) => trace(graph, node.inputs[0])?.map(|view| view.through(op, shape)),
        Op::Cast(_) => {
            let traced = operand(0)?;
            match &traced.scale {
                None => has_differences(dtype).then_some(traced),
                // Rounded once, or not at all.
                Some(_) if dtype == DType::F32 => Some(traced),
                Some(scale) if traced.rounded == DType::F32 && type_of(scale) == dtype => {
                    Some(Traced { rounded: dtype, ..traced })
                }
                Some(_) => None,
            }
        }
        Op::Binary(op) if op.0 == BinaryFn::Sub && has_differences(dtype) => without_zero(operand(0)?, parameter(1)?),
        Op::Binary(op) if op.0 == BinaryFn::Mul => match operand(0) {
            Some(traced) => scaled(traced, parameter(1)?),
            None => scaled(operand(1)?, parameter(0)?),
        },
        Op::Dequantize(op) => {
            let mut traced = operand(0)?;
            if op.zero {
                traced = without_zero(traced, parameter(2)?)?;
            }
            scaled(traced, parameter(1)?)
        }
        _ => None,
    }
}

/// A scale or a zero point as it is before it is widened and repeated.
fn parameter(graph: &Graph, value: ValueId) -> Part {
    let whole = || Part::whole(graph, value);
    let Some(node) = graph.producer(value).map(|id| graph.node(id)) else { return whole() };
    let shape = graph.shape(value);
    match &node.op {
        op if is_view(op) => {
            let Part { value, view } = parameter(graph, node.inputs[0]);
            view.through(op, shape).map_or_else(whole, |view| Part { value, view })
        }
        Op::Cast(op) => {
            let from = graph.ty(node.inputs[0]).dtype;
            let is_wider = match from.is_float() {
                true => op.to.is_float() && from.bits() <= 16 && op.to.bits() == 32,
                false => is_narrow(from) && has_differences(op.to),
            };
            if is_wider { parameter(graph, node.inputs[0]) } else { whole() }
        }
        _ => whole(),
    }
}

impl Elements<'_> {
    /// Where the parameter of a group lies that has the integer at some coordinates.
    pub fn index_of_group(&mut self, parameter: Parameter, shape: &Shape, coords: &[ExprId]) -> ExprId {
        let Parameter::Groups(_, _, size) = parameter else { return self.builder.integer(0) };
        let mut dims = shape.to_vec();
        let mut at = Coords::from_slice(coords);
        if let (Some(extent), Some(last)) = (dims.last_mut(), at.last_mut()) {
            *extent /= size;
            *last = match *extent {
                1 => self.builder.integer(0),
                _ => self.builder.divided(*last, size as i32).0,
            };
        }
        self.index_in(&dims, &at)
    }

    fn parameter(&mut self, parameter: Parameter, shape: &Shape, coords: &[ExprId]) -> ExprId {
        match parameter {
            Parameter::Known(dtype, bits) => self.builder.number(dtype, bits),
            Parameter::Groups(number, ..) => {
                let index = self.index_of_group(parameter, shape, coords);
                let buffer = self.arranged(number);
                self.builder.load(buffer, index, "parameter")
            }
        }
    }

    /// The scale and the zero point of the integer at some coordinates in what is packed.
    pub fn scale_and_zero(&mut self, quantized: &Quantized, coords: &[ExprId]) -> (ExprId, Option<ExprId>) {
        let scale = self.parameter(quantized.scale, &quantized.shape, coords);
        (scale, quantized.zero.map(|zero| self.parameter(zero, &quantized.shape, coords)))
    }

    /// Coordinates in what is packed for weights.
    pub fn packed_coords(&self, quantized: &Quantized, coords: &[ExprId]) -> Coords {
        let mut coords = Coords::from_slice(coords);
        if let (true, [.., a, b]) = (quantized.turned, &mut coords[..]) {
            std::mem::swap(a, b);
        }
        coords
    }

    /// An element of weights that follow from fewer bits.
    pub fn dequantized(&mut self, quantized: &Quantized, coords: &[ExprId]) -> Result<ExprId, TargetError> {
        let coords = self.packed_coords(quantized, coords);
        let (buffer, index) = (self.arranged(quantized.integers), self.index_in(&quantized.shape, &coords));
        let integer = self.builder.load(buffer, index, "integer");
        let parameters = self.scale_and_zero(quantized, &coords);
        let number = self.number_of(quantized, integer, parameters);
        Ok(self.builder.keep("weight", Scalar::F32, number))
    }

    /// A weight, by its integer.
    pub fn number_of(
        &mut self,
        quantized: &Quantized,
        integer: ExprId,
        (scale, zero): (ExprId, Option<ExprId>),
    ) -> ExprId {
        let builder = &mut self.builder;
        let exact = if quantized.stored.is_float() { DType::F32 } else { DType::I32 };
        let difference = zero.map_or(integer, |zero| builder.binary(BinaryFn::Sub, exact, integer, zero));
        let difference = builder.convert_register(exact, DType::F32, difference);
        let product = builder.binary(BinaryFn::Mul, DType::F32, difference, scale);
        builder.convert(DType::F32, quantized.rounded, product)
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

    use tcc_ir::text;

    use super::*;

    /// What the weights of the last product of a graph follow from.
    fn found(source: &str) -> Option<(Quantized, Vec<Arranged>)> {
        let graph = text::parse(source).unwrap();
        let has_few_rows = |graph: &Graph, node: &Node, product: &MatMul| {
            let [a, b] = [graph.ty(node.inputs[0]), graph.ty(node.inputs[1])];
            product.dims(a, b).is_ok_and(|dims| dims.batch.count() * dims.m <= 8)
        };
        let constants = Constants::new(&graph, has_few_rows);
        let product = graph.nodes().rfind(|(_, node)| matches!(node.op, Op::MatMul(_))).unwrap().1;
        constants.quantized(product.inputs[1]).cloned().map(|found| (found, constants.arranged.clone()))
    }

    const BLOCKS: &str = r#"graph "blocks" {
        input %0 "x": f16[1,64]
        const %1 "q": i4[2,32,48] = absent
        const %2 "s": f16[2,1,48] = absent
        const %3 "z": i4[2,1,48] = absent
        %4: f16[2,32,48] = dequantize[zero=true](%1, %2, %3)
        %5: f16[64,48] = reshape[shape=[64,48]](%4)
        %6: f16[1,48] = mat_mul(%0, %5)
        output "y" = %6
    }"#;

    #[test]
    fn groups_are_found_through_views() {
        let (quantized, arranged) = found(BLOCKS).unwrap();
        assert_eq!((quantized.stored, quantized.rounded, quantized.turned), (DType::I4, DType::F16, true));
        assert_eq!(quantized.shape[..], [48, 64]);
        let Parameter::Groups(scales, DType::F16, 32) = quantized.scale else { panic!("{quantized:?}") };
        let Some(Parameter::Groups(zeros, DType::I4, 32)) = quantized.zero else { panic!("{quantized:?}") };
        assert_eq!(arranged[scales as usize].view.shape()[..], [48, 2]);
        assert_eq!(arranged[zeros as usize].view.shape()[..], [48, 2]);
        let atoms: Vec<_> = arranged[quantized.integers as usize].view.atoms().to_vec();
        assert_eq!(atoms.iter().map(|atom| (atom.size, atom.stride)).collect::<Vec<_>>(), [(48, 1), (64, 48)]);
        assert_eq!((quantized.together(32), quantized.together(16)), (32, 16));
    }

    #[test]
    fn many_rows_and_what_is_rounded_otherwise_stay() {
        assert!(found(&BLOCKS.replace("f16[1,", "f16[9,")).is_none());
        // A scale of more bits than the product with it is rounded to.
        let other = BLOCKS.replace(r#"%2 "s": f16"#, r#"%2 "s": f32"#).replace("%4: f16", "%4: f32");
        let other = other.replace(
            "%5: f16[64,48] = reshape[shape=[64,48]](%4)",
            "%7: f16[2,32,48] = cast[to=\"f16\"](%4)\n        %5: f16[64,48] = reshape[shape=[64,48]](%7)",
        );
        assert!(found(&other).is_none());
        // Scales for each integer are no fewer bytes.
        let other = BLOCKS.replace("s\": f16[2,1,48]", "s\": f16[2,32,48]");
        assert!(found(&other).is_none());
    }
}
