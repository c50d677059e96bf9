//! What the vector unit does for an attention: from scores to weights, and from sums of values to the result.
//!
//! Weights are not divided by their sum; the result is, which has fewer elements. Rows that see nothing have a maximum of
//! -inf, and the difference of two infinities is the NaN that they shall give. Where they shall give 0, or where a row goes
//! through several steps, the least finite number stands for that maximum: the weights are 0 then, and so is their sum.

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::grid::{COLUMN, Grid, QUERY, Region};
use super::tiling::Step;
use super::{Attend, Mask, Prepared, least};
use crate::systolic::isa::{Fold, FoldFn, MapFn, Memory, Operation, Source};
use crate::systolic::lower::{ChipOperand, ChipSource, Lowering};
use crate::target::TargetError;

/// One of several buffers that are taken in turn.
fn turn(buffers: &[u32], index: usize) -> u32 {
    buffers.get(index % buffers.len().max(1)).copied().unwrap_or(0)
}

impl Lowering<'_, '_> {
    /// From scores to weights.
    pub(super) fn attention_softmax(
        &mut self,
        attend: &Attend,
        step: &Step,
        prepared: &Prepared,
        index: usize,
    ) -> Result<(), TargetError> {
        let grid = &prepared.grid;
        let regions = grid.regions();
        for &region in &regions {
            self.bend_and_mask(attend, grid, region, prepared.mask.as_ref());
        }
        self.hide_by_position(attend, step, grid);

        let buffers = &attend.buffers;
        let maximum = grid.statistic(turn(&buffers.maximum, step.chain));
        let factor = grid.statistic(turn(&buffers.factor, index));
        let lens = grid.statistic_lens();
        if !step.first {
            self.map(MapFn::Copy, &lens, &factor, &[ChipSource::Chip(&maximum)]);
        }
        for (turn, &region) in regions.iter().enumerate() {
            let accumulate = turn > 0 || !step.first;
            self.fold_scores(grid, FoldFn::Max, grid.lens(region), &maximum, &grid.scores(region), accumulate);
        }
        if attend.op.zero_masked_rows || !(step.first && step.last) {
            let sources = [ChipSource::Chip(&maximum), ChipSource::Immediate(least())];
            self.map(MapFn::Binary(BinaryFn::Max), &lens, &maximum, &sources);
        }
        if !step.first {
            let sources = [ChipSource::Chip(&factor), ChipSource::Chip(&maximum)];
            self.map(MapFn::Binary(BinaryFn::Sub), &lens, &factor, &sources);
            self.map(MapFn::Unary(UnaryFn::Exp), &lens, &factor, &[ChipSource::Chip(&factor)]);
        }
        let weights = turn(&buffers.weights, index);
        for &region in &regions {
            let (lens, scores) = (grid.lens(region), grid.scores(region));
            let sources = [ChipSource::Chip(&scores), ChipSource::Chip(&maximum)];
            self.map_scores(grid, MapFn::Binary(BinaryFn::Sub), lens, &scores, &sources);
        }
        for &region in &regions {
            let sources = [ChipSource::Chip(&grid.scores(region))];
            self.map_scores(grid, MapFn::Unary(UnaryFn::Exp), grid.lens(region), &grid.weights(weights, region), &sources);
        }
        if !attend.tiling.ones {
            let sum = grid.statistic(turn(&buffers.sum, step.chain));
            if !step.first {
                let sources = [ChipSource::Chip(&sum), ChipSource::Chip(&factor)];
                self.map(MapFn::Binary(BinaryFn::Mul), &lens, &sum, &sources);
            }
            for (turn, &region) in regions.iter().enumerate() {
                let accumulate = turn > 0 || !step.first;
                self.fold_scores(grid, FoldFn::Sum, grid.lens(region), &sum, &grid.weights(weights, region), accumulate);
            }
        }
        Ok(())
    }

