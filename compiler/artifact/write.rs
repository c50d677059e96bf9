//! Writes a build, whole or not at all.

use std::fs;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use prost::Message as _;
use tcc_targets::{Machine, MachineError, Port, Program, Report};

use super::format::{FourBits, Port as PortProto, Program as ProgramProto, Quantization as QuantizationProto, Weights};
use super::{CODE, ENTRIES, FORMAT, MAGIC, PROGRAM, REPORT, Reference, SCHEDULE, TRACE, WEIGHTS, read};
use crate::hash::HashingWriter;
use crate::quantization::{Quantization, QuantizedProducts, QuantizedWeights};
use crate::staging::{Staging, WriteError};

/// Why a build could not be written. Nothing of it is left behind, and what was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The system refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The path is taken by something that is not a build.
    #[error("{} exists and was not written by tcc; choose another folder, or remove it first", .0.display())]
    NotOurs(PathBuf),
    /// There are files among those of an earlier build that would be lost.
    #[error("{} holds `{name}`, which tcc did not write and would remove; move it elsewhere first", .folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// The file.
        name: String,
    },
    /// The facts of the machine cannot be written down.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The target made a code file with a path that leads elsewhere.
    #[error("the target named a code file `{}`, which is outside of code/; this is a defect in tcc", .0.display())]
    CodePath(PathBuf),
    /// The report holds what JSON cannot express.
    #[error("the report cannot be written as JSON: {0}; this is a defect in tcc")]
    Report(#[from] serde_json::Error),
}

/// Fails if a build could not be written to `folder` for a reason that can be known before there is one, so that nobody
/// waits for a compilation whose result cannot be kept.
///
/// # Errors
/// The path is taken, or it cannot be written.
pub fn check(folder: &Path) -> Result<(), BuildError> {
    check_replaceable(folder)?;
    // The folder is made, and goes again at once.
    Staging::new(folder)?;
    Ok(())
}

/// What a build is made of.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    /// The program.
    pub program: &'a dyn Program,
    /// What is reported of it.
    pub report: &'a Report,
    /// The machine that it is for.
    pub machine: &'a Machine,
    /// The model that it was built from. With it, the weights are written too, and the model is kept for checks.
    pub reference: Option<&'a Reference>,
    /// How the model was quantised, if it was.
    pub quantization: Option<Quantization>,
}

/// Writes a compiled program to `folder`, in the place of an earlier build if there is one.
///
/// # Errors
/// See [`BuildError`].
pub fn write(folder: &Path, contents: &Contents<'_>) -> Result<(), BuildError> {
    let Contents { program, report, machine, reference, quantization } = *contents;
    check_replaceable(folder)?;
    let staging = Staging::new(folder)?;
    let weights = match reference {
        None => None,
        Some(_) => Some(staging.write(Path::new(WEIGHTS), |file| {
            let mut writer = HashingWriter::new(file);
            program.write_weights(&mut writer)?;
            let (bytes, hash) = writer.finish()?;
            Ok(Weights { bytes, hash })
        })?),
    };
    let message = ProgramProto {
        magic: MAGIC.to_owned(),
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kind: machine.kind.name().to_owned(),
        machine: machine.to_toml()?,
        model: report.model.clone(),
        inputs: program.inputs().iter().map(port).collect(),
        outputs: program.outputs().iter().map(port).collect(),
        body: program.encode(),
        weights,
        reference: reference.map(|reference| reference.write(&staging)).transpose()?,
        quantization: match quantization {
            Some(Quantization::Products(QuantizedProducts { products, calibrated, dynamic, samples })) => {
                Some(QuantizationProto {
                    products: products as u64,
                    calibrated: calibrated as u64,
                    dynamic: dynamic as u64,
                    samples: samples as u64,
                })
            }
            Some(Quantization::Weights(_)) | None => None,
        },
        four_bits: match quantization {
            Some(Quantization::Weights(QuantizedWeights { products, lookups, left })) => {
                Some(FourBits { products: products as u64, lookups: lookups as u64, left: left as u64 })
            }
            Some(Quantization::Products(_)) | None => None,
        },
    };
    staging.write(Path::new(PROGRAM), |file| file.write_all(&message.encode_to_vec()))?;
    staging.write(Path::new(SCHEDULE), |file| file.write_all(program.schedule_text().as_bytes()))?;
    let json = report_json(report)?;
    staging.write(Path::new(REPORT), |file| file.write_all(json.as_bytes()))?;
    staging.write(Path::new(TRACE), |file| {
        tcc_targets::trace::write(file, &report.model, report.clock_hz, &program.trace())
    })?;
    for (path, text) in program.code() {
        if path.components().next().is_none() || path.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(BuildError::CodePath(path));
        }
        staging.write(&Path::new(CODE).join(path), |file| file.write_all(text.as_bytes()))?;
    }
    Ok(staging.commit()?)
}

/// A report as `report.json` has it.
pub(crate) fn report_json(report: &tcc_targets::Report) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

fn port(port: &Port) -> PortProto {
    PortProto {
        name: port.name.clone(),
        dtype: port.ty.dtype.name().to_owned(),
        dims: port.ty.shape.iter().map(|&dim| dim as u64).collect(),
    }
}

/// Whether nothing is lost when `folder` is replaced: it is not there, empty, or a build and nothing else.
fn check_replaceable(folder: &Path) -> Result<(), BuildError> {
    let not_ours = || BuildError::NotOurs(folder.to_owned());
    let fail = |source| WriteError { path: folder.to_owned(), source };
    match fs::symlink_metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => return Err(not_ours()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error).into()),
    }
    let mut foreign = None;
    let mut is_empty = true;
    for entry in fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        is_empty = false;
        if !ENTRIES.contains(&name.as_str()) {
            // The least name, so that the message does not depend on the file system's order.
            foreign = foreign.into_iter().chain([name]).min();
        }
    }
    if is_empty {
        Ok(())
    } else if !read::is_program(&folder.join(PROGRAM)) {
        Err(not_ours())
    } else if let Some(name) = foreign {
        Err(BuildError::Foreign { folder: folder.to_owned(), name })
    } else {
        Ok(())
    }
}
