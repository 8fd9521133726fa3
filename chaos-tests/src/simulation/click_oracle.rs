//! What must come out of a log, found the slow way: one pass, one map of ids for each partition, and none of the
//! product's counting code.
//!
//! It shares the record schema and the definitions (partitioner, validity, when a window is final) with the product. It
//! takes one fact from the product's own run: which watermarks were *committed* with which offset, because no log holds
//! a proof of emptiness. A check of its own judges those watermarks (CT-13).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clicktally_proto::click::invalid_traffic::is_invalid;
use clicktally_proto::click::record::Click;
use clicktally_proto::click::view::decode_record_owned;
use clicktally_proto::click_log::LATE_CLICKS;
use clicktally_proto::counts::window_count::LateClick;
use clicktally_proto::event_time::{EventTimeRules, Minute, UnixMillis};
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use prost::Message;

use super::sim_log::{Content, SimLog};
use crate::cluster_client::OutcomesView;
use crate::oracle::{Counts, Measures, RowKey};

/// A click at its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    pub shard: ShardId,
    pub offset: u64,
    pub click_id: u64,
}

/// What makes two records the same click. It does not rely on how the product hashes an event.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Identity<'a> {
    /// An event that its producer reports under a campaign.
    Event {
        campaign_id: u64,
        event_id: &'a str,
    },
    Minted(u64),
}

impl Identity<'_> {
    fn of(click: &Click) -> Identity<'_> {
        match &*click.event_id {
            "" => Identity::Minted(click.click_id),
            event_id => Identity::Event { campaign_id: click.campaign_id, event_id },
        }
    }
}

/// The clicks of the late topic, each once however often it was sent. `ends`: a halted shard may have sent clicks ahead
/// of a checkpoint that never came. They are read again after an operator's repair, and do not count.
pub fn declared_late(log: &SimLog, ends: &BTreeMap<ShardId, u64>) -> BTreeSet<Instance> {
    let partitions = 0..log.partitions(LATE_CLICKS);
    let records = partitions.flat_map(|partition| log.read_out(LATE_CLICKS, partition, 0, usize::MAX));
    let clicks = records.filter_map(|record| LateClick::decode(&*record.value).ok());
    let instance = |click: LateClick| Instance {
        shard: ShardId(u16::try_from(click.shard).unwrap_or(u16::MAX)),
        offset: u64::try_from(click.offset).unwrap_or(u64::MAX),
        click_id: click.click_id,
    };
    let stands = |at: &Instance| ends.get(&at.shard).is_none_or(|end| at.offset < *end);
    clicks.map(instance).filter(stands).collect()
}

/// A record, decoded once.
#[derive(Debug)]
struct KnownRecord {
    /// `None`: the record is unreadable.
    clicks: Option<Vec<Click>>,
    arrival_ms: UnixMillis,
    /// Newest event time of the partition's own, honestly dated clicks, up to and including this record.
    newest_event_ms: UnixMillis,
}

/// A committed checkpoint: the shard's watermark after everything below the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedWatermark {
    pub to: u64,
    pub watermark_ms: UnixMillis,
}

/// What the log amounts to.
#[derive(Debug, Default)]
pub struct Expected {
    /// Distinct valid on-time clicks.
    pub counts: Counts,
    pub measures: BTreeMap<RowKey, Measures>,
    /// Distinct valid clicks by campaign.
    pub counted_by_campaign: BTreeMap<u64, u64>,
    pub outcomes: BTreeMap<u16, OutcomesView>,
    pub late: BTreeSet<Instance>,
    /// Clicks found in a foreign partition that their own partition does not hold.
    pub not_rerouted: BTreeSet<u64>,
    pub clicks_in_log: u64,
    pub ids: BTreeSet<u64>,
}

#[derive(Debug)]
pub struct ClickOracle {
    partitioner: Partitioner,
    rules: EventTimeRules,
    known: BTreeMap<ShardId, Vec<KnownRecord>>,
    committed: BTreeMap<ShardId, Vec<CommittedWatermark>>,
    /// Acknowledged: their producer knows that they are in the log.
    acknowledged: BTreeSet<u64>,
    /// Ever handed to the log, with any outcome.
    sent: BTreeSet<u64>,
}

impl ClickOracle {
    pub fn new(partitioner: Partitioner, rules: EventTimeRules) -> ClickOracle {
        ClickOracle {
            partitioner,
            rules,
            known: BTreeMap::new(),
            committed: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            sent: BTreeSet::new(),
        }
    }

