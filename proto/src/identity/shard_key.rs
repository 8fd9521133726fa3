//! The partitioner: identity → salt, campaign → group, and both → shard = Kafka partition. Every producer uses it.
//!
//! The salt depends only on the click's identity, so both copies of a duplicate meet in the same shard, and a viral ad
//! is spread over all sixteen salts. The group depends only on the campaign, so a budget and a two-stage merge never
//! cross Raft groups.

use serde::{Deserialize, Serialize};

use crate::event_time::WINDOW_MS;
use crate::identity::ids::{CampaignId, ClickId, SEQUENCE_BITS, WORKER_BITS};

const SALT_BITS: u32 = 4;
pub const SALTS: u16 = 1 << SALT_BITS;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u16);

/// The unit of work, and the partition of the raw topic: `group * 16 + salt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

impl ShardId {
    pub fn new(group: GroupId, salt: u16) -> ShardId {
        assert!(salt < SALTS, "a larger salt would be a shard of another group");
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

/// The number of Raft groups in the cluster, which determines the number of partitions of the raw topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitioner {
    groups: u16,
}

/// Keeps `group * 16 + salt` within a shard id, and the topic within the partitions that one Kafka cluster handles
/// well.
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

/// The salt of a click, 0 to 15.
///
/// For a minted id it is low time plus sequence. So each run of sixteen milliseconds visits every salt once per
/// sequence number, and a shard's set of seen ids stays dense. The hash of the run rotates the order, so that clicks
/// which arrive in step with a power of two do not all meet. For a foreign id it is the low bits of the hash.
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

/// A click id in the form that a shard remembers and replicates: numbers are close together where the ids of one shard
/// are dense.
///
/// A minted id is `minute of minting (26 bits) ‖ worker (10) ‖ code (24)`. The code is
/// `sequence / 16 (8 bits) ‖ run of sixteen milliseconds within the minute (12) ‖ sequence mod 16 (4)`.
/// Within a shard each run and sequence has exactly one millisecond, so no information is lost. The ids that one worker
/// mints in one minute for one shard fill a range of a few thousand codes.
///
/// A foreign id is the hash without its low four bits, which are the salt. Its top bit is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

/// The range of minted ids with one worker and one minute of minting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MintedRun(u64);

pub(crate) const CODE_BITS: u32 = 24;
const PLACE_FOREIGN_BIT: u64 = 1 << 63;
const RUN_MS: u64 = SALTS as u64;
const RUNS_PER_MINUTE: u64 = WINDOW_MS / RUN_MS;
const _: () = assert!(WINDOW_MS.is_multiple_of(RUN_MS) && RUNS_PER_MINUTE <= 1 << 12);

/// The parts of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceParts {
    /// The code has [`CODE_BITS`] bits.
    Minted { run: MintedRun, code: u32 },
    /// Has 59 bits.
    Foreign(u64),
}

impl Place {
    /// Unique only within one shard: an id of another shard may have the same place.
    #[inline]
    pub fn of(id: ClickId) -> Place {
        if id.is_foreign() {
            return Place(PLACE_FOREIGN_BIT | (id.0 & !PLACE_FOREIGN_BIT) >> SALT_BITS);
        }
        let millis = id.minted_millis();
        let (minute, run) = (millis / WINDOW_MS, millis % WINDOW_MS / RUN_MS);
        let sequence = u64::from(id.minted_sequence());
        let code = (sequence >> 4) << 16 | run << 4 | (sequence & 15);
        Place((minute << WORKER_BITS | u64::from(id.minted_worker())) << CODE_BITS | code)
    }

    pub(crate) fn from_bits(bits: u64) -> Place {
        Place(bits)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub fn parts(self) -> PlaceParts {
        if self.0 & PLACE_FOREIGN_BIT != 0 {
            return PlaceParts::Foreign(self.0 & !PLACE_FOREIGN_BIT);
        }
        PlaceParts::Minted { run: MintedRun(self.0 >> CODE_BITS), code: (self.0 & ((1 << CODE_BITS) - 1)) as u32 }
    }

    /// The id of this place in a shard with this salt. For a place that no id has, the result is an id with another
    /// place.
    pub fn id(self, salt: u16) -> ClickId {
        let salt = u64::from(salt % SALTS);
        match self.parts() {
            PlaceParts::Foreign(hash) => ClickId(PLACE_FOREIGN_BIT | hash << SALT_BITS | salt),
            PlaceParts::Minted { run: MintedRun(run), code } => {
                let (minute, worker) = (run >> WORKER_BITS, run & ((1 << WORKER_BITS) - 1));
                let code = u64::from(code);
                let sequence = code >> 16 << 4 | (code & 15);
                let first_ms = minute.wrapping_mul(WINDOW_MS).wrapping_add((code >> 4 & 0xfff) * RUN_MS);
                let ahead = salt.wrapping_sub(mix(first_ms / RUN_MS)).wrapping_sub(sequence) % RUN_MS;
                ClickId(
                    (first_ms.wrapping_add(ahead)) << (WORKER_BITS + SEQUENCE_BITS)
                        | worker << SEQUENCE_BITS
                        | sequence,
                )
            }
        }
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): a fixed bijection that is easy to implement in any
/// language.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ids::{SNOWFLAKE_EPOCH_MS, SnowflakeMinter, WORKERS_MAX};

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
        // Rates far below one click a millisecond, some in step with the number of salts.
        for gap_ms in [7, 10, 16, 1_000] {
            let mut minter = SnowflakeMinter::new(3);
            assert_balanced((0..64_000).map(move |n| minter.mint(SNOWFLAKE_EPOCH_MS + n * gap_ms)));
        }
    }

    #[test]
    fn salts_of_foreign_ids_are_balanced() {
        assert_balanced((0..64_000).map(|n| ClickId::foreign("shop", 7, &format!("event-{n}"))));
    }

    #[test]
    fn both_copies_of_a_click_meet_in_one_shard() {
        let partitioner = Partitioner::new(4);
        let id = ClickId::foreign("shop", 7, "e1");
        assert_eq!(partitioner.shard(9, id), partitioner.shard(9, id));
        assert_eq!(partitioner.shard(9, id).group(), partitioner.group(9));
    }

    proptest::proptest! {
        #[test]
        fn a_place_converts_back_to_its_id(ms in 0_u64..1 << 41, worker in 0_u16..WORKERS_MAX, sequence in 0_u16..4_096, foreign in 0_u64..1 << 63) {
            for id in [ClickId::minted(SNOWFLAKE_EPOCH_MS + ms, worker, sequence), ClickId(foreign | 1 << 63)] {
                proptest::prop_assert_eq!(Place::of(id).id(salt(id)), id);
            }
        }

        #[test]
        fn two_ids_of_a_shard_never_share_a_place(a in 0_u64..1 << 30, b in 0_u64..1 << 30) {
            // Ids close together, where a collision is most likely.
            let ids = [ClickId(a << 4), ClickId(b << 4)];
            if a != b && salt(ids[0]) == salt(ids[1]) {
                proptest::prop_assert_ne!(Place::of(ids[0]), Place::of(ids[1]));
            }
        }
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
