//! Money: what of a day's clicks is billed, the documents that say so, and the ledger behind them.

mod billing_rules;
mod documents;
mod finalize;
mod ledger;

pub use billing_rules::{BilledUsage, UnbilledCause, Usage, bill};
pub use documents::{Document, DocumentKind, InvoiceBuilder, Line, SettledLine};
pub(crate) use finalize::wall_time;
pub use finalize::{FinalizedDay, finalize};
pub use ledger::{Account, Entry, entries_of, is_balanced};
