//! From queries and keys of a tile to the weights of its keys.

use smallvec::SmallVec;
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::super::chain::{Arg, Chain, Function, Step as ChainStep};
use super::super::strip::{Columns, Step, striped};
use super::super::work::{Leaf, Target, Work, all_vectors, planes};
use super::super::{Lease, Lowering};
use super::{Heads, Tile};
use crate::lpu::isa::{Accumulation, Number, Row};
use crate::lpu::layout::{Layout, Place};
use crate::lpu::memory::Slices;
use crate::target::TargetError;

/// The least finite number: the maximum of scores none of which counts, so that all exponentials are 0.
const LEAST: f32 = f32::MIN;

/// Below all sums of exponentials one of which is 1.
const BELOW_ALL_SUMS: f32 = 1e-30;

/// A chain that is being written.
#[derive(Default)]
struct Writer {
    chain: Chain,
    leaves: Vec<Leaf>,
}

impl Writer {
    fn leaf(&mut self, leaf: Leaf) -> Arg {
        self.chain.leaves.push(leaf.layout.dtype);
        self.leaves.push(leaf);
        Arg::Leaf(self.leaves.len() - 1)
    }

    fn push(&mut self, function: Function, args: &[Arg], dtype: DType) -> usize {
        self.chain.steps.push(ChainStep { function, args: SmallVec::from_slice(args), dtype });
        self.chain.steps.len() - 1
    }

    fn binary(&mut self, function: BinaryFn, a: Arg, b: Arg) -> Arg {
        Arg::Step(self.push(Function::Binary(function), &[a, b], DType::F32))
    }

    fn unary(&mut self, function: UnaryFn, a: Arg) -> Arg {
        Arg::Step(self.push(Function::Unary(function), &[a], DType::F32))
    }

    /// A step that has an operand as its result.
    fn step(&mut self, arg: Arg, dtype: DType) -> usize {
        match arg {
            Arg::Step(step) => step,
            Arg::Leaf(_) | Arg::Number(_) => self.push(Function::Copy, &[arg], dtype),
        }
    }

    fn work(self, targets: Vec<Target>, first: Vec<bool>) -> Work {
        Work { chain: self.chain, leaves: self.leaves, targets, first }
    }
}

fn float(number: f32) -> Arg {
    Arg::Number(Number::Float(number))
}

/// Vectors `0..count` of rows of one block.
fn rows(layout: &Lease, count: usize) -> Leaf {
    Leaf { layout: layout.clone(), rows: all_vectors(count, 1) }
}

/// A target that takes every vector.
fn all(step: usize, layout: &Lease, count: usize) -> Target {
    Target { step, layout: layout.clone(), rows: all_vectors(count, 1).into_iter().map(Some).collect() }
}

/// A target that takes the last vector of each chunk.
fn last_of_chunks(step: usize, layout: &Lease, count: usize, chunk: usize) -> Target {
    let is_last = |vector: usize| (vector + 1).is_multiple_of(chunk) || vector + 1 == count;
    let rows = (0..count).map(|vector| is_last(vector).then_some(((vector / chunk) as u32, 0)));
    Target { step, layout: layout.clone(), rows: rows.collect() }
}

