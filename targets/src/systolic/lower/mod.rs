//! From a plan to instructions: each kernel is tiled and written out by the file of its kind.

mod array_product;
mod attention;
mod contraction;
mod epilogue;
mod frame;
mod movement;
mod output_stationary;
mod prologue;
mod recipe;
mod rotation;
mod routines;
mod rows;
mod selection;
mod signature;
mod slices;
mod space;
mod tile;
mod vector;

use std::ops::Range;

use smallvec::SmallVec;
use tcc_ir::{Access, Anchor, DType, Kernel, Nest, Op, Plan, Shape, Tensor, ValueId, Values, View};

pub(super) use attention::{attention_prologue_supported, attention_supported};
pub(super) use rotation::rope_supported;
pub(super) use routines::{LoweredKernel, lower};
pub use rows::row_epilogue_fits;
pub(super) use slices::Slices;

use self::frame::Frame;
use super::emit::{Emitter, Filler};
use super::isa::{DmaDim, DramAddress, Fold, FoldFn, Map, MapFn, Memory, Operation, Source, Walk};
use super::layout::{Layout, Place};
use super::machine::SystolicMachine;
use crate::target::TargetError;

/// Where a value lies between the kernel that writes it and those that read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// In DRAM.
    Dram(DramAddress),
    /// In the part of the scratchpad that is set aside for values that stay on chip.
    Scratchpad(u32),
}

impl Home {
    /// The place so many bytes further.
    fn plus(self, bytes: i64) -> Home {
        match self {
            Home::Dram(address) => Home::Dram(address.plus(bytes)),
            Home::Scratchpad(address) => Home::Scratchpad(address.wrapping_add_signed(bytes as i32)),
        }
    }
}

/// An operand or a result of a kernel where it lies between kernels.
#[derive(Clone, Debug)]
struct Stored {
    /// Where the first element of the buffer lies.
    base: Home,
    dtype: DType,
    view: View,
}

impl Stored {
    /// Where an element lies, given its distance from the first of the view.
    fn address(&self, elements: i64) -> Home {
        self.base.plus((self.view.offset() + elements) * element_bytes(self.dtype))
    }

    /// Where an element lies in DRAM; `None` if the operand stays on chip.
    fn dram(&self, elements: i64) -> Option<DramAddress> {
        match self.address(elements) {
            Home::Dram(address) => Some(address),
            Home::Scratchpad(_) => None,
        }
    }

    /// A tile of an operand that stays on chip, where it lies: its first element's distance from the first of the view, and
    /// strides in elements. `None` if it lies in DRAM.
    fn in_place(&self, first: i64, strides: &[i64]) -> Option<ChipOperand> {
        match self.address(first) {
            Home::Dram(_) => None,
            Home::Scratchpad(address) => {
                Some(ChipOperand { memory: Memory::Scratchpad, address, dtype: self.dtype, strides: strides.to_vec() })
            }
        }
    }

    /// The same elements as one dimension.
    fn flat(&self) -> Stored {
        Stored { view: self.view.reshape(Shape::vector(self.view.shape().count())), ..self.clone() }
    }
}

/// Bytes of one stored element.
fn element_bytes(dtype: DType) -> i64 {
    (dtype.bits() / 8).max(1) as i64
}

struct Lowering<'a, 'm> {
    plan: &'a Plan,
    layout: &'a mut Layout,
    machine: &'m SystolicMachine,
    /// Whether weights lie ready when a kernel begins.
    weights_wait: bool,
    emitter: Emitter<'m>,
    /// Where the buffers of the segment lie.
    frame: Frame,
    tiling: String,
    /// How hard the kernel is squeezed: 0 not at all, 1 is alone on chip, then each step halves its pieces.
    squeeze: u32,
    /// Copies to make after the kernel: results that it wrote elsewhere than where they belong, and their places.
    moves: Vec<(Stored, Stored)>,
}

impl Lowering<'_, '_> {
    fn kernel(&mut self, kernel: &Kernel) -> Result<(), TargetError> {
        self.anchored(kernel)?;
        for (from, to) in std::mem::take(&mut self.moves) {
            self.copy(&from, &to)?;
        }
        Ok(())
    }

