//! Asks the log questions: metadata, and the ends of partitions. Reads no records.
//!
//! After a broker stood still, a client may answer `Unknown partition` for as long as it lives: it keeps having seen a
//! partition without a leader (librdkafka 5430). So a client whose questions keep failing is replaced.

use std::sync::Arc;

use clicktally_proto::click_log::LogError;
use parking_lot::Mutex;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::KafkaConnection;
use crate::client_error::log_error;

/// In a row. A node asks a few times a second, and each question that gets no answer takes seconds.
const FAILURES_MAX: u32 = 20;

pub struct QueryClient {
    connection: KafkaConnection,
    current: Mutex<Current>,
}

struct Current {
    client: Arc<BaseConsumer>,
    /// Since the last answer.
    failures: u32,
}

impl QueryClient {
    /// Connects in the background.
    pub(super) fn new(connection: &KafkaConnection) -> Result<QueryClient, KafkaError> {
        let current = Current { client: Arc::new(connection.metadata_reader()?), failures: 0 };
        Ok(QueryClient { connection: connection.clone(), current: Mutex::new(current) })
    }

    /// Blocks for as long as the question does.
    pub fn ask<A>(&self, question: impl FnOnce(&BaseConsumer) -> Result<A, KafkaError>) -> Result<A, LogError> {
        let client = Arc::clone(&self.current.lock().client);
        let answer = question(&client);
        self.note(&client, answer.is_ok())?;
        answer.map_err(log_error)
    }

    fn note(&self, asked: &Arc<BaseConsumer>, is_answered: bool) -> Result<(), LogError> {
        let mut current = self.current.lock();
        // Another caller may have replaced it already. The last one to hold a client takes it down, which may block.
        if !Arc::ptr_eq(&current.client, asked) {
            return Ok(());
        }
        current.failures = if is_answered { 0 } else { current.failures + 1 };
        if current.failures >= FAILURES_MAX {
            tracing::warn!(failures = current.failures, "the log answers no question; asking with another client");
            let client = Arc::new(self.connection.metadata_reader().map_err(log_error)?);
            *current = Current { client, failures: 0 };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode;

    use super::*;

    /// Answers with the client it was asked with, unless that client is stuck.
    fn ask(queries: &QueryClient, stuck: Option<usize>) -> Result<usize, LogError> {
        queries.ask(|client| {
            let client = std::ptr::from_ref(client).addr();
            let error = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition);
            if stuck == Some(client) { Err(error) } else { Ok(client) }
        })
    }

    #[test]
    fn a_client_that_fails_again_and_again_is_replaced() {
        let queries = QueryClient::new(&KafkaConnection::plaintext("127.0.0.1:1")).unwrap();
        let first = ask(&queries, None).unwrap();
        for _ in 1..FAILURES_MAX {
            ask(&queries, Some(first)).unwrap_err();
        }
        assert_eq!(ask(&queries, None).unwrap(), first, "an answer forgives the failures before it");
        for _ in 0..FAILURES_MAX {
            ask(&queries, Some(first)).unwrap_err();
        }
        assert_ne!(ask(&queries, Some(first)).unwrap(), first);
    }
}
