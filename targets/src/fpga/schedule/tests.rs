//! Kernels whose schedules are known by hand, at 300 MHz: 3.33 ns a cycle, of which 2.43 ns are for logic. There binary32 addition
//! takes 6 cycles, multiplication 4, and the external memory has a latency of 120.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::*;
use crate::Machine;
use crate::fpga::design::{Adders, Home, MemoryId, OnChip};
use crate::kernel::{Builder, IndexFn, Kernel, Scalar};
use crate::number::FoldFn;

const CLOCK: u64 = 300_000_000;

/// Memories on the part with so many banks, and where buffers lie: in the memory of their number, or external.
fn scheduled(kernel: Kernel, memories: &[(DType, u32)], homes: Vec<Home>) -> Schedule {
    crate::kernel::check::check(&kernel).unwrap();
    let memory = |(index, &(dtype, banks)): (usize, &(DType, u32))| OnChip {
        name: format!("m{index}"),
        dtype,
        banks,
        words: 4096,
        storage: Storage::Bram,
    };
    let memories = memories.iter().enumerate().map(memory).collect();
    let design = Design { memories, channels: 4, ..Design::default() };
    let machine = Machine::parse("u280", Machine::built_in_text("u280").unwrap()).unwrap();
    let facts = machine.fpga.as_ref().unwrap();
    Schedule::new(&Function::new(kernel, homes), &design, facts, CLOCK).unwrap()
}

fn on_chip(memory: u32) -> Home {
    Home::OnChip(MemoryId(memory))
}

/// y = sum of a b over 1,024, one lane.
fn dot(dtype: DType, partial: u32) -> Kernel {
    let mut b = Builder::new("dot", 1);
    let [x, w] = ["x", "w"].map(|name| b.buffer(name, dtype, 1024, false));
    let wide = if dtype.is_float() { dtype } else { DType::I32 };
    let y = b.buffer("y", wide, 1, true);
    let zero = if dtype.is_float() { b.float(wide, 0.0) } else { b.number(wide, 0) };
    let sums = b.array("sums", Scalar::of(wide), partial, zero);
    let (from, to) = (b.integer(0), b.integer(1024));
    let k = b.loop_over("k", from, to, partial);
    for part in 0..partial {
        let part = b.integer(part as i32);
        let at = b.add(k, part);
        let (a, c) = (b.load(x, at, "a"), b.load(w, at, "c"));
        let sum = b.element(sums, part);
        let product = b.binary(BinaryFn::Mul, wide, a, c);
        let sum = b.binary(BinaryFn::Add, wide, sum, product);
        b.set_element(sums, part, sum);
    }
    b.end();
    let first = b.integer(0);
    let mut total = b.element(sums, first);
    for part in 1..partial {
        let part = b.integer(part as i32);
        let other = b.element(sums, part);
        total = b.binary(BinaryFn::Add, wide, total, other);
    }
    b.store(y, first, total);
    b.finish([1, 1, 1], Vec::new())
}

#[test]
fn sums_of_floats_wait_for_additions() {
    let homes = || vec![on_chip(0), on_chip(1), on_chip(2)];
    let memories = [(DType::F32, 1), (DType::F32, 1), (DType::F32, 1)];
    let schedule = scheduled(dot(DType::F32, 1), &memories, homes());
    assert_eq!(schedule.intervals(), [6]);
    assert_eq!(schedule.bound_by(), Binding::Recurrence);
    // Read at 0, at 1 in block RAM's output for the rest of the cycle, so the product starts at 2 and is there at 6, the sum at 12.
    assert_eq!(schedule.loops[0].depth, 12);
    // 2 to enter and leave.
    assert_eq!(schedule.loops[0].cycles, 2 + 12 + 6 * 1023);
    // The sum is written in a block of its own.
    assert_eq!(schedule.cycles(), CALL + schedule.loops[0].cycles + 1);
    let usage = schedule.usage();
    assert_eq!(usage.resources(Adders::Fabric).dsps, 2);
}

