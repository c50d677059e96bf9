//! Matrix products on the array, with element-wise work on the way out.
//!
//! A product walks four index spaces: the batch, M, N and K. Each is refined on its own into dimensions along which both
//! operands and everything after them have one stride. A batch dimension along which one operand stays the same joins M
//! or N: weights then serve the whole batch. Weights are streamed, double buffered, past rows of A that stay on chip for
//! all columns; the accumulators are used in two halves, so that the vector unit empties one while the array fills the
//! other.

use smallvec::SmallVec;
use tcc_ir::ops::MatMul;
use tcc_ir::{Atom, DType, Kernel, Nest, NodeId, Op, Shape, ValueId, View};

use super::tile::{self, Tile};
use super::{ChipOperand, ChipSource, DramOperand, Lowering, element_bytes, map_function};
use crate::systolic::emit::Emitter;
use crate::systolic::isa::{Fold, FoldFn, MapFn, Memory, Multiply, Operation, Preload, Source};
use crate::systolic::layout::storage;
use crate::target::TargetError;

/// Elements of a result tile that one round of the epilogue works on.
const EPILOGUE_ELEMENTS: usize = 32 << 10;

/// One index space of a product and the strides of what walks it, in elements.
#[derive(Clone, Debug, Default)]
struct Space {
    sizes: Vec<usize>,
    /// By operand: A, B, then results and operands of the epilogue. Those that do not walk this space have none.
    strides: Vec<Vec<i64>>,
}

impl Space {
    fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Takes out the dimensions that `moves` names and gives them to the front of `other`.
    fn give(&mut self, other: &mut Space, moves: impl Fn(&Space, usize) -> bool) {
        let moved: Vec<usize> = (0..self.sizes.len()).filter(|&dim| moves(self, dim)).collect();
        let pick = |values: &[usize], chosen: bool| -> Vec<usize> {
            (0..values.len()).filter(|dim| moved.contains(dim) == chosen).map(|dim| values[dim]).collect()
        };
        let pick_strides = |values: &[i64], chosen: bool| -> Vec<i64> {
            (0..values.len()).filter(|dim| moved.contains(dim) == chosen).map(|dim| values[dim]).collect()
        };
        other.sizes.splice(0..0, pick(&self.sizes, true));
        for (from, to) in self.strides.iter().zip(&mut other.strides) {
            to.splice(0..0, pick_strides(from, true));
        }
        self.sizes = pick(&self.sizes, false);
        self.strides.iter_mut().for_each(|strides| *strides = pick_strides(strides, false));
    }
}

/// A product with all its operands, ready to be tiled.
struct Product {
    a: DramOperand,
    b: DramOperand,
    a_zero: Option<DramOperand>,
    b_zero: Option<DramOperand>,
    batch: Space,
    m: Space,
    n: Space,
    k: Space,
    /// Operands of the epilogue that lie in DRAM, and their place in the spaces' strides.
    externals: Vec<(ValueId, DramOperand, usize)>,
    /// Place of results in the spaces' strides: all are dense and of one shape.
    result: usize,
}

const A: usize = 0;
const B: usize = 1;
const RESULT: usize = 2;

impl Lowering<'_, '_> {
    pub(super) fn contraction_kernel(&mut self, kernel: &Kernel, anchor: NodeId) -> Result<(), TargetError> {
        let node = self.plan.graph.node(anchor);
        let Op::MatMul(op) = &node.op else {
            return Err(self.defect(kernel, "has a contraction that is no matrix product"));
        };
        if self.plan.graph.shape(node.output()).count() == 0 {
            return Ok(());
        }
        let product = self.product(kernel, anchor, op)?;
        if product.k.count() == 0 {
            return self.sum_of_nothing(kernel, &product);
        }
        if on_array(product.a.dtype, product.b.dtype) {
            self.array_product(kernel, anchor, &product)
        } else {
            self.vector_product(kernel, anchor, &product)
        }
    }

