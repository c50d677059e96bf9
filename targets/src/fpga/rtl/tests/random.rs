//! Kernels nobody would write: loops, guards, reductions, arrays, whatever fits together.

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use crate::kernel::{BufferId, Builder, ExprId, IndexFn, Kernel, Scalar, SharedId, VarId};
use crate::number::FoldFn;

/// Elements of each buffer and of the shared array; indices are made to be below it.
const ELEMENTS: u32 = 64;

/// Choices, as a seed makes them.
pub struct Choices {
    bytes: std::iter::Cycle<std::vec::IntoIter<u8>>,
}

impl Choices {
    pub fn new(seed: u64) -> Choices {
        Choices { bytes: super::noise(seed, 4096).into_iter().cycle() }
    }

    pub fn below(&mut self, count: u32) -> u32 {
        let [a, b] = [self.bytes.next().unwrap_or(0), self.bytes.next().unwrap_or(0)];
        (u32::from(a) | u32::from(b) << 8) % count.max(1)
    }
}

struct Maker {
    builder: Builder,
    choices: Choices,
    lanes: u32,
    /// Buffers that are read, one of each type.
    integers: BufferId,
    bytes: BufferId,
    floats: BufferId,
    /// Buffers that are written.
    wrote: [BufferId; 2],
    shared: SharedId,
    scratch: [SharedId; 2],
    sums: [Vec<VarId>; 2],
    /// Indices that are not negative.
    indices: Vec<ExprId>,
    depth: u32,
    stores: u32,
}

/// A kernel that a seed makes.
pub fn kernel(seed: u64) -> (Kernel, [u32; 5]) {
    let mut choices = Choices::new(seed);
    let lanes = 1 << choices.below(4);
    let mut builder = Builder::new("random", lanes);
    let elements = u64::from(ELEMENTS);
    let integers = builder.buffer("integers", DType::I32, elements, false);
    let bytes = builder.buffer("bytes", DType::I8, elements, false);
    let floats = builder.buffer("floats", DType::F32, elements, false);
    let wrote =
        [builder.buffer("integers_out", DType::I32, 4096, true), builder.buffer("floats_out", DType::F32, 4096, true)];
    let shared = builder.shared("shared", DType::I32, ELEMENTS);
    let scratch = [builder.shared("scratch", DType::I32, lanes), builder.shared("float_scratch", DType::F32, lanes)];
    let grid = [1 + choices.below(3), 1 + choices.below(2), 1];
    let indices = vec![builder.thread(), builder.block(0), builder.block(1)];
    let sums = [Vec::new(), Vec::new()];
    let mut maker = Maker {
        builder,
        choices,
        lanes,
        integers,
        bytes,
        floats,
        wrote,
        shared,
        scratch,
        sums,
        indices,
        depth: 0,
        stores: 0,
    };
    maker.variables();
    maker.statements(4);
    maker.store();
    let banks = [0; 5].map(|_: u32| [1, maker.lanes, 4, 8][maker.choices.below(4) as usize]);
    (maker.builder.finish(grid, Vec::new()), banks)
}

impl Maker {
    fn variables(&mut self) {
        for number in 0..2 {
            let first = self.index();
            self.sums[0].push(self.builder.declare(&format!("i{number}"), Scalar::I32, first));
            let first = self.builder.float(DType::F32, f64::from(number) - 0.5);
            self.sums[1].push(self.builder.declare(&format!("f{number}"), Scalar::F32, first));
        }
        // All of the shared array is written, each lane its own part.
        let lane = self.builder.thread();
        let each = ELEMENTS / self.lanes;
        let (zero, end) = (self.builder.integer(0), self.builder.integer(each as i32));
        let at = self.builder.loop_over("at", zero, end, 1);
        let before = self.builder.scaled(at, self.lanes as i32);
        let to = self.builder.add(before, lane);
        let value = self.builder.scaled(to, 3);
        self.builder.store_shared(self.shared, to, value);
        self.builder.end();
        self.builder.barrier();
    }

    /// An index that is not negative, below some hundreds.
    fn index(&mut self) -> ExprId {
        let choice = self.choices.below(self.indices.len() as u32) as usize;
        let own = self.indices[choice];
        let by = [1, 1, 2, 3, 4, 8][self.choices.below(6) as usize];
        let scaled = self.builder.scaled(own, by);
        let other = self.indices[self.choices.below(self.indices.len() as u32) as usize];
        match self.choices.below(4) {
            0 => self.builder.add(scaled, other),
            1 => {
                let more = self.builder.integer(self.choices.below(7) as i32);
                self.builder.add(scaled, more)
            }
            2 => {
                let lane = self.builder.thread();
                self.builder.add(scaled, lane)
            }
            _ => scaled,
        }
    }

    /// An index of an element.
    fn place(&mut self) -> ExprId {
        let index = self.index();
        let count = self.builder.integer(ELEMENTS as i32);
        self.builder.index(IndexFn::Mod, index, count)
    }

