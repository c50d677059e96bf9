//! Operators along one axis that need the whole of it: running sums, greatest elements, the place of the greatest.

use tcc_ir::ops::ArgFn;
use tcc_ir::{DType, Kernel, Nest, NodeId, Op, ValueId};

use super::tile;
use super::{ChipOperand, Lowering, element_bytes};
use crate::systolic::emit::Filler;
use crate::systolic::isa::{Memory, Operation, Scan, Sort};
use crate::target::TargetError;

/// Bytes of rows that are worked on at a time.
const TILE_BYTES: usize = 128 << 10;

/// What is done along the axis.
enum Along {
    Sum { exclusive: bool, reverse: bool },
    Sort { k: usize, largest: bool, later_first: bool },
}

impl Lowering<'_, '_> {
    pub(super) fn selection_kernel(&mut self, kernel: &Kernel, id: NodeId) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let node = graph.node(id);
        let (axis, along, values, positions): (usize, Along, Option<ValueId>, Option<ValueId>) = match &node.op {
            Op::CumSum(op) => {
                (op.axis, Along::Sum { exclusive: op.exclusive, reverse: op.reverse }, Some(node.output()), None)
            }
            Op::TopK(op) => {
                let sort = Along::Sort { k: op.k, largest: op.largest, later_first: false };
                (op.axis, sort, Some(node.outputs[0]), Some(node.outputs[1]))
            }
            Op::ArgReduce(op) => {
                let largest = op.function == ArgFn::Max;
                (op.axis, Along::Sort { k: 1, largest, later_first: op.select_last }, None, Some(node.output()))
            }
            _ => return Err(TargetError::Fault(format!("`{}` is no selection", node.origin))),
        };
        if graph.shape(node.output()).count() == 0 {
            return Ok(());
        }
        // Only results that somebody reads have a place in memory.
        let mut wanted = |value: Option<ValueId>| {
            let value = value.filter(|value| kernel.outputs.contains(value));
            value.map(|value| self.dense_result(value)).transpose()
        };
        let (values, positions) = (wanted(values)?, wanted(positions)?);
        let mut source = self.operand(node.inputs[0])?;
        let shape = source.view.shape().clone();
        let length = shape[axis];
        let inner: usize = shape[axis + 1..].iter().product();
        // Rows are taken over the dense nest [outer, axis, inner]; a view that has no such strides is copied.
        let dims = [shape[..axis].iter().product::<usize>(), length, inner];
        let flat = tcc_ir::Shape::new(dims).map_err(|error| TargetError::Fault(error.to_string()))?;
        let strides = |view: &tcc_ir::View| {
            let groups = view.reshape(flat.clone()).groups()?;
            let single = |group: &[tcc_ir::Atom]| match group {
                [] => Some(0),
                [atom] => Some(atom.stride),
                _ => None,
            };
            groups.iter().map(|group| single(group)).collect::<Option<Vec<i64>>>()
        };
        let from = match strides(&source.view) {
            Some(strides) => strides,
            None => {
                source = self.densify(&source)?;
                strides(&source.view).ok_or_else(|| TargetError::Fault("a dense view has strides".to_owned()))?
            }
        };
        debug_assert!(Nest::refine(&flat, &[&source.view]).is_some());
        let element = element_bytes(source.dtype) as usize;
        let kept = match along {
            Along::Sum { .. } => length,
            Along::Sort { k, .. } => k,
        };
        let rows = (self.squeezed(TILE_BYTES) / (length * element.max(8)).max(1)).max(1);
        let lens = tile::fill(&[dims[0], dims[2]], rows);
        let tiles = tile::tiles(&[dims[0], dims[2]], &lens);
        let most = lens.iter().product::<usize>();
        let whole = self.emitter.capacity();
        let needed = (most * (length * element + kept * (element + 8))) as u64;
        if needed > whole {
            return Err(self.does_not_fit(kernel, needed - whole));
        }
        self.tiling = format!("{most} rows of {length} at a time");
        let turns = tiles.len().min(2);
        let sources = self.buffers(Filler::Load, (most * length * element) as u64, turns);
        let value_buffers = self.buffers(Filler::Vector, (most * kept * element) as u64, turns);
        let position_buffers = self.buffers(Filler::Vector, (most * kept * 8) as u64, turns);
        for (index, tile) in tiles.iter().enumerate() {
            let turn = index % turns;
            let (outer, inner_len) = (tile.lens[0], tile.lens[1]);
            // On chip rows lie as [outer, inner, axis].
            let lens = [outer, inner_len, length];
            let rows_of = |length: usize| vec![(inner_len * length) as i64, length as i64, 1];
            let start = tile.starts[0] as i64 * from[0] + tile.starts[1] as i64 * from[2];
            let dram = source.address(start);
            let chip = sources[turn];
            self.move_tile(false, dram, source.dtype, &lens, &[from[0], from[2], from[1]], chip, &rows_of(length));
            let place = |address: u32, dtype: DType, length: usize| ChipOperand {
                memory: Memory::Scratchpad,
                address,
                dtype,
                strides: rows_of(length),
            };
            let whole = place(chip, source.dtype, length);
            let nest = [outer as u32, inner_len as u32, length as u32];
            let value_operand = values.as_ref().map(|_| place(value_buffers[turn], source.dtype, kept));
            let position_operand = positions.as_ref().map(|_| place(position_buffers[turn], DType::I64, kept));
            match along {
                Along::Sum { exclusive, reverse } => {
                    let Some(to) = &value_operand else { continue };
                    // A sum from the end walks both rows backwards.
                    let turned = |operand: &ChipOperand| {
                        let mut strides = operand.strides.clone();
                        let mut offset = 0;
                        if reverse {
                            offset = (length as i64 - 1) * strides[2];
                            strides[2] = -strides[2];
                        }
                        operand.walk(&strides, offset)
                    };
                    self.emitter.emit(Operation::Scan(Scan {
                        dims: nest.into_iter().collect(),
                        exclusive,
                        destination: turned(to),
                        source: turned(&whole),
                    }));
                }
                Along::Sort { k, largest, later_first } => {
                    self.emitter.emit(Operation::Sort(Sort {
                        dims: nest.into_iter().collect(),
                        k: k as u32,
                        largest,
                        later_first,
                        source: whole.walk(&whole.strides, 0),
                        values: value_operand.as_ref().map(|operand| operand.walk(&operand.strides, 0)),
                        positions: position_operand.as_ref().map(|operand| operand.walk(&operand.strides, 0)),
                    }));
                }
            }
            for (result, operand) in [(&values, value_operand), (&positions, position_operand)] {
                let (Some(result), Some(operand)) = (result, operand) else { continue };
                let strides = [(kept * inner) as i64, 1, inner as i64];
                let start = tile.starts[0] as i64 * strides[0] + tile.starts[1] as i64;
                let lens = [outer, inner_len, kept];
                let dram = result.address(start);
                self.move_tile(true, dram, operand.dtype, &lens, &strides, operand.address, &operand.strides);
            }
        }
        Ok(())
    }
}
