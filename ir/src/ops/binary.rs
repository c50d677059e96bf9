//! Element-wise functions of two operands, with NumPy's broadcasting.

use serde::{Deserialize, Serialize};

use super::elementwise::zip;
use crate::op::{OpError, Operator, OutputTypes, one, operands, same_dtype};
use crate::{DType, Shape, Tensor, TensorType, Values};

/// Applies one scalar function to every pair of elements. Both operands have the same element type; shapes broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Binary(pub BinaryFn);

macro_rules! binary_functions {
    ($($(#[$doc:meta])* $Function:ident = $name:literal),* $(,)?) => {
        /// The scalar functions of [`Binary`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum BinaryFn {
            $($(#[$doc])* $Function,)*
        }

        impl BinaryFn {
            /// All functions.
            pub const ALL: &'static [BinaryFn] = &[$(BinaryFn::$Function,)*];
            const NAMES: &'static [&'static str] = &[$($name,)*];

            /// The name in textual IR.
            pub fn name(self) -> &'static str {
                match self { $(BinaryFn::$Function => $name,)* }
            }
        }
    };
}

binary_functions! {
    /// a + b.
    Add = "add",
    /// Logical or bitwise and.
    And = "and",
    /// a / b; integer division truncates.
    Div = "div",
    /// Whether a = b.
    Eq = "eq",
    /// Whether a >= b.
    Ge = "ge",
    /// Whether a > b.
    Gt = "gt",
    /// Whether a <= b.
    Le = "le",
    /// Whether a < b.
    Lt = "lt",
    /// Greater of the two; NaN if either is.
    Max = "max",
    /// Lesser of the two; NaN if either is.
    Min = "min",
    /// Remainder with the sign of b, as Python's `%`.
    Mod = "mod",
    /// a b.
    Mul = "mul",
    /// Logical or bitwise or.
    Or = "or",
    /// a to the power b.
    Pow = "pow",
    /// Remainder with the sign of a, as C's `fmod`.
    Rem = "rem",
    /// a 2^b for integers; bits shifted out are lost.
    Shl = "shl",
    /// a / 2^b for integers, rounded down.
    Shr = "shr",
    /// a - b.
    Sub = "sub",
    /// Logical or bitwise exclusive or.
    Xor = "xor",
}

impl BinaryFn {
    /// Whether the result is a truth value whatever the operands' type.
    pub fn is_comparison(self) -> bool {
        matches!(self, BinaryFn::Eq | BinaryFn::Ge | BinaryFn::Gt | BinaryFn::Le | BinaryFn::Lt)
    }

    /// Whether operands may change places.
    pub fn is_commutative(self) -> bool {
        use BinaryFn::{Add, And, Eq, Max, Min, Mul, Or, Xor};
        matches!(self, Add | And | Eq | Max | Min | Mul | Or | Xor)
    }

    fn expected(self) -> (&'static str, fn(DType) -> bool) {
        use BinaryFn::{And, Eq, Or, Shl, Shr, Xor};
        match self {
            And | Or | Xor => ("an integer or truth value", |dtype| !dtype.is_float()),
            Shl | Shr => ("an integer", DType::is_integer),
            Eq => ("any type", |_| true),
            _ => ("a number", |dtype| dtype != DType::Bool),
        }
    }
}

fn nan_aware(a: f64, b: f64, pick_first: bool) -> f64 {
    if a.is_nan() || (pick_first && !b.is_nan()) { a } else { b }
}

impl Operator for Binary {
    const NAMES: &'static [&'static str] = BinaryFn::NAMES;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn attributes(&self) -> Result<serde_json::Value, serde_json::Error> {
        Ok(serde_json::json!({}))
    }

    fn from_text(name: &str, _attributes: serde_json::Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(name.into()).map(Binary)
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [a, b] = operands(inputs)?;
        same_dtype(inputs, 1)?;
        let (expected, is_defined_on) = self.0.expected();
        if !is_defined_on(a.dtype) {
            return Err(OpError::dtype(0, expected, a.dtype));
        }
        one(if self.0.is_comparison() { DType::Bool } else { a.dtype }, a.shape.broadcast(&b.shape)?)
    }

    fn keeps_excess_precision(&self) -> bool {
        !matches!(self.0, BinaryFn::Max | BinaryFn::Min | BinaryFn::Mod)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        use BinaryFn::*;
        let [a, b] = operands(inputs)?;
        let out = &outputs[0];
        let (sa, sb, so) = (a.shape(), b.shape(), &out.shape);
        let truth = |values: Vec<u64>| Values::Unsigned(values.into());
        macro_rules! floats {
            ($a:expr, $b:expr, $Class:ident, $float:ident) => {{
                let (a, b) = (($a, sa), ($b, sb));
                match self.0 {
                    Eq | Ge | Gt | Le | Lt => truth(compare(self.0, a, b, so)),
                    Add => Values::$Class(zip(a, b, so, |a, b| a + b).into()),
                    Sub => Values::$Class(zip(a, b, so, |a, b| a - b).into()),
                    Mul => Values::$Class(zip(a, b, so, |a, b| a * b).into()),
                    Div => Values::$Class(zip(a, b, so, |a, b| a / b).into()),
                    Max => Values::$Class(
                        zip(a, b, so, |a, b| nan_aware(f64::from(a), f64::from(b), a >= b) as $float).into(),
                    ),
                    Min => Values::$Class(
                        zip(a, b, so, |a, b| nan_aware(f64::from(a), f64::from(b), a <= b) as $float).into(),
                    ),
                    Mod => Values::$Class(
                        zip(a, b, so, |a: $float, b: $float| {
                            let r = a % b;
                            if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
                        })
                        .into(),
                    ),
                    Rem => Values::$Class(zip(a, b, so, |a, b| a % b).into()),
                    Pow => Values::$Class(zip(a, b, so, |a: $float, b: $float| a.powf(b)).into()),
                    And | Or | Xor | Shl | Shr => {
                        return Err(OpError::dtype(0, self.0.expected().0, inputs[0].dtype()));
                    }
                }
            }};
        }
        let zero = || OpError::Value("integer division by zero".to_owned());
        let integer_division = matches!(self.0, Div | Mod | Rem) && !a.dtype().is_float() && !so.dims().contains(&0);
        let bits = a.dtype().bits() as u64;
        let values = match (a.widen()?, b.widen()?) {
            (Values::F32(a), Values::F32(b)) => floats!(&a[..], &b[..], F32, f32),
            (Values::F64(a), Values::F64(b)) => floats!(&a[..], &b[..], F64, f64),
            (Values::Signed(a), Values::Signed(b)) => {
                if integer_division && b.contains(&0) {
                    return Err(zero());
                }
                let (a, b) = ((&a[..], sa), (&b[..], sb));
                let number = |values: Vec<i64>| Values::Signed(values.into());
                match self.0 {
                    Eq | Ge | Gt | Le | Lt => truth(compare(self.0, a, b, so)),
                    Add => number(zip(a, b, so, i64::wrapping_add)),
                    Sub => number(zip(a, b, so, i64::wrapping_sub)),
                    Mul => number(zip(a, b, so, i64::wrapping_mul)),
                    Div => number(zip(a, b, so, i64::wrapping_div)),
                    Max => number(zip(a, b, so, i64::max)),
                    Min => number(zip(a, b, so, i64::min)),
                    Mod => number(zip(a, b, so, |a, b| {
                        let r = a.wrapping_rem(b);
                        if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
                    })),
                    Rem => number(zip(a, b, so, i64::wrapping_rem)),
                    Pow => number(zip(a, b, so, integer_power)),
                    And => number(zip(a, b, so, |a, b| a & b)),
                    Or => number(zip(a, b, so, |a, b| a | b)),
                    Xor => number(zip(a, b, so, |a, b| a ^ b)),
                    Shl => number(zip(a, b, so, |a, b| if (0..bits as i64).contains(&b) { a << b } else { 0 })),
                    Shr => number(zip(a, b, so, |a, b| a >> b.clamp(0, 63))),
                }
            }
            (Values::Unsigned(a), Values::Unsigned(b)) => {
                if integer_division && b.contains(&0) {
                    return Err(zero());
                }
                let (a, b) = ((&a[..], sa), (&b[..], sb));
                match self.0 {
                    Eq | Ge | Gt | Le | Lt => truth(compare(self.0, a, b, so)),
                    Add => truth(zip(a, b, so, u64::wrapping_add)),
                    Sub => truth(zip(a, b, so, u64::wrapping_sub)),
                    Mul => truth(zip(a, b, so, u64::wrapping_mul)),
                    Div => truth(zip(a, b, so, |a, b| a / b)),
                    Max => truth(zip(a, b, so, u64::max)),
                    Min => truth(zip(a, b, so, u64::min)),
                    Mod | Rem => truth(zip(a, b, so, |a, b| a % b)),
                    Pow => truth(zip(a, b, so, |a: u64, b| a.wrapping_pow(u32::try_from(b).unwrap_or(u32::MAX)))),
                    And => truth(zip(a, b, so, |a, b| a & b)),
                    Or => truth(zip(a, b, so, |a, b| a | b)),
                    Xor => truth(zip(a, b, so, |a, b| a ^ b)),
                    Shl => truth(zip(a, b, so, |a, b| if b < bits { a << b } else { 0 })),
                    Shr => truth(zip(a, b, so, |a, b| if b < bits { a >> b } else { 0 })),
                }
            }
            _ => return Err(OpError::dtype(1, format!("{} as operand 0", a.dtype()), b.dtype())),
        };
        Ok(vec![Tensor::narrow(out.clone(), values)])
    }
}

/// Applies a comparison; 1 is true.
fn compare<T: PartialOrd + Copy + Sync>(
    function: BinaryFn,
    a: (&[T], &Shape),
    b: (&[T], &Shape),
    target: &Shape,
) -> Vec<u64> {
    match function {
        BinaryFn::Ge => zip(a, b, target, |a, b| u64::from(a >= b)),
        BinaryFn::Gt => zip(a, b, target, |a, b| u64::from(a > b)),
        BinaryFn::Le => zip(a, b, target, |a, b| u64::from(a <= b)),
        BinaryFn::Lt => zip(a, b, target, |a, b| u64::from(a < b)),
        _ => zip(a, b, target, |a, b| u64::from(a == b)),
    }
}

fn integer_power(base: i64, exponent: i64) -> i64 {
    match u32::try_from(exponent) {
        Ok(exponent) => base.wrapping_pow(exponent),
        // A negative power of an integer truncates to 0, but for 1 and -1.
        Err(_) if exponent < 0 => match base {
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        },
        Err(_) => base.wrapping_pow(u32::MAX),
    }
}
