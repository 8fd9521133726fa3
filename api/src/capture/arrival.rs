//! When the clicks of a request arrive, and how far their own times may differ from that.
//!
//! How far ahead is a rule of the click's group, which the stream and the batch count by as well. So no click is
//! acknowledged here and set aside there, as long as the clocks of this node and of the log agree: the stream compares
//! with the log's.

use clicktally_proto::event_time::{EventTimeRules, UnixMillis};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::identity::shard_key::Partitioner;

/// How far before its arrival a click may be dated. A click that comes by the log may be older: it is late then.
pub const BEHIND_MAX_MS: u64 = 5 * 60_000;

#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// By the clock of this node.
    pub now_ms: UnixMillis,
    pub partitioner: Partitioner,
    pub rules: &'a [EventTimeRules],
}

impl Arrival<'_> {
    /// The latest time that a click of the campaign may have.
    pub fn newest_ms(&self, campaign: CampaignId) -> UnixMillis {
        let group = usize::from(self.partitioner.group(campaign).0);
        // A node has a replica of every group, so only tests use the defaults.
        self.rules.get(group).copied().unwrap_or_default().newest_ms(self.now_ms)
    }

    pub fn oldest_ms(&self) -> UnixMillis {
        self.now_ms.saturating_sub(BEHIND_MAX_MS)
    }
}
