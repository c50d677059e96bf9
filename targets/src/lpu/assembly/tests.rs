// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use proptest::prelude::*;

use super::writer::{Cycles, disassemble_with};
use super::*;
use crate::lpu::arbitrary;
use crate::lpu::isa::{Number, Operand, Operation, Queue};
use crate::lpu::machine::tests::small_machine;

const PROGRAM: &str = "\
mem 3:
  nop 4                                       ; 0
  read 0x10 -> e5                             ; 4
  repeat 15 every 1 step 1                    ; 5..19
  read 0x10 -> e5, write 0x41 <- w3!          ; 20
  gather e0..1! -> w4                         ; 21
  write 0xffff <- e31                         ; 22
  repeat 1 every 7                            ; 29
  end                                         ; 30

alu 0:
  mul f32 e4..7!, 2.5                         ; 0
  sync                                        ; 1
  add alu 0, f16 e0..1 -> f16 w8..9
  select bool e0, alu 3, nan 0x7fc00001
  running max first f32 e4..7! -> f32 e4..7
  running sum alu 1
  repeat 3 every 1
  copy u8 e1 -> i64 w0..7
  not bool e1! -> bool w0
  and i32 e0..3, -3
  sub 1e20, f64 w0..7
  max -inf, -0.0
  notify
  end

west plane 0 load:
  load e0..3! -> column 4                     ; 0
  install                                     ; 1
  end                                         ; 2

west plane 0 multiply:
  multiply i8 e9! by u8                       ; 0
  multiply f16 e9..10! half 1                 ; 1
  end                                         ; 2

west plane 0 accumulate:
  overwrite row 3                             ; 0
  accumulate row 3 -> w0..3                   ; 1
  end                                         ; 2

east shifter 2:
  shift e1! by 4 -> e3                        ; 0
  rotate e1 by -1 lanes 0 until 4 under w2! -> e3 ; 1
  end                                         ; 2

east distributor 0:
  distribute e1 [1, 0, -, 3] -> e3            ; 0
  distribute e1 [-, -, -, -, 15] -> e3        ; 1
  end                                         ; 2

east transposer 0:
  transpose e0..3! -> e8..11                  ; 0
  end                                         ; 1

others:
  end                                         ; 0
";

#[test]
fn the_language_round_trips() {
    let machine = small_machine();
    assert_eq!(disassemble(&assemble(PROGRAM, &machine).unwrap(), &machine), PROGRAM);
}

#[test]
fn others_are_queues_without_a_section() {
    let machine = small_machine();
    let count = machine.queues().len();
    let program = assemble("others:\nend\nmem 0:\nmem 1 : ; as text\n\n notify\n", &machine).unwrap();
    assert_eq!(program.0[0], []);
    assert_eq!(program.0[1], [Operation::Notify]);
    assert!(program.0[2..].iter().all(|queue| queue == &[Operation::End]));
    assert_eq!(program.0.len(), count);
    let text = disassemble(&program, &machine);
    assert_eq!(text.lines().next(), Some("mem 0:"), "{text}");
    assert_eq!(assemble(&text, &machine), Ok(program));
    // Without one that only ends, what has no instructions needs no section.
    let program = assemble("mem 1:\nnotify\n", &machine).unwrap();
    assert_eq!(program.0.iter().map(Vec::len).sum::<usize>(), 1);
    assert_eq!(disassemble(&program, &machine).lines().count(), 2);
}

#[test]
fn every_queue_has_a_name_of_its_own() {
    let machine = small_machine();
    let mut names: Vec<String> = machine.queues().iter().map(Queue::to_string).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), machine.queues().len());
}

#[test]
fn a_nan_keeps_its_bits() {
    let machine = small_machine();
    let program = assemble("alu 0:\nneg nan 0xff800001", &machine).unwrap();
    let [Operation::Alu(alu)] = &program.0[8][..] else { panic!("{program:?}") };
    let [Operand::Number(Number::Float(value))] = alu.function.operands() else { panic!("{alu:?}") };
    assert_eq!(value.to_bits(), 0xff80_0001);
}

