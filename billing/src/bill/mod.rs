//! Which clicks of a day are billed, at which terms, and within which budget. Pure.

mod rules;
mod terms;

pub use clicktally_database::billing::{BilledByCampaign, BilledElsewhere, Usage};
pub use clicktally_database::catalog::Terms;
pub use rules::{BilledUsage, UnbilledCause, bill};
pub use terms::{TermsInterval, TermsTimeline};
