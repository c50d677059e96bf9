//! From a plan to launches: what each kernel of the plan computes becomes one kernel of the machine, or several where threads
//! would have to wait for each other.

mod attention;
mod merge;
mod opening;
mod product;
mod shares;

use std::collections::HashMap;

use rayon::prelude::*;
use tcc_ir::{Access, DType, Kernel as Group, Plan, Shape, ValueId};

pub(super) use attention::runs as attends;
use merge::{Step, Task, steps};
use opening::ask_ahead;
use product::Method;

use super::SimtMachine;
use super::timing::estimate;
use crate::kernel::check::{check, wide};
use crate::kernel::names::name_of;
use crate::kernel::{Builder, Kernel};
use crate::lower::alone;
use crate::lower::elements::{Elements, defect};
use crate::lower::piece::{Piece, Work};
use crate::lower::product::Product;
use crate::lower::quantized::{Arranged, Constants};
use crate::lower::rows::rows;
use crate::lower::{Argument, Opening, Written, each};
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
    /// Constants, and what follows from them, that are packed otherwise than as they are.
    pub arranged: Vec<Arranged>,
}

/// A launch of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    /// The kernel's number.
    pub kernel: u32,
    /// What each of its parameters is.
    pub arguments: Vec<Argument>,
    /// The kernel of the plan that it belongs to.
    pub group: u32,
    /// How its work is shared out, in words.
    pub tiling: String,
}

/// The type that sums of a type have in shared memory.
fn wide_type(dtype: DType) -> DType {
    wide(dtype)
}

/// Lowers a plan for a machine with so many cycles a second. Where a kernel can be tiled in several ways, the one is taken that the
/// cycle model finds fastest.
///
/// # Errors
/// A value is too large, or a defect.
pub(super) fn lower(facts: &SimtMachine, clock_hz: u64, plan: &Plan) -> Result<Lowered, TargetError> {
    let constants = Constants::new(&plan.graph, product::has_few_rows);
    let lowering = Lowering {
        facts,
        clock_hz,
        plan,
        constants: &constants,
        launches: Vec::new(),
        costs: HashMap::new(),
        group: 0,
    };
    let mut launches = lowering.run()?;
    ask_ahead(facts, clock_hz, &mut launches)?;
    Ok(Lowered { arranged: constants.arranged, ..named(launches) })
}

/// Gives each kernel its name, and has launches of the same have one kernel.
fn named(launches: Vec<Chosen>) -> Lowered {
    let mut lowered = Lowered::default();
    // Kernels that are there, by what they are but for names and words.
    let mut known: HashMap<Kernel, u32> = HashMap::new();
    for Chosen { mut kernel, arguments, group, tiling, named, about, .. } in launches {
        let number = *known.entry(kernel.nameless()).or_insert_with(|| {
            let number = lowered.kernels.len() as u32;
            kernel.name = format!("k{number}_{}", name_of(&named));
            kernel.about = about;
            lowered.kernels.push(kernel);
            number
        });
        lowered.launches.push(Launch { kernel: number, arguments, group, tiling });
    }
    lowered
}

struct Lowering<'a> {
    facts: &'a SimtMachine,
    clock_hz: u64,
    plan: &'a Plan,
    constants: &'a Constants,
    launches: Vec<Chosen>,
    /// How good kernels are that were compared with others.
    costs: HashMap<Kernel, (bool, u64)>,
    group: u32,
}

/// A way in which a launch may be done.
struct Candidate {
    /// Without a name.
    kernel: Kernel,
    arguments: Vec<Argument>,
    tiling: String,
    openings: Vec<Opening>,
}

/// A launch whose kernel has no name yet.
struct Chosen {
    kernel: Kernel,
    arguments: Vec<Argument>,
    group: u32,
    tiling: String,
    /// What the kernel is called after, and what is to be said of it.
    named: String,
    about: Vec<String>,
    openings: Vec<Opening>,
}

impl<'a> Lowering<'a> {
    fn run(mut self) -> Result<Vec<Chosen>, TargetError> {
        for Step { group, task } in steps(self.plan, self.constants, self.facts) {
            self.group = group;
            let group = &self.plan.kernels[group as usize];
            match task {
                Task::Copy(value, source) => self.copy(group, value, &source)?,
                Task::Compute(piece) => self.piece(group, &piece)?,
            }
        }
        Ok(self.launches)
    }

