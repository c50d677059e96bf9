//! A compiled systolic program: code, where its data lies, and everything that is told about it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

use prost::Message;
use tcc_ir::{DType, Shape, Tensor, TensorType};

use super::code::Code;
use super::isa::{Operation, Unit};
use super::packing::{self, PackedConstant};
use super::rtl::{Job, Outcome, Rtl, RtlError};
use super::simulator::{Dram, Simulator, Space, for_each_access};
use super::timing::{self, Summary};
use super::touch::ArrayWeights;
use super::trace::{self, SHOWN_ONE_BY_ONE};
use super::{assembly, encoding};
use crate::machine::Machine;
use crate::optimizer::{self, Block};
use crate::report::{BreakdownPart, Certainty, KernelReport, MemoryUse, Report, UnitUse};
use crate::stored;
use crate::systolic::SystolicMachine;
use crate::target::{Port, Program, Simulation, TargetError, TraceSpan};

/// The compiled program's file format.
pub(super) mod format {
    #![allow(missing_docs, reason = "generated from systolic.proto, whose comments prost carries over")]
    include!(concat!(env!("OUT_DIR"), "/tcc.systolic.rs"));
}

/// A compiled program with the machine that it is for.
pub struct SystolicProgram {
    machine: Machine,
    facts: SystolicMachine,
    format: format::Program,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    code: Code,
    /// Instructions of every kernel.
    lengths: Vec<usize>,
    /// The weights, for a program that was just compiled.
    constants: Vec<PackedConstant>,
    summary: OnceLock<Summary>,
}

impl SystolicProgram {
    /// A program from its parts; `format` lacks the code.
    pub(super) fn new(
        machine: &Machine,
        facts: &SystolicMachine,
        mut format: format::Program,
        code: Code,
        constants: Vec<PackedConstant>,
    ) -> Result<Self, TargetError> {
        format.code = encoding::encode(&code);
        SystolicProgram::assemble(machine, facts, format, code, constants)
    }

    /// Reads a program that was written by [`Program::encode`].
    pub(super) fn decode(machine: &Machine, facts: &SystolicMachine, bytes: &[u8]) -> Result<Self, TargetError> {
        let format = format::Program::decode(bytes).map_err(|error| TargetError::Damaged(error.to_string()))?;
        let code = encoding::decode(&format.code).map_err(|error| TargetError::Damaged(error.to_string()))?;
        SystolicProgram::assemble(machine, facts, format, code, Vec::new())
    }

    fn assemble(
        machine: &Machine,
        facts: &SystolicMachine,
        format: format::Program,
        code: Code,
        constants: Vec<PackedConstant>,
    ) -> Result<Self, TargetError> {
        let damaged = |what: &str| TargetError::Damaged(what.to_owned());
        let lengths = format.kernels.iter().map(|kernel| usize::try_from(kernel.instructions).unwrap_or(usize::MAX));
        let lengths: Vec<usize> = lengths.collect();
        if lengths.iter().try_fold(0usize, |sum, &length| sum.checked_add(length)) != Some(code.len()) {
            return Err(damaged("its kernels do not cover its instructions"));
        }
        if format.dram_bytes > facts.dram.bytes || format.weights_bytes > format.dram_bytes {
            return Err(damaged("it uses more memory than the machine has"));
        }
        let ports = |ports: &[format::Port]| ports.iter().map(port).collect::<Result<Vec<_>, _>>();
        Ok(SystolicProgram {
            machine: machine.clone(),
            facts: facts.clone(),
            inputs: ports(&format.inputs)?,
            outputs: ports(&format.outputs)?,
            format,
            code,
            lengths,
            constants,
            summary: OnceLock::new(),
        })
    }

    /// Cycles of one run.
    pub(super) fn cycles(&self) -> u64 {
        self.summary().cycles
    }

    /// The same program with another account of what the optimiser did.
    pub(super) fn with_blocks(mut self, blocks: Vec<Block>) -> Self {
        self.format.blocks = blocks;
        self
    }

    fn summary(&self) -> &Summary {
        self.summary.get_or_init(|| timing::summarize(&self.code, &self.lengths, &self.facts))
    }

