//! Products of tiles in shared memory, whose sums are spread over the lanes of a warp.
//!
//! In OpenCL C each lane computes its own sums. In CUDA C++ matrix units do: of each 32 bytes of what is summed over, a warp
//! reads all of A and B once, as fragments that lanes hold in words of 32 bits, and multiplies each of the one with each of the
//! other. Lane l has, of 16 rows of A, words l mod 4 and l mod 4 + 4 of rows l / 4 and l / 4 + 8, and of 8 columns of B, words
//! l mod 4 and l mod 4 + 4 of column l / 4, whatever the type is (PTX ISA, matrix fragments of mma.m16n8k8 with .tf32,
//! .m16n8k16 with .f16 and .bf16, .m16n8k32 with .s8 and .u8).

use tcc_ir::DType;

use super::c::Writer;
use super::dialect::Dialect;
use crate::kernel::writer::{Binding, Expressions, Helper};
use crate::kernel::{Expr, ExprId, Factor, IndexFn, Shared, Spread, Stmt, VarId};

/// Bytes of a row that `ldmatrix` reads, and what they must lie at a multiple of.
const ROW: u32 = 16;

/// Words of a row of A, or of a column of B, that matrix units multiply at a time.
const WORDS: u32 = 8;

/// How far definitions of variables are followed.
const DEEPEST: u32 = 32;

/// A product of tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'n> {
    /// The array of sums.
    pub sums: &'n str,
    /// Rows of A, columns of B, and what is summed over.
    pub size: [u32; 3],
    pub a: Factor,
    pub b: Factor,
    pub b_by_rows: bool,
}

