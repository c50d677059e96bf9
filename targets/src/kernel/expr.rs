//! What threads compute: expressions.

use serde::{Deserialize, Serialize};
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::{Accessed, BufferId, Memory, SharedId, VarId};

/// An expression of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExprId(pub u32);

impl ExprId {
    /// The place among the kernel's expressions.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a register holds. Elements of narrower types are widened when they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scalar {
    /// Signed 32-bit integers, and all that fit into them: truth values, indices, narrower integers.
    I32,
    /// Unsigned 32-bit integers.
    U32,
    /// Signed 64-bit integers.
    I64,
    /// Unsigned 64-bit integers.
    U64,
    /// binary32, which narrower floats are computed in.
    F32,
    /// binary64.
    F64,
}

impl Scalar {
    /// What elements of a type are computed in.
    pub fn of(dtype: DType) -> Scalar {
        match dtype {
            DType::F64 => Scalar::F64,
            DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => Scalar::F32,
            DType::I64 => Scalar::I64,
            DType::U64 => Scalar::U64,
            DType::U32 => Scalar::U32,
            DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::U16 | DType::U8 | DType::U4 | DType::Bool => {
                Scalar::I32
            }
        }
    }

    /// Registers of 32 bits that one takes.
    pub fn registers(self) -> u32 {
        match self {
            Scalar::I32 | Scalar::U32 | Scalar::F32 => 1,
            Scalar::I64 | Scalar::U64 | Scalar::F64 => 2,
        }
    }
}

/// Arithmetic of indices: [`Scalar::I32`], never too large. Where one is negative nothing is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexFn {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a b.
    Mul,
    /// a / b.
    Div,
    /// What a / b leaves.
    Mod,
    /// The lesser.
    Min,
    /// The greater.
    Max,
    /// Bits of which one is set.
    Xor,
    /// Whether a < b.
    Lt,
    /// Whether a >= b.
    Ge,
    /// Whether a = b.
    Eq,
    /// Whether both are not 0.
    And,
    /// Whether one is not 0.
    Or,
}

/// What a thread computes from values that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expr {
    /// An index.
    Integer(i32),
    /// A number of a type: the bits of a binary64 if it is a float, else of a 64-bit integer.
    Number(DType, u64),
    /// The thread's number in its block.
    Thread,
    /// The block's number along an axis of the grid.
    Block(u8),
    /// The block's number among all, those along the first axis fastest.
    BlockNumber,
    /// What a variable holds.
    Var(VarId),
    /// What an array holds at an index, which follows from constants and counters of unrolled loops.
    Element(VarId, ExprId),
    /// Arithmetic of indices.
    Index(IndexFn, ExprId, ExprId),
    /// A function of elements of a type. The result of a float is not rounded to it, that of an integer is.
    Unary(UnaryFn, DType, ExprId),
    /// The same of two operands. Comparisons give 0 or 1.
    Binary(BinaryFn, DType, ExprId, ExprId),
    /// a b + c, rounded once if they are floats.
    MulAdd(DType, [ExprId; 3]),
    /// The second where the first is not 0, else the third.
    Select([ExprId; 3]),
    /// An element of one type as one of another, as a cast does, rounded to it.
    Convert(DType, DType, ExprId),
    /// An element of a buffer.
    Load(BufferId, ExprId),
    /// An element of shared memory.
    LoadShared(SharedId, ExprId),
}

impl Expr {
    /// The expressions that it is computed from.
    pub fn operands(&self) -> impl Iterator<Item = ExprId> {
        let none = [None; 3];
        let operands: [Option<ExprId>; 3] = match *self {
            Expr::Integer(_) | Expr::Number(..) | Expr::Thread | Expr::Block(_) | Expr::BlockNumber | Expr::Var(_) => {
                none
            }
            Expr::Element(_, a)
            | Expr::Unary(_, _, a)
            | Expr::Convert(_, _, a)
            | Expr::Load(_, a)
            | Expr::LoadShared(_, a) => [Some(a), None, None],
            Expr::Index(_, a, b) | Expr::Binary(_, _, a, b) => [Some(a), Some(b), None],
            Expr::MulAdd(_, operands) | Expr::Select(operands) => operands.map(Some),
        };
        operands.into_iter().flatten()
    }

    /// What it reads, and where, if it reads memory.
    pub fn address(&self) -> Option<Accessed> {
        match *self {
            Expr::Load(buffer, index) => Some((Memory::Buffer(buffer), index)),
            Expr::LoadShared(shared, index) => Some((Memory::Shared(shared), index)),
            _ => None,
        }
    }
}
