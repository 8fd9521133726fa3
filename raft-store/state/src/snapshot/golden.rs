//! Golden snapshots: one file for each format that a released build may have left on a disk.
//!
//! A replica that cannot read its own snapshot stops, so every build must read every format from the oldest supported
//! one on. These files fail a build that changes the encoding of a part of the state without a new format.

use std::path::PathBuf;

use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::codec;
use clicktally_proto::command::{
    AssignShard, COMMAND_LEVEL, CampaignTerms, Command, GroupSettings, NodeRecord, Outcome, PlanMove,
};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, CostSum, Counts};
use clicktally_proto::counts::window_count::WindowState;
use clicktally_proto::event_time::{EventTimeRules, Minute};
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::log_id::LogId;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::{GroupId, Place, ShardId};
use clicktally_proto::money::Currency;

use super::encode::put_state;
use super::format::{FORMAT, FORMAT_MIN};
use super::{SnapshotError, decode, encode};
use crate::group_state::GroupState;

const GROUP: GroupId = GroupId(0);
const SHARD: ShardId = ShardId(0);
const FIRST_MINUTE: u32 = 28_000_000;

/// Each supported format with its file.
const GOLDEN: &[(u16, &[u8])] = &[
    (3, include_bytes!("../../tests/golden/format-3.snapshot")),
    (4, include_bytes!("../../tests/golden/format-4.snapshot")),
];
/// The level that the fixture's node announces. It is not that of this build, which grows with each new command.
const ANNOUNCED: u16 = 2;
/// A build of this level reads every format.
const EVERY_FORMAT: u16 = u16::MAX;

fn file(format: u16) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/format-{format}.snapshot"))
}

fn meta() -> Vec<u8> {
    codec::encode(&(4_u64, 77_u64)).unwrap()
}

/// Applies the commands that between them fill every field of the state.
struct Fixture {
    state: GroupState,
    index: u64,
    offset: u64,
}

impl Fixture {
    fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let outcome = self.state.apply(self.index, &codec::encode(command).unwrap(), COMMAND_LEVEL).unwrap();
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{command:?}: {outcome:?}");
        outcome
    }

    fn register(&mut self, node: u64) {
        let (http_address, peer_address) = (format!("10.0.0.{node}:8080"), format!("10.0.0.{node}:8081"));
        self.apply(&Command::RegisterNode(NodeRecord { node, http_address, peer_address, can_aggregate: true }));
        self.apply(&Command::LeaseWorker { node, incarnation: 7 * node });
    }

    fn set_campaign(&mut self, campaign_id: u64, currency: Currency) {
        self.apply(&Command::SetCampaign(CampaignTerms {
            campaign_id,
            advertiser_id: 9,
            name: format!("campaign {campaign_id}"),
            currency,
            cost_per_click_micros: 250_000,
            budget_micros: 1_000_000_000,
            tolerance_micros: 5_000_000,
            effective_from_ms: 1_000,
            expected_revision: None,
        }));
    }

    fn rename_campaign(&mut self, campaign_id: u64) {
        let mut terms = self.state.campaign(campaign_id).unwrap().terms.clone();
        terms.name = "renamed".to_owned();
        self.apply(&Command::SetCampaign(terms));
    }

    /// Moves the watermark of every other shard: the group's is the least of all.
    fn idle_checkpoints(&mut self, watermark_ms: u64) {
        for shard in ShardId::of_group(GROUP).filter(|shard| *shard != SHARD) {
            if self.state.shard(shard).is_some_and(|entry| entry.owner.is_none()) {
                self.apply(&Command::AssignShard(AssignShard { shard, owner: Some(2), expected_epoch: Epoch(0) }));
            }
            self.apply(&Command::Checkpoint(Checkpoint {
                shard,
                epoch: Epoch(1),
                from: 0,
                to: 0,
                watermark_ms,
                complete_to_ms: watermark_ms,
                outcomes: OutcomeCounts::default(),
                cells: CellBlock::pack(&mut []),
                seen: Vec::new(),
            }));
        }
    }

    /// One checkpoint with clicks of both campaigns, some with costs and one invalid.
    fn checkpoint(&mut self, minute: Minute, watermark_ms: u64) {
        let cell = |campaign_id: u64, ad_id: u64| CellDelta {
            key: CellKey { minute, campaign_id, ad_id },
            counts: Counts {
                clicks: ad_id,
                invalid_clicks: u64::from(ad_id == 2),
                costs: CostSum { sum_micros: 10 * i64::try_from(ad_id).unwrap(), count: 1 },
                ..Counts::default()
            },
        };
        let mut cells = vec![cell(3, 1), cell(3, 2), cell(5, 3)];
        let (from, to) = (self.offset, self.offset + 7);
        let mut ids: Vec<Place> = (from..to).map(|id| Place::of(ClickId(1 + id))).collect();
        let outcome = self.apply(&Command::Checkpoint(Checkpoint {
            shard: SHARD,
            epoch: Epoch(1),
            from,
            to,
            watermark_ms,
            complete_to_ms: watermark_ms + 5,
            outcomes: OutcomeCounts { read: 7, counted: 6, invalid: 1, ..OutcomeCounts::default() },
            cells: CellBlock::pack(&mut cells),
            seen: vec![SeenBlock::pack(minute, &mut ids)],
        }));
        assert_eq!(outcome, Outcome::Done);
        self.offset = to;
    }
}

