//! What is checked of an instruction before it is executed: its form, its types, its addresses.

use smallvec::SmallVec;
use tcc_ir::DType;

use super::access::{self, Access, Space};
use super::array;
use super::dram::Dram;
use super::fault::FaultCause;
use crate::systolic::SystolicMachine;
use crate::systolic::isa::{MAX_DIMS, MapFn, Memory, Operation, RowTransfer, Source, Transfer, Walk, WeightRows};
use crate::systolic::machine::{ArrayType, Dataflow};
use crate::systolic::nest::walk_step;

/// Most steps that the counters of a loop nest hold.
const MAX_STEPS: u64 = 1 << 32;

/// Checks everything but addresses.
pub(super) fn form(op: &Operation, machine: &SystolicMachine) -> Result<(), FaultCause> {
    match op {
        Operation::Load(transfer) | Operation::Store(transfer) => transfer_form(transfer),
        Operation::LoadRows(rows) | Operation::StoreRows(rows, ..) => rows_form(rows),
        Operation::Preload(preload) => {
            let (groups, array) = (u32::from(preload.groups), &machine.array);
            if !groups.is_power_of_two() || groups > array.blocks() {
                return Err(FaultCause::Malformed("the array cannot be divided into as many groups"));
            }
            if u32::from(preload.k) > array.total_rows() / groups || u32::from(preload.n) > array.columns {
                return Err(FaultCause::Malformed(
                    "the weights are larger than the array, or than a group of its rows",
                ));
            }
            multiplied(preload.dtype, "weights of the array", machine)
        }
        Operation::Multiply(multiply) => multiplied(multiply.dtype, "the array's left operand", machine),
        Operation::Outer(outer) => {
            let array = &machine.array;
            if !array.runs(Dataflow::OutputStationary) {
                return Err(FaultCause::Malformed("sums do not stay in the array of this machine"));
            }
            if u32::from(outer.m) > array.rows || u32::from(outer.n) > array.columns {
                return Err(FaultCause::Malformed("the sums are more than the array has cells"));
            }
            steps(outer.a_dims().into_iter().map(u64::from))?;
            for (walk, role) in [(&outer.a, "the array's left operand"), (&outer.b, "the array's right operand")] {
                if walk.memory != Memory::Scratchpad {
                    return Err(FaultCause::Malformed("the array reads the scratchpad only"));
                }
                walk_form(walk, 2)?;
                multiplied(walk.dtype, role, machine)?;
            }
            Ok(())
        }
        Operation::Map(map) => {
            nest_form(&map.dims)?;
            walk_form(&map.destination, map.dims.len())?;
            sources_form(&map.sources, map.function.operands(), map.dims.len())?;
            if map.function == MapFn::Select {
                match &map.sources[0] {
                    Source::Walk(walk) if walk.dtype != DType::Bool => {
                        return Err(FaultCause::Type { dtype: walk.dtype, role: "condition" });
                    }
                    Source::Float(_) => return Err(FaultCause::Malformed("a condition is no float")),
                    _ => {}
                }
            }
            distinct(&map.destination, &map.dims)?;
            apart(&map.destination, &map.sources, &map.dims)
        }
        Operation::Fold(fold) => {
            nest_form(&fold.dims)?;
            walk_form(&fold.destination, fold.dims.len())?;
            sources_form(&fold.sources, fold.function.operands(), fold.dims.len())?;
            if fold.destination.dtype.bits() == 4 {
                return Err(FaultCause::Type { dtype: fold.destination.dtype, role: "destination of a fold" });
            }
            let Some(kept) = fold.dims.len().checked_sub(usize::from(fold.reduced)) else {
                return Err(FaultCause::Malformed("more dimensions are folded than there are"));
            };
            if fold.dims[kept..].contains(&0) {
                return Err(FaultCause::Malformed("it folds over no elements"));
            }
            if fold.dims[kept..].iter().zip(&fold.destination.strides[kept..]).any(|(&size, &s)| size > 1 && s != 0) {
                return Err(FaultCause::Malformed("the destination moves along a folded dimension"));
            }
            distinct(&fold.destination, &fold.dims[..kept])?;
            apart_always(&fold.destination, &fold.sources, &fold.dims)
        }
        Operation::Scan(scan) => {
            nest_form(&scan.dims)?;
            walk_form(&scan.destination, scan.dims.len())?;
            walk_form(&scan.source, scan.dims.len())?;
            if scan.dims.is_empty() {
                return Err(FaultCause::Malformed("there is no dimension to sum along"));
            }
            distinct(&scan.destination, &scan.dims)?;
            apart(&scan.destination, &[Source::Walk(scan.source.clone())], &scan.dims)
        }
        Operation::Sort(sort) => {
            nest_form(&sort.dims)?;
            walk_form(&sort.source, sort.dims.len())?;
            let Some(&length) = sort.dims.last() else {
                return Err(FaultCause::Malformed("there is no dimension to sort along"));
            };
            if sort.k > length {
                return Err(FaultCause::Malformed("more elements are kept than a row has"));
            }
            let kept = sort.kept_dims();
            if let Some(values) = &sort.values
                && values.dtype != sort.source.dtype
            {
                return Err(FaultCause::Type { dtype: values.dtype, role: "values of another type" });
            }
            if let Some(positions) = &sort.positions
                && !matches!(positions.dtype, DType::I32 | DType::I64)
            {
                return Err(FaultCause::Type { dtype: positions.dtype, role: "positions" });
            }
            let source = access::walk(&sort.source, &sort.dims, false);
            for result in [&sort.values, &sort.positions].into_iter().flatten() {
                walk_form(result, sort.dims.len())?;
                distinct(result, &kept)?;
                if source.overlaps(&access::walk(result, &kept, true)) {
                    return Err(FaultCause::Overlap(0));
                }
            }
            if let (Some(values), Some(positions)) = (&sort.values, &sort.positions)
                && access::walk(values, &kept, true).overlaps(&access::walk(positions, &kept, true))
            {
                return Err(FaultCause::Malformed("values and positions go to the same place"));
            }
            Ok(())
        }
    }
}

