//! Random programs on the simulator and on the machine in SystemVerilog: the same bits everywhere, and every instruction
//! starts in the same cycle. A machine that is wrong by one cycle anywhere is told from the right one.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::path::PathBuf;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::{Job, Outcome, Rtl, RtlError};
use crate::systolic::arbitrary::{self, Limits};
use crate::systolic::assembly::{assemble, disassemble};
use crate::systolic::code::Code;
use crate::systolic::encoding::encode;
use crate::systolic::isa::Instruction;
use crate::systolic::simulator::{Dram, Simulator};
use crate::systolic::timing::tests::{array, small_machine};
use crate::systolic::{SystolicMachine, machine};
use crate::verilator::VerilatorError;

/// Where DRAM's writable part begins, and its length.
const BASE: u64 = 512;
const MEMORY_BYTES: usize = 3000;

/// Machines that differ in everything: several arrays, arrays that can be divided, sums that stay or cannot, the smallest
/// latencies, lanes that are no power of two, a queue of one place, no overlap, banks of few ports.
fn machines() -> [SystolicMachine; 5] {
    let four = SystolicMachine {
        array: machine::Array { count: 2, dataflows: vec![machine::Dataflow::WeightStationary], ..array(4, 4) },
        accumulators: machine::Accumulators { rows: 12 },
        ..small_machine()
    };
    let eight = SystolicMachine {
        array: machine::Array { row_groups: 2, ..array(8, 8) },
        scratchpad: machine::Scratchpad { banks: 4, read_ports: 1, write_ports: 1, ..small_machine().scratchpad },
        accumulators: machine::Accumulators { rows: 10 },
        vector: machine::Vector { lanes: 5, special_lanes: 7, sublanes: 2, strided_lanes: 3, latency: 0 },
        dram: machine::Dram {
            read_bytes_per_cycle: 24,
            write_bytes_per_cycle: 5,
            burst_bytes: 24,
            latency: 0,
            ..small_machine().dram
        },
        sequencer: machine::Sequencer { queue_depth: 1 },
        ..small_machine()
    };
    let sixteen = SystolicMachine {
        array: machine::Array { row_groups: 4, ..array(16, 16) },
        scratchpad: machine::Scratchpad { banks: 8, read_ports: 2, write_ports: 1, ..small_machine().scratchpad },
        vector: machine::Vector { lanes: 16, special_lanes: 4, sublanes: 4, strided_lanes: 1, latency: 7 },
        dram: machine::Dram {
            read_bytes_per_cycle: 64,
            write_bytes_per_cycle: 48,
            burst_bytes: 8,
            latency: 21,
            ..small_machine().dram
        },
        sequencer: machine::Sequencer { queue_depth: 8 },
        ..small_machine()
    };
    let narrow = SystolicMachine { array: machine::Array { row_groups: 2, ..array(4, 2) }, ..small_machine() };
    let one_by_one = SystolicMachine { array: machine::Array { overlap: false, ..array(2, 3) }, ..small_machine() };
    [four, eight, sixteen, narrow, one_by_one]
}

/// A folder of that name for a machine, beside the tests.
fn folder(name: &str) -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("rtl").join(name)
}

/// A machine in SystemVerilog; `None` if a user has not installed what it takes.
fn built(name: &str, machine: &SystolicMachine, change: impl Fn(&str, &str) -> String) -> Option<Rtl> {
    match Rtl::build_changed(machine, &folder(name), change) {
        Ok(rtl) => Some(rtl),
        Err(RtlError::Verilator(VerilatorError::Tool { tool, error })) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {tool} is not installed ({error}); the machine in SystemVerilog is not compared");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn unchanged(_: &str, text: &str) -> String {
    text.to_owned()
}

/// The machine of 4 by 2 as it should be, built once for all tests.
fn four_by_two() -> Option<&'static Rtl> {
    static BUILT: OnceLock<Option<Rtl>> = OnceLock::new();
    BUILT.get_or_init(|| built("4x2", &machines()[3], unchanged)).as_ref()
}

/// A program with its data.
struct Case {
    code: Code,
    weights: Vec<u8>,
    memory: Vec<u8>,
}