    /// Bytes that each kernel moves from and to DRAM.
    fn kernel_bytes(&self) -> Vec<u64> {
        // Kernels begin and end where routines do, or within one; so what is before each instruction of a routine is enough.
        let sums: Vec<Vec<u64>> = self
            .code
            .routines()
            .iter()
            .map(|routine| {
                let mut sum = 0u64;
                let sums = routine.iter().map(|each| {
                    sum = sum.saturating_add(moved_bytes(&each.op));
                    sum
                });
                std::iter::once(0).chain(sums).collect()
            })
            .collect();
        let mut calls = self.code.calls().iter().map(|call| sums[call.routine.index()].as_slice());
        let (mut sums, mut at): (&[u64], usize) = (&[0], 0);
        let mut bytes = |mut length: usize| {
            let mut bytes = 0u64;
            loop {
                let end = sums.len().min(at + length + 1) - 1;
                bytes = bytes.saturating_add(sums[end] - sums[at]);
                length -= end - at;
                at = end;
                if length == 0 {
                    return bytes;
                }
                let Some(next) = calls.next() else { return bytes };
                (sums, at) = (next, 0);
            }
        };
        self.lengths.iter().map(|&length| bytes(length)).collect()
    }

    /// Executes the program on the machine in SystemVerilog, as [`Program::simulate`] does in the simulator: outputs and
    /// cycles are the same. `rtl` must be the machine that the program is for.
    ///
    /// # Errors
    /// As [`Program::simulate`]; or the machine could not be run, or does not end within twice the cycles that are counted.
    pub fn simulate_in_rtl(&self, rtl: &Rtl, weights: &[u8], inputs: &[Tensor]) -> Result<Simulation, TargetError> {
        let dram = self.dram(weights, inputs)?;
        let (base, memory) = (dram.base(), dram.memory());
        let job = Job { program: &self.format.code, weights, base, memory, limit: self.cycles().saturating_mul(2) };
        let fault = |error: RtlError| TargetError::Fault(error.to_string());
        let outcome = rtl.run(&[job]).map_err(fault)?.pop();
        let Some(Outcome { cycles: Some(cycles), memory, .. }) = outcome else {
            return Err(TargetError::Fault("the machine in SystemVerilog does not come to an end".to_owned()));
        };
        let mut after = Dram::new(weights, base, memory.len() as u64, self.facts.dram.bytes).ok_or_else(lost)?;
        after.memory_mut().copy_from_slice(&memory);
        Ok(Simulation { outputs: self.results(&after)?, cycles })
    }

    /// DRAM with weights and inputs in their places.
    fn dram<'w>(&self, weights: &'w [u8], inputs: &[Tensor]) -> Result<Dram<'w>, TargetError> {
        if weights.len() as u64 != self.format.weights_bytes {
            return Err(TargetError::Damaged(format!(
                "weights.bin has {} bytes where the program expects {}",
                weights.len(),
                self.format.weights_bytes
            )));
        }
        let memory = self.format.dram_bytes - self.format.weights_bytes;
        let mut dram = Dram::new(weights, self.format.weights_bytes, memory, self.facts.dram.bytes).ok_or_else(lost)?;
        for ((port, place), tensor) in self.inputs.iter().zip(&self.format.inputs).zip(inputs) {
            if tensor.ty() != &port.ty {
                return Err(TargetError::Fault(format!("input `{}` is {}, not {}", port.name, tensor.ty(), port.ty)));
            }
            let bytes = stored::stored_bytes(tensor, stored::storage(tensor.dtype()))
                .map_err(|error| TargetError::Fault(error.to_string()))?;
            let end = place.address.checked_add(bytes.len() as u64).ok_or_else(lost)?;
            dram.write(place.address..end).ok_or_else(lost)?.copy_from_slice(&bytes);
        }
        Ok(dram)
    }

    /// The outputs, which the program has left in DRAM.
    fn results(&self, dram: &Dram<'_>) -> Result<Vec<Tensor>, TargetError> {
        let result = |(port, place): (&Port, &format::Port)| {
            let dtype: DType = place.stored.parse().map_err(|_| TargetError::Damaged("a port has no type".into()))?;
            let bytes = dtype.bytes(port.ty.shape.count()) as u64;
            let end = place.address.checked_add(bytes).ok_or_else(lost)?;
            let bytes = dram.read(place.address..end).ok_or_else(lost)?;
            stored::from_stored(&port.ty, dtype, bytes).map_err(|error| TargetError::Damaged(error.to_string()))
        };
        self.outputs.iter().zip(&self.format.outputs).map(result).collect()
    }

    /// Multiply-accumulates of the array in a cycle.
    fn peak(&self) -> u64 {
        self.facts.array.macs_per_cycle()
    }

    fn share_of_peak(&self, macs: u64, cycles: u64) -> f64 {
        if cycles == 0 { 0.0 } else { macs as f64 / (self.peak() as f64 * cycles as f64) }
    }
}

