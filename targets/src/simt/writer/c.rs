//! Kernels as C: what both languages have in common.

use std::collections::BTreeSet;

use tcc_ir::ops::BinaryFn;

use super::Written;
use super::dialect::Dialect;
use super::product::Tiles;
use super::shared::Placement;
use crate::kernel::check::scalars;
use crate::kernel::writer::{Binding, Expressions, Helper, Language, Read, comment, read, wraps};
use crate::kernel::{Expr, ExprId, Kernel, Scalar, Stmt, Var, VarId};

/// All kernels of a program.
pub(super) fn kernels(written: &Written<'_>, dialect: Dialect) -> String {
    let Written { parts, machine, warp, .. } = *written;
    let mut used = BTreeSet::new();
    let mut sections = String::new();
    for (kernel, &blocks) in parts.kernels.iter().zip(&written.blocks) {
        let (read, scalars) = (read(kernel), scalars(kernel));
        let (used, out) = (&mut used, String::new());
        let mut writer = Writer { kernel, dialect, warp, blocks, read, scalars, used, out, depth: 0 };
        writer.write();
        sections.push('\n');
        sections.push_str(&writer.out);
    }
    let mut text = format!("// Kernels of {} for {}.\n", comment(&parts.model), comment(machine));
    text.push_str(dialect.prelude(parts.kernels.iter().any(has_doubles)));
    for helper in used {
        text.push('\n');
        text.push_str(&helper.text(dialect.language()));
    }
    text + &sections + dialect.end()
}

/// Whether a kernel computes in binary64, which not every device can.
fn has_doubles(kernel: &Kernel) -> bool {
    let is_double = |scalar: Scalar| scalar == Scalar::F64;
    let buffers = kernel.buffers.iter().map(|buffer| Scalar::of(buffer.dtype));
    let shared = kernel.shared.iter().map(|shared| Scalar::of(shared.dtype));
    buffers.chain(shared).any(is_double) || scalars(kernel).into_iter().any(is_double)
}

/// A kernel that is being written.
pub(super) struct Writer<'k> {
    pub kernel: &'k Kernel,
    pub dialect: Dialect,
    /// Threads of a warp.
    pub warp: u32,
    /// Blocks that a multiprocessor is to run at a time.
    blocks: u32,
    read: Read,
    /// What each expression holds.
    pub scalars: Vec<Scalar>,
    used: &'k mut BTreeSet<Helper>,
    out: String,
    pub depth: usize,
}

/// The names of the block's numbers.
const BLOCKS: [&str; 3] = ["block_x", "block_y", "block_z"];

