//! The program of a plan: its segments become routines and calls.
//!
//! Segments that are equal but for where their buffers lie are written once, as long as what they follow is the same too:
//! what an instruction waits for depends on the segment before. So the first layer of a model is written twice or thrice,
//! after which the program grows by a call for each.

use std::collections::HashMap;

use tcc_ir::{Kernel, Plan, ValueId};

use super::Lowering;
use super::frame::Frame;
use super::signature::Signature;
use crate::systolic::code::{Call, Code, RoutineId};
use crate::systolic::emit::{ArrayWeights, Emitter};
use crate::systolic::isa::Instruction;
use crate::systolic::layout::{Layout, storage};
use crate::systolic::machine::SystolicMachine;
use crate::target::TargetError;

/// One kernel's part of the program.
#[derive(Clone, Debug)]
pub(in crate::systolic) struct LoweredKernel {
    /// Number of its instructions.
    pub instructions: usize,
    /// How it was tiled, in words.
    pub tiling: String,
}

/// Kernels with which those at the start, whose weights nothing is done before, do not matter.
const MANY_KERNELS: usize = 16;

/// Most often that the pieces of a kernel are halved to make its buffers fit the scratchpad.
const MAX_SQUEEZE: u32 = 16;

/// Writes all kernels of a plan as one program.
pub(in crate::systolic) fn lower(
    plan: &Plan,
    layout: &mut Layout,
    machine: &SystolicMachine,
) -> Result<(Code, Vec<LoweredKernel>), TargetError> {
    lower_sharing(plan, layout, machine, true)
}

/// [`lower`], or, without sharing, each segment in a routine of its own.
pub(super) fn lower_sharing(
    plan: &Plan,
    layout: &mut Layout,
    machine: &SystolicMachine,
    share: bool,
) -> Result<(Code, Vec<LoweredKernel>), TargetError> {
    let segments = Segment::of_plan(plan, layout);
    let work = plan.kernels.iter().map(|kernel| plan.macs(kernel)).sum::<u64>() / machine.array.macs_per_cycle();
    let loading = layout.weights_bytes / u64::from(machine.dram.read_bytes_per_cycle);
    let mut writer = Writer {
        plan,
        weights_wait: plan.kernels.len() >= MANY_KERNELS && loading <= work / 10 * 8,
        layout,
        machine,
        routines: Vec::new(),
        calls: Vec::new(),
        known: HashMap::new(),
        share,
        begins: HashMap::new(),
    };
    let mut kernels = Vec::with_capacity(plan.kernels.len());
    let mut before = None;
    for segment in &segments {
        let written = writer.segment(segment, before.as_ref())?;
        kernels.extend_from_slice(&writer.routines[written.routine].kernels);
        before = Some(written);
    }
    let Writer { routines, calls, .. } = writer;
    let routines = routines.into_iter().map(|routine| routine.instructions).collect();
    let code = Code::new(routines, calls).map_err(|error| TargetError::Fault(error.to_string()))?;
    Ok((code, kernels))
}

/// A stretch of the plan's kernels.
struct Segment<'a> {
    kernels: &'a [Kernel],
    roots: Vec<ValueId>,
    /// Which segments have the same signature; `None` if no other has.
    class: Option<usize>,
}

impl<'a> Segment<'a> {
    /// The segments of a plan. Neighbours that occur once are taken together.
    fn of_plan(plan: &'a Plan, layout: &Layout) -> Vec<Segment<'a>> {
        let stretches: Vec<&[Kernel]> = plan.segments().collect();
        if stretches.len() < 2 {
            return vec![Segment { kernels: &plan.kernels, roots: Vec::new(), class: None }];
        }
        let signatures: Vec<Signature> =
            stretches.iter().map(|kernels| Signature::new(plan, layout, kernels)).collect();
        let mut occurrences: HashMap<&str, (usize, usize)> = HashMap::new();
        for (index, signature) in signatures.iter().enumerate() {
            occurrences.entry(&signature.text).or_insert((index, 0)).1 += 1;
        }
        let classes: Vec<Option<usize>> = signatures
            .iter()
            .map(|signature| {
                occurrences.get(signature.text.as_str()).filter(|(_, count)| *count > 1).map(|(first, _)| *first)
            })
            .collect();
        let mut segments: Vec<Segment<'a>> = Vec::new();
        let mut end = 0;
        for ((kernels, signature), class) in stretches.into_iter().zip(signatures).zip(classes) {
            let start = end;
            end += kernels.len();
            match segments.last_mut() {
                Some(last @ Segment { class: None, .. }) if class.is_none() => {
                    last.kernels = &plan.kernels[start - last.kernels.len()..end];
                    last.roots.extend(signature.roots);
                }
                _ => segments.push(Segment { kernels, roots: signature.roots, class }),
            }
        }
        segments
    }
}

/// What decides which instructions a segment becomes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    class: usize,
    /// Where its first buffer goes.
    next: u32,
    /// The same of the segment before, or which segment that is if there is only one like it.
    before: Option<Result<(usize, u32), usize>>,
    /// How its buffers in DRAM lie to each other, and to those of the segment before.
    overlaps: [Vec<(u32, u32, i64)>; 2],
}

