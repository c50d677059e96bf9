//! What steps of a stretch read and write, by names: values that never meet have different names even where the kernel's order
//! holds them in the same slot one after the other.
//!
//! What lives within the stretch alone has a name of its own, and goes to a slot of its own afterwards. All else keeps its slot.
//! When something is there and which index it holds are two things, with names apart.

use smallvec::SmallVec;

use super::super::code::{Access, Address, Code, Compiled, Instruction, Kind, NOTHING, Slot, Source, Space};
use super::super::registers::Lives;
use super::Figures;
use super::pressure::{Held, Uses};

/// Something that is read and written in a stretch.
pub(super) type Name = u32;

/// What shared memory holds, and those buffers that the kernel writes: stores keep their order, and their places among loads.
/// Different buffers and arrays could be told apart; but what a compiler is handed are addresses.
const SHARED: Name = 0;
const WRITTEN: Name = 1;

/// A step of a stretch.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub code: Code,
    pub reads: SmallVec<[Name; 4]>,
    /// With whether it is the result of an instruction, which is there after the latency.
    pub writes: SmallVec<[(Name, bool); 2]>,
    /// Whether something after the stretch may wait for the result.
    pub leaves: bool,
    /// What it reads or writes that is held in registers, by its place in [`Lives::all`].
    pub lives: SmallVec<[usize; 4]>,
}

impl Step {
    pub fn is_issue(&self) -> bool {
        matches!(self.code, Code::Issue(_))
    }

    /// All that it reads and writes.
    fn names(&self) -> impl Iterator<Item = Name> {
        self.reads.iter().copied().chain(self.writes.iter().map(|&(name, _)| name))
    }
}

/// Names of a stretch for slots, or for what lives.
#[derive(Clone, Debug, Default)]
struct Known {
    /// With the number of the stretch that each is of.
    names: Vec<(u32, Name)>,
}

impl Known {
    fn get(&self, index: usize, stretch: u32) -> Option<Name> {
        self.names.get(index).filter(|known| known.0 == stretch).map(|known| known.1)
    }

    fn set(&mut self, index: usize, stretch: u32, name: Name) {
        if self.names.len() <= index {
            self.names.resize(index + 1, (0, 0));
        }
        self.names[index] = (stretch, name);
    }
}

/// Names of all stretches, from the first to the last.
#[derive(Debug)]
pub(super) struct Names {
    /// Slots that there were.
    own: usize,
    /// Slots beyond them that stretches take.
    more: usize,
    /// What lives in each slot at the step that was named last, by its place in [`Lives::all`], and how many of these have begun.
    current: Vec<Option<usize>>,
    begun: usize,
    /// Those that had begun before the stretch.
    begun_before: usize,
    /// Registers of what lives from before each step on.
    entering: Vec<i64>,
    /// The number of the stretch.
    stretch: u32,
    /// Where each name of the stretch stays: in a slot, or in one that is to be found.
    slots: Vec<Option<Slot>>,
    of_slots: Known,
    of_lives: Known,
    /// Names of indices that stay in their slots, and those of what slots have now.
    of_indices: Known,
    now: Known,
    /// The last step that gives a slot an index that needs none from before.
    last: Known,
}

impl Names {
    pub fn new(compiled: &Compiled, lives: &Lives) -> Names {
        let steps = compiled.code.len();
        let mut entering = vec![0; steps + 3];
        for live in &lives.all {
            entering[live.first.min(steps) + 1] += i64::from(live.registers);
            entering[live.last.min(steps + 1) + 1] -= i64::from(live.registers);
        }
        let mut now = 0;
        for change in &mut entering {
            now += *change;
            *change = now;
        }
        Names {
            own: compiled.slots,
            more: 0,
            current: vec![None; compiled.slots],
            begun: 0,
            begun_before: 0,
            entering,
            stretch: 0,
            slots: Vec::new(),
            of_slots: Known::default(),
            of_lives: Known::default(),
            of_indices: Known::default(),
            now: Known::default(),
            last: Known::default(),
        }
    }

    /// All slots.
    pub fn slots(&self) -> usize {
        self.own + self.more
    }

