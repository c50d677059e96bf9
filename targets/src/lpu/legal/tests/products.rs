//! Products of every type, with every form of zero points.

use tcc_ir::ops::MatMul;
use tcc_ir::{DType, Tensor};

use super::{Bench, Close, names, tensor};

/// What a zero point is the same for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Zero {
    /// There is none.
    Missing,
    /// It is a constant 0.
    Nothing,
    /// Everything, as a scalar.
    Scalar,
    /// Everything, as a vector.
    Vector,
    /// A row of A, or a column of B.
    Line,
    /// A row of A, or a column of B, in one of the matrices.
    LineOfMatrix,
}

const ZEROS: [Zero; 6] = [Zero::Missing, Zero::Nothing, Zero::Scalar, Zero::Vector, Zero::Line, Zero::LineOfMatrix];

/// The extents of a zero point of an operand with these extents, whose axis of K is the last or the last but one.
fn zero_dims(zero: Zero, operand: &[usize], k_last: bool) -> Vec<usize> {
    let (lead, matrix) = operand.split_at(operand.len() - 2);
    let line = if k_last { vec![matrix[0], 1] } else { vec![1, matrix[1]] };
    match zero {
        Zero::Missing | Zero::Nothing | Zero::Scalar => vec![],
        Zero::Vector => vec![1],
        // Along columns a vector has no axis of K.
        Zero::Line if !k_last => line[1..].to_vec(),
        Zero::Line => line,
        Zero::LineOfMatrix => [lead, &line].concat(),
    }
}

