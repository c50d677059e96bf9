//! Looking at an e-graph: what rules ask about a class and the terms in it.

use egg::Id;
use tcc_ir::ops::{Binary, BinaryFn, Reduce, ReduceFn, Unary, UnaryFn};
use tcc_ir::{DType, Op, Shape, Tensor, TensorType};

use super::EGraph;
use super::term::Term;

/// An e-graph to look at.
#[derive(Clone, Copy)]
pub struct Terms<'a>(pub &'a EGraph);

impl<'a> Terms<'a> {
    /// The type of a class, which has one result.
    pub fn ty(self, id: Id) -> &'a TensorType {
        &self.0[id].data.types[0]
    }

    /// The shape of a class.
    pub fn shape(self, id: Id) -> &'a Shape {
        &self.ty(id).shape
    }

    /// The element type of a class.
    pub fn dtype(self, id: Id) -> DType {
        self.ty(id).dtype
    }

    /// The rank of a class.
    pub fn rank(self, id: Id) -> usize {
        self.shape(id).rank()
    }

    /// The value of a small constant.
    pub fn value(self, id: Id) -> Option<&'a Tensor> {
        self.0[id].data.value.as_ref()
    }

    /// Whether a class follows from constants alone.
    pub fn is_constant(self, id: Id) -> bool {
        self.0[id].data.constant
    }

    /// The number that a small constant is everywhere.
    pub fn number(self, id: Id) -> Option<f64> {
        let values = self.value(id)?.to_f64s().ok()?;
        let (&first, rest) = values.split_first()?;
        rest.iter().all(|&value| value == first).then_some(first)
    }

    /// Whether a class is the number `value` everywhere, to the precision of its type.
    pub fn is_number(self, id: Id, value: f64) -> bool {
        // Constants were rounded to binary32 or less when they were written, some after arithmetic in it.
        let tolerance = match self.dtype(id) {
            DType::F16 => 1e-3,
            DType::BF16 => 8e-3,
            _ => 1e-6,
        };
        self.number(id).is_some_and(|number| number == value || (number - value).abs() <= tolerance * value.abs())
    }

    /// Whether two ids are of one class.
    pub fn same(self, a: Id, b: Id) -> bool {
        self.0.find(a) == self.0.find(b)
    }

    /// The operators of a class with their operands.
    pub fn applications(self, id: Id) -> impl Iterator<Item = (&'a Op, &'a [Id])> {
        self.0[id].nodes.iter().filter_map(|term| match term {
            Term::Apply { op, operands } => Some((op, &operands[..])),
            Term::Leaf(_) | Term::Output { .. } => None,
        })
    }

    /// The operands of the unary functions `function` in a class.
    pub fn unary(self, id: Id, function: UnaryFn) -> impl Iterator<Item = Id> {
        self.applications(id).filter_map(move |(op, operands)| match op {
            Op::Unary(Unary(f)) if *f == function => Some(operands[0]),
            _ => None,
        })
    }

    /// The operands of the binary functions `function` in a class, as they stand.
    pub fn binary(self, id: Id, function: BinaryFn) -> impl Iterator<Item = (Id, Id)> {
        self.applications(id).filter_map(move |(op, operands)| match op {
            Op::Binary(Binary(f)) if *f == function => Some((operands[0], operands[1])),
            _ => None,
        })
    }

    /// The operands of the commutative function `function` in a class, in both orders.
    pub fn either(self, id: Id, function: BinaryFn) -> impl Iterator<Item = (Id, Id)> {
        self.binary(id, function).flat_map(|(a, b)| [(a, b), (b, a)])
    }

    /// The operands and axes of the reductions `function` in a class.
    pub fn reduce(self, id: Id, function: ReduceFn) -> impl Iterator<Item = (Id, &'a [usize])> {
        self.applications(id).filter_map(move |(op, operands)| match op {
            Op::Reduce(Reduce { function: f, axes }) if *f == function => Some((operands[0], &axes[..])),
            _ => None,
        })
    }

    /// Whether a value of this class is one number, however many axes it has.
    pub fn is_single(self, id: Id) -> bool {
        self.shape(id).count() == 1
    }
}
