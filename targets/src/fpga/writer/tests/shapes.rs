//! Rows, products, local arrays, grids and branches.

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::harness::{Model, Near, Where};
use crate::kernel::{Builder, IndexFn, Kernel, Scalar};
use crate::number::FoldFn;

/// Rows that are summed in a loop, whose elements less the mean are then scaled by the greatest.
fn rows(name: &str, dtype: DType, lanes: u32, held: bool) -> Kernel {
    let chunks = 3;
    let columns = chunks * lanes;
    let scalar = Scalar::of(dtype);
    let mut builder = Builder::new(name, lanes);
    let x = builder.buffer("x", dtype, u64::from(8 * columns), false);
    let y = builder.buffer("y", dtype, u64::from(8 * columns), true);
    let scratch = builder.shared("scratch", dtype, lanes);
    let (lane, row) = (builder.thread(), builder.block(0));
    let first = builder.scaled(row, columns as i32);
    let first = builder.keep("first", Scalar::I32, first);
    let zero = if dtype.is_float() { builder.float(dtype, 0.0) } else { builder.number(dtype, 0) };
    let sum = builder.declare("sum", scalar, zero);
    let most = builder.declare("most", scalar, zero);
    let kept = builder.array("kept", scalar, chunks, zero);
    let at = |builder: &mut Builder, chunk| {
        let from = builder.scaled(chunk, lanes as i32);
        let from = builder.add(first, from);
        builder.add(from, lane)
    };
    let (none, end) = (builder.integer(0), builder.integer(chunks as i32));
    let chunk = if held { builder.unrolled("chunk", chunks) } else { builder.loop_over("chunk", none, end, 1) };
    let index = at(&mut builder, chunk);
    let value = builder.load(x, index, "value");
    if held {
        builder.set_element(kept, chunk, value);
    }
    let before = builder.get(sum);
    let after = builder.binary(BinaryFn::Add, dtype, before, value);
    builder.set(sum, after);
    let before = builder.get(most);
    let after = builder.binary(BinaryFn::Max, dtype, before, value);
    builder.set(most, after);
    builder.end();
    builder.reduce(sum, FoldFn::Sum, dtype, lanes, scratch);
    builder.reduce(most, FoldFn::Max, dtype, lanes, scratch);
    let total = builder.get(sum);
    let doubled = builder.binary(BinaryFn::Mul, dtype, total, total);
    let doubled = builder.keep("doubled", scalar, doubled);
    let most = builder.get(most);
    let chunk = if held { builder.unrolled("again", chunks) } else { builder.loop_over("again", none, end, 1) };
    let index = at(&mut builder, chunk);
    let value = if held { builder.element(kept, chunk) } else { builder.load(x, index, "own") };
    let less = builder.binary(BinaryFn::Sub, dtype, value, doubled);
    let scaled = builder.binary(BinaryFn::Mul, dtype, less, most);
    builder.store(y, index, scaled);
    builder.end();
    builder.finish([8, 1, 1], vec![format!("8 rows of {columns}")])
}

#[test]
fn rows_are_reduced() {
    let mut model = Model::new("rows");
    for dtype in [DType::F32, DType::I32, DType::F64] {
        for lanes in [1, 2, 4, 8, 16, 32] {
            for held in [false, true] {
                let name = format!("rows_{dtype}_{lanes}{}", if held { "_held" } else { "" });
                let kernel = rows(&name, dtype, lanes, held);
                let count = kernel.buffers[0].elements;
                let x = model.input(&format!("{name}_x"), dtype, count, Where::Chip(lanes.max(2)));
                let y = model.output(&format!("{name}_y"), dtype, count, Where::Chip(lanes));
                model.call(kernel, &[x, y]);
            }
        }
    }
    model.check(Near::Bits);
}

