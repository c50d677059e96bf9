//! Parameters that come through the loader: an iteration of the loop that reads them takes its beats first, then lanes take their elements
//! out of them.

use super::access::per_beat;
use super::function::Writer;
use super::index::{Atom, Linear};
use crate::fpga::design::{BEAT_BYTES, Home};
use crate::kernel::{BufferId, Expr, Stmt};

/// The names of what an iteration takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// The beats of an iteration.
    beats: String,
    /// Whose turn it is among channels, or parts of a beat.
    turn: String,
    part: String,
    kept: String,
}

/// How an iteration takes its beats.
enum Way {
    /// The same number from every channel, together so many.
    Rows(i64),
    /// So many, from some of the channels.
    Turns(i64),
    /// One of so many parts of a beat.
    Parts(i64),
}

impl Writer<'_> {
    /// Channels of the loader.
    pub fn loader_channels(&self) -> i64 {
        self.design.loader.as_ref().map_or(1, |loader| i64::from(loader.channels.max(1)))
    }

    fn loaded(&self) -> Vec<BufferId> {
        let homes = self.function.homes.iter().enumerate();
        let loaded = homes.filter(|(_, home)| matches!(home, Home::Loaded { .. }));
        loaded.map(|(buffer, _)| BufferId(buffer as u32)).collect()
    }

    /// What an index adds to where an iteration begins.
    fn within(&self, linear: &Linear) -> Linear {
        let is_unrolled = |var| {
            self.kernel.body.iter().any(|stmt| matches!(*stmt, Stmt::For { var: own, unroll: true, .. } if own == var))
        };
        let is_own = |atom: Atom| match atom {
            Atom::Lane | Atom::Slot(_) => true,
            Atom::Var(var) => is_unrolled(var),
            Atom::Block(_) | Atom::Other(_) | Atom::Base(_) => false,
        };
        let terms = linear.terms.iter().copied().filter(|&(atom, _)| is_own(atom)).collect();
        Linear { terms, constant: linear.constant }
    }

    fn way(&self, buffer: BufferId) -> Way {
        let indices = self.kernel.exprs.iter().filter_map(|expr| match *expr {
            Expr::Load(own, index) if own == buffer => Some(index),
            _ => None,
        });
        let last = indices.filter_map(|index| self.indices.bound(&self.within(&self.indices.linear(index))));
        let elements = last.max().unwrap_or(0) + 1;
        let of_beat = per_beat(self.kernel.buffers[buffer.index()].dtype);
        let (beats, channels) = (elements / of_beat, self.loader_channels());
        match beats {
            0 => Way::Parts(of_beat / elements),
            _ if beats % channels == 0 => Way::Rows(beats),
            _ => Way::Turns(beats),
        }
    }

    /// Says before all loops whose turn it is.
    pub fn open_loaded(&mut self) {
        for buffer in self.loaded() {
            let name = self.kernel.buffers[buffer.index()].name.clone();
            let way = self.way(buffer);
            let mut taken = Taken { beats: self.unique(&format!("{name}_beats")), ..Taken::default() };
            if let Way::Turns(_) | Way::Parts(_) = way {
                taken.turn = self.unique(&format!("{name}_turn"));
                self.line(&format!("int {} = 0;", taken.turn));
            }
            if let Way::Parts(_) = way {
                (taken.part, taken.kept) = (self.unique(&format!("{name}_part")), self.unique(&format!("{name}_kept")));
                self.line(&format!("int {} = 0;", taken.part));
                self.line(&format!("Beat {} = 0;", taken.kept));
            }
            self.fixed.taken.insert(buffer, taken);
        }
    }

    /// Takes what an iteration of the innermost loop reads, whose body is these statements.
    pub fn take(&mut self, body: std::ops::Range<usize>) {
        for buffer in self.loaded() {
            if !self.reads_in(buffer, body.clone()) {
                continue;
            }
            let (name, way) = (self.kernel.buffers[buffer.index()].name.clone(), self.way(buffer));
            let (Taken { beats, turn, part, kept }, channels) =
                (self.fixed.taken[&buffer].clone(), self.loader_channels());
            let (count, call) = match way {
                Way::Rows(count) => (count, format!("take_rows<{channels}, {count}>({name}, {beats});")),
                Way::Turns(count) => (count, format!("take_turn<{channels}, {count}>({name}, {beats}, {turn});")),
                Way::Parts(parts) => {
                    (1, format!("take_part<{channels}, {parts}>({name}, {beats}, {kept}, {part}, {turn});"))
                }
            };
            self.line(&format!("Beat {beats}[{count}];"));
            self.pragma(&format!("ARRAY_PARTITION variable={beats} type=complete"));
            self.line(&call);
        }
    }

    /// Whether statements read a buffer.
    fn reads_in(&self, buffer: BufferId, body: std::ops::Range<usize>) -> bool {
        let mut open: Vec<_> = self.kernel.body[body]
            .iter()
            .flat_map(|stmt| stmt.operands().chain(stmt.addresses().map(|(_, index)| index)))
            .collect();
        let mut seen = vec![false; self.kernel.exprs.len()];
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut seen[id.index()], true) {
                continue;
            }
            let expr = &self.kernel.exprs[id.index()];
            if matches!(*expr, Expr::Load(own, _) if own == buffer) {
                return true;
            }
            open.extend(expr.operands());
        }
        false
    }

    /// The beat that an element of what an iteration takes lies in, and where it lies there.
    pub fn taken(&mut self, buffer: BufferId, linear: &Linear) -> Option<(String, String)> {
        let beats = self.fixed.taken.get(&buffer)?.beats.clone();
        let of_beat = BEAT_BYTES as i64 * 8 / self.kernel.buffers[buffer.index()].dtype.bits() as i64;
        let own = self.within(linear);
        let [beat, slot] = self.divided(&own, of_beat);
        Some((format!("{beats}[{}]", beat.0), slot.0))
    }
}
