//! Single elements as text, bit for bit.

use std::fmt::{self, Write};

use float8::{F8E4M3, F8E5M2};
use half::{bf16, f16};

use crate::{DType, Data};

/// The bits of element `index` of a tensor stored in `bytes`.
pub(super) fn element_bits(dtype: DType, bytes: &[u8], index: usize) -> u64 {
    if dtype.bits() == 4 {
        return u64::from((bytes[index / 2] >> (4 * (index % 2))) & 0xf);
    }
    let width = dtype.bits() / 8;
    bytes[index * width..][..width].iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}

/// A tensor's bytes from the bits of its elements, which `next` gives in order.
pub(super) fn pack(dtype: DType, count: usize, mut next: impl FnMut() -> u64) -> Data {
    match dtype.bits() {
        64 => Data::from_elements((0..count).map(|_| next()).collect::<Vec<u64>>()),
        32 => Data::from_elements((0..count).map(|_| next() as u32).collect::<Vec<u32>>()),
        16 => Data::from_elements((0..count).map(|_| next() as u16).collect::<Vec<u16>>()),
        8 => Data::from_bytes((0..count).map(|_| next() as u8).collect()),
        _ => {
            let mut bytes = vec![0u8; dtype.bytes(count)];
            for index in 0..count {
                bytes[index / 2] |= (next() as u8 & 0xf) << (4 * (index % 2));
            }
            Data::from_bytes(bytes)
        }
    }
}

/// The bits of the usual NaN of a float type.
fn usual_nan(dtype: DType) -> u64 {
    match dtype {
        DType::F64 => f64::NAN.to_bits(),
        DType::F32 => u64::from(f32::NAN.to_bits()),
        DType::F16 => u64::from(f16::NAN.to_bits()),
        DType::BF16 => u64::from(bf16::NAN.to_bits()),
        _ => 0x7f,
    }
}

/// The value of a float of at most 32 bits.
fn to_f32(dtype: DType, bits: u64) -> f32 {
    match dtype {
        DType::F16 => f16::from_bits(bits as u16).to_f32(),
        DType::BF16 => bf16::from_bits(bits as u16).to_f32(),
        DType::F8E4M3 => F8E4M3::from_bits(bits as u8).to_f32(),
        DType::F8E5M2 => F8E5M2::from_bits(bits as u8).to_f32(),
        _ => f32::from_bits(bits as u32),
    }
}

/// The bits of a number, rounded to a float type.
pub(super) fn float_bits(dtype: DType, value: f64) -> u64 {
    match dtype {
        DType::F64 => value.to_bits(),
        DType::F16 => u64::from(f16::from_f32(value as f32).to_bits()),
        DType::BF16 => u64::from(bf16::from_f32(value as f32).to_bits()),
        DType::F8E4M3 => u64::from(F8E4M3::from_f32(value as f32).to_bits()),
        DType::F8E5M2 => u64::from(F8E5M2::from_f32(value as f32).to_bits()),
        _ => u64::from((value as f32).to_bits()),
    }
}

/// Writes an element.
pub(super) fn write_element(out: &mut impl Write, dtype: DType, bits: u64) -> fmt::Result {
    if dtype == DType::Bool {
        out.write_str(if bits == 0 { "false" } else { "true" })
    } else if dtype.is_float() {
        let wide = dtype == DType::F64;
        let nan = if wide { f64::from_bits(bits).is_nan() } else { to_f32(dtype, bits).is_nan() };
        match nan {
            true if bits == usual_nan(dtype) => out.write_str("nan"),
            true => write!(out, "nan:{bits:#x}"),
            // The shortest decimal that reads back as the same number; infinities are `inf` and `-inf`.
            false if wide => write!(out, "{:?}", f64::from_bits(bits)),
            false => write!(out, "{:?}", to_f32(dtype, bits)),
        }
    } else if dtype.is_signed() {
        let unused = 64 - dtype.bits();
        write!(out, "{}", ((bits << unused) as i64) >> unused)
    } else {
        write!(out, "{bits}")
    }
}

