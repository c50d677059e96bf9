//! Compiles `program.proto` without a protobuf compiler on the machine.

use std::io;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=compiler/program.proto");
    let files = protox::compile(["compiler/program.proto"], ["compiler"]).map_err(io::Error::other)?;
    prost_build::Config::new().compile_fds(files)
}
