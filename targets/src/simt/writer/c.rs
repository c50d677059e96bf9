//! Kernels as C: what both languages have in common.

use std::collections::{BTreeSet, HashSet};

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::Written;
use super::dialect::Dialect;
use super::helpers::{self, Helper};
use crate::number::FoldFn;
use crate::simt::kernel::check::scalars;
use crate::simt::kernel::{Buffer, Expr, ExprId, Factor, IndexFn, Kernel, Scalar, Spread, Stmt, Var, VarId};

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
        let (read, scalars) = (read(kernel), scalars(kernel));
        let mut writer = Writer { kernel, dialect, warp, read, scalars, used: &mut used, out: String::new(), depth: 0 };
        writer.kernel();
        sections.push('\n');
        sections.push_str(&writer.out);
    }
    let mut text = format!("// Kernels of {} for {}.\n", comment(&parts.model), comment(machine));
    text.push_str(helpers::prelude(dialect, parts.kernels.iter().any(has_doubles)));
    for helper in used {
        text.push('\n');
        text.push_str(helper.text(dialect));
    }
    text + &sections
}

/// A text from the model as a part of a comment: one line, without anything that could end it.
pub(super) fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() && c != '\\' && c != '?' || c == ' ' { c } else { '_' }).collect()
}

/// Whether a kernel computes in binary64, which not every device can.
fn has_doubles(kernel: &Kernel) -> bool {
    let is_double = |scalar: Scalar| scalar == Scalar::F64;
    let buffers = kernel.buffers.iter().map(|buffer| Scalar::of(buffer.dtype));
    let shared = kernel.shared.iter().map(|shared| Scalar::of(shared.dtype));
    buffers.chain(shared).any(is_double) || scalars(kernel).into_iter().any(is_double)
}

/// What of a kernel is read on the way to what it leaves: its variables and expressions. The rest is not written.
struct Read {
    vars: HashSet<VarId>,
    exprs: HashSet<ExprId>,
}

fn read(kernel: &Kernel) -> Read {
    let mut read = Read { vars: HashSet::new(), exprs: HashSet::new() };
    // A loop may read what is only set further down, and that may need what is further up: so until nothing is new.
    loop {
        let before = (read.vars.len(), read.exprs.len());
        for stmt in &kernel.body {
            let is_read = match *stmt {
                Stmt::Let(var, _) | Stmt::Set(var, _) | Stmt::SetElement(var, ..) => read.vars.contains(&var),
                Stmt::Reduce { var, .. } => {
                    read.vars.insert(var);
                    true
                }
                Stmt::LoadVector { array, .. } => read.vars.contains(&array),
                Stmt::StoreVector { array: var, .. } | Stmt::Multiply { sums: var, .. } => {
                    read.vars.insert(var);
                    true
                }
                Stmt::For { .. } | Stmt::If(_) | Stmt::Else | Stmt::End | Stmt::Barrier => true,
                Stmt::Store(..) | Stmt::StoreShared(..) | Stmt::Copy { .. } | Stmt::Commit | Stmt::Await(_) => true,
                Stmt::Arrive { .. } => true,
            };
            let mut open: Vec<ExprId> = if is_read { stmt.operands().collect() } else { Vec::new() };
            while let Some(id) = open.pop() {
                if !read.exprs.insert(id) {
                    continue;
                }
                let expr = &kernel.exprs[id.index()];
                if let Expr::Var(var) | Expr::Element(var, _) = *expr {
                    read.vars.insert(var);
                }
                open.extend(expr.operands());
            }
        }
        if before == (read.vars.len(), read.exprs.len()) {
            return read;
        }
    }
}

struct Writer<'k> {
    kernel: &'k Kernel,
    dialect: Dialect,
    /// Threads of a warp.
    warp: u32,
    read: Read,
    /// What each expression holds.
    scalars: Vec<Scalar>,
    used: &'k mut BTreeSet<Helper>,
    out: String,
    depth: usize,
}