    fn product(&mut self, kernel: &Kernel, anchor: NodeId, op: &MatMul) -> Result<Product, TargetError> {
        let graph = &self.plan.graph;
        let node = graph.node(anchor);
        let dims = op
            .dims(graph.ty(node.inputs[0]), graph.ty(node.inputs[1]))
            .map_err(|error| TargetError::Fault(error.to_string()))?;
        let mut zeros = node.inputs[2..].iter().copied();
        let mut zero = |present: bool| if present { zeros.next() } else { None };
        let (a_zero, b_zero) = (zero(op.a_zero), zero(op.b_zero));
        let mut a = self.operand(node.inputs[0])?;
        let mut b = self.operand(node.inputs[1])?;
        let shape = graph.shape(node.output()).clone();
        let own: Vec<ValueId> = kernel.nodes().flat_map(|node| graph.node(node).outputs.to_vec()).collect();
        let mut values: Vec<ValueId> = Vec::new();
        for &id in &kernel.epilogue {
            for &input in &graph.node(id).inputs {
                if !own.contains(&input) && !values.contains(&input) && self.immediate(input).is_none() {
                    values.push(input);
                }
            }
        }
        let mut externals = values.iter().map(|&value| self.operand(value)).collect::<Result<Vec<_>, _>>()?;
        // A view whose dimensions cannot be told apart, or that does not interleave with the others, is copied first.
        let spaces = loop {
            let all: Vec<&DramOperand> = [&a, &b].into_iter().chain(&externals).collect();
            let which = match refine(&all, op, &dims.batch, [dims.m, dims.n, dims.k], &shape) {
                Ok(spaces) => break spaces,
                Err(which) if !all[which].view.is_dense() => which,
                // The culprit is dense already, so one of the others must give way.
                Err(_) => (0..all.len())
                    .find(|&index| !all[index].view.is_dense())
                    .ok_or_else(|| self.defect(kernel, "has operands that no loop nest walks"))?,
            };
            let operand = match which {
                A => &mut a,
                B => &mut b,
                other => &mut externals[other - 2],
            };
            *operand = self.densify(operand)?;
        };
        let [mut batch, mut m, mut n, k] = spaces;
        batch.give(&mut m, |space, dim| space.strides[B][dim] == 0);
        batch.give(&mut n, |space, dim| space.strides[A][dim] == 0);
        let a_zero = a_zero.map(|value| self.operand(value)).transpose()?;
        let b_zero = b_zero.map(|value| self.operand(value)).transpose()?;
        let externals = values
            .into_iter()
            .zip(externals)
            .enumerate()
            .map(|(i, (value, operand))| (value, operand, 3 + i))
            .collect();
        Ok(Product { a, b, a_zero, b_zero, batch, m, n, k, externals, result: RESULT })
    }

    /// A product over an empty K-dimension is zero, and its epilogue goes on from that.
    fn sum_of_nothing(&mut self, kernel: &Kernel, product: &Product) -> Result<(), TargetError> {
        let columns = self.machine.array.columns as usize;
        let rows = (self.squeezed(EPILOGUE_ELEMENTS) / columns).clamp(1, self.machine.accumulators.rows as usize);
        let Some(anchor) = kernel.anchor.node() else { return Ok(()) };
        for batch in tile::tiles(&product.batch.sizes, &vec![1; product.batch.sizes.len()]) {
            for m in tile::tiles(&product.m.sizes, &tile::fill(&product.m.sizes, rows)) {
                for n in tile::tiles(&product.n.sizes, &tile::fill(&product.n.sizes, columns)) {
                    self.emitter.release();
                    let accumulators = self.accumulator_tile(anchor, 0, &m, &n);
                    let lens: Vec<usize> = m.lens.iter().chain(&n.lens).copied().collect();
                    let zero = match accumulators.dtype {
                        DType::I32 => Source::Integer(0),
                        _ => Source::Float(0.0),
                    };
                    self.map(MapFn::Copy, &lens, &accumulators, &[ChipSource::Immediate(zero)]);
                    let mut buffers = EpilogueBuffers::new(&self.emitter);
                    self.epilogue(kernel, anchor, product, (&batch, &m, &n), &accumulators, &mut buffers)?;
                }
            }
        }
        Ok(())
    }

