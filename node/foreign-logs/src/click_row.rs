//! What a row must hold to be a click, by the rules that capture has.

use std::net::IpAddr;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::{AdId, CampaignId};
use clicktally_proto::limits::{EVENT_ID_BYTES_MAX, ID_MAX, LABEL_BYTES_MAX, USER_AGENT_BYTES_MAX, USER_ID_BYTES_MAX};
use sha2::{Digest, Sha256};

use crate::columns::Columns;
use crate::fields::{FieldValue, Fields};
use crate::skip::{FieldFault, Shown, SkipReason};
use crate::time_format::{TimeFault, TimeFormat};

/// Bytes of the hash that names a row. The log's click id keeps fewer.
const ROW_HASH_BYTES: usize = 16;

/// A click as its log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickRow {
    pub line: u64,
    pub time_ms: UnixMillis,
    pub ad_id: AdId,
    /// `None` if the row names none.
    pub campaign_id: Option<CampaignId>,
    /// The log's own id, or one made of the row's line and bytes.
    pub event_id: String,
    pub user_agent: String,
    /// Empty if the row names none, or something that is no address, such as a host name.
    pub ip_address: String,
    pub is_address_left_out: bool,
    pub country: String,
    pub device_type: String,
    pub user_id: String,
}

/// How the fields of a row are read.
#[derive(Debug, Clone, Default)]
pub struct ClickRules {
    pub time_format: TimeFormat,
    /// Added to every ad id.
    pub ad_id_offset: u64,
    /// Part of the identity of rows without an `event_id`: with another name, the same rows are other clicks.
    pub run_id: String,
}

/// The fields of one row under our names.
pub struct NamedFields<'a, 'b> {
    pub columns: &'a Columns,
    pub fields: &'a Fields<'b>,
}

impl ClickRules {
    /// `bytes` is the whole row, which its identity comes from.
    pub fn click(&self, line: u64, bytes: &[u8], named: &NamedFields<'_, '_>) -> Result<ClickRow, SkipReason> {
        let ad_id = named.id("ad_id")?.ok_or(SkipReason::Missing("ad_id"))?;
        let ip_address = named.text_bytes("ip_address")?.unwrap_or_default();
        let is_address =
            ip_address.is_empty() || str::from_utf8(ip_address).is_ok_and(|text| text.trim().parse::<IpAddr>().is_ok());
        Ok(ClickRow {
            line,
            time_ms: self.time(named)?,
            ad_id: self.with_offset(ad_id)?,
            campaign_id: match named.id("campaign_id")? {
                Some(id) if (1..=ID_MAX).contains(&id) => Some(id),
                Some(id) => {
                    let fault = FieldFault::NotAnId(Shown::of(id.to_string().as_bytes()));
                    return Err(SkipReason::Field { field: "campaign_id".to_owned(), fault });
                }
                None => None,
            },
            event_id: match named.text("event_id", EVENT_ID_BYTES_MAX)? {
                event_id if event_id.is_empty() => row_event_id(&self.run_id, line, bytes),
                event_id => event_id,
            },
            user_agent: named.agent()?,
            ip_address: if is_address { String::from_utf8_lossy(ip_address).trim().to_owned() } else { String::new() },
            is_address_left_out: !is_address,
            country: named.text("country", LABEL_BYTES_MAX)?,
            device_type: named.text("device_type", LABEL_BYTES_MAX)?,
            user_id: named.text("user_id", USER_ID_BYTES_MAX)?,
        })
    }

    fn time(&self, named: &NamedFields<'_, '_>) -> Result<UnixMillis, SkipReason> {
        let text = match named.value("timestamp") {
            FieldValue::Absent => return Err(SkipReason::Missing("timestamp")),
            FieldValue::Fault(fault) => return Err(named.refused("timestamp", fault.clone())),
            FieldValue::Float(text) => text.as_bytes(),
            FieldValue::Bytes(bytes) => bytes,
        };
        let parsed =
            str::from_utf8(text).map_err(|_| TimeFault::NotATime).and_then(|text| self.time_format.parse(text));
        parsed.map_err(|fault| {
            let (shown, name) = (Shown::of(text), self.time_format.name());
            named.refused(
                "timestamp",
                match fault {
                    TimeFault::NotATime => FieldFault::NotATime(shown, name),
                    TimeFault::OutOfRange => FieldFault::TimeOut(shown, name),
                },
            )
        })
    }

