//! Floats of integers that are held as they were loaded.

use super::super::code::{Code, NOTHING, Slot, Source};
use super::super::recipe::{self, Dequantized, Recipe};
use super::super::resource::Unit;
use super::Compiler;
use tcc_ir::DType;

use crate::kernel::{Expr, ExprId, Stmt};

impl Compiler<'_> {
    /// Expands the statement word by word, pair by pair.
    pub(super) fn dequantize(&mut self, stmt: &Stmt) {
        let Stmt::Dequantize { array, packed, first: _, count, zero, scale, dtype } = *stmt else { return };
        let from = self.kernel.vars[packed.index()].packed.unwrap_or(DType::U8);
        let held = self.vars[packed.index()];
        let Dequantized { shared, pair, scaled, single } = recipe::dequantized(from, dtype, scale.is_some());
        // A zero point that is known becomes a part of instructions.
        let is_known = |id: &ExprId| matches!(self.kernel.exprs[id.index()], Expr::Number(..) | Expr::Integer(_));
        let zero = zero.filter(|zero| !is_known(zero)).map(|zero| self.prepared(zero, recipe::ZERO_PAIRS));
        let scale = scale.map(|scale| match scaled.is_empty() {
            true => self.demand(scale),
            false => self.prepared(scale, recipe::SCALE_PAIR),
        });
        let (zero, scale) = (zero.unwrap_or(NOTHING), scale.unwrap_or(NOTHING));
        let registers = self.kernel.vars[array.index()].scalar.registers();
        // Step by step for all words and pairs, as compilers order what does not wait for each other.
        let each = 32 / from.bits() as u32;
        let words: Vec<Slot> = (0..count / each).map(|_| self.stepped(shared, held)).collect();
        let pairs = words.iter().flat_map(|&word| std::iter::repeat_n(word, each as usize / 2));
        let mut pairs: Vec<Slot> = pairs.collect();
        for &(unit, instructions) in pair.iter().chain(scaled) {
            let other = if unit == Unit::I32 { NOTHING } else { zero };
            for _ in 0..instructions {
                for slot in &mut pairs {
                    let next = self.made();
                    self.issue(unit, [*slot, other, scale], next, None);
                    *slot = next;
                }
            }
        }
        let single_scale = if scaled.is_empty() { scale } else { NOTHING };
        for (number, &both) in pairs.iter().enumerate() {
            for half in 0..2 {
                let slot = self.vars[array.index()] + 2 * number as u32 + half;
                self.begin(slot, registers);
                self.chain(single, [both, single_scale, NOTHING], slot);
                if self.analysis.is_needed_var[array.index()] {
                    self.emit(Code::Copy { from: Source::Data, to: slot, is_new: true });
                }
            }
        }
        self.forget(array);
    }

    /// What instructions make of a slot, or that itself.
    fn stepped(&mut self, recipe: Recipe, from: Slot) -> Slot {
        if recipe.is_empty() {
            return from;
        }
        let slot = self.made();
        self.chain(recipe, [from, NOTHING, NOTHING], slot);
        slot
    }

    /// A new slot of one register.
    fn made(&mut self) -> Slot {
        let slot = self.slot();
        self.begin(slot, 1);
        slot
    }

    /// What instructions make of an expression, as long as that stays what it is.
    fn prepared(&mut self, id: ExprId, recipe: Recipe) -> Slot {
        if let Some(&known) = self.prepared.get(&id) {
            let at = self.here();
            self.lives.touch(known, at);
            return known;
        }
        let from = self.demand(id);
        let slot = self.made();
        self.chain(recipe, [from, NOTHING, NOTHING], slot);
        self.prepared.insert(id, slot);
        slot
    }
}
