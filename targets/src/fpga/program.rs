//! A compiled program of an FPGA: what is built into the part, what is called when, and where data lies.

mod format;
mod loading;
mod parts;
mod report;
mod schedule;
mod times;
mod verify;

pub(in crate::fpga) use parts::{Buffer, Call, Group, Load, Other, Parts};
pub(in crate::fpga) use times::{Times, ports};

use std::io::{self, Write};
use std::path::PathBuf;

use tcc_ir::{Tensor, TensorType};

use self::verify::verify;
use super::FpgaMachine;
use super::design::FunctionId;
use super::resources::Resources;
use super::writer::{self, Written};
use crate::kernel::simulator::{Memory, Place, launch};
use crate::machine::Machine;
use crate::report::Report;
use crate::stored::{from_stored, stored_bytes};
use crate::target::{Port, Program, Simulation, TargetError, TraceSpan};

/// A compiled program with the machine that it is for.
#[derive(Debug)]
pub struct FpgaProgram {
    machine: Machine,
    facts: FpgaMachine,
    parts: Parts,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// How its functions are scheduled.
    times: Times,
}

/// That a program does not hold together.
fn damaged(what: impl Into<String>) -> TargetError {
    TargetError::Damaged(what.into())
}

impl FpgaProgram {
    /// A program from its parts.
    ///
    /// # Errors
    /// The parts do not fit together, or not into the machine.
    pub(super) fn new(machine: &Machine, facts: &FpgaMachine, parts: Parts, times: Times) -> Result<Self, TargetError> {
        verify(&parts, facts)?;
        let ports = |ports: &[(Port, u32)]| ports.iter().map(|(port, _)| port.clone()).collect();
        let (inputs, outputs) = (ports(&parts.inputs), ports(&parts.outputs));
        Ok(FpgaProgram { machine: machine.clone(), facts: facts.clone(), parts, inputs, outputs, times })
    }

    /// Reads a program that was written by [`Program::encode`]. The bytes are untrusted.
    pub(super) fn decode(machine: &Machine, facts: &FpgaMachine, bytes: &[u8]) -> Result<Self, TargetError> {
        let parts = format::decode(bytes)?;
        verify(&parts, facts)?;
        let what = (&parts.calls[..], &parts.buffers[..], &parts.loads[..]);
        let times = Times::new(&parts.design, what, facts, machine.clock_hz)?;
        FpgaProgram::new(machine, facts, parts, times)
    }

    /// What it takes of the part.
    fn resources(&self) -> Resources {
        self.times.resources(&self.parts.design, &self.parts.calls)
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
        for call in &parts.calls {
            let function = &parts.design.functions[call.function.index()];
            let own = function.is_elastic().then(|| parts.kernel_of(call));
            let kernel = own.as_ref().unwrap_or(&function.kernel);
            let places: Vec<Place> = call.buffers.iter().map(|&buffer| parts.buffers[buffer as usize].place).collect();
            // Lanes are all in step, however many there are.
            launch(kernel, kernel.threads.next_power_of_two(), &mut memory, &places)
                .map_err(|fault| TargetError::Fault(format!("function `{}`: {fault}", kernel.name)))?;
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

impl Program for FpgaProgram {
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
        let interval = |function: FunctionId, number: usize| {
            let schedule = self.times.functions.get(function.index())?;
            schedule.intervals().get(number).and_then(|&interval| u32::try_from(interval).ok())
        };
        writer::files(&Written {
            parts: &self.parts,
            machine: &self.machine,
            facts: &self.facts,
            intervals: &interval,
            nests: &|function| self.times.functions.get(function.index()).map(|schedule| &schedule.nest),
        })
    }

    fn report(&self) -> Report {
        report::report(self)
    }

    fn trace(&self) -> Vec<TraceSpan> {
        schedule::trace(self)
    }

    fn simulate(&self, weights: &[u8], inputs: &[Tensor]) -> Result<Simulation, TargetError> {
        let cycles = self.times.cycles();
        Ok(Simulation { outputs: self.execute(weights, inputs)?, cycles })
    }
}
