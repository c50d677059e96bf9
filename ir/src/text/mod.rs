//! The textual form of a graph: what people read, snapshot tests hold, and test inputs are written in.
//!
//! ```text
//! // A comment runs to the end of the line; so does one that starts with a semicolon.
//! graph "small" {
//!   input %0 "x": f32[2,3]
//!   const %1 "weight": f32[3,4] = absent
//!   const %2: f32[4] = [0.5, -0.0, inf, 1e-7]
//!   %3 "product": f32[2,4] = mat_mul(%0, %1) from "layer.0/MatMul"
//!   %4: f32[2,4] = add(%3, %2) from "layer.0/Add"
//!   %5: f32[2,1], %6: i64[2,1] = top_k[axis=1, k=1, largest=true, sorted=true](%4)
//!   output "best" = %5
//! }
//! ```
//!
//! There is one line for each definition, in order of definition, and then one for each output. Values are numbered in
//! that order when printed; a text to be parsed may number them as it likes, but defines each before its uses. After
//! the number comes the name in the user's model, left out where it is the usual one: nothing for inputs and constants,
//! the node's origin for its results. Attributes are written as `key=JSON`, strings everywhere as in JSON.
//!
//! A constant is a list of all its elements in row-major order, a single element if it is a scalar, or one of
//! - `splat V`: all elements are V;
//! - `hex "00ff"`: the bytes as they are stored, little-endian;
//! - `seeded N` (only read): random elements, see [`parse`];
//! - `absent`: the elements were not loaded;
//! - `elided BYTES HASH`: the elements were loaded but not printed; read as absent. The hash is that of the first and
//!   the last 4096 bytes.
//!
//! NaNs other than the usual one of their type are written with their bits, `nan:0x7fc00001`.

mod literal;
mod parse;
mod print;

pub use parse::{ParseError, parse};
pub use print::{Constants, PrintOptions, print};

#[cfg(test)]
mod tests;
