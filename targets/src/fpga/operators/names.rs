//! Operators in words.

use std::fmt;

use super::{Class, Float};

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Class::Wires => write!(f, "wires"),
            Class::Add(bits) => write!(f, "addition of {bits} bits"),
            Class::Compare(bits) => write!(f, "comparison of {bits} bits"),
            Class::Extreme(bits) => write!(f, "extreme of {bits} bits"),
            Class::Logic(bits) => write!(f, "logic of {bits} bits"),
            Class::Select(bits) => write!(f, "selection of {bits} bits"),
            Class::Shift(bits) => write!(f, "shift of {bits} bits"),
            Class::Multiply([a, b], wanted) => write!(f, "product of {a} by {b} bits in {wanted}"),
            Class::MultiplyAdd([a, b], sum) => write!(f, "product of {a} by {b} bits added to a sum of {sum}"),
            Class::Scale(bits, sums) => write!(f, "product of {bits} bits by {sums} additions"),
            Class::Divide(bits) => write!(f, "quotient of {bits} bits"),
            Class::Single(function) => write!(f, "binary32 {}", function.name()),
            Class::Double(function) => write!(f, "binary64 {}", function.name()),
        }
    }
}

impl Float {
    fn name(self) -> &'static str {
        match self {
            Float::Add => "addition",
            Float::Multiply => "product",
            Float::Scale => "product by a power of two",
            Float::MultiplyAdd => "fused product and addition",
            Float::Divide => "quotient",
            Float::Remainder => "remainder",
            Float::Sqrt => "square root",
            Float::Exp => "exponential",
            Float::Log => "logarithm",
            Float::Tanh => "hyperbolic tangent",
            Float::Sigmoid => "logistic function",
            Float::Softplus => "softplus",
            Float::Erf => "error function",
            Float::Sine => "sine",
            Float::Tangent => "tangent",
            Float::Power => "power",
            Float::Reciprocal => "reciprocal",
            Float::ReciprocalSqrt => "reciprocal square root",
            Float::Compare => "comparison",
            Float::Extreme => "extreme",
            Float::Round => "rounding",
            Float::Bits => "logic",
            Float::FromInteger => "from an integer",
            Float::ToInteger => "to an integer",
            Float::Narrow => "narrowing",
        }
    }
}