    fn with_offset(&self, ad_id: u64) -> Result<AdId, SkipReason> {
        let moved = ad_id.checked_add(self.ad_id_offset).filter(|id| (1..=ID_MAX).contains(id));
        moved.ok_or_else(|| {
            let shown = Shown::of(ad_id.to_string().as_bytes());
            let fault = if self.ad_id_offset == 0 { FieldFault::NotAnId(shown) } else { FieldFault::OffsetOut(shown) };
            SkipReason::Field { field: "ad_id".to_owned(), fault }
        })
    }
}

impl<'b> NamedFields<'_, 'b> {
    fn value(&self, ours: &str) -> &FieldValue<'b> {
        self.columns.value(ours, self.fields)
    }

    fn refused(&self, field: &str, fault: FieldFault) -> SkipReason {
        SkipReason::Field { field: field.to_owned(), fault }
    }

    fn text_bytes(&self, field: &'static str) -> Result<Option<&[u8]>, SkipReason> {
        match self.value(field) {
            FieldValue::Absent => Ok(None),
            FieldValue::Bytes(bytes) => Ok(Some(bytes)),
            FieldValue::Float(text) => Err(self.refused(field, FieldFault::NotExact(text.clone()))),
            FieldValue::Fault(fault) => Err(self.refused(field, fault.clone())),
        }
    }

    fn text(&self, field: &'static str, bytes_max: usize) -> Result<String, SkipReason> {
        let Some(bytes) = self.text_bytes(field)? else { return Ok(String::new()) };
        if bytes.len() > bytes_max {
            return Err(self.refused(field, FieldFault::TooLong(bytes_max)));
        }
        let text = str::from_utf8(bytes).map_err(|_| self.refused(field, FieldFault::NotUtf8))?;
        Ok(text.to_owned())
    }

    /// An agent is a description, and some are in other encodings: what is not UTF-8 is replaced. It is never cut,
    /// because a robot may declare itself at the end.
    fn agent(&self) -> Result<String, SkipReason> {
        let agent = String::from_utf8_lossy(self.text_bytes("user_agent")?.unwrap_or_default()).into_owned();
        if agent.len() > USER_AGENT_BYTES_MAX {
            return Err(self.refused("user_agent", FieldFault::TooLong(USER_AGENT_BYTES_MAX)));
        }
        Ok(agent)
    }

    /// A number, which may be 0: an offset may be added to it.
    fn id(&self, field: &'static str) -> Result<Option<u64>, SkipReason> {
        let Some(bytes) = self.text_bytes(field)? else { return Ok(None) };
        let bytes = bytes.trim_ascii();
        let is_plain = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
        let number = str::from_utf8(bytes).ok().filter(|_| is_plain).and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| self.refused(field, FieldFault::NotAnId(Shown::of(bytes))))
    }
}

