//! The order in which stages touch what lies between them, and what may be a FIFO.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "Tests fail by panicking.")]

use tcc_ir::DType;

use crate::fpga::design::{Design, FifoId, Function, FunctionId, Home, MemoryId, OnChip, Storage, Style, WordFifo};
use crate::fpga::nest::{ArrayId, Nest};
use crate::fpga::program::{Buffer, Call};
use crate::fpga::streaming::copies::with_copies;
use crate::fpga::streaming::order::{is_once, order};
use crate::fpga::streaming::{ports, verify};
use crate::kernel::check::check;
use crate::kernel::simulator::{Memory, Place, launch};
use crate::kernel::{BufferId, Builder, Kernel};

/// Copies 8 rows of 16 elements, 4 at a time: the rows in order, or a column of words after the other; each so many times.
fn rows(by_columns: bool, times: u32) -> Kernel {
    let mut b = Builder::new("rows", 4);
    let from = b.buffer("from", DType::F32, 128, false);
    let to = b.buffer("to", DType::F32, 128 * u64::from(times), true);
    let (lane, word, row, time) = (b.thread(), b.block(0), b.block(1), b.block(2));
    let (word, row) = if by_columns { (row, word) } else { (word, row) };
    let (row, word) = (b.scaled(row, 16), b.scaled(word, 4));
    let at = b.add(row, word);
    let at = b.add(at, lane);
    let element = b.load(from, at, "element");
    let time = b.scaled(time, 128);
    let to_at = b.add(time, at);
    b.store(to, to_at, element);
    let grid = if by_columns { [8, 4, times] } else { [4, 8, times] };
    b.finish(grid, Vec::new())
}

/// The words of a parameter, of so many elements each.
fn words(kernel: &Kernel, parameter: u32, width: u32) -> Option<Vec<u64>> {
    check(kernel).unwrap();
    let memory = |dtype| OnChip { name: "m".to_owned(), dtype, banks: 1, words: 512, storage: Storage::Bram };
    let memories = kernel.buffers.iter().map(|buffer| memory(buffer.dtype)).collect();
    let homes = (0..kernel.buffers.len() as u32).map(|id| Home::OnChip(MemoryId(id))).collect();
    let design = Design { memories, channels: 1, ..Design::default() };
    let nest = Nest::new(&Function::new(kernel.clone(), homes), &design).unwrap();
    order(&nest, ArrayId(parameter))?.words(width)
}

#[test]
fn words_come_in_the_order_of_loops() {
    let kernel = rows(false, 1);
    assert_eq!(words(&kernel, 0, 4), Some((0..32).collect()));
    assert_eq!(words(&kernel, 1, 1), Some((0..128).collect()));
    // An access is no more than a word of 8.
    assert_eq!(words(&kernel, 0, 8), None);
    let columns: Vec<u64> = (0..4).flat_map(|word| (0..8).map(move |row| 4 * row + word)).collect();
    assert_eq!(words(&rows(true, 1), 0, 4), Some(columns.clone()));
    assert_eq!(words(&rows(true, 1), 1, 4), Some(columns));
    // What is read again is not once.
    let twice = words(&rows(false, 2), 0, 4).unwrap();
    assert_eq!((twice.len(), is_once(&twice)), (64, false));
    assert!(is_once(&words(&rows(true, 2), 1, 4).unwrap()));
    // Neither is what leaves another out.
    assert!(is_once(&[1, 0, 2]) && !is_once(&[0, 2]) && !is_once(&[0, 1, 1]) && is_once(&[]));
}

#[test]
fn what_depends_on_data_has_no_order() {
    let mut b = Builder::new("gather", 1);
    let indices = b.buffer("indices", DType::I32, 8, false);
    let from = b.buffer("from", DType::F32, 8, false);
    let to = b.buffer("to", DType::F32, 8, true);
    let at = b.block(0);
    let index = b.load(indices, at, "index");
    let element = b.load(from, index, "element");
    let below = b.below(at, 5);
    b.when(below);
    b.store(to, at, element);
    b.end();
    let kernel = b.finish([8, 1, 1], Vec::new());
    assert_eq!(words(&kernel, 0, 1), Some((0..8).collect()));
    assert_eq!(words(&kernel, 1, 1), None);
    // Some are left out.
    assert_eq!(words(&kernel, 2, 1), None);
}

