// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use proptest::prelude::*;

use super::*;
use crate::systolic::arbitrary::{self, Limits};
use crate::systolic::code::Code;
use crate::systolic::isa::Source;

const PROGRAM: &str = "\
load dram=r7+0x1000 spm=0x0 element=4 dims=[128:3072:512, 128:4:4]
store dram=0x0 spm=0x40 element=1 dims=[] wait(vector<=3)
load_rows dram=0x0 spm=0x0 bytes=768 rows=30522:1536 outer=1:0 indices=0x100 index=i64 count=128
store_rows dram=0x0 spm=0x0 bytes=8 rows=4:8 outer=1:0 indices=0x100 index=i32 count=2 reduction=add dtype=f32
preload spm=0x0 dtype=i8 k=128:256 n=128:-2 zero=0x4 wait(load<=0)
multiply spm=0x8000 dtype=bf16 m=128:256 k=2 row=0 accumulate switch wait(load<=1, preload<=0)
preload spm=0x0 dtype=bf16 k=64:256 n=128:2 groups=2:128
preload spm=0x0 dtype=bf16 k=64:256 n=128:2 groups=1:-1 zero=0x4
multiply spm=0x8000 dtype=bf16 m=128:512 k=2 row=0 group=128:128 switch
outer m=4 n=3 k=768 row=8 spm:bf16@0x0[1536, 2], spm:bf16@0x3000[6, 2] wait(load<=0)
outer m=4 n=3 k=9 row=0 accumulate spm:u8@0x0[9, 1] zero=0x40, spm:i8@0x30[1, 9] zero=0x44
map add dims=[128, 128] acc:f32@0x0[512, 4] <- acc:f32@0x0[512, 4], float 1.5 wait(array<=0)
map select dims=[] spm:i32@0x0[] <- spm:bool@0x40[], int -3, int 7
map copy dims=[2] spm:f64@0x0[8] <- float nan 0x7ff8000000000001
fold sum dims=[128, 128] reduced=1 accumulate spm:f32@0x0[4, 0] <- acc:f32@0x0[512, 4]
scan dims=[4, 8] exclusive spm:f32@0x0[32, 4] <- spm:f32@0x80[32, 4]
sort dims=[8] k=2 largest later spm:f32@0x0[4] -> values spm:f32@0x40[4] positions spm:i64@0x80[8]
";

#[test]
fn the_language_round_trips() {
    assert_eq!(disassemble(&assemble(PROGRAM).unwrap()), PROGRAM);
}

#[test]
fn comments_and_blanks_do_not_matter() {
    let text = "# nothing\n\n  preload  spm = 16 dtype=i8 k=1:0 n=1 : 0 # weights\n";
    assert_eq!(disassemble(&assemble(text).unwrap()), "preload spm=0x10 dtype=i8 k=1:0 n=1:0\n");
}

#[test]
fn a_nan_keeps_its_bits() {
    let text = "map copy dims=[] spm:f64@0x0[] <- float nan 0xfff0000000000001";
    let program = assemble(text).unwrap();
    assert_eq!(disassemble(&program).trim_end(), text);
    let crate::systolic::isa::Operation::Map(map) = &program.routines()[0][0].op else { panic!("{program:?}") };
    assert!(matches!(map.sources[0], Source::Float(value) if value.to_bits() == 0xfff0000000000001));
}

#[test]
fn errors_name_line_and_column() {
    let cases = [
        ("jump", 1, 1, "an instruction"),
        ("\nload dram=x", 2, 11, "an integer that fits its 64 bits"),
        ("load dram=-1", 1, 11, "an integer that fits its 64 bits"),
        ("load dram=r0+1", 1, 11, "a base register from r1 to r255"),
        ("load dram=r1+x", 1, 14, "an integer that fits its 64 bits"),
        ("routine 1", 1, 9, "0, the number of the next routine"),
        ("routine 0\ncall 1", 2, 6, "the number of a routine"),
        ("routine 0\ncall 0 x", 2, 8, "an integer that fits its 64 bits"),
        ("routine 0\ncall 0\nroutine 1", 3, 1, "`call`"),
        ("load spm=0", 1, 6, "`dram=`"),
        ("scan dims=[1, 2] spm:f32@0[4]", 1, 27, "2 strides, one for each dimension"),
        ("map copy dims=[1 2]", 1, 18, "`,`"),
        ("map copy dims=[1,1,1,1,1,1,1,1,1]", 1, 32, "`]` after 8 elements, the most there can be"),
        ("map copy dims=[] spm:f32@0[] <- int 1 wait(load<=0, load<=1)", 1, 53, "a unit that is not yet waited for"),
        ("map copy dims=[] spm:f32@0[] <- int 1 2", 1, 39, "`wait(` or the end of the line"),
        ("map copy dims=[] spm:f33@0[]", 1, 22, "an element type"),
        ("map copy dims=[] spm:f32@0[] <- float nan 0", 1, 43, "the bits of a NaN"),
    ];
    for (text, line, column, expected) in cases {
        let error = assemble(text).unwrap_err();
        assert_eq!((error.line, error.column, error.expected.as_str()), (line, column, expected), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn programs_round_trip(program in prop::collection::vec(arbitrary::instruction(Limits::ALL), 0..8)) {
        let code = Code::from(program);
        let text = disassemble(&code);
        prop_assert_eq!(assemble(&text), Ok(code), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:=@<>0-9, \\[\\]()é-]{0,60}") {
        if let Ok(program) = assemble(&text) {
            prop_assert_eq!(assemble(&disassemble(&program)), Ok(program));
        }
    }
}
