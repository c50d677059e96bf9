//! Composite operators found again in what exporters took apart: softmax, normalisations, GELU, rotary embeddings.
//!
//! The sums and products of a decomposition come in any order, so that each rule looks for its parts instead of for one
//! tree. Where an exporter rounds between the steps of a composite operator, the operator rounds once.

use egg::Id;
use tcc_ir::ops::{
    Binary, BinaryFn, Cast, Concat, Gelu, LayerNorm, ReduceFn, RmsNorm, Rope, Slice, Softmax, Unary, UnaryFn,
};
use tcc_ir::{DType, Op, Real, Tensor};

use super::algebra::factors;
use crate::egraph::{Expr, Rule, Site, Term, Terms};

/// The rules of this topic.
pub const RULES: &[Rule] = &[
    Rule { name: "softmax", rewrite: softmax },
    Rule { name: "RMS norm", rewrite: rms_norm },
    Rule { name: "RMS norm with scale", rewrite: rms_norm_scale },
    Rule { name: "layer norm", rewrite: layer_norm },
    Rule { name: "layer norm with scale", rewrite: layer_norm_scale },
    Rule { name: "layer norm with bias", rewrite: layer_norm_bias },
    Rule { name: "norm in binary32", rewrite: wide_norm },
    Rule { name: "GELU", rewrite: gelu },
    Rule { name: "SiLU", rewrite: silu },
    Rule { name: "rotary embedding of halves", rewrite: rope_of_halves },
    Rule { name: "rotary embedding", rewrite: rope_of_parts },
];

fn one_axis(axes: &[usize]) -> Option<usize> {
    <[usize; 1]>::try_from(axes).ok().map(|[axis]| axis)
}

/// The products in a class, by two factors.
fn product_at(site: &Site<'_>) -> Option<(Id, Id)> {
    match site.op {
        Op::Binary(Binary(BinaryFn::Mul)) => Some((site.operands[0], site.operands[1])),
        _ => None,
    }
}

/// `exp(x - max x) / Σ exp(x - max x)`.
fn softmax(site: &Site<'_>) -> Vec<Expr> {
    let Op::Binary(Binary(BinaryFn::Div)) = site.op else { return Vec::new() };
    let terms = site.terms;
    let (exp, sum) = (site.operands[0], site.operands[1]);
    let mut found = Vec::new();
    for (summed, axes) in terms.reduce(sum, ReduceFn::Sum) {
        let Some(axis) = one_axis(axes).filter(|_| terms.same(summed, exp)) else { continue };
        for shifted in terms.unary(exp, UnaryFn::Exp) {
            for (x, max) in terms.binary(shifted, BinaryFn::Sub) {
                let of_x = |(source, axes): (Id, &[usize])| terms.same(source, x) && axes == [axis];
                if terms.reduce(max, ReduceFn::Max).any(of_x) {
                    found.push(Expr::apply(Softmax { axis }, [x.into()]));
                }
            }
        }
    }
    found
}

/// What makes a row's root mean square 1: `x` and epsilon of `1 / √(mean(x²) + ε)`, and the first axis of the mean.
fn inverse_rms(terms: Terms<'_>, class: Id) -> impl Iterator<Item = (Id, f64, usize)> {
    terms.unary(class, UnaryFn::Rsqrt).flat_map(move |sum| {
        terms.either(sum, BinaryFn::Add).filter_map(move |(mean, epsilon)| {
            let epsilon = terms.number(epsilon).filter(|&epsilon| epsilon >= 0.0 && epsilon.is_finite())?;
            terms.reduce(mean, ReduceFn::Mean).find_map(|(square, axes)| {
                let rank = terms.rank(square);
                let first = *axes.first()?;
                let trailing = axes.iter().copied().eq(first..rank);
                let x = terms.binary(square, BinaryFn::Mul).find_map(|(a, b)| terms.same(a, b).then_some(a))?;
                trailing.then_some((x, epsilon, first))
            })
        })
    })
}

/// Ones over the axes from `axis` on.
fn ones(terms: Terms<'_>, x: Id) -> Expr {
    Expr::number(terms, x, 1.0)
}

