//! The fastest design of stages that fits into a part.
//!
//! First the widths of all stages are doubled together, one after the other. Then stages for which no inference waits are made
//! narrower, and those for which it does are made wider, each for itself, as long as that saves cycles: whatever saves most for what
//! it takes.

use std::collections::HashSet;

use rayon::prelude::*;
use tcc_ir::Plan;

use super::evaluate::{Evaluated, Known, evaluate};
use super::mix::Mix;
use super::place::{Orders, place};
use crate::fpga::FpgaMachine;
use crate::fpga::lower::Widths;
use crate::fpga::place::Placed;
use crate::fpga::program::Times;
use crate::fpga::resources::Resources;
use crate::fpga::search::{Found, LEAST, LEAST_SHARE, Uses};
use crate::machine::Machine;
use crate::target::TargetError;

/// Times that widths are doubled for a stage until its kernel is another.
const DOUBLINGS: u32 = 3;

/// What is given up for smaller hardware, as a share of all cycles: many stages are widened, each of which has little of them.
const WORTH: f64 = 0.001;

/// What is widened together is worth at least this share of what is worth most.
const ALIKE: f64 = 0.5;

/// Times that stages are made narrower and wider, and steps of each.
const ROUNDS: usize = 4;
const MOST_STEPS: usize = 64;

/// So many times as slow as a design of the other style all stages may be together, to be looked at one by one.
const HOPE: f64 = 1.5;

/// Widths of some calls.
type Change = Vec<(usize, Widths)>;

/// The fastest design of stages, or why there is none. It is not looked for any further where it is out of sight of a rival that takes so
/// many cycles.
///
/// # Errors
/// A defect.
pub(in crate::fpga) fn search(
    machine: &Machine,
    facts: &FpgaMachine,
    plan: &Plan,
    (uses, rival): (&Uses, Option<u64>),
) -> Result<Result<Found, String>, TargetError> {
    let search = Search {
        machine,
        facts,
        plan,
        uses,
        budget: facts.budget(),
        mix: Mix::new(plan),
        orders: Orders::default(),
        known: Known::default(),
    };
    let mut now = match search.tried(&search.alike(LEAST)?)? {
        Ok((_, now)) => now,
        Err(why) => return Ok(Err(why)),
    };
    if !now.resources.fits(search.budget) {
        let (binding, share) = now.resources.binding(search.budget);
        return Ok(Err(format!("the smallest takes {:.0} % of the {binding} that it may", share * 100.0)));
    }
    let mut widths = search.together(&mut now)?;
    if rival.is_some_and(|rival| now.cycles as f64 > rival as f64 * HOPE) {
        return search.finish(&widths);
    }
    for _ in 0..ROUNDS {
        let before = now.cycles;
        search.narrow(&mut widths, &mut now)?;
        search.widen(&mut widths, &mut now)?;
        if now.cycles as f64 > before as f64 * (1.0 - WORTH) {
            break;
        }
    }
    search.narrow(&mut widths, &mut now)?;
    search.finish(&widths)
}

/// What a wider design gains, in cycles, for what it takes more of the resource that there is least of.
fn value_of(now: &Evaluated, wider: &Evaluated, budget: Resources) -> f64 {
    let share = |own: &Evaluated| own.resources.binding(budget).1;
    let more = (share(wider) - share(now)).max(LEAST_SHARE);
    now.cycles.saturating_sub(wider.cycles) as f64 / more
}

struct Search<'s> {
    machine: &'s Machine,
    facts: &'s FpgaMachine,
    plan: &'s Plan,
    uses: &'s Uses,
    budget: Resources,
    mix: Mix<'s>,
    orders: Orders,
    known: Known,
}

