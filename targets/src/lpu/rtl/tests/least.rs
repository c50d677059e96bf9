//! A machine of the least latencies, of three superlanes, so that halves of all lanes end within one.

use half::f16;

use super::program::{
    INSTALL, NOTIFY, Program, SYNC, Words, accumulate, east, load, multiply_halves, read, rotate, west, write,
};
use super::*;
use crate::lpu::isa::Hemisphere::West;
use crate::lpu::isa::Queue::{self, Accumulate, Load, Mem as Slice, Multiply, Shift};
use crate::lpu::machine::{Mem, Mxm, Sxm, Vxm};

fn least() -> LpuMachine {
    LpuMachine {
        superlanes: 3,
        lanes: 2,
        streams: 8,
        notify_latency: 1,
        mem: Mem { slices: 2, banks: 1, words: 16, latency: 1 },
        vxm: Vxm { alus: 1, latency: 1 },
        mxm: Mxm { planes: 2, load_streams: 2, accumulators: 3, latency: 3 },
        sxm: Sxm { shifters: 1, distributors: 1, transposers: 1, latency: 3 },
        energy: None,
    }
}

/// The place of a vector in memory.
fn at(slice: usize, address: usize) -> std::ops::Range<usize> {
    let first = (slice * 16 + address) * 6;
    first..first + 6
}

/// Reads of slices 0 and 1, so that the vectors come to the MXM in a cycle on two westward streams.
fn to_mxm(address: u32, stream: u32, cycle: u32) -> [(Queue, u32, Words); 2] {
    [0, 1].map(|slice| (Slice(slice as u8), cycle - 3 - slice, read(address, west(stream + slice))))
}

#[test]
fn latencies_may_be_as_small_as_they_can_be() {
    let Some(rtl) = built("lpu-least", &least(), unchanged) else { return };
    let weight = |column: usize, lane: usize| f16::from_f32((6 * column + lane) as f32 * 0.75 - 9.0);
    let x = |lane: usize| f16::from_f32([1.0, -0.001, 1000.0, 0.3, -7.0, 0.01][lane]);
    let mut before = vec![0; 4 * 16 * 6];
    for byte in 0..2 {
        for column in 0..6 {
            let lanes = std::array::from_fn::<u8, 6, _>(|lane| weight(column, lane).to_le_bytes()[byte]);
            before[at(column % 2, 3 * byte + column / 2)].copy_from_slice(&lanes);
        }
        let lanes = std::array::from_fn::<u8, 6, _>(|lane| x(lane).to_le_bytes()[byte]);
        before[at(byte, 6)].copy_from_slice(&lanes);
    }
    before[at(0, 7)].copy_from_slice(&[10, 11, 12, 13, 14, 15]);
    let mut instructions = Vec::new();
    for index in 0..6 {
        instructions.extend(to_mxm(index, 0, 4 + index));
        instructions.push((Load(West, (index / 3) as u8), 4 + index, load(west(0), 2 * (index % 3))));
    }
    instructions.extend([(Load(West, 0), 10, INSTALL), (Load(West, 1), 10, INSTALL)]);
    for half in 0..2 {
        instructions.extend(to_mxm(6, 2, 10 + half));
        instructions.push((Multiply(West, 0), 10 + half, multiply_halves(west(2), half)));
        instructions.push((Accumulate(West, 0), 13 + half, accumulate(2, half == 1, None)));
    }
    // A vector passes the SXM in cycle 17, and comes back in cycle 21.
    instructions.extend([
        (Slice(0), 15, read(7, west(5))),
        (Shift(West, 0), 17, rotate(west(5), -2, [1, 6], None, east(5))),
        (Slice(0), 21, write(15, east(5))),
    ]);
    let program = Program::on(&least(), &instructions);
    let encoded = program.encode();
    let outcome = rtl.run_one(Job { program: &encoded, memory: &before, limit: 1000 }).unwrap();
    assert_eq!(outcome.dispatches, program.dispatches());
    assert_eq!(outcome.cycles, Some(program.cycles()));
    assert_eq!(outcome.cycles, Some(25));
    let expected: [u32; 6] = std::array::from_fn(|column| {
        let sum = |lanes: std::ops::Range<usize>| {
            lanes.fold(0f32, |sum, lane| sum + f32::from(x(lane)) * f32::from(weight(column, lane)))
        };
        (sum(0..3) + sum(3..6)).to_bits()
    });
    assert_eq!(outcome.accumulators[12..18], expected);
    assert_eq!(outcome.memory[at(0, 15)], [0, 13, 14, 15, 10, 11]);

    // A notify that is dispatched in the cycle after a sync lets it go on in the next.
    let waiting = [(Slice(2), 0, SYNC), (Slice(2), 1, read(0, east(0))), (Slice(3), 1, NOTIFY)];
    let encoded = Program::on(&least(), &waiting).encode();
    let outcome = rtl.run_one(Job { program: &encoded, memory: &before, limit: 1000 }).unwrap();
    assert!(outcome.dispatches.contains(&(2, 2)), "{:?}", outcome.dispatches);
    assert_eq!(outcome.cycles, Some(6));
}
