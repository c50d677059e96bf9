//! The greedy solution: for every value the cheapest set of choices that gives it, built up from what is given.

use super::bits::Bits;
use super::problem::{Index, Problem, Solution};

/// The cheapest known way to a value, with what is shared counted once.
#[derive(Clone)]
struct Way {
    cost: u64,
    choices: Bits,
    /// The values that are taken from those choices.
    values: Bits,
}

/// Solves a problem by the best ways to single values, each as a set in which what is used twice counts once. `None` if
/// something demanded cannot be had.
pub fn greedy(problem: &Problem) -> Option<Solution> {
    let index = Index::new(problem);
    let ways = ways(problem);
    let mut chosen = Bits::new(problem.choices.len());
    let demanded: Vec<usize> = index.start().iter().collect();
    for &value in &demanded {
        chosen.union(&ways[value].as_ref()?.choices);
    }
    Some(arrange(&index, &demanded, &chosen))
}

fn ways(problem: &Problem) -> Vec<Option<Way>> {
    let values = problem.write_costs.len();
    let nothing = Way { cost: 0, choices: Bits::new(problem.choices.len()), values: Bits::new(values) };
    let mut ways: Vec<Option<Way>> =
        problem.given.iter().map(|&given| if given { Some(nothing.clone()) } else { None }).collect();
    // When each value's way was last changed, and when each choice was last looked at; a choice whose operands have not
    // changed since gives nothing new.
    let mut changed_at = vec![0u64; values];
    let mut seen_at: Vec<Option<u64>> = vec![None; problem.choices.len()];
    let mut now = 0;
    // Costs only fall; sharing can make them fall more than once, which the number of rounds bounds.
    for _ in 0..values + 2 {
        let mut changed = false;
        for (number, choice) in problem.choices.iter().enumerate() {
            if seen_at[number].is_some_and(|seen| choice.takes.iter().all(|&value| changed_at[value] <= seen)) {
                continue;
            }
            seen_at[number] = Some(now);
            let mut all = nothing.clone();
            let possible = choice.takes.iter().all(|&value| match &ways[value] {
                Some(way) => {
                    all.choices.union(&way.choices);
                    all.values.union(&way.values);
                    if !problem.given[value] {
                        all.values.insert(value);
                    }
                    true
                }
                None => false,
            });
            if !possible || all.choices.contains(number) {
                continue;
            }
            all.choices.insert(number);
            for &value in choice.gives.iter().filter(|&&value| !problem.given[value]) {
                if all.values.contains(value) {
                    continue;
                }
                let mut way = all.clone();
                way.values.insert(value);
                way.cost = price(problem, &way);
                if ways[value].as_ref().is_none_or(|known| way.cost < known.cost) {
                    ways[value] = Some(way);
                    now += 1;
                    changed_at[value] = now;
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    ways
}

/// What a way costs: its choices, and the writing of the values taken from them.
fn price(problem: &Problem, way: &Way) -> u64 {
    let run: u64 = way.choices.iter().map(|number| problem.choices[number].cost).sum();
    // A view may give some of the values for nothing; that is left to the exact search.
    let written = way.choices.iter().filter(|&number| problem.choices[number].writes);
    let mut writes = Bits::new(problem.write_costs.len());
    written.for_each(|number| problem.choices[number].gives.iter().for_each(|&value| writes.insert(value)));
    writes.intersect(&way.values);
    run + writes.iter().map(|value| problem.write_costs[value]).sum::<u64>()
}

/// Brings a set of choices that suffices into an order in which they can run, and leaves out what turns out not to be
/// needed.
fn arrange(index: &Index<'_>, demanded: &[usize], chosen: &Bits) -> Solution {
    let problem = index.problem;
    let mut there = problem.given.clone();
    let mut order: Vec<usize> = Vec::new();
    let mut left: Vec<usize> = chosen.iter().collect();
    loop {
        let ready = left.iter().position(|&number| problem.choices[number].takes.iter().all(|&value| there[value]));
        let Some(place) = ready else { break };
        let number = left.remove(place);
        problem.choices[number].gives.iter().for_each(|&value| there[value] = true);
        order.push(number);
    }
    let mut needed = Bits::new(problem.write_costs.len());
    demanded.iter().for_each(|&value| needed.insert(value));
    let mut steps = Vec::new();
    let mut cost = 0;
    for (place, &number) in order.iter().enumerate().rev() {
        let before = |value: usize| order[..place].iter().any(|&other| problem.choices[other].gives.contains(&value));
        let given = index.all_given(&needed, number);
        if given.iter().all(|&value| before(value)) {
            continue;
        }
        let (next, paid) = index.step(&needed, number, &given);
        steps.push((number, given));
        cost += paid;
        needed = next;
    }
    steps.reverse();
    Solution { steps, cost }
}
