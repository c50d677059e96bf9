//! Products of few rows: weights are read once and in order, as fast as memory gives them, and multiplied as they come by.
//!
//! Where columns lie beside each other, a thread has some of them and a share of the depth (`columns`); where the depth does,
//! threads that share a column have parts of that (`depth`). Either way their sums are added up by their warp or in shared memory.

mod columns;
mod depth;
mod groups;

use tcc_ir::{DType, ValueId};

use super::panel::vector_of;
use super::zero;
use crate::kernel::{Builder, ExprId, Region, Scalar, SharedId, Stmt, VarId};
use crate::lower::Opening;
use crate::lower::elements::{Coords, Elements};
use crate::lower::piece::Prologue;
use crate::lower::product::Product;
use crate::lower::rows::one_row;
use crate::simt::SimtMachine;
use crate::target::TargetError;

/// Threads of a block where threads share columns.
const THREADS: u32 = 128;

/// Threads of a multiprocessor that memory is read by: with what each has on its way they cover the latency of memory, and each may
/// take 64 registers.
const RESIDENT: u32 = 1024;

/// Most blocks of a multiprocessor: where there are more columns, each block has some after others, so that it computes the rows but
/// once.
const RESIDENT_BLOCKS: usize = 2;

/// The share of a block's shared memory that rows may take.
const ROWS_SHARE: u64 = 4;

/// Registers for sums.
const SUMS: u32 = 64;

/// Bytes that threads beside each other read at least, so that memory gives whole sectors.
const RUN: usize = 64;

/// How the work is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simt::lower) struct Shares {
    /// Threads that have neighbouring columns, or the same.
    lanes: u32,
    /// Columns of each.
    own: u32,
    /// Weights of few bits that a thread reads at once, if weights are such and are read so.
    at_once: u32,
    threads: u32,
    /// Threads of a warp.
    warp: u32,
    /// Columns, or groups of them, that threads have one after the other.
    rounds: u32,
    /// Elements of rows that shared memory has room for, beside those of other blocks.
    room: u64,
}

impl Shares {
    /// Ways to share out products of the same rows, which blocks compute first or not, that are worth a look.
    pub fn all(
        elements: &Elements<'_>,
        products: &[Product],
        computes_rows: bool,
        machine: &SimtMachine,
    ) -> Vec<Shares> {
        let (product, warp) = (&products[0], machine.warp);
        let room = machine.shared.block_bytes / ROWS_SHARE / 4;
        if let Some(quantized) = &product.quantized {
            let all = groups::shares(products, quantized, machine, computes_rows, room);
            if !all.is_empty() {
                return all;
            }
        }
        if product.runs_along_k[1] {
            let lanes = depth::lanes(elements, product, warp);
            let with = |threads: u32| {
                let resident = (RESIDENT / threads).max(1) as usize * machine.multiprocessors as usize;
                let groups = product.n.div_ceil((threads / lanes) as usize) * product.batch.count();
                Shares {
                    lanes,
                    own: 1,
                    at_once: 0,
                    threads,
                    warp,
                    rounds: groups.div_ceil(resident).max(1) as u32,
                    room,
                }
            };
            let counts = [THREADS, 2 * THREADS, 4 * THREADS, 8 * THREADS];
            return counts.into_iter().filter(|&threads| threads <= machine.block_threads).map(with).collect();
        }
        let wide = at_once(elements, product, false);
        let (mut own, bits) = wide.map_or((1, product.sum.bits()), |(count, dtype)| (count, dtype.bits()));
        let sums = (product.m * products.len()) as u32;
        while own > 1 && (sums * own > SUMS || own as usize * bits > 128) && own as usize * bits > 32 {
            own /= 2;
        }
        let least = (RUN * 8 / (own as usize * bits)).clamp(1, warp as usize) as u32;
        let multiprocessors = machine.multiprocessors as usize;
        // Sums of warps, and by what their threads combine; the rows have their share.
        let fits = |own: u32, lanes: u32, threads: u32| {
            let shared = sums * threads / warp * lanes * own + threads;
            4 * u64::from(shared) <= machine.shared.block_bytes / ROWS_SHARE * (ROWS_SHARE - 1)
        };
        let fewest = THREADS.max(warp);
        let mut all = Vec::new();
        for lanes in [1, 2, 4, 8].map(|by| least * by).into_iter().filter(|&lanes| lanes <= warp) {
            let blocks = product.n.div_ceil((lanes * own) as usize) * product.batch.count();
            // Either all blocks share the threads of their multiprocessors, or there are no more than fill these.
            let per_multiprocessor = blocks.div_ceil(multiprocessors).max(1);
            for resident in [per_multiprocessor.min(RESIDENT_BLOCKS), per_multiprocessor] {
                let rounds = match resident < per_multiprocessor {
                    true => blocks.div_ceil(multiprocessors * resident) as u32,
                    false => 1,
                };
                // Each thread has some of the depth.
                let most = (RESIDENT as usize / resident).min(product.k * lanes as usize / 2).max(1);
                let bound = |threads: u32| threads.clamp(fewest, RESIDENT.min(machine.block_threads));
                let above = bound(most.next_power_of_two() as u32);
                for threads in [bound(above / 2), above].into_iter().filter(|&threads| fits(own, lanes, threads)) {
                    let shares = Shares { lanes, own, at_once: 0, threads, warp, rounds, room };
                    if !all.contains(&shares) {
                        all.push(shares);
                    }
                }
            }
            // More threads beside each other only make fewer blocks.
            if blocks < multiprocessors {
                break;
            }
        }
        if all.is_empty() {
            let (lanes, own) = if fits(own, least, fewest) { (least, own) } else { (1, 1) };
            all.push(Shares { lanes, own, at_once: 0, threads: fewest, warp, rounds: 1, room });
        }
        all
    }

