//! From instructions with the cycles in which they are dispatched to queues: what lies between becomes nops, and what is done
//! again and again becomes repeats.

use super::LpuMachine;
use super::isa::{Operation, Queue, Queues};

/// An instruction with the queue and the cycle in which it is dispatched. The queues' own instructions have no place here.
pub type Placed = (Queue, u64, Operation);

/// Two instructions of one queue in one cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two instructions of {queue} are dispatched in cycle {cycle}; please report this")]
pub struct Occupied {
    /// The queue.
    pub queue: Queue,
    /// The cycle.
    pub cycle: u64,
}

/// Writes queues that dispatch every instruction in its cycle, and end.
///
/// # Errors
/// Two instructions want the same place.
pub fn emit(mut placed: Vec<Placed>, machine: &LpuMachine) -> Result<Queues, Occupied> {
    placed.sort_by_key(|&(queue, cycle, _)| (queue, cycle));
    let mut rest = &placed[..];
    let mut queues: Vec<(Queue, Vec<Operation>)> = Vec::new();
    while let Some(&(queue, ..)) = rest.first() {
        let (own, others) = rest.split_at(rest.partition_point(|&(other, ..)| other == queue));
        queues.push((queue, emit_queue(own)?));
        rest = others;
    }
    let of = |queue: Queue| {
        let found = queues.binary_search_by_key(&queue, |(queue, _)| *queue);
        let mut operations = found.map_or_else(|_| Vec::new(), |index| queues[index].1.clone());
        operations.push(Operation::End);
        operations
    };
    Ok(Queues(machine.queues().into_iter().map(of).collect()))
}

/// The instructions of one queue, in the order of cycles.
fn emit_queue(placed: &[Placed]) -> Result<Vec<Operation>, Occupied> {
    let mut operations = Vec::new();
    let (mut next, mut at) = (0, 0);
    while let Some(&(queue, cycle, operation)) = placed.get(at) {
        let idle = cycle.checked_sub(next).ok_or(Occupied { queue, cycle })?;
        // A queue stands still for longer than a nop can say.
        let mut left = idle;
        while left > 0 {
            let cycles = u32::try_from(left).unwrap_or(u32::MAX);
            operations.push(Operation::Nop(cycles));
            left -= u64::from(cycles);
        }
        operations.push(operation);
        let run = Run::from(&placed[at..]);
        if run.count > 0 {
            operations.push(Operation::Repeat { count: run.count, interval: run.interval, step: run.step });
        }
        at += 1 + run.count as usize;
        next = cycle + u64::from(run.count) * u64::from(run.interval) + 1;
    }
    Ok(operations)
}

/// How often the first of some instructions comes again, at equal distances and with equal steps of its moving field.
struct Run {
    count: u32,
    interval: u32,
    step: i32,
}

impl Run {
    fn from(placed: &[Placed]) -> Run {
        let none = Run { count: 0, interval: 1, step: 0 };
        let [(_, first, operation), (_, second, next), ..] = placed else { return none };
        let (Ok(interval), Some(step)) = (u32::try_from(second.wrapping_sub(*first)), step(operation, next)) else {
            return none;
        };
        if interval == 0 {
            return none;
        }
        let again = |(index, (_, cycle, other)): (u64, &Placed)| {
            *cycle == first + index * u64::from(interval) && *other == operation.moved(index as i64 * i64::from(step))
        };
        let count = (1..).zip(&placed[1..]).take_while(|&pair| again(pair)).count();
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
    use crate::lpu::isa::{Direction, Stream};
    use crate::lpu::machine::tests::small_machine;
    use crate::lpu::timeline::dispatches;

    fn read(address: u16) -> Operation {
        Operation::Mem { read: Some((address, Stream { direction: Direction::East, number: 0 })), write: None }
    }

    fn emitted(placed: &[(u64, Operation)]) -> Vec<Operation> {
        let placed: Vec<Placed> = placed.iter().map(|&(cycle, operation)| (Queue::Mem(1), cycle, operation)).collect();
        let queues = emit(placed.clone(), &small_machine()).unwrap();
        let found: Vec<_> = dispatches(&queues.0[1]).collect();
        let mut expected: Vec<_> = placed.iter().map(|&(_, cycle, operation)| (cycle, operation)).collect();
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
    fn a_place_is_taken_once() {
        let placed = vec![(Queue::Mem(2), 3, read(0)), (Queue::Mem(2), 3, read(1))];
        let error = emit(placed, &small_machine()).unwrap_err();
        assert_eq!(error, Occupied { queue: Queue::Mem(2), cycle: 3 });
    }
}
