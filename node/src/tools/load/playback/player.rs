//! Plays the rows of a file: read, pace, send, tally, account.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clicktally_foreign_logs::click_row::ClickRow;
use clicktally_foreign_logs::log_reader::{LogReader, LogRow};
use clicktally_foreign_logs::skip::SkipReason;
use clicktally_proto::clock::{Clock, SystemClock};

use super::super::plan::{DoorKind, Fate, PlannedClick};
use super::super::progress::row_spinner;
use super::super::tally::Tally;
use super::super::{LoadOptions, LoadWatch};
use super::options::PlaybackOptions;
use super::pace::Pace;
use super::row_door::{Answered, PlannedRow, RowDoor};
use super::totals::{Ledger, PlaybackTotals};

/// Rows that are read before the first one is sent, to see whether `--columns` fits a log without a header.
const ROWS_READ_AHEAD: usize = 1_000;
const PIECE_BYTES: usize = 64 << 10;
/// A pause from here on is shown.
const SHOWN_PAUSE: Duration = Duration::from_secs(2);

/// Plays the whole file. A failure after the first row was sent is part of the totals.
pub(in super::super) async fn play(
    options: &LoadOptions,
    clock: SystemClock,
    watch: &Arc<LoadWatch>,
    tally: &mut Tally,
) -> anyhow::Result<PlaybackTotals> {
    let input = &options.playback;
    let mut file = LogFile::open(options)?;
    file.read_ahead()?;
    let anchor_ms = input.anchor_ms.unwrap_or_else(|| clock.now_ms());
    let mut ledger = Ledger::new(anchor_ms, input.skipped.as_deref())?;
    let mut door = RowDoor::open(options, watch)?;
    let is_log_door = door.kind() == DoorKind::Log;
    let mut player = Player {
        input,
        clock,
        pace: Pace::new(input.speed, anchor_ms, options.allowed_lateness_s),
        bar: row_spinner(options.quiet),
        tally,
        ledger: &mut ledger,
    };
    let mut played = player.play(&mut file, &mut door).await;
    player.bar.finish_and_clear();
    if played.is_ok() {
        played = door.finish().await;
    }
    if let Err(error) = &played {
        ledger.fail(error);
        if is_log_door {
            ledger.take_back(watch.acknowledged());
        }
    }
    ledger.finish()
}

struct Player<'a> {
    input: &'a PlaybackOptions,
    clock: SystemClock,
    pace: Pace,
    bar: indicatif::ProgressBar,
    tally: &'a mut Tally,
    ledger: &'a mut Ledger,
}

impl Player<'_> {
    async fn play(&mut self, file: &mut LogFile, door: &mut RowDoor) -> anyhow::Result<()> {
        while let Some(row) = file.next_row()? {
            self.ledger.read_row();
            self.bar.inc(1);
            match row {
                LogRow::Skipped { line, reason } => {
                    self.ledger.skip(line, &reason.group(), &reason.to_string(), reason.is_fault())?;
                }
                LogRow::Click(click) => match self.pace.event_time(click.time_ms) {
                    Ok(event_time_ms) => {
                        self.wait_until(event_time_ms, door).await?;
                        let row = planned(click, self.input, door.kind(), event_time_ms);
                        let answered = door.push(row).await?;
                        self.account(answered)?;
                    }
                    Err(reason) => self.ledger.skip(click.line, reason.group(), &reason.to_string(), true)?,
                },
            }
        }
        let answered = door.flush().await?;
        self.account(answered)
    }

    /// Waits until a row's event time. Sends the collected rows before it waits.
    async fn wait_until(&mut self, event_time_ms: u64, door: &mut RowDoor) -> anyhow::Result<()> {
        let pause = Duration::from_millis(event_time_ms.saturating_sub(self.clock.now_ms()));
        if !pause.is_zero() {
            let answered = door.flush().await?;
            self.account(answered)?;
            if pause >= SHOWN_PAUSE {
                self.bar.set_message(format!("the next row is due in {} s", pause.as_secs()));
            }
            tokio::time::sleep(pause).await;
            self.bar.set_message("");
        }
        Ok(())
    }

    fn account(&mut self, answered: Vec<Answered>) -> anyhow::Result<()> {
        for Answered { row, refusal } in answered {
            match refusal {
                Some(refusal) => self.ledger.refuse(row.line, refusal.kind(), &refusal.detail)?,
                None => {
                    self.tally.add(&row.click);
                    self.ledger.played(row.names_campaign, row.is_address_left_out);
                }
            }
        }
        Ok(())
    }
}

fn planned(row: ClickRow, input: &PlaybackOptions, door: DoorKind, event_time_ms: u64) -> PlannedRow {
    // By our own knowledge of robots: the tally shares no rule with the product.
    let agent = row.user_agent.to_ascii_lowercase();
    let is_robot = ["bot", "crawler", "spider"].iter().any(|name| agent.contains(name));
    PlannedRow {
        line: row.line,
        names_campaign: row.campaign_id.is_some(),
        is_address_left_out: row.is_address_left_out,
        click: PlannedClick {
            door,
            fate: if is_robot { Fate::Invalid } else { Fate::Counted },
            event_id: row.event_id,
            ad_id: row.ad_id,
            campaign_id: row.campaign_id.unwrap_or(input.campaign_id),
            event_time_ms,
            user_agent: Cow::Owned(row.user_agent),
            country: Cow::Owned(row.country),
            device_type: Cow::Owned(row.device_type),
            ip_address: row.ip_address,
            user_id: row.user_id,
            cost_per_click_micros: 0,
        },
    }
}

/// A file and the rows that are read from it.
struct LogFile {
    path: PathBuf,
    file: File,
    reader: LogReader,
    read_ahead: VecDeque<LogRow>,
    piece: Vec<u8>,
    has_ended: bool,
}

impl LogFile {
    fn open(options: &LoadOptions) -> anyhow::Result<LogFile> {
        let path = options.playback.from.clone().context("--from is missing")?;
        let rules = options.playback.rules(options.run_id.as_deref())?;
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(LogFile {
            reader: LogReader::new(rules).with_context(|| path.display().to_string())?,
            path,
            file,
            read_ahead: VecDeque::new(),
            piece: vec![0; PIECE_BYTES],
            has_ended: false,
        })
    }

    /// Reads the first rows. Fails if one has a field under two names.
    fn read_ahead(&mut self) -> anyhow::Result<()> {
        while self.read_ahead.len() < ROWS_READ_AHEAD {
            match self.read_row()? {
                Some(LogRow::Skipped { line, reason: reason @ SkipReason::BothNames { .. } }) => {
                    bail!("{}, line {line}: {reason}", self.path.display())
                }
                Some(row) => self.read_ahead.push_back(row),
                None => break,
            }
        }
        Ok(())
    }

    fn next_row(&mut self) -> anyhow::Result<Option<LogRow>> {
        match self.read_ahead.pop_front() {
            Some(row) => Ok(Some(row)),
            None => self.read_row(),
        }
    }

    fn read_row(&mut self) -> anyhow::Result<Option<LogRow>> {
        loop {
            if let Some(row) = self.reader.next_row().with_context(|| self.path.display().to_string())? {
                return Ok(Some(row));
            }
            if self.has_ended {
                return Ok(None);
            }
            let cannot = || format!("cannot read {}", self.path.display());
            match self.file.read(&mut self.piece).with_context(cannot)? {
                0 => {
                    self.has_ended = true;
                    self.reader.end();
                }
                length => self.reader.push(&self.piece[..length]),
            }
        }
    }
}
