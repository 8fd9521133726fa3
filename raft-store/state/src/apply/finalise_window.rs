//! The life of windows, driven by the group watermark: fire, finalise, evict.

use std::sync::Arc;

use clicktally_proto::fault::{Mutant, is_broken};

use crate::group_state::GroupState;

impl GroupState {
    /// The group watermark is the least of its shards' watermarks, and never goes back: a shard never read, or one
    /// whose owner is gone, holds it where it is.
    pub(super) fn advance_watermark(&mut self, index: u64) {
        let lowest = self.shards.values().map(|shard| shard.watermark_ms).min().unwrap_or(0);
        self.watermark_ms = self.watermark_ms.max(lowest);
        if is_broken(Mutant::WatermarkGoesBack) {
            self.watermark_ms = lowest;
        }
        let rules = self.event_time();
        let watermark_ms = self.watermark_ms;
        for (&minute, window) in &mut self.windows {
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
            self.newest_revision = index;
        }
        self.evict_windows();
    }

    /// A final window leaves once it is published and its time of grace for readers is over; without that grace,
    /// oldest first, while room is short ([`crate::limits`]).
    pub(super) fn evict_windows(&mut self) {
        let rules = self.event_time();
        let (watermark_ms, published) = (self.watermark_ms, self.published_revision);
        let mut windows = std::mem::take(&mut self.windows);
        let mut held = self.held;
        windows.retain(|minute, window| {
            let is_published = window.final_at.is_some_and(|revision| revision <= published);
            let is_published = is_published || (is_broken(Mutant::EvictedUnpublished) && window.final_at.is_some());
            let leaves = is_published && (rules.is_evictable(*minute, watermark_ms) || self.is_short_of_room(held));
            if leaves {
                held.remove_cells(&window.cells);
            }
            !leaves
        });
        self.windows = windows;
        self.held = held;
    }
}
