//! Accesses of all kinds to memories on the part and to channels.

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::harness::{Model, Near, Where};
use crate::kernel::{Builder, ExprId, IndexFn, Scalar};

/// How a lane finds its element among those of its block.
#[derive(Clone, Copy, Debug)]
enum How {
    Plain,
    /// Further on, not at the start of a word.
    Moved(i32),
    /// Some elements apart.
    Strided(i32),
    /// From the last on.
    Mirrored,
    /// All lanes the same.
    Broadcast,
    /// Wherever an index says that is read.
    Gathered,
}

/// Copies through a way of reading and writing; the elements that are read are also added up to be sure of all.
fn moved(model: &mut Model, name: &str, dtype: DType, lanes: u32, [from, to]: [Where; 2], [read, write]: [How; 2]) {
    let blocks = 6;
    let count = blocks * lanes;
    let room = u64::from(count * 4 + 64);
    let mut builder = Builder::new(name, lanes);
    let x = builder.buffer("x", dtype, room, false);
    let indices = builder.buffer("indices", DType::I32, u64::from(count), false);
    let y = builder.buffer("y", crate::kernel::check::wide(dtype), room, true);
    let (lane, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, lanes as i32);
    let mut index = |how: How| -> ExprId {
        match how {
            How::Plain => builder.add(first, lane),
            How::Moved(by) => {
                let at = builder.add(first, lane);
                let by = builder.integer(by);
                builder.add(at, by)
            }
            How::Strided(by) => {
                let at = builder.add(first, lane);
                builder.scaled(at, by)
            }
            How::Mirrored => {
                let last = builder.integer(lanes as i32 - 1);
                let back = builder.index(IndexFn::Sub, last, lane);
                builder.add(first, back)
            }
            How::Broadcast => builder.scaled(block, 3),
            How::Gathered => {
                let at = builder.add(first, lane);
                builder.load(indices, at, "index")
            }
        }
    };
    let (source, target) = (index(read), index(write));
    let value = builder.load(x, source, "value");
    builder.store(y, target, value);
    let kernel = builder.finish([blocks, 1, 1], vec![format!("{dtype}: {read:?} to {write:?}")]);
    let mut order: Vec<i32> = (0..count as i32).collect();
    for at in (1..order.len()).rev() {
        let other = model.mixed() as usize % (at + 1);
        order.swap(at, other);
    }
    let order = order.into_iter().flat_map(i32::to_le_bytes).collect();
    let x = model.input(&format!("{name}_x"), dtype, room, from);
    let indices = model.given(&format!("{name}_indices"), DType::I32, u64::from(count), Where::Chip(lanes), order);
    let y = model.output(&format!("{name}_y"), crate::kernel::check::wide(dtype), room, to);
    model.call(kernel, &[x, indices, y]);
}

const READS: [How; 7] =
    [How::Plain, How::Moved(5), How::Strided(3), How::Strided(2), How::Mirrored, How::Broadcast, How::Gathered];

const WRITES: [How; 6] = [How::Plain, How::Moved(5), How::Strided(3), How::Strided(4), How::Mirrored, How::Gathered];

#[test]
fn accesses_on_the_part() {
    let mut model = Model::new("on_chip");
    for (number, how) in READS.into_iter().enumerate() {
        let banks = [16, 8, 5, 1][number % 4];
        moved(
            &mut model,
            &format!("reads_{number}"),
            DType::F32,
            16,
            [Where::Chip(banks), Where::Chip(16)],
            [how, How::Plain],
        );
    }
    for (number, how) in WRITES.into_iter().enumerate() {
        let banks = [16, 8, 5, 32][number % 4];
        moved(
            &mut model,
            &format!("writes_{number}"),
            DType::I32,
            16,
            [Where::Chip(16), Where::Chip(banks)],
            [How::Plain, how],
        );
    }
    moved(&mut model, "four_bits", DType::I4, 16, [Where::Chip(16), Where::Chip(16)], [How::Plain, How::Plain]);
    moved(
        &mut model,
        "four_bits_strided",
        DType::U4,
        8,
        [Where::Chip(16), Where::Chip(16)],
        [How::Strided(3), How::Plain],
    );
    model.check(Near::Bits);
}

#[test]
fn accesses_of_channels() {
    let mut model = Model::new("channels");
    let types =
        [DType::F32, DType::I8, DType::F16, DType::I64, DType::I4, DType::U8, DType::F64, DType::U4, DType::Bool];
    for (number, how) in READS.into_iter().enumerate() {
        for (other, ways) in [1, 2, 4].into_iter().enumerate() {
            let dtype = types[(number + 3 * other) % types.len()];
            let name = format!("reads_{number}_of_{ways}");
            let lanes = [16, 32, 64][(number + other) % 3];
            moved(&mut model, &name, dtype, lanes, [Where::Channels(1, ways), Where::Chip(16)], [how, How::Plain]);
        }
    }
    model.check(Near::Bits);
}

