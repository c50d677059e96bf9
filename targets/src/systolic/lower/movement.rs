//! Kernels that move data: concatenation, padding, gather and scatter.

use tcc_ir::ops::{Concat, Gather, Pad, ScatterNd, Slice};
use tcc_ir::{DType, Node, NodeId, Op, Shape, View};

use super::tile;
use super::{ChipOperand, ChipSource, Home, Lowering, Stored, element_bytes};
use crate::systolic::emit::Filler;
use crate::systolic::isa::{DramAddress, MapFn, Memory, Operation, RowTransfer};
use crate::target::TargetError;

/// Bytes of rows that one gather or scatter moves.
const ROWS_BYTES: u64 = 512 << 10;

impl Lowering<'_, '_> {
    pub(super) fn movement_kernel(&mut self, id: NodeId) -> Result<(), TargetError> {
        let node = self.plan.graph.node(id);
        match &node.op {
            Op::Concat(concat) => self.concat(node, *concat),
            Op::Pad(pad) => self.pad(node, pad),
            Op::Gather(gather) => self.gather(node, *gather),
            Op::ScatterNd(scatter) => self.scatter(node, *scatter),
            _ => Err(TargetError::Fault(format!("`{}` ({}) is no movement", node.origin, node.op.name()))),
        }
    }

    fn concat(&mut self, node: &Node, concat: Concat) -> Result<(), TargetError> {
        let mut result = self.result(node.output())?;
        let whole = result.view.shape().clone();
        self.tiling = format!("{} parts along axis {}", node.inputs.len(), concat.axis);
        let mut start = 0;
        let mut parts = Vec::with_capacity(node.inputs.len());
        for &input in &node.inputs {
            let part = self.operand(input)?;
            let shape = part.view.shape().clone();
            let mut starts = vec![0; whole.rank()];
            starts[concat.axis] = start;
            start += shape[concat.axis];
            parts.push((part, Slice { starts, steps: vec![1; whole.rank()], sizes: shape.to_vec() }));
        }
        // A result that lies rearranged may have no strides for a part of it.
        if parts.iter().any(|(part, slice)| result.view.slice(slice, part.view.shape()).is_none()) {
            result = self.dense_result(node.output())?;
        }
        for (part, slice) in &parts {
            self.copy_into(part, &result, slice)?;
        }
        Ok(())
    }

    /// Copies a view to a part of a result.
    fn copy_into(&mut self, from: &Stored, result: &Stored, part: &Slice) -> Result<(), TargetError> {
        let shape = from.view.shape();
        match result.view.slice(part, shape) {
            Some(view) if shape.count() > 0 => self.copy(from, &Stored { view, ..result.clone() }),
            Some(_) => Ok(()),
            None => Err(TargetError::Fault("a result that cannot be sliced".to_owned())),
        }
    }

    fn pad(&mut self, node: &Node, pad: &Pad) -> Result<(), TargetError> {
        let result = self.dense_result(node.output())?;
        let whole = result.view.shape().clone();
        if whole.count() == 0 {
            return Ok(());
        }
        self.tiling = "filled, then copied into".to_owned();
        match self.immediate(node.inputs[1]) {
            Some(number) => self.fill(&result, number),
            None => self.fill_from(node, &result)?,
        }
        // The part of the operand that is not cropped away, and where it goes.
        let source = self.operand(node.inputs[0])?;
        let shape = source.view.shape().clone();
        let mut kept = Slice { starts: Vec::new(), steps: vec![1; shape.rank()], sizes: Vec::new() };
        let mut place = Slice { starts: Vec::new(), steps: Vec::new(), sizes: Vec::new() };
        for axis in 0..shape.rank() {
            let step = pad.interior[axis] as i64 + 1;
            // Element i lands at low + i·step; those that land outside are cropped.
            let first = (-pad.low[axis]).max(0).div_euclid(step) + i64::from((-pad.low[axis]).max(0) % step != 0);
            let room = whole[axis] as i64 - 1 - pad.low[axis];
            let last = if room < 0 { -1 } else { (room / step).min(shape[axis] as i64 - 1) };
            let count = (last - first + 1).max(0);
            kept.starts.push(first as usize);
            kept.sizes.push(count as usize);
            place.starts.push((pad.low[axis] + first * step).max(0) as usize);
            place.steps.push(step);
            place.sizes.push(count as usize);
        }
        if kept.sizes.contains(&0) {
            return Ok(());
        }
        let part = Shape::new(kept.sizes.iter().copied()).map_err(|error| TargetError::Fault(error.to_string()))?;
        let source = match source.view.slice(&kept, &part) {
            Some(view) => Stored { view, ..source },
            None => {
                let dense = self.densify(&source)?;
                let view = dense.view.slice(&kept, &part);
                Stored { view: view.unwrap_or_else(|| View::dense(part)), ..dense }
            }
        };
        self.copy_into(&source, &result, &place)
    }

