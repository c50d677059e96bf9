//! Attention kernels against the reference.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod harness;
mod limits;

use harness::{Bench, PLAIN, check, cycles, machine, usual};
use tcc_ir::ops::{Attention, Binary, BinaryFn, Concat, Reduce, ReduceFn, Rope, Slice, Unary, UnaryFn};
use tcc_ir::{DType, Real, ValueId};

/// Extents: batch, heads, key heads, queries, keys, features of keys and of values.
type Extents = [usize; 7];

/// A graph of nothing but an attention.
fn plain(dtype: DType, op: Attention, [b, h, g, s, t, d, e]: Extents) -> Bench {
    let mut bench = Bench::new(dtype);
    let q = bench.random(&[b, h, s, d]);
    let k = bench.random(&[b, g, t, d]);
    let v = bench.random(&[b, g, t, e]);
    let y = bench.add(op, &[q, k, v]);
    bench.output(y);
    bench
}

#[test]
fn shapes_of_every_kind() {
    let cases: &[Extents] = &[
        [1, 1, 1, 1, 1, 1, 1],
        [1, 2, 2, 5, 7, 4, 3],
        [2, 4, 2, 5, 7, 8, 8],
        [3, 6, 3, 9, 33, 5, 130],
        [1, 8, 2, 1, 300, 64, 64],
        [1, 12, 12, 128, 128, 64, 64],
        [1, 2, 1, 150, 257, 129, 128],
        [2, 2, 2, 40, 3, 200, 300],
    ];
    for &extents in cases {
        for machine in [usual(), machine(4, 64 << 10, 16), machine(8, 64 << 10, 64), machine(16, 128 << 10, 256)] {
            let small = machine.systolic.as_ref().is_some_and(|facts| facts.array.rows < 16);
            if small && extents.iter().product::<usize>() > 1_000_000 {
                continue;
            }
            let depth = extents[5] as f64;
            let op = Attention { scale: Real(1.0 / depth.sqrt()), ..PLAIN };
            check(&plain(DType::F32, op, extents), &machine, &format!("{extents:?}"));
        }
    }
}

#[test]
fn weights_of_tiles_that_are_not_equally_wide() {
    // 17 keys are tiles of 9 and 8 on 16 columns; weights of all rows end a few bytes behind 17 elements for each.
    let op = Attention { scale: Real(0.25), ..PLAIN };
    check(&plain(DType::F32, op, [2, 4, 4, 17, 17, 16, 16]), &machine(16, 128 << 10, 4096), "17 keys");
    check(&plain(DType::F32, op, [1, 12, 12, 197, 197, 64, 64]), &usual(), "197 keys");
}

/// The machines that options are tried on: one usual, one that takes every row through several steps.
fn machines() -> [crate::machine::Machine; 2] {
    [usual(), machine(8, 64 << 10, 48)]
}

#[test]
fn masks_of_every_form() {
    let [b, h, s, t] = [2, 4, 9, 21];
    for dims in [[b, h, s, t], [b, 1, 1, t], [1, 1, s, t], [1, h, s, 1], [1, 1, 1, 1], [b, 1, s, t]] {
        for boolean in [false, true] {
            for zero_masked_rows in [false, true] {
                let mut bench = Bench::new(DType::F32);
                let q = bench.random(&[b, h, s, 8]);
                let k = bench.random(&[b, 2, t, 8]);
                let v = bench.random(&[b, 2, t, 6]);
                // Every seventh number, and all of some rows.
                let hidden = move |index: usize| index % 7 == 2 || (index / t) % 5 == 1 || index / t == 0;
                let mask = if boolean {
                    bench.bools(&dims, move |index| !hidden(index))
                } else {
                    let mut numbers = bench.numbers(dims.iter().product());
                    let masked = numbers.iter_mut().enumerate().filter(|(index, _)| hidden(*index));
                    masked.for_each(|(_, number)| *number = f32::NEG_INFINITY);
                    bench.floats(&dims, numbers)
                };
                let op = Attention { scale: Real(0.3), mask: true, zero_masked_rows, ..PLAIN };
                let y = bench.add(op, &[q, k, v, mask]);
                bench.output(y);
                for machine in machines() {
                    check(&bench, &machine, &format!("mask {dims:?} {boolean} {zero_masked_rows}"));
                }
            }
        }
    }
}

