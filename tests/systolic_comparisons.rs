//! Systolic machines against what others say of them: the sums of SCALE-Sim to the cycle, ZigZag's best as a bound. The table
//! of all comparisons is `targets/systolic/COMPARISONS.md`.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod common;

use std::fmt::Write as _;
use std::path::Path;

use common::Dim;
use onnx_protobuf::TensorProto;
use tcc::onnx::import::ImportOptions;
use tcc::{Build, Compiler};
use tcc_ir::{Shape, Tensor, evaluate};

/// ONNX's numbers of element types.
const F32: i32 = 1;
const I8: i32 = 3;
const I32: i32 = 6;

/// What is multiplied.
#[derive(Clone, Copy, PartialEq)]
enum Elements {
    Floats,
    Integers,
}

/// A product of M by K and K by N, as M, N, K.
type Sizes = [usize; 3];

/// A model of one product, whose right operand is a weight, built for a machine.
fn product([m, n, k]: Sizes, elements: Elements, machine: &str) -> Build {
    let dims = |rows: usize, columns: usize| [Dim::N(rows as i64), Dim::N(columns as i64)];
    // Small numbers that differ from each other, so that nothing is found to be constant.
    let value = |index: usize| (index * 7 % 13) as i8 - 6;
    let weight = TensorProto { name: "b".to_owned(), dims: vec![k as i64, n as i64], ..TensorProto::new() };
    let (node, types, weight) = match elements {
        Elements::Floats => {
            let data = (0..k * n).flat_map(|index| f32::from(value(index)).to_le_bytes()).collect();
            ("MatMul", [F32, F32], TensorProto { data_type: F32, raw_data: data, ..weight })
        }
        Elements::Integers => {
            let data = (0..k * n).map(|index| value(index) as u8).collect();
            ("MatMulInteger", [I8, I32], TensorProto { data_type: I8, raw_data: data, ..weight })
        }
    };
    let model = common::model(
        vec![common::port_of("a", &dims(m, k), types[0])],
        vec![common::port_of("c", &dims(m, n), types[1])],
        vec![common::node(node, &["a", "b"], "c")],
        vec![weight],
    );
    let folder = tempfile::tempdir().unwrap();
    let path = common::write_model(folder.path(), "product.onnx", &model);
    Compiler::for_target(machine).unwrap().import(&path, &ImportOptions::default()).unwrap().compile().unwrap()
}

fn cycles(sizes: Sizes, elements: Elements, machine: &str) -> u64 {
    product(sizes, elements, machine).report().cycles
}

/// SCALE-Sim 3.0.0 on the machine files that are made after it: machine, sizes, and the cycles that it reports, which are one
/// fewer than the sum of its folds.
const SCALE_SIM: [(&str, Sizes, u64); 12] = [
    ("scalesim-ws-32", [64, 64, 64], 631),
    ("scalesim-ws-32", [128, 768, 768], 127_871),
    ("scalesim-ws-32", [128, 3072, 768], 511_487),
    ("scalesim-os-32", [64, 64, 64], 503),
    ("scalesim-os-32", [128, 768, 768], 79_679),
    ("scalesim-os-32", [128, 3072, 768], 318_719),
    ("scalesim-ws-128", [64, 64, 64], 445),
    ("scalesim-ws-128", [128, 768, 768], 18_359),
    ("scalesim-ws-128", [128, 3072, 768], 73_439),
    ("scalesim-os-128", [64, 64, 64], 317),
    ("scalesim-os-128", [128, 768, 768], 6_131),
    ("scalesim-os-128", [128, 3072, 768], 24_527),
];

/// ZigZag 3.9.1 on its `tpu_like`: sizes, and the least cycles that its search finds.
const ZIGZAG: [(Sizes, u64); 2] = [([128, 768, 768], 98_367), ([1, 4096, 4096], 2_097_759)];

/// Cycles by the closed forms of the dataflows without overlap: M, N, K on an array of so many rows and columns.
fn closed_form(machine: &str, [m, n, k]: Sizes) -> u64 {
    let side = if machine.ends_with("128") { 128 } else { 32 };
    let folds = |a: usize, b: usize| a.div_ceil(side) * b.div_ceil(side);
    let sum = match machine.contains("-ws-") {
        true => folds(k, n) * (m + 2 * side + side - 2),
        false => folds(m, n) * (k + side + side - 2),
    };
    sum as u64
}

