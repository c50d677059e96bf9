//! Kernels whose time can be told by hand.

#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::setting::Setting;
use super::{Asked, KernelTime, Limit, Resource, Start, Unit, Warm, measure, time};
use crate::kernel::check::check;
use crate::kernel::{Builder, ExprId, IndexFn, Kernel, LINE, Region, Scalar, Stmt};
use crate::machine::Machine;
use crate::number::FoldFn;
use crate::simt::SimtMachine;

fn machine(name: &str) -> (SimtMachine, u64) {
    let machines = Machine::built_in().unwrap();
    let machine = machines.into_iter().find(|machine| machine.name == name).unwrap();
    (machine.simt.unwrap(), machine.clock_hz)
}

fn mini() -> SimtMachine {
    machine("simt-mini").0
}

fn timed(kernel: &Kernel, machine: &SimtMachine) -> KernelTime {
    check(kernel).unwrap();
    time(kernel, machine, 1_000_000_000, &Start::default())
}

/// The same with every multiprocessor and every wave.
fn all(kernel: &Kernel, machine: &SimtMachine) -> KernelTime {
    let mut setting = Setting::new(kernel, machine, 1_000_000_000, &Start::default());
    setting.leaves_out = false;
    measure(&setting)
}

/// A chain of sums in each thread, of which the last is stored.
fn chain(threads: u32, blocks: u32, sums: u32) -> Kernel {
    let mut builder = Builder::new("chain", threads);
    let y = builder.buffer("y", DType::F32, u64::from(threads * blocks), true);
    let (zero, one) = (builder.float(DType::F32, 0.0), builder.float(DType::F32, 1.0));
    let sum = builder.declare("sum", Scalar::F32, zero);
    for _ in 0..sums {
        let so_far = builder.get(sum);
        let next = builder.binary(BinaryFn::Add, DType::F32, so_far, one);
        builder.set(sum, next);
    }
    let at = number(&mut builder, threads);
    let sum = builder.get(sum);
    builder.store(y, at, sum);
    builder.finish([blocks, 1, 1], Vec::new())
}

fn number(builder: &mut Builder, threads: u32) -> ExprId {
    let (thread, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, threads as i32);
    builder.add(first, thread)
}

/// Copies elements, each thread one, by a step.
fn copy(dtype: DType, threads: u32, blocks: u32, step: i32) -> Kernel {
    let elements = u64::from(threads * blocks) * step as u64;
    let mut builder = Builder::new("copy", threads);
    let x = builder.buffer("x", dtype, elements, false);
    let y = builder.buffer("y", dtype, elements, true);
    let at = number(&mut builder, threads);
    let at = builder.scaled(at, step);
    let loaded = builder.load(x, at, "loaded");
    builder.store(y, at, loaded);
    builder.finish([blocks, 1, 1], Vec::new())
}

/// A product of matrices, each thread an element.
fn product(m: u32, n: u32, k: u32) -> Kernel {
    let mut builder = Builder::new("product", 128);
    let a = builder.buffer("a", DType::F32, u64::from(m * k), false);
    let b = builder.buffer("b", DType::F32, u64::from(k * n), false);
    let c = builder.buffer("c", DType::F32, u64::from(m * n), true);
    let at = number(&mut builder, 128);
    let at = builder.keep("at", Scalar::I32, at);
    let inside = builder.below(at, (m * n) as i32);
    builder.when(inside);
    let (row, column) = builder.divided(at, n as i32);
    let zero = builder.float(DType::F32, 0.0);
    let sum = builder.declare("sum", Scalar::F32, zero);
    let (from, to) = (builder.integer(0), builder.integer(k as i32));
    let i = builder.loop_over("i", from, to, 1);
    let first = builder.scaled(row, k as i32);
    let left = builder.add(first, i);
    let left = builder.load(a, left, "left");
    let down = builder.scaled(i, n as i32);
    let right = builder.add(down, column);
    let right = builder.load(b, right, "right");
    let so_far = builder.get(sum);
    let next = builder.mul_add(DType::F32, left, right, so_far);
    builder.set(sum, next);
    builder.end();
    let sum = builder.get(sum);
    builder.store(c, at, sum);
    builder.end();
    builder.finish([(m * n).div_ceil(128), 1, 1], Vec::new())
}