/// The identity of a row that names none. The same line with the same bytes is the same click, so that a rerun of a
/// file, also of one that has grown, repeats clicks instead of adding some.
fn row_event_id(run_id: &str, line: u64, bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update((run_id.len() as u64).to_le_bytes());
    hasher.update(run_id.as_bytes());
    hasher.update(line.to_le_bytes());
    hasher.update(bytes);
    format!("row-{}", hex::encode(&hasher.finalize()[..ROW_HASH_BYTES]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_row;

    fn read(rules: &ClickRules, line: u64, json: &str) -> Result<ClickRow, SkipReason> {
        let fields = json_row::parse(json.as_bytes()).unwrap();
        let columns = Columns::default();
        rules.click(line, json.as_bytes(), &NamedFields { columns: &columns, fields: &fields })
    }

    fn click(more: &str) -> Result<ClickRow, SkipReason> {
        read(&ClickRules::default(), 1, &format!(r#"{{"timestamp": 1574553612.345678, "ad_id": 7{more}}}"#))
    }

    fn fault_of(more: &str) -> (String, FieldFault) {
        match click(more) {
            Err(SkipReason::Field { field, fault }) => (field, fault),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn null_is_absence_not_the_text_null() {
        let one =
            click(r#", "event_id": null, "user_id": null, "country": null, "campaign_id": null, "ip_address": null"#);
        let one = one.unwrap();
        assert_eq!((one.user_id.as_str(), one.country.as_str(), one.ip_address.as_str()), ("", "", ""));
        assert_eq!(one.campaign_id, None);
        assert!(one.event_id.starts_with("row-"), "{}", one.event_id);
        assert_eq!((one.time_ms, one.ad_id), (1_574_553_612_345, 7));
    }

    #[test]
    fn an_unreadable_campaign_is_a_fault_and_never_another_campaign() {
        for wrong in [r#""summer""#, "0", "-3", "\"+3\"", r#""9223372036854775808""#, "true"] {
            let (field, fault) = fault_of(&format!(r#", "campaign_id": {wrong}"#));
            assert_eq!(field, "campaign_id");
            assert!(matches!(fault, FieldFault::NotAnId(_)), "{wrong}: {fault:?}");
        }
        assert_eq!(click(r#", "campaign_id": " 3 ""#).unwrap().campaign_id, Some(3));
    }

    #[test]
    fn ids_that_a_float_has_rounded_are_refused() {
        for field in ["event_id", "user_id", "campaign_id"] {
            let (named, fault) = fault_of(&format!(r#", "{field}": 1.8e19"#));
            assert_eq!(named, field);
            assert!(matches!(fault, FieldFault::NotExact(_)));
        }
        assert_eq!(click(r#", "event_id": 18446744073709551617"#).unwrap().event_id, "18446744073709551617");
    }

    #[test]
    fn a_host_name_is_left_out_and_a_long_agent_is_named() {
        let named = click(r#", "ip_address": "client.example.org""#).unwrap();
        assert!(named.ip_address.is_empty() && named.is_address_left_out);
        let numeric = click(r#", "ip_address": "2001:db8::1""#).unwrap();
        assert!(numeric.ip_address == "2001:db8::1" && !numeric.is_address_left_out);
        let long = format!(r#", "user_agent": "{}""#, "x".repeat(USER_AGENT_BYTES_MAX + 1));
        assert_eq!(fault_of(&long), ("user_agent".to_owned(), FieldFault::TooLong(USER_AGENT_BYTES_MAX)));
        let country = format!(r#", "country": "{}""#, "x".repeat(LABEL_BYTES_MAX + 1));
        assert_eq!(fault_of(&country), ("country".to_owned(), FieldFault::TooLong(LABEL_BYTES_MAX)));
    }

    #[test]
    fn an_ad_is_required_and_an_offset_moves_it_within_its_range() {
        let rules = ClickRules { ad_id_offset: 1, ..ClickRules::default() };
        let with = |ad: &str| read(&rules, 1, &format!(r#"{{"timestamp": 1574553612, "ad_id": {ad}}}"#));
        assert_eq!(with("0").unwrap().ad_id, 1);
        assert!(matches!(with("9223372036854775807"), Err(SkipReason::Field { .. })));
        assert_eq!(with("null"), Err(SkipReason::Missing("ad_id")));
        assert_eq!(read(&rules, 1, r#"{"ad_id": 1}"#), Err(SkipReason::Missing("timestamp")));
    }

    #[test]
    fn the_identity_of_a_row_is_its_line_its_bytes_and_the_run() {
        let id = |run: &str, line, json: &str| {
            read(&ClickRules { run_id: run.to_owned(), ..ClickRules::default() }, line, json).unwrap().event_id
        };
        let json = r#"{"timestamp": 1574553612, "ad_id": 1}"#;
        assert_eq!(id("", 1, json), id("", 1, json));
        let others = [id("", 2, json), id("again", 1, json), id("", 1, &json.replace(": 1}", ": 2}"))];
        assert!(others.iter().all(|other| *other != id("", 1, json)));
        assert_eq!(id("", 1, json), "row-931680ebe5a1ea1004b8d2961bff9505", "another build repeats the same ids");
    }
}