/// `x · 1/√(mean(x²) + ε)`.
fn rms_norm(site: &Site<'_>) -> Vec<Expr> {
    let Some((a, b)) = product_at(site) else { return Vec::new() };
    let terms = site.terms;
    let mut found = Vec::new();
    for (x, scale) in [(a, b), (b, a)] {
        for (source, epsilon, axis) in inverse_rms(terms, scale) {
            if terms.same(source, x) {
                let norm = RmsNorm { axis, epsilon: Real(epsilon) };
                found.push(Expr::apply(norm, [x.into(), ones(terms, x)]));
            }
        }
    }
    found
}

/// The scale of a normalisation that has none yet, if `other` may be one: it lies along the normalised axes.
fn scale_of(terms: Terms<'_>, x: Id, scale: Id, other: Id, axis: usize) -> bool {
    let rank = terms.rank(x);
    let lies = |shape: &tcc_ir::Shape| {
        let lead = rank.checked_sub(shape.rank());
        lead.is_some_and(|lead| (0..shape.rank()).all(|own| own + lead >= axis || shape[own] == 1))
    };
    terms.number(scale) == Some(1.0) && terms.shape(other).broadcasts_to(terms.shape(x)) && lies(terms.shape(other))
}

/// A normalisation to RMS 1, then a scale.
fn rms_norm_scale(site: &Site<'_>) -> Vec<Expr> {
    let Some((a, b)) = product_at(site) else { return Vec::new() };
    let terms = site.terms;
    let mut found = Vec::new();
    for (inner, w) in [(a, b), (b, a)] {
        for (op, operands) in terms.applications(inner) {
            let (Op::RmsNorm(norm), &[x, scale]) = (op, operands) else { continue };
            if scale_of(terms, x, scale, w, norm.axis) {
                found.push(Expr::apply(*norm, [x.into(), w.into()]));
            }
        }
    }
    found
}

/// `(x - mean x) · 1/√(mean((x - mean x)²) + ε)`.
fn layer_norm(site: &Site<'_>) -> Vec<Expr> {
    let terms = site.terms;
    let mut found = Vec::new();
    let mut centred = |d: Id, epsilon: Real, axis: usize, w: Expr| {
        for (x, mean) in terms.binary(d, BinaryFn::Sub) {
            let rank = terms.rank(x);
            let of_x = |(source, axes): (Id, &[usize])| terms.same(source, x) && axes.iter().copied().eq(axis..rank);
            if terms.reduce(mean, ReduceFn::Mean).any(of_x) {
                found.push(Expr::apply(LayerNorm { axis, epsilon, bias: false }, [x.into(), w.clone()]));
            }
        }
    };
    // A centred row has its variance as mean square.
    if let (Op::RmsNorm(norm), &[d, w]) = (site.op, site.operands) {
        centred(d, norm.epsilon, norm.axis, w.into());
    }
    found
}

/// A normalisation to mean 0 and variance 1, then a scale.
fn layer_norm_scale(site: &Site<'_>) -> Vec<Expr> {
    let Some((a, b)) = product_at(site) else { return Vec::new() };
    let terms = site.terms;
    let mut found = Vec::new();
    for (inner, w) in [(a, b), (b, a)] {
        for (op, operands) in terms.applications(inner) {
            let (Op::LayerNorm(norm), &[x, scale]) = (op, operands) else { continue };
            if scale_of(terms, x, scale, w, norm.axis) {
                found.push(Expr::apply(*norm, [x.into(), w.into()]));
            }
        }
    }
    found
}

/// A normalisation without bias, then one.
fn layer_norm_bias(site: &Site<'_>) -> Vec<Expr> {
    let terms = site.terms;
    let mut found = Vec::new();
    let Op::Binary(Binary(BinaryFn::Add)) = site.op else { return found };
    let (a, b) = (site.operands[0], site.operands[1]);
    for (inner, bias) in [(a, b), (b, a)] {
        // What is added must be a parameter: a residual is not part of the normalisation.
        if !terms.is_constant(bias) || !terms.shape(bias).broadcasts_to(terms.shape(inner)) {
            continue;
        }
        for (op, operands) in terms.applications(inner) {
            let (Op::LayerNorm(norm @ LayerNorm { bias: false, .. }), &[x, scale]) = (op, operands) else { continue };
            let lead = terms.rank(x) - terms.rank(bias);
            if (0..terms.rank(bias)).all(|own| own + lead >= norm.axis || terms.shape(bias)[own] == 1) {
                found.push(Expr::apply(LayerNorm { bias: true, ..*norm }, [x.into(), scale.into(), bias.into()]));
            }
        }
    }
    found
}

