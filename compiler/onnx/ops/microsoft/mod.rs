//! The operators of `com.microsoft` that exporters, fusers and quantisers emit.

pub(super) mod attention;
pub(super) mod fused;
pub(super) mod group_query_attention;
pub(super) mod lstm;
pub(super) mod normalization;
pub(super) mod qlinear;
pub(super) mod weight_only;
