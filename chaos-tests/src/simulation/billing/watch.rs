//! Checks what was done against the recount, and the books against each other, after every step.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_billing::Day;
use clicktally_billing::reconcile::Judgement;
use clicktally_proto::event_time::{Minute, UnixMillis};
use clicktally_proto::money::{Currency, Micros};

use super::recount::{self, Bill, terms_of};
use super::stream::{AcceptedTerms, RowKey, StreamRow};
use super::world::World;
use crate::checks::ct7_ledger_balanced::{self, Posted};
use crate::checks::ct9_differences_explained::{self, Found};
use crate::checks::ct23_billed_as_of_the_click::{self, Billed};
use crate::checks::ct24_books_agree::{self, Booked};
use crate::checks::ct25_final_stays::{self, FinalDocuments};
use crate::checks::ct26_final_when_ready::{self, Finalised};
use crate::checks::{Invariant, Violation};

/// How far clocks may differ, for reconciliation.
const CLOCKS_DIFFER_MS: u64 = 60_000;

/// What a run was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RunInputs {
    manifest: String,
    bill: Bill,
    terms_in_database: usize,
}

impl RunInputs {
    fn is_same_bill(&self, other: &RunInputs) -> bool {
        self.manifest == other.manifest && self.bill == other.bill
    }
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Revisions that PostgreSQL had and has lost.
    pub(super) lost_terms: BTreeSet<(i64, i64)>,
    /// The inputs of each day's newest run.
    newest: BTreeMap<Day, RunInputs>,
    /// The inputs of each day's newest final run.
    settled: BTreeMap<Day, RunInputs>,
    /// When each day's newest run was last reconciled.
    reconciled: BTreeMap<Day, UnixMillis>,
    /// The day's last reconciliation must page.
    must_page: BTreeSet<Day>,
    final_documents: FinalDocuments,
}

impl Watch {
    pub(super) fn reconciled(&mut self, day: Day, now_ms: UnixMillis) {
        self.reconciled.insert(day, now_ms);
    }
}

fn first(violations: Vec<Violation>) -> Result<(), Violation> {
    violations.into_iter().next().map_or(Ok(()), Err)
}

impl World {
    /// After a run: what all documents of the day bill is what the recount says.
    pub(super) fn check_run(&mut self, day: Day, manifest: &str, is_unchanged: bool) -> Result<(), Violation> {
        let clicks = self.accepted_clicks(day, self.stream.log.len());
        let bill = recount::bill(day, &clicks, &self.stream.accepted, &self.tables.documents);
        let terms_in_database = self.tables.terms.len();
        let inputs = RunInputs { manifest: manifest.to_owned(), bill, terms_in_database };
        let is_lost = |campaign_id: u64| self.watch.lost_terms.iter().any(|lost| lost.0 == campaign_id.cast_signed());
        let owed = inputs.bill.iter().filter(|((campaign_id, _), _)| !is_lost(*campaign_id));
        let owed: BTreeMap<(u64, u64), Billed> = owed
            .map(|(key, owed)| (*key, Billed { clicks: owed.billed_clicks, amount_micros: owed.amount_micros }))
            .collect();
        let mut billed: BTreeMap<(u64, u64), Billed> = BTreeMap::new();
        for document in self.tables.documents.iter().map(|stored| &stored.document).filter(|found| found.day == day) {
            for line in document.lines.iter().filter(|line| !is_lost(line.campaign_id.cast_unsigned())) {
                let key = (line.campaign_id.cast_unsigned(), line.terms_revision.cast_unsigned());
                let sum = billed.entry(key).or_default();
                sum.clicks += line.clicks;
                sum.amount_micros += line.amount_micros;
            }
        }
        first(ct23_billed_as_of_the_click::check(&day.to_string(), &owed, &billed))?;
        if self.watch.lost_terms.is_empty()
            && let Some(settled) = self.watch.settled.get(&day)
        {
            let is_same = settled.is_same_bill(&inputs);
            first(ct25_final_stays::check_rerun(&day.to_string(), is_same, is_unchanged).into_iter().collect())?;
        }
        // A run over equal inputs makes the same draft, which has been reconciled.
        let is_repeated = self.watch.newest.get(&day).is_some_and(|before| before.is_same_bill(&inputs));
        if !is_unchanged && !is_repeated {
            self.watch.reconciled.remove(&day);
        }
        self.watch.newest.insert(day, inputs);
        Ok(())
    }

