//! The click: its record, its packed form in columns, the form that counting reads, and the validity rules.
//!
//! In dependency order: `encode` writes with `columns`; `view` reads with `found_columns` and `json_click`; all know
//! `record`.

pub mod record;

mod columns;
pub mod encode;

mod fields;
mod found_columns;
mod json_click;
pub mod json_object;
pub mod malformed;
pub mod view;

pub mod invalid_traffic;