/// The state whose every field has a value that `format` has.
fn fixture(format: u16) -> GroupState {
    let mut fixture = Fixture { state: GroupState::new(GROUP), index: 0, offset: 0 };
    fixture.apply(&Command::Configure(GroupSettings::new(1, EventTimeRules::default())));
    (1..=3).for_each(|node| fixture.register(node));
    fixture.apply(&Command::AnnounceLevel { node: 1, level: ANNOUNCED });
    fixture.apply(&Command::SetDraining { node: 3, is_draining: true });
    fixture.apply(&Command::AssignShard(AssignShard { shard: SHARD, owner: Some(1), expected_epoch: Epoch(0) }));
    fixture.apply(&Command::PlanMove(PlanMove { shard: SHARD, heir: Some(2), expected_epoch: Epoch(1) }));
    fixture.set_campaign(3, Currency::USD);
    fixture.set_campaign(5, Currency::USD);
    if format >= 4 {
        fixture.apply(&Command::TermsExported { through_revision: 1 });
        fixture.rename_campaign(5);
        fixture.apply(&Command::IdentifyLog { log: LogId(*b"0123456789abcdef") });
    }
    // The first minute becomes final, the second is corrected, and the third stays open.
    let minute = |number: u32| Minute(FIRST_MINUTE + number);
    let final_ms = minute(0).end_ms() + EventTimeRules::default().allowed_lateness_ms;
    fixture.checkpoint(minute(0), minute(0).start_ms());
    fixture.idle_checkpoints(minute(0).end_ms());
    fixture.checkpoint(minute(0), minute(1).end_ms());
    fixture.idle_checkpoints(final_ms);
    fixture.checkpoint(minute(1), final_ms);
    fixture.checkpoint(minute(1), final_ms);
    let published_revision = fixture.state.newest_revision() - 1;
    fixture.apply(&Command::SinkProgress { published_revision });
    fixture.checkpoint(minute(20), final_ms + 1);
    fixture.state
}

fn written(state: &GroupState, format: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_state(state, format, Some(&meta()), &mut bytes).unwrap();
    bytes
}

/// The format of the snapshot that a group writes by itself.
fn format_of(state: &GroupState) -> u16 {
    let mut bytes = Vec::new();
    encode(&meta(), state, &mut bytes).unwrap();
    u16::from_le_bytes([bytes[6], bytes[7]])
}

