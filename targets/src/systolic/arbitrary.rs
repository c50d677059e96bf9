//! Random instructions for property tests.

use proptest::prelude::*;
use proptest::sample::select;
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, ScatterReduction, UnaryFn};

use super::isa::{
    DmaDim, DramAddress, Fold, FoldFn, Instruction, MAX_DIMS, Map, MapFn, Memory, Multiply, Operation, Outer, Preload,
    RowTransfer, Scan, Sort, Source, Transfer, Unit, Waits, Walk,
};

/// Ranges that numbers of an instruction are drawn from.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Highest dimension count.
    pub rank: usize,
    /// Highest size of a dimension.
    pub size: u32,
    /// Greatest magnitude of a stride.
    pub stride: i32,
    /// Highest on-chip address.
    pub address: u32,
    /// Highest DRAM address.
    pub dram: u64,
}

impl Limits {
    /// All that the binary form holds.
    pub const ALL: Limits =
        Limits { rank: MAX_DIMS, size: u32::MAX, stride: i32::MAX, address: u32::MAX, dram: u64::MAX };

    /// Instructions of which a good part fit a small machine.
    pub const SMALL: Limits = Limits { rank: 3, size: 4, stride: 24, address: 600, dram: 3000 };
}

fn dtype() -> impl Strategy<Value = DType> {
    select(&DType::ALL[..])
}

/// Types of operands of the array: any, and often enough one that it multiplies with others of the same list.
fn array_dtype() -> impl Strategy<Value = DType> {
    prop_oneof![1 => dtype(), 1 => select(&[DType::F32, DType::BF16][..]), 1 => select(&[DType::I8, DType::U8][..])]
}

fn transfer(limits: Limits) -> impl Strategy<Value = Transfer> {
    let wide = i64::from(limits.stride) * if limits.dram == u64::MAX { 1 << 32 } else { 1 };
    let dim = (0..=limits.size, -wide..=wide, -limits.stride..=limits.stride)
        .prop_map(|(size, dram_stride, scratchpad_stride)| DmaDim { size, dram_stride, scratchpad_stride });
    (0..=limits.dram, 0..=limits.address, 0u8..=9, prop::collection::vec(dim, 0..=limits.rank)).prop_map(
        |(dram, scratchpad, element_bytes, dims)| Transfer {
            dram: DramAddress::absolute(dram),
            scratchpad,
            element_bytes,
            dims: dims.into(),
        },
    )
}

fn rows(limits: Limits) -> impl Strategy<Value = RowTransfer> {
    let on_chip = (0..=limits.address, 0..=limits.size, 0..=limits.address, 0..=limits.size);
    let index = select(&[DType::I32, DType::I64, DType::U8][..]);
    let wide = limits.stride as u64;
    (0..=limits.dram, on_chip, 0..=wide, 0..=wide, 0..=limits.size, 0..=wide, index).prop_map(
        |(dram, (scratchpad, row_bytes, indices, count), row_stride, rows, outer, outer_stride, index_dtype)| {
            RowTransfer {
                dram: DramAddress::absolute(dram),
                scratchpad,
                row_bytes,
                row_stride,
                rows,
                outer,
                outer_stride,
                indices,
                index_dtype,
                count,
            }
        },
    )
}

fn walk(limits: Limits, rank: usize) -> impl Strategy<Value = Walk> {
    let memory = select(&[Memory::Scratchpad, Memory::Scratchpad, Memory::Accumulators][..]);
    let strides = prop::collection::vec(-limits.stride..=limits.stride, rank);
    let any = (memory.clone(), 0..=limits.address, dtype(), strides)
        .prop_map(|(memory, address, dtype, strides)| Walk { memory, address, dtype, strides: strides.into() });
    // Dense walks of usual types, so that instructions get past their checks often enough.
    let usual = select(&[DType::F32, DType::I32][..]);
    let dense = (memory, 0..=limits.address, usual).prop_map(move |(memory, address, dtype)| Walk {
        memory,
        address,
        dtype,
        strides: (0..rank).rev().map(|axis| 4i32.saturating_pow(axis as u32 + 1)).collect(),
    });
    prop_oneof![any, dense]
}

fn source(limits: Limits, rank: usize) -> impl Strategy<Value = Source> {
    prop_oneof![
        4 => walk(limits, rank).prop_map(Source::Walk),
        1 => any::<f64>().prop_map(Source::Float),
        1 => select(&[f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300, 5e-324][..]).prop_map(Source::Float),
        1 => any::<i64>().prop_map(Source::Integer),
    ]
}

fn dims(limits: Limits) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..=limits.size, 0..=limits.rank)
}

fn preload(limits: Limits) -> impl Strategy<Value = Preload> {
    let stride = -limits.stride..=limits.stride;
    let size = limits.size.min(u32::from(u16::MAX)) as u16;
    let zero_point = prop::option::weighted(0.25, 0..=limits.address);
    // Numbers of groups that arrays have, and now and then one that none has.
    let groups = prop_oneof![4 => Just(1u16), 6 => select(&[2u16, 4, 8][..]), 1 => 0..=size];
    let groups = (groups, stride.clone());
    (0..=limits.address, array_dtype(), groups, 0..=size, 0..=size, stride.clone(), stride, zero_point).prop_map(
        |(address, dtype, (groups, group_stride), k, n, k_stride, n_stride, zero_point)| Preload {
            address,
            dtype,
            groups,
            group_stride,
            k,
            n,
            k_stride,
            n_stride,
            zero_point,
        },
    )
}