    /// Fills a result with a number that is only known at run time.
    fn fill_from(&mut self, node: &Node, result: &Stored) -> Result<(), TargetError> {
        let number = self.operand(node.inputs[1])?;
        let element = element_bytes(number.dtype) as u64;
        let count = result.view.shape().count();
        let chunk = count.min(self.squeezed(COPY_CHUNK));
        let place = |lowering: &mut Self, filler: Filler, count: usize, stride: i64| ChipOperand {
            memory: Memory::Scratchpad,
            address: lowering.emitter.allocate(filler, count as u64 * element),
            dtype: number.dtype,
            strides: vec![stride],
        };
        let one = place(self, Filler::Load, 1, 0);
        let many = place(self, Filler::Vector, chunk, 1);
        self.move_tile(false, number.address(0), number.dtype, &[1], &[1], one.address, &[1]);
        self.map(MapFn::Copy, &[chunk], &many, &[ChipSource::Chip(&one)]);
        for tile in tile::tiles(&[count], &[chunk]) {
            let dram = result.address(tile.offset(&[1]));
            self.move_tile(true, dram, result.dtype, &tile.lens, &[1], many.address, &[1]);
        }
        Ok(())
    }

    /// A dense operand: the buffer itself, or a copy.
    fn dense_operand(&mut self, value: tcc_ir::ValueId) -> Result<Stored, TargetError> {
        let operand = self.operand(value)?;
        let contiguous = match operand.view.atoms() {
            [] => true,
            [atom] => atom.stride == 1,
            _ => false,
        };
        if contiguous { Ok(operand) } else { self.densify(&operand) }
    }

    /// Buffers for lists of indices, as they are stored and widened, two of each to be taken in turn.
    fn index_buffers(&mut self, indices: &Stored, count: usize) -> Vec<(u32, u32)> {
        let narrow = count as u64 * element_bytes(indices.dtype) as u64;
        (0..2)
            .map(|_| {
                (self.emitter.allocate(Filler::Load, narrow), self.emitter.allocate(Filler::Vector, count as u64 * 8))
            })
            .collect()
    }

    /// Loads indices `start..start + count` of a dense operand, as i32 or i64.
    fn load_indices(
        &mut self,
        indices: &Stored,
        start: usize,
        count: usize,
        (narrow, wide): (u32, u32),
    ) -> (u32, DType) {
        let loaded =
            ChipOperand { memory: Memory::Scratchpad, address: narrow, dtype: indices.dtype, strides: vec![1] };
        let dram = indices.address(start as i64);
        self.move_tile(false, dram, indices.dtype, &[count], &[1], loaded.address, &[1]);
        if matches!(indices.dtype, DType::I32 | DType::I64) {
            return (loaded.address, indices.dtype);
        }
        let widened = ChipOperand { address: wide, dtype: DType::I64, ..loaded.clone() };
        self.map(MapFn::Copy, &[count], &widened, &[ChipSource::Chip(&loaded)]);
        (widened.address, DType::I64)
    }

    fn gather(&mut self, node: &Node, gather: Gather) -> Result<(), TargetError> {
        let result = self.dense_result(node.output())?;
        if result.view.shape().count() == 0 {
            return Ok(());
        }
        let data = self.dense_operand(node.inputs[0])?;
        let indices = self.dense_operand(node.inputs[1])?;
        let shape = data.view.shape().clone();
        let element = element_bytes(data.dtype) as u64;
        let outer: usize = shape[..gather.axis].iter().product();
        let rows = shape[gather.axis];
        let row_bytes = shape[gather.axis + 1..].iter().product::<usize>() as u64 * element;
        let count = indices.view.shape().count();
        let place = format!("from {rows}, {outer} times");
        let table = data.dram(0).ok_or_else(|| on_chip(node))?;
        self.for_each_piece(&indices, outer, row_bytes, element, &place, |lowering, mut piece| {
            let dram = table.plus((piece.table * rows as u64 * row_bytes) as i64);
            let first = piece.table * count as u64 + piece.start as u64;
            // Whole rows of a result that stays on chip arrive where they belong.
            let home = result.address((first * row_bytes / element) as i64);
            let arrives = match home {
                Home::Scratchpad(chip) if piece.bytes == row_bytes => Some(chip),
                Home::Scratchpad(_) | Home::Dram(_) => None,
            };
            piece.chip = arrives.unwrap_or(piece.chip);
            lowering.emitter.emit(Operation::LoadRows(piece.transfer(dram, rows as u64, row_bytes)));
            if arrives.is_none() {
                lowering.move_piece(true, &result, first, row_bytes, &piece);
            }
        });
        Ok(())
    }

