//! Which clicks are accepted: a pure rule that turns the fields as sent, the source and the time into a [`Click`].

use std::net::IpAddr;

use clicktally_proto::click::json_object::{JsonError, JsonObject};
use clicktally_proto::click::record::Click;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::limits::{
    EVENT_ID_BYTES_MAX, LABEL_BYTES_MAX, PRICE_MICROS_MAX, USER_AGENT_BYTES_MAX, USER_ID_BYTES_MAX,
};
use thiserror::Error;
use utoipa::ToSchema;

use super::arrival::Arrival;
use crate::problem::ProblemKind;
use crate::text_forms::decimal::{DecimalError, Finer, parse_scaled};
use crate::text_forms::json_scalar::{Scalar, parse_id};
use crate::text_forms::time_text::parse_time;

pub const IMPRESSION_TOKEN_BYTES_MAX: usize = 2_048;

/// A click as sent. A field that this version does not know is refused, not ignored: a producer that sends `valid` or
/// `price` would otherwise believe that the field has an effect. `null` is the same as leaving the field out.
#[derive(Debug, Clone, Default, PartialEq, Eq, ToSchema)]
pub struct IncomingClick {
    /// The producer's own id. A repeat of it under the same campaign is the same click; under another campaign it is
    /// another click. A whole number means its digits, however many there are. Minted here if it is missing.
    #[schema(value_type = Option<Scalar>)]
    pub event_id: Option<String>,
    /// When clicked: RFC 3339 or epoch seconds. At most 5 minutes before its arrival, and at most
    /// `event_time.max_ahead_ms` (by default 5 minutes) after it. Required.
    #[schema(value_type = Option<Scalar>)]
    pub timestamp: Option<String>,
    /// 1 to 2^63 − 1, as a number or a decimal string. Required.
    #[schema(value_type = Option<Scalar>)]
    pub campaign_id: Option<String>,
    /// 1 to 2^63 − 1, as a number or a decimal string. Required.
    #[schema(value_type = Option<Scalar>)]
    pub ad_id: Option<String>,
    /// A whole number means its digits.
    #[schema(value_type = Option<Scalar>)]
    pub user_id: Option<String>,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub device_type: Option<String>,
    pub country: Option<String>,
    pub region: Option<String>,
    pub ad_format: Option<String>,
    /// In the campaign's currency, informative: the campaign's terms decide what is owed.
    #[schema(value_type = Option<Scalar>)]
    pub cost_per_click: Option<String>,
    pub impression_token: Option<String>,
}

impl IncomingClick {
    /// # Errors
    /// Names the field that cannot be read, has the wrong type, occurs twice or is not known.
    pub fn read(json: &[u8]) -> Result<IncomingClick, JsonError> {
        let mut fields = JsonObject::read(json)?;
        let incoming = IncomingClick {
            event_id: fields.name("event_id")?,
            timestamp: fields.measure("timestamp")?,
            campaign_id: fields.name("campaign_id")?,
            ad_id: fields.name("ad_id")?,
            user_id: fields.name("user_id")?,
            ip_address: fields.text("ip_address")?,
            user_agent: fields.text("user_agent")?,
            device_type: fields.text("device_type")?,
            country: fields.text("country")?,
            region: fields.text("region")?,
            ad_format: fields.text("ad_format")?,
            cost_per_click: fields.measure("cost_per_click")?,
            impression_token: fields.text("impression_token")?,
        };
        fields.refuse_unknown()?;
        Ok(incoming)
    }
}

/// Why a click is refused. Nothing of it is written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClickRefusal {
    #[error("not a click: {0}")]
    Malformed(#[from] JsonError),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} must be a whole number from 1 to 9223372036854775807")]
    Id(&'static str),
    #[error("timestamp must be RFC 3339 or epoch seconds")]
    Timestamp,
    #[error(
        "timestamp is {off_ms} ms ahead of the time of this node; at most {limit_ms} ms are accepted \
        (epoch seconds, not milliseconds?)"
    )]
    Ahead { off_ms: u64, limit_ms: u64 },
    #[error("timestamp is {off_ms} ms behind the time of this node; at most {limit_ms} ms are accepted")]
    Behind { off_ms: u64, limit_ms: u64 },
    #[error("{field} is longer than {limit} bytes")]
    TooLong { field: &'static str, limit: usize },
    #[error("event_id must not be empty")]
    EmptyEventId,
    #[error("ip_address is not a valid IPv4 or IPv6 address")]
    IpAddress,
    #[error("cost_per_click: {0}")]
    Price(DecimalError),
    #[error("cost_per_click must not be negative")]
    NegativePrice,
    #[error("cost_per_click is higher than {}; send units of the currency, not micros", PRICE_MICROS_MAX / 1_000_000)]
    PriceTooHigh,
}

