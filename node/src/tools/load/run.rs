//! Runs a load: draws what is due, tallies it, hands it to the doors, and waits for every acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::clock::{Clock, SystemClock};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::door::Door;
use super::plan::{DoorKind, Plan, PlannedClick};
use super::playback::totals::PlaybackTotals;
use super::progress::{LoadWatch, bar};
use super::tally::Tally;
use super::{LoadOptions, http_door, log_door, playback};

/// How often clicks become due.
const TICK: Duration = Duration::from_millis(20);
/// Every so many ticks also half-full batches leave, so that a slow load is not a late one.
const TICKS_PER_FLUSH: u32 = 5;
/// With `--rate 0`, what is drawn between two looks at the clock.
const UNPACED_CLICKS: u64 = 1_000;
/// A load that was held up makes up for at most this much of its rate at once.
const CATCH_UP_MS: u64 = 1_000;

/// What was done, and what must come of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LoadSummary {
    pub sent: u64,
    pub unique_valid: u64,
    /// What the stream must count: distinct, valid, not beyond the horizon.
    pub counted: u64,
    pub late_counted: u64,
    pub late_beyond: u64,
    pub duplicates: u64,
    pub invalid: u64,
    pub malformed: u64,
    /// Rows of a real input that were not played.
    pub skipped_rows: u64,
    /// HTTP batches sent again.
    pub repeats: u64,
    pub elapsed_ms: u64,
    /// What became of each row of a real input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub playback: Option<PlaybackTotals>,
    #[serde(skip)]
    pub tally: Tally,
}

/// Runs to the end. Blocks nothing; wants a multi-threaded runtime only for speed.
pub async fn run(options: LoadOptions) -> anyhow::Result<LoadSummary> {
    run_watched(options, Arc::default()).await
}

/// Runs like [`run`], with counters that the caller may watch meanwhile. A watch that is held open keeps a generated
/// load going; a real input ends by itself.
pub async fn run_watched(options: LoadOptions, watch: Arc<LoadWatch>) -> anyhow::Result<LoadSummary> {
    options.check()?;
    let clock = SystemClock;
    let started = clock.monotonic();
    let mut tally = Tally::default();
    let mut totals = None;
    if options.playback.from.is_some() {
        totals = Some(playback::play(&options, clock, &watch, &mut tally).await?);
    } else {
        let mut doors = Doors::open(&options, &watch)?;
        generate(&options, clock, &mut doors, &mut tally, &watch).await?;
        doors.finish().await?;
    }
    let is_broken_off = totals.as_ref().is_some_and(|totals| totals.failure.is_some());
    if let Some(path) = options.expect.as_ref().filter(|_| !is_broken_off) {
        tally.write(path)?;
    }
    let elapsed_ms = u64::try_from((clock.monotonic() - started).as_millis())?;
    Ok(LoadSummary::of(tally, totals, watch.repeats(), elapsed_ms))
}

impl LoadSummary {
    fn of(tally: Tally, playback: Option<PlaybackTotals>, repeats: u64, elapsed_ms: u64) -> LoadSummary {
        LoadSummary {
            sent: tally.sent,
            unique_valid: tally.unique_valid,
            counted: tally.counted(),
            late_counted: tally.late_counted,
            late_beyond: tally.late_beyond,
            duplicates: tally.duplicates,
            invalid: tally.invalid,
            malformed: tally.malformed,
            skipped_rows: playback.as_ref().map_or(0, |totals| totals.rows - totals.played),
            repeats,
            elapsed_ms,
            playback,
            tally,
        }
    }
}

