//! Control flow: branches are chosen and loops unrolled at import, since everything after it is scheduled statically.

use onnx_protobuf::GraphProto;
use tcc_ir::{DType, Shape, Tensor, TensorType, ValueId};

use super::recurrent::MAX_STEPS;
use crate::onnx::context::NodeContext;
use crate::onnx::dims::static_type;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[onnx("If", branch), onnx("Loop", unroll), onnx("Scan", scan)];

fn branch(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let condition = cx.input(0)?;
    let Some(condition) = truth(cx, condition)? else {
        return Err(LowerError::unsupported(format!(
            "the condition (`{}`) depends on data; tcc schedules statically, so it must fold to a constant, or \
             be an input whose value is in the file given to --shapes-from: pass one, bind the dimensions it depends on \
             with --dim, or export the branch that is needed",
            cx.name_of(condition)
        )));
    };
    let body = cx.body(if condition { "then_branch" } else { "else_branch" })?;
    cx.inline(body, &[])
}

/// The value of a condition, if it is known.
fn truth(cx: &NodeContext<'_>, condition: ValueId) -> Result<Option<bool>, LowerError> {
    let Some(tensor) = cx.known(condition) else { return Ok(cx.switch(condition)) };
    match tensor.to_f64s()?[..] {
        [value] if tensor.dtype() == DType::Bool => Ok(Some(value != 0.0)),
        _ => Err(LowerError::invalid(format!("a condition must be one truth value, but is {}", tensor.ty()))),
    }
}

/// Removes a condition's dimensions: loops pass scalars to their bodies.
fn scalar_bool(cx: &mut NodeContext<'_>, value: bool) -> ValueId {
    cx.constant(Tensor::scalar_of(DType::Bool, f64::from(u8::from(value))))
}

fn unroll(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let body = cx.body("body")?;
    let trips = match cx.optional_const_i64s(0)?.as_deref() {
        None => i64::MAX,
        Some(&[trips]) => trips,
        Some(_) => return Err(LowerError::invalid("the trip count must be one number")),
    };
    let mut running = match cx.optional(1) {
        None => true,
        Some(condition) => truth(cx, condition)?.ok_or_else(|| data_dependent("initial condition"))?,
    };
    let mut carried = (2..cx.input_count()).map(|index| cx.input(index)).collect::<Result<Vec<_>, _>>()?;
    let scans = body
        .output
        .len()
        .checked_sub(1 + carried.len())
        .ok_or_else(|| LowerError::invalid("the body has fewer outputs than the loop carries values"))?;
    let mut slices: Vec<Vec<ValueId>> = vec![Vec::new(); scans];
    let mut trip = 0;
    while running && trip < trips {
        if trip as usize >= MAX_STEPS {
            return Err(too_long("loop"));
        }
        let outputs = iterate(cx, body, trip, &carried)?;
        running = truth(cx, outputs[0])?.ok_or_else(|| data_dependent("condition"))?;
        for (before, &after) in carried.iter().zip(&outputs[1..]) {
            if cx.dtype(*before) != cx.dtype(after) {
                return Err(LowerError::invalid(format!(
                    "a carried value changes its type from {} to {}",
                    cx.dtype(*before),
                    cx.dtype(after)
                )));
            }
        }
        let (next, scanned) = outputs[1..].split_at(carried.len());
        slices.iter_mut().zip(scanned).for_each(|(slices, &slice)| slices.push(slice));
        carried = next.to_vec();
        trip += 1;
    }
    let mut results = carried.clone();
    for (scan, slices) in slices.iter().enumerate() {
        let output = 1 + carried.len() + scan;
        results.push(if slices.is_empty() {
            let element = match static_type(body, output) {
                Some(ty) => ty,
                // What the body does not declare shows when it is lowered once; nothing uses the result.
                None => {
                    let results = iterate(cx, body, 0, &carried)?;
                    cx.ty(results[output]).clone()
                }
            };
            empty(cx, &element, 0)?
        } else {
            stack(cx, slices, 0)?
        });
    }
    Ok(results)
}

fn too_long(what: &str) -> LowerError {
    LowerError::unsupported(format!(
        "a {what} is unrolled, and it has more than the {MAX_STEPS} iterations that tcc unrolls; reduce their number"
    ))
}

fn data_dependent(what: &str) -> LowerError {
    LowerError::unsupported(format!(
        "the loop's {what} depends on data; tcc schedules statically and unrolls loops, so it must fold to a constant"
    ))
}

fn iterate(
    cx: &mut NodeContext<'_>,
    body: &GraphProto,
    trip: i64,
    carried: &[ValueId],
) -> Result<Vec<ValueId>, LowerError> {
    let mut inputs = vec![cx.constant(Tensor::scalar(trip)), scalar_bool(cx, true)];
    inputs.extend(carried);
    let outputs = cx.inline(body, &inputs)?;
    if outputs.len() == body.output.len() && !outputs.is_empty() {
        Ok(outputs)
    } else {
        Err(LowerError::invalid("the body must give at least its condition"))
    }
}