/// Neighbours combine within groups, and each lane goes on with what its group has.
#[test]
fn groups_of_lanes_are_reduced() {
    let mut model = Model::new("groups");
    for (width, dtype) in [(4, DType::F32), (8, DType::I32), (2, DType::U8), (32, DType::I8), (16, DType::I64)] {
        let name = format!("groups_{width}");
        let mut builder = Builder::new(&name, 32);
        let x = builder.buffer("x", dtype, 32 * 16, false);
        let y = builder.buffer("y", dtype, 32 * 16, true);
        let scratch = builder.shared("scratch", crate::kernel::check::wide(dtype), 32);
        let (lane, block) = (builder.thread(), builder.block(0));
        let first = builder.scaled(block, 32);
        let index = builder.add(first, lane);
        let functions = [FoldFn::Sum, FoldFn::Product, FoldFn::Max, FoldFn::Min];
        let value = builder.load(x, index, "value");
        let vars = functions.map(|function| {
            let var = builder.declare("folded", Scalar::of(dtype), value);
            builder.reduce(var, function, dtype, width, scratch);
            var
        });
        // One of them is reduced further, so that it is not settled.
        let own = builder.get(vars[0]);
        let more = builder.binary(BinaryFn::Add, dtype, own, value);
        builder.set(vars[0], more);
        let mut total = value;
        for var in vars {
            let own = builder.get(var);
            total = builder.binary(BinaryFn::Add, dtype, total, own);
        }
        builder.store(y, index, total);
        let kernel = builder.finish([16, 1, 1], Vec::new());
        let x = model.input(&format!("{name}_x"), dtype, 512, Where::Chip(32));
        let y = model.output(&format!("{name}_y"), dtype, 512, Where::Chip(8));
        model.call(kernel, &[x, y]);
    }
    model.check(Near::Bits);
}

/// A product of rows by columns: lanes have columns, each a few rows of them.
fn product(name: &str, dtypes: [DType; 3], lanes: u32, banks: u32, model: &mut Model) {
    let (rows, columns, depth, own) = (8u32, 2 * lanes, 24u32, 4u32);
    let sum = dtypes[2];
    let mut builder = Builder::new(name, lanes);
    let a = builder.buffer("a", dtypes[0], u64::from(rows * depth), false);
    let b = builder.buffer("b", dtypes[1], u64::from(depth * columns), false);
    let c = builder.buffer("c", sum, u64::from(rows * columns), true);
    let (lane, right, down) = (builder.thread(), builder.block(0), builder.block(1));
    let zero = if sum.is_float() { builder.float(sum, 0.0) } else { builder.number(sum, 0) };
    let sums = builder.array("sums", Scalar::of(sum), own, zero);
    let column = builder.scaled(right, lanes as i32);
    let column = builder.add(column, lane);
    let column = builder.keep("column", Scalar::I32, column);
    let first = builder.scaled(down, own as i32);
    let (none, end) = (builder.integer(0), builder.integer(depth as i32));
    let k = builder.loop_over("k", none, end, 1);
    let from = builder.scaled(k, columns as i32);
    let at = builder.add(from, column);
    let weight = builder.load(b, at, "weight");
    let weight = builder.convert_register(dtypes[1], sum, weight);
    let row = builder.unrolled("row", own);
    let at = builder.add(first, row);
    let at = builder.scaled(at, depth as i32);
    let at = builder.add(at, k);
    let left = builder.load(a, at, "left");
    let left = builder.convert_register(dtypes[0], sum, left);
    let before = builder.element(sums, row);
    let after = builder.mul_add(sum, left, weight, before);
    builder.set_element(sums, row, after);
    builder.end();
    builder.end();
    let row = builder.unrolled("out", own);
    let at = builder.add(first, row);
    let at = builder.scaled(at, columns as i32);
    let at = builder.add(at, column);
    let value = builder.element(sums, row);
    builder.store(c, at, value);
    builder.end();
    let kernel = builder.finish([columns / lanes, rows / own, 1], vec![format!("{rows} by {columns} by {depth}")]);
    let a = model.input(&format!("{name}_a"), dtypes[0], u64::from(rows * depth), Where::Chip(4));
    let b = model.weight(&format!("{name}_b"), dtypes[1], u64::from(depth * columns), Where::Chip(banks));
    let c = model.output(&format!("{name}_c"), sum, u64::from(rows * columns), Where::Chip(banks));
    model.call(kernel, &[a, b, c]);
}

#[test]
fn products_are_summed() {
    let mut model = Model::new("products");
    product("p_f32", [DType::F32; 3], 16, 16, &mut model);
    product("p_f16", [DType::F16, DType::F16, DType::F32], 8, 8, &mut model);
    product("p_bf16_few_banks", [DType::BF16, DType::F16, DType::F32], 32, 8, &mut model);
    product("p_i8", [DType::I8, DType::I8, DType::I32], 16, 32, &mut model);
    product("p_u8_i4", [DType::U8, DType::I4, DType::I32], 32, 32, &mut model);
    product("p_one_lane", [DType::I8, DType::U4, DType::I32], 1, 2, &mut model);
    model.check(Near::Bits);
}

