//! Arithmetic of vector units: the four number classes, and how elements of every type enter and leave them. All simulators
//! of machines of our own compute with it, so that machines round alike.

use bytemuck::Pod;
use float8::{F8E4M3, F8E5M2};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

/// How a reduction combines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FoldFn {
    /// Sum.
    Sum,
    /// Product.
    Product,
    /// Greatest.
    Max,
    /// Least.
    Min,
    /// Sum of products of two operands.
    Dot,
}

impl FoldFn {
    /// All functions, in the order of their numbers.
    pub const ALL: [FoldFn; 5] = [FoldFn::Sum, FoldFn::Product, FoldFn::Max, FoldFn::Min, FoldFn::Dot];

    /// Number of operands.
    pub fn operands(self) -> usize {
        if self == FoldFn::Dot { 2 } else { 1 }
    }
}

/// An integer was divided by zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DivisionByZero;

/// A number of one class.
pub(crate) trait Number: Copy + Default + PartialOrd + Send + Sync + 'static {
    /// Reads elements from `memory`, the first at nibble `at`, each `step` nibbles after the one before.
    fn load(memory: &[u8], dtype: DType, at: i64, step: i64, out: &mut [Self]);

    /// Converts to `dtype` as a cast does and writes densely, four-bit elements as one byte each; every NaN as the
    /// canonical one.
    fn encode(values: &[Self], dtype: DType, out: &mut [u8]);

    fn of_float(value: f64) -> Self;

    fn of_integer(value: i64) -> Self;

    /// Applies a function, which is defined on this class, to all of `x`; `truth` says that elements are truth values.
    fn unary(function: UnaryFn, x: &mut [Self], truth: bool);

    /// Combines `a` with `b` into `a`. `bits` is the width of the operands' type. The function must be defined on this
    /// class and no comparison. Where it fails nothing has changed.
    fn binary(function: BinaryFn, a: &mut [Self], b: &[Self], bits: u32) -> Result<(), DivisionByZero>;

    /// What a fold of `dtype` elements starts from.
    fn neutral(function: FoldFn, dtype: DType) -> Self;

    /// One step of a fold; for a dot product the addition.
    fn combine(function: FoldFn, into: &mut [Self], x: &[Self]);

    /// Whether this is the greatest of all, which NaN is.
    fn is_nan(self) -> bool;
}

/// Bytes that one encoded element takes.
pub(crate) fn encoded_bytes(dtype: DType) -> usize {
    dtype.bits().div_ceil(8)
}

/// Calls `f` on elements of a native type.
fn gather<T: Pod, C: Copy>(memory: &[u8], at: i64, step: i64, out: &mut [C], f: impl Fn(T) -> C) {
    let size = size_of::<T>();
    let (start, step) = ((at / 2) as usize, (step / 2) as isize);
    if step == size as isize {
        let bytes = &memory[start..start + out.len() * size];
        for (out, element) in out.iter_mut().zip(bytes.chunks_exact(size)) {
            *out = f(bytemuck::pod_read_unaligned(element));
        }
    } else if step == 0 && !out.is_empty() {
        out.fill(f(bytemuck::pod_read_unaligned(&memory[start..start + size])));
    } else {
        let mut at = start;
        for out in out {
            *out = f(bytemuck::pod_read_unaligned(&memory[at..at + size]));
            at = at.wrapping_add_signed(step);
        }
    }
}

fn nibbles<C>(memory: &[u8], at: i64, step: i64, out: &mut [C], f: impl Fn(u8) -> C) {
    let mut at = at;
    for out in out {
        *out = f((memory[(at / 2) as usize] >> (4 * (at % 2))) & 0xf);
        at += step;
    }
}

/// Writes elements of a native type densely.
fn scatter<T: Pod, C: Copy>(values: &[C], out: &mut [u8], f: impl Fn(C) -> T) {
    for (out, &value) in out.chunks_exact_mut(size_of::<T>()).zip(values) {
        out.copy_from_slice(bytemuck::bytes_of(&f(value)));
    }
}

