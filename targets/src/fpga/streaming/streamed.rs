//! A design of stages in time: how long an inference takes, how much later the next one can follow, and what it takes of the part.

use super::network::{Critical, Network, Run, simulate};
use super::stage::stage;
use crate::fpga::FpgaMachine;
use crate::fpga::design::Storage;
use crate::fpga::design::{Design, Home, WordFifo};
use crate::fpga::memories::bank;
use crate::fpga::program::{Call, ports};
use crate::fpga::resources::Resources;
use crate::fpga::schedule::{AXI_ONE_WAY, CALL, Schedule};
use crate::target::TargetError;

/// Inferences that follow each other until it is looked at how far they are apart, and how many of the last are looked at.
const INFERENCES: usize = 8;
const LAST: usize = 4;

/// Words of a FIFO that is a shift register: a look-up table holds 32 bits (UG574, SRLC32E).
pub(in crate::fpga) const SHIFT: u64 = 32;

/// What a FIFO takes beside its words: two counters, or an address, and the flags (assumed).
const FIFO: Resources = Resources { luts: 20, ffs: 20, dsps: 0, bram18s: 0, urams: 0 };

/// What a stage takes beside its function: whether it runs, and whether what it waits for is there (assumed).
const STAGE: Resources = Resources { luts: 20, ffs: 20, dsps: 0, bram18s: 0, urams: 0 };

/// Stages in time.
#[derive(Clone, Debug, Default)]
pub(in crate::fpga) struct Streamed {
    /// The stages and what lies between them.
    pub network: Network,
    /// The first inference.
    pub run: Run,
    /// Cycles of one inference.
    pub cycles: u64,
    /// Of those, for how many it waited for each stage, with what went by until the stage could begin.
    pub waited: Vec<u64>,
    /// Cycles from the end of one inference to that of the next, where they follow each other.
    pub interval: u64,
}

impl Streamed {
    /// Has inferences go through a design whose functions have schedules; `latency` is that of external memory in cycles.
    ///
    /// # Errors
    /// Stages wait for each other, or there is no telling when they take what.
    pub fn new(design: &Design, calls: &[Call], schedules: &[Schedule], latency: u64) -> Result<Streamed, TargetError> {
        let network = network(design, calls, schedules, latency)?;
        let depths: Vec<u64> = design.fifos.iter().map(|fifo| fifo.depth).collect();
        let fault = |error: super::network::Deadlock| TargetError::Fault(error.to_string());
        let run = simulate(&network, Some(&depths), 1).map_err(fault)?;
        let many = simulate(&network, Some(&depths), INFERENCES).map_err(fault)?;
        let apart = (INFERENCES - LAST..INFERENCES).map(|own| many.end(own).saturating_sub(many.end(own - 1)));
        let (cycles, interval) = (run.end(0) + CALL, apart.max().unwrap_or(0));
        let mut waited = vec![0; network.stages.len()];
        let mut last = None;
        for critical in run.critical(&network) {
            last = critical.stage.or(last);
            if let Some(own) = last.and_then(|stage| waited.get_mut(stage)) {
                *own += critical.cycles;
            }
        }
        // The top begins and ends with those that begin first.
        if let Some(own) = last.and_then(|stage| waited.get_mut(stage)) {
            *own += CALL;
        }
        Ok(Streamed { network, run, cycles, waited, interval })
    }

    /// The cycles in which a stage begins and ends in the first inference.
    pub fn span(&self, stage: usize) -> (u64, u64) {
        self.run.spans.first().and_then(|spans| spans.get(stage)).copied().unwrap_or((0, 0))
    }

    /// What the first inference waited for, from its end back to its start.
    pub fn critical(&self) -> Vec<Critical> {
        self.run.critical(&self.network)
    }

    /// What a design takes of the part.
    pub fn resources(design: &Design, calls: &[Call], schedules: &[Schedule]) -> Resources {
        of_design(design, calls, schedules.iter().map(|schedule| schedule.usage().resources(design.adders)))
    }
}

/// What a design takes of the part whose functions take this: each stage its own operators, and of memories between stages two.
pub(super) fn of_design(design: &Design, calls: &[Call], functions: impl Iterator<Item = Resources>) -> Resources {
    let functions: Resources = functions.map(|function| function + STAGE).sum();
    let ends = ends(design, calls);
    let memories = design.memories.iter().zip(&ends.memories);
    let memories: Resources = memories
        .map(|(memory, (from, to))| memory.resources(true) * if from.is_some() && to.is_some() { 2 } else { 1 })
        .sum();
    let fifos: Resources = design.fifos.iter().map(of_fifo).sum();
    // One more is for weights, which are loaded through it.
    functions + memories + fifos + ports(design) + AXI_ONE_WAY
}

/// What a FIFO takes.
pub(in crate::fpga) fn of_fifo(fifo: &WordFifo) -> Resources {
    let bits = u64::from(fifo.banks) * fifo.dtype.bits() as u64;
    let words = if fifo.depth <= SHIFT {
        Resources { luts: bits, ffs: bits, ..Resources::default() }
    } else {
        bank(fifo.depth, bits, Storage::Bram, false) + Resources { ffs: bits, ..Resources::default() }
    };
    words + FIFO
}

/// A machine whose memory gives a port its share of a channel that several have to themselves.
pub(in crate::fpga) fn shared(facts: &FpgaMachine, design: &Design) -> FpgaMachine {
    let mut ports = vec![0u32; design.channels.max(1) as usize];
    for home in design.functions.iter().flat_map(|function| &function.homes) {
        if let Home::External { first, .. } = *home
            && let Some(own) = ports.get_mut(first as usize)
        {
            *own += 1;
        }
    }
    let most = ports.into_iter().max().unwrap_or(1).max(1);
    let mut facts = facts.clone();
    facts.memory.bytes_per_second /= f64::from(most);
    facts
}

/// Which stage fills and which reads each memory, gives and takes each FIFO.
pub(in crate::fpga) struct Ends {
    /// Of memories.
    pub memories: Vec<(Option<usize>, Option<usize>)>,
    /// Of FIFOs.
    pub fifos: Vec<(Option<usize>, Option<usize>)>,
}

/// What is at the ends of memories and FIFOs; of several stages the last.
pub(in crate::fpga) fn ends(design: &Design, calls: &[Call]) -> Ends {
    let mut ends =
        Ends { memories: vec![(None, None); design.memories.len()], fifos: vec![(None, None); design.fifos.len()] };
    for (stage, call) in calls.iter().enumerate() {
        let Some(function) = design.functions.get(call.function.index()) else { continue };
        for (buffer, home) in function.kernel.buffers.iter().zip(&function.homes) {
            let own = match *home {
                Home::OnChip(memory) => ends.memories.get_mut(memory.index()),
                Home::Fifo(fifo) => ends.fifos.get_mut(fifo.index()),
                Home::External { .. } | Home::Loaded { .. } => None,
            };
            if let Some(own) = own {
                let end = if buffer.is_written { &mut own.0 } else { &mut own.1 };
                *end = Some(stage);
            }
        }
    }
    ends
}

/// The network of a design.
fn network(design: &Design, calls: &[Call], schedules: &[Schedule], latency: u64) -> Result<Network, TargetError> {
    let lost = || TargetError::Fault("a stage has no schedule".to_owned());
    let of = |call: &Call| stage(schedules.get(call.function.index()).ok_or_else(lost)?, latency);
    let stages = calls.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    let pairs = ends(design, calls).memories.into_iter().filter_map(|(from, to)| Some((from?, to?)));
    Ok(Network { stages, fifos: design.fifos.len(), pairs: pairs.collect() })
}
