//! OpenCL programs as they are emitted, built and run on the first device that there is.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A program that ends well if there is a device.
const PROBE: &str = "#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

int main()
{
    cl_platform_id platforms[16];
    cl_uint count = 0;
    if (clGetPlatformIDs(16, platforms, &count) != CL_SUCCESS) return 1;
    for (cl_uint i = 0; i < count && i < 16; ++i) {
        cl_device_id device;
        if (clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, &device, nullptr) == CL_SUCCESS) return 0;
    }
    return 1;
}
";

/// Whether programs can be built and run. Says what is missing if a user has not installed it; in CI nothing may be missing.
pub fn is_installed(folder: &Path) -> bool {
    let (source, binary) = (folder.join("probe.cpp"), folder.join("probe"));
    fs::write(&source, PROBE).unwrap();
    let built = Command::new("g++").arg("-o").arg(&binary).arg(&source).arg("-lOpenCL").output();
    let missing = match built {
        Err(error) => format!("g++ is not installed ({error})"),
        Ok(built) if !built.status.success() => "OpenCL's headers and loader are not installed".to_owned(),
        Ok(_) if !Command::new(&binary).status().unwrap().success() => "there is no OpenCL device".to_owned(),
        Ok(_) => return true,
    };
    assert!(
        std::env::var_os("CI").is_none(),
        "{missing}; install Debian's g++, ocl-icd-opencl-dev and pocl-opencl-icd for example"
    );
    eprintln!("SKIPPED: {missing}; OpenCL programs are not run");
    false
}

/// Runs a command that must end well without a word.
fn quietly(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{command:?} ends with {}:\n{said}", output.status);
}

/// Builds and runs the program in a folder: what was emitted is in `code`, `weights.bin` and `inputs` beside it. It writes to
/// `outputs`.
pub fn run(folder: &Path) {
    let compile =
        ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-o", "model", "code/opencl/main.cpp", "-lOpenCL"];
    quietly(Command::new("g++").args(compile).current_dir(folder));
    fs::create_dir(folder.join("outputs")).unwrap();
    let arguments = ["code/opencl/kernels.cl", "weights.bin", "inputs", "outputs"];
    let mut model = Command::new(folder.join("model"));
    // PoCL keeps compiled kernels; other devices do not look at this.
    quietly(model.args(arguments).current_dir(folder).env("POCL_CACHE_DIR", folder.join("pocl")));
}
