//! The compiler in a few calls.
//!
//! ```no_run
//! use std::path::Path;
//! use tcc::onnx::import::ImportOptions;
//!
//! let options = ImportOptions { dims: [("batch".to_owned(), 1)].into(), ..ImportOptions::default() };
//! let build = tcc::Compiler::for_target("systolic")?.import(Path::new("model.onnx"), &options)?.compile()?;
//! println!("{} cycles", build.report().cycles);
//! build.write(Path::new("out"))?;
//! # Ok::<(), tcc::Error>(())
//! ```

use std::path::Path;
use std::sync::Arc;

use tcc_ir::{Graph, GraphError};
use tcc_passes::{FewBits, Outline};
use tcc_targets::{Explanation, Machine, Optimization, Program, Report, Target, TargetError};

use crate::artifact::{self, BuildError, Contents, ReadError, Reference};
use crate::onnx::error::ImportError;
use crate::onnx::external::ExternalFiles;
use crate::onnx::import::{ImportOptions, import_model};
use crate::onnx::model;
use crate::onnx::tensor::Weights;
use crate::quantization::{self, Quantization, QuantizationError, QuantizedWeights, Sample};
use crate::target_name::{self, TargetNameError};

/// Whatever can go wrong between a model file and a build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target is not known.
    #[error(transparent)]
    TargetName(#[from] TargetNameError),
    /// The model cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The model cannot be quantised.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
    /// The model cannot be compiled for the target, or the program cannot be run.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The build cannot be written.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The build cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Compiles models for one machine.
#[derive(Clone)]
pub struct Compiler {
    target: Arc<dyn Target>,
}

impl Compiler {
    /// A compiler for what `--target` names: a kind of machine, a built-in machine, or a machine file.
    ///
    /// # Errors
    /// The target is not known.
    pub fn for_target(name: &str) -> Result<Self, Error> {
        Compiler::for_machine(target_name::resolve(name)?)
    }

    /// A compiler for a machine.
    ///
    /// # Errors
    /// Machines of its kind cannot be compiled for.
    pub fn for_machine(machine: Machine) -> Result<Self, Error> {
        Ok(Compiler::with_target(tcc_targets::target(machine)?))
    }

    /// A compiler for a target of the caller's own.
    pub fn with_target(target: Box<dyn Target>) -> Self {
        Compiler { target: Arc::from(target) }
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        self.target.machine()
    }

    /// Whether the machine multiplies floats as it multiplies integers. If not, a model with weights of floats must be
    /// [quantised](Model::quantize).
    pub fn multiplies_floats(&self) -> bool {
        self.target.multiplies_floats()
    }

    /// Imports the model at `path`.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn import(&self, path: &Path, options: &ImportOptions) -> Result<Model, Error> {
        Ok(self.with_model(ImportedModel::import(path, options)?))
    }

    /// Takes a model that was imported already, to compile it for several machines.
    pub fn with_model(&self, model: ImportedModel) -> Model {
        Model { target: self.target.clone(), imported: model, quantization: None }
    }
}

/// A model that was imported and cleaned up, and where it came from.
#[derive(Clone, Debug)]
pub struct ImportedModel {
    graph: Arc<Graph>,
    /// `None` for a model without the values of its weights.
    reference: Option<Reference>,
}

impl ImportedModel {
    /// Imports the model at `path`.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn import(path: &Path, options: &ImportOptions) -> Result<Self, ImportError> {
        let proto = model::load(path)?;
        let mut reference = match options.weights {
            Weights::Load => Some(Reference::new(path, &proto, &options.dims)),
            Weights::Absent => None,
        };
        let graph = tcc_passes::clean_up(&import_model(proto, ExternalFiles::next_to(path), options)?);
        if let Some(reference) = &mut reference {
            // An input that chose a branch is not used any more.
            let uses = graph.use_counts();
            let unused =
                |name: &str| graph.inputs().iter().any(|&id| *graph.value(id).name == *name && uses[id.index()] == 0);
            let chosen = options.switches.iter().filter(|(name, _)| unused(name));
            reference.switches = chosen.map(|(name, &value)| (name.clone(), value)).collect();
        }
        Ok(ImportedModel { graph: Arc::new(graph), reference })
    }

    /// The model's graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The model with the weights that [`Model::quantize_weights`] gives it.
    ///
    /// # Errors
    /// A defect of the quantisation.
    pub fn with_weights_of_four_bits(&self) -> Result<ImportedModel, QuantizationError> {
        Ok(self.with_quantized_weights()?.0)
    }

    fn with_quantized_weights(&self) -> Result<(ImportedModel, QuantizedWeights), GraphError> {
        let FewBits { graph, products, lookups, left } = tcc_passes::with_weights_of_four_bits(&self.graph)?;
        let quantized = ImportedModel { graph: Arc::new(graph), reference: self.reference.clone() };
        Ok((quantized, QuantizedWeights { products, lookups, left }))
    }
}