    fn anchored(&mut self, kernel: &Kernel) -> Result<(), TargetError> {
        match &kernel.anchor {
            Anchor::ElementWise | Anchor::Reduction(_) => self.vector_kernel(kernel),
            Anchor::Contraction(node) => self.contraction_kernel(kernel, *node),
            Anchor::Selection(node) => self.selection_kernel(kernel, *node),
            Anchor::Movement(node) if matches!(self.plan.graph.node(*node).op, Op::Rope(_)) => {
                self.rope_kernel(kernel, *node)
            }
            Anchor::Movement(node) => self.movement_kernel(*node),
            Anchor::Copy { value, source } => {
                let from = self.operand_of(source)?;
                let to = self.result(*value)?;
                self.tiling = "copied".to_owned();
                self.copy(&from, &to)
            }
            Anchor::Attention(node) => self.attention_kernel(kernel, *node),
            Anchor::Normalization(_) => Err(self.defect(kernel, "was not decomposed before lowering")),
        }
    }

    /// An error for what legalisation should have ruled out.
    fn defect(&self, kernel: &Kernel, what: &str) -> TargetError {
        TargetError::Unsupported {
            origin: self.plan.origins(kernel).join(", "),
            machine: "the systolic target".to_owned(),
            reason: format!("it {what}; this is a defect in tcc, please report it"),
        }
    }

    /// An error for a kernel whose smallest pieces take `excess` bytes more than the scratchpad has.
    fn does_not_fit(&self, kernel: &Kernel, excess: u64) -> TargetError {
        let capacity = self.emitter.capacity();
        TargetError::DoesNotFit {
            what: format!("one row of kernel `{}`", self.plan.origins(kernel).join(", ")),
            machine: "the machine".to_owned(),
            memory: "scratchpad".to_owned(),
            needed: capacity + excess,
            capacity,
            hint: "a machine with a larger scratchpad can hold it".to_owned(),
        }
    }

    /// The size of a piece of the kernel, for how hard it is squeezed.
    fn squeezed(&self, size: usize) -> usize {
        (size >> self.squeeze.saturating_sub(1)).max(1)
    }

    /// The buffer behind an access.
    fn operand_of(&self, access: &Access) -> Result<Stored, TargetError> {
        match self.layout.buffer(access.root) {
            Some(buffer) => Ok(Stored {
                base: match buffer.place {
                    Place::Dram(address) => Home::Dram(self.frame.address(access.root, address)),
                    Place::Scratchpad(address) => Home::Scratchpad(address),
                },
                dtype: buffer.dtype,
                view: access.view.clone(),
            }),
            None => Err(TargetError::Unsupported {
                origin: self.plan.graph.value(access.root).name.to_string(),
                machine: "the systolic target".to_owned(),
                reason: "it has no place in memory; this is a defect in tcc, please report it".to_owned(),
            }),
        }
    }

    /// How a value is read from DRAM.
    fn operand(&self, value: ValueId) -> Result<Stored, TargetError> {
        self.operand_of(self.plan.access(value))
    }

    /// Where a value is written: a dense buffer of its own, or that of a result of the graph, rearranged.
    fn result(&self, value: ValueId) -> Result<Stored, TargetError> {
        match self.layout.buffer(value) {
            Some(_) => {
                let view = View::dense(self.plan.graph.shape(value).clone());
                self.operand_of(&Access { root: value, view })
            }
            None => self.operand(value),
        }
    }

    /// A dense buffer for a value: its own, or one that is copied to where it belongs after the kernel. To be called once
    /// for a value.
    fn dense_result(&mut self, value: ValueId) -> Result<Stored, TargetError> {
        let result = self.result(value)?;
        if result.view.is_dense() { Ok(result) } else { self.move_later(result) }
    }

    /// A dense buffer that is copied to `place` after the kernel.
    fn move_later(&mut self, place: Stored) -> Result<Stored, TargetError> {
        let dense = self.scratch(place.dtype, place.view.shape())?;
        // As one dimension: the place may cut its own shape so that the two have no nest in common.
        self.moves.push((dense.flat(), place.flat()));
        Ok(dense)
    }

    /// The number that a value is everywhere, if it is a constant of one element.
    fn immediate(&self, value: ValueId) -> Option<Source> {
        let root = self.plan.access(value).root;
        let tensor: &Tensor = self.plan.graph.as_constant(root).filter(|tensor| tensor.shape().count() == 1)?;
        match tensor.widen().ok()? {
            Values::F32(v) => Some(Source::Float(f64::from(v[0]))),
            Values::F64(v) => Some(Source::Float(v[0])),
            Values::Signed(v) => Some(Source::Integer(v[0])),
            Values::Unsigned(v) => i64::try_from(v[0]).ok().map(Source::Integer),
        }
    }

