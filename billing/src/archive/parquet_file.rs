//! One archive file: the columns of a click as it was logged, a row a click; a record that is none keeps its bytes
//! and a reason.
//!
//! A published format, additive: queries, audits and the batch read it, so columns are appended, never renamed.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BinaryBuilder, Int64Builder, StringBuilder, UInt16Builder, UInt32Builder, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use clicktally_database::Day;
use clicktally_proto::click::record::Click;
use clicktally_proto::click::view::decode_record_owned;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::buffer::{RawRecord, Segment};
use crate::error::BillingError;

/// Rows encoded at once, and rows of a row group: bounds memory beyond the records themselves, here and in readers.
const ROWS_PER_BATCH: usize = 16_384;
const ROWS_PER_GROUP: usize = 131_072;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let click = |name: &str, kind: DataType| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        // Where the record lies in the log, and when the log took it.
        Field::new("shard", DataType::UInt16, false),
        Field::new("log_offset", DataType::UInt64, false),
        Field::new("position", DataType::UInt32, false),
        Field::new("arrival_ms", DataType::UInt64, false),
        // The shard the click belongs to; where it is another one, the record was republished there.
        click("home_shard", DataType::UInt16),
        click("click_id", DataType::UInt64),
        click("campaign_id", DataType::UInt64),
        click("ad_id", DataType::UInt64),
        click("event_time_ms", DataType::UInt64),
        click("ingest_time_ms", DataType::UInt64),
        click("event_id", DataType::Utf8),
        click("source", DataType::Utf8),
        click("user_id", DataType::Utf8),
        click("ip_address", DataType::Utf8),
        click("user_agent", DataType::Utf8),
        click("device_type", DataType::Utf8),
        click("country", DataType::Utf8),
        click("region", DataType::Utf8),
        click("ad_format", DataType::Utf8),
        click("cost_per_click_micros", DataType::Int64),
        click("impression_token", DataType::Binary),
        click("evidence", DataType::UInt32),
        // Set, with the record's bytes, where it is no click; the columns of a click are null then.
        click("malformed", DataType::Utf8),
        click("raw", DataType::Binary),
    ]))
});

/// The columns of an archive file. Click columns are null in the row of a malformed record.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// A file's bytes and what the manifest says of them.
#[derive(Debug)]
pub(super) struct EncodedFile {
    pub(super) content: Vec<u8>,
    pub(super) rows: u64,
    pub(super) malformed_rows: u64,
    /// `(earliest, latest)`; `None` without clicks.
    pub(super) event_times_ms: Option<(u64, u64)>,
    pub(super) days: BTreeSet<Day>,
}

/// Pure, and the same bytes for the same records. Expensive: call it off the threads that serve.
pub(super) fn encode(segment: &Segment, partitioner: Partitioner) -> Result<EncodedFile, BillingError> {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3)?);
    // Ids and offsets do not repeat: a dictionary would only be tried and thrown away; near-sorted integers pack as
    // deltas.
    let mut properties =
        WriterProperties::builder().set_compression(zstd).set_max_row_group_row_count(Some(ROWS_PER_GROUP));
    for column in ["log_offset", "arrival_ms", "click_id", "event_time_ms", "ingest_time_ms"] {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(column), false)
            .set_column_encoding(ColumnPath::from(column), Encoding::DELTA_BINARY_PACKED);
    }
    let mut writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties.build()))?;
    let mut columns = Columns::new(segment.shard, partitioner);
    for record in &segment.records {
        columns.push_record(record);
        if columns.pending_rows >= ROWS_PER_BATCH {
            writer.write(&columns.take_batch()?)?;
        }
    }
    writer.write(&columns.take_batch()?)?;
    assert!(columns.malformed_rows <= columns.rows, "malformed rows are some of the file's rows");
    assert_eq!(
        columns.event_times_ms.is_none(),
        columns.malformed_rows == columns.rows,
        "only clicks have event times"
    );
    Ok(EncodedFile {
        content: writer.into_inner()?,
        rows: columns.rows,
        malformed_rows: columns.malformed_rows,
        event_times_ms: columns.event_times_ms,
        days: columns.days,
    })
}

