//! The arguments of a playback.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use clicktally_foreign_logs::click_row::ClickRules;
use clicktally_foreign_logs::columns::Columns;
use clicktally_foreign_logs::conditions::Conditions;
use clicktally_foreign_logs::log_reader::{LogFormat, LogRules};
use clicktally_foreign_logs::rows;
use clicktally_foreign_logs::time_format::{END_MS, FIRST_MS, TimeFormat};
use clicktally_proto::limits::ID_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A header line, then rows; --columns maps names.
    Csv,
    /// One JSON object per line; --columns maps names.
    Jsonl,
    /// The Combined log of Apache and nginx, also with the virtual host in front. ad_id, campaign_id, event_id and
    /// further fields come from the query string of the request. Requests without an ad_id are no clicks.
    Combined,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum CsvQuotes {
    /// A quote inside quotes is written twice.
    #[default]
    Doubled,
    /// A quote inside quotes has a backslash in front of it.
    Backslash,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Playback of a real log")]
pub struct PlaybackOptions {
    /// Plays a real log instead of generated clicks. Every row is played, or named with its line and its reason. The
    /// exit code is 0 only if no row was faulty or refused and at least one was played. Rows left out by --where, or
    /// because no click is like them, are not faulty.
    ///
    /// A row without an event_id gets one of its line and its bytes, so a rerun repeats clicks instead of adding some.
    /// The product knows a repeat for as long as the allowed lateness. To finish a play that broke off longer ago,
    /// repeat it with its --anchor-ms: rows that were played are then too late to be counted again.
    #[arg(long, value_name = "FILE", requires = "format")]
    pub from: Option<PathBuf>,
    #[arg(long, value_enum, requires = "from")]
    pub format: Option<InputFormat>,
    /// How many times faster than real time to play it.
    #[arg(long, default_value_t = 1.0, requires = "from")]
    pub speed: f64,
    /// The fields, as ours=theirs,… with ours one of timestamp, ad_id, campaign_id, event_id, user_agent, ip_address,
    /// country, device_type, user_id, method, status. Unmapped fields keep their own name. Without OURS (=THEIRS) the
    /// log's field THEIRS is left out.
    #[arg(long, value_delimiter = ',', value_name = "OURS=THEIRS", requires = "from")]
    pub columns: Vec<String>,
    /// Takes only rows whose field has this value, such as click=1. `*` is any value. Given again for another field:
    /// both must match; for the same field: either may.
    ///
    /// Rows of an access log, and rows whose method or status --columns maps, are clicks only if the method is GET or
    /// POST and the status is 200 to 399. A condition on method or status replaces that default of its field:
    /// --where 'status=*' plays every status. Further fields of an access log are host, path and referrer.
    #[arg(long = "where", value_name = "FIELD=VALUE", requires = "from")]
    pub conditions: Vec<String>,
    /// How the log writes its times. All formats take the years 2000 to 2099 only.
    ///
    /// rfc3339 (2026-11-28T14:00:25.5Z, also with a blank for the T), utc (the same without a zone, in UTC),
    /// access-log (28/Nov/2026:14:00:25 +0100), compact (20261128140025, in UTC), epoch-s (also with a fraction),
    /// epoch-ms, epoch-us, epoch-ns. auto takes whichever fits; within those years at most one does.
    #[arg(long, default_value_t = TimeFormat::Auto, value_name = "FORMAT", requires = "from")]
    pub time_format: TimeFormat,
    /// How a quoted field of a CSV file writes a quote.
    #[arg(long, value_enum, default_value_t = CsvQuotes::Doubled, requires = "from")]
    pub csv_quotes: CsvQuotes,
    /// The campaign of rows that name none. A campaign that cannot be read is a fault of its row.
    #[arg(long, default_value_t = 1, requires = "from")]
    pub campaign_id: u64,
    /// Added to every ad id of the file, for files whose ids start at 0 (0 is not a valid ad id).
    #[arg(long, default_value_t = 0, requires = "from")]
    pub ad_id_offset: u64,
    /// The event time of the first row, in milliseconds since the Unix epoch. Default: now.
    #[arg(long, value_name = "MILLISECONDS", requires = "from")]
    pub anchor_ms: Option<u64>,
    /// Writes every row that was not played: a JSON line each, {"line", "reason", "detail"}.
    #[arg(long, value_name = "FILE", requires = "from")]
    pub skipped: Option<PathBuf>,
}

impl PlaybackOptions {
    /// Checks everything that can be checked without the file.
    pub(super) fn rules(&self, run_id: Option<&str>) -> anyhow::Result<LogRules> {
        ensure!(self.speed.is_finite() && self.speed > 0.0, "--speed must be more than 0");
        ensure!((1..=ID_MAX).contains(&self.campaign_id), "--campaign-id must be from 1 to {ID_MAX}");
        let anchor_ms = self.anchor_ms.unwrap_or(FIRST_MS);
        ensure!((FIRST_MS..END_MS).contains(&anchor_ms), "--anchor-ms must be within the years 2000 to 2099");
        Ok(LogRules {
            format: match self.format.context("--format is missing")? {
                InputFormat::Csv => LogFormat::Csv(match self.csv_quotes {
                    CsvQuotes::Doubled => rows::CsvQuotes::Doubled,
                    CsvQuotes::Backslash => rows::CsvQuotes::Backslash,
                }),
                InputFormat::Jsonl => LogFormat::Jsonl,
                InputFormat::Combined => LogFormat::Combined,
            },
            columns: Columns::parse(self.columns.iter().map(String::as_str))?,
            conditions: Conditions::parse(self.conditions.iter().map(String::as_str))?,
            clicks: ClickRules {
                time_format: self.time_format,
                ad_id_offset: self.ad_id_offset,
                run_id: run_id.unwrap_or_default().to_owned(),
            },
        })
    }
}
