//! Asks the brokers for the records of every partition that has a reader, on a thread of its own.
//!
//! One task learns which broker leads which partition. For each broker, one task asks it again and again: while one
//! answer is counted, the next is on its way. A question that fails on the way is asked again from the same offsets,
//! and readers do not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::click_log::LogError;
use clicktally_proto::identity::log_id::LogId;
use clicktally_proto::identity::shard_key::ShardId;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::broker_connection::{Answer, BrokerConnection, BrokerError};
use super::feed::{Chunk, Feed, FetchPosition, Hold, NodeMemory};
use super::fetch_answer::FetchAnswer;
use super::fetch_plan::{self, ANSWER_BYTES, HELD_BYTES_MAX_MIN, PARTITION_BYTES};
use super::leaders::{BrokerId, Leader, Leaders};
use crate::connection::KafkaConnection;

/// From the first version that carries format 2 to the last that identifies topics by name.
const FETCH_VERSIONS: std::ops::RangeInclusive<i16> = 4..=12;
/// The first version that carries the epoch of the last batch.
const EPOCH_CHECK_VERSION: i16 = 12;
/// Answers end at the first open transaction, and name the aborted ones.
const READ_COMMITTED: i8 = 1;
/// The pause between two questions for leaders while some are unknown. It doubles from the smallest to the largest.
const LEADERS_BACKOFF_MIN: Duration = Duration::from_millis(50);
const LEADERS_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// After this long without a question for leaders, the next one is asked at once.
const LEADERS_QUIET: Duration = Duration::from_secs(5);

/// Fetches until dropped.
#[derive(Debug)]
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    connection: KafkaConnection,
    topic: TopicName,
    memory: Arc<NodeMemory>,
    /// At most one for each partition, for as long as its reader lives.
    feeds: Mutex<BTreeMap<i32, Arc<Feed>>>,
    leaders: Mutex<Leaders>,
    identity: Mutex<Identity>,
    /// Notified when the leader of a partition with a reader is not known.
    leaders_wanted: Notify,
}

/// Which topic is read. Offsets of a topic that was made again under the same name hold other records, and leader
/// epochs begin anew with it.
#[derive(Debug, Default)]
struct Identity {
    first: Option<LogId>,
    /// Fails every reader, also later ones. The next process begins with the topic that it finds.
    failure: Option<LogError>,
}

impl Identity {
    fn note(&mut self, found: LogId) -> Option<LogError> {
        let counted = *self.first.get_or_insert(found);
        if counted != found {
            self.failure = Some(LogError::OtherLog { counted, found });
        }
        self.failure.clone()
    }
}

impl Fetcher {
    /// Connects when the first reader is opened.
    pub(crate) fn start(connection: KafkaConnection, topic: &str, held_bytes_max: usize) -> std::io::Result<Fetcher> {
        assert!(held_bytes_max >= HELD_BYTES_MAX_MIN, "an answer on its way has room");
        let shared = Arc::new(Shared {
            connection,
            topic: TopicName(StrBytes::from_string(topic.to_owned())),
            memory: Arc::new(NodeMemory::new(held_bytes_max)),
            feeds: Mutex::default(),
            leaders: Mutex::default(),
            identity: Mutex::default(),
            leaders_wanted: Notify::new(),
        });
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (fetching, stopped) = (Arc::clone(&shared), stop.clone());
        let thread = std::thread::Builder::new().name("log-fetch".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = keep_leaders(fetching) => {}
                    () = stopped.cancelled() => {}
                }
            });
        })?;
        Ok(Fetcher { shared, stop, thread: Some(thread) })
    }

    /// `None`: an earlier reader of the shard is still open.
    pub(super) fn open(&self, shard: ShardId, from: u64) -> Option<OpenFeed> {
        let mut feeds = self.shared.feeds.lock();
        if feeds.contains_key(&shard.partition()) {
            return None;
        }
        let feed = Arc::new(Feed::new(shard, from, Arc::clone(&self.shared.memory)));
        if let Some(failure) = self.shared.identity.lock().failure.clone() {
            feed.fail(failure);
        }
        feeds.insert(shard.partition(), Arc::clone(&feed));
        drop(feeds);
        if self.shared.leaders.lock().of_partition(shard.partition()).is_none() {
            self.shared.leaders_wanted.notify_one();
        }
        self.shared.memory.tell();
        Some(OpenFeed { feed, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.stop.cancel();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the log's fetcher panicked");
        }
    }
}

/// Its partition is fetched until this is dropped.
#[derive(Debug)]
pub(super) struct OpenFeed {
    pub(super) feed: Arc<Feed>,
    shared: Arc<Shared>,
}

