//! What statements may set, before they are gone through: loops carry it.

use super::OpId;
use super::walk::Walk;
use crate::TargetError;
use crate::kernel::{Kernel, Stmt, VarId};

impl Walk<'_> {
    /// Which elements of variables that are declared before statements these may set, in order.
    pub(super) fn changes(&mut self, first: usize, end: usize) -> Result<Vec<(VarId, u32)>, TargetError> {
        let mut found = Vec::new();
        let mut declared = vec![false; self.kernel.vars.len()];
        let before = self.vars.clone_counters(self.kernel);
        self.find_changes(first, end, &mut declared, &mut found)?;
        self.vars.restore_counters(before);
        found.sort_unstable();
        found.dedup();
        found.retain(|&(var, _)| !declared[var.index()] && !self.vars[var.index()].is_empty());
        Ok(found)
    }

    fn find_changes(
        &mut self,
        mut at: usize,
        end: usize,
        declared: &mut [bool],
        found: &mut Vec<(VarId, u32)>,
    ) -> Result<(), TargetError> {
        while at < end {
            self.statement += 1;
            match self.kernel.body[at] {
                Stmt::Let(var, _) => declared[var.index()] = true,
                Stmt::Set(var, _) | Stmt::Reduce { var, .. } => found.push((var, 0)),
                Stmt::SetElement(var, index, _) => {
                    let index = self.known(index)?;
                    found.push((var, index));
                }
                Stmt::LoadVector { array, to, count, .. } => {
                    let first = self.known(to)?;
                    found.extend((first..first + count).map(|index| (array, index)));
                }
                Stmt::For { var, from, to, step, unroll } => {
                    declared[var.index()] = true;
                    if unroll {
                        let (from, to) = (self.known(from)?, self.known(to)?);
                        for index in (from..to).step_by(step as usize) {
                            self.statement += 1;
                            self.vars[var.index()] = vec![self.values.integer(i64::from(index))];
                            self.find_changes(at + 1, self.ends[at], declared, found)?;
                        }
                        at = self.ends[at];
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Ok(())
    }
}

/// Variables that count while statements are only looked at.
trait Counters {
    fn clone_counters(&self, kernel: &Kernel) -> Vec<(usize, Vec<OpId>)>;
    fn restore_counters(&mut self, before: Vec<(usize, Vec<OpId>)>);
}

impl Counters for Vec<Vec<OpId>> {
    fn clone_counters(&self, kernel: &Kernel) -> Vec<(usize, Vec<OpId>)> {
        let counters = kernel.body.iter().filter_map(|stmt| match *stmt {
            Stmt::For { var, unroll: true, .. } => Some(var.index()),
            _ => None,
        });
        counters.map(|var| (var, self[var].clone())).collect()
    }

    fn restore_counters(&mut self, before: Vec<(usize, Vec<OpId>)>) {
        for (var, held) in before {
            self[var] = held;
        }
    }
}