fn port(port: &format::Port) -> Result<Port, TargetError> {
    let damaged = |what: String| TargetError::Damaged(what);
    let dtype: DType = port.dtype.parse().map_err(|_| damaged(format!("port `{}` has no type", port.name)))?;
    if port.stored != stored::storage(dtype).name() {
        return Err(damaged(format!("port `{}` is stored as another type", port.name)));
    }
    let dims = port.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX));
    let shape = Shape::new(dims).map_err(|error| damaged(error.to_string()))?;
    Ok(Port { name: port.name.clone(), ty: TensorType::new(dtype, shape) })
}

/// The sum of figures that a damaged program may have made absurd.
fn total(figures: impl Iterator<Item = u64>) -> u64 {
    figures.fold(0, u64::saturating_add)
}

/// Bytes that an instruction moves from or to DRAM.
fn moved_bytes(op: &Operation) -> u64 {
    match op {
        Operation::Load(transfer) | Operation::Store(transfer) => {
            let element = u64::from(transfer.element_bytes);
            transfer.dims.iter().fold(element, |bytes, dim| bytes.saturating_mul(u64::from(dim.size)))
        }
        Operation::LoadRows(rows) | Operation::StoreRows(rows, ..) => {
            (u64::from(rows.outer) * u64::from(rows.count)).saturating_mul(u64::from(rows.row_bytes))
        }
        Operation::Preload(_)
        | Operation::Multiply(_)
        | Operation::Outer(_)
        | Operation::Map(_)
        | Operation::Fold(_)
        | Operation::Scan(_)
        | Operation::Sort(_) => 0,
    }
}

/// What bounds a kernel whose busiest unit this is, if it is busy for most of the time.
fn binding(unit: Option<Unit>) -> &'static str {
    match unit {
        Some(Unit::Load) => "DRAM reads",
        Some(Unit::Store) => "DRAM writes",
        Some(Unit::Preload) => "weights into array",
        Some(Unit::Array) => "array",
        Some(Unit::Vector) => "vector unit",
        None => "latency",
    }
}

impl Program for SystolicProgram {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn encode(&self) -> Vec<u8> {
        self.format.encode_to_vec()
    }

    fn weights_bytes(&self) -> u64 {
        self.format.weights_bytes
    }

    fn write_weights(&self, out: &mut dyn Write) -> io::Result<()> {
        packing::write_weights(&self.constants, self.format.weights_bytes, out)
    }

    fn schedule_text(&self) -> String {
        use std::fmt::Write as _;
        let summary = self.summary();
        let mut text = format!(
            "; {} on {}: {} kernels, {} instructions, {} cycles\n",
            self.format.model,
            self.machine.name,
            self.lengths.len(),
            self.code.len(),
            summary.cycles
        );
        for (kernel, counted) in self.format.kernels.iter().zip(&summary.kernels) {
            let (start, end) = (counted.start(), counted.completion);
            let units = counted.instructions;
            let counts: Vec<String> = Unit::ALL
                .into_iter()
                .filter(|unit| units[unit.index()] > 0)
                .map(|unit| format!("{} {}", units[unit.index()], unit.name()))
                .collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{} [{start}..{end}] {}", kernel.name, counts.join(", "));
            if !kernel.tiling.is_empty() {
                let _ = writeln!(text, "  tiling {}", kernel.tiling);
            }
            if !kernel.origins.is_empty() {
                let _ = writeln!(text, "  from   {}", kernel.origins.join(", "));
            }
        }
        text
    }

