//! Parts of the rows of a product that its epilogue reads, or that are written by themselves: the halves of two projections
//! that were made one, say.
//!
//! A slice along N is no work: it is read where the whole row lies, from an element on. What is computed from slices is
//! narrower than the product.

use std::collections::{HashMap, HashSet};

use tcc_ir::{Atom, Graph, NodeId, Shape, ValueId, View, is_view};

/// Which operands of an epilogue, and which outputs, are parts of rows of the kernel's own values, and how wide narrow
/// values are.
#[derive(Debug, Default)]
pub(in crate::systolic) struct Slices {
    /// By slice: the value that it is a part of, and the first element of each row that it takes.
    parts: HashMap<ValueId, (ValueId, usize)>,
    /// The product's shape but for its last extent, and that extent, if there are narrow values.
    narrow: Option<(Shape, usize)>,
}

impl Slices {
    /// The slices that the epilogue of a product reads, and those among what the kernel writes. `Err` says what is wrong
    /// with the kernel.
    pub(in crate::systolic) fn new(
        graph: &Graph,
        anchor: NodeId,
        epilogue: &[NodeId],
        outputs: &[ValueId],
    ) -> Result<Slices, &'static str> {
        let shape = graph.shape(graph.node(anchor).output());
        let own: HashSet<ValueId> =
            [&anchor].into_iter().chain(epilogue).flat_map(|&id| graph.node(id).outputs.to_vec()).collect();
        let mut slices = Slices::default();
        for &id in epilogue {
            let node = graph.node(id);
            for &input in &node.inputs {
                if !own.contains(&input)
                    && !slices.is_part(input)
                    && let Some(part) = part(graph, &own, shape, input)?
                {
                    slices.parts.insert(input, part);
                    slices.widen(shape, graph.shape(input))?;
                }
            }
            slices.widen(shape, graph.shape(node.output()))?;
        }
        for &output in outputs.iter().filter(|output| !own.contains(output)) {
            let part = part(graph, &own, shape, output)?.ok_or("writes what it does not compute")?;
            slices.parts.insert(output, part);
            slices.widen(shape, graph.shape(output))?;
            if !slices.is_narrow(graph.shape(output)) {
                return Err("writes single elements of rows, or all of them, as parts");
            }
        }
        Ok(slices)
    }

    /// Takes note of a value that may be narrow.
    fn widen(&mut self, product: &Shape, shape: &Shape) -> Result<(), &'static str> {
        let Some(&extent) = shape.last().filter(|&extent| *extent != 1 && Some(extent) != product.last()) else {
            return Ok(());
        };
        let same_rows =
            product.split_last().is_some_and(|(_, rows)| shape.split_last().is_some_and(|(_, own)| own == rows));
        if !same_rows || product.last().is_some_and(|&row| extent > row) {
            return Err("has values that are wider than its product, or have other rows");
        }
        match &self.narrow {
            // Nothing in each row, which no loop walks.
            _ if extent == 0 => Err("slices nothing out of the rows of its product"),
            None => {
                self.narrow = Some((shape.clone(), extent));
                Ok(())
            }
            Some((known, _)) if known == shape => Ok(()),
            Some(_) => Err("has values of several extents"),
        }
    }

    /// Whether rows are cut at all.
    pub(in crate::systolic) fn any(&self) -> bool {
        !self.parts.is_empty() || self.narrow.is_some()
    }

    /// Whether an operand is a part of the kernel's own rows.
    pub(in crate::systolic) fn is_part(&self, value: ValueId) -> bool {
        self.parts.contains_key(&value)
    }

    /// The value whose rows hold an operand, and the first element of each that it takes.
    pub(super) fn root(&self, value: ValueId) -> (ValueId, usize) {
        self.parts.get(&value).copied().unwrap_or((value, 0))
    }

    /// The shape of narrow values.
    pub(in crate::systolic) fn narrow(&self) -> Option<&Shape> {
        self.narrow.as_ref().map(|(shape, _)| shape)
    }

    /// Elements in a row of narrow values.
    pub(super) fn extent(&self) -> usize {
        self.narrow.as_ref().map_or(0, |&(_, extent)| extent)
    }

    /// Whether a value of this shape, broadcast to the kernel's, has narrow rows.
    pub(super) fn is_narrow(&self, shape: &Shape) -> bool {
        self.narrow.as_ref().is_some_and(|(_, extent)| shape.last() == Some(extent))
    }
}

/// The value of the kernel's own that a view reads and the first element that it takes of each row, if it reads one.
fn part(
    graph: &Graph,
    own: &HashSet<ValueId>,
    product: &Shape,
    value: ValueId,
) -> Result<Option<(ValueId, usize)>, &'static str> {
    let mut views = Vec::new();
    let mut root = value;
    while !own.contains(&root) {
        let Some(id) = graph.producer(root).filter(|&id| is_view(&graph.node(id).op)) else { return Ok(None) };
        views.push(id);
        root = graph.node(id).inputs[0];
    }
    // Not by its access: that may lead to a result in whose buffer the value will lie, some other way than on chip.
    let odd = "reads its own values in another order than they come out";
    let whole = graph.shape(root);
    let mut view = View::dense(whole.clone());
    for &id in views.iter().rev() {
        view = view.through(&graph.node(id).op, graph.shape(graph.node(id).output())).ok_or(odd)?;
    }
    let shape = view.shape();
    let (Some((&row, lead)), Some((&taken, rest))) = (whole.split_last(), shape.split_last()) else { return Err(odd) };
    let mut stride = row as i64;
    let mut atoms = vec![Atom { size: taken, stride: 1 }];
    for &size in lead.iter().rev() {
        atoms.push(Atom { size, stride });
        stride *= size as i64;
    }
    atoms.reverse();
    let expected = View::from_atoms(shape.clone(), atoms);
    let start = usize::try_from(view.offset()).map_err(|_| odd)?;
    let fits = start + taken <= row && lead == rest && product.split_last().is_some_and(|(_, rows)| rows == lead);
    if fits && view.atoms() == expected.atoms() { Ok(Some((root, start))) } else { Err(odd) }
}
