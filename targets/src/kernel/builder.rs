//! Makes kernels, with indices simplified as far as they are known.

use std::collections::{HashMap, HashSet};

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::names::name_of;
use super::terms::Counters;
use super::{Buffer, BufferId, Expr, ExprId, Factor, IndexFn, Kernel, Scalar, Shared, SharedId, Stmt, Var, VarId};
use crate::number::FoldFn;

/// A kernel that is being made.
pub struct Builder {
    kernel: Kernel,
    /// Expressions that are there already; what is read from memory is read anew.
    known: HashMap<Expr, ExprId>,
    /// Names that are taken.
    names: HashSet<String>,
    /// What is known of the indices of loops.
    counters: Counters,
}

impl Builder {
    /// A kernel of blocks of so many threads, without blocks yet.
    pub fn new(name: &str, threads: u32) -> Self {
        let kernel = Kernel {
            name: name.to_owned(),
            about: Vec::new(),
            grid: [0, 1, 1],
            threads,
            in_turn: false,
            buffers: Vec::new(),
            shared: Vec::new(),
            vars: Vec::new(),
            exprs: Vec::new(),
            body: Vec::new(),
        };
        Builder { kernel, known: HashMap::new(), names: HashSet::new(), counters: Counters::default() }
    }

    /// The kernel, for so many blocks.
    pub fn finish(mut self, grid: [u32; 3], about: Vec<String>) -> Kernel {
        self.kernel.grid = grid;
        self.kernel.about = about;
        self.kernel
    }

    /// Has blocks follow each other, and find in shared memory what those before them have left there.
    pub fn in_turn(&mut self) {
        self.kernel.in_turn = true;
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.kernel.threads
    }

    /// A name that nothing else has in this kernel.
    fn unique(&mut self, text: &str) -> String {
        let name = name_of(text);
        let mut again = 1;
        let mut own = name.clone();
        while !self.names.insert(own.clone()) {
            again += 1;
            own = format!("{name}_{again}");
        }
        own
    }

    /// A parameter.
    pub fn buffer(&mut self, name: &str, dtype: DType, elements: u64, is_written: bool) -> BufferId {
        let name = self.unique(name);
        self.kernel.buffers.push(Buffer { name, dtype, elements, is_written });
        BufferId(self.kernel.buffers.len() as u32 - 1)
    }

    /// An array in shared memory.
    pub fn shared(&mut self, name: &str, dtype: DType, elements: u32) -> SharedId {
        let name = self.unique(name);
        self.kernel.shared.push(Shared { name, dtype, elements });
        SharedId(self.kernel.shared.len() as u32 - 1)
    }

    fn var(&mut self, name: &str, scalar: Scalar, array: Option<u32>) -> VarId {
        let name = self.unique(name);
        self.kernel.vars.push(Var { name, scalar, array, packed: None });
        VarId(self.kernel.vars.len() as u32 - 1)
    }

    /// An expression.
    fn expr(&mut self, expr: Expr) -> ExprId {
        let reads = matches!(expr, Expr::Load(..) | Expr::LoadShared(..));
        if let (false, Some(&known)) = (reads, self.known.get(&expr)) {
            return known;
        }
        let id = ExprId(self.kernel.exprs.len() as u32);
        self.kernel.exprs.push(expr);
        self.known.insert(expr, id);
        id
    }

    fn at(&self, id: ExprId) -> Expr {
        self.kernel.exprs[id.index()]
    }

    /// An index that is known.
    pub fn integer(&mut self, value: i32) -> ExprId {
        self.expr(Expr::Integer(value))
    }

    /// The value of an index, if it is known.
    pub fn known_index(&self, id: ExprId) -> Option<i32> {
        match self.at(id) {
            Expr::Integer(value) => Some(value),
            _ => None,
        }
    }

    /// A number of a type.
    pub fn number(&mut self, dtype: DType, bits: u64) -> ExprId {
        self.expr(Expr::Number(dtype, bits))
    }

    /// A float of a type.
    pub fn float(&mut self, dtype: DType, value: f64) -> ExprId {
        self.number(dtype, value.to_bits())
    }

    /// The thread's number in its block.
    pub fn thread(&mut self) -> ExprId {
        self.expr(Expr::Thread)
    }

