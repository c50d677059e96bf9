//! Rotary embeddings, in the prologue of an attention or alone.

use tcc_ir::ops::BinaryFn;
use tcc_ir::{Access, DType, Graph, Kernel, NodeId, ValueId, View};

use super::prologue::{Framed, Part, Prologue, Slots, cut, feature_stride};
use super::recipe::{BATCH, FEATURE, FRAME, HEAD, POSITION, Resolver, TermSource, Use};
use super::tile::{dense_strides, pieces};
use super::{ChipOperand, ChipSource, Lowering, element_bytes};
use crate::systolic::emit::Filler;
use crate::systolic::isa::{MapFn, Memory, Source};
use crate::target::TargetError;

/// Whether a rotation can run as a kernel of its own.
pub(in crate::systolic) fn rope_supported(graph: &Graph, inputs: &[ValueId]) -> bool {
    let x = graph.ty(inputs[0]);
    x.dtype != DType::F64 && x.shape.rank() <= 4 && x.shape.count() > 0
}

/// Halves of features that are loaded apart from each other, for a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planes {
    /// The first half, then the second.
    Halves,
    /// Those at even places, then those at odd ones.
    Neighbours,
}

impl Lowering<'_, '_> {
    /// A rotation as a kernel of its own.
    pub(super) fn rope_kernel(&mut self, kernel: &Kernel, id: NodeId) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let node = graph.node(id);
        let plan = self.plan;
        let dense = |value: ValueId| Access { root: value, view: View::dense(graph.shape(value).clone()) };
        let access =
            |value: ValueId| Some(if value == node.output() { dense(value) } else { plan.access(value).clone() });
        let resolver = Resolver { graph, access: &access, inside: &|inside| inside == id };
        let recipe = resolver
            .resolve(node.output())
            .map_err(|reason| self.defect(kernel, &format!("has a rotation of which {reason}")))?;
        let mut prologue = self.prologue(0, recipe)?;
        let order = match prologue.recipe.root_term().source {
            TermSource::Node { order, .. } | TermSource::Dram { order, .. } => order,
            TermSource::Number => FRAME,
        };
        prologue.stores.push((node.output(), self.framed_result(node.output(), order)?));
        let extents = prologue.recipe.root_term().extents;
        let mut slots = Slots::default();
        // As many heads as make a usual piece.
        let heads = self.piece(&prologue, extents[POSITION]).min(extents[HEAD]);
        self.tiling = format!("{heads} of {} heads at a time", extents[HEAD]);
        for batch in 0..extents[BATCH] {
            for heads in pieces(0..extents[HEAD], heads) {
                let part = Part([batch..batch + 1, heads, 0..extents[POSITION], 0..extents[FEATURE]]);
                self.produce_only(&prologue, &mut slots, &part)?;
            }
        }
        Ok(())
    }

    /// Evaluates a rotation: four products and two sums of halves.
    #[expect(clippy::too_many_arguments, reason = "a node has its expression, its operands, its part and its place")]
    pub(super) fn rotate(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        known: &mut Vec<Option<ChipOperand>>,
        (index, operands, planes): (usize, &[Use], Planes),
        part: &Part,
        lens: [usize; 4],
        place: &ChipOperand,
    ) -> Result<(), TargetError> {
        let [x, cos, sin] = operands else {
            return Err(TargetError::Fault("a rotation has three operands".to_owned()));
        };
        let half = lens[FEATURE] / 2;
        let mut pairs = lens;
        pairs[FEATURE] = half;
        if half == 0 {
            return Ok(());
        }
        // The halves of x: side by side where it is loaded for this alone.
        let [a, b] = match &prologue.framed[x.term] {
            Some(framed) if known[x.term].is_none() => {
                self.load_planes(framed, slots, (prologue.tag, index, 1), (part, lens), planes)
            }
            _ => {
                let all = part.along(FEATURE, 0..prologue.recipe.terms[x.term].extents[FEATURE]);
                let made = self.produce(prologue, slots, known, x.term, &all, None)?;
                halves(&cut(&made, *x), planes, half)
            }
        };
        let mut angles = Vec::with_capacity(2);
        for operand in [cos, sin] {
            let term = &prologue.recipe.terms[operand.term];
            angles.push(if matches!(term.source, TermSource::Number) {
                Err(self.immediate(term.value).unwrap_or(Source::Float(0.0)))
            } else {
                let all = part.along(FEATURE, 0..term.extents[FEATURE]);
                Ok(cut(&self.produce(prologue, slots, known, operand.term, &all, None)?, *operand))
            });
        }
        if let Some(factor) = prologue.factor.filter(|_| index == prologue.recipe.root.term) {
            for (which, angle) in angles.iter_mut().enumerate() {
                self.scale_angles(slots, (prologue.tag, index, 2 + which), pairs, angle, factor);
            }
        }
        let angle = |which: usize| match &angles[which] {
            Ok(operand) => ChipSource::Chip(operand),
            Err(number) => ChipSource::Immediate(number.clone()),
        };
        let strides = dense_strides(&pairs, |_| true);
        let bytes = pairs.iter().product::<usize>() as u64 * 4;
        let to = halves(place, planes, half);
        let turns = [(&a, &b, BinaryFn::Sub, &to[0], 2), (&b, &a, BinaryFn::Add, &to[1], 3)];
        for (first, second, function, to, buffer) in turns {
            let mut products = Vec::with_capacity(2);
            for (operand, which) in [(first, 0), (second, 1)] {
                let (address, _) = self.take(slots, (prologue.tag, index, 2 * buffer + which), bytes, Filler::Vector);
                let memory = Memory::Scratchpad;
                let product = ChipOperand { memory, address, dtype: DType::F32, strides: strides.clone() };
                let sources = [ChipSource::Chip(operand), angle(which)];
                self.map(MapFn::Binary(BinaryFn::Mul), &pairs, &product, &sources);
                products.push(product);
            }
            let sources = [ChipSource::Chip(&products[0]), ChipSource::Chip(&products[1])];
            self.map(MapFn::Binary(function), &pairs, to, &sources);
        }
        Ok(())
    }

    /// Multiplies angles with a number.
    fn scale_angles(
        &mut self,
        slots: &mut Slots,
        key: (usize, usize, usize),
        mut lens: [usize; 4],
        angle: &mut Result<ChipOperand, Source>,
        factor: f64,
    ) {
        match angle {
            Ok(operand) => {
                (0..4).filter(|&axis| operand.strides[axis] == 0).for_each(|axis| lens[axis] = 1);
                let (address, _) = self.take(slots, key, lens.iter().product::<usize>() as u64 * 4, Filler::Vector);
                let strides = dense_strides(&lens, |axis| operand.strides[axis] != 0);
                let scaled = ChipOperand { memory: Memory::Scratchpad, address, dtype: DType::F32, strides };
                let sources = [ChipSource::Chip(operand), ChipSource::Immediate(Source::Float(factor))];
                self.map(MapFn::Binary(BinaryFn::Mul), &lens, &scaled, &sources);
                *operand = scaled;
            }
            Err(Source::Float(number)) => *number *= factor,
            Err(_) => {}
        }
    }

    /// Loads the two halves of features each densely.
    fn load_planes(
        &mut self,
        framed: &Framed,
        slots: &mut Slots,
        key: (usize, usize, usize),
        (part, lens): (&Part, [usize; 4]),
        planes: Planes,
    ) -> [ChipOperand; 2] {
        let dtype = framed.operand.dtype;
        let half = lens[FEATURE] / 2;
        let rows: usize = lens[..FEATURE].iter().product();
        let (address, _) = self.take(slots, key, (rows * half * 2) as u64 * element_bytes(dtype) as u64, Filler::Load);
        let mut pairs = lens;
        pairs[FEATURE] = half;
        let strides = dense_strides(&pairs, |_| true);
        let first = ChipOperand { memory: Memory::Scratchpad, address, dtype, strides };
        let plane = (rows * half) as i64;
        let stride = feature_stride(framed);
        let features = match planes {
            Planes::Halves => vec![(2, stride * half as i64, plane), (half, stride, 1)],
            Planes::Neighbours => vec![(half, 2 * stride, 1), (2, stride, plane)],
        };
        self.load_part(framed, part, lens, &features, &first);
        let second = address.wrapping_add_signed((plane * element_bytes(dtype)) as i32);
        [first.clone(), ChipOperand { address: second, ..first }]
    }
}

/// The two halves of features of a value, each with one stride.
fn halves(value: &ChipOperand, planes: Planes, half: usize) -> [ChipOperand; 2] {
    let stride = value.strides[FEATURE];
    let (distance, step) = match planes {
        Planes::Halves => (stride * half as i64, stride),
        Planes::Neighbours => (stride, 2 * stride),
    };
    let mut first = value.clone();
    first.strides[FEATURE] = step;
    let address = value.address.wrapping_add_signed((distance * element_bytes(value.dtype)) as i32);
    [first.clone(), ChipOperand { address, ..first }]
}
