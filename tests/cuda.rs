//! Emitted CUDA programs: compiled by CUDA's own compiler for the machines that they are for, held against what the occupancy
//! model assumes, and run on a processor by an emulator of what they use of a GPU.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use common::cuda::{Toolkit, emulate, toolkit};
use common::emitted::{REPRESENTATIVE, run_alike, write_code};
use common::models::{folder, load, name, shipped};
use rayon::prelude::*;
use tcc::onnx::import::ImportOptions;
use tcc::onnx::tensor::Weights;
use tcc::{Build, Compiler};
use tcc_targets::simt::SimtMachine;

/// The machines that kernels are compiled for, with what compilers call their generations.
const MACHINES: [(&str, &str); 2] = [("a100", "sm_80"), ("h100", "sm_90")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the occupancy model assumes of a kernel.
#[derive(Clone, Copy, Debug)]
struct Assumed {
    threads: u32,
    blocks: u32,
    registers: u32,
}

/// The number after some words.
fn number(text: &str, before: &str, after: &str) -> u32 {
    let (start, _) = text.split_once(after).unwrap();
    start.rsplit_once(before).unwrap().1.parse().unwrap()
}

/// What is assumed of each kernel, as the schedule says.
fn assumed(build: &Build) -> BTreeMap<String, Assumed> {
    let schedule = build.program().schedule_text();
    let launches = schedule.lines().filter(|line| line.contains(" a multiprocessor by "));
    let of = |line: &str| {
        let kernel = Assumed {
            threads: number(line, " of ", " threads"),
            blocks: number(line, " waves, ", " blocks ("),
            // What keeps more blocks away stands before, and may be registers too.
            registers: number(
                line.split_once(" a multiprocessor by ").unwrap().1.split_once(',').unwrap().1,
                " ",
                " registers",
            ),
        };
        (line.trim_start().split(' ').next().unwrap().to_owned(), kernel)
    };
    launches.map(of).collect()
}

/// The text of each kernel.
fn texts(build: &Build) -> BTreeMap<String, String> {
    let code = build.program().code();
    let (_, text) = code.iter().find(|(path, _)| path.ends_with("cuda/kernels.cu")).unwrap();
    let kernels = text.split("__global__ void __launch_bounds__").skip(1);
    kernels
        .map(|text| (text.split_once('\n').unwrap().1.split('(').next().unwrap().to_owned(), text.to_owned()))
        .collect()
}

/// Bytes of the arrays that a kernel declares in shared memory, up to where another could begin: at a multiple of 16. In which order
/// they lie is the compiler's.
fn declared(text: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("__shared__ __align__(16) "));
    lines.fold(0u64, |bytes, line| {
        let (ty, rest) = line.rsplit_once(' ').unwrap();
        let elements: u64 = rest.split(['[', ']']).nth(1).unwrap().parse().unwrap();
        let size = match ty {
            "unsigned char" | "signed char" => 1,
            "__half" | "__nv_bfloat16" | "short" | "unsigned short" => 2,
            "double" | "long long" | "unsigned long long" => 8,
            _ => 4,
        };
        bytes + (elements * size).next_multiple_of(16)
    })
}

/// Blocks of so many threads that a multiprocessor's registers are enough for.
fn blocks_by_registers(facts: &SimtMachine, threads: u32, registers: u32) -> u32 {
    let of_warp = (registers * facts.warp).next_multiple_of(facts.register_unit);
    facts.registers / of_warp / threads.div_ceil(facts.warp)
}

/// What is wrong with the kernels of a model as they are assembled, and a line for each of what was assumed and found.
fn assembled(toolkit: &Toolkit, compiler: &Compiler, arch: &str, model: Model) -> (Vec<String>, Vec<String>) {
    let (name, build) = model.build(compiler);
    let place = tempfile::tempdir().unwrap();
    write_code(&build, place.path());
    let facts = compiler.machine().simt.as_ref().unwrap();
    let (assumed, texts) = (assumed(&build), texts(&build));
    let found = toolkit.assemble(place.path(), arch);
    let instructions: BTreeMap<String, String> = toolkit.instructions(place.path()).into_iter().collect();
    assert_eq!((found.len(), instructions.len()), (texts.len(), texts.len()), "{name} has other kernels");
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    for (kernel, found) in found {
        let (assumed, text, code) = (assumed[&kernel], &texts[&kernel], &instructions[&kernel]);
        let mut say = |what: String| wrong.push(format!("{name} for {arch}, `{kernel}`: {what}"));
        if found.stack != [0; 3] {
            say(format!("{:?} bytes of stack, spilled and loaded again", found.stack));
        }
        if found.shared.next_multiple_of(16) != declared(text) {
            say(format!("{} bytes of shared memory, not {}", found.shared, declared(text)));
        }
        let blocks = blocks_by_registers(facts, assumed.threads, found.registers);
        if blocks < assumed.blocks {
            say(format!("{} registers leave room for {blocks} blocks, not {}", found.registers, assumed.blocks));
        }
        // Each instruction is there in the kernels that are written with it, and in no others.
        let pairs = [("mma_", &["HMMA", "IMMA"][..]), ("cp_async<", &["LDGSTS"]), ("ldmatrix_x4", &["LDSM"])];
        for (call, names) in pairs {
            let (is_called, is_there) = (text.contains(call), names.iter().any(|name| code.contains(name)));
            if is_called != is_there {
                say(format!("{call} is written: {is_called}, but {names:?} is there: {is_there}"));
            }
        }
        if text.contains("unsigned own_words[4];\n") && text.contains("load_words(") && !code.contains("LDG.E.128") {
            say("16 bytes are not read at once".to_owned());
        }
        told.push(format!(
            "{arch} {name} {kernel}: {} registers assumed, {} found; {} blocks assumed, {blocks} by registers",
            assumed.registers, found.registers, assumed.blocks
        ));
    }
    (wrong, told)
}

