//! Steps of a program that one launch can do together: every launch less is a wait less for all multiprocessors.
//!
//! The plan's kernels are chosen one by one, each with what it reads and writes. What is beside each other there, and shares what
//! it reads or how it is shared out, is joined here: elements of one shape, products of the same few rows, and norms of such
//! rows with the products that take them.

use std::collections::{HashMap, HashSet};

use tcc_ir::{Access, Anchor, NodeId, Op, Plan, ValueId};

use super::product::is_of_vectors;
use crate::lower::piece::{Piece, Prologue, Work, is_plain_work, pieces};
use crate::lower::product::Product;
use crate::lower::quantized::Constants;
use crate::simt::SimtMachine;

/// The share of a block's shared memory that rows of a product may take.
const ROWS_SHARE: u64 = 4;

/// What one launch does.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The kernel of the plan that it belongs to.
    pub group: u32,
    pub task: Task,
}

#[derive(Clone, Debug)]
pub(super) enum Task {
    /// A view that is written out.
    Copy(ValueId, Access),
    /// Something that is computed.
    Compute(Piece),
}

/// The steps of a plan, in order.
pub(super) fn steps(plan: &Plan, constants: &Constants, machine: &SimtMachine) -> Vec<Step> {
    let mut steps = Vec::new();
    for (group, kernel) in plan.kernels.iter().enumerate() {
        let group = group as u32;
        match &kernel.anchor {
            Anchor::Copy { value, source } => steps.push(Step { group, task: Task::Copy(*value, (**source).clone()) }),
            _ => {
                let pieces = pieces(&plan.graph, kernel);
                steps.extend(pieces.into_iter().map(|piece| Step { group, task: Task::Compute(piece) }));
            }
        }
    }
    let merge = Merge { plan, constants, machine };
    let steps = merge.neighbours(steps);
    merge.norms(steps)
}

struct Merge<'a> {
    plan: &'a Plan,
    constants: &'a Constants,
    machine: &'a SimtMachine,
}