    fn code(&self) -> Vec<(PathBuf, String)> {
        vec![(PathBuf::from("program.s"), assembly::disassemble(&self.code))]
    }

    fn report(&self) -> Report {
        let summary = self.summary();
        let cycles = summary.cycles;
        let macs = total(self.format.kernels.iter().map(|kernel| kernel.macs));
        let kernels: Vec<KernelReport> = self
            .format
            .kernels
            .iter()
            .zip(self.kernel_bytes())
            .zip(&summary.kernels)
            .map(|((kernel, dram_bytes), counted)| KernelReport {
                name: kernel.name.clone(),
                origins: kernel.origins.clone(),
                cycles: counted.cycles,
                macs: kernel.macs,
                dram_bytes,
                bound_by: binding(counted.binding()).to_owned(),
                utilization: self.share_of_peak(kernel.macs, counted.cycles),
                tiling: kernel.tiling.clone(),
            })
            .collect();
        let breakdown = summary
            .attribution
            .parts()
            .into_iter()
            .map(|(name, cycles)| BreakdownPart { name: name.to_owned(), cycles, kind: Certainty::Exact })
            .collect();
        let busy = |unit: Unit| total(summary.kernels.iter().map(|kernel| kernel.busy[unit.index()]));
        let dram = &self.facts.dram;
        let work = macs.div_ceil(self.peak());
        let reads = self.format.compulsory_read_bytes.div_ceil(u64::from(dram.read_bytes_per_cycle));
        let writes = self.format.compulsory_write_bytes.div_ceil(u64::from(dram.write_bytes_per_cycle));
        let memory = |name: &str, peak: u64, capacity: u64| MemoryUse {
            name: name.to_owned(),
            peak_bytes: peak,
            capacity_bytes: capacity,
        };
        let (scratchpad, accumulators) = chip_peaks(&self.code, &self.facts);
        let row = u64::from(self.facts.array.columns) * 4;
        Report {
            model: self.format.model.clone(),
            target: self.machine.kind.name().to_owned(),
            machine: self.machine.name.clone(),
            clock_hz: self.machine.clock_hz,
            cycles,
            seconds: cycles as f64 / self.machine.clock_hz as f64,
            macs,
            utilization: self.share_of_peak(macs, cycles),
            lower_bound_cycles: work.max(reads).max(writes),
            dram_bytes: total(kernels.iter().map(|kernel| kernel.dram_bytes)),
            breakdown,
            units: Unit::ALL.map(|unit| UnitUse { name: unit.name().to_owned(), busy_cycles: busy(unit) }).to_vec(),
            memory: vec![
                memory("dram", self.format.dram_bytes, dram.bytes),
                memory("scratchpad", scratchpad, u64::from(self.facts.scratchpad.bytes)),
                memory("accumulators", accumulators, u64::from(self.facts.accumulators.rows) * row),
            ],
            optimizer: self.format.blocks.iter().map(optimizer::report).collect(),
            energy: None,
            host_ops: Vec::new(),
            kernels,
            notes: notes(&self.machine, self.code.len()),
        }
    }

    fn trace(&self) -> Vec<TraceSpan> {
        let kernels = self.format.kernels.iter().zip(&self.lengths);
        let kernels = kernels.map(|(kernel, &length)| (kernel.name.as_str(), length));
        trace::spans(&self.code, kernels, self.summary(), &self.facts)
    }

    fn simulate(&self, weights: &[u8], inputs: &[Tensor]) -> Result<Simulation, TargetError> {
        let mut simulator = Simulator::new(&self.facts, &self.code, self.dram(weights, inputs)?);
        let execution = simulator.run().map_err(|fault| TargetError::Fault(fault.to_string()))?;
        Ok(Simulation { outputs: self.results(simulator.dram())?, cycles: execution.cycles })
    }
}

