//! Which topics there are, and how each is kept.

use clicktally_proto::click_log::{LATE_CLICKS, LogError, QUARANTINE, RAW_CLICKS, WINDOW_COUNTS};
use clicktally_proto::identity::shard_key::Partitioner;
use rdkafka::admin::{NewTopic, TopicReplication};

use super::kafka_log::{ENVELOPE_BYTES_MAX, RECORD_BYTES_MAX};

/// Few: these topics carry aggregates and exceptions, and each partition costs its reader a progress row.
pub const WINDOW_COUNTS_PARTITIONS: i32 = 4;
pub const LATE_CLICKS_PARTITIONS: i32 = 4;
pub const QUARANTINE_PARTITIONS: i32 = 1;

pub(super) struct TopicSpec {
    pub(super) name: &'static str,
    pub(super) partitions: i32,
    settings: Vec<(&'static str, String)>,
}

pub(super) fn all(partitioner: Partitioner) -> [TopicSpec; 4] {
    const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
    let record_max = (RECORD_BYTES_MAX + ENVELOPE_BYTES_MAX).to_string();
    let kept_a_week = || {
        vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", WEEK_MS.to_string()),
            ("max.message.bytes", record_max.clone()),
        ]
    };
    let mut raw = kept_a_week();
    // Arrival is the log's own time: a producer's clock decides nothing about completeness.
    raw.push(("message.timestamp.type", "LogAppendTime".to_owned()));
    let compacted = vec![("cleanup.policy", "compact".to_owned())];
    [
        TopicSpec { name: RAW_CLICKS, partitions: partitioner.partitions(), settings: raw },
        TopicSpec { name: WINDOW_COUNTS, partitions: WINDOW_COUNTS_PARTITIONS, settings: compacted },
        TopicSpec { name: LATE_CLICKS, partitions: LATE_CLICKS_PARTITIONS, settings: kept_a_week() },
        TopicSpec { name: QUARANTINE, partitions: QUARANTINE_PARTITIONS, settings: kept_a_week() },
    ]
}

impl TopicSpec {
    /// `replication`: copies of each partition; `None` leaves it to the brokers' own default.
    pub(super) fn as_new_topic(&self, replication: Option<i32>) -> NewTopic<'_> {
        let copies = TopicReplication::Fixed(replication.unwrap_or(-1));
        let topic = NewTopic::new(self.name, self.partitions, copies);
        self.settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
    }

    /// Only the raw topic's partitions mean something: they are the shards.
    pub(super) fn check(&self, found: usize) -> Result<(), LogError> {
        if self.name != RAW_CLICKS || i32::try_from(found) == Ok(self.partitions) {
            return Ok(());
        }
        Err(LogError::Fatal(format!(
            "topic {} has {found} partitions, but groups × 16 makes {}: a partition is a shard, so set cluster.groups to the \
             number the topic was made for, or give the new cluster a topic of its own",
            self.name, self.partitions
        )))
    }
}
