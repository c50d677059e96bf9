//! The operators of `com.microsoft` that exporters, fusers and quantisers emit, one file per family.

use crate::onnx::registry::Entry;

macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(mod $family;)*

        /// Every family of this domain.
        pub(super) const FAMILIES: &[&[Entry]] = &[$($family::FAMILY,)*];
    };
}

families! {
    attention,
    fused,
    group_query_attention,
    lstm,
    normalization,
    qlinear,
    weight_only,
}
