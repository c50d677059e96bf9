//! The ALUs of the vector unit.

use smallvec::SmallVec;
use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, NumberClass};

use super::Simulator;
use super::fault::FaultCause;
use super::lanes::{self, Class, Lanes, element_bytes};
use super::streams::{Found, Streams};
use crate::lpu::LpuMachine;
use crate::lpu::isa::{Accumulation, Alu, AluFn, Number as Given, Operand};
use crate::number::{self, FoldFn, Number};

/// Most bytes of an element on streams.
const MAX_BYTES: usize = 8;

/// What an ALU holds.
#[derive(Debug)]
struct AluState {
    /// What it has made ready, or will have, with the cycle, by that cycle modulo their number.
    results: Vec<Option<(u64, Lanes)>>,
    /// The running result.
    running: Option<Lanes>,
}

/// All ALUs.
#[derive(Debug)]
pub(super) struct Alus {
    lanes: usize,
    latency: u64,
    alus: Vec<AluState>,
    /// Memory for operands, which is used again and again.
    elements: Vec<u8>,
    spare: Vec<Lanes>,
}

/// An operand that has been read.
#[derive(Clone, Copy)]
enum Value {
    /// Elements of a type, by their byte planes.
    Elements([Found; MAX_BYTES], DType),
    /// Numbers that another ALU has ready, by their place, and the widest type of their class.
    Ready(usize, usize, DType),
    Given(Given),
}

impl Value {
    /// The type that an operand has, or the widest of its class.
    fn dtype(&self) -> DType {
        match *self {
            Value::Elements(_, dtype) | Value::Ready(_, _, dtype) => dtype,
            Value::Given(Given::Float(_)) => DType::F32,
            Value::Given(Given::Integer(_)) => DType::I64,
        }
    }
}

