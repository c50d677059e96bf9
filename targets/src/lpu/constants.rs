//! What memory holds before a program starts, besides its inputs: the weights of the model and what follows from them.
//!
//! Constants are placed while a program is made, and read, computed and converted only when they are written.

use std::io::{self, Write};
use std::sync::Arc;

use half::f16;
use tcc_ir::{DType, Data, Graph, Shape, Tensor, TensorType, ValueId, evaluate_constant};

use super::layout::{Layout, Place};
use super::program::Stretch;
use super::shelf::{Shelf, Slot, Slots};
use crate::stored::stored_bytes;

/// Columns of weights as planes of the matrix unit load them.
///
/// A tile is as many columns as a vector has lanes, of as many elements of the K-dimension. Columns that are loaded together lie in
/// slices beside each other, with the byte planes of all of them behind each other. What columns of halves have behind their whole
/// vectors lies on the shelf.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tiles {
    /// Elements as they are multiplied: bytes, or f16.
    pub dtype: DType,
    /// Number of products with weights of their own.
    pub batch: usize,
    /// The K-dimension.
    pub k: usize,
    /// Columns of a product.
    pub n: usize,
    /// Lanes of a vector.
    pub lanes: usize,
    /// One for each column that is loaded in a cycle.
    pub slices: Vec<Place>,
    /// Where the rests of the tiles' columns lie on the shelf; of bytes there are none.
    pub slots: Vec<Slots>,
    /// The shelf.
    pub shelf: Arc<Shelf>,
}

impl Tiles {
    /// Tiles along the K-dimension, but for what is on the shelf.
    pub fn k_blocks(&self) -> usize {
        Tiles::blocks(self.dtype, self.k, self.lanes)
    }

    fn blocks(dtype: DType, k: usize, lanes: usize) -> usize {
        if dtype == DType::F16 { k / lanes } else { k.div_ceil(lanes) }
    }

    /// Vectors in each slice for so many products.
    pub fn depth(dtype: DType, batch: usize, k: usize, n: usize, lanes: usize, slices: usize) -> usize {
        batch * Tiles::blocks(dtype, k, lanes) * n.div_ceil(slices) * (dtype.bits() / 8)
    }

    /// Where the columns lie that are loaded in one cycle: the `load`-th of a tile, of a byte plane.
    pub fn load(&self, batch: usize, n_block: usize, k_block: usize, load: usize, plane: usize) -> Vec<Place> {
        let per_tile = self.lanes / self.slices.len();
        let loads = self.n.div_ceil(self.slices.len());
        let planes = self.dtype.bits() / 8;
        let column = n_block * per_tile + load;
        let offset = ((batch * self.k_blocks() + k_block) * loads + column) * planes + plane;
        let at = |place: &Place| Place { slice: place.slice, address: place.address + offset as u16 };
        self.slices.iter().map(at).collect()
    }

    /// The rests of a tile's columns.
    pub fn slots(&self, batch: usize, n_block: usize) -> &[Slot] {
        let tiles = self.n.div_ceil(self.lanes);
        self.slots.get(batch * tiles + n_block).map_or(&[], |slots| slots)
    }

    /// The vectors of each slice, from row-major columns: `n` rows of `k` elements for each product.
    fn pack(&self, elements: &[u8]) -> Vec<Vec<u8>> {
        let planes = self.dtype.bits() / 8;
        let width = self.slices.len();
        let loads = self.n.div_ceil(width);
        let depth = Tiles::depth(self.dtype, self.batch, self.k, self.n, self.lanes, width);
        let mut slices = vec![vec![0u8; depth * self.lanes]; width];
        for batch in 0..self.batch {
            for column in 0..self.n {
                let row = &elements[(batch * self.n + column) * self.k * planes..][..self.k * planes];
                let slice = &mut slices[column % width];
                for k_block in 0..self.k_blocks() {
                    let from = k_block * self.lanes;
                    let count = (self.k - from).min(self.lanes);
                    for plane in 0..planes {
                        let at = ((batch * self.k_blocks() + k_block) * loads + column / width) * planes + plane;
                        let vector = &mut slice[at * self.lanes..][..count];
                        for (lane, byte) in vector.iter_mut().enumerate() {
                            *byte = row[(from + lane) * planes + plane];
                        }
                    }
                }
            }
        }
        slices
    }

    /// Puts rests of columns where they lie among the vectors of each slice of each of the shelf's stretches.
    fn shelve(&self, elements: &[u8], stretches: &mut [Vec<Vec<u8>>]) {
        let (planes, width) = (self.shelf.planes, self.slices.len());
        for batch in 0..self.batch {
            for column in 0..self.n {
                let row = &elements[(batch * self.n + column) * self.k * planes..][..self.k * planes];
                for slot in self.slots(batch, column / self.lanes) {
                    let group = slot.group + column % self.lanes / width;
                    let slice = &mut stretches[group / self.shelf.groups][column % width];
                    let lane = slot.lanes.first(slot.count, self.lanes);
                    for plane in 0..planes {
                        let at = (group % self.shelf.groups) * planes + plane;
                        let vector = &mut slice[at * self.lanes + lane..][..slot.count];
                        for (index, byte) in vector.iter_mut().enumerate() {
                            *byte = row[(slot.from + index) * planes + plane];
                        }
                    }
                }
            }
        }
    }
}

