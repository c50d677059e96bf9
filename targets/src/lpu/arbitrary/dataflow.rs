//! Random programs in which every operand is there in its cycle: of random pieces of dataflow those that the simulator lets
//! pass together.

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use crate::lpu::LpuMachine;
use crate::lpu::emit::{Placed, emit};
use crate::lpu::isa::{
    Accumulation, Alu, AluFn, Direction, Hemisphere, MAX_LANES, Number, Operand, Operation, Queue, Queues, Reads, Row,
    Stream,
};
use crate::lpu::simulator::Simulator;

/// A program with what memory holds before it.
pub(crate) struct Case {
    pub program: Queues,
    pub memory: Vec<u8>,
}

/// Random programs for a machine.
pub(crate) fn cases(machine: &LpuMachine, count: usize, seed: u64) -> Vec<Case> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = Random(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    (0..count).map(|_| case(machine, &mut random)).collect()
}

/// Pieces that are tried for a program.
const PIECES: usize = 40;

fn case(machine: &LpuMachine, random: &mut Random) -> Case {
    let memory: Vec<u8> = (0..machine.memory_bytes()).map(|_| random.byte()).collect();
    let mut placed: Vec<Placed> = Vec::new();
    for _ in 0..PIECES {
        let mut pieces = Pieces { machine, random, placed: Vec::new() };
        pieces.piece();
        let mut more = placed.clone();
        let turns = if pieces.random.below(3) == 0 { 2 + pieces.random.below(4) as u64 } else { 1 };
        let interval = 1 + pieces.random.below(2) as u64;
        for turn in 0..turns {
            let again = pieces.placed.iter().map(|one| Placed {
                cycle: one.cycle + turn * interval,
                operation: one.operation.moved(turn as i64),
                ..*one
            });
            more.extend(again);
        }
        if runs(machine, &more, &memory) {
            placed = more;
        }
    }
    let mut program = emit(placed, machine).map(|emitted| emitted.queues).unwrap_or_default();
    if random.below(2) == 0 {
        begin_together(&mut program, machine, random);
    }
    Case { program, memory }
}

/// Whether the simulator lets a program pass.
fn runs(machine: &LpuMachine, placed: &[Placed], memory: &[u8]) -> bool {
    let Ok(emitted) = emit(placed.to_vec(), machine) else { return false };
    let Ok(mut simulator) = Simulator::new(machine, &emitted.queues, memory.to_vec()) else { return false };
    simulator.run(|_, _| {}).is_ok()
}

/// Lets all queues wait for a notify of one of them before they begin.
fn begin_together(program: &mut Queues, machine: &LpuMachine, random: &mut Random) {
    let notifier = random.below(program.0.len());
    for (index, queue) in program.0.iter_mut().enumerate() {
        let beginning = match (index == notifier, machine.notify_latency) {
            (false, _) => vec![Operation::Sync],
            (true, 1) => vec![Operation::Nop(5), Operation::Notify],
            (true, latency) => vec![Operation::Nop(5), Operation::Notify, Operation::Nop(latency - 1)],
        };
        queue.splice(0..0, beginning);
    }
}

struct Random(TestRng);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0.next_u32() as usize % count.max(1)
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A byte of which words become numbers of all kinds: most are small.
    fn byte(&mut self) -> u8 {
        if self.below(2) == 0 {
            self.0.next_u32() as u8
        } else {
            self.of(&[0, 1, 2, 3, 0x3c, 0x3f, 0x40, 0x80, 0xbf, 0x7f, 0xff])
        }
    }

    fn truth(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Instructions that belong together, as they are found.
struct Pieces<'a> {
    machine: &'a LpuMachine,
    random: &'a mut Random,
    placed: Vec<Placed>,
}

/// Types that an ALU's operands have most often.
const TYPES: [DType; 8] =
    [DType::F32, DType::F16, DType::I8, DType::U8, DType::I32, DType::Bool, DType::BF16, DType::I64];

