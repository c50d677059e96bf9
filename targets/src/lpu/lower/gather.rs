//! Rows that data chooses: the vector unit makes addresses of indices, which slices of memory read at.

use std::collections::HashMap;

use smallvec::SmallVec;
use tcc_ir::ops::{BinaryFn, Gather};
use tcc_ir::{DType, ValueId};

use super::chain::{Arg, Chain, Function, Step};
use super::tables::Table;
use super::work::{Leaf, Target, Work, all_vectors, planes};
use super::{CHUNK, Lease, Lowering, Room, Shape, clashed, lost};
use crate::lpu::isa::{Alu, AluFn, Direction, Number, Operand, Operation, Queue};
use crate::lpu::layout::Layout;
use crate::lpu::memory::Slices;
use crate::lpu::schedule::{Clash, FlowBuilder, Pool};
use crate::stored::storage;
use crate::target::TargetError;

impl Lowering<'_> {
    pub(super) fn gather(
        &mut self,
        gather: &Gather,
        data: ValueId,
        indices: ValueId,
        result: ValueId,
    ) -> Result<Lease, TargetError> {
        if gather.axis != 0 {
            return Err(lost("rows are chosen along an inner axis"));
        }
        let shape = self.graph.shape(data).clone();
        let entries = shape.first().copied().unwrap_or(1);
        if let Some(chosen) = self.graph.as_constant(self.plan.access(indices).root).cloned()
            && self.plan.access(indices).view.is_dense()
        {
            let chosen = chosen.to_i64s().ok().flatten().ok_or_else(|| lost("indices are no integers"))?;
            let chosen: Vec<usize> =
                chosen.iter().map(|&index| if index < 0 { index + entries as i64 } else { index } as usize).collect();
            return self.choose(data, &chosen, result);
        }
        let (rows, columns) = Layout::matrix(self.graph.shape(result));
        let index = self.single_column(indices)?;
        if shape.rank() > 1 {
            let inner = shape[1..shape.rank() - 1].iter().product::<usize>();
            let dtype = storage(self.graph.ty(result).dtype);
            let stays = self.is_read_by_chains(result);
            return match self.table(data, inner, columns)? {
                Table::Whole(table) => self.look_up(&table, &index, inner, rows, columns),
                Table::Parts(parts) => {
                    self.look_up_parts(&parts, &index, rows, if stays { parts.dtype } else { dtype })
                }
            };
        }
        // Single elements: found as numbers in all lanes, which then become the lanes of rows.
        let found = match self.table(data, 1, 1)? {
            Table::Whole(table) => self.look_up(&table, &index, 1, index.rows, 1)?,
            Table::Parts(parts) => self.look_up_parts(&parts, &index, index.rows, parts.dtype)?,
        };
        if columns == 1 {
            return Ok(found);
        }
        let positions: Vec<i64> = (0..(rows * columns) as i64).collect();
        let layout = self.select_elements(&found, &positions, rows, columns)?;
        self.give_back(&found);
        Ok(layout)
    }

    /// Rows that are known.
    fn choose(&mut self, data: ValueId, chosen: &[usize], result: ValueId) -> Result<Lease, TargetError> {
        let shape = self.graph.shape(data).clone();
        let (rows, columns) = Layout::matrix(self.graph.shape(result));
        if shape.rank() < 2 {
            let source = self.materialize(data)?;
            let positions: Vec<i64> = chosen.iter().map(|&index| index as i64).collect();
            return self.select_elements(&source, &positions, rows, columns);
        }
        let leaf = self.rows_of(data, &shape)?;
        let per_entry = leaf.rows.len() / shape[0].max(1);
        let own = chosen.iter().flat_map(|&index| leaf.rows[index * per_entry..(index + 1) * per_entry].to_vec());
        let own = own.collect();
        let layout = self.allocate(leaf.layout.dtype, rows, columns, 1, Slices::of(&leaf.layout.slices))?;
        let to = all_vectors(rows, columns.div_ceil(self.lanes()));
        self.copy_vectors(Leaf { layout: leaf.layout, rows: own }, layout.clone(), to)?;
        Ok(layout)
    }

    /// What is looked up in: entries of `inner` rows each.
    fn table(&mut self, data: ValueId, inner: usize, columns: usize) -> Result<Table, TargetError> {
        let lanes = self.lanes();
        let count = self.graph.shape(data).count();
        let entry = inner * columns.div_ceil(lanes);
        let entries = count / (inner * columns).max(1);
        let depth = (self.facts.mem.banks * self.facts.mem.words) as usize;
        if entry > depth / 2 {
            return Err(lost("an entry of a table is longer than half a slice"));
        }
        if self.is_constant(data) {
            return self.constant_table(data, inner, columns);
        }
        // Half a slice leaves room beside it.
        if entries > depth / 2 / entry.max(1) {
            return Err(lost("a computed table is longer than a slice"));
        }
        let access = self.plan.access(data).clone();
        let key = (access.root, access.view, Shape::Table);
        if let Some(layout) = self.made.get(&key) {
            return Ok(Table::Whole(layout.clone()));
        }
        let leaf = if columns == 1 {
            let layout = self.single_column(data)?;
            Leaf { rows: all_vectors(layout.rows, 1), layout }
        } else {
            let shape = self.graph.shape(data).clone();
            self.rows_of(data, &shape)?
        };
        let avoid = Slices::of(&leaf.layout.slices);
        let rows = entries * inner;
        let room = Room { avoid, aligned: true, ..Room::COMPUTED };
        let layout = self.allocate_in(leaf.layout.dtype, (rows, columns), room)?;
        let to = all_vectors(rows, columns.div_ceil(lanes));
        self.copy_vectors(leaf, layout.clone(), to)?;
        self.remember(key, layout.clone());
        Ok(Table::Whole(layout))
    }

    /// The entries that indices name: `rows` rows, `inner` for each index.
    fn look_up(
        &mut self,
        table: &Lease,
        index: &Lease,
        inner: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Lease, TargetError> {
        // Indices are read while tables are, and are small.
        let avoid = Slices::of(&table.slices);
        let small = self.allocate(DType::I32, index.rows, 1, 1, avoid)?;
        let all = all_vectors(index.rows, 1);
        let anew = vec![true; all.len()];
        let target = Target { step: 0, layout: small.clone(), rows: all.iter().copied().map(Some).collect() };
        let copy = Step { function: Function::Copy, args: SmallVec::from_slice(&[Arg::Leaf(0)]), dtype: DType::I32 };
        let chain = Chain { steps: vec![copy], leaves: vec![index.dtype] };
        let leaf = Leaf { layout: index.clone(), rows: all };
        self.run_chain(Work { chain, leaves: vec![leaf], targets: vec![target], first: anew })?;
        let layout = self.allocate(table.dtype, rows, columns, 1, avoid.union(Slices::of(&small.slices)))?;
        self.read_entries(table, &small, inner, &layout)?;
        self.give_back(&small);
        Ok(layout)
    }

    /// Reads the entries that indices name from a table.
    fn read_entries(&mut self, table: &Lease, index: &Lease, inner: usize, result: &Lease) -> Result<(), TargetError> {
        let blocks = result.blocks();
        let per_index = inner * blocks;
        let base = table.slices.first().map_or(0, |place| i64::from(place.address));
        let steps: Vec<(usize, usize)> =
            (0..index.rows).flat_map(|entry| (0..per_index).map(move |vector| (entry, vector))).collect();
        self.catch_up()?;
        let earliest = self.ready(table);
        let mut until = 0;
        let mut chunks: Vec<&[(usize, usize)]> = steps.rchunks(CHUNK).collect();
        while let Some(chunk) = chunks.pop() {
            let mut flow = FlowBuilder::new(self.facts);
            let end = self.reading(&mut flow, table, index, result, chunk, (per_index, blocks, base));
            let flow = match flow.finish() {
                Err(Clash::Slice(_)) if chunk.len() > 1 => {
                    // Where memory is short, results lie in slices that are read.
                    let (head, tail) = chunk.split_at(chunk.len() / 2);
                    chunks.extend([tail, head]);
                    continue;
                }
                flow => flow.map_err(clashed)?,
            };
            let start = self.place(&flow, earliest)?;
            until = until.max((start.0 + end) as u64);
        }
        self.hold(table, until);
        Ok(())
    }

    /// Builds the flow of some steps; gives the cycle behind its last gather.
    fn reading(
        &self,
        flow: &mut FlowBuilder<'_>,
        table: &Layout,
        index: &Layout,
        result: &Layout,
        steps: &[(usize, usize)],
        (per_index, blocks, base): (usize, usize, i64),
    ) -> i64 {
        let middle = self.facts.position(Queue::Alu(0));
        let (alu, memory) = (i64::from(self.facts.vxm.latency), i64::from(self.facts.mem.latency));
        let position = |slice: u8| self.facts.position(Queue::Mem(slice));
        let reads = steps.iter().enumerate().map(|(cycle, &(entry, _))| (cycle as i64, planes(index, entry as u32, 0)));
        let read = flow.load(middle, reads);
        let far = table.slices.iter().map(|place| position(place.slice)).max_by_key(|at| at.abs_diff(middle));
        let far = far.unwrap_or(middle);
        let addresses = flow.train(FlowBuilder::direction(middle, far), 2, middle);
        let scaled = |cycle: usize| {
            let operands =
                [Operand::Stream(flow.take(read), index.dtype), Operand::Number(Number::Integer(per_index as i32))];
            (cycle as i64, Operation::Alu(Alu { function: AluFn::Binary(BinaryFn::Mul, operands), result: None }))
        };
        let operations = (0..steps.len()).map(scaled).collect();
        let moved = |(cycle, &(_, vector)): (usize, &(usize, usize))| {
            let offset = Number::Integer((base + vector as i64) as i32);
            let operands = [Operand::Alu(0), Operand::Number(offset)];
            let result = Some((flow.stream(addresses), DType::U16));
            (cycle as i64 + alu, Operation::Alu(Alu { function: AluFn::Binary(BinaryFn::Add, operands), result }))
        };
        let offsets = steps.iter().enumerate().map(moved).collect();
        flow.unit(Pool::Alu(0), operations);
        flow.unit(Pool::Alu(1), offsets);
        let mut end = 0;
        let mut trains: HashMap<(usize, Direction), _> = HashMap::new();
        for (cycle, &(entry, vector)) in steps.iter().enumerate() {
            let driven = cycle as i64 + 2 * alu;
            flow.drive(addresses, middle, driven, far);
            let (row, block) = (entry * (per_index / blocks) + vector / blocks, vector % blocks);
            for (plane, place) in table.slices.iter().enumerate() {
                let from = position(place.slice);
                let to = result.place(row, block, plane);
                // Rows may lie on either side of the slice that is read.
                let direction = FlowBuilder::direction(from, position(to.slice));
                let train = *trains.entry((plane, direction)).or_insert_with(|| flow.train(direction, 1, from));
                let at = driven + from.abs_diff(middle) as i64;
                flow.gather(*place, 0, at, addresses, from == far, train);
                flow.store_step(train, from, at + memory, &[to]);
                end = end.max(at + 1);
            }
        }
        end
    }

    /// From when on all of a value can be read.
    fn ready(&self, layout: &Layout) -> i64 {
        layout.vectors().map(|(place, ..)| self.schedule.ready(place)).max().unwrap_or(0) as i64
    }

    /// Says that all of a value is read until a cycle.
    fn hold(&mut self, layout: &Layout, until: u64) {
        for (place, ..) in layout.vectors() {
            self.schedule.hold(place, until);
        }
    }
}
