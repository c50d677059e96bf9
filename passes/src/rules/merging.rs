//! Merging: contractions of one value with several constant matrices are slices of one contraction.
//!
//! Matrices that follow from integers stay such: their integers and scales are put together, and not the floats, so that whoever
//! reads few bits as they are does so behind a merged contraction too.

use std::collections::BTreeMap;

use egg::Id;
use tcc_ir::ops::{Binary, BinaryFn, Concat, Dequantize, MatMul, Reshape, Slice};
use tcc_ir::{DType, Op, Shape, Tensor};

use crate::egraph::{Expr, GlobalRule, Match, Term, Terms};

/// The rules of this topic.
pub const RULES: &[GlobalRule] = &[GlobalRule { name: "sibling contractions", rewrite: sibling_contractions }];

/// One of several contractions of the same value.
struct Sibling {
    class: Id,
    weights: Id,
    columns: usize,
    /// The sum with a constant bias for each column, if there is one.
    biased: Option<(Id, Id)>,
}

/// `x W₁, x W₂, … = slices of x [W₁ W₂ …]`, and the same with biases.
fn sibling_contractions(terms: Terms<'_>) -> Vec<Match> {
    let mut classes: Vec<Id> = terms.0.classes().map(|class| class.id).collect();
    classes.sort_unstable();
    let biases = biases(terms, &classes);
    let mut families: BTreeMap<(Id, MatMul, usize, bool), Vec<Sibling>> = BTreeMap::new();
    // Weights as the model has them; others were made from them, by this rule too.
    let given = |id: Id| {
        let is_given = |term: &Term| matches!(term, Term::Leaf(leaf) if terms.0.analysis.leaf(*leaf).given);
        terms.0[id].nodes.iter().any(is_given)
    };
    for &class in &classes {
        for (op, operands) in terms.applications(class) {
            let (Op::MatMul(op), &[x, weights]) = (op, operands) else { continue };
            let own = terms.is_constant(weights) && terms.rank(weights) == 2 && !terms.is_constant(x);
            if !own || op.transpose_a || !terms.dtype(x).is_float() || terms.rank(x) < 2 {
                continue;
            }
            let (k, columns) = (terms.shape(x).last().copied().unwrap_or(0), terms.shape(class).last().copied());
            let sibling = Sibling {
                class,
                weights: terms.0.find(weights),
                columns: columns.unwrap_or(0),
                biased: biases.get(&class).copied(),
            };
            let is_given = given(sibling.weights);
            if is_given || dequantized(terms, sibling.weights, column_axis(*op)).is_some() {
                families.entry((terms.0.find(x), *op, k, is_given)).or_default().push(sibling);
            }
        }
    }
    let mut found = Vec::new();
    for ((x, op, _, is_given), mut siblings) in families {
        siblings.retain(|sibling| sibling.columns > 0);
        // Of several forms of one contraction one is enough.
        siblings.dedup_by_key(|sibling| sibling.class);
        if siblings.len() > 1 {
            let weights: Vec<Id> = siblings.iter().map(|sibling| sibling.weights).collect();
            let axis = column_axis(op);
            let weights = match is_given {
                true => Some(Expr::Apply(Concat { axis }.into(), weights.into_iter().map(Expr::Class).collect())),
                false => of_few_bits(terms, &weights, axis),
            };
            if let Some(weights) = weights {
                merge(terms, x, op, weights, &siblings, &mut found);
            }
        }
    }
    found
}

/// For every class that gets a constant for each of its columns added: the sum and the constant.
fn biases(terms: Terms<'_>, classes: &[Id]) -> BTreeMap<Id, (Id, Id)> {
    let mut biases = BTreeMap::new();
    for &sum in classes {
        for (product, bias) in terms.either(sum, BinaryFn::Add) {
            let columns = terms.shape(product).last();
            if terms.is_constant(bias)
                && !terms.is_constant(product)
                && terms.rank(bias) == 1
                && terms.shape(bias).last() == columns
                && terms.shape(product) == terms.shape(sum)
            {
                biases.entry(terms.0.find(product)).or_insert((sum, bias));
            }
        }
    }
    biases
}

/// The axis of matrices that has the columns of a contraction.
fn column_axis(op: MatMul) -> usize {
    if op.transpose_b { 0 } else { 1 }
}

/// A matrix that follows from integers.
struct Dequantized<'a> {
    op: Dequantize,
    /// Integers, scales, and zero points if there are any.
    operands: &'a [Id],
    /// The axis of the integers that has the columns.
    axis: usize,
}

