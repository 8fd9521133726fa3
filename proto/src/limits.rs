//! Limits that more than one crate enforces, each written once.

use crate::money::Micros;

/// The largest ad, campaign or advertiser id, 2^63 − 1. Ids start at 1 and fit a signed 64-bit column of PostgreSQL and
/// Parquet.
pub const ID_MAX: u64 = i64::MAX as u64;

/// The largest id of a node, 2^53 − 1. Answers write node ids as JSON numbers, and JavaScript rounds larger ones.
pub const NODE_ID_MAX: u64 = (1 << 53) - 1;

/// The longest name of a campaign, in UTF-8 bytes. The HTTP interface enforces it, and so does apply.
pub const NAME_BYTES_MAX: usize = 256;

/// The longest texts that a click may carry, in UTF-8 bytes. Capture enforces them, and so does whatever reads clicks
/// from a foreign log.
pub const EVENT_ID_BYTES_MAX: usize = 256;
pub const USER_ID_BYTES_MAX: usize = 256;
pub const USER_AGENT_BYTES_MAX: usize = 1_024;
/// Device type, country, region, ad format.
pub const LABEL_BYTES_MAX: usize = 64;

/// The highest price of a click, and the highest cost that a click itself may name: a million units of a currency, in
/// micros.
pub const PRICE_MICROS_MAX: Micros = 1_000_000_000_000;

/// The highest budget and tolerance of a campaign: a thousand million units of a currency, in micros. A campaign is
/// never billed beyond its budget, so sums over thousands of campaigns fit 64 bits.
pub const BUDGET_MICROS_MAX: Micros = 1_000_000_000_000_000;

const _: () = assert!(
    i64::MAX / BUDGET_MICROS_MAX >= 9_000 && i64::MAX / PRICE_MICROS_MAX >= 9_000_000,
    "nine thousand budgets and nine million costs of a click have a sum"
);
