//! The values of one function where they are wanted: which signal has the value of an operation in a cycle of a block.
//!
//! A block that is not in a pipelined loop is done once at a time: what it computes goes to a register, where it stays until the block
//! is done again. In a pipelined loop several iterations are on their way, so that values move on by a register in each cycle.

use std::collections::BTreeSet;

use super::RtlError;
use super::text::{Piece, Text};
use crate::fpga::nest::{Block, BlockId, Form, Item, Kind, LoopId, OpId};
use crate::fpga::schedule::Schedule;

/// A value: all copies, in a vector or known.
#[derive(Clone, Debug)]
pub struct Value {
    name: String,
    form: Form,
    copies: u32,
    known: Option<Vec<u64>>,
}

impl Value {
    /// Copies of a vector.
    pub fn of(name: &str, form: Form, copies: u32) -> Value {
        Value { name: name.to_owned(), form, copies, known: None }
    }

    /// What a copy of an operation that has so many gets of it.
    pub fn piece(&self, copy: u32, copies: u32) -> Piece {
        let own = u64::from(copy) * u64::from(self.copies) / u64::from(copies.max(1));
        match &self.known {
            Some(numbers) => Piece::number(numbers.get(own as usize).copied().unwrap_or(0), self.form),
            None => Piece::of(&self.name, own as u32 * self.form.bits(), self.form),
        }
    }

