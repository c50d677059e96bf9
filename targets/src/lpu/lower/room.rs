//! Memory for values: in which slices they lie, and what becomes of those that find no room in one piece.

use std::sync::Arc;

use tcc_ir::DType;

use super::{Lease, Lowering, Thrift};
use crate::lpu::isa::Hemisphere;
use crate::lpu::layout::{Layout, Place};
use crate::lpu::memory::{Purpose, Request, Slices};
use crate::target::TargetError;

/// The part of a side's slices that the blocks of a value are spread over at most.
const SPREAD: usize = 3;

/// What memory a value is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Rows that follow each other in different slices.
    pub stripes: usize,
    pub avoid: Slices,
    /// Whether all slices have the same first address.
    pub aligned: bool,
    pub purpose: Purpose,
    /// The side, if it matters.
    pub side: Option<Hemisphere>,
}

impl Room {
    /// For what the program computes.
    pub const COMPUTED: Room =
        Room { stripes: 1, avoid: Slices::NONE, aligned: false, purpose: Purpose::Computed, side: None };
    /// For what is there before.
    pub const GIVEN: Room = Room { purpose: Purpose::Given, ..Room::COMPUTED };
    /// For operands of chains that are there before.
    pub const OPERAND: Room = Room { purpose: Purpose::Operand, ..Room::COMPUTED };
}

impl Lowering<'_> {
    /// Memory for rows that the program computes, over so many stripes.
    pub(super) fn allocate(
        &mut self,
        dtype: DType,
        rows: usize,
        columns: usize,
        stripes: usize,
        avoid: Slices,
    ) -> Result<Lease, TargetError> {
        self.allocate_in(dtype, (rows, columns), Room { stripes, avoid, ..Room::COMPUTED })
    }

    /// Memory for rows and columns: in one piece if there is room, with the blocks of a row in different slices.
    pub(super) fn allocate_in(
        &mut self,
        dtype: DType,
        (rows, columns): (usize, usize),
        room: Room,
    ) -> Result<Lease, TargetError> {
        let Room { stripes, avoid, aligned, purpose, side } = room;
        let lanes = self.lanes();
        let layout = |stripes, lots, sets| {
            let slices = vec![Place::default(); lots * sets * Layout::slice_count(dtype, stripes)];
            Layout { dtype, rows, columns, lanes, stripes, lots, slices }
        };
        let busy = self.busy;
        let whole = |layout: &Layout| Request {
            slices: layout.slices.len(),
            depth: layout.depth(),
            purpose,
            avoid,
            busy,
            aligned,
            side,
        };
        let placed = |layout: Layout, slices| Ok(Arc::new(Layout { slices, ..layout }));
        let sets = if stripes == 1 && !aligned && purpose != Purpose::Operand {
            self.sets(dtype, columns.div_ceil(lanes))
        } else {
            1
        };
        let first = layout(stripes, 1, sets);
        let error = match self.take(whole(&first)) {
            Ok(slices) => return placed(first, slices),
            Err(error) => error,
        };
        // What finds no room in one piece may find it in several.
        let mut lots = 1;
        while !aligned && purpose == Purpose::Computed && lots * stripes <= rows {
            let own = layout(stripes, lots, sets);
            let pieces = lots * sets;
            let piece = Request { slices: own.slices.len() / pieces, ..whole(&own) };
            if let Some(slices) = self.given(piece, pieces) {
                return placed(own, slices);
            }
            lots *= 2;
        }
        // Or in more slices, less in each. Rows that are read at once stay in different slices.
        let least = if stripes == 1 { (dtype.bits() / 8).next_power_of_two() } else { stripes };
        let wider = (2 * least..=self.facts.mem.slices as usize).step_by(least);
        for stripes in std::iter::once(stripes).chain(wider).filter(|_| !aligned) {
            let own = layout(stripes, 1, 1);
            if let Some(slices) = self.given(whole(&own), 1) {
                return placed(own, slices);
            }
        }
        Err(error)
    }

    /// Sets of slices that the blocks of a row take turns in: as many as waste no memory, and leave most slices of a side to others.
    /// Matrix units and chains that work on different blocks do not wait for each other then.
    fn sets(&self, dtype: DType, blocks: usize) -> usize {
        let planes = dtype.bits() / 8;
        let most = self.facts.mem.slices as usize / SPREAD / planes;
        (1..=most.min(blocks)).rev().find(|&sets| blocks.is_multiple_of(sets)).unwrap_or(1)
    }

    /// Memory in so many pieces. Where it is free earliest, if there is enough to choose from; else as high as possible, so that free
    /// memory stays in one piece.
    fn given(&mut self, piece: Request, pieces: usize) -> Option<Vec<Place>> {
        let (schedule, chooses) = (&self.schedule, self.thrift != Thrift::Meagre);
        let free = |place, depth| if chooses { schedule.free_from(place, depth) } else { 0 };
        match pieces {
            1 => self.memory.take(piece, &free),
            _ => self.memory.take_pieces(piece, pieces, &free),
        }
    }

    pub(super) fn take(&mut self, request: Request) -> Result<Vec<Place>, TargetError> {
        let vector = self.lanes() as u64;
        let capacity = self.facts.memory_bytes();
        let needed = (self.memory.used + (request.slices * request.depth) as u64) * vector;
        self.given(request, 1).ok_or_else(|| TargetError::DoesNotFit {
            what: format!("model `{}`", self.graph.name()),
            machine: self.machine.name.clone(),
            memory: "sram".to_owned(),
            needed: needed.max(capacity + 1),
            capacity,
            hint: String::new(),
        })
    }
}