    /// A producer's record. An unknown outcome promises nothing.
    pub fn sent(&mut self, ids: &[u64], is_acknowledged: bool) {
        self.sent.extend(ids);
        if is_acknowledged {
            self.acknowledged.extend(ids);
        }
    }

    pub fn acknowledged(&self) -> &BTreeSet<u64> {
        &self.acknowledged
    }

    pub fn ever_sent(&self) -> &BTreeSet<u64> {
        &self.sent
    }

    /// Reads what was written since the last look.
    pub fn read_on(&mut self, log: &SimLog, shard: ShardId) {
        let known = self.known.entry(shard).or_default();
        // Records that an unclean election took away were read before it. Records behind the cut do not count.
        if log.truncated_from(shard).is_some() {
            return;
        }
        for record in &log.held(shard)[known.len()..] {
            // An offset without a readable record counts as a record without clicks.
            let is_readable = record.content == Content::Record;
            let clicks = if is_readable { decode_record_owned(&record.value).ok() } else { Some(Vec::new()) };
            let honest = clicks.iter().flatten().filter(|click| {
                self.partitioner.shard(click.campaign_id, click.id()) == shard
                    && click.event_time_ms <= record.arrival_ms + self.rules.max_ahead_ms
            });
            let newest = honest.map(|click| click.event_time_ms.min(record.arrival_ms)).max().unwrap_or(0);
            let before = known.last().map_or(0, |record: &KnownRecord| record.newest_event_ms);
            let arrival_ms = record.arrival_ms;
            known.push(KnownRecord { clicks, arrival_ms, newest_event_ms: newest.max(before) });
        }
    }

    /// Newest honest event time below an offset, as of the arrival of clicks that are dated ahead; 0 if there is none.
    pub fn newest_event_ms(&self, shard: ShardId, to: u64) -> UnixMillis {
        let known = self.known.get(&shard).map_or(&[][..], Vec::as_slice);
        let last = usize::try_from(to).unwrap_or(usize::MAX).min(known.len()).checked_sub(1);
        last.map_or(0, |last| known[last].newest_event_ms)
    }

    /// When the record at an offset arrived, if there is one.
    pub fn arrival_ms(&self, shard: ShardId, offset: u64) -> Option<UnixMillis> {
        self.known.get(&shard)?.get(usize::try_from(offset).ok()?).map(|record| record.arrival_ms)
    }

    pub fn note_committed(&mut self, shard: ShardId, committed: CommittedWatermark) {
        self.committed.entry(shard).or_default().push(committed);
    }

