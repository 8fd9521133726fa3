//! What an operator and a nightly timer do: they run a day, reconcile it, and finalise it. The decisions are the
//! product's; the model reads and writes the tables as its shells do.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_billing::batch::{BatchOptions, ExportedTerms, UnbilledDay};
use clicktally_billing::bill::{TermsInterval, TermsTimeline, Usage};
use clicktally_billing::invoice::{DayFacts, Finalising, ReconciledRun};
use clicktally_billing::ledger::entries_of;
use clicktally_billing::reconcile::{ComparedDay, campaigns_that_differ};
use clicktally_billing::{BillingError, Day};
use clicktally_database::billing::{DayTotals, DifferingWindow, PricedClicks};
use clicktally_proto::event_time::Minute;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::money::Micros;

use super::recount::is_accepted;
use super::stream::StreamRow;
use super::tables::{BatchRow, CellKey, DayResults, StoredDocument, Transaction};
use super::world::World;
use crate::checks::{Invariant, Violation};

const HOUR_MS: u64 = 3_600_000;

impl World {
    fn some_day(&mut self) -> Option<Day> {
        let begun: Vec<Day> = self.plan.days.iter().copied().filter(|day| day.start_ms() <= self.now_ms).collect();
        self.draws.operator.pick(&begun).copied()
    }

    pub(super) fn a_day_is_run(&mut self) -> Result<(), Violation> {
        let Some(day) = self.some_day() else { return Ok(()) };
        self.run_day(day)?;
        if self.draws.operator.permille(300) {
            self.run_day(day)?;
        }
        Ok(())
    }

    pub(super) fn a_day_is_reconciled(&mut self) -> Result<(), Violation> {
        let Some(day) = self.some_day() else { return Ok(()) };
        self.reconcile_day(day)
    }

    pub(super) fn a_day_is_finalised(&mut self) -> Result<(), Violation> {
        let Some(day) = self.some_day() else { return Ok(()) };
        let is_overridden = self.draws.operator.permille(200);
        self.finalise_day(day, is_overridden).map(drop)
    }

    /// What a nightly timer does.
    pub(super) fn a_night_passes(&mut self) -> Result<(), Violation> {
        let Some(day) = self.some_day() else { return Ok(()) };
        if self.draws.operator.permille(700) {
            self.stream.count();
        }
        self.run_day(day)?;
        // The timer of the reconciliation failed.
        if !self.draws.operator.permille(250) {
            self.reconcile_day(day)?;
        }
        self.finalise_day(day, false).map(drop)
    }

