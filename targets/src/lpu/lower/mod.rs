//! From a plan to a schedule: kernel by kernel, each value is computed by flows from memory through the units and back.
//!
//! Values that are element-wise are not computed until somebody needs them in memory, so that chains of them pass through the
//! vector unit at once (`elementwise`, `chain`). Reductions over lanes go through transposers (`reduce`), products through
//! the matrix units (`product`), and what must lie otherwise through shifters (`rearrange`).

mod access;
mod attention;
mod chain;
mod elementwise;
mod forms;
mod gather;
mod lots;
mod movement;
mod product;
mod rearrange;
mod reduce;
mod room;
mod strip;
mod tables;
#[cfg(test)]
mod tests;
mod transpose;
mod weights;
mod work;

pub(super) use attention::is_worth;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tcc_ir::{Anchor, DType, Def, Graph, Kernel, NodeId, Op, Plan, ValueId, View};
use tcc_passes::derived_constants;

use room::Room;
pub(super) use tables::is_rounded_table;

use super::LpuMachine;
use super::constants::{Constant, Form, Source, Tiles};
use super::emit::Placed;
use super::isa::Hemisphere;
use super::layout::Layout;
use super::memory::{Memory, Slices};
use super::schedule::{Clash, Flow, FlowBuilder, Schedule, Start};
use super::simulator::Counts;
use crate::machine::Machine;
use crate::stored::storage;
use crate::target::TargetError;

/// What lowering has made of a plan.
pub(super) struct Lowered {
    /// All instructions.
    pub placed: Vec<Placed>,
    /// How much of everything they do.
    pub counts: Counts,
    /// What memory holds before.
    pub constants: Vec<Constant>,
    /// Where the inputs of the graph lie.
    pub inputs: Vec<Arc<Layout>>,
    /// Where its outputs lie afterwards.
    pub outputs: Vec<Arc<Layout>>,
    /// For each kernel how it was tiled, in words.
    pub tilings: Vec<String>,
    /// Most vectors of memory in use at a time.
    pub used_vectors: u64,
    /// Whether memory was short, so that what products and norms hand to each other is kept as halves.
    pub frugal: bool,
}

/// Vectors that a flow works on at most, if nothing keeps them together: long enough that streams are used well, short enough
/// that what needs the first of them need not wait for all.
const CHUNK: usize = 128;

/// The part of each slice that constants have to themselves which turn up while the program is made.
const RESERVE: usize = 256;

/// The earliest cycle for flows that wait for nothing but their operands.
const ASAP: i64 = i64::MIN / 2;

/// What a value is made into besides the form in which it was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    /// Rows of a view of it.
    Dense,
    /// Rows of a view of it as a matrix unit multiplies them.
    Operand(DType),
    /// The same, striped so that they can be loaded as weights.
    Weights(DType),
    /// Elements of a type, moved to where a view has them.
    Moved(DType),
    /// One number in each row.
    Column,
    /// What is looked up in: all its slices have the same first address.
    Table,
}

/// A memory that is taken back when nobody needs it any more.
type Lease = Arc<Layout>;