/// Joins slices along a new axis.
fn stack(cx: &mut NodeContext<'_>, slices: &[ValueId], axis: usize) -> Result<ValueId, LowerError> {
    let mut parts = Vec::with_capacity(slices.len());
    for &slice in slices {
        let mut dims = cx.shape(slice).to_vec();
        dims.insert(axis.min(dims.len()), 1);
        parts.push(cx.reshape(slice, &dims)?);
    }
    cx.concat(&parts, axis)
}

/// No slices of type `element` along a new axis.
fn empty(cx: &mut NodeContext<'_>, element: &TensorType, axis: usize) -> Result<ValueId, LowerError> {
    let mut dims = element.shape.to_vec();
    dims.insert(axis.min(dims.len()), 0);
    let ty = TensorType::new(element.dtype, Shape::new(dims)?);
    let tensor = Tensor::new(ty, tcc_ir::Data::from_bytes(Vec::new()))?;
    Ok(cx.constant(tensor))
}

fn scan(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    if cx.opset() < 9 {
        return Err(LowerError::unsupported("Scan of opset 8 is not supported; export with opset 9 or later"));
    }
    let body = cx.body("body")?;
    let inputs = cx.all_inputs()?;
    let scanned = cx.int_or("num_scan_inputs", 0)?;
    let states = usize::try_from(scanned)
        .ok()
        .filter(|&count| count > 0)
        .and_then(|count| inputs.len().checked_sub(count))
        .ok_or_else(|| LowerError::invalid(format!("num_scan_inputs is {scanned}, of {} inputs", inputs.len())))?;
    let scan_inputs = &inputs[states..];
    let outputs = body
        .output
        .len()
        .checked_sub(states)
        .ok_or_else(|| LowerError::invalid("the body has fewer outputs than there are states"))?;

    let input_axes = per_scan(cx, "scan_input_axes", scan_inputs.len())?;
    let input_axes = scan_inputs
        .iter()
        .zip(input_axes)
        .map(|(&input, axis)| cx.axis(axis, cx.rank(input)))
        .collect::<Result<Vec<_>, _>>()?;
    let backwards = |flags: Vec<i64>| flags.into_iter().map(|flag| flag != 0).collect::<Vec<_>>();
    let input_backwards = backwards(per_scan(cx, "scan_input_directions", scan_inputs.len())?);
    let output_axes = per_scan(cx, "scan_output_axes", outputs)?;
    let output_backwards = backwards(per_scan(cx, "scan_output_directions", outputs)?);

    let lengths: Vec<usize> =
        scan_inputs.iter().zip(&input_axes).map(|(&input, &axis)| cx.shape(input)[axis]).collect();
    let length = lengths[0];
    if lengths.iter().any(|&other| other != length) {
        return Err(LowerError::invalid(format!("the scanned axes have different extents: {lengths:?}")));
    }

    if length > MAX_STEPS {
        return Err(too_long("scan"));
    }
    let mut state = inputs[..states].to_vec();
    let mut slices: Vec<Vec<ValueId>> = vec![Vec::new(); outputs];
    for step in 0..length {
        let mut operands = state.clone();
        for ((&input, &axis), &backwards) in scan_inputs.iter().zip(&input_axes).zip(&input_backwards) {
            let index = if backwards { length - 1 - step } else { step };
            let slice = cx.slice(input, axis, index, 1)?;
            let mut dims = cx.shape(slice).to_vec();
            dims.remove(axis);
            operands.push(cx.reshape(slice, &dims)?);
        }
        let results = cx.inline(body, &operands)?;
        let (next, scanned) = results
            .split_at_checked(states)
            .filter(|(_, scanned)| scanned.len() == outputs)
            .ok_or_else(|| LowerError::invalid("the body gives fewer results than it declares"))?;
        state = next.to_vec();
        slices.iter_mut().zip(scanned).for_each(|(slices, &slice)| slices.push(slice));
    }

    let mut results = state;
    for (index, mut slices) in slices.into_iter().enumerate() {
        let element = match slices.first() {
            Some(&slice) => cx.ty(slice).clone(),
            None => static_type(body, states + index).ok_or_else(|| {
                LowerError::unsupported("a scan over no elements needs a body that declares the shapes of its outputs")
            })?,
        };
        let axis = cx.axis(output_axes[index], element.shape.rank() + 1)?;
        if output_backwards[index] {
            slices.reverse();
        }
        results.push(if slices.is_empty() { empty(cx, &element, axis)? } else { stack(cx, &slices, axis)? });
    }
    Ok(results)
}

/// An attribute with one number for each scanned tensor; 0 for all if it is left out.
fn per_scan(cx: &NodeContext<'_>, name: &str, count: usize) -> Result<Vec<i64>, LowerError> {
    match cx.ints(name)? {
        None => Ok(vec![0; count]),
        Some(values) if values.len() == count => Ok(values.to_vec()),
        Some(values) => Err(LowerError::invalid(format!("`{name}` has {} entries for {count} tensors", values.len()))),
    }
}
