//! What each instruction computes.

use half::bf16;
use proptest::prelude::*;
use tcc_ir::DType;

use super::*;
use crate::systolic::arbitrary::{self, Limits};
use crate::systolic::timing;

fn floats(data: &[f32], text: &str, count: usize) -> Vec<f32> {
    elements(&run_on(&bytes(data), text).unwrap().0, 512, count)
}

#[test]
fn data_goes_to_the_scratchpad_and_back() {
    let weights: Vec<u8> = (0..64).collect();
    let text = "load dram=0 spm=16 element=2 dims=[2:32:4, 2:2:-2]\n\
                store dram=4100 spm=14 element=1 dims=[8:1:1] wait(load<=0)\n";
    let (scratchpad, _, memory) = run(&weights, text).unwrap();
    assert_eq!(scratchpad[14..22], [2, 3, 0, 1, 34, 35, 32, 33]);
    assert_eq!(memory[4..12], [2, 3, 0, 1, 34, 35, 32, 33]);
}

#[test]
fn rows_are_found_by_index() {
    let mut weights: Vec<u8> = (0..32).collect();
    weights.extend(bytes(&[2i32, -1, 0]));
    let text = "load dram=32 spm=0 element=1 dims=[12:1:1]\n\
                load_rows dram=0 spm=64 bytes=3 rows=4:4 outer=2:16 indices=0 index=i32 count=3 wait(load<=0)\n\
                store_rows dram=4096 spm=64 bytes=3 rows=4:4 outer=1:0 indices=0 index=i32 count=3 \
                reduction=replace dtype=u8 wait(load<=0)\n";
    let (scratchpad, _, memory) = run(&weights, text).unwrap();
    assert_eq!(scratchpad[64..82], [8, 9, 10, 12, 13, 14, 0, 1, 2, 24, 25, 26, 28, 29, 30, 16, 17, 18]);
    assert_eq!(memory[..16], [0, 1, 2, 0, 0, 0, 0, 0, 8, 9, 10, 0, 12, 13, 14, 0]);
}

#[test]
fn stored_rows_combine_in_order() {
    let weights = bytes(&[1i32, 1, 0, 5, 7, -9]);
    let text = "load dram=0 spm=0 element=4 dims=[6:4:4]\n\
                store_rows dram=4096 spm=12 bytes=4 rows=2:4 outer=1:0 indices=0 index=i32 count=3 \
                reduction=add dtype=i32 wait(load<=0)\n";
    assert_eq!(elements::<i32>(&run(&weights, text).unwrap().2, 0, 2), [-9, 12]);
}

#[test]
fn floats_multiply_as_bf16() {
    // A is 2 by 3, the weights 3 by 2; 1 + 2^-9 rounds to 1.
    let data = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0 + 1.0 / 512.0, 1.0 + 1.0 / 512.0, 10.0, 2.0, 20.0, 3.0, 30.0];
    let text = "map copy dims=[8] acc:f32@0[4] <- float 100.0\n\
                preload spm=24 dtype=f32 k=3:8 n=2:4\n\
                multiply spm=0 dtype=f32 m=2:12 k=4 row=0 accumulate switch\n\
                multiply spm=0 dtype=f32 m=1:12 k=4 row=3\n";
    let (_, accumulators) = run_on(&bytes(&data), text).unwrap();
    let expected = [114.0, 240.0, 100.0, 100.0, 132.0, 420.0, 100.0, 100.0];
    assert_eq!(elements::<f32>(&accumulators, 0, 8), expected);
    assert_eq!(elements::<f32>(&accumulators, 48, 4), [14.0, 140.0, 0.0, 0.0]);
}

#[test]
fn sums_of_products_are_added_in_order() {
    // In binary32, 2^25 + 1 - 2^25 depends on the order.
    let big = f32::from_bits(0x4c00_0000);
    let data = [big, 1.0, -big, 1.0, 1.0, 1.0, 1.0];
    let text = "preload spm=12 dtype=f32 k=3:4 n=1:4\nmultiply spm=0 dtype=f32 m=1:0 k=4 row=0 switch";
    let (_, accumulators) = run_on(&bytes(&data), text).unwrap();
    assert_eq!(elements::<f32>(&accumulators, 0, 1), [(big + 1.0) - big]);
}

