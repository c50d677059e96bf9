//! Kernels on offer: what could be run as one unit, for every class that an anchor or element-wise work computes.
//!
//! A kernel starts as one operator and grows towards its users, one element-wise or row-wise operator at a time, as long
//! as the target can run it; an attention first grows towards its operands. Users of a slice along the last axis are users
//! of the kernel's value: the slice is read where the whole lies. Every stage of growth is an offer: extraction chooses
//! where to cut.

use std::collections::{BTreeMap, BTreeSet};

use egg::Id;
use tcc_ir::{Anchor, Cycles, Graph, GraphError, NodeId, Op, ValueId, is_view};

use crate::assemble::{Group, anchor_of};
use crate::cost::CostModel;
use crate::egraph::{EGraph, Term, Terms};
use crate::legalize::Verdict;

/// Most operators in one kernel.
const MOST_NODES: usize = 24;

/// A kernel that could be run.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its operators, operands before users: each with its class. Views among them, all behind the anchor, are read and not
    /// computed.
    pub body: Vec<(Id, Term)>,
    /// How many of them come before the anchor.
    pub prologue: usize,
    /// Whether the operator after the prologue is an anchor; else all is element-wise.
    pub anchored: bool,
    /// The classes that it reads from memory, constants left out.
    pub reads: Vec<Id>,
    /// The classes that it computes and could write.
    pub gives: Vec<Id>,
    /// What it takes, with what it reads but without what it writes.
    pub cost: Cycles,
}

/// What is known of the classes before kernels are offered.
pub struct Census<'a> {
    terms: Terms<'a>,
    /// All classes, canonical, in an order in which the simplest form of each comes after its operands.
    pub order: Vec<Id>,
    place: BTreeMap<Id, usize>,
    /// For every class the terms that use it, with their classes.
    users: BTreeMap<Id, Vec<(Id, &'a Term)>>,
    /// The simplest form of every class.
    pub simplest: BTreeMap<Id, &'a Term>,
}

