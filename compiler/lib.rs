//! `tcc`: from an exported ONNX model to a program for an accelerator, its cycles and its outputs.

#![warn(missing_docs)]

pub mod onnx;
