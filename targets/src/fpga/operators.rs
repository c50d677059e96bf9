//! What operators are built from, how long they take, and what they take of the part.
//!
//! An operator of latency 0 is logic between registers: several follow each other in a cycle as far as their delays allow. One of a
//! latency of n has registers inside; it takes operands from registers in each cycle and has the result in a register n cycles later.
//!
//! Where figures come from. *DSP slices and block RAM* of all that the library in `targets/fpga/rtl/` has are what Yosys 0.23 makes of it
//! (`synth_xilinx -family xcup`), which `rtl/tests/synthesis.rs` measures again; the operators of AMD may take others (an exponential
//! function of 7 slices, and 2 for a factor that is a power of two, assumed). A DSP48E2 has a multiplier of 27 by 18 bits with signs
//! (UG579), so binary32's 24 by 24 bits are two of them (26 and 17 bits without sign each), and products below 9 bits stay in look-up
//! tables, as Yosys maps them. *Logic* of reciprocals, the fused multiplication and addition and rounding is measured in the same way.
//! *binary32 addition* is in fabric or in DSPs, whatever a design of shared operators has more of; `fadd` of Vitis HLS in fabric takes 243 FF and 338 LUT (a
//! published report of Vitis HLS, latency 4), with `fulldsp` 2 DSP, 177 FF and 226 LUT (a published report for a U280, latency 2); the
//! library's is in fabric. Its division, root and exponential function are taken to have 994, 615 and 924 LUT (assumed, from memory of reports
//! of Vivado HLS for parts of the 7 series). The library's addition takes some 750 LUT, its multiplication some 610 for 90 that are
//! assumed, its division 2,000, root 1,400, exponential function 1,200 and what multiplies by powers of two 450: they have shifters for
//! subnormal numbers, which AMD's flush to 0 (assumed). *Most latencies* are bounded by UG1399's table of `BIND_OP`. Everything else is
//! assumed: the sizes of logic are one look-up table for each bit of an addition, comparison or selection, and the times are of the
//! order that HLS reports for -2 parts of UltraScale+. Nothing of it was measured on a part.

mod names;

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::design::Adders;
use super::nest::{Form, InSlice, Kind, Nest, Op, OpId};
use super::resources::Resources;
use crate::kernel::IndexFn;
use crate::number::FoldFn;

/// The share of the clock period that is left for wires: Vitis HLS takes 27 % by default (UG1399, `set_clock_uncertainty`).
pub const UNCERTAINTY: f64 = 0.27;

/// Bits of the multiplier of a DSP48E2, with signs (UG579).
pub const MULTIPLIER: [u32; 2] = [27, 18];

/// Bits of the adder of a DSP48E2 before the multiplier, and of that behind it (UG579).
pub const ADDERS: [u32; 2] = [27, 48];

/// Bits of a part of a factor that is wider: the cascade between slices shifts by 17 (UG579), so that Yosys makes parts of as many
/// (`mul2dsp`) on both sides.
const PART: u32 = 17;

/// Products of fewer bits are made of look-up tables (Yosys, `synth_xilinx`: the least width of what goes to a DSP).
const LEAST_PRODUCT: u32 = 9;

/// A kind of operator. Operations of one class can share operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Wires.
    Wires,
    /// Sums, differences, negation, absolute values of so many bits.
    Add(u32),
    /// Comparison.
    Compare(u32),
    /// The lesser or greater.
    Extreme(u32),
    /// Bitwise logic.
    Logic(u32),
    /// One of two.
    Select(u32),
    /// A shift by a number that is not known.
    Shift(u32),
    /// A product of numbers of so many bits with signs, of which so many bits are wanted.
    Multiply([u32; 2], u32),
    /// A product of numbers of so many bits with signs, to which one slice adds what makes a sum of so many bits.
    MultiplyAdd([u32; 2], u32),
    /// A product with a number that is known, as so many additions of so many bits.
    Scale(u32, u32),
    /// A quotient, or what is left, bit by bit.
    Divide(u32),
    /// A function of binary32.
    Single(Float),
    /// A function of binary64.
    Double(Float),
}

