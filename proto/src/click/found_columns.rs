//! The columns of a packed record as a reader finds them: borrowed, and checked as a whole before any click is
//! assembled.
//!
//! Both readers start here: `view` for counting, and owned [`Click`]s for all others. So both refuse the same records.

use crate::click::fields::{
    AD_FORMAT, AD_ID, CAMPAIGN_ID, CLICK_ID, COST, COUNTRY, DEVICE_TYPE, EVENT_ID, EVENT_TIME, EVIDENCE,
    IMPRESSION_TOKEN, INGEST_TIME, IP_ADDRESS, REGION, SOURCE, USER_AGENT, USER_ID, Value, evidence_of, read_field,
};
use crate::click::malformed::Malformed;
use crate::click::record::{CLICKS_PER_RECORD_MAX, COLUMN_BYTES_MAX, Click};
use crate::varint::{self, zigzag};

/// The field with the number of clicks. The other fields have the numbers of a `Click`'s fields.
const CLICKS_FIELD: u64 = 100;

/// The columns of one record. Every column has no value, one, or as many as there are clicks. Every text is UTF-8, and
/// every value that a click refers to exists.
#[derive(Debug, Default)]
pub(crate) struct FoundColumns<'a> {
    clicks: usize,
    click_ids: &'a [u8],
    /// The columns of whole numbers, by field.
    numbers: [FoundNumbers<'a>; FIELDS],
    /// The columns of bytes, by field.
    bytes: [FoundBytes<'a>; FIELDS],
}

type TextOf = fn(&mut Click) -> &mut String;

/// One more than the highest field of a `Click`.
const FIELDS: usize = 18;

#[derive(Debug, Default, Clone, Copy)]
struct FoundBytes<'a> {
    bytes: &'a [u8],
    /// The length of each value.
    lengths: FoundNumbers<'a>,
    /// The number of each click's value.
    numbers: FoundNumbers<'a>,
    /// Bytes of the longest value.
    longest: usize,
}

/// Packed whole numbers, and how many there are.
#[derive(Debug, Default, Clone, Copy)]
struct FoundNumbers<'a> {
    packed: &'a [u8],
    values: usize,
}

impl<'a> FoundNumbers<'a> {
    /// Counts the numbers: the last byte of each is the one without the high bit.
    fn find(field: u64, packed: &'a [u8]) -> Result<FoundNumbers<'a>, Malformed> {
        if packed.last().is_some_and(|last| *last >= 0x80) {
            return Err(Malformed::ColumnValue(field));
        }
        Ok(FoundNumbers { packed, values: packed.iter().filter(|byte| **byte < 0x80).count() })
    }

    /// The numbers, one after the other.
    fn iter(self) -> Numbers<'a> {
        Numbers { packed: self.packed, at: 0, constant: None }
    }

    /// One number for each click: zero if the column is empty, its only value, or each click's own.
    fn of_each_click(self) -> Result<Numbers<'a>, Malformed> {
        let constant = match self.values {
            0 => Some(0),
            1 => Some(self.iter().next()?),
            _ => None,
        };
        Ok(Numbers { constant, ..self.iter() })
    }
}

