//! How the direct reader takes answers that a log should not give, or rarely gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use clicktally_kafka::{FetchBy, KafkaLog};
use clicktally_proto::click_log::{ClickLog, LogError, ShardReader};
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_proto::next_move::NextMove;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{EpochEndOffset, PartitionData};

use crate::log_claims::{SHARD, read};
use crate::scripted_broker::{ScriptedBroker, answer, batch};
use crate::settings;

async fn log_of(script: impl FnMut(&FetchPartition) -> PartitionData + Send + 'static) -> KafkaLog {
    let broker = ScriptedBroker::start(script).await;
    KafkaLog::connect(settings(broker.address, 1, FetchBy::Direct)).unwrap()
}

fn small(offsets: &[i64]) -> Bytes {
    batch(offsets, 10, false)
}

/// Fails the reader, and so the test.
fn unexpected() -> PartitionData {
    PartitionData::default().with_error_code(ResponseError::UnknownServerError.code())
}

fn changed(batch: &Bytes, at: usize, bits: u8) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[at] ^= bits;
    bytes.into()
}

/// The batches at and behind the offset asked for.
fn of_log(log: &[(i64, Bytes)], asked: &FetchPartition) -> PartitionData {
    let batches = log.iter().filter(|(last, _)| *last >= asked.fetch_offset).map(|(_, batch)| batch.clone());
    answer(&batches.collect::<Vec<_>>())
}

