//! Rolling: a graph is cut into segments where its stream is narrow, and equal segments are one block.
//!
//! A transformer's stream is narrow between its layers and between attention and feed-forward network: one value carries
//! everything (beside what follows from the inputs without any contraction, such as masks and angles). The cut is moved
//! on to the next contraction, so that a normalisation stays with the residual that it follows. Where a graph is cut
//! depends on what is around the cut alone, so that a deeper model has more segments and not more blocks.

use std::collections::HashMap;

use tcc_ir::{Data, Def, Graph, Node, NodeId, Op, Tensor, TensorType, ValueId, is_view};

use crate::assemble::derived_constants;
use crate::egraph::FOLDED_BYTES;

/// Nodes of a graph that are optimised together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The nodes, in topological order.
    pub nodes: Vec<NodeId>,
    /// The values that they use from outside, in the order of first use.
    pub leaves: Vec<ValueId>,
}

/// Segments that compute the same from different values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The segments' numbers, ascending.
    pub segments: Vec<usize>,
    /// The results that any of them has to give: the number of a node in the segment, and which of its results.
    pub results: Vec<(usize, usize)>,
}

/// A graph that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rolled {
    /// The segments, in an order in which they can run.
    pub segments: Vec<Segment>,
    /// The distinct blocks, in the order of their first segments.
    pub blocks: Vec<Block>,
    /// The block of every segment.
    pub block_of: Vec<usize>,
}

/// Cuts a graph and finds equal segments.
pub fn roll(graph: &Graph) -> Rolled {
    let mut inside = vec![0; graph.value_count()];
    let stretches = (1..).zip(cut(graph));
    let segments: Vec<Segment> =
        stretches.map(|(number, nodes)| with_leaves(graph, nodes, number, &mut inside)).collect();
    let (mut blocks, block_of) = equal_segments(graph, &segments);
    find_results(graph, &segments, &block_of, &mut blocks);
    Rolled { segments, blocks, block_of }
}

/// The distinct blocks, whose results are not known yet, and the block of every segment.
fn equal_segments(graph: &Graph, segments: &[Segment]) -> (Vec<Block>, Vec<usize>) {
    let mut numbers = vec![0; graph.value_count()];
    let mut form = Vec::new();
    // Most segments of one form are equal.
    let mut of_form: HashMap<Vec<u32>, Vec<usize>> = HashMap::new();
    let mut blocks: Vec<Block> = Vec::new();
    let mut block_of = Vec::with_capacity(segments.len());
    for (number, segment) in segments.iter().enumerate() {
        write_form(graph, segment, &mut numbers, &mut form);
        let known = of_form.get(&form).into_iter().flatten().copied();
        let equal = |block: &usize| have_equal_parts(graph, segment, &segments[blocks[*block].segments[0]]);
        let block = known.into_iter().find(equal).unwrap_or_else(|| {
            of_form.entry(form.clone()).or_default().push(blocks.len());
            blocks.push(Block { segments: Vec::new(), results: Vec::new() });
            blocks.len() - 1
        });
        blocks[block].segments.push(number);
        block_of.push(block);
    }
    (blocks, block_of)
}

/// Finds the results that blocks have to give: what other segments or the graph take from any of their segments.
fn find_results(graph: &Graph, segments: &[Segment], block_of: &[usize], blocks: &mut [Block]) {
    // The segment of each node, and its place there.
    let mut home = vec![(0u32, 0u32); graph.node_count()];
    for (number, segment) in (0..).zip(segments) {
        (0..).zip(&segment.nodes).for_each(|(place, node)| home[node.index()] = (number, place));
    }
    let leaves = segments.iter().flat_map(|segment| segment.leaves.iter().copied());
    for value in leaves.chain(graph.outputs().iter().map(|output| output.value)) {
        if let Def::Node { node, output } = graph.value(value).def {
            let (number, place) = home[node.index()];
            blocks[block_of[number as usize]].results.push((place as usize, output));
        }
    }
    for block in blocks {
        block.results.sort_unstable();
        block.results.dedup();
    }
}

impl Rolled {
    /// For every leaf of a block whether the two halves of its last axis are the same wherever the block occurs.
    pub fn equal_halves(&self, source: &Graph, block: usize) -> Vec<bool> {
        let segments = &self.blocks[block].segments;
        let leaves = self.segments[segments[0]].leaves.len();
        (0..leaves)
            .map(|leaf| {
                let mut values = segments.iter().map(|&segment| self.segments[segment].leaves[leaf]);
                values.all(|value| halves_are_equal(source, value, HALVES_STEPS))
            })
            .collect()
    }

