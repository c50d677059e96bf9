//! Programs whose results and cycles are known.

#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::{Execution, Fault, FaultCause, Simulator};
use crate::lpu::LpuMachine;
use crate::lpu::isa::{
    Accumulation, Alu, AluFn, Direction, Hemisphere, MAX_LANES, Number, Operand, Operation, Queue, Queues, Reads, Row,
    Stream,
};
use crate::lpu::machine::tests::small_machine;

const EAST: Direction = Direction::East;
const WEST: Direction = Direction::West;

fn stream(direction: Direction, number: u8) -> Stream {
    Stream { direction, number }
}

fn from(direction: Direction, number: u8) -> Reads {
    Reads { stream: stream(direction, number), take: false }
}

fn taken(direction: Direction, number: u8) -> Reads {
    Reads { take: true, ..from(direction, number) }
}

fn read(address: u16, to: Stream) -> Operation {
    Operation::Mem { read: Some((address, to)), write: None }
}

fn write(address: u16, from: Reads) -> Operation {
    Operation::Mem { read: None, write: Some((address, from)) }
}

/// A program of instructions with the cycles in which they are dispatched; queues end after the last.
fn program(machine: &LpuMachine, instructions: &[(Queue, u64, Operation)]) -> Queues {
    let queues = machine.queues();
    let mut program = Queues(vec![Vec::new(); queues.len()]);
    let mut next = vec![0; queues.len()];
    for (queue, cycle, operation) in instructions {
        let index = queues.iter().position(|known| known == queue).unwrap();
        if *cycle > next[index] {
            program.0[index].push(Operation::Nop((*cycle - next[index]) as u32));
        }
        program.0[index].push(*operation);
        next[index] = cycle + 1;
    }
    program.0.iter_mut().for_each(|queue| queue.push(Operation::End));
    program
}

/// The byte of vector `address` in lane `lane` of a slice, before a program runs.
fn initial(slice: usize, address: usize, lane: usize) -> u8 {
    (slice * 100 + address * 10 + lane) as u8
}

fn memory(machine: &LpuMachine) -> Vec<u8> {
    let depth = (machine.mem.words * machine.mem.banks) as usize;
    let vectors = 2 * machine.mem.slices as usize * depth;
    let byte = |vector: usize, lane| initial(vector / depth, vector % depth, lane);
    (0..vectors).flat_map(|vector| (0..machine.vector()).map(move |lane| byte(vector, lane))).collect()
}

fn vector(slice: usize, address: usize) -> Vec<u8> {
    (0..8).map(|lane| initial(slice, address, lane)).collect()
}

struct Ran {
    machine: LpuMachine,
    execution: Execution,
    memory: Vec<u8>,
    accumulators: Vec<u32>,
    hops: u64,
}

impl Ran {
    fn vector(&self, slice: usize, address: usize) -> &[u8] {
        let depth = (self.machine.mem.words * self.machine.mem.banks) as usize;
        let at = (slice * depth + address) * self.machine.vector();
        &self.memory[at..at + self.machine.vector()]
    }
}

fn run_with(memory: Vec<u8>, instructions: &[(Queue, u64, Operation)]) -> Result<Ran, Fault> {
    let machine = small_machine();
    let program = program(&machine, instructions);
    let mut simulator = Simulator::new(&machine, &program, memory).unwrap();
    let execution = simulator.run(|_, _| {})?;
    let (memory, accumulators) = (simulator.memory().to_vec(), simulator.accumulators());
    let hops = simulator.counts().hops;
    Ok(Ran { machine: machine.clone(), execution, memory, accumulators, hops })
}

fn run(instructions: &[(Queue, u64, Operation)]) -> Result<Ran, Fault> {
    run_with(memory(&small_machine()), instructions)
}

fn fault(instructions: &[(Queue, u64, Operation)]) -> FaultCause {
    match run(instructions) {
        Ok(_) => panic!("nothing was noticed"),
        Err(fault) => fault.cause,
    }
}