    /// All copies.
    pub fn text(&self) -> String {
        match &self.known {
            None => self.name.clone(),
            Some(_) => {
                let pieces = (0..self.copies).rev().map(|copy| self.piece(copy, self.copies).plain());
                format!("{{{}}}", pieces.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Where a value is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    /// In a cycle of a block.
    In(BlockId, u32),
    /// Where a loop begins: outside of it.
    Before(LoopId),
    /// Between two items of what this loop does, or of the function.
    Among(Option<LoopId>),
}

/// A function that becomes hardware.
pub struct Scope<'s> {
    /// What all its names begin with.
    pub prefix: String,
    /// The function in time.
    pub schedule: &'s Schedule,
    /// The number of its first block among those of all functions.
    pub first_block: u32,
    /// The block that each operation is in.
    home: Vec<Option<BlockId>>,
    /// The loops that each block is in, the innermost last.
    block_loops: Vec<Vec<LoopId>>,
    /// The loops that each loop is in, itself last.
    loop_loops: Vec<Vec<LoopId>>,
    /// How far the flags of each block go.
    stages: Vec<u32>,
    /// What stands already.
    written: BTreeSet<String>,
}

impl<'s> Scope<'s> {
    /// A function of which nothing is written yet.
    pub fn new(prefix: String, schedule: &'s Schedule, first_block: u32) -> Scope<'s> {
        let nest = &schedule.nest;
        let mut scope = Scope {
            prefix,
            schedule,
            first_block,
            home: vec![None; nest.ops.len()],
            block_loops: vec![Vec::new(); nest.blocks.len()],
            loop_loops: vec![Vec::new(); nest.loops.len()],
            stages: vec![0; nest.blocks.len()],
            written: BTreeSet::new(),
        };
        for (number, Block { ops }) in nest.blocks.iter().enumerate() {
            for op in ops {
                scope.home[op.index()] = Some(BlockId(number as u32));
            }
        }
        scope.place(&nest.body, &mut Vec::new());
        scope
    }

    /// Finds which loops items are in.
    fn place(&mut self, items: &[Item], loops: &mut Vec<LoopId>) {
        let nest = &self.schedule.nest;
        for item in items {
            match item {
                Item::Block(block) => self.block_loops[block.index()] = loops.clone(),
                Item::Loop(id) => {
                    loops.push(*id);
                    self.loop_loops[id.index()] = loops.clone();
                    self.place(&nest.loops[id.index()].body, loops);
                    loops.pop();
                }
                Item::Branch { then, otherwise, .. } => {
                    self.place(then, loops);
                    self.place(otherwise, loops);
                }
            }
        }
    }

    /// The pipelined loop that a block is, if it is one.
    pub fn pipelined(&self, block: BlockId) -> Option<LoopId> {
        let id = *self.block_loops[block.index()].last()?;
        self.is_pipelined(id).then_some(id)
    }

    /// Whether a loop is pipelined: it is one block.
    pub fn is_pipelined(&self, id: LoopId) -> bool {
        let own = &self.schedule.nest.loops[id.index()];
        own.pipelined && matches!(own.body[..], [Item::Block(_)])
    }

    /// The cycle of its block in which an operation's value is there.
    pub fn ready(&self, op: OpId) -> u32 {
        self.schedule.starts[op.index()] + self.latency(op)
    }

    /// Cycles from the start of an operation to when its value is there.
    pub fn latency(&self, op: OpId) -> u32 {
        self.schedule.latencies[op.index()] + self.schedule.spans[op.index()].saturating_sub(1)
    }

    /// Bits of all copies of a value.
    pub fn bits(&self, op: OpId) -> u32 {
        let op = &self.schedule.nest.ops[op.index()];
        op.form.bits() * op.copies
    }

    /// What an operation's value is called in the cycle in which it is there first.
    pub fn raw(&self, op: OpId) -> String {
        format!("{}v{}", self.prefix, op.0)
    }

    fn vector(&self, op: OpId, name: &str) -> Value {
        let own = &self.schedule.nest.ops[op.index()];
        Value::of(name, own.form, own.copies)
    }

    /// The flag that is set in a cycle of a block while it is done.
    pub fn flag(&mut self, block: BlockId, stage: u32) -> String {
        let most = &mut self.stages[block.index()];
        *most = stage.max(*most);
        format!("{}b{}_t{stage}", self.prefix, block.0)
    }

    /// A name that nothing else has.
    pub fn fresh(&mut self, text: &str) -> String {
        let name = format!("{}{text}{}", self.prefix, self.written.len());
        self.written.insert(name.clone());
        name
    }

    /// Writes the flags of all blocks, of which the first are there.
    pub fn finish(self, text: &mut Text) {
        for (block, &stages) in self.stages.iter().enumerate() {
            for stage in 1..=stages {
                let name = |stage| format!("{}b{block}_t{stage}", self.prefix);
                text.flag(&name(stage), &name(stage - 1));
            }
        }
    }

    fn fault(&self, op: OpId, what: &str) -> RtlError {
        RtlError::Schedule(format!("the value of operation {} {what}", op.0))
    }

    /// The value of an operation where it is wanted.
    ///
    /// # Errors
    /// It is not there then.
    pub fn value(&mut self, text: &mut Text, op: OpId, want: Want) -> Result<Value, RtlError> {
        let nest = &self.schedule.nest;
        let own = &nest.ops[op.index()];
        let around: &[LoopId] = match want {
            Want::In(block, _) => &self.block_loops[block.index()],
            Want::Before(id) => {
                let all = &self.loop_loops[id.index()];
                &all[..all.len().saturating_sub(1)]
            }
            Want::Among(id) => id.map_or(&[], |id| &self.loop_loops[id.index()]),
        };
        match own.kind {
            Kind::Constant(ref numbers) => {
                Ok(Value { known: Some(numbers.clone()), ..Value::of("", own.form, own.copies) })
            }
            Kind::Counter(id) => {
                if !around.contains(&id) {
                    return Err(self.fault(op, "is wanted outside of its loop"));
                }
                let name = self.raw(op);
                let stage = match want {
                    Want::In(block, stage) if self.pipelined(block) == Some(id) => stage,
                    _ => 0,
                };
                let name = text.later(&name, own.form.bits() * own.copies, stage);
                Ok(self.vector(op, &name))
            }
            Kind::Carried(id) => match want {
                Want::In(block, stage) if self.pipelined(block) == Some(id) => {
                    let birth = self.birth(op, id);
                    let cycles = stage.checked_sub(birth).ok_or_else(|| self.fault(op, "is wanted too early"))?;
                    self.carry(text, op, id, block)?;
                    let name = text.later(&self.raw(op), self.bits(op), cycles);
                    Ok(self.vector(op, &name))
                }
                _ if around.contains(&id) => Ok(self.vector(op, &self.raw(op))),
                _ => Err(self.fault(op, "is wanted outside of its loop")),
            },
            Kind::Left(id) => {
                let carried = own.operands.first().copied().ok_or_else(|| self.fault(op, "is of nothing"))?;
                self.left(text, op, carried, id)
            }
            _ => {
                let home = self.home[op.index()].ok_or_else(|| self.fault(op, "is computed nowhere"))?;
                let ready = self.ready(op);
                match want {
                    Want::In(block, stage) if block == home => {
                        let cycles = stage.checked_sub(ready).ok_or_else(|| self.fault(op, "is wanted too early"))?;
                        if self.pipelined(block).is_some() {
                            let name = text.later(&self.raw(op), self.bits(op), cycles);
                            return Ok(self.vector(op, &name));
                        }
                        if cycles == 0 { Ok(self.vector(op, &self.raw(op))) } else { Ok(self.held(text, op, home)) }
                    }
                    _ if self.pipelined(home).is_some() => Err(self.fault(op, "is wanted behind its pipelined loop")),
                    _ => Ok(self.outside(text, op, home)),
                }
            }
        }
    }

    /// The register that keeps a value from the cycle on behind that in which it is there first.
    fn held(&mut self, text: &mut Text, op: OpId, home: BlockId) -> Value {
        let name = format!("{}h{}", self.prefix, op.0);
        if self.written.insert(name.clone()) {
            let flag = self.flag(home, self.ready(op));
            text.register(&name, self.bits(op), Some(&flag), &self.raw(op));
        }
        self.vector(op, &name)
    }

    /// A value behind its block: if it is there only when that ends, it has not come to its register yet.
    fn outside(&mut self, text: &mut Text, op: OpId, home: BlockId) -> Value {
        let held = self.held(text, op, home);
        if self.ready(op) < self.schedule.blocks[home.index()].depth {
            return held;
        }
        let name = format!("{}o{}", self.prefix, op.0);
        if self.written.insert(name.clone()) {
            let flag = self.flag(home, self.ready(op));
            text.wire(&name, self.bits(op), &format!("{flag} ? {} : {}", self.raw(op), held.text()));
        }
        self.vector(op, &name)
    }

    /// What a carried value of a loop becomes next.
    fn next(&self, op: OpId, id: LoopId) -> Result<(OpId, OpId), RtlError> {
        let carried = self.schedule.nest.loops[id.index()].carried.iter().find(|carried| carried.op == op);
        let carried = carried.ok_or_else(|| self.fault(op, "is carried by no loop"))?;
        Ok((carried.initial, carried.next))
    }

    /// The cycle of an iteration in which a carried value is wanted first.
    fn birth(&self, op: OpId, id: LoopId) -> u32 {
        let nest = &self.schedule.nest;
        let own = &nest.loops[id.index()];
        let interval = self.interval(id);
        let uses = |wanted: OpId| {
            let ops = own.body.iter().flat_map(|item| match item {
                Item::Block(block) => nest.blocks[block.index()].ops.as_slice(),
                Item::Loop(_) | Item::Branch { .. } => &[],
            });
            let users = ops.filter(move |user| {
                let user = &nest.ops[user.index()];
                user.operands.contains(&wanted) || user.predicate == Some(wanted)
            });
            users.map(|user| self.schedule.starts[user.index()]).min()
        };
        // What another carried value becomes next is wanted an interval after that is.
        let mut births: Vec<(OpId, Option<u32>)> = own.carried.iter().map(|own| (own.op, uses(own.op))).collect();
        for _ in 0..births.len() {
            let mut changed = false;
            for (place, carried) in own.carried.iter().enumerate() {
                let Some(later) = births[place].1.map(|birth| birth + interval) else { continue };
                if let Some(before) = births.iter_mut().find(|(op, _)| *op == carried.next)
                    && before.1.is_none_or(|birth| birth > later)
                {
                    before.1 = Some(later);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        births.iter().find(|(own, _)| *own == op).and_then(|(_, birth)| *birth).unwrap_or(0)
    }

    fn interval(&self, id: LoopId) -> u32 {
        self.schedule.loops[id.index()].interval as u32
    }

    /// Writes what a pipelined loop carries: in the first iteration what it is before the loop, later what the iteration before has
    /// made of it, which began an interval earlier.
    fn carry(&mut self, text: &mut Text, op: OpId, id: LoopId, block: BlockId) -> Result<(), RtlError> {
        let name = self.raw(op);
        if !self.written.insert(name.clone()) {
            return Ok(());
        }
        let (initial, next) = self.next(op, id)?;
        let birth = self.birth(op, id);
        let initial = self.value(text, initial, Want::Before(id))?;
        let next = self.value(text, next, Want::In(block, birth + self.interval(id)))?;
        let first = text.later(&format!("{}b{}_first", self.prefix, block.0), 1, birth);
        let value = format!("{first} ? {} : {}", self.fitted(&initial, op), self.fitted(&next, op));
        text.wire(&name, self.bits(op), &value);
        Ok(())
    }

    /// A value in the form of another.
    pub fn fitted(&self, value: &Value, op: OpId) -> String {
        let own = &self.schedule.nest.ops[op.index()];
        if value.copies == own.copies && value.form.bits() == own.form.bits() {
            return value.text();
        }
        let pieces = (0..own.copies).rev().map(|copy| value.piece(copy, own.copies).extended(own.form.bits()));
        format!("{{{}}}", pieces.collect::<Vec<_>>().join(", "))
    }

    /// What a loop leaves of a carried value.
    fn left(&mut self, text: &mut Text, op: OpId, carried: OpId, id: LoopId) -> Result<Value, RtlError> {
        let nest = &self.schedule.nest;
        let (_, next) = self.next(carried, id)?;
        let name = format!("{}o{}", self.prefix, op.0);
        if !self.written.insert(name.clone()) {
            return Ok(self.vector(op, &name));
        }
        let own = &nest.loops[id.index()];
        let (true, [Item::Block(block)]) = (self.is_pipelined(id), own.body.as_slice()) else {
            let next = self.upcoming(text, next, id)?;
            let next = self.fitted(&next, op);
            text.wire(&name, self.bits(op), &next);
            return Ok(self.vector(op, &name));
        };
        let ready = match nest.ops[next.index()].kind {
            Kind::Carried(own) if own == id => Some(self.birth(next, id)),
            _ => self.home[next.index()].filter(|home| home == block).map(|_| self.ready(next)),
        };
        let next = match ready {
            Some(ready) => self.value(text, next, Want::In(*block, ready))?,
            None => self.value(text, next, Want::Before(id))?,
        };
        let next = self.fitted(&next, op);
        let Some(ready) = ready else {
            text.wire(&name, self.bits(op), &next);
            return Ok(self.vector(op, &name));
        };
        let held = format!("{}h{}", self.prefix, op.0);
        let flag = self.flag(*block, ready);
        text.register(&held, self.bits(op), Some(&flag), &next);
        let value = if u64::from(ready) < self.schedule.loops[id.index()].depth {
            held
        } else {
            format!("{flag} ? {next} : {held}")
        };
        text.wire(&name, self.bits(op), &value);
        Ok(self.vector(op, &name))
    }

    /// What an iteration of a loop that is not pipelined has made of a carried value for the next, once it has ended.
    pub fn upcoming(&mut self, text: &mut Text, next: OpId, id: LoopId) -> Result<Value, RtlError> {
        match self.schedule.nest.ops[next.index()].kind {
            // The register still holds what it was in the iteration that has ended.
            Kind::Carried(own) if own == id => Ok(self.vector(next, &format!("{}r{}", self.prefix, next.0))),
            _ => self.value(text, next, Want::Among(Some(id))),
        }
    }
}
