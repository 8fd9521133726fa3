//! Money as requests and answers write it.

use clicktally_proto::money::{Currency, Money};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::exact_number::ExactNumber;

/// Millionths of a currency: `{"amount_micros": 1500000, "currency": "USD"}` is 1.50 USD.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoneyBody {
    pub amount_micros: ExactNumber,
    /// ISO 4217.
    #[schema(value_type = String)]
    pub currency: Currency,
}

impl From<Money> for MoneyBody {
    fn from(money: Money) -> MoneyBody {
        MoneyBody { amount_micros: money.amount_micros.into(), currency: money.currency }
    }
}