    /// The softcap and the mask. Scores come divided by the softcap, as the queries were.
    fn bend_and_mask(&mut self, attend: &Attend, grid: &Grid, region: Region, mask: Option<&Mask>) {
        let (lens, scores) = (grid.lens(region), grid.scores(region));
        let cap = attend.op.softcap.0;
        if cap != 0.0 {
            self.map_scores(grid, MapFn::Unary(UnaryFn::Tanh), lens, &scores, &[ChipSource::Chip(&scores)]);
            let sources = [ChipSource::Chip(&scores), ChipSource::Immediate(Source::Float(cap))];
            self.map_scores(grid, MapFn::Binary(BinaryFn::Mul), lens, &scores, &sources);
        }
        let masked = || ChipSource::Immediate(Source::Float(f64::NEG_INFINITY));
        match mask {
            None => {}
            Some(Mask::Chip(mask)) => {
                let mask = grid.mask(mask, region);
                if mask.dtype == DType::Bool {
                    let sources = [ChipSource::Chip(&mask), ChipSource::Chip(&scores), masked()];
                    self.map_scores(grid, MapFn::Select, lens, &scores, &sources);
                } else {
                    let sources = [ChipSource::Chip(&scores), ChipSource::Chip(&mask)];
                    self.map_scores(grid, MapFn::Binary(BinaryFn::Add), lens, &scores, &sources);
                }
            }
            Some(Mask::Number(Source::Integer(0))) => self.map_scores(grid, MapFn::Copy, lens, &scores, &[masked()]),
            Some(Mask::Number(Source::Integer(_))) => {}
            Some(Mask::Number(number)) => {
                let sources = [ChipSource::Chip(&scores), ChipSource::Immediate(number.clone())];
                self.map_scores(grid, MapFn::Binary(BinaryFn::Add), lens, &scores, &sources);
            }
        }
    }

    /// Hides keys that come too late, or too early, for a query. Which they are depends on their distance alone, so that
    /// every row reads the same truth values, one place further.
    fn hide_by_position(&mut self, attend: &Attend, step: &Step, grid: &Grid) {
        let (Some(causal), Some(below)) = (attend.op.causal, attend.buffers.below) else { return };
        if causal.checked_add_unsigned(attend.dims.queries as u64).is_none() {
            // Positions that saturate are the same for all queries, and so are the keys that these see.
            return;
        }
        let reach = attend.reach() as i128;
        for tile in 0..grid.tiles {
            let width = grid.width_of(tile);
            // The distance of the tile's first key from the last one that its first query sees, and those farthest off.
            let first = (step.keys.start + tile * grid.width) as i128 - step.queries.start as i128 - i128::from(causal);
            let (low, high) = (first - (step.queries.len() as i128 - 1), first + width as i128 - 1);
            let mut bands = Vec::new();
            if high > 0 {
                bands.push((below, first));
            }
            if let (Some(window), Some(within)) = (attend.op.window, attend.buffers.within)
                && low + i128::from(window) <= 0
            {
                bands.push((within, first + i128::from(window)));
            }
            let region = Region { first: tile, count: 1, width };
            let (lens, scores) = (grid.lens(region), grid.scores(region));
            for (band, distance) in bands {
                let band = ChipOperand {
                    memory: Memory::Scratchpad,
                    // Tiles that hold nothing visible are no part of a step, so that the distance is within reach.
                    address: band + (reach + distance.clamp(-reach, reach)) as u32,
                    dtype: DType::Bool,
                    strides: vec![0, 0, 0, 0, -1, 1],
                };
                let masked = ChipSource::Immediate(Source::Float(f64::NEG_INFINITY));
                self.map_scores(grid, MapFn::Select, lens, &scores, &[ChipSource::Chip(&band), ChipSource::Chip(&scores), masked]);
            }
        }
    }