/// A model that is compiled.
#[derive(Clone, Copy)]
enum Model<'f> {
    /// The folder of one that is shipped.
    Shipped(&'f Path),
    /// A model of full size without its weights, and its free dimensions.
    FullSize(&'static str, &'static [(&'static str, usize)]),
}

/// Models of full size: they have the largest tiles, which small ones have not.
const FULL_SIZE: [Model<'static>; 4] = [
    Model::FullSize("bert-base.legacy", &[("batch", 32), ("sequence", 128)]),
    Model::FullSize(
        "llama-3.2-1b-kv.fp16.dynamo",
        &[("batch", 1), ("sequence", 128), ("past_sequence_length", 0), ("total_sequence_length", 128)],
    ),
    Model::FullSize(
        "llama-3.2-1b-kv.fp16.dynamo",
        &[("batch", 1), ("sequence", 1), ("past_sequence_length", 1024), ("total_sequence_length", 1025)],
    ),
    Model::FullSize("whisper-small-encoder.dynamo", &[("batch", 1)]),
];

impl Model<'_> {
    /// Its name and its build.
    fn build(self, compiler: &Compiler) -> (String, Build) {
        match self {
            Model::Shipped(folder) => {
                let (model, _) = load(folder, 0).unwrap();
                (name(folder), compiler.with_model(model).compile().unwrap())
            }
            Model::FullSize(name, dims) => {
                let path = root().join("tests/topologies").join(name).join("model.onnx");
                let dims = dims.iter().map(|&(name, extent)| (name.to_owned(), extent)).collect();
                let options = ImportOptions { dims, weights: Weights::Absent, ..ImportOptions::default() };
                (name.to_owned(), compiler.import(&path, &options).unwrap().compile().unwrap())
            }
        }
    }
}

/// All models if that is asked for, or some of each kind.
fn folders() -> Vec<PathBuf> {
    match std::env::var_os("TCC_ALL_MODELS") {
        Some(_) => shipped(),
        None => REPRESENTATIVE.iter().map(|name| folder(name)).collect(),
    }
}

#[test]
fn kernels_are_assembled_as_the_occupancy_model_assumes() {
    let Some(toolkit) = toolkit(root()) else { return };
    let compilers = MACHINES.map(|(machine, arch)| (Compiler::for_target(machine).unwrap(), arch));
    let folders = folders();
    let models: Vec<Model> = folders.iter().map(|folder| Model::Shipped(folder)).chain(FULL_SIZE).collect();
    let jobs: Vec<_> = compilers.iter().flat_map(|pair| models.iter().map(move |&model| (pair, model))).collect();
    let wrong = Mutex::new(Vec::new());
    jobs.par_iter().with_max_len(1).for_each(|&((compiler, arch), model)| {
        let (own, told) = assembled(&toolkit, compiler, arch, model);
        println!("{}", told.join("\n"));
        wrong.lock().unwrap().extend(own);
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort_unstable();
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn programs_are_linked() {
    let Some(toolkit) = toolkit(root()) else { return };
    for (machine, arch) in MACHINES {
        let (model, _) = load(&folder("gpt2-kv.legacy"), 0).unwrap();
        let build = Compiler::for_target(machine).unwrap().with_model(model).compile().unwrap();
        let place = tempfile::tempdir().unwrap();
        write_code(&build, place.path());
        toolkit.link(place.path(), arch);
    }
}

#[test]
fn models_run_alike_in_cuda() {
    let compiler = Compiler::for_target("h100").unwrap();
    let folders = folders();
    let jobs: Vec<(&Compiler, &Path)> = folders.iter().map(|folder| (&compiler, folder.as_path())).collect();
    run_alike(&jobs, |folder| emulate(root(), folder));
}

#[test]
fn machines_without_cuda_have_no_cuda() {
    for (machine, is_there) in [("b200", true), ("l40s", true), ("mi300x", false), ("simt-mini", false)] {
        let (model, _) = load(&folder("bert.legacy"), 0).unwrap();
        let build = Compiler::for_target(machine).unwrap().with_model(model).compile().unwrap();
        let code = build.program().code();
        assert_eq!(code.iter().any(|(path, _)| path.starts_with("cuda")), is_there, "{machine}");
        let (_, readme) = code.iter().find(|(path, _)| path.ends_with("README.md")).unwrap();
        assert_eq!(readme.contains("nvcc"), is_there, "{machine}: {readme}");
    }
}