#[test]
fn sums_of_integers_do_not_wait() {
    let memories = [(DType::I8, 1), (DType::I8, 1), (DType::I32, 1)];
    let schedule = scheduled(dot(DType::I8, 1), &memories, vec![on_chip(0), on_chip(1), on_chip(2)]);
    assert_eq!(schedule.intervals(), [1]);
    // Read at 0, product from 2 to 4, sum in the register of the slice from 5 on.
    assert_eq!(schedule.loops[0].depth, 5);
    assert_eq!(schedule.cycles(), CALL + 2 + 5 + 1023 + 1);
    // 8 by 8 bits.
    assert_eq!(schedule.usage().resources(Adders::Fabric).dsps, 1);
}

#[test]
fn ports_bound_what_is_written_out() {
    // 8 elements a time of one bank that gives two: 4 cycles, less than the 6 of an addition; 8 banks give all in one.
    let memories = [(DType::I8, 1), (DType::I8, 1), (DType::I32, 1)];
    let homes = || vec![on_chip(0), on_chip(1), on_chip(2)];
    let schedule = scheduled(dot(DType::I8, 8), &memories, homes());
    assert_eq!(schedule.intervals(), [4]);
    assert_eq!(schedule.bound_by(), Binding::Ports);
    // 8 products in 4 cycles.
    assert_eq!(schedule.usage().resources(Adders::Fabric).dsps, 2);
    let memories = [(DType::I8, 8), (DType::I8, 8), (DType::I32, 1)];
    assert_eq!(scheduled(dot(DType::I8, 8), &memories, homes()).intervals(), [1]);
    let memories = [(DType::F32, 8), (DType::F32, 8), (DType::F32, 1)];
    assert_eq!(scheduled(dot(DType::F32, 8), &memories, homes()).intervals(), [6]);
}

/// y[r][l] = x[r][l] + 1 for 10 by 100 words of 16 lanes.
fn elements(condition: Option<i32>) -> Kernel {
    let mut b = Builder::new("elements", 16);
    let x = b.buffer("x", DType::F32, 16_000, false);
    let y = b.buffer("y", DType::F32, 16_000, true);
    let (lane, column, row) = (b.thread(), b.block(0), b.block(1));
    let row = b.scaled(row, 1600);
    let column = b.scaled(column, 16);
    let at = b.add(row, column);
    let at = b.add(at, lane);
    if let Some(limit) = condition {
        let below = b.below(at, limit);
        b.when(below);
    }
    let one = b.float(DType::F32, 1.0);
    let loaded = b.load(x, at, "a");
    let sum = b.binary(BinaryFn::Add, DType::F32, loaded, one);
    b.store(y, at, sum);
    if condition.is_some() {
        b.end();
    }
    b.finish([100, 10, 1], Vec::new())
}

#[test]
fn grids_are_one_loop() {
    let memories = [(DType::F32, 16), (DType::F32, 16)];
    let schedule = scheduled(elements(None), &memories, vec![on_chip(0), on_chip(1)]);
    assert_eq!(schedule.nest.loops.len(), 1);
    assert_eq!((schedule.nest.loops[0].trips(), schedule.intervals()), (1000, vec![1]));
    // The word is 100 row + column: row times 100 in one cycle (100 = 128 - 32 + 4: two additions one after the other, 2 ns), the sum
    // and the address in the next. Read there, added from 3 to 9, and written in 9.
    assert_eq!(schedule.loops[0].depth, 10);
    assert_eq!(schedule.cycles(), CALL + 2 + 10 + 999);
    // A lane each, and one address for all.
    let adds = &schedule.usage().operators;
    assert_eq!(adds.values().copied().collect::<Vec<_>>(), [16]);
}

#[test]
fn writes_have_predicates() {
    let memories = [(DType::F32, 16), (DType::F32, 16)];
    let schedule = scheduled(elements(Some(15_990)), &memories, vec![on_chip(0), on_chip(1)]);
    let stores = schedule.nest.ops.iter().filter(|op| matches!(op.kind, Kind::Store(..)));
    let stores: Vec<_> = stores.collect();
    assert_eq!(stores.len(), 1);
    assert!(stores[0].predicate.is_some() && stores[0].copies == 16);
    assert_eq!(schedule.intervals(), [1]);
}

