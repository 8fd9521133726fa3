//! The cells of one minute as runs, oldest first: a checkpoint adds one, and now and then some are merged into one.
//!
//! A replica merges runs as late as possible. Without readers it needs to sum cells up only to bound their memory. A
//! reader merges what it reads, outside the lock. Two rules bound what is put off. They are part of apply, so they
//! must decide the same on every replica; therefore snapshots keep the runs:
//!
//! 1. All runs together hold fewer than [`NEWER_MAX`] + 1 times the cells of the oldest, else they become one. So a
//!    minute holds at most as many times the cells it has, and a cell is merged a logarithmic number of times.
//!    (Somewhat more for a moment, where many windows are due with one checkpoint: [`MergeAllowance`].)
//! 2. There are at most [`RUNS_MAX`] of them. One more, and the newer half is merged, and with it each older run that
//!    is at most twice as large as what comes after it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use clicktally_proto::identity::ids::{AdId, CampaignId};
use clicktally_proto::money::Micros;

use crate::windows::cell::Cell;
use crate::windows::cell_run::{CellId, CellRun, Cursor};

/// More makes a replica cheaper and larger.
const NEWER_MAX: usize = 4;
const RUNS_MAX: usize = 32;

/// So that no apply takes long, whichever windows are due together: some milliseconds' worth.
pub(crate) const MERGED_PER_APPLY_MAX: usize = 250_000;

/// What one apply may still merge. The first of its merges is allowed however large it is, so that none waits for ever.
#[derive(Debug)]
pub(crate) struct MergeAllowance {
    left: usize,
    is_untouched: bool,
}

impl MergeAllowance {
    pub(crate) fn of_an_apply() -> MergeAllowance {
        MergeAllowance { left: MERGED_PER_APPLY_MAX, is_untouched: true }
    }

    pub(crate) fn unlimited() -> MergeAllowance {
        MergeAllowance { left: usize::MAX, is_untouched: true }
    }

    fn take(&mut self, cells: usize) -> bool {
        let is_allowed = self.left >= cells || self.is_untouched;
        if is_allowed {
            self.left = self.left.saturating_sub(cells);
            self.is_untouched = false;
        }
        is_allowed
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct CellRuns {
    runs: Vec<Arc<CellRun>>,
}

/// The same cells, however they are spread over runs.
impl PartialEq for CellRuns {
    fn eq(&self, other: &CellRuns) -> bool {
        self.merged() == other.merged()
    }
}

impl Eq for CellRuns {}

impl CellRuns {
    /// `allowance`: how many cells may still be merged on this occasion. What has to wait is merged with the next run.
    pub(crate) fn push(&mut self, run: CellRun, allowance: &mut MergeAllowance) {
        assert!(run.len() > 0, "a run without cells");
        self.runs.push(Arc::new(run));
        let newer: usize = self.runs[1..].iter().map(|run| run.len()).sum();
        if newer >= NEWER_MAX * self.runs[0].len() {
            self.merge_from(0, allowance);
        } else if self.runs.len() > RUNS_MAX {
            let mut first = self.runs.len() - RUNS_MAX / 2;
            let mut cells: usize = self.runs[first..].iter().map(|run| run.len()).sum();
            while first > 0 && self.runs[first - 1].len() <= 2 * cells {
                first -= 1;
                cells += self.runs[first].len();
            }
            self.merge_from(first, allowance);
        }
    }

    fn merge_from(&mut self, first: usize, allowance: &mut MergeAllowance) {
        if allowance.take(self.runs[first..].iter().map(|run| run.len()).sum()) {
            let newer = self.runs.split_off(first);
            self.runs.extend(merge_all(newer));
        }
    }

    /// One run of a snapshot, as it was.
    pub(crate) fn restore(&mut self, run: CellRun) {
        self.runs.push(Arc::new(run));
    }

    /// Into one run, if that is still allowed.
    pub(crate) fn compact(&mut self, allowance: &mut MergeAllowance) {
        self.merge_from(0, allowance);
    }

    /// Oldest first.
    pub(crate) fn runs(&self) -> &[Arc<CellRun>] {
        &self.runs
    }

    /// Cells of all runs together: a cell counts once for each run that has it.
    pub(crate) fn held(&self) -> usize {
        self.runs.iter().map(|run| run.len()).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes()).sum()
    }

    pub(crate) fn get(&self, id: CellId) -> Option<Cell> {
        let found = self.runs.iter().filter_map(|run| run.only(id)).map(Arc::new).collect();
        merge_all(found)?.rows().next().map(|(_, cell)| cell)
    }

    /// The cells of an ad, over all campaigns that have it. Looks at every id, and sums up no other cell.
    pub(crate) fn of_ad(&self, ad_id: AdId) -> impl Iterator<Item = (CellId, Cell)> + use<> {
        rows_of(merge_all(self.runs.iter().filter_map(|run| run.only_ad(ad_id)).map(Arc::new).collect()))
    }

    /// In order. Merges them first, for this reader alone.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (CellId, Cell)> + use<> {
        rows_of(self.merged())
    }

    pub(crate) fn spends(&self) -> impl Iterator<Item = (CampaignId, Micros)> {
        self.runs.iter().flat_map(|run| run.spends())
    }

    fn merged(&self) -> Option<Arc<CellRun>> {
        merge_all(self.runs.clone())
    }
}

fn rows_of(run: Option<Arc<CellRun>>) -> impl Iterator<Item = (CellId, Cell)> {
    let mut cursor = Cursor::default();
    std::iter::from_fn(move || run.as_ref()?.next_row(&mut cursor))
}