#[test]
fn accesses_of_channels_that_write() {
    let mut model = Model::new("channels_written");
    let types = [DType::F32, DType::I64, DType::I32];
    for (number, how) in WRITES.into_iter().enumerate() {
        for (other, ways) in [1, 2, 4].into_iter().enumerate() {
            let dtype = types[(number + other) % types.len()];
            let name = format!("writes_{number}_of_{ways}");
            let lanes = [16, 32, 8][(number + other) % 3];
            moved(
                &mut model,
                &name,
                dtype,
                lanes,
                [Where::Channels(0, 2), Where::Channels(2, ways)],
                [How::Plain, how],
            );
        }
    }
    model.check(Near::Bits);
}

/// Vectors of neighbouring elements, which each lane loads and stores at once.
#[test]
fn vectors() {
    let mut model = Model::new("vectors");
    let homes = [
        [Where::Chip(16), Where::Chip(16)],
        [Where::Channels(0, 1), Where::Chip(4)],
        [Where::Channels(0, 2), Where::Channels(2, 1)],
        [Where::Chip(8), Where::Channels(2, 2)],
    ];
    for (number, [source, to]) in homes.into_iter().enumerate() {
        for lanes in [1, 4] {
            let name = format!("vectors_{number}_{lanes}");
            let mut builder = Builder::new(&name, lanes);
            let count = 32 * lanes;
            let x = builder.buffer("x", DType::F32, u64::from(count), false);
            let y = builder.buffer("y", DType::F32, u64::from(count), true);
            let (lane, block) = (builder.thread(), builder.block(0));
            let zero = builder.float(DType::F32, 0.0);
            let held = builder.array("held", Scalar::F32, 4, zero);
            let first = builder.scaled(block, lanes as i32);
            let own = builder.add(first, lane);
            let from = builder.scaled(own, 4);
            let none = builder.integer(0);
            builder.push(crate::kernel::Stmt::LoadVector { array: held, to: none, buffer: x, from, count: 4 });
            let slot = builder.unrolled("each", 4);
            let value = builder.element(held, slot);
            let doubled = builder.binary(BinaryFn::Add, DType::F32, value, value);
            builder.set_element(held, slot, doubled);
            builder.end();
            builder.push(crate::kernel::Stmt::StoreVector { buffer: y, to: from, array: held, from: none, count: 4 });
            let kernel = builder.finish([8, 1, 1], Vec::new());
            let x = model.input(&format!("{name}_x"), DType::F32, u64::from(count), source);
            let y = model.output(&format!("{name}_y"), DType::F32, u64::from(count), to);
            model.call(kernel, &[x, y]);
        }
    }
    model.check(Near::Bits);
}

/// Values that share a memory, and a function that is called several times.
#[test]
fn functions_are_called_again() {
    let mut model = Model::new("again");
    let memory = model.memory("shared_ram", DType::I32, 8, 64);
    let mut builder = Builder::new("sum", 8);
    let x = builder.buffer("x", DType::I32, 64, false);
    let w = builder.buffer("w", DType::I32, 64, false);
    let y = builder.buffer("y", DType::I32, 64, true);
    let (lane, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, 8);
    let at = builder.add(first, lane);
    let (a, b) = (builder.load(x, at, "a"), builder.load(w, at, "b"));
    let sum = builder.mul_add(DType::I32, a, b, a);
    builder.store(y, at, sum);
    let kernel = builder.finish([8, 1, 1], vec!["y = x w + x".to_owned()]);
    let weight = model.weight("weight", DType::I32, 64, Where::Channels(0, 2));
    let own = model.weight("own", DType::I32, 64, Where::In(memory));
    let x = model.input("x", DType::I32, 64, Where::In(memory));
    let middle = model.value("middle", DType::I32, 64, Where::In(memory));
    let y = model.output("y", DType::I32, 64, Where::In(memory));
    model.call(kernel.clone(), &[x, own, middle]);
    model.call(kernel.clone(), &[middle, own, y]);
    let mut other = kernel;
    other.name = "sum_from_memory".to_owned();
    let z = model.output("z", DType::I32, 64, Where::In(memory));
    model.call(other, &[y, weight, z]);
    assert_eq!(model.parts.design.functions.len(), 2);
    model.check(Near::Bits);
}