impl Drop for OpenFeed {
    fn drop(&mut self) {
        self.shared.feeds.lock().remove(&self.feed.shard.partition());
        self.shared.memory.tell();
    }
}

/// Learns the leaders when some are wanted, and keeps one task for each broker.
async fn keep_leaders(shared: Arc<Shared>) {
    let mut brokers: BTreeSet<BrokerId> = BTreeSet::new();
    let mut asking: JoinSet<BrokerId> = JoinSet::new();
    let (mut backoff, mut asked_last) = (LEADERS_BACKOFF_MIN, None);
    loop {
        tokio::select! {
            () = shared.leaders_wanted.notified() => {}
            Some(ended) = asking.join_next() => match ended {
                Ok(broker) => {
                    brokers.remove(&broker);
                }
                // This is a bug of ours. Every reader fails, is opened again at the offset due, and all tasks start
                // anew.
                Err(error) => {
                    tracing::error!(%error, "a task that fetches from the log panicked");
                    asking = JoinSet::new();
                    brokers.clear();
                    *shared.leaders.lock() = Leaders::default();
                    shared.fail_all(&LogError::Unavailable("the fetching task panicked".into()));
                }
            },
        }
        if shared.is_any_leader_unknown() {
            match asked_last {
                Some(last) if Instant::now() - last < LEADERS_QUIET => {
                    tokio::time::sleep_until(last + backoff).await;
                    backoff = (backoff * 2).min(LEADERS_BACKOFF_MAX);
                }
                _ => backoff = LEADERS_BACKOFF_MIN,
            }
            shared.learn_leaders().await;
            asked_last = Some(Instant::now());
            if shared.is_any_leader_unknown() {
                shared.leaders_wanted.notify_one();
            }
        }
        let known = shared.leaders.lock().brokers.clone();
        for (broker, address) in known {
            if brokers.insert(broker) {
                asking.spawn(ask_broker(Arc::clone(&shared), broker, address));
            }
        }
        shared.memory.tell();
    }
}

/// Asks one broker until it is unreachable, or gone from the cluster.
async fn ask_broker(shared: Arc<Shared>, broker: BrokerId, address: String) -> BrokerId {
    if let Err(error) = shared.ask_until_lost(broker, &address).await {
        tracing::warn!(broker, address, %error, "lost a broker of the log; asking which broker leads its partitions now");
    }
    shared.leaders.lock().forget_broker(broker);
    shared.leaders_wanted.notify_one();
    broker
}

type Asked = Vec<(FetchPosition, (Arc<Feed>, Leader))>;

impl Shared {
    fn is_any_leader_unknown(&self) -> bool {
        let leaders = self.leaders.lock();
        self.feeds.lock().keys().any(|&partition| leaders.of_partition(partition).is_none())
    }

    fn fail_all(&self, error: &LogError) {
        self.feeds.lock().values().for_each(|feed| feed.fail(error.clone()));
    }

    /// Asks the known brokers, then the configured ones, until one answers.
    async fn learn_leaders(&self) {
        let known: Vec<String> = self.leaders.lock().brokers.values().cloned().collect();
        for address in known.iter().chain(&self.connection.bootstrap_addresses()) {
            match Leaders::ask(&self.connection, &self.topic, address).await {
                Ok(Ok(leaders)) => {
                    if let Some(failure) = leaders.topic_id.and_then(|found| self.identity.lock().note(found)) {
                        self.fail_all(&failure);
                    }
                    *self.leaders.lock() = leaders;
                    return;
                }
                Ok(Err(code @ ResponseError::TopicAuthorizationFailed)) => {
                    self.fail_all(&LogError::Fatal(code.to_string()));
                    return;
                }
                Ok(Err(code)) => {
                    tracing::warn!(address, topic = %*self.topic, %code, "the log does not know the topic yet")
                }
                Err(error) => tracing::warn!(address, %error, "cannot ask which broker leads the log's partitions"),
            }
        }
    }

