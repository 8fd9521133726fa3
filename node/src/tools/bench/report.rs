//! The result of a benchmark: a line of JSON per topic, or a table.

use std::time::Duration;

use comfy_table::Table;
use serde::Serialize;

use super::cpu_time::Shares;
use super::peers::PeerRate;

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Rate {
    pub(super) events_per_s: f64,
    pub(super) cpu_s_per_million: f64,
}

impl Rate {
    pub(super) fn of(events: u64, took: Duration, cpu: Duration) -> Rate {
        let events = events as f64;
        Rate {
            events_per_s: events / took.as_secs_f64().max(1e-9),
            cpu_s_per_million: cpu.as_secs_f64() * 1e6 / events.max(1.0),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ShardPath {
    #[serde(flatten)]
    pub(super) rate: Rate,
    pub(super) duplicates: u64,
    pub(super) cells: u64,
    pub(super) raft_cpu_s_per_million: f64,
    pub(super) cpu_s_per_million_by: Shares,
}

/// One topic's result, with the field names of the contract.
#[derive(Debug, Serialize)]
pub(super) struct TopicReport {
    pub(super) topic: &'static str,
    pub(super) events: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) raw_consume: Rate,
    /// The same measurement with our own fetcher.
    pub(super) raw_direct: Rate,
    pub(super) shard_path: ShardPath,
    /// Shard path over raw consume, in events per second.
    pub(super) ratio: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) peers: Vec<PeerRate>,
}

pub(super) fn table(reports: &[TopicReport]) -> String {
    let mut table = Table::new();
    table.set_header([
        "topic",
        "raw events/s",
        "raw CPU-s/M",
        "direct events/s",
        "direct CPU-s/M",
        "counted events/s",
        "CPU-s/M",
        "fetch",
        "count",
        "Raft",
        "ratio",
    ]);
    for report in reports {
        table.add_row([
            report.topic.to_owned(),
            format!("{:.0}", report.raw_consume.events_per_s),
            format!("{:.2}", report.raw_consume.cpu_s_per_million),
            format!("{:.0}", report.raw_direct.events_per_s),
            format!("{:.2}", report.raw_direct.cpu_s_per_million),
            format!("{:.0}", report.shard_path.rate.events_per_s),
            format!("{:.2}", report.shard_path.rate.cpu_s_per_million),
            format!("{:.2}", report.shard_path.cpu_s_per_million_by.fetch),
            format!("{:.2}", report.shard_path.cpu_s_per_million_by.count),
            format!("{:.2}", report.shard_path.cpu_s_per_million_by.raft),
            format!("{:.2}", report.ratio),
        ]);
    }
    let mut peers = Table::new();
    peers.set_header(["topic", "who", "events/s", "CPU-s/M", "of it steady", "times ours"]);
    for report in reports {
        for peer in &report.peers {
            peers.add_row([
                report.topic.to_owned(),
                peer.who.clone(),
                format!("{:.0}", peer.events_per_s),
                format!("{:.2}", peer.cpu_s_per_million),
                format!("{:.2}", peer.steady_cpu_s_per_million),
                format!("{:.1}", peer.steady_cpu_s_per_million / report.shard_path.rate.cpu_s_per_million),
            ]);
        }
    }
    if peers.is_empty() { table.to_string() } else { format!("{table}\n{peers}") }
}
