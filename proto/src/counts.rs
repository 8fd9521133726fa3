//! The merge law: what one (campaign, ad, minute) counts, and how two partial counts become one. Merging is associative and
//! commutative, and zero is its identity, so the order in which shards arrive can never matter.

use serde::{Deserialize, Serialize};

use crate::event_time::Minute;
use crate::ids::{AdId, CampaignId};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Distinct valid on-time clicks.
    pub clicks: u64,
    /// Distinct on-time clicks that the validity rules exclude.
    pub invalid_clicks: u64,
}

impl Counts {
    pub fn merge(&mut self, other: Counts) {
        self.clicks = self.clicks.saturating_add(other.clicks);
        self.invalid_clicks = self.invalid_clicks.saturating_add(other.invalid_clicks);
    }
}

/// Ordered by minute first: a window's cells lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellKey {
    pub minute: Minute,
    pub campaign_id: CampaignId,
    pub ad_id: AdId,
}

/// One shard's share of one cell since its last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellDelta {
    pub key: CellKey,
    pub counts: Counts,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(mut left: Counts, right: Counts) -> Counts {
        left.merge(right);
        left
    }

    prop_compose! {
        fn counts()(clicks in 0..u64::MAX, invalid_clicks in 0..u64::MAX) -> Counts {
            Counts { clicks, invalid_clicks }
        }
    }

    proptest! {
        #[test]
        fn merging_is_associative_commutative_and_has_an_identity(a in counts(), b in counts(), c in counts()) {
            prop_assert_eq!(merged(merged(a, b), c), merged(a, merged(b, c)));
            prop_assert_eq!(merged(a, b), merged(b, a));
            prop_assert_eq!(merged(a, Counts::default()), a);
        }
    }
}
