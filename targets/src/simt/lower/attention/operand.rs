//! Keys and values as lanes read them: each lane has some elements of a key, and several lanes have all of it.
//!
//! Keys that are a concatenation, of those before and those that are new, are read part by part, so that what lies in memory is read
//! by vectors whatever is put behind it.

use tcc_ir::{DType, ValueId};

use super::super::product::{vector_in, vector_of};
use super::super::wide_type;
use super::heads::Heads;
use crate::kernel::{ExprId, IndexFn, Scalar, Stmt, VarId};
use crate::lower::elements::{Coords, Elements};
use crate::target::TargetError;

/// Bytes of a vector.
const VECTOR: usize = 16;

/// The axis of keys.
const KEYS: usize = 2;

/// What a stretch of keys or values is read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub value: ValueId,
    /// The number in it of the stretch's first key.
    pub offset: usize,
    /// Whether it is read by vectors.
    pub is_vector: bool,
}

/// Keys that follow each other, and come from one value, as do theirs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub first: usize,
    pub count: usize,
    /// Of keys and of values.
    pub sources: [Source; 2],
}

/// Keys or values as lanes hold them: `chunks` times `chunk` elements beside each other, those of all lanes beside each other too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operand {
    /// Which operand of the attention.
    pub number: usize,
    /// Elements of a key.
    pub width: usize,
    pub chunk: usize,
    pub chunks: usize,
    /// Lanes that have a key together.
    pub lanes: usize,
}

/// Where a key lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub batch: ExprId,
    pub group: ExprId,
    /// Its number among all keys.
    pub number: ExprId,
    pub lane: ExprId,
}

/// Elements of a vector of a type.
pub(super) fn vector(dtype: DType) -> usize {
    VECTOR * 8 / dtype.bits()
}

