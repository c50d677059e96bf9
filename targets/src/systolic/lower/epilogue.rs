//! What happens to a product on its way to DRAM: element-wise work on each tile of it, a few rows at a time, and then
//! whatever needs whole rows (`rows`).

use tcc_ir::{Kernel, Node, NodeId, Op, ValueId};

use super::contraction::Product;
use super::rows::Rows;
use super::space::offset;
use super::tile::{self, Tile};
use super::{ChipOperand, ChipSource, Home, Lowering, Stored, element_bytes, map_function};
use crate::systolic::emit::{Emitter, Filler};
use crate::systolic::isa::{MapFn, Memory};
use crate::systolic::layout::storage;
use crate::target::TargetError;

/// Elements of a result tile that one round of the epilogue works on.
pub(super) const EPILOGUE_ELEMENTS: usize = 32 << 10;

/// Buffers of an operand that is loaded tile by tile: enough that loads run ahead of the work.
const LOAD_TURNS: usize = 4;

/// The number of the first buffer of an operand that is loaded as a whole.
const WHOLE_TURN: usize = LOAD_TURNS;

/// Of the room of an epilogue, the share as one in so many that one operand as a whole may take.
const WHOLE_SHARE: u64 = 16;

/// The epilogue of one product, with its buffers.
pub(super) struct Epilogue {
    buffers: EpilogueBuffers,
    /// Work on whole rows, if there is any.
    rows: Option<Rows>,
}

impl Epilogue {
    /// An epilogue that takes the buffers that it needs of those that are left.
    pub(super) fn new(emitter: &Emitter<'_>, rows: Option<Rows>) -> Self {
        let later = rows.as_ref().map_or(0, Rows::later_bytes);
        Epilogue { buffers: EpilogueBuffers::new(emitter.room().saturating_sub(later) / 2), rows }
    }
}

impl Lowering<'_, '_> {
    /// Work on a tile of the product, which lies at `tile`, as soon as its last K-tile has been added. All tiles of the
    /// same rows follow each other.
    pub(super) fn epilogue(
        &mut self,
        kernel: &Kernel,
        anchor: NodeId,
        product: &Product,
        (batch, m, n): (&Tile, &Tile, &Tile),
        tile: &ChipOperand,
        epilogue: &mut Epilogue,
    ) -> Result<(), TargetError> {
        self.tile_work(kernel, anchor, product, (batch, m, n), tile, epilogue)?;
        match &mut epilogue.rows {
            Some(rows) => self.row_work(kernel, product, (batch, m, n), tile, rows),
            None => Ok(()),
        }
    }

    /// What is left to do after the last tile.
    pub(super) fn finish_epilogue(
        &mut self,
        kernel: &Kernel,
        product: &Product,
        mut epilogue: Epilogue,
    ) -> Result<(), TargetError> {
        match &mut epilogue.rows {
            Some(rows) => self.finish_rows(kernel, product, rows),
            None => Ok(()),
        }
    }

