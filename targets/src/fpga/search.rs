//! How much hardware a model is given: widths are doubled one by one, wherever that saves most cycles for what it takes, as long as
//! everything fits into the part; then some are doubled at the cost of others, as long as that helps. Where nothing but narrow designs
//! fits, it also begins with the narrowest.
//!
//! Every step writes, places and schedules the whole model for each of the widths that could be doubled, so that nothing is reckoned.

use std::collections::HashMap;

use rayon::prelude::*;
use tcc_ir::{DType, Op, Plan};

use super::FpgaMachine;
use super::design::Adders;
use super::lower::{Lowered, Widths, lower};
use super::place::{Placed, Shares, place};
use super::program::{Other, Times};
use super::resources::Resources;
use super::streaming;
use crate::machine::Machine;
use crate::target::TargetError;

/// The least of everything.
pub(super) const LEAST: Widths = Widths { lanes: 1, integer_macs: 1, float_macs: 1, has_engine: false };

/// Shares of the memory on the part that values are given, and that constants have with them. What is not on the part leaves room for
/// wider functions; values are given less only where nothing fits with the most.
const SHARES: [Shares; 6] = [
    Shares { values: 0.75, all: 0.75 },
    Shares { values: 0.75, all: 0.15 },
    Shares { values: 0.75, all: 0.0 },
    Shares { values: 0.4, all: 0.0 },
    Shares { values: 0.2, all: 0.0 },
    Shares { values: 0.0, all: 0.0 },
];

/// Most lanes of element-wise work: beats of 64 bytes of elements of two bytes, twice.
const MOST_LANES: u32 = 64;

/// Most multiply-accumulates in a cycle that are looked at.
const MOST_MACS: u32 = 1 << 14;

/// What is given up for smaller hardware, as a share of all cycles: doubling that gains less is not worth it.
const WORTH: f64 = 0.005;

/// What is slower than the fastest so far by more than one in so many parts is not near it.
const NEAR: u64 = 8;

/// What a narrower design may be slower by, as a share of all cycles.
const SLOWER: f64 = 0.001;

/// As many lanes, or fewer, are few.
const NARROW: u32 = 4;

/// Lanes of designs that the search begins with, and multiply-accumulates for each of them (assumed to be in proportion).
const FIRST_LANES: [u32; 3] = [64, 16, 4];
const INTEGER_MACS: u32 = 64;
const FLOAT_MACS: u32 = 8;

/// The least share of a resource that counts: less is as good as nothing.
pub(super) const LEAST_SHARE: f64 = 0.001;

/// A model in hardware of some widths.
pub(super) struct Found {
    pub lowered: Lowered,
    pub placed: Placed,
    pub times: Times,
    pub cycles: u64,
    pub resources: Resources,
}

impl Found {
    /// What a wider design gains, in cycles, for what it takes more of the resource that there is least of.
    fn value_of(&self, wider: &Found, budget: Resources) -> f64 {
        let share = |found: &Found| found.resources.binding(budget).1;
        let more = (share(wider) - share(self)).max(LEAST_SHARE);
        self.cycles.saturating_sub(wider.cycles) as f64 / more
    }
}

/// What of the widths a model has any use for.
pub(super) struct Uses {
    integers: bool,
    floats: bool,
    /// Whether there are products of integers, which may share an engine.
    products: bool,
}

impl Uses {
    fn of(plan: &Plan) -> Uses {
        let mut uses = Uses { integers: false, floats: false, products: false };
        for (_, node) in plan.graph.nodes() {
            if let Op::MatMul(_) = &node.op {
                let is_float = plan.graph.ty(node.inputs[0]).dtype.is_float();
                uses.floats |= is_float;
                uses.integers |= !is_float;
                uses.products |= !is_float;
            }
        }
        // Weights of few bits are multiplied as integers.
        let is_few = |dtype: DType| matches!(dtype, DType::I4 | DType::U4 | DType::I8 | DType::U8);
        uses.integers |= plan.graph.values().any(|(_, value)| is_few(value.ty.dtype));
        uses
    }