/// Gives every NaN the same bits, those of the positive quiet one without payload. Compilers choose sign and payload of
/// the NaN that arithmetic makes, so without this results would differ from one build to the next.
pub(crate) fn canonical(value: f32) -> f32 {
    f32::from_bits(if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() })
}

/// As [`canonical`], for binary64.
fn canonical_double(value: f64) -> f64 {
    f64::from_bits(if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() })
}

/// Writes numbers as elements of a float type, given the conversions to binary64 and to binary32, through which the
/// narrower types go. They take the canonical NaN to their own.
fn encode_floats<C: Copy>(
    values: &[C],
    dtype: DType,
    out: &mut [u8],
    double: impl Fn(C) -> f64,
    single: impl Fn(C) -> f32,
) {
    let single = |x| canonical(single(x));
    match dtype {
        DType::F64 => scatter(values, out, |x| canonical_double(double(x))),
        DType::F16 => scatter(values, out, |x| f16::from_f32(single(x))),
        DType::BF16 => scatter(values, out, |x| bf16::from_f32(single(x))),
        DType::F8E4M3 => scatter(values, out, |x| F8E4M3::from_f32(single(x)).to_bits()),
        DType::F8E5M2 => scatter(values, out, |x| F8E5M2::from_f32(single(x)).to_bits()),
        _ => scatter(values, out, single),
    }
}

fn each<C: Copy>(x: &mut [C], f: impl Fn(C) -> C) {
    for x in x {
        *x = f(*x);
    }
}

fn pairs<C: Copy>(a: &mut [C], b: &[C], f: impl Fn(C, C) -> C) {
    for (a, &b) in a.iter_mut().zip(b) {
        *a = f(*a, b);
    }
}

/// Compares element by element; 1 is true.
pub(crate) fn compare<C: PartialOrd + Copy>(function: BinaryFn, a: &[C], b: &[C], out: &mut [u64]) {
    fn run<C: Copy>(a: &[C], b: &[C], out: &mut [u64], f: impl Fn(C, C) -> bool) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out = u64::from(f(a, b));
        }
    }
    match function {
        BinaryFn::Ge => run(a, b, out, |a, b| a >= b),
        BinaryFn::Gt => run(a, b, out, |a, b| a > b),
        BinaryFn::Le => run(a, b, out, |a, b| a <= b),
        BinaryFn::Lt => run(a, b, out, |a, b| a < b),
        _ => run(a, b, out, |a, b| a == b),
    }
}

/// Whether a function of one operand is defined on elements of a type.
pub(crate) fn unary_is_defined(function: UnaryFn, dtype: DType) -> bool {
    match function {
        UnaryFn::Abs | UnaryFn::Neg | UnaryFn::Sign => true,
        UnaryFn::Not => !dtype.is_float(),
        _ => dtype.is_float(),
    }
}

/// Whether a function of two operands is defined on elements of a type.
pub(crate) fn binary_is_defined(function: BinaryFn, dtype: DType) -> bool {
    match function {
        BinaryFn::And | BinaryFn::Or | BinaryFn::Xor | BinaryFn::Shl | BinaryFn::Shr => !dtype.is_float(),
        _ => true,
    }
}

