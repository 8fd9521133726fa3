//! How ids, numbers, times, money and query parameters look in requests and answers. Pure.

pub mod decimal;
pub mod exact_number;
pub mod json_scalar;
pub mod money_body;
pub mod query_parameters;
pub mod time_text;