pub(super) struct Lowering<'a> {
    machine: &'a Machine,
    facts: &'a LpuMachine,
    plan: &'a Plan,
    graph: Arc<Graph>,
    derived: Vec<bool>,
    thrift: Thrift,
    schedule: Schedule<'a>,
    memory: Memory,
    values: Vec<Option<Lease>>,
    made: Made,
    /// Values of which kernels write a view.
    copied: HashSet<ValueId>,
    /// What each root has been made into, to be taken back with it.
    leases: HashMap<ValueId, Vec<Lease>>,
    constants: Vec<Constant>,
    /// Constants that are there already, by what they are.
    known: HashMap<(ValueId, Shape), Lease>,
    literals: HashMap<(Vec<u8>, DType, usize, usize), Lease>,
    tiles: HashMap<(ValueId, bool, DType), Arc<Tiles>>,
    /// Tables that are constants, by their columns.
    tables: HashMap<(ValueId, usize), tables::Table>,
    tilings: Vec<String>,
    kernel: u32,
    /// Where rows and columns are exchanged, the one that comes next, and the addresses that are gathered there.
    workspaces: Vec<transpose::Workspace>,
    workspace_turn: usize,
    gathered: Vec<((Hemisphere, u16, usize), Lease)>,
    /// Results of attentions whose heads lie beside each other.
    merged: HashSet<ValueId>,
    /// Columns of zeros, as many as are loaded at once.
    zeros: Option<Lease>,
    /// Reductions, and what follows them, that are known only as the last of these.
    finished: HashSet<ValueId>,
    /// Products that are computed when somebody needs them.
    pending: HashSet<ValueId>,
    /// For each value that lies in memory, the last kernel that reads it; none for those that stay.
    last_uses: Vec<Option<usize>>,
    /// Rows whose last lanes repeat what is behind their whole vectors.
    repeated: HashMap<*const Layout, Lease>,
    lots: lots::Lots<'a>,
    /// Slices that matrix units read now, which nothing else should keep from that: rows and weights of this kernel, and weights of
    /// the next.
    busy: [Slices; 2],
    /// When each plane of a matrix unit can be loaded, and when its weights may be exchanged.
    engines: Vec<product::Engine>,
}

/// How much memory is spent on making a program fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thrift {
    /// As much as helps.
    Ample,
    /// What products and norms hand to each other is rounded to halves, and less is exchanged at a time.
    Frugal,
    /// Besides, attentions work on one tile at a time.
    Meagre,
}

/// Lowers a plan.
///
/// # Errors
/// The memory does not hold what the plan needs, or a defect.
pub(super) fn lower(machine: &Machine, facts: &LpuMachine, plan: &Plan) -> Result<Lowered, TargetError> {
    let with = |thrift| match lower_as(machine, facts, plan, thrift) {
        Err(TargetError::DoesNotFit { .. }) => None,
        other => Some(other),
    };
    let found = with(Thrift::Ample).or_else(|| with(Thrift::Frugal));
    found.unwrap_or_else(|| lower_as(machine, facts, plan, Thrift::Meagre))
}

fn lower_as(machine: &Machine, facts: &LpuMachine, plan: &Plan, thrift: Thrift) -> Result<Lowered, TargetError> {
    let mut lowering = Lowering::new(machine, facts, plan, thrift);
    lowering.place_constants()?;
    lowering.run()
}

impl<'a> Lowering<'a> {
    fn new(machine: &'a Machine, facts: &'a LpuMachine, plan: &'a Plan, thrift: Thrift) -> Self {
        let graph = Arc::new(plan.graph.clone());
        Lowering {
            machine,
            facts,
            plan,
            derived: derived_constants(&graph),
            thrift,
            schedule: Schedule::new(facts),
            memory: Memory::new(facts),
            values: vec![None; graph.value_count()],
            made: Made::default(),
            copied: plan.kernels.iter().filter_map(copied).collect(),
            leases: HashMap::new(),
            constants: Vec::new(),
            known: HashMap::new(),
            literals: HashMap::new(),
            tiles: HashMap::new(),
            tables: HashMap::new(),
            tilings: Vec::new(),
            kernel: 0,
            workspaces: Vec::new(),
            workspace_turn: 0,
            gathered: Vec::new(),
            merged: HashSet::new(),
            zeros: None,
            finished: HashSet::new(),
            pending: HashSet::new(),
            last_uses: Vec::new(),
            repeated: HashMap::new(),
            lots: lots::Lots::default(),
            busy: [Slices::NONE; 2],
            engines: product::engines(facts),
            graph,
        }
    }