struct Columns {
    home: ShardId,
    partitioner: Partitioner,
    pending_rows: usize,
    rows: u64,
    malformed_rows: u64,
    event_times_ms: Option<(u64, u64)>,
    days: BTreeSet<Day>,

    shard: UInt16Builder,
    log_offset: UInt64Builder,
    position: UInt32Builder,
    arrival_ms: UInt64Builder,
    home_shard: UInt16Builder,
    click_id: UInt64Builder,
    campaign_id: UInt64Builder,
    ad_id: UInt64Builder,
    event_time_ms: UInt64Builder,
    ingest_time_ms: UInt64Builder,
    /// `event_id` … `ad_format`, in schema order.
    texts: [StringBuilder; 9],
    cost_per_click_micros: Int64Builder,
    impression_token: BinaryBuilder,
    evidence: UInt32Builder,
    malformed: StringBuilder,
    raw: BinaryBuilder,
}

impl Columns {
    fn new(home: ShardId, partitioner: Partitioner) -> Columns {
        Columns {
            home,
            partitioner,
            pending_rows: 0,
            rows: 0,
            malformed_rows: 0,
            event_times_ms: None,
            days: BTreeSet::new(),
            shard: UInt16Builder::new(),
            log_offset: UInt64Builder::new(),
            position: UInt32Builder::new(),
            arrival_ms: UInt64Builder::new(),
            home_shard: UInt16Builder::new(),
            click_id: UInt64Builder::new(),
            campaign_id: UInt64Builder::new(),
            ad_id: UInt64Builder::new(),
            event_time_ms: UInt64Builder::new(),
            ingest_time_ms: UInt64Builder::new(),
            texts: std::array::from_fn(|_| StringBuilder::new()),
            cost_per_click_micros: Int64Builder::new(),
            impression_token: BinaryBuilder::new(),
            evidence: UInt32Builder::new(),
            malformed: StringBuilder::new(),
            raw: BinaryBuilder::new(),
        }
    }

    fn push_record(&mut self, record: &RawRecord) {
        match decode_record_owned(&record.value) {
            Ok(clicks) => {
                for (position, click) in (0_u32..).zip(&clicks) {
                    self.push_place(record, position);
                    self.push_click(click);
                }
            }
            Err(reason) => {
                self.push_place(record, 0);
                self.push_malformed(&reason.to_string(), &record.value);
            }
        }
    }

    fn push_place(&mut self, record: &RawRecord, position: u32) {
        self.pending_rows += 1;
        self.rows += 1;
        self.shard.append_value(self.home.0);
        self.log_offset.append_value(record.offset);
        self.position.append_value(position);
        self.arrival_ms.append_value(record.arrival_ms);
    }

