//! Compares the counting rules with a naive recount, through the real apply.
//!
//! Whatever the log holds, wherever checkpoints are cut and wherever owners die, the counts equal those of one pass
//! with hash sets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clicktally_proto::checkpoint::{Epoch, OutcomeCounts};
use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click::view::{decode_record, decode_record_owned};
use clicktally_proto::click_log::{LATE_CLICKS, LogRecord, OutRecord, QUARANTINE, RAW_CLICKS};
use clicktally_proto::codec;
use clicktally_proto::command::{AssignShard, COMMAND_LEVEL, Command, GroupSettings, NodeRecord, Outcome};
use clicktally_proto::counts::cell_counts::Counts;
use clicktally_proto::counts::user_mark::UserMark;
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::counts::window_count::LateClick;
use clicktally_proto::event_time::{EventTimeRules, WINDOW_MS};
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::shard_key::{GroupId, Partitioner, ShardId, salt};
use clicktally_state::group_state::GroupState;
use proptest::prelude::*;
use prost::Message;

use super::shard_state::{ShardState, ShardTerms};

const RULES: EventTimeRules = EventTimeRules {
    out_of_orderness_ms: 5_000,
    allowed_lateness_ms: 2 * WINDOW_MS,
    retain_final_ms: WINDOW_MS,
    max_ahead_ms: 5 * WINDOW_MS,
};
const START_MS: u64 = 1_700_000_040_000;
const SHARD: ShardId = ShardId(3);

fn partitioner() -> Partitioner {
    Partitioner::new(1)
}

fn terms(epoch: Epoch) -> ShardTerms {
    ShardTerms { shard: SHARD, epoch, partitioner: partitioner(), event_time: RULES }
}

/// Returns the n-th id that belongs to the shard under test.
fn own_id(n: u64) -> u64 {
    (0..).map(|k| 1 + n * 1_000 + k).find(|id| salt(ClickId(*id)) == SHARD.salt()).unwrap()
}

fn other_id(n: u64) -> u64 {
    (0..).map(|k| 1 + n * 1_000 + k).find(|id| salt(ClickId(*id)) != SHARD.salt()).unwrap()
}

fn user_name(user: u64) -> String {
    format!("user {user}")
}

