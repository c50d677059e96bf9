//! Element-wise values: what is gathered into one chain, and how a chain runs over all vectors of a value.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use tcc_ir::ops::{Binary, BinaryFn, Cast, Unary, UnaryFn};
use tcc_ir::{DType, Def, NodeId, NumberClass, Op, Shape as Dims, Tensor, ValueId, View};

use super::access::{Rows, direct, distinct};
use super::chain::{Arg, Chain, Function, Input, Output, Step, add_chain};
use super::lots::Touched;
use super::{ASAP, CHUNK, Lease, Lowering, Room, Shape, clashed, is_elementwise, lost};
use crate::lpu::isa::Number;
use crate::lpu::layout::Layout;
use crate::lpu::memory::Slices;
use crate::lpu::schedule::{Clash, FlowBuilder, Planes};
use crate::stored::storage;
use crate::target::TargetError;

/// As [`CHUNK`], for what reads a number for each row.
const SHORT_CHUNK: usize = 16;

/// An operand of a chain: where it lies, and for each vector of the chain's work the row and block.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub layout: Lease,
    pub rows: Rows,
}

/// A result of a chain: a step, and where its vectors go, if they go anywhere.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub step: usize,
    pub layout: Lease,
    pub rows: Vec<Option<(u32, u32)>>,
}

/// A chain with its operands and results.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    pub chain: Chain,
    pub leaves: Vec<Leaf>,
    pub targets: Vec<Target>,
    /// For each vector whether running results begin anew.
    pub first: Vec<bool>,
}

/// A chain that is being gathered, over the vectors of one shape.
#[derive(Clone)]
pub(super) struct Gathering {
    shape: Dims,
    pub chain: Chain,
    pub leaves: Vec<Leaf>,
    /// Bits that the numbers of each step may need, where they are integers.
    bits: Vec<u32>,
    /// Where values are computed.
    pub steps: HashMap<ValueId, Arg>,
    leaf_places: HashMap<(ValueId, View), usize>,
    /// Whether it may take the sums of a product as they come.
    takes_product: bool,
    /// The operand that a product gives, and the product.
    product: Option<(usize, NodeId)>,
}

/// What an operand is.
enum Operand {
    Number(Number),
    Leaf(Leaf),
}

impl Gathering {
    pub fn new(shape: &Dims) -> Self {
        Gathering {
            shape: shape.clone(),
            chain: Chain::default(),
            leaves: Vec::new(),
            bits: Vec::new(),
            steps: HashMap::new(),
            leaf_places: HashMap::new(),
            takes_product: false,
            product: None,
        }
    }

    pub fn push(&mut self, function: Function, args: &[Arg], dtype: DType, bits: u32) -> Arg {
        self.chain.steps.push(Step { function, args: SmallVec::from_slice(args), dtype });
        self.bits.push(bits);
        Arg::Step(self.chain.steps.len() - 1)
    }

    pub fn leaf(&mut self, leaf: Leaf) -> Arg {
        self.chain.leaves.push(leaf.layout.dtype);
        self.leaves.push(leaf);
        Arg::Leaf(self.leaves.len() - 1)
    }

    fn bits(&self, arg: Arg) -> u32 {
        match arg {
            Arg::Step(step) => self.bits[step],
            Arg::Leaf(leaf) => self.chain.leaves[leaf].bits() as u32,
            Arg::Number(_) => 32,
        }
    }

    fn class(&self, arg: Arg) -> Option<NumberClass> {
        match arg {
            Arg::Step(step) => Some(self.step_class(step)),
            Arg::Leaf(leaf) => Some(self.chain.leaves[leaf].class()),
            Arg::Number(_) => None,
        }
    }

    /// The class of numbers that a step's ALU has its result in.
    fn step_class(&self, step: usize) -> NumberClass {
        let Step { function, args, dtype } = &self.chain.steps[step];
        match function {
            Function::Binary(function) if function.is_comparison() => NumberClass::Unsigned,
            Function::Select => args[1..].iter().find_map(|&arg| self.class(arg)).unwrap_or(dtype.class()),
            _ => args.iter().find_map(|&arg| self.class(arg)).unwrap_or(dtype.class()),
        }
    }
}

