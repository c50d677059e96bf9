//! Constant tables that take several slices: every part is looked up in for every index, and what an index does not find in a
//! part reads as zeros there, so that the parts' vectors are combined without knowing which of them has it.
//!
//! A large table of floats is kept as halves, as which products multiply floats on a machine that multiplies halves. Where what its rows
//! leave behind whole vectors fills no more than half of one, two rows share a vector for it.

use std::ops::Range;

use smallvec::SmallVec;
use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, Op, TensorType, ValueId, is_view};

use super::chain::{Arg, Chain, Function, Step};
use super::work::{Leaf, Target, Work, all_vectors, planes};
use super::{CHUNK, Lease, Lowering, Room, Thrift, is_elementwise};
use crate::lpu::LpuMachine;
use crate::lpu::constants::{Constant, Form, Part, Source};
use crate::lpu::isa::{Alu, AluFn, Hemisphere, Number, Operand, Operation, Queue};
use crate::lpu::layout::Layout;
use crate::lpu::memory::Slices;
use crate::lpu::schedule::{FlowBuilder, Planes, Pool, TrainId};
use crate::stored::storage;
use crate::target::TargetError;

/// Parts that are looked up in at once where memory is scarce.
const FRUGAL_PARTS: usize = 4;

/// What is looked up in.
#[derive(Clone, Debug)]
pub(super) enum Table {
    /// All of it lies together.
    Whole(Lease),
    /// It is in parts.
    Parts(Parts),
}

/// A constant table in parts.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// The elements that it is kept as.
    pub dtype: DType,
    /// Rows of an entry.
    inner: usize,
    /// Elements of a row.
    columns: usize,
    /// What rows have in vectors of their own.
    heads: Vec<Piece>,
    /// What two rows share a vector for.
    tails: Vec<Piece>,
}

/// A part, with a row of zeros behind its own.
#[derive(Clone, Debug)]
struct Piece {
    layout: Lease,
    /// The first of the table's rows that it has; of tails, of pairs of rows.
    first: usize,
}

/// Addresses in a part, for each vector that is looked up.
struct Addressed<'p> {
    piece: &'p Piece,
    addresses: Lease,
}

/// What is combined to a result: vectors of parts, and what other parts have given.
struct Combining<'p> {
    parts: &'p [Addressed<'p>],
    before: Option<&'p Lease>,
    result: &'p Lease,
    /// The vectors of the result, in the order of the addresses.
    rows: &'p [(u32, u32)],
    plane: usize,
}

impl<'a> Lowering<'a> {
    /// Gives the large tables of a plan their places, before anything else has taken the slices that they fill.
    pub(super) fn place_tables(&mut self) -> Result<(), TargetError> {
        let plan = self.plan;
        for id in plan.kernels.iter().flat_map(|kernel| kernel.nodes()) {
            let graph = self.graph.clone();
            let node = graph.node(id);
            let Op::Gather(gather) = &node.op else { continue };
            let (data, shape) = (node.inputs[0], graph.shape(node.inputs[0]));
            let fixed = self.is_constant(self.plan.access(node.inputs[1]).root);
            if gather.axis == 0 && shape.rank() > 1 && self.is_constant(data) && !fixed {
                let columns = Layout::matrix(shape).1;
                self.constant_table(data, shape[1..shape.rank() - 1].iter().product(), columns)?;
            }
        }
        Ok(())
    }

