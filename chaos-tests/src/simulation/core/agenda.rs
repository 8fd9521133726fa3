//! Events by time. Events of the same time come in the order in which they were added.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
struct Entry<E> {
    at_ms: u64,
    sequence: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Entry<E>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Entry<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The earliest is the greatest, because the heap returns the greatest first.
    fn cmp(&self, other: &Entry<E>) -> Ordering {
        (other.at_ms, other.sequence).cmp(&(self.at_ms, self.sequence))
    }
}

/// Simulated time, in milliseconds since the start of the run, and all events to come.
#[derive(Debug)]
pub(super) struct Agenda<E> {
    now_ms: u64,
    sequence: u64,
    entries: BinaryHeap<Entry<E>>,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Agenda<E> {
        Agenda { now_ms: 0, sequence: 0, entries: BinaryHeap::new() }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub(super) fn after(&mut self, delay_ms: u64, event: E) {
        self.sequence += 1;
        self.entries.push(Entry { at_ms: self.now_ms + delay_ms, sequence: self.sequence, event });
    }

    /// The next event, whose time becomes the present. Without an event up to `until_ms`, that time becomes the
    /// present.
    pub(super) fn next(&mut self, until_ms: u64) -> Option<E> {
        if self.entries.peek().is_none_or(|entry| entry.at_ms > until_ms) {
            self.now_ms = until_ms;
            return None;
        }
        let entry = self.entries.pop()?;
        self.now_ms = entry.at_ms;
        Some(entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_put_in() {
        let mut agenda = Agenda::new();
        for (delay, name) in [(20, 'c'), (10, 'a'), (10, 'b'), (99, 'd')] {
            agenda.after(delay, name);
        }
        let order: Vec<char> = std::iter::from_fn(|| agenda.next(50)).collect();
        assert_eq!(order, ['a', 'b', 'c']);
        assert_eq!((agenda.now_ms(), agenda.next(99)), (50, Some('d')));
    }
}
