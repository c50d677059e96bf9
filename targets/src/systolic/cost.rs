//! What kernels cost by reckoning, for the optimiser: the busiest of the units that work side by side, and what it takes
//! to start and to end. The schedule that follows counts exactly; this only has to order alternatives.

use std::collections::HashMap;
use std::sync::Mutex;

use tcc_ir::ops::{Attention, MatMul};
use tcc_ir::{Anchor, Cycles, DType, Graph, NodeId, Op, Shape, TensorType, ValueId};
use tcc_passes::{CostModel, Group, Verdict, legalize_groups};

use super::SystolicMachine;
use super::layout::storage;
use super::legal;
use super::lower::{Slices, attention_prologue_supported, map_function, row_epilogue_fits};
use super::timing::map_rate;

/// The optimiser's view of a machine.
pub(super) struct SystolicCosts<'m> {
    machine: &'m SystolicMachine,
    /// Vector work of composite operators by operator and operand types, which are asked for again and again.
    known: Mutex<HashMap<(Op, Vec<TensorType>), u64>>,
}

impl<'m> SystolicCosts<'m> {
    pub fn new(machine: &'m SystolicMachine) -> Self {
        SystolicCosts { machine, known: Mutex::new(HashMap::new()) }
    }

    /// Cycles to read a value.
    fn read(&self, ty: &TensorType, array_weights: bool) -> u64 {
        let dtype = if array_weights && ty.dtype == DType::F32 { DType::BF16 } else { storage(ty.dtype) };
        (dtype.bytes(ty.shape.count()) as u64).div_ceil(u64::from(self.machine.dram.read_bytes_per_cycle))
    }

