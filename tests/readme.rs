//! The README shows what the commands in it print.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod common;

use std::fs;
use std::path::Path;

/// How the README calls the command line.
const TCC: &str = "cargo run --release -- ";

/// What stands between a command and its output.
const BETWEEN: &str = "```\n\n```text\n";

#[test]
fn commands_print_what_is_shown() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let mut blocks = readme.split("```sh\n");
    let mut actual = blocks.next().unwrap().to_owned();
    let mut shown = 0;
    for block in blocks {
        actual.push_str("```sh\n");
        let (command, rest) = block.split_once('\n').unwrap();
        let output = rest.strip_prefix(BETWEEN).and_then(|rest| rest.split_once("```\n"));
        let (Some(arguments), Some((_, rest))) = (command.strip_prefix(TCC), output) else {
            actual.push_str(block);
            continue;
        };
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let run = common::tcc(root, &arguments);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{command}");
        actual += &format!("{command}\n{BETWEEN}{}```\n{rest}", run.stdout);
        shown += 1;
    }
    assert!(shown > 0, "the README shows no output");
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(root.join("README.md"), actual).unwrap();
    } else {
        assert_eq!(readme, actual, "run `UPDATE_README=1 cargo test --test readme`");
    }
}
