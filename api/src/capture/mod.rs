//! Capture: takes clicks by HTTP, gives each an identity, and publishes packed records to the log.
//!
//! *Reads* `POST /v1/clicks`. *Writes* the topic `raw_clicks`. *Promises*: a click answered with a `click_id` is
//! durable in the log (acks=all); a click listed under `errors` was not written. *On restart* nothing is lost,
//! because nothing is held.

pub mod arrival;
pub mod body_items;
pub mod capture_metrics;
pub mod click_fields;
pub mod records;

pub mod post_clicks;

#[cfg(test)]
mod forms_agree_tests;
