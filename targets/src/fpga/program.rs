//! A compiled program of an FPGA: what is built into the part, what is called when, and where data lies.

mod parts;

pub(in crate::fpga) use parts::{Buffer, Call, Group, Parts};
