//! Evaluation of recipes on chip, a part of the frame at a time.

use std::ops::Range;

use tcc_ir::ops::{BinaryFn, Reduce, ReduceFn};
use tcc_ir::{Access, DType, NodeId, Op, ValueId};

use super::recipe::{BATCH, FEATURE, Groups, HEAD, POSITION, Recipe, TermSource, Use, four, groups_of};
use super::rotation::Planes;
use super::tile::dense_strides;
use super::{ChipOperand, ChipSource, Home, Lowering, Stored, element_bytes, map_function};
use crate::systolic::emit::Filler;
use crate::systolic::isa::{Fold, FoldFn, MapFn, Memory, Operation, Source};
use crate::systolic::layout::storage;
use crate::target::TargetError;

/// Elements of one head's values that a piece of a prologue works on: long enough that the vector unit's latency does not
/// show, short enough that loads, work and stores of different pieces overlap.
pub(super) const PIECE_ELEMENTS: usize = 32 << 10;

/// A part of the frame: indices along each axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part(pub [Range<usize>; 4]);

impl Part {
    pub fn lens(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|axis| self.0[axis].len())
    }

    /// The same part but along one axis.
    pub fn along(&self, axis: usize, range: Range<usize>) -> Part {
        let mut part = self.clone();
        part.0[axis] = range;
        part
    }
}

/// An operand in DRAM with the atoms of each axis of the frame.
#[derive(Clone, Debug)]
pub(super) struct Framed {
    pub operand: Stored,
    pub groups: Groups,
}

/// What a buffer holds: where that lies between kernels, and the lengths of what was loaded from there.
type Loaded = (Home, [usize; 4]);

/// Two buffers of one term, taken in turn.
struct Slot {
    /// The recipe, the term, and which of a node's several buffers.
    key: (usize, usize, usize),
    places: [(u32, u64); 2],
    loaded: [Option<Loaded>; 2],
    turn: usize,
}

/// A recipe that is being evaluated, with the places of its operands.
#[derive(Clone)]
pub(super) struct Prologue {
    /// Tells its buffers from those of others.
    pub tag: usize,
    pub recipe: Recipe,
    /// Of terms that lie in DRAM, where.
    pub framed: Vec<Option<Framed>>,
    /// Values that are written to DRAM as they come about, and where to.
    pub stores: Vec<(ValueId, FramedResult)>,
    /// What the operand is multiplied with on the way, where it is a rotation: its angles then are, which are fewer.
    pub factor: Option<f64>,
}

impl Prologue {
    /// A part of the operand where it stays on chip, if it is as it lies there.
    pub(super) fn in_place(&self, part: &Part) -> Option<ChipOperand> {
        let root = self.recipe.root;
        let framed = self.framed[root.term].as_ref()?;
        let strides: Option<Vec<i64>> = (0..4)
            .map(|axis| match framed.groups[axis][..] {
                [] => Some(0),
                [atom] => Some(atom.stride),
                _ => None,
            })
            .collect();
        if root.first != 0 || root.step != 1 || !self.stores.is_empty() {
            return None;
        }
        framed.operand.in_place(offset(framed, part), &strides?)
    }
}

/// Buffers of all prologues of a kernel, and what is known of the present piece.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
}

impl Slots {
    fn slot(&mut self, key: (usize, usize, usize)) -> &mut Slot {
        let known = self.slots.iter().position(|slot| slot.key == key);
        let index = known.unwrap_or_else(|| {
            self.slots.push(Slot { key, places: [(0, 0); 2], loaded: [None; 2], turn: 0 });
            self.slots.len() - 1
        });
        &mut self.slots[index]
    }
}

/// A way to read features: the sizes of dimensions with strides in DRAM and on chip.
pub(super) type Features = Vec<(usize, i64, i64)>;

