//! Scheduled functions as one module in SystemVerilog, and a module around it that has external memory for simulations.
//!
//! What is done passes a token on: each item has a flag that is set in its last cycle, and what comes next begins in the cycle after
//! that. Where a loop is entered, left or gone through again, and where a branch is decided, the token takes the cycles that
//! [`schedule`](crate::fpga::schedule) counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::RtlError;
use super::access::Placed;
use super::memories::Banked;
use super::operators::{Finish, Maker, Pool, Slot, folder, maker, sums};
use super::scope::{Scope, Value, Want};
use super::text::{Piece, Text};
use crate::fpga::design::{OnChip, Storage};
use crate::fpga::nest::{ArrayPlace, BlockId, Form, Item, Kind, LoopId, OpId};
use crate::fpga::operators::fold_class;
use crate::fpga::schedule::{Schedule, is_shared};

/// What is built: memories, functions, and the calls of them one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    /// Memories on the part.
    pub memories: &'a [OnChip],
    /// Functions.
    pub functions: &'a [&'a Schedule],
    /// What is called, in order.
    pub calls: &'a [Call],
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The place of its function.
    pub function: usize,
    /// The first word of each parameter in its memory.
    pub bases: Vec<u64>,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The module `functions`.
    pub text: String,
    /// Numbers of operators by module.
    pub operators: BTreeMap<&'static str, usize>,
}

/// A module that is being written.
pub(super) struct Emitter<'a> {
    pub text: Text,
    pub pool: Pool,
    pub memories: Vec<Banked>,
    whole: Whole<'a>,
}

/// Writes all of it.
///
/// # Errors
/// The library has no operator for what a function does, or a schedule has something where it cannot be.
pub fn emit(whole: Whole<'_>) -> Result<Emitted, RtlError> {
    let mut emitter = Emitter { text: Text::default(), pool: Pool::default(), memories: Vec::new(), whole };
    let mut first_bank = 0;
    for memory in whole.memories {
        let width = memory.dtype.bits() as u32;
        let name = format!("m{}", emitter.memories.len());
        let size = (memory.banks, memory.words);
        emitter.memories.push(Banked::new(&name, width, size, memory.storage, Some(first_bank)));
        first_bank += memory.banks;
    }
    emitter.all_calls()?;
    let Emitter { mut text, pool, memories, .. } = emitter;
    let operators = pool.counts();
    pool.write(&mut text);
    let mut seen = Vec::new();
    for memory in memories {
        let (host, width) = (memory.host, memory.width);
        let own = memory.finish(&mut text);
        if let Some(first) = host {
            seen.extend(own.into_iter().enumerate().map(|(bank, name)| (first as usize + bank, name, width)));
        }
    }
    let terms: Vec<String> = seen
        .into_iter()
        .map(|(bank, name, width)| {
            let wide = Piece::of(&name, 0, Form::Integer { bits: width as u8, signed: false }).extended(64);
            format!("({{64{{host_bank == {bank}}}}} & {wide})")
        })
        .collect();
    let host_out = if terms.is_empty() { "64'h0".to_owned() } else { terms.join(" | ") };
    text.line(&format!("assign host_out = {host_out};"));
    let mut module = String::from(
        "module functions (\n  input logic clk,\n  input logic reset,\n  input logic start,\n  output logic done,\n  input logic \
         [31:0] host_bank,\n  input logic [31:0] host_word,\n  input logic host_write,\n  input logic [63:0] host_in,\n  output \
         logic [63:0] host_out\n);\n  `include \"narrow.svh\"\n",
    );
    let _ = writeln!(module, "{}endmodule", text.finish());
    Ok(Emitted { text: module, operators })
}

