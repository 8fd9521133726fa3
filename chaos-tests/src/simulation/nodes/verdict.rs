//! The last look, once everything is quiet: what the replicas hold and what was published, against the naive recount of the log.

use std::collections::BTreeMap;

use clicktally_node::sink::window_rows::WindowRows;
use clicktally_proto::click_log::WINDOW_COUNTS;
use clicktally_proto::shard_key::ShardId;
use clicktally_proto::window_count::WindowCount;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::state::GroupState;

use super::watch::breach;
use super::world::World;
use crate::checks::ct4_published_is_held::RowKey;
use crate::checks::{Violation, ct1_conservation, ct4_published_is_held, ct10_read_once, ct13_watermark_honest};
use crate::cluster_client::OutcomesView;
use crate::oracle::Counts;
use crate::simulation::click_oracle::{ClickOracle, declared_late};
use crate::simulation::sim_sink::{SimSink, TransactionFate, rows_held};

/// What shows that a shard stands still until somebody looks at it.
const SHARDS_HALTED: &str = "clicktally_shards_halted";

/// The first violation, if there is one, of what one node holds of all groups. The oracle has to know every committed watermark.
pub(super) fn judge(world: &World, oracle: &mut ClickOracle, groups: &[Group]) -> Result<(), Violation> {
    let (mut counts, mut rows) = (Counts::new(), BTreeMap::new());
    let (mut outcomes, mut ends) = (BTreeMap::new(), BTreeMap::new());
    let log = world.log.lock();
    for group in groups {
        group.read(|state| {
            add_counts(state, &mut counts);
            rows.extend(rows_held(state));
            for (&shard, entry) in state.shards() {
                outcomes.insert(shard.0, OutcomesView::from(&entry.outcomes));
                // Where records were lost, what was committed stands, and nothing behind it counts.
                if log.truncated_from(shard).is_some() {
                    ends.insert(shard, entry.committed_offset);
                }
            }
        });
    }
    log.shards().for_each(|shard| oracle.read_on(&log, shard));
    let declared = declared_late(&log, &ends);
    drop(log);
    let expected = oracle.expect(&BTreeMap::new(), &ends);
    let outcomes = expected.outcomes.iter().filter_map(|(shard, expected)| {
        let found = outcomes.get(shard).copied().unwrap_or_default();
        ct10_read_once::check_outcomes(*shard, &found, expected)
    });
    outcomes
        .chain(ct1_conservation::check(&expected.counts, &counts))
        .chain(ct13_watermark_honest::check_late(&expected.late, &declared))
        .chain(published(world, &rows))
        .chain(said_so(&ends))
        .next()
        .map_or(Ok(()), Err)
}

fn add_counts(state: &GroupState, counts: &mut Counts) {
    for (minute, window) in state.windows() {
        for (_, ad, cell) in window.cells() {
            *counts.entry((ad, u64::from(minute.0))).or_default() += cell.clicks();
        }
    }
}

/// A shard whose log has lost what it counted may not go on, nor stand still in silence. The metric is that of all nodes.
fn said_so(truncated: &BTreeMap<ShardId, u64>) -> Option<Violation> {
    let families = prometheus::default_registry().gather();
    let halted = families.iter().filter(|family| family.name() == SHARDS_HALTED);
    let halted: f64 = halted.flat_map(|family| family.get_metric()).map(|metric| metric.get_gauge().get_value()).sum();
    let detail = format!("the log of shards {:?} was cut, and no shard says that it stands still", truncated.keys());
    (!truncated.is_empty() && halted < 1.0).then(|| breach("CT-14", detail))
}

/// CT-4: read by the writer, what was published is what the replicas hold.
fn published(world: &World, held: &BTreeMap<RowKey, WindowCount>) -> Vec<Violation> {
    let mut sink = SimSink::default();
    let log = world.log.lock();
    for partition in 0..log.partitions(WINDOW_COUNTS) {
        let mut rows = WindowRows::default();
        for (offset, record) in (0..).zip(log.read_out(WINDOW_COUNTS, partition, 0, usize::MAX)) {
            rows.take(WINDOW_COUNTS, partition, offset, &record.value);
        }
        if sink.write(&rows, TransactionFate::Committed).is_err() {
            return vec![breach("CT-4", "the sink refuses the first writer there is".to_owned())];
        }
    }
    ct4_published_is_held::check(held, u64::MAX, &sink.tables().rows)
}
