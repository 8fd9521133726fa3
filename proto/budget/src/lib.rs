//! The rules of a campaign's budget: what an answer says, when it turns into *pause*, and how fast a campaign spends.
//!
//! Everything here is synchronous and pure: facts and the time go in, a decision comes out. The HTTP interface, the
//! node's actors and the simulation ask the same rules, so a promise is shown once for all three.
//!
//! *Promises*: every positive answer expires. Timeout, error and unknown become *pause* in [`fail_closed::close`] and
//! in no other place. A positive answer never risks more than remains and is tolerated.

pub mod answer;
pub mod fail_closed;
pub mod policy;
pub mod velocity;

pub use answer::{BudgetAnswer, BudgetDecision};
pub use fail_closed::{CHECK_DEADLINE, LaneFailure, close, close_missing};
pub use policy::{BudgetFacts, BudgetRules, BudgetVerdict, CLOCK_DIFFERENCE_MAX};
pub use velocity::{BusiestMinute, SpendVelocity};
