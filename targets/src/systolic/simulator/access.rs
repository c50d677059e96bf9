//! Which bytes an instruction reads and writes: what bounds checks and race detection work on.

use std::fmt;
use std::ops::Range;

use smallvec::SmallVec;
use tcc_ir::ops::ScatterReduction;

use crate::systolic::SystolicMachine;
use crate::systolic::isa::{Memory, Multiply, Operation, Preload, RowTransfer, Source, Transfer, Walk, WeightRows};
use crate::systolic::nest::walk_step;

/// An address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The scratchpad.
    Scratchpad,
    /// The accumulators.
    Accumulators,
    /// DRAM.
    Dram,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Scratchpad => "scratchpad",
            Space::Accumulators => "accumulators",
            Space::Dram => "DRAM",
        })
    }
}

impl From<Memory> for Space {
    fn from(memory: Memory) -> Space {
        match memory {
            Memory::Scratchpad => Space::Scratchpad,
            Memory::Accumulators => Space::Accumulators,
        }
    }
}

/// A set of bytes: runs of equal length, strided in any number of dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub space: Space,
    pub write: bool,
    first: i128,
    /// Bytes of a run.
    run: u64,
    /// Steps and strides between runs, least stride first, without those that stand still.
    dims: SmallVec<[(u64, i64); 4]>,
    empty: bool,
}

impl Access {
    /// Runs of `run` bytes; `dims` are sizes and strides, in any order.
    pub fn new(space: Space, write: bool, first: u64, run: u64, dims: impl Iterator<Item = (u64, i64)>) -> Access {
        let mut access = Access { space, write, first: i128::from(first), run, dims: SmallVec::new(), empty: run == 0 };
        let mut strided: SmallVec<[(u64, i64); 4]> = SmallVec::new();
        for (size, stride) in dims {
            access.empty |= size == 0;
            // Repeated bytes are the same bytes, and neither order nor direction of a walk matter to the set.
            if size > 1 && stride != 0 {
                if stride < 0 {
                    access.first += i128::from(stride) * i128::from(size - 1);
                }
                strided.push((size, stride.saturating_abs()));
            }
        }
        strided.sort_unstable_by_key(|&(_, stride)| stride);
        for (size, stride) in strided {
            let dense = access.dims.is_empty() && stride as u64 <= access.run;
            match access.run.checked_add((stride as u64).saturating_mul(size - 1)) {
                Some(run) if dense => access.run = run,
                _ => access.dims.push((size, stride)),
            }
        }
        access
    }

    /// First byte and the byte after the last. `None` if there are no bytes.
    pub fn bounds(&self) -> Option<(i128, i128)> {
        if self.empty {
            return None;
        }
        let end = self.dims.iter().fold(self.first + i128::from(self.run), |end, &(size, stride)| {
            end.saturating_add(i128::from(size - 1).saturating_mul(i128::from(stride)))
        });
        Some((self.first, end))
    }

    /// Calls `f` with runs of bytes that together cover the access; gaps of up to `granule` bytes between runs may
    /// be covered too. The access must be within its memory.
    pub fn for_each_run(&self, granule: u64, mut f: impl FnMut(Range<u64>)) {
        if self.empty {
            return;
        }
        let mut run = self.run;
        let mut dims = &self.dims[..];
        while let Some((&(size, stride), outer)) = dims.split_first()
            && stride as u64 <= run.saturating_add(granule)
        {
            run += stride as u64 * (size - 1);
            dims = outer;
        }
        let count: u64 = dims.iter().map(|&(size, _)| size).product();
        let first = self.first as u64;
        for index in 0..count {
            let mut rest = index;
            let mut start = first;
            for &(size, stride) in dims {
                start += rest % size * stride as u64;
                rest /= size;
            }
            f(start..start + run);
        }
    }

    /// Whether two accesses to the same space share a byte, exactly.
    pub fn overlaps(&self, other: &Access) -> bool {
        let (Some(own), Some(others)) = (self.bounds(), other.bounds()) else { return false };
        if self.space != other.space || own.0 >= others.1 || others.0 >= own.1 {
            return false;
        }
        // No memory reaches that far; such an access is a fault in any case, and its runs have no addresses.
        let outside = |(first, end): (i128, i128)| first < 0 || end > 1 << 50;
        if outside(own) || outside(others) {
            return true;
        }
        let (a, b) = (self.sorted_runs(), other.sorted_runs());
        let (mut i, mut j) = (0, 0);
        while i < a.len() && j < b.len() {
            if a[i].start < b[j].end && b[j].start < a[i].end {
                return true;
            }
            if a[i].end <= b[j].end {
                i += 1;
            } else {
                j += 1;
            }
        }
        false
    }

