//! The fields of a `Click` and of the messages around it: their numbers, and how one field is read from Protobuf's
//! bytes.

use crate::click::malformed::Malformed;
use crate::varint;

pub(crate) const CLICK_ID: u64 = 1;
pub(crate) const CAMPAIGN_ID: u64 = 2;
pub(crate) const AD_ID: u64 = 3;
pub(crate) const EVENT_TIME: u64 = 4;
pub(crate) const INGEST_TIME: u64 = 5;
pub(crate) const EVENT_ID: u64 = 6;
pub(crate) const SOURCE: u64 = 7;
pub(crate) const USER_ID: u64 = 8;
pub(crate) const IP_ADDRESS: u64 = 9;
pub(crate) const USER_AGENT: u64 = 10;
pub(crate) const DEVICE_TYPE: u64 = 11;
pub(crate) const COUNTRY: u64 = 12;
pub(crate) const REGION: u64 = 13;
pub(crate) const AD_FORMAT: u64 = 14;
pub(crate) const COST: u64 = 15;
pub(crate) const IMPRESSION_TOKEN: u64 = 16;
pub(crate) const EVIDENCE: u64 = 17;

/// The value of one field, borrowed.
pub(crate) enum Value<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
    Skipped,
}

#[inline]
pub(crate) fn read_field<'a>(bytes: &'a [u8], at: &mut usize) -> Result<(u64, Value<'a>), Malformed> {
    let start = *at;
    let truncated = || Malformed::Truncated(start);
    let tag = varint::read(bytes, at).ok_or_else(truncated)?;
    // Decoders of generated code refuse larger tags.
    if tag > u64::from(u32::MAX) {
        return Err(Malformed::WireType(tag >> 3));
    }
    let field = tag >> 3;
    if field == 0 {
        return Err(Malformed::WireType(0));
    }
    let value = match tag & 7 {
        0 => Value::Integer(varint::read(bytes, at).ok_or_else(truncated)?),
        1 => skip(bytes, at, 8).ok_or_else(truncated)?,
        2 => {
            let length = varint::read(bytes, at).ok_or_else(truncated)?;
            let end = usize::try_from(length).ok().and_then(|n| at.checked_add(n)).ok_or_else(truncated)?;
            let value = bytes.get(*at..end).ok_or_else(truncated)?;
            *at = end;
            Value::Bytes(value)
        }
        5 => skip(bytes, at, 4).ok_or_else(truncated)?,
        _ => return Err(Malformed::WireType(field)),
    };
    Ok((field, value))
}

#[inline]
fn skip<'a>(bytes: &[u8], at: &mut usize, length: usize) -> Option<Value<'a>> {
    let end = at.checked_add(length)?;
    bytes.get(*at..end)?;
    *at = end;
    Some(Value::Skipped)
}

/// Refuses a number above 32 bits. Generated code keeps its low bits, so one reader would see evidence and another
/// none.
#[inline]
pub(crate) fn evidence_of(value: u64) -> Result<u32, Malformed> {
    u32::try_from(value).map_err(|_| Malformed::TooLarge(EVIDENCE))
}
