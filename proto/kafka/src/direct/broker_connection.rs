//! One connection to one broker: sends a question, then waits for its answer.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fetch_plan::ANSWER_BYTES_MAX;
use crate::connection::KafkaConnection;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole answer, beyond what the broker was allowed to wait. Only this notices a broker that vanished silently.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const CLIENT_ID: &str = "clicktally";

#[derive(Debug, Error)]
pub(super) enum BrokerError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the broker did not answer in time")]
    Late,
    #[error("the broker does not follow the protocol: {0}")]
    Protocol(String),
    #[error("the broker supports {api:?} in versions {theirs:?}, and {ours:?} is needed: use Kafka 0.11 or newer")]
    Version { api: ApiKey, theirs: Option<(i16, i16)>, ours: RangeInclusive<i16> },
}

/// Drop the connection after an error: the answer to the failed question may still be on its way.
#[derive(Debug)]
pub(super) struct BrokerConnection {
    stream: TcpStream,
    questions: i32,
    /// The oldest and newest version that the broker supports, by the key of the API.
    versions: BTreeMap<i16, (i16, i16)>,
}

/// An answer, and its size on the wire.
pub(super) struct Answer<A> {
    pub(super) message: A,
    pub(super) bytes: usize,
}

impl BrokerConnection {
    /// `address`: `host:port`.
    pub(super) async fn open(log: &KafkaConnection, address: &str) -> Result<BrokerConnection, BrokerError> {
        let stream = timeout(CONNECT_TIMEOUT, log.open_stream(address)).await.map_err(|_| BrokerError::Late)??;
        stream.set_nodelay(true)?;
        let mut connection = BrokerConnection { stream, questions: 0, versions: BTreeMap::new() };
        // Every broker supports version 0 of this question.
        let question = ApiVersionsRequest::default();
        let asked = connection.ask::<_, ApiVersionsResponse>(ApiKey::ApiVersions, 0, &question, Duration::ZERO);
        let answer = asked.await?.message;
        connection.versions =
            answer.api_keys.into_iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(connection)
    }

    /// The newest version of an API that both sides support.
    pub(super) fn version(&self, api: ApiKey, ours: RangeInclusive<i16>) -> Result<i16, BrokerError> {
        let theirs = self.versions.get(&(api as i16)).copied();
        match theirs {
            Some((oldest, newest)) if oldest <= *ours.end() && newest >= *ours.start() => Ok(newest.min(*ours.end())),
            _ => Err(BrokerError::Version { api, theirs, ours }),
        }
    }

    /// `held_back`: how long the broker may hold the answer back. The `Bytes` of an answer are slices of one buffer.
    pub(super) async fn ask<Q, A>(
        &mut self,
        api: ApiKey,
        version: i16,
        question: &Q,
        held_back: Duration,
    ) -> Result<Answer<A>, BrokerError>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        self.questions = self.questions.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.questions)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, Q::header_version(version)).map_err(protocol)?;
        question.encode(&mut frame, version).map_err(protocol)?;
        let length = i32::try_from(frame.len() - 4).map_err(protocol)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());

        let exchange = async {
            self.stream.write_all(&frame).await?;
            read_frame(&mut self.stream).await
        };
        let mut answer = timeout(held_back + ANSWER_TIMEOUT, exchange).await.map_err(|_| BrokerError::Late)??;
        let bytes = answer.len();
        let header = ResponseHeader::decode(&mut answer, A::header_version(version)).map_err(protocol)?;
        if header.correlation_id != self.questions {
            return Err(BrokerError::Protocol("it answered a different question".into()));
        }
        let message = A::decode(&mut answer, version).map_err(protocol)?;
        Ok(Answer { message, bytes })
    }
}

async fn read_frame(stream: &mut TcpStream) -> Result<Bytes, BrokerError> {
    let length = stream.read_i32().await?;
    let length = usize::try_from(length).ok().filter(|&length| length <= ANSWER_BYTES_MAX).ok_or_else(|| {
        BrokerError::Protocol(format!(
            "it announced an answer of {length} bytes, above the limit of {ANSWER_BYTES_MAX}"
        ))
    })?;
    let mut frame = BytesMut::with_capacity(length);
    while frame.len() < length {
        let missing = length - frame.len();
        if stream.read_buf(&mut (&mut frame).limit(missing)).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
    debug_assert_eq!(frame.remaining(), length);
    Ok(frame.freeze())
}

fn protocol(error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Protocol(error.to_string())
}
