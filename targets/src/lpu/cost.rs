//! What kernels cost by reckoning, for the optimiser: the vectors that pass the busiest of the units, and the way there and back.
//! The schedule that follows counts exactly; this only has to order alternatives.

use tcc_ir::ops::{Attention, MatMul};
use tcc_ir::{Anchor, Cycles, DType, Graph, Node, Op, TensorType, ValueId, is_view};
use tcc_passes::{CostModel, Group, Verdict};

use super::isa::Queue;
use super::layout::Layout;
use super::{LpuMachine, legal};
use crate::stored::storage;

/// Flows that a reduction along lanes takes one after the other: exchange, fold, fold over superlanes, copies, spread.
const LANE_FLOWS: u64 = 5;

/// Passes of the vector unit over its scores that an attention takes: the greatest, the exponentials, the quotients.
const SOFTMAX_PASSES: u64 = 3;

/// The optimiser's view of a machine.
pub(super) struct LpuCosts<'m> {
    machine: &'m LpuMachine,
}

impl<'m> LpuCosts<'m> {
    pub fn new(machine: &'m LpuMachine) -> Self {
        LpuCosts { machine }
    }

    /// Vectors of a value, all byte planes counted.
    fn vectors(&self, ty: &TensorType) -> u64 {
        let (rows, columns) = Layout::matrix(&ty.shape);
        (rows * columns.div_ceil(self.machine.vector()) * (storage(ty.dtype).bits() / 8)) as u64
    }

    /// Vectors of a value, whatever its elements are.
    fn elements(&self, ty: &TensorType) -> u64 {
        let (rows, columns) = Layout::matrix(&ty.shape);
        (rows * columns.div_ceil(self.machine.vector())) as u64
    }

    /// From memory through a unit and back.
    fn way(&self) -> u64 {
        let machine = self.machine;
        let across = machine.position(Queue::Alu(0)) as u64;
        across + u64::from(machine.mem.latency + machine.vxm.latency + machine.sxm.latency)
    }

    /// Cycles in which rows enter planes, with all planes at work.
    fn product(&self, product: &MatMul, a: &TensorType, b: &TensorType) -> u64 {
        let Ok(dims) = product.dims(a, b) else { return 0 };
        let passes = dims.batch.count() * dims.m * dims.n.div_ceil(self.machine.vector());
        (passes as u64 * self.turns(a.dtype, dims.k)).div_ceil(self.units(a.dtype))
    }

    /// How often a row enters a plane for so many elements of the K-dimension.
    fn turns(&self, dtype: DType, k: usize) -> u64 {
        let lanes = self.machine.vector();
        k.div_ceil(if dtype.is_float() { lanes / 2 } else { lanes }) as u64
    }

    /// Planes, or pairs of them where halves are multiplied.
    fn units(&self, dtype: DType) -> u64 {
        let planes = 2 * u64::from(self.machine.mxm.planes);
        if dtype.is_float() { planes / 2 } else { planes }
    }

    fn attention(&self, types: &[&TensorType]) -> u64 {
        let Ok(dims) = Attention::dims(types[0], types[1], types[2]) else { return 0 };
        let (lanes, units) = (self.machine.vector(), self.units(types[0].dtype));
        let heads = dims.batch * dims.heads;
        let scores = (heads * dims.keys * dims.queries).div_ceil(lanes) as u64;
        let products = scores * self.turns(types[0].dtype, dims.depth)
            + (heads * dims.queries * dims.value_depth.div_ceil(lanes)) as u64 * self.turns(types[0].dtype, dims.keys);
        products.div_ceil(units).max(SOFTMAX_PASSES * scores) + (2 + SOFTMAX_PASSES) * self.way()
    }

    /// What one operator takes, and how long until its first result.
    fn node(&self, graph: &Graph, node: &Node) -> (u64, u64) {
        let types = graph.input_types(node);
        let result = graph.ty(node.output());
        match &node.op {
            Op::MatMul(product) => (self.product(product, types[0], types[1]), u64::from(self.machine.mxm.latency)),
            Op::Attention(_) => (self.attention(&types), 0),
            Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_) => {
                (self.elements(result), u64::from(self.machine.vxm.latency))
            }
            Op::Reduce(reduce) => {
                let along_lanes = reduce.axes.contains(&types[0].shape.rank().saturating_sub(1));
                let flows = if along_lanes { LANE_FLOWS } else { 0 };
                (self.elements(types[0]), flows * self.way())
            }
            // As their definitions have it: reductions, and passes over all elements.
            Op::Softmax(_) | Op::LayerNorm(_) => (4 * self.elements(result), 2 * LANE_FLOWS * self.way()),
            Op::RmsNorm(_) => (2 * self.elements(result), LANE_FLOWS * self.way()),
            Op::Gelu(_) => (self.elements(result), 6 * u64::from(self.machine.vxm.latency)),
            op if is_view(op) => (0, 0),
            // Others move, choose or compare: vector by vector, with every plane for itself.
            _ => (types.iter().map(|ty| self.vectors(ty)).sum::<u64>() + self.vectors(result), self.way()),
        }
    }
}

impl CostModel for LpuCosts<'_> {
    fn judge(&self, graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
        legal::judge_composite(self.machine)(graph, op, inputs)
    }

    fn kernel_cost(&self, graph: &Graph, group: &Group) -> Option<Cycles> {
        // An attention makes its operands' forms itself.
        if matches!(group.anchor, Anchor::Attention(_)) && !(group.prologue.is_empty() && group.epilogue.is_empty()) {
            return None;
        }
        // What is a part of rows would have to be moved.
        let moved =
            |node: &Node| matches!(&node.op, Op::Slice(slice) if self.moves(slice, graph.shape(node.inputs[0])));
        if graph.nodes().any(|(_, node)| moved(node)) {
            return None;
        }
        let (mut units, mut vectors, mut latency) = (0, 0, self.way());
        for node in group.nodes().map(|id| graph.node(id)) {
            let (cycles, until) = self.node(graph, node);
            // ALUs work side by side on a chain; so do they with the matrix units.
            let busy = if matches!(node.op, Op::MatMul(_)) { &mut units } else { &mut vectors };
            *busy = cycles.max(*busy);
            latency += until;
        }
        Some(Cycles(units.max(vectors) + latency))
    }

    fn reads_parts_of_rows(&self) -> bool {
        // Lanes of a part lie elsewhere than those of rows of its own.
        false
    }

    fn write_cost(&self, ty: &TensorType) -> Cycles {
        // Planes go to slices of their own.
        Cycles(self.elements(ty))
    }
}

impl LpuCosts<'_> {
    /// Whether a slice takes lanes that do not lie where those of rows of its own do.
    fn moves(&self, slice: &tcc_ir::ops::Slice, whole: &tcc_ir::Shape) -> bool {
        slice
            .cut_axis(whole)
            .is_some_and(|axis| axis + 1 == whole.rank() && !slice.starts[axis].is_multiple_of(self.machine.vector()))
    }
}
