//! A kernel as a tree: loops, branches, and runs of statements that lanes go through side by side.
//!
//! Lanes are in step: each statement is done by all of them before the next. In code one lane does a whole run after the other, so
//! that a run must not have lanes that touch what others touch in another statement of it. Where they would, a new run begins.

use super::index::{Atom, Indices, Linear};
use super::sameness::Sameness;
use crate::kernel::simulator::ends;
use crate::kernel::{Expr, ExprId, Kernel, Memory, Stmt};

/// A part of a kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Statements, by their places, that are the same for all lanes.
    Once(usize),
    /// Statements that each lane does for itself, with all that is in scopes that they open.
    Lanes(Vec<usize>),
    /// A loop.
    Loop(usize, Vec<Node>),
    /// A branch that all lanes take together: what is done in it, and what else.
    Branch(usize, Vec<Node>, Vec<Node>),
    /// One that not all lanes take, with parts that they come to together.
    Masked(usize, Vec<Node>, Vec<Node>),
    /// A loop that lanes begin apart from each other, or end: with parts that they come to together.
    Apart(usize, Vec<Node>),
    /// What lanes combine.
    Reduce(usize),
}

/// What cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel `{kernel}`: {what}")]
pub(in crate::fpga) struct Unsupported {
    /// The kernel.
    pub kernel: String,
    /// What of it.
    pub what: &'static str,
}

/// Where lanes access memory.
#[derive(Clone, PartialEq)]
struct Access {
    memory: Memory,
    writes: bool,
    /// Where, if each lane has an element of its own there.
    own: Option<Linear>,
}

/// Makes the tree of a kernel.
pub(super) fn structure(
    kernel: &Kernel,
    indices: &Indices<'_>,
    sameness: &Sameness<'_>,
) -> Result<Vec<Node>, Unsupported> {
    let builder = Structure { kernel, indices, sameness, ends: ends(&kernel.body) };
    builder.block(0, kernel.body.len(), false).map_err(|what| Unsupported { kernel: kernel.name.clone(), what })
}

struct Structure<'s> {
    kernel: &'s Kernel,
    indices: &'s Indices<'s>,
    sameness: &'s Sameness<'s>,
    ends: Vec<usize>,
}

/// A run that is being made.
#[derive(Default)]
struct Run {
    places: Vec<usize>,
    accesses: Vec<Access>,
}

impl Run {
    /// Ends it.
    fn flush(&mut self, nodes: &mut Vec<Node>) {
        if !self.places.is_empty() {
            nodes.push(Node::Lanes(std::mem::take(&mut self.places)));
        }
        self.accesses.clear();
    }

    fn meets(&self, accesses: &[Access]) -> bool {
        self.accesses.iter().any(|a| accesses.iter().any(|b| meet(a, b)))
    }
}

/// Whether lanes may touch in one access what others touch in the other.
fn meet(a: &Access, b: &Access) -> bool {
    let is_own = a.own.is_some() && a.own == b.own;
    a.memory == b.memory && (a.writes || b.writes) && !is_own
}