impl ClickRefusal {
    /// The field that is wrong. `None`: the item is not a JSON object.
    pub fn field(&self) -> Option<&str> {
        match self {
            ClickRefusal::Malformed(error) => error.field(),
            ClickRefusal::Missing(field) | ClickRefusal::Id(field) | ClickRefusal::TooLong { field, .. } => Some(field),
            ClickRefusal::Timestamp | ClickRefusal::Ahead { .. } | ClickRefusal::Behind { .. } => Some("timestamp"),
            ClickRefusal::EmptyEventId => Some("event_id"),
            ClickRefusal::IpAddress => Some("ip_address"),
            ClickRefusal::Price(_) | ClickRefusal::NegativePrice | ClickRefusal::PriceTooHigh => Some("cost_per_click"),
        }
    }

    pub fn problem_kind(&self) -> ProblemKind {
        match self {
            ClickRefusal::Malformed(JsonError::Unexpected { .. }) => ProblemKind::ClickFieldInvalid,
            ClickRefusal::Malformed(_) => ProblemKind::ClickMalformed,
            ClickRefusal::Missing(_) => ProblemKind::ClickFieldMissing,
            ClickRefusal::Ahead { .. } | ClickRefusal::Behind { .. } => ProblemKind::ClickTimestampOutOfRange,
            ClickRefusal::TooLong { .. } => ProblemKind::ClickFieldTooLong,
            ClickRefusal::Id(_)
            | ClickRefusal::Timestamp
            | ClickRefusal::EmptyEventId
            | ClickRefusal::IpAddress
            | ClickRefusal::Price(_)
            | ClickRefusal::NegativePrice
            | ClickRefusal::PriceTooHigh => ProblemKind::ClickFieldInvalid,
        }
    }
}

/// The click without its id, which the caller sets. A click without an `event_id` gets no source: its id is minted.
pub fn check(
    incoming: IncomingClick,
    source: &str,
    evidence: u32,
    arrival: &Arrival<'_>,
) -> Result<Click, ClickRefusal> {
    let event_id = text("event_id", incoming.event_id, EVENT_ID_BYTES_MAX)?;
    if event_id.as_deref() == Some("") {
        return Err(ClickRefusal::EmptyEventId);
    }
    let source = if event_id.is_some() { source.to_owned() } else { String::new() };
    let label = |field, value| text(field, value, LABEL_BYTES_MAX).map(Option::unwrap_or_default);
    let campaign_id = id("campaign_id", incoming.campaign_id)?;
    Ok(Click {
        click_id: 0,
        campaign_id,
        ad_id: id("ad_id", incoming.ad_id)?,
        event_time_ms: event_time(incoming.timestamp, campaign_id, arrival)?,
        ingest_time_ms: arrival.now_ms,
        event_id: event_id.unwrap_or_default(),
        source,
        user_id: text("user_id", incoming.user_id, USER_ID_BYTES_MAX)?.unwrap_or_default(),
        ip_address: ip_address(incoming.ip_address)?,
        user_agent: text("user_agent", incoming.user_agent, USER_AGENT_BYTES_MAX)?.unwrap_or_default(),
        device_type: label("device_type", incoming.device_type)?,
        country: label("country", incoming.country)?,
        region: label("region", incoming.region)?,
        ad_format: label("ad_format", incoming.ad_format)?,
        cost_per_click_micros: price(incoming.cost_per_click)?,
        impression_token: text("impression_token", incoming.impression_token, IMPRESSION_TOKEN_BYTES_MAX)?
            .unwrap_or_default()
            .into_bytes(),
        evidence,
    })
}

fn text(field: &'static str, value: Option<String>, limit: usize) -> Result<Option<String>, ClickRefusal> {
    match value {
        Some(text) if text.len() > limit => Err(ClickRefusal::TooLong { field, limit }),
        value => Ok(value),
    }
}