    /// Moves a tile between its home (strides in elements) and another place on chip (strides in elements). A dimension with
    /// stride 0 there holds one element for all, which is moved once. What stays on chip is copied by the vector unit.
    #[expect(clippy::too_many_arguments, reason = "a transfer has two sides with an address and strides each")]
    fn move_tile(
        &mut self,
        store: bool,
        home: Home,
        dtype: DType,
        lens: &[usize],
        home_strides: &[i64],
        chip: u32,
        chip_strides: &[i64],
    ) {
        let element = element_bytes(dtype);
        let dram = match home {
            Home::Dram(address) => address,
            Home::Scratchpad(address) => {
                let moved: Vec<usize> = lens
                    .iter()
                    .zip(chip_strides)
                    .map(|(&len, &chip)| if chip == 0 { len.min(1) } else { len })
                    .collect();
                let side = |address: u32, strides: &[i64]| ChipOperand {
                    memory: Memory::Scratchpad,
                    address,
                    dtype,
                    strides: strides.to_vec(),
                };
                let (home, chip) = (side(address, home_strides), side(chip, chip_strides));
                let (from, to) = if store { (chip, home) } else { (home, chip) };
                if moved.iter().all(|&len| len > 0) {
                    self.map(MapFn::Copy, &moved, &to, &[ChipSource::Chip(&from)]);
                }
                return;
            }
        };
        let dims: SmallVec<[DmaDim; 8]> = lens
            .iter()
            .zip(home_strides)
            .zip(chip_strides)
            .filter(|&((&len, _), &chip)| len == 0 || chip != 0)
            .map(|((&len, &dram), &chip)| DmaDim {
                size: len as u32,
                dram_stride: dram * element,
                scratchpad_stride: (chip * element) as i32,
            })
            .collect();
        self.emitter.transfer(store, dram, chip, element as u8, &dims);
    }

    /// Copies between two views of as many elements in DRAM, through the scratchpad. No buffer of the kernel may be in
    /// use.
    fn copy(&mut self, from: &Stored, to: &Stored) -> Result<(), TargetError> {
        let dtype = from.dtype;
        if to.view.shape().count() == 0 {
            return Ok(());
        }
        let Some(nest) = Nest::refine(from.view.shape(), &[&from.view, &to.view]) else {
            // The two cut the index space differently: through a dense copy both can be walked.
            let dense = self.densify(from)?.flat();
            let to = to.flat();
            return match Nest::refine(dense.view.shape(), &[&dense.view, &to.view]) {
                Some(_) => self.copy(&dense, &to),
                None => Err(TargetError::Fault("a copy between views that do not interleave".to_owned())),
            };
        };
        // What stays on chip is copied from there, or to there, as it is.
        match (from.address(0), to.address(0)) {
            (Home::Dram(_), Home::Dram(_)) => {}
            (home, Home::Scratchpad(chip)) => {
                let (from, to) = (&nest.strides[0], &nest.strides[1]);
                self.move_tile(false, home, dtype, &nest.sizes, from, chip, to);
                return Ok(());
            }
            (Home::Scratchpad(chip), home) => {
                let (from, to) = (&nest.strides[0], &nest.strides[1]);
                self.move_tile(true, home, dtype, &nest.sizes, to, chip, from);
                return Ok(());
            }
        }
        let element = element_bytes(from.dtype);
        let budget = self.squeezed((self.emitter.capacity() as usize / 8).min(COPY_TILE_BYTES)) / element as usize;
        let fixed = vec![false; nest.sizes.len()];
        let lens = tile::grow(&nest.sizes, &fixed, |lens| lens.iter().product::<usize>() <= budget);
        let tiles = tile::tiles(&nest.sizes, &lens);
        let bytes = lens.iter().product::<usize>() as u64 * element as u64;
        self.emitter.release();
        let buffers = self.buffers(Filler::Load, bytes, tiles.len().min(2));
        for (index, tile) in tiles.iter().enumerate() {
            let chip = buffers[index % buffers.len()];
            let strides = tile::dense_strides(&tile.lens, |_| true);
            let source = from.address(tile.offset(&nest.strides[0]));
            self.move_tile(false, source, from.dtype, &tile.lens, &nest.strides[0], chip, &strides);
            let target = to.address(tile.offset(&nest.strides[1]));
            self.move_tile(true, target, to.dtype, &tile.lens, &nest.strides[1], chip, &strides);
        }
        self.emitter.release();
        Ok(())
    }

