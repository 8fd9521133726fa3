//! Which clicks are general invalid traffic (GIVT), by rules that need nothing but the click itself.
//!
//! This is a *definition*: the stream applies it in Rust, the batch restates it in SQL over the archive, and reconciliation
//! compares the two.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// Capture found the request to be automated (declared prefetch, known data-centre agent, …).
pub const EVIDENCE_AUTOMATED: u32 = 1;

/// Lower-case fragments by which an agent declares itself a robot (IAB/MRC general invalid traffic: declared bots).
pub const ROBOT_FRAGMENTS: [&str; 3] = ["bot", "crawler", "spider"];

/// True where any evidence bit is set or the user agent declares a robot, ASCII case ignored.
pub fn is_invalid(evidence: u32, user_agent: &[u8]) -> bool {
    static ROBOTS: LazyLock<AhoCorasick> = LazyLock::new(|| {
        AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(ROBOT_FRAGMENTS)
            .expect("three short literals make a small automaton")
    });
    evidence != 0 || ROBOTS.is_match(user_agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_robots_and_evidence_are_invalid() {
        assert!(is_invalid(0, b"Mozilla/5.0 (compatible; GoogleBot/2.1)"));
        assert!(is_invalid(EVIDENCE_AUTOMATED, b""));
        assert!(!is_invalid(0, b"Mozilla/5.0 (X11; Linux x86_64)"));
        assert!(!is_invalid(0, b""));
    }
}