macro_rules! load_and_convert {
    ($C:ty) => {
        fn load(memory: &[u8], dtype: DType, at: i64, step: i64, out: &mut [$C]) {
            match dtype {
                DType::F64 => gather(memory, at, step, out, |x: f64| x as $C),
                DType::F32 => gather(memory, at, step, out, |x: f32| x as $C),
                DType::F16 => gather(memory, at, step, out, |x: f16| x.to_f32() as $C),
                DType::BF16 => gather(memory, at, step, out, |x: bf16| x.to_f32() as $C),
                DType::F8E4M3 => gather(memory, at, step, out, |x: u8| F8E4M3::from_bits(x).to_f32() as $C),
                DType::F8E5M2 => gather(memory, at, step, out, |x: u8| F8E5M2::from_bits(x).to_f32() as $C),
                DType::I64 => gather(memory, at, step, out, |x: i64| x as $C),
                DType::I32 => gather(memory, at, step, out, |x: i32| x as $C),
                DType::I16 => gather(memory, at, step, out, |x: i16| x as $C),
                DType::I8 => gather(memory, at, step, out, |x: i8| x as $C),
                DType::I4 => nibbles(memory, at, step, out, |x| (((x << 4) as i8) >> 4) as $C),
                DType::U64 => gather(memory, at, step, out, |x: u64| x as $C),
                DType::U32 => gather(memory, at, step, out, |x: u32| x as $C),
                DType::U16 => gather(memory, at, step, out, |x: u16| x as $C),
                DType::U8 => gather(memory, at, step, out, |x: u8| x as $C),
                DType::U4 => nibbles(memory, at, step, out, |x| x as $C),
                DType::Bool => gather(memory, at, step, out, |x: u8| u8::from(x != 0) as $C),
            }
        }

        fn of_float(value: f64) -> $C {
            value as $C
        }

        fn of_integer(value: i64) -> $C {
            value as $C
        }
    };
}

