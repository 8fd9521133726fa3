//! A JSON object as clicks are sent in, with one set of rules for every form of it: a body, an item of an array, a line
//! of NDJSON, and a record of the raw log.
//!
//! 1. A whole number that names something keeps its digits. A float would make two large ids equal.
//! 2. `null` means that the field is absent.
//! 3. A field that occurs twice is refused: producers and readers differ in which of the two counts.
//! 4. An error names its field. What is wrong in one object never concerns another one.
//!
//! `docs/decisions/023-json-bodies.md` has the reasons.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

/// The most of a name or of a reason that an error repeats: both may come from outside.
const CHARS_SHOWN: usize = 200;

/// Why an object, or one of its fields, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    #[error("it must be one JSON object: {0}")]
    NotAnObject(String),
    #[error("{0} occurs twice: send each field once")]
    Twice(String),
    #[error("{field} cannot be read: {reason}")]
    Unreadable { field: String, reason: String },
    #[error("{field} must be {expected}")]
    Unexpected { field: &'static str, expected: &'static str },
    #[error("unknown field `{0}`: remove it, or check its spelling")]
    Unknown(String),
}

impl JsonError {
    /// The field that is wrong. `None`: the text is not an object.
    pub fn field(&self) -> Option<&str> {
        match self {
            JsonError::NotAnObject(_) => None,
            JsonError::Twice(field) | JsonError::Unreadable { field, .. } | JsonError::Unknown(field) => Some(field),
            JsonError::Unexpected { field, .. } => Some(field),
        }
    }
}

/// The fields of one object, which are taken one by one. A value is parsed when it is taken.
#[derive(Debug, Default)]
pub struct JsonObject<'a> {
    /// `None` for `null`.
    fields: BTreeMap<Cow<'a, str>, Option<&'a str>>,
}

impl<'a> JsonObject<'a> {
    /// # Errors
    /// The text is not one object, a field occurs twice, or a value is not JSON.
    pub fn read(json: &'a [u8]) -> Result<JsonObject<'a>, JsonError> {
        let mut object = JsonObject::default();
        let mut reader = serde_json::Deserializer::from_slice(json);
        let mut collect = Collect { into: &mut object, reading: None, is_twice: false };
        let read = (&mut collect).deserialize(&mut reader).and_then(|()| reader.end());
        let (reading, is_twice) = (collect.reading.take(), collect.is_twice);
        match (read, reading) {
            (Ok(()), _) => Ok(object),
            (Err(_), Some(field)) if is_twice => Err(JsonError::Twice(shown(&field))),
            (Err(error), Some(field)) => Err(unreadable(&field, &error)),
            (Err(error), None) => Err(JsonError::NotAnObject(shown(&error.to_string()))),
        }
    }

    /// A text.
    pub fn text(&mut self, field: &'static str) -> Result<Option<String>, JsonError> {
        self.taken(field, "a string", |raw| raw.starts_with('"').then(|| parsed(field, raw)))
    }

    /// A text, or a whole number as its exact digits: what names a thing.
    pub fn name(&mut self, field: &'static str) -> Result<Option<String>, JsonError> {
        self.taken(field, "a string, or a whole number in plain digits", |raw| match is_whole(raw) {
            true => Some(Ok(raw.to_owned())),
            false => raw.starts_with('"').then(|| parsed(field, raw)),
        })
    }

    /// A number as the shortest decimal of its value, or a text: what measures a thing. Some languages write 0.1 as
    /// 0.10000000000000001.
    pub fn measure(&mut self, field: &'static str) -> Result<Option<String>, JsonError> {
        self.taken(field, "a number or a string", |raw| match raw.as_bytes().first() {
            Some(b'"') => Some(parsed(field, raw)),
            Some(b'-' | b'0'..=b'9') => Some(parsed(field, raw).map(|number: serde_json::Number| number.to_string())),
            _ => None,
        })
    }

    /// A whole number, or a string of its digits. `expected` names the range of the type.
    pub fn whole<T: FromStr>(&mut self, field: &'static str, expected: &'static str) -> Result<Option<T>, JsonError> {
        let digits = match self.name(field) {
            Err(JsonError::Unexpected { field, .. }) => return Err(JsonError::Unexpected { field, expected }),
            digits => digits?,
        };
        let Some(digits) = digits else { return Ok(None) };
        match digits.parse().ok().filter(|_| is_whole(&digits)) {
            Some(number) => Ok(Some(number)),
            None => Err(JsonError::Unexpected { field, expected }),
        }
    }

    /// An array of bytes, or a text for its own bytes.
    pub fn bytes(&mut self, field: &'static str) -> Result<Option<Vec<u8>>, JsonError> {
        self.taken(field, "a string, or an array of numbers from 0 to 255", |raw| match raw.as_bytes().first() {
            Some(b'"') => Some(parsed(field, raw).map(String::into_bytes)),
            Some(b'[') => serde_json::from_str(raw).ok().map(Ok),
            _ => None,
        })
    }

    /// # Errors
    /// A field with a value was not taken.
    pub fn refuse_unknown(self) -> Result<(), JsonError> {
        let mut left = self.fields.into_iter().filter(|(_, value)| value.is_some());
        left.next().map_or(Ok(()), |(field, _)| Err(JsonError::Unknown(shown(&field))))
    }

    /// `read` gives `None` for a value of another type than expected.
    fn taken<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<Result<T, JsonError>>,
    ) -> Result<Option<T>, JsonError> {
        let Some(raw) = self.fields.remove(field).flatten() else { return Ok(None) };
        read(raw).unwrap_or(Err(JsonError::Unexpected { field, expected })).map(Some)
    }
}