/// Sums of rows, by so many threads each.
fn sums(rows: u32, columns: u32, threads: u32) -> Kernel {
    let mut builder = Builder::new("sums", threads);
    let x = builder.buffer("x", DType::F32, u64::from(rows * columns), false);
    let y = builder.buffer("y", DType::F32, u64::from(rows), true);
    let scratch = builder.shared("scratch", DType::F32, threads);
    let (thread, row) = (builder.thread(), builder.block(0));
    let zero = builder.float(DType::F32, 0.0);
    let sum = builder.declare("sum", Scalar::F32, zero);
    let to = builder.integer(columns as i32);
    let column = builder.loop_over("column", thread, to, threads);
    let first = builder.scaled(row, columns as i32);
    let at = builder.add(first, column);
    let element = builder.load(x, at, "element");
    let so_far = builder.get(sum);
    let next = builder.binary(BinaryFn::Add, DType::F32, so_far, element);
    builder.set(sum, next);
    builder.end();
    builder.reduce(sum, FoldFn::Sum, DType::F32, threads, scratch);
    let one = builder.integer(1);
    let is_first = builder.index(IndexFn::Lt, thread, one);
    builder.when(is_first);
    let sum = builder.get(sum);
    builder.store(y, row, sum);
    builder.end();
    builder.finish([rows, 1, 1], Vec::new())
}

/// Loads from shared memory, each thread its element by a step, so many times.
fn shared_loads(step: i32, times: i32) -> Kernel {
    let mut builder = Builder::new("shared", 32);
    let y = builder.buffer("y", DType::F32, 32, true);
    let tile = builder.shared("tile", DType::F32, 2048);
    let thread = builder.thread();
    let at = builder.scaled(thread, step);
    let zero = builder.float(DType::F32, 0.0);
    let sum = builder.declare("sum", Scalar::F32, zero);
    for i in 0..times {
        let more = builder.integer(i);
        let at = builder.add(at, more);
        let loaded = builder.load_shared(tile, at, "loaded");
        let so_far = builder.get(sum);
        let next = builder.binary(BinaryFn::Add, DType::F32, so_far, loaded);
        builder.set(sum, next);
    }
    let sum = builder.get(sum);
    builder.store(y, thread, sum);
    builder.finish([1, 1, 1], Vec::new())
}

/// Nothing but barriers.
fn barriers(count: u32) -> Kernel {
    let mut builder = Builder::new("barriers", 64);
    (0..count).for_each(|_| builder.barrier());
    builder.finish([1, 1, 1], Vec::new())
}

/// Looks elements up.
fn gather(rows: u32) -> Kernel {
    let mut builder = Builder::new("gather", 32);
    let table = builder.buffer("table", DType::F32, 1 << 20, false);
    let indices = builder.buffer("indices", DType::I32, u64::from(rows), false);
    let y = builder.buffer("y", DType::F32, u64::from(rows) * 32, true);
    let (thread, row) = (builder.thread(), builder.block(0));
    let index = builder.load(indices, row, "index");
    let first = builder.scaled(index, 32);
    let at = builder.add(first, thread);
    let element = builder.load(table, at, "element");
    let at = number(&mut builder, 32);
    builder.store(y, at, element);
    builder.finish([rows, 1, 1], Vec::new())
}

#[test]
fn a_chain_waits_for_each_result() {
    // A move, sums 4 cycles apart, the store 4 cycles after the last, and 4 sectors that take 2 cycles each. The index and the
    // address are computed meanwhile.
    for sums in [2, 10, 50] {
        let time = timed(&chain(32, 1, sums), &mini());
        assert_eq!(time.cycles, 4 * u64::from(sums) + 12);
        assert_eq!(time.bound_by(), "latency");
        assert_eq!((time.dram_bytes, time.l2_bytes), (128, 128));
    }
}

#[test]
fn many_warps_fill_the_issue_slots() {
    let time = timed(&chain(512, 2, 2000), &mini());
    // Each of two schedulers issues all instructions of 8 warps.
    let issued: u64 = time.issued.iter().sum();
    assert_eq!(time.busy[Resource::Issue.index()], issued / 4);
    assert_eq!(time.bound_by(), "issue");
    assert!(time.cycles * 100 < issued / 4 * 104, "{time:?}");
}