struct Record {
    arrival_ms: u64,
    value: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Drawn {
    id: u64,
    ad: u64,
    /// Event time, in seconds after `START_MS`.
    seconds: u64,
    is_robot: bool,
    /// 0 if the click names no user.
    user: u64,
    cost_micros: i64,
}

#[derive(Debug, Clone)]
enum Step {
    Clicks(Vec<Drawn>),
    Misrouted(u64),
    Garbage,
    FarAhead(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let click = (0_u64..60, 1_u64..4, 0_u64..600, prop::bool::weighted(0.1), 0_u64..40, -1_i64..3).prop_map(
        |(id, ad, seconds, is_robot, user, cost_micros)| Drawn { id, ad, seconds, is_robot, user, cost_micros },
    );
    prop_oneof![
        10 => proptest::collection::vec(click, 1..6).prop_map(Step::Clicks),
        1 => (0_u64..20).prop_map(Step::Misrouted),
        1 => Just(Step::Garbage),
        1 => (0_u64..60).prop_map(Step::FarAhead),
    ]
}

fn record(step: &Step) -> Record {
    // Half of the clicks are dated ahead of their arrival, none further than the rules allow.
    let arrival_ms = START_MS + RULES.max_ahead_ms;
    let click = |click_id, drawn: &Drawn| Click {
        click_id,
        campaign_id: 7,
        ad_id: drawn.ad,
        event_time_ms: START_MS + drawn.seconds * 1_000,
        user_agent: if drawn.is_robot { "examplebot/1".into() } else { "Mozilla/5.0".into() },
        user_id: if drawn.user == 0 { String::new() } else { user_name(drawn.user) },
        cost_per_click_micros: drawn.cost_micros,
        ..Click::default()
    };
    let value = match step {
        Step::Clicks(clicks) => {
            let clicks: Vec<Click> = clicks.iter().map(|drawn| click(own_id(drawn.id), drawn)).collect();
            encode_record(&clicks)
        }
        Step::Misrouted(n) => {
            let drawn = Drawn { ad: 1, seconds: 10, ..Drawn::default() };
            encode_record(&[click(other_id(*n), &drawn), click(own_id(1_000 + n), &drawn)])
        }
        Step::Garbage => b"\xff\xff\xff".to_vec(),
        Step::FarAhead(n) => encode_record(&[Click {
            event_time_ms: arrival_ms + RULES.max_ahead_ms + 1,
            ..click(own_id(*n), &Drawn { ad: 1, ..Drawn::default() })
        }]),
    };
    Record { arrival_ms, value }
}

/// The totals of one (minute, ad).
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    valid: u64,
    invalid: u64,
    costs: i64,
    costed: u64,
    /// The encoded sketch of the users.
    users: Vec<u8>,
}

type Sums = BTreeMap<(u32, u64), Sum>;

/// Builds the sketch in one pass over a set.
fn sketch_of(users: &BTreeSet<String>) -> Vec<u8> {
    let mut sketch = UserSketch::default();
    users.iter().filter_map(|user| UserMark::of(user.as_bytes())).for_each(|mark| sketch.insert(mark));
    sketch.to_bytes()
}

/// Counts in one pass with hash sets. It shares only the record's decoder with the code under test.
fn recount(log: &[Record]) -> (Sums, OutcomeCounts) {
    let mut sums = Sums::new();
    let mut users: BTreeMap<(u32, u64), BTreeSet<String>> = BTreeMap::new();
    let mut outcomes = OutcomeCounts::default();
    let mut newest_ms = 0_u64;
    let mut first_minutes: HashMap<u64, u64> = HashMap::new();
    let passed = |minute: u64, newest_ms: u64| {
        (minute + 1) * WINDOW_MS + RULES.allowed_lateness_ms <= newest_ms.saturating_sub(RULES.out_of_orderness_ms)
    };
    for record in log {
        let mut clicks = Vec::new();
        if decode_record(&record.value, &mut clicks).is_err() {
            outcomes.read += 1;
            outcomes.quarantined += 1;
            continue;
        }
        // Costs and users are read from the whole message, not from the decoder under test.
        for (click, whole) in clicks.into_iter().zip(decode_record_owned(&record.value).unwrap()) {
            outcomes.read += 1;
            if salt(click.click_id) != SHARD.salt() {
                outcomes.misrouted += 1;
                continue;
            }
            if click.event_time_ms > record.arrival_ms + RULES.max_ahead_ms {
                outcomes.quarantined += 1;
                continue;
            }
            newest_ms = newest_ms.max(click.event_time_ms.min(record.arrival_ms));
            let minute = click.event_time_ms / WINDOW_MS;
            if first_minutes.get(&click.click_id.0).is_some_and(|first| !passed(*first, newest_ms)) {
                outcomes.duplicate += 1;
            } else if passed(minute, newest_ms) {
                outcomes.late += 1;
            } else {
                first_minutes.insert(click.click_id.0, minute);
                let key = (u32::try_from(minute).unwrap(), click.ad_id);
                let sum = sums.entry(key).or_default();
                if click.is_invalid {
                    outcomes.invalid += 1;
                    sum.invalid += 1;
                    continue;
                }
                outcomes.counted += 1;
                sum.valid += 1;
                sum.costs += whole.cost_per_click_micros.max(0);
                sum.costed += u64::from(whole.cost_per_click_micros > 0);
                users.entry(key).or_default().insert(whole.user_id);
            }
        }
    }
    for (key, users) in users {
        sums.entry(key).or_default().users = sketch_of(&users);
    }
    (sums, outcomes)
}

struct Replica {
    state: GroupState,
    index: u64,
}

impl Replica {
    fn new() -> Replica {
        let mut replica = Replica { state: GroupState::new(GroupId(0)), index: 0 };
        replica.apply(&Command::Configure(GroupSettings::new(1, RULES)));
        let record = NodeRecord { node: 1, http_address: "a".into(), peer_address: "b".into(), can_aggregate: true };
        replica.apply(&Command::RegisterNode(record));
        replica
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, &codec::encode(command).unwrap(), COMMAND_LEVEL).unwrap()
    }

    /// Starts a new owner the way a shard's life does.
    fn new_owner(&mut self) -> ShardState {
        let expected_epoch = self.state.shard(SHARD).unwrap().epoch;
        let assignment = AssignShard { shard: SHARD, owner: Some(1), expected_epoch };
        assert!(matches!(self.apply(&Command::AssignShard(assignment)), Outcome::Assigned { .. }));
        let entry = self.state.shard(SHARD).unwrap();
        ShardState::restore(terms(entry.epoch), entry, &self.state.seen_blocks(SHARD)).unwrap()
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::new();
        for (minute, window) in self.state.windows() {
            for (_, ad_id, cell) in window.cells() {
                let Counts { clicks: valid, invalid_clicks: invalid, costs, users } = cell.counts().clone();
                let sum = Sum { valid, invalid, costs: costs.sum_micros, costed: costs.count, users: users.to_bytes() };
                sums.insert((minute.0, ad_id), sum);
            }
        }
        sums
    }
}