impl Lowering<'_> {
    /// Computes an element-wise value, and with it what it uses that others use too.
    pub(super) fn elementwise(&mut self, value: ValueId) -> Result<(), TargetError> {
        let shape = self.graph.shape(value).clone();
        let mut gathering = Gathering::new(&shape);
        gathering.takes_product = true;
        let root = self.gather_value(&mut gathering, value, true)?;
        gathering.steps.insert(value, root);
        let kept = self.kept(&gathering, value);
        self.store(gathering, kept)
    }

    /// The sums of a product as the only operand of a chain, which stores them in the forms that they are wanted in.
    pub(super) fn store_product(&mut self, product: NodeId, value: ValueId) -> Result<(), TargetError> {
        let mut gathering = Gathering::new(&self.graph.shape(value).clone());
        let sums = gathering.leaf(self.sums_of(product)?);
        if let Arg::Leaf(leaf) = sums {
            gathering.product = Some((leaf, product));
        }
        gathering.steps.insert(value, sums);
        self.store(gathering, vec![value])
    }

    /// Computes a chain, and stores some of its values in all forms that they are wanted in.
    fn store(&mut self, mut gathering: Gathering, values: Vec<ValueId>) -> Result<(), TargetError> {
        let (rows, columns) = Layout::matrix(&gathering.shape);
        let vectors = all_vectors(rows, columns.div_ceil(self.lanes()));
        let avoid = gathering.leaves.iter().map(|leaf| Slices::of(&leaf.layout.slices));
        let mut avoid = avoid.fold(Slices::default(), Slices::union);
        let mut targets: Vec<Target> = Vec::new();
        for value in values {
            let arg = gathering.steps[&value];
            let ragged = columns > 1 && !columns.is_multiple_of(self.lanes());
            let mut masked = None;
            for form in self.forms(value) {
                let arg = match masked {
                    Some(masked) if form.masked => masked,
                    None if form.masked && ragged => {
                        let mask = self.mask(columns, &vectors)?;
                        let mask = gathering.leaf(mask);
                        let zero = Arg::Number(Number::Float(0.0));
                        let arg = gathering.push(Function::Select, &[mask, arg, zero], form.dtype, 64);
                        masked = Some(arg);
                        arg
                    }
                    _ => arg,
                };
                let step = match arg {
                    Arg::Step(step) if !targets.iter().any(|other| other.step == step) => step,
                    _ => match gathering.push(Function::Copy, &[arg], form.dtype, 64) {
                        Arg::Step(step) => step,
                        Arg::Leaf(_) | Arg::Number(_) => return Err(lost("a step is none")),
                    },
                };
                let room = Room { avoid, ..Room::COMPUTED };
                let layout = self.allocate_in(form.dtype, (rows, columns), room)?;
                avoid = avoid.union(Slices::of(&layout.slices));
                self.record(value, &form, &layout);
                targets.push(Target { step, layout, rows: vectors.iter().map(|&vector| Some(vector)).collect() });
            }
        }
        let first = vec![true; vectors.len()];
        let work = Work { chain: gathering.chain, leaves: gathering.leaves, targets, first };
        match gathering.product {
            Some((leaf, product)) => self.product_into(product, work, leaf),
            None => self.run_by_lots(work, rows),
        }
    }

    /// For each vector of rows with so many columns whether lanes are behind the last.
    pub(super) fn mask(&mut self, columns: usize, vectors: &[(u32, u32)]) -> Result<Leaf, TargetError> {
        let lanes = self.lanes();
        let last = columns.div_ceil(lanes) as u32 - 1;
        let mut mask = vec![1u8; lanes];
        mask.extend((0..lanes).map(|lane| u8::from(lane < columns % lanes)));
        let layout = self.literal(mask, DType::U8, 2, lanes)?;
        Ok(Leaf { layout, rows: vectors.iter().map(|&(_, block)| (u32::from(block == last), 0)).collect() })
    }

    /// Of the values that a chain computes, those that must lie in memory: the one it is gathered for, and all that others use.
    fn kept(&self, gathering: &Gathering, value: ValueId) -> Vec<ValueId> {
        let mut values: Vec<ValueId> = gathering.steps.keys().copied().collect();
        values.sort_unstable();
        let kernel = &self.plan.kernels[self.kernel as usize];
        let inside =
            |user: NodeId| gathering.steps.contains_key(&self.graph.node(user).output()) || self.is_settled(user);
        // Numbers for each row are computed for every vector of it, and are no vectors of the chain's shape.
        let whole = |own: ValueId| Layout::matrix(self.graph.shape(own)) == Layout::matrix(&gathering.shape);
        values.retain(|&own| {
            own == value
                || whole(own)
                    && (kernel.outputs.contains(&own)
                        || self
                            .graph
                            .producer(own)
                            .is_some_and(|node| !self.users(node).iter().all(|&user| inside(user))))
        });
        values
    }

    /// Whether all that an element-wise node is wanted for has been computed already, so that it never needs its operands again.
    fn is_settled(&self, node: NodeId) -> bool {
        let own = self.graph.node(node);
        let value = own.output();
        let is_kept = self.plan.kernels[self.kernel as usize].outputs.contains(&value);
        let users = self.users(node);
        let has_value = |user: NodeId| {
            self.graph
                .node(user)
                .outputs
                .iter()
                .all(|&out| self.values[out.index()].is_some() || self.finished.contains(&out))
        };
        is_elementwise(&own.op)
            && !is_kept
            && !users.is_empty()
            && users.iter().all(|&user| has_value(user) || self.is_settled(user))
    }

    /// The step that computes a value whose node is element-wise.
    fn gather_value(&mut self, gathering: &mut Gathering, value: ValueId, root: bool) -> Result<Arg, TargetError> {
        let graph = self.graph.clone();
        let Some(node) = graph.producer(value).map(|id| graph.node(id)) else {
            return Err(lost("a value has no node"));
        };
        let dtype = graph.ty(value).dtype;
        // Operands meet in the node's own shape, if that has the same rows and columns.
        let own = graph.shape(value);
        let same = Layout::matrix(own) == Layout::matrix(&gathering.shape);
        let meets = if same { own.clone() } else { gathering.shape.clone() };
        let outer = std::mem::replace(&mut gathering.shape, meets);
        let arg = match &node.op {
            Op::Unary(Unary(function)) => {
                let source = graph.ty(node.inputs[0]).dtype;
                match function {
                    UnaryFn::Not if source == DType::Bool => {
                        let operand = self.argument(gathering, node.inputs[0], false)?;
                        gathering.push(
                            Function::Binary(BinaryFn::Eq),
                            &[operand, Arg::Number(Number::Integer(0))],
                            dtype,
                            1,
                        )
                    }
                    UnaryFn::Not => {
                        let operand = self.stored_argument(gathering, node.inputs[0])?;
                        gathering.push(Function::Unary(*function), &[operand], dtype, 64)
                    }
                    _ => {
                        let ring = *function == UnaryFn::Neg;
                        let operand = self.argument(gathering, node.inputs[0], ring)?;
                        let bits = gathering.bits(operand) + 1;
                        gathering.push(Function::Unary(*function), &[operand], dtype, bits)
                    }
                }
            }
            Op::Binary(Binary(function)) => {
                let stored = matches!(function, BinaryFn::Shl | BinaryFn::Shr | BinaryFn::Pow);
                let ring = matches!(function, BinaryFn::Add | BinaryFn::Sub | BinaryFn::Mul);
                let mut operands = [Arg::Number(Number::Integer(0)); 2];
                for (operand, &input) in operands.iter_mut().zip(&node.inputs) {
                    let integer = !graph.ty(input).dtype.is_float();
                    *operand = if stored && integer {
                        self.stored_argument(gathering, input)?
                    } else {
                        self.argument(gathering, input, ring)?
                    };
                }
                if let [Arg::Number(_), Arg::Number(_)] = operands {
                    operands[0] = self.leaf_argument(gathering, node.inputs[0])?;
                }
                let [a, b] = operands.map(|operand| gathering.bits(operand));
                let bits = match function {
                    BinaryFn::Mul => a + b,
                    BinaryFn::Add | BinaryFn::Sub => a.max(b) + 1,
                    function if function.is_comparison() => 1,
                    _ => a.max(b),
                };
                gathering.push(Function::Binary(*function), &operands, dtype, bits)
            }
            Op::Select(_) => {
                let condition = self.argument(gathering, node.inputs[0], false)?;
                let mut values = [Arg::Number(Number::Integer(0)); 2];
                for (value, &input) in values.iter_mut().zip(&node.inputs[1..]) {
                    *value = self.argument(gathering, input, true)?;
                }
                if let [Arg::Number(_), Arg::Number(_)] = values {
                    values[0] = self.leaf_argument(gathering, node.inputs[1])?;
                }
                let condition = match condition {
                    Arg::Number(_) => self.leaf_argument(gathering, node.inputs[0])?,
                    other => other,
                };
                let bits = gathering.bits(values[0]).max(gathering.bits(values[1]));
                gathering.push(Function::Select, &[condition, values[0], values[1]], dtype, bits)
            }
            Op::Cast(Cast { to }) => {
                let source = graph.ty(node.inputs[0]).dtype;
                let operand = self.argument(gathering, node.inputs[0], root && !to.is_float() && !source.is_float())?;
                self.gather_cast(gathering, operand, source, *to, root)?
            }
            _ => return Err(lost("a node is not element-wise")),
        };
        gathering.shape = outer;
        gathering.steps.insert(value, arg);
        Ok(arg)
    }

    /// A conversion. What is not the root of its chain is one that [`is_free`] allows.
    fn gather_cast(
        &mut self,
        gathering: &mut Gathering,
        operand: Arg,
        from: DType,
        to: DType,
        root: bool,
    ) -> Result<Arg, TargetError> {
        let bits = gathering.bits(operand).min(to.bits() as u32);
        if root {
            return Ok(gathering.push(Function::Copy, &[operand], storage(to), 64));
        }
        let class = gathering.class(operand).unwrap_or(from.class());
        if to == DType::Bool {
            let zero = Arg::Number(if from.is_float() { Number::Float(0.0) } else { Number::Integer(0) });
            let is_zero = gathering.push(Function::Binary(BinaryFn::Eq), &[operand, zero], DType::Bool, 1);
            let zero = Arg::Number(Number::Integer(0));
            return Ok(gathering.push(Function::Binary(BinaryFn::Eq), &[is_zero, zero], DType::Bool, 1));
        }
        if class == to.class() {
            return Ok(operand);
        }
        // Added to a zero of the class, it is converted; integers to floats lose nothing but what conversion loses.
        let zero_dtype = match to.class() {
            NumberClass::F32 => DType::F32,
            NumberClass::F64 => DType::F64,
            NumberClass::Signed => DType::I8,
            NumberClass::Unsigned => DType::U8,
        };
        let zero = self.literal(vec![0; zero_dtype.bits() / 8], zero_dtype, 1, 1)?;
        let vectors = gathering.vectors(self.lanes());
        let zero = gathering.leaf(Leaf { layout: zero, rows: vec![(0, 0); vectors] });
        Ok(gathering.push(Function::Binary(BinaryFn::Add), &[zero, operand], storage(to), bits))
    }

    /// An operand of a node of the chain. `ring` says that only its lowest bits matter, so that it may be too wide.
    pub(super) fn argument(
        &mut self,
        gathering: &mut Gathering,
        value: ValueId,
        ring: bool,
    ) -> Result<Arg, TargetError> {
        let access = self.plan.access(value).clone();
        let root = access.root;
        let dtype = self.graph.ty(root).dtype;
        if self.values[root.index()].is_none() && !self.is_constant(root) {
            let inline = access.view.shape() == &gathering.shape
                && access.view.is_dense()
                && self.graph.shape(root).count() == gathering.shape.count()
                && Layout::matrix(self.graph.shape(root)) == Layout::matrix(&gathering.shape);
            let inline_column = !inline && self.is_column_of(&gathering.shape, root, &access.view);
            if let (true, Def::Node { node: id, .. }) = (inline || inline_column, &self.graph.value(root).def) {
                let graph = self.graph.clone();
                let node = graph.node(*id);
                if let Some((leaf, product)) = gathering.product
                    && inline
                    && product == *id
                {
                    return Ok(Arg::Leaf(leaf));
                }
                if inline && gathering.takes_product && gathering.product.is_none() && self.pending.contains(&root) {
                    let arg = gathering.leaf(self.sums_of(*id)?);
                    if let Arg::Leaf(leaf) = arg {
                        gathering.product = Some((leaf, *id));
                    }
                    self.pending.remove(&root);
                    return Ok(arg);
                }
                if is_elementwise(&node.op) && self.is_free(&node.op, &node.inputs) {
                    let integer = dtype.is_integer() && dtype.bits() < 64;
                    let before = (integer && !ring).then(|| gathering.clone());
                    let arg = match gathering.steps.get(&root) {
                        Some(&arg) => arg,
                        None => self.gather_value(gathering, root, false)?,
                    };
                    match before {
                        // It is rounded where it is stored, so that what was gathered for it is of no use here.
                        Some(before) if gathering.bits(arg) > dtype.bits() as u32 => {
                            if let (None, Some((_, product))) = (before.product, gathering.product) {
                                self.pending.insert(graph.node(product).output());
                            }
                            *gathering = before;
                        }
                        _ => return Ok(arg),
                    }
                }
            }
        }
        self.stored_argument(gathering, value)
    }

    /// Whether a view repeats a number for each row along rows of a shape. Such numbers are cheaper computed once more for each
    /// vector, by ALUs that have nothing else to do, than on their way through memory.
    fn is_column_of(&self, shape: &Dims, root: ValueId, view: &View) -> bool {
        let own = self.graph.shape(root);
        let (rows, columns) = Layout::matrix(shape);
        columns > 1
            && Layout::matrix(own) == (rows, 1)
            && View::dense(own.clone()).broadcast(shape).is_some_and(|own| Some(own) == view.broadcast(shape))
    }

    /// Whether a node's result may go on to another in a chain, as it is what it would be if it were stored.
    pub(super) fn is_free(&self, op: &Op, inputs: &[ValueId]) -> bool {
        match op {
            Op::Cast(Cast { to }) => {
                let from = self.graph.ty(inputs[0]).dtype;
                match (from.is_float(), to.is_float()) {
                    _ if *to == DType::Bool => true,
                    (true, true) => to.bits() > from.bits() && !matches!((from, to), (DType::F16, DType::BF16)),
                    (false, true) => matches!(to, DType::F32 | DType::F64),
                    (true, false) => false,
                    (false, false) => to.bits() > from.bits() && (to.is_signed() || !from.is_signed()),
                }
            }
            Op::Unary(Unary(function)) => !matches!(function, UnaryFn::IsNan | UnaryFn::IsInf),
            _ => true,
        }
    }

    /// An operand as it lies in memory, or a number.
    fn stored_argument(&mut self, gathering: &mut Gathering, value: ValueId) -> Result<Arg, TargetError> {
        match self.operand(value, &gathering.shape.clone(), true)? {
            Operand::Number(number) => Ok(Arg::Number(number)),
            Operand::Leaf(leaf) => Ok(self.gathered_leaf(gathering, value, leaf)),
        }
    }

    /// An operand as it lies in memory.
    pub(super) fn leaf_argument(&mut self, gathering: &mut Gathering, value: ValueId) -> Result<Arg, TargetError> {
        match self.operand(value, &gathering.shape.clone(), false)? {
            Operand::Number(_) => Err(lost("an operand lies nowhere")),
            Operand::Leaf(leaf) => Ok(self.gathered_leaf(gathering, value, leaf)),
        }
    }

    fn gathered_leaf(&self, gathering: &mut Gathering, value: ValueId, leaf: Leaf) -> Arg {
        let access = self.plan.access(value);
        let key = (access.root, access.view.clone());
        if let Some(&known) = gathering.leaf_places.get(&key) {
            return Arg::Leaf(known);
        }
        let arg = gathering.leaf(leaf);
        if let Arg::Leaf(place) = arg {
            gathering.leaf_places.insert(key, place);
        }
        arg
    }

    fn operand(&mut self, value: ValueId, shape: &Dims, number: bool) -> Result<Operand, TargetError> {
        if number && let Some(number) = self.number(value) {
            return Ok(Operand::Number(number));
        }
        Ok(Operand::Leaf(self.rows_of(value, shape)?))
    }

    /// The vectors of a value, repeated to a shape.
    pub(super) fn rows_of(&mut self, value: ValueId, shape: &Dims) -> Result<Leaf, TargetError> {
        let access = self.plan.access(value).clone();
        let lanes = self.lanes();
        let no_view = || lost("a value cannot be repeated to the shape of what it meets");
        let key = (access.root, access.view.clone(), Shape::Dense);
        if let Some(layout) = self.made.get(&key).cloned()
            && let Some(view) = View::dense(access.view.shape().clone()).broadcast(shape)
            && let Some(rows) = direct(&view, layout.columns, lanes)
        {
            return Ok(Leaf { layout, rows });
        }
        // Of a constant only what is read need be there.
        let elements = |value: ValueId| self.graph.shape(value).count();
        let is_part = self.is_constant(access.root) && elements(value) < elements(access.root);
        if !is_part && let Some(view) = access.view.broadcast(shape) {
            let source = self.materialize(access.root)?;
            if let Some(rows) = direct(&view, source.columns, lanes) {
                return Ok(Leaf { layout: source, rows });
            }
        }
        // It must lie otherwise first: all that is distinct of it.
        let (layout, own) = if self.is_constant(access.root) {
            (self.constant_rows(value)?, View::dense(self.graph.shape(value).clone()))
        } else {
            let view = access.view.broadcast(shape).map_or_else(|| access.view.clone(), |view| distinct(&view));
            (self.dense(access.root, &view)?, View::dense(view.shape().clone()))
        };
        let view = own.broadcast(shape).ok_or_else(no_view)?;
        let rows = direct(&view, layout.columns, lanes).ok_or_else(no_view)?;
        Ok(Leaf { layout, rows })
    }

    /// The number that a constant is, if an instruction can carry it.
    pub(super) fn number(&self, value: ValueId) -> Option<Number> {
        let tensor = self.graph.as_constant(self.plan.access(value).root)?;
        if tensor.shape().count() != 1 {
            return None;
        }
        self.scalar(tensor)
    }

    fn scalar(&self, tensor: &Tensor) -> Option<Number> {
        if tensor.dtype().is_float() {
            let number = *tensor.to_f64s().ok()?.first()?;
            let single = number as f32;
            return (f64::from(single) == number).then_some(Number::Float(single));
        }
        if tensor.dtype() == DType::Bool {
            return Some(Number::Integer(i32::from(*tensor.bytes().ok()?.first()?)));
        }
        let number = *tensor.to_i64s().ok()??.first()?;
        i32::try_from(number).ok().map(Number::Integer)
    }

    /// Runs a chain over all its vectors. Steps that nothing uses are left out; what takes more ALUs than there are goes through
    /// memory.
    pub(super) fn run_chain(&mut self, work: Work) -> Result<(), TargetError> {
        let mut temporary = Vec::new();
        let first = work.first.clone();
        // Results of reductions are written in bursts, and what reads others of them must fit between.
        let columns = work.leaves.iter().any(|leaf| leaf.layout.is_splat() && leaf.layout.rows > 1);
        let length = if columns { SHORT_CHUNK } else { CHUNK };
        let parts = self.parts(pruned(work), &mut temporary)?;
        for range in chunks(&first, length) {
            for part in &parts {
                self.run_part(part, range.clone())?;
            }
        }
        temporary.iter().for_each(|layout| self.give_back(layout));
        Ok(())
    }

    /// The same, of so many rows, lot by lot.
    fn run_by_lots(&mut self, work: Work, rows: usize) -> Result<(), TargetError> {
        let blocks = work.first.len() / rows.max(1);
        let Some(size) = self.lots.size.filter(|&size| size < rows && work.first.iter().all(|&first| first)) else {
            return self.run_chain(work);
        };
        for start in (0..rows).step_by(size) {
            let end = rows.min(start + size);
            let vectors: Vec<usize> = (start * blocks..end * blocks).collect();
            let touched = Touched::by_chain(&work, &vectors, None);
            let own = work.some(vectors.into_iter());
            self.in_turn((end - 1, 1), touched, move |lowering| lowering.run_chain(own))?;
        }
        Ok(())
    }

    /// Cuts a chain into chains that the vector unit has enough ALUs for.
    fn parts(&mut self, mut work: Work, temporary: &mut Vec<Lease>) -> Result<Vec<Work>, TargetError> {
        let mut parts = Vec::new();
        while !self.is_small(&work, work.chain.steps.len()) {
            let fits = (1..work.chain.steps.len()).rev().find(|&count| self.is_small(&work, count));
            let count = fits.unwrap_or(1);
            if count == work.chain.steps.len() {
                break;
            }
            let (head, tail) = self.cut(work, count, temporary)?;
            parts.push(pruned(head));
            work = pruned(tail);
        }
        parts.push(work);
        Ok(parts)
    }

    /// Whether the first steps of a chain have enough ALUs, and their operands and results enough slices, streams and trains.
    pub(super) fn is_small(&self, work: &Work, count: usize) -> bool {
        let steps = &work.chain.steps[..count];
        let later = &work.chain.steps[count..];
        let crosses = |step: usize| later.iter().any(|later| later.args.contains(&Arg::Step(step)));
        let mut head = Chain { steps: steps.to_vec(), leaves: work.chain.leaves.clone() };
        // What is a result and goes on behind the cut is copied for that.
        let copied = (0..count).filter(|&step| crosses(step) && work.targets.iter().any(|target| target.step == step));
        head.steps.extend(copied.map(|step| copy_of(step, work.chain.steps[step].dtype)));
        if head.level().alus() > self.facts.vxm.alus as usize {
            return false;
        }
        let bytes = |dtype: DType| dtype.bits() / 8;
        let used = |leaf: usize| steps.iter().any(|step| step.args.contains(&Arg::Leaf(leaf)));
        let leaves = (0..work.leaves.len()).filter(|&leaf| used(leaf)).map(|leaf| bytes(work.chain.leaves[leaf]));
        let stored = work.targets.iter().filter(|target| target.step < count).map(|target| bytes(target.layout.dtype));
        let crossing = (0..count).filter(|&step| crosses(step)).map(|step| bytes(crossing_dtype(&work.chain, step)));
        let planes = leaves.chain(stored).chain(crossing).sum::<usize>();
        // Each operand and result is on one side, so that not all slices can be used.
        planes <= (self.facts.mem.slices * 4 / 3).min(self.facts.streams) as usize
    }

    /// Cuts a chain behind so many steps.
    fn cut(&mut self, work: Work, count: usize, temporary: &mut Vec<Lease>) -> Result<(Work, Work), TargetError> {
        let Work { chain, leaves, targets, first } = work;
        let vectors = first.len();
        let (mut targets, late): (Vec<Target>, Vec<Target>) =
            targets.into_iter().partition(|target| target.step < count);
        let mut head = chain.clone();
        head.steps.truncate(count);
        let mut tail = Chain { steps: Vec::new(), leaves: chain.leaves.clone() };
        let mut tail_leaves = leaves.clone();
        let mut crossing: HashMap<usize, usize> = HashMap::new();
        for step in &chain.steps[count..] {
            let mut step = step.clone();
            for arg in &mut step.args {
                let Arg::Step(other) = *arg else { continue };
                if other >= count {
                    *arg = Arg::Step(other - count);
                    continue;
                }
                let leaf = match crossing.get(&other) {
                    Some(&leaf) => leaf,
                    None => {
                        let dtype = crossing_dtype(&chain, other);
                        let avoid = tail_leaves
                            .iter()
                            .map(|leaf| &leaf.layout)
                            .chain(targets.iter().map(|target| &target.layout));
                        let avoid = avoid.fold(Slices::default(), |all, layout| all.union(Slices::of(&layout.slices)));
                        let layout = self.allocate(dtype, vectors, self.lanes(), 1, avoid)?;
                        temporary.push(layout.clone());
                        let rows: Rows = (0..vectors as u32).map(|row| (row, 0)).collect();
                        let step = match targets.iter().any(|target| target.step == other) {
                            false => other,
                            true => {
                                head.steps.push(copy_of(other, dtype));
                                head.steps.len() - 1
                            }
                        };
                        let rows_to = rows.iter().map(|&row| Some(row)).collect();
                        targets.push(Target { step, layout: layout.clone(), rows: rows_to });
                        tail.leaves.push(dtype);
                        tail_leaves.push(Leaf { layout, rows });
                        crossing.insert(other, tail_leaves.len() - 1);
                        tail_leaves.len() - 1
                    }
                };
                *arg = Arg::Leaf(leaf);
            }
            tail.steps.push(step);
        }
        let late = late.into_iter().map(|target| Target { step: target.step - count, ..target }).collect();
        let head = Work { chain: head, leaves, targets, first: first.clone() };
        Ok((head, Work { chain: tail, leaves: tail_leaves, targets: late, first }))
    }

    /// Places the work of a chain on some of its vectors.
    pub(super) fn run_part(&mut self, work: &Work, range: Range<usize>) -> Result<(), TargetError> {
        let levelled = work.chain.level();
        let mut leaves: Vec<Leaf> = work
            .leaves
            .iter()
            .map(|leaf| Leaf { layout: leaf.layout.clone(), rows: leaf.rows[range.clone()].to_vec() })
            .collect();
        let mut moved: Vec<Lease> = Vec::new();
        for _ in 0..=leaves.len() {
            let mut flow = FlowBuilder::new(self.facts);
            let inputs: Vec<Input> = leaves.iter().map(Leaf::input).collect();
            let outputs: Vec<Output> = work.targets.iter().map(|target| target.output(range.clone())).collect();
            add_chain(&mut flow, self.facts, &levelled, 0, &inputs, &outputs, &work.first[range.clone()]);
            let slice = match flow.finish() {
                Ok(flow) => {
                    self.place(&flow, ASAP)?;
                    moved.iter().for_each(|layout| self.give_back(layout));
                    return Ok(());
                }
                Err(Clash::Slice(slice)) => slice,
                Err(clash) => return Err(clashed(clash)),
            };
            let reads = |leaf: &Leaf| Slices::of(&leaf.layout.slices).contains(slice);
            let readers =
                leaves.iter().zip(&levelled.leaf_levels).filter(|(leaf, level)| level.is_some() && reads(leaf));
            // What is read and written in the same slice does not meet if there is little of it.
            if readers.count() < 2
                && let Some(middle) = middle(&work.first, range.clone())
            {
                self.run_part(work, range.start..middle)?;
                self.run_part(work, middle..range.end)?;
                moved.iter().for_each(|layout| self.give_back(layout));
                return Ok(());
            }
            let at = (0..leaves.len()).rev().find(|&at| {
                levelled.leaf_levels[at].is_some()
                    && reads(&leaves[at])
                    && !moved.iter().any(|moved| Arc::ptr_eq(moved, &leaves[at].layout))
            });
            let Some(at) = at else {
                moved.iter().for_each(|layout| self.give_back(layout));
                return self.run_apart(work, range, slice);
            };
            let others = leaves.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, leaf)| &leaf.layout);
            let avoid = others.fold(Slices::default().with(slice), |all, layout| all.union(Slices::of(&layout.slices)));
            let leaf = self.relocated(&leaves[at], avoid)?;
            moved.push(leaf.layout.clone());
            leaves[at] = leaf;
        }
        Err(lost("the operands of a kernel cannot be read together"))
    }

    /// Places work that reads and writes, or writes twice, in one slice in the same cycle: results one after the other, and by way
    /// of other slices.
    fn run_apart(&mut self, work: &Work, range: Range<usize>, slice: u8) -> Result<(), TargetError> {
        if work.targets.len() > 1 {
            return work.targets.iter().try_for_each(|target| {
                self.run_part(&pruned(Work { targets: vec![target.clone()], ..work.clone() }), range.clone())
            });
        }
        let Some(target) = work.targets.first() else { return Ok(()) };
        let taken = work.leaves.iter().map(|leaf| &leaf.layout).chain([&target.layout]);
        let avoid = taken.fold(Slices::default(), |all, layout| all.union(Slices::of(&layout.slices)));
        let count = range.len();
        let between = self.allocate(target.layout.dtype, count, self.lanes(), 1, avoid)?;
        if Slices::of(&between.slices).meets(avoid) {
            return Err(clashed(Clash::Slice(slice)));
        }
        let own: Vec<Option<(u32, u32)>> =
            (0..count).map(|row| target.rows[range.start + row].map(|_| (row as u32, 0))).collect();
        let stored: Vec<usize> = (0..count).filter(|&row| own[row].is_some()).collect();
        let mut first = work.some(range.clone());
        first.targets = vec![Target { step: target.step, layout: between.clone(), rows: own }];
        self.run_part(&first, 0..count)?;
        let from = Leaf { layout: between.clone(), rows: stored.iter().map(|&row| (row as u32, 0)).collect() };
        let to = stored.iter().filter_map(|&row| target.rows[range.start + row]).collect();
        self.copy_vectors(from, target.layout.clone(), to)?;
        self.give_back(&between);
        Ok(())
    }

    /// A copy of some vectors in other slices.
    fn relocated(&mut self, leaf: &Leaf, avoid: Slices) -> Result<Leaf, TargetError> {
        let Leaf { layout, rows } = leaf;
        let dtype = layout.dtype;
        let to = self.allocate(dtype, rows.len(), self.lanes(), 1, avoid)?;
        let all: Rows = (0..rows.len() as u32).map(|row| (row, 0)).collect();
        self.copy_vectors(leaf.clone(), to.clone(), all.clone())?;
        Ok(Leaf { layout: to, rows: all })
    }

    /// Copies vectors.
    pub(super) fn copy_vectors(&mut self, from: Leaf, to: Lease, rows: Rows) -> Result<(), TargetError> {
        let dtype = from.layout.dtype;
        let chain = Chain {
            steps: vec![Step { function: Function::Copy, args: SmallVec::from_slice(&[Arg::Leaf(0)]), dtype }],
            leaves: vec![dtype],
        };
        let first = vec![true; rows.len()];
        let target = Target { step: 0, layout: to, rows: rows.into_iter().map(Some).collect() };
        self.run_chain(Work { chain, leaves: vec![from], targets: vec![target], first })
    }
}

