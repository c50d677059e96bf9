//! How large integers become: intervals, from which follow the bits of operators.

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::nest::Form;
use crate::kernel::{IndexFn, Scalar};

/// The least and the greatest that an integer can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The least.
    pub low: i128,
    /// The greatest.
    pub high: i128,
}

impl Range {
    /// From one number to another.
    pub fn new(low: i128, high: i128) -> Range {
        Range { low, high }
    }

    /// One number.
    pub fn one(value: i128) -> Range {
        Range::new(value, value)
    }

    /// Truth values.
    pub const TRUTH: Range = Range { low: 0, high: 1 };

    /// All that elements of a type can be; of floats nothing is asked.
    pub fn of_dtype(dtype: DType) -> Range {
        match dtype {
            DType::Bool => Range::TRUTH,
            DType::I4 => Range::signed(4),
            DType::I8 => Range::signed(8),
            DType::I16 => Range::signed(16),
            DType::I32 => Range::signed(32),
            DType::I64 => Range::signed(64),
            DType::U4 => Range::unsigned(4),
            DType::U8 => Range::unsigned(8),
            DType::U16 => Range::unsigned(16),
            DType::U32 => Range::unsigned(32),
            DType::U64 => Range::unsigned(64),
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => Range::TRUTH,
        }
    }

    /// All that a register can hold.
    pub fn of_scalar(scalar: Scalar) -> Range {
        match scalar {
            Scalar::I32 => Range::signed(32),
            Scalar::U32 => Range::unsigned(32),
            Scalar::I64 => Range::signed(64),
            Scalar::U64 => Range::unsigned(64),
            Scalar::F32 | Scalar::F64 => Range::TRUTH,
        }
    }