/// What a program says of data that lies outside the machine's memory.
fn lost() -> TargetError {
    TargetError::Damaged("its data lies outside the machine's memory".to_owned())
}

/// Bytes of the scratchpad and the accumulators that instructions touch. Rows that pass through the array are left out:
/// something has put them there.
fn chip_peaks(code: &Code, machine: &SystolicMachine) -> (u64, u64) {
    let sizes = [
        u64::from(machine.scratchpad.bytes),
        u64::from(machine.accumulators.rows) * u64::from(machine.array.columns) * 4,
    ];
    let mut touched = sizes.map(|bytes| vec![false; bytes.div_ceil(PEAK_PAGE_BYTES) as usize]);
    let mut weights = ArrayWeights::default();
    for instruction in code.routines().iter().flatten() {
        weights.follow(&instruction.op);
        for_each_access(&instruction.op, weights.active, machine, |access| {
            let pages = match access.space {
                Space::Scratchpad => &mut touched[0],
                Space::Accumulators => &mut touched[1],
                Space::Dram => return,
            };
            let Some((start, end)) = access.bounds() else { return };
            let page = |address: i128| usize::try_from(address.max(0)).unwrap_or(usize::MAX).min(pages.len());
            let per_page = i128::from(PEAK_PAGE_BYTES);
            let (first, last) = (page(start / per_page), page((end + per_page - 1) / per_page));
            if first < last {
                pages[first..last].fill(true);
            }
        });
    }
    let bytes = |which: usize| {
        let pages = touched[which].iter().filter(|&&page| page).count() as u64;
        (pages * PEAK_PAGE_BYTES).min(sizes[which])
    };
    (bytes(0), bytes(1))
}

/// Granularity in which it is told how much of a memory on chip is used, in bytes.
const PEAK_PAGE_BYTES: u64 = 256;

/// What the figures rest on, in sentences.
fn notes(machine: &Machine, instructions: usize) -> Vec<String> {
    let mut notes = vec![
        "cycles are counted by executing the emitted program under the timing rules of targets/systolic/rtl/TIMING.md"
            .to_owned(),
        format!("the figures of {} are those of its machine file, which marks what is assumed", machine.name),
        "the lower bound is the largest of multiply-accumulates over the array's peak, and bytes of weights, inputs and \
         outputs over DRAM bandwidth; values handed from kernel to kernel are not in it"
            .to_owned(),
    ];
    if instructions > SHOWN_ONE_BY_ONE {
        notes.push(format!(
            "trace.json shows the kernels within the first {SHOWN_ONE_BY_ONE} of {instructions} instructions by every \
             instruction, and those after them as one span on each unit"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::machine::Kind;

    fn decode(format: &format::Program) -> Result<SystolicProgram, TargetError> {
        let machine = Machine::default_of(Kind::Systolic).unwrap().unwrap();
        let facts = machine.systolic.clone().unwrap();
        SystolicProgram::decode(&machine, &facts, &format.encode_to_vec())
    }

    #[test]
    fn ports_are_stored_as_their_type() {
        let program = |stored: &str| format::Program {
            code: encoding::encode(&Code::from(Vec::new())),
            outputs: vec![format::Port { dtype: "i4".to_owned(), stored: stored.to_owned(), ..Default::default() }],
            ..Default::default()
        };
        assert!(decode(&program("i8")).is_ok());
        assert!(matches!(decode(&program("f32")), Err(TargetError::Damaged(_))));
    }

    #[test]
    fn absurd_figures_are_reported() {
        let text = "load dram=0xffffffffffffffff spm=0 element=8 dims=[4294967295:-9223372036854775808:4, \
                    4294967295:9223372036854775807:-4, 4294967295:1:1]\n";
        let code = assembly::assemble(&text.repeat(2)).unwrap();
        let kernel = |macs: u64| format::Kernel { instructions: 1, macs, ..Default::default() };
        let program = format::Program {
            code: encoding::encode(&code),
            kernels: vec![kernel(u64::MAX), kernel(1)],
            ..Default::default()
        };
        let report = decode(&program).unwrap().report();
        assert_eq!((report.macs, report.dram_bytes), (u64::MAX, u64::MAX));
    }
}
