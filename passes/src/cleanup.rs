//! Clean-up: the first pass after import, which exporters' habits make worthwhile.
//!
//! Drops what no result needs and what does nothing, merges equal computations and runs of views. It never changes a
//! number: everything here is exact. Time is linear in the graph.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use tcc_ir::ops::{Cast, Op, Reshape, Transpose};
use tcc_ir::{DType, Def, Graph, Node, Output, Tensor, TensorType, ValueId};

/// Equal constants are recognised by their values up to this size, and only by their place in memory beyond it.
const COMPARED_BYTES: usize = 4 << 10;

/// A graph that computes the same results with fewer nodes.
///
/// All inputs stay, in their order. Values keep their names and nodes their origins; of equal computations the first stays.
pub fn clean_up(graph: &Graph) -> Graph {
    keep_live(&simplify(graph))
}

/// Merges equal computations, and drops operators that do nothing or undo each other.
fn simplify(graph: &Graph) -> Graph {
    let mut builder = Builder::new(graph);
    let mut known: HashMap<(Op, Vec<ValueId>), Vec<ValueId>> = HashMap::new();
    let mut constants = Constants::default();
    for (id, value) in graph.values() {
        if let Def::Constant(tensor) = &value.def {
            match constants.find(&builder.graph, tensor) {
                Some(equal) => builder.renamed[id.index()] = Some(equal),
                None => {
                    let new = builder.constant(id);
                    constants.insert(tensor, new);
                }
            }
        }
    }
    for (_, node) in graph.nodes() {
        let inputs = builder.inputs(node);
        let (op, inputs) = match reduce(&builder.graph, &node.op, inputs) {
            Reduced::Value(value) => {
                builder.renamed[node.output().index()] = Some(value);
                continue;
            }
            Reduced::Node(op, inputs) => (op, inputs),
        };
        let key = (op, inputs);
        let outputs = match known.get(&key) {
            Some(outputs) => outputs.clone(),
            None => {
                let outputs = builder.node(node, key.0.clone(), &key.1);
                known.insert(key, outputs.clone());
                outputs
            }
        };
        for (old, new) in node.outputs.iter().zip(outputs) {
            builder.renamed[old.index()] = Some(new);
        }
    }
    builder.finish()
}

/// Drops nodes and constants that no result needs.
fn keep_live(graph: &Graph) -> Graph {
    let mut live = vec![false; graph.value_count()];
    for output in graph.outputs() {
        live[output.value.index()] = true;
    }
    for (_, node) in graph.nodes().rev() {
        if node.outputs.iter().any(|output| live[output.index()]) {
            node.inputs.iter().for_each(|input| live[input.index()] = true);
        }
    }
    let mut builder = Builder::new(graph);
    for (id, value) in graph.values() {
        if live[id.index()] && matches!(value.def, Def::Constant(_)) {
            builder.constant(id);
        }
    }
    for (_, node) in graph.nodes() {
        if node.outputs.iter().any(|output| live[output.index()]) {
            let inputs = builder.inputs(node);
            let outputs = builder.node(node, node.op.clone(), &inputs);
            for (old, new) in node.outputs.iter().zip(outputs) {
                builder.renamed[old.index()] = Some(new);
            }
        }
    }
    builder.finish()
}

/// A new graph that grows out of an old one.
struct Builder<'a> {
    old: &'a Graph,
    graph: Graph,
    /// For each old value, the new one that it became.
    renamed: Vec<Option<ValueId>>,
}

impl<'a> Builder<'a> {
    fn new(old: &'a Graph) -> Self {
        let mut graph = Graph::new(old.name().clone());
        let mut renamed = vec![None; old.value_count()];
        for &input in old.inputs() {
            let value = old.value(input);
            renamed[input.index()] = Some(graph.add_input(value.name.clone(), value.ty.clone()));
        }
        Builder { old, graph, renamed }
    }

    fn constant(&mut self, id: ValueId) -> ValueId {
        let value = self.old.value(id);
        let new = match &value.def {
            Def::Constant(tensor) => self.graph.add_constant(value.name.clone(), tensor.clone()),
            Def::Input(_) | Def::Node { .. } => unreachable!("{id} is not a constant"),
        };
        self.renamed[id.index()] = Some(new);
        new
    }

    /// What a value of the old graph became; operands come before their users, so they have all become something.
    fn new_value(&self, id: ValueId) -> ValueId {
        self.renamed[id.index()].unwrap_or_else(|| unreachable!("{id} is used before it is defined"))
    }

    fn inputs(&self, node: &Node) -> Vec<ValueId> {
        node.inputs.iter().map(|&input| self.new_value(input)).collect()
    }

    fn node(&mut self, from: &Node, op: Op, inputs: &[ValueId]) -> Vec<ValueId> {
        self.graph.set_origin(from.origin.clone());
        let outputs = match self.graph.add_multi(op, inputs) {
            Ok(outputs) => outputs.into_vec(),
            Err(error) => unreachable!("operands of the same types were accepted before: {error}"),
        };
        for (&old, &new) in from.outputs.iter().zip(&outputs) {
            self.graph.rename(new, self.old.value(old).name.clone());
        }
        outputs
    }

    fn finish(mut self) -> Graph {
        for Output { name, value } in self.old.outputs() {
            let value = self.new_value(*value);
            self.graph.add_output(name.clone(), value);
        }
        self.graph
    }
}

/// Constants that are in the new graph, found by their values.
#[derive(Default)]
struct Constants(HashMap<u64, Vec<ValueId>>);

impl Constants {
    fn find(&self, graph: &Graph, tensor: &Tensor) -> Option<ValueId> {
        let candidates = self.0.get(&Self::key(tensor)?)?;
        candidates.iter().copied().find(|&value| graph.as_constant(value).is_some_and(|other| same(other, tensor)))
    }

