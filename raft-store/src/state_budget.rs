//! How much memory a group's state may take, and who has to wait where it is taken.
//!
//! Memory is counted by a law of our own, not measured: every replica must come to the same verdict, also one of another build. It
//! counts what grows with traffic: cells with their sketches of users, and seen ids. [`HeldState`] is kept up to date by apply, and derived again from a snapshot.
//!
//! **Why no verdict here can wait for itself.** Room comes from windows that leave: they are final, so the group's watermark has passed
//! them, and it is that of the shard furthest behind. So whoever refuses *that* shard's clicks keeps the room from coming. Hence three
//! marks around the budget *B* and an eighth of it, *R*:
//!
//! * Above *B − R*, final windows leave as soon as they are published, oldest first; their grace is for readers only.
//! * Above *B*, a checkpoint that would add anything is refused, unless its shard holds the group's watermark. One that adds
//!   nothing (an idle shard's proof of emptiness, clicks of cells that are there and bring no ids) always passes.
//! * Above *B + R*, every checkpoint that would add is refused. A process never grows beyond what was allowed.
//!
//! A shard that is refused proposes the same checkpoint again, and stops reading meanwhile. The shards behind go on within the
//! reserve until they are no longer behind, the watermark moves, windows become final, are published, and leave. That comes to a
//! halt in one case only: the windows that are not final yet are by themselves larger than *B + R*. Nothing can leave then without being
//! wrong, so it stays so, visibly (`clicktally_checkpoint_failures_total`, the log), until the budget is raised.

use clicktally_proto::command::Rejection;
use clicktally_proto::seen_ids::SeenBlock;
use clicktally_proto::shard_key::ShardId;
use clicktally_proto::window_cells::WindowCells;

use crate::state::GroupState;
use crate::window::Window;

/// A cell in its table, however full that is; `a_cell_fits_what_it_is_charged` compares. A change of it changes the replicated law.
pub const CELL_BYTES: u64 = 160;
/// What a block of seen ids takes beside its ids.
pub const SEEN_BLOCK_BYTES: u64 = 96;
/// The reserve is this share of the budget.
const RESERVE_SHARE: u64 = 8;

/// What of a state grows with traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldState {
    pub cells: u64,
    /// Of the cells' sketches of users, beside the cells.
    pub sketch_bytes: u64,
    pub seen_blocks: u64,
    /// Of the packed ids.
    pub seen_bytes: u64,
}

impl HeldState {
    /// Bytes of memory, by the law above.
    pub fn bytes(self) -> u64 {
        self.cells * CELL_BYTES + self.sketch_bytes + self.seen_blocks * SEEN_BLOCK_BYTES + self.seen_bytes
    }

    pub(crate) fn add_block(&mut self, block: &SeenBlock) {
        self.seen_blocks += 1;
        self.seen_bytes += block.packed_bytes() as u64;
    }

    pub(crate) fn remove_block(&mut self, block: &SeenBlock) {
        self.seen_blocks -= 1;
        self.seen_bytes -= block.packed_bytes() as u64;
    }

    pub(crate) fn remove_window(&mut self, window: &Window) {
        self.cells -= window.cell_count() as u64;
        self.sketch_bytes -= window.sketch_bytes();
    }
}

impl GroupState {
    /// What apply has counted so far; [`GroupState::recounted`] comes to the same.
    pub fn held(&self) -> HeldState {
        self.held
    }

    /// Counted from scratch: as long as there are blocks of seen ids.
    pub(crate) fn recounted(&self) -> HeldState {
        let mut held = HeldState::default();
        for window in self.windows.values() {
            held.cells += window.cell_count() as u64;
            held.sketch_bytes += window.sketch_bytes();
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
    pub(crate) fn check_room(
        &self,
        shard: ShardId,
        windows: &[WindowCells],
        seen: &[SeenBlock],
    ) -> Result<(), Rejection> {
        let budget = self.budget();
        let mut after = self.held;
        seen.iter().for_each(|block| after.add_block(block));
        let users = windows.iter().flat_map(|cells| &cells.users);
        after.sketch_bytes += users.map(|(_, users)| users.growth_bytes_max() as u64).sum::<u64>();
        let with_new = |cells: u64| HeldState { cells: after.cells + cells, ..after }.bytes();
        // Looking every cell up costs as much as merging it: not while there is room for all of them.
        if with_new(windows.iter().map(|cells| cells.len() as u64).sum()) <= budget {
            return Ok(());
        }
        let new_in = |cells: &WindowCells| match self.windows.get(&cells.minute) {
            Some(window) => cells.ids.iter().filter(|(campaign, ad)| window.cell(*campaign, *ad).is_none()).count(),
            None => cells.len(),
        };
        let needed_bytes = with_new(windows.iter().map(|cells| new_in(cells) as u64).sum());
        let holds_the_watermark = self.shards.get(&shard).is_some_and(|entry| entry.watermark_ms <= self.watermark_ms);
        let limit_bytes = if holds_the_watermark { budget.saturating_add(budget / RESERVE_SHARE) } else { budget };
        if needed_bytes == self.held.bytes() || needed_bytes <= limit_bytes {
            return Ok(());
        }
        Err(Rejection::StateFull { needed_bytes, limit_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Cell, Rare};
    use crate::cell_table::CellId;

    #[test]
    fn a_cell_fits_what_it_is_charged() {
        // A hash table keeps a byte beside each slot and is at its emptiest 7/16 full, after it has grown.
        let slot = size_of::<(CellId, Cell)>() + 1;
        // What has an allocation of its own has the allocator's word beside it, too.
        let bytes = (slot * 16).div_ceil(7) + size_of::<Rare>() + size_of::<usize>();
        assert!(bytes as u64 <= CELL_BYTES, "a cell may take {bytes} bytes");
    }
}
