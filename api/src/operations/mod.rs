//! What an orchestrator and Prometheus ask of a node: liveness, readiness, metrics.

pub mod cluster_metrics;
pub mod health;
pub mod metrics_page;