impl Lowering<'_, '_> {
    /// Makes a recipe ready to be evaluated. Operands whose axes cannot be told apart are copied first.
    pub(super) fn prologue(&mut self, tag: usize, recipe: Recipe) -> Result<Prologue, TargetError> {
        let mut framed = Vec::with_capacity(recipe.terms.len());
        for term in &recipe.terms {
            framed.push(match &term.source {
                TermSource::Dram { access, shape, order } => {
                    let walk = |access: &Access| {
                        let groups = groups_of(access, shape)?;
                        let groups = order.map(|axis| groups[axis].clone());
                        (groups[POSITION].len() <= 1 && groups[FEATURE].len() <= 1).then_some(groups)
                    };
                    let mut operand = self.operand_of(access)?;
                    let groups = match walk(access) {
                        Some(groups) => groups,
                        None => {
                            operand = self.densify(&operand)?;
                            let dense = Access { root: access.root, view: operand.view.clone() };
                            walk(&dense).ok_or_else(|| {
                                TargetError::Fault("an operand of an attention has no strides".to_owned())
                            })?
                        }
                    };
                    Some(Framed { operand, groups })
                }
                TermSource::Number | TermSource::Node { .. } => None,
            });
        }
        Ok(Prologue { tag, recipe, framed, stores: Vec::new(), factor: None })
    }

    /// A prologue that reads what another has made and left in DRAM.
    pub(super) fn reading(
        &mut self,
        tag: usize,
        mut recipe: Recipe,
        access: &Access,
        made: &Stored,
    ) -> Result<Prologue, TargetError> {
        let value = recipe.root_term().value;
        let shape = access.view.shape().clone();
        let operand = Stored { view: access.view.clone(), ..made.clone() };
        let groups = groups_of(access, &shape)
            .ok_or_else(|| TargetError::Fault("a view of what a prologue makes has no strides".to_owned()))?;
        let extents = four(&shape).unwrap_or([1; 4]);
        let order = super::recipe::FRAME;
        let source = TermSource::Dram { access: Box::new(access.clone()), shape, order };
        recipe.terms = vec![super::recipe::Term { value, extents, source }];
        let repeat = recipe.root.repeat;
        recipe.root = Use { term: 0, first: 0, step: 1, repeat };
        Ok(Prologue { tag, recipe, framed: vec![Some(Framed { operand, groups })], stores: Vec::new(), factor: None })
    }

    /// The element type that the operand has on chip.
    pub(super) fn prologue_dtype(&self, prologue: &Prologue) -> DType {
        self.term_dtype(prologue, prologue.recipe.root.term)
    }

    fn term_dtype(&self, prologue: &Prologue, term: usize) -> DType {
        let value = prologue.recipe.terms[term].value;
        match &prologue.framed[term] {
            Some(framed) => framed.operand.dtype,
            None => storage(self.plan.graph.ty(value).dtype),
        }
    }

    /// Who fills a place into which an operand is fetched.
    pub(super) fn filler(&self, prologue: &Prologue) -> Filler {
        match &prologue.recipe.root_term().source {
            TermSource::Dram { .. } => Filler::Load,
            TermSource::Node { node, .. } if matches!(self.plan.graph.node(*node).op, Op::Concat(_)) => Filler::Both,
            TermSource::Node { .. } | TermSource::Number => Filler::Vector,
        }
    }

    /// Bytes of buffers that a piece of so many batches, heads and positions takes, next to the operand itself.
    pub(super) fn prologue_bytes(&self, prologue: &Prologue, lens: [usize; 3]) -> u64 {
        let terms = prologue.recipe.terms.iter().enumerate();
        terms
            .map(|(index, term)| {
                let count: usize =
                    (0..3).map(|axis| if term.extents[axis] == 1 { 1 } else { lens[axis] }).product::<usize>()
                        * term.extents[FEATURE];
                let bytes = count as u64 * element_bytes(self.term_dtype(prologue, index)) as u64;
                let temporaries = match &term.source {
                    TermSource::Number => return 0,
                    TermSource::Node { node, .. } => match self.plan.graph.node(*node).op {
                        Op::Rope(_) => 6 * self.emitter.allocated(count as u64 * 2),
                        _ => 0,
                    },
                    TermSource::Dram { .. } => 0,
                };
                2 * (self.emitter.allocated(bytes) + temporaries)
            })
            .sum()
    }

