//! How an operand of an attention is made: an expression over nodes of the kernel, evaluated tile by tile.
//!
//! Everything is seen in one frame of four axes: batch, head, position, feature. A node may compute its value with the
//! first three in another order, as where heads are normalised before they are transposed; its term says which axis of
//! its own is which of the frame. So transposed, repeated and cut values need no copy.

use smallvec::SmallVec;
use tcc_ir::{Access, Atom, DType, Graph, NodeId, Op, Shape, ValueId};

/// Axes of the frame.
pub(super) const BATCH: usize = 0;
pub(super) const HEAD: usize = 1;
pub(super) const POSITION: usize = 2;
pub(super) const FEATURE: usize = 3;

/// For each axis of the frame, the axis of a value of four dimensions.
pub(super) type Order = [usize; 4];

/// The order of a value whose axes are those of the frame.
pub(super) const FRAME: Order = [BATCH, HEAD, POSITION, FEATURE];

/// The atoms of each axis.
pub(super) type Groups = [SmallVec<[Atom; 2]>; 4];

/// A value that an expression uses.
#[derive(Clone, Debug)]
pub(super) struct Term {
    /// The value, as its readers name it where it lies in DRAM, as its node names it where the kernel makes it.
    pub value: ValueId,
    /// What it has along the axes of the frame.
    pub extents: [usize; 4],
    pub source: TermSource,
}

/// Where a term comes from.
#[derive(Clone, Debug)]
pub(super) enum TermSource {
    /// A constant of one element.
    Number,
    /// DRAM, read as if it had `shape`.
    Dram { access: Box<Access>, shape: Shape, order: Order },
    /// A node of the kernel.
    Node { node: NodeId, order: Order, operands: Vec<Use> },
}

/// How a term is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub term: usize,
    /// The first feature, and the distance between features.
    pub first: usize,
    pub step: usize,
    /// How many neighbouring heads of the frame read the same head of the term.
    pub repeat: usize,
}

/// An expression.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// Operands before the nodes that use them.
    pub terms: Vec<Term>,
    pub root: Use,
}

impl Recipe {
    /// Whether nodes of the kernel take part.
    pub fn computes(&self) -> bool {
        self.terms.iter().any(|term| matches!(term.source, TermSource::Node { .. }))
    }

    /// The term that the operand is, or is a part of.
    pub fn root_term(&self) -> &Term {
        &self.terms[self.root.term]
    }
}

/// Four dimensions, with those that a shape of lower rank lacks in front.
pub(super) fn four(shape: &Shape) -> Option<[usize; 4]> {
    let lead = 4usize.checked_sub(shape.rank())?;
    let mut dims = [1; 4];
    dims[lead..].copy_from_slice(shape);
    Some(dims)
}

/// The frame's shape as a value of this order has it.
fn shape_of(dims: [usize; 4]) -> Result<Shape, String> {
    Shape::new(dims).map_err(|error| error.to_string())
}

/// Atoms of each axis of an access that is read as `shape`, if its axes can be told apart.
pub(super) fn groups_of(access: &Access, shape: &Shape) -> Option<Groups> {
    let wide = four(access.view.shape()).and_then(|dims| Shape::new(dims).ok())?;
    let groups = access.view.reshape(wide).broadcast(shape)?.groups()?;
    <[SmallVec<[Atom; 2]>; 4]>::try_from(groups).ok()
}

/// How many neighbours along an axis are the same element: the product of its innermost atoms of stride 0.
pub(super) fn repeats(atoms: &[Atom]) -> usize {
    atoms.iter().rev().take_while(|atom| atom.stride == 0).map(|atom| atom.size).product()
}

/// Finds out how values are made.
pub(super) struct Resolver<'a> {
    pub graph: &'a Graph,
    /// How a value is read: through a view of a value that lies in DRAM or that a node of the kernel makes.
    pub access: &'a dyn Fn(ValueId) -> Option<Access>,
    /// Whether the kernel has a node.
    pub inside: &'a dyn Fn(NodeId) -> bool,
}

