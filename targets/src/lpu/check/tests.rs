// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use proptest::prelude::*;

use super::*;
use crate::lpu::arbitrary;
use crate::lpu::assembly::assemble;
use crate::lpu::encoding::{decode, encode};
use crate::lpu::machine::tests::small_machine;

/// What is wrong with the instructions of one queue, each a line without `end`; all others only end.
fn problem(queue: &str, text: &str) -> Option<String> {
    let text = format!("{queue}:\n{text}\nend\nothers:\nend");
    match check(&assemble(&text, &small_machine()).unwrap(), &small_machine()) {
        Ok(()) => None,
        Err(ProgramError::Instruction { problem, .. }) => Some(problem.to_string()),
        Err(other) => panic!("{other}"),
    }
}

/// The lines go, but for those that come with what is wrong with them.
fn verdicts(queue: &str, lines: &[(&str, Option<&str>)]) {
    for (line, expected) in lines {
        let found = problem(queue, line);
        assert_eq!(found.is_some(), expected.is_some(), "{line}: {found:?}");
        if let (Some(found), Some(expected)) = (&found, expected) {
            assert!(found.contains(expected), "{line}: {found}");
        }
    }
}

#[test]
fn queues_are_the_machines_and_end() {
    let machine = small_machine();
    let expected = machine.queues().len();
    let error = check(&Queues(vec![vec![Operation::End]]), &machine).unwrap_err();
    assert_eq!(error, ProgramError::Queues { expected, found: 1 });
    let mut program = Queues(vec![vec![Operation::End]; expected]);
    assert_eq!(check(&program, &machine), Ok(()));
    program.0[9] = Vec::new();
    assert_eq!(check(&program, &machine), Err(ProgramError::NoEnd { queue: Queue::Alu(1) }));
    program.0[9] = vec![Operation::Notify];
    assert_eq!(check(&program, &machine), Err(ProgramError::NoEnd { queue: Queue::Alu(1) }));
    program.0[9] = vec![Operation::End, Operation::End];
    let error = check(&program, &machine).unwrap_err();
    assert_eq!(error.to_string(), "alu 1, instruction 0, `end`: `end` must be the last instruction");
}

#[test]
fn instructions_belong_to_their_queues() {
    let lines = [
        ("mem 0", "read 0 -> e0"),
        ("mem 7", "gather e0..1 -> e0"),
        ("alu 3", "neg f32 e0..3"),
        ("west plane 0 load", "load e0..3 -> column 0"),
        ("west plane 1 load", "install"),
        ("east plane 0 multiply", "multiply u8 e0 by u8"),
        ("east plane 1 accumulate", "overwrite row 0"),
        ("west shifter 3", "shift e0 by 1 -> e0"),
        ("west distributor 1", "distribute e0 [0] -> e0"),
        ("east transposer 0", "transpose e0..3 -> e0..3"),
    ];
    let kind = |queue: &str| queue.trim_end_matches(|c: char| c.is_ascii_digit()).replace("plane 1", "plane 0");
    for (queue, _) in lines {
        for (own, line) in lines {
            let queue_kind = kind(queue).replace("west", "").replace("east", "");
            let same = queue_kind == kind(own).replace("west", "").replace("east", "");
            let found = problem(queue, line);
            assert_eq!(found.is_none(), same, "{queue}: {line}: {found:?}");
        }
    }
}

#[test]
fn repeats_follow_instructions() {
    let nothing = Some("a repeat must follow an instruction");
    verdicts(
        "mem 0",
        &[
            ("repeat 1 every 1", nothing),
            ("nop 3\nrepeat 1 every 1", nothing),
            ("sync\nrepeat 1 every 1", nothing),
            ("read 0 -> e0\nrepeat 1 every 1\nrepeat 1 every 1", nothing),
            ("notify\nrepeat 1 every 1", None),
            ("read 0 -> e0\nrepeat 1 every 1\nread 0 -> e0\nrepeat 1 every 1", None),
            ("read 0 -> e0\nrepeat 0 every 1", Some("the number of repetitions must be at least 1")),
            ("read 0 -> e0\nrepeat 1 every 0", Some("cycles between them must be at least 1")),
            ("nop 0", Some("a nop's number of cycles must be at least 1")),
        ],
    );
}

