//! Why a record of the raw log cannot be read.

use thiserror::Error;

use crate::click::json_object::JsonError;
use crate::click::record::{CLICKS_PER_RECORD_MAX, COLUMN_BYTES_MAX, RECORD_BYTES_MAX};
use crate::limits::PRICE_MICROS_MAX;
use crate::next_move::NextMove;

/// Why a record cannot be counted. Such a record goes to quarantine with its offset.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("the record is empty")]
    Empty,
    #[error("truncated or over-long field at byte {0}")]
    Truncated(usize),
    #[error("field {0} has a wire type this schema does not use")]
    WireType(u64),
    #[error("text field {0} is not UTF-8")]
    Text(u64),
    #[error("a click lacks {0}")]
    Missing(&'static str),
    #[error("a click costs more than {PRICE_MICROS_MAX} micros")]
    CostTooHigh,
    #[error("more than {CLICKS_PER_RECORD_MAX} clicks in one record")]
    TooMany,
    #[error("a batch has field {0}, which this version does not know: upgrade, then send the record again")]
    UnknownBatchField(u64),
    #[error("column {field} has {values} values for {clicks} clicks")]
    ColumnLength { field: u64, values: usize, clicks: usize },
    #[error("column {0} occurs twice")]
    ColumnTwice(u64),
    #[error("column {0} has lengths or numbers that do not fit its values")]
    ColumnValue(u64),
    #[error("the texts of its columns exceed {COLUMN_BYTES_MAX} bytes: send fewer clicks, or send rows")]
    ColumnBytes,
    #[error("a batch has a row after its columns: send rows before columns")]
    RowBehindColumns,
    #[error("field {0} is larger than its type")]
    TooLarge(u64),
    #[error("the record has more than {RECORD_BYTES_MAX} bytes")]
    TooLong,
    #[error("not a JSON click: {0}")]
    Json(#[from] JsonError),
}

impl Malformed {
    /// Always [`NextMove::Reject`]: the record stays as it is, so its reader quarantines it and goes on with the
    /// others.
    pub fn next_move(&self) -> NextMove {
        NextMove::Reject
    }
}
