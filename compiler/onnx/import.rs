//! From a model file to a tensor graph: the entry of the frontend.
//!
//! The order of steps: read the file, move its tensors out, refuse what tcc does not have, bind free dimensions, lower the
//! nodes.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use onnx_protobuf::ModelProto;
use tcc_ir::{Graph, Tensor};

use super::dims;
use super::error::{ImportError, shown};
use super::external::ExternalFiles;
use super::functions::Functions;
use super::importer::Importer;
use super::model;
use super::opsets::Opsets;
use super::store::TensorStore;
use super::tensor::{WeightError, WeightProblem, Weights};
use super::unsupported::{Branches, Operators, Search};

/// What an import needs to know besides the model.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Extents of free dimensions, by name.
    pub dims: BTreeMap<String, usize>,
    /// Shapes of inputs, by name; not all inputs need one.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Values of inputs of one truth value, by name. A branch whose condition is such an input is chosen by it, and the
    /// graph is then only right for this value.
    pub switches: BTreeMap<String, bool>,
    /// Values of inputs that are taken as constants, by name: for models whose inputs decide shapes. The graph still has
    /// these inputs, but does not read them.
    pub constants: BTreeMap<String, Tensor>,
    /// Whether the values of weights are wanted.
    pub weights: Weights,
}

/// Imports the model in a file.
///
/// # Errors
/// Whatever is wrong with the file, the model or the options, in words for the person who has them.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Graph, ImportError> {
    import_model(model::load(path)?, ExternalFiles::next_to(path), options)
}

/// Imports a model that is in memory, and whose weights are all in it.
///
/// # Errors
/// As [`import`].
pub fn import_bytes(bytes: &[u8], options: &ImportOptions) -> Result<Graph, ImportError> {
    import_model(model::parse(bytes, "the model")?, ExternalFiles::none(), options)
}

/// Imports a parsed model, whose external data is in `files`. Its tensors are moved into the graph.
///
/// # Errors
/// As [`import`].
pub fn import_model(
    mut model: ModelProto,
    mut files: ExternalFiles,
    options: &ImportOptions,
) -> Result<Graph, ImportError> {
    let opsets = Opsets::new(&model.opset_import);
    opsets.check()?;
    let tensors = TensorStore::take(&mut model, &mut files, options.weights)?;
    let functions = Functions::new(&model);
    let operators = Operators::default();
    let Some(proto) = model.graph.as_ref() else { return Err(ImportError::NoGraph("the model".to_owned())) };

    let mut search = Search::new(&functions, &operators, Branches::Skip);
    search.nodes(&proto.node, 0);
    if !search.found.0.is_empty() {
        return Err(search.found.into());
    }
    if let Some(sparse) = proto.sparse_initializer.first() {
        let name = shown(&sparse.values.get_or_default().name);
        return Err(WeightError { name, problem: WeightProblem::Sparse }.into());
    }
    let mut names = HashSet::new();
    for tensor in &proto.initializer {
        if !names.insert(tensor.name.as_str()) {
            return Err(ImportError::Duplicate(shown(&tensor.name)));
        }
    }

    let declared = dims::declared_inputs(&model)?;
    let types = dims::bind(&declared, &options.dims, &options.shapes)?;
    let mut graph = Graph::new(proto.name.as_str());
    let mut importer = Importer::new(&functions, &operators, &tensors, opsets);
    importer.set_switches(&options.switches);
    for (input, ty) in declared.iter().zip(types) {
        if !names.insert(input.name.as_str()) {
            return Err(ImportError::Duplicate(shown(&input.name)));
        }
        let fixed = options.constants.get(&input.name).filter(|tensor| tensor.ty() == &ty);
        let mut value = graph.add_input(input.name.as_str(), ty);
        if let Some(tensor) = fixed {
            value = graph.add_constant(input.name.as_str(), tensor.clone());
        }
        importer.bind(&input.name, value);
    }
    importer.graph(&mut graph, proto)?;
    for output in &proto.output {
        let value = importer.lookup(&output.name).ok_or_else(|| ImportError::Output(shown(&output.name)))?;
        graph.add_output(output.name.as_str(), value);
    }
    Ok(graph)
}