#[test]
fn integers_multiply_less_their_zero_points() {
    let data = [0u8, 255, 7, 128, 1, 2, 3, 4, 100, (-128i8) as u8, 127, 9, 250, 0, 0, 0];
    // Left (u8) [[0, 255], [7, 128]] - 100; weights (i8) [[1, 2], [3, 4]] - (-128) after transposing with strides.
    let text = "preload spm=4 dtype=i8 k=2:1 n=2:2 zero=9\nmultiply spm=0 dtype=u8 m=2:2 k=1 row=0 switch zero=8";
    let (_, accumulators) = run_on(&data, text).unwrap();
    let weights = [[129, 131], [130, 132]];
    let left = [[-100, 155], [-93, 28]];
    let product = |row: usize, column: usize| left[row][0] * weights[0][column] + left[row][1] * weights[1][column];
    let expected = [product(0, 0), product(0, 1), 0, 0, product(1, 0), product(1, 1)];
    assert_eq!(elements::<i32>(&accumulators, 0, 6), expected);
}

#[test]
fn groups_multiply_for_themselves() {
    // Weights, then two rows of A for each of four groups.
    let data: Vec<i8> = (0..64).map(|index| (index * 37 % 101) as i8 - 50).collect();
    let separate = |group: usize| {
        let (weights, a, row) = (group * 8, 32 + group * 4, group * 3);
        format!(
            "preload spm={weights} dtype=i8 k=2:4 n=4:1\nmultiply spm={a} dtype=i8 m=2:16 k=1 row={row} switch\n\
             multiply spm={a} dtype=i8 m=1:16 k=1 row={row} accumulate\n"
        )
    };
    let together = "preload spm=0 dtype=i8 k=2:4 n=4:1 groups=4:8\n\
                    multiply spm=32 dtype=i8 m=2:16 k=1 row=0 group=4:3 switch\n\
                    multiply spm=32 dtype=i8 m=1:16 k=1 row=0 group=4:3 accumulate\n";
    let machine = divided_machine();
    let run = |text: &str| run_on_with(&machine, bytemuck::cast_slice(&data), text).unwrap().1;
    let expected = run(&(0..4).map(separate).collect::<String>());
    assert_eq!(run(together), expected);
    assert!(elements::<i32>(&expected, 0, 44).iter().filter(|&&sum| sum != 0).count() > 24);
    // Two groups of the double length add up what two of the four have each, and may take one row of A for both.
    let halves = run("preload spm=0 dtype=i8 k=4:4 n=4:1 groups=2:16\n\
                      multiply spm=32 dtype=i8 m=2:16 k=1 row=0 group=0:2 switch\n");
    let product = |group: usize, row: usize, column: usize| -> i32 {
        let (a, weights) = (&data[32 + row * 16..], &data[group * 16 + column..]);
        (0..4).map(|k| i32::from(a[k]) * i32::from(weights[k * 4])).sum()
    };
    let expected: Vec<i32> = (0..16).map(|index| product(index / 8, index / 4 % 2, index % 4)).collect();
    assert_eq!(elements::<i32>(&halves, 0, 16), expected);
}

#[test]
fn sums_that_stay_are_those_of_a_pass() {
    // A is 3 by 2, B 2 by 4 and stored by columns; the accumulators hold something already.
    let data: Vec<u8> = (0..16).map(|index| (index * 59 % 251) as u8).collect();
    let begin = "map copy dims=[64] acc:i32@0[4] <- int 7\n";
    let pass = "preload spm=6 dtype=i8 k=2:1 n=4:2 zero=14\n\
                multiply spm=0 dtype=u8 m=3:2 k=1 row=1 accumulate switch zero=15\n";
    let outer = "outer m=3 n=4 k=2 row=1 accumulate spm:u8@0[2, 1] zero=15, spm:i8@6[1, 2] zero=14\n";
    let run = |text: &str| run_on(&data, &format!("{begin}{text}")).unwrap().1;
    assert_eq!(run(outer), run(pass));
    assert_ne!(run(outer), run(""));
    let nothing = run("outer m=2 n=3 k=0 row=0 spm:u8@0[2, 1], spm:i8@6[1, 2]\n");
    assert_eq!(elements::<i32>(&nothing, 0, 9), [0, 0, 0, 7, 0, 0, 0, 7, 7]);
}

