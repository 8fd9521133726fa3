use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::codec;
use clicktally_proto::command::{
    AssignShard, COMMAND_LEVEL, CampaignTerms, Command, GroupSettings, NodeRecord, Outcome,
};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, Counts};
use clicktally_proto::event_time::{EventTimeRules, Minute};
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::{GroupId, Place, ShardId};
use clicktally_proto::money::Currency;

use super::format::FORMAT;
use super::*;
use crate::group_state::GroupState;

const GROUP: GroupId = GroupId(0);
/// More than one chunk of them in a window.
const ADS: u64 = 2 * CELLS_PER_CHUNK as u64 + 100;

/// Opaque to a snapshot.
fn meta() -> Vec<u8> {
    codec::encode(&(4_u64, 77_u64)).unwrap()
}

/// With something in each section.
fn state() -> GroupState {
    let mut state = GroupState::new(GROUP);
    let mut index = 0;
    let mut apply = |command: Command| {
        index += 1;
        state.apply(index, &codec::encode(&command).unwrap(), COMMAND_LEVEL).unwrap()
    };
    apply(Command::Configure(GroupSettings::new(1, EventTimeRules::default())));
    let (http_address, peer_address) = ("a".to_owned(), "b".to_owned());
    apply(Command::RegisterNode(NodeRecord { node: 1, http_address, peer_address, can_aggregate: true }));
    apply(Command::AssignShard(AssignShard { shard: ShardId(0), owner: Some(1), expected_epoch: Epoch(0) }));
    apply(Command::SetCampaign(CampaignTerms {
        campaign_id: 3,
        advertiser_id: 1,
        name: "spring".to_owned(),
        currency: Currency::USD,
        cost_per_click_micros: 10,
        budget_micros: 1_000_000,
        tolerance_micros: 0,
        effective_from_ms: 0,
        expected_revision: None,
    }));
    for minute in [Minute(10), Minute(11)] {
        let cell = |ad_id| CellDelta {
            key: CellKey { minute, campaign_id: 3, ad_id },
            counts: Counts { clicks: 1, ..Counts::default() },
        };
        let mut cells: Vec<CellDelta> = (1..=ADS).map(cell).collect();
        let from = u64::from(minute.0 - 10) * ADS;
        let mut ids: Vec<Place> = (1..=ADS).map(|id| Place::of(ClickId(from + id))).collect();
        let outcome = apply(Command::Checkpoint(Checkpoint {
            shard: ShardId(0),
            epoch: Epoch(1),
            from,
            to: from + ADS,
            watermark_ms: 0,
            complete_to_ms: 5,
            outcomes: OutcomeCounts { read: ADS, counted: ADS, ..OutcomeCounts::default() },
            cells: CellBlock::pack(&mut cells),
            seen: vec![SeenBlock::pack(minute, &mut ids)],
        }));
        assert_eq!(outcome, Outcome::Done);
    }
    state
}

fn whole() -> Vec<u8> {
    let mut bytes = Vec::new();
    let counted = encode(&meta(), &state(), &mut bytes).unwrap();
    assert_eq!(counted, bytes.len() as u64);
    bytes
}

/// Where each chunk begins, and its kind.
fn chunks(bytes: &[u8]) -> Vec<(usize, ChunkKind)> {
    let mut at = OPENING_BYTES;
    let mut chunks = Vec::new();
    while at < bytes.len() {
        chunks.push((at, ChunkKind::of(bytes[at]).unwrap()));
        let stored = u32::from_le_bytes(bytes[at + 5..at + 9].try_into().unwrap());
        at += CHUNK_HEAD_BYTES + stored as usize;
    }
    chunks
}

fn assert_refused(bytes: &[u8], what: &str) {
    assert!(
        matches!(decode(GROUP, &mut &*bytes, COMMAND_LEVEL), Err(SnapshotError::Damaged(_))),
        "decoded with {what}"
    );
    assert!(matches!(verify(&mut &*bytes, COMMAND_LEVEL), Err(SnapshotError::Damaged(_))), "verified with {what}");
}

