//! Element-wise functions of one operand.

use serde::{Deserialize, Serialize};

use super::elementwise::map;
use super::float;
use crate::op::{OpError, Operator, OutputTypes, one, operands};
use crate::{DType, Tensor, TensorType, Values};

/// Applies one scalar function to every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unary(pub UnaryFn);

macro_rules! unary_functions {
    ($($(#[$doc:meta])* $Function:ident = $name:literal),* $(,)?) => {
        /// The scalar functions of [`Unary`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum UnaryFn {
            $($(#[$doc])* $Function,)*
        }

        impl UnaryFn {
            /// All functions.
            pub const ALL: &'static [UnaryFn] = &[$(UnaryFn::$Function,)*];
            const NAMES: &'static [&'static str] = &[$($name,)*];

            /// The name in textual IR.
            pub fn name(self) -> &'static str {
                match self { $(UnaryFn::$Function => $name,)* }
            }
        }
    };
}

unary_functions! {
    /// |x|.
    Abs = "abs",
    /// Least integer not below x.
    Ceil = "ceil",
    /// cos x, x in radians.
    Cos = "cos",
    /// The error function.
    Erf = "erf",
    /// e to the power x.
    Exp = "exp",
    /// Greatest integer not above x.
    Floor = "floor",
    /// Whether x is an infinity.
    IsInf = "is_inf",
    /// Whether x is not a number.
    IsNan = "is_nan",
    /// Natural logarithm.
    Log = "log",
    /// -x; integers wrap.
    Neg = "neg",
    /// Logical negation of a truth value, bitwise of an integer.
    Not = "not",
    /// 1 / x.
    Recip = "recip",
    /// Nearest integer, ties to even.
    Round = "round",
    /// 1 / sqrt x.
    Rsqrt = "rsqrt",
    /// 1 / (1 + e^-x).
    Sigmoid = "sigmoid",
    /// -1, 0 or 1 by the sign of x; NaN stays.
    Sign = "sign",
    /// sin x, x in radians.
    Sin = "sin",
    /// ln(1 + e^x).
    Softplus = "softplus",
    /// Square root.
    Sqrt = "sqrt",
    /// tan x, x in radians.
    Tan = "tan",
    /// Hyperbolic tangent.
    Tanh = "tanh",
}

impl UnaryFn {
    /// Whether the result is a truth value whatever the operand's type.
    pub fn is_predicate(self) -> bool {
        matches!(self, UnaryFn::IsInf | UnaryFn::IsNan)
    }

    fn is_defined_on(self, dtype: DType) -> bool {
        match self {
            UnaryFn::Abs | UnaryFn::Neg | UnaryFn::Sign => dtype != DType::Bool,
            UnaryFn::Not => !dtype.is_float(),
            _ => dtype.is_float(),
        }
    }
}

// The function is chosen outside the loop over elements, so that each loop is compiled for its own function.
macro_rules! float_functions {
    ($name:ident, $float:ident, $erf:path, $exp:path, $round:path, $sigmoid:expr, $softplus:path, $tanh:path) => {
        fn $name(function: UnaryFn, x: &[$float]) -> Vec<$float> {
            match function {
                UnaryFn::Abs => map(x, |x| x.abs()),
                UnaryFn::Ceil => map(x, |x| x.ceil()),
                UnaryFn::Cos => map(x, |x| x.cos()),
                UnaryFn::Erf => map(x, $erf),
                UnaryFn::Exp => map(x, $exp),
                UnaryFn::Floor => map(x, |x| x.floor()),
                UnaryFn::IsInf => map(x, |x| $float::from(u8::from(x.is_infinite()))),
                UnaryFn::IsNan => map(x, |x| $float::from(u8::from(x.is_nan()))),
                UnaryFn::Log => map(x, |x| x.ln()),
                UnaryFn::Neg => map(x, |x| -x),
                UnaryFn::Not => map(x, |x| $float::from(u8::from(x == 0.0))),
                UnaryFn::Recip => map(x, |x| 1.0 / x),
                UnaryFn::Round => map(x, $round),
                UnaryFn::Rsqrt => map(x, |x| 1.0 / x.sqrt()),
                UnaryFn::Sigmoid => map(x, $sigmoid),
                UnaryFn::Sign => map(x, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
                UnaryFn::Sin => map(x, |x| x.sin()),
                UnaryFn::Softplus => map(x, $softplus),
                UnaryFn::Sqrt => map(x, |x| x.sqrt()),
                UnaryFn::Tan => map(x, |x| x.tan()),
                UnaryFn::Tanh => map(x, $tanh),
            }
        }
    };
}

float_functions!(
    float32, f32, float::erf, float::exp, float::round, float::sigmoid, float::softplus, float::tanh
);
float_functions!(
    float64, f64, libm::erf, f64::exp, f64::round_ties_even, |x: f64| 1.0 / (1.0 + (-x).exp()), float::softplus64,
    f64::tanh
);

impl Operator for Unary {
    const NAMES: &'static [&'static str] = UnaryFn::NAMES;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn attributes(&self) -> Result<serde_json::Value, serde_json::Error> {
        Ok(serde_json::json!({}))
    }

    fn from_text(name: &str, _attributes: serde_json::Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(name.into()).map(Unary)
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        if !self.0.is_defined_on(x.dtype) {
            let expected = match self.0 {
                UnaryFn::Not => "an integer or truth value",
                UnaryFn::Abs | UnaryFn::Neg | UnaryFn::Sign => "a number",
                _ => "a float",
            };
            return Err(OpError::dtype(0, expected, x.dtype));
        }
        one(if self.0.is_predicate() { DType::Bool } else { x.dtype }, x.shape.clone())
    }

    fn keeps_excess_precision(&self) -> bool {
        !matches!(self.0, UnaryFn::Round | UnaryFn::Sign)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        let result = match x.widen()? {
            Values::F32(v) => Values::F32(float32(self.0, &v).into()),
            Values::F64(v) => Values::F64(float64(self.0, &v).into()),
            Values::Signed(v) => Values::Signed(match self.0 {
                UnaryFn::Abs => map(&v, i64::wrapping_abs),
                UnaryFn::Neg => map(&v, i64::wrapping_neg),
                UnaryFn::Sign => map(&v, i64::signum),
                _ => map(&v, |x| !x),
            }.into()),
            Values::Unsigned(v) => Values::Unsigned(match self.0 {
                UnaryFn::Not if x.dtype() == DType::Bool => map(&v, |x| x ^ 1),
                UnaryFn::Not => map(&v, |x| !x),
                UnaryFn::Neg => map(&v, u64::wrapping_neg),
                UnaryFn::Sign => map(&v, |x| u64::from(x != 0)),
                _ => v.into_owned(),
            }.into()),
        };
        let result = match result {
            Values::F32(v) if self.0.is_predicate() => Values::Unsigned(map(&v, |x| x as u64).into()),
            Values::F64(v) if self.0.is_predicate() => Values::Unsigned(map(&v, |x| x as u64).into()),
            other => other,
        };
        Ok(vec![Tensor::narrow(outputs[0].clone(), result)])
    }
}
