//! Kernels as C: what both languages have in common.

use std::collections::BTreeSet;

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::Written;
use super::dialect::Dialect;
use super::helpers::{self, Helper};
use crate::number::FoldFn;
use crate::simt::kernel::{Expr, ExprId, IndexFn, Kernel, Scalar, Stmt};

/// How strongly an expression holds together: what holds less than is wanted is put in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
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

/// All kernels of a program.
pub(super) fn kernels(written: &Written<'_>, dialect: Dialect) -> String {
    let Written { parts, machine, warp } = *written;
    let mut used = BTreeSet::new();
    let mut sections = String::new();
    for kernel in &parts.kernels {
        let mut writer = Writer { kernel, dialect, warp, used: &mut used, out: String::new(), depth: 0 };
        writer.kernel();
        sections.push('\n');
        sections.push_str(&writer.out);
    }
    let mut text = format!("// Kernels of {} for {}.\n", comment(&parts.model), machine);
    text.push_str(helpers::prelude(dialect));
    used.into_iter().for_each(|helper| text.push_str(helper.text(dialect)));
    text + &sections
}

/// A text from the model as a part of a comment: one line, without anything that could end it.
pub(super) fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() && c != '\\' && c != '?' || c == ' ' { c } else { '_' }).collect()
}

struct Writer<'k> {
    kernel: &'k Kernel,
    dialect: Dialect,
    /// Threads of a warp.
    warp: u32,
    used: &'k mut BTreeSet<Helper>,
    out: String,
    depth: usize,
}

