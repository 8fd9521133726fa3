//! The verdict: compares the generator's tally, a naive recount of the log, the stream's rows, the archive and the
//! invoices.

use std::collections::BTreeMap;

use clicktally_node::tools::load::LoadSummary;

use super::screen::Screen;
use super::settle::end_offsets;
use super::stage::Stage;
use crate::checks::ct8_archive_is_whole::{self, ArchiveFacts};
use crate::checks::{Invariant, Violation, ct1_conservation};
use crate::oracle::{self, Counts, Recount};

/// The steady ads, by the load's default numbering.
const FIRST_STEADY_AD: u64 = 900_001;

#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) counted: u64,
    pub(super) late: u64,
    pub(super) archived: u64,
    pub(super) invoiced_clicks: u64,
    pub(super) invoiced_micros: i64,
    pub(super) unexplained: u64,
    pub(super) violations: Vec<Violation>,
    /// Steady ad → clicks of each of its minutes, in order.
    pub(super) steady: BTreeMap<u64, Vec<u64>>,
}

impl Verdict {
    pub(super) fn agrees(&self) -> bool {
        self.unexplained == 0 && self.violations.is_empty()
    }

    pub(super) fn headline(&self) -> String {
        if self.agrees() {
            "everything agrees".to_owned()
        } else {
            format!("{} violations, below", self.violations.len())
        }
    }
}

pub(super) async fn reach(stage: &Stage, summary: &LoadSummary, screen: &Screen) -> anyhow::Result<Verdict> {
    screen.say("Recounting the log …");
    let bootstrap = stage.services.kafka.bootstrap();
    let (recount, late) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        Ok((Recount::of_log(&bootstrap)?, oracle::late_clicks(&bootstrap)?))
    })
    .await??;
    let database = &stage.database;
    let expected: Counts = summary.tally.expected().map(|line| ((line.ad_id, line.minute), line.clicks)).collect();
    let counted = database.stream_counts().await?;
    let billed = database.billed().await?;
    let (archived, archived_malformed) = database.archived_rows().await?;
    let late_valid = database.late_valid().await?;
    let causes = database.reconciliation().await?;

    let (mispriced, priced) = database.unexplained_amounts().await?;

    let mut violations = ct1_conservation::check(&expected, &counted);
    violations.extend(ct1_conservation::check(&recount.counts_without(&late), &counted));
    let mut equal = |invariant, what: &str, have: u64, want: u64| {
        if have != want {
            violations.push(Violation { invariant, detail: format!("{what}: {have} instead of {want}") });
        }
    };
    let unique = summary.unique_valid;
    equal(Invariant::ArchiveWhole, "distinct valid clicks in the log", u64::try_from(recount.unique_valid())?, unique);
    equal(Invariant::Conservation, "late clicks in the side output", late_valid, summary.late_beyond);
    equal(Invariant::DifferencesExplained, "clicks invoiced", billed.clicks, unique);
    equal(
        Invariant::LedgerBalanced,
        "ledger transactions that do not sum to zero",
        database.ledger_imbalances().await?,
        0,
    );
    let reconciled: u64 = causes.get("unexplained").copied().unwrap_or(0).unsigned_abs();
    equal(Invariant::DifferencesExplained, "differences the reconciliation cannot explain", reconciled, 0);
    equal(Invariant::DifferencesExplained, "amounts the reconciliation cannot explain", mispriced, 0);
    equal(Invariant::DifferencesExplained, "reconciliations that compared no amount", u64::from(priced == 0), 0);
    let pending = causes.get("stream_pending").copied().unwrap_or(0).unsigned_abs();
    equal(Invariant::DifferencesExplained, "differences that the stream has yet to explain", pending, 0);
    violations.extend(ct8_archive_is_whole::check(&ArchiveFacts {
        archived_to: database.archived_to().await?,
        breaks: database.archive_breaks().await?,
        archived_clicks: archived,
        archived_malformed,
        end_offsets: end_offsets(stage).await?,
        log_clicks: recount.clicks_in_log,
        log_malformed: recount.malformed_records,
    }));

    Ok(Verdict {
        counted: counted.values().sum(),
        late: late_valid,
        archived,
        invoiced_clicks: billed.clicks,
        invoiced_micros: billed.amount_micros,
        unexplained: ct1_conservation::unexplained(&expected, &counted)
            + billed.clicks.abs_diff(unique)
            + late_valid.abs_diff(summary.late_beyond)
            + reconciled,
        violations,
        steady: steady(&counted),
    })
}

fn steady(counted: &Counts) -> BTreeMap<u64, Vec<u64>> {
    let mut grid: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (&(ad, _), &clicks) in counted.range((FIRST_STEADY_AD, 0)..) {
        grid.entry(ad).or_default().push(clicks);
    }
    grid
}
