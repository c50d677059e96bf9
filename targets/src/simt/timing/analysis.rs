//! What can be said of a kernel before it is expanded: which expressions decide where threads go and what they access, which
//! depend on data, and which variables each reads.

use crate::kernel::{Expr, ExprId, Kernel, Scalar, Stmt, VarId};

/// What is known of a kernel's expressions.
pub(super) struct Analysis {
    /// Expressions whose values decide an address, a condition or the ends of a loop.
    pub is_needed: Vec<bool>,
    /// Variables of which that holds.
    pub is_needed_var: Vec<bool>,
    /// Variables whose values depend on data.
    pub depends_on_data: Vec<bool>,
    /// The expressions that read each variable, at any depth.
    pub readers: Vec<Vec<ExprId>>,
    /// How often each expression is an operand.
    pub uses: Vec<u32>,
    /// Variables that change after they are declared.
    pub is_set: Vec<bool>,
    /// Counters of loops that are written out.
    pub is_written_out: Vec<bool>,
    /// Expressions that read shared memory, at any depth.
    pub reads_shared: Vec<bool>,
}

/// The variable that a statement gives a value, and the value if it is an expression.
pub(super) fn assigned(stmt: &Stmt) -> Option<(VarId, Option<ExprId>)> {
    match *stmt {
        Stmt::Let(var, value) | Stmt::Set(var, value) | Stmt::SetElement(var, _, value) => Some((var, Some(value))),
        Stmt::For { var, from, .. } => Some((var, Some(from))),
        Stmt::Reduce { var, .. }
        | Stmt::LoadVector { array: var, .. }
        | Stmt::Dequantize { array: var, .. }
        | Stmt::Multiply { sums: var, .. } => Some((var, None)),
        Stmt::If(_) | Stmt::Else | Stmt::End | Stmt::Store(..) | Stmt::StoreShared(..) | Stmt::Barrier => None,
        // Which block is the last follows from its number.
        Stmt::Arrive { .. } => None,
        Stmt::StoreVector { .. } | Stmt::Copy { .. } | Stmt::Commit | Stmt::Await(_) | Stmt::Prefetch { .. } => None,
    }
}

impl Analysis {
    pub fn new(kernel: &Kernel) -> Analysis {
        let (exprs, vars) = (kernel.exprs.len(), kernel.vars.len());
        let mut analysis = Analysis {
            is_needed: vec![false; exprs],
            is_needed_var: vec![false; vars],
            depends_on_data: vec![false; vars],
            readers: vec![Vec::new(); vars],
            uses: vec![0; exprs],
            is_set: vec![false; vars],
            is_written_out: vec![false; vars],
            reads_shared: Vec::with_capacity(exprs),
        };
        for expr in &kernel.exprs {
            let reads = matches!(expr, Expr::LoadShared(..))
                || expr.operands().any(|operand| analysis.reads_shared[operand.index()]);
            analysis.reads_shared.push(reads);
        }
        for stmt in &kernel.body {
            match *stmt {
                Stmt::Set(var, _)
                | Stmt::SetElement(var, ..)
                | Stmt::Reduce { var, .. }
                | Stmt::LoadVector { array: var, .. }
                | Stmt::Dequantize { array: var, .. }
                | Stmt::Multiply { sums: var, .. } => analysis.is_set[var.index()] = true,
                Stmt::For { var, from, to, unroll: true, .. } => {
                    let is_known = |id: ExprId| matches!(kernel.exprs[id.index()], Expr::Integer(_));
                    analysis.is_written_out[var.index()] = is_known(from) && is_known(to);
                }
                _ => {}
            }
        }
        analysis.count(kernel);
        analysis.find_needed(kernel);
        analysis.find_data(kernel);
        analysis
    }

    fn count(&mut self, kernel: &Kernel) {
        let operands = kernel.exprs.iter().flat_map(Expr::operands).chain(kernel.body.iter().flat_map(Stmt::operands));
        operands.for_each(|operand| self.uses[operand.index()] += 1);
        // Operands stand before users, so that what they read is known when users are looked at.
        let mut reads: Vec<Vec<VarId>> = Vec::with_capacity(kernel.exprs.len());
        for (index, expr) in kernel.exprs.iter().enumerate() {
            let mut own: Vec<VarId> = expr.operands().flat_map(|operand| reads[operand.index()].clone()).collect();
            if let Expr::Var(var) | Expr::Element(var, _) = *expr {
                own.push(var);
            }
            own.sort_unstable();
            own.dedup();
            own.iter().for_each(|var| self.readers[var.index()].push(ExprId(index as u32)));
            reads.push(own);
        }
    }

    fn find_needed(&mut self, kernel: &Kernel) {
        let addresses = kernel.exprs.iter().filter_map(|expr| match *expr {
            Expr::Load(_, index) | Expr::LoadShared(_, index) => Some(index),
            _ => None,
        });
        let mut open: Vec<ExprId> = addresses.collect();
        for stmt in &kernel.body {
            match *stmt {
                Stmt::Store(_, index, _) | Stmt::StoreShared(_, index, _) | Stmt::If(index) => open.push(index),
                Stmt::For { from, to, .. } => open.extend([from, to]),
                Stmt::LoadVector { from: index, .. } | Stmt::StoreVector { to: index, .. } => open.push(index),
                Stmt::Copy { to, from, when, .. } => open.extend([to, from, when]),
                Stmt::Multiply { a, b, .. } => open.extend([a.at, b.at]),
                _ => {}
            }
        }
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut self.is_needed[id.index()], true) {
                continue;
            }
            match kernel.exprs[id.index()] {
                // What is loaded is not known, and its address is needed anyway.
                Expr::Load(..) | Expr::LoadShared(..) => {}
                Expr::Var(var) | Expr::Element(var, _) => {
                    if !std::mem::replace(&mut self.is_needed_var[var.index()], true) {
                        let own = kernel.body.iter().filter_map(assigned).filter(|(to, _)| *to == var);
                        open.extend(own.filter_map(|(_, value)| value));
                    }
                }
                expr => open.extend(expr.operands()),
            }
        }
    }

    /// Spreads what depends on data until nothing changes: each round finds a variable, or is the last.
    fn find_data(&mut self, kernel: &Kernel) {
        loop {
            let mut data = vec![false; kernel.exprs.len()];
            for (index, expr) in kernel.exprs.iter().enumerate() {
                data[index] = match *expr {
                    Expr::Load(..) | Expr::LoadShared(..) => true,
                    Expr::Unary(..) | Expr::Binary(..) | Expr::MulAdd(..) | Expr::Convert(..) => true,
                    Expr::Number(dtype, _) => matches!(Scalar::of(dtype), Scalar::F32 | Scalar::F64),
                    Expr::Var(var) | Expr::Element(var, _) => self.depends_on_data[var.index()],
                    Expr::Integer(_)
                    | Expr::Thread
                    | Expr::Block(_)
                    | Expr::BlockNumber
                    | Expr::Index(..)
                    | Expr::Select(_) => expr.operands().any(|operand| data[operand.index()]),
                };
            }
            let mut is_over = true;
            for (var, value) in kernel.body.iter().filter_map(assigned) {
                let is_data = value.is_none_or(|value| data[value.index()]);
                if is_data && !std::mem::replace(&mut self.depends_on_data[var.index()], true) {
                    is_over = false;
                }
            }
            if is_over {
                return;
            }
        }
    }
}
