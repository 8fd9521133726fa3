//! Whole plays against a door that answers as capture does.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use clap::Parser;
use serde_json::{Value, json};

use crate::tools::load::{LoadOptions, LoadSummary, run};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: LoadOptions,
}

/// Takes every click but those of ad 13, and asks for a token.
#[derive(Clone, Default)]
struct FakeCapture {
    taken: Arc<Mutex<Vec<Value>>>,
}

const TOKEN: &str = "a-token-of-this-test";

impl FakeCapture {
    fn answer(&self, headers: &HeaderMap, body: &str) -> (StatusCode, String) {
        if headers.get("authorization").is_none_or(|value| value != &format!("Bearer {TOKEN}")) {
            return (StatusCode::UNAUTHORIZED, "{}".to_owned());
        }
        let (mut accepted, mut errors) = (0, Vec::new());
        for (index, line) in body.lines().enumerate() {
            let click: Value = serde_json::from_str(line).unwrap();
            if click["ad_id"] == 13 {
                errors.push(json!({"index": index, "type": "/problems/click-field-invalid", "detail": "ad 13"}));
            } else {
                accepted += 1;
                self.taken.lock().unwrap().push(click);
            }
        }
        let status = if accepted == 0 { StatusCode::BAD_REQUEST } else { StatusCode::ACCEPTED };
        (status, json!({"accepted": accepted, "errors": errors}).to_string())
    }

