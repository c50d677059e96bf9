//! Binding of free dimensions: after import every shape is a number.
//!
//! Exporters name the dimensions that they leave open. A dimension gets its number by name (`--dim batch=1`), or from the
//! shape that is given for an input; a dimension without a name can be addressed as `INPUT:AXIS`. A name that is a sum or
//! product of others (`past + 1`) follows from them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use onnx_protobuf::tensor_shape_proto::dimension::Value as DimValue;
use onnx_protobuf::type_proto::Value as TypeValue;
use onnx_protobuf::{GraphProto, ModelProto, ValueInfoProto};
use tcc_ir::{DType, Shape, ShapeError, TensorType};

use super::error::{ImportError, list, shown};
use super::tensor::{self, WeightProblem};
use crate::closest::closest;

/// An input of a model as its file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredInput {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents; `None` if not even their number is declared.
    pub dims: Option<Vec<DeclaredDim>>,
}

/// One extent of a declared input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclaredDim {
    /// A number.
    Known(usize),
    /// A name that must be bound. Dimensions without a name are called `INPUT:AXIS`.
    Free(String),
}

/// Why the dimensions of a model cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DimsError {
    /// Dimensions have no number yet.
    #[error("{}", unbound(.0))]
    Unbound(Vec<Unbound>),
    /// A dimension is bound by a name that the model does not have.
    #[error("the model has no free dimension `{name}`; {}", has(.name, "free dimensions", .known))]
    UnknownDim {
        /// The name.
        name: String,
        /// Names that the model has.
        known: Vec<String>,
    },
    /// A shape is given for an input that the model does not have.
    #[error("the model has no input `{name}`; {}", has(.name, "inputs", .known))]
    UnknownInput {
        /// The name.
        name: String,
        /// Names that the model has.
        known: Vec<String>,
    },
    /// A dimension gets two numbers.
    #[error("dimension `{name}` is {first} according to {first_source}, but {second} according to {second_source}")]
    Conflict {
        /// The dimension.
        name: String,
        /// First number.
        first: usize,
        /// Where it comes from.
        first_source: String,
        /// Second number.
        second: usize,
        /// Where it comes from.
        second_source: String,
    },
    /// A given shape contradicts what the model declares.
    #[error("input `{input}` is declared as [{declared}], which the given shape {given:?} does not fit")]
    Mismatch {
        /// The input.
        input: String,
        /// What is declared, in ONNX's words.
        declared: String,
        /// What was given.
        given: Vec<usize>,
    },
    /// An input becomes too large.
    #[error("input `{input}`: {error}")]
    Shape {
        /// The input.
        input: String,
        /// What is wrong.
        error: ShapeError,
    },
}

/// A dimension, or a whole shape, that still needs numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbound {
    /// Name of the dimension; `None` for an input whose number of dimensions is not declared.
    pub name: Option<String>,
    /// Inputs that use it.
    pub inputs: Vec<String>,
}

fn unbound(missing: &[Unbound]) -> String {
    let mut parts = Vec::new();
    let mut flags = BTreeSet::new();
    let mut shapes = false;
    for one in missing {
        match &one.name {
            Some(name) => {
                parts.push(format!("dimension `{name}` (of {})", list(&one.inputs)));
                // An expression follows from the names in it.
                let is_expression = evaluate(name, &|_| Some(1)).is_some();
                let names = if is_expression { tokens(name) } else { vec![name.as_str()] };
                let is_name = |name: &&str| !"+-*()".contains(*name) && name.parse::<i64>().is_err();
                let quote = |name: &str| if name.contains(char::is_whitespace) { "'" } else { "" };
                flags
                    .extend(names.into_iter().filter(is_name).map(|name| format!("--dim {0}{name}=N{0}", quote(name))));
            }
            None => {
                parts.push(format!("the shape of {}", list(&one.inputs)));
                shapes = true;
            }
        }
    }
    let flags = flags.into_iter().collect::<Vec<_>>().join(" ");
    let advice = match (flags.is_empty(), shapes) {
        (true, _) => "pass --shapes-from with a file of inputs".to_owned(),
        (false, false) => format!("pass {flags}, or --shapes-from with a file of inputs"),
        (false, true) => format!("pass --shapes-from with a file of inputs, and {flags} for what is not in it"),
    };
    format!("the model leaves open {}; {advice}", parts.join(", "))
}

fn has(wanted: &str, what: &str, names: &[String]) -> String {
    match closest(wanted, names.iter().map(String::as_str)) {
        Some(close) => format!("did you mean `{close}`?"),
        None if names.is_empty() => format!("it has no {what}"),
        None => format!("its {what} are {}", list(names)),
    }
}

