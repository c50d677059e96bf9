//! Lines that a launch asks for on behalf of a later one.

use super::super::code::{Access, Address, Code, Kind, NOTHING, Slot, Source, Space};
use super::super::recipe;
use super::super::resource::Unit;
use super::Compiler;
use crate::kernel::{BufferId, IndexFn, LINE, Region};

impl Compiler<'_> {
    /// A loop over lines, which some threads of all blocks share. Its index arithmetic is that of the code that is written for it.
    pub(super) fn prefetch(&mut self, buffer: BufferId, region: Region, asking: u32) {
        let [x, y, _] = self.kernel.grid.map(i64::from);
        let blocks = self.kernel.blocks() as i64;
        let lines = region.lines().max(1) as i64;
        let known = Source::Known;
        self.settle_all();
        let condition = self.step(IndexFn::Lt, Source::Thread, known(i64::from(asking)), true);
        self.issue(Unit::Control, [of(condition), NOTHING, NOTHING], NOTHING, None);
        let branch = self.here();
        self.emit(Code::If { condition, middle: 0 });
        let mut number = Source::Block(0);
        for (axis, across) in [(1, x), (2, x * y)] {
            if self.kernel.grid[axis] > 1 {
                let before = self.step(IndexFn::Mul, Source::Block(axis as u8), known(across), false);
                number = self.step(IndexFn::Add, before, number, true);
            }
        }
        let before = self.step(IndexFn::Mul, Source::Thread, known(blocks), false);
        let first = self.step(IndexFn::Add, before, number, true);
        let (counter, condition) = (self.slot(), self.slot());
        self.begin(counter, 1);
        self.begin(condition, 1);
        self.compare(counter, condition);
        let opened = self.here();
        let (to, step) = (known(region.rows as i64 * lines), asking * blocks as u32);
        self.emit(Code::Loop { counter, from: first, to, step, after: 0, is_regular: true });
        let line = Source::Slot(counter);
        let mut at = self.step(IndexFn::Mul, line, known(LINE as i64), false);
        if region.rows > 1 {
            let row = self.step(IndexFn::Div, line, known(lines), true);
            let within = self.step(IndexFn::Mod, line, known(lines), true);
            let within = self.step(IndexFn::Mul, within, known(LINE as i64), false);
            let before = self.step(IndexFn::Mul, row, known(region.pitch as i64), true);
            at = self.step(IndexFn::Add, before, within, true);
        }
        let index = self.step(IndexFn::Add, at, known(region.first as i64), false);
        let address = self.slot();
        self.begin(address, 2);
        self.issue(Unit::I32, [of(index), NOTHING, NOTHING], address, None);
        let access = Access {
            space: Space::Global(buffer.0),
            kind: Kind::Prefetch,
            address: Address::Index(index),
            bits: 8,
            width: LINE * 8,
            copied: None,
        };
        self.access_at(access, [address, NOTHING, NOTHING], NOTHING);
        self.compare(counter, condition);
        self.emit(Code::EndLoop { first: opened + 1 });
        let closed = self.here();
        if let Code::Loop { after, .. } = &mut self.compiled.code[opened] {
            *after = closed;
        }
        self.lives.repeat(opened, closed);
        if let Code::If { middle, .. } = &mut self.compiled.code[branch] {
            *middle = closed;
        }
        self.emit(Code::EndIf);
    }

    /// Counts on, and goes back.
    fn compare(&mut self, counter: Slot, condition: Slot) {
        self.issue(Unit::I32, [counter, NOTHING, NOTHING], counter, None);
        self.issue(Unit::I32, [counter, NOTHING, NOTHING], condition, None);
        self.issue(Unit::Control, [condition, NOTHING, NOTHING], NOTHING, None);
    }

    /// An index from others, by instructions of its own or as a part of the one that uses it.
    fn step(&mut self, function: IndexFn, a: Source, b: Source, is_own: bool) -> Source {
        let to = self.slot();
        let by = match b {
            Source::Known(by) => i32::try_from(by).ok(),
            Source::Thread | Source::Block(_) | Source::Slot(_) | Source::Data => None,
        };
        if is_own {
            self.begin(to, 1);
            self.chain(recipe::index(function, by), [of(a), of(b), NOTHING], to);
        } else {
            self.alias(of(a), to);
        }
        self.emit(Code::Index { function, a, b, to });
        Source::Slot(to)
    }
}

/// What has to be there for an index to be.
fn of(source: Source) -> Slot {
    match source {
        Source::Slot(slot) => slot,
        Source::Known(_) | Source::Thread | Source::Block(_) | Source::Data => NOTHING,
    }
}
