//! `clicktally up` as a script uses it: wait for its lines, use the addresses, Ctrl-C, and the same again on the same
//! folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use clicktally_chaos_tests::cluster::binary_beside_this_program;
use clicktally_chaos_tests::cluster_client::ClusterClient;
use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_embedded::child;
use clicktally_proto::clock::{Clock, SystemClock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

const NAMES: [&str; 3] = ["CLICKTALLY_URL", "CLICKTALLY_KAFKA", "DATABASE_URL"];

/// Starts it and waits until it has printed every line that scripts wait for.
async fn start(data: &Path, log_path: &Path) -> (Child, BTreeMap<String, String>) {
    let log = std::fs::File::options().create(true).append(true).open(log_path).unwrap();
    let mut up = tokio::process::Command::new(binary_beside_this_program().unwrap())
        .args(["up", "--print-env", "--http-port=0", "--data-dir"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let mut environment = BTreeMap::new();
    let printed = async {
        while environment.len() < NAMES.len() {
            let line = lines.next_line().await?.context("it ended before it was ready")?;
            let (name, value) = line.split_once('=').with_context(|| format!("not NAME=VALUE: {line}"))?;
            environment.insert(name.to_owned(), value.to_owned());
        }
        anyhow::Ok(())
    };
    let printed = tokio::time::timeout(HANG_MAX, printed).await.expect("it is not up in time");
    printed.with_context(|| child::tail(log_path)).unwrap();
    assert!(NAMES.iter().all(|name| environment.contains_key(*name)), "{environment:?}");
    (up, environment)
}

async fn stop(mut up: Child) {
    let pid = Pid::from_raw(i32::try_from(up.id().unwrap()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let status = tokio::time::timeout(HANG_MAX, up.wait()).await.expect("it does not stop").unwrap();
    assert!(status.success(), "{status}");
}

/// Sends it until it is acknowledged: a request may time out on a busy machine, and a repeat does not count.
async fn send_click(client: &ClusterClient, event: &str) {
    let click = || {
        let now_s = SystemClock.now_ms() / 1_000;
        serde_json::json!({ "event_id": event, "timestamp": now_s, "campaign_id": 1, "ad_id": 7 })
    };
    eventually("the click is acknowledged", HANG_MAX, async || client.post("/v1/clicks", &click()).await)
        .await
        .unwrap();
}

async fn until_counted(client: &ClusterClient, clicks: u64) {
    eventually("the clicks are counted", HANG_MAX, async || {
        let counted: u64 = client.cluster().await?.shards().values().map(|shard| shard.outcomes.counted).sum();
        anyhow::ensure!(counted == clicks, "{counted} of {clicks}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
}

/// Each shard's lag is known to its owner alone; the command asks every node.
async fn until_status_knows_every_lag(url: &str) {
    eventually("the status shows every shard's lag", HANG_MAX, async || {
        let mut status = tokio::process::Command::new(binary_beside_this_program()?);
        let output = status.args(["cluster", "status", "--output=json", "--url", url]).output().await?;
        let cluster: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let shards = cluster["groups"][0]["shards"].as_array().context("no shards")?;
        let known = shards.iter().filter(|shard| shard["lag_records"] == 0).count();
        anyhow::ensure!(known == 16, "of {} shards, {known} have lag 0", shards.len());
        anyhow::Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_local_system_prints_its_addresses_takes_a_click_and_goes_on_where_it_stopped() {
    let folder = tempfile::Builder::new().prefix("clicktally-up-").tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("up.log"));
    let (up, first) = start(&data, &log).await;
    let client = ClusterClient::new(vec![first["CLICKTALLY_URL"].clone()]).unwrap();
    send_click(&client, "one").await;
    until_counted(&client, 1).await;
    until_status_knows_every_lag(&first["CLICKTALLY_URL"]).await;
    stop(up).await;

    let (up, second) = start(&data, &log).await;
    assert_eq!(second, first, "members and clients know each other by address");
    eventually("the first node is ready", HANG_MAX, async || {
        anyhow::ensure!(client.is_ready(&second["CLICKTALLY_URL"]).await, "it is not");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    until_counted(&client, 1).await;
    send_click(&client, "one").await;
    send_click(&client, "two").await;
    until_counted(&client, 2).await;
    stop(up).await;
}
