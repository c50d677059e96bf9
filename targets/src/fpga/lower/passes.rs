//! Work on many long rows: one pass after the other over all rows of a group.
//!
//! Row by row, each pass over a row would have to end before the next begins. So a group's rows go through a pass together: parts of
//! rows outside, rows inside, so that neighbouring iterations add to different rows, and an addition has as many iterations as there
//! are rows until its result is added to. What lanes have combined of each row is then put together row by row, and what holds for all of a
//! row is kept for the passes that follow. What is computed for each element and wanted again is kept too.

use std::collections::{HashMap, HashSet};

use tcc_ir::ops::Reduce;
use tcc_ir::{DType, Graph, NodeId, Op, Shape, ValueId};

use crate::kernel::check::wide;
use crate::kernel::{ExprId, IndexFn, Scalar, SharedId};
use crate::lower::Written;
use crate::lower::elements::{Coords, Elements, fold_of};
use crate::lower::rows::HELD;
use crate::target::TargetError;

/// Fewest rows of a group: about as many as an addition of floats takes cycles, with reading and writing what it adds to.
const FEWEST: usize = 8;

/// Most rows of a group.
const MOST: usize = 64;

/// Most elements of a group's rows, each of which is kept in a local array.
const ELEMENTS: usize = 1 << 15;

/// How rows are gone through.
#[derive(Clone, Debug)]
pub(super) struct Passes<'p> {
    domain: &'p Shape,
    axes: &'p [usize],
    nodes: &'p [NodeId],
    /// Elements of a row side by side.
    lanes: u32,
    /// Rows of all groups.
    all: usize,
    /// Rows of a group.
    rows: usize,
    /// Elements of a row.
    columns: usize,
}

/// A pass over a group's rows.
enum Pass {
    /// Combines elements of a row.
    Reduce(NodeId, Reduce),
    /// Writes elements.
    Write(Vec<ValueId>),
}

/// What has been written of a kernel.
struct Writing<'w, 'a, 'p> {
    elements: &'w mut Elements<'a>,
    passes: &'w Passes<'p>,
    own: HashSet<NodeId>,
    /// What is written of whole rows, when all of it is known.
    outputs: Vec<ValueId>,
    /// The first row of the group.
    first: ExprId,
    /// Elements that are kept, of all rows.
    kept: Vec<(ValueId, SharedId)>,
    /// What holds for whole rows, one for each.
    single: Vec<(ValueId, SharedId)>,
    /// Arrays that nobody needs any more.
    free: HashMap<(DType, u32), Vec<SharedId>>,
}

impl<'p> Passes<'p> {
    /// Of a domain's rows, with so many lanes; `None` where they are too few, too short or too long.
    pub fn of((domain, axes): (&'p Shape, &'p [usize]), nodes: &'p [NodeId], lanes: u32) -> Option<Passes<'p>> {
        let columns: usize = axes.iter().map(|&axis| domain[axis]).product();
        let all = domain.count() / columns.max(1);
        let most = MOST.min(ELEMENTS / columns.next_multiple_of(lanes as usize).max(1));
        if columns.div_ceil(lanes as usize) <= HELD || most < FEWEST || all < FEWEST {
            return None;
        }
        let rows = all.div_ceil(all.div_ceil(most));
        (rows >= FEWEST).then_some(Passes { domain, axes, nodes, lanes, all, rows, columns })
    }

    /// The most lanes up to some with which rows of so many elements still are long.
    pub fn lanes_for(columns: usize, most: u32) -> u32 {
        let powers = (0..=most.max(1).ilog2()).rev().map(|power| 1 << power);
        let is_long = |lanes: &u32| columns.div_ceil(*lanes as usize) > HELD;
        powers.into_iter().find(is_long).unwrap_or(1)
    }

    /// Parts of a row, of which the last may have fewer elements than lanes.
    fn parts(&self) -> usize {
        self.columns.div_ceil(self.lanes as usize)
    }

    /// Elements that are kept of a row.
    fn kept(&self) -> u32 {
        self.parts() as u32 * self.lanes
    }

    fn is_whole(&self, graph: &Graph, value: ValueId) -> bool {
        graph.shape(value).count() == self.domain.count()
    }

    /// Writes the kernel.
    ///
    /// # Errors
    /// A defect.
    pub fn write(&self, elements: &mut Elements<'_>, outputs: &[ValueId]) -> Result<Written, TargetError> {
        let graph = elements.graph();
        let builder = &mut elements.builder;
        let block = builder.block(0);
        let first = builder.scaled(block, self.rows as i32);
        let first = builder.keep("first_row", Scalar::I32, first);
        let (whole, single): (Vec<ValueId>, Vec<ValueId>) =
            outputs.iter().copied().partition(|&output| self.is_whole(graph, output));
        let mut all = Vec::new();
        for &id in self.nodes {
            if let Op::Reduce(reduce) = &graph.node(id).op {
                all.push(Pass::Reduce(id, reduce.clone()));
            }
        }
        if !whole.is_empty() {
            all.push(Pass::Write(whole));
        }
        let own = self.nodes.iter().copied().collect();
        let (kept, known, free) = (Vec::new(), Vec::new(), HashMap::new());
        let mut writing = Writing { elements, passes: self, own, outputs: single, first, kept, single: known, free };
        (0..all.len()).try_for_each(|place| writing.pass(&all, place))?;
        let (lanes, rows) = (self.lanes, self.rows);
        let tiling = format!("{} rows of {}, {lanes} elements at a time, {rows} rows together", self.all, self.columns);
        Ok(([self.all.div_ceil(rows) as u32, 1, 1], tiling))
    }
}

impl Writing<'_, '_, '_> {
    /// An array of so many elements.
    fn array(&mut self, name: &str, dtype: DType, elements: u32) -> SharedId {
        let free = self.free.get_mut(&(dtype, elements)).and_then(Vec::pop);
        free.unwrap_or_else(|| self.elements.builder.shared(name, dtype, elements))
    }

