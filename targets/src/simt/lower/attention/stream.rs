//! Attention of few rows: keys and values stream by, each read once for all rows that a block has.
//!
//! Lanes that lie beside each other have a key together, each some elements of it, and so the same of its value; each such team
//! has keys of its own, reads several of them before it uses the first, and keeps for each row the greatest score, the sum of
//! weights and its elements of the sum of weighted values, corrected as it goes on (Milakov and Gimelshein, arXiv 1805.02867). What
//! teams have is put together at the end. Where rows are so few that blocks would not fill the machine, keys are split over blocks,
//! of which the last to arrive puts together what all have.
//!
//! Keys and values that others want too are written from the registers that they are read into. Keys that are new are computed by the
//! block (`staged`) and take the places of what was read for them. Where a block goes through its keys once, it asks for them
//! before anything else.

mod shares;
mod staged;

use tcc_ir::ops::{AttentionDims, BinaryFn, UnaryFn};
use tcc_ir::{DType, ValueId};

use super::super::{Argument, Written};
use super::SUM;
use super::heads::{Heads, Place};
use super::operand::{Key, Operand, Stretch, stretches, vector};
use super::partial::{Partial, Together};
use crate::kernel::simulator::buffer_bytes;
use crate::kernel::{ExprId, IndexFn, Memory, Region, Scalar, SharedId, VarId};
use crate::lower::Opening;
use crate::lower::elements::{Elements, defect};
use crate::number::FoldFn;
use crate::simt::SimtMachine;
use crate::target::TargetError;

use shares::{Operands, Shares};
use staged::{NEW_KEYS, Staged};

/// How keys stream by.
#[derive(Clone, Debug)]
pub(in crate::simt::lower) struct Stream {
    shares: Shares,
    operands: Operands,
    passes: Vec<Pass>,
}

/// Keys that are gone through one after another: those that lie in memory, and behind them new ones.
#[derive(Clone, Copy, Debug)]
struct Pass {
    stretch: Stretch,
    new: Option<Stretch>,
}

impl Pass {
    /// What comes after the last key.
    fn end(&self) -> usize {
        let last = self.new.as_ref().unwrap_or(&self.stretch);
        last.first + last.count
    }
}

/// The passes over stretches: the last are new keys if they are few, and may be so.
fn passes(stretches: &[Stretch], may_stage: bool) -> Vec<Pass> {
    match stretches {
        [before @ .., stretch, new] if may_stage && new.count <= NEW_KEYS => {
            let alone = before.iter().map(|&stretch| Pass { stretch, new: None });
            alone.chain([Pass { stretch: *stretch, new: Some(*new) }]).collect()
        }
        _ => stretches.iter().map(|&stretch| Pass { stretch, new: None }).collect(),
    }
}

impl Stream {
    /// Whether there is a way, however lanes can read keys and values.
    pub(super) fn fits(machine: &SimtMachine, dims: &AttentionDims, dtype: DType) -> bool {
        let ways = |number: usize, width: usize| {
            [1, vector(dtype)].map(|chunk| Operand { number, width, chunk, chunks: 1, lanes: 1 })
        };
        ways(0, dims.depth).into_iter().all(|keys| {
            ways(1, dims.value_depth)
                .into_iter()
                .all(|values| !Shares::all(machine, dims, &[keys, values], 0).is_empty())
        })
    }

    /// All ways for a machine.
    pub(super) fn all(machine: &SimtMachine, elements: &Elements<'_>, heads: &Heads) -> Vec<Stream> {
        let stretches = stretches(elements, heads);
        let operands = [0, 1].map(|number| Operand::new(elements, heads, number, &stretches));
        let ways = |may_stage: bool| {
            let passes = passes(&stretches, may_stage);
            let staged = passes.last().and_then(|pass| pass.new).map_or(0, |new| new.count);
            let with = |shares: Shares| Stream {
                shares,
                operands: operands.map(|operand| operand.over(shares.lanes)),
                passes: passes.clone(),
            };
            Shares::all(machine, &heads.dims, &operands, staged).into_iter().map(with).collect::<Vec<_>>()
        };
        let staged = ways(true);
        if staged.is_empty() { ways(false) } else { staged }
    }

