//! Why a proposal or a change of members has no outcome, sorted by what the caller does next.

use clicktally_proto::next_move::NextMove;
use thiserror::Error;

/// What to do when a proposal did not come back with an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// No leader, a lease in doubt, or no answer in time. It may or may not have been applied: ask again, the fences of the
    /// commands make that safe.
    #[error("proposal undecided, try again: {0}")]
    Retry(String),
    /// This node cannot take part any more.
    #[error("this node's replica has stopped: {0}")]
    Halt(String),
}

/// Why the members of a group did not change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemberError {
    #[error("undecided, look at the status and try again: {0}")]
    Retry(String),
    #[error("refused: {0}")]
    Reject(String),
    #[error("this node's replica has stopped: {0}")]
    Halt(String),
}

impl ProposeError {
    pub fn next_move(&self) -> NextMove {
        match self {
            ProposeError::Retry(_) => NextMove::Retry,
            ProposeError::Halt(_) => NextMove::Halt,
        }
    }
}

impl MemberError {
    pub fn next_move(&self) -> NextMove {
        match self {
            MemberError::Retry(_) => NextMove::Retry,
            MemberError::Reject(_) => NextMove::Reject,
            MemberError::Halt(_) => NextMove::Halt,
        }
    }
}
