//! Expands kernels into what warps go through.
//!
//! What a compiler for the machine is known to do is done here too: an expression is computed once in its scope, what does not
//! change in a loop is computed before it, loops that are to be written out are, constants are folded, and constants that are
//! added to an index are a part of the access (`linear`). Loops that are not marked are not unrolled. Instructions are written down
//! in the order of the kernel, but for what turns loaded elements into numbers, which stands before their first use (`pending`); at
//! the end those of straight stretches are put into an order in which they wait less (`schedule`).

mod dequantize;
mod linear;
mod pending;
mod prefetch;
mod product;
mod statements;

use linear::Linear;
use pending::Pending;
pub(super) use product::step;

use std::collections::HashMap;

use super::analysis::Analysis;
use super::code::{Access, Address, Code, Compiled, Instruction, Kind, NOTHING, Slot, Source, Space};
use super::occupancy::Occupancy;
use super::recipe::{self, Recipe};
use super::registers::{FORWARD, Lives, OVERHEAD};
use super::resource::Unit;
use super::schedule::{Figures, schedule};
use tcc_ir::DType;

use crate::kernel::check::scalars;
use crate::kernel::simulator::ends;
use crate::kernel::{Expr, ExprId, IndexFn, Kernel, Memory, Scalar, VarId};
use crate::simt::SimtMachine;

/// Expands a kernel, which must have passed [`check`](crate::kernel::check::check).
pub(super) fn compile(kernel: &Kernel, machine: &SimtMachine, times: [(u64, u64); Unit::ALL.len()]) -> Compiled {
    let warp = machine.warp;
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
        linear: Linear::new(kernel.exprs.len()),
        prepared: HashMap::new(),
        counters: HashMap::new(),
        pending: Pending::default(),
        lives: Lives::default(),
        compiled: Compiled {
            code: Vec::new(),
            accesses: Vec::new(),
            slots: first as usize + 1,
            registers: 0,
            copies: first,
        },
    };
    compiler.statements(0, kernel.body.len());
    // The end is an instruction too.
    compiler.issue(Unit::Control, [NOTHING; 3], NOTHING, None);
    let (mut compiled, mut lives) = (compiler.compiled, compiler.lives);
    compiled.registers = lives.most();
    // A compiler is told how many blocks registers have to leave room for.
    let room = Occupancy::new(kernel, &compiled, machine).room(machine);
    let figures = Figures {
        times,
        shared: u64::from(machine.shared.latency),
        global: u64::from(machine.l2.latency),
        written: kernel.buffers.iter().map(|buffer| buffer.is_written).collect(),
    };
    let most = compiled.registers.max(room.min(compiled.registers * FORWARD.0 / FORWARD.1));
    schedule(&mut compiled, &mut lives, &figures, most.saturating_sub(OVERHEAD));
    compiled.registers = lives.most();
    compiled
}

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
    /// Indices of accesses.
    linear: Linear,
    /// What integers are made floats by, in pairs.
    prepared: HashMap<ExprId, Slot>,
    /// What the indices of loops that are written out are now.
    counters: HashMap<VarId, i32>,
    /// What was loaded and not used yet.
    pending: Pending,
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
        sources.into_iter().for_each(|slot| self.settle(slot));
        self.vacate(target);
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
        if from == to {
            return;
        }
        self.vacate(to);
        if self.is_pending(from) {
            return self.put_off_alias(from, to);
        }
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
        if self.kernel.vars[var.index()].packed.is_some() {
            return self.vars[var.index()];
        }
        let elements = self.kernel.vars[var.index()].array.unwrap_or(1);
        let index = index.and_then(|index| self.known(index)).map_or(0, |index| index as u32);
        self.vars[var.index()] + index.min(elements - 1)
    }

    /// What makes a number of an element of an array that stays as it was loaded.
    fn unpacked(&self, var: VarId) -> Recipe {
        self.kernel.vars[var.index()].packed.map_or(&[], recipe::unpacked)
    }

    /// Where the value of an expression comes from, for those that are needed.
    fn source(&self, id: ExprId) -> Source {
        match (self.known(id), self.kernel.exprs[id.index()]) {
            (Some(value), _) => Source::Known(i64::from(value)),
            (None, Expr::Thread) => Source::Thread,
            (None, Expr::Block(axis)) => Source::Block(axis),
            (None, Expr::Var(var)) => Source::Slot(self.element(var, None)),
            (None, Expr::Element(var, index)) => Source::Slot(self.element(var, Some(index))),
            (None, Expr::Number(dtype, bits)) if !dtype.is_float() => {
                Source::Known(i32::try_from(bits as i64).map_or(0, i64::from))
            }
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
            Expr::Integer(_) | Expr::Number(..) | Expr::Thread | Expr::Block(_) | Expr::BlockNumber => NOTHING,
            Expr::Var(var) => self.element(var, None),
            Expr::Element(var, index) if self.unpacked(var).is_empty() => self.element(var, Some(index)),
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
            Expr::Element(var, index) => (self.unpacked(var), [self.element(var, Some(index)), NOTHING, NOTHING]),
            Expr::Load(buffer, index) => {
                let dtype = self.kernel.buffers[buffer.index()].dtype;
                let address = self.address(Memory::Buffer(buffer), index);
                return self.load(id, (Space::Global(buffer.0), dtype), index, address);
            }
            Expr::LoadShared(shared, index) => {
                let dtype = self.kernel.shared[shared.index()].dtype;
                let address = self.address(Memory::Shared(shared), index);
                return self.load(id, (Space::Shared(self.offsets[shared.index()]), dtype), index, address);
            }
            // These are demanded without being computed.
            Expr::Integer(_) | Expr::Number(..) | Expr::Thread | Expr::Block(_) | Expr::BlockNumber | Expr::Var(_) => {
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

    /// Reads an element, which becomes a number before it is used.
    fn load(&mut self, id: ExprId, (space, dtype): (Space, DType), index: ExprId, address: Slot) {
        let (target, registers) = (id.0, self.scalars[id.index()].registers());
        let recipe = recipe::widened(dtype);
        let held = if recipe.is_empty() { target } else { self.slot() };
        self.begin(held, registers);
        self.access(space, index, dtype.bits() as u64, [address, NOTHING, NOTHING], held);
        if held != target {
            self.put_off(recipe, held, (target, registers));
        }
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

    fn access(&mut self, space: Space, index: ExprId, bits: u64, sources: [Slot; 3], target: Slot) {
        let address = Address::Index(self.source(index));
        let kind = if target == NOTHING { Kind::Store } else { Kind::Load };
        let access = Access { space, kind, address, bits, width: bits, copied: None };
        self.access_at(access, sources, target);
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
        self.linear.forget(readers);
        self.prepared.retain(|from, _| !readers.contains(from));
    }

    fn open(&mut self) {
        self.scopes.push(Vec::new());
        self.linear.open();
    }

    fn close(&mut self) {
        let computed = self.scopes.pop().unwrap_or_default();
        computed.iter().for_each(|id| self.is_there[id.index()] = false);
        self.linear.close();
        self.prepared.clear();
    }
}
