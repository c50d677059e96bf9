//! Expressions as C: what all languages have in common.

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::helpers::Helper;
use super::language::Language;
use crate::kernel::{Expr, ExprId, IndexFn, Kernel, Scalar};

/// How strongly an expression holds together: what holds less than is wanted is put in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Binding {
    Ternary,
    Or,
    And,
    Bits,
    Compare,
    Sum,
    Product,
    Unary,
    Whole,
}

/// What writes the expressions of a kernel.
pub(crate) trait Expressions<'k> {
    /// The kernel.
    fn kernel(&self) -> &'k Kernel;

    /// The language.
    fn language(&self) -> Language;

    /// What an expression holds.
    fn holds(&self, id: ExprId) -> Scalar;

    /// The name of a function, which is then written before all kernels.
    fn helper(&mut self, helper: Helper) -> &'static str;

    /// Whether it is known of arithmetic that what it gives is in the type, so that nothing wraps.
    fn stays(&self, _id: ExprId, _dtype: DType) -> bool {
        false
    }

    /// A number of a kernel's surroundings, a variable or an element of memory, in the writer's own words; `None` for arithmetic.
    fn own(&mut self, id: ExprId) -> Option<(String, Binding)>;

    /// An expression, in parentheses if it holds together less than wanted.
    fn expr(&mut self, id: ExprId, wanted: Binding) -> String {
        let (text, binding) = self.bound(id);
        if binding < wanted { format!("({text})") } else { text }
    }

    /// An expression, and how strongly it holds together.
    fn bound(&mut self, id: ExprId) -> (String, Binding) {
        if let Some(own) = self.own(id) {
            return own;
        }
        match self.kernel().exprs[id.index()] {
            Expr::Integer(value) => self.number(DType::I32, i64::from(value) as u64),
            Expr::Number(dtype, bits) => self.number(dtype, bits),
            Expr::Index(function, a, b) => self.index(function, a, b),
            Expr::Unary(function, dtype, x) => self.unary(function, dtype, x),
            Expr::Binary(function, dtype, a, b) => self.binary(id, function, dtype, a, b),
            Expr::MulAdd(dtype, [a, b, c]) if dtype.is_float() => {
                let [a, b, c] = [a, b, c].map(|operand| self.expr(operand, Binding::Ternary));
                let fma = self.language().math("fma");
                (format!("{fma}({a}, {b}, {c})"), Binding::Whole)
            }
            Expr::MulAdd(dtype, [a, b, c]) if self.stays(id, dtype) => {
                let (a, b) = (self.expr(a, Binding::Product), self.expr(b, Binding::Unary));
                let c = self.expr(c, Binding::Product);
                self.narrowed(dtype, (format!("{a} * {b} + {c}"), Binding::Sum))
            }
            Expr::MulAdd(dtype, [a, b, c]) => {
                let (b, c) = (self.modular(b, dtype, Binding::Unary), self.modular(c, dtype, Binding::Product));
                if wraps(dtype) {
                    let a = self.unsigned(a, dtype, Binding::Product);
                    return self.signed(dtype, format!("{a} * {b} + {c}"));
                }
                let a = self.expr(a, Binding::Product);
                self.narrowed(dtype, (format!("{a} * {b} + {c}"), Binding::Sum))
            }
            Expr::Select([condition, a, b]) => {
                let condition = self.expr(condition, Binding::Or);
                let (a, b) = (self.expr(a, Binding::Or), self.expr(b, Binding::Ternary));
                (format!("{condition} ? {a} : {b}"), Binding::Ternary)
            }
            Expr::Convert(from, to, x) => self.converted(from, to, x),
            // The writer has words for all of these.
            Expr::Thread
            | Expr::Block(_)
            | Expr::BlockNumber
            | Expr::Var(_)
            | Expr::Element(..)
            | Expr::Load(..)
            | Expr::LoadShared(..) => (String::new(), Binding::Whole),
        }
    }

    /// A literal.
    fn number(&self, dtype: DType, bits: u64) -> (String, Binding) {
        let text = self.language().literal(dtype, bits);
        let binding = if text.starts_with('-') { Binding::Unary } else { Binding::Whole };
        (text, binding)
    }

    fn index(&mut self, function: IndexFn, a: ExprId, b: ExprId) -> (String, Binding) {
        // What is on the right of a sign is taken first; comparisons and bits are not mixed with others of their kind.
        let (sign, binding, left, right) = match function {
            IndexFn::Add => ("+", Binding::Sum, Binding::Sum, Binding::Product),
            IndexFn::Sub => ("-", Binding::Sum, Binding::Sum, Binding::Product),
            IndexFn::Mul => ("*", Binding::Product, Binding::Product, Binding::Unary),
            IndexFn::Div => ("/", Binding::Product, Binding::Product, Binding::Unary),
            IndexFn::Mod => ("%", Binding::Product, Binding::Product, Binding::Unary),
            IndexFn::Xor => ("^", Binding::Bits, Binding::Unary, Binding::Unary),
            IndexFn::Lt => ("<", Binding::Compare, Binding::Sum, Binding::Sum),
            IndexFn::Ge => (">=", Binding::Compare, Binding::Sum, Binding::Sum),
            IndexFn::Eq => ("==", Binding::Compare, Binding::Sum, Binding::Sum),
            IndexFn::And => ("&&", Binding::And, Binding::And, Binding::Compare),
            IndexFn::Or => ("||", Binding::Or, Binding::Compare, Binding::Compare),
            IndexFn::Min | IndexFn::Max => {
                let (a, b) = (self.register(a), self.register(b));
                return (format!("{}({a}, {b})", if function == IndexFn::Min { "min" } else { "max" }), Binding::Whole);
            }
        };
        let (left, right) = (self.expr(a, left), self.expr(b, right));
        (format!("{left} {sign} {right}"), binding)
    }

    /// An operand of a function that is there for several types, which must find the register's.
    fn register(&mut self, id: ExprId) -> String {
        let is_narrow = match self.kernel().exprs[id.index()] {
            Expr::Unary(_, dtype, _)
            | Expr::Binary(_, dtype, ..)
            | Expr::MulAdd(dtype, _)
            | Expr::Convert(_, dtype, _) => dtype.bits() < 32 && !dtype.is_float(),
            Expr::Load(..) | Expr::LoadShared(..) => true,
            _ => false,
        };
        if is_narrow && self.holds(id) == Scalar::I32 {
            format!("(int){}", self.expr(id, Binding::Unary))
        } else {
            self.expr(id, Binding::Ternary)
        }
    }

    /// Integers as elements of a narrow type have them.
    fn narrowed(&self, dtype: DType, (text, binding): (String, Binding)) -> (String, Binding) {
        let whole = |text: String| if binding < Binding::Unary { format!("({text})") } else { text };
        match dtype {
            DType::I16 | DType::I8 => cast(self.language().stored(dtype), (text, binding)),
            DType::I4 => (format!("{} << 28 >> 28", whole(text)), Binding::Bits),
            DType::U16 => (format!("{} & 0xffff", whole(text)), Binding::Bits),
            DType::U8 => (format!("{} & 0xff", whole(text)), Binding::Bits),
            DType::U4 => (format!("{} & 0xf", whole(text)), Binding::Bits),
            _ => (text, binding),
        }
    }

    /// What was computed without sign as a number with one.
    fn signed(&self, dtype: DType, text: String) -> (String, Binding) {
        self.narrowed(dtype, (format!("({})({text})", self.language().scalar(Scalar::of(dtype))), Binding::Unary))
    }

    /// An operand as a number without sign, so that arithmetic with it wraps.
    fn unsigned(&mut self, id: ExprId, dtype: DType, wanted: Binding) -> String {
        match self.wrapping(id, dtype) {
            Some((text, binding)) if binding < wanted => format!("({text})"),
            Some((text, _)) => text,
            None => {
                let x = self.expr(id, Binding::Unary);
                format!("({}){x}", self.language().unsigned(Scalar::of(dtype)))
            }
        }
    }

    /// An operand of which nothing but the lowest bits count, since the others are those of a number without sign.
    fn modular(&mut self, id: ExprId, dtype: DType, wanted: Binding) -> String {
        match self.wrapping(id, dtype) {
            Some((text, binding)) if binding < wanted => format!("({text})"),
            Some((text, _)) => text,
            None => self.expr(id, wanted),
        }
    }

    /// A sum or product of a type that wraps, without sign; `None` if an expression is none.
    fn wrapping(&mut self, id: ExprId, dtype: DType) -> Option<(String, Binding)> {
        match self.kernel().exprs[id.index()] {
            Expr::Binary(function, own, a, b)
                if own == dtype && wraps(dtype) && dtype != DType::U16 && !self.stays(id, dtype) =>
            {
                let (sign, binding, right) = match function {
                    BinaryFn::Add => ('+', Binding::Sum, Binding::Product),
                    BinaryFn::Sub => ('-', Binding::Sum, Binding::Product),
                    BinaryFn::Mul => ('*', Binding::Product, Binding::Unary),
                    _ => return None,
                };
                let (a, b) = (self.unsigned(a, dtype, binding), self.modular(b, dtype, right));
                Some((format!("{a} {sign} {b}"), binding))
            }
            _ => None,
        }
    }

    fn unary(&mut self, function: UnaryFn, dtype: DType, x: ExprId) -> (String, Binding) {
        let scalar = Scalar::of(dtype);
        let (is_float, is_unsigned) = (dtype.is_float(), matches!(scalar, Scalar::U32 | Scalar::U64));
        let (ty, unsigned) = (self.language().scalar(scalar), self.language().unsigned(scalar));
        let one = || self.language().literal(dtype, 1f64.to_bits());
        let name = match function {
            UnaryFn::Abs if is_float => "fabs",
            UnaryFn::Abs if is_unsigned => return self.bound(x),
            UnaryFn::Abs => {
                let x = self.expr(x, Binding::Ternary);
                let abs = self.language().math("abs");
                return self.narrowed(dtype, (format!("({ty}){abs}({x})"), Binding::Unary));
            }
            UnaryFn::Ceil => "ceil",
            UnaryFn::Cos => "cos",
            UnaryFn::Erf => "erf",
            UnaryFn::Exp => "exp",
            UnaryFn::Floor => "floor",
            UnaryFn::IsInf => "isinf",
            UnaryFn::IsNan => "isnan",
            UnaryFn::Log => "log",
            UnaryFn::Neg if is_float => {
                let x = self.expr(x, Binding::Unary);
                return (minus(&x), Binding::Unary);
            }
            UnaryFn::Neg if is_unsigned || wraps(dtype) => {
                let x = self.expr(x, Binding::Product);
                let wide = unsigned == self.language().scalar(Scalar::U64);
                let zero = self.language().literal(if wide { DType::U64 } else { DType::U32 }, 0);
                let text = format!("{zero} - {x}");
                return if is_unsigned { (text, Binding::Sum) } else { self.signed(dtype, text) };
            }
            UnaryFn::Neg => {
                let x = self.expr(x, Binding::Unary);
                return self.narrowed(dtype, (minus(&x), Binding::Unary));
            }
            UnaryFn::Not if dtype == DType::Bool => {
                let x = self.expr(x, Binding::Unary);
                return (format!("!{x}"), Binding::Unary);
            }
            UnaryFn::Not => {
                let x = self.expr(x, Binding::Unary);
                return self.narrowed(dtype, (format!("~{x}"), Binding::Unary));
            }
            UnaryFn::Recip => {
                let one = one();
                let x = self.expr(x, Binding::Unary);
                return (format!("{one} / {x}"), Binding::Product);
            }
            UnaryFn::Round => "rint",
            UnaryFn::Rsqrt => {
                let one = one();
                let x = self.expr(x, Binding::Ternary);
                return (format!("{one} / {}({x})", self.language().math("sqrt")), Binding::Product);
            }
            UnaryFn::Sigmoid => {
                let one = one();
                let x = self.expr(x, Binding::Unary);
                let exp = self.language().math("exp");
                return (format!("{one} / ({one} + {exp}({}))", minus(&x)), Binding::Product);
            }
            UnaryFn::Sign => match scalar {
                Scalar::F32 => return self.called(Helper::SignF32, x),
                Scalar::F64 => return self.called(Helper::SignF64, x),
                Scalar::U32 | Scalar::U64 => {
                    let x = self.expr(x, Binding::Sum);
                    return (format!("({ty})({x} != 0)"), Binding::Unary);
                }
                Scalar::I32 | Scalar::I64 => {
                    let x = self.expr(x, Binding::Sum);
                    return cast(ty, (format!("({x} > 0) - ({x} < 0)"), Binding::Sum));
                }
            },
            UnaryFn::Sin => "sin",
            UnaryFn::Softplus => {
                let zero = self.language().literal(dtype, 0f64.to_bits());
                let x = self.expr(x, Binding::Ternary);
                let [fmax, log1p, exp, fabs] = ["fmax", "log1p", "exp", "fabs"].map(|name| self.language().math(name));
                return (format!("{fmax}({x}, {zero}) + {log1p}({exp}(-{fabs}({x})))"), Binding::Sum);
            }
            UnaryFn::Sqrt => "sqrt",
            UnaryFn::Tan => "tan",
            UnaryFn::Tanh => "tanh",
        };
        let (name, x) = (self.language().math(name), self.expr(x, Binding::Ternary));
        (format!("{name}({x})"), Binding::Whole)
    }

    /// A function that is written before all kernels, of one operand.
    fn called(&mut self, helper: Helper, x: ExprId) -> (String, Binding) {
        let (name, x) = (self.helper(helper), self.expr(x, Binding::Ternary));
        (format!("{name}({x})"), Binding::Whole)
    }

    /// The greater or lesser of two; NaN if either is.
    fn chosen(&mut self, function: BinaryFn, dtype: DType, a: &str, b: &str) -> String {
        let is_max = function == BinaryFn::Max;
        let name = match Scalar::of(dtype) {
            Scalar::F32 => self.helper(if is_max { Helper::MaxF32 } else { Helper::MinF32 }),
            Scalar::F64 => self.helper(if is_max { Helper::MaxF64 } else { Helper::MinF64 }),
            Scalar::I32 | Scalar::U32 | Scalar::I64 | Scalar::U64 if is_max => "max",
            Scalar::I32 | Scalar::U32 | Scalar::I64 | Scalar::U64 => "min",
        };
        format!("{name}({a}, {b})")
    }

    fn binary(&mut self, id: ExprId, function: BinaryFn, dtype: DType, a: ExprId, b: ExprId) -> (String, Binding) {
        let scalar = Scalar::of(dtype);
        let is_float = dtype.is_float();
        let is_unsigned = matches!(scalar, Scalar::U32 | Scalar::U64);
        let compared = |writer: &mut Self, sign: &str| {
            let (a, b) = (writer.expr(a, Binding::Sum), writer.expr(b, Binding::Sum));
            (format!("{a} {sign} {b}"), Binding::Compare)
        };
        let arithmetic = |writer: &mut Self, sign: &str, binding: Binding, right: Binding| {
            if wraps(dtype) && !writer.stays(id, dtype) {
                let (a, b) = (writer.unsigned(a, dtype, binding), writer.modular(b, dtype, right));
                return writer.signed(dtype, format!("{a} {sign} {b}"));
            }
            let (a, b) = (writer.expr(a, binding), writer.expr(b, right));
            writer.narrowed(dtype, (format!("{a} {sign} {b}"), binding))
        };
        let bits = |writer: &mut Self, sign: &str| {
            let (a, b) = (writer.expr(a, Binding::Unary), writer.expr(b, Binding::Unary));
            (format!("{a} {sign} {b}"), Binding::Bits)
        };
        if let (BinaryFn::Shr, Expr::Number(_, by)) = (function, self.kernel().exprs[b.index()])
            && by < dtype.bits() as u64
        {
            return (format!("{} >> {by}", self.expr(a, Binding::Unary)), Binding::Bits);
        }
        let (name, width) = match (function, is_unsigned) {
            (BinaryFn::Add, _) => return arithmetic(self, "+", Binding::Sum, Binding::Product),
            (BinaryFn::Sub, _) => return arithmetic(self, "-", Binding::Sum, Binding::Product),
            (BinaryFn::Mul, _) => return arithmetic(self, "*", Binding::Product, Binding::Unary),
            (BinaryFn::Div, _) if is_float => return arithmetic(self, "/", Binding::Product, Binding::Unary),
            (BinaryFn::Eq, _) => return compared(self, "=="),
            (BinaryFn::Ge, _) => return compared(self, ">="),
            (BinaryFn::Gt, _) => return compared(self, ">"),
            (BinaryFn::Le, _) => return compared(self, "<="),
            (BinaryFn::Lt, _) => return compared(self, "<"),
            (BinaryFn::And, _) => return bits(self, "&"),
            (BinaryFn::Or, _) => return bits(self, "|"),
            (BinaryFn::Xor, _) => return bits(self, "^"),
            (BinaryFn::Max | BinaryFn::Min, _) => {
                let (a, b) = (self.register(a), self.register(b));
                return (self.chosen(function, dtype, &a, &b), Binding::Whole);
            }
            (BinaryFn::Pow, _) if is_float => return self.of_two("pow", a, b),
            (BinaryFn::Mod, _) if scalar == Scalar::F32 => (self.helper(Helper::FloorModF32), None),
            (BinaryFn::Mod, _) if scalar == Scalar::F64 => (self.helper(Helper::FloorModF64), None),
            (BinaryFn::Rem, _) if is_float => return self.of_two("fmod", a, b),
            (BinaryFn::Div, false) => (self.helper(Helper::DivSigned), None),
            (BinaryFn::Div, true) => (self.helper(Helper::DivUnsigned), None),
            (BinaryFn::Rem, false) => (self.helper(Helper::RemSigned), None),
            (BinaryFn::Rem | BinaryFn::Mod, true) => (self.helper(Helper::RemUnsigned), None),
            (BinaryFn::Mod, false) => (self.helper(Helper::ModSigned), None),
            (BinaryFn::Pow, false) => (self.helper(Helper::PowSigned), None),
            (BinaryFn::Pow, true) => (self.helper(Helper::PowUnsigned), None),
            (BinaryFn::Shl, false) => (self.helper(Helper::ShlSigned), Some(dtype.bits())),
            (BinaryFn::Shl, true) => (self.helper(Helper::ShlUnsigned), Some(dtype.bits())),
            (BinaryFn::Shr, false) => (self.helper(Helper::ShrSigned), None),
            (BinaryFn::Shr, true) => (self.helper(Helper::ShrUnsigned), None),
        };
        let (a, b) = (self.expr(a, Binding::Ternary), self.expr(b, Binding::Ternary));
        if is_float {
            return (format!("{name}({a}, {b})"), Binding::Whole);
        }
        // Integers of all widths go through functions on the widest.
        let width = width.map(|width| format!(", {width}")).unwrap_or_default();
        let result = (format!("{name}({a}, {b}{width})"), Binding::Whole);
        let is_wide = matches!(scalar, Scalar::I64 | Scalar::U64);
        self.narrowed(dtype, if is_wide { result } else { cast(self.language().scalar(scalar), result) })
    }

    /// A mathematical function of two operands.
    fn of_two(&mut self, name: &'static str, a: ExprId, b: ExprId) -> (String, Binding) {
        let name = self.language().math(name);
        let (a, b) = (self.expr(a, Binding::Ternary), self.expr(b, Binding::Ternary));
        (format!("{name}({a}, {b})"), Binding::Whole)
    }

    /// A float as the nearest integer towards zero that a type has, and 0 of NaN.
    fn integer_of_float(&mut self, to: DType, x: ExprId) -> (String, Binding) {
        let x = self.expr(x, Binding::Ternary);
        let whole = match self.language() {
            Language::OpenCl if to.bits() >= 8 => {
                return (format!("convert_{}_sat_rtz({x})", self.language().stored(to)), Binding::Whole);
            }
            Language::OpenCl => "convert_int_sat_rtz",
            Language::Cuda | Language::Hls => self.helper(match Scalar::of(to) {
                Scalar::U32 => Helper::ToU32,
                Scalar::I64 => Helper::ToI64,
                Scalar::U64 => Helper::ToU64,
                Scalar::I32 | Scalar::F32 | Scalar::F64 => Helper::ToI32,
            }),
        };
        let text = match to.integer_range().filter(|_| to.bits() < 32) {
            Some((low, high)) => {
                let clamp = self.helper(Helper::Clamp);
                format!("{clamp}({whole}({x}), {low}, {high})")
            }
            None => format!("{whole}({x})"),
        };
        (text, Binding::Whole)
    }

    /// A number of one type as one of another: floats become the nearest integers towards zero that there are, and 0 of NaN.
    fn converted(&mut self, from: DType, to: DType, x: ExprId) -> (String, Binding) {
        let (own, scalar) = (Scalar::of(from), Scalar::of(to));
        let ty = self.language().scalar(scalar);
        let called = |writer: &mut Self, helpers: &[Helper]| {
            let x = writer.expr(x, Binding::Ternary);
            let call = |x: String, &helper: &Helper| format!("{}({x})", writer.helper(helper));
            (helpers.iter().fold(x, call), Binding::Whole)
        };
        match to {
            DType::Bool => {
                let x = self.expr(x, Binding::Sum);
                (format!("{x} != 0"), Binding::Compare)
            }
            DType::F16 => called(self, &[Helper::RoundF16]),
            DType::BF16 => called(self, &[Helper::ToBf16, Helper::FromBf16]),
            DType::F8E4M3 => called(self, &[Helper::ToF8E4M3, Helper::FromF8E4M3]),
            DType::F8E5M2 => called(self, &[Helper::ToF8E5M2, Helper::FromF8E5M2]),
            _ if from.is_float() && !to.is_float() => self.integer_of_float(to, x),
            // What is in a register has its value whatever its width.
            _ if own == scalar && (to.is_float() || holds_all(to, from)) => self.bound(x),
            _ => {
                let value = self.bound(x);
                let value = if own == scalar { value } else { cast(ty, value) };
                self.narrowed(to, value)
            }
        }
    }
}

/// Whether arithmetic of a type may leave its register, so that it must be done without sign.
pub(crate) fn wraps(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::I32 | DType::U16)
}

/// Whether an integer type has all numbers of another.
fn holds_all(to: DType, from: DType) -> bool {
    let range = |dtype: DType| dtype.integer_range().unwrap_or((0, 1));
    let ((least, most), (low, high)) = (range(to), range(from));
    least <= low && high <= most
}

/// A text as a number of a type.
fn cast(ty: &str, (text, binding): (String, Binding)) -> (String, Binding) {
    let text = if binding < Binding::Unary { format!("({ty})({text})") } else { format!("({ty}){text}") };
    (text, Binding::Unary)
}

/// What changes the sign of a text.
fn minus(text: &str) -> String {
    if text.starts_with('-') { format!("-({text})") } else { format!("-{text}") }
}