#[test]
fn vectors_flow_from_slice_to_slice() {
    // Slice 0 stands at position 2, slice 3 at position 5: driven in cycle 2, there in cycle 5.
    let ran =
        run(&[(Queue::Mem(0), 0, read(7, stream(EAST, 3))), (Queue::Mem(3), 5, write(9, from(EAST, 3)))]).unwrap();
    assert_eq!(ran.vector(3, 9), vector(0, 7));
    // Written in cycle 5, there two cycles later, and in the second superlane a cycle after that.
    assert_eq!(ran.execution.cycles, 5 + 2 + 1);
    // It goes on to the last of 13 positions.
    assert_eq!(ran.hops, 10);
    let early = fault(&[(Queue::Mem(0), 0, read(7, stream(EAST, 3))), (Queue::Mem(3), 4, write(9, from(EAST, 3)))]);
    assert!(matches!(early, FaultCause::NothingThere(_)), "{early}");
}

#[test]
fn what_is_taken_goes_no_further() {
    let ran =
        run(&[(Queue::Mem(3), 0, read(1, stream(WEST, 0))), (Queue::Mem(1), 4, write(2, taken(WEST, 0)))]).unwrap();
    assert_eq!((ran.vector(1, 2), ran.hops), (&vector(3, 1)[..], 2));
    let gone = fault(&[
        (Queue::Mem(3), 0, read(1, stream(WEST, 0))),
        (Queue::Mem(1), 4, write(2, taken(WEST, 0))),
        (Queue::Mem(0), 5, write(2, from(WEST, 0))),
    ]);
    assert!(matches!(gone, FaultCause::NothingThere(_)), "{gone}");
}

#[test]
fn streams_carry_one_vector_at_a_place() {
    // Slice 2 drives in the cycle in which the vector of slice 0 comes by.
    let collides = [(Queue::Mem(0), 0, read(0, stream(EAST, 1))), (Queue::Mem(2), 2, read(0, stream(EAST, 1)))];
    assert!(matches!(fault(&collides), FaultCause::Collision { position: 4, .. }));
    // Another stream, another cycle, or a unit that takes it, are in order.
    let mut other_stream = collides;
    other_stream[1].2 = read(0, stream(EAST, 2));
    run(&other_stream).map(|_| ()).unwrap();
    let mut later = collides;
    later[1].1 = 3;
    run(&later).map(|_| ()).unwrap();
    let exchanged = run(&[
        (Queue::Mem(0), 0, read(5, stream(EAST, 1))),
        (Queue::Mem(2), 2, read(6, stream(EAST, 1))),
        (Queue::Mem(2), 4, write(70, taken(EAST, 1))),
        (Queue::Mem(3), 5, write(8, from(EAST, 1))),
    ]);
    assert_eq!(exchanged.unwrap().vector(3, 8), vector(2, 6));
}

#[test]
fn slices_read_and_write_different_banks() {
    let both = |read: u16, write: u16| Operation::Mem {
        read: Some((read, stream(EAST, 0))),
        write: Some((write, from(WEST, 0))),
    };
    let program = |both| [(Queue::Mem(3), 0, read(1, stream(WEST, 0))), (Queue::Mem(2), 3, both)];
    let ran = run(&program(both(4, 64))).unwrap();
    assert_eq!(ran.vector(2, 64), vector(3, 1));
    let early = fault(&[
        (Queue::Mem(3), 0, read(1, stream(WEST, 0))),
        (Queue::Mem(2), 3, write(5, from(WEST, 0))),
        (Queue::Mem(2), 4, read(5, stream(EAST, 0))),
    ]);
    assert_eq!(early, FaultCause::TooEarly(5));
}

