//! The facts of one systolic machine, as its file states them.

use serde::{Deserialize, Serialize};

use tcc_ir::DType;

use super::banks::BankSet;
use super::isa::Unit;
use crate::machine::MachineError;

/// The systolic part of a machine file. All rates are per cycle of the one clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystolicMachine {
    /// Only the array takes time: memories, the vector unit, the sequencer and the way of results out of the array take none.
    /// For comparison with models that count so; no hardware does this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub array_only: bool,
    /// The array of multiply-accumulate cells.
    pub array: Array,
    /// The scratchpad.
    pub scratchpad: Scratchpad,
    /// The accumulators below the array.
    pub accumulators: Accumulators,
    /// The vector unit and the scalar unit beside it.
    pub vector: Vector,
    /// DRAM and the DMA engines in front of it.
    pub dram: Dram,
    /// The sequencer and its queues.
    pub sequencer: Sequencer,
}

/// The arrays of multiply-accumulate cells. There may be several, which stand one below the other and work
/// in lock step: the sums that leave one enter the next. Each can be divided into blocks of rows. Every block has a bus of
/// its own on which weights enter, and its sums can be taken out below it; so the rows of all arrays are used as one group,
/// or as several that multiply independently of each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Array {
    /// Rows of one array.
    pub rows: u32,
    /// Columns: the N-dimension of one pass.
    pub columns: u32,
    /// Arrays, a power of two.
    #[serde(default = "one")]
    pub count: u32,
    /// Blocks of each array, a power of two that divides its rows.
    #[serde(default = "one")]
    pub row_groups: u32,
    /// What the cells multiply.
    #[serde(default = "ArrayType::all")]
    pub types: Vec<ArrayType>,
    /// What can stay in the cells while a product is computed. Products take whichever takes fewer cycles; attentions keep
    /// their keys and values in the cells on every machine.
    #[serde(default = "Dataflow::usual")]
    pub dataflows: Vec<Dataflow>,
    /// Whether weights enter while a pass is at work, and a pass begins while the one before leaves the array. If not, preloads
    /// and passes come one after the other.
    #[serde(default = "yes")]
    pub overlap: bool,
}

fn yes() -> bool {
    true
}

/// What stays in the cells of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dataflow {
    /// The weights: rows pass by them, and sums move through the array.
    WeightStationary,
    /// The sums: both operands pass by them.
    OutputStationary,
}

impl Dataflow {
    /// What an array does unless its file says otherwise.
    pub(super) fn usual() -> Vec<Dataflow> {
        vec![Dataflow::WeightStationary]
    }
}

/// A figure that a file leaves out.
fn one() -> u32 {
    1
}

/// What a cell of an array can multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArrayType {
    /// Floats of 32 bits or fewer, as bf16 with sums in binary32.
    Bf16,
    /// Integers of 8 bits or fewer, with sums of 32 bits.
    Int8,
}

impl ArrayType {
    /// All types, which an array multiplies unless its file says otherwise.
    pub(super) fn all() -> Vec<ArrayType> {
        vec![ArrayType::Bf16, ArrayType::Int8]
    }

    /// What it takes to multiply elements of a type; `None` if no array does.
    fn of(dtype: DType) -> Option<ArrayType> {
        match dtype {
            DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => Some(ArrayType::Bf16),
            DType::I8 | DType::U8 | DType::I4 | DType::U4 => Some(ArrayType::Int8),
            DType::F64 | DType::I64 | DType::I32 | DType::I16 | DType::U64 | DType::U32 | DType::U16 | DType::Bool => {
                None
            }
        }
    }
}

impl Array {
    /// Rows of all arrays: the K-dimension of one pass that uses them as one group.
    pub fn total_rows(&self) -> u32 {
        self.count * self.rows
    }

    /// Blocks of all arrays: the most groups that their rows are used as.
    pub fn blocks(&self) -> u32 {
        self.count * self.row_groups
    }

    /// Rows of one block.
    pub fn block_rows(&self) -> u32 {
        self.rows / self.row_groups
    }

    /// Multiply-accumulates of all arrays in a cycle.
    pub fn macs_per_cycle(&self) -> u64 {
        u64::from(self.total_rows()) * u64::from(self.columns)
    }

    /// Whether products can run in a dataflow.
    pub fn runs(&self, dataflow: Dataflow) -> bool {
        self.dataflows.contains(&dataflow)
    }

    /// Whether the array multiplies rows of elements of type `a` with weights of type `b`.
    pub fn multiplies(&self, a: DType, b: DType) -> bool {
        ArrayType::of(a).is_some_and(|kind| ArrayType::of(b) == Some(kind) && self.types.contains(&kind))
    }
}

