//! A network of stages: what each gives to which, and what an inference and a row of them take.
//!
//! Stages run at the same time, each by a clock of its own that stands still while a word that it takes is not there yet, or while
//! there is no room for one that it gives: HLS stops a pipeline as a whole. A word can be taken in the cycle after that in which it was
//! given, and its place in the FIFO is free in the cycle after it was taken. Of a memory between two stages there are two: one
//! stage fills one while the other reads the other. A stage begins when all memories that it reads are full and all that it fills
//! are free, [`HANDOVER`] cycles after the stage that they wait for has ended.

use std::collections::VecDeque;

use super::stage::Stage;

/// Cycles from when a stage ends to when one begins that has waited for it (assumed: one for the flag that says so).
pub(in crate::fpga) const HANDOVER: u64 = 1;

/// Memories between two stages.
const PAIR: usize = 2;

/// Stages and what lies between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fpga) struct Network {
    /// The stages. Each FIFO's words are given by one of them and taken by one.
    pub stages: Vec<Stage>,
    /// FIFOs.
    pub fifos: usize,
    /// Memories between stages: which fills each, and which reads it.
    pub pairs: Vec<(usize, usize)>,
}

/// How inferences went through a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fpga) struct Run {
    /// Of each inference the cycles in which each stage began and ended.
    pub spans: Vec<Vec<(u64, u64)>>,
    /// Of each stage, when it waited in the first inference: it went on in that cycle, before which the other end of the FIFO had done
    /// something. In the order of time.
    pub waits: Vec<Vec<Wait>>,
    /// Words of each FIFO for which there has to be room, so that no stage waits longer than it did.
    pub depths: Vec<u64>,
}

/// That a stage waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fpga) struct Wait {
    /// The cycle in which it went on.
    pub until: u64,
    /// The stage that it waited for.
    pub on: usize,
}

/// Cycles of an inference that went by because of one stage, or between stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fpga) struct Critical {
    /// The stage; nothing where a stage has ended, and the next begins.
    pub stage: Option<usize>,
    /// How many.
    pub cycles: u64,
}

impl Run {
    /// What the first inference waited for, from its end back to its start: it would have ended earlier if any of this had been
    /// faster.
    pub fn critical(&self, network: &Network) -> Vec<Critical> {
        let spans = &self.spans[0];
        let mut path = Vec::new();
        let Some((mut stage, mut now)) = spans
            .iter()
            .enumerate()
            .map(|(stage, &(_, end))| (stage, end))
            .max_by_key(|&(stage, end)| (end, std::cmp::Reverse(stage)))
        else {
            return path;
        };
        while now > 0 {
            let waits = &self.waits[stage];
            let place = waits.partition_point(|wait| wait.until <= now);
            // A wait that ends now was for what the other stage did in the cycle before.
            if let Some(wait) = place.checked_sub(1).map(|place| waits[place]) {
                path.push(Critical { stage: Some(stage), cycles: now - wait.until });
                path.push(Critical { stage: None, cycles: 1.min(wait.until) });
                (stage, now) = (wait.on, wait.until.saturating_sub(1));
                continue;
            }
            let (start, _) = spans[stage];
            path.push(Critical { stage: Some(stage), cycles: now.saturating_sub(start) });
            now = start.min(now);
            let before = network.pairs.iter().filter(|pair| pair.1 == stage).map(|pair| pair.0);
            let Some(last) = before.max_by_key(|&from| (spans[from].1, std::cmp::Reverse(from))) else { break };
            path.push(Critical { stage: None, cycles: HANDOVER.min(now) });
            (stage, now) = (last, now.saturating_sub(HANDOVER));
        }
        path
    }

    /// Cycles until an inference has ended, from the start of the first.
    pub fn end(&self, inference: usize) -> u64 {
        self.spans[inference].iter().map(|&(_, end)| end).max().unwrap_or(0)
    }
}

/// That stages wait for each other in a circle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stages {stages:?} wait for each other")]
pub(in crate::fpga) struct Deadlock {
    /// Those that have not ended.
    pub stages: Vec<usize>,
}

/// A FIFO while inferences go through: when each word was given, and taken.
#[derive(Clone, Debug, Default)]
struct Fifo {
    given: Vec<u64>,
    taken: Vec<u64>,
}

/// A stage while inferences go through it.
#[derive(Clone, Debug, Default)]
struct State {
    /// Events of the present inference that are done, if it has begun.
    done: Option<usize>,
    /// The cycle of the last of them, and what the stage's own clock showed then.
    now: (u64, u64),
    /// Inferences that are done: when they began and ended.
    spans: Vec<(u64, u64)>,
    began: u64,
    waits: Vec<Wait>,
}

