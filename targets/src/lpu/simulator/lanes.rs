//! Numbers of all lanes, of one class, and how they come from byte planes and go to them.

use tcc_ir::{DType, NumberClass};

use crate::lpu::isa::Number as Given;
use crate::number::Number;

/// One number for each lane.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Lanes {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Signed(Vec<i64>),
    Unsigned(Vec<u64>),
}

/// Bytes of an element on streams: one for each stream.
pub(super) fn element_bytes(dtype: DType) -> usize {
    dtype.bits() / 8
}

/// Elements of a type from their byte planes, in the order of lanes.
pub(super) fn join(planes: &[Vec<u8>]) -> Vec<u8> {
    let lanes = planes.first().map_or(0, Vec::len);
    let mut elements = vec![0; lanes * planes.len()];
    for (byte, plane) in planes.iter().enumerate() {
        for (element, &value) in elements.chunks_exact_mut(planes.len()).zip(plane) {
            element[byte] = value;
        }
    }
    elements
}

/// Numbers of a class `C` from elements.
pub(super) fn load<C: Number>(elements: &[u8], dtype: DType, lanes: usize) -> Vec<C> {
    let mut numbers = vec![C::default(); lanes];
    C::load(elements, dtype, 0, 2 * (dtype.bits() / 8) as i64, &mut numbers);
    numbers
}

impl Lanes {
    pub fn class(&self) -> NumberClass {
        match self {
            Lanes::F32(_) => NumberClass::F32,
            Lanes::F64(_) => NumberClass::F64,
            Lanes::Signed(_) => NumberClass::Signed,
            Lanes::Unsigned(_) => NumberClass::Unsigned,
        }
    }

    /// The widest type of the class.
    fn widest(&self) -> DType {
        match self {
            Lanes::F32(_) => DType::F32,
            Lanes::F64(_) => DType::F64,
            Lanes::Signed(_) => DType::I64,
            Lanes::Unsigned(_) => DType::U64,
        }
    }

    /// The numbers as those of a class.
    pub fn to<C: Number>(&self) -> Vec<C> {
        fn through<A: Number, C: Number>(numbers: &[A], dtype: DType) -> Vec<C> {
            let mut elements = vec![0; numbers.len() * dtype.bits() / 8];
            A::encode(numbers, dtype, &mut elements);
            load(&elements, dtype, numbers.len())
        }
        match self {
            Lanes::F32(numbers) => through(numbers, self.widest()),
            Lanes::F64(numbers) => through(numbers, self.widest()),
            Lanes::Signed(numbers) => through(numbers, self.widest()),
            Lanes::Unsigned(numbers) => through(numbers, self.widest()),
        }
    }

    /// The byte planes of the numbers as elements of a type.
    pub fn planes(&self, dtype: DType) -> Vec<Vec<u8>> {
        fn encoded<C: Number>(numbers: &[C], dtype: DType, bytes: usize) -> Vec<u8> {
            let mut elements = vec![0; numbers.len() * bytes];
            C::encode(numbers, dtype, &mut elements);
            elements
        }
        let bytes = element_bytes(dtype);
        let elements = match self {
            Lanes::F32(numbers) => encoded(numbers, dtype, bytes),
            Lanes::F64(numbers) => encoded(numbers, dtype, bytes),
            Lanes::Signed(numbers) => encoded(numbers, dtype, bytes),
            Lanes::Unsigned(numbers) => encoded(numbers, dtype, bytes),
        };
        split(&elements, dtype)
    }
}

/// The byte planes of elements.
pub(super) fn split(elements: &[u8], dtype: DType) -> Vec<Vec<u8>> {
    let bytes = element_bytes(dtype);
    (0..bytes).map(|byte| elements.iter().skip(byte).step_by(bytes).copied().collect()).collect()
}

/// A given number as one of a class.
pub(super) fn given<C: Number>(number: Given) -> C {
    match number {
        Given::Float(value) => C::of_float(f64::from(value)),
        Given::Integer(value) => C::of_integer(i64::from(value)),
    }
}
