//! Ten million cells: what they take of memory, and how long an apply that puts them together takes. Measured, not
//! asserted. `cargo test --workspace --lib -- --ignored --nocapture ten_million_cells`

#![allow(clippy::print_stdout, clippy::disallowed_methods)] // Prints its figures; reads its own memory from /proc.

use std::time::Duration;

use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::codec;
use clicktally_proto::command::{AssignShard, COMMAND_LEVEL, Command, GroupSettings, NodeRecord, Outcome};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, Counts};
use clicktally_proto::event_time::{EventTimeRules, Minute};
use clicktally_proto::identity::shard_key::{GroupId, ShardId};

use crate::group_state::GroupState;
use crate::windows::cell_runs::MergeAllowance;

const MINUTES: u64 = 26;
const CELLS: u64 = 10_000_000;
const CELLS_PER_DELTA: u64 = 37_000;

struct Applier {
    state: GroupState,
    index: u64,
    offset: u64,
    longest: Duration,
}

impl Applier {
    fn apply(&mut self, command: &Command) {
        self.index += 1;
        let frame = codec::encode(command).unwrap();
        let begun = SystemClock.monotonic();
        let outcome = self.state.apply(self.index, &frame, COMMAND_LEVEL).unwrap();
        self.longest = self.longest.max(SystemClock.monotonic() - begun);
        assert!(matches!(outcome, Outcome::Done | Outcome::Assigned { .. }), "{outcome:?}");
    }

    /// A click or more of each of these ads, in one checkpoint.
    fn count(&mut self, minute: u64, ads: impl Iterator<Item = u64>) {
        let cell = |ad_id: u64| CellDelta {
            key: CellKey { minute: Minute(10 + minute as u32), campaign_id: ad_id / 100 + 1, ad_id },
            counts: Counts { clicks: 1 + ad_id % 7, ..Counts::default() },
        };
        let mut cells: Vec<CellDelta> = ads.map(cell).collect();
        let clicks = cells.len() as u64;
        let from = self.offset;
        self.offset += clicks;
        self.apply(&Command::Checkpoint(Checkpoint {
            shard: ShardId(0),
            epoch: Epoch(1),
            from,
            to: self.offset,
            watermark_ms: 0,
            complete_to_ms: 0,
            outcomes: OutcomeCounts { read: clicks, counted: clicks, ..OutcomeCounts::default() },
            cells: CellBlock::pack(&mut cells),
            seen: Vec::new(),
        }));
    }
}

/// [`CELLS`] over all minutes, each brought as often as `times` says: by as many shards.
fn filled(times: u64) -> Applier {
    let mut applier = Applier { state: GroupState::new(GroupId(0)), index: 0, offset: 0, longest: Duration::ZERO };
    applier.apply(&Command::Configure(GroupSettings::new(1, EventTimeRules::default())));
    let (http_address, peer_address) = (String::new(), String::new());
    applier.apply(&Command::RegisterNode(NodeRecord { node: 1, http_address, peer_address, can_aggregate: true }));
    applier.apply(&Command::AssignShard(AssignShard { shard: ShardId(0), owner: Some(1), expected_epoch: Epoch(0) }));
    let ads = CELLS / MINUTES;
    for minute in 0..MINUTES {
        for first in (0..times).flat_map(|_| (0..ads).step_by(CELLS_PER_DELTA as usize)) {
            applier.count(minute, first..(first + CELLS_PER_DELTA).min(ads));
        }
    }
    applier
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "a measurement; takes a minute and a gigabyte"]
fn ten_million_cells() {
    for times in [1, 4] {
        let before = resident_mib();
        let Applier { mut state, longest, .. } = filled(times);
        let held = state.held();
        let cells = state.windows().values().map(|window| window.cells().count() as u64).sum::<u64>();
        let resident_bytes = (resident_mib() - before) * 1024 * 1024;
        println!(
            "{cells} cells, each brought {times} times: {:.2} times held, charged {} bytes each, {} resident",
            held.cells.cells as f64 / cells as f64,
            held.bytes() / cells,
            resident_bytes / cells
        );
        let mut put_together = |mut allowance| {
            let begun = SystemClock.monotonic();
            state.windows.compact(&mut allowance, |_| false);
            SystemClock.monotonic() - begun
        };
        println!(
            "longest apply until then {longest:?}; without room, {:?} a try to make some, all at once {:?}",
            put_together(MergeAllowance::of_an_apply()),
            put_together(MergeAllowance::unlimited())
        );
    }
}
