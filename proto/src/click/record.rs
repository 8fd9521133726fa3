//! The click as its owner holds it, with its wire forms Protobuf (`schema/click.proto`) and a JSON object.
//!
//! Writers use this owned form. The counting path reads a `ClickView`.

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::event_time::UnixMillis;
use crate::identity::ids::{AdId, CampaignId, ClickId};

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Click {
    #[prost(uint64, tag = "1")]
    pub click_id: u64,
    #[prost(uint64, tag = "2")]
    pub campaign_id: CampaignId,
    #[prost(uint64, tag = "3")]
    pub ad_id: AdId,
    #[prost(uint64, tag = "4")]
    pub event_time_ms: UnixMillis,
    #[prost(uint64, tag = "5")]
    pub ingest_time_ms: UnixMillis,
    #[prost(string, tag = "6")]
    pub event_id: String,
    #[prost(string, tag = "7")]
    pub source: String,
    #[prost(string, tag = "8")]
    pub user_id: String,
    #[prost(string, tag = "9")]
    pub ip_address: String,
    #[prost(string, tag = "10")]
    pub user_agent: String,
    #[prost(string, tag = "11")]
    pub device_type: String,
    #[prost(string, tag = "12")]
    pub country: String,
    #[prost(string, tag = "13")]
    pub region: String,
    #[prost(string, tag = "14")]
    pub ad_format: String,
    #[prost(int64, tag = "15")]
    pub cost_per_click_micros: i64,
    #[prost(bytes = "vec", tag = "16")]
    pub impression_token: Vec<u8>,
    #[prost(uint32, tag = "17")]
    pub evidence: u32,
}

impl Click {
    pub fn id(&self) -> ClickId {
        ClickId(self.click_id)
    }

    /// Bytes of all its texts and its token.
    pub(crate) fn text_bytes(&self) -> usize {
        let Click {
            event_id, source, user_id, ip_address, user_agent, device_type, country, region, ad_format, ..
        } = self;
        let texts = [event_id, source, user_id, ip_address, user_agent, device_type, country, region, ad_format];
        texts.into_iter().map(String::len).sum::<usize>() + self.impression_token.len()
    }
}

/// The largest record that is decoded. Readers of the log hand over one byte more at most, so that every reader refuses
/// the same records, and none needs memory for what a small batch may decompress to.
pub const RECORD_BYTES_MAX: usize = 24 << 20;
const _: () = assert!(COLUMN_BYTES_MAX < RECORD_BYTES_MAX, "what exceeds columns is written as rows, and read");

/// The most clicks in one packed record: bounds what one malformed record can cost.
pub const CLICKS_PER_RECORD_MAX: usize = 10_000;

/// The most bytes of texts and tokens in a record of columns, once every click has its own copy. A column holds a value
/// that all clicks share only once, so a small record could become a very large one. A record of rows cannot.
pub(crate) const COLUMN_BYTES_MAX: usize = 16 << 20;