    /// A constant table of entries of `inner` rows.
    pub(super) fn constant_table(&mut self, data: ValueId, inner: usize, columns: usize) -> Result<Table, TargetError> {
        if let Some(table) = self.tables.get(&(data, columns)) {
            return Ok(table.clone());
        }
        let (graph, lanes) = (self.graph.clone(), self.lanes());
        let ty = graph.ty(data);
        let rows = ty.shape.count() / columns.max(1);
        let blocks = columns.div_ceil(lanes);
        let depth = (self.facts.mem.banks * self.facts.mem.words) as usize;
        let own = storage(ty.dtype);
        let large = is_large(ty, self.facts);
        let dtype = if is_rounded_table(ty, self.facts) { DType::F16 } else { own };
        let tail = columns % lanes;
        let shared = large && inner == 1 && dtype == DType::F16 && tail > 0 && tail <= lanes / 2;
        if !shared && dtype == own && rows * blocks <= depth / 2 {
            let layout = self.allocate_in(dtype, (rows, columns), Room { aligned: true, ..Room::GIVEN })?;
            let source = Source::Value(graph.clone(), data);
            self.constants.push(Constant { source, form: Form::Rows(layout.clone()) });
            let table = Table::Whole(layout);
            self.tables.insert((data, columns), table.clone());
            return Ok(table);
        }
        let head = if shared { columns - tail } else { columns };
        // Parts fill their slices but for a rest, which small constants take.
        let per_part = |vectors: usize| ((depth - depth / 16).saturating_sub(1) / vectors.max(1)).max(1);
        let mut heads = Vec::new();
        for Range { start, end } in even_parts(rows, per_part(head.div_ceil(lanes) * inner) * inner, inner) {
            let part = Part { first: start, count: end - start, columns, head };
            if head > 0 {
                let layout = self.allocate_in(dtype, (part.count + 1, head), Room { aligned: true, ..Room::GIVEN })?;
                let source = Source::Heads(graph.clone(), data, part);
                self.constants.push(Constant { source, form: Form::Rows(layout.clone()) });
                heads.push(Piece { layout, first: start });
            }
        }
        let mut tails = Vec::new();
        if shared {
            for Range { start, end } in even_parts(rows, 2 * per_part(1), 2) {
                let part = Part { first: start, count: end - start, columns, head };
                let room = Room { aligned: true, ..Room::GIVEN };
                let layout = self.allocate_in(dtype, (part.count.div_ceil(2) + 1, lanes), room)?;
                let source = Source::Tails(graph.clone(), data, part);
                self.constants.push(Constant { source, form: Form::Rows(layout.clone()) });
                tails.push(Piece { layout, first: start / 2 });
            }
        }
        let table = Table::Parts(Parts { dtype, inner, columns, heads, tails });
        self.tables.insert((data, columns), table.clone());
        Ok(table)
    }

    /// Whether chains are all that reads a value, which may then be of any type of its class.
    pub(super) fn is_read_by_chains(&self, value: ValueId) -> bool {
        let Some(node) = self.graph.producer(value) else { return false };
        let is_output = |value: ValueId| self.graph.outputs().iter().any(|output| output.value == value);
        let mut waiting = vec![node];
        while let Some(node) = waiting.pop() {
            if self.graph.node(node).outputs.iter().any(|&output| is_output(output)) {
                return false;
            }
            for user in self.graph.users(node) {
                match &self.graph.node(user).op {
                    op if is_elementwise(op) => {}
                    op if is_view(op) => waiting.push(user),
                    _ => return false,
                }
            }
        }
        !self.copied.contains(&value)
    }

    /// The entries of a table in parts that indices name, as elements of a type.
    pub(super) fn look_up_parts(
        &mut self,
        table: &Parts,
        index: &Lease,
        rows: usize,
        dtype: DType,
    ) -> Result<Lease, TargetError> {
        let Parts { inner, columns, .. } = *table;
        let all = all_vectors(index.rows, 1);
        let blocks = columns.div_ceil(self.lanes());
        let own_heads = if table.tails.is_empty() { blocks } else { blocks - 1 };
        let wide = |value| Step { dtype: DType::U32, ..binary(BinaryFn::Mul, Arg::Leaf(0), value) };
        let mut steps = vec![wide((inner * own_heads.max(1)) as i64)];
        if !table.tails.is_empty() {
            steps.push(Step { dtype: DType::U32, ..binary(BinaryFn::Shr, Arg::Leaf(0), 1) });
            steps.push(Step { dtype: DType::U8, ..binary(BinaryFn::And, Arg::Leaf(0), 1) });
        }
        let mut numbers: Vec<Lease> = Vec::new();
        let mut avoid = Slices::of(&index.slices);
        for step in &steps {
            let layout = self.allocate(step.dtype, index.rows, 1, 1, avoid)?;
            avoid = avoid.union(Slices::of(&layout.slices));
            numbers.push(layout);
        }
        let to: Vec<_> = all.iter().copied().map(Some).collect();
        let target = |(step, layout): (usize, &Lease)| Target { step, layout: layout.clone(), rows: to.clone() };
        let targets = numbers.iter().enumerate().map(target).collect();
        let leaves = vec![Leaf { layout: index.clone(), rows: all.clone() }];
        let chain = Chain { steps, leaves: vec![index.dtype] };
        self.run_chain(Work { chain, leaves, targets, first: vec![true; all.len()] })?;
        let mut result = self.allocate(table.dtype, rows, columns, 1, Slices::NONE)?;
        if !table.heads.is_empty() {
            let vectors = all_vectors(rows, blocks);
            let vectors = vectors.into_iter().filter(|&(_, block)| (block as usize) < own_heads).collect::<Vec<_>>();
            self.look_up_pieces(&table.heads, &numbers[0], inner * own_heads, &vectors, &result)?;
        }
        if let [_, pairs, odd] = &numbers[..] {
            self.look_up_tails(table, pairs, odd, &result, own_heads as u32)?;
        }
        numbers.iter().for_each(|layout| self.give_back(layout));
        if dtype != table.dtype {
            let converted = self.allocate(dtype, rows, columns, 1, Slices::of(&result.slices))?;
            let leaf = Leaf { layout: result.clone(), rows: all_vectors(rows, blocks) };
            self.convert(leaf, &converted, false)?;
            self.give_back(&result);
            result = converted;
        }
        Ok(result)
    }

