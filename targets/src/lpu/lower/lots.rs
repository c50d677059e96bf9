//! Work in lots of rows. What a kernel does with the first rows of a product is scheduled before what it does with later ones, so
//! that the vector unit works on the ones while the matrix units multiply the others.
//!
//! Work that can wait is put off with the lot of its last row, and done lot by lot when all of a kernel is known, or when
//! something is to be scheduled that cannot wait. Nothing is put off that reads rows of later lots, or writes rows of earlier
//! ones, so that lots in their order find everything as in the order of the program.

use std::collections::HashMap;
use std::sync::Arc;

use super::work::{Leaf, Work};
use super::{Lease, Lowering, Thrift};
use crate::lpu::layout::Layout;
use crate::target::TargetError;

type Step<'a> = Box<dyn FnOnce(&mut Lowering<'a>) -> Result<(), TargetError> + 'a>;

/// Work that was put off.
#[derive(Default)]
pub(super) struct Lots<'a> {
    /// Rows of a lot; none if nothing is put off.
    pub size: Option<usize>,
    /// By turn and kernel, in the order of the program.
    waiting: Vec<(usize, u32, Step<'a>)>,
    /// What it writes, and how many lots later than the lot of the rows.
    written: HashMap<*const Layout, usize>,
    /// Memory that was given back since, which it may still read.
    returned: Vec<Lease>,
    /// Whether it is being done.
    is_running: bool,
}

/// Rows of a layout that work reads or writes: the first and the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    layout: *const Layout,
    rows: (usize, usize),
}

impl Touched {
    /// Some rows of a layout.
    pub fn new(layout: &Lease, rows: impl Iterator<Item = u32>) -> Option<Touched> {
        let rows = rows.fold(None, |found: Option<(u32, u32)>, row| {
            Some(found.map_or((row, row), |(first, last)| (first.min(row), last.max(row))))
        });
        rows.map(|(first, last)| Touched { layout: Arc::as_ptr(layout), rows: (first as usize, last as usize) })
    }

    /// What a chain reads and writes for some of its vectors, but for one operand.
    pub fn by_chain(work: &Work, vectors: &[usize], but: Option<usize>) -> (Vec<Touched>, Vec<Touched>) {
        let leaves = work.leaves.iter().enumerate().filter(|(index, _)| Some(*index) != but);
        let read = |leaf: &Leaf| Touched::new(&leaf.layout, vectors.iter().map(|&vector| leaf.rows[vector].0));
        let reads = leaves.filter_map(|(_, leaf)| read(leaf)).collect();
        let writes = work.targets.iter().filter_map(|target| {
            Touched::new(&target.layout, vectors.iter().filter_map(|&vector| target.rows[vector].map(|(row, _)| row)))
        });
        (reads, writes.collect())
    }
}

impl<'a> Lowering<'a> {
    /// Does work up to a row in its turn: later, if it only touches rows of its own lot, or reads those of earlier ones. The turn
    /// comes so many lots after the one of the row.
    pub(super) fn in_turn(
        &mut self,
        (last, after): (usize, usize),
        (reads, writes): (Vec<Touched>, Vec<Touched>),
        run: impl FnOnce(&mut Lowering<'a>) -> Result<(), TargetError> + 'a,
    ) -> Result<(), TargetError> {
        let size = self.lots.size.filter(|_| !self.lots.is_running && self.thrift != Thrift::Meagre);
        let Some(size) = size else { return run(self) };
        let turn = last / size + after;
        let ready = |read: &Touched| {
            let written = self.lots.written.get(&read.layout);
            written.is_none_or(|after| read.rows.1 / size + after <= turn)
        };
        if !reads.iter().all(ready) || writes.iter().any(|written| written.rows.0 / size + after < turn) {
            self.catch_up()?;
            return run(self);
        }
        for written in &writes {
            let latest = self.lots.written.entry(written.layout).or_default();
            *latest = after.max(*latest);
        }
        self.lots.waiting.push((turn, self.kernel, Box::new(run)));
        Ok(())
    }

    /// Does what was put off.
    pub(super) fn catch_up(&mut self) -> Result<(), TargetError> {
        if self.lots.is_running || self.lots.waiting.is_empty() {
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut self.lots.waiting);
        waiting.sort_by_key(|&(turn, ..)| turn);
        let kernel = self.kernel;
        self.lots.is_running = true;
        for (_, own, run) in waiting {
            self.kernel = own;
            run(self)?;
        }
        self.lots.is_running = false;
        self.lots.written.clear();
        self.kernel = kernel;
        for layout in std::mem::take(&mut self.lots.returned) {
            self.give_back(&layout);
        }
        Ok(())
    }

    /// Takes back memory that nobody else has, when nothing that was put off can read it any more.
    pub(super) fn give_back(&mut self, layout: &Lease) {
        if self.lots.is_running || self.lots.waiting.is_empty() {
            self.memory.give_back(&layout.slices, layout.depth());
        } else {
            self.lots.returned.push(layout.clone());
        }
    }
}
