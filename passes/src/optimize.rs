//! The optimiser: a graph becomes groups of nodes, each a kernel.
//!
//! Rules make an e-graph of all forms that a block has; kernels are offered for every form; extraction takes the cheapest
//! set of kernels that gives the block's results.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use egg::Id;
use rayon::prelude::*;
use smallvec::SmallVec;
use tcc_ir::{Anchor, Def, Graph, GraphError, NodeId, Op, Value, ValueId, is_view};

use crate::assemble::Group;
use crate::blocks::{Segment, leaf_number, roll};
use crate::cost::CostModel;
use crate::egraph::{Conflict, EGraph, Expr, Knowledge, Leaf, Limits, Saturation, Stopped, Term, Terms, saturate};
use crate::explain::{Extracted, KernelExplanation, Way};
use crate::extract::{Certificate, Choice, Problem, Solution, exact, greedy};
use crate::kernels::{Census, Offer, offers, with_operands};
use crate::legalize::{Verdict, legalize_groups};
use crate::rules;

/// How extraction chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extraction {
    /// Quickly.
    Greedy,
    /// With proof, within this many states.
    Exact {
        /// Most states that the search reaches, about.
        states: usize,
    },
}

/// A block that was optimised.
#[derive(Clone, Debug)]
struct OptimizedBlock {
    /// The block in the form that was chosen, in operators that the target runs.
    graph: Graph,
    /// Its kernels.
    groups: Vec<Group>,
    /// The leaf of the block that each value is; `None` for what is computed, and for constants that rules made.
    leaves: Vec<Option<usize>>,
    /// The nodes of a segment that each node comes from; `None` if they are those of the node before.
    origins: Vec<Option<Vec<usize>>>,
    report: BlockReport,
    /// Why each kernel is as it is, where that was asked for.
    explanations: Vec<KernelExplanation>,
}

/// What was done to one distinct block.
#[derive(Clone, Debug)]
pub struct BlockReport {
    /// The first node of the user's model in it.
    pub name: Arc<str>,
    /// How often it occurs.
    pub repeats: usize,
    /// Number of its kernels.
    pub kernels: usize,
    /// E-nodes after saturation.
    pub e_nodes: usize,
    /// Kernels on offer.
    pub offers: usize,
    /// What saturation did.
    pub saturation: Saturation,
    /// What its kernels cost together by the target's reckoning, in cycles.
    pub cost: u64,
    /// What each of its kernels costs, with what it writes.
    pub kernel_costs: Vec<u64>,
    /// How good that is, if it was proven.
    pub certificate: Option<Certificate>,
}

/// A graph that was optimised.
#[derive(Clone, Debug)]
pub struct Optimized {
    /// The graph in the form that was chosen, in operators that the target runs.
    pub graph: Graph,
    /// Its kernels.
    pub groups: Vec<Group>,
    /// Which kernel of which block each of them is.
    pub places: Vec<Place>,
    /// Its distinct blocks.
    pub blocks: Vec<BlockReport>,
}

/// A kernel of a distinct block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The block's number.
    pub block: usize,
    /// The kernel's number in the block.
    pub kernel: usize,
}

/// Why a block cannot be optimised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptimizeError {
    /// A rule contradicts itself.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The form that was chosen cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Nothing on offer gives a result.
    #[error("no kernel of the machine computes `{0}`; this is a defect in tcc, please report it")]
    Unreachable(Arc<str>),
}

/// Optimises a graph: cuts it into blocks, optimises each distinct one, and puts what came out in the place of each of
/// its segments. `judge` says what the target runs within kernels; the rest is written in its terms.
///
/// # Errors
/// See [`OptimizeError`].
pub fn optimize(
    graph: &Graph,
    model: &(dyn CostModel + Sync),
    judge: &(dyn Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync),
    extraction: Extraction,
) -> Result<Optimized, OptimizeError> {
    Ok(optimize_blocks(graph, model, judge, extraction, false)?.0)
}