/// Reads an element. `None` if `text` is not one of this type.
pub(super) fn parse_element(dtype: DType, text: &str) -> Option<u64> {
    if dtype == DType::Bool {
        return match text {
            "false" => Some(0),
            "true" => Some(1),
            _ => None,
        };
    }
    if let Some((low, high)) = dtype.integer_range() {
        let value: i128 = text.parse().ok()?;
        return (low <= value && value <= high).then_some(value as u64 & (u64::MAX >> (64 - dtype.bits())));
    }
    let is_nan = |bits| match dtype {
        DType::F64 => f64::from_bits(bits).is_nan(),
        _ => to_f32(dtype, bits).is_nan(),
    };
    if text == "nan" {
        return Some(usual_nan(dtype));
    }
    if let Some(digits) = text.strip_prefix("nan:0x") {
        let bits = u64::from_str_radix(digits, 16).ok()?;
        return (bits <= u64::MAX >> (64 - dtype.bits()) && is_nan(bits)).then_some(bits);
    }
    if let "inf" | "-inf" = text {
        let bits = match dtype {
            DType::F8E4M3 => return None,
            DType::F8E5M2 => 0x7c,
            _ => float_bits(dtype, f64::INFINITY),
        };
        return Some(if text == "inf" { bits } else { bits | 1 << (dtype.bits() - 1) });
    }
    if !text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    // Types of at most 32 bits are read as binary32, so that what was printed as one reads back as the same.
    let value = if dtype == DType::F64 { text.parse().ok()? } else { f64::from(text.parse::<f32>().ok()?) };
    let bits = float_bits(dtype, value);
    // What is out of range became infinite, or was saturated in the types of 8 bits.
    let fits = match dtype {
        DType::F64 => value.is_finite(),
        DType::F8E4M3 => value.abs() <= 448.0,
        DType::F8E5M2 => value.abs() <= 57344.0,
        _ => to_f32(dtype, bits).is_finite(),
    };
    fits.then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trips(dtype: DType, bits: u64) {
        let mut text = String::new();
        assert!(write_element(&mut text, dtype, bits).is_ok());
        assert_eq!(parse_element(dtype, &text), Some(bits), "{dtype} {bits:#x} is written {text}");
    }

    #[test]
    fn every_element_of_the_narrow_types_round_trips() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.bits() <= 16 && *dtype != DType::Bool) {
            for bits in 0..1u64 << dtype.bits() {
                round_trips(dtype, bits);
            }
        }
        round_trips(DType::Bool, 0);
        round_trips(DType::Bool, 1);
    }

    #[test]
    fn elements_of_the_wide_types_round_trip() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.bits() > 16) {
            let mask = u64::MAX >> (64 - dtype.bits());
            // Steps of an odd number of bits meet every exponent, the edges, and infinities and NaNs.
            for bits in (0..5000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                round_trips(dtype, bits >> (64 - dtype.bits()));
            }
            for bits in [0, 1, mask, mask >> 1, (mask >> 1) + 1, f64::INFINITY.to_bits() >> (64 - dtype.bits())] {
                round_trips(dtype, bits);
            }
        }
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, -0.0, f32::MIN_POSITIVE, 1e-45] {
            round_trips(DType::F32, u64::from(value.to_bits()));
        }
    }

    #[test]
    fn packing_is_the_inverse_of_reading() {
        for dtype in DType::ALL {
            let mask = if dtype == DType::Bool { 1 } else { u64::MAX >> (64 - dtype.bits()) };
            let elements: Vec<u64> = (0..5u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask).collect();
            let mut rest = elements.iter().copied();
            let data = pack(dtype, 5, || rest.next().unwrap_or_default());
            let bytes = data.bytes().unwrap_or_default();
            assert_eq!(bytes.len(), dtype.bytes(5));
            assert!((0..5).map(|index| element_bits(dtype, bytes, index)).eq(elements), "{dtype}");
        }
    }

    #[test]
    fn refuses_what_is_out_of_range_or_no_number() {
        for (dtype, text) in [
            (DType::I8, "128"),
            (DType::U4, "-1"),
            (DType::I64, "1.5"),
            (DType::Bool, "1"),
            (DType::F32, "1e39"),
            (DType::F16, "70000"),
            (DType::F8E4M3, "449"),
            (DType::F8E4M3, "inf"),
            (DType::F32, "infinity"),
            (DType::F32, "nan:0x7f800000"),
            (DType::F16, "nan:0x17fff"),
            (DType::F32, ""),
            (DType::F64, "-"),
        ] {
            assert_eq!(parse_element(dtype, text), None, "{dtype} {text}");
        }
    }
}
