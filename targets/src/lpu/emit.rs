//! From instructions with the cycles in which they are dispatched to queues: what lies between becomes nops, and what is done
//! again and again becomes repeats.

use rayon::prelude::*;

use super::LpuMachine;
use super::isa::{Operation, Queue, Queues};
use super::marks::Mark;

/// An instruction with its queue, its cycle and what it is for. The queues' own instructions have no place here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Placed {
    /// The queue.
    pub queue: Queue,
    /// The cycle in which it is dispatched.
    pub cycle: u64,
    /// What is done. A read and a write of a slice in one cycle become one instruction.
    pub operation: Operation,
    /// The number of the kernel that it is part of.
    pub kernel: u32,
}

/// Queues, with what their instructions are for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Emitted {
    /// The queues.
    pub queues: Queues,
    /// For each queue the kernels of its instructions.
    pub marks: Vec<Vec<Mark>>,
}

/// Two instructions of one queue in one cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two instructions of {queue} are dispatched in cycle {cycle}; please report this")]
pub(super) struct Occupied {
    /// The queue.
    pub queue: Queue,
    /// The cycle.
    pub cycle: u64,
}

/// An instruction of a queue that is known.
#[derive(Clone, Copy, Debug)]
struct Own {
    cycle: u64,
    operation: Operation,
    kernel: u32,
}

/// Writes queues that dispatch every instruction in its cycle, and end.
///
/// # Errors
/// Two instructions want the same place; of all such places the first, by queues and then by cycles.
pub(super) fn emit(placed: Vec<Placed>, machine: &LpuMachine) -> Result<Emitted, Occupied> {
    let all = machine.queues();
    let mut by_queue: Vec<Vec<Own>> = vec![Vec::new(); all.len()];
    for Placed { queue, cycle, operation, kernel } in placed {
        by_queue[machine.queue_index(queue)].push(Own { cycle, operation, kernel });
    }
    let queues: Vec<_> = all.into_par_iter().zip(by_queue).map(|(queue, own)| emit_queue(queue, own)).collect();
    let mut emitted = Emitted { queues: Queues::default(), marks: Vec::new() };
    for queue in queues {
        let (operations, marks) = queue?;
        emitted.queues.0.push(operations);
        emitted.marks.push(marks);
    }
    Ok(emitted)
}

/// The instructions of a queue by their cycles, reads and writes of one cycle as one.
fn in_order(queue: Queue, own: Vec<Own>) -> Result<Vec<Own>, Occupied> {
    // What is sorted is small: cycles with the numbers of instructions, which most of the time stand in order already.
    let mut order: Vec<(u64, usize)> = own.iter().enumerate().map(|(index, own)| (own.cycle, index)).collect();
    order.sort();
    let mut merged: Vec<Own> = Vec::with_capacity(own.len());
    for next in order.into_iter().map(|(_, index)| own[index]) {
        match merged.last_mut() {
            Some(last) if last.cycle == next.cycle => {
                last.operation = both(&last.operation, &next.operation).ok_or(Occupied { queue, cycle: next.cycle })?;
            }
            _ => merged.push(next),
        }
    }
    Ok(merged)
}

/// A read and a write as one instruction.
fn both(first: &Operation, second: &Operation) -> Option<Operation> {
    match (first, second) {
        (Operation::Mem { read, write: None }, Operation::Mem { read: None, write })
        | (Operation::Mem { read: None, write }, Operation::Mem { read, write: None }) => {
            Some(Operation::Mem { read: *read, write: *write })
        }
        _ => None,
    }
}

/// A queue with its instructions, and what they are for.
fn emit_queue(queue: Queue, own: Vec<Own>) -> Result<(Vec<Operation>, Vec<Mark>), Occupied> {
    let own = in_order(queue, own)?;
    let mut operations = Vec::new();
    let mut marks: Vec<Mark> = Vec::new();
    let (mut next, mut at) = (0, 0);
    while let Some(&Own { cycle, operation, kernel }) = own.get(at) {
        let before = operations.len();
        let idle = cycle.checked_sub(next).ok_or(Occupied { queue, cycle })?;
        // A queue stands still for longer than a nop can say.
        let mut left = idle;
        while left > 0 {
            let cycles = u32::try_from(left).unwrap_or(u32::MAX);
            operations.push(Operation::Nop(cycles));
            left -= u64::from(cycles);
        }
        operations.push(operation);
        let run = Run::from(&own[at..]);
        if run.count > 0 {
            operations.push(Operation::Repeat { count: run.count, interval: run.interval, step: run.step });
        }
        let instructions = (operations.len() - before) as u32;
        match marks.last_mut() {
            Some(last) if last.kernel == kernel => last.instructions += instructions,
            _ => marks.push(Mark { instructions, kernel }),
        }
        at += 1 + run.count as usize;
        next = cycle + u64::from(run.count) * u64::from(run.interval) + 1;
    }
    operations.push(Operation::End);
    match marks.last_mut() {
        Some(last) => last.instructions += 1,
        None => marks.push(Mark { instructions: 1, kernel: 0 }),
    }
    Ok((operations, marks))
}

