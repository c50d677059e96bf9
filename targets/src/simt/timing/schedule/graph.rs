//! What must come before what in a stretch, and how long the way from each step to the end is.

use super::super::code::{Code, Compiled, Space};
use super::Figures;
use super::names::Step;

/// No step.
const NONE: u32 = u32::MAX;

/// The steps that depend on each step.
#[derive(Debug)]
pub(super) struct Graph {
    /// Where those of each step begin among all, with the cycles that they wait at least.
    first: Vec<u32>,
    all: Vec<(u32, u32)>,
    /// How many each step depends on; one counts as often as there are reasons.
    pub waits: Vec<u32>,
    /// Cycles from the issue of each step until all that depends on it is there.
    pub heights: Vec<u64>,
}

/// What was done last with a name.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// The step that has written it, and after how many cycles it is there.
    written: (u32, u32),
    /// The first of those that have read it since, in a list.
    read: u32,
}

impl Graph {
    /// The dependences of steps that have so many names.
    pub fn new(steps: &[Step], names: usize, compiled: &Compiled, figures: &Figures) -> Graph {
        let latencies: Vec<u32> = steps.iter().map(|step| latency(step, compiled, figures)).collect();
        let mut edges: Vec<(u32, u32, u32)> = Vec::with_capacity(steps.len() * 3);
        let mut last = vec![Last { written: (NONE, 0), read: NONE }; names];
        let mut readers: Vec<(u32, u32)> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            let number = number as u32;
            for &name in &step.reads {
                let Last { written: (written, cycles), read } = &mut last[name as usize];
                if *written != NONE {
                    edges.push((*written, number, *cycles));
                }
                readers.push((number, *read));
                *read = readers.len() as u32 - 1;
            }
            for &(name, is_result) in &step.writes {
                let Last { written, read } = &mut last[name as usize];
                if written.0 != NONE && written.0 != number {
                    edges.push((written.0, number, 0));
                }
                let mut reader = std::mem::replace(read, NONE);
                while let Some(&(before, next)) = readers.get(reader as usize) {
                    if before != number {
                        edges.push((before, number, 0));
                    }
                    reader = next;
                }
                *written = (number, if is_result { latencies[number as usize] } else { 0 });
            }
        }
        let mut first = vec![0u32; steps.len() + 1];
        let mut waits = vec![0u32; steps.len()];
        for &(from, to, _) in &edges {
            first[from as usize + 1] += 1;
            waits[to as usize] += 1;
        }
        (0..steps.len()).for_each(|step| first[step + 1] += first[step]);
        let mut next = first.clone();
        let mut all = vec![(0, 0); edges.len()];
        for (from, to, cycles) in edges {
            all[next[from as usize] as usize] = (to, cycles);
            next[from as usize] += 1;
        }
        let mut graph = Graph { first, all, waits, heights: Vec::new() };
        let mut heights = vec![0u64; steps.len()];
        for (number, step) in steps.iter().enumerate().rev() {
            let own = if step.leaves { latencies[number] } else { 0 };
            let ways = graph.after(number).iter().map(|&(to, cycles)| u64::from(cycles) + heights[to as usize]);
            heights[number] = ways.fold(u64::from(own), u64::max) + u64::from(step.is_issue());
        }
        graph.heights = heights;
        graph
    }

    /// The steps that depend on one, and the cycles that they wait after it.
    pub fn after(&self, step: usize) -> &[(u32, u32)] {
        &self.all[self.first[step] as usize..self.first[step + 1] as usize]
    }
}

/// Cycles until the result of a step is there.
fn latency(step: &Step, compiled: &Compiled, figures: &Figures) -> u32 {
    let Code::Issue(instruction) = step.code else { return 0 };
    let access = instruction.access.and_then(|number| compiled.accesses.get(number as usize));
    let cycles = match access.map(|access| access.space) {
        Some(Space::Shared(_)) => figures.shared,
        Some(Space::Global(_)) => figures.global,
        None => figures.times[instruction.unit.index()].1,
    };
    cycles as u32
}
