//! The budget lane of a node: one actor per campaign that is asked about, behind a desk that fails closed. The rules
//! are in `proto/budget`.
//!
//! *Reads* the local replicas. *Writes* nothing. *Promises*: no positive answer comes from a stale replica, while
//! counting is behind, or for more than is at risk; each expires within a second. *On restart* actors start from
//! replicated state when asked.

pub mod budget_actor;
pub mod budget_desk;
mod metrics;

pub use budget_desk::BudgetDesk;
