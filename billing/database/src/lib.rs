//! The only owner of SQL on our PostgreSQL: the schema, the connections, and one module per SQL schema with typed
//! rows and functions named by what they do.
//!
//! Promises: no SQL on our schemas exists outside this crate, except the independent oracle of `chaos-tests`. Callers
//! see no driver type. Every integer that crosses is checked, and every error names the caller's next move.

pub mod connection;
pub mod day;
pub mod error;
pub mod locks;
pub mod notifications;
pub mod schema;

pub mod billing;
pub mod catalog;
pub mod reports;

mod binary_copy;
mod column;

pub use connection::{Database, PoolLimits};
pub use day::{Day, NotADay};
pub use error::{DatabaseError, require_count};
pub use locks::{AdvisoryLock, LockSession};
