//! Strided views: how a kernel reads a value that movement operators have rearranged, without moving it.
//!
//! A view maps the row-major index of a logical tensor to positions in a dense buffer. The index is taken apart into
//! [`Atom`]s, outermost first, each with its own stride, independent of where the tensor's dimensions begin and end. So
//! a reshape never changes the atoms, and merged dimensions need no single stride.

use smallvec::SmallVec;

use crate::Shape;
use crate::ops::{Op, Reshape, Slice, Transpose, Window};

/// A factor of the index space with one stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Atom {
    /// Number of steps.
    pub size: usize,
    /// Distance between steps, in elements of the buffer.
    pub stride: i64,
}

/// A way to read a dense buffer as a tensor of some shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    shape: Shape,
    offset: i64,
    atoms: SmallVec<[Atom; 6]>,
}

impl View {
    /// The identity: a dense row-major buffer of this shape.
    pub fn dense(shape: Shape) -> Self {
        let atoms = [Atom { size: shape.count(), stride: 1 }].into_iter().collect();
        View::normalized(shape, 0, atoms)
    }

    /// A view made of atoms, outermost first, whose sizes multiply to the number of `shape`'s elements; it starts at 0.
    pub fn from_atoms(shape: Shape, atoms: impl IntoIterator<Item = Atom>) -> Self {
        View::normalized(shape, 0, atoms.into_iter().collect())
    }

    fn normalized(shape: Shape, offset: i64, atoms: SmallVec<[Atom; 6]>) -> Self {
        let mut merged: SmallVec<[Atom; 6]> = SmallVec::new();
        for atom in atoms {
            if atom.size == 1 {
                continue;
            }
            match merged.last_mut() {
                Some(outer) if outer.stride == atom.stride * atom.size as i64 => {
                    *outer = Atom { size: outer.size * atom.size, stride: atom.stride };
                }
                _ => merged.push(atom),
            }
        }
        View { shape, offset, atoms: merged }
    }

    /// The logical shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Position of the first element in the buffer.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The factors of the index space, outermost first; none of size 1, neighbours merged where they can be.
    pub fn atoms(&self) -> &[Atom] {
        &self.atoms
    }

    /// Whether elements lie in the buffer in order and without gaps, from its start.
    pub fn is_dense(&self) -> bool {
        self.offset == 0
            && match self.atoms[..] {
                [] => true,
                [atom] => atom.stride == 1,
                _ => false,
            }
    }

    /// The atoms of each dimension, if dimensions begin and end where atoms do or can be cut.
    pub fn groups(&self) -> Option<Vec<SmallVec<[Atom; 2]>>> {
        if self.shape.count() == 0 {
            return Some(self.shape.iter().map(|&size| SmallVec::from_slice(&[Atom { size, stride: 0 }])).collect());
        }
        let mut atoms = self.atoms.iter().copied();
        let mut rest = Atom { size: 1, stride: 0 };
        let mut groups = Vec::with_capacity(self.shape.rank());
        for &dim in self.shape.iter() {
            let mut group = SmallVec::new();
            let mut need = dim;
            while need > 1 {
                if rest.size == 1 {
                    rest = atoms.next()?;
                }
                if need % rest.size == 0 {
                    need /= rest.size;
                    group.push(rest);
                    rest.size = 1;
                } else if rest.size.is_multiple_of(need) {
                    let inner = rest.size / need;
                    group.push(Atom { size: need, stride: rest.stride * inner as i64 });
                    rest.size = inner;
                    need = 1;
                } else {
                    return None;
                }
            }
            groups.push(group);
        }
        Some(groups)
    }

    fn from_groups(shape: Shape, offset: i64, groups: impl IntoIterator<Item = SmallVec<[Atom; 2]>>) -> Self {
        View::normalized(shape, offset, groups.into_iter().flatten().collect())
    }

    /// The same elements under another shape of as many.
    pub fn reshape(&self, shape: Shape) -> View {
        debug_assert_eq!(shape.count(), self.shape.count());
        View { shape, offset: self.offset, atoms: self.atoms.clone() }
    }

