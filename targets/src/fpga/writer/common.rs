//! Expressions that are the same for all lanes: they are computed once, before the run of statements that reads them.

use super::function::Writer;
use crate::kernel::writer::{Binding, Expressions, Language};
use crate::kernel::{Expr, ExprId, Stmt};

impl Writer<'_> {
    /// Gives expressions that are the same for all lanes a name before a run.
    pub fn name_once(&mut self, places: &[usize]) {
        if self.kernel.threads == 1 {
            return;
        }
        for &place in places {
            self.inner.clear();
            let body = &self.kernel.body[place..self.after(place)];
            for stmt in body {
                if let Stmt::For { var, .. } = *stmt {
                    self.inner.insert(var);
                }
            }
            let is_nested = body.len() > 1 || self.is_masked();
            for (offset, stmt) in body.iter().enumerate() {
                if self.is_idle(place + offset) {
                    continue;
                }
                self.place = place + offset;
                let operands: Vec<ExprId> = values(stmt).collect();
                for operand in operands {
                    self.name_parts(operand, is_nested);
                }
            }
        }
        self.inner.clear();
    }

    /// Names the parts of an expression that are the same for all lanes and take something to compute.
    pub fn name_parts(&mut self, id: ExprId, is_nested: bool) {
        let kernel = self.kernel;
        if self.once.contains_key(&id) {
            return;
        }
        let expr = kernel.exprs[id.index()];
        let takes = match expr {
            Expr::Unary(..) | Expr::Binary(..) | Expr::MulAdd(..) => true,
            Expr::Convert(_, to, _) => to.is_float(),
            Expr::Load(..) | Expr::LoadShared(..) => !is_nested,
            Expr::Integer(_)
            | Expr::Number(..)
            | Expr::Thread
            | Expr::Block(_)
            | Expr::BlockNumber
            | Expr::Var(_)
            | Expr::Element(..)
            | Expr::Index(..)
            | Expr::Select(_) => false,
        };
        if takes && !self.sameness.at(id, self.place) && self.is_there(id, is_nested) {
            let (ty, value) = (Language::Hls.scalar(self.scalars[id.index()]), self.expr(id, Binding::Ternary));
            let name = self.unique("same");
            self.line(&format!("const {ty} {name} = {value};"));
            self.once.insert(id, name);
            return;
        }
        // Where an element lies is written in other words.
        if expr.address().is_none() {
            expr.operands().for_each(|operand| self.name_parts(operand, is_nested));
        }
    }

    /// Whether all that an expression reads is there before the run.
    pub fn is_there(&self, id: ExprId, is_nested: bool) -> bool {
        let expr = &self.kernel.exprs[id.index()];
        let is_own = match expr {
            Expr::Var(var) | Expr::Element(var, _) => !self.inner.contains(var),
            Expr::Load(..) | Expr::LoadShared(..) => !is_nested,
            _ => true,
        };
        is_own && expr.operands().all(|operand| self.is_there(operand, is_nested))
    }
}

/// The expressions of a statement that are values rather than places.
fn values(stmt: &Stmt) -> impl Iterator<Item = ExprId> {
    let values: [Option<ExprId>; 2] = match *stmt {
        Stmt::Let(_, value)
        | Stmt::Set(_, value)
        | Stmt::SetElement(_, _, value)
        | Stmt::Store(_, _, value)
        | Stmt::StoreShared(_, _, value)
        | Stmt::If(value) => [Some(value), None],
        _ => [None; 2],
    };
    values.into_iter().flatten()
}
