//! The facts of one GPU, as its file states them.

use serde::{Deserialize, Serialize};
use tcc_ir::DType;

use crate::kernel::check::MAX_THREADS;
use crate::machine::MachineError;

/// The GPU's part of a machine file. Latencies are in cycles of the one clock, rates in things per cycle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimtMachine {
    /// Streaming multiprocessors (compute units).
    pub multiprocessors: u32,
    /// NVIDIA's number for what programs may use, such as `8.0`; programs are written as CUDA C++ too where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<ComputeCapability>,
    /// Threads of a warp (wavefront).
    pub warp: u32,
    /// Warp schedulers of a multiprocessor, each with pipelines of its own, which issue one instruction in a cycle.
    pub schedulers: u32,
    /// Most warps on a multiprocessor at a time.
    pub warps: u32,
    /// Most blocks on a multiprocessor at a time.
    pub blocks: u32,
    /// Most threads of a block.
    pub block_threads: u32,
    /// Registers of 32 bits of a multiprocessor.
    pub registers: u32,
    /// Most registers of a thread.
    pub thread_registers: u32,
    /// Registers that a warp is given at a time.
    pub register_unit: u32,
    /// Bytes of a sector: what caches and memory hand on at a time.
    pub sector: u32,
    /// Cycles from the last arrival at a barrier to the first instruction after it.
    pub barrier_latency: u32,
    /// Nanoseconds from the end of a kernel to the first instruction of the next one in the same stream.
    pub launch_ns: f64,
    /// Shared memory.
    pub shared: Shared,
    /// The cache of a multiprocessor.
    pub l1: Cache,
    /// The cache that all share.
    pub l2: Cache,
    /// Global memory.
    pub dram: Dram,
    /// Pipelines of a multiprocessor for scalar work.
    pub pipes: Pipes,
    /// Matrix units, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor: Option<Tensor>,
}

/// A generation of NVIDIA's GPUs, as `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ComputeCapability {
    major: u8,
    minor: u8,
}

impl ComputeCapability {
    /// The first that copies to shared memory while threads go on, and multiplies all types that kernels do.
    const LEAST: ComputeCapability = ComputeCapability { major: 8, minor: 0 };

    /// What compilers call it, such as `sm_80`.
    pub fn arch(self) -> String {
        format!("sm_{}{}", self.major, self.minor)
    }
}

impl TryFrom<String> for ComputeCapability {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        match parts {
            Some((major, minor @ 0..=9)) if (Self::LEAST.major..=99).contains(&major) => {
                Ok(ComputeCapability { major, minor })
            }
            _ => Err(format!("a compute capability is 8.0 or later, and not {text:?}")),
        }
    }
}

impl From<ComputeCapability> for String {
    fn from(ComputeCapability { major, minor }: ComputeCapability) -> String {
        format!("{major}.{minor}")
    }
}

/// Shared memory of a multiprocessor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// Bytes for all blocks.
    pub bytes: u64,
    /// Most bytes of one block.
    pub block_bytes: u64,
    /// Bytes that every block takes beyond its own.
    pub reserved: u64,
    /// Whether it is a part of the multiprocessor's cache, which then holds less by what blocks take.
    pub in_l1: bool,
    /// Banks of four bytes.
    pub banks: u32,
    /// Cycles from a load to its result.
    pub latency: u32,
}

/// A cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Bytes that it holds.
    pub bytes: u64,
    /// Bytes that it gives in a cycle.
    pub bytes_per_cycle: f64,
    /// Cycles from a load to its result.
    pub latency: u32,
}

/// Global memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dram {
    /// Bytes.
    pub bytes: u64,
    /// Bytes that it gives or takes in a second, at the most.
    pub bytes_per_second: f64,
    /// The share of that which long transfers reach.
    pub efficiency: f64,
    /// Cycles from a load to its result.
    pub latency: u32,
}

/// Threads that each kind of scalar work is done for in a cycle, on one multiprocessor, and cycles until results can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipes {
    /// binary32.
    pub f32: Pipe,
    /// binary64.
    pub f64: Pipe,
    /// Integers.
    pub i32: Pipe,
    /// Roots, exponentials, conversions of width.
    pub special: Pipe,
    /// Loads and stores.
    pub memory: Pipe,
}

/// A pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipe {
    /// Threads in a cycle.
    pub lanes: f64,
    /// Cycles until a result can be used.
    pub latency: u32,
}

/// Matrix units of a multiprocessor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Multiply-accumulates of 16-bit floats in a cycle.
    pub half_macs: u32,
    /// Multiply-accumulates of binary32 rounded to 10 bits (TF32) in a cycle; 0 if there are none.
    pub tf32_macs: u32,
    /// Multiply-accumulates of bytes in a cycle.
    pub byte_macs: u32,
    /// Cycles until a result can be used.
    pub latency: u32,
}

impl Tensor {
    /// Multiply-accumulates of a type in a cycle: halves, binary32 rounded to TF32, or bytes.
    pub fn macs(&self, dtype: DType) -> u32 {
        match dtype {
            DType::F32 => self.tf32_macs,
            DType::F16 | DType::BF16 => self.half_macs,
            _ => self.byte_macs,
        }
    }
}

impl SimtMachine {
    /// Cycles that memory takes for so many bytes, at so many a second.
    pub(crate) fn dram_cycles(&self, bytes: u64, clock_hz: u64) -> u64 {
        let rate = self.dram.bytes_per_second * self.dram.efficiency / clock_hz as f64;
        (bytes as f64 / rate) as u64
    }

