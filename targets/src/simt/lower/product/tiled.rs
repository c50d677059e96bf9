//! Products in tiles: a block computes a tile of the result, from panels that it holds in shared memory while the next are on
//! their way.

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, ValueId};

use super::panel::{Corner, Panel, vector_of};
use super::{Product, misfit, zero};
use crate::kernel::{BufferId, Builder, ExprId, Factor, IndexFn, Scalar, Spread, Stmt, VarId};
use crate::lower::elements::{Coords, Elements};
use crate::simt::SimtMachine;
use crate::target::TargetError;

/// Bytes by which lines in shared memory are longer than what they hold, so that lanes which read one place of several lines find
/// them in different banks.
const SKEW: u32 = 16;

/// Cycles by reckoning until memory gives a panel, and until the last block knows that it is: about two latencies, and three.
const FIRST_PANEL: f64 = 800.0;
const LAST_BLOCK: f64 = 1200.0;

/// Steps along the depth that a block makes at least where several share it.
const LEAST_STEPS: usize = 4;

/// How much longer than the best a tiling may take by reckoning, and how many there may be, to be simulated.
const WORTH_A_LOOK: f64 = 1.5;
const CANDIDATES: usize = 8;
const SPLIT_CANDIDATES: usize = 4;

/// How the tiles of a product are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simt::lower) struct Tiling {
    /// Rows, columns and depth of what a block multiplies at a time.
    block: [u32; 3],
    /// Rows and columns that a warp, or a thread if there are no matrix units, computes.
    part: [u32; 2],
    /// Whether matrix units multiply.
    matrix_units: bool,
    /// What factors are multiplied as.
    dtype: DType,
    /// What the second is, if they are bytes, which may have signs or not.
    dtype_b: DType,
    warp: u32,
    /// Panels on their way.
    stages: u32,
    /// Rows of tiles that are computed together.
    group: u32,
    /// Blocks that share the depth of a tile; the last of them adds up what all have.
    splits: u32,
}

impl Tiling {
    /// Ways to tile a product of factors of two types that are worth a look, the most promising first.
    pub fn all(product: &Product, [a, b]: [DType; 2], machine: &SimtMachine) -> Vec<Tiling> {
        let bytes = |dtype: DType| matches!(dtype, DType::I8 | DType::U8);
        let widened = |dtype: DType| match dtype {
            DType::I4 => DType::I8,
            DType::U4 => DType::U8,
            other => other,
        };
        let (a, b) = (widened(a), widened(b));
        let unit = machine.tensor.as_ref().is_some_and(|unit| match a {
            DType::F16 | DType::BF16 => unit.half_macs > 0,
            DType::F32 => unit.tf32_macs > 0,
            _ => unit.byte_macs > 0 && bytes(a) && bytes(b),
        });
        let matrix_units = unit && matches!(machine.warp, 32 | 64);
        let (dtype, dtype_b) = match (matrix_units, a.is_float()) {
            (true, _) => (a, b),
            (false, true) => (DType::F32, DType::F32),
            (false, false) => (DType::I32, DType::I32),
        };
        // Bytes of a line of a panel, and how many are on their way.
        let depths: &[(u32, u32)] = if matrix_units { &[(64, 4), (128, 3), (128, 2), (128, 6)] } else { &[(64, 4)] };
        let blocks: &[([u32; 2], [u32; 2])] = match matrix_units {
            true => &[
                ([128, 256], [64, 64]),
                ([256, 128], [64, 64]),
                ([128, 128], [64, 64]),
                ([128, 128], [64, 32]),
                ([64, 256], [64, 64]),
                ([128, 64], [64, 32]),
                ([64, 128], [32, 64]),
                ([64, 128], [32, 32]),
                ([64, 64], [32, 32]),
                ([64, 64], [32, 16]),
                ([32, 128], [32, 32]),
                ([32, 64], [16, 32]),
                ([32, 32], [16, 16]),
            ],
            false => &[([64, 64], [4, 4]), ([32, 32], [2, 2]), ([16, 16], [1, 1])],
        };
        let with = |&([rows, columns], part): &([u32; 2], [u32; 2]), (line, stages): (u32, u32)| {
            let block = [rows, columns, line / (dtype.bits() as u32 / 8)];
            let tiling =
                Tiling { block, part, matrix_units, dtype, dtype_b, warp: machine.warp, stages, group: 1, splits: 1 };
            Tiling { group: tiling.grouped(product, machine), ..tiling }
        };
        // Fragments of 32 bits take twice the registers: beside sums of 64 × 64 they would not fit.
        let holds = |(_, [rows, columns]): &&([u32; 2], [u32; 2])| dtype != DType::F32 || rows * columns <= 64 * 32;
        let all = blocks.iter().filter(holds).flat_map(|block| depths.iter().map(move |&depth| with(block, depth)));
        let all = all.flat_map(|tiling| tiling.split(product, machine));
        let fits = |tiling: &Tiling| {
            tiling.shared_bytes(tiling.stages) <= machine.shared.block_bytes
                && tiling.threads() <= machine.block_threads
        };
        let all: Vec<(f64, Tiling)> =
            all.filter(fits).map(|tiling| (tiling.reckoned(product, machine), tiling)).collect();
        let promising = |is_split: bool, most: usize| {
            let mut own: Vec<(f64, Tiling)> =
                all.iter().copied().filter(|(_, tiling)| (tiling.splits > 1) == is_split).collect();
            own.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let least = own.first().map_or(0.0, |&(least, _)| least);
            own.into_iter().filter(move |&(cycles, _)| cycles <= WORTH_A_LOOK * least).take(most)
        };
        let most = if matrix_units { CANDIDATES } else { 1 };
        let all: Vec<Tiling> =
            promising(false, most).chain(promising(true, SPLIT_CANDIDATES)).map(|(_, tiling)| tiling).collect();
        if all.is_empty() { vec![with(&([16, 16], [1, 1]), (64, 1))] } else { all }
    }

