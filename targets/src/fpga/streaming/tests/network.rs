//! Networks of stages against a simulation that goes through each cycle.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "Tests fail by panicking.")]

use crate::fpga::design::FifoId;
use crate::fpga::streaming::network::{Critical, HANDOVER, Network, simulate};
use crate::fpga::streaming::stage::{Event, Stage};

/// Numbers that look random, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// Goes through cycle by cycle; `None` if nothing moves any more.
fn naive(network: &Network, depths: &[u64], inferences: usize) -> Option<Vec<Vec<(u64, u64)>>> {
    let count = network.stages.len();
    let mut spans: Vec<Vec<(u64, u64)>> = vec![Vec::new(); count];
    // When the present inference began, and what the stage's own clock shows.
    let mut running: Vec<Option<(u64, u64)>> = vec![None; count];
    let mut held = vec![0u64; network.fifos];
    let mut quiet = 0;
    for now in 0.. {
        if spans.iter().all(|own| own.len() == inferences) {
            break;
        }
        quiet += 1;
        if quiet > 1000 {
            return None;
        }
        // What is there at the beginning of the cycle decides.
        let before = held.clone();
        let ended = spans.clone();
        for (number, stage) in network.stages.iter().enumerate() {
            let inference = ended[number].len();
            if running[number].is_none() && inference < inferences {
                let full = network
                    .pairs
                    .iter()
                    .filter(|pair| pair.1 == number)
                    .all(|pair| ended[pair.0].get(inference).is_some_and(|&(_, end)| end + HANDOVER <= now));
                let free = network.pairs.iter().filter(|pair| pair.0 == number).all(|pair| {
                    inference < 2 || ended[pair.1].get(inference - 2).is_some_and(|&(_, end)| end + HANDOVER <= now)
                });
                if full && free && ended[number].last().is_none_or(|&(_, end)| end <= now) {
                    running[number] = Some((now, 0));
                }
            }
            let Some((began, clock)) = running[number] else { continue };
            let own: Vec<&Event> = stage.events.iter().filter(|event| event.at == clock).collect();
            let goes = own.iter().all(|event| {
                let held = before[event.fifo.index()];
                if event.gives { held < depths[event.fifo.index()] } else { held > 0 }
            });
            if !goes {
                continue;
            }
            quiet = 0;
            for event in own {
                let held = &mut held[event.fifo.index()];
                if event.gives { *held += 1 } else { *held -= 1 }
            }
            running[number] = Some((began, clock + 1));
            if clock + 1 == stage.cycles {
                spans[number].push((began, now + 1));
                running[number] = None;
            }
        }
    }
    Some((0..inferences).map(|own| spans.iter().map(|stage| stage[own]).collect()).collect())
}

/// Stages of which each takes from some before it, each FIFO once in a cycle.
fn random(random: &mut Random) -> Network {
    let count = 2 + random.below(5) as usize;
    let mut network = Network { stages: vec![Stage::default(); count], ..Network::default() };
    for to in 1..count {
        for from in 0..to {
            match random.below(4) {
                0 => network.pairs.push((from, to)),
                1 | 2 => {
                    let fifo = FifoId(network.fifos as u32);
                    network.fifos += 1;
                    let words = 1 + random.below(12);
                    for (stage, gives) in [(from, true), (to, false)] {
                        let mut at = random.below(8);
                        for _ in 0..words {
                            network.stages[stage].events.push(Event { at, fifo, gives });
                            at += 1 + random.below(3);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    for stage in &mut network.stages {
        stage.events.sort();
        stage.cycles = stage.events.last().map_or(0, |event| event.at) + 1 + random.below(6);
    }
    network
}

#[test]
fn random_networks_go_as_cycle_by_cycle() {
    let mut numbers = Random(7);
    let (mut deadlocks, mut ran) = (0, 0);
    for _ in 0..400 {
        let network = random(&mut numbers);
        let free = simulate(&network, None, 1).unwrap();
        let many = vec![1 << 20; network.fifos];
        assert_eq!(Some(&free.spans), naive(&network, &many, 1).as_ref());
        // With the depths that were needed nothing waits longer.
        let same = simulate(&network, Some(&free.depths), 1).unwrap();
        assert_eq!(same.spans, free.spans);
        // With less room something may wait, or all.
        let depths: Vec<u64> = (0..network.fifos).map(|_| 1 + numbers.below(5)).collect();
        match simulate(&network, Some(&depths), 4) {
            Ok(run) => {
                ran += 1;
                assert_eq!(Some(&run.spans), naive(&network, &depths, 4).as_ref());
            }
            Err(_) => {
                deadlocks += 1;
                assert_eq!(naive(&network, &depths, 4), None);
            }
        }
    }
    assert!(deadlocks > 10 && ran > 100, "{deadlocks} networks stand still and {ran} run");
}

#[test]
fn a_fifo_is_as_deep_as_what_one_is_ahead_of_the_other() {
    // All 10 words are there before the first is taken, in cycle 20; from cycle 6 on 7 are, the last of them as the first is taken.
    let fifo = FifoId(0);
    let gives: Vec<Event> = (0..10).map(|at| Event { at, fifo, gives: true }).collect();
    let takes = |first: u64| (0..10).map(|word| Event { at: first + word, fifo, gives: false }).collect();
    let network = |first: u64| Network {
        stages: vec![Stage { cycles: 12, events: gives.clone() }, Stage { cycles: 40, events: takes(first) }],
        fifos: 1,
        pairs: Vec::new(),
    };
    assert_eq!(simulate(&network(20), None, 1).unwrap().depths, [10]);
    assert_eq!(simulate(&network(6), None, 1).unwrap().depths, [7]);
    // With less room the first stage waits: its fifth word goes when the first is taken, and it ends 15 cycles later.
    let run = simulate(&network(20), Some(&[5]), 1).unwrap();
    assert_eq!(run.spans, [[(0, 28), (0, 40)]]);
    // What the second stage does is all that the end waits for.
    assert_eq!(run.critical(&network(20)), [Critical { stage: Some(1), cycles: 40 }]);
}

#[test]
fn all_cycles_are_on_the_way_back() {
    let mut numbers = Random(3);
    for _ in 0..200 {
        let network = random(&mut numbers);
        let run = simulate(&network, None, 1).unwrap();
        let sum: u64 = run.critical(&network).iter().map(|critical| critical.cycles).sum();
        assert_eq!(sum, run.end(0));
    }
}

#[test]
fn a_stage_follows_another_as_words_come() {
    // One gives 10 words from cycle 3 on, the other takes them from its cycle 1 on and gives nothing.
    let fifo = FifoId(0);
    let events = |first: u64, gives: bool| (0..10).map(move |word| Event { at: first + word, fifo, gives }).collect();
    let stages = vec![Stage { cycles: 15, events: events(3, true) }, Stage { cycles: 20, events: events(1, false) }];
    let network = Network { stages, fifos: 1, pairs: Vec::new() };
    let run = simulate(&network, None, 1).unwrap();
    // The first word is there at 4, the last at 13, and 9 cycles are left then.
    assert_eq!(run.spans, [[(0, 15), (0, 13 + 20 - 10)]]);
    // A word is there while the one before is taken.
    assert_eq!(run.depths, [2]);
    // Through a memory the second begins when the first has ended.
    let mut network = network;
    network.stages.iter_mut().for_each(|stage| stage.events.clear());
    network.pairs.push((0, 1));
    let run = simulate(&network, None, 3).unwrap();
    assert_eq!(run.spans, [[(0, 15), (16, 36)], [(15, 30), (36, 56)], [(37, 52), (56, 76)]]);
}
