//! What two segments of a plan must have in common to be written as the same instructions.

use std::collections::HashMap;
use std::fmt::Write as _;

use tcc_ir::{Access, Anchor, Def, Kernel, NodeId, Plan, ValueId, is_view};

use crate::systolic::layout::{Layout, Place};

/// Everything that lowering asks about a segment but for the places of its buffers.
pub(super) struct Signature {
    /// The text; equal texts are lowered alike.
    pub text: String,
    /// The values whose buffers the segment touches, in the order in which the text speaks of them.
    pub roots: Vec<ValueId>,
}

impl Signature {
    /// The signature of consecutive kernels.
    pub fn new(plan: &Plan, layout: &Layout, kernels: &[Kernel]) -> Signature {
        let mut writer = Writer { plan, layout, numbers: HashMap::new(), text: String::new(), roots: Vec::new() };
        kernels.iter().for_each(|kernel| writer.kernel(kernel));
        Signature { text: writer.text, roots: writer.roots }
    }
}

struct Writer<'a> {
    plan: &'a Plan,
    layout: &'a Layout,
    numbers: HashMap<ValueId, usize>,
    text: String,
    roots: Vec<ValueId>,
}

// Writing to a string cannot fail.
impl Writer<'_> {
    fn kernel(&mut self, kernel: &Kernel) {
        let _ = writeln!(self.text, "{}", kernel.anchor.kind());
        if let Anchor::Copy { value, source } = &kernel.anchor {
            let value = self.value(*value);
            let source = self.access(source);
            let _ = writeln!(self.text, "copy {value} {source}");
        }
        for (part, nodes) in [("prologue", &kernel.prologue), ("epilogue", &kernel.epilogue)] {
            let _ = writeln!(self.text, "{part}");
            nodes.iter().for_each(|&node| self.node(node));
        }
        if let Some(node) = kernel.anchor.node() {
            let _ = writeln!(self.text, "anchor");
            self.node(node);
        }
        for &output in &kernel.outputs {
            let output = self.value(output);
            let _ = writeln!(self.text, "output {output}");
        }
    }

    fn node(&mut self, id: NodeId) {
        let node = self.plan.graph.node(id);
        let numbers: Vec<usize> = node.inputs.iter().chain(&node.outputs).map(|&value| self.value(value)).collect();
        let _ = writeln!(self.text, "{:?} {numbers:?}", node.op);
    }

    /// The number of a value, which is described when it first occurs.
    fn value(&mut self, id: ValueId) -> usize {
        if let Some(&number) = self.numbers.get(&id) {
            return number;
        }
        let number = self.numbers.len();
        self.numbers.insert(id, number);
        let graph = &self.plan.graph;
        let value = graph.value(id);
        let access = self.plan.access(id).clone();
        let access = self.access(&access);
        let of = match &value.def {
            Def::Node { node, .. } if is_view(&graph.node(*node).op) => Some(self.value(graph.node(*node).inputs[0])),
            _ => None,
        };
        let _ = write!(self.text, "v{number}: {} {access}", value.ty);
        if let Some(buffer) = self.layout.buffer(id) {
            let _ = write!(self.text, " in {} weight={}", buffer.dtype, self.layout.is_weight(buffer));
            match buffer.place {
                Place::Dram(_) => self.roots.push(id),
                Place::Scratchpad(address) => {
                    let _ = write!(self.text, " at {address}");
                }
            }
        }
        match &value.def {
            Def::Input(_) => self.text.push_str(" input"),
            // Constants of one element are written into instructions.
            Def::Constant(tensor) if tensor.shape().count() == 1 => {
                let _ = write!(self.text, " constant {:?}", tensor.bytes().ok());
            }
            Def::Constant(_) => self.text.push_str(" constant"),
            Def::Node { node, .. } => match of {
                Some(of) => {
                    let _ = write!(self.text, " {:?} of {of}", graph.node(*node).op);
                }
                None => self.text.push_str(" computed"),
            },
        }
        self.text.push('\n');
        number
    }

    fn access(&mut self, access: &Access) -> String {
        // A value that lies in a buffer of its own is its own root.
        format!("{} {:?}", self.value(access.root), access.view)
    }
}
