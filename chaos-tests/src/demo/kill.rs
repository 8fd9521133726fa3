//! The kill: of which node, and how long until all shards count without it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clicktally_proto::clock::{Clock, SystemClock};

use super::report::Killed;
use super::stage::Stage;
use crate::cluster_client::ClusterView;
use crate::eventually::eventually;

const RECOVERY_DEADLINE: Duration = Duration::from_secs(60);

/// Kills the leader of the first group (`kill -9`). Waits until every shard has another owner and has counted further
/// than at the moment of the kill.
pub(super) async fn kill_the_leader(stage: &mut Stage) -> anyhow::Result<Killed> {
    let before = eventually("there is a leader that owns shards", RECOVERY_DEADLINE, async || {
        let view = stage.cluster.client.cluster().await?;
        let leader = view.groups.first().and_then(|group| group.leader).context("the first group has no leader")?;
        anyhow::ensure!(view.owned_by(leader) > 0, "the leader {leader} owns no shard");
        Ok::<_, anyhow::Error>((leader, view))
    })
    .await?;
    let (victim, view) = before;
    let shards = view.owned_by(victim);
    let survivors = stage.cluster.nodes.iter().filter(|node| node.id != victim).map(|node| node.url.clone()).collect();
    let survivors = stage.cluster.client.through(survivors);

    let clock = SystemClock;
    stage.cluster.node(victim)?.kill().await;
    let killed_at = clock.monotonic();
    let committed = offsets(&view);
    eventually("all shards count on", RECOVERY_DEADLINE, async || {
        let now = survivors.cluster().await?;
        let stalled = stalled_shards(&now, victim, &committed);
        anyhow::ensure!(stalled.is_empty(), "shards {stalled:?} stand still");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let recovered_ms = u64::try_from((clock.monotonic() - killed_at).as_millis())?;
    Ok(Killed { node: victim, was_leader: true, shards, recovered_ms })
}

fn offsets(view: &ClusterView) -> BTreeMap<u16, u64> {
    view.shards().into_iter().map(|(shard, seen)| (shard, seen.committed_offset)).collect()
}

fn stalled_shards(now: &ClusterView, victim: u64, committed: &BTreeMap<u16, u64>) -> Vec<u16> {
    let shards = now.shards();
    let moves = |shard: &u16, before: u64| {
        shards
            .get(shard)
            .is_some_and(|seen| seen.owner.is_some_and(|owner| owner != victim) && seen.committed_offset > before)
    };
    committed.iter().filter(|(shard, before)| !moves(shard, **before)).map(|(shard, _)| *shard).collect()
}
