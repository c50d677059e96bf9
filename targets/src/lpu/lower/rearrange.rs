//! Values that must lie otherwise: vectors are put together from stretches of lanes of others, moved north or south.
//!
//! Every stretch passes a shifter, which leaves all other lanes 0; an ALU combines those of one vector. What is to be one number
//! in all lanes is left alone in its lane first, and then spread like the result of a reduction.

use smallvec::SmallVec;
use tcc_ir::{DType, View};

use super::access::{direct, positions};
use super::reduce::Combining;
use super::transpose::Exchange;
use super::work::{Leaf, all_vectors};
use super::{CHUNK, Lease, Lowering};
use crate::lpu::isa::{Accumulation, Alu, AluFn, Hemisphere, Operand, Operation, Queue};
use crate::lpu::layout::Layout;
use crate::lpu::memory::Slices;
use crate::lpu::schedule::{FlowBuilder, Pool};
use crate::target::TargetError;

/// A stretch of lanes of a vector that goes to one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which of the sources.
    pub source: usize,
    /// Row and block.
    pub vector: (u32, u32),
    /// By how many lanes it moves north.
    pub by: i32,
    /// The lanes that it fills.
    pub lanes: (usize, usize),
}

/// For each vector of a result the pieces that it is put together from.
pub(super) type Pieces = Vec<SmallVec<[Piece; 2]>>;

/// One plane of what is put together.
struct Assembly<'p> {
    result: &'p Lease,
    sources: &'p [Lease],
    vectors: &'p [(u32, u32)],
    pieces: &'p Pieces,
    plane: usize,
}

impl<'a> Lowering<'a> {
    /// A view of a value as rows of its own.
    pub(super) fn rearrange(&mut self, source: &Lease, view: &View) -> Result<Lease, TargetError> {
        let (rows, columns) = Layout::matrix(view.shape());
        let lanes = self.lanes();
        if let Some(vectors) = direct(view, source.columns, lanes) {
            let result = self.allocate(source.dtype, rows, columns, 1, Slices::of(&source.slices))?;
            let leaf = Leaf { layout: source.clone(), rows: vectors };
            self.copy_vectors(leaf, result.clone(), all_vectors(rows, columns.div_ceil(lanes)))?;
            return Ok(result);
        }
        if let Some(exchange) = Exchange::of(view, source.columns, lanes) {
            let result = self.allocate(source.dtype, rows, columns, 1, Slices::of(&source.slices))?;
            if self.exchange_rows(source, &exchange, &result)?.is_some() {
                return Ok(result);
            }
            self.give_back(&result);
        }
        self.select_elements(source, &positions(view), rows, columns)
    }

    /// Rows made of the elements at some positions of a value.
    pub(super) fn select_elements(
        &mut self,
        source: &Lease,
        positions: &[i64],
        rows: usize,
        columns: usize,
    ) -> Result<Lease, TargetError> {
        let lanes = self.lanes();
        let place = |position: i64| {
            let position = position as usize;
            let (row, column) = (position / source.columns, position % source.columns);
            ((row as u32, (column / lanes) as u32), column % lanes)
        };
        if columns == 1 {
            let alone = |&position: &i64| {
                let (vector, lane) = place(position);
                SmallVec::from_slice(&[Piece { source: 0, vector, by: 0, lanes: (lane, lane + 1) }])
            };
            let pieces: Pieces = positions.iter().map(alone).collect();
            let isolated = self.allocate(source.dtype, rows, lanes, self.stripes(), Slices::of(&source.slices))?;
            self.assemble(&isolated, std::slice::from_ref(source), &all_vectors(rows, 1), &pieces)?;
            let result = self.reduce_lanes(&isolated, Combining::Bytes, source.dtype)?;
            self.give_back(&isolated);
            return Ok(result);
        }
        let mut pieces = Pieces::new();
        for row in positions.chunks(columns.max(1)) {
            for block in row.chunks(lanes) {
                let mut own: SmallVec<[Piece; 2]> = SmallVec::new();
                for (lane, &position) in block.iter().enumerate() {
                    let (vector, from) = place(position);
                    let by = if source.is_splat() { 0 } else { lane as i32 - from as i32 };
                    match own.last_mut() {
                        Some(last) if last.vector == vector && last.by == by => last.lanes.1 = lane + 1,
                        _ => own.push(Piece { source: 0, vector, by, lanes: (lane, lane + 1) }),
                    }
                }
                pieces.push(own);
            }
        }
        let result = self.allocate(source.dtype, rows, columns, 1, Slices::of(&source.slices))?;
        self.assemble(&result, std::slice::from_ref(source), &all_vectors(rows, columns.div_ceil(lanes)), &pieces)?;
        Ok(result)
    }

