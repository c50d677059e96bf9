//! What kernels cost by reckoning, for the optimiser: the call, and the slower of computing and of reading memory beside the part. The
//! schedules that follow count; this only has to order alternatives.

use tcc_ir::{Cycles, DType, Graph, Op, TensorType, ValueId};
use tcc_passes::{CostModel, Group, Verdict};

use super::FpgaMachine;
use super::legal::{judge_composite, judge_fused};
use super::lower::{Widths, has_few_rows};
use super::place::capacity;
use crate::lower::cost::{bytes_of, pieces_of, read_bytes};
use crate::lower::piece::{Piece, Work};

/// Cycles of a call beside its work: until its first loop is full, and for each further loop that it has.
const FILL: f64 = 100.0;

/// Lanes of element-wise work that designs are taken to have.
const LANES: u32 = 16;

/// The optimiser's view of a machine.
pub(super) struct FpgaCosts {
    widths: Widths,
    /// Bytes that memory beside the part gives in a cycle.
    external_rate: f64,
    /// Constants of more bytes are taken to lie beside the part.
    on_chip: usize,
}

impl FpgaCosts {
    pub fn new(facts: &FpgaMachine, clock_hz: u64) -> FpgaCosts {
        // How wide a design becomes is not known yet: each kind of product is taken to get a quarter of the slices (assumed).
        let slices = (facts.budget().dsps / 4).clamp(4, 1 << 16) as u32;
        let widths = Widths { lanes: LANES, integer_macs: slices, float_macs: slices / 2, has_engine: false };
        let memory = &facts.memory;
        let rate = memory.bytes_per_second * memory.efficiency * f64::from(memory.channels) / clock_hz as f64;
        FpgaCosts { widths, external_rate: rate, on_chip: capacity(facts, 0.25) as usize }
    }

    /// What one call takes.
    fn call(&self, graph: &Graph, piece: &Piece) -> f64 {
        let lanes = f64::from(self.widths.lanes);
        let mut cycles = FILL;
        // Every pass over what is computed takes as many cycles as it has elements, by lanes.
        let elements = piece.outputs.iter().map(|&output| graph.shape(output).count()).max().unwrap_or(0);
        cycles += match &piece.work {
            Work::Rows { domain, .. } => {
                let is_reduction = |id: &&tcc_ir::NodeId| matches!(graph.node(**id).op, Op::Reduce(_));
                let passes = 1 + piece.nodes.iter().filter(is_reduction).count();
                (passes * domain.count()) as f64 / lanes
            }
            Work::Elements | Work::Alone | Work::Attention(_) => elements as f64 / lanes,
        };
        for node in piece.nodes.iter().map(|&id| graph.node(id)) {
            if matches!(&node.op, Op::MatMul(product) if has_few_rows(graph, node, product)) {
                // Rows become integers before, and what follows is done behind.
                cycles += 2.0 * FILL;
            }
            let macs = graph.node_work(node).macs as f64;
            let is_float = node.inputs.first().is_none_or(|&input| graph.ty(input).dtype.is_float());
            let rate = if is_float { self.widths.float_macs } else { self.widths.integer_macs };
            cycles += macs / f64::from(rate);
        }
        let bytes = read_bytes(graph, piece);
        let outside = if bytes > self.on_chip { bytes as f64 / self.external_rate } else { 0.0 };
        cycles.max(outside)
    }
}

impl CostModel for FpgaCosts {
    fn judge(&self, graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
        judge_composite(graph, op, inputs)
    }

    fn kernel_cost(&self, graph: &Graph, group: &Group) -> Option<Cycles> {
        let (legal, pieces, _) = pieces_of(graph, group, &judge_fused)?;
        let cycles: f64 = pieces.iter().map(|piece| self.call(&legal, piece)).sum();
        Some(Cycles(cycles.max(1.0).round() as u64))
    }

    fn write_cost(&self, ty: &TensorType) -> Cycles {
        // Writing is a part of the pass; what is written is read again by another.
        let elements = if ty.dtype == DType::Bool { 0 } else { bytes_of(ty) / ty.dtype.bytes(1).max(1) };
        Cycles((elements as f64 / f64::from(self.widths.lanes) / 4.0).round() as u64)
    }
}
