//! The machine instructions of an expression.
//!
//! Each is a chain: an instruction waits for the one before it. Numbers of instructions are those of the sequences that
//! NVIDIA's compiler writes for IEEE results without fast mathematics, to within a few, and assumed to be the same elsewhere:
//! what it writes for CUDA C++ can be read in any disassembly, and is not documented. Signs and absolute values of floats are
//! modifiers of the instruction that uses them, and cost none.

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::resource::Unit;
use crate::kernel::{IndexFn, Scalar};
use crate::number::FoldFn;

/// So many instructions of each unit, in order.
pub(super) type Recipe = &'static [(Unit, u8)];

use Unit::{F32, F64, I32, Memory, Special};

/// Nothing at all.
const FREE: Recipe = &[];
const ONE_I32: Recipe = &[(I32, 1)];
/// Quotient of binary32: an estimate of the reciprocal, a check for special cases, and Newton's steps.
const DIV_F32: Recipe = &[(Special, 1), (I32, 1), (F32, 6)];
const DIV_F64: Recipe = &[(Special, 1), (I32, 2), (F64, 9)];
/// Quotient of integers by what is not known: through an estimate in binary32 and two corrections.
const DIV_I32: Recipe = &[(Special, 3), (I32, 14)];
/// The same of 64 bits, as a subroutine.
const DIV_I64: Recipe = &[(Special, 3), (I32, 66)];
/// e^x: the exponent is split off, the rest goes to the special unit.
const EXP_F32: Recipe = &[(F32, 5), (I32, 1), (Special, 1), (F32, 1)];
const EXP_F64: Recipe = &[(F64, 16), (I32, 4)];

/// Arithmetic of indices. `by` is the second operand where it is known. Indices are never negative, so that a quotient by a
/// power of two is a shift, and by another number the upper half of a product and a shift.
pub(super) fn index(function: IndexFn, by: Option<i32>) -> Recipe {
    match (function, by) {
        (IndexFn::Div | IndexFn::Mod, None) => DIV_I32,
        (IndexFn::Div, Some(by)) if by.count_ones() != 1 => &[(I32, 2)],
        // The quotient, and what is left of the number without its multiple.
        (IndexFn::Mod, Some(by)) if by.count_ones() != 1 => &[(I32, 3)],
        (
            IndexFn::Add
            | IndexFn::Sub
            | IndexFn::Mul
            | IndexFn::Div
            | IndexFn::Mod
            | IndexFn::Min
            | IndexFn::Max
            | IndexFn::Xor
            | IndexFn::Lt
            | IndexFn::Ge
            | IndexFn::Eq
            | IndexFn::And
            | IndexFn::Or,
            _,
        ) => ONE_I32,
    }
}

/// A function of one operand.
pub(super) fn unary(function: UnaryFn, dtype: DType) -> Recipe {
    match Scalar::of(dtype) {
        Scalar::F32 => unary_f32(function),
        Scalar::F64 => unary_f64(function),
        Scalar::I32 | Scalar::U32 => match function {
            UnaryFn::Sign => &[(I32, 2)],
            _ => ONE_I32,
        },
        Scalar::I64 | Scalar::U64 => match function {
            UnaryFn::Sign => &[(I32, 4)],
            _ => &[(I32, 2)],
        },
    }
}

fn unary_f32(function: UnaryFn) -> Recipe {
    match function {
        UnaryFn::Abs | UnaryFn::Neg => FREE,
        UnaryFn::Ceil | UnaryFn::Floor | UnaryFn::Round => &[(Special, 1)],
        UnaryFn::IsInf | UnaryFn::IsNan | UnaryFn::Not => ONE_I32,
        UnaryFn::Sign => &[(I32, 3)],
        UnaryFn::Exp => EXP_F32,
        UnaryFn::Log => &[(I32, 4), (F32, 13)],
        UnaryFn::Sin | UnaryFn::Cos => &[(I32, 5), (Special, 1), (F32, 10)],
        UnaryFn::Tan => &[(I32, 5), (Special, 2), (F32, 14)],
        UnaryFn::Erf => &[(I32, 3), (F32, 11), (Special, 1), (F32, 1)],
        UnaryFn::Recip => &[(Special, 1), (I32, 1), (F32, 2)],
        UnaryFn::Rsqrt => &[(Special, 1), (I32, 1), (F32, 2)],
        UnaryFn::Sqrt => &[(Special, 1), (I32, 1), (F32, 4)],
        // e^-x, a sum, a quotient.
        UnaryFn::Sigmoid => &[(F32, 5), (I32, 1), (Special, 1), (F32, 2), (Special, 1), (I32, 1), (F32, 6)],
        // e^x, and a logarithm of what is near 1.
        UnaryFn::Softplus => &[(F32, 5), (I32, 1), (Special, 1), (F32, 1), (I32, 5), (F32, 15)],
        UnaryFn::Tanh => &[(F32, 4), (Special, 1), (F32, 1), (Special, 1), (F32, 6), (I32, 2)],
    }
}

