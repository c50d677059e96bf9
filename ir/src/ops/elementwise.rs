//! What element-wise operators share: parallel loops and broadcasting.

use rayon::prelude::*;

use crate::shape::Shape;
use crate::tensor::PARALLEL_GRAIN;

// The parallel parts take `dyn` functions over slices: they are compiled once for each pair of element types, not once for
// each of the many scalar functions, whose loops over a slice are all that must be their own.

/// Applies `f` to every element.
pub(crate) fn map<T: Copy + Sync, U: Copy + Default + Send>(x: &[T], f: impl Fn(T) -> U + Sync + Send) -> Vec<U> {
    let mut out = vec![U::default(); x.len()];
    for_pieces(x, &mut out, &|x, out| {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = f(x);
        }
    });
    out
}

fn for_pieces<T: Sync, U: Send>(x: &[T], out: &mut [U], f: &(dyn Fn(&[T], &mut [U]) + Sync)) {
    out.par_chunks_mut(PARALLEL_GRAIN).zip(x.par_chunks(PARALLEL_GRAIN)).for_each(|(out, x)| f(x, out));
}

/// Applies `f` to every pair of elements of `a` and `b`, broadcast to `target`.
pub(crate) fn zip<A: Copy + Sync, B: Copy + Sync, U: Copy + Default + Send>(
    (a, a_shape): (&[A], &Shape),
    (b, b_shape): (&[B], &Shape),
    target: &Shape,
    f: impl Fn(A, B) -> U + Sync + Send,
) -> Vec<U> {
    let mut out = vec![U::default(); target.count()];
    for_rows(&[a_shape, b_shape], target, &mut out, &|row, starts, steps| match (steps[0], steps[1]) {
        (1, 1) => {
            let (a, b) = (&a[starts[0]..][..row.len()], &b[starts[1]..][..row.len()]);
            for ((out, &a), &b) in row.iter_mut().zip(a).zip(b) {
                *out = f(a, b);
            }
        }
        (1, 0) => {
            let (a, b) = (&a[starts[0]..][..row.len()], b[starts[1]]);
            for (out, &a) in row.iter_mut().zip(a) {
                *out = f(a, b);
            }
        }
        (0, 1) => {
            let (a, b) = (a[starts[0]], &b[starts[1]..][..row.len()]);
            for (out, &b) in row.iter_mut().zip(b) {
                *out = f(a, b);
            }
        }
        _ => row.fill(f(a[starts[0]], b[starts[1]])),
    });
    out
}

/// Applies `f` to every triple of elements of `a`, `b` and `c`, broadcast to `target`.
pub(crate) fn zip3<A: Copy + Sync, B: Copy + Sync, C: Copy + Sync, U: Copy + Default + Send>(
    (a, a_shape): (&[A], &Shape),
    (b, b_shape): (&[B], &Shape),
    (c, c_shape): (&[C], &Shape),
    target: &Shape,
    f: impl Fn(A, B, C) -> U + Sync + Send,
) -> Vec<U> {
    let mut out = vec![U::default(); target.count()];
    for_rows(&[a_shape, b_shape, c_shape], target, &mut out, &|row, starts, steps| {
        for (i, out) in row.iter_mut().enumerate() {
            *out = f(a[starts[0] + i * steps[0]], b[starts[1] + i * steps[1]], c[starts[2] + i * steps[2]]);
        }
    });
    out
}

/// Works on one row of a result: the row, and where each operand's begins and with which step it goes on.
type RowFn<'a, U, const N: usize> = &'a (dyn Fn(&mut [U], [usize; N], [usize; N]) + Sync);

/// Calls `f` for each innermost row of a `target`-shaped result, in parallel, with the position in every operand where
/// the row starts and the step (0 or 1) with which each operand moves along it.
fn for_rows<U: Send, const N: usize>(
    operands: &[&Shape; N],
    target: &Shape,
    out: &mut [U],
    f: RowFn<'_, U, N>,
) {
    if out.is_empty() {
        return;
    }
    // Trailing dimensions along which all operands are dense, or all constant, are walked as one row.
    let strides: Vec<_> = operands.iter().map(|shape| shape.broadcast_strides(target)).collect();
    let mut row_axes = 0;
    let mut row_len = 1;
    let mut steps = [0; N];
    for axis in (0..target.rank()).rev() {
        let extends = (0..N).all(|operand| {
            let stride = strides[operand][axis];
            if row_len == 1 { stride <= 1 } else { stride == steps[operand] * row_len }
        });
        if target[axis] != 1 {
            if !extends {
                break;
            }
            if row_len == 1 {
                steps = std::array::from_fn(|operand| strides[operand][axis]);
            }
            row_len *= target[axis];
        }
        row_axes += 1;
    }
    let outer = &target.dims()[..target.rank() - row_axes];
    // Long rows are cut, so that a plain element-wise operator runs in parallel too.
    let piece = row_len.min(PARALLEL_GRAIN);
    let rows_per_task = (PARALLEL_GRAIN / row_len).max(1);
    let task = |row: usize, out: &mut [U]| {
        let mut starts = [0; N];
        let mut rest = row;
        for axis in (0..outer.len()).rev() {
            let index = rest % outer[axis];
            rest /= outer[axis];
            for operand in 0..N {
                starts[operand] += index * strides[operand][axis];
            }
        }
        for (part, out) in out.chunks_mut(piece).enumerate() {
            let starts = std::array::from_fn(|operand| starts[operand] + part * piece * steps[operand]);
            f(out, starts, steps);
        }
    };
    if outer.iter().product::<usize>() == 1 {
        out.par_chunks_mut(piece).enumerate().for_each(|(part, out)| {
            f(out, std::array::from_fn(|operand| part * piece * steps[operand]), steps);
        });
    } else {
        out.par_chunks_mut(row_len * rows_per_task).enumerate().for_each(|(group, out)| {
            for (row, out) in out.chunks_mut(row_len).enumerate() {
                task(group * rows_per_task + row, out);
            }
        });
    }
}
