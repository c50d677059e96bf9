//! Searches.

use tcc_ir::DType;
use tcc_ir::ops::{ArgFn, ArgReduce, TopK};

use super::{Bench, Close, names, tensor};

#[test]
fn places_of_extremes() {
    for (seed, dtype) in (0..).zip(DType::ALL) {
        for axis in 0..3 {
            for function in [ArgFn::Max, ArgFn::Min] {
                for select_last in [false, true] {
                    for equal in [false, true] {
                        let mut bench = Bench::new(seed);
                        let dims = [4, 9, 3];
                        let x = if equal { bench.alike(dtype, &dims) } else { bench.any(dtype, &dims) };
                        let x = bench.input(x);
                        bench.result(ArgReduce { function, axis, select_last }, &[x]);
                        bench.check(Close::Exactly);
                    }
                }
            }
        }
    }
}

#[test]
fn infinities_and_zeros_are_extremes_too() {
    let line = [f64::NEG_INFINITY, f64::NEG_INFINITY, -0.0, 0.0, f64::INFINITY, f64::INFINITY];
    for function in [ArgFn::Max, ArgFn::Min] {
        for count in 1..=line.len() {
            for first in 0..line.len() - count + 1 {
                let mut bench = Bench::new(1);
                let x = bench.input(tensor(DType::F16, &[count], &line[first..first + count]));
                bench.result(ArgReduce { function, axis: 0, select_last: false }, &[x]);
                bench.result(ArgReduce { function, axis: 0, select_last: true }, &[x]);
                bench.check(Close::Exactly);
            }
        }
    }
}

#[test]
fn the_place_of_what_is_no_number_lies_in_the_line() {
    for select_last in [false, true] {
        let mut bench = Bench::new(1);
        let x = bench.input(tensor(DType::F32, &[3], &[1.0, f64::NAN, 2.0]));
        bench.result(ArgReduce { function: ArgFn::Max, axis: 0, select_last }, &[x]);
        let legal = super::legal(&bench.graph).unwrap();
        let place = tcc_ir::evaluate(&legal, &bench.inputs).unwrap()[0].to_i64s().unwrap().unwrap();
        assert_eq!(place, [if select_last { 2 } else { 0 }]);
    }
}

#[test]
fn first_of_several() {
    for (seed, dtype) in (0..).zip(DType::ALL) {
        for axis in 0..3 {
            for largest in [false, true] {
                for equal in [false, true] {
                    let dims = [3, 8, 4];
                    for k in [0, 1, 2, dims[axis]] {
                        let mut bench = Bench::new(seed);
                        let x = if equal { bench.alike(dtype, &dims) } else { bench.any(dtype, &dims) };
                        let x = bench.input(x);
                        bench.result(TopK { axis, k, largest }, &[x]);
                        bench.check(Close::Exactly);
                    }
                }
            }
        }
    }
}

#[test]
fn every_number_is_selected_as_it_is() {
    let line = [0.0, f64::NEG_INFINITY, -0.0, f64::INFINITY, 1.0, f64::NEG_INFINITY, 0.0, f64::INFINITY, -0.0];
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        for largest in [false, true] {
            for k in 1..=line.len() {
                let mut bench = Bench::new(1);
                let x = bench.input(tensor(dtype, &[line.len()], &line));
                bench.result(TopK { axis: 0, k, largest }, &[x]);
                bench.check(Close::Exactly);
            }
        }
    }
    for (dtype, values) in [
        (DType::I64, [i64::MIN as f64, i64::MIN as f64, 5.0]),
        (DType::I8, [-128.0, 127.0, -128.0]),
        (DType::U8, [0.0, 255.0, 0.0]),
    ] {
        for k in 1..=3 {
            let mut bench = Bench::new(1);
            let x = bench.input(tensor(dtype, &[3], &values));
            bench.result(TopK { axis: 0, k, largest: true }, &[x]);
            bench.check(Close::Exactly);
        }
    }
}

#[test]
fn the_first_alone_is_found_without_ranks() {
    let mut bench = Bench::new(1);
    let x = bench.any(DType::F32, &[2, 50]);
    let x = bench.input(x);
    bench.result(TopK { axis: 1, k: 1, largest: true }, &[x]);
    let legal = bench.check(Close::Exactly);
    let most = legal.nodes().map(|(_, node)| legal.shape(node.output()).count()).max();
    assert_eq!(most, Some(100), "{:?}", names(&legal));
}