    /// Widths to begin with, from the widest on.
    fn first(&self) -> Vec<Widths> {
        let macs = |is_used: bool, macs: u32| if is_used { macs } else { 1 };
        let of = |lanes: u32| Widths {
            lanes,
            integer_macs: macs(self.integers, INTEGER_MACS * lanes),
            float_macs: macs(self.floats, FLOAT_MACS * lanes),
            has_engine: false,
        };
        let mut all: Vec<Widths> = FIRST_LANES.into_iter().map(of).chain([LEAST]).collect();
        if self.products {
            all.splice(0..0, FIRST_LANES.map(|lanes| Widths { has_engine: true, ..of(lanes) }));
        }
        all
    }

    /// Widths that have one of them halved.
    fn halved(&self, widths: Widths) -> Vec<Widths> {
        self.changes().into_iter().filter_map(|change| change(widths, -1)).collect()
    }

    /// The widths that a model has a use for: what changes one of them, by so many doublings, as far as that goes.
    fn changes(&self) -> Vec<fn(Widths, i32) -> Option<Widths>> {
        let mut all: Vec<fn(Widths, i32) -> Option<Widths>> =
            vec![|widths, by| Some(Widths { lanes: scaled(widths.lanes, by, MOST_LANES)?, ..widths })];
        if self.integers {
            all.push(|widths, by| Some(Widths { integer_macs: scaled(widths.integer_macs, by, MOST_MACS)?, ..widths }));
        }
        if self.floats {
            all.push(|widths, by| Some(Widths { float_macs: scaled(widths.float_macs, by, MOST_MACS)?, ..widths }));
        }
        all
    }

    /// Twice as many lanes.
    pub(super) fn wider_lanes(&self, widths: Widths) -> Option<Widths> {
        Some(Widths { lanes: scaled(widths.lanes, 1, MOST_LANES)?, ..widths })
    }

    /// Twice as many multiplications of integers, if there are any.
    pub(super) fn wider_integers(&self, widths: Widths) -> Option<Widths> {
        let integer_macs = scaled(widths.integer_macs, 1, MOST_MACS).filter(|_| self.integers)?;
        Some(Widths { integer_macs, ..widths })
    }

    /// Twice as many multiplications of floats, if there are any.
    pub(super) fn wider_floats(&self, widths: Widths) -> Option<Widths> {
        let float_macs = scaled(widths.float_macs, 1, MOST_MACS).filter(|_| self.floats)?;
        Some(Widths { float_macs, ..widths })
    }

    /// Widths that have one of them doubled.
    pub(super) fn doubled(&self, widths: Widths) -> Vec<Widths> {
        self.changes().into_iter().filter_map(|change| change(widths, 1)).collect()
    }

    /// Widths that have one of them doubled, once or twice, for another that is halved as often.
    fn exchanged(&self, widths: Widths) -> Vec<Widths> {
        let changes = self.changes();
        let mut all = Vec::new();
        for (wider, more) in changes.iter().enumerate() {
            for (narrower, less) in changes.iter().enumerate() {
                for by in [1, 2] {
                    let other = more(widths, by).and_then(|widths| less(widths, -by));
                    all.extend(other.filter(|_| wider != narrower));
                }
            }
        }
        all
    }
}

/// A width after so many doublings, if it is one.
fn scaled(width: u32, by: i32, most: u32) -> Option<u32> {
    let scaled = if by < 0 { width >> -by } else { width << by };
    (1..=most).contains(&scaled).then_some(scaled)
}

