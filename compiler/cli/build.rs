//! `tcc build`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tcc::artifact;
use tcc::inputs::Inputs;
use tcc::onnx::dims::{self, DimsError};
use tcc::onnx::error::ImportError;
use tcc::onnx::import::ImportOptions;
use tcc::onnx::model;
use tcc::onnx::tensor::Weights;
use tcc::quantization::Sample;
use tcc::{Compiler, ImportedModel, Model};
use tcc_targets::{Explanation, Optimization, Report};

use super::arguments::{BuildArguments, Format, QuantizationArguments, QuantizedType, Shapes};
use super::failure::{Exit, Failure};
use super::progress::Progress;
use super::{explanation, print, print_json, report_page};

/// Compiles a model and writes the build.
pub fn run(arguments: &BuildArguments) -> Result<Exit, Failure> {
    let progress = Progress::new();
    let compiler = Compiler::for_target(&arguments.target)?;
    // Before anything that takes time.
    artifact::write::check(&arguments.output)?;
    progress.stage("reading the model");
    let weights = if arguments.no_weights { Weights::Absent } else { Weights::Load };
    let model = import(&arguments.model, &arguments.shapes, weights)?;
    let samples = samples(&arguments.model, &model, &arguments.quantization)?;
    let model = quantized(compiler.with_model(model), &arguments.quantization, &samples, &progress)?;
    progress.stage("compiling");
    let optimization = if arguments.no_optimize { Optimization::None } else { Optimization::default() };
    let (build, explanation) = if arguments.explain {
        let (build, explanation) = model.compile_explained(optimization)?;
        (build, Some(explanation))
    } else {
        (model.compile_with(optimization)?, None)
    };
    progress.stage("writing the build");
    build.write(&arguments.output)?;
    drop(progress);
    let report = build.report();
    match arguments.format.format {
        Format::Text => {
            let mut page = report_page::page(&report);
            page.sections.extend(explanation.iter().flat_map(explanation::sections));
            print(&page.to_text())
        }
        Format::Json => print_json(&Explained { report: &report, explanation: explanation.as_ref() }),
    }
}

/// A report, and the explanation that was asked for beside it.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(flatten)]
    explanation: Option<&'a Explanation>,
}

/// The runs of a model to calibrate with.
pub fn samples(path: &Path, model: &ImportedModel, arguments: &QuantizationArguments) -> Result<Vec<Sample>, Failure> {
    if arguments.quantize == Some(QuantizedType::Int4) && !arguments.calibrate.is_empty() {
        return Err(Failure::usage(
            "--calibrate is of no use with --quantize int4: activations stay floats, and the scales of weights follow from the \
             weights; leave it out",
        ));
    }
    let read = |file: &PathBuf| Ok(Sample::read(path, model, file)?);
    arguments.calibrate.iter().map(read).collect()
}

/// The model as it is to be compiled.
pub fn quantized(
    model: Model,
    arguments: &QuantizationArguments,
    samples: &[Sample],
    progress: &Progress,
) -> Result<Model, Failure> {
    match arguments.quantize {
        None => Ok(model),
        Some(QuantizedType::Int8) => {
            progress.stage(if samples.is_empty() { "quantising" } else { "calibrating" });
            Ok(model.quantize(samples)?)
        }
        Some(QuantizedType::Int4) => {
            progress.stage("quantising");
            Ok(model.quantize_weights()?)
        }
    }
}

/// Imports a model with the dimensions that the command line gives.
pub fn import(path: &Path, shapes: &Shapes, weights: Weights) -> Result<ImportedModel, Failure> {
    let mut options = ImportOptions { weights, dims: dims_of(&shapes.dims)?, ..ImportOptions::default() };
    if let Some(inputs) = &shapes.shapes_from {
        bind(path, &Inputs::read(inputs)?, &mut options)?;
        return import_bound(path, inputs, &options);
    }
    Ok(ImportedModel::import(path, &options)?)
}

/// Imports a model with shapes that are those of a file of inputs, which is named if they do not fit.
pub fn import_bound(path: &Path, inputs: &Path, options: &ImportOptions) -> Result<ImportedModel, Failure> {
    ImportedModel::import(path, options).map_err(|error| match error {
        ImportError::Dims(error @ (DimsError::UnknownInput { .. } | DimsError::Mismatch { .. })) => {
            Failure::usage(format!("{}: {error}", inputs.display()))
        }
        error => error.into(),
    })
}

/// The dimensions that were given, each once.
pub fn dims_of(dims: &[(String, usize)]) -> Result<std::collections::BTreeMap<String, usize>, Failure> {
    let mut bound = std::collections::BTreeMap::new();
    for (name, extent) in dims {
        if let Some(first) = bound.insert(name.clone(), *extent)
            && first != *extent
        {
            return Err(Failure::usage(format!("--dim gives `{name}` both {first} and {extent}; give it one number")));
        }
    }
    Ok(bound)
}

/// Binds shapes, and truth values that branches may be chosen by, to those in a file of inputs.
pub fn bind(path: &Path, inputs: &Inputs, options: &mut ImportOptions) -> Result<(), Failure> {
    // Without names, the order of the model's inputs says which is which.
    let declared = if inputs.is_ordered() { dims::declared_inputs(&model::load(path)?)? } else { Vec::new() };
    let names = || declared.iter().map(|input| input.name.as_str());
    options.shapes = inputs.shapes(names());
    options.switches = inputs.switches(names());
    Ok(())
}