fn view(log: &[Record], offset: u64) -> LogRecord<'_> {
    let record = &log[usize::try_from(offset).unwrap()];
    LogRecord { offset, arrival_ms: record.arrival_ms, value: &record.value }
}

/// What happens after a record: nothing, a checkpoint, a checkpoint whose answer is lost, or the death of the owner.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Nothing,
    Checkpoint,
    RepeatedCheckpoint,
    Death,
}

fn run(log: &[Record], events: &[Event]) -> (Replica, Vec<OutRecord>) {
    let mut replica = Replica::new();
    let mut sent = Vec::new();
    let mut owner = replica.new_owner();
    let mut events = events.iter().copied().chain(std::iter::repeat(Event::Nothing));
    let end = log.len() as u64;
    let mut commit = |replica: &mut Replica, owner: &mut ShardState, repeats: bool| {
        let Some(cut) = owner.cut() else { return };
        sent.extend(cut.out_records);
        let is_empty = cut.checkpoint.from == cut.checkpoint.to;
        let command = Command::Checkpoint(cut.checkpoint);
        assert_eq!(replica.apply(&command), Outcome::Done);
        if repeats && !is_empty {
            assert_eq!(replica.apply(&command), Outcome::AlreadyApplied);
        }
    };
    loop {
        while owner.position() < end {
            owner.take(view(log, owner.position()));
            match events.next() {
                Some(Event::Checkpoint) => commit(&mut replica, &mut owner, false),
                Some(Event::RepeatedCheckpoint) => commit(&mut replica, &mut owner, true),
                Some(Event::Death) => owner = replica.new_owner(),
                Some(Event::Nothing) | None => {}
            }
        }
        commit(&mut replica, &mut owner, false);
        if replica.state.shard(SHARD).unwrap().committed_offset == end {
            return (replica, sent);
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Nothing),
        2 => Just(Event::Checkpoint),
        1 => Just(Event::RepeatedCheckpoint),
        1 => Just(Event::Death),
    ]
}

proptest! {
    #[test]
    fn counts_are_those_of_a_naive_recount_wherever_checkpoints_are_cut_and_owners_die(
        steps in proptest::collection::vec(step(), 1..60),
        events in proptest::collection::vec(event(), 0..120)
    ) {
        let log: Vec<Record> = steps.iter().map(record).collect();
        let (sums, outcomes) = recount(&log);
        let (replica, sent) = run(&log, &events);
        prop_assert_eq!(replica.sums(), sums);
        let committed = replica.state.shard(SHARD).unwrap().outcomes;
        prop_assert_eq!(committed, outcomes);
        prop_assert!(committed.is_conserved());
        // Every click counted as sent elsewhere is there, at least once. An owner's death before its checkpoint repeats
        // the send.
        let to = |topic: &str| sent.iter().filter(|out| out.topic == topic).count() as u64;
        prop_assert_eq!(to(LATE_CLICKS), outcomes.late);
        prop_assert_eq!(to(QUARANTINE), outcomes.quarantined);
        prop_assert_eq!(to(RAW_CLICKS), outcomes.misrouted);
    }
}

fn ad_of(record: &Record) -> u64 {
    let mut clicks = Vec::new();
    decode_record(&record.value, &mut clicks).unwrap();
    clicks[0].ad_id
}

/// What happens around a checkpoint while proofs of emptiness move the watermark.
#[derive(Debug, Clone, Copy)]
enum ProofEvent {
    Click {
        number: u64,
        seconds: u64,
    },
    /// The partition was empty this many seconds after the start, and a checkpoint reports it.
    Prove {
        seconds: u64,
    },
    /// As above, but the owner dies when the side output is durable and the proposal is not.
    ProveAndDie {
        seconds: u64,
    },
}