    pub fn threads(self) -> u32 {
        self.threads
    }
}

/// The vector of weights that a thread reads at once, along the depth or across columns: how many, and their type.
fn at_once(elements: &Elements<'_>, product: &Product, along_depth: bool) -> Option<(u32, DType)> {
    let weights = product.factors[1];
    let stored = elements.stored(weights);
    // A line may be as long as the longest vector.
    let count = vector_of(elements, weights, stored, product.sums_along_last(1) == along_depth, 32)?;
    Some((count, stored))
}

/// Products of the same rows, and where these are.
struct Rows<'p> {
    products: &'p [Product],
    /// The rows in shared memory, if every block has computed them.
    shared: Option<SharedId>,
    /// How they lie there if not one after the other.
    turned: Option<Turned>,
    lead: Coords,
}

/// How rows lie in shared memory where so many threads each have some of the depth, one thread after the other: element by element,
/// first the first of each thread, then the second.
#[derive(Clone, Copy, Debug)]
struct Turned {
    lanes: u32,
    /// Elements of each.
    own: u32,
    /// Elements from the first of all to the second of all.
    pitch: u32,
}

impl Turned {
    /// Elements that so many take.
    fn size(self, elements: usize) -> usize {
        elements / self.lanes as usize * self.pitch as usize
    }
}

impl Rows<'_> {
    fn first(&self) -> &Product {
        &self.products[0]
    }
}

/// Writes the kernel.
pub(super) fn vector(
    elements: &mut Elements<'_>,
    products: &[Product],
    prologue: Option<&Prologue>,
    shares: Shares,
    outputs: &[ValueId],
) -> Result<([u32; 3], String), TargetError> {
    let product = &products[0];
    let block = elements.builder.block(2);
    let zero_index = elements.builder.integer(0);
    let lead = if product.batch.count() == 1 {
        Coords::from_elem(zero_index, product.batch.rank())
    } else {
        elements.coords_of(&product.batch.clone(), block)
    };
    let mut rows = Rows { products, shared: None, turned: None, lead };
    if shares.at_once > 0 {
        groups::by_groups(elements, &mut rows, prologue, shares, outputs)
    } else if product.runs_along_k[1] {
        depth::along_depth(elements, &mut rows, prologue, shares, outputs)
    } else {
        columns::along_columns(elements, &mut rows, prologue, shares, outputs)
    }
}

