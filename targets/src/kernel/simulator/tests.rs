//! Blocks that arrive, and what they must not do.

#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::{Fault, Memory, Place, launch};
use crate::kernel::check::check;
use crate::kernel::{Builder, Kernel, Stmt};

/// Blocks along each axis: what they hand over is summed along the second.
const GRID: [u32; 3] = [2, 5, 3];

/// Threads of a block.
const THREADS: u32 = 32;

/// What to do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// To read what is handed over without having arrived last.
    Early,
    /// To write it when blocks have arrived.
    Late,
    /// To have fewer counters than there are places along the other axes.
    FewCounters,
    /// To arrive in a scope.
    Scope,
    /// To write to a counter.
    WrittenCounter,
    /// To read what blocks have written that arrive by another counter.
    OtherCounter,
    /// To read what nobody has written.
    Unwritten,
}

/// Each block hands over its number and the thread's; the last of those along the second axis adds them up in their order.
fn kernel(wrong: Wrong) -> Kernel {
    let mut builder = Builder::new("sums", THREADS);
    let [x, y, z] = GRID;
    let counters = u64::from(x * z) - u64::from(wrong == Wrong::FewCounters);
    let counted = builder.buffer("counters", DType::U32, counters, true);
    let all = u64::from(x * y * z * THREADS);
    let handed = builder.buffer("handed", DType::I32, all + 1, true);
    let sums = builder.buffer("sums", DType::I32, u64::from(x * z * THREADS), true);
    let told = builder.shared("told", DType::I32, 1);
    let thread = builder.thread();
    let blocks = [0, 1, 2].map(|axis| builder.block(axis));
    let before = builder.scaled(blocks[2], x as i32);
    let place = builder.add(before, blocks[0]);
    let at = |builder: &mut Builder, part| {
        let before = builder.scaled(place, y as i32);
        let number = builder.add(before, part);
        let first = builder.scaled(number, THREADS as i32);
        builder.add(first, thread)
    };
    let own = at(&mut builder, blocks[1]);
    builder.store(handed, own, own);
    if wrong == Wrong::WrittenCounter {
        let zero = builder.integer(0);
        let number = builder.number(DType::U32, 0);
        builder.store(counted, zero, number);
    }
    if wrong == Wrong::Scope {
        builder.when(blocks[0]);
    }
    let last = builder.arrive("last", counted, 1, told);
    if wrong == Wrong::Late {
        builder.store(handed, own, own);
    }
    if wrong == Wrong::Early {
        builder.when(thread);
    } else {
        builder.when(last);
    }
    let zero = builder.integer(0);
    let sum = builder.declare("sum", crate::kernel::Scalar::I32, zero);
    let part = builder.unrolled("part", y);
    let other = at(&mut builder, part);
    let moved = builder.integer(match wrong {
        Wrong::OtherCounter => (y * THREADS) as i32 - 1,
        _ => 0,
    });
    let other = builder.add(other, moved);
    let limit = builder.integer(all as i32 - 1);
    let other = builder.index(crate::kernel::IndexFn::Min, other, limit);
    let other = if wrong == Wrong::Unwritten { builder.integer(all as i32) } else { other };
    let value = builder.load(handed, other, "value");
    let so_far = builder.get(sum);
    let next = builder.binary(BinaryFn::Add, DType::I32, so_far, value);
    builder.set(sum, next);
    builder.end();
    let first = builder.scaled(place, THREADS as i32);
    let to = builder.add(first, thread);
    let sum = builder.get(sum);
    builder.store(sums, to, sum);
    builder.end();
    if wrong == Wrong::Scope {
        builder.end();
    }
    builder.finish(GRID, Vec::new())
}

fn run(kernel: &Kernel, counter: u8) -> Result<Vec<i32>, Fault> {
    let [x, y, z] = GRID.map(u64::from);
    let threads = u64::from(THREADS);
    let handed = 512;
    let sums = handed + 4 * (x * y * z * threads + 1);
    let mut memory = Memory { weights: &[], values: vec![0; (sums + 4 * x * z * threads) as usize] };
    memory.values[0] = counter;
    launch(kernel, 32, &mut memory, &[Place::Values(0), Place::Values(handed), Place::Values(sums)])?;
    assert!(memory.values[..24].iter().all(|&byte| byte == 0));
    Ok(memory.values[sums as usize..].chunks(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())).collect())
}

#[test]
fn the_last_block_sees_what_all_have_written() {
    let kernel = kernel(Wrong::Nothing);
    check(&kernel).unwrap();
    let sums = run(&kernel, 0).unwrap();
    let [x, y, z] = GRID;
    for place in 0..x * z {
        for thread in 0..THREADS {
            let wanted: u32 = (0..y).map(|part| (place * y + part) * THREADS + thread).sum();
            assert_eq!(sums[(place * THREADS + thread) as usize], wanted as i32, "place {place}, thread {thread}");
        }
    }
}

#[test]
fn counters_begin_at_0() {
    let found = run(&kernel(Wrong::Nothing), 3);
    assert_eq!(found, Err(Fault::Counter { array: "counters".to_owned(), counter: 0, value: 3 }));
}

#[test]
fn what_was_not_handed_over_is_not_read() {
    for wrong in [Wrong::OtherCounter, Wrong::Unwritten] {
        let kernel = kernel(wrong);
        check(&kernel).unwrap();
        let found = run(&kernel, 0);
        assert!(matches!(&found, Err(Fault::NotHanded { array, .. }) if array == "handed"), "{wrong:?}: {found:?}");
    }
}

#[test]
fn kernels_that_read_too_early_or_do_not_count_are_refused() {
    for wrong in [Wrong::Early, Wrong::Late, Wrong::FewCounters, Wrong::Scope, Wrong::WrittenCounter] {
        assert!(check(&kernel(wrong)).is_err(), "{wrong:?}");
    }
    // Twice.
    let mut twice = kernel(Wrong::Nothing);
    let arrive = *twice.body.iter().find(|stmt| matches!(stmt, Stmt::Arrive { .. })).unwrap();
    twice.body.push(arrive);
    assert!(check(&twice).is_err());
    // In elements that are too narrow, or along an axis that there is not.
    let mut narrow = kernel(Wrong::Nothing);
    narrow.buffers[1].dtype = DType::I16;
    assert!(check(&narrow).is_err());
    let mut axis = kernel(Wrong::Nothing);
    for stmt in &mut axis.body {
        if let Stmt::Arrive { axis, .. } = stmt {
            *axis = 3;
        }
    }
    assert!(check(&axis).is_err());
}
