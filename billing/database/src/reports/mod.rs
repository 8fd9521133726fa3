//! Schema `reports`: what the stream said of each window, and how far its writer has come.

pub mod ad_minute;
pub mod late_click;
pub mod window_batch;

pub use ad_minute::{AdMinute, AdTotals, MinuteClicks, clicks_of_minutes, rows_of_ad, totals_of_ad, users_of_ad};
pub use late_click::{LateRecord, late_records};
pub use window_batch::{BatchOutcome, TopicRange, WindowBatch, topic_progress, write_batch};