/// [`optimize`] with the same result, which is explained: for each distinct block, why each of its kernels is as it is.
/// Takes more time and memory, since every e-graph keeps a record of what was done to it.
///
/// # Errors
/// See [`OptimizeError`].
pub fn optimize_explained(
    graph: &Graph,
    model: &(dyn CostModel + Sync),
    judge: &(dyn Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync),
    extraction: Extraction,
) -> Result<(Optimized, Vec<Vec<KernelExplanation>>), OptimizeError> {
    optimize_blocks(graph, model, judge, extraction, true)
}

fn optimize_blocks(
    graph: &Graph,
    model: &(dyn CostModel + Sync),
    judge: &(dyn Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync),
    extraction: Extraction,
    explained: bool,
) -> Result<(Optimized, Vec<Vec<KernelExplanation>>), OptimizeError> {
    let rolled = roll(graph);
    let numbers: Vec<usize> = (0..rolled.blocks.len()).collect();
    let blocks: Vec<OptimizedBlock> = numbers
        .into_par_iter()
        .map(|number| {
            let block = rolled.graph(graph, number);
            let segments = &rolled.blocks[number].segments;
            let names = explained.then(|| names_in(graph, &rolled.segments[segments[0]], &block));
            let halves = rolled.equal_halves(graph, number);
            let mut optimized = optimize_block(&block, &halves, model, judge, extraction, names.as_deref())?;
            optimized.report.repeats = segments.len();
            optimized.report.name = graph.node(rolled.segments[segments[0]].nodes[0]).origin.clone();
            Ok(optimized)
        })
        .collect::<Result<_, OptimizeError>>()?;
    let total = |count: fn(&OptimizedBlock) -> usize| rolled.block_of.iter().map(|&block| count(&blocks[block])).sum();
    let kernels: usize = total(|block| block.groups.len());
    let mut places = Vec::with_capacity(kernels);
    let mut replay = Replay {
        source: graph,
        graph: Graph::new(graph.name().clone()),
        map: vec![None; graph.value_count()],
        groups: Vec::with_capacity(kernels),
        segments: 0,
    };
    replay.graph.reserve(total(|block| block.graph.node_count()), total(|block| block.graph.value_count()));
    for &input in graph.inputs() {
        let value = graph.value(input);
        let new = replay.graph.add_input(value.name.clone(), value.ty.clone());
        replay.map[input.index()] = Some(new);
    }
    for (segment, &block) in rolled.segments.iter().zip(&rolled.block_of) {
        replay.segment(segment, &rolled.blocks[block].results, &blocks[block]);
        places.extend((0..blocks[block].groups.len()).map(|kernel| Place { block, kernel }));
    }
    for output in graph.outputs() {
        let value = replay.value(output.value);
        replay.graph.add_output(output.name.clone(), value);
    }
    let Replay { graph, groups, .. } = replay;
    let (blocks, explanations) = blocks.into_iter().map(|block| (block.report, block.explanations)).unzip();
    Ok((Optimized { graph, groups, places, blocks }, explanations))
}

/// What the values of a block are called in the segment that it was made of.
fn names_in(source: &Graph, segment: &Segment, block: &Graph) -> Vec<String> {
    let mut leaves = segment.leaves.iter();
    let name = |value: &Value, leaves: &mut std::slice::Iter<'_, ValueId>| match value.def {
        Def::Input(_) | Def::Constant(_) => leaves.next().copied(),
        Def::Node { node, output } => Some(source.node(segment.nodes[node.index()]).outputs[output]),
    };
    let names = block.values().map(|(_, value)| name(value, &mut leaves));
    names.map(|id| id.map_or_else(String::new, |id| source.value(id).name.to_string())).collect()
}

/// The whole graph in its new form, being put together from blocks.
struct Replay<'a> {
    source: &'a Graph,
    graph: Graph,
    /// What each value of the source has become.
    map: Vec<Option<ValueId>>,
    groups: Vec<Group>,
    /// Segments so far.
    segments: u32,
}

