//! The partitioner: identity → salt, campaign → group, both → shard = Kafka partition. Written once, used by every producer.
//!
//! The salt is a function of the click's identity alone, so that both copies of a duplicate meet the same aggregator, and a
//! viral ad is spread over all sixteen. The group is a function of the campaign alone, so that a budget and a two-stage merge
//! never cross Raft groups.

use serde::{Deserialize, Serialize};

use crate::ids::{CampaignId, ClickId};

pub const SALTS: u16 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u16);

/// Unit of work, equal to the raw topic's partition: `group * 16 + salt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

impl ShardId {
    pub fn new(group: GroupId, salt: u16) -> ShardId {
        assert!(salt < SALTS);
        ShardId(group.0 * SALTS + salt)
    }

    pub fn group(self) -> GroupId {
        GroupId(self.0 / SALTS)
    }

    pub fn salt(self) -> u16 {
        self.0 % SALTS
    }

    pub fn partition(self) -> i32 {
        i32::from(self.0)
    }

    /// Every shard of a group, in salt order.
    pub fn of_group(group: GroupId) -> impl Iterator<Item = ShardId> {
        (0..SALTS).map(move |salt| ShardId::new(group, salt))
    }
}

/// How many Raft groups the cluster has, hence how many partitions the raw topic must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitioner {
    groups: u16,
}

/// So that `group * 16 + salt` always fits a shard id, and a topic stays below what one Kafka cluster likes to hold.
pub const GROUPS_MAX: u16 = 1_024;

impl Partitioner {
    pub fn new(groups: u16) -> Partitioner {
        assert!((1..=GROUPS_MAX).contains(&groups), "groups must be 1..={GROUPS_MAX}, got {groups}");
        Partitioner { groups }
    }

    pub fn groups(self) -> u16 {
        self.groups
    }

    pub fn partitions(self) -> i32 {
        i32::from(self.groups * SALTS)
    }

    pub fn group(self, campaign: CampaignId) -> GroupId {
        let groups = u64::from(self.groups);
        GroupId(u16::try_from(mix(campaign) % groups).unwrap_or(0))
    }

    pub fn shard(self, campaign: CampaignId, click: ClickId) -> ShardId {
        ShardId::new(self.group(campaign), salt(click))
    }
}

/// Minted ids: low time plus sequence, so that each run of sixteen milliseconds visits every salt once per sequence number and
/// a shard's set of seen ids stays dense; the run's own hash rotates the order, so that clicks arriving in step with a power
/// of two do not all meet. Foreign ids: low bits of their hash.
pub fn salt(click: ClickId) -> u16 {
    let salts = u64::from(SALTS);
    let value = if click.is_foreign() {
        click.0 % salts
    } else {
        let millis = click.minted_millis();
        (mix(millis >> 4).wrapping_add(millis).wrapping_add(u64::from(click.minted_sequence()))) % salts
    };
    u16::try_from(value).unwrap_or(0)
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): a fixed bijection, easy to write in any language.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SNOWFLAKE_EPOCH_MS, SnowflakeMinter};

    fn assert_balanced(ids: impl Iterator<Item = ClickId>) {
        let mut counts = [0_u32; SALTS as usize];
        for id in ids {
            counts[usize::from(salt(id))] += 1;
        }
        let total: u32 = counts.iter().sum();
        let mean = total / u32::from(SALTS);
        for count in counts {
            assert!(count.abs_diff(mean) * 10 <= mean, "salts differ by more than 10 %: {counts:?}");
        }
    }

    #[test]
    fn salts_of_minted_ids_are_balanced_at_any_rate() {
        for clicks_per_ms in [1, 3, 50, 500] {
            let mut minter = SnowflakeMinter::new(3);
            assert_balanced((0..64_000).map(move |n| minter.mint(SNOWFLAKE_EPOCH_MS + n / clicks_per_ms)));
        }
        // Far below one click a millisecond, also in step with the number of salts.
        for gap_ms in [7, 10, 16, 1_000] {
            let mut minter = SnowflakeMinter::new(3);
            assert_balanced((0..64_000).map(move |n| minter.mint(SNOWFLAKE_EPOCH_MS + n * gap_ms)));
        }
    }

    #[test]
    fn salts_of_foreign_ids_are_balanced() {
        assert_balanced((0..64_000).map(|n| ClickId::foreign("shop", &format!("event-{n}"))));
    }

    #[test]
    fn both_copies_of_a_click_meet_in_one_shard() {
        let partitioner = Partitioner::new(4);
        let id = ClickId::foreign("shop", "e1");
        assert_eq!(partitioner.shard(9, id), partitioner.shard(9, id));
        assert_eq!(partitioner.shard(9, id).group(), partitioner.group(9));
    }

    #[test]
    fn campaigns_spread_over_groups() {
        let partitioner = Partitioner::new(8);
        let mut counts = [0_u32; 8];
        for campaign in 0..8_000 {
            counts[usize::from(partitioner.group(campaign).0)] += 1;
        }
        assert!(counts.iter().all(|&n| n.abs_diff(1_000) < 150), "{counts:?}");
    }
}
