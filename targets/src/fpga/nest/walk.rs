//! From statements to operations: the kernel is gone through once, with loops that are written out as often as they are done.

use super::values::Values;
use super::{Array, ArrayId, ArrayPlace, Carried, Counter, Form, Item, Kind, Loop, LoopId, OpId};
use crate::TargetError;
use crate::fpga::access::Linear;
use crate::fpga::design::{BEAT_BYTES, Design, Function, Home};
use crate::fpga::widths::Range;
use crate::kernel::simulator::ends;
use crate::kernel::{Expr, ExprId, IndexFn, Kernel, Memory, Scalar, SharedId, Stmt, VarId};
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

/// How an access to a local memory is made up, from which its banks follow.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    /// The array.
    pub array: ArrayId,
    /// The index, the same for all lanes but for known distances; else its copies.
    pub linear: Result<Linear, u32>,
    /// Whether it writes.
    pub writes: bool,
    /// The loop that it is in, and which of the loops' parts.
    pub within: Option<LoopId>,
}

/// A kernel that is being gone through.
pub(super) struct Walk<'k> {
    pub(super) kernel: &'k Kernel,
    /// The least grid of all calls.
    least: [u32; 3],
    pub(super) ends: Vec<usize>,
    pub arrays: Vec<Array>,
    pub values: Values,
    pub loops: Vec<Loop>,
    pub reaches: Vec<Reach>,
    /// Copies of all that loops carry, in the order in which it comes: as they are assumed, and as they turn out.
    pub copies: Vec<u32>,
    assumed: usize,
    /// What each element of each variable holds.
    pub(super) vars: Vec<Vec<OpId>>,
    /// What each expression is, and each variable holds, wherever it occurs.
    pub exprs: Vec<Option<Range>>,
    pub held_by: Vec<Option<Range>>,
    /// What variables held before they were set, as far back as a branch goes that is open.
    changed: Vec<(VarId, u32, OpId)>,
    branches: u32,
    /// The value of each expression, and the statement that it was computed for.
    held: Vec<(u32, OpId)>,
    pub(super) statement: u32,
    blocks: [Option<OpId>; 3],
    predicate: Option<OpId>,
    /// Lanes that take part, as far as that is known now; all if there is nothing.
    active: Option<Vec<bool>>,
}

/// What a kernel's types become.
pub(super) fn form_of(dtype: DType) -> (Form, Range) {
    let range = Range::of_dtype(dtype);
    match Scalar::of(dtype) {
        Scalar::F32 => (Form::Single, Range::TRUTH),
        Scalar::F64 => (Form::Double, Range::TRUTH),
        Scalar::I32 | Scalar::U32 | Scalar::I64 | Scalar::U64 => (range.form(), range),
    }
}

pub(super) fn unsupported(kernel: &Kernel, what: &str) -> TargetError {
    TargetError::Fault(format!("kernel `{}` cannot become hardware: {what}", kernel.name))
}

