//! Plays back a real log: CSV with a column mapping, JSON lines, or a Combined access log.
//!
//! Event times are compressed: `anchor + (time of row − time of first row) / speed`, in whole milliseconds. A row is
//! sent when the wall clock has reached its compressed time, so that it passes capture's ±5 min check.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, NaiveDateTime};
use clap::{Args, ValueEnum};
use clicktally_proto::clock::{Clock, SystemClock};

use super::LoadOptions;
use super::plan::{DoorKind, Fate, PlannedClick};
use super::run::Doors;
use super::tally::Tally;

/// Rows between two flushes of half-full batches, while rows are due faster than they can be sent.
const ROWS_PER_FLUSH: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A header line, then rows; --columns maps names.
    Csv,
    /// One JSON object per line; --columns maps names.
    Jsonl,
    /// The Combined log of Apache and nginx; ad_id, campaign_id, event_id come from the query string of the request.
    Combined,
}

#[derive(Debug, Clone, Args)]
pub struct RealInputOptions {
    /// Plays a real log instead of generated clicks.
    #[arg(long, value_name = "FILE", requires = "format")]
    pub from: Option<PathBuf>,
    #[arg(long, value_enum)]
    pub format: Option<InputFormat>,
    /// How many times faster than real time to play it.
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// The fields, as ours=theirs,… with ours one of timestamp, ad_id, campaign_id, event_id, user_agent, ip_address,
    /// country, device_type, user_id. Unmapped fields keep their own name.
    #[arg(long, value_delimiter = ',', value_name = "OURS=THEIRS")]
    pub columns: Vec<String>,
    /// Takes only rows whose field has this value, such as click=1.
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    pub filter: Option<String>,
    /// The campaign of rows that name none.
    #[arg(long, default_value_t = 1)]
    pub campaign_id: u64,
    /// Added to every ad id of the file, for files whose ids start at 0 (0 is not a valid ad id).
    #[arg(long, default_value_t = 0)]
    pub ad_id_offset: u64,
    /// The event time of the first row, in milliseconds since the Unix epoch. Default: now.
    #[arg(long, value_name = "MILLISECONDS")]
    pub anchor_ms: Option<u64>,
}

/// Sends the file's clicks; returns how many rows were skipped because they are not clicks.
pub(super) async fn play(
    options: &LoadOptions,
    clock: SystemClock,
    doors: &mut Doors,
    tally: &mut Tally,
) -> anyhow::Result<u64> {
    let input = &options.real_input;
    ensure!(input.speed.is_finite() && input.speed > 0.0, "--speed must be more than 0");
    let rows = Rows::open(input)?;
    let door = if options.urls.is_empty() { DoorKind::Log } else { DoorKind::Http };
    let now_ms = clock.now_ms();
    let anchor_ms = input.anchor_ms.unwrap_or(now_ms);
    let run_id = options.run_id.clone().unwrap_or_else(|| now_ms.to_string());
    // The stream certainly counts a row this late, whatever is in flight; see `plan`.
    let behind_max_ms = options.allowed_lateness_s * 250;
    let mut first_ms = None;
    let mut newest_ms = 0;
    let mut skipped = 0;
    for (number, row) in (1_u64..).zip(rows) {
        let row = row?;
        let Some(click) = click_of(&row, input) else {
            skipped += 1;
            continue;
        };
        let first_ms = *first_ms.get_or_insert(click.at_ms);
        let event_time_ms = compressed(click.at_ms, first_ms, input.speed, anchor_ms);
        newest_ms = event_time_ms.max(newest_ms);
        ensure!(
            event_time_ms + behind_max_ms >= newest_ms,
            "row {number} is {} ms of compressed time behind an earlier one, too far to be counted for certain: sort the file by time",
            newest_ms - event_time_ms
        );
        wait_until(event_time_ms, clock, doors).await?;
        doors.take(tally, click.planned(door, &run_id, number, event_time_ms));
        doors.flush(number % ROWS_PER_FLUSH == 0).await?;
    }
    ensure!(first_ms.is_some(), "no row of {:?} is a click; check the mapping of --columns", input.from);
    doors.flush(true).await?;
    Ok(skipped)
}

