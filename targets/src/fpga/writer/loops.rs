//! Loops and branches, which lanes go through together or apart.

use super::function::{Fixed, Writer};
use super::index::{Atom, Linear};
use super::structure::Node;
use crate::kernel::Stmt;
use crate::kernel::writer::{Binding, Expressions};

impl Writer<'_> {
    /// Has the loop that was opened pipelined.
    pub fn pipeline(&mut self) {
        let interval = (self.schedule.interval)(self.loops);
        self.loops += 1;
        let interval = interval.map(|interval| format!(" II={interval}")).unwrap_or_default();
        self.pragma(&format!("PIPELINE{interval}"));
    }

    /// Opens the loop over lanes.
    pub fn open_lanes(&mut self) {
        let Fixed { lane, lanes, .. } = &self.fixed;
        let text = format!("for (int {lane} = 0; {lane} < {lanes}; ++{lane}) {{");
        self.line(&text);
        self.depth += 1;
        self.pragma("UNROLL");
    }

    /// Opens a loop, and says whether it is written out.
    pub fn open_loop(&mut self, place: usize) {
        let kernel = self.kernel;
        let Stmt::For { var, from, to, step, unroll } = kernel.body[place] else { return };
        let name = &kernel.vars[var.index()].name;
        let (from, to) = (self.expr(from, Binding::Ternary), self.expr(to, Binding::Sum));
        let step = if step == 1 { format!("++{name}") } else { format!("{name} += {step}") };
        let label =
            if unroll || self.run.is_some() { String::new() } else { self.unique(&format!("over_{name}")) + ": " };
        self.line(&format!("{label}for (int {name} = {from}; {name} < {to}; {step}) {{"));
        self.depth += 1;
        if unroll {
            self.pragma("UNROLL");
        } else if self.run.is_none() {
            let inside = &kernel.body[place + 1..self.after(place)];
            if !inside.iter().any(|stmt| matches!(stmt, Stmt::For { unroll: false, .. })) {
                self.pipeline();
                self.take(place + 1..self.after(place));
            }
        }
    }

    pub fn repeat(&mut self, place: usize, body: &[Node]) {
        self.place = place;
        self.open_loop(place);
        self.nodes(body);
        self.depth -= 1;
        self.line("}");
    }

    /// A loop that lanes begin or end apart from each other. They go through it in step; those that have come to their end wait.
    pub fn apart(&mut self, place: usize, body: &[Node]) {
        self.place = place;
        let kernel = self.kernel;
        let Stmt::For { var, from, to, step, .. } = kernel.body[place] else { return };
        let name = &kernel.vars[var.index()].name;
        let label = self.unique(&format!("over_{name}"));
        let inside = &kernel.body[place + 1..self.after(place)];
        let is_innermost = !inside.iter().any(|stmt| matches!(stmt, Stmt::For { unroll: false, .. }));
        let outside = self.masks.last().cloned();
        let stride = self.indices.stride(var);
        let is_even = stride.is_some_and(|stride| stride.is_even);
        let takes_part = if is_even { String::new() } else { self.unique("takes_part") };
        let Fixed { lane, lanes, .. } = self.fixed.clone();
        if let Some(stride) = stride {
            let (base, (from, _)) = (self.fixed.bases[var.index()].clone(), self.linear(&stride.base));
            let to = self.expr(to, Binding::Sum);
            let step = if step == 1 { format!("++{base}") } else { format!("{base} += {step}") };
            self.line(&format!("{label}: for (int {base} = {from}; {base} < {to}; {step}) {{"));
            self.depth += 1;
        } else {
            self.line(&format!("int {name}[{lanes}];"));
            self.pragma(&format!("ARRAY_PARTITION variable={name} type=complete dim=0"));
            self.in_own_run(|writer| {
                let (target, from) = (writer.target(var, None), writer.expr(from, Binding::Ternary));
                let guard = outside.as_ref().map(|mask| format!("if ({mask}) ")).unwrap_or_default();
                writer.line(&format!("{guard}{target} = {from};"));
            });
            self.line(&format!("{label}: for (;;) {{"));
            self.depth += 1;
        }
        if is_innermost {
            self.pipeline();
        }
        if !is_even {
            self.line(&format!("bool {takes_part}[{lanes}];"));
            self.pragma(&format!("ARRAY_PARTITION variable={takes_part} type=complete dim=0"));
            if stride.is_none() {
                self.line("bool goes_on = false;");
            }
            self.in_own_run(|writer| {
                let index = match stride {
                    Some(stride) => {
                        let terms = vec![(Atom::Base(var), 1), (Atom::Lane, stride.times)];
                        writer.linear(&Linear { terms, constant: 0 }).0
                    }
                    None => writer.target(var, None),
                };
                let to = writer.expr(to, Binding::Sum);
                let outside = outside.as_ref().map(|mask| format!("{mask} && ")).unwrap_or_default();
                writer.line(&format!("{takes_part}[{lane}] = {outside}{index} < {to};"));
                if stride.is_none() {
                    writer.line(&format!("goes_on |= {takes_part}[{lane}];"));
                }
            });
            if stride.is_none() {
                self.line("if (!goes_on) break;");
            }
            self.masks.push(format!("{takes_part}[{lane}]"));
        }
        self.nodes(body);
        if !is_even {
            self.masks.pop();
        }
        if stride.is_none() {
            self.in_own_run(|writer| {
                let target = writer.target(var, None);
                writer.line(&format!("if ({takes_part}[{lane}]) {target} += {step};"));
            });
        }
        self.depth -= 1;
        self.line("}");
    }

    /// Writes what each lane does in a loop of its own over lanes.
    pub fn in_own_run(&mut self, write: impl FnOnce(&mut Self)) {
        self.runs += 1;
        self.run = Some(self.runs);
        self.open_lanes();
        write(self);
        self.depth -= 1;
        self.line("}");
        self.run = None;
    }

    pub fn branch(&mut self, place: usize, then: &[Node], otherwise: &[Node]) {
        self.place = place;
        let Stmt::If(condition) = self.kernel.body[place] else { return };
        let condition = self.expr(condition, Binding::Ternary);
        self.line(&format!("if ({condition}) {{"));
        self.depth += 1;
        self.nodes(then);
        if !otherwise.is_empty() {
            self.depth -= 1;
            self.line("} else {");
            self.depth += 1;
            self.nodes(otherwise);
        }
        self.depth -= 1;
        self.line("}");
    }

    /// A branch that not all lanes take: they keep which of them do.
    pub fn masked(&mut self, place: usize, then: &[Node], otherwise: &[Node]) {
        self.place = place;
        let Stmt::If(condition) = self.kernel.body[place] else { return };
        let name = self.unique("takes_part");
        let Fixed { lane, lanes, .. } = self.fixed.clone();
        self.line(&format!("bool {name}[{lanes}];"));
        self.pragma(&format!("ARRAY_PARTITION variable={name} type=complete dim=0"));
        let outside = self.masks.last().cloned();
        self.in_own_run(|writer| {
            let wanted = if outside.is_some() { Binding::Compare } else { Binding::Ternary };
            let condition = writer.expr(condition, wanted);
            let outside = outside.as_ref().map(|mask| format!("{mask} && ")).unwrap_or_default();
            writer.line(&format!("{name}[{lane}] = {outside}{condition};"));
        });
        self.masks.push(format!("{name}[{lane}]"));
        self.nodes(then);
        self.masks.pop();
        if !otherwise.is_empty() {
            let not = format!("!{name}[{lane}]");
            self.masks.push(outside.map_or(not.clone(), |mask| format!("{mask} && {not}")));
            self.nodes(otherwise);
            self.masks.pop();
        }
    }
}
