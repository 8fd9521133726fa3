//! The Log seam over the model of the log: what one node sees of it, with answers that take their time, fail, or stay away.

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::click_log::{ClickLog, LogError, LogRecord, OutRecord, ShardReader};
use clicktally_proto::shard_key::ShardId;

use super::world::World;
use crate::simulation::sim_log::Fate;

pub(super) struct NodeLog(pub(super) Arc<World>);

impl NodeLog {
    async fn wait(&self) {
        let ms = {
            let mut weather = self.0.log_weather.lock();
            let (least, most) = weather.answer_ms;
            weather.random.between(least, most)
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// What becomes of a write now.
    fn fate(&self) -> Fate {
        let mut weather = self.0.log_weather.lock();
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
        self.0.log.lock().read(shard, from, 0)?;
        Ok(Box::new(Reader { world: Arc::clone(&self.0), shard, position: from, failed: None }))
    }

    async fn end_offset(&self, shard: ShardId) -> Result<u64, LogError> {
        self.wait().await;
        let end = self.0.log.lock().end_offset(shard)?;
        // The answer travels, too: it may be old when it arrives.
        self.wait().await;
        if self.fate() == Fate::Lost {
            return Err(LogError::Unavailable("no answer in time".to_owned()));
        }
        Ok(end)
    }

    async fn publish(&self, records: Vec<OutRecord>) -> Result<(), LogError> {
        self.wait().await;
        let fate = self.fate();
        let now_ms = self.0.now_ms();
        let written = self.0.log.lock().publish(&records, now_ms, fate);
        self.0.line(format_args!(
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
    shard: ShardId,
    position: u64,
    failed: Option<LogError>,
}

impl ShardReader for Reader {
    fn drain(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> Result<usize, LogError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let log = self.world.log.lock();
        let records = match log.read(self.shard, self.position, records_max) {
            Ok(records) => records,
            Err(error) => {
                self.failed = Some(error.clone());
                return Err(error);
            }
        };
        let first = self.position;
        for (offset, record) in (first..).zip(records) {
            take(LogRecord { offset, arrival_ms: record.arrival_ms, value: &record.value });
        }
        self.position = first + records.len() as u64;
        Ok(records.len())
    }
}
