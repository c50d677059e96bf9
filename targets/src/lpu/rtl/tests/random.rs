//! Random programs on the simulator and on the machine in SystemVerilog: every dispatch in the same cycle, as many cycles,
//! the same bits everywhere. A machine that is wrong by one cycle anywhere is told from the right one.

use super::{built, machine, rtl};
use crate::lpu::LpuMachine;
use crate::lpu::arbitrary::dataflow::{Case, cases};
use crate::lpu::assembly::disassemble;
use crate::lpu::encoding::encode;
use crate::lpu::rtl::{Job, Outcome, Rtl};
use crate::lpu::simulator::{Fault, Simulator};

/// The seed is in `TCC_RTL_SEED`, so that other programs can be tried.
fn seed() -> u64 {
    std::env::var("TCC_RTL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// What the simulator says of a case.
fn simulated(case: &Case, machine: &LpuMachine) -> Result<Outcome, Fault> {
    let mut simulator = Simulator::new(machine, &case.program, case.memory.clone()).unwrap();
    let mut dispatches = Vec::new();
    let execution = simulator.run(|queue, cycle| dispatches.push((queue, cycle)))?;
    Ok(Outcome {
        cycles: Some(execution.cycles),
        dispatches,
        memory: simulator.memory().to_vec(),
        accumulators: simulator.accumulators(),
    })
}

/// What both say of each case.
fn outcomes(rtl: &Rtl, cases: &[Case], machine: &LpuMachine) -> Vec<(Outcome, Option<Outcome>)> {
    let programs: Vec<Vec<u8>> = cases.iter().map(|case| encode(&case.program)).collect();
    let expected: Vec<Outcome> = cases.iter().map(|case| simulated(case, machine).unwrap()).collect();
    let jobs = cases.iter().zip(&programs).zip(&expected).map(|((case, program), expected)| Job {
        program,
        memory: &case.memory,
        limit: 2 * expected.cycles.unwrap() + 100,
    });
    let actual = rtl.run(&jobs.collect::<Vec<_>>()).unwrap();
    expected.into_iter().zip(actual.into_iter().map(Result::ok)).collect()
}

/// Says where two outcomes differ first.
fn difference(expected: &Outcome, actual: &Option<Outcome>) -> Option<String> {
    let Some(actual) = actual else { return Some("a fault".to_owned()) };
    let dispatches = expected.dispatches.iter().zip(&actual.dispatches);
    if let Some((expected, actual)) = dispatches.into_iter().find(|(expected, actual)| expected != actual) {
        return Some(format!("dispatch {actual:?} and not {expected:?}"));
    }
    if expected.cycles != actual.cycles || expected.dispatches.len() != actual.dispatches.len() {
        let counts = [expected, actual].map(|outcome| (outcome.cycles, outcome.dispatches.len()));
        return Some(format!("{:?} cycles and dispatches, and not {:?}", counts[1], counts[0]));
    }
    let byte = expected.memory.iter().zip(&actual.memory).position(|(expected, actual)| expected != actual);
    if let Some(at) = byte {
        let (expected, actual) = (expected.memory[at], actual.memory[at]);
        return Some(format!("byte {at:#x} of memory is {actual:#x} and not {expected:#x}"));
    }
    let words = expected.accumulators.iter().zip(&actual.accumulators);
    let word = words.clone().position(|(expected, actual)| expected != actual);
    word.map(|at| format!("accumulator {at}: {:#x} and not {:#x}", actual.accumulators[at], expected.accumulators[at]))
}

#[test]
fn random_programs_run_alike() {
    let Some(rtl) = rtl() else { return };
    let machine = machine();
    let cases = cases(&machine, 150, seed());
    for (number, (case, (expected, actual))) in cases.iter().zip(outcomes(rtl, &cases, &machine)).enumerate() {
        if let Some(difference) = difference(&expected, &actual) {
            panic!("program {number}: the machine has {difference}\n{}", disassemble(&case.program, &machine));
        }
    }
}

#[test]
fn a_fault_of_one_cycle_in_the_machine_is_caught() {
    let machine = machine();
    let cases = cases(&machine, 60, seed());
    // The instruction after a repeat comes too late.
    let (right, wrong) = ("delay <= repeats == 1 ? 1 : interval", "delay <= interval");
    let change = |name: &str, text: &str| {
        assert!(name != "queue.sv" || text.contains(right), "{name} has no `{right}`");
        text.replace(right, wrong)
    };
    let Some(rtl) = built("lpu-fault", &machine, change) else { return };
    let differ =
        outcomes(&rtl, &cases, &machine).iter().any(|(expected, actual)| difference(expected, actual).is_some());
    assert!(differ, "nobody notices `{wrong}`");
}

#[test]
fn a_fault_of_one_cycle_in_the_simulator_is_caught() {
    let Some(rtl) = rtl() else { return };
    let machine = machine();
    let cases = cases(&machine, 60, seed());
    let outcomes = outcomes(rtl, &cases, &machine);
    type Change = fn(&mut LpuMachine);
    let faults: [(&str, Change); 5] = [
        ("memory latency", |machine| machine.mem.latency += 1),
        ("ALU latency", |machine| machine.vxm.latency -= 1),
        ("latency of planes", |machine| machine.mxm.latency += 1),
        ("latency of switches", |machine| machine.sxm.latency += 1),
        ("latency of a notify", |machine| machine.notify_latency += 1),
    ];
    for (what, fault) in faults {
        let mut wrong = machine.clone();
        fault(&mut wrong);
        let differ = cases.iter().zip(&outcomes).any(|(case, (_, actual))| {
            simulated(case, &wrong).map_or(true, |expected| difference(&expected, actual).is_some())
        });
        assert!(differ, "nobody notices another {what}");
    }
}
