//! What instructions touch, as far as the emitter needs to know it: stretches of each memory.

use std::ops::Range;

use smallvec::SmallVec;
use tcc_ir::DType;
use tcc_ir::ops::ScatterReduction;

use super::isa::{Memory, Operation, RowTransfer, Source, Transfer, Walk, WeightRows};
use super::machine::SystolicMachine;

/// Alignment of buffers on chip, in bytes: a power of two, and about a sixteen-thousandth of the scratchpad.
pub(super) fn page_bytes(machine: &SystolicMachine) -> u32 {
    (machine.scratchpad.bytes >> 14).next_power_of_two().clamp(64, 4096)
}

/// Granularity at which hazards in DRAM are tracked, in bytes; buffers there are aligned to it as well.
pub(super) const DRAM_BLOCK_BYTES: u64 = 4096;

/// Granularity at which hazards on chip are tracked, in bytes: no two buffers share a page.
pub(super) fn chip_page_bytes(machine: &SystolicMachine) -> u64 {
    u64::from(page_bytes(machine).min(256))
}

/// A memory as an instruction sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Dram,
    Scratchpad,
    Accumulators,
}

/// Bytes that an instruction reads or writes: runs of equal length, strided in any number of dimensions.
pub(super) struct Touch {
    pub space: Space,
    pub write: bool,
    first: u64,
    run: u64,
    /// Steps and distances between runs that are told apart.
    dims: SmallVec<[(u64, u64); 4]>,
}

/// Most runs of an instruction that are looked at one by one; of more, the nearest are taken as one with what lies between.
const MOST_RUNS: u64 = 4096;

impl Touch {
    /// Elements of `element` bytes from `base` on, in a nest of any order. Runs less than `gap` bytes apart are taken
    /// as one.
    fn new(
        space: Space,
        write: bool,
        base: u64,
        element: u64,
        dims: impl Iterator<Item = (u32, i64)>,
        gap: u64,
    ) -> Touch {
        let mut touch = Touch { space, write, first: base, run: element, dims: SmallVec::new() };
        for (size, stride) in dims.filter(|&(size, stride)| size > 1 && stride != 0) {
            let steps = i64::from(size) - 1;
            touch.first = touch.first.wrapping_add_signed((stride * steps).min(0));
            touch.dims.push((u64::from(size), stride.unsigned_abs()));
        }
        touch.dims.sort_unstable_by_key(|&(_, stride)| stride);
        let mut runs: u64 = touch.dims.iter().fold(1, |runs, (size, _)| runs.saturating_mul(*size));
        let mut near = 0;
        for &(size, stride) in &touch.dims {
            if stride >= touch.run + gap && runs <= MOST_RUNS {
                break;
            }
            runs /= size;
            touch.run += stride * (size - 1);
            near += 1;
        }
        touch.dims.drain(..near);
        touch
    }

    /// Calls `visit` with runs of bytes that hold all that is touched.
    pub fn for_each_run(&self, mut visit: impl FnMut(Range<u64>)) {
        let runs: u64 = self.dims.iter().map(|(size, _)| size).product();
        for run in 0..runs {
            let (mut rest, mut start) = (run, self.first);
            for (size, stride) in &self.dims {
                start += rest % size * stride;
                rest /= size;
            }
            visit(start..start + self.run);
        }
    }
}

/// Rows of the array that weights take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ArrayWeights {
    /// Those in the shadow registers.
    shadow: WeightRows,
    /// Those in use.
    pub active: WeightRows,
}

impl ArrayWeights {
    /// Follows an instruction.
    pub fn follow(&mut self, op: &Operation) {
        match op {
            Operation::Preload(load) => self.shadow = load.rows(),
            Operation::Multiply(pass) if pass.switch_weights => self.active = self.shadow,
            _ => {}
        }
    }
}

/// Finds what instructions touch.
pub(super) struct Toucher<'a> {
    pub machine: &'a SystolicMachine,
    /// What the base registers hold.
    pub bases: &'a [u64],
    /// Rows of the array that the weights in use take.
    pub active: WeightRows,
}

/// All that one instruction touches.
pub(super) type Touches = SmallVec<[Touch; 6]>;