/// What the simulator says of a case; `None` if the program is at fault.
fn simulated(case: &Case, code: &Code, machine: &SystolicMachine) -> Option<Outcome> {
    let mut dram = Dram::new(&case.weights, BASE, MEMORY_BYTES as u64, machine.dram.bytes).unwrap();
    dram.memory_mut().copy_from_slice(&case.memory);
    let mut simulator = Simulator::new(machine, code, dram);
    let execution = simulator.run().ok()?;
    let mut starts: Vec<_> = simulator.timing().spans().iter().map(|span| (span.unit, span.start)).collect();
    starts.sort_by_key(|&(unit, start)| (start, unit));
    Some(Outcome {
        cycles: Some(execution.cycles),
        starts,
        memory: simulator.dram().memory().to_vec(),
        scratchpad: simulator.scratchpad().to_vec(),
        accumulators: simulator.accumulators().to_vec(),
    })
}

/// Loads that fill the scratchpad with what DRAM holds, so that there is something to work on.
fn beginning() -> Vec<Instruction> {
    assemble("load dram=0x200 spm=0x0 element=1 dims=[1024:1:1]").unwrap().routines()[0].clone()
}

/// A random program without faults: of random instructions those that run where each waits for all before it, then of their
/// random waits those that keep it right.
fn case(machine: &SystolicMachine, runner: &mut TestRunner) -> Case {
    let bytes = |length| prop::collection::vec(usual_byte(), length);
    let candidates = prop::collection::vec(arbitrary::instruction(Limits::SMALL), 60);
    let (weights, memory, candidates) =
        (bytes(BASE as usize), bytes(MEMORY_BYTES), candidates).new_tree(runner).unwrap().current();
    let mut case = Case { code: Code::from(Vec::new()), weights, memory };
    let mut program = beginning();
    let mut relaxed = program.clone();
    for candidate in candidates {
        program.push(arbitrary::ordered(candidate.clone()));
        if simulated(&case, &Code::from(program.clone()), machine).is_some() {
            relaxed.push(candidate);
        } else {
            program.pop();
        }
    }
    for (index, instruction) in relaxed.into_iter().enumerate() {
        let strict = std::mem::replace(&mut program[index], instruction);
        if simulated(&case, &Code::from(program.clone()), machine).is_none() {
            program[index] = strict;
        }
    }
    case.code = Code::from(program);
    case
}

/// Bytes of which words become numbers of all kinds: most are small, as exponents of one and the like.
fn usual_byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(&[0, 1, 2, 3, 0x3f, 0x40, 0x80, 0xbf, 0x7f, 0xff][..])]
}

