// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use proptest::prelude::*;

use super::*;
use crate::systolic::arbitrary::{self, Limits};
use crate::systolic::assembly::assemble;
use crate::systolic::machine;

/// An array that is not divided and multiplies everything.
pub(crate) fn array(rows: u32, columns: u32) -> machine::Array {
    machine::Array {
        rows,
        columns,
        count: 1,
        row_groups: 1,
        types: machine::ArrayType::all(),
        dataflows: vec![machine::Dataflow::WeightStationary, machine::Dataflow::OutputStationary],
        overlap: true,
    }
}

/// A machine whose figures are small enough to count with: 4 by 4 cells, 8, 2 and 4 lanes with latency 3, bursts of 16
/// bytes, of which one is read and half a one written in a cycle, latency 10, queues of 2.
pub(crate) fn small_machine() -> SystolicMachine {
    SystolicMachine {
        array_only: false,
        array: array(4, 4),
        scratchpad: machine::Scratchpad::undivided(1024),
        accumulators: machine::Accumulators { rows: 16 },
        vector: machine::Vector { lanes: 8, special_lanes: 2, sublanes: 1, strided_lanes: 4, latency: 3 },
        dram: machine::Dram {
            bytes: 1 << 20,
            read_bytes_per_cycle: 16,
            write_bytes_per_cycle: 8,
            burst_bytes: 16,
            latency: 10,
        },
        sequencer: machine::Sequencer { queue_depth: 2 },
    }
}

fn spans(text: &str) -> Vec<(u64, u64, u64)> {
    let timing = schedule(&assemble(text).unwrap(), &small_machine());
    timing.spans().iter().map(|span| (span.start, span.occupancy, span.completion)).collect()
}

fn cycles(text: &str) -> u64 {
    spans(text)[0].1
}

const LOAD: &str = "load dram=0 spm=0 element=4 dims=[16:4:4]\n";

#[test]
fn a_unit_takes_one_after_the_other() {
    assert_eq!(spans(&LOAD.repeat(2)), [(1, 4, 15), (5, 4, 19)]);
}

#[test]
fn waits_are_for_completion() {
    let text = format!("{LOAD}map copy dims=[32] spm:f32@0[4] <- float 1.0 wait(load<=0)");
    assert_eq!(spans(&text), [(1, 4, 15), (15, 4, 22)]);
}

#[test]
fn a_lag_leaves_out_the_last() {
    let text = format!(
        "{LOAD}{LOAD}map copy dims=[1] spm:f32@0[4] <- float 1.0 wait(load<=1)\n\
         map copy dims=[1] spm:f32@0[4] <- float 1.0 wait(load<=2)"
    );
    assert_eq!(spans(&text)[2..], [(15, 1, 19), (16, 1, 20)]);
}

#[test]
fn a_full_queue_holds_up_the_sequencer() {
    let text = format!("{}map copy dims=[1] spm:f32@0[4] <- float 1.0", LOAD.repeat(4));
    // Loads start in cycles 1, 5, 9, 13. The fourth is dispatched when the second leaves the queue, in cycle 5; the map
    // after it in cycle 6.
    let starts: Vec<u64> = spans(&text).iter().map(|span| span.0).collect();
    assert_eq!(starts, [1, 5, 9, 13, 7]);
}

#[test]
fn weights_are_switched_when_they_are_there_and_kept_until_used() {
    let preload = "preload spm=0 dtype=i8 k=4:4 n=4:1\n";
    let multiply = "multiply spm=0 dtype=i8 m=6:4 k=1 row=0 switch\n";
    let text = format!("{preload}{multiply}{preload}{multiply}{preload}");
    // Each pass takes 6 cycles and completes 6 later. The second preload starts with the first pass, the third with the
    // second.
    assert_eq!(spans(&text), [(1, 4, 5), (5, 6, 17), (5, 4, 9), (11, 6, 23), (11, 4, 15)]);
}

#[test]
fn blocks_take_their_weights_side_by_side() {
    let small = small_machine();
    let machine = SystolicMachine { array: machine::Array { count: 2, row_groups: 2, ..small.array }, ..small };
    let text = "preload spm=0 dtype=i8 k=8:4 n=4:1\nmultiply spm=0 dtype=i8 m=6:4 k=1 row=0 switch\n";
    let timing = schedule(&assemble(text).unwrap(), &machine);
    let spans: Vec<_> = timing.spans().iter().map(|span| (span.start, span.occupancy, span.completion)).collect();
    // Two rows of a block; then six rows through eight and four columns.
    assert_eq!(spans, [(1, 2, 3), (3, 6, 19)]);
}

const OUTER: &str = "outer m=4 n=4 k=9 row=0 spm:i8@0[9, 1], spm:i8@64[4, 1]\n";
const PASS: &str = "multiply spm=0 dtype=i8 m=6:4 k=1 row=0 switch\n";
const WEIGHTS: &str = "preload spm=0 dtype=i8 k=4:4 n=4:1\n";

