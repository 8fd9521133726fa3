//! From bytes to clicks: the one way through this crate.

use thiserror::Error;

use crate::click_row::{ClickRow, ClickRules, NamedFields};
use crate::columns::{Columns, ColumnsFault};
use crate::combined_row;
use crate::conditions::{ConditionFault, Conditions};
use crate::csv_row::{CsvRows, HeaderFault};
use crate::fields::{FieldValue, Fields};
use crate::json_row;
use crate::rows::{CsvQuotes, RawRow, RowCutter, RowEnd};
use crate::skip::SkipReason;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A header, then rows.
    Csv(CsvQuotes),
    /// One JSON object per line.
    Jsonl,
    /// The Combined log of Apache and nginx.
    Combined,
}

/// How a log is read.
#[derive(Debug, Clone)]
pub struct LogRules {
    pub format: LogFormat,
    pub columns: Columns,
    pub conditions: Conditions,
    pub clicks: ClickRules,
}

/// The rules do not fit the log. Nothing of it can be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogFault {
    #[error(transparent)]
    Header(#[from] HeaderFault),
    #[error(transparent)]
    Columns(#[from] ColumnsFault),
    #[error(transparent)]
    Condition(#[from] ConditionFault),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRow {
    Click(ClickRow),
    Skipped { line: u64, reason: SkipReason },
}

/// Push bytes, then take rows until there is none, and so on; at last call [`LogReader::end`] and take the rest.
#[derive(Debug)]
pub struct LogReader {
    rules: LogRules,
    cutter: RowCutter,
    /// Known once the first row of a CSV file is read.
    csv: Option<CsvRows>,
}

impl LogReader {
    pub fn new(rules: LogRules) -> Result<LogReader, LogFault> {
        let row_end = match rules.format {
            LogFormat::Csv(quotes) => RowEnd::Csv(quotes),
            LogFormat::Jsonl | LogFormat::Combined => RowEnd::Line,
        };
        if rules.format == LogFormat::Combined {
            rules.columns.check_access_log()?;
        }
        Ok(LogReader { rules, cutter: RowCutter::new(row_end), csv: None })
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.cutter.push(bytes);
    }

    /// No more bytes follow.
    pub fn end(&mut self) {
        self.cutter.end();
    }

    /// `None` if more bytes are needed, or after the last row.
    pub fn next_row(&mut self) -> Result<Option<LogRow>, LogFault> {
        while let Some(row) = self.cutter.next_row() {
            if let (LogFormat::Csv(quotes), None) = (self.rules.format, &self.csv) {
                self.read_header(row, quotes)?;
                continue;
            }
            let line = row.line;
            let read = row.bytes.and_then(|bytes| self.read(line, &bytes));
            if read.as_ref().is_err_and(SkipReason::is_fault) {
                self.cutter.give_back_lines();
            }
            return Ok(Some(match read {
                Ok(click) => LogRow::Click(click),
                Err(reason) => LogRow::Skipped { line, reason },
            }));
        }
        Ok(None)
    }

    fn read_header(&mut self, row: RawRow, quotes: CsvQuotes) -> Result<(), LogFault> {
        let bytes = row.bytes.map_err(HeaderFault::Unreadable)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let rows = CsvRows::new(&bytes, quotes)?;
        self.rules.columns.check_header(rows.header())?;
        self.rules.conditions.check_header(rows.header(), &self.rules.columns)?;
        self.csv = Some(rows);
        Ok(())
    }

    fn read(&mut self, line: u64, bytes: &[u8]) -> Result<ClickRow, SkipReason> {
        if bytes.trim_ascii().is_empty() {
            return Err(SkipReason::Blank);
        }
        let fields: Fields<'_> = match (self.rules.format, &mut self.csv) {
            (LogFormat::Csv(_), Some(rows)) => rows.parse(bytes)?,
            (LogFormat::Csv(_), None) => unreachable!("a row of CSV is read after its header"),
            (LogFormat::Jsonl, _) => json_row::parse(bytes)?,
            (LogFormat::Combined, _) => combined_row::parse(bytes)?,
        };
        let LogRules { format, columns, conditions, clicks } = &self.rules;
        let is_access_log = *format == LogFormat::Combined;
        conditions.check(&fields, columns, is_access_log)?;
        columns.check_row(&fields)?;
        // An access log has many requests that are no click.
        if is_access_log && *columns.value("ad_id", &fields) == FieldValue::Absent {
            return Err(SkipReason::NoAd);
        }
        clicks.click(line, bytes, &NamedFields { columns, fields: &fields })
    }
}

#[cfg(test)]
#[path = "log_reader_tests.rs"]
mod tests;