    /// A dense copy of a view in memory of its own.
    fn densify(&mut self, from: &Stored) -> Result<Stored, TargetError> {
        let shape = from.view.shape().clone();
        let dense = self.scratch(from.dtype, &shape)?;
        // As one dimension: a view may cut its own shape so that the two have no nest in common.
        let (source, target) = (from.flat(), dense.flat());
        if Nest::refine(target.view.shape(), &[&source.view, &target.view]).is_none() {
            return Err(TargetError::Fault("a view that cannot be walked".to_owned()));
        }
        self.copy(&source, &target)?;
        Ok(dense)
    }

    /// A dense buffer that only this kernel uses.
    fn scratch(&mut self, dtype: DType, shape: &Shape) -> Result<Stored, TargetError> {
        let bytes = dtype.bytes(shape.count()) as u64;
        let address = self.layout.scratch(bytes);
        let base = self.frame.copy(address, bytes);
        self.emitter.set_bases(self.frame.bases());
        // Before it is filled, by a program that grows with the shape.
        if self.layout.total_bytes > self.machine.dram.bytes {
            return Err(TargetError::DoesNotFit {
                what: format!("a copy of shape {shape}"),
                machine: "the systolic target".to_owned(),
                memory: "dram".to_owned(),
                needed: self.layout.total_bytes,
                capacity: self.machine.dram.bytes,
                hint: "choose a machine with more memory, or smaller dimensions".to_owned(),
            });
        }
        Ok(Stored { base: Home::Dram(base), dtype, view: View::dense(shape.clone()) })
    }

    /// Several buffers of `bytes` each, to be taken in turn.
    fn buffers(&mut self, filler: Filler, bytes: u64, count: usize) -> Vec<u32> {
        (0..count.max(1)).map(|_| self.emitter.allocate(filler, bytes)).collect()
    }

