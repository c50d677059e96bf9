//! The switch units: what they make of vectors.

use crate::lpu::isa::MAX_LANES;

/// Moves lanes north or south; lanes outside of `lanes` are those of `under`.
pub(super) fn shift(from: &[u8], by: i16, rotate: bool, lanes: [u16; 2], under: Option<&[u8]>, result: &mut [u8]) {
    let count = from.len() as i64;
    let [first, end] = lanes.map(i64::from);
    match under {
        Some(under) => result.copy_from_slice(under),
        None => result.fill(0),
    }
    // Copies the operand so far to the north that its first lane comes to lane `to`, as far as there is room.
    let copy = |to: i64, result: &mut [u8]| {
        let (start, stop) = (to.max(first), (to + count).min(end));
        if start < stop {
            let source = &from[(start - to) as usize..(stop - to) as usize];
            result[start as usize..stop as usize].copy_from_slice(source);
        }
    };
    if rotate {
        let by = i64::from(by).rem_euclid(count);
        copy(by, result);
        copy(by - count, result);
    } else {
        result[first as usize..end as usize].fill(0);
        copy(i64::from(by), result);
    }
}

/// Picks lanes within each superlane.
pub(super) fn distribute(from: &[u8], map: &[Option<u8>; MAX_LANES], lanes: usize, result: &mut [u8]) {
    for (from, result) in from.chunks_exact(lanes).zip(result.chunks_exact_mut(lanes)) {
        for (result, lane) in result.iter_mut().zip(map) {
            *result = lane.map_or(0, |lane| from[usize::from(lane)]);
        }
    }
}

/// The vector of this number when lanes of each superlane are exchanged with vectors.
pub(super) fn transpose(vectors: &[&[u8]], number: usize, result: &mut [u8]) {
    let lanes = vectors.len();
    for (superlane, result) in (0..).step_by(lanes).zip(result.chunks_exact_mut(lanes)) {
        for (lane, vector) in result.iter_mut().zip(vectors) {
            *lane = vector[superlane + number];
        }
    }
}
