//! Decodes a raw record for counting.
//!
//! Reads: the bytes of one raw record. Promises: never panics, never allocates per click, and takes or refuses a record
//! as a whole.
//!
//! The counting path needs eight fields of a click. Parsing just those, borrowed, costs a fraction of building the
//! owned message. Unknown fields are skipped, so that newer producers work.

use crate::click::columns::{COLUMNS_FIELD, ROWS_FIELD};
use crate::click::fields::{
    AD_ID, CAMPAIGN_ID, COST, EVENT_TIME, EVIDENCE, USER_AGENT, USER_ID, Value, evidence_of, read_field,
};
use crate::click::found_columns::FoundColumns;
use crate::click::invalid_traffic;
use crate::click::json_click::read_json_click;
use crate::click::malformed::Malformed;
use crate::click::record::{CLICKS_PER_RECORD_MAX, Click, RECORD_BYTES_MAX};
use crate::counts::user_mark::UserMark;
use crate::event_time::UnixMillis;
use crate::identity::ids::{AdId, CampaignId, ClickId};
use crate::limits::PRICE_MICROS_MAX;
use crate::money::Micros;
use crate::varint::{self, zigzag};

/// The fields that counting needs, in the order of `schema/click.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClickView {
    pub click_id: ClickId,
    pub campaign_id: CampaignId,
    pub ad_id: AdId,
    pub event_time_ms: UnixMillis,
    /// Excluded from billing and from the count, by the rules of [`invalid_traffic`].
    pub is_invalid: bool,
    /// `None` for a click without a `user_id`, and for an invalid click.
    pub user: Option<UserMark>,
    /// Zero or less for a click without a cost.
    pub cost_per_click_micros: Micros,
}

const ROWS: u64 = ROWS_FIELD as u64;
const COLUMNS: u64 = COLUMNS_FIELD as u64;

/// Appends the clicks of one raw record (a `Click`, a `ClickBatch` or a JSON click) to `into`. On error `into` is
/// unchanged.
pub fn decode_record(record: &[u8], into: &mut Vec<ClickView>) -> Result<(), Malformed> {
    let before = into.len();
    let outcome = decode_into(record, into);
    if outcome.is_err() {
        into.truncate(before);
    }
    outcome
}

fn decode_into(record: &[u8], into: &mut Vec<ClickView>) -> Result<(), Malformed> {
    if record.len() > RECORD_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    match record.first() {
        None => return Err(Malformed::Empty),
        Some(b'{') => {
            into.push(view_of(&read_json_click(record)?)?);
            return Ok(());
        }
        Some(_) => {}
    }
    if !is_batch(record) {
        into.push(decode_click(record)?);
        return Ok(());
    }
    let mut at = 0;
    let mut clicks = 0;
    let mut has_columns = false;
    while at < record.len() {
        match read_field(record, &mut at)? {
            // Generated code would read these in another order, or merge the two columns.
            (ROWS, Value::Bytes(_)) if has_columns => return Err(Malformed::RowBehindColumns),
            (COLUMNS, Value::Bytes(_)) if has_columns => return Err(Malformed::ColumnTwice(COLUMNS)),
            (ROWS, Value::Bytes(click)) => {
                clicks += 1;
                into.push(decode_click(click)?);
            }
            (COLUMNS, Value::Bytes(columns)) => {
                has_columns = true;
                let columns = FoundColumns::find(columns)?;
                clicks += columns.clicks();
                decode_columns(&columns, into)?;
            }
            (field @ (ROWS | COLUMNS), _) => return Err(Malformed::WireType(field)),
            // An unknown field may hold clicks, so it must not be skipped.
            (field, _) => return Err(Malformed::UnknownBatchField(field)),
        }
        if clicks > CLICKS_PER_RECORD_MAX {
            return Err(Malformed::TooMany);
        }
    }
    Ok(())
}

