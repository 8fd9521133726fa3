//! Writes many clicks of one record column by column: the packed form of the raw log (`schema/click.proto`,
//! `ClickColumns`). `found_columns` reads it.
//!
//! Clicks of one partition and moment are alike: one device, a few countries and agents, times a few milliseconds
//! apart. A column holds nothing where all clicks have nothing, one value where all have the same, and texts as numbers
//! of distinct texts. So a record is smaller before it is compressed, and the counting path reads numbers in a row
//! instead of walking through each click's fields (`docs/decisions/015-columnar-batch.md`).

use std::collections::HashMap;

use prost::Message;

use crate::click::record::Click;

/// The fields of a `ClickBatch`: rows, each a click as it was packed before there were columns, and the columns.
pub(crate) const ROWS_FIELD: u32 = 100;
pub(crate) const COLUMNS_FIELD: u32 = 101;

/// The schema documents what each column holds.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClickColumns {
    #[prost(fixed64, repeated, tag = "1")]
    click_id: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    campaign_id: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    ad_id: Vec<u64>,
    #[prost(sint64, repeated, tag = "4")]
    event_time_step_ms: Vec<i64>,
    #[prost(sint64, repeated, tag = "5")]
    ingest_delay_ms: Vec<i64>,
    #[prost(message, optional, tag = "6")]
    event_id: Option<ByteColumn>,
    #[prost(message, optional, tag = "7")]
    source: Option<ByteColumn>,
    #[prost(message, optional, tag = "8")]
    user_id: Option<ByteColumn>,
    #[prost(message, optional, tag = "9")]
    ip_address: Option<ByteColumn>,
    #[prost(message, optional, tag = "10")]
    user_agent: Option<ByteColumn>,
    #[prost(message, optional, tag = "11")]
    device_type: Option<ByteColumn>,
    #[prost(message, optional, tag = "12")]
    country: Option<ByteColumn>,
    #[prost(message, optional, tag = "13")]
    region: Option<ByteColumn>,
    #[prost(message, optional, tag = "14")]
    ad_format: Option<ByteColumn>,
    #[prost(sint64, repeated, tag = "15")]
    cost_per_click_micros: Vec<i64>,
    #[prost(message, optional, tag = "16")]
    impression_token: Option<ByteColumn>,
    #[prost(uint32, repeated, tag = "17")]
    evidence: Vec<u32>,
    #[prost(uint32, tag = "100")]
    clicks: u32,
}

/// Texts or other bytes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ByteColumn {
    /// The values, one after the other.
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
    #[prost(uint32, repeated, tag = "2")]
    lengths: Vec<u32>,
    /// For each click, the number of its value. Empty where all clicks share one value, or each has its own.
    #[prost(uint32, repeated, tag = "3")]
    numbers: Vec<u32>,
}

impl ClickColumns {
    pub(crate) fn of(clicks: &[Click]) -> ClickColumns {
        let texts = |text: fn(&Click) -> &String| byte_column(clicks.iter().map(|click| text(click).as_bytes()));
        let mut event_time_ms = 0_u64;
        let steps = clicks.iter().map(|click| {
            let before = std::mem::replace(&mut event_time_ms, click.event_time_ms);
            click.event_time_ms.wrapping_sub(before).cast_signed()
        });
        let delay_ms = |click: &Click| click.ingest_time_ms.wrapping_sub(click.event_time_ms).cast_signed();
        ClickColumns {
            click_id: column(clicks.iter().map(|click| click.click_id)),
            campaign_id: column(clicks.iter().map(|click| click.campaign_id)),
            ad_id: column(clicks.iter().map(|click| click.ad_id)),
            event_time_step_ms: column(steps),
            ingest_delay_ms: column(clicks.iter().map(delay_ms)),
            event_id: texts(|click| &click.event_id),
            source: texts(|click| &click.source),
            user_id: texts(|click| &click.user_id),
            ip_address: texts(|click| &click.ip_address),
            user_agent: texts(|click| &click.user_agent),
            device_type: texts(|click| &click.device_type),
            country: texts(|click| &click.country),
            region: texts(|click| &click.region),
            ad_format: texts(|click| &click.ad_format),
            cost_per_click_micros: column(clicks.iter().map(|click| click.cost_per_click_micros)),
            impression_token: byte_column(clicks.iter().map(|click| click.impression_token.as_slice())),
            evidence: column(clicks.iter().map(|click| click.evidence)),
            clicks: clicks.len() as u32,
        }
    }
}