    /// Number of names of the stretch.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// Goes on to a step: what begins to live there lives.
    fn advance(&mut self, lives: &Lives, at: usize) {
        while let Some(live) = lives.all.get(self.begun).filter(|live| live.first <= at) {
            self.current[live.slot as usize] = Some(self.begun);
            self.begun += 1;
        }
    }

    fn fresh(&mut self, slot: Option<Slot>) -> Name {
        self.slots.push(slot);
        self.slots.len() as Name - 1
    }

    /// The steps of a stretch with their names. Stretches come in order.
    pub fn named(
        &mut self,
        compiled: &Compiled,
        lives: &Lives,
        figures: &Figures,
        (start, end): (usize, usize),
    ) -> Vec<Step> {
        self.stretch += 1;
        self.slots.clear();
        // Those of memory.
        self.slots.extend([None, None]);
        if let Some(before) = start.checked_sub(1) {
            self.advance(lives, before);
        }
        self.begun_before = self.begun;
        for (place, code) in compiled.code[start..end].iter().enumerate() {
            if let Code::Index { to, .. } | Code::Choose { to, .. } | Code::Copy { to, is_new: true, .. } = *code {
                self.last.set(to as usize, self.stretch, place as u32);
            }
        }
        let mut steps = Vec::with_capacity(end - start);
        for (place, &code) in compiled.code[start..end].iter().enumerate() {
            self.advance(lives, start + place);
            let mut step =
                Step { code, reads: SmallVec::new(), writes: SmallVec::new(), leaves: false, lives: SmallVec::new() };
            let mut indices: SmallVec<[Source; 3]> = SmallVec::new();
            each_source(code, &compiled.accesses, |source| indices.push(source));
            indices.into_iter().for_each(|source| self.read_index(&mut step, source));
            match code {
                Code::Issue(instruction) => {
                    for slot in instruction.sources {
                        self.read(&mut step, slot, lives, (start, end));
                    }
                    if let Some(number) = instruction.access {
                        touch(&mut step, &compiled.accesses[number as usize], figures);
                    }
                    self.write(&mut step, instruction.target, lives, (start, end), true);
                }
                Code::Alias { from, to } => {
                    self.read(&mut step, from, lives, (start, end));
                    self.write(&mut step, to, lives, (start, end), false);
                }
                Code::Index { to, .. } | Code::Choose { to, .. } => self.write_index(&mut step, to, place, true),
                Code::Copy { to, is_new, .. } => self.write_index(&mut step, to, place, is_new),
                Code::Loop { .. }
                | Code::EndLoop { .. }
                | Code::If { .. }
                | Code::Else { .. }
                | Code::EndIf
                | Code::Barrier
                | Code::Commit
                | Code::Await { .. } => {}
            }
            steps.push(step);
        }
        steps
    }

    /// The name of what a slot holds now.
    fn held(&mut self, step: &mut Step, slot: Slot, lives: &Lives, (start, end): (usize, usize), reads: bool) -> Name {
        let live = self.current[slot as usize];
        if let Some(live) = live
            && !step.lives.contains(&live)
        {
            step.lives.push(live);
        }
        let own = live.filter(|&live| lives.all[live].first >= start && lives.all[live].last < end);
        if let Some(own) = own {
            if let Some(name) = self.of_lives.get(own, self.stretch) {
                return name;
            }
            // What is read without having been written stays where it is.
            if !reads {
                let name = self.fresh(None);
                self.of_lives.set(own, self.stretch, name);
                return name;
            }
        }
        let known = self.of_slots.get(slot as usize, self.stretch);
        let name = known.unwrap_or_else(|| self.fresh(Some(slot)));
        self.of_slots.set(slot as usize, self.stretch, name);
        if let Some(own) = own {
            self.of_lives.set(own, self.stretch, name);
        }
        name
    }

    fn read(&mut self, step: &mut Step, slot: Slot, lives: &Lives, stretch: (usize, usize)) {
        if slot != NOTHING {
            let name = self.held(step, slot, lives, stretch, true);
            step.reads.push(name);
        }
    }

    fn write(&mut self, step: &mut Step, slot: Slot, lives: &Lives, stretch: (usize, usize), is_result: bool) {
        if slot != NOTHING {
            let name = self.held(step, slot, lives, stretch, false);
            step.writes.push((name, is_result));
            step.leaves = self.slots[name as usize].is_some();
        }
    }