    /// The tiling as it is, and with its depth shared out where there are too few tiles for all multiprocessors.
    fn split(self, product: &Product, machine: &SimtMachine) -> Vec<Tiling> {
        let [rows, columns, depth] = self.block.map(|size| size as usize);
        let tiles = product.m.div_ceil(rows) * product.n.div_ceil(columns);
        let steps = product.k.div_ceil(depth);
        let splits = |&splits: &u32| {
            steps.is_multiple_of(splits as usize)
                && steps / splits as usize >= LEAST_STEPS
                && tiles * splits as usize <= 2 * machine.multiprocessors as usize
        };
        let may = self.matrix_units && product.batch.count() == 1;
        let more = [2, 3, 4, 6, 8, 12, 16].into_iter().filter(|_| may).filter(splits);
        let more = more.map(|splits| Tiling { splits, group: 1, ..self });
        [self].into_iter().chain(more).collect()
    }

    /// Rows of tiles whose blocks come one after the other, column by column, so that blocks that run at a time read as little as
    /// they can: as many as make what runs at a time about square, if they divide the rows of tiles.
    fn grouped(&self, product: &Product, machine: &SimtMachine) -> u32 {
        let [rows, columns, _] = self.block;
        let tiles = product.m.div_ceil(rows as usize) as u32;
        if product.batch.count() != 1 {
            return 1;
        }
        let resident = (machine.shared.bytes / self.shared_bytes(self.stages).max(1)).clamp(1, 2) as u32;
        let side = (f64::from(machine.multiprocessors * resident) * f64::from(columns) / f64::from(rows)).sqrt();
        (1..=tiles).filter(|group| tiles.is_multiple_of(*group) && f64::from(*group) <= side * 1.25).max().unwrap_or(1)
    }

    /// Cycles by reckoning: waves of blocks, each limited by multiplying or by reading panels.
    fn reckoned(&self, product: &Product, machine: &SimtMachine) -> f64 {
        let [rows, columns, depth] = self.block.map(f64::from);
        let tiles =
            (product.m as f64 / rows).ceil() * (product.n as f64 / columns).ceil() * product.batch.count() as f64;
        let units = f64::from(machine.multiprocessors);
        let rate = match (self.matrix_units, &machine.tensor) {
            (true, Some(unit)) => f64::from(unit.macs(self.dtype)),
            _ => machine.pipes.f32.lanes,
        };
        // What reuse there is in registers decides how much shared memory is read for each product.
        let reads =
            (f64::from(self.part[0]) + f64::from(self.part[1])) / (f64::from(self.part[0]) * f64::from(self.part[1]));
        let bytes = rows * columns * depth * reads * self.dtype.bits() as f64 / 8.0;
        let shared = bytes / f64::from(4 * machine.shared.banks) * if self.matrix_units { 1.0 } else { 0.5 };
        let panel = (rows + columns) * depth * self.dtype.bits() as f64 / 8.0;
        let tiles = tiles * f64::from(self.splits);
        let busy = units.min(tiles);
        let fetched = panel / (machine.l2.bytes_per_cycle / busy);
        let step = (rows * columns * depth / rate).max(shared).max(fetched);
        let waves = (tiles / units).ceil();
        // What is left undone until a block has its first panel, and until the last has written what all leave, and read it.
        let left = rows * columns * 4.0 * f64::from(self.splits + 1) / (machine.l2.bytes_per_cycle / busy);
        let idle = FIRST_PANEL + if self.splits > 1 { LAST_BLOCK + left } else { 0.0 };
        // A step takes no less than it takes to get a panel, divided by how many are on their way, of about two blocks.
        let step = step.max(FIRST_PANEL / 2.0 / f64::from(self.stages.saturating_sub(1).max(1)));
        waves * ((product.k as f64 / depth).ceil() / f64::from(self.splits) * step + idle)
    }

