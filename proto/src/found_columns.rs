//! The columns of a packed record as a reader finds them: borrowed, checked as a whole, nothing of any click put together yet.
//!
//! Both readers ([`crate::click_view`] for counting, owned [`Click`]s for everybody else) begin here, so that they refuse the same
//! records.

use crate::click::{CLICKS_PER_RECORD_MAX, Click};
use crate::click_view::{Malformed, Value, read_field};
use crate::varint;

/// The number of clicks, in a message whose other fields are numbered as those of a `Click`.
const CLICKS_FIELD: u64 = 100;

/// The columns of one record, as it holds them. Every column has none, one, or as many values as there are clicks; every text is UTF-8; every
/// value a click names is there.
#[derive(Debug, Default)]
pub(crate) struct FoundColumns<'a> {
    clicks: usize,
    click_ids: &'a [u8],
    /// Of whole numbers, by field.
    packed: [&'a [u8]; FIELDS],
    /// Of bytes, by field.
    bytes: [FoundBytes<'a>; FIELDS],
}

type TextOf = fn(&mut Click) -> &mut String;

/// Numbers of fields, and one.
const FIELDS: usize = 18;
pub(crate) const CAMPAIGN_ID: usize = 2;
pub(crate) const AD_ID: usize = 3;
pub(crate) const EVENT_TIME: usize = 4;
const INGEST_TIME: usize = 5;
const EVENT_ID: usize = 6;
const SOURCE: usize = 7;
pub(crate) const USER_ID: usize = 8;
const IP_ADDRESS: usize = 9;
pub(crate) const USER_AGENT: usize = 10;
const DEVICE_TYPE: usize = 11;
const COUNTRY: usize = 12;
const REGION: usize = 13;
const AD_FORMAT: usize = 14;
pub(crate) const COST: usize = 15;
const IMPRESSION_TOKEN: usize = 16;
pub(crate) const EVIDENCE: usize = 17;

#[derive(Debug, Default, Clone, Copy)]
struct FoundBytes<'a> {
    bytes: &'a [u8],
    /// Packed.
    lengths: &'a [u8],
    /// Packed.
    numbers: &'a [u8],
    values: usize,
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
                (1..=17, Value::Bytes(column)) => {
                    let number = field as usize;
                    if is_found & 1 << number != 0 {
                        return Err(Malformed::ColumnTwice(field));
                    }
                    is_found |= 1 << number;
                    match number {
                        1 => found.click_ids = column,
                        EVENT_ID..=AD_FORMAT | IMPRESSION_TOKEN => found.bytes[number] = find_bytes(field, column)?,
                        _ => found.packed[number] = column,
                    }
                }
                (1..=17 | CLICKS_FIELD, _) => return Err(Malformed::WireType(field)),
                // A column that came later: as a field of a click that came later.
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
        let fits = |field: usize, values: usize| {
            let error = Malformed::ColumnLength { field: field as u64, values, clicks: self.clicks };
            if values <= 1 || values == self.clicks { Ok(()) } else { Err(error) }
        };
        if !self.click_ids.len().is_multiple_of(size_of::<u64>()) {
            return Err(Malformed::WireType(1));
        }
        fits(1, self.click_ids.len() / size_of::<u64>())?;
        for (field, packed) in self.packed.iter().enumerate() {
            fits(field, varints_in(field, packed)?)?;
        }
        // The one column that counting does not look at: nobody may find later that it cannot be read.
        let mut delays = self.numbers(INGEST_TIME)?;
        (0..self.clicks).try_for_each(|_| delays.next().map(drop))?;
        for (field, column) in self.bytes.iter().enumerate() {
            if column.numbers.is_empty() {
                fits(field, column.values)?;
                continue;
            }
            // With numbers, as many values as there are; and a number for each click, also where there is one click.
            let numbers = varints_in(field, column.numbers)?;
            if numbers != self.clicks {
                return Err(Malformed::ColumnLength { field: field as u64, values: numbers, clicks: self.clicks });
            }
            check_numbers(field, column)?;
        }
        Ok(())
    }

    pub(crate) fn clicks(&self) -> usize {
        self.clicks
    }

    pub(crate) fn click_ids(&self) -> impl Iterator<Item = u64> + 'a {
        let (ids, _) = self.click_ids.as_chunks::<8>();
        let all = if let [id] = ids { Some(*id) } else { None };
        let none = if ids.is_empty() { Some([0; 8]) } else { None };
        let mut ids = ids.iter();
        // Behind the last there is nothing to ask for: as many are asked for as there are clicks.
        std::iter::from_fn(move || all.or(none).or_else(|| ids.next().copied()).map(u64::from_le_bytes))
    }

    pub(crate) fn numbers(&self, field: usize) -> Result<Numbers<'a>, Malformed> {
        Numbers::of(self.packed[field])
    }

    /// The distinct values of a column of bytes, to be looked at once each; one empty value where it has none.
    pub(crate) fn values(&self, field: usize) -> impl Iterator<Item = &'a [u8]> + 'a {
        let FoundBytes { mut bytes, lengths, values, .. } = self.bytes[field];
        let mut lengths = Numbers { packed: lengths, at: 0, constant: None };
        (0..values.max(1)).map(move |_| {
            let length = usize::try_from(lengths.next().unwrap_or(0)).unwrap_or(0);
            let (value, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
            bytes = rest;
            value
        })
    }

    /// For each click the number of its value among [`FoundColumns::values`].
    pub(crate) fn value_numbers(&self, field: usize) -> ValueNumbers<'a> {
        let FoundBytes { numbers, values, .. } = self.bytes[field];
        match (values, numbers) {
            (0 | 1, _) => ValueNumbers::Same,
            (_, []) => ValueNumbers::Each(0),
            _ => ValueNumbers::Named(Numbers { packed: numbers, at: 0, constant: None }),
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
            click.evidence = u32::try_from(evidence.next()?).unwrap_or(u32::MAX);
        }
        let texts: [(usize, TextOf); 9] = [
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
                let text = std::str::from_utf8(value).map_err(|_| Malformed::Text(field as u64))?;
                text_of(click).push_str(text);
            }
        }
        for (click, value) in clicks.iter_mut().zip(self.value_of_each(IMPRESSION_TOKEN)?) {
            click.impression_token.extend_from_slice(value);
        }
        Ok(clicks)
    }

    fn value_of_each(&self, field: usize) -> Result<Vec<&'a [u8]>, Malformed> {
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
        let into = match part {
            1 => &mut found.bytes,
            2 => &mut found.lengths,
            3 => &mut found.numbers,
            _ => return Err(Malformed::WireType(field)),
        };
        if is_found & 1 << part != 0 {
            return Err(Malformed::ColumnTwice(field));
        }
        is_found |= 1 << part;
        *into = value;
    }
    found.values = varints_in(field as usize, found.lengths)?;
    check_values(field, &found)?;
    Ok(found)
}

