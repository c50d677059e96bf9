//! Straightforward fusion: cuts a legal graph into kernels in one walk.
//!
//! Movement that only changes indices becomes part of the accesses. An element-wise node joins the kernel that computes
//! its latest operand when both walk the same elements; so does a reduction whose rows fit on chip. Kernels are numbered
//! in an order in which they can run, and a node only ever joins the youngest kernel it depends on, so no kernel comes
//! to depend on itself. What follows from constants alone is in none.

use tcc_ir::{Access, Anchor, Bytes, Graph, Kernel, Node, NodeId, Op, Plan, Shape, ValueId, View, is_view};

use crate::assemble::{anchor_of, derived_constants};

/// What fusion must know of the machine.
#[derive(Clone, Copy, Debug)]
pub struct FusionLimits {
    /// Bytes that the values of one kernel may take on chip along the axes it reduces.
    pub row_bytes: Bytes,
    /// Most nodes in one kernel.
    pub nodes: usize,
}

/// Cuts `graph` into kernels.
pub fn fuse(graph: Graph, limits: FusionLimits) -> Plan {
    let mut fusion = Fusion {
        home: vec![None; graph.value_count()],
        accesses: graph
            .values()
            .map(|(id, value)| Access { root: id, view: View::dense(value.ty.shape.clone()) })
            .collect(),
        kernels: Vec::new(),
        limits,
        derived: derived_constants(&graph),
        graph: &graph,
    };
    for (id, node) in graph.nodes() {
        fusion.place(id, node);
    }
    for output in graph.outputs() {
        fusion.materialize(output.value);
    }
    let Fusion { accesses, mut kernels, home, .. } = fusion;
    mark_outputs(&graph, &accesses, &home, &mut kernels);
    let kernels = kernels.into_iter().map(|open| open.kernel).collect();
    Plan { graph, kernels, accesses }
}

/// A kernel that may still grow.
struct OpenKernel {
    kernel: Kernel,
    /// Extents of what it walks.
    domain: Shape,
    /// Axes of the domain that it reduces.
    reduced: Vec<usize>,
    /// Bytes of all its values for one element of the domain.
    element_bytes: usize,
    /// Number of its nodes.
    nodes: usize,
    /// Whether more nodes may join.
    open: bool,
}

struct Fusion<'a> {
    graph: &'a Graph,
    limits: FusionLimits,
    /// Which values follow from constants alone.
    derived: Vec<bool>,
    accesses: Vec<Access>,
    kernels: Vec<OpenKernel>,
    /// The kernel that computes each value, if one does.
    home: Vec<Option<usize>>,
}