    /// The accumulators that hold a tile of the result, rows densely, columns from the first.
    fn accumulator_tile(&self, anchor: NodeId, row: u32, m: &Tile, n: &Tile) -> ChipOperand {
        let columns = self.machine.array.columns;
        let result = self.plan.graph.ty(self.plan.graph.node(anchor).output()).dtype;
        let rows = tile::dense_strides(&m.lens, |_| true).into_iter().map(|stride| stride * i64::from(columns));
        ChipOperand {
            memory: Memory::Accumulators,
            address: row * columns * 4,
            dtype: if result == DType::I32 { DType::I32 } else { DType::F32 },
            strides: rows.chain(tile::dense_strides(&n.lens, |_| true)).collect(),
        }
    }

    fn array_product(&mut self, kernel: &Kernel, anchor: NodeId, product: &Product) -> Result<(), TargetError> {
        let machine = self.machine;
        // Only a scratchpad that is small beside the array makes it necessary to leave a part of the array idle.
        let (rows, columns) =
            (self.squeezed(machine.array.rows as usize), self.squeezed(machine.array.columns as usize));
        let scratchpad = self.squeezed(machine.scratchpad.bytes as usize);
        let half = (machine.accumulators.rows / 2) as usize;
        let k_tiles = tile::tiles(&product.k.sizes, &tile::fill(&product.k.sizes, rows));
        let n_tiles = tile::tiles(&product.n.sizes, &tile::fill(&product.n.sizes, columns));
        // Rows of A that stay on chip while all columns pass: as many as the accumulators and the scratchpad take.
        let a_element = element_bytes(product.a.dtype) as usize;
        let panel_row = product.k.count() * a_element;
        let resident = panel_row * 8 <= scratchpad / 4;
        let m_limit = if resident { (scratchpad / 4 / panel_row.max(1)).clamp(1, half) } else { half.min(rows) };
        let m_tiles = tile::tiles(&product.m.sizes, &tile::fill(&product.m.sizes, m_limit));
        let batches = tile::tiles(&product.batch.sizes, &vec![1; product.batch.sizes.len()]);
        let first_lens = |tiles: &[Tile]| tiles.first().map(|tile| tile.lens.clone()).unwrap_or_default();
        self.tiling = format!(
            "M {:?} K {:?} N {:?} of M {:?} K {:?} N {:?}, {} batches, A {}",
            first_lens(&m_tiles),
            first_lens(&k_tiles),
            first_lens(&n_tiles),
            product.m.sizes,
            product.k.sizes,
            product.n.sizes,
            batches.len(),
            if resident { "resident" } else { "streamed" }
        );

        let widest = |tiles: &[Tile]| tiles.iter().map(Tile::count).max().unwrap_or(1) as u64;
        let a_tile_bytes = widest(&m_tiles) * widest(&k_tiles) * a_element as u64;
        let b_tile_bytes = widest(&k_tiles) * widest(&n_tiles) * element_bytes(product.b.dtype) as u64;
        // Panels alternate between two sets of buffers; streamed tiles of A go round like weights.
        let a_sets = if resident { k_tiles.len() } else { 4 };
        let panels: Vec<Vec<u32>> = (0..if resident && m_tiles.len() * batches.len() > 1 { 2 } else { 1 })
            .map(|_| self.buffers(a_tile_bytes, a_sets))
            .collect();
        let weights = self.buffers(b_tile_bytes, 4);
        let a_zero = self.zero_point(product.a_zero.as_ref());
        let b_zero = self.zero_point(product.b_zero.as_ref());
        let a_order = Order::of(&product.m, &product.k, A);
        let b_order = Order::of(&product.k, &product.n, B);
        let mut buffers = EpilogueBuffers::new(&self.emitter);
        let (mut panel, mut weight, mut streamed, mut bank) = (0, 0, 0, 0);
        let mut loaded: Vec<Option<(u64, Vec<usize>)>> = vec![None; weights.len()];
        for batch in &batches {
            for m in &m_tiles {
                for (n_index, n) in n_tiles.iter().enumerate() {
                    let row = (bank % 2) * half as u32;
                    bank += 1;
                    for (k_index, k) in k_tiles.iter().enumerate() {
                        let set = &panels[panel % panels.len()];
                        let a_address = if resident { set[k_index] } else { set[streamed % set.len()] };
                        if !resident || n_index == 0 {
                            let start =
                                offset(batch, &product.batch, A) + offset(m, &product.m, A) + offset(k, &product.k, A);
                            self.load_matrix(
                                &product.a,
                                start,
                                (m, &product.m),
                                (k, &product.k),
                                A,
                                a_order,
                                a_address,
                            );
                            streamed += 1;
                        }
                        let start =
                            offset(batch, &product.batch, B) + offset(k, &product.k, B) + offset(n, &product.n, B);
                        let slot = weight % weights.len();
                        let b_address = weights[slot];
                        let key = Some((product.b.address(start), [&k.lens[..], &n.lens[..]].concat()));
                        // A single tile of weights that serves every pass is loaded and preloaded once.
                        let same = k_tiles.len() * n_tiles.len() == 1
                            && weight > 0
                            && loaded[(weight - 1) % weights.len()] == key;
                        if !same {
                            self.load_matrix(
                                &product.b,
                                start,
                                (k, &product.k),
                                (n, &product.n),
                                B,
                                b_order,
                                b_address,
                            );
                            let (k_stride, n_stride) = b_order.strides(k.count(), n.count());
                            let element = element_bytes(product.b.dtype);
                            self.emitter.emit(Operation::Preload(Preload {
                                address: b_address,
                                dtype: product.b.dtype,
                                k: k.count() as u16,
                                n: n.count() as u16,
                                k_stride: (k_stride * element) as i32,
                                n_stride: (n_stride * element) as i32,
                                zero_point: b_zero,
                            }));
                            loaded[slot] = key;
                            weight += 1;
                        }
                        let (m_stride, k_stride) = a_order.strides(m.count(), k.count());
                        self.emitter.emit(Operation::Multiply(Multiply {
                            address: a_address,
                            dtype: product.a.dtype,
                            m: m.count() as u32,
                            m_stride: (m_stride * a_element as i64) as i32,
                            k_stride: (k_stride * a_element as i64) as i32,
                            zero_point: a_zero,
                            accumulator_row: row,
                            accumulate: k_index > 0,
                            switch_weights: !same,
                        }));
                    }
                    let accumulators = self.accumulator_tile(anchor, row, m, n);
                    self.epilogue(kernel, anchor, product, (batch, m, n), &accumulators, &mut buffers)?;
                }
                panel += 1;
            }
        }
        Ok(())
    }