#[test]
fn sums_that_stay_move_out_behind_the_pass() {
    let short = OUTER.replace("k=9", "k=2");
    // The second takes as long as the sums of the first take to move out; the pass of rows waits until they are out.
    assert_eq!(spans(&format!("{OUTER}{short}{WEIGHTS}{PASS}")), [(1, 9, 20), (10, 4, 24), (3, 4, 7), (18, 6, 30)]);
}

#[test]
fn without_overlap_the_array_does_one_thing_after_the_other() {
    let small = small_machine();
    let array = machine::Array { overlap: false, ..small.array.clone() };
    let machine = SystolicMachine { array, ..small };
    let text = format!("{WEIGHTS}{PASS}{WEIGHTS}{PASS}{OUTER}");
    let spans_on = |machine: &SystolicMachine| -> Vec<_> {
        let timing = schedule(&assemble(&text).unwrap(), machine);
        timing.spans().iter().map(|span| (span.start, span.occupancy, span.completion)).collect()
    };
    assert_eq!(spans_on(&machine), [(1, 4, 5), (5, 6, 17), (17, 4, 21), (21, 6, 33), (33, 9, 52)]);
    // Where only the array takes time: m + 2 R + C - 2, and K + R + C - 2.
    let machine = SystolicMachine { array_only: true, ..machine };
    assert_eq!(spans_on(&machine), [(0, 4, 4), (4, 6, 16), (16, 4, 20), (20, 6, 32), (32, 9, 47)]);
}

#[test]
fn where_only_the_array_takes_time_nothing_else_does() {
    let machine = SystolicMachine { array_only: true, ..small_machine() };
    let text =
        format!("{}{WEIGHTS}{PASS}map exp dims=[9] spm:f32@0[4] <- float 1.0 wait(array<=0)\n{LOAD}", LOAD.repeat(5));
    let summary = summarize(&assemble(&text).unwrap(), &[6, 3], &machine);
    assert_eq!(summary.cycles, 4 + 6 + 6);
    let expected = Attribution { array: 6, preload: 4, latency: 6, ..Attribution::default() };
    assert_eq!(summary.attribution, expected);
    assert_eq!(summary.kernels.iter().map(|kernel| kernel.cycles).collect::<Vec<_>>(), [4, 12]);
}

#[test]
fn dma_cycles_are_bursts_over_bandwidth() {
    assert_eq!(cycles("load dram=0 spm=0 element=4 dims=[2:64:8, 2:4:4]"), 2);
    assert_eq!(cycles("load dram=12 spm=0 element=4 dims=[2:64:8, 2:4:4]"), 4);
    assert_eq!(cycles("store dram=0 spm=0 element=4 dims=[2:64:8, 2:4:4]"), 4);
    assert_eq!(cycles("load dram=0 spm=0 element=4 dims=[0:4:4]"), 1);
    let rows = "dram=0 spm=0 bytes=32 rows=9:32 outer=1:0 indices=0 index=i32 count=5";
    assert_eq!(cycles(&format!("load_rows {rows}")), 10);
    assert_eq!(cycles(&format!("store_rows {rows} reduction=replace dtype=f32")), 20);
    assert_eq!(cycles(&format!("store_rows {rows} reduction=add dtype=f32")), 40);
}

#[test]
fn map_cycles_are_elements_over_lanes() {
    // Dense; one row of 20 and two of 10, which do not merge; a broadcast row.
    assert_eq!(cycles("map add dims=[2, 10] spm:f32@0[40, 4] <- spm:f32@0[40, 4], int 1"), 3);
    assert_eq!(cycles("map add dims=[2, 10] spm:f32@0[48, 4] <- spm:f32@0[48, 4], int 1"), 4);
    assert_eq!(cycles("map add dims=[2, 10] spm:f32@0[40, 4] <- spm:f32@0[40, 4], spm:f32@128[0, 4]"), 4);
    // Special functions, strided walks, a source that stands still.
    assert_eq!(cycles("map exp dims=[20] spm:f32@0[4] <- spm:f32@0[4]"), 10);
    assert_eq!(cycles("map div dims=[20] spm:i32@0[4] <- spm:i32@0[4], int 3"), 10);
    assert_eq!(cycles("map neg dims=[20] spm:f32@0[4] <- spm:f32@0[8]"), 5);
    assert_eq!(cycles("map exp dims=[20] spm:f32@0[4] <- spm:f32@0[8]"), 10);
    assert_eq!(cycles("map neg dims=[20] spm:f32@0[4] <- spm:f32@0[0]"), 3);
    // 64 bits, also on one side only.
    assert_eq!(cycles("map copy dims=[20] spm:i64@0[8] <- spm:i32@0[4]"), 20);
    // Types of several widths are dense each in its own way, nibbles too.
    assert_eq!(cycles("map copy dims=[20] spm:f32@0[4] <- spm:i8@0[1]"), 3);
    assert_eq!(cycles("map copy dims=[2, 10] spm:i8@0[10, 1] <- spm:i4@128[5, 0]"), 3);
    assert_eq!(cycles("map copy dims=[2, 9] spm:i8@0[9, 1] <- spm:i4@128[5, 0]"), 4);
    assert_eq!(cycles("map copy dims=[] spm:f32@0[] <- spm:f32@0[]"), 1);
    assert_eq!(cycles("map copy dims=[0] spm:f32@0[4] <- spm:f32@0[4]"), 1);
}