impl Fusion<'_> {
    fn place(&mut self, id: NodeId, node: &Node) {
        if is_view(&node.op) {
            self.place_view(node);
            return;
        }
        if self.derived[node.output().index()] {
            return;
        }
        let anchor = anchor_of(id, &node.op);
        match anchor {
            None => {
                if !self.join(id, node, None) {
                    self.start(Anchor::ElementWise, id, node);
                }
            }
            Some(Anchor::Reduction(_)) => {
                let Op::Reduce(reduce) = &node.op else { return };
                if !self.join(id, node, Some(&reduce.axes)) {
                    self.start(Anchor::Reduction(id), id, node);
                }
            }
            Some(anchor) => self.start(anchor, id, node),
        }
    }

    /// A view is read through its operand's access, which is written out first if it cannot be seen through.
    fn place_view(&mut self, node: &Node) {
        let (input, output) = (node.inputs[0], node.output());
        let shape = self.graph.shape(output);
        let access = &self.accesses[input.index()];
        let root = access.root;
        if let Some(view) = access.view.through(&node.op, shape) {
            self.accesses[output.index()] = Access { root, view };
            return;
        }
        self.materialize(input);
        // A dense view is seen through by every view operator.
        if let Some(view) = View::dense(self.graph.shape(input).clone()).through(&node.op, shape) {
            self.accesses[output.index()] = Access { root: input, view };
        }
    }

    /// Writes a view out densely in a kernel of its own, into a buffer that goes by the view's value. Readers placed
    /// before keep their access.
    fn materialize(&mut self, value: ValueId) {
        if self.home[value.index()].is_some() {
            return;
        }
        let source = self.accesses[value.index()].clone();
        if source.root == value {
            return;
        }
        if self.derived[value.index()] {
            self.accesses[value.index()] = Access { root: value, view: View::dense(self.graph.shape(value).clone()) };
            return;
        }
        self.home[value.index()] = Some(self.kernels.len());
        let anchor = Anchor::Copy { value, source: Box::new(source) };
        let kernel = Kernel { anchor, prologue: Vec::new(), epilogue: Vec::new(), outputs: vec![value], segment: 0 };
        let domain = self.graph.shape(value).clone();
        self.kernels.push(OpenKernel { kernel, domain, reduced: Vec::new(), element_bytes: 0, nodes: 0, open: false });
    }

    fn start(&mut self, anchor: Anchor, id: NodeId, node: &Node) {
        let graph = self.graph;
        let element_wise = anchor == Anchor::ElementWise;
        let reduction = matches!(anchor, Anchor::Reduction(_));
        let open = element_wise || reduction || matches!(anchor, Anchor::Contraction(_));
        let mut kernel = Kernel { anchor, prologue: Vec::new(), epilogue: Vec::new(), outputs: Vec::new(), segment: 0 };
        if element_wise {
            kernel.epilogue.push(id);
        }
        let (domain, reduced) = match &node.op {
            Op::Reduce(reduce) => (graph.shape(node.inputs[0]).clone(), reduce.axes.clone()),
            _ => (graph.shape(node.output()).clone(), Vec::new()),
        };
        let index = self.kernels.len();
        for &output in &node.outputs {
            self.home[output.index()] = Some(index);
        }
        let mut started = OpenKernel { kernel, domain, reduced, element_bytes: 0, nodes: 1, open };
        started.element_bytes = self.element_bytes(node, &started.domain);
        // Rows that do not fit are reduced piece by piece, which leaves nothing on chip to join.
        if reduction && !self.fits(&started, &[], 0) {
            started.open = false;
        }
        self.kernels.push(started);
    }

    /// Bytes on chip that a node adds for each element of the domain: its operands and results.
    fn element_bytes(&self, node: &Node, domain: &Shape) -> usize {
        node.inputs
            .iter()
            .chain(&node.outputs)
            .filter(|&&value| self.graph.shape(value).count() == domain.count())
            .map(|&value| self.graph.ty(value).dtype.bytes(2).div_ceil(2).max(1) * 2)
            .sum()
    }

    fn fits(&self, kernel: &OpenKernel, more_reduced: &[usize], more_bytes: usize) -> bool {
        let row: usize = (0..kernel.domain.rank())
            .filter(|axis| kernel.reduced.contains(axis) || more_reduced.contains(axis))
            .map(|axis| kernel.domain[axis])
            .product();
        row.saturating_mul(kernel.element_bytes + more_bytes) as u64 <= self.limits.row_bytes.0
    }

    /// Adds a node to the youngest kernel that it depends on, if that walks the same elements.
    fn join(&mut self, id: NodeId, node: &Node, reduce_axes: Option<&Vec<usize>>) -> bool {
        let graph = self.graph;
        let home_of = |input: &ValueId| self.home[self.accesses[input.index()].root.index()];
        let youngest = node.inputs.iter().filter_map(home_of).max();
        let Some(index) = youngest else { return false };
        let kernel = &self.kernels[index];
        if !kernel.open || kernel.nodes >= self.limits.nodes {
            return false;
        }
        let contraction = matches!(kernel.kernel.anchor, Anchor::Contraction(_));
        if contraction && reduce_axes.is_some() {
            return false;
        }
        // What comes out must lie in the kernel's domain: along each axis all of it, or one element.
        let domain = &kernel.domain;
        let lies_in = |shape: &Shape| {
            shape.rank() == domain.rank()
                && shape.iter().zip(domain.iter()).all(|(&dim, &whole)| dim == whole || dim == 1)
        };
        let output = graph.shape(node.output());
        if !lies_in(output) || (contraction && output != domain) {
            return false;
        }
        // A value of the kernel itself can only be used as it is, since just the current tile of it is on chip.
        let own_as_is = node.inputs.iter().all(|&input| {
            let access = &self.accesses[input.index()];
            self.home[access.root.index()] != Some(index) || (access.root == input && lies_in(graph.shape(input)))
        });
        if !own_as_is {
            return false;
        }
        // Operands from outside must broadcast into what the node walks.
        let walked = if reduce_axes.is_some() { graph.shape(node.inputs[0]) } else { output };
        if reduce_axes.is_some() && walked != domain {
            return false;
        }
        let more_bytes = self.element_bytes(node, domain);
        let axes = reduce_axes.map_or(&[][..], |axes| &axes[..]);
        let reduces = !kernel.reduced.is_empty() || !axes.is_empty();
        if reduces && !self.fits(kernel, axes, more_bytes) {
            return false;
        }
        let kernel = &mut self.kernels[index];
        kernel.element_bytes += more_bytes;
        kernel.nodes += 1;
        for &axis in axes {
            if !kernel.reduced.contains(&axis) {
                kernel.reduced.push(axis);
            }
        }
        match &kernel.kernel.anchor {
            Anchor::ElementWise if reduce_axes.is_some() => {
                kernel.kernel.prologue = std::mem::take(&mut kernel.kernel.epilogue);
                kernel.kernel.anchor = Anchor::Reduction(id);
            }
            _ => kernel.kernel.epilogue.push(id),
        }
        for &result in &node.outputs {
            self.home[result.index()] = Some(index);
        }
        true
    }
}

/// Finds out which values leave the kernel that computes them.
fn mark_outputs(graph: &Graph, accesses: &[Access], home: &[Option<usize>], kernels: &mut [OpenKernel]) {
    let mut leaves = vec![false; graph.value_count()];
    for (_, node) in graph.nodes() {
        if is_view(&node.op) {
            continue;
        }
        let reader = home[node.output().index()];
        for &input in &node.inputs {
            let root = accesses[input.index()].root;
            if home[root.index()] != reader {
                leaves[root.index()] = true;
            }
        }
    }
    for kernel in kernels.iter() {
        if let Anchor::Copy { source, .. } = &kernel.kernel.anchor {
            leaves[source.root.index()] = true;
        }
    }
    for output in graph.outputs() {
        leaves[output.value.index()] = true;
    }
    for (id, _) in graph.values() {
        if let (true, Some(kernel)) = (leaves[id.index()], home[id.index()])
            && !matches!(kernels[kernel].kernel.anchor, Anchor::Copy { .. })
        {
            kernels[kernel].kernel.outputs.push(id);
        }
    }
}
