//! The progress of a load: counters that the doors advance, the bar that shows them, and the request to end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

/// What a load and its watchers share. All accesses are relaxed: people read the numbers, and a request to end may
/// take effect a tick later.
#[derive(Debug, Default)]
pub struct LoadWatch {
    acknowledged: AtomicU64,
    repeats: AtomicU64,
    is_held_open: AtomicBool,
}

impl LoadWatch {
    /// For a load that goes on beyond its number of clicks, until [`LoadWatch::let_end`]. A test of what happens under
    /// load then needs no guess of how long that takes.
    pub fn held_open() -> LoadWatch {
        LoadWatch { is_held_open: AtomicBool::new(true), ..LoadWatch::default() }
    }

    /// The load ends as soon as it has sent its number of clicks.
    pub fn let_end(&self) {
        self.is_held_open.store(false, Ordering::Relaxed);
    }

    /// How many clicks the load may send, given the number it was asked for.
    pub(super) fn clicks_max(&self, asked: u64) -> u64 {
        if self.is_held_open.load(Ordering::Relaxed) { u64::MAX } else { asked }
    }

    /// Clicks that a door has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// HTTP batches sent again after an error or an unclear answer.
    pub fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }

    pub(super) fn add_acknowledged(&self, clicks: usize) {
        self.acknowledged.fetch_add(u64::try_from(clicks).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn add_repeat(&self) {
        self.repeats.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn bar(total: u64, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed_precise} {wide_bar} {human_pos}/{human_len} clicks {per_sec} {msg}")
    {
        bar.set_style(style);
    }
    bar
}

/// For a file, whose number of rows is known at its end only.
pub(super) fn row_spinner(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {human_pos} rows {per_sec} {msg}") {
        spinner.set_style(style);
    }
    spinner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_held_open_goes_on_until_it_may_end() {
        assert_eq!(LoadWatch::default().clicks_max(500), 500);
        let watch = LoadWatch::held_open();
        assert_eq!(watch.clicks_max(500), u64::MAX);
        watch.let_end();
        assert_eq!(watch.clicks_max(500), 500);
    }
}