#[test]
fn packed_weights_multiply() {
    // Weights [[1, -2, 3], [4, 5, -6]] in nibbles, a row in two bytes; left (i8) [2, 3].
    let data = [0xe1, 0x03, 0x54, 0x0a, 2, 3];
    let text = "preload spm=0 dtype=i4 k=2:2 n=3:0\nmultiply spm=4 dtype=i8 m=1:2 k=1 row=0 switch";
    let (_, accumulators) = run_on(&data, text).unwrap();
    assert_eq!(elements::<i32>(&accumulators, 0, 3), [14, 11, -12]);
}

#[test]
fn elements_map() {
    let data = [1.0f32, -2.0, 0.5, f32::NAN];
    assert_eq!(floats(&data, "map add dims=[3] spm:f32@512[4] <- spm:f32@0[4], float 1.5", 3), [2.5, -0.5, 2.0]);
    assert_eq!(floats(&data, "map neg dims=[2, 2] spm:f32@512[4, 8] <- spm:f32@0[4, 0]", 4), [-1.0, 2.0, -1.0, 2.0]);
    assert!(floats(&data, "map max dims=[1] spm:f32@512[4] <- spm:f32@0[4], spm:f32@12[4]", 1)[0].is_nan());
    let (scratchpad, _) = run_on(
        &bytes(&data),
        "map lt dims=[4] spm:bool@512[1] <- spm:f32@0[4], float 0.6\n\
         map select dims=[4] spm:i8@516[1] <- spm:bool@512[1], int 300, int -1\n\
         map is_nan dims=[4] spm:i32@528[4] <- spm:f32@0[4]\n\
         map copy dims=[4] spm:i8@520[1] <- spm:f32@0[4]",
    )
    .unwrap();
    assert_eq!(scratchpad[512..524], [0, 1, 1, 0, 255, 44, 44, 255, 1, 254, 0, 0]);
    assert_eq!(elements::<i32>(&scratchpad, 528, 4), [0, 0, 0, 1]);
}

#[test]
fn long_and_transposed_maps_agree_with_a_loop() {
    let data: Vec<f32> = (0..100).map(|value| value as f32 * 0.37 - 11.0).collect();
    let transposed = floats(&data, "map copy dims=[10, 10] spm:f32@512[40, 4] <- spm:f32@0[4, 40]", 100);
    for row in 0..10 {
        for column in 0..10 {
            assert_eq!(transposed[row * 10 + column], data[column * 10 + row]);
        }
    }
}

#[test]
fn casts_round_saturate_and_wrap() {
    let data = [1.0f32 / 3.0, -7.9, 300.0, f32::INFINITY];
    let (scratchpad, _) = run_on(
        &bytes(&data),
        "map copy dims=[4] spm:bf16@512[2] <- spm:f32@0[4]\nmap copy dims=[4] spm:u8@520[1] <- spm:f32@0[4]\n\
         map copy dims=[4] spm:i4@524[0] <- spm:f32@0[4]\nmap copy dims=[4] spm:i8@528[1] <- spm:i4@524[0]\n\
         map copy dims=[1] spm:u8@532[1] <- int 515\nmap copy dims=[4] spm:i64@536[8] <- spm:f32@0[4]",
    )
    .unwrap();
    assert_eq!(elements::<bf16>(&scratchpad, 512, 2), [bf16::from_f32(1.0 / 3.0), bf16::from_f32(-7.9)]);
    assert_eq!(scratchpad[520..526], [0, 0, 255, 255, 0x90, 0x77]);
    assert_eq!(elements::<i8>(&scratchpad, 528, 4), [0, -7, 7, 7]);
    assert_eq!(scratchpad[532], 3);
    assert_eq!(elements::<i64>(&scratchpad, 536, 4), [0, -7, 300, i64::MAX]);
}

