//! Movement: views that undo each other, views that can be taken from an operand instead of from a result, and indices
//! that only pick what a view would.

use egg::Id;
use tcc_ir::ops::{Binary, Broadcast, Cast, Concat, MatMul, Reshape, Slice, Transpose};
use tcc_ir::{DType, Op, Shape};

use crate::egraph::{Expr, Rule, Site, Terms};

/// The rules of this topic.
pub const RULES: &[Rule] = &[
    Rule { name: "reshape of a reshape", rewrite: reshape_of_reshape },
    Rule { name: "transpose of a transpose", rewrite: transpose_of_transpose },
    Rule { name: "transpose of single extents", rewrite: transpose_of_single_extents },
    Rule { name: "view that changes nothing", rewrite: nothing_changes },
    Rule { name: "transpose into a contraction", rewrite: transpose_into_contraction },
    Rule { name: "flattened rows of a contraction", rewrite: flattened_rows },
    Rule { name: "reshape after element-wise work", rewrite: reshape_after_elementwise },
    Rule { name: "broadcast after element-wise work", rewrite: broadcast_after_elementwise },
    Rule { name: "broadcast operand", rewrite: broadcast_operand },
    Rule { name: "slice of a concatenation", rewrite: slice_of_concat },
    Rule { name: "slice before element-wise work", rewrite: slice_before_elementwise },
    Rule { name: "slice before a reshape", rewrite: slice_before_reshape },
    Rule { name: "slice of a slice", rewrite: slice_of_slice },
    Rule { name: "gather of everything", rewrite: gather_of_everything },
    Rule { name: "gather at regular steps", rewrite: gather_at_regular_steps },
    Rule { name: "narrowed indices", rewrite: narrowed_indices },
];

fn reshape_to(shape: &Shape, x: impl Into<Expr>) -> Expr {
    Expr::apply(Reshape { shape: shape.clone() }, [x.into()])
}

/// Only the last of two reshapes counts.
fn reshape_of_reshape(site: &Site<'_>) -> Vec<Expr> {
    let Op::Reshape(reshape) = site.op else { return Vec::new() };
    let terms = site.terms;
    terms
        .applications(site.operands[0])
        .filter_map(|(op, operands)| match op {
            Op::Reshape(_) if terms.shape(operands[0]) == &reshape.shape => Some(operands[0].into()),
            Op::Reshape(_) => Some(reshape_to(&reshape.shape, operands[0])),
            _ => None,
        })
        .collect()
}

/// Two transposes are one.
fn transpose_of_transpose(site: &Site<'_>) -> Vec<Expr> {
    let Op::Transpose(outer) = site.op else { return Vec::new() };
    site.terms
        .applications(site.operands[0])
        .filter_map(|(op, operands)| match op {
            Op::Transpose(inner) => {
                let perm: Vec<usize> = outer.perm.iter().map(|&axis| inner.perm[axis]).collect();
                Some(transposed(operands[0], perm))
            }
            _ => None,
        })
        .collect()
}

/// A transpose, or the value itself where nothing is turned.
fn transposed(x: Id, perm: Vec<usize>) -> Expr {
    if perm.iter().copied().eq(0..perm.len()) { x.into() } else { Expr::apply(Transpose { perm }, [x.into()]) }
}

/// A transpose that leaves the order of all extents above 1 is a reshape.
fn transpose_of_single_extents(site: &Site<'_>) -> Vec<Expr> {
    let Op::Transpose(transpose) = site.op else { return Vec::new() };
    let shape = site.terms.shape(site.operands[0]);
    let mut long = transpose.perm.iter().copied().filter(|&axis| shape[axis] != 1);
    let mut last = long.next();
    let ordered = long.all(|axis| {
        let before = last.replace(axis);
        before < Some(axis)
    });
    if ordered { vec![reshape_to(site.terms.shape(site.class), site.operands[0])] } else { Vec::new() }
}

/// Views that keep everything as it is.
fn nothing_changes(site: &Site<'_>) -> Vec<Expr> {
    let terms = site.terms;
    let unchanged = match site.op {
        Op::Reshape(_) | Op::Broadcast(_) => terms.shape(site.class) == terms.shape(site.operands[0]),
        Op::Transpose(transpose) => transpose.perm.iter().copied().eq(0..transpose.perm.len()),
        Op::Slice(slice) => {
            terms.shape(site.class) == terms.shape(site.operands[0])
                && slice.sizes.iter().zip(&slice.steps).all(|(&size, &step)| size <= 1 || step == 1)
        }
        Op::Concat(_) => site.operands.len() == 1,
        _ => false,
    };
    if unchanged { vec![site.operands[0].into()] } else { Vec::new() }
}