struct Product {
    a: DType,
    b: DType,
    /// Leading extents of A and of B.
    lead: [&'static [usize]; 2],
    dims: [usize; 3],
    transposed: [bool; 2],
    zeros: [Zero; 2],
    /// Whether B and its zero point are constants.
    weights: bool,
}

impl Product {
    fn bench(&self, seed: u64) -> Bench {
        let mut bench = Bench::new(seed);
        let [m, k, n] = self.dims;
        let matrix = |rows: usize, columns: usize, transposed: bool, lead: &[usize]| {
            let matrix = if transposed { [columns, rows] } else { [rows, columns] };
            [lead, &matrix].concat()
        };
        let a = matrix(m, k, self.transposed[0], self.lead[0]);
        let b = matrix(k, n, self.transposed[1], self.lead[1]);
        let zeros = [
            (self.zeros[0], self.a, zero_dims(self.zeros[0], &a, !self.transposed[0])),
            (self.zeros[1], self.b, zero_dims(self.zeros[1], &b, self.transposed[1])),
        ];
        let (a, b) = (bench.any(self.a, &a), bench.any(self.b, &b));
        let add = |bench: &mut Bench, tensor: Tensor, constant: bool| {
            if constant { bench.graph.constant(tensor) } else { bench.input(tensor) }
        };
        let mut operands = vec![bench.input(a), add(&mut bench, b, self.weights)];
        for (index, (zero, dtype, dims)) in zeros.into_iter().enumerate() {
            match zero {
                Zero::Missing => {}
                Zero::Nothing => operands.push(bench.graph.constant(tensor(dtype, &[], &[0.0]))),
                _ => {
                    let zero = bench.any(dtype, &dims);
                    operands.push(add(&mut bench, zero, self.weights && index == 1));
                }
            }
        }
        let op = MatMul {
            transpose_a: self.transposed[0],
            transpose_b: self.transposed[1],
            a_zero: self.zeros[0] != Zero::Missing,
            b_zero: self.zeros[1] != Zero::Missing,
        };
        bench.result(op, &operands);
        bench
    }
}

const LEADS: [[&[usize]; 2]; 4] = [[&[], &[]], [&[2], &[]], [&[], &[3]], [&[2, 1], &[3]]];

/// Calls `f` with every form of a product of these types.
fn for_all(a: DType, b: DType, dims: [usize; 3], mut f: impl FnMut(Product)) {
    for (index, lead) in LEADS.into_iter().enumerate() {
        for transposed in [[false, false], [false, true], [true, false], [true, true]] {
            for a_zero in ZEROS {
                for b_zero in ZEROS {
                    f(Product { a, b, lead, dims, transposed, zeros: [a_zero, b_zero], weights: index % 2 == 0 });
                }
            }
        }
    }
}

#[test]
fn bytes_with_every_form_of_zero_points() {
    use DType::{I8, U8};
    for (seed, (a, b)) in (0..).zip([(U8, I8), (I8, U8), (U8, U8), (I8, I8)]) {
        for dims in [[3, 5, 4], [1, 300, 2], [2, 1, 3]] {
            for_all(a, b, dims, |product| {
                let legal = product.bench(seed).check(Close::Exactly);
                // The matrix units still do it.
                assert_eq!(names(&legal).iter().filter(|&&name| name == "mat_mul").count(), 1);
            });
        }
    }
}

#[test]
fn four_bits_become_bytes_and_wider_integers_are_multiplied_one_by_one() {
    use DType::{I4, I8, I16, I32, I64, U4, U8, U16, U32, U64};
    for (seed, (a, b, bytes)) in (0..).zip([
        (U4, I8, 1),
        (U8, I4, 1),
        (I4, I4, 1),
        (I16, I16, 0),
        (U16, I8, 0),
        (I8, I32, 0),
        (I32, I32, 0),
        (U32, U32, 0),
        (U32, U4, 0),
        (I64, I64, 0),
        (U64, U64, 0),
    ]) {
        for_all(a, b, [2, 3, 4], |product| {
            let legal = product.bench(seed).check(Close::Exactly);
            assert_eq!(names(&legal).iter().filter(|&&name| name == "mat_mul").count(), bytes, "{a} {b}");
        });
    }
}

#[test]
fn sums_over_nothing_are_zero() {
    for dtype in [DType::I8, DType::I32, DType::F32, DType::F64, DType::BF16] {
        for zeros in [[Zero::Missing; 2], [Zero::Scalar; 2]] {
            if zeros[0] == Zero::Missing || dtype.is_integer() {
                let product = Product {
                    a: dtype,
                    b: dtype,
                    lead: [&[], &[]],
                    dims: [2, 0, 3],
                    transposed: [false, true],
                    zeros,
                    weights: false,
                };
                product.bench(1).check(Close::Exactly);
            }
        }
    }
}

#[test]
fn no_zero_point_is_left_of_constant_zeros() {
    let zeros = [Zero::Nothing, Zero::Nothing];
    let product = Product {
        a: DType::U8,
        b: DType::I8,
        lead: [&[], &[]],
        dims: [3, 4, 5],
        transposed: [false, false],
        zeros,
        weights: true,
    };
    assert_eq!(names(&product.bench(1).check(Close::Exactly)), ["mat_mul"]);
}

#[test]
fn floats() {
    for (dtype, tolerance, products) in [
        (DType::F16, 1e-3, 1),
        (DType::BF16, 8e-3, 1),
        (DType::F8E4M3, 0.07, 1),
        (DType::F8E5M2, 0.13, 1),
        (DType::F32, 1e-6, 1),
        (DType::F64, 1e-14, 0),
    ] {
        for lead in LEADS {
            for transposed in [[false, false], [false, true], [true, false], [true, true]] {
                for k in [1, 2, 7] {
                    let zeros = [Zero::Missing; 2];
                    let product =
                        Product { a: dtype, b: dtype, lead, dims: [3, k, 5], transposed, zeros, weights: false };
                    // Of one product there is no sum, and each is exact in binary32.
                    let close = if k == 1 && dtype != DType::BF16 { Close::Exactly } else { Close::Within(tolerance) };
                    let legal = product.bench(k as u64).check(close);
                    let count = names(&legal).iter().filter(|&&name| name == "mat_mul").count();
                    assert_eq!(count, if k == 1 { 0 } else { products }, "{dtype} {k}");
                }
            }
        }
    }
}

#[test]
fn what_the_matrix_units_multiply_stays() {
    for (a, b) in [(DType::F16, DType::F16), (DType::F32, DType::F32), (DType::U8, DType::I8)] {
        for transpose_b in [false, true] {
            let zeros = [Zero::Missing; 2];
            let transposed = [false, transpose_b];
            let product = Product { a, b, lead: [&[2], &[]], dims: [3, 4, 5], transposed, zeros, weights: true };
            let bench = product.bench(1);
            let before = names(&bench.graph);
            assert_eq!(names(&bench.check(Close::Exactly)), before);
        }
    }
}
