//! Exactly-once in one place: offsets advance and deltas merge in the same entry, or neither does.
//!
//! 1. A proposer whose epoch is not the assigned one is fenced: a zombie can never count.
//! 2. A range that is already applied, with the same proofs, is a retry: harmless. If the range was applied with a
//!    different watermark or completeness, a previous incarnation of this owner committed it. The proposer relies on a
//!    proof of emptiness that was never committed, and must start again from what was committed.
//! 3. A range that does not begin at the committed offset is a gap or an overlap: it is refused with the offset
//!    expected.
//! 4. Everything is checked before anything changes.

use std::sync::Arc;

use clicktally_proto::checkpoint::Checkpoint;
use clicktally_proto::command::{Outcome, Rejection};
use clicktally_proto::counts::window_cells::WindowCells;
use clicktally_proto::event_time::Minute;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_proto::money::price_of;

use crate::group_state::GroupState;
use crate::shards::ShardEntry;
use crate::windows::cell_run::CellRun;
use crate::windows::cell_runs::MergeAllowance;

impl GroupState {
    pub(super) fn apply_checkpoint(&mut self, index: u64, checkpoint: Checkpoint) -> Result<Outcome, Rejection> {
        let shard = checkpoint.shard;
        let entry = self.shards.get(shard).ok_or(Rejection::ForeignShard(shard))?;
        if let Some(answer) = answer_without_applying(entry, &checkpoint)? {
            return Ok(answer);
        }
        let windows = checkpoint.cells.unpack_windows().map_err(|damage| Rejection::Undecodable(damage.to_string()))?;
        let rules = self.event_time();
        if windows.iter().any(|cells| rules.is_final(cells.minute, self.watermark_ms())) {
            return Err(Rejection::FinalWindow);
        }
        let runs: Vec<(Minute, CellRun)> =
            windows.into_iter().map(|cells| (cells.minute, self.priced(index, cells))).collect();
        let mut allowance = MergeAllowance::of_an_apply();
        let cell_bytes = runs.iter().map(|(_, run)| run.bytes()).sum();
        self.make_room(shard, cell_bytes, &checkpoint.seen, &mut allowance)?;

        // Nothing below may refuse.
        for (minute, run) in runs {
            run.by_campaign().for_each(|(campaign_id, cells)| self.catalogue.spend(campaign_id, cells));
            if self.windows.add(minute, run, &mut allowance) {
                self.publication.revised(index);
            }
        }
        if let Some(entry) = self.shards.get_mut(shard) {
            advance(entry, &checkpoint);
        }
        self.remember(shard, checkpoint.seen);
        self.advance_watermark(index);
        Ok(Outcome::Done)
    }

    /// What the entry at `index` adds to one minute, at the prices in force.
    fn priced(&self, index: u64, cells: WindowCells) -> CellRun {
        let mut spend_micros = Vec::with_capacity(cells.len());
        let mut clicks = cells.clicks.iter();
        for ids in cells.ids.chunk_by(|a, b| a.0 == b.0) {
            let price = self.catalogue.price_micros(ids[0].0);
            // A price that overflows saturates: the budget lane pauses, which is the safe side.
            spend_micros
                .extend(clicks.by_ref().take(ids.len()).map(|clicks| price_of(*clicks, price).unwrap_or(i64::MAX)));
        }
        CellRun::of_checkpoint(index, cells, spend_micros)
    }

    /// Adds the ids that a checkpoint counted. Forgets those of minutes that are final for this shard: it counts no
    /// click of them any more, also if the group's watermark is behind.
    fn remember(&mut self, shard: ShardId, blocks: Vec<SeenBlock>) {
        blocks.into_iter().for_each(|block| self.seen.add(shard, Arc::new(block)));
        let rules = self.event_time();
        let watermark_ms = self.shard(shard).map_or(0, |entry| entry.watermark_ms);
        self.seen.forget(shard, |minute| rules.is_final(minute, watermark_ms));
    }
}