impl Replay<'_> {
    /// What a value has become; constants are taken over when they are first needed.
    fn value(&mut self, id: ValueId) -> ValueId {
        if let Some(value) = self.map[id.index()] {
            return value;
        }
        let value = self.source.value(id);
        let new = match &value.def {
            Def::Constant(tensor) => self.graph.add_constant(value.name.clone(), tensor.clone()),
            Def::Input(_) | Def::Node { .. } => unreachable!("segments stand in an order in which they can run"),
        };
        self.map[id.index()] = Some(new);
        new
    }

    fn segment(&mut self, segment: &Segment, results: &[(usize, usize)], block: &OptimizedBlock) {
        let mut map: Vec<ValueId> = Vec::with_capacity(block.graph.value_count());
        let first_node = self.graph.node_count();
        for ((_, value), leaf) in block.graph.values().zip(&block.leaves) {
            match (leaf, &value.def) {
                (Some(leaf), _) => map.push(self.value(segment.leaves[*leaf])),
                (None, Def::Constant(tensor)) => map.push(self.graph.constant(tensor.clone())),
                (None, Def::Node { node, output: 0 }) => {
                    if let Some(places) = &block.origins[node.index()] {
                        self.graph.set_origin(origins_in(self.source, segment, places));
                    }
                    let node = block.graph.node(*node);
                    let inputs: SmallVec<[ValueId; 3]> = node.inputs.iter().map(|input| map[input.index()]).collect();
                    let types = node.outputs.iter().map(|&output| block.graph.ty(output).clone());
                    map.extend(self.graph.add_known(node.op.clone(), &inputs, types));
                }
                (None, Def::Node { .. }) => {}
                (None, Def::Input(_)) => unreachable!("all inputs of a block are leaves"),
            }
        }
        let moved = |nodes: &[NodeId]| -> Vec<NodeId> {
            nodes.iter().map(|node| NodeId::from_index(first_node + node.index())).collect()
        };
        for Group { anchor, prologue, epilogue, .. } in &block.groups {
            let mut anchor = anchor.clone();
            if let Some(node) = anchor.node_mut() {
                *node = NodeId::from_index(first_node + node.index());
            }
            let (prologue, epilogue, segment) = (moved(prologue), moved(epilogue), self.segments);
            self.groups.push(Group { anchor, prologue, epilogue, segment });
        }
        self.segments += 1;
        for (&(place, output), result) in results.iter().zip(block.graph.outputs()) {
            let old = self.source.node(segment.nodes[place]).outputs[output];
            let new = map[result.value.index()];
            self.map[old.index()] = Some(new);
            if self.graph.producer(new).is_some() {
                self.graph.rename(new, self.source.value(old).name.clone());
            }
        }
    }
}

