//! How rows of one value are found in another: views, seen by the vectors of memory.

use smallvec::SmallVec;
use tcc_ir::{Atom, Shape, View};

use crate::lpu::layout::Layout;

/// For each vector of a value, in the order of rows and blocks, the row and block of another value in which it lies.
pub(super) type Rows = Vec<(u32, u32)>;

/// Finds the vectors of a view in those of the value that it reads, which has so many columns. `None` if lanes must be moved.
pub(super) fn direct(view: &View, columns: usize, lanes: usize) -> Option<Rows> {
    let groups = view.groups()?;
    let (last, leading) = match groups.split_last() {
        Some((last, leading)) => (last.clone(), leading),
        None => (SmallVec::new(), &[][..]),
    };
    let (_, own_columns) = Layout::matrix(view.shape());
    let stride = match last[..] {
        [] => 0,
        [atom] => atom.stride,
        _ => return None,
    };
    let blocks = own_columns.div_ceil(lanes);
    let mut rows = Vec::new();
    for offset in offsets(view.offset(), leading) {
        let offset = usize::try_from(offset).ok()?;
        if columns == 1 && (own_columns == 1 || stride == 0) {
            rows.extend((0..blocks).map(|_| (offset as u32, 0)));
            continue;
        }
        let (row, column) = (offset / columns.max(1), offset % columns.max(1));
        let fits = own_columns > 1 && stride == 1 && column.is_multiple_of(lanes) && column + own_columns <= columns;
        if !fits {
            return None;
        }
        rows.extend((0..blocks).map(|block| (row as u32, (column / lanes + block) as u32)));
    }
    Some(rows)
}

/// The positions that dimensions of these atoms walk, from an offset on.
pub(super) fn offsets(offset: i64, groups: &[SmallVec<[Atom; 2]>]) -> Vec<i64> {
    let mut offsets = vec![offset];
    for atom in groups.iter().flatten() {
        if atom.size == 1 {
            continue;
        }
        let mut next = Vec::with_capacity(offsets.len() * atom.size);
        for &offset in &offsets {
            next.extend((0..atom.size as i64).map(|step| offset + step * atom.stride));
        }
        offsets = next;
    }
    offsets
}

/// The positions of all elements of a view, in order.
pub(super) fn positions(view: &View) -> Vec<i64> {
    if view.shape().count() == 0 {
        return Vec::new();
    }
    offsets(view.offset(), &[view.atoms().iter().copied().collect()])
}

/// The view without what only repeats along it: the dimensions that do not move in the buffer have extent 1.
pub(super) fn distinct(view: &View) -> View {
    let Some(groups) = view.groups() else { return view.clone() };
    let repeats = |group: &SmallVec<[Atom; 2]>| group.iter().all(|atom| atom.stride == 0 || atom.size == 1);
    let dims = view.shape().iter().zip(&groups).map(|(&dim, group)| if repeats(group) && dim > 0 { 1 } else { dim });
    let Ok(shape) = Shape::new(dims) else { return view.clone() };
    let slice =
        tcc_ir::ops::Slice { starts: vec![0; shape.rank()], steps: vec![1; shape.rank()], sizes: shape.to_vec() };
    view.slice(&slice, &shape).unwrap_or_else(|| view.clone())
}