/// Where the elements of a constant come from.
#[derive(Clone)]
pub(super) enum Source {
    /// A value of a graph that is a constant or follows from constants.
    Value(Arc<Graph>, ValueId),
    /// The same, with its last two axes exchanged.
    Transposed(Arc<Graph>, ValueId),
    /// Elements of such a value: their positions, found when they are wanted.
    Picked(Arc<Graph>, ValueId, Arc<dyn Fn() -> Vec<i64> + Send + Sync>),
    /// A part of a table: the first columns of some of its rows, and then a row of zeros.
    Heads(Arc<Graph>, ValueId, Part),
    /// The other columns of some of a table's rows, two rows beside each other in a vector's halves, and then a row of zeros.
    Tails(Arc<Graph>, ValueId, Part),
    /// Bytes as they are stored.
    Bytes(Vec<u8>),
    /// The columns of several weights.
    Columns(Vec<(Source, Arc<Tiles>)>),
}

/// Rows of a table that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The first of them.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// Elements of a row of the table.
    pub columns: usize,
    /// Of these, the elements that are in its head.
    pub head: usize,
}

/// How a constant lies in memory.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// As rows.
    Rows(Arc<Layout>),
    /// As weights.
    Tiles(Arc<Tiles>),
    /// What weights have behind their whole vectors, so many lanes of a vector.
    Shelf(Arc<Shelf>, usize),
}

/// A constant.
#[derive(Clone)]
pub(super) struct Constant {
    pub source: Source,
    pub form: Form,
}

impl Constant {
    /// Where its vectors go.
    pub fn stretches(&self) -> Vec<Stretch> {
        let (places, depth) = match &self.form {
            Form::Rows(layout) => (layout.slices.clone(), layout.depth()),
            Form::Tiles(tiles) => {
                let Tiles { dtype, batch, k, n, lanes, .. } = **tiles;
                (tiles.slices.clone(), Tiles::depth(dtype, batch, k, n, lanes, tiles.slices.len()))
            }
            Form::Shelf(shelf, _) => (shelf.stretches.concat(), shelf.depth()),
        };
        let stretch = |place: Place| Stretch { place, vectors: depth as u32 };
        if depth == 0 { Vec::new() } else { places.into_iter().map(stretch).collect() }
    }

    /// Whether it is of a table whose elements are halves here and wider floats in the model.
    pub fn is_rounded_table(&self) -> bool {
        match (&self.source, &self.form) {
            (Source::Heads(graph, value, _) | Source::Tails(graph, value, _), Form::Rows(layout)) => {
                layout.dtype == DType::F16 && graph.ty(*value).dtype != DType::F16
            }
            _ => false,
        }
    }

    /// Writes its vectors, in the order of its stretches.
    ///
    /// # Errors
    /// The weights were not loaded, cannot be computed, or cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.form {
            Form::Tiles(tiles) => {
                let slices = tiles.pack(&self.source.columns(tiles)?);
                slices.iter().try_for_each(|slice| out.write_all(slice))
            }
            Form::Rows(layout) => {
                let slices = pack_rows(layout, &self.source.rows(layout)?);
                slices.iter().try_for_each(|slice| out.write_all(slice))
            }
            Form::Shelf(shelf, lanes) => {
                let slice = vec![0u8; shelf.depth() * lanes];
                let mut stretches: Vec<Vec<Vec<u8>>> =
                    shelf.stretches.iter().map(|stretch| vec![slice.clone(); stretch.len()]).collect();
                if let Source::Columns(weights) = &self.source {
                    for (source, tiles) in weights {
                        tiles.shelve(&source.columns(tiles)?, &mut stretches);
                    }
                }
                stretches.iter().flatten().try_for_each(|slice| out.write_all(slice))
            }
        }
    }
}

impl Source {
    /// The elements as rows of a layout.
    fn rows(&self, layout: &Layout) -> io::Result<Vec<u8>> {
        let Layout { dtype, rows, columns, lanes, .. } = *layout;
        match self {
            Source::Bytes(bytes) => Ok(bytes.clone()),
            Source::Value(graph, value) => stored(&constant(graph, *value)?, dtype),
            Source::Heads(graph, value, part) => Ok(part.heads(&part.rows(&constant(graph, *value)?, dtype)?, dtype)),
            Source::Tails(graph, value, part) => {
                Ok(part.tails(&part.rows(&constant(graph, *value)?, dtype)?, dtype, lanes))
            }
            Source::Picked(graph, value, positions) => {
                let (bytes, size) = (stored(&constant(graph, *value)?, dtype)?, dtype.bits() / 8);
                Ok(positions().into_iter().flat_map(|at| bytes[at as usize * size..][..size].to_vec()).collect())
            }
            Source::Transposed(graph, value) => {
                let tensor = constant(graph, *value)?;
                let n = tensor.shape().iter().rev().nth(1).copied().unwrap_or(1);
                let batch = rows * columns / (columns * n).max(1);
                Ok(transposed(&stored(&tensor, dtype)?, batch, columns, n, dtype.bits() / 8))
            }
            Source::Columns(_) => Err(io::Error::other("several weights are no rows; please report this")),
        }
    }