/// Checks that the array multiplies elements of a type.
fn multiplied(dtype: DType, role: &'static str, machine: &SystolicMachine) -> Result<(), FaultCause> {
    match array::kind_of(dtype, role)?.array_type() {
        kind if machine.array.types.contains(&kind) => Ok(()),
        ArrayType::Bf16 => Err(FaultCause::Malformed("the array of this machine multiplies no floats")),
        ArrayType::Int8 => Err(FaultCause::Malformed("the array of this machine multiplies no integers")),
    }
}

/// Checks what the weights in use ask of a pass.
pub(super) fn pass_form(op: &Operation, weights: WeightRows) -> Result<(), FaultCause> {
    match op {
        Operation::Multiply(multiply) if weights.groups > 1 && multiply.group_rows < multiply.m => {
            Err(FaultCause::Malformed("groups of rows write the same accumulators"))
        }
        _ => Ok(()),
    }
}

fn steps(sizes: impl Iterator<Item = u64>) -> Result<(), FaultCause> {
    let count = sizes.fold(1u64, |count, size| count.saturating_mul(size));
    if count > MAX_STEPS {
        return Err(FaultCause::Malformed("it takes more steps than its counters hold"));
    }
    Ok(())
}

fn transfer_form(transfer: &Transfer) -> Result<(), FaultCause> {
    if transfer.dims.len() > MAX_DIMS {
        return Err(FaultCause::Malformed("it has too many dimensions"));
    }
    if transfer.element_bytes == 0 {
        return Err(FaultCause::Malformed("its elements have no bytes"));
    }
    steps(transfer.dims.iter().map(|dim| u64::from(dim.size)))
}

fn rows_form(rows: &RowTransfer) -> Result<(), FaultCause> {
    if rows.row_bytes == 0 {
        return Err(FaultCause::Malformed("its rows have no bytes"));
    }
    if !matches!(rows.index_dtype, DType::I32 | DType::I64) {
        return Err(FaultCause::Type { dtype: rows.index_dtype, role: "indices" });
    }
    steps([u64::from(rows.outer), u64::from(rows.count)].into_iter())
}

fn nest_form(dims: &[u32]) -> Result<(), FaultCause> {
    if dims.len() > MAX_DIMS {
        return Err(FaultCause::Malformed("it has too many dimensions"));
    }
    steps(dims.iter().map(|&size| u64::from(size)))
}

