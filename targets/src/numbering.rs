//! The numbers of what has a name in binary forms: the same on every kind of machine.

use tcc_ir::DType;

/// The position of a value in the list that numbers it, as [`DType::ALL`] and the lists of functions do. They are complete.
pub(crate) fn number<T: PartialEq>(list: &[T], value: &T) -> u32 {
    list.iter().position(|candidate| candidate == value).map_or(u32::MAX, |index| index as u32)
}

/// The number of an element type.
pub(crate) fn dtype_number(dtype: DType) -> u32 {
    number(&DType::ALL, &dtype)
}