    fn piece(&mut self, group: &Group, piece: &Piece) -> Result<(), TargetError> {
        let (graph, facts) = (&self.plan.graph, self.facts);
        let is_empty = |value: &ValueId| graph.shape(*value).count() == 0;
        let outputs: Vec<ValueId> = piece.outputs.iter().copied().filter(|output| !is_empty(output)).collect();
        if outputs.is_empty() {
            return Ok(());
        }
        let products = Product::all_of(self.plan, self.constants, piece);
        let probe = Elements::new(self.plan, self.constants, piece.all_nodes(), Builder::new("k", 1));
        let methods =
            products.map(|products| (Method::all(&probe, &products, piece.prologue.is_some(), facts), products));
        match (&piece.work, methods.filter(|(methods, _)| !methods.is_empty())) {
            (Work::Elements, Some((methods, products))) => {
                let written = methods.iter().map(|method| {
                    self.written(piece, method.threads(), |elements| {
                        product::product(elements, &products, piece.prologue.as_ref(), method, &outputs, facts)
                    })
                });
                let candidates = written.collect::<Result<Vec<_>, _>>()?;
                self.launch_best(group, piece, candidates)
            }
            (Work::Elements, None) => {
                // Values of one shape are computed together.
                let mut shapes: Vec<Shape> = Vec::new();
                for shape in outputs.iter().map(|&output| graph.shape(output)) {
                    if !shapes.contains(shape) {
                        shapes.push(shape.clone());
                    }
                }
                for shape in shapes {
                    let own: Vec<ValueId> =
                        outputs.iter().copied().filter(|&value| graph.shape(value) == &shape).collect();
                    self.launch(group, piece, THREADS, |elements| {
                        each(elements, shape.count(), |elements, index| {
                            let coords = elements.walk(&shape, index);
                            own.iter().try_for_each(|&output| elements.store(output, &coords))
                        })
                    })?;
                }
                Ok(())
            }
            (Work::Rows { domain, axes }, _) => {
                let columns: usize = axes.iter().map(|&axis| domain[axis]).product();
                let shares = shares::of(domain.count() / columns.max(1), columns, facts);
                self.launch(group, piece, shares.threads, |elements| {
                    rows(elements, (domain, axes), &piece.nodes, &outputs, shares)
                })
            }
            (Work::Attention(id), _) => {
                let methods = attention::Method::all(&probe, *id, facts)?;
                let written = methods.iter().map(|method| {
                    self.written(piece, method.threads(), |elements| {
                        attention::attention(elements, *id, method, &outputs)
                    })
                });
                let candidates = written.collect::<Result<Vec<_>, _>>()?;
                self.launch_best(group, piece, candidates)
            }
            (Work::Alone, _) => {
                self.launch(group, piece, THREADS, |elements| alone::write(elements, piece.nodes[0], &outputs))
            }
        }
    }

    /// Writes a view out.
    fn copy(&mut self, group: &Group, value: ValueId, source: &Access) -> Result<(), TargetError> {
        let shape = self.plan.graph.shape(value).clone();
        if shape.count() == 0 {
            return Ok(());
        }
        let piece = Piece { work: Work::Elements, nodes: Vec::new(), outputs: vec![value], prologue: None };
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
        let candidate = self.written(piece, threads, write)?;
        self.launch_best(group, piece, vec![candidate])
    }

    /// Writes a kernel.
    fn written(
        &self,
        piece: &Piece,
        threads: u32,
        write: impl FnOnce(&mut Elements<'a>) -> Result<Written, TargetError>,
    ) -> Result<Candidate, TargetError> {
        let mut elements = Elements::new(self.plan, self.constants, piece.all_nodes(), Builder::new("k", threads));
        let (grid, tiling) = write(&mut elements)?;
        let (arguments, openings) = (elements.arguments.clone(), elements.openings.clone());
        let kernel = elements.builder.finish(grid, Vec::new());
        check(&kernel).map_err(|error| defect(&error.to_string()))?;
        Ok(Candidate { kernel, arguments, tiling, openings })
    }

    /// How good each of some kernels is. Those that are not known are simulated side by side.
    fn costs(&mut self, candidates: &[Candidate]) -> Vec<(bool, u64)> {
        let nameless: Vec<Kernel> = candidates.iter().map(|candidate| candidate.kernel.nameless()).collect();
        let unknown: Vec<&Kernel> = nameless.iter().filter(|kernel| !self.costs.contains_key(kernel)).collect();
        let (facts, clock_hz) = (self.facts, self.clock_hz);
        let costs: Vec<(bool, u64)> = unknown.par_iter().map(|kernel| estimate(kernel, facts, clock_hz)).collect();
        self.costs.extend(unknown.into_iter().cloned().zip(costs));
        nameless.iter().filter_map(|kernel| self.costs.get(kernel).copied()).collect()
    }

    /// Launches the fastest of some kernels that do the same, the first of those that are equally fast.
    fn launch_best(&mut self, group: &Group, piece: &Piece, mut candidates: Vec<Candidate>) -> Result<(), TargetError> {
        let fits = |candidate: &Candidate| candidate.kernel.shared_bytes() <= self.facts.shared.block_bytes;
        if candidates.iter().any(fits) {
            candidates.retain(fits);
        }
        let costs = if candidates.len() > 1 { self.costs(&candidates) } else { vec![(false, 0)] };
        let best = candidates.into_iter().zip(costs).min_by_key(|&(_, cost)| cost).map(|(best, _)| best);
        let best = best.ok_or_else(|| defect("a kernel can be written in no way"))?;
        let Candidate { kernel, arguments, tiling, openings } = best;
        let plan = self.plan;
        let nodes = piece.all_nodes().map(|id| plan.graph.node(id));
        let origins: Vec<String> = nodes.clone().flat_map(|node| node.origin.lines().map(str::to_owned)).collect();
        let named = origins.first().or(origins.last()).cloned();
        let named = named.unwrap_or_else(|| plan.graph.value(piece.outputs[0]).name.to_string());
        let ops: Vec<&str> = nodes.map(|node| node.op.name()).collect();
        let what = if ops.is_empty() { group.anchor.kind().to_owned() } else { ops.join(", ") };
        let about = vec![format!("{what} of {named}"), tiling.clone()];
        self.launches.push(Chosen { kernel, arguments, group: self.group, tiling, named, about, openings });
        Ok(())
    }
}