fn decode_columns(columns: &FoundColumns<'_>, into: &mut Vec<ClickView>) -> Result<(), Malformed> {
    // Computed once for each agent and user, not for each click.
    let are_robots: Vec<bool> =
        columns.values(USER_AGENT).map(|user_agent| invalid_traffic::is_invalid(0, user_agent)).collect();
    let users: Vec<Option<UserMark>> = columns.values(USER_ID).map(UserMark::of).collect();
    let mut ids = columns.click_ids();
    let (mut campaigns, mut ads) = (columns.numbers(CAMPAIGN_ID)?, columns.numbers(AD_ID)?);
    let (mut steps, mut costs, mut evidence) =
        (columns.numbers(EVENT_TIME)?, columns.numbers(COST)?, columns.numbers(EVIDENCE)?);
    let (mut agent, mut user) = (columns.value_numbers(USER_AGENT), columns.value_numbers(USER_ID));
    let mut event_time_ms = 0_u64;
    into.reserve(columns.clicks());
    for _ in 0..columns.clicks() {
        event_time_ms = event_time_ms.wrapping_add_signed(zigzag(steps.next()?));
        // Every column advances with every click, even if another column makes the click invalid.
        let (evidence, is_robot) = (evidence_of(evidence.next()?)?, are_robots[agent.next()?]);
        let mut view = ClickView {
            click_id: ClickId(ids.next().unwrap_or(0)),
            campaign_id: campaigns.next()?,
            ad_id: ads.next()?,
            event_time_ms,
            is_invalid: evidence != 0 || is_robot,
            user: users[user.next()?],
            cost_per_click_micros: zigzag(costs.next()?),
        };
        if view.is_invalid {
            view.user = None;
        }
        into.push(view.complete()?);
    }
    Ok(())
}

/// The owned clicks of a record, for readers that need every field (the archive, tests).
pub fn decode_record_owned(record: &[u8]) -> Result<Vec<Click>, Malformed> {
    // Decode by the counting path's rules first, so that both paths refuse the same records.
    decode_into(record, &mut Vec::new())?;
    let owned = |bytes: &[u8]| <Click as prost::Message>::decode(bytes).map_err(|_| Malformed::Truncated(0));
    if record.first() == Some(&b'{') {
        return Ok(vec![read_json_click(record)?]);
    }
    if !is_batch(record) {
        return Ok(vec![owned(record)?]);
    }
    let mut clicks = Vec::new();
    let mut at = 0;
    while at < record.len() {
        match read_field(record, &mut at)? {
            (ROWS, Value::Bytes(click)) => clicks.push(owned(click)?),
            (COLUMNS, Value::Bytes(columns)) => clicks.extend(FoundColumns::find(columns)?.to_clicks()?),
            (field, _) => return Err(Malformed::UnknownBatchField(field)),
        }
    }
    Ok(clicks)
}

/// A `Click` never has field 100, and a `ClickBatch` has no field below it, so the first tag decides.
fn is_batch(record: &[u8]) -> bool {
    let mut at = 0;
    matches!(varint::read(record, &mut at), Some(tag) if tag >> 3 >= 100)
}

fn view_of(click: &Click) -> Result<ClickView, Malformed> {
    checked(
        ClickView {
            click_id: click.id(),
            campaign_id: click.campaign_id,
            ad_id: click.ad_id,
            event_time_ms: click.event_time_ms,
            cost_per_click_micros: click.cost_per_click_micros,
            ..EMPTY
        },
        click.evidence,
        click.user_agent.as_bytes(),
        click.user_id.as_bytes(),
    )
}

const EMPTY: ClickView = ClickView {
    click_id: ClickId(0),
    campaign_id: 0,
    ad_id: 0,
    event_time_ms: 0,
    is_invalid: false,
    user: None,
    cost_per_click_micros: 0,
};

