//! What Yosys makes of operators and of designs, against what is counted.
//!
//! Operators stay modules of their own (`keep_hierarchy`), so that each is mapped once however many there are, and what is built can be
//! told apart by class. `synth_xilinx` maps to the slices and blocks of UltraScale+ (`-family xcup`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::super::library;
use super::{CLOCK, Case, folder, kernels};
use crate::fpga::design::{Adders, Storage};
use crate::fpga::operators::{Class, Float};
use crate::fpga::resources::Resources;
use crate::fpga::schedule::is_shared;

/// What is built, by module, without the modules in it; and the whole.
struct Built {
    modules: BTreeMap<String, Resources>,
    /// How often each kind of cell and module is in all of it.
    cells: BTreeMap<String, u64>,
    whole: Resources,
}

/// What so many cells of a kind take.
fn cells(kind: &str, count: u64) -> Resources {
    // Tables of distributed RAM (UG974): RAM32M16 and RAM64M8 are all eight of a slice, and so on.
    let luts = match kind {
        "RAM32M16" | "RAM64M8" | "RAM256X1D" => 8,
        "RAM32M" | "RAM64M" | "RAM128X1D" => 4,
        "RAM32X1D" | "RAM64X1D" => 2,
        _ => u64::from(kind.starts_with("LUT") || kind.starts_with("SRL")),
    };
    let is = |name: &str| u64::from(kind.starts_with(name));
    Resources { luts, ffs: is("FD"), dsps: is("DSP48"), bram18s: is("RAMB18") + 2 * is("RAMB36"), urams: is("URAM") }
        * count
}

/// Synthesises a module with those of the library; `None` if a user has not installed Yosys. The modules that are kept are told by
/// patterns of names, as Yosys has them.
fn synthesised(name: &str, top: &str, text: &str, kept: &str) -> Option<Built> {
    let folder = folder(&format!("{name}_cells"));
    fs::create_dir_all(&folder).unwrap();
    let (modules, included) = library();
    modules.iter().chain(&included).for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    fs::write(folder.join("top.sv"), text).unwrap();
    let names: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
    let script = format!(
        "read_verilog -sv -I. {} top.sv; hierarchy -top {top}; setattr -mod -set keep_hierarchy 1 {kept}; \
         synth_xilinx -family xcup -flatten -noiopad -top {top}; tee -o stat.txt stat",
        names.join(" ")
    );
    let output = match Command::new("yosys").args(["-q", "-p", &script]).current_dir(&folder).output() {
        Ok(output) => output,
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: yosys is not installed ({error}); resources are not compared");
            return None;
        }
        Err(error) => panic!("yosys could not be started: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(folder.join("stat.txt")).unwrap();
    let mut built = Built { modules: BTreeMap::new(), cells: BTreeMap::new(), whole: Resources::default() };
    let mut section = String::new();
    for line in text.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["===", ref name @ .., "==="] => {
                section = name.join(" ");
                built.modules.insert(section.clone(), Resources::default());
            }
            [kind, count] if count.parse::<u64>().is_ok() => {
                let count = count.parse().unwrap();
                if section == "design hierarchy" {
                    built.whole += cells(kind, count);
                    *built.cells.entry(kind.to_owned()).or_default() += count;
                } else if let Some(own) = built.modules.get_mut(&section) {
                    *own += cells(kind, count);
                }
            }
            _ => {}
        }
    }
    assert!(built.whole != Resources::default(), "{name} has no hierarchy");
    Some(built)
}

