//! The log of a node that takes large checkpoints for a long time stays within the limit that its rules set.

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::command::{Command, Outcome};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::{Place, ShardId};
use clicktally_raft_store::disk_storage::{DiskStorage, LOG_SLACK_BYTES};
use clicktally_raft_store::group::ProposeError;
use clicktally_raft_store::store_config::SnapshotRules;

use crate::one_node::{GROUP, open_with, store_folder};

const EVERY_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes appended between two checks of the rules, and while a snapshot is built.
const BETWEEN_LOOKS_BYTES: u64 = 64 * 1024 * 1024;
/// Two intervals between snapshots.
const LOG_BYTES_MAX: u64 = 2 * EVERY_BYTES + BETWEEN_LOOKS_BYTES + LOG_SLACK_BYTES;

/// A large, incompressible checkpoint and its size in bytes. The shard has no owner, so the checkpoint changes
/// nothing; the log stores it anyway.
fn large() -> (Command, u64) {
    let mixed =
        |n: u64| ClickId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9));
    let mut places: Vec<Place> = (1..100_000).map(|n| Place::of(mixed(n))).collect();
    places.sort_unstable();
    places.dedup();
    let block = SeenBlock::pack(Minute(1), &mut places);
    let bytes = block.packed_bytes() as u64;
    let checkpoint = Checkpoint {
        shard: ShardId(0),
        epoch: Epoch(1),
        from: 0,
        to: 0,
        watermark_ms: 0,
        complete_to_ms: 0,
        outcomes: OutcomeCounts::default(),
        cells: CellBlock::default(),
        seen: vec![block],
    };
    (Command::Checkpoint(checkpoint), bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_large_entries_is_purged_by_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(DiskStorage::new(store_folder(folder.path())));
    let check_interval = Duration::from_millis(20);
    let store =
        open_with(storage, SnapshotRules { every_entries: 1_000_000, every_bytes: EVERY_BYTES, check_interval }).await;
    let group = store.group(GROUP).unwrap();
    let (command, bytes) = large();
    let mut appended = 0;
    while appended < 3 * LOG_BYTES_MAX {
        match group.propose(&command).await {
            Ok(Outcome::Fenced { .. }) => appended += bytes,
            Err(ProposeError::Retry(_)) => {}
            other => panic!("{other:?}"),
        }
        let used = group.status().log_bytes;
        assert!(
            used <= LOG_BYTES_MAX,
            "the log has {used} bytes after {appended} appended bytes; the limit is {LOG_BYTES_MAX}"
        );
    }
    store.shutdown().await;
}
