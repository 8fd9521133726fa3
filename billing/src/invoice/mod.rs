//! Documents: what a day's bill says to an advertiser, and the moment from which it never changes.

mod documents;
mod finalise;
mod readiness;

pub use clicktally_database::billing::SettledLine;
pub use documents::{Document, DocumentKind, InvoiceBuilder, Line};
pub use finalise::{FinalizedDay, Override, finalize};
pub use readiness::{DayFacts, NotReady, missing};
