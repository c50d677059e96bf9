//! From groups of nodes to a plan: how every value is read, what leaves its kernel, and in which order kernels run.
//!
//! Whoever decides what is fused hands the decision in as [`Group`]s; everything that follows from it is found here.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use smallvec::SmallVec;
use tcc_ir::{Access, Anchor, Graph, Kernel, NodeId, Op, Plan, ValueId, View, is_view};

/// The nodes of one kernel, before it is known what the kernel reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What the kernel is built around: anything but a copy.
    pub anchor: Anchor,
    /// Nodes before the anchor, in topological order.
    pub prologue: Vec<NodeId>,
    /// Nodes after the anchor, in topological order.
    pub epilogue: Vec<NodeId>,
    /// The stretch of the graph that it comes from, counted from 0.
    pub segment: u32,
}

impl Group {
    /// All nodes, in topological order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.prologue.iter().copied().chain(self.anchor.node()).chain(self.epilogue.iter().copied())
    }
}

/// Why groups make no plan. This is always a defect of whoever made the groups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A node that computes something is in no kernel.
    #[error("node `{0}` is in no kernel; this is a defect in tcc, please report it")]
    Homeless(String),
    /// Kernels need each other's results.
    #[error("the kernel of node `{0}` depends on itself; this is a defect in tcc, please report it")]
    Cycle(String),
}

/// The anchor of a node, or `None` for element-wise work.
pub fn anchor_of(id: NodeId, op: &Op) -> Option<Anchor> {
    match op {
        Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_) => None,
        Op::Reduce(_) => Some(Anchor::Reduction(id)),
        Op::MatMul(_) | Op::Conv(_) => Some(Anchor::Contraction(id)),
        Op::Attention(_) => Some(Anchor::Attention(id)),
        Op::Softmax(_) | Op::LayerNorm(_) | Op::RmsNorm(_) => Some(Anchor::Normalization(id)),
        Op::ArgReduce(_) | Op::CumSum(_) | Op::TopK(_) => Some(Anchor::Selection(id)),
        _ => Some(Anchor::Movement(id)),
    }
}

/// Values that follow from constants alone. Nothing computes them at run time: they are packed with the weights.
pub fn derived_constants(graph: &Graph) -> Vec<bool> {
    let mut derived = vec![false; graph.value_count()];
    for (id, _) in graph.values() {
        derived[id.index()] = graph.as_constant(id).is_some();
    }
    for (_, node) in graph.nodes() {
        let all = node.inputs.iter().all(|input| derived[input.index()]);
        node.outputs.iter().for_each(|output| derived[output.index()] = all);
    }
    derived
}

/// Makes a plan of `groups`, which hold every node once that is no view and does not follow from constants alone. No
/// group may need, through others, a result of its own.
///
/// A value whose elements are, rearranged, a result of the graph lies in that result's buffer: its own access then has the
/// result as root, and kernels write it through that.
///
/// # Errors
/// See [`AssembleError`].
pub fn assemble(graph: Graph, groups: Vec<Group>) -> Result<Plan, AssembleError> {
    assemble_by(graph, groups, true)
}

/// [`assemble`] for a target whose kernels write what they compute as it is: results of the graph that are other values
/// rearranged are written by copies.
///
/// # Errors
/// See [`AssembleError`].
pub fn assemble_with_copies(graph: Graph, groups: Vec<Group>) -> Result<Plan, AssembleError> {
    assemble_by(graph, groups, false)
}