#[test]
fn memory_is_as_large_as_it_is() {
    verdicts(
        "mem 0",
        &[
            ("read 127 -> w15", None),
            ("read 128 -> e0", Some("there is no address 128: they go from 0 to 127")),
            ("write 128 <- e0", Some("no address 128")),
            ("read 0 -> e16", Some("there is no stream 16: they go from 0 to 15")),
            ("write 0 <- w16!", Some("no stream 16")),
            ("gather e14..15 -> e15", None),
            ("gather e15..16 -> e0", Some("no stream 16")),
            ("gather e0..1 -> e16", Some("no stream 16")),
            ("read 7 -> e0\nrepeat 12 every 1 step 10", None),
            ("read 8 -> e0\nrepeat 12 every 1 step 10", Some("no address 128")),
            ("write 6 <- e0\nrepeat 3 every 9 step -2", None),
            ("write 6 <- e0\nrepeat 4 every 9 step -2", Some("no address -2")),
            ("read 0 -> e0\nrepeat 4294967295 every 1", None),
            ("read 0 -> e0\nrepeat 4294967295 every 1 step -2147483648", Some("no address -922337203")),
        ],
    );
}

#[test]
fn reads_and_writes_are_in_different_banks_all_the_time() {
    verdicts(
        "mem 0",
        &[
            ("read 0 -> e0, write 64 <- e1", None),
            ("read 0 -> e0, write 63 <- e1", Some("after 0 repetitions, addresses 0x0 and 0x3f are both in bank 0")),
            ("read 65 -> e0, write 127 <- e1", Some("both in bank 1")),
            ("read 60 -> e0, write 64 <- e1\nrepeat 3 every 1 step 1", None),
            (
                "read 60 -> e0, write 64 <- e1\nrepeat 4 every 1 step 1",
                Some("after 4 repetitions, addresses 0x40 and 0x44"),
            ),
            // In one bank only on the way.
            ("read 0 -> e0, write 68 <- e1\nrepeat 1 every 1 step -1", Some("no address -1")),
            ("read 60 -> e0, write 66 <- e1\nrepeat 1 every 1 step 10", Some("after 1 repetitions")),
            ("read 0 -> e0, write 64 <- e1\nrepeat 4294967295 every 1", None),
        ],
    );
    let nothing = Queues(
        [vec![Operation::Mem { read: None, write: None }, Operation::End]]
            .into_iter()
            .chain(vec![vec![Operation::End]; small_machine().queues().len() - 1])
            .collect(),
    );
    assert!(matches!(
        check(&nothing, &small_machine()),
        Err(ProgramError::Instruction { problem: ProgramProblem::NoAccess, .. })
    ));
}

#[test]
fn operands_of_alus_are_there() {
    verdicts(
        "alu 0",
        &[
            ("copy f32 e12..15 -> f64 w8..15", None),
            ("copy f32 e13..16", Some("no stream 16")),
            ("copy f32 e0..3 -> f64 w9..16", Some("no stream 16")),
            ("copy alu 3", None),
            ("copy alu 4", Some("there is no ALU 4: they go from 0 to 3")),
            ("copy i4 e0", Some("elements of type i4 do not go on streams")),
            ("copy i8 e0 -> u4 e0", Some("elements of type u4 do not go on streams")),
            ("add 1.5, 1.5", None),
            ("add nan 0x7fc00001, nan 0x7fc00001", None),
            ("add 1.5, 2.5", Some("must all be the same one")),
            ("add 0.0, -0.0", Some("must all be the same one")),
            ("add 0.0, 0", Some("must all be the same one")),
        ],
    );
}

#[test]
fn functions_are_defined_on_their_class() {
    verdicts(
        "alu 0",
        &[
            ("not bool e0", None),
            ("not f16 e0..1", Some("not defined on elements of type f16")),
            ("not alu 0", None),
            ("exp f16 e0..1", None),
            ("exp i32 e0..3", Some("not defined on elements of type i32")),
            ("exp alu 1", None),
            ("exp 2.0", None),
            ("exp 2", Some("not defined on elements of type i64")),
            ("and u8 e0, f32 e0..3", None),
            ("and f32 e0..3, u8 e0", Some("not defined on elements of type f32")),
            ("and 3, f32 e0..3", Some("not defined on elements of type f32")),
            ("and 3.0, u8 e0", None),
            ("and 3.0, 3.0", Some("not defined on elements of type f32")),
            ("and alu 0, f32 e0..3", None),
            ("select f32 e0..3, alu 0, 1", None),
        ],
    );
}

