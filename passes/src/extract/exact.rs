//! The exact solution: best-first search over states, with a bound that is never too high.
//!
//! The search expands the state that promises the least total. When it takes out a state in which nothing is demanded
//! any more, that solution is the best. When it has reached as many states as it may, what the best open state promises
//! is a lower bound of the best solution.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::bits::Bits;
use super::greedy::greedy;
use super::problem::{Index, Problem, Solution};

/// How good a solution is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// No solution costs less than this, in cycles.
    pub bound: u64,
    /// States that were reached.
    pub states: usize,
    /// Whether the search gave up at the limit of states.
    pub limit_hit: bool,
}

/// The best solution, or the best that was found within `limit` states. `None` if something demanded cannot be had.
pub fn exact(problem: &Problem, limit: usize) -> Option<(Solution, Certificate)> {
    let mut best = greedy(problem)?;
    let index = Index::new(problem);
    let estimate = Estimate::new(&index);
    // A search that trusts the estimate too much arrives sooner, if perhaps not at the best: a start for the one that
    // proves.
    for trust in [4, 2] {
        let hasty = Search::new(&index, &estimate, trust).run(limit / 8, best.cost);
        best = hasty.found.unwrap_or(best);
    }
    let Outcome { found, bound, states, limit_hit } = Search::new(&index, &estimate, 1).run(limit, best.cost);
    let best = found.unwrap_or(best);
    let certificate = Certificate { bound: bound.min(best.cost), states, limit_hit };
    Some((best, certificate))
}

/// How a search ended.
struct Outcome {
    /// A solution that costs less than what was known before.
    found: Option<Solution>,
    /// No solution costs less than this, if the estimate was not multiplied.
    bound: u64,
    states: usize,
    limit_hit: bool,
}

/// A state that was reached.
struct Reached {
    state: Bits,
    /// What it cost to come here, from the end.
    paid: u64,
    /// The state before, the choice that led here, and the values taken from it.
    before: Option<(usize, usize, Vec<usize>)>,
    /// What it had cost to come here when it was expanded.
    expanded: Option<u64>,
    /// What the rest costs at least.
    rest: u64,
}

struct Search<'a> {
    index: &'a Index<'a>,
    estimate: &'a Estimate,
    /// What the estimate is multiplied by. More than 1 makes haste.
    trust: u64,
    known: Vec<Reached>,
    numbers: HashMap<Bits, usize>,
}

impl<'a> Search<'a> {
    fn new(index: &'a Index<'a>, estimate: &'a Estimate, trust: u64) -> Self {
        Search { index, estimate, trust, known: Vec::new(), numbers: HashMap::new() }
    }

    /// Looks for a solution that costs less than `best`, until more than `limit` states are known.
    fn run(mut self, limit: usize, best: u64) -> Outcome {
        let mut open: BinaryHeap<Reverse<(u64, u64, usize)>> = BinaryHeap::new();
        let first = self.number(self.index.start(), 0, None);
        open.push(Reverse((self.promise(first), u64::MAX, first)));
        while let Some(Reverse((promise, tie, state))) = open.pop() {
            let node = &self.known[state];
            if promise > self.promise(state) || node.expanded == Some(node.paid) {
                continue;
            }
            if node.paid.saturating_add(node.rest) >= best {
                // With the plain estimate no other state promises less.
                if self.trust == 1 {
                    return Outcome { found: None, bound: best, states: self.known.len(), limit_hit: false };
                }
                continue;
            }
            if node.state.is_empty() {
                return Outcome {
                    found: Some(self.solution(state)),
                    bound: node.paid,
                    states: self.known.len(),
                    limit_hit: false,
                };
            }
            if self.known.len() > limit {
                return Outcome { found: None, bound: promise, states: self.known.len(), limit_hit: true };
            }
            let (paid, from) = (node.paid, node.state.clone());
            self.known[state].expanded = Some(paid);
            for (number, given) in self.index.branches(&from) {
                let (next, cost) = self.index.step(&from, number, &given);
                let paid = paid + cost;
                let next = self.number(next, paid, Some((state, number, given)));
                if self.known[next].paid == paid && self.known[next].expanded != Some(paid) {
                    // Of equal promises the one that is further on.
                    open.push(Reverse((self.promise(next), tie - 1, next)));
                }
            }
        }
        Outcome { found: None, bound: best, states: self.known.len(), limit_hit: false }
    }

