//! Emission of instructions with their waits.
//!
//! The lowering says what is done, in program order; the emitter finds out which bytes each instruction reads and
//! writes, and derives from that what it has to wait for. So double buffering is nothing but taking two buffers in turn.

use std::ops::Range;

use smallvec::SmallVec;

use super::banks::{BankUse, PortTracker};
use super::isa::{DmaDim, DramAddress, Instruction, MAX_DIMS, Operation, Transfer, Unit, Waits};
use super::machine::SystolicMachine;
pub(super) use super::touch::ArrayWeights;
use super::touch::{DRAM_BLOCK_BYTES, Space, Touch, Toucher, Touches, chip_page_bytes, page_bytes};
use super::tracker::{Ages, Tracker};

/// Appends instructions to a program.
pub(super) struct Emitter<'m> {
    machine: &'m SystolicMachine,
    program: Vec<Instruction>,
    dispatched: [u32; Unit::COUNT],
    dram: Tracker,
    page_bytes: u32,
    scratchpad: Tracker,
    accumulators: Tracker,
    ports: PortTracker,
    /// First DRAM address that is ever written; below it lie the weights, which need no tracking.
    writable: u64,
    /// Bytes of the scratchpad that kernels take their buffers of; behind them lies what stays on chip between kernels.
    capacity: u64,
    /// Where the next buffer goes.
    next: u32,
    /// Bytes of a bank, if buffers are kept to banks by who fills them.
    separate: Option<u32>,
    /// What is left of the banks that were taken last, by who fills their buffers.
    open: [Range<u32>; 2],
    /// The buffers that the kernel has taken since the last [`Emitter::release`], to see that instructions keep to them.
    buffers: Vec<Range<u64>>,
    /// Bytes of the scratchpad between the first buffer since the last [`Emitter::release`] and `next`, going round.
    taken: u64,
    /// The most that `taken` has been since the kernel began.
    most_taken: u64,
    /// What the base registers hold.
    bases: Vec<u64>,
    weights: ArrayWeights,
    /// What a segment that does not begin the program has to settle.
    fence: Option<Fence>,
}

/// Who fills a buffer: loads and the vector unit do so at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filler {
    Load,
    Vector,
    /// Both, each a part of it.
    Both,
}

/// What stands between a segment and everything before the segment before it. The pages that were touched so long ago are
/// not looked at one by one: the first instruction on every unit waits until all of that has completed, which it has long
/// since. So what a segment waits for follows from the one before it alone.
#[derive(Clone, Copy, Debug, Default)]
struct Fence {
    /// Units that have passed it.
    passed: [bool; Unit::COUNT],
}

impl<'m> Emitter<'m> {
    /// An emitter for a program, or a part of it, whose first buffer goes to `next` of the first `capacity` bytes of the
    /// scratchpad; DRAM is written from `writable` on.
    pub(super) fn new(machine: &'m SystolicMachine, writable: u64, capacity: u64, next: u32) -> Self {
        let page_bytes = page_bytes(machine);
        Emitter {
            machine,
            program: Vec::new(),
            dispatched: [0; Unit::COUNT],
            dram: Tracker::new(DRAM_BLOCK_BYTES),
            page_bytes,
            scratchpad: Tracker::new(chip_page_bytes(machine)),
            accumulators: Tracker::new(chip_page_bytes(machine)),
            ports: PortTracker::new(&machine.scratchpad),
            writable,
            capacity,
            next,
            separate: None,
            open: Default::default(),
            buffers: Vec::new(),
            taken: 0,
            most_taken: 0,
            bases: Vec::new(),
            weights: ArrayWeights::default(),
            fence: None,
        }
    }

    /// Takes note of the instructions before the first, which began with `weights` in the array and ran with `bases`. All
    /// before them is fenced off.
    pub(super) fn resume(&mut self, before: &[Instruction], bases: &[u64], weights: ArrayWeights) {
        self.weights = weights;
        self.set_bases(bases);
        for instruction in before {
            self.weights.follow(&instruction.op);
            let touches = self.touches(&instruction.op);
            let unit = instruction.op.unit();
            self.record(unit, &touches);
            self.ports.hold(unit, self.dispatched[unit.index()], self.banks(&touches));
        }
        self.bases.clear();
        self.fence = Some(Fence::default());
    }

    /// What the base registers hold in the call that is written.
    pub(super) fn set_bases(&mut self, bases: &[u64]) {
        self.bases.clear();
        self.bases.extend_from_slice(bases);
    }

    /// The weights in the array, and in its shadow registers.
    pub(super) fn weights(&self) -> ArrayWeights {
        self.weights
    }

    /// Where the next buffer goes.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Number of instructions so far.
    pub(super) fn len(&self) -> usize {
        self.program.len()
    }

    pub(super) fn finish(self) -> Vec<Instruction> {
        self.program
    }