    /// Threads of a block.
    pub(super) fn threads(&self) -> u32 {
        self.shares.threads as u32
    }

    /// Writes the kernel.
    pub(super) fn write(
        &self,
        elements: &mut Elements<'_>,
        heads: &Heads,
        outputs: &[ValueId],
    ) -> Result<Written, TargetError> {
        let (shares, operands) = (self.shares, self.operands);
        let Shares { rows, tiles, splits, keys, ahead, lanes, .. } = shares;
        let builder = &mut elements.builder;
        let (thread, split, batch) = (builder.thread(), builder.block(0), builder.block(2));
        let row_block = builder.block(1);
        let (group, tile) = builder.divided(row_block, tiles as i32);
        let first = builder.scaled(tile, rows as i32);
        let (team, lane) = builder.divided(thread, lanes as i32);
        let (team, lane) = (builder.keep("team", Scalar::I32, team), builder.keep("lane", Scalar::I32, lane));
        let scratch = builder.shared("scratch", SUM, shares.threads as u32);
        let (zero, least) = (builder.float(SUM, 0.0), builder.float(SUM, f64::NEG_INFINITY));
        let held = [0, 1].map(|number| {
            let name = ["keys", "values"][number];
            operands[number].array(elements, heads, name, ahead)
        });
        let builder = &mut elements.builder;
        let queries = builder.array("queries", Scalar::F32, (rows * operands[0].held()).max(1) as u32, zero);
        let greatest = builder.array("greatest", Scalar::F32, rows as u32, least);
        let totals = builder.array("weights", Scalar::F32, rows as u32, zero);
        let sums = builder.array("sums", Scalar::F32, (rows * operands[1].held()) as u32, zero);
        let (own, others): (Vec<ValueId>, Vec<ValueId>) = outputs
            .iter()
            .partition(|&&output| !heads.inputs[1..3].contains(&output) && elements.graph().shape(output).count() > 0);
        let kept = [0, 1].map(|number| {
            let value = heads.inputs[1 + number];
            // Where keys are their own values, they are written once.
            others.contains(&value).then_some(value).filter(|_| number == 0 || heads.inputs[1] != heads.inputs[2])
        });
        let (results, operands_too): (Vec<ValueId>, Vec<ValueId>) =
            own.into_iter().partition(|output| elements.graph().shape(*output) == elements.graph().shape(heads.output));
        let mut block = Block {
            elements,
            heads,
            shares,
            operands,
            batch,
            group,
            tile,
            first,
            split,
            thread,
            team,
            lane,
            scratch,
            queries,
            held,
            greatest,
            totals,
            sums,
        };
        block.open(&self.passes);
        block.append(&operands_too)?;
        let last = block.go(&self.passes, kept)?;
        block.finish(&results, |block| {
            if let Some((keys, turn)) = &last {
                block.keep(keys, turn, kept);
            }
        })?;
        let tiling = format!(
            "{} × {} heads of keys, {} rows of {} × {} each: {rows} rows and {keys} keys a block, {lanes} threads for a key, {ahead} of them \
         at a time{}",
            heads.dims.batch,
            heads.dims.groups,
            heads.rows(),
            heads.dims.keys,
            heads.dims.depth,
            if splits > 1 { ", put together by the last block" } else { "" }
        );
        Ok(([splits as u32, (heads.dims.groups * tiles) as u32, heads.dims.batch as u32], tiling))
    }
}

/// Which keys a block has in a pass.
#[derive(Clone, Copy, Debug)]
struct Keys {
    /// What comes after the last.
    to: ExprId,
    /// Whether all that teams read are keys of the block.
    is_whole: bool,
}

/// Keys of a team.
#[derive(Clone, Debug)]
struct Turn {
    /// Their numbers, and those of what is read for them.
    numbers: Vec<(ExprId, ExprId)>,
    /// What is read from memory for them.
    stored: Vec<ExprId>,
}

