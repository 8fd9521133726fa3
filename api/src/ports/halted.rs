//! The parts of this node that stand still until an operator acts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A part of the answering node that stands still until an operator acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HaltedPart {
    /// For example "shard" or "archive".
    pub part: String,
    /// The number of the shard or of the group; null if the node has only one such part.
    pub number: Option<u64>,
    /// What does not happen meanwhile.
    pub consequence: String,
    /// Why, and what to do.
    pub reason: String,
    pub since: String,
}

/// The register of this node's halted parts.
pub trait HaltedParts: Send + Sync {
    fn halted(&self) -> Vec<HaltedPart>;
}
