//! What memories take of the part.
//!
//! A bank has two ports that both read, of which one also writes. Block RAM of 18 Kb has such ports up to 18 bits wide: 16K x 1, 8K x 2,
//! 4K x 4, 2K x 9, 1K x 18; with one that reads and one that writes it is also 512 x 36. UltraRAM is 4K x 72 with two ports (UG573). A
//! look-up table of a SLICEM holds 64 bits with a port, and 32 bits twice or 64 bits in two tables with two; where one port writes and
//! the other reads, the eight tables of a slice hold 32 words of 14 bits or 64 of 7 (UG574, distributed RAM configurations).

use super::design::{BEAT_BYTES, Design, Fifo, OnChip, Storage, Style};
use super::machine::FpgaMachine;
use super::resources::Resources;

/// Depth and width of block RAM with two ports that read, and with one (UG573, table of port aspect ratios).
const SHAPES: [(u64, u64); 5] = [(16_384, 1), (8_192, 2), (4_096, 4), (2_048, 9), (1_024, 18)];
const SIMPLE: (u64, u64) = (512, 36);

/// Words that are in look-up tables rather than block RAM, as Vitis HLS decides (UG1399: memories of at most 1,024 bits or so; assumed
/// here: two tables deep).
const FEW_WORDS: u64 = 64;

/// What a memory of a part is built from that has so many words in each bank: where UltraRAM is to spare that of which it takes the
/// smaller share, else block RAM.
pub fn storage(words: u64, bits: u64, facts: &FpgaMachine, spares: bool) -> Storage {
    let [blocks, ultra] = [Storage::Bram, Storage::Uram].map(|storage| bank(words, bits, storage, true));
    let (blocks, ultra, budget) = (blocks.bram18s, ultra.urams, facts.budget());
    let is_less = blocks * budget.urams > ultra * budget.bram18s;
    if words <= FEW_WORDS {
        Storage::Lutram
    } else if spares && is_less {
        Storage::Uram
    } else {
        Storage::Bram
    }
}

/// Whether memories and FIFOs of a design whose functions a controller calls leave half of the UltraRAM.
pub fn spares(design: &Design, facts: &FpgaMachine) -> bool {
    let memories = design.memories.iter().map(|memory| memory.resources(true).urams);
    let fifos = design.loader.iter().flat_map(|loader| {
        let own =
            |fifo: &Fifo| bank(fifo.depth, BEAT_BYTES * 8, fifo.storage, false).urams * u64::from(loader.channels);
        loader.streams.iter().map(own)
    });
    design.style == Style::Shared && 2 * memories.chain(fifos).sum::<u64>() <= facts.budget().urams
}

/// What a bank takes; `reads_twice` says that both of its ports read.
pub fn bank(words: u64, bits: u64, storage: Storage, reads_twice: bool) -> Resources {
    match storage {
        Storage::Lutram => {
            // What is deeper has a multiplexer of one table for four (assumed).
            let deep = words.div_ceil(64);
            let (ports, tables) = match reads_twice {
                true => (2, 2 * bits * deep),
                false if words <= 32 => (1, (8 * bits).div_ceil(14)),
                false => (1, (8 * bits * deep).div_ceil(7)),
            };
            let luts = tables + ports * bits * (deep - 1).div_ceil(4);
            Resources { luts, ffs: ports * bits, ..Resources::default() }
        }
        Storage::Bram => {
            let simple = (!reads_twice).then_some(SIMPLE);
            let counts =
                SHAPES.into_iter().chain(simple).map(|(deep, wide)| words.div_ceil(deep) * bits.div_ceil(wide));
            Resources { bram18s: counts.min().unwrap_or(0), ..Resources::default() }
        }
        Storage::Uram => Resources { urams: words.div_ceil(4_096) * bits.div_ceil(72), ..Resources::default() },
    }
}

impl OnChip {
    /// What it takes; `reads_twice` says that some function reads two words of a bank in one cycle.
    pub fn resources(&self, reads_twice: bool) -> Resources {
        bank(self.words, self.dtype.bits() as u64, self.storage, reads_twice) * u64::from(self.banks)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::machine::Machine;

    #[test]
    fn blocks_have_shapes() {
        let blocks = |words, bits, twice| bank(words, bits, Storage::Bram, twice).bram18s;
        // 1,024 words of 32 bits: two of 1K x 18 with two reading ports, and two of 512 x 36 with one.
        assert_eq!((blocks(1024, 32, true), blocks(1024, 32, false)), (2, 2));
        assert_eq!((blocks(512, 32, true), blocks(512, 32, false)), (2, 1));
        assert_eq!((blocks(2048, 8, true), blocks(2049, 8, true)), (1, 2));
        assert_eq!(bank(4097, 32, Storage::Uram, true).urams, 2);
        let tables = |words, twice| bank(words, 28, Storage::Lutram, twice).luts;
        assert_eq!((tables(64, true), tables(64, false), tables(32, false)), (56, 32, 16));
        let machine = Machine::parse("u280", Machine::built_in_text("u280").unwrap()).unwrap();
        let mut facts = machine.fpga.unwrap();
        let kinds = |facts: &FpgaMachine, spares| [64, 1024, 4096].map(|words| storage(words, 64, facts, spares));
        assert_eq!(kinds(&facts, true), [Storage::Lutram, Storage::Bram, Storage::Uram]);
        assert_eq!(kinds(&facts, false), [Storage::Lutram, Storage::Bram, Storage::Bram]);
        facts.resources.urams = 0;
        assert_eq!(kinds(&facts, true), [Storage::Lutram, Storage::Bram, Storage::Bram]);
    }
}