impl Work {
    /// The slices that it reads and writes.
    pub fn slices(&self) -> Slices {
        let layouts =
            self.leaves.iter().map(|leaf| &leaf.layout).chain(self.targets.iter().map(|target| &target.layout));
        layouts.fold(Slices::NONE, |all, layout| all.union(Slices::of(&layout.slices)))
    }

    /// The same work on some of its vectors.
    pub fn some(&self, vectors: impl Iterator<Item = usize> + Clone) -> Work {
        let leaf = |leaf: &Leaf| Leaf {
            layout: leaf.layout.clone(),
            rows: vectors.clone().map(|vector| leaf.rows[vector]).collect(),
        };
        let target = |target: &Target| Target {
            rows: vectors.clone().map(|vector| target.rows[vector]).collect(),
            ..target.clone()
        };
        Work {
            chain: self.chain.clone(),
            leaves: self.leaves.iter().map(leaf).collect(),
            targets: self.targets.iter().map(target).collect(),
            first: vectors.clone().map(|vector| self.first[vector]).collect(),
        }
    }
}

impl Gathering {
    /// Vectors of the shape.
    fn vectors(&self, lanes: usize) -> usize {
        let (rows, columns) = Layout::matrix(&self.shape);
        rows * columns.div_ceil(lanes)
    }
}

