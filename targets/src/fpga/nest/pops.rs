//! What comes through the loader: parameters that go by in order, each element once.

use std::collections::{BTreeSet, HashMap};

use super::finish::Finish;
use super::values::Values;
use super::{ArrayId, ArrayPlace, BlockId, Counter, Item, Kind, LoopId, OpId, Pop};
use crate::fpga::access::{Pattern, Place};
use crate::fpga::design::Home;
use crate::kernel::{Expr, Kernel, Stmt};

/// A parameter that comes through the loader, and what reads it.
struct Read {
    array: ArrayId,
    stream: u32,
    channels: u32,
    ops: Vec<OpId>,
}

impl Finish {
    /// Has what comes through the loader taken from its FIFOs, without an address.
    ///
    /// # Errors
    /// In words, why it does not come in order.
    pub(super) fn pop(&mut self, body: &[Item], values: &mut Values) -> Result<(), String> {
        let mut chains = HashMap::new();
        self.chains(body, &mut Vec::new(), &mut chains);
        for (index, array) in self.nest.arrays.iter().enumerate() {
            let ArrayPlace::Loaded { stream, channels } = array.place else { continue };
            let (array, name) = (ArrayId(index as u32), array.name.clone());
            let mut homes = BTreeSet::new();
            let mut ops = Vec::new();
            for (number, block) in self.nest.blocks.iter().enumerate() {
                for &id in &block.ops {
                    match &self.nest.ops[id.index()].kind {
                        Kind::Load(own, _) if *own == array => {
                            homes.insert(BlockId(number as u32));
                            ops.push(id);
                        }
                        Kind::Store(own, _) if *own == array => {
                            return Err(format!("it writes `{name}`, which is loaded"));
                        }
                        _ => {}
                    }
                }
            }
            let home = homes.first().filter(|_| homes.len() == 1).and_then(|block| chains.get(block));
            let home = home.cloned().ok_or_else(|| format!("`{name}` is not read in one loop"))?;
            let pop =
                self.one(Read { array, stream, channels, ops }, &home).map_err(|what| format!("`{name}` {what}"))?;
            self.nest.pops.push(pop);
        }
        let loaded = |id: &OpId| match self.nest.ops[id.index()].kind {
            Kind::Load(array, _) => self.nest.pops.iter().any(|pop| pop.array == array),
            _ => false,
        };
        let loads: Vec<OpId> = (0..self.nest.ops.len() as u32).map(OpId).filter(loaded).collect();
        if loads.is_empty() {
            return Ok(());
        }
        let zero = values.integer(0);
        self.adopt(values);
        for id in loads {
            self.nest.ops[id.index()].operands[0] = zero;
            self.reached.remove(&id);
        }
        Ok(())
    }

    /// The loops around each block that stands in nothing else, outermost first.
    fn chains(&self, items: &[Item], open: &mut Vec<LoopId>, found: &mut HashMap<BlockId, Vec<LoopId>>) {
        for item in items {
            match item {
                Item::Block(id) => {
                    found.insert(*id, open.clone());
                }
                Item::Loop(id) => {
                    open.push(*id);
                    self.chains(&self.nest.loops[id.index()].body, open, found);
                    open.pop();
                }
                Item::Branch { .. } => {}
            }
        }
    }

