//! What threads do together or with several elements at once in CUDA: products of tiles of each type and layout, vectors, and
//! copies to shared memory, by an emulator of the instructions that they become.

use tcc_ir::DType;

use super::device::{COUNT, Cases, Near, THREADS, compare, emulate, mixed, patterns};
use crate::kernel::check::wide;
use crate::kernel::{Builder, Factor, IndexFn, Scalar, Spread, Stmt};

/// Rows of A that a warp multiplies, and columns of B.
const TILE: [u32; 2] = [16, 32];

/// Rows of A: those of all warps of a block.
const ROWS: u32 = TILE[0] * THREADS / 32;

/// A product of tiles of these types: B row by row or column by column, with lines that are longer than what they hold by so
/// many elements, from an element on.
#[derive(Clone, Copy, Debug)]
struct Layout {
    dtypes: [DType; 2],
    b_by_rows: bool,
    skew: u32,
    first: u32,
}

/// Elements that are numbers of moderate size with all bits of their mantissas.
pub(super) fn moderate(dtype: DType, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let bits = |random: u64| match dtype {
        DType::F16 => random & 0x83ff | (12 + (random >> 20) % 6) << 10,
        DType::BF16 => random & 0x807f | (124 + (random >> 20) % 6) << 7,
        DType::F32 => random & 0x807f_ffff | (124 + (random >> 40) % 6) << 23,
        _ => random & 0xff,
    };
    (0..COUNT).map(|_| bits(mixed(&mut state))).collect()
}

/// Adds a kernel that multiplies: each warp its rows of A with all of B, twice over, and writes the sums.
fn product(cases: &mut Cases, layout: Layout) {
    let Layout { dtypes: [left, right], b_by_rows, skew, first } = layout;
    let mut case = cases.case(&format!("{layout:?}"));
    // 64 bytes: two steps of matrix units.
    let depth = 64 * 8 / left.bits() as u32;
    let inputs = [case.input(left, &moderate(left, 3)), case.input(right, &moderate(right, 5))];
    let sum = if left.is_float() { DType::F32 } else { DType::I32 };
    let output = case.output("sums", sum, Near::Exact);
    let builder = &mut case.builder;
    let b_lines = if b_by_rows { [depth, TILE[1]] } else { [TILE[1], depth] };
    let mut factors = Vec::new();
    for ((input, dtype), (name, [lines, width])) in
        inputs.into_iter().zip([left, right]).zip([("a", [ROWS, depth]), ("b", b_lines)])
    {
        let pitch = width + skew;
        let shared = builder.shared(name, dtype, first + lines * pitch);
        let (thread, end) = (builder.thread(), builder.integer((lines * width) as i32));
        let i = builder.loop_over("i", thread, end, THREADS);
        let element = builder.load(input, i, "element");
        let (line, within) = builder.divided(i, width as i32);
        let at = builder.scaled(line, pitch as i32);
        let at = builder.add(at, within);
        let from = builder.integer(first as i32);
        let at = builder.add(at, from);
        builder.store_shared(shared, at, element);
        builder.end();
        factors.push((shared, pitch));
    }
    builder.barrier();
    let start = if left.is_float() { builder.float(sum, 0.5) } else { builder.number(sum, 7) };
    let spread = Spread::new(32, TILE[1]).unwrap();
    let sums = builder.array("sums", Scalar::of(sum), spread.count(TILE[0]), start);
    let thread = builder.thread();
    let (warp, lane) = builder.divided(thread, 32);
    let own = builder.scaled(warp, (TILE[0] * factors[0].1) as i32);
    let from = builder.integer(first as i32);
    let own = builder.add(own, from);
    let factor = |(shared, pitch), at| Factor { shared, at, pitch };
    for _ in 0..2 {
        let (a, b) = (factor(factors[0], own), factor(factors[1], from));
        builder.multiply(sums, [TILE[0], TILE[1], depth], a, b, b_by_rows);
    }
    let block = builder.block(0);
    let halves = COUNT / (ROWS * TILE[1]);
    let writes = builder.below(block, halves as i32);
    builder.when(writes);
    let i = builder.unrolled("i", spread.count(TILE[0]));
    let (row, column) = spread.place_in(builder, lane, i);
    let before = builder.scaled(warp, TILE[0] as i32);
    let row = builder.add(before, row);
    let before = builder.scaled(block, ROWS as i32);
    let row = builder.add(before, row);
    let at = builder.scaled(row, TILE[1] as i32);
    let at = builder.add(at, column);
    let value = builder.element(sums, i);
    builder.store(output, at, value);
    builder.end();
    builder.end();
    case.finish();
}

