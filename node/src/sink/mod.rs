//! Outbound: fired windows go to the `window_counts` topic, that topic and the late clicks into PostgreSQL, campaign
//! terms into the catalogue. A slow or dead database delays nothing before the topic.

pub mod catalog_writer;
pub mod kafka_out_topics;
pub mod postgres_tables;
pub mod singleton;
pub mod terms_news;
pub mod window_news;
pub mod window_publisher;
pub mod window_rows;
pub mod window_writer;
