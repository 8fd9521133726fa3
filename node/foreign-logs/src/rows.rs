//! Cuts bytes into rows with their line numbers.
//!
//! A row of JSON lines or of an access log is one line. A row of CSV may span lines inside quotes. A row whose quotes
//! are wrong, or that is too long, ends with its first line: a stray quote costs one line, not the rest of the file.

use crate::skip::{CsvFault, SkipReason};

/// The longest row. Servers limit a request line to some kilobytes, and a click to less.
pub const ROW_BYTES_MAX: usize = 256 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a quoted field of CSV writes a quote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CsvQuotes {
    /// As two quotes (RFC 4180).
    #[default]
    Doubled,
    /// As a backslash and a quote; two backslashes are one.
    Backslash,
}

/// Where a row ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowEnd {
    Line,
    Csv(CsvQuotes),
}

/// One row without its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRow {
    /// The number of its first line, from 1.
    pub line: u64,
    pub bytes: Result<Vec<u8>, SkipReason>,
}

#[derive(Debug)]
pub struct RowCutter {
    row_end: RowEnd,
    waiting: Vec<u8>,
    /// Bytes of `waiting` that belong to rows already cut.
    taken: usize,
    /// The line at `taken`, from 1.
    line: u64,
    /// `taken` and `line` before the newest row.
    newest: (usize, u64),
    is_at_start: bool,
    has_ended: bool,
    /// The rest of a line that is too long is still to come.
    is_skipping: bool,
}

/// What the waiting bytes begin with.
enum Found {
    /// A row of this many bytes, its line end included.
    Row(usize),
    /// A row to refuse. It ends with its first line.
    Refused(SkipReason),
    NotYet,
}

impl RowCutter {
    pub fn new(row_end: RowEnd) -> RowCutter {
        RowCutter {
            row_end,
            waiting: Vec::new(),
            taken: 0,
            line: 1,
            newest: (0, 1),
            is_at_start: true,
            has_ended: false,
            is_skipping: false,
        }
    }

    /// Takes the next bytes. Take the rows out before the next call, or the bytes pile up.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.drain(..self.taken);
        self.taken = 0;
        self.newest = (0, self.line);
        self.waiting.extend_from_slice(bytes);
    }

    /// No more bytes follow: a last row needs no line end.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// `None` if the next row is not complete, or after the last one.
    pub fn next_row(&mut self) -> Option<RawRow> {
        self.skip_mark()?;
        self.skip_rest_of_line()?;
        let rest = &self.waiting[self.taken..];
        if rest.is_empty() {
            return None;
        }
        let (length, bytes) = match self.find(rest) {
            Found::NotYet => return None,
            Found::Row(length) => (length, Ok(without_line_end(&rest[..length]).to_vec())),
            Found::Refused(reason) => match line_end(rest) {
                Some(end) => (end, Err(reason)),
                None => {
                    self.is_skipping = !self.has_ended;
                    (rest.len(), Err(reason))
                }
            },
        };
        self.newest = (self.taken, self.line);
        let row = RawRow { line: self.line, bytes };
        self.line += lines_in(&rest[..length]);
        self.taken += length;
        Some(row)
    }

    /// Gives back all lines of the newest row but its first: the row made no sense, so perhaps two stray quotes have
    /// joined rows that do. Call it before the next bytes are pushed.
    pub fn give_back_lines(&mut self) {
        let (start, line) = self.newest;
        if let Some(first) = line_end(&self.waiting[start..self.taken]) {
            self.taken = start + first;
            self.line = line + 1;
        }
    }

    /// Passes a mark that some programs put in front of UTF-8. `None` until enough bytes are there to know.
    fn skip_mark(&mut self) -> Option<()> {
        if self.is_at_start {
            if self.waiting.len() < BYTE_ORDER_MARK.len() && !self.has_ended {
                return None;
            }
            self.is_at_start = false;
            if self.waiting.starts_with(BYTE_ORDER_MARK) {
                self.taken = BYTE_ORDER_MARK.len();
            }
        }
        Some(())
    }

    fn skip_rest_of_line(&mut self) -> Option<()> {
        if self.is_skipping {
            let rest = &self.waiting[self.taken..];
            let Some(end) = line_end(rest) else {
                self.taken = self.waiting.len();
                return None;
            };
            self.taken += end;
            self.line += 1;
            self.is_skipping = false;
        }
        Some(())
    }

    fn find(&self, rest: &[u8]) -> Found {
        let looked_at = &rest[..rest.len().min(ROW_BYTES_MAX)];
        let found = match self.row_end {
            RowEnd::Line => line_end(looked_at).map_or(Found::NotYet, Found::Row),
            RowEnd::Csv(quotes) => csv_row_end(looked_at, quotes, self.has_ended && looked_at.len() == rest.len()),
        };
        match found {
            Found::NotYet if rest.len() > ROW_BYTES_MAX => Found::Refused(SkipReason::TooLong(ROW_BYTES_MAX)),
            Found::NotYet if self.has_ended => Found::Row(rest.len()),
            found => found,
        }
    }
}

/// The length of the first line with its end.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

fn without_line_end(row: &[u8]) -> &[u8] {
    let row = row.strip_suffix(b"\n").unwrap_or(row);
    row.strip_suffix(b"\r").unwrap_or(row)
}