impl Writer<'_> {
    fn line(&mut self, text: &str) {
        for _ in 0..self.depth {
            self.out.push_str("    ");
        }
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn kernel(&mut self) {
        let (kernel, dialect) = (self.kernel, self.dialect);
        for line in &kernel.about {
            self.line(&format!("// {}", comment(line)));
        }
        let buffers: Vec<String> = kernel
            .buffers
            .iter()
            .map(|buffer| {
                let constant = if buffer.is_written { "" } else { "const " };
                format!("{constant}__global {} *restrict {}", dialect.stored(buffer.dtype), buffer.name)
            })
            .collect();
        self.line(&format!("__attribute__((reqd_work_group_size({}, 1, 1)))", kernel.threads));
        self.line(&format!("__kernel void {}({})", kernel.name, buffers.join(", ")));
        self.line("{");
        self.depth = 1;
        for shared in &kernel.shared {
            let ty = dialect.stored(shared.dtype);
            self.line(&format!("__local {ty} {}[{}];", shared.name, shared.elements));
        }
        if kernel.exprs.contains(&Expr::Thread) || kernel.body.iter().any(|stmt| matches!(stmt, Stmt::Reduce { .. })) {
            self.line("const int thread = get_local_id(0);");
        }
        for (axis, name) in ["block_x", "block_y", "block_z"].into_iter().enumerate() {
            if kernel.exprs.contains(&Expr::Block(axis as u8)) {
                self.line(&format!("const int {name} = get_group_id({axis});"));
            }
        }
        for stmt in &kernel.body {
            self.statement(stmt);
        }
        self.depth = 0;
        self.line("}");
    }

    fn statement(&mut self, stmt: &Stmt) {
        let kernel = self.kernel;
        let name = |var: crate::simt::kernel::VarId| kernel.vars[var.index()].name.as_str();
        match *stmt {
            Stmt::Let(var, value) => {
                let ty = self.dialect.scalar(kernel.vars[var.index()].scalar);
                let value = self.expr(value, Binding::Ternary);
                match kernel.vars[var.index()].array {
                    None => {
                        let constant = if self.is_set(var) { "" } else { "const " };
                        self.line(&format!("{constant}{ty} {} = {value};", name(var)));
                    }
                    Some(elements) => {
                        self.line(&format!("{ty} {}[{elements}];", name(var)));
                        self.line(&format!("for (int i = 0; i < {elements}; ++i) {}[i] = {value};", name(var)));
                    }
                }
            }
            Stmt::Set(var, value) => {
                let value = self.expr(value, Binding::Ternary);
                self.line(&format!("{} = {value};", name(var)));
            }
            Stmt::SetElement(var, index, value) => {
                let (index, value) = (self.expr(index, Binding::Ternary), self.expr(value, Binding::Ternary));
                self.line(&format!("{}[{index}] = {value};", name(var)));
            }
            Stmt::For { var, from, to, step, unroll } => {
                let (from, to) = (self.expr(from, Binding::Ternary), self.expr(to, Binding::Sum));
                if unroll {
                    self.line("#pragma unroll");
                }
                let name = name(var);
                let step = if step == 1 { format!("++{name}") } else { format!("{name} += {step}") };
                self.line(&format!("for (int {name} = {from}; {name} < {to}; {step}) {{"));
                self.depth += 1;
            }
            Stmt::If(condition) => {
                let condition = self.expr(condition, Binding::Ternary);
                self.line(&format!("if ({condition}) {{"));
                self.depth += 1;
            }
            Stmt::Else => {
                self.depth -= 1;
                self.line("} else {");
                self.depth += 1;
            }
            Stmt::End => {
                self.depth -= 1;
                self.line("}");
            }
            Stmt::Store(buffer, index, value) => {
                let buffer = &kernel.buffers[buffer.index()];
                let text = self.stored(&buffer.name, buffer.dtype, index, value);
                self.line(&text);
            }
            Stmt::StoreShared(shared, index, value) => {
                let shared = &kernel.shared[shared.index()];
                let text = self.stored(&shared.name, shared.dtype, index, value);
                self.line(&text);
            }
            Stmt::Barrier => self.line("barrier(CLK_LOCAL_MEM_FENCE);"),
            Stmt::Reduce { var, function, dtype, width, scratch } => {
                let scratch = kernel.shared[scratch.index()].name.as_str();
                self.reduce(name(var), function, dtype, width, scratch);
            }
        }
    }

    fn is_set(&self, var: crate::simt::kernel::VarId) -> bool {
        self.kernel.body.iter().any(|stmt| match *stmt {
            Stmt::Set(own, _) | Stmt::Reduce { var: own, .. } => own == var,
            _ => false,
        })
    }

    /// Combines by shared memory, in the order in which warps do it.
    fn reduce(&mut self, name: &str, function: FoldFn, dtype: DType, width: u32, scratch: &str) {
        let ty = self.dialect.scalar(Scalar::of(dtype));
        let combined = |writer: &mut Self, a: &str, b: &str| match function {
            FoldFn::Sum | FoldFn::Dot => writer.sum("+", dtype, a, b),
            FoldFn::Product => writer.sum("*", dtype, a, b),
            FoldFn::Max => writer.chosen(BinaryFn::Max, dtype, a, b),
            FoldFn::Min => writer.chosen(BinaryFn::Min, dtype, a, b),
        };
        let warp = width.min(self.warp);
        self.line(&format!("for (int mask = {}; mask > 0; mask /= 2) {{", warp / 2));
        self.depth += 1;
        self.line("barrier(CLK_LOCAL_MEM_FENCE);");
        self.line(&format!("{scratch}[thread] = {name};"));
        self.line("barrier(CLK_LOCAL_MEM_FENCE);");
        self.line(&format!("const {ty} other = {scratch}[thread ^ mask];"));
        let value = combined(self, name, "other");
        self.line(&format!("{name} = {value};"));
        self.depth -= 1;
        self.line("}");
        if width > warp {
            self.line("barrier(CLK_LOCAL_MEM_FENCE);");
            self.line(&format!("{scratch}[thread] = {name};"));
            self.line("barrier(CLK_LOCAL_MEM_FENCE);");
            let first = if width == self.kernel.threads { "0".to_owned() } else { format!("thread / {width} * {width}") };
            self.line(&format!("{name} = {scratch}[{first}];"));
            self.line(&format!("for (int i = {warp}; i < {width}; i += {warp}) {{"));
            self.depth += 1;
            let at = if first == "0" { "i".to_owned() } else { format!("{first} + i") };
            self.line(&format!("const {ty} other = {scratch}[{at}];"));
            let value = combined(self, name, "other");
            self.line(&format!("{name} = {value};"));
            self.depth -= 1;
            self.line("}");
        }
        self.line("barrier(CLK_LOCAL_MEM_FENCE);");
    }

    /// An assignment to an element in memory.
    fn stored(&mut self, name: &str, dtype: DType, index: ExprId, value: ExprId) -> String {
        let (at, value) = (self.expr(index, Binding::Ternary), self.expr(value, Binding::Ternary));
        match dtype {
            DType::F16 => format!("vstore_half_rte({value}, {at}, {name});"),
            DType::BF16 => format!("{name}[{at}] = {}({value});", self.helper(Helper::ToBf16)),
            DType::F8E4M3 => format!("{name}[{at}] = {}({value});", self.helper(Helper::ToF8E4M3)),
            DType::F8E5M2 => format!("{name}[{at}] = {}({value});", self.helper(Helper::ToF8E5M2)),
            _ => format!("{name}[{at}] = {value};"),
        }
    }

    /// An element in memory.
    fn loaded(&mut self, name: &str, dtype: DType, index: ExprId) -> String {
        let at = self.expr(index, Binding::Ternary);
        match dtype {
            DType::F16 => format!("vload_half({at}, {name})"),
            DType::BF16 => format!("{}({name}[{at}])", self.helper(Helper::FromBf16)),
            DType::F8E4M3 => format!("{}({name}[{at}])", self.helper(Helper::FromF8E4M3)),
            DType::F8E5M2 => format!("{}({name}[{at}])", self.helper(Helper::FromF8E5M2)),
            DType::I4 => format!("{}({name}, {at})", self.helper(Helper::LoadI4)),
            DType::U4 => format!("{}({name}, {at})", self.helper(Helper::LoadU4)),
            _ => format!("{name}[{at}]"),
        }
    }

    fn helper(&mut self, helper: Helper) -> &'static str {
        helper.needs().iter().for_each(|&needed| {
            self.used.insert(needed);
        });
        self.used.insert(helper);
        helper.name()
    }

    /// An expression, in parentheses if it holds together less than wanted.
    fn expr(&mut self, id: ExprId, wanted: Binding) -> String {
        let (text, binding) = self.bound(id);
        if binding < wanted { format!("({text})") } else { text }
    }

    fn bound(&mut self, id: ExprId) -> (String, Binding) {
        let kernel = self.kernel;
        match kernel.exprs[id.index()] {
            Expr::Integer(value) if value < 0 => (value.to_string(), Binding::Unary),
            Expr::Integer(value) => (value.to_string(), Binding::Whole),
            Expr::Number(dtype, bits) => {
                let text = self.dialect.literal(dtype, bits);
                let binding = if text.starts_with('-') { Binding::Unary } else { Binding::Whole };
                (text, binding)
            }
            Expr::Thread => ("thread".to_owned(), Binding::Whole),
            Expr::Block(axis) => (["block_x", "block_y", "block_z"][usize::from(axis)].to_owned(), Binding::Whole),
            Expr::Var(var) => (kernel.vars[var.index()].name.clone(), Binding::Whole),
            Expr::Element(var, index) => {
                let index = self.expr(index, Binding::Ternary);
                (format!("{}[{index}]", kernel.vars[var.index()].name), Binding::Whole)
            }
            Expr::Index(function, a, b) => self.index(function, a, b),
            Expr::Unary(function, dtype, x) => self.unary(function, dtype, x),
            Expr::Binary(function, dtype, a, b) => self.binary(function, dtype, a, b),
            Expr::MulAdd(dtype, [a, b, c]) => {
                let [x, y, z] = [a, b, c].map(|operand| self.expr(operand, Binding::Product));
                match Scalar::of(dtype) {
                    Scalar::F32 | Scalar::F64 => (format!("fma({x}, {y}, {z})"), Binding::Whole),
                    Scalar::U32 | Scalar::U64 => (format!("{x} * {y} + {z}"), Binding::Sum),
                    scalar => {
                        let (signed, unsigned) = (self.dialect.scalar(scalar), self.dialect.unsigned(scalar));
                        let text = format!("({signed})(({unsigned}){x} * ({unsigned}){y} + ({unsigned}){z})");
                        (self.narrowed(dtype, text), Binding::Unary)
                    }
                }
            }
            Expr::Select([condition, a, b]) => {
                let condition = self.expr(condition, Binding::Or);
                let (a, b) = (self.expr(a, Binding::Or), self.expr(b, Binding::Ternary));
                (format!("{condition} ? {a} : {b}"), Binding::Ternary)
            }
            Expr::Convert(from, to, x) => {
                let x = self.expr(x, Binding::Unary);
                (self.converted(from, to, x), Binding::Unary)
            }
            Expr::Load(buffer, index) => {
                let buffer = &kernel.buffers[buffer.index()];
                (self.loaded(&buffer.name, buffer.dtype, index), Binding::Whole)
            }
            Expr::LoadShared(shared, index) => {
                let shared = &kernel.shared[shared.index()];
                (self.loaded(&shared.name, shared.dtype, index), Binding::Whole)
            }
        }
    }

    fn index(&mut self, function: IndexFn, a: ExprId, b: ExprId) -> (String, Binding) {
        let (sign, binding) = match function {
            IndexFn::Add => ("+", Binding::Sum),
            IndexFn::Sub => ("-", Binding::Sum),
            IndexFn::Mul => ("*", Binding::Product),
            IndexFn::Div => ("/", Binding::Product),
            IndexFn::Mod => ("%", Binding::Product),
            IndexFn::Xor => ("^", Binding::Bits),
            IndexFn::Lt => ("<", Binding::Compare),
            IndexFn::Ge => (">=", Binding::Compare),
            IndexFn::Eq => ("==", Binding::Compare),
            IndexFn::And => ("&&", Binding::And),
            IndexFn::Or => ("||", Binding::Or),
            IndexFn::Min | IndexFn::Max => {
                let (a, b) = (self.expr(a, Binding::Ternary), self.expr(b, Binding::Ternary));
                return (format!("{}({a}, {b})", if function == IndexFn::Min { "min" } else { "max" }), Binding::Whole);
            }
        };
        let left = self.expr(a, if binding == Binding::Bits { Binding::Unary } else { binding });
        // What is on the right of a sign is taken first.
        let right = match binding {
            Binding::Sum => Binding::Product,
            _ => Binding::Unary,
        };
        let right = self.expr(b, right);
        (format!("{left} {sign} {right}"), binding)
    }

    /// Integers as elements of a narrow type have them.
    fn narrowed(&self, dtype: DType, text: String) -> String {
        match dtype {
            DType::I16 => format!("(short)({text})"),
            DType::I8 => format!("({})({text})", self.dialect.stored(DType::I8)),
            DType::I4 => format!("(({text}) << 28 >> 28)"),
            DType::U16 => format!("(({text}) & 0xffff)"),
            DType::U8 => format!("(({text}) & 0xff)"),
            DType::U4 => format!("(({text}) & 0xf)"),
            _ => text,
        }
    }

    fn unary(&mut self, function: UnaryFn, dtype: DType, x: ExprId) -> (String, Binding) {
        let scalar = Scalar::of(dtype);
        let is_float = dtype.is_float();
        let call = |writer: &mut Self, name: &str| {
            let x = writer.expr(x, Binding::Ternary);
            (format!("{name}({x})"), Binding::Whole)
        };
        match function {
            UnaryFn::Abs if is_float => call(self, "fabs"),
            UnaryFn::Abs if matches!(scalar, Scalar::U32 | Scalar::U64) => self.bound(x),
            UnaryFn::Abs => {
                let x = self.expr(x, Binding::Unary);
                let unsigned = self.dialect.unsigned(scalar);
                let ty = self.dialect.scalar(scalar);
                let text = format!("({x} < 0 ? ({ty})(0 - ({unsigned}){x}) : {x})");
                (self.narrowed(dtype, text), Binding::Whole)
            }
            UnaryFn::Ceil => call(self, "ceil"),
            UnaryFn::Cos => call(self, "cos"),
            UnaryFn::Erf => call(self, "erf"),
            UnaryFn::Exp => call(self, "exp"),
            UnaryFn::Floor => call(self, "floor"),
            UnaryFn::IsInf => {
                let x = self.expr(x, Binding::Ternary);
                (format!("(isinf({x}) != 0)"), Binding::Whole)
            }
            UnaryFn::IsNan => {
                let x = self.expr(x, Binding::Ternary);
                (format!("(isnan({x}) != 0)"), Binding::Whole)
            }
            UnaryFn::Log => call(self, "log"),
            UnaryFn::Neg if is_float => {
                let x = self.expr(x, Binding::Unary);
                (format!("-{x}"), Binding::Unary)
            }
            UnaryFn::Neg => {
                let x = self.expr(x, Binding::Unary);
                let (ty, unsigned) = (self.dialect.scalar(scalar), self.dialect.unsigned(scalar));
                (self.narrowed(dtype, format!("({ty})(0 - ({unsigned}){x})")), Binding::Unary)
            }
            UnaryFn::Not if dtype == DType::Bool => {
                let x = self.expr(x, Binding::Unary);
                (format!("!{x}"), Binding::Unary)
            }
            UnaryFn::Not => {
                let x = self.expr(x, Binding::Unary);
                (self.narrowed(dtype, format!("~{x}")), Binding::Unary)
            }
            UnaryFn::Recip => {
                let x = self.expr(x, Binding::Unary);
                let one = self.dialect.literal(dtype, 1f64.to_bits());
                (format!("{one} / {x}"), Binding::Product)
            }
            UnaryFn::Round => call(self, "rint"),
            UnaryFn::Rsqrt => {
                let x = self.expr(x, Binding::Ternary);
                let one = self.dialect.literal(dtype, 1f64.to_bits());
                (format!("{one} / sqrt({x})"), Binding::Product)
            }
            UnaryFn::Sigmoid => {
                let x = self.expr(x, Binding::Unary);
                let one = self.dialect.literal(dtype, 1f64.to_bits());
                (format!("{one} / ({one} + exp(-{x}))"), Binding::Product)
            }
            UnaryFn::Sign => {
                let x = self.expr(x, Binding::Unary);
                match scalar {
                    Scalar::F32 | Scalar::F64 => {
                        let ty = self.dialect.scalar(scalar);
                        (format!("({x} > 0 ? ({ty})1 : {x} < 0 ? ({ty})-1 : {x})"), Binding::Whole)
                    }
                    Scalar::U32 | Scalar::U64 => (format!("({x} != 0)"), Binding::Whole),
                    Scalar::I32 | Scalar::I64 => (format!("(({x} > 0) - ({x} < 0))"), Binding::Whole),
                }
            }
            UnaryFn::Sin => call(self, "sin"),
            UnaryFn::Softplus => {
                let x = self.expr(x, Binding::Ternary);
                let zero = self.dialect.literal(dtype, 0f64.to_bits());
                (format!("fmax({x}, {zero}) + log1p(exp(-fabs({x})))"), Binding::Sum)
            }
            UnaryFn::Sqrt => call(self, "sqrt"),
            UnaryFn::Tan => call(self, "tan"),
            UnaryFn::Tanh => call(self, "tanh"),
        }
    }

    /// The sum or product of two names.
    fn sum(&self, sign: &str, dtype: DType, a: &str, b: &str) -> String {
        match Scalar::of(dtype) {
            Scalar::F32 | Scalar::F64 | Scalar::U32 | Scalar::U64 => format!("{a} {sign} {b}"),
            scalar => {
                let (ty, unsigned) = (self.dialect.scalar(scalar), self.dialect.unsigned(scalar));
                self.narrowed(dtype, format!("({ty})(({unsigned}){a} {sign} ({unsigned}){b})"))
            }
        }
    }

    /// The greater or lesser of two; NaN if either is.
    fn chosen(&mut self, function: BinaryFn, dtype: DType, a: &str, b: &str) -> String {
        let is_max = function == BinaryFn::Max;
        match Scalar::of(dtype) {
            Scalar::F32 => format!("{}({a}, {b})", self.helper(if is_max { Helper::MaxF32 } else { Helper::MinF32 })),
            Scalar::F64 => format!("{}({a}, {b})", self.helper(if is_max { Helper::MaxF64 } else { Helper::MinF64 })),
            _ => format!("{}({a}, {b})", if is_max { "max" } else { "min" }),
        }
    }

    fn binary(&mut self, function: BinaryFn, dtype: DType, a: ExprId, b: ExprId) -> (String, Binding) {
        let scalar = Scalar::of(dtype);
        let is_float = dtype.is_float();
        let is_unsigned = matches!(scalar, Scalar::U32 | Scalar::U64);
        let compared = |writer: &mut Self, sign: &str| {
            let (a, b) = (writer.expr(a, Binding::Sum), writer.expr(b, Binding::Sum));
            (format!("{a} {sign} {b}"), Binding::Compare)
        };
        let arithmetic = |writer: &mut Self, sign: &str, binding: Binding, right: Binding| {
            if is_float || is_unsigned {
                let (a, b) = (writer.expr(a, binding), writer.expr(b, right));
                return (format!("{a} {sign} {b}"), binding);
            }
            let (a, b) = (writer.expr(a, Binding::Unary), writer.expr(b, Binding::Unary));
            (writer.sum(sign, dtype, &a, &b), Binding::Unary)
        };
        let bits = |writer: &mut Self, sign: &str| {
            let (a, b) = (writer.expr(a, Binding::Unary), writer.expr(b, Binding::Unary));
            (format!("{a} {sign} {b}"), Binding::Bits)
        };
        let called = |writer: &mut Self, helper: Helper| {
            let (a, b) = (writer.expr(a, Binding::Ternary), writer.expr(b, Binding::Ternary));
            (writer.helper(helper), a, b)
        };
        match function {
            BinaryFn::Add => arithmetic(self, "+", Binding::Sum, Binding::Product),
            BinaryFn::Sub => arithmetic(self, "-", Binding::Sum, Binding::Product),
            BinaryFn::Mul => arithmetic(self, "*", Binding::Product, Binding::Unary),
            BinaryFn::Div if is_float => arithmetic(self, "/", Binding::Product, Binding::Unary),
            BinaryFn::Eq => compared(self, "=="),
            BinaryFn::Ge => compared(self, ">="),
            BinaryFn::Gt => compared(self, ">"),
            BinaryFn::Le => compared(self, "<="),
            BinaryFn::Lt => compared(self, "<"),
            BinaryFn::And => bits(self, "&"),
            BinaryFn::Or => bits(self, "|"),
            BinaryFn::Xor => bits(self, "^"),
            BinaryFn::Max | BinaryFn::Min => {
                let (a, b) = (self.expr(a, Binding::Ternary), self.expr(b, Binding::Ternary));
                (self.chosen(function, dtype, &a, &b), Binding::Whole)
            }
            BinaryFn::Pow if is_float => {
                let (a, b) = (self.expr(a, Binding::Ternary), self.expr(b, Binding::Ternary));
                (format!("pow({a}, {b})"), Binding::Whole)
            }
            BinaryFn::Mod if is_float => {
                let helper = if scalar == Scalar::F64 { Helper::FloorModF64 } else { Helper::FloorModF32 };
                let (name, a, b) = called(self, helper);
                (format!("{name}({a}, {b})"), Binding::Whole)
            }
            BinaryFn::Rem if is_float => {
                let (a, b) = (self.expr(a, Binding::Ternary), self.expr(b, Binding::Ternary));
                (format!("fmod({a}, {b})"), Binding::Whole)
            }
            // Division by zero would stop some processors.
            BinaryFn::Div | BinaryFn::Rem | BinaryFn::Mod | BinaryFn::Pow | BinaryFn::Shl | BinaryFn::Shr => {
                let helper = match (function, is_unsigned) {
                    (BinaryFn::Div, false) => Helper::DivSigned,
                    (BinaryFn::Div, true) => Helper::DivUnsigned,
                    (BinaryFn::Rem, false) => Helper::RemSigned,
                    (BinaryFn::Mod, false) => Helper::ModSigned,
                    (BinaryFn::Pow, false) => Helper::PowSigned,
                    (BinaryFn::Pow, true) => Helper::PowUnsigned,
                    (BinaryFn::Shl, _) => Helper::Shl,
                    (BinaryFn::Shr, false) => Helper::ShrSigned,
                    (BinaryFn::Shr, true) => Helper::ShrUnsigned,
                    _ => Helper::RemUnsigned,
                };
                let (name, a, b) = called(self, helper);
                let ty = self.dialect.scalar(scalar);
                let width = if matches!(function, BinaryFn::Shl) { format!(", {}", dtype.bits()) } else { String::new() };
                (self.narrowed(dtype, format!("({ty}){name}({a}, {b}{width})")), Binding::Unary)
            }
        }
    }

    /// A number of one type as one of another: floats become the nearest integers towards zero that there are, and 0 of NaN.
    fn converted(&mut self, from: DType, to: DType, x: String) -> String {
        let ty = self.dialect.scalar(Scalar::of(to));
        match (from.is_float(), to) {
            (_, DType::Bool) => format!("({x} != 0)"),
            (_, DType::F16) => format!("{}({x})", self.helper(Helper::RoundF16)),
            (_, DType::BF16) => format!("{}({}({x}))", self.helper(Helper::FromBf16), self.helper(Helper::ToBf16)),
            (_, DType::F8E4M3) => format!("{}({}({x}))", self.helper(Helper::FromF8E4M3), self.helper(Helper::ToF8E4M3)),
            (_, DType::F8E5M2) => format!("{}({}({x}))", self.helper(Helper::FromF8E5M2), self.helper(Helper::ToF8E5M2)),
            (_, DType::F32 | DType::F64) => format!("({ty}){x}"),
            (true, DType::I4) => format!("clamp(convert_int_sat_rtz({x}), -8, 7)"),
            (true, DType::U4) => format!("clamp(convert_int_sat_rtz({x}), 0, 15)"),
            (true, to) => format!("convert_{}_sat_rtz({x})", self.dialect.stored(to)),
            (false, DType::I16 | DType::I8 | DType::I4 | DType::U16 | DType::U8 | DType::U4) => {
                self.narrowed(to, format!("(int){x}"))
            }
            (false, _) => format!("({ty}){x}"),
        }
    }
}
