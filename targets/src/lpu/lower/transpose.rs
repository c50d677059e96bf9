//! Matrices with rows and columns exchanged, by the switch units and memory.
//!
//! A transposer exchanges lanes with vectors within each superlane; what remains is to exchange superlanes with blocks of rows.
//! Rows are written rotated by their block; then each superlane gathers the row that has the wanted columns there, in one read;
//! behind the transposer, rows are rotated back. So a row and a column take a rotation each, and nothing else.

use std::collections::BTreeMap;

use smallvec::SmallVec;
use tcc_ir::{DType, View};

use super::access::offsets;
use super::{Lease, Lowering, Thrift};
use crate::lpu::isa::{Hemisphere, Operation, Queue};
use crate::lpu::layout::{Layout, Place};
use crate::lpu::memory::{Purpose, Request, Slices};
use crate::lpu::schedule::{FlowBuilder, Pool, TrainId};
use crate::target::TargetError;

/// A view that exchanges rows of a value with its columns.
pub(super) struct Exchange {
    /// By what is read: the first row, the step to the next, the block of lanes, and the block of lanes that is written.
    tiles: BTreeMap<(usize, usize, usize, usize), Tile>,
}

#[derive(Default)]
struct Tile {
    /// Rows that are read.
    rows: usize,
    /// Lanes of the rows, and the row of the result that each becomes.
    columns: Vec<(usize, usize)>,
}

/// Memory in which superlanes gather: as many slices as a superlane has lanes, at one address.
pub(super) struct Workspace {
    side: Hemisphere,
    places: Vec<Place>,
}

/// Rotations that a flow makes: long enough to be worth a stream, short enough that several shifters share the work.
const ROTATIONS: usize = 32;

impl Exchange {
    /// What a view exchanges; `None` if it does something else, or too little to be worth it.
    pub fn of(view: &View, columns: usize, lanes: usize) -> Option<Exchange> {
        let groups = view.groups()?;
        let [leading @ .., first, second] = &groups[..] else { return None };
        let ([down], [across]) = (&first[..], &second[..]) else { return None };
        let step = usize::try_from(across.stride).ok()?;
        if columns < 2 || down.stride != 1 || step == 0 || !step.is_multiple_of(columns) {
            return None;
        }
        // Piece by piece, every element takes a cycle of a shifter.
        if down.size * across.size < 4 * (down.size + across.size) {
            return None;
        }
        let mut tiles: BTreeMap<_, Tile> = BTreeMap::new();
        for (batch, offset) in offsets(view.offset(), leading).into_iter().enumerate() {
            let offset = usize::try_from(offset).ok()?;
            let (row, column) = (offset / columns, offset % columns);
            if column + down.size > columns {
                return None;
            }
            for block in 0..across.size.div_ceil(lanes) {
                let first = row + block * lanes * (step / columns);
                let rows = lanes.min(across.size - block * lanes);
                for index in 0..down.size {
                    let from = column + index;
                    let tile = tiles.entry((first, step / columns, from / lanes, block)).or_default();
                    // Another batch may read the same rows elsewhere, or not as many of them.
                    if tile.rows != 0 && tile.rows != rows {
                        return None;
                    }
                    tile.rows = rows;
                    tile.columns.push((from % lanes, batch * down.size + index));
                }
            }
        }
        Some(Exchange { tiles })
    }
}

impl<'a> Lowering<'a> {
    /// Writes what a view exchanges to rows of a result. `None` if the machine has no room for it.
    pub(super) fn exchange_rows(
        &mut self,
        source: &Lease,
        exchange: &Exchange,
        result: &Lease,
    ) -> Result<Option<()>, TargetError> {
        if !self.has_workspaces()? {
            return Ok(None);
        }
        for (&(first, step, block, to_block), tile) in &exchange.tiles {
            for plane in 0..source.planes() {
                let rows: Vec<Place> =
                    (0..tile.rows).map(|row| source.place(first + row * step, block, plane)).collect();
                let to: Vec<(usize, Place)> =
                    tile.columns.iter().map(|&(lane, row)| (lane, result.place(row, to_block, plane))).collect();
                if !self.exchange_tile(&rows, &to)? {
                    return Ok(None);
                }
            }
        }
        Ok(Some(()))
    }

