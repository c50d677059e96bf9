//! Where everything lies: in DRAM weights first, as `packing` writes them, then inputs, results, and what kernels hand to
//! each other, which shares memory where lifetimes do not overlap; some of that stays on chip (`residence`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tcc_ir::{Anchor, DType, Def, Graph, Kernel, Plan, ValueId};

use super::packing::{PackedConstant, Source};
use super::residence::Residence;
use super::touch::DRAM_BLOCK_BYTES;
pub(super) use crate::stored::storage;

/// A memory and an address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Dram(u64),
    /// In the part of the scratchpad that kernels leave alone.
    Scratchpad(u32),
}

/// A dense buffer of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    pub place: Place,
    /// Element type as stored. Four-bit types take a byte; weights of the array are bf16.
    pub dtype: DType,
}

/// The places of all values.
pub(super) struct Layout {
    buffers: HashMap<ValueId, Buffer>,
    /// Constants in order of address.
    pub constants: Vec<PackedConstant>,
    /// Bytes of weights; everything writable lies behind.
    pub weights_bytes: u64,
    /// Bytes of everything that was placed.
    pub total_bytes: u64,
    /// Most bytes of hand-over buffers in use at a time.
    pub peak_activations: u64,
    /// What stays on chip.
    residence: Residence,
}

impl Layout {
    /// Places every value that kernels read from or write to memory.
    pub(super) fn new(plan: &Plan, array_operand: &dyn Fn(ValueId) -> bool, residence: Residence) -> Self {
        let graph = &plan.graph;
        let mut layout = Layout {
            buffers: HashMap::new(),
            constants: Vec::new(),
            weights_bytes: 0,
            total_bytes: 0,
            peak_activations: 0,
            residence,
        };
        let reads = reads(plan);
        layout.place_constants(plan, &reads, array_operand);
        layout.weights_bytes = layout.weights_bytes.next_multiple_of(DRAM_BLOCK_BYTES);
        let mut end = layout.weights_bytes;
        let mut place = |layout: &mut Layout, value: ValueId| {
            let dtype = storage(graph.ty(value).dtype);
            let bytes = (dtype.bytes(graph.shape(value).count()) as u64).max(1).next_multiple_of(DRAM_BLOCK_BYTES);
            layout.buffers.insert(value, Buffer { place: Place::Dram(end), dtype });
            end += bytes;
        };
        for &input in graph.inputs() {
            place(&mut layout, input);
        }
        for output in graph.outputs() {
            if !layout.buffers.contains_key(&output.value) {
                place(&mut layout, output.value);
            }
        }
        layout.place_activations(plan, &reads, end);
        layout
    }

    fn place_constants(&mut self, plan: &Plan, reads: &[Vec<ValueId>], array_operand: &dyn Fn(ValueId) -> bool) {
        let graph = &plan.graph;
        let mut used = vec![false; graph.value_count()];
        reads.iter().flatten().for_each(|value| used[value.index()] = true);
        graph.outputs().iter().for_each(|output| used[output.value.index()] = true);
        // What no kernel writes and is no input follows from constants.
        let mut written = vec![false; graph.value_count()];
        for kernel in &plan.kernels {
            kernel.outputs.iter().for_each(|&value| written[written_to(plan, kernel, value).index()] = true);
        }
        // The same bytes under several names are stored once.
        let mut known: HashMap<(usize, usize, DType, DType), u64> = HashMap::new();
        let mut shared: Option<Arc<Graph>> = None;
        let mut end = 0u64;
        for (id, value) in graph.values() {
            if !used[id.index()] || written[id.index()] {
                continue;
            }
            let source = match &value.def {
                Def::Input(_) => continue,
                Def::Constant(tensor) => Source::Tensor(tensor.clone()),
                Def::Node { .. } => Source::Derived(shared.get_or_insert_with(|| Arc::new(graph.clone())).clone(), id),
            };
            let own = value.ty.dtype;
            let dtype = if array_operand(id) && own == DType::F32 { DType::BF16 } else { storage(own) };
            let bytes = dtype.bytes(value.ty.shape.count()) as u64;
            let place = match &source {
                Source::Tensor(tensor) => {
                    tensor.bytes().ok().map(|bytes| (bytes.as_ptr().addr(), bytes.len(), own, dtype))
                }
                Source::Derived(..) => None,
            };
            if let Some(&address) = place.and_then(|place| known.get(&place)) {
                self.buffers.insert(id, Buffer { place: Place::Dram(address), dtype });
                continue;
            }
            if let Some(place) = place {
                known.insert(place, end);
            }
            self.buffers.insert(id, Buffer { place: Place::Dram(end), dtype });
            self.constants.push(PackedConstant { source, address: end, dtype });
            end += bytes.next_multiple_of(WEIGHT_ALIGNMENT);
        }
        self.weights_bytes = end;
    }

