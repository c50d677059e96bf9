//! Kernels to try.

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use crate::fpga::lower::paired::Paired;
use crate::kernel::{BufferId, Builder, ExprId, IndexFn, Kernel, Scalar, VarId};
use crate::number::FoldFn;

const F32: DType = DType::F32;

/// A variable with a float in it.
fn float(builder: &mut Builder, name: &str, value: f64) -> VarId {
    let value = builder.float(F32, value);
    builder.declare(name, Scalar::F32, value)
}

/// Opens a loop over all elements of a row that lanes go through side by side: the place in the row.
fn along(builder: &mut Builder, columns: u32) -> ExprId {
    let (zero, end) = (builder.integer(0), builder.integer(columns as i32));
    let first = builder.loop_over("first", zero, end, builder.threads());
    let lane = builder.thread();
    builder.add(first, lane)
}

/// An element of a row.
fn of_row(builder: &mut Builder, buffer: BufferId, columns: u32, column: ExprId) -> ExprId {
    let row = builder.block(0);
    let before = builder.scaled(row, columns as i32);
    let at = builder.add(before, column);
    builder.load(buffer, at, "x")
}

/// Sets a variable to a function of what it holds and something else.
fn update(builder: &mut Builder, var: VarId, function: BinaryFn, other: ExprId) {
    let so_far = builder.get(var);
    let next = builder.binary(function, F32, so_far, other);
    builder.set(var, next);
}

/// e^(x - greatest) / sum of each row.
pub fn softmax(rows: u32, columns: u32, lanes: u32) -> Kernel {
    let mut builder = Builder::new("softmax", lanes);
    let elements = u64::from(rows * columns);
    let (from, to) = (builder.buffer("from", F32, elements, false), builder.buffer("to", F32, elements, true));
    let powers = builder.shared("powers", F32, columns);
    let scratch = builder.shared("scratch", F32, lanes);
    let most = float(&mut builder, "most", f64::NEG_INFINITY);
    let column = along(&mut builder, columns);
    let x = of_row(&mut builder, from, columns, column);
    update(&mut builder, most, BinaryFn::Max, x);
    builder.end();
    builder.reduce(most, FoldFn::Max, F32, lanes, scratch);
    let sum = float(&mut builder, "sum", 0.0);
    let column = along(&mut builder, columns);
    let x = of_row(&mut builder, from, columns, column);
    let most = builder.get(most);
    let less = builder.binary(BinaryFn::Sub, F32, x, most);
    let power = builder.unary(UnaryFn::Exp, F32, less);
    let power = builder.keep("power", Scalar::F32, power);
    builder.store_shared(powers, column, power);
    update(&mut builder, sum, BinaryFn::Add, power);
    builder.end();
    builder.reduce(sum, FoldFn::Sum, F32, lanes, scratch);
    let sum = builder.get(sum);
    let part = builder.unary(UnaryFn::Recip, F32, sum);
    let part = builder.keep("part", Scalar::F32, part);
    let column = along(&mut builder, columns);
    let power = builder.load_shared(powers, column, "held");
    let result = builder.binary(BinaryFn::Mul, F32, power, part);
    let row = builder.block(0);
    let before = builder.scaled(row, columns as i32);
    let at = builder.add(before, column);
    builder.store(to, at, result);
    builder.end();
    builder.finish([rows, 1, 1], Vec::new())
}