impl Lowering<'_> {
    /// The weights of the keys for the queries of a tile: for each head and query a row of keys, as they are multiplied.
    pub(super) fn key_weights(&mut self, heads: &Heads, tile: &Tile) -> Result<Lease, TargetError> {
        let (keys, chunk, lanes) = (heads.dims.keys, heads.chunk, self.lanes());
        let chunks = keys.div_ceil(chunk);
        // What meets scores lies elsewhere.
        let mut near = Slices::of(&heads.keys.slices);
        if let Some(mask) = heads.mask {
            near = near.union(Slices::of(&self.mask_rows(heads, tile, mask, 0..keys)?.layout.slices));
        }
        if heads.op.causal.is_some() {
            near = near.union(Slices::of(&self.visible_rows(heads, tile, 0..keys)?.layout.slices));
        }
        let scores = self.allocate(DType::F32, keys, lanes, 1, near)?;
        let avoid = Slices::of(&scores.slices);
        let greatest = self.allocate(DType::F32, chunks, lanes, 1, avoid)?;
        self.scores(heads, tile, &scores, &greatest)?;
        // The greatest of all chunks.
        let mut most = greatest.clone();
        if chunks > 1 || heads.op.zero_masked_rows {
            let mut writer = Writer::default();
            let chunk_rows = writer.leaf(rows(&greatest, chunks));
            let running = writer.push(Function::Accumulate(Accumulation::Max), &[chunk_rows], DType::F32);
            let step = match heads.op.zero_masked_rows {
                true => writer.push(Function::Binary(BinaryFn::Max), &[Arg::Step(running), float(LEAST)], DType::F32),
                false => running,
            };
            most = self.allocate(DType::F32, 1, lanes, 1, avoid.union(Slices::of(&greatest.slices)))?;
            let target = last_of_chunks(step, &most, chunks, chunks);
            self.run_chain(writer.work(vec![target], (0..chunks).map(|row| row == 0).collect()))?;
            self.give_back(&greatest);
        }
        let avoid = avoid.union(Slices::of(&most.slices));
        // Exponentials of what is left, and their sums.
        let exponentials = self.allocate(DType::F16, keys, lanes, 1, avoid)?;
        let avoid = avoid.union(Slices::of(&exponentials.slices));
        let sums = self.allocate(DType::F32, chunks, lanes, 1, avoid)?;
        let mut writer = Writer::default();
        let score = writer.leaf(rows(&scores, keys));
        let bound = writer.leaf(Leaf { layout: most.clone(), rows: vec![(0, 0); keys] });
        let less = writer.binary(BinaryFn::Sub, score, bound);
        let exponential = writer.unary(UnaryFn::Exp, less);
        let step = writer.step(exponential, DType::F16);
        let running = writer.push(Function::Accumulate(Accumulation::Sum), &[exponential], DType::F32);
        let targets = vec![all(step, &exponentials, keys), last_of_chunks(running, &sums, keys, chunk)];
        self.run_chain(writer.work(targets, (0..keys).map(|key| key.is_multiple_of(chunk)).collect()))?;
        self.give_back(&scores);
        self.give_back(&most);
        // What makes each sum one.
        let scale = self.allocate(DType::F32, 1, lanes, 1, Slices::of(&exponentials.slices))?;
        let mut writer = Writer::default();
        let mut total = writer.leaf(rows(&sums, chunks));
        if chunks > 1 {
            total = Arg::Step(writer.push(Function::Accumulate(Accumulation::Sum), &[total], DType::F32));
        }
        if heads.op.zero_masked_rows {
            total = writer.binary(BinaryFn::Max, total, float(BELOW_ALL_SUMS));
        }
        let step = writer.push(Function::Unary(UnaryFn::Recip), &[total], DType::F32);
        let target = last_of_chunks(step, &scale, chunks, chunks);
        self.run_chain(writer.work(vec![target], (0..chunks).map(|row| row == 0).collect()))?;
        self.give_back(&sums);
        let avoid = Slices::of(&exponentials.slices).union(Slices::of(&scale.slices));
        let weights = self.allocate(DType::F16, keys, lanes, 1, avoid)?;
        let mut writer = Writer::default();
        let exponential = writer.leaf(rows(&exponentials, keys));
        let factor = writer.leaf(Leaf { layout: scale.clone(), rows: vec![(0, 0); keys] });
        let step = writer.push(Function::Binary(BinaryFn::Mul), &[exponential, factor], DType::F16);
        self.run_chain(writer.work(vec![all(step, &weights, keys)], vec![true; keys]))?;
        self.give_back(&exponentials);
        self.give_back(&scale);
        let result = self.exchanged(&weights, keys, tile)?;
        self.give_back(&weights);
        Ok(result)
    }

    /// The scores of a tile, a vector for each key, and the greatest of each chunk of keys.
    fn scores(&mut self, heads: &Heads, tile: &Tile, scores: &Lease, greatest: &Lease) -> Result<(), TargetError> {
        let (lanes, depth) = (self.lanes(), heads.dims.depth);
        let starts = tile.heads.iter().map(|&head| heads.lane(head));
        let (low, high) = starts.fold((usize::MAX, 0), |(low, high), start| (low.min(start), high.max(start + depth)));
        let blocks: Vec<usize> = (low / lanes..high.div_ceil(lanes)).collect();
        let columns = blocks.iter().map(|&block| self.query_columns(heads, tile, block));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let width = self.facts.mxm.load_streams as usize;
        let loads: Vec<Vec<Columns>> = columns
            .iter()
            .map(|layout| {
                let firsts = (0..tile.columns()).step_by(width);
                let planes = |row| (0..layout.planes()).map(|plane| striped(layout, (row, 0), plane, width)).collect();
                firsts.map(|first| Columns { first: first as u16, planes: planes(first) }).collect()
            })
            .collect();
        let (_, key_head) = heads.key_head(tile.heads[0]);
        for (index, start) in (0..heads.dims.keys).step_by(heads.chunk).enumerate() {
            let own = start..heads.dims.keys.min(start + heads.chunk);
            let engine = self.free_engine(true)?;
            let mut before = false;
            for (place, (&block, loads)) in blocks.iter().zip(&loads).enumerate() {
                self.load_columns(engine, loads)?;
                // The halves of the lanes in which heads of the tile lie.
                let within = |half: usize| {
                    let (from, to) = (block * lanes + half * lanes / 2, block * lanes + (half + 1) * lanes / 2);
                    tile.heads.iter().any(|&head| heads.lane(head) < to && heads.lane(head) + depth > from)
                };
                let halves: Vec<usize> = (0..2).filter(|&half| within(half)).collect();
                let mut steps = Vec::with_capacity(halves.len() * own.len());
                for (turn, &half) in halves.iter().enumerate() {
                    let complete = place + 1 == blocks.len() && turn + 1 == halves.len();
                    steps.extend(own.clone().map(|key| Step {
                        planes: planes(&heads.keys, heads.k.at(key_head, key).0 as u32, block as u32),
                        row: Row::Halves(half as u8),
                        sums: ((key - start) as u16, before || turn > 0),
                        complete,
                    }));
                }
                before = true;
                if place + 1 < blocks.len() {
                    self.multiply_strip(engine, &steps)?;
                    continue;
                }
                let (work, leaf) = self.score_work(heads, tile, (own.clone(), index), scores, greatest)?;
                self.multiply_into(engine, &steps, &work, leaf)?;
            }
        }
        columns.iter().for_each(|layout| self.give_back(layout));
        Ok(())
    }

    /// What becomes of sums: they are capped and masked, and stored, and so is the greatest of them.
    fn score_work(
        &mut self,
        heads: &Heads,
        tile: &Tile,
        (keys, index): (std::ops::Range<usize>, usize),
        scores: &Lease,
        greatest: &Lease,
    ) -> Result<(Work, usize), TargetError> {
        let (lanes, count) = (self.lanes(), keys.len());
        let sums =
            Layout { dtype: DType::F32, rows: count, columns: lanes, lanes, stripes: 1, lots: 1, slices: Vec::new() };
        let mut writer = Writer::default();
        let mut score = writer.leaf(rows(&std::sync::Arc::new(sums), count));
        let cap = heads.op.softcap.0 as f32;
        if cap != 0.0 {
            let part = writer.binary(BinaryFn::Div, score, float(cap));
            let bent = writer.unary(UnaryFn::Tanh, part);
            score = writer.binary(BinaryFn::Mul, bent, float(cap));
        }
        if let Some(mask) = heads.mask {
            let leaf = self.mask_rows(heads, tile, mask, keys.clone())?;
            let is_bool = self.graph.ty(mask).dtype == DType::Bool;
            let mask = writer.leaf(leaf);
            score = match is_bool {
                true => Arg::Step(writer.push(Function::Select, &[mask, score, float(f32::NEG_INFINITY)], DType::F32)),
                false => writer.binary(BinaryFn::Add, score, mask),
            };
        }
        if heads.op.causal.is_some() {
            let visible = self.visible_rows(heads, tile, keys.clone())?;
            let visible = writer.leaf(visible);
            score = Arg::Step(writer.push(Function::Select, &[visible, score, float(f32::NEG_INFINITY)], DType::F32));
        }
        let step = writer.step(score, DType::F32);
        let running = writer.push(Function::Accumulate(Accumulation::Max), &[Arg::Step(step)], DType::F32);
        let stored = keys.clone().map(|key| Some((key as u32, 0)));
        let targets = vec![
            Target { step, layout: scores.clone(), rows: stored.collect() },
            Target {
                step: running,
                layout: greatest.clone(),
                rows: (1..=count).map(|vector| (vector == count).then_some((index as u32, 0))).collect(),
            },
        ];
        Ok((writer.work(targets, (0..count).map(|vector| vector == 0).collect()), 0))
    }

    /// The queries of a tile as columns of weights: those of each head behind each other, scaled, with zeros in all lanes of a block
    /// that are not their head's.
    fn query_columns(&mut self, heads: &Heads, tile: &Tile, block: usize) -> Result<Lease, TargetError> {
        let (lanes, depth, count) = (self.lanes(), heads.dims.depth, tile.queries.len());
        let (first, source) = (block * lanes, heads.queries.clone());
        let avoid = Slices::of(&source.slices);
        let columns = self.allocate(DType::F16, tile.columns(), lanes, self.stripes(), avoid)?;
        // Heads whose queries lie in the same rows are taken from them at once.
        let row = |head: usize, query: usize| heads.q.at(head, query).0;
        let mut done = vec![false; tile.heads.len()];
        for (index, &leader) in tile.heads.iter().enumerate() {
            if done[index] {
                continue;
            }
            let mut writer = Writer::default();
            // Where the leader's block lies; all of the tile have the same lanes as their keys.
            let shift = heads.q.at(leader, 0).1 / lanes;
            let block_of = shift + block - heads.lane(leader) / lanes;
            let vectors = tile.queries.clone().map(|query| (row(leader, query) as u32, block_of as u32));
            let vector = writer.leaf(Leaf { layout: source.clone(), rows: vectors.collect() });
            let scaled = writer.binary(BinaryFn::Mul, vector, float(heads.op.scale.0 as f32));
            let mut targets = Vec::new();
            for (place, &head) in tile.heads.iter().enumerate().skip(index) {
                let same = |query| row(head, query) == row(leader, query);
                let apart =
                    heads.q.at(head, 0).1 / lanes + heads.lane(leader) / lanes == shift + heads.lane(head) / lanes;
                if done[place]
                    || targets.len() == tile.turns
                    || !same(tile.queries.start)
                    || !same(tile.queries.end - 1)
                    || !apart
                {
                    continue;
                }
                done[place] = true;
                let own = (
                    heads.lane(head).max(first) - first,
                    (heads.lane(head) + depth).min(first + lanes).max(first) - first,
                );
                let mask = self.lane_mask(own)?;
                let mask = writer.leaf(Leaf { layout: mask, rows: vec![(0, 0); count] });
                let step = writer.push(Function::Select, &[mask, scaled, float(0.0)], DType::F16);
                let to = (0..count).map(|query| Some((tile.column(place, query) as u32, 0)));
                targets.push(Target { step, layout: columns.clone(), rows: to.collect() });
            }
            self.run_chain(writer.work(targets, vec![true; count]))?;
        }
        Ok(columns)
    }

    /// A vector that is true in some lanes.
    fn lane_mask(&mut self, (from, to): (usize, usize)) -> Result<Lease, TargetError> {
        let lanes = self.lanes();
        let mask = (0..lanes).map(|lane| u8::from((from..to).contains(&lane))).collect();
        self.literal(mask, DType::U8, 1, lanes)
    }

    /// Vectors for each key as rows of keys for each head and query.
    fn exchanged(&mut self, weights: &Lease, keys: usize, tile: &Tile) -> Result<Lease, TargetError> {
        let (lanes, queries) = (self.lanes(), tile.queries.len());
        let columns: Vec<usize> =
            (0..tile.heads.len()).flat_map(|head| (0..queries).map(move |query| tile.column(head, query))).collect();
        // In slices that take turns, so that several shifters can write at once.
        let stripes = self.stripes();
        let result = self.allocate(DType::F16, columns.len(), keys, stripes, Slices::of(&weights.slices))?;
        if !self.has_workspaces()? {
            self.give_back(&result);
            let positions = columns.iter().flat_map(|column| (0..keys).map(move |key| (key * lanes + column) as i64));
            return self.select_elements(weights, &positions.collect::<Vec<_>>(), columns.len(), keys);
        }
        for (block, start) in (0..keys).step_by(lanes).enumerate() {
            let own = start..keys.min(start + lanes);
            for plane in 0..2 {
                let from: Vec<Place> = own.clone().map(|row| weights.place(row, 0, plane)).collect();
                let to = columns.iter().enumerate();
                let to: Vec<(usize, Place)> =
                    to.map(|(row, &column)| (column, result.place(row, block, plane))).collect();
                if !self.exchange_tile(&from, &to)? {
                    return Err(super::lost("there is no room for addresses"));
                }
            }
        }
        Ok(result)
    }
}
