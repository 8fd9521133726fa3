//! The Log seam over the model of the log: one node's view of it, with answers that are slow, fail, or never come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::click_log::{ClickLog, LogError, LogRecord, OutRecord, ShardReader};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::log_id::LogId;
use clicktally_proto::identity::shard_key::ShardId;
use parking_lot::Mutex;

use super::shape::Shape;
use super::world::{LogWeather, World};
use crate::simulation::edition::Story;
use crate::simulation::random::{Seed, Stream};
use crate::simulation::sim_log::Fate;

pub(super) struct NodeLog {
    world: Arc<World>,
    /// Each has one reader at a time.
    opened: Arc<Mutex<BTreeSet<ShardId>>>,
}

impl NodeLog {
    pub(super) fn new(world: Arc<World>) -> NodeLog {
        NodeLog { world, opened: Arc::default() }
    }

    async fn wait(&self) {
        self.wait_by(|weather| &mut weather.random).await;
    }

    /// Has draws of its own, so that the other answers of a seed take as long as before there were these.
    async fn wait_for_time(&self) {
        self.wait_by(|weather| &mut weather.time_random).await;
    }

    async fn wait_by(&self, draws: fn(&mut LogWeather) -> &mut Stream) {
        let ms = {
            let mut weather = self.world.log_weather.lock();
            let (least, most) = weather.answer_ms;
            draws(&mut weather).between(least, most)
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// The outcome of a write at this moment.
    fn fate(&self) -> Fate {
        let mut weather = self.world.log_weather.lock();
        let doubt = weather.doubt_permille;
        if !weather.random.permille(doubt) {
            return Fate::Written;
        }
        let fates = [Fate::WrittenUnknown, Fate::HalfWrittenUnknown, Fate::WrittenTwice, Fate::Lost];
        weather.random.pick(&fates).copied().unwrap_or(Fate::Written)
    }
}

#[async_trait::async_trait]
impl ClickLog for NodeLog {
    fn open(&self, shard: ShardId, from: u64) -> Result<Box<dyn ShardReader>, LogError> {
        self.world.log.lock().read(shard, from, 0)?;
        if !self.opened.lock().insert(shard) {
            return Err(LogError::Unavailable(format!("an earlier reader of shard {} is still open", shard.0)));
        }
        let (world, opened) = (Arc::clone(&self.world), Arc::clone(&self.opened));
        Ok(Box::new(Reader { world, opened, shard, position: from, failed: None }))
    }

    async fn log_id(&self) -> Result<Option<LogId>, LogError> {
        Ok(self.world.log_id.get().copied())
    }

    async fn end_offset(&self, shard: ShardId) -> Result<u64, LogError> {
        self.wait().await;
        let end = self.world.log.lock().end_offset(shard)?;
        // The answer travels too, so it may be outdated when it arrives.
        self.wait().await;
        if self.fate() == Fate::Lost {
            return Err(LogError::Unavailable("no answer in time".to_owned()));
        }
        Ok(end)
    }

    async fn time_ms(&self) -> Result<UnixMillis, LogError> {
        self.wait_for_time().await;
        let now_ms = self.world.now_ms();
        self.wait_for_time().await;
        Ok(now_ms)
    }

    async fn publish(&self, records: Vec<OutRecord>) -> Result<(), LogError> {
        self.wait().await;
        let told = self.world.log_weather.lock().next_write.take();
        let fate = told.unwrap_or_else(|| self.fate());
        let now_ms = self.world.now_ms();
        let written = self.world.log.lock().publish(&records, now_ms, fate);
        self.world.line(format_args!(
            "{} records to {}: {fate:?}",
            records.len(),
            records.first().map_or("-", |r| r.topic)
        ));
        self.wait().await;
        written
    }
}

struct Reader {
    world: Arc<World>,
    opened: Arc<Mutex<BTreeSet<ShardId>>>,
    shard: ShardId,
    position: u64,
    failed: Option<LogError>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.opened.lock().remove(&self.shard);
    }
}

impl ShardReader for Reader {
    fn drain(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> Result<usize, LogError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let log = self.world.log.lock();
        let mut taken = 0;
        while taken < records_max {
            let records = match log.read(self.shard, self.position, records_max - taken) {
                Ok([]) => break,
                Ok(records) => records,
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            };
            for record in records {
                if record.is_handed_over() {
                    take(LogRecord { offset: self.position, arrival_ms: record.arrival_ms, value: &record.value });
                    taken += 1;
                }
                self.position += 1;
            }
        }
        Ok(taken)
    }

    fn position(&self) -> u64 {
        self.position
    }
}

/// The log without a cluster, for the tests of the Log seam's contract.
pub struct LoneLog(Arc<World>);

impl LoneLog {
    pub fn new(seed: Seed) -> LoneLog {
        LoneLog(Arc::new(World::new(seed, Shape::draw(Story::newest(seed.0)))))
    }

    /// One node's view of it.
    pub fn as_node(&self) -> Box<dyn ClickLog> {
        Box::new(NodeLog::new(Arc::clone(&self.0)))
    }

    pub fn set_next_write(&self, fate: Fate) {
        self.0.log_weather.lock().next_write = Some(fate);
    }

    /// Another producer's transaction ends: its aborted records, then its marker.
    pub fn end_transaction(&self, shard: ShardId, aborted: &[&[u8]]) {
        let aborted = aborted.iter().map(|&value| value.into()).collect();
        self.0.log.lock().end_transaction(shard, self.0.now_ms(), aborted);
    }

    /// An unclean election loses everything from `end` on.
    pub fn cut(&self, shard: ShardId, end: u64) {
        self.0.log.lock().truncate(shard, end);
    }
}