/// Says which weights are read first: those of so many columns, from the start of the depth on, by vectors that all threads read
/// together.
fn open(elements: &mut Elements<'_>, rows: &Rows<'_>, columns: usize, together: u64) {
    for product in rows.products {
        let weights = product.factors[1];
        let (zero_index, one) = (elements.builder.integer(0), elements.builder.integer(1));
        let mut argument = None;
        let mut at = |k: ExprId, column: ExprId| {
            let coords = product.coords(elements, 1, &rows.lead, k, column);
            let (buffer, index) = elements.source(weights, &coords);
            argument = elements.arguments.get(buffer.index()).copied();
            elements.builder.known_index(index).and_then(|index| u64::try_from(index).ok())
        };
        let places = [at(zero_index, zero_index), at(one, zero_index), at(zero_index, one)];
        let ([Some(first), Some(deeper), Some(beside)], Some(argument)) = (places, argument) else { continue };
        let (Some(deeper), Some(beside)) = (deeper.checked_sub(first), beside.checked_sub(first)) else { continue };
        let bits = elements.stored(weights).bits() as u64;
        let bytes = |count: u64| count * bits / 8;
        let (columns, depth) = (columns.min(product.n) as u64, product.k as u64);
        let by_rows = beside == 1 && deeper >= columns;
        let (rows, pitch, width) = match by_rows {
            true => (depth, deeper, columns),
            false if deeper == 1 && beside >= depth => (columns, beside, depth),
            false => continue,
        };
        let region = Region { first: bytes(first), rows, pitch: bytes(pitch), width: bytes(width) };
        let step = if by_rows { together } else { bytes(together) };
        elements.openings.push(Opening { argument, region, by_rows, step });
    }
}

/// Rows, which a thread computes all of, and what a kernel says of itself.
fn told(product: &Product, how: &str) -> String {
    format!("{} rows × {} × {}, {how}", product.m, product.n, product.k)
}

/// An array for weights that are read at once.
fn weights_array(elements: &mut Elements<'_>, stored: DType, count: u32) -> VarId {
    let start = zero(&mut elements.builder, stored);
    elements.builder.array("weights", Scalar::of(stored), count, start)
}

/// Where an element of a row of so many lies in shared memory.
fn place(builder: &mut Builder, turned: Option<Turned>, (row, size): (usize, usize), column: ExprId) -> ExprId {
    let first = builder.integer((row * turned.map_or(size, |turned| turned.size(size))) as i32);
    let Some(Turned { lanes, own, pitch }) = turned else { return builder.add(column, first) };
    let (step, within) = builder.divided(column, (lanes * own) as i32);
    let (lane, number) = builder.divided(within, own as i32);
    let step = builder.scaled(step, (pitch * own) as i32);
    let number = builder.scaled(number, pitch as i32);
    let at = builder.add(step, number);
    let at = builder.add(at, lane);
    builder.add(at, first)
}

