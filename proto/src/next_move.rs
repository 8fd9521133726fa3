//! What the caller of a failed operation should do next. Every error type that crosses a crate boundary has a
//! `next_move()`, and every loop that retries calls it.

/// Sorted by how far the failure reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextMove {
    /// The condition passes: the same call may succeed later, unchanged.
    Retry,
    /// This input cannot succeed. Report it, quarantine it, and continue with the others. Retrying is useless.
    Reject,
    /// Continuing would harm data or money. Stop this component, report it loudly, and wait for an operator.
    Halt,
}
