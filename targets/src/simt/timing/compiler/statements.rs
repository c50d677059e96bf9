//! Statements.

use super::super::analysis::assigned;
use super::super::code::{Access, Address, Code, Kind, NOTHING, Slot, Source, Space};
use super::super::recipe::{self, Recipe};
use super::super::resource::Unit;
use super::Compiler;
use tcc_ir::DType;

use crate::kernel::{Accessed, BufferId, Expr, ExprId, IndexFn, Memory, Scalar, SharedId, Stmt, VarId};
use crate::number::FoldFn;

/// What warps have combined that is read at a time: assumed.
const PARTIALS: usize = 8;

/// What is given a value: each element of an array, or a variable that was not there before.
#[derive(Clone, Copy)]
struct Assigned {
    is_array: bool,
    is_new: bool,
}

impl Compiler<'_> {
    pub(super) fn statements(&mut self, mut at: usize, end: usize) {
        while at < end {
            at = self.statement(at);
        }
    }

    /// Expands a statement with all in its scope, and returns the place of the next.
    fn statement(&mut self, at: usize) -> usize {
        match self.kernel.body[at] {
            Stmt::Let(var, value) => {
                if self.kernel.vars[var.index()].packed.is_some() {
                    // What it holds first is overwritten before it is used.
                    self.forget(var);
                    return at + 1;
                }
                let elements = self.kernel.vars[var.index()].array.unwrap_or(1);
                let from = self.demand(value);
                let source = self.source(value);
                self.forget(var);
                for element in 0..elements {
                    let slot = self.vars[var.index()] + element;
                    self.begin(slot, self.kernel.vars[var.index()].scalar.registers());
                    self.assign(var, slot, (value, from, source), Assigned { is_array: elements > 1, is_new: true });
                }
            }
            Stmt::Set(var, value) => {
                let (from, source) = (self.demand(value), self.source(value));
                self.assign(
                    var,
                    self.element(var, None),
                    (value, from, source),
                    Assigned { is_array: false, is_new: false },
                );
                self.forget(var);
            }
            Stmt::SetElement(var, index, value) => {
                let (from, source) = (self.demand(value), self.source(value));
                self.assign(
                    var,
                    self.element(var, Some(index)),
                    (value, from, source),
                    Assigned { is_array: false, is_new: false },
                );
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
                let address = self.address(Memory::Buffer(buffer), index);
                let bits = dtype.bits() as u64;
                self.access(Space::Global(buffer.0), index, bits, [address, value, NOTHING], NOTHING);
            }
            Stmt::StoreShared(shared, index, value) => {
                let dtype = self.kernel.shared[shared.index()].dtype;
                let value = self.demand(value);
                let value = self.narrowed(recipe::narrowed(dtype), value);
                let address = self.address(Memory::Shared(shared), index);
                let space = Space::Shared(self.offsets[shared.index()]);
                self.access(space, index, dtype.bits() as u64, [address, value, NOTHING], NOTHING);
                self.forget_shared();
            }
            Stmt::LoadVector { array, to, buffer, from, count } => {
                let dtype = self.kernel.buffers[buffer.index()].dtype;
                let base = self.address(Memory::Buffer(buffer), from);
                let (slots, registers) = self.elements(array, to, count);
                let (recipe, bits) = (recipe::widened(dtype), dtype.bits() as u32 * count);
                if self.kernel.vars[array.index()].packed.is_some() {
                    let held = slots[0];
                    self.begin(held, bits.div_ceil(32));
                    let access = self.vector(Space::Global(buffer.0), from, (dtype, count), Kind::Load);
                    self.access_at(access, [base, NOTHING, NOTHING], held);
                    self.forget(array);
                    return at + 1;
                }
                // What is read lies in whole registers until each element is taken out.
                let held = if recipe.is_empty() { slots[0] } else { self.slot() };
                self.begin(held, if recipe.is_empty() { registers } else { bits.div_ceil(32) });
                let access = self.vector(Space::Global(buffer.0), from, (dtype, count), Kind::Load);
                self.access_at(access, [base, NOTHING, NOTHING], held);
                for &slot in &slots {
                    match recipe {
                        [] if slot != held => {
                            self.begin(slot, registers);
                            self.alias(held, slot);
                        }
                        [] => {}
                        _ => self.put_off(recipe, held, (slot, registers)),
                    }
                    if self.analysis.is_needed_var[array.index()] {
                        self.emit(Code::Copy { from: Source::Data, to: slot, is_new: true });
                    }
                }
                self.forget(array);
            }
            Stmt::Dequantize { .. } => self.dequantize(&self.kernel.body[at]),
            Stmt::StoreVector { buffer, to, array, from, count } => {
                let dtype = self.kernel.buffers[buffer.index()].dtype;
                let (slots, _) = self.elements(array, from, count);
                let mut last = slots[0];
                if self.kernel.vars[array.index()].packed.is_none() {
                    for slot in slots {
                        last = self.narrowed(recipe::narrowed(dtype), slot);
                    }
                }
                let base = self.address(Memory::Buffer(buffer), to);
                let access = self.vector(Space::Global(buffer.0), to, (dtype, count), Kind::Store);
                self.access_at(access, [base, last, NOTHING], NOTHING);
            }
            Stmt::Copy { shared, to, buffer, from, count, when } => {
                let dtype = self.kernel.buffers[buffer.index()].dtype;
                let condition = self.demand(when);
                let target = self.address(Memory::Shared(shared), to);
                let base = self.address(Memory::Buffer(buffer), from);
                let copied = Some((self.offsets[shared.index()], self.source(to), self.source(when)));
                let access = self.vector(Space::Global(buffer.0), from, (dtype, count), Kind::Load);
                let copies = self.compiled.copies;
                self.access_at(Access { copied, ..access }, [base, target, condition], copies);
                self.forget_shared();
            }
            Stmt::Commit => {
                self.issue(Unit::Control, [NOTHING; 3], NOTHING, None);
                self.emit(Code::Commit);
            }
            Stmt::Await(groups) => {
                let slot = self.slot();
                self.emit(Code::Await { groups, slot });
                self.issue(Unit::Control, [slot, NOTHING, NOTHING], NOTHING, None);
                self.forget_shared();
            }
            Stmt::Multiply { sums, tile, a, b, b_by_rows } => self.multiply(sums, tile, [a, b], b_by_rows),
            Stmt::Arrive { var, counters, axis, scratch } => self.arrive(var, counters, axis, scratch),
            Stmt::Prefetch { buffer, region, threads } => self.prefetch(buffer, region, threads),
            Stmt::Barrier => self.barrier(),
            Stmt::Reduce { .. } => return self.reduce(at),
            Stmt::Else | Stmt::End => {}
        }
        at + 1
    }

    /// The slots of so many elements of an array, and the registers that each takes.
    fn elements(&self, array: VarId, first: ExprId, count: u32) -> (Vec<Slot>, u32) {
        let first = self.element(array, Some(first));
        let slots = (first..first + count).collect();
        (slots, self.kernel.vars[array.index()].scalar.registers())
    }

    /// An access to so many elements at once.
    fn vector(&self, space: Space, index: ExprId, (dtype, count): (DType, u32), kind: Kind) -> Access {
        let bits = dtype.bits() as u64;
        let address = Address::Index(self.source(index));
        Access { space, kind, address, bits, width: bits * u64::from(count), copied: None }
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

    /// Gives a variable a value: a register takes over what was computed for it, or what a variable holds that never changes; a
    /// constant, or what another variable holds that may change, is moved.
    fn assign(&mut self, var: VarId, slot: Slot, (value, from, source): (ExprId, Slot, Source), is: Assigned) {
        let is_computed = match self.kernel.exprs[value.index()] {
            Expr::Integer(_)
            | Expr::Number(..)
            | Expr::Element(..)
            | Expr::Thread
            | Expr::Block(_)
            | Expr::BlockNumber => false,
            Expr::Var(from) => !self.analysis.is_set[from.index()] && self.kernel.vars[from.index()].array.is_none(),
            _ => true,
        };
        let is_moved = is.is_array || !is_computed && self.analysis.is_set[var.index()];
        if is_moved {
            let recipe = recipe::moved(self.kernel.vars[var.index()].scalar);
            self.chain(recipe, [from, NOTHING, NOTHING], slot);
        } else {
            self.alias(from, slot);
        }
        if self.analysis.is_needed_var[var.index()] {
            self.emit(Code::Copy { from: source, to: slot, is_new: is.is_new });
        }
    }

    fn written_out(&mut self, var: VarId, (from, to, step): (i32, i32, u32), (first, end): (usize, usize)) {
        for index in (from..to).step_by(step as usize) {
            self.forget(var);
            self.counters.insert(var, index);
            // What does not depend on the counter is there in the next round too.
            self.statements(first, end);
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
        self.settle_all();
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
        self.linear.enter(&changes);
        self.prepared.clear();
        self.statements(first, end);
        self.settle_all();
        self.linear.leave();
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
            let addresses: Vec<Accessed> = stmt.addresses().collect();
            let mut open: Vec<ExprId> = Vec::new();
            for (memory, index) in addresses.iter().copied() {
                open.extend(self.hoist_address(memory, index, (changes, &mut stays)));
            }
            open.extend(stmt.operands().filter(|operand| addresses.iter().all(|(_, index)| index != operand)));
            open.reverse();
            while let Some(id) = open.pop() {
                if std::mem::replace(&mut seen[id.index()], true) {
                    continue;
                }
                if self.stays(id, changes, &mut stays) {
                    self.demand(id);
                    continue;
                }
                let mut operands: Vec<ExprId> = match kernel.exprs[id.index()].address() {
                    Some((memory, index)) => self.hoist_address(memory, index, (changes, &mut stays)),
                    None => kernel.exprs[id.index()].operands().collect(),
                };
                operands.reverse();
                open.extend(operands);
            }
        }
    }

    pub(super) fn stays(&self, id: ExprId, changes: &[bool], known: &mut [Option<bool>]) -> bool {
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
        self.settle_all();
        self.issue(Unit::Control, [slot, NOTHING, NOTHING], NOTHING, None);
        let opened = self.here();
        self.emit(Code::If { condition, middle: 0 });
        let middle = self.ends[at];
        self.open();
        self.statements(at + 1, middle);
        self.settle_all();
        self.close();
        let mut next = middle + 1;
        let mut place = self.here();
        if self.kernel.body[middle] == Stmt::Else {
            self.emit(Code::Else { end: 0 });
            self.open();
            self.statements(middle + 1, self.ends[middle]);
            self.settle_all();
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

    /// Blocks arrive: what was stored has to reach the common cache, which is taken to be as far as memory is; then one thread counts
    /// there, and tells the others. The last is the block with the highest number.
    fn arrive(&mut self, var: VarId, counters: BufferId, axis: u8, scratch: SharedId) {
        let (held, fence, counted) = (self.vars[var.index()], self.slot(), self.slot());
        let last = i64::from(self.kernel.grid[usize::from(axis)]) - 1;
        let access = |space, kind, address| Access { space, kind, address, bits: 32, width: 32, copied: None };
        let global = Space::Global(counters.0);
        self.begin(fence, 1);
        self.access_at(access(global, Kind::Fence, Address::Same), [NOTHING; 3], fence);
        self.issue(Unit::Control, [fence, NOTHING, NOTHING], NOTHING, None);
        self.barrier();
        self.begin(counted, 1);
        self.access_at(access(global, Kind::Load, Address::Same), [NOTHING; 3], counted);
        let told = Space::Shared(self.offsets[scratch.index()]);
        self.access_at(access(told, Kind::Store, Address::Same), [counted, NOTHING, NOTHING], NOTHING);
        self.barrier();
        self.begin(held, 1);
        self.access_at(access(told, Kind::Load, Address::Same), [NOTHING; 3], held);
        self.emit(Code::Index { function: IndexFn::Eq, a: Source::Block(axis), b: Source::Known(last), to: held });
    }

    /// Forgets what follows from shared memory, which is not the same from here on.
    fn forget_shared(&mut self) {
        for (is_there, reads) in self.is_there.iter_mut().zip(&self.analysis.reads_shared) {
            *is_there &= !reads;
        }
    }

    /// Combines what threads hold: within warps by shuffles, each followed by one step; then across warps by shared memory. What
    /// is combined one after the other over as many threads goes step by step together, so that no step waits for the one before.
    /// Returns the place of the next statement.
    fn reduce(&mut self, at: usize) -> usize {
        let Stmt::Reduce { width, .. } = self.kernel.body[at] else { return at + 1 };
        let mut all = Vec::new();
        for stmt in &self.kernel.body[at..] {
            match *stmt {
                Stmt::Reduce { var, function, dtype, width: own, scratch } if own == width => {
                    let other = self.slot();
                    self.begin(other, Scalar::of(dtype).registers());
                    all.push((self.element(var, None), other, var, (function, dtype), scratch));
                }
                _ => break,
            }
            if width > self.warp {
                break;
            }
        }
        let mut mask = width.min(self.warp) / 2;
        while mask > 0 {
            for &(value, other, _, (_, dtype), _) in &all {
                self.chain(recipe::shuffled(Scalar::of(dtype)), [value, NOTHING, NOTHING], other);
            }
            for &(value, other, _, (function, dtype), _) in &all {
                self.chain(recipe::fold(function, dtype), [value, other, NOTHING], value);
            }
            mask /= 2;
        }
        for &(value, _, var, (function, dtype), scratch) in &all {
            if width > self.warp {
                self.reduce_warps(value, (function, dtype), width, scratch);
            }
            if self.analysis.is_needed_var[var.index()] {
                self.emit(Code::Copy { from: Source::Data, to: value, is_new: false });
            }
            self.forget(var);
        }
        at + all.len().max(1)
    }

    /// Combines what warps have combined.
    fn reduce_warps(&mut self, value: Slot, (function, dtype): (FoldFn, DType), width: u32, scratch: SharedId) {
        let scalar = Scalar::of(dtype);
        let (space, bits) = (Space::Shared(self.offsets[scratch.index()]), u64::from(scalar.registers()) * 32);
        let access = |kind, address| Access { space, kind, address, bits, width: bits, copied: None };
        self.access_at(access(Kind::Store, Address::Thread), [value, NOTHING, NOTHING], NOTHING);
        self.barrier();
        let partial: Vec<Slot> = (0..width / self.warp).map(|_| self.slot()).collect();
        for (place, some) in partial.chunks(PARTIALS).enumerate() {
            for &slot in some {
                self.begin(slot, scalar.registers());
                self.access_at(access(Kind::Load, Address::Same), [NOTHING; 3], slot);
            }
            for (number, &slot) in some.iter().enumerate() {
                match place + number {
                    0 => self.alias(slot, value),
                    _ => self.chain(recipe::fold(function, dtype), [value, slot, NOTHING], value),
                }
            }
        }
        self.barrier();
    }
}