/// A transpose that turns the last two axes of an operand is a flag of the contraction.
fn transpose_into_contraction(site: &Site<'_>) -> Vec<Expr> {
    let (Op::MatMul(op), &[a, b]) = (site.op, site.operands) else { return Vec::new() };
    let terms = site.terms;
    let mut found = Vec::new();
    let mut turn = |operand: Id, other: Id, first: bool| {
        for (inner, operands) in terms.applications(operand) {
            let Op::Transpose(transpose) = inner else { continue };
            let mut perm = transpose.perm.clone();
            let rank = perm.len();
            // Towards the last axis staying last, so that the rule does not go back and forth.
            if perm[rank - 1] == rank - 1 || perm[rank - 2] != rank - 1 {
                continue;
            }
            perm.swap(rank - 2, rank - 1);
            let source = transposed(operands[0], perm);
            found.push(if first {
                Expr::apply(MatMul { transpose_a: !op.transpose_a, ..*op }, [source, other.into()])
            } else {
                Expr::apply(MatMul { transpose_b: !op.transpose_b, ..*op }, [other.into(), source])
            });
        }
    };
    turn(a, b, true);
    turn(b, a, false);
    found
}

/// The rows of a product with a matrix may be those of several axes: `reshape(x) W = reshape(x W)`. Where the columns are
/// several axes too, as those of attention heads, these stay one: `reshape(x) W = reshape(reshape'(x) W)`.
fn flattened_rows(site: &Site<'_>) -> Vec<Expr> {
    let (Op::MatMul(op), &[a, b]) = (site.op, site.operands) else { return Vec::new() };
    let terms = site.terms;
    if op.transpose_a || terms.rank(b) != 2 {
        return Vec::new();
    }
    let shape = terms.shape(site.class);
    let mut found = Vec::new();
    for (inner, operands) in terms.applications(a) {
        let (Op::Reshape(_), &[x]) = (inner, operands) else { continue };
        // Of several forms the one with most axes is where the others meet.
        if terms.rank(x) > terms.rank(a) && terms.shape(x).last() == terms.shape(a).last() {
            found.push(reshape_to(shape, Expr::apply(*op, [x.into(), b.into()])));
        } else if let Some(rows) = joined_columns(terms.shape(x), terms.shape(a)) {
            found.push(reshape_to(shape, Expr::apply(*op, [reshape_to(&rows, x), b.into()])));
        }
    }
    found
}

/// The shape `of` with its last axes as one, if these are the last axis of `flat`, which has fewer axes then.
fn joined_columns(of: &Shape, flat: &Shape) -> Option<Shape> {
    let &columns = flat.last()?;
    let lead = (1..of.rank()).rev().find(|&lead| of[lead..].iter().product::<usize>() == columns)?;
    let rows = of[..lead].iter().copied().chain([columns]);
    if lead + 1 > flat.rank() && lead + 1 < of.rank() { Shape::new(rows).ok() } else { None }
}

/// Whether element-wise operands other than `x` mean the same for `reshape(x)` of shape `to` as for x of shape `from`:
/// single numbers, and operands along the last axis, if that stays.
fn survives_reshape(terms: Terms<'_>, other: Id, from: &Shape, to: &Shape) -> bool {
    let shape = terms.shape(other);
    shape.count() == 1 && shape.rank() <= from.rank().min(to.rank())
        || (shape.rank() == 1 && from.last() == to.last() && from.last().is_some())
}

fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_))
}

/// `f(reshape(x), c) = reshape(f(x, c))`.
fn reshape_after_elementwise(site: &Site<'_>) -> Vec<Expr> {
    if !is_elementwise(site.op) || site.terms.is_constant(site.class) {
        return Vec::new();
    }
    let terms = site.terms;
    let to = terms.shape(site.class);
    let mut found = Vec::new();
    for (place, &operand) in site.operands.iter().enumerate() {
        if terms.shape(operand) != to || terms.is_constant(operand) {
            continue;
        }
        for (inner, sources) in terms.applications(operand) {
            let (Op::Reshape(_), &[source]) = (inner, sources) else { continue };
            let from = terms.shape(source);
            // Towards the form that has more axes: all forms meet there.
            if from.rank() <= to.rank() {
                continue;
            }
            // Another operand may be reshaped from the same shape as well.
            let forms: Option<Vec<Expr>> = site
                .operands
                .iter()
                .enumerate()
                .map(|(other_place, &other)| {
                    if other_place == place {
                        Some(source.into())
                    } else if survives_reshape(terms, other, from, to) {
                        Some(other.into())
                    } else if terms.shape(other) == to {
                        Some(reshape_to(from, other))
                    } else {
                        None
                    }
                })
                .collect();
            if let Some(forms) = forms {
                found.push(reshape_to(to, Expr::Apply(site.op.clone(), forms)));
            }
        }
    }
    found
}

