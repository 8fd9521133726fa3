//! Which topics there are, and the settings of each.

use std::collections::BTreeMap;

use clicktally_proto::click_log::{LATE_CLICKS, LOG_CLOCK, LogError, QUARANTINE, RAW_CLICKS, WINDOW_COUNTS};
use clicktally_proto::identity::shard_key::Partitioner;
use rdkafka::admin::{NewTopic, TopicReplication};

use crate::topic_settings::{Needed, TopicSettings, check_copies, complaints};

/// The largest raw record that this system writes.
pub const WRITTEN_RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an outbound record may add around a raw one.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 64 * 1024;

/// Few partitions: these topics carry aggregates and exceptions, and each partition costs its reader a progress row.
const WINDOW_COUNTS_PARTITIONS: i32 = 4;
const LATE_CLICKS_PARTITIONS: i32 = 4;
const QUARANTINE_PARTITIONS: i32 = 1;
const LOG_CLOCK_PARTITIONS: i32 = 1;

pub(super) struct TopicSpec {
    pub(super) name: &'static str,
    pub(super) partitions: i32,
    settings: TopicSettings,
}

/// `replication`: copies of each partition that this node makes topics with. `None`: the brokers' default.
pub(super) fn all(partitioner: Partitioner, replication: Option<i32>) -> [TopicSpec; 5] {
    const HOUR_MS: u64 = 60 * 60 * 1_000;
    const WEEK_MS: u64 = 7 * 24 * HOUR_MS;
    let record_max = (WRITTEN_RECORD_BYTES_MAX + ENVELOPE_BYTES_MAX) as u64;
    // Two of three copies: an acknowledged record survives the loss of a broker, and one broker may be away.
    let in_sync = (replication.unwrap_or(0) >= 3).then_some(("min.insync.replicas", Needed::AtLeast(2)));
    let kept_a_week = || {
        let mut settings = vec![
            ("cleanup.policy", Needed::Exactly("delete")),
            ("retention.ms", Needed::AtLeast(WEEK_MS)),
            ("max.message.bytes", Needed::AtLeast(record_max)),
        ];
        settings.extend(in_sync.clone());
        settings
    };
    let mut raw = kept_a_week();
    // A limit by size would drop clicks that are not archived yet.
    raw.push(("retention.bytes", Needed::Exactly("-1")));
    // Arrival is the broker's time, so that a producer's clock decides nothing about completeness.
    raw.push(("message.timestamp.type", Needed::Exactly("LogAppendTime")));
    let mut compacted = vec![("cleanup.policy", Needed::Exactly("compact"))];
    compacted.extend(in_sync.clone());
    // It has no reader: the stamp is in the acknowledgement.
    let clock = vec![
        ("cleanup.policy", Needed::Exactly("delete")),
        ("retention.ms", Needed::AtLeast(HOUR_MS)),
        ("message.timestamp.type", Needed::Exactly("LogAppendTime")),
    ];
    [
        TopicSpec { name: RAW_CLICKS, partitions: partitioner.partitions(), settings: raw },
        TopicSpec { name: WINDOW_COUNTS, partitions: WINDOW_COUNTS_PARTITIONS, settings: compacted },
        TopicSpec { name: LATE_CLICKS, partitions: LATE_CLICKS_PARTITIONS, settings: kept_a_week() },
        TopicSpec { name: QUARANTINE, partitions: QUARANTINE_PARTITIONS, settings: kept_a_week() },
        TopicSpec { name: LOG_CLOCK, partitions: LOG_CLOCK_PARTITIONS, settings: clock },
    ]
}

impl TopicSpec {
    /// `values`: of [`TopicSpec::values`]. `replication`: copies of each partition. `None`: the brokers' default.
    pub(super) fn as_new_topic<'a>(&'a self, values: &'a [String], replication: Option<i32>) -> NewTopic<'a> {
        let copies = TopicReplication::Fixed(replication.unwrap_or(-1));
        let topic = NewTopic::new(self.name, self.partitions, copies);
        self.settings.iter().zip(values).fold(topic, |topic, ((key, _), value)| topic.set(key, value))
    }

    /// The values of the settings of a new topic, in their order.
    pub(super) fn values(&self) -> Vec<String> {
        self.settings.iter().map(|(_, needed)| needed.value()).collect()
    }

    /// What is wrong with a topic that exists, each with its cure.
    ///
    /// `copies`: of its partition with the fewest.
    pub(super) fn complaints(
        &self,
        found: &BTreeMap<String, String>,
        copies: usize,
        replication: Option<i32>,
        brokers: &str,
    ) -> Vec<String> {
        let in_sync = found.get("min.insync.replicas").map(String::as_str);
        let copies = check_copies(self.name, copies, replication.unwrap_or(0), in_sync);
        let mut complaints = complaints(self.name, &self.settings, found, brokers);
        complaints.extend(copies.err());
        complaints
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
