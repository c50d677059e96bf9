//! The greatest or least elements of rows.

use std::cmp::Ordering;

use rayon::prelude::*;
use tcc_ir::NumberClass;

use super::vector::{self, Feed, Memories};
use crate::number::{Number, encoded_bytes};
use crate::systolic::isa::{Sort, Walk};
use crate::systolic::nest::Nest;

/// Executes a sort whose walks have been checked.
pub(super) fn sort(sort: &Sort, memories: &mut Memories) {
    match sort.source.dtype.class() {
        NumberClass::F32 => rows::<f32>(sort, memories),
        NumberClass::F64 => rows::<f64>(sort, memories),
        NumberClass::Signed => rows::<i64>(sort, memories),
        NumberClass::Unsigned => rows::<u64>(sort, memories),
    }
}

fn rows<C: Number>(sort: &Sort, memories: &mut Memories) {
    let walks = [Some(&sort.source)];
    let rank = sort.dims.len();
    let outer = Nest::of_axes(&sort.dims, 0..rank - 1, &walks);
    let row = Nest::of_axes(&sort.dims, rank - 1..rank, &walks);
    let (k, length) = (sort.k as usize, row.count() as usize);
    let mut kept = vec![(C::default(), 0u64); outer.count() as usize * k];
    if kept.is_empty() {
        return;
    }
    let steps = row.inner().steps;
    let feed = Feed::<C>::of_walk(&sort.source, 0, memories);
    kept.par_chunks_mut(k).enumerate().for_each(|(index, kept)| {
        let mut values = vec![C::default(); length];
        feed.read(&outer.element_steps(index as u64), &steps, 0, &mut values);
        let mut elements: Vec<(C, u64)> = values.into_iter().zip(0..).collect();
        let order = |a: &(C, u64), b: &(C, u64)| {
            let by_value = compare(a.0, b.0);
            let by_position = a.1.cmp(&b.1);
            let by_value = if sort.largest { by_value.reverse() } else { by_value };
            by_value.then(if sort.later_first { by_position.reverse() } else { by_position })
        };
        if k < length {
            elements.select_nth_unstable_by(k - 1, order);
            elements.truncate(k);
        }
        elements.sort_unstable_by(order);
        kept.copy_from_slice(&elements);
    });
    let (values, positions): (Vec<C>, Vec<u64>) = kept.into_iter().unzip();
    if let Some(walk) = &sort.values {
        write(&values, walk, sort, memories);
    }
    if let Some(walk) = &sort.positions {
        write(&positions, walk, sort, memories);
    }
}

/// NaN is greater than all numbers and equal to itself.
fn compare<C: Number>(a: C, b: C) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn write<C: Number>(values: &[C], walk: &Walk, sort: &Sort, memories: &mut Memories) {
    let mut bytes = vec![0; values.len() * encoded_bytes(walk.dtype)];
    C::encode(values, walk.dtype, &mut bytes);
    vector::write_back(&Nest::of_walks(&sort.kept_dims(), &[Some(walk)]), walk, &bytes, memories);
}