/// Functions of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Float {
    /// a + b.
    Add,
    /// a b.
    Multiply,
    /// a b, where one of both is known to be a power of two.
    Scale,
    /// a b + c, rounded once.
    MultiplyAdd,
    /// a / b.
    Divide,
    /// What a division leaves.
    Remainder,
    /// Square root.
    Sqrt,
    /// e to the power of x.
    Exp,
    /// Natural logarithm.
    Log,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// ln(1 + e^x).
    Softplus,
    /// The error function.
    Erf,
    /// Sine or cosine.
    Sine,
    /// Tangent.
    Tangent,
    /// a to the power of b.
    Power,
    /// 1 / x.
    Reciprocal,
    /// 1 / sqrt x.
    ReciprocalSqrt,
    /// Comparison.
    Compare,
    /// The lesser or greater, or NaN.
    Extreme,
    /// Rounding to an integer.
    Round,
    /// Sign, absolute value, negation, classification: what looks at a few bits.
    Bits,
    /// An integer as a float.
    FromInteger,
    /// A float as an integer.
    ToInteger,
    /// Rounding to a type of fewer bits.
    Narrow,
}

/// How long an operator takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Cycles until the result is in a register; 0 of logic.
    pub latency: u32,
    /// Nanoseconds of logic: of a latency of 0 from operands to the result, else before the first register.
    pub delay: f64,
}

/// Nanoseconds of a cycle that logic may take.
pub fn usable_ns(clock_hz: u64) -> f64 {
    1e9 / clock_hz as f64 * (1.0 - UNCERTAINTY)
}

/// DSP slices of a product: factors in parts, of which the last is as wide as the multiplier at most, and of the products of parts
/// those whose lowest bit is wanted; in the better of both directions.
fn tiles(bits: [u32; 2], wanted: u32) -> u32 {
    let parts = |bits: u32, most: u32| 1 + bits.saturating_sub(most).div_ceil(PART);
    let count = |a: u32, b: u32| {
        let (rows, columns) = (parts(a, MULTIPLIER[0]), parts(b, MULTIPLIER[1]));
        let is_wanted = |row: u32, column: u32| (row + column) * PART < wanted;
        (0..rows).map(|row| (0..columns).filter(|&column| is_wanted(row, column)).count() as u32).sum::<u32>()
    };
    count(bits[0], bits[1]).min(count(bits[1], bits[0]))
}

/// Additions that a product with a known number needs: one less than digits of its canonical signed form that are not 0.
fn additions(value: i64) -> u32 {
    let (mut rest, mut digits) = (i128::from(value).unsigned_abs(), 0);
    while rest != 0 {
        if rest & 1 == 1 {
            digits += 1;
            rest = if rest & 3 == 3 { rest + 1 } else { rest - 1 };
        }
        rest >>= 1;
    }
    u32::saturating_sub(digits, 1)
}

impl Class {
    /// How long it takes at a clock.
    pub fn timing(self, clock_hz: u64) -> Timing {
        let logic = |delay: f64| Timing { latency: 0, delay };
        let carry = |bits: u32| 0.6 + 0.0125 * f64::from(bits);
        let usable = usable_ns(clock_hz);
        let timing = match self {
            Class::Wires => logic(0.0),
            Class::Add(bits) => logic(carry(bits)),
            Class::Compare(bits) => logic(carry(bits.div_ceil(2))),
            Class::Extreme(bits) => logic(carry(bits.div_ceil(2)) + 0.4),
            Class::Logic(_) => logic(0.3),
            Class::Select(_) => logic(0.4),
            Class::Shift(bits) => logic(0.35 * f64::from(32 - (bits.max(2) - 1).leading_zeros())),
            Class::Scale(_, 0) => logic(0.0),
            Class::Scale(bits, sums) => logic(f64::from(32 - sums.leading_zeros()) * carry(bits)),
            Class::Multiply(bits, wanted) if bits[0] + bits[1] < LEAST_PRODUCT => logic(carry(wanted) * 1.5),
            // Registers before the multiplier, behind it, and behind the adder; tiles are added one after another.
            Class::Multiply(bits, wanted) => {
                let more = 32 - (tiles(bits, wanted).max(1) - 1).leading_zeros();
                Timing { latency: in_stages(6.0, usable, 3) + more, delay: usable }
            }
            // The registers behind the adder are the sum's.
            Class::MultiplyAdd(..) => Timing { latency: (in_stages(6.0, usable, 3) - 1).max(1), delay: usable },
            // A bit of the quotient in a cycle, as `sdiv` of Vitis HLS: its 32 bits take 36 cycles.
            Class::Divide(bits) => Timing { latency: bits + 4, delay: usable },
            Class::Single(function) => function.timing(usable, false),
            Class::Double(function) => function.timing(usable, true),
        };
        // Logic that does not fit into a cycle is cut by registers.
        if timing.latency == 0 && timing.delay > usable {
            return Timing { latency: (timing.delay / usable).ceil() as u32, delay: usable };
        }
        timing
    }

