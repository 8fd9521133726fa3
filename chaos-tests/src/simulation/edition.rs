//! Editions of the simulation, so that the story of an old seed stays the same while the simulation grows.
//!
//! A seed that failed once guards a fixed bug only while its story meets the same coincidence. Two rules keep it so:
//!
//! 1. Each concern draws from a stream of its own ([`super::random`]). A new draw never joins an existing stream.
//! 2. A concern that is added later names the edition it came with, and a story of an earlier edition does not contain
//!    it. A new kind of fault or command in tier 0 is a row in `core/happenings.rs`. In tier 1 it is a struct with its
//!    own stream and timetable, as `nodes/builds.rs` is, behind a comparison with [`Story::edition`].
//!
//! A change of the product may still change a story: then a test in `tests/simulation.rs` says which.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::random::Seed;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edition(u16);

impl Edition {
    /// Everything that was simulated before there were editions.
    pub const FIRST: Edition = Edition(1);
    /// Tier 0: worker ids are leased and command levels announced. Tier 1: an older build has any supported level.
    pub const LEVELS: Edition = Edition(2);
    /// Both tiers: some clicks are dated ahead of their arrival, as far as the rules allow.
    pub const AHEAD: Edition = Edition(3);
    /// Tier 0: campaigns are edited, and a writer reports which terms PostgreSQL holds.
    pub const TERMS: Edition = Edition(4);
    /// Both tiers: other producers' transactions leave markers and aborted records in the raw log.
    pub const TRANSACTIONS: Edition = Edition(5);
    /// Tier 1: some clusters have four groups. Both tiers: some events are reported under two campaigns.
    pub const FOUR_GROUPS: Edition = Edition(6);
    /// Both tiers: groups keep the identity of their log. Tier 0: the raw topic is deleted and made again.
    pub const LOG_IDENTITY: Edition = Edition(7);
    /// What fresh seeds are run with.
    pub const NEWEST: Edition = Edition::LOG_IDENTITY;

    /// `None` for an edition that this build does not know.
    pub fn of(number: u16) -> Option<Edition> {
        (Edition::FIRST.0..=Edition::NEWEST.0).contains(&number).then_some(Edition(number))
    }

    pub fn number(self) -> u16 {
        self.0
    }
}

impl Default for Edition {
    fn default() -> Edition {
        Edition::NEWEST
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a whole run follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Story {
    pub seed: Seed,
    pub edition: Edition,
}

impl Story {
    pub fn newest(seed: u64) -> Story {
        Story { seed: Seed(seed), edition: Edition::NEWEST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edition_that_does_not_exist_yet_is_refused() {
        assert_eq!(Edition::of(Edition::NEWEST.number()), Some(Edition::NEWEST));
        assert_eq!(Edition::of(Edition::NEWEST.number() + 1), None);
        assert_eq!(Edition::of(0), None);
    }
}
