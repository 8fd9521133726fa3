//! JSON lines: one object per line, by the rules that capture has for a click in JSON: a whole number keeps its digits,
//! and `null` is absence. A field that is wrong matters only if it is needed.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::fields::{FieldValue, Fields};
use crate::skip::{FieldFault, SkipReason};

/// So many characters of a number that is out of range are shown.
const NUMBER_CHARACTERS_SHOWN: usize = 40;
/// So many fields of one object are read.
const FIELDS_MAX: usize = 256;

pub fn parse(line: &[u8]) -> Result<Fields<'static>, SkipReason> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let refuse = |error: serde_json::Error| SkipReason::NotJson(error.to_string());
    let fields = json.deserialize_map(ObjectVisitor).map_err(refuse)?;
    json.end().map_err(refuse)?;
    Ok(fields)
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Fields<'static>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        let mut found = 0;
        while let Some(name) = map.next_key::<String>()? {
            found += 1;
            if found > FIELDS_MAX {
                return Err(A::Error::custom(format_args!("it has more than {FIELDS_MAX} fields")));
            }
            let raw: &'de RawValue = map.next_value()?;
            fields.push_once(Cow::Owned(name), value_of(raw.get()));
        }
        Ok(fields)
    }
}

fn value_of(raw: &str) -> FieldValue<'static> {
    match raw.as_bytes().first() {
        Some(b'n') => FieldValue::Absent,
        Some(b'[' | b'{') => FieldValue::Fault(FieldFault::Nested),
        Some(b'"') => serde_json::from_str(raw).map_or(FieldValue::Fault(FieldFault::NotUtf8), text),
        Some(b'-' | b'0'..=b'9') if !is_whole(raw) => {
            serde_json::from_str::<f64>(raw).map_or_else(|_| fault(raw), |number| FieldValue::Float(number.to_string()))
        }
        _ => text(raw.to_owned()),
    }
}

fn fault(raw: &str) -> FieldValue<'static> {
    FieldValue::Fault(FieldFault::NotExact(raw.chars().take(NUMBER_CHARACTERS_SHOWN).collect()))
}

fn is_whole(number: &str) -> bool {
    number.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit())
}

fn text(value: String) -> FieldValue<'static> {
    FieldValue::of(Cow::Owned(value.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_an_empty_text_are_absence_and_numbers_are_their_digits() {
        let line = br#"{"a": null, "b": "", "c": 18446744073709551617, "d": "null", "e": true, "f": -3}"#;
        let fields = parse(line).unwrap();
        assert_eq!((fields.get("a"), fields.get("b")), (&FieldValue::Absent, &FieldValue::Absent));
        for (name, expected) in [("c", "18446744073709551617"), ("d", "null"), ("e", "true"), ("f", "-3")] {
            assert_eq!(fields.get(name), &text(expected.to_owned()), "{name}");
        }
    }

    #[test]
    fn what_has_no_exact_text_is_a_fault_of_its_field_alone() {
        let line =
            br#"{"a": 1.5, "b": [1, {"x": 2}], "c": {}, "d": 1, "d": 2, "e": 1574553612.345678, "f": "\ud800", "g": 1e999}"#;
        let fields = parse(line).unwrap();
        assert!(matches!(fields.get("a"), FieldValue::Float(_)));
        for name in ["b", "c"] {
            assert_eq!(fields.get(name), &FieldValue::Fault(FieldFault::Nested));
        }
        assert_eq!(fields.get("f"), &FieldValue::Fault(FieldFault::NotUtf8));
        assert_eq!(fields.get("g"), &FieldValue::Fault(FieldFault::NotExact("1e999".to_owned())));
        assert_eq!(fields.get("d"), &FieldValue::Fault(FieldFault::Repeated));
        assert_eq!(fields.get("e"), &FieldValue::Float("1574553612.345678".to_owned()));
    }

    #[test]
    fn a_line_that_is_no_object_is_named() {
        let deep = "[".repeat(100_000);
        for line in ["", "7", "[1]", "{\"a\": 1} x", "{\"a\": tru}", "{", &deep] {
            assert!(matches!(parse(line.as_bytes()), Err(SkipReason::NotJson(_))), "{line:.20}");
        }
        let deep = format!("{{\"a\": {deep}");
        assert!(matches!(parse(deep.as_bytes()), Err(SkipReason::NotJson(_))));
    }
}