/// (x - mean) / sqrt(variance + 1e-5) scale + shift of each row.
pub fn norm(rows: u32, columns: u32, lanes: u32) -> Kernel {
    let mut builder = Builder::new("norm", lanes);
    let elements = u64::from(rows * columns);
    let from = builder.buffer("from", F32, elements, false);
    let scale = builder.buffer("scale", F32, u64::from(columns), false);
    let shift = builder.buffer("shift", F32, u64::from(columns), false);
    let to = builder.buffer("to", F32, elements, true);
    let scratch = builder.shared("scratch", F32, lanes);
    let (sum, squares) = (float(&mut builder, "sum", 0.0), float(&mut builder, "squares", 0.0));
    let column = along(&mut builder, columns);
    let x = of_row(&mut builder, from, columns, column);
    update(&mut builder, sum, BinaryFn::Add, x);
    let square = builder.binary(BinaryFn::Mul, F32, x, x);
    update(&mut builder, squares, BinaryFn::Add, square);
    builder.end();
    builder.reduce(sum, FoldFn::Sum, F32, lanes, scratch);
    builder.reduce(squares, FoldFn::Sum, F32, lanes, scratch);
    let part = builder.float(F32, 1.0 / f64::from(columns));
    let (sum, squares) = (builder.get(sum), builder.get(squares));
    let mean = builder.binary(BinaryFn::Mul, F32, sum, part);
    let mean = builder.keep("mean", Scalar::F32, mean);
    let all = builder.binary(BinaryFn::Mul, F32, squares, part);
    let own = builder.binary(BinaryFn::Mul, F32, mean, mean);
    let variance = builder.binary(BinaryFn::Sub, F32, all, own);
    let little = builder.float(F32, 1e-5);
    let variance = builder.binary(BinaryFn::Add, F32, variance, little);
    let root = builder.unary(UnaryFn::Rsqrt, F32, variance);
    let root = builder.keep("root", Scalar::F32, root);
    let column = along(&mut builder, columns);
    let x = of_row(&mut builder, from, columns, column);
    let factor = builder.load(scale, column, "factor");
    let summand = builder.load(shift, column, "summand");
    let less = builder.binary(BinaryFn::Sub, F32, x, mean);
    let normal = builder.binary(BinaryFn::Mul, F32, less, root);
    let result = builder.mul_add(F32, normal, factor, summand);
    let row = builder.block(0);
    let before = builder.scaled(row, columns as i32);
    let at = builder.add(before, column);
    builder.store(to, at, result);
    builder.end();
    builder.finish([rows, 1, 1], Vec::new())
}

/// softmax(Q K^T / 4) V of one head for as many keys, and as wide, as there are lanes. The keys lie transposed.
pub fn attention(rows: u32, lanes: u32) -> Kernel {
    let mut builder = Builder::new("attention", lanes);
    let square = u64::from(lanes * lanes);
    let queries = builder.buffer("queries", F32, u64::from(rows * lanes), false);
    let keys = builder.buffer("keys", F32, square, false);
    let values = builder.buffer("values", F32, square, false);
    let to = builder.buffer("to", F32, u64::from(rows * lanes), true);
    let weights = builder.shared("weights", F32, lanes);
    let scratch = builder.shared("scratch", F32, lanes);
    let (lane, row) = (builder.thread(), builder.block(0));
    let product = |builder: &mut Builder, name: &str, left: &dyn Fn(&mut Builder, ExprId) -> ExprId, right| {
        let sum = float(builder, name, 0.0);
        let (zero, end) = (builder.integer(0), builder.integer(lanes as i32));
        let k = builder.loop_over("k", zero, end, 1);
        let a = left(builder, k);
        let before = builder.scaled(k, lanes as i32);
        let at = builder.add(before, lane);
        let b = builder.load(right, at, "b");
        let so_far = builder.get(sum);
        let next = builder.mul_add(F32, a, b, so_far);
        builder.set(sum, next);
        builder.end();
        sum
    };
    let query = |builder: &mut Builder, k| {
        let before = builder.scaled(row, lanes as i32);
        let at = builder.add(before, k);
        builder.load(queries, at, "query")
    };
    let score = product(&mut builder, "score", &query, keys);
    let scale = builder.float(F32, 0.25);
    update(&mut builder, score, BinaryFn::Mul, scale);
    let own = builder.get(score);
    let most = builder.declare("most", Scalar::F32, own);
    builder.reduce(most, FoldFn::Max, F32, lanes, scratch);
    let (own, most) = (builder.get(score), builder.get(most));
    let less = builder.binary(BinaryFn::Sub, F32, own, most);
    let power = builder.unary(UnaryFn::Exp, F32, less);
    let sum = builder.declare("sum", Scalar::F32, power);
    let own = builder.get(sum);
    builder.store_shared(weights, lane, own);
    builder.barrier();
    builder.reduce(sum, FoldFn::Sum, F32, lanes, scratch);
    let weight = |builder: &mut Builder, k| builder.load_shared(weights, k, "weight");
    let result = product(&mut builder, "result", &weight, values);
    let (result, sum) = (builder.get(result), builder.get(sum));
    let result = builder.binary(BinaryFn::Div, F32, result, sum);
    let before = builder.scaled(row, lanes as i32);
    let at = builder.add(before, lane);
    builder.store(to, at, result);
    builder.finish([rows, 1, 1], Vec::new())
}

