//! Schema `catalog`: what advertisers agreed to.

pub mod campaign_terms;

pub use campaign_terms::{NewTerms, RefusedTerms, Terms, add_terms, all_terms};
