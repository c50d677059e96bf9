//! `tcc`: from an exported ONNX model to a program for an accelerator, its cycles and its outputs.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod onnx;
pub mod tensors;
