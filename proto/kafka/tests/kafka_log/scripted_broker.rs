//! A broker that answers each Fetch as a test tells it to, for answers that a real broker does not give on demand.

use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clicktally_proto::click_log::RAW_CLICKS;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, FetchRequest, FetchResponse, MetadataResponse, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes, decode_request_header_from_buffer};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PARTITIONS: i32 = 16;

/// The answer for one partition of a Fetch.
type Script = dyn FnMut(&FetchPartition) -> PartitionData + Send;

/// Serves until the runtime of the test ends.
pub(crate) struct ScriptedBroker {
    pub(crate) address: String,
}

impl ScriptedBroker {
    pub(crate) async fn start(script: impl FnMut(&FetchPartition) -> PartitionData + Send + 'static) -> ScriptedBroker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(script));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that disconnects ends only its own connection.
                tokio::spawn(serve(stream, port, Arc::clone(&script)));
            }
        });
        ScriptedBroker { address: format!("127.0.0.1:{port}") }
    }
}

async fn serve(mut stream: TcpStream, port: u16, script: Arc<Mutex<Script>>) -> std::io::Result<()> {
    loop {
        let length = stream.read_i32().await?;
        let mut question = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut question).await?;
        let mut question = Bytes::from(question);
        let header = decode_request_header_from_buffer(&mut question).unwrap();
        let version = header.request_api_version;
        let mut answer = BytesMut::new();
        match ApiKey::try_from(header.request_api_key).unwrap() {
            ApiKey::ApiVersions => write(&mut answer, header.correlation_id, version, &versions()),
            ApiKey::Metadata => write(&mut answer, header.correlation_id, version, &metadata(port)),
            ApiKey::Fetch => {
                let question = FetchRequest::decode(&mut question, version).unwrap();
                let asked = question.topics.iter().flat_map(|topic| &topic.partitions);
                let partitions = {
                    let mut script = script.lock().unwrap();
                    asked.map(|partition| script(partition).with_partition_index(partition.partition)).collect()
                };
                let topic = FetchableTopicResponse::default().with_topic(topic()).with_partitions(partitions);
                write(
                    &mut answer,
                    header.correlation_id,
                    version,
                    &FetchResponse::default().with_responses(vec![topic]),
                );
            }
            other => panic!("unexpected question {other:?}"),
        }
        assert!(!question.has_remaining() || header.request_api_key != ApiKey::Fetch as i16);
        stream.write_i32(i32::try_from(answer.len()).unwrap()).await?;
        stream.write_all(&answer).await?;
    }
}

fn write<A: Encodable + HeaderVersion>(into: &mut BytesMut, question: i32, version: i16, answer: &A) {
    ResponseHeader::default().with_correlation_id(question).encode(into, A::header_version(version)).unwrap();
    answer.encode(into, version).unwrap();
}

fn versions() -> ApiVersionsResponse {
    let known = [(ApiKey::Fetch, 4, 12), (ApiKey::Metadata, 4, 9), (ApiKey::ApiVersions, 0, 0)];
    let version = |(key, oldest, newest)| {
        ApiVersion::default().with_api_key(key as i16).with_min_version(oldest).with_max_version(newest)
    };
    ApiVersionsResponse::default().with_api_keys(known.into_iter().map(version).collect())
}

fn metadata(port: u16) -> MetadataResponse {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(1))
        .with_host(StrBytes::from_static_str("127.0.0.1"))
        .with_port(i32::from(port));
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(1))
            .with_leader_epoch(3)
    };
    let topic = MetadataResponseTopic::default()
        .with_name(Some(topic()))
        .with_partitions((0..PARTITIONS).map(partition).collect());
    MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(RAW_CLICKS))
}

/// A batch with a record of `value_bytes` bytes at each of `offsets`, which may have holes. A control batch has COMMIT
/// markers instead.
pub(crate) fn batch(offsets: &[i64], value_bytes: usize, is_control: bool) -> Bytes {
    let value = Bytes::from(vec![b'x'; value_bytes]);
    let record = |&offset: &i64| Record {
        transactional: is_control,
        control: is_control,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::LogAppend,
        offset,
        sequence: i32::try_from(offset).unwrap(),
        timestamp: 1_800_000_000_000,
        key: is_control.then(|| Bytes::from_static(&[0, 0, 0, 1])),
        value: Some(value.clone()),
        headers: Default::default(),
    };
    let records: Vec<_> = offsets.iter().map(record).collect();
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut batch, records.iter(), &options).unwrap();
    batch.freeze()
}

pub(crate) fn answer(batches: &[Bytes]) -> PartitionData {
    let mut records = BytesMut::new();
    batches.iter().for_each(|batch| records.put_slice(batch));
    PartitionData::default().with_records(Some(records.freeze()))
}