impl Emitter<'_> {
    /// Writes functions, and what calls them.
    fn all_calls(&mut self) -> Result<(), RtlError> {
        let Whole { functions, calls, .. } = self.whole;
        let number_bits = 32;
        let many = calls.len() > 1;
        let mut ends = Vec::new();
        let mut first_block = 0;
        for (function, &schedule) in functions.iter().enumerate() {
            let own: Vec<usize> = (0..calls.len()).filter(|&call| calls[call].function == function).collect();
            if own.is_empty() {
                continue;
            }
            let begin = format!("f{function}_go");
            let mut scope = Scope::new(format!("f{function}_"), schedule, first_block);
            first_block += schedule.nest.blocks.len() as u32;
            let arrays = self.arrays(&scope, &own)?;
            // A call takes a cycle to begin, and one to end.
            let go = self.after(&mut scope, &begin);
            let end = self.items(&mut scope, &arrays, &schedule.nest.body, None, go)?;
            scope.finish(&mut self.text);
            self.text.flag(&format!("f{function}_end"), &end);
            ends.push((function, own));
        }
        for (function, own) in &ends {
            let starts = own.iter().map(|&call| match call.checked_sub(1) {
                None => "start".to_owned(),
                Some(before) => format!("(f{}_end && call == {before})", calls[before].function),
            });
            self.text.wire(&format!("f{function}_go"), 1, &starts.collect::<Vec<_>>().join(" || "));
        }
        if many {
            let any: Vec<String> = ends.iter().map(|(function, _)| format!("f{function}_end")).collect();
            self.text.register("call", number_bits, None, &format!("start ? 0 : call + 32'({})", any.join(" || ")));
        }
        let last = calls.len().checked_sub(1).ok_or_else(|| RtlError::Schedule("nothing is called".to_owned()))?;
        let number = if many { format!(" && call == {last}") } else { String::new() };
        self.text.line(&format!("assign done = f{}_end{number};", calls[last].function));
        Ok(())
    }

    /// Where the arrays of a function lie, which is called by some calls.
    fn arrays(&mut self, scope: &Scope<'_>, calls: &[usize]) -> Result<Vec<Placed>, RtlError> {
        let mut placed = Vec::new();
        let immediate = |array: usize| {
            scope
                .schedule
                .nest
                .ops
                .iter()
                .zip(&scope.schedule.latencies)
                .any(|(op, &latency)| latency == 0 && matches!(op.kind, Kind::Load(own, _) if own.index() == array))
        };
        for (number, array) in scope.schedule.nest.arrays.iter().enumerate() {
            let width = array.dtype.bits() as u32;
            let memory = match array.place {
                ArrayPlace::OnChip(memory) => memory.index(),
                ArrayPlace::External { .. } | ArrayPlace::Loaded { .. } => {
                    return Err(RtlError::Unsupported(format!("`{}` in external memory", array.name)));
                }
                ArrayPlace::Fifo(_) => {
                    return Err(RtlError::Unsupported(format!("`{}` in a FIFO", array.name)));
                }
                ArrayPlace::Local => {
                    let name = format!("{}a{number}", scope.prefix);
                    let own = scope.schedule.memories.iter().find(|own| own.array.index() == number);
                    let storage = own.map_or(Storage::Bram, |own| own.storage);
                    let size = (array.banks.max(1), array.words());
                    self.memories.push(Banked::new(&name, width, size, storage, None));
                    self.memories.len() - 1
                }
            };
            let own = self.memories.get_mut(memory);
            let own = own.ok_or_else(|| RtlError::Schedule(format!("`{}` lies in no memory", array.name)))?;
            if own.banks() != array.banks.max(1) {
                return Err(RtlError::Schedule(format!("`{}` has other banks than its memory", array.name)));
            }
            own.immediate |= own.storage == Storage::Lutram && immediate(number);
            let bits = own.address_bits();
            let bases = calls.iter().map(|&call| self.whole.calls[call].bases.get(number).copied().unwrap_or(0));
            let bases: Vec<u64> = bases.collect();
            let base = if bases.iter().all(|&base| base == bases[0]) {
                format!("{bits}'d{}", bases[0])
            } else {
                let name = format!("{}base{number}", scope.prefix);
                let terms = calls.iter().zip(&bases);
                let terms = terms.map(|(call, base)| format!("({{{bits}{{call == {call}}}}} & {bits}'d{base})"));
                self.text.wire(&name, bits, &terms.collect::<Vec<_>>().join(" | "));
                name
            };
            placed.push(Placed { memory, base });
        }
        Ok(placed)
    }

    /// Writes what is done in order after a flag is set, and returns the flag that is set in its last cycle.
    fn items(
        &mut self,
        scope: &mut Scope<'_>,
        arrays: &[Placed],
        items: &[Item],
        within: Option<LoopId>,
        mut go: String,
    ) -> Result<String, RtlError> {
        for item in items {
            go = match item {
                Item::Block(block) => self.straight(scope, arrays, *block, &go)?,
                Item::Loop(id) if scope.is_pipelined(*id) => self.pipelined(scope, arrays, *id, &go)?,
                Item::Loop(id) => self.sequential(scope, arrays, *id, &go)?,
                Item::Branch { condition, then, otherwise } => {
                    let decides = self.after(scope, &go);
                    let condition = scope.value(&mut self.text, *condition, Want::Among(within))?.piece(0, 1).truth();
                    let mut ends = Vec::new();
                    for (side, sign) in [(then, ""), (otherwise, "!")] {
                        let own = scope.fresh("side");
                        self.text.wire(&own, 1, &format!("{decides} && {sign}{condition}"));
                        ends.push(self.items(scope, arrays, side, within, own)?);
                    }
                    format!("({})", ends.join(" || "))
                }
            };
        }
        Ok(go)
    }

    /// A flag that is set a cycle after another.
    fn after(&mut self, scope: &mut Scope<'_>, flag: &str) -> String {
        let name = scope.fresh("s");
        self.text.flag(&name, flag);
        name
    }

    fn straight(
        &mut self,
        scope: &mut Scope<'_>,
        arrays: &[Placed],
        block: BlockId,
        go: &str,
    ) -> Result<String, RtlError> {
        let depth = scope.schedule.blocks[block.index()].depth;
        if depth == 0 {
            return Err(RtlError::Schedule("a block takes no cycles".to_owned()));
        }
        let first = scope.flag(block, 0);
        self.text.flag(&first, go);
        self.operations(scope, arrays, block)?;
        Ok(scope.flag(block, depth - 1))
    }

    /// Writes a loop's counters, which begin after one flag is set, and go on after each cycle in which another is. Returns whether all
    /// are where they begin, and where they end.
    fn counters(&mut self, scope: &mut Scope<'_>, id: LoopId, go: &str, step: &str) -> (String, String) {
        let own = &scope.schedule.nest.loops[id.index()];
        let base = format!("{}l{}", scope.prefix, id.0);
        let (mut is_first, mut is_last) = (Vec::new(), vec![]);
        for (number, counter) in own.counters.iter().enumerate().rev() {
            let most = counter.trips.saturating_sub(1);
            let (name, bits) = (scope.raw(counter.op), scope.bits(counter.op));
            let goes = std::iter::once(step.to_owned()).chain(is_last.iter().cloned()).collect::<Vec<_>>().join(" && ");
            let last = format!("{base}_last{number}");
            self.text.wire(&last, 1, &format!("{name} == {bits}'d{most}"));
            let next = format!("{go} ? {bits}'d0 : {goes} ? ({last} ? {bits}'d0 : {name} + {bits}'d1) : {name}");
            self.text.register(&name, bits, None, &next);
            is_first.push(format!("{name} == 0"));
            is_last.push(last);
        }
        // A loop without counters is done once.
        is_first.push("1'b1".to_owned());
        is_last.push("1'b1".to_owned());
        (is_first.join(" && "), is_last.join(" && "))
    }

    fn pipelined(
        &mut self,
        scope: &mut Scope<'_>,
        arrays: &[Placed],
        id: LoopId,
        go: &str,
    ) -> Result<String, RtlError> {
        let own = &scope.schedule.nest.loops[id.index()];
        let [Item::Block(block)] = own.body.as_slice() else {
            return Err(RtlError::Schedule("a pipelined loop is not one block".to_owned()));
        };
        let (interval, depth) = (scope.schedule.loops[id.index()].interval, scope.schedule.loops[id.index()].depth);
        if interval == 0 || depth == 0 {
            return Err(RtlError::Schedule("a pipelined loop takes no time".to_owned()));
        }
        let base = format!("{}l{}", scope.prefix, id.0);
        let enters = self.after(scope, go);
        let (busy, tick, since) = (format!("{base}_busy"), format!("{base}_tick"), format!("{base}_since"));
        // Cycles since the last iteration began.
        let bits = (64 - (interval - 1).leading_zeros()).max(1);
        let next = format!("{enters} || {tick} ? {bits}'d0 : {since} + {bits}'d1");
        self.text.register(&since, bits, None, &next);
        self.text.wire(&tick, 1, &format!("{busy} && {since} == {bits}'d{}", interval - 1));
        let (is_first, is_last) = self.counters(scope, id, &enters, &tick);
        let last = format!("{base}_last");
        self.text.wire(&last, 1, &is_last);
        self.text.flag(&busy, &format!("{enters} || ({busy} && !({tick} && {last}))"));
        let begins = scope.flag(*block, 0);
        self.text.wire(&begins, 1, &format!("{busy} && {since} == 0"));
        self.text.wire(&format!("{}b{}_first", scope.prefix, block.0), 1, &is_first);
        self.operations(scope, arrays, *block)?;
        // The last iteration, on its way, and a cycle to leave.
        let mut end = format!("{base}_z0");
        self.text.wire(&end, 1, &format!("{begins} && {last}"));
        for stage in 1..=depth {
            let next = format!("{base}_z{stage}");
            self.text.flag(&next, &end);
            end = next;
        }
        Ok(end)
    }

    fn sequential(
        &mut self,
        scope: &mut Scope<'_>,
        arrays: &[Placed],
        id: LoopId,
        go: &str,
    ) -> Result<String, RtlError> {
        let own = &scope.schedule.nest.loops[id.index()];
        let base = format!("{}l{}", scope.prefix, id.0);
        let enters = self.after(scope, go);
        // In the last cycle of each iteration counters go on.
        let ends = format!("{base}_ends");
        let (is_first, is_last) = self.counters(scope, id, &enters, &ends);
        let last = format!("{base}_last");
        self.text.wire(&last, 1, &is_last);
        let body = format!("({enters} || ({ends} && !{last}))");
        let begins = self.after(scope, &body);
        let first = format!("{base}_first");
        self.text.wire(&first, 1, &is_first);
        for carried in &own.carried {
            let (raw, bits) = (scope.raw(carried.op), scope.bits(carried.op));
            if matches!(scope.schedule.nest.ops[carried.next.index()].kind, Kind::Counter(own) if own == id) {
                return Err(RtlError::Unsupported("a loop that carries its own counter".to_owned()));
            }
            let initial = scope.value(&mut self.text, carried.initial, Want::Before(id))?;
            let next = scope.upcoming(&mut self.text, carried.next, id)?;
            let register = format!("{}r{}", scope.prefix, carried.op.0);
            let (initial, next) = (scope.fitted(&initial, carried.op), scope.fitted(&next, carried.op));
            let value = format!("{begins} ? ({first} ? {initial} : {next}) : {register}");
            self.text.wire(&raw, bits, &value);
            self.text.register(&register, bits, None, &raw);
        }
        let end = self.items(scope, arrays, &own.body, Some(id), body)?;
        self.text.flag(&ends, &end);
        Ok(format!("({ends} && {last})"))
    }

    /// Writes the operations of a block.
    fn operations(&mut self, scope: &mut Scope<'_>, arrays: &[Placed], block: BlockId) -> Result<(), RtlError> {
        let schedule = scope.schedule;
        for &id in &schedule.nest.blocks[block.index()].ops {
            let op = &schedule.nest.ops[id.index()];
            match &op.kind {
                Kind::Constant(_) | Kind::Counter(_) | Kind::Carried(_) | Kind::Left(_) => {
                    return Err(RtlError::Schedule("what no block computes is in a block".to_owned()));
                }
                Kind::Load(array, pattern) => self.load(scope, block, id, (&arrays[array.index()], *array), pattern)?,
                Kind::Store(array, pattern) => {
                    self.store(scope, block, id, (&arrays[array.index()], *array), pattern)?
                }
                Kind::Fold { .. } => self.fold(scope, block, id)?,
                Kind::Index(_)
                | Kind::Unary(..)
                | Kind::Binary(..)
                | Kind::MulAdd(_)
                | Kind::Select
                | Kind::Convert(..) => self.arithmetic(scope, block, id)?,
            }
        }
        Ok(())
    }

    /// When operands that are there in a cycle of a block are given to what is shared.
    pub fn slot(&self, scope: &Scope<'_>, block: BlockId, stage: u32) -> Slot {
        let cycle = u64::from(stage);
        let cycle = match scope.pipelined(block) {
            Some(id) => cycle % scope.schedule.loops[id.index()].interval.max(1),
            None => cycle,
        };
        Slot { block: scope.first_block + block.0, cycle }
    }

    /// What an expression or an operator gives so many cycles after a cycle of a block.
    fn made(
        &mut self,
        scope: &mut Scope<'_>,
        (block, stage, latency): (BlockId, u32, u32),
        (name, form): (&str, Form),
        (made, shared): (Maker, bool),
    ) -> String {
        let bits = form.bits();
        match made {
            Maker::Logic(text) => {
                self.text.wire(name, bits, &text);
                self.text.later(name, bits, latency)
            }
            Maker::Operator(class, operands, finish) => {
                let flag = scope.flag(block, stage);
                let slot = self.slot(scope, block, stage);
                let result = self.pool.take(&class, shared, slot, &flag, operands);
                let own = |signed| Form::Integer { bits: class.output() as u8, signed };
                let value = match finish {
                    Finish::Lower => Piece::of(&result, 0, own(true)).extended(bits),
                    Finish::Shifted(by) => Piece::of(&result, 0, own(false)).above(by).extended(bits),
                    Finish::Rest(of, by, divisor) => {
                        let whole = format!("{name}_of");
                        self.text.wire(&whole, of.bits, &of.plain());
                        let whole = self.text.later(&whole, of.bits, latency);
                        let quotient = Piece::of(&result, 0, own(false)).above(by).extended(of.bits);
                        let product = sums(&quotient, i128::from(divisor), of.bits);
                        let rest = format!("{name}_rest");
                        self.text.wire(&rest, of.bits, &format!("{whole} - ({product})"));
                        Piece::of(&rest, 0, Form::Integer { bits: of.bits as u8, signed: false }).extended(bits)
                    }
                };
                self.text.wire(name, bits, &value);
                name.to_owned()
            }
        }
    }

    fn arithmetic(&mut self, scope: &mut Scope<'_>, block: BlockId, id: OpId) -> Result<(), RtlError> {
        let schedule = scope.schedule;
        let op = &schedule.nest.ops[id.index()];
        let (start, latency) = (schedule.starts[id.index()], schedule.latencies[id.index()]);
        let operands: Vec<Value> = op
            .operands
            .iter()
            .map(|&operand| scope.value(&mut self.text, operand, Want::In(block, start)))
            .collect::<Result<_, _>>()?;
        let raw = scope.raw(id);
        let counted = schedule.nest.class(op);
        let shared = is_shared(counted);
        let mut copies = Vec::new();
        for copy in 0..op.copies {
            let pieces: Vec<Piece> = operands.iter().map(|operand| operand.piece(copy, op.copies)).collect();
            let made = maker(&op.kind, counted, op.form, latency, &pieces)?;
            let name = format!("{raw}_c{copy}");
            copies.push(self.made(scope, (block, start, latency), (&name, op.form), (made, shared)));
        }
        self.joined(&raw, op.form.bits(), &copies);
        Ok(())
    }

    /// Makes one vector of all copies.
    pub fn joined(&mut self, raw: &str, bits: u32, copies: &[String]) {
        let all: Vec<&str> = copies.iter().rev().map(String::as_str).collect();
        self.text.wire(raw, bits * copies.len() as u32, &format!("{{{}}}", all.join(", ")));
    }

    fn fold(&mut self, scope: &mut Scope<'_>, block: BlockId, id: OpId) -> Result<(), RtlError> {
        let schedule = scope.schedule;
        let op = &schedule.nest.ops[id.index()];
        let (Kind::Fold { function, dtype, width }, [operand]) = (&op.kind, op.operands.as_slice()) else {
            return Err(RtlError::Schedule("a fold has not one operand".to_owned()));
        };
        let (start, latency) = (schedule.starts[id.index()], schedule.latencies[id.index()]);
        let levels = width.trailing_zeros();
        let shared = is_shared(fold_class(op.form, *function, *dtype));
        if !width.is_power_of_two() {
            return Err(RtlError::Unsupported(format!("a fold of {width} lanes")));
        }
        // Registers are spread over the levels, the last behind the last.
        let until = |level: u32| level * latency / levels.max(1);
        let operand = scope.value(&mut self.text, *operand, Want::In(block, start))?;
        let lanes = op.copies * width;
        let raw = scope.raw(id);
        let mut results = Vec::new();
        for group in 0..op.copies {
            let mut row: Vec<Piece> = (0..*width).map(|lane| operand.piece(group * width + lane, lanes)).collect();
            for level in 0..levels {
                let half = row.len() / 2;
                let (stage, each) = (start + until(level), until(level + 1) - until(level));
                let mut next = Vec::new();
                for lane in 0..half {
                    let made = folder(*function, *dtype, op.form.bits(), each, [&row[lane], &row[lane + half]])?;
                    let name = format!("{raw}_g{group}_{level}_{lane}");
                    let result = self.made(scope, (block, stage, each), (&name, op.form), (made, shared));
                    next.push(Piece::of(&result, 0, op.form));
                }
                row = next;
            }
            results.push(row[0].extended(op.form.bits()));
        }
        self.joined(&raw, op.form.bits(), &results);
        Ok(())
    }
}