fn unary_f64(function: UnaryFn) -> Recipe {
    match function {
        UnaryFn::Abs | UnaryFn::Neg => FREE,
        UnaryFn::Ceil | UnaryFn::Floor | UnaryFn::Round => &[(Special, 1)],
        UnaryFn::IsInf | UnaryFn::IsNan | UnaryFn::Not => ONE_I32,
        UnaryFn::Sign => &[(I32, 4)],
        UnaryFn::Exp => EXP_F64,
        UnaryFn::Log => &[(I32, 6), (F64, 24)],
        UnaryFn::Sin | UnaryFn::Cos => &[(I32, 8), (F64, 16)],
        UnaryFn::Tan => &[(I32, 8), (F64, 28)],
        UnaryFn::Erf => &[(I32, 6), (F64, 40)],
        UnaryFn::Recip => &[(Special, 1), (I32, 2), (F64, 5)],
        UnaryFn::Rsqrt | UnaryFn::Sqrt => &[(Special, 1), (I32, 2), (F64, 8)],
        UnaryFn::Sigmoid => &[(F64, 17), (I32, 4), (Special, 1), (I32, 2), (F64, 9)],
        UnaryFn::Softplus => &[(F64, 16), (I32, 10), (F64, 26)],
        UnaryFn::Tanh => &[(F64, 24), (Special, 1), (I32, 6)],
    }
}

/// A function of two operands.
pub(super) fn binary(function: BinaryFn, dtype: DType) -> Recipe {
    use BinaryFn::{Add, And, Div, Eq, Ge, Gt, Le, Lt, Max, Min, Mod, Mul, Or, Pow, Rem, Shl, Shr, Sub, Xor};
    match Scalar::of(dtype) {
        Scalar::F32 => match function {
            Add | Sub | Mul => &[(F32, 1)],
            Div => DIV_F32,
            Eq | Ge | Gt | Le | Lt => ONE_I32,
            // Two comparisons and a selection, so that what is not a number stays.
            Max | Min => &[(I32, 3)],
            Mod | Rem => &[(Special, 1), (I32, 3), (F32, 10)],
            Pow => &[(I32, 9), (Special, 2), (F32, 24)],
            And | Or | Xor | Shl | Shr => ONE_I32,
        },
        Scalar::F64 => match function {
            Add | Sub | Mul => &[(F64, 1)],
            Div => DIV_F64,
            Eq | Ge | Gt | Le | Lt => &[(F64, 1)],
            Max | Min => &[(F64, 2), (I32, 2)],
            Mod | Rem => &[(Special, 1), (I32, 6), (F64, 14)],
            Pow => &[(I32, 16), (F64, 60)],
            And | Or | Xor | Shl | Shr => ONE_I32,
        },
        Scalar::I32 | Scalar::U32 => match function {
            Add | Sub | Mul | And | Or | Xor | Eq | Ge | Gt | Le | Lt | Max | Min => ONE_I32,
            Div => DIV_I32,
            Mod | Rem => &[(Special, 3), (I32, 17)],
            // Up to 31 squarings; as many as for a power below 16.
            Pow => &[(I32, 16)],
            // With a check of the distance.
            Shl | Shr => &[(I32, 3)],
        },
        Scalar::I64 | Scalar::U64 => match function {
            Add | Sub | And | Or | Xor | Eq | Ge | Gt | Le | Lt => &[(I32, 2)],
            Max | Min | Mul => &[(I32, 4)],
            Div => DIV_I64,
            Mod | Rem => &[(Special, 3), (I32, 70)],
            Pow => &[(I32, 48)],
            Shl | Shr => &[(I32, 6)],
        },
    }
}

/// a b + c.
pub(super) fn mul_add(dtype: DType) -> Recipe {
    match Scalar::of(dtype) {
        Scalar::F32 => &[(F32, 1)],
        Scalar::F64 => &[(F64, 1)],
        Scalar::I32 | Scalar::U32 => ONE_I32,
        Scalar::I64 | Scalar::U64 => &[(I32, 4)],
    }
}

/// A selection of what so many registers hold.
pub(super) fn select(scalar: Scalar) -> Recipe {
    moved(scalar)
}

/// A copy of a register.
pub(super) fn moved(scalar: Scalar) -> Recipe {
    if scalar.registers() == 2 { &[(I32, 2)] } else { ONE_I32 }
}