    /// An element-wise step over scores or results, in pieces: while one piece's results are on their way, the next is at work.
    fn map_scores(
        &mut self,
        grid: &Grid,
        function: MapFn,
        lens: [usize; 6],
        to: &ChipOperand,
        sources: &[ChipSource<'_>],
    ) {
        for piece in 0..grid.pieces() {
            let walks: Vec<Option<ChipOperand>> = sources
                .iter()
                .map(|source| match source {
                    ChipSource::Chip(operand) => Some(grid.piece(operand, lens, piece).0),
                    ChipSource::Immediate(_) => None,
                })
                .collect();
            let sources: Vec<ChipSource<'_>> = sources
                .iter()
                .zip(&walks)
                .map(|(source, walk)| match (source, walk) {
                    (ChipSource::Immediate(number), _) => ChipSource::Immediate(number.clone()),
                    (ChipSource::Chip(operand), None) => ChipSource::Chip(operand),
                    (ChipSource::Chip(_), Some(walk)) => ChipSource::Chip(walk),
                })
                .collect();
            let (to, lens) = grid.piece(to, lens, piece);
            self.map(function, &lens, &to, &sources);
        }
    }

    /// Folds rows of scores or weights.
    fn fold_scores(
        &mut self,
        grid: &Grid,
        function: FoldFn,
        lens: [usize; 6],
        to: &ChipOperand,
        from: &ChipOperand,
        accumulate: bool,
    ) {
        for piece in 0..grid.pieces() {
            let (to, _) = grid.piece(to, lens, piece);
            let (from, lens) = grid.piece(from, lens, piece);
            // Tiles of keys and the keys of each go innermost.
            let order = [0, 1, 3, 4, 2, 5];
            let walk = |operand: &ChipOperand| {
                let strides: Vec<i64> = order.iter().map(|&dim| operand.strides[dim]).collect();
                operand.walk(&strides, 0)
            };
            self.emitter.emit(Operation::Fold(Fold {
                function,
                dims: order.iter().map(|&dim| lens[dim] as u32).collect(),
                reduced: 2,
                accumulate,
                destination: walk(&to),
                sources: [Source::Walk(walk(&from))].into_iter().collect(),
            }));
        }
    }

    /// The result from sums that lie turned. All keys of its rows were seen in this one step.
    fn turned_result(
        &mut self,
        attend: &Attend,
        step: &Step,
        grid: &Grid,
        rows: usize,
        index: usize,
    ) -> Result<(), TargetError> {
        let buffer = turn(&attend.buffers.result, index);
        let features = step.features.len();
        let reciprocal = grid.statistic(turn(&attend.buffers.reciprocal, index));
        let kept = attend.result_in_place(step);
        let whole = match &kept {
            Some(kept) => kept.clone(),
            None => grid.dense(buffer, attend.to.stored.dtype, features, 0),
        };
        for (tile, queries) in grid.turned_tiles(rows).enumerate() {
            let from = |operand: &ChipOperand| operand.part(queries.start as i64 * operand.strides[QUERY]);
            let mut lens = grid.statistic_lens();
            lens[QUERY] = queries.len();
            let reciprocal = from(&reciprocal);
            let sum = grid.turned_result(tile, features);
            self.map(MapFn::Unary(UnaryFn::Recip), &lens, &reciprocal, &[ChipSource::Chip(&sum)]);
            self.hide_nothing(attend, &lens, &sum, &reciprocal);
            lens[COLUMN] = features;
            let sums = grid.turned_result(tile, 0);
            let sources = [ChipSource::Chip(&sums), ChipSource::Chip(&reciprocal)];
            self.map(MapFn::Binary(BinaryFn::Mul), &lens, &from(&whole), &sources);
        }
        if kept.is_some() { Ok(()) } else { self.store_result(attend, step, buffer) }
    }

    /// Makes rows that see nothing 0, where they shall be.
    fn hide_nothing(&mut self, attend: &Attend, lens: &[usize; 6], sum: &ChipOperand, reciprocal: &ChipOperand) {
        let Some(nothing) = attend.buffers.nothing else { return };
        let none = ChipOperand { address: nothing, dtype: DType::Bool, ..reciprocal.clone() };
        let zero = || ChipSource::Immediate(Source::Float(0.0));
        self.map(MapFn::Binary(BinaryFn::Eq), lens, &none, &[ChipSource::Chip(sum), zero()]);
        let sources = [ChipSource::Chip(&none), zero(), ChipSource::Chip(reciprocal)];
        self.map(MapFn::Select, lens, reciprocal, &sources);
    }

    /// From sums of values to the result, once a row has seen all its keys.
    pub(super) fn attention_result(
        &mut self,
        attend: &Attend,
        step: &Step,
        prepared: Option<&Prepared>,
        index: usize,
    ) -> Result<(), TargetError> {
        let to = attend.to.stored.clone();
        let buffer = turn(&attend.buffers.result, index);
        let Some(Prepared { grid, .. }) = prepared else {
            // No key is visible to any of the rows.
            let count = step.units() * step.rows() * step.features.len();
            let number = if attend.op.zero_masked_rows { 0.0 } else { f64::NAN };
            let place = ChipOperand { memory: Memory::Scratchpad, address: buffer, dtype: to.dtype, strides: vec![1] };
            self.map(MapFn::Copy, &[count], &place, &[ChipSource::Immediate(Source::Float(number))]);
            return self.store_result(attend, step, buffer);
        };
        let buffers = &attend.buffers;
        let single = step.first && step.last;
        let pitch = grid.columns;
        let running = |column: usize| grid.dense(turn(&buffers.running, step.chain), DType::F32, pitch, column);
        if !single {
            let factor = grid.statistic(turn(&buffers.factor, index));
            let whole = running(0);
            if !step.first {
                let sources = [ChipSource::Chip(&whole), ChipSource::Chip(&factor)];
                self.map(MapFn::Binary(BinaryFn::Mul), &grid.result_lens(pitch), &whole, &sources);
            }
            for (tile, (first, width)) in grid.column_tiles().enumerate() {
                let (lens, more, sum) = (grid.result_lens(width), grid.result(tile, 0), running(first));
                if step.first {
                    self.map(MapFn::Copy, &lens, &sum, &[ChipSource::Chip(&more)]);
                } else {
                    let sources = [ChipSource::Chip(&sum), ChipSource::Chip(&more)];
                    self.map(MapFn::Binary(BinaryFn::Add), &lens, &sum, &sources);
                }
            }
        }
        if !step.last {
            return Ok(());
        }
        if let Some(rows) = grid.turned {
            return self.turned_result(attend, step, grid, rows, index);
        }
        let features = step.features.len();
        let sum = if !attend.tiling.ones {
            grid.statistic(turn(&buffers.sum, step.chain))
        } else if single {
            grid.result(features / grid.column_width, features % grid.column_width)
        } else {
            running(features)
        };
        let reciprocal = grid.statistic(turn(&buffers.reciprocal, index));
        let lens = grid.statistic_lens();
        self.map(MapFn::Unary(UnaryFn::Recip), &lens, &reciprocal, &[ChipSource::Chip(&sum)]);
        self.hide_nothing(attend, &lens, &sum, &reciprocal);
        let kept = attend.result_in_place(step);
        let result = |column: usize| match &kept {
            Some(kept) => kept.part(column as i64 * kept.strides[kept.strides.len() - 1]),
            None => grid.dense(buffer, to.dtype, features, column),
        };
        if single {
            for (tile, (first, width)) in grid.column_tiles().enumerate() {
                let width = width.min(features.saturating_sub(first));
                if width > 0 {
                    let sources = [ChipSource::Chip(&grid.result(tile, 0)), ChipSource::Chip(&reciprocal)];
                    let lens = grid.result_lens(width);
                    self.map_scores(grid, MapFn::Binary(BinaryFn::Mul), lens, &result(first), &sources);
                }
            }
        } else {
            let sources = [ChipSource::Chip(&running(0)), ChipSource::Chip(&reciprocal)];
            self.map(MapFn::Binary(BinaryFn::Mul), &grid.result_lens(features), &result(0), &sources);
        }
        if kept.is_some() { Ok(()) } else { self.store_result(attend, step, buffer) }
    }
}
