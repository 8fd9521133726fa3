//! Real input: the Open Bandit data (ZOZO, Apache-2.0; Saito et al. 2020), a week of a fashion shop's logs with
//! microsecond times, fetched through pip and never committed. Every (item, minute) is compared with a count made
//! here.

use std::path::{Path, PathBuf};
use std::process::Command;

use clicktally_chaos_tests::checks::{self, ct1_conservation};
use clicktally_chaos_tests::oracle::Counts;
use clicktally_chaos_tests::trial::Trial;
use clicktally_proto::clock::{Clock, SystemClock};

const PACKAGE: &str = "obp==0.4.1";
const FILE: &str = "obp/dataset/obd/random/men/men.csv";
/// A week in 151 seconds, all of them over when they are sent.
const SPEED: u64 = 4_000;
const ANCHOR_BEHIND_MS: u64 = 200_000;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?} failed (is python3-pip installed?): {text}");
}

/// The data file, fetched once into the cache.
fn open_bandit_file() -> PathBuf {
    let cache = std::env::var_os("CLICKTALLY_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/clicktally"));
    let folder = cache.join("open-bandit");
    let file = folder.join(FILE);
    if !file.is_file() {
        let partial = tempfile::tempdir().unwrap();
        let place = partial.path().to_str().unwrap();
        run("python3", &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, PACKAGE]);
        let wheel = std::fs::read_dir(partial.path()).unwrap().next().unwrap().unwrap().path();
        run("python3", &["-m", "zipfile", "-e", wheel.to_str().unwrap(), folder.to_str().unwrap()]);
    }
    file
}

/// Milliseconds since the start of November 2019 of `2019-11-24 00:03:13.442536+00:00`, by nothing but its digits.
fn millis_of(text: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().unwrap();
    let seconds = ((number(8..10) * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19);
    let fraction = text.get(19..23).filter(|f| f.starts_with('.')).map_or(0, |f| f[1..].parse().unwrap());
    seconds * 1_000 + fraction
}

/// (item, minute) → rows, by splitting lines at commas.
fn count_independently(file: &Path, anchor_ms: u64) -> Counts {
    let text = std::fs::read_to_string(file).unwrap();
    let mut counts = Counts::new();
    let mut first = None;
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let at = millis_of(fields[1]);
        let start = *first.get_or_insert(at);
        let item: u64 = fields[2].parse().unwrap();
        let event_time_ms = anchor_ms + (at - start) / SPEED;
        *counts.entry((item + 1, event_time_ms / 60_000)).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_real_week_is_counted_exactly_per_item_and_minute() {
    let file = tokio::task::spawn_blocking(open_bandit_file).await.unwrap();
    let trial = Trial::start().await.unwrap();
    let anchor_ms = SystemClock.now_ms() - ANCHOR_BEHIND_MS;
    let arguments: Vec<String> = vec![
        "load".into(),
        "--quiet".into(),
        format!("--url={}", trial.cluster.client.urls[0]),
        format!("--from={}", file.display()),
        "--format=csv".into(),
        "--columns=ad_id=item_id".into(),
        // Items are numbered from 0, which is no ad.
        "--ad-id-offset=1".into(),
        format!("--speed={SPEED}"),
        format!("--anchor-ms={anchor_ms}"),
    ];
    let summary = trial.load_exactly(&arguments).await.unwrap();
    assert_eq!((summary.sent, summary.skipped_rows), (10_000, 0));
    trial.settle_and_check(&summary).await.unwrap();
    let counted = trial.database.stream_counts().await.unwrap();
    checks::require_none(&ct1_conservation::check(&count_independently(&file, anchor_ms), &counted)).unwrap();
    assert_eq!(counted.values().sum::<u64>(), 10_000);
}
