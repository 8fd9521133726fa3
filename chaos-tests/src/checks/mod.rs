//! The table of invariants ([`invariant`]) and their checks, one file each.
//!
//! Each check is a pure comparison of plain views, so that the same functions judge real processes and simulated ones.
//! An empty list of violations is a pass.

pub mod invariant;

pub mod ct10_read_once;
pub mod ct11_acknowledged_is_logged;
pub mod ct12_users_and_costs;
pub mod ct13_watermark_honest;
pub mod ct14_liveness;
pub mod ct15_heard_is_not_robbed;
pub mod ct16_one_life_a_reign;
pub mod ct17_answers_hold;
pub mod ct18_whole_disks_are_let_in;
pub mod ct19_log_reaches_back;
pub mod ct1_conservation;
pub mod ct20_older_builds_go_on;
pub mod ct21_state_is_sound;
pub mod ct22_terms_held;
pub mod ct23_billed_as_of_the_click;
pub mod ct24_books_agree;
pub mod ct25_final_stays;
pub mod ct26_final_when_ready;
pub mod ct2_offset_chain;
pub mod ct3_replicas_equal;
pub mod ct4_published_is_held;
pub mod ct4_revisions_rise;
pub mod ct5_budget;
pub mod ct6_fail_closed;
pub mod ct7_ledger_balanced;
pub mod ct8_archive_is_whole;
pub mod ct9_differences_explained;

use std::fmt;

pub use invariant::Invariant;

/// One breach of one invariant, in words that an operator can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// Fails with all violations at once.
pub fn require_none(violations: &[Violation]) -> anyhow::Result<()> {
    let lines: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
    anyhow::ensure!(violations.is_empty(), "{} violations:\n{}", violations.len(), lines.join("\n"));
    Ok(())
}