impl Leaf {
    pub fn input(&self) -> Input {
        Input::Memory(self.rows.iter().map(|&(row, block)| planes(&self.layout, row, block)).collect())
    }
}

impl Target {
    pub fn output(&self, range: Range<usize>) -> Output {
        let to = self.rows[range].iter().map(|to| to.map(|(row, block)| planes(&self.layout, row, block))).collect();
        Output { step: self.step, dtype: self.layout.dtype, to }
    }
}

/// Where the planes of a vector lie.
pub(super) fn planes(layout: &Layout, row: u32, block: u32) -> Planes {
    (0..layout.planes()).map(|plane| layout.place(row as usize, block as usize, plane)).collect()
}

/// All rows and blocks, in order.
pub(super) fn all_vectors(rows: usize, blocks: usize) -> Rows {
    (0..rows as u32).flat_map(|row| (0..blocks as u32).map(move |block| (row, block))).collect()
}

/// A step that has another's result.
fn copy_of(step: usize, dtype: DType) -> Step {
    Step { function: Function::Copy, args: SmallVec::from_slice(&[Arg::Step(step)]), dtype }
}

/// The type in which a result crosses memory within a chain: floats as they are computed, without rounding.
fn crossing_dtype(chain: &Chain, step: usize) -> DType {
    let dtype = chain.steps[step].dtype;
    match dtype.class() {
        NumberClass::F32 => DType::F32,
        NumberClass::F64 => DType::F64,
        NumberClass::Signed | NumberClass::Unsigned => dtype,
    }
}

