//! Which kernels the instructions of a queue belong to.

/// A run of a queue's instructions that belong to one kernel. A repeat belongs to what it repeats; nops and the end count for
/// what comes next, or for the last kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// How many instructions.
    pub instructions: u32,
    /// The kernel's number.
    pub kernel: u32,
}

/// A walk through a queue that says whose each instruction is.
#[derive(Clone, Debug)]
pub(super) struct Owners<'a> {
    marks: std::slice::Iter<'a, Mark>,
    /// The number of the first instruction behind the current run.
    end: usize,
    kernel: Option<usize>,
}

impl<'a> Owners<'a> {
    /// A walk along the marks of a queue.
    pub fn new(marks: &'a [Mark]) -> Self {
        Owners { marks: marks.iter(), end: 0, kernel: None }
    }

    /// The kernel of an instruction by its number in the queue; numbers must not become smaller. `None` if there is none.
    pub fn of(&mut self, index: usize) -> Option<usize> {
        while self.end <= index {
            let mark = self.marks.next()?;
            self.end += mark.instructions as usize;
            self.kernel = Some(mark.kernel as usize);
        }
        self.kernel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_have_owners_in_runs() {
        let mark = |instructions, kernel| Mark { instructions, kernel };
        let marks = [mark(2, 1), mark(0, 5), mark(1, 0)];
        let mut owners = Owners::new(&marks);
        assert_eq!([0, 1, 2, 2, 3].map(|index| owners.of(index)), [Some(1), Some(1), Some(0), Some(0), None]);
    }
}