fn id(field: &'static str, value: Option<String>) -> Result<u64, ClickRefusal> {
    let text = value.ok_or(ClickRefusal::Missing(field))?;
    parse_id(&text).ok_or(ClickRefusal::Id(field))
}

fn event_time(value: Option<String>, campaign: CampaignId, arrival: &Arrival<'_>) -> Result<UnixMillis, ClickRefusal> {
    let text = value.ok_or(ClickRefusal::Missing("timestamp"))?;
    let event_time_ms = parse_time(&text).ok_or(ClickRefusal::Timestamp)?;
    let (now_ms, newest_ms, oldest_ms) = (arrival.now_ms, arrival.newest_ms(campaign), arrival.oldest_ms());
    if event_time_ms > newest_ms {
        return Err(ClickRefusal::Ahead { off_ms: event_time_ms - now_ms, limit_ms: newest_ms - now_ms });
    }
    if event_time_ms < oldest_ms {
        return Err(ClickRefusal::Behind { off_ms: now_ms - event_time_ms, limit_ms: now_ms - oldest_ms });
    }
    Ok(event_time_ms)
}

fn ip_address(value: Option<String>) -> Result<String, ClickRefusal> {
    match value {
        None => Ok(String::new()),
        Some(text) => text.parse::<IpAddr>().map(|_| text).map_err(|_| ClickRefusal::IpAddress),
    }
}

