//! Elements of memories on the part, of channels and of local arrays.

use tcc_ir::DType;

use super::function::Writer;
use super::index::{Atom, Linear, Part};
use super::partition::Partition;
use crate::fpga::design::{BEAT_BYTES, Home};
use crate::kernel::writer::{Binding, Expressions, Helper, Language};
use crate::kernel::{BufferId, ExprId, SharedId};

/// Elements of a beat.
pub(super) fn per_beat(dtype: DType) -> i64 {
    BEAT_BYTES as i64 * 8 / dtype.bits() as i64
}

/// A text as an operand, in parentheses if it holds together less than wanted.
fn operand((text, binding): &(String, Binding), wanted: Binding) -> String {
    if *binding < wanted { format!("({text})") } else { text.clone() }
}

/// Where something lies that is so far behind the first.
pub(super) fn behind(first: &str, further: &str) -> String {
    match (first, further) {
        (_, "0") => first.to_owned(),
        ("0", _) => further.to_owned(),
        _ => format!("{first} + {further}"),
    }
}

impl Writer<'_> {
    /// A sum as code.
    pub fn linear(&mut self, linear: &Linear) -> (String, Binding) {
        let parts: Vec<Part> = linear.terms.iter().map(|&(atom, times)| Part { atom, times, by: 1 }).collect();
        self.sum(&parts, linear.constant)
    }

    /// An index divided by a number: the quotient and what is left.
    pub fn divided(&mut self, linear: &Linear, by: i64) -> [(String, Binding); 2] {
        let zero = || ("0".to_owned(), Binding::Whole);
        if by == 1 {
            return [self.linear(linear), zero()];
        }
        let Some(split) = self.indices.split(linear, by) else {
            let all = operand(&self.linear(linear), Binding::Product);
            return [(format!("{all} / {by}"), Binding::Product), (format!("{all} % {by}"), Binding::Product)];
        };
        let whole = self.sum(&split.whole, split.constant);
        let rest = self.linear(&split.rest);
        if split.is_below {
            return [whole, rest];
        }
        // What lanes add does not reach the next multiple of what the others are multiples of.
        if let Some((others, own)) = self.aligned(&split.rest, by) {
            let (others, own) = (operand(&self.linear(&others), Binding::Product), self.linear(&own));
            let whole = match whole.0.as_str() {
                "0" => (format!("{others} / {by}"), Binding::Product),
                _ => (behind(&whole.0, &format!("{others} / {by}")), Binding::Sum),
            };
            return [whole, (behind(&format!("{others} % {by}"), &own.0), Binding::Sum)];
        }
        let rest = operand(&rest, Binding::Product);
        let further = format!("{rest} / {by}");
        let whole =
            if whole.0 == "0" { (further, Binding::Product) } else { (behind(&whole.0, &further), Binding::Sum) };
        [whole, (format!("{rest} % {by}"), Binding::Product)]
    }

    /// A sum as multiples of a divisor of a number, and what lanes add to them, which is less than that divisor.
    fn aligned(&self, linear: &Linear, by: i64) -> Option<(Linear, Linear)> {
        let is_own = |atom: Atom| matches!(atom, Atom::Lane | Atom::Slot(_));
        let (own, others) = linear.terms.iter().partition::<Vec<_>, _>(|&&(atom, _)| is_own(atom));
        let mut others = Linear { terms: others, constant: 0 };
        let step = self.indices.common_divisor(&others, by);
        let own = Linear { terms: own, constant: linear.constant.rem_euclid(step) };
        others.constant = linear.constant - own.constant;
        let fits = !own.terms.is_empty() && self.indices.bound(&own).is_some_and(|bound| bound < step);
        // Multiples of the divisor that come to at least 0 with less than that are not negative themselves.
        fits.then_some((others, own))
    }

    /// An element of a local array, as it is stored.
    pub fn local(&mut self, shared: SharedId, linear: &Linear, _index: Option<ExprId>) -> String {
        let name = &self.kernel.shared[shared.index()].name;
        match self.partitions[shared.index()] {
            Partition::Cyclic(banks) => {
                let [word, bank] = self.divided(linear, i64::from(banks));
                format!("{name}[{}][{}]", word.0, bank.0)
            }
            Partition::Block(words) => {
                let [bank, word] = self.divided(linear, i64::from(words));
                format!("{name}[{}][{}]", bank.0, word.0)
            }
        }
    }

    /// What is stored of an element as a register holds it.
    pub fn widened(&mut self, dtype: DType, stored: String) -> (String, Binding) {
        let helper = match dtype {
            DType::F16 => Helper::FromF16,
            DType::BF16 => Helper::FromBf16,
            DType::F8E4M3 => Helper::FromF8E4M3,
            DType::F8E5M2 => Helper::FromF8E5M2,
            DType::I4 | DType::U4 => return (format!("(int){stored}"), Binding::Unary),
            _ => return (stored, Binding::Whole),
        };
        (format!("{}({stored})", self.helper(helper)), Binding::Whole)
    }

    /// A number as elements of a type are stored, where that is not what an assignment makes of it.
    pub fn narrow(&mut self, dtype: DType, value: &str) -> String {
        let helper = match dtype {
            DType::F16 => Helper::ToF16,
            DType::BF16 => Helper::ToBf16,
            DType::F8E4M3 => Helper::ToF8E4M3,
            DType::F8E5M2 => Helper::ToF8E5M2,
            _ => return value.to_owned(),
        };
        format!("{}({value})", self.helper(helper))
    }

    /// An element of a buffer on the part, as it is stored; `None` of others.
    fn on_chip(&mut self, buffer: BufferId, linear: &Linear) -> Option<String> {
        let Home::OnChip(memory) = self.function.homes[buffer.index()] else { return None };
        let banks = i64::from(self.design.memories[memory.index()].banks);
        let [word, bank] = self.divided(linear, banks);
        let word = behind(&self.fixed().first[buffer.index()], &word.0);
        Some(format!("{}[{word}][{}]", self.fixed().memories[&memory], bank.0))
    }

    /// An element of a buffer, as a register holds it.
    pub fn element(&mut self, buffer: BufferId, linear: &Linear, _index: Option<ExprId>) -> (String, Binding) {
        let dtype = self.kernel.buffers[buffer.index()].dtype;
        if let Some(stored) = self.on_chip(buffer, linear) {
            return self.widened(dtype, stored);
        }
        if let Some(stored) = self.in_word(buffer, linear, false) {
            return self.widened(dtype, stored);
        }
        let ty = Language::Hls.stored(dtype);
        if let Some((beat, slot)) = self.taken(buffer, linear) {
            return self.widened(dtype, format!("get_element<{ty}>({beat}, {slot})"));
        }
        let stored = match self.in_window(buffer, linear, false) {
            Some((beat, slot)) => format!("get_element<{ty}>({beat}, {slot})"),
            None => {
                let [_, slot] = self.divided(linear, per_beat(dtype));
                format!("get_element<{ty}>({}, {})", self.beat(buffer, linear), slot.0)
            }
        };
        self.widened(dtype, stored)
    }

    /// Writes an element of a buffer.
    pub fn store(&mut self, buffer: BufferId, linear: &Linear, _index: Option<ExprId>, value: &str) {
        let dtype = self.kernel.buffers[buffer.index()].dtype;
        let value = self.narrow(dtype, value);
        if let Some(stored) = self.on_chip(buffer, linear) {
            return self.line(&format!("{stored} = {value};"));
        }
        if let Some(stored) = self.in_word(buffer, linear, true) {
            return self.line(&format!("{stored} = {value};"));
        }
        let ty = Language::Hls.stored(dtype);
        if let Some((beat, slot)) = self.in_window(buffer, linear, true) {
            return self.line(&format!("put_element<{ty}>({beat}, {slot}, {value});"));
        }
        // A channel has no smaller words.
        let [_, slot] = self.divided(linear, per_beat(dtype));
        let (read, write) = (self.beat(buffer, linear), self.put_beat(buffer, linear, "own_beat"));
        self.line("{");
        self.depth += 1;
        self.line(&format!("Beat own_beat = {read};"));
        self.line(&format!("put_element<{ty}>(own_beat, {}, {value});", slot.0));
        self.line(&write);
        self.depth -= 1;
        self.line("}");
    }

    /// The channels of a buffer, from the first on.
    pub fn channels_of(&self, buffer: BufferId) -> Vec<String> {
        match self.function.homes[buffer.index()] {
            Home::OnChip(_) | Home::Loaded { .. } | Home::Fifo(_) => Vec::new(),
            Home::External { first, ways } => {
                (first..first + ways).map(|channel| self.fixed().channels[&channel].clone()).collect()
            }
        }
    }

    /// The beat that an element lies in, read.
    fn beat(&mut self, buffer: BufferId, linear: &Linear) -> String {
        let (channels, first) = (self.channels_of(buffer), self.fixed().first[buffer.index()].clone());
        let [beat, _] = self.divided(linear, per_beat(self.kernel.buffers[buffer.index()].dtype));
        match channels.as_slice() {
            [channel] => format!("{channel}[{}]", behind(&first, &beat.0)),
            channels => {
                self.common.ways.insert(channels.len() as u32);
                format!("read_beat_of_{}({}, {first}, {})", channels.len(), channels.join(", "), beat.0)
            }
        }
    }

    /// What writes the beat that an element lies in.
    fn put_beat(&mut self, buffer: BufferId, linear: &Linear, value: &str) -> String {
        let (channels, first) = (self.channels_of(buffer), self.fixed().first[buffer.index()].clone());
        let [beat, _] = self.divided(linear, per_beat(self.kernel.buffers[buffer.index()].dtype));
        match channels.as_slice() {
            [channel] => format!("{channel}[{}] = {value};", behind(&first, &beat.0)),
            channels => {
                self.common.ways.insert(channels.len() as u32);
                format!("write_beat_of_{}({}, {first}, {}, {value});", channels.len(), channels.join(", "), beat.0)
            }
        }
    }
}
