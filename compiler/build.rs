//! Build script of tcc.

fn main() {}