/// A whole number as JSON writes it without fraction and exponent.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn parsed<'a, T: Deserialize<'a>>(field: &str, raw: &'a str) -> Result<T, JsonError> {
    serde_json::from_str(raw).map_err(|error| unreadable(field, &error))
}

/// Without the position, which counts from the beginning of this value only.
fn unreadable(field: &str, error: &serde_json::Error) -> JsonError {
    let reason = error.to_string();
    let reason = reason.rsplit_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
    JsonError::Unreadable { field: shown(field), reason: shown(reason) }
}

fn shown(text: &str) -> String {
    text.chars().take(CHARS_SHOWN).collect()
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads the fields of an object, and remembers which one it is reading.
struct Collect<'b, 'a> {
    into: &'b mut JsonObject<'a>,
    reading: Option<Cow<'a, str>>,
    is_twice: bool,
}

impl<'a> DeserializeSeed<'a> for &mut Collect<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for &mut Collect<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(Key(key)) = map.next_key()? {
            self.is_twice = self.into.fields.contains_key(&key);
            self.reading = Some(key.clone());
            if self.is_twice {
                return Err(M::Error::custom("a field occurs twice"));
            }
            let value: &'a RawValue = map.next_value()?;
            self.into.fields.insert(key, Some(value.get()).filter(|raw| *raw != "null"));
            self.reading = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name_in(json: &str) -> Result<Option<String>, JsonError> {
        JsonObject::read(json.as_bytes())?.name("id")
    }

    #[test]
    fn a_whole_number_that_names_something_keeps_every_digit() {
        for digits in ["7", "-7", "18446744073709551616", "18446744073709551617", "123456789012345678901234567890"] {
            assert_eq!(name_in(&format!(r#"{{"id": {digits}}}"#)), Ok(Some(digits.to_owned())));
            assert_eq!(name_in(&format!(r#"{{"id": "{digits}"}}"#)), Ok(Some(digits.to_owned())));
        }
        for refused in ["1.5", "1e3", "18446744073709551617.0", "true", "[1]", "{}"] {
            let error = name_in(&format!(r#"{{"id": {refused}}}"#)).unwrap_err();
            assert_eq!(error.to_string(), "id must be a string, or a whole number in plain digits", "{refused}");
        }
    }

    #[test]
    fn null_is_absence_and_a_repeated_field_is_refused() {
        assert_eq!(name_in(r#"{"id": null, "other": null}"#), Ok(None));
        JsonObject::read(br#"{"other": null}"#).unwrap().refuse_unknown().unwrap();
        for twice in [r#"{"id": 1, "id": 1}"#, r#"{"id": null, "id": 1}"#, r#"{"id": 1, "\u0069d": [}"#] {
            assert_eq!(name_in(twice), Err(JsonError::Twice("id".to_owned())), "{twice}");
        }
    }

    #[test]
    fn what_cannot_be_read_names_its_field() {
        let cases: [(&[u8], &str); 4] = [
            (br#"{"a": 1, "id": "\ud800"}"#, "id cannot be read: unexpected end of hex escape"),
            (b"{\"id\": \"\xff\"}", "id cannot be read: invalid unicode code point"),
            (br#"{"id": tru}"#, "id cannot be read: expected ident"),
            (br#"{"id" 1}"#, "id cannot be read: expected `:`"),
        ];
        for (json, expected) in cases {
            let error = JsonObject::read(json).and_then(|mut object| object.name("id")).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.field()), (expected, Some("id")));
        }
        for none in ["", "7", "[]", "{", "{}{}", "{\"a\": 1}]"] {
            let error = JsonObject::read(none.as_bytes()).map(drop).unwrap_err();
            assert!(matches!(error, JsonError::NotAnObject(_)) && error.field().is_none(), "{none}: {error}");
        }
    }

    #[test]
    fn numbers_that_measure_are_within_their_range() {
        let measure = |json: &str| JsonObject::read(json.as_bytes()).unwrap().measure("n");
        assert_eq!(measure(r#"{"n": 0.10000000000000001}"#), Ok(Some("0.1".to_owned())));
        assert_eq!(measure(r#"{"n": "0.10"}"#), Ok(Some("0.10".to_owned())));
        assert_eq!(measure(r#"{"n": 1e999}"#).unwrap_err().to_string(), "n cannot be read: number out of range");
        let whole = |json: &str| JsonObject::read(json.as_bytes()).unwrap().whole::<u32>("n", "from 0 to 9");
        assert_eq!((whole(r#"{"n": 4294967295}"#), whole(r#"{"n": "7"}"#)), (Ok(Some(u32::MAX)), Ok(Some(7))));
        for refused in [r#"{"n": 4294967296}"#, r#"{"n": "+7"}"#, r#"{"n": -1}"#, r#"{"n": 1.0}"#, r#"{"n": ""}"#] {
            assert_eq!(whole(refused).unwrap_err().to_string(), "n must be from 0 to 9", "{refused}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(json in proptest::collection::vec(any::<u8>(), 0..100), looks_like in "[{}\\[\\]\":,0-9a-z\\\\ ]{0,60}") {
            for json in [json.as_slice(), looks_like.as_bytes()] {
                if let Ok(mut object) = JsonObject::read(json) {
                    let _ = (object.name("a"), object.measure("b"), object.bytes("c"));
                }
            }
        }
    }
}
