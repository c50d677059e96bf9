//! Tensors for the inputs of a model or program: read from a file or folder, and matched by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tcc_ir::{DType, Graph, Tensor, TensorType};
use tcc_targets::Port;

use crate::closest::closest;
use crate::onnx::error::shown;
use crate::tensors::{self, TensorFileError};

/// Why inputs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file is not there.
    #[error("the input file {} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file cannot be read, or is not a file of tensors.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// An input is not in the file.
    #[error("{} has no array `{name}`, which the model needs as {ty}; {}", .path.display(), listed(.found))]
    MissingInput {
        /// The file.
        path: PathBuf,
        /// The input.
        name: String,
        /// Its type.
        ty: Box<TensorType>,
        /// What the file has.
        found: Vec<String>,
    },
    /// The file has an array that is not an input.
    #[error("{} has an array `{name}`, but the model has no such input; {}", .path.display(), suggestion(.name, .known))]
    UnknownInput {
        /// The file.
        path: PathBuf,
        /// The array.
        name: String,
        /// The inputs.
        known: Vec<String>,
    },
    /// An array has another shape or element type.
    #[error("input `{name}` must be {expected}, but {} has {actual}; {}", .path.display(), advice(.expected, .actual))]
    Type {
        /// The file.
        path: PathBuf,
        /// The input.
        name: String,
        /// What the model or program takes.
        expected: Box<TensorType>,
        /// What the file has.
        actual: Box<TensorType>,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "it is empty".to_owned() } else { format!("it has {}", quoted(names)) }
}

fn suggestion(name: &str, known: &[String]) -> String {
    match closest(name, known.iter().map(String::as_str)) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("its inputs are {}", quoted(known)),
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn advice(expected: &TensorType, actual: &TensorType) -> &'static str {
    match (expected.dtype == actual.dtype, expected.shape == actual.shape) {
        (false, true) => "convert the array, tcc does not cast inputs silently",
        (true, false) => "give an array of that shape, or build for the shape you have",
        _ => "give an array of that type and shape",
    }
}

/// Tensors read from one place.
#[derive(Clone, Debug)]
pub struct Inputs {
    path: PathBuf,
    tensors: Tensors,
}

#[derive(Clone, Debug)]
enum Tensors {
    Named(BTreeMap<String, Tensor>),
    /// In the order of the model's inputs, as ONNX's test cases have them.
    Ordered(Vec<Tensor>),
}

impl Inputs {
    /// Reads a file of tensors, or a folder of `input_0.pb`, `input_1.pb`, ….
    ///
    /// # Errors
    /// The file or folder is missing, or not what it should be.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        if !path.exists() {
            return Err(InputError::Missing(path.to_owned()));
        }
        let named = tensors::read(path)?;
        // The names in .pb files are not always those of the inputs, and .npy files have none.
        let tensors = if path.extension().is_some_and(|extension| extension == "npz") {
            Tensors::Named(named.into_iter().map(|named| (named.name, named.tensor)).collect())
        } else {
            Tensors::Ordered(named.into_iter().map(|named| named.tensor).collect())
        };
        Ok(Inputs { path: path.to_owned(), tensors })
    }

    /// Whether the tensors have no names but are in the order of the model's inputs.
    pub fn is_ordered(&self) -> bool {
        matches!(self.tensors, Tensors::Ordered(_))
    }

    /// The shapes of the tensors, by name of the input; `names` are the model's inputs in order.
    pub fn shapes<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Vec<usize>> {
        match &self.tensors {
            Tensors::Named(tensors) => {
                tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect()
            }
            Tensors::Ordered(tensors) => {
                let names = names.into_iter().map(str::to_owned);
                names.zip(tensors.iter().map(|tensor| tensor.shape().to_vec())).collect()
            }
        }
    }

    /// The tensors by name of the input; `names` are the model's inputs in order.
    pub fn by_name<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Tensor> {
        match &self.tensors {
            Tensors::Named(tensors) => tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect(),
            Tensors::Ordered(tensors) => names.into_iter().map(str::to_owned).zip(tensors.iter().cloned()).collect(),
        }
    }

    /// The values of inputs that are a single truth value, by name; `names` are the model's inputs in order.
    pub fn switches<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, bool> {
        let value = |tensor: &Tensor| match tensor.bytes() {
            Ok(&[byte]) if tensor.dtype() == DType::Bool => Some(byte != 0),
            _ => None,
        };
        match &self.tensors {
            Tensors::Named(tensors) => {
                tensors.iter().filter_map(|(name, tensor)| Some((name.clone(), value(tensor)?))).collect()
            }
            Tensors::Ordered(tensors) => {
                let named = names.into_iter().zip(tensors);
                named.filter_map(|(name, tensor)| Some((name.to_owned(), value(tensor)?))).collect()
            }
        }
    }

    /// The tensors in the order of `ports`, found to be of their types.
    ///
    /// # Errors
    /// One is missing, there is one too many, or one is of another type.
    pub fn arrange(&self, ports: &[Port]) -> Result<Vec<Tensor>, InputError> {
        let path = || self.path.clone();
        let unknown = |name: &str| InputError::UnknownInput {
            path: path(),
            name: shown(name),
            known: ports.iter().map(|port| shown(&port.name)).collect(),
        };
        match &self.tensors {
            // A misspelt name is both a name too many and one that is missing: the first says more.
            Tensors::Named(tensors) => {
                if let Some(name) = tensors.keys().find(|name| !ports.iter().any(|port| &port.name == *name)) {
                    return Err(unknown(name));
                }
            }
            Tensors::Ordered(tensors) if tensors.len() > ports.len() => {
                return Err(unknown(&format!("number {}", ports.len())));
            }
            Tensors::Ordered(_) => {}
        }
        let arranged = ports.iter().enumerate().map(|(index, port)| {
            let tensor = match &self.tensors {
                Tensors::Named(tensors) => tensors.get(&port.name),
                Tensors::Ordered(tensors) => tensors.get(index),
            };
            let tensor = tensor.ok_or_else(|| InputError::MissingInput {
                path: path(),
                name: shown(&port.name),
                ty: Box::new(port.ty.clone()),
                found: self.names(),
            })?;
            if tensor.ty() != &port.ty {
                return Err(InputError::Type {
                    path: path(),
                    name: shown(&port.name),
                    expected: Box::new(port.ty.clone()),
                    actual: Box::new(tensor.ty().clone()),
                });
            }
            Ok(tensor.clone())
        });
        arranged.collect()
    }

    fn names(&self) -> Vec<String> {
        match &self.tensors {
            Tensors::Named(tensors) => tensors.keys().map(|name| shown(name)).collect(),
            Tensors::Ordered(tensors) => (0..tensors.len()).map(|index| format!("number {index}")).collect(),
        }
    }
}

/// Names and types of a graph's inputs.
pub fn ports(graph: &Graph) -> Vec<Port> {
    let port = |&id| Port { name: graph.value(id).name.to_string(), ty: graph.ty(id).clone() };
    graph.inputs().iter().map(port).collect()
}
