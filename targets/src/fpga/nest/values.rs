//! Operations as they are made: each once, as far out as its operands allow.

use std::collections::HashMap;
use std::rc::Rc;

use super::{ArrayId, BlockId, Form, Item, Kind, LoopId, Op, OpId};
use crate::fpga::access::{Linear, Pattern, condensed};
use crate::fpga::widths::Range;
use crate::kernel::IndexFn;

/// What decides that two operations give the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    operands: Vec<OpId>,
    form: Form,
    predicate: Option<OpId>,
    /// Of a load: how often the array had been written, and what it must not leave.
    version: (u32, u32),
}

/// A part of the tree that is open.
#[derive(Debug)]
pub(super) struct Scope {
    /// What is in it so far.
    pub items: Vec<Item>,
    /// The block that operations go to.
    pub block: Vec<OpId>,
    /// The loop that it is the body of.
    pub within: Option<LoopId>,
    /// Whether what it holds may not be done at all.
    pub is_arm: bool,
    /// A number of its own.
    serial: u32,
    /// Arrays that are written in it.
    pub written: Vec<bool>,
}

/// Operations, and the scopes that they are in.
#[derive(Debug)]
pub(super) struct Values {
    pub lanes: u32,
    pub ops: Vec<Op>,
    pub ranges: Vec<Range>,
    /// What integers are made of.
    linear: Vec<Option<Rc<Linear>>>,
    /// How many scopes are open where each is computed, less 1.
    depths: Vec<u32>,
    known: HashMap<Key, OpId>,
    pub scopes: Vec<Scope>,
    serials: u32,
    pub blocks: Vec<super::Block>,
    versions: Vec<u32>,
    /// Values that turned out to be others.
    pub same_as: HashMap<OpId, OpId>,
    /// The terms of the operands that say where accesses go.
    pub reached: HashMap<OpId, Linear>,
}

impl Values {
    pub fn new(lanes: u32, arrays: usize) -> Values {
        let mut values = Values {
            lanes,
            ops: Vec::new(),
            ranges: Vec::new(),
            linear: Vec::new(),
            depths: Vec::new(),
            known: HashMap::new(),
            scopes: Vec::new(),
            serials: 0,
            blocks: Vec::new(),
            versions: vec![0; arrays],
            same_as: HashMap::new(),
            reached: HashMap::new(),
        };
        values.open(None, false, vec![false; arrays]);
        values
    }

    /// Opens a scope, in which some arrays are written.
    pub fn open(&mut self, within: Option<LoopId>, is_arm: bool, written: Vec<bool>) {
        self.serials += 1;
        let within = within.or_else(|| self.scopes.last().and_then(|scope| scope.within));
        let (items, block, serial) = (Vec::new(), Vec::new(), self.serials);
        self.scopes.push(Scope { items, block, within, is_arm, serial, written });
    }

    /// Closes a scope, and says what is in it.
    pub fn close(&mut self) -> Vec<Item> {
        self.cut();
        let Some(scope) = self.scopes.pop() else { return Vec::new() };
        // What has been written in it is no longer what was there before.
        for (version, &written) in self.versions.iter_mut().zip(&scope.written) {
            *version += u32::from(written);
        }
        scope.items
    }

    /// Ends the block that is open.
    fn cut(&mut self) {
        let Some(scope) = self.scopes.last_mut() else { return };
        if !scope.block.is_empty() {
            let id = BlockId(self.blocks.len() as u32);
            self.blocks.push(super::Block { ops: std::mem::take(&mut scope.block) });
            scope.items.push(Item::Block(id));
        }
    }

    /// Adds what stands beside blocks.
    pub fn push(&mut self, item: Item) {
        self.cut();
        if let Some(scope) = self.scopes.last_mut() {
            scope.items.push(item);
        }
    }

    pub fn op(&self, id: OpId) -> &Op {
        &self.ops[id.index()]
    }

    pub fn range(&self, id: OpId) -> Range {
        self.ranges[id.index()]
    }

    /// What an index is made of.
    pub fn linear(&self, id: OpId) -> Rc<Linear> {
        self.linear[id.index()].clone().unwrap_or_else(|| Rc::new(Linear::term(id)))
    }

    /// The number that a value is, the same for all lanes.
    pub fn constant(&self, id: OpId) -> Option<i64> {
        match &self.op(id).kind {
            Kind::Constant(values) if values.len() == 1 && self.is_integer(id) => Some(values[0] as i64),
            _ => None,
        }
    }

    pub fn is_integer(&self, id: OpId) -> bool {
        matches!(self.op(id).form, Form::Integer { .. })
    }

    fn depth(&self, id: OpId) -> u32 {
        self.depths[id.index()]
    }

    /// The most copies of some values.
    pub fn copies(&self, operands: &[OpId]) -> u32 {
        operands.iter().map(|&id| self.op(id).copies).max().unwrap_or(1)
    }

