//! `schema/vectors.json` fixes identities, the partitioner and the record format for every language. An independent
//! implementation computed it. If this test fails, the code is wrong, never the file: such records and ids already
//! exist.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click::view::decode_record_owned;
use clicktally_proto::counts::user_mark::UserMark;
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::shard_key::{Partitioner, salt};
use serde_json::Value;
use sha2::{Digest, Sha256};

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
        let (source, event_id) = (vector["source"].as_str().unwrap(), vector["event_id"].as_str().unwrap());
        let id = ClickId::foreign(source, number(&vector["campaign_id"]), event_id);
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
fn users_leave_the_published_marks_and_sketches() {
    let users = &vectors()["users"];
    for vector in users["marks"].as_array().unwrap() {
        let mut sketch = UserSketch::default();
        sketch.insert(UserMark::of(vector["user_id"].as_str().unwrap().as_bytes()).unwrap());
        let mark = small(&vector["register"]) << 4 | small(&vector["rank"]);
        assert_eq!(sketch.to_bytes(), mark.to_le_bytes(), "{vector}");
    }
    for vector in users["sketches"].as_array().unwrap() {
        let mut sketch = UserSketch::default();
        for user in 0..number(&vector["users"]) {
            let user_id = format!("{}{user}", vector["prefix"].as_str().unwrap());
            sketch.insert(UserMark::of(user_id.as_bytes()).unwrap());
        }
        let bytes = sketch.to_bytes();
        assert_eq!(bytes.len() as u64, number(&vector["bytes"]), "{vector}");
        match vector["sketch_hex"].as_str() {
            Some(published) => assert_eq!(hex::encode(&bytes), published),
            None => {
                assert_eq!(hex::encode(Sha256::digest(&bytes)), vector["sketch_sha256"].as_str().unwrap(), "{vector}")
            }
        }
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
        assert_eq!(hex::encode(&record), vector["record_hex"].as_str().unwrap());
        assert_eq!(decode_record_owned(&record).unwrap(), clicks);
        // The packed form of before there were columns. It is no longer written, and stays readable.
        if let Some(rows) = vector["rows_hex"].as_str() {
            assert_eq!(decode_record_owned(&hex::decode(rows).unwrap()).unwrap(), clicks);
        }
    }
}