/// A product of matrices of 8-bit integers, row by row, with lanes along columns.
pub fn product(rows: u32, columns: u32, depth: u32, lanes: u32) -> Kernel {
    let mut builder = Builder::new("product", lanes);
    let a = builder.buffer("a", DType::I8, u64::from(rows * depth), false);
    let b = builder.buffer("b", DType::I8, u64::from(depth * columns), false);
    let c = builder.buffer("c", DType::I32, u64::from(rows * columns), true);
    let (group, row, lane) = (builder.block(0), builder.block(1), builder.thread());
    let before = builder.scaled(group, lanes as i32);
    let column = builder.add(before, lane);
    let start = builder.number(DType::I32, 0);
    let sum = builder.declare("sum", Scalar::I32, start);
    let (zero, end) = (builder.integer(0), builder.integer(depth as i32));
    let k = builder.loop_over("k", zero, end, 1);
    let own = builder.scaled(row, depth as i32);
    let from = builder.add(own, k);
    let x = builder.load(a, from, "x");
    let own = builder.scaled(k, columns as i32);
    let from = builder.add(own, column);
    let y = builder.load(b, from, "y");
    let product = builder.binary(BinaryFn::Mul, DType::I32, x, y);
    let so_far = builder.get(sum);
    let next = builder.binary(BinaryFn::Add, DType::I32, so_far, product);
    builder.set(sum, next);
    builder.end();
    let own = builder.scaled(row, columns as i32);
    let to = builder.add(own, column);
    let sum = builder.get(sum);
    builder.store(c, to, sum);
    builder.finish([columns / lanes, rows, 1], Vec::new())
}

/// A product of matrices of 8-bit integers that makes two rows at a time, whose products share the factor of B.
pub fn paired_product(rows: u32, columns: u32, depth: u32) -> Kernel {
    let mut builder = Builder::new("paired", columns);
    let a = builder.buffer("a", DType::I8, u64::from(rows * depth), false);
    let b = builder.buffer("b", DType::I8, u64::from(depth * columns), false);
    let c = builder.buffer("c", DType::I32, u64::from(rows * columns), true);
    let (two, column) = (builder.block(0), builder.thread());
    let start = builder.number(DType::I32, 0);
    let sums = [0, 1].map(|row| builder.declare(&format!("sum{row}"), Scalar::I32, start));
    let (zero, end) = (builder.integer(0), builder.integer(depth as i32));
    let k = builder.loop_over("k", zero, end, 1);
    let own = builder.scaled(k, columns as i32);
    let from = builder.add(own, column);
    let y = builder.load(b, from, "y");
    let paired = Paired::of([DType::I8; 2]).unwrap();
    let [upper, lower] = [1, 0].map(|row| {
        let own = builder.scaled(two, 2 * depth as i32);
        let from = builder.add(own, k);
        let offset = builder.integer(row * depth as i32);
        let from = builder.add(from, offset);
        builder.load(a, from, "x")
    });
    let both = paired.both(&mut builder, DType::I8, [upper, lower]);
    let (y, start) = (builder.convert_register(DType::I8, DType::I64, y), paired.start(&mut builder));
    let products = builder.mul_add(DType::I64, both, y, start);
    let [upper, lower] = paired.parted(&mut builder, DType::I32, products);
    for (own, sum) in [lower, upper].into_iter().zip(sums) {
        let so_far = builder.get(sum);
        let next = builder.binary(BinaryFn::Add, DType::I32, so_far, own);
        builder.set(sum, next);
    }
    builder.end();
    for (row, sum) in (0..).zip(sums) {
        let own = builder.scaled(two, 2 * columns as i32);
        let to = builder.add(own, column);
        let offset = builder.integer(row * columns as i32);
        let to = builder.add(to, offset);
        let sum = builder.get(sum);
        builder.store(c, to, sum);
    }
    builder.finish([rows / 2, 1, 1], Vec::new())
}

