//! Planted mistakes, and in how many seeds each is found. One that survives its budget means that a check or a schedule is missing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clicktally_proto::fault::Mutant;

use super::campaign::CampaignReport;
use super::tier::Tier;

/// In how many seeds a mutant must be found, unless its case says more.
const SEEDS_MAX: u64 = 300;

/// The same for whole nodes, whose seeds take a second each.
const NODES_SEEDS_MAX: u64 = 30;

/// A mutant, where it is hunted, and within how many seeds it must be found.
#[derive(Debug, Clone, Copy)]
pub struct MutantCase {
    pub mutant: Mutant,
    pub tier: Tier,
    pub seeds_max: u64,
    pub what: &'static str,
}

const fn case(mutant: Mutant, what: &'static str) -> MutantCase {
    MutantCase { mutant, tier: Tier::Core, seeds_max: SEEDS_MAX, what }
}

const fn nodes_case(mutant: Mutant, what: &'static str) -> MutantCase {
    MutantCase { mutant, tier: Tier::Nodes, seeds_max: NODES_SEEDS_MAX, what }
}

pub const CASES: &[MutantCase] = &[
    case(Mutant::Identity, "clicks counted without looking at the ids already seen"),
    case(Mutant::Offset, "offsets of a checkpoint not compared with the committed ones"),
    case(Mutant::Sink, "rows added up in PostgreSQL instead of replaced by revision"),
    case(Mutant::EpochUnchecked, "a checkpoint of a former owner is taken"),
    case(Mutant::MergeReplaces, "a partial count replaces what was there"),
    case(Mutant::WatermarkByTimer, "a shard follows the clock without proof"),
    MutantCase {
        seeds_max: 1_000,
        ..case(Mutant::LostTailProves, "a log that lost its tail taken for one read to its end (a real one, once)")
    },
    case(Mutant::ProofAfterAnswer, "a proof of emptiness stamped when the answer comes"),
    case(Mutant::WatermarkGoesBack, "a new owner starts without its predecessor's watermark"),
    case(Mutant::DedupEvictedEarly, "ids forgotten when their window has fired"),
    case(Mutant::SnapshotWithoutSeenIds, "snapshots leave out the seen ids"),
    case(Mutant::UpsertUnversioned, "rows replace each other whatever their revision"),
    case(Mutant::SinkOffsetsFirst, "the sink's offsets committed before their rows"),
    case(Mutant::ReportedUnpublished, "windows reported as published before they are"),
    case(Mutant::LateAfterCommit, "a checkpoint proposed before its late clicks are durable"),
    case(Mutant::LateDropped, "late clicks sent nowhere"),
    case(Mutant::FarAheadCounted, "a click dated far ahead counted like any other"),
    case(Mutant::MisroutedCounted, "a click counted where it is found, not where it belongs"),
    case(Mutant::CutUncommitted, "a checkpoint proposed before the one ahead of it is committed"),
    MutantCase { seeds_max: 1_000, ..case(Mutant::GapTakenForSuccess, "an offset gap taken for a success") },
    case(Mutant::EvictedUnpublished, "windows leave replicated state before they are published"),
    case(Mutant::MoveEpochUnchecked, "assignments do not compare the epoch they saw"),
    case(Mutant::ResetToLatest, "a reader that is opened begins at the log's end"),
    case(Mutant::StalenessIgnored, "a stale replica says yes about a budget"),
    case(Mutant::AnswerOutlives, "a yes about a budget holds ten times too long"),
    case(Mutant::SpendTwice, "a budget charged twice for every click"),
    case(Mutant::LeaseByWallClock, "nodes taken for dead by wall clocks"),
    case(Mutant::GarbageSkipped, "a record nobody can read leaves no trace"),
    nodes_case(Mutant::AckBeforeFsync, "a write acknowledged before it is on disk"),
    nodes_case(Mutant::FsyncErrorIgnored, "a failed fsync tried again and taken for a success"),
    MutantCase { seeds_max: 100, ..nodes_case(Mutant::VoteNotDurable, "a vote given before it is on disk") },
    nodes_case(Mutant::ChecksumUnchecked, "a snapshot installed whatever its checksums say"),
    nodes_case(Mutant::SnapshotMergesRuns, "snapshots sum up the runs that replicas have to agree on"),
    nodes_case(Mutant::TruncationIgnored, "a log's conflicting tail kept"),
    nodes_case(Mutant::PurgeBeyondSnapshot, "the log purged beyond the newest durable snapshot"),
    nodes_case(Mutant::LevelUnchecked, "commands proposed that a member's build does not know"),
    nodes_case(Mutant::NewerRejected, "a command of a newer build rejected by one replica, and applied by others"),
    nodes_case(Mutant::HaltUnsaid, "a shard whose log was cut stands still and says so nowhere"),
    nodes_case(Mutant::StaleRead, "a read that asks nobody whether the replica is current"),
    nodes_case(Mutant::LeaderReadsAlone, "a leader that takes itself for one without asking a quorum"),
    nodes_case(Mutant::AnsweredUncommitted, "a proposal answered before it is committed"),
    nodes_case(Mutant::LogLostIgnored, "a node let in whose disk has lost what a leader remembers"),
    nodes_case(Mutant::RecoveredNotForgotten, "a log begun again over entries that a recovery brought back"),
];

