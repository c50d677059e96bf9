//! Explanations of a build: which plan was taken, and why its kernels are what they are.

use std::fmt;

use serde::Serialize;
use tcc_passes::{KernelExplanation, KernelOutline, Outline, Place};

/// Which of the plans that were made was lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanTaken {
    /// The optimiser's.
    Optimized,
    /// The optimiser's, with kernels chosen greedily: scheduled, it is faster.
    GreedilyExtracted,
    /// That of straightforward fusion, since nothing was searched.
    NotSearched,
    /// That of straightforward fusion: scheduled, it is faster.
    FusionIsFaster,
    /// That of straightforward fusion, since the optimiser's kernels need more buffers than the machine has.
    FusionFits,
}

impl PlanTaken {
    /// Whether rewriting rules had a part in it.
    pub const fn is_searched(self) -> bool {
        matches!(self, PlanTaken::Optimized | PlanTaken::GreedilyExtracted)
    }
}

impl fmt::Display for PlanTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlanTaken::Optimized => "the plan of the optimiser was taken",
            PlanTaken::GreedilyExtracted => {
                "the plan of the optimiser with greedy extraction was taken: scheduled, it is faster"
            }
            PlanTaken::NotSearched => "nothing was searched: kernels were fused in one walk, without rewriting rules",
            PlanTaken::FusionIsFaster => {
                "the plan without search was taken, since it is faster once it is scheduled: kernels were fused in one \
                 walk, without rewriting rules"
            }
            PlanTaken::FusionFits => {
                "the plan without search was taken, since the optimiser's kernels do not fit on chip: kernels were fused \
                 in one walk, without rewriting rules"
            }
        })
    }
}

/// Why the kernels of a build are what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Which plan was lowered.
    pub plan_taken: PlanTaken,
    /// The distinct kernels, in the order in which they first run.
    pub explanations: Vec<ExplainedKernel>,
}

/// A distinct kernel with its explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedKernel {
    /// The first node of the model in its block; `None` for views that are written out between blocks.
    pub block_name: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub outline: KernelOutline,
    /// How it came to be.
    #[serde(flatten)]
    pub explanation: KernelExplanation,
}

impl Explanation {
    /// Explains the kernels of an outline by what is known of those of each block; nothing is, where nothing was rewritten.
    pub fn new(plan_taken: PlanTaken, outline: Outline, known: &[Vec<KernelExplanation>]) -> Self {
        let Outline { blocks, kernels } = outline;
        let explanations = kernels.into_iter().map(|outline| {
            let explanation = outline.place.and_then(|Place { block, kernel }| known.get(block)?.get(kernel)).cloned();
            ExplainedKernel {
                block_name: outline.block.map(|block| blocks[block].name.clone()),
                explanation: explanation.unwrap_or_default(),
                outline,
            }
        });
        Explanation { plan_taken, explanations: explanations.collect() }
    }
}
