//! CT-14: after the faults everything heals. Each shard has an owner and is read to its end, all replicas are equal,
//! and fired windows are published and written.

use super::{Invariant, Violation};

/// What keeps a cluster from being at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    NoLeader,
    NoOwner { shard: u16 },
    Unread { shard: u16, committed: u64, end: u64 },
    ReplicaBehind { node: u64, applied: u64, committed: u64 },
    Unpublished { published: u64, newest: u64 },
    Unwritten { partition: i32, read: i64, end: i64 },
}

/// `waited_ms`: the time since the last fault.
pub fn check(unfinished: &[Unfinished], waited_ms: u64) -> Vec<Violation> {
    let violation = |what: &Unfinished| {
        let detail = format!("still {what:?} after {waited_ms} ms without a fault");
        Violation { invariant: Invariant::Liveness, detail }
    };
    unfinished.iter().map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_unfinished_is_named() {
        assert!(check(&[], 5).is_empty());
        let found = check(&[Unfinished::NoLeader, Unfinished::NoOwner { shard: 3 }], 30_000);
        assert!(found.len() == 2 && found[1].detail.contains("shard: 3"), "{found:?}");
    }
}
