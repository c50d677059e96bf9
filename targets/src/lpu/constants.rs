//! What memory holds before a program starts, besides its inputs: the weights of the model and what follows from them.
//!
//! Constants are placed while a program is made, and read, computed and converted only when they are written.

use std::io::{self, Write};
use std::sync::Arc;

use half::f16;
use tcc_ir::{DType, Graph, Tensor, ValueId, evaluate_constant};

use super::layout::{Layout, Place};
use super::program::Stretch;
use crate::stored::stored_bytes;

/// Columns of weights as planes of the matrix unit load them.
///
/// A tile is as many columns as a vector has lanes, of as many elements of the K-dimension. Columns that are loaded together lie in
/// slices beside each other, with the byte planes of all of them behind each other.
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
}

impl Tiles {
    /// Tiles along the K-dimension.
    pub fn k_blocks(&self) -> usize {
        self.k.div_ceil(self.lanes)
    }

    /// Vectors in each slice for so many products.
    pub fn depth(dtype: DType, batch: usize, k: usize, n: usize, lanes: usize, slices: usize) -> usize {
        batch * k.div_ceil(lanes) * n.div_ceil(slices) * (dtype.bits() / 8)
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
    /// Some of its rows: the first, and how many.
    Rows(Arc<Graph>, ValueId, usize, usize),
    /// Bytes as they are stored.
    Bytes(Vec<u8>),
}

/// How a constant lies in memory.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// As rows.
    Rows(Arc<Layout>),
    /// As weights.
    Tiles(Arc<Tiles>),
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
            Form::Rows(layout) => {
                let Layout { dtype, rows, columns, lanes, stripes, .. } = **layout;
                (&layout.slices, Layout::depth(dtype, rows, columns, lanes, stripes))
            }
            Form::Tiles(tiles) => {
                let Tiles { dtype, batch, k, n, lanes, .. } = **tiles;
                (&tiles.slices, Tiles::depth(dtype, batch, k, n, lanes, tiles.slices.len()))
            }
        };
        let stretch = |&place: &Place| Stretch { place, vectors: depth as u32 };
        if depth == 0 { Vec::new() } else { places.iter().map(stretch).collect() }
    }

    /// Elements of a row.
    fn columns(&self) -> usize {
        match &self.form {
            Form::Rows(layout) => layout.columns,
            Form::Tiles(tiles) => tiles.k,
        }
    }

    /// Writes its vectors, in the order of its stretches.
    ///
    /// # Errors
    /// The weights were not loaded, cannot be computed, or cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let dtype = match &self.form {
            Form::Rows(layout) => layout.dtype,
            Form::Tiles(tiles) => tiles.dtype,
        };
        let elements = match &self.source {
            Source::Bytes(bytes) => bytes.clone(),
            Source::Value(graph, value) => stored(&constant(graph, *value)?, dtype)?,
            Source::Rows(graph, value, first, count) => {
                let tensor = constant(graph, *value)?;
                let row = self.columns() * dtype.bits() / 8;
                stored(&tensor, dtype)?[first * row..(first + count) * row].to_vec()
            }
            Source::Picked(graph, value, positions) => {
                let (bytes, size) = (stored(&constant(graph, *value)?, dtype)?, dtype.bits() / 8);
                positions().into_iter().flat_map(|at| bytes[at as usize * size..][..size].to_vec()).collect()
            }
            Source::Transposed(graph, value) => {
                let tensor = constant(graph, *value)?;
                let bytes = stored(&tensor, dtype)?;
                match &self.form {
                    Form::Tiles(tiles) => transposed(&bytes, tiles.batch, tiles.k, tiles.n, dtype.bits() / 8),
                    Form::Rows(layout) => {
                        let n = tensor.shape().iter().rev().nth(1).copied().unwrap_or(1);
                        let batch = layout.rows * layout.columns / (layout.columns * n).max(1);
                        transposed(&bytes, batch, layout.columns, n, dtype.bits() / 8)
                    }
                }
            }
        };
        match &self.form {
            Form::Tiles(tiles) => tiles.pack(&elements).iter().try_for_each(|slice| out.write_all(slice)),
            Form::Rows(layout) => pack_rows(layout, &elements).iter().try_for_each(|slice| out.write_all(slice)),
        }
    }
}

/// The vectors of each slice of a layout.
fn pack_rows(layout: &Layout, elements: &[u8]) -> Vec<Vec<u8>> {
    let Layout { dtype, rows, columns, lanes, stripes, .. } = *layout;
    let depth = Layout::depth(dtype, rows, columns, lanes, stripes);
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