    fn run(mut self) -> Result<Lowered, TargetError> {
        self.last_uses = self.last_uses();
        let last_uses = self.last_uses.clone();
        let mut inputs = Vec::new();
        for &input in self.graph.clone().inputs() {
            let ty = self.graph.ty(input).clone();
            let (rows, columns) = Layout::matrix(&ty.shape);
            let dtype = storage(ty.dtype);
            let layout = self.allocate_in(dtype, (rows, columns), Room::GIVEN)?;
            self.values[input.index()] = Some(layout.clone());
            inputs.push(layout);
        }
        let mut dying: Vec<Vec<ValueId>> = vec![Vec::new(); self.plan.kernels.len()];
        for (index, last) in last_uses.iter().enumerate() {
            if let Some(kernel) = *last {
                dying[kernel].push(ValueId::from_index(index));
            }
        }
        for (index, kernel) in self.plan.kernels.iter().enumerate() {
            self.kernel = index as u32;
            self.tilings.push(String::new());
            self.lots.size = self.lot_of(kernel);
            let weights = |kernel: Option<&Kernel>| kernel.map_or(Slices::NONE, |kernel| self.weight_slices(kernel));
            self.busy = [weights(Some(kernel)), weights(self.plan.kernels.get(index + 1))];
            self.lower_kernel(kernel)?;
            let next = self.plan.kernels.get(index + 1);
            if next.is_none_or(|next| self.multiplied_rows(next) != self.multiplied_rows(kernel)) {
                self.catch_up()?;
            }
            for &value in &dying[index] {
                self.release(value);
            }
        }
        let outputs = self.graph.clone();
        let outputs = outputs.outputs().iter().map(|output| self.result(output.value)).collect::<Result<_, _>>()?;
        let (used_vectors, frugal) = (self.memory.peak, self.thrift != Thrift::Ample);
        let (placed, counts) = self.schedule.finish();
        Ok(Lowered {
            placed,
            counts,
            constants: self.constants,
            inputs,
            outputs,
            tilings: self.tilings,
            used_vectors,
            frugal,
        })
    }

    /// For each value that lies in memory, the last kernel that reads it; none for those that stay.
    fn last_uses(&self) -> Vec<Option<usize>> {
        let mut last: Vec<Option<usize>> = vec![None; self.graph.value_count()];
        for (index, kernel) in self.plan.kernels.iter().enumerate() {
            for node in kernel.nodes().map(|id| self.graph.node(id)) {
                for &value in node.inputs.iter().chain(&node.outputs) {
                    last[self.plan.access(value).root.index()] = Some(index);
                }
            }
            if let Anchor::Copy { value, source } = &kernel.anchor {
                last[source.root.index()] = Some(index);
                last[value.index()] = Some(index);
            }
            for output in &kernel.outputs {
                last[output.index()] = Some(index).max(last[output.index()]);
            }
        }
        for output in self.graph.outputs() {
            last[output.value.index()] = None;
            last[self.plan.access(output.value).root.index()] = None;
        }
        for &input in self.graph.inputs() {
            last[input.index()] = None;
        }
        last
    }

    /// Gives constants their places: first what is deep and what must lie at the same address of many slices, so that nothing is
    /// refused for how memory is cut while there is room.
    fn place_constants(&mut self) -> Result<(), TargetError> {
        let graph = self.graph.clone();
        let plan = self.plan;
        let nodes = || plan.kernels.iter().flat_map(Kernel::nodes).map(|id| graph.node(id));
        if self.thrift != Thrift::Ample || nodes().any(|node| matches!(node.op, Op::Attention(_))) {
            self.has_workspaces()?;
        }
        self.place_tables()?;
        self.place_weights()?;
        let mut operands = Vec::new();
        for node in nodes().filter(|node| is_elementwise(&node.op)) {
            for &input in &node.inputs {
                if self.is_constant(plan.access(input).root) && graph.shape(input).count() > 1 {
                    operands.push((input, graph.shape(node.output()).clone()));
                }
            }
        }
        let depth = |value: ValueId| {
            let (rows, columns) = Layout::matrix(graph.shape(value));
            rows * columns.div_ceil(self.facts.vector())
        };
        operands.sort_by_key(|&(value, _)| std::cmp::Reverse(depth(value)));
        for (value, shape) in operands {
            self.rows_of(value, &shape)?;
        }
        let depth = (self.facts.mem.banks * self.facts.mem.words) as usize;
        self.memory.reserve(depth / RESERVE);
        Ok(())
    }