#[test]
fn streams_go_at_the_rate_of_the_memory() {
    let external = |first| Home::External { first, ways: 1 };
    let schedule = scheduled(elements(None), &[], vec![external(0), external(1)]);
    // A beat an iteration in each of two channels, at 64 / 44.08 cycles.
    assert_eq!(schedule.nest.streams.len(), 2);
    let beats = |read, written| Beats { read, written };
    assert_eq!(schedule.traffic.values().copied().collect::<Vec<_>>(), [beats(1000, 0), beats(0, 1000)]);
    // The beat at 0, there at 1, added from 1 to 7, written at 7.
    let time = &schedule.loops[0];
    assert_eq!((time.interval, time.depth, time.waits), (1, 8, 120 + 1452 - 999));
    assert_eq!(schedule.cycles(), CALL + 2 + 8 + 120 + 1452 + 120);
    assert_eq!(schedule.bound_by(), Binding::Work);
    // Two channels take turns, so that each has half, which comes as fast as it is wanted.
    let both = |first| Home::External { first, ways: 2 };
    let schedule = scheduled(elements(None), &[], vec![both(0), both(2)]);
    assert_eq!(schedule.cycles(), CALL + 2 + 8 + 120 + 999 + 120);
}

/// s[i] = s[i - d] + x[i] in a local memory.
fn recurrence(distance: i32) -> Kernel {
    let mut b = Builder::new("recurrence", 1);
    let x = b.buffer("x", DType::F32, 1024, false);
    let y = b.buffer("y", DType::F32, 1024, true);
    let s = b.shared("s", DType::F32, 1024);
    let (from, to) = (b.integer(distance), b.integer(1024));
    let i = b.loop_over("i", from, to, 1);
    let d = b.integer(distance);
    let before = b.index(IndexFn::Sub, i, d);
    let old = b.load_shared(s, before, "old");
    let new = b.load(x, i, "new");
    let sum = b.binary(BinaryFn::Add, DType::F32, old, new);
    b.store_shared(s, i, sum);
    b.store(y, i, sum);
    b.end();
    b.finish([1, 1, 1], Vec::new())
}

#[test]
fn memories_hand_on_between_iterations() {
    let memories = [(DType::F32, 1), (DType::F32, 1)];
    let interval = |distance| {
        let schedule = scheduled(recurrence(distance), &memories, vec![on_chip(0), on_chip(1)]);
        schedule.intervals()[0]
    };
    // Read in one cycle, out of block RAM in the next, added in 6, written in one: 9 cycles from read to read, over the distance.
    assert_eq!(interval(1), 9);
    assert_eq!(interval(2), 5);
    assert_eq!(interval(4), 3);
    assert_eq!(interval(9), 1);
}

/// For each of 4 tiles of 16 by 16: in by rows, out by columns.
fn transpose() -> Kernel {
    let mut b = Builder::new("transpose", 16);
    let x = b.buffer("x", DType::F32, 1024, false);
    let y = b.buffer("y", DType::F32, 1024, true);
    let tile = b.shared("tile", DType::F32, 256);
    let (lane, block) = (b.thread(), b.block(0));
    let first = b.scaled(block, 256);
    let (from, to) = (b.integer(0), b.integer(16));
    let i = b.loop_over("i", from, to, 1);
    let row = b.scaled(i, 16);
    let within = b.add(row, lane);
    let at = b.add(first, within);
    let loaded = b.load(x, at, "a");
    b.store_shared(tile, within, loaded);
    b.end();
    b.barrier();
    let j = b.loop_over("j", from, to, 1);
    let column = b.scaled(lane, 16);
    let across = b.add(column, j);
    let held = b.load_shared(tile, across, "b");
    let row = b.scaled(j, 16);
    let within = b.add(row, lane);
    let at = b.add(first, within);
    b.store(y, at, held);
    b.end();
    b.finish([4, 1, 1], Vec::new())
}

#[test]
fn transposes_conflict() {
    let memories = [(DType::F32, 16), (DType::F32, 16)];
    let schedule = scheduled(transpose(), &memories, vec![on_chip(0), on_chip(1)]);
    // Lane l has column j of row l: element 16 l + j. With 16 banks all lanes want bank j. With 256 / 2 banks, 16 l + j is bank
    // (16 l + j) % 128, which two lanes share: both ports. Fewer banks have more lanes in each.
    let tile = &schedule.nest.arrays[2];
    assert_eq!(tile.banks, 128);
    assert_eq!(schedule.intervals(), [1, 1]);
    assert_eq!(schedule.nest.loops.len(), 3);
    assert!(!schedule.nest.loops[0].pipelined);
}

