//! What a reconciliation makes of a day. Pure: what both sides have goes in, the causes of every difference come out.

use std::collections::BTreeMap;

use clicktally_database::Day;
use clicktally_database::billing::{
    BatchAmounts, CampaignAmounts, DayTotals, DifferingWindow, NewDifference, PricedClicks, Verdict,
};
use clicktally_database::catalog::Terms;
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::identity::shard_key::Partitioner;

use super::amounts::compare;
use super::compare::{UnbilledClicks, WindowKey, campaign_differences, window_differences};
use super::final_before::FinalBefore;
use super::summary::ReconciliationSummary;
use crate::error::BillingError;

/// What stream and batch have of a day.
#[derive(Debug, Clone)]
pub struct ComparedDay {
    pub day: Day,
    /// Windows in which the two count differently.
    pub windows: Vec<DifferingWindow>,
    /// Valid clicks that the batch counts from the very record the stream declared late.
    pub late: BTreeMap<WindowKey, i64>,
    /// The newest final window of each campaign.
    pub final_windows: Vec<(CampaignId, Minute)>,
    pub unbilled: Vec<UnbilledClicks>,
    /// (Stream clicks, billed clicks) of the campaigns that [`super::campaigns_that_differ`] names.
    pub campaign_totals: BTreeMap<i64, (i64, i64)>,
    pub totals: DayTotals,
    /// All revisions of all campaigns, in any order.
    pub terms: Vec<Terms>,
    pub batch_amounts: BTreeMap<i64, BatchAmounts>,
    /// In order of campaign and minute.
    pub clicks: Vec<PricedClicks>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub differences: Vec<NewDifference>,
    pub amounts: Vec<CampaignAmounts>,
    pub summary: ReconciliationSummary,
    pub verdict: Verdict,
}

impl ComparedDay {
    /// `max_ahead_ms`: how far ahead of its arrival a click may be dated.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn judge(&self, partitioner: Partitioner, max_ahead_ms: u64) -> Result<Judgement, BillingError> {
        let final_before = FinalBefore::new(partitioner, &self.final_windows);
        let mut differences = window_differences(&self.windows, &self.late, &final_before);
        let campaigns = campaign_differences(&differences, &self.unbilled, &self.campaign_totals)?;
        differences.extend(campaigns);
        let amounts = self.compare_amounts(max_ahead_ms)?;
        let summary = ReconciliationSummary::new(self.day, self.totals, &differences, &amounts)?;
        let verdict = Verdict {
            totals: self.totals,
            unexplained: summary.unexplained,
            unexplained_amounts: summary.unexplained_amounts,
            pages: summary.pages(),
        };
        Ok(Judgement { differences, amounts, summary, verdict })
    }

    /// The amounts of every campaign with clicks on the day, unless its currency changed.
    fn compare_amounts(&self, max_ahead_ms: u64) -> Result<Vec<CampaignAmounts>, BillingError> {
        let mut terms: BTreeMap<i64, Vec<&Terms>> = BTreeMap::new();
        for revision in &self.terms {
            terms.entry(revision.campaign_id).or_default().push(revision);
        }
        let mut amounts = Vec::new();
        for clicks in self.clicks.chunk_by(|a, b| a.campaign_id == b.campaign_id) {
            let Some(campaign_id) = clicks.first().map(|row| row.campaign_id) else { continue };
            let terms = terms.get(&campaign_id).map_or(&[][..], Vec::as_slice);
            let batch = self.batch_amounts.get(&campaign_id).copied().unwrap_or_default();
            amounts.extend(compare(campaign_id, terms, clicks, batch, max_ahead_ms)?);
        }
        Ok(amounts)
    }
}
