//! Kernels of the vector unit: element-wise trees and reductions over one domain, tile by tile.

use tcc_ir::ops::{BinaryFn, Reduce, ReduceFn};
use tcc_ir::{DType, Kernel, Nest, NodeId, Op, Shape, ValueId, View};

use super::tile::{self, Tile};
use super::{ChipOperand, ChipSource, Home, Lowering, Stored, element_bytes, map_function};
use crate::systolic::emit::Filler;
use crate::systolic::isa::{FoldFn, MapFn, Memory, Source};
use crate::systolic::layout::storage;
use crate::target::TargetError;

/// Elements of the domain in one tile: long enough that the vector unit's latency does not show, short enough that
/// loads, work and stores of different tiles overlap.
const TILE_ELEMENTS: usize = 32 << 10;

/// The same as a multiple of the elements that enter the vector unit while the first result is on its way.
const TILE_LATENCIES: usize = 4;

/// Most buffers of an operand that are taken in turn, and of the budget the share, as one in so many, that more than two of
/// them may take.
const LOAD_TURNS: u64 = 8;
const LOADS_SHARE: u64 = 32;

/// An operand or a result of the kernel in DRAM.
struct External {
    value: ValueId,
    operand: Stored,
    /// Strides in DRAM along the nest, in elements; 0 where the value has one element for all.
    strides: Vec<i64>,
}

/// What a buffer holds: what lies from an address on, in a tile of these lengths.
type LoadedTile = (Home, Vec<usize>);

/// The loop nest that a vector kernel walks.
struct Domain {
    sizes: Vec<usize>,
    /// The domain's axis that each dimension is a factor of.
    axis: Vec<usize>,
    /// Whether the kernel reduces along each dimension.
    reduced: Vec<bool>,
    shape: Shape,
}

impl Domain {
    /// Whether a value of this shape has more than one element along a dimension.
    fn spans(&self, shape: &Shape, dim: usize) -> bool {
        let lead = self.shape.rank() - shape.rank();
        self.axis[dim].checked_sub(lead).is_some_and(|axis| shape[axis] != 1)
    }

    fn bytes(&self, shape: &Shape, dtype: DType, lens: &[usize]) -> u64 {
        let count: usize = (0..lens.len()).filter(|&dim| self.spans(shape, dim)).map(|dim| lens[dim]).product();
        count as u64 * element_bytes(dtype) as u64
    }
}

impl Lowering<'_, '_> {
    pub(super) fn vector_kernel(&mut self, kernel: &Kernel) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let nodes: Vec<NodeId> = kernel.nodes().collect();
        let own: Vec<ValueId> = nodes.iter().map(|&id| graph.node(id).output()).collect();
        let shape = self.domain_shape(&nodes);
        if shape.count() == 0 {
            return self.empty_domain(kernel, &nodes);
        }
        let mut values: Vec<ValueId> = Vec::new();
        for &id in &nodes {
            for &input in &graph.node(id).inputs {
                if !own.contains(&input) && !values.contains(&input) && self.immediate(input).is_none() {
                    values.push(input);
                }
            }
        }
        let mut operands = values.iter().map(|&value| self.operand(value)).collect::<Result<Vec<_>, _>>()?;
        let mut results = kernel.outputs.iter().map(|&value| self.result(value)).collect::<Result<Vec<_>, _>>()?;
        let (domain, mut strides) = self.domain(&shape, &nodes, &mut results, &mut operands)?;
        let operand_strides = strides.split_off(results.len());
        let results: Vec<External> = kernel
            .outputs
            .iter()
            .zip(results)
            .zip(strides)
            .map(|((&value, operand), strides)| External { value, operand, strides })
            .collect();
        let externals: Vec<External> = values
            .iter()
            .zip(operands)
            .zip(operand_strides)
            .map(|((&value, operand), strides)| External { value, operand, strides })
            .collect();

