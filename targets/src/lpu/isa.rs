//! The instruction set of the LPU.
//!
//! A program has a queue of instructions for every functional unit; when each is dispatched follows from the queues alone.
//! Units pass vectors to each other on streams, which move by one position in each cycle. What every instruction does and when
//! is told in `targets/lpu/rtl/TIMING.md`.

use std::fmt;
use std::slice::{from_mut, from_ref};

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

/// Which way streams flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From west to east.
    East,
    /// From east to west.
    West,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const ALL: [Direction; 2] = [Direction::East, Direction::West];

    /// The number, for arrays.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// One of the streams of a direction, of those that follow each other the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// Which way it flows.
    pub direction: Direction,
    /// Its number among those of its direction.
    pub number: u8,
}

/// A read of one or more streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reads {
    /// The first stream.
    pub stream: Stream,
    /// Whether what is read leaves the streams.
    pub take: bool,
}

/// One half of the chip: the units west of the VXM, or those east of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hemisphere {
    /// West of the VXM.
    West,
    /// East of the VXM.
    East,
}

impl Hemisphere {
    /// Both, in the order of their numbers.
    pub const ALL: [Hemisphere; 2] = [Hemisphere::West, Hemisphere::East];

    /// The number, for arrays.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The other one.
    pub const fn other(self) -> Hemisphere {
        match self {
            Hemisphere::West => Hemisphere::East,
            Hemisphere::East => Hemisphere::West,
        }
    }
}

/// A queue of instructions: a functional unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// A slice of memory, from west to east through both hemispheres.
    Mem(u8),
    /// An ALU of the vector unit.
    Alu(u8),
    /// What brings weights to a plane of the matrix unit.
    Load(Hemisphere, u8),
    /// What brings rows to a plane.
    Multiply(Hemisphere, u8),
    /// What takes sums from a plane.
    Accumulate(Hemisphere, u8),
    /// A shifter of the switch unit.
    Shift(Hemisphere, u8),
    /// A distributor of the switch unit.
    Distribute(Hemisphere, u8),
    /// A transposer of the switch unit.
    Transpose(Hemisphere, u8),
}

/// An operand of an ALU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand {
    /// Elements of a type on streams.
    Stream(Reads, DType),
    /// What another ALU, or the same, has ready in this cycle.
    Alu(u8),
    /// A number.
    Number(Number),
}

/// The number that an ALU's instruction carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A float.
    Float(f32),
    /// An integer, or a truth value.
    Integer(i32),
}

/// How an ALU goes on with its running result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulation {
    /// Sum.
    Sum,
    /// Product.
    Product,
    /// Greatest.
    Max,
    /// Least.
    Min,
}

impl Accumulation {
    /// All, in the order of their numbers.
    pub const ALL: [Accumulation; 4] = [Accumulation::Sum, Accumulation::Product, Accumulation::Max, Accumulation::Min];
}

/// What an ALU computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AluFn {
    /// The operand; of use for its conversions.
    Copy(Operand),
    /// A function of one operand.
    Unary(UnaryFn, Operand),
    /// A function of two operands.
    Binary(BinaryFn, [Operand; 2]),
    /// Operand 1 where operand 0 is true, else operand 2.
    Select([Operand; 3]),
    /// A running result.
    Accumulate {
        /// How the operand is combined with it.
        function: Accumulation,
        /// Begins anew with the operand.
        first: bool,
        /// The operand.
        operand: Operand,
    },
}

/// An instruction of an ALU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alu {
    /// What is computed.
    pub function: AluFn,
    /// Where the result goes besides other ALUs, and as elements of which type.
    pub result: Option<(Stream, DType)>,
}