/// Tiles are turned in a local array; lanes then read what others have written.
#[test]
fn lanes_exchange_by_local_arrays() {
    let mut model = Model::new("exchange");
    let lanes = 8u32;
    let mut builder = Builder::new("turned", lanes);
    let x = builder.buffer("x", DType::I32, 4 * 64, false);
    let y = builder.buffer("y", DType::I32, 4 * 64, true);
    let tile = builder.shared("tile", DType::I32, 64);
    let (lane, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, 64);
    let (none, end) = (builder.integer(0), builder.integer(8));
    let row = builder.loop_over("row", none, end, 1);
    let own = builder.scaled(row, 8);
    let own = builder.add(own, lane);
    let at = builder.add(first, own);
    let value = builder.load(x, at, "value");
    builder.store_shared(tile, own, value);
    builder.end();
    builder.barrier();
    let column = builder.loop_over("column", none, end, 1);
    let turned = builder.scaled(lane, 8);
    let turned = builder.add(turned, column);
    let value = builder.load_shared(tile, turned, "turned");
    let at = builder.scaled(column, 8);
    let at = builder.add(at, lane);
    let at = builder.add(first, at);
    builder.store(y, at, value);
    builder.end();
    let kernel = builder.finish([4, 1, 1], vec!["4 tiles of 8 by 8".to_owned()]);
    let x = model.input("tiles", DType::I32, 256, Where::Chip(8));
    let y = model.output("turned_tiles", DType::I32, 256, Where::Chip(8));
    model.call(kernel, &[x, y]);

    // In step without a barrier: all lanes have stored before any reads.
    let mut builder = Builder::new("mirrored", 16);
    let x = builder.buffer("x", DType::F32, 16 * 4, false);
    let y = builder.buffer("y", DType::F32, 16 * 4, true);
    let line = builder.shared("line", DType::F32, 16);
    let (lane, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, 16);
    let at = builder.add(first, lane);
    let value = builder.load(x, at, "value");
    builder.store_shared(line, lane, value);
    let last = builder.integer(15);
    let mirrored = builder.index(IndexFn::Sub, last, lane);
    let other = builder.load_shared(line, mirrored, "other");
    builder.store_shared(line, lane, other);
    let next = builder.load_shared(line, mirrored, "next");
    let both = builder.binary(BinaryFn::Sub, DType::F32, other, next);
    builder.store(y, at, both);
    let kernel = builder.finish([4, 1, 1], Vec::new());
    let x = model.input("lines", DType::F32, 64, Where::Chip(16));
    let y = model.output("mirrored_lines", DType::F32, 64, Where::Chip(4));
    model.call(kernel, &[x, y]);

    // Each lane has a stretch of its own, and sums in it.
    let mut builder = Builder::new("stretches", 4);
    let x = builder.buffer("x", DType::I16, 4 * 32, false);
    let y = builder.buffer("y", DType::I32, 4 * 32, true);
    let own = builder.shared("own", DType::I32, 32);
    let lane = builder.thread();
    let (none, end, all) = (builder.integer(0), builder.integer(8), builder.integer(4));
    let first = builder.scaled(lane, 8);
    let zero = builder.number(DType::I32, 0);
    let slot = builder.loop_over("slot_of", none, end, 1);
    let at = builder.add(first, slot);
    builder.store_shared(own, at, zero);
    builder.end();
    let round = builder.loop_over("round", none, all, 1);
    let from = builder.scaled(round, 32);
    let slot = builder.loop_over("slot_in", none, end, 1);
    let at = builder.add(first, slot);
    let index = builder.add(from, at);
    let value = builder.load(x, index, "value");
    let before = builder.load_shared(own, at, "before");
    let after = builder.binary(BinaryFn::Add, DType::I32, before, value);
    builder.store_shared(own, at, after);
    builder.store(y, index, after);
    builder.end();
    builder.end();
    let kernel = builder.finish([1, 1, 1], Vec::new());
    let x = model.input("short", DType::I16, 128, Where::Chip(32));
    let y = model.output("sums_so_far", DType::I32, 128, Where::Chip(16));
    model.call(kernel, &[x, y]);
    model.check(Near::Bits);
}

