//! Lowerings of ONNX operators, one file per family. A family is a list of entries; its line here makes it known.

use super::registry::Entry;

mod microsoft;
mod spatial;
mod tables;

macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(mod $family;)*

        /// Every family.
        pub(crate) const FAMILIES: &[&[&[Entry]]] = &[&[$($family::FAMILY,)*], microsoft::FAMILIES];
    };
}

families! {
    activation,
    attention,
    cast,
    constant,
    contraction,
    control,
    convolution,
    einsum,
    elementwise,
    indexing,
    movement,
    normalisation,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
}