    /// What one takes, with adders of binary32 that are built from something.
    pub fn resources_with(self, adders: Adders) -> Resources {
        match (adders, self) {
            (Adders::Slices, Class::Single(Float::Add)) => {
                Resources { luts: 226, ffs: 177, dsps: 2, ..Resources::default() }
            }
            (Adders::Fabric | Adders::Slices, class) => class.resources(),
        }
    }

    /// What one takes.
    pub fn resources(self) -> Resources {
        let of = |luts: u32, ffs: u32, dsps: u32| Resources {
            luts: u64::from(luts),
            ffs: u64::from(ffs),
            dsps: u64::from(dsps),
            ..Resources::default()
        };
        match self {
            Class::Wires => Resources::default(),
            Class::Add(bits) | Class::Logic(bits) | Class::Select(bits) => of(bits, 0, 0),
            Class::Compare(bits) => of(bits.div_ceil(2), 0, 0),
            Class::Extreme(bits) => of(bits + bits.div_ceil(2), 0, 0),
            Class::Shift(bits) => of(bits * (32 - (bits.max(2) - 1).leading_zeros()).div_ceil(2), 0, 0),
            Class::Scale(bits, sums) => of(bits * sums, 0, 0),
            Class::Multiply(bits, _) if bits[0] + bits[1] < LEAST_PRODUCT => of(bits[0] * bits[1], 0, 0),
            Class::Multiply(bits, wanted) => {
                let tiles = tiles(bits, wanted);
                // What tiles add up to is added in the slices' own adders, what waits for it meanwhile in registers.
                of(0, (tiles - 1) * 17, tiles)
            }
            Class::MultiplyAdd(..) => of(0, 0, 1),
            // Of 32 bits 2,112 and 2,152 (Yosys 0.23, of the library): a subtraction and a selection for each digit.
            Class::Divide(bits) => of(2 * bits * bits, 2 * bits * bits, 0),
            Class::Single(function) => function.resources(false),
            Class::Double(function) => function.resources(true),
        }
    }
}

/// Registers that cut so many nanoseconds, so many at most.
fn in_stages(ns: f64, usable: f64, most: u32) -> u32 {
    ((ns / usable).ceil() as u32).clamp(1, most)
}

impl Float {
    /// Nanoseconds of logic of binary32, and the most registers that cut it (UG1399, `BIND_OP`, in fabric or with the most DSPs).
    fn logic(self) -> (f64, u32) {
        match self {
            Float::Add => (14.4, 13),
            // High-level synthesis has a multiplication for both.
            Float::Multiply | Float::Scale => (9.6, 9),
            Float::MultiplyAdd => (24.0, 20),
            Float::Divide | Float::Remainder => (36.0, 29),
            Float::Sqrt => (34.0, 29),
            Float::Exp => (28.0, 30),
            Float::Log => (34.0, 29),
            Float::Reciprocal => (28.0, 37),
            Float::ReciprocalSqrt => (32.0, 38),
            Float::Tanh | Float::Sigmoid => (80.0, 70),
            Float::Softplus => (80.0, 70),
            Float::Erf => (80.0, 70),
            Float::Sine => (60.0, 60),
            Float::Tangent => (90.0, 80),
            Float::Power => (90.0, 80),
            Float::Compare | Float::Extreme => (2.4, 4),
            Float::Round => (4.8, 8),
            Float::Bits => (0.4, 1),
            Float::FromInteger | Float::ToInteger => (9.6, 8),
            Float::Narrow => (2.4, 4),
        }
    }

