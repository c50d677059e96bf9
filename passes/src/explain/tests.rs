//! What is told of the rules that made a kernel, on a machine that runs everything.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use tcc_ir::{Cycles, Graph, Op, TensorType, ValueId, text};

use super::KernelExplanation;
use crate::assemble::{Group, assemble};
use crate::cost::CostModel;
use crate::legalize::Verdict;
use crate::optimize::{Extraction, Optimized, optimize, optimize_explained};

/// Every kernel costs the same, and each of its operators a little.
struct Simple;

impl CostModel for Simple {
    fn judge(&self, _: &Graph, _: &Op, _: &[ValueId]) -> Verdict {
        Verdict::Keep
    }

    fn kernel_cost(&self, _: &Graph, group: &Group) -> Option<Cycles> {
        Some(Cycles(100 + group.nodes().count() as u64))
    }

    fn write_cost(&self, _: &TensorType) -> Cycles {
        Cycles(1)
    }
}

const EXACT: Extraction = Extraction::Exact { states: 1000 };

/// The explanations of all kernels. The plan must be what it is without them.
fn explained(source: &str) -> Vec<KernelExplanation> {
    let graph = text::parse(source).unwrap();
    let (optimized, explanations) = optimize_explained(&graph, &Simple, &|_, _, _| Verdict::Keep, EXACT).unwrap();
    let plain = optimize(&graph, &Simple, &|_, _, _| Verdict::Keep, EXACT).unwrap();
    assert_eq!((&optimized.groups, &optimized.places), (&plain.groups, &plain.places));
    assert_eq!(plan(optimized), plan(plain));
    explanations.concat()
}

fn plan(optimized: Optimized) -> (String, String) {
    let plan = assemble(optimized.graph, optimized.groups).unwrap();
    (plan.graph.to_string(), plan.to_string())
}

fn rules(explanation: &KernelExplanation) -> Vec<(&str, usize)> {
    explanation.rules.iter().map(|used| (used.rule.as_str(), used.uses)).collect()
}

#[test]
fn merged_products_name_the_rule_that_merged_them() {
    let kernels = explained(
        r#"graph "projections" {
            input %0 "y": f32[5,4]
            %1 "x": f32[5,4] = exp(%0) from "Exp"
            const %2 "query.weight": f32[4,2] = hex "0000803f000000400000404000008040000000400000803f000080400000803f"
            const %3 "key.weight": f32[4,2] = hex "0000804000000040000040400000803f000000400000803f000080400000803f"
            %4 "query": f32[5,2] = mat_mul(%1, %2) from "query/MatMul"
            %5 "key": f32[5,2] = mat_mul(%1, %3) from "key/MatMul"
            %6 "scores": f32[5,5] = mat_mul[transpose_b=true](%4, %5) from "MatMul"
            output "scores" = %6
        }"#,
    );
    let [_, merged, scores] = &kernels[..] else { panic!("{kernels:?}") };
    assert_eq!((rules(merged), rules(scores)), (vec![("sibling contractions", 2), ("constant folding", 2)], vec![]));
    let [query, key] = &merged.rewritings[..] else { panic!("{merged:?}") };
    assert_eq!((query.value.as_str(), key.value.as_str()), ("query", "key"));
    assert_eq!(query.before, "mat_mul(x1, w1)");
    assert_eq!(query.steps[0].after, "slice(mat_mul(x1, concat(w1, w2)))");
    assert_eq!(query.after, "slice(mat_mul(x1, w3))");
    let symbols: Vec<_> = merged.symbols.iter().map(|symbol| (&*symbol.symbol, &*symbol.name, &*symbol.ty)).collect();
    assert_eq!(
        symbols,
        [
            ("x1", "x", "f32[5,4]"),
            ("w1", "query.weight", "f32[4,2]"),
            ("w2", "key.weight", "f32[4,2]"),
            ("w3", "", "f32[4,4]"),
        ]
    );
}

/// The norm is found only after the power and the root are in the form that its rule looks for: rules that another rule
/// builds on are told before it.
#[test]
fn rules_that_a_rule_builds_on_come_before_it() {
    let kernels = explained(
        r#"graph "norm" {
            input %0 "x": f32[5,4]
            const %1: f32[] = 2
            const %2: f32[] = 0.00001
            %3 "squares": f32[5,4] = pow(%0, %1) from "Pow"
            %4 "mean": f32[5,1] = reduce[axes=[1], function="mean"](%3) from "ReduceMean"
            %5 "sum": f32[5,1] = add(%4, %2) from "Add"
            %6 "root": f32[5,1] = sqrt(%5) from "Sqrt"
            %7 "scale": f32[5,1] = recip(%6) from "Reciprocal"
            %8 "y": f32[5,4] = mul(%0, %7) from "Mul"
            output "y" = %8
        }"#,
    );
    let [norm] = &kernels[..] else { panic!("{kernels:?}") };
    assert_eq!(rules(norm), [("reciprocal root", 1), ("small power", 1), ("RMS norm", 1)]);
    let [rewriting] = &norm.rewritings[..] else { panic!("{norm:?}") };
    assert_eq!(rewriting.after, "rms_norm(x1, 1)");
    // Each step goes on from a part of what the one before it has led to.
    assert_eq!(rewriting.steps[1].before, "pow(x1, 2)");
    assert_eq!(rewriting.steps[2].before, "mul(x1, rsqrt(add(reduce(mul(x1, x1)), 1e-5)))");
    assert!(rewriting.steps.iter().all(|step| !step.reversed));
}

#[test]
fn what_is_only_fused_has_no_rules() {
    let kernels = explained(
        r#"graph "fused" {
            input %0 "x": f32[5,4]
            %1: f32[5,4] = exp(%0) from "Exp"
            %2: f32[5,4] = sin(%1) from "Sin"
            output "y" = %2
        }"#,
    );
    assert_eq!(kernels, [KernelExplanation::default()]);
}
