//! A program by hand, through all that is done with programs.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod damage;

use tcc_ir::{DType, Shape, TensorType};

use super::*;
use crate::lpu::assembly::assemble;
use crate::lpu::isa::{Operation, Queue};
use crate::lpu::layout::Place;
use crate::lpu::machine::tests::{energy_costs, small_machine};
use crate::lpu::marks::Mark;
use crate::lpu::rtl::tests::rtl;
use crate::lpu::simulator::Counts;
use crate::machine::Kind;
use crate::stored::storage;
use crate::trace;
use crate::weights::Weights;

/// Rows of x times weights, to which rows of b are added on their way to memory. The weights' columns 0 to 3 and 4 to 7 lie in
/// slices 4 to 7 behind each other.
const TEXT: &str = "
    mem 0:
      nop 15
      read 0x10 -> e0
      repeat 3 every 1 step 1
      end
    mem 1:
      nop 16
      read 0x10 -> e1
      repeat 3 every 1 step 1
      end
    mem 2:
      nop 17
      read 0x10 -> e2
      repeat 3 every 1 step 1
      end
    mem 3:
      read 0x0 -> e4
      repeat 3 every 1 step 1
      nop 14
      read 0x10 -> e3
      repeat 3 every 1 step 1
      end
    mem 4:
      read 0x0 -> e0
      repeat 1 every 1 step 1
      nop 22
      write 0x40 <- e4!
      repeat 3 every 1 step 1
      end
    mem 5:
      nop 1
      read 0x0 -> e1
      repeat 1 every 1 step 1
      nop 22
      write 0x40 <- e5!
      repeat 3 every 1 step 1
      end
    mem 6:
      nop 2
      read 0x0 -> e2
      repeat 1 every 1 step 1
      nop 22
      write 0x40 <- e6!
      repeat 3 every 1 step 1
      end
    mem 7:
      nop 3
      read 0x0 -> e3
      repeat 1 every 1 step 1
      nop 22
      write 0x40 <- e7!
      repeat 3 every 1 step 1
      end
    alu 0:
      nop 21
      add i32 w0..3!, i32 e0..3! -> i32 e4..7
      repeat 3 every 1
      end
    east plane 0 load:
      nop 7
      load e0..3! -> column 0
      repeat 1 every 1 step 4
      install
      end
    east plane 0 multiply:
      nop 9
      multiply i8 e4! by i8
      repeat 3 every 1
      end
    east plane 0 accumulate:
      nop 14
      overwrite row 0 -> w0..3
      repeat 3 every 1 step 1
      end
    others:
      end
";

fn machine() -> Machine {
    Machine {
        name: "small".to_owned(),
        kind: Kind::Lpu,
        description: "an LPU of 8 lanes".to_owned(),
        clock_hz: 1_000_000_000,
        default: false,
        systolic: None,
        lpu: Some(LpuMachine { energy: Some(energy_costs()), ..small_machine() }),
        simt: None,
        fpga: None,
    }
}

fn facts() -> LpuMachine {
    machine().lpu.unwrap()
}

fn place(slice: u8, address: u16) -> Place {
    Place { slice, address }
}

/// A matrix with the byte planes from a place on, each in the slice behind the one before.
fn port(name: &str, dtype: DType, dims: [usize; 2], first: Place) -> (Port, Layout) {
    let stored = storage(dtype);
    let slices = (0..stored.bits() as u8 / 8).map(|plane| place(first.slice + plane, first.address)).collect();
    let ty = TensorType::new(dtype, Shape::new(dims).unwrap());
    let [rows, columns] = dims;
    (Port { name: name.to_owned(), ty }, Layout { dtype: stored, rows, columns, lanes: 8, stripes: 1, lots: 1, slices })
}

/// The weight of a lane of a column.
fn weight(lane: usize, column: usize) -> i8 {
    (lane * 37 + column * 11) as i8
}

/// The columns in the order of the slices, and in each of their addresses.
fn weights() -> Vec<u8> {
    let columns = (0..4).flat_map(|slice| [slice, 4 + slice]);
    columns.flat_map(|column| (0..8).map(move |lane| weight(lane, column) as u8)).collect()
}

