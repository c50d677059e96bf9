//! Quantisation of a model's products to 8-bit integers, or of its weights to 4-bit integers, and what is told of it.

use std::path::Path;

use tcc_ir::{EvalError, Graph, GraphError, Tensor};
use tcc_passes::{Quantizer, Scope};

use crate::compiler::ImportedModel;
use crate::inputs::{InputError, Inputs, ports};
use crate::onnx::dims;
use crate::onnx::error::ImportError;
use crate::onnx::import::ImportOptions;
use crate::onnx::model;

/// Why a model cannot be quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantizationError {
    /// An input to calibrate with cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The model cannot be imported with the shapes of an input to calibrate with.
    #[error("{file}, to calibrate with: {error}")]
    Import {
        /// The file.
        file: String,
        /// What is wrong.
        error: ImportError,
    },
    /// The model computes other products with an input to calibrate with than it is built with.
    #[error(
        "{0}, to calibrate with, makes the model compute other products than it is built with: its shapes or truth values \
         choose another branch; leave it out, or build with --shapes-from this file"
    )]
    OtherProducts(String),
    /// The model cannot be evaluated.
    #[error("the model cannot be evaluated with {file}, to calibrate with: {error}")]
    Evaluation {
        /// The file.
        file: String,
        /// What is wrong.
        error: EvalError,
    },
    /// Weights of four bits are multiplied as floats, which the machine does not.
    #[error(
        "the array of {0} multiplies only 8-bit integers, and weights quantised with --quantize int4 are multiplied as floats; \
         build with --quantize int8"
    )]
    NoFloats(String),
    /// A product cannot be written in integers.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// A run of a model that calibration looks at.
#[derive(Clone, Debug)]
pub struct Sample {
    name: String,
    model: ImportedModel,
    inputs: Vec<Tensor>,
}

impl Sample {
    /// A run of `model` with tensors in the order of its inputs; `name` stands for them in messages.
    pub fn new(name: impl Into<String>, model: ImportedModel, inputs: Vec<Tensor>) -> Self {
        Sample { name: name.into(), model, inputs }
    }

    /// The run of a model with the inputs in a file. The model, at `path`, is imported anew where the file has other shapes than
    /// `model` was imported with, or truth values that may choose a branch.
    ///
    /// # Errors
    /// The file cannot be read, or has not the inputs of the model.
    pub fn read(path: &Path, model: &ImportedModel, file: &Path) -> Result<Self, QuantizationError> {
        let name = file.display().to_string();
        let inputs = Inputs::read(file)?;
        let in_file = |error| QuantizationError::Import { file: name.clone(), error };
        let declared = match inputs.is_ordered() {
            true => dims::declared_inputs(&model::load(path).map_err(in_file)?).map_err(in_file)?,
            false => Vec::new(),
        };
        let names = || declared.iter().map(|input| input.name.as_str());
        let switches = inputs.switches(names());
        match inputs.arrange(&ports(model.graph())) {
            Ok(tensors) if switches.is_empty() => return Ok(Sample::new(name, model.clone(), tensors)),
            Ok(_) => {}
            Err(InputError::Type { expected, actual, .. }) if expected.dtype == actual.dtype => {}
            Err(error) => return Err(error.into()),
        }
        let options = ImportOptions { shapes: inputs.shapes(names()), switches, ..ImportOptions::default() };
        let model = ImportedModel::import(path, &options).map_err(in_file)?;
        let tensors = inputs.arrange(&ports(model.graph()))?;
        Ok(Sample::new(name, model, tensors))
    }
}

/// How a model was quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// Its products became products of 8-bit integers.
    Products(QuantizedProducts),
    /// Its weights became 4-bit integers, and its products are those of floats.
    Weights(QuantizedWeights),
}

impl Quantization {
    /// What the report says of it.
    pub fn note(&self) -> String {
        match self {
            Quantization::Products(products) => products.note(),
            Quantization::Weights(weights) => weights.note(),
        }
    }
}