/// An operator of the library: its class, the module, what follows its latency among the parameters, what it is given, and bits of
/// what it gives.
type Operator = (Class, &'static str, &'static str, &'static str, u32);

const ONE: &str = ".a(a[31:0])";
const TWO: &str = ".a(a[31:0]), .b(b[31:0])";
const EXTREME: &str = ".a(a[31:0]), .b(b[31:0]), .least(c[0]), .folds(c[1])";
const THREE: &str = ".a(a[31:0]), .b(b[31:0]), .c(c[31:0])";

/// Look-up tables that are too few to matter.
const SOME: u64 = 64;

const OPERATORS: [Operator; 19] = [
    (Class::Single(Float::Add), "f32_add", "", TWO, 32),
    (Class::Single(Float::Multiply), "f32_mul", "", TWO, 32),
    (Class::Single(Float::Scale), "f32_scale", "", TWO, 32),
    (Class::Single(Float::MultiplyAdd), "f32_fma", "", THREE, 32),
    (Class::Single(Float::Divide), "f32_div", "", TWO, 32),
    (Class::Single(Float::Reciprocal), "f32_div", "", ".a(32'h3f800000), .b(b[31:0])", 32),
    (Class::Single(Float::Sqrt), "f32_sqrt", "", ONE, 32),
    (Class::Single(Float::ReciprocalSqrt), "f32_rsqrt", "", ONE, 32),
    (Class::Single(Float::Exp), "f32_exp", "", ONE, 32),
    (Class::Single(Float::Compare), "f32_compare", ", .FUNCTION(1)", TWO, 1),
    (Class::Single(Float::Extreme), "f32_extreme", "", EXTREME, 32),
    (Class::Single(Float::Round), "f32_integral", "", ONE, 32),
    (Class::Single(Float::FromInteger), "f32_of_int", "", ONE, 32),
    (Class::Single(Float::ToInteger), "int_of_f32", "", ONE, 32),
    (Class::Multiply([8, 8], 32), "int_mul", ", .A_WIDTH(8), .B_WIDTH(8)", ".a(a[7:0]), .b(b[7:0])", 32),
    (Class::Multiply([16, 16], 32), "int_mul", ", .A_WIDTH(16), .B_WIDTH(16)", ".a(a[15:0]), .b(b[15:0])", 32),
    (Class::Multiply([32, 32], 32), "int_mul", "", TWO, 32),
    (
        Class::MultiplyAdd([27, 8], 36),
        "int_mul",
        ", .A_WIDTH(27), .B_WIDTH(8), .WIDTH(35)",
        ".a(a[26:0]), .b(b[7:0])",
        35,
    ),
    (Class::Divide(32), "int_div", "", TWO, 32),
];

#[test]
fn operators_take_what_is_counted() {
    let (mut text, mut ports, mut whole) = (String::new(), String::new(), String::new());
    let inputs = "input logic clk, input logic [31:0] a, input logic [31:0] b, input logic [31:0] c";
    for (number, (class, module, parameters, given, bits)) in OPERATORS.into_iter().enumerate() {
        let latency = class.timing(CLOCK).latency;
        let _ = writeln!(text, "module operator{number} ({inputs}, output logic [{}:0] y);", bits - 1);
        let _ = writeln!(text, "  {module} #(.LATENCY({latency}){parameters}) u (.clk, {given}, .y);\nendmodule");
        let _ = write!(ports, ", output logic [{}:0] y{number}", bits - 1);
        let _ = writeln!(whole, "  operator{number} u{number} (.clk, .a, .b, .c, .y(y{number}));");
    }
    let _ = writeln!(text, "module operators ({inputs}{ports});\n{whole}endmodule");
    let Some(built) = synthesised("operators", "operators", &text, "operator?*") else { return };
    let mut wrong = Vec::new();
    for (number, (class, ..)) in OPERATORS.into_iter().enumerate() {
        let (own, counted) = (built.modules[&format!("operator{number}")], class.resources());
        eprintln!("{class:?}: {own:?}, counted {counted:?}");
        // Slices are counted without what waits beside them.
        let near = |own: u64, counted: u64| own <= 2 * counted + SOME && counted <= 2 * own + SOME;
        // What is counted of these is without subnormal numbers, as their circuits are that high-level synthesis has.
        let others = [Float::Add, Float::Multiply, Float::Scale, Float::Sqrt].map(Class::Single);
        let is_other = others.contains(&class);
        if (own.dsps, own.bram18s, own.urams) != (counted.dsps, counted.bram18s, counted.urams)
            || !is_other && !near(own.luts, counted.luts)
        {
            wrong.push(class);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The module that an operator of a class is.
fn module(class: Class) -> &'static str {
    match class {
        Class::Multiply(..) | Class::MultiplyAdd(..) => "int_mul",
        Class::Divide(_) => "int_div",
        class => OPERATORS.iter().find(|operator| operator.0 == class).map(|operator| operator.1).unwrap(),
    }
}

/// Holds operators that are written, and slices and blocks of RAM that Yosys needs, against those that are counted.
fn check(name: &str, case: &Case) {
    let schedule = case.schedule();
    let emitted = case.emitted(&schedule);
    let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
    for (&class, &count) in &schedule.usage().operators {
        *operators.entry(module(class)).or_default() += count as usize;
    }
    // What is not shared is there for each operation.
    let nest = &schedule.nest;
    for &id in nest.blocks.iter().flat_map(|block| &block.ops) {
        for part in nest.operator(id, CLOCK).parts.into_iter().filter(|part| !is_shared(part.class)) {
            if let Some(operator) = OPERATORS.iter().find(|operator| operator.0 == part.class) {
                *operators.entry(operator.1).or_default() += part.count as usize;
            }
        }
    }
    assert_eq!(operators, emitted.operators, "{name}");
    // Parts of operators too.
    let kept = "*f32_* *int_*";
    let Some(built) = synthesised(name, "functions", &emitted.text, kept) else { return };
    let (own, usage) = (built.whole, schedule.usage());
    let memories: Resources = case.design.memories.iter().map(|memory| memory.resources(false)).sum();
    let counted = usage.resources(Adders::Fabric) + memories;
    eprintln!("{name}: {own:?}, counted {counted:?}");
    eprintln!("  counted {:?}", usage.operators);
    let modules = built.cells.iter().filter(|(cell, _)| cell.contains("f32_") || cell.contains("int_"));
    modules.for_each(|(module, count)| eprintln!("  built {count} of {module}"));
    let close = |own: u64, counted: u64| own.abs_diff(counted) * 10 <= counted;
    assert!(close(own.dsps, counted.dsps), "{name}: {} slices, {} counted", own.dsps, counted.dsps);
    assert!(close(own.bram18s, counted.bram18s), "{name}: {} blocks of RAM, {} counted", own.bram18s, counted.bram18s);
    assert_eq!(own.urams, counted.urams, "{name}");
}

#[test]
fn what_is_counted_is_what_is_built() {
    let bram = Storage::Bram;
    check("product_16", &Case::new(kernels::product(16, 16, 16, 16), &[1, 16, 16], bram));
    check("product_64", &Case::new(kernels::product(64, 64, 64, 64), &[1, 64, 64], bram));
    check("paired", &Case::new(kernels::paired_product(16, 16, 16), &[2, 16, 16], bram));
    check("softmax", &Case::new(kernels::softmax(2, 1024, 4), &[4, 4], bram));
    check("norm", &Case::new(kernels::norm(2, 1024, 2), &[2; 4], bram));
    check("attention", &Case::new(kernels::attention(4, 4), &[1, 4, 4, 4], bram));
}