/// Waits until a row's compressed time. Sends the collected batches before it waits.
async fn wait_until(event_time_ms: u64, clock: SystemClock, doors: &mut Doors) -> anyhow::Result<()> {
    let ahead_ms = event_time_ms.saturating_sub(clock.now_ms());
    if ahead_ms > 0 {
        doors.flush(true).await?;
        tokio::time::sleep(Duration::from_millis(ahead_ms)).await;
    }
    Ok(())
}

// Milliseconds stay far below 2^53.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn compressed(at_ms: i64, first_ms: i64, speed: f64, anchor_ms: u64) -> u64 {
    let shifted = ((at_ms - first_ms) as f64 / speed).floor() as i64;
    anchor_ms.saturating_add_signed(shifted)
}

/// A row by field name: our name for a mapped field, the file's own name otherwise.
type Row = HashMap<String, String>;

struct RealClick {
    at_ms: i64,
    ad_id: u64,
    campaign_id: u64,
    event_id: Option<String>,
    user_agent: String,
    ip_address: String,
    country: String,
    device_type: String,
    user_id: String,
}

/// Returns `None` for a row that is not a click: it is filtered out, or lacks a time or an ad.
fn click_of(row: &Row, input: &RealInputOptions) -> Option<RealClick> {
    if let Some((field, value)) = input.filter.as_deref().and_then(|filter| filter.split_once('='))
        && row.get(field).map(String::as_str) != Some(value)
    {
        return None;
    }
    let text = |name: &str| row.get(name).cloned().unwrap_or_default();
    let ad_id = row.get("ad_id")?.trim().parse::<u64>().ok()?.checked_add(input.ad_id_offset)?;
    Some(RealClick {
        at_ms: parse_time(row.get("timestamp")?)?,
        ad_id: Some(ad_id).filter(|id| *id > 0)?,
        campaign_id: row.get("campaign_id").and_then(|id| id.trim().parse().ok()).unwrap_or(input.campaign_id),
        event_id: row.get("event_id").cloned(),
        user_agent: text("user_agent"),
        ip_address: text("ip_address"),
        country: text("country"),
        device_type: text("device_type"),
        user_id: text("user_id"),
    })
}

impl RealClick {
    fn planned(self, door: DoorKind, run_id: &str, number: u64, event_time_ms: u64) -> PlannedClick {
        let agent = self.user_agent.to_ascii_lowercase();
        let is_robot = ["bot", "crawler", "spider"].iter().any(|name| agent.contains(name));
        PlannedClick {
            door,
            fate: if is_robot { Fate::Invalid } else { Fate::Counted },
            event_id: self.event_id.unwrap_or_else(|| format!("{run_id}-{number}")),
            ad_id: self.ad_id,
            campaign_id: self.campaign_id,
            event_time_ms,
            user_agent: Cow::Owned(self.user_agent),
            country: Cow::Owned(self.country),
            device_type: Cow::Owned(self.device_type),
            ip_address: self.ip_address,
            user_id: self.user_id,
            cost_per_click_micros: 0,
        }
    }
}

