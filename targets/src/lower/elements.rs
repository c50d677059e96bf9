//! Elements of values at coordinates: what a thread computes to have one.
//!
//! A value that the kernel computes itself is computed where it is wanted, from elements of its operands; any other is read
//! from memory through its view. What is held already, by the coordinates it is held at, is not computed again.

use std::collections::{HashMap, HashSet};

use smallvec::SmallVec;
use tcc_ir::ops::{BinaryFn, MatMul, Reduce, ReduceFn};
use tcc_ir::{Access, Atom, DType, Graph, Node, NodeId, Op, Plan, Shape, TensorType, ValueId, View, is_view};

use super::quantized::{Arranged, Constants, Quantized};
use super::{Argument, Opening, stored_type};
use crate::kernel::{BufferId, Builder, ExprId, IndexFn, Scalar, SharedId};
use crate::number::FoldFn;
use crate::products::zero_points;
use crate::target::TargetError;

/// An index along each dimension of a shape.
pub(crate) type Coords = SmallVec<[ExprId; 6]>;

/// Elements of the values of one kernel.
pub(crate) struct Elements<'a> {
    pub plan: &'a Plan,
    pub builder: Builder,
    /// What follows from constants alone.
    constants: &'a Constants,
    /// Nodes that this kernel computes.
    own: HashSet<NodeId>,
    /// What each parameter is.
    pub arguments: Vec<Argument>,
    /// What the kernel reads before anything else.
    pub openings: Vec<Opening>,
    buffers: HashMap<ValueId, BufferId>,
    /// The same of what is packed for weights of few bits.
    packed: HashMap<u32, BufferId>,
    /// What is held, in scopes.
    held: Vec<HashMap<(ValueId, Coords), ExprId>>,
    /// Coordinates that follow from one index, which dense values of this shape have at once.
    linear: Option<(Shape, Coords, ExprId)>,
    /// What threads combine by, kept for the next time.
    pub scratch: Option<(DType, SharedId)>,
}

impl<'a> Elements<'a> {
    pub fn new(
        plan: &'a Plan,
        constants: &'a Constants,
        own: impl IntoIterator<Item = NodeId>,
        builder: Builder,
    ) -> Self {
        Elements {
            plan,
            builder,
            constants,
            own: own.into_iter().collect(),
            arguments: Vec::new(),
            openings: Vec::new(),
            buffers: HashMap::new(),
            packed: HashMap::new(),
            held: vec![HashMap::new()],
            linear: None,
            scratch: None,
        }
    }

