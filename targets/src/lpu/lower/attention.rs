//! Attention, with heads in the lanes in which they lie.
//!
//! Queries become the weights and keys the rows, so that scores come out transposed: a vector has one key, and in its lanes the
//! queries of as many heads as it has room for. Heads lie beside each other in the lanes of a row, and every column of weights has
//! zeros but for the lanes of its head, so that nothing is moved for that. Along rows, maxima and sums are running results of an
//! ALU. Then the weights of keys are exchanged into rows of queries, as what multiplies the values, which go to the columns of
//! their head, with zeros in others: so heads meet again where the next product wants them. Work goes tile by tile: some queries of
//! some heads, with all keys; scores of later tiles are multiplied before values of earlier ones, which wait for their softmax.

mod mask;
mod scores;
mod values;
mod windows;

use std::ops::Range;

use tcc_ir::ops::{Attention, AttentionDims, Reshape, Transpose};
use tcc_ir::{DType, Node, NodeId, Op, Shape as Dims, ValueId, View};

use super::work::Leaf;
use super::{CHUNK, Lease, Lowering, Shape, Thrift, is_elementwise, lost};
use crate::lpu::LpuMachine;
use crate::lpu::layout::Layout;
use crate::target::TargetError;
use windows::Windows;

/// Tiles whose scores are computed before the values of a tile are multiplied, by how much memory may be spent.
const AHEAD: [usize; 3] = [4, 2, 1];

/// Whether a machine runs an attention of so many queries and keys as one: fewer are not worth to be exchanged.
pub(in crate::lpu) fn is_worth(machine: &LpuMachine, dims: &AttentionDims) -> bool {
    let least = 2 * machine.lanes as usize;
    // Slices to exchange in, and some for addresses.
    let exchanges = machine.mem.slices as usize >= machine.lanes as usize + 4;
    // Heads that fill a vector have no others beside them.
    let fits = |depth: usize| depth > 0 && 2 * depth <= machine.vector();
    exchanges && dims.queries >= least && dims.keys >= least && fits(dims.depth) && fits(dims.value_depth)
}

/// An attention, with its operands in the forms in which they are multiplied.
struct Heads {
    node: NodeId,
    op: Attention,
    dims: AttentionDims,
    q: Windows,
    k: Windows,
    queries: Lease,
    keys: Lease,
    v: ValueId,
    /// For each key head, feature and block of keys; none before they are wanted first.
    values: Option<Leaf>,
    mask: Option<ValueId>,
    /// As many vectors of zeros as columns are loaded at once, each in a slice of its own.
    zeros: Lease,
    /// Keys that go through a plane at once.
    chunk: usize,
}

/// Some queries of some heads, which are counted through all batches.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tile {
    heads: Vec<usize>,
    queries: Range<usize>,
    /// Columns of scores that a head takes: as many as are loaded at once, or a multiple.
    stride: usize,
    /// How many heads' columns are written at once: as many as have slices of their own for both byte planes.
    turns: usize,
}

impl Heads {
    /// The batch of a head, and its key head, counted through all batches.
    fn key_head(&self, head: usize) -> (usize, usize) {
        let AttentionDims { heads, groups, .. } = self.dims;
        let (batch, own) = (head / heads, head % heads);
        (batch, batch * groups + own / (heads / groups))
    }

    /// The first of the lanes of a head, counted through the blocks of a row.
    fn lane(&self, head: usize) -> usize {
        self.k.at(self.key_head(head).1, 0).1
    }

    /// Whether keys of two heads lie in the same rows, and in other lanes or the very same.
    fn share_rows(&self, a: usize, b: usize) -> bool {
        let keys = [0, self.dims.keys - 1];
        let row = |head: usize, key: usize| self.k.at(self.key_head(head).1, key).0;
        let (own, other) = (self.lane(a), self.lane(b));
        keys.iter().all(|&key| row(a, key) == row(b, key)) && (own == other || own.abs_diff(other) >= self.dims.depth)
    }