fn multiply(limits: Limits) -> impl Strategy<Value = Multiply> {
    let stride = -limits.stride..=limits.stride;
    let zero_point = prop::option::weighted(0.25, 0..=limits.address);
    let flags = (any::<bool>(), any::<bool>());
    let row = 0..=limits.address.min(limits.size);
    let matrix = (0..=limits.address, array_dtype(), 0..=limits.size, stride.clone(), stride.clone(), zero_point);
    (matrix, row.clone(), (stride, row), flags).prop_map(
        |(
            (address, dtype, m, m_stride, k_stride, zero_point),
            accumulator_row,
            (group_stride, group_rows),
            (accumulate, switch_weights),
        )| Multiply {
            address,
            dtype,
            group_stride,
            m,
            m_stride,
            k_stride,
            zero_point,
            accumulator_row,
            group_rows,
            accumulate,
            switch_weights,
        },
    )
}

fn outer(limits: Limits) -> impl Strategy<Value = Outer> {
    let matrix = move || {
        let strides = prop::collection::vec(-limits.stride..=limits.stride, 2);
        (0..=limits.address, array_dtype(), strides).prop_map(|(address, dtype, strides)| Walk {
            memory: Memory::Scratchpad,
            address,
            dtype,
            strides: strides.into(),
        })
    };
    let zero_point = move || prop::option::weighted(0.25, 0..=limits.address);
    let small = limits.size.min(u32::from(u16::MAX)) as u16;
    let sizes = (0..=small, 0..=small, 0..=limits.size.saturating_mul(4));
    let row = 0..=limits.address.min(limits.size);
    let place = (row, any::<bool>());
    (matrix(), matrix(), zero_point(), zero_point(), sizes, place).prop_map(
        |(a, b, a_zero_point, b_zero_point, (m, n, k), (accumulator_row, accumulate))| Outer {
            m,
            n,
            k,
            a,
            b,
            a_zero_point,
            b_zero_point,
            accumulator_row,
            accumulate,
        },
    )
}

fn map(limits: Limits) -> impl Strategy<Value = Map> {
    let function = prop_oneof![
        Just(MapFn::Copy),
        Just(MapFn::Select),
        select(UnaryFn::ALL).prop_map(MapFn::Unary),
        select(BinaryFn::ALL).prop_map(MapFn::Binary),
    ];
    (function, dims(limits)).prop_flat_map(move |(function, dims)| {
        let rank = dims.len();
        (walk(limits, rank), prop::collection::vec(source(limits, rank), function.operands())).prop_map(
            move |(destination, sources)| Map {
                function,
                dims: dims.clone().into(),
                destination,
                sources: sources.into(),
            },
        )
    })
}

fn fold(limits: Limits) -> impl Strategy<Value = Fold> {
    let function = select(&FoldFn::ALL[..]);
    (function, dims(limits), any::<bool>(), any::<prop::sample::Index>()).prop_flat_map(
        move |(function, dims, accumulate, reduced)| {
            let rank = dims.len();
            let reduced = reduced.index(rank + 1);
            let sources = prop::collection::vec(source(limits, rank), function.operands());
            (walk(limits, rank), sources, any::<bool>()).prop_map(move |(mut destination, sources, stand_still)| {
                if stand_still {
                    destination.strides[rank - reduced..].fill(0);
                }
                Fold {
                    function,
                    dims: dims.clone().into(),
                    reduced: reduced as u8,
                    accumulate,
                    destination,
                    sources: sources.into(),
                }
            })
        },
    )
}

fn scan(limits: Limits) -> impl Strategy<Value = Scan> {
    dims(limits).prop_flat_map(move |dims| {
        let rank = dims.len();
        (walk(limits, rank), walk(limits, rank), any::<bool>()).prop_map(move |(destination, source, exclusive)| Scan {
            dims: dims.clone().into(),
            exclusive,
            destination,
            source,
        })
    })
}

fn sort(limits: Limits) -> impl Strategy<Value = Sort> {
    dims(limits).prop_flat_map(move |dims| {
        let rank = dims.len();
        let result = || prop::option::of(walk(limits, rank));
        let flags = (any::<bool>(), any::<bool>());
        (walk(limits, rank), result(), result(), 0..=limits.size, flags).prop_map(
            move |(source, values, positions, k, (largest, later_first))| Sort {
                dims: dims.clone().into(),
                k,
                largest,
                later_first,
                source,
                values,
                positions,
            },
        )
    })
}

/// Any well-formed instruction within the limits.
pub(crate) fn instruction(limits: Limits) -> impl Strategy<Value = Instruction> {
    let reduction = select(&ScatterReduction::ALL[..]);
    let op = prop_oneof![
        1 => transfer(limits).prop_map(Operation::Load),
        1 => transfer(limits).prop_map(Operation::Store),
        1 => rows(limits).prop_map(Operation::LoadRows),
        1 => (rows(limits), reduction, dtype())
            .prop_map(|(rows, reduction, dtype)| Operation::StoreRows(rows, reduction, dtype)),
        2 => preload(limits).prop_map(Operation::Preload),
        2 => multiply(limits).prop_map(Operation::Multiply),
        2 => outer(limits).prop_map(Operation::Outer),
        3 => map(limits).prop_map(Operation::Map),
        2 => fold(limits).prop_map(Operation::Fold),
        1 => scan(limits).prop_map(Operation::Scan),
        2 => sort(limits).prop_map(Operation::Sort),
    ];
    let lag = prop::option::of(prop_oneof![Just(0u16), any::<u16>()]);
    let waits = prop::collection::vec(lag, Unit::COUNT).prop_map(|lags| {
        let mut waits = Waits::default();
        waits.0.copy_from_slice(&lags);
        waits
    });
    (waits, op).prop_map(|(waits, op)| Instruction { waits, op })
}

/// An instruction that waits for everything before it.
pub(crate) fn ordered(mut instruction: Instruction) -> Instruction {
    instruction.waits = Waits([Some(0); Unit::COUNT]);
    instruction
}