/// The names of the block's numbers.
const BLOCKS: [&str; 3] = ["block_x", "block_y", "block_z"];

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
        let handed = kernel.handed_over();
        for line in &kernel.about {
            self.line(&format!("// {}", comment(line)));
        }
        self.line(&format!("__kernel __attribute__((reqd_work_group_size({}, 1, 1)))", kernel.threads));
        self.line(&format!("void {}(", kernel.name));
        for (place, buffer) in kernel.buffers.iter().enumerate() {
            let constant = if buffer.is_written { "" } else { "const " };
            let end = if place + 1 == kernel.buffers.len() { ")" } else { "," };
            // What blocks hand over is read from memory and from nowhere else.
            let shared = if handed[place] { "volatile " } else { "" };
            let ty = dialect.stored(buffer.dtype);
            self.line(&format!("    {shared}{constant}__global {ty} *restrict {}{end}", buffer.name));
        }
        self.line("{");
        self.depth = 1;
        for shared in &kernel.shared {
            let ty = dialect.shared(shared.dtype);
            self.line(&format!("__local {ty} {}[{}];", shared.name, shared.elements));
        }
        let uses = |writer: &Self, expr: Expr| writer.read.exprs.iter().any(|id| kernel.exprs[id.index()] == expr);
        if uses(self, Expr::Thread)
            || kernel
                .body
                .iter()
                .any(|stmt| matches!(stmt, Stmt::Reduce { .. } | Stmt::Multiply { .. } | Stmt::Arrive { .. }))
        {
            self.line("const int thread = get_local_id(0);");
        }
        for (axis, name) in BLOCKS.into_iter().enumerate() {
            if uses(self, Expr::Block(axis as u8)) {
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
        let name = |var: VarId| kernel.vars[var.index()].name.as_str();
        match *stmt {
            Stmt::Let(var, _) | Stmt::Set(var, _) | Stmt::SetElement(var, ..) | Stmt::LoadVector { array: var, .. }
                if !self.read.vars.contains(&var) => {}
            Stmt::Let(var, value) => {
                let Var { scalar, array, packed, .. } = kernel.vars[var.index()];
                // As bits, whatever they mean: halves are no numbers everywhere.
                let ty = packed.map_or(self.dialect.scalar(scalar), |dtype| self.dialect.shared(dtype));
                let value = if packed.is_some() { "0".to_owned() } else { self.expr(value, Binding::Ternary) };
                match array {
                    None => {
                        let constant = if self.is_set(var) { "" } else { "const " };
                        self.line(&format!("{constant}{ty} {} = {value};", name(var)));
                    }
                    Some(elements) => {
                        self.line(&format!("{ty} {}[{elements}];", name(var)));
                        self.line(&format!(
                            "for (int slot = 0; slot < {elements}; ++slot) {}[slot] = {value};",
                            name(var)
                        ));
                    }
                }
            }
            Stmt::Set(var, value) => {
                let text = self.assigned(var, value);
                self.line(&text);
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
                let text = self.stored(&self.dialect.shared_name(shared), shared.dtype, index, value);
                self.line(&text);
            }
            Stmt::LoadVector { array, to, buffer, from, count } => {
                let buffer = &kernel.buffers[buffer.index()];
                let (to, from) = (self.expr(to, Binding::Sum), self.expr(from, Binding::Sum));
                if kernel.vars[array.index()].packed.is_some() {
                    let bits = self.bits_of(buffer);
                    let array = name(array);
                    self.line(&format!(
                        "for (int slot = 0; slot < {count}; ++slot) {array}[slot] = {bits}[{from} + slot];"
                    ));
                    return;
                }
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {{"));
                let (element, _) = self.element(&buffer.name, buffer.dtype, &format!("{from} + slot"));
                self.line(&format!("    {}[{to} + slot] = {element};", name(array)));
                self.line("}");
            }
            Stmt::StoreVector { buffer, to, array, from, count } => {
                let buffer = &kernel.buffers[buffer.index()];
                let (to, from) = (self.expr(to, Binding::Sum), self.expr(from, Binding::Sum));
                let is_packed = kernel.vars[array.index()].packed.is_some();
                let value = format!("{}[{from} + slot]", name(array));
                if is_packed {
                    let bits = self.bits_of(buffer);
                    self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {bits}[{to} + slot] = {value};"));
                    return;
                }
                let text = self.put(&buffer.name, buffer.dtype, &format!("{to} + slot"), &value);
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {text}"));
            }
            Stmt::Copy { shared, to, buffer, from, count, when } => {
                let (shared, buffer) = (&kernel.shared[shared.index()], &kernel.buffers[buffer.index()]);
                let (to, from) = (self.expr(to, Binding::Sum), self.expr(from, Binding::Sum));
                let name = self.bits_of(buffer);
                let is_known = matches!(kernel.exprs[when.index()], Expr::Integer(value) if value != 0);
                let value = format!("{name}[{from} + slot]");
                let value = if is_known { value } else { format!("{} ? {value} : 0", self.expr(when, Binding::Or)) };
                self.line(&format!(
                    "for (int slot = 0; slot < {count}; ++slot) {}[{to} + slot] = {value};",
                    shared.name
                ));
            }
            // Copies are made where they begin.
            Stmt::Commit | Stmt::Await(_) => {}
            Stmt::Multiply { sums, tile, a, b, b_by_rows } => self.multiply(name(sums), tile, a, b, b_by_rows),
            Stmt::Arrive { var, counters, axis, scratch } => {
                let (counters, scratch) = (&kernel.buffers[counters.index()], &kernel.shared[scratch.index()]);
                self.arrive(name(var), &counters.name, usize::from(axis), &scratch.name);
            }
            Stmt::Barrier => self.line("barrier(CLK_LOCAL_MEM_FENCE);"),
            Stmt::Reduce { var, function, dtype, width, scratch } => {
                let scratch = kernel.shared[scratch.index()].name.as_str();
                self.reduce(name(var), function, dtype, width, scratch);
            }
        }
    }

    /// One thread counts for its block, when all that the block has written can be seen.
    fn arrive(&mut self, var: &str, counters: &str, axis: usize, scratch: &str) {
        let grid = self.kernel.grid;
        let (mut index, mut size) = (Vec::new(), 1);
        for other in (0..3).filter(|&other| other != axis) {
            if grid[other] > 1 {
                let number = format!("get_group_id({other})");
                index.push(if size == 1 { number } else { format!("{number} * {size}") });
            }
            size *= grid[other];
        }
        let counter = if index.is_empty() { "0".to_owned() } else { index.join(" + ") };
        self.line("mem_fence(CLK_GLOBAL_MEM_FENCE);");
        self.line("barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);");
        self.line("if (thread == 0) {");
        self.depth += 1;
        self.line(&format!("volatile __global uint *counter = (volatile __global uint *){counters} + {counter};"));
        self.line(&format!("{scratch}[0] = atomic_inc(counter) == {}u;", grid[axis] - 1));
        self.line(&format!("if ({scratch}[0]) *counter = 0;"));
        self.depth -= 1;
        self.line("}");
        self.line("barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);");
        self.line("mem_fence(CLK_GLOBAL_MEM_FENCE);");
        self.line(&format!("const int {var} = {scratch}[0];"));
    }

    /// A buffer as bits, whatever they mean: halves are no numbers everywhere.
    fn bits_of(&self, buffer: &Buffer) -> String {
        let bits = self.dialect.shared(buffer.dtype);
        if bits == self.dialect.stored(buffer.dtype) {
            return buffer.name.clone();
        }
        let constant = if buffer.is_written { "" } else { "const " };
        format!("(({constant}__global {bits} *){})", buffer.name)
    }

    /// Each lane computes the sums that it has of a product of tiles.
    fn multiply(&mut self, sums: &str, [rows, columns, depth]: [u32; 3], a: Factor, b: Factor, b_by_rows: bool) {
        let kernel = self.kernel;
        let Some(spread) = Spread::new(self.warp, columns) else { return };
        let across = columns / spread.tile_columns();
        let (a_at, b_at) = (self.expr(a.at, Binding::Sum), self.expr(b.at, Binding::Sum));
        let [left, right] = [a, b].map(|factor| &kernel.shared[factor.shared.index()]);
        let (row, column) = match self.warp {
            64 => ("own_lane / 16 * 4 + slot % 4", "own_lane % 16"),
            _ => ("own_lane / 4 + slot % 4 / 2 * 8", "own_lane % 4 * 2 + slot % 2"),
        };
        self.line(&format!("for (int slot = 0; slot < {}; ++slot) {{", spread.count(rows)));
        self.depth += 1;
        self.line(&format!("const int own_lane = thread % {};", self.warp));
        self.line(&format!("const int own_row = slot / 4 / {across} * 16 + {row};"));
        self.line(&format!("const int own_column = slot / 4 % {across} * {} + {column};", spread.tile_columns()));
        self.line(&format!("for (int own_k = 0; own_k < {depth}; ++own_k) {{"));
        self.depth += 1;
        let b_index = match b_by_rows {
            true => format!("{b_at} + own_k * {} + own_column", b.pitch),
            false => format!("{b_at} + own_column * {} + own_k", b.pitch),
        };
        let (left_name, right_name) = (self.dialect.shared_name(left), self.dialect.shared_name(right));
        let (mut x, _) = self.element(&left_name, left.dtype, &format!("{a_at} + own_row * {} + own_k", a.pitch));
        let (mut y, _) = self.element(&right_name, right.dtype, &b_index);
        if left.dtype == DType::F32 {
            let round = self.helper(Helper::RoundTf32);
            (x, y) = (format!("{round}({x})"), format!("{round}({y})"));
        }
        let next = if left.dtype.is_float() {
            format!("fma({x}, {y}, {sums}[slot])")
        } else {
            format!("{sums}[slot] + {x} * {y}")
        };
        self.line(&format!("{sums}[slot] = {next};"));
        self.depth -= 1;
        self.line("}");
        self.depth -= 1;
        self.line("}");
    }

    /// An assignment to a variable.
    fn assigned(&mut self, var: VarId, value: ExprId) -> String {
        let name = self.kernel.vars[var.index()].name.as_str();
        if let Expr::Binary(function, dtype, a, b) = self.kernel.exprs[value.index()]
            && self.kernel.exprs[a.index()] == Expr::Var(var)
            && !wraps(dtype)
            && let Some(sign) = match function {
                BinaryFn::Add => Some('+'),
                BinaryFn::Sub => Some('-'),
                BinaryFn::Mul => Some('*'),
                _ => None,
            }
        {
            let by = self.expr(b, Binding::Ternary);
            return format!("{name} {sign}= {by};");
        }
        let value = self.expr(value, Binding::Ternary);
        format!("{name} = {value};")
    }

    fn is_set(&self, var: VarId) -> bool {
        self.kernel.body.iter().any(|stmt| match *stmt {
            Stmt::Set(own, _) | Stmt::Reduce { var: own, .. } => own == var,
            _ => false,
        })
    }

    /// Combines by shared memory, in the order in which warps do it.
    fn reduce(&mut self, name: &str, function: FoldFn, dtype: DType, width: u32, scratch: &str) {
        let ty = self.dialect.scalar(Scalar::of(dtype));
        let warp = width.min(self.warp);
        self.line(&format!("for (int mask = {}; mask > 0; mask /= 2) {{", warp / 2));
        self.depth += 1;
        self.shared_by_all(name, scratch);
        self.line(&format!("const {ty} other = {scratch}[thread ^ mask];"));
        self.combine(name, function, dtype);
        self.depth -= 1;
        self.line("}");
        if width > warp {
            self.shared_by_all(name, scratch);
            let is_whole = width == self.kernel.threads;
            let first = if is_whole { "0".to_owned() } else { format!("thread / {width} * {width}") };
            self.line(&format!("{name} = {scratch}[{first}];"));
            self.line(&format!("for (int slot = {warp}; slot < {width}; slot += {warp}) {{"));
            self.depth += 1;
            let at = if is_whole { "slot".to_owned() } else { format!("{first} + slot") };
            self.line(&format!("const {ty} other = {scratch}[{at}];"));
            self.combine(name, function, dtype);
            self.depth -= 1;
            self.line("}");
        }
        self.line("barrier(CLK_LOCAL_MEM_FENCE);");
    }

    /// Writes what each thread holds where all threads can read it, once all have read what was there.
    fn shared_by_all(&mut self, name: &str, scratch: &str) {
        self.line("barrier(CLK_LOCAL_MEM_FENCE);");
        self.line(&format!("{scratch}[thread] = {name};"));
        self.line("barrier(CLK_LOCAL_MEM_FENCE);");
    }

    /// Combines a variable with that of another thread, as `combine` of the simulator's numbers does.
    fn combine(&mut self, name: &str, function: FoldFn, dtype: DType) {
        let sign = match function {
            FoldFn::Sum | FoldFn::Dot => "+",
            FoldFn::Product => "*",
            FoldFn::Max | FoldFn::Min => {
                let function = if function == FoldFn::Max { BinaryFn::Max } else { BinaryFn::Min };
                let value = self.chosen(function, dtype, name, "other");
                return self.line(&format!("{name} = {value};"));
            }
        };
        if dtype.is_float() {
            return self.line(&format!("{name} {sign}= other;"));
        }
        let unsigned = self.dialect.unsigned(Scalar::of(dtype));
        let (value, _) = match wraps(dtype) {
            true => self.signed(dtype, format!("({unsigned}){name} {sign} other")),
            false => self.narrowed(dtype, (format!("{name} {sign} other"), Binding::Sum)),
        };
        self.line(&format!("{name} = {value};"));
    }

    /// An assignment to an element in memory.
    fn stored(&mut self, name: &str, dtype: DType, index: ExprId, value: ExprId) -> String {
        let (at, value) = (self.expr(index, Binding::Ternary), self.expr(value, Binding::Ternary));
        self.put(name, dtype, &at, &value)
    }

    /// The same, with what is written already.
    fn put(&mut self, name: &str, dtype: DType, at: &str, value: &str) -> String {
        match dtype {
            DType::F16 => format!("vstore_half_rte({value}, {at}, {name});"),
            DType::BF16 => format!("{name}[{at}] = {}({value});", self.helper(Helper::ToBf16)),
            DType::F8E4M3 => format!("{name}[{at}] = {}({value});", self.helper(Helper::ToF8E4M3)),
            DType::F8E5M2 => format!("{name}[{at}] = {}({value});", self.helper(Helper::ToF8E5M2)),
            _ => format!("{name}[{at}] = {value};"),
        }
    }

    /// An element in memory.
    fn loaded(&mut self, name: &str, dtype: DType, index: ExprId) -> (String, Binding) {
        let at = self.expr(index, Binding::Ternary);
        self.element(name, dtype, &at)
    }

    /// The same, at an index that is written already.
    fn element(&mut self, name: &str, dtype: DType, at: &str) -> (String, Binding) {
        let text = match dtype {
            DType::F16 => format!("vload_half({at}, {name})"),
            DType::BF16 => format!("{}({name}[{at}])", self.helper(Helper::FromBf16)),
            DType::F8E4M3 => format!("{}({name}[{at}])", self.helper(Helper::FromF8E4M3)),
            DType::F8E5M2 => format!("{}({name}[{at}])", self.helper(Helper::FromF8E5M2)),
            DType::I4 => format!("{}({name}, {at})", self.helper(Helper::LoadI4)),
            DType::U4 => format!("{}({name}, {at})", self.helper(Helper::LoadU4)),
            // Whatever a file holds, 1 is true.
            DType::Bool => return (format!("{name}[{at}] != 0"), Binding::Compare),
            _ => format!("{name}[{at}]"),
        };
        (text, Binding::Whole)
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
            Expr::Integer(value) => self.number(DType::I32, i64::from(value) as u64),
            Expr::Number(dtype, bits) => self.number(dtype, bits),
            Expr::Thread => ("thread".to_owned(), Binding::Whole),
            Expr::Block(axis) => (BLOCKS[usize::from(axis)].to_owned(), Binding::Whole),
            Expr::Var(var) => (kernel.vars[var.index()].name.clone(), Binding::Whole),
            Expr::Element(var, index) => {
                let index = self.expr(index, Binding::Ternary);
                let Var { name, packed, .. } = &kernel.vars[var.index()];
                match *packed {
                    Some(dtype) => self.element(&self.dialect.packed_name(dtype, name), dtype, &index),
                    None => (format!("{name}[{index}]"), Binding::Whole),
                }
            }
            Expr::Index(function, a, b) => self.index(function, a, b),
            Expr::Unary(function, dtype, x) => self.unary(function, dtype, x),
            Expr::Binary(function, dtype, a, b) => self.binary(function, dtype, a, b),
            Expr::MulAdd(dtype, [a, b, c]) if dtype.is_float() => {
                let [a, b, c] = [a, b, c].map(|operand| self.expr(operand, Binding::Ternary));
                (format!("fma({a}, {b}, {c})"), Binding::Whole)
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
            Expr::Load(buffer, index) => {
                let buffer = &kernel.buffers[buffer.index()];
                self.loaded(&buffer.name, buffer.dtype, index)
            }
            Expr::LoadShared(shared, index) => {
                let shared = &kernel.shared[shared.index()];
                self.loaded(&self.dialect.shared_name(shared), shared.dtype, index)
            }
        }
    }

    /// A literal.
    fn number(&self, dtype: DType, bits: u64) -> (String, Binding) {
        let text = self.dialect.literal(dtype, bits);
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
        let is_narrow = match self.kernel.exprs[id.index()] {
            Expr::Unary(_, dtype, _)
            | Expr::Binary(_, dtype, ..)
            | Expr::MulAdd(dtype, _)
            | Expr::Convert(_, dtype, _) => dtype.bits() < 32 && !dtype.is_float(),
            Expr::Load(..) | Expr::LoadShared(..) => true,
            _ => false,
        };
        if is_narrow && self.scalars[id.index()] == Scalar::I32 {
            format!("(int){}", self.expr(id, Binding::Unary))
        } else {
            self.expr(id, Binding::Ternary)
        }
    }

    /// A text as a number of a type.
    fn cast(ty: &str, (text, binding): (String, Binding)) -> (String, Binding) {
        let text = if binding < Binding::Unary { format!("({ty})({text})") } else { format!("({ty}){text}") };
        (text, Binding::Unary)
    }

    /// Integers as elements of a narrow type have them.
    fn narrowed(&self, dtype: DType, (text, binding): (String, Binding)) -> (String, Binding) {
        let whole = |text: String| if binding < Binding::Unary { format!("({text})") } else { text };
        match dtype {
            DType::I16 | DType::I8 => Self::cast(self.dialect.stored(dtype), (text, binding)),
            DType::I4 => (format!("{} << 28 >> 28", whole(text)), Binding::Bits),
            DType::U16 => (format!("{} & 0xffff", whole(text)), Binding::Bits),
            DType::U8 => (format!("{} & 0xff", whole(text)), Binding::Bits),
            DType::U4 => (format!("{} & 0xf", whole(text)), Binding::Bits),
            _ => (text, binding),
        }
    }

    /// What was computed without sign as a number with one.
    fn signed(&self, dtype: DType, text: String) -> (String, Binding) {
        self.narrowed(dtype, (format!("({})({text})", self.dialect.scalar(Scalar::of(dtype))), Binding::Unary))
    }

    /// An operand as a number without sign, so that arithmetic with it wraps.
    fn unsigned(&mut self, id: ExprId, dtype: DType, wanted: Binding) -> String {
        match self.wrapping(id, dtype) {
            Some((text, binding)) if binding < wanted => format!("({text})"),
            Some((text, _)) => text,
            None => {
                let x = self.expr(id, Binding::Unary);
                format!("({}){x}", self.dialect.unsigned(Scalar::of(dtype)))
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
        match self.kernel.exprs[id.index()] {
            Expr::Binary(function, own, a, b) if own == dtype && wraps(dtype) && dtype != DType::U16 => {
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

    /// What changes the sign of a text.
    fn minus(text: &str) -> String {
        if text.starts_with('-') { format!("-({text})") } else { format!("-{text}") }
    }

    fn unary(&mut self, function: UnaryFn, dtype: DType, x: ExprId) -> (String, Binding) {
        let scalar = Scalar::of(dtype);
        let (is_float, is_unsigned) = (dtype.is_float(), matches!(scalar, Scalar::U32 | Scalar::U64));
        let (ty, unsigned) = (self.dialect.scalar(scalar), self.dialect.unsigned(scalar));
        let one = || self.dialect.literal(dtype, 1f64.to_bits());
        let name = match function {
            UnaryFn::Abs if is_float => "fabs",
            UnaryFn::Abs if is_unsigned => return self.bound(x),
            UnaryFn::Abs => {
                let x = self.expr(x, Binding::Ternary);
                return self.narrowed(dtype, (format!("({ty})abs({x})"), Binding::Unary));
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
                return (Self::minus(&x), Binding::Unary);
            }
            UnaryFn::Neg if is_unsigned || wraps(dtype) => {
                let x = self.expr(x, Binding::Product);
                let zero = if unsigned == self.dialect.scalar(Scalar::U64) { "0UL" } else { "0u" };
                let text = format!("{zero} - {x}");
                return if is_unsigned { (text, Binding::Sum) } else { self.signed(dtype, text) };
            }
            UnaryFn::Neg => {
                let x = self.expr(x, Binding::Unary);
                return self.narrowed(dtype, (Self::minus(&x), Binding::Unary));
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
                return (format!("{one} / sqrt({x})"), Binding::Product);
            }
            UnaryFn::Sigmoid => {
                let one = one();
                let x = self.expr(x, Binding::Unary);
                return (format!("{one} / ({one} + exp({}))", Self::minus(&x)), Binding::Product);
            }
            UnaryFn::Sign => match scalar {
                Scalar::F32 => self.helper(Helper::SignF32),
                Scalar::F64 => self.helper(Helper::SignF64),
                Scalar::U32 | Scalar::U64 => {
                    let x = self.expr(x, Binding::Sum);
                    return (format!("({ty})({x} != 0)"), Binding::Unary);
                }
                Scalar::I32 | Scalar::I64 => {
                    let x = self.expr(x, Binding::Sum);
                    return Self::cast(ty, (format!("({x} > 0) - ({x} < 0)"), Binding::Sum));
                }
            },
            UnaryFn::Sin => "sin",
            UnaryFn::Softplus => {
                let zero = self.dialect.literal(dtype, 0f64.to_bits());
                let x = self.expr(x, Binding::Ternary);
                return (format!("fmax({x}, {zero}) + log1p(exp(-fabs({x})))"), Binding::Sum);
            }
            UnaryFn::Sqrt => "sqrt",
            UnaryFn::Tan => "tan",
            UnaryFn::Tanh => "tanh",
        };
        let x = self.expr(x, Binding::Ternary);
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

    fn binary(&mut self, function: BinaryFn, dtype: DType, a: ExprId, b: ExprId) -> (String, Binding) {
        let scalar = Scalar::of(dtype);
        let is_float = dtype.is_float();
        let is_unsigned = matches!(scalar, Scalar::U32 | Scalar::U64);
        let compared = |writer: &mut Self, sign: &str| {
            let (a, b) = (writer.expr(a, Binding::Sum), writer.expr(b, Binding::Sum));
            (format!("{a} {sign} {b}"), Binding::Compare)
        };
        let arithmetic = |writer: &mut Self, sign: &str, binding: Binding, right: Binding| {
            if wraps(dtype) {
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
            (BinaryFn::Pow, _) if is_float => ("pow", None),
            (BinaryFn::Mod, _) if scalar == Scalar::F32 => (self.helper(Helper::FloorModF32), None),
            (BinaryFn::Mod, _) if scalar == Scalar::F64 => (self.helper(Helper::FloorModF64), None),
            (BinaryFn::Rem, _) if is_float => ("fmod", None),
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
        self.narrowed(dtype, if is_wide { result } else { Self::cast(self.dialect.scalar(scalar), result) })
    }

    /// A number of one type as one of another: floats become the nearest integers towards zero that there are, and 0 of NaN.
    fn converted(&mut self, from: DType, to: DType, x: ExprId) -> (String, Binding) {
        let (own, scalar) = (Scalar::of(from), Scalar::of(to));
        let ty = self.dialect.scalar(scalar);
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
            DType::I4 | DType::U4 if from.is_float() => {
                let x = self.expr(x, Binding::Ternary);
                let (low, high) = if to == DType::I4 { (-8, 7) } else { (0, 15) };
                (format!("clamp(convert_int_sat_rtz({x}), {low}, {high})"), Binding::Whole)
            }
            _ if from.is_float() && !to.is_float() => {
                let x = self.expr(x, Binding::Ternary);
                (format!("convert_{}_sat_rtz({x})", self.dialect.stored(to)), Binding::Whole)
            }
            // What is in a register has its value whatever its width.
            _ if own == scalar && (to.is_float() || holds_all(to, from)) => self.bound(x),
            _ => {
                let value = self.bound(x);
                let value = if own == scalar { value } else { Self::cast(ty, value) };
                self.narrowed(to, value)
            }
        }
    }
}

/// Whether arithmetic of a type may leave its register, so that it must be done without sign.
fn wraps(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::I32 | DType::U16)
}

/// Whether an integer type has all numbers of another.
fn holds_all(to: DType, from: DType) -> bool {
    let range = |dtype: DType| dtype.integer_range().unwrap_or((0, 1));
    let ((least, most), (low, high)) = (range(to), range(from));
    least <= low && high <= most
}
