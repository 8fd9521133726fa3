//! Where the stream's and the batch's view of a day differ, and why.
//!
//! Reads: `reports.ad_minute`, `reports.late_click`, the batch's results and, to tell a late click from a late copy,
//! the archive. Writes: `billing.reconciliation`, the day's rows replaced. Promises: every differing click has a
//! cause, or is *unexplained* and pages. On restart: run it again.

mod compare;
mod explain;
mod figures;
mod run;
mod summary;

pub use explain::{Cause, ComparedWindow, explain};
pub use figures::{DAYS_SHOWN, ReconciliationFigures};
pub use run::reconcile;
pub use summary::ReconciliationSummary;
