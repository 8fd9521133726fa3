//! Ids that a producer makes of its own events.

use clicktally_proto::identity::ids::ClickId;
use sha2::{Digest, Sha256};

const FOREIGN_BIT: u64 = 1 << 63;

/// A hash of source and event. The product also hashes the campaign ([`ClickId::foreign`]). The simulation gives an
/// event one campaign, so any hash does, and this one keeps the stories of old seeds.
pub fn foreign_id(source: &str, event_id: &str) -> ClickId {
    let mut hasher = Sha256::new();
    hasher.update(u32::try_from(source.len()).unwrap_or(u32::MAX).to_le_bytes());
    hasher.update(source.as_bytes());
    hasher.update(event_id.as_bytes());
    let digest = hasher.finalize();
    let mut head = [0_u8; 8];
    head.copy_from_slice(&digest[..8]);
    ClickId(u64::from_be_bytes(head) | FOREIGN_BIT)
}
