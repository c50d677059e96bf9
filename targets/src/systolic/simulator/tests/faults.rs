//! What stops the machine.

use super::*;

fn cause(text: &str) -> FaultCause {
    match run(&[0; 64], text) {
        Ok(_) => panic!("`{text}` ran"),
        Err(fault) => fault.cause,
    }
}

const LOAD: &str = "load dram=0 spm=0 element=4 dims=[16:4:4]\n";

#[test]
fn a_fault_names_the_instruction() {
    let fault = run(&[0; 64], &format!("{LOAD}store dram=0 spm=0 element=4 dims=[16:4:4] wait(load<=0)")).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "instruction 1 (`store dram=0x0 spm=0x0 element=4 dims=[16:4:4] wait(load<=0)`) writes DRAM bytes 0 to 64, but \
         memory does not lie there"
    );
}

#[test]
fn addresses_must_exist() {
    assert!(matches!(cause("load dram=4 spm=0 element=4 dims=[16:4:4]"), FaultCause::Dram { write: false, .. }));
    assert!(matches!(cause("load dram=0 spm=0 element=4 dims=[2:-4:4]"), FaultCause::Dram { from: -4, .. }));
    assert!(matches!(cause("store dram=8190 spm=0 element=4 dims=[]"), FaultCause::Dram { write: true, .. }));
    let outside = |text: &str, outside: Space| {
        let cause = cause(text);
        assert!(matches!(cause, FaultCause::OutOfRange { space, .. } if space == outside), "{text}: {cause:?}");
    };
    outside("load dram=0 spm=1021 element=4 dims=[]", Space::Scratchpad);
    outside("map copy dims=[2] spm:f32@0[-4] <- int 1", Space::Scratchpad);
    outside("map copy dims=[2] acc:f32@0[4] <- spm:i4@1024[0]", Space::Scratchpad);
    outside("map copy dims=[2] acc:f32@252[4] <- int 1", Space::Accumulators);
    outside("preload spm=1020 dtype=f32 k=2:4 n=1:4", Space::Scratchpad);
    outside("preload spm=0 dtype=i8 k=2:4 n=1:4 zero=1024", Space::Scratchpad);
    let preload = "preload spm=0 dtype=i8 k=4:4 n=4:1\n";
    outside(&format!("{preload}multiply spm=1021 dtype=i8 m=1:1 k=1 row=0 switch"), Space::Scratchpad);
    outside(&format!("{preload}multiply spm=0 dtype=i8 m=2:1 k=1 row=15 switch"), Space::Accumulators);
}

#[test]
fn indices_must_name_rows() {
    let mut weights = bytes(&[3i64, -4]);
    weights.resize(64, 0);
    let rows = |count: u32, rows: u32| {
        format!(
            "load dram=0 spm=0 element=8 dims=[2:8:8]\nload_rows dram=0 spm=64 bytes=4 rows={rows}:4 outer=1:0 \
             indices=0 index=i64 count={count} wait(load<=0)"
        )
    };
    assert!(run(&weights, &rows(2, 4)).is_ok());
    assert_eq!(run(&weights, &rows(1, 3)).unwrap_err().cause, FaultCause::Index { index: 3, rows: 3 });
    weights[0] = 2;
    assert_eq!(run(&weights, &rows(2, 3)).unwrap_err().cause, FaultCause::Index { index: -4, rows: 3 });
}

#[test]
fn what_moves_nothing_may_name_any_address() {
    let preload = "preload spm=0 dtype=i8 k=4:4 n=4:1\n";
    assert!(run(&[], &format!("{preload}multiply spm=0xffffffff dtype=i8 m=0:1 k=1 row=0xffffffff switch")).is_ok());
    let rows = "rows=1:0 outer=1:0 indices=0xffffffff index=i64 count=0";
    assert!(run(&[], &format!("load_rows dram=0 spm=0xffffffff bytes=4 {rows}")).is_ok());
    let rows = "rows=1:0 outer=2:0xffffffffffffffff indices=0 index=i64 count=1";
    let empty_rows = format!("load_rows dram=0 spm=0xffffffff bytes=0 {rows}");
    assert!(matches!(cause(&empty_rows), FaultCause::Malformed(_)));
}

