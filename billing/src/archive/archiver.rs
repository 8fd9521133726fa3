//! Reads: the raw topic from where the manifest ends. Writes: a file, durably; then its manifest row. Promises: only
//! one archiver at a time, fenced by PostgreSQL; at most [`ArchiveOptions::buffered_bytes_max`] of records held. On
//! restart: nothing to recover; it reads on from the manifest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clicktally_database::billing::manifest::archived_offsets_of;
use clicktally_database::billing::{NewFile, manifest};
use clicktally_database::notifications::{Channel, Listener};
use clicktally_database::{AdvisoryLock, Database, LockSession};
use clicktally_kafka::{FetchBy, KafkaConnection};
use clicktally_proto::click_log::{LogError, RAW_CLICKS};
use clicktally_proto::clock::Clock;
use clicktally_proto::fault;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::buffer::{FlushLimits, Repeat, Segment, ShardBuffer};
use super::fetcher::{Fetcher, Read};
use super::offsets::log_end_offsets;
use super::parquet_file;
use super::store::ArchiveStore;
use crate::error::{BillingError, bigint};
use crate::metrics::BillingMetrics;

/// How often buffers are looked at for age.
const AGE_CHECK_EVERY: Duration = Duration::from_millis(250);
/// How often an archiver asks whether it still has its duty. One that is idle writes nothing that would tell.
const DUTY_CHECK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    pub log: KafkaConnection,
    pub topic: String,
    pub fetch: FetchBy,
    pub partitioner: Partitioner,
    /// A shard's buffer becomes a file at this many records,
    pub file_records_max: usize,
    /// this many bytes of records,
    pub file_bytes_max: usize,
    /// or this long after its first record was read: what a lost machine makes us read again, and what a query may lag.
    pub file_age_max: Duration,
    /// Over all shards; the largest buffer goes first. At least `file_bytes_max`.
    pub buffered_bytes_max: usize,
}

impl ArchiveOptions {
    pub fn new(log: KafkaConnection, partitioner: Partitioner) -> ArchiveOptions {
        ArchiveOptions {
            log,
            topic: RAW_CLICKS.to_owned(),
            fetch: FetchBy::default(),
            partitioner,
            file_records_max: 250_000,
            file_bytes_max: 64 << 20,
            file_age_max: Duration::from_secs(60),
            buffered_bytes_max: 256 << 20,
        }
    }

    fn limits(&self) -> FlushLimits {
        FlushLimits {
            records_max: self.file_records_max,
            bytes_max: self.file_bytes_max.min(self.buffered_bytes_max),
            age_max: self.file_age_max,
        }
    }
}

pub struct Archiver {
    options: ArchiveOptions,
    store: ArchiveStore,
    /// Holds the lock for as long as it lives; every commit goes through it.
    session: LockSession,
    requests: Listener,
    fetcher: Fetcher,
    buffers: BTreeMap<ShardId, ShardBuffer>,
    /// A waiter asked for these offsets (exclusive): write everything out once all of them are read.
    wanted: Option<BTreeMap<ShardId, u64>>,
    clock: Arc<dyn Clock>,
    metrics: BillingMetrics,
}

impl Archiver {
    /// Reads on from the manifest. The session holds [`AdvisoryLock::Archiver`], so no other archiver lives.
    ///
    /// Dropping the archiver releases the lock; nothing buffered is lost, it is read again.
    pub async fn start(
        options: ArchiveOptions,
        mut session: LockSession,
        database: &Database,
        store: ArchiveStore,
        clock: Arc<dyn Clock>,
        metrics: BillingMetrics,
    ) -> Result<Archiver, BillingError> {
        assert_eq!(session.lock(), AdvisoryLock::Archiver, "the lock of the duty excludes other archivers");
        let requests = database.listen(Channel::FlushArchive).await?;
        let archived = archived_offsets_of(&mut session).await?;
        let partitions =
            u16::try_from(options.partitioner.partitions()).map_err(|_| BillingError::Overflow("partitions"))?;
        let from: BTreeMap<ShardId, u64> = (0..partitions)
            .map(|shard| (ShardId(shard), archived.get(&ShardId(shard)).copied().unwrap_or(0)))
            .collect();
        let buffers = from.iter().map(|(&shard, &next)| (shard, ShardBuffer::new(shard, next))).collect();
        let fetcher = Fetcher::start(&options.log, &options.topic, options.fetch, from)?;
        tracing::info!(shards = partitions, "the archiver has the lock and reads on from the manifest");
        Ok(Archiver { options, store, session, requests, fetcher, buffers, wanted: None, clock, metrics })
    }

    /// Archives until `stop` turns true (or its sender is gone), then writes out what it holds.
    ///
    /// # Errors
    /// Any: the archiver is used up then. After a `Retry` error start another one.
    pub async fn run(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), BillingError> {
        let mut age_check = tokio::time::interval(AGE_CHECK_EVERY);
        age_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut duty_check = tokio::time::interval(DUTY_CHECK_EVERY);
        duty_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reads = Vec::new();
        loop {
            tokio::select! {
                taken = self.fetcher.next(&mut reads) => {
                    self.take_in(taken, &mut reads)?;
                    self.flush_due().await?;
                }
                _ = age_check.tick() => self.flush_due().await?,
                _ = duty_check.tick() => self.session.require_held().await?,
                request = self.requests.next() => {
                    request?;
                    self.wanted = Some(self.ask_log_ends().await?);
                }
                () = stopped(&mut stop) => return self.flush_all().await,
            }
            self.flush_wanted().await?;
        }
    }

