//! Limits that more than one crate enforces, each written once.

/// The largest ad, campaign or advertiser id, 2^63 − 1. Ids start at 1 and fit a signed 64-bit column of PostgreSQL and
/// Parquet.
pub const ID_MAX: u64 = i64::MAX as u64;

/// The longest name of a campaign, in UTF-8 bytes. The HTTP interface enforces it, and so does apply.
pub const NAME_BYTES_MAX: usize = 256;
