//! The textual form of programs: a section for each queue, with a line for each instruction.
//!
//! ```text
//! mem 3:
//!   nop 4                                       ; 0
//!   read 0x10 -> e5                             ; 4
//!   repeat 15 every 1 step 1                    ; 5..19
//!   read 0x10 -> e5, write 0x41 <- w3!          ; 20
//!   gather e0..1! -> w4                         ; 21
//!   end                                         ; 22
//!
//! alu 0:
//!   mul f32 e4..7!, 2.5                         ; 0
//!   sync                                        ; 1
//!   add alu 0, f16 e0..1 -> f16 w8..9
//!   select bool e0, alu 3, nan 0x7fc00001
//!   running max first f32 e4..7! -> f32 e4..7
//!   end
//!
//! west plane 0 load:
//!   load e0..3! -> column 4                     ; 0
//!   install                                     ; 1
//!   end                                         ; 2
//!
//! west plane 0 multiply:
//!   multiply i8 e9! by u8                       ; 0
//!   multiply f16 e9..10! half 1                 ; 1
//!   end                                         ; 2
//!
//! west plane 0 accumulate:
//!   overwrite row 3                             ; 0
//!   accumulate row 3 -> w0..3                   ; 1
//!   end                                         ; 2
//!
//! east shifter 2:
//!   shift e1! by 4 -> e3                        ; 0
//!   rotate e1 by -1 lanes 0 until 4 under w2! -> e3 ; 1
//!   end                                         ; 2
//!
//! east distributor 0:
//!   distribute e1 [1, 0, -, 3] -> e3            ; 0
//!   end                                         ; 1
//!
//! east transposer 0:
//!   transpose e0..3! -> e8..11                  ; 0
//!   end                                         ; 1
//!
//! others:
//!   end                                         ; 0
//! ```
//!
//! Streams are `e` (east) or `w` (west) with a number, and with the last one's if there are several; `!` says that what is
//! read is taken. Where elements are meant, their type stands before. A float has a point or an exponent, or is `inf` or
//! `nan` with its bits; other numbers are integers. A shift that names no lanes is of all. In a distribution `-` is a 0, and
//! lanes that are not named are 0 too.
//!
//! `others` are all queues that have no section. Queues without instructions are not written, but for where `others` would
//! mean them. `;` begins a comment; [`disassemble`] puts the cycles of the dispatches there, as far as they are known
//! without other queues: up to the first sync. In programs of more than a million instructions only those have their cycle
//! that are not dispatched in the cycle after the one before, and nothing stands below each other, so that the text stays
//! small.

mod parser;
mod writer;

pub use crate::scanner::AssemblyError;
pub use parser::assemble;
pub use writer::{disassemble, disassemble_one};

/// The name of the section for all queues that have none.
const OTHERS: &str = "others";

#[cfg(test)]
mod tests;
