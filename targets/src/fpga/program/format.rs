//! The file format of programs. What is read is untrusted: it becomes [`Parts`] here, which [`verify`](super::verify) then
//! looks at.

use prost::Message;
use tcc_ir::{DType, Shape, TensorType};

use super::damaged;
use super::parts::{Buffer, Call, Group, Load, Other, Parts};
use crate::fpga::design::FunctionId;
use crate::kernel::simulator::Place;
use crate::target::{Port, TargetError};

/// What prost makes of `fpga.proto`.
mod proto {
    #![allow(missing_docs, reason = "generated from fpga.proto, whose comments prost carries over")]
    include!(concat!(env!("OUT_DIR"), "/tcc.fpga.rs"));
}

/// Writes a program.
pub(super) fn encode(parts: &Parts) -> Vec<u8> {
    let ports = |ports: &[(Port, u32)]| ports.iter().map(encode_port).collect();
    let groups = parts.groups.iter().cloned();
    let calls = parts.calls.iter().cloned();
    proto::Program {
        model: parts.model.clone(),
        // Writing to memory cannot fail.
        design: postcard::to_stdvec(&parts.design).unwrap_or_default(),
        buffers: parts.buffers.iter().map(encode_buffer).collect(),
        inputs: ports(&parts.inputs),
        outputs: ports(&parts.outputs),
        calls: calls
            .map(|Call { function, buffers, grid, group }| proto::Call {
                function: function.0,
                buffers,
                group,
                grid: grid.to_vec(),
            })
            .collect(),
        loads: parts
            .loads
            .iter()
            .map(|&Load { buffer, first, rows, at }| proto::Load { buffer, first, rows, at })
            .collect(),
        groups: groups
            .map(|Group { name, origins, macs, is_float, tiling }| proto::Group {
                name,
                origins,
                macs,
                is_float,
                tiling,
            })
            .collect(),
        weights_bytes: parts.weights_bytes,
        values_bytes: parts.values_bytes,
        blocks: parts.blocks.clone(),
        other_cycles: parts.other.cycles,
        other_why: parts.other.why.clone(),
    }
    .encode_to_vec()
}

/// Reads a program.
pub(super) fn decode(bytes: &[u8]) -> Result<Parts, TargetError> {
    let program = proto::Program::decode(bytes).map_err(|error| damaged(error.to_string()))?;
    let ports = |ports: Vec<proto::Port>| ports.into_iter().map(decode_port).collect::<Result<Vec<_>, _>>();
    let (calls, groups) = (program.calls.into_iter(), program.groups.into_iter());
    Ok(Parts {
        model: program.model,
        design: postcard::from_bytes(&program.design).map_err(|error| damaged(format!("the design: {error}")))?,
        buffers: program.buffers.into_iter().map(decode_buffer).collect::<Result<_, _>>()?,
        inputs: ports(program.inputs)?,
        outputs: ports(program.outputs)?,
        calls: calls.map(decode_call).collect::<Result<_, _>>()?,
        loads: program
            .loads
            .into_iter()
            .map(|proto::Load { buffer, first, rows, at }| Load { buffer, first, rows, at })
            .collect(),
        groups: groups
            .map(|proto::Group { name, origins, macs, is_float, tiling }| Group {
                name,
                origins,
                macs,
                is_float,
                tiling,
            })
            .collect(),
        weights_bytes: program.weights_bytes,
        values_bytes: program.values_bytes,
        weights: None,
        blocks: program.blocks,
        other: Other { cycles: program.other_cycles, why: program.other_why },
    })
}

fn decode_call(call: proto::Call) -> Result<Call, TargetError> {
    let proto::Call { function, buffers, group, grid } = call;
    let grid = <[u32; 3]>::try_from(grid).map_err(|_| damaged("the grid of a call has not three axes"))?;
    Ok(Call { function: FunctionId(function), buffers, grid, group })
}

fn encode_buffer(buffer: &Buffer) -> proto::Buffer {
    let (is_weight, offset) = match buffer.place {
        Place::Weights(offset) => (true, offset),
        Place::Values(offset) => (false, offset),
    };
    let (name, dtype) = (buffer.name.clone(), buffer.dtype.name().to_owned());
    let home = postcard::to_stdvec(&buffer.home).unwrap_or_default();
    proto::Buffer { name, dtype, elements: buffer.elements, home, at: buffer.at, is_weight, offset }
}

fn decode_buffer(buffer: proto::Buffer) -> Result<Buffer, TargetError> {
    let place = if buffer.is_weight { Place::Weights(buffer.offset) } else { Place::Values(buffer.offset) };
    Ok(Buffer {
        dtype: decode_dtype(&buffer.dtype)?,
        home: postcard::from_bytes(&buffer.home).map_err(|error| damaged(format!("where a buffer lies: {error}")))?,
        name: buffer.name,
        elements: buffer.elements,
        at: buffer.at,
        place,
    })
}

fn decode_dtype(name: &str) -> Result<DType, TargetError> {
    name.parse().map_err(|_| damaged(format!("there is no type `{name}`")))
}

fn encode_port((port, buffer): &(Port, u32)) -> proto::Port {
    proto::Port {
        name: port.name.clone(),
        dtype: port.ty.dtype.name().to_owned(),
        dims: port.ty.shape.iter().map(|&dim| dim as u64).collect(),
        buffer: *buffer,
    }
}

fn decode_port(port: proto::Port) -> Result<(Port, u32), TargetError> {
    let dims = port.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX));
    let shape = Shape::new(dims).map_err(|error| damaged(format!("port `{}`: {error}", port.name)))?;
    let ty = TensorType::new(decode_dtype(&port.dtype)?, shape);
    Ok((Port { name: port.name, ty }, port.buffer))
}
