//! The wires between the hosts: datagrams in flight, cut links, and what happens to a datagram: loss, a second copy, a
//! long delay. Each takes its own time, so that datagrams overtake each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use clicktally_proto::identity::ids::NodeId;
use tokio::sync::mpsc;

use crate::simulation::random::Stream;

/// Datagrams that a host's kernel keeps for a process that does not read. Further ones are lost.
const DATAGRAMS_QUEUED_MAX: usize = 4_096;
/// How long a datagram takes: at least, at most in nine of ten cases, and at most. Microseconds.
const LATENCY_US: [u64; 3] = [100, 800, 5_000];
const SLOW_PERMILLE: u64 = 100;
/// A second copy comes at least this much later.
const COPY_DELAY_MS: u64 = 1;

/// What may happen to a datagram on one way, each in so many of a thousand cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LinkWeather {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) delayed: u64,
    /// The longest such delay.
    pub(super) delay_ms: u64,
}

pub(super) struct Wire {
    random: Stream,
    /// By the way (from, to) of a datagram.
    pub(super) links: BTreeMap<(NodeId, NodeId), LinkWeather>,
    /// Ways that deliver nothing.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// The number of datagrams ever sent.
    pub(super) sent: u64,
    /// By arrival time, then by the order in which they were sent.
    flying: BTreeMap<(Duration, u64), (NodeId, Bytes)>,
    copies: u64,
    inboxes: BTreeMap<NodeId, mpsc::Sender<Bytes>>,
}

impl Wire {
    pub(super) fn new(random: Stream) -> Wire {
        Wire {
            random,
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            sent: 0,
            flying: BTreeMap::new(),
            copies: 0,
            inboxes: BTreeMap::new(),
        }
    }

    /// This life of the node receives from now on.
    pub(super) fn bind(&mut self, node: NodeId) -> mpsc::Receiver<Bytes> {
        let (inbox, receiver) = mpsc::channel(DATAGRAMS_QUEUED_MAX);
        self.inboxes.insert(node, inbox);
        receiver
    }

    /// Returns true if a question or its answer is certainly lost.
    pub(super) fn is_cut_between(&self, one: NodeId, other: NodeId) -> bool {
        self.cut.contains(&(one, other)) || self.cut.contains(&(other, one))
    }

    /// Returns true if a copy of it is in flight.
    pub(super) fn send(&mut self, now: Duration, from: NodeId, to: NodeId, datagram: &Bytes) -> bool {
        self.sent += 1;
        if self.cut.contains(&(from, to)) {
            return false;
        }
        let link = self.links.get(&(from, to)).copied().unwrap_or_default();
        if self.random.permille(link.lost) {
            return false;
        }
        self.fly(now, to, link, datagram);
        if self.random.permille(link.doubled) {
            self.fly(now + Duration::from_millis(COPY_DELAY_MS), to, link, datagram);
        }
        true
    }

    fn fly(&mut self, leaves: Duration, to: NodeId, link: LinkWeather, datagram: &Bytes) {
        let delay_ms = if self.random.permille(link.delayed) { self.random.between(1, link.delay_ms) } else { 0 };
        let [least, usual, most] = LATENCY_US;
        let is_slow = self.random.permille(SLOW_PERMILLE);
        let latency_us = if is_slow { self.random.between(usual, most) } else { self.random.between(least, usual) };
        self.copies += 1;
        let arrives = leaves + Duration::from_millis(delay_ms) + Duration::from_micros(latency_us);
        self.flying.insert((arrives, self.copies), (to, datagram.clone()));
    }

    /// Delivers everything due by now to its inbox. A datagram for a full or a missing inbox is lost.
    pub(super) fn deliver(&mut self, now: Duration) {
        while let Some(due) = self.flying.first_entry().filter(|due| due.key().0 <= now) {
            let (to, datagram) = due.remove();
            if let Some(inbox) = self.inboxes.get(&to) {
                let _ = inbox.try_send(datagram);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::random::Seed;

    const LATE: Duration = Duration::from_millis(10);

    fn received(inbox: &mut mpsc::Receiver<Bytes>) -> usize {
        std::iter::from_fn(|| inbox.try_recv().ok()).count()
    }

    #[test]
    fn a_datagram_takes_its_time_and_comes_once_not_at_all_or_twice() {
        let mut wire = Wire::new(Seed(1).stream("network"));
        let mut inbox = wire.bind(2);
        let datagram = Bytes::from_static(b"x");
        wire.send(Duration::ZERO, 1, 2, &datagram);
        wire.deliver(Duration::ZERO);
        assert_eq!(received(&mut inbox), 0, "nothing is there at once");
        wire.deliver(LATE);
        assert_eq!(received(&mut inbox), 1);
        wire.cut.insert((1, 2));
        wire.send(LATE, 1, 2, &datagram);
        wire.send(LATE, 3, 2, &datagram);
        wire.links.insert((3, 2), LinkWeather { doubled: 1_000, ..LinkWeather::default() });
        wire.send(LATE, 3, 2, &datagram);
        wire.links.insert((3, 2), LinkWeather { lost: 1_000, ..LinkWeather::default() });
        wire.send(LATE, 3, 2, &datagram);
        wire.deliver(2 * LATE);
        assert_eq!(received(&mut inbox), 3, "one as it is and one twice");
    }

    #[test]
    fn what_a_life_has_not_read_dies_with_it() {
        let mut wire = Wire::new(Seed(1).stream("network"));
        let former = wire.bind(2);
        for _ in 0..2 * DATAGRAMS_QUEUED_MAX {
            wire.send(Duration::ZERO, 1, 2, &Bytes::new());
        }
        wire.deliver(LATE);
        assert_eq!(former.len(), DATAGRAMS_QUEUED_MAX, "the rest is lost");
        assert_eq!(received(&mut wire.bind(2)), 0);
    }
}