    /// The name of the index that stays in a slot.
    fn kept(&mut self, slot: Slot) -> Name {
        let known = self.of_indices.get(slot as usize, self.stretch);
        let name = known.unwrap_or_else(|| self.fresh(Some(slot)));
        self.of_indices.set(slot as usize, self.stretch, name);
        name
    }

    /// The name of the index that a slot has now.
    fn index(&mut self, slot: Slot) -> Name {
        let now = self.now.get(slot as usize, self.stretch);
        now.unwrap_or_else(|| self.kept(slot))
    }

    fn read_index(&mut self, step: &mut Step, source: Source) {
        if let Source::Slot(slot) = source {
            let name = self.index(slot);
            step.reads.push(name);
        }
    }

    fn write_index(&mut self, step: &mut Step, slot: Slot, place: usize, is_new: bool) {
        let is_last = self.last.get(slot as usize, self.stretch) == Some(place as u32);
        let name = match (is_new, is_last) {
            // Another follows, so that nothing after the stretch needs this one.
            (true, false) => self.fresh(None),
            (true, true) => self.kept(slot),
            (false, _) => self.index(slot),
        };
        self.now.set(slot as usize, self.stretch, name);
        if !is_new {
            // Lanes that do not take part keep what they have.
            step.reads.push(name);
        }
        step.writes.push((name, false));
    }

    /// What steps hold in registers.
    pub fn uses(&self, steps: &[Step], lives: &Lives, (start, end): (usize, usize)) -> Uses {
        let mut places: Vec<(usize, usize)> = Vec::new();
        for (place, step) in steps.iter().enumerate() {
            places.extend(step.lives.iter().map(|&live| (live, place)));
        }
        places.sort_unstable();
        let mut uses = Uses { of_steps: vec![SmallVec::new(); steps.len()], all: Vec::new(), entering: 0 };
        for own in places.chunk_by(|a, b| a.0 == b.0) {
            let live = &lives.all[own[0].0];
            let number = uses.all.len();
            uses.all.push(Held {
                registers: i64::from(live.registers),
                is_there: live.first < start,
                stays: live.last >= end,
                first: own[0].1,
                last: own[own.len() - 1].1,
                left: own.len(),
            });
            own.iter().for_each(|&(_, place)| uses.of_steps[place].push(number));
        }
        uses.entering = self.entering[start];
        // What begins and is not used yet counts from the start.
        let is_unused = |live: &usize| places.binary_search_by_key(live, |&(live, _)| live).is_err();
        let unused = (self.begun_before..self.begun).filter(is_unused);
        uses.entering += unused.map(|live| i64::from(lives.all[live].registers)).sum::<i64>();
        uses
    }

    /// Writes steps in another order, with slots for their names.
    pub fn rename(&mut self, compiled: &mut Compiled, steps: &[Step], order: &[usize], start: usize) {
        let mut left = vec![0u32; self.slots.len()];
        steps.iter().flat_map(Step::names).for_each(|name| left[name as usize] += 1);
        let mut free: Vec<Slot> = Vec::new();
        let mut own: Vec<bool> = self.slots.iter().map(Option::is_none).collect();
        own[SHARED as usize] = false;
        own[WRITTEN as usize] = false;
        let mut taken = 0;
        for (place, &number) in order.iter().enumerate() {
            let step = &steps[number];
            for name in step.names() {
                if own[name as usize] && self.slots[name as usize].is_none() {
                    let slot = free.pop().unwrap_or_else(|| {
                        taken += 1;
                        (self.own + taken) as Slot - 1
                    });
                    self.slots[name as usize] = Some(slot);
                }
            }
            compiled.code[start + place] = self.renamed(step, &mut compiled.accesses);
            for name in step.names() {
                left[name as usize] -= 1;
                if let (0, true, Some(slot)) = (left[name as usize], own[name as usize], self.slots[name as usize]) {
                    free.push(slot);
                }
            }
        }
        self.more = self.more.max(taken);
    }

