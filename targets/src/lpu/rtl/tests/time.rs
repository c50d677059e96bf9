//! Reads and writes, and when instructions are dispatched.

use super::program::{END, NOTIFY, Program, SYNC, TAKE, east, gather, nop, read, read_and_write, repeat, west, write};
use super::*;
use crate::lpu::isa::Queue::Mem as Slice;

/// Whole queues, the dispatches and the cycles that come of them.
fn dispatched(queues: &[(crate::lpu::isa::Queue, &[program::Words])]) -> Option<Outcome> {
    let program = Program::raw(queues).encode();
    rtl().map(|rtl| rtl.run_one(Job { program: &program, memory: &memory(), limit: 1000 }).unwrap())
}

/// The dispatches of the first queues, which are slices of memory.
fn of_queue(outcome: &Outcome, queue: usize) -> Vec<u64> {
    outcome.dispatches.iter().filter(|dispatch| dispatch.0 == queue).map(|dispatch| dispatch.1).collect()
}

#[test]
fn a_vector_goes_from_slice_to_slice() {
    let Some(rtl) = rtl() else { return };
    // Driven at position 2 in cycle 2, it is at position 5 in cycle 5, and at position 10 in cycle 10.
    let program = Program::of(&[
        (Slice(0), 0, read(5, east(3))),
        (Slice(3), 5, write(70, east(3))),
        (Slice(7), 10, write(1, east(3) | TAKE)),
    ]);
    let before = memory();
    let outcome = run(rtl, &program, &before);
    // The last write takes until the end of cycle 11, in the second superlane until that of cycle 12.
    assert_eq!(outcome.cycles, Some(13));
    let mut expected = before.clone();
    put(&mut expected, 3, 70, vector(&before, 0, 5));
    put(&mut expected, 7, 1, vector(&before, 0, 5));
    assert_eq!(outcome.memory, expected);
    assert_eq!(outcome.accumulators, [0; 2 * 2 * 16 * 8]);
}

#[test]
fn a_vector_that_is_taken_makes_room_for_another() {
    let Some(rtl) = rtl() else { return };
    // In cycle 4 slice 4 takes one vector from stream 15 and drives another in its place. In cycle 3 it reads one bank and
    // writes the other.
    let program = Program::of(&[
        (Slice(6), 0, read(0, west(15))),
        (Slice(5), 0, read(9, west(14))),
        (Slice(4), 2, read(3, west(15))),
        (Slice(4), 3, read_and_write(4, west(13), 64, west(14))),
        (Slice(4), 4, write(7, west(15) | TAKE)),
        (Slice(1), 8, write(7, west(15))),
    ]);
    let before = memory();
    let outcome = run(rtl, &program, &before);
    let mut expected = before.clone();
    put(&mut expected, 4, 64, vector(&before, 5, 9));
    put(&mut expected, 4, 7, vector(&before, 6, 0));
    put(&mut expected, 1, 7, vector(&before, 4, 3));
    assert_eq!(outcome.memory, expected);
}

#[test]
fn what_is_written_can_be_read_after_the_latency() {
    let Some(rtl) = rtl() else { return };
    let program = Program::of(&[
        (Slice(0), 0, read(5, east(0))),
        (Slice(1), 3, write(5, east(0) | TAKE)),
        (Slice(1), 4, read(6, east(1))),
        (Slice(1), 5, read(5, east(2))),
        (Slice(2), 8, write(90, east(2))),
    ]);
    let before = memory();
    let outcome = run(rtl, &program, &before);
    assert_eq!(vector(&outcome.memory, 2, 90), vector(&before, 0, 5));
}

#[test]
fn every_superlane_gathers_at_an_address_of_its_own() {
    let Some(rtl) = rtl() else { return };
    for (addresses, expected) in [([3u16, 100], [3, 100]), ([127, 128], [127, 127]), ([0xff00, 0], [127, 0])] {
        let mut before = memory();
        let mut elements = [[0x55, 0x66]; VECTOR];
        elements[0] = addresses[0].to_le_bytes();
        elements[4] = addresses[1].to_le_bytes();
        put_elements(&mut before, 2, 20, elements);
        let program = Program::of(&[
            (Slice(2), 0, read(20, east(6))),
            (Slice(3), 1, read(20, east(7))),
            (Slice(4), 5, gather(east(6) | TAKE, east(7))),
            (Slice(5), 8, write(0, east(7))),
        ]);
        let outcome = run(rtl, &program, &before);
        let [south, north] = expected.map(|address| vector(&before, 4, address));
        let gathered = vector(&outcome.memory, 5, 0);
        assert_eq!((&gathered[..4], &gathered[4..]), (&south[..4], &north[4..]), "{addresses:?}");
    }
}

#[test]
fn a_repeat_moves_addresses_and_takes_no_cycle() {
    let queues: [(_, &[_]); 2] = [
        (Slice(0), &[read(9, east(0)), repeat(2, 2, -4), read(40, east(0)), END]),
        (Slice(1), &[nop(3), write(0, east(0) | TAKE), repeat(2, 2, 1), write(10, east(0)), END]),
    ];
    let Some(outcome) = dispatched(&queues) else { return };
    assert_eq!(of_queue(&outcome, 0), [0, 2, 4, 5, 6]);
    assert_eq!(of_queue(&outcome, 1), [3, 5, 7, 8, 9]);
    assert_eq!(outcome.cycles, Some(11));
    let before = memory();
    for (from, to) in [(9, 0), (5, 1), (1, 2), (40, 10)] {
        assert_eq!(vector(&outcome.memory, 1, to), vector(&before, 0, from), "address {to}");
    }
}

#[test]
fn notifies_let_those_go_on_that_stand_at_a_sync() {
    let queues: [(_, &[_]); 4] = [
        (Slice(0), &[SYNC, read(0, east(0)), END]),
        (Slice(1), &[nop(4), NOTIFY, repeat(1, 5, 0), END]),
        (Slice(2), &[nop(4), SYNC, read(0, east(0)), END]),
        (Slice(3), &[nop(3), SYNC, nop(2), read(0, east(0)), END]),
    ];
    let Some(outcome) = dispatched(&queues) else { return };
    // The notifies of cycles 4 and 9 arrive in cycles 7 and 12.
    assert_eq!(of_queue(&outcome, 0), [7, 8]);
    assert_eq!(of_queue(&outcome, 1), [4, 9, 10]);
    assert_eq!(of_queue(&outcome, 2), [12, 13]);
    assert_eq!(of_queue(&outcome, 3), [9, 10]);
    assert_eq!(outcome.cycles, Some(15));
}

#[test]
fn a_run_beyond_its_limit_is_given_up() {
    let Some(rtl) = rtl() else { return };
    let program = Program::of(&[(Slice(0), 30, read(0, east(0)))]);
    let encoded = program.encode();
    let cycles = |limit| rtl.run_one(Job { program: &encoded, memory: &memory(), limit }).unwrap().cycles;
    assert_eq!(cycles(33), Some(33));
    assert_eq!(cycles(32), None);
    let waiting = Program::raw(&[(Slice(0), &[SYNC, END])]).encode();
    assert_eq!(rtl.run_one(Job { program: &waiting, memory: &memory(), limit: 100 }).unwrap().cycles, None);
}
