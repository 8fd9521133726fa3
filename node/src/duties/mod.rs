//! A node's duties besides counting, each at its own pace: the connection to PostgreSQL, and the work that waits for
//! it.

pub mod database;
