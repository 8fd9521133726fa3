//! Whole logs: every row comes back, and a row that was written in a format is read back equal.

use std::fmt::Write;

use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::time_format::{END_MS, FIRST_MS, TimeFormat};

fn rules(format: LogFormat, columns: &[&str], conditions: &[&str]) -> LogRules {
    LogRules {
        format,
        columns: Columns::parse(columns.iter().copied()).unwrap(),
        conditions: Conditions::parse(conditions.iter().copied()).unwrap(),
        clicks: ClickRules::default(),
    }
}

fn try_read(rules: LogRules, bytes: &[u8], piece: usize) -> Result<Vec<LogRow>, LogFault> {
    let mut reader = LogReader::new(rules)?;
    let mut rows = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        while let Some(row) = reader.next_row()? {
            rows.push(row);
        }
    }
    reader.end();
    while let Some(row) = reader.next_row()? {
        rows.push(row);
    }
    Ok(rows)
}

fn read(format: LogFormat, text: &str) -> Vec<LogRow> {
    try_read(rules(format, &[], &[]), text.as_bytes(), 64).unwrap()
}

fn reasons(rows: &[LogRow]) -> Vec<(u64, String)> {
    let reason = |row: &LogRow| match row {
        LogRow::Skipped { line, reason } => Some((*line, reason.group())),
        LogRow::Click(_) => None,
    };
    rows.iter().filter_map(reason).collect()
}

fn clicks(rows: Vec<LogRow>) -> Vec<ClickRow> {
    let click = |row| match row {
        LogRow::Click(click) => click,
        LogRow::Skipped { line, reason } => panic!("line {line}: {reason}"),
    };
    rows.into_iter().map(click).collect()
}

const CSV: LogFormat = LogFormat::Csv(CsvQuotes::Doubled);

#[test]
fn every_row_of_a_file_is_a_click_or_named_with_its_line() {
    let text = "timestamp,ad_id,campaign_id,user_agent\n\
                1574553612,7,3,Mozilla\n\
                \n\
                1574553612,7,summer,Mozilla\n\
                1574553612,7,3,\"Mozilla \\\"x, ExampleBot\\\"\"\n\
                1574553612,7,3\n\
                yesterday,7,3,Mozilla\n\
                1574553612,,3,Mozilla\n\
                1574553612,8,,Mozilla";
    let rows = read(CSV, text);
    assert_eq!(rows.len(), 8);
    let expected = [
        (3, "blank line"),
        (4, "campaign_id unusable"),
        (5, "not valid CSV"),
        (6, "wrong number of fields"),
        (7, "timestamp unusable"),
        (8, "ad_id missing"),
    ];
    assert_eq!(reasons(&rows), expected.map(|(line, group)| (line, group.to_owned())));
    let campaigns: Vec<_> = rows
        .iter()
        .filter_map(|row| if let LogRow::Click(click) = row { Some((click.line, click.campaign_id)) } else { None })
        .collect();
    assert_eq!(campaigns, [(2, Some(3)), (9, None)]);
}

#[test]
fn two_stray_quotes_far_apart_do_not_swallow_the_rows_between() {
    let text = "timestamp,ad_id,user_agent\n1574553612,1,\"x\n1574553612,2,y\n1574553612,3,\"z\"\n1574553612,4,w\n";
    let rows = read(CSV, text);
    let lines: Vec<(u64, bool)> = rows
        .iter()
        .map(|row| match row {
            LogRow::Click(click) => (click.line, true),
            LogRow::Skipped { line, .. } => (*line, false),
        })
        .collect();
    assert_eq!(lines, [(2, false), (3, true), (4, true), (5, true)]);
    let joined = "timestamp,ad_id,user_agent\n1574553612,1,\"x\n1574553612,2,y\n1574553612,3,z\"\n1574553612,4,w\n";
    assert_eq!(read(CSV, joined).len(), 2, "an agent may hold lines");
    let odd = "timestamp,ad_id,user_agent\n1574553612,\"1\n1574553612,2,y\n1574553612\",3\n\"1574553612\",\"4\n\"\n";
    assert_eq!(reasons(&read(CSV, odd)).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4, 5, 6]);
}

