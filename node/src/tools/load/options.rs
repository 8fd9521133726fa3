//! The arguments of `clicktally load`, which describe a load.

use std::path::PathBuf;

use clap::Args;
use clicktally_proto::identity::shard_key::SALTS;
use thiserror::Error;

use super::playback::options::PlaybackOptions;
use super::token::TokenOptions;

/// Percentages refer to the generated clicks (without steady ads) and may be fractions.
#[derive(Debug, Clone, Args)]
pub struct LoadOptions {
    /// Base URL of a node; repeat it for failover. With --kafka, half of the clicks go through HTTP by default.
    #[arg(long = "url", value_name = "URL")]
    pub urls: Vec<String>,
    /// Kafka bootstrap servers: clicks go straight into the log, packed, as the log watcher writes them.
    #[arg(long, value_name = "HOST:PORT", env = "CLICKTALLY_KAFKA")]
    pub kafka: Option<String>,
    /// Raft groups of the cluster; the raw topic has 16 partitions for each.
    #[arg(long, default_value_t = 1)]
    pub groups: u16,
    /// Share of the clicks that go through HTTP if both doors are given.
    #[arg(long, default_value_t = 50.0, value_name = "PERCENT")]
    pub http_percent: f64,

    /// Clicks per second, over all doors. 0: as fast as they are acknowledged.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// How many clicks to send; each duplicate counts as one.
    #[arg(long, default_value_t = 60_000)]
    pub clicks: u64,
    /// Seed of all random choices. Event times follow the wall clock.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How far event times are behind the wall clock. The minutes of such a load are already over, so their windows
    /// fire at once. Keep it below 4 minutes for HTTP, and well below the allowed lateness.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub behind_s: u64,
    /// Spreads event times over this many seconds, from --behind-s ago on, however fast the load is sent: a backlog.
    /// Without it event times keep pace with the wall clock.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub span_s: u64,
    /// Names this load in its click identities, so that a second load does not repeat the first. Default: the start
    /// time; for --from none, so that a second play of a file repeats the first.
    #[arg(long)]
    pub run_id: Option<String>,

    /// Distinct ads, numbered from --first-ad.
    #[arg(long, default_value_t = 1_000)]
    pub ads: u64,
    #[arg(long, default_value_t = 1)]
    pub first_ad: u64,
    /// Distinct campaigns, numbered from --first-campaign; ad a belongs to campaign a mod campaigns.
    #[arg(long, default_value_t = 20)]
    pub campaigns: u64,
    #[arg(long, default_value_t = 1)]
    pub first_campaign: u64,
    /// Skew of the ads' popularity: the n-th ad gets a share proportional to n^-skew.
    #[arg(long, default_value_t = 1.1)]
    pub zipf: f64,
    /// Share of the clicks that go to the first ad.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub hot_percent: f64,
    /// Sends only clicks of these salts (0 to 15), as 0,3,7, for an uneven load over the shards. Log door only.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub salts: Vec<u16>,
    /// Distinct users, who click repeatedly; some clicks name no user. 0: no click names a user.
    #[arg(long, default_value_t = 20_000)]
    pub users: u64,
    /// Ads that get exactly 1,000 clicks in every minute of event time, numbered from --first-steady-ad.
    #[arg(long, default_value_t = 0)]
    pub steady_ads: u64,
    #[arg(long, default_value_t = 900_001)]
    pub first_steady_ad: u64,

    /// Repeats of an earlier click, through the same door.
    #[arg(long, default_value_t = 2.0, value_name = "PERCENT")]
    pub duplicate_percent: f64,
    /// Event times up to the out-of-orderness bound in the past.
    #[arg(long, default_value_t = 3.0, value_name = "PERCENT")]
    pub out_of_order_percent: f64,
    /// Event times further back, well inside the allowed lateness: counted, as corrections. Log door only.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub late_percent: f64,
    /// Event times so far back that their window is final: not counted by the stream. Log door only.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub beyond_horizon_percent: f64,
    /// Event times ahead of the clock, by up to --ahead-max-s.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub ahead_percent: f64,
    /// At most what the cluster allows ([event_time] max_ahead_ms, by default five minutes).
    #[arg(long, default_value_t = 240, value_name = "SECONDS")]
    pub ahead_max_s: u64,
    /// Clicks that bear the event id of an earlier click of another campaign: clicks of their own. Not with --salts.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub shared_event_percent: f64,
    /// Clicks of declared robots.
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    pub invalid_percent: f64,
    /// Clicks that lack their ad (HTTP), or bytes that are not a click (log).
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub malformed_percent: f64,

    /// The cluster's allowed lateness. It decides which clicks are late and which are beyond the horizon.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    pub allowed_lateness_s: u64,
    /// The cluster's out-of-orderness bound.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    pub out_of_orderness_s: u64,

