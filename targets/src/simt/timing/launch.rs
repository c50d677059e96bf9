//! All blocks of a launch, handed to multiprocessors in order as places become free.
//!
//! Multiprocessors that do the same at the same time are simulated once, as a group: blocks are of one class if their warps go
//! through the same instructions with as many sectors and conflicts each, and a group is split as soon as its members are
//! given blocks of different classes. Which class a block is of follows from where it lies along each axis of the grid: first,
//! last, or between; all that lie between are taken to do what the middle one does. When waves repeat those that follow are left out: exactly when two waves in a row take as long and do as
//! much; and after a number of simulated instructions also when they differ, so that time to compile has a bound.

use std::collections::HashMap;

use super::lanes::Lanes;
use super::multiprocessor::Multiprocessor;
use super::resource::Counters;
use super::setting::Setting;
use super::sharing::place;
use super::signature::signature;

/// Most groups. Where there would be more, a group takes for all its members what the first is given.
const MAX_GROUPS: usize = 12;

/// Instructions after which waves are left out although they differ.
const MAX_INSTRUCTIONS: u64 = 1 << 18;

/// What came of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Cycles until all blocks are over and all is in memory.
    pub cycles: u64,
    /// Cycles from then on until all is there that was asked for on behalf of a later launch.
    pub behind: u64,
    /// What all multiprocessors have done together.
    pub counters: Counters,
}

/// Multiprocessors that do the same.
#[derive(Clone)]
struct Group<'p> {
    multiprocessor: Multiprocessor<'p>,
    members: u64,
    /// When its next block is over.
    over: Option<u64>,
    /// Blocks that are over.
    finished: u64,
}

/// The end of a wave of the first group.
struct Wave {
    at: u64,
    /// The next block.
    next: u64,
    /// What each group has done so far.
    counters: Vec<Counters>,
}

/// How a wave went.
#[derive(PartialEq, Eq)]
struct Course {
    cycles: u64,
    blocks: u64,
    /// What the first group has done in it.
    counters: Counters,
    /// How far its servers were behind at the end.
    backlog: [u64; 4],
}

struct Launch<'p> {
    setting: &'p Setting<'p>,
    classes: Option<Classes>,
    groups: Vec<Group<'p>>,
    /// The next block.
    next: u64,
    /// The wave before, and how it went.
    wave: Option<Wave>,
    course: Option<Course>,
    /// The first wave since groups were last split.
    origin: Option<Wave>,
}

/// Runs a launch.
pub(super) fn run(setting: &Setting<'_>) -> Outcome {
    let classes = setting.leaves_out.then(|| Classes::new(setting));
    let mut launch = Launch { setting, classes, groups: Vec::new(), next: 0, wave: None, course: None, origin: None };
    launch.begin();
    while let Some(first) = launch.first() {
        launch.hand_out(first);
    }
    let mut outcome = Outcome { cycles: 0, behind: 0, counters: Counters::new(setting.kernel.buffers.len()) };
    let mut all_moved = 0;
    for Group { multiprocessor, members, .. } in &launch.groups {
        outcome.counters.add(&multiprocessor.counters, *members);
        let end = (multiprocessor.now + 1).max(multiprocessor.memory.drained());
        outcome.cycles = outcome.cycles.max(end);
        all_moved = all_moved.max(multiprocessor.memory.all_moved());
    }
    outcome.behind = all_moved.saturating_sub(outcome.cycles);
    outcome
}

