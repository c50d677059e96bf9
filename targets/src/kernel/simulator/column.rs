//! What all threads of a block hold of one register.

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use crate::kernel::Scalar;
use crate::number::{self, DivisionByZero, FoldFn, Number, encoded_bytes};

/// A number for each thread. Narrow integers are held as wide ones that have the same value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Column {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Signed(Vec<i64>),
    Unsigned(Vec<u64>),
}

/// Calls a function on the numbers of a column, whatever they are.
macro_rules! each_class {
    ($column:expr, $numbers:ident => $body:expr) => {
        match $column {
            Column::F32($numbers) => $body,
            Column::F64($numbers) => $body,
            Column::Signed($numbers) => $body,
            Column::Unsigned($numbers) => $body,
        }
    };
}

/// Calls a function on the numbers of two columns of one class; else `$other`.
macro_rules! both_classes {
    ($a:expr, $b:expr, ($x:ident, $y:ident) => $body:expr, $other:expr) => {
        match ($a, $b) {
            (Column::F32($x), Column::F32($y)) => $body,
            (Column::F64($x), Column::F64($y)) => $body,
            (Column::Signed($x), Column::Signed($y)) => $body,
            (Column::Unsigned($x), Column::Unsigned($y)) => $body,
            _ => $other,
        }
    };
}

/// Which numbers are not 0.
fn truths<N: Number>(numbers: &[N]) -> Vec<bool> {
    numbers.iter().map(|&x| x != N::default()).collect()
}

impl Column {
    /// As many zeros.
    pub fn zeros(scalar: Scalar, count: usize) -> Column {
        match scalar {
            Scalar::F32 => Column::F32(vec![0.0; count]),
            Scalar::F64 => Column::F64(vec![0.0; count]),
            Scalar::I32 | Scalar::I64 => Column::Signed(vec![0; count]),
            Scalar::U32 | Scalar::U64 => Column::Unsigned(vec![0; count]),
        }
    }

    /// The same number for all: the bits of a binary64 if the type is a float, else of an integer.
    pub fn same(dtype: DType, bits: u64, count: usize) -> Column {
        match Scalar::of(dtype) {
            Scalar::F32 => Column::F32(vec![f64::from_bits(bits) as f32; count]),
            Scalar::F64 => Column::F64(vec![f64::from_bits(bits); count]),
            Scalar::I32 | Scalar::I64 => Column::Signed(vec![bits as i64; count]),
            Scalar::U32 | Scalar::U64 => Column::Unsigned(vec![bits; count]),
        }
    }

    /// Truth values.
    pub fn truth(values: impl Iterator<Item = bool>) -> Column {
        Column::Signed(values.map(i64::from).collect())
    }

    /// The numbers as indices; none if they are of another class, which a kernel that was checked has not.
    pub fn indices(&self) -> &[i64] {
        match self {
            Column::Signed(numbers) => numbers,
            Column::F32(_) | Column::F64(_) | Column::Unsigned(_) => &[],
        }
    }

    /// A thread's number; of integers, which sums of products are, all 32 bits.
    pub fn at(&self, thread: usize) -> f64 {
        match self {
            Column::F32(numbers) => f64::from(numbers[thread]),
            Column::F64(numbers) => numbers[thread],
            Column::Signed(numbers) => numbers[thread] as f64,
            Column::Unsigned(numbers) => numbers[thread] as f64,
        }
    }

    /// Sets a thread's number.
    pub fn put(&mut self, thread: usize, value: f64) {
        match self {
            Column::F32(numbers) => numbers[thread] = value as f32,
            Column::F64(numbers) => numbers[thread] = value,
            // Sums wrap.
            Column::Signed(numbers) => numbers[thread] = i64::from(value as i64 as i32),
            Column::Unsigned(numbers) => numbers[thread] = value as u64,
        }
    }

    /// Applies a function.
    pub fn unary(mut self, function: UnaryFn, dtype: DType) -> Column {
        if let (UnaryFn::Not, DType::Bool, Column::Signed(numbers)) = (function, dtype, &mut self) {
            numbers.iter_mut().for_each(|x| *x ^= 1);
            return self;
        }
        each_class!(&mut self, numbers => Number::unary(function, numbers, dtype == DType::Bool));
        if function.is_predicate() {
            return match self {
                Column::F32(numbers) => Column::truth(numbers.into_iter().map(|x| x != 0.0)),
                Column::F64(numbers) => Column::truth(numbers.into_iter().map(|x| x != 0.0)),
                other => other,
            };
        }
        self.wrapped(dtype)
    }

    /// Combines two columns.
    pub fn binary(mut self, function: BinaryFn, dtype: DType, other: &Column) -> Result<Column, DivisionByZero> {
        if function.is_comparison() {
            let mut truth = Vec::new();
            both_classes!(&self, other, (a, b) => {
                truth.resize(a.len(), 0);
                number::compare(function, a, b, &mut truth);
            }, {});
            return Ok(Column::truth(truth.into_iter().map(|x| x != 0)));
        }
        let bits = dtype.bits() as u32;
        both_classes!(&mut self, other, (a, b) => Number::binary(function, a, b, bits)?, {});
        Ok(self.wrapped(dtype))
    }

