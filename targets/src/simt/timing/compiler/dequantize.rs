//! Floats of integers that are held as they were loaded.

use super::super::code::{Code, NOTHING, Slot, Source};
use super::super::recipe::{self, Dequantized};
use super::Compiler;
use tcc_ir::DType;

use crate::simt::kernel::{Expr, ExprId, Stmt};

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
        let each = 32 / from.bits() as u32;
        for word in 0..count / each {
            let mut source = held;
            if !shared.is_empty() {
                source = self.made();
                self.chain(shared, [held, NOTHING, NOTHING], source);
            }
            for number in 0..each / 2 {
                let both = self.made();
                self.chain(pair, [source, zero, NOTHING], both);
                let rounded = if scaled.is_empty() { both } else { self.made() };
                if !scaled.is_empty() {
                    self.chain(scaled, [both, scale, NOTHING], rounded);
                }
                for half in 0..2 {
                    let slot = self.vars[array.index()] + word * each + 2 * number + half;
                    self.begin(slot, registers);
                    self.chain(single, [rounded, if scaled.is_empty() { scale } else { NOTHING }, NOTHING], slot);
                    if self.analysis.is_needed_var[array.index()] {
                        self.emit(Code::Copy { from: Source::Data, to: slot });
                    }
                }
            }
        }
        self.forget(array);
    }

    /// A new slot of one register.
    fn made(&mut self) -> Slot {
        let slot = self.slot();
        self.begin(slot, 1);
        slot
    }

    /// What instructions make of an expression, as long as that stays what it is.
    fn prepared(&mut self, id: ExprId, recipe: recipe::Recipe) -> Slot {
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
