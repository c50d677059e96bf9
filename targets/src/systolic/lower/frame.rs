//! Where the buffers of a segment of the plan lie, as its routine sees them: behind base registers, or, for a segment that
//! occurs once, at absolute addresses.

use std::collections::HashMap;
use std::ops::Range;

use tcc_ir::ValueId;

use crate::systolic::code::MAX_BASES;
use crate::systolic::isa::{DramAddress, Register};
use crate::systolic::layout::{Layout, Place};
use crate::systolic::touch::DRAM_BLOCK_BYTES;

/// The buffers of one segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    /// The register of each root; empty if addresses are absolute.
    registers: HashMap<ValueId, Register>,
    /// What the registers hold, from register 1 on.
    bases: Vec<u64>,
    relative: bool,
    /// Memory that the segment's values take, in blocks of [`DRAM_BLOCK_BYTES`] and in the order of the signature's roots.
    /// Weights take none: nothing writes them.
    blocks: Vec<Range<u64>>,
    /// Bytes of the copies that kernels took memory for.
    copies: Vec<u64>,
}

impl Frame {
    /// The frame of a segment that touches these roots.
    pub fn new(roots: &[ValueId], bytes: &dyn Fn(ValueId) -> u64, layout: &Layout, relative: bool) -> Frame {
        let mut frame = Frame { relative: relative && roots.len() <= MAX_BASES, ..Frame::default() };
        for &root in roots {
            let Some(buffer) = layout.buffer(root) else { continue };
            let Place::Dram(address) = buffer.place else { continue };
            let end = address + bytes(root).max(1);
            let writable = !layout.is_weight(buffer);
            let blocks = address / DRAM_BLOCK_BYTES..end.div_ceil(DRAM_BLOCK_BYTES);
            frame.blocks.push(if writable { blocks } else { 0..0 });
            if frame.relative {
                let register = frame.register(address);
                frame.registers.extend(register.map(|register| (root, register)));
            }
        }
        frame
    }

    /// The next register, for this base; `None` if all are taken.
    fn register(&mut self, base: u64) -> Option<Register> {
        let register = u8::try_from(self.bases.len() + 1).ok().map(Register)?;
        self.bases.push(base);
        Some(register)
    }

    /// Where a root's buffer begins, which lies at `address`.
    pub fn address(&self, root: ValueId, address: u64) -> DramAddress {
        match self.registers.get(&root) {
            Some(&register) => DramAddress { register, offset: 0 },
            None => DramAddress::absolute(address),
        }
    }

    /// Takes note of memory at `address` that a kernel took for a copy.
    pub fn copy(&mut self, address: u64, bytes: u64) -> DramAddress {
        self.copies.push(bytes);
        match self.relative.then(|| self.register(address)).flatten() {
            Some(register) => DramAddress { register, offset: 0 },
            None => {
                // The code is good for this place only.
                self.relative = false;
                DramAddress::absolute(address)
            }
        }
    }

    /// What a call sets the registers to.
    pub fn bases(&self) -> &[u64] {
        &self.bases
    }

    /// Whether code written in this frame can run in others.
    pub fn is_relative(&self) -> bool {
        self.relative
    }

    /// Sizes of the copies that kernels took memory for.
    pub fn copies(&self) -> &[u64] {
        &self.copies
    }

    /// Which buffers of `self` and `other` share blocks of memory, and how far apart they begin, in blocks. What an
    /// instruction must wait for because of what others do in DRAM follows from this.
    pub fn overlaps(&self, other: &Frame) -> Vec<(u32, u32, i64)> {
        let mut sorted: Vec<(usize, &Range<u64>)> = other.blocks.iter().enumerate().collect();
        sorted.retain(|(_, blocks)| !blocks.is_empty());
        sorted.sort_by_key(|(_, blocks)| blocks.start);
        // The ends of what begins before, so that the search from behind knows when to stop.
        let mut reach = 0;
        let reaches: Vec<u64> = sorted
            .iter()
            .map(|(_, blocks)| {
                reach = blocks.end.max(reach);
                reach
            })
            .collect();
        let mut overlaps = Vec::new();
        for (own, blocks) in self.blocks.iter().enumerate().filter(|(_, blocks)| !blocks.is_empty()) {
            let before = sorted.partition_point(|(_, other)| other.start < blocks.end);
            for index in (0..before).rev().take_while(|&index| reaches[index] > blocks.start) {
                let (number, other) = sorted[index];
                if other.end > blocks.start {
                    overlaps.push((own as u32, number as u32, other.start as i64 - blocks.start as i64));
                }
            }
        }
        overlaps.sort_unstable();
        overlaps
    }
}
