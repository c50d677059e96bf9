//! Reads a build. It may be damaged, from another version, or no build at all.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use prost::Message as _;
use tcc_ir::{DType, Shape, TensorType};
use tcc_targets::{Machine, MachineError, Port, Program, Report, Simulation, Target, TargetError};

use super::format::{Header, Port as PortProto, Program as ProgramProto};
use super::{FORMAT, MAGIC, PROGRAM, REPORT, WEIGHTS, reference};
use crate::accuracy::Tolerance;
use crate::hash;
use crate::onnx::import::ImportOptions;
use crate::onnx::mapped;
use crate::quantization::{Quantization, QuantizedProducts, QuantizedWeights};

/// Why a build cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The folder is not there.
    #[error("{} does not exist; pass the folder that `tcc build` wrote", .0.display())]
    Missing(PathBuf),
    /// The folder is not a build.
    #[error("{} is not a build: it has no program.tcc that tcc wrote; pass the folder that `tcc build` wrote", .0.display())]
    NotABuild(PathBuf),
    /// A file of it cannot be read.
    #[error("{} cannot be read: {source}; build it again", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of it is damaged.
    #[error("{} is damaged: {reason}; build it again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was written by a version of tcc with another format.
    #[error(
        "{} was written by tcc {version} in format {format}, but this is tcc {}, which reads format {FORMAT}; build it again",
        .path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that wrote it.
        version: String,
        /// Its format.
        format: u32,
    },
    /// It has no weights.
    #[error("{} was built with --no-weights: it can be reported on, but not run; build it with its weights", .0.display())]
    NoWeights(PathBuf),
    /// The model is not the one that it was built from.
    #[error(
        "{} is not the file that the program was built from: it changed since; build again to check against the new one",
        .0.display()
    )]
    ModelChanged(PathBuf),
    /// The machine in it is not one.
    #[error("the machine of the build: {0}; build it again")]
    Machine(#[from] MachineError),
    /// The target refuses its program.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// A build that was opened.
#[derive(Debug)]
pub struct Artifact {
    folder: PathBuf,
    message: ProgramProto,
    machine: Machine,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Artifact {
    /// Opens the build in `folder`: reads what it is, but neither decodes its program nor reads its weights.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(folder: &Path) -> Result<Self, ReadError> {
        if !folder.exists() {
            return Err(ReadError::Missing(folder.to_owned()));
        }
        let path = folder.join(PROGRAM);
        if !is_program(&path) {
            return Err(ReadError::NotABuild(folder.to_owned()));
        }
        let damaged = |reason: String| ReadError::Damaged { path: path.clone(), reason };
        let map = mapped::map(&path).map_err(|source| ReadError::Read { path: path.clone(), source })?;
        let header = Header::decode(&map[..]).map_err(|error| damaged(error.to_string()))?;
        if header.format != FORMAT {
            return Err(ReadError::Version { path, version: header.version, format: header.format });
        }
        let message = ProgramProto::decode(&map[..]).map_err(|error| damaged(error.to_string()))?;
        let machine = Machine::parse("machine", &message.machine)?;
        if machine.kind.name() != message.kind {
            return Err(damaged(format!("it is for a {} machine, but names a {}", message.kind, machine.kind.name())));
        }
        let ports = |ports: &[PortProto]| ports.iter().map(port).collect::<Result<Vec<_>, _>>().map_err(damaged);
        let (inputs, outputs) = (ports(&message.inputs)?, ports(&message.outputs)?);
        Ok(Artifact { folder: folder.to_owned(), machine, inputs, outputs, message })
    }

    /// The machine that it was built for.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.message.model
    }

    /// Names and types of the inputs.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Names and types of the outputs.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// What was reported when it was built.
    ///
    /// # Errors
    /// The report is missing or damaged.
    pub fn report(&self) -> Result<Report, ReadError> {
        let path = self.folder.join(REPORT);
        let text = fs::read(&path).map_err(|source| ReadError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|error| ReadError::Damaged { path, reason: error.to_string() })
    }

    /// Decodes the program with the target of its machine.
    ///
    /// # Errors
    /// The program is damaged.
    pub fn program(&self) -> Result<LoadedProgram, ReadError> {
        self.program_for(&*tcc_targets::target(self.machine.clone())?)
    }

    /// Decodes the program with a target of the caller's, for kinds of machines that are not built in.
    ///
    /// # Errors
    /// The program is damaged.
    pub fn program_for(&self, target: &dyn Target) -> Result<LoadedProgram, ReadError> {
        let program = target.decode(&self.message.body)?;
        if program.inputs() != self.inputs || program.outputs() != self.outputs {
            return Err(ReadError::Damaged {
                path: self.folder.join(PROGRAM),
                reason: "inputs and outputs are not those of the program in it".to_owned(),
            });
        }
        Ok(LoadedProgram { program, weights: self.weights()? })
    }

    fn weights(&self) -> Result<Arc<Mmap>, ReadError> {
        let Some(expected) = &self.message.weights else { return Err(ReadError::NoWeights(self.folder.clone())) };
        let path = self.folder.join(WEIGHTS);
        let map = mapped::map(&path).map_err(|source| ReadError::Read { path: path.clone(), source })?;
        if map.len() as u64 != expected.bytes {
            let reason = format!("it has {} bytes instead of {}", map.len(), expected.bytes);
            return Err(ReadError::Damaged { path, reason });
        }
        if hash::of_bytes(&map) != expected.hash {
            return Err(ReadError::Damaged { path, reason: "its content is not what was written".to_owned() });
        }
        Ok(map)
    }

    /// How the model was quantised when it was built, if it was.
    pub fn quantization(&self) -> Option<Quantization> {
        let products = self.message.quantization.map(|quantization| {
            Quantization::Products(QuantizedProducts {
                products: quantization.products as usize,
                calibrated: quantization.calibrated as usize,
                dynamic: quantization.dynamic as usize,
                samples: quantization.samples as usize,
            })
        });
        products.or(self.message.four_bits.map(|weights| {
            Quantization::Weights(QuantizedWeights {
                products: weights.products as usize,
                lookups: weights.lookups as usize,
                left: weights.left as usize,
            })
        }))
    }

    /// How far its outputs may be from those of the model that it was built from. A model whose weights were quantised is
    /// compared with [itself with such weights](crate::ImportedModel::with_weights_of_four_bits), which they follow from without
    /// calibration: what four bits cost is in the weights and not in the program, so that no more is allowed than for any other
    /// program.
    pub fn tolerance(&self) -> Tolerance {
        match self.quantization() {
            Some(Quantization::Products(_)) => Tolerance::QUANTIZED,
            Some(Quantization::Weights(_)) | None => Tolerance::of(&self.machine),
        }
    }

    /// Inputs whose value chose a branch when it was built, with that value.
    pub fn switches(&self) -> impl Iterator<Item = (&str, bool)> {
        let switches = self.message.reference.iter().flat_map(|reference| &reference.switches);
        switches.map(|switch| (switch.input.as_str(), switch.value))
    }

    /// The model that it was built from, found to be unchanged, and the options to import it with as it was then.
    ///
    /// # Errors
    /// It was built without weights, or the model is missing or changed.
    pub fn reference(&self) -> Result<(PathBuf, ImportOptions), ReadError> {
        let Some(reference) = &self.message.reference else { return Err(ReadError::NoWeights(self.folder.clone())) };
        let model = reference::check(&self.folder, reference)?;
        let options = ImportOptions {
            dims: reference.dims.iter().map(|dim| (dim.name.clone(), dim.extent as usize)).collect(),
            shapes: self.inputs.iter().map(|port| (port.name.clone(), port.ty.shape.to_vec())).collect(),
            switches: self.switches().map(|(name, value)| (name.to_owned(), value)).collect(),
            ..ImportOptions::default()
        };
        Ok((model, options))
    }
}