    fn timing(self, usable: f64, double: bool) -> Timing {
        if self == Float::Bits {
            return Timing { latency: 0, delay: 0.4 };
        }
        let (ns, most) = self.logic();
        let (ns, most) = if double { (ns * 1.4, most * 2) } else { (ns, most) };
        Timing { latency: in_stages(ns, usable, most), delay: usable }
    }

    fn resources(self, double: bool) -> Resources {
        // Of binary32; the source is said for all at the top. What the library has not is made of a table and products, of which DSPs
        // are counted (assumed).
        let (luts, ffs, dsps) = match self {
            Float::Add => (338, 243, 0),
            Float::Multiply => (90, 120, 2),
            Float::Scale => (90, 120, 0),
            Float::MultiplyAdd => (1489, 839, 2),
            Float::Divide | Float::Remainder => (994, 761, 0),
            Float::Sqrt => (615, 405, 0),
            Float::Exp => (924, 277, 4),
            Float::Log => (900, 500, 11),
            Float::Reciprocal => (1746, 546, 0),
            Float::ReciprocalSqrt => (3054, 631, 0),
            Float::Tanh | Float::Sigmoid => (1900, 1800, 7),
            Float::Softplus => (2000, 1300, 18),
            Float::Erf => (1500, 1200, 18),
            Float::Sine => (1500, 1200, 14),
            Float::Tangent => (3000, 2500, 22),
            Float::Power => (2000, 1300, 20),
            Float::Compare => (60, 10, 0),
            Float::Extreme => (100, 40, 0),
            Float::Round => (362, 87, 0),
            Float::Bits => (8, 0, 0),
            Float::FromInteger => (250, 200, 0),
            Float::ToInteger => (250, 200, 0),
            Float::Narrow => (60, 40, 0),
        };
        // e^(i / 512) in 36 bits.
        let bram18s = u64::from(self == Float::Exp);
        let base = Resources { luts, ffs, dsps, bram18s, ..Resources::default() };
        match (double, self) {
            (false, _) => base,
            // 53 by 53 bits.
            (true, Float::Multiply | Float::MultiplyAdd) => {
                Resources { dsps: u64::from(tiles([54, 54], 108)), ..base * 3 }
            }
            (true, _) => base * 3,
        }
    }
}

/// Operators of a class that start together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The class.
    pub class: Class,
    /// How many.
    pub count: u32,
    /// Cycles from the start of the operation to theirs.
    pub after: u32,
}

/// What an operation is made of, and how long all of it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// Operators.
    pub parts: Vec<Part>,
    /// How long it takes.
    pub timing: Timing,
}

fn bits(form: Form) -> u32 {
    form.bits()
}

/// Bits with a sign.
fn signed_bits(form: Form) -> u32 {
    match form {
        Form::Integer { bits, signed: false } => u32::from(bits) + 1,
        other => other.bits(),
    }
}

impl Nest {
    /// What an operation is made of; nothing for what is in no block, and for accesses, which take ports.
    pub fn operator(&self, id: OpId, clock_hz: u64) -> Operator {
        let op = &self.ops[id.index()];
        if let Kind::Fold { function, dtype, width } = op.kind {
            return self.fold(op, (function, dtype, width), clock_hz);
        }
        let class = match (self.slices.get(&id), self.class(op)) {
            (Some(&InSlice::Product { sum }), Class::Multiply(bits, _)) => Class::MultiplyAdd(bits, sum),
            // Its product's slice has the adder, and a register behind it.
            (Some(InSlice::Sum { .. } | InSlice::Factor), _) => {
                return Operator { parts: Vec::new(), timing: Timing { latency: 1, delay: usable_ns(clock_hz) } };
            }
            (_, class) => class,
        };
        Operator { parts: vec![Part { class, count: op.copies, after: 0 }], timing: class.timing(clock_hz) }
    }

