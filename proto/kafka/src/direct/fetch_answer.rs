//! Decides what a partition's part of an answer means: records, a leader that moved, or a failure.

use bytes::Bytes;
use clicktally_proto::click_log::LogError;
use clicktally_proto::identity::shard_key::ShardId;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::fetch_response::PartitionData;

use super::aborted_transactions::AbortedTransactions;
use super::record_batch::BatchHeader;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FetchAnswer {
    /// Whole batches. The first may begin before the offset asked for.
    Records {
        batches: Bytes,
        aborted: AbortedTransactions,
        next_offset: u64,
        last_epoch: i32,
    },
    Nothing,
    /// Ask which broker leads the partition now, then continue from the same offset.
    LeaderMoved(ResponseError),
    Failed(LogError),
}

impl FetchAnswer {
    /// `asked`: the offset asked for.
    pub(super) fn of(shard: ShardId, asked: u64, part: PartitionData) -> FetchAnswer {
        if let Some(code) = part.error_code.err() {
            return explain(shard, asked, code);
        }
        // The broker compares the epoch of the last batch we have with its own history.
        if part.diverging_epoch.end_offset >= 0 {
            let detail = format!(
                "its leader's history ends at offset {}, and records read before lie behind that: a change of leaders lost them",
                part.diverging_epoch.end_offset
            );
            return FetchAnswer::Failed(LogError::OffsetLost { shard, offset: asked, detail });
        }
        match part.records {
            Some(records) if !records.is_empty() => {
                let aborted = AbortedTransactions::of_answer(part.aborted_transactions);
                whole_batches(shard, asked, records, aborted)
            }
            _ => FetchAnswer::Nothing,
        }
    }
}

fn explain(shard: ShardId, asked: u64, code: ResponseError) -> FetchAnswer {
    use ResponseError as Code;
    match code {
        Code::OffsetOutOfRange => {
            FetchAnswer::Failed(LogError::OffsetLost { shard, offset: asked, detail: code.to_string() })
        }
        Code::NotLeaderOrFollower
        | Code::LeaderNotAvailable
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::UnknownTopicOrPartition
        | Code::ReplicaNotAvailable
        | Code::OffsetNotAvailable
        | Code::KafkaStorageError => FetchAnswer::LeaderMoved(code),
        // The broker found the damage itself.
        Code::CorruptMessage => {
            FetchAnswer::Failed(LogError::Damaged { shard, offset: asked, detail: code.to_string() })
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            FetchAnswer::Failed(LogError::Fatal(code.to_string()))
        }
        other => FetchAnswer::Failed(LogError::Unavailable(other.to_string())),
    }
}

/// Leaves out the last batch if it is cut off. The next Fetch begins with it.
fn whole_batches(shard: ShardId, asked: u64, records: Bytes, aborted: AbortedTransactions) -> FetchAnswer {
    let (mut end, mut next_offset, mut last_epoch) = (0, None, -1);
    loop {
        let header = match BatchHeader::read(&records[end..]) {
            Ok(Some(header)) => header,
            Ok(None) => break,
            Err(error) => return FetchAnswer::Failed(error.at(shard, next_offset.unwrap_or(asked))),
        };
        // Compaction and transactions leave holes. Offsets that go back are an error.
        let goes_back = match next_offset {
            None => header.last_offset < asked,
            Some(next) => header.base_offset < next,
        };
        if goes_back {
            let (base, due) = (header.base_offset, next_offset.unwrap_or(asked));
            let detail = format!("a batch begins at offset {base} where {due} was due");
            return FetchAnswer::Failed(LogError::Damaged { shard, offset: due, detail });
        }
        next_offset = Some(header.last_offset + 1);
        last_epoch = header.leader_epoch;
        end += header.bytes;
    }
    match next_offset {
        Some(next_offset) => FetchAnswer::Records { batches: records.slice(..end), aborted, next_offset, last_epoch },
        // The first batch is cut off. It comes whole once this partition is the first that is asked for.
        None => FetchAnswer::Nothing,
    }
}