    /// The elements as columns of weights.
    fn columns(&self, tiles: &Tiles) -> io::Result<Vec<u8>> {
        let Tiles { dtype, batch, k, n, .. } = *tiles;
        match self {
            Source::Value(graph, value) => stored(&constant(graph, *value)?, dtype),
            Source::Transposed(graph, value) => {
                Ok(transposed(&stored(&constant(graph, *value)?, dtype)?, batch, k, n, dtype.bits() / 8))
            }
            Source::Bytes(_) | Source::Picked(..) | Source::Heads(..) | Source::Tails(..) | Source::Columns(_) => {
                Err(io::Error::other("these elements are no weights; please report this"))
            }
        }
    }
}

impl Part {
    /// The rows as they are stored.
    fn rows(&self, table: &Tensor, dtype: DType) -> io::Result<Vec<u8>> {
        if table.dtype().bits() < 8 {
            let row = self.columns * dtype.bits() / 8;
            return Ok(stored(table, dtype)?[self.first * row..(self.first + self.count) * row].to_vec());
        }
        // Only these are converted: tables are large.
        let row = self.columns * table.dtype().bits() / 8;
        let bytes = table.bytes().map_err(io::Error::other)?;
        let bytes = bytes[self.first * row..(self.first + self.count) * row].to_vec();
        let shape = Shape::new([self.count, self.columns]).map_err(io::Error::other)?;
        let rows = Tensor::new(TensorType::new(table.dtype(), shape), Data::from_bytes(bytes));
        stored(&rows.map_err(io::Error::other)?, dtype)
    }

    fn heads(&self, rows: &[u8], dtype: DType) -> Vec<u8> {
        let size = dtype.bits() / 8;
        let own = rows.chunks_exact((self.columns * size).max(1)).flat_map(|row| &row[..self.head * size]);
        own.copied().chain(std::iter::repeat_n(0, self.head * size)).collect()
    }

    fn tails(&self, rows: &[u8], dtype: DType, lanes: usize) -> Vec<u8> {
        let size = dtype.bits() / 8;
        let half = lanes / 2 * size;
        let mut result = vec![0; (self.count.div_ceil(2) + 1) * 2 * half];
        for (row, to) in rows.chunks_exact((self.columns * size).max(1)).zip(result.chunks_exact_mut(half.max(1))) {
            let tail = &row[self.head * size..];
            to[..tail.len()].copy_from_slice(tail);
        }
        result
    }
}

/// The vectors of each slice of a layout.
fn pack_rows(layout: &Layout, elements: &[u8]) -> Vec<Vec<u8>> {
    let Layout { columns, lanes, .. } = *layout;
    let depth = layout.depth();
    let planes = layout.planes();
    let mut slices = vec![vec![0u8; depth * lanes]; layout.slices.len()];
    for (place, row, block, plane) in layout.vectors() {
        // A layout has each slice once.
        let index = layout.slices.iter().position(|own| own.slice == place.slice).unwrap_or(0);
        let at = usize::from(place.address - layout.slices[index].address);
        let vector = &mut slices[index][at * lanes..][..lanes];
        let row = &elements[row * columns * planes..][..columns * planes];
        if layout.is_splat() {
            vector.fill(row[plane]);
        } else {
            let elements = row.chunks_exact(planes).skip(block * lanes);
            vector.iter_mut().zip(elements).for_each(|(lane, element)| *lane = element[plane]);
        }
    }
    slices
}

fn constant(graph: &Graph, value: ValueId) -> io::Result<Tensor> {
    match graph.as_constant(value) {
        Some(tensor) => Ok(tensor.clone()),
        None => evaluate_constant(graph, value).map_err(io::Error::other),
    }
}

/// The elements of a tensor as the machine stores them; halves may stand for wider floats.
fn stored(tensor: &Tensor, dtype: DType) -> io::Result<Vec<u8>> {
    if dtype != DType::F16 || tensor.dtype() == dtype {
        return stored_bytes(tensor, dtype);
    }
    let numbers = tensor.to_f64s().map_err(io::Error::other)?;
    Ok(numbers.into_iter().flat_map(|number| f16::from_f32(number as f32).to_le_bytes()).collect())
}

/// Matrices with rows and columns exchanged.
fn transposed(bytes: &[u8], batch: usize, rows: usize, columns: usize, size: usize) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    for matrix in bytes.chunks_exact((rows * columns * size).max(1)).take(batch) {
        for column in 0..columns {
            for row in 0..rows {
                result.extend_from_slice(&matrix[(row * columns + column) * size..][..size]);
            }
        }
    }
    result
}