#[test]
fn a_copy_takes_as_long_as_its_bytes() {
    for (dtype, bytes) in [(DType::F32, 4), (DType::F16, 2)] {
        let time = timed(&copy(dtype, 128, 4096, 1), &mini());
        let moved = 2 * 128 * 4096 * bytes;
        assert_eq!(time.dram_bytes, moved);
        let least = moved / 16;
        assert!(time.cycles >= least && time.cycles * 100 < least * 103, "{time:?}");
        assert_eq!(time.bound_by(), "dram");
    }
    let (h100, clock) = machine("h100");
    let time = time(&copy(DType::F32, 256, 1 << 16, 1), &h100, clock, &Start::default());
    let least = (f64::from(8 * 256 * (1 << 16)) / (3.35e12 * 0.92) * clock as f64) as u64;
    assert!(time.cycles >= least && time.cycles * 100 < least * 104, "{least} {time:?}");
}

#[test]
fn banks_that_are_asked_again_and_again_take_longer() {
    let [none, all] = [1, 32].map(|step| timed(&shared_loads(step, 20), &mini()));
    let busy = |time: &KernelTime| time.busy[Resource::Shared.index()];
    assert_eq!((busy(&none), busy(&all)), (20, 640));
    assert!(all.cycles > none.cycles + 400, "{none:?} {all:?}");
    // What all want is read once for all.
    assert_eq!(busy(&timed(&shared_loads(0, 20), &mini())), 20);
}

#[test]
fn threads_apart_move_whole_sectors() {
    let [dense, apart] = [1, 32].map(|step| timed(&copy(DType::F32, 128, 64, step), &mini()));
    assert_eq!(apart.dram_bytes, 8 * dense.dram_bytes);
    assert!(apart.cycles > 6 * dense.cycles, "{dense:?} {apart:?}");
}

#[test]
fn a_barrier_takes_its_latency() {
    let cycles = |count| timed(&barriers(count), &mini()).cycles;
    // The instruction, and 10 cycles.
    assert_eq!(cycles(11) - cycles(1), 110);
}

#[test]
fn places_are_limited_by_what_there_is_least_of() {
    let mini = mini();
    let occupancy = |kernel: &Kernel| {
        let occupancy = timed(kernel, &mini).occupancy;
        (occupancy.blocks, occupancy.warps, occupancy.limit)
    };
    assert_eq!(occupancy(&chain(32, 100, 1)), (8, 8, Limit::Blocks));
    assert_eq!(occupancy(&chain(128, 100, 1)), (4, 16, Limit::Warps));
    assert_eq!(occupancy(&chain(128, 6, 1)), (3, 12, Limit::Grid));
    let mut builder = Builder::new("shared", 32);
    let y = builder.buffer("y", DType::F32, 32, true);
    let tile = builder.shared("tile", DType::F32, 1792);
    let thread = builder.thread();
    let loaded = builder.load_shared(tile, thread, "loaded");
    builder.store(y, thread, loaded);
    let kernel = builder.finish([100, 1, 1], Vec::new());
    // 7 KiB and one that is reserved, of 16.
    assert_eq!(occupancy(&kernel), (2, 2, Limit::Shared));
    let mut builder = Builder::new("registers", 128);
    let y = builder.buffer("y", DType::F32, 128, true);
    let (thread, zero) = (builder.thread(), builder.float(DType::F32, 0.0));
    let array = builder.array("array", Scalar::F32, 50, zero);
    // What is stored is there before.
    builder.barrier();
    for i in 0..50 {
        let at = builder.integer(i);
        let element = builder.element(array, at);
        builder.store(y, thread, element);
    }
    let kernel = builder.finish([100, 1, 1], Vec::new());
    let time = timed(&kernel, &mini);
    // An address in two registers, and those that every thread has: 64 for 32 threads of 4 warps, twice in 16384.
    assert_eq!((time.occupancy.registers, time.occupancy.blocks, time.occupancy.limit), (62, 2, Limit::Registers));
}