    fn pitches(&self) -> [u32; 2] {
        let skew = |dtype: DType| SKEW / (dtype.bits() as u32 / 8);
        [self.block[2] + skew(self.dtype), self.block[2] + skew(self.dtype_b)]
    }

    /// Bytes of shared memory at the most, with so many stages.
    fn shared_bytes(&self, stages: u32) -> u64 {
        let [rows, columns, _] = self.block;
        let [a, b] = self.pitches();
        // By rows, B has at most the skew of each of its rows more.
        let elements = rows * a + columns * b + self.block[2] * SKEW;
        u64::from(stages * elements) * (self.dtype.bits() / 8).max(self.dtype_b.bits() / 8) as u64
    }

    /// Sums of a thread.
    fn sums(&self) -> u32 {
        self.part[0] * self.part[1] / if self.matrix_units { self.warp } else { 1 }
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        let parts = self.block[0] / self.part[0] * (self.block[1] / self.part[1]);
        if self.matrix_units { parts * self.warp } else { parts }
    }
}

/// Writes the kernel.
pub(super) fn tiled(
    elements: &mut Elements<'_>,
    product: &Product,
    tiling: &Tiling,
    outputs: &[ValueId],
    machine: &SimtMachine,
) -> Result<([u32; 3], String), TargetError> {
    let Product { m, n, k, .. } = *product;
    let [rows, columns, depth] = tiling.block;
    let (a, b) = panels(elements, product, tiling);
    let splits = tiling.splits;
    let steps = k.div_ceil(depth as usize) as u32 / splits;
    // Panels are on their way while others are multiplied if both are copied.
    let streams = a.vector.is_some() && b.vector.is_some() && steps > 1;
    let bytes = |panel: &Panel| u64::from(panel.elements()) * panel.dtype.bits() as u64 / 8;
    let room = machine.shared.block_bytes / (bytes(&a) + bytes(&b)).max(1);
    let stages = if streams { steps.min(tiling.stages).min(room as u32).max(1) } else { 1 };
    if room == 0 {
        return Err(misfit());
    }
    let a_shared = elements.builder.shared("panel_a", a.dtype, stages * a.elements());
    let b_shared = elements.builder.shared("panel_b", b.dtype, stages * b.elements());
    let block = [0, 1, 2].map(|axis| elements.builder.block(axis));
    let zero_index = elements.builder.integer(0);
    let lead = if product.batch.count() == 1 {
        Coords::from_elem(zero_index, product.batch.rank())
    } else {
        elements.coords_of(&product.batch.clone(), block[2])
    };
    let (tiles_m, tiles_n) = (m.div_ceil(rows as usize), n.div_ceil(columns as usize));
    // Rows of tiles come in groups: along x those of a group, along z the groups.
    let groups = tiles_m / tiling.group as usize;
    let builder = &mut elements.builder;
    let group = if groups > 1 && tiling.group > 1 { block[2] } else { zero_index };
    let (number_m, number_n) = match tiling.group {
        1 => (block[1], block[0]),
        _ => {
            let before = builder.scaled(group, tiling.group as i32);
            (builder.add(before, block[0]), block[1])
        }
    };
    let first = |builder: &mut Builder, number: ExprId, tiles: usize, size: u32, name: &str| match tiles {
        1 => builder.integer(0),
        _ => {
            let first = builder.scaled(number, size as i32);
            builder.keep(name, Scalar::I32, first)
        }
    };
    let first_column = first(builder, number_n, tiles_n, columns, "first_column");
    let first_row = first(builder, number_m, tiles_m, rows, "first_row");
    let core = Core::new(elements, tiling, product);
    let before = if splits > 1 { elements.builder.scaled(block[2], steps as i32) } else { zero_index };
    let load = |elements: &mut Elements<'_>, step: ExprId, stage: ExprId| -> Result<(), TargetError> {
        let step = elements.builder.add(before, step);
        let from = elements.builder.scaled(step, depth as i32);
        let from = elements.builder.keep("from", Scalar::I32, from);
        for (panel, shared, outer) in [(&a, a_shared, first_row), (&b, b_shared, first_column)] {
            let at = elements.builder.scaled(stage, panel.elements() as i32);
            panel.load(elements, product, (shared, at), &lead, Corner { outer, k: from })?;
        }
        Ok(())
    };
    let copies = a.vector.is_some() || b.vector.is_some();
    let end = elements.builder.integer(steps as i32);
    if stages > 1 {
        let ahead = stages - 1;
        for step in 0..ahead {
            let step = elements.builder.integer(step as i32);
            elements.scoped(|elements| load(elements, step, step))?;
            elements.builder.push(Stmt::Commit);
        }
        let step = elements.builder.loop_over("step", zero_index, end, 1);
        elements.open();
        elements.builder.push(Stmt::Await(stages - 2));
        elements.builder.barrier();
        let by = elements.builder.integer(ahead as i32);
        let next = elements.builder.add(step, by);
        let next = elements.builder.keep("next", Scalar::I32, next);
        let more = elements.builder.below(next, steps as i32);
        elements.builder.when(more);
        elements.open();
        let (_, stage) = elements.builder.divided(next, stages as i32);
        load(elements, next, stage)?;
        elements.close();
        elements.builder.push(Stmt::Commit);
        let (_, stage) = elements.builder.divided(step, stages as i32);
        let stage = elements.builder.keep("stage", Scalar::I32, stage);
        core.multiply(elements, tiling, [&a, &b], [a_shared, b_shared], stage);
        elements.close();
    } else {
        let step = elements.builder.loop_over("step", zero_index, end, 1);
        elements.open();
        elements.builder.barrier();
        load(elements, step, zero_index)?;
        if copies {
            elements.builder.push(Stmt::Commit);
            elements.builder.push(Stmt::Await(0));
        }
        elements.builder.barrier();
        core.multiply(elements, tiling, [&a, &b], [a_shared, b_shared], zero_index);
        elements.close();
    }
    if splits > 1 {
        let rows_before = elements.builder.scaled(block[1], tiles_n as i32);
        let tile = elements.builder.add(rows_before, block[0]);
        let (is_last, handed) = core.gather(elements, tiling, (block[2], tile), tiles_m * tiles_n);
        elements.builder.when(is_last);
        elements.open();
        core.add_up(elements, tiling, handed, tile, tiles_m * tiles_n);
    }
    core.store(elements, tiling, product, &lead, [first_row, first_column], outputs)?;
    if splits > 1 {
        elements.close();
    }
    let how = if tiling.matrix_units { "matrix units" } else { "threads" };
    let text = format!(
        "{m} × {n} × {k} in tiles of {rows} × {columns} × {depth}, {how} with {} × {}, {stages} panels on their way",
        tiling.part[0], tiling.part[1]
    );
    let text = if splits > 1 { format!("{text}, {splits} blocks share the depth") } else { text };
    let grid = match tiling.group {
        1 => [tiles_n as u32, tiles_m as u32, product.batch.count() as u32 * splits],
        group => [group, tiles_n as u32, groups as u32],
    };
    Ok((grid, text))
}