    /// Cycles from the end of one launch to the start of the next, at so many a second.
    pub(crate) fn launch_cycles(&self, clock_hz: u64) -> u64 {
        (self.launch_ns * clock_hz as f64 / 1e9).ceil() as u64
    }

    /// Looks at the figures.
    ///
    /// # Errors
    /// One that cannot be.
    pub(crate) fn check(&self, file: &str) -> Result<(), MachineError> {
        let wrong = |field: &str, value: String, expected: &str| MachineError::Value {
            file: file.to_owned(),
            field: format!("simt.{field}"),
            value,
            expected: expected.to_owned(),
        };
        let SimtMachine { shared, l1, l2, dram, pipes, .. } = self;
        let counts = [
            ("multiprocessors", self.multiprocessors, 1 << 12),
            ("schedulers", self.schedulers, 64),
            ("warps", self.warps, 1 << 10),
            ("blocks", self.blocks, 1 << 10),
            ("registers", self.registers, 1 << 24),
            ("thread_registers", self.thread_registers, 1 << 10),
            ("register_unit", self.register_unit, 1 << 14),
            ("shared.banks", shared.banks, 1 << 10),
            ("shared.latency", shared.latency, 1 << 16),
            ("barrier_latency", self.barrier_latency, 1 << 16),
            ("pipes.f32.latency", pipes.f32.latency, 1 << 16),
            ("pipes.f64.latency", pipes.f64.latency, 1 << 16),
            ("pipes.i32.latency", pipes.i32.latency, 1 << 16),
            ("pipes.special.latency", pipes.special.latency, 1 << 16),
            ("pipes.memory.latency", pipes.memory.latency, 1 << 16),
            ("l1.latency", l1.latency, 1 << 16),
            ("l2.latency", l2.latency, 1 << 16),
            ("dram.latency", dram.latency, 1 << 16),
        ];
        for (field, value, most) in counts {
            if !(1..=most).contains(&value) {
                return Err(wrong(field, value.to_string(), &format!("1 to {most}")));
            }
        }
        if !self.warp.is_power_of_two() || !(4..=64).contains(&self.warp) {
            return Err(wrong("warp", self.warp.to_string(), "a power of two from 4 to 64"));
        }
        if self.compute_capability.is_some() && self.warp != 32 {
            return Err(wrong("warp", self.warp.to_string(), "32, which all warps of CUDA have"));
        }
        let all = self.warps.saturating_mul(self.warp).min(MAX_THREADS);
        if !(256..=all).contains(&self.block_threads) {
            let expected = format!("256 to {all}, which the warps of a multiprocessor hold");
            return Err(wrong("block_threads", self.block_threads.to_string(), &expected));
        }
        let capacities = [
            ("shared.bytes", shared.bytes),
            ("shared.block_bytes", shared.block_bytes),
            ("l1.bytes", l1.bytes),
            ("l2.bytes", l2.bytes),
            ("dram.bytes", dram.bytes),
        ];
        for (field, value) in capacities {
            if !((4 << 10)..=1 << 50).contains(&value) {
                return Err(wrong(field, value.to_string(), "4 KiB to 1 PiB"));
            }
        }
        if shared.block_bytes.saturating_add(shared.reserved) > shared.bytes {
            let expected = "at most shared.bytes without shared.reserved";
            return Err(wrong("shared.block_bytes", shared.block_bytes.to_string(), expected));
        }
        if !self.sector.is_power_of_two() || !(16..=256).contains(&self.sector) {
            return Err(wrong("sector", self.sector.to_string(), "a power of two from 16 to 256"));
        }
        let rates = [
            ("l1.bytes_per_cycle", l1.bytes_per_cycle),
            ("l2.bytes_per_cycle", l2.bytes_per_cycle),
            ("dram.bytes_per_second", dram.bytes_per_second),
            ("pipes.f32.lanes", pipes.f32.lanes),
            ("pipes.f64.lanes", pipes.f64.lanes),
            ("pipes.i32.lanes", pipes.i32.lanes),
            ("pipes.special.lanes", pipes.special.lanes),
            ("pipes.memory.lanes", pipes.memory.lanes),
        ];
        for (field, value) in rates {
            if !(value.is_finite() && (0.25..=1e15).contains(&value)) {
                return Err(wrong(field, value.to_string(), "a positive number"));
            }
        }
        if let Some(tensor) = &self.tensor {
            let Tensor { half_macs, tf32_macs, byte_macs, latency } = *tensor;
            let least = [("half_macs", half_macs, 1), ("tf32_macs", tf32_macs, 0), ("byte_macs", byte_macs, 0)];
            for (field, value, least) in least.into_iter().chain([("latency", latency, 1)]) {
                if !(least..=1 << 20).contains(&value) {
                    return Err(wrong(
                        &format!("tensor.{field}"),
                        value.to_string(),
                        &format!("{least} to {}", 1 << 20),
                    ));
                }
            }
        }
        if !(dram.efficiency > 0.0 && dram.efficiency <= 1.0) {
            return Err(wrong("dram.efficiency", dram.efficiency.to_string(), "above 0, and at most 1"));
        }
        if !(self.launch_ns >= 0.0 && self.launch_ns <= 1e9) {
            return Err(wrong("launch_ns", self.launch_ns.to_string(), "0 to a second"));
        }
        Ok(())
    }
}