#[test]
fn superlanes_gather_from_addresses_of_their_own() {
    let machine = small_machine();
    let mut bytes = memory(&machine);
    let depth = (machine.mem.words * machine.mem.banks) as usize;
    let at = |slice: usize, address: usize| (slice * depth + address) * 8;
    // The addresses are 3 and 300, which there is not: the last is 127.
    bytes[at(0, 0)..at(0, 0) + 8].copy_from_slice(&[3, 0, 0, 0, 44, 0, 0, 0]);
    bytes[at(1, 0)..at(1, 0) + 8].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    let ran = run_with(
        bytes,
        &[
            (Queue::Mem(0), 0, read(0, stream(EAST, 4))),
            (Queue::Mem(1), 1, read(0, stream(EAST, 5))),
            (Queue::Mem(2), 4, Operation::Gather { addresses: from(EAST, 4), to: stream(EAST, 6) }),
            (Queue::Mem(3), 7, write(0, from(EAST, 6))),
        ],
    );
    let expected: Vec<u8> = (0..8).map(|lane| initial(2, if lane < 4 { 3 } else { 127 }, lane)).collect();
    assert_eq!(ran.unwrap().vector(3, 0), expected);
}

#[test]
fn alus_chain() {
    let number = |value| Operand::Number(Number::Integer(value));
    let first = Alu {
        function: AluFn::Binary(BinaryFn::Add, [Operand::Stream(from(EAST, 0), DType::U8), number(1)]),
        result: None,
    };
    let second = Alu {
        function: AluFn::Binary(BinaryFn::Mul, [Operand::Alu(0), number(2)]),
        result: Some((stream(EAST, 2), DType::I16)),
    };
    // The VXM stands at position 6; slice 4, the first in the east, at 7.
    let chain = |start| {
        [
            (Queue::Mem(3), 0, read(20, stream(EAST, 0))),
            (Queue::Alu(0), 3, Operation::Alu(first)),
            (Queue::Alu(1), start, Operation::Alu(second)),
            (Queue::Mem(4), 8, write(0, from(EAST, 2))),
            (Queue::Mem(5), 9, write(0, from(EAST, 3))),
        ]
    };
    let ran = run(&chain(5)).unwrap();
    let expected: Vec<i16> = vector(3, 20).iter().map(|&byte| (i16::from(byte) + 1) * 2).collect();
    let found: Vec<i16> =
        (0..8).map(|lane| i16::from_le_bytes([ran.vector(4, 0)[lane], ran.vector(5, 0)[lane]])).collect();
    assert_eq!(found, expected);
    assert!(matches!(fault(&chain(6)), FaultCause::NothingThere(_)));
}

#[test]
fn running_results_go_on_until_they_begin_anew() {
    let step = |first| {
        let operand = Operand::Stream(from(WEST, 0), DType::U8);
        let function = AluFn::Accumulate { function: Accumulation::Max, first, operand };
        Operation::Alu(Alu { function, result: None })
    };
    let out = Alu { function: AluFn::Copy(Operand::Alu(2)), result: Some((stream(WEST, 1), DType::U8)) };
    let ran = run(&[
        (Queue::Mem(4), 0, read(0, stream(WEST, 0))),
        (Queue::Mem(4), 1, Operation::Repeat { count: 2, interval: 1, step: 9 }),
        (Queue::Alu(2), 3, step(true)),
        (Queue::Alu(2), 4, step(false)),
        (Queue::Alu(2), 5, step(false)),
        (Queue::Alu(3), 7, Operation::Alu(out)),
        (Queue::Mem(3), 10, write(0, from(WEST, 1))),
    ])
    .unwrap();
    let expected: Vec<u8> = (0..8).map(|lane| (0..3).map(|turn| initial(4, 9 * turn, lane)).max().unwrap()).collect();
    assert_eq!(ran.vector(3, 0), expected);
    let float = Alu { function: AluFn::Copy(Operand::Number(Number::Float(1.0))), result: None };
    let function = AluFn::Accumulate { function: Accumulation::Max, first: false, operand: Operand::Alu(3) };
    let other_class = fault(&[
        (Queue::Mem(4), 0, read(0, stream(WEST, 0))),
        (Queue::Alu(2), 3, step(true)),
        (Queue::Alu(3), 3, Operation::Alu(float)),
        (Queue::Alu(2), 5, Operation::Alu(Alu { function, result: None })),
    ]);
    assert_eq!(other_class, FaultCause::OtherClass);
}

