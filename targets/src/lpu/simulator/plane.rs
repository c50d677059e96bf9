//! The planes of the matrix units.

use half::f16;

use super::fault::FaultCause;
use super::side_index;
use crate::lpu::LpuMachine;
use crate::lpu::isa::{Hemisphere, Row};
use crate::number::canonical;

/// Weights in the form in which they are multiplied: by lane, then by column.
#[derive(Debug)]
enum Form {
    Integers {
        signed: bool,
        weights: Vec<i32>,
    },
    /// Halves as binary32, and whether all are finite.
    Halves {
        weights: Vec<f32>,
        finite: bool,
    },
}

/// Sums that come out of a plane in a cycle, as words.
#[derive(Debug)]
struct Sums {
    cycle: u64,
    words: Vec<u32>,
    /// Whether they are floats.
    floats: bool,
}

#[derive(Debug)]
struct Plane {
    /// Columns, each the bytes of its lanes.
    waiting: Vec<u8>,
    active: Vec<u8>,
    /// The weights in use, if they were multiplied since they came into use.
    form: Option<Form>,
    /// The cycle in which the plane last helped the one before it.
    helped: Option<u64>,
    sums: std::collections::VecDeque<Sums>,
    accumulators: Vec<u32>,
}

/// All planes.
#[derive(Debug)]
pub(super) struct Planes {
    vector: usize,
    per_side: usize,
    latency: u64,
    planes: Vec<Plane>,
}

impl Planes {
    pub fn new(machine: &LpuMachine) -> Self {
        let vector = machine.vector();
        let plane = || Plane {
            waiting: vec![0; vector * vector],
            active: vec![0; vector * vector],
            form: None,
            helped: None,
            sums: Default::default(),
            accumulators: vec![0; machine.mxm.accumulators as usize * vector],
        };
        let per_side = machine.mxm.planes as usize;
        Planes {
            vector,
            per_side,
            latency: u64::from(machine.mxm.latency),
            planes: (0..2 * per_side).map(|_| plane()).collect(),
        }
    }

    fn index(&self, side: Hemisphere, plane: u8) -> usize {
        side_index(side) * self.per_side + usize::from(plane)
    }

    /// The accumulators of all planes, row by row.
    pub fn accumulators(&self) -> Vec<u32> {
        self.planes.iter().flat_map(|plane| plane.accumulators.iter().copied()).collect()
    }

    /// Puts a vector into a column of the waiting weights.
    pub fn load(&mut self, side: Hemisphere, plane: u8, column: usize, vector: &[u8]) {
        let (index, at) = (self.index(side, plane), column * self.vector);
        self.planes[index].waiting[at..at + self.vector].copy_from_slice(vector);
    }

    /// Brings the waiting weights into use; they wait on.
    pub fn install(&mut self, side: Hemisphere, plane: u8) {
        let index = self.index(side, plane);
        let Plane { waiting, active, .. } = &mut self.planes[index];
        active.copy_from_slice(waiting);
        // Halves are held by the plane before.
        self.planes[index].form = None;
        if plane % 2 == 1 {
            self.planes[index - 1].form = None;
        }
    }

    /// Multiplies a row; gives the multiply-accumulates.
    pub fn multiply(
        &mut self,
        (side, plane): (Hemisphere, u8),
        row: Row,
        low: Vec<u8>,
        high: Option<Vec<u8>>,
        cycle: u64,
    ) -> Result<u64, FaultCause> {
        let index = self.index(side, plane);
        if self.planes[index].helped == Some(cycle) {
            return Err(FaultCause::PlaneBusy);
        }
        let (words, floats, lanes) = match (row, high) {
            (Row::Bytes { row_signed, weights_signed }, _) => {
                (self.integers(index, &low, row_signed, weights_signed), false, self.vector)
            }
            (Row::Halves(half), Some(high)) => {
                self.planes[index + 1].helped = Some(cycle);
                let lanes = self.vector / 2;
                let first = usize::from(half) * lanes;
                let row: Vec<f32> =
                    (first..first + lanes).map(|lane| f16::from_le_bytes([low[lane], high[lane]]).to_f32()).collect();
                (self.halves(index, &row, first), true, lanes)
            }
            (Row::Halves(_), None) => return Err(FaultCause::OtherQueue),
        };
        self.planes[index].sums.push_back(Sums { cycle: cycle + self.latency, words, floats });
        Ok((lanes * self.vector) as u64)
    }

