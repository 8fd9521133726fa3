//! The three forms of a capture request: one JSON object, a JSON array of objects, or one object per line (NDJSON).
//!
//! The text is only cut into items here. [`IncomingClick::read`] reads every item, so a click is taken or refused alike
//! in every form, and a byte that is wrong in one item refuses no other one.

use clicktally_proto::click::json_object::JsonError;
use thiserror::Error;

use super::click_fields::IncomingClick;

/// The most clicks one request may carry.
pub const ITEMS_MAX: usize = 1_000;

/// Why the whole request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    #[error("the body is empty: send one click, an array of clicks, or one click per line")]
    Empty,
    #[error("the array does not end: item {0} (counted from 0) has a string or a bracket that is not closed")]
    Unclosed(usize),
    #[error("the body goes on behind the array: send one array, or one click per line")]
    BehindArray,
    #[error("more than {ITEMS_MAX} clicks: split the request")]
    TooMany,
}

/// One click as sent, or why the item is not a click.
pub type Item = Result<IncomingClick, JsonError>;

/// `declared_ndjson`: the content type names NDJSON. Otherwise the first byte decides; an object followed by another
/// one is NDJSON, too.
pub fn read_items(body: &[u8], declared_ndjson: bool) -> Result<Vec<Item>, BodyError> {
    let body = body.trim_ascii();
    let items = match body.first() {
        None => return Err(BodyError::Empty),
        Some(b'[') if !declared_ndjson => array_items(body)?,
        // One object may be spread over several lines.
        Some(_) if !declared_ndjson && value_end(body) == Some(body.len()) => vec![body],
        Some(_) => lines(body)?,
    };
    Ok(items.into_iter().map(IncomingClick::read).collect())
}

fn lines(body: &[u8]) -> Result<Vec<&[u8]>, BodyError> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let items: Vec<&[u8]> = lines.take(ITEMS_MAX + 1).collect();
    if items.len() > ITEMS_MAX { Err(BodyError::TooMany) } else { Ok(items) }
}

/// What is between the commas of an array, whether it is JSON or not.
fn array_items(array: &[u8]) -> Result<Vec<&[u8]>, BodyError> {
    let mut items: Vec<&[u8]> = Vec::new();
    let mut nesting = Nesting::default();
    let mut start = 1;
    for (at, &byte) in array.iter().enumerate().skip(1) {
        let is_outside = nesting.is_outside();
        if is_outside && matches!(byte, b',' | b']') {
            let item = array[start..at].trim_ascii();
            let is_empty_array = byte == b']' && items.is_empty() && item.is_empty();
            if is_empty_array {
                return Err(BodyError::Empty);
            }
            if items.len() == ITEMS_MAX {
                return Err(BodyError::TooMany);
            }
            items.push(item);
            start = at + 1;
            if byte == b']' {
                return if start == array.len() { Ok(items) } else { Err(BodyError::BehindArray) };
            }
        } else {
            nesting.pass(byte);
        }
    }
    Err(BodyError::Unclosed(items.len()))
}

/// Where the object at the beginning of `text` ends. `None`: it is not closed, or there is none.
fn value_end(text: &[u8]) -> Option<usize> {
    let mut nesting = Nesting::default();
    let is_end = |byte: &u8| {
        nesting.pass(*byte);
        nesting.is_outside()
    };
    text.iter().position(is_end).map(|last| last + 1).filter(|_| text.first() == Some(&b'{'))
}

/// Whether a byte of JSON is inside a string, an object or an array. Only ASCII bytes matter, and no byte of a longer
/// UTF-8 character is one.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Nesting {
    fn is_outside(&self) -> bool {
        self.depth == 0 && !self.is_in_string
    }

    fn pass(&mut self, byte: u8) {
        if self.is_in_string {
            self.is_in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return;
        }
        match byte {
            b'"' => self.is_in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLICK: &str = r#"{"timestamp": 1, "ad_id": 2, "campaign_id": 3}"#;

    fn taken(body: &[u8], declared_ndjson: bool) -> Vec<bool> {
        read_items(body, declared_ndjson).unwrap().iter().map(Result::is_ok).collect()
    }

    #[test]
    fn one_an_array_and_lines_are_all_understood() {
        assert_eq!(taken(CLICK.as_bytes(), false), [true]);
        assert_eq!(taken(CLICK.replace(", ", ",\n").as_bytes(), false), [true], "over several lines");
        assert_eq!(taken(format!("[{CLICK}, {CLICK}]").as_bytes(), false), [true, true]);
        assert_eq!(taken(format!("{CLICK}\n{CLICK}\r\n\n").as_bytes(), false), [true, true]);
        assert_eq!(taken(format!("{CLICK}\nnonsense\n{CLICK}").as_bytes(), true), [true, false, true]);
        assert_eq!(taken(b"nonsense", false), [false]);
    }

    #[test]
    fn what_is_wrong_in_one_item_refuses_no_other_one() {
        let wrongs: [(&[u8], Option<&str>); 10] = [
            (br#"{"event_id": "\ud800"}"#, Some("event_id")),
            (b"{\"country\": \"\xff\"}", Some("country")),
            (br#"{"cost_per_click": 1e999}"#, Some("cost_per_click")),
            (br#"{"ad_id": 1, "ad_id": 1}"#, Some("ad_id")),
            (br#"{"ad_id": 1, "price": 3}"#, Some("price")),
            (br#"{"ad_id": [1, {"]": 2}]}"#, Some("ad_id")),
            (br#"{"ad_id": 1]}"#, None),
            (br#"{"user_agent": "a\\\"],[{"}, 7"#, None),
            (b"}", None),
            (b"", None),
        ];
        for (wrong, field) in wrongs {
            let array = [b"[", CLICK.as_bytes(), b",", wrong, b",", CLICK.as_bytes(), b"]"].concat();
            let items = read_items(&array, false).unwrap();
            let shown = String::from_utf8_lossy(wrong);
            assert!(items[0].is_ok() && items[items.len() - 1].is_ok(), "{shown}");
            let error = items[1].as_ref().err().or(items[2].as_ref().err()).unwrap();
            assert_eq!(error.field(), field, "{shown}: {error}");
        }
        let unclosed = format!(r#"[{CLICK}, {{"event_id": "}}, {CLICK}]"#);
        assert_eq!(read_items(unclosed.as_bytes(), false).unwrap_err(), BodyError::Unclosed(1));
        assert_eq!(read_items(format!("[{CLICK}] 7").as_bytes(), false).unwrap_err(), BodyError::BehindArray);
    }

    #[test]
    fn the_number_of_clicks_is_limited() {
        for (body, declared_ndjson) in
            [(format!("{CLICK}\n").repeat(ITEMS_MAX + 1), true), (format!("[{}]", ",".repeat(ITEMS_MAX)), false)]
        {
            assert_eq!(read_items(body.as_bytes(), declared_ndjson).unwrap_err(), BodyError::TooMany);
        }
        assert_eq!(read_items(format!("[{}]", ",".repeat(ITEMS_MAX - 1)).as_bytes(), false).unwrap().len(), ITEMS_MAX);
        for empty in [&b" \n "[..], b"[]", b"[ ]"] {
            assert_eq!(read_items(empty, false).unwrap_err(), BodyError::Empty);
        }
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