#[test]
fn an_odd_nibble_leaves_its_neighbour_alone() {
    let (scratchpad, _) = run_on(&[0xab, 0xcd, 1, 2, 3], "map copy dims=[3] spm:u4@0[0] <- spm:u8@2[1]").unwrap();
    assert_eq!(scratchpad[..2], [0x21, 0xc3]);
}

/// Of each float type a NaN that is not the canonical one, and the canonical one.
const NANS: [(DType, u64, u64); 6] = [
    (DType::F64, 0xfff0_0000_0000_0001, 0x7ff8_0000_0000_0000),
    (DType::F32, 0xff80_0001, 0x7fc0_0000),
    (DType::F16, 0xfc01, 0x7e00),
    (DType::BF16, 0xff81, 0x7fc0),
    (DType::F8E4M3, 0xff, 0x7f),
    (DType::F8E5M2, 0xfd, 0x7e),
];

#[test]
fn copies_keep_bits() {
    for (dtype, nan, canonical) in NANS {
        let size = dtype.bits() / 8;
        let data: Vec<u8> = [nan, canonical, 1].iter().flat_map(|bits| bits.to_le_bytes()[..size].to_vec()).collect();
        let text = format!("map copy dims=[3] spm:{dtype}@512[{size}] <- spm:{dtype}@0[{size}]");
        let (scratchpad, _) = run_on(&data, &text).unwrap();
        assert_eq!(scratchpad[512..512 + data.len()], data, "{dtype}");
    }
}

#[test]
fn arithmetic_writes_the_canonical_nan() {
    for (dtype, nan, canonical) in NANS {
        let size = dtype.bits() / 8;
        let to = format!("spm:{dtype}@512[{size}]");
        let mut texts = vec![
            format!("map neg dims=[1] {to} <- spm:{dtype}@0[{size}]"),
            format!("map add dims=[1] {to} <- spm:{dtype}@0[{size}], float 1.0"),
            format!("map select dims=[1] {to} <- int 1, spm:{dtype}@0[{size}], float 1.0"),
            format!("fold max dims=[1] reduced=1 spm:{dtype}@512[0] <- spm:{dtype}@0[{size}]"),
            format!("scan dims=[1] {to} <- spm:{dtype}@0[{size}]"),
            format!("sort dims=[1] k=1 largest spm:{dtype}@0[{size}] -> values {to} positions spm:i32@544[4]"),
        ];
        let others = NANS.iter().filter(|(other, ..)| *other != dtype);
        texts.extend(others.map(|(other, ..)| {
            format!(
                "map copy dims=[1] spm:{other}@256[8] <- spm:{dtype}@0[8]\nmap copy dims=[1] {to} <- spm:{other}@256[8]"
            )
        }));
        for text in texts {
            let (scratchpad, _) = run_on(&nan.to_le_bytes(), &text).unwrap();
            assert_eq!(scratchpad[512..512 + size], canonical.to_le_bytes()[..size], "{text}");
        }
        let text = format!(
            "load dram=0 spm=0 element=1 dims=[8:1:1]\n\
             store dram=4096 spm=0 element=1 dims=[8:1:1] wait(load<=0)\n\
             store_rows dram=4096 spm=0 bytes={size} rows=1:8 outer=1:0 indices=64 index=i32 count=1 \
             reduction=mul dtype={dtype} wait(load<=0, store<=0)\n"
        );
        let (_, _, memory) = run(&nan.to_le_bytes(), &text).unwrap();
        assert_eq!(memory[..size], canonical.to_le_bytes()[..size], "{text}");
    }
}

#[test]
fn the_array_writes_the_canonical_nan() {
    let negative = f32::from_bits(0xff80_0001);
    for data in [[negative, 1.0], [1.0, negative], [f32::INFINITY, 0.0]] {
        let text = "preload spm=0 dtype=f32 k=1:4 n=1:4\n\
                    multiply spm=4 dtype=f32 m=1:4 k=4 row=0 switch\n\
                    multiply spm=4 dtype=f32 m=1:4 k=4 row=0 accumulate\n\
                    map copy dims=[1] acc:f32@16[4] <- float 1.0\n\
                    multiply spm=4 dtype=f32 m=1:4 k=4 row=1 accumulate\n";
        let (_, accumulators) = run_on(&bytes(&data), text).unwrap();
        for at in [0, 16] {
            assert_eq!(elements::<u32>(&accumulators, at, 1), [0x7fc0_0000], "{data:?}");
        }
    }
}

