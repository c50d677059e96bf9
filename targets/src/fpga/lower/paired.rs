//! Two products of integers of few bits by one multiplication.
//!
//! The multiplier of a DSP slice is wider than two numbers of 8 bits: x 2^18 + y, times w, is x w 2^18 + y w (the idea of AMD's white
//! paper WP486), and so is that of a number of 16 bits with two of 4, with another distance. Sums of some such products are sums of
//! both, as long as that of the lower stays within the bits that it has. Where it may be negative, it is begun with the half of what
//! these hold, so that it borrows nothing from the upper.

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::power_in;
use crate::fpga::operators::MULTIPLIER;
use crate::fpga::widths::Range;
use crate::kernel::{Builder, ExprId, Scalar};

/// Products that are added before the sums are parted, at the most.
const MOST_STEPS: u32 = 4;

/// How two products that share a factor are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fpga) struct Paired {
    /// Products that are added before the sums are parted, a power of two.
    pub steps: u32,
    /// Bits of the lower sum.
    lower: u32,
    /// What both sums begin with.
    start: i64,
}

impl Paired {
    /// For two numbers of a type, and the factor that they share.
    pub fn of([two, shared]: [DType; 2]) -> Option<Paired> {
        let is_integer = two.is_integer() && shared.is_integer();
        is_integer.then(|| Paired::of_ranges([two, shared].map(Range::of_dtype))).flatten()
    }

    /// For two numbers of a range, and the factor that they share: with as many steps as go, and then as few bits.
    pub fn of_ranges([two, shared]: [Range; 2]) -> Option<Paired> {
        let bits = |range: Range| range.or(Range::one(-1)).form().bits();
        let product = two.times(shared);
        let of = |(steps, lower): (u32, u32)| {
            let start = if product.low < 0 { 1 << (lower - 1) } else { 0 };
            let sum = product.times(Range::one(i128::from(steps))).plus(Range::one(i128::from(start)));
            let both = two.times(Range::one(1 << lower)).plus(two);
            let fits = bits(both) <= MULTIPLIER[0] && Range::new(0, (1 << lower) - 1).holds(sum);
            fits.then_some(Paired { steps, lower, start })
        };
        let steps = (0..=MOST_STEPS.ilog2()).rev().map(|power| 1 << power);
        let mut all = steps.flat_map(|steps| (1..MULTIPLIER[0]).map(move |lower| (steps, lower)));
        (bits(shared) <= MULTIPLIER[1]).then(|| all.find_map(of)).flatten()
    }

    /// Two numbers as one, of registers that hold integers of a type.
    pub fn both(self, builder: &mut Builder, held: DType, [upper, lower]: [ExprId; 2]) -> ExprId {
        let [upper, lower] = [upper, lower].map(|x| builder.convert_register(held, DType::I64, x));
        let by = builder.number(DType::I64, 1 << self.lower);
        let upper = builder.binary(BinaryFn::Mul, DType::I64, upper, by);
        let both = builder.binary(BinaryFn::Add, DType::I64, upper, lower);
        builder.keep("both", Scalar::I64, both)
    }

    /// What sums of products begin with.
    pub fn start(self, builder: &mut Builder) -> ExprId {
        builder.number(DType::I64, self.start as u64)
    }

    /// Adds up pairs of products of so many steps: `factors` gives, for a step, the two numbers as one and the factor that they share,
    /// both in variables of 64 bits; `add` takes the upper and the lower sum of some of the steps.
    pub fn add_up(
        self,
        builder: &mut Builder,
        (steps, to): (u32, DType),
        factors: impl FnOnce(&mut Builder, ExprId) -> [ExprId; 2],
        add: impl FnOnce(&mut Builder, [ExprId; 2]),
    ) {
        let few = power_in(steps as usize, self.steps);
        let groups = steps / few;
        let group = if groups == 1 { builder.integer(0) } else { builder.unrolled("group", groups) };
        let start = self.start(builder);
        let sums = builder.declare("two_sums", Scalar::I64, start);
        let step = builder.unrolled("step", few);
        let step = builder.place(group, &[(few, step)]);
        let [both, shared] = factors(builder, step);
        let before = builder.get(sums);
        let next = builder.mul_add(DType::I64, both, shared, before);
        builder.set(sums, next);
        builder.end();
        let sums = builder.get(sums);
        let parted = self.parted(builder, to, sums);
        add(builder, parted);
        if groups > 1 {
            builder.end();
        }
    }

