//! The minutes of a query: `[from, to)`, aligned to minutes, from its parameters. Pure.

use clicktally_proto::event_time::{Minute, UnixMillis, WINDOW_MS};
use thiserror::Error;

use crate::text_forms::query_parameters::{ParameterError, Parameters, refuse_unknown, whole_number};
use crate::text_forms::time_text::parse_time;

/// A month. Longer ranges belong to reports.
pub const RANGE_MINUTES_MAX: u32 = 31 * 24 * 60;

/// `[from, to)`, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinuteRange {
    pub from: Minute,
    pub to: Minute,
}

impl MinuteRange {
    pub fn minutes(self) -> impl Iterator<Item = Minute> {
        (self.from.0..self.to.0).map(Minute)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RangeError {
    #[error("give either from and to, or last_minutes")]
    Form,
    #[error("{0} must be RFC 3339 or epoch seconds")]
    Time(&'static str),
    #[error("{0} must be a full minute: counts are kept per minute")]
    Unaligned(&'static str),
    #[error("from must be before to: the range is [from, to)")]
    Empty,
    #[error("a query covers at most {RANGE_MINUTES_MAX} minutes")]
    TooLong,
    #[error(transparent)]
    Parameter(#[from] ParameterError),
}

/// `last_minutes=M` means the M full minutes before the current one.
pub fn parse_range(parameters: &Parameters, now_ms: UnixMillis) -> Result<MinuteRange, RangeError> {
    refuse_unknown(parameters, &["from", "to", "last_minutes"])?;
    let asked = ["from", "to", "last_minutes"].map(|name| parameters.contains_key(name));
    let range = match asked {
        [true, true, false] => MinuteRange { from: aligned(parameters, "from")?, to: aligned(parameters, "to")? },
        [false, false, true] => {
            let minutes = whole_number(parameters, "last_minutes", 1, RANGE_MINUTES_MAX)?;
            let to = Minute::of(now_ms);
            MinuteRange { from: Minute(to.0.saturating_sub(minutes)), to }
        }
        _ => return Err(RangeError::Form),
    };
    if range.from >= range.to {
        return Err(RangeError::Empty);
    }
    if range.to.0 - range.from.0 > RANGE_MINUTES_MAX {
        return Err(RangeError::TooLong);
    }
    Ok(range)
}

fn aligned(parameters: &Parameters, name: &'static str) -> Result<Minute, RangeError> {
    let text = parameters.get(name).map_or("", String::as_str);
    let time_ms = parse_time(text).ok_or(RangeError::Time(name))?;
    if time_ms % WINDOW_MS != 0 {
        return Err(RangeError::Unaligned(name));
    }
    Ok(Minute::of(time_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(query: &[(&str, &str)]) -> Result<MinuteRange, RangeError> {
        let parameters = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        parse_range(&parameters, 600_500)
    }

    #[test]
    fn both_forms_name_full_minutes() {
        let expected = Ok(MinuteRange { from: Minute(8), to: Minute(10) });
        assert_eq!(parsed(&[("last_minutes", "2")]), expected);
        assert_eq!(parsed(&[("from", "480"), ("to", "1970-01-01T00:10:00Z")]), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parsed(&[]), Err(RangeError::Form));
        assert_eq!(parsed(&[("from", "0")]), Err(RangeError::Form));
        assert_eq!(parsed(&[("from", "0"), ("to", "61")]), Err(RangeError::Unaligned("to")));
        assert_eq!(parsed(&[("from", "60"), ("to", "60")]), Err(RangeError::Empty));
        assert_eq!(parsed(&[("from", "0"), ("to", "2678460")]), Err(RangeError::TooLong));
        assert!(matches!(parsed(&[("last_minutes", "0")]), Err(RangeError::Parameter(ParameterError::Number { .. }))));
        assert!(matches!(
            parsed(&[("last_minutes", "1"), ("filter_country", "US")]),
            Err(RangeError::Parameter(ParameterError::Unknown(..)))
        ));
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_a_range_is_never_empty(from in "[0-9T:Z.\\-]{0,25}", to in ".{0,25}", now_ms in any::<u64>()) {
            let parameters = Parameters::from([("from".to_owned(), from), ("to".to_owned(), to)]);
            if let Ok(range) = parse_range(&parameters, now_ms) {
                prop_assert!(range.from < range.to);
            }
        }
    }
}
