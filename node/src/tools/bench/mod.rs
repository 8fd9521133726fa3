//! `clicktally bench` measures how many clicks a core counts, against how many it could merely read.
//!
//! Both runs read the same records of the same real Kafka through the same reader. The first run discards them. The
//! second run is the whole shard path: decode, deduplicate, aggregate, and a checkpoint a second into three replicas
//! that fsync.

pub mod cpu_time;
mod fill;
mod peers;
mod raw_consume;
mod replicas;
mod report;
mod run;
mod shard_path;

pub use run::{BenchOptions, OutputForm, TopicForm, run};