    /// The day has become final.
    pub(super) fn check_finalisation(
        &mut self,
        day: Day,
        computed_at_ms: UnixMillis,
        is_overridden: bool,
    ) -> Result<(), Violation> {
        if let Some(inputs) = self.watch.newest.get(&day)
            && self.watch.lost_terms.is_empty()
        {
            self.watch.settled.insert(day, inputs.clone());
        } else {
            self.watch.settled.remove(&day);
        }
        let complete_at_ms = day.end_ms() + self.plan.lateness_ms();
        let finalised = Finalised {
            day: day.to_string(),
            complete_at_ms,
            computed_at_ms,
            finalised_at_ms: self.now_ms,
            is_reconciled: self.watch.reconciled.get(&day).is_some_and(|at_ms| *at_ms >= complete_at_ms),
            must_page: self.watch.must_page.contains(&day),
            is_overridden,
        };
        first(ct26_final_when_ready::check(&finalised))
    }

    pub(super) fn check_books(&mut self) -> Result<(), Violation> {
        let mut posted = Vec::new();
        for transaction in &self.tables.ledger {
            posted.extend(transaction.entries.iter().map(|entry| Posted {
                transaction: &transaction.invoice_id,
                is_receivable: entry.account.as_str() == "advertiser_receivable",
                currency: entry.currency,
                amount_micros: entry.amount_micros,
            }));
        }
        first(ct7_ledger_balanced::check(&posted))?;
        let currency_of = |campaign_id: i64| {
            let campaign = self.plan.campaigns.iter().find(|known| known.campaign_id.cast_signed() == campaign_id);
            campaign.map(|campaign| campaign.currency)
        };
        let booked = self.tables.documents.iter().map(|stored| Booked {
            invoice_id: &stored.document.invoice_id,
            currency: stored.document.currency,
            amount_micros: stored.document.amount_micros,
            is_final: stored.is_final,
            lines: (stored.document.lines.iter())
                .map(|line| (currency_of(line.campaign_id), line.amount_micros))
                .collect(),
        });
        first(ct24_books_agree::check(&booked.collect::<Vec<_>>(), &posted))?;
        let documents = self.tables.documents.iter().filter(|stored| stored.is_final).map(|stored| &stored.document);
        let documents = documents.map(|document| (document.invoice_id.clone(), format!("{document:?}")));
        first(self.watch.final_documents.observe(documents.collect()))
    }

    /// Two sides that make no mistake have nothing unexplained; a mistake that must show does.
    pub(super) fn check_reconciliation(&mut self, day: Day, judgement: &Judgement) -> Result<(), Violation> {
        let summary = &judgement.summary;
        let is_current = self.is_current(day);
        let must_page = is_current && self.must_page(day, judgement);
        if must_page {
            self.watch.must_page.insert(day);
        } else {
            self.watch.must_page.remove(&day);
        }
        let found = Found {
            day: day.to_string(),
            unexplained: summary.unexplained + summary.unexplained_amounts,
            pages: summary.pages(),
            is_faultless: is_current && self.is_faultless(),
            must_page,
        };
        first(ct9_differences_explained::check(&found))?;
        if found.is_faultless { self.check_amounts(day, judgement) } else { Ok(()) }
    }

    /// Both sides have seen the same log, and PostgreSQL has the terms that both price by.
    fn is_current(&self, day: Day) -> bool {
        let (Some(inputs), Some(results)) = (self.watch.newest.get(&day), self.tables.results.get(&day)) else {
            return false;
        };
        let read_now = self.accepted_clicks(day, self.stream.log.len());
        let is_same_log = read_now.len() == self.accepted_clicks(day, results.records).len();
        // A group that stands still has not yet declared late what came too late meanwhile.
        let rules = self.plan.rules;
        let is_late = |click: &super::stream::Click| {
            let watermark_ms = click.arrival_ms.saturating_sub(rules.out_of_orderness_ms);
            rules.is_final(Minute::of(click.event_time_ms), watermark_ms)
        };
        let has_undeclared = read_now.iter().any(|click| {
            !self.stream.is_current(click.campaign_id) && is_late(click) && !self.stream.late.contains(&click.offset)
        });
        let exported = self.stream.accepted.iter().all(|accepted| {
            let key = (accepted.terms.campaign_id.cast_signed(), accepted.revision.cast_signed());
            self.tables.terms.contains_key(&key) || self.watch.lost_terms.contains(&key)
        });
        let is_same_terms = inputs.terms_in_database == self.tables.terms.len();
        is_same_log && !has_undeclared && exported && is_same_terms
    }

