//! The textual form of programs, one line for each instruction, routine and call.
//!
//! ```text
//! load dram=0x1000 spm=0x0 element=4 dims=[128:3072:512, 128:4:4]
//! preload spm=0x0 dtype=bf16 k=128:256 n=128:2 wait(load<=0)
//! multiply spm=0x8000 dtype=bf16 m=128:256 k=2 row=0 accumulate switch wait(load<=1)
//! preload spm=0x0 dtype=bf16 k=64:256 n=128:2 groups=2:128
//! multiply spm=0x8000 dtype=bf16 m=128:512 k=2 row=0 group=128:128 switch
//! outer m=128 n=128 k=768 row=0 spm:bf16@0x0[1536, 2], spm:bf16@0x30000[256, 2] wait(load<=0)
//! map add dims=[128, 128] acc:f32@0x0[512, 4] <- acc:f32@0x0[512, 4], float 1.5 wait(array<=0)
//! fold sum dims=[128, 128] reduced=1 spm:f32@0x0[4, 0] <- acc:f32@0x0[512, 4]
//! sort dims=[8] k=2 largest later spm:f32@0x0[4] -> values spm:f32@0x40[4] positions spm:i64@0x80[8]
//! ```
//!
//! `routine N` begins the routine with that number, counted from 0, and after the last come the calls, `call N` with the
//! bases of the registers from 1 on. An address that counts from a register is written `dram=r1+0x1000`. Text without
//! these lines is one routine that is called once.
//!
//! `groups=2:128` are two groups of rows of the array, whose weights lie 128 bytes apart; `group=128:64` says that their rows
//! of A lie 128 bytes apart and that the sums of each go to the 64 accumulator rows behind those of the one before. What is
//! left out is one group, or a distance and a number of rows of 0.
//!
//! Dimensions of a transfer are `size:dram_stride:scratchpad_stride`, all strides are in bytes. A walk is
//! `memory:type@address[strides]`. `#` begins a comment.

mod parser;
mod writer;

pub use crate::scanner::AssemblyError;
pub use parser::assemble;
pub use writer::{disassemble, disassemble_one};

#[cfg(test)]
mod tests;