    /// What a buffer of `bytes` takes of the scratchpad.
    pub(super) fn allocated(&self, bytes: u64) -> u64 {
        bytes.max(1).next_multiple_of(u64::from(self.page_bytes))
    }

    /// Begins a kernel. Its buffers go where those of the kernel before end, or, if it is `alone`, to the start of the
    /// scratchpad, so that no gap is left at its end. Where banks are many enough, buffers that loads fill and those that the
    /// vector unit fills lie in different ones, unless the kernel is alone.
    pub(super) fn begin_kernel(&mut self, alone: bool) {
        self.separate = self.machine.scratchpad.separable_bank_bytes().filter(|_| !alone);
        self.release();
        self.most_taken = 0;
        if alone {
            self.next = 0;
        }
    }

    /// Says that what the buffers so far hold is not needed any more. They may be overwritten, after what uses them
    /// has been waited for.
    pub(super) fn release(&mut self) {
        self.taken = 0;
        self.buffers.clear();
        self.open = Default::default();
    }

    /// Bytes that the kernel's buffers took beyond what there is: its code is wrong then.
    pub(super) fn excess(&self) -> u64 {
        self.most_taken.saturating_sub(self.capacity)
    }

    /// Takes `bytes` of the scratchpad, round robin. Buffers overlap once more is taken between two releases than there
    /// is; [`Emitter::excess`] then says so.
    pub(super) fn allocate(&mut self, filler: Filler, bytes: u64) -> u32 {
        let bytes = self.allocated(bytes);
        let address = match self.separate {
            Some(bank_bytes) => self.allocate_in_banks(filler, bytes, bank_bytes),
            None => self.take(bytes),
        };
        self.buffers.push(u64::from(address)..u64::from(address) + bytes);
        address
    }

    /// Takes `bytes` of banks in which all buffers are filled by the same: of those taken last, or of new ones.
    fn allocate_in_banks(&mut self, filler: Filler, bytes: u64, bank_bytes: u32) -> u32 {
        let which = match filler {
            Filler::Load => Some(0),
            Filler::Vector => Some(1),
            // While the vector unit fills its part of one, loads go on with the next.
            Filler::Both => None,
        };
        let mut left = which.map_or(0..0, |which| std::mem::take(&mut self.open[which]));
        let kept = u64::from(left.end - left.start);
        let bank_bytes = u64::from(bank_bytes);
        if bytes > kept {
            let more = (bytes - kept).next_multiple_of(bank_bytes);
            if kept > 0 && left.end == self.next && u64::from(self.next) + more <= self.capacity {
                left.end = self.take(more) + more as u32;
            } else {
                let banks = bytes.next_multiple_of(bank_bytes);
                self.next_bank(bank_bytes);
                let address = self.take(banks);
                left = address..address + banks.min(self.capacity) as u32;
            }
        }
        let address = left.start;
        left.start += bytes.min(u64::from(left.end - left.start)) as u32;
        if let Some(which) = which {
            self.open[which] = left;
        }
        address
    }

    /// Goes on to the beginning of a bank.
    fn next_bank(&mut self, bank_bytes: u64) {
        let next = u64::from(self.next).next_multiple_of(bank_bytes);
        if next <= self.capacity {
            self.taken += if self.taken > 0 { next - u64::from(self.next) } else { 0 };
            self.next = next as u32;
        }
    }

    /// Takes the next `bytes`.
    fn take(&mut self, bytes: u64) -> u32 {
        let capacity = self.capacity;
        if u64::from(self.next) + bytes > capacity {
            if self.taken > 0 {
                self.taken += capacity - u64::from(self.next);
            }
            self.next = 0;
        }
        let address = self.next;
        self.taken = self.taken.saturating_add(bytes);
        self.most_taken = self.most_taken.max(self.taken);
        // What is larger than the scratchpad has made the kernel useless already.
        self.next += bytes.min(capacity) as u32;
        address
    }