    /// Archives exactly as [`Archiver::run`] does, until every shard of `ends` is archived up to there (exclusive).
    pub async fn archive_until(&mut self, ends: &BTreeMap<ShardId, u64>) -> Result<(), BillingError> {
        let mut reads = Vec::new();
        self.wanted = Some(ends.clone());
        self.flush_wanted().await?;
        while self.wanted.is_some() {
            let taken = self.fetcher.next(&mut reads).await;
            self.take_in(taken, &mut reads)?;
            self.flush_due().await?;
            self.flush_wanted().await?;
        }
        Ok(())
    }

    async fn ask_log_ends(&self) -> Result<BTreeMap<ShardId, u64>, BillingError> {
        log_end_offsets(&self.options.log, &self.options.topic, self.options.partitioner).await
    }

    fn take_in(&mut self, taken: usize, reads: &mut Vec<Result<Read, LogError>>) -> Result<(), BillingError> {
        if taken == 0 {
            return Err(BillingError::Worker("the archive's fetcher".to_owned()));
        }
        let now = self.clock.monotonic();
        for read in reads.drain(..) {
            let Read { shard, records, next } = read?;
            let Some(buffer) = self.buffers.get_mut(&shard) else { continue };
            let mut records = records.into_iter();
            records
                .try_for_each(|record| buffer.push(record, now))
                .and_then(|()| buffer.pass_to(next, now))
                .map_err(|Repeat { due, found }| BillingError::OffsetRepeated { shard: shard.0, due, found })?;
        }
        Ok(())
    }

    async fn flush_due(&mut self) -> Result<(), BillingError> {
        let now = self.clock.monotonic();
        let limits = self.options.limits();
        let due: Vec<ShardId> =
            self.buffers.iter().filter(|(_, buffer)| buffer.is_due(&limits, now)).map(|(shard, _)| *shard).collect();
        for shard in due {
            self.flush(shard).await?;
        }
        while self.buffers.values().map(ShardBuffer::bytes).sum::<usize>() > self.options.buffered_bytes_max {
            let Some(largest) = self.buffers.iter().max_by_key(|(_, b)| b.bytes()).map(|(shard, _)| *shard) else {
                break;
            };
            self.flush(largest).await?;
        }
        let oldest = self.buffers.values().map(|buffer| buffer.age(now)).max().unwrap_or_default();
        self.metrics.archive_backlog_seconds.set(oldest.as_secs_f64());
        Ok(())
    }

    async fn flush_wanted(&mut self) -> Result<(), BillingError> {
        let is_read =
            |(shard, end): (&ShardId, &u64)| self.buffers.get(shard).is_none_or(|buffer| buffer.next() >= *end);
        if self.wanted.as_ref().is_some_and(|wanted| wanted.iter().all(is_read)) {
            self.wanted = None;
            self.flush_all().await?;
        }
        Ok(())
    }

    async fn flush_all(&mut self) -> Result<(), BillingError> {
        let filled: Vec<ShardId> =
            self.buffers.iter().filter(|(_, b)| !b.is_empty()).map(|(shard, _)| *shard).collect();
        for shard in filled {
            self.flush(shard).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, shard: ShardId) -> Result<(), BillingError> {
        let now_ms = self.clock.now_ms();
        let segments = self.buffers.get_mut(&shard).map(|buffer| buffer.take(now_ms)).unwrap_or_default();
        for segment in segments {
            self.archive(segment).await?;
        }
        Ok(())
    }

    /// 1. Encode, off this thread. 2. The file, durably. 3. The manifest row. A crash after 2 leaves an orphan that
    ///    no query reads.
    async fn archive(&mut self, segment: Segment) -> Result<(), BillingError> {
        let Segment { offset_from, offset_to, .. } = segment;
        assert!(
            segment.records.is_sorted_by(|a, b| a.offset < b.offset)
                && segment.records.iter().all(|record| (offset_from..offset_to).contains(&record.offset)),
            "the records of a file lie in its span, in order"
        );
        let records = segment.records.len() as u64;
        let (file, shard, hour) = (segment.file_name(), segment.shard, segment.hour);
        let partitioner = self.options.partitioner;
        let (encoded, sha256) = tokio::task::spawn_blocking(move || {
            let encoded = parquet_file::encode(&segment, partitioner)?;
            let sha256 = hex::encode(Sha256::digest(&encoded.content));
            Ok::<_, BillingError>((encoded, sha256))
        })
        .await
        .map_err(|e| BillingError::Worker(e.to_string()))??;
        let bytes = u64::try_from(encoded.content.len()).map_err(|_| BillingError::Overflow("bytes"))?;
        // Checked before anything is written: an id of the log that PostgreSQL cannot hold would only fail at the row.
        bigint(offset_to, "log offset")?;
        // A dead session has lost the lock: another archiver may be writing a file of this name already.
        self.session.require_held().await?;
        self.store.put(&file, encoded.content).await?;
        fault::point("archive.after_upload");
        let new = NewFile {
            file,
            shard,
            offset_from,
            offset_to,
            rows: encoded.rows,
            malformed_rows: encoded.malformed_rows,
            bytes,
            sha256,
            hour,
            event_times_ms: encoded.event_times_ms,
            days: encoded.days.into_iter().collect(),
        };
        manifest::add_file(&mut self.session, &new).await?;
        fault::point("archive.after_manifest");
        self.metrics.archived_records.inc_by(records);
        self.metrics.archive_files.inc();
        tracing::debug!(file = new.file, rows = new.rows, "archived");
        Ok(())
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an order to stop too.
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}
