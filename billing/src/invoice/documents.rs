//! Invoices and memos: the difference between what a day costs and what finalised documents say of it already.

use std::collections::BTreeMap;

use clicktally_database::Day;
use clicktally_database::billing::SettledLine;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::money::{Currency, Micros};

use crate::bill::{BilledUsage, TermsTimeline};
use crate::error::{BillingError, bigint};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// The first revision of a day.
    Invoice,
    /// A later one, the advertiser owes more (or the same, differently split).
    DebitMemo,
    /// A later one, the advertiser owes less.
    CreditMemo,
}

impl DocumentKind {
    pub fn as_str(self) -> &'static str {
        match self {
            DocumentKind::Invoice => "invoice",
            DocumentKind::DebitMemo => "debit_memo",
            DocumentKind::CreditMemo => "credit_memo",
        }
    }
}

/// What one advertiser owes for one day in one currency, as far as earlier revisions do not say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub invoice_id: String,
    pub day: Day,
    pub revision: i32,
    pub advertiser_id: i64,
    pub currency: Currency,
    pub kind: DocumentKind,
    pub amount_micros: Micros,
    pub lines: Vec<Line>,
}

/// `amount_micros = clicks × price_micros`; both negative where a memo takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub campaign_id: i64,
    pub campaign_name: String,
    pub terms_revision: i64,
    pub clicks: i64,
    pub price_micros: Micros,
    pub amount_micros: Micros,
    /// Valid clicks of the day that the budget did not cover.
    pub unbilled_clicks: i64,
}

/// Builds the documents of one day and revision. Pure; the same input gives the same documents, ids included.
#[derive(Debug)]
pub struct InvoiceBuilder<'a> {
    day: Day,
    revision: i32,
    terms: &'a TermsTimeline,
    /// By campaign and terms revision.
    wanted: BTreeMap<(i64, i64), BilledUsage>,
    settled: BTreeMap<(i64, i64), SettledLine>,
}

