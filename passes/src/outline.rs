//! Outlines: the kernels of a plan for people, with those that are equal but for their weights told once.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tcc_ir::{Anchor, Graph, Kernel, NodeId, Plan};

use crate::assemble::Group;
use crate::blocks::{Rolled, roll};
use crate::optimize::{BlockReport, Place};

/// The distinct kernels of a plan, by the blocks of the graph that it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// The distinct blocks.
    pub blocks: Vec<BlockOutline>,
    /// The distinct kernels, in the order in which they first run.
    pub kernels: Vec<KernelOutline>,
}

/// A distinct block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockOutline {
    /// The first node of the model in it.
    pub name: String,
    /// How often it occurs.
    pub repeats: usize,
}

/// A distinct kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelOutline {
    /// The number of its block. Views that are written out between blocks are in none.
    pub block: Option<usize>,
    /// Which kernel of an optimised block it is.
    #[serde(skip)]
    pub place: Option<Place>,
    /// The names of the plan's kernels that it stands for, as reports give them.
    pub kernels: Vec<String>,
    /// What it is built around, in a word.
    pub anchor: &'static str,
    /// Its operators, in order.
    pub operators: Vec<&'static str>,
    /// The nodes of the model that the first of them computes, in order.
    pub nodes: Vec<String>,
    /// The types of what it writes.
    pub results: Vec<String>,
    /// What it costs by the target's reckoning, in cycles, with what it writes. `None` where nothing was reckoned.
    pub cost: Option<u64>,
}

/// Which kernel of which block every group of an optimised graph is, by the group's first node.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<NodeId, Place>);

impl Places {
    /// The places of groups, which stand in the same order.
    pub fn new(groups: &[Group], places: &[Place]) -> Self {
        let first = |group: &Group| group.nodes().next();
        Places(groups.iter().zip(places).filter_map(|(group, &place)| Some((first(group)?, place))).collect())
    }

    /// The place of a kernel of the plan that was made of the groups; `None` for a view that is written out.
    pub fn of(&self, kernel: &Kernel) -> Option<Place> {
        self.0.get(&kernel.nodes().next()?).copied()
    }
}

/// What kernels have in common that are told once.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Place(Place),
    /// A node in a segment, if it is known, and the kernel's operators with the types of operands and results.
    Form(Option<InBlock>, String),
}

/// The number of a block, and that of a node in each of its segments.
type InBlock = (usize, usize);

impl Outline {
    /// The outline of a plan that was made by optimisation.
    pub fn of_optimized(plan: &Plan, places: &Places, blocks: &[BlockReport]) -> Self {
        let block = |report: &BlockReport| BlockOutline { name: report.name.to_string(), repeats: report.repeats };
        let kernels = distinct(plan, |kernel| match places.of(kernel) {
            Some(place) => (Some(place.block), Key::Place(place)),
            None => (None, Key::Form(None, form(plan, kernel))),
        });
        let kernels = kernels.into_iter().map(|(key, outline)| match key {
            Key::Place(Place { block, kernel }) => {
                let cost = blocks[block].kernel_costs.get(kernel).copied();
                KernelOutline { place: Some(Place { block, kernel }), cost, ..outline }
            }
            Key::Form(..) => outline,
        });
        Outline { blocks: blocks.iter().map(block).collect(), kernels: kernels.collect() }
    }

    /// The outline of a plan that was made of `source` without search.
    pub fn of_fused(plan: &Plan, source: &Graph) -> Self {
        let Rolled { segments, blocks, block_of } = roll(source);
        // Where each node of the model is in its block.
        let mut home: HashMap<&str, InBlock> = HashMap::new();
        for (segment, &block) in segments.iter().zip(&block_of) {
            for (place, &node) in segment.nodes.iter().enumerate() {
                for origin in source.node(node).origin.lines() {
                    home.entry(origin).or_insert((block, place));
                }
            }
        }
        let kernels = distinct(plan, |kernel| {
            let named = kernel.anchor.node().into_iter().chain(kernel.nodes());
            let mut origins = named.flat_map(|node| plan.graph.node(node).origin.lines());
            let place = origins.find_map(|origin| home.get(origin).copied());
            (place.map(|(block, _)| block), Key::Form(place, form(plan, kernel)))
        });
        let blocks = blocks.iter().map(|block| {
            let first = segments[block.segments[0]].nodes[0];
            BlockOutline { name: source.node(first).origin.to_string(), repeats: block.segments.len() }
        });
        Outline { blocks: blocks.collect(), kernels: kernels.into_iter().map(|(_, outline)| outline).collect() }
    }

    /// Number of kernels in the plan.
    pub fn kernel_count(&self) -> usize {
        self.kernels.iter().map(|kernel| kernel.kernels.len()).sum()
    }

    /// Number of kernels in the plan that belong to a block, at all places where it occurs.
    pub fn kernels_in(&self, block: usize) -> usize {
        let own = self.kernels.iter().filter(|kernel| kernel.block == Some(block));
        own.map(|kernel| kernel.kernels.len()).sum()
    }
}

/// The distinct kernels of a plan, without costs; `key` says in which block each is and what it has in common with others.
fn distinct(plan: &Plan, key: impl Fn(&Kernel) -> (Option<usize>, Key)) -> Vec<(Key, KernelOutline)> {
    let mut numbers: BTreeMap<Key, usize> = BTreeMap::new();
    let mut found: Vec<KernelOutline> = Vec::new();
    for (index, kernel) in plan.kernels.iter().enumerate() {
        let (block, key) = key(kernel);
        let number = *numbers.entry(key).or_insert(found.len());
        if number == found.len() {
            found.push(outline(plan, kernel, block));
        }
        found[number].kernels.push(plan.kernel_name(index));
    }
    let mut keys: Vec<(usize, Key)> = numbers.into_iter().map(|(key, number)| (number, key)).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, key)| key).zip(found).collect()
}

fn outline(plan: &Plan, kernel: &Kernel, block: Option<usize>) -> KernelOutline {
    KernelOutline {
        block,
        place: None,
        kernels: Vec::new(),
        anchor: kernel.anchor.kind(),
        operators: kernel.nodes().map(|node| plan.graph.node(node).op.name()).collect(),
        nodes: plan.origins(kernel),
        results: kernel.outputs.iter().map(|&output| plan.graph.ty(output).to_string()).collect(),
        cost: None,
    }
}

/// A kernel's operators with the types of their operands and results.
fn form(plan: &Plan, kernel: &Kernel) -> String {
    let graph = &plan.graph;
    let nodes = kernel.nodes().map(|id| graph.node(id));
    let nodes = nodes.map(|node| format!("{:?} {:?} {:?}", node.op, graph.input_types(node), graph.ty(node.output())));
    let copied = match &kernel.anchor {
        Anchor::Copy { value, source } => format!("{} {:?}", graph.ty(*value), source.view),
        _ => String::new(),
    };
    nodes.chain([kernel.anchor.kind().to_owned(), copied]).collect::<Vec<_>>().join("\n")
}