    /// Loads a zero point and returns where it lies on chip.
    fn zero_point(&mut self, zero: Option<&DramOperand>) -> Option<u32> {
        let zero = zero?;
        let chip = self.emitter.allocate(element_bytes(zero.dtype) as u64);
        self.move_tile(false, zero.address(0), zero.dtype, &[1], &[1], chip, &[1]);
        Some(chip)
    }

    #[expect(clippy::too_many_arguments, reason = "a matrix has two spaces, each with its tile")]
    fn load_matrix(
        &mut self,
        operand: &DramOperand,
        start: i64,
        (outer, outer_space): (&Tile, &Space),
        (inner, inner_space): (&Tile, &Space),
        which: usize,
        order: Order,
        chip: u32,
    ) {
        let dense = |lens: &[usize], unit: i64| -> Vec<i64> {
            tile::dense_strides(lens, |_| true).into_iter().map(|stride| stride * unit).collect()
        };
        let (outer_unit, inner_unit) = order.strides(outer.count(), inner.count());
        let lens = |first: &Tile, second: &Tile| [&first.lens[..], &second.lens[..]].concat();
        let (o, i) = (&outer_space.strides[which], &inner_space.strides[which]);
        let (o_chip, i_chip) = (dense(&outer.lens, outer_unit), dense(&inner.lens, inner_unit));
        let (lens, dram, chip_strides) = match order {
            Order::RowMajor => (lens(outer, inner), [&o[..], &i[..]].concat(), [o_chip, i_chip].concat()),
            Order::ColumnMajor => (lens(inner, outer), [&i[..], &o[..]].concat(), [i_chip, o_chip].concat()),
        };
        self.move_tile(false, operand.address(start), operand.dtype, &lens, &dram, chip, &chip_strides);
    }