    /// The block's number along an axis.
    pub fn block(&mut self, axis: u8) -> ExprId {
        self.expr(Expr::Block(axis))
    }

    /// The block's number among all.
    pub fn block_number(&mut self) -> ExprId {
        self.expr(Expr::BlockNumber)
    }

    /// What a variable holds.
    pub fn get(&mut self, var: VarId) -> ExprId {
        self.expr(Expr::Var(var))
    }

    /// What an array holds.
    pub fn element(&mut self, var: VarId, index: ExprId) -> ExprId {
        self.expr(Expr::Element(var, index))
    }

    /// The part of a sum that is not known, and the part that is.
    fn parted(&self, id: ExprId) -> (ExprId, i32) {
        match self.at(id) {
            Expr::Index(IndexFn::Add, a, b) => self.known_index(b).map_or((id, 0), |b| (a, b)),
            _ => (id, 0),
        }
    }

    /// Arithmetic of indices. What is known is added last, so that indices which differ by it only have all else in common.
    pub fn index(&mut self, function: IndexFn, a: ExprId, b: ExprId) -> ExprId {
        match (function, self.known_index(a), self.known_index(b)) {
            (IndexFn::Add | IndexFn::Mul, Some(_), None) => return self.index(function, b, a),
            (IndexFn::Add, None, Some(by)) => {
                let (x, own) = self.parted(a);
                if let Some(known) = own.checked_add(by).filter(|_| own != 0) {
                    let known = self.integer(known);
                    return self.index(IndexFn::Add, x, known);
                }
            }
            (IndexFn::Add, None, None) => {
                let ((x, own), (y, other)) = (self.parted(a), self.parted(b));
                if let Some(known) = own.checked_add(other).filter(|_| own != 0 || other != 0) {
                    let sum = self.index(IndexFn::Add, x, y);
                    let known = self.integer(known);
                    return self.index(IndexFn::Add, sum, known);
                }
            }
            (IndexFn::Mul, None, Some(by)) => {
                let (x, own) = self.parted(a);
                if let Some(known) = own.checked_mul(by).filter(|_| own != 0) {
                    let product = self.index(IndexFn::Mul, x, b);
                    let known = self.integer(known);
                    return self.index(IndexFn::Add, product, known);
                }
                if let Expr::Index(IndexFn::Mul, x, y) = self.at(a)
                    && let Some(known) = self.known_index(y).and_then(|y| y.checked_mul(by))
                {
                    let known = self.integer(known);
                    return self.index(IndexFn::Mul, x, known);
                }
            }
            (IndexFn::Div | IndexFn::Mod, None, Some(by)) if by > 1 => {
                if let Some(simpler) = self.divided_by_parts(function, a, by) {
                    return simpler;
                }
            }
            _ => {}
        }
        match (self.known_index(a), self.known_index(b)) {
            (Some(x), Some(y)) => {
                if let Some(value) = function.of(x, y) {
                    return self.integer(value);
                }
            }
            (None, Some(y)) => match (function, y) {
                (IndexFn::Add | IndexFn::Sub | IndexFn::Xor | IndexFn::Or, 0) | (IndexFn::Mul | IndexFn::Div, 1) => {
                    return a;
                }
                (IndexFn::Mul | IndexFn::And, 0) | (IndexFn::Mod, 1) => return self.integer(0),
                (IndexFn::And, _) if y != 0 => return a,
                _ => {}
            },
            (Some(x), None) => match (function, x) {
                (IndexFn::Add | IndexFn::Xor | IndexFn::Or, 0) | (IndexFn::Mul, 1) => return b,
                (IndexFn::Mul | IndexFn::And | IndexFn::Div | IndexFn::Mod, 0) => return self.integer(0),
                (IndexFn::And, _) if x != 0 => return b,
                _ => {}
            },
            (None, None) => {}
        }
        self.expr(Expr::Index(function, a, b))
    }

