//! A nest from a function.

use std::collections::{BTreeMap, HashMap};

use super::banks::banks;
use super::finish::Finish;
use super::pops::depends_on_grid;
use super::walk::{Reach, Walk, unsupported};
use super::{ArrayId, ArrayPlace, Item, LoopId, Nest};
use crate::TargetError;
use crate::fpga::design::{Design, Function};

/// Most times that a kernel is gone through until it is known what is the same for all lanes: each time something turns out not to be.
const MOST_ROUNDS: usize = 16;

impl Nest {
    /// Reads a function as hardware.
    ///
    /// # Errors
    /// It has what only GPUs do, or loops of which it is not known how often they are done.
    pub fn new(function: &Function, design: &Design) -> Result<Nest, TargetError> {
        let kernel = &function.kernel;
        if function.is_elastic() && depends_on_grid(kernel, &function.homes) {
            return Err(unsupported(kernel, "calls have other grids, on which what it does depends"));
        }
        let mut copies = Vec::new();
        let mut local: Option<Vec<u32>> = None;
        for _ in 0..MOST_ROUNDS {
            let known = local.clone().unwrap_or_default();
            let mut walk = Walk::new(function, design, &known, copies.clone())?;
            let body = walk.run()?;
            let is_settled = walk.copies == copies || kernel.threads == 1;
            copies.clone_from(&walk.copies);
            if !is_settled {
                continue;
            }
            let found = inferred(&walk, &body);
            if local.is_none() && !found.is_empty() && found.iter().any(|&banks| banks != 1) {
                local = Some(found);
                continue;
            }
            let Walk { arrays, mut values, loops, exprs, held_by, .. } = walk;
            let nest = Nest {
                lanes: kernel.threads,
                arrays,
                ops: values.ops.clone(),
                blocks: std::mem::take(&mut values.blocks),
                loops,
                body,
                exprs,
                vars: held_by,
                slices: BTreeMap::new(),
                streams: Vec::new(),
                pops: Vec::new(),
                reached: BTreeMap::new(),
            };
            let reached = std::mem::take(&mut values.reached);
            let same_as = std::mem::take(&mut values.same_as);
            let nest = Finish { nest, reached, same_as }.run(&mut values);
            return nest.map_err(|what| unsupported(kernel, &what));
        }
        Err(unsupported(kernel, "values differ between lanes in too many ways"))
    }
}

/// Banks of the local memories.
fn inferred(walk: &Walk, body: &[Item]) -> Vec<u32> {
    let mut by_array: HashMap<ArrayId, Vec<&Reach>> = HashMap::new();
    for reach in &walk.reaches {
        by_array.entry(reach.array).or_default().push(reach);
    }
    let mut innermost = vec![true; walk.loops.len()];
    mark(walk, body, None, &mut innermost);
    let arrays = walk.arrays.iter().enumerate().filter(|(_, array)| array.place == ArrayPlace::Local);
    arrays
        .map(|(index, array)| {
            let reaches = by_array.get(&ArrayId(index as u32)).map(Vec::as_slice).unwrap_or_default();
            banks(array.elements, reaches, &innermost)
        })
        .collect()
}

/// Unmarks loops that have others in them.
fn mark(walk: &Walk, items: &[Item], within: Option<LoopId>, innermost: &mut [bool]) {
    for item in items {
        match item {
            Item::Block(_) => {}
            Item::Loop(id) => {
                if let Some(within) = within {
                    innermost[within.index()] = false;
                }
                mark(walk, &walk.loops[id.index()].body, Some(*id), innermost);
            }
            Item::Branch { then, otherwise, .. } => {
                mark(walk, then, within, innermost);
                mark(walk, otherwise, within, innermost);
            }
        }
    }
}
