//! What was loaded and is not used yet.
//!
//! Elements that are narrower than registers become numbers by instructions that wait for the load. Compilers move these down to
//! where the number is used, so that what was read stays packed. So it is done here: what a load leads to is put
//! off until something uses it, what it comes from is overwritten, or a loop or a branch begins or ends. The schedule that
//! follows could put it there too, but it is bound by the registers of the order that it is given (`schedule`): with numbers
//! that are made as soon as they are read, that order would hold many more than any compiler does.

use std::collections::BTreeMap;

use super::super::code::{NOTHING, Slot};
use super::super::recipe::Recipe;
use super::Compiler;

/// What each slot will hold.
#[derive(Debug, Default)]
pub(super) struct Pending {
    all: BTreeMap<Slot, Put>,
}

/// What has been put off.
#[derive(Clone, Copy, Debug)]
struct Put {
    recipe: Recipe,
    from: Slot,
    /// Registers of the number, unless it stays in those that it is in.
    registers: Option<u32>,
}

impl Compiler<'_> {
    /// Has a slot hold what instructions make of another, as soon as that is used.
    pub(super) fn put_off(&mut self, recipe: Recipe, from: Slot, (to, registers): (Slot, u32)) {
        self.vacate(to);
        self.pending.all.insert(to, Put { recipe, from, registers: Some(registers) });
    }

    /// Has a slot hold what another that was put off holds.
    pub(super) fn put_off_alias(&mut self, from: Slot, to: Slot) {
        self.pending.all.insert(to, Put { recipe: &[], from, registers: None });
    }

    pub(super) fn is_pending(&self, slot: Slot) -> bool {
        self.pending.all.contains_key(&slot)
    }

    /// Does what was put off for a slot.
    pub(super) fn settle(&mut self, slot: Slot) {
        let Some(Put { recipe, from, registers }) = self.pending.all.remove(&slot) else { return };
        self.settle(from);
        if let Some(registers) = registers {
            self.begin(slot, registers);
        }
        self.chain(recipe, [from, NOTHING, NOTHING], slot);
    }

    /// Makes room for something new in a slot: what is to come from what it holds comes now.
    pub(super) fn vacate(&mut self, slot: Slot) {
        if self.pending.all.is_empty() {
            return;
        }
        let users: Vec<Slot> = self.pending.all.iter().filter(|(_, put)| put.from == slot).map(|(&to, _)| to).collect();
        users.into_iter().for_each(|user| self.settle(user));
        self.pending.all.remove(&slot);
    }

    /// Does all that was put off.
    pub(super) fn settle_all(&mut self) {
        while let Some((&slot, _)) = self.pending.all.first_key_value() {
            self.settle(slot);
        }
    }
}