impl Writer<'_> {
    /// Writes a line of the kernel.
    pub fn line(&mut self, text: &str) {
        for _ in 0..self.depth {
            self.out.push_str("    ");
        }
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// Writes a loop over the slots of an array: `text` for each, which is called `slot`.
    pub fn for_slots(&mut self, count: u32, text: &str) {
        self.unroll();
        self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {text}"));
    }

    /// Has the loop that follows written out, where only that keeps arrays in registers.
    pub fn unroll(&mut self) {
        if self.dialect == Dialect::Cuda {
            self.line("#pragma unroll");
        }
    }

    fn write(&mut self) {
        let (kernel, dialect) = (self.kernel, self.dialect);
        let handed = kernel.handed_over();
        for line in &kernel.about {
            self.line(&format!("// {}", comment(line)));
        }
        self.line(&dialect.kernel(kernel.threads, self.blocks));
        self.line(&format!("{}(", dialect.kernel_name(&kernel.name)));
        for (place, buffer) in kernel.buffers.iter().enumerate() {
            let end = if place + 1 == kernel.buffers.len() { ")" } else { "," };
            let parameter = dialect.parameter(buffer, handed[place]);
            self.line(&format!("    {parameter}{end}"));
        }
        self.line("{");
        self.depth = 1;
        Placement::new(kernel, dialect, self.warp).lines().iter().for_each(|line| self.line(line));
        if self.reads(Expr::Thread) || kernel.body.iter().any(|stmt| self.names_thread(stmt)) {
            self.line(&format!("const int thread = {};", dialect.thread()));
        }
        for (axis, name) in BLOCKS.into_iter().enumerate() {
            if self.reads(Expr::Block(axis as u8)) {
                let number = self.block(axis);
                self.line(&format!("const int {name} = {number};"));
            }
        }
        for stmt in &kernel.body {
            self.statement(stmt);
        }
        self.depth = 0;
        self.line("}");
    }

    /// The block's number along an axis.
    pub fn block(&self, axis: usize) -> String {
        if self.dialect.is_flat(self.kernel) { flat_block(self.kernel, axis) } else { self.dialect.block(axis) }
    }

    /// Whether an expression is read.
    fn reads(&self, expr: Expr) -> bool {
        self.read.exprs.iter().any(|id| self.kernel.exprs[id.index()] == expr)
    }

    /// Whether a statement is written with the thread's number, which the kernel may not have named.
    fn names_thread(&self, stmt: &Stmt) -> bool {
        match *stmt {
            Stmt::Multiply { .. } | Stmt::Arrive { .. } | Stmt::Prefetch { .. } => true,
            Stmt::Reduce { width, .. } => !self.dialect.shuffles(self.kernel.threads) || width > self.warp,
            _ => false,
        }
    }

    fn statement(&mut self, stmt: &Stmt) {
        let kernel = self.kernel;
        let name = |var: VarId| kernel.vars[var.index()].name.as_str();
        match *stmt {
            Stmt::Let(var, _)
            | Stmt::Set(var, _)
            | Stmt::SetElement(var, ..)
            | Stmt::LoadVector { array: var, .. }
            | Stmt::Dequantize { array: var, .. }
                if !self.read.vars.contains(&var) => {}
            Stmt::Let(var, value) => {
                let Var { scalar, array, packed, .. } = kernel.vars[var.index()];
                if let Some(dtype) = packed {
                    return self.packed_array(name(var), dtype, array.unwrap_or(1));
                }
                let ty = self.dialect.scalar(scalar);
                let value = self.expr(value, Binding::Ternary);
                match array {
                    None => {
                        let constant = if self.is_set(var) { "" } else { "const " };
                        self.line(&format!("{constant}{ty} {} = {value};", name(var)));
                    }
                    Some(elements) => {
                        self.line(&format!("{ty} {}[{elements}];", name(var)));
                        self.for_slots(elements, &format!("{}[slot] = {value};", name(var)));
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
                match (unroll, self.dialect) {
                    (true, _) => self.line("#pragma unroll"),
                    // What a kernel does not write out stays a loop, as it was timed and its registers were counted.
                    (false, Dialect::Cuda) => self.line("#pragma unroll 1"),
                    (false, Dialect::OpenCl) => {}
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
                match kernel.vars[array.index()].packed {
                    Some(_) => self.load_packed(name(array), buffer, from, count),
                    None => self.load_vector(name(array), to, buffer, from, count),
                }
            }
            Stmt::Dequantize { .. } => self.dequantize(stmt),
            Stmt::StoreVector { buffer, to, array, from, count } => {
                let buffer = &kernel.buffers[buffer.index()];
                match kernel.vars[array.index()].packed {
                    Some(_) => self.store_packed(buffer, to, name(array), count),
                    None => self.store_vector(buffer, to, name(array), from, count),
                }
            }
            Stmt::Copy { .. } => self.copy(stmt),
            Stmt::Commit => self.dialect.commit().into_iter().for_each(|line| self.line(line)),
            Stmt::Await(groups) => self.dialect.wait(groups).into_iter().for_each(|line| self.line(&line)),
            Stmt::Multiply { sums, tile: size, a, b, b_by_rows } => {
                self.multiply(Tiles { sums: name(sums), size, a, b, b_by_rows });
            }
            Stmt::Arrive { var, counters, axis, scratch } => {
                self.arrive(name(var), counters, usize::from(axis), scratch);
            }
            Stmt::Prefetch { buffer, region, threads } => self.prefetch(buffer, region, threads),
            Stmt::Barrier => self.line(self.dialect.barrier()),
            Stmt::Reduce { var, function, dtype, width, scratch } => {
                self.reduce(name(var), function, dtype, width, scratch);
            }
        }
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
}

impl<'k> Expressions<'k> for Writer<'k> {
    fn kernel(&self) -> &'k Kernel {
        self.kernel
    }

    fn language(&self) -> Language {
        self.dialect.language()
    }

    fn holds(&self, id: ExprId) -> Scalar {
        self.scalars[id.index()]
    }

    fn helper(&mut self, helper: Helper) -> &'static str {
        let language = self.dialect.language();
        let all = helper.needs(language).iter().chain([&helper]);
        self.used.extend(all.filter(|helper| !helper.is_known(language)));
        helper.name()
    }

    fn own(&mut self, id: ExprId) -> Option<(String, Binding)> {
        let kernel = self.kernel;
        Some(match kernel.exprs[id.index()] {
            Expr::Thread => ("thread".to_owned(), Binding::Whole),
            Expr::BlockNumber => {
                let [x, y, _] = kernel.grid;
                let [own, row, plane] = [0, 1, 2].map(|axis| self.block(axis));
                (format!("((({plane}) * {y} + ({row})) * {x} + ({own}))"), Binding::Whole)
            }
            Expr::Block(axis) => (BLOCKS[usize::from(axis)].to_owned(), Binding::Whole),
            Expr::Var(var) => (kernel.vars[var.index()].name.clone(), Binding::Whole),
            Expr::Element(var, index) => {
                let Var { name, packed, .. } = &kernel.vars[var.index()];
                match *packed {
                    Some(dtype) => {
                        let index = self.expr(index, Binding::Unary);
                        self.packed_element(name, dtype, &index)
                    }
                    None => {
                        let index = self.expr(index, Binding::Ternary);
                        (format!("{name}[{index}]"), Binding::Whole)
                    }
                }
            }
            Expr::Load(buffer, index) => {
                let buffer = &kernel.buffers[buffer.index()];
                self.loaded(&buffer.name, buffer.dtype, index)
            }
            Expr::LoadShared(shared, index) => {
                let shared = &kernel.shared[shared.index()];
                self.loaded(&self.dialect.shared_name(shared), shared.dtype, index)
            }
            Expr::Integer(_)
            | Expr::Number(..)
            | Expr::Index(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::MulAdd(..)
            | Expr::Select(_)
            | Expr::Convert(..) => return None,
        })
    }
}

/// The block's number along an axis of a grid that is launched along one axis.
fn flat_block(kernel: &Kernel, axis: usize) -> String {
    let [x, y, _] = kernel.grid;
    match axis {
        0 => format!("blockIdx.x % {x}"),
        1 => format!("blockIdx.x / {x} % {y}"),
        _ => format!("blockIdx.x / {}", u64::from(x) * u64::from(y)),
    }
}