fn walk_form(walk: &Walk, rank: usize) -> Result<(), FaultCause> {
    if walk.strides.len() != rank {
        return Err(FaultCause::Malformed("a walk has not as many strides as the nest has dimensions"));
    }
    if walk.memory == Memory::Accumulators && !matches!(walk.dtype, DType::F32 | DType::I32) {
        return Err(FaultCause::Type { dtype: walk.dtype, role: "elements of the accumulators" });
    }
    if walk.dtype.bits() == 4 && walk.strides.last().is_some_and(|&stride| stride != 0) {
        return Err(FaultCause::Malformed("four-bit elements have an innermost stride of 0: they lie packed"));
    }
    Ok(())
}

fn sources_form(sources: &[Source], arity: usize, rank: usize) -> Result<(), FaultCause> {
    if sources.len() != arity {
        return Err(FaultCause::Malformed("it has not as many operands as its function takes"));
    }
    sources.iter().try_for_each(|source| match source {
        Source::Walk(walk) => walk_form(walk, rank),
        Source::Float(_) | Source::Integer(_) => Ok(()),
    })
}

/// Checks that no two steps of a destination write the same bits: each dimension steps over all that the dimensions of
/// lesser steps reach. (Walks that interleave dimensions without meeting are refused too.)
fn distinct(destination: &Walk, dims: &[u32]) -> Result<(), FaultCause> {
    if dims.contains(&0) {
        return Ok(());
    }
    let steps = dims.iter().enumerate().filter(|(_, size)| **size > 1);
    let mut steps: SmallVec<[(u64, u64); 4]> = steps
        .map(|(axis, &size)| (walk_step(destination, axis, destination.strides.len()).unsigned_abs(), u64::from(size)))
        .collect();
    steps.sort_unstable();
    let mut reach = destination.dtype.bits() as u64 / 4;
    for (step, size) in steps {
        if step < reach {
            return Err(FaultCause::Malformed("elements of the destination overlap"));
        }
        reach = reach.saturating_add(step.saturating_mul(size - 1));
    }
    Ok(())
}

/// Checks that sources are either the very walk of the destination or share no byte with it.
fn apart(destination: &Walk, sources: &[Source], dims: &[u32]) -> Result<(), FaultCause> {
    check_apart(destination, sources, dims, |walk| {
        walk.memory == destination.memory
            && walk.address == destination.address
            && walk.strides == destination.strides
            && walk.dtype.bits() == destination.dtype.bits()
    })
}

/// Checks that sources share no byte with the destination.
fn apart_always(destination: &Walk, sources: &[Source], dims: &[u32]) -> Result<(), FaultCause> {
    check_apart(destination, sources, dims, |_| false)
}

fn check_apart(
    destination: &Walk,
    sources: &[Source],
    dims: &[u32],
    excused: impl Fn(&Walk) -> bool,
) -> Result<(), FaultCause> {
    let written = access::walk(destination, dims, true);
    for (operand, source) in sources.iter().enumerate() {
        if let Source::Walk(walk) = source
            && !excused(walk)
            && access::walk(walk, dims, false).overlaps(&written)
        {
            return Err(FaultCause::Overlap(operand));
        }
    }
    Ok(())
}

/// Checks that an access stays within its memory.
pub(super) fn bounds(access: &Access, machine: &SystolicMachine, dram: &mut Dram) -> Result<(), FaultCause> {
    let Some((from, to)) = access.bounds() else { return Ok(()) };
    let capacity = match access.space {
        Space::Scratchpad => u64::from(machine.scratchpad.bytes),
        Space::Accumulators => u64::from(machine.accumulators.rows) * u64::from(machine.array.columns) * 4,
        Space::Dram => {
            let fault = FaultCause::Dram { write: access.write, from, to };
            let (Ok(start), Ok(end)) = (u64::try_from(from), u64::try_from(to)) else { return Err(fault) };
            let there = if access.write { dram.write(start..end).is_some() } else { dram.read(start..end).is_some() };
            return if there { Ok(()) } else { Err(fault) };
        }
    };
    if from < 0 || to > i128::from(capacity) {
        return Err(FaultCause::OutOfRange { space: access.space, from, to, capacity });
    }
    Ok(())
}
