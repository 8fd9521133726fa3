//! The contract of [`Storage`], tested on the production disk and on the simulated one: the simulation is worth only as
//! much as the two agree.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::io::{Read, Write};
use std::sync::Arc;

use clicktally_chaos_tests::simulation::nodes::{SimDisk, SimEnd};
use clicktally_chaos_tests::simulation::random::Seed;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_raft_store::disk_storage::DiskStorage;
use clicktally_raft_store::storage::{
    Completion, LogEntry, LogOperation, LogStorage, LogWrite, SnapshotName, SnapshotStorage, Storage,
};
use tokio::sync::oneshot;

const GROUP: GroupId = GroupId(2);
const OTHER: GroupId = GroupId(3);

/// Opens the same storage again, as a start of the process does.
trait Reopen {
    fn reopen(&self) -> Arc<dyn Storage>;
}

impl Reopen for tempfile::TempDir {
    fn reopen(&self) -> Arc<dyn Storage> {
        Arc::new(DiskStorage::new(self.path()))
    }
}

impl Reopen for SimDisk {
    fn reopen(&self) -> Arc<dyn Storage> {
        self.attach()
    }
}

/// Every implementation.
fn all() -> Vec<Box<dyn Reopen>> {
    vec![Box::new(tempfile::tempdir().unwrap()), Box::new(SimDisk::new(1, Seed(1).stream("disk")))]
}

fn entries(indexes: std::ops::Range<u64>, text: &str) -> LogOperation {
    LogOperation::Entries(indexes.map(|index| LogEntry { index, frame: format!("{text}{index}").into() }).collect())
}

fn put(key: &'static str, value: &str) -> LogOperation {
    LogOperation::Put { key, value: value.into() }
}

async fn write(log: &dyn LogStorage, group: GroupId, operations: Vec<LogOperation>) {
    let (done, finished) = oneshot::channel();
    let completion: Completion = Box::new(move |written| {
        let _ = done.send(written.is_ok());
    });
    log.submit(LogWrite { group, operations }, true, Some(completion)).await.unwrap();
    assert!(finished.await.unwrap());
}