#[test]
fn a_last_wave_takes_as_long_as_a_full_one() {
    let [one, two, three] = [2, 4, 5].map(|blocks| timed(&chain(512, blocks, 1200), &mini()));
    assert_eq!((one.waves, two.waves, three.waves), (1, 2, 3));
    let wave = two.cycles - one.cycles;
    assert!(wave.abs_diff(one.cycles) < one.cycles / 20, "{one:?} {two:?}");
    // The last block is alone on its multiprocessor as all blocks here are.
    assert!((three.cycles - two.cycles).abs_diff(wave) < wave / 20, "{two:?} {three:?}");
}

#[test]
fn one_multiprocessor_stands_for_those_that_do_the_same() {
    let mut larger = mini();
    larger.multiprocessors = 7;
    let kernels = [
        chain(64, 50, 5),
        chain(96, 13, 9),
        copy(DType::F32, 128, 300, 1),
        copy(DType::F16, 64, 45, 3),
        product(16, 128, 32),
        product(9, 64, 24),
        sums(40, 200, 64),
        sums(25, 104, 32),
        gather(60),
    ];
    for machine in [mini(), larger] {
        for kernel in &kernels {
            let (found, wanted) = (timed(kernel, &machine), all(kernel, &machine));
            assert_eq!(found.cycles, wanted.cycles, "{} {found:?} {wanted:?}", kernel.name);
        }
    }
}

#[test]
fn what_is_left_out_takes_as_long_as_what_is_not() {
    let near = |kernel: &Kernel, machine: &SimtMachine, percent: u64| {
        let (found, wanted) = (timed(kernel, machine), all(kernel, machine));
        let off = found.cycles.abs_diff(wanted.cycles);
        assert!(off * 100 <= wanted.cycles * percent, "{} {found:?} {wanted:?}", kernel.name);
        let bytes = found.dram_bytes.abs_diff(wanted.dram_bytes);
        assert!(bytes * 100 <= wanted.dram_bytes * percent, "{} {found:?} {wanted:?}", kernel.name);
    };
    near(&chain(256, 500, 20), &mini(), 0);
    near(&product(16, 128, 2000), &mini(), 1);
    near(&product(64, 128, 500), &mini(), 2);
    near(&sums(16, 20000, 128), &mini(), 1);
    near(&copy(DType::F32, 128, 3000, 1), &mini(), 1);
}

#[test]
fn memory_is_read_once_for_all() {
    let (h100, clock) = machine("h100");
    let bytes = |m: u32, n: u32, k: u32| 4 * u64::from(m * k + k * n + m * n);
    for (m, n, k) in [(64, 1024, 256), (256, 512, 128)] {
        let time = time(&product(m, n, k), &h100, clock, &Start::default());
        let (found, wanted) = (time.dram_bytes, bytes(m, n, k));
        assert!(found * 10 > wanted * 9 && found * 10 < wanted * 12, "{found} {wanted}");
    }
}

#[test]
fn what_depends_on_data_comes_from_memory() {
    let time = timed(&gather(64), &mini());
    // A row of 128 bytes each, read and written, and the indices: a sector for each block that reads one.
    assert_eq!(time.read_bytes[0], 64 * 128);
    assert!(time.dram_bytes >= 64 * 256 && time.dram_bytes <= 64 * 256 + 64 * 32, "{time:?}");
}

#[test]
fn time_is_the_same_every_time() {
    let (h100, clock) = machine("h100");
    for kernel in [product(100, 100, 100), sums(1000, 300, 128), copy(DType::F32, 128, 10000, 2)] {
        assert_eq!(time(&kernel, &h100, clock, &Start::default()), time(&kernel, &h100, clock, &Start::default()));
    }
}

