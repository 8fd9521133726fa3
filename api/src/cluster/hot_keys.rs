//! `GET /v1/cluster/hot_keys`: the ads with the largest shares of the current traffic.
//!
//! The answer is exact: replicas already hold every count of these minutes, so no sketch is needed.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clicktally_proto::event_time::Minute;
use clicktally_raft_store::group::Group;
use clicktally_state::windows::{Cell, Window};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::ApiState;
use crate::text_forms::exact_number::ExactNumber;

/// How many keys an answer names.
pub const HOT_KEYS_MAX: usize = 20;
/// Ignore keys with less than 1/1000 of a minute's clicks, so at most 1,000 candidates remain per minute.
const RARITY_MAX: u64 = 1_000;

/// The hottest ads of the newest minutes: the minute before the watermark and all later ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct HotKeys {
    /// All clicks of these minutes, also invalid ones: they cost as much to count.
    pub clicks: u64,
    /// At most 20, the hottest first.
    pub keys: Vec<HotKey>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct HotKey {
    pub campaign_id: ExactNumber,
    pub ad_id: ExactNumber,
    pub clicks: u64,
    /// Share of all clicks, 0 to 1.
    pub share: f64,
}

#[utoipa::path(get, path = "/v1/cluster/hot_keys", tag = "operations", responses((status = 200, body = HotKeys)))]
pub async fn show_hot_keys(State(state): State<Arc<ApiState>>) -> Json<HotKeys> {
    Json(HotKeys::now(&state).await)
}

impl HotKeys {
    /// From this node's replicas. Reads each cell of about two minutes, off the serving threads.
    pub async fn now(state: &ApiState) -> HotKeys {
        let windows = state.groups.iter().map(|group| newest_windows(group)).collect::<Vec<_>>();
        // Only a bug of ours makes it panic. An empty answer is harmless then: the next request computes it again.
        tokio::task::spawn_blocking(move || HotKeys::of(&windows)).await.unwrap_or_default()
    }

    /// `groups`: the newest windows of each group. All ads of a campaign are in one group.
    fn of(groups: &[Vec<Arc<Window>>]) -> HotKeys {
        let mut clicks = 0_u64;
        let mut keys = Vec::new();
        for windows in groups {
            let mut candidates = BTreeSet::new();
            for window in windows {
                let weights: Vec<_> =
                    window.cells().map(|(campaign, ad, cell)| ((campaign, ad), weight(&cell))).collect();
                let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
                clicks = clicks.saturating_add(total);
                let frequent = weights.iter().filter(|(_, weight)| weight.saturating_mul(RARITY_MAX) >= total);
                candidates.extend(frequent.map(|(key, _)| *key));
            }
            keys.extend(candidates.into_iter().map(|(campaign_id, ad_id)| {
                let cells = windows.iter().filter_map(|window| window.cell(campaign_id, ad_id));
                let clicks = cells.map(|cell| weight(&cell)).sum();
                HotKey { campaign_id: campaign_id.into(), ad_id: ad_id.into(), clicks, share: 0.0 }
            }));
        }
        keys.retain(|key| key.clicks > 0);
        keys.sort_unstable_by_key(|key| (std::cmp::Reverse(key.clicks), key.campaign_id, key.ad_id));
        keys.truncate(HOT_KEYS_MAX);
        for key in &mut keys {
            key.share = key.clicks as f64 / clicks as f64;
        }
        HotKeys { clicks, keys }
    }
}

fn newest_windows(group: &Group) -> Vec<Arc<Window>> {
    group.read(|state| {
        let passed = Minute::of(state.watermark_ms());
        state.windows().range(Minute(passed.0.saturating_sub(1))..).map(|(_, window)| Arc::clone(window)).collect()
    })
}