#[test]
fn matrix_units_multiply_as_the_simulator_does() {
    let mut cases = Cases::new("products");
    let bytes = [DType::I8, DType::U8];
    let same = [DType::F16, DType::BF16, DType::F32].map(|dtype| [dtype; 2]);
    let mixed = bytes.into_iter().flat_map(|left| bytes.map(|right| [left, right]));
    for dtypes in same.into_iter().chain(mixed) {
        let line = 16 * 8 / dtypes[0].bits() as u32;
        for b_by_rows in [false, true] {
            // As the compiler writes them; lines that are not aligned; and the first that is not.
            for (skew, first) in [(line, 0), (line, 2 * line), (1, 0), (line, 1)] {
                product(&mut cases, Layout { dtypes, b_by_rows, skew, first });
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    compare(cases, folder.path(), emulate);
}

/// The number of the first element of a thread's vector, among those of an array that holds so many vectors.
pub(super) fn vector_at(builder: &mut Builder, index: crate::kernel::ExprId, count: u32) -> crate::kernel::ExprId {
    let own = builder.divided(index, (COUNT / count) as i32).1;
    builder.scaled(own, count as i32)
}

#[test]
fn vectors_are_read_written_and_copied_as_the_simulator_does() {
    let mut cases = Cases::new("vectors");
    for dtype in DType::ALL {
        for bits in [32, 64, 128] {
            let count = bits / dtype.bits() as u32;
            if count == 0 {
                continue;
            }
            let mut case = cases.case(&format!("{count} of {dtype}"));
            let input = case.input(dtype, &patterns(dtype, COUNT as usize));
            let (index, is_stored) = (case.index, dtype.bits() >= 8);
            let outputs = is_stored.then(|| ["vector", "copied"].map(|what| case.output(what, dtype, Near::Exact)));
            let single = case.output("single", wide(dtype), Near::Exact);
            let builder = &mut case.builder;
            let start = if dtype.is_float() { builder.float(dtype, 0.0) } else { builder.number(dtype, 0) };
            // Not from the first element of the array on.
            let held = builder.array("held", Scalar::of(dtype), count + 1, start);
            let to = builder.integer(1);
            let from = vector_at(builder, index, count);
            let from = builder.keep("from", Scalar::I32, from);
            builder.push(Stmt::LoadVector { array: held, to, buffer: input, from, count });
            let j = builder.unrolled("j", count);
            let place = builder.add(j, to);
            let element = builder.element(held, place);
            let at = builder.add(from, j);
            builder.store(single, at, element);
            builder.end();
            if let Some([vector, copied]) = outputs {
                builder.push(Stmt::StoreVector { buffer: vector, to: from, array: held, from: to, count });
                let shared = builder.shared("copies", dtype, 2 * THREADS * count);
                let thread = builder.thread();
                let own = builder.scaled(thread, count as i32);
                let other = builder.integer((THREADS * count) as i32);
                let other = builder.add(other, own);
                let (one, zero) = (builder.integer(1), builder.integer(0));
                // Two groups, of which the first is there before the second.
                builder.push(Stmt::Copy { shared, to: own, buffer: input, from, count, when: one });
                builder.push(Stmt::Commit);
                let odd = builder.divided(thread, 2).1;
                let even = builder.index(IndexFn::Eq, odd, zero);
                builder.push(Stmt::Copy { shared, to: other, buffer: input, from, count, when: even });
                builder.push(Stmt::Commit);
                builder.push(Stmt::Await(1));
                let j = builder.unrolled("j", count);
                let at = builder.add(own, j);
                let element = builder.load_shared(shared, at, "element");
                let place = builder.add(j, to);
                builder.set_element(held, place, element);
                builder.end();
                builder.push(Stmt::Await(0));
                builder.barrier();
                builder.when(odd);
                // Of the neighbour's second copy, which is whole where its own was all zeros.
                let j = builder.unrolled("j", count);
                let at = builder.add(other, j);
                let before = builder.integer(-(count as i32));
                let of_neighbour = builder.add(at, before);
                let element = builder.load_shared(shared, of_neighbour, "element");
                let nothing = builder.load_shared(shared, at, "nothing");
                let is_less = builder.convert(dtype, DType::Bool, nothing);
                let chosen = builder.select(is_less, nothing, element);
                let place = builder.add(j, to);
                builder.set_element(held, place, chosen);
                builder.end();
                builder.end();
                builder.push(Stmt::StoreVector { buffer: copied, to: from, array: held, from: to, count });
            }
            case.finish();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    compare(cases, folder.path(), emulate);
}
