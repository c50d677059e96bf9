//! Quantisation, through the library and the command line: float models on machines that multiply integers, and models that
//! were exported in integers.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::path::{Path, PathBuf};

use common::models::{self, bounds_of_halves, folder, load, of_onnx_runtime, shipped, weights};
use common::{Array, Dim, Run, floats, model, node, port, tcc, tensor, write_model, write_npz};
use tcc::accuracy::{OutputCheck, Tolerance, compare};
use tcc::onnx::import::ImportOptions;
use tcc::onnx::tensor::Weights;
use tcc::quantization::{Quantization, QuantizationError, Sample};
use tcc::{Artifact, Build, Compiler, Error, ImportedModel, Model};
use tcc_ir::{Tensor, evaluate};
use tcc_targets::{Kind, Machine, Report};

/// Models whose weights are integers, so that they run on machines of integers as they are, and how near they come to ONNX
/// Runtime's outputs, in decibels.
const INTEGER_MODELS: [(&str, f64); 4] = [
    ("bert.legacy-dynq-i8", 30.0),
    ("bert.legacy-qdq-u8i8-perchan", 30.0),
    ("bert.legacy-qop", 30.0),
    ("vit.legacy-qop", 30.0),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn model_path(name: &str) -> PathBuf {
    folder(name).join("model.onnx")
}

fn inputs_path(name: &str, set: usize) -> PathBuf {
    folder(name).join(format!("inputs_{set}.npz"))
}

/// The test machine that multiplies integers alone, and all built-in ones that do.
fn integer_machines() -> Vec<Compiler> {
    let text = std::fs::read_to_string(root().join("tests/machines/int8-16.toml")).unwrap();
    let own = Machine::parse("int8-16", &text).unwrap();
    let compilers = std::iter::once(own).chain(Machine::built_in().unwrap()).map(|machine| {
        let floats = Compiler::for_machine(machine).unwrap();
        (floats.multiplies_floats(), floats)
    });
    compilers.filter(|(floats, _)| !floats).map(|(_, compiler)| compiler).collect()
}

/// Runs a build, and compares its outputs with those expected.
fn run(build: &Build, inputs: &[Tensor], expected: &[Tensor], tolerance: &Tolerance) -> Vec<OutputCheck> {
    let simulation = build.program().simulate(&weights(build), inputs).unwrap();
    assert_eq!(simulation.cycles, build.report().cycles);
    let names = build.program().outputs().iter().map(|port| &port.name);
    let pairs = names.zip(expected).zip(&simulation.outputs);
    pairs.map(|((name, expected), actual)| compare(name, expected, actual, tolerance).unwrap()).collect()
}

/// The model quantised with the first of its other inputs that take the same branch of it, or with its own if it has no others.
fn calibrated(compiler: &Compiler, name: &str, set: usize) -> Option<Model> {
    let (model, _) = load(&folder(name), set).unwrap();
    let others: Vec<usize> =
        (0..).take_while(|&other| inputs_path(name, other).exists()).filter(|&other| other != set).collect();
    let others = if others.is_empty() { vec![set] } else { others };
    others.into_iter().find_map(|other| {
        let sample = Sample::read(&model_path(name), &model, &inputs_path(name, other)).unwrap();
        match compiler.with_model(model.clone()).quantize(&[sample]) {
            Ok(model) => Some(model),
            Err(Error::Quantization(QuantizationError::OtherProducts(_))) => None,
            Err(error) => panic!("{name}: {error}"),
        }
    })
}

/// Outputs whose relative error says little: a probability of about a thousandth that is e to the power of what the model
/// computes, with the error that it may have.
const ILL_CONDITIONED: [(&str, &str, f64); 1] = [("pkg-silero-vad-seq", "speech_probs", 1e-3)];

/// All float models, calibrated with inputs and checked with others, and with scales found at run time.
fn quantized_models_reach_20_db(compiler: &Compiler) {
    let mut failures = Vec::new();
    let mut table = String::new();
    let names: Vec<String> = shipped().iter().map(|folder| models::name(folder)).collect();
    for name in names.iter().filter(|name| !INTEGER_MODELS.iter().any(|(model, _)| model == name)) {
        for calibrates in [true, false] {
            let (mut least, mut runs) = (f64::INFINITY, 0);
            // The first inputs are to calibrate with, and checked only where there are no others.
            for set in usize::from(calibrates && inputs_path(name, 1).exists()).. {
                let Some((model, inputs)) = load(&folder(name), set) else { break };
                let expected = evaluate(model.graph(), &inputs).unwrap();
                let quantized = match calibrates {
                    true => calibrated(compiler, name, set),
                    false => Some(compiler.with_model(model).quantize(&[]).unwrap()),
                };
                let Some(quantized) = quantized else { continue };
                runs += 1;
                let build = quantized.compile().unwrap();
                assert!(build.quantization().is_some());
                for check in run(&build, &inputs, &expected, &Tolerance::QUANTIZED) {
                    let ill = ILL_CONDITIONED.iter().find(|(model, output, _)| model == name && *output == check.name);
                    if let Some((_, _, most)) = ill {
                        assert!(check.max_error < *most, "{name} {set} `{}`: {}", check.name, check.max_error);
                        continue;
                    }
                    least = least.min(check.snr_db);
                    failures.extend(check.failure.map(|why| format!("{name} {set} `{}`: {why}", check.name)));
                }
            }
            assert!(runs > 0, "{name}");
            let kind = if calibrates { "calibrated" } else { "dynamic" };
            table += &format!("{name:<32} {kind:<10} {least:5.1} dB in {runs} runs\n");
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{}\n{table}", failures.join("\n"));
}

#[test]
fn quantized_models_reach_20_db_where_only_integers_are_multiplied() {
    quantized_models_reach_20_db(&integer_machines()[0]);
}

#[test]
fn quantized_models_reach_20_db_where_floats_are_multiplied_too() {
    quantized_models_reach_20_db(&Compiler::for_target("systolic").unwrap());
}

#[test]
fn integer_models_run_natively_on_machines_of_integers() {
    let compilers = integer_machines();
    assert!(compilers.len() > 2, "there are no built-in machines of integers");
    for compiler in compilers {
        let machine = compiler.machine().name.clone();
        for (name, decibel) in INTEGER_MODELS {
            for set in 0.. {
                let Some((model, inputs)) = load(&folder(name), set) else { break };
                let reference = evaluate(model.graph(), &inputs).unwrap();
                let build = compiler.with_model(model).compile().unwrap();
                let left = build.report().notes.iter().any(|note| note.contains("of floats"));
                // Dynamic quantisation leaves the products of an attention in floats, which the report says.
                assert_eq!(left, name.contains("dynq"), "{machine} {name}");
                let expected = of_onnx_runtime(&folder(name), set, &build);
                // Sums of integers are exact; what is between them rounds in binary32 as the reference does. ONNX Runtime's
                // own float kernels round otherwise, which may tip a value to the next integer.
                for (what, outputs, least) in
                    [("the reference", &reference, 120.0), ("ONNX Runtime", &expected, decibel)]
                {
                    for check in run(&build, &inputs, outputs, &Tolerance::of(compiler.machine())) {
                        let (output, snr) = (&check.name, check.snr_db);
                        assert_eq!(check.failure, None, "{machine} {name} {set} `{output}`");
                        assert!(snr >= least, "{machine} {name} {set} `{output}`: {snr} dB from {what}");
                    }
                }
            }
        }
    }
}

/// A folder with a build of `bert.legacy` on the test machine, and the command's output.
fn build_bert(folder: &Path, output: &str, arguments: &[&str]) -> Run {
    let (model, machine) = (model_path("bert.legacy"), root().join("tests/machines/int8-16.toml"));
    let shapes = inputs_path("bert.legacy", 1);
    let mut all = vec!["build", model.to_str().unwrap(), "--target", machine.to_str().unwrap()];
    all.extend(["--shapes-from", shapes.to_str().unwrap(), "-o", output]);
    all.extend(arguments);
    tcc(folder, &all)
}

#[test]
fn a_float_model_on_a_machine_of_integers_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let Run { code, stdout, stderr } = build_bert(folder.path(), "out", &[]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    insta::assert_snapshot!(stderr);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_quantised_build_is_checked_against_the_model_in_floats() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (inputs_path("bert.legacy", 0), inputs_path("bert.legacy", 1));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    for (calibrate, note) in [
        (&[][..], "found at run time, for each row"),
        (&["--calibrate", first], "come from 1 calibration input"),
        (&["--calibrate", first, "--calibrate", second], "come from 2 calibration inputs"),
    ] {
        let flags = [&["--quantize", "int8"], calibrate].concat();
        let build = build_bert(folder.path(), "out", &flags);
        assert_eq!((build.code, build.stderr.as_str()), (0, ""));
        assert!(build.stdout.contains("17 products of floats multiply 8-bit integers"), "{}", build.stdout);
        let report = tcc(folder.path(), &["report", "out", "--format", "json"]);
        for text in [&build.stdout, &report.stdout] {
            assert!(text.contains("quantised with --quantize int8") && text.contains(note), "{text}");
        }
        let run = tcc(folder.path(), &["run", "out", "--input", second, "--check"]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
        assert!(run.stdout.contains("the model before it was quantised; 20 dB must be reached"), "{}", run.stdout);
        let artifact = Artifact::open(&folder.path().join("out")).unwrap();
        assert_eq!(artifact.tolerance(), Tolerance::QUANTIZED);
        let samples = calibrate.len() / 2;
        let Some(Quantization::Products(quantization)) = artifact.quantization() else { panic!("{flags:?}") };
        assert_eq!(quantization.samples, samples);
    }
}

#[test]
fn a_quantised_build_that_is_too_far_off_fails_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let dims = [Dim::N(2), Dim::N(4)];
    let product = model(
        vec![port("x", &dims)],
        vec![port("y", &dims)],
        vec![node("MatMul", &["x", "w"], "y")],
        vec![tensor("w", &[4, 4], (0..16u8).map(f32::from).collect())],
    );
    write_model(folder.path(), "product.onnx", &product);
    write_npz(&folder.path().join("small.npz"), &[floats("x", &[2, 4], &[0.001; 8])]);
    write_npz(&folder.path().join("large.npz"), &[floats("x", &[2, 4], &[1.0; 8])]);
    let build = ["build", "product.onnx", "--target", "systolic", "-o", "out", "--quantize", "int8"];
    let build = tcc(folder.path(), &[&build[..], &["--calibrate", "small.npz"]].concat());
    assert_eq!((build.code, build.stderr.as_str()), (0, ""));
    assert_eq!(tcc(folder.path(), &["run", "out", "--input", "small.npz", "--check"]).code, 0);
    let run = tcc(folder.path(), &["run", "out", "--input", "large.npz", "--check"]);
    assert_eq!(run.code, 1);
    insta::assert_snapshot!(run.stderr);
}

#[test]
fn quantised_builds_do_not_depend_on_the_run_or_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let first = inputs_path("bert.legacy", 0);
    for flags in [&["--quantize", "int8"][..], &["--quantize", "int8", "--calibrate", first.to_str().unwrap()]] {
        for (output, threads) in [("a", "1"), ("b", "1"), ("c", "2")] {
            let build = build_bert(folder.path(), output, &[flags, &["--threads", threads]].concat());
            assert_eq!((build.code, build.stderr.as_str()), (0, ""));
            for file in ["program.tcc", "weights.bin", "report.json", "schedule.txt"] {
                let read = |build: &str| std::fs::read(folder.path().join(build).join(file)).unwrap();
                assert!(read("a") == read(output), "{file} {output}");
            }
        }
    }
}

#[test]
fn models_without_weights_are_quantised_too() {
    let folder = tempfile::tempdir().unwrap();
    let report = |output: &str, flags: &[&str]| -> Report {
        let build = build_bert(folder.path(), output, &[&["--quantize", "int8", "--format", "json"], flags].concat());
        assert_eq!((build.code, build.stderr.as_str()), (0, ""));
        serde_json::from_str(&build.stdout).unwrap()
    };
    // Small constants are only computed with where they are known, so that kernels may differ in other ways.
    let (with, without) = (report("with", &[]), report("without", &["--no-weights"]));
    assert_eq!((with.macs, with.notes), (without.macs, without.notes));
    assert!(without.cycles < with.cycles + with.cycles / 10, "{} {}", without.cycles, with.cycles);
}

#[test]
fn wrong_arguments_of_quantisation_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    write_npz(&folder.path().join("wrong.npz"), &[floats("x", &[1], &[0.0])]);
    let ids = |name| Array(name, "<f4", &[1, 2], vec![0; 8]);
    write_npz(&folder.path().join("floats.npz"), &[ids("input_ids"), ids("attention_mask"), ids("token_type_ids")]);
    let wrong: [(&str, &[&str]); 6] = [
        ("type", &["--quantize", "int3"]),
        ("alone", &["--calibrate", "wrong.npz"]),
        ("without_weights", &["--quantize", "int8", "--calibrate", "wrong.npz", "--no-weights"]),
        ("missing", &["--quantize", "int8", "--calibrate", "missing.npz"]),
        ("name", &["--quantize", "int8", "--calibrate", "wrong.npz"]),
        ("floats", &["--quantize", "int8", "--calibrate", "floats.npz"]),
    ];
    for (name, flags) in wrong {
        let Run { code, stdout, stderr } = build_bert(folder.path(), "out", flags);
        assert_eq!((code, stdout.as_str()), (2, ""), "{name}: {stderr}");
        // Models and machines are at other places on every machine.
        insta::assert_snapshot!(format!("wrong_{name}"), stderr.replace(root().to_str().unwrap(), "…"));
        assert!(!folder.path().join("out").exists());
    }
    let inspect = tcc(root(), &["inspect", "tests/models/bert.legacy/model.onnx", "--quantize", "int8"]);
    assert_eq!(inspect.code, 2, "{}", inspect.stderr);
}

#[test]
fn machines_are_compared_with_a_quantised_model() {
    let (model, machine) = ("tests/models/vit.legacy/model.onnx", "tests/machines/int8-16.toml");
    let inputs = "tests/models/vit.legacy/inputs_0.npz";
    let compare = |flags: &[&str]| {
        let common = ["compare", model, "--target", machine, "--target", "systolic", "--shapes-from", inputs];
        tcc(root(), &[&common[..], flags].concat())
    };
    let floats = compare(&[]);
    assert!(floats.code == 1 && floats.stderr.contains("--quantize int8"), "{}", floats.stderr);
    let quantized = compare(&["--quantize", "int8", "--calibrate", inputs]);
    assert_eq!((quantized.code, quantized.stderr.as_str()), (0, ""));
    assert!(quantized.stdout.contains("int8-16") && quantized.stdout.contains("systolic-128"), "{}", quantized.stdout);
    let plan = ["inspect", model, "--plan", "--target", machine, "--shapes-from", inputs, "--quantize", "int8"];
    let plan = tcc(root(), &plan);
    assert_eq!((plan.code, plan.stderr.as_str()), (0, ""));
}

/// The machines that multiply integers alone, and all LPUs, which multiply integers as such too.
fn exact_machines() -> Vec<Compiler> {
    let lpus = Machine::built_in().unwrap().into_iter().filter(|machine| machine.kind == Kind::Lpu);
    integer_machines().into_iter().chain(lpus.map(|machine| Compiler::for_machine(machine).unwrap())).collect()
}

/// Products whose results ONNX defines to the last bit, on all machines that multiply integers as such: the very integers of
/// ONNX Runtime.
#[test]
fn integer_products_equal_those_of_onnx_runtime() {
    let folder = root().join("tests/fixtures/microsoft_ops");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| {
            ["matmulinteger_", "convinteger", "qlinearmatmul_", "qlinearconv_", "qgemm_"]
                .iter()
                .any(|p| name.starts_with(p))
        })
        .collect();
    names.sort_unstable();
    let mut integers = 0;
    let compilers = exact_machines();
    assert!(["groq-tsp", "lpu-mini"].iter().all(|lpu| compilers.iter().any(|own| own.machine().name == *lpu)));
    for name in &names {
        let tensors = tcc::tensors::read_npz(&folder.join(name).with_extension("npz")).unwrap();
        let named = |wanted: &str| {
            let found = tensors.iter().find(|tensor| tensor.name == wanted);
            found.unwrap_or_else(|| panic!("{name} has no `{wanted}`")).tensor.clone()
        };
        let path = folder.join(name).with_extension("onnx");
        let model = ImportedModel::import(&path, &ImportOptions::default()).unwrap();
        let inputs: Vec<Tensor> =
            model.graph().inputs().iter().map(|&id| named(&model.graph().value(id).name)).collect();
        for compiler in &compilers {
            let build = compiler.with_model(model.clone()).compile().unwrap();
            let simulation = build.program().simulate(&weights(&build), &inputs).unwrap();
            for (port, actual) in build.program().outputs().iter().zip(&simulation.outputs) {
                let expected = named(&format!("expected:{}", port.name));
                if expected.dtype().is_float() {
                    continue;
                }
                let same = actual.to_f64s().unwrap() == expected.to_f64s().unwrap();
                assert!(same, "{name} on {}: `{}` differs", compiler.machine().name, port.name);
                integers += 1;
            }
        }
    }
    assert!(integers >= 20 * compilers.len(), "only {integers} results of {names:?} are integers");
}

