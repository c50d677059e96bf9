//! Emission of instructions with their waits.
//!
//! The lowering says what is done, in program order; the emitter finds out which bytes each instruction reads and
//! writes, and derives from that what it has to wait for. So double buffering is nothing but taking two buffers in turn.

use std::ops::Range;

use tcc_ir::ops::ScatterReduction;

use super::isa::{DmaDim, Instruction, MAX_DIMS, Memory, Operation, RowTransfer, Source, Transfer, Unit, Waits, Walk};
use super::machine::SystolicMachine;

/// Granularity at which on-chip hazards are tracked, in bytes: a power of two, and about a sixteen-thousandth of the
/// scratchpad. Buffers are aligned to it, so that no two share a page.
fn page_bytes(machine: &SystolicMachine) -> u32 {
    (machine.scratchpad.bytes >> 14).next_power_of_two().clamp(64, 4096)
}

/// Granularity at which hazards in DRAM are tracked, in bytes; buffers there are aligned to it as well.
pub(super) const DRAM_BLOCK_BYTES: u64 = 4096;

/// The last instruction of each unit that touched a page, counted from 1; 0 is none.
#[derive(Clone, Copy, Default)]
struct Page {
    written: [u32; Unit::COUNT],
    read: [u32; Unit::COUNT],
}

/// Who touched which part of a memory last.
struct Tracker {
    page_bytes: u64,
    pages: Vec<Page>,
}

impl Tracker {
    fn new(page_bytes: u64) -> Self {
        Tracker { page_bytes, pages: Vec::new() }
    }

    fn pages(&mut self, range: &Range<u64>) -> &mut [Page] {
        let first = (range.start / self.page_bytes) as usize;
        let end = range.end.div_ceil(self.page_bytes) as usize;
        if self.pages.len() < end {
            self.pages.resize(end, Page::default());
        }
        &mut self.pages[first..end]
    }
}

/// A memory as an instruction sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    Dram,
    Scratchpad,
    Accumulators,
}

struct Touch {
    space: Space,
    range: Range<u64>,
    write: bool,
}

/// Appends instructions to a program.
pub(super) struct Emitter<'m> {
    machine: &'m SystolicMachine,
    program: Vec<Instruction>,
    dispatched: [u32; Unit::COUNT],
    dram: Tracker,
    page_bytes: u32,
    scratchpad: Tracker,
    accumulators: Tracker,
    /// First DRAM address that is ever written; below it lie the weights, which need no tracking.
    writable: u64,
    /// Where the next buffer goes.
    next: u32,
    /// Bytes of the scratchpad between the first buffer since the last [`Emitter::release`] and `next`, going round.
    taken: u64,
    /// The most that `taken` has been since the kernel began.
    most_taken: u64,
    /// Rows of the array that the weights in the shadow registers, and those in use, take.
    shadow_k: u32,
    active_k: u32,
}