    /// The number of a state, which is now known to be reached at this cost if that is less than before.
    fn number(&mut self, state: Bits, paid: u64, before: Option<(usize, usize, Vec<usize>)>) -> usize {
        if let Some(&number) = self.numbers.get(&state) {
            let reached = &mut self.known[number];
            if paid < reached.paid {
                (reached.paid, reached.before) = (paid, before);
            }
            return number;
        }
        let number = self.known.len();
        let rest = self.estimate.rest(self.index, &state);
        self.numbers.insert(state.clone(), number);
        self.known.push(Reached { state, paid, before, expanded: None, rest });
        number
    }

    fn promise(&self, state: usize) -> u64 {
        self.known[state].paid.saturating_add(self.known[state].rest.saturating_mul(self.trust))
    }

    fn solution(&self, last: usize) -> Solution {
        let mut steps = Vec::new();
        let mut at = last;
        while let Some((before, number, given)) = &self.known[at].before {
            steps.push((*number, given.clone()));
            at = *before;
        }
        // The search ran from the end, so that walking back from where it arrived gives the order of execution.
        Solution { steps, cost: self.known[last].paid }
    }
}

/// What a state costs at least.
struct Estimate {
    /// For each value the dearest chain of choices that any way to it holds.
    chain: Vec<u64>,
    /// For each value all values that every way to it computes.
    needed: Vec<Bits>,
    /// For each value a share of the cost of choices that is paid whenever it is computed.
    share: Vec<u64>,
    /// For each value what it costs at least to write it when it is demanded.
    write: Vec<u64>,
}

impl Estimate {
    fn new(index: &Index<'_>) -> Self {
        let problem = index.problem;
        let usable: Vec<usize> =
            (0..problem.choices.len()).filter(|&number| index.usable(&problem.choices[number])).collect();
        let needed = needed(index, &usable);
        let share = shares(index, &usable, &union(index, &needed, &index.start()));
        Estimate { chain: chains(index, &usable), needed, share, write: writes(index, &usable) }
    }

    fn rest(&self, index: &Index<'_>, state: &Bits) -> u64 {
        let longest = state.iter().map(|value| self.chain[value]).max().unwrap_or(0);
        let shares: u64 = union(index, &self.needed, state).iter().map(|value| self.share[value]).sum();
        let writes: u64 = state.iter().map(|value| self.write[value]).sum();
        longest.max(shares + writes)
    }
}

/// All that is in the sets of the values of a state.
fn union(index: &Index<'_>, sets: &[Bits], state: &Bits) -> Bits {
    let mut all = Bits::new(index.problem.write_costs.len());
    state.iter().for_each(|value| {
        all.union(&sets[value]);
    });
    all
}

/// What it costs to write each value, if there is no way to have it that writes nothing.
fn writes(index: &Index<'_>, usable: &[usize]) -> Vec<u64> {
    let mut writes = index.problem.write_costs.clone();
    for choice in usable.iter().map(|&number| &index.problem.choices[number]).filter(|choice| !choice.writes) {
        choice.gives.iter().for_each(|&value| writes[value] = 0);
    }
    writes
}

/// The least over the ways to a value of the way's cost and the dearest chain below it.
fn chains(index: &Index<'_>, usable: &[usize]) -> Vec<u64> {
    let problem = index.problem;
    let mut chain: Vec<u64> = problem.given.iter().map(|&given| if given { 0 } else { u64::MAX }).collect();
    loop {
        let mut changed = false;
        for &number in usable {
            let choice = &problem.choices[number];
            let below = choice.takes.iter().map(|&value| chain[value]).max().unwrap_or(0);
            for &value in &choice.gives {
                let write = if choice.writes { problem.write_costs[value] } else { 0 };
                let cost = below.saturating_add(choice.cost).saturating_add(write);
                if cost < chain[value] {
                    chain[value] = cost;
                    changed = true;
                }
            }
        }
        if !changed {
            return chain;
        }
    }
}

