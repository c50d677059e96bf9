//! Merging: contractions of one value with several constant matrices are slices of one contraction.

use std::collections::BTreeMap;

use egg::Id;
use tcc_ir::ops::{Binary, BinaryFn, Concat, MatMul, Slice};
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
    let mut families: BTreeMap<(Id, MatMul, usize), Vec<Sibling>> = BTreeMap::new();
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
            families.entry((terms.0.find(x), *op, k)).or_default().push(sibling);
        }
    }
    let mut found = Vec::new();
    for ((x, op, _), mut siblings) in families {
        // Weights as the model has them; others were made from them, by this rule too.
        let given = |id: Id| {
            terms.0[id].nodes.iter().any(|term| matches!(term, Term::Leaf(leaf) if terms.0.analysis.leaf(*leaf).given))
        };
        siblings.retain(|sibling| given(sibling.weights) && sibling.columns > 0);
        // Of several forms of one contraction one is enough.
        siblings.dedup_by_key(|sibling| sibling.class);
        if siblings.len() > 1 {
            merge(terms, x, op, &siblings, &mut found);
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

fn merge(terms: Terms<'_>, x: Id, op: MatMul, siblings: &[Sibling], found: &mut Vec<Match>) {
    let axis = if op.transpose_b { 0 } else { 1 };
    let weights = siblings.iter().map(|sibling| sibling.weights.into()).collect();
    let product = Expr::apply(op, [x.into(), Expr::Apply(Concat { axis }.into(), weights)]);
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