    /// Exchanges one plane of some rows with lanes: each lane becomes a vector. Says whether there was room for that.
    pub(super) fn exchange_tile(&mut self, rows: &[Place], to: &[(usize, Place)]) -> Result<bool, TargetError> {
        let (width, superlanes) = (self.facts.lanes as usize, self.facts.superlanes as usize);
        // Lanes behind the last row are zeros up to the end of its superlane too; beyond, zeros are gathered.
        let zero = self.literal(vec![0; superlanes * width], DType::U8, 1, superlanes * width)?.place(0, 0, 0);
        let mut rows = rows.to_vec();
        rows.resize(rows.len().next_multiple_of(width), zero);
        let turn = self.workspace_turn % self.workspaces.len();
        self.workspace_turn += 1;
        let Workspace { side, places } = &self.workspaces[turn];
        let (side, places) = (*side, places.clone());
        let addresses = self.workspace_addresses(side, places[0].address, rows.len().div_ceil(width));
        let Some(addresses) = addresses else { return Ok(false) };
        // Rows, each rotated by its block.
        let written = |row: usize| {
            let place = places[row % width];
            Place { address: place.address + (row / width) as u16, ..place }
        };
        let rotations: Vec<Rotation> =
            rows.iter().enumerate().map(|(row, &from)| Rotation { from, by: row / width, to: written(row) }).collect();
        self.rotate(side, &rotations)?;
        // Each block of columns that somebody wants.
        let mut blocks: Vec<usize> = to.iter().map(|(lane, _)| lane / width).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let turned =
            self.allocate(DType::U8, blocks.len() * width, self.lanes(), self.stripes(), Slices::of(&places))?;
        let steps: Vec<(usize, usize)> =
            blocks.iter().enumerate().map(|(index, &block)| (block, index * width)).collect();
        self.place_steps(&steps, &|lowering, steps| lowering.gathering(side, &places, &addresses, steps, &turned))?;
        let rotations: Vec<Rotation> = to
            .iter()
            .map(|&(lane, to)| {
                let block = blocks.binary_search(&(lane / width)).unwrap_or(0);
                let by = (superlanes - lane / width) % superlanes;
                Rotation { from: turned.place(block * width + lane % width, 0, 0), by, to }
            })
            .collect();
        self.rotate(side, &rotations)?;
        self.give_back(&turned);
        Ok(true)
    }

    fn rotate(&mut self, side: Hemisphere, rotations: &[Rotation]) -> Result<(), TargetError> {
        rotations
            .chunks(ROTATIONS)
            .try_for_each(|chunk| self.place_steps(chunk, &|lowering, chunk| lowering.rotating(side, chunk)))
    }