#[test]
fn an_integer_divided_by_zero_is_zero() {
    let function =
        AluFn::Binary(BinaryFn::Div, [Operand::Number(Number::Integer(90)), Operand::Stream(from(EAST, 0), DType::I8)]);
    let ran = run(&[
        (Queue::Mem(0), 0, read(0, stream(EAST, 0))),
        (Queue::Alu(0), 6, Operation::Alu(Alu { function, result: Some((stream(EAST, 0), DType::I8)) })),
        (Queue::Mem(4), 9, write(0, from(EAST, 0))),
    ]);
    // The vector itself has passed by two cycles before.
    assert_eq!(ran.unwrap().vector(4, 0), [0, 90, 45, 30, 22, 18, 15, 12]);
}

/// Loads the identity, times `weight`, into a plane of bytes of the east.
fn identity(memory: &mut [u8], machine: &LpuMachine, weight: u8) -> Vec<(Queue, u64, Operation)> {
    let depth = (machine.mem.words * machine.mem.banks) as usize;
    for column in 0..8 {
        // Columns 0..4 come from slices 4..8 at address 30, the others from address 31.
        let at = ((4 + column % 4) * depth + 30 + column / 4) * 8;
        memory[at..at + 8].fill(0);
        memory[at + column] = weight;
    }
    let mut program = Vec::new();
    for turn in 0..2 {
        for slice in 0..4u8 {
            // Slice 4 + n stands at position 7 + n, the MXM at 12.
            program.push((Queue::Mem(4 + slice), u64::from(slice) + turn, read(30 + turn as u16, stream(EAST, slice))));
        }
        let load = Operation::Load { from: from(EAST, 0), column: 4 * turn as u16 };
        program.push((Queue::Load(Hemisphere::East, 0), 7 + turn, load));
    }
    program.push((Queue::Load(Hemisphere::East, 0), 9, Operation::Install));
    program
}

#[test]
fn planes_multiply_bytes() {
    let machine = small_machine();
    let mut bytes = memory(&machine);
    let mut instructions = identity(&mut bytes, &machine, 0xfe);
    let side = Hemisphere::East;
    let row = Row::Bytes { row_signed: false, weights_signed: true };
    // A row leaves slice 7, position 10, for position 12.
    instructions.extend([
        (Queue::Mem(7), 5, read(3, stream(EAST, 5))),
        (Queue::Multiply(side, 0), 9, Operation::Multiply { from: from(EAST, 5), row }),
        (Queue::Accumulate(side, 0), 14, Operation::Accumulate { row: 2, add: false, to: None }),
        (Queue::Mem(7), 6, read(4, stream(EAST, 5))),
        (Queue::Multiply(side, 0), 10, Operation::Multiply { from: from(EAST, 5), row }),
        (Queue::Accumulate(side, 0), 15, Operation::Accumulate { row: 2, add: true, to: Some(stream(WEST, 0)) }),
    ]);
    instructions.sort_by_key(|(_, cycle, _)| *cycle);
    for byte in 0..4u8 {
        // Driven in cycle 16 at position 12.
        instructions.push((Queue::Mem(7 - byte), 18 + u64::from(byte), write(60, from(WEST, byte))));
    }
    let ran = run_with(bytes.clone(), &instructions).unwrap();
    let sum = |lane: usize| {
        let value = |address| i32::from(initial(7, address, lane));
        -2 * (value(3) + value(4))
    };
    let expected: Vec<u32> = (0..8).map(|lane| sum(lane) as u32).collect();
    let plane = 2 * machine.mxm.accumulators as usize * 8;
    assert_eq!(ran.accumulators[plane + 2 * 8..plane + 3 * 8], expected);
    let found: Vec<i32> =
        (0..8).map(|lane| i32::from_le_bytes([7, 6, 5, 4].map(|slice| ran.vector(slice, 60)[lane]))).collect();
    assert_eq!(found, (0..8).map(sum).collect::<Vec<_>>());
    // An accumulate that comes later than the last sums finds nothing.
    let late = |(queue, cycle, operation): (Queue, u64, Operation)| match queue {
        Queue::Accumulate(..) => (queue, cycle + 2, operation),
        _ => (queue, cycle, operation),
    };
    let late: Vec<_> = instructions.into_iter().take_while(|(_, cycle, _)| *cycle < 15).map(late).collect();
    run_with(bytes, &late).map(|_| ()).unwrap_err();
}

