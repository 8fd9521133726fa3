//! Makes room in a group's state, or refuses a checkpoint for which there is none.
//!
//! **Why no verdict here can wait for itself.** Room comes from windows that leave: they are final, so the group's
//! watermark has passed them, and it is that of the shard furthest behind. So a refusal of *that* shard's clicks
//! keeps the room from coming. Hence three marks around the budget *B* and an eighth of it, *R*:
//!
//! * Above *B − R*, final windows leave as soon as they are published, oldest first; their grace is for readers only.
//! * Above *B*, what is held is first put together more tightly ([`crate::windows::cell_runs`]), as much of it as one
//!   apply may ([`crate::windows::cell_runs::MergeAllowance`]). If that is not enough, a checkpoint that would add
//!   anything is refused, unless its shard holds the group's watermark. One that adds nothing (an idle shard's proof
//!   of emptiness) always passes.
//! * Above *B + R*, every checkpoint that would add is refused. A process never grows beyond what was allowed.
//!
//! A shard that is refused proposes the same checkpoint again, and stops reading meanwhile; each try puts more
//! together. The shards behind go on within the reserve until they are no longer behind, the watermark moves, windows
//! become final, are published, and leave. That comes to a halt in one case only: the windows that are not final yet
//! are by themselves larger than *B + R*. Nothing can leave then without being wrong, so it stays so, visibly
//! (`clicktally_checkpoint_failures_total`, the log), until the budget is raised.

use std::sync::Arc;

use clicktally_proto::command::Rejection;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::ShardId;

use crate::group_state::GroupState;
use crate::limits::HeldState;
use crate::windows::cell_runs::MergeAllowance;

/// The reserve is this share of the budget.
const RESERVE_SHARE: u64 = 8;

impl GroupState {
    /// What apply has counted so far; [`GroupState::recounted`] comes to the same.
    pub fn held(&self) -> HeldState {
        self.held
    }

    /// Counted from scratch: as long as there are blocks of seen ids.
    pub(crate) fn recounted(&self) -> HeldState {
        let mut held = HeldState::default();
        for window in self.windows.values() {
            held.add_cells(&window.cells);
        }
        for block in self.seen.values().flat_map(|minutes| minutes.values()).flatten() {
            held.add_block(block);
        }
        held
    }

    pub(crate) fn recount(&mut self) {
        self.held = self.recounted();
    }

    fn budget(&self) -> u64 {
        self.settings.map_or(u64::MAX, |settings| settings.state_bytes_max)
    }

    /// Above it, final windows leave without their grace.
    pub(crate) fn is_short_of_room(&self, held: HeldState) -> bool {
        let budget = self.budget();
        held.bytes() > budget - budget / RESERVE_SHARE
    }

    /// May these be added, on behalf of a shard?
    pub(crate) fn make_room(
        &mut self,
        shard: ShardId,
        cell_bytes: u64,
        seen: &[SeenBlock],
        allowance: &mut MergeAllowance,
    ) -> Result<(), Rejection> {
        if cell_bytes == 0 && seen.is_empty() {
            return Ok(());
        }
        let budget = self.budget();
        let needed_bytes = |held: HeldState| {
            let mut after = held;
            seen.iter().for_each(|block| after.add_block(block));
            after.bytes() + cell_bytes
        };
        if needed_bytes(self.held) <= budget {
            return Ok(());
        }
        self.compact_windows(allowance, |held| needed_bytes(held) <= budget);
        let needed_bytes = needed_bytes(self.held);
        let holds_the_watermark = self.shards.get(&shard).is_some_and(|entry| entry.watermark_ms <= self.watermark_ms);
        let limit_bytes = if holds_the_watermark { budget.saturating_add(budget / RESERVE_SHARE) } else { budget };
        if needed_bytes <= limit_bytes { Ok(()) } else { Err(Rejection::StateFull { needed_bytes, limit_bytes }) }
    }

    /// Says the same with less: oldest windows first, until it is enough, passing over those that are more than may
    /// still be merged. It is no change that anybody could see, so it may come before a refusal.
    pub(crate) fn compact_windows(&mut self, allowance: &mut MergeAllowance, is_enough: impl Fn(HeldState) -> bool) {
        for window in self.windows.values_mut().filter(|window| window.cells.runs().len() > 1) {
            if is_enough(self.held) {
                return;
            }
            self.held.remove_cells(&window.cells);
            Arc::make_mut(window).cells.compact(allowance);
            self.held.add_cells(&window.cells);
        }
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::event_time::Minute;
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;
    use crate::windows::cell_runs::MERGED_PER_APPLY_MAX;
    use crate::windows::cell_runs::tests::run_of_ads;

    #[test]
    fn putting_together_what_is_held_is_spread_over_as_many_tries_as_it_takes() {
        let mut state = GroupState::new(GroupId(0));
        let third = MERGED_PER_APPLY_MAX as u64 / 3;
        for minute in 0..3 {
            let window = Arc::make_mut(state.windows.entry(Minute(minute)).or_default());
            (1..=2).for_each(|index| window.cells.restore(run_of_ads(index, 0..third)));
        }
        state.recount();
        let held_runs = |state: &GroupState| -> Vec<usize> {
            state.windows.values().map(|window| window.cells.runs().len()).collect()
        };
        let mut one_try = |is_enough: bool| {
            state.compact_windows(&mut MergeAllowance::of_an_apply(), |_| is_enough);
            assert_eq!(state.held(), state.recounted());
            held_runs(&state)
        };
        assert_eq!(one_try(true), [2, 2, 2], "there is room already");
        assert_eq!(one_try(false), [1, 2, 2], "a second window would be more than one apply may merge");
        assert_eq!(one_try(false), [1, 1, 2]);
        assert_eq!(one_try(false), [1, 1, 1]);
        assert_eq!(state.held().cells, 3 * third);
    }
}
