//! The budget lane of a node: one actor per campaign that is asked about, behind a desk that fails closed.
//!
//! *Reads* the local replicas. *Writes* nothing. *Promises*: no yes from a replica that is stale, from counting that is behind,
//! or for more than is at risk; every yes expires within a second. *On restart* actors start from replicated state when asked.

pub mod budget_policy;
pub mod spend_velocity;

pub mod budget_actor;
pub mod budget_desk;
mod metrics;

pub use budget_desk::BudgetDesk;
pub use budget_policy::BudgetRules;