/// The panels of both factors.
fn panels(elements: &Elements<'_>, product: &Product, tiling: &Tiling) -> (Panel, Panel) {
    let [rows, columns, depth] = tiling.block;
    let panel = |factor: usize, outer: u32, dtype: DType| {
        let value = product.factors[factor];
        let last = product.sums_along_last(factor);
        let along_k = vector_of(elements, value, dtype, last, depth as usize);
        let across = vector_of(elements, value, dtype, !last, outer as usize);
        // Matrix units take A only row by row; B by rows where elements have 16 bits, or 32, which lanes read one by one.
        let may = factor == 1 && dtype.bits() >= 16;
        let by_rows = may && along_k.is_none() && (across.is_some() || !product.runs_along_k[1]);
        let copied = if by_rows { across } else { along_k };
        let (lines, width) = if by_rows { (depth, outer) } else { (outer, depth) };
        // Rows of B that lanes read one by one are skewed by eight elements.
        let skew = if by_rows && dtype.bits() == 32 { 8 } else { SKEW / (dtype.bits() as u32 / 8) };
        Panel { factor, dtype, lines, width, pitch: width + skew, along_k: !by_rows, vector: copied }
    };
    (panel(0, rows, tiling.dtype), panel(1, columns, tiling.dtype_b))
}