/// Sums of rows of 256 by 16 lanes, which combine.
fn rows() -> Kernel {
    let mut b = Builder::new("rows", 16);
    let x = b.buffer("x", DType::F32, 64 * 256, false);
    let y = b.buffer("y", DType::F32, 64, true);
    let scratch = b.shared("scratch", DType::F32, 16);
    let (lane, row) = (b.thread(), b.block(0));
    let zero = b.float(DType::F32, 0.0);
    let sum = b.declare("sum", Scalar::F32, zero);
    let first = b.scaled(row, 256);
    let (from, to) = (b.integer(0), b.integer(256));
    let k = b.loop_over("k", from, to, 16);
    let at = b.add(first, k);
    let at = b.add(at, lane);
    let loaded = b.load(x, at, "a");
    let held = b.get(sum);
    let more = b.binary(BinaryFn::Add, DType::F32, held, loaded);
    b.set(sum, more);
    b.end();
    b.reduce(sum, FoldFn::Sum, DType::F32, 16, scratch);
    let total = b.get(sum);
    b.store(y, row, total);
    b.finish([64, 1, 1], Vec::new())
}

#[test]
fn lanes_combine_in_trees() {
    let memories = [(DType::F32, 16), (DType::F32, 1)];
    let schedule = scheduled(rows(), &memories, vec![on_chip(0), on_chip(1)]);
    // An iteration of rows: 16 words, at intervals of 6: the address at 0 (16 row + k), read at 1 from 0, added from 2 to 8.
    let inner = &schedule.loops[1];
    assert_eq!((inner.interval, inner.depth, inner.cycles), (6, 8, 2 + 8 + 6 * 15));
    // Four levels of 6 cycles, and the write.
    assert_eq!(schedule.nest.lanes, 16);
    let fold = schedule.nest.ops.iter().find(|op| matches!(op.kind, Kind::Fold { .. })).unwrap();
    assert_eq!(fold.copies, 1);
    // Where the row begins is known a cycle after its iteration has.
    assert_eq!(schedule.cycles(), CALL + 1 + 64 * (1 + 1 + inner.cycles + 25));
    // Lanes add in step, all 16 in one of 6 cycles; the tree has 8 at a time, later.
    assert_eq!(schedule.usage().operators.values().copied().collect::<Vec<_>>(), [16]);
}

/// A product of `rows` by 64 lanes with `steps` steps written out, of bytes.
fn product(rows: u32, steps: u32) -> Kernel {
    let mut b = Builder::new("product", 64);
    let x = b.buffer("x", DType::I8, 1 << 16, false);
    let w = b.buffer("w", DType::I8, 1 << 16, false);
    let y = b.buffer("y", DType::I32, u64::from(rows) * 64, true);
    let none = b.number(DType::I32, 0);
    let (lane, from, to) = (b.thread(), b.integer(0), b.integer(16));
    let sums = b.array("sums", Scalar::I32, rows, none);
    let k = b.loop_over("k", from, to, 1);
    let step = b.unrolled("step", steps);
    let before = b.scaled(k, steps as i32);
    let depth = b.add(before, step);
    let first = b.scaled(depth, 64);
    let at = b.add(first, lane);
    let weight = b.load(w, at, "weight");
    let row = b.unrolled("row", rows);
    let first = b.scaled(depth, rows as i32);
    let at = b.add(first, row);
    let a = b.load(x, at, "a");
    let sum = b.element(sums, row);
    let next = b.mul_add(DType::I32, a, weight, sum);
    b.set_element(sums, row, next);
    b.end();
    b.end();
    b.end();
    let row = b.unrolled("row", rows);
    let first = b.scaled(row, 64);
    let at = b.add(first, lane);
    let sum = b.element(sums, row);
    b.store(y, at, sum);
    b.end();
    b.finish([1, 1, 1], Vec::new())
}

