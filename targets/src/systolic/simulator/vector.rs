//! What vector instructions share, and the element-wise ones.

use rayon::prelude::*;
use smallvec::SmallVec;
use tcc_ir::{DType, NumberClass};

use super::fault::FaultCause;
use crate::number::{self, Number, encoded_bytes};
use crate::systolic::isa::{Map, MapFn, Memory, Source, Walk};
use crate::systolic::nest::{Nest, OPERANDS, walks_of};

/// Elements that are worked on at a time: small enough for several operands to stay in the first cache.
pub(super) const CHUNK: usize = 2048;
/// Elements that one task takes.
pub(super) const TASK: usize = 32 * 1024;

/// The on-chip memories.
#[derive(Clone, Debug)]
pub(super) struct Memories {
    pub scratchpad: Vec<u8>,
    pub accumulators: Vec<u8>,
}

impl Memories {
    pub fn of(&self, memory: Memory) -> &[u8] {
        match memory {
            Memory::Scratchpad => &self.scratchpad,
            Memory::Accumulators => &self.accumulators,
        }
    }

    fn of_mut(&mut self, memory: Memory) -> &mut [u8] {
        match memory {
            Memory::Scratchpad => &mut self.scratchpad,
            Memory::Accumulators => &mut self.accumulators,
        }
    }
}

/// Type in which an instruction computes: that of the first source that walks, else the widest of the number's kind that
/// the destination asks for.
pub(super) fn computed_type(sources: &[Source], destination: DType) -> DType {
    let walked = sources.iter().find_map(|source| match source {
        Source::Walk(walk) => Some(walk.dtype),
        Source::Float(_) | Source::Integer(_) => None,
    });
    walked.unwrap_or(match sources.first() {
        Some(Source::Float(_)) if destination == DType::F64 => DType::F64,
        Some(Source::Float(_)) => DType::F32,
        _ if destination.class() == NumberClass::Unsigned => DType::U64,
        _ => DType::I64,
    })
}

/// One operand, `first` nibbles into its memory at the start of the nest.
pub(super) enum Feed<'m, C> {
    Walk { memory: &'m [u8], dtype: DType, first: i64, operand: usize },
    Same(C),
}

impl<'m, C: Number> Feed<'m, C> {
    /// `operand` is the source's number among the walks of the nest.
    pub fn new(source: &Source, operand: usize, memories: &'m Memories) -> Self {
        match source {
            Source::Walk(walk) => Feed::of_walk(walk, operand, memories),
            Source::Float(value) => Feed::Same(C::of_float(*value)),
            Source::Integer(value) => Feed::Same(C::of_integer(*value)),
        }
    }

    /// As [`Feed::new`], for an operand that always walks.
    pub fn of_walk(walk: &Walk, operand: usize, memories: &'m Memories) -> Self {
        Feed::Walk { memory: memories.of(walk.memory), dtype: walk.dtype, first: 2 * i64::from(walk.address), operand }
    }

    /// Reads elements of a row from `column` on; `at` is where the row starts.
    pub fn read(&self, at: &[i64; OPERANDS], steps: &[i64; OPERANDS], column: u64, out: &mut [C]) {
        match self {
            Feed::Same(value) => out.fill(*value),
            Feed::Walk { memory, dtype, first, operand } => {
                let step = steps[*operand];
                C::load(memory, *dtype, first + at[*operand] + column as i64 * step, step, out);
            }
        }
    }
}

/// Computes dense encoded results of a nest in parallel: `f` gets the row's start, the column and the place of a piece
/// of at most [`CHUNK`] results. `task` results are one thread's work at a time.
pub(super) fn compute<S>(
    nest: &Nest,
    element: usize,
    task: usize,
    out: &mut Vec<u8>,
    scratch: impl Fn() -> S + Sync,
    f: impl Fn(&mut S, &[i64; OPERANDS], u64, &mut [u8]) -> Result<(), FaultCause> + Sync,
) -> Result<(), FaultCause> {
    out.clear();
    out.resize(nest.count() as usize * element, 0);
    let inner = nest.inner().size;
    out.par_chunks_mut(task * element).enumerate().try_for_each(|(index, mut out)| {
        let mut scratch = scratch();
        let mut position = (index * task) as u64;
        while !out.is_empty() {
            let column = position % inner;
            let length = (inner - column).min(CHUNK as u64).min((out.len() / element) as u64);
            let (piece, rest) = std::mem::take(&mut out).split_at_mut(length as usize * element);
            f(&mut scratch, &nest.row_steps(position / inner), column, piece)?;
            position += length;
            out = rest;
        }
        Ok(())
    })
}

/// Writes dense encoded results where operand 0 of the nest walks.
pub(super) fn write_back(nest: &Nest, destination: &Walk, results: &[u8], memories: &mut Memories) {
    let dtype = destination.dtype;
    let element = encoded_bytes(dtype);
    let inner = nest.inner();
    let memory = memories.of_mut(destination.memory);
    for (row, results) in (0..).zip(results.chunks(inner.size.max(1) as usize * element)) {
        let at = 2 * i64::from(destination.address) + nest.row_steps(row)[0];
        let step = inner.steps[0];
        if dtype.bits() == 4 {
            for (index, &nibble) in (0..).zip(results) {
                let at = at + index * step;
                let shift = 4 * (at % 2);
                let byte = &mut memory[(at / 2) as usize];
                *byte = (*byte & !(0xf << shift)) | (nibble << shift);
            }
        } else if step == 2 * element as i64 || results.len() == element {
            let at = (at / 2) as usize;
            memory[at..at + results.len()].copy_from_slice(results);
        } else {
            for (index, result) in (0..).zip(results.chunks_exact(element)) {
                let at = ((at + index * step) / 2) as usize;
                memory[at..at + element].copy_from_slice(result);
            }
        }
    }
}

