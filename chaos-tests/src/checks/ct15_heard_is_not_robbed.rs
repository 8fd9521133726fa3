//! CT-15: no shard is taken from a node that its leader has heard within a lease, regardless of wall clocks.

use super::{Invariant, Violation};

/// An assignment that the owner did not ask for, as its leader saw the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Robbery {
    pub shard: u16,
    pub owner: u64,
    pub leader: u64,
    /// In true time. `None` if the leader has not heard the owner in this life.
    pub heard_ago_ms: Option<u64>,
}

/// `lease_ms`: the lease minus the possible drift of two clocks within it.
pub fn check(robbery: &Robbery, lease_ms: u64) -> Option<Violation> {
    let Robbery { shard, owner, leader, heard_ago_ms } = *robbery;
    let heard_ago_ms = heard_ago_ms.filter(|ago| *ago < lease_ms)?;
    let detail =
        format!("node {leader} took shard {shard} from node {owner}, which it had heard {heard_ago_ms} ms before");
    Some(Violation { invariant: Invariant::HeardIsNotRobbed, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_silent_lose_their_shards() {
        let robbery = Robbery { shard: 1, owner: 2, leader: 3, heard_ago_ms: Some(999) };
        assert!(check(&robbery, 1_000).is_some());
        assert_eq!(check(&Robbery { heard_ago_ms: Some(1_000), ..robbery }, 1_000), None);
        assert_eq!(check(&Robbery { heard_ago_ms: None, ..robbery }, 1_000), None);
    }
}