#[test]
fn much_that_is_written_out_is_scheduled_at_once() {
    // 128 steps of 128 rows: 16,384 multiplications and as many additions.
    let memories = [(DType::I8, 16_384), (DType::I8, 8192), (DType::I32, 64)];
    let begun = std::time::Instant::now();
    let schedule = scheduled(product(128, 128), &memories, vec![on_chip(0), on_chip(1), on_chip(2)]);
    // A second in a build that is hardly optimised, on a machine that does other things, is what a search over designs can bear; far
    // more is a sign of something quadratic.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    assert!(schedule.nest.ops.len() > 32_768);
    // The sums of 128 products are trees, and what is carried is added last.
    assert_eq!(schedule.intervals(), [1]);
}

#[test]
fn operators_are_shared_in_an_interval() {
    // 8 rows of 4 lanes, of floats whose sums wait 6 cycles: 8 multiplications and 8 additions of 4 copies, 2 of each in a cycle.
    let mut b = Builder::new("floats", 4);
    let x = b.buffer("x", DType::F32, 8 * 256, false);
    let w = b.buffer("w", DType::F32, 4 * 256, false);
    let y = b.buffer("y", DType::F32, 32, true);
    let nothing = b.float(DType::F32, 0.0);
    let (lane, from, to) = (b.thread(), b.integer(0), b.integer(256));
    let sums = b.array("sums", Scalar::F32, 8, nothing);
    let k = b.loop_over("k", from, to, 1);
    let first = b.scaled(k, 4);
    let at = b.add(first, lane);
    let weight = b.load(w, at, "weight");
    let row = b.unrolled("row", 8);
    let first = b.scaled(k, 8);
    let at = b.add(first, row);
    let a = b.load(x, at, "a");
    let sum = b.element(sums, row);
    let product = b.binary(BinaryFn::Mul, DType::F32, a, weight);
    let next = b.binary(BinaryFn::Add, DType::F32, sum, product);
    b.set_element(sums, row, next);
    b.end();
    b.end();
    let row = b.unrolled("row", 8);
    let first = b.scaled(row, 4);
    let at = b.add(first, lane);
    let sum = b.element(sums, row);
    b.store(y, at, sum);
    b.end();
    let memories = [(DType::F32, 8), (DType::F32, 4), (DType::F32, 4)];
    let homes = vec![on_chip(0), on_chip(1), on_chip(2)];
    let schedule = scheduled(b.finish([1, 1, 1], Vec::new()), &memories, homes);
    assert_eq!(schedule.intervals(), [6]);
    assert_eq!(schedule.usage().operators.values().copied().collect::<Vec<_>>(), [8, 8]);
    // The last pair of rows starts 3 cycles after the first: read at 0, multiplied from 2, 3, 4 and 5 to 9, added to 15.
    assert_eq!(schedule.loops[0].depth, 15);
}

#[test]
fn slices_add_to_their_products() {
    // 8 rows of 64 lanes, of which each has a product, and adds it to what the iteration before has left: the adder's register is all
    // that the next one waits for.
    let memories = [(DType::I8, 8), (DType::I8, 64), (DType::I32, 64)];
    let homes = vec![on_chip(0), on_chip(1), on_chip(2)];
    let schedule = scheduled(product(8, 1), &memories, homes.clone());
    assert_eq!(schedule.intervals(), [1]);
    assert_eq!(schedule.nest.slices.len(), 2 * 8);
    let usage = schedule.usage();
    assert_eq!(usage.resources(Adders::Fabric).dsps, 8 * 64);
    let adders = |usage: &super::Usage| usage.operations.keys().filter(|class| matches!(class, Class::Add(_))).count();
    assert_eq!(adders(usage), 0);
    // Of 8 steps there are two chains of 4 slices, of which a tree makes one sum: the first of a chain has nothing to add to.
    let memories = [(DType::I8, 64), (DType::I8, 512), (DType::I32, 64)];
    let schedule = scheduled(product(8, 8), &memories, homes);
    assert_eq!(schedule.intervals(), [1]);
    assert_eq!(schedule.nest.slices.len(), 2 * 8 * 6);
    assert_eq!(schedule.usage().resources(Adders::Fabric).dsps, 8 * 8 * 64);
}
