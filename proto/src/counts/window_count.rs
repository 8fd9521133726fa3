//! Records of the outbound topics: `window_counts`, `late_clicks`, `quarantine` (`schema/window_count.proto`).

use prost::Message;

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
    #[prost(bytes = "vec", tag = "4")]
    pub record: Vec<u8>,
}
