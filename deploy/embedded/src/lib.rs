//! Runs real Apache Kafka and real PostgreSQL as child processes in a data directory, and restarts them where they
//! stopped. `clicktally up` and every integration test use these services. Nothing is simulated here.
//!
//! The modules follow the order of a start: fetch the jars, choose a port, run a child, and the two services.

pub mod error;

mod kafka_jars;

pub mod port;

pub mod child;

pub mod kafka;
pub mod postgres;

pub use child::{Child, ChildSpec};
pub use error::EmbeddedError;
pub use kafka::{Kafka, KafkaOptions};
pub use postgres::{Postgres, PostgresOptions};