impl<'a> FoundColumns<'a> {
    pub(crate) fn find(message: &'a [u8]) -> Result<FoundColumns<'a>, Malformed> {
        let mut found = FoundColumns::default();
        let mut is_found = 0_u32;
        let mut at = 0;
        while at < message.len() {
            let (field, value) = read_field(message, &mut at)?;
            match (field, value) {
                (CLICKS_FIELD, Value::Integer(clicks)) => {
                    found.clicks = usize::try_from(clicks).map_err(|_| Malformed::TooMany)?;
                }
                (CLICK_ID..=EVIDENCE, Value::Bytes(column)) => {
                    if is_found & 1 << field != 0 {
                        return Err(Malformed::ColumnTwice(field));
                    }
                    is_found |= 1 << field;
                    let at_field = field as usize;
                    match field {
                        CLICK_ID => found.click_ids = column,
                        EVENT_ID..=AD_FORMAT | IMPRESSION_TOKEN => found.bytes[at_field] = find_bytes(field, column)?,
                        _ => found.numbers[at_field] = FoundNumbers::find(field, column)?,
                    }
                }
                (CLICK_ID..=EVIDENCE | CLICKS_FIELD, _) => return Err(Malformed::WireType(field)),
                // A column of a newer schema is skipped, as a field of a newer click is.
                _ => {}
            }
        }
        found.check()?;
        Ok(found)
    }

    fn check(&self) -> Result<(), Malformed> {
        if self.clicks == 0 {
            return Err(Malformed::Missing("its row in the columns"));
        }
        if self.clicks > CLICKS_PER_RECORD_MAX {
            return Err(Malformed::TooMany);
        }
        let misfit = |field, values| Err(Malformed::ColumnLength { field, values, clicks: self.clicks });
        let fits = |field, values| if values <= 1 || values == self.clicks { Ok(()) } else { misfit(field, values) };
        if !self.click_ids.len().is_multiple_of(size_of::<u64>()) {
            return Err(Malformed::WireType(CLICK_ID));
        }
        fits(CLICK_ID, self.click_ids.len() / size_of::<u64>())?;
        for (field, column) in (0..).zip(&self.numbers) {
            fits(field, column.values)?;
        }
        // Counting does not look at this column. Read it here, so that no other reader fails on it later.
        let mut delays = self.numbers(INGEST_TIME)?;
        (0..self.clicks).try_for_each(|_| delays.next().map(drop))?;
        for (field, column) in (0..).zip(&self.bytes) {
            match column.numbers.values {
                0 => fits(field, column.lengths.values)?,
                // With numbers there may be any count of values, and there is a number for each click, even for a
                // single click.
                numbers if numbers == self.clicks => check_numbers(field, column)?,
                numbers => misfit(field, numbers)?,
            }
        }
        self.check_bytes()
    }

    /// Checks that there is room for each click's own copy of the values that it shares.
    fn check_bytes(&self) -> Result<(), Malformed> {
        let at_most = |column: &FoundBytes<'_>| column.longest.saturating_mul(self.clicks);
        if self.bytes.iter().map(at_most).fold(0, usize::saturating_add) <= COLUMN_BYTES_MAX {
            return Ok(());
        }
        // That was an upper bound, because long values may be rare. Now add up exactly.
        let mut bytes = 0_usize;
        for field in EVENT_ID..=IMPRESSION_TOKEN {
            for value in self.value_of_each(field)? {
                bytes = bytes.saturating_add(value.len());
            }
        }
        if bytes <= COLUMN_BYTES_MAX { Ok(()) } else { Err(Malformed::ColumnBytes) }
    }

    pub(crate) fn clicks(&self) -> usize {
        self.clicks
    }

    pub(crate) fn click_ids(&self) -> impl Iterator<Item = u64> + 'a {
        let (ids, _) = self.click_ids.as_chunks::<8>();
        let constant = match ids {
            [] => Some([0; 8]),
            [id] => Some(*id),
            _ => None,
        };
        let mut ids = ids.iter();
        // No caller asks for more ids than there are clicks.
        std::iter::from_fn(move || constant.or_else(|| ids.next().copied()).map(u64::from_le_bytes))
    }

    pub(crate) fn numbers(&self, field: u64) -> Result<Numbers<'a>, Malformed> {
        self.numbers[field as usize].of_each_click()
    }

    /// The values of a column of bytes, each once. One empty value if the column is empty.
    pub(crate) fn values(&self, field: u64) -> impl Iterator<Item = &'a [u8]> + 'a {
        let FoundBytes { mut bytes, lengths, .. } = self.bytes[field as usize];
        let values = lengths.values.max(1);
        let mut lengths = lengths.iter();
        (0..values).map(move |_| {
            let length = usize::try_from(lengths.next().unwrap_or(0)).unwrap_or(0);
            let (value, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
            bytes = rest;
            value
        })
    }

    /// For each click, the number of its value among [`FoundColumns::values`].
    pub(crate) fn value_numbers(&self, field: u64) -> ValueNumbers<'a> {
        let FoundBytes { numbers, lengths, .. } = self.bytes[field as usize];
        match (lengths.values, numbers.values) {
            (0 | 1, _) => ValueNumbers::Same,
            (_, 0) => ValueNumbers::Each(0),
            _ => ValueNumbers::Named(numbers.iter()),
        }
    }

    /// Every field of every click.
    pub(crate) fn to_clicks(&self) -> Result<Vec<Click>, Malformed> {
        let mut clicks = vec![Click::default(); self.clicks];
        let mut event_time_ms = 0_u64;
        let mut ids = self.click_ids();
        let (mut campaigns, mut ads) = (self.numbers(CAMPAIGN_ID)?, self.numbers(AD_ID)?);
        let (mut steps, mut delays) = (self.numbers(EVENT_TIME)?, self.numbers(INGEST_TIME)?);
        let (mut costs, mut evidence) = (self.numbers(COST)?, self.numbers(EVIDENCE)?);
        for click in &mut clicks {
            event_time_ms = event_time_ms.wrapping_add_signed(zigzag(steps.next()?));
            click.click_id = ids.next().unwrap_or(0);
            click.campaign_id = campaigns.next()?;
            click.ad_id = ads.next()?;
            click.event_time_ms = event_time_ms;
            click.ingest_time_ms = event_time_ms.wrapping_add_signed(zigzag(delays.next()?));
            click.cost_per_click_micros = zigzag(costs.next()?);
            click.evidence = evidence_of(evidence.next()?)?;
        }
        let texts: [(u64, TextOf); 9] = [
            (EVENT_ID, |click| &mut click.event_id),
            (SOURCE, |click| &mut click.source),
            (USER_ID, |click| &mut click.user_id),
            (IP_ADDRESS, |click| &mut click.ip_address),
            (USER_AGENT, |click| &mut click.user_agent),
            (DEVICE_TYPE, |click| &mut click.device_type),
            (COUNTRY, |click| &mut click.country),
            (REGION, |click| &mut click.region),
            (AD_FORMAT, |click| &mut click.ad_format),
        ];
        for (field, text_of) in texts {
            for (click, value) in clicks.iter_mut().zip(self.value_of_each(field)?) {
                let text = std::str::from_utf8(value).map_err(|_| Malformed::Text(field))?;
                text_of(click).push_str(text);
            }
        }
        for (click, value) in clicks.iter_mut().zip(self.value_of_each(IMPRESSION_TOKEN)?) {
            click.impression_token.extend_from_slice(value);
        }
        Ok(clicks)
    }

    fn value_of_each(&self, field: u64) -> Result<Vec<&'a [u8]>, Malformed> {
        let values: Vec<&[u8]> = self.values(field).collect();
        let mut numbers = self.value_numbers(field);
        (0..self.clicks).map(|_| Ok(values[numbers.next()?])).collect()
    }
}

