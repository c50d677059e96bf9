//! One block: its threads, in step with each other from statement to statement.
//!
//! Kernels have no races, so that nobody can tell in which order threads do what stands between two barriers.

use tcc_ir::DType;

use super::column::Column;
use super::fault::Fault;
use crate::number::encoded_bytes;
use crate::simt::kernel::{BufferId, Expr, ExprId, IndexFn, Kernel, Stmt, VarId};

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
    /// The bytes of each buffer; none of one that is written.
    buffers: &'r [&'r [u8]],
    block: [u32; 3],
    threads: usize,
    vars: Vec<Vec<Column>>,
    shared: Vec<Vec<u8>>,
    active: Vec<bool>,
    writes: Writes,
}

/// Where the scope that each statement opens ends.
pub(in crate::simt) fn ends(body: &[Stmt]) -> Vec<usize> {
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
    pub fn new(
        kernel: &'r Kernel,
        ends: &'r [usize],
        warp: usize,
        buffers: &'r [&'r [u8]],
        block: [u32; 3],
    ) -> Self {
        let threads = kernel.threads as usize;
        let shared = kernel.shared.iter().map(|shared| vec![0; shared.dtype.bytes(shared.elements as usize)]).collect();
        Block {
            kernel,
            ends,
            warp,
            buffers,
            block,
            threads,
            vars: vec![Vec::new(); kernel.vars.len()],
            shared,
            active: vec![true; threads],
            writes: Writes::default(),
        }
    }

    /// Runs the block, and says what it has written.
    pub fn run(mut self) -> Result<Writes, Fault> {
        self.statements(0, self.kernel.body.len())?;
        Ok(self.writes)
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
            Stmt::Reduce { var, function, dtype, width, .. } => {
                let value = self.vars[var.index()][0].clone();
                self.vars[var.index()][0] = value.reduced(function, dtype, width as usize, self.warp);
            }
            Stmt::Barrier | Stmt::Else | Stmt::End => {}
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
        let size = encoded_bytes(to.dtype);
        let mut bytes = vec![0; self.threads * size];
        value.encode(to.dtype, &mut bytes);
        for (thread, &index) in index.indices().iter().enumerate().filter(|&(thread, _)| self.active[thread]) {
            self.writes.places.push((buffer, index as u64));
            self.writes.bytes.extend_from_slice(&bytes[thread * size..][..size]);
        }
        Ok(())
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

/// Bytes of so many elements as buffers hold them.
pub(in crate::simt) fn buffer_bytes(dtype: DType, elements: u64) -> u64 {
    (elements * dtype.bits() as u64).div_ceil(8)
}