#[test]
fn the_array_wants_its_weights() {
    let preload = "preload spm=0 dtype=i8 k=4:4 n=4:1\n";
    assert_eq!(cause("multiply spm=0 dtype=i8 m=1:1 k=1 row=0"), FaultCause::NoWeights);
    assert_eq!(cause("multiply spm=0 dtype=i8 m=1:1 k=1 row=0 switch"), FaultCause::NothingPreloaded);
    assert_eq!(cause(&preload.repeat(2)), FaultCause::PreloadOverwritten);
    let twice = format!("{preload}{}", "multiply spm=0 dtype=i8 m=1:1 k=1 row=0 switch\n".repeat(2));
    assert_eq!(cause(&twice), FaultCause::NothingPreloaded);
    let machine = divided_machine();
    let divided = |text: &str| run_with(&machine, &[], text).map(|_| ()).map_err(|fault| fault.cause);
    let groups = |groups: usize, k: usize| format!("preload spm=0 dtype=i8 k={k}:4 n=4:1 groups={groups}:8\n");
    assert_eq!(divided(&groups(4, 2)), Ok(()));
    for (count, k) in [(0, 1), (3, 1), (8, 1), (4, 3), (1, 9)] {
        assert!(matches!(divided(&groups(count, k)), Err(FaultCause::Malformed(_))), "{count} groups of {k}");
    }
    assert!(matches!(cause("preload spm=0 dtype=i8 k=1:4 n=4:1 groups=2:4"), FaultCause::Malformed(_)));
    let pass = |rows: &str| format!("{}multiply spm=0 dtype=i8 m=2:4 k=1 {rows} switch wait(preload<=0)", groups(4, 2));
    assert_eq!(divided(&pass("row=0 group=4:2")), Ok(()));
    assert!(matches!(divided(&pass("row=0 group=4:1")), Err(FaultCause::Malformed(_))));
    assert!(matches!(divided(&pass("row=0 group=4:5")), Err(FaultCause::OutOfRange { .. })));
    assert!(matches!(divided(&pass("row=0 group=400:2")), Err(FaultCause::OutOfRange { .. })));
    let outer = |sizes: &str, b: &str| format!("outer {sizes} row=0 spm:i8@0[4, 1], {b}");
    assert!(run(&[], &outer("m=4 n=4 k=9", "spm:i8@64[4, 1]")).is_ok());
    for (sizes, b) in [
        ("m=5 n=4 k=1", "spm:i8@64[4, 1]"),
        ("m=4 n=5 k=1", "spm:i8@64[4, 1]"),
        ("m=4 n=4 k=1", "acc:i32@0[16, 4]"),
        ("m=4 n=4 k=0x7fffffff", "spm:i8@64[4, 1]"),
    ] {
        assert!(matches!(cause(&outer(sizes, b)), FaultCause::Malformed(_)), "{sizes} {b}");
    }
    assert!(matches!(cause(&outer("m=4 n=4 k=1", "spm:f32@64[4, 4]")), FaultCause::Type { .. }));
    assert!(matches!(cause(&outer("m=4 n=4 k=2", "spm:i8@1021[4, 1]")), FaultCause::OutOfRange { .. }));
    let mut machine = small_machine();
    machine.array.types = vec![machine::ArrayType::Bf16];
    machine.array.dataflows = vec![machine::Dataflow::WeightStationary];
    let refused = |text: &str| run_with(&machine, &[], text).unwrap_err().cause.to_string();
    assert_eq!(refused(preload), "is malformed: the array of this machine multiplies no integers");
    assert_eq!(
        refused(&outer("m=4 n=4 k=1", "spm:i8@64[4, 1]")),
        "is malformed: sums do not stay in the array of this machine"
    );
    machine.array.types = vec![machine::ArrayType::Int8];
    let floats = "preload spm=0 dtype=f32 k=1:4 n=1:4";
    let refused = run_with(&machine, &[], floats).unwrap_err().cause.to_string();
    assert_eq!(refused, "is malformed: the array of this machine multiplies no floats");
    let mixed = format!("{preload}multiply spm=0 dtype=f32 m=1:1 k=4 row=0 switch");
    assert!(matches!(cause(&mixed), FaultCause::Type { .. }));
    assert!(matches!(cause("preload spm=0 dtype=f64 k=1:8 n=1:8"), FaultCause::Type { .. }));
    assert!(matches!(cause("preload spm=0 dtype=i8 k=5:4 n=4:1"), FaultCause::Malformed(_)));
    assert!(matches!(cause("preload spm=0 dtype=f32 k=1:4 n=1:4 zero=0"), FaultCause::Malformed(_)));
}

