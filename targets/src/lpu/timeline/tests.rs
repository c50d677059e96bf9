// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use super::*;
use crate::lpu::arbitrary::dataflow::cases;
use crate::lpu::assembly::assemble;
use crate::lpu::isa::{Direction, Reads, Stream};
use crate::lpu::machine::tests::small_machine;
use crate::lpu::simulator::Simulator;

const EAST: Stream = Stream { direction: Direction::East, number: 0 };

fn read(address: u16) -> Operation {
    Operation::Mem { read: Some((address, EAST)), write: None }
}

fn copy(from: u16, to: u16) -> Operation {
    Operation::Mem { read: Some((from, EAST)), write: Some((to, Reads { stream: EAST, take: true })) }
}

fn repeat(count: u32, interval: u32, step: i32) -> Operation {
    Operation::Repeat { count, interval, step }
}

fn of(queues: Vec<Vec<Operation>>) -> Vec<Vec<u64>> {
    // A notify lets queues go on three cycles later.
    resumes(&Queues(queues), &small_machine())
}

#[test]
fn instructions_follow_each_other() {
    let queue = [read(1), Operation::Nop(4), read(2), read(3), Operation::End];
    let expected = [(0, read(1)), (5, read(2)), (6, read(3)), (7, Operation::End)];
    assert!(dispatches(&queue).eq(expected));
}

#[test]
fn a_repeat_moves_both_addresses_and_takes_no_cycle_itself() {
    let queue = [Operation::Nop(2), copy(8, 70), repeat(3, 5, -2), read(1), Operation::End];
    let expected =
        [(2, copy(8, 70)), (7, copy(6, 68)), (12, copy(4, 66)), (17, copy(2, 64)), (18, read(1)), (19, Operation::End)];
    assert!(dispatches(&queue).eq(expected));
}

#[test]
fn columns_and_rows_move() {
    let from = Reads { stream: EAST, take: true };
    let load = |column| Operation::Load { from, column };
    let queue = [load(4), repeat(1, 1, 4), Operation::Install, repeat(1, 2, 7), Operation::End];
    let expected = [(0, load(4)), (1, load(8)), (2, Operation::Install), (4, Operation::Install), (5, Operation::End)];
    assert!(dispatches(&queue).eq(expected));
    let add = |row| Operation::Accumulate { row, add: true, to: None };
    assert!(dispatches(&[add(3), repeat(2, 4, 1), Operation::End]).map(|(_, operation)| operation).eq([
        add(3),
        add(4),
        add(5),
        Operation::End
    ]));
}

#[test]
fn long_repeats_are_lazy() {
    let queue =
        [read(0), repeat(u32::MAX, u32::MAX, 0), read(1), repeat(u32::MAX, u32::MAX, 0), read(2), Operation::End];
    assert_eq!(dispatches(&queue).nth(1), Some((u64::from(u32::MAX), read(0))));
    let last = u64::from(u32::MAX) * u64::from(u32::MAX);
    let firsts: Vec<u64> = spans(&queue, &[]).map(|span| span.first).collect();
    assert_eq!(firsts, [0, last + 1, u64::MAX, u64::MAX]);
}

#[test]
fn a_queue_is_known_up_to_its_first_sync() {
    let queue = [read(1), Operation::Sync, read(2), Operation::Sync, Operation::End];
    assert!(dispatches(&queue).eq([(0, read(1)), (1, Operation::Sync)]));
    let expected = [(0, read(1)), (1, Operation::Sync), (20, read(2)), (21, Operation::Sync), (40, Operation::End)];
    assert!(dispatches_with(&queue, &[20, 40]).eq(expected));
}

#[test]
fn a_notify_frees_those_that_wait_already() {
    // The notify is in cycle 5: the first queue has waited since 0, the second since 4; the third comes just too late.
    let notify = vec![Operation::Nop(5), Operation::Notify, Operation::Nop(10), Operation::Notify, Operation::End];
    let after = |cycles| vec![Operation::Nop(cycles), Operation::Sync, Operation::End];
    let queues = vec![vec![Operation::Sync, Operation::End], after(4), after(5), notify, after(15), after(16)];
    assert_eq!(of(queues), [vec![8], vec![8], vec![19], vec![], vec![19], vec![]]);
}