fn proof_event() -> impl Strategy<Value = ProofEvent> {
    prop_oneof![
        6 => (0_u64..40, 0_u64..600).prop_map(|(number, seconds)| ProofEvent::Click { number, seconds }),
        2 => (0_u64..900).prop_map(|seconds| ProofEvent::Prove { seconds }),
        1 => (0_u64..900).prop_map(|seconds| ProofEvent::ProveAndDie { seconds }),
    ]
}

proptest! {
    /// An uncommitted proof is lost with its owner, and the windows it closed reopen for the successor. This is safe: a
    /// decision based on a proof leaves the owner only after the checkpoint with that proof is committed.
    #[test]
    fn a_click_of_the_side_output_is_never_counted_even_if_proofs_are_lost_with_their_owners(
        events in proptest::collection::vec(proof_event(), 1..80)
    ) {
        let mut replica = Replica::new();
        let mut owner = replica.new_owner();
        let mut log: Vec<Record> = Vec::new();
        let mut late_ids = Vec::new();
        for event in events.into_iter().chain([ProofEvent::Prove { seconds: 0 }]) {
            let (seconds, dies) = match event {
                // The ad is the click's number, so that the sums show which clicks were counted.
                ProofEvent::Click { number, seconds } => {
                    let drawn = Drawn { id: number, ad: number + 1, seconds, ..Drawn::default() };
                    log.push(record(&Step::Clicks(vec![drawn])));
                    owner.take(view(&log, owner.position()));
                    continue;
                }
                ProofEvent::Prove { seconds } => (seconds, false),
                ProofEvent::ProveAndDie { seconds } => (seconds, true),
            };
            owner.prove_empty(START_MS + seconds * 1_000);
            if let Some(cut) = owner.cut() {
                let late = cut.out_records.iter().filter(|out| out.topic == LATE_CLICKS);
                late_ids.extend(late.map(|out| LateClick::decode(&out.value[..]).unwrap().ad_id));
                if !dies {
                    prop_assert_eq!(replica.apply(&Command::Checkpoint(cut.checkpoint)), Outcome::Done);
                }
            }
            if dies {
                owner = replica.new_owner();
                while owner.position() < log.len() as u64 {
                    owner.take(view(&log, owner.position()));
                }
            }
        }
        // A duplicate that arrives after its minute became final is also late. Such a click is rightly in both places.
        let came_once = |ad: &&u64| log.iter().filter(|record| ad_of(record) == **ad).count() == 1;
        for ad in late_ids.iter().filter(came_once) {
            prop_assert!(!replica.sums().keys().any(|(_, counted)| counted == ad), "click {} is late and counted", ad - 1);
        }
    }
}

#[test]
fn a_rerouted_click_arrives_whole_in_its_own_partition() {
    let mut replica = Replica::new();
    let mut owner = replica.new_owner();
    let log = [record(&Step::Misrouted(4))];
    owner.take(view(&log, 0));
    let cut = owner.cut().unwrap();
    let [out] = &cut.out_records[..] else { panic!("{:?}", cut.out_records) };
    let mut views = Vec::new();
    decode_record(&out.value, &mut views).unwrap();
    let own = partitioner().shard(7, views[0].click_id);
    assert_eq!((out.topic, out.partition), (RAW_CLICKS, Some(own.partition())));
    assert_ne!(own, SHARD);
}

#[test]
fn a_click_dated_tomorrow_moves_nothing() {
    let mut owner = Replica::new().new_owner();
    let log = [
        record(&Step::Clicks(vec![Drawn { id: 1, ad: 1, seconds: 10, ..Drawn::default() }])),
        record(&Step::FarAhead(2)),
    ];
    owner.take(view(&log, 0));
    let before = owner.watermark_ms();
    owner.take(view(&log, 1));
    assert_eq!(owner.watermark_ms(), before);
    assert_eq!(owner.outcomes().quarantined, 1);
}

#[test]
fn an_idle_shard_cuts_a_checkpoint_only_with_a_proof_and_only_once() {
    let mut replica = Replica::new();
    let mut owner = replica.new_owner();
    assert_eq!(owner.cut(), None);
    owner.prove_empty(START_MS);
    let cut = owner.cut().unwrap();
    let checkpoint = &cut.checkpoint;
    assert_eq!((checkpoint.from, checkpoint.to, checkpoint.complete_to_ms), (0, 0, START_MS));
    assert_eq!(checkpoint.watermark_ms, START_MS - RULES.out_of_orderness_ms);
    assert_eq!(replica.apply(&Command::Checkpoint(cut.checkpoint)), Outcome::Done);
    assert_eq!(owner.cut(), None);
}
