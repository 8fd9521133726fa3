//! The verb `load`: its summary, and for a playback a table of what became of the rows.

use std::process::ExitCode;

use anyhow::bail;
use comfy_table::presets::ASCII_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::HumanCount;

use super::{Output, result, say};
use crate::tools::load::playback::totals::{PlaybackTotals, RowGroup};
use crate::tools::load::{self, LoadOptions, LoadSummary};

/// Fails, after it has printed the summary, if not all of a playback happened.
pub(super) async fn run(options: LoadOptions, output: Output) -> anyhow::Result<ExitCode> {
    let campaign_id = options.playback.campaign_id;
    let summary = load::run(options).await?;
    match &summary.playback {
        Some(totals) if output == Output::Table => say(&playback_table(&summary, totals, campaign_id)),
        _ => result::show(&summary, output)?,
    }
    if let Some(shortfall) = summary.playback.as_ref().and_then(PlaybackTotals::shortfall) {
        bail!(shortfall);
    }
    Ok(ExitCode::SUCCESS)
}

fn playback_table(summary: &LoadSummary, totals: &PlaybackTotals, campaign_id: u64) -> String {
    let mut table = Table::new();
    table.load_preset(ASCII_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["rows", "what became of them", "first line", "the first of them"]);
    let mut add = |rows: u64, what: &str, first: Option<&RowGroup>| {
        let (line, example) =
            first.map_or_else(Default::default, |group| (group.first_line.to_string(), group.example.clone()));
        table.add_row([HumanCount(rows).to_string(), what.to_owned(), line, example]);
    };
    add(totals.rows, "read", None);
    add(totals.played, "played", None);
    let parts = [
        (summary.duplicates, "  repeats of an earlier event_id"),
        (summary.invalid, "  robots by their user agent"),
        (totals.played_without_campaign, &format!("  without a campaign: played as campaign {campaign_id}")),
        (totals.played_without_address, "  without their ip_address, which is no address"),
    ];
    for (rows, what) in parts.into_iter().filter(|(rows, _)| *rows > 0) {
        add(rows, what, None);
    }
    for (are_faults, what) in [(false, "left out"), (true, "faulty")] {
        for group in totals.skipped.iter().filter(|group| group.is_fault == are_faults) {
            add(group.rows, &format!("{what}: {}", group.reason), Some(group));
        }
    }
    for group in &totals.refused {
        add(group.rows, &format!("refused by the server: {}", group.reason), Some(group));
    }
    if totals.unacknowledged > 0 {
        add(totals.unacknowledged, "sent, and not acknowledged", None);
    }
    for column in [0, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let must = format!("{} clicks must be counted: distinct, and no robots.", HumanCount(summary.counted));
    format!("{table}\n{must} The play began at --anchor-ms {}.", totals.anchor_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_row_of_the_file_and_says_what_is_faulty() {
        let group = |reason: &str, rows, is_fault| RowGroup {
            reason: reason.to_owned(),
            rows,
            is_fault,
            first_line: 17,
            example: format!("{reason}, shown"),
        };
        let totals = PlaybackTotals {
            rows: 12_346,
            played: 12_300,
            played_without_campaign: 5,
            skipped: vec![group("ad_id missing", 1, true), group("blank line", 40, false)],
            refused: vec![group("click-field-invalid", 3, true)],
            unacknowledged: 2,
            anchor_ms: 1_795_874_425_000,
            ..PlaybackTotals::default()
        };
        let summary = LoadSummary { counted: 12_250, duplicates: 50, ..LoadSummary::default() };
        let table = playback_table(&summary, &totals, 9);
        for expected in [
            "12,346",
            "played as campaign 9",
            "repeats of an earlier event_id",
            "left out: blank line",
            "faulty: ad_id missing",
            "refused by the server: click-field-invalid",
            "not acknowledged",
            "12,250 clicks must be counted",
            "--anchor-ms 1795874425000",
        ] {
            assert!(table.contains(expected), "'{expected}' is not in\n{table}");
        }
        assert!(!table.contains("robots by"), "what is not there is not listed:\n{table}");
    }
}