    pub fn graph(&self) -> &'a Graph {
        &self.plan.graph
    }

    /// A parameter for a value that lies in memory.
    fn buffer(&mut self, value: ValueId, is_written: bool) -> BufferId {
        if let Some(&known) = self.buffers.get(&value) {
            return known;
        }
        let ty = self.graph().ty(value);
        let dtype = stored_type(self.graph(), &self.constants.derived, value);
        let elements = ty.shape.count().max(1) as u64;
        let name = self.name(value);
        let buffer = self.builder.buffer(&name, dtype, elements, is_written);
        self.buffers.insert(value, buffer);
        self.arguments.push(Argument::Value(value));
        buffer
    }

    /// A parameter for what is packed for weights of few bits.
    pub fn arranged(&mut self, number: u32) -> BufferId {
        if let Some(&known) = self.packed.get(&number) {
            return known;
        }
        let Arranged { value, view } = &self.constants.arranged[number as usize];
        let dtype = self.graph().ty(*value).dtype;
        let name = self.name(*value);
        let buffer = self.builder.buffer(&name, dtype, view.shape().count() as u64, false);
        self.packed.insert(number, buffer);
        self.arguments.push(Argument::Arranged(number));
        buffer
    }

    /// A parameter for what blocks hand over to the one that arrives last.
    pub fn handed(&mut self, name: &str, dtype: DType, elements: u64) -> BufferId {
        let before = self.arguments.iter().filter(|argument| matches!(argument, Argument::Handed(..))).count();
        self.arguments.push(Argument::Handed(before as u32, dtype, elements));
        self.builder.buffer(name, dtype, elements, true)
    }

    /// A parameter for what one call hands to others by this number, which all know.
    pub fn between(&mut self, number: u32, name: &str, (dtype, elements): (DType, u64), is_written: bool) -> BufferId {
        self.arguments.push(Argument::Handed(number, dtype, elements));
        self.builder.buffer(name, dtype, elements, is_written)
    }

    /// A parameter for one of equal parts of so many elements of what is handed over by this number.
    pub fn part(
        &mut self,
        number: u32,
        name: &str,
        (dtype, elements): (DType, u64),
        (part, parts): (u32, u32),
        is_written: bool,
    ) -> BufferId {
        self.arguments.push(Argument::Part { number, dtype, elements, parts, part });
        self.builder.buffer(name, dtype, elements, is_written)
    }

    /// A parameter for so many counters that blocks arrive by.
    pub fn counters(&mut self, elements: u64) -> BufferId {
        self.arguments.push(Argument::Counters(elements));
        self.builder.buffer("counters", DType::U32, elements, true)
    }

    /// What a value is called in code: as in the model, by its node where it has no name.
    pub fn name(&self, value: ValueId) -> String {
        let graph = self.graph();
        let own = &graph.value(value).name;
        match (own.is_empty(), graph.producer(value)) {
            (true, Some(node)) => graph.node(node).op.name().to_owned(),
            (true, None) => "constant".to_owned(),
            _ => own.to_string(),
        }
    }

    /// Opens a scope: what is held from now on is given up when it is closed.
    pub fn open(&mut self) {
        self.held.push(HashMap::new());
    }

    /// Closes a scope, and the statement that it belongs to.
    pub fn close(&mut self) {
        self.held.pop();
        self.builder.end();
    }

    /// Says what an element is.
    pub fn hold(&mut self, value: ValueId, coords: &[ExprId], element: ExprId) {
        if let Some(scope) = self.held.last_mut() {
            scope.insert((value, Coords::from_slice(coords)), element);
        }
    }

    fn is_held(&self, value: ValueId, coords: &Coords) -> Option<ExprId> {
        let key = (value, coords.clone());
        self.held.iter().rev().find_map(|scope| scope.get(&key).copied())
    }

    /// Coordinates of the element of a shape that an index counts, in the order of memory.
    pub fn coords_of(&mut self, shape: &Shape, index: ExprId) -> Coords {
        let mut coords = Coords::new();
        let mut rest = index;
        let mut left = shape.count();
        for (axis, &size) in shape.iter().enumerate() {
            left /= size.max(1);
            let last = shape[axis + 1..].iter().all(|&size| size == 1);
            if size == 1 {
                let zero = self.builder.integer(0);
                coords.push(zero);
            } else if last {
                coords.push(rest);
            } else {
                let (quotient, remainder) = self.builder.divided(rest, left as i32);
                coords.push(quotient);
                rest = remainder;
            }
        }
        coords
    }

    /// [`Elements::coords_of`] for the elements that a kernel walks.
    pub fn walk(&mut self, shape: &Shape, index: ExprId) -> Coords {
        let coords = self.coords_of(shape, index);
        self.linear = Some((shape.clone(), coords.clone(), index));
        coords
    }

    /// The index of an element in a dense array of some extents.
    pub fn index_in(&mut self, dims: &[usize], coords: &[ExprId]) -> ExprId {
        let (mut index, mut stride) = (self.builder.integer(0), 1);
        for (&size, &coord) in dims.iter().zip(coords).rev() {
            let part = self.builder.scaled(coord, stride as i32);
            index = self.builder.add(part, index);
            stride *= size;
        }
        index
    }

    /// The index of an element of a shape in the order of memory.
    fn index_of(&mut self, shape: &Shape, coords: &[ExprId]) -> ExprId {
        if let Some((known, at, index)) = &self.linear
            && known == shape
            && at[..] == *coords
        {
            return *index;
        }
        let mut index = self.builder.integer(0);
        for (&coord, stride) in coords.iter().zip(shape.strides()) {
            let part = self.builder.scaled(coord, stride as i32);
            index = self.builder.add(index, part);
        }
        index
    }

    /// Where an element of a view lies.
    fn address(&mut self, view: &View, coords: &[ExprId]) -> ExprId {
        if view.is_dense() {
            return self.index_of(view.shape(), coords);
        }
        let mut address = self.builder.integer(view.offset() as i32);
        match view.groups() {
            Some(groups) => {
                for (group, &coord) in groups.iter().zip(coords) {
                    address = self.along(address, group, coord);
                }
            }
            None => {
                let index = self.index_of(view.shape(), coords);
                address = self.along(address, view.atoms(), index);
            }
        }
        address
    }

    /// An address and what an index through some atoms adds to it.
    fn along(&mut self, mut address: ExprId, atoms: &[Atom], index: ExprId) -> ExprId {
        let mut rest = index;
        for (place, atom) in atoms.iter().enumerate().rev() {
            let digit = if place == 0 {
                rest
            } else {
                let (quotient, digit) = self.builder.divided(rest, atom.size as i32);
                rest = quotient;
                digit
            };
            if atom.stride != 0 {
                let part = self.builder.scaled(digit, atom.stride as i32);
                address = self.builder.add(address, part);
            }
        }
        address
    }

    /// The coordinates of an operand that broadcasts to what is computed at some coordinates.
    fn broadcast(&mut self, shape: &Shape, coords: &[ExprId]) -> Coords {
        let lead = coords.len() - shape.rank();
        let zero = self.builder.integer(0);
        shape.iter().zip(&coords[lead..]).map(|(&size, &coord)| if size == 1 { zero } else { coord }).collect()
    }

    /// An element of an operand that broadcasts.
    fn operand(&mut self, value: ValueId, coords: &[ExprId]) -> Result<ExprId, TargetError> {
        let shape = self.graph().shape(value);
        let coords = self.broadcast(shape, coords);
        self.element(value, &coords)
    }

    /// An element of a value, as a number of its type.
    pub fn element(&mut self, value: ValueId, coords: &[ExprId]) -> Result<ExprId, TargetError> {
        let coords = Coords::from_slice(coords);
        if let Some(held) = self.is_held(value, &coords) {
            return Ok(held);
        }
        let graph = self.graph();
        if let Some(number) = self.known_number(value) {
            return Ok(number);
        }
        let producer = graph.producer(value).filter(|id| self.is_own(*id));
        let element = match producer.map(|id| graph.node(id)) {
            Some(node) if is_view(&node.op) => return self.through_view(node, &coords),
            Some(node) => {
                let computed = self.computed(node, &coords)?;
                let scalar = Scalar::of(graph.ty(value).dtype);
                let name = self.name(value);
                self.builder.keep(&name, scalar, computed)
            }
            None => match self.quantized(value) {
                Some(quantized) => self.dequantized(quantized, &coords)?,
                None => self.element_of(self.plan.access(value), &coords, value),
            },
        };
        self.hold(value, &coords, element);
        Ok(element)
    }

    /// An element of what lies in memory, as that of a value.
    pub fn element_of(&mut self, access: &Access, coords: &[ExprId], value: ValueId) -> ExprId {
        let at = self.address(&access.view, coords);
        let buffer = self.buffer(access.root, false);
        let name = format!("{}_element", self.name(value));
        self.builder.load(buffer, at, &name)
    }

    /// Whether this kernel computes a node, or sees through it to what it computes.
    fn is_own(&self, id: NodeId) -> bool {
        let node = self.graph().node(id);
        if !is_view(&node.op) {
            return self.own.contains(&id);
        }
        let access = self.plan.access(node.output());
        let of_own = |root: ValueId| self.graph().producer(root).is_some_and(|id| self.own.contains(&id));
        !self.constants.derived[node.output().index()] && of_own(access.root)
            || self.graph().producer(node.inputs[0]).is_some_and(|id| self.is_own(id))
    }

    /// A constant of one element, as a number.
    fn known_number(&mut self, value: ValueId) -> Option<ExprId> {
        let tensor = self.graph().as_constant(value)?;
        if tensor.shape().count() != 1 {
            return None;
        }
        let bits = match tensor.dtype().is_float() {
            true => tensor.to_f64s().ok()?.first()?.to_bits(),
            false => *tensor.to_i64s().ok()??.first()? as u64,
        };
        Some(self.builder.number(tensor.dtype(), bits))
    }

    /// An element of a value that rearranges another.
    fn through_view(&mut self, node: &Node, coords: &[ExprId]) -> Result<ExprId, TargetError> {
        let coords = self.behind(node, coords);
        self.element(node.inputs[0], &coords)
    }

    /// The value that a view of views is of in the end, and the coordinates there.
    pub fn seen(&mut self, value: ValueId, coords: &[ExprId]) -> (ValueId, Coords) {
        let (mut value, mut coords) = (value, Coords::from_slice(coords));
        while let Some(node) = self.graph().producer(value).map(|id| self.graph().node(id))
            && is_view(&node.op)
        {
            (value, coords) = (node.inputs[0], self.behind(node, &coords));
        }
        (value, coords)
    }

    /// The coordinates in the value that a view rearranges.
    fn behind(&mut self, node: &Node, coords: &[ExprId]) -> Coords {
        let source = node.inputs[0];
        let shape = self.graph().shape(source);
        let own = self.graph().shape(node.output());
        match &node.op {
            Op::Reshape(_) => {
                let index = self.index_of(own, coords);
                self.coords_of(shape, index)
            }
            Op::Transpose(op) => {
                let mut turned = Coords::from_elem(self.builder.integer(0), shape.rank());
                op.perm.iter().zip(coords).for_each(|(&axis, &coord)| turned[axis] = coord);
                turned
            }
            Op::Slice(op) => {
                let mut moved = Coords::new();
                for (axis, &coord) in coords.iter().enumerate() {
                    let step = if op.sizes[axis] > 1 { op.steps[axis] } else { 0 };
                    let part = self.builder.scaled(coord, step as i32);
                    let start = self.builder.integer(op.starts[axis] as i32);
                    moved.push(self.builder.add(part, start));
                }
                moved
            }
            Op::Window(op) => {
                let position = self.builder.scaled(coords[op.axis], op.step as i32);
                let within = self.builder.scaled(coords[op.axis + 1], op.dilation as i32);
                let mut merged = Coords::from_slice(coords);
                merged[op.axis] = self.builder.add(position, within);
                merged.remove(op.axis + 1);
                merged
            }
            _ => self.broadcast(shape, coords),
        }
    }

    /// An element of a node's first result, from elements of its operands.
    fn computed(&mut self, node: &Node, coords: &Coords) -> Result<ExprId, TargetError> {
        let graph = self.graph();
        let dtype = |value: ValueId| graph.ty(value).dtype;
        Ok(match &node.op {
            Op::Unary(op) => {
                let x = self.operand(node.inputs[0], coords)?;
                self.builder.unary(op.0, dtype(node.inputs[0]), x)
            }
            Op::Binary(op) => {
                let a = self.operand(node.inputs[0], coords)?;
                let b = self.operand(node.inputs[1], coords)?;
                self.builder.binary(op.0, dtype(node.inputs[0]), a, b)
            }
            Op::Select(_) => {
                let condition = self.operand(node.inputs[0], coords)?;
                let (a, b) = (self.operand(node.inputs[1], coords)?, self.operand(node.inputs[2], coords)?);
                self.builder.select(condition, a, b)
            }
            Op::Cast(op) => {
                let x = self.operand(node.inputs[0], coords)?;
                self.builder.convert(dtype(node.inputs[0]), op.to, x)
            }
            Op::Gather(op) => {
                let indices = graph.shape(node.inputs[1]);
                let (before, rest) = coords.split_at(op.axis);
                let (at, after) = rest.split_at(indices.rank());
                let index = self.element(node.inputs[1], at)?;
                let extent = graph.shape(node.inputs[0])[op.axis];
                let index = self.counted(index, dtype(node.inputs[1]), extent);
                let coords: Coords = before.iter().copied().chain([index]).chain(after.iter().copied()).collect();
                self.element(node.inputs[0], &coords)?
            }
            Op::Rope(op) => self.rotated(node, op.interleaved, coords)?,
            Op::Concat(op) => self.concatenated(node, op.axis, coords)?,
            Op::Pad(op) => {
                let shape = graph.shape(node.inputs[0]);
                let mut inside = self.builder.integer(1);
                let mut within = Coords::new();
                for (axis, &coord) in coords.iter().enumerate() {
                    let low = self.builder.integer(op.low[axis] as i32);
                    let moved = self.builder.index(IndexFn::Sub, coord, low);
                    let pitch = op.interior[axis] as i32 + 1;
                    let extent = shape[axis] as i32;
                    let zero = self.builder.integer(0);
                    let padded = i64::from(extent - 1) * i64::from(pitch) + op.low[axis];
                    if op.low[axis] > 0 {
                        let begins = self.builder.index(IndexFn::Ge, moved, zero);
                        inside = self.builder.index(IndexFn::And, inside, begins);
                    }
                    if (graph.shape(node.output())[axis] as i64) > padded + 1 {
                        let ends = self.builder.below(moved, (extent - 1) * pitch + 1);
                        inside = self.builder.index(IndexFn::And, inside, ends);
                    }
                    let (element, gap) = self.builder.divided(moved, pitch);
                    let hits = self.builder.index(IndexFn::Eq, gap, zero);
                    inside = self.builder.index(IndexFn::And, inside, hits);
                    within.push(element);
                }
                let value = self.element(node.inputs[1], &[])?;
                let result = self.builder.declare(&self.name(node.output()), Scalar::of(dtype(node.inputs[0])), value);
                if shape.count() > 0 {
                    self.builder.when(inside);
                    self.open();
                    let element = self.element(node.inputs[0], &within)?;
                    self.builder.set(result, element);
                    self.close();
                }
                self.builder.get(result)
            }
            Op::MatMul(op) => self.dot(node, op, coords)?,
            Op::Reduce(op) => self.reduced(node, op, coords)?,
            op => {
                let reason =
                    format!("`{}` is no work of single elements; this is a defect in tcc, please report it", op.name());
                return Err(TargetError::Fault(reason));
            }
        })
    }

    /// An index of a type from data, counted from the end if it is negative.
    pub fn counted(&mut self, index: ExprId, dtype: DType, extent: usize) -> ExprId {
        let index = self.builder.convert(dtype, DType::I32, index);
        let index = self.builder.keep("index", Scalar::I32, index);
        let (zero, extent) = (self.builder.integer(0), self.builder.integer(extent as i32));
        let negative = self.builder.index(IndexFn::Lt, index, zero);
        let counted = self.builder.add(index, extent);
        let counted = self.builder.select(negative, counted, index);
        self.builder.keep("position", Scalar::I32, counted)
    }

    /// An element of rotated pairs: its own by the cosine, and the other of its pair by the sine.
    fn rotated(&mut self, node: &Node, interleaved: bool, coords: &Coords) -> Result<ExprId, TargetError> {
        let dtype = self.graph().ty(node.output()).dtype;
        let Some((&own, lead)) = coords.split_last() else { return Err(defect("a rotation of no elements")) };
        let pairs = (self.graph().shape(node.output()).last().copied().unwrap_or(2) / 2) as i32;
        let builder = &mut self.builder;
        let (one, zero) = (builder.integer(1), builder.integer(0));
        let (pair, second, other) = if interleaved {
            let (pair, second) = builder.divided(own, 2);
            (pair, second, builder.index(IndexFn::Xor, own, one))
        } else {
            let (second, pair) = builder.divided(own, pairs);
            let half = builder.integer(pairs);
            let is_first = builder.index(IndexFn::Eq, second, zero);
            let (after, before) = (builder.add(pair, half), pair);
            (pair, second, builder.select(is_first, after, before))
        };
        let with = |index: ExprId| -> Coords { lead.iter().copied().chain([index]).collect() };
        let x = self.element(node.inputs[0], coords)?;
        let y = self.element(node.inputs[0], &with(other))?;
        let cos = self.operand(node.inputs[1], &with(pair))?;
        let sin = self.operand(node.inputs[2], &with(pair))?;
        let builder = &mut self.builder;
        let along = builder.binary(BinaryFn::Mul, dtype, x, cos);
        let across = builder.binary(BinaryFn::Mul, dtype, y, sin);
        let sum = builder.binary(BinaryFn::Add, dtype, along, across);
        let difference = builder.binary(BinaryFn::Sub, dtype, along, across);
        Ok(builder.select(second, sum, difference))
    }

    fn concatenated(&mut self, node: &Node, axis: usize, coords: &Coords) -> Result<ExprId, TargetError> {
        let graph = self.graph();
        let dtype = graph.ty(node.output()).dtype;
        let zero = if dtype.is_float() { self.builder.float(dtype, 0.0) } else { self.builder.number(dtype, 0) };
        let result = self.builder.declare(&self.name(node.output()), Scalar::of(dtype), zero);
        let parts: Vec<(ValueId, usize)> =
            node.inputs.iter().map(|&part| (part, graph.shape(part)[axis])).filter(|&(_, extent)| extent > 0).collect();
        let (mut first, mut opened) = (0, 0);
        for (place, &(part, extent)) in parts.iter().enumerate() {
            let last = place + 1 == parts.len();
            if !last {
                let inside = self.builder.below(coords[axis], (first + extent) as i32);
                self.builder.when(inside);
                opened += 1;
            }
            self.open();
            let start = self.builder.integer(first as i32);
            let mut within = coords.clone();
            within[axis] = self.builder.index(IndexFn::Sub, coords[axis], start);
            let element = self.element(part, &within)?;
            self.builder.set(result, element);
            self.held.pop();
            if !last {
                self.builder.otherwise();
            }
            first += extent;
        }
        (0..opened).for_each(|_| self.builder.end());
        Ok(self.builder.get(result))
    }

    /// An element of a product, as a sum along the K-dimension.
    fn dot(&mut self, node: &Node, product: &MatMul, coords: &Coords) -> Result<ExprId, TargetError> {
        let graph = self.graph();
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let dims = product.dims(graph.ty(a), graph.ty(b)).map_err(|error| defect(&error.to_string()))?;
        let result = graph.ty(node.output()).dtype;
        let (lead, last) = coords.split_at(coords.len() - 2);
        let (row, column) = (last[0], last[1]);
        let zeros = zero_points(product, &node.inputs);
        // Zero points are the same along the K-dimension.
        let origin = self.builder.integer(0);
        let mut subtracted = [None; 2];
        for (place, zero) in zeros.into_iter().enumerate() {
            let Some(zero) = zero else { continue };
            let shape = graph.shape(zero);
            let pair = self.pair(product, place, (row, column, origin));
            let all: Coords = lead.iter().copied().chain(pair).collect();
            let at = self.broadcast(shape, &all);
            let element = self.element(zero, &at)?;
            let wide = self.builder.convert(graph.ty(zero).dtype, result, element);
            subtracted[place] = Some(self.builder.keep("zero_point", Scalar::of(result), wide));
        }
        let start = if result.is_float() { self.builder.float(result, 0.0) } else { self.builder.number(result, 0) };
        let sum = self.builder.declare(&self.name(node.output()), Scalar::of(result), start);
        let end = self.builder.integer(dims.k as i32);
        let k = self.builder.loop_over("k", origin, end, 1);
        self.open();
        let mut factors = [origin; 2];
        for (place, operand) in [a, b].into_iter().enumerate() {
            let pair = self.pair(product, place, (row, column, k));
            let all: Coords = lead.iter().copied().chain(pair).collect();
            let element = self.operand_of_product(operand, &all)?;
            let mut wide = self.builder.convert(graph.ty(operand).dtype, result, element);
            if let Some(zero) = subtracted[place] {
                wide = self.builder.binary(BinaryFn::Sub, result, wide, zero);
            }
            factors[place] = wide;
        }
        let so_far = self.builder.get(sum);
        let next = self.builder.mul_add(result, factors[0], factors[1], so_far);
        self.builder.set(sum, next);
        self.close();
        Ok(self.builder.get(sum))
    }

    /// The last two coordinates of a factor of a product.
    fn pair(&mut self, product: &MatMul, place: usize, (row, column, k): (ExprId, ExprId, ExprId)) -> [ExprId; 2] {
        match (place, product.transpose_a, product.transpose_b) {
            (0, false, _) => [row, k],
            (0, true, _) => [k, row],
            (_, _, false) => [k, column],
            (_, _, true) => [column, k],
        }
    }

    /// An element of a factor of a product, whose leading dimensions broadcast.
    pub fn operand_of_product(&mut self, value: ValueId, coords: &[ExprId]) -> Result<ExprId, TargetError> {
        let coords = self.of_product(value, coords);
        self.element(value, &coords)
    }

    /// Coordinates in a factor of a product: leading dimensions broadcast; the last two are what they are.
    fn of_product(&mut self, value: ValueId, coords: &[ExprId]) -> Coords {
        let shape = self.graph().shape(value);
        let lead = coords.len() - shape.rank();
        let zero = self.builder.integer(0);
        let last = shape.rank() - 2;
        let own = shape.iter().zip(&coords[lead..]).enumerate();
        own.map(|(axis, (&size, &coord))| if size == 1 && axis < last { zero } else { coord }).collect()
    }

    /// The buffer in which a factor of a product lies, and where its element is.
    pub fn source(&mut self, value: ValueId, coords: &[ExprId]) -> (BufferId, ExprId) {
        let coords = self.of_product(value, coords);
        let access = self.plan.access(value);
        let at = self.address(&access.view, &coords);
        (self.buffer(access.root, false), at)
    }

    /// An array in shared memory by which threads combine what they hold in so wide a type.
    pub fn scratch_of(&mut self, dtype: DType) -> SharedId {
        if let Some((_, scratch)) = self.scratch.filter(|(known, _)| *known == dtype) {
            return scratch;
        }
        let threads = self.builder.threads();
        self.builder.shared("scratch", dtype, threads)
    }

    /// Whether a value lies in memory before the kernel starts.
    pub fn is_plain(&self, value: ValueId) -> bool {
        !self.graph().producer(value).is_some_and(|id| self.is_own(id))
    }

    /// Weights of few bits, if a value is such.
    pub fn quantized(&self, value: ValueId) -> Option<&'a Quantized> {
        self.constants.quantized(value)
    }

    /// What elements of a value are stored as.
    pub fn stored(&self, value: ValueId) -> DType {
        stored_type(self.graph(), &self.constants.derived, self.plan.access(value).root)
    }

    /// Where an element of a value that this kernel writes goes: the buffer, and the index there.
    pub fn target(&mut self, value: ValueId, coords: &[ExprId]) -> (BufferId, ExprId) {
        let access = self.plan.access(value);
        let at = self.address(&access.view, coords);
        (self.buffer(access.root, true), at)
    }

    /// The values that a value is a concatenation of along an axis, if this kernel makes it of them.
    pub fn parts(&self, value: ValueId, axis: usize) -> Option<&'a [ValueId]> {
        let id = self.graph().producer(value).filter(|id| self.is_own(*id))?;
        let node = self.graph().node(id);
        matches!(&node.op, Op::Concat(op) if op.axis == axis).then_some(&node.inputs[..])
    }

    /// Does something within a scope that has no statement of its own.
    pub fn scoped<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.held.push(HashMap::new());
        let done = work(self);
        self.held.pop();
        done
    }

    /// Opens a scope that has no statement of its own.
    pub fn enter(&mut self) {
        self.held.push(HashMap::new());
    }

    /// Closes a scope that has no statement of its own.
    pub fn leave(&mut self) {
        self.held.pop();
    }

    /// An element of a value that broadcasts to what has these coordinates.
    pub fn broadcast_element(&mut self, value: ValueId, coords: &[ExprId]) -> Result<ExprId, TargetError> {
        self.operand(value, coords)
    }

    /// Closes a scope and goes on with the other threads.
    pub fn close_with_else(&mut self) {
        self.held.pop();
        self.builder.otherwise();
    }

    /// An element of a reduction, by this thread alone.
    fn reduced(&mut self, node: &Node, reduce: &Reduce, coords: &Coords) -> Result<ExprId, TargetError> {
        let graph = self.graph();
        let ty = graph.ty(node.inputs[0]);
        let start = self.neutral(reduce.function, ty.dtype);
        let result = self.builder.declare(&self.name(node.output()), Scalar::of(ty.dtype), start);
        let mut at = coords.clone();
        let zero = self.builder.integer(0);
        for &axis in &reduce.axes {
            let end = self.builder.integer(ty.shape[axis] as i32);
            at[axis] = self.builder.loop_over("i", zero, end, 1);
            self.open();
        }
        let element = self.element(node.inputs[0], &at)?;
        let so_far = self.builder.get(result);
        let next = self.combined(reduce.function, ty.dtype, so_far, element);
        self.builder.set(result, next);
        reduce.axes.iter().for_each(|_| self.close());
        let all = self.builder.get(result);
        Ok(self.finished(reduce, ty, all))
    }

    /// What a reduction starts from.
    pub fn neutral(&mut self, function: ReduceFn, dtype: DType) -> ExprId {
        let (low, high) = dtype.integer_range().unwrap_or((0, 1));
        let (float, integer) = match function {
            ReduceFn::Sum | ReduceFn::Mean => (0.0, 0),
            ReduceFn::Prod => (1.0, 1),
            ReduceFn::Max => (f64::NEG_INFINITY, low),
            ReduceFn::Min => (f64::INFINITY, high),
        };
        if dtype.is_float() { self.builder.float(dtype, float) } else { self.builder.number(dtype, integer as u64) }
    }

    /// One step of a reduction.
    pub fn combined(&mut self, function: ReduceFn, dtype: DType, a: ExprId, b: ExprId) -> ExprId {
        let function = match function {
            ReduceFn::Sum | ReduceFn::Mean => BinaryFn::Add,
            ReduceFn::Prod => BinaryFn::Mul,
            ReduceFn::Max => BinaryFn::Max,
            ReduceFn::Min => BinaryFn::Min,
        };
        self.builder.binary(function, dtype, a, b)
    }

    /// What a reduction makes of what was combined: a mean divides.
    pub fn finished(&mut self, reduce: &Reduce, ty: &TensorType, all: ExprId) -> ExprId {
        if reduce.function != ReduceFn::Mean {
            return all;
        }
        let count: usize = reduce.axes.iter().map(|&axis| ty.shape[axis]).product();
        let count = match ty.dtype.is_float() {
            true => self.builder.float(ty.dtype, count as f64),
            false => self.builder.number(ty.dtype, count as u64),
        };
        self.builder.binary(BinaryFn::Div, ty.dtype, all, count)
    }

    /// Writes an element of a value where it lies.
    pub fn store(&mut self, value: ValueId, coords: &[ExprId]) -> Result<(), TargetError> {
        let element = self.element(value, coords)?;
        self.write(value, coords, element);
        Ok(())
    }

    /// Writes what is an element of a value where that lies.
    pub fn write(&mut self, value: ValueId, coords: &[ExprId], element: ExprId) {
        let access = self.plan.access(value);
        let at = self.address(&access.view, coords);
        let buffer = self.buffer(access.root, true);
        self.builder.store(buffer, at, element);
    }

    /// Writes what is an element of a value into a buffer of the value's own, in the order of its elements.
    pub fn write_dense(&mut self, value: ValueId, index: ExprId, element: ExprId) {
        let buffer = self.buffer(value, true);
        self.builder.store(buffer, index, element);
    }
}

/// How a reduction combines over threads.
pub(crate) fn fold_of(function: ReduceFn) -> FoldFn {
    match function {
        ReduceFn::Sum | ReduceFn::Mean => FoldFn::Sum,
        ReduceFn::Prod => FoldFn::Product,
        ReduceFn::Max => FoldFn::Max,
        ReduceFn::Min => FoldFn::Min,
    }
}

/// That something cannot be, although nobody did anything wrong.
pub(crate) fn defect(what: &str) -> TargetError {
    TargetError::Fault(format!("{what}; this is a defect in tcc, please report it"))
}