impl Launch<'_> {
    fn class(&self, block: u64) -> u64 {
        self.classes.as_ref().map_or(block, |classes| classes.of(self.setting, block))
    }

    fn blocks(&self) -> u64 {
        self.setting.kernel.blocks()
    }

    /// Fills all multiprocessors, round by round.
    fn begin(&mut self) {
        let (active, wave) = (self.setting.occupancy.active, self.setting.occupancy.wave().min(self.blocks()));
        let mut numbers: HashMap<Vec<u64>, usize> = HashMap::new();
        let mut kinds: Vec<(Vec<u64>, u64)> = Vec::new();
        for multiprocessor in 0..active {
            let own: Vec<u64> = (multiprocessor..wave).step_by(active as usize).collect();
            let key: Vec<u64> = own.iter().map(|&block| self.class(block)).collect();
            let is_full = kinds.len() >= MAX_GROUPS && self.classes.is_some();
            let known = numbers.get(&key).copied().or(is_full.then_some(0));
            match known {
                Some(known) => kinds[known].1 += 1,
                None => {
                    numbers.insert(key, kinds.len());
                    kinds.push((own, 1));
                }
            }
        }
        for (own, members) in kinds {
            let mut multiprocessor = Multiprocessor::new(self.setting);
            own.iter().for_each(|&block| multiprocessor.start(block, 0));
            let over = multiprocessor.run();
            self.groups.push(Group { multiprocessor, members, over, finished: 0 });
        }
        self.next = wave;
    }

    /// The group whose block is over first.
    fn first(&self) -> Option<usize> {
        let running = self.groups.iter().enumerate().filter_map(|(index, group)| Some((group.over?, index)));
        running.min().map(|(_, index)| index)
    }

    /// Gives a group the next blocks for the one that is over, and lets it run on.
    fn hand_out(&mut self, index: usize) {
        let Group { members, over: Some(at), .. } = self.groups[index] else { return };
        let given = members.min(self.blocks() - self.next);
        let mut rest = self.next..self.next + given;
        self.next += given;
        // Runs of members that are given blocks of one class.
        let mut parts: Vec<(Option<u64>, u64)> = Vec::new();
        if let Some(first) = rest.next() {
            let mut class = self.class(first);
            parts.push((Some(first), 1));
            for block in rest {
                let own = self.class(block);
                let known = if own == class { parts.last_mut() } else { None };
                class = own;
                match known {
                    Some((_, count)) => *count += 1,
                    None => parts.push((Some(block), 1)),
                }
            }
        }
        if given < members {
            parts.push((None, members - given));
        }
        if self.groups.len() + parts.len() > MAX_GROUPS + 1 && self.classes.is_some() {
            parts.truncate(1);
            parts[0].1 = members;
        }
        for (place, (block, count)) in parts.into_iter().enumerate().rev() {
            let mut group = if place == 0 { self.groups.swap_remove(index) } else { self.groups[index].clone() };
            group.members = count;
            group.finished += 1;
            if let Some(block) = block {
                group.multiprocessor.start(block, at);
            }
            group.over = group.multiprocessor.run();
            self.groups.push(group);
            if place == 0 {
                let last = self.groups.len() - 1;
                self.groups.swap(index, last);
            }
        }
        if self.setting.leaves_out {
            self.look_at_waves(at);
        }
    }

    /// Leaves waves out, if the last repeats the one before it, or too much was simulated.
    fn look_at_waves(&mut self, at: u64) {
        let each = u64::from(self.setting.occupancy.blocks);
        let Some(group) = self.groups.first() else { return };
        if !group.finished.is_multiple_of(each) || group.finished == 0 {
            return;
        }
        let counters: Vec<Counters> = self.groups.iter().map(|group| group.multiprocessor.counters.clone()).collect();
        let simulated: u64 = counters.iter().map(Counters::instructions).sum();
        let now = Wave { at, next: self.next, counters };
        let is_split = |before: &Wave| before.counters.len() != now.counters.len();
        let Some(before) = self.wave.take().filter(|before| !is_split(before)) else {
            (self.wave, self.course, self.origin) = (Some(now), None, None);
            return;
        };
        let course = Course {
            cycles: at.saturating_sub(before.at),
            blocks: now.next - before.next,
            counters: now.counters[0].since(&before.counters[0]),
            backlog: self.groups[0].multiprocessor.memory.backlog(at),
        };
        let repeats = self.course.as_ref() == Some(&course);
        let left = self.blocks() - self.next;
        let same = self.classes.as_ref().map_or(0, |classes| classes.same_from(self.setting, self.next));
        let origin = self.origin.take();
        let leaves = match &origin {
            _ if repeats => self.leave_out(&before, &now, same),
            Some(origin) if simulated > MAX_INSTRUCTIONS => self.leave_out(origin, &now, left),
            _ => false,
        };
        if !leaves {
            (self.wave, self.course, self.origin) = (Some(now), Some(course), origin.or(Some(before)));
        }
    }

    /// Counts what was done between two waves again, as often as so many blocks allow, and says whether they do.
    fn leave_out(&mut self, before: &Wave, now: &Wave, blocks: u64) -> bool {
        let (span, cycles) = (now.next - before.next, now.at.saturating_sub(before.at));
        // The last waves are simulated.
        let times = (blocks / span.max(1)).saturating_sub(1);
        let own = now.counters[0].since(&before.counters[0]);
        let times = times.min(self.groups[0].multiprocessor.memory.room(&own, &now.counters[0]));
        if times == 0 || cycles == 0 {
            return false;
        }
        for (index, group) in self.groups.iter_mut().enumerate() {
            let done = now.counters[index].since(&before.counters[index]);
            group.multiprocessor.counters.add(&done, times);
            group.multiprocessor.memory.age(&done, times);
            group.multiprocessor.delay(cycles * times);
            group.over = group.over.map(|over| over + cycles * times);
        }
        self.next += times * span;
        self.course = None;
        true
    }
}

