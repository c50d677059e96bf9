// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use proptest::prelude::*;
use tcc_ir::DType;

use super::decoder::decode_one;
use super::*;
use crate::lpu::arbitrary;
use crate::lpu::isa::MAX_LANES;

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn east(number: u8) -> Stream {
    Stream { direction: Direction::East, number }
}

fn west(number: u8) -> Stream {
    Stream { direction: Direction::West, number }
}

fn taken(stream: Stream) -> Reads {
    Reads { stream, take: true }
}

fn left(stream: Stream) -> Reads {
    Reads { stream, take: false }
}

/// An instruction of each kind with its words.
fn examples() -> Vec<(Operation, [u32; 4])> {
    let mut map = [None; MAX_LANES];
    map[0] = Some(3);
    map[15] = Some(15);
    let select = AluFn::Select([
        Operand::Stream(left(west(31)), DType::Bool),
        Operand::Number(Number::Float(2.5)),
        Operand::Alu(31),
    ]);
    let accumulate = AluFn::Accumulate {
        function: Accumulation::Max,
        first: true,
        operand: Operand::Stream(taken(east(4)), DType::F32),
    };
    vec![
        (Operation::Nop(u32::MAX), [1, u32::MAX, 0, 0]),
        (Operation::Repeat { count: 15, interval: 1, step: -16 }, [2, 15, 1, 0xffff_fff0]),
        (Operation::Sync, [3, 0, 0, 0]),
        (Operation::Notify, [4, 0, 0, 0]),
        (Operation::End, [5, 0, 0, 0]),
        (Operation::Mem { read: Some((0x40, east(5))), write: None }, [0x110, 0x40, 0, 0x1005]),
        (
            Operation::Mem { read: Some((0x40, east(5))), write: Some((0x2041, taken(west(3)))) },
            [0x310, 0x40, 0x2041, 0x1063_1005],
        ),
        (Operation::Gather { addresses: taken(east(4)), to: west(1) }, [17, 0, 0, 0x1021_1044]),
        (
            Operation::Alu(Alu { function: select, result: Some((west(8), DType::F16)) }),
            [0x320, 0x3000_183f, 0x1128_201f, 0x4020_0000],
        ),
        (Operation::Alu(Alu { function: accumulate, result: None }), [0x0102_0420, 0x10c4, 0, 0]),
        (
            Operation::Alu(Alu {
                function: AluFn::Binary(BinaryFn::And, [Operand::Alu(1), Operand::Number(Number::Integer(-2))]),
                result: None,
            }),
            [0x1_0220, 0x4000_2001, 0, 0xffff_fffe],
        ),
        (Operation::Load { from: taken(east(0)), column: 304 }, [48, 0x1040, 304, 0]),
        (Operation::Install, [49, 0, 0, 0]),
        (
            Operation::Multiply { from: left(east(9)), row: Row::Bytes { row_signed: false, weights_signed: true } },
            [0x832, 0x1009, 0, 0],
        ),
        (Operation::Multiply { from: taken(east(9)), row: Row::Halves(1) }, [0x332, 0x1049, 0, 0]),
        (Operation::Accumulate { row: 7, add: true, to: Some(west(12)) }, [0x133, 7, 0x102c, 0]),
        (Operation::Accumulate { row: 7, add: false, to: None }, [0x33, 7, 0, 0]),
        (
            Operation::Shift {
                from: taken(east(1)),
                by: -2,
                rotate: true,
                lanes: [1, 320],
                under: Some(left(west(2))),
                to: east(3),
            },
            [0x140, 0x1022_1041, 0x0140_0001, 0x1003_fffe],
        ),
        (Operation::Distribute { from: left(east(1)), map, to: west(2) }, [0x7f_fe41, 0x1022_1001, 0x3, 0xf000_0000]),
        (Operation::Transpose { from: taken(east(0)), to: east(16) }, [66, 0x1010_1040, 0, 0]),
    ]
}

#[test]
fn instructions_are_these_words() {
    for (operation, words) in examples() {
        assert_eq!(encode_one(&operation), words, "{operation:?}");
        assert_eq!(decode_one(words).unwrap(), operation);
    }
}

#[test]
fn a_program_is_counts_and_instructions() {
    let program = Queues(vec![vec![Operation::Sync, Operation::End], Vec::new(), vec![Operation::End]]);
    let words = [3, 2, 0, 1, 3, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0];
    assert_eq!(encode(&program), bytes(&words));
    assert_eq!(decode(&bytes(&words)), Ok(program));
}