impl Pieces<'_> {
    fn put(&mut self, queue: Queue, cycle: u64, operation: Operation) {
        self.placed.push(Placed { queue, cycle, operation, kernel: 0 });
    }

    fn stream(&mut self, width: usize) -> Stream {
        let number = self.random.below(self.machine.streams as usize + 1 - width) as u8;
        Stream { direction: self.random.of(&Direction::ALL), number }
    }

    fn address(&mut self) -> u16 {
        // So few that what is written is read again.
        let words = self.machine.mem.words as usize;
        (self.random.below(self.machine.mem.banks as usize) * words + self.random.below(8.min(words))) as u16
    }

    /// A slice from which a stream comes to a position, and the hops.
    fn upstream(&mut self, direction: Direction, position: usize) -> Option<(u8, u64)> {
        let slice = self.random.below(2 * self.machine.mem.slices as usize) as u8;
        let from = self.machine.position(Queue::Mem(slice));
        let hops = match direction {
            Direction::East => position.checked_sub(from),
            Direction::West => from.checked_sub(position),
        };
        hops.filter(|&hops| hops > 0).map(|hops| (slice, hops as u64))
    }

    /// Reads that bring `width` vectors to a position in a cycle.
    fn source(&mut self, width: usize, position: usize, cycle: u64) -> Option<Reads> {
        let stream = self.stream(width);
        let latency = u64::from(self.machine.mem.latency);
        for number in 0..width {
            let (slice, hops) = (0..20).find_map(|_| self.upstream(stream.direction, position))?;
            let to = Stream { number: stream.number + number as u8, ..stream };
            let address = self.address();
            let dispatched = cycle.checked_sub(hops + latency)?;
            self.put(Queue::Mem(slice), dispatched, Operation::Mem { read: Some((address, to)), write: None });
        }
        Some(Reads { stream, take: self.random.truth() })
    }

    /// Writes what is driven at a position in a cycle, if there is a slice on its way.
    fn sink(&mut self, stream: Stream, width: usize, position: usize, cycle: u64) {
        let backwards = match stream.direction {
            Direction::East => Direction::West,
            Direction::West => Direction::East,
        };
        for number in 0..width {
            let Some((slice, hops)) = (0..20).find_map(|_| self.upstream(backwards, position)) else { return };
            let from = Stream { number: stream.number + number as u8, ..stream };
            let write = Some((self.address(), Reads { stream: from, take: self.random.truth() }));
            self.put(Queue::Mem(slice), cycle + hops, Operation::Mem { read: None, write });
        }
    }

    /// A unit with its operands, and what becomes of its result. Nothing is put for some draws.
    fn piece(&mut self) {
        let cycle = 20 + self.random.below(60) as u64;
        let found = match self.random.below(8) {
            0 | 1 => self.alu(cycle),
            2 => self.plane(cycle),
            3 => self.shift(cycle),
            4 => self.distribute(cycle),
            5 => self.transpose(cycle),
            6 => self.gather(cycle),
            _ => self.copy(cycle),
        };
        if found.is_none() {
            self.placed.clear();
        }
    }

    fn side(&mut self) -> Hemisphere {
        self.random.of(&Hemisphere::ALL)
    }

    fn copy(&mut self, cycle: u64) -> Option<()> {
        let slice = self.random.below(2 * self.machine.mem.slices as usize) as u8;
        let queue = Queue::Mem(slice);
        let from = self.source(1, self.machine.position(queue), cycle)?;
        let address = self.address();
        self.put(queue, cycle, Operation::Mem { read: None, write: Some((address, from)) });
        Some(())
    }

    fn gather(&mut self, cycle: u64) -> Option<()> {
        let queue = Queue::Mem(self.random.below(2 * self.machine.mem.slices as usize) as u8);
        let position = self.machine.position(queue);
        let (addresses, to) = (self.source(2, position, cycle)?, self.stream(1));
        self.put(queue, cycle, Operation::Gather { addresses, to });
        self.sink(to, 1, position, cycle + u64::from(self.machine.mem.latency));
        Some(())
    }

    fn operand(&mut self, cycle: u64, number: Number, dtype: DType) -> Option<Operand> {
        if self.random.below(6) == 0 {
            return Some(Operand::Number(number));
        }
        let position = self.machine.position(Queue::Alu(0));
        Some(Operand::Stream(self.source(dtype.bits() / 8, position, cycle)?, dtype))
    }

    fn alu(&mut self, cycle: u64) -> Option<()> {
        let alus = self.machine.vxm.alus as usize;
        let latency = u64::from(self.machine.vxm.latency);
        let dtype = self.random.of(&TYPES);
        let number = match dtype.is_float() {
            true => Number::Float(self.random.of(&[0.0, 1.5, -2.0, 1e9])),
            false => Number::Integer(self.random.of(&[0, 1, -1, 100])),
        };
        let function = match self.random.below(5) {
            0 => AluFn::Copy(self.operand(cycle, number, dtype)?),
            1 => AluFn::Unary(self.random.of(UnaryFn::ALL), self.operand(cycle, number, dtype)?),
            2 => {
                let operands = [self.operand(cycle, number, dtype)?, self.operand(cycle, number, dtype)?];
                AluFn::Binary(self.random.of(BinaryFn::ALL), operands)
            }
            3 => {
                let condition = self.operand(cycle, number, DType::Bool)?;
                AluFn::Select([condition, self.operand(cycle, number, dtype)?, self.operand(cycle, number, dtype)?])
            }
            _ => {
                let (function, first) = (self.random.of(&Accumulation::ALL), self.random.truth());
                AluFn::Accumulate { function, first, operand: self.operand(cycle, number, dtype)? }
            }
        };
        // Half of them chain with another ALU.
        let (mut last, mut cycle) = (Queue::Alu(self.random.below(alus) as u8), cycle);
        let mut alu = Alu { function, result: None };
        if self.random.truth() {
            self.put(last, cycle, Operation::Alu(alu));
            cycle += latency;
            let Queue::Alu(before) = last else { return None };
            last = Queue::Alu(self.random.below(alus) as u8);
            let before = Operand::Alu(before);
            alu.function = match self.random.below(3) {
                0 => AluFn::Copy(before),
                1 => AluFn::Unary(self.random.of(&[UnaryFn::Abs, UnaryFn::Neg, UnaryFn::Sign]), before),
                _ => AluFn::Binary(self.random.of(&[BinaryFn::Add, BinaryFn::Max, BinaryFn::Lt]), [before, before]),
            };
        }
        let dtype = self.random.of(&TYPES);
        let width = dtype.bits() / 8;
        let to = self.stream(width);
        alu.result = Some((to, dtype));
        self.put(last, cycle, Operation::Alu(alu));
        self.sink(to, width, self.machine.position(last), cycle + latency);
        Some(())
    }

    fn plane(&mut self, cycle: u64) -> Option<()> {
        let (side, plane) = (self.side(), self.random.below(self.machine.mxm.planes as usize) as u8);
        let (load, multiply) = (Queue::Load(side, plane), Queue::Multiply(side, plane));
        let position = self.machine.position(load);
        if self.random.truth() {
            let width = self.machine.mxm.load_streams as usize;
            let from = self.source(width, position, cycle)?;
            let column = self.random.below(self.machine.vector() - width + 1) as u16;
            self.put(load, cycle, Operation::Load { from, column });
            if self.random.truth() {
                self.put(load, cycle + 3, Operation::Install);
            }
            return Some(());
        }
        let row = match plane % 2 == 0 && self.random.truth() {
            true => Row::Halves(self.random.below(2) as u8),
            false => Row::Bytes { row_signed: self.random.truth(), weights_signed: self.random.truth() },
        };
        let width = if matches!(row, Row::Halves(_)) { 2 } else { 1 };
        let from = self.source(width, position, cycle)?;
        self.put(multiply, cycle, Operation::Multiply { from, row });
        let to = Some(self.stream(4)).filter(|_| self.random.truth());
        let row = self.random.below(4) as u16;
        let taken = cycle + u64::from(self.machine.mxm.latency);
        let add = self.random.truth();
        self.put(Queue::Accumulate(side, plane), taken, Operation::Accumulate { row, add, to });
        if let Some(to) = to {
            self.sink(to, 4, position, taken + 1);
        }
        Some(())
    }

    /// What a switch unit makes of its operands goes to memory, if it can.
    fn switched(&mut self, to: Stream, width: usize, queue: Queue, cycle: u64) {
        self.sink(to, width, self.machine.position(queue), cycle + u64::from(self.machine.sxm.latency));
    }

    fn shift(&mut self, cycle: u64) -> Option<()> {
        let queue = Queue::Shift(self.side(), self.random.below(self.machine.sxm.shifters as usize) as u8);
        let (position, vector) = (self.machine.position(queue), self.machine.vector());
        let from = self.source(1, position, cycle)?;
        let under = if self.random.truth() { Some(self.source(1, position, cycle)?) } else { None };
        let (a, b) = (self.random.below(vector + 1) as u16, self.random.below(vector + 1) as u16);
        let (by, to) = (self.random.below(2 * vector + 1) as i16 - vector as i16, self.stream(1));
        let (rotate, lanes) = (self.random.truth(), [a.min(b), a.max(b)]);
        self.put(queue, cycle, Operation::Shift { from, by, rotate, lanes, under, to });
        self.switched(to, 1, queue, cycle);
        Some(())
    }

    fn distribute(&mut self, cycle: u64) -> Option<()> {
        let queue = Queue::Distribute(self.side(), self.random.below(self.machine.sxm.distributors as usize) as u8);
        let from = self.source(1, self.machine.position(queue), cycle)?;
        let lanes = self.machine.lanes as usize;
        let mut map = [None; MAX_LANES];
        for entry in &mut map[..lanes] {
            *entry = if self.random.below(4) == 0 { None } else { Some(self.random.below(lanes) as u8) };
        }
        let to = self.stream(1);
        self.put(queue, cycle, Operation::Distribute { from, map, to });
        self.switched(to, 1, queue, cycle);
        Some(())
    }

    fn transpose(&mut self, cycle: u64) -> Option<()> {
        let queue = Queue::Transpose(self.side(), self.random.below(self.machine.sxm.transposers as usize) as u8);
        let lanes = self.machine.lanes as usize;
        let from = self.source(lanes, self.machine.position(queue), cycle)?;
        let to = self.stream(lanes);
        self.put(queue, cycle, Operation::Transpose { from, to });
        self.switched(to, lanes, queue, cycle);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lpu::machine::tests::small_machine;
    use crate::lpu::timeline::{dispatches_with, resumes};

    #[test]
    fn programs_use_every_unit() {
        let machine = small_machine();
        let cases = cases(&machine, 60, 3);
        let mut counts = vec![0; machine.queues().len()];
        for case in &cases {
            let resumes = resumes(&case.program, &machine);
            for (count, (queue, resumes)) in counts.iter_mut().zip(case.program.0.iter().zip(&resumes)) {
                *count += dispatches_with(queue, resumes).count();
            }
        }
        // All queues have an end in each program, and most of them half a sync.
        let rare: Vec<_> = machine.queues().into_iter().zip(&counts).filter(|(_, count)| **count < 70).collect();
        assert!(rare.is_empty(), "hardly used: {rare:?}");
    }
}