    /// This view repeated along dimensions of extent 1 until it has `shape`.
    pub fn broadcast(&self, shape: &Shape) -> Option<View> {
        if &self.shape == shape {
            return Some(self.clone());
        }
        let groups = self.groups()?;
        let lead = shape.rank() - self.shape.rank();
        let groups = (0..shape.rank()).map(|axis| match axis.checked_sub(lead) {
            Some(own) if self.shape[own] == shape[axis] => groups[own].clone(),
            _ => SmallVec::from_slice(&[Atom { size: shape[axis], stride: 0 }]),
        });
        Some(View::from_groups(shape.clone(), self.offset, groups))
    }

    fn permute(&self, perm: &[usize], shape: &Shape) -> Option<View> {
        let groups = self.groups()?;
        Some(View::from_groups(shape.clone(), self.offset, perm.iter().map(|&axis| groups[axis].clone())))
    }

    /// The elements that `slice` selects.
    pub fn slice(&self, slice: &Slice, shape: &Shape) -> Option<View> {
        if shape.count() == 0 {
            return Some(View::dense(shape.clone()));
        }
        let mut groups = self.groups()?;
        let mut offset = self.offset;
        for (axis, group) in groups.iter_mut().enumerate() {
            let (start, size) = (slice.starts[axis], slice.sizes[axis]);
            // The step of a single element leads nowhere, and may be huge.
            let step = if size > 1 { slice.steps[axis] } else { 1 };
            if start == 0 && step == 1 && size == self.shape[axis] {
                continue;
            }
            offset += slice_group(group, start, step, size)?;
        }
        Some(View::from_groups(shape.clone(), offset, groups))
    }

    fn window(&self, window: &Window, shape: &Shape) -> Option<View> {
        let mut groups = self.groups()?;
        let stride = match groups[window.axis][..] {
            [] => 0,
            [atom] => atom.stride,
            _ => return None,
        };
        // Where there is one position or element, the distance to the next means nothing and may be huge.
        let positions = shape[window.axis];
        let step = if positions > 1 { stride * window.step as i64 } else { 0 };
        groups[window.axis] = SmallVec::from_slice(&[Atom { size: positions, stride: step }]);
        let dilated = if positions > 0 && window.size > 1 { stride * window.dilation as i64 } else { 0 };
        let within = Atom { size: window.size, stride: dilated };
        groups.insert(window.axis + 1, SmallVec::from_slice(&[within]));
        Some(View::from_groups(shape.clone(), self.offset, groups))
    }

    /// This view seen through a movement operator whose result has `shape`. `None` if the operator moves data, or if the
    /// result has no strides over this buffer.
    pub fn through(&self, op: &Op, shape: &Shape) -> Option<View> {
        match op {
            Op::Reshape(Reshape { shape }) => Some(self.reshape(shape.clone())),
            Op::Transpose(Transpose { perm }) => self.permute(perm, shape),
            Op::Broadcast(_) => self.broadcast(shape),
            Op::Slice(slice) => self.slice(slice, shape),
            Op::Window(window) => self.window(window, shape),
            _ => None,
        }
    }
}

/// Whether an operator only rearranges indices, so that [`View::through`] may apply to it.
pub fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_) | Op::Slice(_) | Op::Window(_))
}

/// Cuts a dimension made of several atoms; returns what is added to the offset.
fn slice_group(group: &mut SmallVec<[Atom; 2]>, start: usize, step: i64, size: usize) -> Option<i64> {
    match group[..] {
        [] => Some(0),
        [atom] => {
            group[0] = Atom { size, stride: atom.stride * step };
            Some(atom.stride * start as i64)
        }
        [outer, ..] => {
            let inner: usize = group[1..].iter().map(|atom| atom.size).product();
            if step == 1 && start.is_multiple_of(inner) && size.is_multiple_of(inner) {
                group[0].size = size / inner;
                return Some(outer.stride * (start / inner) as i64);
            }
            let last = (start as i64 + step * (size as i64 - 1)) as usize;
            if start / inner == last / inner {
                group.remove(0);
                let skipped = outer.stride * (start / inner) as i64;
                return Some(skipped + slice_group(group, start % inner, step, size)?);
            }
            None
        }
    }
}

/// A loop nest that walks several views of the same index space at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nest {
    /// Extents, outermost first.
    pub sizes: Vec<usize>,
    /// For each view, its stride along each dimension.
    pub strides: Vec<Vec<i64>>,
}