/// Finds the end of a CSV row, more strictly than RFC 4180's readers: where quotes are wrong, fields would shift.
fn csv_row_end(bytes: &[u8], quotes: CsvQuotes, is_all: bool) -> Found {
    enum At {
        FieldStart,
        Unquoted,
        Quoted,
        Escaped,
        /// After a quote inside quotes, which closes the field, or is the first of a doubled one.
        QuoteSeen,
        /// After `\r` behind a closing quote.
        Return,
    }
    let refuse = |fault| Found::Refused(SkipReason::NotCsv(fault));
    let mut at = At::FieldStart;
    for (index, byte) in bytes.iter().enumerate() {
        at = match (at, *byte) {
            (At::FieldStart | At::Unquoted | At::QuoteSeen | At::Return, b'\n') => return Found::Row(index + 1),
            (At::FieldStart | At::Unquoted | At::QuoteSeen, b',') => At::FieldStart,
            (At::FieldStart, b'"') => At::Quoted,
            (At::Unquoted, b'"') => return refuse(CsvFault::QuoteInside),
            (At::FieldStart | At::Unquoted, _) => At::Unquoted,
            (At::Quoted, b'"') => At::QuoteSeen,
            (At::Quoted, b'\\') if quotes == CsvQuotes::Backslash => At::Escaped,
            (At::Quoted | At::Escaped, _) => At::Quoted,
            (At::QuoteSeen, b'"') if quotes == CsvQuotes::Doubled => At::Quoted,
            (At::QuoteSeen, b'\r') => At::Return,
            (At::QuoteSeen | At::Return, _) => return refuse(CsvFault::AfterQuote),
        };
    }
    match at {
        At::Quoted | At::Escaped if is_all => refuse(CsvFault::Unclosed),
        _ => Found::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds the bytes in pieces, and returns every row with its line.
    fn cut(bytes: &[u8], row_end: RowEnd, piece: usize) -> Vec<RawRow> {
        let mut cutter = RowCutter::new(row_end);
        let mut rows = Vec::new();
        for piece in bytes.chunks(piece) {
            cutter.push(piece);
            rows.extend(std::iter::from_fn(|| cutter.next_row()));
        }
        cutter.end();
        rows.extend(std::iter::from_fn(|| cutter.next_row()));
        rows
    }

    fn shown(rows: &[RawRow]) -> Vec<(u64, Result<&str, &SkipReason>)> {
        rows.iter().map(|row| (row.line, row.bytes.as_ref().map(|bytes| str::from_utf8(bytes).unwrap()))).collect()
    }

    const CSV: RowEnd = RowEnd::Csv(CsvQuotes::Doubled);

    #[test]
    fn lines_have_numbers_and_lose_their_ends_and_a_byte_order_mark() {
        let rows = cut(b"\xef\xbb\xbfone\r\n\ntwo", RowEnd::Line, 2);
        assert_eq!(shown(&rows), [(1, Ok("one")), (2, Ok("")), (3, Ok("two"))]);
        assert_eq!(cut(b"", RowEnd::Line, 1), []);
    }

    #[test]
    fn a_csv_row_may_span_lines_inside_quotes() {
        let rows = cut(b"a,\"x\ny \"\"z\"\"\"\r\nb,c\n", CSV, 3);
        assert_eq!(shown(&rows), [(1, Ok("a,\"x\ny \"\"z\"\"\"")), (3, Ok("b,c"))]);
    }

    #[test]
    fn a_wrong_quote_costs_its_own_line_only() {
        let fault = |fault| SkipReason::NotCsv(fault);
        let rows = cut(b"a,\"x\\\"y, bot\\\"\",b\na,5\" screen\nc,d\ne,\"open\nf,g\n", CSV, 1_000);
        assert_eq!(
            shown(&rows),
            [
                (1, Err(&fault(CsvFault::AfterQuote))),
                (2, Err(&fault(CsvFault::QuoteInside))),
                (3, Ok("c,d")),
                (4, Err(&fault(CsvFault::Unclosed))),
                (5, Ok("f,g")),
            ]
        );
        let rows = cut(b"a,\"x\\\"y, bot\\\"\",b\n", RowEnd::Csv(CsvQuotes::Backslash), 4);
        assert_eq!(shown(&rows), [(1, Ok("a,\"x\\\"y, bot\\\"\",b"))]);
    }

    #[test]
    fn a_row_that_is_too_long_is_refused_and_the_next_one_is_read() {
        for row_end in [RowEnd::Line, CSV] {
            let bytes = [&b"x".repeat(3 * ROW_BYTES_MAX)[..], b"\nnext\n"].concat();
            let too_long = SkipReason::TooLong(ROW_BYTES_MAX);
            assert_eq!(shown(&cut(&bytes, row_end, 1 << 16)), [(1, Err(&too_long)), (2, Ok("next"))]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_the_same_in_any_pieces(
            bytes in prop::collection::vec(prop::sample::select(b"\"\\,\r\na".to_vec()), 0..200), piece in 1_usize..20,
        ) {
            for row_end in [RowEnd::Line, CSV, RowEnd::Csv(CsvQuotes::Backslash)] {
                let rows = cut(&bytes, row_end, piece);
                prop_assert_eq!(&rows, &cut(&bytes, row_end, 1_000));
                let lines: Vec<u64> = rows.iter().map(|row| row.line).collect();
                prop_assert!(lines.is_sorted_by(|a, b| a < b), "each row starts a line: {:?}", lines);
            }
        }
    }
}
