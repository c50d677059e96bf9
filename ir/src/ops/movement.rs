//! What movement operators share: strided reads by element width, whatever the element type is.

use rayon::prelude::*;

use crate::op::OpError;
use crate::{Data, PARALLEL_GRAIN, Shape, Tensor, TensorType, Values};

/// Reads the elements at `offset + Σ index·stride` of `x` (in elements) into a dense tensor of type `ty`.
pub(crate) fn read_strided(x: &Tensor, offset: isize, strides: &[isize], ty: &TensorType) -> Result<Tensor, OpError> {
    let data = match x.dtype().bits() {
        8 => gather::<u8>(x, offset, strides, &ty.shape)?,
        16 => gather::<u16>(x, offset, strides, &ty.shape)?,
        32 => gather::<u32>(x, offset, strides, &ty.shape)?,
        64 => gather::<u64>(x, offset, strides, &ty.shape)?,
        _ => {
            // Four-bit elements are taken apart and packed again.
            let values = match x.widen()? {
                Values::Signed(v) => Values::Signed(collect(&v, offset, strides, &ty.shape).into()),
                Values::Unsigned(v) => Values::Unsigned(collect(&v, offset, strides, &ty.shape).into()),
                other => other,
            };
            return Ok(Tensor::narrow(ty.clone(), values));
        }
    };
    Ok(Tensor::new(ty.clone(), data)?)
}

fn gather<T: bytemuck::Pod + Default + Send + Sync>(
    x: &Tensor,
    offset: isize,
    strides: &[isize],
    shape: &Shape,
) -> Result<Data, OpError> {
    Ok(Data::from_elements(collect(&x.elements::<T>()?, offset, strides, shape)))
}

fn collect<T: Copy + Send + Sync + Default>(x: &[T], offset: isize, strides: &[isize], shape: &Shape) -> Vec<T> {
    let mut out = vec![T::default(); shape.count()];
    if out.is_empty() {
        return out;
    }
    let row = shape.last().copied().unwrap_or(1);
    let step = strides.last().copied().unwrap_or(1);
    let outer = &shape[..shape.rank().saturating_sub(1)];
    let rows = (PARALLEL_GRAIN / row).max(1);
    out.par_chunks_mut(row * rows).enumerate().for_each(|(group, out)| {
        for (index, out) in out.chunks_mut(row).enumerate() {
            let mut start = offset;
            let mut rest = group * rows + index;
            for axis in (0..outer.len()).rev() {
                start += (rest % outer[axis]) as isize * strides[axis];
                rest /= outer[axis];
            }
            if step == 1 {
                out.copy_from_slice(&x[start as usize..][..row]);
            } else {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = x[(start + i as isize * step) as usize];
                }
            }
        }
    });
    out
}
