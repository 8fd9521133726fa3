//! Whole clusters of real processes on real Kafka and real PostgreSQL. One program, so that it links once; one trial at a time.

mod broken_links;
mod fail_points;
mod load_generator;
mod node_faults;
mod service_faults;
