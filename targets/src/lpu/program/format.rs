//! The file format of programs. What is read is untrusted: it becomes [`Parts`] here, which [`verify`](super::verify) then
//! looks at.

use prost::Message;
use tcc_ir::{DType, Shape, TensorType};

use super::damaged;
use super::parts::{KernelPart, Parts, Stretch};
use crate::lpu::LpuMachine;
use crate::lpu::encoding;
use crate::lpu::isa::Queues;
use crate::lpu::layout::{Layout, Place};
use crate::lpu::marks::Mark;
use crate::lpu::simulator::Counts;
use crate::stored::storage;
use crate::target::{Port, TargetError};

/// What prost makes of `lpu.proto`.
pub(super) mod proto {
    #![allow(missing_docs, reason = "generated from lpu.proto, whose comments prost carries over")]
    include!(concat!(env!("OUT_DIR"), "/tcc.lpu.rs"));
}

/// Writes a program.
pub(super) fn encode(parts: &Parts) -> Vec<u8> {
    let ports = |ports: &[(Port, Layout)]| ports.iter().map(encode_port).collect();
    let counts = &parts.counts;
    proto::Program {
        model: parts.model.clone(),
        inputs: ports(&parts.inputs),
        outputs: ports(&parts.outputs),
        chips: vec![proto::Chip {
            code: encoding::encode(&parts.queues),
            marks: parts.marks.iter().map(|marks| encode_marks(marks)).collect(),
            stretches: parts.stretches.iter().map(encode_stretch).collect(),
            used_vectors: parts.used_vectors,
        }],
        kernels: parts.kernels.iter().map(encode_kernel).collect(),
        counts: Some(proto::Counts {
            reads: counts.reads,
            writes: counts.writes,
            hops: counts.hops,
            weights: counts.weights,
            byte_macs: counts.byte_macs,
            half_macs: counts.half_macs,
            computed: counts.computed,
            switched: counts.switched,
        }),
        work_cycles: parts.work_cycles,
        weight_vectors_multiplied: parts.weight_vectors_multiplied,
        blocks: parts.blocks.clone(),
        host_ops: parts.host_ops.clone(),
        rounded_tables: parts.rounded_tables,
        frugal: parts.frugal,
    }
    .encode_to_vec()
}

/// Reads a program for a machine.
pub(super) fn decode(bytes: &[u8], machine: &LpuMachine) -> Result<Parts, TargetError> {
    let program = proto::Program::decode(bytes).map_err(|error| damaged(error.to_string()))?;
    let chips = program.chips.len();
    let Ok([chip]) = <[proto::Chip; 1]>::try_from(program.chips) else {
        return Err(damaged(format!("it is for {chips} chips, but programs run on exactly one")));
    };
    let counts = program.counts.unwrap_or_default();
    let ports = |ports: Vec<proto::Port>| -> Result<Vec<_>, TargetError> {
        ports.into_iter().map(|port| decode_port(port, machine)).collect()
    };
    Ok(Parts {
        model: program.model,
        inputs: ports(program.inputs)?,
        outputs: ports(program.outputs)?,
        queues: decode_queues(&chip.code)?,
        marks: chip.marks.iter().map(decode_marks).collect::<Result<_, _>>()?,
        kernels: program.kernels.into_iter().map(decode_kernel).collect(),
        stretches: chip.stretches.into_iter().map(decode_stretch).collect::<Result<_, _>>()?,
        weights: None,
        counts: Counts {
            reads: counts.reads,
            writes: counts.writes,
            hops: counts.hops,
            weights: counts.weights,
            byte_macs: counts.byte_macs,
            half_macs: counts.half_macs,
            computed: counts.computed,
            switched: counts.switched,
        },
        blocks: program.blocks,
        work_cycles: program.work_cycles,
        weight_vectors_multiplied: program.weight_vectors_multiplied,
        used_vectors: chip.used_vectors,
        rounded_tables: program.rounded_tables,
        frugal: program.frugal,
        host_ops: program.host_ops,
    })
}