    /// Tails: of the two that share a vector, the one that is wanted is moved to the first lanes.
    fn look_up_tails(
        &mut self,
        table: &Parts,
        pairs: &Lease,
        odd: &Lease,
        result: &Lease,
        block: u32,
    ) -> Result<(), TargetError> {
        let all = all_vectors(pairs.rows, 1);
        let avoid = Slices::of(&result.slices).union(Slices::of(&odd.slices));
        let even = self.allocate(table.dtype, pairs.rows, self.lanes(), 1, avoid)?;
        self.look_up_pieces(&table.tails, pairs, 1, &all, &even)?;
        let turned = self.allocate(table.dtype, pairs.rows, self.lanes(), 1, avoid.union(Slices::of(&even.slices)))?;
        for plane in 0..even.planes() {
            let rows: Vec<usize> = (0..even.rows).collect();
            self.place_steps(&rows, &|lowering, rows| lowering.turning(&even, &turned, rows, plane))?;
        }
        // As bits, which are chosen as they are.
        let bits = bits_of(table.dtype);
        let select = Step {
            function: Function::Select,
            args: SmallVec::from_slice(&[Arg::Leaf(0), Arg::Leaf(1), Arg::Leaf(2)]),
            dtype: bits,
        };
        let leaf = |layout: &Lease| Leaf { layout: as_bits(layout), rows: all.clone() };
        let leaves = vec![Leaf { layout: odd.clone(), rows: all.clone() }, leaf(&turned), leaf(&even)];
        let chain = Chain { steps: vec![select], leaves: leaves.iter().map(|leaf| leaf.layout.dtype).collect() };
        let rows = all.iter().map(|&(row, _)| Some((row, block))).collect();
        let target = Target { step: 0, layout: as_bits(result), rows };
        self.run_chain(Work { chain, leaves, targets: vec![target], first: vec![true; all.len()] })?;
        self.give_back(&even);
        self.give_back(&turned);
        Ok(())
    }

