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
    atoms: Atoms,
}

/// Most views have few; more lie on the heap.
type Atoms = SmallVec<[Atom; 4]>;

impl View {
    /// The identity: a dense row-major buffer of this shape.
    pub fn dense(shape: Shape) -> Self {
        let mut atoms = Atoms::new();
        match shape.count() {
            1 => {}
            size => atoms.push(Atom { size, stride: 1 }),
        }
        View { shape, offset: 0, atoms }
    }

    /// A view made of atoms, outermost first, whose sizes multiply to the number of `shape`'s elements; it starts at 0.
    pub fn from_atoms(shape: Shape, atoms: impl IntoIterator<Item = Atom>) -> Self {
        View::normalized(shape, 0, atoms.into_iter().collect())
    }

    fn normalized(shape: Shape, offset: i64, atoms: Atoms) -> Self {
        let mut merged = Atoms::new();
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
        let lead = shape.rank().checked_sub(self.shape.rank())?;
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

    /// How the tensor that this view reads, which has `shape`, is found in a dense buffer of this view's own elements.
    /// `None` unless the view reads every element of it exactly once.
    pub fn inverse(&self, shape: Shape) -> Option<View> {
        if self.offset != 0 || shape.count() != self.shape.count() {
            return None;
        }
        if shape.count() == 0 {
            return Some(View::dense(shape));
        }
        let mut place = 1i64;
        let mut places: SmallVec<[(Atom, i64); 6]> = SmallVec::new();
        for &atom in self.atoms.iter().rev() {
            places.push((atom, place));
            place *= atom.size as i64;
        }
        places.sort_by_key(|(atom, _)| atom.stride);
        let mut expected = 1i64;
        for (atom, _) in &places {
            if atom.stride != expected {
                return None;
            }
            expected *= atom.size as i64;
        }
        let atoms = places.into_iter().rev().map(|(atom, place)| Atom { size: atom.size, stride: place });
        Some(View::normalized(shape, 0, atoms.collect()))
    }

    /// This view of a dense tensor, if that tensor is itself read through `place`: from an element of this view straight
    /// to `place`'s buffer. `None` if the two cut the tensor differently.
    pub fn compose(&self, place: &View) -> Option<View> {
        if self.shape.count() == 0 {
            return Some(View::dense(self.shape.clone()));
        }
        // The tensor's index in the digits that the atoms of `place` make, outermost first, and the least and greatest
        // that this view adds to each.
        let mut worth = 1i64;
        let mut digits: SmallVec<[Digit; 6]> = SmallVec::new();
        for &atom in place.atoms.iter().rev() {
            digits.push(Digit { atom, worth, low: 0, high: 0 });
            worth *= atom.size as i64;
        }
        digits.reverse();
        if !(0..worth).contains(&self.offset) {
            return None;
        }
        let mut offset = place.offset;
        let mut rest = self.offset;
        for digit in &mut digits {
            let first = rest / digit.worth;
            rest %= digit.worth;
            offset += first * digit.atom.stride;
            (digit.low, digit.high) = (first, first);
        }
        let mut atoms = Atoms::new();
        for atom in &self.atoms {
            let mut parts: SmallVec<[Atom; 2]> = SmallVec::new();
            let (mut size, mut stride) = (atom.size, atom.stride);
            if stride == 0 {
                atoms.push(*atom);
                continue;
            }
            while size > 1 {
                let digit = digits.iter_mut().find(|digit| digit.worth <= stride.abs())?;
                let (whole, step) = (digit.atom.size, (stride.abs() / digit.worth) as usize);
                if stride % digit.worth != 0 || step >= whole {
                    return None;
                }
                // Steps that stay in this digit; those beyond go on in the next, which must begin where they do.
                let mut taken = size;
                if size > whole.div_ceil(step) {
                    taken = whole / step;
                    if whole % step != 0 || size % taken != 0 {
                        return None;
                    }
                }
                let span = (step * (taken - 1)) as i64 * stride.signum();
                digit.low += span.min(0);
                digit.high += span.max(0);
                parts.push(Atom { size: taken, stride: step as i64 * stride.signum() * digit.atom.stride });
                size /= taken;
                stride *= taken as i64;
            }
            atoms.extend(parts.into_iter().rev());
        }
        // A digit that overflows would carry into the next.
        let carries = digits.iter().any(|digit| digit.low < 0 || digit.high >= digit.atom.size as i64);
        if carries { None } else { Some(View::normalized(self.shape.clone(), offset, atoms)) }
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

/// A digit of a tensor's index, see [`View::compose`].
struct Digit {
    /// The atom of the buffer's view that walks it.
    atom: Atom,
    /// What one step of it adds to the index.
    worth: i64,
    /// The least and the greatest that it becomes.
    low: i64,
    high: i64,
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
        if shape.count() == 0 {
            // Nothing is walked, by any strides.
            return Some(Nest { sizes: shape.to_vec(), strides: vec![vec![0; shape.rank()]; views.len()] });
        }
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
        let nothing = View::dense(shape(&[2, 0]));
        let nest = Nest::refine(&shape(&[2, 0]), &[&nothing]);
        assert_eq!(nest.map(|nest| (nest.sizes, nest.strides)), Some((vec![2, 0], vec![vec![0, 0]])));
    }

    /// Views of a tensor of `dims`: transposed, reshaped, sliced, repeated and windowed in some orders.
    fn some_views(dims: &[usize]) -> Vec<View> {
        let dense = View::dense(shape(dims));
        let perm: Vec<usize> = (0..dims.len()).rev().collect();
        let reversed: Vec<usize> = dims.iter().rev().copied().collect();
        let slice = Slice {
            starts: dims.iter().map(|&dim| dim / 2).collect(),
            steps: dims.iter().enumerate().map(|(axis, _)| if axis == 0 { -1 } else { 1 }).collect(),
            sizes: dims
                .iter()
                .enumerate()
                .map(|(axis, &dim)| if axis == 0 { dim / 2 + 1 } else { dim.div_ceil(2) })
                .collect(),
        };
        let sliced = shape(&slice.sizes);
        let window = Window { axis: 0, size: 2, step: 1, dilation: 1 };
        let mut windowed = vec![dims[0] - 1, 2];
        windowed.extend(&dims[1..]);
        let lead: Vec<usize> = [&[3], dims].concat();
        [
            dense.through(&Transpose { perm }.into(), &shape(&reversed)),
            dense.through(&slice.into(), &sliced),
            dense.through(&window.into(), &shape(&windowed)),
            dense.broadcast(&shape(&lead)),
            Some(dense.reshape(shape(&[dims.iter().product()]))),
            Some(dense),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    #[test]
    fn inverses_lead_back() {
        for dims in [&[4, 6][..], &[2, 3, 5], &[1, 7], &[6]] {
            for view in some_views(dims) {
                let reads_all = view.shape().count() == dims.iter().product::<usize>() && {
                    let mut read = positions(&view);
                    read.sort_unstable();
                    read.into_iter().eq(0..view.shape().count() as i64)
                };
                let Some(inverse) = view.inverse(shape(dims)) else {
                    // Nothing reversed is in the list that still reads everything.
                    assert!(!reads_all, "{view:?}");
                    continue;
                };
                assert!(reads_all, "{view:?}");
                let (there, back) = (positions(&view), positions(&inverse));
                assert!(there.iter().enumerate().all(|(i, &at)| back[at as usize] == i as i64), "{view:?}");
                assert_eq!(view.compose(&inverse).map(|view| view.is_dense()), Some(true));
            }
        }
    }

    #[test]
    fn views_of_views_compose_or_are_refused() {
        let mut composed = 0;
        for dims in [&[4, 6][..], &[2, 3, 5], &[4, 4], &[12]] {
            for outer in some_views(dims) {
                for place in some_views(dims).into_iter().filter_map(|view| view.inverse(shape(dims))) {
                    let Some(view) = outer.compose(&place) else { continue };
                    composed += 1;
                    let through = positions(&place);
                    let expected: Vec<i64> = positions(&outer).into_iter().map(|at| through[at as usize]).collect();
                    assert_eq!(positions(&view), expected, "{outer:?} {place:?}");
                    assert_eq!(view.shape(), outer.shape());
                }
            }
        }
        assert!(composed > 40, "{composed}");
        // Six elements in a row of a tensor that lies transposed, as four columns of six.
        let place = View::from_atoms(shape(&[24]), [Atom { size: 6, stride: 1 }, Atom { size: 4, stride: 6 }]);
        let six = Slice { starts: vec![0], steps: vec![1], sizes: vec![6] };
        let row = View::dense(shape(&[24])).through(&six.into(), &shape(&[6]));
        assert_eq!(row.and_then(|row| row.compose(&place)), None);
    }
}