    async fn ask_until_lost(&self, broker: BrokerId, address: &str) -> Result<(), BrokerError> {
        let mut connection: Option<BrokerConnection> = None;
        let mut answers = 0;
        loop {
            if self.leaders.lock().brokers.get(&broker).is_none_or(|known| known != address) {
                return Ok(());
            }
            // Counted before the answer comes, so that brokers asked at the same time do not exceed the limit together.
            let mut hold = self.memory.hold(ANSWER_BYTES);
            let (asked, left_out) = match self.choose(broker) {
                (asked, _) if asked.is_empty() => {
                    drop(hold);
                    self.wait_for_room(broker).await;
                    continue;
                }
                chosen => chosen,
            };
            let connection = match &mut connection {
                Some(connection) => connection,
                none => none.insert(BrokerConnection::open(&self.connection, address).await?),
            };
            let version = connection.version(ApiKey::Fetch, FETCH_VERSIONS)?;
            let wait = fetch_plan::wait_max(left_out > 0);
            let question = question(&self.topic, &asked, version, wait);
            let sent = Instant::now();
            let answer: Answer<FetchResponse> = connection.ask(ApiKey::Fetch, version, &question, wait).await?;
            hold.resize(answer.bytes);
            // The answer is smaller than what was counted for it, so another broker may be asked now.
            self.memory.tell();
            answers += 1;
            self.hand_out(asked, answer.message, &Arc::new(hold), answers)?;
            tokio::time::sleep_until(sent + fetch_plan::pause(answer.bytes)).await;
        }
    }

    /// Waits until some partition of the broker may be asked for again, or something else has changed.
    async fn wait_for_room(&self, broker: BrokerId) {
        let room = self.memory.room.notified();
        tokio::pin!(room);
        // 1. Listen, 2. look once more: so no notification is missed between the two.
        room.as_mut().enable();
        self.memory.want_room();
        // Counts the answer to come, as the question does. Otherwise this finds room where the question finds none.
        let hold = self.memory.hold(ANSWER_BYTES);
        let is_full = self.choose(broker).0.is_empty();
        drop(hold);
        if is_full {
            room.await;
        }
    }

    /// The broker's partitions that there is memory for, and the number of its other partitions.
    fn choose(&self, broker: BrokerId) -> (Asked, usize) {
        let (leaders, feeds) = (self.leaders.lock(), self.feeds.lock());
        let mut led: Asked = feeds
            .iter()
            .filter_map(|(&partition, feed)| {
                let leader = leaders.of_partition(partition).filter(|leader| leader.broker == broker)?;
                Some((feed.position()?, (Arc::clone(feed), leader)))
            })
            .collect();
        drop((leaders, feeds));
        let all = led.len();
        led.retain(|(position, _)| fetch_plan::has_room(position, &self.memory));
        fetch_plan::put_in_order(&mut led);
        let left_out = all - led.len();
        (led, left_out)
    }

    fn hand_out(&self, asked: Asked, answer: FetchResponse, hold: &Arc<Hold>, served: u64) -> Result<(), BrokerError> {
        if let Some(code) = ResponseError::try_from_code(answer.error_code) {
            return Err(BrokerError::Protocol(code.to_string()));
        }
        let mut asked: BTreeMap<i32, _> =
            asked.into_iter().map(|(position, to)| (to.0.shard.partition(), (position, to))).collect();
        for part in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let Some((position, (feed, leader))) = asked.remove(&part.partition_index) else { continue };
            match FetchAnswer::of(feed.shard, position.offset, part) {
                FetchAnswer::Records { batches, aborted, next_offset, last_epoch } => {
                    let chunk = Chunk { batches, aborted, answer: Arc::clone(hold) };
                    feed.push(chunk, next_offset, last_epoch, served);
                }
                FetchAnswer::Nothing => {}
                FetchAnswer::LeaderMoved(code) => {
                    tracing::info!(shard = feed.shard.0, %code, "asking which broker leads a partition of the log now");
                    self.leaders.lock().forget(feed.shard.partition(), leader);
                    self.leaders_wanted.notify_one();
                }
                FetchAnswer::Failed(error) => feed.fail(error),
            }
        }
        Ok(())
    }
}

fn question(topic: &TopicName, asked: &Asked, version: i16, wait: Duration) -> FetchRequest {
    let partitions = asked.iter().map(|(position, (feed, leader))| {
        let partition = FetchPartition::default()
            .with_partition(feed.shard.partition())
            .with_current_leader_epoch(leader.epoch)
            // Always fits: checked when the reader was opened, and since then these are the broker's own offsets.
            .with_fetch_offset(i64::try_from(position.offset).unwrap_or(i64::MAX))
            .with_partition_max_bytes(to_i32(PARTITION_BYTES));
        if version >= EPOCH_CHECK_VERSION { partition.with_last_fetched_epoch(position.last_epoch) } else { partition }
    });
    let topic = FetchTopic::default().with_topic(topic.clone()).with_partitions(partitions.collect());
    FetchRequest::default()
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_isolation_level(READ_COMMITTED)
        .with_max_bytes(to_i32(ANSWER_BYTES))
        .with_topics(vec![topic])
}

fn to_i32(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
