//! Which broker leads which partition of a topic, by the latest answer of a broker.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::identity::log_id::LogId;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, TopicName};

use super::broker_connection::{BrokerConnection, BrokerError};
use crate::connection::KafkaConnection;

/// From the first version that can be told not to make topics to the newest one that is tested here.
const METADATA_VERSIONS: std::ops::RangeInclusive<i16> = 4..=12;

pub(super) type BrokerId = i32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) broker: BrokerId,
    /// Sent with each Fetch, so that a broker which no longer leads, or does not know yet that it leads, answers so.
    pub(super) epoch: i32,
}

#[derive(Debug, Default)]
pub(super) struct Leaders {
    /// `host:port`.
    pub(super) brokers: BTreeMap<BrokerId, String>,
    /// By partition. A partition without a leader is missing.
    partitions: BTreeMap<i32, Leader>,
    /// `None`: the broker gives topics no ids.
    pub(super) topic_id: Option<LogId>,
}

impl Leaders {
    /// Asks one broker. The inner error is the broker's answer about the topic itself.
    pub(super) async fn ask(
        log: &KafkaConnection,
        topic: &TopicName,
        address: &str,
    ) -> Result<Result<Leaders, ResponseError>, BrokerError> {
        let mut connection = BrokerConnection::open(log, address).await?;
        let version = connection.version(ApiKey::Metadata, METADATA_VERSIONS)?;
        let topic = MetadataRequestTopic::default().with_name(Some(topic.clone()));
        let question = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let answer = connection.ask(ApiKey::Metadata, version, &question, Duration::ZERO).await?;
        Ok(Leaders::of(answer.message))
    }

    fn of(answer: MetadataResponse) -> Result<Leaders, ResponseError> {
        let brokers = answer.brokers.into_iter();
        let brokers = brokers.map(|broker| (broker.node_id.0, format!("{}:{}", broker.host, broker.port))).collect();
        let (mut partitions, mut topic_id) = (BTreeMap::new(), None);
        for topic in answer.topics {
            if let Some(code) = topic.error_code.err() {
                return Err(code);
            }
            topic_id = (!topic.topic_id.is_nil()).then(|| LogId(topic.topic_id.into_bytes()));
            let led = topic.partitions.into_iter().filter(|partition| partition.leader_id.0 >= 0);
            partitions.extend(led.map(|partition| {
                let leader = Leader { broker: partition.leader_id.0, epoch: partition.leader_epoch };
                (partition.partition_index, leader)
            }));
        }
        Ok(Leaders { brokers, partitions, topic_id })
    }

    pub(super) fn of_partition(&self, partition: i32) -> Option<Leader> {
        self.partitions.get(&partition).copied()
    }

    /// Does nothing if another leader is known by now.
    pub(super) fn forget(&mut self, partition: i32, heard_from: Leader) {
        if self.partitions.get(&partition) == Some(&heard_from) {
            self.partitions.remove(&partition);
        }
    }

    /// Treats an unreachable broker as leading nothing, until the log names it as a leader again.
    pub(super) fn forget_broker(&mut self, broker: BrokerId) {
        self.partitions.retain(|_, leader| leader.broker != broker);
    }
}
