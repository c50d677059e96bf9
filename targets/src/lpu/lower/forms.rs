//! In which forms a value is stored as it is computed: as it is, or as matrix units multiply it, where that is known to be wanted.

use tcc_ir::ops::MatMul;
use tcc_ir::{Anchor, DType, Node, NodeId, Op, Shape as Dims, ValueId, View, is_view};

use super::access::distinct;
use super::product::LARGE;
use super::{Lease, Lowering, Shape, Thrift, is_elementwise};
use crate::lpu::layout::Layout;
use crate::stored::storage;

/// One form of a value.
pub(super) struct Form {
    /// The elements that are stored.
    pub dtype: DType,
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
        let own = |dtype, keys: Vec<_>| Form { dtype, masked: !keys.is_empty(), keys, own: true };
        if !matches!(ty.dtype, DType::F32 | DType::F16) {
            return vec![own(native, Vec::new())];
        }
        let halves = ty.dtype == DType::F16 || self.is_only_multiplied(value) || self.is_halved(value);
        let rows: Vec<_> = self.streamed(value).into_iter().map(|view| (view, Shape::Operand(DType::F16))).collect();
        if halves || rows.is_empty() {
            return vec![own(if halves { DType::F16 } else { native }, rows)];
        }
        vec![own(native, Vec::new()), Form { dtype: DType::F16, masked: true, keys: rows, own: false }]
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
        let Some(node) = self.graph.producer(value).filter(|_| self.thrift != Thrift::Ample && between) else {
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

    /// How large products read a value as the rows that are streamed, if it lies as they want it: what is distinct of the operand's
    /// view.
    fn streamed(&self, value: ValueId) -> Vec<View> {
        let Some(producer) = self.graph.producer(value) else { return Vec::new() };
        let matrix = Layout::matrix(self.graph.shape(value));
        let lies = |view: &View| view.is_dense() && Layout::matrix(view.shape()) == matrix;
        let mut found: Vec<View> = Vec::new();
        for user in self.users(producer) {
            let node = self.graph.node(user);
            let view = match &node.op {
                Op::Attention(_) => self.key_rows(node).filter(|(root, _)| *root == value).map(|(_, view)| view),
                _ => self.rows_view(node, value),
            };
            if let Some(view) = view.filter(lies)
                && !found.contains(&view)
            {
                found.push(view);
            }
        }
        found
    }

    /// How a large product of floats reads a value as its rows.
    fn rows_view(&self, node: &Node, value: ValueId) -> Option<View> {
        let Op::MatMul(product) = &node.op else { return None };
        let (a, b) = (*node.inputs.first()?, *node.inputs.get(1)?);
        let access = self.plan.access(a);
        if access.root != value {
            return None;
        }
        let dims = MatMul::dims(product, self.graph.ty(a), self.graph.ty(b)).ok()?;
        let shape = Dims::new(dims.batch.iter().copied().chain([dims.m, dims.k])).ok()?;
        let passes = dims.batch.count() * dims.m * dims.n.div_ceil(self.lanes());
        (passes >= LARGE).then(|| access.view.broadcast(&shape).map(|view| distinct(&view)))?
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