#[test]
fn an_access_log_may_hold_requests_that_are_no_clicks() {
    let line = |request: &str, status: u16| {
        format!("1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"{request}\" {status} 0 \"-\" \"x\"\n")
    };
    let text = [
        line("GET /c?ad_id=7 HTTP/1.1", 302),
        line("HEAD /c?ad_id=7 HTTP/1.1", 302),
        line("GET /c?ad_id=7 HTTP/1.1", 404),
        line("GET /favicon.ico HTTP/1.1", 200),
        line("GET /c?ad_id=seven HTTP/1.1", 302),
        "nonsense\n".to_owned(),
    ]
    .concat();
    let rows = read(LogFormat::Combined, &text);
    let expected = [
        (2, "no click by its method"),
        (3, "no click by its status"),
        (4, "request without an ad_id"),
        (5, "ad_id unusable"),
        (6, "not in the Combined format"),
    ];
    assert_eq!(reasons(&rows), expected.map(|(line, group)| (line, group.to_owned())));
    let faults = rows.iter().filter(|row| matches!(row, LogRow::Skipped { reason, .. } if reason.is_fault()));
    assert_eq!(faults.count(), 2, "the other three are left out as a matter of course");
}

#[test]
fn what_does_not_fit_the_header_is_refused_before_any_row() {
    let text = b"time,item_id,ad_id,click\n1574553612,1,2,1\n";
    let refused = |columns: &[&str], conditions: &[&str]| {
        try_read(rules(CSV, columns, conditions), text, 8).unwrap_err().to_string()
    };
    assert!(refused(&["timestamp=when"], &[]).contains("no such column"));
    assert!(refused(&[], &[]).contains("--columns timestamp=THEIRS"));
    assert!(refused(&["timestamp=time", "ad_id=item_id"], &[]).contains("leave it out by =ad_id"));
    assert!(refused(&["timestamp=time"], &["clicks=1"]).contains("no column 'clicks'"));
    let read = try_read(rules(CSV, &["timestamp=time", "ad_id=item_id", "=ad_id"], &["click=1"]), text, 8).unwrap();
    assert_eq!(clicks(read)[0].ad_id, 1);
}

#[test]
fn a_second_reading_gives_the_same_identities_and_equal_rows_have_different_ones() {
    let text = "{\"timestamp\": 1574553612, \"ad_id\": 7}\n".repeat(3);
    let ids = || clicks(read(LogFormat::Jsonl, &text)).into_iter().map(|click| click.event_id).collect::<Vec<_>>();
    let first = ids();
    assert_eq!(first, ids());
    assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
}

/// Any text that a field may hold, with what formats escape.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,20}",
        prop::collection::vec(
            prop::sample::select(vec![
                "\"", "\\", ",", "\n", "\r", "\t", "&", "=", "+", "%", "%41", " ", "-", "é", "漢", "\u{1}", "\\x41",
                "a", "["
            ]),
            0..12
        )
        .prop_map(|parts| parts.concat()),
    ]
}

fn click_rows() -> impl Strategy<Value = ClickRow> {
    let texts = (texts(), texts(), texts(), texts(), texts());
    let ids = (1..=i64::MAX.cast_unsigned(), prop::option::of(1..=i64::MAX.cast_unsigned()));
    (FIRST_MS..END_MS, ids, texts, any::<std::net::IpAddr>()).prop_map(
        |(time_ms, (ad_id, campaign_id), (event_id, user_agent, country, device_type, user_id), address)| ClickRow {
            line: 1,
            time_ms,
            ad_id,
            campaign_id,
            event_id: format!("e{event_id}"),
            user_agent,
            ip_address: address.to_string(),
            is_address_left_out: false,
            country,
            device_type,
            user_id,
        },
    )
}

const NAMES: [&str; 9] =
    ["timestamp", "ad_id", "campaign_id", "event_id", "user_agent", "ip_address", "country", "device_type", "user_id"];

fn values(row: &ClickRow) -> [String; 9] {
    [
        row.time_ms.to_string(),
        row.ad_id.to_string(),
        row.campaign_id.map(|id| id.to_string()).unwrap_or_default(),
        row.event_id.clone(),
        row.user_agent.clone(),
        row.ip_address.clone(),
        row.country.clone(),
        row.device_type.clone(),
        row.user_id.clone(),
    ]
}

fn as_csv(rows: &[ClickRow]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(NAMES).unwrap();
    for row in rows {
        writer.write_record(values(row)).unwrap();
    }
    writer.into_inner().unwrap()
}