#[test]
fn wrong_lengths_are_found_before_anything_else() {
    let length = |expected, found| Err(DecodeError::Length { expected, found });
    assert_eq!(decode(&[]), length(1, 0));
    assert_eq!(decode(&[0, 0, 0, 0, 0]), Err(DecodeError::PartialWord { bytes: 5 }));
    assert_eq!(decode(&bytes(&[u32::MAX])), length(1 << 32, 1));
    assert_eq!(decode(&bytes(&[2, 1])), length(3, 2));
    assert_eq!(decode(&bytes(&[2, u32::MAX, u32::MAX])), length(3 + 8 * u64::from(u32::MAX), 3));
    assert_eq!(decode(&bytes(&[1, 1, 5, 0, 0])), length(6, 5));
    assert_eq!(decode(&bytes(&[1, 1, 5, 0, 0, 0, 0])), length(6, 7));
}

#[test]
fn every_bit_counts() {
    for (operation, words) in examples() {
        for bit in 0..128 {
            let mut damaged = words;
            damaged[bit / 32] ^= 1 << (bit % 32);
            if let Ok(other) = decode_one(damaged) {
                assert_ne!(other, operation, "bit {bit}");
                assert_eq!(encode_one(&other), damaged);
            }
        }
    }
}

#[test]
fn damage_is_named() {
    let problem = |words: [u32; 4]| decode_one(words).unwrap_err();
    let value = |field, value| DecodeProblem::Value { field, value };
    let unused = |word, bits| DecodeProblem::UnusedBits { word, bits };
    let kind = |operand, kind| DecodeProblem::Kind { operand, kind };
    assert_eq!(problem([0, 0, 0, 0]), value("opcode", 0));
    assert_eq!(problem([0x103, 0, 0, 0]), unused(0, 0x100));
    assert_eq!(problem([1, 1, 0, 7]), unused(3, 7));
    assert_eq!(problem([16, 0, 0, 0]), DecodeProblem::NoAccess);
    assert_eq!(problem([0x110, 0x1_0000, 0, 0x1000]), value("address", 0x1_0000));
    assert_eq!(problem([0x110, 0, 0, 0]), kind("the stream of the read", 0));
    assert_eq!(problem([0x110, 0, 1, 0x1000]), unused(2, 1));
    assert_eq!(problem([0x110, 0, 0, 0x1040]), unused(3, 0x40));
    assert_eq!(problem([0x210, 0, 0, 0x1080_0000]), unused(3, 0x80_0000));
    assert_eq!(problem([48, 0x1000, 0x1_0000, 0]), value("column", 0x1_0000));
    assert_eq!(problem([0x520, 0, 0, 0]), value("kind of function", 5));
    assert_eq!(problem([0x20, 0, 0, 0]), kind("operand 0", 0));
    assert_eq!(problem([0x20, 0x5000, 0, 0]), kind("operand 0", 5));
    assert_eq!(problem([0x20, 0x2000_2000, 0, 0]), unused(1, 0x2000_0000));
    assert_eq!(problem([0x20, 0x2000, 0, 9]), unused(3, 9));
    assert_eq!(problem([0x20, 0x2020, 0, 0]), unused(1, 0x20));
    assert_eq!(problem([0x20, 0x1880, 0, 0]), value("element type", 17));
    assert_eq!(problem([0x20, 0x2000, 0x2000_0000, 0]), kind("the result", 2));
    assert_eq!(problem([0xff_0120, 0x2000, 0, 0]), value("unary function", 255));
    assert_eq!(problem([0x4_0420, 0x2000, 0, 0]), value("accumulation", 4));
    assert_eq!(problem([0x732, 0x1000, 0, 0]), unused(0, 0x400));
    assert_eq!(problem([0x141, 0x1000_1000, 3, 0]), unused(2, 3));
    let error = decode(&bytes(&[2, 1, 2, 5, 0, 0, 0, 3, 0, 0, 0, 5, 1, 0, 0])).unwrap_err();
    assert_eq!(error, DecodeError::Instruction { queue: 1, instruction: 1, problem: unused(1, 1) });
    assert_eq!(error.to_string(), "queue 1, instruction 1: bits 0x00000001 of word 1 must be 0, as no field uses them");
}

proptest! {
    #[test]
    fn programs_round_trip(program in arbitrary::encodable(5)) {
        let bytes = encode(&program);
        let again = decode(&bytes).unwrap();
        // Compared as text: a NaN is not equal to itself.
        prop_assert_eq!(format!("{again:?}"), format!("{program:?}"));
        prop_assert_eq!(encode(&again), bytes);
    }

    #[test]
    fn any_bytes_are_refused_or_come_back(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(program) = decode(&bytes) {
            prop_assert_eq!(encode(&program), bytes);
        }
    }

    #[test]
    fn damaged_programs_are_refused_or_come_back(
        program in arbitrary::encodable(3),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let mut bytes = encode(&program);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(program) = decode(&bytes) {
            prop_assert_eq!(encode(&program), bytes);
        }
    }
}
