//! Products by either dataflow, on arrays that divide and on several.

use tcc_ir::{Shape, Tensor};

use super::grouped::{check, machine, parse, plan, run};
use crate::machine::Machine;
use crate::systolic::compile::compile_plan;
use crate::systolic::machine::{Array, Dataflow};
use crate::target::Program as _;

/// A machine with little memory and another array.
fn changed(change: impl Fn(&mut Array)) -> Machine {
    let mut machine = machine(16, 64 << 10, 64);
    change(&mut machine.systolic.as_mut().unwrap().array);
    machine
}

fn product([m, k, n]: [usize; 3]) -> String {
    format!(
        r#"graph "product" {{
            input %0 "x": f32[{m},{k}]
            input %1 "w": f32[{k},{n}]
            input %2 "bias": f32[{n}]
            %3: f32[{m},{n}] = mat_mul(%0, %1)
            %4: f32[{m},{n}] = add(%3, %2)
            output "sum" = %4
        }}"#
    )
}

const SIZES: [[usize; 3]; 6] = [[1, 1, 1], [1, 300, 40], [40, 300, 17], [33, 7, 100], [100, 64, 16], [5, 16, 200]];

#[test]
fn products_of_all_sizes_are_exact() {
    let both = vec![Dataflow::WeightStationary, Dataflow::OutputStationary];
    let machines = [
        changed(|array| array.dataflows = vec![Dataflow::OutputStationary]),
        changed(|array| array.dataflows = both.clone()),
        changed(|array| array.overlap = false),
        changed(|array| (array.count, array.row_groups) = (2, 4)),
    ];
    for machine in &machines {
        for sizes in SIZES {
            check(&product(sizes), machine, 1, 1e-6);
        }
    }
}

/// Cycles of a product with each list of dataflows.
fn cycles(sizes: [usize; 3], dataflows: &[Dataflow]) -> u64 {
    let machine = changed(|array| array.dataflows = dataflows.to_vec());
    let program = compile_plan(&machine, machine.systolic.as_ref().unwrap(), plan(&parse(&product(sizes)))).unwrap();
    program.report().cycles
}

#[test]
fn the_faster_dataflow_is_taken() {
    let (weights, sums) = (Dataflow::WeightStationary, Dataflow::OutputStationary);
    for (sizes, faster) in [([16, 300, 16], sums), ([300, 16, 16], weights)] {
        assert_eq!(cycles(sizes, &[weights, sums]), cycles(sizes, &[faster]), "{sizes:?}");
        assert_ne!(cycles(sizes, &[weights]), cycles(sizes, &[sums]), "{sizes:?}");
    }
}

#[test]
fn integers_keep_their_zero_points() {
    let source = r#"graph "integers" {
        input %0 "x": u8[20,150]
        input %1 "w": i8[150,20]
        input %2 "x_zero": u8[]
        input %3 "w_zero": i8[]
        %4: i32[20,20] = mat_mul[a_zero=true,b_zero=true](%0, %1, %2, %3)
        output "sums" = %4
    }"#;
    let graph = parse(source);
    let machine = changed(|array| array.dataflows = vec![Dataflow::OutputStationary]);
    let shape = |dims: &[usize]| Shape::new(dims.iter().copied()).unwrap();
    let x = (0..20 * 150).map(|index| (index * 37 % 256) as u8).collect();
    let w = (0..150 * 20).map(|index| (index * 59 % 256) as u8 as i8).collect();
    let inputs = [
        Tensor::from_vec(shape(&[20, 150]), x).unwrap(),
        Tensor::from_vec(shape(&[150, 20]), w).unwrap(),
        Tensor::from_vec(shape(&[]), vec![131u8]).unwrap(),
        Tensor::from_vec(shape(&[]), vec![-7i8]).unwrap(),
    ];
    run(plan(&graph), &machine, &inputs).unwrap().check(0.0, source);
}
