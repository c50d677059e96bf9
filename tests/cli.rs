//! The command line when things are wrong, and when they are right: one clear message that names what is at fault, the
//! documented exit code, and nothing half-written.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{
    Array, Dim, Run, external, floats, model, names, node, port, small_model, tcc, tensor, write_model, write_npz,
};
use tempfile::TempDir;

/// A folder with `small.onnx` and the inputs for it.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), "small.onnx", &small_model());
    write_npz(&folder.path().join("x.npz"), &[floats("x", &[2, 4], &[0.5; 8])]);
    folder
}

/// Runs a command that must fail, checks what holds for every failure, and returns its message.
fn fails(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let before = names(folder);
    let Run { code: actual, stdout, stderr } = tcc(folder, arguments);
    assert_eq!(actual, code, "{arguments:?}\n{stdout}{stderr}");
    assert_eq!(stdout, "", "{arguments:?}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    for sign_of_a_defect in ["panicked", "RUST_BACKTRACE", "Some(", "Err(", "defect in tcc"] {
        assert!(!stderr.contains(sign_of_a_defect), "{stderr}");
    }
    assert_eq!(names(folder), before, "{arguments:?} left something behind");
    stderr.trim_end().to_owned()
}

/// [`fails`] for a build of `model`.
fn build_fails(folder: &Path, code: i32, model: &str) -> String {
    fails(folder, code, &["build", model, "--target", "systolic", "-o", "out"])
}

#[test]
fn help_documents_the_exit_codes() {
    let help = tcc(Path::new("."), &["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(help.stdout);
}

#[test]
fn wrong_arguments_are_wrong_usage() {
    let folder = workplace();
    for arguments in [
        &["build"][..],
        &["bulid", "small.onnx"],
        &["build", "small.onnx", "--target", "systolic", "-o", "out", "--dim", "batch"],
        &["build", "small.onnx", "--target", "systolic", "-o", "out", "--dim", "batch=-1"],
        &["build", "small.onnx", "--target", "systolic", "-o", "out", "--dim", "=1"],
        &["build", "small.onnx", "--target", "systolic", "-o", "out", "--threads", "0"],
        &["build", "small.onnx", "--target", "", "-o", "out"],
    ] {
        let run = tcc(folder.path(), arguments);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    }
    let twice = &["build", "small.onnx", "--target", "systolic", "-o", "out", "--dim", "n=1", "--dim", "n=2"];
    insta::assert_snapshot!(fails(folder.path(), 2, twice));
}

#[test]
fn targets_that_are_not_known() {
    let folder = workplace();
    fs::write(folder.path().join("bad.toml"), "name = \"bad\"\nkind = \"systolic\"\nclock_hz = \"fast\"\n").unwrap();
    let message = |target| fails(folder.path(), 2, &["build", "small.onnx", "--target", target, "-o", "out"]);
    assert!(message("systollic").contains("did you mean `systolic`?"), "{}", message("systollic"));
    insta::assert_snapshot!(message("nowhere/machine.toml"));
    let syntax = message("bad.toml");
    assert!(syntax.contains("bad.toml") && syntax.contains("clock_hz"), "{syntax}");
}

#[test]
fn files_that_are_no_models() {
    let folder = workplace();
    let whole = fs::read(folder.path().join("small.onnx")).unwrap();
    fs::write(folder.path().join("truncated.onnx"), &whole[..whole.len() - 7]).unwrap();
    // Bytes without a pattern, but the same in each run.
    let random: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(folder.path().join("random.onnx"), random).unwrap();
    fs::write(folder.path().join("empty.onnx"), []).unwrap();
    fs::create_dir(folder.path().join("folder.onnx")).unwrap();
    for (code, model) in
        [(1, "truncated.onnx"), (1, "random.onnx"), (1, "empty.onnx"), (2, "folder.onnx"), (2, "missing.onnx")]
    {
        let message = build_fails(folder.path(), code, model);
        assert!(message.contains(model), "{message}");
        assert!(fails(folder.path(), code, &["inspect", model]).contains(model));
    }
}

#[test]
fn models_that_cannot_be() {
    let folder = workplace();
    let dims = [Dim::N(2), Dim::N(4)];
    let simple = |nodes, initializers| model(vec![port("x", &dims)], vec![port("y", &dims)], nodes, initializers);
    let secret = folder.path().join("secret");
    fs::write(&secret, vec![0; 32]).unwrap();
    let inner = folder.path().join("model");
    fs::create_dir(&inner).unwrap();
    let add = || vec![node("Add", &["x", "w"], "y")];
    for (name, model) in [
        (
            "cyclic",
            simple(
                vec![node("Add", &["x", "b"], "a"), node("Add", &["a", "x"], "b"), node("Abs", &["b"], "y")],
                vec![],
            ),
        ),
        ("huge", simple(add(), vec![tensor("w", &[1 << 40, 1 << 40], vec![])])),
        ("unknown_operators", simple(vec![node("Frobnicate", &["x"], "a"), node("Twist", &["a"], "y")], vec![])),
        ("outside", simple(add(), vec![external("w", &[2, 4], "../secret")])),
        ("undefined", simple(vec![node("Abs", &["nothing"], "y")], vec![])),
        ("mismatched", simple(add(), vec![tensor("w", &[3], vec![0.0; 3])])),
    ] {
        let file = format!("{name}.onnx");
        write_model(&inner, &file, &model);
        insta::assert_snapshot!(name, build_fails(folder.path(), 1, &format!("model/{file}")));
    }
}

#[cfg(unix)]
#[test]
fn external_data_behind_a_link_is_not_followed() {
    let folder = workplace();
    let inner = folder.path().join("model");
    fs::create_dir(&inner).unwrap();
    fs::write(folder.path().join("secret"), vec![0; 32]).unwrap();
    std::os::unix::fs::symlink("../secret", inner.join("weights")).unwrap();
    let dims = [Dim::N(2), Dim::N(4)];
    let nodes = vec![node("Add", &["x", "w"], "y")];
    let weights = vec![external("w", &[2, 4], "weights")];
    write_model(&inner, "link.onnx", &model(vec![port("x", &dims)], vec![port("y", &dims)], nodes, weights));
    insta::assert_snapshot!(build_fails(folder.path(), 1, "model/link.onnx"));
}

#[test]
fn dimensions_that_are_missing_or_misspelt() {
    let folder = workplace();
    let dims = [Dim::Free("batch"), Dim::N(4)];
    let nodes = vec![node("Abs", &["x"], "y")];
    write_model(folder.path(), "free.onnx", &model(vec![port("x", &dims)], vec![port("y", &dims)], nodes, vec![]));
    insta::assert_snapshot!("missing_dimension", build_fails(folder.path(), 2, "free.onnx"));
    let misspelt = &["build", "free.onnx", "--target", "systolic", "-o", "out", "--dim", "bacth=1"];
    insta::assert_snapshot!("unknown_dimension", fails(folder.path(), 2, misspelt));
}

#[test]
fn inputs_that_do_not_fit() {
    let folder = workplace();
    let half = vec![0; 16];
    for (name, arrays) in [
        ("wrong_name", vec![floats("X1", &[2, 4], &[0.0; 8])]),
        ("no_input", vec![]),
        ("wrong_shape", vec![floats("x", &[2, 5], &[0.0; 10])]),
        ("wrong_type", vec![Array("x", "<f2", &[2, 4], half)]),
    ] {
        let file = format!("{name}.npz");
        write_npz(&folder.path().join(&file), &arrays);
        insta::assert_snapshot!(name, fails(folder.path(), 2, &["eval", "small.onnx", "--input", &file]));
    }
    fs::write(folder.path().join("garbage.npz"), "not an archive").unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    for input in ["garbage.npz", "missing.npz", "folder"] {
        let message = fails(folder.path(), 2, &["eval", "small.onnx", "--input", input]);
        assert!(message.contains(input), "{message}");
    }
}

#[test]
fn places_that_cannot_be_written() {
    let folder = workplace();
    fs::create_dir(folder.path().join("mine")).unwrap();
    fs::write(folder.path().join("mine/thesis.txt"), "irreplaceable").unwrap();
    fs::write(folder.path().join("file"), "a file").unwrap();
    let message = |output| fails(folder.path(), 2, &["build", "small.onnx", "--target", "systolic", "-o", output]);
    insta::assert_snapshot!("folder_of_the_user", message("mine"));
    insta::assert_snapshot!("file_of_the_user", message("file"));
    insta::assert_snapshot!("below_a_file", message("file/out"));
    assert_eq!(fs::read_to_string(folder.path().join("mine/thesis.txt")).unwrap(), "irreplaceable");
    // Not even root can make a folder there; in which words the system says so is its own business.
    if cfg!(target_os = "linux") {
        assert!(message("/sys/out").starts_with("error: cannot write /sys/out: "), "{}", message("/sys/out"));
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_finished_leaves_the_earlier_one() {
    let folder = workplace();
    fs::write(folder.path().join("y.npz"), "earlier").unwrap();
    // A limit on the size of files stands in for a disk that is full.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" eval small.onnx --input x.npz --output y.npz";
    let run: Run = Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", script, env!("CARGO_BIN_EXE_tcc")])
        .output()
        .unwrap()
        .into();
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
    assert!(run.stderr.starts_with("error: `y.npz`: "), "{}", run.stderr);
    assert_eq!(fs::read_to_string(folder.path().join("y.npz")).unwrap(), "earlier");
    assert_eq!(names(folder.path()), ["small.onnx", "x.npz", "y.npz"]);
}

/// A disk of 512 KiB, in a mount namespace of its own: what is on it is gone with the shell. Not every system allows that.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_is_left_as_it_was() {
    let folder = workplace();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/bert.legacy");
    let run = |command: &str| -> Option<Run> {
        let script =
            format!("mount -t tmpfs -o size=512k tmpfs disk || exit 77; {command}; code=$?; ls -A disk; exit $code");
        let run: Run = Command::new("unshare")
            .current_dir(folder.path())
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_tcc")])
            .arg(&model)
            .output()
            .ok()?
            .into();
        let allowed = run.code != 77 && !run.stderr.contains("unshare");
        allowed.then_some(run)
    };
    let build = run("\"$0\" build \"$1/model.onnx\" --target systolic --shapes-from \"$1/inputs_0.npz\" -o disk/out");
    let eval = run(
        "head -c 524288 /dev/zero > disk/z; \"$0\" eval \"$1/model.onnx\" --input \"$1/inputs_0.npz\" --output disk/y.npz",
    );
    let (Some(build), Some(eval)) = (build, eval) else {
        eprintln!("skipped: this system lets nobody mount a small disk");
        return;
    };
    assert_eq!((build.code, build.stdout.as_str()), (2, ""), "{}", build.stderr);
    assert!(build.stderr.starts_with("error: cannot write disk/out/"), "{}", build.stderr);
    assert!(build.stderr.ends_with(": the disk is full\n"), "{}", build.stderr);
    assert_eq!((eval.code, eval.stdout.as_str()), (2, "z\n"), "{}", eval.stderr);
    assert_eq!(eval.stderr, "error: `disk/y.npz`: the disk is full\n");
}

#[test]
fn outputs_that_cannot_be_written_are_told_before_the_work() {
    let folder = workplace();
    // The input is not there either: what is told first is checked first.
    let message = fails(folder.path(), 2, &["eval", "small.onnx", "--input", "none.npz", "--output", "gone/y.npz"]);
    assert_eq!(message, "error: `gone/y.npz`: the folder that it would be in does not exist");
}

#[test]
fn folders_that_are_no_builds() {
    let folder = workplace();
    fs::create_dir(folder.path().join("other")).unwrap();
    fs::create_dir(folder.path().join("damaged")).unwrap();
    fs::write(folder.path().join("damaged/program.tcc"), b"\x0a\x0btcc program\xff\xff").unwrap();
    fs::create_dir(folder.path().join("newer")).unwrap();
    fs::write(folder.path().join("newer/program.tcc"), b"\x0a\x0btcc program\x10\x63\x1a\x039.9").unwrap();
    for (code, build) in [(2, "missing"), (2, "other"), (1, "damaged"), (1, "newer")] {
        insta::assert_snapshot!(format!("open_{build}"), fails(folder.path(), code, &["report", build]));
        fails(folder.path(), code, &["run", build, "--input", "x.npz"]);
    }
}

#[test]
fn evaluates_and_writes_outputs() {
    let folder = workplace();
    let run = tcc(folder.path(), &["eval", "small.onnx", "--input", "x.npz", "--output", "y.npz"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(run.stdout);
    let again = tcc(folder.path(), &["eval", "small.onnx", "--input", "x.npz", "--output", "z.npz", "--threads", "1"]);
    assert_eq!(again.code, 0);
    let bytes = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("y.npz"), bytes("z.npz"));
    assert_eq!(names(folder.path()), ["small.onnx", "x.npz", "y.npz", "z.npz"]);
}

#[test]
fn inspects_all_at_once() {
    let folder = workplace();
    let dims = [Dim::Free("batch"), Dim::N(4)];
    let nodes = vec![node("Frobnicate", &["x"], "a"), node("Add", &["a", "w"], "b"), node("Twist", &["b"], "y")];
    let inspected = model(vec![port("x", &dims)], vec![port("y", &dims)], nodes, vec![tensor("w", &[4], vec![0.0; 4])]);
    write_model(folder.path(), "odd.onnx", &inspected);
    let run = tcc(folder.path(), &["inspect", "odd.onnx"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(run.stdout);
    let json = tcc(folder.path(), &["inspect", "odd.onnx", "--format", "json"]);
    insta::assert_snapshot!("inspects_all_at_once_json", json.stdout);
}

#[test]
fn builds_runs_checks_and_reports() {
    let folder = workplace();
    let build = |out: &str, threads: &str| {
        let run = tcc(
            folder.path(),
            &["build", "small.onnx", "--target", "systolic", "-o", out, "--threads", threads, "--format", "json"],
        );
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        run.stdout
    };
    let json = build("out", "1");
    assert_eq!(json, build("out", "2"));
    assert_eq!(json, fs::read_to_string(folder.path().join("out/report.json")).unwrap());
    assert_eq!(names(folder.path()), ["out", "small.onnx", "x.npz"]);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let cycles = report["cycles"].as_u64().unwrap();

    let run = tcc(folder.path(), &["run", "out", "--input", "x.npz", "--output", "y.npz", "--check"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    assert_eq!(run.stdout.lines().last(), Some(format!("cycles: {cycles}").as_str()));
    assert!(run.stdout.contains("  ok\n"), "{}", run.stdout);
    let text = tcc(folder.path(), &["report", "out"]);
    assert_eq!((text.code, text.stdout.lines().next()), (0, Some("small on systolic-128 (systolic)")));
    let html = tcc(folder.path(), &["report", "out", "--format", "html"]);
    assert!(html.code == 0 && html.stdout.ends_with("</html>\n"));
    let table = tcc(folder.path(), &["compare", "small.onnx", "--target", "systolic", "--format", "json"]);
    assert_eq!((table.code, table.stderr.as_str()), (0, ""));
    let table: serde_json::Value = serde_json::from_str(&table.stdout).unwrap();
    assert_eq!(table[0], report);

    write_npz(&folder.path().join("z.npz"), &[floats("z", &[2, 4], &[0.0; 8])]);
    insta::assert_snapshot!("run_wrong_name", fails(folder.path(), 2, &["run", "out", "--input", "z.npz"]));
    fs::write(folder.path().join("out/model/model.onnx"), "another").unwrap();
    let changed = fails(folder.path(), 1, &["run", "out", "--input", "x.npz", "--check"]);
    insta::assert_snapshot!("run_changed_model", changed);

    let bare = tcc(folder.path(), &["build", "small.onnx", "--target", "systolic", "-o", "out", "--no-weights"]);
    assert_eq!((bare.code, bare.stderr.as_str()), (0, ""));
    insta::assert_snapshot!("run_no_weights", fails(folder.path(), 2, &["run", "out", "--input", "x.npz"]));
}

#[test]
fn every_kind_of_machine_builds_runs_and_is_compared() {
    let folder = workplace();
    let targets = ["systolic", "lpu", "lpu-mini"];
    let mut reports = Vec::new();
    for target in targets {
        let build = ["build", "small.onnx", "--target", target, "-o", target, "--format", "json"];
        let build = tcc(folder.path(), &build);
        assert_eq!((build.code, build.stderr.as_str()), (0, ""));
        let report: serde_json::Value = serde_json::from_str(&build.stdout).unwrap();
        let run = tcc(folder.path(), &["run", target, "--input", "x.npz", "--check"]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
        assert!(run.stdout.contains("  ok\n"), "{}", run.stdout);
        let cycles = format!("cycles: {}", report["cycles"]);
        assert_eq!(run.stdout.lines().last(), Some(cycles.as_str()));
        reports.push(report);
    }
    let compare = |format: &str| {
        let common = ["compare", "small.onnx", "--format", format];
        let targets = targets.iter().flat_map(|target| ["--target", target]);
        let run = tcc(folder.path(), &common.into_iter().chain(targets).collect::<Vec<_>>());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        run.stdout
    };
    // The fastest comes first.
    reports.sort_by(|a, b| a["seconds"].as_f64().unwrap().total_cmp(&b["seconds"].as_f64().unwrap()));
    let compared: serde_json::Value = serde_json::from_str(&compare("json")).unwrap();
    assert_eq!(compared, serde_json::Value::from(reports));
    let table = compare("text");
    for machine in ["systolic-128", "groq-tsp", "lpu-mini"] {
        assert!(table.contains(machine), "{table}");
    }
}

#[cfg(unix)]
#[test]
fn a_build_that_cannot_be_finished_leaves_the_earlier_one() {
    let folder = workplace();
    let arguments = ["build", "small.onnx", "--target", "systolic", "-o", "out"];
    assert_eq!(tcc(folder.path(), &arguments).code, 0);
    let earlier = fs::read(folder.path().join("out/report.json")).unwrap();
    // A limit on the size of files stands in for a disk that is full.
    let script = format!("trap '' XFSZ; ulimit -f 0; exec \"$0\" {}", arguments.join(" "));
    let run: Run = Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", &script, env!("CARGO_BIN_EXE_tcc")])
        .output()
        .unwrap()
        .into();
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
    assert!(run.stderr.starts_with("error: cannot write out/"), "{}", run.stderr);
    assert_eq!(names(folder.path()), ["out", "small.onnx", "x.npz"]);
    assert_eq!(fs::read(folder.path().join("out/report.json")).unwrap(), earlier);
}

#[test]
fn machines_and_completions_are_printed() {
    let list = tcc(Path::new("."), &["machines"]);
    assert_eq!(list.code, 0);
    for (kind, default, table) in [("systolic", "systolic-128", "[systolic.array]"), ("lpu", "groq-tsp", "[lpu.mem]")] {
        assert!(list.stdout.lines().any(|line| line.contains(default) && line.contains(kind)), "{}", list.stdout);
        let file = tcc(Path::new("."), &["machines", kind]);
        assert!(file.code == 0 && file.stdout.contains(table), "{}", file.stdout);
        assert!(file.stdout.contains(&format!("name = \"{default}\"")), "{}", file.stdout);
    }
    let script = tcc(Path::new("."), &["completions", "bash"]);
    assert!(script.code == 0 && script.stdout.contains("_tcc"), "{}", script.stdout);
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcc"))
        .args(["machines", "systolic"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}
