//! Where the rows of heads lie: each in some lanes of the rows of a matrix.

use tcc_ir::{Shape as Dims, ValueId, View};

use super::super::access::offsets;
use super::super::{Lease, Lowering};
use crate::target::TargetError;

/// Rows of heads, each at a row and from a column on of a matrix.
pub(super) struct Windows {
    /// The value that is the matrix, and how it is read as one.
    pub root: ValueId,
    pub view: View,
    /// For each batch, head and row.
    at: Vec<(usize, usize)>,
    rows: usize,
}

impl Windows {
    /// Row and first column of a row of a head, heads of all batches counted.
    pub fn at(&self, head: usize, row: usize) -> (usize, usize) {
        self.at[head * self.rows + row]
    }
}

/// The windows in which an operand `[batch, heads, rows, width]` lies in rows of what it views; `None` if it does not.
fn seen_through(view: &View, columns: usize) -> Option<Vec<(usize, usize)>> {
    let width = view.shape().last().copied()?;
    let groups = view.groups()?;
    let (last, leading) = groups.split_last()?;
    let contiguous = match last[..] {
        [] => true,
        [atom] => atom.stride == 1,
        _ => false,
    };
    let at = offsets(view.offset(), leading).into_iter().map(|offset| {
        let offset = usize::try_from(offset).ok()?;
        let (row, column) = (offset / columns, offset % columns);
        (column + width <= columns).then_some((row, column))
    });
    if contiguous { at.collect() } else { None }
}

impl Lowering<'_> {
    /// The windows of an operand, as it lies.
    pub(super) fn windows(&self, value: ValueId) -> Option<Windows> {
        if self.is_constant(value) {
            return None;
        }
        let access = self.plan.access(value);
        let shape = self.graph.shape(access.root);
        let (_, columns) = crate::lpu::layout::Layout::matrix(shape);
        let at = if columns > 1 { seen_through(&access.view, columns) } else { None }?;
        let dims = self.graph.shape(value);
        let rows = dims[dims.rank() - 2];
        Some(Windows { root: access.root, view: View::dense(shape.clone()), at, rows })
    }

    /// The windows of an operand with rows of its own.
    pub(super) fn own_windows(&self, value: ValueId) -> Windows {
        let dims = self.graph.shape(value);
        let (rows, width) = (dims[dims.rank() - 2], dims[dims.rank() - 1]);
        let count = dims.count() / width.max(1);
        let access = self.plan.access(value);
        let (root, view) = match self.is_constant(value) {
            true => (value, View::dense(dims.clone())),
            false => (access.root, access.view.clone()),
        };
        let view = Dims::new([count, width]).map_or(view.clone(), |shape| view.reshape(shape));
        Windows { root, view, at: (0..count).map(|row| (row, 0)).collect(), rows }
    }

    /// The matrix of windows, of any type.
    pub(super) fn matrix(&mut self, windows: &Windows) -> Result<Lease, TargetError> {
        if windows.view.is_dense() && !self.is_constant(windows.root) {
            return self.materialize(windows.root);
        }
        self.dense(windows.root, &windows.view)
    }
}
