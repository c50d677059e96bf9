//! Builds on disk: complete, the same each time, read back as written, and refused when they are not what they were.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod common;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use common::models::{self, load};
use common::{Dim, external, model, names, node, port, small_model, write_model};
use tcc::artifact::{BuildError, ReadError};
use tcc::onnx::import::ImportOptions;
use tcc::onnx::tensor::Weights;
use tcc::{Artifact, Compiler, Error, ImportedModel};
use tcc_ir::{DType, Graph, Shape, Tensor, TensorType, evaluate};
use tcc_passes::Outline;
use tcc_targets::{
    Explanation, Kind, Machine, Optimization, PlanTaken, Port, Program, Report, Simulation, Target, TargetError,
    TraceSpan,
};

/// A target for [`small_model`] alone, which takes one cycle per element.
struct Small {
    machine: Machine,
    defect: Defect,
}

/// What goes wrong while a build is written.
#[derive(Clone, Copy, PartialEq)]
enum Defect {
    None,
    FullDisk,
    CodeElsewhere,
}

struct SmallProgram {
    defect: Defect,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    weights: Option<Tensor>,
}

impl SmallProgram {
    fn new(defect: Defect, weights: Option<Tensor>) -> Self {
        let port = |name: &str| {
            vec![Port { name: name.to_owned(), ty: TensorType::new(DType::F32, Shape::new([2, 4]).unwrap()) }]
        };
        SmallProgram { defect, inputs: port("x"), outputs: port("y"), weights }
    }
}

impl Target for Small {
    fn multiplies_floats(&self) -> bool {
        true
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn compile(&self, graph: &Graph, _: Optimization) -> Result<Box<dyn Program>, TargetError> {
        let weights = graph.values().find_map(|(id, _)| graph.as_constant(id)).cloned();
        Ok(Box::new(SmallProgram::new(self.defect, weights)))
    }

    fn compile_explained(
        &self,
        graph: &Graph,
        optimization: Optimization,
    ) -> Result<(Box<dyn Program>, Explanation), TargetError> {
        let explanation = Explanation { plan_taken: PlanTaken::NotSearched, explanations: Vec::new() };
        Ok((self.compile(graph, optimization)?, explanation))
    }

    fn outline(&self, _: &Graph, _: Optimization) -> Result<Outline, TargetError> {
        Ok(Outline { blocks: Vec::new(), kernels: Vec::new() })
    }

    fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Program>, TargetError> {
        match bytes {
            b"small" => Ok(Box::new(SmallProgram::new(self.defect, None))),
            _ => Err(TargetError::Damaged("it is not small".to_owned())),
        }
    }
}

impl Program for SmallProgram {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn encode(&self) -> Vec<u8> {
        b"small".to_vec()
    }

    fn weights_bytes(&self) -> u64 {
        32
    }

    fn write_weights(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.defect == Defect::FullDisk {
            out.write_all(&[0; 8])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        out.write_all(self.weights.as_ref().unwrap().bytes().unwrap())
    }

    fn schedule_text(&self) -> String {
        "add and multiply\n".to_owned()
    }

    fn code(&self) -> Vec<(PathBuf, String)> {
        let path = if self.defect == Defect::CodeElsewhere { "../elsewhere.s" } else { "deep/small.s" };
        vec![(PathBuf::from(path), "add\nmul\n".to_owned())]
    }

    fn report(&self) -> Report {
        Report {
            model: "small".to_owned(),
            target: "systolic".to_owned(),
            machine: "systolic-128".to_owned(),
            clock_hz: 1_000_000_000,
            cycles: 8,
            seconds: 8e-9,
            macs: 0,
            utilization: 0.0,
            lower_bound_cycles: 4,
            dram_bytes: 96,
            breakdown: Vec::new(),
            units: Vec::new(),
            memory: Vec::new(),
            optimizer: Vec::new(),
            energy: None,
            host_ops: Vec::new(),
            kernels: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn trace(&self) -> Vec<TraceSpan> {
        vec![TraceSpan { unit: "vector".into(), name: "add \"quoted\"".to_owned(), start: 0, cycles: 8 }]
    }

    fn simulate(&self, weights: &[u8], inputs: &[Tensor]) -> Result<Simulation, TargetError> {
        let x = inputs[0].elements::<f32>().unwrap();
        let w = weights.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        let y: Vec<f32> = x.iter().zip(w).map(|(x, w)| (x + w) * x).collect();
        let shape = Shape::new([2, 4]).unwrap();
        Ok(Simulation { outputs: vec![Tensor::from_vec(shape, y).unwrap()], cycles: 8 })
    }
}

fn target(defect: Defect) -> Small {
    let machine = Machine::default_of(Kind::Systolic).unwrap().unwrap();
    Small { machine, defect }
}

fn build(model: &Path, out: &Path, defect: Defect, weights: Weights) -> Result<(), Error> {
    let options = ImportOptions { weights, ..ImportOptions::default() };
    Compiler::with_target(Box::new(target(defect))).import(model, &options)?.compile()?.write(out)
}

/// A folder with the small model and a build of it in `out`.
fn built() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = write_model(folder.path(), "small.onnx", &small_model());
    build(&model, &folder.path().join("out"), Defect::None, Weights::Load).unwrap();
    folder
}

/// All files below a folder with their bytes, in order.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for name in names(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            let below = contents(&path).into_iter();
            files.extend(below.map(|(inner, bytes)| (Path::new(&name).join(inner), bytes)));
        } else {
            files.push((PathBuf::from(name), fs::read(&path).unwrap()));
        }
    }
    files
}

