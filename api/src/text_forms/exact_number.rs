//! Whole numbers in answers, so that no client loses digits: a JSON number up to 2^53 − 1, a decimal string beyond.
//!
//! JavaScript, jq and spreadsheets round larger numbers without a word. `docs/decisions/023-json-bodies.md` compares
//! the alternatives.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::json_scalar::Scalar;

/// 2^53 − 1. Every whole number up to this is exact in a 64-bit float.
pub const EXACT_IN_A_FLOAT_MAX: u64 = (1 << 53) - 1;

/// An id or an amount: any whole number of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExactNumber(i128);

impl From<u64> for ExactNumber {
    fn from(number: u64) -> ExactNumber {
        ExactNumber(number.into())
    }
}

impl From<i64> for ExactNumber {
    fn from(number: i64) -> ExactNumber {
        ExactNumber(number.into())
    }
}

impl ExactNumber {
    /// `None`: it does not fit.
    pub fn to_i64(self) -> Option<i64> {
        self.0.try_into().ok()
    }

    /// `None`: it does not fit.
    pub fn to_u64(self) -> Option<u64> {
        self.0.try_into().ok()
    }
}

impl Serialize for ExactNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(self.0) {
            Ok(number) if number.unsigned_abs() <= EXACT_IN_A_FLOAT_MAX => serializer.serialize_i64(number),
            _ => serializer.collect_str(&self.0),
        }
    }
}

/// A number, or a string of its digits.
impl<'de> Deserialize<'de> for ExactNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExactNumber, D::Error> {
        let text = Scalar::deserialize(deserializer)?.into_text();
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let fits = |number: &i128| i64::try_from(*number).is_ok() || u64::try_from(*number).is_ok();
        let number = text.parse().ok().filter(|number| is_plain && fits(number));
        number
            .map(ExactNumber)
            .ok_or_else(|| D::Error::custom("expected a whole number of 64 bits, or a string of its digits"))
    }
}

impl PartialSchema for ExactNumber {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).build();
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let description = "A whole number up to 2^53 - 1, or a string of its digits beyond";
        OneOfBuilder::new().item(number).item(text).description(Some(description)).into()
    }
}

impl ToSchema for ExactNumber {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_that_a_float_would_round_is_a_string() {
        let written = |number: ExactNumber| serde_json::to_string(&number).unwrap();
        assert_eq!(written(9_007_199_254_740_991_u64.into()), "9007199254740991");
        assert_eq!(written(9_007_199_254_740_992_u64.into()), r#""9007199254740992""#);
        assert_eq!(written((-9_007_199_254_740_991_i64).into()), "-9007199254740991");
        assert_eq!(written(i64::MIN.into()), r#""-9223372036854775808""#);
        assert_eq!(written(u64::MAX.into()), r#""18446744073709551615""#);
        for refused in ["1.5", "1e3", "\"+7\"", "\"\"", "18446744073709551616", "\"18446744073709551616\"", "null"] {
            assert!(serde_json::from_str::<ExactNumber>(refused).is_err(), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_no_float_loses_it(number in any::<i64>()) {
            let written = serde_json::to_string(&ExactNumber::from(number)).unwrap();
            prop_assert_eq!(serde_json::from_str::<ExactNumber>(&written).unwrap().to_i64(), Some(number));
            let as_javascript_reads_it = match serde_json::from_str(&written).unwrap() {
                serde_json::Value::String(text) => text,
                number => format!("{:.0}", number.as_f64().unwrap()),
            };
            prop_assert_eq!(as_javascript_reads_it, number.to_string());
        }
    }
}
