//! Panels: the parts of two matrices that a block multiplies at a time, on their way from global to shared memory.

use tcc_ir::{Atom, DType, ValueId, View};

use super::Product;
use crate::kernel::{ExprId, IndexFn, SharedId, Stmt};
use crate::lower::elements::{Coords, Elements};
use crate::target::TargetError;

/// Bytes that are copied at once.
const VECTOR: usize = 16;

/// Copies of a thread up to which they are written out one by one.
const WRITTEN_OUT: u32 = 16;

/// A panel of one factor: lines of elements that lie beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panel {
    /// Which factor: 0 is A, 1 is B.
    pub factor: usize,
    /// What shared memory holds.
    pub dtype: DType,
    /// Lines, and elements of a line.
    pub lines: u32,
    pub width: u32,
    /// Elements from line to line in shared memory.
    pub pitch: u32,
    /// Whether lines are along what is summed over: rows of A, columns of B. Otherwise each line holds, for one of the summed
    /// over, rows of A or columns of B.
    pub along_k: bool,
    /// Elements that are copied at once, if they need not pass through registers.
    pub vector: Option<u32>,
}

/// Where a panel begins in its matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Corner {
    /// The first row of A, or column of B.
    pub outer: ExprId,
    /// The first of what is summed over.
    pub k: ExprId,
}

impl Panel {
    /// Elements of shared memory.
    pub fn elements(&self) -> u32 {
        self.lines * self.pitch
    }

    /// Fills a part of shared memory from `at` on.
    pub fn load(
        &self,
        elements: &mut Elements<'_>,
        product: &Product,
        (shared, at): (SharedId, ExprId),
        lead: &[ExprId],
        corner: Corner,
    ) -> Result<(), TargetError> {
        match self.vector {
            Some(count) => self.copy(elements, product, (shared, at), lead, corner, count),
            None => self.pass(elements, product, (shared, at), lead, corner),
        }
    }

    /// Rows of A or columns of B, and what is summed over, that there are.
    fn limits(&self, product: &Product) -> (usize, usize) {
        (if self.factor == 0 { product.m } else { product.n }, product.k)
    }

    /// Coordinates of an element by its line and its place there, and whether it is one of the matrix.
    fn place(
        &self,
        elements: &mut Elements<'_>,
        product: &Product,
        lead: &[ExprId],
        corner: Corner,
        (line, within): (ExprId, ExprId),
    ) -> (Coords, ExprId) {
        let builder = &mut elements.builder;
        let (outer, k) = if self.along_k { (line, within) } else { (within, line) };
        let (outer, k) = (builder.add(corner.outer, outer), builder.add(corner.k, k));
        let (most, depth) = self.limits(product);
        let (outer_size, k_size) = if self.along_k { (self.lines, self.width) } else { (self.width, self.lines) };
        let mut inside = builder.integer(1);
        if !most.is_multiple_of(outer_size as usize) {
            let below = builder.below(outer, most as i32);
            inside = builder.index(IndexFn::And, inside, below);
        }
        if !depth.is_multiple_of(k_size as usize) {
            let below = builder.below(k, depth as i32);
            inside = builder.index(IndexFn::And, inside, below);
        }
        let (first, second) = if self.factor == 0 { (outer, k) } else { (k, outer) };
        (product.coords(elements, self.factor, lead, first, second), inside)
    }

    /// Copies vectors straight to shared memory.
    fn copy(
        &self,
        elements: &mut Elements<'_>,
        product: &Product,
        (shared, at): (SharedId, ExprId),
        lead: &[ExprId],
        corner: Corner,
        count: u32,
    ) -> Result<(), TargetError> {
        let per_line = self.width / count;
        let vectors = self.lines * per_line;
        let threads = elements.builder.threads();
        let rounds = vectors.div_ceil(threads);
        // Where they are many, a loop says it shorter; else what is known of each place is a part of its address.
        if rounds > WRITTEN_OUT {
            let round = elements.builder.unrolled("i", rounds);
            elements.open();
            self.copy_round(elements, product, (shared, at), (lead, corner), (round, count))?;
            elements.close();
            return Ok(());
        }
        for round in 0..rounds {
            let round = elements.builder.integer(round as i32);
            elements
                .scoped(|elements| self.copy_round(elements, product, (shared, at), (lead, corner), (round, count)))?;
        }
        Ok(())
    }

