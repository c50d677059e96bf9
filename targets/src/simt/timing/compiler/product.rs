//! Products of tiles by matrix units: lanes read lines of both factors as the units take them, and each instruction multiplies
//! tiles that are held in registers.
//!
//! The factors of one step along what is summed over are read while those of the step before are multiplied. Lines are read as
//! `ldmatrix` does, four matrices of eight lines of 16 bytes at once (PTX ISA 8.5); elements of 32 bits that lie by rows are
//! read one by one.

use tcc_ir::DType;

use super::super::code::{Access, Address, Kind, NOTHING, Slot, Space};
use super::super::recipe::Recipe;
use super::super::resource::Unit;
use super::Compiler;
use crate::kernel::{Factor, Memory, Spread, VarId};

/// Bytes of a line that is read at once.
const LINE: u32 = 16;

/// Rounding numbers to what matrix units take of binary32: a sum and a mask each, for so many registers.
fn rounded(registers: u32) -> Recipe {
    match registers {
        4 => &[(Unit::I32, 8)],
        _ => &[(Unit::I32, 4)],
    }
}

/// What is summed over in one instruction, for elements of a type: 32 bytes of each factor.
pub(in crate::simt::timing) fn step(dtype: DType) -> u32 {
    2 * LINE * 8 / dtype.bits() as u32
}

impl Compiler<'_> {
    pub(super) fn multiply(
        &mut self,
        sums: VarId,
        [rows, columns, depth]: [u32; 3],
        factors: [Factor; 2],
        by_rows: bool,
    ) {
        let Some(spread) = Spread::new(self.warp, columns) else { return };
        let dtype = self.kernel.shared[factors[0].shared.index()].dtype;
        let [a, b] = factors.map(|factor| self.address(Memory::Shared(factor.shared), factor.at));
        let (tiles, across) = (rows / Spread::ROWS, columns / spread.tile_columns());
        let steps = depth / step(dtype);
        let mut next = Some(self.fragments([rows, columns], factors, [a, b], by_rows, 0));
        for number in 0..steps {
            let Some((left, right)) = next.take() else { break };
            if number + 1 < steps {
                next = Some(self.fragments([rows, columns], factors, [a, b], by_rows, number + 1));
            }
            for row in 0..tiles {
                for column in 0..across {
                    let sum = self.vars[sums.index()] + (row * across + column) * crate::kernel::SUMS;
                    // A fragment of B may hold the columns of several tiles.
                    let of_b = right[(column as usize * right.len()) / across as usize];
                    self.issue(Unit::Tensor, [left[row as usize], of_b, sum], sum, None);
                }
            }
        }
        for tile in 0..tiles * across {
            let first = self.vars[sums.index()] + tile * crate::kernel::SUMS;
            (1..crate::kernel::SUMS).for_each(|other| self.alias(first, first + other));
        }
        self.forget(sums);
    }

    /// Reads what is multiplied in a step: a slot for each sixteen rows of A, and for each sixteen columns of B, or eight.
    fn fragments(
        &mut self,
        [rows, columns]: [u32; 2],
        [a, b]: [Factor; 2],
        [a_at, b_at]: [Slot; 2],
        by_rows: bool,
        number: u32,
    ) -> (Vec<Slot>, Vec<Slot>) {
        let dtype = self.kernel.shared[a.shared.index()].dtype;
        let (step, line) = (step(dtype), LINE * 8 / dtype.bits() as u32);
        let upright = |factor: Factor, first: u32| (first * factor.pitch + number * step, 16, factor.pitch, line);
        let left: Vec<Slot> = (0..rows / 16).map(|tile| self.lines(a, a_at, upright(a, tile * 16), 4)).collect();
        let right: Vec<Slot> = match (by_rows, dtype.bits()) {
            (false, _) => (0..columns / 16).map(|tile| self.lines(b, b_at, upright(b, tile * 16), 4)).collect(),
            (true, 32) => (0..columns / 8)
                .map(|tile| {
                    let from = |half: u32| ((number * step + half * 4) * b.pitch + tile * 8, 4, b.pitch, 1);
                    let [_, last] = [0, 1].map(|half| self.read(b, b_at, from(half), (32, 1)));
                    // They come in order.
                    self.rounded(last, 2)
                })
                .collect(),
            (true, _) => (0..columns / 16)
                .map(|tile| self.lines(b, b_at, (number * step * b.pitch + tile * 16, 16, b.pitch, line), 4))
                .collect(),
        };
        (left, right)
    }

    /// Reads lines, so many registers of each lane.
    fn lines(&mut self, factor: Factor, at: Slot, place: (u32, u32, u32, u32), registers: u32) -> Slot {
        let read = self.read(factor, at, place, (u64::from(LINE) * 8, registers));
        let dtype = self.kernel.shared[factor.shared.index()].dtype;
        if dtype == DType::F32 { self.rounded(read, registers) } else { read }
    }

    /// What registers hold, rounded when it is used.
    fn rounded(&mut self, from: Slot, registers: u32) -> Slot {
        let slot = self.slot();
        self.put_off(rounded(registers), from, (slot, registers));
        slot
    }

    /// Reads registers of each lane.
    fn read(
        &mut self,
        factor: Factor,
        at: Slot,
        (offset, lines, pitch, next): (u32, u32, u32, u32),
        (width, registers): (u64, u32),
    ) -> Slot {
        let dtype = self.kernel.shared[factor.shared.index()].dtype;
        let slot = self.slot();
        self.begin(slot, registers);
        let address = Address::Lines { from: self.source(factor.at), offset, lines, pitch, next };
        let space = Space::Shared(self.offsets[factor.shared.index()]);
        let access = Access { space, kind: Kind::Load, address, bits: dtype.bits() as u64, width, copied: None };
        self.access_at(access, [at, NOTHING, NOTHING], slot);
        slot
    }
}
