//! From a graph to a program for the LPU: legalise, fuse, lower, emit.

use tcc_ir::{Bytes, Graph, Plan};
use tcc_passes::{FusionLimits, fuse};

use super::emit::{Emitted, emit};
use super::lower::{Lowered, lower};
use super::{LpuMachine, legal};
use crate::machine::Machine;
use crate::target::{Optimization, Program, TargetError};

/// Most nodes in one kernel. Values within a kernel are in memory all the same; what is more than a chain of ALUs is cut.
const KERNEL_NODES: usize = 48;

pub fn try_graph(graph: &Graph, inputs: &[tcc_ir::Tensor], name: &str) -> Result<(Vec<tcc_ir::Tensor>, u64), String> {
    let machine = if name.ends_with(".toml") { Machine::parse(name, &std::fs::read_to_string(name).unwrap()).unwrap() } else { Machine::built_in().unwrap().into_iter().find(|m| m.name == name).unwrap() };
    let facts = machine.lpu.clone().unwrap();
    let t = std::time::Instant::now();
    let plan = plan(graph).map_err(|e| e.to_string())?;
    let lowered = lower(&machine, &facts, &plan).map_err(|e| e.to_string())?;
    let t1 = t.elapsed();
    let n = lowered.placed.len();
    let emitted = emit(lowered.placed, &facts).map_err(|e| e.to_string())?;
    let spans: usize = emitted.queues.0.iter().map(|q| q.len()).sum();
    let t2 = t.elapsed();
    if inputs.is_empty() {
        let mut mul = std::collections::BTreeMap::new();
        let mut ends = std::collections::BTreeMap::<u32, (u64, u64, u64)>::new();
        let mut last = 0;
        for (q, queue) in facts.queues().iter().zip(&emitted.queues.0) {
            let mut n = 0u64;
            for (c, op) in super::timeline::dispatches(queue) { if !matches!(op, super::isa::Operation::End | super::isa::Operation::Nop(_)) { n += 1; last = last.max(c); } }
            *mul.entry(q.to_string().split(' ').next().unwrap().to_string() + if q.to_string().contains("multiply") {" multiply"} else if q.to_string().contains("load") {" load"} else if q.to_string().contains("shifter") {" shift"} else {""}).or_insert(0u64) += n;
        }
        for (q, queue) in facts.queues().iter().zip(&emitted.queues.0).zip(&emitted.marks).map(|((q, ops), m)| (q, (ops, m))) {
            let (ops, m) = queue; let _ = q;
            let kernels: Vec<u32> = m.iter().flat_map(|m| std::iter::repeat_n(m.kernel, m.instructions as usize)).collect();
            for span in super::timeline::spans(ops, &[]) { if matches!(span.operation, super::isa::Operation::End | super::isa::Operation::Nop(_)) { continue }
                let k = kernels[span.index]; let e = ends.entry(k).or_insert((u64::MAX, 0, 0)); e.0 = e.0.min(span.first); e.1 = e.1.max(span.last()); e.2 += 1; }
        }
        for (k, (a, b, n)) in ends { let kernel = &plan.kernels[k as usize]; let ops: Vec<&str> = kernel.nodes().map(|n| plan.graph.node(n).op.name()).collect(); let sh = kernel.outputs.first().map(|&o| plan.graph.ty(o).to_string()); eprintln!("  k{k} {a}..{b} n={n} {:?} {sh:?} {}", ops, lowered.tilings[k as usize]); }
        eprintln!("lower {t1:?} emit {t2:?} placed {n} instr {spans} vectors {} last {last} {mul:?}", lowered.used_vectors);
        return Err("no inputs".into());
    }
    let mut memory = vec![0; facts.memory_bytes() as usize];
    for constant in &lowered.constants {
        let mut bytes = Vec::new();
        constant.write(&mut bytes).map_err(|e| e.to_string())?;
        let mut rest = &bytes[..];
        for stretch in constant.stretches() {
            let (own, behind) = rest.split_at(stretch.vectors as usize * facts.vector());
            let at = super::layout::Layout::offset(stretch.place, &facts);
            memory[at..at + own.len()].copy_from_slice(own);
            rest = behind;
        }
    }
    for (tensor, layout) in inputs.iter().zip(&lowered.inputs) {
        layout.scatter(tensor.bytes().unwrap(), &mut memory, &facts);
    }
    let t3 = t.elapsed();
    let mut simulator = super::simulator::Simulator::new(&facts, &emitted.queues, memory).map_err(|e| e.to_string())?;
    let execution = simulator.run(|_, _| {}).map_err(|e| e.to_string())?;
    let counts = if *simulator.counts() != lowered.counts { format!("COUNTS {:?} {:?}", simulator.counts(), lowered.counts) } else { String::new() };
    eprintln!("   lower {t1:?} emit {t2:?} pack {t3:?} sim {:?}; placed {n} instructions {spans} vectors {} {counts}", t.elapsed(), lowered.used_vectors);
    let outputs = plan.graph.outputs().iter().zip(&lowered.outputs).map(|(output, layout)| {
        let bytes = layout.gather(simulator.memory(), &facts);
        tcc_ir::Tensor::new(plan.graph.ty(output.value).clone(), tcc_ir::Data::from_bytes(bytes)).unwrap()
    });
    Ok((outputs.collect(), execution.cycles))
}

/// The plan that is lowered.
pub(super) fn plan(graph: &Graph) -> Result<Plan, TargetError> {
    Ok(fuse(legal::legal(graph)?, FusionLimits { row_bytes: Bytes(u64::MAX), nodes: KERNEL_NODES }))
}

/// Compiles a cleaned-up graph.
///
/// # Errors
/// Always.
pub(super) fn compile(
    machine: &Machine,
    _: &LpuMachine,
    graph: &Graph,
    _: Optimization,
) -> Result<Box<dyn Program>, TargetError> {
    Err(unsupported(machine, graph))
}

/// That the machine has no compiler.
pub(super) fn unsupported(machine: &Machine, graph: &Graph) -> TargetError {
    TargetError::Unsupported {
        origin: graph.nodes().next().map(|(_, node)| node.origin.to_string()).unwrap_or_default(),
        machine: machine.name.clone(),
        reason: "nothing compiles for LPUs yet; choose a machine of another kind, see `tcc machines`".to_owned(),
    }
}
