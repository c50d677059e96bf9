//! `tcc`: from an exported ONNX model to a program for an accelerator, its cycles and its outputs.
//!
//! [`Compiler`] is the way through in a few calls; the steps can be called alone as well: [`onnx`] reads a model into a
//! graph, [`quantization`] brings its products to integers where that is wanted, a
//! [`Target`](tcc_targets::Target) makes a program of it, [`artifact`] puts it on disk and reads it back,
//! [`accuracy`] compares outputs. The command line is in the binary, behind the feature `cli`.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod accuracy;
pub mod artifact;
mod closest;
mod compiler;
mod hash;
pub mod inputs;
pub mod inspection;
pub mod onnx;
pub mod quantization;
mod staging;
pub mod target_name;
pub mod tensors;

pub use artifact::Artifact;
pub use compiler::{Build, Compiler, Error, ImportedModel, Model};
pub use staging::WriteError;
