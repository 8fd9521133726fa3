//! What finalising a day does. Pure: the day's facts and its drafts go in, the ledger's entries come out.

use clicktally_database::billing::DraftDocument;

use super::readiness::{DayFacts, NotReady, missing};
use crate::error::BillingError;
use crate::ledger::{Entry, entries_of, is_balanced};

/// A document that becomes final, and its transaction in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    pub document: DraftDocument,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finalising {
    pub postings: Vec<Posting>,
    /// Checks that failed and are overridden.
    pub overridden: Vec<NotReady>,
}

impl Finalising {
    /// # Errors
    /// `NotReady` for a day that is not ready, unless that is overridden; `Overflow`.
    pub fn decide(
        facts: &DayFacts<'_>,
        drafts: Vec<DraftDocument>,
        is_overridden: bool,
    ) -> Result<Finalising, BillingError> {
        assert!(!facts.run.is_final, "a final run is not finalised again");
        let overridden = missing(facts);
        if !overridden.is_empty() && !is_overridden {
            let reasons: Vec<String> = overridden.iter().map(ToString::to_string).collect();
            return Err(BillingError::NotReady { day: facts.day, reasons: reasons.join("; ") });
        }
        let postings: Result<Vec<Posting>, BillingError> = drafts.into_iter().map(Posting::of).collect();
        Ok(Finalising { postings: postings?, overridden })
    }
}

impl Posting {
    fn of(document: DraftDocument) -> Result<Posting, BillingError> {
        let entries = entries_of(document.advertiser_id, document.currency, document.amount_micros)
            .ok_or(BillingError::Overflow("a ledger entry"))?;
        assert!(is_balanced(&entries), "CT-7: the entries of a document sum to zero by construction");
        Ok(Posting { document, entries })
    }
}
