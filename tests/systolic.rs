//! Real exports through the systolic target: built, executed on its simulator, and compared with the reference evaluation.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tcc::accuracy::{Tolerance, compare};
use tcc::inputs::{Inputs, ports};
use tcc::onnx::import::ImportOptions;
use tcc::{Compiler, ImportedModel};
use tcc_ir::{Tensor, evaluate};
use tcc_targets::Machine;
use tcc_targets::systolic::{assembly, encoding};

fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.join("model.onnx").exists()).collect();
    folders.sort();
    assert!(folders.len() >= 30, "the shipped models are not there");
    folders
}

/// A model with the input set `set`, whose shapes it is bound to.
fn load(folder: &Path, set: usize) -> Option<(ImportedModel, Vec<Tensor>)> {
    let path = folder.join(format!("inputs_{set}.npz"));
    if !path.exists() {
        return None;
    }
    let inputs = Inputs::read(&path).unwrap();
    let options = ImportOptions { shapes: inputs.shapes([]), switches: inputs.switches([]), ..Default::default() };
    let model = ImportedModel::import(&folder.join("model.onnx"), &options).unwrap();
    let tensors = inputs.arrange(&ports(model.graph())).unwrap();
    Some((model, tensors))
}

/// Models that compute in integers from the first quantisation to the last: what is left of float arithmetic rounds
/// as the reference does, far closer than bf16 would.
const INTEGER_MODELS: [(&str, f64); 3] =
    [("bert.legacy-qop", 100.0), ("bert.legacy-qdq-u8i8-perchan", 100.0), ("vit.legacy-qop", 100.0)];

#[test]
fn every_model_runs_with_the_outputs_of_the_reference() {
    let compiler = Compiler::for_target("systolic").unwrap();
    let tolerance = Tolerance::of(compiler.machine());
    let mut failures = Vec::new();
    let mut runs = 0;
    for folder in models() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        for set in 0.. {
            let Some((model, inputs)) = load(&folder, set) else { break };
            runs += 1;
            let expected = evaluate(model.graph(), &inputs).unwrap();
            let names: Vec<String> = model.graph().outputs().iter().map(|output| output.name.to_string()).collect();
            let build = compiler.with_model(model).compile().unwrap();
            let program = build.program();
            let mut weights = Vec::new();
            program.write_weights(&mut weights).unwrap();
            let simulation = match program.simulate(&weights, &inputs) {
                Ok(simulation) => simulation,
                Err(error) => {
                    failures.push(format!("{name} {set}: {error}"));
                    continue;
                }
            };
            let report = build.report();
            assert_eq!(report.cycles, simulation.cycles, "{name} {set}: the report counts other cycles");
            let parts: u64 = report.breakdown.iter().map(|part| part.cycles).sum();
            assert_eq!(report.cycles, parts, "{name} {set}: the breakdown does not sum to the total");
            let kernels: u64 = report.kernels.iter().map(|kernel| kernel.cycles).sum();
            assert_eq!(report.cycles, kernels, "{name} {set}: the kernels do not sum to the total");
            assert!(report.host_ops.is_empty(), "{name} {set}: something is left to the host");
            let integer = INTEGER_MODELS.iter().find(|(model, _)| *model == name).map(|(_, decibel)| *decibel);
            for ((output, expected), actual) in names.iter().zip(&expected).zip(&simulation.outputs) {
                let check = compare(output, expected, actual, &tolerance).unwrap();
                if let Some(failure) = check.failure {
                    failures.push(format!("{name} {set} `{output}`: {failure}"));
                }
                if integer.is_some_and(|decibel| check.snr_db < decibel) {
                    failures.push(format!("{name} {set} `{output}`: {} dB for integer arithmetic", check.snr_db));
                }
            }
        }
    }
    assert!(runs >= 90, "only {runs} input sets were run");
    assert!(failures.is_empty(), "{} of {runs} runs fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn attentions_that_are_run_for_their_caches_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/machines/slow-writes.toml")).unwrap();
    let compiler = Compiler::for_machine(Machine::parse("slow-writes", &text).unwrap()).unwrap();
    let (model, inputs) = load(&root.join("tests/models/t5-decoder-past.dynamo"), 0).unwrap();
    let expected = evaluate(model.graph(), &inputs).unwrap();
    let build = compiler.with_model(model).compile().unwrap();
    let mut weights = Vec::new();
    build.program().write_weights(&mut weights).unwrap();
    let simulation = build.program().simulate(&weights, &inputs).unwrap();
    for (expected, actual) in expected.iter().zip(&simulation.outputs) {
        assert_eq!(compare("", expected, actual, &Tolerance::of(compiler.machine())).unwrap().failure, None);
    }
}

#[test]
fn programs_reassemble_to_the_same_bytes() {
    let compiler = Compiler::for_target("systolic").unwrap();
    for folder in models() {
        let Some((model, _)) = load(&folder, 0) else { continue };
        let build = compiler.with_model(model).compile().unwrap();
        let code = build.program().code();
        let (_, assembly_text) = code.iter().find(|(path, _)| path == Path::new("program.s")).unwrap();
        let instructions = assembly::assemble(assembly_text).unwrap();
        let bytes = encoding::encode(&instructions);
        assert_eq!(encoding::decode(&bytes).unwrap(), instructions, "{}", folder.display());
        assert_eq!(assembly::disassemble(&instructions), *assembly_text, "{}", folder.display());
        // The very bytes of the program, which holds its code as one field.
        let program = build.program().encode();
        assert!(program.windows(bytes.len()).any(|part| part == bytes), "{}", folder.display());
    }
}

/// Everything that a build consists of, by name.
fn artifacts(folder: &Path, threads: usize) -> BTreeMap<String, Vec<u8>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let (model, inputs) = load(folder, 0).unwrap();
        let evaluated = evaluate(model.graph(), &inputs).unwrap();
        let build = Compiler::for_target("systolic").unwrap().with_model(model).compile().unwrap();
        let mut weights = Vec::new();
        build.program().write_weights(&mut weights).unwrap();
        let outputs = build.program().simulate(&weights, &inputs).unwrap().outputs;
        let bytes = |tensors: &[Tensor]| tensors.iter().flat_map(|tensor| tensor.bytes().unwrap().to_vec()).collect();
        BTreeMap::from([
            ("program".to_owned(), build.program().encode()),
            ("schedule".to_owned(), build.program().schedule_text().into_bytes()),
            ("report".to_owned(), format!("{:?}", build.report()).into_bytes()),
            ("evaluated".to_owned(), bytes(&evaluated)),
            ("outputs".to_owned(), bytes(&outputs)),
            ("weights".to_owned(), weights),
        ])
    })
}

#[test]
fn builds_and_outputs_do_not_depend_on_the_run_or_the_number_of_threads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    for model in ["bert.legacy", "llama-kv.op23", "vit.legacy-qop", "mixtral-kv.dynamo", "bert.legacy-qdq-u8i8-perchan"]
    {
        let folder = root.join(model);
        let first = artifacts(&folder, 1);
        assert!(first == artifacts(&folder, 1), "{model}: two runs differ");
        assert!(first == artifacts(&folder, 2), "{model}: one and two threads differ");
    }
}
