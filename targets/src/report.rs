//! What a build or a run is reported with. The same structure is `report.json`, the text report and the source of
//! `tcc report`.

use serde::{Deserialize, Serialize};

/// How sure a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Counted by executing the emitted program under the machine's timing rules.
    Exact,
    /// From a formula for hardware that is not simulated in detail.
    Modelled,
    /// From a figure that has no source.
    Assumed,
}

/// One part of the total cycles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakdownPart {
    /// What the cycles were spent on.
    pub name: String,
    /// How many.
    pub cycles: u64,
    /// How sure they are.
    pub kind: Certainty,
}

/// How long a unit worked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitUse {
    /// The unit's name.
    pub name: String,
    /// Cycles in which it was busy, whatever else was.
    pub busy_cycles: u64,
}

/// Use of one memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// The memory's name.
    pub name: String,
    /// Most bytes in use at a time.
    pub peak_bytes: u64,
    /// Bytes it has.
    pub capacity_bytes: u64,
}

/// One kernel's share of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelReport {
    /// The kernel's name.
    pub name: String,
    /// The nodes of the user's model that it computes, in order.
    pub origins: Vec<String>,
    /// Cycles from the completion of everything before it to its own.
    pub cycles: u64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Bytes moved from and to DRAM.
    pub dram_bytes: u64,
    /// What bounds it: the unit that it kept busy longest, or `latency` if that was idle for more than half of the time.
    pub bound_by: String,
    /// Share of the machine's peak multiply-accumulate rate reached, 0 to 1.
    pub utilization: f64,
    /// Loop extents of one tile, and why, in words.
    pub tiling: String,
}

/// What the optimiser did to one distinct block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerReport {
    /// The block's name.
    pub block: String,
    /// How often it occurs.
    pub repeats: u64,
    /// Number of its kernels.
    #[serde(default)]
    pub kernels: u64,
    /// E-nodes after saturation; 0 where there is no e-graph.
    pub e_nodes: u64,
    /// Cost of the extracted kernels by the target's reckoning, in cycles.
    pub cost: f64,
    /// Proven lower bound of that cost, if there is one.
    pub bound: Option<f64>,
    /// `cost / bound - 1`, if there is a bound.
    pub gap: Option<f64>,
    /// Why the search stopped.
    pub stopped: String,
}

/// What one inference takes in energy, as an estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Joules of one inference: the sum of the parts.
    pub joules: f64,
    /// What it consists of.
    pub parts: Vec<EnergyPart>,
    /// What it is an estimate from, in a sentence.
    pub basis: String,
}

/// One part of the energy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnergyPart {
    /// What takes it.
    pub name: String,
    /// How often that happens.
    pub count: u64,
    /// Picojoules each time.
    pub picojoules_each: f64,
    /// Joules in all.
    pub joules: f64,
}

/// All that is known of a built program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// Kind of target.
    pub target: String,
    /// Name of the machine.
    pub machine: String,
    /// Cycles per second.
    pub clock_hz: u64,
    /// Cycles of one inference, as the simulator counts them.
    pub cycles: u64,
    /// `cycles / clock_hz`.
    pub seconds: f64,
    /// Multiply-accumulates of the model's contractions.
    pub macs: u64,
    /// Share of the machine's peak multiply-accumulate rate, 0 to 1.
    pub utilization: f64,
    /// The larger of work over peak rate and compulsory bytes over bandwidth.
    pub lower_bound_cycles: u64,
    /// Bytes moved from and to DRAM.
    pub dram_bytes: u64,
    /// Where the cycles went; sums to `cycles`.
    pub breakdown: Vec<BreakdownPart>,
    /// How long each unit was busy.
    #[serde(default)]
    pub units: Vec<UnitUse>,
    /// Use of each memory.
    pub memory: Vec<MemoryUse>,
    /// What one inference takes in energy, if that can be estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// What the optimiser did.
    pub optimizer: Vec<OptimizerReport>,
    /// Nodes left to the host, which is none unless the machine cannot compute them.
    pub host_ops: Vec<String>,
    /// Every kernel, in order.
    pub kernels: Vec<KernelReport>,
    /// What was assumed or estimated, in sentences.
    pub notes: Vec<String>,
}
