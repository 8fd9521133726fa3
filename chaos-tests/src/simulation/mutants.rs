//! The hunt for planted mistakes: how many seeds it takes until a check finds each.
//!
//! The table of mutants is in [`clicktally_proto::fault`]. A mutant that survives its budget of seeds means that a
//! check or a schedule is missing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clicktally_proto::fault::{Layer, Mutant};

use super::campaign::CampaignReport;
use super::tier::Tier;

/// A mutant of the rules must be found within this many seeds of tier 0 or 2.
const SEEDS_MAX: u64 = 300;

/// A mutant of whole nodes must be found within this many seeds of tier 1, which take a second each.
const NODES_SEEDS_MAX: u64 = 30;

/// The tier whose seeds run the code that makes the mistake.
pub fn tier(mutant: Mutant) -> Tier {
    match mutant.layer() {
        Layer::Rules => Tier::Core,
        Layer::Nodes => Tier::Nodes,
        Layer::Billing => Tier::Billing,
    }
}

/// The budget: the mutant must be found within this many seeds. Those named here need a rare coincidence.
pub fn seeds_max(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::LostTailProves | Mutant::GapTakenForSuccess => 1_000,
        // The command of the newest level must meet a build of a level below.
        Mutant::VoteNotDurable | Mutant::NewerRejected => 100,
        _ => match tier(mutant) {
            Tier::Core | Tier::Billing => SEEDS_MAX,
            Tier::Nodes => NODES_SEEDS_MAX,
        },
    }
}

/// How a hunt ended.
#[derive(Debug, Clone)]
pub struct Hunt {
    pub mutant: Mutant,
    /// Which check found it, and in which seed, counted from 1; `None` for a survivor.
    pub killed: Option<(String, u64)>,
}

impl Hunt {
    /// Hunts one mutant in a process of its own, because a mutant affects the whole process. `program` is the simulator
    /// itself.
    pub fn run(mutant: Mutant, program: &Path) -> anyhow::Result<Hunt> {
        ensure!(cfg!(debug_assertions), "mutants are compiled into debug builds only");
        let seeds = seeds_max(mutant).to_string();
        let output = Command::new(program)
            .args(["hunt", "--tier", &tier(mutant).to_string(), "--seeds", &seeds])
            .env("CLICKTALLY_BREAK", mutant.name())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let report: CampaignReport = match serde_json::from_slice(&output.stdout) {
            Ok(report) => report,
            Err(error) => bail!("{}: {error}: {}", mutant.name(), String::from_utf8_lossy(&output.stderr)),
        };
        let killed = report.failed.and_then(|failed| {
            let seed = failed.seed;
            failed.violation.map(|violation| (violation.check, seed))
        });
        Ok(Hunt { mutant, killed })
    }

    /// What found it, and in how many seeds, as the document shows it.
    fn result(&self) -> (&str, String) {
        match &self.killed {
            Some((check, seed)) => (check, seed.to_string()),
            None => ("**survived**", "–".to_owned()),
        }
    }
}

/// The table for `docs/simulation.md`.
pub fn table(hunts: &[Hunt]) -> String {
    let mut lines = vec!["| mutant | the mistake | tier | killed by | seeds to kill | budget |".to_owned()];
    lines.push("|---|---|---|---|---|---|".to_owned());
    for hunt in hunts {
        let mutant = hunt.mutant;
        let ((by, seeds), budget) = (hunt.result(), seeds_max(mutant));
        lines.push(format!("{} {by} | {seeds} | {budget} |", row_head(mutant)));
    }
    lines.join("\n") + "\n"
}

const TABLE_BEGINS: &str = "<!-- mutants: written by make sim-mutants -->\n";
const TABLE_ENDS: &str = "<!-- end of mutants -->";

/// How the row of a mutant begins: what is known before the hunt.
pub fn row_head(mutant: Mutant) -> String {
    format!("| {} | {} | {} |", mutant.name(), mutant.mistake(), tier(mutant))
}

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
        let killed = Hunt { mutant: Mutant::Identity, killed: Some(("CT-1".into(), 3)) };
        let document = format!("a\n{TABLE_BEGINS}old\n{TABLE_ENDS}\nb");
        let written = with_table(&document, &table(&[killed, Hunt { mutant: Mutant::Offset, killed: None }])).unwrap();
        assert!(written.starts_with("a\n") && written.ends_with("\nb") && !written.contains("old"));
        assert!(written.contains("| CT-1 | 3 |") && written.contains("**survived**"));
        assert!(with_table("nothing", "").is_err());
    }
}