    /// Cuts the scores into tiles, each of which a vector has lanes for: for each lot of queries, all heads.
    fn tiles(&self, lanes: usize, most: usize, stripes: usize) -> Vec<Tile> {
        let AttentionDims { batch, heads, queries, depth, .. } = self.dims;
        // Heads that lie in the lanes of a vector, so that rows go through once for all of them.
        let beside = (1..heads).take_while(|&head| self.share_rows(0, head) && self.lane(head) + depth <= lanes);
        let most = (lanes / (beside.count() + 1) / stripes * stripes).clamp(1, most);
        let lot = queries.div_ceil(queries.div_ceil(most));
        let (stride, turns) = (lot.next_multiple_of(stripes).min(lanes), (stripes / 2).max(1));
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for head in 0..batch * heads {
            match groups.last_mut() {
                Some(group)
                    if (group.len() + 1) * stride <= lanes
                        && group[0] / heads == head / heads
                        && self.lane(group[0]) / lanes == (self.lane(head) + depth - 1) / lanes
                        && group.iter().all(|&other| self.share_rows(other, head)) =>
                {
                    group.push(head);
                }
                _ => groups.push(vec![head]),
            }
        }
        let lots = (0..queries).step_by(lot).map(|start| start..queries.min(start + lot));
        let tile = |heads: &Vec<usize>, queries: &Range<usize>| Tile {
            heads: heads.clone(),
            queries: queries.clone(),
            stride,
            turns,
        };
        lots.flat_map(|queries| groups.iter().map(|heads| tile(heads, &queries)).collect::<Vec<_>>()).collect()
    }
}

impl Tile {
    /// Columns of its scores.
    fn columns(&self) -> usize {
        self.heads.len() * self.stride
    }

    /// The column of a query, both counted from the first of the tile. Columns lie in slices that take turns; so that one query of
    /// several heads can be written at once, each head begins with another.
    fn column(&self, head: usize, query: usize) -> usize {
        head * self.stride + (query + head % self.turns) % self.stride
    }
}

