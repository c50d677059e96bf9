//! Element by element: all functions, conversions and types.

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::harness::{Model, Near, Where};
use crate::kernel::check::wide;
use crate::kernel::{Builder, ExprId, Kernel, Scalar};
use crate::number::{binary_is_defined, unary_is_defined};

/// Elements of a case.
const COUNT: u32 = 512;

/// Lanes.
const LANES: u32 = 16;

const TYPES: [DType; 17] = [
    DType::F64,
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::F8E4M3,
    DType::F8E5M2,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::I4,
    DType::U64,
    DType::U32,
    DType::U16,
    DType::U8,
    DType::U4,
    DType::Bool,
];

/// A kernel on two inputs with so many results for each element.
fn kernel(
    name: &str,
    inputs: [DType; 2],
    output: DType,
    results: impl Fn(&mut Builder, ExprId, ExprId) -> Vec<ExprId>,
) -> Kernel {
    let mut builder = Builder::new(name, LANES);
    let a = builder.buffer("a", inputs[0], u64::from(COUNT), false);
    let b = builder.buffer("b", inputs[1], u64::from(COUNT), false);
    let placeholder = builder.buffer("out", output, 1, true);
    let (lane, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, LANES as i32);
    let index = builder.add(first, lane);
    let index = builder.keep("index", Scalar::I32, index);
    let (x, y) = (builder.load(a, index, "x"), builder.load(b, index, "y"));
    let values = results(&mut builder, x, y);
    let count = values.len();
    for (number, value) in values.into_iter().enumerate() {
        let from = builder.integer((number as u32 * COUNT) as i32);
        let at = builder.add(index, from);
        builder.store(placeholder, at, value);
    }
    let mut kernel = builder.finish([COUNT / LANES, 1, 1], vec![format!("{name} for {COUNT} elements")]);
    kernel.buffers[2].elements = count as u64 * u64::from(COUNT);
    kernel
}

/// Adds a call of a kernel on two inputs.
fn add(model: &mut Model, name: &str, dtypes: [DType; 2], output: DType, kernel: Kernel) {
    let elements = kernel.buffers[2].elements;
    let [a, b] = ["a", "b"].map(|which| (format!("{name}_{which}"), which));
    let a = model.input(&a.0, dtypes[0], u64::from(COUNT), Where::Chip(LANES));
    let b = model.input(&b.0, dtypes[1], u64::from(COUNT), Where::Chip(LANES));
    let out = model.output(&format!("{name}_out"), output, elements, Where::Chip(LANES));
    model.call(kernel, &[a, b, out]);
}

/// Functions whose libraries differ.
fn is_exact(function: UnaryFn) -> bool {
    function != UnaryFn::Erf
}

#[test]
fn functions() {
    let mut model = Model::new("functions");
    for dtype in TYPES {
        let name = format!("functions_{}", dtype.to_string().replace('.', "_"));
        let own = kernel(&name, [dtype; 2], wide(dtype), |builder, x, y| {
            let mut results = Vec::new();
            for &function in UnaryFn::ALL {
                if unary_is_defined(function, dtype) && is_exact(function) && !function.is_predicate() {
                    results.push(builder.unary(function, dtype, x));
                }
            }
            for &function in BinaryFn::ALL {
                let divides = matches!(function, BinaryFn::Div | BinaryFn::Mod | BinaryFn::Rem) && !dtype.is_float();
                if !binary_is_defined(function, dtype) || function.is_comparison() {
                    continue;
                }
                let one = builder.number(dtype, 1);
                let zero = builder.number(dtype, 0);
                let y = if divides {
                    let is_zero = builder.binary(BinaryFn::Eq, dtype, y, zero);
                    builder.select(is_zero, one, y)
                } else {
                    y
                };
                results.push(builder.binary(function, dtype, x, y));
            }
            results.push(builder.mul_add(dtype, x, y, x));
            results
        });
        add(&mut model, &name, [dtype; 2], wide(dtype), own);
    }
    model.check(Near::Bits);
}

#[test]
fn predicates() {
    let mut model = Model::new("predicates");
    for dtype in TYPES {
        let name = format!("predicates_{}", dtype.to_string().replace('.', "_"));
        let own = kernel(&name, [dtype; 2], DType::Bool, |builder, x, y| {
            let mut results = Vec::new();
            for &function in UnaryFn::ALL {
                if unary_is_defined(function, dtype) && function.is_predicate() {
                    results.push(builder.unary(function, dtype, x));
                }
            }
            for &function in BinaryFn::ALL {
                if binary_is_defined(function, dtype) && function.is_comparison() {
                    results.push(builder.binary(function, dtype, x, y));
                }
            }
            results
        });
        add(&mut model, &name, [dtype; 2], DType::Bool, own);
    }
    model.check(Near::Bits);
}

#[test]
fn conversions() {
    let mut model = Model::new("conversions");
    for to in TYPES {
        for (number, from) in TYPES.into_iter().enumerate() {
            if number % 2 == 0 && from != to {
                continue;
            }
            let name = format!("to_{to}_of_{from}").replace('.', "_");
            let own = kernel(&name, [from; 2], wide(to), |builder, x, _| vec![builder.convert(from, to, x)]);
            add(&mut model, &name, [from; 2], wide(to), own);
        }
    }
    model.check(Near::Bits);
}

#[test]
fn stores() {
    let mut model = Model::new("stores");
    for dtype in TYPES {
        if dtype.bits() < 8 {
            continue;
        }
        let wide = wide(dtype);
        let name = format!("stores_{dtype}").replace('.', "_");
        let own = kernel(&name, [wide; 2], dtype, |builder, x, _| vec![x, builder.convert(wide, dtype, x)]);
        add(&mut model, &name, [wide; 2], dtype, own);
    }
    model.check(Near::Bits);
}

#[test]
fn error_function() {
    let mut model = Model::new("error_function");
    for dtype in [DType::F32, DType::F64] {
        let name = format!("erf_{dtype}");
        let own = kernel(&name, [dtype; 2], dtype, |builder, x, _| vec![builder.unary(UnaryFn::Erf, dtype, x)]);
        add(&mut model, &name, [dtype; 2], dtype, own);
    }
    model.check(Near::Ulps(4));
}