    fn push_click(&mut self, click: &Click) {
        let time = click.event_time_ms;
        let (earliest, latest) = self.event_times_ms.unwrap_or((time, time));
        self.event_times_ms = Some((earliest.min(time), latest.max(time)));
        self.days.extend(Day::of(time));

        self.home_shard.append_value(self.partitioner.shard(click.campaign_id, click.id()).0);
        self.click_id.append_value(click.click_id);
        self.campaign_id.append_value(click.campaign_id);
        self.ad_id.append_value(click.ad_id);
        self.event_time_ms.append_value(time);
        self.ingest_time_ms.append_value(click.ingest_time_ms);
        let texts = [
            &click.event_id,
            &click.source,
            &click.user_id,
            &click.ip_address,
            &click.user_agent,
            &click.device_type,
            &click.country,
            &click.region,
            &click.ad_format,
        ];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.append_value(text);
        }
        self.cost_per_click_micros.append_value(click.cost_per_click_micros);
        self.impression_token.append_value(&click.impression_token);
        self.evidence.append_value(click.evidence);
        self.malformed.append_null();
        self.raw.append_null();
    }

    fn push_malformed(&mut self, reason: &str, raw: &[u8]) {
        self.malformed_rows += 1;
        self.home_shard.append_null();
        for column in [
            &mut self.click_id,
            &mut self.campaign_id,
            &mut self.ad_id,
            &mut self.event_time_ms,
            &mut self.ingest_time_ms,
        ] {
            column.append_null();
        }
        for column in &mut self.texts {
            column.append_null();
        }
        self.cost_per_click_micros.append_null();
        self.impression_token.append_null();
        self.evidence.append_null();
        self.malformed.append_value(reason);
        self.raw.append_value(raw);
    }

    fn take_batch(&mut self) -> Result<RecordBatch, BillingError> {
        self.pending_rows = 0;
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.shard.finish()),
            Arc::new(self.log_offset.finish()),
            Arc::new(self.position.finish()),
            Arc::new(self.arrival_ms.finish()),
            Arc::new(self.home_shard.finish()),
            Arc::new(self.click_id.finish()),
            Arc::new(self.campaign_id.finish()),
            Arc::new(self.ad_id.finish()),
            Arc::new(self.event_time_ms.finish()),
            Arc::new(self.ingest_time_ms.finish()),
        ];
        for column in &mut self.texts {
            arrays.push(Arc::new(column.finish()));
        }
        arrays.push(Arc::new(self.cost_per_click_micros.finish()));
        arrays.push(Arc::new(self.impression_token.finish()));
        arrays.push(Arc::new(self.evidence.finish()));
        arrays.push(Arc::new(self.malformed.finish()));
        arrays.push(Arc::new(self.raw.finish()));
        Ok(RecordBatch::try_new(schema(), arrays)?)
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::click::encode::encode_record;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn click(n: u64) -> Click {
        Click { click_id: n, campaign_id: 1, ad_id: 2, event_time_ms: 1_700_000_000_000 + n, ..Click::default() }
    }

    fn segment(values: Vec<Vec<u8>>) -> Segment {
        let offset_to = 5 + values.len() as u64;
        let records = (5_u64..)
            .zip(values)
            .map(|(offset, value)| RawRecord { offset, arrival_ms: 1_700_000_000_000, value })
            .collect();
        Segment { shard: ShardId(3), hour: Default::default(), offset_from: 5, offset_to, records }
    }

    #[test]
    fn every_click_of_a_packed_record_and_every_malformed_record_is_a_row() {
        let segment = segment(vec![encode_record(&[click(1), click(2)]), b"\xff".to_vec(), encode_record(&[click(3)])]);
        let file = encode(&segment, Partitioner::new(1)).unwrap();
        assert_eq!((file.rows, file.malformed_rows), (4, 1));
        assert_eq!(file.event_times_ms, Some((1_700_000_000_001, 1_700_000_000_003)));
        assert_eq!(file.days.len(), 1);
        let reader = ParquetRecordBatchReaderBuilder::try_new(parquet_bytes(file.content)).unwrap().build().unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
        let ids: Vec<Option<u64>> = batches[0]
            .column_by_name("click_id")
            .and_then(|column| column.as_any().downcast_ref::<arrow::array::UInt64Array>())
            .unwrap()
            .iter()
            .collect();
        assert_eq!(ids, [Some(1), Some(2), None, Some(3)]);
    }

    #[test]
    fn the_same_records_give_the_same_bytes() {
        let segment = segment((1..500).map(|n| encode_record(&[click(n)])).collect());
        let encoded = || encode(&segment, Partitioner::new(1)).unwrap().content;
        assert_eq!(encoded(), encoded());
    }

    /// Its offsets hold markers and aborted records only.
    #[test]
    fn a_file_may_have_no_row() {
        let file = encode(&segment(Vec::new()), Partitioner::new(1)).unwrap();
        assert_eq!((file.rows, file.malformed_rows, file.event_times_ms), (0, 0, None));
        let reader = ParquetRecordBatchReaderBuilder::try_new(parquet_bytes(file.content)).unwrap().build().unwrap();
        assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 0);
    }

    #[test]
    fn a_file_of_nothing_but_malformed_records_has_no_event_time() {
        let file = encode(&segment(vec![Vec::new()]), Partitioner::new(1)).unwrap();
        assert_eq!((file.rows, file.malformed_rows, file.event_times_ms), (1, 1, None));
    }

    fn parquet_bytes(content: Vec<u8>) -> impl parquet::file::reader::ChunkReader + 'static {
        bytes::Bytes::from(content)
    }
}