    /// Element-wise work on a tile of the result, and its way to DRAM, a few rows at a time.
    fn epilogue(
        &mut self,
        kernel: &Kernel,
        anchor: NodeId,
        product: &Product,
        (batch, m, n): (&Tile, &Tile, &Tile),
        accumulators: &ChipOperand,
        buffers: &mut EpilogueBuffers,
    ) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let product_value = graph.node(anchor).output();
        // The results of each node, and the product itself where others want it.
        let mut own: Vec<ValueId> = kernel.epilogue.iter().map(|&id| graph.node(id).output()).collect();
        if kernel.outputs.contains(&product_value) {
            own.insert(0, product_value);
        }
        // Two buffers of every value must find place beside those of the product itself.
        let stored = |value: ValueId| element_bytes(storage(graph.ty(value).dtype)) as usize;
        let values = own.iter().copied().chain(product.externals.iter().map(|(value, ..)| *value));
        let element = 2 * values.map(stored).sum::<usize>();
        let most = self.squeezed((buffers.room as usize / element.max(1)).min(EPILOGUE_ELEMENTS));
        let rows = (most / n.count().max(1)).max(1);
        for part in tile::tiles(&m.lens, &tile::fill(&m.lens, rows)) {
            let lens: Vec<usize> = part.lens.iter().chain(&n.lens).copied().collect();
            let turn = buffers.turn();
            let m_dims = part.lens.len();
            let rows_at = accumulators.strides[..m_dims].to_vec();
            let start = part.offset(&rows_at);
            let tile_of_product = ChipOperand {
                address: accumulators.address + (start * 4) as u32,
                strides: accumulators.strides.clone(),
                ..accumulators.clone()
            };
            let dram_strides = |which: usize| -> Vec<i64> {
                product.m.strides[which].iter().chain(&product.n.strides[which]).copied().collect()
            };
            let dram_offset = |which: usize| -> i64 {
                offset(batch, &product.batch, which)
                    + offset(m, &product.m, which)
                    + offset(n, &product.n, which)
                    + part.offset(&product.m.strides[which])
            };
            let mut chip: Vec<(ValueId, ChipOperand)> = vec![(product_value, tile_of_product.clone())];
            for (value, operand, which) in &product.externals {
                let strides = dram_strides(*which);
                let chip_strides = tile::dense_strides(&lens, |dim| strides[dim] != 0);
                let count: usize = (0..lens.len()).filter(|&dim| strides[dim] != 0).map(|dim| lens[dim]).product();
                let bytes = count as u64 * element_bytes(operand.dtype) as u64;
                let address = buffers.take(self, *value, turn, bytes);
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
                let dtype = storage(graph.ty(value).dtype);
                let bytes = lens.iter().product::<usize>() as u64 * element_bytes(dtype) as u64;
                let address = buffers.take(self, value, turn, bytes);
                let destination = ChipOperand { memory: Memory::Scratchpad, address, dtype, strides: dense.clone() };
                if value == product_value {
                    self.map(MapFn::Copy, &lens, &destination, &[ChipSource::Chip(&tile_of_product)]);
                } else if let Some(id) = graph.producer(value) {
                    let node = graph.node(id);
                    let sources: Vec<ChipSource<'_>> = node
                        .inputs
                        .iter()
                        .filter_map(|&input| {
                            let known = chip.iter().rev().find(|(known, _)| *known == input);
                            known
                                .map(|(_, operand)| ChipSource::Chip(operand))
                                .or_else(|| self.immediate(input).map(ChipSource::Immediate))
                        })
                        .collect();
                    let function = map_function(&node.op).filter(|_| sources.len() == node.inputs.len());
                    let Some(function) = function else {
                        return Err(self.defect(kernel, "has an epilogue that is not element-wise"));
                    };
                    self.map(function, &lens, &destination, &sources);
                }
                chip.push((value, destination.clone()));
                if kernel.outputs.contains(&value) {
                    let result = self.result(value)?;
                    let dram = result.address(dram_offset(product.result));
                    let strides = dram_strides(product.result);
                    self.move_tile(true, dram, dtype, &lens, &strides, address, &dense);
                }
            }
        }
        Ok(())
    }

    /// A product of types that the array does not take, as sums of products in the vector unit.
    fn vector_product(&mut self, kernel: &Kernel, anchor: NodeId, product: &Product) -> Result<(), TargetError> {
        if product.a_zero.is_some() || product.b_zero.is_some() {
            return Err(self.defect(kernel, "has zero points that should have been subtracted before"));
        }
        let graph = &self.plan.graph;
        let dtype = graph.ty(graph.node(anchor).output()).dtype;
        let k = product.k.count();
        let element = element_bytes(product.a.dtype).max(element_bytes(dtype)) as usize;
        let budget = self.squeezed(self.machine.scratchpad.bytes as usize / 8);
        let k_lens = tile::fill(&product.k.sizes, (budget / element / 64).max(1));
        let k_tiles = tile::tiles(&product.k.sizes, &k_lens);
        let k_len = k_lens.iter().product::<usize>();
        let m_lens = tile::fill(&product.m.sizes, (budget / element / k_len).clamp(1, 64));
        let n_lens = tile::fill(&product.n.sizes, (budget / element / k_len).clamp(1, 64));
        self.tiling = format!("vector unit, M {m_lens:?} K {k_lens:?} N {n_lens:?} of K {k}");
        let (m_count, n_count) = (m_lens.iter().product::<usize>(), n_lens.iter().product::<usize>());
        let a_buffers = self.buffers((m_count * k_len * element) as u64, 2);
        let b_buffers = self.buffers((n_count * k_len * element) as u64, 2);
        let sums = self.buffers((m_count * n_count * element) as u64, 2);
        let mut buffers = EpilogueBuffers::new(&self.emitter);
        let mut turn = 0;
        let mut bank = 0;
        for batch in tile::tiles(&product.batch.sizes, &vec![1; product.batch.sizes.len()]) {
            for m in tile::tiles(&product.m.sizes, &m_lens) {
                for n in tile::tiles(&product.n.sizes, &n_lens) {
                    let sum = ChipOperand {
                        memory: Memory::Scratchpad,
                        address: sums[bank % 2],
                        dtype: storage(dtype),
                        strides: tile::dense_strides(&[&m.lens[..], &n.lens[..]].concat(), |_| true),
                    };
                    bank += 1;
                    for (k_index, k) in k_tiles.iter().enumerate() {
                        let (a_chip, b_chip) = (a_buffers[turn % 2], b_buffers[turn % 2]);
                        turn += 1;
                        let start =
                            offset(&batch, &product.batch, A) + offset(&m, &product.m, A) + offset(k, &product.k, A);
                        self.load_matrix(
                            &product.a,
                            start,
                            (&m, &product.m),
                            (k, &product.k),
                            A,
                            Order::RowMajor,
                            a_chip,
                        );
                        let start =
                            offset(&batch, &product.batch, B) + offset(k, &product.k, B) + offset(&n, &product.n, B);
                        self.load_matrix(
                            &product.b,
                            start,
                            (k, &product.k),
                            (&n, &product.n),
                            B,
                            Order::ColumnMajor,
                            b_chip,
                        );
                        let (mc, nc, kc) = (m.count(), n.count(), k.count());
                        let walk = |address: u32, dtype: DType, strides: [i64; 3]| ChipOperand {
                            memory: Memory::Scratchpad,
                            address,
                            dtype,
                            strides: strides.to_vec(),
                        };
                        let a = walk(a_chip, product.a.dtype, [kc as i64, 0, 1]);
                        let b = walk(b_chip, product.b.dtype, [0, kc as i64, 1]);
                        let to = walk(sum.address, sum.dtype, [nc as i64, 1, 0]);
                        self.emitter.emit(Operation::Fold(Fold {
                            function: FoldFn::Dot,
                            dims: [mc as u32, nc as u32, kc as u32].into_iter().collect(),
                            reduced: 1,
                            accumulate: k_index > 0,
                            destination: to.walk(&to.strides, 0),
                            sources: [Source::Walk(a.walk(&a.strides, 0)), Source::Walk(b.walk(&b.strides, 0))]
                                .into_iter()
                                .collect(),
                        }));
                    }
                    self.epilogue(kernel, anchor, product, (&batch, &m, &n), &sum, &mut buffers)?;
                }
            }
        }
        Ok(())
    }
}