    /// What a loop takes of one parameter.
    fn one(&self, read: Read, home: &[LoopId]) -> Result<Pop, String> {
        let Read { array, stream, channels, ops } = read;
        let of_beat = i64::from(self.nest.arrays[array.index()].banks);
        let within = home.last().copied().filter(|id| self.nest.loops[id.index()].pipelined);
        let within = within.ok_or("is not read in a loop that is pipelined")?;
        let counters: Vec<Counter> =
            home.iter().flat_map(|id| self.nest.loops[id.index()].counters.iter().copied()).collect();
        let mut elements = BTreeSet::new();
        let mut terms: Option<Vec<(OpId, i64)>> = None;
        for id in ops {
            let op = &self.nest.ops[id.index()];
            // Where an iteration takes whole beats, terms are in beats, else in elements.
            let (own, unit): (Vec<i64>, i64) = match &op.kind {
                Kind::Load(_, Pattern::Fixed(places)) => {
                    (places.iter().map(|&Place { word, bank }| word * of_beat + i64::from(bank)).collect(), of_beat)
                }
                Kind::Load(_, Pattern::Shifted(distances)) => (distances.clone(), 1),
                _ => return Err("is read in several places at once".to_owned()),
            };
            if op.predicate.is_some() {
                return Err("is read only where something holds".to_owned());
            }
            let linear = self.reached.get(&id).ok_or("is read from places that are not known")?;
            let own_terms: Vec<(OpId, i64)> = linear.terms.iter().map(|&(term, by)| (term, by * unit)).collect();
            if terms.get_or_insert_with(|| own_terms.clone()) != &own_terms {
                return Err("is read in several ways".to_owned());
            }
            elements.extend(own);
        }
        let count = elements.len() as i64;
        let is_whole = elements.first() == Some(&0) && elements.last() == Some(&(count - 1));
        let divides = |a: i64, b: i64| a > 0 && b % a == 0;
        if !is_whole || !divides(of_beat, count) && !divides(count, of_beat) {
            return Err(format!("is read {count} elements at a time, which are no beats, or not an even part of one"));
        }
        let terms = terms.unwrap_or_default();
        let mut expected = count;
        for counter in counters.iter().rev() {
            let found = terms.iter().find(|(term, _)| *term == counter.op).map_or(0, |&(_, by)| by);
            if found != expected {
                return Err("is not read from the first element to the last".to_owned());
            }
            expected = expected.saturating_mul(counter.trips as i64);
        }
        if terms.len() != counters.len() {
            return Err("is read from places that data says".to_owned());
        }
        let (beats, channels) = ((count / of_beat) as u64, u64::from(channels));
        if channels == 0 || beats > 0 && !beats.is_multiple_of(channels) && !channels.is_multiple_of(beats) {
            return Err(format!("is read {beats} beats at a time, from {channels} channels"));
        }
        let bits = count as u64 * self.nest.arrays[array.index()].dtype.bits() as u64;
        Ok(Pop { within, array, stream, bits, channels })
    }
}

/// Whether a kernel that is called with several grids does something that depends on more than its place along each axis, or reads
/// external memory by itself.
pub(in crate::fpga) fn depends_on_grid(kernel: &Kernel, homes: &[Home]) -> bool {
    if homes.iter().any(|home| matches!(home, Home::External { .. })) {
        return true;
    }
    let counted = counted(kernel);
    let is_loaded = |buffer: usize| matches!(homes.get(buffer), Some(Home::Loaded { .. }));
    let of_exprs = kernel.exprs.iter().any(|expr| match *expr {
        Expr::Load(buffer, index) => counted[index.index()] && !is_loaded(buffer.index()),
        Expr::Element(_, index) | Expr::LoadShared(_, index) => counted[index.index()],
        _ => false,
    });
    let of_stmts = kernel.body.iter().any(|stmt| match *stmt {
        Stmt::Let(..) | Stmt::End | Stmt::Else | Stmt::Barrier => false,
        // What is computed from what was loaded is not counted.
        _ => stmt.operands().any(|id| counted[id.index()]) || stmt.addresses().any(|(_, id)| counted[id.index()]),
    });
    of_exprs || of_stmts
}

/// Expressions that are computed from the number of the block.
fn counted(kernel: &Kernel) -> Vec<bool> {
    let (mut exprs, mut vars) = (vec![false; kernel.exprs.len()], vec![false; kernel.vars.len()]);
    loop {
        for (index, expr) in kernel.exprs.iter().enumerate() {
            exprs[index] = match *expr {
                Expr::BlockNumber => true,
                Expr::Var(var) | Expr::Element(var, _) => vars[var.index()],
                Expr::Load(..) | Expr::LoadShared(..) => false,
                _ => expr.operands().any(|operand| exprs[operand.index()]),
            };
        }
        let mut is_over = true;
        for stmt in &kernel.body {
            if let Stmt::Let(var, value) | Stmt::Set(var, value) | Stmt::SetElement(var, _, value) = *stmt
                && exprs[value.index()]
                && !std::mem::replace(&mut vars[var.index()], true)
            {
                is_over = false;
            }
        }
        if is_over {
            return exprs;
        }
    }
}
