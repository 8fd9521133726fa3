//! The JSON form of a record of the raw log: one object with the fields of `schema/click.proto`.
//!
//! A field that this version does not know is skipped, as in the other forms of a record.

use crate::click::json_object::{JsonError, JsonObject};
use crate::click::record::Click;

const UNSIGNED: &str = "a whole number from 0 to 18446744073709551615";

pub(crate) fn read_json_click(record: &[u8]) -> Result<Click, JsonError> {
    let mut fields = JsonObject::read(record)?;
    let mut number = |field| Ok(fields.whole(field, UNSIGNED)?.unwrap_or(0));
    let (click_id, campaign_id, ad_id) = (number("click_id")?, number("campaign_id")?, number("ad_id")?);
    let (event_time_ms, ingest_time_ms) = (number("event_time_ms")?, number("ingest_time_ms")?);
    let cost = "a whole number from -9223372036854775808 to 9223372036854775807";
    let evidence = "a whole number from 0 to 4294967295";
    Ok(Click {
        click_id,
        campaign_id,
        ad_id,
        event_time_ms,
        ingest_time_ms,
        event_id: fields.name("event_id")?.unwrap_or_default(),
        source: fields.text("source")?.unwrap_or_default(),
        user_id: fields.name("user_id")?.unwrap_or_default(),
        ip_address: fields.text("ip_address")?.unwrap_or_default(),
        user_agent: fields.text("user_agent")?.unwrap_or_default(),
        device_type: fields.text("device_type")?.unwrap_or_default(),
        country: fields.text("country")?.unwrap_or_default(),
        region: fields.text("region")?.unwrap_or_default(),
        ad_format: fields.text("ad_format")?.unwrap_or_default(),
        cost_per_click_micros: fields.whole("cost_per_click_micros", cost)?.unwrap_or(0),
        impression_token: fields.bytes("impression_token")?.unwrap_or_default(),
        evidence: fields.whole("evidence", evidence)?.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_follows_the_rules_of_every_json_click() {
        let whole = br#"{"click_id": "9223372036854775809", "ad_id": 7, "campaign_id": "3", "event_time_ms": 5,
            "user_id": 18446744073709551617, "country": null, "newer": {"a": 1}, "impression_token": [1, 2]}"#;
        let click = read_json_click(whole).unwrap();
        assert_eq!((click.click_id, click.ad_id, click.campaign_id), (9_223_372_036_854_775_809, 7, 3));
        assert_eq!((click.user_id.as_str(), click.country.as_str()), ("18446744073709551617", ""));
        assert_eq!(click.impression_token, [1, 2]);
        for (record, field) in [
            (r#"{"click_id": 18446744073709551616}"#, "click_id"),
            (r#"{"ad_id": 1, "ad_id": 1}"#, "ad_id"),
            (r#"{"newer": 1, "newer": 1}"#, "newer"),
            (r#"{"evidence": 4294967296}"#, "evidence"),
            (r#"{"country": "\udc00"}"#, "country"),
            (r#"{"country": 7}"#, "country"),
            (r#"{"cost_per_click_micros": 1e3}"#, "cost_per_click_micros"),
            (r#"{"impression_token": [256]}"#, "impression_token"),
        ] {
            let error = read_json_click(record.as_bytes()).unwrap_err();
            assert_eq!(error.field(), Some(field), "{error}");
        }
    }

    #[test]
    fn what_this_build_writes_it_reads() {
        let click = Click { click_id: u64::MAX, ad_id: 1, cost_per_click_micros: -4, evidence: 2, ..Click::default() };
        let click = Click { user_id: "Évora \u{0}".to_owned(), impression_token: vec![0, 255], ..click };
        assert_eq!(read_json_click(&serde_json::to_vec(&click).unwrap()), Ok(click));
    }
}
