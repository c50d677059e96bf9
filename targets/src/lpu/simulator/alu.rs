//! The ALUs of the vector unit.

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, NumberClass};

use super::Simulator;
use super::fault::FaultCause;
use super::lanes::{self, Lanes, element_bytes};
use crate::lpu::LpuMachine;
use crate::lpu::isa::{Accumulation, Alu, AluFn, Number as Given, Operand, Queue};
use crate::number::{self, FoldFn, Number};

/// What an ALU holds.
#[derive(Debug)]
pub(super) struct AluState {
    /// What it has made ready, or will have, with the cycle, by that cycle modulo their number.
    results: Vec<Option<(u64, Lanes)>>,
    /// The running result.
    running: Option<Lanes>,
}

impl AluState {
    pub fn new(machine: &LpuMachine) -> Self {
        AluState { results: vec![None; machine.vxm.latency as usize + 1], running: None }
    }

    /// What is ready in a cycle.
    fn ready(&self, cycle: u64) -> Option<&Lanes> {
        let held = self.results[cycle as usize % self.results.len()].as_ref();
        held.filter(|(ready, _)| *ready == cycle).map(|(_, lanes)| lanes)
    }

    fn make_ready(&mut self, cycle: u64, lanes: Lanes) {
        let place = cycle as usize % self.results.len();
        self.results[place] = Some((cycle, lanes));
    }
}

/// An operand that has been read.
enum Value {
    /// Elements of a type.
    Elements(Vec<u8>, DType),
    /// Numbers of another ALU.
    Lanes(Lanes),
    Given(Given),
}

impl Value {
    /// The type that an operand has, or the widest of its class.
    fn dtype(&self) -> DType {
        match self {
            Value::Elements(_, dtype) => *dtype,
            Value::Lanes(Lanes::F32(_)) | Value::Given(Given::Float(_)) => DType::F32,
            Value::Lanes(Lanes::F64(_)) => DType::F64,
            Value::Lanes(Lanes::Signed(_)) | Value::Given(Given::Integer(_)) => DType::I64,
            Value::Lanes(Lanes::Unsigned(_)) => DType::U64,
        }
    }

    fn numbers<C: Number>(&self, count: usize) -> Vec<C> {
        match self {
            Value::Elements(elements, dtype) => lanes::load(elements, *dtype, count),
            Value::Lanes(lanes) => lanes.to(),
            Value::Given(number) => vec![lanes::given(*number); count],
        }
    }
}

/// A class of numbers that lanes can be of.
trait InLanes: Number {
    fn lanes(numbers: Vec<Self>) -> Lanes;
}

impl InLanes for f32 {
    fn lanes(numbers: Vec<f32>) -> Lanes {
        Lanes::F32(numbers)
    }
}

impl InLanes for f64 {
    fn lanes(numbers: Vec<f64>) -> Lanes {
        Lanes::F64(numbers)
    }
}

impl InLanes for i64 {
    fn lanes(numbers: Vec<i64>) -> Lanes {
        Lanes::Signed(numbers)
    }
}

impl InLanes for u64 {
    fn lanes(numbers: Vec<u64>) -> Lanes {
        Lanes::Unsigned(numbers)
    }
}

