//! Asks the brokers for the id of a topic.

use clicktally_proto::click_log::LogError;
use clicktally_proto::identity::log_id::LogId;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

use super::broker_connection::BrokerError;
use super::leaders::Leaders;
use crate::connection::KafkaConnection;

/// Asks the configured brokers until one answers. `None`: the broker gives topics no ids.
pub(crate) async fn topic_id(connection: &KafkaConnection, topic: &str) -> Result<Option<LogId>, LogError> {
    let topic = TopicName(StrBytes::from_string(topic.to_owned()));
    let mut reason = "no broker is configured".to_owned();
    for address in connection.bootstrap_addresses() {
        match Leaders::ask(connection, &topic, &address).await {
            Ok(Ok(leaders)) => return Ok(leaders.topic_id),
            Ok(Err(code @ ResponseError::TopicAuthorizationFailed)) => return Err(LogError::Fatal(code.to_string())),
            Ok(Err(code)) => reason = code.to_string(),
            Err(BrokerError::Version { .. }) => return Ok(None),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(LogError::Unavailable(reason))
}