impl<'a> InvoiceBuilder<'a> {
    /// `revision` is 1 for a day without finalised documents, and grows by one with each finalisation.
    pub fn new(day: Day, revision: i32, terms: &'a TermsTimeline) -> InvoiceBuilder<'a> {
        assert!(revision >= 1, "revisions count from 1");
        InvoiceBuilder { day, revision, terms, wanted: BTreeMap::new(), settled: BTreeMap::new() }
    }

    pub fn billed(mut self, billed: &[BilledUsage]) -> Self {
        self.wanted.extend(billed.iter().map(|b| ((b.usage.campaign_id, b.usage.terms_revision), *b)));
        self
    }

    pub fn settled(mut self, settled: &[SettledLine]) -> Self {
        self.settled.extend(settled.iter().map(|s| ((s.campaign_id, s.terms_revision), *s)));
        self
    }

    /// # Errors
    /// `TermsRewritten` when settled lines do not fit their terms any more; `Overflow`.
    pub fn build(self) -> Result<Vec<Document>, BillingError> {
        let mut by_advertiser: BTreeMap<(i64, Currency), Vec<Line>> = BTreeMap::new();
        let mut keys: Vec<(i64, i64)> = self.wanted.keys().chain(self.settled.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        for (campaign_id, terms_revision) in keys {
            let Some(terms) = self.terms.get(campaign_id, terms_revision) else {
                if self.settled.contains_key(&(campaign_id, terms_revision)) {
                    return Err(BillingError::TermsRewritten { campaign_id, revision: terms_revision });
                }
                continue; // Not billable; shown with the run.
            };
            if let Some(line) = self.line(campaign_id, terms_revision, &terms.name, terms.cost_per_click_micros)? {
                let mut owed = (terms.advertiser_id, terms.currency);
                if is_broken(Mutant::CurrenciesMixed) {
                    owed.1 =
                        by_advertiser.keys().find(|(advertiser, _)| *advertiser == owed.0).map_or(owed.1, |key| key.1);
                }
                by_advertiser.entry(owed).or_default().push(line);
            }
        }
        by_advertiser
            .into_iter()
            .map(|((advertiser, currency), lines)| self.document(advertiser, currency, lines))
            .collect()
    }

    /// `None` where the line would be empty: no clicks, or none beyond what earlier revisions say.
    fn line(
        &self,
        campaign_id: i64,
        terms_revision: i64,
        name: &str,
        price_micros: Micros,
    ) -> Result<Option<Line>, BillingError> {
        let wanted = self.wanted.get(&(campaign_id, terms_revision));
        let settled = self.settled.get(&(campaign_id, terms_revision));
        if let Some(settled) = settled
            && settled.clicks.checked_mul(price_micros) != Some(settled.amount_micros)
        {
            return Err(BillingError::TermsRewritten { campaign_id, revision: terms_revision });
        }
        assert!(
            wanted.is_none_or(|w| w.billed_clicks <= w.usage.clicks),
            "no more clicks are billed than were counted"
        );
        let wanted_clicks = wanted.map_or(Ok(0), |w| bigint(w.billed_clicks, "clicks"))?;
        let unbilled_clicks = wanted.map_or(Ok(0), |w| bigint(w.usage.clicks - w.billed_clicks, "clicks"))?;
        let settled_clicks = if is_broken(Mutant::SettledForgotten) { 0 } else { settled.map_or(0, |s| s.clicks) };
        let clicks = wanted_clicks.checked_sub(settled_clicks).ok_or(BillingError::Overflow("an invoice line"))?;
        if clicks == 0 && (settled.is_some() || unbilled_clicks == 0) {
            return Ok(None);
        }
        Ok(Some(Line {
            campaign_id,
            campaign_name: name.to_owned(),
            terms_revision,
            clicks,
            price_micros,
            amount_micros: clicks.checked_mul(price_micros).ok_or(BillingError::Overflow("an invoice line"))?,
            unbilled_clicks,
        }))
    }

    fn document(&self, advertiser_id: i64, currency: Currency, lines: Vec<Line>) -> Result<Document, BillingError> {
        assert!(!lines.is_empty(), "an advertiser without lines gets no document");
        let total: i128 = lines.iter().map(|line| i128::from(line.amount_micros)).sum();
        let amount_micros = i64::try_from(total).map_err(|_| BillingError::Overflow("an invoice"))?;
        assert!(self.revision > 1 || amount_micros >= 0, "an invoice takes nothing back: only a memo does");
        let kind = match (self.revision, amount_micros) {
            (1, _) => DocumentKind::Invoice,
            (_, ..0) => DocumentKind::CreditMemo,
            _ => DocumentKind::DebitMemo,
        };
        Ok(Document {
            invoice_id: format!("{}-{advertiser_id}-{currency}-{}", self.day.date().format("%Y%m%d"), self.revision),
            day: self.day,
            revision: self.revision,
            advertiser_id,
            currency,
            kind,
            amount_micros,
            lines,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::{Terms, Usage};

    fn timeline() -> TermsTimeline {
        TermsTimeline::new([1, 2].map(|campaign_id| Terms {
            campaign_id,
            revision: 1,
            advertiser_id: 7,
            name: format!("campaign {campaign_id}"),
            currency: Currency::USD,
            cost_per_click_micros: 100,
            budget_micros: 1_000_000,
            effective_from_ms: 0,
        }))
    }

    fn billed(campaign_id: i64, billed_clicks: u64) -> BilledUsage {
        BilledUsage {
            usage: Usage { campaign_id, terms_revision: 1, clicks: billed_clicks, invalid_clicks: 0 },
            billed_clicks,
            amount_micros: i64::try_from(billed_clicks).unwrap() * 100,
            unbilled_cause: None,
        }
    }

    fn settled(campaign_id: i64, clicks: i64) -> SettledLine {
        SettledLine { campaign_id, terms_revision: 1, clicks, amount_micros: clicks * 100 }
    }

    fn build(revision: i32, billed: &[BilledUsage], settled: &[SettledLine]) -> Vec<Document> {
        let day = "2026-11-23".parse().unwrap();
        InvoiceBuilder::new(day, revision, &timeline()).billed(billed).settled(settled).build().unwrap()
    }

    #[test]
    fn an_advertiser_gets_one_invoice_with_a_line_a_campaign() {
        let documents = build(1, &[billed(1, 5), billed(2, 3)], &[]);
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0].invoice_id, "20261123-7-USD-1");
        assert_eq!((documents[0].kind, documents[0].amount_micros), (DocumentKind::Invoice, 800));
        assert_eq!(documents[0].lines.len(), 2);
    }

    #[test]
    fn after_finalisation_only_the_difference_is_written() {
        assert_eq!(build(2, &[billed(1, 5)], &[settled(1, 5)]), []);
        let debit = build(2, &[billed(1, 6)], &[settled(1, 5)]);
        assert_eq!((debit[0].kind, debit[0].amount_micros), (DocumentKind::DebitMemo, 100));
        let credit = build(2, &[billed(1, 3)], &[settled(1, 5)]);
        assert_eq!(
            (credit[0].kind, credit[0].amount_micros, credit[0].lines[0].clicks),
            (DocumentKind::CreditMemo, -200, -2)
        );
        // A campaign that has no clicks any more is taken back whole.
        assert_eq!(build(2, &[], &[settled(2, 4)])[0].amount_micros, -400);
    }

    #[test]
    fn terms_that_changed_under_a_finalised_line_stop_the_run() {
        let rewritten = SettledLine { amount_micros: 501, ..settled(1, 5) };
        let day = "2026-11-23".parse().unwrap();
        let outcome = InvoiceBuilder::new(day, 2, &timeline()).settled(&[rewritten]).build();
        assert!(matches!(outcome, Err(BillingError::TermsRewritten { campaign_id: 1, revision: 1 })));
    }
}