    /// All runs in order; runs that overlap or touch are joined, so that ends ascend too.
    fn sorted_runs(&self) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        self.for_each_run(0, |run| runs.push(run));
        runs.sort_unstable_by_key(|run| run.start);
        runs.dedup_by(|next, run| {
            let joins = next.start <= run.end;
            if joins {
                run.end = run.end.max(next.end);
            }
            joins
        });
        runs
    }
}

/// Calls `f` with every access of an operation; a pass uses `weights`.
pub(crate) fn for_each(op: &Operation, weights: WeightRows, machine: &SystolicMachine, mut f: impl FnMut(Access)) {
    match op {
        Operation::Load(transfer) => {
            f(dram_side(transfer, false));
            f(scratchpad_side(transfer, true));
        }
        Operation::Store(transfer) => {
            f(scratchpad_side(transfer, false));
            f(dram_side(transfer, true));
        }
        Operation::LoadRows(rows) => {
            f(indices(rows));
            f(table(rows, false));
            f(dense_rows(rows, true));
        }
        Operation::StoreRows(rows, reduction, _) => {
            f(indices(rows));
            f(dense_rows(rows, false));
            if *reduction != ScatterReduction::Replace {
                f(table(rows, false));
            }
            f(table(rows, true));
        }
        Operation::Preload(preload) => {
            f(preloaded(preload));
            if let Some(address) = preload.zero_point {
                f(scalar(address, preload.dtype.bits()));
            }
        }
        Operation::Multiply(multiply) => {
            f(activations(multiply, weights));
            if let Some(address) = multiply.zero_point {
                f(scalar(address, multiply.dtype.bits()));
            }
            f(accumulators(multiply, weights, machine));
        }
        Operation::Outer(outer) => {
            f(walk(&outer.a, &outer.a_dims(), false));
            f(walk(&outer.b, &outer.b_dims(), false));
            for (walk, zero_point) in [(&outer.a, outer.a_zero_point), (&outer.b, outer.b_zero_point)] {
                if let Some(address) = zero_point {
                    f(scalar(address, walk.dtype.bits()));
                }
            }
            f(accumulator_rows(outer.accumulator_row, u64::from(outer.m), std::iter::empty(), machine));
        }
        Operation::Map(map) => {
            sources(&map.sources, &map.dims, &mut f);
            f(walk(&map.destination, &map.dims, true));
        }
        Operation::Fold(fold) => {
            sources(&fold.sources, &fold.dims, &mut f);
            if fold.accumulate {
                f(walk(&fold.destination, &fold.dims, false));
            }
            f(walk(&fold.destination, &fold.dims, true));
        }
        Operation::Scan(scan) => {
            f(walk(&scan.source, &scan.dims, false));
            f(walk(&scan.destination, &scan.dims, true));
        }
        Operation::Sort(sort) => {
            f(walk(&sort.source, &sort.dims, false));
            let dims = sort.kept_dims();
            for result in [&sort.values, &sort.positions].into_iter().flatten() {
                f(walk(result, &dims, true));
            }
        }
    }
}

/// The bytes of A that a pass reads; how many depends on the weights in the array.
fn activations(multiply: &Multiply, weights: WeightRows) -> Access {
    let (k_stride, run) = packed(multiply.dtype.bits(), multiply.k_stride, weights.k);
    let k = if run.is_some() { 1 } else { u64::from(weights.k) };
    let groups = (u64::from(weights.groups), i64::from(multiply.group_stride));
    Access::new(
        Space::Scratchpad,
        false,
        u64::from(multiply.address),
        run.unwrap_or(multiply.dtype.bits().div_ceil(8) as u64),
        [groups, (u64::from(multiply.m), i64::from(multiply.m_stride)), (k, k_stride)].into_iter(),
    )
}

/// For four-bit elements with stride 0, which lie packed: the bytes that `count` of them take.
fn packed(bits: usize, stride: i32, count: u16) -> (i64, Option<u64>) {
    let run = (bits == 4 && stride == 0).then(|| u64::from(count).div_ceil(2));
    (i64::from(stride), run)
}

fn sources(sources: &[Source], dims: &[u32], f: &mut impl FnMut(Access)) {
    for source in sources {
        if let Source::Walk(source) = source {
            f(walk(source, dims, false));
        }
    }
}