    /// Evaluates a part of the operand into a place on chip. Its features may be some of all.
    pub(super) fn fetch(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        part: &Part,
        place: &ChipOperand,
    ) -> Result<(), TargetError> {
        let root = prologue.recipe.root;
        let term = prologue.recipe.root_term();
        if let TermSource::Number = term.source {
            let number = self.immediate(term.value);
            let number = number.ok_or_else(|| TargetError::Fault("a constant without a number".to_owned()))?;
            self.map(MapFn::Copy, &part.lens(), place, &[ChipSource::Immediate(number)]);
            return Ok(());
        }
        let features = part.0[FEATURE].clone();
        let same = place.dtype == self.prologue_dtype(prologue);
        let whole = root.first == 0 && root.step == 1 && features == (0..term.extents[FEATURE]);
        if same && (prologue.framed[root.term].is_some() || whole) {
            let mut known = vec![None; prologue.recipe.terms.len()];
            return self.produce(prologue, slots, &mut known, root.term, part, Some(place)).map(|_| ());
        }
        let made = self.operand_part(prologue, slots, part)?;
        self.map(MapFn::Copy, &part.lens(), place, &[ChipSource::Chip(&made)]);
        Ok(())
    }

    /// Evaluates a part of an operand that is multiplied with a number on the way into a place of any type.
    pub(super) fn fetch_scaled(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        part: &Part,
        place: &ChipOperand,
    ) -> Result<(), TargetError> {
        let mut known = vec![None; prologue.recipe.terms.len()];
        self.produce(prologue, slots, &mut known, prologue.recipe.root.term, part, Some(place)).map(|_| ())
    }

    /// Evaluates a part of the operand and says where it is.
    pub(super) fn operand_part(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        part: &Part,
    ) -> Result<ChipOperand, TargetError> {
        let root = prologue.recipe.root;
        let mut known = vec![None; prologue.recipe.terms.len()];
        let dram = prologue.framed[root.term].is_some();
        let all = 0..prologue.recipe.root_term().extents[FEATURE];
        let wanted = if dram { part.clone() } else { part.along(FEATURE, all) };
        let made = self.produce(prologue, slots, &mut known, root.term, &wanted, None)?;
        let mut made = cut(&made, root);
        if !dram {
            let skipped = part.0[FEATURE].start as i64 * made.strides[FEATURE] * element_bytes(made.dtype);
            made.address = made.address.wrapping_add_signed(skipped as i32);
        }
        Ok(made)
    }

    /// Two buffers for a term, of which the one that was not taken last is returned.
    pub(super) fn take(
        &mut self,
        slots: &mut Slots,
        key: (usize, usize, usize),
        bytes: u64,
        filler: Filler,
    ) -> (u32, usize) {
        let slot = slots.slot(key);
        slot.turn = 1 - slot.turn;
        let turn = slot.turn;
        if slot.places[turn].1 < bytes {
            slot.places[turn] = (self.emitter.allocate(filler, bytes), bytes);
            slot.loaded[turn] = None;
        }
        (slot.places[turn].0, turn)
    }

