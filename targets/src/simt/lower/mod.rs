//! From a plan to launches: what each kernel of the plan computes becomes one kernel of the machine, or several where threads
//! would have to wait for each other.

mod alone;
mod elements;
mod piece;
mod rows;

use std::collections::HashMap;

use tcc_ir::{Access, Anchor, DType, Graph, Kernel as Group, Plan, Shape, ValueId};
use tcc_passes::derived_constants;

use elements::{Elements, defect};
use piece::{Piece, Work, pieces};
use rows::{Shares, rows};

use super::SimtMachine;
use super::kernel::check::check;
use super::kernel::names::name_of;
use super::kernel::{Builder, ExprId, Kernel, Scalar};
use crate::stored::storage;
use crate::target::TargetError;

/// Threads of a block that work on elements by themselves.
const THREADS: u32 = 256;

/// What lowering has made of a plan.
#[derive(Debug, Default)]
pub(super) struct Lowered {
    /// Kernels, each once.
    pub kernels: Vec<Kernel>,
    /// What is launched, in order.
    pub launches: Vec<Launch>,
}

/// A launch of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    /// The kernel's number.
    pub kernel: u32,
    /// The value that each of its parameters is.
    pub arguments: Vec<ValueId>,
    /// The kernel of the plan that it belongs to.
    pub group: u32,
    /// How its work is shared out, in words.
    pub tiling: String,
}

/// What elements of a value are stored as: constants as in the model, with those of four bits two to a byte; others not
/// narrower than a byte.
pub(super) fn stored_type(graph: &Graph, derived: &[bool], value: ValueId) -> DType {
    let dtype = graph.ty(value).dtype;
    if derived[value.index()] { dtype } else { storage(dtype) }
}

/// Lowers a plan.
///
/// # Errors
/// A value is too large, or a defect.
pub(super) fn lower(facts: &SimtMachine, plan: &Plan) -> Result<Lowered, TargetError> {
    let derived = derived_constants(&plan.graph);
    let lowering = Lowering { facts, plan, derived: &derived, lowered: Lowered::default(), known: HashMap::new(), group: 0 };
    lowering.run()
}

struct Lowering<'a> {
    facts: &'a SimtMachine,
    plan: &'a Plan,
    derived: &'a [bool],
    lowered: Lowered,
    /// Kernels that are there, by what they are but for names and words.
    known: HashMap<Kernel, u32>,
    group: u32,
}

/// A kernel that is nearly done: how many blocks it takes, and how it is tiled.
type Written = (u32, String);

impl<'a> Lowering<'a> {
    fn run(mut self) -> Result<Lowered, TargetError> {
        for (index, group) in self.plan.kernels.iter().enumerate() {
            self.group = index as u32;
            match &group.anchor {
                Anchor::Copy { value, source } => self.copy(group, *value, source)?,
                _ => {
                    for piece in pieces(&self.plan.graph, group) {
                        self.piece(group, &piece)?;
                    }
                }
            }
        }
        Ok(self.lowered)
    }

