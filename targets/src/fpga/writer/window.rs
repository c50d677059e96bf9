//! Beats of external memory, and words of FIFOs, that a run of statements touches: they are read before lanes take their elements out of them, and
//! written after all lanes have put theirs in.

use super::access::{behind, per_beat};
use super::function::Writer;
use super::index::{Atom, Linear, Split, gcd};
use super::stream::Words;
use crate::fpga::design::Home;
use crate::kernel::writer::Binding;
use crate::kernel::{BufferId, Expr, ExprId, Memory, Stmt};

/// Most beats that are held for one access.
const MOST: i64 = 16;

/// Beats that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub buffer: BufferId,
    /// Where they begin: an index that is the same for all lanes.
    pub base: Linear,
    pub count: i64,
    pub writes: bool,
    /// Whether some of them may not be there, or not be wanted.
    pub is_guarded: bool,
    /// Whether lanes write all of every beat.
    pub is_full: bool,
    pub name: String,
    /// The number of the first beat.
    pub at: String,
    /// Where the base lies in the first beat.
    pub offset: String,
}

/// An index as what is the same for all lanes and what each lane adds, and the beats that all of them reach.
struct Spread {
    base: Linear,
    own: Linear,
    count: i64,
    is_aligned: bool,
}

impl Writer<'_> {
    /// An index as what is the same for all lanes, if that is there before the run, and what each adds.
    fn spread(&self, buffer: BufferId, linear: &Linear) -> Option<Spread> {
        let per_beat = self.width(buffer);
        let (mut base, mut own) = (Linear::default(), Linear::default());
        for &(atom, times) in &linear.terms {
            let is_own = matches!(atom, Atom::Lane | Atom::Slot(_));
            if is_own && times < 0 || !is_own && !self.is_common(atom) {
                return None;
            }
            if is_own { &mut own } else { &mut base }.terms.push((atom, times));
        }
        let step = self.indices.common_divisor(&base, per_beat);
        own.constant = linear.constant.rem_euclid(step);
        base.constant = linear.constant - own.constant;
        let step = gcd(base.constant.abs(), step).max(1);
        let last = self.indices.bound(&own)?;
        let count = (per_beat - step + last) / per_beat + 1;
        let fits = count <= MOST.min(last + 2) && self.indices.split(&base, per_beat).is_some();
        fits.then_some(Spread { base, own, count, is_aligned: step == per_beat })
    }

    /// Whether something is the same for all lanes, and is there before the run.
    fn is_common(&self, atom: Atom) -> bool {
        match atom {
            Atom::Block(_) | Atom::Base(_) => true,
            Atom::Lane | Atom::Slot(_) => false,
            Atom::Var(var) => {
                let is_same = !self.sameness.differs(var) || self.sameness.is_settled(var, self.place);
                is_same && !self.inner.contains(&var)
            }
            Atom::Other(id) => !self.sameness.at(id, self.place) && self.is_before(id),
        }
    }

    /// Whether an expression can be computed before the run.
    fn is_before(&self, id: ExprId) -> bool {
        let expr = &self.kernel.exprs[id.index()];
        let is_own = match expr {
            Expr::Var(var) | Expr::Element(var, _) => !self.inner.contains(var),
            Expr::Load(..) | Expr::LoadShared(..) => false,
            _ => true,
        };
        is_own && expr.operands().all(|operand| self.is_before(operand))
    }

    /// Reads the beats that statements, with all in their scopes, touch.
    pub fn open_windows(&mut self, places: &[usize], in_lanes: bool) {
        let kernel = self.kernel;
        let has_words =
            |buffer: u32| matches!(self.function.homes[buffer as usize], Home::External { .. } | Home::Fifo(_));
        if !(0..kernel.buffers.len() as u32).any(has_words) {
            return;
        }
        for &place in places {
            let end = self.after(place);
            self.inner.clear();
            for stmt in &kernel.body[place..end] {
                if let Stmt::For { var, .. } = *stmt {
                    self.inner.insert(var);
                }
            }
            let is_nested = end - place > 1 || self.is_masked();
            for at in place..end {
                self.place = at;
                for (buffer, linear, writes) in self.accesses(at) {
                    let is_spread = linear.terms.iter().any(|(atom, _)| matches!(atom, Atom::Lane | Atom::Slot(_)));
                    let is_wanted = match self.function.homes[buffer.index()] {
                        Home::OnChip(_) | Home::Loaded { .. } => false,
                        Home::External { .. } => is_spread || writes || in_lanes && is_nested,
                        // A word is there for all who want some of it.
                        Home::Fifo(_) => true,
                    };
                    if is_wanted {
                        self.open_window(buffer, &linear, writes, is_nested, in_lanes);
                    }
                }
            }
        }
        self.inner.clear();
    }

    /// Buffers that a statement accesses, where, and whether it writes there.
    fn accesses(&self, at: usize) -> Vec<(BufferId, Linear, bool)> {
        let kernel = self.kernel;
        let stmt = &kernel.body[at];
        let mut found = Vec::new();
        let mut open: Vec<ExprId> = stmt.operands().collect();
        while let Some(id) = open.pop() {
            let expr = &kernel.exprs[id.index()];
            if let (Expr::Load(buffer, index), false) = (expr, self.once.contains_key(&id)) {
                found.push((*buffer, self.indices.linear(*index), false));
            }
            open.extend(expr.operands());
        }
        found.reverse();
        for (memory, index) in stmt.addresses() {
            let Memory::Buffer(buffer) = memory else { continue };
            let mut linear = self.indices.linear(index);
            let (count, writes) = match *stmt {
                Stmt::LoadVector { count, .. } => (count, false),
                Stmt::StoreVector { count, .. } => (count, true),
                _ => (1, true),
            };
            if count == 1 || linear.add(Atom::Slot(count), 1).is_some() {
                found.push((buffer, linear, writes));
            }
        }
        found
    }

    fn open_window(&mut self, buffer: BufferId, linear: &Linear, writes: bool, is_nested: bool, in_lanes: bool) {
        let Some(Spread { base, own, count, is_aligned }) = self.spread(buffer, linear) else { return };
        let known = self.windows.iter().find(|own| (own.buffer, own.writes) == (buffer, writes) && own.base == base);
        let per_beat = self.width(buffer);
        if known.is_some_and(|known| known.count >= count) {
            return;
        }
        if matches!(self.function.homes[buffer.index()], Home::Fifo(_)) {
            let lanes = if in_lanes { i64::from(self.kernel.threads) } else { 1 };
            let is_full = is_aligned && !is_nested && covers(&own, lanes, count * per_beat);
            return self.open_words(Words { buffer, base, count, writes, is_full });
        }
        let of = &self.kernel.buffers[buffer.index()];
        let [at, offset] = self.divided(&base, per_beat);
        let beats = of.elements.div_ceil(per_beat as u64);
        let is_there = at.0.parse().is_ok_and(|at: u64| at + (count as u64) <= beats);
        let is_guarded = !is_there && (is_nested || count > 1 && !is_aligned);
        let name = self.unique(&format!("{}_beat{}", of.name, if count == 1 { "" } else { "s" }));
        // Where the first beat lies is said once, unless nobody asks.
        let is_said = is_guarded || count > 1 && !self.is_static(buffer, &base);
        let at = if at.0 == "0" || !is_said {
            at.0
        } else {
            let named = self.unique(&format!("{}_at", of.name));
            self.line(&format!("const int {named} = {};", at.0));
            named
        };
        let offset = if offset.0.contains(' ') {
            let named = self.unique(&format!("{}_offset", of.name));
            self.line(&format!("const int {named} = {};", offset.0));
            named
        } else {
            offset.0
        };
        let lanes = if in_lanes { i64::from(self.kernel.threads) } else { 1 };
        let is_full = writes && is_aligned && !is_nested && covers(&own, lanes, count * per_beat);
        let window = Window { buffer, base, count, writes, is_guarded, is_full, name, at, offset };
        self.read_window(&window);
        self.windows.push(window);
    }

    fn read_window(&mut self, window: &Window) {
        let Window { count, writes, is_full, is_guarded, name, .. } = window;
        let constant = if *writes { "" } else { "const " };
        let mut values = Vec::new();
        for beat in 0..*count {
            let read = if *is_full { String::new() } else { self.beat_of(window, beat) };
            values.push(match (is_full, is_guarded) {
                (true, _) => "0".to_owned(),
                (false, true) => format!("{} ? {read} : Beat(0)", self.is_in(window, beat)),
                (false, false) => read,
            });
        }
        if let [value] = values.as_slice() {
            return self.line(&format!("{constant}Beat {name} = {value};"));
        }
        self.line(&format!("{constant}Beat {name}[{count}] = {{"));
        for value in values {
            self.line(&format!("    {value},"));
        }
        self.line("};");
        self.pragma(&format!("ARRAY_PARTITION variable={name} type=complete"));
    }

    /// Writes the beats that lanes have put elements into.
    pub fn close_windows(&mut self) {
        for window in std::mem::take(&mut self.windows) {
            if matches!(self.function.homes[window.buffer.index()], Home::Fifo(_)) {
                self.give_words(&window);
                continue;
            }
            let Window { count, writes, is_guarded, ref name, .. } = window;
            for beat in (0..count).filter(|_| writes) {
                let value = if count == 1 { name.clone() } else { format!("{name}[{beat}]") };
                let text = match self.static_beat(&window, beat) {
                    Some(beat) => format!("{beat} = {value};"),
                    None => {
                        let (ways, arguments) = self.arguments(&window, beat);
                        format!("write_beat_of_{ways}({arguments}, {value});")
                    }
                };
                let guard = if is_guarded { format!("if ({}) ", self.is_in(&window, beat)) } else { String::new() };
                self.line(&format!("{guard}{text}"));
            }
        }
    }

    /// Whether a beat of a window is one of the buffer's.
    fn is_in(&self, window: &Window, beat: i64) -> String {
        let of = &self.kernel.buffers[window.buffer.index()];
        let beats = of.elements.div_ceil(per_beat(of.dtype) as u64);
        let at = behind(&window.at, &beat.to_string());
        let at = if at.contains(' ') { format!("({at})") } else { at };
        format!("(unsigned){at} < {beats}u")
    }

    /// A beat of a window, read.
    fn beat_of(&mut self, window: &Window, beat: i64) -> String {
        self.static_beat(window, beat).unwrap_or_else(|| {
            let (ways, arguments) = self.arguments(window, beat);
            format!("read_beat_of_{ways}({arguments})")
        })
    }

    fn arguments(&mut self, window: &Window, beat: i64) -> (usize, String) {
        let channels = self.channels_of(window.buffer);
        self.common.ways.insert(channels.len() as u32);
        let first = &self.fixed().first[window.buffer.index()];
        let at = behind(&window.at, &beat.to_string());
        (channels.len(), format!("{}, {first}, {at}", channels.join(", ")))
    }

    /// A beat whose channel is known, in memory.
    fn static_beat(&mut self, window: &Window, beat: i64) -> Option<String> {
        let channels = self.channels_of(window.buffer);
        let first = self.fixed().first[window.buffer.index()].clone();
        let ways = channels.len() as i64;
        if let [channel] = channels.as_slice() {
            let further = behind(&window.at, &beat.to_string());
            return Some(format!("{channel}[{}]", behind(&first, &further)));
        }
        let per_beat = per_beat(self.kernel.buffers[window.buffer.index()].dtype);
        let split = self.indices.split(&window.base, per_beat * ways).filter(|split| self.begins(split, per_beat))?;
        let (row, _) = self.sum(&split.whole, split.constant);
        let row = behind(&row, &(beat / ways).to_string());
        Some(format!("{}[{}]", channels[(beat % ways) as usize], behind(&first, &row)))
    }

    /// Whether the first beat lies in the first channel for sure.
    fn begins(&self, split: &Split, per_beat: i64) -> bool {
        self.indices.bound(&split.rest).is_some_and(|bound| bound < per_beat)
    }

    /// Whether it is known of several channels which each beat from an index on lies in.
    fn is_static(&self, buffer: BufferId, base: &Linear) -> bool {
        let ways = self.channels_of(buffer).len() as i64;
        let per_beat = per_beat(self.kernel.buffers[buffer.index()].dtype);
        let split = self.indices.split(base, per_beat * ways);
        ways > 1 && split.is_some_and(|split| self.begins(&split, per_beat))
    }

    /// The beat of a window that an element lies in, and where it lies there; `None` if there is no such window.
    pub fn in_window(&mut self, buffer: BufferId, linear: &Linear, writes: bool) -> Option<(String, String)> {
        let Spread { base, own, count, .. } = self.spread(buffer, linear)?;
        let window = self
            .windows
            .iter()
            .find(|own| (own.buffer, own.writes) == (buffer, writes) && own.base == base && own.count >= count)?;
        let (name, offset, count) = (window.name.clone(), window.offset.clone(), window.count);
        let per_beat = self.width(buffer);
        if offset == "0" {
            let [beat, slot] = self.divided(&own, per_beat);
            let beat = if count == 1 { name } else { format!("{name}[{}]", beat.0) };
            return Some((beat, slot.0));
        }
        let own = self.linear(&own);
        let all = behind(&offset, &own.0);
        if count == 1 {
            return Some((name, all));
        }
        let all = if own.1 < Binding::Product || all.contains(' ') { format!("({all})") } else { all };
        Some((format!("{name}[{all} / {per_beat}]"), format!("{all} % {per_beat}")))
    }
}

/// Whether lanes that each add their own to an index reach all of so many elements.
fn covers(own: &Linear, lanes: i64, elements: i64) -> bool {
    let mut reached = vec![false; elements as usize];
    let slots = own.terms.iter().find_map(|&(atom, _)| match atom {
        Atom::Slot(count) => Some((atom, i64::from(count))),
        _ => None,
    });
    for lane in 0..lanes {
        for slot in 0..slots.map_or(1, |(_, count)| count) {
            let at = own.constant + own.times(Atom::Lane) * lane + slots.map_or(0, |(atom, _)| own.times(atom)) * slot;
            if let Some(reached) = reached.get_mut(at as usize) {
                *reached = true;
            }
        }
    }
    reached.into_iter().all(|reached| reached)
}
