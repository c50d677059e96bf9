//! CUDA programs as they are emitted: compiled by CUDA's own compiler, which needs no GPU, and run on a processor by an emulator
//! of what they use of a GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What compiles without a word about what could be wrong. Quotients, roots and products are those that the README's command
/// gives.
const FLAGS: [&str; 6] = ["-O2", "-std=c++17", "-fmad=false", "-Xptxas", "-v", "-Werror=all-warnings"];

/// Where CUDA's tools are.
#[derive(Debug)]
pub struct Toolkit(PathBuf);

/// What the assembler says of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory that are declared.
    pub shared: u64,
    /// Bytes of each thread's memory: arrays that are in no registers, what was stored for want of registers and loaded again.
    pub stack: [u64; 3],
}

/// CUDA's tools, which `tests/fetch_cuda.sh` fetches into a folder of the repository. Says what is missing if a user has not; in
/// CI nothing may be missing.
pub fn toolkit(root: &Path) -> Option<Toolkit> {
    let bin = root.join("target/cuda/nvidia/cu13/bin");
    if bin.join("nvcc").exists() {
        return Some(Toolkit(bin));
    }
    assert!(std::env::var_os("CI").is_none(), "CUDA's compiler is not installed; run tests/fetch_cuda.sh");
    eprintln!(
        "SKIPPED: CUDA's compiler is not installed (tests/fetch_cuda.sh fetches it); CUDA programs are not compiled"
    );
    None
}

/// Runs a command that must end well, and gives what it says.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?} ends with {}:\n{said}", output.status);
    said
}

/// The number before some words in a line.
fn number(line: &str, words: &str) -> Option<u64> {
    let (before, _) = line.split_once(words)?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A kernel's name from the assembler's: that of a function in the namespace `kernels`.
fn plain(mangled: &str) -> Option<&str> {
    let rest = mangled.split_once("N7kernels")?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let length: usize = rest[..end].parse().ok()?;
    rest[end..].get(..length)
}

impl Toolkit {
    /// Compiles the kernels in a folder that a program was written to for an architecture, and says what the assembler says of
    /// each, in order.
    pub fn assemble(&self, folder: &Path, arch: &str) -> Vec<(String, Assembled)> {
        let mut nvcc = Command::new(self.0.join("nvcc"));
        let arguments = ["-cubin", "-o", "kernels.cubin", "code/cuda/kernels.cu"];
        let said = said(nvcc.args(FLAGS).arg(format!("-arch={arch}")).args(arguments).current_dir(folder));
        let mut kernels: Vec<(String, Assembled)> = Vec::new();
        for line in said.lines() {
            if line.contains("Compiling entry function") {
                let name = line.split('\'').nth(1).and_then(plain).unwrap();
                kernels.push((name.to_owned(), Assembled::default()));
            } else if let Some((_, kernel)) = kernels.last_mut() {
                if line.contains("stack frame") {
                    kernel.stack = ["bytes stack frame", "bytes spill stores", "bytes spill loads"]
                        .map(|words| number(line, &format!(" {words}")).unwrap());
                } else if line.contains("Used ") {
                    kernel.registers = number(line, " registers").unwrap() as u32;
                    kernel.shared = number(line, " bytes smem").unwrap_or(0);
                }
            }
        }
        kernels
    }

    /// The instructions of each kernel that were assembled last in a folder, as text.
    pub fn instructions(&self, folder: &Path) -> Vec<(String, String)> {
        let said = said(Command::new(self.0.join("nvdisasm")).args(["-c", "kernels.cubin"]).current_dir(folder));
        let sections = said.split("\n.section\t.text.").skip(1).chain(said.split("\n\t.section\t.text.").skip(1));
        sections
            .map(|section| {
                let name = section.split(',').next().and_then(plain).unwrap();
                (name.to_owned(), section.to_owned())
            })
            .collect()
    }

    /// Compiles and links the whole program in a folder.
    pub fn link(&self, folder: &Path, arch: &str) {
        let mut nvcc = Command::new(self.0.join("nvcc"));
        let arguments = ["-o", "model", "code/cuda/main.cu"];
        said(nvcc.args(FLAGS).arg(format!("-arch={arch}")).args(arguments).current_dir(folder));
        assert!(folder.join("model").exists());
    }
}

/// Compiles and runs the program in a folder on this machine's processor: what was emitted is in `code`, `weights.bin` and
/// `inputs` beside it. It writes to `outputs`.
pub fn emulate(root: &Path, folder: &Path) {
    let emulator = root.join("tests/cuda");
    // Instructions of the device are functions of the emulator instead.
    fs::copy(emulator.join("device.h"), folder.join("code/cuda/device.h")).unwrap();
    let flags = ["-std=c++17", "-O1", "-Wall", "-Wno-unknown-pragmas", "-Werror", "-ffp-contract=off", "-I"];
    let mut compiler = Command::new("g++");
    let files = ["-x", "c++", "-o", "emulated", "code/cuda/main.cu"];
    let said_by_compiler = said(compiler.args(flags).arg(&emulator).args(files).current_dir(folder));
    assert!(said_by_compiler.is_empty(), "{said_by_compiler}");
    fs::create_dir_all(folder.join("outputs")).unwrap();
    let arguments = ["weights.bin", "inputs", "outputs"];
    let said_by_model = said(Command::new(folder.join("emulated")).args(arguments).current_dir(folder));
    assert!(said_by_model.is_empty(), "{said_by_model}");
}
