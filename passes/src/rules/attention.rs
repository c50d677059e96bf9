//! Attention found again in its products, masks and softmax, with grouped heads and soft caps.

use egg::Id;
use tcc_ir::ops::{Attention, Binary, BinaryFn, Cast, MatMul, Reshape, Select, Transpose, UnaryFn};
use tcc_ir::{DType, Op, Real, Shape, Tensor};

use super::algebra::factors;
use crate::egraph::{Expr, Rule, Site, Terms};

/// The rules of this topic.
pub const RULES: &[Rule] = &[
    Rule { name: "attention", rewrite: attention },
    Rule { name: "attention over repeated heads", rewrite: repeated_heads },
    Rule { name: "mask as addend", rewrite: mask_as_addend },
];

/// What stands between the scores and the weights of an attention.
#[derive(Default)]
struct Scores {
    scale: f64,
    softcap: f64,
    addends: Vec<Expr>,
}

/// `softmax(cap(s · q kᵀ) + mask) v`.
fn attention(site: &Site<'_>) -> Vec<Expr> {
    let (Op::MatMul(op), &[weights, v]) = (site.op, site.operands) else { return Vec::new() };
    let terms = site.terms;
    let rank = terms.rank(site.class);
    if op.transpose_a || op.a_zero || op.b_zero || rank != 4 || !terms.dtype(v).is_float() {
        return Vec::new();
    }
    let v = match op.transpose_b {
        false => Expr::from(v),
        true => swapped(v, rank),
    };
    let mut found = Vec::new();
    for (softmaxed, zero_masked_rows) in unguarded(terms, weights) {
        for scores in softmax_operands(terms, softmaxed) {
            let mut parts = Scores { scale: 1.0, ..Scores::default() };
            let Some((product, q, k)) = parse_scores(terms, scores, &mut parts) else { continue };
            if terms.rank(q) != rank || terms.rank(k) != rank || terms.rank(site.operands[1]) != rank {
                continue;
            }
            let q = if product.transpose_a { swapped(q, rank) } else { q.into() };
            let k = if product.transpose_b { k.into() } else { swapped(k, rank) };
            let attention = Attention {
                scale: Real(parts.scale),
                softcap: Real(parts.softcap),
                causal: None,
                window: None,
                mask: !parts.addends.is_empty(),
                zero_masked_rows,
            };
            let mask = parts.addends.into_iter().reduce(|a, b| Expr::apply(Binary(BinaryFn::Add), [a, b]));
            let operands = [q, k, v.clone()].into_iter().chain(mask).collect();
            found.push(Expr::Apply(attention.into(), operands));
        }
    }
    found
}

/// A matrix with its last two axes exchanged.
fn swapped(x: Id, rank: usize) -> Expr {
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    Expr::apply(Transpose { perm }, [x.into()])
}

/// The weights behind a guard that turns rows without a key, which are no numbers, to zero; and whether there is one.
/// Rows that are no numbers for another reason are not told apart.
fn unguarded(terms: Terms<'_>, weights: Id) -> Vec<(Id, bool)> {
    let mut found = vec![(weights, false)];
    for (op, operands) in terms.applications(weights) {
        let (Op::Select(_), &[condition, zero, inner]) = (op, operands) else { continue };
        let tests = terms.unary(condition, UnaryFn::IsNan).any(|tested| terms.same(tested, inner));
        if tests && terms.number(zero) == Some(0.0) {
            found.push((inner, true));
        }
    }
    found
}

/// What a softmax along the last axis is taken of, seen through casts of halves to binary32 and back.
fn softmax_operands(terms: Terms<'_>, class: Id) -> Vec<Id> {
    let of = |class: Id| {
        terms.applications(class).filter_map(move |(op, operands)| match op {
            Op::Softmax(softmax) if softmax.axis + 1 == terms.rank(class) => Some(operands[0]),
            _ => None,
        })
    };
    let mut found: Vec<Id> = of(class).collect();
    for (op, operands) in terms.applications(class) {
        let Op::Cast(Cast { to: DType::F16 | DType::BF16 }) = op else { continue };
        for wide in of(operands[0]) {
            for (op, sources) in terms.applications(wide) {
                if matches!(op, Op::Cast(_)) && terms.dtype(sources[0]) == terms.dtype(class) {
                    found.push(sources[0]);
                }
            }
        }
    }
    found
}

/// Takes masks, soft cap and scale off a class of scores, down to the product.
fn parse_scores(terms: Terms<'_>, class: Id, parts: &mut Scores) -> Option<(MatMul, Id, Id)> {
    let mut at = class;
    // Each step takes one operator off.
    for _ in 0..12 {
        let product = terms.applications(at).find_map(|(op, operands)| match (op, operands) {
            (Op::MatMul(op), &[q, k]) if !op.a_zero && !op.b_zero => Some((*op, q, k)),
            _ => None,
        });
        // A form in which nothing is left to take off.
        if let Some(product) = product {
            return Some(product);
        }
        let unmasked = terms.shape(at) == terms.shape(class) && parts.scale == 1.0 && parts.softcap == 0.0;
        if unmasked && let Some((inner, addend)) = masked(terms, at) {
            parts.addends.push(addend);
            at = inner;
        } else if parts.softcap == 0.0
            && parts.scale == 1.0
            && let Some((inner, scale, cap)) = capped(terms, at)
        {
            (parts.softcap, parts.scale) = (cap, scale);
            at = inner;
        } else if let Some((inner, scale)) = scaled(terms, at) {
            parts.scale *= scale;
            at = inner;
        } else {
            return None;
        }
    }
    None
}

