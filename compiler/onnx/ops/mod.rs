//! Lowerings of ONNX operators, one file per family. A family is a list of entries; its line here makes it known.

use super::registry::Entry;

mod spatial;
mod tables;

mod activation;
mod cast;
mod constant;
mod contraction;
mod control;
mod convolution;
mod einsum;
mod elementwise;
mod indexing;
mod movement;
mod normalisation;
mod pooling;
mod recurrent;
mod reduction;
mod resize;

/// Every family.
pub(crate) const FAMILIES: &[&[Entry]] = &[
    activation::FAMILY,
    cast::FAMILY,
    constant::FAMILY,
    contraction::FAMILY,
    control::FAMILY,
    convolution::FAMILY,
    einsum::FAMILY,
    elementwise::FAMILY,
    indexing::FAMILY,
    movement::FAMILY,
    normalisation::FAMILY,
    pooling::FAMILY,
    recurrent::FAMILY,
    reduction::FAMILY,
    resize::FAMILY,
];