        // A reduction on its own may be too long for the scratchpad; it then goes on from tile to tile.
        let streams = nodes.len() == 1 && domain.reduced.contains(&true);
        let fixed: Vec<bool> = domain.reduced.iter().map(|&reduced| reduced && !streams).collect();
        // Two buffers of each value.
        let footprint = |lens: &[usize]| -> u64 {
            let outside = externals
                .iter()
                .map(|external| domain.bytes(graph.shape(external.value), external.operand.dtype, lens));
            let inside =
                own.iter().map(|&value| domain.bytes(graph.shape(value), storage(graph.ty(value).dtype), lens));
            outside.chain(inside).map(|bytes| 2 * self.emitter.allocated(bytes)).sum()
        };
        // A third lets the next kernel begin to load while this one still works.
        let whole = self.emitter.capacity();
        let budget = if self.squeeze == 0 { whole / 3 } else { self.squeezed(whole as usize) as u64 };
        let vector = &self.machine.vector;
        let most = TILE_ELEMENTS.max((vector.lanes * vector.latency) as usize * TILE_LATENCIES);
        let fits = |lens: &[usize]| lens.iter().product::<usize>() <= most && footprint(lens) <= budget;
        // Where nothing fits, `grow` gives single rows; those longer than a usual tile may still fit the scratchpad.
        let lens = tile::grow(&domain.sizes, &fixed, fits);
        if footprint(&lens) > whole {
            return Err(self.does_not_fit(kernel, footprint(&lens) - whole));
        }
        // Reduced dimensions go innermost in the order of tiles, so that a streamed reduction finishes before the next.
        let kept: Vec<usize> = (0..lens.len()).filter(|&dim| !domain.reduced[dim]).collect();
        let reduced: Vec<usize> = (0..lens.len()).filter(|&dim| domain.reduced[dim]).collect();
        let tiles = self.tile_order(&domain, &lens, &kept, &reduced);
        let reduced_tiles: usize = reduced.iter().map(|&dim| domain.sizes[dim].div_ceil(lens[dim])).product();
        self.tiling = format!("{} tiles of {:?} over {:?}", tiles.len(), lens, domain.sizes);

