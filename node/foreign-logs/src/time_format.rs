//! The time of a row. Each format is exact about what it takes, and all of them take the years 2000 to 2099 only: a
//! unit that is mistaken for another gives a time far outside of these years.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime};
use clicktally_proto::event_time::UnixMillis;
use thiserror::Error;

/// 2000-01-01T00:00:00Z, inclusive.
pub const FIRST_MS: UnixMillis = 946_684_800_000;
/// 2100-01-01T00:00:00Z, exclusive.
pub const END_MS: UnixMillis = 4_102_444_800_000;

/// The range of [`TimeFormat::Compact`] as a number.
const COMPACT_FIRST: u64 = 20_000_101_000_000;
const COMPACT_END: u64 = 21_000_101_000_000;

/// Within the years above, a number has one meaning: seconds < milliseconds < compact < microseconds < nanoseconds.
const _: () = assert!(
    END_MS / 1_000 < FIRST_MS
        && END_MS < COMPACT_FIRST
        && COMPACT_END < FIRST_MS * 1_000
        && END_MS * 1_000 < FIRST_MS * 1_000_000
);

/// The longest text of a time.
const TEXT_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// Whichever of the others fits. At most one does.
    #[default]
    Auto,
    /// `2026-11-28T14:00:25.5Z`, `2026-11-28 14:00:25+01:00`.
    Rfc3339,
    /// The same without a zone; it is UTC.
    Utc,
    /// `28/Nov/2026:14:00:25 +0100`, as access logs write it.
    AccessLog,
    /// `20261128140025` (yyyyMMddHHmmss), in UTC.
    Compact,
    /// Since the Unix epoch, whole or with a fraction.
    EpochSeconds,
    EpochMillis,
    EpochMicros,
    EpochNanos,
}

/// By their names on the command line.
pub const TIME_FORMATS: [(&str, TimeFormat); 9] = [
    ("auto", TimeFormat::Auto),
    ("rfc3339", TimeFormat::Rfc3339),
    ("utc", TimeFormat::Utc),
    ("access-log", TimeFormat::AccessLog),
    ("compact", TimeFormat::Compact),
    ("epoch-s", TimeFormat::EpochSeconds),
    ("epoch-ms", TimeFormat::EpochMillis),
    ("epoch-us", TimeFormat::EpochMicros),
    ("epoch-ns", TimeFormat::EpochNanos),
];

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no time format '{0}'; the formats are {names}", names = TIME_FORMATS.map(|(name, _)| name).join(", "))]
pub struct UnknownTimeFormat(String);

impl FromStr for TimeFormat {
    type Err = UnknownTimeFormat;

    fn from_str(name: &str) -> Result<TimeFormat, UnknownTimeFormat> {
        let found = TIME_FORMATS.iter().find(|(known, _)| *known == name);
        found.map(|(_, format)| *format).ok_or_else(|| UnknownTimeFormat(name.to_owned()))
    }
}

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFault {
    NotATime,
    OutOfRange,
}