    fn add(&mut self, op: Op, range: Range, depth: u32, linear: Option<Rc<Linear>>) -> OpId {
        let id = OpId(self.ops.len() as u32);
        self.ops.push(op);
        self.ranges.push(range);
        self.depths.push(depth);
        self.linear.push(linear);
        id
    }

    /// Integers that are known, one for each lane or one for all.
    pub fn integers(&mut self, values: Vec<i64>) -> OpId {
        let values = condensed(values);
        let range =
            values.iter().fold(Range::one(i128::from(values[0])), |all, &value| all.or(Range::one(i128::from(value))));
        let linear = match values[..] {
            [value] => Linear::known(value),
            _ => {
                let each = self.lanes as usize / values.len();
                Linear::of_lanes((0..self.lanes as usize).map(|lane| values[lane / each]))
            }
        };
        self.known_bits(
            values.into_iter().map(|value| value as u64).collect(),
            range.form(),
            range,
            Some(Rc::new(linear)),
        )
    }

    pub fn integer(&mut self, value: i64) -> OpId {
        self.integers(vec![value])
    }

    /// An unsigned integer of 64 bits.
    pub fn unsigned(&mut self, value: u64) -> OpId {
        let range = Range::one(i128::from(value));
        self.known_bits(vec![value], range.form(), range, None)
    }

    /// A float that is known, by its bits.
    pub fn float(&mut self, bits: u64, form: Form) -> OpId {
        self.known_bits(vec![bits], form, Range::TRUTH, None)
    }

    fn known_bits(&mut self, bits: Vec<u64>, form: Form, range: Range, linear: Option<Rc<Linear>>) -> OpId {
        let copies = bits.len() as u32;
        let kind = Kind::Constant(bits);
        let key = Key { kind: kind.clone(), operands: Vec::new(), form, predicate: None, version: (0, 0) };
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        let op = Op { kind, form, copies, operands: Vec::new(), predicate: None, within: None };
        let id = self.add(op, range, 0, linear);
        self.known.insert(key, id);
        id
    }

    /// What is in no block, but there while the innermost scope lasts.
    pub fn given(&mut self, kind: Kind, form: Form, (copies, range): (u32, Range), operands: Vec<OpId>) -> OpId {
        let depth = self.scopes.len() as u32 - 1;
        let within = self.scopes.last().and_then(|scope| scope.within);
        self.add(Op { kind, form, copies, operands, predicate: None, within }, range, depth, None)
    }

    /// An operation that touches no memory: the one that is there already, or a new one as far out as its operands are.
    pub fn pure(&mut self, kind: Kind, form: Form, operands: Vec<OpId>, range: Range) -> OpId {
        let linear = self.linear_of(&kind, &operands);
        let copies = self.copies(&operands);
        let copies = if let Kind::Fold { width, .. } = kind { self.lanes / width } else { copies };
        self.insert(Op { kind, form, copies, operands, predicate: None, within: None }, range, linear, None)
    }

    /// What reads an array.
    pub fn load(
        &mut self,
        array: ArrayId,
        pattern: Pattern,
        at: OpId,
        (form, range): (Form, Range),
        predicate: Option<OpId>,
    ) -> OpId {
        let copies = pattern.copies().unwrap_or(self.op(at).copies);
        let copies = copies.max(predicate.map_or(1, |predicate| self.op(predicate).copies));
        let kind = Kind::Load(array, pattern.with_copies(copies));
        self.insert(Op { kind, form, copies, operands: vec![at], predicate, within: None }, range, None, Some(array))
    }

    /// What writes an array.
    pub fn store(
        &mut self,
        array: ArrayId,
        pattern: Pattern,
        [at, value]: [OpId; 2],
        (form, predicate): (Form, Option<OpId>),
    ) -> OpId {
        let copies = pattern.copies().unwrap_or(self.op(at).copies).max(self.op(value).copies);
        let copies = copies.max(predicate.map_or(1, |predicate| self.op(predicate).copies));
        let kind = Kind::Store(array, pattern.with_copies(copies));
        let within = self.scopes.last().and_then(|scope| scope.within);
        let depth = self.scopes.len() as u32 - 1;
        let id = self.add(
            Op { kind, form, copies, operands: vec![at, value], predicate, within },
            Range::TRUTH,
            depth,
            None,
        );
        if let Some(scope) = self.scopes.last_mut() {
            scope.block.push(id);
        }
        self.versions[array.index()] += 1;
        id
    }

    fn insert(&mut self, mut op: Op, range: Range, linear: Option<Rc<Linear>>, array: Option<ArrayId>) -> OpId {
        // A load stays in what may not be done at all, and where the array is written.
        let pin = array.map_or(0, |array| {
            let stays = |scope: &Scope| scope.is_arm || scope.written[array.index()];
            self.scopes.iter().rposition(stays).unwrap_or(0)
        });
        let version = array.map_or((0, 0), |array| (self.versions[array.index()], self.scopes[pin].serial));
        let (form, predicate) = (op.form, op.predicate);
        let key = Key { kind: op.kind.clone(), operands: op.operands.clone(), form, predicate, version };
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        let operands = op.operands.iter().copied().chain(op.predicate);
        let depth = operands.map(|id| self.depth(id)).max().unwrap_or(0).max(pin as u32);
        // What a side of a branch has left is used behind it.
        let depth = depth.min(self.scopes.len() as u32 - 1);
        op.within = self.scopes[depth as usize].within;
        let id = self.add(op, range, depth, linear);
        self.scopes[depth as usize].block.push(id);
        self.known.insert(key, id);
        id
    }

