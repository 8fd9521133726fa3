//! Which view answers for which minute. Pure, so that a test can show that no minute is counted twice or left out.
//!
//! 1. The batch, if a run over the whole day is complete: it has seen every click, and invoices come from it.
//! 2. The replicated state, if every group covers the minute.
//! 3. If only some groups still hold the minute, its rows may not all be published. Those groups answer from their
//!    state, the others from PostgreSQL.
//! 4. The rows that the stream wrote to PostgreSQL.

use std::collections::BTreeSet;

use clicktally_proto::event_time::Minute;

use super::group_view::GroupView;
use super::minute_range::MinuteRange;

const MINUTES_PER_DAY: u32 = 24 * 60;

/// A day by its number since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpochDay(pub u32);

impl EpochDay {
    pub fn of(minute: Minute) -> EpochDay {
        EpochDay(minute.0 / MINUTES_PER_DAY)
    }

    /// Exclusive.
    pub fn end(self) -> Minute {
        Minute((self.0 + 1) * MINUTES_PER_DAY)
    }
}

/// The parts are disjoint and together are exactly the minutes of the query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub batch: Vec<MinuteRange>,
    pub state: Vec<MinuteRange>,
    pub lingering: Vec<Minute>,
    pub history: Vec<MinuteRange>,
}

impl Plan {
    pub fn needs_stream_history(&self) -> bool {
        !self.lingering.is_empty() || !self.history.is_empty()
    }
}

pub fn plan(range: MinuteRange, views: &[GroupView], batch_days: &BTreeSet<EpochDay>) -> Plan {
    let mut plan = Plan::default();
    for minute in range.minutes() {
        if batch_days.contains(&EpochDay::of(minute)) {
            extend(&mut plan.batch, minute);
        } else if views.iter().all(|view| view.covers(minute)) {
            extend(&mut plan.state, minute);
        } else if views.iter().any(|view| view.windows.contains_key(&minute)) {
            plan.lingering.push(minute);
        } else {
            extend(&mut plan.history, minute);
        }
    }
    plan
}

/// Minutes arrive in ascending order: one that continues the last range extends it.
fn extend(ranges: &mut Vec<MinuteRange>, minute: Minute) {
    let next = Minute(minute.0 + 1);
    match ranges.last_mut() {
        Some(last) if last.to == minute => last.to = next,
        _ => ranges.push(MinuteRange { from: minute, to: next }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use clicktally_proto::event_time::{EventTimeRules, WINDOW_MS};
    use clicktally_state::windows::Window;
    use proptest::prelude::*;

    use super::*;

    /// A group whose watermark is at the start of this minute, and that holds these minutes, without clicks.
    pub(in crate::queries) fn view(watermark_minute: u32, held: &[u32]) -> GroupView {
        GroupView {
            rules: EventTimeRules::default(),
            watermark_ms: u64::from(watermark_minute) * WINDOW_MS,
            complete_to_ms: 0,
            staleness: None,
            windows: held
                .iter()
                .map(|minute| (Minute(*minute), Arc::new(Window::default())))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    fn range(from: u32, to: u32) -> MinuteRange {
        MinuteRange { from: Minute(from), to: Minute(to) }
    }

    #[test]
    fn young_minutes_come_from_the_state_and_old_ones_from_postgresql() {
        // A window is final, and may leave, once the watermark is 15 minutes past its end.
        let plan = plan(range(1_000, 1_100), &[view(1_100, &[1_083, 1_084])], &BTreeSet::new());
        assert_eq!(plan.history, [range(1_000, 1_083)]);
        assert_eq!(plan.state, [range(1_083, 1_100)]);
        assert!(plan.lingering.is_empty() && plan.batch.is_empty());
    }

    #[test]
    fn a_final_minute_that_left_early_for_want_of_room_is_not_read_as_empty() {
        let plan = plan(range(1_080, 1_083), &[view(1_100, &[1_080, 1_082])], &BTreeSet::new());
        assert_eq!(plan.history, [range(1_081, 1_082)]);
        assert_eq!(plan.state, [range(1_080, 1_081), range(1_082, 1_083)]);
    }

    #[test]
    fn an_unpublished_window_is_still_asked_of_the_group_that_holds_it() {
        let plan = plan(range(1_000, 1_003), &[view(1_100, &[1_001]), view(1_100, &[])], &BTreeSet::new());
        assert_eq!(plan.lingering, [Minute(1_001)]);
        assert_eq!(plan.history, [range(1_000, 1_001), range(1_002, 1_003)]);
    }

    #[test]
    fn the_batch_comes_first() {
        let plan = plan(range(1_430, 1_450), &[view(1_450, &[])], &BTreeSet::from([EpochDay(0)]));
        assert_eq!((plan.batch, plan.state), (vec![range(1_430, 1_440)], vec![range(1_440, 1_450)]));
    }

    proptest! {
        #[test]
        fn every_minute_is_answered_exactly_once(
            from in 1_300_u32..1_500, length in 1_u32..200, watermarks in proptest::collection::vec(1_300_u32..1_700, 1..4),
            held in proptest::collection::btree_set(1_300_u32..1_700, 0..40), is_batched in any::<bool>(),
        ) {
            let held: Vec<u32> = held.into_iter().collect();
            let views: Vec<GroupView> = watermarks.iter().map(|minute| view(*minute, &held)).collect();
            let batch_days = if is_batched { BTreeSet::from([EpochDay(0)]) } else { BTreeSet::new() };
            let plan = plan(range(from, from + length), &views, &batch_days);
            let mut minutes: Vec<Minute> = plan.batch.iter().chain(&plan.state).chain(&plan.history).flat_map(|r| r.minutes()).collect();
            minutes.extend(&plan.lingering);
            minutes.sort_unstable();
            prop_assert_eq!(minutes, range(from, from + length).minutes().collect::<Vec<_>>());
        }
    }
}
