//! What a check of the state answers.

use thiserror::Error;

/// A state that apply must never reach.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{rule}: {detail}")]
pub struct BrokenInvariant {
    /// The rule, as a claim.
    pub rule: &'static str,
    pub detail: String,
}

pub(crate) fn require(holds: bool, rule: &'static str, detail: impl FnOnce() -> String) -> Result<(), BrokenInvariant> {
    if holds { Ok(()) } else { Err(BrokenInvariant { rule, detail: detail() }) }
}

#[cfg(test)]
pub(crate) fn assert_breaks(checked: Result<(), BrokenInvariant>, rule: &str) {
    let broken = checked.expect_err(rule);
    assert_eq!(broken.rule, rule, "{broken}");
}