/// Rows of what a plane multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    /// Bytes of all lanes.
    Bytes {
        /// Whether those of the row have a sign.
        row_signed: bool,
        /// Whether those of the weights have one.
        weights_signed: bool,
    },
    /// Halves of the lower (0) or upper (1) half of the lanes.
    Halves(u8),
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Nothing, for so many cycles.
    Nop(u32),
    /// The instruction before once more, again and again.
    Repeat {
        /// How many times more.
        count: u32,
        /// Cycles from one to the next.
        interval: u32,
        /// What its moving field grows by.
        step: i32,
    },
    /// Waits for a notify.
    Sync,
    /// Lets queues that stand at a sync go on.
    Notify,
    /// Ends the queue.
    End,
    /// A slice of memory drives the vector at an address onto a stream, stores one, or does both.
    Mem {
        /// Address and stream of a read.
        read: Option<(u16, Stream)>,
        /// Address and stream of a write.
        write: Option<(u16, Reads)>,
    },
    /// A slice of memory drives, in each superlane, the part of the vector at an address of its own.
    Gather {
        /// Two streams with the addresses.
        addresses: Reads,
        /// Where it is driven.
        to: Stream,
    },
    /// An ALU computes.
    Alu(Alu),
    /// Vectors become columns of the weights that wait.
    Load {
        /// The first of the streams.
        from: Reads,
        /// The first of the columns.
        column: u16,
    },
    /// The weights that wait come into use.
    Install,
    /// A row enters the plane.
    Multiply {
        /// Its one or two streams.
        from: Reads,
        /// What it consists of.
        row: Row,
    },
    /// The sums of a row are taken.
    Accumulate {
        /// The accumulator row.
        row: u16,
        /// Whether they are added to what is there.
        add: bool,
        /// The four streams that get the row's content.
        to: Option<Stream>,
    },
    /// Lanes of a vector move north or south.
    Shift {
        /// The vector.
        from: Reads,
        /// By how many lanes, to greater numbers.
        by: i16,
        /// Whether what leaves at one end comes in at the other.
        rotate: bool,
        /// The lanes of the result that get it: from the first to before the second.
        lanes: [u16; 2],
        /// What other lanes get; else they are 0.
        under: Option<Reads>,
        /// Where the result is driven.
        to: Stream,
    },
    /// Lanes are picked within each superlane.
    Distribute {
        /// The vector.
        from: Reads,
        /// The lane that each lane of the superlane gets, or 0 bytes.
        map: [Option<u8>; MAX_LANES],
        /// Where the result is driven.
        to: Stream,
    },
    /// Lanes of each superlane change places with streams.
    Transpose {
        /// The first of as many streams as a superlane has lanes.
        from: Reads,
        /// The first of as many.
        to: Stream,
    },
}

/// Most lanes of a superlane.
pub const MAX_LANES: usize = 16;

/// Most streams of a direction.
pub const MAX_STREAMS: usize = 32;

/// A program: the instructions of each queue, in the order of [`LpuMachine::queues`](super::LpuMachine::queues).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queues(pub Vec<Vec<Operation>>);

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::East => "e",
            Direction::West => "w",
        })
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.direction, self.number)
    }
}

impl fmt::Display for Hemisphere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hemisphere::West => "west",
            Hemisphere::East => "east",
        })
    }
}

/// The name in assembly, messages and traces.
impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Queue::Mem(slice) => write!(f, "mem {slice}"),
            Queue::Alu(alu) => write!(f, "alu {alu}"),
            Queue::Load(side, plane) => write!(f, "{side} plane {plane} load"),
            Queue::Multiply(side, plane) => write!(f, "{side} plane {plane} multiply"),
            Queue::Accumulate(side, plane) => write!(f, "{side} plane {plane} accumulate"),
            Queue::Shift(side, unit) => write!(f, "{side} shifter {unit}"),
            Queue::Distribute(side, unit) => write!(f, "{side} distributor {unit}"),
            Queue::Transpose(side, unit) => write!(f, "{side} transposer {unit}"),
        }
    }
}

impl Accumulation {
    /// The name in assembly.
    pub const fn name(self) -> &'static str {
        match self {
            Accumulation::Sum => "sum",
            Accumulation::Product => "product",
            Accumulation::Max => "max",
            Accumulation::Min => "min",
        }
    }
}

impl AluFn {
    /// The operands, in their order.
    pub fn operands(&self) -> &[Operand] {
        match self {
            AluFn::Copy(operand) | AluFn::Unary(_, operand) | AluFn::Accumulate { operand, .. } => from_ref(operand),
            AluFn::Binary(_, operands) => operands,
            AluFn::Select(operands) => operands,
        }
    }

    /// The operands, to be changed.
    pub fn operands_mut(&mut self) -> &mut [Operand] {
        match self {
            AluFn::Copy(operand) | AluFn::Unary(_, operand) | AluFn::Accumulate { operand, .. } => from_mut(operand),
            AluFn::Binary(_, operands) => operands,
            AluFn::Select(operands) => operands,
        }
    }

    /// The operands that decide on the class of numbers: all but the condition of a select.
    pub fn values(&self) -> &[Operand] {
        match self {
            AluFn::Select([_, values @ ..]) => values,
            _ => self.operands(),
        }
    }
}

impl Operation {
    /// The same with its moving field so much greater, as repetitions are. Fields wrap around; programs that the machine
    /// accepts have none that do.
    #[must_use]
    pub fn moved(mut self, by: i64) -> Operation {
        let add = |field: &mut u16| *field = field.wrapping_add(by as u16);
        match &mut self {
            Operation::Mem { read, write } => {
                if let Some((address, _)) = read {
                    add(address);
                }
                if let Some((address, _)) = write {
                    add(address);
                }
            }
            Operation::Load { column, .. } => add(column),
            Operation::Accumulate { row, .. } => add(row),
            Operation::Nop(_)
            | Operation::Repeat { .. }
            | Operation::Sync
            | Operation::Notify
            | Operation::End
            | Operation::Gather { .. }
            | Operation::Alu(_)
            | Operation::Install
            | Operation::Multiply { .. }
            | Operation::Shift { .. }
            | Operation::Distribute { .. }
            | Operation::Transpose { .. } => {}
        }
        self
    }
}