    /// Clicks of one HTTP request.
    #[arg(long, default_value_t = 500)]
    pub http_batch: usize,
    /// Clicks of one packed log record, at most.
    #[arg(long, default_value_t = 100)]
    pub record_clicks: usize,
    /// How long a batch may stay unacknowledged, over all its repeats, before the load fails.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub give_up_s: u64,

    /// Writes what should be counted: a JSON line per (ad, minute), {"ad_id", "minute", "clicks"}.
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
    /// Shows no progress bar.
    #[arg(long)]
    pub quiet: bool,

    #[command(flatten)]
    pub token: TokenOptions,

    #[command(flatten)]
    pub playback: PlaybackOptions,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OutOfRange {
    #[error("no destination for the clicks: give --url, --kafka, or both")]
    NoDoor,
    #[error("--{0} needs --kafka: HTTP refuses clicks that late")]
    NeedsLog(&'static str),
    #[error("--salts needs --kafka and no --url: clicks through HTTP go to any salt")]
    SaltsByHttp,
    #[error("--{name} must be {range}")]
    Value { name: &'static str, range: &'static str },
    #[error("the percentages of special clicks add up to more than 100")]
    Percentages,
}

/// The limits of one record or request, which the receiving side enforces too.
const RECORD_CLICKS_MAX: usize = 10_000;
const REQUEST_CLICKS_MAX: usize = 1_000;

impl LoadOptions {
    /// Checks the relations between arguments, which clap cannot express.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let value = |ok: bool, name, range| if ok { Ok(()) } else { Err(OutOfRange::Value { name, range }) };
        value(self.ads >= 1, "ads", "at least 1")?;
        value(self.campaigns >= 1, "campaigns", "at least 1")?;
        value(self.first_ad >= 1 && self.first_steady_ad >= 1, "first-ad", "at least 1")?;
        value(self.first_campaign >= 1, "first-campaign", "at least 1")?;
        value(self.span_s <= self.behind_s, "span-s", "at most --behind-s: no click may be in the future")?;
        value((1..=1_024).contains(&self.groups), "groups", "1 to 1024")?;
        value(self.salts.iter().all(|salt| *salt < SALTS), "salts", "a list of numbers from 0 to 15")?;
        value(self.zipf.is_finite() && (0.0..=10.0).contains(&self.zipf), "zipf", "0 to 10")?;
        value((1..=REQUEST_CLICKS_MAX).contains(&self.http_batch), "http-batch", "1 to 1000")?;
        value((1..=RECORD_CLICKS_MAX).contains(&self.record_clicks), "record-clicks", "1 to 10000")?;
        let special = [
            self.duplicate_percent,
            self.out_of_order_percent,
            self.late_percent,
            self.beyond_horizon_percent,
            self.ahead_percent,
            self.shared_event_percent,
            self.invalid_percent,
            self.malformed_percent,
        ];
        for percent in special.iter().chain([&self.hot_percent, &self.http_percent]) {
            value((0.0..=100.0).contains(percent), "…-percent", "0 to 100")?;
        }
        if special.iter().sum::<f64>() > 100.0 {
            return Err(OutOfRange::Percentages);
        }
        if self.urls.is_empty() && self.kafka.is_none() {
            return Err(OutOfRange::NoDoor);
        }
        if self.kafka.is_none() && self.late_percent > 0.0 {
            return Err(OutOfRange::NeedsLog("late-percent"));
        }
        if self.kafka.is_none() && self.beyond_horizon_percent > 0.0 {
            return Err(OutOfRange::NeedsLog("beyond-horizon-percent"));
        }
        if !self.salts.is_empty() && !self.urls.is_empty() {
            return Err(OutOfRange::SaltsByHttp);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: LoadOptions,
    }

    fn parse(arguments: &[&str]) -> LoadOptions {
        Cli::parse_from([&["load"], arguments].concat()).options
    }

    #[test]
    fn defaults_need_only_a_door() {
        assert_eq!(parse(&["--url", "http://localhost:1"]).check(), Ok(()));
        assert_eq!(
            parse(&["--url", "http://localhost:1", "--late-percent", "1"]).check(),
            Err(OutOfRange::NeedsLog("late-percent"))
        );
    }

    #[test]
    fn impossible_mixes_are_refused() {
        let door = ["--url", "http://localhost:1"];
        assert_eq!(parse(&[&door[..], &["--duplicate-percent", "99"]].concat()).check(), Err(OutOfRange::Percentages));
        assert!(matches!(
            parse(&[&door[..], &["--ads", "0"]].concat()).check(),
            Err(OutOfRange::Value { name: "ads", .. })
        ));
        let salts = ["--salts", "0,16"];
        assert_eq!(parse(&[&door[..], &["--salts", "0,3"]].concat()).check(), Err(OutOfRange::SaltsByHttp));
        assert!(matches!(
            parse(&[&["--kafka", "localhost:1"], &salts[..]].concat()).check(),
            Err(OutOfRange::Value { name: "salts", .. })
        ));
    }
}
