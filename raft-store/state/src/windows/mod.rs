//! The minutes that still count: their cells, kept as sorted runs, and how far the life of each has come.

pub(crate) mod cell;
pub(crate) mod cell_run;
pub(crate) mod cell_runs;
pub(crate) mod window;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use clicktally_proto::event_time::{EventTimeRules, Minute, UnixMillis};

pub use self::cell::Cell;
pub use self::window::Window;
use crate::check::{BrokenInvariant, require};
use crate::windows::cell_run::CellRun;
use crate::windows::cell_runs::{CellRuns, MergeAllowance};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    minutes: BTreeMap<Minute, Arc<Window>>,
    charge: CellCharge,
}

/// What cells are charged by the law of [`crate::limits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CellCharge {
    /// A cell counts as often as there are runs that have it.
    pub cells: u64,
    pub bytes: u64,
}

impl CellCharge {
    fn add(&mut self, cells: &CellRuns) {
        self.cells += cells.held() as u64;
        self.bytes += cells.bytes();
    }

    fn remove(&mut self, cells: &CellRuns) {
        let (held, bytes) = (cells.held() as u64, cells.bytes());
        debug_assert!(self.cells >= held && self.bytes >= bytes, "cells leave that were never charged");
        self.cells -= held;
        self.bytes -= bytes;
    }
}

impl Windows {
    /// Cheap to clone: pointers to windows, by minute.
    pub fn minutes(&self) -> &BTreeMap<Minute, Arc<Window>> {
        &self.minutes
    }

    pub fn charge(&self) -> CellCharge {
        self.charge
    }

    /// Adds what one checkpoint counted of a minute. Returns whether that is a revision of a fired window.
    pub(crate) fn add(&mut self, minute: Minute, run: CellRun, allowance: &mut MergeAllowance) -> bool {
        let window = Arc::make_mut(self.minutes.entry(minute).or_default());
        debug_assert!(window.final_at.is_none(), "a final window takes no more clicks");
        self.charge.remove(&window.cells);
        window.add(run, allowance);
        self.charge.add(&window.cells);
        window.fired_at.is_some()
    }

    /// Fires and finalises the windows that the group's watermark has passed, as of the entry at `index`. Returns
    /// whether any window did either.
    pub(crate) fn pass(&mut self, index: u64, rules: EventTimeRules, watermark_ms: UnixMillis) -> bool {
        let mut has_changed = false;
        for (&minute, window) in &mut self.minutes {
            let fires = window.fired_at.is_none() && rules.has_fired(minute, watermark_ms);
            let finalises = window.final_at.is_none() && rules.is_final(minute, watermark_ms);
            if !fires && !finalises {
                continue;
            }
            let window = Arc::make_mut(window);
            window.fired_at.get_or_insert(index);
            if finalises {
                window.final_at = Some(index);
            }
            has_changed = true;
        }
        has_changed
    }

    /// Removes the windows that may leave, oldest first. `leaves` is told what all cells are charged at that moment.
    pub(crate) fn evict(&mut self, leaves: impl Fn(Minute, &Window, CellCharge) -> bool) {
        let charge = &mut self.charge;
        self.minutes.retain(|minute, window| {
            let leaves = leaves(*minute, window, *charge);
            if leaves {
                charge.remove(&window.cells);
            }
            !leaves
        });
    }

    /// Merges runs, oldest windows first, until it is enough. Skips a window if its runs have more cells than may
    /// still be merged. No reader sees a difference, so this may precede a refusal.
    pub(crate) fn compact(&mut self, allowance: &mut MergeAllowance, is_enough: impl Fn(CellCharge) -> bool) {
        for window in self.minutes.values_mut().filter(|window| window.cells.runs().len() > 1) {
            if is_enough(self.charge) {
                return;
            }
            self.charge.remove(&window.cells);
            Arc::make_mut(window).cells.compact(allowance);
            self.charge.add(&window.cells);
        }
    }