/// The inputs that a model declares. Those that are initializers too are constants, and left out.
pub fn declared_inputs(model: &ModelProto) -> Result<Vec<DeclaredInput>, ImportError> {
    let graph = model.graph.get_or_default();
    let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    graph.input.iter().filter(|input| !constants.contains(input.name.as_str())).map(declared).collect()
}

fn declared(input: &ValueInfoProto) -> Result<DeclaredInput, ImportError> {
    let unsupported = |what: &str| ImportError::Input {
        name: shown(&input.name),
        problem: WeightProblem::Unsupported(what.to_owned()),
    };
    let ty = match input.type_.as_ref().and_then(|ty| ty.value.as_ref()) {
        Some(TypeValue::TensorType(ty)) => ty,
        Some(TypeValue::SequenceType(_)) => return Err(unsupported("sequence")),
        Some(TypeValue::MapType(_)) => return Err(unsupported("map")),
        Some(TypeValue::OptionalType(_)) => return Err(unsupported("optional")),
        Some(TypeValue::SparseTensorType(_)) => return Err(unsupported("sparse")),
        _ => return Err(unsupported("undeclared")),
    };
    let dtype =
        tensor::dtype(ty.elem_type).map_err(|problem| ImportError::Input { name: shown(&input.name), problem })?;
    let dims = ty.shape.as_ref().map(|shape| {
        let dim = |(axis, dim): (usize, &onnx_protobuf::tensor_shape_proto::Dimension)| match &dim.value {
            Some(DimValue::DimValue(extent)) if *extent >= 0 => DeclaredDim::Known(*extent as usize),
            Some(DimValue::DimParam(name)) if !name.is_empty() => DeclaredDim::Free(name.clone()),
            _ => DeclaredDim::Free(format!("{}:{axis}", input.name)),
        };
        shape.dim.iter().enumerate().map(dim).collect()
    });
    Ok(DeclaredInput { name: input.name.clone(), dtype, dims })
}

