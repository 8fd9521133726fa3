use bytes::Bytes;
use clicktally_proto::clock::SystemClock;
use clicktally_proto::command::COMMAND_LEVEL;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{RaftLogReader, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use tempfile::TempDir;

use super::book::CACHE_BYTES_MAX;
use super::*;
use crate::disk_storage::DiskStorage;
use crate::group::state_machine::StateMachine;
use crate::snapshots::group_snapshots::GroupSnapshots;
use crate::storage::Storage;
use crate::type_config::{CommandBytes, TypeConfig};

const GROUP: GroupId = GroupId(3);

struct Fresh;

impl StoreBuilder<TypeConfig, GroupLog, StateMachine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, GroupLog, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let disk = DiskStorage::new(folder.path());
        let snapshots = GroupSnapshots::new(GROUP, disk.open_snapshots(GROUP).unwrap(), COMMAND_LEVEL);
        let log = GroupLog::open(disk.open_log().unwrap(), disk.open_promises(GROUP).unwrap(), GROUP).unwrap();
        Ok((folder, log, StateMachine::open(GROUP, snapshots, Arc::new(SystemClock), COMMAND_LEVEL).unwrap()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_the_state_machine_keep_openrafts_contract() {
    Suite::test_all(Fresh).await.unwrap();
}

fn disk(folder: &TempDir) -> DiskStorage {
    DiskStorage::new(folder.path())
}

fn open(folder: &TempDir, storage: &Arc<dyn LogStorage>, group: GroupId) -> GroupLog {
    GroupLog::open(storage.clone(), disk(folder).open_promises(group).unwrap(), group).unwrap()
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let command = CommandBytes(Bytes::from(vec![term as u8; bytes]));
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(command) }
}

fn indexes(entries: &[Entry]) -> Vec<(u64, u64)> {
    entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_truncations_and_purges_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    let mut neighbour = open(&folder, &storage, GroupId(4));
    assert!(log.is_pristine());
    log.blocking_append((0..10).map(|index| entry(1, index, 10))).await.unwrap();
    neighbour.blocking_append([entry(5, 0, 10)]).await.unwrap();
    log.save_vote(&Vote::new(7, 2)).await.unwrap();
    log.truncate_after(Some(log_id(1, 6))).await.unwrap();
    log.purge(log_id(1, 2)).await.unwrap();
    storage.close();

    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    assert!(!log.is_pristine());
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 2)));
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 2)), Some(log_id(1, 6))));
    assert_eq!(indexes(&log.try_get_log_entries(0..100).await.unwrap()), [(1, 3), (1, 4), (1, 5), (1, 6)]);

    // A new leader's entries replace the truncated entries, and only those.
    log.blocking_append([entry(2, 7, 10)]).await.unwrap();
    storage.close();
    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    assert_eq!(indexes(&log.try_get_log_entries(6..).await.unwrap()), [(1, 6), (2, 7)]);

    // After a snapshot from far ahead, everything is purged, and the log continues after a gap.
    log.purge(log_id(3, 50)).await.unwrap();
    log.blocking_append([entry(3, 51, 10)]).await.unwrap();
    storage.close();
    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), [(3, 51)]);
    let mut neighbour = open(&folder, &storage, GroupId(4));
    assert_eq!(indexes(&neighbour.try_get_log_entries(..).await.unwrap()), [(5, 0)]);
    storage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_is_bounded_by_bytes_from_cache_and_disk_alike() {
    let folder = tempfile::tempdir().unwrap();
    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    // Twenty entries of 1 MiB: the older half has left the cache.
    for index in 0..20 {
        log.blocking_append([entry(1, index, 1024 * 1024)]).await.unwrap();
    }
    assert!(log.shared.book.lock().cache_bytes <= CACHE_BYTES_MAX);
    for start in [0, 9, 12, 16] {
        let entries = log.limited_get_log_entries(start, 20).await.unwrap();
        assert_eq!(entries[0].log_id.index, start);
        let bytes: usize = entries.iter().map(entry_bytes).sum();
        assert!((1..=REPLICATED_BYTES_MAX).contains(&bytes), "{bytes} bytes from {start}");
    }
    assert_eq!(log.try_get_log_entries(0..20).await.unwrap().len(), 20);
    storage.close();
}

