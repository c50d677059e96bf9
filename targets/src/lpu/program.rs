//! A compiled program of an LPU: its queues, where its data lies, and everything that is told about it.

mod format;
mod parts;
mod report;
mod verify;

pub(super) use parts::{KernelPart, Parts, Stretch};

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

use tcc_ir::Tensor;

use self::verify::{Timing, verify};
use super::layout::Layout;
use super::picture;
use super::rtl::{Job, Rtl, RtlError};
use super::simulator::{Counts, Simulator};
use super::summary::{Summary, summarize};
use super::trace::Traced;
use super::units::UnitKind;
use super::{LpuMachine, assembly, encoding};
use crate::machine::Machine;
use crate::report::Report;
use crate::stored::{from_stored, stored_bytes};
use crate::target::{Port, Program, Simulation, TargetError, TraceSpan};

/// A compiled program with the machine that it is for.
#[derive(Debug)]
pub struct LpuProgram {
    machine: Machine,
    facts: LpuMachine,
    parts: Parts,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    timing: Timing,
    summary: OnceLock<Summary>,
}

impl LpuProgram {
    /// A program from its parts.
    ///
    /// # Errors
    /// The parts do not fit together, or not into the machine.
    pub(super) fn new(machine: &Machine, facts: &LpuMachine, parts: Parts) -> Result<Self, TargetError> {
        let timing = verify(&parts, facts)?;
        let ports = |ports: &[(Port, Layout)]| ports.iter().map(|(port, _)| port.clone()).collect();
        Ok(LpuProgram {
            machine: machine.clone(),
            facts: facts.clone(),
            inputs: ports(&parts.inputs),
            outputs: ports(&parts.outputs),
            parts,
            timing,
            summary: OnceLock::new(),
        })
    }

    /// Reads a program that was written by [`Program::encode`]. The bytes are untrusted.
    pub(super) fn decode(machine: &Machine, facts: &LpuMachine, bytes: &[u8]) -> Result<Self, TargetError> {
        LpuProgram::new(machine, facts, format::decode(bytes, facts)?)
    }

    /// Executes the program on the machine in SystemVerilog, as [`Program::simulate`] does in the simulator: outputs and
    /// cycles are the same. `rtl` must be the machine that the program is for.
    ///
    /// # Errors
    /// As [`Program::simulate`]; or the machine could not be run, or does not end within twice the cycles that are counted.
    pub fn simulate_in_rtl(&self, rtl: &Rtl, weights: &[u8], inputs: &[Tensor]) -> Result<Simulation, TargetError> {
        let (program, memory) = (encoding::encode(&self.parts.queues), self.memory(weights, inputs)?);
        let job = Job { program: &program, memory: &memory, limit: self.timing.cycles.saturating_mul(2) };
        let outcome = rtl.run_one(job).map_err(|error: RtlError| TargetError::Fault(error.to_string()))?;
        match outcome.cycles {
            Some(cycles) => Ok(Simulation { outputs: self.results(&outcome.memory)?, cycles }),
            None => Err(TargetError::Fault("the machine in SystemVerilog does not come to an end".to_owned())),
        }
    }

    /// How much of everything one run does, as the compiler has counted it. Estimates of energy rest on this.
    pub fn counts(&self) -> &Counts {
        &self.parts.counts
    }

    /// [`Program::simulate`] with what the simulator has counted, to be held against [`LpuProgram::counts`].
    ///
    /// # Errors
    /// As [`Program::simulate`].
    pub fn simulate_counted(&self, weights: &[u8], inputs: &[Tensor]) -> Result<(Simulation, Counts), TargetError> {
        let memory = self.memory(weights, inputs)?;
        let mut simulator = Simulator::new(&self.facts, &self.parts.queues, memory)?;
        let execution = simulator.run(|_, _| {})?;
        let simulation = Simulation { outputs: self.results(simulator.memory())?, cycles: execution.cycles };
        Ok((simulation, *simulator.counts()))
    }

    /// All memory with weights and inputs in their places.
    fn memory(&self, weights: &[u8], inputs: &[Tensor]) -> Result<Vec<u8>, TargetError> {
        let expected = self.weights_bytes();
        if weights.len() as u64 != expected {
            let found = weights.len();
            return Err(damaged(format!("weights.bin has {found} bytes where the program expects {expected}")));
        }
        if inputs.len() != self.inputs.len() {
            let (expected, found) = (self.inputs.len(), inputs.len());
            return Err(TargetError::Fault(format!("the program has {expected} inputs, and not {found}")));
        }
        let mut memory = vec![0; usize::try_from(self.facts.memory_bytes()).unwrap_or(usize::MAX)];
        let mut rest = weights;
        for stretch in &self.parts.stretches {
            let bytes = stretch.vectors as usize * self.facts.vector();
            let (own, others) = rest.split_at_checked(bytes).unwrap_or((rest, &[]));
            let at = Layout::offset(stretch.place, &self.facts);
            memory[at..at + own.len()].copy_from_slice(own);
            rest = others;
        }
        for ((port, layout), tensor) in self.parts.inputs.iter().zip(inputs) {
            if tensor.ty() != &port.ty {
                return Err(TargetError::Fault(format!("input `{}` is {}, not {}", port.name, tensor.ty(), port.ty)));
            }
            let elements = stored_bytes(tensor, layout.dtype).map_err(|error| TargetError::Fault(error.to_string()))?;
            layout.scatter(&elements, &mut memory, &self.facts);
        }
        Ok(memory)
    }

