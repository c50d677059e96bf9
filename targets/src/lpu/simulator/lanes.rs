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

/// A class of numbers that lanes can be of.
pub(super) trait Class: Number {
    fn lanes(numbers: Vec<Self>) -> Lanes;

    /// The numbers of lanes of this class.
    fn numbers(lanes: &Lanes) -> Option<&[Self]>;

    /// The memory of lanes of this class, so that it can be used again.
    fn memory(lanes: Lanes) -> Option<Vec<Self>>;
}

macro_rules! class {
    ($C:ty, $name:ident) => {
        impl Class for $C {
            fn lanes(numbers: Vec<$C>) -> Lanes {
                Lanes::$name(numbers)
            }

            fn numbers(lanes: &Lanes) -> Option<&[$C]> {
                if let Lanes::$name(numbers) = lanes { Some(numbers) } else { None }
            }

            fn memory(lanes: Lanes) -> Option<Vec<$C>> {
                if let Lanes::$name(numbers) = lanes { Some(numbers) } else { None }
            }
        }
    };
}

class!(f32, F32);
class!(f64, F64);
class!(i64, Signed);
class!(u64, Unsigned);

/// Bytes of an element on streams: one for each stream.
pub(super) fn element_bytes(dtype: DType) -> usize {
    dtype.bits() / 8
}

/// Elements of as many bytes as there are byte planes, in the order of lanes.
pub(super) fn join(planes: &[&[u8]], elements: &mut Vec<u8>) {
    fn together<const N: usize>(planes: [&[u8]; N], elements: &mut [u8]) {
        let lanes = planes[0].len();
        let planes = planes.map(|plane| &plane[..lanes]);
        for (lane, element) in elements.as_chunks_mut::<N>().0[..lanes].iter_mut().enumerate() {
            *element = planes.map(|plane| plane[lane]);
        }
    }
    elements.resize(planes.len() * planes.first().map_or(0, |plane| plane.len()), 0);
    match *planes {
        [plane] => elements.copy_from_slice(plane),
        [a, b] => together([a, b], elements),
        [a, b, c, d] => together([a, b, c, d], elements),
        _ => {
            for (byte, plane) in planes.iter().enumerate() {
                for (element, &value) in elements.chunks_exact_mut(planes.len()).zip(*plane) {
                    element[byte] = value;
                }
            }
        }
    }
}

/// One of the byte planes of elements of so many bytes.
pub(super) fn split(elements: &[u8], bytes: usize, byte: usize, plane: &mut [u8]) {
    fn apart<const N: usize>(elements: &[u8], byte: usize, plane: &mut [u8], number: impl Fn([u8; N]) -> u64) {
        for (lane, element) in plane.iter_mut().zip(elements.as_chunks::<N>().0) {
            *lane = (number(*element) >> (8 * byte)) as u8;
        }
    }
    match bytes {
        1 => plane.copy_from_slice(elements),
        2 => apart(elements, byte, plane, |element| u64::from(u16::from_le_bytes(element))),
        4 => apart(elements, byte, plane, |element| u64::from(u32::from_le_bytes(element))),
        _ => {
            for (lane, element) in plane.iter_mut().zip(elements.chunks_exact(bytes)) {
                *lane = element[byte];
            }
        }
    }
}

/// Numbers of a class `C` from elements.
pub(super) fn load<C: Number>(elements: &[u8], dtype: DType, numbers: &mut [C]) {
    C::load(elements, dtype, 0, 2 * element_bytes(dtype) as i64, numbers);
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
    pub fn widest(&self) -> DType {
        match self {
            Lanes::F32(_) => DType::F32,
            Lanes::F64(_) => DType::F64,
            Lanes::Signed(_) => DType::I64,
            Lanes::Unsigned(_) => DType::U64,
        }
    }

    /// The numbers as those of a class; on the way they are elements of the widest type of their own.
    pub fn to<C: Number>(&self, elements: &mut Vec<u8>, numbers: &mut [C]) {
        let dtype = self.widest();
        self.encode(dtype, elements);
        load(elements, dtype, numbers);
    }

    /// The numbers as elements of a type.
    pub fn encode(&self, dtype: DType, elements: &mut Vec<u8>) {
        fn encoded<C: Number>(numbers: &[C], dtype: DType, elements: &mut Vec<u8>) {
            elements.resize(numbers.len() * element_bytes(dtype), 0);
            C::encode(numbers, dtype, elements);
        }
        match self {
            Lanes::F32(numbers) => encoded(numbers, dtype, elements),
            Lanes::F64(numbers) => encoded(numbers, dtype, elements),
            Lanes::Signed(numbers) => encoded(numbers, dtype, elements),
            Lanes::Unsigned(numbers) => encoded(numbers, dtype, elements),
        }
    }
}

/// A given number as one of a class.
pub(super) fn given<C: Number>(number: Given) -> C {
    match number {
        Given::Float(value) => C::of_float(f64::from(value)),
        Given::Integer(value) => C::of_integer(i64::from(value)),
    }
}
