//! Identities: ids, the partitioner that derives group, salt and shard from them, and packed sets of counted ids.

pub mod ids;
pub mod log_id;
pub mod seen_ids;
pub mod shard_key;
