//! One block: its threads, in step with each other from statement to statement.
//!
//! Kernels have no races, so that nobody can tell in which order threads do what stands between two barriers.

use std::collections::VecDeque;

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::column::Column;
use super::fault::Fault;
use crate::kernel::{Arrival, BufferId, Expr, ExprId, Factor, IndexFn, Kernel, SharedId, Spread, Stmt, VarId};
use crate::number::{Number, encoded_bytes};

/// What a block has written: the buffer, the element, and its bytes.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub places: Vec<(BufferId, u64)>,
    pub bytes: Vec<u8>,
}

/// A block that runs.
pub(super) struct Block<'r> {
    kernel: &'r Kernel,
    /// Where each scope's statement ends: the place of its `Else` or `End`.
    ends: &'r [usize],
    warp: usize,
    /// The bytes of each buffer; of one that is written, those before this block writes.
    buffers: &'r [&'r [u8]],
    /// What was handed to this block, if it arrived last.
    handed: Option<Handed<'r>>,
    block: [u32; 3],
    threads: usize,
    vars: Vec<Vec<Column>>,
    shared: Vec<Vec<u8>>,
    active: Vec<bool>,
    writes: Writes,
    /// Copies that have begun, and groups of them that nobody has waited for yet.
    begun: Vec<Copied>,
    groups: VecDeque<Vec<Copied>>,
}

/// Who has written what blocks hand to the one that arrives last.
#[derive(Clone, Copy)]
pub(super) struct Handed<'r> {
    /// For each buffer that is handed over the number of the counter, and 1 more, by which the block that wrote each element arrived;
    /// 0 if nobody wrote it. Nothing for other buffers.
    pub owners: &'r [Vec<u32>],
    /// That of this block.
    pub own: u32,
}

/// A block that has arrived last, until all that others have written is there.
pub(super) struct Paused {
    block: [u32; 3],
    vars: Vec<Vec<Column>>,
    shared: Vec<Vec<u8>>,
    begun: Vec<Copied>,
    groups: VecDeque<Vec<Copied>>,
}

/// What is on its way to shared memory.
struct Copied {
    shared: SharedId,
    at: usize,
    bytes: Vec<u8>,
}

/// Where the scope that each statement opens ends.
pub(crate) fn ends(body: &[Stmt]) -> Vec<usize> {
    let mut ends = vec![0; body.len()];
    let mut open = Vec::new();
    for (place, stmt) in body.iter().enumerate() {
        if matches!(stmt, Stmt::Else | Stmt::End)
            && let Some(opened) = open.pop()
        {
            let opened: usize = opened;
            ends[opened] = place;
        }
        if matches!(stmt, Stmt::For { .. } | Stmt::If(_) | Stmt::Else) {
            open.push(place);
        }
    }
    ends
}

