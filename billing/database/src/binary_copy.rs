//! The binary format of PostgreSQL's COPY (PostgreSQL manual, "COPY", section "Binary Format"). The encoder is pure:
//! values go in, bytes come out. [`copy_rows`] sends them.
//!
//! The driver carries the bytes but has no encoder of its own. The types here are the ones our tables have. No column
//! that we copy takes NULL, so the encoder cannot write it.

use clicktally_proto::event_time::UnixMillis;
use sqlx::PgConnection;

use crate::error::{DatabaseError, require_count};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// No flags, no header extension.
const FLAGS_AND_EXTENSION: [u8; 8] = [0; 8];
/// In place of a field count, after the last row.
const TRAILER: i16 = -1;
/// 2000-01-01, from which PostgreSQL counts time.
const EPOCH_2000_MS: i64 = 946_684_800_000;
/// Bytes sent in one message: large enough that the cost of a message does not show, small enough to stay in the cache.
const CHUNK_BYTES: usize = 64 * 1024;

/// A table that rows are copied into, all columns in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyTarget {
    pub(crate) table: &'static str,
    pub(crate) columns: i16,
}

/// Copies rows into a table, a chunk at a time. `encode` writes the fields of one row, in the order of the columns.
/// After an error the table is as it was before.
///
/// # Errors
/// `Sql`; `Miscounted`; the error of `encode`.
pub(crate) async fn copy_rows<R>(
    connection: &mut PgConnection,
    target: CopyTarget,
    rows: &[R],
    mut encode: impl FnMut(&mut BinaryCopy, &R) -> Result<(), DatabaseError>,
) -> Result<(), DatabaseError> {
    let mut copy = connection.copy_in_raw(&format!("COPY {} FROM STDIN BINARY", target.table)).await?;
    let mut encoded = BinaryCopy::new(target.columns);
    for row in rows {
        encoded.begin_row();
        encode(&mut encoded, row)?;
        if encoded.is_full() {
            copy.send(encoded.chunk()).await?;
            encoded.clear();
        }
    }
    encoded.finish();
    copy.send(encoded.chunk()).await?;
    let copied = copy.finish().await?;
    require_count("copied rows", rows.len() as u64, copied)
}

/// Encodes rows of one table. [`copy_rows`] drains it whenever a chunk is full.
#[derive(Debug)]
pub(crate) struct BinaryCopy {
    columns: i16,
    /// Fields still missing in the current row.
    missing: i16,
    buffer: Vec<u8>,
}

impl BinaryCopy {
    fn new(columns: i16) -> BinaryCopy {
        assert!(columns > 0, "a table has columns");
        let mut buffer = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
        buffer.extend_from_slice(SIGNATURE);
        buffer.extend_from_slice(&FLAGS_AND_EXTENSION);
        BinaryCopy { columns, missing: 0, buffer }
    }

    fn begin_row(&mut self) {
        assert_eq!(self.missing, 0, "a row begins after all fields of the row before it");
        self.missing = self.columns;
        self.buffer.extend_from_slice(&self.columns.to_be_bytes());
    }

    pub(crate) fn int8(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    pub(crate) fn int4(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.field(&[u8::from(value)]);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.field(value.as_bytes());
    }

    pub(crate) fn bytea(&mut self, value: &[u8]) {
        self.field(value);
    }

    /// Microseconds since 2000, negative before.
    ///
    /// # Errors
    /// `OutOfRange` beyond what PostgreSQL's 64 bits hold.
    pub(crate) fn timestamptz(&mut self, time_ms: UnixMillis) -> Result<(), DatabaseError> {
        let micros = i64::try_from(time_ms)
            .ok()
            .and_then(|ms| ms.checked_sub(EPOCH_2000_MS))
            .and_then(|ms| ms.checked_mul(1_000))
            .ok_or(DatabaseError::OutOfRange("time"))?;
        self.field(&micros.to_be_bytes());
        Ok(())
    }

    /// True once a chunk is worth sending.
    fn is_full(&self) -> bool {
        self.buffer.len() >= CHUNK_BYTES
    }

    /// What was encoded since the last [`BinaryCopy::clear`].
    fn chunk(&self) -> &[u8] {
        &self.buffer
    }

    /// Forgets what was sent.
    fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Ends the stream; the last chunk is still to be sent.
    fn finish(&mut self) {
        assert_eq!(self.missing, 0, "the stream ends after all fields of its last row");
        self.buffer.extend_from_slice(&TRAILER.to_be_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        let length = i32::try_from(bytes.len()).expect("a field is far below PostgreSQL's limit of 1 GiB");
        assert!(self.missing > 0, "a row has no more fields than its table has columns");
        self.missing -= 1;
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_encoded_as_the_manual_says() {
        let mut copy = BinaryCopy::new(6);
        copy.begin_row();
        copy.int8(-2);
        copy.int4(258);
        copy.bool(true);
        copy.text("é");
        copy.bytea(&[]);
        copy.timestamptz(946_684_800_001).unwrap();
        copy.finish();
        let mut expected = b"PGCOPY\n\xff\r\n\0".to_vec();
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0, 6]);
        expected.extend([0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 254]);
        expected.extend([0, 0, 0, 4, 0, 0, 1, 2]);
        expected.extend([0, 0, 0, 1, 1]);
        expected.extend([0, 0, 0, 2, 0xc3, 0xa9]);
        expected.extend([0, 0, 0, 0]);
        expected.extend([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 3, 232]);
        expected.extend([255, 255]);
        assert_eq!(copy.chunk(), expected);
    }

    #[test]
    fn times_before_2000_are_negative_and_absurd_ones_are_refused() {
        let mut copy = BinaryCopy::new(1);
        copy.clear();
        copy.begin_row();
        copy.timestamptz(0).unwrap();
        assert_eq!(copy.chunk()[6..], (-946_684_800_000_000_i64).to_be_bytes());
        copy.begin_row();
        assert!(copy.timestamptz(u64::MAX).is_err());
        assert!(copy.timestamptz(i64::MAX.unsigned_abs()).is_err());
    }

    #[test]
    #[should_panic(expected = "after all fields")]
    fn a_row_with_a_field_missing_cannot_be_sent() {
        let mut copy = BinaryCopy::new(2);
        copy.begin_row();
        copy.int8(1);
        copy.finish();
    }
}