impl Simulator<'_> {
    /// Executes an instruction of an ALU; gives its latency.
    pub(super) fn alu(&mut self, number: u8, alu: &Alu, cycle: u64) -> Result<u64, FaultCause> {
        let queue = Queue::Alu(number);
        let operands: &[Operand] = match &alu.function {
            AluFn::Copy(operand) | AluFn::Unary(_, operand) | AluFn::Accumulate { operand, .. } => {
                std::slice::from_ref(operand)
            }
            AluFn::Binary(_, operands) => operands,
            AluFn::Select(operands) => operands,
        };
        let values: Vec<Value> =
            operands.iter().map(|operand| self.operand(queue, *operand, cycle)).collect::<Result<_, _>>()?;
        let chosen = if matches!(alu.function, AluFn::Select(_)) { &values[1..] } else { &values[..] };
        let typed = chosen.iter().find(|value| !matches!(value, Value::Given(_))).or(chosen.first());
        let dtype = typed.map_or(DType::F32, Value::dtype);
        let count = self.machine.vector();
        let running = &mut self.alus[usize::from(number)].running;
        let lanes = match dtype.class() {
            NumberClass::F32 => compute::<f32>(&alu.function, &values, dtype, count, running),
            NumberClass::F64 => compute::<f64>(&alu.function, &values, dtype, count, running),
            NumberClass::Signed => compute::<i64>(&alu.function, &values, dtype, count, running),
            NumberClass::Unsigned => compute::<u64>(&alu.function, &values, dtype, count, running),
        }?;
        let latency = u64::from(self.machine.vxm.latency);
        if let Some((to, dtype)) = alu.result {
            // A copy between equal types keeps every bit.
            let planes = match (&alu.function, &values[..]) {
                (AluFn::Copy(_), [Value::Elements(elements, own)]) if *own == dtype => lanes::split(elements, dtype),
                _ => lanes.planes(dtype),
            };
            for (byte, plane) in planes.into_iter().enumerate() {
                self.drive_later(queue, to, byte, cycle + latency, plane);
            }
        }
        self.alus[usize::from(number)].make_ready(cycle + latency, lanes);
        self.counts.computed += 1;
        Ok(latency)
    }

    fn operand(&mut self, queue: Queue, operand: Operand, cycle: u64) -> Result<Value, FaultCause> {
        match operand {
            Operand::Stream(from, dtype) => {
                let planes: Result<Vec<_>, _> =
                    (0..element_bytes(dtype)).map(|byte| self.read(queue, from, byte, cycle)).collect();
                Ok(Value::Elements(lanes::join(&planes?), dtype))
            }
            Operand::Alu(other) => {
                let ready = self.alus[usize::from(other)].ready(cycle);
                let nothing = || FaultCause::NothingThere(format!("ALU {other} has nothing ready"));
                ready.cloned().map(Value::Lanes).ok_or_else(nothing)
            }
            Operand::Number(number) => Ok(Value::Given(number)),
        }
    }
}

/// Computes in a class; `dtype` is the type of the operand that the class is of.
fn compute<C: InLanes>(
    function: &AluFn,
    values: &[Value],
    dtype: DType,
    count: usize,
    running: &mut Option<Lanes>,
) -> Result<Lanes, FaultCause> {
    let numbers = |which: usize| values[which].numbers::<C>(count);
    Ok(match *function {
        AluFn::Copy(_) => C::lanes(numbers(0)),
        AluFn::Unary(function, _) => {
            if !number::unary_is_defined(function, dtype) {
                return Err(FaultCause::Undefined);
            }
            let mut result = numbers(0);
            C::unary(function, &mut result, dtype == DType::Bool);
            C::lanes(result)
        }
        AluFn::Binary(function, _) => {
            if !number::binary_is_defined(function, dtype) {
                return Err(FaultCause::Undefined);
            }
            let (mut a, b) = (numbers(0), numbers(1));
            if function.is_comparison() {
                let mut truth = vec![0; count];
                number::compare(function, &a, &b, &mut truth);
                Lanes::Unsigned(truth)
            } else {
                binary(function, &mut a, b, dtype.bits() as u32);
                C::lanes(a)
            }
        }
        AluFn::Select(_) => {
            let (condition, mut a, b) = (values[0].numbers::<u64>(count), numbers(1), numbers(2));
            for ((a, b), condition) in a.iter_mut().zip(b).zip(condition) {
                *a = if condition != 0 { *a } else { b };
            }
            C::lanes(a)
        }
        AluFn::Accumulate { function, first, .. } => {
            let operand = numbers(0);
            let result = if first {
                operand
            } else {
                let Some(held) = running.as_ref().filter(|held| held.class() == dtype.class()) else {
                    return Err(FaultCause::OtherClass);
                };
                let mut result = held.to::<C>();
                C::combine(fold(function), &mut result, &operand);
                result
            };
            let lanes = C::lanes(result);
            *running = Some(lanes.clone());
            lanes
        }
    })
}

/// A function of two operands, in which an integer divided by zero gives 0.
fn binary<C: Number>(function: BinaryFn, a: &mut [C], mut b: Vec<C>, bits: u32) {
    let before = a.to_vec();
    if C::binary(function, a, &b, bits).is_ok() {
        return;
    }
    a.copy_from_slice(&before);
    let zero = C::of_integer(0);
    let by_zero: Vec<bool> = b.iter().map(|&divisor| divisor == zero).collect();
    for (divisor, _) in b.iter_mut().zip(&by_zero).filter(|(_, by_zero)| **by_zero) {
        *divisor = C::of_integer(1);
    }
    // None is zero now.
    let _ = C::binary(function, a, &b, bits);
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