/// A normalisation of halves that is written out in binary32 between two casts: the operator computes so by itself.
/// The scale that comes after the cast back is rounded once less.
fn wide_norm(site: &Site<'_>) -> Vec<Expr> {
    let Op::Cast(Cast { to }) = site.op else { return Vec::new() };
    let terms = site.terms;
    if !matches!(to, DType::F16 | DType::BF16) {
        return Vec::new();
    }
    let narrow = |id: Id| -> Option<Expr> {
        if let Some(number) = terms.number(id).filter(|_| terms.is_single(id)) {
            return Some(Expr::Constant(Tensor::scalar_of(*to, number)));
        }
        terms.applications(id).find_map(|(op, operands)| match op {
            Op::Cast(Cast { to: DType::F32 }) if terms.dtype(operands[0]) == *to => Some(operands[0].into()),
            _ => None,
        })
    };
    let mut found = Vec::new();
    for (op, operands) in terms.applications(site.operands[0]) {
        if !matches!(op, Op::RmsNorm(_) | Op::LayerNorm(_)) {
            continue;
        }
        let operands: Option<Vec<Expr>> = operands.iter().map(|&id| narrow(id)).collect();
        found.extend(operands.map(|operands| Expr::Apply(op.clone(), operands)));
    }
    found
}

/// `0.5 x (1 + erf(x/√2))` and `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, the factors in any order.
fn gelu(site: &Site<'_>) -> Vec<Expr> {
    let Some((a, b)) = product_at(site) else { return Vec::new() };
    let terms = site.terms;
    let (number, classes) = factors(terms, a, b);
    let &[first, second] = &classes[..] else { return Vec::new() };
    let is = |value: f64, expected: f64| (value - expected).abs() <= 1e-3 * expected;
    let mut found = Vec::new();
    for (x, curve) in [(first, second), (second, first)] {
        // Half may stand inside as well: 0.5 + 0.5 · erf(…).
        for (bent, one) in terms.either(curve, BinaryFn::Add) {
            let Some(one) = terms.number(one) else { continue };
            let (inner, bent) = match terms.either(bent, BinaryFn::Mul).find(|&(_, c)| terms.number(c).is_some()) {
                Some((bent, c)) => (terms.number(c).unwrap_or(1.0), bent),
                None => (1.0, bent),
            };
            if inner != one || !is(number * one, 0.5) {
                continue;
            }
            for argument in terms.unary(bent, UnaryFn::Erf) {
                let of_x = |(y, c): (Id, Id)| {
                    terms.same(y, x) && terms.number(c).is_some_and(|c| is(c, std::f64::consts::FRAC_1_SQRT_2))
                };
                if terms.either(argument, BinaryFn::Mul).any(of_x) {
                    found.push(Expr::apply(Gelu { tanh: false }, [x.into()]));
                }
            }
            for argument in terms.unary(bent, UnaryFn::Tanh) {
                if is_tanh_argument(terms, argument, x) {
                    found.push(Expr::apply(Gelu { tanh: true }, [x.into()]));
                }
            }
        }
    }
    found
}

/// Whether a class is `√(2/π) (x + 0.044715 x³)`, or `√(2/π) x (1 + 0.044715 x²)`.
fn is_tanh_argument(terms: Terms<'_>, argument: Id, x: Id) -> bool {
    const FACTOR: f64 = 0.797_884_560_802_865_4;
    const CUBIC: f64 = 0.044715;
    let is = |value: f64, expected: f64| (value - expected).abs() <= 1e-3 * expected;
    // `factor · x^power`, apart from what else there is.
    let power = |a: Id, b: Id| {
        let (number, classes) = factors(terms, a, b);
        let (xs, rest): (Vec<Id>, Vec<Id>) = classes.into_iter().partition(|&class| terms.same(class, x));
        (number, xs.len(), rest)
    };
    terms.binary(argument, BinaryFn::Mul).any(|(a, b)| {
        let (number, xs, rest) = power(a, b);
        let &[sum] = &rest[..] else { return false };
        if !is(number, FACTOR) {
            return false;
        }
        terms.either(sum, BinaryFn::Add).any(|(first, second)| {
            let starts = match xs {
                0 => terms.same(first, x),
                1 => terms.number(first) == Some(1.0),
                _ => false,
            };
            starts
                && terms.binary(second, BinaryFn::Mul).any(|(a, b)| {
                    let (number, more, rest) = power(a, b);
                    is(number, CUBIC) && more + xs == 3 && rest.is_empty()
                })
        })
    })
}

