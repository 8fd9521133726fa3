//! Documents: what a day's bill says to an advertiser, and the moment from which it never changes.

mod documents;
mod finalise;
mod finalising;
mod readiness;

pub use clicktally_database::billing::{DraftDocument, NewestRun, ReconciledRun, SettledLine};
pub use documents::{Document, DocumentKind, InvoiceBuilder, Line};
pub use finalise::{FinalizedDay, Override, finalize};
pub use finalising::{Finalising, Posting};
pub use readiness::{DayFacts, NotReady, missing};
