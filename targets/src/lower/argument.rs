//! What the parameters of a kernel are.

use tcc_ir::{DType, Graph, ValueId};

use crate::stored::storage;

/// What a parameter of a kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Argument {
    /// A value of the graph.
    Value(ValueId),
    /// What is packed by this number among [`Lowered::arranged`].
    Arranged(u32),
    /// So many elements that blocks hand over to each other in one launch, or that one call leaves for others, and that nobody wants
    /// afterwards. There may be several, by number.
    Handed(u32, DType, u64),
    /// One of equal parts of what is handed over by this number, each of so many elements.
    Part { number: u32, dtype: DType, elements: u64, parts: u32, part: u32 },
    /// So many counters that blocks arrive by: `u32`, and 0 between launches.
    Counters(u64),
}

impl Argument {
    /// What it is a part of: itself, if it is none.
    pub fn whole(self) -> Argument {
        match self {
            Argument::Part { number, dtype, elements, parts, .. } => {
                Argument::Handed(number, dtype, elements * u64::from(parts))
            }
            whole => whole,
        }
    }
}

/// What elements of a value are stored as: constants as in the model, with those of four bits two to a byte; others not
/// narrower than a byte.
pub(crate) fn stored_type(graph: &Graph, derived: &[bool], value: ValueId) -> DType {
    let dtype = graph.ty(value).dtype;
    if derived[value.index()] { dtype } else { storage(dtype) }
}