    /// Puts vectors together. Every one of them has at least one piece.
    pub(super) fn assemble(
        &mut self,
        result: &Lease,
        sources: &[Lease],
        vectors: &[(u32, u32)],
        pieces: &Pieces,
    ) -> Result<(), TargetError> {
        let mut start = 0;
        let mut count = 0;
        for (index, own) in pieces.iter().enumerate() {
            count += own.len();
            if count >= CHUNK || index + 1 == pieces.len() {
                let own: Vec<usize> = (start..index + 1).collect();
                for plane in 0..result.planes() {
                    let assembly = Assembly { result, sources, vectors, pieces, plane };
                    self.place_steps(&own, &|lowering, own| lowering.assembling(&assembly, own))?;
                }
                (start, count) = (index + 1, 0);
            }
        }
        Ok(())
    }

    /// Puts some vectors of one plane together.
    fn assembling(&self, assembly: &Assembly<'_>, own: &[usize]) -> FlowBuilder<'a> {
        let &Assembly { result, sources, vectors, pieces, plane } = assembly;
        // Both switches do; they take turns.
        let side = Hemisphere::ALL[plane % 2];
        let at = self.facts.position(Queue::Shift(side, 0));
        let middle = self.facts.position(Queue::Alu(0));
        let (switch, alu) = (i64::from(self.facts.sxm.latency), i64::from(self.facts.vxm.latency));
        let mut flow = FlowBuilder::new(self.facts);
        // For each piece its vector, and whether it is the first and the last of it.
        let list: Vec<(usize, Piece, bool, bool)> = own
            .iter()
            .flat_map(|&vector| {
                let own = &pieces[vector];
                own.iter().enumerate().map(move |(index, &piece)| (vector, piece, index == 0, index + 1 == own.len()))
            })
            .collect();
        let reads = list.iter().enumerate().map(|(cycle, (_, piece, ..))| {
            let (row, block) = piece.vector;
            let place = sources[piece.source].place(row as usize, block as usize, plane);
            (cycle as i64, SmallVec::from_slice(&[place]))
        });
        let read = flow.load(at, reads);
        let single = list.iter().all(|&(_, _, first, last)| first && last);
        let place = |vector: usize| {
            let (row, block) = vectors[vector];
            SmallVec::from_slice(&[result.place(row as usize, block as usize, plane)])
        };
        let shifted = if single {
            flow.store(at, list.iter().enumerate().map(|(cycle, &(vector, ..))| (cycle as i64 + switch, place(vector))))
        } else {
            let train = flow.train(FlowBuilder::direction(at, middle), 1, at);
            (0..list.len()).for_each(|cycle| flow.drive(train, at, cycle as i64 + switch, middle));
            train
        };
        let operations = list.iter().enumerate().map(|(cycle, (_, piece, ..))| {
            let lanes = [piece.lanes.0 as u16, piece.lanes.1 as u16];
            let (from, to) = (flow.take(read), flow.stream(shifted));
            (cycle as i64, Operation::Shift { from, by: piece.by as i16, rotate: false, lanes, under: None, to })
        });
        let operations = operations.collect();
        flow.unit(Pool::Shift(side), operations);
        if single {
            return flow;
        }
        let arrive = |cycle: usize| cycle as i64 + switch + at.abs_diff(middle) as i64;
        let stores = list.iter().enumerate().filter(|(_, (.., last))| *last);
        let stored = flow.store(middle, stores.map(|(cycle, &(vector, ..))| (arrive(cycle) + alu, place(vector))));
        let operations = list.iter().enumerate().map(|(cycle, &(_, _, first, last))| {
            let operand = Operand::Stream(flow.take(shifted), DType::U8);
            let function = AluFn::Accumulate { function: Accumulation::Max, first, operand };
            let result = last.then_some((flow.stream(stored), DType::U8));
            (arrive(cycle), Operation::Alu(Alu { function, result }))
        });
        let operations = operations.collect();
        flow.unit(Pool::Alu(0), operations);
        flow
    }
}