/// The parts of keys and values.
pub(super) fn stretches(elements: &Elements<'_>, heads: &Heads) -> Vec<Stretch> {
    let graph = elements.graph();
    let keys = heads.dims.keys;
    // Of each operand, where its parts begin.
    let parts = [1, 2].map(|operand| {
        let value = heads.inputs[operand];
        let parts = elements.parts(value, KEYS).unwrap_or(std::slice::from_ref(&heads.inputs[operand]));
        let mut first = 0;
        let mut all = Vec::with_capacity(parts.len());
        for &part in parts {
            let count = if part == value { keys } else { graph.shape(part)[KEYS] };
            if count > 0 {
                all.push((first, part));
            }
            first += count;
        }
        all
    });
    let mut bounds: Vec<usize> = parts.iter().flatten().map(|&(first, _)| first).chain([keys]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let widths = [heads.dims.depth, heads.dims.value_depth];
    let stretch = |pair: &[usize]| {
        let source = |operand: usize| {
            let after = parts[operand].partition_point(|&(first, _)| first <= pair[0]);
            let (first, value) = parts[operand][after.saturating_sub(1)];
            let dtype = graph.ty(value).dtype;
            let is_vector = vector_of(elements, value, dtype, true, widths[operand]).is_some();
            Source { value, offset: pair[0] - first, is_vector }
        };
        Stretch { first: pair[0], count: pair[1] - pair[0], sources: [source(0), source(1)] }
    };
    bounds.windows(2).map(stretch).collect()
}

impl Operand {
    /// Keys (0) or values (1) of stretches: lanes hold vectors if any of them is read so, else single elements.
    pub fn new(elements: &Elements<'_>, heads: &Heads, number: usize, stretches: &[Stretch]) -> Operand {
        let width = if number == 0 { heads.dims.depth } else { heads.dims.value_depth };
        let dtype = elements.graph().ty(heads.inputs[1 + number]).dtype;
        let is_vector = stretches.iter().any(|stretch| stretch.sources[number].is_vector);
        let chunk = if is_vector { vector(dtype) } else { 1 };
        Operand { number, width, chunk, chunks: 1, lanes: 1 }
    }

    /// Lanes that it takes at the least to have one chunk each.
    pub fn wanted_lanes(&self) -> usize {
        self.width.div_ceil(self.chunk).max(1).next_power_of_two()
    }

    /// The same for so many lanes.
    pub fn over(self, lanes: usize) -> Operand {
        Operand { lanes, chunks: self.width.div_ceil(self.chunk * lanes), ..self }
    }

    /// Elements that a lane holds.
    pub fn held(&self) -> usize {
        self.chunk * self.chunks
    }

    /// Elements that all lanes hold, with those beyond the last of a key.
    pub fn padded(&self) -> usize {
        self.held() * self.lanes
    }

    /// Whether lanes hold more than there is.
    pub fn is_padded(&self) -> bool {
        self.padded() != self.width
    }

    /// The first element of a lane's chunk.
    pub fn element(&self, elements: &mut Elements<'_>, lane: ExprId, chunk: ExprId) -> ExprId {
        let builder = &mut elements.builder;
        let across = builder.scaled(chunk, self.lanes as i32);
        let number = builder.add(across, lane);
        builder.scaled(number, self.chunk as i32)
    }

    /// Where an element is kept so that neighbouring lanes, which each want one of theirs, find them beside each other: what lane
    /// `l` has as its element `i` is at `i lanes + l`. The element is given by its number.
    pub fn spread(&self, elements: &mut Elements<'_>, number: ExprId) -> ExprId {
        let builder = &mut elements.builder;
        let (chunk, within) = builder.divided(number, self.chunk as i32);
        let (chunk, lane) = builder.divided(chunk, self.lanes as i32);
        let first = builder.scaled(chunk, self.chunk as i32);
        let own = builder.add(first, within);
        let before = builder.scaled(own, self.lanes as i32);
        builder.add(before, lane)
    }

    /// The number of the element that is kept at a place: see [`Operand::spread`].
    pub fn gathered(&self, elements: &mut Elements<'_>, place: ExprId) -> ExprId {
        let builder = &mut elements.builder;
        let (own, lane) = builder.divided(place, self.lanes as i32);
        let (chunk, within) = builder.divided(own, self.chunk as i32);
        let before = builder.scaled(chunk, self.lanes as i32);
        let number = builder.add(before, lane);
        let first = builder.scaled(number, self.chunk as i32);
        builder.add(first, within)
    }

    /// Reads a lane's elements of a key into an array from an index on.
    pub fn load(
        &self,
        elements: &mut Elements<'_>,
        stretch: &Stretch,
        key: Key,
        (array, base): (VarId, ExprId),
    ) -> Result<(), TargetError> {
        let source = stretch.sources[self.number];
        let builder = &mut elements.builder;
        let moved = builder.integer(source.offset as i32 - stretch.first as i32);
        let number = builder.add(key.number, moved);
        let chunk = builder.unrolled("chunk", self.chunks as u32);
        elements.open();
        let first = self.element(elements, key.lane, chunk);
        let builder = &mut elements.builder;
        // Lanes beyond the last element read the last ones again.
        let last = builder.integer(self.width as i32 - self.chunk as i32);
        let first = if self.is_padded() { builder.index(IndexFn::Min, first, last) } else { first };
        let to = builder.scaled(chunk, self.chunk as i32);
        let to = builder.add(base, to);
        let at = |d: ExprId| -> Coords { [key.batch, key.group, number, d].into_iter().collect() };
        if source.is_vector {
            let (buffer, from) = elements.source(source.value, &at(first));
            elements.builder.push(Stmt::LoadVector { array, to, buffer, from, count: self.chunk as u32 });
        } else {
            let mark = elements.builder.mark();
            for within in 0..self.chunk {
                let within = elements.builder.integer(within as i32);
                let (d, to) = (elements.builder.add(first, within), elements.builder.add(to, within));
                let element = elements.element(source.value, &at(d))?;
                elements.builder.set_element(array, to, element);
            }
            elements.builder.reads_first(mark);
        }
        elements.close();
        Ok(())
    }

    /// Writes a lane's elements of a key from an array to an output that is the operand.
    pub fn store(&self, elements: &mut Elements<'_>, output: ValueId, key: Key, (array, base): (VarId, ExprId)) {
        let chunk = elements.builder.unrolled("chunk", self.chunks as u32);
        elements.open();
        let first = self.element(elements, key.lane, chunk);
        let builder = &mut elements.builder;
        let from = builder.scaled(chunk, self.chunk as i32);
        let from = builder.add(base, from);
        if self.is_padded() {
            let inside = builder.below(first, self.width as i32);
            builder.when(inside);
            elements.open();
        }
        let at = |d: ExprId| -> Coords { [key.batch, key.group, key.number, d].into_iter().collect() };
        let stored = elements.stored(output);
        let view = &elements.plan.access(output).view;
        let fits = vector_in(view, stored, true, self.width) == Some(self.chunk as u32) && self.chunk > 1;
        if fits {
            let (buffer, to) = elements.target(output, &at(first));
            elements.builder.push(Stmt::StoreVector { buffer, to, array, from, count: self.chunk as u32 });
        } else {
            let within = elements.builder.unrolled("within", self.chunk as u32);
            elements.open();
            let (d, from) = (elements.builder.add(first, within), elements.builder.add(from, within));
            let element = elements.builder.element(array, from);
            elements.write(output, &at(d), element);
            elements.close();
        }
        if self.is_padded() {
            elements.close();
        }
        elements.close();
    }

    /// An array for so many keys.
    pub fn array(&self, elements: &mut Elements<'_>, heads: &Heads, name: &str, keys: usize) -> VarId {
        let dtype = wide_type(elements.graph().ty(heads.inputs[1 + self.number]).dtype);
        let builder = &mut elements.builder;
        let zero = builder.float(dtype, 0.0);
        builder.array(name, Scalar::of(dtype), (keys * self.held()).max(1) as u32, zero)
    }
}
