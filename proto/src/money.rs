//! Money: integer millionths of a currency, with checked arithmetic and without floats.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub type Micros = i64;

/// An ISO 4217 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    pub const USD: Currency = Currency(*b"USD");

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MoneyError {
    #[error("'{0}' is not a currency: use three capital letters of ISO 4217, such as USD")]
    Currency(String),
    #[error("cannot add {0} to {1}")]
    Mixed(Currency, Currency),
    #[error("an amount of money overflows")]
    Overflow,
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Currency, MoneyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Currency(code)),
            _ => Err(MoneyError::Currency(text)),
        }
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.as_str().to_owned()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    pub amount_micros: Micros,
    pub currency: Currency,
}

impl Money {
    pub fn checked_add(self, other: Money) -> Result<Money, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed(other.currency, self.currency));
        }
        let amount_micros = self.amount_micros.checked_add(other.amount_micros).ok_or(MoneyError::Overflow)?;
        Ok(Money { amount_micros, currency: self.currency })
    }
}

/// `clicks × price`. `None`: it overflows.
pub fn price_of(clicks: u64, price_micros: Micros) -> Option<Micros> {
    i64::try_from(clicks).ok()?.checked_mul(price_micros)
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.amount_micros < 0 { "-" } else { "" };
        let micros = self.amount_micros.unsigned_abs();
        write!(f, "{sign}{}.{:06} {}", micros / 1_000_000, micros % 1_000_000, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_prints_with_all_its_micros() {
        assert_eq!(Money { amount_micros: -1_500_000, currency: Currency::USD }.to_string(), "-1.500000 USD");
    }

    #[test]
    fn currencies_do_not_mix_and_sums_do_not_wrap() {
        let dollar = Money { amount_micros: i64::MAX, currency: Currency::USD };
        let euro = Money { amount_micros: 1, currency: Currency::try_from("EUR".to_owned()).unwrap() };
        assert!(matches!(dollar.checked_add(euro), Err(MoneyError::Mixed(..))));
        assert_eq!(dollar.checked_add(Money { amount_micros: 1, ..dollar }), Err(MoneyError::Overflow));
        assert_eq!(price_of(u64::MAX, 1), None);
        assert!(Currency::try_from("usd".to_owned()).is_err());
    }
}
