//! Products and sums that a DSP slice does together.
//!
//! A slice multiplies, of which one factor may be a sum, and adds what comes from the slice before it or from elsewhere (UG579). Vitis HLS
//! puts `a * b + c` and `(a + d) * b + c` into one where these are as narrow as its multiplier and its adders (UG1399, multi-operation
//! matching).

use std::collections::BTreeMap;

use tcc_ir::ops::BinaryFn;

use super::balance::uses;
use super::{Form, InSlice, Kind, Nest, OpId};
use crate::fpga::operators::{ADDERS, Class};

/// Finds them: sums with a product that nothing else needs.
pub(super) fn slices(nest: &Nest) -> BTreeMap<OpId, InSlice> {
    let uses = uses(nest);
    let mut slices = BTreeMap::new();
    let mut home = vec![u32::MAX; nest.ops.len()];
    for (number, block) in (0..).zip(&nest.blocks) {
        block.ops.iter().for_each(|id| home[id.index()] = number);
        for &id in &block.ops {
            let op = &nest.ops[id.index()];
            if !is_sum(nest, id) || op.form.bits() > ADDERS[1] {
                continue;
            }
            // What is there last has the other wait least.
            let product = op.operands.iter().rev().copied().find(|&product| {
                let own = &nest.ops[product.index()];
                home[product.index()] == number
                    && own.copies == op.copies
                    && uses[product.index()] == 1
                    && multiplies(nest, product)
            });
            if let Some(product) = product {
                slices.insert(product, InSlice::Product { sum: op.form.bits() });
                slices.insert(id, InSlice::Sum { product });
                let own = &nest.ops[product.index()];
                let factor = own.operands.iter().copied().find(|&factor| {
                    let sum = &nest.ops[factor.index()];
                    home[factor.index()] == number
                        && sum.copies == own.copies
                        && uses[factor.index()] == 1
                        && is_sum(nest, factor)
                        && sum.form.bits() <= ADDERS[0]
                        && !slices.contains_key(&factor)
                });
                factor.map(|factor| slices.insert(factor, InSlice::Factor));
            }
        }
    }
    slices
}

/// Whether it is a sum of integers.
pub(super) fn is_sum(nest: &Nest, id: OpId) -> bool {
    let op = &nest.ops[id.index()];
    matches!(op.kind, Kind::Binary(BinaryFn::Add, dtype) if !dtype.is_float())
        && matches!(op.form, Form::Integer { .. })
}

/// Whether it is a product of integers that one slice computes.
pub(super) fn multiplies(nest: &Nest, id: OpId) -> bool {
    let op = &nest.ops[id.index()];
    matches!(op.kind, Kind::Binary(BinaryFn::Mul, dtype) if !dtype.is_float())
        && matches!(nest.class(op), class @ Class::Multiply(..) if class.resources().dsps == 1)
}
