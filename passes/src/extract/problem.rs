//! The problem that extraction solves.

use super::bits::Bits;

/// One way to get values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The values that it gives.
    pub gives: Vec<usize>,
    /// The values that it takes, none of them one that it gives.
    pub takes: Vec<usize>,
    /// What it costs to run, however many of its values are used; in cycles.
    pub cost: u64,
    /// Whether the values it gives are written to memory, at the cost of each. A view writes nothing.
    pub writes: bool,
}

/// Values, and ways to get them.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// For each value what it costs to write it to memory, in cycles.
    pub write_costs: Vec<u64>,
    /// The ways. They may depend on each other in circles; solutions do not.
    pub choices: Vec<Choice>,
    /// The values that must be had in the end, each once.
    pub demanded: Vec<usize>,
    /// Whether a value is there from the start.
    pub given: Vec<bool>,
}

/// Choices that give all that is demanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// Numbers of the choices, in an order in which they can run, each with the values that are taken from it.
    pub steps: Vec<(usize, Vec<usize>)>,
    /// What they cost together, in cycles.
    pub cost: u64,
}

/// Indices over a problem that both searches use.
pub(super) struct Index<'a> {
    pub problem: &'a Problem,
    /// The choices that give each value.
    pub givers: Vec<Vec<usize>>,
    /// For each value all values that any way to it may need, itself among them.
    pub reach: Vec<Bits>,
    /// For each value the cost of a tree of choices that gives it, sharing nothing; `u64::MAX` if there is none.
    pub tree: Vec<u64>,
}

impl<'a> Index<'a> {
    pub fn new(problem: &'a Problem) -> Self {
        let values = problem.write_costs.len();
        let mut givers = vec![Vec::new(); values];
        for (number, choice) in problem.choices.iter().enumerate() {
            choice.gives.iter().for_each(|&value| givers[value].push(number));
        }
        let mut index = Index { problem, givers, reach: Vec::new(), tree: Vec::new() };
        index.tree = index.trees();
        index.reach = index.reaches();
        index
    }

    /// Whether every value that the choice takes can be had.
    pub fn usable(&self, choice: &Choice) -> bool {
        choice.takes.iter().all(|&value| self.problem.given[value] || self.tree[value] < u64::MAX)
    }

    fn trees(&self) -> Vec<u64> {
        let problem = self.problem;
        let mut tree: Vec<u64> = problem.given.iter().map(|&given| if given { 0 } else { u64::MAX }).collect();
        // Costs only fall, and each round settles at least one value for good.
        loop {
            let mut changed = false;
            for choice in &problem.choices {
                let takes = choice
                    .takes
                    .iter()
                    .try_fold(0u64, |sum, &value| (tree[value] < u64::MAX).then(|| sum.saturating_add(tree[value])));
                let Some(takes) = takes else { continue };
                for &value in &choice.gives {
                    let write = if choice.writes { problem.write_costs[value] } else { 0 };
                    let cost = takes.saturating_add(choice.cost).saturating_add(write).min(u64::MAX - 1);
                    if cost < tree[value] {
                        tree[value] = cost;
                        changed = true;
                    }
                }
            }
            if !changed {
                return tree;
            }
        }
    }

    fn reaches(&self) -> Vec<Bits> {
        let values = self.problem.write_costs.len();
        let mut reach: Vec<Bits> = (0..values)
            .map(|value| {
                let mut own = Bits::new(values);
                own.insert(value);
                own
            })
            .collect();
        loop {
            let mut changed = false;
            for choice in self.problem.choices.iter().filter(|choice| self.usable(choice)) {
                let mut taken = Bits::new(values);
                choice.takes.iter().for_each(|&value| {
                    taken.union(&reach[value]);
                });
                choice.gives.iter().for_each(|&value| changed |= reach[value].union(&taken));
            }
            if !changed {
                return reach;
            }
        }
    }