    /// Rotates a plane of rows by half of the lanes.
    fn turning(&self, from: &Layout, to: &Layout, rows: &[usize], plane: usize) -> FlowBuilder<'a> {
        let side = from.slices.first().map_or(Hemisphere::West, |place| self.facts.side_of(place.slice));
        let at = self.facts.position(Queue::Shift(side, 0));
        let lanes = self.lanes() as u16;
        let mut flow = FlowBuilder::new(self.facts);
        let place = |layout: &Layout, row: usize| SmallVec::from_slice(&[layout.place(row, 0, plane)]);
        let read = flow.load(at, rows.iter().enumerate().map(|(cycle, &row)| (cycle as i64, place(from, row))));
        let latency = i64::from(self.facts.sxm.latency);
        let stored =
            flow.store(at, rows.iter().enumerate().map(|(cycle, &row)| (cycle as i64 + latency, place(to, row))));
        let shift = Operation::Shift {
            from: flow.take(read),
            by: (lanes / 2) as i16,
            rotate: true,
            lanes: [0, lanes],
            under: None,
            to: flow.stream(stored),
        };
        flow.unit(Pool::Shift(side), (0..rows.len()).map(|cycle| (cycle as i64, shift)).collect());
        flow
    }

    /// Looks up vectors of a result in all parts: so many for each row of `scaled`, which has the number of the first of them among
    /// all parts' vectors.
    fn look_up_pieces(
        &mut self,
        pieces: &[Piece],
        scaled: &Lease,
        per_index: usize,
        rows: &[(u32, u32)],
        result: &Lease,
    ) -> Result<(), TargetError> {
        // As many as there are ALUs to combine them and streams to bring them.
        let at_once = (self.facts.vxm.alus.min(self.facts.streams / 4) as usize).max(1);
        // Addresses take memory too.
        let at_once = if self.thrift == Thrift::Ample { at_once } else { at_once.min(FRUGAL_PARTS) };
        let groups: Vec<&[Piece]> = pieces.chunks(at_once).collect();
        let mut before: Option<Lease> = None;
        for (turn, group) in groups.iter().enumerate() {
            // Addresses of all parts are read in the same cycles.
            let mut avoid = Slices::of(&scaled.slices);
            let mut parts = Vec::new();
            for piece in *group {
                let addresses = self.addresses_for(piece, scaled, per_index, avoid)?;
                avoid = avoid.union(Slices::of(&addresses.slices));
                parts.push(Addressed { piece, addresses });
            }
            let last = turn + 1 == groups.len();
            let into = if last {
                result.clone()
            } else {
                let avoid = Slices::of(&result.slices);
                let avoid = before.iter().fold(avoid, |all, layout| all.union(Slices::of(&layout.slices)));
                self.allocate(result.dtype, result.rows, result.columns, 1, avoid)?
            };
            for plane in 0..result.planes() {
                let combining = Combining { parts: &parts, before: before.as_ref(), result: &into, rows, plane };
                for start in (0..rows.len()).step_by(CHUNK) {
                    let steps: Vec<usize> = (start..rows.len().min(start + CHUNK)).collect();
                    self.place_steps(&steps, &|lowering, steps| lowering.combining(&combining, steps))?;
                }
            }
            parts.iter().for_each(|part| self.give_back(&part.addresses));
            let old = before.replace(into);
            old.iter().for_each(|layout| self.give_back(layout));
        }
        Ok(())
    }

    /// Where the vectors that are looked up lie in a part; where its zeros lie for those that it has not.
    fn addresses_for(
        &mut self,
        piece: &Piece,
        scaled: &Lease,
        per_index: usize,
        avoid: Slices,
    ) -> Result<Lease, TargetError> {
        let own = &piece.layout;
        let side = own.slices.first().map(|place| self.facts.side_of(place.slice).other());
        let count = scaled.rows * per_index;
        let room = Room { side, avoid, ..Room::COMPUTED };
        let addresses = self.allocate_in(DType::U16, (count, 1), room)?;
        let blocks = own.blocks() as i64;
        let base = own.slices.first().map_or(0, |place| i64::from(place.address));
        let zeros = (own.rows as i64 - 1) * blocks;
        for vector in 0..per_index {
            // Numbers before the part's become very large.
            let behind = piece.first as i64 * blocks - vector as i64;
            let from = match behind {
                0.. => binary(BinaryFn::Sub, Arg::Leaf(0), behind),
                _ => binary(BinaryFn::Add, Arg::Leaf(0), -behind),
            };
            let mut steps = vec![from, binary(BinaryFn::Min, Arg::Step(0), zeros)];
            if base > 0 {
                steps.push(binary(BinaryFn::Add, Arg::Step(1), base));
            }
            let target = Target {
                step: steps.len() - 1,
                layout: addresses.clone(),
                rows: (0..scaled.rows).map(|row| Some(((row * per_index + vector) as u32, 0))).collect(),
            };
            let leaves = vec![Leaf { layout: scaled.clone(), rows: all_vectors(scaled.rows, 1) }];
            let chain = Chain { steps, leaves: vec![scaled.dtype] };
            self.run_chain(Work { chain, leaves, targets: vec![target], first: vec![true; scaled.rows] })?;
        }
        Ok(addresses)
    }

    /// Builds the flow that combines a plane of some vectors.
    fn combining(&self, combining: &Combining<'_>, steps: &[usize]) -> FlowBuilder<'a> {
        let &Combining { parts, before, result, rows, plane } = combining;
        let middle = self.facts.position(Queue::Alu(0));
        let (alu, memory) = (i64::from(self.facts.vxm.latency), i64::from(self.facts.mem.latency));
        let mut flow = FlowBuilder::new(self.facts);
        // The first two operands meet in the first cycle, and each other one what those before it have given.
        let count = parts.len() + usize::from(before.is_some());
        let level = |operand: usize| operand.saturating_sub(1) as i64 * alu;
        let one = |layout: &Layout, (row, block): (u32, u32)| -> Planes {
            SmallVec::from_slice(&[layout.place(row as usize, block as usize, plane)])
        };
        let mut trains: Vec<TrainId> = Vec::new();
        for (operand, part) in parts.iter().enumerate() {
            let Some(&place) = part.piece.layout.slices.get(plane) else { continue };
            let at = self.facts.position(Queue::Mem(place.slice));
            let gathered = level(operand) - memory - at.abs_diff(middle) as i64;
            let reads = steps.iter().enumerate();
            let reads = reads.map(|(cycle, &step)| (cycle as i64 + gathered, planes(&part.addresses, step as u32, 0)));
            let addresses = flow.load(at, reads);
            let data = flow.train(FlowBuilder::direction(at, middle), 1, at);
            for cycle in 0..steps.len() as i64 {
                flow.gather(place, 0, cycle + gathered, addresses, true, data);
                flow.drive(data, at, cycle + gathered + memory, middle);
            }
            trains.push(data);
        }
        if let Some(before) = before {
            let reads = steps.iter().enumerate();
            let reads = reads.map(|(cycle, &step)| (cycle as i64 + level(count - 1), one(before, rows[step])));
            trains.push(flow.load(middle, reads));
        }
        let operations = count.saturating_sub(1).max(1);
        let leaves = operations as i64 * alu;
        let stored = flow.store(
            middle,
            steps.iter().enumerate().map(|(cycle, &step)| (cycle as i64 + leaves, one(result, rows[step]))),
        );
        let bytes = |flow: &FlowBuilder<'_>, train: TrainId| Operand::Stream(flow.take(train), DType::U8);
        for own in 0..operations {
            let function = match (trains.get(own + 1), own) {
                (None, _) => AluFn::Copy(bytes(&flow, trains[0])),
                (Some(&next), 0) => AluFn::Binary(BinaryFn::Max, [bytes(&flow, trains[0]), bytes(&flow, next)]),
                (Some(&next), _) => AluFn::Binary(BinaryFn::Max, [Operand::Alu(own as u8 - 1), bytes(&flow, next)]),
            };
            let to = (own + 1 == operations).then_some((flow.stream(stored), DType::U8));
            let operation = Operation::Alu(Alu { function, result: to });
            let at = |cycle: usize| cycle as i64 + own as i64 * alu;
            flow.unit(Pool::Alu(own as u8), (0..steps.len()).map(|cycle| (at(cycle), operation)).collect());
        }
        flow
    }
}

