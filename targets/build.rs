//! Lists the machine files, so that adding a machine is adding a file, and compiles the program formats.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let folder = Path::new(&root).join("machines");
    println!("cargo:rerun-if-changed=machines");
    let mut files: Vec<_> = fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let mut list =
        String::from("/// Name and text of every built-in machine file.\nconst FILES: &[(&str, &str)] = &[\n");
    for file in files {
        let name =
            file.file_name().into_string().map_err(|_| io::Error::other("a machine file's name is not UTF-8"))?;
        if name.ends_with(".toml") {
            writeln!(list, "    ({name:?}, include_str!({:?})),", file.path()).map_err(io::Error::other)?;
        }
    }
    list.push_str("];\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("machines.rs"), list)?;
    println!("cargo:rerun-if-changed=proto");
    let folder = Path::new(&root).join("proto");
    let parsed = |files: &[&str]| protox::compile(files, [&folder]).map_err(io::Error::other);
    prost_build::Config::new().extern_path(".tcc.optimizer", "crate::optimizer").compile_fds(parsed(&[
        "systolic.proto",
        "lpu.proto",
        "simt.proto",
        "fpga.proto",
    ])?)?;
    // What those have in common, once.
    prost_build::Config::new().compile_fds(parsed(&["optimizer.proto"])?)
}
