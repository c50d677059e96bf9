//! Loads and stores as hardware: addresses and switches of banks.

use tcc_ir::DType;

use super::RtlError;
use super::emit::Emitter;
use super::memories::{Same, Use, Wanted};
use super::operators::integer;
use super::scope::{Scope, Want};
use super::text::Piece;
use crate::fpga::access::Pattern;
use crate::fpga::nest::{ArrayId, BlockId, Form, OpId};

/// Where an array lies.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The memory, among those that are built.
    pub memory: usize,
    /// Its first word there.
    pub base: String,
}

/// Copies that go to memory in the same cycle: those of one element together.
struct Group {
    /// If banks are known, who goes where.
    fixed: Vec<Fixed>,
    /// Otherwise: the copies, with the bank and the address of each.
    shifted: Vec<(Vec<u32>, String, String)>,
}

/// A word of a bank that is known, and the copies that want it.
struct Fixed {
    bank: u32,
    address: String,
    /// What tells the word from others: the value that its address is made of, and how far it is from that.
    word: (ArrayId, OpId, i64),
    copies: Vec<u32>,
}

impl Emitter<'_> {
    /// What goes to memory, in groups that need a port each of the banks that they go to.
    fn groups(
        &mut self,
        scope: &mut Scope<'_>,
        (block, id): (BlockId, OpId),
        (placed, array): (&Placed, ArrayId),
        pattern: &Pattern,
    ) -> Result<Vec<Group>, RtlError> {
        let schedule = scope.schedule;
        let op = &schedule.nest.ops[id.index()];
        let memory = &self.memories[placed.memory];
        let (banks, bits) = (memory.banks(), memory.address_bits());
        let index = op.operands.first().ok_or_else(|| RtlError::Schedule("an access has no index".to_owned()))?;
        let index = scope.value(&mut self.text, *index, Want::In(block, schedule.starts[id.index()]))?;
        let raw = scope.raw(id);
        let offset = |by: i64| Piece::number(by as u64, Form::Integer { bits: 64, signed: true });
        match pattern {
            Pattern::Fixed(places) => {
                // Copies of one word of a bank share a port; other words of it need another.
                let mut groups: Vec<Group> = Vec::new();
                for (copy, place) in places.iter().enumerate() {
                    let address = format!(
                        "{} + {} + {}",
                        index.piece(0, 1).extended(bits),
                        offset(place.word).extended(bits),
                        placed.base
                    );
                    let same = |fixed: &&mut Fixed| fixed.bank == place.bank && fixed.address == address;
                    if let Some(fixed) = groups.iter_mut().flat_map(|group| group.fixed.iter_mut()).find(same) {
                        fixed.copies.push(copy as u32);
                        continue;
                    }
                    let free = groups.iter_mut().find(|group| group.fixed.iter().all(|own| own.bank != place.bank));
                    let word = (array, op.operands[0], place.word);
                    let own = Fixed { bank: place.bank, address, word, copies: vec![copy as u32] };
                    match free {
                        Some(group) => group.fixed.push(own),
                        None => groups.push(Group { fixed: vec![own], shifted: Vec::new() }),
                    }
                }
                Ok(groups)
            }
            Pattern::Shifted(_) | Pattern::Scattered => {
                let shift = banks.trailing_zeros();
                let wide = bits + 32 - banks.leading_zeros() + 1;
                let mut groups: Vec<(Vec<i64>, Group)> = Vec::new();
                let mut seen: Vec<(i64, usize, usize)> = Vec::new();
                for copy in 0..op.copies {
                    let distance = match pattern {
                        Pattern::Shifted(distances) => {
                            let known = distances.get(copy as usize).copied();
                            known.ok_or_else(|| RtlError::Schedule("an access has too few distances".to_owned()))?
                        }
                        // Nothing is known of any.
                        Pattern::Fixed(_) | Pattern::Scattered => 0,
                    };
                    let is_shifted = matches!(pattern, Pattern::Shifted(_));
                    if let (true, Some(&(_, group, place))) =
                        (is_shifted, seen.iter().find(|(own, ..)| *own == distance))
                    {
                        groups[group].1.shifted[place].0.push(copy);
                        continue;
                    }
                    let element = format!("{raw}_e{copy}");
                    let start = index.piece(copy, op.copies).extended(wide);
                    self.text.wire(&element, wide, &format!("{start} + {}", offset(distance).extended(wide)));
                    let (bank, word) = if banks.is_power_of_two() {
                        (format!("{element} & {wide}'d{}", banks - 1), format!("{element} >> {shift}"))
                    } else {
                        (format!("{element} % {wide}'d{banks}"), format!("{element} / {wide}'d{banks}"))
                    };
                    let (bank_name, word_name) = (format!("{raw}_k{copy}"), format!("{raw}_w{copy}"));
                    self.text.wire(&bank_name, bank_bits(banks), &bank);
                    self.text.wire(&word_name, bits, &format!("{bits}'({word}) + {}", placed.base));
                    let modulo = distance.rem_euclid(i64::from(banks));
                    let free = groups.iter_mut().position(|(banks, _)| is_shifted && !banks.contains(&modulo));
                    let own = (vec![copy], bank_name, word_name);
                    match free {
                        Some(group) => {
                            groups[group].0.push(modulo);
                            groups[group].1.shifted.push(own);
                            seen.push((distance, group, groups[group].1.shifted.len() - 1));
                        }
                        None => {
                            groups.push((vec![modulo], Group { fixed: Vec::new(), shifted: vec![own] }));
                            seen.push((distance, groups.len() - 1, 0));
                        }
                    }
                }
                Ok(groups.into_iter().map(|(_, group)| group).collect())
            }
        }
    }

    /// The cycle, from one on, in which all banks that a group goes to have a port for it.
    fn turn(
        &self,
        scope: &Scope<'_>,
        block: BlockId,
        from: u32,
        memory: usize,
        group: &Group,
        writes: bool,
    ) -> Option<u32> {
        let own = &self.memories[memory];
        (from..from + 4096).find(|&stage| {
            let slot = self.slot(scope, block, stage);
            match group.shifted.is_empty() {
                true => group.fixed.iter().all(|fixed| {
                    let same = Same { block: slot.block, stage, word: fixed.word };
                    own.is_free(fixed.bank, slot, if writes { Use::Write } else { Use::Read(Some(same)) })
                }),
                false => {
                    let wanted = if writes { Use::Write } else { Use::Read(None) };
                    (0..own.banks()).all(|bank| own.is_free(bank, slot, wanted))
                }
            }
        })
    }

    /// Reads an array.
    pub(super) fn load(
        &mut self,
        scope: &mut Scope<'_>,
        block: BlockId,
        id: OpId,
        (placed, array): (&Placed, ArrayId),
        pattern: &Pattern,
    ) -> Result<(), RtlError> {
        let schedule = scope.schedule;
        let op = &schedule.nest.ops[id.index()];
        let (start, latency) = (schedule.starts[id.index()], scope.latency(id));
        let dtype = schedule.nest.arrays[array.index()].dtype;
        let raw = scope.raw(id);
        let groups = self.groups(scope, (block, id), (placed, array), pattern)?;
        let reading = u32::from(!self.memories[placed.memory].immediate);
        let width = self.memories[placed.memory].width;
        let banks = self.memories[placed.memory].banks();
        let bits = self.memories[placed.memory].address_bits();
        let mut copies = vec![String::new(); op.copies as usize];
        let no_port = || RtlError::Schedule(format!("operation {} finds no port of its memory", id.0));
        for (number, group) in groups.iter().enumerate() {
            let stage = self.turn(scope, block, start, placed.memory, group, false).ok_or_else(no_port)?;
            let waits = stage - start;
            let rest = latency.checked_sub(waits + reading).ok_or_else(no_port)?;
            let flag = scope.flag(block, stage);
            let slot = self.slot(scope, block, stage);
            for Fixed { bank, address, word, copies: own } in &group.fixed {
                let name = format!("{raw}_x{number}_{bank}");
                self.text.wire(&name, bits, address);
                let address = self.text.later(&name, bits, waits);
                let same = Some(Same { block: slot.block, stage, word: *word });
                let wanted = Wanted { slot, flag: flag.clone(), address, same };
                let read = self.memories[placed.memory].read(*bank, wanted).ok_or_else(no_port)?;
                let element = self.text.later(&read, width, rest);
                let element = widened(&element, dtype, op.form)?;
                let name = format!("{raw}_r{number}_{bank}");
                self.text.wire(&name, op.form.bits(), &element);
                own.iter().for_each(|&copy| copies[copy as usize].clone_from(&name));
            }
            if group.shifted.is_empty() {
                continue;
            }
            let mut row = Vec::new();
            for bank in 0..banks {
                let name = format!("{raw}_x{number}_{bank}");
                let terms: Vec<String> = match group.shifted.as_slice() {
                    // Only this one is of interest, whichever bank it is in.
                    [(_, _, word)] => vec![word.clone()],
                    several => {
                        let term = |(_, own, word): &(Vec<u32>, String, String)| {
                            format!("({{{bits}{{{own} == {bank}}}}} & {word})")
                        };
                        several.iter().map(term).collect()
                    }
                };
                self.text.wire(&name, bits, &terms.join(" | "));
                let address = self.text.later(&name, bits, waits);
                let wanted = Wanted { slot, flag: flag.clone(), address, same: None };
                row.push(self.memories[placed.memory].read(bank, wanted).ok_or_else(no_port)?);
            }
            let all = format!("{raw}_y{number}");
            self.joined(&all, width, &row);
            for (own, bank, _) in &group.shifted {
                let bank = self.text.later(bank, bank_bits(banks), waits + reading);
                let picked = format!("{raw}_s{}", own[0]);
                self.text.wire(&picked, width, &format!("{all}[{bank}*{width} +: {width}]"));
                let element = self.text.later(&picked, width, rest);
                let element = widened(&element, dtype, op.form)?;
                let name = format!("{raw}_r{}", own[0]);
                self.text.wire(&name, op.form.bits(), &element);
                own.iter().for_each(|&copy| copies[copy as usize].clone_from(&name));
            }
        }
        self.joined(&raw, op.form.bits(), &copies);
        Ok(())
    }

    /// Writes an array.
    pub(super) fn store(
        &mut self,
        scope: &mut Scope<'_>,
        block: BlockId,
        id: OpId,
        (placed, array): (&Placed, ArrayId),
        pattern: &Pattern,
    ) -> Result<(), RtlError> {
        let schedule = scope.schedule;
        let op = &schedule.nest.ops[id.index()];
        let (start, latency) = (schedule.starts[id.index()], scope.latency(id));
        let dtype = schedule.nest.arrays[array.index()].dtype;
        let [_, value] = op.operands.as_slice() else {
            return Err(RtlError::Schedule("a store has not two operands".to_owned()));
        };
        let value = scope.value(&mut self.text, *value, Want::In(block, start))?;
        let predicate = match op.predicate {
            Some(predicate) => Some(scope.value(&mut self.text, predicate, Want::In(block, start))?),
            None => None,
        };
        let raw = scope.raw(id);
        let groups = self.groups(scope, (block, id), (placed, array), pattern)?;
        let width = self.memories[placed.memory].width;
        let banks = self.memories[placed.memory].banks();
        let bits = self.memories[placed.memory].address_bits();
        let no_port = || RtlError::Schedule(format!("operation {} finds no port of its memory", id.0));
        for copy in 0..op.copies {
            let element = narrowed(&value.piece(copy, op.copies), dtype)?;
            self.text.wire(&format!("{raw}_i{copy}"), width, &element);
            let holds = predicate.as_ref().map_or("1'b1".to_owned(), |own| own.piece(copy, op.copies).truth());
            self.text.wire(&format!("{raw}_p{copy}"), 1, &holds);
        }
        for (number, group) in groups.iter().enumerate() {
            let stage = self.turn(scope, block, start, placed.memory, group, true).ok_or_else(no_port)?;
            let waits = stage - start;
            if waits >= latency.max(1) {
                return Err(no_port());
            }
            let flag = scope.flag(block, stage);
            let slot = self.slot(scope, block, stage);
            let write = |emitter: &mut Self, bank: u32, parts: [String; 3]| {
                let name = |letter: &str| format!("{raw}_{letter}{number}_{bank}");
                let mut late = Vec::new();
                for ((letter, bits), part) in [("z", 1), ("x", bits), ("u", width)].into_iter().zip(&parts) {
                    emitter.text.wire(&name(letter), bits, part);
                    late.push(emitter.text.later(&name(letter), bits, waits));
                }
                let flag = format!("({flag} && {})", late[0]);
                let wanted = Wanted { slot, flag, address: late[1].clone(), same: None };
                emitter.memories[placed.memory].write(bank, wanted, late[2].clone()).ok_or_else(no_port)
            };
            for Fixed { bank, address, copies: own, .. } in &group.fixed {
                // Of several lanes that write one element one is taken.
                let writer = own[0];
                let any: Vec<String> = own.iter().map(|copy| format!("{raw}_p{copy}")).collect();
                let value = own.iter().rev().fold(format!("{raw}_i{writer}"), |value, copy| {
                    if *copy == writer && own.len() == 1 {
                        value
                    } else {
                        format!("({raw}_p{copy} ? {raw}_i{copy} : {value})")
                    }
                });
                write(self, *bank, [any.join(" || "), address.clone(), value])?;
            }
            if group.shifted.is_empty() {
                continue;
            }
            for bank in 0..banks {
                let here = |own: &str, copy: u32| format!("({own} == {bank} && {raw}_p{copy})");
                let all: Vec<(String, &String, u32)> = group
                    .shifted
                    .iter()
                    .flat_map(|(copies, own, word)| copies.iter().map(move |&copy| (own, word, copy)))
                    .map(|(own, word, copy)| (here(own, copy), word, copy))
                    .collect();
                let any = all.iter().map(|(here, ..)| here.clone()).collect::<Vec<_>>().join(" || ");
                let word = all.iter().map(|(here, word, _)| format!("({{{bits}{{{here}}}}} & {word})"));
                let value = all.iter().map(|(here, _, copy)| format!("({{{width}{{{here}}}}} & {raw}_i{copy})"));
                let parts = [any, word.collect::<Vec<_>>().join(" | "), value.collect::<Vec<_>>().join(" | ")];
                write(self, bank, parts)?;
            }
        }
        Ok(())
    }
}