impl<'k> Walk<'k> {
    /// Goes through a kernel whose local memories have so many banks.
    ///
    /// `copies` is what [`Walk::copies`] was after it was gone through before, if it was.
    pub fn new(
        function: &'k Function,
        design: &Design,
        local: &[u32],
        copies: Vec<u32>,
    ) -> Result<Walk<'k>, TargetError> {
        let kernel = &function.kernel;
        let mut arrays = Vec::new();
        for (index, buffer) in kernel.buffers.iter().enumerate() {
            let home = function.homes.get(index).ok_or_else(|| unsupported(kernel, "a buffer has no home"))?;
            let (place, banks) = match *home {
                Home::OnChip(id) => {
                    let memory = design.memories.get(id.index());
                    let memory = memory.ok_or_else(|| unsupported(kernel, "a memory is not there"))?;
                    (ArrayPlace::OnChip(id), memory.banks)
                }
                Home::Fifo(id) => {
                    let fifo = design.fifos.get(id.index());
                    let fifo = fifo.ok_or_else(|| unsupported(kernel, "a FIFO is not there"))?;
                    (ArrayPlace::Fifo(id), fifo.banks)
                }
                Home::External { first, ways } => {
                    let elements = BEAT_BYTES * 8 / buffer.dtype.bits() as u64;
                    (ArrayPlace::External { first, ways }, elements as u32)
                }
                Home::Loaded { stream } => {
                    let loader = design.loader.as_ref().ok_or_else(|| unsupported(kernel, "there is no loader"))?;
                    if stream as usize >= loader.streams.len() {
                        return Err(unsupported(kernel, "the loader has no such FIFO"));
                    }
                    let elements = BEAT_BYTES * 8 / buffer.dtype.bits() as u64;
                    (ArrayPlace::Loaded { stream, channels: loader.channels }, elements as u32)
                }
            };
            let memory = Memory::Buffer(crate::kernel::BufferId(index as u32));
            let (name, dtype, elements) = (buffer.name.clone(), buffer.dtype, buffer.elements);
            arrays.push(Array { name, memory, place, dtype, elements, banks });
        }
        for (index, shared) in kernel.shared.iter().enumerate() {
            let banks = local.get(index).copied().unwrap_or(1);
            let (name, dtype, elements) = (shared.name.clone(), shared.dtype, u64::from(shared.elements));
            let memory = Memory::Shared(SharedId(index as u32));
            arrays.push(Array { name, memory, place: ArrayPlace::Local, dtype, elements, banks });
        }
        let count = arrays.len();
        Ok(Walk {
            kernel,
            least: function.least,
            ends: ends(&kernel.body),
            arrays,
            values: Values::new(kernel.threads, count),
            loops: Vec::new(),
            reaches: Vec::new(),
            copies,
            assumed: 0,
            vars: vec![Vec::new(); kernel.vars.len()],
            exprs: vec![None; kernel.exprs.len()],
            held_by: vec![None; kernel.vars.len()],
            changed: Vec::new(),
            branches: 0,
            held: vec![(0, OpId(0)); kernel.exprs.len()],
            statement: 0,
            blocks: [None; 3],
            predicate: None,
            active: None,
        })
    }

    /// Goes through all of it, and says what is done.
    pub fn run(&mut self) -> Result<Vec<Item>, TargetError> {
        let (all, kernel) = (self.kernel.body.len(), self.kernel);
        let written = self.written(0, all);
        let mut open = Vec::new();
        for axis in (0..3).rev() {
            let trips = u64::from(kernel.grid[axis]);
            if trips > 1 {
                let counter = self.open_loop(&format!("axis{axis}"), trips, written.clone());
                if let Some(counter) = self.loops.last_mut().and_then(|own| own.counters.first_mut()) {
                    (counter.axis, counter.least) = (Some(axis as u8), u64::from(self.least[axis]).min(trips));
                }
                self.blocks[axis] = Some(counter);
                open.push(LoopId(self.loops.len() as u32 - 1));
            } else {
                self.blocks[axis] = Some(self.values.integer(0));
            }
        }
        self.statements(0, all)?;
        while let Some(id) = open.pop() {
            self.loops[id.index()].body = self.values.close();
            self.values.push(Item::Loop(id));
        }
        Ok(self.values.close())
    }

    /// Opens a loop of so many iterations, and says what counts them.
    fn open_loop(&mut self, name: &str, trips: u64, written: Vec<bool>) -> OpId {
        let id = LoopId(self.loops.len() as u32);
        self.values.open(Some(id), false, written);
        let range = Range::new(0, i128::from(trips) - 1);
        let op = self.values.given(Kind::Counter(id), range.form(), (1, range), Vec::new());
        let counters = vec![Counter { op, trips, axis: None, least: trips }];
        let (carried, body) = (Vec::new(), Vec::new());
        self.loops.push(Loop { name: name.to_owned(), counters, carried, body, pipelined: false });
        op
    }

    /// Which arrays statements write.
    fn written(&self, first: usize, end: usize) -> Vec<bool> {
        let mut written = vec![false; self.arrays.len()];
        for stmt in &self.kernel.body[first..end] {
            match *stmt {
                Stmt::Store(buffer, ..) | Stmt::StoreVector { buffer, .. } => written[buffer.index()] = true,
                Stmt::StoreShared(shared, ..) => written[self.kernel.buffers.len() + shared.index()] = true,
                _ => {}
            }
        }
        written
    }

    fn statements(&mut self, mut at: usize, end: usize) -> Result<(), TargetError> {
        while at < end {
            self.statement += 1;
            at = self.statement(at)?;
        }
        Ok(())
    }

    fn refuse(&self, what: &str) -> TargetError {
        unsupported(self.kernel, what)
    }

    /// Does what a statement says, with all in its scope, and returns the place of the next.
    fn statement(&mut self, at: usize) -> Result<usize, TargetError> {
        let kernel = self.kernel;
        match kernel.body[at] {
            Stmt::Let(var, value) => {
                let value = self.value(value)?;
                let count = kernel.vars[var.index()].array.unwrap_or(1) as usize;
                self.note(var, value);
                self.vars[var.index()] = vec![value; count];
            }
            Stmt::Set(var, value) => {
                let value = self.value(value)?;
                self.assign(var, 0, value)?;
            }
            Stmt::SetElement(var, index, value) => {
                let value = self.value(value)?;
                let index = self.known(index)?;
                self.assign(var, index, value)?;
            }
            Stmt::For { var, from, to, step, unroll } => {
                let end = self.ends[at];
                self.repeat(var, (from, to, step), unroll, at + 1, end)?;
                return Ok(end + 1);
            }
            Stmt::If(condition) => return self.branch(condition, at),
            Stmt::Store(buffer, index, value) => {
                let (index, value) = (self.value(index)?, self.value(value)?);
                self.store(ArrayId(buffer.0), index, value);
            }
            Stmt::StoreShared(shared, index, value) => {
                let (index, value) = (self.value(index)?, self.value(value)?);
                self.store(self.shared(shared), index, value);
            }
            Stmt::LoadVector { array, to, buffer, from, count } => {
                if kernel.vars[array.index()].packed.is_some() {
                    return Err(self.refuse("it keeps elements packed"));
                }
                let (from, first) = (self.value(from)?, self.known(to)?);
                for place in 0..count {
                    let more = self.values.integer(i64::from(place));
                    let index = self.values.index(IndexFn::Add, from, more);
                    let value = self.load(ArrayId(buffer.0), index);
                    self.assign(array, first + place, value)?;
                }
            }
            Stmt::StoreVector { buffer, to, array, from, count } => {
                let (to, first) = (self.value(to)?, self.known(from)?);
                for place in 0..count {
                    let more = self.values.integer(i64::from(place));
                    let index = self.values.index(IndexFn::Add, to, more);
                    let value = self.element(array, first + place)?;
                    self.store(ArrayId(buffer.0), index, value);
                }
            }
            Stmt::Reduce { var, function, dtype, width, .. } => {
                let value = self.element(var, 0)?;
                let (form, range) = form_of(dtype);
                let width = width.min(kernel.threads);
                let folded = self.values.pure(Kind::Fold { function, dtype, width }, form, vec![value], range);
                self.assign(var, 0, folded)?;
            }
            // Lanes are in step.
            Stmt::Barrier | Stmt::End | Stmt::Else => {}
            Stmt::Dequantize { .. } => return Err(self.refuse("it makes floats of packed integers")),
            Stmt::Copy { .. } | Stmt::Commit | Stmt::Await(_) => return Err(self.refuse("it copies on the side")),
            Stmt::Multiply { .. } => return Err(self.refuse("it has a matrix unit multiply")),
            Stmt::Prefetch { .. } => return Err(self.refuse("it asks for what comes later")),
            Stmt::Arrive { .. } => return Err(self.refuse("its blocks arrive one by one")),
        }
        Ok(at + 1)
    }

    fn shared(&self, shared: SharedId) -> ArrayId {
        ArrayId(self.kernel.buffers.len() as u32 + shared.0)
    }

    fn element(&self, var: VarId, index: u32) -> Result<OpId, TargetError> {
        let held = self.vars[var.index()].get(index as usize).copied();
        held.ok_or_else(|| self.refuse("it uses what no variable holds"))
    }

    fn assign(&mut self, var: VarId, index: u32, value: OpId) -> Result<(), TargetError> {
        let before = self.element(var, index)?;
        self.note(var, value);
        if self.branches > 0 {
            self.changed.push((var, index, before));
        }
        self.vars[var.index()][index as usize] = value;
        Ok(())
    }

    /// Notes that a variable holds a value.
    fn note(&mut self, var: VarId, value: OpId) {
        let range = self.values.range(value);
        let own = &mut self.held_by[var.index()];
        *own = Some(own.map_or(range, |before| before.or(range)));
    }

    /// An index that is known now.
    pub(super) fn known(&mut self, index: ExprId) -> Result<u32, TargetError> {
        let value = self.value(index)?;
        let known = self.values.constant(value).and_then(|value| u32::try_from(value).ok());
        known.ok_or_else(|| self.refuse("an element of an array of variables is not known"))
    }

    fn repeat(
        &mut self,
        var: VarId,
        (from, to, step): (ExprId, ExprId, u32),
        unroll: bool,
        first: usize,
        end: usize,
    ) -> Result<(), TargetError> {
        let (from, to) = (self.value(from)?, self.value(to)?);
        let length = self.values.linear(to).plus(&self.values.linear(from), -1);
        let length = length.and_then(|length| length.as_constant());
        let length = length.ok_or_else(|| self.refuse("how often a loop is done depends on data or on other loops"))?;
        let trips = length.max(0) as u64;
        let trips = trips.div_ceil(u64::from(step));
        if unroll || trips <= 1 {
            for trip in 0..trips {
                let more = self.values.integer(trip as i64 * i64::from(step));
                let index = self.values.index(IndexFn::Add, from, more);
                self.vars[var.index()] = vec![index];
                self.statements(first, end)?;
            }
            return Ok(());
        }
        let changes = self.changes(first, end)?;
        let number = self.assumed;
        let counter = self.open_loop(&self.kernel.vars[var.index()].name, trips, self.written(first, end));
        let id = LoopId(self.loops.len() as u32 - 1);
        let mut carried = Vec::with_capacity(changes.len());
        for &(var, index) in &changes {
            let initial = self.element(var, index)?;
            let op = self.values.op(initial).clone();
            let range = match op.form {
                Form::Integer { .. } => Range::of_scalar(self.kernel.vars[var.index()].scalar),
                Form::Single | Form::Double => Range::TRUTH,
            };
            let form = if matches!(op.form, Form::Integer { .. }) { range.form() } else { op.form };
            let copies = op.copies.max(self.copies.get(self.assumed).copied().unwrap_or(1));
            self.assumed += 1;
            let op = self.values.given(Kind::Carried(id), form, (copies, range), Vec::new());
            self.assign(var, index, op)?;
            carried.push(Carried { op, initial, next: op });
        }
        let step = self.values.integer(i64::from(step));
        let grown = self.values.index(IndexFn::Mul, counter, step);
        let index = self.values.index(IndexFn::Add, from, grown);
        self.vars[var.index()] = vec![index];
        self.statements(first, end)?;
        self.copies.resize(self.copies.len().max(self.assumed), 1);
        for (place, (carried, &(var, index))) in carried.iter_mut().zip(&changes).enumerate() {
            carried.next = self.element(var, index)?;
            let found = self.values.op(carried.next).copies.max(self.values.op(carried.op).copies);
            self.copies[number + place] = found;
        }
        let body = self.values.close();
        self.values.push(Item::Loop(id));
        for (carried, &(var, index)) in carried.iter().zip(&changes) {
            let op = self.values.op(carried.op);
            let (form, copies) = (op.form, op.copies);
            let range = self.values.range(carried.op);
            let left = if carried.next == carried.op {
                self.values.same_as.insert(carried.op, carried.initial);
                carried.initial
            } else {
                self.values.given(Kind::Left(id), form, (copies, range), vec![carried.op])
            };
            self.assign(var, index, left)?;
        }
        carried.retain(|carried| carried.next != carried.op);
        let own = &mut self.loops[id.index()];
        (own.carried, own.body) = (carried, body);
        Ok(())
    }

    fn branch(&mut self, condition: ExprId, at: usize) -> Result<usize, TargetError> {
        let condition = self.value(condition)?;
        let middle = self.ends[at];
        let (second, next) = match self.kernel.body[middle] {
            Stmt::Else => (Some((middle + 1, self.ends[middle])), self.ends[middle] + 1),
            _ => (None, middle + 1),
        };
        match self.values.constant(condition) {
            Some(0) => {
                if let Some((first, end)) = second {
                    self.statements(first, end)?;
                }
                return Ok(next);
            }
            Some(_) => {
                self.statements(at + 1, middle)?;
                return Ok(next);
            }
            None => {}
        }
        let has_loops = |first: usize, end: usize| {
            self.kernel.body[first..end].iter().any(|stmt| matches!(stmt, Stmt::For { unroll: false, .. }))
        };
        let controls = self.values.op(condition).copies == 1
            && (has_loops(at + 1, middle) || second.is_some_and(|(first, end)| has_loops(first, end)));
        let mark = self.changed.len();
        self.branches += 1;
        let then = self.arm(condition, (at + 1, middle), controls)?;
        // What the first has set, to be put beside what the second sets.
        let mut set = self.undo(mark);
        let otherwise = match second {
            Some(part) => {
                let zero = self.values.integer(0);
                let not = self.values.index(IndexFn::Eq, condition, zero);
                self.arm(not, part, controls)?
            }
            None => Vec::new(),
        };
        let other = self.undo(mark);
        self.branches -= 1;
        if controls {
            self.values.push(Item::Branch { condition, then, otherwise });
        }
        // Both are in order: whatever either has set is selected.
        set.extend(other.iter().map(|&(var, index, _)| (var, index, None)));
        set.sort_by_key(|&(var, index, value)| (var, index, value.is_none()));
        set.dedup_by_key(|&mut (var, index, _)| (var, index));
        for (var, index, first) in set {
            let found = other.binary_search_by_key(&(var, index), |&(var, index, _)| (var, index));
            let before = self.element(var, index)?;
            let second = found.ok().and_then(|place| other[place].2).unwrap_or(before);
            let first = first.unwrap_or(before);
            let selected = self.select(condition, first, second);
            self.assign(var, index, selected)?;
        }
        Ok(next)
    }

    /// Goes through one side of a branch.
    fn arm(&mut self, condition: OpId, (first, end): (usize, usize), controls: bool) -> Result<Vec<Item>, TargetError> {
        if controls {
            let written = self.written(first, end);
            self.values.open(None, true, written);
            self.statements(first, end)?;
            return Ok(self.values.close());
        }
        let (outside, lanes) = (self.predicate, self.active.clone());
        if let Some(known) = self.values.linear(condition).as_known(self.kernel.threads) {
            let takes_part = |lane: usize| known[if known.len() == 1 { 0 } else { lane }] != 0;
            let before = |lane: usize| lanes.as_ref().is_none_or(|lanes| lanes[lane]);
            let all = 0..self.kernel.threads as usize;
            self.active = Some(all.map(|lane| before(lane) && takes_part(lane)).collect());
        }
        self.predicate = Some(match outside {
            Some(outside) => self.values.index(IndexFn::And, outside, condition),
            None => condition,
        });
        self.statements(first, end)?;
        (self.predicate, self.active) = (outside, lanes);
        Ok(Vec::new())
    }

    /// Puts back what variables held at a mark, and says what they held last, in order.
    fn undo(&mut self, mark: usize) -> Vec<(VarId, u32, Option<OpId>)> {
        let mut set = Vec::new();
        for (var, index, before) in self.changed.split_off(mark).into_iter().rev() {
            // A variable of an inner scope is no longer there.
            if let Some(held) = self.vars[var.index()].get_mut(index as usize) {
                set.push((var, index, Some(std::mem::replace(held, before))));
            }
        }
        // The last that it held was found first.
        set.sort_by_key(|&(var, index, _)| (var, index));
        set.dedup_by_key(|&mut (var, index, _)| (var, index));
        set
    }

    fn select(&mut self, condition: OpId, a: OpId, b: OpId) -> OpId {
        if a == b {
            return a;
        }
        match self.values.constant(condition) {
            Some(0) => b,
            Some(_) => a,
            None => {
                if let Some(index) = self.values.selected(condition, a, b) {
                    return index;
                }
                let range = self.values.range(a).or(self.values.range(b));
                let form = self.values.op(a).form;
                let form = if matches!(form, Form::Integer { .. }) { range.form() } else { form };
                self.values.pure(Kind::Select, form, vec![condition, a, b], range)
            }
        }
    }

    fn remember(&mut self, array: ArrayId, index: OpId, writes: bool) {
        if self.arrays[array.index()].place == ArrayPlace::Local {
            let linear = self.values.linear(index).of_active(self.active.as_deref());
            let varies = linear.terms.iter().any(|&(id, _)| self.values.op(id).copies > 1);
            let copies = self.values.op(index).copies;
            let linear = if varies { Err(copies) } else { Ok(linear) };
            let within = self.values.scopes.last().and_then(|scope| scope.within);
            self.reaches.push(Reach { array, linear, writes, within });
        }
    }

    fn load(&mut self, array: ArrayId, index: OpId) -> OpId {
        self.remember(array, index, false);
        let own = &self.arrays[array.index()];
        let (dtype, banks) = (own.dtype, own.banks);
        // Memory on the part can be read anywhere, whoever then looks at it.
        let predicate =
            self.predicate.filter(|_| matches!(own.place, ArrayPlace::External { .. } | ArrayPlace::Loaded { .. }));
        let (pattern, at, linear) = self.values.reach(index, banks, self.active.as_deref());
        let id = self.values.load(array, pattern, at, form_of(dtype), predicate);
        self.values.reached.insert(id, linear);
        id
    }

    fn store(&mut self, array: ArrayId, index: OpId, value: OpId) {
        self.remember(array, index, true);
        let own = &self.arrays[array.index()];
        let (dtype, banks) = (own.dtype, own.banks);
        let (pattern, at, linear) = self.values.reach(index, banks, self.active.as_deref());
        let form = match form_of(dtype).0 {
            Form::Integer { .. } => Form::Integer { bits: dtype.bits() as u8, signed: false },
            float => float,
        };
        let id = self.values.store(array, pattern, [at, value], (form, self.predicate));
        self.values.reached.insert(id, linear);
    }

    /// The value of an expression where the walk is.
    fn value(&mut self, id: ExprId) -> Result<OpId, TargetError> {
        let (statement, held) = self.held[id.index()];
        if statement == self.statement {
            return Ok(held);
        }
        let value = self.compute(id)?;
        self.held[id.index()] = (self.statement, value);
        self.note_expr(id, value);
        Ok(value)
    }

    /// Notes that an expression is a value somewhere.
    fn note_expr(&mut self, id: ExprId, value: OpId) {
        let range = self.values.range(value);
        let own = &mut self.exprs[id.index()];
        *own = Some(own.map_or(range, |before| before.or(range)));
    }

    fn compute(&mut self, id: ExprId) -> Result<OpId, TargetError> {
        let lanes = i64::from(self.kernel.threads);
        Ok(match self.kernel.exprs[id.index()] {
            Expr::Integer(value) => self.values.integer(i64::from(value)),
            Expr::Number(dtype, bits) => match Scalar::of(dtype) {
                Scalar::F32 => self.values.float(u64::from((f64::from_bits(bits) as f32).to_bits()), Form::Single),
                Scalar::F64 => self.values.float(bits, Form::Double),
                Scalar::U64 => self.values.unsigned(bits),
                Scalar::I32 | Scalar::U32 | Scalar::I64 => self.values.integer(bits as i64),
            },
            Expr::Thread => self.values.integers((0..lanes).collect()),
            Expr::BlockNumber => {
                let (mut number, mut stride) = (self.values.integer(0), 1);
                for axis in 0..3 {
                    let own = self.blocks[axis].ok_or_else(|| self.refuse("a grid has three axes"))?;
                    let factor = self.values.integer(stride);
                    let own = self.values.index(IndexFn::Mul, own, factor);
                    number = self.values.index(IndexFn::Add, number, own);
                    stride *= i64::from(self.kernel.grid[axis]);
                }
                number
            }
            Expr::Block(axis) => {
                let block = self.blocks.get(usize::from(axis)).copied().flatten();
                block.ok_or_else(|| self.refuse("a grid has three axes"))?
            }
            Expr::Var(var) => self.element(var, 0)?,
            Expr::Element(var, index) => {
                let index = self.known(index)?;
                self.element(var, index)?
            }
            Expr::Index(function, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.values.index(function, a, b)
            }
            Expr::Unary(UnaryFn::Sigmoid, dtype, x) if Scalar::of(dtype) == Scalar::F32 => {
                // 1 / (1 + e^-x), of operators that others use too.
                let x = self.value(x)?;
                let one = self.values.float(u64::from(1.0f32.to_bits()), Form::Single);
                let single = |walk: &mut Self, kind: Kind, operands: Vec<OpId>| {
                    walk.values.pure(kind, Form::Single, operands, Range::TRUTH)
                };
                let turned = single(self, Kind::Unary(UnaryFn::Neg, dtype), vec![x]);
                let power = single(self, Kind::Unary(UnaryFn::Exp, dtype), vec![turned]);
                let sum = single(self, Kind::Binary(BinaryFn::Add, dtype), vec![one, power]);
                single(self, Kind::Binary(BinaryFn::Div, dtype), vec![one, sum])
            }
            Expr::Unary(function, dtype, x) => {
                let x = self.value(x)?;
                let range = Range::unary(function, dtype, self.values.range(x));
                let form = self.form(dtype, function.is_predicate(), range);
                self.values.pure(Kind::Unary(function, dtype), form, vec![x], range)
            }
            Expr::Binary(function, dtype, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.binary(function, dtype, a, b)
            }
            Expr::MulAdd(dtype, [a, b, c]) => {
                let (a, b, c) = (self.value(a)?, self.value(b)?, self.value(c)?);
                if dtype.is_float() {
                    let (form, range) = form_of(dtype);
                    self.values.pure(Kind::MulAdd(dtype), form, vec![a, b, c], range)
                } else {
                    let product = self.binary(BinaryFn::Mul, dtype, a, b);
                    // The product may leave the type where the sum does not.
                    self.note_expr(id, product);
                    self.binary(BinaryFn::Add, dtype, product, c)
                }
            }
            Expr::Select([condition, a, b]) => {
                let (condition, a, b) = (self.value(condition)?, self.value(a)?, self.value(b)?);
                self.select(condition, a, b)
            }
            Expr::Convert(from, to, x) => {
                let x = self.value(x)?;
                let own = self.values.range(x);
                let (form, limit) = form_of(to);
                if !from.is_float() && !to.is_float() && limit.holds(own) && to != DType::Bool {
                    // It is in there as it is.
                    return Ok(x);
                }
                self.values.pure(Kind::Convert(from, to), form, vec![x], limit)
            }
            Expr::Load(buffer, index) => {
                let index = self.value(index)?;
                self.load(ArrayId(buffer.0), index)
            }
            Expr::LoadShared(shared, index) => {
                let index = self.value(index)?;
                self.load(self.shared(shared), index)
            }
        })
    }

    fn form(&self, dtype: DType, is_truth: bool, range: Range) -> Form {
        match form_of(dtype).0 {
            float @ (Form::Single | Form::Double) if !is_truth => float,
            _ => range.form(),
        }
    }

    fn binary(&mut self, function: BinaryFn, dtype: DType, a: OpId, b: OpId) -> OpId {
        // Operands of what may change them are in order, so that the same is found again.
        let (a, b) = if function.is_commutative() && !dtype.is_float() && b < a { (b, a) } else { (a, b) };
        let range = if dtype.is_float() {
            Range::TRUTH
        } else {
            Range::binary(function, dtype, self.values.range(a), self.values.range(b))
        };
        let form = self.form(dtype, function.is_comparison(), range);
        self.values.pure(Kind::Binary(function, dtype), form, vec![a, b], range)
    }
}
