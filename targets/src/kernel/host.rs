//! What programs on a host have in common that run kernels: arrays in files as NumPy writes them.

use std::collections::HashSet;

use tcc_ir::DType;

use super::names::name_of;
use super::writer::comment;
use crate::target::Port;

/// What every host program includes.
pub(crate) const ARRAYS: &str = include_str!("host/arrays.h");

/// The names of ports as files: different from each other, whatever the model calls them.
pub(crate) fn file_names(ports: &[(Port, u32)]) -> Vec<String> {
    let mut taken = HashSet::new();
    let name = |(port, _): &(Port, u32)| {
        let plain = name_of(&port.name);
        let (mut name, mut again) = (plain.clone(), 1);
        while !taken.insert(name.clone()) {
            again += 1;
            name = format!("{plain}_{again}");
        }
        name
    };
    ports.iter().map(name).collect()
}

/// What NumPy calls a type as it is stored; those that it does not know go by the integers of their size.
pub(crate) fn descr(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::BF16 | DType::U16 => "<u2",
        DType::F8E4M3 | DType::F8E5M2 | DType::U8 | DType::U4 => "|u1",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I16 => "<i2",
        DType::I8 | DType::I4 => "|i1",
        DType::U64 => "<u8",
        DType::U32 => "<u4",
        DType::Bool => "|b1",
    }
}

/// Bytes of a port's elements as they are stored.
pub(crate) fn bytes_of(port: &Port, stored: DType) -> u64 {
    (port.ty.shape.count() as u64 * stored.bits() as u64).div_ceil(8)
}

/// A port's shape as NumPy writes it.
pub(crate) fn shape_of(port: &Port) -> String {
    let extents: Vec<String> = port.ty.shape.iter().map(|extent| extent.to_string()).collect();
    match extents.as_slice() {
        [extent] => format!("({extent},)"),
        extents => format!("({})", extents.join(", ")),
    }
}

/// A port in a list for people: its file, its name in the model and what it holds.
pub(crate) fn listed(file: &str, port: &Port, stored: DType) -> String {
    let (own, shape) = (comment(&port.name).replace('`', "_"), shape_of(port));
    format!("- `{file}.npy`: `{own}`, {} of shape {shape}, stored as `{}`\n", port.ty.dtype, descr(stored))
}