#[test]
fn scale_sim_counts_the_same() {
    for (machine, sizes, reported) in SCALE_SIM {
        assert_eq!(closed_form(machine, sizes), reported + 1, "{machine} {sizes:?}");
        for elements in [Elements::Floats, Elements::Integers] {
            assert_eq!(cycles(sizes, elements, machine), reported + 1, "{machine} {sizes:?}");
        }
    }
}

#[test]
fn closed_forms_hold_for_sizes_that_do_not_divide() {
    for machine in ["scalesim-ws-32", "scalesim-os-32", "scalesim-ws-128", "scalesim-os-128"] {
        for sizes in [[1, 1, 1], [1, 1000, 33], [33, 31, 65], [129, 257, 300], [5000, 40, 17]] {
            assert_eq!(cycles(sizes, Elements::Integers, machine), closed_form(machine, sizes), "{machine} {sizes:?}");
        }
    }
}

#[test]
fn what_is_compared_computes_the_product() {
    let [m, n, k] = [40, 50, 70];
    for machine in ["scalesim-ws-32", "scalesim-os-32", "tpu-like-32", "gemmini"] {
        let build = product([m, n, k], Elements::Integers, machine);
        let a: Vec<i8> = (0..m * k).map(|index| (index * 5 % 17) as i8 - 8).collect();
        let a = Tensor::from_vec(Shape::new([m, k]).unwrap(), a).unwrap();
        let expected = evaluate(build.graph(), std::slice::from_ref(&a)).unwrap();
        let mut weights = Vec::new();
        build.program().write_weights(&mut weights).unwrap();
        let simulated = build.program().simulate(&weights, &[a]).unwrap();
        assert_eq!(simulated.outputs[0].bytes().unwrap(), expected[0].bytes().unwrap(), "{machine}");
        assert_eq!(simulated.cycles, build.report().cycles, "{machine}");
    }
}

#[test]
fn zigzag_finds_nothing_faster() {
    for (sizes, best) in ZIGZAG {
        let cycles = cycles(sizes, Elements::Integers, "tpu-like-32");
        assert!(cycles <= best, "{sizes:?}: {cycles} and not {best}");
    }
}

#[test]
fn the_table_is_up_to_date() {
    let mut text = "# Comparisons of the systolic machines\n\n\
        Products of one weight, compiled like any model; `UPDATE_COMPARISONS=1 cargo test --test systolic_comparisons` writes \
        this page.\n\n\
        ## SCALE-Sim\n\n\
        SCALE-Sim 3.0.0 without stalls, on machine files with the same array, the same dataflow and no overlap, in which \
        nothing but the array takes time. It reports one cycle fewer than its folds take together; that is added here.\n\n\
        | machine | M | N | K | SCALE-Sim + 1 | tcc |\n|---|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for (machine, sizes @ [m, n, k], reported) in SCALE_SIM {
        let cycles = cycles(sizes, Elements::Integers, machine);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {machine} | {m} | {n} | {k} | {} | {cycles} |", reported + 1);
    }
    text.push_str(
        "\n## ZigZag\n\n\
         ZigZag 3.9.1 on its example `tpu_like`: the least latency that its search finds. Its DRAM has one port for both \
         directions, ours a channel for each; it adds up loading, computing and storing, which overlap here.\n\n\
         | machine | M | N | K | ZigZag | tcc |\n|---|--:|--:|--:|--:|--:|\n",
    );
    for (sizes @ [m, n, k], best) in ZIGZAG {
        let cycles = cycles(sizes, Elements::Integers, "tpu-like-32");
        let _ = writeln!(text, "| tpu-like-32 | {m} | {n} | {k} | {best} | {cycles} |");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/systolic/COMPARISONS.md");
    if std::env::var_os("UPDATE_COMPARISONS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(held, text, "run `UPDATE_COMPARISONS=1 cargo test --test systolic_comparisons`");
}