/// The fastest design that is found for a plan: the faster of a shared and a streaming one, and how far the other came.
///
/// # Errors
/// Nothing fits, or a defect.
pub(super) fn search(machine: &Machine, facts: &FpgaMachine, plan: &Plan) -> Result<(Found, Other), TargetError> {
    let uses = Uses::of(plan);
    let shared = shared(machine, facts, plan, &uses)?;
    let other = |found: &Found| Other { cycles: Some(found.cycles), why: String::new() };
    let rival = shared.as_ref().ok().map(|shared| shared.cycles);
    Ok(match (shared, streaming::search(machine, facts, plan, (&uses, rival))?) {
        (Ok(shared), Ok(streaming)) if streaming.cycles < shared.cycles => (streaming, other(&shared)),
        (Ok(shared), Ok(streaming)) => (shared, other(&streaming)),
        (Ok(shared), Err(why)) => (shared, Other { cycles: None, why }),
        (Err(error), Ok(streaming)) => (streaming, Other { cycles: None, why: error.to_string() }),
        (Err(error), Err(_)) => return Err(error),
    })
}

/// The fastest design whose functions a controller calls, or what there is too little of.
///
/// # Errors
/// A defect.
fn shared(
    machine: &Machine,
    facts: &FpgaMachine,
    plan: &Plan,
    uses: &Uses,
) -> Result<Result<Found, TargetError>, TargetError> {
    let budget = facts.budget();
    let mut widths: Option<Widths> = None;
    let mut best: Option<Found> = None;
    let mut least = None;
    let mut has_room = false;
    for shares in SHARES {
        if has_room && shares.values < SHARES[0].values {
            break;
        }
        let mut climb = Climb { machine, facts, plan, uses, shares, known: HashMap::new() };
        // What fits with more memory for constants fits with less.
        let first = widths.filter(|_| has_room).map_or_else(|| uses.first(), |widths| vec![widths]);
        let first = climb.all(first, u64::MAX)?;
        least = first.last().map(|(_, found)| found.resources);
        let mut fitting: Vec<_> = first.into_iter().filter(|(_, found)| found.resources.fits(budget)).collect();
        fitting.sort_by_key(|(_, found)| found.cycles);
        // On a part that has room for few lanes, the way up from the bottom may come out elsewhere.
        let is_narrow = fitting.first().is_some_and(|(own, _)| own.lanes <= NARROW);
        let mut starts = fitting.into_iter();
        has_room |= shares.values == SHARES[0].values && starts.len() > 0;
        let (first, last) = (starts.next(), starts.next_back().filter(|_| is_narrow));
        for start in first.into_iter().chain(last) {
            let (own, now) = climb.up(start, best.as_ref().map(|best| best.cycles))?;
            if best.as_ref().is_none_or(|best| now.cycles < best.cycles) {
                (widths, best) = (Some(own), Some(now));
            }
        }
    }
    Ok(best.ok_or_else(|| {
        let needed = least.unwrap_or_default();
        let (binding, _) = needed.binding(budget);
        let amount = |resources: Resources| {
            resources.named().into_iter().find(|(name, _)| *name == binding).map_or(0, |(_, amount)| amount)
        };
        TargetError::TooLarge {
            what: format!("the smallest design for model `{}`", plan.graph.name()),
            machine: machine.name.clone(),
            resource: binding.to_owned(),
            needed: amount(needed),
            capacity: amount(budget),
            hint: "choose a larger part, or smaller dimensions".to_owned(),
        }
    }))
}

/// The way from narrow designs to wide ones, with memories that have some shares of the part.
struct Climb<'s> {
    machine: &'s Machine,
    facts: &'s FpgaMachine,
    plan: &'s Plan,
    uses: &'s Uses,
    shares: Shares,
    /// What has been tried: how many cycles it takes, if it fits.
    known: HashMap<Widths, Option<u64>>,
}

