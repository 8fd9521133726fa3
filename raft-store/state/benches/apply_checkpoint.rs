//! What a cell of a checkpoint costs in each replica. `cargo bench --bench apply_checkpoint`

use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::codec;
use clicktally_proto::command::{AssignShard, COMMAND_LEVEL, Command, GroupSettings, NodeRecord, Outcome};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::cell_counts::Counts;
use clicktally_proto::counts::window_cells::WindowCells;
use clicktally_proto::event_time::{EventTimeRules, Minute};
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use clicktally_state::group_state::GroupState;
use clicktally_state::invariants::Audit;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SHARD: ShardId = ShardId(0);
/// Cells of one minute in a replica, and below one shard's share of them in a checkpoint.
const ADS: u64 = 34_000;
const CELLS_PER_CHECKPOINT: u64 = 5_000;
/// Those that are filled in turn: together larger than a core's cache.
const MINUTES: u32 = 12;

struct Replica {
    state: GroupState,
    index: u64,
    offset: u64,
}

impl Replica {
    fn new() -> Replica {
        let mut replica = Replica { state: GroupState::new(GroupId(0)), index: 0, offset: 0 };
        replica.apply(&Command::Configure(GroupSettings::new(1, EventTimeRules::default())));
        let record = NodeRecord { node: 1, http_address: "a".into(), peer_address: "b".into(), can_aggregate: true };
        replica.apply(&Command::RegisterNode(record));
        replica.apply(&Command::AssignShard(AssignShard { shard: SHARD, owner: Some(1), expected_epoch: Epoch(0) }));
        replica
    }

    fn apply(&mut self, command: &Command) {
        self.index += 1;
        let frame = codec::encode(command).expect("it is small");
        let outcome = self.state.apply(self.index, &frame, COMMAND_LEVEL).expect("it is of this build");
        assert!(matches!(outcome, Outcome::Done | Outcome::Assigned { .. }), "{outcome:?}");
    }

    /// One of each seventh ad or so: another share at each call.
    fn checkpoint(&mut self) -> Command {
        let mut window = WindowCells::new(Minute((self.index % u64::from(MINUTES)) as u32));
        let step = ADS / CELLS_PER_CHECKPOINT;
        for n in 0..CELLS_PER_CHECKPOINT {
            let ad_id = n * step + (n + self.index / u64::from(MINUTES)) % step + 1;
            window.push((ad_id / 34 + 1, ad_id), Counts { clicks: 1 + n % 3, ..Counts::default() });
        }
        let clicks = window.all_clicks();
        let from = self.offset;
        self.offset += clicks;
        Command::Checkpoint(Checkpoint {
            shard: SHARD,
            epoch: Epoch(1),
            from,
            to: self.offset,
            watermark_ms: 0,
            complete_to_ms: 0,
            outcomes: OutcomeCounts { read: clicks, counted: clicks, ..OutcomeCounts::default() },
            cells: CellBlock::pack_windows(&[window]),
            seen: Vec::new(),
        })
    }
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(CELLS_PER_CHECKPOINT));
    let mut replica = Replica::new();
    for _ in 0..16 * MINUTES {
        let checkpoint = replica.checkpoint();
        replica.apply(&checkpoint);
    }
    group.bench_function("a checkpoint of 5,000 cells, most of them known", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut took = std::time::Duration::ZERO;
            for _ in 0..iterations {
                let frame = codec::encode(&replica.checkpoint()).expect("it is small");
                replica.index += 1;
                #[allow(clippy::disallowed_methods)] // A benchmark's own stopwatch.
                let begun = std::time::Instant::now();
                let outcome = replica.state.apply(replica.index, &frame, COMMAND_LEVEL).expect("it is of this build");
                took += begun.elapsed();
                assert_eq!(outcome, Outcome::Done);
            }
            took
        });
    });
    group.finish();
    // Production makes one step at every `Audit::ENTRIES_PER_STEP`th entry.
    let mut audit = Audit::default();
    criterion.bench_function("audit: one step", |bencher| bencher.iter(|| audit.step(replica.index, &replica.state)));
    criterion.bench_function("audit: everything", |bencher| bencher.iter(|| replica.state.check()));
}

criterion_group!(benches, apply);
criterion_main!(benches);