/// How a hunt ended.
#[derive(Debug, Clone)]
pub struct Hunt {
    pub case: MutantCase,
    /// What found it and in which seed, counted from 1; `None` for a survivor.
    pub killed: Option<(String, u64)>,
}

impl MutantCase {
    /// In a process of its own, because a mutant is a matter of the whole process. `program` is the simulator itself.
    pub fn hunt(&self, program: &Path) -> anyhow::Result<Hunt> {
        ensure!(cfg!(debug_assertions), "mutants are compiled into debug builds only");
        let seeds = self.seeds_max.to_string();
        let output = Command::new(program)
            .args(["hunt", "--tier", &self.tier.to_string(), "--seeds", &seeds])
            .env("CLICKTALLY_BREAK", self.mutant.name())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let report: CampaignReport = match serde_json::from_slice(&output.stdout) {
            Ok(report) => report,
            Err(error) => bail!("{}: {error}: {}", self.mutant.name(), String::from_utf8_lossy(&output.stderr)),
        };
        let killed = report.failed.and_then(|failed| {
            let seed = failed.seed;
            failed.violation.map(|violation| (violation.check, seed))
        });
        Ok(Hunt { case: *self, killed })
    }
}

/// The table for `docs/simulation.md`.
pub fn table(hunts: &[Hunt]) -> String {
    let mut lines = vec!["| mutant | the mistake | tier | killed by | seeds to kill | budget |".to_owned()];
    lines.push("|---|---|---|---|---|---|".to_owned());
    for Hunt { case, killed } in hunts {
        let (by, seeds) = match killed {
            Some((check, seed)) => (check.clone(), seed.to_string()),
            None => ("**survived**".to_owned(), "–".to_owned()),
        };
        let MutantCase { mutant, tier, seeds_max, what } = case;
        lines.push(format!("| {} | {what} | {tier} | {by} | {seeds} | {seeds_max} |", mutant.name()));
    }
    lines.join("\n") + "\n"
}

const TABLE_BEGINS: &str = "<!-- mutants: written by make sim-mutants -->\n";
const TABLE_ENDS: &str = "<!-- end of mutants -->";

/// A document with its table replaced.
pub fn with_table(document: &str, table: &str) -> anyhow::Result<String> {
    let (head, rest) = document.split_once(TABLE_BEGINS).context("the document has no place for the table")?;
    let (_, foot) = rest.split_once(TABLE_ENDS).context("the table in the document has no end")?;
    Ok(format!("{head}{TABLE_BEGINS}{table}{TABLE_ENDS}{foot}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_replaces_the_one_before_and_nothing_else() {
        let killed = Hunt { case: CASES[0], killed: Some(("CT-1".into(), 3)) };
        let document = format!("a\n{TABLE_BEGINS}old\n{TABLE_ENDS}\nb");
        let written = with_table(&document, &table(&[killed, Hunt { case: CASES[1], killed: None }])).unwrap();
        assert!(written.starts_with("a\n") && written.ends_with("\nb") && !written.contains("old"));
        assert!(written.contains("| CT-1 | 3 |") && written.contains("**survived**"));
        assert!(with_table("nothing", "").is_err());
    }
}