    /// `false`: the run was refused.
    pub(super) fn run_day(&mut self, day: Day) -> Result<bool, Violation> {
        // A run is asked for after everything that has happened.
        self.now_ms += 1;
        let asked_at_ms = self.now_ms;
        let is_covered = |exported: &ExportedTerms| exported.cover(asked_at_ms);
        if self.exported_terms().filter(is_covered).is_none() && self.is_writer_working() {
            // The run waits for the writer's next round.
            self.now_ms += 1 + self.draws.operator.below(2_000);
            self.terms_are_exported()?;
        }
        let Some(exported) = self.exported_terms().filter(is_covered) else {
            self.note(format_args!("{day} waits for terms"));
            return Ok(false);
        };
        let timeline = TermsTimeline::new(self.tables.terms.values().cloned());
        let (usages, results) = self.read_archive(day, &timeline.intervals(), exported.max_ahead_ms);
        let manifest_sha256 = self.manifest(day);
        let (revision, settled_bill) = self.tables.next_revision(day);
        // In one transaction with what follows: an error keeps the drafts.
        let without_drafts = |stored: &&StoredDocument| stored.document.day != day || stored.is_final;
        let kept: Vec<StoredDocument> = self.tables.documents.iter().filter(without_drafts).cloned().collect();
        let unbilled = UnbilledDay {
            day,
            revision,
            manifest_sha256: &manifest_sha256,
            usages,
            billed_elsewhere: self.tables.billed_on_other_days(day),
            settled: self.tables.settled_lines(day),
            settled_bill: settled_bill.as_deref(),
        };
        let bill = match unbilled.bill(&timeline) {
            Ok(bill) => bill,
            Err(BillingError::TermsRewritten { campaign_id, revision })
                if self.watch.lost_terms.contains(&(campaign_id, revision)) =>
            {
                self.note(format_args!("{day} cannot be billed: revision {revision} of {campaign_id} is lost"));
                return Ok(false);
            }
            Err(error) => {
                let detail = format!("{day} cannot be billed: {error}");
                return Err(Violation { invariant: Invariant::BilledAsOfTheClick, detail });
            }
        };
        self.tables.documents = kept;
        self.tables.delete_drafts(day);
        let mut results = DayResults { billed: bill.billed.clone(), records: self.stream.log.len(), ..results };
        for billed in &bill.billed {
            let terms = timeline.get(billed.usage.campaign_id, billed.usage.terms_revision);
            let price = terms.map_or(0, |terms| terms.cost_per_click_micros);
            let amounts = results.amounts.entry(billed.usage.campaign_id).or_default();
            amounts.cost_micros += billed.usage.clicks.cast_signed() * price;
            amounts.billed_micros += billed.amount_micros;
        }
        self.tables.results.insert(day, results);
        if !bill.is_unchanged {
            self.tables.record_run(day, revision, self.now_ms, &bill);
            if is_broken(Mutant::DraftPosted) {
                for document in &bill.documents {
                    let entries = entries_of(document.advertiser_id, document.currency, document.amount_micros);
                    let (invoice_id, entries) = (document.invoice_id.clone(), entries.unwrap_or_default());
                    self.tables.ledger.push(Transaction { invoice_id, entries });
                }
            }
        }
        let amounts: Vec<Micros> = bill.documents.iter().map(|document| document.amount_micros).collect();
        self.note(format_args!("{day} is run: revision {revision}, unchanged {}, {amounts:?}", bill.is_unchanged));
        self.check_run(day, &manifest_sha256, bill.is_unchanged)?;
        Ok(true)
    }

    fn exported_terms(&self) -> Option<ExportedTerms> {
        ExportedTerms::of(self.plan.groups, &self.tables.exports()).expect("one cluster writes")
    }

    fn is_writer_working(&mut self) -> bool {
        self.is_healed || self.draws.operator.permille(700)
    }

    /// The batch's query over the archive (`billing/src/batch/clicks_sql.rs`).
    fn read_archive(&self, day: Day, terms: &[TermsInterval], max_ahead_ms: u64) -> (Vec<Usage>, DayResults) {
        let mut usages: BTreeMap<(i64, i64), Usage> = BTreeMap::new();
        let mut results = DayResults::default();
        let of_day = |event_time_ms: u64| (day.start_ms()..day.end_ms()).contains(&event_time_ms);
        for click in self.stream.log.iter().filter(|click| of_day(click.event_time_ms)) {
            if click.event_time_ms > click.arrival_ms + max_ahead_ms {
                continue;
            }
            let campaign_id = click.campaign_id.cast_signed();
            let holds = |interval: &&TermsInterval| {
                interval.campaign_id == campaign_id && interval.holds(click.event_time_ms, click.arrival_ms)
            };
            let terms_revision = terms.iter().find(holds).map_or(0, |interval| interval.revision);
            let usage = Usage { campaign_id, terms_revision, clicks: 0, invalid_clicks: 0 };
            let usage = usages.entry((campaign_id, terms_revision)).or_insert(usage);
            let cell: CellKey = (campaign_id, click.ad_id.cast_signed(), Minute::of(click.event_time_ms));
            let row = results.cells.entry(cell).or_default();
            if click.is_valid {
                usage.clicks += 1;
                row.clicks += 1;
            } else {
                usage.invalid_clicks += 1;
                row.invalid_clicks += 1;
            }
        }
        (usages.into_values().collect(), results)
    }

    /// Names the archive's files that can hold the day.
    fn manifest(&self, day: Day) -> String {
        let read = (day.start_ms().saturating_sub(HOUR_MS))..(day.end_ms() + HOUR_MS);
        let offsets = self.stream.log.iter().filter(|click| read.contains(&click.event_time_ms));
        format!("{:?}", offsets.map(|click| click.offset).collect::<Vec<u64>>())
    }