/// How often the first of some instructions comes again, at equal distances and with equal steps of its moving field.
struct Run {
    count: u32,
    interval: u32,
    step: i32,
}

impl Run {
    fn from(own: &[Own]) -> Run {
        let none = Run { count: 0, interval: 1, step: 0 };
        let [first, second, ..] = own else { return none };
        let interval = u32::try_from(second.cycle.wrapping_sub(first.cycle));
        let (Ok(interval), Some(step)) = (interval, step(&first.operation, &second.operation)) else {
            return none;
        };
        if interval == 0 {
            return none;
        }
        let again = |(index, other): (u64, &Own)| {
            other.cycle == first.cycle + index * u64::from(interval)
                && other.kernel == first.kernel
                && other.operation == first.operation.moved(index as i64 * i64::from(step))
        };
        let count = (1..).zip(&own[1..]).take_while(|&pair| again(pair)).count();
        // One repetition takes as much as the instruction itself.
        if count < 2 { none } else { Run { count: count as u32, interval, step } }
    }
}

/// What the moving field of the second instruction is greater by, if they are alike otherwise.
fn step(first: &Operation, second: &Operation) -> Option<i32> {
    let field = |operation: &Operation| match operation {
        Operation::Mem { read: Some((address, _)), .. } | Operation::Mem { write: Some((address, _)), .. } => *address,
        Operation::Load { column, .. } => *column,
        Operation::Accumulate { row, .. } => *row,
        _ => 0,
    };
    let step = i32::from(field(second)) - i32::from(field(first));
    (first.moved(i64::from(step)) == *second).then_some(step)
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::lpu::isa::{Direction, Reads, Stream};
    use crate::lpu::machine::tests::small_machine;
    use crate::lpu::timeline::dispatches;

    fn read(address: u16) -> Operation {
        Operation::Mem { read: Some((address, Stream { direction: Direction::East, number: 0 })), write: None }
    }

    fn emitted(placed: &[(u64, Operation)]) -> Vec<Operation> {
        let all = placed.iter().map(|&(cycle, operation)| Placed { queue: Queue::Mem(1), cycle, operation, kernel: 0 });
        let Emitted { queues, marks } = emit(all.collect(), &small_machine()).unwrap();
        assert_eq!(marks[1], [Mark { instructions: queues.0[1].len() as u32, kernel: 0 }]);
        let found: Vec<_> = dispatches(&queues.0[1]).collect();
        let mut expected = placed.to_vec();
        expected.sort_by_key(|&(cycle, _)| cycle);
        expected.push((found.last().unwrap().0, Operation::End));
        assert_eq!(found, expected);
        queues.0[1].clone()
    }

    #[test]
    fn what_comes_again_is_repeated() {
        let placed: Vec<_> = (0..20).map(|turn| (7 + 3 * turn, read(50 - 2 * turn as u16))).collect();
        let expected =
            [Operation::Nop(7), read(50), Operation::Repeat { count: 19, interval: 3, step: -2 }, Operation::End];
        assert_eq!(emitted(&placed), expected);
    }

    #[test]
    fn what_does_not_is_not() {
        assert_eq!(emitted(&[(4, read(9)), (0, read(3))]).len(), 4);
        emitted(&[(0, read(1)), (1, read(2)), (2, read(4)), (3, read(6)), (4, read(8)), (9, read(10))]);
        emitted(&[(0, Operation::Install), (2, Operation::Install), (4, Operation::Install), (5, read(0))]);
    }

    #[test]
    fn a_read_and_a_write_are_one_instruction() {
        let from = Reads { stream: Stream { direction: Direction::West, number: 2 }, take: true };
        let write = Operation::Mem { read: None, write: Some((70, from)) };
        let placed = |operation, kernel| Placed { queue: Queue::Mem(0), cycle: 5, operation, kernel };
        let Emitted { queues, .. } = emit(vec![placed(write, 1), placed(read(3), 2)], &small_machine()).unwrap();
        let Operation::Mem { read, .. } = read(3) else { return };
        let both = Operation::Mem { read, write: Some((70, from)) };
        assert_eq!(queues.0[0], [Operation::Nop(5), both, Operation::End]);
    }

    #[test]
    fn a_place_is_taken_once() {
        let placed = |address| Placed { queue: Queue::Mem(2), cycle: 3, operation: read(address), kernel: 0 };
        let error = emit(vec![placed(0), placed(1)], &small_machine()).unwrap_err();
        assert_eq!(error, Occupied { queue: Queue::Mem(2), cycle: 3 });
    }
}