/// Executes an element-wise instruction whose walks have been checked. `results` is a buffer to work in.
pub(super) fn map(map: &Map, memories: &mut Memories, results: &mut Vec<u8>) -> Result<(), FaultCause> {
    let values = if map.function == MapFn::Select { &map.sources[1..] } else { &map.sources[..] };
    let dtype = computed_type(values, map.destination.dtype);
    let defined = match map.function {
        MapFn::Copy | MapFn::Select => true,
        MapFn::Unary(function) => number::unary_is_defined(function, dtype),
        MapFn::Binary(function) => number::binary_is_defined(function, dtype),
    };
    if !defined {
        return Err(FaultCause::Undefined(dtype));
    }
    let nest = Nest::of_walks(&map.dims, &walks_of(&map.destination, &map.sources));
    if let (MapFn::Copy, Some(Source::Walk(source))) = (map.function, map.sources.first())
        && source.dtype == map.destination.dtype
    {
        let (map, bits) = copy_of_bits(map, source);
        apply_in_class(&map, bits, &nest, memories, results)?;
    } else {
        apply_in_class(map, dtype, &nest, memories, results)?;
    }
    write_back(&nest, &map.destination, results, memories);
    Ok(())
}

/// A copy between equal types keeps every bit, those of a NaN and of a truth value that is not 0 or 1 too: the same copy of a type whose numbers are its bits.
fn copy_of_bits(map: &Map, source: &Walk) -> (Map, DType) {
    let bits = match source.dtype {
        DType::F64 => DType::U64,
        DType::F32 => DType::U32,
        DType::F16 | DType::BF16 => DType::U16,
        DType::F8E4M3 | DType::F8E5M2 | DType::Bool => DType::U8,
        dtype => dtype,
    };
    let mut map = map.clone();
    map.destination.dtype = bits;
    map.sources[0] = Source::Walk(Walk { dtype: bits, ..source.clone() });
    (map, bits)
}

/// Computes the results in the number class of `dtype`.
fn apply_in_class(
    map: &Map,
    dtype: DType,
    nest: &Nest,
    memories: &Memories,
    results: &mut Vec<u8>,
) -> Result<(), FaultCause> {
    match dtype.class() {
        NumberClass::F32 => apply::<f32>(map, dtype, nest, memories, results),
        NumberClass::F64 => apply::<f64>(map, dtype, nest, memories, results),
        NumberClass::Signed => apply::<i64>(map, dtype, nest, memories, results),
        NumberClass::Unsigned => apply::<u64>(map, dtype, nest, memories, results),
    }
}

/// Buffers of one task.
struct Buffers<C> {
    a: Vec<C>,
    b: Vec<C>,
    truth: Vec<u64>,
}

fn apply<C: Number>(
    map: &Map,
    dtype: DType,
    nest: &Nest,
    memories: &Memories,
    results: &mut Vec<u8>,
) -> Result<(), FaultCause> {
    let to = map.destination.dtype;
    let steps = nest.inner().steps;
    let feeds: SmallVec<[Feed<C>; 3]> =
        map.sources.iter().enumerate().map(|(index, source)| Feed::new(source, index + 1, memories)).collect();
    let condition: Option<Feed<u64>> = (map.function == MapFn::Select).then(|| Feed::new(&map.sources[0], 1, memories));
    let length = (nest.inner().size as usize).min(CHUNK);
    let buffers = || Buffers { a: vec![C::default(); length], b: vec![C::default(); length], truth: vec![0; length] };
    let element = encoded_bytes(to);
    compute(nest, element, TASK, results, buffers, |buffers, at, column, out| {
        let length = out.len() / element;
        let (a, b) = (&mut buffers.a[..length], &mut buffers.b[..length]);
        let truth = &mut buffers.truth[..length];
        match map.function {
            MapFn::Copy => feeds[0].read(at, &steps, column, a),
            MapFn::Unary(function) => {
                feeds[0].read(at, &steps, column, a);
                C::unary(function, a, dtype == DType::Bool);
            }
            MapFn::Binary(function) => {
                feeds[0].read(at, &steps, column, a);
                feeds[1].read(at, &steps, column, b);
                if function.is_comparison() {
                    number::compare(function, a, b, truth);
                    u64::encode(truth, to, out);
                    return Ok(());
                }
                C::binary(function, a, b, dtype.bits() as u32)?;
            }
            MapFn::Select => {
                if let Some(condition) = &condition {
                    condition.read(at, &steps, column, truth);
                }
                feeds[1].read(at, &steps, column, a);
                feeds[2].read(at, &steps, column, b);
                for ((a, &b), &truth) in a.iter_mut().zip(&*b).zip(&*truth) {
                    *a = if truth != 0 { *a } else { b };
                }
            }
        }
        C::encode(a, to, out);
        Ok(())
    })
}
