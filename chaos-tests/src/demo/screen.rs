//! The screen of the demo: phases, one progress line, one table, one grid.

use std::io::{IsTerminal, Write};

use clicktally_node::tools::load::LoadSummary;
use comfy_table::{CellAlignment, Table};

use super::options::DemoOptions;
use super::report::Report;
use super::verdict::Verdict;

#[derive(Debug, Default)]
pub(super) struct Screen;

#[allow(clippy::print_stdout)] // This is the program's face; it talks to a person.
impl Screen {
    pub(super) fn say(&self, line: &str) {
        println!("{line}");
    }

    /// Rewrites one line on a terminal. Elsewhere every call prints a line of its own, so call it rarely there.
    pub(super) fn progress(&self, line: &str) {
        let mut out = std::io::stdout();
        let outcome = if self.is_live() { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        // A closed terminal must not end the demo.
        let _ = outcome.and_then(|()| out.flush());
    }

    pub(super) fn end_progress(&self) {
        if self.is_live() {
            println!();
        }
    }

    pub(super) fn is_live(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    pub(super) fn table(&self, report: &Report, summary: &LoadSummary, verdict: &Verdict) {
        let mut table = Table::new();
        table.set_header(["", "clicks", ""]);
        let mut row = |name: &str, clicks: u64, remark: String| {
            table.add_row([name.to_owned(), grouped(clicks), remark]);
        };
        row(
            "sent",
            report.sent,
            format!("{} duplicates, {} invalid, {} malformed", summary.duplicates, summary.invalid, summary.malformed),
        );
        row("unique valid", report.unique, "by the generator, and by a naive recount of the log".to_owned());
        row("counted by the stream", report.counted, format!("{} of them late, by corrections", summary.late_counted));
        row("late, beyond the horizon", report.late, "in the side output and on the invoice".to_owned());
        row("in the archive", report.archived, "every copy of every click, by manifest".to_owned());
        row("invoiced", report.invoiced_clicks, format!("{} USD", micros(verdict.invoiced_micros)));
        row("unexplained difference", report.unexplained, verdict.headline());
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("\n{table}");
        if let Some(killed) = &report.killed {
            println!(
                "Node {} ({}, owner of {} shards) was killed in mid-stream; all shards counted on after {} ms.",
                killed.node,
                if killed.was_leader { "the Raft leader" } else { "a follower" },
                killed.shards,
                killed.recovered_ms
            );
        }
        for violation in &verdict.violations {
            println!("  {violation}");
        }
    }

    pub(super) fn steady_grid(&self, verdict: &Verdict, options: &DemoOptions) {
        println!("\nSteady ads, clicks per minute as PostgreSQL has them (each must be 1,000):");
        for (ad, minutes) in &verdict.steady {
            let cells: Vec<String> = minutes.iter().map(|clicks| format!("{clicks:>5}")).collect();
            println!("  ad {ad}  {}", cells.join(" "));
        }
        println!("\nThe numbers are in {}", options.report.display());
    }
}

/// 1234567 → 1,234,567
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn micros(amount: i64) -> String {
    format!("{}.{:02}", amount / 1_000_000, amount % 1_000_000 / 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1_000, 1_234_567].map(grouped).each_ref().map(String::as_str)
        );
    }
}
