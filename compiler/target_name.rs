//! What `--target` names: a kind of machine, a built-in machine, or a machine file.

use std::path::{Path, PathBuf};

use tcc_targets::{Kind, Machine, MachineError};

use crate::closest::closest;

/// Largest machine file that is read. A real one has a few kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a target is not known.
#[derive(Debug, thiserror::Error)]
pub enum TargetNameError {
    /// No kind, machine or file of that name.
    #[error("{}", unknown(.name, .known))]
    Unknown {
        /// The name.
        name: String,
        /// Names of kinds and machines, kinds first.
        known: Vec<String>,
    },
    /// A kind without a machine that stands for it.
    #[error("no {0} machine is the default one; name one, see `tcc machines`")]
    NoDefault(&'static str),
    /// The machine file cannot be read.
    #[error("the machine file {} cannot be read: {reason}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The machine file is wrong.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

fn unknown(name: &str, known: &[String]) -> String {
    let suggestion = match closest(name, known.iter().map(String::as_str)) {
        Some(close) => format!("did you mean `{close}`? "),
        None => String::new(),
    };
    format!(
        "there is no target `{name}`; {suggestion}known are {}, or pass the path of a machine file",
        known.join(", ")
    )
}

/// The machine that a name, a kind or a path stands for.
///
/// # Errors
/// Nothing has that name, or the machine file is wrong.
pub fn resolve(name: &str) -> Result<Machine, TargetNameError> {
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) {
        return Machine::default_of(kind)?.ok_or(TargetNameError::NoDefault(kind.name()));
    }
    let built_in = Machine::built_in()?;
    let mut known: Vec<String> = Kind::ALL.iter().map(|kind| kind.name().to_owned()).collect();
    known.extend(built_in.iter().map(|machine| machine.name.clone()));
    if let Some(machine) = built_in.into_iter().find(|machine| machine.name == name) {
        return Ok(machine);
    }
    let path = Path::new(name);
    if path.extension().is_some_and(|extension| extension == "toml") || name.contains('/') || path.is_file() {
        return read(path);
    }
    Err(TargetNameError::Unknown { name: name.to_owned(), known })
}

fn read(path: &Path) -> Result<Machine, TargetNameError> {
    let fail = |reason: String| TargetNameError::Read { path: path.to_owned(), reason };
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => fail("it does not exist".to_owned()),
        _ => fail(error.to_string()),
    })?;
    if !metadata.is_file() {
        return Err(fail("it is not a file".to_owned()));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(fail(format!("it has {} bytes, which no machine file needs", metadata.len())));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    Ok(Machine::parse(&path.display().to_string(), &text)?)
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;

    #[test]
    fn a_kind_stands_for_its_default_machine() {
        for kind in Kind::ALL {
            let machine = resolve(kind.name()).unwrap();
            assert!(machine.default && machine.kind == kind, "{}", machine.name);
            assert_eq!(resolve(&machine.name).unwrap(), machine);
        }
    }

    #[test]
    fn machines_survive_their_own_file_form() {
        for machine in Machine::built_in().unwrap() {
            assert_eq!(Machine::parse("again", &machine.to_toml().unwrap()), Ok(machine));
        }
    }

    #[test]
    fn an_unknown_name_gets_a_suggestion() {
        let message = resolve("systolc").unwrap_err().to_string();
        assert!(message.contains("did you mean `systolic`?"), "{message}");
        let message = resolve("nowhere/machine.toml").unwrap_err().to_string();
        assert_eq!(message, "the machine file nowhere/machine.toml cannot be read: it does not exist");
    }
}
