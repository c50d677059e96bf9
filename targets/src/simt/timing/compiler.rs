//! Expands kernels into what warps go through.
//!
//! What a compiler for the machine is known to do is done here too: an expression is computed once in its scope, what does not
//! change in a loop is computed before it, loops that are to be written out are, constants are folded, and constants that are
//! added to an index are a part of the access. Loops that are not marked are not unrolled, and instructions stay in the order
//! of the kernel.

use std::collections::HashMap;

use super::analysis::{Analysis, assigned};
use super::code::{Access, Address, Code, Compiled, Instruction, NOTHING, Slot, Source, Space};
use super::recipe::{self, Recipe};
use super::registers::Lives;
use super::resource::Unit;
use crate::simt::kernel::check::scalars;
use crate::simt::kernel::{Expr, ExprId, IndexFn, Kernel, Scalar, Stmt, VarId};
use crate::simt::simulator::ends;

/// Expands a kernel, which must have passed [`check`](crate::simt::kernel::check::check).
pub(super) fn compile(kernel: &Kernel, warp: u32) -> Compiled {
    let mut first = kernel.exprs.len() as u32;
    let mut vars = Vec::with_capacity(kernel.vars.len());
    for var in &kernel.vars {
        vars.push(first);
        first += var.array.unwrap_or(1);
    }
    let mut offsets = Vec::new();
    let mut offset = 0;
    for shared in &kernel.shared {
        offsets.push(offset);
        offset += shared.bytes();
    }
    let mut compiler = Compiler {
        kernel,
        warp,
        analysis: Analysis::new(kernel),
        scalars: scalars(kernel),
        ends: ends(&kernel.body),
        vars,
        offsets,
        is_there: vec![false; kernel.exprs.len()],
        scopes: vec![Vec::new()],
        addresses: HashMap::new(),
        counters: HashMap::new(),
        lives: Lives::default(),
        compiled: Compiled { slots: first as usize, ..Compiled::default() },
    };
    compiler.statements(0, kernel.body.len());
    // The end is an instruction too.
    compiler.issue(Unit::Control, [NOTHING; 3], NOTHING, None);
    compiler.compiled.registers = compiler.lives.most();
    compiler.compiled
}

/// What an address is computed from: the memory, and the index without what is added to it.
type AddressKey = (bool, u32, ExprId);

struct Compiler<'k> {
    kernel: &'k Kernel,
    warp: u32,
    analysis: Analysis,
    scalars: Vec<Scalar>,
    /// Where the scope that each statement opens ends.
    ends: Vec<usize>,
    /// The first slot of each variable.
    vars: Vec<Slot>,
    /// The first byte of each shared array.
    offsets: Vec<u64>,
    /// Which expressions are computed.
    is_there: Vec<bool>,
    /// What was computed in each scope.
    scopes: Vec<Vec<ExprId>>,
    addresses: HashMap<AddressKey, Slot>,
    /// What the indices of loops that are written out are now.
    counters: HashMap<VarId, i32>,
    lives: Lives,
    compiled: Compiled,
}

