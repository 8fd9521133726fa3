//! A click is taken or refused alike in every JSON form: alone, in an array, in a line, and as a record of the raw log.

use clicktally_proto::click::view::decode_record;
use clicktally_proto::identity::shard_key::Partitioner;
use proptest::prelude::*;

use super::arrival::Arrival;
use super::body_items::read_items;
use super::click_fields::{ClickRefusal, check};

const NOW_S: u64 = 1_700_000_000;

/// Values as they are written. Some are no JSON, some of a wrong type, some too large for a float.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let written: [&[u8]; 24] = [
        b"7",
        b"\"7\"",
        b"1",
        b"\"seven\"",
        b"\"\\u00e9\"",
        b"\"\\ud83d\\ude00\"",
        b"null",
        b"9223372036854775807",
        b"18446744073709551616",
        b"18446744073709551617",
        b"\"18446744073709551617\"",
        b"0",
        b"-1",
        b"1.0",
        b"1e3",
        b"1e999",
        b"\"\\ud800\"",
        b"\"\xff\"",
        b"\"\xc3\"",
        b"true",
        b"[1]",
        b"{\"a\": 1}",
        b"nul",
        b"",
    ];
    proptest::sample::select(written.map(<[u8]>::to_vec).to_vec())
}

/// The fields that mean the same in a body and in a record. Which texts are an address, and how long a text may be, is
/// a rule of the door alone.
fn fields() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let required = || prop_oneof![9 => Just(b"7".to_vec()), 1 => value()];
    let optional = proptest::sample::select(vec!["event_id", "user_id", "user_agent", "country", "ad_id"]);
    let others = proptest::collection::vec((optional, value()), 0..3);
    (required(), required(), others).prop_map(|(ad_id, campaign_id, others)| {
        [("ad_id", ad_id), ("campaign_id", campaign_id)].into_iter().chain(others).collect()
    })
}

fn object(first: &str, fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let fields = fields.iter().map(|(name, value)| [format!(", \"{name}\": ").as_bytes(), value].concat());
    [format!("{{{first}").into_bytes(), fields.collect::<Vec<_>>().concat(), b"}".to_vec()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_form_takes_or_refuses_the_same_click(fields in fields()) {
        let click = object(&format!("\"timestamp\": {NOW_S}"), &fields);
        let good = object(&format!("\"timestamp\": {NOW_S}"), &[("ad_id", b"1".to_vec()), ("campaign_id", b"1".to_vec())]);
        let shown = String::from_utf8_lossy(&click).into_owned();
        let arrival = Arrival { now_ms: NOW_S * 1_000, partitioner: Partitioner::new(1), rules: &[] };
        let verdicts = |body: &[u8], declared_ndjson| {
            let items = read_items(body, declared_ndjson).unwrap();
            let checked = items.into_iter().map(|item| {
                item.map_err(ClickRefusal::from).and_then(|incoming| check(incoming, "shop", 0, &arrival))
            });
            checked.collect::<Vec<_>>()
        };
        let alone = verdicts(&click, false);
        prop_assert_eq!(alone.len(), 1, "{}", &shown);
        let array = verdicts(&[b"[", &good[..], b",", &click, b",", &good, b"]"].concat(), false);
        let lines = verdicts(&[&good[..], b"\n", &click, b"\n", &good].concat(), true);
        for many in [&array, &lines] {
            prop_assert_eq!(many.len(), 3, "{}", &shown);
            prop_assert!(many[0].is_ok() && many[2].is_ok(), "{}", &shown);
            prop_assert_eq!(&many[1], &alone[0], "{}", &shown);
        }
        let record = object(&format!("\"click_id\": 5, \"event_time_ms\": {}", NOW_S * 1_000), &fields);
        let recorded = decode_record(&record, &mut Vec::new());
        prop_assert_eq!(recorded.is_ok(), alone[0].is_ok(), "{}: {:?} and {:?}", &shown, recorded, alone);
        // What is refused as JSON names its field in every form.
        if let Err(refusal) = &alone[0] {
            prop_assert!(refusal.field().is_some(), "{}: {}", &shown, refusal);
        }
    }
}