    /// A step with slots for its names, which come in the order in which they were found.
    fn renamed(&self, step: &Step, accesses: &mut [Access]) -> Code {
        let mut reads = step.reads.iter().map(|&name| self.slots[name as usize].unwrap_or(NOTHING));
        let target = step.writes.last().and_then(|&(name, _)| self.slots[name as usize]);
        let mut code = step.code;
        each_source_mut(&mut code, accesses, |source| {
            if let Source::Slot(slot) = source {
                *slot = reads.next().unwrap_or(*slot);
            }
        });
        let mut next = |slot: &mut Slot| {
            if *slot != NOTHING {
                *slot = reads.next().unwrap_or(*slot);
            }
        };
        match &mut code {
            Code::Issue(Instruction { sources, target: to, .. }) => {
                sources.iter_mut().for_each(&mut next);
                if *to != NOTHING {
                    *to = target.unwrap_or(*to);
                }
            }
            Code::Alias { from, to } => {
                next(from);
                *to = target.unwrap_or(*to);
            }
            Code::Index { to, .. } | Code::Choose { to, .. } | Code::Copy { to, .. } => *to = target.unwrap_or(*to),
            Code::Loop { .. }
            | Code::EndLoop { .. }
            | Code::If { .. }
            | Code::Else { .. }
            | Code::EndIf
            | Code::Barrier
            | Code::Commit
            | Code::Await { .. } => {}
        }
        code
    }
}

/// What is held in registers is used where steps are now.
pub(super) fn reorder(lives: &mut Lives, steps: &[Step], order: &[usize], (start, end): (usize, usize)) {
    let mut places: Vec<(usize, usize)> = Vec::new();
    for (place, &step) in order.iter().enumerate() {
        places.extend(steps[step].lives.iter().map(|&live| (live, start + place)));
    }
    places.sort_unstable();
    for own in places.chunk_by(|a, b| a.0 == b.0) {
        lives.reorder(own[0].0, (own[0].1, own[own.len() - 1].1), (start, end));
    }
}

/// Where a step has indices from.
fn each_source(mut code: Code, accesses: &[Access], mut f: impl FnMut(Source)) {
    if let Code::Issue(Instruction { access: Some(number), .. }) = code {
        let mut access = accesses[number as usize];
        of_access(&mut access, |source| f(*source));
    }
    of_code(&mut code, |source| f(*source));
}

/// The same, to change it.
fn each_source_mut(code: &mut Code, accesses: &mut [Access], mut f: impl FnMut(&mut Source)) {
    if let Code::Issue(Instruction { access: Some(number), .. }) = *code {
        of_access(&mut accesses[number as usize], &mut f);
    }
    of_code(code, f);
}

fn of_code(code: &mut Code, mut f: impl FnMut(&mut Source)) {
    match code {
        Code::Index { a, b, .. } => [a, b].into_iter().for_each(f),
        Code::Choose { condition, a, b, .. } => [condition, a, b].into_iter().for_each(f),
        Code::Copy { from, .. } => f(from),
        Code::Issue(_)
        | Code::Alias { .. }
        | Code::Loop { .. }
        | Code::EndLoop { .. }
        | Code::If { .. }
        | Code::Else { .. }
        | Code::EndIf
        | Code::Barrier
        | Code::Commit
        | Code::Await { .. } => {}
    }
}

fn of_access(access: &mut Access, mut f: impl FnMut(&mut Source)) {
    match &mut access.address {
        Address::Index(source) | Address::Lines { from: source, .. } => f(source),
        Address::Thread | Address::Same => {}
    }
    if let Some((_, to, when)) = &mut access.copied {
        [to, when].into_iter().for_each(f);
    }
}

/// What an access does to memory. Buffers that are only read are the same all the time, which is declared.
fn touch(step: &mut Step, access: &Access, figures: &Figures) {
    let of = |space: Space| match space {
        Space::Shared(_) => Some(SHARED),
        Space::Global(buffer) => figures.written.get(buffer as usize).is_none_or(|&written| written).then_some(WRITTEN),
    };
    match (of(access.space), access.kind) {
        (Some(memory), Kind::Store) => step.writes.push((memory, false)),
        // These come last, behind all that is renamed.
        (Some(memory), Kind::Load | Kind::Prefetch | Kind::Fence) => step.reads.push(memory),
        (None, _) => {}
    }
    if access.copied.is_some() {
        step.writes.push((SHARED, false));
    }
}