/// Whether a table takes so much of a machine's memory that it is worth work to have it smaller.
fn is_large(ty: &TensorType, facts: &LpuMachine) -> bool {
    let (rows, columns) = Layout::matrix(&ty.shape);
    let bytes = rows * columns.div_ceil(facts.vector()) * storage(ty.dtype).bits() / 8 * facts.vector();
    bytes as u64 > facts.memory_bytes() / 64
}

/// Whether a table that is looked up is kept as halves although its elements are wider floats: large ones are, as the machine
/// multiplies halves, so that products round what is found in any case.
pub(in crate::lpu) fn is_rounded_table(ty: &TensorType, facts: &LpuMachine) -> bool {
    ty.dtype == DType::F32 && Layout::matrix(&ty.shape).1 > 1 && ty.shape.rank() > 1 && is_large(ty, facts)
}

/// A step of two operands, of which one is a number, that gives addresses.
fn binary(function: BinaryFn, operand: Arg, number: i64) -> Step {
    let number = Arg::Number(Number::Integer(number as i32));
    Step { function: Function::Binary(function), args: SmallVec::from_slice(&[operand, number]), dtype: DType::U16 }
}

/// The numbers whose bits elements of a type are.
fn bits_of(dtype: DType) -> DType {
    match dtype.bits() {
        16 => DType::U16,
        32 => DType::U32,
        64 => DType::U64,
        _ => DType::U8,
    }
}

/// The same memory, as bits.
fn as_bits(layout: &Lease) -> Lease {
    Lease::new(Layout { dtype: bits_of(layout.dtype), ..(**layout).clone() })
}

/// Ranges of at most so many rows that are about as long as each other, and each of which but the last is a multiple of `unit`.
fn even_parts(rows: usize, most: usize, unit: usize) -> Vec<Range<usize>> {
    let unit = unit.max(1);
    let most = (most / unit).max(1) * unit;
    let parts = rows.div_ceil(most).max(1);
    let each = rows.div_ceil(parts).next_multiple_of(unit);
    (0..rows).step_by(each.max(1)).map(|start| start..rows.min(start + each)).collect()
}