/// What threads know of the block.
struct Block<'e, 'a> {
    elements: &'e mut Elements<'a>,
    heads: &'e Heads,
    shares: Shares,
    operands: Operands,
    batch: ExprId,
    group: ExprId,
    /// The number of the block among those that share the rows, and of its first row.
    tile: ExprId,
    first: ExprId,
    /// The number of its part of the keys.
    split: ExprId,
    thread: ExprId,
    team: ExprId,
    lane: ExprId,
    scratch: SharedId,
    /// What lanes hold: queries, and of several keys those and values.
    queries: VarId,
    held: [VarId; 2],
    /// Of each row the greatest score, the sum of weights, and weighted values.
    greatest: VarId,
    totals: VarId,
    sums: VarId,
}

impl Block<'_, '_> {
    /// The head and the query of a row of the block; those beyond the last are the last again.
    fn query(&mut self, row: ExprId) -> (ExprId, ExprId) {
        let number = self.heads.row(self.elements, self.first, row, self.shares.rows);
        self.heads.query(self.elements, self.group, number)
    }

    /// Opens a scope for one of the blocks that share rows, by its number, if there are several.
    fn only(&mut self, tile: usize) -> bool {
        let is_alone = self.shares.tiles == 1;
        if !is_alone {
            let builder = &mut self.elements.builder;
            let number = builder.integer(tile as i32);
            let is_it = builder.index(IndexFn::Eq, self.tile, number);
            builder.when(is_it);
            self.elements.open();
        }
        !is_alone
    }

    /// The keys of this block: the first, and what comes after the last that there may be.
    fn range(&mut self) -> (ExprId, ExprId) {
        let keys = self.shares.keys;
        let builder = &mut self.elements.builder;
        if self.shares.splits == 1 {
            return (builder.integer(0), builder.integer(self.heads.dims.keys as i32));
        }
        let from = builder.scaled(self.split, keys as i32);
        let each = builder.integer(keys as i32);
        (from, builder.add(from, each))
    }

    /// Writes values that have an element for each key, and that others want, element by element: those of this block's keys.
    fn append(&mut self, outputs: &[ValueId]) -> Result<(), TargetError> {
        for &output in outputs {
            let width = self.elements.graph().shape(output)[3] as i32;
            let (from, to) = self.range();
            let guarded = self.only(0);
            let builder = &mut self.elements.builder;
            let all = builder.integer(self.heads.dims.keys as i32);
            let to = builder.index(IndexFn::Min, to, all);
            let (from, to) = (builder.scaled(from, width), builder.scaled(to, width));
            let from = builder.add(from, self.thread);
            let i = builder.loop_over("i", from, to, self.shares.threads as u32);
            self.elements.open();
            let (key, d) = self.elements.builder.divided(i, width);
            self.elements.store(output, &[self.batch, self.group, key, d])?;
            self.elements.close();
            if guarded {
                self.elements.close();
            }
        }
        Ok(())
    }

    /// Says that keys and values that lie in memory are read first.
    fn open(&mut self, passes: &[Pass]) {
        for source in passes.iter().take(1).flat_map(|pass| pass.stretch.sources) {
            if !source.is_vector {
                continue;
            }
            let zero = self.elements.builder.integer(0);
            let (buffer, _) = self.elements.source(source.value, &[zero; 4]);
            let argument = self.elements.arguments.get(buffer.index()).copied();
            if let Some(argument @ Argument::Value(value)) = argument {
                let elements = self.elements.graph().shape(value).count() as u64;
                let bytes = buffer_bytes(self.elements.stored(value), elements);
                let region = Region { first: 0, rows: 1, pitch: bytes, width: bytes };
                self.elements.openings.push(Opening { argument, region, by_rows: true, step: 1 });
            }
        }
    }

