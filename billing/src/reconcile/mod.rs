//! Where the stream's and the batch's view of a day differ, and why.
//!
//! Reads: `reports.ad_minute`, `reports.late_click`, the batch's results, the terms and, to tell a late click from a
//! late copy, the archive. Writes: `billing.reconciliation` and `billing.reconciled_amount`, the day's rows replaced.
//! Promises: every click and every amount that differs has a cause, or is *unexplained* and pages. On restart: run it
//! again.

mod amounts;
mod compare;
mod explain;
mod figures;
mod final_before;
mod judgement;
mod run;
mod summary;

pub use compare::{UnbilledClicks, WindowKey, campaigns_that_differ};
pub use explain::{Cause, ComparedWindow, explain};
pub use figures::{DAYS_SHOWN, ReconciliationFigures};
pub use judgement::{ComparedDay, Judgement};
pub use run::reconcile;
pub use summary::ReconciliationSummary;
