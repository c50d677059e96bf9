//! A plan of which each call is lowered for widths of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tcc_ir::Plan;

use crate::fpga::lower::{Lowered, Widths, lower};
use crate::kernel::Kernel;
use crate::lower::Argument;
use crate::target::TargetError;

/// What widths are told apart by.
type Key = (u32, u32, u32);

fn key(widths: Widths) -> Key {
    (widths.lanes, widths.integer_macs, widths.float_macs)
}

/// A plan lowered for all widths that were asked for so far.
pub(super) struct Mix<'p> {
    plan: &'p Plan,
    known: Mutex<BTreeMap<Key, Arc<Lowered>>>,
}

impl<'p> Mix<'p> {
    pub fn new(plan: &'p Plan) -> Mix<'p> {
        Mix { plan, known: Mutex::default() }
    }

    /// All calls for the same widths.
    ///
    /// # Errors
    /// A defect.
    pub fn of(&self, widths: Widths) -> Result<Arc<Lowered>, TargetError> {
        let known = self.known.lock().ok().and_then(|known| known.get(&key(widths)).cloned());
        if let Some(known) = known {
            return Ok(known);
        }
        let lowered = Arc::new(lower(self.plan, widths)?);
        if let Ok(mut known) = self.known.lock() {
            known.insert(key(widths), Arc::clone(&lowered));
        }
        Ok(lowered)
    }

    /// The kernel of a call for some widths, without names.
    ///
    /// # Errors
    /// A defect.
    pub fn kernel(&self, call: usize, widths: Widths) -> Result<Option<Kernel>, TargetError> {
        Ok(self.of(widths)?.calls.get(call).map(|call| call.kernel.nameless()))
    }

    /// Each call for its own widths; nothing where some of these make other calls of the plan, so that they do not go together.
    ///
    /// # Errors
    /// A defect.
    pub fn lowered(&self, widths_of: &[Widths]) -> Result<Option<Lowered>, TargetError> {
        let mut all = Lowered::default();
        // Where the arranged constants of each of the lowered plans begin among all.
        let mut firsts: BTreeMap<Key, u32> = BTreeMap::new();
        for (call, &widths) in widths_of.iter().enumerate() {
            let own = self.of(widths)?;
            let first = *firsts.entry(key(widths)).or_insert_with(|| {
                let first = all.arranged.len() as u32;
                all.arranged.extend(own.arranged.iter().cloned());
                all.arranged_lanes.extend(own.arranged_lanes.iter().copied());
                all.arranged_lanes.resize(all.arranged.len(), widths.lanes);
                first
            });
            if own.calls.len() != widths_of.len() {
                return Ok(None);
            }
            let mut lower = own.calls[call].clone();
            for argument in &mut lower.arguments {
                if let Argument::Arranged(number) = argument {
                    *number += first;
                }
            }
            all.calls.push(lower);
        }
        Ok(Some(all))
    }
}
