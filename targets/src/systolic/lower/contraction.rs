//! Matrix products, on the array or in the vector unit.
//!
//! A product walks four index spaces: the batch, M, N and K. Each is refined on its own into dimensions along which both
//! operands and everything after them have one stride. A batch dimension along which one operand stays the same joins M
//! or N: weights then serve the whole batch. Weights are streamed, double buffered, past rows of A that stay on chip for
//! all columns; the accumulators are used in parts, two or more, so that the vector unit empties one while the array fills
//! the next. What the vector unit does then is said in `epilogue`.

use tcc_ir::ops::MatMul;
use tcc_ir::{DType, Kernel, NodeId, Op, ValueId};

use super::array_product::Order;
use super::epilogue::{EPILOGUE_ELEMENTS, Epilogue};
use super::rows::{RowPlan, Rows};
use super::slices::Slices;
use super::space::{A, B, Space, offset, refine};
use super::tile::{self, Tile};
use super::{ChipOperand, ChipSource, Home, Lowering, Stored, element_bytes};
use crate::systolic::SystolicMachine;
use crate::systolic::emit::Filler;
use crate::systolic::isa::{Fold, FoldFn, MapFn, Memory, Operation, Source};
use crate::systolic::layout::storage;
use crate::target::TargetError;

/// A product with all its operands, ready to be tiled.
pub(super) struct Product {
    pub a: Stored,
    pub b: Stored,
    pub a_zero: Option<Stored>,
    pub b_zero: Option<Stored>,
    pub batch: Space,
    pub m: Space,
    pub n: Space,
    /// Columns of narrow values.
    narrow: Space,
    pub k: Space,
    /// By place in the spaces' strides: whether columns are narrow.
    is_narrow: Vec<bool>,
    pub slices: Slices,
    /// Values that leave the kernel, where they are written, and their place in the spaces' strides.
    results: Vec<(ValueId, Stored, usize)>,
    /// Operands of the epilogue that lie in DRAM, and their place in the spaces' strides.
    pub externals: Vec<(ValueId, Stored, usize)>,
}

