//! Random instructions and programs for property tests.

pub(crate) mod dataflow;

use proptest::prelude::*;
use proptest::sample::select;
use tcc_ir::ops::{BinaryFn, UnaryFn};
use tcc_ir::{DType, NumberClass};

use super::LpuMachine;
use super::isa::{
    Accumulation, Alu, AluFn, Direction, Hemisphere, MAX_LANES, MAX_STREAMS, Number, Operand, Operation, Queue, Queues,
    Reads, Row, Stream,
};

/// What fields of instructions are drawn from. All counts are of what there is: numbers go from 0 to before them.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    streams: u32,
    /// Whether all streams of an operand exist, or only the first.
    whole: bool,
    addresses: u32,
    /// Addresses of a bank.
    bank: u32,
    alus: u32,
    /// First columns of a load.
    columns: u32,
    load_streams: u32,
    rows: u32,
    superlane: u32,
    vector: u32,
    /// Whether anything goes that has an encoding, as elements of four bits and functions that are not defined.
    senseless: bool,
}

impl Limits {
    /// All that the binary form holds.
    pub const ALL: Limits = Limits {
        streams: MAX_STREAMS as u32,
        whole: false,
        addresses: 1 << 16,
        bank: 1,
        alus: 32,
        columns: 1 << 16,
        load_streams: 1,
        rows: 1 << 16,
        superlane: MAX_LANES as u32,
        vector: 0xffff,
        senseless: true,
    };

    /// What a machine takes.
    pub fn of(machine: &LpuMachine) -> Limits {
        Limits {
            streams: machine.streams,
            whole: true,
            addresses: machine.mem.banks * machine.mem.words,
            bank: machine.mem.words,
            alus: machine.vxm.alus,
            columns: machine.vector() as u32 - machine.mxm.load_streams + 1,
            load_streams: machine.mxm.load_streams,
            rows: machine.mxm.accumulators,
            superlane: machine.lanes,
            vector: machine.vector() as u32,
            senseless: false,
        }
    }

    fn stream(self, width: u32) -> impl Strategy<Value = Stream> + use<> {
        let width = if self.whole { width } else { 1 };
        (select(&Direction::ALL[..]), 0..=self.streams - width)
            .prop_map(|(direction, number)| Stream { direction, number: number as u8 })
    }

    fn reads(self, width: u32) -> impl Strategy<Value = Reads> + use<> {
        (self.stream(width), any::<bool>()).prop_map(|(stream, take)| Reads { stream, take })
    }

    fn dtype(self) -> impl Strategy<Value = DType> + use<> {
        let any = DType::ALL.into_iter().filter(move |dtype| self.senseless || dtype.bits() >= 8).collect::<Vec<_>>();
        // Types that stand for a class of numbers each meet often enough.
        prop_oneof![select(any), select(&[DType::F32, DType::I8, DType::U8, DType::F16][..])]
    }

    fn elements(self) -> impl Strategy<Value = (Reads, DType)> + use<> {
        self.dtype().prop_flat_map(move |dtype| (self.reads(dtype.bits().div_ceil(8) as u32), Just(dtype)))
    }

    fn below(count: u32) -> impl Strategy<Value = u16> + use<> {
        (0..count).prop_map(|number| number as u16)
    }
}

/// A program whose every instruction has an encoding; little of it makes sense.
pub(crate) fn encodable(queues: usize) -> impl Strategy<Value = Queues> {
    let limits = Limits::ALL;
    let any_queue = select(&[
        Queue::Mem(0),
        Queue::Alu(0),
        Queue::Load(Hemisphere::West, 0),
        Queue::Multiply(Hemisphere::West, 0),
        Queue::Accumulate(Hemisphere::West, 0),
        Queue::Shift(Hemisphere::West, 0),
        Queue::Distribute(Hemisphere::West, 0),
        Queue::Transpose(Hemisphere::West, 0),
    ]);
    let own = prop_oneof![
        2 => any::<u32>().prop_map(Operation::Nop),
        2 => (any::<u32>(), any::<u32>(), any::<i32>())
            .prop_map(|(count, interval, step)| Operation::Repeat { count, interval, step }),
        1 => Just(Operation::Sync),
        1 => Just(Operation::Notify),
        1 => Just(Operation::End),
    ];
    let any = prop_oneof![1 => own, 3 => any_queue.prop_flat_map(move |queue| operation(queue, limits))];
    let queue = prop_oneof![
        4 => prop::collection::vec(any, 0..6),
        3 => Just(vec![Operation::End]),
        1 => Just(Vec::new()),
    ];
    prop::collection::vec(queue, queues).prop_map(Queues)
}

/// A program that a machine accepts: each queue with at most so many instructions of its unit, and with nops and repeats
/// between them; all numbers of cycles and repetitions are below `cycles`. Nothing waits for a notify if not `syncs`.
pub(crate) fn program(
    machine: &LpuMachine,
    instructions: usize,
    cycles: u32,
    syncs: bool,
) -> impl Strategy<Value = Queues> + use<> {
    let queues: Vec<_> = machine
        .queues()
        .into_iter()
        .map(|queue| instructions_of(machine, queue, instructions, cycles, syncs))
        .collect();
    queues.prop_map(Queues)
}