/// By hand: the writer of `csv` escapes quotes by a backslash, but no backslash by another.
fn as_csv_with_backslashes(rows: &[ClickRow]) -> Vec<u8> {
    let mut text = NAMES.join(",");
    for row in rows {
        let quoted = values(row).map(|value| format!("\"{}\"", value.replace('\\', r"\\").replace('"', r#"\""#)));
        write!(text, "\r\n{}", quoted.join(",")).unwrap();
    }
    text.into_bytes()
}

fn as_jsonl(rows: &[ClickRow]) -> Vec<u8> {
    let mut text = String::new();
    for row in rows {
        let fields = NAMES.into_iter().zip(values(row)).map(|(name, value)| (name.to_owned(), value.into()));
        let object: serde_json::Map<String, serde_json::Value> = fields.collect();
        writeln!(text, "{}", serde_json::Value::Object(object)).unwrap();
    }
    text.into_bytes()
}

/// As Apache writes it, or as nginx does.
fn as_combined(rows: &[ClickRow], is_nginx: bool) -> Vec<u8> {
    let percent =
        |value: &str| percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string();
    let escaped = |value: &str| {
        let mut text = String::new();
        for byte in value.bytes() {
            match byte {
                b'"' | b'\\' if !is_nginx => write!(text, "\\{}", char::from(byte)).unwrap(),
                b'\n' if !is_nginx => text.push_str("\\n"),
                b' '..=b'~' if !matches!(byte, b'"' | b'\\') => text.push(char::from(byte)),
                other => write!(text, "\\x{other:02X}").unwrap(),
            }
        }
        text
    };
    let mut text = String::new();
    for row in rows {
        let time =
            DateTime::from_timestamp_millis(row.time_ms.cast_signed()).unwrap().format("%d/%b/%Y:%H:%M:%S +0000");
        let query: Vec<String> =
            NAMES.into_iter().zip(values(row)).map(|(name, value)| format!("{name}={}", percent(&value))).collect();
        let (address, query, agent) = (&row.ip_address, query.join("&"), escaped(&row.user_agent));
        let referrer = escaped("http://a/?q=\"x\" \\");
        writeln!(text, "{address} - - [{time}] \"GET /c?{query} HTTP/1.1\" 302 0 \"{referrer}\" \"{agent}\"").unwrap();
    }
    text.into_bytes()
}

/// What reading gives: the line is known by then, and a single `-` of an access log is absence.
fn expected(rows: &[ClickRow], read: &[ClickRow], is_access_log: bool) -> Vec<ClickRow> {
    let one = |(row, read): (&ClickRow, &ClickRow)| ClickRow {
        line: read.line,
        time_ms: if is_access_log { row.time_ms / 1_000 * 1_000 } else { row.time_ms },
        user_agent: if is_access_log && row.user_agent == "-" { String::new() } else { row.user_agent.clone() },
        ..row.clone()
    };
    assert_eq!(rows.len(), read.len());
    rows.iter().zip(read).map(one).collect()
}

proptest! {
    #[test]
    fn rows_written_in_a_format_are_read_back_equal(rows in prop::collection::vec(click_rows(), 1..5), piece in 1_usize..300) {
        let logs = [
            (CSV, as_csv(&rows)),
            (LogFormat::Csv(CsvQuotes::Backslash), as_csv_with_backslashes(&rows)),
            (LogFormat::Jsonl, as_jsonl(&rows)),
            (LogFormat::Combined, as_combined(&rows, false)),
            (LogFormat::Combined, as_combined(&rows, true)),
        ];
        for (format, log) in logs {
            let read = clicks(try_read(rules(format, &[], &[]), &log, piece).unwrap());
            prop_assert_eq!(&read, &expected(&rows, &read, format == LogFormat::Combined), "{:?}: {}", format, String::from_utf8_lossy(&log));
        }
    }

    /// Also damaged logs: each line belongs to one row, and pieces change nothing.
    #[test]
    fn no_bytes_panic_and_pieces_change_nothing(
        rows in prop::collection::vec(click_rows(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        piece in 1_usize..50,
    ) {
        for (format, mut log) in [
            (CSV, as_csv(&rows)),
            (LogFormat::Csv(CsvQuotes::Backslash), as_csv_with_backslashes(&rows)),
            (LogFormat::Jsonl, as_jsonl(&rows)),
            (LogFormat::Combined, as_combined(&rows, false)),
        ] {
            for (at, byte) in &damage {
                let at = at.index(log.len());
                log[at] = *byte;
            }
            let read = try_read(rules(format, &[], &[]), &log, piece);
            prop_assert_eq!(&read, &try_read(rules(format, &[], &[]), &log, usize::MAX));
            for row in read.into_iter().flatten() {
                if let LogRow::Skipped { reason, .. } = row {
                    prop_assert!(!reason.to_string().contains('\n') && reason.to_string().len() < 1_000);
                }
            }
        }
    }

    #[test]
    fn any_bytes_at_all_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for format in [CSV, LogFormat::Jsonl, LogFormat::Combined] {
            let mut rules = rules(format, &[], &[]);
            rules.clicks.time_format = TimeFormat::EpochNanos;
            let _ = try_read(rules, &bytes, 7);
        }
    }
}
