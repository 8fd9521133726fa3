//! `[event_time]`: when a window fires, and how long it takes corrections.

use clicktally_proto::event_time::EventTimeRules;

use super::error::{ConfigError, invalid};
use super::section::section;
use crate::shard::LIVE_SPAN_MAX_MS;

/// A day: windows stay in memory for as long.
const RETAIN_FINAL_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

section! {
    #[derive(Debug)]
    ["event_time"] pub struct EventTimeSection {
        /// How far behind the newest click of a shard an on-time click may be.
        pub out_of_orderness_ms: u64 = EventTimeRules::default().out_of_orderness_ms, in 0..=LIVE_SPAN_MAX_MS;
        /// For how long after its end a window takes corrections. A later click is not counted, but invoiced.
        pub allowed_lateness_ms: u64 = EventTimeRules::default().allowed_lateness_ms, in 0..=LIVE_SPAN_MAX_MS;
        /// For how long after it became final a window stays readable in replicated state.
        pub retain_final_ms: u64 = EventTimeRules::default().retain_final_ms, in 0..=RETAIN_FINAL_MS_MAX;
        /// A click further ahead of its arrival is refused at capture, and quarantined if it comes by the log.
        pub max_ahead_ms: u64 = EventTimeRules::default().max_ahead_ms, in 0..=LIVE_SPAN_MAX_MS;
    }
}

impl EventTimeSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_keys()?;
        let span_ms = self.allowed_lateness_ms.saturating_add(self.out_of_orderness_ms);
        if span_ms.saturating_add(self.max_ahead_ms) > LIVE_SPAN_MAX_MS {
            return invalid(format!(
                "event_time: allowed_lateness_ms, out_of_orderness_ms and max_ahead_ms together must be at most \
                 {LIVE_SPAN_MAX_MS}"
            ));
        }
        Ok(())
    }

    pub(super) fn rules(&self) -> EventTimeRules {
        let EventTimeSection { out_of_orderness_ms, allowed_lateness_ms, retain_final_ms, max_ahead_ms } = *self;
        EventTimeRules { out_of_orderness_ms, allowed_lateness_ms, retain_final_ms, max_ahead_ms }
    }
}
