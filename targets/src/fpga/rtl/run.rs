//! Designs in SystemVerilog, run by Verilator.

use std::path::Path;

use tcc_ir::DType;

use super::tables;
use super::{Emitted, RtlError};
use crate::fpga::design::OnChip;
use crate::verilator::{Built, DELAY, Design, FLOAT, Part, Source};

/// The operators and memories.
const LIBRARY: [Source; 19] = [
    ("f32_add.sv", include_str!("../../../fpga/rtl/f32_add.sv")),
    ("f32_compare.sv", include_str!("../../../fpga/rtl/f32_compare.sv")),
    ("f32_div.sv", include_str!("../../../fpga/rtl/f32_div.sv")),
    ("f32_exp.sv", include_str!("../../../fpga/rtl/f32_exp.sv")),
    ("f32_extreme.sv", include_str!("../../../fpga/rtl/f32_extreme.sv")),
    ("f32_fma.sv", include_str!("../../../fpga/rtl/f32_fma.sv")),
    ("f32_integral.sv", include_str!("../../../fpga/rtl/f32_integral.sv")),
    ("f32_mul.sv", include_str!("../../../fpga/rtl/f32_mul.sv")),
    ("f32_of_int.sv", include_str!("../../../fpga/rtl/f32_of_int.sv")),
    ("f32_rsqrt.sv", include_str!("../../../fpga/rtl/f32_rsqrt.sv")),
    ("f32_scale.sv", include_str!("../../../fpga/rtl/f32_scale.sv")),
    ("f32_sqrt.sv", include_str!("../../../fpga/rtl/f32_sqrt.sv")),
    ("int_div.sv", include_str!("../../../fpga/rtl/int_div.sv")),
    ("int_mul.sv", include_str!("../../../fpga/rtl/int_mul.sv")),
    ("int_of_f32.sv", include_str!("../../../fpga/rtl/int_of_f32.sv")),
    ("memory_dual.sv", include_str!("../../../fpga/rtl/memory_dual.sv")),
    ("memory_simple.sv", include_str!("../../../fpga/rtl/memory_simple.sv")),
    ("memory_tables.sv", include_str!("../../../fpga/rtl/memory_tables.sv")),
    DELAY,
];

/// What they include.
const INCLUDED: [Source; 5] = [
    ("cuts.svh", include_str!("../../../fpga/rtl/cuts.svh")),
    ("narrow.svh", include_str!("../../../fpga/rtl/narrow.svh")),
    ("normal48.svh", include_str!("../../../fpga/rtl/normal48.svh")),
    ("order.svh", include_str!("../../../fpga/rtl/order.svh")),
    FLOAT,
];

/// The test bench.
const BENCH: Source = ("main.cpp", include_str!("../../../fpga/rtl/bench/main.cpp"));

/// Names and texts of files.
pub type Files = Vec<(String, String)>;

/// All that a design is made of: modules, and what they include.
pub fn library() -> (Files, Files) {
    let owned = |&(name, text): &Source<'_>| (name.to_owned(), text.to_owned());
    let mut included: Files = INCLUDED.iter().map(owned).collect();
    included.push(("exp_tables.svh".to_owned(), tables::exponential()));
    (LIBRARY.iter().map(owned).collect(), included)
}

/// A design, built.
#[derive(Clone, Debug)]
pub struct Rtl {
    built: Built,
    memories: Vec<OnChip>,
}

/// What a run has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Cycles from the first of the first call to the last of the last; `None` if they are more than the limit.
    pub cycles: Option<u64>,
    /// The bytes of each memory, element by element.
    pub memories: Vec<Vec<u8>>,
}

impl Rtl {
    /// Builds a design with its memories in a folder of its own, or finds it there.
    ///
    /// # Errors
    /// Verilator or the C++ compiler is not there or fails, or the folder cannot be written.
    pub fn build(emitted: &Emitted, memories: &[OnChip], folder: &Path) -> Result<Rtl, RtlError> {
        let (modules, included) = library();
        let mut compiled: Vec<Source<'_>> = modules.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        compiled.push(("functions.sv", &emitted.text));
        compiled.push(BENCH);
        let included: Vec<Source<'_>> = included.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let design = Design {
            top: "functions",
            compiled: &compiled,
            included: &included,
            arguments: &["-Wno-UNOPTFLAT", "-MAKEFLAGS", "OPT_FAST=-O1", "-MAKEFLAGS", "OPT_SLOW=-O0"],
        };
        let built = design.build(&[], folder, |_, text| text.to_owned())?;
        Ok(Rtl { built, memories: memories.to_vec() })
    }

    /// Runs all calls on memories that hold these bytes before, element by element. What is missing is 0.
    ///
    /// # Errors
    /// The design cannot be run, or files cannot be written.
    pub fn run(&self, memories: &[Vec<u8>], limit: u64) -> Result<Outcome, RtlError> {
        let banks = || self.memories.iter().flat_map(|memory| (0..memory.banks).map(move |_| memory.words));
        let mut image = vec![banks().count() as u64];
        image.extend(banks());
        for (number, memory) in self.memories.iter().enumerate() {
            let bytes = memories.get(number).map(Vec::as_slice).unwrap_or_default();
            for bank in 0..u64::from(memory.banks) {
                let elements =
                    (0..memory.words).map(|word| element(bytes, memory.dtype, word * u64::from(memory.banks) + bank));
                image.extend(elements);
            }
        }
        let image: Vec<u8> = image.into_iter().flat_map(u64::to_le_bytes).collect();
        let left = self.built.run(&[vec![Part::Bytes(&image), Part::Number(limit)]])?;
        let results = left.into_iter().next().and_then(|left| left.results).ok_or(RtlError::Results(0))?;
        let (words, _) = results.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let cycles = words.next().ok_or(RtlError::Results(0))?;
        let mut all = Vec::new();
        for memory in &self.memories {
            let bits = memory.dtype.bits() as u64;
            let elements = memory.words * u64::from(memory.banks);
            let mut bytes = vec![0; (elements * bits).div_ceil(8) as usize];
            for bank in 0..u64::from(memory.banks) {
                for word in 0..memory.words {
                    let value = words.next().ok_or(RtlError::Results(0))?;
                    keep(&mut bytes, memory.dtype, word * u64::from(memory.banks) + bank, value);
                }
            }
            all.push(bytes);
        }
        Ok(Outcome { cycles: Some(cycles).filter(|&cycles| cycles != u64::MAX), memories: all })
    }
}

/// The bits of an element among bytes; 0 behind them.
fn element(bytes: &[u8], dtype: DType, index: u64) -> u64 {
    let bits = dtype.bits() as u64;
    let byte = |place: u64| u64::from(bytes.get(place as usize).copied().unwrap_or(0));
    if bits < 8 {
        return byte(index * bits / 8) >> (index * bits % 8) & ((1 << bits) - 1);
    }
    (0..bits / 8).fold(0, |value, place| value | byte(index * bits / 8 + place) << (8 * place))
}

/// Puts the bits of an element among bytes.
fn keep(bytes: &mut [u8], dtype: DType, index: u64, value: u64) {
    let bits = dtype.bits() as u64;
    if bits < 8 {
        bytes[(index * bits / 8) as usize] |= (value << (index * bits % 8)) as u8;
        return;
    }
    for place in 0..bits / 8 {
        bytes[(index * bits / 8 + place) as usize] = (value >> (8 * place)) as u8;
    }
}