#[test]
fn positions_windows_and_softcaps() {
    for (causal, window) in [
        (Some(0), None),
        (Some(12), None),
        (Some(-7), None),
        (Some(60), None),
        (Some(3), Some(5)),
        (Some(3), Some(0)),
        (Some(0), Some(1)),
        (Some(-40), None),
        (Some(i64::MAX), Some(i64::MAX)),
        (None, None),
    ] {
        for (softcap, zero_masked_rows) in [(0.0, false), (5.0, true)] {
            let op = Attention { scale: Real(0.25), softcap: Real(softcap), causal, window, zero_masked_rows, ..PLAIN };
            for extents in [[1, 4, 2, 37, 49, 8, 8], [2, 2, 2, 140, 150, 16, 16]] {
                for machine in machines() {
                    check(&plain(DType::F32, op, extents), &machine, &format!("{op:?} {extents:?}"));
                }
            }
        }
    }
}

#[test]
fn narrow_types() {
    for dtype in [DType::F16, DType::BF16] {
        let op = Attention { scale: Real(0.125), causal: Some(4), ..PLAIN };
        for machine in machines() {
            check(&plain(dtype, op, [1, 4, 2, 20, 40, 16, 16]), &machine, dtype.name());
        }
    }
}

/// A merged projection [B, S, (H + 2 G) D], seen as queries, keys and values [B, heads, S, D].
fn heads_of(bench: &mut Bench, merged: ValueId, [b, s, d]: [usize; 3], first: usize, heads: usize) -> ValueId {
    let sizes = vec![b, s, heads * d];
    let slice = Slice { starts: vec![0, 0, first * d], steps: vec![1; 3], sizes };
    let part = bench.add(slice, &[merged]);
    let split = bench.reshape(part, &[b, s, heads, d]);
    bench.transpose(split, &[0, 2, 1, 3])
}

/// Key heads repeated until there are as many as query heads.
fn repeated(bench: &mut Bench, value: ValueId, [b, h, g, t, d]: [usize; 5]) -> ValueId {
    let column = bench.reshape(value, &[b, g, 1, t, d]);
    let wide = bench.broadcast(column, &[b, g, h / g, t, d]);
    bench.reshape(wide, &[b, h, t, d])
}

/// Cosines and sines of angles that grow with the position, [1, 1, S, D / 2].
fn angles(bench: &mut Bench, s: usize, d: usize) -> [ValueId; 2] {
    let angle = |index: usize| (index / (d / 2)) as f32 / (1 + index % (d / 2)) as f32;
    [f32::cos, f32::sin].map(|function| {
        let numbers = (0..s * d / 2).map(|index| function(angle(index))).collect();
        bench.floats(&[1, 1, s, d / 2], numbers)
    })
}

/// Divides by the root of the mean of squares along features, times weights.
fn norm(bench: &mut Bench, x: ValueId, d: usize) -> ValueId {
    let weights = bench.random(&[d]);
    let squares = bench.add(Binary(BinaryFn::Mul), &[x, x]);
    let axes = vec![bench.graph.shape(x).rank() - 1];
    let mean = bench.add(Reduce { function: ReduceFn::Mean, axes }, &[squares]);
    let epsilon = bench.constant(1e-3);
    let moved = bench.add(Binary(BinaryFn::Add), &[mean, epsilon]);
    let scale = bench.add(Unary(UnaryFn::Rsqrt), &[moved]);
    let y = bench.add(Binary(BinaryFn::Mul), &[x, scale]);
    bench.add(Binary(BinaryFn::Mul), &[y, weights])
}