/// A model that is ready to be compiled for a machine.
pub struct Model {
    target: Arc<dyn Target>,
    imported: ImportedModel,
    quantization: Option<Quantization>,
}

impl Model {
    /// The model's graph.
    pub fn graph(&self) -> &Graph {
        self.imported.graph()
    }

    /// The model with its products in 8-bit integers: those of weights with activations, and on a machine that multiplies no
    /// floats those of two activations too. Weights have a scale for each channel. Activations have scales that serve all
    /// `samples`; without samples, or where rows differ much, scales of rows that are found at run time.
    ///
    /// # Errors
    /// See [`QuantizationError`].
    pub fn quantize(&self, samples: &[Sample]) -> Result<Model, Error> {
        let (graph, quantization) = quantization::quantize(self.graph(), self.target.multiplies_floats(), samples)?;
        let imported = ImportedModel { graph: Arc::new(graph), reference: self.imported.reference.clone() };
        Ok(Model { target: self.target.clone(), imported, quantization: Some(quantization) })
    }

    /// The model with its weights as signed 4-bit integers, with a scale for each block of what a product sums over. What is
    /// computed stays floats: see [`tcc_passes::with_weights_of_four_bits`].
    ///
    /// # Errors
    /// The machine multiplies no floats, or [`QuantizationError`] has it.
    pub fn quantize_weights(&self) -> Result<Model, Error> {
        if !self.target.multiplies_floats() {
            return Err(QuantizationError::NoFloats(self.target.machine().name.clone()).into());
        }
        let (imported, quantization) = self.imported.with_quantized_weights().map_err(QuantizationError::from)?;
        let quantization = Quantization::Weights(quantization);
        Ok(Model { target: self.target.clone(), imported, quantization: Some(quantization) })
    }

    /// Compiles it.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn compile(&self) -> Result<Build, Error> {
        self.compile_with(Optimization::default())
    }

    /// Compiles it with the optimiser trying as hard as it is told to.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn compile_with(&self, optimization: Optimization) -> Result<Build, Error> {
        self.build(self.target.compile(self.graph(), optimization)?)
    }

    /// [`Model::compile_with`] with the same build, and why its kernels are what they are. Takes more time.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn compile_explained(&self, optimization: Optimization) -> Result<(Build, Explanation), Error> {
        let (program, explanation) = self.target.compile_explained(self.graph(), optimization)?;
        Ok((self.build(program)?, explanation))
    }

    /// The kernels that the model becomes, before it is known how they are scheduled.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn outline(&self, optimization: Optimization) -> Result<Outline, Error> {
        Ok(self.target.outline(self.graph(), optimization)?)
    }

    fn build(&self, program: Box<dyn Program>) -> Result<Build, Error> {
        let mut notes: Vec<String> = self.quantization.iter().map(Quantization::note).collect();
        if !self.target.multiplies_floats()
            && let Some((count, first)) = quantization::left_in_floats(self.graph()).map_err(TargetError::from)?
        {
            notes.push(match count {
                1 => format!("the product of `{first}` is of floats, and runs outside the array, which multiplies integers"),
                _ => format!(
                    "{count} products are of floats, that of `{first}` first, and run outside the array, which multiplies integers"
                ),
            });
        }
        let reference = self.imported.reference.clone();
        Ok(Build { target: self.target.clone(), program, reference, quantization: self.quantization, notes })
    }
}

/// A compiled model.
pub struct Build {
    target: Arc<dyn Target>,
    program: Box<dyn Program>,
    reference: Option<Reference>,
    quantization: Option<Quantization>,
    /// What the report says beside what the program knows.
    notes: Vec<String>,
}

impl Build {
    /// The program.
    pub fn program(&self) -> &dyn Program {
        &*self.program
    }

    /// Its cycles and all that is known of it.
    pub fn report(&self) -> Report {
        let mut report = self.program.report();
        report.notes.extend(self.notes.iter().cloned());
        report
    }

    /// How the model was quantised, if it was.
    pub fn quantization(&self) -> Option<Quantization> {
        self.quantization
    }

    /// Writes it to a folder, whole or not at all. An earlier build there is replaced.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let contents = Contents {
            program: &*self.program,
            report: &self.report(),
            machine: self.target.machine(),
            reference: self.reference.as_ref(),
            quantization: self.quantization,
        };
        Ok(artifact::write(folder, &contents)?)
    }
}