impl Structure<'_> {
    fn block(&self, mut at: usize, end: usize, masked: bool) -> Result<Vec<Node>, &'static str> {
        let kernel = self.kernel;
        let (mut nodes, mut run) = (Vec::new(), Run::default());
        while at < end {
            let (next, middle) = self.scope(at);
            match kernel.body[at] {
                Stmt::Barrier | Stmt::End | Stmt::Else => {}
                Stmt::Reduce { .. } => {
                    run.flush(&mut nodes);
                    nodes.push(Node::Reduce(at));
                }
                Stmt::Let(..)
                | Stmt::Set(..)
                | Stmt::SetElement(..)
                | Stmt::Store(..)
                | Stmt::StoreShared(..)
                | Stmt::LoadVector { .. }
                | Stmt::StoreVector { .. } => self.plain(at, masked, &mut run, &mut nodes)?,
                Stmt::For { var, from, to, unroll, .. } => {
                    run.flush(&mut nodes);
                    let differs = self.sameness.at(from, at) || self.sameness.at(to, at);
                    if differs && unroll {
                        return Err("a loop that is written out begins or ends with the lane");
                    }
                    let is_even = self.indices.stride(var).is_some_and(|stride| stride.is_even);
                    let body = self.block(at + 1, next - 1, masked || differs && !is_even)?;
                    nodes.push(if differs { Node::Apart(at, body) } else { Node::Loop(at, body) });
                }
                Stmt::If(condition) => {
                    if self.sameness.at(condition, at) && self.is_inline(at, next)? {
                        self.inline(at, next, &mut run, &mut nodes)?;
                    } else {
                        run.flush(&mut nodes);
                        let differs = masked || self.sameness.at(condition, at);
                        let (first, second) = match middle {
                            Some(middle) => {
                                (self.block(at + 1, middle, differs)?, self.block(middle + 1, next - 1, differs)?)
                            }
                            None => (self.block(at + 1, next - 1, differs)?, Vec::new()),
                        };
                        nodes.push(match self.sameness.at(condition, at) {
                            true => Node::Masked(at, first, second),
                            false => Node::Branch(at, first, second),
                        });
                    }
                }
                Stmt::Dequantize { .. }
                | Stmt::Copy { .. }
                | Stmt::Commit
                | Stmt::Await(_)
                | Stmt::Multiply { .. }
                | Stmt::Prefetch { .. }
                | Stmt::Arrive { .. } => return Err("it has statements that only processors have"),
            }
            at = next;
        }
        run.flush(&mut nodes);
        Ok(nodes)
    }

    /// The place after a statement and all in its scope, and where the rest of a branch begins.
    fn scope(&self, at: usize) -> (usize, Option<usize>) {
        match self.kernel.body[at] {
            Stmt::For { .. } => (self.ends[at] + 1, None),
            Stmt::If(_) => match self.kernel.body[self.ends[at]] {
                Stmt::Else => (self.ends[self.ends[at]] + 1, Some(self.ends[at])),
                _ => (self.ends[at] + 1, None),
            },
            _ => (at + 1, None),
        }
    }

    /// A statement without a scope.
    fn plain(&self, at: usize, masked: bool, run: &mut Run, nodes: &mut Vec<Node>) -> Result<(), &'static str> {
        let kernel = self.kernel;
        if kernel.vars.iter().any(|var| var.packed.is_some()) {
            return Err("it has vectors that stay as they are loaded");
        }
        let same = |id: ExprId| !self.sameness.at(id, at);
        let accesses = self.accesses(at);
        let is_once = !masked
            && match kernel.body[at] {
                Stmt::Let(var, _) | Stmt::Set(var, _) | Stmt::SetElement(var, ..) => !self.sameness.differs(var),
                Stmt::LoadVector { array, .. } => !self.sameness.differs(array),
                Stmt::Store(_, index, value) | Stmt::StoreShared(_, index, value) => same(index) && same(value),
                Stmt::StoreVector { to, array, .. } => same(to) && !self.sameness.differs(array),
                _ => false,
            };
        let is_let = matches!(kernel.body[at], Stmt::Let(..));
        if run.meets(&accesses) || is_once && !is_let {
            run.flush(nodes);
        }
        if is_once {
            // What is declared may stand before the run, which cannot know of it.
            nodes.push(Node::Once(at));
        } else {
            run.places.push(at);
            run.accesses.extend(accesses);
        }
        Ok(())
    }

    /// A statement with a scope that each lane goes through for itself.
    fn inline(&self, at: usize, next: usize, run: &mut Run, nodes: &mut Vec<Node>) -> Result<(), &'static str> {
        let accesses: Vec<Access> = (at..next).flat_map(|place| self.accesses(place)).collect();
        if run.meets(&accesses) {
            run.flush(nodes);
        }
        run.places.push(at);
        run.accesses.extend(accesses);
        Ok(())
    }

    /// Whether each lane can go through all of a scope for itself: nothing in it is done together, and no lane touches what
    /// another does.
    fn is_inline(&self, at: usize, next: usize) -> Result<bool, &'static str> {
        let mut accesses: Vec<Access> = Vec::new();
        let mut loops = 0;
        let mut scopes = Vec::new();
        for place in at..next {
            let in_loop = loops > 0;
            match self.kernel.body[place] {
                Stmt::Let(..)
                | Stmt::Set(..)
                | Stmt::SetElement(..)
                | Stmt::Store(..)
                | Stmt::StoreShared(..)
                | Stmt::LoadVector { .. }
                | Stmt::StoreVector { .. } => {}
                Stmt::If(_) => scopes.push(false),
                // Lanes go through others together.
                Stmt::For { unroll: false, .. } => return Ok(false),
                Stmt::For { .. } => {
                    scopes.push(true);
                    loops += 1;
                }
                Stmt::Else => {}
                Stmt::End => {
                    if scopes.pop() == Some(true) {
                        loops -= 1;
                    }
                }
                Stmt::Barrier | Stmt::Reduce { .. } => return Ok(false),
                Stmt::Dequantize { .. }
                | Stmt::Copy { .. }
                | Stmt::Commit
                | Stmt::Await(_)
                | Stmt::Multiply { .. }
                | Stmt::Prefetch { .. }
                | Stmt::Arrive { .. } => return Err("it has statements that only processors have"),
            }
            for access in self.accesses(place) {
                // In a loop it meets itself.
                if accesses.iter().any(|other| meet(other, &access)) || in_loop && access.writes {
                    return Ok(false);
                }
                accesses.push(access);
            }
        }
        Ok(true)
    }

    /// What a statement accesses.
    fn accesses(&self, at: usize) -> Vec<Access> {
        let stmt = &self.kernel.body[at];
        let mut accesses = Vec::new();
        let mut open: Vec<ExprId> = stmt.operands().collect();
        while let Some(id) = open.pop() {
            let expr = &self.kernel.exprs[id.index()];
            if let Some((memory, index)) = expr.address() {
                accesses.push(Access { memory, writes: false, own: self.own(index, at) });
            }
            open.extend(expr.operands());
        }
        let is_vector = matches!(stmt, Stmt::LoadVector { .. } | Stmt::StoreVector { .. });
        accesses.extend(stmt.addresses().map(|(memory, index)| Access {
            memory,
            writes: !matches!(stmt, Stmt::LoadVector { .. }),
            own: self.own(index, at).filter(|_| !is_vector),
        }));
        accesses
    }

    /// An index that no two lanes share.
    fn own(&self, index: ExprId, at: usize) -> Option<Linear> {
        let linear = self.indices.linear(index);
        let is_same = |atom: Atom| match atom {
            Atom::Block(_) | Atom::Lane | Atom::Slot(_) | Atom::Base(_) => true,
            Atom::Var(var) => {
                let is_index =
                    matches!(self.kernel.body.iter().find(|stmt| declares(stmt, var)), Some(Stmt::For { .. }));
                is_index && !self.sameness.differs(var)
            }
            Atom::Other(id) => !self.sameness.at(id, at) && !self.reads(id),
        };
        let is_own = linear.times(Atom::Lane) != 0 && linear.terms.iter().all(|&(atom, _)| is_same(atom));
        is_own.then_some(linear)
    }

    /// Whether an expression reads what may change.
    fn reads(&self, id: ExprId) -> bool {
        let expr = &self.kernel.exprs[id.index()];
        let is_variable = matches!(expr, Expr::Var(_) | Expr::Element(..) | Expr::Load(..) | Expr::LoadShared(..));
        is_variable || expr.operands().any(|operand| self.reads(operand))
    }
}

fn declares(stmt: &Stmt, own: crate::kernel::VarId) -> bool {
    matches!(*stmt, Stmt::For { var, .. } if var == own) || matches!(*stmt, Stmt::Let(var, _) if var == own)
}
