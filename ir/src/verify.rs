//! The verifier: checks that a graph keeps its own rules. Run by tests, and after every pass in debug builds.

use std::sync::Arc;

use crate::graph::Def;
use crate::op::OutputTypes;
use crate::{Graph, GraphError, TensorType, ValueId};

/// A rule that a graph breaks. Graphs built through [`Graph`]'s methods keep most of them by construction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The shape rule of an operator refuses its operands.
    #[error(transparent)]
    Node(#[from] GraphError),
    /// A node's results have other types than its operator's shape rule says.
    #[error("node `{origin}` ({op}) has results {actual:?}, but its shape rule says {expected:?}")]
    ResultTypes {
        /// The node of the user's model.
        origin: Arc<str>,
        /// The operator's name in the IR.
        op: &'static str,
        /// What the shape rule says.
        expected: OutputTypes,
        /// What the graph says.
        actual: OutputTypes,
    },
    /// A node uses a value that is defined after it, or not at all.
    #[error("node `{origin}` ({op}) uses {value}, which is not defined before it")]
    UseBeforeDefinition {
        /// The node of the user's model.
        origin: Arc<str>,
        /// The operator's name in the IR.
        op: &'static str,
        /// The value used.
        value: ValueId,
    },
    /// A value and what it says defines it do not know each other.
    #[error("{value} is not among the definitions of what it says it comes from")]
    Definition {
        /// The value.
        value: ValueId,
    },
    /// A constant's tensor has another type than its value.
    #[error("constant {value} is declared {declared}, but holds {actual}")]
    Constant {
        /// The value.
        value: ValueId,
        /// The type of the value.
        declared: TensorType,
        /// The type of the tensor.
        actual: TensorType,
    },
    /// A result of the graph that is not one of its values.
    #[error("output `{name}` is {value}, which the graph does not have")]
    Output {
        /// Name of the output.
        name: Arc<str>,
        /// The value.
        value: ValueId,
    },
}

/// Checks that all definitions come before their uses, that every node has the types its operator infers, that
/// constants hold what they declare, and that outputs exist.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    for (id, value) in graph.values() {
        let known = match &value.def {
            Def::Input(index) => graph.inputs().get(*index) == Some(&id),
            Def::Constant(tensor) => {
                if tensor.ty() != &value.ty || tensor.data().len() != value.ty.bytes() {
                    let (declared, actual) = (value.ty.clone(), tensor.ty().clone());
                    return Err(VerifyError::Constant { value: id, declared, actual });
                }
                true
            }
            Def::Node { node, output } => {
                node.index() < graph.node_count() && graph.node(*node).outputs.get(*output) == Some(&id)
            }
        };
        if !known {
            return Err(VerifyError::Definition { value: id });
        }
    }
    for (_, node) in graph.nodes() {
        let first = node.outputs.first().map_or(graph.value_count(), |id| id.index());
        if let Some(&value) = node.inputs.iter().find(|input| input.index() >= first) {
            let (origin, op) = (node.origin.clone(), node.op.name());
            return Err(VerifyError::UseBeforeDefinition { origin, op, value });
        }
        let expected = node.op.infer(&graph.input_types(node)).map_err(|error| GraphError {
            origin: node.origin.clone(),
            op: node.op.name(),
            error,
        })?;
        let actual = graph.output_types(node);
        if expected != actual {
            let (origin, op) = (node.origin.clone(), node.op.name());
            return Err(VerifyError::ResultTypes { origin, op, expected, actual });
        }
    }
    match graph.outputs().iter().find(|output| output.value.index() >= graph.value_count()) {
        Some(output) => Err(VerifyError::Output { name: output.name.clone(), value: output.value }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::ops::{Op, Softmax, Unary, UnaryFn};
    use crate::testing::ty;
    use crate::{DType, Tensor};

    fn sample() -> (Graph, ValueId, ValueId) {
        let mut graph = Graph::new("sample");
        graph.set_origin("layer");
        let x = graph.add_input("x", ty(DType::F32, &[2, 3]));
        let y = graph.add(Unary(UnaryFn::Exp), &[x]).unwrap();
        graph.add_output("y", y);
        (graph, x, y)
    }

    #[test]
    fn accepts_what_was_built() {
        assert_eq!(verify(&sample().0), Ok(()));
        assert_eq!(verify(&Graph::new("empty")), Ok(()));
    }

    #[test]
    fn finds_each_broken_rule() {
        let (mut graph, x, _) = sample();
        graph.value_mut(x).ty = ty(DType::I32, &[2, 3]);
        assert!(matches!(verify(&graph), Err(VerifyError::Node(_))));

        let (mut graph, x, _) = sample();
        graph.value_mut(x).ty = ty(DType::F32, &[2, 4]);
        assert!(matches!(verify(&graph), Err(VerifyError::ResultTypes { .. })));

        let (mut graph, _, y) = sample();
        graph.node_mut(0).inputs[0] = y;
        assert!(matches!(verify(&graph), Err(VerifyError::UseBeforeDefinition { .. })));

        let (mut graph, _, _) = sample();
        graph.node_mut(0).op = Op::from(Softmax { axis: 2 });
        assert!(matches!(verify(&graph), Err(VerifyError::Node(_))));

        let (mut graph, _, y) = sample();
        graph.value_mut(y).def = Def::Input(0);
        assert_eq!(verify(&graph), Err(VerifyError::Definition { value: y }));

        let (mut graph, x, _) = sample();
        graph.value_mut(x).def = Def::Constant(Tensor::scalar(1.0f32));
        assert!(matches!(verify(&graph), Err(VerifyError::Constant { .. })));

        let (mut graph, _, _) = sample();
        let foreign = sample().0.add_input("", ty(DType::F32, &[]));
        graph.add_output("foreign", foreign);
        assert!(matches!(verify(&graph), Err(VerifyError::Output { .. })));
    }
}