    fn fold(&self, op: &Op, (function, dtype, width): (FoldFn, DType, u32), clock_hz: u64) -> Operator {
        let class = fold_class(op.form, function, dtype);
        let (levels, own) = (width.ilog2(), class.timing(clock_hz));
        let timing = if own.latency > 0 {
            Timing { latency: own.latency * levels, delay: own.delay }
        } else {
            let usable = usable_ns(clock_hz);
            // As many levels in a cycle as fit, with registers behind.
            let in_cycle = ((usable / own.delay.max(0.1)) as u32).max(1);
            Timing { latency: levels.div_ceil(in_cycle), delay: usable }
        };
        let part = |level: u32| Part { class, count: op.copies * (width >> (level + 1)), after: level * own.latency };
        Operator { parts: (0..levels).map(part).collect(), timing }
    }

    fn form_of(&self, id: OpId) -> Form {
        self.ops[id.index()].form
    }

    /// The number that an operand is in all copies.
    fn constant_of(&self, id: OpId) -> Option<i64> {
        match &self.ops[id.index()].kind {
            Kind::Constant(values) if values.len() == 1 => Some(values[0] as i64),
            _ => None,
        }
    }

    /// The bits of the widest operand or the result.
    fn widest(&self, op: &Op) -> u32 {
        op.operands.iter().map(|&id| bits(self.form_of(id))).max().unwrap_or(1).max(bits(op.form))
    }

    /// Whether a factor of a product of floats is a known power of two in all copies.
    fn scales(&self, op: &Op) -> bool {
        op.operands.iter().map(|id| &self.ops[id.index()]).any(|factor| match &factor.kind {
            Kind::Constant(values) => values.iter().all(|&bits| is_power_of_two(bits, factor.form)),
            _ => false,
        })
    }

    fn product(&self, op: &Op) -> Class {
        let [a, b] = [op.operands[0], op.operands[1]];
        let wanted = bits(op.form);
        for known in [a, b].into_iter().filter_map(|factor| self.constant_of(factor)) {
            // Few additions are less than a multiplier (assumed).
            let sums = additions(known);
            if sums <= 3 {
                return Class::Scale(wanted, sums);
            }
        }
        Class::Multiply([signed_bits(self.form_of(a)), signed_bits(self.form_of(b))], wanted)
    }

    /// Whether a difference is with the known half of what a number without sign can be, which turns nothing but its first bit.
    fn flips(&self, op: &Op) -> bool {
        match (self.form_of(op.operands[0]), self.constant_of(op.operands[1])) {
            (Form::Integer { bits, signed: false }, Some(half)) => bits < 64 && half == 1 << (bits - 1),
            _ => false,
        }
    }

    /// Whether a known number keeps lower bits and drops the others.
    fn masks(&self, op: &Op) -> bool {
        op.operands
            .iter()
            .filter_map(|&id| self.constant_of(id))
            .any(|mask| mask >= 0 && (mask as u64 + 1).is_power_of_two())
    }

    /// A quotient by a known number is a product with its reciprocal, of twice the bits.
    fn quotient(&self, op: &Op) -> Class {
        let own = bits(self.form_of(op.operands[0]));
        match self.constant_of(op.operands[1]) {
            Some(by) if by > 0 && (by as u64).is_power_of_two() => Class::Wires,
            Some(_) => Class::Multiply([own + 1, own + 2], 2 * own + 2),
            None => Class::Divide(self.widest(op)),
        }
    }