impl Compiler<'_> {
    fn emit(&mut self, code: Code) {
        self.compiled.code.push(code);
    }

    fn here(&self) -> usize {
        self.compiled.code.len()
    }

    fn slot(&mut self) -> Slot {
        self.compiled.slots += 1;
        self.compiled.slots as Slot - 1
    }

    fn issue(&mut self, unit: Unit, sources: [Slot; 3], target: Slot, access: Option<u32>) {
        let at = self.here();
        sources.iter().chain([&target]).for_each(|&slot| self.lives.touch(slot, at));
        self.emit(Code::Issue(Instruction { unit, sources, target, access }));
    }

    /// Issues a chain of instructions; an empty one is a modifier of what uses it.
    fn chain(&mut self, recipe: Recipe, mut sources: [Slot; 3], target: Slot) {
        if recipe.is_empty() {
            self.alias(sources[0], target);
        }
        for &(unit, count) in recipe {
            for _ in 0..count {
                self.issue(unit, sources, target, None);
                sources = [target, NOTHING, NOTHING];
            }
        }
    }

    fn alias(&mut self, from: Slot, to: Slot) {
        let at = self.here();
        [from, to].iter().for_each(|&slot| self.lives.touch(slot, at));
        self.emit(Code::Alias { from, to });
    }

    /// The value of an index that is known now.
    fn known(&self, id: ExprId) -> Option<i32> {
        match self.kernel.exprs[id.index()] {
            Expr::Integer(value) => Some(value),
            Expr::Var(var) => self.counters.get(&var).copied(),
            Expr::Index(function, a, b) => function.of(self.known(a)?, self.known(b)?),
            _ => None,
        }
    }

    /// The slot of an element of a variable.
    fn element(&self, var: VarId, index: Option<ExprId>) -> Slot {
        let elements = self.kernel.vars[var.index()].array.unwrap_or(1);
        let index = index.and_then(|index| self.known(index)).map_or(0, |index| index as u32);
        self.vars[var.index()] + index.min(elements - 1)
    }

    /// Where the value of an expression comes from, for those that are needed.
    fn source(&self, id: ExprId) -> Source {
        match (self.known(id), self.kernel.exprs[id.index()]) {
            (Some(value), _) => Source::Known(i64::from(value)),
            (None, Expr::Thread) => Source::Thread,
            (None, Expr::Block(axis)) => Source::Block(axis),
            (None, Expr::Var(var)) => Source::Slot(self.element(var, None)),
            (None, Expr::Element(var, index)) => Source::Slot(self.element(var, Some(index))),
            (None, Expr::Number(dtype, bits)) if !dtype.is_float() => Source::Known(bits as i64),
            (None, Expr::Index(..) | Expr::Select(_)) => Source::Slot(id.0),
            (None, _) => Source::Data,
        }
    }

    /// Computes an expression unless it is there, and says what to wait for.
    fn demand(&mut self, id: ExprId) -> Slot {
        if self.known(id).is_some() {
            return NOTHING;
        }
        match self.kernel.exprs[id.index()] {
            Expr::Integer(_) | Expr::Number(..) | Expr::Thread | Expr::Block(_) => NOTHING,
            Expr::Var(var) => self.element(var, None),
            Expr::Element(var, index) => self.element(var, Some(index)),
            expr => {
                if !self.is_there[id.index()] {
                    self.compute(id, expr);
                }
                id.0
            }
        }
    }

    fn operands(&mut self, operands: &[ExprId]) -> [Slot; 3] {
        let mut slots = [NOTHING; 3];
        for (slot, &operand) in slots.iter_mut().zip(operands) {
            *slot = self.demand(operand);
        }
        slots
    }

    fn begin(&mut self, slot: Slot, registers: u32) {
        let at = self.here();
        self.lives.begin(slot, registers, at);
    }

    fn compute(&mut self, id: ExprId, expr: Expr) {
        let target = id.0;
        let registers = self.scalars[id.index()].registers();
        let (recipe, sources): (Recipe, [Slot; 3]) = match expr {
            Expr::Index(function, a, b) => self.index(function, a, b),
            Expr::Unary(function, dtype, x) => (recipe::unary(function, dtype), self.operands(&[x])),
            Expr::Binary(function, dtype, a, b) => (recipe::binary(function, dtype), self.operands(&[a, b])),
            Expr::MulAdd(dtype, operands) => (recipe::mul_add(dtype), self.operands(&operands)),
            Expr::Select(operands) => (recipe::select(self.scalars[id.index()]), self.operands(&operands)),
            Expr::Convert(from, to, x) => (recipe::convert(from, to), self.operands(&[x])),
            Expr::Load(buffer, index) => {
                let dtype = self.kernel.buffers[buffer.index()].dtype;
                let address = self.address((false, buffer.0), index);
                self.begin(target, registers);
                self.access(Space::Global(buffer.0), index, dtype.bits() as u64, [address, NOTHING, NOTHING], target);
                let recipe = recipe::widened(dtype);
                if !recipe.is_empty() {
                    self.chain(recipe, [target, NOTHING, NOTHING], target);
                }
                return self.done(id);
            }
            Expr::LoadShared(shared, index) => {
                let dtype = self.kernel.shared[shared.index()].dtype;
                let address = self.address((true, shared.0), index);
                self.begin(target, registers);
                let space = Space::Shared(self.offsets[shared.index()]);
                self.access(space, index, dtype.bits() as u64, [address, NOTHING, NOTHING], target);
                let recipe = recipe::widened(dtype);
                if !recipe.is_empty() {
                    self.chain(recipe, [target, NOTHING, NOTHING], target);
                }
                return self.done(id);
            }
            // These are demanded without being computed.
            Expr::Integer(_) | Expr::Number(..) | Expr::Thread | Expr::Block(_) | Expr::Var(_) | Expr::Element(..) => {
                return;
            }
        };
        self.begin(target, registers);
        if self.analysis.is_needed[id.index()] {
            self.value(id, expr);
        }
        self.chain(recipe, sources, target);
        self.done(id);
    }

    fn done(&mut self, id: ExprId) {
        self.is_there[id.index()] = true;
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(id);
        }
    }

    /// What follows for indices from an expression.
    fn value(&mut self, id: ExprId, expr: Expr) {
        let code = match expr {
            Expr::Index(function, a, b) => Code::Index { function, a: self.source(a), b: self.source(b), to: id.0 },
            Expr::Select([condition, a, b]) => {
                let [condition, a, b] = [condition, a, b].map(|operand| self.source(operand));
                Code::Choose { condition, a, b, to: id.0 }
            }
            _ => return,
        };
        self.emit(code);
    }

    fn index(&mut self, function: IndexFn, a: ExprId, b: ExprId) -> (Recipe, [Slot; 3]) {
        // A product that is only added to something is one instruction with the sum.
        if function == IndexFn::Add {
            for (product, other) in [(a, b), (b, a)] {
                let expr = self.kernel.exprs[product.index()];
                let is_own = self.analysis.uses[product.index()] == 1 && !self.is_there[product.index()];
                if let (Expr::Index(IndexFn::Mul, x, y), true, None) = (expr, is_own, self.known(product)) {
                    let sources = self.operands(&[x, y, other]);
                    if self.analysis.is_needed[product.index()] {
                        self.value(product, expr);
                    }
                    return (recipe::index(function, None), sources);
                }
            }
        }
        let by = self.known(b);
        // What a quotient leaves takes the quotient.
        if let (IndexFn::Mod, Some(known)) = (function, by)
            && known.count_ones() != 1
            && let Some(place) = self.kernel.exprs.iter().position(|&expr| expr == Expr::Index(IndexFn::Div, a, b))
        {
            let quotient = self.demand(ExprId(place as u32));
            return (recipe::index(IndexFn::Sub, None), [self.demand(a), quotient, NOTHING]);
        }
        (recipe::index(function, by), self.operands(&[a, b]))
    }

    /// Computes where an access goes: one instruction, unless the index is known or another access goes to the same place but
    /// for what is added.
    fn address(&mut self, (is_shared, memory): (bool, u32), index: ExprId) -> Slot {
        self.demand_value(index);
        let base = match self.kernel.exprs[index.index()] {
            Expr::Index(IndexFn::Add, a, b) if self.known(b).is_some() => a,
            Expr::Index(IndexFn::Add, a, b) if self.known(a).is_some() => b,
            _ => index,
        };
        if self.known(base).is_some() {
            return NOTHING;
        }
        let key = (is_shared, memory, base);
        if let Some(&known) = self.addresses.get(&key) {
            let at = self.here();
            self.lives.touch(known, at);
            return known;
        }
        let from = self.demand(base);
        let slot = self.slot();
        self.begin(slot, if is_shared { 1 } else { 2 });
        self.issue(Unit::I32, [from, NOTHING, NOTHING], slot, None);
        self.addresses.insert(key, slot);
        slot
    }

    /// Has the value of an index, which may cost nothing where its last sum is a part of the access.
    fn demand_value(&mut self, index: ExprId) {
        let expr = self.kernel.exprs[index.index()];
        match expr {
            Expr::Index(IndexFn::Add, a, b)
                if self.known(index).is_none() && (self.known(a).is_some() || self.known(b).is_some()) =>
            {
                let other = if self.known(a).is_some() { b } else { a };
                self.demand(other);
                self.value(index, expr);
            }
            _ => {
                self.demand(index);
            }
        }
    }

    fn access(&mut self, space: Space, index: ExprId, bits: u64, sources: [Slot; 3], target: Slot) {
        let address = Address::Index(self.source(index));
        self.access_at(Access { space, is_store: target == NOTHING, address, bits }, sources, target);
    }

    fn access_at(&mut self, access: Access, sources: [Slot; 3], target: Slot) {
        let number = self.compiled.accesses.len() as u32;
        self.compiled.accesses.push(access);
        self.issue(Unit::Memory, sources, target, Some(number));
    }

    /// Forgets what was computed from a variable.
    fn forget(&mut self, var: VarId) {
        for id in &self.analysis.readers[var.index()] {
            self.is_there[id.index()] = false;
        }
        let readers = &self.analysis.readers[var.index()];
        self.addresses.retain(|(_, _, base), _| !readers.contains(base));
    }

    fn open(&mut self) {
        self.scopes.push(Vec::new());
    }

    fn close(&mut self) {
        let computed = self.scopes.pop().unwrap_or_default();
        computed.iter().for_each(|id| self.is_there[id.index()] = false);
        self.addresses.clear();
    }

    fn statements(&mut self, mut at: usize, end: usize) {
        while at < end {
            at = self.statement(at);
        }
    }

    /// Expands a statement with all in its scope, and returns the place of the next.
    fn statement(&mut self, at: usize) -> usize {
        match self.kernel.body[at] {
            Stmt::Let(var, value) => {
                let elements = self.kernel.vars[var.index()].array.unwrap_or(1);
                let from = self.demand(value);
                let source = self.source(value);
                self.forget(var);
                for element in 0..elements {
                    let slot = self.vars[var.index()] + element;
                    self.begin(slot, self.kernel.vars[var.index()].scalar.registers());
                    self.assign(var, slot, (value, from, source), elements > 1);
                }
            }
            Stmt::Set(var, value) => {
                let (from, source) = (self.demand(value), self.source(value));
                self.assign(var, self.element(var, None), (value, from, source), false);
                self.forget(var);
            }
            Stmt::SetElement(var, index, value) => {
                let (from, source) = (self.demand(value), self.source(value));
                self.assign(var, self.element(var, Some(index)), (value, from, source), false);
                self.forget(var);
            }
            Stmt::For { var, from, to, step, unroll } => {
                let end = self.ends[at];
                match (unroll, self.known(from), self.known(to)) {
                    (true, Some(from), Some(to)) => self.written_out(var, (from, to, step), (at + 1, end)),
                    _ => self.repeated(var, (from, to, step), (at + 1, end)),
                }
                return end + 1;
            }
            Stmt::If(condition) => return self.branch(condition, at),
            Stmt::Store(buffer, index, value) => {
                let dtype = self.kernel.buffers[buffer.index()].dtype;
                let value = self.demand(value);
                let value = self.narrowed(recipe::narrowed(dtype), value);
                let address = self.address((false, buffer.0), index);
                let bits = dtype.bits() as u64;
                self.access(Space::Global(buffer.0), index, bits, [address, value, NOTHING], NOTHING);
            }
            Stmt::StoreShared(shared, index, value) => {
                let dtype = self.kernel.shared[shared.index()].dtype;
                let value = self.demand(value);
                let value = self.narrowed(recipe::narrowed(dtype), value);
                let address = self.address((true, shared.0), index);
                let space = Space::Shared(self.offsets[shared.index()]);
                self.access(space, index, dtype.bits() as u64, [address, value, NOTHING], NOTHING);
                self.forget_shared();
            }
            Stmt::Barrier => self.barrier(),
            Stmt::Reduce { .. } => self.reduce(at),
            Stmt::Else | Stmt::End => {}
        }
        at + 1
    }

    fn narrowed(&mut self, recipe: Recipe, value: Slot) -> Slot {
        if recipe.is_empty() || value == NOTHING {
            return value;
        }
        let slot = self.slot();
        self.begin(slot, 1);
        self.chain(recipe, [value, NOTHING, NOTHING], slot);
        slot
    }

    /// Gives a variable a value: a register takes over what was computed for it; a constant, or what another variable goes on
    /// holding, is moved.
    fn assign(&mut self, var: VarId, slot: Slot, (value, from, source): (ExprId, Slot, Source), is_array: bool) {
        let is_computed = !matches!(
            self.kernel.exprs[value.index()],
            Expr::Integer(_) | Expr::Number(..) | Expr::Var(_) | Expr::Element(..) | Expr::Thread | Expr::Block(_)
        );
        let is_moved = is_array || !is_computed && self.analysis.is_set[var.index()];
        if is_moved {
            let recipe = recipe::moved(self.kernel.vars[var.index()].scalar);
            self.chain(recipe, [from, NOTHING, NOTHING], slot);
        } else {
            self.alias(from, slot);
        }
        if self.analysis.is_needed_var[var.index()] {
            self.emit(Code::Copy { from: source, to: slot });
        }
    }

    fn written_out(&mut self, var: VarId, (from, to, step): (i32, i32, u32), (first, end): (usize, usize)) {
        for index in (from..to).step_by(step as usize) {
            self.forget(var);
            self.counters.insert(var, index);
            self.open();
            self.statements(first, end);
            self.close();
        }
        self.forget(var);
        self.counters.remove(&var);
    }

    fn repeated(&mut self, var: VarId, (from, to, step): (ExprId, ExprId, u32), (first, end): (usize, usize)) {
        let (start, limit) = (self.demand(from), self.demand(to));
        let (from, to) = (self.source(from), self.source(to));
        let body = &self.kernel.body[first..end];
        let mut changes = vec![false; self.kernel.vars.len()];
        body.iter().filter_map(assigned).for_each(|(changed, _)| changes[changed.index()] = true);
        changes[var.index()] = true;
        self.hoist((first, end), &changes);
        let is_carried = |stmt: &Stmt| match assigned(stmt) {
            Some((changed, _)) => {
                let declared = body.iter().any(|stmt| matches!(*stmt, Stmt::Let(own, _) if own == changed));
                let is_index = matches!(stmt, Stmt::For { .. });
                let index = changed.index();
                !declared && !is_index && self.analysis.is_needed_var[index] && !self.analysis.depends_on_data[index]
            }
            None => false,
        };
        let is_regular = !body.iter().any(is_carried);
        let counter = self.vars[var.index()];
        let condition = self.slot();
        self.begin(counter, 1);
        self.begin(condition, 1);
        self.issue(Unit::I32, [start, NOTHING, NOTHING], counter, None);
        self.issue(Unit::I32, [counter, limit, NOTHING], condition, None);
        self.issue(Unit::Control, [condition, NOTHING, NOTHING], NOTHING, None);
        (0..changes.len()).filter(|&changed| changes[changed]).for_each(|changed| self.forget(VarId(changed as u32)));
        self.forget_shared();
        let opened = self.here();
        self.emit(Code::Loop { counter, from, to, step, after: 0, is_regular });
        self.open();
        self.addresses.clear();
        self.statements(first, end);
        self.close();
        self.issue(Unit::I32, [counter, NOTHING, NOTHING], counter, None);
        self.issue(Unit::I32, [counter, limit, NOTHING], condition, None);
        self.issue(Unit::Control, [condition, NOTHING, NOTHING], NOTHING, None);
        self.emit(Code::EndLoop { first: opened + 1 });
        let closed = self.here();
        if let Code::Loop { after, .. } = &mut self.compiled.code[opened] {
            *after = closed;
        }
        self.lives.repeat(opened, closed);
        (0..changes.len()).filter(|&changed| changes[changed]).for_each(|changed| self.forget(VarId(changed as u32)));
    }

    /// Computes before a loop what in it is always the same.
    fn hoist(&mut self, (first, end): (usize, usize), changes: &[bool]) {
        let mut stays: Vec<Option<bool>> = vec![None; self.kernel.exprs.len()];
        let kernel = self.kernel;
        let mut seen = vec![false; kernel.exprs.len()];
        for stmt in &kernel.body[first..end] {
            let mut open: Vec<ExprId> = stmt.operands().collect();
            open.reverse();
            while let Some(id) = open.pop() {
                if std::mem::replace(&mut seen[id.index()], true) {
                    continue;
                }
                if self.stays(id, changes, &mut stays) {
                    self.demand(id);
                } else {
                    let operands: Vec<ExprId> = kernel.exprs[id.index()].operands().collect();
                    open.extend(operands.into_iter().rev());
                }
            }
        }
    }

    fn stays(&self, id: ExprId, changes: &[bool], known: &mut [Option<bool>]) -> bool {
        if let Some(known) = known[id.index()] {
            return known;
        }
        let expr = self.kernel.exprs[id.index()];
        let stays = match expr {
            Expr::Load(..) | Expr::LoadShared(..) => false,
            Expr::Var(var) | Expr::Element(var, _) if changes[var.index()] => false,
            _ => expr.operands().all(|operand| self.stays(operand, changes, known)),
        };
        known[id.index()] = Some(stays);
        stays
    }

    fn branch(&mut self, condition: ExprId, at: usize) -> usize {
        let slot = self.demand(condition);
        let condition = self.source(condition);
        self.issue(Unit::Control, [slot, NOTHING, NOTHING], NOTHING, None);
        let opened = self.here();
        self.emit(Code::If { condition, middle: 0 });
        let middle = self.ends[at];
        self.open();
        self.statements(at + 1, middle);
        self.close();
        let mut next = middle + 1;
        let mut place = self.here();
        if self.kernel.body[middle] == Stmt::Else {
            self.emit(Code::Else { end: 0 });
            self.open();
            self.statements(middle + 1, self.ends[middle]);
            self.close();
            next = self.ends[middle] + 1;
            let end = self.here();
            self.compiled.code[place] = Code::Else { end };
        } else {
            place = self.here();
        }
        if let Code::If { middle, .. } = &mut self.compiled.code[opened] {
            *middle = place;
        }
        self.emit(Code::EndIf);
        next
    }

    fn barrier(&mut self) {
        self.issue(Unit::Control, [NOTHING; 3], NOTHING, None);
        self.emit(Code::Barrier);
        self.forget_shared();
    }

    /// Forgets what follows from shared memory, which is not the same from here on.
    fn forget_shared(&mut self) {
        for (is_there, reads) in self.is_there.iter_mut().zip(&self.analysis.reads_shared) {
            *is_there &= !reads;
        }
    }

    /// Combines what threads hold: within warps by shuffles, each followed by one step; then across warps by shared memory.
    fn reduce(&mut self, at: usize) {
        let Stmt::Reduce { var, function, dtype, width, scratch } = self.kernel.body[at] else { return };
        let scalar = Scalar::of(dtype);
        let value = self.element(var, None);
        let other = self.slot();
        self.begin(other, scalar.registers());
        let mut mask = width.min(self.warp) / 2;
        while mask > 0 {
            self.chain(recipe::shuffled(scalar), [value, NOTHING, NOTHING], other);
            self.chain(recipe::fold(function, dtype), [value, other, NOTHING], value);
            mask /= 2;
        }
        if width > self.warp {
            let (space, bits) = (Space::Shared(self.offsets[scratch.index()]), u64::from(scalar.registers()) * 32);
            let access = |is_store, address| Access { space, is_store, address, bits };
            self.access_at(access(true, Address::Thread), [value, NOTHING, NOTHING], NOTHING);
            self.barrier();
            let partial: Vec<Slot> = (0..width / self.warp).map(|_| self.slot()).collect();
            for &slot in &partial {
                self.begin(slot, scalar.registers());
                self.access_at(access(false, Address::Same), [NOTHING; 3], slot);
            }
            for (place, &slot) in partial.iter().enumerate() {
                match place {
                    0 => self.alias(slot, value),
                    _ => self.chain(recipe::fold(function, dtype), [value, slot, NOTHING], value),
                }
            }
            self.barrier();
        }
        if self.analysis.is_needed_var[var.index()] {
            self.emit(Code::Copy { from: Source::Data, to: value });
        }
        self.forget(var);
    }
}
