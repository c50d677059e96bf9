//! The switch unit: lanes that move.

use super::program::{Program, Words, distribute, east, read, rotate, shift, transpose, west, write};
use super::*;
use crate::lpu::isa::Hemisphere::West;
use crate::lpu::isa::Queue::{self, Distribute, Mem as Slice, Shift, Transpose};

/// Reads of slices 0 to 3 at address 0 on westward streams 0 to 3, so that they come to the western SXM together, in cycle 6.
fn to_sxm() -> Vec<(Queue, u32, Words)> {
    (0..4).map(|slice| (Slice(slice as u8), 3 - slice, read(0, west(slice)))).collect()
}

/// Runs an instruction of the SXM in cycle 6, and writes what it drives onto eastward stream 4 in cycle 9 to slice 0.
fn on_sxm(rtl: &Rtl, queue: Queue, words: Words) -> [u8; VECTOR] {
    let mut instructions = to_sxm();
    instructions.extend([(queue, 6, words), (Slice(0), 10, write(64, east(4)))]);
    vector(&run(rtl, &Program::of(&instructions), &memory()).memory, 0, 64)
}

#[test]
fn lanes_shift_through_all_superlanes() {
    let Some(rtl) = rtl() else { return };
    let before = memory();
    let (x, under) = (vector(&before, 1, 0), vector(&before, 2, 0));
    for by in [-9i16, -8, -5, -1, 0, 3, 4, 7, 8, 30] {
        for (lanes, with_under) in [([0, 8], false), ([2, 7], true), ([5, 5], true), ([1, 2], false)] {
            let inside = |lane: usize| (lanes[0]..lanes[1]).contains(&(lane as u32));
            let outside = |lane: usize| if with_under { under[lane] } else { 0 };
            let operand = with_under.then_some(west(2));
            let shifted: [u8; 8] = std::array::from_fn(|lane| match usize::try_from(lane as i32 - i32::from(by)) {
                _ if !inside(lane) => outside(lane),
                Ok(source) if source < VECTOR => x[source],
                _ => 0,
            });
            let actual = on_sxm(rtl, Shift(West, 3), shift(west(1), by, lanes, operand, east(4)));
            assert_eq!(actual, shifted, "shift by {by}, lanes {lanes:?}");
            let rotated: [u8; 8] = std::array::from_fn(|lane| {
                if inside(lane) { x[(lane as i32 - i32::from(by)).rem_euclid(8) as usize] } else { outside(lane) }
            });
            let actual = on_sxm(rtl, Shift(West, 0), rotate(west(1), by, lanes, operand, east(4)));
            assert_eq!(actual, rotated, "rotate by {by}, lanes {lanes:?}");
        }
    }
}

#[test]
fn lanes_are_picked_within_each_superlane() {
    let Some(rtl) = rtl() else { return };
    let x = vector(&memory(), 3, 0);
    let map = [Some(3), None, Some(0), Some(3)];
    let picked = on_sxm(rtl, Distribute(West, 1), distribute(west(3), map, east(4)));
    assert_eq!(picked, [x[3], 0, x[0], x[3], x[7], 0, x[4], x[7]]);
}

#[test]
fn lanes_and_streams_change_places() {
    let Some(rtl) = rtl() else { return };
    let before = memory();
    let mut instructions = to_sxm();
    instructions.push((Transpose(West, 0), 6, transpose(west(0), east(4))));
    instructions.extend((0..4).map(|slice| (Slice(slice as u8), 10 + slice, write(64, east(4 + slice)))));
    let outcome = run(rtl, &Program::of(&instructions), &before);
    for result in 0..4 {
        let expected: [u8; 8] = std::array::from_fn(|lane| vector(&before, lane % 4, 0)[lane / 4 * 4 + result]);
        assert_eq!(vector(&outcome.memory, result, 64), expected, "result {result}");
    }
}