#[test]
fn integers_divide_shift_and_wrap() {
    let data = [-7i32, 2, i32::MAX, -1];
    let on = |text: &str| elements::<i32>(&run_on(&bytes(&data), text).unwrap().0, 512, 1)[0];
    assert_eq!(on("map div dims=[1] spm:i32@512[4] <- spm:i32@0[4], spm:i32@4[4]"), -3);
    assert_eq!(on("map mod dims=[1] spm:i32@512[4] <- spm:i32@0[4], spm:i32@4[4]"), 1);
    assert_eq!(on("map rem dims=[1] spm:i32@512[4] <- spm:i32@0[4], spm:i32@4[4]"), -1);
    assert_eq!(on("map add dims=[1] spm:i32@512[4] <- spm:i32@8[4], int 1"), i32::MIN);
    assert_eq!(on("map shr dims=[1] spm:i32@512[4] <- spm:i32@0[4], int 1"), -4);
    assert_eq!(on("map shl dims=[1] spm:i32@512[4] <- spm:i32@0[4], int 32"), 0);
    assert_eq!(on("map pow dims=[1] spm:i32@512[4] <- spm:i32@12[4], int -3"), -1);
}

#[test]
fn folds_deal_elements_to_lanes() {
    // 20 elements on 8 lanes.
    let data: Vec<f32> = (0..20).map(|value| (value as f32 * 1.7).sin() * 10f32.powi(value % 5)).collect();
    let mut lanes = [0f32; 8];
    for (index, value) in data.iter().enumerate() {
        lanes[index % 8] += value;
    }
    for half in [4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    let sum = floats(&data, "fold sum dims=[20] reduced=1 spm:f32@512[0] <- spm:f32@0[4]", 1);
    assert_eq!(sum, [lanes[0]]);
    let again = "fold sum dims=[20] reduced=1 spm:f32@512[0] <- spm:f32@0[4]\n\
                 fold sum dims=[4, 5] reduced=2 accumulate spm:f32@512[0, 0] <- spm:f32@0[20, 4]";
    assert_eq!(floats(&data, again, 1), [lanes[0] + lanes[0]]);
}

#[test]
fn folds_reduce_rows_and_columns() {
    let data: Vec<f32> = (0..12).map(|value| value as f32).collect();
    let rows = "fold max dims=[3, 4] reduced=1 spm:f32@512[4, 0] <- spm:f32@0[16, 4]";
    assert_eq!(floats(&data, rows, 3), [3.0, 7.0, 11.0]);
    let columns = "fold sum dims=[4, 3] reduced=1 spm:f32@512[4, 0] <- spm:f32@0[4, 16]";
    assert_eq!(floats(&data, columns, 4), [12.0, 15.0, 18.0, 21.0]);
    let dot = "fold dot dims=[3, 4] reduced=1 spm:f32@512[4, 0] <- spm:f32@0[16, 4], spm:f32@0[0, 4]";
    assert_eq!(floats(&data, dot, 3), [14.0, 38.0, 62.0]);
    let none = "fold min dims=[2, 0] reduced=1 spm:f32@512[4, 0] <- spm:f32@0[16, 4]";
    assert!(run_on(&bytes(&data), none).is_err(), "a fold over no elements is malformed");
}

#[test]
fn scans_sum_along_rows() {
    let data = [1.0f32, 2.0, 3.0, 10.0, 20.0, 30.0];
    let inclusive = "scan dims=[2, 3] spm:f32@512[12, 4] <- spm:f32@0[12, 4]";
    assert_eq!(floats(&data, inclusive, 6), [1.0, 3.0, 6.0, 10.0, 30.0, 60.0]);
    let backwards = "scan dims=[2, 3] exclusive spm:f32@520[12, -4] <- spm:f32@8[12, -4]";
    assert_eq!(floats(&data, backwards, 6), [5.0, 3.0, 0.0, 50.0, 30.0, 0.0]);
}

#[test]
fn sorts_keep_the_best() {
    let data = [3.0f32, f32::NAN, 5.0, 3.0, -1.0, 5.0];
    let sort = |flags: &str| {
        let text = format!("sort dims=[6] k=4 {flags} spm:f32@0[4] -> values spm:f32@512[4] positions spm:i32@544[4]");
        let (scratchpad, _) = run_on(&bytes(&data), &text).unwrap();
        (elements::<f32>(&scratchpad, 512, 4), elements::<i32>(&scratchpad, 544, 4))
    };
    let (values, positions) = sort("largest");
    assert!(values[0].is_nan());
    assert_eq!((&values[1..], &positions[..]), (&[5.0, 5.0, 3.0][..], &[1, 2, 5, 0][..]));
    assert_eq!(sort("largest later").1, [1, 5, 2, 3]);
    assert_eq!(sort(""), (vec![-1.0, 3.0, 3.0, 5.0], vec![4, 0, 3, 2]));
}

/// One element through the simulator.
fn apply(function: &str, dtype: DType, a: [u8; 8], b: Option<[u8; 8]>) -> Result<Vec<u8>, Fault> {
    let data = [a, b.unwrap_or_default()].concat();
    let second = if b.is_some() { format!(", spm:{dtype}@8[]") } else { String::new() };
    let text = format!("map {function} dims=[] spm:{dtype}@512[] <- spm:{dtype}@0[]{second}");
    run_on(&data, &text).map(|(scratchpad, _)| scratchpad[512..512 + dtype.bits().div_ceil(8)].to_vec())
}

/// The same through the reference evaluation of the graph operator.
fn reference(op: tcc_ir::ops::Op, dtype: DType, operands: &[[u8; 8]]) -> Option<Vec<u8>> {
    use tcc_ir::{Data, Shape, Tensor, TensorType};
    let ty = TensorType::new(dtype, Shape::scalar());
    let tensors: Vec<Tensor> = operands
        .iter()
        .map(|bytes| Tensor::new(ty.clone(), Data::from_bytes(bytes[..ty.bytes()].to_vec())).unwrap())
        .collect();
    let inputs: Vec<&Tensor> = tensors.iter().collect();
    let types: Vec<&TensorType> = tensors.iter().map(Tensor::ty).collect();
    let outputs = op.infer(&types).ok()?;
    let results = op.eval(&inputs, &outputs).ok()?;
    (results[0].dtype() == dtype).then(|| results[0].bytes().unwrap().to_vec())
}

/// Whether two results are the same; which NaN it is does not matter.
fn same(dtype: DType, a: &[u8], b: &[u8]) -> bool {
    let is_nan = |bytes: &[u8]| {
        let mut value = [0f64];
        crate::number::Number::load(bytes, dtype, 0, 0, &mut value);
        value[0].is_nan()
    };
    a == b || (dtype.is_float() && is_nan(a) && is_nan(b))
}

fn sample_type() -> impl Strategy<Value = DType> {
    prop::sample::select(
        DType::ALL.into_iter().filter(|dtype| !matches!(dtype, DType::I4 | DType::U4)).collect::<Vec<_>>(),
    )
}

fn sample_bytes() -> impl Strategy<Value = [u8; 8]> {
    prop_oneof![
        any::<[u8; 8]>(),
        (-9i64..9).prop_map(i64::to_le_bytes),
        any::<f32>().prop_map(|x| {
            let bits = x.to_le_bytes();
            [bits[0], bits[1], bits[2], bits[3], 0, 0, bits[2], bits[3]]
        })
    ]
}

/// Functions that the machine and the reference approximate each in its own way.
fn is_approximated(function: tcc_ir::ops::UnaryFn) -> bool {
    use tcc_ir::ops::UnaryFn::{Erf, Exp, Sigmoid, Softplus, Tanh};
    matches!(function, Erf | Exp | Sigmoid | Softplus | Tanh)
}

/// Whether floats of at most 32 bits differ by a few units in the last place of binary32, or by one of their own.
fn near(dtype: DType, a: &[u8], b: &[u8]) -> bool {
    let bits = |bytes: &[u8]| (0..).zip(bytes).map(|(byte, &value)| i64::from(value) << (8 * byte)).sum::<i64>();
    match dtype {
        DType::F32 => (bits(a) - bits(b)).abs() <= 8,
        DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => (bits(a) - bits(b)).abs() <= 1,
        _ => false,
    }
}

proptest! {
    #[test]
    fn functions_of_one_operand_agree_with_the_reference(
        function in prop::sample::select(tcc_ir::ops::UnaryFn::ALL),
        dtype in sample_type(),
        a in sample_bytes(),
    ) {
        let a = if dtype == DType::Bool { [a[0] & 1; 8] } else { a };
        if let Some(expected) = reference(tcc_ir::ops::Unary(function).into(), dtype, &[a]) {
            let result = apply(function.name(), dtype, a, None).unwrap();
            let agrees = same(dtype, &result, &expected) || (is_approximated(function) && near(dtype, &result, &expected));
            prop_assert!(agrees, "{:?} instead of {:?}", result, expected);
        }
    }

    #[test]
    fn functions_of_two_operands_agree_with_the_reference(
        function in prop::sample::select(tcc_ir::ops::BinaryFn::ALL),
        dtype in sample_type(),
        a in sample_bytes(),
        b in sample_bytes(),
    ) {
        let [a, b] = if dtype == DType::Bool { [[a[0] & 1; 8], [b[0] & 1; 8]] } else { [a, b] };
        if let Some(expected) = reference(tcc_ir::ops::Binary(function).into(), dtype, &[a, b]) {
            let result = apply(function.name(), dtype, a, Some(b)).unwrap();
            prop_assert!(same(dtype, &result, &expected), "{:?} instead of {:?}", result, expected);
        }
    }

    #[test]
    fn casts_agree_with_the_reference(from in sample_type(), to in sample_type(), a in sample_bytes()) {
        use tcc_ir::{Data, Shape, Tensor, TensorType};
        let a = if from == DType::Bool { [a[0] & 1; 8] } else { a };
        let ty = TensorType::new(from, Shape::scalar());
        let tensor = Tensor::new(ty.clone(), Data::from_bytes(a[..ty.bytes()].to_vec())).unwrap();
        let op: tcc_ir::ops::Op = tcc_ir::ops::Cast { to }.into();
        let outputs = op.infer(&[&ty]).unwrap();
        let expected = op.eval(&[&tensor], &outputs).unwrap()[0].bytes().unwrap().to_vec();
        let text = format!("map copy dims=[] spm:{to}@512[] <- spm:{from}@0[]");
        let (scratchpad, _) = run_on(&a, &text).unwrap();
        let result = &scratchpad[512..512 + expected.len()];
        prop_assert!(same(to, result, &expected), "{:?} instead of {:?}", result, expected);
    }

    #[test]
    fn any_program_runs_or_faults(
        program in prop::collection::vec(arbitrary::instruction(Limits::SMALL), 0..12),
        wait in any::<bool>(),
        data in prop::collection::vec(any::<u8>(), 4096),
    ) {
        let machine = small_machine();
        let program: Vec<_> =
            program.into_iter().map(|it| if wait { arbitrary::ordered(it) } else { it }).collect();
        let program = Code::from(program);
        let dram = Dram::new(&data, MEMORY, 4096, machine.dram.bytes).unwrap();
        let mut simulator = Simulator::new(&machine, &program, dram);
        match simulator.run() {
            Ok(execution) => prop_assert_eq!(execution.cycles, timing::schedule(&program, &machine).cycles()),
            Err(fault) => {
                prop_assert!(fault.index < program.len());
                let race = matches!(fault.cause, FaultCause::Race { .. });
                prop_assert!(!(wait && race), "{}", fault);
            }
        }
    }

    #[test]
    fn any_single_instruction_runs_or_faults(instruction in arbitrary::instruction(Limits::SMALL)) {
        let machine = small_machine();
        let data = vec![0; 4096];
        let program = Code::from(vec![instruction]);
        let mut simulator = Simulator::new(&machine, &program, Dram::new(&data, MEMORY, 4096, 1 << 20).unwrap());
        let _ = simulator.run();
        prop_assert!(simulator.timing().cycles() > 0);
    }
}