/// A grid of three axes, of which lanes take a part that does not divide the last.
#[test]
fn grids_and_guards() {
    let mut model = Model::new("grids");
    for (number, home) in [Where::Chip(8), Where::Channels(0, 1), Where::Channels(0, 2)].into_iter().enumerate() {
        let (across, down, deep) = (21, 3, 5);
        let name = format!("grid_{number}");
        let mut builder = Builder::new(&name, 8);
        let x = builder.buffer("x", DType::F16, (across * down * deep) as u64, false);
        let bias = builder.buffer("bias", DType::F32, down as u64, false);
        let y = builder.buffer("y", DType::F16, (across * down * deep) as u64, true);
        let (lane, blocks) = (builder.thread(), [0, 1, 2].map(|axis| builder.block(axis)));
        let first = builder.scaled(blocks[0], 8);
        let column = builder.add(first, lane);
        let inside = builder.below(column, across);
        builder.when(inside);
        let row = builder.scaled(blocks[2], down);
        let row = builder.add(row, blocks[1]);
        let row = builder.scaled(row, across);
        let index = builder.add(row, column);
        let value = builder.load(x, index, "value");
        let added = builder.load(bias, blocks[1], "added");
        let squared = builder.binary(BinaryFn::Mul, DType::F32, added, added);
        let sum = builder.binary(BinaryFn::Add, DType::F32, value, squared);
        builder.store(y, index, sum);
        builder.end();
        let kernel = builder.finish([3, down as u32, deep as u32], vec!["guarded".to_owned()]);
        let count = (across * down * deep) as u64;
        let x = model.input(&format!("{name}_x"), DType::F16, count, home);
        let bias = model.input(&format!("{name}_bias"), DType::F32, down as u64, home);
        let y = model.output(&format!("{name}_y"), DType::F16, count, home);
        model.call(kernel, &[x, bias, y]);
    }
    model.check(Near::Bits);
}

/// Branches that some lanes take, with loops that they go through together, and others for the rest.
#[test]
fn lanes_take_part_or_not() {
    let mut model = Model::new("branches");
    let mut builder = Builder::new("branches", 16);
    let x = builder.buffer("x", DType::I32, 16 * 8, false);
    let y = builder.buffer("y", DType::I32, 16, true);
    let z = builder.buffer("z", DType::F32, 16, true);
    let lane = builder.thread();
    let (none, end, three) = (builder.integer(0), builder.integer(8), builder.integer(3));
    let zero = builder.number(DType::I32, 0);
    let sum = builder.declare("sum", Scalar::I32, zero);
    let odd = builder.divided(lane, 2).1;
    builder.when(odd);
    let k = builder.loop_over("k", none, end, 1);
    let from = builder.scaled(k, 16);
    let at = builder.add(from, lane);
    let value = builder.load(x, at, "value");
    let before = builder.get(sum);
    let after = builder.binary(BinaryFn::Add, DType::I32, before, value);
    builder.set(sum, after);
    let is_great = builder.index(IndexFn::Ge, k, three);
    builder.when(is_great);
    let is_positive = builder.binary(BinaryFn::Gt, DType::I32, value, zero);
    builder.when(is_positive);
    let before = builder.get(sum);
    let after = builder.binary(BinaryFn::Xor, DType::I32, before, value);
    builder.set(sum, after);
    builder.otherwise();
    builder.set(sum, value);
    builder.end();
    builder.end();
    builder.end();
    builder.otherwise();
    let k = builder.loop_over("back", none, three, 1);
    let from = builder.scaled(k, 32);
    let at = builder.add(from, lane);
    let value = builder.load(x, at, "other");
    let before = builder.get(sum);
    let after = builder.binary(BinaryFn::Sub, DType::I32, before, value);
    builder.set(sum, after);
    builder.end();
    builder.end();
    let sum = builder.get(sum);
    builder.store(y, lane, sum);
    let low = builder.below(lane, 3);
    builder.when(low);
    let float = builder.convert(DType::I32, DType::F32, sum);
    builder.store(z, lane, float);
    builder.otherwise();
    let float = builder.convert(DType::I32, DType::F32, sum);
    let negative = builder.unary(UnaryFn::Neg, DType::F32, float);
    builder.store(z, lane, negative);
    builder.end();
    let kernel = builder.finish([1, 1, 1], Vec::new());
    let x = model.input("x", DType::I32, 128, Where::Chip(16));
    let y = model.output("y", DType::I32, 16, Where::Chip(16));
    let z = model.output("z", DType::F32, 16, Where::Channels(1, 1));
    model.call(kernel, &[x, y, z]);
    model.check(Near::Bits);
}

