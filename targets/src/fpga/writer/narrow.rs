//! Integers of 64 bits that are as narrow as what they hold.
//!
//! A tool puts `a * b + c` into one DSP slice where the types say that the factors are as narrow as its multiplier. So variables of 64
//! bits of which less is known to be used are `ap_int`s of so many bits, and what a slice does stands in one expression of them.

use tcc_ir::DType;

use super::function::Writer;
use crate::fpga::operators::ADDERS;
use crate::fpga::widths::Range;
use crate::kernel::writer::{Binding, Expressions, Language};
use crate::kernel::{Expr, ExprId, Scalar, VarId};

impl Writer<'_> {
    /// Bits with a sign that a variable of 64 bits needs, if a slice can add it.
    fn bits_of(&self, var: VarId) -> Option<u32> {
        let is_wide = self.kernel.vars[var.index()].scalar == Scalar::I64;
        let held = self.schedule.nest.filter(|_| is_wide)?.vars.get(var.index()).copied().flatten()?;
        let bits = held.or(Range::one(-1)).form().bits();
        (bits <= ADDERS[1]).then_some(bits)
    }

    /// The type of a variable.
    pub fn type_of(&self, var: VarId) -> String {
        match self.bits_of(var) {
            Some(bits) => format!("ap_int<{bits}>"),
            None => Language::Hls.scalar(self.kernel.vars[var.index()].scalar).to_owned(),
        }
    }

    /// A variable's text where a register is wanted.
    pub fn as_register(&self, var: VarId, text: String) -> (String, Binding) {
        match self.bits_of(var) {
            Some(_) => (format!("({}){text}", Language::Hls.scalar(Scalar::I64)), Binding::Unary),
            None => (text, Binding::Whole),
        }
    }

    /// What a variable is set to.
    pub fn value(&mut self, id: ExprId) -> String {
        match self.kernel.exprs[id.index()] {
            Expr::MulAdd(DType::I64, operands) if !self.once.contains_key(&id) => {
                let each = operands.map(|operand| self.narrow_text(operand));
                match each {
                    [Some(a), Some(b), Some(c)] => format!("{a} * {b} + {c}"),
                    _ => self.expr(id, Binding::Ternary),
                }
            }
            _ => self.expr(id, Binding::Ternary),
        }
    }

    /// A variable that is narrow, as it is.
    fn narrow_text(&mut self, id: ExprId) -> Option<String> {
        match self.kernel.exprs[id.index()] {
            Expr::Var(var) => self.bits_of(var).map(|_| self.variable(var, None)),
            Expr::Element(var, index) => {
                self.bits_of(var)?;
                let index = self.expr(index, Binding::Ternary);
                Some(self.variable(var, Some(&index)))
            }
            _ => None,
        }
    }
}
