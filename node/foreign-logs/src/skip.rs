//! Why a row is not played.

use std::fmt;

use thiserror::Error;

/// Characters of a field's value that a message shows.
const SHOWN_CHARACTERS_MAX: usize = 64;

/// A value in a message: quoted, without control characters, and cut.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    pub fn of(value: &[u8]) -> Shown {
        let text = String::from_utf8_lossy(&value[..value.len().min(4 * SHOWN_CHARACTERS_MAX)]);
        let cut: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
        let mark = if cut.len() < value.len() { "…" } else { "" };
        Shown(format!("{cut:?}{mark}"))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a row is no click of the play. The first four are as asked; all others are faults of the row
/// ([`SkipReason::is_fault`]).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SkipReason {
    #[error("the line is blank")]
    Blank,
    #[error("{field} is {}, which --where does not ask for", shown(.value.as_ref()))]
    Filtered { field: String, value: Option<Shown> },
    #[error("{field} is {}, and only {clicks} is a click; --where can ask for others", shown(.value.as_ref()))]
    NoClick { field: &'static str, value: Option<Shown>, clicks: &'static str },
    #[error("the request names no ad_id")]
    NoAd,

    #[error("the row is longer than {0} bytes")]
    TooLong(usize),
    #[error("the line is not in the Combined format: {0}")]
    NotCombined(&'static str),
    #[error("the line is not a JSON object: {0}")]
    NotJson(String),
    #[error("the row is not valid CSV: {0}")]
    NotCsv(CsvFault),
    #[error("the row has {found} fields, and the header has {expected}")]
    FieldCount { found: usize, expected: usize },
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{field} {fault}")]
    Field { field: String, fault: FieldFault },
    #[error("the row has both '{theirs}', which --columns maps to {ours}, and '{ours}': leave one out (={ours})")]
    BothNames { ours: &'static str, theirs: String },
}

fn shown(value: Option<&Shown>) -> &dyn fmt::Display {
    value.map_or(&"absent" as &dyn fmt::Display, |value| value)
}

/// What is wrong with a field that the play needs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FieldFault {
    #[error("is given more than once")]
    Repeated,
    #[error("is an object or an array")]
    Nested,
    #[error("is not valid UTF-8 text")]
    NotUtf8,
    #[error("is the number {0}, which is not whole: write an identity as text or in plain digits")]
    NotExact(String),
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    #[error("is {0}, and must be a whole number from 1 to 9223372036854775807")]
    NotAnId(Shown),
    #[error("is {0}, and with --ad-id-offset it is not from 1 to 9223372036854775807")]
    OffsetOut(Shown),
    #[error("is {0}, which is not a time of the format {1}; --time-format names another")]
    NotATime(Shown, &'static str),
    #[error("is {0}, which is not from 2000 to 2099 in the format {1}; --time-format names another")]
    TimeOut(Shown, &'static str),
}

/// What is wrong with the quotes of a CSV row. The row ends with its line, so that a stray quote costs one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CsvFault {
    #[error("a quote is inside a field that does not start with one")]
    QuoteInside,
    #[error("text follows a closing quote (--csv-quotes backslash, if the file escapes quotes by a backslash)")]
    AfterQuote,
    #[error("a quote is not closed")]
    Unclosed,
}

impl SkipReason {
    /// True if the row should perhaps have been played. False if it was left out as asked.
    pub fn is_fault(&self) -> bool {
        !matches!(self, SkipReason::Blank | SkipReason::Filtered { .. } | SkipReason::NoClick { .. } | SkipReason::NoAd)
    }

    /// The line of the totals that the row belongs to. Only names of fields vary, so there are few of them.
    pub fn group(&self) -> String {
        match self {
            SkipReason::Blank => "blank line".to_owned(),
            SkipReason::Filtered { .. } => "filtered out by --where".to_owned(),
            SkipReason::NoClick { field, .. } => format!("no click by its {field}"),
            SkipReason::NoAd => "request without an ad_id".to_owned(),
            SkipReason::TooLong(_) => "row too long".to_owned(),
            SkipReason::NotCombined(_) => "not in the Combined format".to_owned(),
            SkipReason::NotJson(_) => "not a JSON object".to_owned(),
            SkipReason::NotCsv(_) => "not valid CSV".to_owned(),
            SkipReason::FieldCount { .. } => "wrong number of fields".to_owned(),
            SkipReason::Missing(field) => format!("{field} missing"),
            SkipReason::Field { field, .. } => format!("{field} unusable"),
            SkipReason::BothNames { ours, .. } => format!("{ours} under two names"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_a_bounded_part_of_a_value_and_no_control_characters() {
        assert_eq!(Shown::of(b"7\x1b[2J").to_string(), r#""7\u{1b}[2J""#);
        let long = Shown::of("ä".repeat(10_000).as_bytes()).to_string();
        assert!(long.chars().count() < 80 && long.ends_with('…'), "{long}");
    }
}
