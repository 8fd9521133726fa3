//! A log as web servers write it, played twice through the program: every row is played or named, and the second play
//! counts nothing.

use std::fmt::Write;
use std::path::Path;

use chrono::DateTime;
use clicktally_chaos_tests::cluster::binary_beside_this_program;
use clicktally_chaos_tests::trial::Trial;
use clicktally_proto::clock::{Clock, SystemClock};
use serde_json::Value;

const ANCHOR_BEHIND_MS: u64 = 200_000;
const GOOD_ROWS: u64 = 400;

/// Four hundred clicks over 100 s, and among them every oddity that once went wrong.
fn access_log(start_ms: u64) -> String {
    let mut text = String::new();
    for row in 0..GOOD_ROWS {
        let at_ms = (start_ms + row * 250).cast_signed();
        let time = DateTime::from_timestamp_millis(at_ms).unwrap().format("%d/%b/%Y:%H:%M:%S +0000");
        let ad = row % 7 + 1;
        let agent = "Mozilla/5.0 (X11; Linux x86_64)";
        let line = format!(r#"203.0.113.9 - - [{time}] "GET /c?ad%5Fid={ad}&campaign_id=3&event_id=row+{row}"#);
        let end = format!(r#" HTTP/1.1" 302 0 "http://shop.example/?q=\"shoes\"" "{agent}""#);
        writeln!(text, "{line}{end}").unwrap();
        match row {
            // Played: a virtual host, a host name instead of the address, a repeated id, a robot behind escaped quotes.
            20 => writeln!(text, "shop.example:443 {}{end}", line.replace("row+", "vhost+")).unwrap(),
            30 => writeln!(text, "{}{end}", line.replace("203.0.113.9", "client.example").replace("row+", "host+"))
                .unwrap(),
            40 => writeln!(text, "{line}{end}").unwrap(),
            50 => writeln!(text, "{}{}", line.replace("row+", "robot+"), end.replace("Mozilla", "ExampleBot")).unwrap(),
            // Left out: no click.
            60 => writeln!(text, "{}{end}", line.replace("GET", "HEAD").replace("row+", "head+")).unwrap(),
            70 => writeln!(text, "{}{}", line.replace("row+", "lost+"), end.replace(" 302 ", " 404 ")).unwrap(),
            80 => writeln!(text, "{}{end}", line.replace("/c?ad%5Fid", "/favicon.ico?x")).unwrap(),
            // Faulty.
            90 => writeln!(text, "{}{end}", line.replace("campaign_id=3", "campaign_id=summer")).unwrap(),
            100 => {
                writeln!(text, "{}{}", line.replace("row+", "long+"), end.replace("Linux", &"x".repeat(2_000))).unwrap()
            }
            110 => writeln!(text, "not a line of an access log").unwrap(),
            _ => {}
        }
    }
    text
}

/// The result as JSON, and whether the exit code was 0.
async fn play(url: &str, file: &Path, anchor_ms: u64, more: &[&str]) -> (Value, bool) {
    let output = tokio::process::Command::new(binary_beside_this_program().unwrap())
        .args(["load", "--quiet", "--output=json", "--format=combined", "--http-batch=50"])
        .arg(format!("--url={url}"))
        .arg(format!("--from={}", file.display()))
        .arg(format!("--anchor-ms={anchor_ms}"))
        .args(more)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (summary, output.status.success())
}

#[tokio::test]
async fn an_access_log_is_played_row_by_row_and_a_rerun_counts_nothing_twice() {
    let trial = Trial::start().await.unwrap();
    let anchor_ms = SystemClock.now_ms() - ANCHOR_BEHIND_MS;
    let file = trial.folder().join("access.log");
    std::fs::write(&file, access_log(1_574_553_612_000)).unwrap();
    let url = trial.cluster.client.urls[0].as_str();

    let (summary, is_success) = play(url, &file, anchor_ms, &[]).await;
    let totals = &summary["playback"];
    assert!(!is_success, "three rows are faulty: {summary}");
    assert_eq!((&totals["rows"], &totals["played"]), (&(GOOD_ROWS + 10).into(), &(GOOD_ROWS + 4).into()), "{summary}");
    assert_eq!((&summary["counted"], &summary["invalid"], &summary["duplicates"]), (&402.into(), &1.into(), &1.into()));
    assert_eq!((&totals["played_without_address"], &totals["refused"].as_array().unwrap().len()), (&1.into(), &0));

    // With the faulty lines taken out nothing is missing: the second play is a success, and repeats the first.
    let whole: Vec<String> = std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    let is_faulty = |line: &String| line.contains("summer") || line.contains("long+") || line.starts_with("not");
    let mended: String = whole.iter().filter(|line| !is_faulty(line)).map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, mended).unwrap();
    let (again, is_success) = play(url, &file, anchor_ms, &[]).await;
    assert!(is_success, "{again}");
    assert_eq!(again["counted"], summary["counted"]);

    // A third time inside of this program, whose tally the checks need.
    let arguments = [
        "load".to_owned(),
        "--quiet".to_owned(),
        format!("--url={url}"),
        format!("--from={}", file.display()),
        "--format=combined".to_owned(),
        format!("--anchor-ms={anchor_ms}"),
    ];
    let third = trial.load_exactly(&arguments).await.unwrap();
    trial.settle_and_check(&third).await.unwrap();
    assert_eq!(trial.database.stream_counts().await.unwrap().values().sum::<u64>(), 402);
}
