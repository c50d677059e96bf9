//! Stages between external memory and channels: one reads an input, one writes an output.

use tcc_ir::DType;

use crate::kernel::{Builder, Kernel};

/// A kernel that copies so many elements, with up to so many lanes, from its first parameter to its second.
pub(super) fn copy(name: &str, dtype: DType, elements: u64, most: u32) -> Kernel {
    let lanes = most.min(1 << elements.max(1).trailing_zeros().min(16));
    let mut builder = Builder::new("k", lanes);
    let from = builder.buffer(&format!("{name}_from"), dtype, elements, false);
    let to = builder.buffer(&format!("{name}_to"), dtype, elements, true);
    let (lane, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, lanes as i32);
    let index = builder.add(first, lane);
    let element = builder.load(from, index, "element");
    builder.store(to, index, element);
    builder.finish([(elements / u64::from(lanes)) as u32, 1, 1], vec![format!("copy of {name}")])
}
