//! Passes from a model's graph to a plan of kernels: clean-up, legalisation for a target, fusion.

#![forbid(unsafe_code)]

mod assemble;
mod cleanup;
mod fuse;
mod integer_products;
mod legalize;

pub use assemble::{AssembleError, Group, anchor_of, assemble, derived_constants};
pub use cleanup::clean_up;
pub use fuse::{FusionLimits, fuse};
pub use integer_products::integer_products;
pub use legalize::{Rewrite, Verdict, legalize};
