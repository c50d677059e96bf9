//! What a graph becomes, and why, for people.

use tcc_ir::{Graph, Plan};
use tcc_passes::{Extraction, KernelExplanation, Optimized, Outline, Places, optimize, optimize_explained};

use super::compile::{KERNEL_NODES, Source, assembled, fuse_up_to, legal, searched};
use super::cost::SystolicCosts;
use super::{SystolicMachine, legal as judges};
use crate::explanation::Explanation;
use crate::optimizer::extraction;
use crate::target::{Optimization, TargetError};

/// Explains the plan that a program was lowered from. It is made a second time, so that a program is the same whether or
/// not it is explained.
pub(super) fn explain(graph: &Graph, facts: &SystolicMachine, source: Source) -> Result<Explanation, TargetError> {
    match source {
        Source::Fused(taken, nodes) => Ok(Explanation::new(taken, fused(graph, facts, nodes)?, &[])),
        Source::Searched(taken, extraction) => {
            let (optimized, explanations) = explained(graph, facts, extraction)?;
            Ok(Explanation::new(taken, planned(optimized, facts)?.1, &explanations))
        }
    }
}

/// A plan, made by an optimiser that explains itself.
pub(super) fn plan(
    graph: &Graph,
    facts: &SystolicMachine,
    optimization: Optimization,
) -> Result<(Plan, Vec<Vec<KernelExplanation>>), TargetError> {
    match extraction(optimization) {
        None => Ok((fuse_up_to(KERNEL_NODES[0], legal(graph, facts)?, facts), Vec::new())),
        Some(extraction) => {
            let (optimized, explanations) = explained(graph, facts, extraction)?;
            Ok((planned(optimized, facts)?.0, explanations))
        }
    }
}

fn explained(
    graph: &Graph,
    facts: &SystolicMachine,
    extraction: Extraction,
) -> Result<(Optimized, Vec<Vec<KernelExplanation>>), TargetError> {
    Ok(optimize_explained(
        &*searched(graph)?,
        &SystolicCosts::new(facts),
        &judges::judge_fused(&facts.array),
        extraction,
    )?)
}

/// The kernels that a graph becomes by the optimiser or without it.
pub(super) fn outline(
    graph: &Graph,
    facts: &SystolicMachine,
    optimization: Optimization,
) -> Result<Outline, TargetError> {
    let Some(extraction) = extraction(optimization) else { return fused(graph, facts, KERNEL_NODES[0]) };
    let optimized =
        optimize(&*searched(graph)?, &SystolicCosts::new(facts), &judges::judge_fused(&facts.array), extraction)?;
    Ok(planned(optimized, facts)?.1)
}

fn fused(graph: &Graph, facts: &SystolicMachine, nodes: usize) -> Result<Outline, TargetError> {
    let plan = fuse_up_to(nodes, legal(graph, facts)?, facts);
    Ok(Outline::of_fused(&plan, &*searched(graph)?))
}

fn planned(optimized: Optimized, facts: &SystolicMachine) -> Result<(Plan, Outline), TargetError> {
    let Optimized { graph, groups, places, blocks } = optimized;
    let places = Places::new(&groups, &places);
    let plan = assembled(graph, groups, facts)?;
    let outline = Outline::of_optimized(&plan, &places, &blocks);
    Ok((plan, outline))
}
