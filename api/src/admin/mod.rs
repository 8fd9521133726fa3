//! For those who run it: campaigns and their terms, the cluster's state, health, reconciliation.

pub mod campaign_body;
pub mod campaigns;

pub mod cluster;
pub mod cluster_metrics;
pub mod drain;
pub mod health;
pub mod hot_keys;
pub mod members;
pub mod reconciliation;