    /// The outputs, which the program has left in memory.
    fn results(&self, memory: &[u8]) -> Result<Vec<Tensor>, TargetError> {
        let result = |(port, layout): &(Port, Layout)| {
            from_stored(&port.ty, layout.dtype, &layout.gather(memory, &self.facts))
                .map_err(|error| TargetError::Fault(format!("output `{}`: {error}", port.name)))
        };
        self.parts.outputs.iter().map(result).collect()
    }

    fn summary(&self) -> &Summary {
        let Parts { queues, marks, kernels, .. } = &self.parts;
        self.summary.get_or_init(|| summarize(queues, &self.timing.resumes, marks, kernels.len(), &self.facts))
    }

    fn traced(&self) -> Traced<'_> {
        Traced { queues: &self.parts.queues, resumes: &self.timing.resumes, marks: &self.parts.marks }
    }
}

/// That a program does not hold together.
fn damaged(what: impl Into<String>) -> TargetError {
    TargetError::Damaged(what.into())
}

impl Program for LpuProgram {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn encode(&self) -> Vec<u8> {
        format::encode(&self.parts)
    }

    fn weights_bytes(&self) -> u64 {
        let vectors: u64 = self.parts.stretches.iter().map(|stretch| u64::from(stretch.vectors)).sum();
        vectors * self.facts.vector() as u64
    }

    fn write_weights(&self, out: &mut dyn Write) -> io::Result<()> {
        match (&self.parts.weights, self.weights_bytes()) {
            (Some(weights), bytes) => weights.write(bytes, out),
            (None, 0) => Ok(()),
            (None, _) => Err(io::Error::other("a program that was read has no weights; they are in its build")),
        }
    }

    fn schedule_text(&self) -> String {
        let summary = self.summary();
        let instructions: usize = self.parts.queues.0.iter().map(Vec::len).sum();
        let mut text = format!(
            "; {} on {}: {} kernels, {instructions} instructions, {} cycles\n",
            self.parts.model,
            self.machine.name,
            self.parts.kernels.len(),
            summary.cycles
        );
        let kernels = self.parts.kernels.iter().zip(&summary.kernels);
        let spans = kernels.clone().map(|(kernel, counted)| picture::Span {
            name: &kernel.name,
            start: counted.start.unwrap_or(counted.completion),
            end: counted.completion,
        });
        let spans: Vec<picture::Span<'_>> = spans.collect();
        for ((kernel, counted), picture::Span { name, start, end }) in kernels.zip(&spans) {
            let counts: Vec<String> = UnitKind::ALL
                .into_iter()
                .map(|kind| (counted.dispatches[kind.index()], kind.name()))
                .filter(|&(count, _)| count > 0)
                .map(|(count, name)| format!("{count} {name}"))
                .collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{name} [{start}..{end}] {}", counts.join(", "));
            if !kernel.tiling.is_empty() {
                let _ = writeln!(text, "  tiling {}", kernel.tiling);
            }
            if !kernel.origins.is_empty() {
                let _ = writeln!(text, "  from   {}", kernel.origins.join(", "));
            }
        }
        if summary.cycles <= picture::MAX_CYCLES {
            let Parts { queues, .. } = &self.parts;
            let drawn = picture::draw(queues, &self.timing.resumes, &spans, summary.cycles, &self.facts);
            let _ = write!(text, "\n{drawn}");
        }
        text
    }

    fn code(&self) -> Vec<(PathBuf, String)> {
        vec![(PathBuf::from("program.s"), assembly::disassemble(&self.parts.queues, &self.facts))]
    }

    fn report(&self) -> Report {
        report::report(self)
    }

    fn trace(&self) -> Vec<TraceSpan> {
        let name = |kernel: usize| self.parts.kernels.get(kernel).map_or("", |kernel| kernel.name.as_str());
        self.traced().spans(&self.facts, name)
    }

    fn simulate(&self, weights: &[u8], inputs: &[Tensor]) -> Result<Simulation, TargetError> {
        Ok(self.simulate_counted(weights, inputs)?.0)
    }
}

#[cfg(test)]
mod tests;