    /// Returns the base URL.
    async fn start(&self) -> String {
        let capture = self.clone();
        let route = post(move |headers: HeaderMap, body: String| async move { capture.answer(&headers, &body) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/clicks", route)).await });
        url
    }
}

async fn try_play(url: &str, file: &Path, more: &[&str]) -> anyhow::Result<LoadSummary> {
    let (url, from) = (format!("--url={url}"), format!("--from={}", file.display()));
    let token = format!("--token={TOKEN}");
    let base = ["load", "--quiet", &url, &from, &token];
    run(Cli::try_parse_from(base.iter().chain(more))?.options).await
}

const TIME: u64 = 1_574_553_612;

#[tokio::test]
async fn every_row_is_played_or_named_and_a_rerun_sends_the_same_identities() {
    let capture = FakeCapture::default();
    let url = capture.start().await;
    let dir = tempfile::tempdir().unwrap();
    let (file, skipped) = (dir.path().join("log.jsonl"), dir.path().join("skipped.jsonl"));
    let long = "x".repeat(2_000);
    let rows = [
        json!({"timestamp": TIME, "ad_id": 1, "event_id": null, "user_id": null}),
        json!({"timestamp": TIME, "ad_id": 1, "event_id": null, "user_id": null}),
        json!({"timestamp": TIME + 1, "ad_id": 1, "event_id": "a", "user_agent": "ExampleBot"}),
        json!({"timestamp": TIME + 1, "ad_id": 1, "event_id": "b", "campaign_id": 3}),
        json!({"timestamp": TIME + 1, "ad_id": 2, "event_id": "b", "campaign_id": 3}),
        json!({"timestamp": TIME + 1, "ad_id": 13, "event_id": "c"}),
        json!({"timestamp": TIME + 1, "ad_id": 1, "event_id": "d", "ip_address": "client.example.org"}),
        json!({"timestamp": TIME + 1, "ad_id": 1, "user_agent": long}),
        json!({"timestamp": TIME + 1, "ad_id": 1, "campaign_id": "summer"}),
        json!({"timestamp": 2 * TIME, "ad_id": 1, "event_id": "in 2069"}),
        json!({"timestamp": "20261128140025000", "ad_id": 1}),
    ];
    std::fs::write(&file, rows.map(|row| format!("{row}\n")).concat()).unwrap();
    let list = format!("--skipped={}", skipped.display());
    let more = ["--format=jsonl", &list, "--http-batch=2", "--speed=1000"];
    let play = async || try_play(&url, &file, &more).await.unwrap();
    let summary = play().await;
    let totals = summary.playback.clone().unwrap();
    assert_eq!((totals.rows, totals.played, totals.unacknowledged), (11, 6, 0));
    let named: Vec<_> = totals.skipped.iter().map(|group| (group.reason.as_str(), group.first_line)).collect();
    let expected = [
        ("campaign_id unusable", 9),
        ("time too far ahead", 10),
        ("timestamp unusable", 11),
        ("user_agent unusable", 8),
    ];
    assert_eq!(named, expected);
    assert_eq!((totals.refused[0].first_line, totals.refused[0].reason.as_str()), (6, "click-field-invalid"));
    assert_eq!((totals.played_without_campaign, totals.played_without_address), (4, 1));
    assert!(totals.shortfall().is_some());
    assert_eq!(std::fs::read_to_string(&skipped).unwrap().lines().count(), 5);
    // Two rows without an id are two clicks; a repeated id is one.
    assert_eq!((summary.counted, summary.duplicates, summary.invalid), (4, 1, 1));

    let ids = |clicks: &[Value]| clicks.iter().map(|click| click["event_id"].clone()).collect::<Vec<_>>();
    let first = ids(&std::mem::take(&mut *capture.taken.lock().unwrap()));
    assert_eq!(first.len(), 6);
    play().await;
    assert_eq!(first, ids(&capture.taken.lock().unwrap()), "the product sees each click again under its identity");
}

#[tokio::test]
async fn options_that_do_not_fit_are_refused_before_anything_is_sent() {
    let capture = FakeCapture::default();
    let url = capture.start().await;
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("log.csv");
    std::fs::write(&csv, format!("timestamp,ad_id,item_id\n{TIME},1,2\n")).unwrap();
    let jsonl = dir.path().join("log.jsonl");
    let good = format!("{}\n", json!({"timestamp": TIME, "item_id": 1}));
    let both = format!("{}\n", json!({"timestamp": TIME, "item_id": 1, "ad_id": 2}));
    std::fs::write(&jsonl, good + &both).unwrap();
    for (file, more, expected) in [
        (&csv, &["--format=csv", "--where=click"][..], "'click' is not FIELD=VALUE"),
        (&csv, &["--format=csv", "--where=click=1"], "no column 'click'"),
        (&csv, &["--format=csv", "--columns=adid=item_id"], "no field 'adid"),
        (&csv, &["--format=csv", "--columns=ad_id=item_id"], "leave it out"),
        (&csv, &["--format=csv", "--time-format=unix"], "no time format 'unix'"),
        (&csv, &["--format=csv", "--campaign-id=0"], "--campaign-id"),
        (&jsonl, &["--format=jsonl", "--columns=ad_id=item_id"], "line 2"),
    ] {
        let error = format!("{:#}", try_play(&url, file, more).await.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
    assert!(capture.taken.lock().unwrap().is_empty());
    let without_from = Cli::try_parse_from(["load", "--url=x", "--where=a=b"]);
    assert!(without_from.is_err(), "an option of playback means nothing without --from");
}

#[tokio::test]
async fn a_play_that_breaks_off_accounts_for_its_rows_and_hides_its_token() {
    let capture = FakeCapture::default();
    let url = capture.start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log.csv");
    std::fs::write(&file, format!("timestamp,ad_id\n{TIME},1\n{TIME},x\n{TIME},2\n")).unwrap();
    let wrong = dir.path().join("token");
    std::fs::write(&wrong, "another-token\n").unwrap();
    let token_file = format!("--token-file={}", wrong.display());
    let summary = try_play(&url, &file, &["--format=csv", &token_file]).await.unwrap();
    let totals = summary.playback.unwrap();
    assert_eq!((totals.rows, totals.played, totals.unacknowledged, totals.skipped.len()), (3, 0, 2, 1));
    let shortfall = totals.shortfall().unwrap();
    assert!(shortfall.contains("401") && shortfall.contains("--token-file"), "{shortfall}");
    assert!(!shortfall.contains("another-token"));
    assert_eq!(summary.counted, 0, "what is not acknowledged is not expected");
}

#[tokio::test]
async fn many_long_agents_make_smaller_batches_not_a_body_that_is_too_large() {
    let capture = FakeCapture::default();
    let url = capture.start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log.csv");
    // Control characters take six bytes each in JSON.
    let rows = format!("{TIME},1,{}\n", "\u{1}".repeat(1_000)).repeat(600);
    std::fs::write(&file, format!("timestamp,ad_id,user_agent\n{rows}")).unwrap();
    let summary = try_play(&url, &file, &["--format=csv", "--http-batch=1000"]).await.unwrap();
    assert_eq!(summary.playback.unwrap().shortfall(), None, "axum refuses a body above 2 MB");
    assert_eq!(summary.counted, 600);
}