/// The scratchpad: banks of equal size, one after the other. A port of a bank serves one unit at a time, with all that it
/// takes in a cycle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scratchpad {
    /// Capacity in bytes.
    pub bytes: u32,
    /// Banks, a power of two.
    #[serde(default = "one")]
    pub banks: u32,
    /// Units that can read a bank at a time; all, if a file leaves it out.
    #[serde(default = "all_units")]
    pub read_ports: u32,
    /// Units that can write a bank at a time; all, if a file leaves it out.
    #[serde(default = "all_units")]
    pub write_ports: u32,
}

/// From so many banks on, buffers are kept to banks by who fills them.
const LEAST_BANKS: u32 = 16;

/// As many ports as there are units that could want one.
fn all_units() -> u32 {
    Unit::COUNT as u32
}

impl Scratchpad {
    /// A scratchpad of so many bytes at which every unit has ports of its own.
    pub fn undivided(bytes: u32) -> Scratchpad {
        Scratchpad { bytes, banks: one(), read_ports: all_units(), write_ports: all_units() }
    }

    /// Whether there are fewer ports than units that could want one.
    pub fn is_contended(&self) -> bool {
        self.read_ports.min(self.write_ports) < all_units()
    }

    /// Bytes of a bank, if banks are contended and so many that buffers can be kept to them by who fills them.
    pub(super) fn separable_bank_bytes(&self) -> Option<u32> {
        (self.is_contended() && self.banks >= LEAST_BANKS).then(|| self.bank_bytes())
    }

    /// Bytes of a bank.
    pub fn bank_bytes(&self) -> u32 {
        self.bytes / self.banks
    }
}

/// The accumulators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accumulators {
    /// Rows of as many 32-bit words as the array has columns.
    pub rows: u32,
}

/// The vector unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// Elements of 32 bits or fewer processed in a cycle.
    pub lanes: u32,
    /// Elements of exp, log, erf, tanh, division, roots and the like processed in a cycle.
    pub special_lanes: u32,
    /// Rows of a walk that are worked on side by side, each by as many of the lanes.
    #[serde(default = "one")]
    pub sublanes: u32,
    /// Elements moved in a cycle when neighbours along the innermost dimension are not neighbours in memory.
    pub strided_lanes: u32,
    /// Cycles from the last element entering to its result being written.
    pub latency: u32,
}

/// DRAM with one read and one write channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dram {
    /// Capacity in bytes.
    pub bytes: u64,
    /// Bytes read in a cycle.
    pub read_bytes_per_cycle: u32,
    /// Bytes written in a cycle.
    pub write_bytes_per_cycle: u32,
    /// Bytes of a burst: the least that moves at once, and the alignment at which it does.
    pub burst_bytes: u32,
    /// Cycles from a request to its first byte.
    pub latency: u32,
}

/// The sequencer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequencer {
    /// Instructions that wait in the queue of each unit.
    pub queue_depth: u32,
}

impl SystolicMachine {
    /// Checks that the figures make a machine.
    pub fn check(&self, file: &str) -> Result<(), MachineError> {
        let positive = [
            ("systolic.array.rows", u64::from(self.array.rows), 1, 1024),
            ("systolic.array.columns", u64::from(self.array.columns), 1, 1024),
            ("systolic.array.count", u64::from(self.array.count), 1, 32),
            ("systolic.array.row_groups", u64::from(self.array.row_groups), 1, 1024),
            ("systolic.scratchpad.bytes", u64::from(self.scratchpad.bytes), 64 << 10, 1 << 30),
            ("systolic.scratchpad.banks", u64::from(self.scratchpad.banks), 1, u64::from(BankSet::MOST)),
            ("systolic.scratchpad.read_ports", u64::from(self.scratchpad.read_ports), 1, u64::from(all_units())),
            ("systolic.scratchpad.write_ports", u64::from(self.scratchpad.write_ports), 1, u64::from(all_units())),
            ("systolic.accumulators.rows", u64::from(self.accumulators.rows), 16, 1 << 20),
            ("systolic.vector.lanes", u64::from(self.vector.lanes), 1, 1 << 16),
            ("systolic.vector.special_lanes", u64::from(self.vector.special_lanes), 1, 1 << 16),
            ("systolic.vector.sublanes", u64::from(self.vector.sublanes), 1, u64::from(self.vector.lanes)),
            ("systolic.vector.strided_lanes", u64::from(self.vector.strided_lanes), 1, 1 << 16),
            ("systolic.dram.bytes", self.dram.bytes, 1 << 20, 1 << 48),
            ("systolic.dram.read_bytes_per_cycle", u64::from(self.dram.read_bytes_per_cycle), 1, 1 << 16),
            ("systolic.dram.write_bytes_per_cycle", u64::from(self.dram.write_bytes_per_cycle), 1, 1 << 16),
            ("systolic.dram.burst_bytes", u64::from(self.dram.burst_bytes), 1, 4096),
            ("systolic.sequencer.queue_depth", u64::from(self.sequencer.queue_depth), 1, 1 << 16),
        ];
        for (field, value, low, high) in positive {
            if !(low..=high).contains(&value) {
                return Err(wrong(file, field, value, format!("from {low} to {high}")));
            }
        }
        let Scratchpad { bytes, banks, .. } = self.scratchpad;
        if !banks.is_power_of_two() || !bytes.is_multiple_of(banks) {
            let expected = format!("a power of two that divides the {bytes} bytes");
            return Err(wrong(file, "systolic.scratchpad.banks", banks, expected));
        }
        self.array.check(file)
    }
}

