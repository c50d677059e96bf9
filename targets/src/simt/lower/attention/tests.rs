//! Attentions of all shapes against the reference, with matrix units and without, with keys split over blocks and not.

#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use tcc_ir::ops::{Attention, Concat, Rope};
use tcc_ir::{DType, Data, Graph, Real, Shape, Tensor, TensorType, evaluate};

use crate::machine::Machine;
use crate::simt::Simt;
use crate::simt::SimtProgram;
use crate::simt::compile::compile;
use crate::target::{Optimization, Program};

/// What a mask is: its type and shape.
type Mask = Option<(DType, [usize; 4])>;

/// An attention.
#[derive(Clone, Debug)]
struct Case {
    dtype: DType,
    /// Batch, heads, heads of keys, queries, keys, features of keys and of values.
    dims: [usize; 7],
    op: Attention,
    mask: Mask,
    /// Keys that are there before; the others are rotated and put behind them, and all are outputs too.
    past: Option<usize>,
    /// Whether queries are rotated.
    rotated: bool,
}

/// Heads of 1 batch: heads, heads of keys, queries, keys, features.
fn case(dtype: DType, [heads, groups, queries, keys, depth]: [usize; 5]) -> Case {
    Case {
        dtype,
        dims: [1, heads, groups, queries, keys, depth, depth],
        op: Attention::scaled(1.0 / (depth as f64).sqrt()),
        mask: None,
        past: None,
        rotated: false,
    }
}

impl Case {
    fn causal(mut self, causal: i64, window: Option<i64>) -> Case {
        self.op = Attention { causal: Some(causal), window, ..self.op };
        self
    }

    fn capped(mut self, cap: f64) -> Case {
        self.op.softcap = Real(cap);
        self
    }

    fn masked(mut self, dtype: DType, shape: [usize; 4]) -> Case {
        self.mask = Some((dtype, shape));
        self.op = Attention { mask: true, ..self.op };
        self
    }

    fn after(mut self, past: usize) -> Case {
        self.past = Some(past);
        self
    }

    fn rotated(mut self) -> Case {
        self.rotated = true;
        self
    }

    fn of_values(mut self, features: usize) -> Case {
        self.dims[6] = features;
        self
    }

    fn batched(mut self, batch: usize) -> Case {
        self.dims[0] = batch;
        self
    }

    fn graph(&self) -> Graph {
        let [batch, heads, groups, queries, keys, depth, value_depth] = self.dims;
        let mut graph = Graph::new("attention");
        let ty = |dtype: DType, dims: [usize; 4]| TensorType::new(dtype, Shape::new(dims).unwrap());
        let mut q = graph.add_input("q", ty(self.dtype, [batch, heads, queries, depth]));
        let angle = |queries: usize| ty(self.dtype, [1, 1, queries, depth / 2]);
        if self.rotated {
            let angles = [graph.add_input("cos_q", angle(queries)), graph.add_input("sin_q", angle(queries))];
            q = graph.add(Rope { interleaved: false }, &[q, angles[0], angles[1]]).unwrap();
        }
        let new = keys - self.past.unwrap_or(0);
        let mut k = graph.add_input("k", ty(self.dtype, [batch, groups, new, depth]));
        let mut v = graph.add_input("v", ty(self.dtype, [batch, groups, new, value_depth]));
        if let Some(past) = self.past {
            let before = graph.add_input("past_k", ty(self.dtype, [batch, groups, past, depth]));
            let angles = [graph.add_input("cos_k", angle(new)), graph.add_input("sin_k", angle(new))];
            k = graph.add(Rope { interleaved: false }, &[k, angles[0], angles[1]]).unwrap();
            k = graph.add(Concat { axis: 2 }, &[before, k]).unwrap();
            let before = graph.add_input("past_v", ty(self.dtype, [batch, groups, past, value_depth]));
            v = graph.add(Concat { axis: 2 }, &[before, v]).unwrap();
        }
        let mut inputs = vec![q, k, v];
        if let Some((dtype, shape)) = self.mask {
            inputs.push(graph.add_input("mask", ty(dtype, shape)));
        }
        let result = graph.add(self.op, &inputs).unwrap();
        graph.add_output("y", result);
        if self.past.is_some() {
            graph.add_output("present_k", k);
            graph.add_output("present_v", v);
        }
        graph
    }

