//! The index spaces of a matrix product: batch, M, N and K, each refined into dimensions along which everything that walks
//! it has one stride.

use smallvec::SmallVec;
use tcc_ir::ops::MatMul;
use tcc_ir::{Atom, Nest, Shape, View};

use super::Stored;
use super::tile::Tile;

/// Places of the factors among the operands of a product.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

/// One index space of a product and the strides of what walks it, in elements.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    pub sizes: Vec<usize>,
    /// By operand: A, B, then results, then operands of the epilogue. Those that do not walk this space have none.
    pub strides: Vec<Vec<i64>>,
}

impl Space {
    pub fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Takes out the dimensions that `moves` names and gives them to the front of `other`.
    pub fn give(&mut self, other: &mut Space, moves: impl Fn(&Space, usize) -> bool) {
        let moved: Vec<usize> = (0..self.sizes.len()).filter(|&dim| moves(self, dim)).collect();
        let pick = |values: &[usize], chosen: bool| -> Vec<usize> {
            (0..values.len()).filter(|dim| moved.contains(dim) == chosen).map(|dim| values[dim]).collect()
        };
        let pick_strides = |values: &[i64], chosen: bool| -> Vec<i64> {
            (0..values.len()).filter(|dim| moved.contains(dim) == chosen).map(|dim| values[dim]).collect()
        };
        other.sizes.splice(0..0, pick(&self.sizes, true));
        for (from, to) in self.strides.iter().zip(&mut other.strides) {
            to.splice(0..0, pick_strides(from, true));
        }
        self.sizes = pick(&self.sizes, false);
        self.strides.iter_mut().for_each(|strides| *strides = pick_strides(strides, false));
    }

    /// The one stride by which an operand walks all of the space, if there is one.
    pub fn single_stride(&self, which: usize) -> Option<i64> {
        let mut single = None;
        for (&size, &stride) in self.sizes.iter().zip(&self.strides[which]).filter(|(size, _)| **size != 1).rev() {
            match &mut single {
                None => single = Some((stride, stride * size as i64)),
                Some((_, next)) if *next == stride => *next = stride * size as i64,
                Some(_) => return None,
            }
        }
        Some(single.map_or(0, |(stride, _)| stride))
    }
}

pub(super) fn offset(tile: &Tile, space: &Space, which: usize) -> i64 {
    tile.offset(&space.strides[which])
}

/// Refines the four spaces for A, B, the results and the operands of the epilogue, in this order, all of which broadcast to
/// `result`; and a fifth for the columns of those that `is_narrow` names, which broadcast to `narrow` instead. On failure,
/// which of `operands` is in the way.
pub(super) fn refine(
    operands: &[&Stored],
    op: &MatMul,
    batch: &Shape,
    [m, n, k]: [usize; 3],
    result: &Shape,
    (narrow, is_narrow): (Option<&Shape>, &[bool]),
) -> Result<[Space; 5], usize> {
    let failed = |which: usize| move || which;
    let rank = batch.rank();
    // The parts of each operand's view: batch, rows, columns.
    let part = |view: &View, lead: &Shape, rows: usize, columns: usize| -> Option<[View; 3]> {
        let mut dims = lead.to_vec();
        dims.extend([rows, columns]);
        let wide = view.broadcast(&Shape::new(dims).ok()?)?;
        let groups = wide.groups()?;
        let sub =
            |shape: Shape, groups: &[SmallVec<[Atom; 2]>]| View::from_atoms(shape, groups.iter().flatten().copied());
        Some([
            sub(lead.clone(), &groups[..rank]),
            sub(Shape::vector(rows), &groups[rank..=rank]),
            sub(Shape::vector(columns), &groups[rank + 1..]),
        ])
    };
    let (a_rows, a_columns) = if op.transpose_a { (k, m) } else { (m, k) };
    let (b_rows, b_columns) = if op.transpose_b { (n, k) } else { (k, n) };
    let [a_batch, a0, a1] = part(&operands[A].view, batch, a_rows, a_columns).ok_or_else(failed(A))?;
    let [b_batch, b0, b1] = part(&operands[B].view, batch, b_rows, b_columns).ok_or_else(failed(B))?;
    let (a_m, a_k) = if op.transpose_a { (a1, a0) } else { (a0, a1) };
    let (b_k, b_n) = if op.transpose_b { (b1, b0) } else { (b0, b1) };
    let mut outs = Vec::with_capacity(operands.len() - 2);
    for (index, operand) in operands[2..].iter().enumerate() {
        let result = narrow.filter(|_| is_narrow[index + 2]).unwrap_or(result);
        let columns = result.last().copied().filter(|_| is_narrow[index + 2]).unwrap_or(n);
        let wide = operand.view.broadcast(result).ok_or_else(failed(index + 2))?;
        outs.push(part(&wide, batch, m, columns).ok_or_else(failed(index + 2))?);
    }
    // Views are added one by one, so that the first that does not interleave is known.
    let space =
        |shape: &Shape, a: Option<&View>, b: Option<&View>, outs: Vec<(usize, &View)>| -> Result<Space, usize> {
            let mut views: Vec<&View> = Vec::new();
            let mut order = Vec::new();
            let named = [(A, a), (B, b)].into_iter().filter_map(|(which, view)| view.map(|view| (which, view)));
            for (which, view) in named.chain(outs) {
                views.push(view);
                order.push(which);
                if Nest::refine(shape, &views).is_none() {
                    return Err(which);
                }
            }
            let nest = Nest::refine(shape, &views).ok_or(A)?;
            let mut strides = vec![vec![0; nest.sizes.len()]; operands.len()];
            for (which, walked) in order.into_iter().zip(nest.strides) {
                strides[which] = walked;
            }
            Ok(Space { sizes: nest.sizes, strides })
        };
    let numbered = || outs.iter().enumerate().map(|(index, parts)| (B + 1 + index, parts));
    let outs_of = |space: usize| numbered().map(|(which, parts)| (which, &parts[space])).collect::<Vec<_>>();
    let columns_of = |narrow: bool| -> Vec<(usize, &View)> {
        let chosen = numbered().filter(|&(which, _)| is_narrow[which] == narrow);
        chosen.map(|(which, parts)| (which, &parts[2])).collect()
    };
    let few = narrow.and_then(|shape| shape.last().copied()).unwrap_or(1);
    Ok([
        space(batch, Some(&a_batch), Some(&b_batch), outs_of(0))?,
        space(&Shape::vector(m), Some(&a_m), None, outs_of(1))?,
        space(&Shape::vector(n), None, Some(&b_n), columns_of(false))?,
        space(&Shape::vector(k), Some(&a_k), Some(&b_k), Vec::new())?,
        space(&Shape::vector(few), None, None, columns_of(true))?,
    ])
}