    fn signed(bits: u32) -> Range {
        Range::new(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    }

    fn unsigned(bits: u32) -> Range {
        Range::new(0, (1 << bits) - 1)
    }

    /// Whether another lies in it.
    pub fn holds(self, other: Range) -> bool {
        self.low <= other.low && other.high <= self.high
    }

    /// What holds both.
    pub fn or(self, other: Range) -> Range {
        Range::new(self.low.min(other.low), self.high.max(other.high))
    }

    /// As it is if a limit holds it, else all of the limit, since arithmetic wraps.
    pub fn within(self, limit: Range) -> Range {
        if limit.holds(self) { self } else { limit }
    }

    /// The sum.
    pub fn plus(self, other: Range) -> Range {
        Range::new(self.low + other.low, self.high + other.high)
    }

    /// The difference.
    pub fn minus(self, other: Range) -> Range {
        Range::new(self.low - other.high, self.high - other.low)
    }

    /// The product.
    pub fn times(self, other: Range) -> Range {
        let ends = [self.low, self.high].into_iter().flat_map(|a| [other.low, other.high].map(|b| a.saturating_mul(b)));
        ends.fold(Range::new(i128::MAX, i128::MIN), |all, end| Range::new(all.low.min(end), all.high.max(end)))
    }

    /// A quotient that is truncated; the divisor is not 0.
    fn over(self, other: Range) -> Range {
        if other.low > 0 {
            let ends = [self.low / other.low, self.low / other.high, self.high / other.low, self.high / other.high];
            let low = ends.into_iter().fold(i128::MAX, i128::min);
            return Range::new(low, ends.into_iter().fold(i128::MIN, i128::max));
        }
        let most = self.low.abs().max(self.high.abs());
        Range::new(-most, most)
    }

    /// As many bits as its numbers need.
    pub fn form(self) -> Form {
        let bits_of = |value: i128| 128 - value.leading_zeros();
        if self.low >= 0 {
            Form::Integer { bits: bits_of(self.high).clamp(1, 64) as u8, signed: false }
        } else {
            let bits = bits_of(-(self.low + 1)).max(bits_of(self.high.max(0))) + 1;
            Form::Integer { bits: bits.clamp(1, 64) as u8, signed: true }
        }
    }

    /// What arithmetic of indices gives, which is an index.
    pub fn index(function: IndexFn, a: Range, b: Range) -> Range {
        let result = match function {
            IndexFn::Add => a.plus(b),
            IndexFn::Sub => a.minus(b),
            IndexFn::Mul => a.times(b),
            IndexFn::Div => a.over(b),
            IndexFn::Mod => {
                let most = b.low.abs().max(b.high.abs()).max(1) - 1;
                Range::new(
                    if a.low < 0 { (-most).max(a.low) } else { 0 },
                    if a.high > 0 { most.min(a.high) } else { 0 },
                )
            }
            IndexFn::Min => Range::new(a.low.min(b.low), a.high.min(b.high)),
            IndexFn::Max => Range::new(a.low.max(b.low), a.high.max(b.high)),
            IndexFn::Xor => a.bitwise(b),
            IndexFn::Lt | IndexFn::Ge | IndexFn::Eq | IndexFn::And | IndexFn::Or => Range::TRUTH,
        };
        result.within(Range::of_scalar(Scalar::I32))
    }

    /// What bits of two numbers can make.
    fn bitwise(self, other: Range) -> Range {
        let both = self.or(other);
        match both.form() {
            Form::Integer { bits, signed: false } => Range::unsigned(u32::from(bits)),
            Form::Integer { bits, signed: true } => Range::signed(u32::from(bits)),
            Form::Single | Form::Double => both,
        }
    }

    /// What a function of integers of a type gives.
    pub fn unary(function: UnaryFn, dtype: DType, x: Range) -> Range {
        let limit = Range::of_dtype(dtype);
        match function {
            UnaryFn::Abs => {
                let most = x.low.abs().max(x.high.abs());
                Range::new(0.max(x.low), most).within(limit)
            }
            UnaryFn::Neg => Range::new(-x.high, -x.low).within(limit),
            UnaryFn::Sign => Range::new(-1, 1),
            UnaryFn::IsInf | UnaryFn::IsNan => Range::TRUTH,
            UnaryFn::Ceil | UnaryFn::Floor | UnaryFn::Round => x,
            UnaryFn::Not if dtype == DType::Bool => Range::TRUTH,
            UnaryFn::Not
            | UnaryFn::Cos
            | UnaryFn::Erf
            | UnaryFn::Exp
            | UnaryFn::Log
            | UnaryFn::Recip
            | UnaryFn::Rsqrt
            | UnaryFn::Sigmoid
            | UnaryFn::Sin
            | UnaryFn::Softplus
            | UnaryFn::Sqrt
            | UnaryFn::Tan
            | UnaryFn::Tanh => limit,
        }
    }

    /// What a function of two integers of a type gives.
    pub fn binary(function: BinaryFn, dtype: DType, a: Range, b: Range) -> Range {
        if function.is_comparison() {
            return Range::TRUTH;
        }
        let limit = Range::of_dtype(dtype);
        match function {
            BinaryFn::Add => a.plus(b).within(limit),
            BinaryFn::Sub => a.minus(b).within(limit),
            BinaryFn::Mul => a.times(b).within(limit),
            BinaryFn::Div => a.over(b).within(limit),
            BinaryFn::Max => Range::new(a.low.max(b.low), a.high.max(b.high)),
            BinaryFn::Min => Range::new(a.low.min(b.low), a.high.min(b.high)),
            // What is not negative lets through no more than it has bits.
            BinaryFn::And if a.low >= 0 || b.low >= 0 => {
                let most = |range: Range| if range.low >= 0 { range.high } else { i128::MAX };
                Range::new(0, most(a).min(most(b)))
            }
            BinaryFn::And | BinaryFn::Or | BinaryFn::Xor => a.bitwise(b).within(limit),
            BinaryFn::Shr if b.low == b.high && (0..64).contains(&b.low) => Range::new(a.low >> b.low, a.high >> b.low),
            _ => limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_that_numbers_need() {
        let integer = |bits, signed| Form::Integer { bits, signed };
        assert_eq!(Range::new(0, 1).form(), integer(1, false));
        assert_eq!(Range::new(0, 0).form(), integer(1, false));
        assert_eq!(Range::new(0, 255).form(), integer(8, false));
        assert_eq!(Range::new(-128, 127).form(), integer(8, true));
        assert_eq!(Range::new(-129, 0).form(), integer(9, true));
        // -128 times itself is 2^14, which needs 16 bits with a sign.
        let byte = Range::of_dtype(DType::I8);
        assert_eq!(Range::binary(BinaryFn::Mul, DType::I32, byte, byte), Range::new(-16256, 16384));
        assert_eq!(byte.times(byte).form(), integer(16, true));
        // Wrapping makes anything of what leaves the type.
        assert_eq!(Range::binary(BinaryFn::Add, DType::I8, byte, byte), byte);
        assert_eq!(Range::index(IndexFn::Mod, Range::new(0, 1000), Range::one(48)), Range::new(0, 47));
        let (wide, bits) =
            (Range::new(-1000, 5000), |function, b| Range::binary(function, DType::I64, Range::new(-1000, 5000), b));
        assert_eq!(bits(BinaryFn::And, Range::one(255)), Range::new(0, 255));
        assert_eq!(bits(BinaryFn::And, wide), Range::signed(14));
        assert_eq!(bits(BinaryFn::Shr, Range::one(3)), Range::new(-125, 625));
        assert_eq!(Range::index(IndexFn::Div, Range::new(0, 1000), Range::one(48)), Range::new(0, 20));
    }
}
