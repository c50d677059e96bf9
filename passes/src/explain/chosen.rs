//! The form that was chosen, as terms of the e-graph beside those that came in.

use std::collections::{BTreeMap, BTreeSet};

use egg::{Id, Language};
use tcc_ir::{Graph, ValueId};

use super::KernelExplanation;
use super::proof::rewriting;
use super::writer::{Opaque, Writer};
use crate::egraph::{EGraph, Term};
use crate::kernels::Offer;

/// How a choice of extraction is carried out.
pub(crate) enum Way {
    /// By a kernel on offer.
    Kernel(usize),
    /// As a view of another class.
    View(Id, Term),
}

/// What is known of a block after extraction.
pub(crate) struct Extracted<'a> {
    /// The block.
    pub source: &'a Graph,
    /// The id of every value of the block, as it was loaded.
    pub loaded: &'a [Id],
    /// What the values of the block are called in the model.
    pub names: &'a [String],
    /// The simplest form of every class.
    pub simplest: BTreeMap<Id, Term>,
    pub offers: &'a [Offer],
    /// What was chosen, in an order in which it can run, with the classes that are taken from each.
    pub steps: Vec<(&'a Way, Vec<Id>)>,
}

/// The form that was chosen for a block, being compared with the form that it had.
struct Chosen<'a> {
    /// The block's e-graph, which was told to explain itself.
    egraph: &'a mut EGraph,
    extracted: &'a Extracted<'a>,
    /// The step that gives each class.
    givers: BTreeMap<Id, usize>,
    /// The first value of the block in each class.
    originals: BTreeMap<Id, usize>,
}

/// A term being written.
#[derive(Default)]
struct Draft {
    /// Values of the block that the term was cut at.
    cut: BTreeSet<usize>,
    /// What was written already: classes, within the kernel of a step if that computes them.
    written: BTreeMap<(Option<usize>, Id), Id>,
    /// What is being written.
    open: BTreeSet<(Option<usize>, Id)>,
}

/// Explains every kernel of a block, in the order of its steps.
pub(crate) fn explain(egraph: &mut EGraph, extracted: &Extracted<'_>) -> Vec<KernelExplanation> {
    let mut givers = BTreeMap::new();
    for (step, (_, given)) in extracted.steps.iter().enumerate() {
        givers.extend(given.iter().map(|&class| (class, step)));
    }
    let mut originals: BTreeMap<Id, usize> = BTreeMap::new();
    for (value, &id) in extracted.loaded.iter().enumerate() {
        originals.entry(egraph.find(id)).or_insert(value);
    }
    let mut chosen = Chosen { egraph, extracted, givers, originals };
    let is_kernel = |step: &usize| matches!(extracted.steps[*step].0, Way::Kernel(_));
    (0..extracted.steps.len()).filter(is_kernel).map(|step| chosen.kernel(step)).collect()
}

