//! Arithmetic: constants, neutral elements, powers and roots, and what can be moved into or out of a contraction.

use egg::Id;
use tcc_ir::Op;
use tcc_ir::ops::{Binary, BinaryFn, Broadcast, MatMul, Unary, UnaryFn};

use crate::egraph::{Expr, Rule, Site, Terms};

/// The rules of this topic.
pub const RULES: &[Rule] = &[
    Rule { name: "division by a constant", rewrite: division_by_constant },
    Rule { name: "chain of constants", rewrite: chain_of_constants },
    Rule { name: "neutral element", rewrite: neutral_element },
    Rule { name: "constant condition", rewrite: constant_condition },
    Rule { name: "small power", rewrite: small_power },
    Rule { name: "reciprocal", rewrite: reciprocal },
    Rule { name: "reciprocal root", rewrite: reciprocal_root },
    Rule { name: "quotient by a root", rewrite: quotient_by_root },
    Rule { name: "scale out of a contraction", rewrite: scale_out_of_contraction },
    Rule { name: "scale into weights", rewrite: scale_into_weights },
    Rule { name: "chain of contractions", rewrite: chain_of_contractions },
];

fn binary(function: BinaryFn, a: impl Into<Expr>, b: impl Into<Expr>) -> Expr {
    Expr::apply(Binary(function), [a.into(), b.into()])
}

fn unary(function: UnaryFn, x: impl Into<Expr>) -> Expr {
    Expr::apply(Unary(function), [x.into()])
}

fn binary_at(site: &Site<'_>, function: BinaryFn) -> Option<(Id, Id)> {
    match site.op {
        Op::Binary(Binary(f)) if *f == function => Some((site.operands[0], site.operands[1])),
        _ => None,
    }
}

/// `x`, brought to the shape of the class that the site is in.
pub(super) fn as_wide(site: &Site<'_>, x: Id) -> Expr {
    let shape = site.terms.shape(site.class);
    if site.terms.shape(x) == shape { x.into() } else { Expr::apply(Broadcast { shape: shape.clone() }, [x.into()]) }
}

/// `x / c = x · (1/c)`. Rounds twice, but where c is a power of two.
fn division_by_constant(site: &Site<'_>) -> Vec<Expr> {
    let Some((x, c)) = binary_at(site, BinaryFn::Div) else { return Vec::new() };
    let terms = site.terms;
    match terms.number(c) {
        Some(number) if terms.dtype(c).is_float() && number != 0.0 && terms.number(x).is_none() => {
            let mut inverse = Expr::number(terms, c, 1.0 / number);
            if terms.rank(c) > terms.rank(x) {
                inverse = Expr::apply(Broadcast { shape: terms.shape(c).clone() }, [inverse]);
            }
            vec![binary(BinaryFn::Mul, x, inverse)]
        }
        _ => Vec::new(),
    }
}

/// `(x ∘ a) ∘ b = x ∘ (a ∘ b)` for constants a and b, one of them a single number. Rounds differently.
fn chain_of_constants(site: &Site<'_>) -> Vec<Expr> {
    let mut found = Vec::new();
    let terms = site.terms;
    if !terms.dtype(site.class).is_float() || terms.is_constant(site.class) {
        return found;
    }
    for function in [BinaryFn::Add, BinaryFn::Mul] {
        let Some((left, right)) = binary_at(site, function) else { continue };
        for (inner, b) in [(left, right), (right, left)] {
            if terms.value(b).is_none() {
                continue;
            }
            for (x, a) in terms.either(inner, function) {
                let both = terms.value(a).is_some() && terms.value(x).is_none();
                if both && (terms.is_single(a) || terms.is_single(b)) {
                    found.push(binary(function, x, binary(function, a, b)));
                }
            }
        }
    }
    found
}

