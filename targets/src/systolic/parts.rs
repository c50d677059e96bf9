//! Parts of products that are results of the model: keys and values that one product computes together with the queries.
//!
//! A plan writes each such result out in a kernel of its own, since the product does not lie in it as a whole. The product's
//! kernel can as well store the part where it belongs: whatever the result permutes, it holds each element of the part once.

use std::collections::HashSet;

use tcc_ir::ops::Slice;
use tcc_ir::{Access, Anchor, Atom, Graph, Kernel, Op, Plan, Shape, ValueId, View};

use super::SystolicMachine;
use super::layout::storage;
use super::lower::{Slices, row_epilogue_fits};
use super::residence::Residence;

/// Lets products store parts of their rows where a plan has copies of these. What is then read in parts only is not stored
/// as a whole any more.
pub(super) fn store_parts(plan: &mut Plan, machine: &SystolicMachine) {
    let copied: Vec<ValueId> = plan.kernels.iter().filter_map(copied_root).collect();
    if copied.is_empty() {
        return;
    }
    let mut home = vec![None; plan.graph.value_count()];
    for (index, kernel) in plan.kernels.iter().enumerate() {
        for output in kernel.nodes().flat_map(|id| &plan.graph.node(id).outputs) {
            home[output.index()] = Some(index);
        }
    }
    let mut parts = Parts { plan, machine, home };
    let stored: Vec<bool> = (0..parts.plan.kernels.len()).map(|index| parts.store_copied(index).is_some()).collect();
    // What is still copied is read as a whole.
    let mut left: HashSet<ValueId> = HashSet::new();
    let mut roots: Vec<ValueId> = Vec::new();
    for (kernel, stored) in parts.plan.kernels.iter().zip(&stored) {
        match (copied_root(kernel), stored) {
            (Some(root), true) => roots.push(root),
            (Some(root), false) => {
                left.insert(root);
            }
            (None, _) => {}
        }
    }
    roots.sort_unstable();
    roots.dedup();
    roots.retain(|root| !left.contains(root));
    // What stays on chip as a whole is read there in parts.
    let stays = |root: ValueId| {
        let ty = parts.plan.graph.ty(root);
        storage(ty.dtype).bytes(ty.shape.count()) as u64 <= Residence::usual_bytes(machine)
    };
    roots.retain(|&root| !stays(root));
    let readers = parts.readers(&roots);
    for (root, readers) in roots.iter().zip(readers) {
        parts.store_in_parts_only(*root, &readers);
    }
    let mut stored = stored.into_iter();
    plan.kernels.retain(|_| !stored.next().unwrap_or(false));
}

/// What a kernel that is a copy reads.
fn copied_root(kernel: &Kernel) -> Option<ValueId> {
    match &kernel.anchor {
        Anchor::Copy { source, .. } => Some(source.root),
        _ => None,
    }
}

struct Parts<'a> {
    plan: &'a mut Plan,
    machine: &'a SystolicMachine,
    /// The kernel that computes each value that the plan had at first.
    home: Vec<Option<usize>>,
}

