//! Reductions and running sums.

use rayon::prelude::*;
use smallvec::SmallVec;
use tcc_ir::NumberClass;
use tcc_ir::ops::BinaryFn;

use super::fault::FaultCause;
use super::vector::{self, CHUNK, Feed, Memories};
use crate::number::{Number, encoded_bytes};
use crate::systolic::isa::{Fold, FoldFn, Scan};
use crate::systolic::nest::{Nest, OPERANDS, walks_of};

/// Executes a reduction whose walks have been checked, on a unit with `lanes` lanes.
pub(super) fn fold(
    fold: &Fold,
    lanes: usize,
    memories: &mut Memories,
    results: &mut Vec<u8>,
) -> Result<(), FaultCause> {
    let dtype = vector::computed_type(&fold.sources, fold.destination.dtype);
    let kept = fold.dims.len() - usize::from(fold.reduced);
    let walks = walks_of(&fold.destination, &fold.sources);
    let outer = Nest::of_axes(&fold.dims, 0..kept, &walks);
    let inner = Nest::of_axes(&fold.dims, kept..fold.dims.len(), &walks);
    // The scalar unit, which takes types of 64 bits, adds one element after the other.
    let lanes = if walks.iter().flatten().any(|walk| walk.dtype.bits() == 64) { 1 } else { lanes };
    match dtype.class() {
        NumberClass::F32 => reduce::<f32>(fold, (&outer, &inner), lanes, memories, results)?,
        NumberClass::F64 => reduce::<f64>(fold, (&outer, &inner), lanes, memories, results)?,
        NumberClass::Signed => reduce::<i64>(fold, (&outer, &inner), lanes, memories, results)?,
        NumberClass::Unsigned => reduce::<u64>(fold, (&outer, &inner), lanes, memories, results)?,
    }
    vector::write_back(&outer, &fold.destination, results, memories);
    Ok(())
}

/// Buffers of one task.
struct Buffers<C> {
    a: Vec<C>,
    b: Vec<C>,
    lanes: Vec<C>,
    results: Vec<C>,
}

fn reduce<C: Number>(
    fold: &Fold,
    (outer, inner): (&Nest, &Nest),
    lanes: usize,
    memories: &Memories,
    results: &mut Vec<u8>,
) -> Result<(), FaultCause> {
    let dtype = vector::computed_type(&fold.sources, fold.destination.dtype);
    let to = fold.destination.dtype;
    let element = encoded_bytes(to);
    let neutral = C::neutral(fold.function, dtype);
    let feeds: SmallVec<[Feed<C>; 2]> =
        fold.sources.iter().enumerate().map(|(index, source)| Feed::new(source, index + 1, memories)).collect();
    let held = Feed::<C>::of_walk(&fold.destination, 0, memories);
    let count = inner.count();
    let row = inner.inner();
    let lanes = (lanes as u64).min(count.max(1)) as usize;
    let length = (row.size as usize).min(CHUNK);
    let buffers = || Buffers {
        a: vec![C::default(); length],
        b: vec![C::default(); length],
        lanes: vec![neutral; lanes],
        results: vec![C::default(); CHUNK],
    };
    let task = (vector::TASK as u64 / count.max(1)).max(1) as usize;
    let steps = outer.inner().steps;
    vector::compute(outer, element, task, results, buffers, |buffers, start, column, out| {
        let wanted = out.len() / element;
        for index in 0..wanted {
            let mut at = *start;
            for (at, step) in at.iter_mut().zip(steps) {
                *at += (column as i64 + index as i64) * step;
            }
            buffers.lanes.fill(neutral);
            let mut lane = 0;
            for inner_row in 0..if count == 0 { 0 } else { inner.rows() } {
                let mut from = inner.row_steps(inner_row);
                for (from, at) in from.iter_mut().zip(at) {
                    *from += at;
                }
                let mut done = 0;
                while done < row.size {
                    let length = (row.size - done).min(CHUNK as u64) as usize;
                    let a = &mut buffers.a[..length];
                    feeds[0].read(&from, &row.steps, done, a);
                    if fold.function == FoldFn::Dot {
                        let b = &mut buffers.b[..length];
                        feeds[1].read(&from, &row.steps, done, b);
                        C::binary(BinaryFn::Mul, a, b, dtype.bits() as u32)?;
                    }
                    lane = into_lanes(fold.function, &mut buffers.lanes, lane, a);
                    done += length as u64;
                }
            }
            tree(fold.function, &mut buffers.lanes);
            let mut result = [buffers.lanes[0]];
            if fold.accumulate {
                held.read(&at, &[0; OPERANDS], 0, &mut buffers.results[index..=index]);
                C::combine(fold.function, &mut buffers.results[index..=index], &result);
                result[0] = buffers.results[index];
            }
            buffers.results[index] = result[0];
        }
        C::encode(&buffers.results[..wanted], to, out);
        Ok(())
    })
}

/// Deals elements out to the lanes in turn, beginning at `lane`; gives the lane that is next.
fn into_lanes<C: Number>(function: FoldFn, lanes: &mut [C], mut lane: usize, mut x: &[C]) -> usize {
    while !x.is_empty() {
        let (now, later) = x.split_at((lanes.len() - lane).min(x.len()));
        C::combine(function, &mut lanes[lane..lane + now.len()], now);
        lane = (lane + now.len()) % lanes.len();
        x = later;
    }
    lane
}

/// Combines the lanes in halves: each of the lower half with the one half the lanes above it.
fn tree<C: Number>(function: FoldFn, lanes: &mut [C]) {
    let mut width = lanes.len().next_power_of_two();
    while width > 1 {
        width /= 2;
        let (low, high) = lanes.split_at_mut(width.min(lanes.len()));
        let pairs = high.len().min(width);
        C::combine(function, &mut low[..pairs], &high[..pairs]);
    }
}

/// Executes a running sum whose walks have been checked.
pub(super) fn scan(scan: &Scan, memories: &mut Memories, results: &mut Vec<u8>) {
    match scan.source.dtype.class() {
        NumberClass::F32 => running::<f32>(scan, memories, results),
        NumberClass::F64 => running::<f64>(scan, memories, results),
        NumberClass::Signed => running::<i64>(scan, memories, results),
        NumberClass::Unsigned => running::<u64>(scan, memories, results),
    }
}

fn running<C: Number>(scan: &Scan, memories: &mut Memories, results: &mut Vec<u8>) {
    let walks = [Some(&scan.destination), Some(&scan.source)];
    let nest = Nest::of_walks(&scan.dims, &walks);
    let rank = scan.dims.len();
    let (rows, row) =
        (Nest::of_axes(&scan.dims, 0..rank - 1, &walks), Nest::of_axes(&scan.dims, rank - 1..rank, &walks));
    let length = row.count() as usize;
    let element = encoded_bytes(scan.destination.dtype);
    results.clear();
    results.resize(nest.count() as usize * element, 0);
    let feed = Feed::<C>::of_walk(&scan.source, 1, memories);
    results.par_chunks_mut((length * element).max(1)).enumerate().for_each(|(index, out)| {
        let mut sums = vec![C::default(); length];
        feed.read(&rows.element_steps(index as u64), &row.inner().steps, 0, &mut sums);
        let mut sum = [C::neutral(FoldFn::Sum, scan.source.dtype)];
        for x in &mut sums {
            let before = sum;
            C::combine(FoldFn::Sum, &mut sum, std::slice::from_ref(x));
            *x = if scan.exclusive { before[0] } else { sum[0] };
        }
        C::encode(&sums, scan.destination.dtype, out);
    });
    vector::write_back(&nest, &scan.destination, results, memories);
}
