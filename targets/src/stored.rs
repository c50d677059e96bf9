//! Elements as machines store them: four-bit numbers take a byte, and weights may be of another type than in the model.

use std::io::{self, Write};

use half::bf16;
use rayon::prelude::*;
use tcc_ir::{DType, Data, Tensor, TensorError, TensorType};

/// Elements packed at a time: bounds the memory that packing takes.
pub(crate) const CHUNK: usize = 1 << 20;

/// The type that elements are stored as: four-bit types are widened to a byte.
pub(crate) fn storage(dtype: DType) -> DType {
    match dtype {
        DType::I4 => DType::I8,
        DType::U4 => DType::U8,
        other => other,
    }
}

/// A tensor's bytes as they are stored.
pub(crate) fn stored_bytes(tensor: &Tensor, dtype: DType) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pack(tensor, dtype, &mut bytes)?;
    Ok(bytes)
}

/// A tensor of the model's type from bytes as they are stored.
pub(crate) fn from_stored(ty: &TensorType, stored: DType, bytes: &[u8]) -> Result<Tensor, TensorError> {
    let raw = Tensor::new(TensorType::new(stored, ty.shape.clone()), Data::from_bytes(bytes.to_vec()))?;
    if stored == ty.dtype {
        return Ok(raw);
    }
    Ok(Tensor::narrow(ty.clone(), raw.widen()?))
}

/// Writes one tensor as `dtype`; returns the number of bytes.
pub(crate) fn pack(tensor: &Tensor, dtype: DType, out: &mut dyn Write) -> io::Result<u64> {
    let bytes = tensor.bytes().map_err(io::Error::other)?;
    if tensor.dtype() == dtype || tensor.dtype().bits() != 4 {
        return pack_run(bytes, tensor.dtype(), dtype, out);
    }
    let count = tensor.shape().count();
    let signed = tensor.dtype() == DType::I4;
    let mut written = 0;
    for (index, chunk) in bytes.chunks(CHUNK).enumerate() {
        let first = index * CHUNK * 2;
        let widened: Vec<u8> = chunk
            .iter()
            .flat_map(|&byte| [byte & 0xf, byte >> 4])
            .map(|nibble| if signed { (((nibble << 4) as i8) >> 4) as u8 } else { nibble })
            .take(count - first)
            .collect();
        out.write_all(&widened)?;
        written += widened.len() as u64;
    }
    Ok(written)
}

/// Writes whole elements of type `from` as `to`; returns the number of bytes.
pub(crate) fn pack_run(bytes: &[u8], from: DType, to: DType, out: &mut dyn Write) -> io::Result<u64> {
    match (from, to) {
        (from, to) if from == to => {
            out.write_all(bytes)?;
            Ok(bytes.len() as u64)
        }
        (DType::F32, DType::BF16) => {
            let mut written = 0;
            for chunk in bytes.chunks(CHUNK * size_of::<f32>()) {
                // Bytes that are mapped from a file need not be aligned.
                let copied: Vec<f32>;
                let elements: &[f32] = match bytemuck::try_cast_slice(chunk) {
                    Ok(elements) => elements,
                    Err(_) => {
                        copied = bytemuck::pod_collect_to_vec(chunk);
                        &copied
                    }
                };
                let packed: Vec<bf16> = elements.par_iter().with_min_len(1 << 16).map(|&x| bf16::from_f32(x)).collect();
                let packed: &[u8] = bytemuck::cast_slice(&packed);
                out.write_all(packed)?;
                written += packed.len() as u64;
            }
            Ok(written)
        }
        (from, to) => Err(io::Error::other(format!("no packing from {from} to {to}"))),
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::Shape;

    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let signed = Tensor::from_vec(Shape::vector(5), vec![-8i32, 7, -1, 0, 3]).unwrap();
        let ty = TensorType::new(DType::I4, Shape::vector(5));
        let narrow = Tensor::narrow(ty.clone(), signed.widen().unwrap());
        let bytes = stored_bytes(&narrow, storage(DType::I4)).unwrap();
        assert_eq!(bytes, [-8i8, 7, -1, 0, 3].map(|x| x as u8));
        assert_eq!(from_stored(&ty, DType::I8, &bytes).unwrap().bytes().unwrap(), narrow.bytes().unwrap());
        let floats = Tensor::from_vec(Shape::vector(2), vec![1.5f32, -2.0]).unwrap();
        let bytes = stored_bytes(&floats, storage(DType::F32)).unwrap();
        assert_eq!(from_stored(floats.ty(), DType::F32, &bytes).unwrap().bytes().unwrap(), floats.bytes().unwrap());
    }
}
