//! A disk that runs full under a node: it stops at once and says why, the others count on, and with space it comes
//! back.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use clicktally_chaos_tests::cluster::ClusterOptions;
use clicktally_chaos_tests::eventually::HANG_MAX;
use clicktally_chaos_tests::node_process::NodeProcess;
use clicktally_chaos_tests::trial::Trial;
use clicktally_raft_store::FAIL_STOP_EXIT_CODE;

const VICTIM: u64 = 2;
/// Less than the Raft log reserves at once, so that its writes run into the end of the disk and no reserve hides it.
/// The load goes on until they do.
const SMALL: &str = "size=640k";
const AMPLE: &str = "size=64m";

/// A disk of its own under a folder, in memory; taken away when dropped.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// `Err` says why this machine does not let us.
    fn mount(folder: &Path) -> Result<SmallDisk, String> {
        mount(&["-t", "tmpfs", "-o", SMALL, "tmpfs"], folder)?;
        Ok(SmallDisk { folder: folder.to_owned() })
    }

    fn make_room(&self) {
        mount(&["-o", &format!("remount,{AMPLE}")], &self.folder).unwrap();
    }
}

fn mount(arguments: &[&str], folder: &Path) -> Result<(), String> {
    let output =
        Command::new("mount").args(arguments).arg(folder).output().map_err(|error| format!("mount: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: where the trial has failed, a node still has files open there.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Waits until the node ends by itself; its exit code and its last lines.
async fn ending(node: &mut NodeProcess) -> (Option<i32>, String) {
    let status = node.exited(HANG_MAX).await.unwrap().expect("the kernel tells how it ended");
    (status.code(), node.log_tail())
}

/// The library below may panic first; the last word must be one that an operator can act on.
fn assert_last_words(said: &str, words: &[&str]) {
    let (_, after_panics) = said.rsplit_once("panicked").unwrap_or(("", said));
    let last = after_panics.lines().rev().find(|line| !line.contains("librdkafka")).unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "'{word}' is not in its last words: {said}");
    }
}

#[tokio::test]
async fn a_node_whose_disk_is_full_stops_and_comes_back_with_space_and_the_count_is_exact() {
    let mut trial = Trial::prepare(ClusterOptions::default()).await.unwrap();
    let config = trial.cluster.node(VICTIM).unwrap().config().to_owned();
    let disk = match SmallDisk::mount(&config.with_extension("")) {
        Ok(disk) => disk,
        Err(reason) => {
            // Not through a macro that the test harness captures: a trial not held must be seen.
            writeln!(std::io::stderr(), "SKIPPED, no disk can be mounted here: {reason}").unwrap();
            return;
        }
    };
    trial.cluster.start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    let victim = trial.cluster.node(VICTIM).unwrap();
    let (code, said) = ending(victim).await;
    assert_eq!(code, Some(FAIL_STOP_EXIT_CODE), "{said}");
    assert_last_words(&said, &["disk", "free space", "start the node again"]);

    // A supervisor that starts it again at once changes nothing, and is told why.
    victim.start(&[]).await.unwrap();
    let (code, said) = ending(victim).await;
    assert_ne!(code, Some(0), "{said}");
    assert_last_words(&said, &["disk", "StorageFull"]);

    // Two of three take its shards over and count everything.
    let summary = load.end().await.unwrap();
    trial.settle(&summary).await.unwrap();

    disk.make_room();
    trial.cluster.node(VICTIM).unwrap().start(&[]).await.unwrap();
    trial.cluster.wait_ready().await.unwrap();
    // As the one that was away sees it.
    let url = trial.cluster.node(VICTIM).unwrap().url.clone();
    trial.cluster.client = trial.cluster.client.through(vec![url]);
    trial.settle_and_check(&summary).await.unwrap();
    trial.check_archive().await.unwrap();
}
