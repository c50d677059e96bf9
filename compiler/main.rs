//! The command line of tcc.

fn main() {}