#[test]
fn views_of_a_merged_projection() {
    let [b, h, g, s, d] = [2, 6, 2, 19, 16];
    let mut bench = Bench::new(DType::F32);
    let merged = bench.random(&[b, s, (h + 2 * g) * d]);
    let q = heads_of(&mut bench, merged, [b, s, d], 0, h);
    let k = heads_of(&mut bench, merged, [b, s, d], h, g);
    let v = heads_of(&mut bench, merged, [b, s, d], h + g, g);
    let (k, v) = (repeated(&mut bench, k, [b, h, g, s, d]), repeated(&mut bench, v, [b, h, g, s, d]));
    let y = bench.add(Attention { scale: Real(0.25), causal: Some(0), ..PLAIN }, &[q, k, v]);
    let y = bench.transpose(y, &[0, 2, 1, 3]);
    let y = bench.reshape(y, &[b, s, h * d]);
    bench.output(y);
    for machine in machines() {
        let plan = check(&bench, &machine, "merged");
        assert!(plan.contains("attention [attention]"), "{plan}");
    }
}

/// A decoder's attention: norms of queries and keys, rotations, caches that are appended to and handed out.
#[derive(Clone, Copy, Debug)]
struct Decoder {
    dtype: DType,
    extents: [usize; 5],
    past: usize,
    interleaved: bool,
    norms: bool,
    repeat: bool,
    cached: bool,
}

fn decoder(case: Decoder) -> Bench {
    let Decoder { dtype, extents: [b, h, g, s, d], past, interleaved, norms, repeat, cached } = case;
    let mut bench = Bench::new(dtype);
    let merged = bench.random(&[b, s, (h + 2 * g) * d]);
    let split = |bench: &mut Bench, first: usize, heads: usize, normed: bool| {
        let sizes = vec![b, s, heads * d];
        let part = bench.add(Slice { starts: vec![0, 0, first * d], steps: vec![1; 3], sizes }, &[merged]);
        let split = bench.reshape(part, &[b, s, heads, d]);
        let split = if normed { norm(bench, split, d) } else { split };
        bench.transpose(split, &[0, 2, 1, 3])
    };
    let q = split(&mut bench, 0, h, norms);
    let k = split(&mut bench, h, g, norms);
    let v = split(&mut bench, h + g, g, false);
    let [cos, sin] = angles(&mut bench, s, d);
    let q = bench.add(Rope { interleaved }, &[q, cos, sin]);
    let k = bench.add(Rope { interleaved }, &[k, cos, sin]);
    let (mut k, mut v) = (k, v);
    if cached {
        let past_k = bench.random(&[b, g, past, d]);
        let past_v = bench.random(&[b, g, past, d]);
        k = bench.add(Concat { axis: 2 }, &[past_k, k]);
        v = bench.add(Concat { axis: 2 }, &[past_v, v]);
        bench.output(k);
        bench.output(v);
    }
    let t = if cached { past + s } else { s };
    if repeat {
        (k, v) = (repeated(&mut bench, k, [b, h, g, t, d]), repeated(&mut bench, v, [b, h, g, t, d]));
    }
    let op = Attention { scale: Real(1.0 / (d as f64).sqrt()), causal: Some((t - s) as i64), ..PLAIN };
    let y = bench.add(op, &[q, k, v]);
    let y = bench.transpose(y, &[0, 2, 1, 3]);
    let y = bench.reshape(y, &[b, s, h * d]);
    bench.output(y);
    bench
}

#[test]
fn prologues_of_decoders() {
    let base = Decoder {
        dtype: DType::F32,
        extents: [1, 4, 2, 5, 16],
        past: 11,
        interleaved: false,
        norms: false,
        repeat: false,
        cached: true,
    };
    let small = [usual(), machine(8, 64 << 10, 48), machine(4, 64 << 10, 16), machine(16, 64 << 10, 64)];
    for case in [
        base,
        Decoder { interleaved: true, ..base },
        Decoder { norms: true, repeat: true, ..base },
        Decoder { cached: false, norms: true, ..base },
        Decoder { extents: [2, 4, 4, 1, 8], past: 40, ..base },
        Decoder { extents: [1, 8, 2, 1, 64], past: 300, norms: true, repeat: true, ..base },
        Decoder { extents: [1, 2, 1, 70, 64], past: 130, ..base },
        Decoder { extents: [1, 2, 1, 150, 64], cached: false, norms: true, ..base },
        Decoder { extents: [2, 6, 3, 40, 32], past: 60, norms: true, interleaved: true, ..base },
        Decoder { dtype: DType::F16, repeat: true, ..base },
    ] {
        for machine in &small {
            let what = format!("{case:?}");
            let plan = check(&decoder(case), machine, &what);
            // All of it is one kernel, but for the views of the results.
            assert!(!plan.contains("element-wise") && !plan.contains("movement"), "{what}\n{plan}");
        }
    }
}

