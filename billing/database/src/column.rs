//! How numbers cross between Rust and PostgreSQL, whose integers are all signed.

use chrono::{DateTime, Utc};
use clicktally_proto::event_time::{Minute, UnixMillis};
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_proto::money::Currency;

use crate::error::DatabaseError;

pub(crate) fn to_bigint(value: u64, what: &'static str) -> Result<i64, DatabaseError> {
    i64::try_from(value).map_err(|_| DatabaseError::OutOfRange(what))
}

/// Reads a `bigint` that a constraint keeps from being negative.
pub(crate) fn from_bigint(value: i64, what: &'static str) -> Result<u64, DatabaseError> {
    u64::try_from(value).map_err(|_| DatabaseError::OutOfRange(what))
}

/// The same, for a number that is calculated with as a signed one.
pub(crate) fn not_negative(value: i64, what: &'static str) -> Result<i64, DatabaseError> {
    if value >= 0 { Ok(value) } else { Err(DatabaseError::OutOfRange(what)) }
}

pub(crate) fn to_timestamp(time_ms: UnixMillis) -> Result<DateTime<Utc>, DatabaseError> {
    i64::try_from(time_ms).ok().and_then(DateTime::from_timestamp_millis).ok_or(DatabaseError::OutOfRange("time"))
}

pub(crate) fn to_minute(time: DateTime<Utc>) -> Result<Minute, DatabaseError> {
    u32::try_from(time.timestamp() / 60).map(Minute).map_err(|_| DatabaseError::OutOfRange("minute"))
}

pub(crate) fn to_shard(column: i32) -> Result<ShardId, DatabaseError> {
    u16::try_from(column).map(ShardId).map_err(|_| DatabaseError::OutOfRange("shard"))
}

pub(crate) fn to_currency(code: String) -> Result<Currency, DatabaseError> {
    Currency::try_from(code).map_err(|error| DatabaseError::Currency(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_does_not_fit_is_an_error_and_never_wraps() {
        assert_eq!(to_bigint(i64::MAX.unsigned_abs(), "clicks").unwrap(), i64::MAX);
        assert!(to_bigint(i64::MAX.unsigned_abs() + 1, "clicks").is_err());
        assert!(from_bigint(-1, "clicks").is_err());
        assert!(not_negative(-1, "price").is_err() && not_negative(0, "price").is_ok());
        assert!(to_timestamp(u64::MAX).is_err());
        assert!(to_shard(-1).is_err() && to_shard(65_536).is_err());
    }
}