    /// Elements that look random, from -1 to 1; of masks of numbers some are far below.
    fn inputs(&self, graph: &Graph) -> Vec<Tensor> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut input = |id: &tcc_ir::ValueId| {
            let ty = graph.ty(*id).clone();
            let is_mask = &*graph.value(*id).name == "mask";
            let numbers: Vec<f32> = (0..ty.shape.count()).map(|_| next()).collect();
            let element = |(index, &x): (usize, &f32)| match (ty.dtype, is_mask) {
                // The first key is always seen.
                (DType::Bool, _) => vec![u8::from(x > -0.5 || index == 0)],
                (DType::F16, true) if x < -0.5 => half::f16::from_f32(-60000.0).to_le_bytes().to_vec(),
                (DType::F32, true) if x < -0.5 => f32::MIN.to_le_bytes().to_vec(),
                (DType::F16, _) => half::f16::from_f32(x).to_le_bytes().to_vec(),
                (DType::BF16, _) => half::bf16::from_f32(x).to_le_bytes().to_vec(),
                _ => x.to_le_bytes().to_vec(),
            };
            let bytes = numbers.iter().enumerate().flat_map(element).collect();
            Tensor::new(ty, Data::from_bytes(bytes)).unwrap()
        };
        graph.inputs().iter().map(&mut input).collect()
    }
}

fn machine(name: &str) -> Machine {
    Machine::built_in().unwrap().into_iter().find(|machine| machine.name == name).unwrap()
}

fn compiled(machine: &Machine, graph: &Graph) -> SimtProgram {
    let facts = machine.simt.clone().unwrap();
    let target = Simt::new(machine.clone()).unwrap();
    let planned = target.planned(graph, Optimization::Exact, false).unwrap();
    compile(machine, &facts, planned).unwrap()
}

/// The ratio of what is wanted to what is wrong, in dB.
fn decibels(wanted: &Tensor, found: &Tensor) -> f64 {
    let (wanted, found) = (wanted.to_f64s().unwrap(), found.to_f64s().unwrap());
    assert_eq!(wanted.len(), found.len());
    let same = |(a, b): (&f64, &f64)| if a == b || a.is_nan() && b.is_nan() { 0.0 } else { (a - b) * (a - b) };
    let noise: f64 = wanted.iter().zip(&found).map(same).sum();
    let signal: f64 = wanted.iter().filter(|x| x.is_finite()).map(|x| x * x).sum();
    10.0 * (signal / noise.max(1e-30)).log10()
}

/// What a machine computes, held against the reference; returns the program.
fn check(name: &str, case: &Case) -> SimtProgram {
    let (machine, graph) = (machine(name), case.graph());
    let inputs = case.inputs(&graph);
    let program = compiled(&machine, &graph);
    let found = program.simulate(&[], &inputs).unwrap().outputs;
    let wanted = evaluate(&graph, &inputs).unwrap();
    // Rounding to what is stored, or to what matrix units take of binary32; without these sums alone differ.
    let least = match (case.dtype, name) {
        (DType::F32, "simt-mini") => 100.0,
        (DType::BF16, _) => 40.0,
        _ => 50.0,
    };
    for (number, (wanted, found)) in wanted.iter().zip(&found).enumerate() {
        let near = decibels(wanted, found);
        assert!(near > if number == 0 { least } else { 60.0 }, "output {number} of {case:?} on {name}: {near} dB");
    }
    let again = program.simulate(&[], &inputs).unwrap().outputs;
    assert!(again.iter().zip(&found).all(|(again, found)| again.bytes().unwrap() == found.bytes().unwrap()));
    program
}