    /// Cycles of the vector unit for one operator.
    fn vector(&self, op: &Op, inputs: &[&TensorType]) -> u64 {
        let vector = &self.machine.vector;
        let Ok(outputs) = op.infer(inputs) else { return 0 };
        let wide = inputs.iter().copied().chain(&outputs).any(|ty| ty.dtype.bits() == 64);
        let lanes = if wide { 1 } else { vector.lanes };
        let count = |ty: &TensorType| ty.shape.count() as u64;
        match op {
            Op::Reduce(_) => count(inputs[0]).div_ceil(u64::from(lanes)),
            Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_) => {
                let rate = map_function(op).filter(|_| !wide).map_or(1, |function| map_rate(function, vector));
                count(&outputs[0]).div_ceil(u64::from(rate))
            }
            _ => self.composite(op, inputs),
        }
    }

    /// Vector work of an operator by its definition.
    fn composite(&self, op: &Op, inputs: &[&TensorType]) -> u64 {
        let key = (op.clone(), inputs.iter().map(|&ty| ty.clone()).collect::<Vec<_>>());
        if let Ok(known) = self.known.lock()
            && let Some(&cycles) = known.get(&key)
        {
            return cycles;
        }
        let mut graph = Graph::new("");
        let operands: Vec<ValueId> = inputs.iter().map(|&ty| graph.add_input("", ty.clone())).collect();
        let cycles = match op.decompose(&mut graph, &operands) {
            Some(Ok(_)) => graph
                .nodes()
                .filter(|(_, node)| !tcc_ir::is_view(&node.op) && !matches!(node.op, Op::MatMul(_)))
                .map(|(_, node)| self.vector(&node.op, &graph.input_types(node)))
                .sum(),
            _ => 0,
        };
        if let Ok(mut known) = self.known.lock() {
            known.insert(key, cycles);
        }
        cycles
    }

    /// Cycles of the array for one product.
    fn array(&self, product: &MatMul, a: &TensorType, b: &TensorType) -> u64 {
        let Ok(dims) = product.dims(a, b) else { return 0 };
        let array = &self.machine.array;
        let columns = u64::from(array.columns);
        let (mut batch, mut m) = (dims.batch.count() as u64, dims.m as u64);
        // Where B is the same for the whole batch, its rows follow one another.
        if b.shape.count() == dims.k * dims.n {
            (batch, m) = (1, m * batch);
        }
        // With the rows used as so many groups.
        let passes = |groups: u64| {
            let rows = u64::from(array.total_rows()) / groups;
            (dims.k as u64).div_ceil(rows) * (dims.n as u64).div_ceil(columns).div_ceil(groups)
        };
        let fewest = (0..=array.blocks().ilog2()).map(|log| passes(1 << log)).min().unwrap_or(0);
        batch * fewest * m.max(u64::from(array.block_rows()))
    }

    fn contraction(&self, graph: &Graph, group: &Group, anchor: NodeId) -> Option<u64> {
        let node = graph.node(anchor);
        let Op::MatMul(product) = &node.op else { return None };
        let types = graph.input_types(node);
        let shape = graph.shape(node.output());
        let last = shape.rank() - 1;
        let mut column = shape.to_vec();
        column[last] = 1;
        let column = Shape::new(column).ok()?;
        // Several slices of a row may be used, all of one width.
        let slices = Slices::new(graph, anchor, &group.epilogue, &[]).ok()?;
        let is_row = |of: &Shape| of == shape || slices.narrow() == Some(of);
        let (mut vector, mut reduces) = (0, false);
        // What one row takes on chip. Of a product that is cut all of it must be there.
        let bytes_of = |value: ValueId| {
            let ty = graph.ty(value);
            ty.shape.last().map_or(0, |&extent| storage(ty.dtype).bytes(extent).max(1))
        };
        let mut row_bytes = if slices.any() { bytes_of(node.output()) } else { 0 };
        for &id in &group.epilogue {
            let node = graph.node(id);
            let types = graph.input_types(node);
            let along_rows = match &node.op {
                Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_) | Op::Gelu(_) => false,
                Op::Reduce(reduce) if reduce.axes == [last] => true,
                Op::Softmax(softmax) if softmax.axis == last => true,
                Op::LayerNorm(norm) if norm.axis == last => true,
                Op::RmsNorm(norm) if norm.axis == last => true,
                _ => return None,
            };
            let own = node.inputs.iter().filter(|&&input| graph.producer(input).is_some());
            let lies_in = |value: ValueId| is_row(graph.shape(value)) || *graph.shape(value) == column;
            if !lies_in(node.output()) || !own.clone().all(|&input| lies_in(input)) {
                return None;
            }
            if along_rows && !is_row(graph.shape(node.inputs[0])) {
                return None;
            }
            reduces |= along_rows;
            vector += self.vector(&node.op, &types);
            // A normalisation keeps a few rows of its own.
            let copies = if along_rows && !matches!(node.op, Op::Reduce(_)) { 4 } else { 1 };
            let values = node.inputs.iter().chain(&node.outputs).filter(|&&value| !slices.is_part(value));
            let rows = values.filter(|&&value| graph.shape(value).last() != Some(&1) || shape[last] == 1);
            row_bytes += copies * rows.map(|&value| bytes_of(value)).sum::<usize>();
        }
        let columns = group.epilogue.iter().any(|&id| !is_row(graph.shape(graph.node(id).output())));
        let by_row = reduces || slices.any();
        if (by_row || columns) && !row_epilogue_fits(self.machine, shape[last], row_bytes.div_ceil(shape[last].max(1)))
        {
            return None;
        }
        if columns && !by_row {
            return None;
        }
        let on_array = self.machine.array.multiplies(types[0].dtype, types[1].dtype);
        let reads = self.reads(graph, |value| value == node.inputs[1] && on_array);
        let product = if on_array {
            self.array(product, types[0], types[1])
        } else {
            graph.node_work(node).macs / u64::from(self.machine.vector.lanes)
        };
        Some(product.max(vector).max(reads))
    }

    fn attention(&self, graph: &Graph, group: &Group, anchor: NodeId) -> Option<u64> {
        let (legal, groups) =
            legalize_groups(graph, std::slice::from_ref(group), &legal::judge_fused(&self.machine.array)).ok()?;
        let legal_anchor = groups[0].anchor.node()?;
        let supported = matches!(groups[0].anchor, Anchor::Attention(_))
            && group.epilogue.is_empty()
            && attention_prologue_supported(&legal, legal_anchor, &groups[0].prologue).is_ok();
        if !supported {
            return None;
        }
        let node = graph.node(anchor);
        let Op::Attention(attention) = &node.op else { return None };
        let types = graph.input_types(node);
        let dims = Attention::dims(types[0], types[1], types[2]).ok()?;
        let (machine, vector) = (self.machine, &self.machine.vector);
        let (rows, columns) = (machine.array.total_rows() as usize, machine.array.columns as usize);
        let queries = dims.heads / dims.groups * dims.queries;
        let visible: usize = (0..dims.queries).map(|query| attention.visible_keys(query, dims.keys).len()).sum();
        let heads = (dims.batch * dims.groups) as u64;
        // Rows that the features of keys leave idle are used by other tiles of keys or other heads.
        let block = machine.array.block_rows() as usize;
        let groups = (machine.array.blocks() as usize / dims.depth.div_ceil(block).next_power_of_two()).max(1) as u64;
        let scores = (heads * (dims.depth.div_ceil(rows) * dims.keys.div_ceil(columns)) as u64).div_ceil(groups);
        let values = heads * (dims.keys.div_ceil(rows) * (dims.value_depth + 1).div_ceil(columns)) as u64;
        let array = (scores + values) * queries.max(block) as u64;
        let scores = (dims.batch * dims.heads * visible) as u64;
        // The maximum, the difference and the mask at the full rate, the exponential at that of special functions.
        let plain = 2 + u64::from(attention.mask) + 2 * u64::from(attention.softcap.0 != 0.0);
        let special = 1 + u64::from(attention.softcap.0 != 0.0);
        let mut work = scores * plain / u64::from(vector.lanes)
            + scores * special / u64::from(vector.special_lanes.min(vector.lanes));
        for &id in &group.prologue {
            let node = graph.node(id);
            work += self.vector(&node.op, &graph.input_types(node));
        }
        Some(array.max(work).max(self.reads(graph, |_| false)))
    }

    /// Cycles to read all inputs once.
    fn reads(&self, graph: &Graph, weights: impl Fn(ValueId) -> bool) -> u64 {
        graph.inputs().iter().map(|&input| self.read(graph.ty(input), weights(input))).sum()
    }

    /// Element-wise work, reductions and normalisations over one domain, as the lowering walks it.
    fn rows(&self, graph: &Graph, group: &Group) -> Option<u64> {
        let nodes: Vec<NodeId> = group.nodes().collect();
        let walked = |id: NodeId| match &graph.node(id).op {
            Op::Reduce(_) => graph.shape(graph.node(id).inputs[0]).clone(),
            _ => graph.shape(graph.node(id).output()).clone(),
        };
        let mut domain = Shape::scalar();
        for &id in &nodes {
            let shape = walked(id);
            if (shape.count() == 0, shape.count(), shape.rank()) >= (domain.count() == 0, domain.count(), domain.rank())
            {
                domain = shape;
            }
        }
        let lies_in = |shape: &Shape| {
            shape.rank() == domain.rank()
                && shape.iter().zip(domain.iter()).all(|(&dim, &whole)| dim == whole || dim == 1)
        };
        let mut reduced: Vec<usize> = Vec::new();
        let mut vector = 0;
        let mut element_bytes = 0u64;
        for &id in &nodes {
            let node = graph.node(id);
            let axes: Vec<usize> = match &node.op {
                Op::Reduce(reduce) => reduce.axes.clone(),
                Op::Softmax(softmax) => vec![softmax.axis],
                Op::LayerNorm(norm) => (norm.axis..domain.rank()).collect(),
                Op::RmsNorm(norm) => (norm.axis..domain.rank()).collect(),
                _ => Vec::new(),
            };
            if !lies_in(graph.shape(node.output())) || (!axes.is_empty() && walked(id) != domain) {
                return None;
            }
            // Values of the kernel itself are used as they are, and whole.
            let own_lie = node.inputs.iter().all(|&input| {
                let producer = graph.producer(input);
                producer.is_none_or(|id| nodes.contains(&id) && lies_in(graph.shape(input)))
            });
            if !own_lie {
                return None;
            }
            reduced.extend(axes.iter().filter(|&axis| !reduced.contains(axis)).copied().collect::<Vec<_>>());
            vector += self.vector(&node.op, &graph.input_types(node));
            let values = node.inputs.iter().chain(&node.outputs);
            let wide = values.filter(|&&value| graph.shape(value).count() == domain.count());
            // A normalisation keeps a few rows of its own.
            let copies = if axes.len() > 1 || matches!(node.op, Op::Softmax(_) | Op::LayerNorm(_) | Op::RmsNorm(_)) {
                4
            } else {
                1
            };
            element_bytes +=
                copies * wide.map(|&value| storage(graph.ty(value).dtype).bytes(1).max(1) as u64).sum::<u64>();
        }
        let row: u64 = reduced.iter().map(|&axis| domain[axis] as u64).product();
        let alone = nodes.len() == 1 && matches!(graph.node(nodes[0]).op, Op::Reduce(_));
        if !reduced.is_empty()
            && !alone
            && row.saturating_mul(element_bytes) > u64::from(self.machine.scratchpad.bytes) / 4
        {
            return None;
        }
        Some(vector.max(self.reads(graph, |_| false)))
    }
}