/// The answer to a checkpoint that must not change the state; `None` if it may be applied.
fn answer_without_applying(entry: &ShardEntry, checkpoint: &Checkpoint) -> Result<Option<Outcome>, Rejection> {
    let is_fenced = checkpoint.epoch != entry.epoch || entry.owner.is_none();
    if is_fenced && !is_broken(Mutant::EpochUnchecked) {
        return Ok(Some(Outcome::Fenced { current: entry.epoch }));
    }
    let (from, to) = (checkpoint.from, checkpoint.to);
    if to < from {
        return Err(Rejection::OffsetsBackwards);
    }
    if !is_broken(Mutant::Offset) {
        let proofs = (checkpoint.watermark_ms, checkpoint.complete_to_ms);
        let is_as_proposed = proofs == (entry.watermark_ms, entry.complete_to_ms);
        if to > from && entry.last_range == Some((from, to)) && is_as_proposed {
            return Ok(Some(Outcome::AlreadyApplied));
        }
        if from != entry.committed_offset {
            return Ok(Some(Outcome::OffsetGap { expected: entry.committed_offset }));
        }
    }
    if checkpoint.outcomes.is_conserved() { Ok(None) } else { Err(Rejection::NotConserved) }
}

/// Moves a shard to the end of a checkpoint.
fn advance(entry: &mut ShardEntry, checkpoint: &Checkpoint) {
    let (from, to) = (checkpoint.from, checkpoint.to);
    if to > from {
        entry.last_range = Some((from, to));
    }
    entry.committed_offset = to;
    entry.watermark_ms = entry.watermark_ms.max(checkpoint.watermark_ms);
    if is_broken(Mutant::WatermarkGoesBack) {
        entry.watermark_ms = checkpoint.watermark_ms;
    }
    entry.complete_to_ms = entry.complete_to_ms.max(checkpoint.complete_to_ms);
    entry.outcomes.add(&checkpoint.outcomes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clicktally_proto::checkpoint::{Epoch, OutcomeCounts};
    use clicktally_proto::codec;
    use clicktally_proto::command::{AssignShard, COMMAND_LEVEL, Command, GroupSettings, NodeRecord};
    use clicktally_proto::counts::cell_block::CellBlock;
    use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, Counts};
    use clicktally_proto::counts::user_mark::UserMark;
    use clicktally_proto::counts::window_count::WindowState;
    use clicktally_proto::event_time::{EventTimeRules, WINDOW_MS};
    use clicktally_proto::identity::ids::ClickId;
    use clicktally_proto::identity::seen_ids::SeenBlock;
    use clicktally_proto::identity::shard_key::{GroupId, Place, ShardId};
    use proptest::prelude::*;

    use super::*;
    use crate::limits::CELL_BYTES;

    const RULES: EventTimeRules = EventTimeRules {
        out_of_orderness_ms: 5_000,
        allowed_lateness_ms: 2 * WINDOW_MS,
        retain_final_ms: WINDOW_MS,
        max_ahead_ms: 300_000,
    };

    struct Replica {
        state: GroupState,
        index: u64,
    }

    impl Replica {
        fn new() -> Replica {
            let mut replica = Replica { state: GroupState::new(GroupId(0)), index: 0 };
            replica.apply(&Command::Configure(GroupSettings::new(1, RULES)));
            replica.apply(&Command::RegisterNode(NodeRecord {
                node: 1,
                http_address: "a".into(),
                peer_address: "b".into(),
                can_aggregate: true,
            }));
            for shard in ShardId::of_group(GroupId(0)) {
                let assignment = AssignShard { shard, owner: Some(1), expected_epoch: Epoch(0) };
                assert_eq!(replica.apply(&Command::AssignShard(assignment)), Outcome::Assigned { epoch: Epoch(1) });
            }
            replica
        }

        fn apply(&mut self, command: &Command) -> Outcome {
            self.index += 1;
            self.state.apply(self.index, &codec::encode(command).unwrap(), COMMAND_LEVEL).unwrap()
        }
    }

    fn checkpoint(shard: u16, from: u64, to: u64, minute: u32, watermark_ms: u64) -> Checkpoint {
        let clicks = to - from;
        let key = CellKey { minute: Minute(minute), campaign_id: 3, ad_id: 4 };
        let mut counts = Counts { clicks, ..Counts::default() };
        for offset in from..to {
            // Some of them again and again, in every shard.
            UserMark::of((offset % 150).to_string().as_bytes()).into_iter().for_each(|user| counts.users.insert(user));
            counts.costs.add(10);
        }
        let mut cells = vec![CellDelta { key, counts }];
        if clicks == 0 {
            cells.clear();
        }
        let mut ids: Vec<Place> = (from..to).map(|n| Place::of(ClickId(n + 1))).collect();
        let seen = if ids.is_empty() { vec![] } else { vec![SeenBlock::pack(Minute(minute), &mut ids)] };
        Checkpoint {
            shard: ShardId(shard),
            epoch: Epoch(1),
            from,
            to,
            watermark_ms,
            complete_to_ms: 0,
            outcomes: OutcomeCounts { read: clicks, counted: clicks, ..OutcomeCounts::default() },
            cells: CellBlock::pack(&mut cells),
            seen,
        }
    }

    fn clicks(state: &GroupState) -> u64 {
        state.windows().values().flat_map(|w| w.cells()).map(|(_, _, cell)| cell.clicks()).sum()
    }

    fn encoded(state: &GroupState) -> Vec<u8> {
        let mut bytes = Vec::new();
        state.freeze().write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_retry_is_counted_once() {
        let mut replica = Replica::new();
        let command = Command::Checkpoint(checkpoint(0, 0, 10, 5, 0));
        assert_eq!(replica.apply(&command), Outcome::Done);
        assert_eq!(replica.apply(&command), Outcome::AlreadyApplied);
        assert_eq!(clicks(&replica.state), 10);
    }

    #[test]
    fn a_range_that_an_earlier_life_committed_with_another_proof_is_no_retry() {
        let mut replica = Replica::new();
        let committed = checkpoint(0, 0, 10, 5, 0);
        assert_eq!(replica.apply(&Command::Checkpoint(committed.clone())), Outcome::Done);
        let watermark_ms = committed.watermark_ms + 1;
        let proven_later = Command::Checkpoint(Checkpoint { watermark_ms, ..committed.clone() });
        assert_eq!(replica.apply(&proven_later), Outcome::OffsetGap { expected: 10 });
        let complete_to_ms = committed.complete_to_ms + 1;
        let complete_later = Command::Checkpoint(Checkpoint { complete_to_ms, ..committed });
        assert_eq!(replica.apply(&complete_later), Outcome::OffsetGap { expected: 10 });
        assert_eq!(clicks(&replica.state), 10);
    }

    #[test]
    fn a_gap_and_an_overlap_are_refused_with_the_offset_expected() {
        let mut replica = Replica::new();
        replica.apply(&Command::Checkpoint(checkpoint(0, 0, 10, 5, 0)));
        for from in [5, 11] {
            let outcome = replica.apply(&Command::Checkpoint(checkpoint(0, from, 20, 5, 0)));
            assert_eq!(outcome, Outcome::OffsetGap { expected: 10 });
        }
        assert_eq!(clicks(&replica.state), 10);
    }

    #[test]
    fn a_fenced_owner_changes_nothing() {
        let mut replica = Replica::new();
        let assignment = AssignShard { shard: ShardId(0), owner: Some(1), expected_epoch: Epoch(1) };
        replica.apply(&Command::AssignShard(assignment));
        let before = replica.state.clone();
        let outcome = replica.apply(&Command::Checkpoint(checkpoint(0, 0, 10, 5, 0)));
        assert_eq!(outcome, Outcome::Fenced { current: Epoch(2) });
        assert_eq!(replica.state, before);
    }

    #[test]
    fn clicks_that_do_not_add_up_are_refused() {
        let mut replica = Replica::new();
        let mut bad = checkpoint(0, 0, 10, 5, 0);
        bad.outcomes.counted = 9;
        assert_eq!(replica.apply(&Command::Checkpoint(bad)), Outcome::Rejected(Rejection::NotConserved));
        assert_eq!(clicks(&replica.state), 0);
    }

    #[test]
    fn a_window_fires_only_when_every_shard_has_passed_it() {
        let mut replica = Replica::new();
        replica.apply(&Command::Checkpoint(checkpoint(0, 0, 10, 5, 0)));
        for shard in 0..15 {
            let from = if shard == 0 { 10 } else { 0 };
            replica.apply(&Command::Checkpoint(checkpoint(shard, from, from, 5, Minute(6).start_ms())));
        }
        assert_eq!(replica.state.windows()[&Minute(5)].state(), WindowState::Unspecified);
        replica.apply(&Command::Checkpoint(checkpoint(15, 0, 0, 5, Minute(6).start_ms())));
        assert_eq!(replica.state.windows()[&Minute(5)].state(), WindowState::Fired);
        // A later click of the same minute is a correction with a larger revision.
        let fired = replica.state.newest_revision();
        replica.apply(&Command::Checkpoint(checkpoint(0, 10, 12, 5, 0)));
        let window = &replica.state.windows()[&Minute(5)];
        assert_eq!(window.state(), WindowState::Corrected);
        let rows: Vec<_> = window.rows_after(Minute(5), fired).collect();
        assert_eq!((rows.len(), rows[0].clicks, rows[0].unique_users), (1, 12, 12));
        assert_eq!((rows[0].cost_sum_micros, rows[0].cost_count), (120, 12));
        assert!(rows[0].revision > fired);
    }

    #[test]
    fn a_final_window_takes_no_more_and_leaves_once_published() {
        let mut replica = Replica::new();
        replica.apply(&Command::Checkpoint(checkpoint(0, 0, 10, 5, 0)));
        let pass = |replica: &mut Replica, watermark_ms| {
            for shard in 0..16 {
                let from = replica.state.shard(ShardId(shard)).unwrap().committed_offset;
                replica.apply(&Command::Checkpoint(checkpoint(shard, from, from, 5, watermark_ms)));
            }
        };
        pass(&mut replica, Minute(8).start_ms());
        assert_eq!(replica.state.windows()[&Minute(5)].state(), WindowState::Final);
        let outcome = replica.apply(&Command::Checkpoint(checkpoint(0, 10, 12, 5, 0)));
        assert_eq!(outcome, Outcome::Rejected(Rejection::FinalWindow));
        pass(&mut replica, Minute(9).start_ms());
        assert!(replica.state.windows().contains_key(&Minute(5)), "unpublished windows stay");
        let published_revision = replica.state.newest_revision();
        replica.apply(&Command::SinkProgress { published_revision });
        assert!(!replica.state.windows().contains_key(&Minute(5)));
        assert!(replica.state.seen_blocks(ShardId(0)).is_empty(), "seen ids leave with their window");
    }

    /// A checkpoint that counts `clicks` clicks, each of an ad of its own.
    fn wide(replica: &Replica, shard: u16, minute: u32, clicks: u64, watermark_ms: u64) -> Checkpoint {
        let from = replica.state.shard(ShardId(shard)).unwrap().committed_offset;
        let ad = |n| CellKey { minute: Minute(minute), campaign_id: 3, ad_id: u64::from(shard) * 1_000_000 + n + 1 };
        let cell = |n| CellDelta { key: ad(n), counts: Counts { clicks: 1, ..Counts::default() } };
        let mut cells: Vec<CellDelta> = (0..clicks).map(cell).collect();
        Checkpoint {
            cells: CellBlock::pack(&mut cells),
            ..checkpoint(shard, from, from + clicks, minute, watermark_ms)
        }
    }

    /// Room for about a thousand cells.
    fn small() -> Replica {
        let mut replica = Replica::new();
        let state_bytes_max = 1_000 * CELL_BYTES;
        let settings = replica.state.settings.unwrap();
        replica.state.settings = Some(GroupSettings { state_bytes_max, ..settings });
        replica
    }

    #[test]
    fn who_is_ahead_waits_for_room_and_who_is_behind_may_make_it() {
        let mut replica = small();
        for shard in 1..16 {
            let ahead = checkpoint(shard, 0, 0, 5, Minute(6).start_ms());
            assert_eq!(replica.apply(&Command::Checkpoint(ahead)), Outcome::Done);
        }
        let much = wide(&replica, 1, 6, 900, Minute(6).start_ms());
        assert_eq!(replica.apply(&Command::Checkpoint(much)), Outcome::Done);
        let before = replica.state.clone();

        // Shard 1 is ahead of shard 0, which holds the watermark.
        let refused = Command::Checkpoint(wide(&replica, 1, 7, 200, Minute(7).start_ms()));
        assert!(matches!(replica.apply(&refused), Outcome::Rejected(Rejection::StateFull { .. })));
        assert_eq!(replica.state, before, "a refusal changes nothing");
        let proof = checkpoint(2, 0, 0, 5, Minute(7).start_ms());
        assert_eq!(replica.apply(&Command::Checkpoint(proof)), Outcome::Done, "what adds nothing passes");
        let behind = Command::Checkpoint(wide(&replica, 0, 5, 150, Minute(6).start_ms()));
        assert_eq!(replica.apply(&behind), Outcome::Done, "the reserve is for those behind");
        // Not even they go beyond it. They are level with the others now, but for shard 2.
        let beyond = Command::Checkpoint(wide(&replica, 0, 6, 500, Minute(6).start_ms()));
        assert!(matches!(replica.apply(&beyond), Outcome::Rejected(Rejection::StateFull { .. })));
    }

    #[test]
    fn finality_makes_the_room_that_a_refused_checkpoint_waits_for() {
        let mut replica = small();
        let first = wide(&replica, 1, 5, 900, Minute(6).start_ms());
        assert_eq!(replica.apply(&Command::Checkpoint(first)), Outcome::Done);
        let waiting = Command::Checkpoint(wide(&replica, 1, 8, 900, Minute(8).start_ms()));
        assert!(matches!(replica.apply(&waiting), Outcome::Rejected(Rejection::StateFull { .. })));
        // The others' proofs of emptiness carry the watermark past minute 5, which becomes final.
        for shard in 0..16 {
            let from = replica.state.shard(ShardId(shard)).unwrap().committed_offset;
            let proof = checkpoint(shard, from, from, 5, Minute(8).start_ms());
            assert_eq!(replica.apply(&Command::Checkpoint(proof)), Outcome::Done);
        }
        assert!(matches!(replica.apply(&waiting), Outcome::Rejected(Rejection::StateFull { .. })), "not published yet");
        let published_revision = replica.state.newest_revision();
        replica.apply(&Command::SinkProgress { published_revision });
        assert!(replica.state.windows().is_empty(), "without the grace it would have with room to spare");
        assert_eq!(replica.apply(&waiting), Outcome::Done);
        assert_eq!(clicks(&replica.state), 900);
        assert_eq!(replica.apply(&waiting), Outcome::AlreadyApplied);
    }

    #[test]
    fn a_budget_may_be_raised_and_never_lowered() {
        let mut replica = small();
        let current = replica.state.settings.unwrap();
        let raised = GroupSettings { state_bytes_max: current.state_bytes_max * 2, ..current };
        assert_eq!(replica.apply(&Command::Configure(raised)), Outcome::Done);
        assert_eq!(replica.apply(&Command::Configure(current)), Outcome::AlreadyApplied);
        assert_eq!(replica.state.settings, Some(raised));
        let other = GroupSettings { groups: 2, ..raised };
        assert_eq!(replica.apply(&Command::Configure(other)), Outcome::Rejected(Rejection::SettingsDiffer));
    }

    proptest! {
        /// Any interleaving of shards' checkpoints, with retries, gaps and stale epochs mixed in, counts each offset
        /// once, and two replicas end byte-identical, also when one of them was restored from a snapshot half-way.
        #[test]
        fn apply_is_deterministic_idempotent_and_conserves(
            steps in proptest::collection::vec((0_u16..4, 1_u64..50, 0_u32..3, any::<bool>(), any::<bool>()), 1..60)
        ) {
            let mut left = Replica::new();
            let mut right = Replica::new();
            let mut expected: BTreeMap<u16, u64> = BTreeMap::new();
            for (number, (shard, length, minute, retried, stale)) in steps.iter().enumerate() {
                let from = *expected.get(shard).unwrap_or(&0);
                let mut commands = vec![checkpoint(*shard, from, from + length, 10 + minute, 0)];
                if *retried { commands.push(commands[0].clone()); }
                if *stale { commands.push(Checkpoint { epoch: Epoch(0), ..checkpoint(*shard, from + length, from + length + 1, 10, 0) }); }
                commands.push(checkpoint(*shard, from + length + 1, from + length + 2, 10, 0));
                for command in commands {
                    let command = Command::Checkpoint(command);
                    prop_assert_eq!(left.apply(&command), right.apply(&command));
                }
                expected.insert(*shard, from + length);
                if number == steps.len() / 2 {
                    let snapshot = encoded(&right.state);
                    right.state = GroupState::read_from(GroupId(0), &mut snapshot.as_slice(), COMMAND_LEVEL).unwrap();
                }
            }
            prop_assert_eq!(clicks(&left.state), expected.values().sum::<u64>());
            prop_assert_eq!(encoded(&left.state), encoded(&right.state));
            prop_assert_eq!(left.state.held(), right.state.held());
        }
    }
}