/// What the threads of a block hold of its tile.
struct Core {
    sums: VarId,
    /// The first row and column of a warp's, or a thread's, part.
    row: ExprId,
    column: ExprId,
    lane: ExprId,
    sum: DType,
}

impl Core {
    fn new(elements: &mut Elements<'_>, tiling: &Tiling, product: &Product) -> Core {
        let [_, columns, _] = tiling.block;
        let [part_rows, part_columns] = tiling.part;
        let builder = &mut elements.builder;
        let thread = builder.thread();
        let (worker, lane) = if tiling.matrix_units {
            let (warp, lane) = builder.divided(thread, tiling.warp as i32);
            (warp, builder.keep("lane", Scalar::I32, lane))
        } else {
            (thread, thread)
        };
        let (row, column) = builder.divided(worker, (columns / part_columns) as i32);
        let (row, column) = if tiling.matrix_units {
            (builder.scaled(row, part_rows as i32), builder.scaled(column, part_columns as i32))
        } else {
            (builder.scaled(row, part_rows as i32), column)
        };
        let row = builder.keep("part_row", Scalar::I32, row);
        let column = builder.keep("part_column", Scalar::I32, column);
        let start = zero(builder, product.sum);
        let sums = builder.array("sums", Scalar::of(product.sum), tiling.sums(), start);
        Core { sums, row, column, lane, sum: product.sum }
    }

    /// Multiplies the panels of a stage.
    fn multiply(
        &self,
        elements: &mut Elements<'_>,
        tiling: &Tiling,
        [a, b]: [&Panel; 2],
        shared: [crate::kernel::SharedId; 2],
        stage: ExprId,
    ) {
        let depth = tiling.block[2];
        let builder = &mut elements.builder;
        let a_at = builder.scaled(stage, a.elements() as i32);
        let b_at = builder.scaled(stage, b.elements() as i32);
        let [part_rows, part_columns] = tiling.part;
        if tiling.matrix_units {
            let own = builder.scaled(self.row, a.pitch as i32);
            let a_at = builder.add(a_at, own);
            let own = builder.scaled(self.column, if b.along_k { b.pitch as i32 } else { 1 });
            let b_at = builder.add(b_at, own);
            let factor = |shared, at, pitch| Factor { shared, at, pitch };
            let (a, by_rows) = (factor(shared[0], a_at, a.pitch), !b.along_k);
            builder.multiply(self.sums, [part_rows, part_columns, depth], a, factor(shared[1], b_at, b.pitch), by_rows);
            return;
        }
        let (zero_index, end) = (builder.integer(0), builder.integer(depth as i32));
        let scalar = Scalar::of(self.sum);
        let start = zero(builder, self.sum);
        let kk = builder.loop_over("kk", zero_index, end, 1);
        elements.open();
        let builder = &mut elements.builder;
        let left = builder.array("left", scalar, part_rows, start);
        let i = builder.unrolled("i", part_rows);
        let line = builder.add(self.row, i);
        let at = builder.scaled(line, a.pitch as i32);
        let at = builder.add(at, kk);
        let at = builder.add(a_at, at);
        let element = builder.load_shared(shared[0], at, "x");
        builder.set_element(left, i, element);
        builder.end();
        // Columns of neighbouring threads are neighbours, so that they are written together.
        let apart = tiling.block[1] / part_columns;
        let j = builder.unrolled("j", part_columns);
        let across = builder.scaled(j, apart as i32);
        let column = builder.add(self.column, across);
        let (line, within) = if b.along_k { (column, kk) } else { (kk, column) };
        let at = builder.scaled(line, b.pitch as i32);
        let at = builder.add(at, within);
        let at = builder.add(b_at, at);
        let right = builder.load_shared(shared[1], at, "y");
        let i = builder.unrolled("i", part_rows);
        let first = builder.scaled(i, part_columns as i32);
        let place = builder.add(first, j);
        let (x, so_far) = (builder.element(left, i), builder.element(self.sums, place));
        let next = builder.mul_add(self.sum, x, right, so_far);
        builder.set_element(self.sums, place, next);
        builder.end();
        builder.end();
        elements.close();
    }

