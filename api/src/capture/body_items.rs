//! The three forms of a capture request: one JSON object, a JSON array of objects, or one object per line (NDJSON).

use serde::Deserialize;
use thiserror::Error;

use super::click_fields::IncomingClick;

/// The most clicks one request may carry.
pub const ITEMS_MAX: usize = 1_000;

/// Why the whole request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    #[error("the body is empty: send one click, an array of clicks, or one click per line")]
    Empty,
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("more than {ITEMS_MAX} clicks: split the request")]
    TooMany,
}

/// One click as sent, or why the item is not a click.
pub type Item = Result<IncomingClick, String>;

/// `declared_ndjson`: the content type names NDJSON. Otherwise the first byte decides; an object followed by another
/// one on a new line is NDJSON, too.
pub fn read_items(body: &[u8], declared_ndjson: bool) -> Result<Vec<Item>, BodyError> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Err(BodyError::Empty);
    }
    if declared_ndjson {
        return read_lines(body);
    }
    if body.first() == Some(&b'[') {
        return read_array(body);
    }
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => Ok(vec![IncomingClick::deserialize(value).map_err(|error| error.to_string())]),
        Err(_) if body.contains(&b'\n') => read_lines(body),
        Err(error) => Err(BodyError::NotJson(error.to_string())),
    }
}

fn read_array(body: &[u8]) -> Result<Vec<Item>, BodyError> {
    let values: Vec<serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| BodyError::NotJson(error.to_string()))?;
    if values.is_empty() {
        return Err(BodyError::Empty);
    }
    if values.len() > ITEMS_MAX {
        return Err(BodyError::TooMany);
    }
    Ok(values.into_iter().map(|value| IncomingClick::deserialize(value).map_err(|error| error.to_string())).collect())
}

fn read_lines(body: &[u8]) -> Result<Vec<Item>, BodyError> {
    let mut items = Vec::new();
    for line in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        if items.len() == ITEMS_MAX {
            return Err(BodyError::TooMany);
        }
        items.push(serde_json::from_slice::<IncomingClick>(line).map_err(|error| error.to_string()));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLICK: &str = r#"{"timestamp": 1, "ad_id": 2, "campaign_id": 3}"#;

    fn taken(body: &str, declared_ndjson: bool) -> Vec<bool> {
        read_items(body.as_bytes(), declared_ndjson).unwrap().iter().map(Result::is_ok).collect()
    }

    #[test]
    fn one_an_array_and_lines_are_all_understood() {
        assert_eq!(taken(CLICK, false), [true]);
        assert_eq!(taken(&format!("[{CLICK}, {CLICK}]"), false), [true, true]);
        assert_eq!(taken(&format!("{CLICK}\n{CLICK}\r\n\n"), false), [true, true]);
        assert_eq!(taken(&format!("{CLICK}\nnonsense\n{CLICK}"), true), [true, false, true]);
    }

    #[test]
    fn an_unknown_field_is_an_error_of_its_item_only() {
        let body = format!(r#"[{CLICK}, {{"ad_id": 1, "price": 3}}]"#);
        let items = read_items(body.as_bytes(), false).unwrap();
        assert!(items[0].is_ok());
        assert!(items[1].as_ref().unwrap_err().contains("unknown field `price`"));
    }

    #[test]
    fn the_number_of_clicks_is_limited() {
        let body = format!("{CLICK}\n").repeat(ITEMS_MAX + 1);
        assert_eq!(read_items(body.as_bytes(), true).unwrap_err(), BodyError::TooMany);
        assert_eq!(read_items(b" \n ", true).unwrap_err(), BodyError::Empty);
        assert_eq!(read_items(b"[]", false).unwrap_err(), BodyError::Empty);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200), declared_ndjson in any::<bool>()) {
            let _ = read_items(&body, declared_ndjson);
        }

        #[test]
        fn json_like_garbage_never_panics(body in "[\\[\\]{}\",:0-9a-z\n ]{0,80}") {
            let _ = read_items(body.as_bytes(), false);
        }
    }
}