/// Optimises one block, and explains its kernels if it is known what its values are called in the model.
fn optimize_block(
    graph: &Graph,
    equal_halves: &[bool],
    model: &dyn CostModel,
    judge: &dyn Fn(&Graph, &Op, &[ValueId]) -> Verdict,
    extraction: Extraction,
    explained: Option<&[String]>,
) -> Result<OptimizedBlock, OptimizeError> {
    let Loaded { mut egraph, classes, leaves } = load(graph, equal_halves, explained.is_some());
    let define = |terms: Terms<'_>, op: &Op, operands: &[Id]| definition(model, terms, op, operands);
    let merging = if model.reads_parts_of_rows() { rules::global() } else { Vec::new() };
    let saturation = saturate(&mut egraph, &rules::local(), &merging, &define, Limits::default())?;
    let census = Census::new(&egraph);
    let offers = offers(&census, model);
    let demanded: Vec<Id> = graph.outputs().iter().map(|output| egraph.find(classes[output.value.index()])).collect();
    let (problem, ways) = problem(&census, &egraph, model, &offers, &demanded);
    let unreachable = || {
        OptimizeError::Unreachable(graph.outputs().first().map_or_else(|| Arc::from(""), |output| output.name.clone()))
    };
    let (solution, certificate) = match extraction {
        Extraction::Greedy => (greedy(&problem).ok_or_else(unreachable)?, None),
        Extraction::Exact { states } => {
            let (solution, certificate) = exact(&problem, states).ok_or_else(unreachable)?;
            (solution, Some(certificate))
        }
    };
    let emission = Emission {
        source: graph,
        egraph: &egraph,
        census: &census,
        leaves: &leaves,
        graph: Graph::new(graph.name().clone()),
        values: BTreeMap::new(),
        groups: Vec::new(),
        originals: originals(&egraph, &classes),
        classes: &classes,
    };
    let (chosen, groups) = emission.run(&classes, &offers, &ways, &solution)?;
    let (legal, groups) = legalize_groups(&chosen, &groups, judge)?;
    // Leaves go by their names.
    let leaf = |value: &Value| leaf_number(&value.name).filter(|_| !matches!(value.def, Def::Node { .. }));
    let leaves = legal.values().map(|(_, value)| leaf(value)).collect();
    let origins = origin_places(&legal);
    let kernel_costs = kernel_costs(&problem, &ways, &solution);
    let extracted = explained.map(|names| Extracted {
        source: graph,
        loaded: &classes,
        names,
        simplest: census.simplest.iter().map(|(&class, &term)| (class, term.clone())).collect(),
        offers: &offers,
        steps: solution
            .steps
            .iter()
            .map(|(way, given)| (&ways[*way], given.iter().map(|&number| census.order[number]).collect()))
            .collect(),
    });
    let report = BlockReport {
        name: Arc::from(""),
        repeats: 1,
        kernels: groups.len(),
        e_nodes: egraph.total_number_of_nodes(),
        offers: offers.len(),
        saturation,
        cost: solution.cost,
        kernel_costs,
        certificate,
    };
    // Last, since it writes into the e-graph.
    let explanations = extracted.map_or_else(Vec::new, |extracted| crate::explain::explain(&mut egraph, &extracted));
    Ok(OptimizedBlock { graph: legal, groups, leaves, origins, report, explanations })
}

/// What each kernel of a solution costs, with what it writes.
fn kernel_costs(problem: &Problem, ways: &[Way], solution: &Solution) -> Vec<u64> {
    let kernels = solution.steps.iter().filter(|(way, _)| matches!(ways[*way], Way::Kernel(_)));
    let cost = |(way, given): &(usize, Vec<usize>)| {
        problem.choices[*way].cost + given.iter().map(|&value| problem.write_costs[value]).sum::<u64>()
    };
    kernels.map(cost).collect()
}

/// The values in each class.
fn originals(egraph: &EGraph, classes: &[Id]) -> BTreeMap<Id, Vec<ValueId>> {
    let mut originals: BTreeMap<Id, Vec<ValueId>> = BTreeMap::new();
    for (index, &class) in classes.iter().enumerate() {
        originals.entry(egraph.find(class)).or_default().push(ValueId::from_index(index));
    }
    originals
}

/// The nodes of a segment that each node of a block comes from, which its origin has the numbers of. Nodes of one kernel
/// share their origins, so that only those are given which differ from the node before.
fn origin_places(block: &Graph) -> Vec<Option<Vec<usize>>> {
    let mut before = None;
    let places = block.nodes().map(|(_, node)| {
        let differs = before.replace(&node.origin) != Some(&node.origin);
        differs.then(|| node.origin.lines().filter_map(|number| number.parse().ok()).collect())
    });
    places.collect()
}

/// The origins of some nodes of a segment, given by their places in it, together.
fn origins_in(source: &Graph, segment: &Segment, places: &[usize]) -> Arc<str> {
    let origin = |&place: &usize| &source.node(segment.nodes[place]).origin;
    match places {
        [place] => origin(place).clone(),
        _ => places.iter().map(|place| &**origin(place)).collect::<SmallVec<[&str; 8]>>().join("\n").into(),
    }
}

/// A graph as an e-graph.
struct Loaded {
    egraph: EGraph,
    /// The class of every value; where the e-graph explains itself, the id of the very form that the block has.
    classes: Vec<Id>,
    /// The value that every leaf stands for.
    leaves: Vec<ValueId>,
}

