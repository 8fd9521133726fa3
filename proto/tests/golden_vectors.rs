//! `schema/vectors.json` fixes identities, the partitioner and the record format for every language. It was computed by an
//! independent implementation; if this test fails, the code is wrong, never the file: records and ids are out in the world.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

use clicktally_proto::click::{Click, encode_record};
use clicktally_proto::click_view::decode_record_owned;
use clicktally_proto::ids::ClickId;
use clicktally_proto::shard_key::{Partitioner, salt};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../schema/vectors.json")).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn small(value: &Value) -> u16 {
    u16::try_from(number(value)).unwrap()
}

#[test]
fn identities_are_as_published() {
    let ids = &vectors()["ids"];
    for vector in ids["minted"].as_array().unwrap() {
        let id = ClickId::minted(number(&vector["now_ms"]), small(&vector["worker"]), small(&vector["sequence"]));
        assert_eq!(id.0, number(&vector["click_id"]), "{vector}");
    }
    for vector in ids["foreign"].as_array().unwrap() {
        let id = ClickId::foreign(vector["source"].as_str().unwrap(), vector["event_id"].as_str().unwrap());
        assert_eq!(id.0, number(&vector["click_id"]), "{vector}");
    }
}

#[test]
fn every_click_goes_to_the_published_shard() {
    for vector in vectors()["partitioner"].as_array().unwrap() {
        let partitioner = Partitioner::new(small(&vector["groups"]));
        let (campaign, click) = (number(&vector["campaign_id"]), ClickId(number(&vector["click_id"])));
        assert_eq!(partitioner.group(campaign).0, small(&vector["group"]), "{vector}");
        assert_eq!(salt(click), small(&vector["salt"]), "{vector}");
        assert_eq!(partitioner.shard(campaign, click).0, small(&vector["shard"]), "{vector}");
    }
}

#[test]
fn records_are_written_and_read_as_published() {
    for vector in vectors()["records"].as_array().unwrap() {
        let click = |fields: &Value| {
            let mut fields = fields.clone();
            fields["click_id"] = number(&fields["click_id"]).into();
            serde_json::from_value::<Click>(fields).unwrap()
        };
        let clicks: Vec<Click> = vector["clicks"].as_array().unwrap().iter().map(click).collect();
        let record = encode_record(&clicks);
        let hex: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, vector["record_hex"].as_str().unwrap());
        assert_eq!(decode_record_owned(&record).unwrap(), clicks);
    }
}