    /// (c x + y) / c = x + y / c, and what is left of it is that of y; where y is below c, these are x and y.
    fn divided_by_parts(&mut self, function: IndexFn, a: ExprId, by: i32) -> Option<ExprId> {
        let [whole, rest] = self.counters.parted(&self.kernel, a, by)?;
        let is_below = |builder: &Self, id: ExprId| {
            builder.counters.bound(&builder.kernel, id).is_some_and(|bound| bound < i64::from(by))
        };
        let zero = self.integer(0);
        if whole.is_empty() {
            return is_below(self, a).then_some(if function == IndexFn::Div { zero } else { a });
        }
        let left = rest.into_iter().fold(zero, |sum, part| self.index(IndexFn::Add, sum, part));
        let is_left = is_below(self, left);
        let known = self.integer(by);
        if function == IndexFn::Mod {
            return Some(if is_left { left } else { self.index(IndexFn::Mod, left, known) });
        }
        let start = if is_left { zero } else { self.index(IndexFn::Div, left, known) };
        Some(whole.into_iter().fold(start, |sum, part| {
            let quotient = self.quotient(part, by);
            self.index(IndexFn::Add, sum, quotient)
        }))
    }

    /// A multiple of a number, divided by that.
    fn quotient(&mut self, part: ExprId, by: i32) -> ExprId {
        match self.at(part) {
            Expr::Integer(value) => self.integer(value / by),
            Expr::Index(IndexFn::Mul, x, c) if self.known_index(c).is_some_and(|c| c % by == 0) => {
                let c = self.known_index(c).unwrap_or(by);
                self.scaled(x, c / by)
            }
            _ => {
                let by = self.integer(by);
                self.expr(Expr::Index(IndexFn::Div, part, by))
            }
        }
    }

    /// a + b.
    pub fn add(&mut self, a: ExprId, b: ExprId) -> ExprId {
        self.index(IndexFn::Add, a, b)
    }

    /// a b for a known b.
    pub fn scaled(&mut self, a: ExprId, by: i32) -> ExprId {
        let by = self.integer(by);
        self.index(IndexFn::Mul, a, by)
    }

    /// Where something lies by its digits: for each digit behind the first, how many values it has.
    pub fn place(&mut self, first: ExprId, digits: &[(u32, ExprId)]) -> ExprId {
        digits.iter().fold(first, |place, &(extent, digit)| {
            let before = self.scaled(place, extent as i32);
            self.add(before, digit)
        })
    }

    /// The quotient of an index and a known one, and what is left.
    pub fn divided(&mut self, a: ExprId, by: i32) -> (ExprId, ExprId) {
        let by = self.integer(by);
        (self.index(IndexFn::Div, a, by), self.index(IndexFn::Mod, a, by))
    }

    /// Whether an index is below a known one.
    pub fn below(&mut self, a: ExprId, limit: i32) -> ExprId {
        let limit = self.integer(limit);
        self.index(IndexFn::Lt, a, limit)
    }

    /// A function of one operand.
    pub fn unary(&mut self, function: UnaryFn, dtype: DType, x: ExprId) -> ExprId {
        self.expr(Expr::Unary(function, dtype, x))
    }

    /// A function of two operands.
    pub fn binary(&mut self, function: BinaryFn, dtype: DType, a: ExprId, b: ExprId) -> ExprId {
        self.expr(Expr::Binary(function, dtype, a, b))
    }

    /// a b + c.
    pub fn mul_add(&mut self, dtype: DType, a: ExprId, b: ExprId, c: ExprId) -> ExprId {
        self.expr(Expr::MulAdd(dtype, [a, b, c]))
    }

    /// The second where the first is not 0, else the third.
    pub fn select(&mut self, condition: ExprId, a: ExprId, b: ExprId) -> ExprId {
        match self.known_index(condition) {
            Some(0) => b,
            Some(_) => a,
            None => self.expr(Expr::Select([condition, a, b])),
        }
    }

    /// An element of one type as one of another.
    pub fn convert(&mut self, from: DType, to: DType, x: ExprId) -> ExprId {
        if from == to && !(from.is_float() && from.bits() < 32) { x } else { self.expr(Expr::Convert(from, to, x)) }
    }

    /// What a register holds of one type as a number of another that holds all of it; it is not rounded.
    pub fn convert_register(&mut self, from: DType, to: DType, x: ExprId) -> ExprId {
        if Scalar::of(from) == Scalar::of(to) { x } else { self.expr(Expr::Convert(from, to, x)) }
    }