/// `x / (1 + e^-x) = x · sigmoid(x)`.
fn silu(site: &Site<'_>) -> Vec<Expr> {
    let terms = site.terms;
    let is_logistic = |sum: Id, x: Id| {
        terms.either(sum, BinaryFn::Add).any(|(exp, one)| {
            terms.number(one) == Some(1.0)
                && terms.unary(exp, UnaryFn::Exp).any(|neg| terms.unary(neg, UnaryFn::Neg).any(|y| terms.same(y, x)))
        })
    };
    let sigmoid = |x: Id| Expr::apply(Unary(UnaryFn::Sigmoid), [x.into()]);
    match (site.op, site.operands) {
        (Op::Binary(Binary(BinaryFn::Div)), &[x, sum]) if is_logistic(sum, x) => {
            vec![Expr::apply(Binary(BinaryFn::Mul), [x.into(), sigmoid(x)])]
        }
        (Op::Unary(Unary(UnaryFn::Recip)), &[sum]) => {
            let exps = terms.either(sum, BinaryFn::Add).filter(|&(_, one)| terms.number(one) == Some(1.0));
            let xs = exps.flat_map(|(exp, _)| terms.unary(exp, UnaryFn::Exp));
            let xs = xs.flat_map(|neg| terms.unary(neg, UnaryFn::Neg));
            xs.filter(|&x| terms.shape(x) == terms.shape(site.class)).map(sigmoid).collect()
        }
        _ => Vec::new(),
    }
}

/// The half `index` of the last axis of x, as a slice.
fn half(terms: Terms<'_>, x: Id, index: usize) -> Option<Slice> {
    let shape = terms.shape(x);
    let last = shape.rank().checked_sub(1)?;
    let part = shape[last] / 2;
    if !shape[last].is_multiple_of(2) || part == 0 {
        return None;
    }
    let mut slice = Slice { starts: vec![0; shape.rank()], steps: vec![1; shape.rank()], sizes: shape.to_vec() };
    slice.starts[last] = index * part;
    slice.sizes[last] = part;
    Some(slice)
}

/// Whether `class` is the half `index` of x.
fn is_half(terms: Terms<'_>, class: Id, x: Id, index: usize) -> bool {
    let Some(expected) = half(terms, x, index) else { return false };
    terms
        .applications(class)
        .any(|(op, operands)| matches!(op, Op::Slice(slice) if *slice == expected) && terms.same(operands[0], x))
}

/// Whether the two halves of the last axis are the same: traced to a concatenation of a value with itself.
fn halves_are_equal(terms: Terms<'_>, class: Id, depth: usize) -> bool {
    if let Some(values) = terms.value(class).and_then(|value| value.to_f64s().ok()) {
        let last = terms.shape(class).last().copied().unwrap_or(0);
        return last > 0 && last % 2 == 0 && values.chunks(last).all(|row| row[..last / 2] == row[last / 2..]);
    }
    let is_known = |term: &Term| matches!(term, Term::Leaf(leaf) if terms.0.analysis.leaf(*leaf).equal_halves);
    if terms.0[class].nodes.iter().any(is_known) {
        return true;
    }
    depth > 0
        && terms.applications(class).any(|(op, operands)| {
            let last = terms.rank(class).checked_sub(1);
            match op {
                Op::Concat(Concat { axis }) => {
                    Some(*axis) == last && operands.len() == 2 && terms.same(operands[0], operands[1])
                }
                Op::Unary(_) | Op::Cast(_) => halves_are_equal(terms, operands[0], depth - 1),
                Op::Binary(_) => operands.iter().all(|&operand| {
                    terms.is_single(operand)
                        || (terms.rank(operand) == terms.rank(class) && halves_are_equal(terms, operand, depth - 1))
                }),
                Op::Reshape(_) => {
                    terms.shape(operands[0]).last() == terms.shape(class).last()
                        && halves_are_equal(terms, operands[0], depth - 1)
                }
                Op::Transpose(transpose) => {
                    transpose.perm.last().copied() == last && halves_are_equal(terms, operands[0], depth - 1)
                }
                Op::Slice(slice) => last.is_some_and(|last| {
                    slice.sizes[last] == terms.shape(operands[0])[last]
                        && slice.steps[last] == 1
                        && halves_are_equal(terms, operands[0], depth - 1)
                }),
                Op::Broadcast(_) => {
                    terms.shape(operands[0]).last() == terms.shape(class).last()
                        && halves_are_equal(terms, operands[0], depth - 1)
                }
                Op::Gather(gather) => {
                    gather.axis + 1 < terms.rank(operands[0]) && halves_are_equal(terms, operands[0], depth - 1)
                }
                _ => false,
            }
        })
}

