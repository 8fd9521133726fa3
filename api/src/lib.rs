//! The outside over HTTP: capture of clicks, budget checks, queries, administration, and the page that shows it all.
//!
//! Thin shells around pure rules: every handler reads facts, asks a rule, and carries the answer out. Errors are RFC 9457
//! problems with a stable `type`. In data-path order.

pub mod routes;
pub mod state;

pub mod capture;

pub mod queries;

pub mod budget_check;

pub mod admin;
pub mod dashboard;

pub mod decimal;
pub mod error_response;
pub mod metrics;
pub mod scalar;
pub mod time_text;

pub use routes::router;
pub use state::{ApiState, Roles};