impl TimeFormat {
    pub fn name(self) -> &'static str {
        TIME_FORMATS.iter().find(|(_, format)| *format == self).map_or("auto", |(name, _)| name)
    }

    /// Rounds down to milliseconds.
    pub fn parse(self, text: &str) -> Result<UnixMillis, TimeFault> {
        let text = text.trim();
        let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(TimeFault::NotATime);
        }
        if self != TimeFormat::Auto {
            return self.parse_as_named(text);
        }
        let mut fault = TimeFault::NotATime;
        for (_, format) in TIME_FORMATS.into_iter().filter(|(_, format)| *format != TimeFormat::Auto) {
            match format.parse_as_named(text) {
                Ok(time_ms) => return Ok(time_ms),
                Err(TimeFault::OutOfRange) => fault = TimeFault::OutOfRange,
                Err(TimeFault::NotATime) => {}
            }
        }
        Err(fault)
    }

    fn parse_as_named(self, text: &str) -> Result<UnixMillis, TimeFault> {
        let time_ms = match self {
            TimeFormat::Auto => None,
            TimeFormat::Rfc3339 => zoned(text, &["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z"]),
            TimeFormat::Utc => unzoned(text, &["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]),
            TimeFormat::AccessLog => zoned(text, &["%d/%b/%Y:%H:%M:%S %z"]),
            TimeFormat::Compact => {
                let is_plain = text.len() == 14 && text.bytes().all(|byte| byte.is_ascii_digit());
                is_plain.then(|| unzoned(text, &["%Y%m%d%H%M%S"])).flatten()
            }
            TimeFormat::EpochSeconds => since_epoch(text, 1_000, 1),
            TimeFormat::EpochMillis => since_epoch(text, 1, 1),
            TimeFormat::EpochMicros => since_epoch(text, 1, 1_000),
            TimeFormat::EpochNanos => since_epoch(text, 1, 1_000_000),
        };
        let time_ms = u64::try_from(time_ms.ok_or(TimeFault::NotATime)?).map_err(|_| TimeFault::OutOfRange)?;
        if (FIRST_MS..END_MS).contains(&time_ms) { Ok(time_ms) } else { Err(TimeFault::OutOfRange) }
    }
}

fn zoned(text: &str, patterns: &[&str]) -> Option<i64> {
    let parsed = patterns.iter().find_map(|pattern| DateTime::parse_from_str(text, pattern).ok());
    parsed
        .or_else(|| patterns.len().checked_sub(2).and_then(|_| DateTime::parse_from_rfc3339(text).ok()))
        .map(|time| time.timestamp_millis())
}

fn unzoned(text: &str, patterns: &[&str]) -> Option<i64> {
    let parsed = patterns.iter().find_map(|pattern| NaiveDateTime::parse_from_str(text, pattern).ok())?;
    Some(parsed.and_utc().timestamp_millis())
}

/// A decimal number without sign and exponent, times `millis`, divided by `units_per_milli`. A number beyond 64 bits is
/// out of range in every unit.
fn since_epoch(text: &str, millis: u64, units_per_milli: u64) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let whole_ms = whole.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(millis) / units_per_milli;
    // Only seconds have a fraction that reaches a millisecond.
    let thousandths = format!("{fraction:0<3}").get(..3).and_then(|digits| digits.parse::<u64>().ok())?;
    let fraction_ms = if millis == 1_000 { thousandths } else { 0 };
    Some(i64::try_from(whole_ms.saturating_add(fraction_ms)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_of_real_logs_are_understood() {
        for text in [
            "2019-11-24 00:00:12.345678+00:00",
            "2019-11-24T00:00:12.345678Z",
            "2019-11-24 01:00:12.345678+0100",
            "2019-11-24 00:00:12.345678",
            "2019-11-24T00:00:12.345",
            "1574553612.345678",
            "1574553612345",
            "1574553612345678",
            "1574553612345678901",
        ] {
            assert_eq!(TimeFormat::Auto.parse(text), Ok(1_574_553_612_345), "{text}");
        }
        assert_eq!(TimeFormat::Auto.parse("20191124000012"), Ok(1_574_553_612_000));
        assert_eq!(TimeFormat::Auto.parse("1574553612"), Ok(1_574_553_612_000));
        assert_eq!(TimeFormat::Auto.parse("[10/Oct/2000:13:55:36 -0700]"), Ok(971_211_336_000));
    }

    #[test]
    fn what_is_no_time_or_lies_outside_of_the_years_is_refused() {
        for text in ["yesterday", "", "1e9", "-1574553612", "+1574553612", "NaN", "inf", "1574553612.", ".5", "٣"] {
            assert_eq!(TimeFormat::Auto.parse(text), Err(TimeFault::NotATime), "{text}");
        }
        for text in
            ["0", "1", "20191324000012", "99999999999999999999999", "1999-12-31T23:59:59Z", "2100-01-01 00:00:00"]
        {
            assert_eq!(TimeFormat::Auto.parse(text), Err(TimeFault::OutOfRange), "{text}");
        }
        let long = format!("1574553612.{}", "0".repeat(1_000_000));
        assert_eq!(TimeFormat::Auto.parse(&long), Err(TimeFault::NotATime));
    }

    #[test]
    fn a_named_format_takes_nothing_else() {
        assert_eq!(TimeFormat::Compact.parse("20261128140025"), Ok(1_795_874_425_000));
        assert_eq!(
            TimeFormat::EpochMillis.parse("20261128140025"),
            Err(TimeFault::OutOfRange),
            "it would be the year 2612"
        );
        assert_eq!(TimeFormat::EpochSeconds.parse("1574553612345"), Err(TimeFault::OutOfRange));
        assert_eq!(TimeFormat::Rfc3339.parse("2019-11-24T00:00:12"), Err(TimeFault::NotATime), "no zone");
        assert_eq!("epoch-ns".parse::<TimeFormat>(), Ok(TimeFormat::EpochNanos));
        assert!("unix".parse::<TimeFormat>().unwrap_err().to_string().contains("epoch-s, epoch-ms"));
    }

    proptest! {
        #[test]
        fn a_time_written_in_a_format_is_read_back(time_ms in FIRST_MS..END_MS) {
            let time = DateTime::from_timestamp_millis(time_ms.cast_signed()).unwrap();
            let second_ms = time_ms / 1_000 * 1_000;
            for (text, format, expected) in [
                (time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(), TimeFormat::Rfc3339, time_ms),
                (time.format("%Y-%m-%d %H:%M:%S%.6f").to_string(), TimeFormat::Utc, time_ms),
                (time.format("%d/%b/%Y:%H:%M:%S +0000").to_string(), TimeFormat::AccessLog, second_ms),
                (time.format("%Y%m%d%H%M%S").to_string(), TimeFormat::Compact, second_ms),
                (format!("{}.{:03}", time_ms / 1_000, time_ms % 1_000), TimeFormat::EpochSeconds, time_ms),
                (time_ms.to_string(), TimeFormat::EpochMillis, time_ms),
                ((time_ms * 1_000 + 999).to_string(), TimeFormat::EpochMicros, time_ms),
                ((time_ms * 1_000_000 + 1).to_string(), TimeFormat::EpochNanos, time_ms),
            ] {
                prop_assert_eq!(format.parse(&text), Ok(expected), "{}", &text);
                prop_assert_eq!(TimeFormat::Auto.parse(&text), Ok(expected), "auto: {}", &text);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,80}", number in any::<u128>()) {
            for (_, format) in TIME_FORMATS {
                let _ = format.parse(&text);
                let _ = format.parse(&number.to_string());
            }
        }
    }
}