fn instructions_of(
    machine: &LpuMachine,
    queue: Queue,
    instructions: usize,
    cycles: u32,
    syncs: bool,
) -> BoxedStrategy<Vec<Operation>> {
    let limits = Limits::of(machine);
    let own = if syncs {
        prop_oneof![4 => Just(None), 1 => Just(Some(Operation::Sync)), 1 => Just(Some(Operation::Notify))].boxed()
    } else {
        Just(None).boxed()
    };
    let nop = prop::option::of((1..cycles).prop_map(Operation::Nop));
    let repeat = prop::option::of((1..cycles, 1..cycles, -3..=3i32));
    let part = (own, nop, operation(queue, limits), repeat);
    prop::collection::vec(part, 0..=instructions)
        .prop_map(move |parts| {
            let mut operations = Vec::new();
            let mut running = None;
            for (own, nop, operation, repeat) in parts {
                operations.extend(own.into_iter().chain(nop));
                let operation = begun(operation, &mut running);
                operations.push(operation);
                if let Some((count, interval, step)) = repeat {
                    let fits = (0..=i64::from(count)).all(|index| fits(&operation, index * i64::from(step), limits));
                    operations.push(Operation::Repeat { count, interval, step: if fits { step } else { 0 } });
                }
            }
            operations.push(Operation::End);
            operations
        })
        .boxed()
}

/// The same, but as the first of its running result where there is none of its class.
fn begun(mut operation: Operation, running: &mut Option<Option<NumberClass>>) -> Operation {
    if let Operation::Alu(Alu { function: AluFn::Accumulate { first, operand, .. }, .. }) = &mut operation {
        let class = match operand {
            Operand::Stream(_, dtype) => Some(dtype.class()),
            Operand::Number(Number::Float(_)) => Some(NumberClass::F32),
            Operand::Number(Number::Integer(_)) => Some(NumberClass::Signed),
            // What another ALU has ready may be of any class.
            Operand::Alu(_) => None,
        };
        *first |= class.is_none() || *running != Some(class);
        *running = Some(class);
    }
    operation
}

/// Whether the instruction is within the limits with its moving field so much greater.
fn fits(operation: &Operation, by: i64, limits: Limits) -> bool {
    let within = |first: u16, end: u32| (0..i64::from(end)).contains(&(i64::from(first) + by));
    match operation {
        Operation::Mem { read, write } => {
            let addresses = [read.map(|(address, _)| address), write.map(|(address, _)| address)];
            let bank = |address: Option<u16>| address.map(|address| (i64::from(address) + by) / i64::from(limits.bank));
            let apart = addresses.contains(&None) || bank(addresses[0]) != bank(addresses[1]);
            addresses.into_iter().flatten().all(|address| within(address, limits.addresses)) && apart
        }
        Operation::Load { column, .. } => within(*column, limits.columns),
        Operation::Accumulate { row, .. } => within(*row, limits.rows),
        _ => true,
    }
}

/// Any instruction of a queue's unit within limits; none is the queue's own.
pub(crate) fn operation(queue: Queue, limits: Limits) -> BoxedStrategy<Operation> {
    match queue {
        Queue::Mem(_) => mem(limits).boxed(),
        Queue::Alu(_) => alu(limits).prop_map(Operation::Alu).boxed(),
        Queue::Load(..) => prop_oneof![
            3 => (limits.reads(limits.load_streams), Limits::below(limits.columns))
                .prop_map(|(from, column)| Operation::Load { from, column }),
            1 => Just(Operation::Install),
        ]
        .boxed(),
        Queue::Multiply(_, plane) => multiply(limits, plane).boxed(),
        Queue::Accumulate(..) => (Limits::below(limits.rows), any::<bool>(), prop::option::of(limits.stream(4)))
            .prop_map(|(row, add, to)| Operation::Accumulate { row, add, to })
            .boxed(),
        Queue::Shift(..) => shift(limits).boxed(),
        Queue::Distribute(..) => {
            let lanes = prop::collection::vec(prop::option::of(0..limits.superlane as u8), limits.superlane as usize);
            (limits.reads(1), lanes, limits.stream(1))
                .prop_map(|(from, lanes, to)| {
                    let mut map = [None; MAX_LANES];
                    map[..lanes.len()].copy_from_slice(&lanes);
                    Operation::Distribute { from, map, to }
                })
                .boxed()
        }
        Queue::Transpose(..) => (limits.reads(limits.superlane), limits.stream(limits.superlane))
            .prop_map(|(from, to)| Operation::Transpose { from, to })
            .boxed(),
    }
}