    /// Goes over all keys of this block. Those that it still holds and that have to be kept are returned.
    fn go(&mut self, passes: &[Pass], kept: [Option<ValueId>; 2]) -> Result<Option<(Keys, Turn)>, TargetError> {
        let new = passes.iter().find_map(|pass| pass.new.as_ref());
        if let [pass] = passes
            && self.shares.keys <= self.step(pass)
        {
            // All keys at once, on their way while queries are computed.
            let (from, keys) = self.begin(pass, kept);
            let turn = self.turn(pass, &keys, from);
            let masks = self.masks(&turn.numbers)?;
            self.load(pass, &turn)?;
            let staged = self.bring(new)?;
            self.attend(pass, &keys, &turn, (masks, staged));
            return Ok(Some((keys, turn)));
        }
        let staged = self.bring(new)?;
        for pass in passes {
            let (from, keys) = self.begin(pass, kept);
            let step = self.step(pass) as u32;
            let start = self.elements.builder.loop_over("first_key", from, keys.to, step);
            self.elements.open();
            let turn = self.turn(pass, &keys, start);
            let masks = self.masks(&turn.numbers)?;
            self.load(pass, &turn)?;
            self.attend(pass, &keys, &turn, (masks, staged.filter(|_| pass.new.is_some())));
            self.keep(&keys, &turn, kept);
            self.elements.close();
        }
        Ok(None)
    }

    /// Keys that a team reads at a time in a pass.
    fn ahead(&self, pass: &Pass) -> usize {
        let count = pass.end() - pass.stretch.first;
        self.shares.ahead.min(count.div_ceil(self.shares.teams()))
    }

    /// Keys that all teams read at a time in a pass.
    fn step(&self, pass: &Pass) -> usize {
        self.shares.teams() * self.ahead(pass)
    }

    /// Has queries in registers, and new keys in shared memory.
    fn bring(&mut self, new: Option<&Stretch>) -> Result<Option<Staged>, TargetError> {
        let (queries, staged) = self.stage(new)?;
        self.elements.builder.barrier();
        if let Some(queries) = queries {
            self.take_queries(queries);
        }
        Ok(staged)
    }

    /// The first key of this block in a pass, and which it has.
    fn begin(&mut self, pass: &Pass, kept: [Option<ValueId>; 2]) -> (ExprId, Keys) {
        let (step, splits) = (self.step(pass), self.shares.splits);
        let (first, count) = (pass.stretch.first, pass.end() - pass.stretch.first);
        let (from, to) = self.range();
        let builder = &mut self.elements.builder;
        let (begin, end) = (builder.integer(first as i32), builder.integer(pass.end() as i32));
        let mut from = builder.index(IndexFn::Max, from, begin);
        let mut to = builder.index(IndexFn::Min, to, end);
        let mut is_whole = first.is_multiple_of(step)
            && count.is_multiple_of(step)
            && (splits == 1 || self.shares.keys.is_multiple_of(step));
        // What nobody in the block sees is left out, unless it has to be copied.
        if kept == [None; 2]
            && let Some((begin, end)) = self.visible()
        {
            let builder = &mut self.elements.builder;
            from = begin.map_or(from, |begin| builder.index(IndexFn::Max, from, begin));
            to = end.map_or(to, |end| builder.index(IndexFn::Min, to, end));
            is_whole &= begin.is_none() && end.is_none();
        }
        (from, Keys { to, is_whole })
    }

    /// The keys of each team from one on that the block begins with.
    fn turn(&mut self, pass: &Pass, keys: &Keys, start: ExprId) -> Turn {
        let teams = self.shares.teams();
        let builder = &mut self.elements.builder;
        let own = builder.add(start, self.team);
        let own = builder.keep("own_key", Scalar::I32, own);
        // Teams beyond the last key read it again.
        let last = builder.integer(pass.end() as i32 - 1);
        let last_stored = builder.integer((pass.stretch.first + pass.stretch.count) as i32 - 1);
        let numbers: Vec<(ExprId, ExprId)> = (0..self.ahead(pass))
            .map(|number| {
                let builder = &mut self.elements.builder;
                let distance = builder.integer((number * teams) as i32);
                let key = builder.add(own, distance);
                let read = if keys.is_whole { key } else { builder.index(IndexFn::Min, key, last) };
                (key, builder.keep("key", Scalar::I32, read))
            })
            .collect();
        let builder = &mut self.elements.builder;
        let stored = numbers.iter().map(|&(_, read)| match pass.new {
            Some(_) => builder.index(IndexFn::Min, read, last_stored),
            None => read,
        });
        let stored = stored.collect();
        Turn { numbers, stored }
    }