/// Makes a plan, in which results may be written through views of them or not.
fn assemble_by(graph: Graph, groups: Vec<Group>, through_views: bool) -> Result<Plan, AssembleError> {
    let derived = derived_constants(&graph);
    let mut home: Vec<Option<usize>> = vec![None; graph.value_count()];
    for (index, group) in groups.iter().enumerate() {
        for node in group.nodes() {
            graph.node(node).outputs.iter().for_each(|output| home[output.index()] = Some(index));
        }
    }
    let mut assembly = Assembly {
        accesses: graph
            .values()
            .map(|(id, value)| Access { root: id, view: View::dense(value.ty.shape.clone()) })
            .collect(),
        home,
        copies: Vec::new(),
        copies_of: HashMap::new(),
        first_copy: groups.len(),
        derived: &derived,
        graph: &graph,
    };
    for (_, node) in graph.nodes() {
        if is_view(&node.op) {
            assembly.see_through(node.inputs[0], &node.op, node.output());
        } else if !derived[node.output().index()] && assembly.home[node.output().index()].is_none() {
            return Err(AssembleError::Homeless(node.origin.to_string()));
        }
    }
    let stored = assembly.place_outputs(through_views);
    let Assembly { accesses, home, copies, .. } = assembly;
    let mut kernels: Vec<Kernel> = groups
        .into_iter()
        .map(|Group { anchor, prologue, epilogue, segment }| Kernel {
            anchor,
            prologue,
            epilogue,
            outputs: Vec::new(),
            segment,
        })
        .collect();
    kernels.extend(copies);
    mark_outputs(&graph, &accesses, &home, &derived, &stored, &mut kernels);
    let order = order(&graph, &accesses, &home, &kernels)?;
    let mut slots: Vec<Option<Kernel>> = kernels.into_iter().map(Some).collect();
    let mut kernels: Vec<Kernel> = order.into_iter().filter_map(|index| slots[index].take()).collect();
    // A copy goes with what runs before it.
    let mut segment = kernels.first().map_or(0, |kernel| kernel.segment);
    for kernel in &mut kernels {
        match kernel.anchor {
            Anchor::Copy { .. } => kernel.segment = segment,
            _ => segment = kernel.segment,
        }
    }
    Ok(Plan { graph, kernels, accesses })
}

struct Assembly<'a> {
    graph: &'a Graph,
    accesses: Vec<Access>,
    /// The kernel that computes each value, if one does.
    home: Vec<Option<usize>>,
    /// Kernels that write views out, which are numbered after the groups.
    copies: Vec<Kernel>,
    /// Which of them read each value.
    copies_of: HashMap<ValueId, Vec<usize>>,
    first_copy: usize,
    derived: &'a [bool],
}

impl Assembly<'_> {
    /// A view is read through its operand's access, which is written out first if it cannot be seen through.
    fn see_through(&mut self, input: ValueId, op: &Op, output: ValueId) {
        let shape = self.graph.shape(output);
        let Access { root, view } = &self.accesses[input.index()];
        let root = *root;
        if let Some(view) = view.through(op, shape) {
            self.accesses[output.index()] = Access { root, view };
            return;
        }
        self.materialize(input);
        // A dense view is seen through by every view operator.
        if let Some(view) = View::dense(self.graph.shape(input).clone()).through(op, shape) {
            self.accesses[output.index()] = Access { root: input, view };
        }
    }

    /// Finds places for the results of the graph that are views: in the buffer of such a result lies the value that it is
    /// a view of, or it is written out. Returns the values that lie so, by the result whose buffer they lie in.
    fn place_outputs(&mut self, through_views: bool) -> HashMap<ValueId, ValueId> {
        let graph = self.graph;
        let mut is_output = vec![false; graph.value_count()];
        graph.outputs().iter().for_each(|output| is_output[output.value.index()] = true);
        // What kernels compute that results are views of: it may lie in their buffers.
        let mut viewed = vec![false; graph.value_count()];
        for output in graph.outputs() {
            let root = self.accesses[output.value.index()].root;
            let computed = self.home[root.index()].is_some_and(|kernel| kernel < self.first_copy);
            viewed[root.index()] |= computed && root != output.value && !is_output[root.index()];
        }
        let mut stored = HashMap::new();
        if !through_views || !viewed.contains(&true) {
            graph.outputs().iter().for_each(|output| self.materialize(output.value));
            return stored;
        }
        let mut readers: HashMap<ValueId, Vec<ValueId>> = HashMap::new();
        for (id, _) in graph.values() {
            let root = self.accesses[id.index()].root;
            if root != id && viewed[root.index()] {
                readers.entry(root).or_default().push(id);
            }
        }
        let mut leaves = leaving(graph, &self.accesses, &self.home, self.derived);
        self.copies_of.keys().for_each(|root| leaves[root.index()] = true);
        for output in graph.outputs() {
            let root = self.accesses[output.value.index()].root;
            let free = viewed[root.index()] && self.home[output.value.index()].is_none();
            let others = readers.get(&root).map_or(&[][..], |readers| readers);
            if free && self.store_within(root, output.value, others, leaves[root.index()]) {
                stored.insert(output.value, root);
            } else {
                self.materialize(output.value);
            }
        }
        stored
    }

    /// Lets `root` lie in the buffer of `output`, a view of it, if that has place for every element. All that is read
    /// from `root`'s buffer is then read from there, which must have strides for that. Where other kernels read it too
    /// (`leaves`), what is contiguous for them must stay so.
    fn store_within(&mut self, root: ValueId, output: ValueId, readers: &[ValueId], leaves: bool) -> bool {
        let Some(place) = self.accesses[output.index()].view.inverse(self.graph.shape(root).clone()) else {
            return false;
        };
        if leaves && place.atoms().last().is_some_and(|atom| atom.stride != 1) {
            return false;
        }
        let moved = |access: &Access| access.view.compose(&place).map(|view| Access { root: output, view });
        let Some(accesses) =
            readers.iter().map(|reader| moved(&self.accesses[reader.index()])).collect::<Option<Vec<_>>>()
        else {
            return false;
        };
        // Views that are written out for other reasons read it too.
        let mut sources = Vec::new();
        for &index in self.copies_of.get(&root).map_or(&[][..], |copies| copies) {
            if let Anchor::Copy { source, .. } = &self.copies[index].anchor {
                let Some(source) = moved(source) else { return false };
                sources.push((index, source));
            }
        }
        for (&reader, access) in readers.iter().zip(accesses) {
            self.accesses[reader.index()] = access;
        }
        for (index, moved) in sources {
            if let Anchor::Copy { source, .. } = &mut self.copies[index].anchor {
                **source = moved;
            }
        }
        self.accesses[root.index()] = Access { root: output, view: place };
        self.accesses[output.index()] = Access { root: output, view: View::dense(self.graph.shape(output).clone()) };
        self.home[output.index()] = self.home[root.index()];
        true
    }

    /// Writes a view out densely in a kernel of its own, into a buffer that goes by the view's value. Readers placed
    /// before keep their access.
    fn materialize(&mut self, value: ValueId) {
        let source = self.accesses[value.index()].clone();
        if self.home[value.index()].is_some() || source.root == value {
            return;
        }
        if self.derived[value.index()] {
            self.accesses[value.index()] = Access { root: value, view: View::dense(self.graph.shape(value).clone()) };
            return;
        }
        self.home[value.index()] = Some(self.first_copy + self.copies.len());
        self.copies_of.entry(source.root).or_default().push(self.copies.len());
        let anchor = Anchor::Copy { value, source: Box::new(source) };
        let (prologue, epilogue) = (Vec::new(), Vec::new());
        self.copies.push(Kernel { anchor, prologue, epilogue, outputs: vec![value], segment: 0 });
    }
}

