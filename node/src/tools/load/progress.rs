//! The progress of a load: counters that the doors advance, and the bar that shows them.

use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

/// The counters that the doors and the watchers of a load share. All accesses are relaxed: people read these numbers.
#[derive(Debug, Default)]
pub struct LoadWatch {
    acknowledged: AtomicU64,
    repeats: AtomicU64,
}

impl LoadWatch {
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
