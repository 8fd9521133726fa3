//! What a handler takes from a request: body, path and query. Each refuses with a problem, never with a plain text.

pub mod body_bytes;
pub mod path_text;
pub mod query;
