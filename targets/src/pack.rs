//! Constants, rearranged as kernels read them.

use tcc_ir::{Atom, View};

/// The bytes of the elements that a view reads from others of so many bits, in their order; those of four bits are two to a byte, the
/// first in the lower half. `None` if the view leads outside.
pub(crate) fn rearranged(bytes: &[u8], bits: usize, view: &View) -> Option<Vec<u8>> {
    let count = view.shape().count();
    if view.is_dense() {
        return bytes.get(..(count * bits).div_ceil(8)).map(<[u8]>::to_vec);
    }
    let mut packed = vec![0; (count * bits).div_ceil(8)];
    let size = bits / 8;
    // The innermost atom is walked in a loop of its own.
    let (inner, outer) = match view.atoms() {
        [outer @ .., inner] => (*inner, outer),
        [] => (Atom { size: 1, stride: 0 }, &[][..]),
    };
    let mut place = vec![0; outer.len()];
    let mut first = view.offset();
    for run in 0..count / inner.size {
        for step in 0..inner.size {
            let (to, from) = (run * inner.size + step, usize::try_from(first + step as i64 * inner.stride).ok()?);
            if size == 0 {
                let nibble = bytes.get(from / 2)? >> (from % 2 * 4) & 15;
                packed[to / 2] |= nibble << (to % 2 * 4);
            } else {
                packed[to * size..][..size].copy_from_slice(bytes.get(from * size..(from + 1) * size)?);
            }
        }
        for (place, atom) in place.iter_mut().zip(outer).rev() {
            *place += 1;
            first += atom.stride;
            if *place < atom.size {
                break;
            }
            first -= atom.stride * atom.size as i64;
            *place = 0;
        }
    }
    Some(packed)
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::ops::Transpose;
    use tcc_ir::{Op, Shape};

    use super::*;

    #[test]
    fn elements_are_found_through_views() {
        let turned = |rows: usize, columns: usize| {
            let op = Op::Transpose(Transpose { perm: vec![1, 0] });
            let shape = Shape::new([columns, rows]).unwrap();
            View::dense(Shape::new([rows, columns]).unwrap()).through(&op, &shape).unwrap()
        };
        assert_eq!(rearranged(&[1, 2, 3, 4, 5, 6], 8, &turned(2, 3)).unwrap(), [1, 4, 2, 5, 3, 6]);
        assert_eq!(rearranged(&[1, 0, 2, 0, 3, 0, 4, 0], 16, &turned(2, 2)).unwrap(), [1, 0, 3, 0, 2, 0, 4, 0]);
        // 1 2 3 | 4 5 6 by halves of bytes.
        assert_eq!(rearranged(&[0x21, 0x43, 0x65], 4, &turned(2, 3)).unwrap(), [0x41, 0x52, 0x63]);
        assert_eq!(rearranged(&[0x21, 0x43, 0x05], 4, &View::dense(Shape::vector(5))).unwrap(), [0x21, 0x43, 0x05]);
        assert_eq!(rearranged(&[0x21, 0x43], 4, &turned(2, 3)), None);
    }
}