    fn insert(&mut self, tensor: &Tensor, value: ValueId) {
        if let Some(key) = Self::key(tensor) {
            self.0.entry(key).or_default().push(value);
        }
    }

    /// A hash of the values, or of the place in memory of large ones; `None` if there are no values to compare.
    fn key(tensor: &Tensor) -> Option<u64> {
        let bytes = tensor.bytes().ok()?;
        let mut hasher = DefaultHasher::new();
        tensor.ty().hash(&mut hasher);
        if bytes.len() <= COMPARED_BYTES {
            bytes.hash(&mut hasher);
        } else {
            bytes.as_ptr().hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    a.ty() == b.ty()
        && (a.data().same(b.data())
            || (a.ty().bytes() <= COMPARED_BYTES && a.bytes().is_ok_and(|bytes| b.bytes().is_ok_and(|b| bytes == b))))
}

/// What an operator comes to.
enum Reduced {
    /// A value that is there already.
    Value(ValueId),
    /// An operator that is at most as much work.
    Node(Op, Vec<ValueId>),
}

fn reduce(graph: &Graph, op: &Op, inputs: Vec<ValueId>) -> Reduced {
    let &[x] = inputs.as_slice() else { return Reduced::Node(op.clone(), inputs) };
    let ty = graph.ty(x);
    // The operator that computes the operand, and its own operand, when it has exactly one.
    let before = graph.producer(x).map(|id| graph.node(id)).and_then(|node| match node.inputs[..] {
        [source] => Some((&node.op, source)),
        _ => None,
    });
    match (op, before) {
        (Op::Reshape(reshape), _) if reshape.shape == ty.shape => Reduced::Value(x),
        (Op::Reshape(reshape), Some((Op::Reshape(_), source))) => {
            if graph.shape(source) == &reshape.shape {
                Reduced::Value(source)
            } else {
                Reduced::Node(Reshape { shape: reshape.shape.clone() }.into(), vec![source])
            }
        }
        (Op::Transpose(transpose), before) => {
            let (perm, source) = match before {
                Some((Op::Transpose(first), source)) => {
                    (transpose.perm.iter().map(|&axis| first.perm[axis]).collect(), source)
                }
                _ => (transpose.perm.clone(), x),
            };
            if perm.iter().copied().eq(0..perm.len()) {
                Reduced::Value(source)
            } else {
                Reduced::Node(Transpose { perm }.into(), vec![source])
            }
        }
        (Op::Broadcast(broadcast), _) if broadcast.shape == ty.shape => Reduced::Value(x),
        // Slicing keeps everything only if no axis gets shorter and none is walked backwards.
        (Op::Slice(slice), _)
            if slice.sizes == ty.shape.dims() && slice.sizes.iter().zip(&slice.steps).all(|(&n, &s)| n <= 1 || s == 1) =>
        {
            Reduced::Value(x)
        }
        (Op::Concat(_), _) => Reduced::Value(x),
        (Op::Cast(cast), _) if cast.to == ty.dtype => Reduced::Value(x),
        (Op::Cast(cast), Some((Op::Cast(_), source))) if passes_through(graph.ty(source), ty.dtype, cast.to) => {
            if graph.ty(source).dtype == cast.to {
                Reduced::Value(source)
            } else {
                Reduced::Node(Cast { to: cast.to }.into(), vec![source])
            }
        }
        _ => Reduced::Node(op.clone(), inputs),
    }
}

/// Whether converting to `to` by way of `middle` gives the same as converting at once.
fn passes_through(source: &TensorType, middle: DType, to: DType) -> bool {
    let source = source.dtype;
    if !holds(middle, source) {
        return false;
    }
    // Integers wrap and floats saturate, so the kind that the last conversion starts from must stay the same, unless the
    // value comes back to where it started or ends as a float.
    source.is_float() == middle.is_float() || to == source || to.is_float()
}

/// Whether every value of `small` is also one of `large`.
fn holds(large: DType, small: DType) -> bool {
    /// Bits of significand with the hidden one, greatest exponent, and least exponent of a subnormal.
    fn float(dtype: DType) -> Option<(u32, i32, i32)> {
        match dtype {
            DType::F64 => Some((53, 1023, -1074)),
            DType::F32 => Some((24, 127, -149)),
            DType::F16 => Some((11, 15, -24)),
            DType::BF16 => Some((8, 127, -133)),
            // The greatest exponent of e4m3 has no infinity, but a value that it shares with NaN.
            DType::F8E4M3 => Some((4, 8, -9)),
            DType::F8E5M2 => Some((3, 15, -16)),
            _ => None,
        }
    }
    let range = |dtype: DType| if dtype == DType::Bool { Some((0, 1)) } else { dtype.integer_range() };
    if large == small {
        return true;
    }
    match (float(large), float(small), range(large), range(small)) {
        (Some(large_float), Some(small_float), _, _) => {
            // Infinities have no place in e4m3.
            large != DType::F8E4M3
                && large_float.0 >= small_float.0
                && large_float.1 >= small_float.1
                && large_float.2 <= small_float.2
        }
        (Some((digits, exponent, _)), None, _, Some((low, high))) => {
            // Whole numbers up to 2^digits are exact, and so is the lower end of a signed range, a power of two.
            let largest = 1i128 << digits.min(100);
            high <= largest && -low <= largest && (exponent >= 64 || high < 1i128 << exponent)
        }
        (None, None, Some((large_low, large_high)), Some((low, high))) => {
            large != DType::Bool && large_low <= low && high <= large_high
        }
        _ => false,
    }
}
