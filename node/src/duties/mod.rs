//! A node's duties besides counting, each at its own pace: the connection to PostgreSQL, the work that waits for it,
//! and the check of the log's topics.

pub mod database;
pub mod log_topics;
pub mod reconciliation;
