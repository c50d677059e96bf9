//! What is driven in cycles to come.

use super::streams::Vector;
use crate::lpu::LpuMachine;
use crate::lpu::isa::Stream;

/// A vector that is driven: the stream, the position, the bytes.
pub(super) type Drive = (Stream, usize, Vector);

/// What is driven in cycles to come.
#[derive(Debug)]
pub(super) struct Pending {
    vector: usize,
    /// By cycle modulo their number, which is greater than every latency; of a cycle in the order in which they were added.
    cycles: Vec<Vec<Drive>>,
    /// The cycle before which nothing is driven any more.
    first: u64,
    /// How many vectors there are.
    waiting: usize,
    /// Vectors that nobody needs any more, whose memory is used again.
    spare: Vec<Vector>,
}

impl Pending {
    pub fn new(machine: &LpuMachine) -> Self {
        let most = machine.mem.latency.max(machine.vxm.latency).max(machine.sxm.latency) as usize + 1;
        let cycles = vec![Vec::new(); most.next_power_of_two()];
        Pending { vector: machine.vector(), cycles, first: 0, waiting: 0, spare: Vec::new() }
    }

    fn index(&self, cycle: u64) -> usize {
        cycle as usize & (self.cycles.len() - 1)
    }

    /// The next cycle in which something is driven.
    pub fn next(&self) -> Option<u64> {
        if self.waiting == 0 {
            return None;
        }
        let mut cycles = self.first..self.first + self.cycles.len() as u64;
        cycles.find(|&cycle| !self.cycles[self.index(cycle)].is_empty())
    }

    /// Drives in a cycle that is further away from the present than none of the machine's latencies; gives the vector to be
    /// filled, which holds anything.
    pub fn add(&mut self, cycle: u64, stream: Stream, position: usize) -> &mut [u8] {
        let (index, vector) = (self.index(cycle), self.vector);
        self.waiting += 1;
        let vector = self.spare.pop().unwrap_or_else(|| vec![0; vector].into_boxed_slice());
        let drives = &mut self.cycles[index];
        let added = drives.len();
        drives.push((stream, position, vector));
        &mut drives[added].2
    }

    /// What is driven in a cycle. All cycles before it must be over, or have had nothing.
    pub fn due(&mut self, cycle: u64) -> Vec<Drive> {
        let index = self.index(cycle);
        self.first = cycle + 1;
        let due = std::mem::take(&mut self.cycles[index]);
        self.waiting -= due.len();
        due
    }

    /// Says that a cycle is over, whose list is empty now.
    pub fn over(&mut self, cycle: u64, due: Vec<Drive>) {
        let index = self.index(cycle);
        self.cycles[index] = due;
    }

    /// Takes a vector that nobody needs any more.
    pub fn give_back(&mut self, vector: Vector) {
        if !vector.is_empty() {
            self.spare.push(vector);
        }
    }
}