    /// Evaluates a part of a term, into `place` if there is one, else where its extents need least. `known` holds the
    /// terms of this part that have been evaluated.
    pub(super) fn produce(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        known: &mut Vec<Option<ChipOperand>>,
        index: usize,
        part: &Part,
        place: Option<&ChipOperand>,
    ) -> Result<ChipOperand, TargetError> {
        if let Some(made) = &known[index] {
            return Ok(made.clone());
        }
        let term = &prologue.recipe.terms[index];
        let dtype = self.term_dtype(prologue, index);
        let spans = |axis: usize| term.extents[axis] != 1;
        let mut lens = part.lens();
        if place.is_none() {
            (0..4).filter(|&axis| !spans(axis)).for_each(|axis| lens[axis] = 1);
        }
        let filler = match term.source {
            TermSource::Dram { .. } => Filler::Load,
            TermSource::Node { .. } | TermSource::Number => Filler::Vector,
        };
        let own_place = |lowering: &mut Self, slots: &mut Slots| {
            let bytes = lens.iter().product::<usize>() as u64 * element_bytes(dtype) as u64;
            let (address, turn) = lowering.take(slots, (prologue.tag, index, 0), bytes, filler);
            let strides = dense_strides(&lens, spans);
            (ChipOperand { memory: Memory::Scratchpad, address, dtype, strides }, turn)
        };
        let made = match &term.source {
            TermSource::Number => return Err(TargetError::Fault("a number has no place on chip".to_owned())),
            TermSource::Dram { .. } => {
                let Some(framed) = &prologue.framed[index] else {
                    return Err(TargetError::Fault("an operand has no place in memory".to_owned()));
                };
                let from = framed.operand.address(offset(framed, part));
                match place {
                    Some(place) => {
                        let features = vec![(lens[FEATURE], feature_stride(framed), place.strides[FEATURE])];
                        self.load_part(framed, part, lens, &features, place);
                        place.clone()
                    }
                    None => {
                        let slot = slots.slot((prologue.tag, index, 0));
                        let held = (0..2).find(|&turn| slot.loaded[turn] == Some((from, lens)));
                        if let Some(turn) = held {
                            // The next to be loaded goes to the other place: what is read here may be used for long.
                            slot.turn = turn;
                            let (address, strides) = (slot.places[turn].0, dense_strides(&lens, spans));
                            ChipOperand { memory: Memory::Scratchpad, address, dtype, strides }
                        } else {
                            let (place, turn) = own_place(self, slots);
                            let features = vec![(lens[FEATURE], feature_stride(framed), 1)];
                            self.load_part(framed, part, lens, &features, &place);
                            slots.slot((prologue.tag, index, 0)).loaded[turn] = Some((from, lens));
                            place
                        }
                    }
                }
            }
            TermSource::Node { node, operands, .. } => {
                let place = match place {
                    Some(place) => place.clone(),
                    None => own_place(self, slots).0,
                };
                self.compute(prologue, slots, known, (*node, index, operands), part, lens, &place)?;
                place
            }
        };
        if let Some((_, to)) = prologue.stores.iter().find(|(value, _)| *value == term.value) {
            self.store_part(to, part, &made);
        }
        known[index] = Some(made.clone());
        Ok(made)
    }

    #[expect(clippy::too_many_arguments, reason = "a node has its expression, its operands, its part and its place")]
    fn compute(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        known: &mut Vec<Option<ChipOperand>>,
        (id, index, operands): (NodeId, usize, &[Use]),
        part: &Part,
        lens: [usize; 4],
        place: &ChipOperand,
    ) -> Result<(), TargetError> {
        let node = self.plan.graph.node(id);
        let extent = |operand: &Use| prologue.recipe.terms[operand.term].extents[FEATURE];
        match &node.op {
            Op::Concat(_) => return self.join(prologue, slots, operands, part, place),
            Op::Rope(rope) => {
                let planes = if rope.interleaved { Planes::Neighbours } else { Planes::Halves };
                return self.rotate(prologue, slots, known, (index, operands, planes), part, lens, place);
            }
            _ => {}
        }
        let mut sources = Vec::with_capacity(operands.len());
        for (operand, &input) in operands.iter().zip(&node.inputs) {
            let term = &prologue.recipe.terms[operand.term];
            if matches!(term.source, TermSource::Number) {
                let number = self.immediate(term.value).or_else(|| self.immediate(input));
                sources.push(Err(number.ok_or_else(|| TargetError::Fault("a constant without a number".to_owned()))?));
                continue;
            }
            let part = part.along(FEATURE, 0..extent(operand));
            let made = self.produce(prologue, slots, known, operand.term, &part, None)?;
            sources.push(Ok(cut(&made, *operand)));
        }
        let chips: Vec<ChipSource<'_>> = sources
            .iter()
            .map(|source| match source {
                Ok(operand) => ChipSource::Chip(operand),
                Err(number) => ChipSource::Immediate(number.clone()),
            })
            .collect();
        if let Op::Reduce(reduce) = &node.op {
            let count = self.plan.graph.shape(node.inputs[0]).last().copied().unwrap_or(1);
            return self.fold_features(reduce, lens, count, place, &chips[0]);
        }
        let Some(function) = map_function(&node.op) else {
            return Err(TargetError::Fault(format!("`{}` is not element-wise", node.origin)));
        };
        self.map(function, &lens, place, &chips);
        Ok(())
    }