fn read(log: &dyn LogStorage, from: u64, to: u64) -> Vec<String> {
    log.read(GROUP, from, to, None).unwrap().into_iter().map(|frame| String::from_utf8(frame).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_replace_the_tail_from_their_first_index_on() {
    for storage in all() {
        let log = storage.reopen().open_log().unwrap();
        assert_eq!((log.first_index(GROUP).unwrap(), log.last_index(GROUP).unwrap()), (None, None));
        write(log.as_ref(), GROUP, vec![entries(5..10, "a")]).await;
        write(log.as_ref(), GROUP, vec![entries(7..9, "b")]).await;
        assert_eq!((log.first_index(GROUP).unwrap(), log.last_index(GROUP).unwrap()), (Some(5), Some(8)));
        assert_eq!(read(log.as_ref(), 5, 9), ["a5", "a6", "b7", "b8"]);
        assert!(log.read(GROUP, 8, 10, None).is_err(), "an entry that is missing is an error");
        assert_eq!(log.read(GROUP, 5, 9, Some(1)).unwrap().len(), 1, "one at least, whatever the limit");
        assert_eq!(log.last_index(OTHER).unwrap(), None, "groups do not see each other");
        log.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_one_and_its_operations_are_carried_out_in_order() {
    for storage in all() {
        let log = storage.reopen().open_log().unwrap();
        write(log.as_ref(), GROUP, vec![entries(1..4, "a"), put("tail", "old"), put("vote", "1")]).await;
        let operations = vec![
            LogOperation::Delete { key: "tail" },
            LogOperation::ForgetBelow { index: 4 },
            entries(9..11, "b"),
            put("vote", "2"),
        ];
        write(log.as_ref(), GROUP, operations).await;
        assert_eq!(log.value(GROUP, "tail").unwrap(), None);
        assert_eq!(log.value(GROUP, "vote").unwrap(), Some(b"2".to_vec()));
        assert_eq!(log.value(OTHER, "vote").unwrap(), None);
        assert_eq!((log.first_index(GROUP).unwrap(), log.last_index(GROUP).unwrap()), (Some(9), Some(10)));
        log.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_completed_is_there_after_a_restart() {
    for storage in all() {
        let opened = storage.reopen();
        assert_eq!(opened.identity().unwrap(), None);
        opened.save_identity(b"me").unwrap();
        let log = opened.open_log().unwrap();
        write(log.as_ref(), GROUP, vec![entries(1..6, "a"), put("vote", "7")]).await;
        write(log.as_ref(), OTHER, vec![entries(3..4, "c")]).await;
        write(log.as_ref(), GROUP, vec![LogOperation::ForgetBelow { index: 3 }]).await;
        log.close();
        log.close();
        let submitted = log.submit(LogWrite { group: GROUP, operations: vec![entries(6..7, "a")] }, true, None).await;
        assert!(submitted.is_err(), "a closed log takes nothing");

        let opened = storage.reopen();
        assert_eq!(opened.identity().unwrap(), Some(b"me".to_vec()));
        let log = opened.open_log().unwrap();
        assert_eq!(read(log.as_ref(), 3, 6), ["a3", "a4", "a5"]);
        assert_eq!(log.value(GROUP, "vote").unwrap(), Some(b"7".to_vec()));
        assert_eq!(log.last_index(OTHER).unwrap(), Some(3));
        log.close();
    }
}

fn text(snapshots: &dyn SnapshotStorage, name: SnapshotName) -> String {
    let mut text = String::new();
    snapshots.open(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_whole_under_its_name_or_nobody_sees_it() {
    let (older, newer) = (SnapshotName { index: 9, term: 2 }, SnapshotName { index: 10, term: 1 });
    for storage in all() {
        let snapshots = storage.reopen().open_snapshots(GROUP).unwrap();
        for (name, text) in [(older, "first"), (newer, "newer"), (older, "older")] {
            let mut writer = snapshots.create().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            let mut reread = String::new();
            writer.reread().unwrap().read_to_string(&mut reread).unwrap();
            assert_eq!(reread, text);
            writer.commit(name).unwrap();
        }
        let mut unfinished = snapshots.create().unwrap();
        unfinished.write_all(b"half").unwrap();
        drop(unfinished);
        let mut names = snapshots.names().unwrap();
        names.sort();
        assert_eq!(names, [older, newer]);
        assert_eq!(text(snapshots.as_ref(), older), "older", "one takes the place of another of its name");

        let mut opened = snapshots.open(older).unwrap();
        snapshots.remove(older).unwrap();
        snapshots.set_aside(newer).unwrap();
        assert!(snapshots.names().unwrap().is_empty());
        let mut read = String::new();
        opened.read_to_string(&mut read).unwrap();
        assert_eq!(read, "older", "an open reader reads its snapshot to the end");
        assert!(snapshots.open(older).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_power_loss_takes_what_was_not_synced_and_nothing_else() {
    let mut survivors = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let disk = SimDisk::new(1, Seed(seed).stream("disk"));
        let log = disk.attach().open_log().unwrap();
        write(log.as_ref(), GROUP, vec![entries(1..4, "a")]).await;
        for index in 4..8 {
            let operations = vec![entries(index..index + 1, "a")];
            log.submit(LogWrite { group: GROUP, operations }, true, None).await.unwrap();
        }
        disk.detach(SimEnd::PowerLost);
        assert!(log.last_index(GROUP).is_err(), "a former life has no disk any more");
        let last = disk.attach().open_log().unwrap().last_index(GROUP).unwrap().unwrap();
        assert!((3..8).contains(&last));
        survivors.insert(last);
    }
    assert_eq!(survivors.len(), 5, "of what was in doubt, any prefix survives: {survivors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_fsync_nothing_that_is_written_later_survives() {
    let disk = SimDisk::new(1, Seed(5).stream("disk"));
    let log = disk.attach().open_log().unwrap();
    write(log.as_ref(), GROUP, vec![entries(1..4, "a")]).await;
    disk.fail_next_sync();
    let (done, finished) = oneshot::channel();
    let completion: Completion = Box::new(move |written| {
        let _ = done.send(written.is_err());
    });
    let operations = vec![entries(4..5, "a")];
    log.submit(LogWrite { group: GROUP, operations }, true, Some(completion)).await.unwrap();
    assert!(finished.await.unwrap());
    // The write succeeds, and is not on disk.
    write(log.as_ref(), GROUP, vec![entries(5..6, "a")]).await;
    disk.detach(SimEnd::Killed);
    assert_eq!(disk.attach().open_log().unwrap().last_index(GROUP).unwrap(), Some(3));
}
