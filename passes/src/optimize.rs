//! The optimiser: a graph becomes groups of nodes, each a kernel.
//!
//! Rules make an e-graph of all forms that a block has; kernels are offered for every form; extraction takes the cheapest
//! set of kernels that gives the block's results.

use std::collections::BTreeMap;
use std::sync::Arc;

use egg::Id;
use tcc_ir::{Anchor, Def, Graph, GraphError, NodeId, Op, ValueId, is_view};

use crate::assemble::Group;
use crate::cost::CostModel;
use crate::egraph::{Conflict, EGraph, Expr, Knowledge, Leaf, Limits, Saturation, Stopped, Term, Terms, saturate};
use crate::extract::{Certificate, Choice, Problem, Solution, exact, greedy};
use crate::kernels::{Census, Offer, offers, with_operands};
use crate::legalize::Verdict;
use crate::rules;

/// How extraction chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extraction {
    /// Quickly.
    Greedy,
    /// With proof, within this many states.
    Exact {
        /// Most states that the search expands.
        states: usize,
    },
}

/// A block that was optimised.
#[derive(Clone, Debug)]
pub struct Optimized {
    /// The block in the form that was chosen.
    pub graph: Graph,
    /// Its kernels.
    pub groups: Vec<Group>,
    /// E-nodes after saturation, with the kernels on offer.
    pub e_nodes: usize,
    /// What saturation did.
    pub saturation: Saturation,
    /// Number of kernels on offer.
    pub offers: usize,
    /// What the kernels cost together by the target's reckoning, in cycles.
    pub cost: u64,
    /// How good that is, if it was proven.
    pub certificate: Option<Certificate>,
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

/// Optimises a graph as one block.
///
/// # Errors
/// See [`OptimizeError`].
pub fn optimize(graph: &Graph, model: &dyn CostModel, extraction: Extraction) -> Result<Optimized, OptimizeError> {
    let Loaded { mut egraph, classes, leaves } = load(graph);
    let define = |terms: Terms<'_>, op: &Op, operands: &[Id]| definition(model, terms, op, operands);
    let saturation = saturate(&mut egraph, &rules::local(), &rules::global(), &define, Limits::default())?;
    let census = Census::new(&egraph);
    let offers = offers(&census, model);
    let demanded: Vec<Id> = graph.outputs().iter().map(|output| egraph.find(classes[output.value.index()])).collect();
    let (problem, ways, numbers) = problem(&census, &egraph, model, &offers, &demanded);
    let unreachable = || {
        let output =
            graph.outputs().iter().find(|output| !numbers.contains_key(&egraph.find(classes[output.value.index()])));
        let output = output.or(graph.outputs().first());
        OptimizeError::Unreachable(output.map_or_else(|| Arc::from(""), |output| output.name.clone()))
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
    };
    let (graph, groups) = emission.run(&classes, &offers, &ways, &solution)?;
    Ok(Optimized {
        graph,
        groups,
        e_nodes: egraph.total_number_of_nodes() + offers.len(),
        saturation,
        offers: offers.len(),
        cost: solution.cost,
        certificate,
    })
}

/// A graph as an e-graph.
struct Loaded {
    egraph: EGraph,
    /// The class of every value.
    classes: Vec<Id>,
    /// The value that every leaf stands for.
    leaves: Vec<ValueId>,
}

fn load(graph: &Graph) -> Loaded {
    let mut egraph = EGraph::new(Knowledge::default());
    let mut classes: Vec<Id> = Vec::with_capacity(graph.value_count());
    let mut leaves = Vec::new();
    for (id, value) in graph.values() {
        let class = match &value.def {
            Def::Input(_) | Def::Constant(_) => {
                let tensor = graph.as_constant(id);
                let small = |tensor: &&tcc_ir::Tensor| {
                    tensor.ty().bytes() <= crate::egraph::FOLDED_BYTES && !tensor.data().is_absent()
                };
                let leaf =
                    Leaf { ty: value.ty.clone(), value: tensor.filter(small).cloned(), constant: tensor.is_some() };
                let leaf = egraph.analysis.add_leaf(leaf);
                debug_assert_eq!(leaf.0 as usize, leaves.len());
                leaves.push(id);
                egraph.add(Term::Leaf(leaf))
            }
            Def::Node { node, output } => {
                let node = graph.node(*node);
                let operands: Vec<Id> = node.inputs.iter().map(|input| classes[input.index()]).collect();
                let whole = egraph.add(Term::apply(node.op.clone(), &operands));
                if node.outputs.len() == 1 { whole } else { egraph.add(Term::Output { index: *output, of: [whole] }) }
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

/// How a choice of the problem is carried out.
enum Way {
    /// By a kernel on offer.
    Kernel(usize),
    /// As a view of another class.
    View(Id, Term),
}

/// The problem of extraction, what its choices are, and the numbers of the classes in it.
fn problem(
    census: &Census<'_>,
    egraph: &EGraph,
    model: &dyn CostModel,
    offers: &[Offer],
    demanded: &[Id],
) -> (Problem, Vec<Way>, BTreeMap<Id, usize>) {
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
        let Some(fastest) = offer.tilings.first() else { continue };
        let gives: Vec<usize> = offer.gives.iter().filter_map(number).collect();
        let takes: Option<Vec<usize>> = offer.reads.iter().map(number).collect();
        let Some(takes) = takes else { continue };
        if takes.iter().any(|taken| gives.contains(taken)) {
            continue;
        }
        problem.choices.push(Choice { gives, takes, cost: fastest.cycles.0, writes: true });
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
    (problem, ways, numbers)
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
        for (class, term) in &offer.body {
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
        self.groups.push(Group { anchor: anchor.unwrap_or(Anchor::ElementWise), prologue: nodes, epilogue: rest });
        Ok(())
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