impl Rows<'_> {
    /// Has the block compute the rows that it multiplies, if nobody has computed them before. What it does meanwhile begins when
    /// what the rows are made of has been asked for.
    fn compute<'a>(
        &mut self,
        elements: &mut Elements<'a>,
        prologue: Option<&Prologue>,
        meanwhile: impl FnOnce(&mut Elements<'a>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let Some(Prologue { nodes, value, domain, axes }) = prologue else { return meanwhile(elements) };
        let Product { m, k, .. } = *self.first();
        let size = m * self.turned.map_or(k, |turned| turned.size(k));
        let shared = elements.builder.shared("rows", DType::F32, size as u32);
        let (mut meanwhile, turned) = (Some(meanwhile), self.turned);
        for row in 0..m {
            let take = |elements: &mut Elements<'a>, coords: &Coords, column: ExprId| {
                let element = elements.element(*value, coords)?;
                let at = place(&mut elements.builder, turned, (row, k), column);
                elements.builder.store_shared(shared, at, element);
                Ok(())
            };
            let reads = |elements: &mut Elements<'a>| meanwhile.take().map_or(Ok(()), |reads| reads(elements));
            elements.scoped(|elements| one_row(elements, (domain, axes), nodes, row, reads, take))?;
        }
        elements.builder.barrier();
        self.shared = Some(shared);
        Ok(())
    }

    /// Brings the rows to shared memory as they are, so many elements of a thread at a time.
    fn stage<'a>(
        &mut self,
        elements: &mut Elements<'a>,
        count: usize,
        meanwhile: impl FnOnce(&mut Elements<'a>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let Product { m, k, sum, .. } = *self.first();
        let threads = elements.builder.threads() as usize;
        let size = m * self.turned.map_or(k, |turned| turned.size(k));
        let shared = elements.builder.shared("rows", super::super::wide_type(sum), size as u32);
        let thread = elements.builder.thread();
        let mut meanwhile = Some(meanwhile);
        let whole = k / threads * threads;
        for row in 0..m {
            let index = elements.builder.integer(row as i32);
            for first in (0..whole).step_by(threads * count) {
                let numbers = (first..whole).step_by(threads).take(count);
                elements.scoped(|elements| {
                    let columns: Vec<ExprId> = numbers
                        .map(|number| {
                            let number = elements.builder.integer(number as i32);
                            elements.builder.add(thread, number)
                        })
                        .collect();
                    let read = columns.iter().map(|&column| self.left(elements, index, column));
                    let read = read.collect::<Result<Vec<_>, _>>()?;
                    meanwhile.take().map_or(Ok(()), |reads| reads(elements))?;
                    for (column, element) in columns.into_iter().zip(read) {
                        let at = place(&mut elements.builder, self.turned, (row, k), column);
                        elements.builder.store_shared(shared, at, element);
                    }
                    Ok::<(), TargetError>(())
                })?;
            }
            if whole < k {
                let number = elements.builder.integer(whole as i32);
                let column = elements.builder.add(thread, number);
                let inside = elements.builder.below(column, k as i32);
                elements.builder.when(inside);
                elements.open();
                let element = self.left(elements, index, column)?;
                let at = place(&mut elements.builder, self.turned, (row, k), column);
                elements.builder.store_shared(shared, at, element);
                elements.close();
            }
        }
        meanwhile.take().map_or(Ok(()), |reads| reads(elements))?;
        elements.builder.barrier();
        self.shared = Some(shared);
        Ok(())
    }

    /// Reads weights of each product: so many elements at once as there are.
    fn weights(
        &self,
        elements: &mut Elements<'_>,
        (stored, wide): (DType, Option<u32>),
        k: ExprId,
        column: ExprId,
    ) -> Result<Vec<VarId>, TargetError> {
        let mut all = Vec::with_capacity(self.products.len());
        for product in self.products {
            let weights = product.factors[1];
            let held = weights_array(elements, stored, wide.unwrap_or(1));
            let coords = product.coords(elements, 1, &self.lead, k, column);
            let to = elements.builder.integer(0);
            match wide {
                Some(count) => {
                    let (buffer, from) = elements.source(weights, &coords);
                    elements.builder.push(Stmt::LoadVector { array: held, to, buffer, from, count });
                }
                None => {
                    let element = elements.operand_of_product(weights, &coords)?;
                    elements.builder.set_element(held, to, element);
                }
            }
            all.push(held);
        }
        Ok(all)
    }

    /// An element of A, as it is multiplied.
    fn left(&self, elements: &mut Elements<'_>, row: ExprId, k: ExprId) -> Result<ExprId, TargetError> {
        let product = self.first();
        if let Some(shared) = self.shared {
            let builder = &mut elements.builder;
            let first = builder.scaled(row, product.k as i32);
            let at = builder.add(first, k);
            return Ok(builder.load_shared(shared, at, "x"));
        }
        let value = product.factors[0];
        let coords = product.coords(elements, 0, &self.lead, row, k);
        let element = elements.operand_of_product(value, &coords)?;
        let dtype = elements.graph().ty(value).dtype;
        Ok(elements.builder.convert_register(dtype, product.sum, element))
    }

    /// An element of each row of A.
    fn all_left(&self, elements: &mut Elements<'_>, k: ExprId) -> Result<Vec<ExprId>, TargetError> {
        let m = self.first().m;
        let mut all = Vec::with_capacity(m);
        for row in 0..m {
            let index = elements.builder.integer(row as i32);
            all.push(self.left(elements, index, k)?);
        }
        Ok(all)
    }

    /// Writes what follows from the sums of a row and a column.
    fn write(
        &self,
        elements: &mut Elements<'_>,
        (row, column): (ExprId, ExprId),
        totals: &[ExprId],
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let coords = self.first().result_coords(elements, &self.lead, row, column);
        for (product, &total) in self.products.iter().zip(totals) {
            elements.hold(product.result, &coords, total);
        }
        outputs.iter().try_for_each(|&output| elements.store(output, &coords))
    }
}
