//! What a run makes of a day: its bill, and the documents that are still to be written for it. Pure: usage and what
//! documents say already go in.

use clicktally_database::billing::{BilledByCampaign, SettledLine, Usage};
use clicktally_database::{DatabaseError, Day};
use clicktally_proto::fault::{Mutant, is_broken};

use super::bill_hash::bill_hash;
use crate::bill::{BilledUsage, TermsTimeline, bill};
use crate::error::BillingError;
use crate::invoice::{Document, InvoiceBuilder};

/// A day before it is billed.
#[derive(Debug, Clone)]
pub struct UnbilledDay<'a> {
    pub day: Day,
    /// 1 for a day without finalised documents; it grows by one with each finalisation.
    pub revision: i32,
    pub manifest_sha256: &'a str,
    pub usages: Vec<Usage>,
    /// What documents of all other days bill, drafts too.
    pub billed_elsewhere: BilledByCampaign,
    /// What final documents of this day bill.
    pub settled: Vec<SettledLine>,
    /// The bill of the newest final run, as a hash.
    pub settled_bill: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayBill {
    pub billed: Vec<BilledUsage>,
    /// Drafts: the difference between the bill and what final documents say.
    pub documents: Vec<Document>,
    pub sha256: String,
    /// The day is final, and its bill is the same, computed from the same files: there is no new run.
    pub is_unchanged: bool,
}

impl UnbilledDay<'_> {
    /// # Errors
    /// `TermsRewritten`; `Overflow`; `Damaged` if final documents are not those of the bill that they were made of.
    pub fn bill(&self, terms: &TermsTimeline) -> Result<DayBill, BillingError> {
        let billed = bill(&self.usages, terms, &self.billed_elsewhere)?;
        assert_eq!(billed.len(), self.usages.len(), "every usage is billed or has a cause");
        let documents =
            InvoiceBuilder::new(self.day, self.revision, terms).billed(&billed).settled(&self.settled).build()?;
        let sha256 = bill_hash(self.manifest_sha256, &billed, terms);
        let is_unchanged = self.settled_bill == Some(sha256.as_str()) && !is_broken(Mutant::RerunRepeats);
        if let Some(document) = documents.first().filter(|_| is_unchanged) {
            let detail = format!(
                "final documents that differ from the bill they were made of: they need {}",
                document.invoice_id
            );
            return Err(DatabaseError::Damaged { table: "billing.invoice_line", detail }.into());
        }
        Ok(DayBill { billed, documents, sha256, is_unchanged })
    }
}