impl Array {
    fn check(&self, file: &str) -> Result<(), MachineError> {
        let Array { rows, count, row_groups, ref types, ref dataflows, .. } = *self;
        if !count.is_power_of_two() {
            return Err(wrong(file, "systolic.array.count", count, "a power of two"));
        }
        if !row_groups.is_power_of_two() || !rows.is_multiple_of(row_groups) {
            let expected = format!("a power of two that divides the {rows} rows");
            return Err(wrong(file, "systolic.array.row_groups", row_groups, expected));
        }
        if dataflows.is_empty() {
            let expected = "a list of \"weight-stationary\", \"output-stationary\" or both";
            return Err(wrong(file, "systolic.array.dataflows", "empty", expected));
        }
        if count > 1 && self.runs(Dataflow::OutputStationary) {
            let expected = "1 where products are output stationary, since several arrays only add up what each has";
            return Err(wrong(file, "systolic.array.count", count, expected));
        }
        if types.is_empty() {
            return Err(wrong(file, "systolic.array.types", "empty", "a list of \"bf16\", \"int8\" or both"));
        }
        Ok(())
    }
}

fn wrong(file: &str, field: &str, value: impl ToString, expected: impl Into<String>) -> MachineError {
    MachineError::Value {
        file: file.to_owned(),
        field: field.to_owned(),
        value: value.to_string(),
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::systolic::timing::tests::array;

    fn field(array: &Array) -> Option<String> {
        match array.check("file") {
            Ok(()) => None,
            Err(MachineError::Value { field, .. }) => Some(field),
            Err(error) => Some(error.to_string()),
        }
    }

    #[test]
    fn arrays_divide_evenly() {
        let usual = Array { dataflows: Dataflow::usual(), ..array(24, 8) };
        let divided = Array { count: 4, row_groups: 8, ..usual.clone() };
        assert_eq!(field(&divided), None);
        assert_eq!((divided.total_rows(), divided.blocks(), divided.block_rows()), (96, 32, 3));
        assert_eq!(divided.macs_per_cycle(), 768);
        let wrong = |array: Array| field(&array).unwrap();
        assert_eq!(wrong(Array { count: 3, ..usual.clone() }), "systolic.array.count");
        assert_eq!(wrong(Array { row_groups: 3, ..usual.clone() }), "systolic.array.row_groups");
        assert_eq!(wrong(Array { row_groups: 16, ..usual.clone() }), "systolic.array.row_groups");
        assert_eq!(wrong(Array { types: Vec::new(), ..usual.clone() }), "systolic.array.types");
        assert_eq!(wrong(Array { dataflows: Vec::new(), ..usual }), "systolic.array.dataflows");
        assert_eq!(wrong(Array { count: 2, ..array(24, 8) }), "systolic.array.count");
    }

    #[test]
    fn arrays_multiply_their_types() {
        let both = array(4, 4);
        let integers = Array { types: vec![ArrayType::Int8], ..both.clone() };
        assert!(both.multiplies(DType::F16, DType::BF16) && both.multiplies(DType::U8, DType::I4));
        assert!(!both.multiplies(DType::F32, DType::I8) && !both.multiplies(DType::F64, DType::F64));
        assert!(!both.multiplies(DType::I16, DType::I8) && !both.multiplies(DType::Bool, DType::Bool));
        assert!(integers.multiplies(DType::I8, DType::U8) && !integers.multiplies(DType::F32, DType::F32));
    }
}