impl Alus {
    pub fn new(machine: &LpuMachine) -> Self {
        let results = vec![None; machine.vxm.latency as usize + 1];
        let alu = |_| AluState { results: results.clone(), running: None };
        Alus {
            lanes: machine.vector(),
            latency: u64::from(machine.vxm.latency),
            alus: (0..machine.vxm.alus).map(alu).collect(),
            elements: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Where results lie that are ready in a cycle.
    fn place(&self, cycle: u64) -> usize {
        (cycle % (self.latency + 1)) as usize
    }

    /// What an ALU has ready in a cycle.
    fn ready(&self, alu: u8, cycle: u64) -> Result<Value, FaultCause> {
        let (alu, place) = (usize::from(alu), self.place(cycle));
        match &self.alus[alu].results[place] {
            Some((ready, lanes)) if *ready == cycle => Ok(Value::Ready(alu, place, lanes.widest())),
            _ => Err(FaultCause::NothingThere(format!("ALU {alu} has nothing ready"))),
        }
    }

    /// Keeps what an ALU has ready in a cycle to come.
    fn make_ready(&mut self, alu: usize, cycle: u64, lanes: Lanes) {
        let place = self.place(cycle);
        if let Some((_, old)) = self.alus[alu].results[place].replace((cycle, lanes)) {
            self.spare.push(old);
        }
    }

    /// Memory for one number in each lane, which holds anything.
    fn buffer<C: Class>(&mut self) -> Vec<C> {
        let found = self.spare.iter().rposition(|lanes| C::numbers(lanes).is_some());
        let spare = found.and_then(|found| C::memory(self.spare.swap_remove(found)));
        spare.unwrap_or_else(|| vec![C::default(); self.lanes])
    }

    /// Gives memory back.
    fn done<C: Class>(&mut self, numbers: Vec<C>) {
        self.spare.push(C::lanes(numbers));
    }

    /// An operand as numbers of a class.
    fn numbers<C: Class>(&mut self, value: &Value, streams: &Streams) -> Vec<C> {
        let mut numbers = self.buffer::<C>();
        match value {
            Value::Elements(found, dtype) => {
                join(found, *dtype, streams, &mut self.elements);
                lanes::load(&self.elements, *dtype, &mut numbers);
            }
            Value::Ready(alu, place, _) => {
                if let Some((_, lanes)) = &self.alus[*alu].results[*place] {
                    lanes.to(&mut self.elements, &mut numbers);
                }
            }
            Value::Given(number) => numbers.fill(lanes::given(*number)),
        }
        numbers
    }

    /// Computes in a class; `dtype` is the type of the operand that the class is of.
    fn compute<C: Class>(
        &mut self,
        alu: usize,
        function: &AluFn,
        values: &[Value],
        dtype: DType,
        streams: &Streams,
    ) -> Result<Lanes, FaultCause> {
        Ok(match *function {
            AluFn::Copy(_) => C::lanes(self.numbers(&values[0], streams)),
            AluFn::Unary(function, _) => {
                if !number::unary_is_defined(function, dtype) {
                    return Err(FaultCause::Undefined);
                }
                let mut result = self.numbers::<C>(&values[0], streams);
                C::unary(function, &mut result, dtype == DType::Bool);
                C::lanes(result)
            }
            AluFn::Binary(function, _) => {
                if !number::binary_is_defined(function, dtype) {
                    return Err(FaultCause::Undefined);
                }
                let mut a = self.numbers::<C>(&values[0], streams);
                let mut b = self.numbers::<C>(&values[1], streams);
                let result = if function.is_comparison() {
                    let mut truth = self.buffer::<u64>();
                    number::compare(function, &a, &b, &mut truth);
                    self.done(a);
                    Lanes::Unsigned(truth)
                } else {
                    binary(function, &mut a, &mut b, dtype.bits() as u32);
                    C::lanes(a)
                };
                self.done(b);
                result
            }
            AluFn::Select(_) => {
                let condition = self.numbers::<u64>(&values[0], streams);
                let mut a = self.numbers::<C>(&values[1], streams);
                let b = self.numbers::<C>(&values[2], streams);
                for ((a, b), condition) in a.iter_mut().zip(&b).zip(&condition) {
                    *a = if *condition != 0 { *a } else { *b };
                }
                self.done(condition);
                self.done(b);
                C::lanes(a)
            }
            AluFn::Accumulate { function, first, .. } => {
                let mut result = self.numbers::<C>(&values[0], streams);
                let running = self.alus[alu].running.take();
                if !first {
                    let Some(held) = running.as_ref().filter(|held| held.class() == dtype.class()) else {
                        return Err(FaultCause::OtherClass);
                    };
                    let mut sum = self.buffer::<C>();
                    held.to(&mut self.elements, &mut sum);
                    C::combine(fold(function), &mut sum, &result);
                    self.done(std::mem::replace(&mut result, sum));
                }
                self.spare.extend(running);
                let mut kept = self.buffer::<C>();
                kept.copy_from_slice(&result);
                self.alus[alu].running = Some(C::lanes(kept));
                C::lanes(result)
            }
        })
    }
}

/// The elements of a type that were found by their byte planes.
fn join(found: &[Found; MAX_BYTES], dtype: DType, streams: &Streams, elements: &mut Vec<u8>) {
    let planes = found.map(|found| streams.vector(found));
    lanes::join(&planes[..element_bytes(dtype)], elements);
}

impl Simulator<'_> {
    /// Executes an instruction of an ALU; gives its latency.
    pub(super) fn alu(&mut self, number: u8, alu: &Alu, position: usize, cycle: u64) -> Result<u64, FaultCause> {
        let mut values: SmallVec<[Value; 3]> = SmallVec::new();
        for operand in alu.function.operands() {
            values.push(self.operand(*operand, position, cycle)?);
        }
        let chosen = if matches!(alu.function, AluFn::Select(_)) { &values[1..] } else { &values[..] };
        let typed = chosen.iter().find(|value| !matches!(value, Value::Given(_))).or(chosen.first());
        let dtype = typed.map_or(DType::F32, Value::dtype);
        let Self { alus, streams, pending, .. } = self;
        let index = usize::from(number);
        let lanes = match dtype.class() {
            NumberClass::F32 => alus.compute::<f32>(index, &alu.function, &values, dtype, streams),
            NumberClass::F64 => alus.compute::<f64>(index, &alu.function, &values, dtype, streams),
            NumberClass::Signed => alus.compute::<i64>(index, &alu.function, &values, dtype, streams),
            NumberClass::Unsigned => alus.compute::<u64>(index, &alu.function, &values, dtype, streams),
        }?;
        let ready = cycle + alus.latency;
        if let Some((to, dtype)) = alu.result {
            match (&alu.function, &values[..]) {
                // A copy between equal types keeps every bit.
                (AluFn::Copy(_), [Value::Elements(found, own)]) if *own == dtype => {
                    join(found, dtype, streams, &mut alus.elements);
                }
                _ => lanes.encode(dtype, &mut alus.elements),
            }
            let bytes = element_bytes(dtype);
            for byte in 0..bytes {
                let plane = pending.add(ready, super::after(to, byte), position);
                lanes::split(&alus.elements, bytes, byte, plane);
            }
        }
        alus.make_ready(index, ready, lanes);
        self.counts.computed += 1;
        Ok(u64::from(self.machine.vxm.latency))
    }

    fn operand(&mut self, operand: Operand, position: usize, cycle: u64) -> Result<Value, FaultCause> {
        match operand {
            Operand::Stream(from, dtype) => {
                let mut found = [Found::default(); MAX_BYTES];
                for (byte, found) in found.iter_mut().enumerate().take(element_bytes(dtype)) {
                    *found = self.streams.read(super::after(from.stream, byte), from.take, position)?;
                }
                Ok(Value::Elements(found, dtype))
            }
            Operand::Alu(other) => self.alus.ready(other, cycle),
            Operand::Number(number) => Ok(Value::Given(number)),
        }
    }
}

/// A function of two operands, in which an integer divided by zero gives 0.
fn binary<C: Number>(function: BinaryFn, a: &mut [C], b: &mut [C], bits: u32) {
    // That a divisor is zero is noticed before anything is divided.
    if C::binary(function, a, b, bits).is_ok() {
        return;
    }
    let zero = C::of_integer(0);
    let by_zero: Vec<bool> = b.iter().map(|&divisor| divisor == zero).collect();
    for (divisor, _) in b.iter_mut().zip(&by_zero).filter(|(_, by_zero)| **by_zero) {
        *divisor = C::of_integer(1);
    }
    // None is zero now.
    let _ = C::binary(function, a, b, bits);
    for (result, _) in a.iter_mut().zip(&by_zero).filter(|(_, by_zero)| **by_zero) {
        *result = zero;
    }
}

/// The fold that goes on in the same way.
fn fold(function: Accumulation) -> FoldFn {
    match function {
        Accumulation::Sum => FoldFn::Sum,
        Accumulation::Product => FoldFn::Product,
        Accumulation::Max => FoldFn::Max,
        Accumulation::Min => FoldFn::Min,
    }
}