async fn generate(
    options: &LoadOptions,
    clock: SystemClock,
    doors: &mut Doors,
    tally: &mut Tally,
    watch: &LoadWatch,
) -> anyhow::Result<()> {
    let event_time = |sent: u64| {
        let begun_ms = clock.now_ms().saturating_sub(options.behind_s * 1_000);
        begun_ms + spanned_ms(options, sent)
    };
    let mut plan = Plan::new(options, event_time(0))?;
    let bar = bar(options.clicks, options.quiet);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut pace = Pace { rate: options.rate, last_ms: monotonic_ms(clock), owed_thousandths: 0 };
    for ticks in 0_u32.. {
        if options.rate > 0 {
            tick.tick().await;
        }
        let sent_before = tally.sent;
        plan.draw_steady(event_time(sent_before), &mut |click| doors.take(tally, click));
        let due = pace.due(monotonic_ms(clock)).saturating_sub(tally.sent - sent_before);
        // Read once a tick, so that the count below and the end agree.
        let clicks_max = watch.clicks_max(options.clicks);
        for _ in 0..due.min(clicks_max.saturating_sub(tally.sent)) {
            let click = plan.draw(event_time(tally.sent));
            doors.take(tally, click);
        }
        doors.flush(ticks % TICKS_PER_FLUSH == 0).await?;
        bar.set_position(watch.acknowledged());
        if tally.sent >= clicks_max {
            break;
        }
    }
    plan.finish_steady(event_time(tally.sent), &mut |click| doors.take(tally, click));
    doors.flush(true).await?;
    bar.finish_and_clear();
    Ok(())
}

/// How far event times have run ahead of the wall clock's pace when so many clicks are sent.
fn spanned_ms(options: &LoadOptions, sent: u64) -> u64 {
    let span_ms =
        u128::from(options.span_s) * 1_000 * u128::from(sent.min(options.clicks)) / u128::from(options.clicks.max(1));
    // At most the whole span, which came from a u64 of seconds below the age of the epoch.
    u64::try_from(span_ms).unwrap_or(u64::MAX)
}

fn monotonic_ms(clock: SystemClock) -> u64 {
    u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX)
}

/// Turns time passed into clicks due, without losing fractions.
struct Pace {
    rate: u64,
    last_ms: u64,
    owed_thousandths: u64,
}

impl Pace {
    fn due(&mut self, now_ms: u64) -> u64 {
        if self.rate == 0 {
            return UNPACED_CLICKS;
        }
        self.owed_thousandths += now_ms.saturating_sub(self.last_ms).min(CATCH_UP_MS) * self.rate;
        self.last_ms = now_ms;
        let due = self.owed_thousandths / 1_000;
        self.owed_thousandths %= 1_000;
        due
    }
}

/// The doors that are open.
struct Doors {
    http: Option<Door>,
    log: Option<Door>,
}

impl Doors {
    fn open(options: &LoadOptions, watch: &Arc<LoadWatch>) -> anyhow::Result<Doors> {
        let http = if options.urls.is_empty() { None } else { Some(http_door::open(options, watch)?) };
        let log = options.kafka.as_deref().map(|bootstrap| log_door::open(options, bootstrap, watch)).transpose()?;
        Ok(Doors { http, log })
    }

    fn take(&mut self, tally: &mut Tally, click: PlannedClick) {
        let wanted = if click.door == DoorKind::Http { &mut self.http } else { &mut self.log };
        // The plan draws open doors only.
        if let Some(door) = wanted {
            tally.add(&click);
            door.push(click);
        }
    }

    async fn flush(&mut self, everything: bool) -> anyhow::Result<()> {
        for door in [&mut self.http, &mut self.log].into_iter().flatten() {
            door.flush(everything).await?;
        }
        Ok(())
    }

    async fn finish(self) -> anyhow::Result<()> {
        for door in [self.http, self.log].into_iter().flatten() {
            door.finish().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_loses_no_fraction_of_a_click() {
        let mut pace = Pace { rate: 333, last_ms: 0, owed_thousandths: 0 };
        let due: u64 = (1..=10_000 / 7).map(|n| pace.due(n * 7)).sum();
        assert_eq!(due, 333 * (10_000 / 7 * 7) / 1_000);
    }
}