fn weight(cell: &Cell) -> u64 {
    cell.clicks().saturating_add(cell.invalid_clicks())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
    use clicktally_proto::codec;
    use clicktally_proto::command::{AssignShard, COMMAND_LEVEL, Command, GroupSettings, NodeRecord, Outcome};
    use clicktally_proto::counts::cell_block::CellBlock;
    use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, Counts};
    use clicktally_proto::event_time::EventTimeRules;
    use clicktally_proto::identity::shard_key::{GroupId, ShardId};
    use clicktally_state::group_state::GroupState;
    use proptest::prelude::*;

    use super::*;

    /// The windows that a group has after one checkpoint with these counts.
    fn windows(counts: &BTreeMap<(u32, u64), u64>) -> Vec<Arc<Window>> {
        let mut state = GroupState::new(GroupId(0));
        let settings = GroupSettings::new(1, EventTimeRules::default());
        let record = NodeRecord { node: 1, http_address: "a".into(), peer_address: "b".into(), can_aggregate: true };
        let shard = ShardId(0);
        let clicks: u64 = counts.values().sum();
        let mut cells: Vec<CellDelta> = counts
            .iter()
            .map(|(&(minute, ad_id), &clicks)| CellDelta {
                key: CellKey { minute: Minute(minute), campaign_id: 7, ad_id },
                counts: Counts { clicks, ..Counts::default() },
            })
            .collect();
        let checkpoint = Checkpoint {
            shard,
            epoch: Epoch(1),
            from: 0,
            to: clicks,
            watermark_ms: 0,
            complete_to_ms: 0,
            outcomes: OutcomeCounts { read: clicks, counted: clicks, ..OutcomeCounts::default() },
            cells: CellBlock::pack(&mut cells),
            seen: Vec::new(),
        };
        let assignment = AssignShard { shard, owner: Some(1), expected_epoch: Epoch(0) };
        let commands = [
            Command::Configure(settings),
            Command::RegisterNode(record),
            Command::AssignShard(assignment),
            Command::Checkpoint(checkpoint),
        ];
        for (index, command) in (1..).zip(commands) {
            let outcome = state.apply(index, &codec::encode(&command).unwrap(), COMMAND_LEVEL).unwrap();
            assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
        }
        state.windows().values().cloned().collect()
    }

    proptest! {
        /// Every count here is large enough to be a candidate in the largest possible minute.
        #[test]
        fn the_hottest_are_those_of_a_full_count(
            counts in proptest::collection::btree_map((1_u32..4, 1_u64..60), 50_u64..500, 1..120)
        ) {
            let hot = HotKeys::of(&[windows(&counts)]);
            let mut by_ad: BTreeMap<u64, u64> = BTreeMap::new();
            for ((_, ad), clicks) in &counts {
                *by_ad.entry(*ad).or_default() += clicks;
            }
            let mut expected: Vec<(u64, u64)> = by_ad.into_iter().collect();
            expected.sort_by_key(|(ad, clicks)| (std::cmp::Reverse(*clicks), *ad));
            expected.truncate(HOT_KEYS_MAX);
            let found: Vec<(u64, u64)> =
                hot.keys.iter().map(|key| (key.ad_id.to_u64().unwrap(), key.clicks)).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(hot.clicks, counts.values().sum::<u64>());
        }
    }

    #[test]
    fn a_viral_ad_is_named_with_its_share() {
        let mut counts: BTreeMap<(u32, u64), u64> = (1..=100).map(|ad| ((5, ad), 10)).collect();
        counts.insert((5, 42), 9_020);
        let hot = HotKeys::of(&[windows(&counts), Vec::new()]);
        assert_eq!(
            (hot.keys[0].ad_id, hot.keys[0].clicks, hot.keys.len()),
            (42_u64.into(), 9_020, 1),
            "the others are rare"
        );
        assert!((hot.keys[0].share - 9_020.0 / 10_010.0).abs() < 1e-9, "{}", hot.keys[0].share);
    }

    #[test]
    fn no_traffic_has_no_hot_keys() {
        assert_eq!(HotKeys::of(&[Vec::new()]), HotKeys::default());
    }
}