fn decode_click(bytes: &[u8]) -> Result<ClickView, Malformed> {
    let mut view = EMPTY;
    let mut evidence = 0;
    let mut user_agent: &[u8] = &[];
    let mut user_id: &[u8] = &[];
    // From the first short text field to the last. All producers write them in one piece, so they are checked in one
    // piece.
    let mut texts = bytes.len()..0;
    let mut at = 0;
    while at < bytes.len() {
        // Nearly all tags take one byte, and so do the lengths of most texts.
        if let [tag @ ..0x80, length @ 0..=0x7f, rest @ ..] = &bytes[at..]
            && tag & 7 == 2
            && SHORT_TEXT_TAGS.contains(tag)
        {
            let text = rest.get(..usize::from(*length)).ok_or(Malformed::Truncated(at))?;
            match u64::from(tag >> 3) {
                USER_ID => user_id = text,
                USER_AGENT => user_agent = text,
                _ => {}
            }
            texts.start = texts.start.min(at);
            at += 2 + text.len();
            texts.end = at;
            continue;
        }
        if let tag @ ..0x80 = bytes[at]
            && tag & 7 == 0
        {
            let start = at;
            at += 1;
            let value = varint::read(bytes, &mut at).ok_or(Malformed::Truncated(start))?;
            match tag >> 3 {
                1 => view.click_id = ClickId(value),
                2 => view.campaign_id = value,
                3 => view.ad_id = value,
                4 => view.event_time_ms = value,
                15 => view.cost_per_click_micros = value.cast_signed(),
                5 => {}
                field => return Err(Malformed::WireType(field.into())),
            }
            continue;
        }
        match read_field(bytes, &mut at)? {
            (EVIDENCE, Value::Integer(value)) => evidence = evidence_of(value)?,
            (field @ (6..=7 | 9 | 11..=14), Value::Bytes(text)) => check_text(field, text)?,
            (USER_ID, Value::Bytes(text)) => {
                check_text(USER_ID, text)?;
                user_id = text;
            }
            (USER_AGENT, Value::Bytes(text)) => {
                check_text(USER_AGENT, text)?;
                user_agent = text;
            }
            (16, Value::Bytes(_)) => {}
            // A tag may be encoded in more bytes than it needs.
            (1, Value::Integer(value)) => view.click_id = ClickId(value),
            (2, Value::Integer(value)) => view.campaign_id = value,
            (3, Value::Integer(value)) => view.ad_id = value,
            (4, Value::Integer(value)) => view.event_time_ms = value,
            (15, Value::Integer(value)) => view.cost_per_click_micros = value.cast_signed(),
            (5, Value::Integer(_)) => {}
            (field @ 1..=17, _) => return Err(Malformed::WireType(field)),
            _ => {}
        }
    }
    if !bytes.get(texts).is_none_or(<[u8]>::is_ascii) {
        check_short_texts(bytes)?;
    }
    checked(view, evidence, user_agent, user_id)
}

/// Checks the texts one by one, because some byte among or between them is not ASCII.
#[cold]
fn check_short_texts(bytes: &[u8]) -> Result<(), Malformed> {
    let mut at = 0;
    while at < bytes.len() {
        if let (field @ 6..=14, Value::Bytes(text)) = read_field(bytes, &mut at)? {
            check_text(field, text)?;
        }
    }
    Ok(())
}

/// Fields 6 to 14 are all text.
const SHORT_TEXT_TAGS: std::ops::RangeInclusive<u8> = 6 << 3..=14 << 3 | 7;

fn check_text(field: u64, text: &[u8]) -> Result<(), Malformed> {
    if text.is_ascii() || std::str::from_utf8(text).is_ok() { Ok(()) } else { Err(Malformed::Text(field)) }
}

fn checked(mut view: ClickView, evidence: u32, user_agent: &[u8], user_id: &[u8]) -> Result<ClickView, Malformed> {
    view.is_invalid = invalid_traffic::is_invalid(evidence, user_agent);
    if !view.is_invalid {
        view.user = UserMark::of(user_id);
    }
    view.complete()
}