#[test]
fn the_vector_unit_wants_sense() {
    assert!(matches!(cause("map copy dims=[1] acc:f16@0[2] <- int 1"), FaultCause::Type { .. }));
    assert_eq!(cause("map exp dims=[1] spm:i32@0[4] <- spm:i32@0[4]"), FaultCause::Undefined(tcc_ir::DType::I32));
    assert_eq!(
        cause("map xor dims=[1] spm:f32@0[4] <- spm:f32@0[4], int 1"),
        FaultCause::Undefined(tcc_ir::DType::F32)
    );
    assert_eq!(cause("map div dims=[2] spm:i32@0[4] <- spm:i32@0[4], int 0"), FaultCause::DivisionByZero);
    assert!(matches!(cause("map copy dims=[2] spm:f32@0[0] <- int 1"), FaultCause::Malformed(_)));
    assert!(matches!(cause("map copy dims=[2] spm:i4@0[1] <- int 1"), FaultCause::Malformed(_)));
    assert!(matches!(cause("fold sum dims=[2] reduced=1 spm:f32@0[4] <- spm:f32@64[4]"), FaultCause::Malformed(_)));
    assert!(matches!(cause("sort dims=[2] k=3 spm:f32@0[4] ->"), FaultCause::Malformed(_)));
    assert_eq!(cause("map neg dims=[4] spm:f32@0[4] <- spm:f32@4[4]"), FaultCause::Overlap(0));
    assert_eq!(cause("fold sum dims=[4] reduced=1 spm:f32@0[0] <- spm:f32@0[4]"), FaultCause::Overlap(0));
    // Halves of rows that lie between each other do not overlap.
    assert!(run(&[], "map neg dims=[4, 2] spm:f32@0[16, 4] <- spm:f32@8[16, 4]").is_ok());
    let endless = "map copy dims=[65536, 65536, 2] spm:f32@0[4, 4, 4] <- int 1";
    assert!(matches!(cause(endless), FaultCause::Malformed(_)));
}

#[test]
fn a_missing_wait_is_a_race() {
    let read = "map copy dims=[4] spm:f32@512[4] <- spm:f32@0[4]";
    let FaultCause::Race { other, space, start, completion, .. } = cause(&format!("{LOAD}{read}")) else {
        panic!("no race");
    };
    assert_eq!((other, space, start, completion), (0, Space::Scratchpad, 2, 15));
    assert!(run(&[0; 64], &format!("{LOAD}{read} wait(load<=0)")).is_ok());
    // A second load, of other bytes, need not be waited for; nor is anything read of the block's other half.
    let other = "load dram=0 spm=64 element=4 dims=[4:4:4]\n";
    assert!(run(&[0; 64], &format!("{LOAD}{other}{read} wait(load<=1)")).is_ok());
    let half = "load dram=0 spm=0 element=4 dims=[8:4:4]\nmap copy dims=[4] spm:f32@32[4] <- int 1";
    assert!(run(&[0; 64], half).is_ok());
    let interleaved = "load dram=0 spm=0 element=4 dims=[4:4:8]\nmap copy dims=[4] spm:f32@4[8] <- int 1";
    assert!(run(&[0; 64], interleaved).is_ok());
    assert!(run(&[0; 64], &interleaved.replace("spm:f32@4", "spm:f32@2")).is_err());
}

#[test]
fn writes_wait_for_reads_of_other_units() {
    let store = "store dram=4096 spm=0 element=4 dims=[16:4:4]\n";
    assert!(matches!(cause(&format!("{store}{LOAD}")), FaultCause::Race { .. }));
    assert!(run(&[0; 64], &format!("{store}{}", LOAD.replace('\n', " wait(store<=0)"))).is_ok());
    // Through DRAM.
    let load = "load dram=4128 spm=128 element=4 dims=[4:4:4]";
    assert!(matches!(cause(&format!("{store}{load}")), FaultCause::Race { space: Space::Dram, .. }));
    assert!(run(&[0; 64], &format!("{store}{load} wait(store<=0)")).is_ok());
    assert!(run(&[0; 64], &format!("{store}{}", load.replace("4128", "4160"))).is_ok());
}

#[test]
fn what_the_machine_orders_is_no_race() {
    let passes = "preload spm=0 dtype=i8 k=4:4 n=4:1\nmultiply spm=0 dtype=i8 m=4:4 k=1 row=0 switch\n\
                  multiply spm=0 dtype=i8 m=4:4 k=1 row=0 accumulate\n";
    assert!(run(&[], passes).is_ok());
    let read = "map copy dims=[4] spm:i32@512[4] <- acc:i32@0[4]";
    assert!(matches!(cause(&format!("{passes}{read}")), FaultCause::Race { space: Space::Accumulators, .. }));
    assert!(run(&[], &format!("{passes}{read} wait(array<=0)")).is_ok());
    // A vector instruction may overwrite what the one before reads, but not read what it writes.
    let copy = "map copy dims=[4] spm:i32@512[4] <- spm:i32@0[4]\n";
    assert!(run(&[], &format!("{copy}map copy dims=[4] spm:i32@0[4] <- int 1")).is_ok());
    assert!(matches!(
        cause(&format!("{copy}map neg dims=[4] spm:i32@600[4] <- spm:i32@512[4]")),
        FaultCause::Race { .. }
    ));
}