    /// The class of an operation.
    pub fn class(&self, op: &Op) -> Class {
        let (own, wide) = (bits(op.form), self.widest(op));
        match op.kind {
            Kind::Constant(_) | Kind::Counter(_) | Kind::Carried(_) | Kind::Left(_) => Class::Wires,
            Kind::Load(..) | Kind::Store(..) | Kind::Fold { .. } => Class::Wires,
            Kind::Index(function) => match function {
                IndexFn::Add | IndexFn::Sub => Class::Add(own),
                IndexFn::Mul => self.product(op),
                IndexFn::Div | IndexFn::Mod => self.quotient(op),
                IndexFn::Min | IndexFn::Max => Class::Extreme(wide),
                IndexFn::Xor | IndexFn::And | IndexFn::Or => Class::Logic(own),
                IndexFn::Lt | IndexFn::Ge | IndexFn::Eq => Class::Compare(wide),
            },
            Kind::Select => Class::Select(own),
            Kind::MulAdd(dtype) => float(Float::MultiplyAdd, dtype),
            Kind::Unary(function, dtype) if dtype.is_float() => unary_float(function, dtype),
            Kind::Unary(function, _) => match function {
                UnaryFn::Abs | UnaryFn::Neg => Class::Add(own),
                UnaryFn::Not | UnaryFn::Sign => Class::Logic(own),
                // What is not defined on integers is not made of anything.
                _ => Class::Wires,
            },
            Kind::Binary(BinaryFn::Mul, dtype) if dtype.is_float() && self.scales(op) => float(Float::Scale, dtype),
            Kind::Binary(function, dtype) if dtype.is_float() => binary_float(function, dtype),
            Kind::Binary(function, _) => match function {
                BinaryFn::Sub if self.flips(op) => Class::Logic(1),
                BinaryFn::Add | BinaryFn::Sub => Class::Add(own),
                BinaryFn::Mul => self.product(op),
                BinaryFn::Div | BinaryFn::Mod | BinaryFn::Rem => self.quotient(op),
                BinaryFn::And if self.masks(op) => Class::Wires,
                BinaryFn::And | BinaryFn::Or | BinaryFn::Xor => Class::Logic(own),
                BinaryFn::Min | BinaryFn::Max => Class::Extreme(wide),
                BinaryFn::Eq | BinaryFn::Ge | BinaryFn::Gt | BinaryFn::Le | BinaryFn::Lt => Class::Compare(wide),
                BinaryFn::Shl | BinaryFn::Shr if self.constant_of(op.operands[1]).is_some() => Class::Wires,
                BinaryFn::Shl | BinaryFn::Shr => Class::Shift(wide),
                // One product after the other.
                BinaryFn::Pow => Class::Divide(own),
            },
            Kind::Convert(from, to) => match (from.is_float(), to.is_float()) {
                (true, true) if from == DType::F64 && to != DType::F64 => Class::Double(Float::Narrow),
                (true, true) if to.bits() < 32 => Class::Single(Float::Narrow),
                (true, true) => Class::Wires,
                (true, false) => float(Float::ToInteger, from),
                (false, true) => float(Float::FromInteger, to),
                (false, false) if to == DType::Bool => Class::Compare(wide),
                (false, false) => Class::Wires,
            },
        }
    }
}

/// Whether a float with these bits is a power of two, or the negative of one, and a normal number: it has no fraction, and its
/// exponent is neither that of subnormal numbers nor that of infinity (IEEE 754).
pub fn is_power_of_two(bits: u64, form: Form) -> bool {
    let (fraction, exponents) = match form {
        Form::Single => (23, 255),
        Form::Double => (52, 2047),
        Form::Integer { .. } => return false,
    };
    let exponent = bits >> fraction & exponents;
    bits & ((1 << fraction) - 1) == 0 && exponent != 0 && exponent != exponents
}

/// The class of what combines two lanes of a fold.
pub fn fold_class(form: Form, function: FoldFn, dtype: DType) -> Class {
    let own = bits(form);
    match (function, form) {
        (FoldFn::Sum | FoldFn::Dot, Form::Integer { .. }) => Class::Add(own),
        (FoldFn::Max | FoldFn::Min, Form::Integer { .. }) => Class::Extreme(own),
        (FoldFn::Product, Form::Integer { .. }) => Class::Multiply([own; 2], own),
        (FoldFn::Sum | FoldFn::Dot, _) => float(Float::Add, dtype),
        (FoldFn::Max | FoldFn::Min, _) => float(Float::Extreme, dtype),
        (FoldFn::Product, _) => float(Float::Multiply, dtype),
    }
}

