//! Kernels that move data: concatenation, padding, gather and scatter.

use tcc_ir::ops::{Concat, Gather, Pad, ScatterNd, Slice};
use tcc_ir::{DType, Node, NodeId, Op, Shape, View};

use super::tile;
use super::{ChipOperand, ChipSource, DramOperand, Lowering, element_bytes};
use crate::systolic::isa::{MapFn, Memory, Operation, RowTransfer};
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
        let result = self.result(node.output())?;
        let whole = result.view.shape().clone();
        self.tiling = format!("{} parts along axis {}", node.inputs.len(), concat.axis);
        let mut start = 0;
        for &input in &node.inputs {
            let part = self.operand(input)?;
            let shape = part.view.shape().clone();
            let mut starts = vec![0; whole.rank()];
            starts[concat.axis] = start;
            start += shape[concat.axis];
            let slice = Slice { starts, steps: vec![1; whole.rank()], sizes: shape.to_vec() };
            self.copy_into(&part, &result, &slice)?;
        }
        Ok(())
    }

    /// Copies a view to a part of a dense result.
    fn copy_into(&mut self, from: &DramOperand, result: &DramOperand, part: &Slice) -> Result<(), TargetError> {
        let shape = from.view.shape();
        match result.view.slice(part, shape) {
            Some(view) if shape.count() > 0 => self.copy(from, &DramOperand { view, ..result.clone() }),
            Some(_) => Ok(()),
            None => Err(TargetError::Fault("a dense buffer that cannot be sliced".to_owned())),
        }
    }

    fn pad(&mut self, node: &Node, pad: &Pad) -> Result<(), TargetError> {
        let value = node.output();
        let result = self.result(value)?;
        let whole = result.view.shape().clone();
        if whole.count() == 0 {
            return Ok(());
        }
        self.tiling = "filled, then copied into".to_owned();
        match self.immediate(node.inputs[1]) {
            Some(number) => self.fill(value, number)?,
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
            Some(view) => DramOperand { view, ..source },
            None => {
                let dense = self.densify(&source)?;
                let view = dense.view.slice(&kept, &part);
                DramOperand { view: view.unwrap_or_else(|| View::dense(part)), ..dense }
            }
        };
        self.copy_into(&source, &result, &place)
    }

    /// Fills a result with a number that is only known at run time.
    fn fill_from(&mut self, node: &Node, result: &DramOperand) -> Result<(), TargetError> {
        let number = self.operand(node.inputs[1])?;
        let element = element_bytes(number.dtype) as u64;
        let count = result.view.shape().count();
        let chunk = count.min(self.squeezed(COPY_CHUNK));
        let place = |lowering: &mut Self, count: usize, stride: i64| ChipOperand {
            memory: Memory::Scratchpad,
            address: lowering.emitter.allocate(count as u64 * element),
            dtype: number.dtype,
            strides: vec![stride],
        };
        let one = place(self, 1, 0);
        let many = place(self, chunk, 1);
        self.move_tile(false, number.address(0), number.dtype, &[1], &[1], one.address, &[1]);
        self.map(MapFn::Copy, &[chunk], &many, &[ChipSource::Chip(&one)]);
        for tile in tile::tiles(&[count], &[chunk]) {
            let dram = result.address(tile.offset(&[1]));
            self.move_tile(true, dram, result.dtype, &tile.lens, &[1], many.address, &[1]);
        }
        Ok(())
    }

    /// A dense operand: the buffer itself, or a copy.
    fn dense_operand(&mut self, value: tcc_ir::ValueId) -> Result<DramOperand, TargetError> {
        let operand = self.operand(value)?;
        let contiguous = match operand.view.atoms() {
            [] => true,
            [atom] => atom.stride == 1,
            _ => false,
        };
        if contiguous { Ok(operand) } else { self.densify(&operand) }
    }

    /// Buffers for lists of indices, as they are stored and widened, two of each to be taken in turn.
    fn index_buffers(&mut self, indices: &DramOperand, count: usize) -> Vec<(u32, u32)> {
        let narrow = count as u64 * element_bytes(indices.dtype) as u64;
        (0..2).map(|_| (self.emitter.allocate(narrow), self.emitter.allocate(count as u64 * 8))).collect()
    }

    /// Loads indices `start..start + count` of a dense operand, as i32 or i64.
    fn load_indices(
        &mut self,
        indices: &DramOperand,
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
        let result = self.result(node.output())?;
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
        // A long row is cut into pieces; many rows are taken a tile at a time.
        let limit = self.squeezed((ROWS_BYTES as usize).min(self.machine.scratchpad.bytes as usize / 16)) as u64;
        let piece = row_bytes.min(limit);
        let per_tile = ((limit / piece) as usize).clamp(1, count);
        self.tiling = format!("{per_tile} of {count} rows of {row_bytes} bytes from {rows}, {outer} times");
        let (lists, places) = (self.index_buffers(&indices, per_tile), self.buffers(piece * per_tile as u64, 2));
        let (mut list, mut place) = (0, 0);
        for table in 0..outer as u64 {
            for tile in tile::tiles(&[count], &[per_tile]) {
                let (start, len) = (tile.starts[0], tile.lens[0]);
                let (index_address, index_dtype) = self.load_indices(&indices, start, len, lists[list % lists.len()]);
                list += 1;
                let mut done = 0;
                while done < row_bytes {
                    let bytes = piece.min(row_bytes - done);
                    let chip = places[place % places.len()];
                    place += 1;
                    self.emitter.emit(Operation::LoadRows(RowTransfer {
                        dram: data.address(0) + table * rows as u64 * row_bytes + done,
                        scratchpad: chip,
                        row_bytes: bytes as u32,
                        row_stride: row_bytes,
                        rows: rows as u64,
                        outer: 1,
                        outer_stride: 0,
                        indices: index_address,
                        index_dtype,
                        count: len as u32,
                    }));
                    let first = (table * count as u64 + start as u64) * row_bytes + done;
                    let strides = [(row_bytes / element) as i64, 1];
                    let lens = [len, (bytes / element) as usize];
                    let dram = result.address((first / element) as i64);
                    self.move_tile(true, dram, data.dtype, &lens, &strides, chip, &[(bytes / element) as i64, 1]);
                    done += bytes;
                }
            }
        }
        Ok(())
    }

    fn scatter(&mut self, node: &Node, scatter: ScatterNd) -> Result<(), TargetError> {
        let result = self.result(node.output())?;
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
        let limit = self.squeezed((ROWS_BYTES as usize).min(self.machine.scratchpad.bytes as usize / 16)) as u64;
        let piece = row_bytes.min(limit);
        let per_tile = ((limit / piece) as usize).clamp(1, count);
        self.tiling = format!("{per_tile} of {count} rows of {row_bytes} bytes into {}", shape[0]);
        let (lists, places) = (self.index_buffers(&indices, per_tile), self.buffers(piece * per_tile as u64, 2));
        let (mut list, mut place) = (0, 0);
        for tile in tile::tiles(&[count], &[per_tile]) {
            let (start, len) = (tile.starts[0], tile.lens[0]);
            let (index_address, index_dtype) = self.load_indices(&indices, start, len, lists[list % lists.len()]);
            list += 1;
            let mut done = 0;
            while done < row_bytes {
                let bytes = piece.min(row_bytes - done);
                let chip = places[place % places.len()];
                place += 1;
                let first = (start as u64 * row_bytes + done) / element;
                let lens = [len, (bytes / element) as usize];
                let strides = [(row_bytes / element) as i64, 1];
                let dram = updates.address(first as i64);
                self.move_tile(false, dram, updates.dtype, &lens, &strides, chip, &[(bytes / element) as i64, 1]);
                let rows = RowTransfer {
                    dram: result.address(0) + done,
                    scratchpad: chip,
                    row_bytes: bytes as u32,
                    row_stride: row_bytes,
                    rows: shape[0] as u64,
                    outer: 1,
                    outer_stride: 0,
                    indices: index_address,
                    index_dtype,
                    count: len as u32,
                };
                self.emitter.emit(Operation::StoreRows(rows, scatter.reduction, data.dtype));
                done += bytes;
            }
        }
        Ok(())
    }
}

/// Elements of a buffer that is stored again and again to fill a result.
const COPY_CHUNK: usize = 32 << 10;