impl Toucher<'_> {
    fn strided(
        &self,
        space: Space,
        write: bool,
        base: u64,
        element: u64,
        dims: impl Iterator<Item = (u32, i64)>,
    ) -> Touch {
        let gap = match space {
            Space::Dram => DRAM_BLOCK_BYTES,
            Space::Scratchpad | Space::Accumulators => chip_page_bytes(self.machine),
        };
        Touch::new(space, write, base, element, dims, gap)
    }

    /// So many bytes from `base` on.
    fn dense(&self, space: Space, write: bool, base: u64, bytes: u64) -> Touch {
        self.strided(space, write, base, bytes, std::iter::empty())
    }

    fn walk(&self, walk: &Walk, dims: &[u32], write: bool) -> Touch {
        let space = match walk.memory {
            Memory::Scratchpad => Space::Scratchpad,
            Memory::Accumulators => Space::Accumulators,
        };
        let dims = dims.iter().copied().zip(walk.strides.iter().map(|&stride| i64::from(stride)));
        self.strided(space, write, u64::from(walk.address), bytes_of(walk.dtype), dims)
    }

    fn sources(&self, sources: &[Source], dims: &[u32]) -> Touches {
        let walks = sources.iter().filter_map(|source| match source {
            Source::Walk(walk) => Some(self.walk(walk, dims, false)),
            Source::Float(_) | Source::Integer(_) => None,
        });
        walks.collect()
    }

    /// An operand of the array and its zero point.
    fn matrix(&self, address: u32, dims: [(u32, i32); 3], dtype: DType, zero_point: Option<u32>) -> Touches {
        let dims = dims.into_iter().map(|(size, stride)| (size, i64::from(stride)));
        let mut touches = Touches::new();
        touches.push(self.strided(Space::Scratchpad, false, u64::from(address), bytes_of(dtype), dims));
        touches.extend(
            zero_point.map(|address| self.dense(Space::Scratchpad, false, u64::from(address), bytes_of(dtype))),
        );
        touches
    }

    fn transfer(&self, transfer: &Transfer, store: bool) -> Touches {
        let element = u64::from(transfer.element_bytes);
        let dram = transfer.dims.iter().map(|dim| (dim.size, dim.dram_stride));
        let chip = transfer.dims.iter().map(|dim| (dim.size, i64::from(dim.scratchpad_stride)));
        let mut touches = Touches::new();
        touches.push(self.strided(Space::Dram, store, transfer.dram.resolve(self.bases), element, dram));
        touches.push(self.strided(Space::Scratchpad, !store, u64::from(transfer.scratchpad), element, chip));
        touches
    }

    fn rows(&self, rows: &RowTransfer, store: bool, combines: bool) -> Touches {
        let table = u64::from(rows.outer.saturating_sub(1)) * rows.outer_stride
            + rows.rows.saturating_sub(1) * rows.row_stride
            + u64::from(rows.row_bytes);
        let moved = u64::from(rows.outer) * u64::from(rows.count) * u64::from(rows.row_bytes);
        let indices = u64::from(rows.count) * bytes_of(rows.index_dtype);
        let first = rows.dram.resolve(self.bases);
        let mut touches = Touches::new();
        touches.push(self.dense(Space::Scratchpad, false, u64::from(rows.indices), indices));
        touches.push(self.dense(Space::Scratchpad, !store, u64::from(rows.scratchpad), moved));
        touches.push(self.dense(Space::Dram, store, first, table));
        if combines {
            touches.push(self.dense(Space::Dram, false, first, table));
        }
        touches
    }

    /// What an instruction reads and writes.
    pub fn touches(&self, op: &Operation) -> Touches {
        match op {
            Operation::Load(load) => self.transfer(load, false),
            Operation::Store(store) => self.transfer(store, true),
            Operation::LoadRows(rows) => self.rows(rows, false, false),
            Operation::StoreRows(rows, reduction, _) => self.rows(rows, true, *reduction != ScatterReduction::Replace),
            Operation::Preload(load) => {
                let groups = (u32::from(load.groups), load.group_stride);
                let dims = [groups, (u32::from(load.k), load.k_stride), (u32::from(load.n), load.n_stride)];
                self.matrix(load.address, dims, load.dtype, load.zero_point)
            }
            Operation::Multiply(pass) => {
                let groups = u32::from(self.active.groups);
                let k = u32::from(self.active.k);
                let dims = [(groups, pass.group_stride), (pass.m, pass.m_stride), (k, pass.k_stride)];
                let mut touches = self.matrix(pass.address, dims, pass.dtype, pass.zero_point);
                let row = u64::from(self.machine.array.columns) * 4;
                let first = u64::from(pass.accumulator_row) * row;
                let groups = std::iter::once((groups, i64::from(pass.group_rows) * row as i64));
                touches.push(self.strided(Space::Accumulators, true, first, u64::from(pass.m) * row, groups));
                touches
            }
            Operation::Outer(outer) => {
                let mut touches = Touches::new();
                touches.push(self.walk(&outer.a, &outer.a_dims(), false));
                touches.push(self.walk(&outer.b, &outer.b_dims(), false));
                for (walk, zero_point) in [(&outer.a, outer.a_zero_point), (&outer.b, outer.b_zero_point)] {
                    let read = |address| self.dense(Space::Scratchpad, false, u64::from(address), bytes_of(walk.dtype));
                    touches.extend(zero_point.map(read));
                }
                let row = u64::from(self.machine.array.columns) * 4;
                let first = u64::from(outer.accumulator_row) * row;
                touches.push(self.dense(Space::Accumulators, true, first, u64::from(outer.m) * row));
                touches
            }
            Operation::Map(map) => {
                let mut touches = self.sources(&map.sources, &map.dims);
                touches.push(self.walk(&map.destination, &map.dims, true));
                touches
            }
            Operation::Fold(fold) => {
                let mut touches = self.sources(&fold.sources, &fold.dims);
                if fold.accumulate {
                    touches.push(self.walk(&fold.destination, &fold.dims, false));
                }
                touches.push(self.walk(&fold.destination, &fold.dims, true));
                touches
            }
            Operation::Scan(scan) => {
                let walks = [(&scan.source, false), (&scan.destination, true)];
                walks.into_iter().map(|(walk, write)| self.walk(walk, &scan.dims, write)).collect()
            }
            Operation::Sort(sort) => {
                let kept = sort.kept_dims();
                let mut touches = Touches::new();
                touches.push(self.walk(&sort.source, &sort.dims, false));
                touches.extend(sort.values.iter().chain(&sort.positions).map(|walk| self.walk(walk, &kept, true)));
                touches
            }
        }
    }
}

/// Bytes from the first of an element to its last.
fn bytes_of(dtype: DType) -> u64 {
    (dtype.bits() as u64).div_ceil(8)
}