/// How a tile of a matrix lies in the scratchpad: the way that follows its contiguous dimension in DRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    RowMajor,
    ColumnMajor,
}

impl Order {
    fn of(rows: &Space, columns: &Space, which: usize) -> Order {
        let innermost = |space: &Space| space.strides[which].last().map_or(i64::MAX, |stride| stride.abs());
        if innermost(columns) <= innermost(rows) { Order::RowMajor } else { Order::ColumnMajor }
    }

    /// Distances between rows and between columns of a dense tile, in elements.
    fn strides(self, rows: usize, columns: usize) -> (i64, i64) {
        match self {
            Order::RowMajor => (columns as i64, 1),
            Order::ColumnMajor => (1, rows as i64),
        }
    }
}

/// Buffers of the epilogue, allocated when first needed and then taken in turn.
struct EpilogueBuffers {
    /// Bytes that all buffers together may take.
    room: u64,
    known: Vec<(ValueId, usize, u32, u64)>,
    loaded: Vec<(ValueId, usize, u64, Vec<usize>)>,
    count: usize,
}

impl EpilogueBuffers {
    /// Half of the scratchpad that is left: the rest goes for whole pages and the gap at the end of the scratchpad.
    fn new(emitter: &Emitter<'_>) -> Self {
        EpilogueBuffers { room: emitter.room() / 2, known: Vec::new(), loaded: Vec::new(), count: 0 }
    }

