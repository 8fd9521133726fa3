//! Encodes clicks as a record of the raw log.

use prost::Message;

use crate::click::columns::{COLUMNS_FIELD, ClickColumns, ROWS_FIELD};
use crate::click::record::{CLICKS_PER_RECORD_MAX, COLUMN_BYTES_MAX, Click};

/// Encodes clicks of one partition as the smallest suitable record: a bare `Click`, or a `ClickBatch` of columns. Where
/// the texts are too long for columns, it is a `ClickBatch` of rows.
///
/// Panics without clicks, or with more than [`CLICKS_PER_RECORD_MAX`].
pub fn encode_record(clicks: &[Click]) -> Vec<u8> {
    assert!(!clicks.is_empty() && clicks.len() <= CLICKS_PER_RECORD_MAX, "readers refuse any other number of clicks");
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

/// The packed form of before there were columns. Readers still take it.
pub(crate) fn encode_rows(clicks: &[Click]) -> Vec<u8> {
    let mut record = Vec::new();
    clicks.iter().for_each(|click| prost::encoding::message::encode(ROWS_FIELD, click, &mut record));
    record
}
