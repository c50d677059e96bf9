//! Floats of integers that are held as they were loaded.

use tcc_ir::DType;

use super::c::Writer;
use super::dialect::Dialect;
use crate::kernel::writer::{Binding, Expressions, Helper};
use crate::kernel::{ExprId, Stmt, Var};

impl Writer<'_> {
    /// Makes floats of the integers of an array.
    pub fn dequantize(&mut self, stmt: &Stmt) {
        let kernel = self.kernel;
        let Stmt::Dequantize { array, packed, first, count, zero, scale, dtype } = *stmt else { return };
        let to = kernel.vars[array.index()].name.as_str();
        let Var { name, packed, .. } = &kernel.vars[packed.index()];
        let Some(stored) = *packed else { return };
        let scale = scale.map(|scale| self.expr(scale, Binding::Unary));
        match self.dialect {
            Dialect::OpenCl => {
                let at = if first == 0 { "slot".to_owned() } else { format!("({first} + slot)") };
                let (element, _) = self.packed_element(name, stored, &at);
                let difference = match zero {
                    None => element,
                    Some(zero) => format!("({element} - {})", self.expr(zero, Binding::Product)),
                };
                let mut value = format!("(float){difference}");
                if let Some(scale) = scale {
                    value = format!("{value} * {scale}");
                }
                let value = match dtype {
                    DType::F16 => format!("{}({value})", self.helper(Helper::RoundF16)),
                    DType::BF16 => {
                        let narrow = self.helper(Helper::ToBf16);
                        format!("{}({narrow}({value}))", self.helper(Helper::FromBf16))
                    }
                    _ => value,
                };
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {to}[slot] = {value};"));
            }
            Dialect::Cuda => self.dequantize_words((to, name), stored, (first, count), (zero, scale), dtype),
        }
    }

    /// The same, word by word.
    fn dequantize_words(
        &mut self,
        (to, from): (&str, &str),
        stored: DType,
        (first, count): (u32, u32),
        (zero, scale): (Option<ExprId>, Option<String>),
        dtype: DType,
    ) {
        let each = 32 / stored.bits() as u32;
        let numbers = match dtype {
            DType::F16 => "Halves",
            DType::BF16 => "Bfloats",
            _ => "Singles",
        };
        let scale = match (scale, dtype) {
            (Some(scale), _) => scale,
            (None, _) => "1.0f".to_owned(),
        };
        let zero = zero.map_or_else(|| "0".to_owned(), |zero| self.expr(zero, Binding::Ternary));
        let integers = match stored {
            DType::I4 => "Integers<4, true>",
            DType::U4 => "Integers<4, false>",
            DType::I8 => "Integers<8, true>",
            _ => "Integers<8, false>",
        };
        for word in 0..count / each {
            let (at, own) = (word * each, first / each + word);
            let target = if at == 0 { to.to_owned() } else { format!("{to} + {at}") };
            self.line(&format!("dequantize<{integers}, {numbers}>({target}, {from}[{own}], {zero}, {scale});"));
        }
    }
}