impl Writer<'_> {
    /// Adds a product to the sums.
    pub fn multiply(&mut self, tiles: Tiles<'_>) {
        let Some(spread) = Spread::new(self.warp, tiles.size[1]) else { return };
        match self.dialect {
            Dialect::OpenCl => self.multiply_each(tiles, spread),
            Dialect::Cuda => self.multiply_fragments(tiles, spread),
        }
    }

    /// Each lane computes the sums that it has.
    fn multiply_each(&mut self, tiles: Tiles<'_>, spread: Spread) {
        let kernel = self.kernel;
        let Tiles { sums, size: [rows, columns, depth], a, b, b_by_rows } = tiles;
        let across = columns / spread.tile_columns();
        let (a_at, b_at) = (self.expr(a.at, Binding::Sum), self.expr(b.at, Binding::Sum));
        let [left, right] = [a, b].map(|factor| &kernel.shared[factor.shared.index()]);
        let (row, column) = match self.warp {
            64 => ("own_lane / 16 * 4 + slot % 4", "own_lane % 16"),
            _ => ("own_lane / 4 + slot % 4 / 2 * 8", "own_lane % 4 * 2 + slot % 2"),
        };
        self.line(&format!("for (int slot = 0; slot < {}; ++slot) {{", spread.count(rows)));
        self.depth += 1;
        self.line(&format!("const int own_lane = thread % {};", self.warp));
        self.line(&format!("const int own_row = slot / 4 / {across} * 16 + {row};"));
        self.line(&format!("const int own_column = slot / 4 % {across} * {} + {column};", spread.tile_columns()));
        self.line(&format!("for (int own_k = 0; own_k < {depth}; ++own_k) {{"));
        self.depth += 1;
        let b_index = match b_by_rows {
            true => format!("{b_at} + own_k * {} + own_column", b.pitch),
            false => format!("{b_at} + own_column * {} + own_k", b.pitch),
        };
        let (left_name, right_name) = (self.dialect.shared_name(left), self.dialect.shared_name(right));
        let (mut x, _) = self.element(&left_name, left.dtype, &format!("{a_at} + own_row * {} + own_k", a.pitch));
        let (mut y, _) = self.element(&right_name, right.dtype, &b_index);
        if left.dtype == DType::F32 {
            let round = self.helper(Helper::RoundTf32);
            (x, y) = (format!("{round}({x})"), format!("{round}({y})"));
        }
        let next = if left.dtype.is_float() {
            format!("fma({x}, {y}, {sums}[slot])")
        } else {
            format!("{sums}[slot] + {x} * {y}")
        };
        self.line(&format!("{sums}[slot] = {next};"));
        self.depth -= 1;
        self.line("}");
        self.depth -= 1;
        self.line("}");
    }

    /// Matrix units multiply fragments.
    fn multiply_fragments(&mut self, tiles: Tiles<'_>, spread: Spread) {
        let kernel = self.kernel;
        let Tiles { sums, size: [rows, columns, depth], a, b, .. } = tiles;
        let [left, right] = [a, b].map(|factor| &kernel.shared[factor.shared.index()]);
        let step = WORDS * per_word(left.dtype);
        let (down, across) = (rows / Spread::ROWS, columns / spread.tile_columns());
        self.line("{");
        self.depth += 1;
        self.line(&format!("const int own_lane = thread % {};", self.warp));
        self.unroll();
        self.line(&format!("for (int own_k = 0; own_k < {depth}; own_k += {step}) {{"));
        self.depth += 1;
        self.line(&format!("unsigned own_left[{down}][4], own_right[{across}][2];"));
        self.left_fragments(a, left, down);
        self.right_fragments(tiles, right, across);
        if left.dtype == DType::F32 {
            for (name, count) in [("own_left", down), ("own_right", across)] {
                self.for_slots(count, &format!("round_to_tf32({name}[slot]);"));
            }
        }
        self.unroll();
        self.line(&format!("for (int own_row = 0; own_row < {down}; ++own_row) {{"));
        self.depth += 1;
        self.unroll();
        self.line(&format!("for (int own_column = 0; own_column < {across}; ++own_column)"));
        let function = unit(left.dtype, right.dtype);
        let first = format!("{sums} + (own_row * {across} + own_column) * 4");
        self.line(&format!("    {function}({first}, own_left[own_row], own_right[own_column]);"));
        for _ in 0..3 {
            self.depth -= 1;
            self.line("}");
        }
    }

    /// Reads fragments of A.
    fn left_fragments(&mut self, a: Factor, shared: &Shared, down: u32) {
        let (at, pitch, per) = (self.expr(a.at, Binding::Sum), a.pitch, per_word(shared.dtype));
        let name = &shared.name;
        self.unroll();
        self.line(&format!("for (int own_row = 0; own_row < {down}; ++own_row) {{"));
        self.depth += 1;
        let words = [0, 1, 2, 3].map(|word| format!("own_left[own_row][{word}]"));
        if self.is_in_rows(a, shared) {
            let first = lines(name, &at, &format!("own_row * {}", 16 * pitch), pitch, shared.dtype);
            self.line(&format!("ldmatrix_x4({}, {first} + own_k);", words.join(", ")));
        } else {
            for (word, place) in words.iter().enumerate() {
                let row = format!("(own_row * 16 + own_lane / 4 + {}) * {pitch}", word % 2 * 8);
                let k = format!("own_k + own_lane % 4 * {per} + {}", word as u32 / 2 * 4 * per);
                self.line(&format!("{place} = gathered({name} + {at} + {row} + {k}, 1);"));
            }
        }
        self.depth -= 1;
        self.line("}");
    }

    /// Reads fragments of B, of two tiles at a time.
    fn right_fragments(&mut self, tiles: Tiles<'_>, shared: &Shared, across: u32) {
        let Tiles { b, b_by_rows, .. } = tiles;
        let (at, pitch, per) = (self.expr(b.at, Binding::Sum), b.pitch, per_word(shared.dtype));
        let name = &shared.name;
        self.unroll();
        self.line(&format!("for (int own_column = 0; own_column < {across}; own_column += 2) {{"));
        self.depth += 1;
        let word = |tile: u32, word: u32| match tile {
            0 => format!("own_right[own_column][{word}]"),
            _ => format!("own_right[own_column + 1][{word}]"),
        };
        let is_in_rows = self.is_in_rows(b, shared);
        if is_in_rows && !b_by_rows {
            // Matrices of eight columns: both of the first words, then both of the others.
            let words = [word(0, 0), word(1, 0), word(0, 1), word(1, 1)].join(", ");
            let first = lines(name, &at, &format!("own_column * {}", 8 * pitch), pitch, shared.dtype);
            self.line(&format!("ldmatrix_x4({words}, {first} + own_k);"));
        } else if is_in_rows && shared.dtype.bits() == 16 {
            // Matrices of eight rows, which lanes are given by columns.
            let words = [word(0, 0), word(0, 1), word(1, 0), word(1, 1)].join(", ");
            let first = lines(name, &at, "own_column * 8", pitch, shared.dtype);
            self.line(&format!("ldmatrix_x4_trans({words}, {first} + own_k * {pitch});"));
        } else {
            let (k_step, column_step) = if b_by_rows { (pitch, 1) } else { (1, pitch) };
            for (tile, half) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let column = format!("(own_column * 8 + own_lane / 4 + {}) * {column_step}", tile * 8);
                let k = format!("(own_k + own_lane % 4 * {per} + {}) * {k_step}", half * 4 * per);
                let place = word(tile, half);
                self.line(&format!("{place} = gathered({name} + {at} + {column} + {k}, {k_step});"));
            }
        }
        self.depth -= 1;
        self.line("}");
    }

    /// Whether all lines of a matrix begin where `ldmatrix` can read them.
    fn is_in_rows(&self, factor: Factor, shared: &Shared) -> bool {
        let row = ROW * 8 / shared.dtype.bits() as u32;
        factor.pitch.is_multiple_of(row) && self.divisor(factor.at, DEEPEST).is_multiple_of(row)
    }

    /// A number that an index is a multiple of, a power of two.
    fn divisor(&self, id: ExprId, deepest: u32) -> u32 {
        let kernel = self.kernel;
        let Some(deeper) = deepest.checked_sub(1) else { return 1 };
        match kernel.exprs[id.index()] {
            Expr::Integer(value) => 1 << value.trailing_zeros().min(16),
            Expr::Index(function, a, b) => {
                let (a, b) = (self.divisor(a, deeper), self.divisor(b, deeper));
                match function {
                    IndexFn::Add | IndexFn::Sub | IndexFn::Min | IndexFn::Max => a.min(b),
                    IndexFn::Mul => (a * b).min(1 << 16),
                    _ => 1,
                }
            }
            Expr::Select([_, a, b]) => self.divisor(a, deeper).min(self.divisor(b, deeper)),
            Expr::Var(var) => self.divisor_of(var, deeper),
            _ => 1,
        }
    }

    /// A number that what a variable holds is always a multiple of, a power of two.
    fn divisor_of(&self, var: VarId, deepest: u32) -> u32 {
        let values = self.kernel.body.iter().filter_map(|stmt| match *stmt {
            Stmt::Let(own, value) | Stmt::Set(own, value) if own == var => Some(self.divisor(value, deepest)),
            Stmt::For { var: own, from, step, .. } if own == var => {
                Some(self.divisor(from, deepest).min(1 << step.trailing_zeros().min(16)))
            }
            Stmt::Reduce { var: own, .. } if own == var => Some(1),
            _ => None,
        });
        values.min().unwrap_or(1)
    }
}

/// Elements of a word.
fn per_word(dtype: DType) -> u32 {
    32 / dtype.bits() as u32
}

/// Where the line begins that each lane gives to `ldmatrix`: four matrices, the first two of sixteen lines, the others 16 bytes
/// further.
fn lines(name: &str, at: &str, tile: &str, pitch: u32, dtype: DType) -> String {
    let next = ROW * 8 / dtype.bits() as u32;
    format!("{name} + {at} + {tile} + own_lane % 16 * {pitch} + own_lane / 16 * {next}")
}

/// What multiplies fragments of two types.
fn unit(left: DType, right: DType) -> String {
    match left {
        DType::F16 => "mma_m16n8k16_f16".to_owned(),
        DType::BF16 => "mma_m16n8k16_bf16".to_owned(),
        DType::F32 => "mma_m16n8k8_tf32".to_owned(),
        _ => {
            let sign = |dtype: DType| if dtype == DType::U8 { "u8" } else { "s8" };
            format!("mma_m16n8k32_{}_{}", sign(left), sign(right))
        }
    }
}