/// Products that were quantised to 8-bit integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantizedProducts {
    /// Products of 8-bit integers that were of floats.
    pub products: usize,
    /// Their activations that have one scale for the whole tensor, from calibration.
    pub calibrated: usize,
    /// Their activations that have a scale for each row, found at run time.
    pub dynamic: usize,
    /// How many inputs calibration looked at.
    pub samples: usize,
}

/// `1 product`, `2 products`.
fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl QuantizedProducts {
    fn note(&self) -> String {
        let QuantizedProducts { products, calibrated, dynamic, samples } = *self;
        if products == 0 {
            return "--quantize int8 changed nothing: the machine multiplies all products as they are".to_owned();
        }
        let activations = match (samples, dynamic) {
            (0, _) => "those of activations are found at run time, for each row".to_owned(),
            (_, 0) => format!("those of activations come from {}", count(samples, "calibration input")),
            _ => format!(
                "those of {} come from {}, and {} differ so much from row to row that theirs are found at run time",
                count(calibrated, "activation"),
                count(samples, "calibration input"),
                count(dynamic, "activation"),
            ),
        };
        format!(
            "quantised with --quantize int8: {} of floats multiply 8-bit integers; weights have a scale for each channel, and \
             {activations}",
            count(products, "product")
        )
    }
}

/// Weights that were quantised to 4-bit integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantizedWeights {
    /// Products that multiply such weights.
    pub products: usize,
    /// Look-ups in tables that such a product multiplies with.
    pub lookups: usize,
    /// Contractions whose weights stayed floats.
    pub left: usize,
}

impl QuantizedWeights {
    fn note(&self) -> String {
        let QuantizedWeights { products, lookups, left } = *self;
        let left = match left {
            0 => String::new(),
            left => format!("; {} with weights multiply floats as before", count(left, "contraction")),
        };
        if products == 0 {
            return format!(
                "--quantize int4 changed nothing: no product has weights of floats that are large enough{left}"
            );
        }
        let lookups = match lookups {
            0 => String::new(),
            lookups => format!(", and {} in their tables read the same", count(lookups, "look-up")),
        };
        format!(
            "quantised with --quantize int4: the weights of {} are 4-bit integers with a scale for each block of 32 or 16 of what \
             is summed over{lookups}{left}",
            count(products, "product")
        )
    }
}

/// Quantises a graph's products; those of two activations only where a machine multiplies no floats.
pub(crate) fn quantize(
    graph: &Graph,
    multiplies_floats: bool,
    samples: &[Sample],
) -> Result<(Graph, Quantization), QuantizationError> {
    let scope = if multiplies_floats { Scope::Weights } else { Scope::All };
    let quantizer = Quantizer::new(graph, scope)?;
    let mut ranges = quantizer.unseen();
    for Sample { name, model, inputs } in samples {
        let evaluation = |error| QuantizationError::Evaluation { file: name.clone(), error };
        let seen = Quantizer::new(model.graph(), scope)?.ranges(inputs).map_err(evaluation)?;
        if !ranges.merge(seen) {
            return Err(QuantizationError::OtherProducts(name.clone()));
        }
    }
    let quantized = quantizer.quantize(&ranges)?;
    let quantization = Quantization::Products(QuantizedProducts {
        products: quantizer.products(),
        calibrated: quantized.calibrated,
        dynamic: quantized.dynamic,
        samples: ranges.samples(),
    });
    Ok((quantized.graph, quantization))
}

/// How many products of floats are left that a machine which multiplies none computes elsewhere, and where the first is.
pub(crate) fn left_in_floats(graph: &Graph) -> Result<Option<(usize, String)>, GraphError> {
    let left = tcc_passes::float_products(graph)?;
    Ok(left.first().map(|first| (left.len(), first.to_string())))
}