/// `f(broadcast(x), c) = broadcast(f(x, c))` where nothing else is as wide.
fn broadcast_after_elementwise(site: &Site<'_>) -> Vec<Expr> {
    if !is_elementwise(site.op) || site.terms.is_constant(site.class) {
        return Vec::new();
    }
    let terms = site.terms;
    let wide = terms.shape(site.class);
    let mut found = Vec::new();
    for (place, &operand) in site.operands.iter().enumerate() {
        for (inner, sources) in terms.applications(operand) {
            let (Op::Broadcast(_), &[source]) = (inner, sources) else { continue };
            let narrow = terms.shape(source);
            let others = site.operands.iter().enumerate().filter(|&(other, _)| other != place);
            if !others.clone().all(|(_, &other)| terms.shape(other).broadcasts_to(narrow)) || narrow == wide {
                continue;
            }
            let operands = site.operands.iter().enumerate();
            let operands = operands.map(|(at, &id)| if at == place { source } else { id }.into()).collect();
            let narrow = Expr::Apply(site.op.clone(), operands);
            found.push(Expr::apply(Broadcast { shape: wide.clone() }, [narrow]));
        }
    }
    found
}

/// Element-wise operators broadcast by themselves.
fn broadcast_operand(site: &Site<'_>) -> Vec<Expr> {
    if !matches!(site.op, Op::Binary(Binary(_)) | Op::Select(_)) {
        return Vec::new();
    }
    let terms = site.terms;
    let wide = terms.shape(site.class);
    let mut found = Vec::new();
    for (place, &operand) in site.operands.iter().enumerate() {
        for (inner, sources) in terms.applications(operand) {
            let (Op::Broadcast(_), &[source]) = (inner, sources) else { continue };
            let operands: Vec<Id> =
                site.operands.iter().enumerate().map(|(at, &id)| if at == place { source } else { id }).collect();
            let reached = operands.iter().try_fold(Shape::scalar(), |shape, &id| shape.broadcast(terms.shape(id)));
            if reached.is_ok_and(|shape| &shape == wide) {
                found.push(Expr::Apply(site.op.clone(), operands.into_iter().map(Expr::from).collect()));
            }
        }
    }
    found
}

/// A slice that lies within one part of a concatenation.
fn slice_of_concat(site: &Site<'_>) -> Vec<Expr> {
    let Op::Slice(slice) = site.op else { return Vec::new() };
    let terms = site.terms;
    let mut found = Vec::new();
    for (op, parts) in terms.applications(site.operands[0]) {
        let Op::Concat(Concat { axis }) = *op else { continue };
        let (start, size, step) = (slice.starts[axis], slice.sizes[axis], slice.steps[axis]);
        if size == 0 || (step != 1 && size > 1) {
            continue;
        }
        let mut begin = 0;
        for &part in parts {
            let extent = terms.shape(part)[axis];
            if begin <= start && start + size <= begin + extent {
                let mut inner = slice.clone();
                inner.starts[axis] = start - begin;
                found.push(Expr::apply(inner, [part.into()]));
                break;
            }
            begin += extent;
        }
    }
    found
}