    /// Both sums, parted: the upper and the lower, as integers of a type.
    pub fn parted(self, builder: &mut Builder, to: DType, sums: ExprId) -> [ExprId; 2] {
        let (bits, mask) =
            (builder.number(DType::I64, self.lower.into()), builder.number(DType::I64, (1 << self.lower) - 1));
        let upper = builder.binary(BinaryFn::Shr, DType::I64, sums, bits);
        let mut lower = builder.binary(BinaryFn::And, DType::I64, sums, mask);
        if self.start != 0 {
            let start = self.start(builder);
            lower = builder.binary(BinaryFn::Sub, DType::I64, lower, start);
        }
        [upper, lower].map(|sum| builder.convert_register(DType::I64, to, sum))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::kernel::simulator::{Memory, Place, launch};

    /// Steps of a sum: more than are added before sums are parted.
    const STEPS: usize = 8;

    /// Both sums of products as the kernel has them; numbers are stored in 16 bits.
    fn summed(paired: Paired, two: [[i16; STEPS]; 2], shared: [i16; STEPS]) -> [i32; 2] {
        let mut builder = Builder::new("paired", 1);
        let steps = STEPS as u32;
        let numbers = builder.buffer("two", DType::I16, 2 * u64::from(steps), false);
        let factors = builder.buffer("shared", DType::I16, u64::from(steps), false);
        let sums = builder.buffer("sums", DType::I32, 2, true);
        let none = builder.number(DType::I32, 0);
        let totals = builder.array("totals", Scalar::I32, 2, none);
        let factors_of = |builder: &mut Builder, step: ExprId| {
            let both = [0, 1].map(|row| {
                let row = builder.integer(row);
                let from = builder.place(row, &[(steps, step)]);
                builder.load(numbers, from, "x")
            });
            let both = paired.both(builder, DType::I16, both);
            let factor = builder.load(factors, step, "w");
            let factor = builder.convert_register(DType::I16, DType::I64, factor);
            [both, builder.keep("w", Scalar::I64, factor)]
        };
        paired.add_up(&mut builder, (steps, DType::I32), factors_of, |builder, parted| {
            for (row, own) in (0..).zip(parted) {
                let row = builder.integer(row);
                let before = builder.element(totals, row);
                let next = builder.binary(BinaryFn::Add, DType::I32, before, own);
                builder.set_element(totals, row, next);
            }
        });
        for row in 0..2 {
            let row = builder.integer(row);
            let total = builder.element(totals, row);
            builder.store(sums, row, total);
        }
        let kernel = builder.finish([1, 1, 1], Vec::new());
        let numbers = two.into_iter().flatten().chain(shared).flat_map(i16::to_le_bytes);
        let values = numbers.chain([0; 8]).collect();
        let (of_two, of_shared) = (4 * STEPS as u64, 2 * STEPS as u64);
        let mut memory = Memory { weights: &[], values };
        let places = [0, of_two, of_two + of_shared].map(Place::Values);
        launch(&kernel, 1, &mut memory, &places).unwrap();
        let (result, _) = memory.values[(of_two + of_shared) as usize..].as_chunks::<4>();
        [result[0], result[1]].map(i32::from_le_bytes)
    }

    #[test]
    fn extremes_do_not_reach_the_other_sum() {
        let ends =
            [(DType::I8, [-128, 127]), (DType::U8, [0, 255]), (DType::I4, [-8, 7]), (DType::I16, [i16::MIN, i16::MAX])];
        let pairs = [
            (DType::I8, DType::I8),
            (DType::U8, DType::I8),
            (DType::I8, DType::U8),
            (DType::U8, DType::U8),
            (DType::I4, DType::I16),
        ];
        let ends_of = |dtype: DType| ends.iter().find(|own| own.0 == dtype).unwrap().1;
        for (two, shared) in pairs {
            let paired = Paired::of([two, shared]).unwrap();
            // A bit for each number says which of the ends it is: all alike, and those of a group apart.
            for bits in [0u32, !0, 0x0000_ff00, 0x00ff_0000, 0x00ff_00ff, 0x00a5_5a3c, 0x0012_34ed] {
                let number = |dtype: DType, place: usize| ends_of(dtype)[(bits >> place & 1) as usize];
                let numbers = [0, 1].map(|row| std::array::from_fn(|step| number(two, row * STEPS + step)));
                let factors = std::array::from_fn(|step| number(shared, 2 * STEPS + step));
                let dot = |row: [i16; STEPS]| {
                    row.into_iter().zip(factors).map(|(x, w)| i32::from(x) * i32::from(w)).sum::<i32>()
                };
                assert_eq!(summed(paired, numbers, factors), numbers.map(dot), "{two:?} by {shared:?}, {bits:x}");
            }
        }
    }

    #[test]
    fn sums_stay_within_their_bits() {
        // 4 times 128 times 128 is 2^16; 4 times 255 times 128 is just below 2^17, and 4 times 255 times 255 below 2^18.
        let paired = |two, shared| Paired::of([two, shared]).map(|paired| (paired.steps, paired.lower, paired.start));
        assert_eq!(paired(DType::I8, DType::I8), Some((4, 18, 1 << 17)));
        assert_eq!(paired(DType::U8, DType::I8), Some((4, 18, 1 << 17)));
        assert_eq!(paired(DType::U8, DType::U8), Some((4, 18, 0)));
        // 4 times 8 times 2^15 is 2^20, which has 22 bits with a sign; 8 2^22 + 8 has 27.
        assert_eq!(paired(DType::I4, DType::I16), Some((4, 22, 1 << 21)));
        // Of 8 and 16 bits the sum of one product has 24, and two numbers at that distance have 33.
        assert_eq!(paired(DType::I8, DType::I16), None);
        assert_eq!(paired(DType::I16, DType::I8), None);
        assert_eq!(paired(DType::F32, DType::I8), None);
    }
}
