//! The contract of the Log seam, tested on the simulated log. The adapter on real Kafka has to meet the same claims
//! (`proto/kafka/tests/kafka_log/`): the simulation is worth only as much as the two agree.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

#[path = "../../proto/kafka/tests/kafka_log/log_claims.rs"]
mod log_claims;

use clicktally_chaos_tests::simulation::nodes::LoneLog;
use clicktally_chaos_tests::simulation::random::Seed;
use clicktally_chaos_tests::simulation::sim_log::Fate;
use clicktally_proto::click_log::LogError;

use log_claims::{
    SHARD, a_write_without_an_answer_may_be_repeated, an_offset_that_the_log_never_held_is_an_error,
    every_offset_in_order_from_where_it_was_opened, read, records,
    shards_do_not_see_each_other_and_a_shard_can_be_opened_again,
};

#[tokio::test(start_paused = true)]
async fn the_simulated_log_keeps_the_promises_of_the_real_one() {
    let lone = LoneLog::new(Seed(1));
    let log = lone.as_node();
    every_offset_in_order_from_where_it_was_opened(&*log).await;
    shards_do_not_see_each_other_and_a_shard_can_be_opened_again(&*log).await;
    an_offset_that_the_log_never_held_is_an_error(&*log).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_is_repeated_whatever_became_of_it() {
    for fate in [Fate::Lost, Fate::WrittenUnknown, Fate::HalfWrittenUnknown] {
        let lone = LoneLog::new(Seed(1));
        let log = lone.as_node();
        log.publish(records(SHARD, 0..2)).await.unwrap();
        lone.set_next_write(fate);
        a_write_without_an_answer_may_be_repeated(&*log, SHARD).await;
    }
}

/// On real Kafka this takes two brokers that lose one; a scripted broker does it (`wire_faults.rs`).
#[tokio::test(start_paused = true)]
async fn a_reader_beyond_a_cut_hears_of_the_loss_and_not_of_what_was_written_since() {
    let lone = LoneLog::new(Seed(1));
    let log = lone.as_node();
    log.publish(records(SHARD, 0..10)).await.unwrap();
    let mut reader = log.open(SHARD, 0).unwrap();
    assert_eq!(read(&mut *reader, 8).await.unwrap().len(), 8);
    lone.cut(SHARD, 4);
    log.publish(records(SHARD, 20..30)).await.unwrap();
    let error = read(&mut *reader, 1).await.unwrap_err();
    assert!(matches!(error, LogError::OffsetLost { shard: SHARD, offset: 8, .. }), "{error}");
}

/// On real Kafka: `transaction_claims.rs`.
#[tokio::test(start_paused = true)]
async fn a_reader_comes_to_the_end_behind_aborted_records_and_markers() {
    let lone = LoneLog::new(Seed(1));
    let log = lone.as_node();
    log.publish(records(SHARD, 0..2)).await.unwrap();
    lone.end_transaction(SHARD, &[b"aborted", b"aborted"]);
    log.publish(records(SHARD, 5..6)).await.unwrap();
    lone.end_transaction(SHARD, &[]);
    assert_eq!(log.end_offset(SHARD).await.unwrap(), 7);
    let mut reader = log.open(SHARD, 1).unwrap();
    let seen = read(&mut *reader, 2).await.unwrap();
    assert!(seen.iter().map(|(offset, _)| *offset).eq([1, 5]));
    assert_eq!(reader.drain(10, &mut |_| panic!("a record behind the last one")), Ok(0));
    assert_eq!(reader.position(), 7);
}
