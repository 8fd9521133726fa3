//! Money as requests and answers write it.

use clicktally_proto::money::Currency;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Millionths of a currency: `{"amount_micros": 1500000, "currency": "USD"}` is 1.50 USD.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoneyBody {
    pub amount_micros: i64,
    /// ISO 4217.
    #[schema(value_type = String)]
    pub currency: Currency,
}