/// Longest chain of operators between an angle's cosine and the concatenation of its halves.
const ANGLE_STEPS: usize = 8;

/// `x · cos + concat(-x₂, x₁) · sin`, with cosines and sines whose halves are equal.
fn rope_of_halves(site: &Site<'_>) -> Vec<Expr> {
    let Op::Binary(Binary(BinaryFn::Add)) = site.op else { return Vec::new() };
    let terms = site.terms;
    let mut found = Vec::new();
    for (straight, turned) in [(site.operands[0], site.operands[1]), (site.operands[1], site.operands[0])] {
        for (x, cos) in terms.either(straight, BinaryFn::Mul) {
            if terms.shape(x) != terms.shape(site.class) {
                continue;
            }
            for (rotated, sin) in terms.either(turned, BinaryFn::Mul) {
                if is_rotated(terms, rotated, x)
                    && [cos, sin].iter().all(|&id| halves_are_equal(terms, id, ANGLE_STEPS))
                {
                    let angles = [cos, sin].map(|id| half(terms, id, 0).map(|slice| Expr::apply(slice, [id.into()])));
                    if let [Some(cos), Some(sin)] = angles {
                        found.push(Expr::apply(Rope { interleaved: false }, [x.into(), cos, sin]));
                    }
                }
            }
        }
    }
    found
}

/// Whether a class is `concat(-x₂, x₁)` for the halves of x.
fn is_rotated(terms: Terms<'_>, class: Id, x: Id) -> bool {
    terms.applications(class).any(|(op, operands)| {
        let (Op::Concat(Concat { axis }), &[first, second]) = (op, operands) else { return false };
        axis + 1 == terms.rank(x)
            && is_half(terms, second, x, 0)
            && terms.unary(first, UnaryFn::Neg).any(|source| is_half(terms, source, x, 1))
    })
}

/// `concat(a cos - b sin, b cos + a sin)` for the halves a and b of x.
fn rope_of_parts(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Concat(Concat { axis }), &[first, second]) = (site.op, site.operands) else { return Vec::new() };
    let terms = site.terms;
    if axis + 1 != terms.rank(site.class) {
        return Vec::new();
    }
    let whole = terms.shape(site.class);
    let mut found = Vec::new();
    for (a_cos, b_sin) in terms.binary(first, BinaryFn::Sub) {
        for (a, cos) in terms.either(a_cos, BinaryFn::Mul) {
            for (b, sin) in terms.either(b_sin, BinaryFn::Mul) {
                let sources = terms.applications(a).filter_map(|(op, operands)| match op {
                    Op::Slice(_) if terms.shape(operands[0]) == whole => Some(operands[0]),
                    _ => None,
                });
                for x in sources {
                    let adds = |left: Id, right: Id| {
                        let product = |class: Id, p: Id, q: Id| {
                            terms.either(class, BinaryFn::Mul).any(|(u, v)| terms.same(u, p) && terms.same(v, q))
                        };
                        product(left, b, cos) && product(right, a, sin)
                    };
                    if is_half(terms, a, x, 0)
                        && is_half(terms, b, x, 1)
                        && terms.either(second, BinaryFn::Add).any(|(left, right)| adds(left, right))
                    {
                        found.push(Expr::apply(Rope { interleaved: false }, [x.into(), cos.into(), sin.into()]));
                    }
                }
            }
        }
    }
    found
}