    /// First fit by order of kernels: a buffer is free again after the last kernel that reads it.
    fn place_activations(&mut self, plan: &Plan, reads: &[Vec<ValueId>], base: u64) {
        let graph = &plan.graph;
        let mut last_use: HashMap<ValueId, usize> = HashMap::new();
        for (kernel, values) in reads.iter().enumerate() {
            values.iter().for_each(|&value| {
                last_use.insert(value, kernel);
            });
        }
        let mut free = FreeList::default();
        let mut dying: Vec<Vec<(u64, u64)>> = vec![Vec::new(); plan.kernels.len()];
        let mut live = 0;
        for (index, kernel) in plan.kernels.iter().enumerate() {
            for &output in &kernel.outputs {
                let value = written_to(plan, kernel, output);
                if self.buffers.contains_key(&value) {
                    continue;
                }
                let dtype = storage(graph.ty(value).dtype);
                if let Some(address) = self.residence.place(value) {
                    self.buffers.insert(value, Buffer { place: Place::Scratchpad(address), dtype });
                    continue;
                }
                let bytes = (dtype.bytes(graph.shape(value).count()) as u64).max(1).next_multiple_of(DRAM_BLOCK_BYTES);
                let offset = free.take(bytes);
                live += bytes;
                self.peak_activations = self.peak_activations.max(live);
                self.buffers.insert(value, Buffer { place: Place::Dram(base + offset), dtype });
                let end = last_use.get(&value).copied().unwrap_or(index).max(index);
                dying[end].push((offset, bytes));
            }
            for &(offset, bytes) in &dying[index] {
                free.give(offset, bytes);
                live -= bytes;
            }
        }
        self.total_bytes = base + free.end;
    }

    /// Where a value lies, if it has a buffer of its own: the roots of all accesses that kernels use do.
    pub(super) fn buffer(&self, value: ValueId) -> Option<Buffer> {
        self.buffers.get(&value).copied()
    }

    /// Whether a buffer lies among the weights.
    pub(super) fn is_weight(&self, buffer: Buffer) -> bool {
        matches!(buffer.place, Place::Dram(address) if address < self.weights_bytes)
    }

    /// Bytes at the end of the scratchpad that are set aside for what stays on chip.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.residence.bytes()
    }

    /// Takes memory for a copy that only one kernel needs.
    pub(super) fn scratch(&mut self, bytes: u64) -> u64 {
        let address = self.total_bytes;
        self.total_bytes += bytes.max(1).next_multiple_of(DRAM_BLOCK_BYTES);
        address
    }
}

/// Alignment of weights, in bytes: the usual burst of DRAM. It does not depend on the machine, so that weights pack alike
/// for all.
const WEIGHT_ALIGNMENT: u64 = 64;

/// The value whose buffer an output of a kernel is written to.
pub(super) fn written_to(plan: &Plan, kernel: &Kernel, output: ValueId) -> ValueId {
    match &kernel.anchor {
        // Whatever its readers' accesses say, a copy fills a buffer that goes by the value itself.
        Anchor::Copy { .. } => output,
        _ => plan.access(output).root,
    }
}

/// The roots that each kernel reads from memory.
pub(super) fn reads(plan: &Plan) -> Vec<Vec<ValueId>> {
    let graph = &plan.graph;
    plan.kernels
        .iter()
        .map(|kernel| {
            // A concatenation may have very many operands.
            let own: HashSet<ValueId> = kernel.nodes().flat_map(|node| graph.node(node).outputs.to_vec()).collect();
            let mut known = own.clone();
            let mut roots: Vec<ValueId> = Vec::new();
            let mut read = |root: ValueId| {
                if known.insert(root) {
                    roots.push(root);
                }
            };
            if let Anchor::Copy { source, .. } = &kernel.anchor {
                read(source.root);
            }
            for node in kernel.nodes() {
                for &input in &graph.node(node).inputs {
                    if !own.contains(&input) {
                        read(plan.access(input).root);
                    }
                }
            }
            roots
        })
        .collect()
}

/// Free stretches of memory, by offset.
#[derive(Default)]
pub(super) struct FreeList {
    holes: BTreeMap<u64, u64>,
    end: u64,
}

impl FreeList {
    /// The first stretch that is large enough; memory grows where there is none.
    pub(super) fn take(&mut self, bytes: u64) -> u64 {
        let hole = self.hole(bytes);
        self.take_hole(hole, bytes)
    }

    /// [`FreeList::take`], unless memory would grow beyond `limit`.
    pub(super) fn take_within(&mut self, bytes: u64, limit: u64) -> Option<u64> {
        let hole = self.hole(bytes);
        (hole.is_some() || self.end + bytes <= limit).then(|| self.take_hole(hole, bytes))
    }

    /// The most that memory has grown to.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn hole(&self, bytes: u64) -> Option<(u64, u64)> {
        self.holes.iter().find(|&(_, &size)| size >= bytes).map(|(&offset, &size)| (offset, size))
    }

    fn take_hole(&mut self, hole: Option<(u64, u64)>, bytes: u64) -> u64 {
        match hole {
            Some((offset, size)) => {
                self.holes.remove(&offset);
                if size > bytes {
                    self.holes.insert(offset + bytes, size - bytes);
                }
                offset
            }
            None => {
                let offset = self.end;
                self.end += bytes;
                offset
            }
        }
    }

    /// Gives a stretch back.
    pub(super) fn give(&mut self, mut offset: u64, mut bytes: u64) {
        if let Some((&before, &size)) = self.holes.range(..offset).next_back()
            && before + size == offset
        {
            self.holes.remove(&before);
            offset = before;
            bytes += size;
        }
        if let Some(size) = self.holes.remove(&(offset + bytes)) {
            bytes += size;
        }
        self.holes.insert(offset, bytes);
    }
}