#[test]
fn switches_move_lanes() {
    let side = Hemisphere::West;
    let map: [Option<u8>; MAX_LANES] =
        std::array::from_fn(|lane| [Some(3), None, Some(0), Some(0)].get(lane).copied().flatten());
    // Slice 0 stands at position 2, the SXM at 1; results come back in cycle 3 + 3.
    let switched = |operation: Operation, queue| {
        let ran = run(&[
            (Queue::Mem(0), 0, read(0, stream(WEST, 0))),
            (queue, 3, operation),
            (Queue::Mem(1), 8, write(1, from(EAST, 4))),
        ]);
        ran.unwrap().vector(1, 1).to_vec()
    };
    let to = stream(EAST, 4);
    let shift = |by, rotate, lanes| {
        switched(Operation::Shift { from: from(WEST, 0), by, rotate, lanes, under: None, to }, Queue::Shift(side, 0))
    };
    assert_eq!(shift(2, false, [0, 8]), [0, 0, 0, 1, 2, 3, 4, 5]);
    assert_eq!(shift(-3, true, [1, 8]), [0, 4, 5, 6, 7, 0, 1, 2]);
    let distribute = Operation::Distribute { from: from(WEST, 0), map, to };
    assert_eq!(switched(distribute, Queue::Distribute(side, 0)), [3, 0, 0, 0, 7, 0, 4, 4]);
}

#[test]
fn transposers_exchange_lanes_and_streams() {
    let side = Hemisphere::East;
    let mut instructions: Vec<_> =
        (0..4u8).map(|n| (Queue::Mem(4 + n), u64::from(n), read(2, stream(EAST, n)))).collect();
    // Slice 7 reads in cycle 3; the SXM stands at position 11.
    instructions.push((
        Queue::Transpose(side, 0),
        6,
        Operation::Transpose { from: from(EAST, 0), to: stream(WEST, 8) },
    ));
    for n in 0..4u8 {
        instructions.push((Queue::Mem(7 - n), 10 + u64::from(n), write(3, from(WEST, 8 + n))));
    }
    let ran = run(&instructions).unwrap();
    for n in 0..4 {
        let expected: Vec<u8> = (0..8).map(|lane| initial(4 + lane % 4, 2, lane - lane % 4 + n)).collect();
        assert_eq!(ran.vector(7 - n, 3), expected);
    }
}

#[test]
fn queues_wait_for_a_notify() {
    let ran = run(&[
        (Queue::Mem(0), 0, Operation::Sync),
        (Queue::Mem(0), 1, read(7, stream(EAST, 3))),
        (Queue::Alu(0), 10, Operation::Notify),
        // It goes on in cycle 13.
        (Queue::Mem(3), 18, write(9, from(EAST, 3))),
    ])
    .unwrap();
    assert_eq!(ran.vector(3, 9), vector(0, 7));
    assert_eq!(
        fault(&[(Queue::Alu(1), 5, Operation::Notify), (Queue::Mem(0), 5, Operation::Sync)]),
        FaultCause::NoNotify
    );
}
