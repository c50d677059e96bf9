//! Iterations that are left out.
//!
//! A window is a time in which every warp of a multiprocessor stays in one loop and begins some of its iterations anew. If two
//! windows of the same length follow each other at the same pace, to within a thirty-second, what comes after is taken to go
//! on like the second: warps, counters and time leap by whole windows, as often as every warp has iterations left, but not for
//! more than a few times as long as the longest of the loops has taken so far, and what is left is executed again. Windows grow
//! until paces agree. Loops are looked at depth by depth, so that an inner loop is cut short in each iteration of the outer one
//! that is executed.

use super::multiprocessor::{Multiprocessor, Resident};
use super::resource::Counters;

/// Iterations after which a pace is taken as it is.
const LAST: u64 = 64;

/// Most iterations that are left out at a time, as a multiple of those that are over.
const MOST: u64 = 4;

/// Depths of loops that are looked at.
const DEPTHS: usize = 4;

/// What is left out.
pub(super) struct Leap {
    /// How deep in loops.
    pub depth: usize,
    /// Windows.
    pub times: u64,
    /// Cycles of a window.
    pub cycles: u64,
    /// What is counted in a window.
    pub counters: Counters,
    /// Iterations of each warp in a window, with its place.
    pub iterations: Vec<(usize, u64)>,
}

/// Where a warp stood when a window began: its place, its loop and its iteration.
#[derive(Clone, Copy, Debug)]
struct Mark {
    place: usize,
    serial: u64,
    done: u64,
}

#[derive(Clone, Debug)]
struct Window {
    start: u64,
    counters: Counters,
    marks: Vec<Mark>,
    /// Warps that have not begun enough iterations yet.
    lagging: usize,
}

#[derive(Clone, Debug)]
struct Depth {
    window: Option<Window>,
    /// Iterations of a window.
    length: u64,
    /// Cycles of the window before.
    before: Option<u64>,
}

impl Depth {
    fn new(length: u64) -> Self {
        Depth { window: None, length, before: None }
    }
}

/// The windows of a multiprocessor, by depth.
#[derive(Clone, Debug)]
pub(super) struct Steady {
    depths: [Depth; DEPTHS],
    /// Iterations of each warp in the first window. A loop of less than a few windows is executed as it is.
    first: u64,
}

impl Steady {
    /// None yet; the first are of so many iterations.
    pub fn new(first: u64) -> Steady {
        Steady { depths: std::array::from_fn(|_| Depth::new(first)), first }
    }

    /// There are other warps.
    pub fn change(&mut self) {
        *self = Steady::new(self.first);
    }

    /// A warp has begun an iteration or left a loop.
    pub fn turn(&mut self, place: usize, all: &Multiprocessor<'_>) -> Option<Leap> {
        let first = self.first;
        let frames = all.warps.get(place)?.as_ref().map_or(0, |resident| resident.warp.frames.len());
        for (index, depth) in self.depths.iter_mut().enumerate() {
            let frame = all.warps[place].as_ref().and_then(|resident| resident.warp.frames.get(index));
            match (&mut depth.window, frame) {
                (None, Some(frame)) => {
                    // Only who is innermost there has begun an iteration of this loop.
                    if index + 1 == frames && frame.total > 4 * first {
                        depth.window = open(index, all);
                    }
                }
                (None, None) => {}
                (Some(window), frame) => {
                    let mark = window.marks.iter().find(|mark| mark.place == place);
                    match (mark, frame) {
                        (Some(mark), Some(frame)) if mark.serial == frame.serial => {
                            if index + 1 == frames && frame.done == mark.done + depth.length {
                                window.lagging -= 1;
                            }
                        }
                        _ => *depth = Depth::new(first),
                    }
                }
            }
            if depth.window.as_ref().is_some_and(|window| window.lagging == 0) {
                let leap = depth.complete(index, all);
                depth.window = None;
                if leap.is_some() {
                    depth.before = None;
                    self.depths[index + 1..].iter_mut().for_each(|deeper| *deeper = Depth::new(first));
                    return leap;
                }
                depth.window = open(index, all);
            }
        }
        None
    }
}

/// Begins a window, if all warps are in loops that deep.
fn open(depth: usize, all: &Multiprocessor<'_>) -> Option<Window> {
    let mut marks = Vec::new();
    for (place, resident) in all.warps.iter().enumerate() {
        let Some(Resident { warp, .. }) = resident else { continue };
        let frame = warp.frames.get(depth).filter(|frame| frame.is_regular)?;
        marks.push(Mark { place, serial: frame.serial, done: frame.done });
    }
    let lagging = marks.len();
    Some(Window { start: all.now, counters: all.counters.clone(), marks, lagging })
}

impl Depth {
    /// What can be left out after a window, if anything can.
    fn complete(&mut self, depth: usize, all: &Multiprocessor<'_>) -> Option<Leap> {
        let window = self.window.as_ref()?;
        let cycles = all.now - window.start;
        let agrees = self.before.is_some_and(|before| before.abs_diff(cycles) * 32 <= cycles);
        if !agrees && self.length < LAST {
            // A pace that has changed is looked at for longer.
            if self.before.is_some() {
                (self.length, self.before) = (2 * self.length, None);
            } else {
                self.before = Some(cycles);
            }
            return None;
        }
        let mut iterations = Vec::with_capacity(window.marks.len());
        let (mut times, mut longest) = (u64::MAX, 1);
        for mark in &window.marks {
            let frame = all.warps[mark.place].as_ref()?.warp.frames.get(depth)?;
            let each = frame.done - mark.done;
            // The last iterations are executed.
            times = times.min((frame.total - frame.done).saturating_sub(2) / each.max(1));
            longest = longest.max(frame.done / each.max(1));
            iterations.push((mark.place, each));
        }
        // What is far away is looked at again on the way there.
        times = times.min(MOST * longest);
        let counters = all.counters.since(&window.counters);
        times = times.min(all.memory.room(&counters, &all.counters));
        self.before = Some(cycles);
        (times > 0).then_some(Leap { depth, times, cycles, counters, iterations })
    }
}
