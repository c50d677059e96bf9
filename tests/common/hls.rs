//! Designs for FPGAs as they are emitted, compiled and run in C simulation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `tests/fetch_ap_types.sh` puts the headers.
fn headers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ap_types")
}

/// Whether designs can be compiled. Says what is missing if a user has not fetched it; in CI nothing may be missing.
pub fn is_installed() -> bool {
    let missing = if !headers().join("ap_int.h").is_file() {
        "the headers of ap_int are not there; tests/fetch_ap_types.sh fetches them"
    } else if Command::new("make").arg("--version").output().is_err()
        || Command::new("g++").arg("--version").output().is_err()
    {
        "make or g++ is not installed"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    eprintln!("SKIPPED: {missing}; designs for FPGAs are not run");
    false
}

/// Runs a command that must end well.
fn run_well(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?} ends with {}:\n{said}", output.status);
}

/// Builds and runs the design in a folder: what was emitted is in `code`, `weights.bin` and `inputs` beside it. It writes to
/// `outputs`.
pub fn run(folder: &Path) {
    let include = format!("AP_INCLUDE={}", headers().display());
    // Less optimised than a user would, since that compiles faster and computes the same.
    let flags = "CXXFLAGS=-std=c++17 -O1 -Wall -Wextra -Werror";
    run_well(Command::new("make").args(["csim", &include, flags]).current_dir(folder.join("code")));
    fs::create_dir(folder.join("outputs")).unwrap();
    let mut testbench = Command::new(folder.join("code/testbench"));
    run_well(testbench.args(["weights.bin", "inputs", "outputs"]).current_dir(folder));
}