impl Search<'_> {
    /// A design whose calls have these widths, and how good it is; or why there is none.
    fn tried(&self, widths: &[Widths]) -> Result<Result<(Placed, Evaluated), String>, TargetError> {
        let Some(lowered) = self.mix.lowered(widths)? else {
            return Ok(Err("widths make other calls of the plan".to_owned()));
        };
        let lanes: Vec<u32> = widths.iter().map(|widths| widths.lanes).collect();
        let mut placed = match place(self.plan, &lowered, self.facts, &lanes, &self.orders) {
            Ok(placed) => placed,
            Err(why) => return Ok(Err(why)),
        };
        let evaluated = evaluate(&mut placed, (self.facts, self.machine.clock_hz), &self.known)?;
        Ok(Ok((placed, evaluated)))
    }

    /// The same with other widths for some calls, if it fits.
    fn with(&self, widths: &[Widths], change: &Change) -> Result<Option<Evaluated>, TargetError> {
        let mut widths = widths.to_vec();
        for &(call, own) in change {
            widths[call] = own;
        }
        let found = self.tried(&widths)?.ok().map(|(_, evaluated)| evaluated);
        Ok(found.filter(|found| found.resources.fits(self.budget)))
    }

    /// All of some changes that fit, in their order; the others are remembered.
    fn all(
        &self,
        widths: &[Widths],
        changes: Vec<Change>,
        idle: &mut HashSet<Change>,
    ) -> Result<Vec<(Change, Evaluated)>, TargetError> {
        let tried = changes.into_par_iter().map(|change| {
            let found = self.with(widths, &change)?;
            Ok((change, found))
        });
        let tried: Vec<(Change, Option<Evaluated>)> = tried.collect::<Result<_, TargetError>>()?;
        let mut fit = Vec::new();
        for (change, found) in tried {
            match found {
                Some(found) => fit.push((change, found)),
                None => {
                    idle.insert(change);
                }
            }
        }
        Ok(fit)
    }

    /// Doubles the widths of all calls, whatever saves most for what it takes.
    fn together(&self, now: &mut Evaluated) -> Result<Vec<Widths>, TargetError> {
        let mut own = LEAST;
        loop {
            let tried = self.uses.doubled(own).into_par_iter().map(|wider| {
                let found = self.tried(&self.alike(wider)?)?.ok().map(|(_, found)| found);
                Ok(found.filter(|found| found.resources.fits(self.budget)).map(|found| (wider, found)))
            });
            let tried: Vec<Option<(Widths, Evaluated)>> = tried.collect::<Result<_, TargetError>>()?;
            let needed = (now.cycles as f64 * (1.0 - WORTH)) as u64;
            let worth = tried.into_iter().flatten().filter(|(_, found)| found.cycles <= needed);
            let worth = worth.map(|(wider, found)| (value_of(now, &found, self.budget), wider, found));
            // Of equally good ones the first.
            let best = worth.reduce(|best, other| if other.0 > best.0 { other } else { best });
            let Some((_, wider, found)) = best else { return self.alike(own) };
            (own, *now) = (wider, found);
        }
    }

    /// The same widths for all calls that they make of the plan.
    fn alike(&self, widths: Widths) -> Result<Vec<Widths>, TargetError> {
        Ok(vec![widths; self.mix.of(widths)?.calls.len()])
    }

    /// Makes calls wider for which inferences wait.
    fn widen(&self, widths: &mut [Widths], now: &mut Evaluated) -> Result<(), TargetError> {
        // What was not worth it is not tried again.
        let mut idle: HashSet<Change> = HashSet::new();
        for _ in 0..MOST_STEPS {
            let needed = (now.cycles as f64 * (1.0 - WORTH)) as u64;
            let changes = self.wider(widths, now)?.into_iter().filter(|change| !idle.contains(change)).collect();
            let tried = self.all(widths, changes, &mut idle)?.into_iter();
            let (worth, others): (Vec<_>, Vec<_>) = tried.partition(|(_, found)| found.cycles <= needed);
            idle.extend(others.into_iter().map(|(change, _)| change));
            let worth = worth.into_iter();
            let mut worth: Vec<(f64, Change, Evaluated)> =
                worth.map(|(change, found)| (value_of(now, &found, self.budget), change, found)).collect();
            // Of equally good ones the first.
            worth.sort_by(|a, b| b.0.total_cmp(&a.0));
            let Some(best) = worth.first() else { return Ok(()) };
            let mut together = Change::new();
            for (_, change, _) in worth.iter().filter(|own| own.0 >= best.0 * ALIKE) {
                let is_new = |&(call, _): &(usize, Widths)| together.iter().all(|&(known, _)| known != call);
                if change.iter().all(is_new) {
                    together.extend(change);
                }
            }
            let joint = if together.len() > 1 { self.with(widths, &together)? } else { None };
            let joint = joint.filter(|joint| joint.cycles <= best.2.cycles);
            let (change, found) = match joint {
                Some(joint) => (together, joint),
                None => {
                    let (_, change, found) = worth.swap_remove(0);
                    (change, found)
                }
            };
            for (call, wider) in change {
                widths[call] = wider;
            }
            *now = found;
        }
        Ok(())
    }

    /// Makes calls narrower as far as no inference waits longer.
    fn narrow(&self, widths: &mut [Widths], now: &mut Evaluated) -> Result<(), TargetError> {
        let mut idle: HashSet<Change> = HashSet::new();
        for _ in 0..MOST_STEPS {
            let mut changes = Vec::new();
            for (call, &own) in widths.iter().enumerate() {
                let kernel = self.mix.kernel(call, own)?;
                for halve in [halve_lanes, halve_integers, halve_floats] {
                    let mut less = own;
                    for _ in 0..DOUBLINGS {
                        less = halve(less);
                        if less != own && self.mix.kernel(call, less)? != kernel {
                            changes.push(vec![(call, less)]);
                            break;
                        }
                    }
                }
            }
            let share = |found: &Evaluated| found.resources.binding(self.budget).1;
            changes.retain(|change| !idle.contains(change));
            let tried = self.all(widths, changes, &mut idle)?.into_iter();
            let (free, others): (Vec<_>, Vec<_>) =
                tried.partition(|(_, found)| found.cycles <= now.cycles && share(found) < share(now));
            idle.extend(others.into_iter().map(|(change, _)| change));
            let mut free: Vec<(f64, Change)> =
                free.into_iter().map(|(change, found)| (share(&found), change)).collect();
            free.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut moved = false;
            // Those that do no harm together, from what frees most on: halves of what is left, until it goes.
            let mut count = free.len();
            while count > 0 {
                let mut together = Change::new();
                for (_, change) in &free[..count] {
                    if change.iter().all(|&(call, _)| together.iter().all(|&(known, _)| known != call)) {
                        together.extend(change);
                    }
                }
                let found = self.with(widths, &together)?;
                if let Some(found) = found.filter(|found| found.cycles <= now.cycles && share(found) < share(now)) {
                    for (call, less) in together {
                        widths[call] = less;
                    }
                    (*now, moved) = (found, true);
                    break;
                }
                count /= 2;
            }
            if !moved {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What could be widened: each of the calls that an inference waits for.
    fn wider(&self, widths: &[Widths], now: &Evaluated) -> Result<Vec<Change>, TargetError> {
        let least = (now.cycles as f64 * WORTH) as u64;
        let mut waited = vec![0u64; now.first + widths.len()];
        for critical in &now.critical {
            if let Some(own) = critical.stage.and_then(|stage| waited.get_mut(stage)) {
                *own += critical.cycles;
            }
        }
        let mut changes: Vec<Change> = Vec::new();
        for (call, &own) in widths.iter().enumerate() {
            if waited[now.first + call] <= least {
                continue;
            }
            let kernel = self.mix.kernel(call, own)?;
            let mut add = |wider: Vec<Widths>| -> Result<(), TargetError> {
                for wider in wider {
                    if self.mix.kernel(call, wider)? != kernel {
                        changes.push(vec![(call, wider)]);
                        break;
                    }
                }
                Ok(())
            };
            let [lanes, integers, floats] = [Uses::wider_lanes, Uses::wider_integers, Uses::wider_floats];
            let both = |a: fn(&Uses, Widths) -> Option<Widths>, b: fn(&Uses, Widths) -> Option<Widths>| {
                move |uses: &Uses, own: Widths| a(uses, own).and_then(|own| b(uses, own))
            };
            add(self.doublings(own, lanes))?;
            add(self.doublings(own, integers))?;
            add(self.doublings(own, floats))?;
            // Some kernels need more lanes for more multiplications.
            add(self.doublings(own, both(lanes, integers)))?;
            add(self.doublings(own, both(lanes, floats)))?;
        }
        Ok(changes)
    }

    /// Widths that are widened so once, twice and so on.
    fn doublings(&self, own: Widths, wider: impl Fn(&Uses, Widths) -> Option<Widths>) -> Vec<Widths> {
        let all = std::iter::successors(wider(self.uses, own), |&own| wider(self.uses, own));
        all.take(DOUBLINGS as usize).collect()
    }

    /// A design with all that goes with it.
    fn finish(&self, widths: &[Widths]) -> Result<Result<Found, String>, TargetError> {
        let placed = match self.tried(widths)? {
            Ok((placed, _)) => placed,
            Err(why) => return Ok(Err(why)),
        };
        let Some(lowered) = self.mix.lowered(widths)? else {
            return Ok(Err("widths make other calls of the plan".to_owned()));
        };
        let what = (&placed.calls[..], &placed.buffers[..], &placed.loads[..]);
        let times = Times::new(&placed.design, what, self.facts, self.machine.clock_hz)?;
        let (cycles, resources) = (times.cycles(), times.resources(&placed.design, &placed.calls));
        Ok(Ok(Found { lowered, placed, times, cycles, resources }))
    }
}

fn halve_lanes(own: Widths) -> Widths {
    Widths { lanes: (own.lanes / 2).max(1), ..own }
}

fn halve_integers(own: Widths) -> Widths {
    Widths { integer_macs: (own.integer_macs / 2).max(1), ..own }
}

fn halve_floats(own: Widths) -> Widths {
    Widths { float_macs: (own.float_macs / 2).max(1), ..own }
}