impl<'a> Census<'a> {
    /// Looks at a saturated e-graph.
    pub fn new(egraph: &'a EGraph) -> Self {
        let terms = Terms(egraph);
        let mut classes: Vec<Id> = egraph.classes().map(|class| class.id).collect();
        classes.sort_unstable();
        let mut size: BTreeMap<Id, u64> = BTreeMap::new();
        let mut simplest: BTreeMap<Id, &Term> = BTreeMap::new();
        loop {
            let mut changed = false;
            for &class in &classes {
                for term in &egraph[class].nodes {
                    let operands: Option<u64> = egg::Language::children(term)
                        .iter()
                        .try_fold(1u64, |sum, &child| Some(sum.saturating_add(*size.get(&egraph.find(child))?)));
                    let Some(own) = operands else { continue };
                    if size.get(&class).is_none_or(|&known| own < known) {
                        size.insert(class, own);
                        simplest.insert(class, term);
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        let mut order: Vec<Id> = classes.iter().copied().filter(|class| size.contains_key(class)).collect();
        order.sort_by_key(|class| (size[class], *class));
        let place = order.iter().enumerate().map(|(place, &class)| (class, place)).collect();
        let mut users: BTreeMap<Id, Vec<(Id, &Term)>> = BTreeMap::new();
        for &class in &classes {
            for term in &egraph[class].nodes {
                let mut children: Vec<Id> =
                    egg::Language::children(term).iter().map(|&child| egraph.find(child)).collect();
                children.sort_unstable();
                children.dedup();
                children.into_iter().for_each(|child| users.entry(child).or_default().push((class, term)));
            }
        }
        Census { terms, order, place, users, simplest }
    }

    /// The operators that use a value, or a part of its rows, with their classes.
    fn users(&self, class: Id) -> impl Iterator<Item = (Id, &'a Term)> + '_ {
        let users = |class: &Id| self.users.get(class).into_iter().flatten().copied();
        let parts = users(&class).filter(move |(_, term)| self.is_part(term)).map(|(part, _)| part);
        users(&class).chain(parts.collect::<Vec<_>>().into_iter().flat_map(move |part| users(&part)))
    }

    /// Whether a term is a part of the rows of its operand.
    fn is_part(&self, term: &Term) -> bool {
        let Term::Apply { op: Op::Slice(slice), operands } = term else { return false };
        let whole = self.terms.shape(operands[0]);
        slice.cut_axis(whole).is_some_and(|axis| axis + 1 == whole.rank())
    }

    fn place(&self, class: Id) -> usize {
        self.place.get(&class).copied().unwrap_or(usize::MAX)
    }

    /// Whether the simplest way to `class` leads through one of `body`.
    fn depends_on(&self, class: Id, body: &BTreeMap<Id, ValueId>) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![self.terms.0.find(class)];
        while let Some(class) = open.pop() {
            if body.contains_key(&class) {
                return true;
            }
            if seen.insert(class)
                && let Some(term) = self.simplest.get(&class)
            {
                open.extend(egg::Language::children(*term).iter().map(|&child| self.terms.0.find(child)));
            }
        }
        false
    }
}

/// A kernel that may still grow.
#[derive(Clone)]
struct Draft {
    graph: Graph,
    /// What each class that the kernel reads or computes is in the graph.
    values: BTreeMap<Id, ValueId>,
    /// The classes that it computes.
    own: BTreeMap<Id, ValueId>,
    body: Vec<(Id, Term)>,
    group: Group,
    reads: Vec<Id>,
    gives: Vec<Id>,
}

impl Draft {
    fn new() -> Self {
        let group = Group { anchor: Anchor::ElementWise, prologue: Vec::new(), epilogue: Vec::new(), segment: 0 };
        Draft {
            graph: Graph::new(""),
            values: BTreeMap::new(),
            own: BTreeMap::new(),
            body: Vec::new(),
            group,
            reads: Vec::new(),
            gives: Vec::new(),
        }
    }

    /// Adds an operator, after what it reads of rows of the kernel's own, and returns its node.
    fn join(&mut self, census: &Census<'_>, class: Id, term: &Term) -> Result<NodeId, GraphError> {
        for &operand in egg::Language::children(term) {
            let operand = census.terms.0.find(operand);
            let of_own = |term: &&Term| {
                let whole = egg::Language::children(*term).first();
                whole.is_some_and(|&whole| self.own.contains_key(&census.terms.0.find(whole))) && census.is_part(term)
            };
            if !self.values.contains_key(&operand)
                && let Some(part) = census.terms.0[operand].nodes.iter().find(of_own)
            {
                self.add(census.terms, operand, part)?;
            }
        }
        self.add(census.terms, class, term)
    }

    /// Adds an operator and returns its node.
    fn add(&mut self, terms: Terms<'_>, class: Id, term: &Term) -> Result<NodeId, GraphError> {
        let Term::Apply { op, operands } = term else { unreachable!("only operators are computed") };
        let inputs: Vec<ValueId> = operands.iter().map(|&operand| self.operand(terms, operand)).collect();
        let outputs = self.graph.add_multi(op.clone(), &inputs)?;
        let node = NodeId::from_index(self.graph.node_count() - 1);
        if is_view(op) {
            // What it is a part of may be written, or what is computed from it.
            self.values.insert(class, outputs[0]);
        } else if outputs.len() == 1 {
            self.values.insert(class, outputs[0]);
            self.own.insert(class, outputs[0]);
            self.gives.push(class);
        } else {
            // The class stands for all results; each has one of its own.
            for (number, &output) in outputs.iter().enumerate() {
                if let Some(id) = terms.0.lookup(Term::Output { index: number, of: [class] }) {
                    let id = terms.0.find(id);
                    self.values.insert(id, output);
                    self.own.insert(id, output);
                    self.gives.push(id);
                }
            }
        }
        self.body.push((class, term.clone()));
        Ok(node)
    }

    fn operand(&mut self, terms: Terms<'_>, operand: Id) -> ValueId {
        let class = terms.0.find(operand);
        if let Some(&value) = self.values.get(&class) {
            return value;
        }
        let value = match terms.value(class) {
            Some(tensor) => self.graph.constant(tensor.clone()),
            None => self.graph.add_input("", terms.ty(class).clone()),
        };
        self.values.insert(class, value);
        if !terms.is_constant(class) {
            self.reads.push(class);
        }
        value
    }

    /// The kernel with only what its last operator needs; `None` if that is all.
    fn pruned(&self, terms: Terms<'_>) -> Option<Draft> {
        let mut needed = vec![false; self.body.len()];
        let mut open = vec![self.body.len() - 1];
        while let Some(place) = open.pop() {
            if std::mem::replace(&mut needed[place], true) {
                continue;
            }
            for &child in egg::Language::children(&self.body[place].1) {
                let class = terms.0.find(child);
                open.extend(self.body[..place].iter().rposition(|(own, _)| *own == class));
            }
        }
        // The anchor stays what it is.
        let anchor = self.group.prologue.len();
        needed[anchor] |= self.group.anchor.node().is_some();
        if needed.iter().all(|&needed| needed) {
            return None;
        }
        let mut pruned = Draft::new();
        for (place, (class, term)) in self.body.iter().enumerate().filter(|(place, _)| needed[*place]) {
            let node = pruned.add(terms, *class, term).ok()?;
            if place < anchor {
                pruned.group.prologue.push(node);
            } else if place == anchor && self.group.anchor.node().is_some() {
                pruned.group.anchor = self.group.anchor.clone();
                *pruned.group.anchor.node_mut()? = node;
            } else if !matches!(term, Term::Apply { op, .. } if is_view(op)) {
                pruned.group.epilogue.push(node);
            }
        }
        Some(pruned)
    }

    fn offer(&self, cost: Cycles) -> Offer {
        Offer {
            body: self.body.clone(),
            prologue: self.group.prologue.len(),
            anchored: self.group.anchor.node().is_some(),
            reads: self.reads.clone(),
            gives: self.gives.clone(),
            cost,
        }
    }

    /// What the target says that it takes; `None` if it cannot be run.
    fn cost(&self, model: &dyn CostModel) -> Option<Cycles> {
        model.kernel_cost(&self.graph, &self.group)
    }
}

/// Whether an operator may join a kernel of others: element-wise, or along rows.
fn may_join(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::Select(_)
            | Op::Cast(_)
            | Op::Gelu(_)
            | Op::Reduce(_)
            | Op::Softmax(_)
            | Op::LayerNorm(_)
            | Op::RmsNorm(_)
    )
}

/// All kernels that could be run.
pub fn offers(census: &Census<'_>, model: &dyn CostModel) -> Vec<Offer> {
    let mut offers = Vec::new();
    for &class in &census.order {
        if census.terms.is_constant(class) {
            continue;
        }
        for term in &census.terms.0[class].nodes {
            let Term::Apply { op, .. } = term else { continue };
            if !is_view(op) && judged(census.terms, model, term) {
                offer_from(census, model, class, term, &mut offers);
            }
        }
    }
    offers
}

/// Whether the target runs an operator as it is.
fn judged(terms: Terms<'_>, model: &dyn CostModel, term: &Term) -> bool {
    let Term::Apply { op, operands } = term else { return false };
    let (graph, inputs) = with_operands(terms, operands);
    matches!(model.judge(&graph, op, &inputs), Verdict::Keep)
}

/// A graph of nothing but operands.
pub(crate) fn with_operands(terms: Terms<'_>, operands: &[Id]) -> (Graph, Vec<ValueId>) {
    let mut graph = Graph::new("");
    let inputs = operands.iter().map(|&operand| match terms.value(operand) {
        Some(tensor) => graph.constant(tensor.clone()),
        None => graph.add_input("", terms.ty(operand).clone()),
    });
    let inputs = inputs.collect();
    (graph, inputs)
}

fn offer_from(census: &Census<'_>, model: &dyn CostModel, class: Id, term: &Term, offers: &mut Vec<Offer>) {
    let Term::Apply { op, .. } = term else { return };
    let mut draft = Draft::new();
    let Ok(node) = draft.add(census.terms, class, term) else { return };
    let grows = match anchor_of(node, op) {
        _ if matches!(op, Op::Gelu(_)) => true,
        None => true,
        Some(anchor) => {
            draft.group.anchor = anchor;
            !matches!(draft.group.anchor, Anchor::Movement(_) | Anchor::Selection(_))
        }
    };
    if draft.group.anchor == Anchor::ElementWise {
        draft.group.epilogue.push(node);
    }
    offers.extend(draft.cost(model).map(|cost| draft.offer(cost)));
    if matches!(op, Op::Attention(_)) {
        for draft in with_prologue(census, model, class, term, offers) {
            grow(census, model, draft, offers);
        }
    } else if grows && !offers.is_empty() {
        grow(census, model, draft, offers);
    }
}

/// Lets a kernel grow towards its users, and offers every stage.
fn grow(census: &Census<'_>, model: &dyn CostModel, mut draft: Draft, offers: &mut Vec<Offer>) {
    let terms = census.terms;
    let mut refused: BTreeSet<Id> = BTreeSet::new();
    while draft.body.len() < MOST_NODES {
        let mut next: BTreeMap<usize, (Id, Vec<&Term>)> = BTreeMap::new();
        for &own in draft.own.keys() {
            for (user, term) in census.users(own) {
                let Term::Apply { op, .. } = term else { continue };
                let outside = terms.is_constant(user) || draft.values.contains_key(&user) || refused.contains(&user);
                if may_join(op) && !outside {
                    next.entry(census.place(user)).or_insert((user, Vec::new())).1.push(term);
                }
            }
        }
        let mut grown = None;
        for (user, forms) in next.into_values() {
            let mut best: Option<(Draft, Cycles)> = None;
            for term in forms {
                let Term::Apply { operands, .. } = term else { continue };
                if !judged(terms, model, term) {
                    continue;
                }
                let mut larger = draft.clone();
                let Ok(node) = larger.join(census, user, term) else { continue };
                let from_outside = |&&operand: &&Id| larger.reads.contains(&terms.0.find(operand));
                if operands.iter().filter(from_outside).any(|&operand| census.depends_on(operand, &draft.own)) {
                    continue;
                }
                larger.group.epilogue.push(node);
                let Some(cost) = larger.cost(model) else { continue };
                let better = |(known, of): &(Draft, Cycles)| (cost, larger.reads.len()) < (*of, known.reads.len());
                if best.as_ref().is_none_or(better) {
                    best = Some((larger, cost));
                }
            }
            if best.is_some() {
                grown = best;
                break;
            }
            refused.insert(user);
        }
        let Some((larger, cost)) = grown else { return };
        // What the newest operator does not need may not be worth computing.
        let pruned = larger.pruned(terms);
        offers.extend(pruned.and_then(|pruned| Some(pruned.offer(pruned.cost(model)?))));
        offers.push(larger.offer(cost));
        draft = larger;
    }
}

/// An attention with more and more of what makes its operands.
fn with_prologue(
    census: &Census<'_>,
    model: &dyn CostModel,
    class: Id,
    term: &Term,
    offers: &mut Vec<Offer>,
) -> Vec<Draft> {
    let terms = census.terms;
    let Term::Apply { operands, .. } = term else { return Vec::new() };
    let mut prologue: Vec<(Id, Term)> = Vec::new();
    let mut best: Vec<Draft> = Vec::new();
    let build = |prologue: &[(Id, Term)]| -> Option<Draft> {
        let mut draft = Draft::new();
        for (class, term) in prologue {
            let node = draft.add(terms, *class, term).ok()?;
            draft.group.prologue.push(node);
        }
        let node = draft.add(terms, class, term).ok()?;
        draft.group.anchor = Anchor::Attention(node);
        Some(draft)
    };
    best.extend(build(&[]).filter(|draft| draft.cost(model).is_some()));
    // Keys and values first: they are what is read again and again.
    for &operand in [1, 2, 0].iter().filter_map(|&place| operands.get(place)) {
        let mut open = vec![terms.0.find(operand)];
        while let Some(made) = open.pop() {
            if prologue.iter().any(|(known, _)| *known == made) || terms.is_constant(made) {
                continue;
            }
            let forms = terms.0[made].nodes.iter().filter_map(|term| match term {
                Term::Apply { op, operands } => prologue_rank(op).map(|rank| (rank, term, operands)),
                _ => None,
            });
            let mut forms: Vec<_> = forms.collect();
            forms.sort_by_key(|(rank, term, _)| (*rank, *term));
            for (_, form, sources) in forms {
                let mut longer = vec![(made, form.clone())];
                longer.extend(prologue.iter().cloned());
                let Some(draft) = build(&longer) else { continue };
                if let Some(cost) = draft.cost(model) {
                    offers.push(draft.offer(cost));
                    best = vec![draft];
                    prologue = longer;
                    open.extend(sources.iter().rev().map(|&source| terms.0.find(source)));
                    break;
                }
            }
        }
    }
    best
}

/// Which operators may make the operands of an attention; of several forms the one with the least number is tried first.
fn prologue_rank(op: &Op) -> Option<usize> {
    match op {
        Op::Rope(_) => Some(0),
        Op::Concat(_) => Some(1),
        Op::RmsNorm(_) => Some(2),
        Op::Unary(_) | Op::Binary(_) | Op::Cast(_) => Some(3),
        _ => None,
    }
}