    fn key(&self, number: ExprId) -> Key {
        Key { batch: self.batch, group: self.group, number, lane: self.lane }
    }

    /// Reads keys and values that lie in memory.
    fn load(&mut self, pass: &Pass, turn: &Turn) -> Result<(), TargetError> {
        for operand in self.operands {
            for (place, &stored) in turn.stored.iter().enumerate() {
                let base = self.elements.builder.integer((place * operand.held()) as i32);
                let key = self.key(stored);
                operand.load(self.elements, &pass.stretch, key, (self.held[operand.number], base))?;
            }
        }
        Ok(())
    }

    /// Does with keys that are there all that is done with them.
    fn attend(&mut self, pass: &Pass, keys: &Keys, turn: &Turn, (masks, staged): (Option<VarId>, Option<Staged>)) {
        if let Some(staged) = staged {
            self.take_keys(&staged, &turn.numbers);
        }
        let scores = self.score(&turn.numbers, masks, (!keys.is_whole).then_some(keys.to));
        self.weigh(scores, self.ahead(pass));
    }

    /// Writes keys and values that others want: those of the first block of those that share rows, and of the last.
    fn keep(&mut self, keys: &Keys, turn: &Turn, kept: [Option<ValueId>; 2]) {
        for operand in self.operands {
            let Some(output) = kept[operand.number] else { continue };
            let guarded = self.only(operand.number * (self.shares.tiles - 1));
            for (place, &(own, read)) in turn.numbers.iter().enumerate() {
                if !keys.is_whole {
                    let inside = self.elements.builder.index(IndexFn::Lt, own, keys.to);
                    self.elements.builder.when(inside);
                    self.elements.open();
                }
                let base = self.elements.builder.integer((place * operand.held()) as i32);
                let key = self.key(read);
                operand.store(self.elements, output, key, (self.held[operand.number], base));
                if !keys.is_whole {
                    self.elements.close();
                }
            }
            if guarded {
                self.elements.close();
            }
        }
    }

    /// The keys that rows of this block may see, if the block's rows are of one head.
    fn visible(&mut self) -> Option<(Option<ExprId>, Option<ExprId>)> {
        let (rows, queries) = (self.shares.rows, self.heads.dims.queries);
        let builder = &mut self.elements.builder;
        let (first, last) = if queries == 1 {
            (builder.integer(0), builder.integer(0))
        } else if queries.is_multiple_of(rows) {
            let (_, first) = builder.divided(self.first, queries as i32);
            let behind = builder.integer(rows as i32 - 1);
            (first, builder.add(first, behind))
        } else {
            return None;
        };
        Some(self.heads.visible(self.elements, (first, last)))
    }

    /// The elements of the mask for some keys, row by row for each: read before they are wanted.
    fn masks(&mut self, numbers: &[(ExprId, ExprId)]) -> Result<Option<VarId>, TargetError> {
        let Some(scalar) = self.heads.mask_scalar(self.elements) else { return Ok(None) };
        let rows = self.shares.rows;
        let is_float = scalar == Scalar::F32;
        let builder = &mut self.elements.builder;
        let start = if is_float { builder.float(SUM, 0.0) } else { builder.integer(0) };
        let count = rows * numbers.len();
        let masks = builder.array("masks", scalar, count as u32, start);
        let mark = builder.mark();
        for (number, &(_, key)) in numbers.iter().enumerate() {
            for row in 0..rows {
                let index = self.elements.builder.integer(row as i32);
                let (head, query) = self.query(index);
                let place = Place { batch: self.batch, head, query, key };
                let Some(element) = self.heads.mask(self.elements, place)? else { continue };
                let at = self.elements.builder.integer((number * rows + row) as i32);
                self.elements.builder.set_element(masks, at, element);
            }
        }
        self.elements.builder.reads_first(mark);
        Ok(Some(masks))
    }

