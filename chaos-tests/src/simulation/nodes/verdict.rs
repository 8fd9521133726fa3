//! The last look, once everything is quiet: what the replicas hold and what was published, against the naive recount of the log.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_node::sink::window_rows::WindowRows;
use clicktally_proto::click_log::{LATE_CLICKS, WINDOW_COUNTS};
use clicktally_proto::shard_key::ShardId;
use clicktally_proto::window_count::{LateClick, WindowCount};
use clicktally_raft_store::state::GroupState;
use prost::Message;

use super::watch::breach;
use super::world::World;
use crate::checks::{Violation, ct1_conservation, ct10_read_once, ct13_watermark_honest};
use crate::cluster_client::OutcomesView;
use crate::oracle::Counts;
use crate::simulation::click_oracle::{ClickOracle, Instance};
use crate::simulation::sim_sink::{RowKey, SimSink, TransactionFate};

/// The first violation, if there is one. The oracle has to know every committed watermark.
pub(super) fn judge(world: &World, oracle: &mut ClickOracle, state: &GroupState) -> Result<(), Violation> {
    {
        let log = world.log.lock();
        log.shards().for_each(|shard| oracle.read_on(&log, shard));
    }
    let declared = declared_late(world);
    let expected = oracle.expect(&BTreeMap::new(), &BTreeMap::new());
    let outcomes = expected.outcomes.iter().filter_map(|(shard, expected)| {
        let found = state.shard(ShardId(*shard)).map(|entry| outcomes_of(&entry.outcomes)).unwrap_or_default();
        ct10_read_once::check_outcomes(*shard, &found, expected)
    });
    outcomes
        .chain(ct1_conservation::check(&expected.counts, &counts_of(state)))
        .chain(ct13_watermark_honest::check_late(&expected.late, &declared))
        .chain(published(world, state))
        .next()
        .map_or(Ok(()), Err)
}

fn outcomes_of(outcomes: &clicktally_proto::checkpoint::OutcomeCounts) -> OutcomesView {
    let &clicktally_proto::checkpoint::OutcomeCounts {
        read,
        counted,
        duplicate,
        late,
        invalid,
        quarantined,
        misrouted,
    } = outcomes;
    OutcomesView { read, counted, duplicate, late, invalid, quarantined, misrouted }
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

fn declared_late(world: &World) -> BTreeSet<Instance> {
    let log = world.log.lock();
    let partitions = 0..log.partitions(LATE_CLICKS);
    let records = partitions.flat_map(|partition| log.read_out(LATE_CLICKS, partition, 0, usize::MAX));
    let clicks = records.filter_map(|record| LateClick::decode(&*record.value).ok());
    let instance = |click: LateClick| Instance {
        shard: ShardId(u16::try_from(click.shard).unwrap_or(u16::MAX)),
        offset: u64::try_from(click.offset).unwrap_or(u64::MAX),
        click_id: click.click_id,
    };
    clicks.map(instance).collect()
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
    let rows = state.windows().iter().flat_map(|(minute, window)| window.rows_after(*minute, 0));
    let held: BTreeMap<RowKey, WindowCount> = rows.map(|row| ((row.minute, row.ad_id, row.campaign_id), row)).collect();
    let written = &sink.tables().rows;
    let keys: BTreeSet<&RowKey> = held.keys().chain(written.keys()).collect();
    let differs = keys.into_iter().filter(|key| held.get(key) != written.get(key));
    differs
        .map(|key| {
            let detail = format!("row {key:?}: {:?} written, {:?} held", written.get(key), held.get(key));
            breach("CT-4", detail)
        })
        .collect()
}