impl ClickView {
    /// Checks the fields that every click must have, and the bound of its cost.
    #[inline]
    fn complete(self) -> Result<ClickView, Malformed> {
        if self.click_id.0 == 0 {
            return Err(Malformed::Missing("click_id"));
        }
        if self.ad_id == 0 {
            return Err(Malformed::Missing("ad_id"));
        }
        if self.campaign_id == 0 {
            return Err(Malformed::Missing("campaign_id"));
        }
        if self.event_time_ms == 0 {
            return Err(Malformed::Missing("event_time_ms"));
        }
        // The costs of a window have a sum, and so has the history of an ad.
        if self.cost_per_click_micros > PRICE_MICROS_MAX {
            return Err(Malformed::CostTooHigh);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::click::encode::encode_record;

    fn click(n: u64) -> Click {
        Click {
            click_id: n + 1,
            campaign_id: n % 7 + 1,
            ad_id: n % 11 + 1,
            event_time_ms: 1_700_000_000_000 + n,
            user_id: if n.is_multiple_of(3) { String::new() } else { format!("user {n}").repeat(n as usize % 31) },
            user_agent: if n.is_multiple_of(13) { "ExampleBot/1".into() } else { "Mozilla/5.0".into() },
            country: "PT".into(),
            cost_per_click_micros: n.cast_signed() - 5,
            ..Click::default()
        }
    }

    #[test]
    fn single_packed_and_json_forms_decode_alike() {
        let clicks: Vec<Click> = (0..50).map(click).collect();
        let expected: Vec<ClickView> = clicks.iter().map(|c| view_of(c).unwrap()).collect();
        let mut packed = Vec::new();
        decode_record(&encode_record(&clicks), &mut packed).unwrap();
        assert_eq!(packed, expected);
        let mut singles = Vec::new();
        for click in &clicks {
            decode_record(&encode_record(std::slice::from_ref(click)), &mut singles).unwrap();
        }
        assert_eq!(singles, expected);
        let mut json = Vec::new();
        for click in &clicks {
            decode_record(&serde_json::to_vec(click).unwrap(), &mut json).unwrap();
        }
        assert_eq!(json, expected);
        assert_eq!(decode_record_owned(&encode_record(&clicks)).unwrap(), clicks);
    }

    #[test]
    fn the_user_of_a_valid_click_is_known_and_what_it_cost() {
        let valid = view_of(&click(1)).unwrap();
        assert_eq!((valid.user, valid.cost_per_click_micros), (UserMark::of(b"user 1"), -4));
        assert_eq!(view_of(&click(3)).unwrap().user, None, "a click without a user id");
        let invalid = view_of(&click(26)).unwrap();
        assert_eq!((invalid.is_invalid, invalid.user), (true, None), "a robot is not a user");
    }

    #[test]
    fn a_cost_beyond_the_bound_is_malformed_in_every_form() {
        let of_cost = |cost_per_click_micros| Click { cost_per_click_micros, ..click(1) };
        for (cost, expected) in
            [(PRICE_MICROS_MAX, Ok(())), (PRICE_MICROS_MAX + 1, Err(Malformed::CostTooHigh)), (i64::MIN, Ok(()))]
        {
            let click = of_cost(cost);
            let json = serde_json::to_vec(&click).unwrap();
            for record in [encode_record(std::slice::from_ref(&click)), encode_record(&[click.clone(), click]), json] {
                assert_eq!(decode_record(&record, &mut Vec::new()), expected);
            }
        }
    }

    #[test]
    fn unknown_fields_of_a_newer_schema_are_skipped() {
        let mut record = encode_record(&[click(1)]);
        prost::encoding::string::encode(18, &"new".to_string(), &mut record);
        prost::encoding::fixed64::encode(19, &1, &mut record);
        let mut views = Vec::new();
        decode_record(&record, &mut views).unwrap();
        assert_eq!(views, [view_of(&click(1)).unwrap()]);
    }

    #[test]
    fn text_must_be_utf_8_in_whichever_field_and_whatever_stands_around_it() {
        let decode = |record: &[u8]| decode_record(record, &mut Vec::new());
        let of_field = |field: u8, text: &[u8]| [&[field << 3 | 2, text.len() as u8], text].concat();
        let required = encode_record(&[Click { user_id: String::new(), ..click(1) }]);
        for field in 6..=14 {
            for (first, second) in [(field, 14), (6, field)] {
                let good = [of_field(first, "Évora".as_bytes()), of_field(second, b"plain")].concat();
                let torn = [of_field(first, b"plain"), of_field(second, &"Évora".as_bytes()[..1])].concat();
                for records in [[&required[..], &good], [&good, &required]] {
                    assert_eq!(decode(&records.concat()), Ok(()));
                }
                for records in [[&required[..], &torn], [&torn, &required]] {
                    assert_eq!(decode(&records.concat()), Err(Malformed::Text(second.into())));
                }
            }
        }
        let whole_number = [&required[..], &[6 << 3, 1]].concat();
        assert_eq!(decode(&whole_number), Err(Malformed::WireType(6)));
    }

    #[test]
    fn a_batch_with_one_bad_click_is_refused_whole() {
        let clicks = [click(1), Click { ad_id: 0, ..click(2) }];
        let mut views = vec![view_of(&click(9)).unwrap()];
        assert_eq!(decode_record(&encode_record(&clicks), &mut views), Err(Malformed::Missing("ad_id")));
        assert_eq!(views.len(), 1);
    }

    /// A field of any number and type. Most are short.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof![6 => 1_u64..=18, 1 => 0_u64..=110, 1 => any::<u64>()];
        let value = prop_oneof![4 => 0_u64..4, 1 => any::<u64>()];
        let bytes = prop_oneof![
            4 => "[a-c]{0,3}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..200),
        ];
        (number, 0_u8..6, value, bytes).prop_map(|(number, kind, value, bytes)| {
            let mut field = Vec::new();
            prost::encoding::encode_varint(number << 3 | u64::from(kind), &mut field);
            match kind {
                0 => prost::encoding::encode_varint(value, &mut field),
                1 => field.extend_from_slice(&value.to_le_bytes()),
                2 => {
                    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
                    field.extend_from_slice(&bytes);
                }
                5 => field.extend_from_slice(&(value as u32).to_le_bytes()),
                _ => {}
            }
            field
        })
    }

    fn assert_both_decoders_agree(record: &[u8]) {
        let mut views = Vec::new();
        let viewed = decode_record(record, &mut views).map(|()| views);
        let owned = decode_record_owned(record).map(|clicks| clicks.iter().map(view_of).collect::<Result<Vec<_>, _>>());
        assert_eq!(viewed.map(Ok), owned, "{record:?}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_both_decoders_agree(record in proptest::collection::vec(any::<u8>(), 0..300)) {
            assert_both_decoders_agree(&record);
        }

        #[test]
        fn arbitrary_fields_never_panic_and_both_decoders_agree(
            before in proptest::collection::vec(field(), 0..4), behind in proptest::collection::vec(field(), 0..4), is_batch in any::<bool>()
        ) {
            let required = encode_record(&[Click { user_id: String::new(), ..click(1) }]);
            let record = [before.concat(), required, behind.concat()].concat();
            if is_batch {
                let mut batch = Vec::new();
                prost::encoding::bytes::encode(ROWS_FIELD, &record, &mut batch);
                assert_both_decoders_agree(&[batch, behind.concat()].concat());
            }
            assert_both_decoders_agree(&record);
        }

        #[test]
        fn a_flipped_byte_never_panics(seed in 0_u64..1_000, at in 0_usize..120, value in any::<u8>()) {
            let mut record = encode_record(&[click(seed), click(seed + 1)]);
            let at = at % record.len();
            record[at] = value;
            let _ = decode_record(&record, &mut Vec::new());
        }
    }
}
