//! Capture: clicks in by HTTP, an identity for each, packed records into the log.
//!
//! *Reads* `POST /v1/clicks`. *Writes* the topic `raw_clicks`. *Promises*: a click answered with a `click_id` is durable in the
//! log (acks=all); a click answered with an error is not in it. *On restart* nothing is lost, because nothing is held.

pub mod body_items;
pub mod capture_metrics;
pub mod click_fields;
pub mod records;

pub mod post_clicks;