#[test]
fn queues_pass_notifies_on() {
    // Cycle 2 notifies the second queue, which goes on in 5, and its notify in 6 the first, which goes on in 9.
    let first = vec![Operation::Nop(2), Operation::Notify, Operation::Sync, Operation::End];
    let second = vec![Operation::Sync, read(0), Operation::Notify, Operation::Sync, Operation::End];
    assert_eq!(of(vec![first, second]), [vec![9], vec![5]]);
}

#[test]
fn a_later_notify_may_come_from_a_queue_that_waits_now() {
    // The third queue notifies in 100; but the second, freed by the first, does so in 10 already.
    let first = vec![Operation::Nop(6), Operation::Notify, Operation::Nop(4), Operation::Sync, Operation::End];
    let second = vec![Operation::Sync, Operation::Nop(3), Operation::Notify, Operation::End];
    let third = vec![Operation::Nop(100), Operation::Notify, Operation::End];
    let fourth = vec![Operation::Nop(6), Operation::Sync, Operation::End];
    assert_eq!(of(vec![first, second, third, fourth]), [vec![15], vec![9], vec![], vec![15]]);
}

#[test]
fn repeated_notifies_are_not_walked_through() {
    // Notifies in 1, 4, 7 and so on: of two syncs, each waits for the next, and one that is late for one near it.
    let notify = vec![read(0), Operation::Notify, repeat(u32::MAX, 3, 0), Operation::End];
    let twice = vec![Operation::Sync, Operation::Sync, Operation::End];
    let late = vec![Operation::Nop(3_000_001), Operation::Sync, Operation::End];
    assert_eq!(of(vec![notify, twice, late]), [vec![], vec![4, 10], vec![3_000_007]]);
    // Notifies in 2 and 5 only.
    let few = vec![Operation::Nop(2), Operation::Notify, repeat(1, 3, 0), Operation::End];
    let after = |cycles| vec![Operation::Nop(cycles), Operation::Sync, Operation::End];
    assert_eq!(of(vec![few, after(2), after(4), after(5)]), [vec![], vec![8], vec![8], vec![]]);
}

#[test]
fn who_waits_for_nothing_waits_for_ever() {
    let queues = vec![vec![Operation::Sync, Operation::Notify, Operation::End], vec![Operation::Sync, Operation::End]];
    assert_eq!(of(queues), [Vec::<u64>::new(), Vec::new()]);
}

#[test]
fn cycles_are_those_that_the_simulator_counts() {
    let machine = small_machine();
    for case in cases(&machine, 60, 3) {
        let mut simulator = Simulator::new(&machine, &case.program, case.memory.clone()).unwrap();
        assert_eq!(cycles(&case.program, &machine), simulator.run(|_, _| {}).unwrap().cycles);
    }
}

#[test]
fn each_unit_has_its_latency() {
    let machine = small_machine();
    let ending = |text: &str| cycles(&assemble(&format!("{text}others:\n end\n"), &machine).unwrap(), &machine);
    // What follows from an `end` in cycle 0 or 1, and the second superlane.
    assert_eq!(ending(""), 1 + 1);
    assert_eq!(ending("mem 0:\n read 0x0 -> e0\n end\n"), 2 + 1);
    assert_eq!(ending("west plane 0 multiply:\n multiply i8 e0 by i8\n end\n"), 5 + 1);
    assert_eq!(ending("west shifter 0:\n shift e0 by 1 -> e1\n end\n"), 3 + 1);
    assert_eq!(ending("alu 0:\n copy u8 e0\n repeat 10 every 3\n end\n"), 30 + 2 + 1);
    assert_eq!(ending("alu 0:\n nop 9\n notify\n end\nalu 1:\n sync\n copy u8 e0\n end\n"), 9 + 3 + 2 + 1);
}