fn mem(limits: Limits) -> impl Strategy<Value = Operation> {
    let address = || Limits::below(limits.addresses);
    let read = || (address(), limits.stream(1));
    let write = || (address(), limits.reads(1));
    prop_oneof![
        2 => read().prop_map(|read| Operation::Mem { read: Some(read), write: None }),
        2 => write().prop_map(|write| Operation::Mem { read: None, write: Some(write) }),
        1 => (read(), write()).prop_map(move |((mut from, to), write)| {
            // The write's bank is another one, if that matters and there is another.
            if !limits.senseless && u32::from(from) / limits.bank == u32::from(write.0) / limits.bank {
                from = ((u32::from(from) + limits.bank) % limits.addresses) as u16;
            }
            let read = Some((from, to)).filter(|_| limits.senseless || limits.addresses > limits.bank);
            Operation::Mem { read, write: Some(write) }
        }),
        1 => (limits.reads(2), limits.stream(1)).prop_map(|(addresses, to)| Operation::Gather { addresses, to }),
    ]
}

fn multiply(limits: Limits, plane: u8) -> impl Strategy<Value = Operation> {
    let bytes = (limits.reads(1), any::<(bool, bool)>())
        .prop_map(|(from, (row_signed, weights_signed))| (from, Row::Bytes { row_signed, weights_signed }));
    let halves = (limits.reads(2), 0..2u8).prop_map(|(from, half)| (from, Row::Halves(half)));
    let halves_weight = u32::from(plane.is_multiple_of(2));
    prop_oneof![1 => bytes, halves_weight => halves].prop_map(|(from, row)| Operation::Multiply { from, row })
}

fn shift(limits: Limits) -> impl Strategy<Value = Operation> {
    let by = prop_oneof![any::<i16>(), -8..=8i16];
    let end = limits.vector;
    let lanes = (0..=end, 0..=end).prop_map(move |(a, b)| {
        let (first, last) = if limits.senseless { (a, b) } else { (a.min(b), a.max(b)) };
        [first as u16, last as u16]
    });
    let lanes = prop_oneof![lanes, Just([0, end as u16])];
    let under = prop::option::of(limits.reads(1));
    (limits.reads(1), by, any::<bool>(), lanes, under, limits.stream(1))
        .prop_map(|(from, by, rotate, lanes, under, to)| Operation::Shift { from, by, rotate, lanes, under, to })
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Number::Float(f32::from_bits(bits))),
        select(&[0.0, -0.0, 2.5, f32::INFINITY, f32::NEG_INFINITY, 1e20, 1e-45, 3.0][..]).prop_map(Number::Float),
        any::<i32>().prop_map(Number::Integer),
        (-2..=2).prop_map(Number::Integer),
    ]
}

fn alu(limits: Limits) -> impl Strategy<Value = Alu> {
    // An instruction has one number; which operands are numbers is drawn for each.
    number().prop_flat_map(move |number| {
        let operand = || {
            prop_oneof![
                3 => limits.elements().prop_map(|(from, dtype)| Operand::Stream(from, dtype)),
                2 => (0..limits.alus).prop_map(|alu| Operand::Alu(alu as u8)),
                1 => Just(Operand::Number(number)),
            ]
        };
        let defined = move |operands: &[Operand], sure: fn(DType) -> bool| {
            // Where the class is not known, a function must be defined on all.
            let class = operands.iter().find(|operand| !matches!(operand, Operand::Number(_)));
            match (class.or(operands.first()), number) {
                (Some(Operand::Stream(_, dtype)), _) => sure(*dtype),
                (Some(Operand::Alu(_)) | None, _) => sure(DType::F32) && sure(DType::I64),
                (Some(Operand::Number(_)), Number::Float(_)) => sure(DType::F32),
                (Some(Operand::Number(_)), Number::Integer(_)) => sure(DType::I64),
            }
        };
        let bitwise = |function: BinaryFn| {
            matches!(function, BinaryFn::And | BinaryFn::Or | BinaryFn::Xor | BinaryFn::Shl | BinaryFn::Shr)
        };
        let unary = (select(UnaryFn::ALL), operand()).prop_map(move |(function, x)| {
            let fits = match function {
                UnaryFn::Abs | UnaryFn::Neg | UnaryFn::Sign => true,
                UnaryFn::Not => defined(&[x], |dtype| !dtype.is_float()),
                _ => defined(&[x], DType::is_float),
            };
            AluFn::Unary(if fits || limits.senseless { function } else { UnaryFn::Neg }, x)
        });
        let binary = (select(BinaryFn::ALL), [operand(), operand()]).prop_map(move |(function, operands)| {
            let fits = limits.senseless || !bitwise(function) || defined(&operands, |dtype| !dtype.is_float());
            AluFn::Binary(if fits { function } else { BinaryFn::Sub }, operands)
        });
        let accumulate = (select(&Accumulation::ALL[..]), any::<bool>(), operand())
            .prop_map(|(function, first, operand)| AluFn::Accumulate { function, first, operand });
        let function = prop_oneof![
            1 => operand().prop_map(AluFn::Copy),
            2 => unary,
            3 => binary,
            1 => [operand(), operand(), operand()].prop_map(AluFn::Select),
            1 => accumulate,
        ];
        let result = limits.elements().prop_map(|(from, dtype)| (from.stream, dtype));
        (function, prop::option::of(result)).prop_map(|(function, result)| Alu { function, result })
    })
}