impl Nest {
    /// The coarsest loop nest in which every view has one stride per dimension, and in which the dimensions of `shape`
    /// begin and end. All views have as many elements as `shape`. `None` if their atoms do not interleave.
    pub fn refine(shape: &Shape, views: &[&View]) -> Option<Nest> {
        // Dimensions end at products of extents, counted from the innermost: collect those of all views.
        let mut ends: Vec<usize> = Vec::new();
        let mut product = 1;
        for &dim in shape.iter().rev() {
            product *= dim;
            ends.push(product);
        }
        for view in views {
            let mut product = 1;
            for atom in view.atoms.iter().rev() {
                product *= atom.size;
                ends.push(product);
            }
        }
        ends.sort_unstable();
        ends.dedup();
        ends.retain(|&end| end != 1);
        let mut sizes = Vec::with_capacity(ends.len());
        let mut previous = 1;
        for &end in &ends {
            if end % previous != 0 {
                return None;
            }
            sizes.push(end / previous);
            previous = end;
        }
        let strides = views.iter().map(|view| view.strides_over(&sizes)).collect::<Option<Vec<_>>>()?;
        sizes.reverse();
        Some(Nest { sizes, strides })
    }
}

impl View {
    /// Strides along dimensions of `sizes`, given innermost first, returned outermost first.
    fn strides_over(&self, sizes: &[usize]) -> Option<Vec<i64>> {
        let mut strides = Vec::with_capacity(sizes.len());
        let mut atoms = self.atoms.iter().rev();
        let mut rest = Atom { size: 1, stride: 0 };
        for &size in sizes {
            if rest.size == 1 {
                rest = *atoms.next()?;
            }
            if !rest.size.is_multiple_of(size) {
                return None;
            }
            strides.push(rest.stride);
            rest = Atom { size: rest.size / size, stride: rest.stride * size as i64 };
        }
        strides.reverse();
        Some(strides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims.iter().copied()).unwrap_or_default()
    }

    fn positions(view: &View) -> Vec<i64> {
        view.atoms().iter().fold(vec![view.offset()], |positions, atom| {
            positions.iter().flat_map(|&base| (0..atom.size as i64).map(move |i| base + i * atom.stride)).collect()
        })
    }

    #[test]
    fn heads_of_an_attention_are_a_view() {
        // [B, S, H·D] -> [B, S, H, D] -> [B, H, S, D] -> [B·H, S, D]
        let view = View::dense(shape(&[2, 3, 8])).reshape(shape(&[2, 3, 4, 2]));
        let swapped = view.through(&Transpose { perm: vec![0, 2, 1, 3] }.into(), &shape(&[2, 4, 3, 2]));
        let merged = swapped.map(|view| view.reshape(shape(&[8, 3, 2])));
        let groups = merged.as_ref().and_then(View::groups);
        assert_eq!(groups.map(|groups| groups.len()), Some(3));
        // Back again is dense.
        let back = merged
            .map(|view| view.reshape(shape(&[2, 4, 3, 2])))
            .and_then(|view| view.through(&Transpose { perm: vec![0, 2, 1, 3] }.into(), &shape(&[2, 3, 4, 2])));
        assert_eq!(back.map(|view| view.is_dense()), Some(true));
    }

    #[test]
    fn slices_and_windows_walk_the_right_elements() {
        let slice = Slice { starts: vec![3], steps: vec![-1], sizes: vec![3] };
        let view = View::dense(shape(&[5])).through(&slice.into(), &shape(&[3]));
        assert_eq!(view.map(|view| positions(&view)), Some(vec![3, 2, 1]));
        let window = Window { axis: 0, size: 2, step: 2, dilation: 1 };
        let view = View::dense(shape(&[5])).through(&window.into(), &shape(&[2, 2]));
        assert_eq!(view.map(|view| positions(&view)), Some(vec![0, 1, 2, 3]));
    }

    #[test]
    fn misaligned_dimensions_are_refused_and_aligned_ones_refined() {
        let transposed = View::dense(shape(&[4, 6])).through(&Transpose { perm: vec![1, 0] }.into(), &shape(&[6, 4]));
        let Some(transposed) = transposed else { unreachable!("a dense view transposes") };
        assert!(transposed.reshape(shape(&[8, 3])).groups().is_none());
        let dense = View::dense(shape(&[24]));
        let nest = Nest::refine(&shape(&[24]), &[&transposed, &dense]);
        assert_eq!(nest.map(|nest| (nest.sizes, nest.strides)), Some((vec![6, 4], vec![vec![1, 6], vec![4, 1]])));
    }
}