/// Blocks that arrive, of which the last computes a chain of sums of what was handed over.
fn arrival(blocks: u32, sums: u32) -> Kernel {
    let mut builder = Builder::new("arrival", 32);
    let counters = builder.buffer("counters", DType::U32, 1, true);
    let handed = builder.buffer("handed", DType::F32, u64::from(32 * blocks), true);
    let y = builder.buffer("y", DType::F32, 32, true);
    let told = builder.shared("told", DType::I32, 1);
    let at = number(&mut builder, 32);
    let one = builder.float(DType::F32, 1.0);
    builder.store(handed, at, one);
    let last = builder.arrive("last", counters, 0, told);
    builder.when(last);
    let thread = builder.thread();
    let value = builder.load(handed, thread, "value");
    let sum = builder.declare("sum", Scalar::F32, value);
    for _ in 0..sums {
        let so_far = builder.get(sum);
        let next = builder.binary(BinaryFn::Add, DType::F32, so_far, one);
        builder.set(sum, next);
    }
    let sum = builder.get(sum);
    builder.store(y, thread, sum);
    builder.end();
    builder.finish([blocks, 1, 1], Vec::new())
}

/// Only the block with the highest number goes on, after a way to the common cache and back, and finds there what was handed over.
#[test]
fn one_block_arrives_last() {
    let machine = mini();
    let (short, long) = (timed(&arrival(8, 1), &machine), timed(&arrival(8, 101), &machine));
    let sums = |time: &KernelTime| time.issued[Unit::F32.index()];
    assert_eq!(sums(&long) - sums(&short), 100);
    assert_eq!(long.cycles - short.cycles, 100 * u64::from(machine.pipes.f32.latency));
    let way = u64::from(machine.dram.latency + 2 * machine.l2.latency);
    assert!(short.cycles > way && short.cycles < 2 * way, "{} cycles", short.cycles);
    assert_eq!(short.read_bytes[1], 0);
    // Blocks beside each other each have one that is the last.
    let mut wide = arrival(8, 101);
    (wide.grid, wide.buffers[0].elements) = ([8, 3, 1], 3);
    assert_eq!(sums(&timed(&wide, &machine)), 3 * sums(&long));
}

#[test]
fn what_is_there_before_is_not_fetched() {
    let (h100, clock) = machine("h100");
    let kernel = copy(DType::F32, 256, 128, 1);
    let bytes = 4 * 256 * 128;
    // Of the part of each block so much.
    let region = |bytes: u64| {
        let region = Region { first: 0, rows: 128, pitch: 1024, width: bytes / 128 };
        Warm::Asked(Asked { region, there: 0, takes: 0 })
    };
    let after = |warm: Warm| time(&kernel, &h100, clock, &Start { warm: vec![warm], late: 0 });
    let [cold, half, all] = [Warm::Cold, region(bytes / 2), Warm::All].map(after);
    assert_eq!([&cold, &half, &all].map(|time| time.read_bytes[0]), [bytes, bytes / 2, 0]);
    assert_eq!(after(region(bytes)), all);
    assert!(all.cycles < cold.cycles, "{} and {}", all.cycles, cold.cycles);
    // Nobody waits longer than for memory.
    let latency = u64::from(h100.dram.latency - h100.l2.latency);
    assert!(cold.cycles - all.cycles >= latency.min(cold.cycles / 4), "{} and {}", all.cycles, cold.cycles);
}