fn parts() -> Parts {
    let queues = assemble(TEXT, &facts()).unwrap();
    let split = |(queue, operations): (Queue, &Vec<Operation>)| {
        let all = operations.len() as u32;
        let first = match queue {
            Queue::Mem(3 | 4) => 2,
            Queue::Mem(5..) => 3,
            Queue::Load(..) | Queue::Multiply(..) | Queue::Accumulate(..) => all,
            _ => 0,
        };
        let marks = [Mark { instructions: first, kernel: 0 }, Mark { instructions: all - first, kernel: 1 }];
        marks.into_iter().filter(|mark| mark.instructions > 0).collect()
    };
    let kernel = |name: &str, origin: &str, macs, tiling: &str| KernelPart {
        name: name.to_owned(),
        origins: vec![origin.to_owned()],
        macs,
        tiling: tiling.to_owned(),
    };
    Parts {
        model: "by hand".to_owned(),
        inputs: vec![port("x", DType::I8, [4, 8], place(3, 0)), port("b", DType::I32, [4, 8], place(0, 0x10))],
        outputs: vec![port("y", DType::I32, [4, 8], place(4, 0x40))],
        marks: facts().queues().into_iter().zip(&queues.0).map(split).collect(),
        queues,
        kernels: vec![kernel("k0 product", "/MatMul", 256, "4 rows at a time"), kernel("k1 sum", "/Add", 0, "")],
        stretches: (4..8).map(|slice| Stretch { place: place(slice, 0), vectors: 2 }).collect(),
        weights: Some(Weights::new(|out| out.write_all(&weights()))),
        counts: Counts {
            reads: 8 + 4 + 16,
            writes: 16,
            // Weights, x, sums, b and y.
            hops: 2 * (5 + 4 + 3 + 2) + 4 * 7 + 16 * 6 + 4 * (4 + 3 + 2 + 1) + 4 * (1 + 2 + 3 + 4),
            weights: 8,
            byte_macs: 4 * 64,
            half_macs: 0,
            computed: 4,
            switched: 0,
        },
        blocks: vec![crate::optimizer::Block::not_searched()],
        work_cycles: 1,
        weight_vectors_multiplied: 8,
        used_vectors: 8 + 4 + 16 + 16,
        rounded_tables: false,
        frugal: false,
        host_ops: Vec::new(),
    }
}

fn program() -> LpuProgram {
    LpuProgram::new(&machine(), &facts(), parts()).unwrap()
}

fn decode(bytes: &[u8]) -> Result<LpuProgram, TargetError> {
    LpuProgram::decode(&machine(), &facts(), bytes)
}

/// The inputs, and what they should give.
fn inputs() -> (Vec<Tensor>, Vec<i32>) {
    let x: Vec<i8> = (0..32).map(|index| (index * 13 % 50 - 25) as i8).collect();
    let b: Vec<i32> = (0..32).map(|index| index * 100_003 - 1_000_000).collect();
    let y = (0..32).map(|index| {
        let (row, column) = (index / 8, index % 8);
        let product: i32 = (0..8).map(|k| i32::from(x[row * 8 + k]) * i32::from(weight(k, column))).sum();
        product + b[index]
    });
    let y = y.collect();
    let shape = || Shape::new([4, 8]).unwrap();
    (vec![Tensor::from_vec(shape(), x).unwrap(), Tensor::from_vec(shape(), b).unwrap()], y)
}

const CYCLES: u64 = 33;

#[test]
fn a_program_is_written_read_and_run() {
    let written = program();
    let mut packed = Vec::new();
    written.write_weights(&mut packed).unwrap();
    assert_eq!(packed, weights());
    let read = decode(&written.encode()).unwrap();
    assert_eq!(read.encode(), written.encode());
    assert_eq!(read.inputs(), written.inputs());
    let (inputs, expected) = inputs();
    let simulation = read.simulate(&packed, &inputs).unwrap();
    assert_eq!(simulation.cycles, CYCLES);
    assert_eq!(simulation.outputs.len(), 1);
    assert_eq!(simulation.outputs[0].elements::<i32>().unwrap().to_vec(), expected);
    assert_eq!(read.report(), written.report());
    let [(path, text)] = read.code().try_into().unwrap();
    assert_eq!(path, PathBuf::from("program.s"));
    assert_eq!(assemble(&text, &facts()).unwrap(), parts().queues);
}

#[test]
fn counts_are_the_simulators() {
    let program = program();
    let (_, counted) = program.simulate_counted(&weights(), &inputs().0).unwrap();
    assert_eq!((&counted, program.counts()), (&parts().counts, &parts().counts));
}

#[test]
fn a_program_runs_alike_in_rtl() {
    let Some(rtl) = rtl() else { return };
    let (inputs, expected) = inputs();
    let simulation = program().simulate_in_rtl(rtl, &weights(), &inputs).unwrap();
    assert_eq!(simulation.cycles, CYCLES);
    assert_eq!(simulation.outputs[0].elements::<i32>().unwrap().to_vec(), expected);
}

