// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::systolic::arbitrary::{self, Limits};

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn problem(encoded: &[u32]) -> (usize, DecodeProblem) {
    match decode_routine(encoded, 0) {
        Ok(program) => panic!("decoded to {program:?}"),
        Err(error) => (error.offset, error.problem),
    }
}

fn multiply() -> Instruction {
    Instruction {
        waits: Waits([Some(7), None, None, None, Some(0)]),
        op: Operation::Multiply(Multiply {
            address: 0x100,
            dtype: DType::BF16,
            group_stride: 6,
            m: 5,
            m_stride: -2,
            k_stride: 2,
            zero_point: None,
            accumulator_row: 9,
            group_rows: 8,
            accumulate: true,
            switch_weights: false,
        }),
    }
}

const MULTIPLY: [u32; 11] = [6 | 11 << 8 | 0b10001 << 24, 7, 0, 0x100, 3 | 1 << 9, 5, u32::MAX - 1, 2, 9, 6, 8];

#[test]
fn a_multiply_is_these_words() {
    assert_eq!(encode_routine(&[multiply()]), MULTIPLY);
    assert_eq!(decode_routine(&MULTIPLY, 0), Ok(vec![multiply()]));
}

#[test]
fn a_load_is_these_words() {
    let load = Instruction {
        waits: Waits::default(),
        op: Operation::Load(Transfer {
            dram: DramAddress { register: Register(9), offset: 0x1_0000_0002 },
            scratchpad: 3,
            element_bytes: 4,
            dims: smallvec![DmaDim { size: 5, dram_stride: -1, scratchpad_stride: 4 }],
        }),
    };
    let expected = [1 | 9 << 8, 2, 1, 3, 4 | 1 << 8 | 9 << 16, 5, u32::MAX, u32::MAX, 4];
    assert_eq!(encode_routine(&[load]), expected);
}

#[test]
fn a_program_is_its_calls_and_its_routines() {
    let call = |routine, bases| Call { routine: RoutineId(routine), bases };
    let code =
        Code::new(vec![vec![multiply()], Vec::new()], vec![call(0, vec![7, 1 << 32]), call(1, Vec::new())]).unwrap();
    let head = [2, 2, 11, 0, 0, 2, 7, 0, 0, 1, 1, 0];
    let words = [&head[..], &MULTIPLY].concat();
    assert_eq!(encode(&code), bytes(&words));
    assert_eq!(decode(&bytes(&words)), Ok(code));
    let with = |index: usize, word: u32| {
        let mut damaged = words.clone();
        damaged[index] = word;
        decode(&bytes(&damaged)).map(|_| ()).map_err(|error| (error.offset, error.problem))
    };
    let lengths = |routines, words| DecodeProblem::Routines { routines, words };
    assert_eq!(with(2, 12), Err((12, lengths(12, 11))));
    assert_eq!(with(0, u32::MAX), Err((23, DecodeProblem::Truncated)));
    assert_eq!(with(1, u32::MAX), Err((23, DecodeProblem::Truncated)));
    assert_eq!(with(5, 256), Err((5, DecodeProblem::UnusedBits(1))));
    let no_routine = CodeError::NoRoutine { call: 0, routine: 2, routines: 2 };
    assert_eq!(with(4, 2), Err((0, DecodeProblem::Calls(no_routine))));
}

#[test]
fn damage_is_found_where_it_is() {
    let with = |index: usize, word: u32| {
        let mut damaged = MULTIPLY;
        damaged[index] = word;
        problem(&damaged)
    };
    assert_eq!(with(0, 6 | 12 << 8), (0, DecodeProblem::Truncated));
    assert_eq!(with(0, 6), (0, DecodeProblem::Truncated));
    assert_eq!(with(0, 77 | 11 << 8), (0, DecodeProblem::Value { field: "opcode", value: 77 }));
    assert_eq!(with(0, 6 | 11 << 8 | 1 << 31), (0, DecodeProblem::UnusedBits(4)));
    assert_eq!(with(1, 1 << 16), (1, DecodeProblem::UnusedBits(1)));
    assert_eq!(with(4, 17), (4, DecodeProblem::Value { field: "element type", value: 17 }));
    assert_eq!(with(4, 3 | 1 << 11), (4, DecodeProblem::UnusedBits(1)));
    // A flag for a zero point that has no word left, and one word too many.
    assert_eq!(with(4, 3 | 1 << 8), (11, DecodeProblem::Truncated));
    assert_eq!(problem(&[5 | 8 << 8, 0, 3, 0, 0, 0, 0, 0]), (0, DecodeProblem::Length { length: 8, fields: 7 }));
    assert_eq!(
        decode(&[1, 2, 3, 4, 5]).map_err(|error| (error.offset, error.problem)),
        Err((1, DecodeProblem::PartialWord))
    );
}

#[test]
fn ranks_and_operands_are_limited() {
    assert_eq!(problem(&[9 | 2 << 8, 9]), (1, DecodeProblem::Value { field: "number of dimensions", value: 9 }));
    let operands = "number of operands of the function";
    assert_eq!(problem(&[7 | 2 << 8, 2 << 24]), (1, DecodeProblem::Value { field: operands, value: 2 }));
    let folded = "number of folded dimensions";
    assert_eq!(problem(&[8 | 2 << 8, 1 << 16 | 1 << 24]), (1, DecodeProblem::Value { field: folded, value: 1 }));
}

proptest! {
    #[test]
    fn programs_round_trip(program in prop::collection::vec(arbitrary::instruction(Limits::ALL), 0..8)) {
        let code = Code::from(program);
        let bytes = encode(&code);
        prop_assert_eq!(decode(&bytes), Ok(code));
    }

    #[test]
    fn any_bytes_are_refused_or_come_back(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(program) = decode(&bytes) {
            prop_assert_eq!(encode(&program), bytes);
        }
    }

    #[test]
    fn damaged_programs_are_refused_or_come_back(
        program in prop::collection::vec(arbitrary::instruction(Limits::SMALL), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let mut bytes = encode(&Code::from(program));
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(program) = decode(&bytes) {
            prop_assert_eq!(encode(&program), bytes);
        }
    }
}
