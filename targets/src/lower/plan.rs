//! From a graph to the plan that is lowered.

use tcc_ir::{Bytes, Graph, Op, Plan, ValueId};
use tcc_passes::{
    CostModel, Extraction, FusionLimits, KernelExplanation, Optimized, Outline, Places, Verdict, assemble, clean_up,
    fuse, integer_products, legalize, optimize, optimize_explained,
};

use super::legal;
use crate::explanation::{Explanation, PlanTaken};
use crate::optimizer::Block;
use crate::target::{Optimization, TargetError};

/// Most nodes in one kernel.
const KERNEL_NODES: usize = 24;

/// A plan, and how it came about.
pub(crate) struct Planned {
    pub plan: Plan,
    /// Its kernels, as they are told of.
    pub outline: Outline,
    /// What the optimiser did.
    pub blocks: Vec<Block>,
    /// Why kernels are as they are, where that was asked for.
    pub explanations: Vec<Vec<KernelExplanation>>,
}

impl Planned {
    /// Why its kernels are as they are.
    pub fn explanation(&mut self, optimization: Optimization) -> Explanation {
        let taken = if optimization == Optimization::None { PlanTaken::NotSearched } else { PlanTaken::Optimized };
        Explanation::new(taken, self.outline.clone(), &std::mem::take(&mut self.explanations))
    }
}

/// The plan that is lowered, explained or not: kernels cost what `costs` says, and `judge` says what one kernel computes once kernels
/// are chosen.
///
/// # Errors
/// The machine has no way to compute an operator, or a defect of the optimiser.
pub(crate) fn plan(
    graph: &Graph,
    (extraction, explained): (Option<Extraction>, bool),
    costs: &(impl CostModel + Sync),
    judge: &(impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync),
) -> Result<Planned, TargetError> {
    let searched = integer_products(graph)?;
    let Some(extraction) = extraction else {
        let legal = clean_up(&legalize(&searched, &legal::judge())?);
        let plan = fuse(legal, FusionLimits { row_bytes: Bytes(1 << 20), nodes: KERNEL_NODES });
        let outline = Outline::of_fused(&plan, &searched);
        return Ok(Planned { plan, outline, blocks: vec![Block::not_searched()], explanations: Vec::new() });
    };
    let (optimized, explanations) = match explained {
        true => optimize_explained(&searched, costs, judge, extraction)?,
        false => (optimize(&searched, costs, judge, extraction)?, Vec::new()),
    };
    let Optimized { graph, groups, places, blocks } = optimized;
    let places = Places::new(&groups, &places);
    let plan = assemble(graph, groups)?;
    let outline = Outline::of_optimized(&plan, &places, &blocks);
    Ok(Planned { plan, outline, blocks: blocks.iter().map(Block::from).collect(), explanations })
}