/// Stretches of vectors that a flow works on, cut only where running results begin anew.
fn chunks(first: &[bool], length: usize) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let mut start = 0;
    for index in 1..=first.len() {
        let whole = index - start >= length && (index == first.len() || first[index]);
        if whole || index == first.len() {
            chunks.push(start..index);
            start = index;
        }
    }
    chunks
}

/// Where work can be cut in two.
fn middle(first: &[bool], range: Range<usize>) -> Option<usize> {
    let half = range.start + range.len() / 2;
    let later = (half.max(range.start + 1)..range.end).find(|&index| first[index]);
    later.or_else(|| (range.start + 1..half).rev().find(|&index| first[index]))
}

/// The work without steps and operands that no result needs.
pub(super) fn pruned(work: Work) -> Work {
    let Work { chain, leaves, targets, first } = work;
    let mut needed = vec![false; chain.steps.len()];
    targets.iter().for_each(|target| needed[target.step] = true);
    let mut leaf_needed = vec![false; leaves.len()];
    for (index, step) in chain.steps.iter().enumerate().rev() {
        if needed[index] {
            for arg in &step.args {
                match arg {
                    Arg::Step(other) => needed[*other] = true,
                    Arg::Leaf(leaf) => leaf_needed[*leaf] = true,
                    Arg::Number(_) => {}
                }
            }
        }
    }
    let numbers = |needed: &[bool]| -> Vec<usize> {
        let mut next = 0;
        let number = |&needed: &bool| {
            let number = next;
            next += usize::from(needed);
            number
        };
        needed.iter().map(number).collect()
    };
    let (steps, places) = (numbers(&needed), numbers(&leaf_needed));
    let keep = |step: &Step| {
        let args = step.args.iter().map(|arg| match *arg {
            Arg::Step(other) => Arg::Step(steps[other]),
            Arg::Leaf(leaf) => Arg::Leaf(places[leaf]),
            number @ Arg::Number(_) => number,
        });
        Step { args: args.collect(), ..step.clone() }
    };
    let chain = Chain {
        steps: chain.steps.iter().zip(&needed).filter(|(_, needed)| **needed).map(|(step, _)| keep(step)).collect(),
        leaves: chain.leaves.iter().zip(&leaf_needed).filter(|(_, needed)| **needed).map(|(&dtype, _)| dtype).collect(),
    };
    let leaves = leaves.into_iter().zip(&leaf_needed).filter(|(_, needed)| **needed).map(|(leaf, _)| leaf).collect();
    let targets = targets.into_iter().map(|target| Target { step: steps[target.step], ..target }).collect();
    // Without running results, vectors do not depend on each other.
    let runs = chain.steps.iter().any(|step| matches!(step.function, Function::Accumulate(_)));
    let first = if runs { first } else { vec![true; first.len()] };
    Work { chain, leaves, targets, first }
}
