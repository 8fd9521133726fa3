//! What a node does beside counting, in its own time: the connection to PostgreSQL and everything that waits for it.

pub mod database;
