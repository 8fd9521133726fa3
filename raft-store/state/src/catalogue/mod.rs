//! The campaigns of a group: their terms, and what the stream has counted of them.

use clicktally_proto::command::CampaignTerms;
use clicktally_proto::money::Micros;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    pub terms: CampaignTerms,
    pub revision: u64,
    /// What the stream has counted so far, at the price in force when it was applied. Never on an invoice.
    pub spend_micros: Micros,
    pub clicks: u64,
}
