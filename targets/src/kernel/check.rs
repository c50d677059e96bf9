//! Whether a kernel can be run: names, types, scopes and sizes. Whatever passes can be executed and written as code; where its
//! indices lead is found out when they are computed.

use tcc_ir::DType;

use super::names::is_name;
use super::{Buffer, BufferId, Expr, ExprId, Factor, Kernel, Scalar, Shared, SharedId, Stmt, Var, VarId};
use crate::number::{binary_is_defined, unary_is_defined};

/// Most threads of a block that any machine has.
pub const MAX_THREADS: u32 = 1024;

/// Deepest nesting of scopes.
const MAX_DEPTH: usize = 64;

/// Most elements that are written out for one kernel, in arrays and unrolled loops.
const MAX_UNROLLED: u64 = 1 << 16;

/// What is wrong with a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel `{kernel}`: {what}")]
pub struct KernelError {
    /// The kernel.
    pub kernel: String,
    /// What is wrong.
    pub what: String,
}

/// Looks at a kernel, whoever made it.
///
/// # Errors
/// It cannot be run.
pub fn check(kernel: &Kernel) -> Result<(), KernelError> {
    let checker = Checker::new(kernel);
    checker.check().map_err(|what| KernelError { kernel: kernel.name.clone(), what })
}

/// What each expression of a kernel holds, which must have passed [`check`].
pub fn scalars(kernel: &Kernel) -> Vec<Scalar> {
    let mut checker = Checker::new(kernel);
    for expr in &kernel.exprs {
        let scalar = checker.scalar(expr).unwrap_or(Scalar::I32);
        checker.scalars.push(scalar);
    }
    checker.scalars
}

struct Checker<'k> {
    kernel: &'k Kernel,
    scalars: Vec<Scalar>,
    /// The variable that says whether the block arrived last, if there is one.
    arrived: Option<VarId>,
    /// Which buffers are read although they are written.
    handed: Vec<bool>,
}

/// A scope that is open.
struct Scope {
    /// Whether it may be followed by one for the other threads.
    is_if: bool,
    /// Variables that it has declared.
    declared: Vec<VarId>,
    /// The index of a loop that is written out, and how often what is in the scope is written.
    unrolled: Option<VarId>,
    copies: u64,
    /// Whether all threads come here.
    uniform: bool,
    /// Whether only blocks come here that arrived last.
    last: bool,
}

impl<'k> Checker<'k> {
    fn new(kernel: &'k Kernel) -> Self {
        let arrived = kernel.body.iter().find_map(|stmt| match *stmt {
            Stmt::Arrive { var, .. } => Some(var),
            _ => None,
        });
        Checker { kernel, scalars: Vec::with_capacity(kernel.exprs.len()), arrived, handed: kernel.handed_over() }
    }
}

