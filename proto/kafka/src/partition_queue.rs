//! One partition's queue of fetched records, emptied many records at a time.
//!
//! This is the only file of the workspace with `unsafe` in it. The safe wrapper returns one record a call, each in an
//! event with an allocation and a reference count of its own. The batch call of the C library costs a third of that,
//! and the counting path depends on it.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

/// Records that one call of the C library may return.
pub(super) const BATCH_RECORDS_MAX: usize = 1_000;

/// One fetched element: a record, the news that the partition was read to its end, or an error.
pub(super) enum Fetched<'a> {
    Record {
        offset: i64,
        timestamp_ms: i64,
        value: &'a [u8],
    },
    /// Nothing that is readable now lies at this offset or behind it.
    End {
        offset: i64,
    },
    Failed(RDKafkaErrorCode),
}

pub(super) struct PartitionQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    batch: Vec<*mut sys::rd_kafka_message_t>,
    // The queue belongs to the client: the client must outlive it.
    _consumer: Arc<BaseConsumer>,
}

// SAFETY: librdkafka's queues may be used from any thread. The batch buffer holds no pointer between calls, and
// `consume` takes `&mut self`, so two threads never share it.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Detaches the partition's queue from the consumer's common queue. Call it before the partition is assigned: a
    /// record that arrived in between would go to the common queue, and this reader would never see it. (An assignment
    /// keeps what the application has forwarded: `RD_KAFKA_Q_F_FWD_APP` in `rdkafka_partition.c`.)
    pub(super) fn detach(consumer: &Arc<BaseConsumer>, topic: &str, partition: i32) -> Option<PartitionQueue> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client lives during the call, and the name is a C string. The returned reference to the queue is
        // ours, and `drop` gives it back.
        let queue = unsafe {
            let client = consumer.client().native_ptr();
            NonNull::new(sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition))?
        };
        // SAFETY: the queue is valid, and a null destination turns forwarding off.
        unsafe { sys::rd_kafka_queue_forward(queue.as_ptr(), std::ptr::null_mut()) };
        let batch = vec![std::ptr::null_mut(); BATCH_RECORDS_MAX];
        Some(PartitionQueue { queue, batch, _consumer: Arc::clone(consumer) })
    }

    /// Hands over at most `records_max` (and at most [`BATCH_RECORDS_MAX`]) elements that have arrived. Never waits.
    pub(super) fn consume(&mut self, records_max: usize, mut take: impl FnMut(Fetched<'_>)) -> usize {
        let wanted = records_max.min(self.batch.len());
        // SAFETY: `batch` has room for `wanted` pointers, and a timeout of zero does not block.
        let filled =
            unsafe { sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.batch.as_mut_ptr(), wanted) };
        let filled = usize::try_from(filled).unwrap_or(0);
        for &message in &self.batch[..filled] {
            let message = OwnedMessage(message);
            take(message.view());
        }
        filled
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: gives back, once, the reference taken in `detach`.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Frees the message, also if the closure that takes it panics.
struct OwnedMessage(*mut sys::rd_kafka_message_t);

impl OwnedMessage {
    fn view(&self) -> Fetched<'_> {
        // SAFETY: the library filled the pointer, and the message is ours until `drop` destroys it. Payload and length
        // describe one allocation that lives as long.
        unsafe {
            let message = &*self.0;
            if message.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF {
                return Fetched::End { offset: message.offset };
            }
            if message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Fetched::Failed(message.err.into());
            }
            let value = if message.payload.is_null() {
                &[][..]
            } else {
                std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len)
            };
            let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let timestamp_ms = sys::rd_kafka_message_timestamp(self.0, &raw mut kind);
            Fetched::Record { offset: message.offset, timestamp_ms, value }
        }
    }
}

impl Drop for OwnedMessage {
    fn drop(&mut self) {
        // SAFETY: destroyed once, by its only owner.
        unsafe { sys::rd_kafka_message_destroy(self.0) };
    }
}