    /// The scores of some keys, row by row for each.
    fn score(&mut self, numbers: &[(ExprId, ExprId)], masks: Option<VarId>, to: Option<ExprId>) -> VarId {
        let (rows, held, lanes) = (self.shares.rows, self.operands[0].held(), self.shares.lanes as u32);
        let dtype = self.elements.graph().ty(self.heads.inputs[1]).dtype;
        let builder = &mut self.elements.builder;
        let zero = builder.float(SUM, 0.0);
        let scores = builder.array("scores", Scalar::F32, (rows * numbers.len()) as u32, zero);
        // Products that do not wait for each other stand beside each other.
        let i = builder.unrolled("i", held as u32);
        let n = builder.unrolled("n", numbers.len() as u32);
        let r = builder.unrolled("r", rows as u32);
        let own = builder.scaled(n, held as i32);
        let own = builder.add(own, i);
        let y = builder.element(self.held[0], own);
        let y = builder.convert_register(dtype, SUM, y);
        let own = builder.scaled(r, held as i32);
        let own = builder.add(own, i);
        let x = builder.element(self.queries, own);
        let at = builder.scaled(n, rows as i32);
        let at = builder.add(at, r);
        let so_far = builder.element(scores, at);
        let next = builder.mul_add(SUM, x, y, so_far);
        builder.set_element(scores, at, next);
        (0..3).for_each(|_| builder.end());
        // What is combined together does not wait for each other.
        let builder = &mut self.elements.builder;
        let mut found = Vec::with_capacity(rows * numbers.len());
        for place in 0..rows * numbers.len() {
            let at = builder.integer(place as i32);
            let score = builder.element(scores, at);
            found.push(builder.declare("score", Scalar::F32, score));
        }
        found.iter().for_each(|&score| builder.reduce(score, FoldFn::Sum, SUM, lanes, self.scratch));
        for (number, &(key, read)) in numbers.iter().enumerate() {
            for row in 0..rows {
                let builder = &mut self.elements.builder;
                let at = builder.integer((number * rows + row) as i32);
                let score = found[number * rows + row];
                let score = builder.get(score);
                let index = builder.integer(row as i32);
                let (_, query) = self.query(index);
                let mask = masks.map(|masks| self.elements.builder.element(masks, at));
                let score = self.heads.score(self.elements, score, mask, (query, read));
                let builder = &mut self.elements.builder;
                let score = match to {
                    None => score,
                    Some(to) => {
                        let least = builder.float(SUM, f64::NEG_INFINITY);
                        let inside = builder.index(IndexFn::Lt, key, to);
                        builder.select(inside, score, least)
                    }
                };
                builder.set_element(scores, at, score);
            }
        }
        scores
    }