    /// The part of an epilogue that needs no whole rows.
    fn tile_work(
        &mut self,
        kernel: &Kernel,
        anchor: NodeId,
        product: &Product,
        (batch, m, n): (&Tile, &Tile, &Tile),
        tile: &ChipOperand,
        epilogue: &mut Epilogue,
    ) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let product_value = graph.node(anchor).output();
        let Epilogue { buffers, rows } = epilogue;
        // The results of each node, and the product itself where others want it.
        let own: Vec<ValueId> = match rows {
            Some(rows) => rows.early().to_vec(),
            None => {
                let product = kernel.outputs.contains(&product_value).then_some(product_value);
                product.into_iter().chain(kernel.epilogue.iter().map(|&id| graph.node(id).output())).collect()
            }
        };
        if own.is_empty() {
            return Ok(());
        }
        let externals: Vec<_> = product
            .externals
            .iter()
            .filter(|(value, ..)| rows.as_ref().is_none_or(|rows| rows.reads_early(*value)))
            .collect();
        let mut whole: Vec<(ValueId, ChipOperand)> = Vec::new();
        for (value, operand, which) in &externals {
            let held = self.whole_rows(product, operand, *which, *value, batch, buffers);
            whole.extend(held.map(|operand| (*value, operand.part(n.offset(&operand.strides)))));
        }
        let is_whole = |value: ValueId| whole.iter().any(|(known, _)| *known == value);
        // Buffers of every value must find place beside those of the product itself.
        let stored = |value: ValueId| element_bytes(storage(graph.ty(value).dtype)) as usize;
        let in_panel = |value: ValueId| rows.as_ref().is_some_and(|rows| rows.has_panel(value));
        let values = own.iter().copied().filter(|&value| !in_panel(value));
        let loaded = externals.iter().map(|(value, ..)| *value).filter(|&value| !is_whole(value));
        let element = 2 * values.map(stored).sum::<usize>() + LOAD_TURNS * loaded.map(stored).sum::<usize>();
        let most = self.squeezed((buffers.room as usize / element.max(1)).min(EPILOGUE_ELEMENTS));
        let count = (most / n.count().max(1)).max(1);
        for part in tile::tiles(&m.lens, &tile::fill(&m.lens, count)) {
            let lens: Vec<usize> = part.lens.iter().chain(&n.lens).copied().collect();
            let turn = buffers.turn();
            let tile_of_product = tile.part(part.offset(&tile.strides[..part.lens.len()]));
            let dram_strides = |which: usize| product.strides(which);
            let dram_offset = |which: usize| -> i64 {
                offset(batch, &product.batch, which)
                    + offset(m, &product.m, which)
                    + offset(n, &product.n, which)
                    + part.offset(&product.m.strides[which])
            };
            let mut chip: Vec<(ValueId, ChipOperand)> = vec![(product_value, tile_of_product.clone())];
            for (value, operand, which) in &externals {
                let strides = dram_strides(*which);
                if let Some(operand) = operand.in_place(dram_offset(*which), &strides) {
                    chip.push((*value, operand));
                    continue;
                }
                if let Some((_, row)) = whole.iter().find(|(known, _)| known == value) {
                    let strides = vec![0; part.lens.len()].into_iter().chain(row.strides.iter().copied()).collect();
                    chip.push((*value, ChipOperand { strides, ..row.clone() }));
                    continue;
                }
                let chip_strides = tile::dense_strides(&lens, |dim| strides[dim] != 0);
                let count: usize = (0..lens.len()).filter(|&dim| strides[dim] != 0).map(|dim| lens[dim]).product();
                let bytes = count as u64 * element_bytes(operand.dtype) as u64;
                let turn = buffers.count % LOAD_TURNS;
                let address = buffers.take(self, *value, turn, bytes, Filler::Load);
                let dram = operand.address(dram_offset(*which));
                if buffers.is_new(*value, turn, dram, &lens) {
                    self.move_tile(false, dram, operand.dtype, &lens, &strides, address, &chip_strides);
                }
                let loaded =
                    ChipOperand { memory: Memory::Scratchpad, address, dtype: operand.dtype, strides: chip_strides };
                chip.push((*value, loaded));
            }
            let dense = tile::dense_strides(&lens, |_| true);
            for &value in &own {
                let panel = rows.as_ref().and_then(|rows| rows.panel(value, m, &product.n));
                let result = product.result(value);
                // Work on rows goes on from where the value stays only if it has its rows in one piece.
                let stays = rows.is_none() || product.kept_rows(value).is_some();
                let kept = result
                    .filter(|_| stays)
                    .and_then(|(_, result, which)| result.in_place(dram_offset(*which), &dram_strides(*which)));
                let stays = kept.is_some();
                let destination = match (kept, &panel) {
                    (Some(kept), _) => kept,
                    (None, Some(panel)) => {
                        let row = part.offset(&panel.strides[..part.lens.len()]);
                        panel.part(row + n.offset(&panel.strides[part.lens.len()..]))
                    }
                    (None, None) => {
                        let dtype = storage(graph.ty(value).dtype);
                        let bytes = lens.iter().product::<usize>() as u64 * element_bytes(dtype) as u64;
                        let address = buffers.take(self, value, turn, bytes, Filler::Vector);
                        ChipOperand { memory: Memory::Scratchpad, address, dtype, strides: dense.clone() }
                    }
                };
                if value == product_value {
                    self.map(MapFn::Copy, &lens, &destination, &[ChipSource::Chip(&tile_of_product)]);
                } else if let Some(id) = graph.producer(value) {
                    let known = |wanted: ValueId| {
                        chip.iter().rev().find(|(known, _)| *known == wanted).map(|(_, operand)| operand.clone())
                    };
                    self.element_wise(kernel, graph.node(id), &lens, &destination, known)?;
                }
                // What is in a panel is stored from there, in long runs if these matter.
                let waits = panel.is_some() && !product.is_stored_by_tile(value, self.machine);
                if let (Some((_, result, which)), false, false) = (result, waits, stays) {
                    let (dram, strides) = (result.address(dram_offset(*which)), dram_strides(*which));
                    let (address, dtype) = (destination.address, destination.dtype);
                    self.move_tile(true, dram, dtype, &lens, &strides, address, &destination.strides);
                }
                chip.push((value, destination));
            }
        }
        Ok(())
    }

    /// An operand that is the same for all rows, over all columns: it is loaded once, so that no load waits for work on a tile
    /// before. `None` if it varies, or is too long.
    fn whole_rows(
        &mut self,
        product: &Product,
        operand: &Stored,
        which: usize,
        value: ValueId,
        batch: &Tile,
        buffers: &mut EpilogueBuffers,
    ) -> Option<ChipOperand> {
        let home = operand.address(offset(batch, &product.batch, which));
        let columns = product.columns(which);
        let strides = &columns.strides[which];
        let kept = |dim: usize| strides[dim] != 0;
        let count: usize = (0..strides.len()).filter(|&dim| kept(dim)).map(|dim| columns.sizes[dim]).product();
        let bytes = count as u64 * element_bytes(operand.dtype) as u64;
        let varies = product.m.strides[which].iter().any(|&stride| stride != 0);
        if varies || matches!(home, Home::Scratchpad(_)) || bytes > buffers.room / WHOLE_SHARE {
            return None;
        }
        // Batches take turns.
        let turn = WHOLE_TURN + buffers.batches(value, home) % 2;
        let address = buffers.take(self, value, turn, bytes, Filler::Load);
        let chip = tile::dense_strides(&columns.sizes, kept);
        if buffers.is_new(value, turn, home, &columns.sizes) {
            self.move_tile(false, home, operand.dtype, &columns.sizes, strides, address, &chip);
        }
        Some(ChipOperand { memory: Memory::Scratchpad, address, dtype: operand.dtype, strides: chip })
    }

    /// An element-wise node over a nest, with operands that are on chip or numbers.
    pub(super) fn element_wise(
        &mut self,
        kernel: &Kernel,
        node: &Node,
        lens: &[usize],
        destination: &ChipOperand,
        known: impl Fn(ValueId) -> Option<ChipOperand>,
    ) -> Result<(), TargetError> {
        let operands: Vec<Option<ChipOperand>> = node.inputs.iter().map(|&input| known(input)).collect();
        let sources: Vec<ChipSource<'_>> = node
            .inputs
            .iter()
            .zip(&operands)
            .filter_map(|(&input, operand)| match operand {
                Some(operand) => Some(ChipSource::Chip(operand)),
                None => self.immediate(input).map(ChipSource::Immediate),
            })
            .collect();
        let Some(function) = map_function(&node.op).filter(|_| sources.len() == node.inputs.len()) else {
            return Err(self.defect(kernel, "has an epilogue that is not element-wise"));
        };
        self.map(function, lens, destination, &sources);
        if let Op::Cast(cast) = &node.op {
            self.wrap_nibbles(cast.to, self.plan.graph.ty(node.inputs[0]).dtype, lens, destination);
        }
        Ok(())
    }
}