    fn piece(&mut self, group: &Group, piece: &Piece) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let is_empty = |value: &ValueId| graph.shape(*value).count() == 0;
        let outputs: Vec<ValueId> = piece.outputs.iter().copied().filter(|output| !is_empty(output)).collect();
        if outputs.is_empty() {
            return Ok(());
        }
        match &piece.work {
            Work::Elements => {
                // Values of one shape are computed together.
                let mut shapes: Vec<Shape> = Vec::new();
                for shape in outputs.iter().map(|&output| graph.shape(output)) {
                    if !shapes.contains(shape) {
                        shapes.push(shape.clone());
                    }
                }
                for shape in shapes {
                    let own: Vec<ValueId> = outputs.iter().copied().filter(|&value| graph.shape(value) == &shape).collect();
                    self.launch(group, piece, THREADS, |elements| {
                        each(elements, shape.count(), |elements, index| {
                            let coords = elements.walk(&shape, index);
                            own.iter().try_for_each(|&output| elements.store(output, &coords))
                        })
                    })?;
                }
                Ok(())
            }
            Work::Rows { domain, axes } => {
                let columns: usize = axes.iter().map(|&axis| domain[axis]).product();
                let shares = Shares::new(domain.count() / columns.max(1), columns, self.facts.warp);
                self.launch(group, piece, shares.threads, |elements| {
                    rows(elements, (domain, axes), &piece.nodes, &outputs, shares)
                })
            }
            Work::Alone => self.launch(group, piece, THREADS, |elements| alone::write(elements, piece.nodes[0], &outputs)),
        }
    }

    /// Writes a view out.
    fn copy(&mut self, group: &Group, value: ValueId, source: &Access) -> Result<(), TargetError> {
        let shape = self.plan.graph.shape(value).clone();
        if shape.count() == 0 {
            return Ok(());
        }
        let piece = Piece { work: Work::Elements, nodes: Vec::new(), outputs: vec![value] };
        self.launch(group, &piece, THREADS, |elements| {
            each(elements, shape.count(), |elements, index| {
                let coords = elements.walk(&shape, index);
                let element = elements.element_of(source, &coords, value);
                elements.write_dense(value, index, element);
                Ok(())
            })
        })
    }

    /// Writes a kernel and launches it.
    fn launch(
        &mut self,
        group: &Group,
        piece: &Piece,
        threads: u32,
        write: impl FnOnce(&mut Elements<'a>) -> Result<Written, TargetError>,
    ) -> Result<(), TargetError> {
        let plan = self.plan;
        let nodes = piece.nodes.iter().map(|&id| plan.graph.node(id));
        let origins: Vec<String> = nodes.clone().flat_map(|node| node.origin.lines().map(str::to_owned)).collect();
        let named = origins.first().or(origins.last()).cloned();
        let named = named.unwrap_or_else(|| plan.graph.value(piece.outputs[0]).name.to_string());
        let builder = Builder::new("k", threads);
        let mut elements = Elements::new(plan, self.derived, piece.nodes.iter().copied(), builder);
        let (blocks, tiling) = write(&mut elements)?;
        let arguments = elements.arguments.clone();
        let mut kernel = elements.builder.finish([blocks, 1, 1], Vec::new());
        check(&kernel).map_err(|error| defect(&error.to_string()))?;
        let nameless = kernel.nameless();
        let number = match self.known.get(&nameless) {
            Some(&number) => number,
            None => {
                let number = self.lowered.kernels.len() as u32;
                self.known.insert(nameless, number);
                let ops: Vec<&str> = nodes.map(|node| node.op.name()).collect();
                kernel.name = format!("k{number}_{}", name_of(&named));
                kernel.about = vec![
                    format!("{} of {}", if ops.is_empty() { group.anchor.kind().to_owned() } else { ops.join(", ") }, named),
                    tiling.clone(),
                ];
                self.lowered.kernels.push(kernel);
                number
            }
        };
        self.lowered.launches.push(Launch { kernel: number, arguments, group: self.group, tiling });
        Ok(())
    }
}

/// Has a thread for each of so many things do something by its number.
fn each<'a>(
    elements: &mut Elements<'a>,
    count: usize,
    work: impl FnOnce(&mut Elements<'a>, ExprId) -> Result<(), TargetError>,
) -> Result<Written, TargetError> {
    let threads = elements.builder.threads();
    let (thread, block) = (elements.builder.thread(), elements.builder.block(0));
    let first = elements.builder.scaled(block, threads as i32);
    let index = elements.builder.add(first, thread);
    let index = elements.builder.keep("index", Scalar::I32, index);
    let guarded = !count.is_multiple_of(threads as usize);
    if guarded {
        let inside = elements.builder.below(index, count as i32);
        elements.builder.when(inside);
        elements.open();
    }
    work(elements, index)?;
    if guarded {
        elements.close();
    }
    Ok((count.div_ceil(threads as usize) as u32, format!("{count} elements, one for each thread")))
}