    /// A reduction over features.
    fn fold_features(
        &mut self,
        reduce: &Reduce,
        lens: [usize; 4],
        count: usize,
        place: &ChipOperand,
        source: &ChipSource<'_>,
    ) -> Result<(), TargetError> {
        let function = match reduce.function {
            ReduceFn::Sum | ReduceFn::Mean => FoldFn::Sum,
            ReduceFn::Prod => FoldFn::Product,
            ReduceFn::Max => FoldFn::Max,
            ReduceFn::Min => FoldFn::Min,
        };
        let source = match source {
            ChipSource::Chip(operand) => Source::Walk(operand.walk(&operand.strides, 0)),
            ChipSource::Immediate(number) => number.clone(),
        };
        let mut strides = place.strides.clone();
        strides[FEATURE] = 0;
        self.emitter.emit(Operation::Fold(Fold {
            function,
            dims: [lens[0], lens[1], lens[2], count].map(|len| len as u32).into_iter().collect(),
            reduced: 1,
            accumulate: false,
            destination: place.walk(&strides, 0),
            sources: [source].into_iter().collect(),
        }));
        if reduce.function == ReduceFn::Mean {
            let count =
                if place.dtype.is_float() { Source::Float(count as f64) } else { Source::Integer(count as i64) };
            let sources = [ChipSource::Chip(place), ChipSource::Immediate(count)];
            self.map(MapFn::Binary(BinaryFn::Div), &lens, place, &sources);
        }
        Ok(())
    }

    /// Joins parts along positions: each is made where it belongs.
    fn join(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        operands: &[Use],
        part: &Part,
        place: &ChipOperand,
    ) -> Result<(), TargetError> {
        let wanted = part.0[POSITION].clone();
        let mut start = 0;
        for operand in operands {
            let term = &prologue.recipe.terms[operand.term];
            let end = start + self.joined_extent(prologue, *operand);
            let (from, to) = (wanted.start.max(start), wanted.end.min(end));
            if from < to {
                let distance = (from - wanted.start) as i64 * place.strides[POSITION] * element_bytes(place.dtype);
                let address = place.address.wrapping_add_signed(distance as i32);
                let there = ChipOperand { address, ..place.clone() };
                let own = part.along(POSITION, from - start..to - start);
                let whole = operand.first == 0 && operand.step == 1 && own.0[FEATURE] == (0..term.extents[FEATURE]);
                let same = self.term_dtype(prologue, operand.term) == place.dtype
                    && !matches!(term.source, TermSource::Number);
                // The same term may be joined twice, so that nothing is known from one to the next.
                let mut known = vec![None; prologue.recipe.terms.len()];
                if same && whole {
                    self.produce_pieces(prologue, slots, operand.term, &own, &there)?;
                } else if let (TermSource::Number, Some(number)) = (&term.source, self.immediate(term.value)) {
                    self.map(MapFn::Copy, &own.lens(), &there, &[ChipSource::Immediate(number)]);
                } else {
                    let all = own.along(FEATURE, 0..term.extents[FEATURE]);
                    let made = self.produce(prologue, slots, &mut known, operand.term, &all, None)?;
                    self.map(MapFn::Copy, &own.lens(), &there, &[ChipSource::Chip(&cut(&made, *operand))]);
                }
            }
            start = end;
        }
        Ok(())
    }

    /// Positions that an operand of a concatenation has.
    fn joined_extent(&self, prologue: &Prologue, operand: Use) -> usize {
        let term = &prologue.recipe.terms[operand.term];
        match &term.source {
            TermSource::Dram { shape, order, .. } => shape[order[POSITION]],
            TermSource::Number | TermSource::Node { .. } => term.extents[POSITION],
        }
    }