/// Weights of four bits, on a machine that reads them so, on one that widens them, and on systolic arrays that multiply floats: as near
/// to the reference evaluation with the same weights as without quantisation.
#[test]
fn models_with_weights_of_four_bits_compute_with_those_weights() {
    let mut failures = Vec::new();
    let mut table = String::new();
    for target in ["h100", "simt-mini", "systolic"] {
        let compiler = Compiler::for_target(target).unwrap();
        for name in ["llama-kv.op23", "gpt2-kv.legacy", "bert.legacy", "bert.legacy-fp16"] {
            for set in 0.. {
                let Some((model, inputs)) = load(&folder(name), set) else { break };
                let floats = evaluate(model.graph(), &inputs).unwrap();
                let plain = compiler.with_model(model.clone()).compile().unwrap();
                let quantized = compiler.with_model(model).quantize_weights().unwrap();
                let expected = evaluate(quantized.graph(), &inputs).unwrap();
                let build = quantized.compile().unwrap();
                let Some(Quantization::Weights(weights)) = build.quantization() else { panic!("{name}") };
                assert!(weights.products >= 6 && weights.left == 0, "{name}: {weights:?}");
                assert_eq!(build.report().macs, plain.report().macs, "{target} {name} {set}");
                if (target, name, set) == ("h100", "llama-kv.op23", 1) {
                    // A step that decodes: the integers are what is stored.
                    let (few, all) = (models::weights(&build).len(), models::weights(&plain).len());
                    assert!(3 * few < all, "{few} bytes of weights, {all} without quantisation");
                }
                let near = bounds_of_halves(compiler.machine(), name).reference;
                let near = if target == "systolic" { Tolerance::of(compiler.machine()) } else { near };
                let (mut least, mut cost) = (f64::INFINITY, f64::INFINITY);
                for check in run(&build, &inputs, &expected, &near) {
                    least = least.min(check.snr_db);
                    failures.extend(check.failure.map(|why| format!("{target} {name} {set} `{}`: {why}", check.name)));
                }
                for check in run(&build, &inputs, &floats, &near) {
                    cost = cost.min(check.snr_db);
                }
                // Four bits are no more than that: it is other weights that are multiplied.
                assert!((8.0..25.0).contains(&cost), "{target} {name} {set}: {cost} dB from the model in floats");
                table += &format!("{target:<10} {name:<18} {set} {least:5.1} dB, {cost:5.1} dB from floats\n");
            }
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{}\n{table}", failures.join("\n"));
}

/// What a step that decodes reads: all weights of the model, each four bits, and a scale of 16 bits for each 32.
#[test]
fn weights_of_four_bits_are_read_as_such() {
    let path = root().join("tests/topologies/llama-3.2-1b-kv.fp16.dynamo/model.onnx");
    let dims = [("batch", 1), ("sequence", 1), ("past_sequence_length", 1023), ("total_sequence_length", 1024)];
    let dims = dims.map(|(name, extent)| (name.to_owned(), extent)).into();
    let options = ImportOptions { dims, weights: Weights::Absent, ..ImportOptions::default() };
    let compiler = Compiler::for_target("h100").unwrap();
    let floats = compiler.with_model(ImportedModel::import(&path, &options).unwrap());
    let quantized = floats.quantize_weights().unwrap();
    let [floats, quantized] = [floats, quantized].map(|model| model.compile().unwrap());
    let Some(Quantization::Weights(weights)) = quantized.quantization() else {
        panic!("{:?}", quantized.quantization())
    };
    // Seven products of each of 16 layers, and the logits, whose table gives the tokens too.
    assert_eq!((weights.products, weights.lookups, weights.left), (16 * 7 + 1, 1, 0));
    // Of 16 bits each becomes 4.5; norms and angles stay.
    let saved = |all: u64| all * 45 / 160;
    let (all, few) = (floats.program().weights_bytes(), quantized.program().weights_bytes());
    assert!(few < saved(all) + all / 200, "{few} bytes of weights, {all} without quantisation");
    let read = |build: &Build| build.report().dram_bytes;
    let others = read(&floats) - all;
    assert!(read(&quantized) < few + others + others / 10, "{} bytes read", read(&quantized));
    // Projections are put together as those of floats are.
    let launches = |build: &Build| {
        let code = build.program().code();
        let (_, main) = code.iter().find(|(path, _)| path.ends_with("main.cpp")).unwrap();
        main.matches(".launch(").count()
    };
    assert_eq!(launches(&quantized), launches(&floats));
    assert!(2 * quantized.report().cycles < floats.report().cycles + floats.report().cycles / 20);
}

#[test]
fn a_build_with_weights_of_four_bits_is_checked_with_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let model = model_path("llama-kv.op23");
    let inputs = inputs_path("llama-kv.op23", 1);
    let (model, inputs) = (model.to_str().unwrap(), inputs.to_str().unwrap());
    let build = |output: &str, flags: &[&str]| {
        let common = ["build", model, "--shapes-from", inputs, "-o", output, "--quantize", "int4"];
        tcc(folder.path(), &[&common[..], flags].concat())
    };
    let built = build("out", &["--target", "h100"]);
    assert_eq!((built.code, built.stderr.as_str()), (0, ""));
    assert!(built.stdout.contains("quantised with --quantize int4: the weights of"), "{}", built.stdout);
    let artifact = Artifact::open(&folder.path().join("out")).unwrap();
    let Some(Quantization::Weights(weights)) = artifact.quantization() else { panic!("{}", built.stdout) };
    assert!(weights.products > 10 && weights.lookups + weights.left < weights.products, "{weights:?}");
    assert_eq!(artifact.tolerance(), Tolerance::of(Compiler::for_target("h100").unwrap().machine()));
    let run = tcc(folder.path(), &["run", "out", "--input", inputs, "--check"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    for title in ["of the model with the same weights of four bits", "compared with the model in floats"] {
        assert!(run.stdout.contains(title), "{}", run.stdout);
    }
    let again = build("again", &["--target", "h100", "--threads", "1"]);
    assert_eq!((again.code, again.stderr.as_str()), (0, ""));
    for file in ["program.tcc", "weights.bin", "report.json", "schedule.txt"] {
        let read = |build: &str| std::fs::read(folder.path().join(build).join(file)).unwrap();
        assert!(read("out") == read("again"), "{file}");
    }
    let without = build("without", &["--target", "h100", "--no-weights"]);
    assert_eq!((without.code, without.stderr.as_str()), (0, ""));
    assert!(without.stdout.contains("quantised with --quantize int4"), "{}", without.stdout);
    // There is nothing to calibrate, and arrays of integers multiply no floats.
    let calibrated = build("none", &["--target", "h100", "--calibrate", inputs]);
    assert_eq!(calibrated.code, 2);
    insta::assert_snapshot!("int4_calibrated", calibrated.stderr);
    let machine = root().join("tests/machines/int8-16.toml");
    let integers = build("none", &["--target", machine.to_str().unwrap()]);
    assert_eq!(integers.code, 1);
    insta::assert_snapshot!("int4_without_floats", integers.stderr);
    assert!(!folder.path().join("none").exists());
}
