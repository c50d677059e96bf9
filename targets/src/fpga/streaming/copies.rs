//! A kernel that gives a value several times, once for each stage that takes it: every channel has one stage at each end.

use std::collections::HashSet;

use crate::kernel::check::scalars;
use crate::kernel::{Buffer, BufferId, Expr, ExprId, Kernel, Stmt, Var, VarId};

/// The kernel with so many more parameters behind its others that it writes as it does one of them.
pub(super) fn with_copies(kernel: &Kernel, of: BufferId, more: u32) -> Kernel {
    if more == 0 {
        return kernel.clone();
    }
    let known = scalars(kernel);
    let mut own = kernel.clone();
    let buffers = own.buffers.iter().map(|buffer| &buffer.name);
    let names = buffers.chain(own.shared.iter().map(|shared| &shared.name)).chain(own.vars.iter().map(|var| &var.name));
    let mut names: HashSet<String> = names.cloned().collect();
    let mut unique = |wanted: String| {
        let (mut name, mut again) = (wanted.clone(), 1);
        while !names.insert(name.clone()) {
            again += 1;
            name = format!("{wanted}_{again}");
        }
        name
    };
    let first = own.buffers.len() as u32;
    let base = own.buffers[of.index()].clone();
    for _ in 0..more {
        let name = unique(format!("{}_too", base.name));
        own.buffers.push(Buffer { name, ..base.clone() });
    }
    own.body.clear();
    for &stmt in &kernel.body {
        match stmt {
            Stmt::Store(buffer, index, value) if buffer == of => {
                let named = matches!(own.exprs[value.index()], Expr::Var(_) | Expr::Integer(_) | Expr::Number(..));
                let value = if named {
                    value
                } else {
                    // It is computed once.
                    let var = VarId(own.vars.len() as u32);
                    let name = unique(format!("{}_element", base.name));
                    own.vars.push(Var { name, scalar: known[value.index()], array: None, packed: None });
                    own.body.push(Stmt::Let(var, value));
                    own.exprs.push(Expr::Var(var));
                    ExprId(own.exprs.len() as u32 - 1)
                };
                own.body.push(Stmt::Store(buffer, index, value));
                own.body.extend((first..first + more).map(|copy| Stmt::Store(BufferId(copy), index, value)));
            }
            Stmt::StoreVector { buffer, to, array, from, count } if buffer == of => {
                own.body.push(stmt);
                let copy = |copy| Stmt::StoreVector { buffer: BufferId(copy), to, array, from, count };
                own.body.extend((first..first + more).map(copy));
            }
            _ => own.body.push(stmt),
        }
    }
    own
}
