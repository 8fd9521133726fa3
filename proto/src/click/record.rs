//! The click and its two wire forms: Protobuf (`schema/click.proto`), and a JSON object for producers without Protobuf.
//!
//! Writers use the owned [`Click`]; the counting path reads [`crate::click::view::ClickView`], which borrows.

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::click::columns::{COLUMNS_FIELD, ClickColumns, ROWS_FIELD};
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

    /// Of all its texts and its token.
    fn text_bytes(&self) -> usize {
        let Click {
            event_id, source, user_id, ip_address, user_agent, device_type, country, region, ad_format, ..
        } = self;
        let texts = [event_id, source, user_id, ip_address, user_agent, device_type, country, region, ad_format];
        texts.into_iter().map(String::len).sum::<usize>() + self.impression_token.len()
    }
}

/// The most clicks a packed record may hold: bounds what one poisoned record can cost.
pub const CLICKS_PER_RECORD_MAX: usize = 10_000;

/// The most bytes of texts and tokens the clicks of a record of columns may come to once each has its own: a column holds what is the same
/// in all clicks once, and so little could become very much. Records of rows are no larger than they are.
pub(crate) const COLUMN_BYTES_MAX: usize = 16 << 20;

/// Encodes clicks of one partition as the smallest suitable record: a bare `Click`, or a `ClickBatch` of columns (of rows where the texts are
/// too long for columns).
pub fn encode_record(clicks: &[Click]) -> Vec<u8> {
    assert!(!clicks.is_empty() && clicks.len() <= CLICKS_PER_RECORD_MAX);
    if let [click] = clicks {
        return click.encode_to_vec();
    }
    if clicks.iter().map(Click::text_bytes).sum::<usize>() > COLUMN_BYTES_MAX {
        return encode_rows(clicks);
    }
    let columns = ClickColumns::of(clicks);
    let mut record = Vec::new();
    prost::encoding::message::encode(COLUMNS_FIELD, &columns, &mut record);
    record
}

/// As packed records were before there were columns.
pub(crate) fn encode_rows(clicks: &[Click]) -> Vec<u8> {
    let mut record = Vec::new();
    clicks.iter().for_each(|click| prost::encoding::message::encode(ROWS_FIELD, click, &mut record));
    record
}