fn load(graph: &Graph, equal_halves: &[bool], explained: bool) -> Loaded {
    let mut egraph = EGraph::new(Knowledge::default());
    if explained {
        egraph = egraph.with_explanations_enabled();
    }
    let mut classes: Vec<Id> = Vec::with_capacity(graph.value_count());
    let mut leaves = Vec::new();
    for (id, value) in graph.values() {
        let class = match &value.def {
            Def::Input(_) | Def::Constant(_) => {
                let tensor = graph.as_constant(id);
                let small = |tensor: &&tcc_ir::Tensor| {
                    tensor.ty().bytes() <= crate::egraph::FOLDED_BYTES && !tensor.data().is_absent()
                };
                let leaf = Leaf {
                    ty: value.ty.clone(),
                    value: tensor.filter(small).cloned(),
                    constant: tensor.is_some(),
                    equal_halves: equal_halves.get(leaves.len()).is_some_and(|&equal| equal),
                    given: true,
                };
                let leaf = egraph.analysis.add_leaf(leaf);
                debug_assert_eq!(leaf.0 as usize, leaves.len());
                leaves.push(id);
                egraph.add_uncanonical(Term::Leaf(leaf))
            }
            Def::Node { node, output } => {
                let node = graph.node(*node);
                let operands: Vec<Id> = node.inputs.iter().map(|input| classes[input.index()]).collect();
                let whole = egraph.add_uncanonical(Term::apply(node.op.clone(), &operands));
                if node.outputs.len() == 1 {
                    whole
                } else {
                    egraph.add_uncanonical(Term::Output { index: *output, of: [whole] })
                }
            }
        };
        classes.push(class);
    }
    egraph.rebuild();
    Loaded { egraph, classes, leaves }
}

/// The definition of an operator that the target does not run as it is.
fn definition(model: &dyn CostModel, terms: Terms<'_>, op: &Op, operands: &[Id]) -> Option<Expr> {
    if is_view(op) {
        return None;
    }
    let (mut graph, inputs) = with_operands(terms, operands);
    let results = match model.judge(&graph, op, &inputs) {
        Verdict::Keep => return None,
        Verdict::Decompose => op.decompose(&mut graph, &inputs)?.ok()?,
        Verdict::Rewrite(rewrite) => rewrite(&mut graph, op, &inputs).ok()?,
    };
    let &[result] = &results[..] else { return None };
    Some(Expr::Body { graph: Arc::new(graph), operands: operands.to_vec(), result })
}

/// The problem of extraction, and what its choices are.
fn problem(
    census: &Census<'_>,
    egraph: &EGraph,
    model: &dyn CostModel,
    offers: &[Offer],
    demanded: &[Id],
) -> (Problem, Vec<Way>) {
    let terms = Terms(egraph);
    let numbers: BTreeMap<Id, usize> =
        census.order.iter().enumerate().map(|(number, &class)| (class, number)).collect();
    let mut problem = Problem::default();
    for &class in &census.order {
        let leaf = egraph[class].nodes.iter().any(|term| matches!(term, Term::Leaf(_)));
        problem.given.push(leaf || terms.is_constant(class));
        problem.write_costs.push(model.write_cost(terms.ty(class)).0);
    }
    let mut ways = Vec::new();
    let number = |class: &Id| numbers.get(&egraph.find(*class)).copied();
    for (index, offer) in offers.iter().enumerate() {
        let gives: Vec<usize> = offer.gives.iter().filter_map(number).collect();
        let takes: Option<Vec<usize>> = offer.reads.iter().map(number).collect();
        let Some(takes) = takes else { continue };
        if takes.iter().any(|taken| gives.contains(taken)) {
            continue;
        }
        problem.choices.push(Choice { gives, takes, cost: offer.cost.0, writes: true });
        ways.push(Way::Kernel(index));
    }
    for &class in &census.order {
        for term in &egraph[class].nodes {
            let Term::Apply { op, operands } = term else { continue };
            let source = egraph.find(operands[0]);
            if let (true, Some(taken)) = (is_view(op) && source != class && !terms.is_constant(class), number(&source))
            {
                problem.choices.push(Choice {
                    gives: vec![numbers[&class]],
                    takes: vec![taken],
                    cost: 0,
                    writes: false,
                });
                ways.push(Way::View(class, term.clone()));
            }
        }
    }
    problem.demanded = demanded.iter().filter_map(number).collect();
    problem.demanded.sort_unstable();
    problem.demanded.dedup();
    (problem, ways)
}