    /// An element of a buffer, in a variable of its own.
    pub fn load(&mut self, buffer: BufferId, index: ExprId, name: &str) -> ExprId {
        let dtype = self.kernel.buffers[buffer.index()].dtype;
        let loaded = self.expr(Expr::Load(buffer, index));
        let var = self.declare(name, Scalar::of(dtype), loaded);
        self.get(var)
    }

    /// An element of shared memory, in a variable of its own.
    pub fn load_shared(&mut self, shared: SharedId, index: ExprId, name: &str) -> ExprId {
        let dtype = self.kernel.shared[shared.index()].dtype;
        let loaded = self.expr(Expr::LoadShared(shared, index));
        let var = self.declare(name, Scalar::of(dtype), loaded);
        self.get(var)
    }

    /// A variable, with what it holds first.
    pub fn declare(&mut self, name: &str, scalar: Scalar, value: ExprId) -> VarId {
        let var = self.var(name, scalar, None);
        self.kernel.body.push(Stmt::Let(var, value));
        var
    }

    /// A value that is used again, in a variable unless it is one, or known.
    pub fn keep(&mut self, name: &str, scalar: Scalar, value: ExprId) -> ExprId {
        match self.at(value) {
            Expr::Integer(_) | Expr::Number(..) | Expr::Var(_) => value,
            _ => {
                let var = self.declare(name, scalar, value);
                self.counters.keep(&self.kernel, var, value);
                self.get(var)
            }
        }
    }

    /// An array, with what all its elements hold first.
    pub fn array(&mut self, name: &str, scalar: Scalar, elements: u32, value: ExprId) -> VarId {
        let var = self.var(name, scalar, Some(elements));
        self.kernel.body.push(Stmt::Let(var, value));
        var
    }

    /// An array for a vector of elements that stay as they are loaded until they are used. It holds zeros first.
    pub fn packed(&mut self, name: &str, dtype: DType, elements: u32) -> VarId {
        let zero = if dtype.is_float() { self.float(dtype, 0.0) } else { self.number(dtype, 0) };
        let array = self.array(name, Scalar::of(dtype), elements, zero);
        self.kernel.vars[array.index()].packed = Some(dtype);
        array
    }

    /// What a variable holds from now on.
    pub fn set(&mut self, var: VarId, value: ExprId) {
        self.kernel.body.push(Stmt::Set(var, value));
    }

    /// What an array holds at an index from now on.
    pub fn set_element(&mut self, var: VarId, index: ExprId, value: ExprId) {
        self.kernel.body.push(Stmt::SetElement(var, index, value));
    }

    /// Opens a loop over an index, which it returns.
    pub fn loop_over(&mut self, name: &str, from: ExprId, to: ExprId, step: u32) -> ExprId {
        self.open_loop(name, (from, to, step), false)
    }

    /// Opens a loop over known indices from 0 on that is written out.
    pub fn unrolled(&mut self, name: &str, count: u32) -> ExprId {
        let (from, to) = (self.integer(0), self.integer(count as i32));
        self.open_loop(name, (from, to, 1), true)
    }

    fn open_loop(&mut self, name: &str, (from, to, step): (ExprId, ExprId, u32), unroll: bool) -> ExprId {
        let var = self.var(name, Scalar::I32, None);
        self.counters.insert(&self.kernel, var, (from, to, step));
        self.kernel.body.push(Stmt::For { var, from, to, step, unroll });
        self.get(var)
    }

    /// Opens a scope for threads where a condition holds.
    pub fn when(&mut self, condition: ExprId) {
        self.kernel.body.push(Stmt::If(condition));
    }

    /// Goes on with the other threads.
    pub fn otherwise(&mut self) {
        self.kernel.body.push(Stmt::Else);
    }

    /// Closes a scope.
    pub fn end(&mut self) {
        self.kernel.body.push(Stmt::End);
    }

    /// Writes an element of a buffer.
    pub fn store(&mut self, buffer: BufferId, index: ExprId, value: ExprId) {
        self.kernel.body.push(Stmt::Store(buffer, index, value));
    }

