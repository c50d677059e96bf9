//! How much hardware a model is given: widths are doubled one by one, wherever that makes the whole model fastest, as long as
//! everything fits into the part.
//!
//! Every step writes, places and schedules the whole model for each of the widths that could be doubled, so that nothing is reckoned.

use rayon::prelude::*;
use tcc_ir::{Op, Plan};

use super::FpgaMachine;
use super::lower::{Lowered, Widths, lower};
use super::place::{Placed, place};
use super::program::Times;
use super::resources::Resources;
use crate::machine::Machine;
use crate::target::TargetError;

/// The least of everything.
const LEAST: Widths = Widths { lanes: 1, integer_macs: 1, float_macs: 1 };

/// Shares of the memory on the part that values and constants are given: the first with which the smallest design fits.
const SHARES: [f64; 4] = [0.75, 0.4, 0.15, 0.0];

/// Most lanes of element-wise work: beats of 64 bytes of elements of two bytes, twice.
const MOST_LANES: u32 = 64;

/// Most multiply-accumulates in a cycle that are looked at.
const MOST_MACS: u32 = 1 << 14;

/// What is given up for smaller hardware, as a share of all cycles: doubling that gains less is not worth it.
const WORTH: f64 = 0.005;

/// A model in hardware of some widths.
pub(super) struct Found {
    pub lowered: Lowered,
    pub placed: Placed,
    pub times: Times,
    pub cycles: u64,
    pub resources: Resources,
}

/// What of the widths a model has any use for.
struct Uses {
    integers: bool,
    floats: bool,
}

impl Uses {
    fn of(plan: &Plan) -> Uses {
        let mut uses = Uses { integers: false, floats: false };
        for (_, node) in plan.graph.nodes() {
            if let Op::MatMul(_) = &node.op {
                let is_float = plan.graph.ty(node.inputs[0]).dtype.is_float();
                uses.floats |= is_float;
                // Weights of few bits are multiplied as integers.
                uses.integers |= !is_float;
            }
        }
        uses
    }

    /// Widths that have one of them doubled.
    fn doubled(&self, widths: Widths) -> Vec<Widths> {
        let mut all = Vec::new();
        if widths.lanes < MOST_LANES {
            all.push(Widths { lanes: widths.lanes * 2, ..widths });
        }
        if self.integers && widths.integer_macs < MOST_MACS {
            all.push(Widths { integer_macs: widths.integer_macs * 2, ..widths });
        }
        if self.floats && widths.float_macs < MOST_MACS {
            all.push(Widths { float_macs: widths.float_macs * 2, ..widths });
        }
        all
    }
}

/// The fastest design that is found for a plan.
///
/// # Errors
/// Nothing fits, or a defect.
pub(super) fn search(machine: &Machine, facts: &FpgaMachine, plan: &Plan) -> Result<Found, TargetError> {
    let budget = facts.budget();
    let uses = Uses::of(plan);
    let mut widths = LEAST;
    let mut shares = SHARES.into_iter();
    let mut share = shares.next().unwrap_or_default();
    let mut best = tried(machine, facts, plan, (widths, share))?;
    while !best.resources.fits(budget)
        && let Some(less) = shares.next()
    {
        share = less;
        best = tried(machine, facts, plan, (widths, share))?;
    }
    if !best.resources.fits(budget) {
        let (binding, _) = best.resources.binding(budget);
        let amount = |resources: Resources| {
            resources.named().into_iter().find(|(name, _)| *name == binding).map_or(0, |(_, amount)| amount)
        };
        return Err(TargetError::TooLarge {
            what: format!("the smallest design for model `{}`", plan.graph.name()),
            machine: machine.name.clone(),
            resource: binding.to_owned(),
            needed: amount(best.resources),
            capacity: amount(budget),
            hint: "choose a larger part, or smaller dimensions".to_owned(),
        });
    }
    loop {
        let candidates = uses.doubled(widths);
        let tried: Vec<(Widths, Found)> = candidates
            .into_par_iter()
            .map(|widths| Ok((widths, tried(machine, facts, plan, (widths, share))?)))
            .collect::<Result<_, TargetError>>()?;
        let fitting = tried.into_iter().filter(|(_, found)| found.resources.fits(budget));
        // Of equally fast ones the first.
        let Some((wider, found)) = fitting.min_by_key(|(_, found)| found.cycles) else { break };
        let needed = (best.cycles as f64 * (1.0 - WORTH)) as u64;
        if found.cycles > needed {
            break;
        }
        (widths, best) = (wider, found);
    }
    Ok(best)
}

/// A model in hardware of some widths.
fn tried(
    machine: &Machine,
    facts: &FpgaMachine,
    plan: &Plan,
    (widths, share): (Widths, f64),
) -> Result<Found, TargetError> {
    let lowered = lower(plan, widths)?;
    let placed = place(plan, &lowered, facts, (widths, share))?;
    let times = Times::new(&placed.design, &placed.calls, facts, machine.clock_hz)?;
    let (cycles, resources) = (times.cycles(&placed.calls), times.resources(&placed.design));
    Ok(Found { lowered, placed, times, cycles, resources })
}