    fn turn(&mut self) -> usize {
        self.count += 1;
        self.count % 2
    }

    fn take(&mut self, lowering: &mut Lowering<'_, '_>, value: ValueId, turn: usize, bytes: u64) -> u32 {
        let known = self.known.iter().find(|(known, at, _, size)| (*known, *at) == (value, turn) && *size >= bytes);
        if let Some(&(_, _, address, _)) = known {
            return address;
        }
        let address = lowering.emitter.allocate(bytes);
        self.known.retain(|(known, at, _, _)| (*known, *at) != (value, turn));
        self.loaded.retain(|(known, at, _, _)| (*known, *at) != (value, turn));
        self.known.push((value, turn, address, bytes));
        address
    }

    /// Whether a buffer does not hold this part of DRAM yet; it will from now on.
    fn is_new(&mut self, value: ValueId, turn: usize, dram: u64, lens: &[usize]) -> bool {
        if self.loaded.iter().any(|(known, at, from, of)| (*known, *at, *from) == (value, turn, dram) && of == lens) {
            return false;
        }
        self.loaded.retain(|(known, at, _, _)| (*known, *at) != (value, turn));
        self.loaded.push((value, turn, dram, lens.to_vec()));
        true
    }
}

/// Whether the array multiplies these types.
pub(in crate::systolic) fn on_array(a: DType, b: DType) -> bool {
    let float = |dtype: DType| dtype.is_float() && dtype != DType::F64;
    let narrow = |dtype: DType| matches!(dtype, DType::I8 | DType::U8 | DType::I4 | DType::U4);
    (float(a) && float(b)) || (narrow(a) && narrow(b))
}

