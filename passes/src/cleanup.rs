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
            if slice.sizes == ty.shape.dims()
                && slice.sizes.iter().zip(&slice.steps).all(|(&n, &s)| n <= 1 || s == 1) =>
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
    // A conversion to 8-bit floats saturates, so that an infinity does not come back.
    if to == source && matches!(to, DType::F8E4M3 | DType::F8E5M2) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::ops::{Binary, BinaryFn, Broadcast, Unary, UnaryFn};
    use tcc_ir::{Shape, Values, evaluate};

    use super::*;

    fn ty(dtype: DType, dims: &[usize]) -> TensorType {
        TensorType::new(dtype, Shape::new(dims.iter().copied()).unwrap())
    }

    fn ops(graph: &Graph) -> Vec<&'static str> {
        graph.nodes().map(|(_, node)| node.op.name()).collect()
    }

    fn reshape(graph: &mut Graph, x: ValueId, dims: &[usize]) -> ValueId {
        graph.add(Reshape { shape: Shape::new(dims.iter().copied()).unwrap() }, &[x]).unwrap()
    }

    #[test]
    fn dead_nodes_and_constants_go_and_inputs_stay() {
        let mut graph = Graph::new("g");
        let a = graph.add_input("a", ty(DType::F32, &[2]));
        graph.add_input("unused", ty(DType::F32, &[2]));
        graph.add_constant("dead", Tensor::scalar(1f32));
        graph.add(Unary(UnaryFn::Neg), &[a]).unwrap();
        graph.set_origin("kept");
        let live = graph.add(Unary(UnaryFn::Abs), &[a]).unwrap();
        graph.rename(live, "b");
        graph.add_output("y", live);
        let clean = clean_up(&graph);
        assert_eq!(ops(&clean), ["abs"]);
        assert_eq!(clean.inputs().len(), 2);
        assert_eq!(clean.value_count(), 3);
        let (_, node) = clean.nodes().next().unwrap();
        assert_eq!((&*node.origin, &*clean.value(node.output()).name), ("kept", "b"));
    }

    #[test]
    fn equal_computations_on_equal_constants_merge() {
        let mut graph = Graph::new("g");
        let a = graph.add_input("a", ty(DType::F32, &[2]));
        let sums: Vec<ValueId> = (0..2)
            .map(|_| {
                let one = graph.constant(Tensor::scalar(1f32));
                graph.add(Binary(BinaryFn::Add), &[a, one]).unwrap()
            })
            .collect();
        let product = graph.add(Binary(BinaryFn::Mul), &sums).unwrap();
        graph.add_output("y", product);
        graph.add_output("z", sums[1]);
        let clean = clean_up(&graph);
        assert_eq!(ops(&clean), ["add", "mul"]);
        let inputs = [Tensor::from_vec(Shape::vector(2), vec![1f32, -3.0]).unwrap()];
        let (before, after) = (evaluate(&graph, &inputs).unwrap(), evaluate(&clean, &inputs).unwrap());
        assert!(before.iter().zip(&after).all(|(a, b)| a.bytes() == b.bytes()));
    }

    #[test]
    fn large_constants_merge_only_where_they_share_their_bytes() {
        let large = |value: f32| Tensor::from_vec(Shape::vector(4096), vec![value; 4096]).unwrap();
        let shared = large(1.0);
        let mut graph = Graph::new("g");
        let constants = [shared.clone(), shared, large(1.0)].map(|tensor| graph.constant(tensor));
        for (index, constant) in constants.into_iter().enumerate() {
            graph.add_output(index.to_string(), constant);
        }
        let clean = clean_up(&graph);
        let values: Vec<ValueId> = clean.outputs().iter().map(|output| output.value).collect();
        assert!(values[0] == values[1] && values[1] != values[2]);
    }

    #[test]
    fn runs_of_views_merge() {
        let mut graph = Graph::new("g");
        let a = graph.add_input("a", ty(DType::F32, &[2, 3, 4]));
        let flat = reshape(&mut graph, a, &[24]);
        let back = reshape(&mut graph, flat, &[2, 3, 4]);
        let once = graph.add(Transpose { perm: vec![1, 2, 0] }, &[back]).unwrap();
        let twice = graph.add(Transpose { perm: vec![1, 2, 0] }, &[once]).unwrap();
        let thrice = graph.add(Transpose { perm: vec![1, 2, 0] }, &[twice]).unwrap();
        let other = reshape(&mut graph, flat, &[4, 6]);
        graph.add_output("twice", twice);
        graph.add_output("same", thrice);
        graph.add_output("other", other);
        let clean = clean_up(&graph);
        assert_eq!(ops(&clean), ["transpose", "reshape"]);
        assert_eq!(clean.outputs()[1].value, clean.inputs()[0]);
        let values = (0..24).map(|x| x as f32).collect();
        let inputs = [Tensor::from_vec(Shape::new([2, 3, 4]).unwrap(), values).unwrap()];
        let (before, after) = (evaluate(&graph, &inputs).unwrap(), evaluate(&clean, &inputs).unwrap());
        assert!(before.iter().zip(&after).all(|(a, b)| a.ty() == b.ty() && a.bytes() == b.bytes()));
    }

    #[test]
    fn operators_without_effect_go() {
        let mut graph = Graph::new("g");
        let a = graph.add_input("a", ty(DType::F32, &[2, 3]));
        let shape = Shape::new([2, 3]).unwrap();
        let broadcast = graph.add(Broadcast { shape: shape.clone() }, &[a]).unwrap();
        let cast = graph.add(Cast { to: DType::F32 }, &[broadcast]).unwrap();
        let slice = tcc_ir::ops::Slice { starts: vec![0, 0], steps: vec![1, 1], sizes: vec![2, 3] };
        let slice = graph.add(slice, &[cast]).unwrap();
        let backwards = tcc_ir::ops::Slice { starts: vec![0, 2], steps: vec![1, -1], sizes: vec![2, 3] };
        let backwards = graph.add(backwards, &[slice]).unwrap();
        graph.add_output("same", slice);
        graph.add_output("mirrored", backwards);
        let clean = clean_up(&graph);
        assert_eq!(ops(&clean), ["slice"]);
        assert_eq!(clean.outputs()[0].value, clean.inputs()[0]);
    }

    /// All values of small types, many of 16-bit ones, and the edges of wider ones.
    fn samples(dtype: DType) -> Tensor {
        let bits = dtype.bits();
        let bytes: Vec<u8> = match bits {
            4 => (0..=255).collect(),
            8 if dtype == DType::Bool => vec![0, 1],
            8 => (0..=255).collect(),
            16 => (0..=u16::MAX).step_by(7).flat_map(u16::to_le_bytes).collect(),
            _ => {
                let edges =
                    [0.0, -0.0, 1.0, -1.0, 0.5, -1.5, 127.0, 128.0, 255.0, 256.0, 16_777_217.0, 3e9, -3e9, 1e19, 1e-40];
                let source = Tensor::from_vec(Shape::vector(edges.len()), edges.to_vec()).unwrap();
                let mut graph = Graph::new("g");
                let x = graph.constant(source);
                let y = graph.add(Cast { to: dtype }, &[x]).unwrap();
                graph.add_output("y", y);
                return evaluate(&graph, &[]).unwrap().remove(0);
            }
        };
        let count = bytes.len() * 8 / bits;
        Tensor::new(ty(dtype, &[count]), tcc_ir::Data::from_bytes(bytes)).unwrap()
    }

    #[test]
    fn casts_merge_only_where_nothing_changes() {
        let mut merged = 0;
        for source in DType::ALL {
            let x = samples(source);
            for middle in DType::ALL {
                for to in DType::ALL {
                    let mut graph = Graph::new("g");
                    let a = graph.add_input("a", x.ty().clone());
                    let b = graph.add(Cast { to: middle }, &[a]).unwrap();
                    let c = graph.add(Cast { to }, &[b]).unwrap();
                    graph.add_output("c", c);
                    let clean = clean_up(&graph);
                    if source != middle && middle != to && clean.node_count() < 2 {
                        merged += 1;
                    }
                    let inputs = [x.clone()];
                    let before = evaluate(&graph, &inputs).unwrap().remove(0);
                    let after = evaluate(&clean, &inputs).unwrap().remove(0);
                    assert!(equal(&before, &after), "{source} -> {middle} -> {to}");
                }
            }
        }
        // Enough of them do for the rule to be worth its lines: f16 -> f32 -> anything, bool -> i64 -> anything, …
        assert!(merged > 500, "{merged}");
    }

    /// The same values; what stands for "not a number" may differ.
    fn equal(a: &Tensor, b: &Tensor) -> bool {
        match (a.widen().unwrap(), b.widen().unwrap()) {
            (Values::Signed(a), Values::Signed(b)) => a == b,
            (Values::Unsigned(a), Values::Unsigned(b)) => a == b,
            _ => {
                let (a, b) = (a.to_f64s().unwrap(), b.to_f64s().unwrap());
                a.iter().zip(&b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
            }
        }
    }
}
