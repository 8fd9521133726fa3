//! The click: its record, its packed form in columns, the form that counting reads, and the validity rules.
//!
//! In dependency order: `encode` writes with `columns`, `view` reads with `found_columns`, and both know `record`.

pub mod record;

mod columns;
pub mod encode;

mod fields;
mod found_columns;
pub mod malformed;
pub mod view;

pub mod invalid_traffic;
