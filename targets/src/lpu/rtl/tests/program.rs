//! Programs by hand: instructions as words, and the cycles in which they are wanted.

use tcc_ir::DType;

use super::machine;
use crate::lpu::LpuMachine;
use crate::lpu::isa::Queue;

/// The words of an instruction.
pub type Words = [u32; 4];

/// An eastward stream, as operands name it.
pub fn east(number: u32) -> u32 {
    1 << 12 | number
}

/// A westward one.
pub fn west(number: u32) -> u32 {
    1 << 12 | 1 << 5 | number
}

/// What is read leaves the stream.
pub const TAKE: u32 = 1 << 6;

/// Operands of an ALU that are no streams.
pub const FLOAT: u32 = 3 << 12;
pub const INTEGER: u32 = 4 << 12;

/// What an ALU has ready.
pub fn alu_result(alu: u32) -> u32 {
    2 << 12 | alu
}

/// Elements of a type.
pub fn of(dtype: DType, stream: u32) -> u32 {
    let number = DType::ALL.iter().position(|candidate| *candidate == dtype).unwrap() as u32;
    stream | number << 7
}

pub fn nop(cycles: u32) -> Words {
    [1, cycles, 0, 0]
}

pub fn repeat(count: u32, interval: u32, step: i32) -> Words {
    [2, count, interval, step as u32]
}

pub const SYNC: Words = [3, 0, 0, 0];
pub const NOTIFY: Words = [4, 0, 0, 0];
pub const END: Words = [5, 0, 0, 0];
pub const INSTALL: Words = [49, 0, 0, 0];

pub fn read(address: u32, to: u32) -> Words {
    [16 | 1 << 8, address, 0, to]
}

pub fn write(address: u32, from: u32) -> Words {
    [16 | 1 << 9, 0, address, from << 16]
}

pub fn read_and_write(from_address: u32, to: u32, to_address: u32, from: u32) -> Words {
    [16 | 3 << 8, from_address, to_address, to | from << 16]
}

pub fn gather(addresses: u32, to: u32) -> Words {
    [17, 0, 0, addresses | to << 16]
}

/// What ALUs compute: kind and function.
pub const COPY: u32 = 0;
pub const ACCUMULATE: u32 = 4;
pub const FIRST: u32 = 1 << 16;

pub fn unary(function: u32) -> u32 {
    1 | function << 8
}

pub fn binary(function: u32) -> u32 {
    2 | function << 8
}

/// The instruction of an ALU; `number` is the number's bits.
pub fn alu(function: u32, operands: &[u32], result: Option<u32>, number: u32) -> Words {
    let operand = |index: usize| operands.get(index).copied().unwrap_or(0);
    [32 | function << 8, operand(0) | operand(1) << 16, operand(2) | result.unwrap_or(0) << 16, number]
}

pub fn load(from: u32, column: u32) -> Words {
    [48, from, column, 0]
}

pub fn multiply_bytes(from: u32, row_signed: bool, weights_signed: bool) -> Words {
    [50 | u32::from(row_signed) << 10 | u32::from(weights_signed) << 11, from, 0, 0]
}

pub fn multiply_halves(from: u32, half: u32) -> Words {
    [50 | 1 << 8 | half << 9, from, 0, 0]
}

pub fn accumulate(row: u32, add: bool, to: Option<u32>) -> Words {
    [51 | u32::from(add) << 8, row, to.unwrap_or(0), 0]
}

pub fn shift(from: u32, by: i16, lanes: [u32; 2], under: Option<u32>, to: u32) -> Words {
    [64, from | under.unwrap_or(0) << 16, lanes[0] | lanes[1] << 16, u32::from(by as u16) | to << 16]
}

pub fn rotate(from: u32, by: i16, lanes: [u32; 2], under: Option<u32>, to: u32) -> Words {
    let [opcode, operands, lanes, rest] = shift(from, by, lanes, under, to);
    [opcode | 1 << 8, operands, lanes, rest]
}

pub fn distribute(from: u32, map: [Option<u32>; 4], to: u32) -> Words {
    let mut words = [65, from | to << 16, 0, 0];
    for (lane, source) in map.into_iter().enumerate() {
        match source {
            Some(source) => words[2] |= source << (4 * lane),
            None => words[0] |= 1 << (8 + lane),
        }
    }
    words
}

pub fn transpose(from: u32, to: u32) -> Words {
    [66, from | to << 16, 0, 0]
}

/// A program; its instructions, and the cycle that each was wanted in.
#[derive(Clone)]
pub struct Program {
    machine: LpuMachine,
    queues: Vec<Vec<Words>>,
    free: Vec<u32>,
    dispatches: Vec<(u64, usize)>,
    end: u64,
}

impl Program {
    /// Instructions that are dispatched in given cycles. Queues end right after their last.
    pub fn of(instructions: &[(Queue, u32, Words)]) -> Program {
        Program::on(&machine(), instructions)
    }

    /// The same for another machine.
    pub fn on(machine: &LpuMachine, instructions: &[(Queue, u32, Words)]) -> Program {
        let count = machine.queues().len();
        let mut program = Program {
            machine: machine.clone(),
            queues: vec![Vec::new(); count],
            free: vec![0; count],
            dispatches: Vec::new(),
            end: 0,
        };
        let mut instructions = instructions.to_vec();
        instructions.sort_by_key(|instruction| instruction.1);
        for (queue, cycle, words) in instructions {
            program.push(program.number(queue), cycle, words);
        }
        for queue in 0..count {
            program.push(queue, program.free[queue], END);
        }
        program.dispatches.sort();
        program
    }

    /// A program of whole queues; others end at once. It is for runs of which the caller knows the dispatches.
    pub fn raw(queues: &[(Queue, &[Words])]) -> Program {
        let mut program = Program::of(&[]);
        for (queue, words) in queues {
            let number = program.number(*queue);
            program.queues[number] = words.to_vec();
        }
        program
    }

    fn number(&self, queue: Queue) -> usize {
        self.machine.queues().iter().position(|candidate| *candidate == queue).unwrap()
    }

    fn push(&mut self, queue: usize, cycle: u32, words: Words) {
        let free = self.free[queue];
        assert!(cycle >= free, "queue {queue} dispatches something else in cycle {cycle}");
        if cycle > free {
            self.queues[queue].push(nop(cycle - free));
        }
        self.queues[queue].push(words);
        self.free[queue] = cycle + 1;
        if words == SYNC {
            return;
        }
        self.dispatches.push((u64::from(cycle), queue));
        let latency = match words[0] & 0xff {
            16 | 17 => self.machine.mem.latency,
            32 => self.machine.vxm.latency,
            50 => self.machine.mxm.latency,
            64..=66 => self.machine.sxm.latency,
            _ => 1,
        };
        self.end = self.end.max(u64::from(cycle + latency));
    }

    /// The binary form.
    pub fn encode(&self) -> Vec<u8> {
        let mut words = vec![self.queues.len() as u32];
        words.extend(self.queues.iter().map(|queue| queue.len() as u32));
        words.extend(self.queues.iter().flatten().flatten());
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// What is dispatched when.
    pub fn dispatches(&self) -> Vec<(usize, u64)> {
        self.dispatches.iter().map(|&(cycle, queue)| (queue, cycle)).collect()
    }

    /// The cycles that it takes.
    pub fn cycles(&self) -> u64 {
        self.end + u64::from(self.machine.superlanes) - 1
    }
}
