//! Which topics there are, and the settings of each.

use clicktally_proto::click_log::{LATE_CLICKS, LogError, QUARANTINE, RAW_CLICKS, WINDOW_COUNTS};
use clicktally_proto::identity::shard_key::Partitioner;
use rdkafka::admin::{NewTopic, TopicReplication};

/// The largest raw record taken: bounds what one malformed record can cost a reader.
pub(crate) const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an outbound record may add around a raw one: quarantine carries the record and the reason.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 64 * 1024;

/// Few partitions: these topics carry aggregates and exceptions, and each partition costs its reader a progress row.
const WINDOW_COUNTS_PARTITIONS: i32 = 4;
const LATE_CLICKS_PARTITIONS: i32 = 4;
const QUARANTINE_PARTITIONS: i32 = 1;

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
    // Arrival is the broker's time, so that a producer's clock decides nothing about completeness.
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
    /// `replication`: copies of each partition. `None`: the brokers' default.
    pub(super) fn as_new_topic(&self, replication: Option<i32>) -> NewTopic<'_> {
        let copies = TopicReplication::Fixed(replication.unwrap_or(-1));
        let topic = NewTopic::new(self.name, self.partitions, copies);
        self.settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
    }

    /// Checks the number of partitions of the raw topic: each of its partitions is a shard. Other topics may have any
    /// number.
    pub(super) fn check(&self, found: usize) -> Result<(), LogError> {
        if self.name != RAW_CLICKS || i32::try_from(found) == Ok(self.partitions) {
            return Ok(());
        }
        Err(LogError::Fatal(format!(
            "topic {} has {found} partitions, but cluster.groups × 16 is {}. Each partition is a shard: set cluster.groups to \
             the number that the topic was made for, or give the new cluster a topic of its own",
            self.name, self.partitions
        )))
    }
}
