//! Schema `catalog`: what advertisers agreed to.

pub mod campaign_terms;
pub mod terms_export;

pub use campaign_terms::{NewTerms, RefusedTerms, Terms, add_terms, all_terms, newest_revisions};
pub use terms_export::{TermsExport, exports, note_exports};
