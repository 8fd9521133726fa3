//! Makes room in a group's state, or refuses a checkpoint for which there is none.
//!
//! **Why no refusal here can wait for itself.** Room comes from windows that leave. They are final, so the group's
//! watermark has passed them, and the watermark is that of the shard furthest behind. So refusing *that* shard's
//! clicks would prevent the room from coming. Hence three marks around the budget *B* and an eighth of it, *R*:
//!
//! * Above *B − R*, final windows leave as soon as they are published, oldest first. Their grace is for readers only.
//! * Above *B*, runs of cells are merged first ([`crate::windows::cell_runs`]), as many as one apply may merge
//!   ([`crate::windows::cell_runs::MergeAllowance`]). If that is not enough, a checkpoint that would add anything is
//!   refused, unless its shard holds the group's watermark. A checkpoint that adds nothing (an idle shard's proof of
//!   emptiness) always passes.
//! * Above *B + R*, every checkpoint that would add is refused. A process never grows beyond what was allowed.
//!
//! A refused shard proposes the same checkpoint again, and stops reading meanwhile. Each try merges more. The shards
//! behind continue within the reserve until they are no longer behind: the watermark moves, windows become final, are
//! published, and leave. This stops in one case only: the windows that are not final yet are by themselves larger than
//! *B + R*. No window can leave then without making counts wrong. So the shards wait, visibly
//! (`clicktally_checkpoint_failures_total`, the log), until an operator raises the budget.

use clicktally_proto::command::Rejection;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::ShardId;

use crate::group_state::GroupState;
use crate::limits::HeldState;
use crate::seen::SeenCharge;
use crate::windows::cell_runs::MergeAllowance;

/// The reserve is this share of the budget.
const RESERVE_SHARE: u64 = 8;

impl GroupState {
    fn budget(&self) -> u64 {
        self.settings.map_or(u64::MAX, |settings| settings.state_bytes_max)
    }

    /// The charge above which final windows leave without their grace.
    pub(crate) fn grace_bytes_max(&self) -> u64 {
        let budget = self.budget();
        budget - budget / RESERVE_SHARE
    }

    /// Decides whether a shard's checkpoint may add these cells and ids.
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
        let held_seen = self.seen.charge();
        let added_bytes = SeenCharge::of(seen).bytes() + cell_bytes;
        let needed_bytes = |cells| HeldState { cells, seen: held_seen }.bytes() + added_bytes;
        if needed_bytes(self.windows.charge()) <= budget {
            return Ok(());
        }
        self.windows.compact(allowance, |cells| needed_bytes(cells) <= budget);
        let needed_bytes = needed_bytes(self.windows.charge());
        let holds_the_watermark = self.shard(shard).is_some_and(|entry| entry.watermark_ms <= self.watermark_ms());
        let limit_bytes = if holds_the_watermark { budget.saturating_add(budget / RESERVE_SHARE) } else { budget };
        if needed_bytes <= limit_bytes { Ok(()) } else { Err(Rejection::StateFull { needed_bytes, limit_bytes }) }
    }
}