/// Whether another kernel than the one that computes it reads each value from memory.
fn leaving(graph: &Graph, accesses: &[Access], home: &[Option<usize>], derived: &[bool]) -> Vec<bool> {
    let mut leaves = vec![false; graph.value_count()];
    for (_, node) in graph.nodes() {
        let reader = home[node.output().index()];
        if is_view(&node.op) || derived[node.output().index()] {
            continue;
        }
        for &input in &node.inputs {
            let root = accesses[input.index()].root;
            if home[root.index()] != reader {
                leaves[root.index()] = true;
            }
        }
    }
    leaves
}

/// Finds out which values leave the kernel that computes them. What lies in the buffer of a result leaves in its place.
fn mark_outputs(
    graph: &Graph,
    accesses: &[Access],
    home: &[Option<usize>],
    derived: &[bool],
    stored: &HashMap<ValueId, ValueId>,
    kernels: &mut [Kernel],
) {
    let mut leaves = leaving(graph, accesses, home, derived);
    for kernel in kernels.iter() {
        if let Anchor::Copy { source, .. } = &kernel.anchor {
            leaves[source.root.index()] = true;
        }
    }
    for output in graph.outputs() {
        leaves[output.value.index()] = true;
    }
    for (id, _) in graph.values() {
        if let (true, Some(kernel)) = (leaves[id.index()], home[id.index()])
            && !matches!(kernels[kernel].anchor, Anchor::Copy { .. })
        {
            kernels[kernel].outputs.push(stored.get(&id).copied().unwrap_or(id));
        }
    }
}