impl CostModel for SystolicCosts<'_> {
    fn judge(&self, graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
        legal::judge_composite(&self.machine.array)(graph, op, inputs)
    }

    fn kernel_cost(&self, graph: &Graph, group: &Group) -> Option<Cycles> {
        let machine = self.machine;
        let dram = u64::from(machine.dram.latency);
        let busiest = match &group.anchor {
            Anchor::Contraction(node) => self.contraction(graph, group, *node),
            Anchor::ElementWise | Anchor::Reduction(_) | Anchor::Normalization(_) => self.rows(graph, group),
            Anchor::Selection(_) => Some(self.reads(graph, |_| false)),
            Anchor::Movement(_) => match group.nodes().count() {
                1 => Some(self.reads(graph, |_| false)),
                _ => None,
            },
            Anchor::Attention(node) => self.attention(graph, group, *node),
            Anchor::Copy { .. } => None,
        };
        let array = match group.anchor {
            Anchor::Contraction(_) | Anchor::Attention(_) => {
                u64::from(machine.array.total_rows() + machine.array.columns)
            }
            _ => 0,
        };
        // From the first byte asked for to the last result out.
        let fill = 2 * dram + array + u64::from(machine.vector.latency);
        busiest.map(|cycles| Cycles(cycles + fill))
    }

    fn write_cost(&self, ty: &TensorType) -> Cycles {
        let bytes = storage(ty.dtype).bytes(ty.shape.count()) as u64;
        Cycles(bytes.div_ceil(u64::from(self.machine.dram.write_bytes_per_cycle)))
    }
}