    fn integer(&mut self, depth: u32) -> ExprId {
        if depth == 0 {
            let at = self.place();
            return match self.choices.below(5) {
                0 => self.builder.load(self.integers, at, "x"),
                1 => self.builder.load(self.bytes, at, "x"),
                2 => self.builder.load_shared(self.shared, at, "x"),
                3 => {
                    let var = self.sums[0][self.choices.below(2) as usize];
                    self.builder.get(var)
                }
                _ => self.index(),
            };
        }
        let (a, b) = (self.integer(depth - 1), self.integer(depth - 1));
        let functions = [
            BinaryFn::Add,
            BinaryFn::Sub,
            BinaryFn::Mul,
            BinaryFn::Max,
            BinaryFn::Min,
            BinaryFn::Xor,
            BinaryFn::And,
            BinaryFn::Lt,
            BinaryFn::Ge,
            BinaryFn::Eq,
        ];
        match self.choices.below(14) {
            11 => {
                let condition = self.builder.binary(BinaryFn::Gt, DType::I32, a, b);
                self.builder.select(condition, a, b)
            }
            12 => self.builder.unary(UnaryFn::Abs, DType::I32, a),
            13 => {
                let float = self.float(0);
                self.builder.convert(DType::F32, DType::I32, float)
            }
            10 => self.builder.convert(DType::I32, DType::I8, a),
            function => self.builder.binary(functions[function as usize], DType::I32, a, b),
        }
    }

    fn float(&mut self, depth: u32) -> ExprId {
        if depth == 0 {
            let at = self.place();
            return match self.choices.below(3) {
                0 => self.builder.load(self.floats, at, "y"),
                1 => {
                    let own = self.builder.load(self.bytes, at, "y");
                    self.builder.convert(DType::I8, DType::F32, own)
                }
                _ => {
                    let var = self.sums[1][self.choices.below(2) as usize];
                    self.builder.get(var)
                }
            };
        }
        let (a, b) = (self.float(depth - 1), self.float(depth - 1));
        let functions = [BinaryFn::Add, BinaryFn::Sub, BinaryFn::Mul, BinaryFn::Div, BinaryFn::Max, BinaryFn::Min];
        match self.choices.below(10) {
            6 => self.builder.mul_add(DType::F32, a, b, a),
            7 => {
                let magnitude = self.builder.unary(UnaryFn::Abs, DType::F32, a);
                self.builder.unary(UnaryFn::Sqrt, DType::F32, magnitude)
            }
            8 => {
                let condition = self.builder.binary(BinaryFn::Lt, DType::F32, a, b);
                self.builder.select(condition, b, a)
            }
            9 => self.builder.unary(UnaryFn::Round, DType::F32, a),
            function => self.builder.binary(functions[function as usize], DType::F32, a, b),
        }
    }

    fn set(&mut self) {
        let number = self.choices.below(2) as usize;
        if self.choices.below(3) > 0 {
            let value = self.integer(2);
            self.builder.set(self.sums[0][number], value);
        } else {
            let value = self.float(1);
            self.builder.set(self.sums[1][number], value);
        }
    }

    /// Each lane writes what it holds, to a place of its own.
    fn store(&mut self) {
        let (lane, x, y) = (self.builder.thread(), self.builder.block(0), self.builder.block(1));
        let row = self.builder.scaled(y, 3);
        let row = self.builder.add(row, x);
        let first = self.builder.scaled(row, 8);
        let own = self.builder.add(first, lane);
        for (float, buffer) in self.wrote.into_iter().enumerate() {
            for number in 0..2 {
                let offset = self.builder.integer((self.stores * 128 + number as u32 * 64) as i32);
                let to = self.builder.add(own, offset);
                let value = self.builder.get(self.sums[float][number]);
                self.builder.store(buffer, to, value);
            }
        }
        self.stores += 1;
    }

    fn statements(&mut self, count: u32) {
        for _ in 0..1 + self.choices.below(count) {
            match self.choices.below(9) {
                0..=2 => self.set(),
                3 | 4 if self.depth < 3 => {
                    let trips = 1 + self.choices.below(5);
                    let (zero, end) = (self.builder.integer(0), self.builder.integer(trips as i32));
                    let step = 1 + self.choices.below(2);
                    let counter = self.builder.loop_over("n", zero, end, step);
                    self.scope(Some(counter));
                }
                5 if self.depth < 3 => {
                    let counter = self.builder.unrolled("u", 1 + self.choices.below(3));
                    self.scope(Some(counter));
                }
                6 if self.depth < 3 => {
                    let (a, b) = (self.integer(0), self.integer(0));
                    let condition = self.builder.binary(BinaryFn::Lt, DType::I32, a, b);
                    self.builder.when(condition);
                    self.guarded();
                    if self.choices.below(2) == 0 {
                        self.builder.otherwise();
                        self.guarded();
                    }
                    self.builder.end();
                }
                7 if self.lanes > 1 => {
                    let number = self.choices.below(2) as usize;
                    if self.choices.below(2) == 0 {
                        let function = [FoldFn::Sum, FoldFn::Max][self.choices.below(2) as usize];
                        let var = self.sums[0][number];
                        self.builder.reduce(var, function, DType::I32, self.lanes, self.scratch[0]);
                    } else {
                        let var = self.sums[1][number];
                        self.builder.reduce(var, FoldFn::Sum, DType::F32, self.lanes, self.scratch[1]);
                    }
                }
                _ => self.store(),
            }
            if self.stores > 28 {
                break;
            }
        }
    }

    fn scope(&mut self, counter: Option<ExprId>) {
        self.indices.extend(counter);
        self.depth += 1;
        self.statements(3);
        self.depth -= 1;
        if counter.is_some() {
            self.indices.pop();
        }
        self.builder.end();
    }

    /// What stands in a guard: no loops, and nothing that all lanes do together.
    fn guarded(&mut self) {
        for _ in 0..1 + self.choices.below(2) {
            match self.choices.below(3) {
                0 => self.store(),
                _ => self.set(),
            }
        }
    }
}
