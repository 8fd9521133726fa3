//! A day of event time, UTC: the unit of billing.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use clicktally_proto::event_time::UnixMillis;
use serde::{Deserialize, Serialize};
use thiserror::Error;

const DAY_MS: UnixMillis = 24 * 60 * 60_000;

/// The text is not a day of our calendar.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not a day: write YYYY-MM-DD, 1970-01-01 or later")]
pub struct NotADay(pub String);

/// `[00:00, 24:00)` UTC. Printed and parsed as `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(NaiveDate);

impl Day {
    /// The day that holds an instant; `None` from the year 9999 on, which no date column of ours takes.
    pub fn of(event_time_ms: UnixMillis) -> Option<Day> {
        let days = event_time_ms / DAY_MS;
        let date = NaiveDate::default().checked_add_days(Days::new(days))?;
        (date < NaiveDate::from_ymd_opt(9999, 1, 1)?).then_some(Day(date))
    }

    pub fn date(self) -> NaiveDate {
        self.0
    }

    pub fn start(self) -> DateTime<Utc> {
        self.0.and_time(NaiveTime::MIN).and_utc()
    }

    pub fn start_ms(self) -> UnixMillis {
        // Neither event time nor parsing yields a day before 1970.
        u64::try_from(self.start().timestamp_millis()).unwrap_or(0)
    }

    /// Exclusive.
    pub fn end_ms(self) -> UnixMillis {
        self.start_ms() + DAY_MS
    }
}

impl From<NaiveDate> for Day {
    fn from(date: NaiveDate) -> Day {
        Day(date)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d"))
    }
}

impl FromStr for Day {
    type Err = NotADay;

    fn from_str(text: &str) -> Result<Day, NotADay> {
        NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .ok()
            .filter(|date| *date >= NaiveDate::default())
            .map(Day)
            .ok_or_else(|| NotADay(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_half_open_and_prints_as_it_parses() {
        let day: Day = "2026-11-23".parse().unwrap();
        assert_eq!(day.to_string(), "2026-11-23");
        assert_eq!(Day::of(day.start_ms()), Some(day));
        assert_eq!(Day::of(day.end_ms() - 1), Some(day));
        assert_ne!(Day::of(day.end_ms()), Some(day));
    }

    #[test]
    fn what_is_not_a_day_of_our_calendar_is_refused() {
        assert!("1969-12-31".parse::<Day>().is_err());
        assert!("today".parse::<Day>().is_err());
        assert_eq!(Day::of(u64::MAX), None);
    }
}
