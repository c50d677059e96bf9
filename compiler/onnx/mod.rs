//! The ONNX frontend: an exported model in, a tensor graph out.
//!
//! [`import`](import::import) reads a model, binds its free dimensions, and lowers its nodes in topological order. Each
//! operator of ONNX (and of `com.microsoft`) is lowered by one function in `ops/`, found through the [`registry`]; the
//! function sees its node through a [`NodeContext`](context::NodeContext), which folds constants as it goes.

mod budget;
pub mod context;
pub mod dims;
pub mod error;
pub mod external;
mod functions;
pub mod import;
mod importer;
pub(crate) mod mapped;
pub mod model;
mod ops;
mod opsets;
mod order;
pub mod registry;
mod store;
pub mod tensor;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod unsupported;
pub mod wire;