    /// The recount.
    ///
    /// * `late_says_the_log`: a proof of an earlier life was committed for these shards, and their owner did not know
    ///   it. For them the late topic, not the oracle, decides which clicks are late.
    /// * `ends`: where a partition that has lost records ends for this purpose.
    pub fn expect(
        &self,
        late_says_the_log: &BTreeMap<ShardId, BTreeSet<Instance>>,
        ends: &BTreeMap<ShardId, u64>,
    ) -> Expected {
        let mut expected = Expected::default();
        let mut users: HashMap<RowKey, BTreeSet<&str>> = HashMap::new();
        let mut misrouted: BTreeSet<u64> = BTreeSet::new();
        let mut in_own: BTreeSet<u64> = BTreeSet::new();
        for (&shard, records) in &self.known {
            let told = late_says_the_log.get(&shard);
            let mut proofs = self.committed.get(&shard).map_or(&[][..], Vec::as_slice).iter().peekable();
            let mut outcomes = OutcomesView::default();
            let mut watermark_ms = 0;
            let mut counted: HashMap<Identity<'_>, Minute> = HashMap::new();
            let end = ends.get(&shard).copied().unwrap_or(u64::MAX);
            for (offset, record) in (0..end).zip(records) {
                while let Some(proof) = proofs.next_if(|proof| proof.to <= offset) {
                    watermark_ms = watermark_ms.max(proof.watermark_ms);
                }
                let Some(clicks) = &record.clicks else {
                    outcomes.read += 1;
                    outcomes.quarantined += 1;
                    continue;
                };
                for click in clicks {
                    outcomes.read += 1;
                    expected.clicks_in_log += 1;
                    expected.ids.insert(click.click_id);
                    if self.partitioner.shard(click.campaign_id, click.id()) != shard {
                        outcomes.misrouted += 1;
                        misrouted.insert(click.click_id);
                        continue;
                    }
                    in_own.insert(click.click_id);
                    if click.event_time_ms > record.arrival_ms + self.rules.max_ahead_ms {
                        outcomes.quarantined += 1;
                        continue;
                    }
                    let reached_ms = click.event_time_ms.min(record.arrival_ms);
                    watermark_ms = watermark_ms.max(reached_ms.saturating_sub(self.rules.out_of_orderness_ms));
                    let minute = Minute::of(click.event_time_ms);
                    let identity = Identity::of(click);
                    let is_known =
                        counted.get(&identity).is_some_and(|minute| !self.rules.is_final(*minute, watermark_ms));
                    let instance = Instance { shard, offset, click_id: click.click_id };
                    // The owner's watermark was this one, or an older one if it did not know of a proof. So a click
                    // that is not late here is not late for the owner either, and of two copies in one record, which
                    // are one instance, the first may be counted.
                    let may_be_late = self.rules.is_final(minute, watermark_ms) && !is_known;
                    let is_late = may_be_late && told.is_none_or(|told| told.contains(&instance));
                    if is_late {
                        outcomes.late += 1;
                        expected.late.insert(instance);
                        continue;
                    }
                    if is_known {
                        outcomes.duplicate += 1;
                        continue;
                    }
                    counted.insert(identity, minute);
                    if is_invalid(click.evidence, click.user_agent.as_bytes()) {
                        outcomes.invalid += 1;
                        continue;
                    }
                    outcomes.counted += 1;
                    *expected.counts.entry((click.ad_id, u64::from(minute.0))).or_default() += 1;
                    *expected.counted_by_campaign.entry(click.campaign_id).or_default() += 1;
                    let key = (u64::from(minute.0), click.ad_id, click.campaign_id);
                    let measures = expected.measures.entry(key).or_default();
                    if click.cost_per_click_micros > 0 {
                        measures.cost_sum_micros += click.cost_per_click_micros;
                        measures.cost_count += 1;
                    }
                    if !click.user_id.is_empty() && users.entry(key).or_default().insert(&click.user_id) {
                        measures.users += 1;
                    }
                }
            }
            expected.outcomes.insert(shard.0, outcomes);
        }
        expected.not_rerouted = misrouted.difference(&in_own).copied().collect();
        expected
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::click::encode::encode_record;

    use super::*;

    const RULES: EventTimeRules =
        EventTimeRules { out_of_orderness_ms: 0, allowed_lateness_ms: 0, retain_final_ms: 0, max_ahead_ms: 60_000 };

    fn own_id(n: u64) -> u64 {
        (n * 1_000..)
            .find(|id| Partitioner::new(1).shard(1, clicktally_proto::identity::ids::ClickId(*id)) == ShardId(3))
            .unwrap()
    }

    fn write(log: &mut SimLog, id: u64, event_time_ms: u64) {
        let click = Click { click_id: id, campaign_id: 1, ad_id: 5, event_time_ms, ..Click::default() };
        log.append(ShardId(3), 1_000_000, encode_record(&[click]).into());
    }

    #[test]
    fn a_proof_makes_late_what_comes_behind_it_and_nothing_before() {
        let (mut log, mut oracle) = (SimLog::new(16), ClickOracle::new(Partitioner::new(1), RULES));
        for n in [1, 2] {
            write(&mut log, own_id(n), 30_000);
        }
        oracle.read_on(&log, ShardId(3));
        oracle.note_committed(ShardId(3), CommittedWatermark { to: 1, watermark_ms: 60_000 });
        let expected = oracle.expect(&BTreeMap::new(), &BTreeMap::new());
        assert_eq!(expected.counts, Counts::from([((5, 0), 1)]));
        assert_eq!(expected.late, BTreeSet::from([Instance { shard: ShardId(3), offset: 1, click_id: own_id(2) }]));
    }

    #[test]
    fn a_repeat_is_one_click_as_long_as_its_minute_is_open() {
        let (mut log, mut oracle) = (SimLog::new(16), ClickOracle::new(Partitioner::new(1), RULES));
        for (n, at) in [(1, 30_000), (1, 31_000), (2, 200_000), (1, 30_000)] {
            write(&mut log, own_id(n), at);
        }
        oracle.read_on(&log, ShardId(3));
        let expected = oracle.expect(&BTreeMap::new(), &BTreeMap::new());
        assert_eq!(expected.counts, Counts::from([((5, 0), 1), ((5, 3), 1)]));
        let outcomes = expected.outcomes[&3];
        assert_eq!((outcomes.read, outcomes.counted, outcomes.duplicate, outcomes.late), (4, 2, 1, 1));
    }
}