#[test]
fn the_fixture_has_something_in_every_field() {
    let state = fixture(FORMAT);
    assert!(state.settings().is_some() && !state.draining().is_empty() && state.nodes().len() == 3);
    assert!(state.shard(SHARD).is_some_and(|shard| shard.heir.is_some() && shard.last_range.is_some()));
    assert!(state.log_id().is_some() && state.exported_terms() > 0 && state.replaced_terms().len() == 1);
    assert!(state.campaigns().len() == 2 && !state.seen_blocks(SHARD).is_empty());
    assert!(state.command_level(1) == ANNOUNCED && state.command_level(2) != ANNOUNCED);
    assert!(state.watermark_ms() > 0 && state.published_revision() > 0);
    assert!(state.published_revision() < state.newest_revision(), "something is still to be published");
    let states: Vec<WindowState> = state.windows().values().map(|window| window.state()).collect();
    assert_eq!(states, [WindowState::Final, WindowState::Corrected, WindowState::Unspecified]);
    assert!(state.windows()[&Minute(FIRST_MINUTE)].cells.runs().len() > 1, "a window has several runs");
}

#[test]
fn every_supported_format_has_a_golden_file_that_this_build_reads() {
    let formats: Vec<u16> = GOLDEN.iter().map(|(format, _)| *format).collect();
    let supported: Vec<u16> = (FORMAT_MIN..=FORMAT).collect();
    assert_eq!(
        formats, supported,
        "write the golden file of a new format with `cargo test -p clicktally-state -- --ignored write_the_golden_file`, \
         list it in GOLDEN, and keep the files of the older ones"
    );
    for (format, bytes) in GOLDEN {
        let (found_meta, found) =
            decode(GROUP, &mut &**bytes, EVERY_FORMAT).unwrap_or_else(|error| panic!("format {format}: {error}"));
        assert_eq!(found_meta, meta(), "format {format}");
        found.check().unwrap();
        assert!(found == fixture(*format), "format {format} is read as another state");
    }
}

/// The bytes also depend on the version of zstd in `Cargo.lock`: after an upgrade of zstd alone, write the files again.
#[test]
fn every_format_is_written_as_in_its_golden_file() {
    for (format, golden) in GOLDEN {
        assert!(
            written(&fixture(*format), *format) == *golden,
            "this build writes other bytes under format {format}: add a format, or undo the change"
        );
    }
}

#[test]
fn a_format_is_written_only_once_every_node_reads_it() {
    let mut fixture = Fixture { state: GroupState::new(GROUP), index: 0, offset: 0 };
    assert_eq!(format_of(&fixture.state), 3, "without nodes");
    (1..=2).for_each(|node| fixture.register(node));
    fixture.apply(&Command::AnnounceLevel { node: 1, level: 3 });
    assert_eq!(format_of(&fixture.state), 3, "node 2 may be of the oldest build");
    fixture.apply(&Command::AnnounceLevel { node: 2, level: 3 });
    assert_eq!(format_of(&fixture.state), 4);
    fixture.apply(&Command::AnnounceLevel { node: 1, level: 2 });
    assert_eq!(format_of(&fixture.state), 3, "node 1 was set back, and no value needs format 4");
}

#[test]
fn a_build_refuses_a_format_above_its_level_and_does_not_call_it_damaged() {
    let bytes = written(&fixture(4), 4);
    let refused = decode(GROUP, &mut bytes.as_slice(), 2).unwrap_err();
    assert!(matches!(refused, SnapshotError::Format { found: 4, newest: 3 }), "{refused}");
    assert!(refused.to_string().contains("upgrade this node first"), "{refused}");
    assert!(decode(GROUP, &mut bytes.as_slice(), 3).is_ok());
}

#[test]
#[ignore = "writes into the source tree: run it once for each new format"]
#[allow(clippy::disallowed_methods)] // A file of the repository, not of a replica.
fn write_the_golden_file() {
    std::fs::write(file(FORMAT), written(&fixture(FORMAT), FORMAT)).unwrap();
}
