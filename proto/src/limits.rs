//! Limits that more than one crate enforces, each written once.

/// Ad, campaign and advertiser ids fit a signed 64-bit column of PostgreSQL and Parquet: 1 to 2^63 − 1.
pub const ID_MAX: u64 = i64::MAX as u64;

/// UTF-8 bytes of a campaign's name: enforced at the door and again in apply.
pub const NAME_BYTES_MAX: usize = 256;