/// The form that was chosen, being written as a graph.
struct Emission<'a> {
    source: &'a Graph,
    egraph: &'a EGraph,
    census: &'a Census<'a>,
    leaves: &'a [ValueId],
    graph: Graph,
    values: BTreeMap<Id, ValueId>,
    groups: Vec<Group>,
    /// The values of the source in each class.
    originals: BTreeMap<Id, Vec<ValueId>>,
    /// The class of every value of the source.
    classes: &'a [Id],
}

impl Emission<'_> {
    fn run(
        mut self,
        classes: &[Id],
        offers: &[Offer],
        ways: &[Way],
        solution: &Solution,
    ) -> Result<(Graph, Vec<Group>), OptimizeError> {
        for &input in self.source.inputs() {
            let value = self.source.value(input);
            let new = self.graph.add_input(value.name.clone(), value.ty.clone());
            self.values.insert(self.egraph.find(classes[input.index()]), new);
        }
        for (number, given) in &solution.steps {
            match &ways[*number] {
                Way::View(class, term) => {
                    let value = self.term(term)?[0];
                    self.values.insert(*class, value);
                }
                Way::Kernel(index) => self.kernel(&offers[*index], given)?,
            }
        }
        for output in self.source.outputs() {
            let value = self.value(classes[output.value.index()])?;
            self.graph.add_output(output.name.clone(), value);
        }
        Ok((self.graph, self.groups))
    }

    fn kernel(&mut self, offer: &Offer, given: &[usize]) -> Result<(), OptimizeError> {
        // Within the kernel its own values hide what others have computed before. Those who come after see of it what
        // extraction takes from it.
        let outside = self.values.clone();
        let mut nodes: Vec<NodeId> = Vec::with_capacity(offer.body.len());
        let origins = self.origins(offer);
        for (class, term) in &offer.body {
            self.graph.set_origin(origins.clone());
            let outputs = self.term(term)?;
            if let [output] = outputs[..] {
                self.values.insert(self.egraph.find(*class), output);
            } else {
                for (index, &output) in outputs.iter().enumerate() {
                    if let Some(id) = self.egraph.lookup(Term::Output { index, of: [*class] }) {
                        self.values.insert(self.egraph.find(id), output);
                    }
                }
            }
            nodes.extend(self.graph.producer(outputs[0]));
        }
        let inside = std::mem::replace(&mut self.values, outside);
        for class in given.iter().map(|&number| self.census.order[number]) {
            self.values.extend(inside.get(&class).map(|&value| (class, value)));
        }
        // Constants that were first needed here are there for all.
        for (class, value) in inside {
            if Terms(self.egraph).is_constant(class) {
                self.values.insert(class, value);
            }
        }
        let mut rest = nodes.split_off(offer.prologue);
        let anchor =
            if offer.anchored { crate::assemble::anchor_of(rest[0], &self.graph.node(rest[0]).op) } else { None };
        if anchor.is_some() {
            rest.remove(0);
        }
        rest.retain(|&node| !is_view(&self.graph.node(node).op));
        let anchor = anchor.unwrap_or(Anchor::ElementWise);
        self.groups.push(Group { anchor, prologue: nodes, epilogue: rest, segment: 0 });
        Ok(())
    }

    /// The nodes of the source that a kernel computes, by their origins: those between what it reads and what it gives, or
    /// what is a view of that.
    fn origins(&self, offer: &Offer) -> String {
        // What is read, and all that it is a view of.
        let mut reads: BTreeSet<Id> = BTreeSet::new();
        let mut read: Vec<Id> = offer.reads.iter().map(|&id| self.egraph.find(id)).collect();
        while let Some(class) = read.pop() {
            if reads.insert(class) {
                read.extend(
                    Terms(self.egraph)
                        .applications(class)
                        .filter(|(op, _)| is_view(op))
                        .map(|(_, of)| self.egraph.find(of[0])),
                );
            }
        }
        let mut own: BTreeSet<Id> = offer.body.iter().map(|(class, _)| self.egraph.find(*class)).collect();
        own.extend(offer.gives.iter().map(|&id| self.egraph.find(id)));
        let mut open: Vec<ValueId> =
            own.iter().filter_map(|class| self.originals.get(class)).flatten().copied().collect();
        if open.is_empty() {
            // What was merged is in the source as its parts.
            for (&class, values) in &self.originals {
                let part = |term: &Term| match term {
                    Term::Apply { op, operands } => is_view(op) && own.contains(&self.egraph.find(operands[0])),
                    Term::Leaf(_) | Term::Output { .. } => false,
                };
                if self.egraph[class].nodes.iter().any(part) {
                    open.extend(values);
                }
            }
        }
        let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
        while let Some(value) = open.pop() {
            let Some(node) = self.source.producer(value) else { continue };
            if nodes.insert(node) {
                let inputs = self.source.node(node).inputs.iter().copied();
                open.extend(inputs.filter(|input| !reads.contains(&self.egraph.find(self.classes[input.index()]))));
            }
        }
        let origins: Vec<&str> = nodes.iter().map(|&node| &*self.source.node(node).origin).collect();
        origins.join("\n")
    }

    /// Adds the node of a term over what its operands have become.
    fn term(&mut self, term: &Term) -> Result<Vec<ValueId>, OptimizeError> {
        let Term::Apply { op, operands } = term else { unreachable!("only operators are written") };
        let inputs = operands.iter().map(|&operand| self.value(operand)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.graph.add_multi(op.clone(), &inputs)?.to_vec())
    }

    /// What a class has become; constants are written when they are first needed.
    fn value(&mut self, class: Id) -> Result<ValueId, OptimizeError> {
        let class = self.egraph.find(class);
        if let Some(&value) = self.values.get(&class) {
            return Ok(value);
        }
        let leaf = self.egraph[class].nodes.iter().find_map(|term| match term {
            Term::Leaf(leaf) => Some(*leaf),
            _ => None,
        });
        let value = match leaf {
            Some(leaf) => match self.leaves.get(leaf.0 as usize) {
                Some(&source) => {
                    let value = self.source.value(source);
                    match &value.def {
                        Def::Constant(tensor) => self.graph.add_constant(value.name.clone(), tensor.clone()),
                        Def::Input(_) | Def::Node { .. } => unreachable!("inputs were written first"),
                    }
                }
                None => match &self.egraph.analysis.leaf(leaf).value {
                    Some(tensor) => self.graph.constant(tensor.clone()),
                    None => unreachable!("leaves that rules made are constants"),
                },
            },
            None => {
                let term = self.census.simplest.get(&class).copied().cloned();
                let term = term.unwrap_or_else(|| unreachable!("every class has a form that ends in leaves"));
                self.term(&term)?[0]
            }
        };
        self.values.insert(class, value);
        Ok(value)
    }
}

/// Whether a limit was hit, in words for the report.
pub fn stop_reason(saturation: &Saturation, certificate: Option<&Certificate>) -> String {
    let saturation = match saturation.stopped {
        Stopped::Saturated => format!("saturated in {} rounds", saturation.rounds),
        Stopped::NodeLimit => format!("limit of e-nodes hit in round {}", saturation.rounds),
        Stopped::RoundLimit => format!("limit of {} rounds hit", saturation.rounds),
    };
    match certificate {
        None => format!("{saturation}; greedy extraction"),
        Some(Certificate { limit_hit: true, states, .. }) => {
            format!("{saturation}; limit of {states} states hit in extraction")
        }
        Some(Certificate { states, .. }) => format!("{saturation}; extraction proven best in {states} states"),
    }
}
