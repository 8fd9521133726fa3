//! The verdict, once everything is quiet: the replicas and the tables are compared with the naive recount of the log.

use std::collections::BTreeMap;

use clicktally_proto::identity::shard_key::ShardId;
use clicktally_raft_store::group::Group;
use clicktally_state::shards::ShardEntry;

use super::watch::breach;
use super::world::World;
use crate::checks::{Invariant, Violation, ct4_published_is_held};
use crate::simulation::click_oracle::{ClickOracle, declared_late};
use crate::simulation::recount::RecountComparison;
use crate::simulation::sim_sink::rows_held;

/// The metric of the parts that stand still until an operator acts.
const HALTED: &str = "clicktally_halted";

/// The first violation, if any, in one node's replicas of all groups. The oracle must know every committed watermark.
pub(super) fn judge(world: &World, oracle: &mut ClickOracle, groups: &[Group]) -> Result<(), Violation> {
    let log = world.log.lock();
    let mut ends = BTreeMap::new();
    for group in groups {
        // Where records were lost, committed counts remain, and nothing behind them counts.
        let cut = |(shard, entry): (&ShardId, &ShardEntry)| {
            log.truncated_from(*shard).map(|_| (*shard, entry.committed_offset))
        };
        group.read(|state| ends.extend(state.shards().iter().filter_map(cut)));
    }
    log.shards().for_each(|shard| oracle.read_on(&log, shard));
    let declared = declared_late(&log, &ends);
    drop(log);
    let written = world.database.lock().tables().rows.clone();
    let expected = oracle.expect(&BTreeMap::new(), &ends);
    let mut recount = RecountComparison::new(&expected);
    let mut held = BTreeMap::new();
    let partitioner = world.shape.partitioner();
    for group in groups {
        let of_group = written.values().filter(|row| partitioner.group(row.campaign_id) == group.id());
        group.read(|state| {
            recount.group(state, of_group);
            held.extend(rows_held(state));
        });
    }
    let found = recount.finish(&declared).into_iter();
    found
        .chain(ct4_published_is_held::check(&held, u64::MAX, &written))
        .chain(said_so(&ends))
        .next()
        .map_or(Ok(()), Err)
}

/// A shard whose log has lost counted records must halt and report it. The metric is that of all nodes together.
fn said_so(truncated: &BTreeMap<ShardId, u64>) -> Option<Violation> {
    let families = prometheus::default_registry().gather();
    let parts = families.iter().filter(|family| family.name() == HALTED).flat_map(|family| family.get_metric());
    let shards = parts.filter(|part| part.get_label().iter().any(|label| label.value() == "shard"));
    let halted: f64 = shards.map(|part| part.get_gauge().get_value()).sum();
    let detail = format!("the log of shards {:?} was cut, and no shard says that it stands still", truncated.keys());
    (!truncated.is_empty() && halted < 1.0).then(|| breach(Invariant::Liveness, detail))
}
