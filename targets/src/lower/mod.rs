//! What kernels compute, whatever machine runs them: elements of values, pulled from the elements that they follow from.
//!
//! A target chooses the pieces of a plan that a kernel computes (`piece`) and how threads share the work; what each computes is
//! written here, in the kernel language ([`crate::kernel`]).

pub mod alone;
mod argument;
pub mod cost;
pub mod elements;
pub mod legal;
mod opening;
pub mod piece;
pub mod plan;
pub mod product;
pub mod quantized;
pub mod rows;
mod tilings;

pub(crate) use argument::{Argument, stored_type};
pub(crate) use opening::Opening;
pub(crate) use tilings::tilings;

use crate::kernel::{ExprId, Scalar};
use crate::target::TargetError;
use elements::Elements;

/// A kernel that is nearly done: how many blocks it takes, and how it is tiled.
pub(crate) type Written = ([u32; 3], String);

/// Has a thread for each of so many things do something by its number.
pub(crate) fn each<'a>(
    elements: &mut Elements<'a>,
    count: usize,
    work: impl FnOnce(&mut Elements<'a>, ExprId) -> Result<(), TargetError>,
) -> Result<Written, TargetError> {
    let threads = elements.builder.threads();
    let (thread, block) = (elements.builder.thread(), elements.builder.block(0));
    let first = elements.builder.scaled(block, threads as i32);
    let index = elements.builder.add(first, thread);
    let index = elements.builder.keep("index", Scalar::I32, index);
    let guarded = !count.is_multiple_of(threads as usize);
    if guarded {
        let inside = elements.builder.below(index, count as i32);
        elements.builder.when(inside);
        elements.open();
    }
    work(elements, index)?;
    if guarded {
        elements.close();
    }
    Ok(([count.div_ceil(threads as usize) as u32, 1, 1], format!("{count} elements, one for each thread")))
}