#[test]
fn what_is_asked_for_ahead_comes_behind() {
    let (h100, clock) = machine("h100");
    let plain = copy(DType::F32, 256, 128, 1);
    let asking = |width: u64| {
        let mut builder = Builder::new("asking", 256);
        let x = builder.buffer("x", DType::F32, 256 * 128, false);
        let y = builder.buffer("y", DType::F32, 256 * 128, true);
        let next = builder.buffer("next", DType::F16, 1 << 24, false);
        let at = number(&mut builder, 256);
        let loaded = builder.load(x, at, "loaded");
        builder.store(y, at, loaded);
        builder.push(Stmt::Prefetch {
            buffer: next,
            region: Region { first: 0, rows: 1, pitch: width, width },
            threads: 256,
        });
        let kernel = builder.finish([128, 1, 1], Vec::new());
        check(&kernel).unwrap();
        time(&kernel, &h100, clock, &Start::default())
    };
    let alone = time(&plain, &h100, clock, &Start::default());
    let [some, more] = [1 << 20, 1 << 22].map(asking);
    assert_eq!(some.read_bytes[2], 1 << 20);
    assert_eq!(more.read_bytes[2], 1 << 22);
    // It takes what memory takes for it, which nothing of the kernel's own waits for but its instructions.
    let rate = h100.dram.bytes_per_second * h100.dram.efficiency / clock as f64;
    let takes = ((3 << 20) as f64 / rate) as u64;
    let ends = [&some, &more].map(|time| time.cycles + time.behind);
    assert!((ends[1] - ends[0]).abs_diff(takes) <= takes / 10, "{ends:?} and not {takes} cycles apart");
    let lines = (1 << 22) / LINE / 128;
    assert!(some.cycles < alone.cycles + 16 * lines && more.cycles < alone.cycles + 16 * lines, "{alone:?} {more:?}");
    assert!(more.behind > some.behind);
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let asks = |region: Region| {
        let mut builder = Builder::new("asks", 32);
        let x = builder.buffer("x", DType::F32, 1024, false);
        builder.push(Stmt::Prefetch { buffer: x, region, threads: 32 });
        check(&builder.finish([1, 1, 1], Vec::new())).is_ok()
    };
    let all = Region { first: 0, rows: 4, pitch: 1024, width: 1024 };
    assert!(asks(all));
    assert!(!asks(Region { first: 1, ..all }));
    assert!(!asks(Region { rows: 0, ..all }));
    assert!(!asks(Region { pitch: 0, ..all }));
    assert!(!asks(Region { rows: u64::MAX, width: u64::MAX, ..all }));
}

#[test]
fn constants_in_an_index_cost_nothing() {
    // Elements at (t + 32 i) 4 + j, with the constants as deep as can be: one address for all.
    let reads = |i: u32, j: u32| {
        let mut builder = Builder::new("reads", 32);
        let x = builder.buffer("x", DType::F32, 4096, false);
        let y = builder.buffer("y", DType::F32, 4096, true);
        let thread = builder.thread();
        let zero = builder.float(DType::F32, 0.0);
        let sum = builder.declare("sum", Scalar::F32, zero);
        let outer = builder.unrolled("outer", i);
        let inner = builder.unrolled("inner", j);
        let across = builder.scaled(outer, 32);
        let row = builder.add(thread, across);
        let first = builder.scaled(row, 4);
        let at = builder.add(first, inner);
        let loaded = builder.load(x, at, "loaded");
        let so_far = builder.get(sum);
        let next = builder.binary(BinaryFn::Add, DType::F32, so_far, loaded);
        builder.set(sum, next);
        builder.end();
        builder.end();
        let sum = builder.get(sum);
        builder.store(y, thread, sum);
        timed(&builder.finish([1, 1, 1], Vec::new()), &mini())
    };
    let integers = |time: &KernelTime| time.issued[Unit::I32.index()];
    assert_eq!(integers(&reads(1, 1)), integers(&reads(4, 4)));
    assert_eq!(reads(4, 4).issued[Unit::F32.index()], 16);
}

#[test]
fn what_stays_of_an_index_is_computed_before_a_loop() {
    let looped = |count: i32| {
        let mut builder = Builder::new("looped", 32);
        let x = builder.buffer("x", DType::F32, 1 << 20, false);
        let y = builder.buffer("y", DType::F32, 4096, true);
        let (thread, block) = (builder.thread(), builder.block(0));
        let zero = builder.float(DType::F32, 0.0);
        let sum = builder.declare("sum", Scalar::F32, zero);
        let (from, to) = (builder.integer(0), builder.integer(count));
        let i = builder.loop_over("i", from, to, 1);
        let before = builder.scaled(block, 4096);
        let inner = builder.scaled(i, 64);
        let inner = builder.add(inner, thread);
        let at = builder.add(before, inner);
        let loaded = builder.load(x, at, "loaded");
        let so_far = builder.get(sum);
        let next = builder.binary(BinaryFn::Add, DType::F32, so_far, loaded);
        builder.set(sum, next);
        builder.end();
        let sum = builder.get(sum);
        builder.store(y, thread, sum);
        all(&builder.finish([1, 1, 1], Vec::new()), &mini()).issued[Unit::I32.index()]
    };
    // In each iteration: what changes is added, an address, the counter, a comparison.
    assert_eq!(looped(9) - looped(8), 4);
}
