//! The ledger: double entry over every final document.

mod entries;

pub use entries::{Account, Entry, entries_of, is_balanced};
