//! Statements that open no scope, and the variables that they set.

use super::function::Writer;
use super::index::{Atom, Linear};
use crate::kernel::writer::{Binding, Expressions};
use crate::kernel::{Expr, ExprId, Stmt, VarId};

impl Writer<'_> {
    /// Declares what lanes keep from this run to others.
    pub fn declare(&mut self, places: &[usize], run: usize) {
        let kernel = self.kernel;
        for &place in places {
            for at in place..self.after(place) {
                let Stmt::Let(var, _) = kernel.body[at] else { continue };
                if self.is_idle(at) || !self.is_array(var, run) {
                    continue;
                }
                let of = &kernel.vars[var.index()];
                let (ty, name, lanes) = (self.type_of(var), &of.name, &self.fixed.lanes);
                let extent = of.array.map(|elements| format!("[{elements}]")).unwrap_or_default();
                self.line(&format!("{ty} {name}{extent}[{lanes}];"));
                self.pragma(&format!("ARRAY_PARTITION variable={name} type=complete dim=0"));
            }
        }
    }

    /// Whether a variable that differs from lane to lane has an element for each, since others than a run know of it.
    pub fn is_array(&self, var: VarId, run: usize) -> bool {
        self.kernel.threads > 1 && self.known.runs.get(&var).is_some_and(|runs| runs.iter().any(|&own| own != run))
    }

    /// A statement that a lane does, with all in its scope.
    pub fn scope(&mut self, place: usize) {
        let mut at = place;
        let end = self.after(place);
        while at < end {
            self.place = at;
            match self.kernel.body[at] {
                Stmt::If(condition) => {
                    let condition = self.expr(condition, Binding::Ternary);
                    self.line(&format!("if ({condition}) {{"));
                    self.depth += 1;
                }
                Stmt::Else => {
                    self.depth -= 1;
                    self.line("} else {");
                    self.depth += 1;
                }
                Stmt::For { .. } => {
                    self.open_loop(at);
                }
                Stmt::End => {
                    self.depth -= 1;
                    self.line("}");
                }
                _ if self.is_idle(at) => {}
                _ => self.statement(at),
            }
            at += 1;
        }
    }

    /// A statement that opens no scope.
    pub fn statement(&mut self, place: usize) {
        let kernel = self.kernel;
        match kernel.body[place] {
            Stmt::Let(var, value) => {
                let of = &kernel.vars[var.index()];
                let (ty, value) = (self.type_of(var), self.value(value));
                let is_array = self.run.is_some_and(|run| self.sameness.differs(var) && self.is_array(var, run));
                match of.array {
                    None if is_array => {
                        let target = self.target(var, None);
                        self.line(&format!("{target} = {value};"));
                    }
                    None => {
                        let constant = if self.is_set(var) { "" } else { "const " };
                        self.note(var);
                        self.line(&format!("{constant}{ty} {} = {value};", of.name));
                    }
                    Some(elements) => {
                        if !is_array {
                            self.line(&format!("{ty} {}[{elements}];", of.name));
                            self.pragma(&format!("ARRAY_PARTITION variable={} type=complete", of.name));
                        }
                        let target = self.target(var, Some("slot"));
                        self.line(&format!("for (int slot = 0; slot < {elements}; ++slot) {{"));
                        self.pragma("UNROLL");
                        self.line(&format!("    {target} = {value};"));
                        self.line("}");
                    }
                }
            }
            Stmt::Set(var, value) => {
                let value = self.value(value);
                let target = self.target(var, None);
                self.line(&format!("{target} = {value};"));
            }
            Stmt::SetElement(var, index, value) => {
                let (index, value) = (self.expr(index, Binding::Ternary), self.value(value));
                let target = self.target(var, Some(&index));
                self.line(&format!("{target} = {value};"));
            }
            Stmt::Store(buffer, index, value) => {
                let (linear, value) = (self.indices.linear(index), self.expr(value, Binding::Ternary));
                self.store(buffer, &linear, Some(index), &value);
            }
            Stmt::StoreShared(shared, index, value) => {
                let (linear, value) = (self.indices.linear(index), self.expr(value, Binding::Ternary));
                let target = self.local(shared, &linear, Some(index));
                let value = self.narrow(kernel.shared[shared.index()].dtype, &value);
                self.line(&format!("{target} = {value};"));
            }
            Stmt::LoadVector { array, to, buffer, from, count } => {
                let to = self.slot_after(to);
                let mut linear = self.indices.linear(from);
                if linear.add(Atom::Slot(count), 1).is_none() {
                    linear = Linear { terms: vec![(Atom::Other(from), 1), (Atom::Slot(count), 1)], constant: 0 };
                }
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {{"));
                self.pragma("UNROLL");
                self.depth += 1;
                let (value, _) = self.element(buffer, &linear, None);
                let target = self.target(array, Some(&to));
                self.line(&format!("{target} = {value};"));
                self.depth -= 1;
                self.line("}");
            }
            Stmt::StoreVector { buffer, to, array, from, count } => {
                let from = self.slot_after(from);
                let mut linear = self.indices.linear(to);
                if linear.add(Atom::Slot(count), 1).is_none() {
                    linear = Linear { terms: vec![(Atom::Other(to), 1), (Atom::Slot(count), 1)], constant: 0 };
                }
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {{"));
                self.pragma("UNROLL");
                self.depth += 1;
                let value = self.variable(array, Some(&from));
                self.store(buffer, &linear, None, &value);
                self.depth -= 1;
                self.line("}");
            }
            // What opens scopes and what is refused is written elsewhere, or not at all.
            _ => {}
        }
    }

    /// The index of a slot among those from another on.
    pub fn slot_after(&mut self, first: ExprId) -> String {
        match self.kernel.exprs[first.index()] {
            Expr::Integer(0) => "slot".to_owned(),
            _ => format!("{} + slot", self.expr(first, Binding::Sum)),
        }
    }

    pub fn is_set(&self, var: VarId) -> bool {
        self.kernel.body.iter().any(|stmt| match *stmt {
            Stmt::Set(own, _) | Stmt::Reduce { var: own, .. } => own == var,
            _ => false,
        })
    }

    /// Notes that a variable occurs here.
    pub fn note(&mut self, var: VarId) {
        if self.sameness.differs(var) {
            self.found.runs.entry(var).or_default().insert(self.run.unwrap_or(0));
        }
    }

    /// A variable, or an element of it, where it is set.
    pub fn target(&mut self, var: VarId, index: Option<&str>) -> String {
        self.note(var);
        let name = &self.kernel.vars[var.index()].name;
        let index = index.map(|index| format!("[{index}]")).unwrap_or_default();
        let is_array = self.sameness.differs(var) && self.is_array(var, self.run.unwrap_or(0));
        let lane = if is_array { format!("[{}]", self.fixed.lane) } else { String::new() };
        format!("{name}{index}{lane}")
    }

    /// The same where it is read.
    pub fn variable(&mut self, var: VarId, index: Option<&str>) -> String {
        self.found.read.insert(var);
        if self.sameness.is_settled(var, self.place) {
            return self.fixed.all[var.index()].clone();
        }
        self.target(var, index)
    }

    /// The name of what all lanes have combined of a variable.
    pub fn name_of_all(&self, var: VarId) -> String {
        self.fixed.all[var.index()].clone()
    }

    /// Whether anybody reads a variable.
    pub fn is_read(&self, var: VarId) -> bool {
        self.known.read.contains(&var)
    }
}