impl Climb<'_> {
    /// Of some widths those that take no more than so many cycles, or that nothing is known of yet.
    fn all(&mut self, candidates: Vec<Widths>, most: u64) -> Result<Vec<(Widths, Found)>, TargetError> {
        let Climb { machine, facts, plan, shares, ref known, .. } = *self;
        let may_be = |widths: &Widths| known.get(widths).is_none_or(|known| known.is_some_and(|own| own <= most));
        let tried = |widths| Ok((widths, tried(machine, facts, plan, (widths, shares))?));
        let candidates: Vec<Widths> = candidates.into_iter().filter(may_be).collect();
        let all: Vec<(Widths, Found)> = candidates.into_par_iter().map(tried).collect::<Result<_, TargetError>>()?;
        let fits = |found: &Found| found.resources.fits(facts.budget()).then_some(found.cycles);
        self.known.extend(all.iter().map(|(widths, found)| (*widths, fits(found))));
        Ok(all)
    }

    /// The fastest design on the way up from one, as narrow as it may be. What comes nowhere near so many cycles is gone on with no
    /// further than doubling widths leads.
    fn up(&mut self, (mut own, mut now): (Widths, Found), known: Option<u64>) -> Result<(Widths, Found), TargetError> {
        let (uses, budget) = (self.uses, self.facts.budget());
        loop {
            let needed = (now.cycles as f64 * (1.0 - WORTH)) as u64;
            let is_worth = |found: &Found| found.resources.fits(budget) && found.cycles <= needed;
            let wider = self.all(uses.doubled(own), needed)?.into_iter().filter(|(_, found)| is_worth(found));
            // Of equally good ones the first.
            let best = wider.map(|(wider, found)| (now.value_of(&found, budget), wider, found));
            let best = best.reduce(|best, other| if other.0 > best.0 { other } else { best });
            if let Some((_, wider, found)) = best {
                (own, now) = (wider, found);
                continue;
            }
            if known.is_some_and(|known| now.cycles > known.saturating_add(known / NEAR)) {
                return Ok((own, now));
            }
            // Where nothing more fits, something may do more good than something else does.
            let other = self.all(uses.exchanged(own), needed)?.into_iter().filter(|(_, found)| is_worth(found));
            let Some((other, found)) = other.min_by_key(|(_, found)| found.cycles) else { break };
            (own, now) = (other, found);
        }
        // What is wider than anything needs is made narrower.
        loop {
            let most = (now.cycles as f64 * (1.0 + SLOWER)) as u64;
            let share = |found: &Found| found.resources.binding(budget).1;
            let narrower = self.all(uses.halved(own), most)?.into_iter();
            let narrower = narrower.filter(|(_, found)| found.cycles <= most && share(found) < share(&now));
            let Some((narrower, found)) = narrower.min_by(|a, b| share(&a.1).total_cmp(&share(&b.1))) else { break };
            (own, now) = (narrower, found);
        }
        Ok((own, now))
    }
}

/// A model in hardware of some widths.
fn tried(
    machine: &Machine,
    facts: &FpgaMachine,
    plan: &Plan,
    (widths, shares): (Widths, Shares),
) -> Result<Found, TargetError> {
    let lowered = lower(plan, widths)?;
    let mut placed = place(plan, &lowered, (facts, machine.clock_hz), (widths, shares))?;
    let what = (&placed.calls[..], &placed.buffers[..], &placed.loads[..]);
    let times = Times::new(&placed.design, what, facts, machine.clock_hz)?;
    // Adders are built from what there is more of.
    let budget = facts.budget();
    let logic = |resources: Resources| Resources { luts: resources.luts, dsps: resources.dsps, ..Resources::default() };
    let built = Adders::ALL.map(|adders| {
        placed.design.adders = adders;
        (adders, times.resources(&placed.design, &placed.calls))
    });
    let share = |resources: Resources| logic(resources).binding(budget).1;
    let [fabric, slices] = built;
    let (adders, resources) = if share(slices.1) < share(fabric.1) { slices } else { fabric };
    placed.design.adders = adders;
    let cycles = times.cycles();
    Ok(Found { lowered, placed, times, cycles, resources })
}
