//! What computes the values of operations: logic, or operators of the library in `targets/fpga/rtl/`, which operations that never
//! start in the same cycle share.

use std::collections::{BTreeMap, BTreeSet};

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::RtlError;
use super::text::{Piece, Text};
use crate::fpga::nest::{Form, Kind};
use crate::fpga::operators as counted;
use crate::kernel::IndexFn;
use crate::number::FoldFn;

/// Operators that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    module: &'static str,
    /// Its parameters, with what they are.
    parameters: Vec<(&'static str, u32)>,
    /// Its inputs, with their bits.
    inputs: Vec<(&'static str, u32)>,
    /// Bits of its result.
    output: u32,
}

/// What computes a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// An expression, with registers behind it.
    Logic(String),
    /// An operator, with what its inputs are, and what is made of its result.
    Operator(Class, Vec<String>, Finish),
}

/// What is made of an operator's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Its lower bits.
    Lower,
    /// It without so many lower bits.
    Shifted(u32),
    /// A number less so many times what is above so many lower bits.
    Rest(Piece, u32, u64),
}

/// How two operands of a fold, or of a binary function, become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pairing {
    Binary(BinaryFn),
    Fold(FoldFn),
}

impl Class {
    /// Bits of its result.
    pub fn output(&self) -> u32 {
        self.output
    }
}

