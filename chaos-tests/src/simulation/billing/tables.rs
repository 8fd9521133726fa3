//! A model of PostgreSQL's tables as billing sees them, and of the queries in `billing/database/src/billing/`.

use std::collections::BTreeMap;

use clicktally_billing::Day;
use clicktally_billing::batch::DayBill;
use clicktally_billing::bill::{BilledByCampaign, BilledUsage, Terms};
use clicktally_billing::invoice::{Document, DraftDocument, NewestRun, ReconciledRun, SettledLine};
use clicktally_billing::ledger::Entry;
use clicktally_database::billing::BatchAmounts;
use clicktally_database::catalog::TermsExport;
use clicktally_proto::event_time::{Minute, UnixMillis};
use clicktally_proto::identity::shard_key::GroupId;

/// (Campaign, ad, minute).
pub(super) type CellKey = (i64, i64, Minute);

/// Clicks of the newest run, by window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BatchRow {
    pub(super) clicks: i64,
    pub(super) invalid_clicks: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredDocument {
    pub(super) document: Document,
    pub(super) is_final: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) invoice_id: String,
    pub(super) entries: Vec<Entry>,
}

/// What a run left of its day, besides documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DayResults {
    pub(super) billed: Vec<BilledUsage>,
    pub(super) cells: BTreeMap<CellKey, BatchRow>,
    /// By campaign.
    pub(super) amounts: BTreeMap<i64, BatchAmounts>,
    /// How many records of the log the run read.
    pub(super) records: usize,
}

#[derive(Debug, Default)]
pub(super) struct Tables {
    /// `catalog.campaign_terms`, by campaign and revision.
    pub(super) terms: BTreeMap<(i64, i64), Terms>,
    pub(super) exports: BTreeMap<GroupId, TermsExport>,
    /// `billing.batch_run`, oldest first.
    pub(super) runs: BTreeMap<Day, Vec<NewestRun>>,
    pub(super) results: BTreeMap<Day, DayResults>,
    pub(super) documents: Vec<StoredDocument>,
    pub(super) ledger: Vec<Transaction>,
    pub(super) reconciled: BTreeMap<Day, ReconciledRun>,
}

impl Tables {
    pub(super) fn exports(&self) -> Vec<TermsExport> {
        self.exports.values().copied().collect()
    }

    pub(super) fn newest_run(&self, day: Day) -> Option<&NewestRun> {
        self.runs.get(&day)?.last()
    }

    /// What `Stage::replace_day` reads: the next revision, and the bill of the newest final run.
    pub(super) fn next_revision(&self, day: Day) -> (i32, Option<String>) {
        let newest_final = self.runs.get(&day).into_iter().flatten().rfind(|run| run.is_final);
        (newest_final.map_or(1, |run| run.revision + 1), newest_final.and_then(|run| run.bill_sha256.clone()))
    }

    pub(super) fn delete_drafts(&mut self, day: Day) {
        self.documents.retain(|stored| stored.document.day != day || stored.is_final);
        if let Some(runs) = self.runs.get_mut(&day) {
            runs.retain(|run| run.is_final);
        }
    }

    pub(super) fn record_run(&mut self, day: Day, revision: i32, computed_at_ms: UnixMillis, bill: &DayBill) {
        let bill_sha256 = Some(bill.sha256.clone());
        self.runs.entry(day).or_default().push(NewestRun { revision, is_final: false, computed_at_ms, bill_sha256 });
        let drafts = bill.documents.iter().cloned();
        self.documents.extend(drafts.map(|document| StoredDocument { document, is_final: false }));
    }

    /// What final documents of the day bill, by campaign and revision.
    pub(super) fn settled_lines(&self, day: Day) -> Vec<SettledLine> {
        let mut settled: BTreeMap<(i64, i64), SettledLine> = BTreeMap::new();
        let of_day = self.documents.iter().filter(|stored| stored.document.day == day && stored.is_final);
        for line in of_day.flat_map(|stored| &stored.document.lines) {
            let (campaign_id, terms_revision) = (line.campaign_id, line.terms_revision);
            let empty = SettledLine { campaign_id, terms_revision, clicks: 0, amount_micros: 0 };
            let sum = settled.entry((campaign_id, terms_revision)).or_insert(empty);
            sum.clicks += line.clicks;
            sum.amount_micros += line.amount_micros;
        }
        settled.into_values().collect()
    }

    /// What documents of other days bill, drafts too.
    pub(super) fn billed_on_other_days(&self, day: Day) -> BilledByCampaign {
        let mut billed = BilledByCampaign::new();
        let mut later: BTreeMap<(Day, i64, i64), i64> = BTreeMap::new();
        for StoredDocument { document, .. } in self.documents.iter().filter(|stored| stored.document.day != day) {
            for line in &document.lines {
                let of_campaign = billed.entry((line.campaign_id, document.currency)).or_default();
                if document.day < day {
                    of_campaign.earlier_micros += line.amount_micros;
                } else {
                    let key = (document.day, line.terms_revision, line.campaign_id);
                    *later.entry(key).or_default() += line.amount_micros;
                }
            }
        }
        for ((_, revision, campaign_id), amount_micros) in later {
            let of_campaign = billed.iter_mut().filter(|((campaign, _), _)| *campaign == campaign_id);
            of_campaign.for_each(|(_, elsewhere)| elsewhere.later.push((revision, amount_micros)));
        }
        billed
    }

    pub(super) fn drafts(&self, day: Day) -> Vec<DraftDocument> {
        let drafts = self.documents.iter().filter(|stored| stored.document.day == day && !stored.is_final);
        let draft = |StoredDocument { document, .. }: &StoredDocument| DraftDocument {
            invoice_id: document.invoice_id.clone(),
            advertiser_id: document.advertiser_id,
            currency: document.currency,
            amount_micros: document.amount_micros,
        };
        drafts.map(draft).collect()
    }

    pub(super) fn make_final(&mut self, day: Day) {
        self.documents.iter_mut().filter(|stored| stored.document.day == day).for_each(|stored| stored.is_final = true);
        self.runs.entry(day).or_default().iter_mut().for_each(|run| run.is_final = true);
    }
}