    fn give_back(&mut self, (dtype, elements): (DType, u32), array: SharedId) {
        self.free.entry((dtype, elements)).or_default().push(array);
    }

    /// What a pass computes.
    fn wanted(&self, pass: &Pass) -> Vec<ValueId> {
        match pass {
            Pass::Reduce(id, _) => vec![self.elements.graph().node(*id).inputs[0]],
            Pass::Write(values) => values.clone(),
        }
    }

    /// All values that a pass needs, down to those that are kept, and to what reductions have given: they come before it.
    fn needs(&self, pass: &Pass) -> HashSet<ValueId> {
        let graph = self.elements.graph();
        let is_kept = |value: ValueId| self.kept.iter().chain(&self.single).any(|&(known, _)| known == value);
        let (mut open, mut found) = (self.wanted(pass), HashSet::new());
        while let Some(value) = open.pop() {
            if !found.insert(value) || is_kept(value) {
                continue;
            }
            if let Some(id) = graph.producer(value).filter(|id| self.own.contains(id))
                && !matches!(graph.node(id).op, Op::Reduce(_))
            {
                open.extend(graph.node(id).inputs.iter().copied());
            }
        }
        found
    }

    /// The coordinates of a row, with 0 along it, by its number in the group; and whether it is there. Beyond the last row it may be that
    /// which is looked at.
    fn row(&mut self, number: ExprId, or_last: bool) -> (Coords, ExprId) {
        let Passes { domain, axes, all, rows, .. } = *self.passes;
        let builder = &mut self.elements.builder;
        let mut row = builder.add(self.first, number);
        let mut is_row = builder.integer(1);
        if !all.is_multiple_of(rows) {
            is_row = builder.below(row, all as i32);
            if or_last {
                let last = builder.integer(all as i32 - 1);
                row = builder.index(IndexFn::Min, row, last);
            }
        }
        let kept = domain.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size });
        let kept = Shape::new(kept).unwrap_or_default();
        (self.elements.coords_of(&kept, row), is_row)
    }

    /// The coordinates of this lane's element of a part of a row, and whether it is there.
    fn place(&mut self, row: &Coords, part: ExprId) -> (Coords, ExprId) {
        let Passes { domain, axes, lanes, columns, .. } = *self.passes;
        let builder = &mut self.elements.builder;
        let (before, lane) = (builder.scaled(part, lanes as i32), builder.thread());
        let column = builder.add(before, lane);
        let is_whole = columns.is_multiple_of(lanes as usize);
        let is_inside = if is_whole { builder.integer(1) } else { builder.below(column, columns as i32) };
        let sizes = Shape::new(axes.iter().map(|&axis| domain[axis])).unwrap_or_default();
        let along = self.elements.coords_of(&sizes, column);
        let mut coords = row.clone();
        axes.iter().zip(along).for_each(|(&axis, coord)| coords[axis] = coord);
        (coords, is_inside)
    }

    /// Holds what is kept of whole rows, as far as it is needed.
    fn hold_single(&mut self, needs: &HashSet<ValueId>, number: ExprId, row: &Coords) {
        for (value, array) in self.single.clone() {
            if needs.contains(&value) {
                let known = self.elements.builder.load_shared(array, number, "of_row");
                self.elements.hold(value, row, known);
            }
        }
    }

    /// Writes a pass, and what whole rows become by it.
    fn pass(&mut self, all: &[Pass], place: usize) -> Result<(), TargetError> {
        let passes = self.passes;
        let graph = self.elements.graph();
        let elements = passes.rows as u32 * passes.kept();
        let needs = self.needs(&all[place]);
        let later =
            |writing: &Self, value: ValueId| all[place + 1..].iter().any(|pass| writing.needs(pass).contains(&value));
        let size = |value: ValueId| (wide(graph.ty(value).dtype), elements);
        // What is needed for the last time makes room for what is kept from now on: it is read where that is written.
        let before = self.kept.clone();
        for &(value, array) in &before {
            if !later(self, value) {
                self.kept.retain(|&(own, _)| own != value);
                self.give_back(size(value), array);
            }
        }
        let is_computed = |value: ValueId| graph.producer(value).is_some_and(|id| self.own.contains(&id));
        let keeps = match &all[place] {
            Pass::Reduce(id, _) => {
                let value = graph.node(*id).inputs[0];
                let is_new = is_computed(value) && !before.iter().any(|&(known, _)| known == value);
                (is_new && later(self, value)).then_some(value)
            }
            Pass::Write(_) => None,
        };
        let to = keeps.map(|value| {
            let (dtype, elements) = size(value);
            (value, self.array("kept", dtype, elements))
        });
        let sums = match &all[place] {
            Pass::Reduce(id, _) => {
                let dtype = wide(graph.ty(graph.node(*id).inputs[0]).dtype);
                Some((dtype, self.array("combined", dtype, passes.rows as u32 * passes.lanes)))
            }
            Pass::Write(_) => None,
        };
        let builder = &mut self.elements.builder;
        let (zero, lane) = (builder.integer(0), builder.thread());
        let (parts, rows) = (builder.integer(passes.parts() as i32), builder.integer(passes.rows as i32));
        let (part, number) = match &all[place] {
            Pass::Reduce(..) => {
                let part = builder.loop_over("part", zero, parts, 1);
                (part, builder.loop_over("row", zero, rows, 1))
            }
            Pass::Write(_) => {
                let row = builder.loop_over("row", zero, rows, 1);
                (builder.loop_over("part", zero, parts, 1), row)
            }
        };
        self.elements.open();
        let (row, is_row) = self.row(number, false);
        let (at, is_inside) = self.place(&row, part);
        let builder = &mut self.elements.builder;
        let is_there = builder.index(IndexFn::And, is_row, is_inside);
        let guarded = builder.known_index(is_there).is_none();
        if guarded {
            builder.when(is_there);
        }
        let before_row = builder.scaled(number, passes.kept() as i32);
        let before_part = builder.scaled(part, passes.lanes as i32);
        let own = builder.add(before_row, before_part);
        let own = builder.add(own, lane);
        for &(value, array) in before.iter().filter(|(value, _)| needs.contains(value)) {
            let known = self.elements.builder.load_shared(array, own, "known");
            self.elements.hold(value, &at, known);
        }
        self.hold_single(&needs, number, &row);
        match (&all[place], sums) {
            (Pass::Reduce(id, reduce), Some((_, sums))) => {
                let value = graph.node(*id).inputs[0];
                let element = self.elements.element(value, &at)?;
                if let Some((_, array)) = to {
                    self.elements.builder.store_shared(array, own, element);
                }
                let dtype = graph.ty(value).dtype;
                let start = self.elements.neutral(reduce.function, dtype);
                let builder = &mut self.elements.builder;
                let before = builder.scaled(number, passes.lanes as i32);
                let so_far = builder.add(before, lane);
                let known = builder.load_shared(sums, so_far, "so_far");
                let is_first = builder.index(IndexFn::Eq, part, zero);
                let known = builder.select(is_first, start, known);
                let next = self.elements.combined(reduce.function, dtype, known, element);
                self.elements.builder.store_shared(sums, so_far, next);
            }
            (Pass::Write(values), _) => {
                values.iter().try_for_each(|&value| self.elements.store(value, &at))?;
            }
            (Pass::Reduce(..), None) => {}
        }
        if guarded {
            self.elements.builder.end();
        }
        self.elements.builder.end();
        self.elements.close();
        self.kept.extend(to);
        if let (Pass::Reduce(id, reduce), Some((dtype, sums))) = (&all[place], sums) {
            self.put_together((*id, reduce), sums)?;
            self.give_back((dtype, passes.rows as u32 * passes.lanes), sums);
        }
        Ok(())
    }

    /// Puts together what lanes have combined of each row, and computes what follows for whole rows alone.
    fn put_together(&mut self, (id, reduce): (NodeId, &Reduce), sums: SharedId) -> Result<(), TargetError> {
        let passes = self.passes;
        let graph = self.elements.graph();
        let node = graph.node(id);
        let ty = graph.ty(node.inputs[0]);
        let own = passes.nodes.iter().position(|&other| other == id).unwrap_or(0);
        let is_single = |id: &NodeId| !passes.is_whole(graph, graph.node(*id).output());
        let is_reduction = |id: &NodeId| matches!(graph.node(*id).op, Op::Reduce(_));
        let (now, then) = match passes.nodes[own + 1..].iter().position(is_reduction) {
            Some(count) => passes.nodes[own + 1..].split_at(count),
            None => (&passes.nodes[own + 1..], &[][..]),
        };
        let now: Vec<NodeId> = [id].into_iter().chain(now.iter().copied().filter(is_single)).collect();
        let outputs = if then.is_empty() { self.outputs.clone() } else { Vec::new() };
        // What elements, or rows of later reductions, are computed from, and what is written with those.
        let is_used = |value: ValueId| {
            let uses = |id: &NodeId| graph.node(*id).inputs.contains(&value);
            let is_written = !then.is_empty() && self.outputs.contains(&value);
            is_written || passes.nodes.iter().any(|id| uses(id) && !is_single(id)) || then.iter().any(uses)
        };
        let values = now.iter().map(|&id| graph.node(id).output());
        let new: Vec<ValueId> = values.filter(|&value| is_used(value)).collect();
        let new: Vec<(ValueId, SharedId)> = new
            .into_iter()
            .map(|value| (value, self.array("of_rows", wide(graph.ty(value).dtype), passes.rows as u32)))
            .collect();
        let scratch = self.elements.builder.shared("scratch", wide(ty.dtype), passes.lanes);
        let builder = &mut self.elements.builder;
        let (zero, lane, end) = (builder.integer(0), builder.thread(), builder.integer(passes.rows as i32));
        let number = builder.loop_over("row", zero, end, 1);
        self.elements.open();
        let (row, is_row) = self.row(number, true);
        let operands = now.iter().flat_map(|&id| graph.node(id).inputs.iter().copied());
        let needs: HashSet<ValueId> = operands.chain(outputs.iter().copied()).collect();
        self.hold_single(&needs, number, &row);
        let builder = &mut self.elements.builder;
        let before = builder.scaled(number, passes.lanes as i32);
        let from = builder.add(before, lane);
        let combined = builder.load_shared(sums, from, "combined");
        let all = builder.declare("all", Scalar::of(ty.dtype), combined);
        builder.reduce(all, fold_of(reduce.function), ty.dtype, passes.lanes, scratch);
        let all = builder.get(all);
        let result = self.elements.finished(reduce, ty, all);
        let name = self.elements.name(node.output());
        let result = self.elements.builder.keep(&name, Scalar::of(ty.dtype), result);
        self.elements.hold(node.output(), &row, result);
        let known = now.iter().map(|&id| self.elements.element(graph.node(id).output(), &row));
        let known: Vec<ExprId> = known.collect::<Result<_, _>>()?;
        let is_first = self.elements.builder.index(IndexFn::Eq, lane, zero);
        self.elements.builder.when(is_first);
        for &(value, array) in &new {
            let place = now.iter().position(|&id| graph.node(id).output() == value).unwrap_or(0);
            self.elements.builder.store_shared(array, number, known[place]);
        }
        let guarded = !outputs.is_empty() && self.elements.builder.known_index(is_row).is_none();
        if guarded {
            self.elements.builder.when(is_row);
        }
        outputs.iter().try_for_each(|&output| self.elements.store(output, &row))?;
        if guarded {
            self.elements.builder.end();
        }
        self.elements.builder.end();
        self.elements.close();
        self.single.extend(new);
        Ok(())
    }
}
