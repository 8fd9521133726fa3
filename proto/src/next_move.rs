//! What the caller of a failed operation should do next. Every error type that crosses a crate boundary answers this
//! question with a `next_move()` of its own, and every loop that retries asks it.

/// Sorted by how far the failure reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextMove {
    /// A passing condition: the same call may succeed later, unchanged.
    Retry,
    /// This input cannot succeed: report it, quarantine it, go on with the others. Retrying is useless.
    Reject,
    /// Going on would harm data or money: stop this component, say so loudly, wait for an operator.
    Halt,
}