fn find_bytes(field: u64, column: &[u8]) -> Result<FoundBytes<'_>, Malformed> {
    let mut found = FoundBytes::default();
    let mut is_found = 0_u8;
    let mut at = 0;
    while at < column.len() {
        let (part, Value::Bytes(value)) = read_field(column, &mut at)? else { return Err(Malformed::WireType(field)) };
        if !(1..=3).contains(&part) {
            return Err(Malformed::WireType(field));
        }
        if is_found & 1 << part != 0 {
            return Err(Malformed::ColumnTwice(field));
        }
        is_found |= 1 << part;
        match part {
            1 => found.bytes = value,
            2 => found.lengths = FoundNumbers::find(field, value)?,
            _ => found.numbers = FoundNumbers::find(field, value)?,
        }
    }
    found.longest = check_values(field, &found)?;
    Ok(found)
}

/// Checks that the lengths add up to the bytes, and that each text is UTF-8. Returns the greatest length.
fn check_values(field: u64, column: &FoundBytes<'_>) -> Result<usize, Malformed> {
    let is_text = field != IMPRESSION_TOKEN;
    let is_plain = !is_text || column.bytes.is_ascii();
    let mut lengths = column.lengths.iter();
    let mut left = column.bytes;
    let mut longest = 0;
    for _ in 0..column.lengths.values {
        let length = usize::try_from(lengths.next()?).unwrap_or(usize::MAX);
        let (value, rest) = left.split_at_checked(length).ok_or(Malformed::ColumnValue(field))?;
        if !is_plain && std::str::from_utf8(value).is_err() {
            return Err(Malformed::Text(field));
        }
        left = rest;
        longest = longest.max(length);
    }
    if left.is_empty() { Ok(longest) } else { Err(Malformed::ColumnValue(field)) }
}

fn check_numbers(field: u64, column: &FoundBytes<'_>) -> Result<(), Malformed> {
    let values = column.lengths.values as u64;
    let FoundNumbers { packed, values: clicks } = column.numbers;
    let is_there = |number: u64| if number < values { Ok(()) } else { Err(Malformed::ColumnValue(field)) };
    if packed.len() == clicks {
        // Each number is one byte long.
        return is_there(packed.iter().copied().max().unwrap_or(0).into());
    }
    let mut numbers = column.numbers.iter();
    (0..clicks).try_for_each(|_| is_there(numbers.next()?))
}

/// A column of whole numbers, click by click.
#[derive(Debug)]
pub(crate) struct Numbers<'a> {
    packed: &'a [u8],
    at: usize,
    /// The value of every click, if all have the same.
    constant: Option<u64>,
}

impl Numbers<'_> {
    /// # Errors
    /// The number has more than 64 bits, or is missing.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<u64, Malformed> {
        match self.constant {
            Some(value) => Ok(value),
            None => varint::read(self.packed, &mut self.at).ok_or(Malformed::Truncated(self.at)),
        }
    }
}

/// For each click, which of a column's values it has.
#[derive(Debug)]
pub(crate) enum ValueNumbers<'a> {
    /// All clicks have the first value.
    Same,
    /// Each click has the next value.
    Each(usize),
    Named(Numbers<'a>),
}

impl ValueNumbers<'_> {
    #[inline]
    pub(crate) fn next(&mut self) -> Result<usize, Malformed> {
        match self {
            ValueNumbers::Same => Ok(0),
            ValueNumbers::Each(next) => {
                *next += 1;
                Ok(*next - 1)
            }
            // Was checked to be the number of a value, so it fits.
            ValueNumbers::Named(numbers) => Ok(numbers.next()? as usize),
        }
    }
}