/// Parses a time into milliseconds since the Unix epoch.
///
/// Accepts epoch seconds, milliseconds or microseconds (distinguished by size), and RFC 3339 with `T` or a blank. A
/// time without a zone is UTC. Also accepts the access log's `10/Oct/2000:13:55:36 -0700`.
pub fn parse_time(text: &str) -> Option<i64> {
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    if let Ok(number) = text.parse::<f64>() {
        let per_milli = if number.abs() < 1e11 {
            1e-3
        } else if number.abs() < 1e14 {
            1.0
        } else {
            1e3
        };
        #[allow(clippy::cast_possible_truncation)] // Saturates.
        return number.is_finite().then(|| (number / per_milli).floor() as i64);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    for pattern in ["%Y-%m-%d %H:%M:%S%.f%#z", "%d/%b/%Y:%H:%M:%S %z"] {
        if let Ok(time) = DateTime::parse_from_str(text, pattern) {
            return Some(time.timestamp_millis());
        }
    }
    let naive = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    naive
        .iter()
        .find_map(|pattern| Some(NaiveDateTime::parse_from_str(text, pattern).ok()?.and_utc().timestamp_millis()))
}

/// The rows of a file, in its order.
struct Rows {
    source: Source,
    /// The file's name → our name.
    names: HashMap<String, String>,
}

enum Source {
    Csv { headers: csv::StringRecord, records: csv::StringRecordsIntoIter<std::fs::File> },
    Lines { format: InputFormat, lines: std::io::Lines<std::io::BufReader<std::fs::File>> },
}

impl Rows {
    fn open(input: &RealInputOptions) -> anyhow::Result<Rows> {
        let path = input.from.as_ref().context("--from is missing")?;
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut names = HashMap::new();
        for mapping in &input.columns {
            let (ours, theirs) =
                mapping.split_once('=').with_context(|| format!("--columns: '{mapping}' is not OURS=THEIRS"))?;
            names.insert(theirs.to_owned(), ours.to_owned());
        }
        let source = match input.format.context("--format is missing")? {
            InputFormat::Csv => {
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
                let headers = reader.headers().context("the CSV file has no header")?.clone();
                Source::Csv { headers, records: reader.into_records() }
            }
            format => Source::Lines { format, lines: std::io::BufRead::lines(std::io::BufReader::new(file)) },
        };
        Ok(Rows { source, names })
    }

    fn ours(&self, theirs: &str) -> String {
        self.names.get(theirs).map_or(theirs, String::as_str).to_owned()
    }
}

impl Iterator for Rows {
    type Item = anyhow::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let pairs: Vec<(String, String)> = match &mut self.source {
            Source::Csv { headers, records } => match records.next()? {
                Ok(record) => headers.iter().zip(record.iter()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
                Err(error) => return Some(Err(error.into())),
            },
            Source::Lines { format, lines } => match lines.next()? {
                Ok(line) if *format == InputFormat::Jsonl => json_fields(&line),
                Ok(line) => combined_fields(&line),
                Err(error) => return Some(Err(error.into())),
            },
        };
        Some(Ok(pairs.into_iter().map(|(name, value)| (self.ours(&name), value)).collect()))
    }
}

/// Returns an empty list for a line that is not a JSON object; the caller skips and counts the row.
fn json_fields(line: &str) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(line) else { return Vec::new() };
    let text = |value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    fields.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Parses `address ident user [time] "METHOD /path?query HTTP/1.1" status bytes "referrer" "agent"`.
fn combined_fields(line: &str) -> Vec<(String, String)> {
    let Some(fields) = combined_parts(line) else { return Vec::new() };
    let [address, time, request, agent] = fields;
    let target = request.split(' ').nth(1).unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let mut pairs: Vec<(String, String)> =
        query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    for (name, value) in [("ip_address", address), ("timestamp", time), ("user_agent", agent)] {
        pairs.push((name.to_owned(), value.to_owned()));
    }
    pairs
}

fn combined_parts(line: &str) -> Option<[&str; 4]> {
    let (address, rest) = line.split_once(' ')?;
    let (_, rest) = rest.split_once('[')?;
    let (time, rest) = rest.split_once(']')?;
    let mut quoted = rest.split('"');
    let request = quoted.nth(1)?;
    // Odd pieces are inside quotes: request, referrer, agent.
    let agent = quoted.nth(3).unwrap_or_default();
    Some([address, time, request, agent])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_real_logs_are_understood() {
        let expected = Some(1_574_553_612_345);
        for text in [
            "2019-11-24 00:00:12.345678+00:00",
            "2019-11-24T00:00:12.345678Z",
            "2019-11-24 00:00:12.345678",
            "1574553612.345678",
            "1574553612345",
            "1574553612345678",
        ] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
        assert_eq!(parse_time("10/Oct/2000:13:55:36 -0700"), Some(971_211_336_000));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn a_combined_line_gives_its_click() {
        let line = r#"203.0.113.9 - - [10/Oct/2000:13:55:36 -0700] "GET /c?ad_id=7&campaign_id=3 HTTP/1.1" 302 0 "http://a/" "Mozilla/5.0 (X11)""#;
        let row: Row = combined_fields(line).into_iter().collect();
        assert_eq!(row["ad_id"], "7");
        assert_eq!(row["campaign_id"], "3");
        assert_eq!(row["ip_address"], "203.0.113.9");
        assert_eq!(row["user_agent"], "Mozilla/5.0 (X11)");
        assert!(combined_fields("nonsense").is_empty());
    }

    #[test]
    fn time_is_compressed_around_the_anchor() {
        assert_eq!(compressed(10_000, 4_000, 3.0, 1_000_000), 1_002_000);
        assert_eq!(compressed(4_000, 10_000, 3.0, 1_000_000), 998_000);
    }
}