#[test]
fn what_was_encoded_comes_back_and_is_the_same_bytes_again() {
    let bytes = whole();
    verify(&mut bytes.as_slice(), COMMAND_LEVEL).unwrap();
    assert_eq!(read_meta(&mut bytes.as_slice(), COMMAND_LEVEL).unwrap(), meta());
    let (found_meta, found) = decode(GROUP, &mut bytes.as_slice(), COMMAND_LEVEL).unwrap();
    assert_eq!((found_meta, &found), (meta(), &state()));
    assert_eq!(found.held().cells.cells, 2 * ADS);
    found.check().unwrap();
    let mut again = Vec::new();
    encode(&meta(), &found, &mut again).unwrap();
    assert!(again == bytes, "a restored state encodes to other bytes");
}

#[test]
fn a_bit_flipped_in_any_section_is_noticed() {
    let bytes = whole();
    let chunks = chunks(&bytes);
    assert!(ChunkKind::ALL.iter().all(|kind| chunks.iter().any(|(_, found)| found == kind)), "{chunks:?}");
    let starts = chunks.iter().map(|(at, _)| *at).chain([bytes.len()]);
    // The opening, the head of each chunk, and what is in it: its beginning, middle and end.
    let mut places: Vec<usize> = (0..OPENING_BYTES).collect();
    for ((start, _), end) in chunks.iter().zip(starts.skip(1)) {
        let stored = start + CHUNK_HEAD_BYTES;
        places.extend(*start..stored);
        places.extend([stored, (stored + end) / 2, end - 1]);
    }
    for at in places {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert_refused(&flipped, &format!("byte {at} flipped"));
    }
}

#[test]
fn a_snapshot_torn_anywhere_is_not_a_smaller_one() {
    let bytes = whole();
    for (start, kind) in chunks(&bytes) {
        for length in [start, start + 1, start + CHUNK_HEAD_BYTES + 1] {
            assert_refused(&bytes[..length], &format!("its end torn off at {length}, in {kind:?}"));
        }
    }
    assert_refused(&[], "nothing in it");
    let mut longer = bytes.clone();
    longer.push(0);
    assert_refused(&longer, "a byte behind its end");
}

#[test]
fn a_snapshot_of_another_build_is_not_damaged_and_says_which_build_it_wants() {
    for (format, remedy) in [(FORMAT_MIN - 1, "start this node with that build"), (FORMAT + 1, "upgrade this node")] {
        let mut bytes = whole();
        bytes[MAGIC.len()..MAGIC.len() + 2].copy_from_slice(&format.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..OPENING_BYTES - 4]).to_le_bytes();
        bytes[OPENING_BYTES - 4..OPENING_BYTES].copy_from_slice(&checksum);
        let error = verify(&mut bytes.as_slice(), COMMAND_LEVEL).unwrap_err();
        assert!(matches!(error, SnapshotError::Format { found, .. } if found == format), "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
}

#[test]
fn a_chunk_left_out_is_noticed_although_each_of_the_others_is_whole() {
    let bytes = whole();
    let chunks = chunks(&bytes);
    for (one, next) in chunks.iter().zip(&chunks[1..]) {
        let without = [&bytes[..one.0], &bytes[next.0..]].concat();
        assert_refused(&without, &format!("{:?} left out", one.1));
    }
}

#[test]
fn a_snapshot_of_another_group_is_refused() {
    let bytes = whole();
    assert!(matches!(decode(GroupId(1), &mut bytes.as_slice(), COMMAND_LEVEL), Err(SnapshotError::Damaged(_))));
}

#[test]
fn chunks_in_another_order_are_noticed_although_each_is_whole_and_none_is_missing() {
    let bytes = whole();
    let chunks = chunks(&bytes);
    let first = chunks.iter().position(|(_, kind)| *kind == ChunkKind::Cells).unwrap();
    let [(one, _), (other, ChunkKind::Cells), (end, _)] = chunks[first..first + 3] else { panic!("{chunks:?}") };
    let swapped = [&bytes[..one], &bytes[other..end], &bytes[one..other], &bytes[end..]].concat();
    assert_refused(&swapped, "two chunks of cells in each other's place");
}
