//! Graphs to text.

use std::fmt::{self, Write};

use super::literal::{element_bits, write_element};
use crate::graph::{Def, Node};
use crate::{Graph, Tensor};

/// What is printed of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrintOptions {
    /// How much of the constants.
    pub constants: Constants,
}

/// How much of a constant is printed. Small and uniform ones are printed whole in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Constants {
    /// Size and hash of larger constants: for people, and for snapshots.
    #[default]
    Brief,
    /// All bytes, so that [`parse`](super::parse()) gives the same graph back.
    Full,
}

/// Most elements that are printed as a list.
const LIST: usize = 16;

/// How many bytes at either end of a constant its hash covers.
const HASHED: usize = 4096;

/// Writes a graph as text. With [`Constants::Full`], parsing the text gives an equal graph, which prints the same.
pub fn print(graph: &Graph, options: PrintOptions) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_graph(&mut text, graph, options);
    text
}

/// Prints the graph with [`Constants::Brief`].
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_graph(f, self, PrintOptions::default())
    }
}

fn write_graph(out: &mut impl Write, graph: &Graph, options: PrintOptions) -> fmt::Result {
    writeln!(out, "graph {} {{", Quoted(graph.name()))?;
    for (id, value) in graph.values() {
        match &value.def {
            Def::Input(_) => {
                write!(out, "  input {id}")?;
                write_name(out, &value.name, "")?;
                writeln!(out, ": {}", value.ty)?;
            }
            Def::Constant(tensor) => {
                write!(out, "  const {id}")?;
                write_name(out, &value.name, "")?;
                write!(out, ": {} = ", value.ty)?;
                write_constant(out, tensor, options.constants)?;
                out.write_char('\n')?;
            }
            Def::Node { node, output: 0 } => write_node(out, graph, graph.node(*node))?,
            Def::Node { .. } => {}
        }
    }
    for output in graph.outputs() {
        writeln!(out, "  output {} = {}", Quoted(&output.name), output.value)?;
    }
    out.write_str("}\n")
}

fn write_node(out: &mut impl Write, graph: &Graph, node: &Node) -> fmt::Result {
    for (index, &id) in node.outputs.iter().enumerate() {
        let value = graph.value(id);
        write!(out, "{}{id}", if index == 0 { "  " } else { ", " })?;
        write_name(out, &value.name, &node.origin)?;
        write!(out, ": {}", value.ty)?;
    }
    write!(out, " = {}", node.op.name())?;
    // Sorted here, because the order that `serde_json` keeps depends on how it was built.
    let mut attributes: Vec<(String, serde_json::Value)> = match node.op.attributes() {
        Ok(serde_json::Value::Object(map)) => map.into_iter().collect(),
        // No operator does this; if one did, a text that does not parse is better than one that parses as another.
        other => vec![("unprintable".to_owned(), format!("{other:?}").into())],
    };
    attributes.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (index, (key, value)) in attributes.iter().enumerate() {
        write!(out, "{}{key}={value}", if index == 0 { "[" } else { ", " })?;
    }
    out.write_str(if attributes.is_empty() { "(" } else { "](" })?;
    for (index, id) in node.inputs.iter().enumerate() {
        write!(out, "{}{id}", if index == 0 { "" } else { ", " })?;
    }
    out.write_char(')')?;
    if !node.origin.is_empty() {
        write!(out, " from {}", Quoted(&node.origin))?;
    }
    out.write_char('\n')
}

fn write_name(out: &mut impl Write, name: &str, usual: &str) -> fmt::Result {
    if name == usual { Ok(()) } else { write!(out, " {}", Quoted(name)) }
}

fn write_constant(out: &mut impl Write, tensor: &Tensor, constants: Constants) -> fmt::Result {
    let Ok(bytes) = tensor.bytes() else { return out.write_str("absent") };
    let (dtype, count) = (tensor.dtype(), tensor.shape().count());
    let element = |index| element_bits(dtype, bytes, index);
    if tensor.shape().rank() == 0 {
        return write_element(out, dtype, element(0));
    }
    if count <= LIST {
        out.write_char('[')?;
        for index in 0..count {
            if index > 0 {
                out.write_str(", ")?;
            }
            write_element(out, dtype, element(index))?;
        }
        return out.write_char(']');
    }
    if (1..count).all(|index| element(index) == element(0)) {
        out.write_str("splat ")?;
        return write_element(out, dtype, element(0));
    }
    match constants {
        Constants::Full => {
            out.write_str("hex \"")?;
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
            out.write_char('"')
        }
        Constants::Brief => {
            // The whole of a model's weights is not read to print a page.
            let tail = &bytes[bytes.len().saturating_sub(HASHED).max(HASHED.min(bytes.len()))..];
            let hashed = bytes.iter().take(HASHED).chain(tail);
            let hash = hashed
                .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            write!(out, "elided {} {hash:016x}", bytes.len())
        }
    }
}

/// A string in quotes, escaped as in JSON.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        serde_json::Value::from(self.0).fmt(f)
    }
}