    /// Writes an element of shared memory.
    pub fn store_shared(&mut self, shared: SharedId, index: ExprId, value: ExprId) {
        self.kernel.body.push(Stmt::StoreShared(shared, index, value));
    }

    /// Where the next statement will stand.
    pub fn mark(&self) -> usize {
        self.kernel.body.len()
    }

    /// Has all that stands behind a mark read from global memory before it makes anything of what it has read, so that reads do
    /// not wait for each other. Where it has scopes or sets variables, everything stays where it is.
    pub fn reads_first(&mut self, mark: usize) {
        let behind = &self.kernel.body[mark..];
        let is_plain = |stmt: &Stmt| match *stmt {
            Stmt::Let(var, _) => self.kernel.vars[var.index()].array.is_none(),
            Stmt::SetElement(..) | Stmt::Store(..) | Stmt::StoreShared(..) => true,
            _ => false,
        };
        if !behind.iter().all(is_plain) {
            return;
        }
        let mut late: HashSet<VarId> = HashSet::new();
        let mut is_early = |stmt: &Stmt| {
            let Stmt::Let(var, value) = *stmt else { return false };
            let (mut open, mut seen) = (vec![value], HashSet::new());
            let (mut reads, mut waits) = (self.kernel.vars[var.index()].scalar == Scalar::I32, false);
            while let Some(id) = open.pop() {
                let expr = self.at(id);
                match expr {
                    Expr::Load(buffer, _) => reads |= !self.kernel.buffers[buffer.index()].is_written,
                    Expr::Var(var) => waits |= late.contains(&var),
                    Expr::Element(..) | Expr::LoadShared(..) => waits = true,
                    _ => {}
                }
                open.extend(expr.operands().filter(|operand| seen.insert(*operand)));
            }
            if !reads || waits {
                late.insert(var);
            }
            reads && !waits
        };
        let (first, then): (Vec<Stmt>, Vec<Stmt>) = behind.iter().partition(|stmt| is_early(stmt));
        self.kernel.body.truncate(mark);
        self.kernel.body.extend(first.into_iter().chain(then));
    }

    /// Adds a statement that needs nothing else.
    pub fn push(&mut self, stmt: Stmt) {
        self.kernel.body.push(stmt);
    }

    /// Adds the products of tiles in shared memory to sums.
    pub fn multiply(&mut self, sums: VarId, tile: [u32; 3], a: Factor, b: Factor, b_by_rows: bool) {
        self.push(Stmt::Multiply { sums, tile, a, b, b_by_rows });
    }

    /// Waits for all threads of the block.
    pub fn barrier(&mut self) {
        self.kernel.body.push(Stmt::Barrier);
    }

    /// Whether the block is the last along an axis of the grid to come here.
    pub fn arrive(&mut self, name: &str, counters: BufferId, axis: u8, scratch: SharedId) -> ExprId {
        let var = self.var(name, Scalar::I32, None);
        self.kernel.body.push(Stmt::Arrive { var, counters, axis, scratch });
        self.get(var)
    }

    /// Combines what a variable holds over so many neighbouring threads.
    pub fn reduce(&mut self, var: VarId, function: FoldFn, dtype: DType, width: u32, scratch: SharedId) {
        if width > 1 {
            self.kernel.body.push(Stmt::Reduce { var, function, dtype, width, scratch });
        }
    }
}

impl IndexFn {
    /// The result for two indices; `None` for a quotient by 0, or what is no index.
    pub fn of(self, a: i32, b: i32) -> Option<i32> {
        Some(match self {
            IndexFn::Add => a.checked_add(b)?,
            IndexFn::Sub => a.checked_sub(b)?,
            IndexFn::Mul => a.checked_mul(b)?,
            IndexFn::Div => a.checked_div(b)?,
            IndexFn::Mod => a.checked_rem(b)?,
            IndexFn::Min => a.min(b),
            IndexFn::Max => a.max(b),
            IndexFn::Xor => a ^ b,
            IndexFn::Lt => i32::from(a < b),
            IndexFn::Ge => i32::from(a >= b),
            IndexFn::Eq => i32::from(a == b),
            IndexFn::And => i32::from(a != 0 && b != 0),
            IndexFn::Or => i32::from(a != 0 || b != 0),
        })
    }
}
