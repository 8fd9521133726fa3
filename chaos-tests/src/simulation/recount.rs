//! Compares a cluster at rest with the naive recount of its log.

use std::collections::BTreeSet;

use clicktally_proto::counts::window_count::{WindowCount, WindowState};
use clicktally_proto::event_time::Minute;
use clicktally_state::group_state::GroupState;

use super::click_oracle::{Expected, Instance};
use crate::checks::{
    Violation, ct1_conservation, ct5_budget, ct10_read_once, ct12_users_and_costs, ct13_watermark_honest,
};
use crate::cluster_client::OutcomesView;
use crate::database::AdMinute;
use crate::oracle::Counts;

/// Judges one group after the other.
pub struct RecountComparison<'a> {
    expected: &'a Expected,
    rows: Vec<AdMinute>,
    found: Vec<Violation>,
}

impl<'a> RecountComparison<'a> {
    pub fn new(expected: &'a Expected) -> RecountComparison<'a> {
        RecountComparison { expected, rows: Vec::new(), found: Vec::new() }
    }

    /// Takes what a group has counted: from its replicas as long as they hold a window, and after that from the rows
    /// `stored` of the group's campaigns.
    pub fn group<'r>(&mut self, state: &GroupState, stored: impl Iterator<Item = &'r WindowCount>) {
        for (minute, window) in state.windows() {
            let held = window.cells().map(|(campaign_id, ad_id, cell)| AdMinute {
                minute: minute.0.into(),
                ad_id: ad_id.cast_signed(),
                campaign_id: campaign_id.cast_signed(),
                clicks: cell.clicks().cast_signed(),
                unique_users: Some(cell.users().estimate().cast_signed()),
                cost_sum_micros: cell.costs().sum_micros,
                cost_count: cell.costs().count.cast_signed(),
                ..AdMinute::default()
            });
            self.rows.extend(held);
        }
        self.rows.extend(stored.filter(|row| !state.windows().contains_key(&Minute(row.minute))).map(ad_minute));
        for (shard, entry) in state.shards() {
            let wanted = self.expected.outcomes.get(&shard.0).copied().unwrap_or_default();
            self.found.extend(ct10_read_once::check_outcomes(shard.0, &OutcomesView::from(&entry.outcomes), &wanted));
        }
        for (&id, campaign) in state.campaigns() {
            let counted = self.expected.counted_by_campaign.get(&id).copied().unwrap_or(0);
            let price = campaign.terms.cost_per_click_micros;
            self.found.extend(ct5_budget::check_spend(id, counted, price, campaign.spend_micros));
        }
    }

    /// `declared`: the clicks of the late topic.
    pub fn finish(self, declared: &BTreeSet<Instance>) -> Vec<Violation> {
        let mut counts = Counts::new();
        for row in self.rows.iter().filter(|row| row.clicks > 0) {
            *counts.entry((row.ad_id.unsigned_abs(), row.minute.unsigned_abs())).or_default() +=
                row.clicks.unsigned_abs();
        }
        let mut found = ct1_conservation::check(&self.expected.counts, &counts);
        found.extend(ct13_watermark_honest::check_late(&self.expected.late, declared));
        found.extend(ct12_users_and_costs::check(&self.expected.measures, &self.rows));
        found.extend(self.found);
        found
    }
}

/// The row as it is stored in PostgreSQL.
pub fn ad_minute(row: &WindowCount) -> AdMinute {
    AdMinute {
        minute: row.minute.into(),
        ad_id: row.ad_id.cast_signed(),
        campaign_id: row.campaign_id.cast_signed(),
        clicks: row.clicks.cast_signed(),
        invalid_clicks: row.invalid_clicks.cast_signed(),
        revision: row.revision.cast_signed(),
        state: WindowState::try_from(row.state).unwrap_or(WindowState::Unspecified).as_str().to_owned(),
        unique_users: Some(row.unique_users.cast_signed()),
        cost_sum_micros: row.cost_sum_micros,
        cost_count: row.cost_count.cast_signed(),
    }
}