/// Reads until the failure; returns the offsets before it.
async fn read_to_failure(reader: &mut dyn ShardReader) -> (Vec<u64>, LogError) {
    let mut offsets = Vec::new();
    loop {
        match read(reader, 1).await {
            Ok(seen) => offsets.extend(seen.into_iter().map(|(offset, _)| offset)),
            Err(error) => return (offsets, error),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_and_control_batches_are_passed_and_a_cut_batch_is_asked_for_again() {
    let log = [
        (3, small(&[0, 2, 3])),
        (4, batch(&[4], 10, true)),
        (9, small(&[7, 9])),
        (11, small(&[10, 11])),
        (12, batch(&[12], 10, true)),
        (13, small(&[13])),
    ];
    let script = move |asked: &FetchPartition| {
        let whole = of_log(&log, asked);
        let mut records = BytesMut::from(&whole.records.clone().unwrap()[..]);
        // Cuts off the second batch, if there is one.
        let first = log.iter().find(|(last, _)| *last >= asked.fetch_offset).map_or(0, |(_, batch)| batch.len());
        records.truncate(first + 70);
        whole.with_records(Some(records.freeze()))
    };
    let log = log_of(script).await;
    let mut reader = log.open(SHARD, 2).unwrap();
    let seen = read(&mut *reader, 7).await.unwrap();
    assert!(seen.iter().map(|(offset, _)| *offset).eq([2, 3, 7, 9, 10, 11, 13]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_batch_is_an_error_after_the_records_before_it() {
    type Check = fn(&LogError) -> bool;
    let damaged: Check = |error| matches!(error, LogError::Damaged { shard: SHARD, offset: 2, .. });
    let cases: [(&str, Bytes, Check); 4] = [
        ("a damaged batch", changed(&small(&[2, 3]), 70, 1), damaged),
        ("a damaged header", changed(&small(&[2, 3]), 23, 0x80), damaged),
        ("offsets that go back", small(&[0, 1]), damaged),
        (
            "an old format",
            changed(&small(&[2, 3]), 16, 2 ^ 1),
            |error| matches!(error, LogError::Fatal(text) if text.contains("[log] fetch")),
        ),
    ];
    for (case, second, is_right) in cases {
        let log = [(1, small(&[0, 1])), (3, second), (5, small(&[4, 5]))];
        // Sends one batch in each answer.
        let script = move |asked: &FetchPartition| {
            let next = log.iter().position(|(last, _)| *last >= asked.fetch_offset);
            answer(next.map(|next| log[next].1.clone()).as_slice())
        };
        let log = log_of(script).await;
        let mut reader = log.open(SHARD, 0).unwrap();
        let (offsets, error) = read_to_failure(&mut *reader).await;
        assert!(is_right(&error), "{case}: {error}");
        assert_eq!(offsets, [0, 1], "{case}");
        assert_eq!(reader.drain(10, &mut |_| panic!("{case}: a record behind the error")), Err(error), "{case}");
    }
}

/// Damage that happened on the way passes when the batch is read again. Damage on the broker's disk does not, and must
/// not be asked for again for ever: an operator has to hear of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_batch_is_read_again_a_few_times_and_then_an_operator_is_told() {
    /// Ten reads, and one answer that was on its way.
    const ANSWERS_MAX: u64 = 11;
    let damaged_answers = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&damaged_answers);
    let script = move |asked: &FetchPartition| match asked.fetch_offset {
        0 => answer(&[small(&[0, 1])]),
        // The broker finds the first damage itself, and the reader the second.
        2 if counted.fetch_add(1, Ordering::Relaxed) == 0 => {
            PartitionData::default().with_error_code(ResponseError::CorruptMessage.code())
        }
        2 if counted.load(Ordering::Relaxed) == 2 => answer(&[changed(&small(&[2, 3]), 70, 1)]),
        2 => answer(&[small(&[2, 3])]),
        4 => {
            counted.fetch_add(1, Ordering::Relaxed);
            answer(&[changed(&small(&[4, 5]), 70, 1)])
        }
        _ => unexpected(),
    };
    let log = log_of(script).await;
    let mut reader = log.open(SHARD, 0).unwrap();
    let seen = read(&mut *reader, 4).await.unwrap();
    assert!(seen.iter().map(|(offset, _)| *offset).eq(0..4));
    damaged_answers.store(0, Ordering::Relaxed);
    let (offsets, error) = read_to_failure(&mut *reader).await;
    assert!(offsets.is_empty(), "{offsets:?}");
    let text = error.to_string();
    for part in ["raw_clicks", "partition 5", "offset 4", "checksum", "lead the partition"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(error.next_move(), NextMove::Halt);
    let answers = damaged_answers.load(Ordering::Relaxed);
    assert!((5..=ANSWERS_MAX).contains(&answers), "{answers}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_history_is_a_loss() {
    // The reader sends the epoch of the batch before.
    let script = |asked: &FetchPartition| match (asked.fetch_offset, asked.last_fetched_epoch) {
        (0, -1) => answer(&[small(&[0, 1, 2])]),
        (3, 3) => {
            PartitionData::default().with_diverging_epoch(EpochEndOffset::default().with_epoch(2).with_end_offset(1))
        }
        _ => unexpected(),
    };
    let log = log_of(script).await;
    let mut reader = log.open(SHARD, 0).unwrap();
    let (offsets, error) = read_to_failure(&mut *reader).await;
    assert_eq!(offsets, [0, 1, 2]);
    assert!(matches!(error, LogError::OffsetLost { shard: SHARD, offset: 3, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_moved_is_looked_for_and_nothing_is_missed() {
    let mut turn = 0;
    let script = move |asked: &FetchPartition| {
        turn += 1;
        match turn % 3 {
            _ if asked.current_leader_epoch != 3 => unexpected(),
            0 => PartitionData::default().with_error_code(ResponseError::NotLeaderOrFollower.code()),
            1 => PartitionData::default().with_error_code(ResponseError::UnknownLeaderEpoch.code()),
            _ => answer(&[small(&[asked.fetch_offset, asked.fetch_offset + 1])]),
        }
    };
    let log = log_of(script).await;
    let mut reader = log.open(SHARD, 40).unwrap();
    let seen = read(&mut *reader, 6).await.unwrap();
    assert!(seen.iter().map(|(offset, _)| *offset).eq(40..46));
}

/// Counts answers: the fetcher stops asking for a partition whose reader does not read, and still serves the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_holds_its_own_partition_back_and_no_other() {
    const VALUE_BYTES: usize = 1_000_000;
    // Each answer has a megabyte for each of the two. The limit is eight pinned megabytes and the answer under way.
    const IDLE_ANSWERS_MAX: u64 = 10;
    let idle = ShardId(9);
    let idle_answers = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&idle_answers);
    let script = move |asked: &FetchPartition| {
        if asked.partition == idle.partition() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        answer(&[batch(&[asked.fetch_offset], VALUE_BYTES, false)])
    };
    let log = log_of(script).await;
    let mut idle_reader = log.open(idle, 0).unwrap();
    let mut busy_reader = log.open(SHARD, 0).unwrap();
    assert_eq!(read(&mut *busy_reader, 100).await.unwrap().len(), 100);
    let answers = idle_answers.load(Ordering::Relaxed);
    assert!((1..=IDLE_ANSWERS_MAX).contains(&answers), "{answers}");
    // The partition is asked for again once its reader reads.
    let seen = read(&mut *idle_reader, 30).await.unwrap();
    assert!(seen.iter().map(|(offset, _)| *offset).eq(0..30));
}
