//! The model that a program was built from, kept with it so that its outputs can be checked later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::format::{Dimension, ModelFile, Reference as ReferenceProto};
use super::{MODEL, ReadError};
use crate::hash;
use crate::onnx::external::ExternalFiles;
use crate::staging::{Staging, WriteError};

/// Files up to this size are copied into a build; larger ones are linked where the file system can.
const COPIED_BYTES: u64 = 64 << 20;

/// The name of the model itself in the folder of a build.
const MODEL_FILE: &str = "model.onnx";

/// Where a model's files are, and what its dimensions were bound to.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// The model file.
    pub model: PathBuf,
    /// Its external data, relative to the folder it is in.
    pub external: BTreeSet<String>,
    /// Dimensions that were given by name.
    pub dims: BTreeMap<String, usize>,
}

impl Reference {
    /// The files of the model at `path`. External data that tcc would not open (because it is missing, or outside the
    /// model's folder) is left out: a model that was imported does not use it.
    pub fn new(path: &Path, model: &ModelProto, dims: &BTreeMap<String, usize>) -> Self {
        let mut external = BTreeSet::new();
        if let Some(graph) = model.graph.as_ref() {
            in_graph(graph, &mut external);
        }
        for function in &model.functions {
            in_nodes(&function.node, &mut external);
            in_attributes(&function.attribute_proto, &mut external);
        }
        let mut files = ExternalFiles::next_to(path);
        external.retain(|location| files.open(location).is_ok());
        Reference { model: path.to_owned(), external, dims: dims.clone() }
    }

    /// Copies or links the files into a build.
    pub(super) fn write(&self, staging: &Staging) -> Result<ReferenceProto, WriteError> {
        let folder = crate::staging::parent_of(&self.model);
        let mut files = vec![keep(staging, &self.model, MODEL_FILE, true)?];
        for location in &self.external {
            files.push(keep(staging, &folder.join(location), location, false)?);
        }
        let dims = self.dims.iter().map(|(name, &extent)| Dimension { name: name.clone(), extent: extent as u64 });
        Ok(ReferenceProto { files, dims: dims.collect() })
    }
}

fn keep(staging: &Staging, source: &Path, relative: &str, hashed: bool) -> Result<ModelFile, WriteError> {
    let target = Path::new(MODEL).join(relative);
    let read = |error| WriteError { path: source.to_owned(), source: error };
    // Models in download caches are links; a link to a link would dangle once the cache is cleared.
    let source = source.canonicalize().map_err(read)?;
    let bytes = fs::metadata(&source).map_err(read)?.len();
    let path = staging.path(&target);
    let linked = bytes > COPIED_BYTES && {
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| staging.error(&target, error))?;
        fs::hard_link(&source, &path).is_ok()
    };
    if !linked {
        staging.write(&target, |file| io::copy(&mut fs::File::open(&source)?, file))?;
    }
    let hash = if hashed || !linked {
        Some(hash::of_file(&path).map_err(|error| staging.error(&target, error))?)
    } else {
        None
    };
    Ok(ModelFile { path: relative.to_owned(), bytes, hash })
}

/// The model in a build folder, once its files are found to be those of the build.
pub(super) fn check(folder: &Path, reference: &ReferenceProto) -> Result<PathBuf, ReadError> {
    for file in &reference.files {
        let path = folder.join(MODEL).join(plain(&file.path).ok_or_else(|| damaged(folder, &file.path))?);
        let read = |source| ReadError::Read { path: path.clone(), source };
        let bytes = fs::metadata(&path).map_err(read)?.len();
        let changed = bytes != file.bytes
            || file.hash.map(|hash| Ok(hash != hash::of_file(&path)?)).unwrap_or(Ok(false)).map_err(read)?;
        if changed {
            return Err(ReadError::ModelChanged(path));
        }
    }
    Ok(folder.join(MODEL).join(MODEL_FILE))
}

fn damaged(folder: &Path, path: &str) -> ReadError {
    ReadError::Damaged { path: folder.join(super::PROGRAM), reason: format!("`{path}` is not a path inside the build") }
}

/// A path without steps out of the folder it is relative to.
fn plain(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let is_plain =
        path.components().all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    (is_plain && path.components().next().is_some()).then_some(path)
}

fn in_graph(graph: &GraphProto, found: &mut BTreeSet<String>) {
    in_tensors(&graph.initializer, found);
    in_nodes(&graph.node, found);
}

fn in_nodes(nodes: &[NodeProto], found: &mut BTreeSet<String>) {
    nodes.iter().for_each(|node| in_attributes(&node.attribute, found));
}

// As deep as protobuf's own limit on nesting, which the file has passed.
fn in_attributes(attributes: &[AttributeProto], found: &mut BTreeSet<String>) {
    for attribute in attributes {
        in_tensors(attribute.t.as_ref().into_iter().chain(&attribute.tensors), found);
        attribute.g.as_ref().into_iter().chain(&attribute.graphs).for_each(|graph| in_graph(graph, found));
    }
}

fn in_tensors<'a>(tensors: impl IntoIterator<Item = &'a TensorProto>, found: &mut BTreeSet<String>) {
    for tensor in tensors {
        if tensor.data_location.enum_value() == Ok(DataLocation::EXTERNAL) {
            let locations = tensor.external_data.iter().filter(|entry| entry.key == "location");
            found.extend(locations.map(|entry| entry.value.clone()));
        }
    }
}