fn float(function: Float, dtype: DType) -> Class {
    if dtype == DType::F64 { Class::Double(function) } else { Class::Single(function) }
}

fn unary_float(function: UnaryFn, dtype: DType) -> Class {
    let function = match function {
        UnaryFn::Abs | UnaryFn::Neg | UnaryFn::Not | UnaryFn::IsInf | UnaryFn::IsNan | UnaryFn::Sign => Float::Bits,
        UnaryFn::Ceil | UnaryFn::Floor | UnaryFn::Round => Float::Round,
        UnaryFn::Cos | UnaryFn::Sin => Float::Sine,
        UnaryFn::Erf => Float::Erf,
        UnaryFn::Exp => Float::Exp,
        UnaryFn::Log => Float::Log,
        UnaryFn::Recip => Float::Reciprocal,
        UnaryFn::Rsqrt => Float::ReciprocalSqrt,
        UnaryFn::Sigmoid => Float::Sigmoid,
        UnaryFn::Softplus => Float::Softplus,
        UnaryFn::Sqrt => Float::Sqrt,
        UnaryFn::Tan => Float::Tangent,
        UnaryFn::Tanh => Float::Tanh,
    };
    float(function, dtype)
}

fn binary_float(function: BinaryFn, dtype: DType) -> Class {
    let function = match function {
        BinaryFn::Add | BinaryFn::Sub => Float::Add,
        BinaryFn::Mul => Float::Multiply,
        BinaryFn::Div => Float::Divide,
        BinaryFn::Mod | BinaryFn::Rem => Float::Remainder,
        BinaryFn::Pow => Float::Power,
        BinaryFn::Max | BinaryFn::Min => Float::Extreme,
        BinaryFn::Eq | BinaryFn::Ge | BinaryFn::Gt | BinaryFn::Le | BinaryFn::Lt => Float::Compare,
        BinaryFn::And | BinaryFn::Or | BinaryFn::Xor | BinaryFn::Shl | BinaryFn::Shr => Float::Bits,
    };
    float(function, dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_take_tiles() {
        // 8 by 8 bits are one slice; 27 by 18 too, and one bit more is a second.
        assert_eq!(tiles([8, 8], 16), 1);
        assert_eq!(tiles([27, 18], 45), 1);
        assert_eq!(tiles([18, 27], 45), 1);
        assert_eq!(tiles([27, 19], 46), 2);
        // 24 by 24 bits without sign, 25 with one: a row of 26 bits, and columns of 17 and 7.
        assert_eq!(tiles([25, 25], 50), 2);
        // Of 32 by 32 bits the product of the upper parts, at 2^34, is not wanted in 32 bits.
        assert_eq!(tiles([32, 32], 64), 4);
        assert_eq!(tiles([32, 32], 32), 3);
        // Four parts each, of which sums of places up to 51 are wanted.
        assert_eq!(tiles([64, 64], 64), 10);
    }

    #[test]
    fn known_factors_are_additions() {
        // 7 = 8 - 1, 10 = 8 + 2, 96 = 128 - 32, 85 = 64 + 16 + 4 + 1.
        assert_eq!([0, 1, 64, 7, 10, 96, 85].map(additions), [0, 0, 0, 1, 1, 1, 3]);
    }

    #[test]
    fn latencies_grow_with_the_clock() {
        // 14.4 ns in cycles of 3.33 ns of which 73 % are left, 2.43 ns: 6. In 10 ns: 2 of 7.3 ns.
        let add = Class::Single(Float::Add);
        assert_eq!(add.timing(300_000_000).latency, 6);
        assert_eq!(add.timing(100_000_000).latency, 2);
        assert_eq!(Class::Single(Float::Multiply).timing(300_000_000).latency, 4);
        assert_eq!(Class::Add(32).timing(300_000_000).latency, 0);
        assert_eq!(add.resources().dsps, 0);
        assert_eq!(Class::Single(Float::Multiply).resources().dsps, 2);
    }
}
