//! The Combined log of Apache and nginx: `address ident user [time] "request" status bytes "referrer" "agent"`.
//!
//! Also read are the Common log, which ends after the bytes, and both with the virtual host in front. Whatever follows
//! the agent is ignored. Source: <https://httpd.apache.org/docs/2.4/logs.html>, and nginx's `log_format combined`.

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::percent_decode;

use crate::fields::{FieldValue, Fields};
use crate::skip::SkipReason;

/// The fields of the line itself. A parameter of the query cannot take their names: the client chooses those.
pub const OWN_FIELDS: [&str; 8] =
    ["host", "ip_address", "timestamp", "method", "path", "status", "referrer", "user_agent"];

/// Parameters of one query that are looked at; the rest is ignored.
const PARAMETERS_MAX: usize = 256;

/// Parses one line without its end.
pub fn parse(line: &[u8]) -> Result<Fields<'_>, SkipReason> {
    let no = SkipReason::NotCombined;
    let (front, rest) = split_at(line, b" [").ok_or(no("it has no time in brackets"))?;
    let (time, rest) = split_at(rest, b"]").ok_or(no("the bracket of the time is not closed"))?;
    let rest = rest.strip_prefix(b" \"").ok_or(no("no quoted request follows the time"))?;
    let (request, rest) = quoted(rest).ok_or(no("the quotes of the request are not closed"))?;
    let rest = rest.strip_prefix(b" ").ok_or(no("text follows the closing quote of the request"))?;
    let (status, rest) = split_at(rest, b" ").ok_or(no("no size follows the status"))?;
    if status != b"-" && !(status.len() == 3 && status.iter().all(u8::is_ascii_digit)) {
        return Err(no("the status has not three digits"));
    }
    let [referrer, agent] = match split_at(rest, b" ") {
        None => Default::default(),
        Some((_, rest)) => referrer_and_agent(rest)?,
    };

    let (host, address) = host_and_address(front)?;
    let Request { method, path, query } = Request::of(&request);
    let values: [&[u8]; 8] = [host, address, time, method, path, status, &referrer, &agent];
    let mut fields = Fields::default();
    for (name, value) in OWN_FIELDS.into_iter().zip(values) {
        let value = if value == b"-" { &[] } else { value };
        fields.push(Cow::Borrowed(name), FieldValue::of(Cow::Owned(value.to_vec())));
    }
    for (name, value) in parameters(query) {
        if !OWN_FIELDS.contains(&name.as_str()) {
            fields.push_once(Cow::Owned(name), FieldValue::of(Cow::Owned(value)));
        }
    }
    Ok(fields)
}

fn split_at<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(separator.len()).position(|window| window == separator)?;
    Some((&text[..at], &text[at + separator.len()..]))
}

fn referrer_and_agent(rest: &[u8]) -> Result<[Cow<'_, [u8]>; 2], SkipReason> {
    let no = SkipReason::NotCombined;
    let rest = rest.strip_prefix(b"\"").ok_or(no("the referrer is not in quotes"))?;
    let (referrer, rest) = quoted(rest).ok_or(no("the quotes of the referrer are not closed"))?;
    let rest = rest.strip_prefix(b" \"").ok_or(no("no quoted agent follows the referrer"))?;
    let (agent, rest) = quoted(rest).ok_or(no("the quotes of the agent are not closed"))?;
    if !rest.is_empty() && !rest.starts_with(b" ") {
        return Err(no("text follows the closing quote of the agent"));
    }
    Ok([referrer, agent])
}

/// The text up to an unescaped quote, and what follows the quote. Apache escapes by `\"`, `\\` and `\xHH`, nginx by
/// `\xHH`; both write some control characters as `\n`.
fn quoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    if text[end] == b'"' {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut plain = text[..end].to_vec();
    let mut rest = &text[end..];
    loop {
        match rest {
            [b'"', after @ ..] => return Some((Cow::Owned(plain), after)),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                plain.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                match escaped {
                    b'"' | b'\\' => plain.push(*escaped),
                    b'n' => plain.push(b'\n'),
                    b'r' => plain.push(b'\r'),
                    b't' => plain.push(b'\t'),
                    b'v' => plain.push(0x0b),
                    b'f' => plain.push(0x0c),
                    b'b' => plain.push(0x08),
                    _ => plain.extend([b'\\', *escaped]),
                }
                rest = after;
            }
            [byte, after @ ..] => {
                plain.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

/// Tells the virtual host in front from the client. The client is an address; if the second word is one, the first is
/// the virtual host. Without any address the client is a host name, and stands first.
fn host_and_address(front: &[u8]) -> Result<(&[u8], &[u8]), SkipReason> {
    let mut words = front.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let is_address = |word: &[u8]| str::from_utf8(word).is_ok_and(|text| text.parse::<IpAddr>().is_ok());
    match (words.next(), words.next(), words.next()) {
        (Some(host), Some(address), Some(_)) if is_address(address) => Ok((host, address)),
        (Some(address), Some(_), _) => Ok((&[], address)),
        _ => Err(SkipReason::NotCombined("the address, ident and user in front of the time are missing")),
    }
}

/// A request line; empty parts if it is none, as after a broken TLS handshake.
#[derive(Default)]
struct Request<'a> {
    method: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
}

impl Request<'_> {
    fn of(line: &[u8]) -> Request<'_> {
        let Some((method, rest)) = split_at(line, b" ") else { return Request::default() };
        // A careless client sends blanks in its target, so the protocol is the last word.
        let target = match rest.iter().rposition(|byte| *byte == b' ') {
            Some(at) if rest[at + 1..].starts_with(b"HTTP/") => &rest[..at],
            _ => rest,
        };
        let (path, query) = split_at(target, b"?").unwrap_or((target, &[]));
        Request { method, path, query }
    }
}

