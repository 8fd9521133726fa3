//! Nodes that join a running cluster by the command line, as an operator adds them.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use clicktally_embedded::port;

use crate::cluster::{Cluster, binary_beside_this_program};
use crate::eventually::HANG_MAX;
use crate::node_process::NodeProcess;

impl Cluster {
    /// The configuration of node 1, with its own identity and addresses, and without data. The founders stay the same,
    /// because it is not one of them. Returns the node, not started, and its peer address.
    pub fn prepare_newcomer(&mut self, id: u64) -> anyhow::Result<(NodeProcess, SocketAddr)> {
        let founder = self.node(1)?.config().to_owned();
        let mut config: toml::Table = std::fs::read_to_string(&founder)?.parse()?;
        let free = || port::choose_free().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let (http, peer) = (free()?, free()?);
        let folder = founder.with_file_name(format!("node-{id}"));
        std::fs::create_dir(&folder)?;
        let node = config.get_mut("node").and_then(toml::Value::as_table_mut).context("no [node]")?;
        node.insert("id".into(), toml::Value::Integer(i64::try_from(id)?));
        node.insert("http_listen".into(), http.to_string().into());
        node.insert("peer_listen".into(), peer.to_string().into());
        node.insert("data_dir".into(), folder.display().to_string().into());
        let cluster = config.get_mut("cluster").and_then(toml::Value::as_table_mut).context("no [cluster]")?;
        cluster.insert("joins".into(), true.into());
        let path = folder.with_extension("toml");
        std::fs::write(&path, config.to_string())?;
        Ok((NodeProcess::new(id, format!("http://{http}"), binary_beside_this_program()?, path), peer))
    }

    /// Runs `clicktally cluster …` against this node. The command is ended if it takes longer than any wait here may.
    pub async fn command(&self, url: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new(binary_beside_this_program()?);
        let ends = command.arg("cluster").args(arguments).args(["--url", url]).kill_on_drop(true).output();
        let output = tokio::time::timeout(HANG_MAX, ends).await;
        let output = output.with_context(|| format!("{arguments:?} has not ended in {HANG_MAX:?}"))??;
        anyhow::ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