    /// Takes the sums of a cycle to a row of accumulators; gives what that holds then.
    pub fn accumulate(
        &mut self,
        (side, plane): (Hemisphere, u8),
        row: usize,
        add: bool,
        cycle: u64,
    ) -> Result<&[u32], FaultCause> {
        let index = self.index(side, plane);
        let vector = self.vector;
        let plane = &mut self.planes[index];
        while plane.sums.front().is_some_and(|sums| sums.cycle < cycle) {
            plane.sums.pop_front();
        }
        if plane.sums.front().is_none_or(|sums| sums.cycle != cycle) {
            return Err(FaultCause::NothingThere("no sums come out of the plane".to_owned()));
        }
        let Some(Sums { words, floats, .. }) = plane.sums.pop_front() else {
            return Err(FaultCause::NothingThere("no sums come out of the plane".to_owned()));
        };
        let held = &mut plane.accumulators[row * vector..(row + 1) * vector];
        for (held, word) in held.iter_mut().zip(words) {
            *held = match (add, floats) {
                (false, _) => word,
                (true, false) => held.wrapping_add(word),
                (true, true) => canonical(f32::from_bits(*held) + f32::from_bits(word)).to_bits(),
            };
        }
        Ok(held)
    }

    /// Sums of products of bytes.
    fn integers(&mut self, index: usize, row: &[u8], row_signed: bool, signed: bool) -> Vec<u32> {
        let vector = self.vector;
        let plane = &mut self.planes[index];
        let known = matches!(&plane.form, Some(Form::Integers { signed: known, .. }) if *known == signed);
        if !known {
            let weights = by_lane(vector, |lane, column| number(plane.active[column * vector + lane], signed));
            plane.form = Some(Form::Integers { signed, weights });
        }
        let mut sums = vec![0i32; vector];
        if let Some(Form::Integers { weights, .. }) = &plane.form {
            for (&byte, weights) in row.iter().zip(weights.chunks_exact(vector)).filter(|(byte, _)| **byte != 0) {
                let value = number(byte, row_signed);
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = sum.wrapping_add(value * weight);
                }
            }
        }
        sums.into_iter().map(|sum| sum as u32).collect()
    }

    /// Sums of products of halves with the weights of the lanes from `first` on.
    fn halves(&mut self, index: usize, row: &[f32], first: usize) -> Vec<u32> {
        let vector = self.vector;
        if !matches!(self.planes[index].form, Some(Form::Halves { .. })) {
            let (low, high) = (&self.planes[index].active, &self.planes[index + 1].active);
            let weights = by_lane(vector, |lane, column| {
                let at = column * vector + lane;
                f16::from_le_bytes([low[at], high[at]]).to_f32()
            });
            let finite = weights.iter().all(|weight| weight.is_finite());
            self.planes[index].form = Some(Form::Halves { weights, finite });
        }
        let mut sums = vec![0f32; vector];
        if let Some(Form::Halves { weights, finite }) = &self.planes[index].form {
            for (&value, weights) in row.iter().zip(weights[first * vector..].chunks_exact(vector)) {
                // Zeros change nothing: no sum is ever -0.
                if value == 0.0 && *finite {
                    continue;
                }
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += value * weight;
                }
            }
        }
        sums.into_iter().map(|sum| canonical(sum).to_bits()).collect()
    }
}

/// A byte, with a sign or without.
fn number(byte: u8, signed: bool) -> i32 {
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

/// All weights of a plane, by lane and then by column.
fn by_lane<T>(vector: usize, weight: impl Fn(usize, usize) -> T) -> Vec<T> {
    (0..vector * vector).map(|index| weight(index / vector, index % vector)).collect()
}
