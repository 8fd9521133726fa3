//! Times in requests are RFC 3339 or epoch seconds; times in answers are RFC 3339 in UTC.

use chrono::{DateTime, SecondsFormat, Utc};
use clicktally_proto::event_time::UnixMillis;

use crate::text_forms::decimal::{Finer, parse_scaled};

/// Milliseconds since the epoch; `None` if `text` is neither RFC 3339 nor a non-negative number of epoch seconds.
pub fn parse_time(text: &str) -> Option<UnixMillis> {
    let millis = match parse_scaled(text, 3, Finer::Truncate) {
        Ok(millis) => millis,
        // An unescaped '+' in a query string arrives as a space.
        Err(_) => DateTime::parse_from_rfc3339(&text.replace(' ', "+")).ok()?.timestamp_millis(),
    };
    u64::try_from(millis).ok()
}

/// `None` only for times beyond the year 262142.
pub fn to_utc(time_ms: UnixMillis) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(i64::try_from(time_ms).ok()?)
}

/// A time beyond chrono's range is shown as the latest time that it can hold.
pub fn format_time(time_ms: UnixMillis) -> String {
    to_utc(time_ms).unwrap_or(DateTime::<Utc>::MAX_UTC).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_name_the_same_moment() {
        let expected = Some(1_700_000_000_500);
        for text in
            ["1700000000.5", "2023-11-14T22:13:20.5Z", "2023-11-15T00:13:20.500+02:00", "2023-11-15T00:13:20.500 02:00"]
        {
            assert_eq!(parse_time(text), expected, "{text}");
        }
        for text in ["", "yesterday", "-5", "2023-11-14", "2023-11-14T22:13:20"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(time_ms in 0_u64..4_000_000_000_000) {
            prop_assert_eq!(parse_time(&format_time(time_ms)), Some(time_ms));
        }

        #[test]
        fn garbage_never_panics(text in ".{0,40}") {
            let _ = parse_time(&text);
        }
    }
}
