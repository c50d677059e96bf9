//! What is known of every class: types, constant values, and whether it follows from constants alone.
//!
//! All terms of a class have the same types. A rule that says otherwise is wrong, and the compilation stops.

use std::collections::HashMap;

use egg::{Analysis, DidMerge, Id};
use smallvec::{SmallVec, smallvec};
use tcc_ir::{OutputTypes, Tensor, TensorType};

use super::EGraph;
use super::term::{LeafId, Term};

/// Most bytes of a constant that the e-graph computes with. What is larger is packed for the machine later, once.
pub const FOLDED_BYTES: usize = 16 << 10;

/// A leaf of a block.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Its type.
    pub ty: TensorType,
    /// Its value, if it is the same wherever the block occurs and small enough to compute with.
    pub value: Option<Tensor>,
    /// Whether it is a constant, if perhaps another one at each place where the block occurs.
    pub constant: bool,
    /// Whether the two halves of its last axis are known to be the same.
    pub equal_halves: bool,
    /// Whether the block has it, and no rule made it.
    pub given: bool,
}

/// What is known of a class.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The types of its results: one, but for operators that have several.
    pub types: OutputTypes,
    /// Its value, if that is a small constant.
    pub value: Option<Tensor>,
    /// Whether it follows from constants alone, so that it can be packed with the weights.
    pub constant: bool,
}

/// A term that contradicts the others of its class, or whose operands its operator refuses: a defect of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Two terms of a class have different types.
    #[error("two forms of one value are {0:?} and {1:?}; this is a defect in a rewriting rule, please report it")]
    Types(OutputTypes, OutputTypes),
    /// The shape rule of an operator refuses its operands.
    #[error("rewriting made a `{op}` that is not possible: {error}; this is a defect in a rule, please report it")]
    Operands {
        /// The operator's name.
        op: &'static str,
        /// What its shape rule says.
        error: String,
    },
}

/// The analysis: the leaves, and the first conflict that was met.
#[derive(Debug, Default)]
pub struct Knowledge {
    leaves: Vec<Leaf>,
    /// Constants that rules made, by type and bytes.
    interned: HashMap<(TensorType, Vec<u8>), LeafId>,
    /// The first conflict.
    pub conflict: Option<Conflict>,
}

impl Knowledge {
    /// Adds a leaf.
    pub fn add_leaf(&mut self, leaf: Leaf) -> LeafId {
        let id = LeafId(self.leaves.len() as u32);
        if let Some(bytes) = leaf.value.as_ref().and_then(|value| value.bytes().ok()) {
            self.interned.entry((leaf.ty.clone(), bytes.to_vec())).or_insert(id);
        }
        self.leaves.push(leaf);
        id
    }

    /// The leaf of a constant, which is added if there is none of this value.
    pub fn constant(&mut self, tensor: &Tensor) -> LeafId {
        let key = tensor.bytes().ok().map(|bytes| (tensor.ty().clone(), bytes.to_vec()));
        match key.and_then(|key| self.interned.get(&key).copied()) {
            Some(id) => id,
            None => self.add_leaf(Leaf {
                ty: tensor.ty().clone(),
                value: Some(tensor.clone()),
                constant: true,
                equal_halves: false,
                given: false,
            }),
        }
    }

    /// The leaf of a constant, if there is one.
    pub fn known(&self, tensor: &Tensor) -> Option<LeafId> {
        self.interned.get(&(tensor.ty().clone(), tensor.bytes().ok()?.to_vec())).copied()
    }

    /// A leaf.
    pub fn leaf(&self, id: LeafId) -> &Leaf {
        &self.leaves[id.0 as usize]
    }

    fn refused(&mut self, conflict: Conflict, types: OutputTypes) -> Facts {
        self.conflict.get_or_insert(conflict);
        Facts { types, value: None, constant: false }
    }
}

/// Whether a value is small enough to compute with.
fn is_small(ty: &TensorType) -> bool {
    ty.bytes() <= FOLDED_BYTES
}

impl Analysis<Term> for Knowledge {
    type Data = Facts;

    fn make(egraph: &mut EGraph, term: &Term, _id: Id) -> Facts {
        match term {
            Term::Leaf(id) => {
                let leaf = egraph.analysis.leaf(*id);
                Facts { types: smallvec![leaf.ty.clone()], value: leaf.value.clone(), constant: leaf.constant }
            }
            Term::Output { index, of } => {
                let whole = &egraph[of[0]].data;
                let ty = whole.types.get(*index).cloned().unwrap_or_else(|| whole.types[0].clone());
                Facts { types: smallvec![ty], value: None, constant: whole.constant }
            }
            Term::Apply { op, operands } => {
                let facts: SmallVec<[&Facts; 3]> = operands.iter().map(|&id| &egraph[id].data).collect();
                let inputs: SmallVec<[&TensorType; 3]> = facts.iter().map(|facts| &facts.types[0]).collect();
                let types = match op.infer(&inputs) {
                    Ok(types) => types,
                    Err(error) => {
                        let types = inputs.first().map(|&ty| ty.clone()).into_iter().collect();
                        let conflict = Conflict::Operands { op: op.name(), error: error.to_string() };
                        drop((inputs, facts));
                        return egraph.analysis.refused(conflict, types);
                    }
                };
                let constant = !facts.is_empty() && facts.iter().all(|facts| facts.constant);
                let values: Option<SmallVec<[&Tensor; 3]>> = facts.iter().map(|facts| facts.value.as_ref()).collect();
                let value = match values {
                    Some(values) if constant && types.len() == 1 && is_small(&types[0]) => {
                        op.eval(&values, &types).ok().and_then(|mut results| results.pop())
                    }
                    _ => None,
                };
                Facts { types, value, constant }
            }
        }
    }

    fn merge(&mut self, to: &mut Facts, from: Facts) -> DidMerge {
        if to.types != from.types {
            self.conflict.get_or_insert(Conflict::Types(to.types.clone(), from.types.clone()));
        }
        // Two ways to compute a constant may round differently; the first stays.
        let learns = (to.value.is_none() && from.value.is_some(), !to.constant && from.constant);
        let teaches = (to.value.is_some() && from.value.is_none(), to.constant && !from.constant);
        if learns.0 {
            to.value = from.value;
        }
        to.constant |= from.constant;
        DidMerge(learns.0 || learns.1, teaches.0 || teaches.1)
    }

    fn modify(egraph: &mut EGraph, id: Id) {
        let class = &egraph[id];
        let Some(value) = class.data.value.clone() else { return };
        if class.nodes.iter().any(|term| matches!(term, Term::Leaf(_))) || value.bytes().is_err() {
            return;
        }
        let leaf = egraph.analysis.constant(&value);
        let constant = egraph.add(Term::Leaf(leaf));
        egraph.union_trusted(id, constant, "constant folding");
    }
}
