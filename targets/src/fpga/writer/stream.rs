//! FIFOs of a function: each word is taken before the run of statements that reads it, or given after the run that fills it.

use std::collections::BTreeSet;

use super::access::per_beat;
use super::function::{Common, Known, Writer, with_fifos};
use super::index::{Atom, Linear};
use super::structure::Unsupported;
use super::window::Window;
use crate::fpga::design::{Design, Function, Home, WordFifo};
use crate::kernel::writer::Language;
use crate::kernel::{BufferId, Stmt};

/// The type of a FIFO's words.
pub(super) fn word_of(fifo: &WordFifo) -> String {
    format!("Word<{}, {}>", Language::Hls.stored(fifo.dtype), fifo.banks)
}

/// Parameters of a function in FIFOs that cannot be written so.
///
/// # Errors
/// The function cannot be written at all.
pub(in crate::fpga) fn unstreamed(design: &Design, function: &Function) -> Result<BTreeSet<BufferId>, Unsupported> {
    let unknown = Known { interval: &|_| None, nest: None };
    Ok(with_fifos(design, function, &[], &unknown, &mut Common::default())?.1)
}

/// Words that a run touches.
pub(super) struct Words {
    pub buffer: BufferId,
    /// Where they begin.
    pub base: Linear,
    pub count: i64,
    pub writes: bool,
    /// Whether lanes touch all of them each time.
    pub is_full: bool,
}

impl Writer<'_> {
    /// Elements of a word of memory beside the part, or of a FIFO.
    pub fn width(&self, buffer: BufferId) -> i64 {
        match self.function.homes[buffer.index()] {
            Home::Fifo(fifo) => i64::from(self.design.fifos[fifo.index()].banks),
            Home::OnChip(_) | Home::External { .. } | Home::Loaded { .. } => {
                per_beat(self.kernel.buffers[buffer.index()].dtype)
            }
        }
    }

    /// Takes words of a FIFO, or has room for those that will be given.
    pub fn open_words(&mut self, Words { buffer, base, count, writes, is_full }: Words) {
        let Home::Fifo(id) = self.function.homes[buffer.index()] else { return };
        let fifo = &self.design.fifos[id.index()];
        let done = self.executions().and_then(|times| times.checked_mul(count as u64));
        let is_apart = self.streamed.insert(buffer);
        if !is_full || !is_apart || done != Some(fifo.words) {
            self.unstreamed.insert(buffer);
        }
        let of = &self.kernel.buffers[buffer.index()];
        let name = self.unique(&format!("{}_word{}", of.name, if count == 1 { "" } else { "s" }));
        let (ty, stream) = (word_of(fifo), self.fixed().fifos[&id].clone());
        let read = format!("{stream}.read()");
        match (writes, count) {
            (false, 1) => self.line(&format!("const {ty} {name} = {read};")),
            (false, _) => {
                // One after the other, as a list is.
                let all = vec![read; count as usize].join(", ");
                self.line(&format!("const {ty} {name}[{count}] = {{{all}}};"));
            }
            (true, 1) => self.line(&format!("{ty} {name};")),
            (true, _) => self.line(&format!("{ty} {name}[{count}];")),
        }
        if count > 1 {
            self.pragma(&format!("ARRAY_PARTITION variable={name} type=complete"));
        }
        let (at, offset) = ("0".to_owned(), "0".to_owned());
        self.windows.push(Window { buffer, base, count, writes, is_guarded: false, is_full, name, at, offset });
    }

    /// Gives words that lanes have filled.
    pub fn give_words(&mut self, window: &Window) {
        let Home::Fifo(id) = self.function.homes[window.buffer.index()] else { return };
        let stream = self.fixed().fifos[&id].clone();
        for word in (0..window.count).filter(|_| window.writes) {
            let index = if window.count == 1 { String::new() } else { format!("[{word}]") };
            self.line(&format!("{stream}.write({}{index});", window.name));
        }
    }

    /// An element of a buffer in a FIFO, in a word that is there; `None` of other buffers.
    pub fn in_word(&mut self, buffer: BufferId, linear: &Linear, writes: bool) -> Option<String> {
        let Home::Fifo(_) = self.function.homes[buffer.index()] else { return None };
        Some(match self.in_window(buffer, linear, writes) {
            Some((word, slot)) => format!("{word}.at[{slot}]"),
            None => {
                self.unstreamed.insert(buffer);
                "0".to_owned()
            }
        })
    }

    /// How often the statement that is written is done; `None` if that is not known.
    fn executions(&self) -> Option<u64> {
        let kernel = self.kernel;
        let mut open: Vec<u64> = Vec::new();
        for stmt in &kernel.body[..self.place] {
            match *stmt {
                Stmt::For { var, from, to, step, .. } => {
                    let (from, to) = (self.indices.linear(from), self.indices.linear(to));
                    // Lanes that begin apart go through it equally often.
                    let is_even = self.indices.stride(var).is_some_and(|stride| stride.is_even);
                    let mut length = to.plus(&from, -1)?;
                    length.terms.retain(|&(atom, _)| !(is_even && atom == Atom::Lane));
                    let trips = if length.terms.is_empty() { length.constant.max(0) as u64 } else { u64::MAX };
                    open.push(if trips == u64::MAX { 0 } else { trips.div_ceil(u64::from(step)) });
                }
                // What is done only sometimes is done no known number of times.
                Stmt::If(_) => open.push(0),
                Stmt::End => {
                    open.pop();
                }
                _ => {}
            }
        }
        open.iter().try_fold(kernel.blocks(), |all, &times| all.checked_mul(times)).filter(|&times| times > 0)
    }
}