    /// A block as a graph of its own. Its inputs and constants are the leaves of its segments, in their order, named by
    /// their numbers; constants that differ between segments, or are too large to look at, have no values.
    pub fn graph(&self, source: &Graph, block: usize) -> Graph {
        let Block { segments, results } = &self.blocks[block];
        let first = &self.segments[segments[0]];
        let mut graph = Graph::new(source.name().clone());
        let mut map: HashMap<ValueId, ValueId> = HashMap::new();
        for (number, &leaf) in first.leaves.iter().enumerate() {
            let name = leaf_name(number);
            let new = match source.as_constant(leaf) {
                None => graph.add_input(name, source.ty(leaf).clone()),
                Some(tensor) => {
                    let others = segments.iter().map(|&segment| self.segments[segment].leaves[number]);
                    let same = tensor.ty().bytes() <= FOLDED_BYTES
                        && others.filter_map(|other| source.as_constant(other)).all(|other| equal(tensor, other));
                    graph.add_constant(name, if same { tensor.clone() } else { unknown(tensor.ty()) })
                }
            };
            map.insert(leaf, new);
        }
        for (place, &id) in first.nodes.iter().enumerate() {
            let node = source.node(id);
            graph.set_origin(place.to_string());
            let inputs: Vec<ValueId> = node.inputs.iter().map(|input| map[input]).collect();
            match graph.add_multi(node.op.clone(), &inputs) {
                Ok(outputs) => map.extend(node.outputs.iter().copied().zip(outputs)),
                Err(error) => unreachable!("operands of the same types were accepted before: {error}"),
            }
        }
        for &(place, output) in results {
            let value = source.node(first.nodes[place]).outputs[output];
            graph.add_output(source.value(value).name.clone(), map[&value]);
        }
        graph
    }
}

fn equal(a: &Tensor, b: &Tensor) -> bool {
    match (a.bytes(), b.bytes()) {
        (Ok(x), Ok(y)) => x == y,
        _ => false,
    }
}

/// A constant of which nothing is known but its type.
fn unknown(ty: &TensorType) -> Tensor {
    Tensor::new(ty.clone(), Data::absent(ty.bytes()))
        .unwrap_or_else(|error| unreachable!("the length is that of the type: {error}"))
}

/// Whether a node is what a model's time goes into, so that the stream is measured by it.
fn is_heavy(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        // An outer product, as that of positions and frequencies, is none.
        Op::MatMul(product) => {
            let types = graph.input_types(node);
            product.dims(types[0], types[1]).is_ok_and(|dims| dims.k > 1)
        }
        Op::Conv(_) | Op::Attention(_) => true,
        _ => false,
    }
}

/// Most nodes in one segment. A layer of a quantised model has about a hundred.
const MOST_NODES: usize = 192;

/// Whether a node works on rows as they are.
fn is_row_wise(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::Select(_)
            | Op::Cast(_)
            | Op::Reduce(_)
            | Op::Softmax(_)
            | Op::LayerNorm(_)
            | Op::RmsNorm(_)
            | Op::Gelu(_)
            | Op::Quantize(_)
            | Op::Dequantize(_)
    )
}