    /// Evaluates a term in pieces of positions that need little memory.
    fn produce_pieces(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        term: usize,
        part: &Part,
        place: &ChipOperand,
    ) -> Result<(), TargetError> {
        let whole = part.0[POSITION].clone();
        let joins = match &prologue.recipe.terms[term].source {
            TermSource::Node { node, .. } => matches!(self.plan.graph.node(*node).op, Op::Concat(_)),
            TermSource::Dram { .. } | TermSource::Number => true,
        };
        let [batches, heads, _, _] = part.lens();
        let length = if joins { whole.len().max(1) } else { self.piece(prologue, batches * heads) };
        for start in whole.clone().step_by(length) {
            let piece = part.along(POSITION, start..(start + length).min(whole.end));
            let distance = (start - whole.start) as i64 * place.strides[POSITION] * element_bytes(place.dtype);
            let address = place.address.wrapping_add_signed(distance as i32);
            let there = ChipOperand { address, ..place.clone() };
            let mut known = vec![None; prologue.recipe.terms.len()];
            self.produce(prologue, slots, &mut known, term, &piece, Some(&there))?;
        }
        Ok(())
    }

    /// Positions of so many heads that one piece of a prologue works on.
    pub(super) fn piece(&self, prologue: &Prologue, heads: usize) -> usize {
        let features = prologue.recipe.terms.iter().map(|term| term.extents[FEATURE]).max().unwrap_or(1);
        let scratchpad = self.emitter.capacity() as usize;
        let most = self.squeezed(PIECE_ELEMENTS.min(scratchpad / 64));
        (most / (heads * features).max(1)).max(1)
    }

    /// Evaluates a part of the operand into a place, in pieces of positions.
    pub(super) fn fetch_pieces(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        part: &Part,
        place: &ChipOperand,
    ) -> Result<(), TargetError> {
        let root = prologue.recipe.root;
        let term = prologue.recipe.root_term();
        let whole = root.first == 0 && root.step == 1 && part.0[FEATURE] == (0..term.extents[FEATURE]);
        if !matches!(term.source, TermSource::Node { .. }) {
            return self.fetch(prologue, slots, part, place);
        }
        if whole && place.dtype == self.prologue_dtype(prologue) {
            return self.produce_pieces(prologue, slots, root.term, part, place);
        }
        let positions = part.0[POSITION].clone();
        let [batches, heads, _, _] = part.lens();
        let length = self.piece(prologue, batches * heads);
        for start in positions.clone().step_by(length) {
            let piece = part.along(POSITION, start..(start + length).min(positions.end));
            let distance = (start - positions.start) as i64 * place.strides[POSITION] * element_bytes(place.dtype);
            let address = place.address.wrapping_add_signed(distance as i32);
            self.fetch(prologue, slots, &piece, &ChipOperand { address, ..place.clone() })?;
        }
        Ok(())
    }

    /// Evaluates a part for the sake of what it stores.
    pub(super) fn produce_only(
        &mut self,
        prologue: &Prologue,
        slots: &mut Slots,
        part: &Part,
    ) -> Result<(), TargetError> {
        let positions = part.0[POSITION].clone();
        let [batches, heads, _, _] = part.lens();
        let length = self.piece(prologue, batches * heads);
        for start in positions.clone().step_by(length) {
            let piece = part.along(POSITION, start..(start + length).min(positions.end));
            self.operand_part(prologue, slots, &piece)?;
        }
        Ok(())
    }

    /// Loads a part of an operand. `lens` may be 1 where the operand has one element for all.
    pub(super) fn load_part(
        &mut self,
        from: &Framed,
        part: &Part,
        lens: [usize; 4],
        features: &Features,
        place: &ChipOperand,
    ) {
        let element = element_bytes(place.dtype);
        // Axes made of several atoms are walked step by step, unless one step is all there is.
        let steps = |axis: usize| if from.groups[axis].len() > 1 { lens[axis] } else { 1 };
        let single = |axis: usize| match from.groups[axis][..] {
            [atom] => (lens[axis], atom.stride, place.strides[axis]),
            [] => (lens[axis], 0, place.strides[axis]),
            _ => (1, 0, place.strides[axis]),
        };
        let mut dims = vec![single(BATCH), single(HEAD), single(POSITION)];
        dims.extend(features.iter().copied());
        // A dimension of several steps that is kept in one place is moved once.
        dims.retain(|dim| dim.0 > 1 || dim.0 == 0);
        let sizes: Vec<usize> = dims.iter().map(|dim| dim.0).collect();
        let dram: Vec<i64> = dims.iter().map(|dim| dim.1).collect();
        let chip: Vec<i64> = dims.iter().map(|dim| dim.2).collect();
        for batch in 0..steps(BATCH) {
            for head in 0..steps(HEAD) {
                let start = |axis: usize, step: usize| part.0[axis].start + step;
                let first = axis_offset(&from.groups[BATCH], start(BATCH, batch))
                    + axis_offset(&from.groups[HEAD], start(HEAD, head))
                    + axis_offset(&from.groups[POSITION], part.0[POSITION].start)
                    + axis_offset(&from.groups[FEATURE], part.0[FEATURE].start);
                let distance = batch as i64 * place.strides[BATCH] + head as i64 * place.strides[HEAD];
                let address = place.address.wrapping_add_signed((distance * element) as i32);
                let source = from.operand.address(first);
                self.move_tile(false, source, from.operand.dtype, &sizes, &dram, address, &chip);
            }
        }
    }