#[test]
fn running_results_are_begun_and_keep_their_class() {
    let running = Some("begin it with `first`");
    verdicts(
        "alu 0",
        &[
            ("running sum first f32 e0..3\nrunning max f16 e0..1", None),
            ("running sum f32 e0..3", running),
            ("running sum first f32 e0..3\nrunning sum i8 e0", running),
            ("running sum first f32 e0..3\nneg i8 e0\nrunning sum 1", running),
            ("running sum first f32 e0..3\nrunning sum first i8 e0\nrunning sum i64 e0..7", None),
            ("running sum first f32 e0..3\nrunning sum alu 0\nrunning sum u8 e0", running),
            ("running sum first alu 0\nrunning sum f32 e0..3\nrunning sum u8 e0", running),
            ("running sum first alu 0\nrunning sum f32 e0..3\nrunning sum 1.0", None),
        ],
    );
}

#[test]
fn planes_are_as_large_as_they_are() {
    verdicts(
        "west plane 0 load",
        &[
            ("load e12..15 -> column 4", None),
            ("load e13..16 -> column 4", Some("no stream 16")),
            ("load e0..3 -> column 5", Some("there is no column 8: they go from 0 to 7")),
            ("load e0..3 -> column 0\nrepeat 1 every 1 step 4", None),
            ("load e0..3 -> column 0\nrepeat 2 every 1 step 4", Some("no column 8")),
            ("load e0..3 -> column 4\nrepeat 1 every 1 step -5", Some("no column -1")),
        ],
    );
    verdicts(
        "east plane 0 multiply",
        &[
            ("multiply i8 e15 by i8", None),
            ("multiply i8 e16 by i8", Some("no stream 16")),
            ("multiply f16 e14..15 half 1", None),
            ("multiply f16 e15..16 half 1", Some("no stream 16")),
        ],
    );
    verdicts(
        "east plane 1 multiply",
        &[("multiply i8 e15 by i8", None), ("multiply f16 e14..15 half 1", Some("planes of even number"))],
    );
    verdicts(
        "east plane 1 accumulate",
        &[
            ("accumulate row 15 -> w12..15", None),
            ("accumulate row 16", Some("there is no accumulator row 16")),
            ("accumulate row 15 -> w13..16", Some("no stream 16")),
            ("overwrite row 0\nrepeat 15 every 2 step 1", None),
            ("overwrite row 0\nrepeat 16 every 2 step 1", Some("no accumulator row 16")),
        ],
    );
}

#[test]
fn lanes_and_maps_are_within_the_vector() {
    verdicts(
        "west shifter 0",
        &[
            ("shift e15 by -32768 lanes 0 until 8 -> e15", None),
            ("rotate e0 by 1 lanes 8 until 8 under w0 -> e0", None),
            ("shift e0 by 1 lanes 0 until 9 -> e0", Some("lanes 0 until 9 are no stretch of the vector's 8")),
            ("shift e0 by 1 lanes 3 until 2 -> e0", Some("lanes 3 until 2")),
            ("shift e16 by 1 -> e0", Some("no stream 16")),
            ("shift e0 by 1 under w16 -> e0", Some("no stream 16")),
            ("shift e0 by 1 -> e16", Some("no stream 16")),
        ],
    );
    verdicts(
        "west distributor 0",
        &[
            ("distribute e15 [3, 3, -, 0] -> e15", None),
            ("distribute e0 [4] -> e0", Some("there is no lane 4: they go from 0 to 3")),
            ("distribute e0 [0, 0, 0, 0, 0] -> e0", Some("lane 4 of the map must be 0 (`-`): a superlane has 4 lanes")),
            ("distribute e16 [0] -> e0", Some("no stream 16")),
            ("distribute e0 [0] -> e16", Some("no stream 16")),
        ],
    );
    verdicts(
        "west transposer 0",
        &[
            ("transpose e12..15 -> w12..15", None),
            ("transpose e13..16 -> w0..3", Some("no stream 16")),
            ("transpose e0..3 -> w13..16", Some("no stream 16")),
        ],
    );
}

#[test]
fn errors_name_queue_and_instruction() {
    let text = "east shifter 2:\nsync\nshift e0! by 1 -> e20\nend\nothers:\nend";
    let error = check(&assemble(text, &small_machine()).unwrap(), &small_machine()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "east shifter 2, instruction 1, `shift e0! by 1 -> e20`: there is no stream 20: they go from 0 to 15"
    );
}

proptest! {
    #[test]
    fn random_programs_within_limits_are_accepted(program in arbitrary::program(&small_machine(), 4, 9, true)) {
        prop_assert_eq!(check(&program, &small_machine()), Ok(()));
        prop_assert_eq!(encode(&decode(&encode(&program)).unwrap()), encode(&program));
    }

    #[test]
    fn any_program_is_accepted_or_refused(program in arbitrary::encodable(small_machine().queues().len())) {
        let _ = check(&program, &small_machine());
    }
}