/// The nodes of each segment.
fn cut(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut order = depth_first(graph);
    let mut place = vec![0usize; graph.node_count()];
    order.iter().enumerate().for_each(|(at, node)| place[node.index()] = at);
    let heavy_nodes: Vec<bool> = graph.nodes().map(|(_, node)| is_heavy(graph, node)).collect();
    let streams = streams(graph, &heavy_nodes);
    let mut last_use = vec![0usize; graph.value_count()];
    for (id, node) in graph.nodes() {
        for &input in &node.inputs {
            last_use[input.index()] = last_use[input.index()].max(place[id.index()]);
        }
    }
    let mut segment_of = vec![0usize; graph.node_count()];
    let mut ends: Vec<i64> = vec![0; order.len() + 1];
    let (mut live, mut narrow, mut heavy, mut segment) = (0i64, false, false, 0);
    for (at, &id) in order.iter().enumerate() {
        let node = graph.node(id);
        let is_heavy = heavy_nodes[id.index()];
        // What is done row by row stays with what it follows; anything else begins a new segment.
        if narrow && (is_heavy || (heavy && streams[id.index()] && !is_row_wise(&node.op))) {
            segment += 1;
            (narrow, heavy) = (false, false);
        }
        heavy |= is_heavy;
        if is_heavy {
            narrow = false;
        }
        segment_of[id.index()] = segment;
        // Values whose last use this was, and those that are new.
        live -= ends[at];
        for &output in node.outputs.iter().filter(|_| streams[id.index()]) {
            if last_use[output.index()] > at {
                live += 1;
                ends[last_use[output.index()]] += 1;
            }
        }
        narrow |= streams[id.index()] && live <= 1 && (heavy || segment == 0);
    }
    // Views on what comes out of the embeddings belong to the first layer, as those between layers belong to the next.
    for &id in order.iter().rev().filter(|id| streams[id.index()]) {
        let mut users = graph.users(id).peekable();
        if segment_of[id.index()] == 0
            && is_view(&graph.node(id).op)
            && users.peek().is_some()
            && users.all(|user| segment_of[user.index()] == 1)
        {
            segment_of[id.index()] = 1;
        }
    }
    // What stands before the stream and is used in several segments is computed in the first, with all behind it. What
    // follows from constants is computed nowhere: it belongs to its first reader, where it is known to be constant.
    let derived = derived_constants(graph);
    let mut shared = vec![false; graph.node_count()];
    for (id, node) in graph.nodes().rev() {
        if streams[id.index()] {
            continue;
        }
        if derived[node.output().index()] {
            let readers = graph.users(id).map(|user| segment_of[user.index()]);
            segment_of[id.index()] = readers.min().unwrap_or(segment_of[id.index()]);
            continue;
        }
        let own = segment_of[id.index()];
        shared[id.index()] = graph
            .users(id)
            .any(|user| segment_of[user.index()] != own || (shared[user.index()] && !streams[user.index()]));
        if shared[id.index()] {
            segment_of[id.index()] = 0;
        }
    }
    // A stable sort keeps the nodes of each segment in their order.
    order.sort_by_key(|id| segment_of[id.index()]);
    let segments = order.chunk_by(|a, b| segment_of[a.index()] == segment_of[b.index()]);
    // What does not get narrow is cut all the same: the time that a block takes grows faster than its size.
    segments.flat_map(|segment| segment.chunks(MOST_NODES)).map(<[NodeId]>::to_vec).collect()
}

/// The nodes of a graph's stream, given which are heavy: those that some contraction stands behind, and those that lead to
/// a contraction with weights, as an embedding does. Masks and angles do not: they meet the stream within a layer. Nor does
/// what follows from constants alone, such as weights that are dequantised, which are there at any time.
fn streams(graph: &Graph, heavy: &[bool]) -> Vec<bool> {
    let is_weight = derived_constants(graph);
    let mut streams = vec![false; graph.node_count()];
    for (id, node) in graph.nodes() {
        let mut operands = node.inputs.iter().filter_map(|&input| graph.producer(input));
        let follows = heavy[id.index()] || operands.any(|operand| streams[operand.index()]);
        streams[id.index()] = follows && !is_weight[node.output().index()];
    }
    let mut leads = vec![false; graph.node_count()];
    for (id, node) in graph.nodes().rev() {
        let weighs = heavy[id.index()] && node.inputs.iter().skip(1).any(|&input| is_weight[input.index()]);
        if weighs || (leads[id.index()] && !streams[id.index()]) {
            for &input in node.inputs.iter().filter(|input| !is_weight[input.index()]) {
                let light = graph.producer(input).filter(|operand| !streams[operand.index()]);
                light.into_iter().for_each(|operand| leads[operand.index()] = true);
            }
        }
    }
    streams.iter().zip(&leads).map(|(&stream, &leads)| stream || leads).collect()
}

/// Whether the two halves of a value's last axis are the same, traced through element-wise work and views to a
/// concatenation of a value with itself: so are the cosines and sines of rotary embeddings. `None` for leaves of the
/// graph.
fn halves_are_equal(graph: &Graph, value: ValueId, steps: usize) -> bool {
    let (Some(node), true) = (graph.producer(value).map(|id| graph.node(id)), steps > 0) else { return false };
    let rank = graph.shape(value).rank();
    let operand = node.inputs[0];
    let keeps_last = graph.shape(operand).last() == graph.shape(value).last();
    match &node.op {
        Op::Concat(concat) => concat.axis + 1 == rank && node.inputs.len() == 2 && node.inputs[0] == node.inputs[1],
        Op::Unary(_) | Op::Cast(_) => halves_are_equal(graph, operand, steps - 1),
        Op::Binary(_) => node.inputs.iter().all(|&input| {
            graph.shape(input).count() == 1
                || (graph.shape(input).rank() == rank && halves_are_equal(graph, input, steps - 1))
        }),
        Op::Reshape(_) | Op::Broadcast(_) => keeps_last && halves_are_equal(graph, operand, steps - 1),
        Op::Transpose(transpose) => {
            transpose.perm.last().copied() == rank.checked_sub(1) && halves_are_equal(graph, operand, steps - 1)
        }
        _ => false,
    }
}

/// Longest chain of operators between a value and the concatenation behind it.
const HALVES_STEPS: usize = 8;

