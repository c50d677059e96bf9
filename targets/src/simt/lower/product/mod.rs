//! Matrix products: tiles that blocks compute from panels in shared memory (`tiled`), or rows of few elements that are multiplied
//! with weights as these come by (`vector`).

mod panel;
mod tiled;
mod vector;

use tcc_ir::ops::MatMul;
use tcc_ir::{DType, Graph, Node, ValueId};

use crate::kernel::{Builder, ExprId};
use crate::lower::elements::{Elements, defect};
use crate::lower::piece::Prologue;
use crate::lower::product::Product;
use crate::simt::SimtMachine;
use crate::target::TargetError;

pub(super) use panel::{vector_in, vector_of};
use tiled::Tiling;
use vector::Shares;

/// Rows up to which a product is one of vectors.
const VECTORS: usize = 8;

/// How a product is computed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Method {
    Tiled(Tiling),
    Vector(Shares),
}

/// Whether a product is one of few rows, so that weights are read once and in order.
pub(super) fn has_few_rows(graph: &Graph, node: &Node, product: &MatMul) -> bool {
    let [a, b] = [graph.ty(node.inputs[0]), graph.ty(node.inputs[1])];
    let is_float = a.dtype == b.dtype && matches!(a.dtype, DType::F32 | DType::F16 | DType::BF16);
    let Ok(dims) = product.dims(a, b) else { return false };
    let shared = b.shape.count() == dims.k * dims.n;
    let rows = if shared { dims.batch.count() * dims.m } else { dims.m };
    is_float && rows <= VECTORS && dims.n > 1 && !product.a_zero && !product.b_zero
}

/// Whether it is one of few rows, so that weights are read once and in order.
pub(super) fn is_of_vectors(product: &Product, graph: &Graph) -> bool {
    product.is_shared(graph) && product.m <= VECTORS && product.n > 1
}

/// Writes the kernel of a product; returns its grid and how it is tiled.
pub(super) fn product(
    elements: &mut Elements<'_>,
    products: &[Product],
    prologue: Option<&Prologue>,
    method: &Method,
    outputs: &[ValueId],
    machine: &SimtMachine,
) -> Result<([u32; 3], String), TargetError> {
    match method {
        Method::Tiled(tiling) => tiled::tiled(elements, &products[0], tiling, outputs, machine),
        Method::Vector(shares) => vector::vector(elements, products, prologue, *shares, outputs),
    }
}

impl Method {
    /// Ways to compute some products of the same rows, which blocks compute first or not; none where each thread is to compute
    /// elements by itself.
    pub fn all(
        elements: &Elements<'_>,
        products: &[Product],
        computes_rows: bool,
        machine: &SimtMachine,
    ) -> Vec<Method> {
        let (graph, product) = (elements.graph(), &products[0]);
        if is_of_vectors(product, graph) {
            return Shares::all(elements, products, computes_rows, machine).into_iter().map(Method::Vector).collect();
        }
        let dtypes = product.factors.map(|factor| graph.ty(factor).dtype);
        if !product.is_shared(graph) {
            return Vec::new();
        }
        Tiling::all(product, dtypes, machine).into_iter().map(Method::Tiled).collect()
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        match self {
            Method::Tiled(tiling) => tiling.threads(),
            Method::Vector(shares) => shares.threads(),
        }
    }
}

/// A sum's start.
fn zero(builder: &mut Builder, dtype: DType) -> ExprId {
    if dtype.is_float() { builder.float(dtype, 0.0) } else { builder.number(dtype, 0) }
}

/// That tiles do not fit, although they were chosen so that they do.
fn misfit() -> TargetError {
    defect("the tiles of a product do not fit")
}