/// Elements in another order, by quotients of numbers that are no powers of two, and of some that only memory knows.
pub fn shuffled() -> Kernel {
    let mut builder = Builder::new("shuffled", 1);
    let from = builder.buffer("from", DType::I32, 120, false);
    let to = builder.buffer("to", DType::I32, 120, true);
    let at = builder.block(0);
    let seven = builder.scaled(at, 7);
    let all = builder.integer(120);
    let place = builder.index(IndexFn::Mod, seven, all);
    let ten = builder.integer(10);
    let row = builder.index(IndexFn::Div, place, ten);
    let column = builder.index(IndexFn::Mod, place, ten);
    let own = builder.scaled(column, 12);
    let source = builder.add(own, row);
    let x = builder.load(from, source, "x");
    let divisor = builder.number(DType::I32, 12345);
    let less = builder.binary(BinaryFn::Rem, DType::I32, x, divisor);
    let one = builder.number(DType::I32, 1);
    let odd = builder.binary(BinaryFn::Or, DType::I32, less, one);
    let quotient = builder.binary(BinaryFn::Div, DType::I32, x, odd);
    let rest = builder.binary(BinaryFn::Mod, DType::I32, x, odd);
    let sum = builder.binary(BinaryFn::Add, DType::I32, quotient, rest);
    builder.store(to, at, sum);
    builder.finish([120, 1, 1], Vec::new())
}

/// The sum of the first elements of a row, or the greatest, as the row's number says: a branch with loops in it.
pub fn branches(rows: u32, columns: u32) -> Kernel {
    let mut builder = Builder::new("branches", 2);
    let from = builder.buffer("from", DType::I32, u64::from(rows * columns), false);
    let to = builder.buffer("to", DType::I32, u64::from(2 * rows), true);
    let (row, lane) = (builder.block(0), builder.thread());
    let start = builder.number(DType::I32, 5);
    let sum = builder.declare("sum", Scalar::I32, start);
    let (_, odd) = builder.divided(row, 2);
    for side in 0..2 {
        if side == 0 {
            builder.when(odd)
        } else {
            builder.otherwise()
        }
        let (zero, end) = (builder.integer(0), builder.integer(columns as i32 / (1 + side)));
        let k = builder.loop_over("k", zero, end, 2);
        let before = builder.scaled(row, columns as i32);
        let at = builder.add(before, k);
        let at = builder.add(at, lane);
        let x = builder.load(from, at, "x");
        let so_far = builder.get(sum);
        let function = if side == 0 { BinaryFn::Add } else { BinaryFn::Max };
        let next = builder.binary(function, DType::I32, so_far, x);
        builder.set(sum, next);
        builder.end();
    }
    builder.end();
    let before = builder.scaled(row, 2);
    let at = builder.add(before, lane);
    let sum = builder.get(sum);
    builder.store(to, at, sum);
    builder.finish([rows, 1, 1], Vec::new())
}
