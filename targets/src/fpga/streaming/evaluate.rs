//! What a design of stages takes and how fast it is, without scheduling again what was scheduled before: a stage whose kernel and the
//! shapes of whose memories are the same is the same, whichever memories they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::network::{Critical, Network, simulate};
use super::stage::{Stage, stage};
use super::streamed::{ends, of_design, shared};
use crate::fpga::FpgaMachine;
use crate::fpga::design::{Design, FifoId, Function, Home, MemoryId, OnChip, WordFifo};
use crate::fpga::place::Placed;
use crate::fpga::resources::Resources;
use crate::fpga::schedule::{CALL, Schedule};
use crate::target::TargetError;

/// A stage by itself: its memories and FIFOs have the numbers of its parameters.
type Key = (Function, Vec<OnChip>, Vec<WordFifo>, u64);

/// A stage that was scheduled.
struct Scheduled {
    stage: Stage,
    resources: Resources,
}

/// Stages that were scheduled.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Key, Arc<Scheduled>>>);

/// How good a design is.
#[derive(Clone, Debug)]
pub(super) struct Evaluated {
    pub cycles: u64,
    pub resources: Resources,
    /// What an inference waits for.
    pub critical: Vec<Critical>,
    /// The stage of the first call: those before it read inputs.
    pub first: usize,
}

/// Looks at a design, and makes its FIFOs as deep as they have to be.
///
/// # Errors
/// It cannot be synthesised.
pub(super) fn evaluate(
    placed: &mut Placed,
    (facts, clock_hz): (&FpgaMachine, u64),
    known: &Known,
) -> Result<Evaluated, TargetError> {
    let latency = (facts.memory.latency_ns * clock_hz as f64 / 1e9).ceil() as u64;
    let facts = shared(facts, &placed.design);
    let of = |function: &Function| known.of(function, &placed.design, (&facts, clock_hz, latency));
    let scheduled: Vec<(Arc<Scheduled>, Vec<FifoId>)> =
        placed.design.functions.par_iter().map(of).collect::<Result<_, _>>()?;
    let stages = scheduled.iter().map(|(own, fifos)| {
        let events =
            own.stage.events.iter().map(|&event| super::stage::Event { fifo: fifos[event.fifo.index()], ..event });
        let mut events: Vec<_> = events.collect();
        events.sort();
        Stage { cycles: own.stage.cycles, events }
    });
    let pairs = ends(&placed.design, &placed.calls).memories.into_iter().filter_map(|(from, to)| Some((from?, to?)));
    let network = Network { stages: stages.collect(), fifos: placed.design.fifos.len(), pairs: pairs.collect() };
    let run = simulate(&network, None, 1).map_err(|error| TargetError::Fault(error.to_string()))?;
    for (fifo, &depth) in placed.design.fifos.iter_mut().zip(&run.depths) {
        fifo.depth = depth;
    }
    let resources = of_design(&placed.design, &placed.calls, scheduled.iter().map(|(own, _)| own.resources));
    let reads = |function: &&Function| matches!(function.homes[..], [Home::External { .. }, _]);
    let first = placed.design.functions.iter().take_while(reads).count();
    Ok(Evaluated { cycles: run.end(0) + CALL, resources, critical: run.critical(&network), first })
}

impl Known {
    /// A stage of a design, and the FIFO of each of its parameters.
    fn of(
        &self,
        function: &Function,
        design: &Design,
        (facts, clock_hz, latency): (&FpgaMachine, u64, u64),
    ) -> Result<(Arc<Scheduled>, Vec<FifoId>), TargetError> {
        let mut own = Design { channels: design.channels, ..Design::default() };
        let mut fifos = Vec::new();
        let mut homes = Vec::with_capacity(function.homes.len());
        for home in &function.homes {
            homes.push(match *home {
                Home::OnChip(memory) => {
                    let memory = OnChip { name: String::new(), ..design.memories[memory.index()].clone() };
                    own.memories.push(memory);
                    Home::OnChip(MemoryId(own.memories.len() as u32 - 1))
                }
                Home::Fifo(fifo) => {
                    fifos.push(fifo);
                    let fifo = &design.fifos[fifo.index()];
                    own.fifos.push(WordFifo { name: String::new(), depth: 0, ..fifo.clone() });
                    Home::Fifo(FifoId(own.fifos.len() as u32 - 1))
                }
                Home::External { .. } => Home::External { first: 0, ways: 1 },
                // Only a controller's functions have a loader.
                loaded @ Home::Loaded { .. } => loaded,
            });
        }
        let kernel = function.kernel.nameless();
        let function = Function::new(kernel, homes);
        let key = (function, own.memories.clone(), own.fifos.clone(), facts.memory.bytes_per_second.to_bits());
        if let Some(known) = self.0.lock().ok().and_then(|known| known.get(&key).cloned()) {
            return Ok((known, fifos));
        }
        let schedule = Schedule::new(&key.0, &own, facts, clock_hz)?;
        let resources = schedule.usage().resources(own.adders);
        let found = Arc::new(Scheduled { stage: stage(&schedule, latency)?, resources });
        if let Ok(mut known) = self.0.lock() {
            known.insert(key, Arc::clone(&found));
        }
        Ok((found, fifos))
    }
}
