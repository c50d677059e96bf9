//! The facts of one systolic machine, as its file states them.

use serde::{Deserialize, Serialize};
use tcc_ir::DType;

use crate::machine::MachineError;

/// The systolic part of a machine file. All rates are per cycle of the one clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystolicMachine {
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

/// The array of multiply-accumulate cells, weight stationary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Array {
    /// Rows: the K-dimension of one pass.
    pub rows: u32,
    /// Columns: the N-dimension of one pass.
    pub columns: u32,
    /// What the cells multiply.
    #[serde(default = "ArrayType::all")]
    pub types: Vec<ArrayType>,
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
            DType::F64
            | DType::I64
            | DType::I32
            | DType::I16
            | DType::U64
            | DType::U32
            | DType::U16
            | DType::Bool => None,
        }
    }
}

impl Array {
    /// Whether the array multiplies rows of elements of type `a` with weights of type `b`.
    pub fn multiplies(&self, a: DType, b: DType) -> bool {
        ArrayType::of(a).is_some_and(|kind| ArrayType::of(b) == Some(kind) && self.types.contains(&kind))
    }
}

/// The scratchpad.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scratchpad {
    /// Capacity in bytes.
    pub bytes: u32,
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
            ("systolic.scratchpad.bytes", u64::from(self.scratchpad.bytes), 64 << 10, 1 << 30),
            ("systolic.accumulators.rows", u64::from(self.accumulators.rows), 16, 1 << 20),
            ("systolic.vector.lanes", u64::from(self.vector.lanes), 1, 1 << 16),
            ("systolic.vector.special_lanes", u64::from(self.vector.special_lanes), 1, 1 << 16),
            ("systolic.vector.strided_lanes", u64::from(self.vector.strided_lanes), 1, 1 << 16),
            ("systolic.dram.bytes", self.dram.bytes, 1 << 20, 1 << 48),
            ("systolic.dram.read_bytes_per_cycle", u64::from(self.dram.read_bytes_per_cycle), 1, 1 << 16),
            ("systolic.dram.write_bytes_per_cycle", u64::from(self.dram.write_bytes_per_cycle), 1, 1 << 16),
            ("systolic.dram.burst_bytes", u64::from(self.dram.burst_bytes), 1, 4096),
            ("systolic.sequencer.queue_depth", u64::from(self.sequencer.queue_depth), 1, 1 << 16),
        ];
        for (field, value, low, high) in positive {
            if !(low..=high).contains(&value) {
                return Err(MachineError::Value {
                    file: file.to_owned(),
                    field: field.to_owned(),
                    value: value.to_string(),
                    expected: format!("from {low} to {high}"),
                });
            }
        }
        Ok(())
    }
}
