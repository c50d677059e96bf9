//! What of a kernel is read on the way to what it leaves.

use std::collections::HashSet;

use crate::kernel::{Expr, ExprId, Kernel, Stmt, VarId};

/// What of a kernel is read on the way to what it leaves: its variables and expressions. The rest is not written.
pub(crate) struct Read {
    pub vars: HashSet<VarId>,
    pub exprs: HashSet<ExprId>,
}

/// Looks at a kernel.
pub(crate) fn read(kernel: &Kernel) -> Read {
    let mut read = Read { vars: HashSet::new(), exprs: HashSet::new() };
    // A loop may read what is only set further down, and that may need what is further up: so until nothing is new.
    loop {
        let before = (read.vars.len(), read.exprs.len());
        for stmt in &kernel.body {
            let is_read = match *stmt {
                Stmt::Let(var, _) | Stmt::Set(var, _) | Stmt::SetElement(var, ..) => read.vars.contains(&var),
                Stmt::Reduce { var, .. } => {
                    read.vars.insert(var);
                    true
                }
                Stmt::LoadVector { array, .. } => read.vars.contains(&array),
                Stmt::Dequantize { array, packed, .. } => {
                    let is_read = read.vars.contains(&array);
                    if is_read {
                        read.vars.insert(packed);
                    }
                    is_read
                }
                Stmt::StoreVector { array: var, .. } | Stmt::Multiply { sums: var, .. } => {
                    read.vars.insert(var);
                    true
                }
                Stmt::For { .. } | Stmt::If(_) | Stmt::Else | Stmt::End | Stmt::Barrier => true,
                Stmt::Store(..) | Stmt::StoreShared(..) | Stmt::Copy { .. } | Stmt::Commit | Stmt::Await(_) => true,
                Stmt::Arrive { .. } | Stmt::Prefetch { .. } => true,
            };
            let mut open: Vec<ExprId> = if is_read { stmt.operands().collect() } else { Vec::new() };
            while let Some(id) = open.pop() {
                if !read.exprs.insert(id) {
                    continue;
                }
                let expr = &kernel.exprs[id.index()];
                if let Expr::Var(var) | Expr::Element(var, _) = *expr {
                    read.vars.insert(var);
                }
                open.extend(expr.operands());
            }
        }
        if before == (read.vars.len(), read.exprs.len()) {
            return read;
        }
    }
}
