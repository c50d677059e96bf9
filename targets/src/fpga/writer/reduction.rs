//! What lanes combine: a tree of operators.

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::function::Writer;
use crate::kernel::writer::{Binding, Expressions, Language, wraps};
use crate::kernel::{Scalar, Stmt};
use crate::number::FoldFn;

impl Writer<'_> {
    /// Combines what a variable holds over lanes: in each step the halves of what is left, as the simulator does it for a warp that
    /// has all lanes. All lanes have the result of the first; where the greatest or least is a zero of both signs, the simulator's
    /// other lanes may have that of the other sign.
    pub fn reduce(&mut self, place: usize) {
        let Stmt::Reduce { var, function, dtype, width, .. } = self.kernel.body[place] else { return };
        if !self.is_read(var) {
            return;
        }
        self.note(var);
        let name = self.kernel.vars[var.index()].name.clone();
        let (lane, threads) = (self.fixed().lane.clone(), self.kernel.threads);
        let is_whole = width == threads;
        let mut half = width / 2;
        while half > 0 {
            if is_whole {
                self.line(&format!("for (int {lane} = 0; {lane} < {half}; ++{lane}) {{"));
                self.depth += 1;
                self.pragma("UNROLL");
            } else {
                self.open_lanes();
                self.line(&format!("if ({lane} % {width} < {half}) {{"));
                self.depth += 1;
            }
            let (a, b) = (format!("{name}[{lane}]"), format!("{name}[{lane} + {half}]"));
            let value = self.combined(function, dtype, &a, &b);
            self.line(&format!("{a} = {value};"));
            self.depth -= 1;
            self.line("}");
            if !is_whole {
                self.depth -= 1;
                self.line("}");
            }
            half /= 2;
        }
        if self.sameness.settles(var, place) {
            let (ty, all) = (Language::Hls.scalar(self.kernel.vars[var.index()].scalar), self.name_of_all(var));
            return self.line(&format!("const {ty} {all} = {name}[0];"));
        }
        self.open_lanes();
        let first = if is_whole { "0".to_owned() } else { format!("{lane} / {width} * {width}") };
        self.line(&format!("{name}[{lane}] = {name}[{first}];"));
        self.depth -= 1;
        self.line("}");
    }

    /// Two numbers in one, as `combine` of the simulator's numbers does it.
    fn combined(&mut self, function: FoldFn, dtype: DType, a: &str, b: &str) -> String {
        let sign = match function {
            FoldFn::Sum | FoldFn::Dot => "+",
            FoldFn::Product => "*",
            FoldFn::Max | FoldFn::Min if dtype.is_float() => {
                let sign = if function == FoldFn::Max { ">" } else { "<" };
                return format!("std::isnan({a}) || {a} {sign} {b} ? {a} : {b}");
            }
            FoldFn::Max => return self.chosen(BinaryFn::Max, dtype, a, b),
            FoldFn::Min => return self.chosen(BinaryFn::Min, dtype, a, b),
        };
        if dtype.is_float() {
            return format!("{a} {sign} {b}");
        }
        let unsigned = Language::Hls.unsigned(Scalar::of(dtype));
        let (value, _) = match wraps(dtype) {
            true => self.signed(dtype, format!("({unsigned}){a} {sign} {b}")),
            false => self.narrowed(dtype, (format!("{a} {sign} {b}"), Binding::Sum)),
        };
        value
    }
}
