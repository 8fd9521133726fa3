//! The public interface by HTTP: capture of clicks, budget checks, queries, administration, and the dashboard.
//!
//! Handlers are thin shells around pure rules: each reads facts, asks a rule, and carries the answer out. Errors are
//! RFC 9457 problems with a stable `type`.
//!
//! No import goes round in a circle: rooms know [`state`], `state` knows [`ports`] and [`access`], and only [`routes`]
//! knows all rooms. Modules are listed in data-path order.

pub mod ports;
pub mod router;
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

pub mod history_error;
pub mod problem;
pub mod request;
pub mod text_forms;

pub use router::router;
pub use state::{ApiState, Roles};