/// Lengths come to the bytes there are, and texts are UTF-8, each of them.
fn check_values(field: u64, column: &FoundBytes<'_>) -> Result<(), Malformed> {
    let is_text = field as usize != IMPRESSION_TOKEN;
    let is_plain = !is_text || column.bytes.is_ascii();
    let mut lengths = Numbers { packed: column.lengths, at: 0, constant: None };
    let mut left = column.bytes;
    for _ in 0..column.values {
        let length = usize::try_from(lengths.next()?).unwrap_or(usize::MAX);
        let (value, rest) = left.split_at_checked(length).ok_or(Malformed::ColumnValue(field))?;
        if !is_plain && std::str::from_utf8(value).is_err() {
            return Err(Malformed::Text(field));
        }
        left = rest;
    }
    if left.is_empty() { Ok(()) } else { Err(Malformed::ColumnValue(field)) }
}

fn check_numbers(field: usize, column: &FoundBytes<'_>) -> Result<(), Malformed> {
    let beyond = Malformed::ColumnValue(field as u64);
    if column.numbers.iter().all(|byte| *byte < 0x80) {
        // All are one byte long.
        let highest = column.numbers.iter().copied().max().unwrap_or(0);
        return if usize::from(highest) < column.values { Ok(()) } else { Err(beyond) };
    }
    let mut numbers = Numbers { packed: column.numbers, at: 0, constant: None };
    while numbers.at < column.numbers.len() {
        if numbers.next()? >= column.values as u64 {
            return Err(beyond);
        }
    }
    Ok(())
}

/// How many there are: each ends with the one of its bytes that has no high bit.
fn varints_in(field: usize, packed: &[u8]) -> Result<usize, Malformed> {
    if packed.last().is_some_and(|last| *last >= 0x80) {
        return Err(Malformed::ColumnValue(field as u64));
    }
    Ok(packed.iter().filter(|byte| **byte < 0x80).count())
}

pub(crate) fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// A column of whole numbers, click by click.
#[derive(Debug)]
pub(crate) struct Numbers<'a> {
    packed: &'a [u8],
    at: usize,
    /// What every click has: nothing, or the one value there is.
    constant: Option<u64>,
}

impl<'a> Numbers<'a> {
    fn of(packed: &'a [u8]) -> Result<Numbers<'a>, Malformed> {
        let mut numbers = Numbers { packed, at: 0, constant: None };
        match packed.iter().filter(|byte| **byte < 0x80).count() {
            0 => numbers.constant = Some(0),
            1 => numbers.constant = Some(numbers.next()?),
            _ => {}
        }
        Ok(numbers)
    }

    /// A number of more than 64 bits, or none where there should be one, is an error.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<u64, Malformed> {
        match self.constant {
            Some(value) => Ok(value),
            None => varint::read(self.packed, &mut self.at).ok_or(Malformed::Truncated(self.at)),
        }
    }
}

/// Which of a column's values each click has.
#[derive(Debug)]
pub(crate) enum ValueNumbers<'a> {
    Same,
    /// The next one's.
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
            // Checked to be one of them, so it fits.
            ValueNumbers::Named(numbers) => Ok(numbers.next()? as usize),
        }
    }
}
