//! Which days may be finalised. Pure: what is known of a day goes in, what it lacks comes out.

use std::fmt;

use clicktally_database::Day;
use clicktally_database::billing::{NewestRun, ReconciledRun};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault::{Mutant, is_broken};

/// What is known of a day that is to become final.
#[derive(Debug, Clone, Copy)]
pub struct DayFacts<'a> {
    pub day: Day,
    /// For how long after its end a day's windows take clicks.
    pub lateness_ms: u64,
    pub now_ms: UnixMillis,
    /// The newest run; a draft.
    pub run: &'a NewestRun,
    pub reconciled: Option<&'a ReconciledRun>,
}

/// Why a day should not become final yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// Clicks of the day may still come.
    NotOver { wait_s: u64 },
    /// The run was computed while clicks of the day could still come.
    RunTooEarly,
    /// No reconciliation has compared this run with the stream.
    NotReconciled,
    /// The reconciliation ran while the stream could still change. What was pending then may be unexplained now.
    ReconciledTooEarly,
    /// The reconciliation found too much without a cause.
    Unexplained { clicks: u64, of: u64, amounts: u64 },
}

impl NotReady {
    /// As recorded in `billing.finalisation`.
    pub fn name(self) -> &'static str {
        match self {
            NotReady::NotOver { .. } => "not_over",
            NotReady::RunTooEarly => "run_too_early",
            NotReady::NotReconciled => "not_reconciled",
            NotReady::ReconciledTooEarly => "reconciled_too_early",
            NotReady::Unexplained { .. } => "unexplained",
        }
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::NotOver { wait_s } => {
                write!(
                    f,
                    "the day and its allowed lateness are over in {wait_s} s: wait, then run and reconcile the day"
                )
            }
            NotReady::RunTooEarly => {
                f.write_str("its run was computed before the day and its allowed lateness were over: run it again")
            }
            NotReady::NotReconciled => {
                f.write_str("its newest run is not reconciled: run `clicktally billing reconcile`")
            }
            NotReady::ReconciledTooEarly => f.write_str(
                "it was reconciled before the day and its allowed lateness were over: run `clicktally billing reconcile` again",
            ),
            NotReady::Unexplained { clicks, of, amounts } => write!(
                f,
                "its reconciliation has no cause for {clicks} of {of} clicks, and for the amounts of {amounts} campaigns: \
                 compare billing.reconciliation and billing.reconciled_amount with the archive and the terms"
            ),
        }
    }
}

/// Everything that the day lacks; empty for a day that is ready.
pub fn missing(facts: &DayFacts<'_>) -> Vec<NotReady> {
    let lateness_ms = if is_broken(Mutant::FinalTooEarly) { 0 } else { facts.lateness_ms };
    let complete_at_ms = facts.day.end_ms().saturating_add(lateness_ms);
    let mut missing = Vec::new();
    if facts.now_ms < complete_at_ms {
        missing.push(NotReady::NotOver { wait_s: (complete_at_ms - facts.now_ms).div_ceil(1_000) });
    } else if facts.run.computed_at_ms < complete_at_ms {
        missing.push(NotReady::RunTooEarly);
    }
    // A reconciliation of an earlier run, or of another bill, says nothing about this one.
    let compares_this_run = |reconciled: &&ReconciledRun| {
        let is_same = reconciled.revision == facts.run.revision && reconciled.bill_sha256 == facts.run.bill_sha256;
        is_same || is_broken(Mutant::ReconciledUnchecked)
    };
    match facts.reconciled.filter(compares_this_run) {
        None => missing.push(NotReady::NotReconciled),
        Some(reconciled) if reconciled.pages && !is_broken(Mutant::PageIgnored) => {
            missing.push(NotReady::Unexplained {
                clicks: reconciled.unexplained,
                of: reconciled.batch_clicks,
                amounts: reconciled.unexplained_amounts,
            });
        }
        Some(reconciled) => {
            let is_early = reconciled.reconciled_at_ms < complete_at_ms && facts.now_ms >= complete_at_ms;
            if is_early && !is_broken(Mutant::ReconciledEarly) {
                missing.push(NotReady::ReconciledTooEarly);
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENESS_MS: u64 = 900_000;

    fn found(now_ms: UnixMillis, computed_at_ms: UnixMillis, change: fn(&mut Option<ReconciledRun>)) -> Vec<NotReady> {
        let bill_sha256 = Some("a".repeat(64));
        let run = NewestRun { revision: 1, is_final: false, computed_at_ms, bill_sha256: bill_sha256.clone() };
        let mut reconciled = Some(ReconciledRun {
            revision: 1,
            bill_sha256,
            batch_clicks: 100,
            unexplained: 0,
            unexplained_amounts: 0,
            pages: false,
            reconciled_at_ms: now_ms,
        });
        change(&mut reconciled);
        let reconciled = reconciled.as_ref();
        missing(&DayFacts { day: day(), lateness_ms: LATENESS_MS, now_ms, run: &run, reconciled })
    }

    fn day() -> Day {
        "2026-11-23".parse().unwrap()
    }

    #[test]
    fn a_day_is_final_only_after_its_lateness_and_from_a_run_that_saw_all_of_it() {
        let complete_ms = day().end_ms() + LATENESS_MS;
        assert_eq!(found(complete_ms, complete_ms, |_| {}), []);
        let early = found(complete_ms - 1, complete_ms - 1, |_| {});
        assert_eq!(early, [NotReady::NotOver { wait_s: 1 }]);
        assert!(early[0].to_string().contains("in 1 s: wait"));
        assert_eq!(found(complete_ms, complete_ms - 1, |_| {}), [NotReady::RunTooEarly]);
    }

    #[test]
    fn only_a_reconciliation_of_this_very_run_counts() {
        let later_ms = day().end_ms() + LATENESS_MS;
        let reconciled = |change| found(later_ms, later_ms, change);
        assert_eq!(reconciled(|reconciled| *reconciled = None), [NotReady::NotReconciled]);
        assert_eq!(reconciled(|reconciled| reconciled.as_mut().unwrap().revision = 2), [NotReady::NotReconciled]);
        let other_bill = |reconciled: &mut Option<ReconciledRun>| {
            reconciled.as_mut().unwrap().bill_sha256 = Some("b".repeat(64));
        };
        assert_eq!(reconciled(other_bill), [NotReady::NotReconciled]);
        let pages = |reconciled: &mut Option<ReconciledRun>| {
            let reconciled = reconciled.as_mut().unwrap();
            (reconciled.pages, reconciled.unexplained, reconciled.unexplained_amounts) = (true, 7, 2);
        };
        let early = |reconciled: &mut Option<ReconciledRun>| reconciled.as_mut().unwrap().reconciled_at_ms -= 1;
        assert_eq!(reconciled(early), [NotReady::ReconciledTooEarly]);
        assert_eq!(reconciled(pages), [NotReady::Unexplained { clicks: 7, of: 100, amounts: 2 }]);
    }
}
