//! The outside over HTTP: capture of clicks, budget checks, queries, administration, and the page that shows it all.
//!
//! Thin shells around pure rules: every handler reads facts, asks a rule, and carries the answer out. Errors are RFC 9457
//! problems with a stable `type`. In data-path order.

pub mod ports;
pub mod routes;
pub mod state;

pub mod access;
pub mod capture;

pub mod queries;

pub mod budget;

pub mod catalogue;
pub mod cluster;
pub mod finance;

pub mod dashboard;
pub mod operations;

pub mod problem;
pub mod text_forms;

pub use routes::router;
pub use state::{ApiState, Roles};
