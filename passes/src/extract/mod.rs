//! Extraction: which kernels to run, so that everything demanded is computed at the least cost.
//!
//! A [`Problem`] knows nothing of e-graphs: values, and choices that give some of them from others at a cost. A kernel
//! gives several values and is paid once; a view gives a value from another for nothing. [`greedy`] finds a solution
//! quickly; [`exact`] starts from it and proves how far from the best it can be.
//!
//! A solution is a sequence of choices. Both searches build it from its end: the state is the set of values that are still
//! demanded, and a choice that gives some of them takes these out and puts its own operands in. A value that is needed
//! before and after can thus never be taken from a choice that comes later, so that no solution depends on itself, even
//! where the choices do.

mod bits;
mod exact;
mod greedy;
mod problem;

pub use exact::{Certificate, exact};
pub use greedy::greedy;
pub use problem::{Choice, Problem, Solution};