#[test]
fn long_programs_tell_only_cycles_that_do_not_follow() {
    let text = "mem 0:\n  read 0x10 -> e5\n  repeat 2 every 3 step 1\n  read 0x11 -> e5\n  nop 4\n  write 0x1 <- e2! ; 12\n  \
                sync\n  read 0x12 -> w0\n  end\n\nothers:\n  end\n";
    let program = assemble(text, &small_machine()).unwrap();
    assert_eq!(disassemble_with(&program, &small_machine(), Cycles::Gaps), text);
}

#[test]
fn errors_name_line_and_column() {
    let cases = [
        ("end", 1, 1, "the name of a queue and `:`"),
        ("mem 8:", 1, 1, "a queue of the machine, as `mem 0`, or `others`"),
        ("mem 0:\nmem 0:", 2, 1, "a queue that has no section yet"),
        ("mem 0:\njump", 2, 1, "an instruction"),
        ("mem 0:\n  end 1", 2, 7, "the end of the line"),
        ("mem 0:\n read -1 -> e0", 2, 7, "an integer that fits its 16 bits"),
        ("mem 0:\n read 1 <- e0", 2, 9, "`->`"),
        ("mem 0:\n read 1 -> e32", 2, 12, "a stream from e0 to e31 or w0 to w31"),
        ("mem 0:\n read 1 -> n1", 2, 12, "a stream from e0 to e31 or w0 to w31"),
        ("mem 0:\n read 1 -> e01", 2, 12, "a stream from e0 to e31 or w0 to w31"),
        ("mem 0:\n read 1 -> e0, gather", 2, 16, "`write`"),
        ("mem 0:\n gather e0 -> e1", 2, 9, "2 streams, as e0..1"),
        ("mem 0:\n gather e4..6 -> e1", 2, 9, "2 streams, as e0..1"),
        ("mem 0:\n nop 1 every 2", 2, 8, "the end of the line"),
        ("mem 0:\n repeat 1 step 2", 2, 11, "`every`"),
        ("alu 0:\n add f33 e0, 1", 2, 6, "elements as `f32 e0..3`, `alu` with a number, or a number"),
        ("alu 0:\n add f32 e0..3", 2, 15, "`,`"),
        ("alu 0:\n add alu 32, 1", 2, 10, "the number of an ALU from 0 to 31"),
        ("alu 0:\n add 0x100000000, 1", 2, 6, "an integer that fits its 32 bits"),
        ("alu 0:\n neg nan 0", 2, 10, "the bits of a NaN"),
        ("alu 0:\n neg alu 0 -> 5", 2, 15, "an element type"),
        ("alu 0:\n running all", 2, 10, "sum, product, max or min"),
        ("west plane 0 multiply:\n multiply f32 e0..3", 2, 11, "i8, u8 or f16"),
        ("west plane 0 multiply:\n multiply f16 e0..1 half 2", 2, 26, "0 or 1"),
        ("west distributor 0:\n distribute e0 [16] -> e1", 2, 17, "a lane from 0 to 15, or `-`"),
        ("west distributor 0:\n distribute e0 [0 1] -> e1", 2, 19, "`]`"),
    ];
    for (text, line, column, expected) in cases {
        let error = assemble(text, &small_machine()).unwrap_err();
        assert_eq!((error.line, error.column, error.expected.as_str()), (line, column, expected), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn programs_round_trip(program in arbitrary::encodable(small_machine().queues().len())) {
        for cycles in [Cycles::All, Cycles::Gaps] {
            let text = disassemble_with(&program, &small_machine(), cycles);
            let again = assemble(&text, &small_machine()).unwrap();
            // Compared as their instructions are shown, with the bits of floats: a NaN is not equal to itself.
            prop_assert_eq!(crate::lpu::encoding::encode(&again), crate::lpu::encoding::encode(&program), "{}", text);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "mem 0:\n([a-z:;=@!<>0-9, \\[\\]é-]{0,30}\n){0,3}") {
        if let Ok(program) = assemble(&text, &small_machine()) {
            let text = disassemble(&program, &small_machine());
            prop_assert_eq!(assemble(&text, &small_machine()), Ok(program));
        }
    }
}