#[test]
fn caches_are_stored_whole_where_a_window_hides_them() {
    for extents in [[1, 2, 1, 3, 16], [1, 2, 2, 40, 32]] {
        let mut bench = decoder(Decoder {
            dtype: DType::F32,
            extents,
            past: 90,
            interleaved: false,
            norms: false,
            repeat: false,
            cached: true,
        });
        // The same again with a window.
        let attention = bench.graph.nodes().find(|(_, node)| matches!(node.op, tcc_ir::Op::Attention(_)));
        let inputs = attention.map(|(_, node)| node.inputs.to_vec()).unwrap();
        let op = Attention { scale: Real(0.2), causal: Some(80), window: Some(10), ..PLAIN };
        let y = bench.add(op, &inputs[..]);
        let mut fresh = Bench::new(DType::F32);
        std::mem::swap(&mut fresh.inputs, &mut bench.inputs);
        fresh.graph = bench.graph;
        fresh.output(y);
        for machine in [usual(), machine(8, 64 << 10, 48)] {
            check(&fresh, &machine, &format!("window {extents:?}"));
        }
    }
}

#[test]
fn a_rotation_alone() {
    for interleaved in [false, true] {
        let mut bench = plain(DType::F32, PLAIN, [1, 2, 2, 3, 3, 4, 4]);
        let x = bench.random(&[2, 3, 10, 16]);
        let [cos, sin] = angles(&mut bench, 10, 16);
        let y = bench.add(Rope { interleaved }, &[x, cos, sin]);
        bench.output(y);
        for machine in machines() {
            check(&bench, &machine, "rope");
        }
    }
}

/// Cycles of usual attentions on the default machine, next to those of the kernels that they are decomposed to otherwise.
#[test]
#[ignore = "measures; run it with --nocapture"]
fn cycles_of_usual_models() {
    let machine = usual();
    let scale = Real(0.125);
    let merged = |[h, g, s, d]: [usize; 4], causal: Option<i64>| {
        let mut bench = Bench::new(DType::F32);
        let x = bench.random(&[1, s, (h + 2 * g) * d]);
        let q = heads_of(&mut bench, x, [1, s, d], 0, h);
        let k = heads_of(&mut bench, x, [1, s, d], h, g);
        let v = heads_of(&mut bench, x, [1, s, d], h + g, g);
        let y = bench.add(Attention { scale, causal, ..PLAIN }, &[q, k, v]);
        let y = bench.transpose(y, &[0, 2, 1, 3]);
        bench.output(y);
        bench
    };
    let llama = |dtype: DType, s: usize, past: usize| {
        decoder(Decoder {
            dtype,
            extents: [1, 32, 8, s, 128],
            past,
            interleaved: false,
            norms: false,
            repeat: false,
            cached: true,
        })
    };
    for (what, bench) in [
        ("BERT-base, S 128", merged([12, 12, 128, 64], None)),
        ("S 512, causal, D 64", merged([12, 12, 512, 64], Some(0))),
        ("S 512, causal, D 128, H 32, G 8", merged([32, 8, 512, 128], Some(0))),
        ("Llama decode, f32", llama(DType::F32, 1, 2047)),
        ("Llama decode, f16", llama(DType::F16, 1, 2047)),
        ("Llama prefill 512, f32", llama(DType::F32, 512, 0)),
    ] {
        let [whole, parts] = cycles(&bench, &machine);
        println!("{what}: {whole} cycles whole, {parts} in parts");
    }
}