/// `slice(f(x)) = f(slice(x))` for functions of one operand that others do not need whole: half of an angle's cosine.
fn slice_before_elementwise(site: &Site<'_>) -> Vec<Expr> {
    let Op::Slice(slice) = site.op else { return Vec::new() };
    let terms = site.terms;
    let mut found = Vec::new();
    for (op, operands) in terms.applications(site.operands[0]) {
        match (op, operands) {
            (Op::Unary(_) | Op::Cast(_), &[x]) => {
                found.push(Expr::Apply(op.clone(), vec![Expr::apply(slice.clone(), [x.into()])]));
            }
            (Op::Binary(_), &[x, y]) => {
                let whole = terms.shape(site.operands[0]);
                for (x, y, first) in [(x, y, true), (y, x, false)] {
                    if terms.number(y).is_some() && terms.is_single(y) && terms.shape(x) == whole {
                        let part = Expr::apply(slice.clone(), [x.into()]);
                        let operands = if first { vec![part, y.into()] } else { vec![y.into(), part] };
                        found.push(Expr::Apply(op.clone(), operands));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// `slice(reshape(x)) = reshape(slice(x))` where the slice cuts a last axis that the reshape keeps.
fn slice_before_reshape(site: &Site<'_>) -> Vec<Expr> {
    let Op::Slice(slice) = site.op else { return Vec::new() };
    let terms = site.terms;
    let whole = terms.shape(site.operands[0]);
    let rank = whole.rank();
    if rank == 0 || slice.cut_axis(whole) != Some(rank - 1) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (op, operands) in terms.applications(site.operands[0]) {
        let (Op::Reshape(_), &[x]) = (op, operands) else { continue };
        let from = terms.shape(x);
        if from.last() != whole.last() || from.rank() >= rank {
            continue;
        }
        let mut inner = Slice { starts: vec![0; from.rank()], steps: vec![1; from.rank()], sizes: from.to_vec() };
        let last = from.rank() - 1;
        inner.starts[last] = slice.starts[rank - 1];
        inner.sizes[last] = slice.sizes[rank - 1];
        found.push(reshape_to(terms.shape(site.class), Expr::apply(inner, [x.into()])));
    }
    found
}

/// Two slices are one.
fn slice_of_slice(site: &Site<'_>) -> Vec<Expr> {
    let Op::Slice(outer) = site.op else { return Vec::new() };
    site.terms
        .applications(site.operands[0])
        .filter_map(|(op, operands)| {
            let Op::Slice(inner) = op else { return None };
            let rank = outer.sizes.len();
            let start = |axis: usize| inner.starts[axis] as i64 + outer.starts[axis] as i64 * inner.steps[axis];
            let slice = Slice {
                starts: (0..rank).map(|axis| usize::try_from(start(axis)).ok()).collect::<Option<_>>()?,
                steps: (0..rank).map(|axis| outer.steps[axis].checked_mul(inner.steps[axis])).collect::<Option<_>>()?,
                sizes: outer.sizes.clone(),
            };
            (!slice.sizes.contains(&0)).then(|| Expr::apply(slice, [operands[0].into()]))
        })
        .collect()
}

/// Constant indices that name every slice in order are a reshape.
fn gather_of_everything(site: &Site<'_>) -> Vec<Expr> {
    let terms = site.terms;
    let counts_up = |indices: Id, extents: &[usize]| {
        let values = terms.value(indices).and_then(|tensor| tensor.to_i64s().ok().flatten());
        let depth = extents.len();
        let count: usize = extents.iter().product();
        values.is_some_and(|values| {
            values.len() == count * depth
                && values.chunks(depth).enumerate().all(|(row, tuple)| {
                    let mut rest = row;
                    (0..depth).rev().all(|axis| {
                        let index = rest % extents[axis];
                        rest /= extents[axis];
                        tuple[axis] == index as i64
                    })
                })
        })
    };
    let all = match (site.op, site.operands) {
        (Op::Gather(gather), &[data, indices]) => counts_up(indices, &[terms.shape(data)[gather.axis]]),
        (Op::GatherNd(gather), &[data, indices]) if gather.batch_dims == 0 => {
            let depth = terms.shape(indices).last().copied().unwrap_or(0);
            depth > 0 && counts_up(indices, &terms.shape(data)[..depth])
        }
        _ => false,
    };
    if all { vec![reshape_to(terms.shape(site.class), site.operands[0])] } else { Vec::new() }
}

/// Constant indices that are evenly spaced name what a slice does.
fn gather_at_regular_steps(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Gather(gather), &[data, indices]) = (site.op, site.operands) else { return Vec::new() };
    let terms = site.terms;
    let shape = terms.shape(data);
    let extent = shape[gather.axis] as i64;
    let values = terms.value(indices).and_then(|tensor| tensor.to_i64s().ok().flatten());
    let Some(places) = values.map(|values| values.iter().map(|&at| if at < 0 { at + extent } else { at }).collect())
    else {
        return Vec::new();
    };
    let places: Vec<i64> = places;
    let step = if let [first, second, ..] = places[..] { second - first } else { 1 };
    let regular = places.windows(2).all(|pair| pair[1] - pair[0] == step);
    if step == 0 || !regular || places.is_empty() || !places.iter().all(|place| (0..extent).contains(place)) {
        return Vec::new();
    }
    let mut slice = Slice { starts: vec![0; shape.rank()], steps: vec![1; shape.rank()], sizes: shape.to_vec() };
    (slice.starts[gather.axis], slice.steps[gather.axis]) = (places[0] as usize, step);
    slice.sizes[gather.axis] = places.len();
    vec![reshape_to(terms.shape(site.class), Expr::apply(slice, [data.into()]))]
}

/// Indices need not be narrowed before a gather: `gather(x, cast_i32(i)) = gather(x, i)`. An index that 32 bits do not hold
/// names nothing in either form, unless it wraps around to one that does: then the second form, which says that it is out
/// of range, is the better one.
fn narrowed_indices(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Gather(gather), &[data, indices]) = (site.op, site.operands) else { return Vec::new() };
    let terms = site.terms;
    let wide = terms.applications(indices).filter(|(op, operands)| {
        matches!(op, Op::Cast(Cast { to: DType::I32 })) && terms.dtype(operands[0]) == DType::I64
    });
    wide.map(|(_, operands)| Expr::apply(*gather, [data.into(), operands[0].into()])).collect()
}
