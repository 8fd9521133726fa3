//! Which broker leads which partition of the raw topic, as last heard.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::click_log::RAW_CLICKS;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::connection::{Connection, ConnectionError};

/// From the first that can be told not to make topics to the last without a surprise.
const METADATA_VERSIONS: std::ops::RangeInclusive<i16> = 4..=9;

pub(super) type BrokerId = i32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) broker: BrokerId,
    /// Sent along, so that one who no longer leads, or does not know yet that it does, says so.
    pub(super) epoch: i32,
}

#[derive(Debug, Default)]
pub(super) struct Leaders {
    /// `host:port`.
    pub(super) brokers: BTreeMap<BrokerId, String>,
    /// By partition; those without a leader are missing.
    partitions: BTreeMap<i32, Leader>,
}

impl Leaders {
    /// `Err` of the inner result: the topic itself is refused.
    pub(super) async fn ask(address: &str) -> Result<Result<Leaders, ResponseError>, ConnectionError> {
        let mut connection = Connection::open(address).await?;
        let version = connection.version(ApiKey::Metadata, METADATA_VERSIONS)?;
        let topic = MetadataRequestTopic::default().with_name(Some(raw_topic()));
        let question = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let answer = connection.ask(ApiKey::Metadata, version, &question, Duration::ZERO).await?;
        Ok(Leaders::of(answer.message))
    }

    fn of(answer: MetadataResponse) -> Result<Leaders, ResponseError> {
        let brokers = answer.brokers.into_iter();
        let brokers = brokers.map(|broker| (broker.node_id.0, format!("{}:{}", broker.host, broker.port))).collect();
        let mut partitions = BTreeMap::new();
        for topic in answer.topics {
            if let Some(code) = topic.error_code.err() {
                return Err(code);
            }
            let led = topic.partitions.into_iter().filter(|partition| partition.leader_id.0 >= 0);
            partitions.extend(led.map(|partition| {
                let leader = Leader { broker: partition.leader_id.0, epoch: partition.leader_epoch };
                (partition.partition_index, leader)
            }));
        }
        Ok(Leaders { brokers, partitions })
    }

    pub(super) fn of_partition(&self, partition: i32) -> Option<Leader> {
        self.partitions.get(&partition).copied()
    }

    /// Does nothing if somebody else is known to lead it meanwhile.
    pub(super) fn forget(&mut self, partition: i32, heard_from: Leader) {
        if self.partitions.get(&partition) == Some(&heard_from) {
            self.partitions.remove(&partition);
        }
    }

    /// A broker out of reach leads nothing as far as we are concerned, until the log says again that it does.
    pub(super) fn forget_broker(&mut self, broker: BrokerId) {
        self.partitions.retain(|_, leader| leader.broker != broker);
    }
}

pub(super) fn raw_topic() -> TopicName {
    TopicName(StrBytes::from_static_str(RAW_CLICKS))
}
