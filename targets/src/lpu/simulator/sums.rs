//! Sums of products: rows by the weights of a plane, several rows at a time.
//!
//! For each column the products are added in the order of lanes, one after another. So columns, not lanes, lie behind each
//! other in the registers of the host, and whatever registers it has, the sums are the same.

use pulp::{Arch, Simd, WithSimd};

/// Columns whose weights lie together: two registers, however large these are.
const WIDTH: usize = 32;

/// Rows that are worked on together: their sums, the weights and a value fit into 16 registers of eight numbers.
const ROWS: usize = 4;

/// A number that is multiplied and added.
pub(super) trait Factor: bytemuck::Pod + Default {
    /// As many as a register of the host holds.
    type Register<S: Simd>: bytemuck::Pod;

    /// As many registers as the numbers fill.
    fn registers<S: Simd>(numbers: &[Self]) -> &[Self::Register<S>];

    /// The same number everywhere.
    fn splat<S: Simd>(simd: S, number: Self) -> Self::Register<S>;

    /// The sum, rounded, with a product that is rounded before.
    fn add_product<S: Simd>(
        simd: S,
        sum: Self::Register<S>,
        a: Self::Register<S>,
        b: Self::Register<S>,
    ) -> Self::Register<S>;
}

macro_rules! factor {
    ($T:ident, $registers:ident, $slices:ident, $splat:ident, $add:ident, $mul:ident) => {
        impl Factor for $T {
            type Register<S: Simd> = S::$registers;

            #[inline(always)]
            fn registers<S: Simd>(numbers: &[$T]) -> &[S::$registers] {
                S::$slices(numbers).0
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, number: $T) -> S::$registers {
                simd.$splat(number)
            }

            #[inline(always)]
            fn add_product<S: Simd>(simd: S, sum: S::$registers, a: S::$registers, b: S::$registers) -> S::$registers {
                simd.$add(sum, simd.$mul(a, b))
            }
        }
    };
}

factor!(f32, f32s, as_simd_f32s, splat_f32s, add_f32s, mul_f32s);
// Of numbers with signs these are the same bits.
factor!(u32, u32s, as_simd_u32s, splat_u32s, add_u32s, mul_u32s);

/// Weights in the form in which they are multiplied: for each group of columns by lane, then by column.
#[derive(Debug)]
pub(super) struct Weights<T> {
    lanes: usize,
    /// Columns up to the last that is not 0 everywhere.
    columns: usize,
    weights: Vec<T>,
}

impl<T: Factor + PartialEq> Weights<T> {
    /// Weights of which `column` writes one column, by lanes.
    pub fn new(lanes: usize, columns: usize, mut column: impl FnMut(usize, &mut [T])) -> Self {
        let mut weights = vec![T::default(); lanes * columns.next_multiple_of(WIDTH)];
        let mut own = vec![T::default(); lanes];
        let mut used = 0;
        for number in 0..columns {
            column(number, &mut own);
            if own.iter().any(|weight| *weight != T::default()) {
                used = number + 1;
            }
            let group = &mut weights[number / WIDTH * WIDTH * lanes..][..WIDTH * lanes];
            for (weight, own) in group.iter_mut().skip(number % WIDTH).step_by(WIDTH).zip(&own) {
                *weight = *own;
            }
        }
        Weights { lanes, columns: used, weights }
    }

    /// All weights, and zeros.
    pub fn all(&self) -> &[T] {
        &self.weights
    }

    /// Multiplies rows, which have the lanes from `first` on, with these lanes of the weights, and puts the sums of each row
    /// into as many columns. `sparse` says that a product with a weight or a value of 0 is 0, and that these need not be
    /// looked at.
    pub fn sums<'a>(&self, rows: &[&[T]], first: usize, sparse: bool, sums: impl IntoIterator<Item = &'a mut [T]>) {
        let mut sums = sums.into_iter();
        for rows in rows.chunks(ROWS) {
            let mut lanes = rows.first().map_or(0, |row| row.len());
            if sparse {
                let used = |row: &&[T]| row.iter().rposition(|value| *value != T::default()).map_or(0, |last| last + 1);
                lanes = rows.iter().map(used).max().unwrap_or(0);
            }
            let mut together = vec![[T::default(); ROWS]; lanes];
            for (number, row) in rows.iter().enumerate() {
                together.iter_mut().zip(*row).for_each(|(values, value)| values[number] = *value);
            }
            let mut results: Vec<&mut [T]> = sums.by_ref().take(rows.len()).collect();
            for (group, weights) in self.weights.chunks_exact(WIDTH * self.lanes).enumerate() {
                let own = if sparse && group * WIDTH >= self.columns {
                    [[T::default(); WIDTH]; ROWS]
                } else {
                    let weights = &weights[first * WIDTH..][..lanes * WIDTH];
                    Arch::new().dispatch(Group { weights, rows: &together })
                };
                for (result, own) in results.iter_mut().zip(own) {
                    for (result, own) in result.iter_mut().skip(group * WIDTH).zip(own) {
                        *result = own;
                    }
                }
            }
        }
    }
}

/// One group of columns by some rows.
struct Group<'a, T> {
    /// By lane, then by column.
    weights: &'a [T],
    /// By lane.
    rows: &'a [[T; ROWS]],
}

impl<T: Factor> WithSimd for Group<'_, T> {
    type Output = [[T; WIDTH]; ROWS];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [[T; WIDTH]; ROWS] {
        let mut sums = [[T::default(); WIDTH]; ROWS];
        let width = size_of::<T::Register<S>>() / size_of::<T>();
        let weights = T::registers::<S>(self.weights);
        let registers = WIDTH / width;
        // Two registers of weights at a time.
        for pair in 0..registers / 2 {
            let zero = T::splat(simd, T::default());
            let mut own = [[zero; 2]; ROWS];
            for (values, weights) in self.rows.iter().zip(weights.chunks_exact(registers)) {
                let weights = [weights[2 * pair], weights[2 * pair + 1]];
                for (own, value) in own.iter_mut().zip(values) {
                    let value = T::splat(simd, *value);
                    *own = [
                        T::add_product(simd, own[0], value, weights[0]),
                        T::add_product(simd, own[1], value, weights[1]),
                    ];
                }
            }
            for (sums, own) in sums.iter_mut().zip(&own) {
                let own: &[T] = bytemuck::cast_slice(own);
                sums[2 * pair * width..][..2 * width].copy_from_slice(own);
            }
        }
        sums
    }
}