/// The bytes of a walk.
pub(crate) fn walk(walk: &Walk, dims: &[u32], write: bool) -> Access {
    let bits = walk.dtype.bits();
    let (outer, run) = match dims.split_last() {
        Some((&inner, outer)) if bits == 4 => (outer, u64::from(inner).div_ceil(2)),
        _ => (dims, bits.div_ceil(8) as u64),
    };
    let dims = outer.iter().enumerate().map(|(axis, &size)| (u64::from(size), walk_step(walk, axis, usize::MAX) / 2));
    Access::new(walk.memory.into(), write, u64::from(walk.address), run, dims)
}

fn scalar(address: u32, bits: usize) -> Access {
    Access::new(Space::Scratchpad, false, u64::from(address), bits.div_ceil(8) as u64, std::iter::empty())
}

fn dram_side(transfer: &Transfer, write: bool) -> Access {
    let dims = transfer.dims.iter().map(|dim| (u64::from(dim.size), dim.dram_stride));
    Access::new(Space::Dram, write, transfer.dram.offset, u64::from(transfer.element_bytes), dims)
}

fn scratchpad_side(transfer: &Transfer, write: bool) -> Access {
    let dims = transfer.dims.iter().map(|dim| (u64::from(dim.size), i64::from(dim.scratchpad_stride)));
    Access::new(Space::Scratchpad, write, u64::from(transfer.scratchpad), u64::from(transfer.element_bytes), dims)
}

fn indices(rows: &RowTransfer) -> Access {
    let bytes = u64::from(rows.count) * (rows.index_dtype.bits() as u64 / 8);
    Access::new(Space::Scratchpad, false, u64::from(rows.indices), bytes, std::iter::empty())
}

fn dense_rows(rows: &RowTransfer, write: bool) -> Access {
    let bytes = u64::from(rows.outer).saturating_mul(u64::from(rows.count)).saturating_mul(u64::from(rows.row_bytes));
    Access::new(Space::Scratchpad, write, u64::from(rows.scratchpad), bytes, std::iter::empty())
}

/// All rows of all tables, since any may be named.
fn table(rows: &RowTransfer, write: bool) -> Access {
    let stride = |stride: u64| i64::try_from(stride).unwrap_or(i64::MAX);
    let used = if rows.count == 0 { 0 } else { u64::from(rows.row_bytes) };
    let dims = [(u64::from(rows.outer), stride(rows.outer_stride)), (rows.rows, stride(rows.row_stride))];
    Access::new(Space::Dram, write, rows.dram.offset, used, dims.into_iter())
}

fn preloaded(preload: &Preload) -> Access {
    let bits = preload.dtype.bits();
    let (n_stride, n_run) = packed(bits, preload.n_stride, preload.n);
    let (k_stride, k_run) = match n_run {
        Some(_) => (i64::from(preload.k_stride), None),
        None => packed(bits, preload.k_stride, preload.k),
    };
    let n = if n_run.is_some() { 1 } else { u64::from(preload.n) };
    let k = if k_run.is_some() { 1 } else { u64::from(preload.k) };
    let run = n_run.or(k_run).unwrap_or(bits.div_ceil(8) as u64);
    let run = if preload.k == 0 || preload.n == 0 { 0 } else { run };
    let groups = (u64::from(preload.groups), i64::from(preload.group_stride));
    let dims = [groups, (k, k_stride), (n, n_stride)].into_iter();
    Access::new(Space::Scratchpad, false, u64::from(preload.address), run, dims)
}

/// The accumulator rows of a pass, over all columns.
fn accumulators(multiply: &Multiply, weights: WeightRows, machine: &SystolicMachine) -> Access {
    let groups = std::iter::once((u64::from(weights.groups), multiply.group_rows));
    accumulator_rows(multiply.accumulator_row, u64::from(multiply.m), groups, machine)
}

/// So many accumulator rows from `first` on, over all columns, for each group that they are written for.
fn accumulator_rows(
    first: u32,
    rows: u64,
    groups: impl Iterator<Item = (u64, u32)>,
    machine: &SystolicMachine,
) -> Access {
    let row = u64::from(machine.array.columns) * 4;
    let groups = groups.map(|(groups, distance)| (groups, (u64::from(distance) * row) as i64));
    Access::new(Space::Accumulators, true, u64::from(first) * row, rows * row, groups)
}