/// A topological order in which what belongs together stands together: depth first from the deepest result, everything
/// else as soon as its operands are there.
fn depth_first(graph: &Graph) -> Vec<NodeId> {
    let mut depth = vec![0u32; graph.node_count()];
    for (id, node) in graph.nodes() {
        let operands = node.inputs.iter().filter_map(|&input| graph.producer(input));
        depth[id.index()] = operands.map(|operand| depth[operand.index()] + 1).max().unwrap_or(0);
    }
    let sinks = graph.outputs().iter().filter_map(|output| graph.producer(output.value));
    let mut needed = Vec::with_capacity(graph.node_count());
    if let Some(sink) = sinks.max_by_key(|sink| (depth[sink.index()], std::cmp::Reverse(sink.index()))) {
        let mut seen = vec![false; graph.node_count()];
        let mut stack = vec![(sink, 0)];
        seen[sink.index()] = true;
        while let Some((id, operand)) = stack.pop() {
            match graph.node(id).inputs.get(operand) {
                Some(&input) => {
                    stack.push((id, operand + 1));
                    if let Some(producer) = graph.producer(input)
                        && !std::mem::replace(&mut seen[producer.index()], true)
                    {
                        stack.push((producer, 0));
                    }
                }
                None => needed.push(id),
            }
        }
    }
    with_others(graph, needed)
}

/// An order of some nodes with the others put into it: right after the latest of their operands.
fn with_others(graph: &Graph, order: Vec<NodeId>) -> Vec<NodeId> {
    if order.len() == graph.node_count() {
        return order;
    }
    let mut number: Vec<Option<usize>> = vec![None; graph.node_count()];
    order.iter().enumerate().for_each(|(place, id)| number[id.index()] = Some(place));
    let mut key: Vec<(usize, bool, usize)> = Vec::with_capacity(graph.node_count());
    for (id, node) in graph.nodes() {
        let own = match number[id.index()] {
            Some(number) => (number, false, 0),
            None => {
                let operands = node.inputs.iter().filter_map(|&input| graph.producer(input));
                (operands.map(|operand| key[operand.index()].0).max().unwrap_or(0), true, id.index())
            }
        };
        key.push(own);
    }
    let mut order: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
    order.sort_unstable_by_key(|id| key[id.index()]);
    order
}

/// The segment of these nodes. `inside` has the number of the last segment that each value was seen in.
fn with_leaves(graph: &Graph, nodes: Vec<NodeId>, number: u32, inside: &mut [u32]) -> Segment {
    let mut leaves = Vec::with_capacity(nodes.len());
    for &id in &nodes {
        let node = graph.node(id);
        for &input in &node.inputs {
            if std::mem::replace(&mut inside[input.index()], number) != number {
                leaves.push(input);
            }
        }
        node.outputs.iter().for_each(|output| inside[output.index()] = number);
    }
    Segment { nodes, leaves }
}

/// The name of a leaf in the graph of a block.
fn leaf_name(number: usize) -> String {
    format!("leaf {number}")
}

/// The number of the leaf that has this name, if one does.
pub(crate) fn leaf_number(name: &str) -> Option<usize> {
    name.strip_prefix("leaf ")?.parse().ok()
}

/// Writes down in numbers how the nodes of a segment are joined, and how large its leaves are. Segments of one block have
/// the same form. `numbers` is a place to number the segment's values in; what is there does not matter, since leaves and
/// results are numbered before they are used.
fn write_form(graph: &Graph, segment: &Segment, numbers: &mut [u32], form: &mut Vec<u32>) {
    form.clear();
    let mut count = 0u32;
    let mut number = |numbers: &mut [u32], value: ValueId| {
        numbers[value.index()] = count;
        count += 1;
    };
    form.push(segment.leaves.len() as u32);
    for &leaf in &segment.leaves {
        number(numbers, leaf);
        form.push(graph.shape(leaf).last().map_or(0, |&extent| extent as u32));
    }
    for &id in &segment.nodes {
        let node = graph.node(id);
        form.push(node.inputs.len() as u32);
        form.extend(node.inputs.iter().map(|input| numbers[input.index()]));
        node.outputs.iter().for_each(|&output| number(numbers, output));
    }
}

/// Whether two segments of the same form are of one block: their operators and the types of their leaves are equal.
fn have_equal_parts(graph: &Graph, a: &Segment, b: &Segment) -> bool {
    let same_leaf = |(&a, &b): (&ValueId, &ValueId)| {
        graph.ty(a) == graph.ty(b) && graph.as_constant(a).is_some() == graph.as_constant(b).is_some()
    };
    let same_op = |(&a, &b): (&NodeId, &NodeId)| graph.node(a).op == graph.node(b).op;
    a.leaves.iter().zip(&b.leaves).all(same_leaf) && a.nodes.iter().zip(&b.nodes).all(same_op)
}