fn class(
    module: &'static str,
    latency: u32,
    parameters: &[(&'static str, u32)],
    inputs: &[(&'static str, u32)],
) -> Class {
    let mut all = vec![("LATENCY", latency)];
    all.extend(parameters);
    Class { module, parameters: all, inputs: inputs.to_vec(), output: 32 }
}

const ONE: [(&str, u32); 1] = [("a", 32)];
const TWO: [(&str, u32); 2] = [("a", 32), ("b", 32)];
const THREE: [(&str, u32); 3] = [("a", 32), ("b", 32), ("c", 32)];

/// 1 as a binary32.
const SINGLE_ONE: &str = "32'h3f800000";

fn unsupported(what: impl std::fmt::Debug) -> RtlError {
    RtlError::Unsupported(format!("the operation {what:?}"))
}

fn is_single(piece: &Piece, dtype: DType) -> bool {
    dtype.is_float() && dtype != DType::F64 && piece.bits == 32
}

/// What computes one copy of an operation's value, which is there so many cycles later, from one copy of each operand.
///
/// # Errors
/// The library has no operator for it.
pub fn maker(
    kind: &Kind,
    counted: counted::Class,
    form: Form,
    latency: u32,
    operands: &[Piece],
) -> Result<Maker, RtlError> {
    let bits = form.bits();
    let multiplies = matches!(counted, counted::Class::Multiply(..));
    match (kind, operands) {
        (Kind::Index(function), [a, b]) => index(*function, bits, (latency, multiplies), a, b),
        (Kind::Select, [condition, a, b]) => {
            Ok(Maker::Logic(format!("{} ? {} : {}", condition.truth(), a.extended(bits), b.extended(bits))))
        }
        (Kind::Unary(function, dtype), [a]) if dtype.is_float() => {
            if !is_single(a, *dtype) {
                return Err(unsupported(kind));
            }
            unary_of_single(*function, latency, a)
        }
        (Kind::Unary(function, dtype), [a]) => {
            let wide = bits.max(a.bits) + 1;
            let x = a.extended(wide);
            Ok(Maker::Logic(match function {
                UnaryFn::Abs => cropped(&format!("$signed({x}) < 0 ? -({x}) : {x}"), bits),
                UnaryFn::Neg => format!("-({})", a.extended(bits)),
                UnaryFn::Not if *dtype == DType::Bool => format!("!{}", a.truth()),
                UnaryFn::Not => format!("~({})", a.extended(bits)),
                UnaryFn::Sign => {
                    let (one, minus) = (Piece::number(1, form).plain(), Piece::number(u64::MAX, form).plain());
                    let zero = Piece::number(0, form).plain();
                    format!("{} ? ($signed({x}) < 0 ? {minus} : {one}) : {zero}", a.truth())
                }
                _ => return Err(unsupported(kind)),
            }))
        }
        (Kind::Binary(function, dtype), [a, b]) if dtype.is_float() => {
            if !is_single(a, *dtype) || !is_single(b, *dtype) {
                return Err(unsupported(kind));
            }
            if counted == counted::Class::Single(counted::Float::Scale) {
                // The power of two comes second.
                let comes_first = !b.known.is_some_and(|bits| counted::is_power_of_two(bits, Form::Single));
                let (a, b) = if comes_first { (b, a) } else { (a, b) };
                let inputs = vec![a.plain(), b.plain()];
                return Ok(Maker::Operator(class("f32_scale", latency, &[], &TWO), inputs, Finish::Lower));
            }
            pair_of_singles(Pairing::Binary(*function), latency, a, b)
        }
        (Kind::Binary(function, dtype), [a, b]) => {
            pair_of_integers(Pairing::Binary(*function), *dtype, bits, (latency, multiplies), a, b)
        }
        (Kind::MulAdd(dtype), [a, b, c]) if is_single(a, *dtype) => {
            let inputs = vec![a.plain(), b.plain(), c.plain()];
            Ok(Maker::Operator(class("f32_fma", latency, &[], &THREE), inputs, Finish::Lower))
        }
        (Kind::Convert(from, to), [a]) => convert(*from, *to, bits, latency, a),
        _ => Err(unsupported(kind)),
    }
}

/// What combines two copies in a fold.
///
/// # Errors
/// The library has no operator for it.
pub fn folder(function: FoldFn, dtype: DType, bits: u32, latency: u32, [a, b]: [&Piece; 2]) -> Result<Maker, RtlError> {
    if is_single(a, dtype) && is_single(b, dtype) {
        return pair_of_singles(Pairing::Fold(function), latency, a, b);
    }
    if dtype.is_float() {
        return Err(unsupported(function));
    }
    pair_of_integers(Pairing::Fold(function), dtype, bits, (latency, true), a, b)
}

/// The lower bits of an expression that may have more.
fn cropped(text: &str, bits: u32) -> String {
    format!("{bits}'({text})")
}

fn index(function: IndexFn, bits: u32, timing: (u32, bool), a: &Piece, b: &Piece) -> Result<Maker, RtlError> {
    let wide = a.bits.max(b.bits).max(bits) + 1;
    let (x, y) = (a.extended(wide), b.extended(wide));
    let (sx, sy) = (format!("$signed({x})"), format!("$signed({y})"));
    let text = match function {
        IndexFn::Add => format!("{} + {}", a.extended(bits), b.extended(bits)),
        IndexFn::Sub => format!("{} - {}", a.extended(bits), b.extended(bits)),
        IndexFn::Mul => return Ok(product(bits, timing, a, b)),
        IndexFn::Div | IndexFn::Mod => return Ok(quotient(function == IndexFn::Mod, false, bits, timing.0, a, b)),
        IndexFn::Min => cropped(&format!("{sx} < {sy} ? {x} : {y}"), bits),
        IndexFn::Max => cropped(&format!("{sx} > {sy} ? {x} : {y}"), bits),
        IndexFn::Xor => format!("{} ^ {}", a.extended(bits), b.extended(bits)),
        IndexFn::Lt => format!("{sx} < {sy}"),
        IndexFn::Ge => format!("{sx} >= {sy}"),
        IndexFn::Eq => format!("{x} == {y}"),
        IndexFn::And => format!("{} && {}", a.truth(), b.truth()),
        IndexFn::Or => format!("{} || {}", a.truth(), b.truth()),
    };
    Ok(Maker::Logic(text))
}

/// a b. What is known becomes sums of shifted values, unless a multiplier is less.
fn product(bits: u32, (latency, multiplies): (u32, bool), a: &Piece, b: &Piece) -> Maker {
    let (value, known) = match (a.integer(), b.integer()) {
        (_, Some(known)) if !multiplies => (a, known),
        (Some(known), None) if !multiplies => (b, known),
        _ => {
            return multiplied(bits, latency, [a, b], Finish::Lower);
        }
    };
    Maker::Logic(sums(&value.extended(bits), i128::from(known), bits))
}

/// A product of so many bits of two factors, with signs: what is alike for [`counted::Class::Multiply`] is one class.
fn multiplied(bits: u32, latency: u32, factors: [&Piece; 2], finish: Finish) -> Maker {
    let [a, b] = factors.map(|factor| factor.bits + u32::from(!factor.signed));
    let class = class("int_mul", latency, &[("A_WIDTH", a), ("B_WIDTH", b), ("WIDTH", bits)], &[("a", a), ("b", b)]);
    let operands = vec![factors[0].extended(a), factors[1].extended(b)];
    Maker::Operator(Class { output: bits, ..class }, operands, finish)
}

/// A value of so many bits times a number, as a sum of shifted values: digits of -1, 0 and 1, of which as few as possible are not 0.
pub fn sums(value: &str, by: i128, bits: u32) -> String {
    let (mut rest, mut terms) = (by, Vec::new());
    for place in 0..bits {
        if rest & 1 == 1 {
            let digit = if rest & 3 == 3 { -1 } else { 1 };
            terms.push(format!("{} (({value}) << {place})", if digit < 0 { '-' } else { '+' }));
            rest -= digit;
        }
        rest >>= 1;
    }
    format!("{bits}'h0 {}", terms.join(" "))
}

/// a / b, or what it leaves.
fn quotient(remainder: bool, floors: bool, bits: u32, latency: u32, a: &Piece, b: &Piece) -> Maker {
    if let (false, Some(known)) = (a.signed, b.integer())
        && known > 0
        && (known as u64).is_power_of_two()
    {
        let shift = known.trailing_zeros();
        let wide = a.bits.max(bits);
        return Maker::Logic(match remainder {
            false => cropped(&format!("{} >> {shift}", a.extended(wide)), bits),
            true => format!("{} & {}", a.extended(bits), Piece::number(known as u64 - 1, unsigned(bits)).plain()),
        });
    }
    if let (false, Some(known)) = (a.signed, b.integer())
        && known > 0
        && a.bits <= 31
    {
        // a / d = (a m) >> s for m = ceil(2^s / d) and s = bits of a and of d (Granlund and Montgomery, Division by Invariant
        // Integers using Multiplication, 1994).
        let divisor = known as u64;
        let shift = a.bits + (64 - (divisor - 1).leading_zeros());
        let factor = (1u128 << shift).div_ceil(u128::from(divisor));
        let factor = Piece::number(factor as u64, unsigned(a.bits + 1));
        let finish = if remainder { Finish::Rest(a.clone(), shift, divisor) } else { Finish::Shifted(shift) };
        return multiplied(2 * a.bits + 2, latency, [a, &factor], finish);
    }
    let wide = (a.bits + u32::from(!a.signed)).max(b.bits + u32::from(!b.signed)).max(bits);
    let (x, y) = (a.extended(wide), b.extended(wide));
    if b.known.is_some() && !floors {
        let sign = if remainder { '%' } else { '/' };
        return Maker::Logic(cropped(&format!("$signed({x}) {sign} $signed({y})"), bits));
    }
    let parameters = [("WIDTH", wide), ("REMAINDER", u32::from(remainder)), ("FLOORS", u32::from(floors))];
    let class = class("int_div", latency, &parameters, &[("a", wide), ("b", wide)]);
    Maker::Operator(Class { output: wide, ..class }, vec![x, y], Finish::Lower)
}

fn unsigned(bits: u32) -> Form {
    Form::Integer { bits: bits as u8, signed: false }
}

fn unary_of_single(function: UnaryFn, latency: u32, a: &Piece) -> Result<Maker, RtlError> {
    let x = a.plain();
    let operator = |module, parameters: &[(&'static str, u32)]| {
        Ok(Maker::Operator(class(module, latency, parameters, &ONE), vec![x.clone()], Finish::Lower))
    };
    match function {
        UnaryFn::Abs => Ok(Maker::Logic(format!("{x} & 32'h7fffffff"))),
        UnaryFn::Neg => Ok(Maker::Logic(format!("{x} ^ 32'h80000000"))),
        UnaryFn::IsInf => Ok(Maker::Logic(format!("({x} & 32'h7fffffff) == 32'h7f800000"))),
        UnaryFn::IsNan => Ok(Maker::Logic(format!("({x} & 32'h7fffffff) > 32'h7f800000"))),
        UnaryFn::Not => Ok(Maker::Logic(format!("({x} & 32'h7fffffff) == 0 ? {SINGLE_ONE} : 32'h0"))),
        UnaryFn::Sign => Ok(Maker::Logic(format!(
            "({x} & 32'h7fffffff) == 0 || ({x} & 32'h7fffffff) > 32'h7f800000 ? {x} : ({x} & 32'h80000000) | {SINGLE_ONE}"
        ))),
        UnaryFn::Exp => operator("f32_exp", &[]),
        UnaryFn::Sqrt => operator("f32_sqrt", &[]),
        UnaryFn::Rsqrt => operator("f32_rsqrt", &[]),
        UnaryFn::Round => operator("f32_integral", &[("FUNCTION", 0)]),
        UnaryFn::Floor => operator("f32_integral", &[("FUNCTION", 1)]),
        UnaryFn::Ceil => operator("f32_integral", &[("FUNCTION", 2)]),
        UnaryFn::Recip => {
            Ok(Maker::Operator(class("f32_div", latency, &[], &TWO), vec![SINGLE_ONE.to_owned(), x], Finish::Lower))
        }
        UnaryFn::Cos
        | UnaryFn::Erf
        | UnaryFn::Log
        | UnaryFn::Sigmoid
        | UnaryFn::Sin
        | UnaryFn::Softplus
        | UnaryFn::Tan
        | UnaryFn::Tanh => Err(unsupported(function)),
    }
}

fn pair_of_singles(pairing: Pairing, latency: u32, a: &Piece, b: &Piece) -> Result<Maker, RtlError> {
    let (x, y) = (a.plain(), b.plain());
    let operator = |module, parameters: &[(&'static str, u32)], y: String| {
        Ok(Maker::Operator(class(module, latency, parameters, &TWO), vec![x.clone(), y], Finish::Lower))
    };
    // The same operator finds the greater and the lesser.
    let extreme = |least: u32, folds: u32, y: String| {
        let inputs = [("a", 32), ("b", 32), ("least", 1), ("folds", 1)];
        let operands = vec![x.clone(), y, format!("1'b{least}"), format!("1'b{folds}")];
        Ok(Maker::Operator(class("f32_extreme", latency, &[], &inputs), operands, Finish::Lower))
    };
    let compare = |function: u32| {
        let class = class("f32_compare", latency, &[("FUNCTION", function)], &TWO);
        Ok(Maker::Operator(Class { output: 1, ..class }, vec![x.clone(), y.clone()], Finish::Lower))
    };
    match pairing {
        Pairing::Binary(BinaryFn::Add) | Pairing::Fold(FoldFn::Sum | FoldFn::Dot) => operator("f32_add", &[], y),
        // The same operator adds and subtracts.
        Pairing::Binary(BinaryFn::Sub) => operator("f32_add", &[], format!("{y} ^ 32'h80000000")),
        Pairing::Binary(BinaryFn::Mul) | Pairing::Fold(FoldFn::Product) => operator("f32_mul", &[], y),
        Pairing::Binary(BinaryFn::Div) => operator("f32_div", &[], y),
        Pairing::Binary(BinaryFn::Max) => extreme(0, 0, y),
        Pairing::Binary(BinaryFn::Min) => extreme(1, 0, y),
        Pairing::Fold(FoldFn::Max) => extreme(0, 1, y),
        Pairing::Fold(FoldFn::Min) => extreme(1, 1, y),
        Pairing::Binary(BinaryFn::Eq) => compare(0),
        Pairing::Binary(BinaryFn::Ge) => compare(1),
        Pairing::Binary(BinaryFn::Gt) => compare(2),
        Pairing::Binary(BinaryFn::Le) => compare(3),
        Pairing::Binary(BinaryFn::Lt) => compare(4),
        Pairing::Binary(function) => Err(unsupported(function)),
    }
}

fn pair_of_integers(
    pairing: Pairing,
    dtype: DType,
    bits: u32,
    timing: (u32, bool),
    a: &Piece,
    b: &Piece,
) -> Result<Maker, RtlError> {
    let latency = timing.0;
    let wide = a.bits.max(b.bits).max(bits) + 1;
    let (x, y) = (a.extended(wide), b.extended(wide));
    let (sx, sy) = (format!("$signed({x})"), format!("$signed({y})"));
    let (own, other) = (a.extended(bits), b.extended(bits));
    let function = match pairing {
        Pairing::Binary(function) => function,
        Pairing::Fold(FoldFn::Sum | FoldFn::Dot) => BinaryFn::Add,
        Pairing::Fold(FoldFn::Product) => BinaryFn::Mul,
        Pairing::Fold(FoldFn::Max) => BinaryFn::Max,
        Pairing::Fold(FoldFn::Min) => BinaryFn::Min,
    };
    // Shifts by as many bits as the type has, or more, leave nothing, or the sign.
    let most = dtype.bits() as u32;
    let shift_wide = wide.max(most + 1).max(8);
    Ok(Maker::Logic(match function {
        BinaryFn::Add => format!("{own} + {other}"),
        BinaryFn::Sub => format!("{own} - {other}"),
        BinaryFn::Mul => return Ok(product(bits, timing, a, b)),
        BinaryFn::Div => return Ok(quotient(false, false, bits, latency, a, b)),
        BinaryFn::Rem => return Ok(quotient(true, false, bits, latency, a, b)),
        BinaryFn::Mod => return Ok(quotient(true, a.signed || b.signed, bits, latency, a, b)),
        BinaryFn::Max => cropped(&format!("{sx} > {sy} ? {x} : {y}"), bits),
        BinaryFn::Min => cropped(&format!("{sx} < {sy} ? {x} : {y}"), bits),
        BinaryFn::And => format!("{own} & {other}"),
        BinaryFn::Or => format!("{own} | {other}"),
        BinaryFn::Xor => format!("{own} ^ {other}"),
        BinaryFn::Eq => format!("{x} == {y}"),
        BinaryFn::Ge => format!("{sx} >= {sy}"),
        BinaryFn::Gt => format!("{sx} > {sy}"),
        BinaryFn::Le => format!("{sx} <= {sy}"),
        BinaryFn::Lt => format!("{sx} < {sy}"),
        BinaryFn::Shl => {
            let (x, y) = (a.extended(shift_wide), b.extended(shift_wide));
            cropped(&format!("{y} < {shift_wide}'d{most} ? {x} << ({y}) : {shift_wide}'d0"), bits)
        }
        BinaryFn::Shr => {
            let (x, y) = (a.extended(shift_wide), b.extended(shift_wide));
            let far = format!("(|(({y}) >> 6))");
            let negative = if b.signed { format!("$signed({y}) < 0") } else { "1'b0".to_owned() };
            let shifted = format!("$signed({x}) >>> ({far} ? {shift_wide}'d63 : ({y} & {shift_wide}'d63))");
            cropped(&format!("{negative} ? $signed({x}) : {shifted}"), bits)
        }
        BinaryFn::Pow => return Err(unsupported(function)),
    }))
}

fn convert(from: DType, to: DType, bits: u32, latency: u32, a: &Piece) -> Result<Maker, RtlError> {
    let is_double = from == DType::F64 || to == DType::F64;
    Ok(match (from.is_float(), to.is_float()) {
        _ if is_double => return Err(unsupported((from, to))),
        (true, true) => match to {
            DType::F32 => Maker::Logic(a.plain()),
            DType::BF16 => Maker::Logic(format!("{{rounded_bf16({}), 16'b0}}", a.plain())),
            DType::F16 => Maker::Logic(format!("widened_f16(rounded_f16({}))", a.plain())),
            _ => return Err(unsupported((from, to))),
        },
        (true, false) if to == DType::Bool => Maker::Logic(format!("({} & 32'h7fffffff) != 0", a.plain())),
        (true, false) => {
            let (_, signed) = integer(to);
            let wide = to.bits() as u32;
            let parameters = [("WIDTH", wide), ("SIGNED", u32::from(signed))];
            let class = class("int_of_f32", latency, &parameters, &ONE);
            Maker::Operator(Class { output: wide, ..class }, vec![a.plain()], Finish::Lower)
        }
        (false, true) => {
            let parameters = [("WIDTH", a.bits), ("SIGNED", u32::from(a.signed))];
            let class = class("f32_of_int", latency, &parameters, &[("a", a.bits)]);
            match to {
                DType::F32 => Maker::Operator(class, vec![a.plain()], Finish::Lower),
                _ => return Err(unsupported((from, to))),
            }
        }
        (false, false) if to == DType::Bool => Maker::Logic(a.truth()),
        (false, false) => {
            // Cut to the type, and then what is needed of that.
            let (wide, signed) = integer(to);
            if wide >= bits {
                Maker::Logic(a.extended(bits))
            } else {
                let fill = if signed { format!("$signed({})", a.extended(wide)) } else { a.extended(wide) };
                Maker::Logic(format!("{bits}'({fill})"))
            }
        }
    })
}

/// Bits of an integer type as it is stored, and whether it has a sign.
pub fn integer(dtype: DType) -> (u32, bool) {
    let signed = matches!(dtype, DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4);
    (dtype.bits() as u32, signed)
}

/// When an operator is given operands: a block, and a cycle in it, modulo the interval if the block is of a pipelined loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The block, among those of all functions.
    pub block: u32,
    /// The cycle.
    pub cycle: u64,
}

/// Operators, and who uses them when.
#[derive(Debug, Default)]
pub struct Pool {
    classes: BTreeMap<Class, Vec<Unit>>,
}

#[derive(Debug, Default)]
struct Unit {
    slots: BTreeSet<Slot>,
    /// The condition under which each user has it, and its operands.
    uses: Vec<(String, Vec<String>)>,
}

impl Pool {
    /// The name of the result of an operator that is free in a slot, to which operands are given while a flag is set. Of what is not
    /// shared there is none but a new one.
    pub fn take(&mut self, class: &Class, shared: bool, slot: Slot, flag: &str, operands: Vec<String>) -> String {
        let units = self.classes.entry(class.clone()).or_default();
        let free = units.iter().position(|unit| shared && !unit.slots.contains(&slot));
        let place = free.unwrap_or(units.len());
        if free.is_none() {
            units.push(Unit::default());
        }
        let unit = &mut units[place];
        unit.slots.insert(slot);
        unit.uses.push((flag.to_owned(), operands));
        name(class, place)
    }

    /// Numbers of operators by module.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (class, units) in &self.classes {
            *counts.entry(class.module).or_default() += units.len();
        }
        counts
    }

    /// Writes all operators.
    pub fn write(self, text: &mut Text) {
        for (class, units) in self.classes {
            for (place, unit) in units.into_iter().enumerate() {
                let name = name(&class, place);
                text.vector(&name, class.output);
                let mut ports = vec![".clk".to_owned()];
                for (input, &(port, bits)) in class.inputs.iter().enumerate() {
                    let own = format!("{name}_{port}");
                    let value = match unit.uses.as_slice() {
                        [(_, operands)] => operands[input].clone(),
                        uses => {
                            let term = |(flag, operands): &(String, Vec<String>)| {
                                format!("({{{bits}{{{flag}}}}} & ({}))", operands[input])
                            };
                            uses.iter().map(term).collect::<Vec<_>>().join(" | ")
                        }
                    };
                    text.wire(&own, bits, &value);
                    ports.push(format!(".{port}({own})"));
                }
                ports.push(format!(".y({name})"));
                let parameters = class.parameters.iter().map(|(name, value)| format!(".{name}({value})"));
                let parameters = parameters.collect::<Vec<_>>().join(", ");
                text.line(&format!("{} #({parameters}) u_{name} ({});", class.module, ports.join(", ")));
            }
        }
    }
}

/// What the result of an operator is called.
fn name(class: &Class, place: usize) -> String {
    let parameters: Vec<String> = class.parameters.iter().map(|(_, value)| value.to_string()).collect();
    format!("{}_{}_n{place}", class.module, parameters.join("_"))
}
