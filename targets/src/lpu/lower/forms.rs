//! In which forms a value is stored as it is computed: as it is, or as matrix units multiply it, where that is known to be wanted.

use tcc_ir::ops::MatMul;
use tcc_ir::{Anchor, DType, Node, NodeId, Op, Shape as Dims, ValueId, View, is_view};

use super::access::distinct;
use super::product::TWIN_PASSES;
use super::{Lease, Lowering, Shape, Thrift, is_elementwise};
use crate::lpu::isa::Hemisphere;
use crate::lpu::layout::Layout;
use crate::stored::storage;

/// One form of a value.
pub(super) struct Form {
    /// The elements that are stored.
    pub dtype: DType,
    /// On which side, if it matters.
    pub side: Option<Hemisphere>,
    /// As what it is known to products, by the view that they read it with; none for the value itself.
    keys: Vec<(View, Shape)>,
    /// Whether it is the value itself.
    own: bool,
    /// Whether lanes behind the last column must be 0.
    pub masked: bool,
}

impl Lowering<'_> {
    /// The forms that a value is wanted in. What only products read is stored as they multiply it.
    pub(super) fn forms(&self, value: ValueId) -> Vec<Form> {
        let ty = self.graph.ty(value);
        let native = storage(ty.dtype);
        let own = |dtype, side, keys| Form { dtype, side, masked: side.is_some(), keys, own: true };
        if !matches!(ty.dtype, DType::F32 | DType::F16) {
            return vec![own(native, None, Vec::new())];
        }
        let halves = ty.dtype == DType::F16 || self.is_only_multiplied(value) || self.is_halved(value);
        let streamed = self.streamed(value);
        if streamed.is_empty() {
            return vec![own(if halves { DType::F16 } else { native }, None, Vec::new())];
        }
        let other = |side, keys| Form { dtype: DType::F16, side: Some(side), masked: true, keys, own: false };
        let twins = streamed.iter().map(|(view, _)| (view.clone(), Shape::Twin(DType::F16))).collect();
        let rows = streamed.into_iter().map(|(_, part)| (part, Shape::Operand(DType::F16))).collect();
        let twin = other(Hemisphere::East, twins);
        let mut forms = if halves {
            vec![own(DType::F16, Some(Hemisphere::West), rows)]
        } else {
            vec![own(native, None, Vec::new()), other(Hemisphere::West, rows)]
        };
        if self.has_twins() {
            forms.push(twin);
        }
        forms
    }

    /// Remembers where a form of a value lies.
    pub(super) fn record(&mut self, value: ValueId, form: &Form, layout: &Lease) {
        // The same memory under several names is given back once.
        if form.own {
            self.values[value.index()] = Some(layout.clone());
        } else {
            self.leases.entry(value).or_default().push(layout.clone());
        }
        for (view, shape) in &form.keys {
            self.made.insert((value, view.clone(), *shape), layout.clone());
        }
    }

    /// Whether a value is stored as halves since memory is short: one that kernels of products and norms hand to each other.
    fn is_halved(&self, value: ValueId) -> bool {
        let kernel = &self.plan.kernels[self.kernel as usize];
        let between = matches!(kernel.anchor, Anchor::Contraction(_) | Anchor::Reduction(_) | Anchor::Normalization(_));
        let Some(node) = self.graph.producer(value).filter(|_| self.thrift == Thrift::Frugal && between) else {
            return false;
        };
        let reads = |op: &Op| is_elementwise(op) || matches!(op, Op::MatMul(_) | Op::Attention(_) | Op::Reduce(_));
        let roots = self.graph.outputs().iter().map(|output| self.plan.access(output.value).root);
        Layout::matrix(self.graph.shape(value)).1 > 1
            && roots.into_iter().all(|root| root != value)
            && !self.copied.contains(&value)
            && self.users(node).iter().all(|&user| reads(&self.graph.node(user).op))
    }

    /// Whether products are all that reads a value.
    pub(super) fn is_only_multiplied(&self, value: ValueId) -> bool {
        let Some(node) = self.graph.producer(value) else { return false };
        let is_output = |value: ValueId| self.graph.outputs().iter().any(|output| output.value == value);
        let mut waiting = vec![node];
        let mut multiplied = false;
        while let Some(node) = waiting.pop() {
            if self.graph.node(node).outputs.iter().any(|&output| is_output(output)) {
                return false;
            }
            for user in self.graph.users(node) {
                match &self.graph.node(user).op {
                    Op::MatMul(_) => multiplied = true,
                    Op::Attention(_) => {
                        let own = |input: &ValueId| self.graph.node(node).outputs.contains(input);
                        if self.graph.node(user).inputs.iter().skip(3).any(own) {
                            return false;
                        }
                        multiplied = true;
                    }
                    op if is_view(op) => waiting.push(user),
                    _ => return false,
                }
            }
        }
        multiplied && !self.copied.contains(&value)
    }

    /// How large products read a value as the rows that are streamed, if it lies as they want it: the view of the operand, and
    /// what is distinct of it.
    fn streamed(&self, value: ValueId) -> Vec<(View, View)> {
        let Some(producer) = self.graph.producer(value) else { return Vec::new() };
        let matrix = Layout::matrix(self.graph.shape(value));
        let mut found: Vec<(View, View)> = Vec::new();
        for user in self.users(producer) {
            let node = self.graph.node(user);
            if matches!(node.op, Op::Attention(_)) {
                let keys = self.key_rows(node).filter(|(root, _)| *root == value);
                let lies = |view: &View| view.is_dense() && Layout::matrix(view.shape()) == matrix;
                found.extend(keys.filter(|(_, view)| lies(view)).map(|(_, view)| (view.clone(), view)));
                continue;
            }
            let Some((view, part, passes)) = self.rows_view(node, value) else { continue };
            let lies = part.is_dense() && Layout::matrix(part.shape()) == matrix;
            if lies && passes >= TWIN_PASSES && !found.iter().any(|(known, _)| *known == view) {
                found.push((view, part));
            }
        }
        found
    }

    /// How a product of floats reads a value as its rows, and how often rows go through a plane.
    fn rows_view(&self, node: &Node, value: ValueId) -> Option<(View, View, usize)> {
        let Op::MatMul(product) = &node.op else { return None };
        let (a, b) = (*node.inputs.first()?, *node.inputs.get(1)?);
        let access = self.plan.access(a);
        if access.root != value {
            return None;
        }
        let dims = MatMul::dims(product, self.graph.ty(a), self.graph.ty(b)).ok()?;
        let shape = Dims::new(dims.batch.iter().copied().chain([dims.m, dims.k])).ok()?;
        let part = distinct(&access.view.broadcast(&shape)?);
        let passes = dims.batch.count() * dims.m * dims.n.div_ceil(self.lanes());
        Some((access.view.clone(), part, passes))
    }

    /// The nodes that use a node's results, seen through views.
    pub(super) fn users(&self, node: NodeId) -> Vec<NodeId> {
        let mut users = Vec::new();
        let mut waiting = vec![node];
        while let Some(node) = waiting.pop() {
            for user in self.graph.users(node) {
                if is_view(&self.graph.node(user).op) { waiting.push(user) } else { users.push(user) }
            }
        }
        users
    }
}
