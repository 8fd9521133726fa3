//! What the Log seam promises to the counting path, checked for any log: here for the adapter on real Kafka, and for
//! the simulated log in `chaos-tests/tests/log_contract.rs`, which includes this file by its path.

use std::time::Duration;

use clicktally_proto::click_log::{ClickLog, LogError, LogRecord, OutRecord, RAW_CLICKS, ShardReader};
use clicktally_proto::identity::shard_key::ShardId;

pub(crate) const SHARD: ShardId = ShardId(5);

/// Bounds a hang, and is no verdict on speed: a busy machine takes many times what an idle one does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Drains until `count` records have arrived or the reader fails. It sleeps between two drains, because a reader does
/// not notify.
pub(crate) async fn read(reader: &mut dyn ShardReader, count: usize) -> Result<Vec<(u64, Vec<u8>)>, LogError> {
    let mut seen = Vec::new();
    let reading = async {
        while seen.len() < count {
            let missing = (count - seen.len()).min(100);
            let mut take = |record: LogRecord<'_>| {
                assert!(record.arrival_ms > 1_700_000_000_000);
                seen.push((record.offset, record.value.to_vec()));
            };
            if reader.drain(missing, &mut take)? == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok::<_, LogError>(())
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("records, or an error")?;
    Ok(seen)
}

pub(crate) fn records(shard: ShardId, range: std::ops::Range<u64>) -> Vec<OutRecord> {
    let record = |n: u64| OutRecord {
        topic: RAW_CLICKS,
        partition: Some(shard.partition()),
        key: n.to_be_bytes().to_vec(),
        value: n.to_string().into_bytes(),
    };
    range.map(record).collect()
}

fn numbers(seen: &[(u64, Vec<u8>)]) -> impl Iterator<Item = u64> {
    seen.iter().map(|(_, value)| std::str::from_utf8(value).unwrap().parse().unwrap())
}

pub(crate) async fn every_offset_in_order_from_where_it_was_opened(log: &dyn ClickLog) {
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 0);
    for from in (0..2_500).step_by(500) {
        log.publish(records(SHARD, from..from + 500)).await.unwrap();
    }
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 2_500);
    for from in [0, 1_234] {
        let mut reader = log.open(SHARD, from).unwrap();
        let seen = read(&mut *reader, usize::try_from(2_500 - from).unwrap()).await.unwrap();
        assert!(seen.iter().map(|(offset, _)| *offset).eq(from..2_500));
        assert!(numbers(&seen).eq(from..2_500));
    }
}

pub(crate) async fn shards_do_not_see_each_other_and_a_shard_can_be_opened_again(log: &dyn ClickLog) {
    let other = ShardId(6);
    let mut readers = [log.open(SHARD, 2_500).unwrap(), log.open(other, 0).unwrap()];
    assert!(log.open(SHARD, 2_500).is_err(), "one reader a shard");
    log.publish(records(other, 0..10)).await.unwrap();
    log.publish(records(SHARD, 2_500..2_510)).await.unwrap();
    assert_eq!(read(&mut *readers[0], 10).await.unwrap().first().unwrap().0, 2_500);
    assert_eq!(read(&mut *readers[1], 10).await.unwrap().first().unwrap().0, 0);
    drop(readers);
    let mut reader = log.open(SHARD, 2_505).unwrap();
    assert_eq!(read(&mut *reader, 5).await.unwrap().first().unwrap().0, 2_505);
}

/// An offset beyond the end: the log was cut, or is another one. Records written there later are not the ones due.
pub(crate) async fn an_offset_that_the_log_never_held_is_an_error(log: &dyn ClickLog) {
    let shard = ShardId(7);
    let mut opened = log.open(shard, 99);
    let error = match &mut opened {
        Ok(reader) => read(&mut **reader, 1).await.unwrap_err(),
        Err(error) => error.clone(),
    };
    assert!(matches!(error, LogError::OffsetLost { shard: ShardId(7), offset: 99, .. }), "{error}");
    if let Ok(reader) = &mut opened {
        assert_eq!(reader.drain(10, &mut |_| panic!("a record behind the error")), Err(error));
    }
}

/// The caller arranges that the next write fails with an error that passes. Its records may be in the log or not.
pub(crate) async fn a_write_without_an_answer_may_be_repeated(log: &dyn ClickLog, shard: ShardId) {
    let end = log.end_offset(shard).await.unwrap();
    let published = log.publish(records(shard, 0..3)).await;
    assert!(matches!(published, Err(LogError::Unavailable(_))), "{published:?}");
    log.publish(records(shard, 0..3)).await.unwrap();
    let count = log.end_offset(shard).await.unwrap() - end;
    let mut reader = log.open(shard, end).unwrap();
    let seen = read(&mut *reader, usize::try_from(count).unwrap()).await.unwrap();
    assert!(numbers(&seen[seen.len() - 3..]).eq(0..3), "the repeat is in the log, whole and in order: {seen:?}");
}