/// An order in which the kernels can run: of those that are ready, the one whose first result comes first in the graph.
fn order(
    graph: &Graph,
    accesses: &[Access],
    home: &[Option<usize>],
    kernels: &[Kernel],
) -> Result<Vec<usize>, AssembleError> {
    let mut users: Vec<SmallVec<[u32; 4]>> = vec![SmallVec::new(); kernels.len()];
    let mut missing = vec![0usize; kernels.len()];
    let mut first = Vec::with_capacity(kernels.len());
    // The last kernel that each was seen to be needed by.
    let mut seen = vec![None; kernels.len()];
    for (index, kernel) in kernels.iter().enumerate() {
        let copied = match &kernel.anchor {
            Anchor::Copy { source, .. } => Some(source.root),
            _ => None,
        };
        let inputs = kernel.nodes().flat_map(|node| graph.node(node).inputs.iter());
        for root in inputs.map(|input| accesses[input.index()].root).chain(copied) {
            if let Some(source) = home[root.index()].filter(|&source| source != index)
                && seen[source].replace(index) != Some(index)
            {
                users[source].push(index as u32);
                missing[index] += 1;
            }
        }
        let values = kernel.nodes().map(|node| graph.node(node).output()).chain(kernel.outputs.iter().copied());
        first.push(values.map(ValueId::index).min().unwrap_or(0));
    }
    let mut ready: BinaryHeap<Reverse<(usize, usize)>> =
        (0..kernels.len()).filter(|&index| missing[index] == 0).map(|index| Reverse((first[index], index))).collect();
    let mut order = Vec::with_capacity(kernels.len());
    while let Some(Reverse((_, index))) = ready.pop() {
        order.push(index);
        for user in users[index].iter().map(|&user| user as usize) {
            missing[user] -= 1;
            if missing[user] == 0 {
                ready.push(Reverse((first[user], user)));
            }
        }
    }
    match (0..kernels.len()).find(|&index| missing[index] > 0) {
        Some(index) => {
            let node = kernels[index].nodes().next();
            Err(AssembleError::Cycle(node.map_or_else(String::new, |node| graph.node(node).origin.to_string())))
        }
        None => Ok(order),
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::text;

    use super::*;

    /// Each node that computes something in a kernel of its own.
    fn singly(source: &str) -> Plan {
        let graph = text::parse(source).unwrap();
        let derived = derived_constants(&graph);
        let groups = graph
            .nodes()
            .filter(|(_, node)| !is_view(&node.op) && !derived[node.output().index()])
            .map(|(id, node)| match anchor_of(id, &node.op) {
                Some(anchor) => Group { anchor, prologue: Vec::new(), epilogue: Vec::new(), segment: 0 },
                None => Group { anchor: Anchor::ElementWise, prologue: Vec::new(), epilogue: vec![id], segment: 0 },
            })
            .collect();
        assemble(graph, groups).unwrap()
    }

    #[test]
    fn a_result_holds_the_value_that_it_is_a_view_of() {
        let plan = singly(
            r#"graph "held" {
                input %0 "x": f32[4,6]
                %1: f32[4,6] = neg(%0)
                %2: f32[6,4] = transpose[perm=[1,0]](%1)
                %3: f32[4,3] = slice[starts=[0,2],steps=[1,1],sizes=[4,3]](%1)
                %4: f32[4,3] = exp(%3)
                %5: f32[24] = reshape[shape=[24]](%1)
                output "turned" = %2
                output "part" = %4
                output "flat" = %5
            }"#,
        );
        let kinds: Vec<_> = plan.kernels.iter().map(|kernel| kernel.anchor.kind()).collect();
        assert_eq!(kinds.iter().filter(|&&kind| kind == "element-wise").count(), 2);
        // The transpose would take the runs of the other reader apart, so that the reshape holds the value, and the
        // transpose is written out from there.
        assert_eq!(kinds.iter().filter(|&&kind| kind == "copy").count(), 1);
        let ids: Vec<ValueId> = plan.graph.values().map(|(id, _)| id).collect();
        assert_eq!(plan.access(ids[1]).root, ids[5]);
        assert_eq!(plan.kernels[0].outputs, [ids[1]]);
        assert_eq!((plan.access(ids[3]).root, plan.access(ids[3]).view.offset()), (ids[5], 2));
    }

    #[test]
    fn what_lies_rearranged_is_read_there() {
        let plan = singly(
            r#"graph "rearranged" {
                input %0 "x": f32[5,6]
                %1: f32[5,6] = neg(%0)
                %2: f32[5,3,2] = reshape[shape=[5,3,2]](%1)
                %3: f32[3,5,2] = transpose[perm=[1,0,2]](%2)
                %4: f32[5,6] = exp(%1)
                output "heads" = %3
                output "y" = %4
            }"#,
        );
        assert_eq!(plan.kernels.len(), 2);
        let ids: Vec<ValueId> = plan.graph.values().map(|(id, _)| id).collect();
        let Access { root, view } = plan.access(ids[1]);
        let atoms: Vec<_> = view.atoms().iter().map(|atom| (atom.size, atom.stride)).collect();
        assert_eq!((*root, atoms), (ids[3], vec![(5, 2), (3, 10), (2, 1)]));
        assert!(plan.access(ids[3]).view.is_dense());
    }
}
