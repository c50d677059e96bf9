//! What an attention computes of each score, whatever kernel it is in.

use tcc_ir::ops::{Attention, AttentionDims, BinaryFn, UnaryFn};
use tcc_ir::{DType, Node, Op, ValueId};

use super::SUM;
use crate::kernel::{ExprId, IndexFn, Scalar};
use crate::lower::elements::{Coords, Elements, defect};
use crate::target::TargetError;

/// An attention, and what it is of. Rows are the queries of all heads that share keys, head by head.
#[derive(Clone, Debug)]
pub(super) struct Heads {
    pub op: Attention,
    pub dims: AttentionDims,
    /// Queries, keys, values, and the mask if there is one.
    pub inputs: Vec<ValueId>,
    pub output: ValueId,
}

/// Where a score stands: indices of its batch, head, query and key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub batch: ExprId,
    pub head: ExprId,
    pub query: ExprId,
    pub key: ExprId,
}

impl Heads {
    /// The attention that a node is.
    ///
    /// # Errors
    /// A defect: it is none.
    pub fn of(elements: &Elements<'_>, node: &Node) -> Result<Heads, TargetError> {
        let Op::Attention(op) = &node.op else { return Err(defect("this is no attention")) };
        let types = elements.graph().input_types(node);
        let dims = Attention::dims(types[0], types[1], types[2]).map_err(|error| defect(&error.to_string()))?;
        Ok(Heads { op: *op, dims, inputs: node.inputs.to_vec(), output: node.output() })
    }

    /// Rows that share keys.
    pub fn rows(&self) -> usize {
        self.dims.heads / self.dims.groups * self.dims.queries
    }

    /// The head and the query of a row of a group, by its number.
    pub fn query(&self, elements: &mut Elements<'_>, group: ExprId, number: ExprId) -> (ExprId, ExprId) {
        let shared = self.dims.heads / self.dims.groups;
        let builder = &mut elements.builder;
        let before = builder.scaled(group, shared as i32);
        // What is counted over one element is known.
        let zero = builder.integer(0);
        let (head, query) = match (shared, self.dims.queries) {
            (1, _) => (zero, number),
            (_, 1) => (number, zero),
            (_, queries) => builder.divided(number, queries as i32),
        };
        (builder.add(before, head), query)
    }

    /// The number of a row, or of the last row if there are not so many.
    pub fn row(&self, elements: &mut Elements<'_>, first: ExprId, row: ExprId, of_block: usize) -> ExprId {
        let builder = &mut elements.builder;
        let number = builder.add(first, row);
        if self.rows().is_multiple_of(of_block) {
            return number;
        }
        let last = builder.integer(self.rows() as i32 - 1);
        builder.index(IndexFn::Min, number, last)
    }

    /// The element of the mask at a score, as the number or the truth that it is.
    ///
    /// # Errors
    /// A defect: it cannot be computed element by element.
    pub fn mask(&self, elements: &mut Elements<'_>, place: Place) -> Result<Option<ExprId>, TargetError> {
        if !self.op.mask {
            return Ok(None);
        }
        let Place { batch, head, query, key } = place;
        elements.broadcast_element(self.inputs[3], &[batch, head, query, key]).map(Some)
    }

    /// What a register holds of the mask.
    pub fn mask_scalar(&self, elements: &Elements<'_>) -> Option<Scalar> {
        self.op.mask.then(|| Scalar::of(elements.graph().ty(self.inputs[3]).dtype))
    }

    /// Whether the mask is the same for all rows.
    pub fn masks_keys_alone(&self, elements: &Elements<'_>) -> bool {
        self.op.mask && {
            let shape = elements.graph().shape(self.inputs[3]);
            let lead = &shape.dims()[..shape.rank().saturating_sub(1)];
            lead.iter().rev().take(2).all(|&size| size == 1)
        }
    }

    /// A score as the softmax takes it: bent by the cap, and nothing where its row does not look.
    pub fn score(
        &self,
        elements: &mut Elements<'_>,
        product: ExprId,
        mask: Option<ExprId>,
        place: (ExprId, ExprId),
    ) -> ExprId {
        let score = self.bent(elements, product, mask);
        self.seen(elements, score, place)
    }