    /// Adds weighted values of some keys to what rows have.
    fn weigh(&mut self, scores: VarId, count: usize) {
        let (rows, held) = (self.shares.rows as u32, self.operands[1].held() as u32);
        let dtype = self.elements.graph().ty(self.heads.inputs[2]).dtype;
        let count = count as u32;
        let builder = &mut self.elements.builder;
        let (zero, least) = (builder.float(SUM, 0.0), builder.float(SUM, f64::NEG_INFINITY));
        let corrections = builder.array("corrections", Scalar::F32, rows, zero);
        let r = builder.unrolled("r", rows);
        let before = builder.element(self.greatest, r);
        let after = builder.declare("after", Scalar::F32, before);
        let n = builder.unrolled("n", count);
        let at = builder.scaled(n, rows as i32);
        let at = builder.add(at, r);
        let (so_far, score) = (builder.get(after), builder.element(scores, at));
        let next = builder.binary(BinaryFn::Max, SUM, so_far, score);
        builder.set(after, next);
        builder.end();
        let after = builder.get(after);
        // Where nothing is seen yet, weights are 0 and not what infinity less infinity is.
        let nothing = builder.binary(BinaryFn::Eq, SUM, after, least);
        let offset = builder.select(nothing, zero, after);
        let offset = builder.keep("offset", Scalar::F32, offset);
        let before = builder.element(self.greatest, r);
        let less = builder.binary(BinaryFn::Sub, SUM, before, offset);
        let correction = builder.unary(UnaryFn::Exp, SUM, less);
        builder.set_element(corrections, r, correction);
        builder.set_element(self.greatest, r, after);
        let (total, correction) = (builder.element(self.totals, r), builder.element(corrections, r));
        let total = builder.binary(BinaryFn::Mul, SUM, total, correction);
        let total = builder.declare("total", Scalar::F32, total);
        let n = builder.unrolled("n", count);
        let at = builder.scaled(n, rows as i32);
        let at = builder.add(at, r);
        let score = builder.element(scores, at);
        let less = builder.binary(BinaryFn::Sub, SUM, score, offset);
        let weight = builder.unary(UnaryFn::Exp, SUM, less);
        builder.set_element(scores, at, weight);
        let (so_far, weight) = (builder.get(total), builder.element(scores, at));
        let next = builder.binary(BinaryFn::Add, SUM, so_far, weight);
        builder.set(total, next);
        builder.end();
        let total = builder.get(total);
        builder.set_element(self.totals, r, total);
        builder.end();
        let (r, i) = (builder.unrolled("r", rows), builder.unrolled("i", held));
        let at = builder.scaled(r, held as i32);
        let at = builder.add(at, i);
        let (so_far, correction) = (builder.element(self.sums, at), builder.element(corrections, r));
        let corrected = builder.binary(BinaryFn::Mul, SUM, so_far, correction);
        builder.set_element(self.sums, at, corrected);
        builder.end();
        builder.end();
        let (n, r) = (builder.unrolled("n", count), builder.unrolled("r", rows));
        let i = builder.unrolled("i", held);
        let own = builder.scaled(n, held as i32);
        let own = builder.add(own, i);
        let y = builder.element(self.held[1], own);
        let y = builder.convert_register(dtype, SUM, y);
        let at = builder.scaled(n, rows as i32);
        let at = builder.add(at, r);
        let weight = builder.element(scores, at);
        let at = builder.scaled(r, held as i32);
        let at = builder.add(at, i);
        let so_far = builder.element(self.sums, at);
        let next = builder.mul_add(SUM, weight, y, so_far);
        builder.set_element(self.sums, at, next);
        (0..3).for_each(|_| builder.end());
    }

    /// Puts together what teams have, and what blocks have if keys are split, and writes results. Something is done meanwhile that
    /// nobody waits for.
    fn finish(&mut self, outputs: &[ValueId], meanwhile: impl FnOnce(&mut Self)) -> Result<(), TargetError> {
        let (rows, teams, splits) = (self.shares.rows, self.shares.teams(), self.shares.splits);
        let width = self.operands[1].padded();
        let zero = self.elements.builder.integer(0);
        let shared = self.elements.builder.shared("partial", SUM, Partial::elements(teams, rows, width) as u32);
        let own = Partial { memory: Memory::Shared(shared), parts: teams, rows, width, first: zero };
        self.hand_over(&own);
        let together = own.declare(self.elements, splits > 1);
        own.weigh(self.elements, &together, self.scratch);
        if splits == 1 {
            self.write(&own, &together, outputs)?;
            meanwhile(self);
            return Ok(());
        }
        let each = Partial::elements(splits, rows, width);
        let dims = &self.heads.dims;
        let counters = dims.groups * self.shares.tiles * dims.batch;
        let buffer = self.elements.handed("partial_results", DType::F32, (each * counters) as u64);
        let counted = self.elements.counters(counters as u64);
        let builder = &mut self.elements.builder;
        let rows_before = builder.block(1);
        let batches = builder.scaled(self.batch, (dims.groups * self.shares.tiles) as i32);
        let number = builder.add(batches, rows_before);
        let first = builder.scaled(number, each as i32);
        let all = Partial { memory: Memory::Buffer(buffer), parts: splits, rows, width, first };
        self.each_sum(|block, row, place, within| {
            let sum = own.total(block.elements, &together, (row, within));
            all.put_sum(block.elements, (block.split, row, place), sum);
            Ok(())
        })?;
        let greatest = together.greatest.ok_or_else(|| defect("the greatest scores of a part are not kept"))?;
        let builder = &mut self.elements.builder;
        let has_row = builder.below(self.thread, rows as i32);
        builder.when(has_row);
        let greatest = builder.load_shared(greatest, self.thread, "greatest_of_row");
        let total = builder.load_shared(together.totals, self.thread, "total_of_row");
        all.put_row(self.elements, (self.split, self.thread), [greatest, total]);
        let builder = &mut self.elements.builder;
        builder.end();
        let told = builder.shared("told", DType::I32, 1);
        let is_last = builder.arrive("is_last", counted, 0, told);
        meanwhile(self);
        let builder = &mut self.elements.builder;
        builder.when(is_last);
        self.elements.open();
        let together = all.declare(self.elements, false);
        all.weigh(self.elements, &together, self.scratch);
        self.write(&all, &together, outputs)?;
        self.elements.close();
        Ok(())
    }