#[test]
fn a_build_is_complete_and_runs() {
    let folder = built();
    let out = folder.path().join("out");
    let paths: Vec<String> = contents(&out).into_iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect();
    let expected = [
        "code/deep/small.s",
        "model/model.onnx",
        "program.tcc",
        "report.json",
        "schedule.txt",
        "trace.json",
        "weights.bin",
    ];
    assert_eq!(paths, expected);

    let artifact = Artifact::open(&out).unwrap();
    assert_eq!(artifact.report().unwrap().cycles, 8);
    let x = Tensor::from_vec(Shape::new([2, 4]).unwrap(), (0..8u8).map(f32::from).collect()).unwrap();
    let simulation = artifact.program_for(&target(Defect::None)).unwrap().simulate(std::slice::from_ref(&x)).unwrap();
    let (path, options) = artifact.reference().unwrap();
    let reference = ImportedModel::import(&path, &options).unwrap();
    let expected = evaluate(reference.graph(), &[x]).unwrap();
    assert_eq!(simulation.outputs[0].bytes(), expected[0].bytes());

    let trace: serde_json::Value = serde_json::from_slice(&fs::read(out.join("trace.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    assert!(events.iter().any(|event| event["name"] == "add \"quoted\""), "{trace}");
}

/// Two builds of the same, in folders that must not show in them.
fn assert_same(one: &tempfile::TempDir, two: &tempfile::TempDir) {
    let files = contents(&one.path().join("out"));
    let others = contents(&two.path().join("out"));
    assert_eq!(files.len(), others.len());
    for ((path, bytes), (other_path, other_bytes)) in files.into_iter().zip(others) {
        assert_eq!(path, other_path);
        assert!(bytes == other_bytes, "{} differs", path.display());
        let place = one.path().file_name().unwrap().as_encoded_bytes();
        assert!(!bytes.windows(place.len()).any(|window| window == place), "{}", path.display());
    }
}

#[test]
fn the_same_model_gives_the_same_bytes_and_no_paths() {
    assert_same(&built(), &built());
}

#[test]
fn real_models_give_the_same_bytes_on_every_kind_of_machine_with_any_number_of_threads() {
    let built = |kind: Kind, threads: usize| {
        let folder = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (model, _) = load(&models::folder("llama-kv.legacy"), 0).unwrap();
        let compiler = Compiler::for_target(kind.name()).unwrap();
        pool.install(|| compiler.with_model(model).compile().unwrap().write(&folder.path().join("out")).unwrap());
        folder
    };
    for kind in Kind::ALL {
        let first = built(kind, 1);
        let files = match kind {
            Kind::Systolic | Kind::Lpu => 7,
            // In the place of one file of assembly: how to compile, arrays in files; kernels and the program that launches them in
            // three files for OpenCL, in five for CUDA.
            Kind::Simt => 16,
            // How to build it, and with what: a Makefile and two configurations; functions, the top and the testbench, each with what
            // it includes.
            Kind::Fpga => 19,
        };
        assert_eq!(contents(&first.path().join("out")).len(), files, "{}", kind.name());
        for threads in [1, 2] {
            assert_same(&first, &built(kind, threads));
        }
    }
}

#[test]
fn an_earlier_build_is_replaced_and_other_files_are_not_lost() {
    let folder = built();
    let out = folder.path().join("out");
    let small = folder.path().join("small.onnx");
    fs::remove_file(out.join("schedule.txt")).unwrap();
    build(&small, &out, Defect::None, Weights::Load).unwrap();
    assert!(out.join("schedule.txt").exists());
    assert_eq!(names(folder.path()), ["out", "small.onnx"]);

    fs::write(out.join("results.npz"), "mine").unwrap();
    let error = build(&small, &out, Defect::None, Weights::Load).unwrap_err();
    assert!(matches!(&error, Error::Build(BuildError::Foreign { name, .. }) if name == "results.npz"), "{error}");
    assert_eq!(fs::read_to_string(out.join("results.npz")).unwrap(), "mine");
}

#[test]
fn a_build_that_fails_leaves_the_earlier_one() {
    let folder = built();
    let out = folder.path().join("out");
    let small = folder.path().join("small.onnx");
    let before = contents(folder.path());
    let error = build(&small, &out, Defect::FullDisk, Weights::Load).unwrap_err();
    let expected = format!("cannot write {}: the disk is full", out.join("weights.bin").display());
    assert_eq!(error.to_string(), expected);
    let error = build(&small, &out, Defect::CodeElsewhere, Weights::Load).unwrap_err();
    assert!(matches!(&error, Error::Build(BuildError::CodePath(_))), "{error}");
    assert_eq!(contents(folder.path()), before);
    build(&small, &folder.path().join("new/deep"), Defect::FullDisk, Weights::Load).unwrap_err();
    assert_eq!(contents(folder.path()), before);
    assert!(!folder.path().join("new").exists());
}

#[test]
fn what_was_changed_after_the_build_is_told() {
    let folder = built();
    let out = folder.path().join("out");
    let open = || Artifact::open(&out).unwrap();
    let change = |name: &str| {
        let mut bytes = fs::read(out.join(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(out.join(name), bytes).unwrap();
    };
    change("weights.bin");
    let error = open().program_for(&target(Defect::None)).err().unwrap();
    assert!(matches!(&error, ReadError::Damaged { path, .. } if path.ends_with("weights.bin")), "{error}");
    change("model/model.onnx");
    assert!(matches!(open().reference().unwrap_err(), ReadError::ModelChanged(_)));
    fs::write(out.join("report.json"), "{}").unwrap();
    assert!(matches!(open().report().unwrap_err(), ReadError::Damaged { .. }));
    fs::remove_file(out.join("weights.bin")).unwrap();
    assert!(matches!(open().program_for(&target(Defect::None)).err().unwrap(), ReadError::Read { .. }));
}

#[test]
fn a_program_without_weights_can_be_reported_but_not_run() {
    let folder = built();
    let out = folder.path().join("out");
    build(&folder.path().join("small.onnx"), &out, Defect::None, Weights::Absent).unwrap();
    assert_eq!(names(&out), ["code", "program.tcc", "report.json", "schedule.txt", "trace.json"]);
    let artifact = Artifact::open(&out).unwrap();
    assert_eq!(artifact.report().unwrap().cycles, 8);
    assert!(matches!(artifact.program_for(&target(Defect::None)).err().unwrap(), ReadError::NoWeights(_)));
    assert!(matches!(artifact.reference().unwrap_err(), ReadError::NoWeights(_)));
}

#[test]
fn external_data_is_kept_with_the_build() {
    let folder = tempfile::tempdir().unwrap();
    let dims = [Dim::N(2), Dim::N(4)];
    let nodes = vec![node("Add", &["x", "w"], "sum"), node("Mul", &["sum", "x"], "y")];
    let weights = vec![external("w", &[2, 4], "data/weights")];
    let model = model(vec![port("x", &dims)], vec![port("y", &dims)], nodes, weights);
    let path = write_model(folder.path(), "external.onnx", &model);
    fs::create_dir(folder.path().join("data")).unwrap();
    let data = folder.path().join("data/weights");
    // One that is copied, and one that is linked.
    for bytes in [32, (64 << 20) + 1] {
        fs::File::create(&data).unwrap().set_len(bytes).unwrap();
        let out = folder.path().join("out");
        build(&path, &out, Defect::None, Weights::Load).unwrap();
        assert_eq!(fs::metadata(out.join("model/data/weights")).unwrap().len(), bytes);
        fs::remove_file(&data).unwrap();
        let (model, options) = Artifact::open(&out).unwrap().reference().unwrap();
        ImportedModel::import(&model, &options).unwrap();
    }
}
