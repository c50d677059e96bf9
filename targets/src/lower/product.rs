//! Matrix products, as the kernels that are built around them see them.

use tcc_ir::ops::MatMul;
use tcc_ir::{DType, Graph, NodeId, Op, Plan, Shape, ValueId};

use super::elements::{Coords, Elements};
use super::piece::{Piece, Work};
use super::quantized::{Constants, Quantized};
use crate::kernel::ExprId;

/// A product that is the anchor of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub op: MatMul,
    /// Whether elements of each factor that follow each other along what is summed over lie beside each other in memory.
    pub runs_along_k: [bool; 2],
    /// A and B.
    pub factors: [ValueId; 2],
    pub result: ValueId,
    /// Leading dimensions of products with factors of their own.
    pub batch: Shape,
    /// What rows are counted over: the leading dimensions too where all have the same B.
    pub rows: Shape,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// What sums are kept as.
    pub sum: DType,
    /// B, if it follows from fewer bits that lie beside each other along what is summed over.
    pub quantized: Option<Quantized>,
}

impl Product {
    /// The products of a piece, if it is built around such: all of the same rows, with results of one shape.
    pub fn all_of(plan: &Plan, constants: &Constants, piece: &Piece) -> Option<Vec<Product>> {
        let graph = &plan.graph;
        let is_product = |id: &NodeId| matches!(graph.node(*id).op, Op::MatMul(_));
        let starts = piece.work == Work::Elements && piece.nodes.first().is_some_and(is_product);
        let nodes = piece.nodes.iter().copied().filter(is_product);
        let products: Vec<Product> = nodes.map(|id| Product::of(plan, constants, id)).collect::<Option<_>>()?;
        let shape = graph.shape(products.first().filter(|_| starts)?.result);
        let fits = piece.outputs.iter().all(|&output| graph.shape(output) == shape);
        let alike = products.iter().all(|product| product.is_like(&products[0], plan));
        (fits && alike).then_some(products)
    }

    pub fn of(plan: &Plan, constants: &Constants, id: NodeId) -> Option<Product> {
        let graph = &plan.graph;
        let Op::MatMul(op) = &graph.node(id).op else { return None };
        let inputs = &graph.node(id).inputs;
        let result = graph.node(id).output();
        let dims = op.dims(graph.ty(inputs[0]), graph.ty(inputs[1])).ok()?;
        let plain = !op.a_zero && !op.b_zero && graph.shape(result).count() > 0;
        let turned = [op.transpose_a, !op.transpose_b];
        let mut runs_along_k = [0, 1].map(|factor| runs(plan, inputs[factor], !turned[factor]));
        let quantized = constants.quantized(inputs[1]);
        let lies_along_k = |quantized: &&Quantized| quantized.turned != op.transpose_b;
        runs_along_k[1] = quantized.map_or(runs_along_k[1], |quantized| lies_along_k(&quantized));
        let shared = graph.shape(inputs[1]).count() == dims.k * dims.n;
        let ones = || Shape::new(dims.batch.iter().map(|_| 1)).unwrap_or_default();
        let lead = if shared { dims.batch.clone() } else { ones() };
        let rows = Shape::new(lead.iter().copied().chain([dims.m])).ok()?;
        plain.then(|| Product {
            op: *op,
            runs_along_k,
            factors: [inputs[0], inputs[1]],
            result,
            batch: if shared { ones() } else { dims.batch.clone() },
            m: rows.count(),
            rows,
            n: dims.n,
            k: dims.k,
            sum: MatMul::result_dtype(graph.ty(inputs[0]).dtype),
            quantized: quantized.filter(lies_along_k).cloned(),
        })
    }

    /// Whether it is of the same rows as another, with weights of the same form.
    pub fn is_like(&self, other: &Product, plan: &Plan) -> bool {
        let form = |product: &Product| {
            let weights = product.factors[1];
            let ty = plan.graph.ty(weights);
            let access = plan.access(weights);
            let quantized = product.quantized.as_ref().map(Quantized::form);
            (ty.clone(), access.view.clone(), plan.graph.ty(access.root).dtype, quantized)
        };
        let same = (self.op, self.factors[0], &self.rows, self.n, self.k, self.sum, &self.batch)
            == (other.op, other.factors[0], &other.rows, other.n, other.k, other.sum, &other.batch);
        same && form(self) == form(other)
    }

    /// Whether it is computed in tiles or by vectors; not where each thread is to compute elements by itself.
    pub fn is_shared(&self, graph: &Graph) -> bool {
        let dtypes = self.factors.map(|factor| graph.ty(factor).dtype);
        let is_narrow =
            |dtype: DType| matches!(dtype, DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I4 | DType::U4);
        let known = dtypes[0] == dtypes[1] && matches!(dtypes[0], DType::F32 | DType::F16 | DType::BF16)
            || dtypes.iter().all(|&dtype| is_narrow(dtype));
        known && self.k > 0
    }

    /// The leading coordinates and the row that a number of a row stands for.
    fn row(&self, elements: &mut Elements<'_>, lead: &[ExprId], row: ExprId) -> Coords {
        if self.rows.count() == self.rows[self.rows.rank() - 1] {
            return lead.iter().copied().chain([row]).collect();
        }
        elements.coords_of(&self.rows.clone(), row)
    }

    /// The coordinates of a factor's element, by its place in its matrix: of A a row and what is summed over, of B that and a
    /// column.
    pub fn coords(
        &self,
        elements: &mut Elements<'_>,
        factor: usize,
        lead: &[ExprId],
        first: ExprId,
        second: ExprId,
    ) -> Coords {
        let mut all =
            if factor == 0 { self.row(elements, lead, first) } else { lead.iter().copied().chain([first]).collect() };
        all.push(second);
        let last = all.len() - 1;
        if if factor == 0 { self.op.transpose_a } else { self.op.transpose_b } {
            all.swap(last - 1, last);
        }
        let shape = elements.graph().shape(self.factors[factor]);
        let lead = all.len() - shape.rank();
        all[lead..].iter().copied().collect()
    }

    /// The coordinates of an element of the result.
    pub fn result_coords(&self, elements: &mut Elements<'_>, lead: &[ExprId], row: ExprId, column: ExprId) -> Coords {
        let mut coords = self.row(elements, lead, row);
        coords.push(column);
        // Along a dimension of one element there is one coordinate, however it was come by: what is held is found by it.
        let zero = elements.builder.integer(0);
        let shape = elements.graph().shape(self.result);
        shape.iter().zip(coords).map(|(&size, coord)| if size == 1 { zero } else { coord }).collect()
    }

    /// Whether what is summed over is the last dimension of a factor.
    pub fn sums_along_last(&self, factor: usize) -> bool {
        if factor == 0 { !self.op.transpose_a } else { self.op.transpose_b }
    }
}

/// Whether elements that follow each other along the last dimension of a value, or the one before, lie beside each other.
fn runs(plan: &Plan, value: ValueId, last: bool) -> bool {
    let groups = plan.access(value).view.groups().unwrap_or_default();
    let along = groups.len().checked_sub(if last { 1 } else { 2 }).and_then(|axis| groups[axis].last());
    along.is_some_and(|atom| atom.stride == 1)
}