/// Finds the last occurrence of `marker` in the log's only file and changes its last byte.
#[allow(clippy::disallowed_methods)] // Bit rot happens below the Storage seam.
fn rot(folder: &TempDir, marker: &[u8]) {
    let file = folder.path().join("log").join("0000000000000001.raftlog");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(marker.len()).rposition(|window| window == marker).unwrap();
    bytes[at + marker.len() - 1] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_that_rotted_at_the_end_of_the_log_is_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    log.save_vote(&Vote::new(6, 1)).await.unwrap();
    log.blocking_append([entry(6, 0, 10)]).await.unwrap();
    log.save_vote(&Vote::new(7, 2)).await.unwrap();
    storage.close();
    rot(&folder, b"vote");

    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    assert!(log.damage().is_none(), "every entry is there");
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 2)));
    storage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_that_cannot_be_read_costs_no_entry_and_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    log.blocking_append((0..5).map(|index| entry(6, index, 10))).await.unwrap();
    log.save_vote(&Vote::new(7, 2)).await.unwrap();
    let whole = storage.value(GROUP, KEY_VOTE).unwrap().unwrap();
    let mut rotten = LogWrite::new(GROUP);
    rotten.put(KEY_VOTE, [&whole[..3], &[!whole[3]], &whole[4..]].concat());
    write_durably(storage.as_ref(), rotten).await.unwrap();

    let mut log = open(&folder, &storage, GROUP);
    assert!(log.damage().is_none(), "every entry can be read");
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 2)));
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 5);
    log.restore_vote().await.unwrap();
    assert_eq!(storage.value(GROUP, KEY_VOTE).unwrap(), Some(whole));
    storage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_and_a_purge_are_no_damage_and_a_healed_log_goes_on_behind_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    log.blocking_append((0..10).map(|index| entry(1, index, 10))).await.unwrap();
    log.truncate_after(Some(log_id(1, 6))).await.unwrap();
    assert!(open(&folder, &storage, GROUP).damage().is_none());
    log.purge(log_id(3, 20)).await.unwrap();
    assert!(open(&folder, &storage, GROUP).damage().is_none());
    log.save_vote(&Vote::new(9, 2)).await.unwrap();
    log.blocking_append((21..30).map(|index| entry(3, index, 10))).await.unwrap();
    storage.close();
    // Recovery cuts off the rest of the newest batch.
    rot(&folder, &[3; 10]);

    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    let damage = log.damage().unwrap();
    assert_eq!(damage.acknowledged, log_id(3, 29));
    log.restart_behind(log_id(8, 35)).await.unwrap();
    log.blocking_append([entry(9, 36, 10)]).await.unwrap();
    storage.close();
    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    assert!(log.damage().is_none());
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(9, 2)));
    assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), [(9, 36)]);
    storage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_recovery_refuses_is_set_aside_and_missed() {
    let folder = tempfile::tempdir().unwrap();
    let storage = disk(&folder).open_log().unwrap();
    let mut log = open(&folder, &storage, GROUP);
    // Incompressible entries fill the first file, so that the log has two.
    let mut noise = 1_u64;
    for index in 0..40 {
        let mut bytes = Vec::with_capacity(1024 * 1024);
        while bytes.len() < 1024 * 1024 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&noise.to_be_bytes());
        }
        let payload = EntryPayload::Normal(CommandBytes(Bytes::from(bytes)));
        log.blocking_append([Entry { log_id: log_id(1, index), payload }]).await.unwrap();
    }
    storage.close();
    rot(&folder, b"RAFT-LOG-FILE-HEADER");

    let storage = disk(&folder).open_log().unwrap();
    let log = open(&folder, &storage, GROUP);
    assert_eq!(log.damage().unwrap().acknowledged, log_id(1, 39));
    assert!(folder.path().join("log.damaged").join("0000000000000002.raftlog").exists());
    storage.close();
}
