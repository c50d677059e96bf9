//! LPUs: statically scheduled dataflow chips after Groq's Tensor Streaming Processor. Functional units stand in a row, and
//! vectors move past them on streams, one position in each cycle; what every unit does in which cycle is in the program.
//!
//! A program has a queue of instructions (`isa`) for each unit of the machine (`machine`). It is encoded (`encoding`), can be
//! read (`assembly`) and checked before it runs (`check`); when it dispatches what follows from it alone (`timeline`). The
//! simulator executes the queues cycle by cycle, and refuses what the machine could not do.

#[cfg(test)]
mod arbitrary;
pub mod assembly;
pub mod check;
pub mod emit;
pub mod encoding;
pub mod isa;
pub mod layout;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "the compiler that calls this is being written"))]
mod legal;
mod machine;
pub mod rtl;
pub mod simulator;
pub mod timeline;

pub use machine::LpuMachine;