impl Product {
    /// Its M, N and K.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [&self.m, &self.n, &self.k].map(Space::count)
    }

    /// Where a value is written, and its place in the spaces' strides, if it leaves the kernel.
    pub(super) fn result(&self, value: ValueId) -> Option<&(ValueId, Stored, usize)> {
        self.results.iter().find(|(known, ..)| *known == value)
    }

    /// A value that stays on chip after the kernel, with its columns in one piece, so that work on rows can go on from
    /// there; and its place in the spaces' strides.
    pub(super) fn kept_rows(&self, value: ValueId) -> Option<(&Stored, usize)> {
        let (_, stored, which) = self.result(value)?;
        let columns = self.columns(*which);
        let dense = columns.strides[*which] == tile::dense_strides(&columns.sizes, |_| true);
        (matches!(stored.base, Home::Scratchpad(_)) && dense).then_some((stored, *which))
    }

    /// Bytes of the results that go to DRAM.
    pub(super) fn stored_bytes(&self) -> u64 {
        let stored = self.results.iter().filter(|(_, stored, _)| matches!(stored.base, Home::Dram(_)));
        stored.map(|(_, stored, _)| stored.dtype.bytes(stored.view.shape().count()) as u64).sum()
    }

    /// Whether a result goes to DRAM tile by tile as it comes out, even if its rows are kept for more work: each row of a tile
    /// then begins with a burst, so that nothing is moved twice.
    pub(super) fn is_stored_by_tile(&self, value: ValueId, machine: &SystolicMachine) -> bool {
        let Some((_, stored, which)) = self.result(value) else { return false };
        let Home::Dram(_) = stored.base else { return false };
        let element = element_bytes(stored.dtype);
        let burst = i64::from(machine.dram.burst_bytes);
        let whole = |space: &Space| space.strides[*which].iter().all(|stride| stride * element % burst == 0);
        let columns = self.columns(*which);
        whole(&self.m) && columns.strides[*which][..] == [1] && i64::from(machine.array.columns) * element % burst == 0
    }

    /// The columns that an operand or result has.
    pub(super) fn columns(&self, which: usize) -> &Space {
        self.columns_of(self.is_narrow[which])
    }

    /// The columns of all of N, or of narrow values.
    pub(super) fn columns_of(&self, narrow: bool) -> &Space {
        if narrow { &self.narrow } else { &self.n }
    }

    /// Strides along M and its columns of an operand or result.
    pub(super) fn strides(&self, which: usize) -> Vec<i64> {
        self.m.strides[which].iter().chain(&self.columns(which).strides[which]).copied().collect()
    }
}

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
        if self.machine.array.multiplies(product.a.dtype, product.b.dtype) {
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
        let slices =
            Slices::new(graph, anchor, &kernel.epilogue, &kernel.outputs).map_err(|what| self.defect(kernel, what))?;
        let mut values: Vec<ValueId> = Vec::new();
        for &id in &kernel.epilogue {
            for &input in &graph.node(id).inputs {
                let outside = !own.contains(&input) && !slices.is_part(input);
                if outside && !values.contains(&input) && self.immediate(input).is_none() {
                    values.push(input);
                }
            }
        }
        let mut externals = values.iter().map(|&value| self.operand(value)).collect::<Result<Vec<_>, _>>()?;
        let mut results = kernel.outputs.iter().map(|&value| self.result(value)).collect::<Result<Vec<_>, _>>()?;
        let first_external = B + 1 + results.len();
        let narrow_of = |&value: &ValueId| slices.is_narrow(graph.shape(value));
        let is_narrow: Vec<bool> =
            [false; B + 1].into_iter().chain(kernel.outputs.iter().chain(&values).map(narrow_of)).collect();
        // A view whose dimensions cannot be told apart, or that does not interleave with the others, is copied first; a
        // result like that is written elsewhere and copied after the kernel.
        let spaces = loop {
            let all: Vec<&Stored> = [&a, &b].into_iter().chain(&results).chain(&externals).collect();
            let which =
                match refine(&all, op, &dims.batch, [dims.m, dims.n, dims.k], &shape, (slices.narrow(), &is_narrow)) {
                    Ok(spaces) => break spaces,
                    Err(which) if !all[which].view.is_dense() => which,
                    // The culprit is dense already, so one of the others must give way.
                    Err(_) => (0..all.len())
                        .find(|&index| !all[index].view.is_dense())
                        .ok_or_else(|| self.defect(kernel, "has operands that no loop nest walks"))?,
                };
            match which {
                A => a = self.densify(&a)?,
                B => b = self.densify(&b)?,
                which if which < first_external => {
                    let result = &mut results[which - B - 1];
                    *result = self.move_later(result.clone())?;
                }
                which => {
                    let external = &mut externals[which - first_external];
                    *external = self.densify(external)?;
                }
            }
        };
        let [mut batch, mut m, mut n, k, narrow] = spaces;
        batch.give(&mut m, |space, dim| space.strides[B][dim] == 0);
        // Rows that are reduced or cut end where those of the product do.
        let reduces = |&id: &NodeId| matches!(graph.node(id).op, Op::Reduce(_));
        if !kernel.epilogue.iter().any(reduces) && !slices.any() {
            batch.give(&mut n, |space, dim| space.strides[A][dim] == 0);
        }
        let a_zero = a_zero.map(|value| self.operand(value)).transpose()?;
        let b_zero = b_zero.map(|value| self.operand(value)).transpose()?;
        let numbered = |values: Vec<ValueId>, operands: Vec<Stored>, first: usize| {
            let pairs = values.into_iter().zip(operands).enumerate();
            pairs.map(|(index, (value, operand))| (value, operand, first + index)).collect::<Vec<_>>()
        };
        let results = numbered(kernel.outputs.clone(), results, B + 1);
        let externals = numbered(values, externals, first_external);
        Ok(Product { a, b, a_zero, b_zero, batch, m, n, narrow, k, is_narrow, slices, results, externals })
    }

    /// How work on whole rows goes, if the epilogue holds some; `n_tiles` are the tiles of columns.
    pub(super) fn row_plan(
        &self,
        kernel: &Kernel,
        anchor: NodeId,
        product: &Product,
        n_tiles: &[Tile],
    ) -> Result<Option<RowPlan>, TargetError> {
        RowPlan::new(&self.plan.graph, kernel, anchor, &product.slices, n_tiles.len() == 1)
            .map_err(|what| self.defect(kernel, what))
    }

    /// Takes the buffers of the epilogue, after all others.
    pub(super) fn begin_epilogue(
        &mut self,
        kernel: &Kernel,
        product: &Product,
        rows: Option<RowPlan>,
        [m_tiles, n_tiles]: [&[Tile]; 2],
        batches: usize,
    ) -> Result<Epilogue, TargetError> {
        let most = m_tiles.iter().map(Tile::count).max().unwrap_or(1);
        let tiles = [m_tiles.len() * batches, n_tiles.len()];
        let rows: Option<Rows> = rows.map(|plan| self.take_rows(kernel, product, plan, most, tiles)).transpose()?;
        Ok(Epilogue::new(&self.emitter, rows))
    }

    /// A product over an empty K-dimension is zero, and its epilogue goes on from that.
    fn sum_of_nothing(&mut self, kernel: &Kernel, product: &Product) -> Result<(), TargetError> {
        let Some(anchor) = kernel.anchor.node() else { return Ok(()) };
        let columns = self.machine.array.columns as usize;
        let dtype = storage(self.plan.graph.ty(self.plan.graph.node(anchor).output()).dtype);
        let n_tiles = tile::tiles(&product.n.sizes, &tile::fill(&product.n.sizes, columns));
        let plan = self.row_plan(kernel, anchor, product, &n_tiles)?;
        let budget = self.squeezed(self.emitter.capacity() as usize / 4);
        let mut most = self.squeezed(EPILOGUE_ELEMENTS.min(budget / element_bytes(dtype) as usize) / columns).max(1);
        if let Some(plan) = &plan {
            most = most.min(plan.panel_rows(product.n.count(), budget));
        }
        let m_tiles = tile::tiles(&product.m.sizes, &tile::fill(&product.m.sizes, most));
        let batches = tile::tiles(&product.batch.sizes, &vec![1; product.batch.sizes.len()]);
        self.tiling = "no products, zeros".to_owned();
        let widest = |tiles: &[Tile]| tiles.iter().map(Tile::count).max().unwrap_or(1);
        let count = widest(&m_tiles) * widest(&n_tiles);
        let zeros = ChipOperand {
            memory: Memory::Scratchpad,
            address: self.emitter.allocate(Filler::Vector, (count as i64 * element_bytes(dtype)) as u64),
            dtype,
            strides: vec![1],
        };
        let zero = if dtype.is_float() { Source::Float(0.0) } else { Source::Integer(0) };
        self.map(MapFn::Copy, &[count], &zeros, &[ChipSource::Immediate(zero)]);
        let mut epilogue = self.begin_epilogue(kernel, product, plan, [&m_tiles, &n_tiles], batches.len())?;
        for batch in &batches {
            for m in &m_tiles {
                for n in &n_tiles {
                    let strides = tile::dense_strides(&[&m.lens[..], &n.lens[..]].concat(), |_| true);
                    let tile = ChipOperand { strides, ..zeros.clone() };
                    self.epilogue(kernel, anchor, product, (batch, m, n), &tile, &mut epilogue)?;
                }
            }
        }
        self.finish_epilogue(kernel, product, epilogue)
    }

    /// The accumulators that hold a tile of the result, rows densely, columns from the first.
    pub(super) fn accumulator_tile(&self, anchor: NodeId, row: u32, m: &Tile, n: &Tile) -> ChipOperand {
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

    /// A product of types that the array does not take, as sums of products in the vector unit.
    fn vector_product(&mut self, kernel: &Kernel, anchor: NodeId, product: &Product) -> Result<(), TargetError> {
        if product.a_zero.is_some() || product.b_zero.is_some() {
            return Err(self.defect(kernel, "has zero points that should have been subtracted before"));
        }
        let graph = &self.plan.graph;
        let dtype = graph.ty(graph.node(anchor).output()).dtype;
        let k = product.k.count();
        let element = element_bytes(product.a.dtype).max(element_bytes(dtype)) as usize;
        let budget = self.squeezed(self.emitter.capacity() as usize / 8);
        let k_lens = tile::fill(&product.k.sizes, (budget / element / 64).max(1));
        let k_tiles = tile::tiles(&product.k.sizes, &k_lens);
        let k_len = k_lens.iter().product::<usize>();
        let most = (budget / element / k_len).clamp(1, 64);
        let n_lens = tile::fill(&product.n.sizes, most);
        let n_tiles = tile::tiles(&product.n.sizes, &n_lens);
        let plan = self.row_plan(kernel, anchor, product, &n_tiles)?;
        let panel_rows = plan.as_ref().map_or(usize::MAX, |plan| plan.panel_rows(product.n.count(), budget));
        let m_lens = tile::fill(&product.m.sizes, most.min(panel_rows));
        let m_tiles = tile::tiles(&product.m.sizes, &m_lens);
        let batches = tile::tiles(&product.batch.sizes, &vec![1; product.batch.sizes.len()]);
        self.tiling = format!("vector unit, M {m_lens:?} K {k_lens:?} N {n_lens:?} of K {k}");
        let (m_count, n_count) = (m_lens.iter().product::<usize>(), n_lens.iter().product::<usize>());
        let a_buffers = self.buffers(Filler::Load, (m_count * k_len * element) as u64, 2);
        let b_buffers = self.buffers(Filler::Load, (n_count * k_len * element) as u64, 2);
        let sums = self.buffers(Filler::Vector, (m_count * n_count * element) as u64, 2);
        let mut epilogue = self.begin_epilogue(kernel, product, plan, [&m_tiles, &n_tiles], batches.len())?;
        let mut turn = 0;
        let mut bank = 0;
        for batch in &batches {
            for m in &m_tiles {
                for n in &n_tiles {
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
                            offset(batch, &product.batch, A) + offset(m, &product.m, A) + offset(k, &product.k, A);
                        let tiles = [(m, &product.m), (k, &product.k)];
                        self.load_matrix(&product.a, start, tiles, A, Order::RowMajor, a_chip);
                        let start =
                            offset(batch, &product.batch, B) + offset(k, &product.k, B) + offset(n, &product.n, B);
                        let tiles = [(k, &product.k), (n, &product.n)];
                        self.load_matrix(&product.b, start, tiles, B, Order::ColumnMajor, b_chip);
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
                    self.epilogue(kernel, anchor, product, (batch, m, n), &sum, &mut epilogue)?;
                }
            }
        }
        self.finish_epilogue(kernel, product, epilogue)
    }
}