/// Buffers of operands and values, allocated when first needed and then taken in turn.
pub(super) struct EpilogueBuffers {
    /// Bytes that all buffers together may take.
    room: u64,
    known: Vec<(ValueId, usize, u32, u64)>,
    loaded: Vec<(ValueId, usize, Home, Vec<usize>)>,
    count: usize,
    /// Operands that are loaded as a whole: where the one at hand comes from, and the number of those before.
    wholes: Vec<(ValueId, Home, usize)>,
}

impl EpilogueBuffers {
    /// No buffers yet, which may take `room` bytes: half of what is left, since the rest goes for whole pages and the gap
    /// at the end of the scratchpad.
    pub(super) fn new(room: u64) -> Self {
        EpilogueBuffers { room, known: Vec::new(), loaded: Vec::new(), count: 0, wholes: Vec::new() }
    }

    /// How often an operand that is loaded as a whole was loaded from elsewhere before.
    fn batches(&mut self, value: ValueId, home: Home) -> usize {
        match self.wholes.iter_mut().find(|(known, ..)| *known == value) {
            Some((_, from, count)) => {
                *count += usize::from(*from != home);
                *from = home;
                *count
            }
            None => {
                self.wholes.push((value, home, 0));
                0
            }
        }
    }

    pub(super) fn turn(&mut self) -> usize {
        self.count += 1;
        self.count % 2
    }

    /// The buffer of a value for a turn, of at least `bytes`.
    pub(super) fn take(
        &mut self,
        lowering: &mut Lowering<'_, '_>,
        value: ValueId,
        turn: usize,
        bytes: u64,
        filler: Filler,
    ) -> u32 {
        let known = self.known.iter().find(|(known, at, _, size)| (*known, *at) == (value, turn) && *size >= bytes);
        if let Some(&(_, _, address, _)) = known {
            return address;
        }
        let address = lowering.emitter.allocate(filler, bytes);
        self.known.retain(|(known, at, _, _)| (*known, *at) != (value, turn));
        self.loaded.retain(|(known, at, _, _)| (*known, *at) != (value, turn));
        self.known.push((value, turn, address, bytes));
        address
    }

    /// Whether a buffer does not hold what lies there yet; it will from now on.
    pub(super) fn is_new(&mut self, value: ValueId, turn: usize, home: Home, lens: &[usize]) -> bool {
        if self.loaded.iter().any(|(known, at, from, of)| (*known, *at, *from) == (value, turn, home) && of == lens) {
            return false;
        }
        self.loaded.retain(|(known, at, _, _)| (*known, *at) != (value, turn));
        self.loaded.push((value, turn, home, lens.to_vec()));
        true
    }
}
