//! Constant weights: where they lie, and rows that are multiplied with rests of their columns.

use std::collections::HashSet;
use std::sync::Arc;

use smallvec::SmallVec;
use tcc_ir::ops::MatMul;
use tcc_ir::{DType, Kernel, Op, ValueId};

use super::product::operand_types;
use super::work::Leaf;
use super::{Lease, Lowering, lost};
use crate::lpu::constants::{Constant, Form, Source, Tiles};
use crate::lpu::isa::{Hemisphere, Operation, Queue, Reads};
use crate::lpu::layout::{Layout, Place};
use crate::lpu::memory::{Purpose, Request, Slices};
use crate::lpu::schedule::{FlowBuilder, Pool};
use crate::lpu::shelf::{Columns, Lanes, Plan, Shelf, Slots};
use crate::target::TargetError;

/// What tells weights from each other.
type Key = (ValueId, bool, DType);

/// Stretches of the shelf take this part of a slice at most, so that many slices have some of it.
const STRETCH: usize = 16;

/// Rows of which rests are repeated at once: few, so that the first need not wait for the last.
const AT_ONCE: usize = 32;

impl<'a> Lowering<'a> {
    /// Gives the weights of all products their places, the deepest first.
    pub(super) fn place_weights(&mut self) -> Result<(), TargetError> {
        let plan = self.plan;
        let graph = self.graph.clone();
        let mut weights: Vec<(Key, Columns)> = Vec::new();
        let mut known: HashSet<Key> = HashSet::new();
        for id in plan.kernels.iter().flat_map(|kernel| kernel.nodes()) {
            let node = graph.node(id);
            let Op::MatMul(product) = &node.op else { continue };
            if self.is_constant(node.inputs[1]) {
                let (_, dtype) = operand_types(graph.ty(node.inputs[0]).dtype, graph.ty(node.inputs[1]).dtype);
                let key = (node.inputs[1], product.transpose_b, dtype);
                if known.insert(key) {
                    weights.push((key, Columns::of(product, graph.shape(node.inputs[1]))));
                }
            }
        }
        let (lanes, width) = (self.lanes(), self.facts.mxm.load_streams as usize);
        let halves: Vec<Columns> =
            weights.iter().filter(|((.., dtype), _)| *dtype == DType::F16).map(|&(_, columns)| columns).collect();
        let Plan { slots, groups } = Plan::new(&halves, lanes, width);
        let shelf = Arc::new(self.shelf(groups)?);
        let mut slots = slots.into_iter();
        let mut all: Vec<(Key, Columns, Vec<Slots>)> = weights
            .into_iter()
            .map(|(key, columns)| {
                let own = if key.2 == DType::F16 { slots.next() } else { None };
                (key, columns, own.unwrap_or_default())
            })
            .collect();
        let depth = |dtype, columns: &Columns| Tiles::depth(dtype, columns.batch, columns.k, columns.n, lanes, width);
        all.sort_by_key(|((.., dtype), columns, _)| std::cmp::Reverse(depth(*dtype, columns)));
        let mut shelved = Vec::new();
        for (key, Columns { batch, k, n }, slots) in all {
            let (value, transposed, dtype) = key;
            let slices = self.weight_room(width, depth(dtype, &Columns { batch, k, n }))?;
            let shelf = shelf.clone();
            let tiles = Arc::new(Tiles { dtype, batch, k, n, lanes, slices, slots, shelf });
            let source = match transposed {
                true => Source::Value(graph.clone(), value),
                false => Source::Transposed(graph.clone(), value),
            };
            if tiles.slots.iter().any(|slots| !slots.is_empty()) {
                shelved.push((source.clone(), tiles.clone()));
            }
            self.constants.push(Constant { source, form: Form::Tiles(tiles.clone()) });
            self.tiles.insert(key, tiles);
        }
        if groups > 0 {
            self.constants.push(Constant { source: Source::Columns(shelved), form: Form::Shelf(shelf, lanes) });
        }
        Ok(())
    }

    /// Memory for so many groups of rests.
    fn shelf(&mut self, groups: usize) -> Result<Shelf, TargetError> {
        let planes = DType::F16.bits() / 8;
        let width = self.facts.mxm.load_streams as usize;
        let depth = (self.facts.mem.banks * self.facts.mem.words) as usize;
        let count = groups.div_ceil((depth / STRETCH / planes).max(1));
        let groups = groups.div_ceil(count.max(1));
        let stretches = (0..count).map(|_| self.weight_room(width, groups * planes)).collect::<Result<_, _>>()?;
        Ok(Shelf { groups, planes, stretches })
    }

