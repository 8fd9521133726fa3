//! When a record counts as written.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::Delivery;

/// Accepts an acknowledgement only if it has the offset of the record.
///
/// The client library treats a broker's "duplicate sequence number" as the success of an earlier attempt. On a
/// partition that was just made this is sometimes wrong, and the record is lost (found by CT-11). Writing such a record
/// again makes a duplicate at worst.
///
/// # Errors
/// The acknowledgement has no offset: write the record again.
pub fn require_offset(delivery: &Delivery) -> Result<(), KafkaError> {
    if delivery.offset >= 0 {
        return Ok(());
    }
    Err(KafkaError::MessageProduction(RDKafkaErrorCode::DuplicateSequenceNumber))
}