impl Lowering<'_> {
    pub(super) fn attention(&mut self, id: NodeId) -> Result<(), TargetError> {
        let graph = self.graph.clone();
        let node = graph.node(id);
        let [q, k, v] = [node.inputs[0], node.inputs[1], node.inputs[2]];
        let dims = Attention::dims(graph.ty(q), graph.ty(k), graph.ty(v)).map_err(|error| lost(&error.to_string()))?;
        let mut heads = self.heads(id, dims, [q, k, v], node.inputs.get(3).copied())?;
        let lanes = self.lanes();
        let tiles = heads.tiles(lanes, self.facts.mxm.accumulators as usize, self.stripes());
        let result = self.result_rows(&heads)?;
        if self.thrift != Thrift::Meagre {
            // While the first scores are multiplied, switches have nothing else to do.
            self.turned_values(&mut heads, &[])?;
        }
        let mut weights: Vec<Option<Lease>> = vec![None; tiles.len()];
        let mut next = 0;
        let ahead = AHEAD[self.thrift as usize];
        for done in 0..tiles.len() + ahead {
            if let Some(tile) = tiles.get(done) {
                weights[done] = Some(self.key_weights(&heads, tile)?);
            }
            // All heads of a lot of queries that share a vector of the result come together.
            while next < tiles.len() {
                let count = self.together(&heads, &tiles[next..]);
                if next + count + ahead > done + 1 {
                    break;
                }
                self.weigh_values(&mut heads, &tiles[next..next + count], &weights[next..next + count], &result)?;
                for own in weights[next..next + count].iter_mut().filter_map(Option::take) {
                    self.give_back(&own);
                }
                next += count;
            }
        }
        let AttentionDims { batch, heads: count, queries, keys, depth, .. } = dims;
        let (own, lot) = (tiles[0].heads.len(), tiles[0].queries.len());
        self.say(&format!(
            "{batch} x {count} heads of {depth}: {queries} queries by {keys} keys in {} tiles of {own} heads by {lot} queries",
            tiles.len()
        ));
        self.keep_result(node.output(), &result)
    }

    /// Tiles from the first on whose heads share vectors of the result.
    fn together(&self, heads: &Heads, tiles: &[Tile]) -> usize {
        let (lanes, depth) = (self.lanes(), heads.dims.value_depth);
        let mut count = 1;
        while let (Some(last), Some(next)) = (tiles[count - 1].heads.last(), tiles.get(count)) {
            let (own, first) = (last % heads.dims.heads, next.heads[0] % heads.dims.heads);
            let same_rows = next.queries == tiles[0].queries && first == own + 1;
            if !same_rows || (first * depth).is_multiple_of(lanes) {
                break;
            }
            count += 1;
        }
        count
    }

    /// The operands in the forms in which they are multiplied.
    fn heads(
        &mut self,
        node: NodeId,
        dims: AttentionDims,
        [q, k, v]: [ValueId; 3],
        mask: Option<ValueId>,
    ) -> Result<Heads, TargetError> {
        let (q, k) = self.meeting(&dims, q, k);
        let queries = self.matrix(&q)?;
        let keys = self.operand_rows(k.root, &k.view, DType::F16, Shape::Operand(DType::F16))?;
        let zeros = self.zero_columns()?;
        let chunk = CHUNK.min(self.facts.mxm.accumulators as usize);
        let Op::Attention(op) = self.graph.node(node).op else { return Err(lost("an attention is none")) };
        Ok(Heads { node, op, dims, q, k, queries, keys, v, values: None, mask, zeros, chunk })
    }

    /// The windows of queries and keys: as they lie, if those of each head are in the same lanes, else of rows of their own.
    fn meeting(&self, dims: &AttentionDims, q: ValueId, k: ValueId) -> (Windows, Windows) {
        let (lanes, per_group) = (self.lanes(), dims.heads / dims.groups);
        if let (Some(q), Some(k)) = (self.windows(q), self.windows(k)) {
            let meet = |head: usize| {
                let key_head = head / dims.heads * dims.groups + head % dims.heads / per_group;
                q.at(head, 0).1 % lanes == k.at(key_head, 0).1 % lanes
            };
            if (0..dims.batch * dims.heads).all(meet) {
                return (q, k);
            }
        }
        (self.own_windows(q), self.own_windows(k))
    }

    /// How an attention reads its keys, as rows of which value.
    pub(super) fn key_rows(&self, node: &Node) -> Option<(ValueId, View)> {
        let [q, k, v] = [node.inputs[0], node.inputs[1], node.inputs[2]];
        let dims = Attention::dims(self.graph.ty(q), self.graph.ty(k), self.graph.ty(v)).ok()?;
        let (_, k) = self.meeting(&dims, q, k);
        Some((k.root, k.view))
    }

    /// Gives the result of an attention to those who read it, by the way in which they do.
    fn keep_result(&mut self, value: ValueId, result: &Lease) -> Result<(), TargetError> {
        let merged = merged(self.graph.shape(value)).ok_or_else(|| lost("an attention has no heads"))?;
        let graph = self.graph.clone();
        let producer = graph.producer(value).ok_or_else(|| lost("an attention has no node"))?;
        let mut views: Vec<View> = vec![merged.clone()];
        // Chains and products read elements of any type; what moves them does not.
        let reads = |op: &Op| is_elementwise(op) || matches!(op, Op::MatMul(_) | Op::Reduce(_));
        let as_halves = self.users(producer).iter().all(|&user| reads(&graph.node(user).op));
        for user in self.users(producer) {
            for &input in &graph.node(user).inputs {
                let access = self.plan.access(input);
                if access.root == value && !views.contains(&access.view) {
                    views.push(access.view.clone());
                }
            }
        }
        let matrix = (result.rows, result.columns);
        views.retain(|view| view.atoms() == merged.atoms() && Layout::matrix(view.shape()) == matrix);
        for view in views {
            if as_halves {
                self.made.insert((value, view.clone(), Shape::Dense), result.clone());
            }
            self.made.insert((value, view, Shape::Operand(DType::F16)), result.clone());
        }
        self.leases.entry(value).or_default().push(result.clone());
        self.merged.insert(value);
        Ok(())
    }

    /// The result of an attention with a row for each head.
    pub(super) fn unmerged(&mut self, value: ValueId) -> Result<Option<Lease>, TargetError> {
        if !self.merged.contains(&value) {
            return Ok(None);
        }
        let shape = self.graph.shape(value).clone();
        let merged = merged(&shape).ok_or_else(|| lost("an attention has no heads"))?;
        let key = (value, merged, Shape::Operand(DType::F16));
        let Some(own) = self.made.get(&key).cloned() else { return Ok(None) };
        let [batch, heads, queries, depth] = shape[..] else { return Ok(None) };
        let rows = [batch, queries, heads, depth];
        let rows = Dims::new(rows).map_err(|error| lost(&error.to_string()))?;
        let view = View::dense(rows).through(&Transpose { perm: vec![0, 2, 1, 3] }.into(), &shape);
        let view = view.ok_or_else(|| lost("heads cannot be taken apart"))?;
        let apart = self.rearrange(&own, &view)?;
        Ok(Some(self.widened(apart, self.graph.ty(value).dtype)?))
    }
}

/// How the result `[batch, heads, queries, depth]` is read with its heads beside each other, as `[batch, queries, heads * depth]`.
fn merged(shape: &Dims) -> Option<View> {
    let [batch, heads, queries, depth] = shape[..] else { return None };
    let beside = Dims::new([batch, queries, heads, depth]).ok()?;
    let whole = Dims::new([batch, queries, heads * depth]).ok()?;
    let view = View::dense(shape.clone()).through(&Transpose { perm: vec![0, 2, 1, 3] }.into(), &beside)?;
    view.through(&Reshape { shape: whole.clone() }.into(), &whole)
}
