//! The life of windows, driven by the group's watermark: fire, finalise, evict.

use clicktally_proto::fault::{Mutant, is_broken};

use crate::group_state::GroupState;
use crate::limits::HeldState;

impl GroupState {
    pub(super) fn advance_watermark(&mut self, index: u64) {
        self.shards.advance_watermark();
        let (rules, watermark_ms) = (self.event_time(), self.watermark_ms());
        if self.windows.pass(index, rules, watermark_ms) {
            self.publication.revised(index);
        }
        self.evict_windows();
    }

    /// A final window leaves once it is published and its time of grace for readers is over. While room is short,
    /// windows leave without that grace ([`crate::room`]).
    pub(super) fn evict_windows(&mut self) {
        let rules = self.event_time();
        let (watermark_ms, published) = (self.watermark_ms(), self.published_revision());
        let (grace_bytes_max, seen) = (self.grace_bytes_max(), self.seen.charge());
        self.windows.evict(|minute, window, cells| {
            let is_published = window.final_at.is_some_and(|revision| revision <= published);
            let is_published = is_published || (is_broken(Mutant::EvictedUnpublished) && window.final_at.is_some());
            let is_short_of_room = || HeldState { cells, seen }.bytes() > grace_bytes_max;
            is_published && (rules.is_evictable(minute, watermark_ms) || is_short_of_room())
        });
    }
}