#[test]
fn other_vector_cycles() {
    assert_eq!(cycles("fold sum dims=[2, 16] reduced=1 spm:f32@0[4, 0] <- spm:f32@64[64, 4]"), 4 + 3);
    assert_eq!(cycles("fold sum dims=[2, 16] reduced=1 spm:f32@0[4, 0] <- spm:f32@64[4, 8]"), 8 + 3);
    assert_eq!(cycles("fold dot dims=[16] reduced=1 spm:f32@0[0] <- spm:f32@64[4], spm:f32@64[4]"), 2 + 3);
    assert_eq!(cycles("fold sum dims=[16] reduced=1 spm:i64@0[0] <- spm:i64@64[8]"), 16 + 3);
    assert_eq!(cycles("scan dims=[3, 5] spm:f32@0[20, 4] <- spm:f32@64[20, 4]"), 4);
    assert_eq!(cycles("scan dims=[3, 5] spm:i64@0[40, 8] <- spm:i64@0[40, 8]"), 15);
    // Two rows of 9: two groups of lanes, four levels, ten steps.
    assert_eq!(cycles("sort dims=[2, 9] k=1 spm:f32@0[36, 4] ->"), 2 * 2 * 10);
    assert_eq!(cycles("sort dims=[1] k=1 spm:f32@0[4] ->"), 1);
}

#[test]
fn cycles_count_for_the_first_busy_unit() {
    let text = format!("{LOAD}map copy dims=[32] spm:f32@0[4] <- float 1.0\n");
    let summary = |lengths: &[usize]| summarize(&assemble(&text).unwrap(), lengths, &small_machine());
    // The load is busy in cycles 1 to 4, the map in 2 to 5; all is done in cycle 15.
    let expected = Attribution { vector: 4, load: 1, latency: 10, ..Attribution::default() };
    assert_eq!(summary(&[2]).attribution, expected);
    let kernels = summary(&[1, 1]).kernels;
    assert_eq!((kernels[0].cycles, kernels[1].cycles), (15, 0));
    assert_eq!((kernels[0].busy, kernels[1].busy), ([4, 0, 0, 0, 0], [0, 0, 0, 0, 4]));
    assert_eq!(kernels[1].busiest(), Unit::Vector);
    // 4 of 14 cycles, and 4 of 7.
    assert_eq!([0, 1].map(|kernel: usize| kernels[kernel].binding()), [None, Some(Unit::Vector)]);
    assert_eq!([0, 1].map(|kernel: usize| (kernels[kernel].start(), kernels[kernel].completion)), [(1, 15), (2, 9)]);
    assert_eq!(kernels[1].spans[Unit::Vector.index()], (2, 6));
    let cycles = |lengths: &[usize]| summary(lengths).kernels.iter().map(|kernel| kernel.cycles).collect::<Vec<_>>();
    assert_eq!(cycles(&[0, 1, 0, 1, 0]), [0, 15, 0, 0, 0]);
    // Lengths that do not cover the program, or more than there is, leave nothing out of the sum of its parts.
    assert_eq!((cycles(&[1]), cycles(&[1, 5])), (vec![15], vec![15, 0]));
}

proptest! {
    #[test]
    fn attributions_sum_to_the_cycles(
        program in prop::collection::vec(arbitrary::instruction(Limits::SMALL), 0..30),
        cut in 0usize..30,
    ) {
        let (cut, rest) = (cut.min(program.len()), program.len().saturating_sub(cut));
        let code = Code::from(program);
        let timing = schedule(&code, &small_machine());
        let summary = summarize(&code, &[cut, rest], &small_machine());
        prop_assert_eq!(summary.cycles, timing.cycles());
        prop_assert_eq!(summary.attribution.cycles(), timing.cycles());
        prop_assert_eq!(summary.kernels.iter().map(|kernel| kernel.cycles).sum::<u64>(), timing.cycles());
        let ends = [0..cut, cut..cut + rest].map(|range| timing.spans()[range].iter().map(|span| span.completion).max());
        prop_assert_eq!(summary.kernels[0].cycles, ends[0].unwrap_or(0));
        prop_assert_eq!(summary.kernels[1].completion, ends[1].unwrap_or(0));
        for kernel in summary.kernels {
            prop_assert_eq!(kernel.attribution.cycles(), kernel.cycles);
        }
    }

    #[test]
    fn no_program_overflows(program in prop::collection::vec(arbitrary::instruction(Limits::ALL), 0..8)) {
        let timing = schedule(&Code::from(program), &small_machine());
        prop_assert!(timing.spans().iter().all(|span| span.completion <= timing.cycles()));
    }
}
