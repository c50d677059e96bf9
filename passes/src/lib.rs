//! Passes from a model's graph to a plan of kernels: clean-up, quantisation, legalisation for a target, fusion.

#![forbid(unsafe_code)]

mod assemble;
mod blocks;
mod cleanup;
mod cost;
pub mod egraph;
mod explain;
pub mod extract;
mod fuse;
mod integer_products;
mod kernels;
mod legalize;
mod optimize;
mod outline;
mod quantize;
pub mod rules;

pub use assemble::{AssembleError, Group, anchor_of, assemble, assemble_with_copies, derived_constants};
pub use blocks::{Block, Rolled, Segment, roll};
pub use cleanup::clean_up;
pub use cost::CostModel;
pub use explain::{KernelExplanation, Rewriting, RuleUse, Step, Symbol};
pub use fuse::{FusionLimits, fuse};
pub use integer_products::integer_products;
pub use legalize::{Rewrite, Verdict, legalize, legalize_groups};
pub use optimize::{
    BlockReport, Extraction, OptimizeError, Optimized, Place, optimize, optimize_explained, stop_reason,
};
pub use outline::{BlockOutline, KernelOutline, Outline, Places};
pub use quantize::{
    FewBits, Quantized, Quantizer, Ranges, Scope, WeightProducts, float_products, with_weights_of_four_bits,
};
