//! The switch units: what they make of vectors.

use crate::lpu::isa::MAX_LANES;

/// Moves lanes north or south; lanes outside of `lanes` are those of `under`.
pub(super) fn shift(from: &[u8], by: i16, rotate: bool, lanes: [u16; 2], under: Option<Vec<u8>>) -> Vec<u8> {
    let count = from.len();
    let [first, end] = lanes.map(usize::from);
    let mut result = under.unwrap_or_else(|| vec![0; count]);
    for (lane, value) in result.iter_mut().enumerate().take(end).skip(first) {
        let source = lane as i64 - i64::from(by);
        let source = if rotate { source.rem_euclid(count as i64) } else { source };
        *value = usize::try_from(source).ok().and_then(|source| from.get(source)).copied().unwrap_or(0);
    }
    result
}

/// Picks lanes within each superlane.
pub(super) fn distribute(from: &[u8], map: &[Option<u8>; MAX_LANES], lanes: usize) -> Vec<u8> {
    let picked = |superlane: &[u8], lane: &Option<u8>| lane.map_or(0, |lane| superlane[usize::from(lane)]);
    from.chunks_exact(lanes)
        .flat_map(|superlane| map[..lanes].iter().map(move |lane| picked(superlane, lane)))
        .collect()
}

/// Exchanges lanes of each superlane with vectors.
pub(super) fn transpose(vectors: &[Vec<u8>], lanes: usize) -> Vec<Vec<u8>> {
    let count = vectors.first().map_or(0, Vec::len);
    (0..lanes)
        .map(|vector| (0..count).map(|lane| vectors[lane % lanes][lane - lane % lanes + vector]).collect())
        .collect()
}