/// Whether the scores of an attention may stand behind a class: the side of a sum that is no mask.
fn leads_to_product(terms: Terms<'_>, class: Id, steps: usize) -> bool {
    terms.applications(class).any(|(op, operands)| match op {
        Op::MatMul(_) => true,
        Op::Binary(Binary(BinaryFn::Mul | BinaryFn::Add)) | Op::Unary(_) | Op::Select(_) => {
            steps > 0 && operands.iter().any(|&operand| leads_to_product(terms, operand, steps - 1))
        }
        _ => false,
    })
}

/// Scores and the mask that is added to them. `select(m, s, c)` is `s + select(m, 0, c)` where c is so large that adding
/// s does not change it.
fn masked(terms: Terms<'_>, class: Id) -> Option<(Id, Expr)> {
    const STEPS: usize = 8;
    let shape = terms.shape(class);
    for (scores, mask) in terms.either(class, BinaryFn::Add) {
        if terms.shape(scores) == shape && leads_to_product(terms, scores, STEPS) {
            return Some((scores, mask.into()));
        }
    }
    for (op, operands) in terms.applications(class) {
        let (Op::Select(_), &[condition, yes, no]) = (op, operands) else { continue };
        let huge = |id: Id| terms.number(id).is_some_and(|number| number <= -1e30);
        for (scores, masked, kept) in [(yes, no, true), (no, yes, false)] {
            if huge(masked) && terms.shape(scores) == shape && terms.dtype(scores) == DType::F32 {
                let zero = Expr::Constant(Tensor::scalar_of(terms.dtype(scores), 0.0));
                let (yes, no) = if kept { (zero, masked.into()) } else { (masked.into(), zero) };
                return Some((scores, Expr::apply(Select {}, [condition.into(), yes, no])));
            }
        }
    }
    None
}

/// `cap · tanh(s · c)`: the scores, what they are scaled by before the cap, and the cap.
fn capped(terms: Terms<'_>, class: Id) -> Option<(Id, f64, f64)> {
    terms.either(class, BinaryFn::Mul).find_map(|(bent, cap)| {
        let cap = terms.number(cap).filter(|&cap| cap > 0.0)?;
        let argument = terms.unary(bent, UnaryFn::Tanh).next()?;
        terms.binary(argument, BinaryFn::Mul).find_map(|(a, b)| {
            let (number, classes) = factors(terms, a, b);
            match classes[..] {
                [inner] => Some((inner, number * cap, cap)),
                _ => None,
            }
        })
    })
}

/// Scores times a number.
fn scaled(terms: Terms<'_>, class: Id) -> Option<(Id, f64)> {
    terms.either(class, BinaryFn::Mul).find_map(|(inner, scale)| {
        let scale = terms.number(scale)?;
        (terms.shape(inner) == terms.shape(class)).then_some((inner, scale))
    })
}

/// Keys and values that are repeated for the query heads that share them need not be.
fn repeated_heads(site: &Site<'_>) -> Vec<Expr> {
    let Op::Attention(op) = site.op else { return Vec::new() };
    let terms = site.terms;
    let once = |class: Id| {
        let [batch, heads, keys, depth] = <[usize; 4]>::try_from(terms.shape(class).dims()).ok()?;
        terms.applications(class).find_map(|(op, operands)| {
            let Op::Reshape(_) = op else { return None };
            terms.applications(operands[0]).find_map(|(op, operands)| {
                let Op::Broadcast(_) = op else { return None };
                let &[b, groups, 1, t, d] = terms.shape(operands[0]).dims() else { return None };
                if [b, t, d] != [batch, keys, depth] || heads % groups != 0 {
                    return None;
                }
                let shape = Shape::new([batch, groups, keys, depth]).ok()?;
                Some(Expr::apply(Reshape { shape }, [operands[0].into()]))
            })
        })
    };
    match (once(site.operands[1]), once(site.operands[2])) {
        (Some(k), Some(v)) => {
            let rest = site.operands[3..].iter().map(|&id| id.into());
            vec![Expr::Apply((*op).into(), [site.operands[0].into(), k, v].into_iter().chain(rest).collect())]
        }
        _ => Vec::new(),
    }
}

/// A mask of truth values as one that is added: 0 where a key is attended to.
fn mask_as_addend(site: &Site<'_>) -> Vec<Expr> {
    let Op::Attention(op) = site.op else { return Vec::new() };
    let terms = site.terms;
    let &[q, k, v, mask] = site.operands else { return Vec::new() };
    if terms.dtype(mask) != DType::Bool {
        return Vec::new();
    }
    let number = |value: f64| Expr::Constant(Tensor::scalar_of(terms.dtype(q), value));
    let addend = Expr::apply(Select {}, [mask.into(), number(0.0), number(f64::NEG_INFINITY)]);
    vec![Expr::apply(*op, [q.into(), k.into(), v.into(), addend])]
}