/// Empty where all values are the default, one value where all are equal.
fn column<T: Copy + Default + PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    if values.iter().all(|value| *value == values[0]) {
        values.truncate(if values[0] == T::default() { 0 } else { 1 });
    }
    values
}

fn byte_column<'a>(values: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Option<ByteColumn> {
    let first = values.clone().next()?;
    if values.clone().all(|value| value == first) {
        let whole = ByteColumn { bytes: first.to_vec(), lengths: vec![first.len() as u32], numbers: Vec::new() };
        return Some(whole).filter(|_| !first.is_empty());
    }
    let mut known: HashMap<&[u8], u32, foldhash::fast::RandomState> = HashMap::default();
    let mut distinct = ByteColumn::default();
    for value in values.clone() {
        let next = distinct.lengths.len() as u32;
        let number = *known.entry(value).or_insert(next);
        if number == next {
            distinct.bytes.extend_from_slice(value);
            distinct.lengths.push(value.len() as u32);
        }
        distinct.numbers.push(number);
    }
    // Numbers pay only where many clicks share a value.
    if distinct.lengths.len() * 4 < values.len() * 3 {
        return Some(distinct);
    }
    let lengths = values.clone().map(|value| value.len() as u32).collect();
    Some(ByteColumn { bytes: values.flatten().copied().collect(), lengths, numbers: Vec::new() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::click::encode::{encode_record, encode_rows};
    use crate::click::malformed::Malformed;
    use crate::click::record::COLUMN_BYTES_MAX;
    use crate::click::view::{ClickView, decode_record, decode_record_owned};
    use crate::limits::PRICE_MICROS_MAX;

    prop_compose! {
        fn text()(text in prop_oneof![4 => Just(String::new()), 4 => "[a-c]{0,3}", 1 => "[à-ü名]{1,3}", 1 => "x{100,200}"]) -> String { text }
    }

    prop_compose! {
        fn number()(number in prop_oneof![4 => 1_u64..5, 2 => 1_700_000_000_000_u64..1_700_000_000_900, 1 => 1_u64..=u64::MAX]) -> u64 { number }
    }

    prop_compose! {
        fn click()(
            [click_id, campaign_id, ad_id, event_time_ms] in [number(), number(), number(), number()],
            ingest_time_ms in prop_oneof![Just(0_u64), number()],
            [event_id, source, user_id, ip_address] in [text(), text(), text(), text()],
            [device_type, country, region, ad_format] in [text(), text(), text(), text()],
            user_agent in prop_oneof![4 => text(), 1 => Just("ExampleBot/1".to_owned())],
            cost_per_click_micros in prop_oneof![3 => Just(0_i64), 2 => 1_i64..9, 1 => i64::MIN..=PRICE_MICROS_MAX],
            impression_token in prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(any::<u8>(), 0..4)],
            evidence in prop_oneof![6 => Just(0_u32), 1 => any::<u32>()],
        ) -> Click {
            Click {
                click_id, campaign_id, ad_id, event_time_ms, ingest_time_ms, event_id, source, user_id, ip_address, user_agent,
                device_type, country, region, ad_format, cost_per_click_micros, impression_token, evidence,
            }
        }
    }

    fn record_of(columns: &ClickColumns) -> Vec<u8> {
        let mut record = Vec::new();
        prost::encoding::message::encode(COLUMNS_FIELD, columns, &mut record);
        record
    }

    fn views(record: &[u8]) -> Result<Vec<ClickView>, Malformed> {
        let mut views = Vec::new();
        decode_record(record, &mut views).map(|()| views)
    }

    proptest! {
        #[test]
        fn columns_hold_what_rows_hold(clicks in proptest::collection::vec(click(), 2..40)) {
            let columns = encode_record(&clicks);
            prop_assert_eq!(decode_record_owned(&columns).unwrap(), clicks.clone());
            prop_assert_eq!(decode_record_owned(&encode_rows(&clicks)).unwrap(), clicks.clone());
            prop_assert_eq!(views(&columns).unwrap(), views(&encode_rows(&clicks)).unwrap());
            let both = [encode_rows(&clicks), columns].concat();
            prop_assert_eq!(decode_record_owned(&both).unwrap(), [clicks.clone(), clicks].concat(), "columns after rows");
        }

        #[test]
        fn damage_never_panics_and_both_readers_find_it(
            clicks in proptest::collection::vec(click(), 2..9), at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<bool>()
        ) {
            let mut record = encode_record(&clicks);
            let at = at.index(record.len());
            record[at] = value;
            if cut { record.truncate(at); }
            match (views(&record), decode_record_owned(&record)) {
                (Ok(views), Ok(clicks)) => {
                    let ids = |views: &[ClickView]| views.iter().map(|view| (view.click_id.0, view.ad_id, view.event_time_ms)).collect::<Vec<_>>();
                    let owned: Vec<_> = clicks.iter().map(|click| (click.click_id, click.ad_id, click.event_time_ms)).collect();
                    prop_assert_eq!(ids(&views), owned);
                }
                (viewed, owned) => prop_assert_eq!(viewed.err(), owned.err()),
            }
        }

        #[test]
        fn garbage_for_columns_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut record = Vec::new();
            prost::encoding::bytes::encode(COLUMNS_FIELD, &garbage, &mut record);
            prop_assert_eq!(views(&record).err(), decode_record_owned(&record).err());
        }
    }

    fn three() -> ClickColumns {
        let click = |n: u64| Click {
            click_id: n,
            campaign_id: 7,
            ad_id: n % 2 + 1,
            event_time_ms: 1_000 + n,
            country: "PT".into(),
            region: if n < 3 { "Évora".into() } else { "11".into() },
            user_id: format!("u-{n}"),
            ..Click::default()
        };
        ClickColumns::of(&[1, 2, 3].map(click))
    }

    #[test]
    fn a_column_is_as_short_as_it_can_be() {
        let columns = three();
        assert_eq!(columns.campaign_id, [7], "the same for all");
        assert_eq!((columns.cost_per_click_micros.len(), &columns.source), (0, &None), "nothing at all");
        let country = columns.country.unwrap();
        assert_eq!((&country.bytes[..], country.lengths, country.numbers), (&b"PT"[..], vec![2], vec![]));
        let region = columns.region.unwrap();
        assert_eq!((region.bytes, region.lengths, region.numbers), ("Évora11".into(), vec![6, 2], vec![0, 0, 1]));
        let users = columns.user_id.unwrap();
        assert_eq!((&users.bytes[..], users.lengths, users.numbers), (&b"u-1u-2u-3"[..], vec![3, 3, 3], vec![]));
    }

    #[test]
    fn columns_that_do_not_fit_together_are_refused_by_name() {
        type Spoil = fn(&mut ClickColumns);
        let length = |field, values| Malformed::ColumnLength { field, values, clicks: 3 };
        let cases: [(Spoil, Malformed); 17] = [
            (|c| c.clicks = 0, Malformed::Missing("its row in the columns")),
            (|c| c.clicks = 10_001, Malformed::TooMany),
            (|c| c.ad_id = vec![1, 2], length(3, 2)),
            (|c| c.click_id.push(4), length(1, 4)),
            (|c| c.evidence = vec![0; 4], length(17, 4)),
            (|c| c.user_id.as_mut().unwrap().lengths = vec![3, 6], length(8, 2)),
            (|c| c.region.as_mut().unwrap().numbers = vec![0, 1], length(13, 2)),
            (|c| c.region.as_mut().unwrap().numbers = vec![0, 1, 2], Malformed::ColumnValue(13)),
            (|c| c.region.as_mut().unwrap().numbers = vec![0, 1, 200], Malformed::ColumnValue(13)),
            (|c| c.region.as_mut().unwrap().lengths = vec![6, 3], Malformed::ColumnValue(13)),
            (|c| c.region.as_mut().unwrap().lengths = vec![6, 1], Malformed::ColumnValue(13)),
            (|c| c.region.as_mut().unwrap().lengths = vec![1, 7], Malformed::Text(13)),
            (|c| c.click_id.clear(), Malformed::Missing("click_id")),
            (|c| c.ad_id = vec![1, 0, 1], Malformed::Missing("ad_id")),
            (|c| c.campaign_id.clear(), Malformed::Missing("campaign_id")),
            (|c| c.event_time_step_ms = vec![0, 1, 1], Malformed::Missing("event_time_ms")),
            (|c| c.country.as_mut().unwrap().numbers = vec![0, 0, 1], Malformed::ColumnValue(12)),
        ];
        for (spoil, expected) in cases {
            let mut columns = three();
            spoil(&mut columns);
            let record = record_of(&columns);
            assert_eq!(views(&record), Err(expected.clone()));
            assert_eq!(decode_record_owned(&record), Err(expected));
        }
    }

    #[test]
    fn columns_in_another_encoding_are_refused() {
        let whole = three().encode_to_vec();
        let wrapped = |parts: &[&[u8]]| {
            let mut record = Vec::new();
            prost::encoding::bytes::encode(COLUMNS_FIELD, &parts.concat(), &mut record);
            views(&record)
        };
        assert_eq!(wrapped(&[&whole]).unwrap().len(), 3);
        assert_eq!(wrapped(&[&whole, &[2 << 3 | 2, 1, 7]]), Err(Malformed::ColumnTwice(2)));
        assert_eq!(wrapped(&[&whole, &[17 << 3 & 0x7f | 0x80, 1, 0]]), Err(Malformed::WireType(17)), "not packed");
        let without = |spoil: fn(&mut ClickColumns)| {
            let mut columns = three();
            spoil(&mut columns);
            columns.encode_to_vec()
        };
        let (no_delays, no_region) = (without(|c| c.ingest_delay_ms.clear()), without(|c| c.region = None));
        // A number of 64 bits takes ten bytes at most.
        let too_long = [&[5 << 3 | 2, 13][..], &[0xff; 10], &[1, 1, 1]].concat();
        assert!(matches!(wrapped(&[&no_delays, &too_long]), Err(Malformed::Truncated(_))));
        let ids = without(|c| c.click_id.clear());
        assert_eq!(wrapped(&[&ids, &[1 << 3 | 2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 1]]), Err(Malformed::WireType(1)));
        let region = |parts: &[&[u8]]| {
            let column = parts.concat();
            wrapped(&[&no_region, &[13 << 3 | 2, column.len() as u8], &column])
        };
        let (bytes, lengths) = (&[1 << 3 | 2, 2, b'1', b'1'][..], &[2 << 3 | 2, 1, 2][..]);
        assert_eq!(region(&[bytes, lengths]).unwrap().len(), 3);
        assert_eq!(region(&[bytes, lengths, bytes]), Err(Malformed::ColumnTwice(13)));
        assert_eq!(region(&[bytes, lengths, &[4 << 3 | 2, 0]]), Err(Malformed::WireType(13)), "an unknown part");
        assert_eq!(region(&[bytes, lengths, &[3 << 3, 0]]), Err(Malformed::WireType(13)), "a part that is a number");
        assert_eq!(
            wrapped(&[&whole, &[18 << 3 & 0x7f | 0x80 | 2, 1, 1, 9]]).unwrap().len(),
            3,
            "a column of a newer schema"
        );
        let mut unknown =
            encode_rows(&[Click { click_id: 1, campaign_id: 1, ad_id: 1, event_time_ms: 1, ..Click::default() }]);
        prost::encoding::uint64::encode(102, &1, &mut unknown);
        assert_eq!(views(&unknown), Err(Malformed::UnknownBatchField(102)), "clicks might be in it");
        assert_eq!(decode_record_owned(&unknown), Err(Malformed::UnknownBatchField(102)));
    }

    #[test]
    fn a_batch_is_rows_then_columns_at_most_once() {
        let click = Click { click_id: 1, campaign_id: 1, ad_id: 1, event_time_ms: 1, ..Click::default() };
        let (rows, columns) = (encode_rows(&[click]), record_of(&three()));
        let cases = [
            ([&columns[..], &columns].concat(), Malformed::ColumnTwice(101)),
            ([&columns[..], &rows].concat(), Malformed::RowBehindColumns),
            ([&rows[..], &[0xa0, 6, 1]].concat(), Malformed::WireType(100)),
            ([&rows[..], &[0xa8, 6, 1]].concat(), Malformed::WireType(101)),
        ];
        for (record, expected) in cases {
            assert_eq!(views(&record), Err(expected.clone()));
            assert_eq!(decode_record_owned(&record), Err(expected));
        }
    }

    #[test]
    fn evidence_has_32_bits_in_every_form() {
        let click = Click { click_id: 1, campaign_id: 1, ad_id: 1, event_time_ms: 1, ..Click::default() };
        // A decoder that keeps the low 32 bits would read no evidence.
        let mut single = click.encode_to_vec();
        prost::encoding::uint64::encode(17, &(1 << 32), &mut single);
        let mut row = Vec::new();
        prost::encoding::bytes::encode(ROWS_FIELD, &single, &mut row);
        let mut columns = three().encode_to_vec();
        prost::encoding::uint64::encode_packed(17, &[1 << 32], &mut columns);
        let mut batch = Vec::new();
        prost::encoding::bytes::encode(COLUMNS_FIELD, &columns, &mut batch);
        for record in [single, row, batch] {
            assert_eq!(views(&record), Err(Malformed::TooLarge(17)));
            assert_eq!(decode_record_owned(&record), Err(Malformed::TooLarge(17)));
        }
    }

    #[test]
    fn a_small_record_does_not_become_a_large_one() {
        let clicks = |user_agents: &[String]| {
            let click = |n: u64| Click {
                click_id: n + 1,
                campaign_id: 1,
                ad_id: 1,
                event_time_ms: 1,
                country: "PT".into(),
                user_agent: user_agents[n as usize % user_agents.len()].clone(),
                ..Click::default()
            };
            (0..1_000).map(click).collect::<Vec<_>>()
        };
        // With the countries, the most bytes allowed and one more: first in one value, then in two.
        let most = COLUMN_BYTES_MAX / 1_000 - 2;
        let texts = |lengths: &[usize]| lengths.iter().map(|length| "a".repeat(*length)).collect::<Vec<_>>();
        for (fits, exceeds) in [(vec![most], vec![most + 1]), (vec![most - 9, most + 9], vec![most - 8, most + 10])] {
            let (fits, exceeds) = (clicks(&texts(&fits)), clicks(&texts(&exceeds)));
            let columns = record_of(&ClickColumns::of(&fits));
            assert!(columns.len() < 100_000 && encode_record(&fits) == columns);
            assert_eq!(decode_record_owned(&columns).unwrap(), fits);
            let columns = record_of(&ClickColumns::of(&exceeds));
            assert_eq!(views(&columns), Err(Malformed::ColumnBytes));
            assert_eq!(decode_record_owned(&columns), Err(Malformed::ColumnBytes));
            let rows = encode_record(&exceeds);
            assert!(rows == encode_rows(&exceeds) && decode_record_owned(&rows).unwrap() == exceeds);
        }
    }
}