/// The two smallest first, again and again (Huffman, 1952): the fewest steps.
fn merge_all(runs: Vec<Arc<CellRun>>) -> Option<Arc<CellRun>> {
    let mut waiting: BinaryHeap<Reverse<(usize, usize)>> =
        runs.iter().enumerate().map(|(at, run)| Reverse((run.len(), at))).collect();
    let mut runs: Vec<Option<Arc<CellRun>>> = runs.into_iter().map(Some).collect();
    loop {
        let Reverse((_, one)) = waiting.pop()?;
        let one = runs[one].take()?;
        let Some(Reverse((_, other))) = waiting.pop() else { return Some(one) };
        let other = runs[other].take()?;
        let merged = CellRun::merge(&one, &other);
        waiting.push(Reverse((merged.len(), runs.len())));
        runs.push(Some(Arc::new(merged)));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clicktally_proto::counts::cell_counts::Counts;
    use proptest::prelude::*;

    use super::*;
    use crate::windows::cell_run::tests::{Model, add, brought, run_of};

    /// A click of each of these ads.
    pub(crate) fn run_of_ads(index: u64, ads: impl IntoIterator<Item = u64>) -> CellRun {
        let click = (Counts { clicks: 1, ..Counts::default() }, 0);
        run_of(index, &ads.into_iter().map(|ad_id| ((1, ad_id), click.clone())).collect())
    }

    proptest! {
        /// Windows may be read and shared at any moment.
        #[test]
        fn runs_count_what_was_brought_and_stay_within_their_bounds(
            steps in proptest::collection::vec((brought(), any::<bool>()), 1..80)
        ) {
            let (mut runs, mut model) = (CellRuns::default(), Model::new());
            let mut held: Vec<(CellRuns, Model)> = Vec::new();
            for (index, (brought, is_shared)) in (1..).zip(&steps) {
                runs.push(run_of(index, brought), &mut MergeAllowance::of_an_apply());
                add(&mut model, index, brought);
                prop_assert!(runs.held() <= (NEWER_MAX + 1) * model.len(), "{} cells for {}", runs.held(), model.len());
                prop_assert!(runs.runs().len() <= RUNS_MAX);
                if *is_shared {
                    held.push((runs.clone(), model.clone()));
                }
            }
            held.push((runs, model));
            for (runs, model) in held {
                prop_assert_eq!(runs.cells().collect::<Model>(), model.clone());
                for (id, cell) in &model {
                    prop_assert_eq!(runs.get(*id), Some(cell.clone()));
                }
                prop_assert_eq!(runs.get((9, 9)), None);
                for ad_id in 0..9 {
                    let expected = model.clone().into_iter().filter(|(id, _)| id.1 == ad_id);
                    prop_assert!(runs.of_ad(ad_id).eq(expected), "cells of ad {}", ad_id);
                }
                let mut compact = runs.clone();
                compact.compact(&mut MergeAllowance::unlimited());
                prop_assert_eq!((compact.runs().len(), compact.held()), (1, model.len()));
                prop_assert!(compact.bytes() <= runs.bytes());
                prop_assert_eq!(&compact, &runs);
                let spent = model.values().map(|cell| cell.spend_micros()).sum::<Micros>();
                prop_assert_eq!(runs.spends().map(|(_, spend)| spend).sum::<Micros>(), spent);
            }
        }
    }

    #[test]
    fn many_small_runs_are_merged_with_each_other_and_not_each_time_with_the_large_one() {
        let mut runs = CellRuns::default();
        runs.push(run_of_ads(1, 0..50_000), &mut MergeAllowance::of_an_apply());
        let large = Arc::as_ptr(&runs.runs()[0]);
        for index in 2..2_000 {
            let small = (0..50).map(|n| (n * 31 + index) % 50_000);
            runs.push(run_of_ads(index, small), &mut MergeAllowance::of_an_apply());
            assert!(runs.runs().len() <= RUNS_MAX);
            assert_eq!(Arc::as_ptr(&runs.runs()[0]), large, "rewritten for {} cells", index * 50);
        }
        assert_eq!(runs.cells().map(|(_, cell)| cell.clicks()).sum::<u64>(), 50_000 + 1_998 * 50);
    }

    #[test]
    fn one_apply_merges_one_large_window_and_leaves_the_next_for_another() {
        let half = MERGED_PER_APPLY_MAX as u64 / 2;
        let run = |index| run_of_ads(index, index * half..(index + 1) * half);
        let mut windows = [CellRuns::default(), CellRuns::default()];
        for index in 0..NEWER_MAX as u64 {
            windows.iter_mut().for_each(|window| window.push(run(index), &mut MergeAllowance::of_an_apply()));
        }
        let mut allowance = MergeAllowance::of_an_apply();
        let last = NEWER_MAX as u64;
        windows.iter_mut().for_each(|window| window.push(run(last), &mut allowance));
        assert_eq!(windows.each_ref().map(|window| window.runs().len()), [1, NEWER_MAX + 1]);
        windows[1].push(run_of_ads(last + 1, 0..1), &mut MergeAllowance::of_an_apply());
        assert_eq!(windows[1].runs().len(), 1);
        assert_eq!(windows[1].held() as u64, (last + 1) * half);
    }

    #[test]
    fn nothing_is_in_no_runs() {
        assert_eq!(CellRuns::default().cells().count(), 0);
        assert_eq!(CellRuns::default().get((1, 1)), None);
    }
}