/// An element of one type as one of another, rounded to it.
pub(super) fn convert(from: DType, to: DType) -> Recipe {
    let (a, b) = (Scalar::of(from), Scalar::of(to));
    match (a, b) {
        // Rounded to fewer bits, and widened again.
        (Scalar::F32, Scalar::F32) if to.bits() < 32 => &[(I32, 2)],
        (Scalar::F32, Scalar::F32) => FREE,
        (Scalar::I32 | Scalar::U32, Scalar::I32 | Scalar::U32) => {
            if to.bits() < from.bits() || to == DType::Bool {
                ONE_I32
            } else {
                FREE
            }
        }
        (Scalar::I64 | Scalar::U64, Scalar::I64 | Scalar::U64) => FREE,
        (Scalar::I64 | Scalar::U64, Scalar::I32 | Scalar::U32) => {
            if to.bits() < 32 {
                ONE_I32
            } else {
                FREE
            }
        }
        // The sign is spread.
        (Scalar::I32 | Scalar::U32, Scalar::I64 | Scalar::U64) => ONE_I32,
        (Scalar::F64, Scalar::F64) => FREE,
        (Scalar::F32 | Scalar::I32 | Scalar::U32 | Scalar::I64 | Scalar::U64, Scalar::F32 | Scalar::F64)
        | (Scalar::F32 | Scalar::F64, Scalar::I32 | Scalar::U32 | Scalar::I64 | Scalar::U64)
        | (Scalar::F64, Scalar::F32) => &[(Special, 1)],
    }
}

/// What turns a loaded element into a register's number.
pub(super) fn widened(dtype: DType) -> Recipe {
    match dtype {
        DType::F16 | DType::BF16 => ONE_I32,
        DType::F8E4M3 | DType::F8E5M2 => &[(I32, 2)],
        // Which half of the byte, and its bits.
        DType::I4 | DType::U4 => &[(I32, 3)],
        DType::F64
        | DType::F32
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool => FREE,
    }
}

/// What turns an element of an array that holds them as they were loaded into a number: what of a word it is is known.
pub(super) fn unpacked(dtype: DType) -> Recipe {
    match dtype {
        DType::I4 | DType::U4 => &[(I32, 2)],
        _ => widened(dtype),
    }
}

/// What becomes of a word of integers of few bits, two at a time: see `dequantize.h`, which CUDA's compiler is given.
pub(super) struct Dequantized {
    /// Instructions that bring integers to where pairs are taken from, which are done for all pairs of a word.
    pub shared: Recipe,
    /// What makes a pair of differences: bits are picked and joined with those of a power of two, then the zero point is taken away.
    pub pair: Recipe,
    /// What multiplies a pair by the scale and rounds it while it is one.
    pub scaled: Recipe,
    /// What makes a number of each.
    pub single: Recipe,
}

/// Integers of a type, as floats of another, with or without a scale.
pub(super) fn dequantized(from: DType, to: DType, has_scale: bool) -> Dequantized {
    const PAIR: Recipe = &[(I32, 1), (F32, 1)];
    let in_pairs = to == DType::F16 || to == DType::BF16 && from.bits() < 8;
    let shared: Recipe = match (from, to) {
        (DType::I4 | DType::U4, DType::BF16) => &[(I32, 3)],
        (DType::I4 | DType::U4 | DType::I8, _) => ONE_I32,
        _ => FREE,
    };
    let single: Recipe = match (has_scale, to) {
        (true, DType::F32) => &[(I32, 1), (F32, 1)],
        // Two are rounded by one instruction, and each is widened.
        (true, DType::BF16) if !in_pairs => &[(I32, 1), (F32, 1), (I32, 2)],
        _ => ONE_I32,
    };
    Dequantized { shared, pair: PAIR, scaled: if in_pairs { &[(F32, 1)] } else { FREE }, single }
}

/// What makes pairs of a zero point that is not known, and of a scale.
pub(super) const ZERO_PAIRS: Recipe = &[(I32, 2), (F32, 1)];
pub(super) const SCALE_PAIR: Recipe = ONE_I32;

/// What turns a register's number into an element to be stored.
pub(super) fn narrowed(dtype: DType) -> Recipe {
    match dtype {
        DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 | DType::I4 | DType::U4 => ONE_I32,
        DType::F64
        | DType::F32
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool => FREE,
    }
}

/// One step of combining what threads hold.
pub(super) fn fold(function: FoldFn, dtype: DType) -> Recipe {
    match function {
        FoldFn::Sum | FoldFn::Dot => binary(BinaryFn::Add, dtype),
        FoldFn::Product => binary(BinaryFn::Mul, dtype),
        FoldFn::Max => binary(BinaryFn::Max, dtype),
        FoldFn::Min => binary(BinaryFn::Min, dtype),
    }
}

/// What another lane of the warp holds.
pub(super) fn shuffled(scalar: Scalar) -> Recipe {
    if scalar.registers() == 2 { &[(Memory, 2)] } else { &[(Memory, 1)] }
}