impl Chosen<'_> {
    fn kernel(&mut self, step: usize) -> KernelExplanation {
        let Extracted { source, loaded, names, .. } = *self.extracted;
        let mut draft = Draft::default();
        let mut pairs: Vec<(usize, Id)> = Vec::new();
        for (value, class) in self.witnesses(step) {
            let within = self.givers.get(&class).copied();
            let chosen = self.write(class, within, true, &mut draft);
            // What is no result of rewriting was written wrongly; there is nothing to tell of it.
            if self.egraph.find(chosen) == self.egraph.find(loaded[value]) {
                pairs.push((value, chosen));
            }
        }
        let proofs: Vec<_> = pairs
            .into_iter()
            .map(|(value, chosen)| (value, self.egraph.explain_id_equivalence(loaded[value], chosen)))
            .collect();
        let leaves = (0..loaded.len()).filter(|&value| source.producer(ValueId::from_index(value)).is_none());
        let opaque: BTreeSet<usize> = leaves.chain(draft.cut).collect();
        let opaque = opaque.into_iter().map(|value| Opaque { id: loaded[value], name: names[value].clone() });
        let mut writer = Writer::new(self.egraph, opaque);
        let mut explanation = KernelExplanation::default();
        for (value, proof) in proofs {
            explanation.push(rewriting(&proof.explanation_trees, &names[value], &mut writer));
        }
        explanation.symbols = writer.symbols;
        explanation
    }

    /// Values of the block by which a kernel can be explained, with their classes: what it gives, or what is a view of
    /// that; if the block has no such value, what the next kernel gives of which it has one.
    fn witnesses(&self, step: usize) -> Vec<(usize, Id)> {
        let Extracted { steps, offers, .. } = self.extracted;
        let mut witnesses: Vec<(usize, Id)> = Vec::new();
        for through_kernels in [false, true] {
            let mut open: BTreeSet<Id> = BTreeSet::new();
            for (way, given) in &steps[step..] {
                let takes = match way {
                    Way::View(_, term) => term.children(),
                    Way::Kernel(offer) if through_kernels => &offers[*offer].reads,
                    Way::Kernel(_) => &[],
                };
                // The first is the kernel itself.
                if !open.is_empty() && !takes.iter().any(|&taken| open.contains(&self.egraph.find(taken))) {
                    continue;
                }
                for &class in given {
                    match self.originals.get(&class) {
                        Some(&value) => witnesses.push((value, class)),
                        None => open.extend([class]),
                    }
                }
                if open.is_empty() || (through_kernels && !witnesses.is_empty()) {
                    break;
                }
            }
            if !witnesses.is_empty() {
                break;
            }
        }
        witnesses.dedup();
        witnesses
    }

    /// Writes a class in the form that was chosen: by the step `within` if that computes it, else as the block has it,
    /// unless that is what is asked for (`top`), else by the step that gives it.
    fn write(&mut self, class: Id, within: Option<usize>, top: bool, draft: &mut Draft) -> Id {
        let class = self.egraph.find(class);
        let own = within.and_then(|step| self.term_of(step, class));
        let key = (if own.is_some() { within } else { None }, class);
        if let (None, false, Some(&value)) = (&own, top, self.originals.get(&class)) {
            draft.cut.insert(value);
            return self.extracted.loaded[value];
        }
        if let Some(&written) = draft.written.get(&key) {
            return written;
        }
        // A form that leads back to itself is not written out a second time.
        if !draft.open.insert(key) {
            return class;
        }
        let written = match (own, self.givers.get(&class)) {
            (Some(term), _) => self.write_term(&term, within, draft),
            (None, Some(&giver)) if within != Some(giver) => self.write(class, Some(giver), top, draft),
            _ => {
                let leaf = self.egraph[class].nodes.iter().find(|term| term.is_leaf());
                match leaf.or_else(|| self.extracted.simplest.get(&class)).cloned() {
                    Some(term) => self.write_term(&term, None, draft),
                    None => class,
                }
            }
        };
        draft.open.remove(&key);
        draft.written.insert(key, written);
        written
    }

    fn write_term(&mut self, term: &Term, within: Option<usize>, draft: &mut Draft) -> Id {
        let mut term = term.clone();
        for child in term.children_mut() {
            *child = self.write(*child, within, false, draft);
        }
        self.egraph.add_uncanonical(term)
    }

    /// The term by which a step computes a class, if it does.
    fn term_of(&self, step: usize, class: Id) -> Option<Term> {
        match self.extracted.steps[step].0 {
            Way::View(of, term) => (self.egraph.find(*of) == class).then(|| term.clone()),
            Way::Kernel(offer) => {
                let body = &self.extracted.offers[*offer].body;
                let in_body = |id: Id| body.iter().rfind(|(own, _)| self.egraph.find(*own) == self.egraph.find(id));
                in_body(class).map(|(_, term)| term.clone()).or_else(|| {
                    let is_result =
                        |term: &&Term| matches!(term, Term::Output { of: [of], .. } if in_body(*of).is_some());
                    self.egraph[class].nodes.iter().find(is_result).cloned()
                })
            }
        }
    }
}
