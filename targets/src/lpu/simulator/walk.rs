//! The dispatches of all queues, cycle by cycle.

use crate::lpu::isa::{Operation, Queues};
use crate::lpu::timeline::{Span, Spans, spans};

/// The cycle of a queue that dispatches nothing more.
const NEVER: u64 = u64::MAX;

/// An instruction that a queue dispatches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dispatch<'a> {
    /// The number of the queue.
    pub queue: usize,
    operation: &'a Operation,
    /// What its moving field is greater by.
    by: i64,
}

impl<'a> Dispatch<'a> {
    /// The instruction, but for its moving field.
    pub fn kind(&self) -> &'a Operation {
        self.operation
    }

    /// The instruction as it is dispatched.
    pub fn operation(&self) -> Operation {
        self.operation.moved(self.by)
    }
}

/// A walk through all queues at the same time.
pub(super) struct Walk<'a> {
    queues: Vec<Rest<'a>>,
    /// The cycle in which each queue dispatches next. They are looked at in every cycle, so that they lie behind each other.
    next: Vec<u64>,
}

/// What a queue has still to dispatch: repetitions of a span, and the spans behind it.
struct Rest<'a> {
    spans: Spans<'a>,
    /// `None` once the queue has ended.
    span: Option<Span<'a>>,
    /// How often the span was dispatched.
    repetition: u32,
}

impl<'a> Walk<'a> {
    /// The dispatches of a program that goes on after its syncs in the cycles `resumes`.
    pub fn new(program: &'a Queues, resumes: &'a [Vec<u64>]) -> Self {
        let rest = |(queue, resumes): (&'a Vec<Operation>, &'a Vec<u64>)| {
            let mut rest = Rest { spans: spans(queue, resumes), span: None, repetition: 0 };
            rest.next_span();
            rest
        };
        let queues: Vec<_> = program.0.iter().zip(resumes).map(rest).collect();
        Walk { next: queues.iter().map(Rest::cycle).collect(), queues }
    }

    /// How many queues there are.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// The next cycle in which something is dispatched.
    pub fn next(&self) -> Option<u64> {
        self.next.iter().copied().min().filter(|&cycle| cycle != NEVER)
    }

    /// What a queue dispatches in a cycle, before which it dispatches nothing more.
    #[inline]
    pub fn dispatch(&mut self, queue: usize, cycle: u64) -> Option<Dispatch<'a>> {
        if self.next[queue] == cycle { self.advance(queue) } else { None }
    }

    fn advance(&mut self, queue: usize) -> Option<Dispatch<'a>> {
        let rest = &mut self.queues[queue];
        let span = rest.span?;
        let by = i64::from(rest.repetition) * i64::from(span.step);
        if rest.repetition == span.count {
            rest.next_span();
        } else {
            rest.repetition += 1;
        }
        self.next[queue] = rest.cycle();
        Some(Dispatch { queue, operation: span.operation, by })
    }

    /// Whether a queue dispatches nothing more.
    pub fn is_over(&self, queue: usize) -> bool {
        self.queues[queue].span.is_none()
    }
}

impl Rest<'_> {
    /// Goes on with the next span that is dispatched.
    fn next_span(&mut self) {
        self.span = self.spans.find(|span| !matches!(span.operation, Operation::Nop(_)));
        self.repetition = 0;
    }

    /// The cycle of the next dispatch.
    fn cycle(&self) -> u64 {
        self.span.map_or(NEVER, |span| span.cycle(self.repetition))
    }
}
