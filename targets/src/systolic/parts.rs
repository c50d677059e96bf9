//! Parts of products that are results of the model: keys and values that one product computes together with the queries.
//!
//! A plan writes each such result out in a kernel of its own, since the product does not lie in it as a whole. The product's
//! kernel can as well store the part where it belongs: whatever the result permutes, it holds each element of the part once.

use tcc_ir::ops::Slice;
use tcc_ir::{Access, Anchor, Atom, Graph, Kernel, Op, Plan, Shape, ValueId, View};

use super::SystolicMachine;
use super::layout::storage;
use super::lower::{Slices, row_epilogue_fits};

/// Lets products store parts of their rows where a plan has copies of these. What is then read in parts only is not stored
/// as a whole any more.
pub(super) fn store_parts(plan: &mut Plan, machine: &SystolicMachine) {
    let mut roots: Vec<ValueId> = Vec::new();
    let mut index = 0;
    while index < plan.kernels.len() {
        match store_copied(plan, machine, index) {
            Some(root) => {
                plan.kernels.remove(index);
                roots.push(root);
            }
            None => index += 1,
        }
    }
    roots.sort_unstable();
    roots.dedup();
    roots.into_iter().for_each(|root| store_parts_only(plan, machine, root));
}

/// Lets a product store what the kernel `copy` copies, if that is a part of its rows. Returns what it is a part of.
fn store_copied(plan: &mut Plan, machine: &SystolicMachine, copy: usize) -> Option<ValueId> {
    let Anchor::Copy { value, source } = &plan.kernels[copy].anchor else { return None };
    let (result, root) = (*value, source.root);
    let Part { slice, view } = part_of(&source.view, plan.graph.shape(root))?;
    let place = view.inverse(Shape::new(slice.sizes.iter().copied()).ok()?)?;
    let maker = plan.kernels[..copy].iter().position(|kernel| computes(&plan.graph, kernel, root))?;
    store_part(plan, machine, (maker, root), slice, |_| Access { root: result, view: place })?;
    Some(root)
}

/// Lets the kernel `maker` store a part of its value `root` where an access says, which is made for the part's own value.
fn store_part(
    plan: &mut Plan,
    machine: &SystolicMachine,
    (maker, root): (usize, ValueId),
    slice: Slice,
    access: impl FnOnce(ValueId) -> Access,
) -> Option<()> {
    let kernel = &plan.kernels[maker];
    let (Anchor::Contraction(anchor), []) = (&kernel.anchor, &kernel.prologue[..]) else { return None };
    let whole = plan.graph.shape(root);
    if plan.graph.shape(plan.graph.node(*anchor).output()) != whole {
        return None;
    }
    // The graph stays as it is unless all is well.
    let mut graph = plan.graph.clone();
    let part = graph.add(slice, &[root]).ok()?;
    let mut outputs = kernel.outputs.clone();
    outputs.push(part);
    Slices::new(&graph, *anchor, &kernel.epilogue, &outputs).ok()?;
    if !row_epilogue_fits(machine, *whole.last()?, element_bytes(&graph, kernel)) {
        return None;
    }
    plan.graph = graph;
    plan.accesses.push(access(part));
    plan.kernels[maker].outputs = outputs;
    Some(())
}

/// Stores a value of which parts are results in parts only, if all who read it read one of these, or together one other.
fn store_parts_only(plan: &mut Plan, machine: &SystolicMachine, root: ValueId) {
    let mut changed = plan.clone();
    if read_in_parts(&mut changed, machine, root).is_some() {
        *plan = changed;
    }
}

fn read_in_parts(plan: &mut Plan, machine: &SystolicMachine, root: ValueId) -> Option<()> {
    let maker = plan.kernels.iter().position(|kernel| computes(&plan.graph, kernel, root))?;
    let copies = |kernel: &Kernel| matches!(&kernel.anchor, Anchor::Copy { source, .. } if source.root == root);
    let lies_alone = plan.access(root).root == root && !plan.graph.outputs().iter().any(|output| output.value == root);
    if !lies_alone || plan.kernels.iter().any(copies) {
        return None;
    }
    let others = plan.kernels.iter().enumerate().filter(|&(index, _)| index != maker).map(|(_, kernel)| kernel);
    let mut readers: Vec<ValueId> =
        others.flat_map(Kernel::nodes).flat_map(|id| plan.graph.node(id).inputs.to_vec()).collect();
    readers.retain(|&reader| plan.access(reader).root == root);
    readers.sort_unstable();
    readers.dedup();
    for reader in readers {
        let Part { slice, view } = part_of(&plan.access(reader).view, plan.graph.shape(root))?;
        let known = |plan: &Plan| {
            let outputs = plan.kernels[maker].outputs.iter().copied();
            outputs.filter(|&output| output != root).find(|&output| is_slice(&plan.graph, output, &slice, root))
        };
        if known(plan).is_none() {
            let shape = Shape::new(slice.sizes.iter().copied()).ok()?;
            let dense = |part| Access { root: part, view: View::dense(shape) };
            store_part(plan, machine, (maker, root), slice.clone(), dense)?;
        }
        let place = plan.access(known(plan)?).clone();
        // What is contiguous for the reader must stay so.
        if place.view.atoms().last().is_some_and(|atom| atom.stride != 1) {
            return None;
        }
        plan.accesses[reader.index()] = Access { root: place.root, view: view.compose(&place.view)? };
    }
    plan.kernels[maker].outputs.retain(|&output| output != root);
    Some(())
}

/// Whether a kernel computes a value.
fn computes(graph: &Graph, kernel: &Kernel, value: ValueId) -> bool {
    kernel.nodes().any(|id| graph.node(id).outputs.contains(&value))
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