    pub(super) fn reconcile_day(&mut self, day: Day) -> Result<(), Violation> {
        let Some(run) = self.tables.newest_run(day).cloned() else { return Ok(()) };
        let compared = self.compared_day(day);
        let max_ahead_ms =
            self.exported_terms().map_or(BatchOptions::default().max_ahead_ms, |exported| exported.max_ahead_ms);
        let judgement = compared.judge(self.stream.partitioner, max_ahead_ms).expect("small amounts do not overflow");
        let verdict = judgement.verdict;
        self.tables.reconciled.insert(
            day,
            ReconciledRun {
                revision: run.revision,
                bill_sha256: run.bill_sha256.clone(),
                batch_clicks: verdict.totals.batch_clicks,
                unexplained: verdict.unexplained,
                unexplained_amounts: verdict.unexplained_amounts,
                pages: verdict.pages,
                reconciled_at_ms: self.now_ms,
            },
        );
        self.note(format_args!(
            "{day} is reconciled: {} clicks and {} amounts unexplained",
            verdict.unexplained, verdict.unexplained_amounts
        ));
        self.watch.reconciled(day, self.now_ms);
        self.check_reconciliation(day, &judgement)
    }

    /// What `Reconciliation` reads in its one transaction (`billing/database/src/billing/`).
    fn compared_day(&self, day: Day) -> ComparedDay {
        let empty = DayResults::default();
        let results = self.tables.results.get(&day).unwrap_or(&empty);
        let rows: BTreeMap<CellKey, StreamRow> = self
            .stream
            .rows(day.start_ms(), day.end_ms())
            .into_iter()
            .map(|((campaign_id, ad_id, minute), row)| ((campaign_id.cast_signed(), ad_id.cast_signed(), minute), row))
            .collect();
        let keys: BTreeSet<CellKey> = rows.keys().chain(results.cells.keys()).copied().collect();
        let both = |key: &CellKey| (results.cells.get(key).copied().unwrap_or_default(), rows.get(key).copied());
        let mut windows = Vec::new();
        let mut clicks: Vec<PricedClicks> = Vec::new();
        for key @ (campaign_id, ad_id, minute) in keys {
            let (BatchRow { clicks: batch_clicks, invalid_clicks }, row) = both(&key);
            let stream = row.unwrap_or_default();
            let stream_clicks = stream.clicks.cast_signed();
            if batch_clicks != stream_clicks {
                let watermark_ms = self.stream.watermark_ms(campaign_id.cast_unsigned(), self.now_ms);
                windows.push(DifferingWindow {
                    minute,
                    ad_id,
                    campaign_id,
                    batch_clicks,
                    batch_invalid: invalid_clicks,
                    stream_clicks,
                    stream_invalid: stream.invalid_clicks.cast_signed(),
                    strayed_copies: 0,
                    is_marked_final: row.is_some() && self.plan.rules.is_final(minute, watermark_ms),
                });
            }
            clicks.push(PricedClicks {
                campaign_id,
                minute,
                batch_clicks,
                stream_clicks,
                stream_micros: stream.spend_micros,
                newest_revision: stream.revision.cast_signed(),
            });
        }
        let unbilled = results.billed.iter().filter_map(|billed| {
            let cause = billed.unbilled_cause?.as_str().to_owned();
            let clicks = (billed.usage.clicks - billed.billed_clicks).cast_signed();
            Some((billed.usage.campaign_id, cause, clicks))
        });
        let unbilled: Vec<_> = unbilled.collect();
        let sum_of = |campaign_id: i64| {
            let stream = rows.iter().filter(|((campaign, ..), _)| *campaign == campaign_id).map(|(_, row)| row.clicks);
            let billed = results.billed.iter().filter(|billed| billed.usage.campaign_id == campaign_id);
            (stream.sum::<u64>().cast_signed(), billed.map(|billed| billed.billed_clicks).sum::<u64>().cast_signed())
        };
        let campaigns = campaigns_that_differ(&windows, &unbilled);
        let mut late: BTreeMap<CellKey, i64> = BTreeMap::new();
        let counted = self.accepted_clicks(day, results.records);
        for click in counted.into_iter().filter(|click| self.stream.late.contains(&click.offset)) {
            let minute = Minute::of(click.event_time_ms);
            *late.entry((click.campaign_id.cast_signed(), click.ad_id.cast_signed(), minute)).or_default() += 1;
        }
        ComparedDay {
            day,
            windows,
            late,
            final_windows: self.stream.newest_final_windows(day.start_ms(), self.now_ms),
            unbilled,
            campaign_totals: campaigns.into_iter().map(|campaign_id| (campaign_id, sum_of(campaign_id))).collect(),
            totals: DayTotals {
                batch_clicks: results.cells.values().map(|row| row.clicks).sum::<i64>().cast_unsigned(),
                stream_clicks: rows.values().map(|row| row.clicks).sum(),
                billed_clicks: results.billed.iter().map(|billed| billed.billed_clicks).sum(),
            },
            terms: self.tables.terms.values().cloned().collect(),
            batch_amounts: results.amounts.clone(),
            clicks: self.rows_by_price(day, clicks),
        }
    }

