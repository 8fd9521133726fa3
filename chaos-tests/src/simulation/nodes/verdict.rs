//! The last look, once everything is quiet: what the replicas hold and what was published, against the naive recount of the log.

use std::collections::BTreeMap;

use clicktally_node::sink::window_rows::WindowRows;
use clicktally_proto::click_log::WINDOW_COUNTS;
use clicktally_proto::shard_key::ShardId;
use clicktally_raft_store::state::GroupState;

use super::watch::breach;
use super::world::World;
use crate::checks::{Violation, ct1_conservation, ct4_published_is_held, ct10_read_once, ct13_watermark_honest};
use crate::cluster_client::OutcomesView;
use crate::oracle::Counts;
use crate::simulation::click_oracle::{ClickOracle, declared_late};
use crate::simulation::sim_sink::{SimSink, TransactionFate, rows_held};

/// The first violation, if there is one. The oracle has to know every committed watermark.
pub(super) fn judge(world: &World, oracle: &mut ClickOracle, state: &GroupState) -> Result<(), Violation> {
    {
        let log = world.log.lock();
        log.shards().for_each(|shard| oracle.read_on(&log, shard));
    }
    let declared = declared_late(&world.log.lock());
    let expected = oracle.expect(&BTreeMap::new(), &BTreeMap::new());
    let outcomes = expected.outcomes.iter().filter_map(|(shard, expected)| {
        let found = state.shard(ShardId(*shard)).map(|entry| OutcomesView::from(&entry.outcomes)).unwrap_or_default();
        ct10_read_once::check_outcomes(*shard, &found, expected)
    });
    outcomes
        .chain(ct1_conservation::check(&expected.counts, &counts_of(state)))
        .chain(ct13_watermark_honest::check_late(&expected.late, &declared))
        .chain(published(world, state))
        .next()
        .map_or(Ok(()), Err)
}

fn counts_of(state: &GroupState) -> Counts {
    let mut counts = Counts::new();
    for (minute, window) in state.windows() {
        for (_, ad, cell) in window.cells() {
            *counts.entry((ad, u64::from(minute.0))).or_default() += cell.clicks();
        }
    }
    counts
}

/// CT-4: read by the writer, what was published is what the replicas hold.
fn published(world: &World, state: &GroupState) -> Vec<Violation> {
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
    ct4_published_is_held::check(&rows_held(state), u64::MAX, &sink.tables().rows)
}
