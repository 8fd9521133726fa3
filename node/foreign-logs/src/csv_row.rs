//! CSV after RFC 4180: a header, then rows with as many fields.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use thiserror::Error;

use crate::fields::{FieldValue, Fields};
use crate::rows::CsvQuotes;
use crate::skip::SkipReason;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderFault {
    #[error("the CSV file has no header: {0}")]
    Unreadable(SkipReason),
    #[error("the header of the CSV file is not UTF-8 text")]
    NotUtf8,
}

/// Takes rows apart that `rows` has cut out, so their quotes are right.
#[derive(Debug)]
pub struct CsvRows {
    reader: Reader,
    header: Vec<String>,
    /// The current row: its fields without quotes, and where each ends.
    plain: Vec<u8>,
    ends: Vec<usize>,
}

impl CsvRows {
    pub fn new(header: &[u8], quotes: CsvQuotes) -> Result<CsvRows, HeaderFault> {
        let escape = (quotes == CsvQuotes::Backslash).then_some(b'\\');
        let reader = ReaderBuilder::new()
            .terminator(Terminator::Any(b'\n'))
            .escape(escape)
            .double_quote(quotes == CsvQuotes::Doubled)
            .build();
        let mut rows = CsvRows { reader, header: Vec::new(), plain: Vec::new(), ends: Vec::new() };
        let fields = rows.take_apart(header);
        let names = (0..fields).map(|field| String::from_utf8(rows.field(field).to_vec()));
        rows.header = names.collect::<Result<_, _>>().map_err(|_| HeaderFault::NotUtf8)?;
        Ok(rows)
    }

    pub fn header(&self) -> &[String] {
        &self.header
    }

    pub fn parse(&mut self, row: &[u8]) -> Result<Fields<'_>, SkipReason> {
        let found = self.take_apart(row);
        if found != self.header.len() {
            return Err(SkipReason::FieldCount { found, expected: self.header.len() });
        }
        let mut fields = Fields::default();
        for (place, name) in self.header.iter().enumerate() {
            fields.push(Cow::Borrowed(name), FieldValue::of(Cow::Borrowed(self.field(place))));
        }
        Ok(fields)
    }

    /// Returns the number of fields.
    fn take_apart(&mut self, row: &[u8]) -> usize {
        self.reader.reset();
        // A row with its end holds at most one field more than it has bytes.
        let with_end = [row, b"\n"].concat();
        self.plain.resize(with_end.len(), 0);
        self.ends.resize(with_end.len() + 1, 0);
        let (result, _, _, fields) = self.reader.read_record(&with_end, &mut self.plain, &mut self.ends);
        debug_assert!(matches!(result, ReadRecordResult::Record | ReadRecordResult::InputEmpty), "the room suffices");
        fields
    }

    fn field(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.plain[start..self.ends[place]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::SkipReason;

    fn texts(fields: &Fields<'_>, names: &[&str]) -> Vec<String> {
        let text = |name: &&str| match fields.get(name) {
            FieldValue::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        };
        names.iter().map(text).collect()
    }

    #[test]
    fn quotes_are_taken_off_and_an_empty_field_is_absent() {
        let mut rows = CsvRows::new(b"a,\"b\",c", CsvQuotes::Doubled).unwrap();
        let fields = rows.parse(b"\"x \"\"y\"\", z\",,\"\"").unwrap();
        assert_eq!(texts(&fields, &["a", "b", "c"]), ["x \"y\", z", "Absent", "Absent"]);
        let mut rows = CsvRows::new(b"a,b", CsvQuotes::Backslash).unwrap();
        assert_eq!(texts(&rows.parse(br#""x \"y\", z\\",1"#).unwrap(), &["a", "b"]), [r#"x "y", z\"#, "1"]);
    }

    #[test]
    fn a_row_of_another_length_is_refused_not_shifted() {
        let mut rows = CsvRows::new(b"a,b,c", CsvQuotes::Doubled).unwrap();
        for (row, found) in [(&b"1,2"[..], 2), (b"1,2,3,4", 4), (b"1", 1)] {
            assert_eq!(rows.parse(row), Err(SkipReason::FieldCount { found, expected: 3 }));
        }
    }
}
