//! What goes wrong beside the rules: a group that stands still, a catalogue writer that starts anew, a database that
//! has lost a row, and a stream that miscounts.
//!
//! A lost price and a wrong count must be found, and keep the day from becoming final. They are no mistakes of billing,
//! so what the day costs is checked again once they have healed.

use clicktally_billing::bill::Terms;
use clicktally_database::catalog::TermsExport;
use clicktally_node::sink::terms_news::{Offered, Revision};
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_proto::money::Micros;

use super::stream::{RowKey, StreamRow};
use super::world::World;
use crate::checks::Violation;

impl World {
    /// One round of the catalogue writer, which has proven its replicas fresh.
    pub(super) fn terms_are_exported(&mut self) -> Result<(), Violation> {
        let mut readings = Vec::new();
        for state in self.stream.states() {
            readings.push(self.offered.read(state));
        }
        for reading in &readings {
            for revision in &reading.news {
                let row = stored(revision);
                self.tables.terms.entry((row.campaign_id, row.revision)).or_insert(row);
            }
            self.offered.record(reading, &[]);
            let export: TermsExport = reading.export(self.now_ms);
            self.tables.exports.insert(reading.group, export);
        }
        // A report may be lost; the next round repeats it. The state keeps replaced terms from the first report on.
        let is_first = self.now_ms == self.plan.begins_ms();
        if is_first || !self.draws.terms.permille(200) {
            for reading in readings.iter().filter(|reading| reading.is_unreported) {
                self.stream.report_exported(reading.group, reading.through_revision);
            }
        }
        let terms = self.tables.terms.len();
        self.note(format_args!("PostgreSQL has {terms} terms"));
        Ok(())
    }

    pub(super) fn a_writer_starts_anew(&mut self) -> Result<(), Violation> {
        self.offered = Offered::default();
        self.report.fault("WriterRestart");
        Ok(())
    }

    pub(super) fn a_group_stalls_or_resumes(&mut self) -> Result<(), Violation> {
        if self.draws.faults.permille(500) {
            let group = GroupId(u16::try_from(self.draws.faults.below(u64::from(self.plan.groups))).unwrap_or(0));
            self.stream.stall(group, self.now_ms);
            self.report.fault("Stall");
            self.note(format_args!("group {} stands still", group.0));
        } else {
            self.stream.resume_all();
            self.note(format_args!("all groups count"));
        }
        Ok(())
    }

    pub(super) fn a_fault_strikes(&mut self) -> Result<(), Violation> {
        if !self.plan.has_faults {
            return Ok(());
        }
        match self.draws.faults.below(3) {
            0 => self.lose_terms(),
            1 => self.lose_clicks(),
            _ => self.move_spend(),
        }
        Ok(())
    }

    /// PostgreSQL loses a revision, for example to a restored backup.
    fn lose_terms(&mut self) {
        let known: Vec<(i64, i64)> = self.tables.terms.keys().copied().collect();
        if let Some(key) = self.draws.faults.pick(&known) {
            self.tables.terms.remove(key);
            self.watch.lost_terms.insert(*key);
            self.report.fault("TermsLost");
            self.note(format_args!("PostgreSQL loses revision {} of campaign {}", key.1, key.0));
        }
    }

    /// The stream forgets a click of a window.
    fn lose_clicks(&mut self) {
        let rows: Vec<(RowKey, StreamRow)> = self.all_rows().filter(|(_, row)| row.clicks > 0).collect();
        let Some((key, row)) = self.draws.faults.pick(&rows).copied() else { return };
        let price = row.spend_micros / row.clicks.cast_signed();
        let wrong = StreamRow { clicks: 1, spend_micros: price, ..StreamRow::default() };
        self.stream.row_errors.entry(key).or_insert(wrong);
        self.report.fault("ClickForgotten");
        self.note(format_args!("the stream forgets a click of {key:?}"));
    }

    /// The stream charges too much in one window, and as much too little in another one of the same campaign and day.
    fn move_spend(&mut self) {
        let rows: Vec<(RowKey, StreamRow)> = self.all_rows().filter(|(_, row)| row.spend_micros > 1).collect();
        let Some((from, row)) = self.draws.faults.pick(&rows).copied() else { return };
        let day = |key: &RowKey| clicktally_billing::Day::of(key.2.start_ms());
        let others: Vec<RowKey> = rows.iter().map(|(key, _)| *key).collect();
        let others: Vec<RowKey> =
            others.into_iter().filter(|key| key.0 == from.0 && key.2 != from.2 && day(key) == day(&from)).collect();
        let Some(to) = self.draws.faults.pick(&others).copied() else { return };
        if self.stream.row_errors.contains_key(&from) || self.stream.row_errors.contains_key(&to) {
            return;
        }
        let moved: Micros = row.spend_micros / 2;
        self.stream.row_errors.insert(from, StreamRow { spend_micros: moved, ..StreamRow::default() });
        self.stream.row_errors.insert(to, StreamRow { spend_micros: -moved, ..StreamRow::default() });
        self.report.fault("SpendMoved");
        self.note(format_args!("the stream charges {moved} of {from:?} in {to:?}"));
    }

    fn all_rows(&self) -> impl Iterator<Item = (RowKey, StreamRow)> {
        self.stream.rows(self.plan.begins_ms(), self.plan.ends_ms()).into_iter()
    }

    /// What was lost is restored, and what was miscounted is counted right.
    pub(super) fn heal(&mut self) {
        self.stream.row_errors.clear();
        for (campaign_id, revision) in std::mem::take(&mut self.watch.lost_terms) {
            let accepted = self.stream.accepted.iter().find(|accepted| {
                accepted.terms.campaign_id.cast_signed() == campaign_id && accepted.revision.cast_signed() == revision
            });
            if let Some(accepted) = accepted {
                let terms = std::sync::Arc::new(accepted.terms.clone());
                let row = stored(&Revision { revision: accepted.revision, terms });
                self.tables.terms.insert((campaign_id, revision), row);
            }
        }
        self.note(format_args!("everything heals"));
    }
}

/// As the batch reads what the writer has written.
fn stored(revision: &Revision) -> Terms {
    let row = revision.as_row();
    Terms {
        campaign_id: row.campaign_id.cast_signed(),
        revision: row.revision.cast_signed(),
        advertiser_id: row.advertiser_id.cast_signed(),
        name: row.name.to_owned(),
        currency: row.currency,
        cost_per_click_micros: row.cost_per_click_micros,
        budget_micros: row.budget_micros,
        effective_from_ms: row.effective_from_ms,
    }
}