    fn weight_room(&mut self, slices: usize, depth: usize) -> Result<Vec<Place>, TargetError> {
        let avoid = Slices::NONE;
        self.take(Request {
            slices,
            depth,
            purpose: Purpose::Given,
            avoid,
            busy: [Slices::NONE; 2],
            aligned: false,
            side: None,
        })
        .or_else(|error| self.memory.take_anywhere(slices, depth).ok_or(error))
    }

    /// The slices of a kernel's constant weights.
    pub(super) fn weight_slices(&self, kernel: &Kernel) -> Slices {
        let nodes = kernel.nodes().map(|id| self.graph.node(id));
        let tiles = nodes.filter_map(|node| {
            let Op::MatMul(product) = &node.op else { return None };
            let (_, dtype) = operand_types(self.graph.ty(node.inputs[0]).dtype, self.graph.ty(node.inputs[1]).dtype);
            self.tiles.get(&(node.inputs[1], product.transpose_b, dtype))
        });
        tiles.fold(Slices::NONE, |all, tiles| {
            let groups = tiles.slots.iter().flatten().map(|slot| slot.group);
            let rests = groups.filter_map(|group| tiles.shelf.stretches.get(group / tiles.shelf.groups.max(1)));
            rests.fold(all.union(Slices::of(&tiles.slices)), |all, stretch| all.union(Slices::of(stretch)))
        })
    }

    /// The tiles of constant weights.
    pub(super) fn tiles(&self, product: &MatMul, value: ValueId, dtype: DType) -> Result<Arc<Tiles>, TargetError> {
        let tiles = self.tiles.get(&(value, product.transpose_b, dtype));
        tiles.cloned().ok_or_else(|| lost("the weights of a product have no place"))
    }

    /// Where rests of columns lie at the end of a vector, the rows that are multiplied with them must have theirs there too.
    pub(super) fn repeat_rests(&mut self, tiles: &Tiles, rows: &Leaf) -> Result<(), TargetError> {
        let mut slots = tiles.slots.iter().flatten();
        let Some(slot) = slots.find(|slot| slot.lanes == Lanes::Last) else { return Ok(()) };
        let own = rows.layout.clone();
        match self.repeated.insert(Arc::as_ptr(&own), own) {
            None => self.repeat(&rows.layout, slot.count),
            Some(_) => Ok(()),
        }
    }

    /// Copies the first lanes of the last vectors of rows to the last lanes, in place. Nobody minds: what is behind the last
    /// column is in no sum but of these products, as weights are zero there.
    fn repeat(&mut self, layout: &Lease, count: usize) -> Result<(), TargetError> {
        let rows: Vec<usize> = (0..layout.rows).collect();
        for chunk in rows.chunks(AT_ONCE) {
            for plane in 0..layout.planes() {
                self.place_steps(chunk, &|lowering, rows| lowering.repeating(layout, rows, plane, count))?;
            }
        }
        Ok(())
    }

    fn repeating(&self, layout: &Layout, rows: &[usize], plane: usize, count: usize) -> FlowBuilder<'a> {
        let side = layout.slices.first().map_or(Hemisphere::West, |place| self.facts.side_of(place.slice));
        let at = self.facts.position(Queue::Shift(side, 0));
        let (lanes, block) = (self.lanes(), layout.blocks() - 1);
        let mut flow = FlowBuilder::new(self.facts);
        let place = |row: usize| SmallVec::from_slice(&[layout.place(row, block, plane)]);
        let read = flow.load(at, rows.iter().enumerate().map(|(cycle, &row)| (cycle as i64, place(row))));
        let latency = i64::from(self.facts.sxm.latency);
        let stores = rows.iter().enumerate().map(|(cycle, &row)| (cycle as i64 + latency, place(row)));
        let stored = flow.store(at, stores);
        let from = flow.take(read);
        let shift = Operation::Shift {
            from,
            by: (lanes - count) as i16,
            rotate: false,
            lanes: [(lanes - count) as u16, lanes as u16],
            under: Some(Reads { take: false, ..from }),
            to: flow.stream(stored),
        };
        flow.unit(Pool::Shift(side), (0..rows.len()).map(|cycle| (cycle as i64, shift)).collect());
        flow
    }
}