    fn rotating(&self, side: Hemisphere, rotations: &[Rotation]) -> FlowBuilder<'a> {
        let at = self.facts.position(Queue::Shift(side, 0));
        let latency = i64::from(self.facts.sxm.latency);
        let (width, lanes) = (self.facts.lanes as usize, self.lanes() as u16);
        let mut flow = FlowBuilder::new(self.facts);
        let reads = rotations.iter().enumerate();
        let read = flow.load(at, reads.map(|(cycle, one)| (cycle as i64, SmallVec::from_slice(&[one.from]))));
        let writes = rotations.iter().enumerate();
        let writes = writes.map(|(cycle, one)| (cycle as i64 + latency, SmallVec::from_slice(&[one.to])));
        let stored = flow.store(at, writes);
        let operations = rotations.iter().enumerate().map(|(cycle, one)| {
            let (from, to, by) = (flow.take(read), flow.stream(stored), (one.by * width) as i16);
            (cycle as i64, Operation::Shift { from, by, rotate: true, lanes: [0, lanes], under: None, to })
        });
        let operations = operations.collect();
        flow.unit(Pool::Shift(side), operations);
        flow
    }

    /// For each block of columns, with the first of its rows in the result, has every superlane gather its rows, and exchanges
    /// lanes with them.
    fn gathering(
        &self,
        side: Hemisphere,
        places: &[Place],
        addresses: &Layout,
        blocks: &[(usize, usize)],
        turned: &Layout,
    ) -> FlowBuilder<'a> {
        let width = places.len();
        let at = self.facts.position(Queue::Transpose(side, 0));
        let latency = i64::from(self.facts.sxm.latency);
        let position = |place: &Place| self.facts.position(Queue::Mem(place.slice));
        let near = places.iter().map(position).min_by_key(|position| position.abs_diff(at)).unwrap_or(at);
        let far = places.iter().map(position).max_by_key(|position| position.abs_diff(at)).unwrap_or(at);
        let among = self.facts.superlanes as u16 + 1;
        let mut flow = FlowBuilder::new(self.facts);
        let reads = blocks
            .iter()
            .enumerate()
            .map(|(cycle, &(block, _))| (cycle as i64, (0..2).map(|byte| addresses.place(block, 0, byte)).collect()));
        let named = flow.load(near, reads);
        let data = flow.train(FlowBuilder::direction(far, at), width, far);
        let streams: Vec<TrainId> = (0..width as u8).map(|stream| flow.plane(data, stream)).collect();
        let to = flow.train(FlowBuilder::direction(at, far), width, at);
        let ends: Vec<usize> = places.iter().map(position).collect();
        let mut operations = Vec::new();
        for (cycle, &(_, first)) in blocks.iter().enumerate() {
            let arrives = flow.gather_all(places, among, at, cycle as i64, (named, &streams));
            flow.drive_from_each(data, &ends, arrives, at);
            operations.push((arrives, Operation::Transpose { from: flow.take(data), to: flow.stream(to) }));
            let written: Vec<Place> = (first..first + width).map(|row| turned.place(row, 0, 0)).collect();
            flow.store_step(to, at, arrives + latency, &written);
        }
        flow.unit(Pool::Transpose(side), operations);
        flow
    }

    /// For each block of columns the addresses at which superlanes gather, of so many blocks of rows. Others gather zeros. `None` if there
    /// is no room for them beyond the workspaces.
    fn workspace_addresses(&mut self, side: Hemisphere, base: u16, row_blocks: usize) -> Option<Lease> {
        let (width, superlanes) = (self.facts.lanes as usize, self.facts.superlanes as usize);
        if let Some((_, layout)) = self.gathered.iter().find(|(known, _)| *known == (side, base, row_blocks)) {
            return Some(layout.clone());
        }
        let bytes = (0..superlanes).flat_map(|block| {
            (0..superlanes * width).flat_map(move |lane| {
                let rows = (lane / width + superlanes - block) % superlanes;
                let row = if rows < row_blocks { rows } else { superlanes };
                (base + row as u16).to_le_bytes()
            })
        });
        let bytes: Vec<u8> = bytes.collect();
        // Beyond all workspaces, as seen from the switch.
        let avoid = self.workspaces.iter().fold(Slices::default(), |all, space| all.union(Slices::of(&space.places)));
        let depth = superlanes;
        let request = Request {
            slices: 2,
            depth,
            purpose: Purpose::Given,
            avoid,
            busy: [Slices::NONE; 2],
            aligned: false,
            side: Some(side),
        };
        let slices = self.memory.take(request, &|_, _| 0)?;
        if slices.iter().any(|place| avoid.contains(place.slice)) {
            self.memory.give_back(&slices, depth);
            return None;
        }
        let layout = Layout {
            dtype: DType::U16,
            rows: superlanes,
            columns: superlanes * width,
            lanes: self.lanes(),
            stripes: 1,
            lots: 1,
            slices,
        };
        let layout = std::sync::Arc::new(layout);
        self.keep(bytes, layout.clone());
        self.gathered.push(((side, base, row_blocks), layout.clone()));
        Some(layout)
    }

    /// Whether there is memory to exchange rows in, which is set aside when it is first wanted.
    pub(super) fn has_workspaces(&mut self) -> Result<bool, TargetError> {
        if !self.workspaces.is_empty() {
            return Ok(true);
        }
        let (width, per_side) = (self.facts.lanes as usize, self.facts.mem.slices as usize);
        // Some slices must be left for addresses.
        let deep = if self.thrift == Thrift::Ample { 2 } else { 1 };
        let sets = (per_side.saturating_sub(4) / width).min(deep);
        let depth = self.facts.superlanes as usize + 1;
        for side in Hemisphere::ALL {
            for set in 0..deep * sets {
                let own = |slice: usize| match side {
                    Hemisphere::West => slice,
                    Hemisphere::East => 2 * per_side - 1 - slice,
                };
                let wanted =
                    (0..width).fold(Slices::default(), |all, lane| all.with(own(set / deep * width + lane) as u8));
                let others = (0..2 * per_side as u8).filter(|&slice| !wanted.contains(slice));
                let avoid = others.fold(Slices::default(), Slices::with);
                let request = Request {
                    slices: width,
                    depth,
                    purpose: Purpose::Given,
                    avoid,
                    busy: [Slices::NONE; 2],
                    aligned: true,
                    side: Some(side),
                };
                match self.memory.take(request, &|_, _| 0) {
                    Some(places) if places.iter().all(|place| wanted.contains(place.slice)) => {
                        self.workspaces.push(Workspace { side, places });
                    }
                    Some(places) => self.memory.give_back(&places, depth),
                    None => {}
                }
            }
        }
        // Sides take turns.
        let (west, east): (Vec<Workspace>, Vec<Workspace>) =
            std::mem::take(&mut self.workspaces).into_iter().partition(|space| space.side == Hemisphere::West);
        let mut east = east.into_iter();
        for space in west {
            self.workspaces.push(space);
            self.workspaces.extend(east.next());
        }
        Ok(!self.workspaces.is_empty())
    }
}

/// A vector that is rotated by superlanes.
struct Rotation {
    from: Place,
    by: usize,
    to: Place,
}