    /// The state at the end: all that is demanded and not given.
    pub fn start(&self) -> Bits {
        let mut state = Bits::new(self.problem.write_costs.len());
        let open = self.problem.demanded.iter().filter(|&&value| !self.problem.given[value]);
        open.for_each(|&value| state.insert(value));
        state
    }

    /// What a choice leaves of a state when `given` is taken from it, and what that costs.
    pub fn step(&self, state: &Bits, number: usize, given: &[usize]) -> (Bits, u64) {
        let choice = &self.problem.choices[number];
        let mut next = state.clone();
        let mut cost = choice.cost;
        for &value in given {
            next.remove(value);
            if choice.writes {
                cost += self.problem.write_costs[value];
            }
        }
        for &value in choice.takes.iter().filter(|&&value| !self.problem.given[value]) {
            next.insert(value);
        }
        (next, cost)
    }

    /// All demanded values that a choice gives.
    pub fn all_given(&self, state: &Bits, number: usize) -> Vec<usize> {
        self.problem.choices[number].gives.iter().copied().filter(|&value| state.contains(value)).collect()
    }

    /// What may be taken from a choice in a state: everything demanded that it gives, or some of it, where writing a
    /// value costs something, and another choice gives it without, or may have to give it in any case. `wanted` says how
    /// many demanded values each value may be needed for.
    fn takings(&self, state: &Bits, number: usize, wanted: &[u32]) -> Vec<Vec<usize>> {
        let choice = &self.problem.choices[number];
        let mut takings = vec![Vec::new()];
        for value in self.all_given(state, number) {
            let free = |&number: &usize| !self.problem.choices[number].writes;
            let dear = choice.writes && self.problem.write_costs[value] > 0;
            let elsewhere = || {
                self.givers[value].len() > 1
                    && (wanted[value] > 1 || choice.takes.iter().any(|&taken| self.reach[taken].contains(value)))
            };
            let leave = dear && (self.givers[value].iter().any(free) || elsewhere());
            let without = if leave { takings.clone() } else { Vec::new() };
            takings.iter_mut().for_each(|taking: &mut Vec<usize>| taking.push(value));
            takings.extend(without);
        }
        takings.retain(|taking| !taking.is_empty());
        takings
    }

    /// The choices that need be tried in a state, each with what is taken from it: those for one value, if in whatever
    /// way it is had nothing else can need what comes with it; else those for every value.
    pub fn branches(&self, state: &Bits) -> Vec<(usize, Vec<usize>)> {
        let usable = |value: usize| {
            self.givers[value].iter().copied().filter(|&number| self.usable(&self.problem.choices[number]))
        };
        let values: Vec<usize> = state.iter().collect();
        // How many demanded values each value may be needed for.
        let mut wanted = vec![0u32; self.reach.len()];
        values.iter().for_each(|&value| self.reach[value].iter().for_each(|needed| wanted[needed] += 1));
        let ways_of =
            |number: usize| self.takings(state, number, &wanted).into_iter().map(move |taking| (number, taking));
        for &value in values.iter().rev() {
            let ways: Vec<(usize, Vec<usize>)> =
                usable(value).flat_map(ways_of).filter(|(_, taking)| taking.contains(&value)).collect();
            let alone = ways.iter().all(|(number, taking)| {
                let choice = &self.problem.choices[*number];
                // Whether what is demanded after this step may need the value too.
                let needed = |given: usize| {
                    let by_taken = taking.iter().filter(|&&taken| self.reach[taken].contains(given)).count();
                    wanted[given] as usize > by_taken
                        || choice.takes.iter().any(|&taken| self.reach[taken].contains(given))
                };
                let left = |value: usize| state.contains(value) && !taking.contains(&value);
                choice.gives.iter().all(|&given| left(given) || !needed(given))
            });
            if alone {
                return ways;
            }
        }
        let mut all: Vec<usize> = values.into_iter().flat_map(usable).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().flat_map(ways_of).collect()
    }
}