/// A routine, and what is needed to write what follows it.
struct Routine {
    instructions: Vec<Instruction>,
    kernels: Vec<LoweredKernel>,
    /// The weights in the array at its start.
    weights: ArrayWeights,
    /// Where the next buffer goes.
    next_after: u32,
    /// Sizes of the copies that its kernels take memory for.
    copies: Vec<u64>,
}

/// A segment that has been written.
struct Written {
    /// Position in the list of routines.
    routine: usize,
    /// What its instructions, but for waits, follow from; the number of the call if nothing else is like it.
    kind: Result<(usize, u32), usize>,
    frame: Frame,
}

struct Writer<'a> {
    plan: &'a Plan,
    layout: &'a mut Layout,
    machine: &'a SystolicMachine,
    /// Whether weights arrive so much faster than the array uses them that they lie ready when a kernel begins.
    weights_wait: bool,
    routines: Vec<Routine>,
    calls: Vec<Call>,
    known: HashMap<Key, usize>,
    share: bool,
    /// Where the first buffers of segments of each class go, which the first of them decides.
    begins: HashMap<usize, u32>,
}

impl Writer<'_> {
    fn segment(&mut self, segment: &Segment<'_>, before: Option<&Written>) -> Result<Written, TargetError> {
        let graph = &self.plan.graph;
        let bytes = |root: ValueId| storage(graph.ty(root).dtype).bytes(graph.shape(root).count()) as u64;
        let mut frame = Frame::new(&segment.roots, &bytes, self.layout, segment.class.is_some());
        let next = before.map_or(0, |before| self.routines[before.routine].next_after);
        let class = segment.class.filter(|_| frame.is_relative());
        let Some(class) = class else {
            let routine = self.routine(segment.kernels, &mut frame, next, before)?;
            return Ok(self.call(routine, Err(self.calls.len()), frame));
        };
        let next = *self.begins.entry(class).or_insert(next);
        let key = Key {
            class,
            next,
            before: before.map(|before| before.kind),
            overlaps: [frame.overlaps(&frame), before.map(|before| frame.overlaps(&before.frame)).unwrap_or_default()],
        };
        if let Some(&routine) = self.known.get(&key).filter(|_| self.share) {
            for &bytes in &self.routines[routine].copies {
                let address = self.layout.scratch(bytes);
                frame.copy(address, bytes);
            }
            return Ok(self.call(routine, Ok((class, next)), frame));
        }
        let routine = self.routine(segment.kernels, &mut frame, next, before)?;
        if !frame.is_relative() {
            return Ok(self.call(routine, Err(self.calls.len()), frame));
        }
        self.known.insert(key, routine);
        Ok(self.call(routine, Ok((class, next)), frame))
    }

    fn call(&mut self, routine: usize, kind: Result<(usize, u32), usize>, frame: Frame) -> Written {
        self.calls.push(Call { routine: RoutineId(routine as u32), bases: frame.bases().to_vec() });
        Written { routine, kind, frame }
    }

    /// Writes kernels as a routine.
    ///
    /// Tiles are chosen for buffers that leave half of the scratchpad to the neighbours. Where the buffers of a kernel turn
    /// out to take more, all is written again with that kernel squeezed: first it gets the scratchpad for itself, then
    /// smaller and smaller pieces.
    fn routine(
        &mut self,
        kernels: &[Kernel],
        frame: &mut Frame,
        next: u32,
        before: Option<&Written>,
    ) -> Result<usize, TargetError> {
        let placed = self.layout.total_bytes;
        let capacity = u64::from(self.machine.scratchpad.bytes) - self.layout.resident_bytes();
        let mut squeezes = vec![0; kernels.len()];
        loop {
            // What kernels took for copies of their own is given back.
            self.layout.total_bytes = placed;
            let mut emitter = Emitter::new(self.machine, self.layout.weights_bytes, capacity, next);
            if let Some(Written { routine, frame, .. }) = before {
                let routine = &self.routines[*routine];
                emitter.resume(&routine.instructions, frame.bases(), routine.weights);
            }
            emitter.set_bases(frame.bases());
            let weights = emitter.weights();
            let mut lowering = Lowering {
                plan: self.plan,
                layout: &mut *self.layout,
                machine: self.machine,
                weights_wait: self.weights_wait,
                emitter,
                frame: frame.clone(),
                tiling: String::new(),
                squeeze: 0,
                moves: Vec::new(),
            };
            let mut lowered = Vec::with_capacity(kernels.len());
            let mut complete = true;
            for (kernel, squeeze) in kernels.iter().zip(&mut squeezes) {
                let start = lowering.emitter.len();
                lowering.squeeze = *squeeze;
                lowering.emitter.begin_kernel(*squeeze > 0);
                lowering.kernel(kernel)?;
                let excess = lowering.emitter.excess();
                if excess > 0 {
                    if *squeeze == MAX_SQUEEZE {
                        return Err(lowering.does_not_fit(kernel, excess));
                    }
                    *squeeze += 1;
                    complete = false;
                }
                let tiling = std::mem::take(&mut lowering.tiling);
                lowered.push(LoweredKernel { instructions: lowering.emitter.len() - start, tiling });
            }
            if complete {
                let Lowering { emitter, frame: used, .. } = lowering;
                *frame = used;
                self.routines.push(Routine {
                    kernels: lowered,
                    weights,
                    next_after: emitter.next(),
                    copies: frame.copies().to_vec(),
                    instructions: emitter.finish(),
                });
                return Ok(self.routines.len() - 1);
            }
        }
    }
}