macro_rules! float_number {
    ($C:ident, $erf:path) => {
        impl Number for $C {
            load_and_convert!($C);

            // Rust's conversions from float to integer truncate, saturate and take NaN to 0, as casts shall.
            fn encode(values: &[$C], dtype: DType, out: &mut [u8]) {
                match dtype {
                    DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => {
                        encode_floats(values, dtype, out, |x| x as f64, |x| x as f32);
                    }
                    DType::I64 => scatter(values, out, |x| x as i64),
                    DType::I32 => scatter(values, out, |x| x as i32),
                    DType::I16 => scatter(values, out, |x| x as i16),
                    DType::I8 => scatter(values, out, |x| x as i8),
                    DType::I4 => scatter(values, out, |x| x.clamp(-8.0, 7.0) as i8 as u8 & 0xf),
                    DType::U64 => scatter(values, out, |x| x as u64),
                    DType::U32 => scatter(values, out, |x| x as u32),
                    DType::U16 => scatter(values, out, |x| x as u16),
                    DType::U8 => scatter(values, out, |x| x as u8),
                    DType::U4 => scatter(values, out, |x| x.clamp(0.0, 15.0) as u8),
                    DType::Bool => scatter(values, out, |x| u8::from(x != 0.0)),
                }
            }

            fn unary(function: UnaryFn, x: &mut [$C], _truth: bool) {
                match function {
                    UnaryFn::Abs => each(x, $C::abs),
                    UnaryFn::Ceil => each(x, $C::ceil),
                    UnaryFn::Cos => each(x, $C::cos),
                    UnaryFn::Erf => each(x, $erf),
                    UnaryFn::Exp => each(x, $C::exp),
                    UnaryFn::Floor => each(x, $C::floor),
                    UnaryFn::IsInf => each(x, |x| $C::from(u8::from(x.is_infinite()))),
                    UnaryFn::IsNan => each(x, |x| $C::from(u8::from(x.is_nan()))),
                    UnaryFn::Log => each(x, $C::ln),
                    UnaryFn::Neg => each(x, |x| -x),
                    UnaryFn::Not => each(x, |x| $C::from(u8::from(x == 0.0))),
                    UnaryFn::Recip => each(x, |x| 1.0 / x),
                    UnaryFn::Round => each(x, $C::round_ties_even),
                    UnaryFn::Rsqrt => each(x, |x| 1.0 / x.sqrt()),
                    UnaryFn::Sigmoid => each(x, |x| 1.0 / (1.0 + (-x).exp())),
                    UnaryFn::Sign => each(x, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
                    UnaryFn::Sin => each(x, $C::sin),
                    UnaryFn::Softplus => each(x, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
                    UnaryFn::Sqrt => each(x, $C::sqrt),
                    UnaryFn::Tan => each(x, $C::tan),
                    UnaryFn::Tanh => each(x, $C::tanh),
                }
            }

            fn binary(function: BinaryFn, a: &mut [$C], b: &[$C], _bits: u32) -> Result<(), DivisionByZero> {
                match function {
                    BinaryFn::Add => pairs(a, b, |a, b| a + b),
                    BinaryFn::Sub => pairs(a, b, |a, b| a - b),
                    BinaryFn::Mul => pairs(a, b, |a, b| a * b),
                    BinaryFn::Div => pairs(a, b, |a, b| a / b),
                    // NaN if either is, the first of two equals.
                    BinaryFn::Max => pairs(a, b, |a, b| if a.is_nan() || a >= b { a } else { b }),
                    BinaryFn::Min => pairs(a, b, |a, b| if a.is_nan() || a <= b { a } else { b }),
                    BinaryFn::Mod => pairs(a, b, |a, b| {
                        let rest = a % b;
                        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
                    }),
                    BinaryFn::Rem => pairs(a, b, |a, b| a % b),
                    BinaryFn::Pow => pairs(a, b, $C::powf),
                    // Comparisons go through `compare`; bitwise functions are not defined on floats.
                    _ => {}
                }
                Ok(())
            }

            fn neutral(function: FoldFn, _dtype: DType) -> $C {
                match function {
                    FoldFn::Sum | FoldFn::Dot => 0.0,
                    FoldFn::Product => 1.0,
                    FoldFn::Max => $C::NEG_INFINITY,
                    FoldFn::Min => $C::INFINITY,
                }
            }

            fn combine(function: FoldFn, into: &mut [$C], x: &[$C]) {
                match function {
                    FoldFn::Sum | FoldFn::Dot => pairs(into, x, |a, b| a + b),
                    FoldFn::Product => pairs(into, x, |a, b| a * b),
                    FoldFn::Max => pairs(into, x, |a, b| if a.is_nan() || a > b { a } else { b }),
                    FoldFn::Min => pairs(into, x, |a, b| if a.is_nan() || a < b { a } else { b }),
                }
            }

            fn is_nan(self) -> bool {
                self.is_nan()
            }
        }
    };
}

float_number!(f32, libm::erff);
float_number!(f64, libm::erf);

macro_rules! integer_number {
    ($C:ident, $unary:path, $binary:path) => {
        impl Number for $C {
            load_and_convert!($C);

            fn encode(values: &[$C], dtype: DType, out: &mut [u8]) {
                match dtype {
                    DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => {
                        encode_floats(values, dtype, out, |x| x as f64, |x| x as f32);
                    }
                    DType::I64 | DType::U64 => scatter(values, out, |x| x as u64),
                    DType::I32 | DType::U32 => scatter(values, out, |x| x as u32),
                    DType::I16 | DType::U16 => scatter(values, out, |x| x as u16),
                    DType::I8 | DType::U8 => scatter(values, out, |x| x as u8),
                    DType::I4 | DType::U4 => scatter(values, out, |x| x as u8 & 0xf),
                    DType::Bool => scatter(values, out, |x| u8::from(x != 0)),
                }
            }

            fn unary(function: UnaryFn, x: &mut [$C], truth: bool) {
                $unary(function, x, truth);
            }

            fn binary(function: BinaryFn, a: &mut [$C], b: &[$C], bits: u32) -> Result<(), DivisionByZero> {
                let divides = matches!(function, BinaryFn::Div | BinaryFn::Mod | BinaryFn::Rem);
                if divides && b.contains(&0) {
                    return Err(DivisionByZero);
                }
                match function {
                    BinaryFn::Add => pairs(a, b, $C::wrapping_add),
                    BinaryFn::Sub => pairs(a, b, $C::wrapping_sub),
                    BinaryFn::Mul => pairs(a, b, $C::wrapping_mul),
                    BinaryFn::Div => pairs(a, b, $C::wrapping_div),
                    BinaryFn::Rem => pairs(a, b, $C::wrapping_rem),
                    BinaryFn::Max => pairs(a, b, $C::max),
                    BinaryFn::Min => pairs(a, b, $C::min),
                    BinaryFn::And => pairs(a, b, |a, b| a & b),
                    BinaryFn::Or => pairs(a, b, |a, b| a | b),
                    BinaryFn::Xor => pairs(a, b, |a, b| a ^ b),
                    _ => $binary(function, a, b, bits),
                }
                Ok(())
            }

            fn neutral(function: FoldFn, dtype: DType) -> $C {
                let (low, high) = dtype.integer_range().unwrap_or((0, 1));
                match function {
                    FoldFn::Sum | FoldFn::Dot => 0,
                    FoldFn::Product => 1,
                    FoldFn::Max => low as $C,
                    FoldFn::Min => high as $C,
                }
            }

            fn combine(function: FoldFn, into: &mut [$C], x: &[$C]) {
                match function {
                    FoldFn::Sum | FoldFn::Dot => pairs(into, x, $C::wrapping_add),
                    FoldFn::Product => pairs(into, x, $C::wrapping_mul),
                    FoldFn::Max => pairs(into, x, $C::max),
                    FoldFn::Min => pairs(into, x, $C::min),
                }
            }

            fn is_nan(self) -> bool {
                false
            }
        }
    };
}

integer_number!(i64, signed_unary, signed_binary);
integer_number!(u64, unsigned_unary, unsigned_binary);

fn signed_unary(function: UnaryFn, x: &mut [i64], _truth: bool) {
    match function {
        UnaryFn::Abs => each(x, i64::wrapping_abs),
        UnaryFn::Neg => each(x, i64::wrapping_neg),
        UnaryFn::Sign => each(x, i64::signum),
        _ => each(x, |x| !x),
    }
}

fn unsigned_unary(function: UnaryFn, x: &mut [u64], truth: bool) {
    match function {
        UnaryFn::Abs => {}
        UnaryFn::Neg => each(x, u64::wrapping_neg),
        UnaryFn::Sign => each(x, |x| u64::from(x != 0)),
        _ if truth => each(x, |x| x ^ 1),
        _ => each(x, |x| !x),
    }
}

fn signed_binary(function: BinaryFn, a: &mut [i64], b: &[i64], bits: u32) {
    match function {
        BinaryFn::Mod => pairs(a, b, |a, b| {
            let rest = a.wrapping_rem(b);
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }),
        BinaryFn::Pow => pairs(a, b, signed_power),
        BinaryFn::Shl => pairs(a, b, |a, b| if (0..i64::from(bits)).contains(&b) { a << b } else { 0 }),
        BinaryFn::Shr => pairs(a, b, |a, b| a >> b.clamp(0, 63)),
        // Comparisons go through `compare`; the other functions are common to both classes.
        _ => {}
    }
}

fn unsigned_binary(function: BinaryFn, a: &mut [u64], b: &[u64], bits: u32) {
    match function {
        BinaryFn::Mod => pairs(a, b, |a, b| a % b),
        BinaryFn::Pow => pairs(a, b, |a, b| a.wrapping_pow(u32::try_from(b).unwrap_or(u32::MAX))),
        BinaryFn::Shl => pairs(a, b, |a, b| if b < u64::from(bits) { a << b } else { 0 }),
        BinaryFn::Shr => pairs(a, b, |a, b| if b < u64::from(bits) { a >> b } else { 0 }),
        // Comparisons go through `compare`; the other functions are common to both classes.
        _ => {}
    }
}

/// Powers wrap; negative ones truncate to 0 but for bases 1 and -1.
fn signed_power(base: i64, exponent: i64) -> i64 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    base.wrapping_pow(u32::try_from(exponent).unwrap_or(u32::MAX))
}
