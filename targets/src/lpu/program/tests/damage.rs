//! Programs that are damaged: they are refused, or do no harm.

use prost::Message;
use tcc_ir::Data;

use super::*;
use crate::lpu::isa::Queues;
use crate::lpu::program::format::proto;

/// What is said of a program with a change.
fn refused(change: impl FnOnce(&mut proto::Program)) -> String {
    let mut format = proto::Program::decode(program().encode().as_slice()).unwrap();
    change(&mut format);
    match decode(&format.encode_to_vec()) {
        Err(TargetError::Damaged(what)) => what,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    }
}

#[test]
fn damaged_programs_are_refused() {
    let says = |what: &str, change: fn(&mut proto::Program)| {
        let said = refused(change);
        assert!(said.contains(what), "`{said}` does not say `{what}`");
    };
    says("it is for 2 chips, but programs run on exactly one", |program| program.chips.push(Default::default()));
    says("it is for 0 chips", |program| program.chips.clear());
    says("within a word", |program| program.chips[0].code.truncate(99));
    says("`end` must be the last", |program| {
        let text = TEXT.replacen("nop 15", "end\nnop 15", 1);
        program.chips[0].code = encoding::encode(&assemble(&text, &facts()).unwrap());
    });
    says("cover its instructions", |program| program.chips[0].marks[0].instructions[0] += 1);
    says("cover its instructions", |program| drop(program.chips[0].marks.pop()));
    says("cover its instructions", |program| program.kernels.clear());
    says("there is no kernel 2", |program| program.chips[0].marks[0].kernels[0] = 2);
    says("not as many runs", |program| program.chips[0].marks[0].kernels.push(0));
    says("chip 1", |program| program.inputs[0].chip = 1);
    says("there is no type `i5`", |program| program.inputs[0].dtype = "i5".to_owned());
    says("do not take 1 slices", |program| program.inputs[0].dtype = "i16".to_owned());
    says("elements", |program| program.inputs[0].dims[0] = u64::MAX);
    says("are not its 32 elements", |program| program.inputs[0].rows = u64::MAX);
    says("are not its 32 elements", |program| program.inputs[0].columns = 9);
    says("stripes", |program| program.inputs[0].stripes = 0);
    says("stripes", |program| program.inputs[0].stripes = u64::MAX);
    says("there is no slice 8", |program| program.outputs[0].slices[3].slice = 8);
    says("of slice 256", |program| program.outputs[0].slices[3].slice = 256);
    says("do not fit into a slice", |program| program.outputs[0].slices[3].address = 125);
    says("there is no address 0x10000", |program| program.outputs[0].slices[3].address = 1 << 16);
    says("two stretches meet in slice 4", |program| {
        let stretches = &mut program.chips[0].stretches;
        stretches[1].place = Some(proto::Place { slice: 4, address: 1 });
    });
    says("do not fit into a slice", |program| program.chips[0].stretches[0].vectors = u32::MAX);
    says("vectors of memory", |program| program.chips[0].used_vectors = 8 * 128 + 1);
    says("cycles", |program| {
        let text = TEXT.replacen("nop 15", &"nop 4294967295\n".repeat(300), 1);
        let queues: Queues = assemble(&text, &facts()).unwrap();
        program.chips[0].marks[0].instructions = vec![queues.0[0].len() as u32];
        program.chips[0].marks[0].kernels = vec![1];
        program.chips[0].code = encoding::encode(&queues);
    });
}

#[test]
fn rows_without_columns_take_no_time() {
    let empty = |program: &mut proto::Program| {
        let port = &mut program.inputs[0];
        (port.dims, port.rows, port.columns) = (vec![1 << 39, 0], 1 << 39, 0);
    };
    let mut format = proto::Program::decode(program().encode().as_slice()).unwrap();
    empty(&mut format);
    let program = decode(&format.encode_to_vec()).unwrap();
    let x = Tensor::new(program.inputs()[0].ty.clone(), Data::from_bytes(Vec::new())).unwrap();
    program.simulate(&weights(), &[x, inputs().0.remove(1)]).unwrap();
}

#[test]
fn no_damage_lets_anything_panic() {
    let bytes = program().encode();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut taken = 0;
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + random(2) {
            let at = random(damaged.len());
            damaged[at] = if random(2) == 0 { damaged[at] ^ (1 << random(8)) } else { random(256) as u8 };
        }
        let Ok(program) = decode(&damaged) else { continue };
        // What takes long is no less right.
        if program.timing.cycles > 10_000 {
            continue;
        }
        taken += 1;
        let report = program.report();
        assert_eq!(report.breakdown.iter().map(|part| part.cycles).sum::<u64>(), report.cycles);
        program.trace();
        program.schedule_text();
        let zeros = |port: &Port| Tensor::new(port.ty.clone(), Data::from_bytes(vec![0; port.ty.bytes()])).unwrap();
        let inputs: Vec<Tensor> = program.inputs().iter().map(zeros).collect();
        if let Ok(simulation) = program.simulate(&vec![0; program.weights_bytes() as usize], &inputs) {
            assert_eq!(simulation.cycles, report.cycles);
        }
    }
    assert!(taken > 1000, "only {taken} programs were decoded");
}
