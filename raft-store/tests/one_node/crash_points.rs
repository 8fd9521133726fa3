//! A process that dies between any two steps of a write loses no acknowledged proposal. Each test runs a one-node
//! cluster in a child process, makes it abort at a planted point, and opens the folder that it left behind.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use clicktally_raft_store::disk_storage::DiskStorage;

use crate::one_node::{PROPOSALS, assert_only_acknowledged, propose_all, run_child};

/// The signal that `std::process::abort` raises.
const SIGABRT: i32 = 6;
const FAIL_AT: &str = "CLICKTALLY_FAIL_AT";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the tests below"]
async fn child() {
    propose_all(|folder| Arc::new(DiskStorage::new(folder))).await;
}

async fn assert_nothing_acknowledged_is_lost(point: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (status, acknowledged) = run_child("crash_points::child", folder.path(), &[(FAIL_AT, point)]);
    assert_eq!(status.signal(), Some(SIGABRT), "the child should have died at {point}");
    assert!((1..PROPOSALS).contains(&acknowledged), "{acknowledged} acknowledged before {point}");
    assert_only_acknowledged(folder.path(), acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_after_the_fsync_loses_nothing() {
    assert_nothing_acknowledged_is_lost("raft.after_append:25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_before_apply_loses_nothing() {
    assert_nothing_acknowledged_is_lost("raft.before_apply:25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_after_apply_loses_nothing() {
    assert_nothing_acknowledged_is_lost("raft.after_apply:25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_before_a_snapshot_gets_its_name_loses_nothing() {
    assert_nothing_acknowledged_is_lost("snapshot.after_write:3").await;
}