fn encode_port((port, layout): &(Port, Layout)) -> proto::Port {
    proto::Port {
        name: port.name.clone(),
        dtype: port.ty.dtype.name().to_owned(),
        dims: port.ty.shape.iter().map(|&dim| dim as u64).collect(),
        chip: 0,
        rows: layout.rows as u64,
        columns: layout.columns as u64,
        stripes: layout.stripes as u64,
        lots: layout.lots as u64,
        slices: layout.slices.iter().map(encode_place).collect(),
    }
}

fn decode_port(port: proto::Port, machine: &LpuMachine) -> Result<(Port, Layout), TargetError> {
    let of = |what: String| damaged(format!("port `{}`: {what}", port.name));
    if port.chip != 0 {
        return Err(of(format!("it lies on chip {}, but there is only one", port.chip)));
    }
    let dtype: DType = port.dtype.parse().map_err(|_| of(format!("there is no type `{}`", port.dtype)))?;
    let dims = port.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX));
    let shape = Shape::new(dims).map_err(|error| of(error.to_string()))?;
    let number = |number: u64| usize::try_from(number).map_err(|_| of(format!("{number} is too large")));
    let layout = Layout {
        dtype: storage(dtype),
        rows: number(port.rows)?,
        columns: number(port.columns)?,
        lanes: machine.vector(),
        stripes: number(port.stripes)?,
        lots: number(port.lots)?,
        slices: port.slices.iter().map(decode_place).collect::<Result<_, _>>()?,
    };
    Ok((Port { name: port.name, ty: TensorType::new(dtype, shape) }, layout))
}

fn encode_place(place: &Place) -> proto::Place {
    proto::Place { slice: u32::from(place.slice), address: u32::from(place.address) }
}

fn decode_place(place: &proto::Place) -> Result<Place, TargetError> {
    match (u8::try_from(place.slice), u16::try_from(place.address)) {
        (Ok(slice), Ok(address)) => Ok(Place { slice, address }),
        _ => Err(damaged(format!("there is no address {:#x} of slice {}", place.address, place.slice))),
    }
}

fn encode_kernel(kernel: &KernelPart) -> proto::Kernel {
    let KernelPart { name, origins, macs, tiling } = kernel.clone();
    proto::Kernel { name, origins, macs, tiling }
}

fn decode_kernel(kernel: proto::Kernel) -> KernelPart {
    let proto::Kernel { name, origins, macs, tiling } = kernel;
    KernelPart { name, origins, macs, tiling }
}

fn encode_marks(marks: &[Mark]) -> proto::Marks {
    proto::Marks {
        instructions: marks.iter().map(|mark| mark.instructions).collect(),
        kernels: marks.iter().map(|mark| mark.kernel).collect(),
    }
}

fn decode_marks(marks: &proto::Marks) -> Result<Vec<Mark>, TargetError> {
    if marks.instructions.len() != marks.kernels.len() {
        return Err(damaged("there are not as many runs of instructions as kernels that they belong to"));
    }
    let pairs = marks.instructions.iter().zip(&marks.kernels);
    Ok(pairs.map(|(&instructions, &kernel)| Mark { instructions, kernel }).collect())
}

fn encode_stretch(stretch: &Stretch) -> proto::Stretch {
    proto::Stretch { place: Some(encode_place(&stretch.place)), vectors: stretch.vectors }
}

fn decode_stretch(stretch: proto::Stretch) -> Result<Stretch, TargetError> {
    // What is not there counts as all zeros, as everywhere in the format.
    let place = decode_place(&stretch.place.unwrap_or_default())?;
    Ok(Stretch { place, vectors: stretch.vectors })
}

fn decode_queues(code: &[u8]) -> Result<Queues, TargetError> {
    encoding::decode(code).map_err(|error| damaged(error.to_string()))
}