    /// A campaign that had one price since an hour before the day is compared as a whole.
    fn rows_by_price(&self, day: Day, rows: Vec<PricedClicks>) -> Vec<PricedClicks> {
        let mut priced: Vec<PricedClicks> = Vec::new();
        for row in rows {
            let terms = || self.tables.terms.values().filter(|terms| terms.campaign_id == row.campaign_id);
            let prices: BTreeSet<Micros> = terms().map(|terms| terms.cost_per_click_micros).collect();
            let begins_ms = terms().map(|terms| terms.effective_from_ms).min();
            let is_repriced =
                prices.len() > 1 || begins_ms.is_some_and(|ms| ms > day.start_ms().saturating_sub(HOUR_MS));
            let is_same = |last: &&mut PricedClicks| {
                last.campaign_id == row.campaign_id && (!is_repriced || last.minute == row.minute)
            };
            match priced.iter_mut().find(is_same) {
                None => priced.push(row),
                Some(sum) => {
                    sum.minute = sum.minute.max(row.minute);
                    sum.batch_clicks += row.batch_clicks;
                    sum.stream_clicks += row.stream_clicks;
                    sum.stream_micros += row.stream_micros;
                    sum.newest_revision = sum.newest_revision.max(row.newest_revision);
                }
            }
        }
        priced.sort_by_key(|row| (row.campaign_id, row.minute));
        priced
    }

    /// `false`: the day is not ready.
    pub(super) fn finalise_day(&mut self, day: Day, is_overridden: bool) -> Result<bool, Violation> {
        let Some(run) = self.tables.newest_run(day).cloned() else { return Ok(false) };
        if run.is_final {
            return Ok(true);
        }
        let reconciled = self.tables.reconciled.get(&day).cloned();
        let facts = DayFacts {
            day,
            lateness_ms: self.plan.lateness_ms(),
            now_ms: self.now_ms,
            run: &run,
            reconciled: reconciled.as_ref(),
        };
        let finalising = match Finalising::decide(&facts, self.tables.drafts(day), is_overridden) {
            Ok(finalising) => finalising,
            Err(refused) => {
                self.note(format_args!("{refused}"));
                return Ok(false);
            }
        };
        for posting in finalising.postings {
            let (invoice_id, entries) = (posting.document.invoice_id, posting.entries);
            self.tables.ledger.push(Transaction { invoice_id, entries });
        }
        self.tables.make_final(day);
        self.note(format_args!("{day} is final, overridden {:?}", finalising.overridden));
        self.check_finalisation(day, run.computed_at_ms, !finalising.overridden.is_empty())?;
        Ok(true)
    }

    /// Valid clicks of the day that were in the log when it held `records`.
    pub(super) fn accepted_clicks(&self, day: Day, records: usize) -> Vec<&super::stream::Click> {
        let of_day = day.start_ms()..day.end_ms();
        let read = self.stream.log.iter().take(records);
        read.filter(|click| {
            click.is_valid && of_day.contains(&click.event_time_ms) && is_accepted(click, self.plan.rules.max_ahead_ms)
        })
        .collect()
    }
}
