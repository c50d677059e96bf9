//! Boxes: rectangular parts of a loop nest, and how a nest is cut into them.

use std::ops::Range;

/// A rectangular part of a loop nest: for each dimension the first index and the number of indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub starts: Vec<usize>,
    pub lens: Vec<usize>,
}

impl Tile {
    /// Number of points.
    pub fn count(&self) -> usize {
        self.lens.iter().product()
    }

    /// Offset of the first point, for these strides.
    pub fn offset(&self, strides: &[i64]) -> i64 {
        self.starts.iter().zip(strides).map(|(&start, &stride)| start as i64 * stride).sum()
    }
}

/// The largest tile lengths, innermost dimensions first, that `fits` accepts; at least 1 everywhere. `fixed` dimensions
/// keep their whole extent.
pub(super) fn grow(sizes: &[usize], fixed: &[bool], fits: impl Fn(&[usize]) -> bool) -> Vec<usize> {
    let mut lens: Vec<usize> = sizes.iter().zip(fixed).map(|(&size, &fixed)| if fixed { size } else { 1 }).collect();
    for axis in (0..sizes.len()).rev().filter(|&axis| !fixed[axis]) {
        let (mut low, mut high) = (1, sizes[axis]);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            lens[axis] = middle;
            if fits(&lens) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        // Tiles of equal length waste less than full ones with a small rest.
        lens[axis] = sizes[axis].div_ceil(sizes[axis].div_ceil(low.max(1)));
        if lens[axis] < sizes[axis] {
            break;
        }
    }
    lens
}

/// Lengths of a tile of at most `limit` points, filled from the innermost dimension, without evening out.
pub(super) fn fill(sizes: &[usize], limit: usize) -> Vec<usize> {
    let mut lens = vec![1; sizes.len()];
    let mut room = limit;
    for axis in (0..sizes.len()).rev() {
        lens[axis] = sizes[axis].min(room.max(1));
        if lens[axis] < sizes[axis] {
            break;
        }
        room /= lens[axis].max(1);
    }
    lens
}

/// Number of tiles of these lengths in a nest.
pub(super) fn count(sizes: &[usize], lens: &[usize]) -> usize {
    sizes.iter().zip(lens).map(|(&size, &len)| size.div_ceil(len.max(1))).product()
}

/// All tiles of a nest, in row-major order; the last of a dimension may be shorter.
pub(super) fn tiles(sizes: &[usize], lens: &[usize]) -> Vec<Tile> {
    let mut all = vec![Tile { starts: Vec::new(), lens: Vec::new() }];
    for (&size, &len) in sizes.iter().zip(lens) {
        all = all
            .iter()
            .flat_map(|tile| {
                (0..size).step_by(len.max(1)).map(move |start| {
                    let mut tile = tile.clone();
                    tile.starts.push(start);
                    tile.lens.push(len.min(size - start));
                    tile
                })
            })
            .collect();
    }
    all
}

/// Pieces of a range.
pub(super) fn pieces(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(len.max(1)).map(move |start| start..(start + len.max(1)).min(end))
}

/// Dense row-major strides for a tile of these lengths, 0 where `kept` says the value has one element only.
pub(super) fn dense_strides(lens: &[usize], kept: impl Fn(usize) -> bool) -> Vec<i64> {
    let mut strides = vec![0; lens.len()];
    let mut step = 1;
    for axis in (0..lens.len()).rev().filter(|&axis| kept(axis)) {
        strides[axis] = step;
        step *= lens[axis] as i64;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_nest_once() {
        let tiles = tiles(&[3, 5], &[2, 2]);
        assert_eq!(tiles.len(), 6);
        assert_eq!(tiles.iter().map(Tile::count).sum::<usize>(), 15);
    }

    #[test]
    fn growth_prefers_inner_dimensions_and_even_tiles() {
        assert_eq!(grow(&[8, 10], &[false, false], |lens| lens.iter().product::<usize>() <= 7), [1, 5]);
        assert_eq!(grow(&[8, 10], &[false, true], |lens| lens.iter().product::<usize>() <= 30), [3, 10]);
        assert_eq!(fill(&[4, 9], 14), [1, 9]);
        assert_eq!(fill(&[64, 9], 128), [14, 9]);
    }
}