    /// Has each thread copy one vector.
    fn copy_round(
        &self,
        elements: &mut Elements<'_>,
        product: &Product,
        (shared, at): (SharedId, ExprId),
        (lead, corner): (&[ExprId], Corner),
        (round, count): (ExprId, u32),
    ) -> Result<(), TargetError> {
        let per_line = self.width / count;
        let vectors = self.lines * per_line;
        let threads = elements.builder.threads();
        let thread = elements.builder.thread();
        let first = elements.builder.scaled(round, threads as i32);
        let vector = elements.builder.add(first, thread);
        let even = threads.is_multiple_of(per_line);
        let partial = !vectors.is_multiple_of(threads);
        if partial {
            let there = elements.builder.below(vector, vectors as i32);
            elements.builder.when(there);
            elements.open();
        }
        // Where threads fill whole lines, their places in them are the same in each round.
        let (line, within) = if even {
            let (line, within) = elements.builder.divided(thread, per_line as i32);
            let before = elements.builder.scaled(round, (threads / per_line) as i32);
            (elements.builder.add(line, before), within)
        } else {
            elements.builder.divided(vector, per_line as i32)
        };
        let within = elements.builder.scaled(within, count as i32);
        let (coords, inside) = self.place(elements, product, lead, corner, (line, within));
        let (buffer, from) = elements.source(product.factors[self.factor], &coords);
        let to = elements.builder.scaled(line, self.pitch as i32);
        let to = elements.builder.add(to, within);
        let to = elements.builder.add(at, to);
        elements.builder.push(Stmt::Copy { shared, to, buffer, from, count, when: inside });
        if partial {
            elements.close();
        }
        Ok(())
    }

    /// Has elements pass through registers, where they become what they are multiplied as.
    fn pass(
        &self,
        elements: &mut Elements<'_>,
        product: &Product,
        (shared, at): (SharedId, ExprId),
        lead: &[ExprId],
        corner: Corner,
    ) -> Result<(), TargetError> {
        let all = self.lines * self.width;
        let threads = elements.builder.threads();
        let thread = elements.builder.thread();
        let end = elements.builder.integer(all as i32);
        let number = elements.builder.loop_over("i", thread, end, threads);
        elements.open();
        let (line, within) = elements.builder.divided(number, self.width as i32);
        let (coords, inside) = self.place(elements, product, lead, corner, (line, within));
        let to = elements.builder.scaled(line, self.pitch as i32);
        let to = elements.builder.add(to, within);
        let to = elements.builder.add(at, to);
        let value = product.factors[self.factor];
        let dtype = elements.graph().ty(value).dtype;
        if elements.builder.known_index(inside).is_some() {
            let element = elements.operand_of_product(value, &coords)?;
            let element = elements.builder.convert_register(dtype, self.dtype, element);
            elements.builder.store_shared(shared, to, element);
        } else {
            elements.builder.when(inside);
            elements.open();
            let element = elements.operand_of_product(value, &coords)?;
            let element = elements.builder.convert_register(dtype, self.dtype, element);
            elements.builder.store_shared(shared, to, element);
            elements.close_with_else();
            let zero = super::zero(&mut elements.builder, self.dtype);
            elements.builder.store_shared(shared, to, zero);
            elements.builder.end();
        }
        elements.close();
        Ok(())
    }
}

/// How many elements of a value can be copied at once, in lines along its last dimension or the one before, where they are stored
/// as shared memory holds them.
pub(in crate::simt::lower) fn vector_of(
    elements: &Elements<'_>,
    value: ValueId,
    dtype: DType,
    last: bool,
    line: usize,
) -> Option<u32> {
    let is_quantized = elements.quantized(value).is_some();
    if is_quantized || !elements.is_plain(value) || elements.stored(value) != dtype {
        return None;
    }
    vector_in(&elements.plan.access(value).view, dtype, last, line)
}

/// The same of a view, for elements that are stored as a type.
pub(in crate::simt::lower) fn vector_in(view: &View, dtype: DType, last: bool, line: usize) -> Option<u32> {
    let count = VECTOR * 8 / dtype.bits();
    let groups = view.groups()?;
    let rank = groups.len();
    let along = if last { rank - 1 } else { rank - 2 };
    let inner = groups[along].last().copied();
    let runs = inner.is_some_and(|Atom { size, stride }| stride == 1 && size.is_multiple_of(count));
    let others = groups.iter().enumerate().flat_map(|(axis, group)| group.iter().map(move |atom| (axis, atom)));
    let is_inner = |axis: usize, atom: &Atom| axis == along && Some(atom) == inner.as_ref() && atom.stride == 1;
    let aligned = others.filter(|&(axis, atom)| !is_inner(axis, atom)).all(|(_, atom)| atom.stride % count as i64 == 0);
    let whole = line.is_multiple_of(count) && view.offset() % count as i64 == 0;
    (runs && aligned && whole).then_some(count as u32)
}
