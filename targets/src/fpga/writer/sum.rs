//! Indices as sums, in code.

use super::function::{BLOCKS, Writer};
use super::index::{Atom, Part};
use crate::kernel::writer::{Binding, Expressions};

impl Writer<'_> {
    /// A sum of parts and a number.
    pub fn sum(&mut self, parts: &[Part], constant: i64) -> (String, Binding) {
        let mut text = String::new();
        // What is subtracted comes after something that it is subtracted from.
        let (first, then): (Vec<Part>, Vec<Part>) = parts.iter().partition(|part| part.times >= 0);
        let mut constant = constant;
        if first.is_empty() && !then.is_empty() && constant > 0 {
            text = std::mem::take(&mut constant).to_string();
        }
        for Part { atom, times, by } in first.into_iter().chain(then) {
            let (mut part, mut binding) = self.atom(atom);
            let is_minus = times < 0;
            let factor = times.abs();
            if by != 1 {
                let own = if binding < Binding::Product { format!("({part})") } else { part };
                (part, binding) = (format!("{own} / {by}"), Binding::Product);
            }
            if factor != 1 {
                let own = if binding < Binding::Product { format!("({part})") } else { part };
                (part, binding) = (format!("{own} * {factor}"), Binding::Product);
            }
            let own = if binding < Binding::Product { format!("({part})") } else { part };
            match (text.is_empty(), is_minus) {
                (true, false) => text.push_str(&own),
                (true, true) => text = format!("-{}", if own.contains(' ') { format!("({own})") } else { own }),
                (false, false) => text.push_str(&format!(" + {own}")),
                (false, true) => text.push_str(&format!(" - {own}")),
            }
        }
        match (text.is_empty(), constant) {
            (true, _) => text = constant.to_string(),
            (false, 0) => {}
            (false, 1..) => text.push_str(&format!(" + {constant}")),
            (false, _) => text.push_str(&format!(" - {}", -constant)),
        }
        let is_whole = !text.contains(' ') && !text.starts_with('-');
        (text, if is_whole { Binding::Whole } else { Binding::Sum })
    }

    /// What a sum consists of.
    pub fn atom(&mut self, atom: Atom) -> (String, Binding) {
        match atom {
            Atom::Block(axis) => (self.block(usize::from(axis)), Binding::Whole),
            Atom::Lane => (self.fixed.lane.clone(), Binding::Whole),
            Atom::Slot(_) => ("slot".to_owned(), Binding::Whole),
            Atom::Var(var) => (self.variable(var, None), Binding::Whole),
            Atom::Other(id) => self.bound(id),
            Atom::Base(var) => (self.fixed.bases[var.index()].clone(), Binding::Whole),
        }
    }

    pub fn block(&self, axis: usize) -> String {
        if self.kernel.grid[axis] == 1 {
            return "0".to_owned();
        }
        BLOCKS[axis].to_owned()
    }
}