impl Parts<'_> {
    /// Lets a product store what the kernel `copy` copies, if that is a part of its rows.
    fn store_copied(&mut self, copy: usize) -> Option<()> {
        let Anchor::Copy { value, source } = &self.plan.kernels[copy].anchor else { return None };
        let (result, root) = (*value, source.root);
        let Part { slice, view } = part_of(&source.view, self.plan.graph.shape(root))?;
        let place = view.inverse(Shape::new(slice.sizes.iter().copied()).ok()?)?;
        self.store_part(root, slice, Some(Access { root: result, view: place }))?;
        Some(())
    }

    /// The kernel that computes a value.
    fn maker(&self, value: ValueId) -> Option<usize> {
        self.home.get(value.index()).copied().flatten()
    }

    /// Lets the kernel that computes `root` store a part of it: where an access says, or in a buffer of its own. Gives the
    /// part's value.
    fn store_part(&mut self, root: ValueId, slice: Slice, access: Option<Access>) -> Option<ValueId> {
        let maker = self.maker(root)?;
        let kernel = &self.plan.kernels[maker];
        let (Anchor::Contraction(anchor), []) = (&kernel.anchor, &kernel.prologue[..]) else { return None };
        let anchor = *anchor;
        let graph = &mut self.plan.graph;
        let whole = graph.shape(root);
        if graph.shape(graph.node(anchor).output()) != whole
            || !row_epilogue_fits(self.machine, *whole.last()?, element_bytes(graph, kernel))
        {
            return None;
        }
        let shape = Shape::new(slice.sizes.iter().copied()).ok()?;
        // If it cannot be stored, a slice is left that nobody uses.
        let part = graph.add(slice, &[root]).ok()?;
        self.plan.accesses.push(access.unwrap_or_else(|| Access { root: part, view: View::dense(shape) }));
        let kernel = &mut self.plan.kernels[maker];
        kernel.outputs.push(part);
        if Slices::new(&self.plan.graph, anchor, &kernel.epilogue, &kernel.outputs).is_err() {
            kernel.outputs.pop();
            return None;
        }
        Some(part)
    }

    /// The values by which other kernels than its own read each root.
    fn readers(&self, roots: &[ValueId]) -> Vec<Vec<ValueId>> {
        let mut numbers = vec![None; self.plan.graph.value_count()];
        roots.iter().enumerate().for_each(|(number, root)| numbers[root.index()] = Some(number));
        let mut readers = vec![Vec::new(); roots.len()];
        for (index, kernel) in self.plan.kernels.iter().enumerate() {
            for &input in kernel.nodes().flat_map(|id| &self.plan.graph.node(id).inputs) {
                let root = self.plan.access(input).root;
                if let Some(number) = numbers[root.index()].filter(|_| self.maker(root) != Some(index)) {
                    readers[number].push(input);
                }
            }
        }
        for readers in &mut readers {
            readers.sort_unstable();
            readers.dedup();
        }
        readers
    }

    /// Stores a value of which parts are results in parts only, if all who read it read one of these, or another part each.
    fn store_in_parts_only(&mut self, root: ValueId, readers: &[ValueId]) {
        let Some(maker) = self.maker(root) else { return };
        let outputs = self.plan.kernels[maker].outputs.clone();
        match self.read_in_parts(root, maker, readers) {
            Some(accesses) => {
                for (reader, access) in accesses {
                    self.plan.accesses[reader.index()] = access;
                }
                self.plan.kernels[maker].outputs.retain(|&output| output != root);
            }
            None => self.plan.kernels[maker].outputs = outputs,
        }
    }

    /// How readers of a value find what they read in parts of it. Parts that are not stored yet are.
    fn read_in_parts(&mut self, root: ValueId, maker: usize, readers: &[ValueId]) -> Option<Vec<(ValueId, Access)>> {
        let is_result = self.plan.graph.outputs().iter().any(|output| output.value == root);
        if self.plan.access(root).root != root || is_result {
            return None;
        }
        let mut accesses = Vec::with_capacity(readers.len());
        for &reader in readers {
            let Part { slice, view } = part_of(&self.plan.access(reader).view, self.plan.graph.shape(root))?;
            let outputs = self.plan.kernels[maker].outputs.iter().copied();
            let known = outputs
                .filter(|&output| output != root)
                .find(|&output| is_slice(&self.plan.graph, output, &slice, root));
            let part = known.or_else(|| self.store_part(root, slice, None))?;
            let place = self.plan.access(part);
            // What is contiguous for the reader must stay so.
            if place.view.atoms().last().is_some_and(|atom| atom.stride != 1) {
                return None;
            }
            accesses.push((reader, Access { root: place.root, view: view.compose(&place.view)? }));
        }
        Some(accesses)
    }
}

/// Whether a value is a slice of another.
fn is_slice(graph: &Graph, value: ValueId, slice: &Slice, of: ValueId) -> bool {
    graph
        .producer(value)
        .map(|id| graph.node(id))
        .is_some_and(|node| matches!(&node.op, Op::Slice(own) if own == slice) && node.inputs[0] == of)
}

/// A part of the rows of a value, as a view reads it.
struct Part {
    /// The part.
    slice: Slice,
    /// How the view's elements are found in it.
    view: View,
}

/// The part of a value of shape `whole` that `view` reads, each element once: consecutive elements of every row.
fn part_of(view: &View, whole: &Shape) -> Option<Part> {
    let (&row, lead) = whole.split_last()?;
    let start = usize::try_from(view.offset()).ok()?;
    let rows: usize = lead.iter().product();
    if rows == 0 || !view.shape().count().is_multiple_of(rows) {
        return None;
    }
    let width = view.shape().count() / rows;
    if width == 0 || width >= row || start + width > row {
        return None;
    }
    // Whatever does not lead to another row leads along one.
    let packed = |atom: &Atom| match (atom.stride / row as i64, atom.stride % row as i64) {
        (rows, 0) => Atom { stride: rows * width as i64, ..*atom },
        _ => *atom,
    };
    let view = View::from_atoms(view.shape().clone(), view.atoms().iter().map(packed));
    let sizes: Vec<usize> = lead.iter().copied().chain([width]).collect();
    view.inverse(Shape::new(sizes.iter().copied()).ok()?)?;
    let mut starts = vec![0; whole.rank()];
    starts[lead.len()] = start;
    Some(Part { slice: Slice { starts, steps: vec![1; whole.rank()], sizes }, view })
}

/// Bytes that one element takes of each value that a kernel computes or reads in its epilogue.
fn element_bytes(graph: &Graph, kernel: &Kernel) -> usize {
    let read = kernel.epilogue.iter().flat_map(|&id| graph.node(id).inputs.to_vec());
    let mut values: Vec<ValueId> = kernel.nodes().flat_map(|id| graph.node(id).outputs.to_vec()).chain(read).collect();
    values.sort_unstable();
    values.dedup();
    values.into_iter().map(|value| storage(graph.ty(value).dtype).bytes(1).max(1)).sum()
}