    /// The rows that a kernel multiplies with weights: whose, and how many.
    fn multiplied_rows(&self, kernel: &Kernel) -> Option<(ValueId, usize)> {
        kernel.nodes().map(|id| self.graph.node(id)).find_map(|node| {
            let large = matches!(node.op, Op::MatMul(_)) && self.is_constant(node.inputs[1]);
            let rows = || Layout::matrix(self.graph.shape(node.output())).0;
            large.then(|| (self.plan.access(node.inputs[0]).root, rows()))
        })
    }

    /// Rows of the lots that a kernel's work comes in.
    fn lot_of(&self, kernel: &Kernel) -> Option<usize> {
        let (_, rows) = self.multiplied_rows(kernel)?;
        Some(product::rows_at_a_time(rows, self.facts.mxm.accumulators as usize))
    }

    fn lower_kernel(&mut self, kernel: &Kernel) -> Result<(), TargetError> {
        if let Anchor::Copy { value, source } = &kernel.anchor {
            // It may be wanted longer than what it is made of.
            let from = self.materialize(source.root)?;
            self.values[value.index()] = Some(self.rearrange(&from, &source.view)?);
        }
        for id in kernel.nodes() {
            if self.waits(id) {
                self.pending.insert(self.graph.node(id).output());
            } else if !is_elementwise(&self.graph.node(id).op) {
                self.lower_node(id)?;
            }
        }
        // Whoever wants a view of an output makes what they want of the output itself.
        for &output in &kernel.outputs {
            let root = self.plan.access(output).root;
            if !self.merged.contains(&root) {
                self.materialize(root)?;
            }
        }
        Ok(())
    }

    /// Whether a node is a product that only element-wise work of the same kernel uses, which may take its sums as they come.
    fn waits(&self, id: NodeId) -> bool {
        let graph = &self.graph;
        let node = graph.node(id);
        let kernel = &self.plan.kernels[self.kernel as usize];
        let inside = |user: NodeId| is_elementwise(&graph.node(user).op) && kernel.nodes().any(|own| own == user);
        matches!(node.op, Op::MatMul(_))
            && Layout::matrix(graph.shape(node.output())).1 > 1
            && !kernel.outputs.contains(&node.output())
            && (graph.users(id).count() == 1 || self.is_one_chain(kernel, id))
            && graph.users(id).all(inside)
    }

    /// Whether all that follows a product in its kernel is one chain, so that several users of its sums have them at the same time.
    fn is_one_chain(&self, kernel: &Kernel, product: NodeId) -> bool {
        let shape = self.graph.shape(self.graph.node(product).output());
        let joins = |id: NodeId| {
            let node = self.graph.node(id);
            let op = matches!(node.op, Op::Unary(_) | Op::Binary(_) | Op::Select(_));
            op && self.graph.shape(node.output()) == shape && self.graph.ty(node.output()).dtype == DType::F32
        };
        kernel.outputs.len() == 1 && kernel.nodes().all(|id| id == product || joins(id))
    }

    /// Has a node that is not element-wise computed, if it is not yet.
    fn lower_node(&mut self, id: NodeId) -> Result<(), TargetError> {
        let graph = self.graph.clone();
        let node = graph.node(id);
        let result = node.output();
        if self.values[result.index()].is_some() {
            return Ok(());
        }
        let layout = match &node.op {
            Op::Reduce(reduce) => return self.reduce(reduce, node.inputs[0], result),
            Op::MatMul(_) if self.is_only_multiplied(result) && Layout::matrix(graph.shape(result)).1 > 1 => {
                return self.store_product(id, result);
            }
            Op::MatMul(_) => self.product(id)?,
            Op::Attention(_) => return self.attention(id),
            Op::Gather(gather) => self.gather(gather, node.inputs[0], node.inputs[1], result)?,
            Op::Concat(concat) => self.concat(concat, &node.inputs, result)?,
            Op::Pad(pad) => self.pad(pad, &node.inputs, result)?,
            other => {
                return Err(TargetError::Unsupported {
                    origin: node.origin.to_string(),
                    machine: self.machine.name.clone(),
                    reason: format!("nothing is known of how to compute `{}` there; please report this", other.name()),
                });
            }
        };
        self.pending.remove(&result);
        self.values[result.index()] = Some(layout);
        if matches!(node.op, Op::MatMul(_)) {
            self.spend(id);
        }
        Ok(())
    }

