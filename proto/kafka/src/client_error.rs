//! What an error of the client library means for its caller, as a [`LogError`]. The library retries most errors itself.

use clicktally_proto::click_log::LogError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Never [`LogError::OffsetLost`]: the library does not say which offset of which partition. A shard's reader knows
/// both.
pub fn log_error(error: KafkaError) -> LogError {
    if is_fatal(&error) { LogError::Fatal(error.to_string()) } else { LogError::Unavailable(error.to_string()) }
}

/// Whether the same call would fail again until an operator acts.
fn is_fatal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                Code::MessageSizeTooLarge
                    | Code::TopicAuthorizationFailed
                    | Code::OffsetOutOfRange
                    | Code::AutoOffsetReset
                    // A batch with an unknown codec, one that is not what its codec writes, or a damaged one.
                    | Code::NotImplemented
                    | Code::BadCompression
                    | Code::BadMessage
                    | Code::InvalidMessage
                    | Code::UnsupportedCompressionType
            )
        )
}

#[cfg(test)]
mod tests {
    use clicktally_proto::next_move::NextMove;

    use super::*;

    #[test]
    fn only_what_an_operator_must_cure_halts() {
        let next_move = |error| log_error(error).next_move();
        assert_eq!(next_move(KafkaError::ClientCreation("no memory".into())), NextMove::Halt);
        assert_eq!(next_move(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)), NextMove::Halt);
        assert_eq!(next_move(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)), NextMove::Halt);
        // A batch that cannot be decoded is the same when it is read again.
        for code in [RDKafkaErrorCode::NotImplemented, RDKafkaErrorCode::BadCompression, RDKafkaErrorCode::BadMessage] {
            assert_eq!(next_move(KafkaError::MessageConsumption(code)), NextMove::Halt);
        }
        assert_eq!(next_move(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)), NextMove::Retry);
        // The producer that reports it is replaced, so that the same call can succeed.
        assert_eq!(next_move(KafkaError::MessageProduction(RDKafkaErrorCode::Fatal)), NextMove::Retry);
    }
}