impl Checker<'_> {
    fn check(mut self) -> Result<(), String> {
        let kernel = self.kernel;
        if !(1..=MAX_THREADS).contains(&kernel.threads) {
            return Err(format!("{} threads, but a block has 1 to {MAX_THREADS}", kernel.threads));
        }
        let blocks = kernel.grid.iter().try_fold(1u32, |all, &blocks| all.checked_mul(blocks));
        if blocks.is_none_or(|blocks| blocks == 0 || blocks > i32::MAX as u32) {
            return Err(format!("a grid of {:?}, but there are 1 to 2^31 - 1 blocks", kernel.grid));
        }
        if kernel.in_turn && kernel.body.iter().any(|stmt| matches!(stmt, Stmt::Arrive { .. })) {
            return Err("its blocks follow each other, and there is no last one to arrive".to_owned());
        }
        self.check_names()?;
        for (index, expr) in kernel.exprs.iter().enumerate() {
            if expr.operands().any(|operand| operand.index() >= index) {
                return Err(format!("expression {index} is computed from what comes after it"));
            }
            let scalar = self.scalar(expr).map_err(|what| format!("expression {index}: {what}"))?;
            self.scalars.push(scalar);
        }
        self.check_body()
    }

    fn check_names(&self) -> Result<(), String> {
        let kernel = self.kernel;
        // Not every language reads narrower elements past all caches.
        let is_narrow = |(buffer, handed): (&Buffer, &bool)| *handed && buffer.dtype.bits() < 32;
        if kernel.buffers.iter().zip(&self.handed).any(is_narrow) {
            return Err("blocks hand over elements of less than 32 bits".to_owned());
        }
        let buffers = kernel.buffers.iter().map(|Buffer { name, .. }| name);
        let shared = kernel.shared.iter().map(|Shared { name, .. }| name);
        let vars = kernel.vars.iter().map(|var| &var.name);
        let mut names: Vec<&String> = buffers.chain(shared).chain(vars).collect();
        if let Some(name) = names.iter().copied().chain([&kernel.name]).find(|name| !is_name(name)) {
            return Err(format!("{name:?} is no name"));
        }
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two things are called `{}`", pair[0]));
        }
        let too_large = |buffer: &&Buffer| buffer.elements == 0 || buffer.elements > i32::MAX as u64;
        if let Some(buffer) = kernel.buffers.iter().find(too_large) {
            return Err(format!("buffer `{}` has {} elements, but indices go to 2^31", buffer.name, buffer.elements));
        }
        if let Some(shared) = kernel.shared.iter().find(|shared| shared.elements == 0 || shared.dtype.bits() < 8) {
            return Err(format!("shared array `{}` has elements of {} bits", shared.name, shared.dtype.bits()));
        }
        let arrays: u64 = kernel.vars.iter().map(|var| u64::from(var.array.unwrap_or(1))).sum();
        if arrays > MAX_UNROLLED || kernel.vars.iter().any(|var| var.array == Some(0)) {
            return Err(format!("{arrays} registers are more than any machine has, or an array is empty"));
        }
        Ok(())
    }

    fn of(&self, id: ExprId) -> Scalar {
        self.scalars[id.index()]
    }

    fn expect(&self, id: ExprId, scalar: Scalar) -> Result<(), String> {
        let found = self.of(id);
        if found == scalar { Ok(()) } else { Err(format!("an operand is {found:?}, but must be {scalar:?}")) }
    }

    /// What an expression holds, given what those before it hold.
    fn scalar(&self, expr: &Expr) -> Result<Scalar, String> {
        let kernel = self.kernel;
        Ok(match *expr {
            Expr::Integer(_) | Expr::Thread => Scalar::I32,
            Expr::BlockNumber => Scalar::I32,
            Expr::Block(axis) if axis < 3 => Scalar::I32,
            Expr::Block(axis) => return Err(format!("a grid has no axis {axis}")),
            Expr::Number(dtype, _) => Scalar::of(dtype),
            Expr::Var(var) => match kernel.vars.get(var.index()) {
                Some(var) if var.array.is_none() => var.scalar,
                _ => return Err("it reads what is no single variable".to_owned()),
            },
            Expr::Element(var, index) => {
                self.expect(index, Scalar::I32)?;
                match kernel.vars.get(var.index()) {
                    Some(var) if var.array.is_some() => var.scalar,
                    _ => return Err("it reads an element of what is no array".to_owned()),
                }
            }
            Expr::Index(_, a, b) => {
                self.expect(a, Scalar::I32)?;
                self.expect(b, Scalar::I32)?;
                Scalar::I32
            }
            Expr::Unary(function, dtype, x) => {
                self.expect(x, Scalar::of(dtype))?;
                if !unary_is_defined(function, dtype) {
                    return Err(format!("{} is not defined on {dtype}", function.name()));
                }
                if function.is_predicate() { Scalar::I32 } else { Scalar::of(dtype) }
            }
            Expr::Binary(function, dtype, a, b) => {
                self.expect(a, Scalar::of(dtype))?;
                self.expect(b, Scalar::of(dtype))?;
                if !binary_is_defined(function, dtype) {
                    return Err(format!("{} is not defined on {dtype}", function.name()));
                }
                if function.is_comparison() { Scalar::I32 } else { Scalar::of(dtype) }
            }
            Expr::MulAdd(dtype, operands) => {
                operands.iter().try_for_each(|&operand| self.expect(operand, Scalar::of(dtype)))?;
                Scalar::of(dtype)
            }
            Expr::Select([condition, a, b]) => {
                self.expect(condition, Scalar::I32)?;
                self.expect(b, self.of(a))?;
                self.of(a)
            }
            Expr::Convert(from, to, x) => {
                self.expect(x, Scalar::of(from))?;
                Scalar::of(to)
            }
            Expr::Load(buffer, index) => {
                self.expect(index, Scalar::I32)?;
                match kernel.buffers.get(buffer.index()) {
                    Some(buffer) => Scalar::of(buffer.dtype),
                    _ => return Err("it reads what is no buffer for that".to_owned()),
                }
            }
            Expr::LoadShared(shared, index) => {
                self.expect(index, Scalar::I32)?;
                let shared = kernel.shared.get(shared.index()).ok_or("it reads a shared array that is not there")?;
                Scalar::of(shared.dtype)
            }
        })
    }

    fn check_body(&self) -> Result<(), String> {
        let kernel = self.kernel;
        let mut declared = vec![false; kernel.vars.len()];
        let scope = |is_if, unrolled, copies, uniform, last| Scope {
            is_if,
            declared: Vec::new(),
            unrolled,
            copies,
            uniform,
            last,
        };
        let mut scopes = vec![scope(false, None, 1, true, false)];
        let mut has_arrived = false;
        let mut written = 0u64;
        for (place, stmt) in kernel.body.iter().enumerate() {
            let at = |what: &str| format!("statement {place}: {what}");
            let Some(open) = scopes.last() else { return Err(at("a scope is closed that is not open")) };
            let (copies, uniform, last) = (open.copies, open.uniform, open.last);
            written = written.saturating_add(copies);
            if written > MAX_UNROLLED {
                return Err("it is too long when its loops are written out".to_owned());
            }
            for operand in stmt.operands() {
                self.check_reads(operand, &declared, &scopes).map_err(|what| at(&what))?;
            }
            let holds = |id: ExprId, scalar: Scalar| self.expect(id, scalar).map_err(|what| at(&what));
            let var =
                |id: VarId| kernel.vars.get(id.index()).ok_or_else(|| at("it names a variable that is not there"));
            match *stmt {
                Stmt::Let(id, value) => {
                    holds(value, var(id)?.scalar)?;
                    let count = var(id)?.array.unwrap_or(1);
                    let fills = |dtype: DType| is_vector(dtype, count) || is_part(dtype, count);
                    if var(id)?.packed.is_some_and(|dtype| !fills(dtype) || !self.is_zero(value)) {
                        return Err(at("an array that vectors are loaded into holds something else"));
                    }
                    if std::mem::replace(&mut declared[id.index()], true) {
                        return Err(at("a variable is declared again"));
                    }
                    if let Some(open) = scopes.last_mut() {
                        open.declared.push(id);
                    }
                }
                Stmt::Set(id, value) => {
                    holds(value, var(id)?.scalar)?;
                    let is_index = scopes.iter().any(|scope| scope.unrolled == Some(id)) || self.arrived == Some(id);
                    if !declared[id.index()] || var(id)?.array.is_some() || is_index {
                        return Err(at("it sets what is no variable here"));
                    }
                }
                Stmt::SetElement(id, index, value) => {
                    holds(value, var(id)?.scalar)?;
                    holds(index, Scalar::I32)?;
                    self.check_constant(index, &scopes).map_err(|what| at(&what))?;
                    if !declared[id.index()] || var(id)?.array.is_none() || var(id)?.packed.is_some() {
                        return Err(at("it sets an element of what is no array here"));
                    }
                }
                Stmt::For { var: id, from, to, step, unroll } => {
                    holds(from, Scalar::I32)?;
                    holds(to, Scalar::I32)?;
                    if var(id)?.scalar != Scalar::I32 || var(id)?.array.is_some() || step == 0 || step > i32::MAX as u32
                    {
                        return Err(at("a loop counts by what is no index"));
                    }
                    if std::mem::replace(&mut declared[id.index()], true) {
                        return Err(at("a variable is declared again"));
                    }
                    let times = match (unroll, self.constant(from), self.constant(to)) {
                        (false, ..) => 1,
                        (true, Some(from), Some(to)) => {
                            (i64::from(to) - i64::from(from)).max(0) as u64 / u64::from(step) + 1
                        }
                        (true, ..) => return Err(at("a loop is written out whose ends are not known")),
                    };
                    let copies = copies.saturating_mul(times);
                    let mut opened = scope(
                        false,
                        unroll.then_some(id),
                        copies,
                        uniform && self.is_uniform(from) && self.is_uniform(to),
                        last,
                    );
                    opened.declared.push(id);
                    scopes.push(opened);
                }
                Stmt::If(condition) => {
                    holds(condition, Scalar::I32)?;
                    let arrived = self.arrived.map(Expr::Var);
                    let last = last || arrived == Some(kernel.exprs[condition.index()]);
                    scopes.push(scope(true, None, copies, uniform && self.is_uniform(condition), last));
                }
                Stmt::Else | Stmt::End => {
                    let closed = scopes.pop().filter(|_| !scopes.is_empty());
                    let closed = closed.ok_or_else(|| at("a scope is closed that is not open"))?;
                    closed.declared.iter().for_each(|id| declared[id.index()] = false);
                    if *stmt == Stmt::Else {
                        if !closed.is_if {
                            return Err(at("there is no `if` that this is the rest of"));
                        }
                        let last = scopes.last().is_some_and(|open| open.last);
                        scopes.push(scope(false, None, closed.copies, closed.uniform, last));
                    }
                }
                Stmt::Store(buffer, index, value) => {
                    holds(index, Scalar::I32)?;
                    match kernel.buffers.get(buffer.index()) {
                        Some(buffer) if buffer.is_written && buffer.dtype.bits() >= 8 => {
                            holds(value, Scalar::of(buffer.dtype))?;
                        }
                        _ => return Err(at("it writes what is no buffer for that")),
                    }
                    self.check_writes(buffer, has_arrived).map_err(|what| at(&what))?;
                }
                Stmt::StoreShared(shared, index, value) => {
                    holds(index, Scalar::I32)?;
                    let shared =
                        kernel.shared.get(shared.index()).ok_or_else(|| at("there is no such shared array"))?;
                    holds(value, Scalar::of(shared.dtype))?;
                }
                Stmt::LoadVector { array, to, buffer, from, count } => {
                    holds(from, Scalar::I32)?;
                    if !self.may_read(buffer, last) {
                        return Err(at("it reads what is no buffer for that"));
                    }
                    let dtype = kernel.buffers[buffer.index()].dtype;
                    self.check_vector((array, to, count), dtype, &declared, &scopes).map_err(|what| at(&what))?;
                }
                Stmt::Dequantize { array, packed, first, count, zero, scale, dtype } => {
                    let [to, from] = [var(array)?, var(packed)?];
                    let is_there = declared[array.index()] && declared[packed.index()];
                    let holds_all = from.array.zip(first.checked_add(count)).is_some_and(|(all, end)| end <= all)
                        && to.packed.is_none()
                        && to.array.is_some_and(|all| count <= all);
                    let is_whole = |dtype: DType| {
                        let each = 32 / dtype.bits() as u32;
                        is_narrow(dtype) && first.is_multiple_of(each) && count.is_multiple_of(each)
                    };
                    let fits = is_there && holds_all && count > 0 && from.packed.is_some_and(is_whole);
                    if !fits || to.scalar != Scalar::F32 || !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
                        return Err(at("it makes floats of what holds no integers"));
                    }
                    zero.map_or(Ok(()), |zero| holds(zero, Scalar::I32))?;
                    scale.map_or(Ok(()), |scale| holds(scale, Scalar::F32))?;
                }
                Stmt::StoreVector { buffer, to, array, from, count } => {
                    holds(to, Scalar::I32)?;
                    let target = kernel.buffers.get(buffer.index()).filter(|buffer| buffer.is_written);
                    let dtype = target.map(|buffer| buffer.dtype).ok_or_else(|| at("it writes what is no buffer"))?;
                    self.check_writes(buffer, has_arrived).map_err(|what| at(&what))?;
                    self.check_vector((array, from, count), dtype, &declared, &scopes).map_err(|what| at(&what))?;
                    if !is_vector(dtype, count) {
                        return Err(at("it writes what is no vector"));
                    }
                }
                Stmt::Copy { shared, to, buffer, from, count, when } => {
                    [to, from, when].into_iter().try_for_each(|id| holds(id, Scalar::I32))?;
                    let buffer = kernel.buffers.get(buffer.index()).filter(|buffer| !buffer.is_written);
                    let fits = match (kernel.shared.get(shared.index()), buffer) {
                        (Some(shared), Some(buffer)) => shared.dtype == buffer.dtype && is_vector(buffer.dtype, count),
                        _ => false,
                    };
                    if !fits {
                        return Err(at("it copies what it cannot"));
                    }
                }
                Stmt::Commit | Stmt::Await(_) if uniform => {}
                Stmt::Commit | Stmt::Await(_) => return Err(at("not all threads wait for copies")),
                Stmt::Multiply { sums, tile, a, b, .. } => {
                    [a.at, b.at].into_iter().try_for_each(|id| holds(id, Scalar::I32))?;
                    let fits = declared.get(sums.index()) == Some(&true) && self.multiplies(sums, tile, a, b);
                    if !(uniform && fits) {
                        return Err(at("it multiplies what no matrix unit does"));
                    }
                }
                Stmt::Arrive { var: id, counters, axis, scratch } => {
                    if scopes.len() != 1 || has_arrived {
                        return Err(at("blocks arrive once, and in no scope"));
                    }
                    let is_index = var(id)?.scalar == Scalar::I32 && var(id)?.array.is_none();
                    if !(is_index && self.counts(counters, axis, scratch)) {
                        return Err(at("blocks arrive by what does not count them"));
                    }
                    if std::mem::replace(&mut declared[id.index()], true) {
                        return Err(at("a variable is declared again"));
                    }
                    has_arrived = true;
                }
                Stmt::Prefetch { buffer, region, threads } => {
                    let buffer = kernel.buffers.get(buffer.index()).filter(|buffer| !buffer.is_written);
                    let has = |buffer: &Buffer| {
                        region.end() <= buffer.elements.saturating_mul(buffer.dtype.bits() as u64) / 8
                    };
                    let is_region =
                        region.rows > 0 && region.width > 0 && (region.rows == 1 || region.pitch >= region.width);
                    // Lines and threads are counted by indices.
                    let counted = region.bytes().max(kernel.blocks().saturating_mul(u64::from(kernel.threads)));
                    let is_counted = counted <= i32::MAX as u64 && (1..=kernel.threads).contains(&threads);
                    if scopes.len() != 1 || !(is_region && is_counted && buffer.is_some_and(has)) {
                        return Err(at("it asks for what is not there"));
                    }
                }
                Stmt::Barrier if uniform => {}
                Stmt::Barrier => return Err(at("not all threads come to a barrier")),
                Stmt::Reduce { var: id, dtype, width, scratch, .. } => {
                    let divides = width.is_power_of_two() && kernel.threads.is_multiple_of(width);
                    let scratch = kernel.shared.get(scratch.index());
                    let holds_all =
                        |scratch: &Shared| scratch.elements >= kernel.threads && wide(dtype) == scratch.dtype;
                    let fits = var(id)?.scalar == Scalar::of(dtype) && var(id)?.array.is_none() && declared[id.index()];
                    let fits = fits && self.arrived != Some(id);
                    if !(uniform && divides && fits && scratch.is_some_and(holds_all)) {
                        return Err(at("threads cannot combine what they hold"));
                    }
                }
            }
        }
        if scopes.len() == 1 { Ok(()) } else { Err("a scope is not closed".to_owned()) }
    }

    /// Whether a buffer may be read: one that is written only by blocks that arrived last.
    fn may_read(&self, buffer: BufferId, last: bool) -> bool {
        self.kernel.buffers.get(buffer.index()).is_some_and(|buffer| last || !buffer.is_written)
    }

    /// Whether a buffer may be written: one that is read too only before blocks arrive.
    fn check_writes(&self, buffer: BufferId, has_arrived: bool) -> Result<(), String> {
        let is_handed = self.handed.get(buffer.index()) == Some(&true);
        let counts = self.kernel.arrival().is_some_and(|arrival| arrival.counters == buffer);
        if counts || is_handed && has_arrived {
            return Err("it writes what others read or count by".to_owned());
        }
        Ok(())
    }

    /// Whether blocks can arrive along an axis by some counters.
    fn counts(&self, counters: BufferId, axis: u8, scratch: SharedId) -> bool {
        let kernel = self.kernel;
        let buffer = kernel.buffers.get(counters.index());
        let scratch = kernel.shared.get(scratch.index());
        axis < 3
            && self.handed.get(counters.index()) == Some(&false)
            && scratch.is_some_and(|scratch| scratch.dtype == DType::I32)
            && buffer.is_some_and(|buffer| {
                let is_counter = buffer.is_written && buffer.dtype == DType::U32;
                is_counter && buffer.elements >= kernel.counters(usize::from(axis))
            })
    }

    /// Looks at a vector in an array.
    fn check_vector(
        &self,
        (array, index, count): (VarId, ExprId, u32),
        dtype: DType,
        declared: &[bool],
        scopes: &[Scope],
    ) -> Result<(), String> {
        self.expect(index, Scalar::I32)?;
        self.check_constant(index, scopes)?;
        let var = self.kernel.vars.get(array.index()).filter(|_| declared[array.index()]);
        // What is held as it is loaded is one vector.
        let is_whole =
            |var: &Var| var.packed == Some(dtype) && var.array == Some(count) && self.constant(index) == Some(0);
        let fits = var.is_some_and(|var| {
            var.array.is_some() && var.scalar == Scalar::of(dtype) && (var.packed.is_none() || is_whole(var))
        });
        // Parts of words are only loaded as they are.
        let is_part = is_part(dtype, count) && var.is_some_and(|var| var.packed.is_some());
        if fits && (is_vector(dtype, count) || is_part) { Ok(()) } else { Err("it is no vector".to_owned()) }
    }

    /// Whether an expression is the number 0.
    fn is_zero(&self, id: ExprId) -> bool {
        matches!(self.kernel.exprs.get(id.index()), Some(Expr::Number(_, 0)))
    }

    /// Whether a matrix unit multiplies tiles of this size and type.
    fn multiplies(&self, sums: VarId, [rows, columns, depth]: [u32; 3], a: Factor, b: Factor) -> bool {
        let kernel = self.kernel;
        let dtypes = [a, b].map(|factor| kernel.shared.get(factor.shared.index()).map(|shared| shared.dtype));
        let [Some(a), Some(b)] = dtypes else { return false };
        let step = match (a, b) {
            (DType::F16, DType::F16) | (DType::BF16, DType::BF16) => 16,
            (DType::F32, DType::F32) => 8,
            (DType::I8 | DType::U8, DType::I8 | DType::U8) => 32,
            _ => return false,
        };
        let scalar = if a.is_float() { Scalar::F32 } else { Scalar::I32 };
        let sizes = rows.is_multiple_of(16) && columns.is_multiple_of(16) && depth.is_multiple_of(step);
        let most = [rows, columns, depth].iter().all(|&size| (1..=256).contains(&size));
        // Warps of 32 lanes have twice as many sums as those of 64.
        let count = |warp: u32| Some(rows * columns / warp);
        let holds = kernel
            .vars
            .get(sums.index())
            .is_some_and(|var| var.scalar == scalar && (var.array == count(32) || var.array == count(64)));
        sizes && most && holds && kernel.threads.is_multiple_of(32)
    }

    /// Whether all threads of a block have the same: nothing in it follows from the thread, a variable or memory.
    fn is_uniform(&self, id: ExprId) -> bool {
        let expr = &self.kernel.exprs[id.index()];
        match expr {
            Expr::Thread | Expr::Load(..) | Expr::LoadShared(..) | Expr::Element(..) => false,
            Expr::Var(var) => self.arrived == Some(*var) || self.is_counter(*var),
            _ => expr.operands().all(|operand| self.is_uniform(operand)),
        }
    }

    /// Whether a variable is the index of a loop that is the same for all threads.
    fn is_counter(&self, var: VarId) -> bool {
        // Declared once, so that what the ends of a loop read is declared before it: nothing goes round in circles.
        let mut loops = self.kernel.body.iter().filter_map(|stmt| match *stmt {
            Stmt::For { var: own, from, to, .. } if own == var => Some(Some((from, to))),
            Stmt::Let(own, _) if own == var => Some(None),
            _ => None,
        });
        let (first, is_only) = (loops.next().flatten(), loops.next().is_none());
        let is_set = |stmt: &Stmt| matches!(*stmt, Stmt::Set(own, _) if own == var);
        let same = |id: ExprId| self.is_uniform(id);
        is_only && first.is_some_and(|(from, to)| same(from) && same(to)) && !self.kernel.body.iter().any(is_set)
    }

    fn constant(&self, id: ExprId) -> Option<i32> {
        match self.kernel.exprs[id.index()] {
            Expr::Integer(value) => Some(value),
            _ => None,
        }
    }

    /// Whether an index is known when the kernel is compiled.
    fn check_constant(&self, id: ExprId, scopes: &[Scope]) -> Result<(), String> {
        let expr = &self.kernel.exprs[id.index()];
        let known = match expr {
            Expr::Integer(_) => true,
            Expr::Var(var) => scopes.iter().any(|scope| scope.unrolled == Some(*var)),
            Expr::Index(..) => return expr.operands().try_for_each(|operand| self.check_constant(operand, scopes)),
            _ => false,
        };
        if known { Ok(()) } else { Err("an index of an array is not known when the kernel is compiled".to_owned()) }
    }

    /// Whether all variables that an expression reads are there.
    fn check_reads(&self, id: ExprId, declared: &[bool], scopes: &[Scope]) -> Result<(), String> {
        let mut open = vec![(id, 0)];
        let mut count = 0u64;
        while let Some((id, depth)) = open.pop() {
            let expr = self.kernel.exprs.get(id.index()).ok_or("it computes an expression that is not there")?;
            count += 1;
            if depth > MAX_DEPTH || count > MAX_UNROLLED {
                return Err("an expression is too large".to_owned());
            }
            if let Expr::Var(var) | Expr::Element(var, _) = expr
                && !declared[var.index()]
            {
                return Err(format!("`{}` is read where it is not declared", self.kernel.vars[var.index()].name));
            }
            if let Expr::Element(_, index) = expr {
                self.check_constant(*index, scopes)?;
            }
            if let Expr::Load(buffer, _) = expr
                && !self.may_read(*buffer, scopes.last().is_some_and(|scope| scope.last))
            {
                return Err("it reads what it writes before blocks have arrived".to_owned());
            }
            open.extend(expr.operands().map(|operand| (operand, depth + 1)));
        }
        if scopes.len() > MAX_DEPTH { Err("scopes are nested too deeply".to_owned()) } else { Ok(()) }
    }
}

/// Whether elements are integers of at most eight bits.
fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::I4 | DType::U4 | DType::I8 | DType::U8)
}

/// Whether so many elements are read or written at once.
fn is_vector(dtype: DType, count: u32) -> bool {
    let bits = u64::from(count) * dtype.bits() as u64;
    matches!(bits, 32 | 64 | 128) && count > 0
}

/// Whether so many elements are a byte, or two.
fn is_part(dtype: DType, count: u32) -> bool {
    matches!(u64::from(count) * dtype.bits() as u64, 8 | 16)
}

/// The type that a register's elements have in memory.
pub(crate) fn wide(dtype: DType) -> DType {
    match Scalar::of(dtype) {
        Scalar::I32 => DType::I32,
        Scalar::U32 => DType::U32,
        Scalar::I64 => DType::I64,
        Scalar::U64 => DType::U64,
        Scalar::F32 => DType::F32,
        Scalar::F64 => DType::F64,
    }
}