/// Whether blocks arrive in any kernel of a program.
fn is_split(program: &SimtProgram) -> bool {
    program.parts().counters().next().is_some()
}

const MACHINES: [&str; 2] = ["h100", "simt-mini"];

#[test]
fn few_rows() {
    for dtype in [DType::F32, DType::F16] {
        for dims in [
            [1, 1, 1, 1, 8],
            [2, 1, 1, 5, 6],
            [4, 2, 1, 70, 64],
            [8, 2, 2, 33, 16],
            [3, 3, 2, 200, 10],
            [2, 2, 1, 300, 128],
            [1, 1, 1, 129, 320],
        ] {
            MACHINES.iter().for_each(|name| drop(check(name, &case(dtype, dims))));
        }
    }
}

#[test]
fn keys_are_split_where_blocks_are_few() {
    for (keys, splits) in [(16, false), (513, true), (1000, true)] {
        let program = check("h100", &case(DType::F16, [4, 1, 1, keys, 64]));
        assert_eq!(is_split(&program), splits, "{keys} keys");
    }
    assert!(is_split(&check("simt-mini", &case(DType::F32, [4, 1, 1, 600, 64]))));
    assert!(is_split(&check("h100", &case(DType::F32, [4, 2, 2, 777, 64]).of_values(48).batched(2))));
    let masked = case(DType::F16, [4, 2, 2, 700, 64]);
    check("h100", &masked.clone().causal(698, None));
    check("h100", &masked.clone().causal(698, Some(100)));
    check("h100", &masked.clone().capped(2.0));
    check("h100", &masked.clone().masked(DType::Bool, [1, 4, 2, 700]));
    check("h100", &masked.masked(DType::F16, [1, 1, 1, 700]));
}

#[test]
fn caches_are_appended_to() {
    for dtype in [DType::F16, DType::F32] {
        for (dims, past) in [
            ([4, 2, 1, 7, 8], 6),
            ([4, 2, 1, 65, 64], 64),
            ([4, 1, 1, 1000, 64], 999),
            ([2, 2, 3, 40, 20], 37),
            ([8, 1, 1, 300, 128], 299),
        ] {
            let case = case(dtype, dims).after(past).rotated();
            MACHINES.iter().for_each(|name| drop(check(name, &case)));
            MACHINES.iter().for_each(|name| drop(check(name, &case.clone().causal(past as i64, Some(9)))));
        }
    }
}

#[test]
fn many_rows() {
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        for dims in
            [[2, 2, 64, 64, 64], [4, 2, 30, 50, 32], [1, 1, 200, 130, 128], [2, 1, 16, 1, 16], [1, 1, 40, 70, 20]]
        {
            let case = case(dtype, dims);
            let keys = dims[3];
            MACHINES.iter().for_each(|name| drop(check(name, &case)));
            check("mi300x", &case);
            let (queries, offset) = (dims[2], keys as i64 - dims[2] as i64);
            check("h100", &case.clone().causal(offset.max(0), None));
            check("h100", &case.clone().causal(offset.max(0), Some(20)));
            check("h100", &case.clone().masked(DType::Bool, [1, 1, queries, keys]));
            check("h100", &case.clone().masked(dtype, [1, 1, 1, keys]));
            check("h100", &case.clone().masked(dtype, [1, dims[0], queries, keys]).capped(3.0));
            check("h100", &case.clone().rotated().batched(2));
        }
    }
    check("h100", &case(DType::F16, [2, 2, 64, 96, 64]).of_values(32));
    check("h100", &case(DType::F16, [2, 1, 96, 96, 32]).after(32).rotated());
    check("simt-mini", &case(DType::F16, [2, 1, 96, 96, 32]).causal(0, Some(30)));
}

#[test]
fn rows_that_see_nothing() {
    let mut case = case(DType::F32, [2, 2, 12, 9, 16]).causal(-4, None);
    MACHINES.iter().for_each(|name| drop(check(name, &case)));
    case.op.zero_masked_rows = true;
    MACHINES.iter().for_each(|name| drop(check(name, &case)));
}