    /// Cuts rows that indices name into pieces that the scratchpad takes, and calls `f` with each after its indices have
    /// been loaded. A long row is cut; of short ones many are taken at a time.
    fn for_each_piece(
        &mut self,
        indices: &Stored,
        tables: usize,
        row_bytes: u64,
        element: u64,
        place: &str,
        mut f: impl FnMut(&mut Self, RowPiece),
    ) {
        let count = indices.view.shape().count();
        let scratchpad = self.emitter.capacity();
        let limit = self.squeezed(ROWS_BYTES.min(scratchpad / 16) as usize) as u64;
        let piece = row_bytes.min((limit / element).max(1) * element);
        // Four lists of indices, of eight bytes each, take a quarter of the scratchpad at most: as much as four pieces.
        let per_tile = ((limit / piece).min(limit / 8) as usize).clamp(1, count);
        self.tiling = format!("{per_tile} of {count} rows of {row_bytes} bytes {place}");
        let (lists, places) =
            (self.index_buffers(indices, per_tile), self.buffers(Filler::Load, piece * per_tile as u64, 2));
        let (mut list, mut place) = (0, 0);
        for table in 0..tables as u64 {
            for tile in tile::tiles(&[count], &[per_tile]) {
                let (start, count) = (tile.starts[0], tile.lens[0]);
                let (address, index_dtype) = self.load_indices(indices, start, count, lists[list % lists.len()]);
                list += 1;
                let mut from = 0;
                while from < row_bytes {
                    let bytes = piece.min(row_bytes - from);
                    let chip = places[place % places.len()];
                    place += 1;
                    f(self, RowPiece { table, start, count, from, bytes, chip, indices: address, index_dtype });
                    from += bytes;
                }
            }
        }
    }

    /// Moves a piece between the scratchpad and dense rows in DRAM, of which it belongs to row `first` and the following.
    fn move_piece(&mut self, store: bool, rows: &Stored, first: u64, row_bytes: u64, piece: &RowPiece) {
        let element = element_bytes(rows.dtype);
        let width = piece.bytes as i64 / element;
        let dram = rows.address((first * row_bytes + piece.from) as i64 / element);
        let lens = [piece.count, width as usize];
        self.move_tile(store, dram, rows.dtype, &lens, &[row_bytes as i64 / element, 1], piece.chip, &[width, 1]);
    }

    fn scatter(&mut self, node: &Node, scatter: ScatterNd) -> Result<(), TargetError> {
        let result = self.dense_result(node.output())?;
        let data = self.operand(node.inputs[0])?;
        let shape = data.view.shape().clone();
        if shape.count() == 0 {
            return Ok(());
        }
        self.copy(&data, &result)?;
        let indices = self.dense_operand(node.inputs[1])?;
        let updates = self.dense_operand(node.inputs[2])?;
        let count = indices.view.shape().count();
        let element = element_bytes(data.dtype) as u64;
        let row_bytes = shape[1..].iter().product::<usize>() as u64 * element;
        if count == 0 || row_bytes == 0 {
            return Ok(());
        }
        let place = format!("into {}", shape[0]);
        let table = result.dram(0).ok_or_else(|| on_chip(node))?;
        self.for_each_piece(&indices, 1, row_bytes, element, &place, |lowering, piece| {
            lowering.move_piece(false, &updates, piece.start as u64, row_bytes, &piece);
            let rows = piece.transfer(table, shape[0] as u64, row_bytes);
            lowering.emitter.emit(Operation::StoreRows(rows, scatter.reduction, data.dtype));
        });
        Ok(())
    }
}

/// An error for a table that was to stay on chip, where no index reaches it.
fn on_chip(node: &Node) -> TargetError {
    TargetError::Fault(format!("the table of `{}` is not in DRAM; please report this", node.origin))
}

/// A piece of some rows of a table: what one transfer moves.
struct RowPiece {
    /// Which table.
    table: u64,
    /// Place of the first index in the list, and number of indices.
    start: usize,
    count: usize,
    /// The part of each row, in bytes.
    from: u64,
    bytes: u64,
    /// Where the piece lies on chip.
    chip: u32,
    /// Where its indices lie on chip.
    indices: u32,
    index_dtype: DType,
}

impl RowPiece {
    /// The transfer to or from a dense table of `rows` rows at `dram`.
    fn transfer(&self, dram: DramAddress, rows: u64, row_bytes: u64) -> RowTransfer {
        RowTransfer {
            dram: dram.plus(self.from as i64),
            scratchpad: self.chip,
            row_bytes: self.bytes as u32,
            row_stride: row_bytes,
            rows,
            outer: 1,
            outer_stride: 0,
            indices: self.indices,
            index_dtype: self.index_dtype,
            count: self.count as u32,
        }
    }
}

/// Elements of a buffer that is stored again and again to fill a result.
const COPY_CHUNK: usize = 32 << 10;