    /// Appends an element-wise instruction over a nest; dimensions of one step are dropped, the others merged where all
    /// operands allow it.
    fn map(&mut self, function: MapFn, lens: &[usize], destination: &ChipOperand, sources: &[ChipSource<'_>]) {
        let mut walks: Vec<&ChipOperand> = vec![destination];
        walks.extend(sources.iter().filter_map(|source| match source {
            ChipSource::Chip(operand) => Some(*operand),
            ChipSource::Immediate(_) => None,
        }));
        let (dims, strides) = merge(lens, &walks);
        self.split(&dims, &strides, &mut |lowering, dims, strides, offsets| {
            let walk = |operand: &ChipOperand, index: usize| operand.walk(&strides[index], offsets[index]);
            let mut next = 1;
            let sources = sources
                .iter()
                .map(|source| match source {
                    ChipSource::Immediate(number) => number.clone(),
                    ChipSource::Chip(operand) => {
                        next += 1;
                        Source::Walk(walk(operand, next - 1))
                    }
                })
                .collect();
            let dims = dims.iter().map(|&dim| dim as u32).collect();
            let destination = walk(destination, 0);
            lowering.emitter.emit(Operation::Map(Map { function, dims, destination, sources }));
        });
    }

    /// Appends a fold of a nest over its dimensions from `kept` on, along which the destination stands still.
    fn fold_nest(
        &mut self,
        function: FoldFn,
        lens: &[usize],
        kept: usize,
        accumulate: bool,
        destination: &ChipOperand,
        sources: &[ChipSource<'_>],
    ) {
        let mut walks: Vec<&ChipOperand> = vec![destination];
        walks.extend(sources.iter().filter_map(|source| match source {
            ChipSource::Chip(operand) => Some(*operand),
            ChipSource::Immediate(_) => None,
        }));
        // The kept and the folded part are merged apart from each other, since a fold must not run across them.
        let merge_part = |range: Range<usize>| {
            let part = |operand: &ChipOperand| ChipOperand {
                strides: operand.strides[range.clone()].to_vec(),
                ..operand.clone()
            };
            let parts: Vec<ChipOperand> = walks.iter().map(|operand| part(operand)).collect();
            merge(&lens[range.clone()], &parts.iter().collect::<Vec<_>>())
        };
        let (kept_dims, kept_strides) = merge_part(0..kept);
        let (folded_dims, folded_strides) = merge_part(kept..lens.len());
        let reduced = folded_dims.len() as u8;
        let dims: Vec<usize> = kept_dims.into_iter().chain(folded_dims).collect();
        let strides: Vec<Vec<i64>> =
            kept_strides.into_iter().zip(folded_strides).map(|(kept, folded)| [kept, folded].concat()).collect();
        self.split(&dims, &strides, &mut |lowering, dims, strides, offsets| {
            let mut next = 0;
            let sources = sources
                .iter()
                .map(|source| match source {
                    ChipSource::Immediate(number) => number.clone(),
                    ChipSource::Chip(operand) => {
                        next += 1;
                        Source::Walk(operand.walk(&strides[next], offsets[next]))
                    }
                })
                .collect();
            lowering.emitter.emit(Operation::Fold(Fold {
                function,
                dims: dims.iter().map(|&dim| dim as u32).collect(),
                reduced,
                accumulate,
                destination: destination.walk(&strides[0], offsets[0]),
                sources,
            }));
        });
    }

    /// Calls `emit` for stretches of a nest that are no deeper than the machine's.
    fn split(&mut self, dims: &[usize], strides: &[Vec<i64>], emit: &mut EmitStretch<'_, Self>) {
        let extra = dims.len().saturating_sub(super::isa::MAX_DIMS);
        let inner: Vec<Vec<i64>> = strides.iter().map(|strides| strides[extra..].to_vec()).collect();
        for tile in tile::tiles(&dims[..extra], &vec![1; extra]) {
            let offsets: Vec<i64> = strides.iter().map(|strides| tile.offset(&strides[..extra])).collect();
            emit(self, &dims[extra..], &inner, &offsets);
        }
    }
}

/// Emits a stretch of a nest: its dimensions, each operand's strides, and where each operand's stretch starts.
type EmitStretch<'a, L> = dyn FnMut(&mut L, &[usize], &[Vec<i64>], &[i64]) + 'a;

/// Bytes of one tile of a copy: large enough to hide the latency of DRAM, small enough to overlap reading and writing.
const COPY_TILE_BYTES: usize = 256 << 10;

/// A value's tile on chip.
#[derive(Clone, Debug)]
struct ChipOperand {
    memory: Memory,
    address: u32,
    dtype: DType,
    /// Distance between neighbours along each dimension of the tile, in elements.
    strides: Vec<i64>,
}

impl ChipOperand {
    /// The rest of the tile from an element on.
    fn part(&self, first: i64) -> ChipOperand {
        let address = self.address.wrapping_add_signed((first * element_bytes(self.dtype)) as i32);
        ChipOperand { address, ..self.clone() }
    }

    fn walk(&self, strides: &[i64], offset: i64) -> Walk {
        let element = element_bytes(self.dtype);
        Walk {
            memory: self.memory,
            address: self.address.wrapping_add_signed((offset * element) as i32),
            dtype: self.dtype,
            strides: strides.iter().map(|&stride| (stride * element) as i32).collect(),
        }
    }
}

/// An operand of an element-wise instruction.
enum ChipSource<'a> {
    Chip(&'a ChipOperand),
    Immediate(Source),
}

/// Drops dimensions of one step and merges neighbours along which every operand walks on regularly.
fn merge(lens: &[usize], operands: &[&ChipOperand]) -> (Vec<usize>, Vec<Vec<i64>>) {
    let mut dims: Vec<usize> = Vec::new();
    let mut strides: Vec<Vec<i64>> = vec![Vec::new(); operands.len()];
    for (axis, &len) in lens.iter().enumerate() {
        if len == 1 {
            continue;
        }
        let merges = dims.last().is_some()
            && operands.iter().zip(&strides).all(|(operand, strides)| {
                strides.last().is_some_and(|&outer| outer == operand.strides[axis] * len as i64)
            });
        if merges {
            if let Some(last) = dims.last_mut() {
                *last *= len;
            }
            for (operand, strides) in operands.iter().zip(&mut strides) {
                if let Some(last) = strides.last_mut() {
                    *last = operand.strides[axis];
                }
            }
        } else {
            dims.push(len);
            for (operand, strides) in operands.iter().zip(&mut strides) {
                strides.push(operand.strides[axis]);
            }
        }
    }
    (dims, strides)
}

/// What an element-wise node does, as the vector unit knows it.
pub(super) fn map_function(op: &Op) -> Option<MapFn> {
    match op {
        Op::Unary(unary) => Some(MapFn::Unary(unary.0)),
        Op::Binary(binary) => Some(MapFn::Binary(binary.0)),
        Op::Select(_) => Some(MapFn::Select),
        Op::Cast(_) => Some(MapFn::Copy),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
