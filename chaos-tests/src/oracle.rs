//! A naive recount of the raw log: every record, one hash map, no windows, no watermarks, no shards. It shares the
//! record schema and the definition of validity with the system, and no counting code.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, bail};
use clicktally_kafka::KafkaConnection;
use clicktally_proto::click::invalid_traffic::is_invalid;
use clicktally_proto::click::view::decode_record_owned;
use clicktally_proto::click_log::{LATE_CLICKS, RAW_CLICKS};
use clicktally_proto::counts::window_count::LateClick;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::eventually::HANG_MAX;

/// (ad, minute since the Unix epoch) → distinct valid clicks.
pub type Counts = BTreeMap<(u64, u64), u64>;

/// A row of the stream: (minute since the Unix epoch, ad, campaign).
pub type RowKey = (u64, u64, u64);

/// Sums over the valid clicks of one row, besides their number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measures {
    pub users: u64,
    pub cost_sum_micros: i64,
    pub cost_count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SeenClick {
    ad_id: u64,
    campaign_id: u64,
    event_time_ms: u64,
    is_valid: bool,
    /// Empty if the click has none.
    user_id: String,
    cost_micros: i64,
}

/// The content of the log.
#[derive(Debug, Default)]
pub struct Recount {
    clicks: HashMap<u64, SeenClick>,
    /// Clicks in the log, repeats included.
    pub clicks_in_log: u64,
    pub malformed_records: u64,
    /// The sum of both, by partition: what each shard has to read.
    pub by_partition: BTreeMap<u16, u64>,
    /// The producers' own ids, with their campaigns.
    pub events: HashSet<(u64, String)>,
}

impl Recount {
    /// Reads all of `raw_clicks` up to its present end.
    pub fn of_log(bootstrap: &str) -> anyhow::Result<Recount> {
        let mut recount = Recount::default();
        read_topic(bootstrap, RAW_CLICKS, |message| {
            let taken = recount.take(message.payload().unwrap_or_default());
            *recount.by_partition.entry(u16::try_from(message.partition())?).or_default() += taken;
            Ok(())
        })?;
        Ok(recount)
    }

    /// The first copy of a click counts. Returns the number of clicks in the record; an unreadable record counts as
    /// one.
    fn take(&mut self, record: &[u8]) -> u64 {
        let Ok(clicks) = decode_record_owned(record) else {
            self.malformed_records += 1;
            return 1;
        };
        let taken = clicks.len() as u64;
        for click in clicks {
            self.clicks_in_log += 1;
            self.clicks.entry(click.click_id).or_insert_with(|| SeenClick {
                ad_id: click.ad_id,
                campaign_id: click.campaign_id,
                event_time_ms: click.event_time_ms,
                is_valid: !is_invalid(click.evidence, click.user_agent.as_bytes()),
                user_id: click.user_id,
                cost_micros: click.cost_per_click_micros,
            });
            self.events.insert((click.campaign_id, click.event_id));
        }
        taken
    }

    pub fn unique(&self) -> usize {
        self.clicks.len()
    }

    pub fn unique_valid(&self) -> usize {
        self.clicks.values().filter(|click| click.is_valid).count()
    }

    /// Distinct valid clicks, without those that the stream declared late.
    pub fn counts_without(&self, late: &HashMap<u64, LateClick>) -> Counts {
        let mut counts = Counts::new();
        #[allow(clippy::iter_over_hash_type)] // Added up: in any order the same.
        for (id, click) in &self.clicks {
            if click.is_valid && !late.contains_key(id) {
                *counts.entry((click.ad_id, click.event_time_ms / 60_000)).or_default() += 1;
            }
        }
        counts
    }

    /// Exact distinct users and costs of the same clicks, by row.
    pub fn measures_without(&self, late: &HashMap<u64, LateClick>) -> BTreeMap<RowKey, Measures> {
        self.measure(late, |click| (click.event_time_ms / 60_000, click.ad_id, click.campaign_id))
    }

    /// The same by ad, over all minutes: a user of two minutes counts once.
    pub fn ad_measures_without(&self, late: &HashMap<u64, LateClick>) -> BTreeMap<u64, Measures> {
        self.measure(late, |click| click.ad_id)
    }

    fn measure<K: Ord + Copy>(
        &self,
        late: &HashMap<u64, LateClick>,
        key_of: impl Fn(&SeenClick) -> K,
    ) -> BTreeMap<K, Measures> {
        let mut users: BTreeMap<K, HashSet<&str>> = BTreeMap::new();
        let mut measures: BTreeMap<K, Measures> = BTreeMap::new();
        for (_, click) in self.clicks.iter().filter(|(id, click)| click.is_valid && !late.contains_key(id)) {
            let key = key_of(click);
            let row = measures.entry(key).or_default();
            if click.cost_micros > 0 {
                row.cost_sum_micros += click.cost_micros;
                row.cost_count += 1;
            }
            if !click.user_id.is_empty() && users.entry(key).or_default().insert(&click.user_id) {
                row.users += 1;
            }
        }
        measures
    }
}

/// The late side output, by click id.
pub fn late_clicks(bootstrap: &str) -> anyhow::Result<HashMap<u64, LateClick>> {
    let mut late = HashMap::new();
    read_topic(bootstrap, LATE_CLICKS, |message| {
        let click: LateClick = prost::Message::decode(message.payload().unwrap_or_default())?;
        late.insert(click.click_id, click);
        Ok(())
    })?;
    Ok(late)
}

/// End offset of each partition of a topic, in order.
pub fn end_offsets(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<u64>> {
    let consumer = consumer(bootstrap)?;
    let partitions = partitions(&consumer, topic)?;
    let high = |partition| -> anyhow::Result<u64> {
        let (_, high) = consumer.fetch_watermarks(topic, partition, HANG_MAX)?;
        Ok(u64::try_from(high)?)
    };
    partitions.into_iter().map(high).collect()
}

/// Every record of a topic from its start to its present end.
pub fn read_topic(
    bootstrap: &str,
    topic: &str,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let consumer = consumer(bootstrap)?;
    let mut ends = HashMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in partitions(&consumer, topic)? {
        let (low, high) = consumer.fetch_watermarks(topic, partition, HANG_MAX)?;
        if low < high {
            assignment.add_partition_offset(topic, partition, Offset::Offset(low))?;
            ends.insert(partition, high);
        }
    }
    consumer.assign(&assignment)?;
    while !ends.is_empty() {
        let Some(message) = consumer.poll(HANG_MAX) else {
            bail!("{topic} went silent before its end; still missing {ends:?}");
        };
        let message = match message {
            // A partition may end with offsets that hold no readable record.
            Err(KafkaError::PartitionEOF(partition)) => {
                ends.remove(&partition);
                continue;
            }
            message => message.with_context(|| format!("reading {topic}"))?,
        };
        let Some(end) = ends.get(&message.partition()).copied() else { continue };
        if message.offset() < end {
            take(&message)?;
        }
        if message.offset() + 1 >= end {
            ends.remove(&message.partition());
        }
    }
    Ok(())
}

fn consumer(bootstrap: &str) -> anyhow::Result<BaseConsumer> {
    KafkaConnection::plaintext(bootstrap).recount_reader().context("cannot make a Kafka consumer")
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), HANG_MAX)?;
    let mut ids: Vec<i32> =
        metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
    ids.sort_unstable();
    Ok(ids)
}