    /// Stores a part of a value of the kernel to where it belongs.
    pub(super) fn store_part(&mut self, to: &FramedResult, part: &Part, made: &ChipOperand) {
        let (start, lens) = to.part(part);
        self.move_tile(
            true,
            to.stored.address(start),
            to.stored.dtype,
            &lens,
            &to.strides,
            made.address,
            &made.strides,
        );
    }
}

/// A result with its stride along each axis of the frame.
#[derive(Clone)]
pub(super) struct FramedResult {
    pub stored: Stored,
    strides: [i64; 4],
    /// Axes along which there is more than one element.
    spans: [bool; 4],
}

impl FramedResult {
    /// A result that an operator gives in this order of axes; `None` if an axis has no single stride.
    pub fn new(stored: Stored, order: super::recipe::Order) -> Option<FramedResult> {
        let groups = stored.view.groups()?;
        let shape = stored.view.shape().clone();
        let missing = 4usize.checked_sub(shape.rank())?;
        let mut strides = [0; 4];
        let mut spans = [false; 4];
        for (axis, &dim) in order.iter().enumerate() {
            let Some(dim) = dim.checked_sub(missing) else { continue };
            spans[axis] = shape[dim] != 1;
            strides[axis] = match groups[dim][..] {
                [] => 0,
                [atom] => atom.stride,
                _ => return None,
            };
        }
        Some(FramedResult { stored, strides, spans })
    }

    /// Where a part begins, from the first element of all, and its lengths.
    fn part(&self, part: &Part) -> (i64, [usize; 4]) {
        let lens = [0, 1, 2, 3].map(|axis| if self.spans[axis] { part.0[axis].len() } else { 1 });
        let spanned = (0..4).filter(|&axis| self.spans[axis]);
        (spanned.map(|axis| part.0[axis].start as i64 * self.strides[axis]).sum(), lens)
    }

    /// A part where it lies, if the result stays on chip.
    pub fn in_place(&self, part: &Part) -> Option<ChipOperand> {
        self.stored.in_place(self.part(part).0, &self.strides)
    }
}

/// The features of a term that are used.
pub(super) fn cut(made: &ChipOperand, used: Use) -> ChipOperand {
    let mut operand = made.clone();
    let skipped = used.first as i64 * operand.strides[FEATURE] * element_bytes(operand.dtype);
    operand.address = operand.address.wrapping_add_signed(skipped as i32);
    operand.strides[FEATURE] *= used.step as i64;
    operand
}

/// Distance between features in DRAM.
pub(super) fn feature_stride(framed: &Framed) -> i64 {
    framed.groups[FEATURE].first().map_or(0, |atom| atom.stride)
}

/// Offset of an index along an axis.
fn axis_offset(atoms: &[tcc_ir::Atom], index: usize) -> i64 {
    let mut rest = index;
    let mut offset = 0;
    for atom in atoms.iter().rev() {
        offset += (rest % atom.size) as i64 * atom.stride;
        rest /= atom.size;
    }
    offset
}

/// Offset of the first element of a part.
fn offset(framed: &Framed, part: &Part) -> i64 {
    (0..4).map(|axis| axis_offset(&framed.groups[axis], part.0[axis].start)).sum()
}