/// The classes of blocks.
struct Classes {
    /// The class by where a block lies: first, between or last along each axis.
    of_position: [u64; 27],
}

impl Classes {
    fn new(setting: &Setting<'_>) -> Classes {
        let grid = setting.kernel.grid;
        let mut known: Vec<u64> = Vec::new();
        let mut of_position = [0; 27];
        for (position, class) in of_position.iter_mut().enumerate() {
            let mut place = [0; 3];
            let mut rest = position;
            let mut is_there = true;
            for (axis, index) in place.iter_mut().enumerate() {
                *index = match rest % 3 {
                    0 => 0,
                    1 => grid[axis] / 2,
                    _ => grid[axis] - 1,
                };
                is_there &= position_along(*index, grid[axis]) == rest % 3;
                rest /= 3;
            }
            if !is_there {
                continue;
            }
            let signature = signature(setting, place.map(|index| Lanes::same(i64::from(index))));
            *class = match known.iter().position(|&other| other == signature) {
                Some(known) => known as u64,
                None => {
                    known.push(signature);
                    known.len() as u64 - 1
                }
            };
        }
        Classes { of_position }
    }

    fn of(&self, setting: &Setting<'_>, block: u64) -> u64 {
        let (place, grid) = (place(setting.kernel, block), setting.kernel.grid);
        let along = |axis: usize| position_along(place[axis], grid[axis]);
        self.of_position[along(0) + 3 * along(1) + 9 * along(2)]
    }

    /// How many blocks from one on are of its class.
    fn same_from(&self, setting: &Setting<'_>, block: u64) -> u64 {
        let all = setting.kernel.blocks();
        if block >= all {
            return 0;
        }
        let class = self.of(setting, block);
        if self.of_position.iter().all(|&other| other == class) {
            return all - block;
        }
        // The rest of a row of blocks is of one class up to its last.
        let row = u64::from(setting.kernel.grid[0]);
        let to_last = (row - 1).saturating_sub(block % row);
        let mut same = to_last;
        while block + same < all && same < to_last + 4 * row && self.of(setting, block + same) == class {
            same += 1;
        }
        same
    }
}

/// Whether an index is the first (0), the last (2), or between.
fn position_along(index: u32, count: u32) -> usize {
    match index {
        0 => 0,
        index if index + 1 == count => 2,
        _ => 1,
    }
}