    /// Whether a value is known before the program runs.
    fn is_constant(&self, value: ValueId) -> bool {
        self.graph.as_constant(value).is_some() || self.derived[value.index()]
    }

    /// Where a value lies, which is computed if it is not yet.
    fn materialize(&mut self, value: ValueId) -> Result<Lease, TargetError> {
        if let Some(layout) = &self.values[value.index()] {
            return Ok(layout.clone());
        }
        if self.is_constant(value) {
            return self.constant_rows(value);
        }
        let access = self.plan.access(value).clone();
        if access.root != value {
            return self.dense(access.root, &access.view);
        }
        if let Some(layout) = self.unmerged(value)? {
            self.values[value.index()] = Some(layout.clone());
            return Ok(layout);
        }
        match self.graph.value(value).def {
            Def::Node { node, .. } if is_elementwise(&self.graph.node(node).op) => self.elementwise(value)?,
            Def::Node { node, .. } => self.lower_node(node)?,
            Def::Input(_) | Def::Constant(_) => {}
        }
        self.values[value.index()].clone().ok_or_else(|| lost("a value has no place in memory"))
    }

    /// Where a result of the graph lies.
    fn result(&mut self, value: ValueId) -> Result<Lease, TargetError> {
        let shape = self.graph.shape(value).clone();
        let (rows, columns) = Layout::matrix(&shape);
        let layout = self.materialize(value)?;
        if (layout.rows, layout.columns) == (rows, columns) {
            return Ok(layout);
        }
        let access = self.plan.access(value).clone();
        self.dense(access.root, &access.view)
    }

    /// Takes back the memory of a value and of what was made of it.
    fn release(&mut self, value: ValueId) {
        if self.is_constant(value) {
            return;
        }
        let own = self.values[value.index()].take();
        let made = self.leases.remove(&value).unwrap_or_default();
        self.made.forget(value);
        for layout in own.into_iter().chain(made) {
            self.give_back(&layout);
        }
    }

    /// Takes back the operands of a product that nobody else reads, now that it is computed.
    fn spend(&mut self, product: NodeId) {
        let graph = self.graph.clone();
        for &input in &graph.node(product).inputs {
            let root = self.plan.access(input).root;
            let Some(producer) = graph.producer(root) else { continue };
            let last = self.last_uses[root.index()] == Some(self.kernel as usize);
            if last && self.users(producer) == [product] && !self.copied.contains(&root) {
                self.release(root);
            }
        }
    }

    /// Takes back a value itself, but not what was made of it, if a node is all that reads it.
    fn spend_source(&mut self, root: ValueId, reader: NodeId) {
        let last = self.last_uses[root.index()] == Some(self.kernel as usize);
        let Some(producer) = self.graph.producer(root).filter(|_| last && !self.copied.contains(&root)) else { return };
        if self.users(producer) == [reader]
            && let Some(layout) = self.values[root.index()].take()
        {
            self.give_back(&layout);
        }
    }

    /// Rows that lie beside each other where several are read at once.
    fn stripes(&self) -> usize {
        self.facts.lanes.max(self.facts.mxm.load_streams) as usize
    }

    fn lanes(&self) -> usize {
        self.facts.vector()
    }

    /// A constant as rows of the type that it is stored as.
    fn constant_rows(&mut self, value: ValueId) -> Result<Lease, TargetError> {
        let dtype = storage(self.graph.ty(value).dtype);
        self.constant_as(value, Shape::Dense, dtype, Room::OPERAND)
    }

