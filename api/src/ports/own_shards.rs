//! What only the owner of a shard knows about it.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::identity::shard_key::ShardId;

/// The shards that this node owns.
pub trait OwnShards: Send + Sync {
    fn shards(&self) -> BTreeMap<ShardId, OwnShard>;
}

/// A shard that this node owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnShard {
    /// How long the shard committed nothing when it moved here; `None` if it had no owner before.
    pub move_pause: Option<Duration>,
}
