//! Real Apache Kafka and real PostgreSQL as child processes in a data directory, restartable where they stopped: what
//! `clicktally up` runs on, and what every integration test runs against. Nothing is simulated here.
//!
//! In the order of a start: what is fetched, how a child is run, the two services.

pub mod error;

mod kafka_jars;
mod port;

pub mod child;

pub mod kafka;
pub mod postgres;

pub use child::{Child, ChildSpec};
pub use error::EmbeddedError;
pub use kafka::{Kafka, KafkaOptions};
pub use postgres::{Postgres, PostgresOptions};