fn price(value: Option<String>) -> Result<i64, ClickRefusal> {
    let Some(value) = value else { return Ok(0) };
    let micros = parse_scaled(&value, 6, Finer::Refuse).map_err(ClickRefusal::Price)?;
    match micros {
        ..0 => Err(ClickRefusal::NegativePrice),
        0..=PRICE_MICROS_MAX => Ok(micros),
        _ => Err(ClickRefusal::PriceTooHigh),
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::event_time::EventTimeRules;
    use clicktally_proto::identity::shard_key::Partitioner;
    use proptest::prelude::*;

    use super::*;
    use crate::capture::arrival::BEHIND_MAX_MS;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn checked(json: &str) -> Result<Click, ClickRefusal> {
        checked_by(json, &[])
    }

    fn checked_by(json: &str, rules: &[EventTimeRules]) -> Result<Click, ClickRefusal> {
        let arrival = Arrival { now_ms: NOW_MS, partitioner: Partitioner::new(1), rules };
        check(IncomingClick::read(json.as_bytes())?, "shop", 0, &arrival)
    }

    #[test]
    fn a_full_click_is_accepted_unchanged() {
        let click = checked(
            r#"{"event_id": "e1", "timestamp": "2023-11-14T22:13:20.5Z", "campaign_id": "7", "ad_id": 9, "user_id": 12,
                "ip_address": "2001:db8::1", "user_agent": "Mozilla", "country": "US", "cost_per_click": "0.25"}"#,
        )
        .unwrap();
        assert_eq!((click.campaign_id, click.ad_id, click.event_time_ms), (7, 9, NOW_MS + 500));
        assert_eq!((click.event_id.as_str(), click.source.as_str(), click.user_id.as_str()), ("e1", "shop", "12"));
        assert_eq!((click.cost_per_click_micros, click.ingest_time_ms), (250_000, NOW_MS));
    }

    #[test]
    fn a_click_is_as_far_from_its_arrival_as_its_group_counts_and_no_millisecond_more() {
        let default_ms = EventTimeRules::default().max_ahead_ms;
        for max_ahead_ms in [default_ms, 30_000, 0] {
            let rules = [EventTimeRules { max_ahead_ms, ..EventTimeRules::default() }];
            let at = |time_ms: u64| {
                let (seconds, millis) = (time_ms / 1_000, time_ms % 1_000);
                let click = format!(r#"{{"timestamp": {seconds}.{millis:03}, "campaign_id": 1, "ad_id": 1}}"#);
                checked_by(&click, &rules)
            };
            for edge in [NOW_MS - BEHIND_MAX_MS, NOW_MS + max_ahead_ms] {
                assert_eq!(at(edge).unwrap().event_time_ms, edge);
            }
            let behind = at(NOW_MS - BEHIND_MAX_MS - 1).unwrap_err();
            assert_eq!(behind, ClickRefusal::Behind { off_ms: BEHIND_MAX_MS + 1, limit_ms: BEHIND_MAX_MS });
            let ahead = at(NOW_MS + max_ahead_ms + 1).unwrap_err();
            assert_eq!(ahead, ClickRefusal::Ahead { off_ms: max_ahead_ms + 1, limit_ms: max_ahead_ms });
            assert_eq!((behind.field(), ahead.field()), (Some("timestamp"), Some("timestamp")));
        }
        let milliseconds = checked(r#"{"timestamp": 1700000000000, "campaign_id": 1, "ad_id": 1}"#).unwrap_err();
        assert!(milliseconds.to_string().contains("not milliseconds"));
    }

    #[test]
    fn each_campaign_is_checked_by_the_rules_of_its_own_group() {
        let partitioner = Partitioner::new(2);
        let strict = EventTimeRules { max_ahead_ms: 0, ..EventTimeRules::default() };
        let arrival = Arrival { now_ms: NOW_MS, partitioner, rules: &[strict, EventTimeRules::default()] };
        let campaigns = (1..).filter(|campaign| partitioner.group(*campaign).0 == 0).take(3);
        for campaign in campaigns {
            assert_eq!(arrival.newest_ms(campaign), NOW_MS);
        }
        let other = (1..).find(|campaign| partitioner.group(*campaign).0 == 1).unwrap();
        assert_eq!(arrival.newest_ms(other), NOW_MS + EventTimeRules::default().max_ahead_ms);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert_eq!(checked(r#"{"timestamp": 1700000000, "ad_id": 1}"#), Err(ClickRefusal::Missing("campaign_id")));
        assert_eq!(
            checked(r#"{"timestamp": 1700000000, "campaign_id": 1, "ad_id": 0}"#),
            Err(ClickRefusal::Id("ad_id"))
        );
        assert_eq!(checked(r#"{"campaign_id": 1, "ad_id": 1}"#), Err(ClickRefusal::Missing("timestamp")));
        let long =
            format!(r#"{{"timestamp": 1700000000, "campaign_id": 1, "ad_id": 1, "country": "{}"}}"#, "x".repeat(65));
        assert_eq!(checked(&long), Err(ClickRefusal::TooLong { field: "country", limit: LABEL_BYTES_MAX }));
        let free = r#"{"timestamp": 1700000000, "campaign_id": 1, "ad_id": 1, "cost_per_click": -1}"#;
        assert_eq!(checked(free), Err(ClickRefusal::NegativePrice));
        let costing = |cost: &str| {
            checked(&format!(
                r#"{{"timestamp": 1700000000, "campaign_id": 1, "ad_id": 1, "cost_per_click": "{cost}"}}"#
            ))
        };
        assert_eq!(costing("1000000").unwrap().cost_per_click_micros, PRICE_MICROS_MAX);
        for beyond in ["1000000.000001", "9000000000000"] {
            assert_eq!(costing(beyond), Err(ClickRefusal::PriceTooHigh));
        }
    }

    #[test]
    fn two_ids_that_a_float_makes_equal_stay_two() {
        let of = |id: &str| {
            let click = format!(
                r#"{{"event_id": {id}, "user_id": {id}, "timestamp": 1700000000, "campaign_id": 1, "ad_id": 1}}"#
            );
            checked(&click).map(|click| (click.event_id, click.user_id))
        };
        for id in ["18446744073709551616", "18446744073709551617", "\"18446744073709551617\""] {
            let digits = id.trim_matches('"').to_owned();
            assert_eq!(of(id), Ok((digits.clone(), digits)));
        }
        let refusal = of("1.8446744073709552e19").unwrap_err();
        assert_eq!((refusal.field(), refusal.problem_kind()), (Some("event_id"), ProblemKind::ClickFieldInvalid));
    }

    #[test]
    fn a_click_to_be_minted_has_no_source() {
        assert_eq!(checked(r#"{"timestamp": 1700000000, "campaign_id": 1, "ad_id": 1}"#).unwrap().source, "");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(timestamp in ".{0,30}", ad_id in ".{0,30}", price in ".{0,30}", ip in ".{0,30}", now_ms in any::<u64>()) {
            let incoming = IncomingClick {
                timestamp: Some(timestamp),
                ad_id: Some(ad_id),
                campaign_id: Some("7".to_owned()),
                cost_per_click: Some(price),
                ip_address: Some(ip),
                ..IncomingClick::default()
            };
            let arrival = Arrival { now_ms, partitioner: Partitioner::new(1), rules: &[] };
            let _ = check(incoming, "shop", 0, &arrival);
        }
    }
}
