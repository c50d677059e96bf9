//! Plans: a graph cut into kernels, which is what a target schedules.
//!
//! A kernel is an anchor with work before it (prologue) and after it (epilogue). The epilogue is element-wise, or works on
//! whole rows of the anchor's result: reductions, normalisations. The prologue of an attention makes its operands: rotary
//! embeddings, what is appended to a cache. Movement that is only a change of indices belongs to no kernel: whoever uses
//! the value reads it through its [`Access`]. Nor do values that follow from constants alone, which are packed like weights.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::view::View;
use crate::{Graph, NodeId, ValueId};

/// A kernel of one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KernelId(pub u32);

impl fmt::Display for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// What a kernel is built around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// A matrix product or convolution.
    Contraction(NodeId),
    /// Attention with its softmax.
    Attention(NodeId),
    /// Softmax or a normalisation.
    Normalization(NodeId),
    /// A reduction.
    Reduction(NodeId),
    /// An operator along an axis that is no reduction: a running sum, the greatest elements, the place of the greatest.
    Selection(NodeId),
    /// An operator that moves data: gather, scatter, concatenation, padding.
    Movement(NodeId),
    /// A view that is written out densely, since somebody needs it so.
    Copy {
        /// The value that the view stands for, and the dense buffer that it is written to.
        value: ValueId,
        /// Where it is read.
        source: Box<Access>,
    },
    /// None: element-wise work only, all of it in the epilogue.
    ElementWise,
}

impl Anchor {
    /// What it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Anchor::Contraction(_) => "contraction",
            Anchor::Attention(_) => "attention",
            Anchor::Normalization(_) => "normalization",
            Anchor::Reduction(_) => "reduction",
            Anchor::Selection(_) => "selection",
            Anchor::Movement(_) => "movement",
            Anchor::Copy { .. } => "copy",
            Anchor::ElementWise => "element-wise",
        }
    }

    /// The anchoring node, if it is one.
    pub fn node(&self) -> Option<NodeId> {
        match *self {
            Anchor::Contraction(node)
            | Anchor::Attention(node)
            | Anchor::Normalization(node)
            | Anchor::Reduction(node)
            | Anchor::Selection(node)
            | Anchor::Movement(node) => Some(node),
            Anchor::Copy { .. } | Anchor::ElementWise => None,
        }
    }

    /// The anchoring node, to be moved to another graph.
    pub fn node_mut(&mut self) -> Option<&mut NodeId> {
        match self {
            Anchor::Contraction(node)
            | Anchor::Attention(node)
            | Anchor::Normalization(node)
            | Anchor::Reduction(node)
            | Anchor::Selection(node)
            | Anchor::Movement(node) => Some(node),
            Anchor::Copy { .. } | Anchor::ElementWise => None,
        }
    }
}

/// Work that a target runs as one unit, with values in between kept on chip.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What it is built around.
    pub anchor: Anchor,
    /// Nodes before the anchor, in topological order.
    pub prologue: Vec<NodeId>,
    /// Nodes after the anchor, in topological order.
    pub epilogue: Vec<NodeId>,
    /// Values of its own that others use, and views of such values: they are written to memory, where their accesses say.
    pub outputs: Vec<ValueId>,
    /// The stretch of the graph that it comes from; see [`Plan::segments`].
    pub segment: u32,
}

impl Kernel {
    /// All nodes, in topological order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.prologue.iter().copied().chain(self.anchor.node()).chain(self.epilogue.iter().copied())
    }
}

/// How a value is read: through a view of the dense buffer that holds `root`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The value that lies in memory: an input, a constant, or an output of a kernel.
    pub root: ValueId,
    /// How this value's elements are found in it.
    pub view: View,
}

/// A graph cut into kernels.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph, in the target's own operators.
    pub graph: Graph,
    /// The kernels, in an order in which they can run.
    pub kernels: Vec<Kernel>,
    /// How each value is read, indexed by [`ValueId::index`]. The results of the graph lie densely in buffers of their
    /// own, whatever their access says. An output of a kernel whose root is another value has no buffer of its own: it is
    /// written where its access says, which leads to each element of the root once.
    pub accesses: Vec<Access>,
}

impl Plan {
    /// The kernels by the stretch of the graph that they come from: where the same layer occurs again and again, segments
    /// repeat each other. What was not cut is one segment.
    pub fn segments(&self) -> impl Iterator<Item = &[Kernel]> {
        self.kernels.chunk_by(|before, after| before.segment == after.segment)
    }

    /// How a value is read.
    pub fn access(&self, value: ValueId) -> &Access {
        &self.accesses[value.index()]
    }

    /// What reports call a kernel: its number and what it is built around.
    pub fn kernel_name(&self, index: usize) -> String {
        format!("{} {}", KernelId(index as u32), self.kernels[index].anchor.kind())
    }

    /// The nodes of the user's model that a kernel computes, each once, in order.
    pub fn origins(&self, kernel: &Kernel) -> Vec<String> {
        let mut origins: Vec<String> = Vec::new();
        let mut push = |origin: &str| {
            if !origin.is_empty() && !origins.iter().any(|known| known == origin) {
                origins.push(origin.to_owned());
            }
        };
        if let Anchor::Copy { value, .. } = &kernel.anchor {
            push(&self.graph.value(*value).name);
        }
        kernel.nodes().for_each(|node| self.graph.node(node).origin.lines().for_each(&mut push));
        origins
    }

    /// Multiply-accumulates of a kernel's contractions.
    pub fn macs(&self, kernel: &Kernel) -> u64 {
        kernel.nodes().map(|node| self.graph.node_work(self.graph.node(node)).macs).sum()
    }
}

impl fmt::Display for Plan {
    /// One line for each kernel: its anchor, its operators, what it reads and writes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan {:?} of {} kernels", self.graph.name(), self.kernels.len())?;
        for (index, kernel) in self.kernels.iter().enumerate() {
            let ops: Vec<&str> = kernel.nodes().map(|node| self.graph.node(node).op.name()).collect();
            let own: Vec<ValueId> = kernel.nodes().flat_map(|node| self.graph.node(node).outputs.to_vec()).collect();
            let mut reads: Vec<ValueId> = Vec::new();
            let operands = kernel.nodes().flat_map(|node| self.graph.node(node).inputs.to_vec());
            let copied = match &kernel.anchor {
                Anchor::Copy { source, .. } => Some(source.root),
                _ => None,
            };
            for value in operands.chain(copied) {
                if !own.contains(&value) && !reads.contains(&value) {
                    reads.push(value);
                }
            }
            let list = |values: &[ValueId]| -> String {
                let items: Vec<String> = values.iter().map(|&id| format!("{id}: {}", self.graph.ty(id))).collect();
                items.join(", ")
            };
            writeln!(f, "  {} {} [{}]", KernelId(index as u32), kernel.anchor.kind(), ops.join(" "))?;
            writeln!(f, "    reads  {}", list(&reads))?;
            writeln!(f, "    writes {}", list(&kernel.outputs))?;
        }
        Ok(())
    }
}