/// Random programs for a machine; the seed is in `TCC_RTL_SEED`, so that other ones can be tried.
fn cases(machine: &SystolicMachine, count: usize) -> Vec<Case> {
    let seed = std::env::var("TCC_RTL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8] = machine.array.rows as u8;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count).map(|_| case(machine, &mut runner)).collect()
}

/// What both say of each case.
fn outcomes(rtl: &Rtl, cases: &[Case], machine: &SystolicMachine) -> Vec<(Outcome, Outcome)> {
    let programs: Vec<Vec<u8>> = cases.iter().map(|case| encode(&case.code)).collect();
    let expected: Vec<Outcome> = cases.iter().map(|case| simulated(case, &case.code, machine).unwrap()).collect();
    let jobs: Vec<Job<'_>> = cases
        .iter()
        .zip(&programs)
        .zip(&expected)
        .map(|((case, program), expected)| Job {
            program,
            weights: &case.weights,
            base: BASE,
            memory: &case.memory,
            limit: 2 * expected.cycles.unwrap() + 100,
        })
        .collect();
    expected.into_iter().zip(rtl.run(&jobs).unwrap()).collect()
}

/// Says where two outcomes differ first.
fn difference(expected: &Outcome, actual: &Outcome) -> Option<String> {
    let bytes = |name: &str, expected: &[u8], actual: &[u8]| {
        let at = expected.iter().zip(actual).position(|(expected, actual)| expected != actual)?;
        let end = (at + 16).min(expected.len());
        Some(format!("{name} at {at:#x}: {:02x?} and not {:02x?}", &actual[at..end], &expected[at..end]))
    };
    if let Some(index) = expected.starts.iter().zip(&actual.starts).position(|(expected, actual)| expected != actual) {
        return Some(format!("start {index}: {:?} and not {:?}", actual.starts[index], expected.starts[index]));
    }
    if expected.cycles != actual.cycles {
        return Some(format!("{:?} cycles and not {:?}", actual.cycles, expected.cycles));
    }
    if expected.starts.len() != actual.starts.len() {
        return Some(format!("{} starts and not {}", actual.starts.len(), expected.starts.len()));
    }
    bytes("dram", &expected.memory, &actual.memory)
        .or_else(|| bytes("scratchpad", &expected.scratchpad, &actual.scratchpad))
        .or_else(|| bytes("accumulators", &expected.accumulators, &actual.accumulators))
}

fn agree(rtl: &Rtl, machine: &SystolicMachine) {
    let cases = cases(machine, 100);
    let instructions: usize = cases.iter().map(|case| case.code.len()).sum();
    assert!(instructions > 1000, "only {instructions} instructions");
    for (number, (case, (expected, actual))) in cases.iter().zip(outcomes(rtl, &cases, machine)).enumerate() {
        if let Some(difference) = difference(&expected, &actual) {
            panic!("program {number}: the machine has {difference}\n{}", disassemble(&case.code));
        }
    }
}

#[test]
fn random_programs_run_alike_on_4_by_4_twice() {
    let machine = &machines()[0];
    built("4x4-twice", machine, unchanged).iter().for_each(|rtl| agree(rtl, machine));
}

#[test]
fn random_programs_run_alike_on_8_by_8_in_halves() {
    let machine = &machines()[1];
    built("8x8-halves", machine, unchanged).iter().for_each(|rtl| agree(rtl, machine));
}

#[test]
fn random_programs_run_alike_on_16_by_16_in_quarters() {
    let machine = &machines()[2];
    built("16x16-quarters", machine, unchanged).iter().for_each(|rtl| agree(rtl, machine));
}

#[test]
fn random_programs_run_alike_on_4_by_2() {
    four_by_two().into_iter().for_each(|rtl| agree(rtl, &machines()[3]));
}

#[test]
fn random_programs_run_alike_without_overlap() {
    let machine = &machines()[4];
    built("2x3-one-by-one", machine, unchanged).iter().for_each(|rtl| agree(rtl, machine));
}

#[test]
fn where_ports_are_too_few_both_stop() {
    let machine = &machines()[1];
    let Some(rtl) = built("8x8-halves", machine, unchanged) else { return };
    let many_ports = SystolicMachine { scratchpad: small_machine().scratchpad, ..machine.clone() };
    let contended: Vec<Case> =
        cases(&many_ports, 40).into_iter().filter(|case| simulated(case, &case.code, machine).is_none()).collect();
    assert!(contended.len() >= 20, "only {} programs contend for ports", contended.len());
    let stopped = contended.iter().filter(|case| {
        let program = encode(&case.code);
        let (weights, memory) = (&case.weights, &case.memory);
        let job = Job { program: &program, weights, base: BASE, memory, limit: 100_000 };
        match rtl.run(&[job]) {
            Ok(_) => false,
            Err(error) => error.to_string().contains("by more units than it has ports"),
        }
    });
    // The simulator takes ports as held from an instruction's start to its completion; in some programs nobody comes for
    // them in that very cycle.
    assert!(2 * stopped.count() > contended.len());
}

/// Faults of one cycle in a machine: which, a source, what stands there, what stands there instead.
const FAULTS: [(usize, &str, &str, &str); 10] = [
    // Everything completes a cycle later.
    (3, "issue.sv", ".CYCLES(LATENCY)", ".CYCLES(LATENCY + 1)"),
    // A place in a queue is free a cycle after its instruction has left it.
    (3, "queue.sv", "taken < DEPTH || pop", "taken < DEPTH"),
    // A pass keeps the array a cycle too long.
    (3, "feed.sv", "pass_last = a_row >= longint'(word_of(pass, 2))", "pass_last = a_row > longint'(word_of(pass, 2))"),
    // The sums of a column come out of step.
    (3, "array.sv", ".CYCLES(ROWS-1-r+COLUMNS-1-c)", ".CYCLES(ROWS-1-r+(c == 0 ? COLUMNS : COLUMNS-1-c))"),
    // The sums below all blocks but the last come out of step.
    (3, "array.sv", ".CYCLES(ROWS-1-r+COLUMNS-1-c)", ".CYCLES(r == ROWS-1 ? COLUMNS-1-c : ROWS-r+COLUMNS-1-c)"),
    // Weights enter the blocks below the first a cycle too late.
    (3, "array.sv", ".CYCLES(r+c)", ".CYCLES(r == 0 ? c : r+c+1)"),
    // Sums that have stayed move out a cycle too early.
    (3, "array.sv", ".CYCLES(ROWS)) until_all", ".CYCLES(ROWS-1)) until_all"),
    // The last row takes part in that for a cycle too few.
    (3, "array.sv", "&& !ends[r]", "&& !ends[r == ROWS - 1 ? ROWS - 2 : r]"),
    // A pass follows them a cycle too early.
    (3, "systolic.sv", "to_drain <= ROWS", "to_drain <= ROWS - 1"),
    // Passes overlap where they may not.
    (
        4,
        "sequencer.sv",
        "decoded.wanted[ARRAY] = dispatched[ARRAY]",
        "decoded.wanted[ARRAY] = dispatched[ARRAY] == 0 ? 0 : dispatched[ARRAY] - 1",
    ),
];

#[test]
fn a_fault_of_one_cycle_in_the_machine_is_caught() {
    let machines = machines();
    let cases: Vec<Vec<Case>> = machines.iter().map(|machine| cases(machine, 100)).collect();
    for (number, (which, file, right, wrong)) in FAULTS.into_iter().enumerate() {
        let (machine, cases) = (&machines[which], &cases[which]);
        let change = |name: &str, text: &str| {
            assert!(name != file || text.contains(right), "{file} has no `{right}`");
            if name == file { text.replace(right, wrong) } else { text.to_owned() }
        };
        let Some(rtl) = built(&format!("fault-{number}"), machine, change) else { return };
        let differ = outcomes(&rtl, cases, machine).iter().any(|(expected, actual)| expected != actual);
        assert!(differ, "nobody notices `{wrong}` in {file}");
    }
}

#[test]
fn a_fault_of_one_cycle_in_the_simulator_is_caught() {
    let machine = &machines()[3];
    let Some(rtl) = four_by_two() else { return };
    let cases = cases(machine, 100);
    let outcomes = outcomes(rtl, &cases, machine);
    type Fault = fn(&mut SystolicMachine);
    let faults: [(&str, Fault); 7] = [
        ("vector latency", |machine| machine.vector.latency += 1),
        ("DRAM latency", |machine| machine.dram.latency -= 1),
        ("read rate", |machine| machine.dram.read_bytes_per_cycle -= 1),
        ("strided lanes", |machine| machine.vector.strided_lanes -= 1),
        ("queues", |machine| machine.sequencer.queue_depth += 1),
        ("overlap", |machine| machine.array.overlap = false),
        ("blocks", |machine| machine.array.row_groups = 4),
    ];
    for (what, fault) in faults {
        let mut wrong = machine.clone();
        fault(&mut wrong);
        // A fault of the simulator may also make it see a race.
        let differ = cases.iter().zip(&outcomes).any(|(case, (_, actual))| {
            simulated(case, &case.code, &wrong).is_none_or(|expected| difference(&expected, actual).is_some())
        });
        assert!(differ, "nobody notices another {what}");
    }
}

#[test]
fn a_machine_of_which_only_the_array_takes_time_is_not_built() {
    let machine = SystolicMachine { array_only: true, ..small_machine() };
    let error = Rtl::build(&machine, &folder("array-only")).unwrap_err();
    assert!(matches!(error, RtlError::ArrayOnly), "{error}");
}

#[test]
fn the_array_synthesises() {
    let folder = folder("to-synthesise");
    super::DESIGN.write_sources(&folder, unchanged).unwrap();
    let script = "read_verilog -sv delay.sv cell.sv array.sv; hierarchy -check -top systolic_array; \
                  synth -noshare -top systolic_array; check -assert; select -assert-none t:$_DLATCH*; \
                  select -assert-min 100 t:$_DFF*; stat";
    let output = std::process::Command::new("yosys").args(["-p", script]).current_dir(&folder).output();
    match output {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) if std::env::var_os("CI").is_none() => eprintln!("SKIPPED: yosys is not installed ({error})"),
        Err(error) => panic!("yosys: {error}"),
    }
}
