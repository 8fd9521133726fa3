//! The click: its record, its packed form in columns, the borrowed view that counting reads, and the validity rules.

pub mod record;

mod columns;
mod found_columns;
pub mod view;

pub mod invalid_traffic;