#[test]
fn copies_are_written_alike() {
    let kernel = with_copies(&rows(true, 1), BufferId(1), 2);
    check(&kernel).unwrap();
    assert_eq!(kernel.buffers.len(), 4);
    for copy in 2..4 {
        assert_eq!(words(&kernel, copy, 4), words(&kernel, 1, 4));
    }
    let bytes: Vec<u8> = (0..128u32).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let mut memory = Memory { weights: &bytes, values: vec![0; 3 * 512] };
    let places = [Place::Weights(0), Place::Values(0), Place::Values(512), Place::Values(1024)];
    launch(&kernel, 4, &mut memory, &places).unwrap();
    assert!(memory.values.chunks(512).all(|copy| copy == bytes));
}

/// A value goes through a FIFO from one kernel to another.
fn pair(kernels: [Kernel; 2], depth: u64) -> (Design, Vec<Call>, Vec<Buffer>) {
    let fifo = WordFifo { name: "fifo".to_owned(), dtype: DType::F32, banks: 4, words: 32, depth };
    let external = Home::External { first: 0, ways: 1 };
    let homes = [vec![external, Home::Fifo(FifoId(0))], vec![Home::Fifo(FifoId(0)), external]];
    let functions = kernels.into_iter().zip(homes).map(|(kernel, homes)| Function::new(kernel, homes)).collect();
    let design = Design { style: Style::Streaming, fifos: vec![fifo], channels: 1, functions, ..Design::default() };
    let calls = [vec![0, 1], vec![1, 2]];
    let calls = calls.into_iter().zip(0..).map(|(buffers, stage): (_, u32)| (stage, buffers));
    let call = |(stage, buffers)| Call { function: FunctionId(stage), buffers, grid: [32, 1, 1], group: 0 };
    let calls = calls.map(call).collect();
    let buffer = |home, at| {
        let (name, dtype, place) = ("value".to_owned(), DType::F32, Place::Values(0));
        Buffer { name, dtype, elements: 128, home, at, place }
    };
    let buffers = vec![buffer(external, 0), buffer(Home::Fifo(FifoId(0)), 0), buffer(external, 8)];
    (design, calls, buffers)
}

#[test]
fn a_fifo_has_one_order() {
    let verified = |(design, calls, buffers): &(Design, Vec<Call>, Vec<Buffer>)| verify(design, calls, buffers);
    let copy = || ports::copy("value", DType::F32, 128, 4);
    assert_eq!(verified(&pair([copy(), rows(false, 1)], 2)), Ok(()));
    assert_eq!(verified(&pair([rows(true, 1), rows(true, 1)], 32)), Ok(()));
    let wrong = |stages| verified(&stages).unwrap_err();
    // By rows and by columns.
    assert!(wrong(pair([copy(), rows(true, 1)], 2)).contains("in the order in which they are given"));
    // Words are taken twice.
    assert!(wrong(pair([copy(), rows(false, 2)], 2)).contains("each word of a FIFO once"));
    // A word is given half by half.
    assert!(verified(&pair([ports::copy("value", DType::F32, 128, 2), copy()], 2)).is_err());
    assert!(wrong(pair([copy(), copy()], 0)).contains("0 of 32 words"));
    assert!(wrong(pair([copy(), copy()], 33)).contains("33 of 32 words"));
    // Two stages take it.
    let mut stages = pair([copy(), copy()], 2);
    let second = stages.0.functions[1].clone();
    stages.0.functions.push(second);
    stages.1.push(Call { function: FunctionId(2), ..stages.1[1].clone() });
    assert!(wrong(stages).contains("more than two stages"));
    // It is taken before it is given.
    let mut stages = pair([copy(), copy()], 2);
    stages.0.functions.swap(0, 1);
    stages.1.swap(0, 1);
    stages.1.iter_mut().enumerate().for_each(|(stage, call)| call.function = FunctionId(stage as u32));
    assert!(wrong(stages).contains("more than two stages"));
    // A stage is called twice.
    let mut stages = pair([copy(), copy()], 2);
    stages.1[1].function = FunctionId(0);
    assert!(wrong(stages).contains("called once"));
}
