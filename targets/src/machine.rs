//! Machine files: the facts of one machine in TOML. Those in `targets/machines/` are built in.

use serde::{Deserialize, Serialize};

use crate::fpga::FpgaMachine;
use crate::lpu::LpuMachine;
use crate::simt::SimtMachine;
use crate::systolic::SystolicMachine;

include!(concat!(env!("OUT_DIR"), "/machines.rs"));

/// One machine: what all kinds have, and the part of its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The name that `--target` takes.
    pub name: String,
    /// The kind of machine.
    pub kind: Kind,
    /// One line for people.
    pub description: String,
    /// Cycles per second.
    pub clock_hz: u64,
    /// Whether this is the machine that its kind's name stands for.
    #[serde(default)]
    pub default: bool,
    /// The facts of a systolic machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systolic: Option<SystolicMachine>,
    /// The facts of an LPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lpu: Option<LpuMachine>,
    /// The facts of a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simt: Option<SimtMachine>,
    /// The facts of an FPGA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fpga: Option<FpgaMachine>,
}

/// A kind of machine: what `--target` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Systolic arrays.
    Systolic,
    /// Statically scheduled dataflow chips.
    Lpu,
    /// GPUs.
    Simt,
    /// FPGAs.
    Fpga,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Systolic, Kind::Lpu, Kind::Simt, Kind::Fpga];

    /// The name in machine files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Systolic => "systolic",
            Kind::Lpu => "lpu",
            Kind::Simt => "simt",
            Kind::Fpga => "fpga",
        }
    }
}

/// What is wrong with a machine file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// Not TOML, or not the fields that a machine has.
    #[error("{file}: {message}")]
    Syntax {
        /// The file's name.
        file: String,
        /// What the TOML reader says, with line and column.
        message: String,
    },
    /// A figure that cannot be.
    #[error("{file}: `{field}` is {value}, but must be {expected}")]
    Value {
        /// The file's name.
        file: String,
        /// The field, with the tables it is in.
        field: String,
        /// Its value.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// The table of the machine's kind is missing.
    #[error("{file}: a machine of kind `{kind}` needs a table [{kind}]")]
    MissingTable {
        /// The file's name.
        file: String,
        /// The kind.
        kind: &'static str,
    },
}

impl Machine {
    /// Reads and checks a machine file; `file` is its name for messages.
    pub fn parse(file: &str, text: &str) -> Result<Machine, MachineError> {
        let machine: Machine = toml::from_str(text)
            .map_err(|error| MachineError::Syntax { file: file.to_owned(), message: error.to_string() })?;
        if machine.clock_hz == 0 {
            return Err(MachineError::Value {
                file: file.to_owned(),
                field: "clock_hz".to_owned(),
                value: "0".to_owned(),
                expected: "at least 1".to_owned(),
            });
        }
        let missing = MachineError::MissingTable { file: file.to_owned(), kind: machine.kind.name() };
        match machine.kind {
            Kind::Systolic => machine.systolic.as_ref().ok_or(missing)?.check(file)?,
            Kind::Lpu => machine.lpu.as_ref().ok_or(missing)?.check(file)?,
            Kind::Simt => machine.simt.as_ref().ok_or(missing)?.check(file)?,
            Kind::Fpga => machine.fpga.as_ref().ok_or(missing)?.check(file)?,
        }
        Ok(machine)
    }

    /// All machines that are built in, by name.
    pub fn built_in() -> Result<Vec<Machine>, MachineError> {
        FILES.iter().map(|(name, text)| Machine::parse(name, text)).collect()
    }

    /// The built-in machine that a kind's name stands for.
    pub fn default_of(kind: Kind) -> Result<Option<Machine>, MachineError> {
        Ok(Machine::built_in()?.into_iter().find(|machine| machine.kind == kind && machine.default))
    }

    /// The file of a built-in machine, in which comments say where the figures come from.
    pub fn built_in_text(name: &str) -> Option<&'static str> {
        let is_named = |text: &str| Machine::parse(name, text).is_ok_and(|machine| machine.name == name);
        FILES.iter().map(|&(_, text)| text).find(|text| is_named(text))
    }

    /// The figures of a built-in machine of which its file says that they are assumed, with the tables that they are in. Of
    /// other machines nothing is known but their figures.
    pub fn assumed(&self) -> Vec<String> {
        let Some(text) = Machine::built_in_text(&self.name) else { return Vec::new() };
        if !Machine::parse(&self.name, text).is_ok_and(|machine| machine == *self) {
            return Vec::new();
        }
        let mut table = String::new();
        let mut assumed = Vec::new();
        for line in text.lines() {
            if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                table = format!("{name}.");
                continue;
            }
            let Some((field, _)) = line.split_once('=') else { continue };
            if line.split_once('#').is_some_and(|(_, comment)| comment.contains("assumed")) {
                assumed.push(format!("{table}{}", field.trim()));
            }
        }
        assumed
    }

    /// The facts as a file that [`Machine::parse`] reads.
    pub fn to_toml(&self) -> Result<String, MachineError> {
        toml::to_string(self)
            .map_err(|error| MachineError::Syntax { file: self.name.clone(), message: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;

    #[test]
    fn a_kind_has_one_default() {
        for kind in Kind::ALL {
            let machines = Machine::built_in().unwrap();
            assert_eq!(machines.iter().filter(|machine| machine.kind == kind && machine.default).count(), 1);
        }
    }

    #[test]
    fn the_tsp_is_what_is_published() {
        let facts = Machine::default_of(Kind::Lpu).unwrap().unwrap().lpu.unwrap();
        assert_eq!(facts.memory_bytes(), 220 << 20);
        assert_eq!((facts.vector(), facts.byte_macs_per_cycle()), (320, 409_600));
        // 820 TOPS at 1 GHz, and a quarter of that for halves.
        assert_eq!(2 * facts.byte_macs_per_cycle() / 1000, 819);
        assert_eq!(4 * facts.half_macs_per_cycle(), facts.byte_macs_per_cycle());
    }

    #[test]
    fn machine_files_say_what_is_assumed() {
        let mut machine = Machine::default_of(Kind::Lpu).unwrap().unwrap();
        let assumed = machine.assumed();
        for field in ["lpu.notify_latency", "lpu.mem.latency", "lpu.energy.static_watts"] {
            assert!(assumed.iter().any(|known| known == field), "{field} is not among {assumed:?}");
        }
        assert!(!assumed.iter().any(|field| field == "lpu.mem.slices" || field == "name"), "{assumed:?}");
        // Somebody's own figures under the same name are not known.
        machine.clock_hz += 1;
        assert_eq!(machine.assumed(), Vec::<String>::new());
    }
}