    /// A product of a query and a key, scaled already, as cap and mask leave it.
    pub fn bent(&self, elements: &mut Elements<'_>, product: ExprId, mask: Option<ExprId>) -> ExprId {
        let builder = &mut elements.builder;
        let mut score = product;
        if self.op.softcap.0 != 0.0 {
            let cap = builder.float(SUM, self.op.softcap.0);
            let small = builder.binary(BinaryFn::Div, SUM, score, cap);
            let bent = builder.unary(UnaryFn::Tanh, SUM, small);
            score = builder.binary(BinaryFn::Mul, SUM, bent, cap);
        }
        if let Some(mask) = mask {
            let dtype = elements.graph().ty(self.inputs[3]).dtype;
            let builder = &mut elements.builder;
            let least = builder.float(SUM, f64::NEG_INFINITY);
            score = match dtype {
                DType::Bool => builder.select(mask, score, least),
                _ => builder.binary(BinaryFn::Add, SUM, score, mask),
            };
        }
        score
    }

    /// A score, or nothing where its row is too early or too late to see its key.
    pub fn seen(&self, elements: &mut Elements<'_>, score: ExprId, (query, key): (ExprId, ExprId)) -> ExprId {
        let Some(causal) = self.op.causal else { return score };
        // What lies beyond all keys is as good as infinitely far.
        let far = (self.dims.keys + self.dims.queries) as i64;
        let builder = &mut elements.builder;
        let offset = builder.integer(causal.clamp(-far, far) as i32);
        let last = builder.add(query, offset);
        let mut visible = builder.index(IndexFn::Ge, last, key);
        if let Some(window) = self.op.window {
            let offset = builder.integer(causal.saturating_sub(window).clamp(-far - 1, far) as i32);
            let before = builder.add(query, offset);
            let near = builder.index(IndexFn::Lt, before, key);
            visible = builder.index(IndexFn::And, visible, near);
        }
        let least = builder.float(SUM, f64::NEG_INFINITY);
        builder.select(visible, score, least)
    }

    /// The keys that rows from one query to another may see: the first, and what comes after the last. Nothing of it if all may be
    /// seen, or that is not known.
    pub fn visible(
        &self,
        elements: &mut Elements<'_>,
        (first, last): (ExprId, ExprId),
    ) -> (Option<ExprId>, Option<ExprId>) {
        let Some(causal) = self.op.causal else { return (None, None) };
        let far = (self.dims.keys + self.dims.queries) as i64;
        let builder = &mut elements.builder;
        let after = builder.integer((causal.saturating_add(1)).clamp(-far, far) as i32);
        let end = builder.add(last, after);
        let begin = self.op.window.map(|window| {
            let offset = builder.integer((causal.saturating_sub(window).saturating_add(1)).clamp(-far - 1, far) as i32);
            let begin = builder.add(first, offset);
            let zero = builder.integer(0);
            builder.index(IndexFn::Max, begin, zero)
        });
        (begin, Some(end))
    }

    /// Writes an element of the result, and what follows from it.
    ///
    /// # Errors
    /// A defect: an output cannot be computed from it.
    pub fn write(
        &self,
        elements: &mut Elements<'_>,
        coords: [ExprId; 4],
        (sum, total): (ExprId, ExprId),
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let result = self.divided(elements, sum, total);
        let result = elements.builder.keep("y", Scalar::F32, result);
        let coords: Coords = coords.into_iter().collect();
        elements.hold(self.output, &coords, result);
        outputs.iter().try_for_each(|&output| elements.store(output, &coords))
    }

    /// A sum of weighted values by the sum of the weights.
    fn divided(&self, elements: &mut Elements<'_>, sum: ExprId, total: ExprId) -> ExprId {
        let builder = &mut elements.builder;
        let result = builder.binary(BinaryFn::Div, SUM, sum, total);
        if !self.op.zero_masked_rows {
            return result;
        }
        let zero = builder.float(SUM, 0.0);
        let nothing = builder.binary(BinaryFn::Eq, SUM, total, zero);
        builder.select(nothing, zero, result)
    }
}
