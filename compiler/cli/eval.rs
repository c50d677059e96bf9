//! `tcc eval`.

use tcc::inputs::{self, Inputs};
use tcc::onnx::import::ImportOptions;
use tcc::onnx::{dims, model};
use tcc::tensors::{NamedTensor, NpzFile};
use tcc_ir::{Graph, Tensor};

use super::arguments::EvalArguments;
use super::failure::{Exit, Failure};
use super::progress::Progress;
use super::{build, outputs, print};

/// Evaluates a model.
pub fn run(arguments: &EvalArguments) -> Result<Exit, Failure> {
    let progress = Progress::new();
    let output = arguments.data.output.as_deref().map(NpzFile::create).transpose()?;
    let inputs = Inputs::read(&arguments.data.input)?;
    progress.stage("reading the model");
    let mut options = ImportOptions { dims: build::dims_of(&arguments.dims)?, ..ImportOptions::default() };
    build::bind(&arguments.model, &inputs, &mut options)?;
    let model = match build::import_bound(&arguments.model, &arguments.data.input, &options) {
        Ok(model) => model,
        // An input may decide a shape. Here all are known; if that does not help, the first message is the one to read.
        Err(failure) => {
            let declared = dims::declared_inputs(&model::load(&arguments.model)?)?;
            options.constants = inputs.by_name(declared.iter().map(|input| input.name.as_str()));
            build::import_bound(&arguments.model, &arguments.data.input, &options).map_err(|_| failure)?
        }
    };
    let tensors = inputs.arrange(&inputs::ports(model.graph()))?;
    let results = evaluate(model.graph(), &tensors, &progress)?;
    let names = model.graph().outputs().iter().map(|output| output.name.to_string());
    let results: Vec<NamedTensor> = names.zip(results).map(|(name, tensor)| NamedTensor { name, tensor }).collect();
    if let Some(file) = output {
        file.write(&results)?;
    }
    drop(progress);
    print(&outputs::page(&results)?.to_text())
}

/// Evaluates a graph and shows how far it is.
pub fn evaluate(graph: &Graph, inputs: &[Tensor], progress: &Progress) -> Result<Vec<Tensor>, Failure> {
    progress.steps("evaluating", graph.node_count());
    Ok(tcc_ir::evaluate_with(graph, inputs, |_, _| progress.step())?)
}