    /// What the result of arithmetic of indices is made of.
    fn linear_of(&self, kind: &Kind, operands: &[OpId]) -> Option<Rc<Linear>> {
        let Kind::Index(function) = kind else { return None };
        let [a, b] = [*operands.first()?, *operands.get(1)?].map(|id| self.linear(id));
        let sum = match function {
            IndexFn::Add => a.plus(&b, 1),
            IndexFn::Sub => a.plus(&b, -1),
            IndexFn::Mul => match (a.as_constant(), b.as_constant()) {
                (_, Some(by)) => a.times(by),
                (Some(by), _) => b.times(by),
                _ => None,
            },
            _ => None,
        };
        sum.map(Rc::new)
    }

    /// Least and greatest of a sum.
    pub fn linear_range(&self, linear: &Linear) -> Range {
        let terms = linear.terms.iter().map(|&(id, factor)| self.range(id).times(Range::one(i128::from(factor))));
        let offsets = linear.offsets().into_iter().map(|offset| Range::one(i128::from(offset)));
        let offsets = offsets.reduce(Range::or).unwrap_or(Range::one(0));
        terms.fold(offsets, Range::plus)
    }

    /// Arithmetic of indices.
    pub fn index(&mut self, function: IndexFn, a: OpId, b: OpId) -> OpId {
        let (x, y) = (self.linear(a), self.linear(b));
        if let (Some(x), Some(y)) = (x.as_known(self.lanes), y.as_known(self.lanes)) {
            let count = x.len().max(y.len());
            let of = |values: &[i64], lane: usize| values[if values.len() == 1 { 0 } else { lane }];
            // A quotient by 0 in a lane that does not take part is nothing.
            let value = |lane: usize| match (i32::try_from(of(&x, lane)), i32::try_from(of(&y, lane))) {
                (Ok(a), Ok(b)) => function.of(a, b).map_or(0, i64::from),
                _ => 0,
            };
            return self.integers((0..count).map(value).collect());
        }
        if let Some(simpler) = self.simpler(function, (a, &x), (b, &y)) {
            return simpler;
        }
        let range = Range::index(function, self.range(a), self.range(b));
        let id = self.pure(Kind::Index(function), range.form(), vec![a, b], range);
        let linear = self.linear(id);
        // What cancels is known.
        match linear.as_known(self.lanes) {
            Some(values) => self.integers(values),
            None => id,
        }
    }

    /// The sum of terms, those that are known furthest out first, so that what stays the same in a loop is added before it.
    pub fn sum(&mut self, terms: &[(OpId, i64)]) -> Option<OpId> {
        let mut terms: Vec<(OpId, i64)> = terms.to_vec();
        terms.sort_by_key(|&(id, _)| (self.depth(id), id));
        let mut sum: Option<OpId> = None;
        for (id, factor) in terms {
            let by = self.integer(factor);
            let term = if factor == 1 { id } else { self.index_op(IndexFn::Mul, id, by) };
            sum = Some(match sum {
                Some(sum) => self.index_op(IndexFn::Add, sum, term),
                None => term,
            });
        }
        sum
    }

    /// An operation of indices as it stands.
    fn index_op(&mut self, function: IndexFn, a: OpId, b: OpId) -> OpId {
        let range = Range::index(function, self.range(a), self.range(b));
        self.pure(Kind::Index(function), range.form(), vec![a, b], range)
    }

    /// An operation that is in no scope yet.
    pub fn loose(&mut self, kind: Kind, range: Range, operands: Vec<OpId>, within: Option<LoopId>) -> OpId {
        let copies = self.copies(&operands);
        let op = Op { kind, form: range.form(), copies, operands, predicate: None, within };
        self.add(op, range, 0, None)
    }

    /// How an array of words of so many elements is reached by an index, and the value that the access is given, with its terms.
    pub fn reach(&mut self, index: OpId, banks: u32, active: Option<&[bool]>) -> (Pattern, OpId, Linear) {
        let linear = self.linear(index).of_active(active);
        if linear.terms.iter().any(|&(id, _)| self.op(id).copies > 1) {
            return (Pattern::Scattered, index, Linear::term(index));
        }
        let pattern = Pattern::of(&linear, banks);
        let by = if matches!(pattern, Pattern::Fixed(_)) { i64::from(banks.max(1)) } else { 1 };
        let terms: Vec<_> = linear.terms.iter().map(|&(id, factor)| (id, factor / by)).collect();
        let at = self.sum(&terms).unwrap_or_else(|| self.integer(0));
        (pattern, at, Linear { terms, ..Linear::default() })
    }
}
