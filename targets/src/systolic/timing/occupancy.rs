//! How long each instruction keeps its unit busy, and how long after that its results take.

use tcc_ir::ops::{BinaryFn, ScatterReduction, UnaryFn};

use super::bursts;
use crate::systolic::SystolicMachine;
use crate::systolic::isa::{Fold, Map, MapFn, Operation, RowTransfer, Scan, Sort, Source, Transfer, Unit, Walk};
use crate::systolic::machine::Vector;
use crate::systolic::nest::{Nest, OPERANDS, walks_of};

/// Cycles from the end of an instruction's occupancy to its completion.
pub fn latency(op: &Operation, machine: &SystolicMachine) -> u64 {
    let through = u64::from(machine.array.total_rows()) + u64::from(machine.array.columns) - 2;
    match op {
        Operation::Preload(_) => 0,
        Operation::Multiply(_) => through,
        Operation::Outer(_) => through + drain(machine),
        _ if machine.array_only => 0,
        Operation::Load(_) | Operation::LoadRows(_) | Operation::Store(_) | Operation::StoreRows(..) => {
            u64::from(machine.dram.latency)
        }
        Operation::Map(_) | Operation::Fold(_) | Operation::Scan(_) | Operation::Sort(_) => {
            u64::from(machine.vector.latency)
        }
    }
}

/// Cycles that sums which stayed in the array take to move out of it, once the last has been there.
pub fn drain(machine: &SystolicMachine) -> u64 {
    if machine.array_only { 0 } else { u64::from(machine.array.rows) }
}

/// Cycles for which an instruction keeps its unit from starting the next; at least one, but where only the array takes time.
pub fn occupancy(op: &Operation, machine: &SystolicMachine) -> u64 {
    if machine.array_only && !matches!(op.unit(), Unit::Preload | Unit::Array) {
        return 0;
    }
    let cycles = match op {
        Operation::Load(transfer) => transfer_cycles(transfer, machine.dram.read_bytes_per_cycle, machine),
        Operation::Store(transfer) => transfer_cycles(transfer, machine.dram.write_bytes_per_cycle, machine),
        Operation::LoadRows(rows) => rows_cycles(rows, 1, machine.dram.read_bytes_per_cycle, machine),
        Operation::StoreRows(rows, reduction, _) => {
            let times = if *reduction == ScatterReduction::Replace { 1 } else { 2 };
            rows_cycles(rows, times, machine.dram.write_bytes_per_cycle, machine)
        }
        Operation::Preload(_) => u64::from(machine.array.block_rows()),
        Operation::Multiply(multiply) => u64::from(multiply.m),
        Operation::Outer(outer) => u64::from(outer.k).max(drain(machine)),
        Operation::Map(map) => map_cycles(map, machine),
        Operation::Fold(fold) => fold_cycles(fold, machine),
        Operation::Scan(scan) => scan_cycles(scan, machine),
        Operation::Sort(sort) => sort_cycles(sort, machine),
    };
    cycles.max(1)
}

fn transfer_cycles(transfer: &Transfer, rate: u32, machine: &SystolicMachine) -> u64 {
    burst_cycles(bursts::of_transfer(transfer, u64::from(machine.dram.burst_bytes)), rate, machine)
}

fn rows_cycles(rows: &RowTransfer, times: u64, rate: u32, machine: &SystolicMachine) -> u64 {
    let bursts = bursts::of_rows(rows, u64::from(machine.dram.burst_bytes));
    burst_cycles(bursts.saturating_mul(times), rate, machine)
}

fn burst_cycles(bursts: u64, rate: u32, machine: &SystolicMachine) -> u64 {
    bursts.saturating_mul(u64::from(machine.dram.burst_bytes)).div_ceil(u64::from(rate))
}

fn is_special(function: MapFn) -> bool {
    match function {
        MapFn::Copy | MapFn::Select => false,
        MapFn::Unary(function) => matches!(
            function,
            UnaryFn::Recip
                | UnaryFn::Rsqrt
                | UnaryFn::Sqrt
                | UnaryFn::Exp
                | UnaryFn::Log
                | UnaryFn::Erf
                | UnaryFn::Tanh
                | UnaryFn::Sigmoid
                | UnaryFn::Softplus
                | UnaryFn::Sin
                | UnaryFn::Cos
                | UnaryFn::Tan
        ),
        MapFn::Binary(function) => {
            matches!(function, BinaryFn::Div | BinaryFn::Mod | BinaryFn::Rem | BinaryFn::Pow)
        }
    }
}

/// Cycles to walk the nest of a destination and its sources, `rate` elements at a time or fewer where the walks are
/// strided. `fixed_destination` allows the destination to stand still along the innermost dimension.
fn walk_cycles(
    dims: &[u32],
    destination: &Walk,
    sources: &[Source],
    rate: u32,
    fixed_destination: bool,
    machine: &SystolicMachine,
) -> u64 {
    let walks = walks_of(destination, sources);
    let nest = Nest::of_walks(dims, &walks);
    if walks.iter().flatten().any(|walk| walk.dtype.bits() == 64) {
        return nest.count();
    }
    let inner = nest.inner();
    let strided = nest.has_inner()
        && (0..OPERANDS).any(|operand| {
            walks[operand].is_some_and(|walk| {
                let step = inner.steps[operand];
                let stands = step == 0 && (operand > 0 || fixed_destination);
                !stands && step != walk.dtype.bits() as i64 / 4
            })
        });
    let rate = if strided { rate.min(machine.vector.strided_lanes) } else { rate };
    nest.rows().saturating_mul(inner.size.div_ceil(u64::from(rate)))
}

/// Elements that a function takes in a cycle where nothing is strided and no type is of 64 bits.
pub fn map_rate(function: MapFn, vector: &Vector) -> u32 {
    if is_special(function) { vector.lanes.min(vector.special_lanes) } else { vector.lanes }
}

fn map_cycles(map: &Map, machine: &SystolicMachine) -> u64 {
    let rate = map_rate(map.function, &machine.vector);
    walk_cycles(&map.dims, &map.destination, &map.sources, rate, false, machine)
}

fn fold_cycles(fold: &Fold, machine: &SystolicMachine) -> u64 {
    let lanes = machine.vector.lanes;
    let tree = ceil_log2(u64::from(lanes));
    walk_cycles(&fold.dims, &fold.destination, &fold.sources, lanes, true, machine).saturating_add(tree)
}

fn scan_cycles(scan: &Scan, machine: &SystolicMachine) -> u64 {
    let wide = scan.source.dtype.bits() == 64 || scan.destination.dtype.bits() == 64;
    let rate = if wide { 1 } else { machine.vector.strided_lanes };
    product(&scan.dims).div_ceil(u64::from(rate))
}

fn sort_cycles(sort: &Sort, machine: &SystolicMachine) -> u64 {
    let (rows, length) = match sort.dims.split_last() {
        None => (1, 1),
        Some((&length, outer)) => (product(outer), u64::from(length)),
    };
    let rate = if sort.source.dtype.bits() == 64 { 1 } else { machine.vector.lanes };
    let levels = ceil_log2(length).max(1);
    rows.saturating_mul(length.div_ceil(u64::from(rate))).saturating_mul(levels * (levels + 1) / 2)
}

fn product(dims: &[u32]) -> u64 {
    dims.iter().fold(1, |count: u64, &size| count.saturating_mul(u64::from(size)))
}

fn ceil_log2(value: u64) -> u64 {
    u64::from(value.max(1).next_power_of_two().trailing_zeros())
}
