//! A measurement with five million cells: what a snapshot costs, and how long an apply waits for one. This test
//! asserts no time. The tests beside the code assert the structure that makes the times short. Run it with `cargo
//! test --workspace --lib -- --ignored --nocapture five_million_cells`.

#![allow(clippy::print_stdout, clippy::disallowed_methods)] // Prints the measurements; reads its own memory from /proc.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::codec;
use clicktally_proto::command::{AssignShard, COMMAND_LEVEL, Command, GroupSettings, NodeRecord, Outcome};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, Counts};
use clicktally_proto::event_time::{EventTimeRules, Minute};
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::{EntryPayload, LogId};

use crate::disk_storage::DiskStorage;
use crate::group::replica::Replica;
use crate::snapshots::group_snapshots::GroupSnapshots;
use crate::storage::Storage;
use crate::type_config::{CommandBytes, Entry, SnapshotMeta};
use clicktally_state::group_state::GroupState;

const GROUP: GroupId = GroupId(0);
const MINUTES: u64 = 26;
const CELLS: u64 = 5_000_000;
const CELLS_PER_DELTA: u64 = 37_000;
/// Sixteen shards that each commit one checkpoint a second.
const BETWEEN_DELTAS: Duration = Duration::from_millis(62);

struct Applier {
    replica: Arc<Replica>,
    clock: Arc<SystemClock>,
    index: u64,
    offset: u64,
    longest: Duration,
}

impl Applier {
    fn apply(&mut self, command: &Command) -> Duration {
        self.index += 1;
        let frame = CommandBytes(Bytes::from(codec::encode(command).unwrap()));
        let log_id = LogId::new(LeaderId { term: 1, node_id: 1 }, self.index);
        let entry = Entry { log_id, payload: EntryPayload::Normal(frame) };
        let begun = self.clock.monotonic();
        let outcomes = self.replica.apply(vec![entry]).unwrap();
        let took = self.clock.monotonic() - begun;
        assert!(matches!(outcomes[0], Outcome::Done | Outcome::Assigned { .. }), "{outcomes:?}");
        self.longest = self.longest.max(took);
        took
    }

    fn delta(&mut self, keys: impl Iterator<Item = (u64, u64)>) -> Command {
        let cell = |(minute, ad_id): (u64, u64)| CellDelta {
            key: CellKey { minute: Minute(10 + minute as u32), campaign_id: ad_id / 100 + 1, ad_id },
            counts: Counts { clicks: 1 + ad_id % 7, ..Counts::default() },
        };
        let mut cells: Vec<CellDelta> = keys.map(cell).collect();
        let clicks = cells.len() as u64;
        let from = self.offset;
        self.offset += clicks;
        Command::Checkpoint(Checkpoint {
            shard: ShardId(0),
            epoch: Epoch(1),
            from,
            to: self.offset,
            watermark_ms: 0,
            complete_to_ms: 0,
            outcomes: OutcomeCounts { read: clicks, counted: clicks, ..OutcomeCounts::default() },
            cells: CellBlock::pack(&mut cells),
            seen: Vec::new(),
        })
    }

    /// Applies deltas until `work` is done. Returns the longest apply and the number of applies.
    fn apply_beside(&mut self, uniform: bool, work: impl FnOnce() + Send + 'static) -> (Duration, u32) {
        let ads = CELLS / MINUTES;
        let work = std::thread::spawn(work);
        let (mut longest, mut count) = (Duration::ZERO, 0_u32);
        while !work.is_finished() {
            let start = u64::from(count) * 7_919;
            let key = |n: u64| {
                let ad_id = (start + n * 5) % ads;
                if uniform { (n % MINUTES, ad_id) } else { (MINUTES - 1 - n % 2, ad_id) }
            };
            let delta = self.delta((0..CELLS_PER_DELTA).map(key));
            longest = longest.max(self.apply(&delta));
            count += 1;
            std::thread::sleep(BETWEEN_DELTAS);
        }
        work.join().unwrap();
        (longest, count)
    }
}

fn peak_mib() -> u64 {
    status_mib("VmHWM:")
}