impl<'r> Block<'r> {
    pub fn new(kernel: &'r Kernel, ends: &'r [usize], warp: usize, buffers: &'r [&'r [u8]], block: [u32; 3]) -> Self {
        let threads = kernel.threads as usize;
        let shared = kernel.shared.iter().map(|shared| vec![0; shared.dtype.bytes(shared.elements as usize)]).collect();
        Block {
            kernel,
            ends,
            warp,
            buffers,
            handed: None,
            block,
            threads,
            vars: vec![Vec::new(); kernel.vars.len()],
            shared,
            active: vec![true; threads],
            writes: Writes::default(),
            begun: Vec::new(),
            groups: VecDeque::new(),
        }
    }

    /// Runs the block, and says what it has written.
    pub fn run(mut self) -> Result<Writes, Fault> {
        self.statements(0, self.kernel.body.len())?;
        Ok(self.writes)
    }

    /// Runs the block with what others have left in shared memory, and says what it has written and what it leaves there.
    pub fn run_in_turn(mut self, shared: Option<Vec<Vec<u8>>>) -> Result<(Writes, Vec<Vec<u8>>), Fault> {
        if let Some(shared) = shared {
            self.shared = shared;
        }
        self.statements(0, self.kernel.body.len())?;
        Ok((self.writes, self.shared))
    }

    /// Runs the block up to where it arrives, and on if it is not the last, which is the one with the highest number; else it is
    /// paused there.
    pub fn arrive(mut self, arrival: Arrival) -> Result<(Writes, Option<Paused>), Fault> {
        self.statements(0, arrival.place)?;
        if self.block[arrival.axis] + 1 == self.kernel.grid[arrival.axis] {
            let Block { block, vars, shared, begun, groups, writes, .. } = self;
            return Ok((writes, Some(Paused { block, vars, shared, begun, groups })));
        }
        self.arrived(arrival, false);
        self.statements(arrival.place + 1, self.kernel.body.len())?;
        Ok((self.writes, None))
    }

    /// Goes on with a block that arrived last, in memory that holds what all have written before.
    pub fn go_on(mut self, paused: Paused, arrival: Arrival, owners: &'r [Vec<u32>]) -> Result<Writes, Fault> {
        let Paused { block, vars, shared, begun, groups } = paused;
        (self.block, self.vars, self.shared, self.begun, self.groups) = (block, vars, shared, begun, groups);
        let own = self.kernel.counter_of(block, arrival.axis) as u32 + 1;
        self.handed = Some(Handed { owners, own });
        self.arrived(arrival, true);
        self.statements(arrival.place + 1, self.kernel.body.len())?;
        Ok(self.writes)
    }

    /// Says whether the block is the last.
    fn arrived(&mut self, arrival: Arrival, is_last: bool) {
        if let Stmt::Arrive { var, .. } = self.kernel.body[arrival.place] {
            self.vars[var.index()] = vec![Column::Signed(vec![i64::from(is_last); self.threads])];
        }
    }

    fn statements(&mut self, mut at: usize, end: usize) -> Result<(), Fault> {
        while at < end {
            at = self.statement(at)?;
        }
        Ok(())
    }

    /// Does what one statement says, with all in its scope, and returns the place of the next.
    fn statement(&mut self, at: usize) -> Result<usize, Fault> {
        match self.kernel.body[at] {
            Stmt::Let(var, value) => {
                let value = self.value(value)?;
                let count = self.kernel.vars[var.index()].array.unwrap_or(1);
                self.vars[var.index()] = vec![value; count as usize];
            }
            Stmt::Set(var, value) => {
                let value = self.value(value)?;
                self.assign(var, 0, value)?;
            }
            Stmt::SetElement(var, index, value) => {
                let value = self.value(value)?;
                let index = self.constant(index)?;
                self.assign(var, index, value)?;
            }
            Stmt::For { var, from, to, step, .. } => {
                let end = self.ends[at];
                self.repeat(var, (from, to, step), at + 1, end)?;
                return Ok(end + 1);
            }
            Stmt::If(condition) => return self.branch(condition, at),
            Stmt::Store(buffer, index, value) => self.store(buffer, index, value)?,
            Stmt::StoreShared(shared, index, value) => {
                let (index, value) = (self.value(index)?, self.value(value)?);
                let array = &self.kernel.shared[shared.index()];
                self.check(index.indices(), u64::from(array.elements), &array.name)?;
                let size = encoded_bytes(array.dtype);
                let mut bytes = vec![0; self.threads * size];
                value.encode(array.dtype, &mut bytes);
                let memory = &mut self.shared[shared.index()];
                for (thread, &index) in index.indices().iter().enumerate().filter(|&(thread, _)| self.active[thread]) {
                    memory[index as usize * size..][..size].copy_from_slice(&bytes[thread * size..][..size]);
                }
            }
            Stmt::LoadVector { array, to, buffer, from, count } => {
                let from = self.value(from)?;
                let source = &self.kernel.buffers[buffer.index()];
                let indices = self.vector(from.indices(), count, source.elements, &source.name)?;
                let first = self.constant(to)?;
                for place in 0..count as usize {
                    let own: Vec<i64> = indices.iter().map(|&index| index + place as i64).collect();
                    self.check_handed(buffer, &own)?;
                    let value = Column::gather(self.buffers[buffer.index()], source.dtype, &own, &self.active);
                    self.assign(array, first + place, value)?;
                }
            }
            Stmt::Dequantize { array, packed, first, count, zero, scale, dtype } => {
                let zero = zero.map(|zero| self.value(zero)).transpose()?;
                let scale = scale.map(|scale| self.value(scale)).transpose()?;
                for place in 0..count as usize {
                    let mut value = self.held(packed, first as usize + place)?.clone();
                    if let Some(zero) = &zero {
                        value = value.binary(BinaryFn::Sub, DType::I32, zero).map_err(|_| Fault::DivisionByZero)?;
                    }
                    value = value.converted(DType::I32, DType::F32);
                    if let Some(scale) = &scale {
                        value = value.binary(BinaryFn::Mul, DType::F32, scale).map_err(|_| Fault::DivisionByZero)?;
                    }
                    self.assign(array, place, value.converted(DType::F32, dtype))?;
                }
            }
            Stmt::StoreVector { buffer, to, array, from, count } => {
                let to = self.value(to)?;
                let target = &self.kernel.buffers[buffer.index()];
                let indices = self.vector(to.indices(), count, target.elements, &target.name)?;
                let first = self.constant(from)?;
                for place in 0..count as usize {
                    let own: Vec<i64> = indices.iter().map(|&index| index + place as i64).collect();
                    let value = self.held(array, first + place)?.clone();
                    self.write(buffer, &own, &value);
                }
            }
            Stmt::Copy { shared, to, buffer, from, count, when } => {
                self.copy((shared, to), (buffer, from), count, when)?;
            }
            Stmt::Commit => {
                let group = std::mem::take(&mut self.begun);
                self.groups.push_back(group);
            }
            Stmt::Await(most) => {
                while self.groups.len() > most as usize {
                    for Copied { shared, at, bytes } in self.groups.pop_front().unwrap_or_default() {
                        self.shared[shared.index()][at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                }
            }
            Stmt::Multiply { sums, tile, a, b, b_by_rows } => self.multiply(sums, tile, (a, b), b_by_rows)?,
            Stmt::Reduce { var, function, dtype, width, .. } => {
                let value = self.vars[var.index()][0].clone();
                self.vars[var.index()][0] = value.reduced(function, dtype, width as usize, self.warp);
            }
            // Who runs the block says who is the last.
            Stmt::Arrive { .. } | Stmt::Barrier | Stmt::Prefetch { .. } | Stmt::Else | Stmt::End => {}
        }
        Ok(at + 1)
    }

    fn assign(&mut self, var: VarId, index: usize, value: Column) -> Result<(), Fault> {
        let all = self.active.iter().all(|&active| active);
        let name = &self.kernel.vars[var.index()].name;
        let held = self.vars[var.index()].get_mut(index).ok_or_else(|| Fault::Array(name.clone()))?;
        *held = if all { value } else { value.or(&self.active, held) };
        Ok(())
    }

    fn repeat(
        &mut self,
        var: VarId,
        (from, to, step): (ExprId, ExprId, u32),
        first: usize,
        end: usize,
    ) -> Result<(), Fault> {
        let (mut index, to) = (self.value(from)?, self.value(to)?);
        let outside = self.active.clone();
        loop {
            for (thread, active) in self.active.iter_mut().enumerate() {
                *active &= index.indices()[thread] < to.indices()[thread];
            }
            if !self.active.contains(&true) {
                break;
            }
            self.vars[var.index()] = vec![index.clone()];
            self.statements(first, end)?;
            index = Column::Signed(index.indices().iter().map(|&index| index + i64::from(step)).collect());
        }
        self.active = outside;
        Ok(())
    }

    fn branch(&mut self, condition: ExprId, at: usize) -> Result<usize, Fault> {
        let holds = self.value(condition)?.holds();
        let outside = self.active.clone();
        let middle = self.ends[at];
        let mut next = middle + 1;
        let both = [true, false];
        for side in both {
            self.active = outside.iter().zip(&holds).map(|(&active, &holds)| active && holds == side).collect();
            let (first, end) = match (side, self.kernel.body[middle]) {
                (true, _) => (at + 1, middle),
                (false, Stmt::Else) => {
                    next = self.ends[middle] + 1;
                    (middle + 1, self.ends[middle])
                }
                (false, _) => break,
            };
            if self.active.contains(&true) {
                self.statements(first, end)?;
            }
        }
        self.active = outside;
        Ok(next)
    }

    fn store(&mut self, buffer: BufferId, index: ExprId, value: ExprId) -> Result<(), Fault> {
        let (index, value) = (self.value(index)?, self.value(value)?);
        let to = &self.kernel.buffers[buffer.index()];
        self.check(index.indices(), to.elements, &to.name)?;
        self.write(buffer, index.indices(), &value);
        Ok(())
    }

    /// Keeps what is written to elements that are there.
    fn write(&mut self, buffer: BufferId, indices: &[i64], value: &Column) {
        let dtype = self.kernel.buffers[buffer.index()].dtype;
        let size = encoded_bytes(dtype);
        let mut bytes = vec![0; self.threads * size];
        value.encode(dtype, &mut bytes);
        for (thread, &index) in indices.iter().enumerate().filter(|&(thread, _)| self.active[thread]) {
            self.writes.places.push((buffer, index as u64));
            self.writes.bytes.extend_from_slice(&bytes[thread * size..][..size]);
        }
    }

    /// The indices of first elements of vectors, which must lie where vectors may; threads that do not take part have 0.
    fn vector(&self, indices: &[i64], count: u32, elements: u64, name: &str) -> Result<Vec<i64>, Fault> {
        let own: Vec<i64> =
            indices.iter().zip(&self.active).map(|(&index, &active)| if active { index } else { 0 }).collect();
        let last: Vec<i64> = own.iter().map(|&index| index + i64::from(count) - 1).collect();
        self.check(&own, elements, name)?;
        self.check(&last, elements, name)?;
        match own.iter().find(|&&index| index % i64::from(count) != 0) {
            None => Ok(own),
            Some(&index) => Err(Fault::Unaligned { array: name.to_owned(), index, count }),
        }
    }

    /// Begins to copy to shared memory.
    fn copy(
        &mut self,
        (shared, to): (SharedId, ExprId),
        (buffer, from): (BufferId, ExprId),
        count: u32,
        when: ExprId,
    ) -> Result<(), Fault> {
        let (to, from, when) = (self.value(to)?, self.value(from)?, self.value(when)?.holds());
        let target = &self.kernel.shared[shared.index()];
        let source = &self.kernel.buffers[buffer.index()];
        let to = self.vector(to.indices(), count, u64::from(target.elements), &target.name)?;
        let read: Vec<i64> =
            from.indices().iter().zip(&when).map(|(&index, &reads)| if reads { index } else { 0 }).collect();
        let from = self.vector(&read, count, source.elements, &source.name)?;
        // Copies are of whole bytes: vectors of four bits begin with one.
        let bits = source.dtype.bits();
        let size = count as usize * bits / 8;
        for thread in (0..self.threads).filter(|&thread| self.active[thread]) {
            let first = from[thread] as usize * bits / 8;
            let bytes = match when[thread] {
                true => self.buffers[buffer.index()][first..first + size].to_vec(),
                false => vec![0; size],
            };
            self.begun.push(Copied { shared, at: to[thread] as usize * bits / 8, bytes });
        }
        Ok(())
    }

    /// Multiplies tiles in shared memory and adds the products to what lanes hold.
    fn multiply(
        &mut self,
        sums: VarId,
        tile: [u32; 3],
        (a, b): (Factor, Factor),
        b_by_rows: bool,
    ) -> Result<(), Fault> {
        let [rows, columns, depth] = tile.map(|size| size as usize);
        let spread = Spread::new(self.warp as u32, tile[1]).ok_or(Fault::NoMatrixUnit)?;
        let count = spread.count(tile[0]) as usize;
        if self.vars[sums.index()].len() != count {
            return Err(Fault::NoMatrixUnit);
        }
        let (a_at, b_at) = (self.value(a.at)?, self.value(b.at)?);
        for first in (0..self.threads).step_by(self.warp) {
            let lanes = first..(first + self.warp).min(self.threads);
            let at = |column: &Column| {
                let own = &column.indices()[lanes.clone()];
                own.iter().all(|index| *index == own[0]).then_some(own[0]).ok_or(Fault::Divergent)
            };
            let (a_first, b_first) = (at(&a_at)?, at(&b_at)?);
            let left = self.matrix(a, a_first, rows, depth)?;
            let mut right = match b_by_rows {
                true => self.matrix(b, b_first, depth, columns)?,
                false => self.matrix(b, b_first, columns, depth)?,
            };
            if !b_by_rows {
                right = (0..depth * columns).map(|place| right[place % columns * depth + place / columns]).collect();
            }
            let mut product = vec![0f64; rows * columns];
            let places = |lane: usize, sum: usize| {
                let (row, column) = spread.place(lane as u32, sum as u32);
                row as usize * columns + column as usize
            };
            for (sum, held) in self.vars[sums.index()].iter().enumerate() {
                for lane in 0..lanes.len() {
                    product[places(lane, sum)] = held.at(first + lane);
                }
            }
            let is_float = matches!(self.vars[sums.index()].first(), Some(Column::F32(_)));
            for (row, sums) in product.chunks_mut(columns).enumerate() {
                for k in 0..depth {
                    let x = left[row * depth + k];
                    for (sum, &y) in sums.iter_mut().zip(&right[k * columns..]) {
                        // Sums of floats are rounded to binary32 after each step.
                        *sum = if is_float {
                            f64::from((*sum + f64::from(x) * f64::from(y)) as f32)
                        } else {
                            *sum + f64::from(x) * f64::from(y)
                        };
                    }
                }
            }
            for (sum, held) in self.vars[sums.index()].iter_mut().enumerate() {
                for lane in 0..lanes.len() {
                    held.put(first + lane, product[places(lane, sum)]);
                }
            }
        }
        Ok(())
    }

    /// The elements of a matrix in shared memory as matrix units take them: binary32 with 10 bits of mantissa.
    fn matrix(&self, factor: Factor, first: i64, rows: usize, columns: usize) -> Result<Vec<f32>, Fault> {
        let shared = &self.kernel.shared[factor.shared.index()];
        let mut elements = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            let at = first + row as i64 * i64::from(factor.pitch);
            let end = at + columns as i64;
            if at < 0 || end > i64::from(shared.elements) {
                let (array, elements) = (shared.name.clone(), u64::from(shared.elements));
                return Err(Fault::Outside { array, index: end - 1, elements, thread: 0, block: self.block });
            }
            let mut line = vec![0f32; columns];
            let step = 2 * encoded_bytes(shared.dtype) as i64;
            f32::load(&self.shared[factor.shared.index()], shared.dtype, at * step, step, &mut line);
            if shared.dtype == DType::F32 {
                line.iter_mut().for_each(|x| *x = tf32(*x));
            }
            elements.extend(line);
        }
        Ok(elements)
    }

    /// Fails if a thread that takes part has an index outside.
    fn check(&self, indices: &[i64], elements: u64, name: &str) -> Result<(), Fault> {
        let outside = |&(thread, &index): &(usize, &i64)| self.active[thread] && !(0..elements as i64).contains(&index);
        match indices.iter().enumerate().find(outside) {
            None => Ok(()),
            Some((thread, &index)) => {
                Err(Fault::Outside { array: name.to_owned(), index, elements, thread, block: self.block })
            }
        }
    }

    /// Fails if a thread that takes part reads what was not handed to this block.
    fn check_handed(&self, buffer: BufferId, indices: &[i64]) -> Result<(), Fault> {
        let Some(Handed { owners, own }) = self.handed else { return Ok(()) };
        let owners = &owners[buffer.index()];
        if owners.is_empty() {
            return Ok(());
        }
        let strange =
            |&(thread, &index): &(usize, &i64)| self.active[thread] && owners.get(index as usize) != Some(&own);
        match indices.iter().enumerate().find(strange) {
            None => Ok(()),
            Some((thread, &index)) => {
                let array = self.kernel.buffers[buffer.index()].name.clone();
                Err(Fault::NotHanded { array, index, thread, block: self.block })
            }
        }
    }

    /// An index that is the same for all threads.
    fn constant(&self, id: ExprId) -> Result<usize, Fault> {
        let value = self.value(id)?;
        let first = self.active.iter().position(|&active| active).unwrap_or(0);
        Ok(usize::try_from(value.indices()[first]).unwrap_or(usize::MAX))
    }

    fn value(&self, id: ExprId) -> Result<Column, Fault> {
        let threads = self.threads;
        Ok(match self.kernel.exprs[id.index()] {
            Expr::Integer(value) => Column::Signed(vec![i64::from(value); threads]),
            Expr::Number(dtype, bits) => Column::same(dtype, bits, threads),
            Expr::Thread => Column::Signed((0..threads as i64).collect()),
            Expr::BlockNumber => {
                let [x, y, z] = self.block.map(i64::from);
                let [wide, high, _] = self.kernel.grid.map(i64::from);
                Column::Signed(vec![(z * high + y) * wide + x; threads])
            }
            Expr::Block(axis) => Column::Signed(vec![i64::from(self.block[usize::from(axis)]); threads]),
            Expr::Var(var) => self.held(var, 0)?.clone(),
            Expr::Element(var, index) => self.held(var, self.constant(index)?)?.clone(),
            Expr::Index(function, a, b) => self.index(function, a, b)?,
            Expr::Unary(function, dtype, x) => self.value(x)?.unary(function, dtype),
            Expr::Binary(function, dtype, a, b) => {
                let (a, mut b) = (self.value(a)?, self.value(b)?);
                // Threads that do not take part divide by something.
                if !dtype.is_float() && self.active.contains(&false) {
                    b = b.or(&self.active, &Column::same(dtype, 1, threads));
                }
                a.binary(function, dtype, &b).map_err(|_| Fault::DivisionByZero)?
            }
            Expr::MulAdd(dtype, [a, b, c]) => self.value(a)?.mul_add(dtype, &self.value(b)?, &self.value(c)?),
            Expr::Select([condition, a, b]) => self.selected(condition, a, b)?,
            Expr::Convert(from, to, x) => self.value(x)?.converted(from, to),
            Expr::Load(buffer, index) => {
                let index = self.value(index)?;
                let from = &self.kernel.buffers[buffer.index()];
                self.check(index.indices(), from.elements, &from.name)?;
                self.check_handed(buffer, index.indices())?;
                Column::gather(self.buffers[buffer.index()], from.dtype, index.indices(), &self.active)
            }
            Expr::LoadShared(shared, index) => {
                let index = self.value(index)?;
                let from = &self.kernel.shared[shared.index()];
                self.check(index.indices(), u64::from(from.elements), &from.name)?;
                Column::gather(&self.shared[shared.index()], from.dtype, index.indices(), &self.active)
            }
        })
    }

    fn selected(&self, condition: ExprId, a: ExprId, b: ExprId) -> Result<Column, Fault> {
        let holds = self.value(condition)?.holds();
        Ok(self.value(a)?.or(&holds, &self.value(b)?))
    }

    fn held(&self, var: VarId, index: usize) -> Result<&Column, Fault> {
        let name = &self.kernel.vars[var.index()].name;
        self.vars[var.index()].get(index).ok_or_else(|| Fault::Array(name.clone()))
    }

    fn index(&self, function: IndexFn, a: ExprId, b: ExprId) -> Result<Column, Fault> {
        let (a, b) = (self.value(a)?, self.value(b)?);
        let mut result = Vec::with_capacity(self.threads);
        for ((&a, &b), &active) in a.indices().iter().zip(b.indices()).zip(&self.active) {
            let value = match function {
                IndexFn::Add => a + b,
                IndexFn::Sub => a - b,
                IndexFn::Mul => a * b,
                IndexFn::Div => a.checked_div(b).unwrap_or(0),
                IndexFn::Mod => a.checked_rem(b).unwrap_or(0),
                IndexFn::Min => a.min(b),
                IndexFn::Max => a.max(b),
                IndexFn::Xor => a ^ b,
                IndexFn::Lt => i64::from(a < b),
                IndexFn::Ge => i64::from(a >= b),
                IndexFn::Eq => i64::from(a == b),
                IndexFn::And => i64::from(a != 0 && b != 0),
                IndexFn::Or => i64::from(a != 0 || b != 0),
            };
            if active && i32::try_from(value).is_err() {
                return Err(Fault::Overflow);
            }
            result.push(i64::from(value as i32));
        }
        Ok(Column::Signed(result))
    }
}

/// A binary32 with 10 bits of mantissa, as `cvt.rna.tf32.f32` rounds: to nearest, ties away from zero.
fn tf32(x: f32) -> f32 {
    if x.is_finite() { f32::from_bits(x.to_bits().wrapping_add(0x1000) & !0x1fff) } else { x }
}

/// Bytes of so many elements as buffers hold them.
pub(crate) fn buffer_bytes(dtype: DType, elements: u64) -> u64 {
    (elements * dtype.bits() as u64).div_ceil(8)
}