impl Resolver<'_> {
    /// The expression for a value of four dimensions in the frame's order.
    ///
    /// # Errors
    /// What cannot be evaluated on chip, in words.
    pub fn resolve(&self, value: ValueId) -> Result<Recipe, String> {
        let shape = shape_of(four(self.graph.shape(value)).ok_or("it has more than four dimensions")?)?;
        let mut terms = Vec::new();
        let root = self.operand(&mut terms, value, &shape, FRAME)?;
        Ok(Recipe { terms, root })
    }

    /// The term for a value that is read as if it had `shape`, by a reader of this order.
    fn operand(&self, terms: &mut Vec<Term>, value: ValueId, shape: &Shape, order: Order) -> Result<Use, String> {
        let access = (self.access)(value).ok_or("a view in between has no strides")?;
        let made = self.graph.producer(access.root).filter(|&node| (self.inside)(node));
        match made {
            Some(node) => self.made(terms, node, &access, shape, order),
            None => {
                if access.view.shape().rank() > 4 {
                    return Err("an operand has more than four dimensions".to_owned());
                }
                Ok(self.outside(terms, value, access, shape, order))
            }
        }
    }

    fn outside(&self, terms: &mut Vec<Term>, value: ValueId, access: Access, shape: &Shape, order: Order) -> Use {
        let constant = self.graph.as_constant(access.root);
        let single = constant.is_some_and(|tensor| tensor.shape().count() == 1 && tensor.dtype() != DType::U64);
        let mut extents = order.map(|axis| shape[axis]);
        let source = if single {
            extents = [1; 4];
            TermSource::Number
        } else {
            if let Some(own) = four(access.view.shape()) {
                extents = order.map(|axis| own[axis]);
            }
            TermSource::Dram { access: Box::new(access), shape: shape.clone(), order }
        };
        let known = terms.iter().position(|term| match (&term.source, &source) {
            (TermSource::Number, TermSource::Number) => term.value == value,
            (TermSource::Dram { access: known, shape: read, order: of }, TermSource::Dram { access, shape, order }) => {
                (known, read, of) == (access, shape, order)
            }
            _ => false,
        });
        let term = known.unwrap_or_else(|| {
            terms.push(Term { value, extents, source });
            terms.len() - 1
        });
        Use { term, first: 0, step: 1, repeat: 1 }
    }

    /// The term for a view of a value that a node of the kernel makes.
    fn made(
        &self,
        terms: &mut Vec<Term>,
        node: NodeId,
        access: &Access,
        shape: &Shape,
        order: Order,
    ) -> Result<Use, String> {
        let root = four(self.graph.shape(access.root)).ok_or("a value has more than four dimensions")?;
        let groups = groups_of(access, shape).ok_or("a view of a value of the kernel cuts across its dimensions")?;
        let strides = [root[1] * root[2] * root[3], root[2] * root[3], root[3], 1];
        let mut own: [Option<usize>; 4] = [None, None, None, Some(FEATURE)];
        let mut repeat = 1;
        for axis in [BATCH, HEAD, POSITION] {
            let mut atoms = &groups[order[axis]][..];
            let same = repeats(atoms);
            while let Some((atom, outer)) = atoms.split_last()
                && atom.stride == 0
            {
                atoms = outer;
            }
            match atoms {
                [] => {}
                [atom] => {
                    if same > 1 && axis != HEAD {
                        return Err("a value of the kernel is repeated along another axis than heads".to_owned());
                    }
                    let found = (0..FEATURE)
                        .find(|&k| root[k] == atom.size && strides[k] as i64 == atom.stride && !own.contains(&Some(k)));
                    own[axis] = Some(found.ok_or("a view of a value of the kernel cuts more than features")?);
                    if axis == HEAD {
                        repeat = same;
                    }
                }
                _ => return Err("a view of a value of the kernel merges dimensions".to_owned()),
            }
        }
        let mut free = (0..FEATURE).filter(|k| !own.contains(&Some(*k))).collect::<Vec<_>>().into_iter();
        let own = own.map(|axis| axis.or_else(|| free.next()).unwrap_or(FEATURE));
        for axis in [BATCH, HEAD, POSITION] {
            if groups[order[axis]].iter().all(|atom| atom.stride == 0) && root[own[axis]] != 1 {
                return Err("a view of a value of the kernel takes one of several heads or positions".to_owned());
            }
        }
        let count = shape[order[FEATURE]];
        let step = match groups[order[FEATURE]][..] {
            [] => 1,
            [atom] => atom.stride,
            _ => return Err("a view of a value of the kernel permutes features".to_owned()),
        };
        let (Ok(first), Ok(step)) = (usize::try_from(access.view.offset()), usize::try_from(step)) else {
            return Err("a view of a value of the kernel walks backwards".to_owned());
        };
        let spans = step == 0 && root[FEATURE] == 1 && first == 0;
        if !spans && (step == 0 || first + count.saturating_sub(1) * step >= root[FEATURE]) {
            return Err("a view of a value of the kernel cuts more than features".to_owned());
        }
        let term = self.node(terms, node, own)?;
        Ok(Use { term, first, step: step.max(1), repeat })
    }

    /// The term for a node's value, which may be known.
    fn node(&self, terms: &mut Vec<Term>, id: NodeId, order: Order) -> Result<usize, String> {
        let known = terms.iter().position(
            |term| matches!(term.source, TermSource::Node { node, order: of, .. } if node == id && of == order),
        );
        if let Some(term) = known {
            return Ok(term);
        }
        let node = self.graph.node(id);
        let value = node.output();
        let dims = four(self.graph.shape(value)).ok_or("a value has more than four dimensions")?;
        let out = shape_of(dims)?;
        if node.outputs.len() != 1 || self.graph.ty(value).dtype.bits() == 4 || out.count() == 0 {
            return Err(format!("`{}` of {} is not evaluated there", node.op.name(), self.graph.ty(value)));
        }
        let own = |value: ValueId| -> Result<Shape, String> {
            shape_of(four(self.graph.shape(value)).ok_or("a value has more than four dimensions")?)
        };
        let rank = self.graph.shape(node.inputs[0]).rank();
        let shapes: Vec<Shape> = match &node.op {
            Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_) => vec![out; node.inputs.len()],
            Op::Reduce(reduce) if reduce.axes[..] == [rank.saturating_sub(1)] => vec![own(node.inputs[0])?],
            Op::Rope(_) if self.graph.ty(value).dtype != DType::F64 => {
                let half = shape_of([dims[0], dims[1], dims[2], dims[3] / 2])?;
                vec![out, half.clone(), half]
            }
            Op::Concat(concat) if concat.axis + 4 == order[POSITION] + rank => {
                node.inputs.iter().map(|&input| own(input)).collect::<Result<_, _>>()?
            }
            other => return Err(format!("`{}` is not evaluated there", other.name())),
        };
        let mut operands = Vec::with_capacity(node.inputs.len());
        for (&input, shape) in node.inputs.iter().zip(&shapes) {
            let operand = self.operand(terms, input, shape, order)?;
            if operand.repeat > 1 {
                return Err("heads are repeated before the last node".to_owned());
            }
            operands.push(operand);
        }
        let extents = order.map(|axis| dims[axis]);
        terms.push(Term { value, extents, source: TermSource::Node { node: id, order, operands } });
        Ok(terms.len() - 1)
    }
}