    /// Writes what teams have to shared memory.
    fn hand_over(&mut self, own: &Partial) {
        let (rows, held, lanes) = (self.shares.rows as u32, self.operands[1].held() as u32, self.shares.lanes);
        let builder = &mut self.elements.builder;
        let (r, i) = (builder.unrolled("r", rows), builder.unrolled("i", held));
        let at = builder.scaled(r, held as i32);
        let at = builder.add(at, i);
        let sum = builder.element(self.sums, at);
        let place = builder.scaled(i, lanes as i32);
        let place = builder.add(place, self.lane);
        own.put_sum(self.elements, (self.team, r, place), sum);
        let builder = &mut self.elements.builder;
        builder.end();
        builder.end();
        let zero = builder.integer(0);
        let is_first = builder.index(IndexFn::Eq, self.lane, zero);
        builder.when(is_first);
        let r = builder.unrolled("r", rows);
        let row = [builder.element(self.greatest, r), builder.element(self.totals, r)];
        own.put_row(self.elements, (self.team, r), row);
        self.elements.builder.end();
        self.elements.builder.end();
    }

    /// Has threads do something for each sum of the block's rows: with its row, its place in it, and its place in all of them.
    fn each_sum(
        &mut self,
        work: impl FnOnce(&mut Self, ExprId, ExprId, ExprId) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let width = self.operands[1].padded();
        let builder = &mut self.elements.builder;
        let end = builder.integer((self.shares.rows * width) as i32);
        let within = builder.loop_over("result", self.thread, end, self.shares.threads as u32);
        self.elements.open();
        let (row, place) = self.elements.builder.divided(within, width as i32);
        work(self, row, place, within)?;
        self.elements.close();
        Ok(())
    }

    /// Writes results from what parts have come to.
    fn write(&mut self, parts: &Partial, together: &Together, outputs: &[ValueId]) -> Result<(), TargetError> {
        let operand = self.operands[1];
        let (all, rows) = (self.heads.rows(), self.shares.rows);
        self.each_sum(|block, row, place, within| {
            let e = operand.gathered(block.elements, place);
            let builder = &mut block.elements.builder;
            let e = builder.keep("e", Scalar::I32, e);
            let mut writes = builder.integer(1);
            if operand.is_padded() {
                writes = builder.below(e, operand.width as i32);
            }
            if !all.is_multiple_of(rows) {
                let number = builder.add(block.first, row);
                let there = builder.below(number, all as i32);
                writes = builder.index(IndexFn::And, writes, there);
            }
            let guarded = builder.known_index(writes).is_none();
            if guarded {
                builder.when(writes);
                block.elements.open();
            }
            let sum = parts.total(block.elements, together, (row, within));
            let total = block.elements.builder.load_shared(together.totals, row, "total_of_row");
            let (head, query) = block.query(row);
            let coords = [block.batch, head, query, e];
            block.heads.write(block.elements, coords, (sum, total), outputs)?;
            if guarded {
                block.elements.close();
            }
            Ok(())
        })
    }
}
