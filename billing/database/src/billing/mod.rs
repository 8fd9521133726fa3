//! Schema `billing`: which raw bytes a bill is computed from, the batch's results, documents, ledger and
//! reconciliation.
//!
//! In data-path order.

pub mod manifest;

pub mod stage;

pub mod day_results;
pub mod documents;
pub mod finalisation;

pub mod amounts;
pub mod batch_view;
pub mod reconciled_amounts;
pub mod reconciled_days;
pub mod reconciliation;
pub mod statement;

pub use amounts::{Amounts, CampaignAmounts, CurrencyAmounts};
pub use batch_view::{clicks_of_ad, finished_days};
pub use day_results::{BilledByCampaign, BilledElsewhere, CampaignDay, DayReplacement, NewRun, SettledLine, Usage};
pub use documents::{NewDocument, NewLine};
pub use finalisation::{DraftDocument, Finalisation, NewEntry, NewestRun, OverriddenChecks, ReconciledRun};
pub use manifest::{ManifestFile, NewFile, archived_days, archived_offsets, files_for_day, files_of_newest_run};
pub use reconciled_amounts::{BatchAmounts, PricedClicks, amounts_by_currency};
pub use reconciled_days::{ReconciledDay, differing_clicks, newest_reconciled_days};
pub use reconciliation::{
    CauseTotals, DayTotals, DifferingWindow, NewDifference, Reconciliation, Verdict, differences_by_cause,
};
pub use stage::{Stage, StagedCell};
pub use statement::{CampaignRow, DifferenceRow, DocumentRow, LineRow, RunRow, Statement, days_run, statement};
