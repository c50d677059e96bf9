//! The planes of the matrix units.
//!
//! Rows are multiplied when the first of their sums are asked for, so that many are multiplied together.

use std::collections::VecDeque;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::fault::FaultCause;
use super::sums::Weights;
use crate::lpu::LpuMachine;
use crate::lpu::isa::{Hemisphere, Row};
use crate::number::canonical;

/// Weights in the form in which they are multiplied.
#[derive(Debug)]
enum Form {
    Integers {
        signed: bool,
        weights: Weights<u32>,
    },
    /// Halves as binary32, and whether all are finite.
    Halves {
        weights: Weights<f32>,
        finite: bool,
    },
}

/// A row that was multiplied, whose sums nobody has taken yet.
#[derive(Debug)]
struct Product {
    /// The cycle in which its sums come out of the plane.
    cycle: u64,
    row: Row,
    /// The byte planes of the row; of bytes there is only the low one.
    low: Vec<u8>,
    high: Vec<u8>,
    /// The sums as words, if they are known.
    sums: Option<Vec<u32>>,
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
    products: VecDeque<Product>,
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
            products: VecDeque::new(),
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
        side.index() * self.per_side + usize::from(plane)
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
        // Rows so far are multiplied with the weights so far. Halves are held by the plane before.
        let before = (plane % 2 == 1).then(|| index - 1);
        for index in [Some(index), before].into_iter().flatten() {
            self.multiply_all(index);
            self.planes[index].form = None;
        }
        let Plane { waiting, active, .. } = &mut self.planes[index];
        active.copy_from_slice(waiting);
    }

    /// Multiplies a row, of which halves have a second vector; gives the multiply-accumulates.
    pub fn multiply(
        &mut self,
        (side, plane): (Hemisphere, u8),
        row: Row,
        low: &[u8],
        high: &[u8],
        cycle: u64,
    ) -> Result<u64, FaultCause> {
        let index = self.index(side, plane);
        if self.planes[index].helped == Some(cycle) {
            return Err(FaultCause::PlaneBusy);
        }
        let lanes = match row {
            Row::Bytes { .. } => self.vector,
            Row::Halves(_) => {
                self.planes[index + 1].helped = Some(cycle);
                self.vector / 2
            }
        };
        let products = &mut self.planes[index].products;
        let mut spare = None;
        while products.front().is_some_and(|product| product.cycle < cycle) {
            spare = products.pop_front();
        }
        let (mut own_low, mut own_high) = spare.map_or_else(Default::default, |product| (product.low, product.high));
        for (own, vector) in [(&mut own_low, low), (&mut own_high, high)] {
            own.clear();
            own.extend_from_slice(vector);
        }
        products.push_back(Product { cycle: cycle + self.latency, row, low: own_low, high: own_high, sums: None });
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
        let products = &mut self.planes[index].products;
        while products.front().is_some_and(|product| product.cycle < cycle) {
            products.pop_front();
        }
        let nothing = || FaultCause::NothingThere("no sums come out of the plane".to_owned());
        let first = products.front().filter(|product| product.cycle == cycle).ok_or_else(nothing)?;
        if first.sums.is_none() {
            self.multiply_all(index);
        }
        let plane = &mut self.planes[index];
        let Product { row: kind, sums, .. } = plane.products.pop_front().ok_or_else(nothing)?;
        let floats = matches!(kind, Row::Halves(_));
        let held = &mut plane.accumulators[row * vector..(row + 1) * vector];
        for (held, word) in held.iter_mut().zip(sums.unwrap_or_default()) {
            *held = match (add, floats) {
                (false, _) => word,
                (true, false) => held.wrapping_add(word),
                (true, true) => canonical(f32::from_bits(*held) + f32::from_bits(word)).to_bits(),
            };
        }
        Ok(held)
    }

    /// Finds the sums of all rows of a plane.
    fn multiply_all(&mut self, index: usize) {
        let mut products = std::mem::take(&mut self.planes[index].products);
        while let Some(row) = products.iter().find(|product| product.sums.is_none()).map(|product| product.row) {
            let alike: Vec<&mut Product> =
                products.iter_mut().filter(|product| product.sums.is_none() && product.row == row).collect();
            match row {
                Row::Bytes { row_signed, weights_signed } => self.integers(index, alike, row_signed, weights_signed),
                Row::Halves(half) => self.halves(index, alike, usize::from(half)),
            }
        }
        self.planes[index].products = products;
    }

    /// Finds sums of products of bytes.
    fn integers(&mut self, index: usize, products: Vec<&mut Product>, row_signed: bool, signed: bool) {
        let vector = self.vector;
        let Plane { active, form, .. } = &mut self.planes[index];
        if !matches!(form, Some(Form::Integers { signed: known, .. }) if *known == signed) {
            let weights = Weights::new(vector, vector, |column, own| {
                numbers(&active[column * vector..(column + 1) * vector], signed, own);
            });
            *form = Some(Form::Integers { signed, weights });
        }
        let Some(Form::Integers { weights, .. }) = form else { return };
        let mut rows = vec![0; products.len() * vector];
        for (row, product) in rows.chunks_exact_mut(vector).zip(&products) {
            numbers(&product.low, row_signed, row);
        }
        let rows: Vec<&[u32]> = rows.chunks_exact(vector).collect();
        let mut sums = vec![0; rows.len() * vector];
        weights.sums(&rows, 0, true, sums.chunks_exact_mut(vector));
        for (product, sums) in products.into_iter().zip(sums.chunks_exact(vector)) {
            product.sums = Some(sums.to_vec());
        }
    }

    /// Finds sums of products of halves with the weights of half of the lanes.
    fn halves(&mut self, index: usize, products: Vec<&mut Product>, half: usize) {
        let (vector, lanes) = (self.vector, self.vector / 2);
        let first = half * lanes;
        if !matches!(self.planes[index].form, Some(Form::Halves { .. })) {
            let [low, high] = [&self.planes[index].active, &self.planes[index + 1].active];
            let mut halves = Vec::new();
            let weights = Weights::new(vector, vector, |column, own| {
                let range = column * vector..(column + 1) * vector;
                singles(&low[range.clone()], &high[range], &mut halves, own);
            });
            let finite = weights.all().iter().all(|weight| weight.is_finite());
            self.planes[index].form = Some(Form::Halves { weights, finite });
        }
        let Some(Form::Halves { weights, finite }) = &self.planes[index].form else { return };
        let (mut rows, mut halves) = (vec![0.0; products.len() * lanes], Vec::new());
        for (row, product) in rows.chunks_exact_mut(lanes).zip(&products) {
            let range = first..first + lanes;
            singles(&product.low[range.clone()], &product.high[range], &mut halves, row);
        }
        // Zeros change nothing then: no sum is ever -0.
        let sparse = *finite && rows.iter().all(|value| value.is_finite());
        let rows: Vec<&[f32]> = rows.chunks_exact(lanes).collect();
        let mut sums = vec![0.0; rows.len() * vector];
        weights.sums(&rows, first, sparse, sums.chunks_exact_mut(vector));
        for (product, sums) in products.into_iter().zip(sums.chunks_exact(vector)) {
            product.sums = Some(sums.iter().map(|&sum| canonical(sum).to_bits()).collect());
        }
    }
}

/// Bytes, with signs or without, modulo 2³².
fn numbers(bytes: &[u8], signed: bool, numbers: &mut [u32]) {
    for (number, &byte) in numbers.iter_mut().zip(bytes) {
        *number = if signed { i32::from(byte as i8) as u32 } else { u32::from(byte) };
    }
}

/// Halves as binary32, from their byte planes.
fn singles(low: &[u8], high: &[u8], halves: &mut Vec<f16>, singles: &mut [f32]) {
    halves.clear();
    halves.extend(low.iter().zip(high).map(|(&low, &high)| f16::from_le_bytes([low, high])));
    halves.convert_to_f32_slice(singles);
}