/// `x + 0`, `x · 1`, `x - 0`, `x / 1`, `x and true`, `x or false` are x.
fn neutral_element(site: &Site<'_>) -> Vec<Expr> {
    let terms = site.terms;
    let (two_sided, neutral) = match site.op {
        Op::Binary(Binary(function)) => match function {
            BinaryFn::Add => (true, 0.0),
            BinaryFn::Or if terms.dtype(site.class) == tcc_ir::DType::Bool => (true, 0.0),
            BinaryFn::Mul => (true, 1.0),
            BinaryFn::And if terms.dtype(site.class) == tcc_ir::DType::Bool => (true, 1.0),
            BinaryFn::Sub => (false, 0.0),
            BinaryFn::Div => (false, 1.0),
            _ => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    let (a, b) = (site.operands[0], site.operands[1]);
    let mut found = Vec::new();
    if terms.number(b) == Some(neutral) && terms.value(a).is_none() {
        found.push(as_wide(site, a));
    }
    if two_sided && terms.number(a) == Some(neutral) && terms.value(b).is_none() {
        found.push(as_wide(site, b));
    }
    found
}

/// A selection by a condition that is the same everywhere.
fn constant_condition(site: &Site<'_>) -> Vec<Expr> {
    match (site.op, site.operands) {
        (Op::Select(_), &[condition, yes, no]) => match site.terms.number(condition) {
            Some(number) => vec![as_wide(site, if number != 0.0 { yes } else { no })],
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Powers 1, 2, 3, 0.5 and -0.5 as products and roots. The product may round differently from the power.
fn small_power(site: &Site<'_>) -> Vec<Expr> {
    let Some((x, exponent)) = binary_at(site, BinaryFn::Pow) else { return Vec::new() };
    let terms = site.terms;
    if !terms.dtype(x).is_float() || terms.rank(exponent) > terms.rank(x) || terms.value(x).is_some() {
        return Vec::new();
    }
    match terms.number(exponent) {
        Some(1.0) => vec![x.into()],
        Some(2.0) => vec![binary(BinaryFn::Mul, x, x)],
        Some(3.0) => vec![binary(BinaryFn::Mul, binary(BinaryFn::Mul, x, x), x)],
        // Other than the power, the root of an infinity below zero is no number; no model takes one.
        Some(0.5) => vec![unary(UnaryFn::Sqrt, x)],
        Some(-0.5) => vec![unary(UnaryFn::Rsqrt, x)],
        _ => Vec::new(),
    }
}

/// `1 / x`.
fn reciprocal(site: &Site<'_>) -> Vec<Expr> {
    let Some((one, x)) = binary_at(site, BinaryFn::Div) else { return Vec::new() };
    let terms = site.terms;
    if terms.number(one) == Some(1.0) && terms.dtype(x).is_float() && terms.shape(x) == terms.shape(site.class) {
        vec![unary(UnaryFn::Recip, x)]
    } else {
        Vec::new()
    }
}

/// `1 / √x`, rounded once.
fn reciprocal_root(site: &Site<'_>) -> Vec<Expr> {
    match site.op {
        Op::Unary(Unary(UnaryFn::Recip)) => {
            site.terms.unary(site.operands[0], UnaryFn::Sqrt).map(|x| unary(UnaryFn::Rsqrt, x)).collect()
        }
        _ => Vec::new(),
    }
}

/// `x / √y = x · (1/√y)`. Rounds differently.
fn quotient_by_root(site: &Site<'_>) -> Vec<Expr> {
    let Some((x, root)) = binary_at(site, BinaryFn::Div) else { return Vec::new() };
    if site.terms.number(x).is_some() {
        return Vec::new();
    }
    site.terms.unary(root, UnaryFn::Sqrt).map(|y| binary(BinaryFn::Mul, x, unary(UnaryFn::Rsqrt, y))).collect()
}

fn contraction_at(site: &Site<'_>) -> Option<(MatMul, Id, Id)> {
    match (site.op, site.operands) {
        (Op::MatMul(op), &[a, b]) if site.terms.dtype(a).is_float() => Some((*op, a, b)),
        _ => None,
    }
}

/// `(s·a) b = s · (a b)` for a single number s. Rounds differently.
fn scale_out_of_contraction(site: &Site<'_>) -> Vec<Expr> {
    let Some((op, a, b)) = contraction_at(site) else { return Vec::new() };
    let terms = site.terms;
    let mut found = Vec::new();
    let scalar = |s: Id| terms.number(s).is_some() && terms.is_single(s) && terms.rank(s) <= 1;
    for (inner, s) in terms.either(a, BinaryFn::Mul) {
        if scalar(s) && terms.shape(inner) == terms.shape(a) {
            found.push(binary(BinaryFn::Mul, Expr::apply(op, [inner.into(), b.into()]), s));
        }
    }
    for (inner, s) in terms.either(b, BinaryFn::Mul) {
        if scalar(s) && terms.shape(inner) == terms.shape(b) {
            found.push(binary(BinaryFn::Mul, Expr::apply(op, [a.into(), inner.into()]), s));
        }
    }
    found
}

/// `(x W) · s = x (W · s)` for constant weights and a constant scale of each column or of all. Rounds differently.
fn scale_into_weights(site: &Site<'_>) -> Vec<Expr> {
    let Some((left, right)) = binary_at(site, BinaryFn::Mul) else { return Vec::new() };
    let terms = site.terms;
    let mut found = Vec::new();
    for (product, scale) in [(left, right), (right, left)] {
        // One number, or one for each column.
        if !terms.is_constant(scale) || terms.rank(scale) > 1 || terms.shape(product) != terms.shape(site.class) {
            continue;
        }
        for (op, operands) in terms.applications(product) {
            let (Op::MatMul(op), &[x, weights]) = (op, operands) else { continue };
            if !terms.is_constant(weights) || terms.is_constant(x) || !terms.dtype(weights).is_float() {
                continue;
            }
            let single = terms.is_single(scale);
            if !single && op.transpose_b {
                continue;
            }
            found.push(Expr::apply(*op, [x.into(), binary(BinaryFn::Mul, weights, scale)]));
        }
    }
    found
}

/// `(x A) B = x (A B)` for constant A and B, where that is no more work. Rounds differently.
fn chain_of_contractions(site: &Site<'_>) -> Vec<Expr> {
    let Some((outer, product, b)) = contraction_at(site) else { return Vec::new() };
    let terms = site.terms;
    let matrix = |id: Id| terms.is_constant(id) && terms.rank(id) == 2;
    if outer != MatMul::default() || !matrix(b) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (op, operands) in terms.applications(product) {
        let (Op::MatMul(inner), &[x, a]) = (op, operands) else { continue };
        if *inner != MatMul::default() || !matrix(a) || terms.is_constant(x) {
            continue;
        }
        let (k, middle, n) = (terms.shape(a)[0], terms.shape(a)[1], terms.shape(b)[1]);
        if k * n <= middle * (k + n) {
            found.push(Expr::apply(outer, [x.into(), Expr::apply(outer, [a.into(), b.into()])]));
        }
    }
    found
}

/// The factors of a product of several: the numbers among them multiplied, and the other classes. Products within are
/// taken apart as the first form of each class has them.
pub(super) fn factors(terms: Terms<'_>, a: Id, b: Id) -> (f64, Vec<Id>) {
    let mut number = 1.0;
    let mut classes = Vec::new();
    let mut open = vec![b, a];
    // A product of itself and one would have no end.
    let mut steps = 0;
    while let Some(class) = open.pop() {
        steps += 1;
        if let Some(value) = terms.number(class) {
            number *= value;
        } else if let (Some((x, y)), true) = (terms.binary(class, BinaryFn::Mul).next(), steps < 16) {
            open.extend([y, x]);
        } else {
            classes.push(class);
        }
    }
    (number, classes)
}
