//! Records of the outbound topics: `window_counts`, `late_clicks`, `quarantine` (`schema/window_count.proto`).

use prost::Message;
use sha2::{Digest, Sha256};

use crate::identity::shard_key::ShardId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum WindowState {
    Unspecified = 0,
    Fired = 1,
    Corrected = 2,
    Final = 3,
}

impl WindowState {
    /// The form in PostgreSQL and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            WindowState::Unspecified => "open",
            WindowState::Fired => "fired",
            WindowState::Corrected => "corrected",
            WindowState::Final => "final",
        }
    }
}

/// Absolute values of one (ad, campaign, minute) at one revision.
#[derive(Clone, PartialEq, Message)]
pub struct WindowCount {
    #[prost(uint64, tag = "1")]
    pub ad_id: u64,
    #[prost(uint64, tag = "2")]
    pub campaign_id: u64,
    #[prost(uint32, tag = "3")]
    pub minute: u32,
    #[prost(uint64, tag = "4")]
    pub clicks: u64,
    #[prost(uint64, tag = "5")]
    pub invalid_clicks: u64,
    #[prost(int64, tag = "6")]
    pub spend_micros: i64,
    #[prost(uint64, tag = "7")]
    pub revision: u64,
    #[prost(enumeration = "WindowState", tag = "8")]
    pub state: i32,
    #[prost(uint64, tag = "9")]
    pub unique_users: u64,
    #[prost(bytes = "vec", tag = "10")]
    pub user_sketch: Vec<u8>,
    #[prost(int64, tag = "11")]
    pub cost_sum_micros: i64,
    #[prost(uint64, tag = "12")]
    pub cost_count: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct LateClick {
    #[prost(uint64, tag = "1")]
    pub click_id: u64,
    #[prost(uint64, tag = "2")]
    pub campaign_id: u64,
    #[prost(uint64, tag = "3")]
    pub ad_id: u64,
    #[prost(uint64, tag = "4")]
    pub event_time_ms: u64,
    #[prost(uint32, tag = "5")]
    pub shard: u32,
    #[prost(int64, tag = "6")]
    pub offset: i64,
    #[prost(uint64, tag = "7")]
    pub watermark_ms: u64,
    #[prost(bool, tag = "8")]
    pub valid: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Quarantined {
    #[prost(uint32, tag = "1")]
    pub shard: u32,
    #[prost(int64, tag = "2")]
    pub offset: i64,
    #[prost(string, tag = "3")]
    pub reason: String,
    /// The record, or its beginning.
    #[prost(bytes = "vec", tag = "4")]
    pub record: Vec<u8>,
    /// Length of the whole record; 0 if `record` is all of it.
    #[prost(uint64, tag = "5")]
    pub record_bytes: u64,
    /// Hash of the whole record; empty if `record` is all of it.
    #[prost(bytes = "vec", tag = "6")]
    pub record_sha256: Vec<u8>,
}

/// What quarantine keeps of a record. The raw log and the archive have all of it. A quarantine record must always be
/// writable, because a shard cannot go on without it.
pub const QUARANTINED_BYTES_MAX: usize = 64 * 1024;
const REASON_BYTES_MAX: usize = 1024;

impl Quarantined {
    /// `record`: as the log holds it.
    pub fn of(shard: ShardId, offset: i64, mut reason: String, record: &[u8]) -> Quarantined {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        let shard = u32::from(shard.0);
        if record.len() <= QUARANTINED_BYTES_MAX {
            let record = record.to_vec();
            return Quarantined { shard, offset, reason, record, record_bytes: 0, record_sha256: Vec::new() };
        }
        let (record_bytes, record_sha256) = (record.len() as u64, Sha256::digest(record).to_vec());
        let record = record[..QUARANTINED_BYTES_MAX].to_vec();
        Quarantined { shard, offset, reason, record, record_bytes, record_sha256 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_record_is_kept_in_part_and_can_be_told_from_others() {
        let of = |record: &[u8]| Quarantined::of(ShardId(3), 9, "ä".repeat(2_000), record);
        let short = of(&vec![7; QUARANTINED_BYTES_MAX]);
        assert_eq!((short.record.len(), short.record_bytes), (QUARANTINED_BYTES_MAX, 0));
        assert!(short.record_sha256.is_empty());
        let mut record = vec![7; 5 << 20];
        let long = of(&record);
        assert_eq!((long.record.len() as u64, long.record_bytes), (QUARANTINED_BYTES_MAX as u64, 5 << 20));
        assert!(long.encode_to_vec().len() < QUARANTINED_BYTES_MAX + 2 * REASON_BYTES_MAX);
        *record.last_mut().unwrap() = 8;
        assert_ne!(of(&record).record_sha256, long.record_sha256);
    }
}
