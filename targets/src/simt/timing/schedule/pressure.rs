//! Registers that the rest of a stretch takes.
//!
//! For each step that is left stands here how many registers are taken when it is done, if from now on all goes in the order
//! of the kernel. To put a step forward takes what it computes until where it stood, and may end what lives. So whether that
//! stays within a bound is a question about a range of steps, and after each answer the order of the kernel is still a way to
//! go on.

use smallvec::SmallVec;

/// What is held in registers.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub registers: i64,
    /// Whether it is held.
    pub is_there: bool,
    /// Whether it is after the stretch.
    pub stays: bool,
    /// The first and the last step that uses it, in the order of the kernel.
    pub first: usize,
    pub last: usize,
    /// Steps that use it and are left.
    pub left: usize,
}

/// All that steps of a stretch hold in registers.
#[derive(Clone, Debug)]
pub(super) struct Uses {
    /// What each step uses, by its place among all.
    pub of_steps: Vec<SmallVec<[usize; 4]>>,
    pub all: Vec<Held>,
    /// Registers of what lives when the stretch begins.
    pub entering: i64,
}

/// Lower than any number of registers.
const OVER: i64 = i64::MIN / 4;

/// The registers of the rest of a stretch.
#[derive(Debug)]
pub(super) struct Pressure {
    uses: Uses,
    /// The bound.
    most: i64,
    /// Registers that are taken.
    now: i64,
    /// The largest numbers in a tree of ranges, each without what is added to ranges that it is in.
    largest: Vec<i64>,
    added: Vec<i64>,
    /// Number of leaves, a power of two.
    leaves: usize,
    /// Whether all could be held at a time.
    is_free: bool,
}

impl Pressure {
    /// Before the first step. `None` if the order of the kernel takes more than the bound.
    pub fn new(uses: Uses, most: i64) -> Option<Pressure> {
        let steps = uses.of_steps.len();
        let all: i64 = uses.all.iter().filter(|held| !held.is_there).map(|held| held.registers).sum();
        let leaves = steps.next_power_of_two();
        let mut pressure = Pressure {
            now: uses.entering,
            is_free: uses.entering + all <= most,
            uses,
            most,
            largest: Vec::new(),
            added: Vec::new(),
            leaves,
        };
        if pressure.is_free {
            return Some(pressure);
        }
        let mut changes = vec![0; steps + 1];
        for held in &pressure.uses.all {
            if !held.is_there {
                changes[held.first] += held.registers;
            }
            if !held.stays {
                changes[held.last + 1] -= held.registers;
            }
        }
        let mut now = pressure.now;
        pressure.largest = vec![OVER; 2 * leaves];
        pressure.added = vec![0; 2 * leaves];
        for (step, change) in changes[..steps].iter().enumerate() {
            now += change;
            pressure.largest[leaves + step] = now;
        }
        for node in (1..leaves).rev() {
            pressure.largest[node] = pressure.largest[2 * node].max(pressure.largest[2 * node + 1]);
        }
        (pressure.largest[1] <= most).then_some(pressure)
    }

    /// Registers that a step begins to take.
    fn begun(&self, step: usize) -> i64 {
        let held = self.uses.of_steps[step].iter().map(|&number| &self.uses.all[number]);
        held.filter(|held| !held.is_there).map(|held| held.registers).sum()
    }

    /// Whether a step can be done before the first that is left and all up to it.
    pub fn allows(&self, step: usize, first: usize) -> bool {
        if self.is_free || step == first {
            return true;
        }
        let begun = self.begun(step);
        begun == 0 || self.now + begun <= self.most && self.largest_of(first, step) + begun <= self.most
    }

    /// A step is done.
    pub fn take(&mut self, step: usize, first: usize) {
        let of_step = std::mem::take(&mut self.uses.of_steps[step]);
        if self.is_free {
            return;
        }
        self.add(step, step + 1, OVER);
        for number in of_step {
            let held = &mut self.uses.all[number];
            held.left -= 1;
            let (is_there, is_over) = (held.is_there, held.left == 0 && !held.stays);
            let (registers, begins, ends) = (held.registers, held.first, held.last);
            held.is_there = true;
            if !is_there {
                self.now += registers;
                self.add(first, begins.min(step), registers);
            }
            if is_over {
                self.now -= registers;
                self.add(first, ends + 1, -registers);
            }
        }
    }

    /// The largest number of a range.
    fn largest_of(&self, from: usize, to: usize) -> i64 {
        self.largest_within(1, (0, self.leaves), (from, to))
    }

    fn largest_within(&self, node: usize, (start, end): (usize, usize), (from, to): (usize, usize)) -> i64 {
        if from >= end || to <= start {
            return OVER;
        }
        if from <= start && end <= to {
            return self.largest[node];
        }
        let middle = start.midpoint(end);
        let left = self.largest_within(2 * node, (start, middle), (from, to));
        let right = self.largest_within(2 * node + 1, (middle, end), (from, to));
        left.max(right) + self.added[node]
    }

    /// Adds to the numbers of a range.
    fn add(&mut self, from: usize, to: usize, more: i64) {
        if from < to {
            self.add_within(1, (0, self.leaves), (from, to), more);
        }
    }

    fn add_within(&mut self, node: usize, (start, end): (usize, usize), (from, to): (usize, usize), more: i64) {
        if from >= end || to <= start {
            return;
        }
        if from <= start && end <= to {
            self.largest[node] += more;
            self.added[node] += more;
            return;
        }
        let middle = start.midpoint(end);
        self.add_within(2 * node, (start, middle), (from, to), more);
        self.add_within(2 * node + 1, (middle, end), (from, to), more);
        self.largest[node] = self.largest[2 * node].max(self.largest[2 * node + 1]) + self.added[node];
    }
}
