//! A compiled program of a GPU: its kernels, what is launched when, and where data lies.

mod format;
mod parts;
mod report;
mod schedule;
#[cfg(test)]
mod tests;
mod times;
mod verify;

pub(super) use parts::{Buffer, Group, Launch, Parts};

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

use tcc_ir::{Tensor, TensorType};

use self::times::Times;
use self::verify::verify;
use super::SimtMachine;
use super::timing::KernelTime;
use super::writer::{self, Written};
use crate::kernel::simulator::{Memory, Place, launch};
use crate::machine::Machine;
use crate::report::Report;
use crate::stored::{from_stored, stored_bytes};
use crate::target::{Port, Program, Simulation, TargetError, TraceSpan};

/// A compiled program with the machine that it is for.
#[derive(Debug)]
pub struct SimtProgram {
    machine: Machine,
    facts: SimtMachine,
    parts: Parts,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// How long each launch takes, once that was asked.
    times: OnceLock<Times>,
}

/// That a program does not hold together.
fn damaged(what: impl Into<String>) -> TargetError {
    TargetError::Damaged(what.into())
}

impl SimtProgram {
    /// A program from its parts.
    ///
    /// # Errors
    /// The parts do not fit together, or not into the machine.
    pub(super) fn new(machine: &Machine, facts: &SimtMachine, parts: Parts) -> Result<Self, TargetError> {
        verify(&parts, facts)?;
        let ports = |ports: &[(Port, u32)]| ports.iter().map(|(port, _)| port.clone()).collect();
        let (inputs, outputs) = (ports(&parts.inputs), ports(&parts.outputs));
        Ok(SimtProgram {
            machine: machine.clone(),
            facts: facts.clone(),
            parts,
            inputs,
            outputs,
            times: OnceLock::new(),
        })
    }

    /// What it consists of.
    #[cfg(test)]
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Reads a program that was written by [`Program::encode`]. The bytes are untrusted.
    pub(super) fn decode(machine: &Machine, facts: &SimtMachine, bytes: &[u8]) -> Result<Self, TargetError> {
        SimtProgram::new(machine, facts, format::decode(bytes)?)
    }

    /// How long each launch takes.
    fn times(&self) -> &Times {
        self.times.get_or_init(|| Times::new(&self.parts, &self.facts, self.machine.clock_hz))
    }

    /// Cycles from the end of one launch to the start of the next; before the first there are as many.
    fn gap(&self) -> u64 {
        self.facts.launch_cycles(self.machine.clock_hz)
    }

    /// Launches with their times.
    fn launched(&self) -> impl Iterator<Item = (&Launch, &KernelTime)> {
        self.parts.launches.iter().zip(self.times().launched())
    }

    /// Cycles of all launches.
    fn cycles(&self) -> u64 {
        self.times().launched().map(|time| self.gap() + time.cycles).sum()
    }

    /// Executes the program for its values.
    fn execute(&self, weights: &[u8], inputs: &[Tensor]) -> Result<Vec<Tensor>, TargetError> {
        let parts = &self.parts;
        if weights.len() as u64 != parts.weights_bytes {
            let (found, expected) = (weights.len(), parts.weights_bytes);
            return Err(damaged(format!("weights.bin has {found} bytes where the program expects {expected}")));
        }
        if inputs.len() != self.inputs.len() {
            let (expected, found) = (self.inputs.len(), inputs.len());
            return Err(TargetError::Fault(format!("the program has {expected} inputs, and not {found}")));
        }
        let mut memory = Memory { weights, values: vec![0; parts.values_bytes as usize] };
        for ((port, buffer), tensor) in parts.inputs.iter().zip(inputs) {
            if tensor.ty() != &port.ty {
                return Err(TargetError::Fault(format!("input `{}` is {}, not {}", port.name, tensor.ty(), port.ty)));
            }
            let Buffer { dtype, place, .. } = &parts.buffers[*buffer as usize];
            let bytes = stored_bytes(tensor, *dtype).map_err(|error| TargetError::Fault(error.to_string()))?;
            if let Place::Values(at) = *place {
                memory.values[at as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
        for step in &parts.launches {
            let kernel = &parts.kernels[step.kernel as usize];
            let places: Vec<Place> = step.buffers.iter().map(|&buffer| parts.buffers[buffer as usize].place).collect();
            launch(kernel, self.facts.warp, &mut memory, &places)
                .map_err(|fault| TargetError::Fault(format!("kernel `{}`: {fault}", kernel.name)))?;
        }
        let result = |(port, buffer): &(Port, u32)| {
            let Buffer { dtype, place, .. } = &parts.buffers[*buffer as usize];
            let ty = TensorType::new(*dtype, port.ty.shape.clone());
            let (from, at) = match *place {
                Place::Weights(at) => (memory.weights, at),
                Place::Values(at) => (memory.values.as_slice(), at),
            };
            from_stored(&port.ty, *dtype, &from[at as usize..][..ty.bytes()])
                .map_err(|error| TargetError::Fault(format!("output `{}`: {error}", port.name)))
        };
        parts.outputs.iter().map(result).collect()
    }
}

impl Program for SimtProgram {
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
        self.parts.weights_bytes
    }

    fn write_weights(&self, out: &mut dyn Write) -> io::Result<()> {
        match (&self.parts.weights, self.weights_bytes()) {
            (Some(weights), bytes) => weights.write(bytes, out),
            (None, 0) => Ok(()),
            (None, _) => Err(io::Error::other("a program that was read has no weights; they are in its build")),
        }
    }

    fn schedule_text(&self) -> String {
        schedule::text(self)
    }

    fn code(&self) -> Vec<(PathBuf, String)> {
        writer::files(&Written {
            parts: &self.parts,
            machine: &self.machine.name,
            warp: self.facts.warp,
            arch: self.facts.compute_capability.map(|capability| capability.arch()),
            blocks: (0..self.parts.kernels.len())
                .map(|kernel| self.times().of_kernel(kernel).map_or(1, |time| time.occupancy.blocks))
                .collect(),
        })
    }

    fn report(&self) -> Report {
        report::report(self)
    }

    fn trace(&self) -> Vec<TraceSpan> {
        schedule::trace(self)
    }

    fn simulate(&self, weights: &[u8], inputs: &[Tensor]) -> Result<Simulation, TargetError> {
        Ok(Simulation { outputs: self.execute(weights, inputs)?, cycles: self.cycles() })
    }
}