    /// Bytes of the scratchpad for buffers of kernels.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes of it that are not in use.
    pub(super) fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.taken)
    }

    /// Appends an instruction.
    pub(super) fn emit(&mut self, op: Operation) {
        let unit = op.unit();
        self.weights.follow(&op);
        let touches = self.touches(&op);
        debug_assert!(self.keeps_to_buffers(&touches), "{op:?} leaves its buffers, which are {:x?}", self.buffers);
        let mut latest = self.record(unit, &touches);
        self.ports.claim(unit, self.dispatched[unit.index()], self.banks(&touches), &mut latest);
        let fenced = self.fence.as_mut().is_some_and(|fence| !std::mem::replace(&mut fence.passed[unit.index()], true));
        let mut waits = Waits::default();
        for (index, &latest) in latest.iter().enumerate() {
            if latest > 0 || fenced {
                let before = self.dispatched[index] - u32::from(index == unit.index());
                // Where the distance does not fit, later instructions are waited for too.
                waits.0[index] = Some(u16::try_from(before - latest).unwrap_or(u16::MAX));
            }
        }
        self.program.push(Instruction { waits, op });
    }

    /// Whether everything that is touched in the scratchpad lies in one buffer each. Waits would order an instruction that
    /// reaches into the next buffer like any other, but what that held is lost.
    fn keeps_to_buffers(&self, touches: &[Touch]) -> bool {
        let held = |run: &Range<u64>| {
            run.start >= self.capacity || self.buffers.iter().any(|own| own.start <= run.start && run.end <= own.end)
        };
        let mut keeps = true;
        for touch in touches.iter().filter(|touch| touch.space == Space::Scratchpad) {
            touch.for_each_run(|run| keeps &= held(&run));
        }
        keeps || self.excess() > 0
    }

    /// Takes note of what the next instruction of a unit touches. Gives the last instruction of every unit that has touched
    /// the same before in a way that conflicts.
    fn record(&mut self, unit: Unit, touches: &[Touch]) -> [u32; Unit::COUNT] {
        let own = unit.index();
        self.dispatched[own] += 1;
        let number = self.dispatched[own];
        let mut latest = [0u32; Unit::COUNT];
        for touch in touches {
            self.for_each_page(touch, |ages| {
                for (index, latest) in latest.iter_mut().enumerate() {
                    // The array adds to its accumulators in the order of its passes; everything else must have been
                    // written before it is read or overwritten, by the same unit too, whose results take a latency.
                    if index != own {
                        let read = if touch.write { ages.read[index] } else { 0 };
                        *latest = ages.written[index].max(read).max(*latest);
                    } else if unit != Unit::Array && ages.written[own] != number {
                        *latest = ages.written[own].max(*latest);
                    }
                }
                if !touch.write {
                    ages.read[own] = number;
                }
            });
            if touch.write {
                // It waits for everything that touched the same before, so that who waits for it need not.
                let mut written = Ages::default();
                written.written[own] = number;
                self.for_each_page(touch, |ages| *ages = written);
            }
        }
        latest
    }

    /// The banks of the scratchpad that an instruction uses.
    fn banks(&self, touches: &[Touch]) -> BankUse {
        let mut used = BankUse::default();
        if !self.machine.scratchpad.is_contended() {
            return used;
        }
        for touch in touches.iter().filter(|touch| touch.space == Space::Scratchpad) {
            touch.for_each_run(|run| used.insert(touch.write, run, &self.machine.scratchpad));
        }
        used
    }

    fn touches(&self, op: &Operation) -> Touches {
        Toucher { machine: self.machine, bases: &self.bases, active: self.weights.active }.touches(op)
    }

    fn for_each_page(&mut self, touch: &Touch, mut visit: impl FnMut(&mut Ages)) {
        let (tracker, base) = match touch.space {
            Space::Dram => (&mut self.dram, self.writable),
            Space::Scratchpad => (&mut self.scratchpad, 0),
            Space::Accumulators => (&mut self.accumulators, 0),
        };
        touch.for_each_run(|run| {
            let run = run.start.max(base) - base..run.end.max(base) - base;
            tracker.pages(&run).iter_mut().for_each(&mut visit);
        });
    }

    /// Copies between DRAM and the scratchpad. Dimensions are merged where they can be; a nest that is deeper than the
    /// machine's is cut into several transfers.
    pub(super) fn transfer(
        &mut self,
        store: bool,
        dram: DramAddress,
        scratchpad: u32,
        element_bytes: u8,
        dims: &[DmaDim],
    ) {
        if dims.iter().any(|dim| dim.size == 0) {
            return;
        }
        let mut merged: SmallVec<[DmaDim; 4]> = SmallVec::new();
        for &dim in dims.iter().filter(|dim| dim.size > 1) {
            match merged.last_mut() {
                Some(outer)
                    if outer.dram_stride == dim.dram_stride * i64::from(dim.size)
                        && i64::from(outer.scratchpad_stride)
                            == i64::from(dim.scratchpad_stride) * i64::from(dim.size) =>
                {
                    *outer = DmaDim { size: outer.size * dim.size, ..dim };
                }
                _ => merged.push(dim),
            }
        }
        if merged.len() > MAX_DIMS {
            let outer = merged[0];
            for step in 0..i64::from(outer.size) {
                let dram = dram.plus(step * outer.dram_stride);
                let scratchpad = scratchpad.wrapping_add_signed((step * i64::from(outer.scratchpad_stride)) as i32);
                self.transfer(store, dram, scratchpad, element_bytes, &merged[1..]);
            }
            return;
        }
        let transfer = Transfer { dram, scratchpad, element_bytes, dims: merged };
        self.emit(if store { Operation::Store(transfer) } else { Operation::Load(transfer) });
    }
}