impl<'m> Emitter<'m> {
    pub(super) fn new(machine: &'m SystolicMachine, writable: u64) -> Self {
        let page_bytes = page_bytes(machine);
        Emitter {
            machine,
            program: Vec::new(),
            dispatched: [0; Unit::COUNT],
            dram: Tracker::new(DRAM_BLOCK_BYTES),
            page_bytes,
            scratchpad: Tracker::new(u64::from(page_bytes)),
            accumulators: Tracker::new(u64::from(page_bytes)),
            writable,
            next: 0,
            taken: 0,
            most_taken: 0,
            shadow_k: 0,
            active_k: 0,
        }
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
    /// scratchpad, so that no gap is left at its end.
    pub(super) fn begin_kernel(&mut self, alone: bool) {
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
    }

    /// Bytes that the kernel's buffers took beyond what there is: its code is wrong then.
    pub(super) fn excess(&self) -> u64 {
        self.most_taken.saturating_sub(u64::from(self.machine.scratchpad.bytes))
    }

    /// Takes `bytes` of the scratchpad, round robin. Buffers overlap once more is taken between two releases than there
    /// is; [`Emitter::excess`] then says so.
    pub(super) fn allocate(&mut self, bytes: u64) -> u32 {
        let capacity = u64::from(self.machine.scratchpad.bytes);
        let bytes = self.allocated(bytes);
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

    /// Bytes of the scratchpad that are not in use.
    pub(super) fn room(&self) -> u64 {
        u64::from(self.machine.scratchpad.bytes).saturating_sub(self.taken)
    }

    /// Appends an instruction.
    pub(super) fn emit(&mut self, op: Operation) {
        let unit = op.unit();
        match &op {
            Operation::Preload(load) => self.shadow_k = u32::from(load.k),
            Operation::Multiply(pass) if pass.switch_weights => self.active_k = self.shadow_k,
            _ => {}
        }
        let touches = touches(&op, self.machine, self.active_k);
        let mut latest = [0u32; Unit::COUNT];
        for touch in &touches {
            for page in self.pages(touch) {
                for other in Unit::ALL {
                    let index = other.index();
                    let ordered = other == unit;
                    // The array adds to its accumulators in the order of its passes; everything else must have been
                    // written before it is read or overwritten, by the same unit too, whose results take a latency.
                    if !(ordered && unit == Unit::Array) {
                        latest[index] = latest[index].max(page.written[index]);
                    }
                    if touch.write && !ordered {
                        latest[index] = latest[index].max(page.read[index]);
                    }
                }
            }
        }
        let mut waits = Waits::default();
        for (index, &latest) in latest.iter().enumerate() {
            if latest > 0 {
                // Where the distance does not fit, later instructions are waited for too.
                waits.0[index] = Some(u16::try_from(self.dispatched[index] - latest).unwrap_or(u16::MAX));
            }
        }
        self.dispatched[unit.index()] += 1;
        let number = self.dispatched[unit.index()];
        for touch in &touches {
            for page in self.pages(touch) {
                let last = if touch.write { &mut page.written } else { &mut page.read };
                last[unit.index()] = number;
            }
        }
        self.program.push(Instruction { waits, op });
    }

    fn pages(&mut self, touch: &Touch) -> &mut [Page] {
        match touch.space {
            Space::Dram => {
                let start = touch.range.start.max(self.writable) - self.writable;
                let end = touch.range.end.max(self.writable) - self.writable;
                self.dram.pages(&(start..end))
            }
            Space::Scratchpad => self.scratchpad.pages(&touch.range),
            Space::Accumulators => self.accumulators.pages(&touch.range),
        }
    }

    /// Copies between DRAM and the scratchpad. Dimensions are merged where they can be; a nest that is deeper than the
    /// machine's is cut into several transfers.
    pub(super) fn transfer(&mut self, store: bool, dram: u64, scratchpad: u32, element_bytes: u8, dims: &[DmaDim]) {
        if dims.iter().any(|dim| dim.size == 0) {
            return;
        }
        let mut merged: smallvec::SmallVec<[DmaDim; 4]> = smallvec::SmallVec::new();
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
                let dram = dram.wrapping_add_signed(step * outer.dram_stride);
                let scratchpad = scratchpad.wrapping_add_signed((step * i64::from(outer.scratchpad_stride)) as i32);
                self.transfer(store, dram, scratchpad, element_bytes, &merged[1..]);
            }
            return;
        }
        let transfer = Transfer { dram, scratchpad, element_bytes, dims: merged };
        self.emit(if store { Operation::Store(transfer) } else { Operation::Load(transfer) });
    }
}

/// Smallest and largest offset that a nest reaches.
fn reach(dims: impl Iterator<Item = (u32, i64)>) -> (i64, i64) {
    dims.fold((0, 0), |(low, high), (size, stride)| {
        let last = stride * (i64::from(size) - 1);
        (low + last.min(0), high + last.max(0))
    })
}

fn span(base: u64, (low, high): (i64, i64), element: u64) -> Range<u64> {
    base.wrapping_add_signed(low)..base.wrapping_add_signed(high) + element
}

fn walk_touch(walk: &Walk, dims: &[u32], write: bool) -> Touch {
    let strides = walk.strides.iter().map(|&stride| i64::from(stride));
    let range =
        span(u64::from(walk.address), reach(dims.iter().copied().zip(strides)), (walk.dtype.bits() as u64).div_ceil(8));
    let space = match walk.memory {
        Memory::Scratchpad => Space::Scratchpad,
        Memory::Accumulators => Space::Accumulators,
    };
    Touch { space, range, write }
}