        let turns = tiles.len().min(2);
        let external_buffers: Vec<Vec<u32>> = externals
            .iter()
            .map(|external| {
                let bytes = domain.bytes(graph.shape(external.value), external.operand.dtype, &lens);
                // Small operands are loaded further ahead, so that their loads hold up none of the kernels behind.
                let ahead = (budget / LOADS_SHARE / self.emitter.allocated(bytes)).clamp(2, LOAD_TURNS) as usize;
                self.buffers(Filler::Load, bytes, if turns > 1 { tiles.len().min(ahead) } else { 1 })
            })
            .collect();
        let own_buffers: Vec<Vec<u32>> = own
            .iter()
            .map(|&value| {
                let bytes = domain.bytes(graph.shape(value), storage(graph.ty(value).dtype), &lens);
                self.buffers(Filler::Vector, bytes, turns)
            })
            .collect();
        let mut loaded: Vec<Vec<Option<LoadedTile>>> =
            external_buffers.iter().map(|buffers| vec![None; buffers.len()]).collect();
        for (index, tile) in tiles.iter().enumerate() {
            // A streamed result stays where it is until its last piece has been added.
            let group = index / reduced_tiles.max(1);
            let turn = index % turns;
            let own_turn = if streams { group % turns } else { turn };
            let mut chip: Vec<(ValueId, ChipOperand)> = Vec::new();
            for (which, external) in externals.iter().enumerate() {
                let first = tile.offset(&external.strides);
                if let Some(operand) = external.operand.in_place(first, &external.strides) {
                    chip.push((external.value, operand));
                    continue;
                }
                let dram = external.operand.address(first);
                let turn = index % external_buffers[which].len();
                let shape = graph.shape(external.value);
                let strides = tile::dense_strides(&tile.lens, |dim| domain.spans(shape, dim));
                let operand = ChipOperand {
                    memory: Memory::Scratchpad,
                    address: external_buffers[which][turn],
                    dtype: external.operand.dtype,
                    strides: strides.clone(),
                };
                // What is the same for all tiles is loaded once for each buffer.
                let key = Some((dram, tile.lens.clone()));
                if loaded[which][turn] != key {
                    let dtype = external.operand.dtype;
                    self.move_tile(false, dram, dtype, &tile.lens, &external.strides, operand.address, &strides);
                    loaded[which][turn] = key;
                }
                chip.push((external.value, operand));
            }
            for (which, &id) in nodes.iter().enumerate() {
                let value = own[which];
                let shape = graph.shape(value);
                let kept = results
                    .iter()
                    .find(|result| result.value == value)
                    .and_then(|result| result.operand.in_place(tile.offset(&result.strides), &result.strides));
                let operand = kept.unwrap_or_else(|| ChipOperand {
                    memory: Memory::Scratchpad,
                    address: own_buffers[which][own_turn],
                    dtype: storage(graph.ty(value).dtype),
                    strides: tile::dense_strides(&tile.lens, |dim| domain.spans(shape, dim)),
                });
                let first = !streams || index % reduced_tiles == 0;
                let last = !streams || index % reduced_tiles == reduced_tiles - 1;
                self.vector_node(id, &domain, tile, &operand, &chip, (first, last))?;
                chip.push((value, operand));
            }
            if streams && index % reduced_tiles != reduced_tiles - 1 {
                continue;
            }
            for result in &results {
                let Some((_, operand)) = chip.iter().find(|(known, _)| *known == result.value) else { continue };
                let dram = result.operand.address(tile.offset(&result.strides));
                if matches!(dram, Home::Scratchpad(_)) {
                    continue;
                }
                let dtype = operand.dtype;
                self.move_tile(true, dram, dtype, &tile.lens, &result.strides, operand.address, &operand.strides);
            }
        }
        Ok(())
    }

    fn domain_shape(&self, nodes: &[NodeId]) -> Shape {
        let graph = &self.plan.graph;
        let mut widest = Shape::scalar();
        for &id in nodes {
            let node = graph.node(id);
            let shape = match &node.op {
                Op::Reduce(_) => graph.shape(node.inputs[0]),
                _ => graph.shape(node.output()),
            };
            // Of shapes with as many elements the one of higher rank names more axes; an empty one decides.
            if (shape.count() == 0, shape.count(), shape.rank()) >= (widest.count() == 0, widest.count(), widest.rank())
            {
                widest = shape.clone();
            }
        }
        widest
    }

    /// The nest over the domain in which every result and every operand has one stride per dimension. Operands that no nest
    /// can walk together with the others are copied first; results are written elsewhere and copied after the kernel.
    fn domain(
        &mut self,
        shape: &Shape,
        nodes: &[NodeId],
        results: &mut [Stored],
        operands: &mut [Stored],
    ) -> Result<(Domain, Vec<Vec<i64>>), TargetError> {
        let mut views: Vec<View> = Vec::with_capacity(results.len() + operands.len());
        let first_operand = results.len();
        for (index, operand) in results.iter_mut().chain(operands).enumerate() {
            let mut wide = operand.view.broadcast(shape);
            if wide.as_ref().is_none_or(|view| Nest::refine(shape, &with(&views, view)).is_none()) {
                *operand =
                    if index < first_operand { self.move_later(operand.clone())? } else { self.densify(operand)? };
                wide = operand.view.broadcast(shape);
            }
            let Some(view) = wide.filter(|view| Nest::refine(shape, &with(&views, view)).is_some()) else {
                return Err(TargetError::Fault(format!("an operand does not broadcast to {shape}")));
            };
            views.push(view);
        }
        let Some(nest) = Nest::refine(shape, &views.iter().collect::<Vec<_>>()) else {
            return Err(TargetError::Fault(format!("operands over {shape} do not interleave")));
        };
        let mut axis = Vec::with_capacity(nest.sizes.len());
        let mut rest = 1;
        let mut current = shape.rank();
        for &size in nest.sizes.iter().rev() {
            while rest == 1 {
                current -= 1;
                rest = shape[current];
            }
            rest /= size;
            axis.push(current);
        }
        axis.reverse();
        let graph = &self.plan.graph;
        let reduces = |axis: usize| {
            nodes.iter().any(|&id| matches!(&graph.node(id).op, Op::Reduce(reduce) if reduce.axes.contains(&axis)))
        };
        let reduced = axis.iter().map(|&axis| reduces(axis)).collect();
        Ok((Domain { sizes: nest.sizes, axis, reduced, shape: shape.clone() }, nest.strides))
    }

    fn tile_order(&self, domain: &Domain, lens: &[usize], kept: &[usize], reduced: &[usize]) -> Vec<Tile> {
        let order: Vec<usize> = kept.iter().chain(reduced).copied().collect();
        let pick = |values: &[usize]| -> Vec<usize> { order.iter().map(|&dim| values[dim]).collect() };
        tile::tiles(&pick(&domain.sizes), &pick(lens))
            .into_iter()
            .map(|permuted| {
                let mut tile = Tile { starts: vec![0; order.len()], lens: vec![0; order.len()] };
                for (place, &dim) in order.iter().enumerate() {
                    tile.starts[dim] = permuted.starts[place];
                    tile.lens[dim] = permuted.lens[place];
                }
                tile
            })
            .collect()
    }

    fn vector_node(
        &mut self,
        id: NodeId,
        domain: &Domain,
        tile: &Tile,
        destination: &ChipOperand,
        chip: &[(ValueId, ChipOperand)],
        (first, last): (bool, bool),
    ) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let node = graph.node(id);
        let output = graph.shape(node.output());
        let sources: Vec<ChipSource<'_>> = node
            .inputs
            .iter()
            .filter_map(|&input| {
                let known = chip.iter().rev().find(|(value, _)| *value == input);
                known
                    .map(|(_, operand)| ChipSource::Chip(operand))
                    .or_else(|| self.immediate(input).map(ChipSource::Immediate))
            })
            .collect();
        if sources.len() != node.inputs.len() {
            return Err(TargetError::Fault(format!("an operand of `{}` is not on chip", node.origin)));
        }
        if let Op::Reduce(reduce) = &node.op {
            return self.fold(
                reduce,
                graph.ty(node.output()).dtype,
                domain,
                tile,
                destination,
                &sources[0],
                first,
                last,
            );
        }
        let Some(function) = map_function(&node.op) else {
            return Err(TargetError::Fault(format!("`{}` is not element-wise", node.origin)));
        };
        let lens: Vec<usize> =
            (0..tile.lens.len()).map(|dim| if domain.spans(output, dim) { tile.lens[dim] } else { 1 }).collect();
        self.map(function, &lens, destination, &sources);
        if let Op::Cast(cast) = &node.op {
            self.wrap_nibbles(cast.to, graph.ty(node.inputs[0]).dtype, &lens, destination);
        }
        Ok(())
    }

    /// Four-bit types are stored in a byte: after a conversion to one, floats saturate and integers wrap to four bits.
    pub(super) fn wrap_nibbles(&mut self, to: DType, from: DType, lens: &[usize], place: &ChipOperand) {
        let mut step = |function: BinaryFn, number: i64| {
            let sources = [ChipSource::Chip(place), ChipSource::Immediate(Source::Integer(number))];
            self.map(MapFn::Binary(function), lens, place, &sources);
        };
        match (to, from.is_float()) {
            (DType::I4, true) => {
                step(BinaryFn::Max, -8);
                step(BinaryFn::Min, 7);
            }
            (DType::U4, true) => step(BinaryFn::Min, 15),
            (DType::I4, false) => {
                step(BinaryFn::Shl, 4);
                step(BinaryFn::Shr, 4);
            }
            (DType::U4, false) => step(BinaryFn::And, 15),
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a fold has as many sides")]
    fn fold(
        &mut self,
        reduce: &Reduce,
        dtype: DType,
        domain: &Domain,
        tile: &Tile,
        destination: &ChipOperand,
        source: &ChipSource<'_>,
        first: bool,
        last: bool,
    ) -> Result<(), TargetError> {
        // Folded dimensions go innermost.
        let folds = |dim: usize| reduce.axes.contains(&domain.axis[dim]);
        let order: Vec<usize> = (0..tile.lens.len())
            .filter(|&dim| !folds(dim))
            .chain((0..tile.lens.len()).filter(|&dim| folds(dim)))
            .collect();
        let permute = |operand: &ChipOperand| ChipOperand {
            strides: order.iter().map(|&dim| operand.strides[dim]).collect(),
            ..operand.clone()
        };
        let lens: Vec<usize> = order.iter().map(|&dim| tile.lens[dim]).collect();
        let kept = order.iter().filter(|&&dim| !folds(dim)).count();
        let walked;
        let source = match source {
            ChipSource::Chip(operand) => {
                walked = permute(operand);
                ChipSource::Chip(&walked)
            }
            ChipSource::Immediate(number) => ChipSource::Immediate(number.clone()),
        };
        self.fold_nest(fold_function(reduce.function), &lens, kept, !first, &permute(destination), &[source]);
        if reduce.function == ReduceFn::Mean && last {
            let count: usize = reduce.axes.iter().map(|&axis| domain.shape[axis]).product();
            let divisor = if dtype.is_float() { Source::Float(count as f64) } else { Source::Integer(count as i64) };
            let kept: Vec<usize> =
                (0..tile.lens.len()).map(|dim| if folds(dim) { 1 } else { tile.lens[dim] }).collect();
            let sources = [ChipSource::Chip(destination), ChipSource::Immediate(divisor)];
            self.map(MapFn::Binary(BinaryFn::Div), &kept, destination, &sources);
        }
        Ok(())
    }

    /// A kernel over no elements: only reductions have results, and those are the neutral element.
    fn empty_domain(&mut self, kernel: &Kernel, nodes: &[NodeId]) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        for &id in nodes {
            let node = graph.node(id);
            let value = node.output();
            let ty = graph.ty(value).clone();
            let Op::Reduce(reduce) = &node.op else { continue };
            if ty.shape.count() == 0 || !kernel.outputs.contains(&value) {
                continue;
            }
            let (low, high) = ty.dtype.integer_range().unwrap_or((0, 1));
            let (float, integer) = match reduce.function {
                ReduceFn::Sum => (0.0, 0),
                ReduceFn::Prod => (1.0, 1),
                ReduceFn::Mean => (f64::NAN, 0),
                ReduceFn::Max => (f64::NEG_INFINITY, low),
                ReduceFn::Min => (f64::INFINITY, high),
            };
            // The greatest number of u64 wraps to -1, which is stored as the same bits.
            let source = if ty.dtype.is_float() { Source::Float(float) } else { Source::Integer(integer as i64) };
            let result = self.result(value)?;
            self.fill(&result, source);
        }
        Ok(())
    }

    /// Writes one number everywhere into the buffer of a result, which reaches all of it.
    pub(super) fn fill(&mut self, result: &Stored, number: Source) {
        let whole = Shape::vector(result.view.shape().count());
        let result = Stored { view: View::dense(whole), ..result.clone() };
        let count = result.view.shape().count();
        let chunk = count.min(self.squeezed(TILE_ELEMENTS));
        let chip = ChipOperand {
            memory: Memory::Scratchpad,
            address: self.emitter.allocate(Filler::Vector, chunk as u64 * element_bytes(result.dtype) as u64),
            dtype: result.dtype,
            strides: vec![1],
        };
        self.map(MapFn::Copy, &[chunk], &chip, &[ChipSource::Immediate(number)]);
        for tile in tile::tiles(&[count], &[chunk.max(1)]) {
            let dram = result.address(tile.offset(&[1]));
            self.move_tile(true, dram, result.dtype, &tile.lens, &[1], chip.address, &[1]);
        }
    }
}

/// What a reduction does along its axes; a mean is divided after that.
pub(super) fn fold_function(function: ReduceFn) -> FoldFn {
    match function {
        ReduceFn::Sum | ReduceFn::Mean => FoldFn::Sum,
        ReduceFn::Prod => FoldFn::Product,
        ReduceFn::Max => FoldFn::Max,
        ReduceFn::Min => FoldFn::Min,
    }
}

/// All views with one more.
fn with<'a>(views: &'a [View], more: &'a View) -> Vec<&'a View> {
    views.iter().chain([more]).collect()
}
