//! The matrices of a product's batch: those that have the same B are rows of one product.
//!
//! Where several heads of queries share one of keys and values, B is a view that repeats its matrices: it has strides of 0 along a part
//! of the batch. That part is counted with the rows, so that what is read of B is read once for all of them.

use tcc_ir::{Plan, Shape};

use crate::kernel::ExprId;
use crate::lower::elements::{Coords, Elements};
use crate::lower::product::Product;

/// How the leading coordinates of a product are made of a matrix of B and a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The leading dimensions, each parted into what follows each other with growing distance.
    axes: Vec<Vec<Digit>>,
    /// Rows of one matrix of A.
    m: usize,
}

/// A part of a leading dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Digit {
    size: usize,
    /// Whether B is the same along it.
    repeats: bool,
}

impl Batch {
    /// That of a product.
    pub fn of(plan: &Plan, product: &Product) -> Batch {
        let b = product.factors[1];
        let groups = plan.access(b).view.groups();
        let missing = (product.batch.rank() + 2).saturating_sub(plan.graph.shape(b).rank());
        let digits = |(axis, &size): (usize, &usize)| {
            let whole = |repeats| vec![Digit { size, repeats }];
            let Some(own) = axis.checked_sub(missing) else { return whole(true) };
            match groups.as_ref().and_then(|groups| groups.get(own)) {
                _ if size == 1 => whole(false),
                Some(atoms) if atoms.iter().map(|atom| atom.size).product::<usize>() == size => {
                    let mut digits: Vec<Digit> = Vec::new();
                    for atom in atoms {
                        let repeats = atom.stride == 0;
                        match digits.last_mut() {
                            Some(last) if last.repeats == repeats => last.size *= atom.size,
                            _ => digits.push(Digit { size: atom.size, repeats }),
                        }
                    }
                    digits
                }
                // A dimension of one element that broadcasts.
                Some(atoms) if atoms.is_empty() => whole(true),
                _ => whole(false),
            }
        };
        Batch { axes: product.batch.iter().enumerate().map(digits).collect(), m: product.m }
    }

    fn shape(&self, repeats: bool) -> Shape {
        let own = self.axes.iter().flatten().filter(|digit| digit.repeats == repeats);
        Shape::new(own.map(|digit| digit.size)).unwrap_or_default()
    }

    /// Matrices of B.
    pub fn matrices(&self) -> usize {
        self.shape(false).count()
    }

    /// Rows that are multiplied with each of them.
    pub fn rows(&self) -> usize {
        self.shape(true).count() * self.m
    }

    /// The leading coordinates of B's matrix of a number.
    pub fn of_matrix(&self, elements: &mut Elements<'_>, matrix: ExprId) -> Coords {
        let zero = elements.builder.integer(0);
        self.coords(elements, matrix, zero)
    }

    /// The leading coordinates, and the row among those of A's matrix, of a row of those that are multiplied with a matrix of B.
    pub fn of_row(&self, elements: &mut Elements<'_>, matrix: ExprId, row: ExprId) -> (Coords, ExprId) {
        let (repeat, row) = match self.shape(true).count() {
            1 => (elements.builder.integer(0), row),
            _ => elements.builder.divided(row, self.m as i32),
        };
        (self.coords(elements, matrix, repeat), row)
    }

    fn coords(&self, elements: &mut Elements<'_>, matrix: ExprId, repeat: ExprId) -> Coords {
        let [own, repeated] =
            [(false, matrix), (true, repeat)].map(|(repeats, number)| elements.coords_of(&self.shape(repeats), number));
        let (mut own, mut repeated) = (own.into_iter(), repeated.into_iter());
        let builder = &mut elements.builder;
        let zero = builder.integer(0);
        let axes = self.axes.iter().map(|digits| {
            digits.iter().fold(zero, |coord, digit| {
                let next = if digit.repeats { repeated.next() } else { own.next() };
                let before = builder.scaled(coord, digit.size as i32);
                builder.add(before, next.unwrap_or(zero))
            })
        });
        axes.collect()
    }

    /// How many products of what size these are, in words.
    pub fn about(&self, product: &Product) -> String {
        let matrices = self.matrices();
        let many = if matrices == 1 { String::new() } else { format!("{matrices} of ") };
        format!("{many}{}x{}x{} (rows, columns, depth)", self.rows(), product.n, product.k)
    }
}