    /// a b + c.
    pub fn mul_add(mut self, dtype: DType, b: &Column, c: &Column) -> Column {
        match (&mut self, b, c) {
            (Column::F32(a), Column::F32(b), Column::F32(c)) => {
                a.iter_mut().zip(b).zip(c).for_each(|((a, &b), &c)| *a = libm::fmaf(*a, b, c));
            }
            (Column::F64(a), Column::F64(b), Column::F64(c)) => {
                a.iter_mut().zip(b).zip(c).for_each(|((a, &b), &c)| *a = libm::fma(*a, b, c));
            }
            (Column::Signed(a), Column::Signed(b), Column::Signed(c)) => {
                a.iter_mut().zip(b).zip(c).for_each(|((a, &b), &c)| *a = a.wrapping_mul(b).wrapping_add(c));
            }
            (Column::Unsigned(a), Column::Unsigned(b), Column::Unsigned(c)) => {
                a.iter_mut().zip(b).zip(c).for_each(|((a, &b), &c)| *a = a.wrapping_mul(b).wrapping_add(c));
            }
            _ => {}
        }
        self.wrapped(dtype)
    }

    /// Where a condition holds what is here, else what another column has.
    pub fn or(mut self, condition: &[bool], other: &Column) -> Column {
        both_classes!(&mut self, other, (a, b) => {
            a.iter_mut().zip(b).zip(condition).filter(|(_, holds)| !**holds).for_each(|((a, &b), _)| *a = b);
        }, {});
        self
    }

    /// Which numbers are not 0.
    pub fn holds(&self) -> Vec<bool> {
        each_class!(self, numbers => truths(numbers))
    }

    /// Integers as elements of a type have them.
    fn wrapped(mut self, dtype: DType) -> Column {
        match (&mut self, dtype) {
            (Column::Signed(x), DType::I32) => x.iter_mut().for_each(|x| *x = i64::from(*x as i32)),
            (Column::Signed(x), DType::I16) => x.iter_mut().for_each(|x| *x = i64::from(*x as i16)),
            (Column::Signed(x), DType::I8) => x.iter_mut().for_each(|x| *x = i64::from(*x as i8)),
            (Column::Signed(x), DType::I4) => x.iter_mut().for_each(|x| *x = i64::from((*x as i8) << 4 >> 4)),
            (Column::Signed(x), DType::U16) => x.iter_mut().for_each(|x| *x &= 0xffff),
            (Column::Signed(x), DType::U8) => x.iter_mut().for_each(|x| *x &= 0xff),
            (Column::Signed(x), DType::U4) => x.iter_mut().for_each(|x| *x &= 0xf),
            (Column::Unsigned(x), DType::U32) => x.iter_mut().for_each(|x| *x &= 0xffff_ffff),
            _ => {}
        }
        self
    }

    /// Elements of one type as those of another.
    pub fn converted(self, from: DType, to: DType) -> Column {
        match (&self, from, to) {
            // What is in registers has its value whatever its width.
            (Column::Signed(_), _, DType::I64) => return self,
            (Column::F32(_), _, DType::F32) => return self,
            (Column::Signed(numbers), _, DType::F32) => {
                return Column::F32(numbers.iter().map(|&x| x as f32).collect());
            }
            _ => {}
        }
        let count = each_class!(&self, numbers => numbers.len());
        let mut bytes = vec![0; count * encoded_bytes(to)];
        self.encode(to, &mut bytes);
        let mut column = Column::zeros(Scalar::of(to), count);
        let step = 2 * encoded_bytes(to) as i64;
        each_class!(&mut column, numbers => Number::load(&bytes, to, 0, step, numbers));
        column
    }

    /// The numbers as elements of a type, four-bit ones as one byte each.
    pub fn encode(&self, dtype: DType, out: &mut [u8]) {
        each_class!(self, numbers => Number::encode(numbers, dtype, out));
    }

    /// Reads an element of each index in bytes; threads that do not take part have 0. Indices are in range.
    pub fn gather(bytes: &[u8], dtype: DType, indices: &[i64], active: &[bool]) -> Column {
        let step = if dtype.bits() < 8 { 1 } else { 2 * encoded_bytes(dtype) as i64 };
        let mut column = Column::zeros(Scalar::of(dtype), indices.len());
        each_class!(&mut column, numbers => {
            for ((number, &index), _) in numbers.iter_mut().zip(indices).zip(active).filter(|(_, active)| **active) {
                Number::load(bytes, dtype, index * step, step, std::slice::from_mut(number));
            }
        });
        column
    }

    /// Combines the numbers of so many neighbours, as a machine with warps of so many threads does it: within warps by
    /// exchanging with ever nearer neighbours, then the results of warps in their order.
    pub fn reduced(mut self, function: FoldFn, dtype: DType, width: usize, warp: usize) -> Column {
        fn fold<N: Number>(numbers: &mut [N], function: FoldFn, width: usize, warp: usize) {
            let mut mask = width.min(warp) / 2;
            while mask > 0 {
                let others: Vec<N> = (0..numbers.len()).map(|thread| numbers[thread ^ mask]).collect();
                N::combine(function, numbers, &others);
                mask /= 2;
            }
            if width > warp {
                for group in numbers.chunks_mut(width) {
                    let mut all = [group[0]];
                    for first in (warp..group.len()).step_by(warp) {
                        N::combine(function, &mut all, &[group[first]]);
                    }
                    group.fill(all[0]);
                }
            }
        }
        each_class!(&mut self, numbers => fold(numbers, function, width, warp));
        self.wrapped(dtype)
    }
}
