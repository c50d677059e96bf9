//! What is the same for all lanes, so that it is computed once.

use super::index::Indices;
use crate::kernel::{Expr, ExprId, Kernel, Stmt, VarId};

/// What of a kernel differs from lane to lane.
pub(super) struct Sameness<'k> {
    kernel: &'k Kernel,
    /// Whether what a variable holds may differ.
    differs: Vec<bool>,
    /// The reduction over all lanes from which on nobody changes a variable, so that it is then the same for all.
    settled: Vec<Option<usize>>,
}

impl<'k> Sameness<'k> {
    /// Looks at a kernel that was checked.
    pub fn new(kernel: &'k Kernel, indices: &Indices<'_>) -> Self {
        let settled = settled(kernel);
        let mut sameness = Sameness { kernel, differs: vec![false; kernel.vars.len()], settled };
        // A loop may read what is only set further down: so until nothing is new.
        while kernel.threads > 1 && sameness.walk(indices) {}
        sameness
    }

    /// Goes through the statements once, and says whether something new was found.
    fn walk(&mut self, indices: &Indices<'_>) -> bool {
        let kernel = self.kernel;
        let before = self.differs.iter().filter(|&&differs| differs).count();
        // Whether not all lanes come to what is in each open scope.
        let mut scopes = vec![false];
        for (place, stmt) in kernel.body.iter().enumerate() {
            let masked = scopes.last().is_some_and(|&masked| masked);
            match *stmt {
                Stmt::Let(var, value) | Stmt::Set(var, value) => {
                    self.differs[var.index()] |= masked || self.at(value, place);
                }
                Stmt::SetElement(var, index, value) => {
                    self.differs[var.index()] |= masked || self.at(value, place) || self.at(index, place);
                }
                Stmt::LoadVector { array, from, .. } => {
                    self.differs[array.index()] |= masked || self.at(from, place);
                }
                Stmt::Reduce { var, .. } => self.differs[var.index()] = true,
                Stmt::For { var, from, to, .. } => {
                    let differs = self.at(from, place) || self.at(to, place);
                    self.differs[var.index()] |= differs;
                    let is_even = indices.stride(var).is_some_and(|stride| stride.is_even);
                    scopes.push(masked || differs && !is_even);
                }
                Stmt::If(condition) => {
                    let differs = self.at(condition, place);
                    scopes.push(masked || differs);
                }
                // It is open to as many lanes as the scope before it.
                Stmt::Else => {}
                Stmt::End => {
                    scopes.pop();
                }
                _ => {}
            }
        }
        self.differs.iter().filter(|&&differs| differs).count() > before
    }

    /// Whether an expression that a statement computes may differ.
    pub fn at(&self, id: ExprId, place: usize) -> bool {
        let kernel = self.kernel;
        let expr = &kernel.exprs[id.index()];
        match *expr {
            Expr::Thread => kernel.threads > 1,
            Expr::Var(var) => self.differs(var) && !self.is_settled(var, place),
            Expr::Element(var, index) => self.differs(var) || self.at(index, place),
            _ => expr.operands().any(|operand| self.at(operand, place)),
        }
    }

    /// Whether what a variable holds may differ, somewhere.
    pub fn differs(&self, var: VarId) -> bool {
        self.differs[var.index()]
    }

    /// Whether a variable holds what all lanes have combined when a statement reads it.
    pub fn is_settled(&self, var: VarId, place: usize) -> bool {
        self.settled[var.index()].is_some_and(|reduced| reduced < place)
    }

    /// Whether a variable holds the same from a reduction on.
    pub fn settles(&self, var: VarId, place: usize) -> bool {
        self.settled[var.index()] == Some(place)
    }
}

/// The last statement that changes each variable, if that is a reduction over all lanes in the scope that declares it.
fn settled(kernel: &Kernel) -> Vec<Option<usize>> {
    let mut settled = vec![None; kernel.vars.len()];
    let mut declared = vec![None; kernel.vars.len()];
    let mut scopes = vec![0];
    for (place, stmt) in kernel.body.iter().enumerate() {
        match *stmt {
            Stmt::Let(var, _) => declared[var.index()] = scopes.last().copied(),
            Stmt::Set(var, _) => settled[var.index()] = None,
            Stmt::Reduce { var, width, .. } => {
                let is_here = declared[var.index()] == scopes.last().copied();
                settled[var.index()] = (is_here && width == kernel.threads).then_some(place);
            }
            Stmt::For { .. } | Stmt::If(_) => scopes.push(place + 1),
            Stmt::Else => {
                scopes.pop();
                scopes.push(place + 1);
            }
            Stmt::End => {
                scopes.pop();
            }
            _ => {}
        }
    }
    settled
}
