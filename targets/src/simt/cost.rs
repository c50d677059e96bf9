//! What kernels cost by reckoning, for the optimiser: the launch, and the slower of multiplying and of reading and writing memory.
//! The cycle model that follows counts; this only has to order alternatives.

use tcc_ir::{Cycles, DType, Graph, Node, Op, TensorType, ValueId};
use tcc_passes::{CostModel, Group, Verdict};

use super::{SimtMachine, legal};
use crate::lower::cost::{bytes_of, pieces_of, read_bytes};
use crate::lower::piece::Piece;

/// Latencies of memory that a launch takes beside its work: until its first loads are there, and its last stores.
const RAMP: f64 = 2.0;

/// The optimiser's view of a machine.
pub(super) struct SimtCosts<'m> {
    machine: &'m SimtMachine,
    clock_hz: u64,
}

impl<'m> SimtCosts<'m> {
    pub fn new(machine: &'m SimtMachine, clock_hz: u64) -> Self {
        SimtCosts { machine, clock_hz }
    }

    /// Cycles in which global memory gives or takes so many bytes.
    fn memory(&self, bytes: usize) -> f64 {
        bytes as f64 * self.clock_hz as f64 / self.machine.dram.bytes_per_second
    }

    /// Cycles of all multiprocessors for a node's arithmetic.
    fn arithmetic(&self, graph: &Graph, node: &Node) -> f64 {
        let machine = self.machine;
        let work = graph.node_work(node);
        let dtype = node.inputs.first().map_or(DType::F32, |&input| graph.ty(input).dtype);
        let rate = match (&machine.tensor, dtype) {
            (Some(unit), DType::F16 | DType::BF16) => f64::from(unit.half_macs),
            (Some(unit), DType::F32) if unit.tf32_macs > 0 => f64::from(unit.tf32_macs),
            (Some(unit), DType::I8 | DType::U8) if unit.byte_macs > 0 => f64::from(unit.byte_macs),
            _ => machine.pipes.f32.lanes,
        };
        let all = f64::from(machine.multiprocessors);
        work.macs as f64 / rate / all + work.scalar_ops as f64 / machine.pipes.f32.lanes / all
    }

    /// What one launch takes.
    fn launch(&self, graph: &Graph, piece: &Piece) -> f64 {
        let machine = self.machine;
        let mut bytes = read_bytes(graph, piece);
        bytes += piece.outputs.iter().map(|&output| bytes_of(graph.ty(output))).sum::<usize>();
        let arithmetic: f64 = piece.nodes.iter().map(|&id| self.arithmetic(graph, graph.node(id))).sum();
        let gap = machine.launch_cycles(self.clock_hz) as f64;
        gap + RAMP * f64::from(machine.dram.latency) + self.memory(bytes).max(arithmetic)
    }
}

impl CostModel for SimtCosts<'_> {
    fn judge(&self, graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
        legal::judge_composite(self.machine)(graph, op, inputs)
    }

    fn kernel_cost(&self, graph: &Graph, group: &Group) -> Option<Cycles> {
        let (legal, pieces, outputs) = pieces_of(graph, group, &legal::judge_fused(self.machine))?;
        let cycles: f64 = pieces.iter().map(|piece| self.launch(&legal, piece)).sum();
        // What is written is reckoned by whoever writes it.
        let written: usize = outputs.iter().map(|&output| bytes_of(legal.ty(output))).sum();
        Some(Cycles((cycles - self.memory(written)).max(1.0).round() as u64))
    }

    fn write_cost(&self, ty: &TensorType) -> Cycles {
        Cycles(self.memory(bytes_of(ty)).round() as u64)
    }
}
