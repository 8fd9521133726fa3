//! Why a proposal or a change of members has no outcome, sorted by what the caller does next.

use clicktally_proto::next_move::NextMove;
use thiserror::Error;

/// What the caller should do when a proposal returned no outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// There was no leader, its lease was in doubt, or no answer came in time. The command may or may not have been
    /// applied. Propose it again: the fences of the commands make that safe.
    #[error("the outcome of the proposal is unknown, propose it again: {0}")]
    Retry(String),
    /// The replica of this node has stopped and cannot take part any more.
    #[error("this node's replica has stopped: {0}")]
    Halt(String),
}

/// Why a change of a group's members failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemberError {
    #[error("the outcome is unknown, look at the status and try again: {0}")]
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