/// A program that was read back, with its weights.
pub struct LoadedProgram {
    program: Box<dyn Program>,
    weights: Arc<Mmap>,
}

impl LoadedProgram {
    /// The program itself.
    pub fn program(&self) -> &dyn Program {
        &*self.program
    }

    /// The weights that it was built with, as the machine reads them.
    pub fn weights(&self) -> &[u8] {
        &self.weights
    }

    /// Executes it on the simulator of its target.
    ///
    /// # Errors
    /// The inputs are not its own, or the machine stopped.
    pub fn simulate(&self, inputs: &[tcc_ir::Tensor]) -> Result<Simulation, TargetError> {
        self.program.simulate(&self.weights, inputs)
    }
}

/// Whether a file begins as `program.tcc` does.
pub(super) fn is_program(path: &Path) -> bool {
    // The key of field 1 with a length, then the length.
    let mut expected = vec![0x0a, MAGIC.len() as u8];
    expected.extend_from_slice(MAGIC.as_bytes());
    let mut start = vec![0; expected.len()];
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == expected
}

fn port(port: &PortProto) -> Result<Port, String> {
    let dtype: DType = port.dtype.parse().map_err(|error| format!("`{}`: {error}", port.name))?;
    let dims = port.dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
    let dims = dims.map_err(|error| format!("`{}`: {error}", port.name))?;
    let shape = Shape::new(dims).map_err(|error| format!("`{}`: {error}", port.name))?;
    Ok(Port { name: port.name.clone(), ty: TensorType::new(dtype, shape) })
}