/// The types of all declared inputs, once their free dimensions have the numbers in `dims` (by name) and `shapes` (by
/// input).
pub fn bind(
    declared: &[DeclaredInput],
    dims: &BTreeMap<String, usize>,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<Vec<TensorType>, DimsError> {
    for name in shapes.keys() {
        if !declared.iter().any(|input| &input.name == name) {
            let known = declared.iter().map(|input| input.name.clone()).collect();
            return Err(DimsError::UnknownInput { name: name.clone(), known });
        }
    }
    let uses = uses(declared);
    if let Some(name) = dims.keys().find(|name| !uses.contains_key(name.as_str()) && !is_part(name, &uses)) {
        let known = uses.keys().map(|&name| shown(name)).collect();
        return Err(DimsError::UnknownDim { name: name.clone(), known });
    }
    let mut bound: BTreeMap<&str, (usize, String)> =
        dims.iter().map(|(name, &extent)| (name.as_str(), (extent, "--dim".to_owned()))).collect();
    for input in declared {
        let (Some(given), Some(dims)) = (shapes.get(&input.name), &input.dims) else { continue };
        let fits = |(dim, &extent): (&DeclaredDim, &usize)| match dim {
            DeclaredDim::Known(known) => *known == extent,
            DeclaredDim::Free(_) => true,
        };
        if given.len() != dims.len() || !dims.iter().zip(given).all(fits) {
            let declared = dims.iter().map(DeclaredDim::to_string).collect::<Vec<_>>().join(",");
            return Err(DimsError::Mismatch { input: shown(&input.name), declared, given: given.clone() });
        }
        for (dim, &extent) in dims.iter().zip(given) {
            let DeclaredDim::Free(name) = dim else { continue };
            let source = format!("the shape of input `{}`", shown(&input.name));
            match bound.get(name.as_str()) {
                Some((first, first_source)) if *first != extent => {
                    return Err(DimsError::Conflict {
                        name: shown(name),
                        first: *first,
                        first_source: first_source.clone(),
                        second: extent,
                        second_source: source,
                    });
                }
                Some(_) => {}
                None => drop(bound.insert(name, (extent, source))),
            }
        }
    }
    // Names that are expressions follow from the others.
    let value = |name: &str| bound.get(name).map(|&(extent, _)| extent);
    let resolve = |name: &str| value(name).or_else(|| evaluate(name, &value));
    let mut missing: Vec<Unbound> = uses
        .iter()
        .filter(|(name, _)| resolve(name).is_none())
        .filter(|(_, inputs)| inputs.iter().any(|input| !shapes.contains_key(*input)))
        .map(|(name, inputs)| Unbound {
            name: Some(shown(name)),
            inputs: inputs.iter().map(|name| shown(name)).collect(),
        })
        .collect();
    missing.extend(
        declared
            .iter()
            .filter(|input| input.dims.is_none() && !shapes.contains_key(&input.name))
            .map(|input| Unbound { name: None, inputs: vec![shown(&input.name)] }),
    );
    if !missing.is_empty() {
        return Err(DimsError::Unbound(missing));
    }
    declared
        .iter()
        .map(|input| {
            let extents: Vec<usize> = match (&input.dims, shapes.get(&input.name)) {
                (_, Some(given)) => given.clone(),
                (Some(dims), None) => dims
                    .iter()
                    .filter_map(|dim| match dim {
                        DeclaredDim::Known(extent) => Some(*extent),
                        DeclaredDim::Free(name) => resolve(name),
                    })
                    .collect(),
                (None, None) => Vec::new(),
            };
            let shape = Shape::new(extents).map_err(|error| DimsError::Shape { input: shown(&input.name), error })?;
            Ok(TensorType::new(input.dtype, shape))
        })
        .collect()
}

/// The free dimensions of some inputs, and who uses them.
fn uses(declared: &[DeclaredInput]) -> BTreeMap<&str, Vec<&str>> {
    let mut uses: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for input in declared {
        for dim in input.dims.iter().flatten() {
            if let DeclaredDim::Free(name) = dim {
                let users = uses.entry(name).or_default();
                if users.last() != Some(&input.name.as_str()) {
                    users.push(&input.name);
                }
            }
        }
    }
    uses
}

/// Whether a name occurs in a name that is an expression.
fn is_part(name: &str, uses: &BTreeMap<&str, Vec<&str>>) -> bool {
    uses.keys().any(|expression| tokens(expression).contains(&name))
}

fn tokens(expression: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if "+-*()".contains(first) {
            1
        } else {
            rest.find(|c: char| "+-*()".contains(c) || c.is_whitespace()).unwrap_or(rest.len())
        };
        tokens.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    tokens
}

/// The number that a sum, difference or product of numbers and known names is.
fn evaluate(expression: &str, value: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
    // A name longer than this is not an expression that a person or an exporter wrote.
    let tokens = tokens(expression);
    if tokens.len() < 2 || tokens.len() > 64 {
        return None;
    }
    let mut rest = &tokens[..];
    let result = sum(&mut rest, value)?;
    if rest.is_empty() { usize::try_from(result).ok() } else { None }
}

fn sum(rest: &mut &[&str], value: &impl Fn(&str) -> Option<usize>) -> Option<i64> {
    let mut total = product(rest, value)?;
    while let Some(&sign @ ("+" | "-")) = rest.first() {
        *rest = &rest[1..];
        let term = product(rest, value)?;
        total = if sign == "+" { total.checked_add(term)? } else { total.checked_sub(term)? };
    }
    Some(total)
}

fn product(rest: &mut &[&str], value: &impl Fn(&str) -> Option<usize>) -> Option<i64> {
    let mut total = atom(rest, value)?;
    while rest.first() == Some(&"*") {
        *rest = &rest[1..];
        total = total.checked_mul(atom(rest, value)?)?;
    }
    Some(total)
}

fn atom(rest: &mut &[&str], value: &impl Fn(&str) -> Option<usize>) -> Option<i64> {
    let (&first, tail) = rest.split_first()?;
    *rest = tail;
    if first == "(" {
        let inner = sum(rest, value)?;
        *rest = rest.strip_prefix(&[")"])?;
        return Some(inner);
    }
    match first.parse() {
        Ok(number) => Some(number),
        Err(_) => value(first).and_then(|extent| i64::try_from(extent).ok()),
    }
}

impl std::fmt::Display for DeclaredDim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeclaredDim::Known(extent) => write!(f, "{extent}"),
            DeclaredDim::Free(name) => f.write_str(&shown(name)),
        }
    }
}

/// The declared type of an output of a body, if all of it is known.
pub(crate) fn static_type(body: &GraphProto, output: usize) -> Option<TensorType> {
    let declared = declared(body.output.get(output)?).ok()?;
    let dims = declared.dims?.into_iter().map(|dim| match dim {
        DeclaredDim::Known(extent) => Some(extent),
        DeclaredDim::Free(_) => None,
    });
    Some(TensorType::new(declared.dtype, Shape::new(dims.collect::<Option<Vec<_>>>()?).ok()?))
}