#[test]
fn the_report_accounts_for_every_cycle() {
    let report = program().report();
    assert_eq!((report.cycles, report.macs, report.lower_bound_cycles), (CYCLES, 256, 1));
    let parts: Vec<_> = report.breakdown.iter().map(|part| (part.name.as_str(), part.cycles)).collect();
    let expected = [
        ("products", 4),
        ("weights into planes", 2),
        ("vector unit", 4),
        ("switch unit", 0),
        ("sums out of planes", 4),
        ("memory only", 14),
        ("latency", 5),
    ];
    assert_eq!(parts, expected);
    assert_eq!(report.breakdown.iter().map(|part| part.cycles).sum::<u64>(), CYCLES);
    let units: Vec<_> = report.units.iter().map(|unit| (unit.name.as_str(), unit.busy_cycles)).collect();
    let expected = [
        ("MXM multiply west", 0),
        ("MXM multiply east", 4),
        ("MXM load west", 0),
        ("MXM load east", 3),
        ("VXM", 4),
        ("VXM, mean of 4 ALUs", 1),
        ("SXM west", 0),
        ("SXM east", 0),
        ("MXM accumulate west", 0),
        ("MXM accumulate east", 4),
        ("MEM west", 11),
        ("MEM east", 12),
    ];
    assert_eq!(units, expected);
    // The sums of the last row are in the accumulators in cycle 18, then the queue ends, and the second superlane follows.
    let kernels: Vec<_> = report.kernels.iter().map(|kernel| (kernel.name.as_str(), kernel.cycles)).collect();
    assert_eq!(kernels, [("k0 product", 20), ("k1 sum", 13)]);
    // Four planes of 64 weights multiply 256 bytes in a cycle.
    assert_eq!((report.utilization, report.kernels[0].utilization), (1.0 / 33.0, 1.0 / 20.0));
    assert_eq!((report.memory[0].peak_bytes, report.memory[0].capacity_bytes), (44 * 8, 8 * 128 * 8));
    assert_eq!(report.kernels[0].bound_by, "latency");
    // Nobody has published what this machine is.
    assert!(report.notes.iter().any(|note| note == "the figures of small are those of its machine file"));
    let energy = report.energy.unwrap();
    assert_eq!(energy.parts[0].count, 256);
    assert_eq!(energy.parts.last().unwrap().count, CYCLES);
}

#[test]
fn the_schedule_shows_a_picture() {
    insta::assert_snapshot!(program().schedule_text());
}

#[test]
fn the_trace_has_a_track_for_each_queue() {
    let program = program();
    let spans = program.trace();
    let mut bytes = Vec::new();
    trace::write(&mut bytes, "by hand", 1_000_000_000, &spans).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let tracks: Vec<_> = events
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .map(|event| event["args"]["name"].as_str().unwrap())
        .collect();
    let working = facts().queues().into_iter().zip(&program.parts.queues.0).filter(|(_, queue)| queue.len() > 1);
    let expected: Vec<String> = working.map(|(queue, _)| queue.to_string()).collect();
    assert_eq!(tracks, expected);
    assert_eq!(tracks.len(), 12);
    let third: Vec<_> = spans.iter().filter(|span| span.unit == "mem 3").collect();
    let told: Vec<_> = third.iter().map(|span| (span.name.as_str(), span.start, span.cycles)).collect();
    assert_eq!(told, [("k0 product read", 0, 4), ("k1 sum read", 18, 4)]);
}

#[test]
fn narrow_numbers_are_widened_and_come_back() {
    // Slice 1 stands beside slice 0: what is driven in cycle 2 is there in cycle 3.
    let text = "mem 0:\n read 0x5 -> e0\n end\nmem 1:\n nop 3\n write 0x7 <- e0\n end\nothers:\n end\n";
    let queues = assemble(text, &facts()).unwrap();
    let parts = Parts {
        inputs: vec![port("x", DType::I4, [1, 5], place(0, 5))],
        outputs: vec![port("y", DType::I4, [1, 5], place(1, 7))],
        marks: vec![Vec::new(); queues.0.len()],
        queues,
        kernels: Vec::new(),
        stretches: Vec::new(),
        weights: None,
        ..parts()
    };
    let program = LpuProgram::new(&machine(), &facts(), parts).unwrap();
    program.write_weights(&mut Vec::new()).unwrap();
    let wide = Tensor::from_vec(Shape::new([1, 5]).unwrap(), vec![-8i8, 7, -1, 0, 3]).unwrap();
    let x = Tensor::narrow(program.inputs()[0].ty.clone(), wide.widen().unwrap());
    let simulation = decode(&program.encode()).unwrap().simulate(&[], std::slice::from_ref(&x)).unwrap();
    assert_eq!(simulation.outputs[0].ty(), x.ty());
    assert_eq!(simulation.outputs[0].bytes().unwrap(), x.bytes().unwrap());
    // There is no kernel that its cycles could be told of.
    let report = program.report();
    assert!(report.kernels.is_empty() && report.utilization.is_sign_positive());
    assert!(program.schedule_text().contains("0 kernels"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let program = program();
    let (inputs, _) = inputs();
    assert!(matches!(program.simulate(&weights()[1..], &inputs), Err(TargetError::Damaged(_))));
    assert!(matches!(program.simulate(&weights(), &inputs[1..]), Err(TargetError::Fault(_))));
    let swapped = [inputs[1].clone(), inputs[0].clone()];
    assert!(matches!(program.simulate(&weights(), &swapped), Err(TargetError::Fault(_))));
    let read = decode(&program.encode()).unwrap();
    assert!(read.write_weights(&mut Vec::new()).is_err());
    let short = Parts { weights: Some(Weights::new(|out| out.write_all(&[0; 63]))), ..parts() };
    let short = LpuProgram::new(&machine(), &facts(), short).unwrap();
    assert!(short.write_weights(&mut Vec::new()).is_err());
}
