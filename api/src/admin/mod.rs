//! For those who run it: campaigns and their terms, the cluster's state, health, reconciliation.

pub mod campaign_body;
pub mod campaigns;

pub mod cluster;
pub mod drain;
pub mod health;
pub mod members;
pub mod reconciliation;