/// The values that are computed on every way to a value, itself among them: the greatest sets for which that holds.
fn needed(index: &Index<'_>, usable: &[usize]) -> Vec<Bits> {
    let problem = index.problem;
    let values = problem.write_costs.len();
    let mut all = Bits::new(values);
    (0..values).for_each(|value| all.insert(value));
    let mut needed: Vec<Bits> =
        problem.given.iter().map(|&given| if given { Bits::new(values) } else { all.clone() }).collect();
    loop {
        let mut changed = false;
        let mut next: Vec<Option<Bits>> = vec![None; values];
        for &number in usable {
            let choice = &problem.choices[number];
            let mut way = Bits::new(values);
            choice.takes.iter().for_each(|&value| {
                way.union(&needed[value]);
            });
            choice.gives.iter().for_each(|&value| way.insert(value));
            for &value in choice.gives.iter().filter(|&&value| !problem.given[value]) {
                match &mut next[value] {
                    Some(common) => common.intersect(&way),
                    none => *none = Some(way.clone()),
                }
            }
        }
        for (value, common) in next.into_iter().enumerate() {
            if let Some(common) = common
                && common != needed[value]
            {
                needed[value] = common;
                changed = true;
            }
        }
        if !changed {
            return needed;
        }
    }
}

/// Shares of the values in the cost of choices, such that those of all values that a choice gives are never more than its
/// cost: the shares of a set of values are then never more than what computing them all costs, since every choice that
/// is carried out pays its cost. What views of its values give counts as given by a choice, so that a product that was
/// made of several bears their shares together. The values that are `wanted` have the first claim.
fn shares(index: &Index<'_>, usable: &[usize], wanted: &Bits) -> Vec<u64> {
    let problem = index.problem;
    let values = problem.write_costs.len();
    // What costs nothing and takes one value is paid for by whatever gives that.
    let source = |number: usize| match problem.choices[number].takes[..] {
        [taken] if problem.choices[number].cost == 0 && !problem.given[taken] => Some(taken),
        _ => None,
    };
    let (free, paid): (Vec<usize>, Vec<usize>) = usable.iter().partition(|&&number| source(number).is_some());
    let mut views = vec![Vec::new(); values];
    for number in free {
        if let Some(taken) = source(number) {
            views[taken].extend(&problem.choices[number].gives);
        }
    }
    // What is left of the cost of the choices, and which of them give each value.
    let mut left: Vec<u64> = paid.iter().map(|&number| problem.choices[number].cost).collect();
    let mut payers: Vec<Vec<usize>> = vec![Vec::new(); values];
    for (payer, &number) in paid.iter().enumerate() {
        let mut seen = Bits::new(values);
        let mut open = problem.choices[number].gives.clone();
        while let Some(value) = open.pop() {
            if !seen.contains(value) {
                seen.insert(value);
                payers[value].push(payer);
                open.extend(&views[value]);
            }
        }
    }
    let mut share = vec![0; values];
    let others = (0..values).filter(|&value| !wanted.contains(value) && !problem.given[value]);
    for value in wanted.iter().chain(others) {
        share[value] = payers[value].iter().map(|&payer| left[payer]).min().unwrap_or(0);
        payers[value].iter().for_each(|&payer| left[payer] -= share[value]);
    }
    share
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use proptest::prelude::*;

    use super::super::problem::Choice;
    use super::*;

    /// The least cost by trying every set of choices and every way to take values from them.
    fn brute_force(problem: &Problem) -> Option<u64> {
        let choices = problem.choices.len();
        (0u32..1 << choices).filter_map(|set| cheapest_of(problem, set)).min()
    }

    fn cheapest_of(problem: &Problem, set: u32) -> Option<u64> {
        let chosen: Vec<usize> = (0..problem.choices.len()).filter(|number| set >> number & 1 == 1).collect();
        let mut wanted: Vec<usize> = problem.demanded.clone();
        chosen.iter().for_each(|&number| wanted.extend(&problem.choices[number].takes));
        wanted.retain(|&value| !problem.given[value]);
        wanted.sort_unstable();
        wanted.dedup();
        let cost: u64 = chosen.iter().map(|&number| problem.choices[number].cost).sum();
        let mut best = None;
        assign(problem, &chosen, &wanted, &mut vec![], cost, &mut best);
        best
    }

    /// Takes every wanted value from every choice that gives it, and keeps what can run in some order.
    fn assign(
        problem: &Problem,
        chosen: &[usize],
        wanted: &[usize],
        from: &mut Vec<usize>,
        cost: u64,
        best: &mut Option<u64>,
    ) {
        if best.is_some_and(|best| best <= cost) {
            return;
        }
        if from.len() == wanted.len() {
            let source = |value: usize| wanted.binary_search(&value).ok().map(|at| from[at]);
            let mut done: Vec<usize> = Vec::new();
            loop {
                let ready = chosen.iter().copied().find(|number| {
                    !done.contains(number)
                        && problem.choices[*number].takes.iter().all(|&value| {
                            problem.given[value] || source(value).is_some_and(|number| done.contains(&number))
                        })
                });
                match ready {
                    Some(number) => done.push(number),
                    None => break,
                }
            }
            if done.len() == chosen.len() {
                *best = Some(cost);
            }
            return;
        }
        let value = wanted[from.len()];
        for &number in chosen.iter().filter(|&&number| problem.choices[number].gives.contains(&value)) {
            let write = if problem.choices[number].writes { problem.write_costs[value] } else { 0 };
            from.push(number);
            assign(problem, chosen, wanted, from, cost + write, best);
            from.pop();
        }
    }

    fn problems() -> impl Strategy<Value = Problem> {
        let values = 7usize;
        let set = proptest::collection::btree_set(0..values, 1..4);
        let choice = (set.clone(), proptest::collection::btree_set(0..values, 0..4), 0u64..20, any::<bool>());
        let choices = proptest::collection::vec(choice, 1..9);
        (choices, proptest::collection::vec(0u64..5, values), set, proptest::collection::vec(0..8usize, values))
            .prop_map(|(choices, write_costs, demanded, given)| Problem {
                write_costs,
                choices: choices
                    .into_iter()
                    .map(|(gives, takes, cost, writes)| Choice {
                        takes: takes.difference(&gives).copied().collect(),
                        gives: gives.into_iter().collect(),
                        cost,
                        writes,
                    })
                    .collect(),
                demanded: demanded.into_iter().collect(),
                given: given.into_iter().map(|dice| dice == 0).collect(),
            })
    }

    /// What a solution costs, if it is one: every value is there when it is taken.
    fn price(problem: &Problem, solution: &Solution) -> Option<u64> {
        let mut there = problem.given.clone();
        let mut cost = 0;
        for (number, given) in &solution.steps {
            let choice = &problem.choices[*number];
            if !choice.takes.iter().all(|&value| there[value]) {
                return None;
            }
            cost += choice.cost;
            for &value in given {
                there[value] = true;
                cost += if choice.writes { problem.write_costs[value] } else { 0 };
            }
        }
        problem.demanded.iter().all(|&value| there[value]).then_some(cost)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// What is called the best is the best, and can be run; without a limit and with one the bound holds.
        #[test]
        fn exact_is_as_good_as_trying_everything(problem in problems()) {
            let best = brute_force(&problem);
            let found = exact(&problem, usize::MAX);
            prop_assert_eq!(best, found.as_ref().map(|(solution, _)| solution.cost));
            let Some((solution, certificate)) = found else { return Ok(()) };
            prop_assert_eq!(certificate.bound, solution.cost);
            prop_assert_eq!(price(&problem, &solution), Some(solution.cost));
            for limit in [0, 1, 3] {
                let (limited, certificate) = exact(&problem, limit).unwrap();
                prop_assert!(certificate.bound <= solution.cost && solution.cost <= limited.cost);
                prop_assert_eq!(price(&problem, &limited), Some(limited.cost));
            }
            let greedy = greedy(&problem).unwrap();
            prop_assert_eq!(price(&problem, &greedy), Some(greedy.cost));
        }
    }
}