fn offset(tile: &Tile, space: &Space, which: usize) -> i64 {
    tile.offset(&space.strides[which])
}

/// Refines the four spaces for A, B, the results and the externals. On failure, which of `operands` is in the way.
fn refine(
    operands: &[&DramOperand],
    op: &MatMul,
    batch: &Shape,
    [m, n, k]: [usize; 3],
    result: &Shape,
) -> Result<[Space; 4], usize> {
    let failed = |which: usize| move || which;
    let rank = batch.rank();
    // The parts of each operand's view: batch, rows, columns.
    let part = |view: &View, lead: &Shape, rows: usize, columns: usize| -> Option<[View; 3]> {
        let mut dims = lead.to_vec();
        dims.extend([rows, columns]);
        let wide = view.broadcast(&Shape::new(dims).ok()?)?;
        let groups = wide.groups()?;
        let sub =
            |shape: Shape, groups: &[SmallVec<[Atom; 2]>]| View::from_atoms(shape, groups.iter().flatten().copied());
        Some([
            sub(lead.clone(), &groups[..rank]),
            sub(Shape::vector(rows), &groups[rank..=rank]),
            sub(Shape::vector(columns), &groups[rank + 1..]),
        ])
    };
    let (a_rows, a_columns) = if op.transpose_a { (k, m) } else { (m, k) };
    let (b_rows, b_columns) = if op.transpose_b { (n, k) } else { (k, n) };
    let [a_batch, a0, a1] = part(&operands[A].view, batch, a_rows, a_columns).ok_or_else(failed(A))?;
    let [b_batch, b0, b1] = part(&operands[B].view, batch, b_rows, b_columns).ok_or_else(failed(B))?;
    let (a_m, a_k) = if op.transpose_a { (a1, a0) } else { (a0, a1) };
    let (b_k, b_n) = if op.transpose_b { (b1, b0) } else { (b0, b1) };
    let dense = View::dense(result.clone());
    let mut outs = vec![part(&dense, batch, m, n).ok_or_else(failed(A))?];
    for (index, operand) in operands[2..].iter().enumerate() {
        let wide = operand.view.broadcast(result).ok_or_else(failed(index + 2))?;
        outs.push(part(&wide, batch, m, n).ok_or_else(failed(index + 2))?);
    }
    // Views are added one by one, so that the first that does not interleave is known.
    let space = |shape: &Shape, a: Option<&View>, b: Option<&View>, outs: Vec<&View>| -> Result<Space, usize> {
        let mut views: Vec<&View> = Vec::new();
        let mut order = Vec::new();
        let named = [(A, a), (B, b)].into_iter().filter_map(|(which, view)| view.map(|view| (which, view)));
        let rest = outs.into_iter().enumerate().map(|(index, view)| (RESULT + index, view));
        for (which, view) in named.chain(rest) {
            views.push(view);
            order.push(which);
            if Nest::refine(shape, &views).is_none() {
                // Results are dense and stay; an operand that conflicts with them is the one to copy.
                return Err(if which > RESULT { which - 1 } else { which.min(B) });
            }
        }
        let nest = Nest::refine(shape, &views).ok_or(A)?;
        let mut strides = vec![vec![0; nest.sizes.len()]; RESULT + operands.len() - 1];
        for (which, walked) in order.into_iter().zip(nest.strides) {
            strides[which] = walked;
        }
        Ok(Space { sizes: nest.sizes, strides })
    };
    let outs_of = |which: usize| outs.iter().map(|parts| &parts[which]).collect::<Vec<_>>();
    Ok([
        space(batch, Some(&a_batch), Some(&b_batch), outs_of(0))?,
        space(&Shape::vector(m), Some(&a_m), None, outs_of(1))?,
        space(&Shape::vector(n), None, Some(&b_n), outs_of(2))?,
        space(&Shape::vector(k), Some(&a_k), Some(&b_k), Vec::new())?,
    ])
}
