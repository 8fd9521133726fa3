//! Nodes join and leave under load, by the command line, and the count stays exact.

use std::net::SocketAddr;
use std::time::Duration;

use clicktally_chaos_tests::cluster::binary_beside_this_program;
use clicktally_chaos_tests::eventually::eventually;
use clicktally_chaos_tests::node_process::NodeProcess;
use clicktally_chaos_tests::trial::Trial;

const MOVES_WITHIN: Duration = Duration::from_secs(60);

async fn cluster_command(trial: &Trial, arguments: &[&str]) {
    let url = &trial.cluster.client.urls[1];
    let mut command = tokio::process::Command::new(binary_beside_this_program().unwrap());
    let output = command.arg("cluster").args(arguments).args(["--url", url]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The configuration of node 1, with an identity and addresses of its own. The founders stay as they are: it is not one of them.
fn prepare_newcomer(trial: &mut Trial, id: u64) -> (NodeProcess, SocketAddr) {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (http, peer) = (free(), free());
    let founder = trial.cluster.node(1).unwrap().config().to_owned();
    let mut config: toml::Table = std::fs::read_to_string(&founder).unwrap().parse().unwrap();
    let folder = founder.with_file_name(format!("node-{id}"));
    std::fs::create_dir(&folder).unwrap();
    let node = config["node"].as_table_mut().unwrap();
    node.insert("id".into(), toml::Value::Integer(i64::try_from(id).unwrap()));
    node.insert("http_listen".into(), http.to_string().into());
    node.insert("peer_listen".into(), peer.to_string().into());
    node.insert("data_dir".into(), folder.display().to_string().into());
    let path = folder.with_extension("toml");
    std::fs::write(&path, config.to_string()).unwrap();
    let binary = binary_beside_this_program().unwrap();
    (NodeProcess::new(id, format!("http://{http}"), binary, path), peer)
}

async fn until_shares(trial: &Trial, node: u64, is_owner: bool) {
    eventually("shards have moved", MOVES_WITHIN, async || {
        let owned = trial.cluster.client.cluster().await?.owned_by(node);
        anyhow::ensure!((owned > 0) == is_owner, "node {node} owns {owned}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_node_joins_and_another_leaves_under_load_and_the_count_is_exact() {
    let mut trial = Trial::start().await.unwrap();
    let load = trial.start_load(&["--give-up-s=180"]).unwrap();
    let (mut newcomer, peer) = prepare_newcomer(&mut trial, 4);
    newcomer.start(&[]).await.unwrap();
    trial.cluster.nodes.push(newcomer);
    cluster_command(&trial, &["add", "--node", "4", "--peer", &peer.to_string()]).await;
    until_shares(&trial, 4, true).await;
    trial.cluster.node(3).unwrap().kill().await;
    cluster_command(&trial, &["remove", "--node", "3"]).await;
    until_shares(&trial, 3, false).await;
    let summary = load.await.unwrap().unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}