    fn is_faultless(&self) -> bool {
        self.stream.row_errors.is_empty() && self.watch.lost_terms.is_empty()
    }

    /// A click that the stream forgot, or an amount that no terms allow, beyond the limit.
    fn must_page(&self, day: Day, judgement: &Judgement) -> bool {
        let rows = self.stream.rows(day.start_ms(), day.end_ms());
        let is_final = |key: &RowKey| self.plan.rules.is_final(key.2, self.stream.watermark_ms(key.0, self.now_ms));
        let forgotten = self.stream.row_errors.iter().filter(|(key, _)| rows.contains_key(key) && is_final(key));
        let forgotten: u64 = forgotten.map(|(_, wrong)| wrong.clicks).sum();
        if forgotten * 1_000 > judgement.summary.batch_clicks {
            return true;
        }
        let mut impossible: BTreeMap<Option<Currency>, i128> = BTreeMap::new();
        for (key, row) in &rows {
            if self.is_compared_by_minute(key.0, day)
                && let Some(price) = self.only_price(key, row)
            {
                let currency = self.plan.campaigns.iter().find(|known| known.campaign_id == key.0);
                let charged = i128::from(row.spend_micros) - i128::from(row.clicks) * i128::from(price);
                *impossible.entry(currency.map(|campaign| campaign.currency)).or_default() += charged.abs();
            }
        }
        judgement.summary.amounts.iter().any(|amounts| {
            let impossible = impossible.get(&amounts.currency).copied().unwrap_or(0);
            impossible * 1_000 > i128::from(amounts.amounts.batch_micros)
        })
    }

    /// A campaign with one price is compared by the day.
    fn is_compared_by_minute(&self, campaign_id: u64, day: Day) -> bool {
        let terms = || self.tables.terms.values().filter(|terms| terms.campaign_id.cast_unsigned() == campaign_id);
        let prices: BTreeSet<Micros> = terms().map(|terms| terms.cost_per_click_micros).collect();
        let begins_ms = terms().map(|terms| terms.effective_from_ms).min();
        prices.len() > 1 || begins_ms.is_some_and(|begins_ms| begins_ms > day.start_ms())
    }

    /// The price that PostgreSQL's terms leave for every click of a row, if no change is near.
    fn only_price(&self, key: &RowKey, row: &StreamRow) -> Option<Micros> {
        let of_campaign = |campaign_id: i64| campaign_id == key.0.cast_signed();
        let known = self.tables.terms.values().filter(|terms| of_campaign(terms.campaign_id));
        let known = known.filter(|terms| terms.revision <= row.revision.cast_signed());
        let last = known.max_by_key(|terms| terms.revision)?;
        let near_ms = self.plan.rules.max_ahead_ms + 2 * CLOCKS_DIFFER_MS;
        (last.effective_from_ms + near_ms < key.2.start_ms()).then_some(last.cost_per_click_micros)
    }

    /// The amounts of each currency are sums over that currency's campaigns.
    fn check_amounts(&self, day: Day, judgement: &Judgement) -> Result<(), Violation> {
        let currency_of = |campaign_id: u64| {
            let campaign = self.plan.campaigns.iter().find(|known| known.campaign_id == campaign_id);
            campaign.map(|campaign| campaign.currency)
        };
        let mut expected: BTreeMap<Currency, (Micros, Micros)> = BTreeMap::new();
        for (key, row) in self.stream.rows(day.start_ms(), day.end_ms()) {
            if let Some(currency) = currency_of(key.0) {
                expected.entry(currency).or_default().0 += row.spend_micros;
            }
        }
        let accepted: &[AcceptedTerms] = &self.stream.accepted;
        for click in self.accepted_clicks(day, self.stream.log.len()) {
            if let (Some(currency), Some(terms)) = (currency_of(click.campaign_id), terms_of(click, accepted)) {
                expected.entry(currency).or_default().1 += terms.terms.cost_per_click_micros;
            }
        }
        for amounts in &judgement.summary.amounts {
            let Some(currency) = amounts.currency else { continue };
            let found = (amounts.amounts.stream_micros, amounts.amounts.batch_micros);
            let right = expected.get(&currency).copied().unwrap_or_default();
            if found != right {
                let detail =
                    format!("{day}: stream and batch charge {found:?} {currency}, and the clicks cost {right:?}");
                return Err(Violation { invariant: Invariant::DifferencesExplained, detail });
            }
        }
        Ok(())
    }
}
