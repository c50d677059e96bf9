//! Element-wise values: what is gathered into one chain, and which values it stores in which forms.

use std::collections::HashMap;

use smallvec::SmallVec;
use tcc_ir::ops::{Binary, BinaryFn, Cast, Unary, UnaryFn};
use tcc_ir::{DType, Def, NodeId, NumberClass, Op, Shape as Dims, Tensor, ValueId, View};

use super::access::{direct, distinct};
use super::chain::{Arg, Chain, Function, Step};
use super::work::{Leaf, Target, Work, all_vectors};
use super::{Lowering, Room, Shape, is_elementwise, lost};
use crate::lpu::isa::Number;
use crate::lpu::layout::Layout;
use crate::lpu::memory::Slices;
use crate::stored::storage;
use crate::target::TargetError;

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
}

impl Gathering {
    /// Vectors of the shape.
    fn vectors(&self, lanes: usize) -> usize {
        let (rows, columns) = Layout::matrix(&self.shape);
        rows * columns.div_ceil(lanes)
    }
}