    /// A constant as rows of a type.
    fn constant_as(&mut self, value: ValueId, shape: Shape, dtype: DType, room: Room) -> Result<Lease, TargetError> {
        if let Some(layout) = self.known.get(&(value, shape)) {
            return Ok(layout.clone());
        }
        let (rows, columns) = Layout::matrix(self.graph.shape(value));
        let layout = self.allocate_in(dtype, (rows, columns), room)?;
        let source = Source::Value(self.graph.clone(), value);
        self.constants.push(Constant { source, form: Form::Rows(layout.clone()) });
        self.known.insert((value, shape), layout.clone());
        Ok(layout)
    }

    /// Rows of given elements.
    fn literal(&mut self, bytes: Vec<u8>, dtype: DType, rows: usize, columns: usize) -> Result<Lease, TargetError> {
        let key = (bytes, dtype, rows, columns);
        if let Some(layout) = self.literals.get(&key) {
            return Ok(layout.clone());
        }
        let layout = self.allocate_in(dtype, (rows, columns), Room::OPERAND)?;
        self.keep(key.0.clone(), layout.clone());
        self.literals.insert(key, layout.clone());
        Ok(layout)
    }

    /// Has memory hold elements from the start.
    fn keep(&mut self, bytes: Vec<u8>, layout: Lease) {
        self.constants.push(Constant { source: Source::Bytes(bytes), form: Form::Rows(layout) });
    }

    /// A view of a value as rows of its own.
    fn dense(&mut self, root: ValueId, view: &View) -> Result<Lease, TargetError> {
        let key = (root, view.clone(), Shape::Dense);
        if let Some(layout) = self.made.get(&key) {
            return Ok(layout.clone());
        }
        let source = self.materialize(root)?;
        let (rows, columns) = Layout::matrix(view.shape());
        if view.is_dense() && (source.rows, source.columns) == (rows, columns) {
            return Ok(source);
        }
        let layout = self.rearrange(&source, view)?;
        self.remember(key, layout.clone());
        Ok(layout)
    }

    fn remember(&mut self, key: (ValueId, View, Shape), layout: Lease) {
        if !self.is_constant(key.0) {
            self.leases.entry(key.0).or_default().push(layout.clone());
        }
        self.made.insert(key, layout);
    }

    /// Places a flow of some steps; in parts, if some of them read where others write in the same cycles.
    fn place_steps<T>(
        &mut self,
        steps: &[T],
        flow: &dyn Fn(&Self, &[T]) -> FlowBuilder<'a>,
    ) -> Result<(), TargetError> {
        match flow(self, steps).finish() {
            Ok(flow) => {
                self.place(&flow, ASAP)?;
                Ok(())
            }
            Err(Clash::Slice(_)) if steps.len() > 1 => {
                let (head, tail) = steps.split_at(steps.len() / 2);
                self.place_steps(head, flow)?;
                self.place_steps(tail, flow)
            }
            Err(clash) => Err(clashed(clash)),
        }
    }

    fn place(&mut self, flow: &Flow, earliest: i64) -> Result<Start, TargetError> {
        self.catch_up()?;
        Ok(self.schedule.place(flow, earliest, self.kernel))
    }
}

/// What views of values were made into.
#[derive(Default)]
struct Made(HashMap<ValueId, HashMap<(View, Shape), Lease>>);

impl Made {
    fn get(&self, (root, view, shape): &(ValueId, View, Shape)) -> Option<&Lease> {
        self.0.get(root)?.get(&(view.clone(), *shape))
    }

    fn insert(&mut self, (root, view, shape): (ValueId, View, Shape), lease: Lease) {
        self.0.entry(root).or_default().insert((view, shape), lease);
    }

    fn forget(&mut self, root: ValueId) {
        self.0.remove(&root);
    }
}

/// The value of which a kernel writes a view, if that is what it does.
fn copied(kernel: &Kernel) -> Option<ValueId> {
    match &kernel.anchor {
        Anchor::Copy { source, .. } => Some(source.root),
        _ => None,
    }
}

/// Whether a chain of ALUs computes it.
fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_))
}

fn lost(what: &str) -> TargetError {
    TargetError::Fault(format!("{what}; please report this"))
}

fn clashed(clash: Clash) -> TargetError {
    lost(&format!("the machine has too little for a kernel: {clash}"))
}