/// How a matrix follows from integers in another shape, if it does as the model has it.
fn dequantized(terms: Terms<'_>, matrix: Id, columns: usize) -> Option<Dequantized<'_>> {
    let shape = terms.shape(matrix);
    let behind = |shape: &[usize], axis: usize| shape[axis + 1..].iter().product::<usize>();
    for (reshape, source) in terms.applications(matrix) {
        let (Op::Reshape(_), &[source]) = (reshape, source) else { continue };
        let apart = terms.shape(source);
        let is_same = |&at: &usize| apart[at] == shape[columns] && behind(apart, at) == behind(shape, columns);
        let Some(axis) = (0..apart.rank()).find(is_same) else { continue };
        for (op, operands) in terms.applications(source) {
            let Op::Dequantize(op) = op else { continue };
            let integers = operands[0];
            // What this rule made is not taken for more of the same.
            if !terms.applications(integers).any(|(op, _)| matches!(op, Op::Concat(_))) {
                return Some(Dequantized { op: *op, operands, axis });
            }
        }
    }
    None
}

/// Matrices beside each other along an axis, of integers beside each other, if they follow from such in one way.
fn of_few_bits(terms: Terms<'_>, matrices: &[Id], columns: usize) -> Option<Expr> {
    let parts = matrices.iter().map(|&matrix| dequantized(terms, matrix, columns)).collect::<Option<Vec<_>>>()?;
    let Dequantized { op, axis, operands } = parts.first()?;
    let alike = |a: Id, b: Id| {
        let (a, b) = (terms.ty(a), terms.ty(b));
        let mut dims = a.shape.iter().zip(b.shape.iter()).enumerate();
        a.dtype == b.dtype && a.shape.rank() == b.shape.rank() && dims.all(|(at, (a, b))| at == *axis || a == b)
    };
    let rank = terms.rank(operands[0]);
    let put_together = |place: usize| {
        let first = operands[place];
        let is_shared =
            terms.shape(first).count() == 1 && parts.iter().all(|part| terms.same(part.operands[place], first));
        let has_columns = |part: &Dequantized<'_>| {
            let own = part.operands[place];
            terms.rank(own) == rank
                && terms.shape(own)[*axis] == terms.shape(part.operands[0])[*axis]
                && alike(own, first)
        };
        if is_shared {
            Some(Expr::Class(first))
        } else if parts.iter().all(has_columns) {
            let all = parts.iter().map(|part| Expr::Class(part.operands[place])).collect();
            Some(Expr::Apply(Concat { axis: *axis }.into(), all))
        } else {
            None
        }
    };
    if !parts.iter().all(|part| part.op == *op && part.axis == *axis) {
        return None;
    }
    let operands = (0..operands.len()).map(put_together).collect::<Option<Vec<_>>>()?;
    let mut dims = terms.shape(matrices[0]).to_vec();
    dims[columns] = matrices.iter().map(|&matrix| terms.shape(matrix)[columns]).sum();
    let shape = Shape::new(dims).ok()?;
    Some(Expr::apply(Reshape { shape }, [Expr::Apply((*op).into(), operands)]))
}

fn merge(terms: Terms<'_>, x: Id, op: MatMul, weights: Expr, siblings: &[Sibling], found: &mut Vec<Match>) {
    let product = Expr::apply(op, [x.into(), weights]);
    let merged = if siblings.iter().any(|sibling| sibling.biased.is_some()) {
        let bias = |sibling: &Sibling| match sibling.biased {
            Some((_, bias)) => Expr::Class(bias),
            None => Expr::Constant(zeros(terms.dtype(x), sibling.columns)),
        };
        let bias = Expr::Apply(Concat { axis: 0 }.into(), siblings.iter().map(bias).collect());
        Expr::apply(Binary(BinaryFn::Add), [product, bias])
    } else {
        product
    };
    let mut start = 0;
    for sibling in siblings {
        let class = sibling.biased.map_or(sibling.class, |(sum, _)| sum);
        let shape = terms.shape(class);
        let mut starts = vec![0; shape.rank()];
        starts[shape.rank() - 1] = start;
        let slice = Slice { starts, steps: vec![1; shape.rank()], sizes: shape.to_vec() };
        found.push((class, Expr::apply(slice, [merged.clone()])));
        start += sibling.columns;
    }
}

fn zeros(dtype: DType, count: usize) -> Tensor {
    let ty = tcc_ir::TensorType::new(dtype, Shape::vector(count));
    let bytes = ty.bytes();
    // Zeros of every type are zero bytes of the right number.
    Tensor::new(ty, tcc_ir::Data::from_bytes(vec![0; bytes])).unwrap_or_else(|_| Tensor::scalar_of(dtype, 0.0))
}
