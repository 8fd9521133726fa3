//! Which clicks are general invalid traffic (GIVT), by rules that need only the click itself.
//!
//! This is a *definition*: the stream applies it in Rust, the batch restates it in SQL over the archive, and
//! reconciliation compares the two.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use foldhash::fast::FixedState;

/// Capture found that the request is automated (declared prefetch, known data-centre agent, …).
pub const EVIDENCE_AUTOMATED: u32 = 1;

/// Lower-case fragments by which an agent declares itself a robot (IAB/MRC general invalid traffic: declared bots).
pub const ROBOT_FRAGMENTS: [&str; 3] = ["bot", "crawler", "spider"];

/// True if any evidence bit is set or the user agent declares a robot. Ignores ASCII case.
pub fn is_invalid(evidence: u32, user_agent: &[u8]) -> bool {
    evidence != 0 || (!user_agent.is_empty() && VERDICTS.with_borrow_mut(|verdicts| verdicts.of(user_agent)))
}

fn declares_a_robot(user_agent: &[u8]) -> bool {
    static ROBOTS: LazyLock<AhoCorasick> = LazyLock::new(|| {
        AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(ROBOT_FRAGMENTS)
            .expect("three short literals make a small automaton")
    });
    ROBOTS.is_match(user_agent)
}

/// How many agents a thread remembers, and how long a remembered agent may be.
const AGENTS_MAX: usize = 1_024;
const AGENT_BYTES_MAX: usize = 512;

thread_local! {
    static VERDICTS: RefCell<Verdicts> = RefCell::default();
}

/// Verdicts on recent agents. A few hundred agents make nearly all clicks, and comparing is several times cheaper than
/// searching. Each agent has one slot, and the latest agent of a slot replaces the one before.
#[derive(Default)]
struct Verdicts {
    slots: Vec<(Box<[u8]>, bool)>,
}

impl Verdicts {
    fn of(&mut self, user_agent: &[u8]) -> bool {
        if user_agent.len() > AGENT_BYTES_MAX {
            return declares_a_robot(user_agent);
        }
        if self.slots.is_empty() {
            self.slots.resize(AGENTS_MAX, Default::default());
        }
        let slot = &mut self.slots[FixedState::default().hash_one(user_agent) as usize % AGENTS_MAX];
        if *slot.0 != *user_agent {
            *slot = (user_agent.into(), declares_a_robot(user_agent));
        }
        slot.1
    }
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

    #[test]
    fn a_remembered_verdict_is_what_a_search_finds() {
        let agent =
            |n: usize| format!("{}/{n}", ["Mozilla", "SpiderX", "bOt", "curl", "CRAWLER"][n % 5]).repeat(n % 70 + 1);
        for n in (0..5_000).chain(0..5_000) {
            assert_eq!(is_invalid(0, agent(n).as_bytes()), matches!(n % 5, 1 | 2 | 4), "{}", agent(n));
        }
    }
}