fn row_touches(rows: &RowTransfer, store: bool, combines: bool) -> Vec<Touch> {
    let table = u64::from(rows.outer.saturating_sub(1)) * rows.outer_stride
        + rows.rows.saturating_sub(1) * rows.row_stride
        + u64::from(rows.row_bytes);
    let dense = u64::from(rows.outer) * u64::from(rows.count) * u64::from(rows.row_bytes);
    let index_bytes = u64::from(rows.count) * (rows.index_dtype.bits() as u64 / 8);
    let scratchpad = |start: u32, bytes: u64, write: bool| Touch {
        space: Space::Scratchpad,
        range: u64::from(start)..u64::from(start) + bytes,
        write,
    };
    let dram = |write: bool| Touch { space: Space::Dram, range: rows.dram..rows.dram + table, write };
    let mut touches = vec![scratchpad(rows.indices, index_bytes, false), scratchpad(rows.scratchpad, dense, !store)];
    touches.push(dram(store));
    if combines {
        touches.push(dram(false));
    }
    touches
}

/// What an instruction reads and writes, each as the smallest range that holds it.
fn touches(op: &Operation, machine: &SystolicMachine, active_k: u32) -> Vec<Touch> {
    let acc_row = u64::from(machine.array.columns) * 4;
    let transfer = |transfer: &Transfer, store: bool| {
        let element = u64::from(transfer.element_bytes);
        let dram = reach(transfer.dims.iter().map(|dim| (dim.size, dim.dram_stride)));
        let chip = reach(transfer.dims.iter().map(|dim| (dim.size, i64::from(dim.scratchpad_stride))));
        vec![
            Touch { space: Space::Dram, range: span(transfer.dram, dram, element), write: store },
            Touch {
                space: Space::Scratchpad,
                range: span(u64::from(transfer.scratchpad), chip, element),
                write: !store,
            },
        ]
    };
    let matrix = |address: u32, dims: [(u32, i64); 2], element: u64| Touch {
        space: Space::Scratchpad,
        range: span(u64::from(address), reach(dims.into_iter()), element),
        write: false,
    };
    let zero = |address: Option<u32>, element: u64| {
        address.map(|address| Touch {
            space: Space::Scratchpad,
            range: u64::from(address)..u64::from(address) + element,
            write: false,
        })
    };
    let sources = |sources: &[Source], dims: &[u32]| -> Vec<Touch> {
        sources
            .iter()
            .filter_map(|source| match source {
                Source::Walk(walk) => Some(walk_touch(walk, dims, false)),
                Source::Float(_) | Source::Integer(_) => None,
            })
            .collect()
    };
    match op {
        Operation::Load(load) => transfer(load, false),
        Operation::Store(store) => transfer(store, true),
        Operation::LoadRows(rows) => row_touches(rows, false, false),
        Operation::StoreRows(rows, reduction, _) => row_touches(rows, true, *reduction != ScatterReduction::Replace),
        Operation::Preload(load) => {
            let element = (load.dtype.bits() as u64).div_ceil(8);
            let dims = [(u32::from(load.k), i64::from(load.k_stride)), (u32::from(load.n), i64::from(load.n_stride))];
            let mut touches = vec![matrix(load.address, dims, element)];
            touches.extend(zero(load.zero_point, element));
            touches
        }
        Operation::Multiply(pass) => {
            let element = (pass.dtype.bits() as u64).div_ceil(8);
            let dims = [(pass.m, i64::from(pass.m_stride)), (active_k, i64::from(pass.k_stride))];
            let mut touches = vec![matrix(pass.address, dims, element)];
            touches.extend(zero(pass.zero_point, element));
            let first = u64::from(pass.accumulator_row) * acc_row;
            let range = first..first + u64::from(pass.m) * acc_row;
            touches.push(Touch { space: Space::Accumulators, range, write: true });
            touches
        }
        Operation::Map(map) => {
            let mut touches = sources(&map.sources, &map.dims);
            touches.push(walk_touch(&map.destination, &map.dims, true));
            touches
        }
        Operation::Fold(fold) => {
            let mut touches = sources(&fold.sources, &fold.dims);
            if fold.accumulate {
                touches.push(walk_touch(&fold.destination, &fold.dims, false));
            }
            touches.push(walk_touch(&fold.destination, &fold.dims, true));
            touches
        }
        Operation::Scan(scan) => {
            vec![walk_touch(&scan.source, &scan.dims, false), walk_touch(&scan.destination, &scan.dims, true)]
        }
        Operation::Sort(sort) => {
            let kept = sort.kept_dims();
            let mut touches = vec![walk_touch(&sort.source, &sort.dims, false)];
            touches.extend(sort.values.iter().chain(&sort.positions).map(|walk| walk_touch(walk, &kept, true)));
            touches
        }
    }
}