    /// Hands the block's sums over, and says whether it is the last of those that share the depth of its tile.
    fn gather(
        &self,
        elements: &mut Elements<'_>,
        tiling: &Tiling,
        (split, tile): (ExprId, ExprId),
        tiles: usize,
    ) -> (ExprId, BufferId) {
        let dtype = super::super::wide_type(self.sum);
        let (threads, held) = (elements.builder.threads(), tiling.sums());
        let all = u64::from(tiling.splits * threads * held) * tiles as u64;
        let buffer = elements.handed("partial_sums", dtype, all);
        let counters = elements.counters(tiles as u64);
        let builder = &mut elements.builder;
        let first = self.shares_at(builder, tiling, (split, tile), tiles);
        let i = builder.unrolled("i", held);
        let distance = builder.scaled(i, threads as i32);
        let at = builder.add(first, distance);
        let value = builder.element(self.sums, i);
        builder.store(buffer, at, value);
        builder.end();
        let told = builder.shared("told", DType::I32, 1);
        (builder.arrive("is_last", counters, 2, told), buffer)
    }

    /// Where the first of this thread's sums lies among those that blocks hand over: threads lie beside each other.
    fn shares_at(
        &self,
        builder: &mut Builder,
        tiling: &Tiling,
        (split, tile): (ExprId, ExprId),
        tiles: usize,
    ) -> ExprId {
        let before = builder.scaled(split, tiles as i32);
        let number = builder.add(before, tile);
        let first = builder.scaled(number, (builder.threads() * tiling.sums()) as i32);
        let thread = builder.thread();
        builder.add(first, thread)
    }

    /// Adds up what blocks have handed over, in their order, whoever came first.
    fn add_up(&self, elements: &mut Elements<'_>, tiling: &Tiling, buffer: BufferId, tile: ExprId, tiles: usize) {
        let builder = &mut elements.builder;
        let threads = builder.threads() as i32;
        let start = zero(builder, self.sum);
        let firsts: Vec<ExprId> = (0..tiling.splits)
            .map(|split| {
                let split = builder.integer(split as i32);
                self.shares_at(builder, tiling, (split, tile), tiles)
            })
            .collect();
        let i = builder.unrolled("i", tiling.sums());
        let distance = builder.scaled(i, threads);
        // All are read before the first two are added.
        let shares: Vec<ExprId> = firsts
            .into_iter()
            .map(|first| {
                let at = builder.add(first, distance);
                builder.load(buffer, at, "share")
            })
            .collect();
        let add = |builder: &mut Builder, a, b| builder.binary(BinaryFn::Add, self.sum, a, b);
        let total = shares.into_iter().reduce(|so_far, share| add(builder, so_far, share)).unwrap_or(start);
        builder.set_element(self.sums, i, total);
        builder.end();
    }

    /// Writes what follows from the sums.
    fn store(
        &self,
        elements: &mut Elements<'_>,
        tiling: &Tiling,
        product: &Product,
        lead: &[ExprId],
        [first_row, first_column]: [ExprId; 2],
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let [_, part_columns] = tiling.part;
        let builder = &mut elements.builder;
        let sum = builder.unrolled("i", tiling.sums());
        elements.open();
        let builder = &mut elements.builder;
        let (row, column) = if tiling.matrix_units {
            let spread = Spread::new(tiling.warp, part_columns).ok_or_else(misfit)?;
            spread.place_in(builder, self.lane, sum)
        } else {
            let (i, j) = builder.divided(sum, part_columns as i32);
            (i, builder.scaled(j, (tiling.block[1] / part_columns) as i32))
        };
        let (row, column) = (builder.add(self.row, row), builder.add(self.column, column));
        let (row, column) = (builder.add(first_row, row), builder.add(first_column, column));
        let (row, column) = (builder.keep("row", Scalar::I32, row), builder.keep("column", Scalar::I32, column));
        let mut inside = builder.integer(1);
        for (index, size, block) in [(row, product.m, tiling.block[0]), (column, product.n, tiling.block[1])] {
            if !size.is_multiple_of(block as usize) {
                let below = builder.below(index, size as i32);
                inside = builder.index(IndexFn::And, inside, below);
            }
        }
        let guarded = builder.known_index(inside).is_none();
        if guarded {
            builder.when(inside);
            elements.open();
        }
        let coords = product.result_coords(elements, lead, row, column);
        let element = elements.builder.element(self.sums, sum);
        elements.hold(product.result, &coords, element);
        for &output in outputs {
            elements.store(output, &coords)?;
        }
        if guarded {
            elements.close();
        }
        elements.close();
        Ok(())
    }
}
