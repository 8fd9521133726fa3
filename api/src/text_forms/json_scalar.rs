//! A JSON number or string. Ids, times and prices are accepted as either, because JavaScript cannot hold every 64-bit
//! number.

use clicktally_proto::limits::ID_MAX;
use serde::Deserialize;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a number or a string")]
pub enum Scalar {
    #[schema(value_type = f64)]
    Number(serde_json::Number),
    Text(String),
}

impl Scalar {
    /// The number as JSON prints it, or the text.
    pub fn into_text(self) -> String {
        match self {
            Scalar::Number(number) => number.to_string(),
            Scalar::Text(text) => text,
        }
    }
}

/// An ad, campaign or advertiser id in decimal, 1 to 2^63 − 1.
pub fn parse_id(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_plain && (1..=ID_MAX).contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positive_and_fit_a_signed_column() {
        assert_eq!(parse_id("9223372036854775807"), Some(ID_MAX));
        for refused in ["0", "9223372036854775808", "-1", "+1", "1.0", "", " 1", "1e3"] {
            assert_eq!(parse_id(refused), None, "{refused}");
        }
    }

    #[test]
    fn numbers_and_strings_read_the_same() {
        let numbers: Vec<Scalar> = serde_json::from_str(r#"[7, "7", 9007199254740993]"#).unwrap();
        let texts: Vec<String> = numbers.into_iter().map(Scalar::into_text).collect();
        assert_eq!(texts, ["7", "7", "9007199254740993"]);
        assert!(serde_json::from_str::<Scalar>("[1]").is_err());
    }
}
