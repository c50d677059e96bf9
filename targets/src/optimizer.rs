//! What the optimiser did to the blocks of a model, as compiled programs of all kinds keep it for their reports.

use tcc_passes::{BlockReport, Extraction, stop_reason};

use crate::report::OptimizerReport;
use crate::target::Optimization;

/// Most states that exact extraction reaches for one block. Blocks of float models take tens to hundreds.
const EXTRACTION_STATES: usize = 5_000;

/// How extraction chooses; `None` where nothing is searched.
pub fn extraction(optimization: Optimization) -> Option<Extraction> {
    extraction_of(optimization, EXTRACTION_STATES)
}

/// The same with so many states at most, for targets that have more to choose from.
pub fn extraction_of(optimization: Optimization, states: usize) -> Option<Extraction> {
    match optimization {
        Optimization::None => None,
        Optimization::Greedy => Some(Extraction::Greedy),
        Optimization::Exact => Some(Extraction::Exact { states }),
    }
}

mod format {
    #![allow(missing_docs, reason = "generated from optimizer.proto, whose comments prost carries over")]
    include!(concat!(env!("OUT_DIR"), "/tcc.optimizer.rs"));
}

pub use format::Block;

impl From<&BlockReport> for Block {
    fn from(report: &BlockReport) -> Self {
        Block {
            name: report.name.to_string(),
            repeats: report.repeats as u64,
            kernels: report.kernels as u64,
            e_nodes: report.e_nodes as u64,
            cost: report.cost,
            bound: report.certificate.map(|certificate| certificate.bound),
            stopped: stop_reason(&report.saturation, report.certificate.as_ref()),
        }
    }
}

impl Block {
    /// What is told where nothing was searched.
    pub fn not_searched() -> Self {
        Block {
            name: "whole model".to_owned(),
            repeats: 1,
            stopped: "straightforward fusion in one walk; no search".to_owned(),
            ..Block::default()
        }
    }
}

/// A block as reports show it.
pub fn report(block: &Block) -> OptimizerReport {
    let cost = block.cost as f64;
    let gap = |bound: u64| if bound == 0 { 0.0 } else { cost / bound as f64 - 1.0 };
    OptimizerReport {
        block: block.name.clone(),
        repeats: block.repeats,
        kernels: block.kernels,
        e_nodes: block.e_nodes,
        cost,
        bound: block.bound.map(|bound| bound as f64),
        gap: block.bound.map(gap),
        stopped: block.stopped.clone(),
    }
}