/// Lanes begin a loop apart from each other: each has every so many columns of a row.
fn strided(name: &str, columns: i32, lanes: u32) -> Kernel {
    let mut builder = Builder::new(name, lanes);
    let count = 6 * columns as u64;
    let x = builder.buffer("x", DType::F32, count, false);
    let y = builder.buffer("y", DType::F32, count, true);
    let scratch = builder.shared("scratch", DType::F32, lanes);
    let (lane, row) = (builder.thread(), builder.block(0));
    let first = builder.scaled(row, columns);
    let zero = builder.float(DType::F32, 0.0);
    let sum = builder.declare("sum", Scalar::F32, zero);
    let end = builder.integer(columns);
    let column = builder.loop_over("column", lane, end, lanes);
    let at = builder.add(first, column);
    let value = builder.load(x, at, "value");
    let before = builder.get(sum);
    let after = builder.binary(BinaryFn::Add, DType::F32, before, value);
    builder.set(sum, after);
    builder.end();
    builder.reduce(sum, FoldFn::Sum, DType::F32, lanes, scratch);
    let total = builder.get(sum);
    let scale = builder.unary(UnaryFn::Recip, DType::F32, total);
    let scale = builder.keep("scale", Scalar::F32, scale);
    let is_row = builder.below(row, 5);
    builder.when(is_row);
    let column = builder.loop_over("column", lane, end, lanes);
    let at = builder.add(first, column);
    let value = builder.load(x, at, "value");
    let scaled = builder.binary(BinaryFn::Mul, DType::F32, value, scale);
    builder.store(y, at, scaled);
    builder.end();
    builder.end();
    builder.finish([6, 1, 1], vec![format!("6 rows of {columns}")])
}

#[test]
fn lanes_begin_loops_apart() {
    let mut model = Model::new("apart");
    let homes = [Where::Chip(8), Where::Channels(0, 2)];
    for (number, (columns, lanes)) in [(32, 8), (29, 8), (5, 8), (48, 16)].into_iter().enumerate() {
        let home = homes[number / 2];
        let name = format!("strided_{columns}_{lanes}");
        let kernel = strided(&name, columns, lanes);
        let count = 6 * columns as u64;
        let x = model.input(&format!("{name}_x"), DType::F32, count, home);
        let y = model.output(&format!("{name}_y"), DType::F32, count, home);
        model.call(kernel, &[x, y]);
    }
    // Each lane goes as far as it is numbered, and some do not go at all.
    let mut builder = Builder::new("triangle", 8);
    let x = builder.buffer("x", DType::I32, 64, false);
    let starts = builder.buffer("starts", DType::U8, 8, false);
    let y = builder.buffer("y", DType::I32, 64, true);
    let lane = builder.thread();
    let begin = builder.load(starts, lane, "begin");
    let seven = builder.integer(7);
    let begin = builder.index(IndexFn::Min, begin, seven);
    let none = builder.integer(0);
    let is_odd = builder.divided(lane, 2).1;
    builder.when(is_odd);
    let one = builder.integer(1);
    let end = builder.add(lane, one);
    let column = builder.loop_over("column", begin, end, 1);
    let row = builder.scaled(lane, 8);
    let at = builder.add(row, column);
    let inner = builder.loop_over("inner", none, column, 1);
    let from = builder.add(row, inner);
    let value = builder.load(x, from, "value");
    builder.store(y, at, value);
    builder.end();
    builder.end();
    builder.end();
    let kernel = builder.finish([1, 1, 1], vec!["a triangle".to_owned()]);
    let x = model.input("x", DType::I32, 64, Where::Chip(8));
    let starts = model.input("starts", DType::U8, 8, Where::Chip(8));
    let y = model.output("y", DType::I32, 64, Where::Chip(4));
    model.call(kernel, &[x, starts, y]);
    model.check(Near::Bits);
}