    /// For the reader of a snapshot. Returns whether the minute is new.
    pub(crate) fn restore(&mut self, minute: Minute, window: Window) -> bool {
        match self.minutes.entry(minute) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                self.charge.add(&window.cells);
                vacant.insert(Arc::new(window));
                true
            }
        }
    }

    /// The charge, counted from scratch: takes as long as there are runs.
    pub(crate) fn recount(&self) -> CellCharge {
        let mut charge = CellCharge::default();
        self.minutes.values().for_each(|window| charge.add(&window.cells));
        charge
    }

    pub(crate) fn check(
        &self,
        rules: EventTimeRules,
        watermark_ms: UnixMillis,
        newest_revision: u64,
    ) -> Result<(), BrokenInvariant> {
        for (minute, window) in &self.minutes {
            let told = || {
                let (fired_at, final_at, changed_at) = (window.fired_at, window.final_at, window.changed_at);
                format!("minute {}: fired {fired_at:?}, final {final_at:?}, changed {changed_at}", minute.0)
            };
            let is_ordered = window.final_at.is_none_or(|last| window.fired_at.is_some_and(|fired| fired <= last));
            require(is_ordered, "a window fires before it is final", told)?;
            let is_closed = window.final_at.is_none_or(|last| window.changed_at <= last);
            require(is_closed, "a final window takes no more clicks", told)?;
            let is_due = window.fired_at.is_none() || rules.has_fired(*minute, watermark_ms);
            require(is_due, "a window fires only once the watermark has passed its end", told)?;
            let is_counted = window.newest_revision().is_none_or(|revision| revision <= newest_revision);
            require(is_counted, "no window is newer than the newest revision", told)?;
        }
        let (charge, recount) = (self.charge, self.recount());
        require(charge == recount, "the charge of cells is that of a recount", || format!("{charge:?}, {recount:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::assert_breaks;
    use crate::windows::cell_runs::MERGED_PER_APPLY_MAX;
    use crate::windows::cell_runs::tests::run_of_ads;

    #[test]
    fn merging_what_is_held_is_spread_over_as_many_tries_as_it_takes() {
        let mut windows = Windows::default();
        let third = MERGED_PER_APPLY_MAX as u64 / 3;
        for minute in 0..3 {
            let mut window = Window::default();
            (1..=2).for_each(|index| window.cells.restore(run_of_ads(index, 0..third)));
            assert!(windows.restore(Minute(minute), window));
        }
        let held_runs = |windows: &Windows| -> Vec<usize> {
            windows.minutes.values().map(|window| window.cells.runs().len()).collect()
        };
        let mut one_try = |is_enough: bool| {
            windows.compact(&mut MergeAllowance::of_an_apply(), |_| is_enough);
            assert_eq!(windows.charge(), windows.recount());
            held_runs(&windows)
        };
        assert_eq!(one_try(true), [2, 2, 2], "there is room already");
        assert_eq!(one_try(false), [1, 2, 2], "a second window would be more than one apply may merge");
        assert_eq!(one_try(false), [1, 1, 2]);
        assert_eq!(one_try(false), [1, 1, 1]);
        assert_eq!(windows.charge().cells, 3 * third);
    }

    #[test]
    fn each_rule_is_broken_once() {
        let (rules, minute) = (EventTimeRules::default(), Minute(5));
        let checked = |fired_at, final_at, changed_at, watermark_ms| {
            let mut windows = Windows::default();
            assert!(windows.restore(minute, Window { fired_at, final_at, changed_at, ..Window::default() }));
            assert!(!windows.restore(minute, Window::default()), "a minute has one window");
            windows.check(rules, watermark_ms, 2)
        };
        checked(Some(1), Some(2), 2, minute.end_ms()).unwrap();
        assert_breaks(checked(None, Some(1), 0, minute.end_ms()), "a window fires before it is final");
        assert_breaks(checked(Some(1), Some(1), 2, minute.end_ms()), "a final window takes no more clicks");
        assert_breaks(checked(Some(1), None, 0, 0), "a window fires only once the watermark has passed its end");
        assert_breaks(checked(Some(3), None, 0, minute.end_ms()), "no window is newer than the newest revision");
        let miscounted = Windows { charge: CellCharge { cells: 1, bytes: 0 }, ..Windows::default() };
        assert_breaks(miscounted.check(rules, 0, 0), "the charge of cells is that of a recount");
    }
}