/// Has so many inferences go through a network whose FIFOs hold so many words; without depths they hold any number.
///
/// # Errors
/// Stages wait for each other.
pub(in crate::fpga) fn simulate(network: &Network, depths: Option<&[u64]>, inferences: usize) -> Result<Run, Deadlock> {
    let mut states = vec![State::default(); network.stages.len()];
    let mut fifos = vec![Fifo::default(); network.fifos];
    let mut links: Vec<Vec<usize>> = vec![Vec::new(); network.fifos];
    let mut reads: Vec<Vec<usize>> = vec![Vec::new(); network.stages.len()];
    let mut fills: Vec<Vec<usize>> = vec![Vec::new(); network.stages.len()];
    for &(from, to) in &network.pairs {
        fills[from].push(to);
        reads[to].push(from);
    }
    for (number, stage) in network.stages.iter().enumerate() {
        for event in &stage.events {
            let own = &mut links[event.fifo.index()];
            if !own.contains(&number) {
                own.push(number);
            }
        }
    }
    let other = |fifo: usize, stage: usize| links[fifo].iter().copied().find(|&own| own != stage).unwrap_or(stage);
    // Who may go on when a stage has: those at the other ends of what it touches.
    let mut beside: Vec<Vec<usize>> =
        (0..network.stages.len()).map(|stage| [&reads[stage][..], &fills[stage]].concat()).collect();
    for own in &links {
        for &a in own {
            beside[a].extend(own.iter().copied().filter(|&b| b != a));
        }
    }
    beside.iter_mut().for_each(|own| {
        own.sort_unstable();
        own.dedup();
    });
    let mut open: VecDeque<usize> = (0..network.stages.len()).collect();
    let mut is_open = vec![true; network.stages.len()];
    while let Some(number) = open.pop_front() {
        is_open[number] = false;
        let mut state = std::mem::take(&mut states[number]);
        let mut moved = false;
        while state.spans.len() < inferences {
            let inference = state.spans.len();
            if state.done.is_none() {
                let Some(start) = start(&states, &state, &reads[number], &fills[number], inference) else { break };
                (state.began, state.now, state.done) = (start, (start, 0), Some(0));
            }
            let (advanced, ended) =
                advance(&network.stages[number], &mut state, &mut fifos, depths, &|fifo| other(fifo, number));
            moved |= advanced;
            if !ended {
                break;
            }
        }
        states[number] = state;
        if moved {
            for &other in &beside[number] {
                if !std::mem::replace(&mut is_open[other], true) {
                    open.push_back(other);
                }
            }
        }
    }
    let stuck: Vec<usize> = (0..states.len()).filter(|&number| states[number].spans.len() < inferences).collect();
    if !stuck.is_empty() {
        return Err(Deadlock { stages: stuck });
    }
    let spans = (0..inferences).map(|own| states.iter().map(|state| state.spans[own]).collect()).collect();
    let waits = states.into_iter().map(|state| state.waits).collect();
    Ok(Run { spans, waits, depths: fifos.iter().map(needed).collect() })
}

/// When a stage begins with an inference; `None` if that is not known yet.
fn start(states: &[State], own: &State, reads: &[usize], fills: &[usize], inference: usize) -> Option<u64> {
    let mut start = own.spans.last().map_or(0, |&(_, end)| end);
    for &from in reads {
        let &(_, end) = states[from].spans.get(inference)?;
        start = start.max(end + HANDOVER);
    }
    if let Some(before) = inference.checked_sub(PAIR) {
        for &to in fills {
            let &(_, end) = states[to].spans.get(before)?;
            start = start.max(end + HANDOVER);
        }
    }
    Some(start)
}

/// Has a stage go on as far as is known; says whether it did anything, and whether it has ended.
fn advance(
    stage: &Stage,
    state: &mut State,
    fifos: &mut [Fifo],
    depths: Option<&[u64]>,
    other: &dyn Fn(usize) -> usize,
) -> (bool, bool) {
    let mut moved = false;
    let Some(mut done) = state.done else { return (false, false) };
    while let Some(first) = stage.events.get(done) {
        let together = &stage.events[done..];
        let together = &together[..together.iter().take_while(|event| event.at == first.at).count()];
        let (mut now, mut on) = (state.now.0 + (first.at - state.now.1), None);
        for event in together {
            let fifo = &fifos[event.fifo.index()];
            let ready = if event.gives {
                let room = depths.map(|depths| depths[event.fifo.index()] as usize);
                match room.and_then(|room| fifo.given.len().checked_sub(room)) {
                    None => Some(0),
                    Some(before) => fifo.taken.get(before).map(|taken| taken + 1),
                }
            } else {
                fifo.given.get(fifo.taken.len()).map(|given| given + 1)
            };
            let Some(ready) = ready else {
                state.done = Some(done);
                return (moved, false);
            };
            if ready > now {
                (now, on) = (ready, Some(event.fifo.index()));
            }
        }
        if let (Some(fifo), 0) = (on, state.spans.len()) {
            state.waits.push(Wait { until: now, on: other(fifo) });
        }
        for event in together {
            let fifo = &mut fifos[event.fifo.index()];
            if event.gives { fifo.given.push(now) } else { fifo.taken.push(now) }
        }
        state.now = (now, first.at);
        done += together.len();
        moved = true;
    }
    let end = state.now.0 + (stage.cycles.max(state.now.1) - state.now.1);
    state.spans.push((state.began, end));
    state.done = None;
    (true, true)
}

/// Words for which there has to be room in a FIFO that never was full.
fn needed(fifo: &Fifo) -> u64 {
    let (mut most, mut taken) = (1, 0);
    for (number, &given) in fifo.given.iter().enumerate() {
        while fifo.taken.get(taken).is_some_and(|&at| at < given) {
            taken += 1;
        }
        most = most.max(number + 1 - taken.min(number));
    }
    most as u64
}
