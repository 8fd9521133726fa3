//! How ids, numbers and times look in requests and answers.

pub mod decimal;
pub mod json_scalar;
pub mod time_text;