impl Merge<'_> {
    /// The values that a step reads from memory.
    fn reads(&self, task: &Task) -> HashSet<ValueId> {
        match task {
            Task::Copy(_, source) => HashSet::from([source.root]),
            Task::Compute(piece) => {
                let graph = &self.plan.graph;
                let own: HashSet<NodeId> = piece.all_nodes().collect();
                let inputs = piece.all_nodes().flat_map(|id| graph.node(id).inputs.iter().copied());
                let roots = inputs.map(|input| self.plan.access(input).root);
                roots.filter(|root| !graph.producer(*root).is_some_and(|id| own.contains(&id))).collect()
            }
        }
    }

    /// How many steps read each value from memory, and once more for those that are results of the graph.
    fn readers(&self, steps: &[Step]) -> HashMap<ValueId, usize> {
        let mut readers: HashMap<ValueId, usize> = HashMap::new();
        let outputs = self.plan.graph.outputs().iter();
        let kept = outputs.flat_map(|output| [output.value, self.plan.access(output.value).root]);
        for value in steps.iter().flat_map(|step| self.reads(&step.task)).chain(kept) {
            *readers.entry(value).or_default() += 1;
        }
        readers
    }

    /// Joins steps that follow each other.
    fn neighbours(&self, steps: Vec<Step>) -> Vec<Step> {
        let readers = self.readers(&steps);
        let mut joined: Vec<Step> = Vec::with_capacity(steps.len());
        for step in steps {
            let both = match (joined.last().map(|last| &last.task), &step.task) {
                (Some(Task::Compute(first)), Task::Compute(second)) => {
                    self.elements(first, second).or_else(|| self.products(first, second, &readers))
                }
                _ => None,
            };
            match (both, joined.last_mut()) {
                (Some(piece), Some(last)) => last.task = Task::Compute(piece),
                _ => joined.push(step),
            }
        }
        joined
    }

    /// Elements of one shape that do not follow from each other.
    fn elements(&self, first: &Piece, second: &Piece) -> Option<Piece> {
        let graph = &self.plan.graph;
        let plain = |piece: &Piece| piece.work == Work::Elements && is_plain_work(graph, piece);
        if !plain(first) || !plain(second) {
            return None;
        }
        let shape = graph.shape(*first.outputs.first()?);
        let mut outputs = first.outputs.iter().chain(&second.outputs);
        let reads = self.reads(&Task::Compute(second.clone()));
        let depends = first.outputs.iter().any(|&output| reads.contains(&self.plan.access(output).root));
        if depends || !outputs.all(|&output| graph.shape(output) == shape) {
            return None;
        }
        let mut both = first.clone();
        both.nodes.extend(&second.nodes);
        both.outputs.extend(&second.outputs);
        Some(both)
    }

    /// Products of the same few rows with weights of one form. The second may take what the first gives, element by element.
    fn products(&self, first: &Piece, second: &Piece, readers: &HashMap<ValueId, usize>) -> Option<Piece> {
        let graph = &self.plan.graph;
        let [a, b] = [first, second].map(|piece| Product::all_of(self.plan, self.constants, piece));
        let (a, b) = (a?, b?);
        let is_vector = |product: &Product| is_of_vectors(product, graph);
        if !a.iter().chain(&b).all(is_vector) || !b.iter().all(|product| product.is_like(&a[0], self.plan)) {
            return None;
        }
        let own: HashSet<NodeId> = first.nodes.iter().chain(&second.nodes).copied().collect();
        let shape = graph.shape(a[0].result);
        // What one makes of the other's results is made of elements at the same place.
        let as_is = second.nodes.iter().map(|&id| graph.node(id)).all(|node| {
            let is_product = matches!(node.op, Op::MatMul(_));
            node.inputs.iter().all(|&input| {
                let root = self.plan.access(input).root;
                let inside = graph.producer(root).is_some_and(|id| own.contains(&id));
                !inside || !is_product && input == root && graph.shape(input) == shape
            })
        });
        if !as_is {
            return None;
        }
        let reads = self.reads(&Task::Compute(second.clone()));
        let others = |output: &&ValueId| {
            let root = self.plan.access(**output).root;
            readers.get(&root).copied().unwrap_or(0) > usize::from(reads.contains(&root))
        };
        let mut both = first.clone();
        both.outputs.retain(|output| others(&output));
        both.nodes.extend(&second.nodes);
        both.outputs.extend(&second.outputs);
        Some(both)
    }

    /// Has products of few rows compute the norms that they are of by themselves, in every block, where nobody else wants them.
    fn norms(&self, mut steps: Vec<Step>) -> Vec<Step> {
        let graph = &self.plan.graph;
        let readers = self.readers(&steps);
        let mut dropped = vec![false; steps.len()];
        for place in 0..steps.len() {
            let Task::Compute(piece) = &steps[place].task else { continue };
            let (Work::Rows { domain, axes }, [value]) = (&piece.work, &piece.outputs[..]) else { continue };
            let value = *value;
            if self.plan.access(value).root != value || graph.shape(value) != domain {
                continue;
            }
            let takes = |step: &Step| self.takes_rows(&step.task, value);
            let users: Vec<usize> = (place + 1..steps.len()).filter(|&user| takes(&steps[user])).collect();
            let all = readers.get(&value).copied().unwrap_or(0);
            if users.is_empty() || users.len() != all {
                continue;
            }
            let prologue = Prologue { nodes: piece.nodes.clone(), value, domain: domain.clone(), axes: axes.clone() };
            for user in users {
                if let Task::Compute(piece) = &mut steps[user].task {
                    piece.prologue = Some(prologue.clone());
                }
            }
            dropped[place] = true;
        }
        steps.into_iter().zip(dropped).filter(|(_, dropped)| !dropped).map(|(step, _)| step).collect()
    }

    /// Whether a step is of products whose rows are those of a value, all of it and in its order.
    fn takes_rows(&self, task: &Task, value: ValueId) -> bool {
        let Task::Compute(piece) = task else { return false };
        let Some(products) = Product::all_of(self.plan, self.constants, piece) else { return false };
        let graph = &self.plan.graph;
        let shape = graph.shape(value);
        let Some(product) = products.first() else { return false };
        let bytes = 4 * (product.m * product.k) as u64;
        let others = piece.nodes.iter().any(|&id| {
            let node = graph.node(id);
            let is_product = matches!(node.op, Op::MatMul(_));
            node.inputs.iter().skip(usize::from(is_product)).any(|&input| self.plan.access(input).root == value)
        });
        let rows = product.m * product.k == shape.count() && shape.last() == Some(&product.k);
        // Whatever shape they have been given on the way.
        let access = self.plan.access(product.factors[0]);
        let is_read = access.root == value && access.view.is_dense();
        piece.prologue.is_none()
            && !others
            && rows
            && is_read
            && !product.op.transpose_a
            && bytes <= self.machine.shared.block_bytes / ROWS_SHARE
            && products.iter().all(|product| is_of_vectors(product, graph))
    }
}