/// The decoded parameters of a query. Bytes stay as they are, so that two names or ids never become one by replacement
/// of what is not UTF-8. A parameter whose name is not UTF-8 is none that can be asked for.
fn parameters(query: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let pairs = query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).take(PARAMETERS_MAX);
    pairs.filter_map(|pair| {
        let (name, value) = split_at(pair, b"=").unwrap_or((pair, &[]));
        Some((String::from_utf8(decoded(name)).ok()?, decoded(value)))
    })
}

/// As of `application/x-www-form-urlencoded`: `+` is a blank, `%HH` a byte.
fn decoded(text: &[u8]) -> Vec<u8> {
    let with_blanks: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&with_blanks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::FieldFault;

    fn value(line: &str, name: &str) -> String {
        match parse(line.as_bytes()).unwrap().get(name) {
            FieldValue::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            FieldValue::Absent => "absent".to_owned(),
            other => format!("{other:?}"),
        }
    }

    const LINE: &str = r#"203.0.113.9 - - [10/Oct/2000:13:55:36 -0700] "GET /c?ad_id=7&campaign_id=3 HTTP/1.1" 302 0 "http://a/" "Mozilla/5.0 (X11)""#;

    #[test]
    fn a_combined_line_gives_its_fields() {
        let expected = [
            ("host", "absent"),
            ("ip_address", "203.0.113.9"),
            ("timestamp", "10/Oct/2000:13:55:36 -0700"),
            ("method", "GET"),
            ("path", "/c"),
            ("status", "302"),
            ("referrer", "http://a/"),
            ("user_agent", "Mozilla/5.0 (X11)"),
            ("ad_id", "7"),
            ("campaign_id", "3"),
        ];
        for (name, text) in expected {
            assert_eq!(value(LINE, name), text, "{name}");
        }
    }

    #[test]
    fn an_escaped_quote_in_the_referrer_shifts_no_field() {
        for quote in [r#"\""#, r"\x22"] {
            let line =
                LINE.replace("http://a/", &format!("http://a/?q={quote}x{quote}")).replace("Mozilla", "ExampleBot");
            assert_eq!(value(&line, "user_agent"), "ExampleBot/5.0 (X11)");
            assert_eq!(value(&line, "referrer"), "http://a/?q=\"x\"");
        }
        // A backslash at the end of the agent is escaped, too.
        assert_eq!(value(&LINE.replace("(X11)", r"(\\)\\"), "user_agent"), r"Mozilla/5.0 (\)\");
    }

    #[test]
    fn a_virtual_host_a_host_name_and_a_user_with_blanks_are_told_apart() {
        let with_host = format!("shop.example:443 {LINE}");
        assert_eq!(
            (value(&with_host, "host"), value(&with_host, "ip_address")),
            ("shop.example:443".into(), "203.0.113.9".into())
        );
        let named = LINE.replace("203.0.113.9", "client.example.org");
        assert_eq!(
            (value(&named, "host"), value(&named, "ip_address")),
            ("absent".into(), "client.example.org".into())
        );
        let user = LINE.replace("- - [", "- Anna Maria [");
        assert_eq!(value(&user, "ip_address"), "203.0.113.9");
        let numeric = format!("198.51.100.1 {LINE}");
        assert_eq!(value(&numeric, "ip_address"), "203.0.113.9");
    }

    #[test]
    fn a_query_is_decoded_and_cannot_forge_what_the_server_knows() {
        let line =
            LINE.replace("ad_id=7", "ad%5fid=%37&user_id=J%C3%BCrgen+K%2B&ip_address=198.51.100.7&timestamp=1&e=");
        assert_eq!((value(&line, "ad_id"), value(&line, "user_id")), ("7".into(), "Jürgen K+".into()));
        assert_eq!((value(&line, "ip_address"), value(&line, "e")), ("203.0.113.9".into(), "absent".into()));
        assert!(value(&line, "timestamp").contains("2000"));
        let twice = LINE.replace("ad_id=7", "ad_id=7&ad_id=8");
        assert_eq!(parse(twice.as_bytes()).unwrap().get("ad_id"), &FieldValue::Fault(FieldFault::Repeated));
    }

    #[test]
    fn a_common_line_and_a_longer_one_are_read_and_no_line_is_named() {
        let (common, _) = LINE.split_once(r#" "http"#).unwrap();
        assert_eq!((value(common, "ad_id"), value(common, "user_agent")), ("7".into(), "absent".into()));
        assert_eq!(value(&format!("{LINE} \"203.0.113.77\" 0.003"), "user_agent"), "Mozilla/5.0 (X11)");
        for wrong in
            ["nonsense", "", "a - - [x", &LINE.replace("302", "30x"), &LINE[..LINE.len() - 1], &format!("{LINE}x")]
        {
            assert!(matches!(parse(wrong.as_bytes()), Err(SkipReason::NotCombined(_))), "{wrong}");
        }
        let handshake = LINE.replace("GET /c?ad_id=7&campaign_id=3 HTTP/1.1", r"\x16\x03\x01");
        assert_eq!((value(&handshake, "method"), value(&handshake, "ad_id")), ("absent".into(), "absent".into()));
        assert_eq!(value(&LINE.replace("id=3 HTTP/1.1", "id=3&user_id=a b HTTP/1.1"), "user_id"), "a b");
    }
}