fn status_mib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// An applier whose state holds `cells` cells, spread evenly over all minutes.
fn filled(clock: &Arc<SystemClock>, cells: u64) -> Applier {
    let replica = Replica::new(SnapshotMeta::default(), GroupState::new(GROUP), clock.clone(), COMMAND_LEVEL);
    let mut applier =
        Applier { replica: Arc::new(replica), clock: clock.clone(), index: 0, offset: 0, longest: Duration::ZERO };
    applier.apply(&Command::Configure(GroupSettings::new(1, EventTimeRules::default())));
    let (http_address, peer_address) = (String::new(), String::new());
    applier.apply(&Command::RegisterNode(NodeRecord { node: 1, http_address, peer_address, can_aggregate: true }));
    applier.apply(&Command::AssignShard(AssignShard { shard: ShardId(0), owner: Some(1), expected_epoch: Epoch(0) }));
    let ads = cells / MINUTES;
    for minute in 0..MINUTES {
        for first in (0..ads).step_by(CELLS_PER_DELTA as usize) {
            let ids = first..(first + CELLS_PER_DELTA).min(ads);
            let delta = applier.delta(ids.map(|ad_id| (minute, ad_id)));
            applier.apply(&delta);
        }
    }
    applier
}

#[test]
#[ignore = "a measurement; takes a minute and a gigabyte"]
fn five_million_cells() {
    let clock = Arc::new(SystemClock);
    let folder = tempfile::tempdir().unwrap();
    let storage = DiskStorage::new(folder.path());
    let snapshots = GroupSnapshots::new(GROUP, storage.open_snapshots(GROUP).unwrap(), COMMAND_LEVEL);
    let before = peak_mib();
    let mut applier = filled(&clock, CELLS);
    let cells = applier.replica.read(|state| state.held().cells.cells);
    println!("{cells} cells: {} bytes of memory each", (peak_mib() - before) * 1024 * 1024 / cells);

    for uniform in [false, true] {
        let shape = if uniform { "uniform" } else { "recent" };
        let unshared = applier.apply_beside(uniform, || ());
        println!("{shape}: {:?} per apply without a reader", unshared.0);
        let begun = clock.monotonic();
        let (meta, frozen) = applier.replica.freeze();
        println!("{shape}: freeze {:?}", clock.monotonic() - begun);
        let (saver, timer) = (snapshots.clone(), clock.clone());
        let (longest, count) = applier.apply_beside(uniform, move || {
            let begun = timer.monotonic();
            let bytes = saver.save(&meta, &frozen).unwrap().unwrap();
            let took = timer.monotonic() - begun;
            println!("{shape}: built in {took:?}: {bytes} bytes, {:.2} a cell", bytes as f64 / cells as f64);
        });
        println!("{shape}: longest of {count} applies during the build {longest:?}, peak {} MiB", peak_mib());
        let after = applier.apply_beside(uniform, || ());
        println!("{shape}: {:?} for the first apply after the build", after.0);
    }

    // The receiver's work runs beside the applies until the swap.
    let stored = snapshots.newest().unwrap().unwrap();
    let received = Arc::new(parking_lot::Mutex::new(None));
    let (reader, timer, slot) = (snapshots.clone(), clock.clone(), received.clone());
    let (longest, count) = applier.apply_beside(false, move || {
        let begun = timer.monotonic();
        let (mut stored, mut writer) = (stored, reader.begin().unwrap());
        std::io::copy(&mut stored.reader, &mut writer).unwrap();
        *slot.lock() = Some(reader.check(writer).unwrap());
        println!("received, checked and decoded in {:?}", timer.monotonic() - begun);
    });
    println!("longest of {count} applies during the receipt {longest:?}, peak {} MiB", peak_mib());
    let received = received.lock().take().unwrap();
    let meta = received.meta.clone();
    let begun = clock.monotonic();
    let state = snapshots.adopt(received).unwrap();
    let durable = clock.monotonic();
    let replaced = applier.replica.replace(&meta, state);
    let swapped = clock.monotonic();
    drop(replaced);
    println!(
        "made durable {:?}, swapped {:?}, old state freed on another thread {:?}",
        durable - begun,
        swapped - durable,
        clock.monotonic() - swapped
    );
}