/// Bits of the number of a bank.
fn bank_bits(banks: u32) -> u32 {
    banks.next_power_of_two().trailing_zeros().max(1)
}

/// An element as it is stored, in the form in which it is computed.
fn widened(name: &str, dtype: DType, form: Form) -> Result<String, RtlError> {
    match dtype {
        DType::F32 => Ok(name.to_owned()),
        DType::BF16 => Ok(format!("{{{name}, 16'b0}}")),
        DType::F16 => Ok(format!("widened_f16({name})")),
        DType::Bool => Ok(format!("|{name}")),
        DType::F64 | DType::F8E4M3 | DType::F8E5M2 => Err(RtlError::Unsupported(format!("elements of {dtype}"))),
        _ => {
            let (bits, signed) = integer(dtype);
            Ok(Piece::of(name, 0, Form::Integer { bits: bits as u8, signed }).extended(form.bits()))
        }
    }
}

/// A value as an element is stored.
fn narrowed(value: &Piece, dtype: DType) -> Result<String, RtlError> {
    match dtype {
        DType::F32 => Ok(value.plain()),
        DType::BF16 => Ok(format!("rounded_bf16({})", value.plain())),
        DType::F16 => Ok(format!("rounded_f16({})", value.plain())),
        DType::Bool => Ok(format!("{{7'b0, {}}}", value.truth())),
        DType::F64 | DType::F8E4M3 | DType::F8E5M2 => Err(RtlError::Unsupported(format!("elements of {dtype}"))),
        _ => Ok(value.extended(integer(dtype).0)),
    }
}
