//! Identities: clicks, ads, campaigns, nodes.
//!
//! A [`ClickId`] is 64 bits. Minted ids (top bit clear) are Snowflakes: 41 bits of milliseconds since
//! [`SNOWFLAKE_EPOCH_MS`], 10 bits of worker id leased from the cluster, 12 bits of sequence. Foreign ids (top bit set)
//! are the first 63 bits of SHA-256 over the authenticated source, the campaign and the producer's own `event_id`. So a
//! producer can safely repeat a click, and it cannot suppress another producer's click: finding an id of another source
//! is a second-preimage search.
//!
//! The campaign belongs to the identity, because the campaign also decides which Raft group counts the click. Otherwise
//! one event under two campaigns would be one click or two, depending on the number of groups.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::event_time::UnixMillis;
use crate::fault::{Mutant, is_broken};

/// 2024-01-01T00:00:00Z. From here, 41 bits of milliseconds last until 2093.
pub const SNOWFLAKE_EPOCH_MS: UnixMillis = 1_704_067_200_000;
pub const WORKER_BITS: u32 = 10;
pub const SEQUENCE_BITS: u32 = 12;
pub const WORKERS_MAX: u16 = 1 << WORKER_BITS;
const SEQUENCE_MAX: u16 = (1 << SEQUENCE_BITS) - 1;
const MILLIS_MAX: u64 = (1 << 41) - 1;
const FOREIGN_BIT: u64 = 1 << 63;

pub type AdId = u64;
pub type CampaignId = u64;
pub type AdvertiserId = u64;

/// A cluster member. A machine whose disk was wiped gets a new id.
pub type NodeId = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClickId(pub u64);

impl ClickId {
    /// Hashes `length(source) as u32 LE ‖ source ‖ campaign as u64 LE ‖ event_id`, so that no two triples share an
    /// input.
    pub fn foreign(source: &str, campaign: CampaignId, event_id: &str) -> ClickId {
        let mut hasher = Sha256::new();
        let length = u32::try_from(source.len()).unwrap_or(u32::MAX);
        hasher.update(length.to_le_bytes());
        hasher.update(source.as_bytes());
        if !is_broken(Mutant::CampaignNotInIdentity) {
            hasher.update(campaign.to_le_bytes());
        }
        hasher.update(event_id.as_bytes());
        let digest = hasher.finalize();
        let mut head = [0_u8; 8];
        head.copy_from_slice(&digest[..8]);
        ClickId(u64::from_be_bytes(head) | FOREIGN_BIT)
    }

    pub fn minted(now_ms: UnixMillis, worker: u16, sequence: u16) -> ClickId {
        let millis = now_ms.saturating_sub(SNOWFLAKE_EPOCH_MS).min(MILLIS_MAX);
        debug_assert!(worker < WORKERS_MAX && sequence <= SEQUENCE_MAX);
        ClickId((millis << (WORKER_BITS + SEQUENCE_BITS)) | (u64::from(worker) << SEQUENCE_BITS) | u64::from(sequence))
    }

    pub fn is_foreign(self) -> bool {
        self.0 & FOREIGN_BIT != 0
    }

    /// Milliseconds since [`SNOWFLAKE_EPOCH_MS`]. Meaningful only for minted ids.
    pub fn minted_millis(self) -> u64 {
        self.0 >> (WORKER_BITS + SEQUENCE_BITS)
    }

    pub fn minted_worker(self) -> u16 {
        (self.0 >> SEQUENCE_BITS & u64::from(WORKERS_MAX - 1)) as u16
    }

    pub fn minted_sequence(self) -> u16 {
        (self.0 & u64::from(SEQUENCE_MAX)) as u16
    }
}

/// Mints unique, increasing click ids for one leased worker id. When the wall clock steps back, it continues from the
/// newest millisecond that it has used, so one lease never mints an id twice.
#[derive(Debug)]
pub struct SnowflakeMinter {
    worker: u16,
    last_ms: UnixMillis,
    sequence: u16,
}

impl SnowflakeMinter {
    pub fn new(worker: u16) -> SnowflakeMinter {
        assert!(worker < WORKERS_MAX, "worker id {worker} needs more than {WORKER_BITS} bits");
        SnowflakeMinter { worker, last_ms: 0, sequence: 0 }
    }

    pub fn mint(&mut self, now_ms: UnixMillis) -> ClickId {
        if now_ms > self.last_ms {
            self.last_ms = now_ms;
            self.sequence = 0;
        } else if self.sequence == SEQUENCE_MAX {
            // All 4,096 ids of this millisecond are used. Use the next millisecond instead of waiting for it.
            self.last_ms += 1;
            self.sequence = 0;
        } else {
            self.sequence += 1;
        }
        ClickId::minted(self.last_ms, self.worker, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_ids_grow_even_when_the_clock_steps_back_or_a_millisecond_is_full() {
        let mut minter = SnowflakeMinter::new(7);
        let mut last = ClickId(0);
        for step in 0..20_000_u64 {
            let now = SNOWFLAKE_EPOCH_MS + 1_000 - step % 3;
            let id = minter.mint(now);
            assert!(id > last && !id.is_foreign());
            last = id;
        }
    }

    #[test]
    fn foreign_ids_are_scoped_by_source_and_campaign() {
        assert_ne!(ClickId::foreign("a", 7, "bc"), ClickId::foreign("ab", 7, "c"));
        assert_ne!(ClickId::foreign("a", 7, "bc"), ClickId::foreign("a", 8, "bc"));
        assert_eq!(ClickId::foreign("a", 7, "bc"), ClickId::foreign("a", 7, "bc"));
        assert!(ClickId::foreign("a", 7, "bc").is_foreign());
    }
}
